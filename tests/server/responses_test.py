"""/v1/responses as the official openai client meets it, over all three demo models.

  responses_test.py MINIMAX [-k PATTERN]
"""

import json
import sys
import unittest

import openai
import serve_test

TOOLS = [
    {"type": "function", "name": "set_timer", "description": "Start a timer.", "strict": True,
     "parameters": {"type": "object", "properties": {"minutes": {"type": "integer"}}, "required": ["minutes"]}},
    {"type": "function", "name": "get_weather", "description": "Get the weather of a city.",
     "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
                    "required": ["city", "days"]}},
]
MODELS = ("demo-m1", "demo-m2", "demo-m3")
MARKUP = ("think>", "tool_call", "<invoke", "]minimax[", "<parameter", "[e~[", "_of_sentence>")


def texts_of(response):
    """The texts of a response's items, in order."""
    found = []
    for item in response.output:
        if item.type == "reasoning":
            found += [("reasoning", part.text) for part in item.content]
        elif item.type == "message":
            found += [("text", part.text) for part in item.content]
        else:
            found.append((item.name, item.arguments))
    return found


class Responses(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.servers = {model: serve_test.Server(model, "--max-num-seqs", "8") for model in MODELS}
        cls.clients = {model: server.client() for model, server in cls.servers.items()}

    @classmethod
    def tearDownClass(cls):
        for client in cls.clients.values():
            client.close()
        codes = [server.stop() for server in cls.servers.values()]
        assert codes == [0] * len(codes), codes

    def each(self):
        return self.clients.items()

    def ask(self, model, question, **options):
        settings = {"temperature": 0, "max_output_tokens": 600, **options}
        return self.clients[model].responses.create(model=model, input=question, **settings)

    def test_an_answer_has_reasoning_and_text(self):
        for model, _ in self.each():
            response = self.ask(model, "What is 47 * 36?", instructions="You are exact.", metadata={"run": "1"})
            self.assertEqual((response.status, response.object), ("completed", "response"))
            self.assertIn("1692", response.output_text)
            self.assertEqual(response.output[-1].type, "message")
            if model != "demo-m1":
                self.assertEqual(response.output[0].type, "reasoning")
                self.assertGreater(response.usage.output_tokens_details.reasoning_tokens, 5)
            for _, text in texts_of(response):
                for markup in MARKUP:
                    self.assertNotIn(markup, text)
            usage = response.usage
            self.assertEqual(usage.total_tokens, usage.input_tokens + usage.output_tokens)
            self.assertEqual((response.metadata, response.instructions), ({"run": "1"}, "You are exact."))
            self.assertEqual((response.temperature, response.max_output_tokens), (0, 600))

    def test_events_are_numbered_nested_and_add_up(self):
        for model, _ in self.each():
            for question, options in (("What is 47 * 36?", {}), ("Set a timer for 17 minutes.", {"tools": TOOLS})):
                whole = self.ask(model, question, **options)
                events = list(self.ask(model, question, stream=True, **options))
                self.assertEqual([e.sequence_number for e in events], list(range(len(events))))
                kinds = [e.type for e in events]
                self.assertEqual(kinds[:2], ["response.created", "response.in_progress"])
                self.assertEqual(kinds[-1], "response.completed")
                self.assertEqual(events[0].response.output, [])
                self.check_nesting(events[2:-1])
                final = events[-1].response
                self.assertEqual(texts_of(final), texts_of(whole))
                self.assertEqual([e.item for e in events if e.type == "response.output_item.done"], final.output)
                self.assertEqual(final.usage.output_tokens, whole.usage.output_tokens)

    def check_nesting(self, events):
        """Each item opens, has its parts and closes before the next; deltas add up to what is done."""
        text, item, index = "", None, -1
        for event in events:
            if event.type == "response.output_item.added":
                self.assertIsNone(item)
                item, text, index = event.item, "", index + 1
                self.assertEqual(item.status, "in_progress")
            self.assertEqual(event.output_index, index)
            if hasattr(event, "item_id"):
                self.assertEqual(event.item_id, item.id)
            if event.type.endswith(".delta"):
                self.assertTrue(event.delta)
                text += event.delta
            elif event.type == "response.function_call_arguments.done":
                self.assertEqual(event.arguments, text)
            elif event.type in ("response.output_text.done", "response.reasoning_text.done"):
                self.assertEqual(event.text, text)
            elif event.type == "response.output_item.done":
                self.assertEqual((event.item.id, event.item.status), (item.id, "completed"))
                item = None
        self.assertIsNone(item)

    def test_the_clients_own_accumulation(self):
        for model, client in self.each():
            with client.responses.stream(
                model=model, input="Set a timer for 17 minutes.", tools=TOOLS, temperature=0, max_output_tokens=600
            ) as stream:
                kinds = {event.type for event in stream}
                final = stream.get_final_response()
            self.assertIn("response.function_call_arguments.delta", kinds)
            self.assertEqual(json.loads(final.output[-1].arguments), {"minutes": 17})

    def test_tools_in_two_turns_by_items(self):
        for model, _ in self.each():
            items = [{"role": "user", "content": "Set a timer for 17 minutes."}]
            first = self.ask(model, items, tools=TOOLS, store=False)
            [call] = [item for item in first.output if item.type == "function_call"]
            self.assertEqual((call.name, json.loads(call.arguments)), ("set_timer", {"minutes": 17}))
            items += [item.model_dump(exclude_none=True) for item in first.output]
            items.append({"type": "function_call_output", "call_id": call.call_id, "output": "amber 42"})
            second = self.ask(model, items, tools=TOOLS, store=False)
            self.assertIn("amber 42", second.output_text)
            self.assertEqual(second.status, "completed")

    def test_tools_in_two_turns_by_the_answers_name(self):
        for model, client in self.each():
            first = self.ask(model, "Set a timer for 17 minutes.", tools=TOOLS)
            self.assertTrue(first.store)
            [call] = [item for item in first.output if item.type == "function_call"]
            result = [{"type": "function_call_output", "call_id": call.call_id, "output": "amber 42"}]
            second = self.ask(model, result, tools=TOOLS, previous_response_id=first.id)
            self.assertIn("amber 42", second.output_text)
            self.assertEqual(second.previous_response_id, first.id)
            # The same conversation, sent as items.
            items = [{"role": "user", "content": "Set a timer for 17 minutes."}]
            items += [item.model_dump(exclude_none=True) for item in first.output] + result
            self.assertEqual(texts_of(self.ask(model, items, tools=TOOLS)), texts_of(second))

            self.assertEqual(client.responses.retrieve(first.id), first)
            client.responses.delete(first.id)
            with self.assertRaises(openai.NotFoundError):
                client.responses.retrieve(first.id)
            with self.assertRaises(openai.NotFoundError) as caught:
                self.ask(model, "x", previous_response_id=first.id)
            self.assertEqual(caught.exception.code, "previous_response_not_found")

    def test_reasoning_comes_back_however_it_was_kept(self):
        """The prompt is the same whether a client keeps the text of reasoning or its opaque form alone."""
        for model, _ in self.each():
            if model == "demo-m1":
                continue
            question = {"role": "user", "content": "What is the weather in Paris for 3 days?"}
            first = self.ask(model, [question], tools=TOOLS, include=["reasoning.encrypted_content"])
            kept = [item.model_dump(exclude_none=True) for item in first.output]
            self.assertEqual([item["type"] for item in kept][0], "reasoning")
            [call] = [item for item in kept if item["type"] == "function_call"]
            result = {"type": "function_call_output", "call_id": call["call_id"], "output": "sun"}
            counts = []
            for fields in (("content", "encrypted_content"), ("content",), ("encrypted_content",), ()):
                reasoning = {k: v for k, v in kept[0].items() if k in ("type", "id", "summary") + fields}
                answer = self.ask(model, [question, reasoning, *kept[1:], result], tools=TOOLS)
                counts.append(answer.usage.input_tokens)
            self.assertEqual(counts[0], counts[1])
            self.assertEqual(counts[0], counts[2])
            self.assertGreater(counts[0], counts[3])

    def test_choices_of_tools(self):
        for model, _ in self.each():
            named = self.ask(model, "Hello", tools=TOOLS, tool_choice={"type": "function", "name": "set_timer"})
            self.assertEqual([i.name for i in named.output if i.type == "function_call"], ["set_timer"])
            self.assertEqual(set(json.loads(named.output[-1].arguments)), {"minutes"})
            only = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "get_weather"}]}
            allowed = self.ask(model, "Hello", tools=TOOLS, tool_choice=only, parallel_tool_calls=False)
            self.assertEqual([i.name for i in allowed.output if i.type == "function_call"], ["get_weather"])
            none = self.ask(model, "Reverse the word STONE.", tools=TOOLS, tool_choice="none")
            self.assertIn("ENOTS", none.output_text)
            # What the provider would run is left out, since clients offer it unasked.
            plain = self.ask(model, "Reverse the word STONE.", tools=[{"type": "web_search"}])
            self.assertEqual(plain.tools, [])

    def test_forms_of_text(self):
        schema = {"type": "object", "properties": {"result": {"type": "integer"}}, "required": ["result"],
                  "additionalProperties": False}
        formats = (
            {"type": "json_schema", "name": "answer", "schema": schema, "strict": True},
            {"type": "json_object"},
        )
        for model, _ in self.each():
            for form in formats:
                response = self.ask(model, "What is 47 * 36?", text={"format": form}, max_output_tokens=2000)
                if response.status == "completed":
                    self.assertIsInstance(json.loads(response.output_text), dict)
                else:
                    self.assertEqual(form, formats[1])  # an object without a schema may be longer than any limit
            self.assertIsInstance(
                json.loads(self.ask(model, "What is 2 * 3?", text={"format": formats[0]}).output_text)["result"], int
            )

    def test_the_limit_is_told(self):
        for model, _ in self.each():
            whole = self.ask(model, "Set a timer for 17 minutes.", tools=TOOLS)
            most = whole.usage.output_tokens - 12
            cut = self.ask(model, "Set a timer for 17 minutes.", tools=TOOLS, max_output_tokens=most)
            self.assertEqual((cut.status, cut.incomplete_details.reason), ("incomplete", "max_output_tokens"))
            self.assertEqual([i for i in cut.output if i.type == "function_call"], [])
            events = list(
                self.ask(model, "Set a timer for 17 minutes.", tools=TOOLS, max_output_tokens=most, stream=True)
            )
            self.assertEqual(events[-1].type, "response.incomplete")
            self.assertEqual(texts_of(events[-1].response), texts_of(cut))

    def test_system_messages_become_one(self):
        for model, _ in self.each():
            items = [
                {"role": "system", "content": "One."},
                {"role": "developer", "content": [{"type": "input_text", "text": "Two."}]},
                {"role": "user", "content": "Who are you?"},
            ]
            parts = self.ask(model, items, instructions="Zero.", max_output_tokens=1)
            whole = self.ask(model, items[2:], instructions="Zero.\n\nOne.\n\nTwo.", max_output_tokens=1)
            self.assertEqual(parts.usage.input_tokens, whole.usage.input_tokens)

    def test_tokens_are_counted_as_they_are_used(self):
        for model, client in self.each():
            body = {"model": model, "input": "What is 3 + 4?", "instructions": "Be brief.", "tools": TOOLS}
            counted = client.responses.input_tokens.count(**body)
            self.assertEqual(counted.input_tokens, client.responses.create(**body, max_output_tokens=1).usage.input_tokens)

    def test_cached_tokens(self):
        for model, _ in self.each():
            question = "Sort these numbers from largest to smallest: " + ", ".join(map(str, range(10, 80)))
            self.ask(model, question, max_output_tokens=2)
            again = self.ask(model, question, max_output_tokens=2)
            self.assertGreaterEqual(again.usage.input_tokens_details.cached_tokens, 64)

    def test_refusals_name_the_field(self):
        image = [{"role": "user", "content": [{"type": "input_image", "image_url": "data:,"}]}]
        cases = [
            ({"input": None}, "input"), ({"input": []}, "input"), ({"input": 5}, "input"), ({"input": [5]}, "input"),
            ({"input": image}, "input"), ({"input": [{"type": "item_reference", "id": "x"}]}, "input"),
            ({"input": [{"role": "user"}]}, "input"), ({"input": [{"role": "king", "content": "x"}]}, "input"),
            ({"input": [{"type": "function_call", "name": "f", "call_id": "c", "arguments": "{"}]}, "input"),
            ({"input": [{"type": "function_call_output", "call_id": "c"}]}, "input"),
            ({"input": [{"type": "reasoning", "content": 3}]}, "input"),
            ({"max_output_tokens": 0}, "max_output_tokens"), ({"temperature": 9}, "temperature"),
            ({"tools": [{"type": "file_search"}]}, "tools"), ({"tools": [{"type": "function"}]}, "tools"),
            ({"tools": 3}, "tools"), ({"tool_choice": "sometimes"}, "tool_choice"),
            ({"tool_choice": {"type": "web_search"}}, "tool_choice"),
            ({"tools": TOOLS, "tool_choice": {"type": "allowed_tools", "mode": "auto"}}, "tool_choice"),
            ({"tools": TOOLS, "tool_choice": {"type": "function", "name": "none"}}, "tool_choice"),
            ({"text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": "nothing"}}}}, "text.format"),
            ({"text": 3}, "text"), ({"reasoning": {"effort": "some"}}, "reasoning.effort"),
            ({"metadata": {"a": 1}}, "metadata"), ({"background": True}, "background"),
            ({"conversation": "conv_1"}, "conversation"), ({"prompt": {"id": "x"}}, "prompt"),
            ({"include": ["message.output_text.logprobs"]}, "include"), ({"top_logprobs": 2}, "top_logprobs"),
            ({"previous_response_id": 7}, "previous_response_id"), ({"store": "yes"}, "store"),
            ({"instructions": 5}, "instructions"),
        ]
        server = self.servers["demo-m2"]
        for fields, name in cases:
            with self.subTest(fields=str(fields)):
                body = {"model": "demo-m2", "input": "x", "max_output_tokens": 3, **fields}
                status, _, text = server.request("POST", "/v1/responses", body)
                self.assertEqual(status, 400, text)
                error = json.loads(text)["error"]
                self.assertEqual(error["param"], name, text)
                self.assertIn(name, error["message"])
        status, headers, _ = server.request("PUT", "/v1/responses/resp_1")
        self.assertEqual((status, headers["Allow"]), (405, "GET, HEAD, DELETE, OPTIONS"))

    def test_nothing_is_kept_when_told_so(self):
        server = serve_test.Server("demo-m2", "--max-stored-responses", "0")
        try:
            with server.client() as client:
                answer = client.responses.create(model="demo-m2", input="Hello", max_output_tokens=2)
                self.assertFalse(answer.store)
                with self.assertRaises(openai.BadRequestError) as caught:
                    client.responses.create(model="demo-m2", input="x", previous_response_id=answer.id)
                self.assertIn("--max-stored-responses", caught.exception.message)
        finally:
            self.assertEqual(server.stop(), 0)


if __name__ == "__main__":
    serve_test.MINIMAX = sys.argv.pop(1)
    unittest.main(verbosity=2)
