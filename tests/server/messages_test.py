"""The Messages API as the official anthropic client meets it, over all three demo models; and calls that are forced.

  messages_test.py MINIMAX [-k PATTERN]
"""

import json
import sys
import unittest

import anthropic
import serve_test

TOOL = {
    "name": "get_weather",
    "description": "Current weather of a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
OPENAI_TOOL = {
    "type": "function",
    "function": {"name": TOOL["name"], "description": TOOL["description"], "parameters": TOOL["input_schema"]},
}
MODELS = ("demo-m1", "demo-m2", "demo-m3")
MARKERS = ("<think>", "</think>", "<mm:think>", "</mm:think>", "tool_call", "<invoke", "]minimax[", "<parameter")


def ask(text):
    return [{"role": "user", "content": text}]


class Messages(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.servers = {model: serve_test.Server(model, "--max-num-seqs", "8") for model in MODELS}

    @classmethod
    def tearDownClass(cls):
        codes = [server.stop() for server in cls.servers.values()]
        assert codes == [0] * len(codes), codes

    def client(self, model):
        return anthropic.Anthropic(base_url=self.servers[model].url, api_key="none", max_retries=0, timeout=60)

    def each(self):
        return [(model, self.client(model)) for model in MODELS]

    def assert_clean(self, text):
        for marker in MARKERS:
            self.assertNotIn(marker, text)

    def test_an_answer_has_thinking_and_text(self):
        for model, client in self.each():
            answer = client.messages.create(
                model=model, max_tokens=600, extra_body={"temperature": 0}, messages=ask("What is 47 * 36?")
            )
            self.assertEqual(answer.stop_reason, "end_turn")
            kinds = [block.type for block in answer.content]
            self.assertEqual(kinds[-1], "text")
            self.assertIn("1692", answer.content[-1].text)
            for block in answer.content:
                self.assert_clean(block.text if block.type == "text" else block.thinking)
            # What came from the cache is counted apart.
            self.assertGreater(answer.usage.input_tokens + answer.usage.cache_read_input_tokens, 5)
            self.assertGreater(answer.usage.output_tokens, 5)

    def test_a_stream_adds_up_to_the_whole(self):
        for model, client in self.each():
            options = dict(model=model, max_tokens=600, extra_body={"temperature": 0}, messages=ask("What is 47 * 36?"))
            whole = client.messages.create(**options)
            with client.messages.stream(**options) as stream:
                events = [event.type for event in stream]
                final = stream.get_final_message()
            self.assertEqual(events[0], "message_start")
            self.assertEqual(events[-1], "message_stop")
            self.assertEqual([b.model_dump() for b in final.content], [b.model_dump() for b in whole.content])
            self.assertEqual(final.stop_reason, whole.stop_reason)
            self.assertEqual(final.usage.output_tokens, whole.usage.output_tokens)

    def test_a_tool_is_called_and_its_result_read(self):
        for model, client in self.each():
            messages = ask("What is the weather in Paris?")
            options = dict(model=model, max_tokens=600, extra_body={"temperature": 0}, tools=[TOOL])
            first = client.messages.create(messages=messages, tool_choice={"type": "any"}, **options)
            self.assertEqual(first.stop_reason, "tool_use")
            call = first.content[-1]
            self.assertEqual((call.type, call.name), ("tool_use", "get_weather"))
            self.assertIsInstance(call.input["city"], str)
            messages.append({"role": "assistant", "content": first.content})
            result = {"type": "tool_result", "tool_use_id": call.id, "content": "sunny, 21 degrees"}
            messages.append({"role": "user", "content": [result]})
            second = client.messages.create(messages=messages, **options)
            self.assertIn(second.stop_reason, ("end_turn", "tool_use", "max_tokens"))
            for block in second.content:
                self.assert_clean(getattr(block, "text", ""))

    def test_a_stream_of_a_call_gives_its_input_in_pieces(self):
        for model, client in self.each():
            with client.messages.stream(
                model=model, max_tokens=600, extra_body={"temperature": 0}, tools=[TOOL],
                tool_choice={"type": "tool", "name": "get_weather"}, messages=ask("What is the weather in Rome?"),
            ) as stream:
                pieces = [event.partial_json for event in stream if event.type == "input_json"]
                final = stream.get_final_message()
            self.assertEqual(json.loads("".join(pieces)), final.content[-1].input)
            self.assertEqual(final.stop_reason, "tool_use")

    def test_tokens_are_counted_as_they_are_used(self):
        for model, client in self.each():
            messages = ask("What is 3 + 4?")
            counted = client.messages.count_tokens(model=model, messages=messages, system="Be brief.")
            answer = client.messages.create(model=model, max_tokens=2, messages=messages, system="Be brief.")
            self.assertEqual(answer.stop_reason, "max_tokens")
            self.assertEqual(counted.input_tokens, answer.usage.input_tokens)

    def test_the_end_of_the_context_is_told_from_the_limit(self):
        client = self.client("demo-m2")
        options = dict(model="demo-m2", messages=ask("x " * 1950), extra_body={"ignore_eos": True})
        answer = client.messages.create(max_tokens=4096, **options)
        self.assertEqual(answer.stop_reason, "model_context_window_exceeded")
        self.assertEqual(client.messages.create(max_tokens=3, **options).stop_reason, "max_tokens")

    def test_a_stop_sequence_ends_the_answer_and_is_named(self):
        client = self.client("demo-m2")
        answer = client.messages.create(
            model="demo-m2", max_tokens=600, extra_body={"temperature": 0}, stop_sequences=["69"], messages=ask("What is 47 * 36?")
        )
        self.assertEqual((answer.stop_reason, answer.stop_sequence), ("stop_sequence", "69"))

    def test_errors_come_in_the_api_s_shape(self):
        client = self.client("demo-m2")
        with self.assertRaises(anthropic.BadRequestError) as caught:
            client.messages.create(model="demo-m2", max_tokens=5, extra_body={"temperature": 9}, messages=ask("x"))
        self.assertEqual(caught.exception.body["type"], "error")
        self.assertIn("temperature", caught.exception.body["error"]["message"])
        with self.assertRaises(anthropic.NotFoundError):
            client.messages.create(model="another", max_tokens=5, messages=ask("x"))

    def test_openai_s_tool_choice_is_kept_to(self):
        for model in MODELS:
            with self.subTest(model):
                client = self.servers[model].client()
                for choice in ("required", {"type": "function", "function": {"name": "get_weather"}}):
                    answer = client.chat.completions.create(
                        model=model, temperature=1, seed=5, max_tokens=600, messages=ask("Hello"),
                        tools=[OPENAI_TOOL], tool_choice=choice,
                    )
                    message = answer.choices[0].message
                    self.assertEqual(answer.choices[0].finish_reason, "tool_calls", answer)
                    self.assertEqual(message.tool_calls[0].function.name, "get_weather")
                    self.assertIn("city", json.loads(message.tool_calls[0].function.arguments))
                    self.assertFalse(message.content)

    def test_a_json_schema_is_kept_to(self):
        schema = {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
            "required": ["city", "days"],
            "additionalProperties": False,
        }
        for model in MODELS:
            with self.subTest(model):
                answer = self.servers[model].client().chat.completions.create(
                    model=model, temperature=1, seed=3, max_tokens=800, messages=ask("Where to?"),
                    response_format={"type": "json_schema", "json_schema": {"name": "trip", "schema": schema, "strict": True}},
                )
                self.assertEqual(answer.choices[0].finish_reason, "stop", answer)
                value = json.loads(answer.choices[0].message.content)
                self.assertEqual(set(value), {"city", "days"})
                self.assertIn(value["days"], range(1, 10))


if __name__ == "__main__":
    serve_test.MINIMAX = sys.argv.pop(1)
    unittest.main(verbosity=2)
