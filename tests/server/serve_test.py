"""The server as clients meet it: the official openai client, and plain sockets, against minimax serve.

  serve_test.py MINIMAX [-k PATTERN]

Every server here has a demo model of the repository and a port of its own.
"""

import concurrent.futures
import http.client
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time
import unittest

import openai

SOURCE = pathlib.Path(__file__).resolve().parent.parent.parent
MINIMAX = ""


class Server:
    """A running minimax serve; its log is read all along."""

    def __init__(self, model, *arguments, env=None, waits=True):
        path = SOURCE / "models" / model
        command = [MINIMAX, "serve", "-m", str(path if path.exists() else model), "--host", "127.0.0.1", "--port", "0"]
        command += ["--max-model-len", "4096", *arguments]
        self.process = subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, env={**os.environ, **(env or {})}
        )
        self.lines = []
        self.changed = threading.Condition()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        self.url = self.wait_for(r"minimax: loading; (https?://\S+)/health")[1]
        self.host, port = self.url.partition("://")[2].split(":")
        self.port = int(port)
        if waits:
            self.wait_for("minimax: ready: ")

    def _read(self):
        for line in self.process.stderr:
            with self.changed:
                self.lines.append(line)
                self.changed.notify_all()
        with self.changed:
            self.lines.append("the server has ended")
            self.changed.notify_all()

    def wait_for(self, pattern, seconds=60):
        """The first match of a line of the log, waited for."""
        end = time.monotonic() + seconds
        seen = 0
        with self.changed:
            while True:
                for line in self.lines[seen:]:
                    if found := re.search(pattern, line):
                        return found
                seen = len(self.lines)
                left = end - time.monotonic()
                if left <= 0 or self.process.poll() is not None and self.lines[-1:] == ["the server has ended"]:
                    raise AssertionError(f"no {pattern!r} in the log:\n" + "".join(self.lines))
                self.changed.wait(left)

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(60)
        self.reader.join(10)
        self.process.stderr.close()
        return code

    def client(self, **options):
        return openai.OpenAI(base_url=self.url + "/v1", api_key="none", max_retries=0, timeout=60, **options)

    def request(self, method, path, body=None, headers=None):
        """RETURNS: status, headers, text."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=60)
        try:
            if isinstance(body, (dict, list)):
                body = json.dumps(body)
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read().decode()
        finally:
            connection.close()


def ask(text):
    return [{"role": "user", "content": text}]


def all_text(answer):
    message = answer.choices[0].message
    return (getattr(message, "reasoning_content", None) or "") + (message.content or "")


class ServedCase(unittest.TestCase):
    """One server for the class, which must end well."""

    model = "demo-m2"
    arguments = ("--max-num-seqs", "8")
    env = None

    @classmethod
    def setUpClass(cls):
        cls.server = Server(cls.model, *cls.arguments, env=cls.env)
        cls.client = cls.server.client()

    @classmethod
    def tearDownClass(cls):
        cls.client.close()
        code = cls.server.stop()
        assert code == 0, f"exit code {code}:\n" + "".join(cls.server.lines)


class States(ServedCase):
    def test_health_version_models(self):
        for path in ("/health", "/ready"):
            status, _, text = self.server.request("GET", path)
            self.assertEqual((status, json.loads(text)), (200, {"status": "ok"}))
        self.assertRegex(json.loads(self.server.request("GET", "/version")[2])["version"], r"^\d+\.\d+\.\d+$")
        listed = self.client.models.list().data
        self.assertEqual([m.id for m in listed], ["demo-m2"])
        self.assertEqual(self.client.models.retrieve("demo-m2").max_model_len, 4096)
        with self.assertRaises(openai.NotFoundError):
            self.client.models.retrieve("demo/none")

    def test_what_orchestrators_ask(self):
        self.assertEqual(self.server.request("GET", "/ping")[0], 200)
        self.assertEqual(json.loads(self.server.request("GET", "/is_sleeping")[2]), {"is_sleeping": False})
        for path in ("/sleep", "/wake_up"):
            status, _, text = self.server.request("POST", path)
            self.assertEqual(status, 501)
            self.assertIn("does not sleep", json.loads(text)["error"]["message"])

    def test_errors_have_their_apis_shape(self):
        for path, is_anthropic in (("/v1/messages", True), ("/v1/messages/none", True), ("/v1/responses", False)):
            for method in ("PUT", "POST"):
                headers = {"Content-Length": str(40 << 20)} if method == "POST" else {}
                status, _, text = self.server.request(method, path, "x" if headers else None, headers)
                self.assertGreaterEqual(status, 404)
                answer = json.loads(text)
                self.assertEqual(answer.get("type"), "error" if is_anthropic else None, (path, method))
                self.assertTrue(answer["error"]["message"])

    def test_the_metrics_that_dashboards_and_harnesses_read(self):
        text = self.server.request("GET", "/metrics")[2]
        gauges = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc", "cache_config_info", "lora_requests_info")
        counters = ("prefix_cache_queries", "prefix_cache_hits", "num_preemptions", "prompt_tokens", "generation_tokens",
                    "request_success", "spec_decode_num_accepted_tokens")
        seconds = ("time_to_first_token", "inter_token_latency", "time_per_output_token", "e2e_request_latency",
                   "request_queue_time", "request_prefill_time", "request_decode_time")
        names = [*gauges, *(c + "_total" for c in counters), *(f"{s}_seconds_{p}" for s in seconds for p in ("bucket", "sum", "count"))]
        for name in names:
            self.assertRegex(text, rf'(?m)^vllm:{name}{{[^}}]*model_name="demo-m2"[^}}]*}} \S+$', name)

    def test_tokenize_and_back(self):
        text = "Sort these: 4, 81 ü"
        _, _, answer = self.server.request("POST", "/tokenize", {"prompt": text, "return_token_strs": True})
        answer = json.loads(answer)
        self.assertEqual(answer["count"], len(answer["tokens"]))
        self.assertEqual(len(answer["token_strs"]), answer["count"])
        _, _, back = self.server.request("POST", "/detokenize", {"tokens": answer["tokens"]})
        self.assertEqual(json.loads(back), {"prompt": text})
        _, _, chat = self.server.request("POST", "/tokenize", {"messages": ask("hi")})
        usage = self.client.chat.completions.create(model="demo-m2", messages=ask("hi"), max_tokens=1).usage
        self.assertEqual(json.loads(chat)["count"], usage.prompt_tokens)

    def test_metrics_count(self):
        def count(name):
            text = self.server.request("GET", "/metrics")[2]
            found = re.search(rf"^{name}{{[^}}]*}} (\S+)$", text, re.M)
            return float(found[1]) if found else 0.0

        before = count("vllm:generation_tokens_total")
        self.client.completions.create(model="demo-m2", prompt="x", max_tokens=7, extra_body={"ignore_eos": True})
        end = time.monotonic() + 20
        while count("vllm:generation_tokens_total") < before + 7 and time.monotonic() < end:
            time.sleep(0.05)
        self.assertEqual(count("vllm:generation_tokens_total"), before + 7)


class Completions(ServedCase):
    def test_stream_is_the_answer_in_pieces(self):
        options = {"model": "demo-m2", "prompt": "What is 12 * 7?", "max_tokens": 40, "temperature": 0}
        whole = self.client.completions.create(**options)
        chunks = list(self.client.completions.create(**options, stream=True, stream_options={"include_usage": True}))
        self.assertEqual("".join(c.choices[0].text for c in chunks[:-1]), whole.choices[0].text)
        self.assertEqual(chunks[-2].choices[0].finish_reason, whole.choices[0].finish_reason)
        self.assertEqual(chunks[-1].choices, [])
        self.assertEqual(chunks[-1].usage.completion_tokens, whole.usage.completion_tokens)
        self.assertEqual(whole.usage.total_tokens, whole.usage.prompt_tokens + whole.usage.completion_tokens)
        self.assertEqual({c.id for c in chunks}, {chunks[0].id})

    def test_options(self):
        answer = self.client.completions.create(
            model="demo-m2", prompt=[70, 71, 72], max_tokens=5, n=3, logprobs=2, echo=True, seed=1
        )
        self.assertEqual([c.index for c in answer.choices], [0, 1, 2])
        self.assertEqual(answer.usage.completion_tokens, sum(len(c.logprobs.tokens) - 3 for c in answer.choices))
        prompt = json.loads(self.server.request("POST", "/detokenize", {"tokens": [70, 71, 72]})[2])["prompt"]
        for choice in answer.choices:
            self.assertTrue(choice.text.startswith(prompt))

    def test_several_prompts(self):
        options = {"model": "demo-m2", "max_tokens": 6, "temperature": 0}
        texts = ["What is 12 * 7?", "a", "Sort these: 4, 81"]
        alone = [self.client.completions.create(prompt=text, **options) for text in texts]
        ids = [json.loads(self.server.request("POST", "/tokenize", {"prompt": text})[2])["tokens"] for text in texts]
        for prompt in (texts, ids):
            together = self.client.completions.create(prompt=prompt, n=2, **options)
            self.assertEqual([c.index for c in together.choices], list(range(6)))
            self.assertEqual([c.text for c in together.choices], [a.choices[0].text for a in alone for _ in range(2)])
            self.assertEqual(together.usage.prompt_tokens, sum(map(len, ids)))
            self.assertEqual(together.usage.completion_tokens, 2 * sum(a.usage.completion_tokens for a in alone))
        streamed = {}
        for chunk in self.client.completions.create(prompt=texts, stream=True, echo=True, **options):
            choice = chunk.choices[0]
            streamed[choice.index] = streamed.get(choice.index, "") + choice.text
        self.assertEqual(streamed, {i: texts[i] + alone[i].choices[0].text for i in range(3)})
        with self.assertRaises(openai.RateLimitError):
            self.client.completions.create(prompt=["x"] * 1033, **options)

    def test_a_prompt_is_scored(self):
        """echo with logprobs and no new token, as harnesses of multiple-choice questions ask."""
        text = "Reverse the word STONE."
        ids = json.loads(self.server.request("POST", "/tokenize", {"prompt": text})[2])["tokens"]
        options = {"model": "demo-m2", "prompt": [ids, ids[:5]], "echo": True, "logprobs": 1, "temperature": 0}
        scored = self.client.completions.create(max_tokens=0, **options)
        self.assertEqual((scored.choices[0].text, scored.usage.completion_tokens), (text, 0))
        self.assertEqual({c.finish_reason for c in scored.choices}, {"length"})
        for choice, prompt in zip(scored.choices, (ids, ids[:5])):
            logprobs = choice.logprobs
            self.assertEqual("".join(logprobs.tokens), choice.text)
            self.assertEqual({len(values) for values in logprobs.model_dump().values()}, {len(prompt)})
            self.assertEqual((logprobs.token_logprobs[0], logprobs.top_logprobs[0]), (None, None))
            self.assertTrue(all(value <= 0 for value in logprobs.token_logprobs[1:]))
            for token, offset, top in zip(logprobs.tokens, logprobs.text_offset, logprobs.top_logprobs):
                self.assertEqual(choice.text[offset : offset + len(token)], token)
                self.assertTrue(top is None or token in top)
        # The tokens that follow are scored as they are without the echo.
        longer = self.client.completions.create(max_tokens=4, **options).choices[0].logprobs
        plain = self.client.completions.create(max_tokens=4, **{**options, "echo": False, "prompt": ids}).choices[0]
        for mine, other in zip(longer.token_logprobs[1 : len(ids)], scored.choices[0].logprobs.token_logprobs[1:]):
            self.assertAlmostEqual(mine, other, delta=0.02)  # other batches round in other places
        self.assertEqual(longer.tokens[len(ids) :], plain.logprobs.tokens)
        for mine, other in zip(longer.token_logprobs[len(ids) :], plain.logprobs.token_logprobs):
            self.assertAlmostEqual(mine, other, delta=0.02)
        streamed = list(self.client.completions.create(max_tokens=4, stream=True, **{**options, "prompt": ids}))
        tokens = [token for chunk in streamed if chunk.choices[0].logprobs for token in chunk.choices[0].logprobs.tokens]
        offsets = [at for chunk in streamed if chunk.choices[0].logprobs for at in chunk.choices[0].logprobs.text_offset]
        self.assertEqual((tokens, offsets), (longer.tokens, longer.text_offset))

    def test_prompt_logprobs(self):
        prompt = "Sort these: 4, 81"
        ids = json.loads(self.server.request("POST", "/tokenize", {"prompt": prompt})[2])["tokens"]
        extra = {"prompt_logprobs": 2}
        text = self.client.completions.create(model="demo-m2", prompt=prompt, max_tokens=1, extra_body=extra)
        chat = self.client.chat.completions.create(model="demo-m2", messages=ask("hi"), max_tokens=1, extra_body=extra)
        self.assertEqual(len(chat.prompt_logprobs), chat.usage.prompt_tokens)
        listed = text.choices[0].prompt_logprobs
        self.assertEqual(len(listed), len(ids))
        self.assertIsNone(listed[0])
        for token, entry in zip(ids[1:], listed[1:]):
            self.assertIn(len(entry), (2, 3))
            self.assertIn(str(token), entry)
            self.assertEqual(sorted(e["rank"] for e in entry.values() if e["rank"]), [1, 2])
            best = max(entry.values(), key=lambda e: e["logprob"])
            self.assertEqual(best["rank"], 1)
        with self.assertRaises(openai.BadRequestError):
            self.client.completions.create(model="demo-m2", prompt="x", stream=True, extra_body=extra)

    def test_more_tokens_than_the_context_has_room_for(self):
        """max_tokens is a limit: with a prompt that leaves less, the context is the limit."""
        ids = [70 + i % 9 for i in range(4090)]
        options = {"model": "demo-m2", "extra_body": {"ignore_eos": True}}
        answer = self.client.completions.create(prompt=ids, max_tokens=4000, **options)
        self.assertEqual((answer.choices[0].finish_reason, answer.usage.total_tokens), ("length", 4096))
        for prompt, most in (("x", 4097), (ids + [70] * 6, 1)):
            with self.assertRaises(openai.BadRequestError) as caught:
                self.client.completions.create(prompt=prompt, max_tokens=most, **options)
            self.assertIn("4096", caught.exception.message)

    def test_the_prefix_cache_is_reset(self):
        messages = ask("Sort these numbers from smallest to largest: " + ", ".join(map(str, range(20, 90))))

        def cached():
            usage = self.client.chat.completions.create(model="demo-m2", messages=messages, max_tokens=2).usage
            return usage.prompt_tokens_details.cached_tokens

        cached()
        self.assertGreaterEqual(cached(), 64)
        self.assertEqual(self.server.request("POST", "/reset_prefix_cache")[0], 200)
        self.assertEqual(cached(), 0)

    def test_stop_strings(self):
        options = {"model": "demo-m2", "messages": ask("What is 47 * 36?"), "temperature": 0}
        whole = self.client.chat.completions.create(**options)
        self.assertIn("write", all_text(whole))
        cut = self.client.chat.completions.create(**options, stop=["write"])
        self.assertTrue(all_text(whole).startswith(all_text(cut)))
        self.assertNotIn("write", all_text(cut))
        self.assertEqual(cut.choices[0].finish_reason, "stop")

    def test_seeds(self):
        def text(**options):
            answer = self.client.completions.create(
                model="demo-m2", prompt="a", max_tokens=24, temperature=2, extra_body={"top_k": 0}, **options
            )
            return answer.choices[0].text

        self.assertEqual(text(seed=5), text(seed=5))
        self.assertGreater(len({text() for _ in range(4)}), 1)

    def test_usage_names_cached_tokens(self):
        messages = ask("Sort these numbers from largest to smallest: " + ", ".join(map(str, range(10, 60))))
        for is_second in (False, True):
            usage = self.client.chat.completions.create(model="demo-m2", messages=messages, max_tokens=2).usage
            self.assertEqual(usage.prompt_tokens_details.cached_tokens >= 64, is_second)

    def test_chat_logprobs_in_stream_and_whole(self):
        options = {
            "model": "demo-m2", "messages": ask("Reverse the word STONE."), "temperature": 0, "logprobs": True,
            "top_logprobs": 2, "max_tokens": 20,
        }
        whole = self.client.chat.completions.create(**options).choices[0].logprobs.content
        streamed = []
        for chunk in self.client.chat.completions.create(**options, stream=True):
            if chunk.choices[0].logprobs:
                streamed += chunk.choices[0].logprobs.content
        self.assertEqual([t.token for t in streamed], [t.token for t in whole])
        self.assertEqual([t.logprob for t in streamed], [t.logprob for t in whole])
        for token in whole:
            self.assertEqual(len(token.top_logprobs), 2)
            self.assertEqual(token.top_logprobs[0].token, token.token)

    def test_many_at_a_time_are_as_one(self):
        words = ["STONE", "RIVER", "CLOUD", "TIGER", "LEMON", "OCEAN", "MAPLE", "BRICK", "FLAME", "GRAPE", "HOUSE", "KNIFE"]

        def answer(word):
            messages = ask(f"Reverse the word {word}.")
            if hash(word) % 2:
                chunks = self.client.chat.completions.create(
                    model="demo-m2", messages=messages, temperature=0, stream=True
                )
                return word, "".join(c.choices[0].delta.content or "" for c in chunks)
            whole = self.client.chat.completions.create(model="demo-m2", messages=messages, temperature=0)
            return word, whole.choices[0].message.content

        with concurrent.futures.ThreadPoolExecutor(len(words)) as pool:
            for word, text in pool.map(answer, words):
                self.assertIn(word[::-1], text)


def tool(name, description, **parameters):
    properties = {key: {"type": kind} for key, kind in parameters.items()}
    schema = {"type": "object", "properties": properties, "required": list(parameters)}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": schema}}


TOOLS = [
    tool("set_timer", "Start a timer.", minutes="integer"),
    tool("get_weather", "Get the weather of a city.", city="string", days="integer"),
]


class Chats:
    """What every family does in its own markup."""

    arguments = ("--max-num-seqs", "8")

    def chat(self, messages, **options):
        return self.client.chat.completions.create(
            model=self.model, messages=messages, temperature=0, max_tokens=500, **options
        )

    def streamed(self, messages, **options):
        """A stream put together: reasoning, content, calls, reason and usage."""
        result = {"reasoning": "", "content": "", "calls": {}, "reason": None}
        for chunk in self.chat(messages, stream=True, stream_options={"include_usage": True}, **options):
            if not chunk.choices:
                result["usage"] = chunk.usage
                continue
            delta = chunk.choices[0].delta
            reasoning = getattr(delta, "reasoning_content", None) or ""
            self.assertEqual(getattr(delta, "reasoning", None) or "", reasoning)
            result["reasoning"] += reasoning
            result["content"] += delta.content or ""
            for call in delta.tool_calls or []:
                if call.id:
                    self.assertNotIn(call.index, result["calls"])
                    result["calls"][call.index] = [call.id, call.function.name, ""]
                result["calls"][call.index][2] += call.function.arguments or ""
            result["reason"] = chunk.choices[0].finish_reason or result["reason"]
        return result

    def test_tools_in_two_turns(self):
        messages = ask("Set a timer for 17 minutes.")
        answer = self.chat(messages, tools=TOOLS).choices[0]
        self.assertEqual(answer.finish_reason, "tool_calls", answer)
        self.assertIsNone(answer.message.content)
        [call] = answer.message.tool_calls
        self.assertEqual((call.type, call.function.name), ("function", "set_timer"))
        self.assertEqual(json.loads(call.function.arguments), {"minutes": 17})

        stream = self.streamed(messages, tools=TOOLS, tool_choice="auto")
        self.assertEqual(stream["reason"], "tool_calls")
        [[call_id, name, arguments]] = stream["calls"].values()
        self.assertEqual((name, arguments), (call.function.name, call.function.arguments))
        self.assertNotEqual(call_id, call.id)
        self.assertEqual(stream["content"].strip(), "")

        messages.append(answer.message.model_dump(exclude_none=True))
        messages.append({"role": "tool", "tool_call_id": call.id, "content": "amber 42"})
        told = self.chat(messages, tools=TOOLS).choices[0]
        self.assertEqual(told.finish_reason, "stop", told)
        self.assertIsNone(told.message.tool_calls)
        self.assertIn("amber 42", told.message.content)

    def test_types_of_arguments(self):
        answer = self.chat(ask("What is the weather in Paris for 3 days?"), tools=TOOLS).choices[0]
        [call] = answer.message.tool_calls
        self.assertEqual(json.loads(call.function.arguments), {"city": "Paris", "days": 3})

    def test_a_cut_call_is_none(self):
        whole = self.chat(ask("Set a timer for 17 minutes."), tools=TOOLS)
        cut = self.client.chat.completions.create(
            model=self.model, messages=ask("Set a timer for 17 minutes."), temperature=0, tools=TOOLS,
            max_tokens=whole.usage.completion_tokens - 12,
        ).choices[0]
        self.assertEqual(cut.finish_reason, "length")
        self.assertIsNone(cut.message.tool_calls)

    def test_no_tools_no_calls(self):
        answer = self.chat(ask("Reverse the word STONE."), tools=TOOLS, tool_choice="none").choices[0]
        self.assertIn("ENOTS", answer.message.content)
        self.assertIsNone(answer.message.tool_calls)

    def test_content_in_parts(self):
        parts = [{"type": "text", "text": "Reverse the "}, {"type": "text", "text": "word STONE."}]
        answer = self.chat([{"role": "user", "content": parts}]).choices[0]
        self.assertTrue(answer.message.content)

    def test_no_markup_is_seen(self):
        for question in ("What is 47 * 36?", "Reverse the word STONE.", "Who are you?"):
            answer = self.chat(ask(question)).choices[0].message
            for text in (answer.content, getattr(answer, "reasoning_content", None) or ""):
                for markup in ("think>", "[e~[", "minimax[", "tool_call", "_of_sentence>"):
                    self.assertNotIn(markup, text)


class Reasons(Chats):
    """... and of those that reason."""

    options = {}

    def test_reasoning(self):
        whole = self.chat(ask("What is 47 * 36?"), **self.options)
        message = whole.choices[0].message
        self.assertIn("write", message.reasoning_content)
        self.assertEqual(message.reasoning, message.reasoning_content)
        self.assertIn("1692", message.content)
        self.assertNotIn("write", message.content)
        reasoned = whole.usage.completion_tokens_details.reasoning_tokens
        count = json.loads(self.server.request("POST", "/tokenize", {"prompt": message.reasoning_content})[2])["count"]
        self.assertAlmostEqual(reasoned, count, delta=4)
        stream = self.streamed(ask("What is 47 * 36?"), **self.options)
        self.assertEqual((stream["reasoning"], stream["content"]), (message.reasoning_content, message.content))
        self.assertEqual(stream["usage"].completion_tokens_details.reasoning_tokens, reasoned)


class ChatsM1(Chats, ServedCase):
    model = "demo-m1"


class ChatsM2(Reasons, ServedCase):
    model = "demo-m2"


class ChatsM3(Reasons, ServedCase):
    model = "demo-m3"


class Refusals(ServedCase):
    arguments = ("--max-num-seqs", "2", "--max-queue", "1", "--max-body-bytes", "200000")

    def error(self, path, body, status=400, **options):
        got, headers, text = self.server.request("POST", path, body, **options)
        self.assertEqual(got, status, text)
        error = json.loads(text)["error"]
        self.assertEqual(sorted(error), ["code", "message", "param", "type"])
        self.assertNotIn("terminate", error["message"])
        return error

    def test_client_errors(self):
        with self.assertRaises(openai.BadRequestError) as caught:
            self.client.chat.completions.create(model="demo-m2", messages=ask("hi"), temperature=9)
        self.assertEqual(caught.exception.param, "temperature")
        with self.assertRaises(openai.NotFoundError) as caught:
            self.client.chat.completions.create(model="gpt-9", messages=ask("hi"))
        self.assertEqual(caught.exception.code, "model_not_found")
        self.assertIn("too early", self.error("/v1/completions", '{"prompt":')["message"])
        self.assertIn("byte 11", self.error("/v1/completions", '{"prompt":?}')["message"])
        self.error("/v1/nothing", "{}", 404)

    def test_a_full_queue_is_told_so(self):
        with self.assertRaises(openai.RateLimitError) as caught:
            self.client.completions.create(model="demo-m2", prompt="x", max_tokens=2, n=4)
        self.assertEqual(caught.exception.response.headers["retry-after"], "1")
        self.assertTrue(self.client.completions.create(model="demo-m2", prompt="x", max_tokens=2, n=3).id)


class Leaving(ServedCase):
    arguments = ("--max-num-seqs", "1")

    def test_leaving_cancels(self):
        options = {"model": "demo-m2", "max_tokens": 4000, "extra_body": {"ignore_eos": True}}
        stream = self.client.completions.create(prompt="x", stream=True, **options)
        next(iter(stream))
        stream.close()
        self.server.wait_for(r"request finished request=1 .*reason=\"(cancelled|stop)\"")
        # Not a stream: the answer is not begun when the client leaves.
        connection = http.client.HTTPConnection(self.server.host, self.server.port)
        body = {"prompt": "x", "max_tokens": 4000, "ignore_eos": True}
        connection.request("POST", "/v1/completions", json.dumps(body))
        connection.close()
        self.server.wait_for(r"request finished request=2 .*reason=\"cancelled\"")


class Access(ServedCase):
    arguments = ("--served-model-name", "one", "two/b", "--allowed-origins", "https://page.example")
    env = {"MINIMAX_API_KEY": "secret", "MINIMAX_SERVE_MAX_NUM_SEQS": "3"}

    def test_keys_and_names(self):
        with self.assertRaises(openai.AuthenticationError):
            self.client.models.list()
        good = {"Authorization": "Bearer secret"}
        listed = json.loads(self.server.request("GET", "/v1/models", headers=good)[2])
        self.assertEqual([m["id"] for m in listed["data"]], ["one", "two/b"])
        self.assertEqual(self.server.request("GET", "/v1/models/two/b", headers=good)[0], 200)
        self.assertEqual(self.server.request("GET", "/health")[0], 200)
        body = {"model": "two/b", "prompt": "x", "max_tokens": 1}
        status, _, text = self.server.request("POST", "/v1/completions", body, {"x-api-key": "secret"})
        self.assertEqual((status, json.loads(text)["model"]), (200, "two/b"))
        status, headers, _ = self.server.request(
            "OPTIONS", "/v1/models", headers={"Origin": "https://page.example", "Access-Control-Request-Method": "GET"}
        )
        self.assertEqual((status, headers["Access-Control-Allow-Origin"]), (204, "https://page.example"))


class Stopping(unittest.TestCase):
    def start_stream(self, server):
        stream = server.client().completions.create(
            model="demo-m2", prompt="x", max_tokens=600, stream=True, extra_body={"ignore_eos": True}
        )
        chunks = iter(stream)
        next(chunks)
        return chunks

    def test_answers_end_before_the_server_does(self):
        server = Server("demo-m2")
        chunks = self.start_stream(server)
        server.process.send_signal(signal.SIGTERM)
        rest = list(chunks)
        self.assertEqual(rest[-1].choices[0].finish_reason, "length")
        self.assertEqual(server.stop(), 0)

    def test_a_config_file_and_a_dry_run(self):
        config = SOURCE / "build" / f"serve_test_{os.getpid()}.toml"
        config.write_text('[serve]\nmax-num-seqs = 3\nmax-model-len = "1k"\n')
        try:
            outcome = subprocess.run(
                [MINIMAX, "serve", "-m", str(SOURCE / "models/demo-m2"), "--config", str(config), "--dry-run",
                 "--trust-remote-code", "--block-size", "128"],
                capture_output=True, text=True, timeout=60,
            )
        finally:
            config.unlink()
        self.assertEqual(outcome.returncode, 0, outcome.stderr)
        self.assertIn("= 3072 tokens of KV cache", outcome.stdout)
        self.assertIn("context up to 1024", outcome.stdout)
        self.assertIn("--block-size is accepted and does nothing", outcome.stderr)


if __name__ == "__main__":
    MINIMAX = sys.argv.pop(1)
    unittest.main(verbosity=2)
