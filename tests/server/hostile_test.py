"""Requests that mean no good, each answered by a proper error while somebody else's stream goes on unharmed.

  hostile_test.py MINIMAX [-k PATTERN]
"""

import json
import socket
import sys
import threading
import time
import unittest

import serve_test

DEEP = 30_000
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
USER = {"role": "user", "content": "hi"}
BODIES = [
    (TEXT, b""), (TEXT, b"\x00"), (TEXT, b"[]"), (TEXT, b"5"), (TEXT, b"null"), (TEXT, b'"x"'),
    (TEXT, b'{"prompt":"\xff\xfe"}'), (TEXT, b'{"prompt":"\\ud800"}'), (TEXT, b'{"prompt":"x"}}'),
    (TEXT, b"[" * DEEP), (TEXT, b'{"a":' * DEEP), (TEXT, b"[" * DEEP + b"]" * DEEP),
    (TEXT, b'{"prompt":"x","max_tokens":1e999}'), (TEXT, b'{"prompt":"x","max_tokens":NaN}'),
    (TEXT, b'{"prompt":"x","max_tokens":99999999999999999999999}'),
    (TEXT, {}), (TEXT, {"prompt": ""}), (TEXT, {"prompt": []}), (TEXT, {"prompt": {}}),
    (TEXT, {"prompt": [-1]}), (TEXT, {"prompt": [1.5]}), (TEXT, {"prompt": [2**31]}),
    (TEXT, {"prompt": [999_999]}), (TEXT, {"prompt": [1, "x"]}), (TEXT, {"prompt": "x", "max_tokens": -1}),
    (TEXT, {"prompt": "x", "max_tokens": "7"}), (TEXT, {"prompt": "x", "max_tokens": 5000}),
    (TEXT, {"prompt": "x" * 100_000}), (TEXT, {"prompt": "x", "n": 10**9}),
    (TEXT, {"prompt": "x", "temperature": "hot"}), (TEXT, {"prompt": "x", "top_p": -1}),
    (TEXT, {"prompt": "x", "top_k": -7}), (TEXT, {"prompt": "x", "seed": 2**64}),
    (TEXT, {"prompt": "x", "logit_bias": {"-1": 1}}), (TEXT, {"prompt": "x", "logit_bias": {"1": 1e9}}),
    (TEXT, {"prompt": "x", "stop": {"a": 1}}), (TEXT, {"prompt": "x", "stop": [1]}),
    (TEXT, {"prompt": "x", "stop_token_ids": [2**40]}), (TEXT, {"prompt": "x", "logprobs": 10**6}),
    (TEXT, {"prompt": "x", "stream": "yes"}), (TEXT, {"prompt": "x", "stream_options": {}}),
    (TEXT, {"prompt": "x", "stream": True, "stream_options": 3}),
    (TEXT, {"prompt": "x", "min_tokens": 100}), (TEXT, {"prompt": "x", "max_tokens": 0}),
    (TEXT, {"prompt": ["x", 5]}), (TEXT, {"prompt": [[1], "x", {}]}), (TEXT, {"prompt": [[]]}), (TEXT, {"prompt": [1, [1]]}),
    (TEXT, {"prompt": ["x", ""]}), (TEXT, {"prompt": "x", "suffix": "y"}), (TEXT, {"prompt": "x", "best_of": 3}),
    (CHAT, {"messages": [USER], "reasoning_effort": "some"}), (TEXT, {"prompt": "x", "response_format": {"type": "json"}}),
    (CHAT, {}), (CHAT, {"messages": []}), (CHAT, {"messages": "hi"}), (CHAT, {"messages": [5]}),
    (CHAT, {"messages": [{}]}), (CHAT, {"messages": [{"role": 5}]}), (CHAT, {"messages": [{"role": "user"}]}),
    (CHAT, {"messages": [{"role": "user", "content": 5}]}),
    (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}),
    (CHAT, {"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]}),
    (CHAT, {"messages": [{"role": "tool", "content": "x"}]}),
    (CHAT, {"messages": [USER, {"role": "assistant", "tool_calls": 5}]}),
    (CHAT, {"messages": [USER, {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]}),
    (CHAT, {"messages": [USER, {"role": "assistant", "tool_calls": [{"function": {"name": 1}}]}]}),
    (CHAT, {"messages": [USER], "tools": "x"}), (CHAT, {"messages": [USER], "tools": [{"type": "function"}]}),
    (CHAT, {"messages": [USER], "tools": [{"function": {"name": "f", "parameters": 5}}]}),
    (CHAT, {"messages": [USER], "tool_choice": "sometimes"}),
    (CHAT, {"messages": [USER], "chat_template_kwargs": []}), (CHAT, {"messages": [USER], "model": 5}),
    (CHAT, {"messages": [USER], "top_logprobs": 3}),
    ("/tokenize", {}), ("/tokenize", {"prompt": 5}), ("/detokenize", {}), ("/detokenize", {"tokens": "x"}),
    ("/detokenize", {"tokens": [1, -5]}),
]

# Bytes instead of a request, and the status of the answer.
HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n"
HEADERS = [
    ("a header flood", HEAD + b"".join(b"X-%d: y\r\n" % i for i in range(3000)) + b"\r\n", 431),
    ("a header without an end", HEAD + b"X: " + b"y" * 40_000, 431),
    ("a target without an end", b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\n\r\n", 431),
    ("no HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64, 400),
    ("a method of control characters", b"P\x01ST / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("a header name with a space", HEAD + b"Bad Name: 1\r\n\r\n", 400),
    ("a header value with a NUL", HEAD + b"X: a\x00b\r\n\r\n", 400),
    ("HTTP/9.9", b"GET / HTTP/9.9\r\nHost: x\r\n\r\n", 505),
    ("a negative length", HEAD + b"Content-Length: -1\r\n\r\n", 400),
    ("a length beyond 64 bits", HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n", 400),
    ("two lengths", HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400),
    ("a length beyond the limit", HEAD + b"Content-Length: 1000000000\r\n\r\n", 413),
    ("a chunk of an odd size", HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n", 400),
    ("a chunk beyond 64 bits", HEAD + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n", 400),
    ("an unknown expectation", HEAD + b"Expect: miracles\r\nContent-Length: 2\r\n\r\n{}", 417),
    ("another method", b"DELETE /v1/models HTTP/1.1\r\nHost: x\r\n\r\n", 405),
    ("a path that climbs", b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", 404),
]


class Stream(threading.Thread):
    """A stream of many tokens beside what a test does."""

    def __init__(self, server):
        super().__init__()
        self.server = server
        self.reason = None
        self.num_tokens = 0
        self.begun = threading.Event()

    def run(self):
        client = self.server.client()
        chunks = client.completions.create(
            model="demo-m2", prompt="x", max_tokens=1500, stream=True, stream_options={"include_usage": True},
            extra_body={"ignore_eos": True},
        )
        for chunk in chunks:
            self.begun.set()
            if chunk.choices:
                self.reason = chunk.choices[0].finish_reason or self.reason
            if chunk.usage:
                self.num_tokens = chunk.usage.completion_tokens
        client.close()


class Hostile(serve_test.ServedCase):
    arguments = (
        "--max-num-seqs", "4", "--max-body-bytes", "200000", "--header-timeout", "1", "--body-timeout", "1",
    )

    def setUp(self):
        self.stream = Stream(self.server)
        self.stream.start()
        self.assertTrue(self.stream.begun.wait(60))

    def tearDown(self):
        self.stream.join(300)
        self.assertEqual((self.stream.reason, self.stream.num_tokens), ("length", 1500))
        answer = self.client.completions.create(model="demo-m2", prompt="x", max_tokens=2)
        self.assertTrue(answer.id)

    def check_error(self, text):
        error = json.loads(text)["error"]
        self.assertEqual(sorted(error), ["code", "message", "param", "type"])
        self.assertNotIn("terminate", error["message"])

    def exchange(self, pieces, pause=0.0):
        """Sends pieces of bytes with pauses between them. RETURNS: status and body of the answer."""
        with socket.create_connection((self.server.host, self.server.port), timeout=60) as connection:
            try:
                for piece in pieces:
                    connection.sendall(piece)
                    time.sleep(pause)
            except ConnectionError:
                pass  # the answer came before all was sent
            received = b""
            while b"\r\n\r\n" not in received or not self.is_whole(received):
                more = connection.recv(65536)
                if not more:
                    break
                received += more
        head, _, body = received.partition(b"\r\n\r\n")
        return int(head.split()[1]), body.decode()

    @staticmethod
    def is_whole(received):
        head, _, body = received.partition(b"\r\n\r\n")
        length = [line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")]
        return bool(length) and len(body) >= int(length[0])

    def test_bodies(self):
        self.assertGreaterEqual(len(BODIES), 50)
        for path, body in BODIES:
            with self.subTest(path=path, body=str(body)[:80]):
                status, _, text = self.server.request("POST", path, body)
                self.assertEqual(status, 400, text)
                self.check_error(text)
        status, _, text = self.server.request("POST", TEXT, b"x" * 300_000)
        self.assertEqual(status, 413)
        self.check_error(text)

    def test_headers(self):
        for name, request, expected in HEADERS:
            with self.subTest(name=name):
                status, text = self.exchange([request])
                self.assertEqual(status, expected, text)
                self.check_error(text)

    def test_slow_headers(self):
        status, text = self.exchange([HEAD[i : i + 3] for i in range(0, 30, 3)], pause=0.2)
        self.assertEqual(status, 408, text)
        self.check_error(text)

    def test_slow_bodies(self):
        head = HEAD + b"Content-Length: 1000\r\n\r\n"
        status, text = self.exchange([head] + [b" "] * 8, pause=0.2)
        self.assertEqual(status, 408, text)
        self.check_error(text)

    def test_many_that_send_nothing(self):
        idle = [socket.create_connection((self.server.host, self.server.port)) for _ in range(200)]
        answer = self.client.completions.create(model="demo-m2", prompt="x", max_tokens=2)
        self.assertTrue(answer.id)
        for connection in idle:
            connection.close()


if __name__ == "__main__":
    serve_test.MINIMAX = sys.argv.pop(1)
    unittest.main(verbosity=2)
