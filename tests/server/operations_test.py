"""The server as those meet it who run it: its command line, HTTPS, and models that are fetched.

  operations_test.py MINIMAX [-k PATTERN]
"""

import json
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request

import openai
import serve_test


class Fetching(unittest.TestCase):
    def test_the_port_opens_before_the_model_is_there(self):
        with tempfile.TemporaryDirectory() as folder:
            os.makedirs(folder + "/hub/maker")
            os.symlink(serve_test.SOURCE / "models/demo-m2", folder + "/hub/maker/demo-m2")
            script = [sys.executable, str(serve_test.SOURCE / "tests/hub/hub_server.py"), folder + "/hub"]
            with subprocess.Popen(script, stdout=subprocess.PIPE, text=True) as hub:
                try:
                    self.fetch(folder, f"http://127.0.0.1:{hub.stdout.readline().strip()}")
                finally:
                    hub.kill()

    def fetch(self, folder, endpoint):
        urllib.request.urlopen(f"{endpoint}/control?hold=1000000").close()
        env = {"HF_HOME": folder + "/cache", "HF_ENDPOINT": endpoint, "HF_HUB_CACHE": "", "HF_TOKEN": ""}
        server = serve_test.Server("maker/demo-m2", env=env, waits=False)
        try:
            end = time.monotonic() + 30
            progress = {}
            while progress.get("done_bytes", 0) < 1_000_000 and time.monotonic() < end:
                status, _, text = server.request("GET", "/health")
                self.assertEqual((status, json.loads(text)["status"]), (503, "loading"))
                progress = json.loads(text)["progress"]
            self.assertEqual(progress["step"], "fetching maker/demo-m2")
            self.assertLess(progress["done_bytes"], progress["total_bytes"])
            self.assertEqual(server.request("POST", "/v1/completions", {"prompt": "x"})[0], 503)
            urllib.request.urlopen(f"{endpoint}/control?hold=0").close()
            server.wait_for("minimax: ready: ")
            with server.client() as client:
                self.assertEqual([m.id for m in client.models.list()], ["maker/demo-m2"])
                self.assertTrue(client.completions.create(model="maker/demo-m2", prompt="x", max_tokens=1).id)
        finally:
            self.assertEqual(server.stop(), 0)

    def test_what_cannot_be_fetched_ends_the_server(self):
        with tempfile.TemporaryDirectory() as folder:
            env = {"HF_HOME": folder, "HF_HUB_CACHE": "", "HF_HUB_OFFLINE": "1"}
            server = serve_test.Server("maker/none", env=env, waits=False)
            self.assertEqual(server.process.wait(60), 2)
            server.stop()
            self.assertIn("maker/none", "".join(server.lines))


class Tls(unittest.TestCase):
    """HTTPS with a certificate made here, for localhost."""

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.key, cls.certificate = (os.path.join(cls.folder.name, name) for name in ("key.pem", "certificate.pem"))
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days",
             "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", cls.key,
             "-out", cls.certificate],
            check=True, capture_output=True,
        )
        cls.server = serve_test.Server("demo-m2", "--ssl-certfile", cls.certificate, "--ssl-keyfile", cls.key)

    @classmethod
    def tearDownClass(cls):
        code = cls.server.stop()
        cls.folder.cleanup()
        assert code == 0, "".join(cls.server.lines)

    def trusting(self):
        return ssl.create_default_context(cafile=self.certificate)

    def test_the_client_speaks_https(self):
        self.assertTrue(self.server.url.startswith("https://"))
        with self.server.client(http_client=openai.DefaultHttpxClient(verify=self.trusting())) as client:
            options = {"model": "demo-m2", "messages": serve_test.ask("Reverse the word STONE."), "temperature": 0}
            whole = client.chat.completions.create(**options).choices[0].message.content
            self.assertIn("ENOTS", whole)
            chunks = client.chat.completions.create(**options, stream=True)
            self.assertEqual("".join(c.choices[0].delta.content or "" for c in chunks), whole)
            with self.assertRaises(openai.BadRequestError):
                client.chat.completions.create(**{**options, "temperature": 9})
        with self.server.client(http_client=openai.DefaultHttpxClient()) as client:
            with self.assertRaises(openai.APIConnectionError):
                client.models.list()

    def connect(self):
        plain = socket.create_connection((self.server.host, self.server.port), timeout=20)
        return self.trusting().wrap_socket(plain, server_hostname="localhost")

    def test_large_bodies_and_a_proper_end(self):
        body = json.dumps({"prompt": "x " * 1_000_000}).encode()
        head = b"POST /tokenize HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
        with self.connect() as connection:
            connection.sendall(head + body)
            answer = b""
            while data := connection.recv(1 << 16):  # raises unless the end is said
                answer += data
        self.assertTrue(answer.startswith(b"HTTP/1.1 200 "))
        self.assertEqual(json.loads(answer.partition(b"\r\n\r\n")[2])["count"], 2_000_000)

    def test_a_client_that_leaves_cancels(self):
        body = {"prompt": "x", "max_tokens": 4000, "ignore_eos": True, "stream": True}
        text = json.dumps(body).encode()
        for leaves in (lambda c: c.close(), lambda c: c.unwrap()):
            connection = self.connect()
            connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(text) + text)
            self.assertTrue(connection.recv(100))
            num_seen = len(self.server.lines)
            try:
                leaves(connection)
            except (OSError, ssl.SSLError):
                pass  # the stream was in the way of a proper end
            end = time.monotonic() + 20
            while time.monotonic() < end and not any("cancelled" in line for line in self.server.lines[num_seen:]):
                time.sleep(0.05)
            self.assertIn("cancelled", "".join(self.server.lines[num_seen:]))
            connection.close()

    def test_what_is_no_tls_is_dropped_and_others_go_on(self):
        for sent in (b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"\x00" * 600, b""):
            with socket.create_connection((self.server.host, self.server.port), timeout=20) as plain:
                plain.sendall(sent)
                plain.shutdown(socket.SHUT_WR)
                while plain.recv(1 << 16):
                    pass
        with self.connect() as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            self.assertTrue(connection.recv(100).startswith(b"HTTP/1.1 200 "))

    def test_files_that_do_not_fit_are_named(self):
        for arguments, named in (
            (("--ssl-keyfile", self.key), "--ssl-certfile"),
            (("--ssl-certfile", self.key), "--ssl-certfile"),
            (("--ssl-certfile", self.certificate), "--ssl-keyfile"),
            (("--ssl-certfile", "/nothing"), "--ssl-certfile"),
        ):
            outcome = subprocess.run(
                [serve_test.MINIMAX, "serve", "-m", str(serve_test.SOURCE / "models/demo-m2"), "--port", "0", *arguments],
                capture_output=True, text=True, timeout=60,
            )
            self.assertNotEqual(outcome.returncode, 0)
            self.assertIn(named, outcome.stderr)


class CommandLine(unittest.TestCase):
    def plan(self, *arguments):
        return subprocess.run([serve_test.MINIMAX, "serve", *arguments, "--dry-run"], capture_output=True, text=True, timeout=60)

    def test_names_of_other_servers(self):
        model = str(serve_test.SOURCE / "models/demo-m2")
        for arguments in (
            ("-m", model, "-c", "1k", "-np", "3"), (model, "--max-model-len", "1k", "--max-num-seqs", "3"),
            ("-hf", model, "-np", "3", "--ctx-size", "1024", "-ngl", "99", "--alias", "x"),
            (model, "-tp", "1", "-pp", "1", "-dp", "1", "--max-model-len=1k", "--parallel=3", "--enable-expert-parallel"),
        ):
            outcome = self.plan(*arguments)
            self.assertEqual(outcome.returncode, 0, outcome.stderr)
            self.assertIn("= 3072 tokens of KV cache, 0 state slots, context up to 1024", outcome.stdout)
            self.assertIn("paths: ", outcome.stdout)
        outcome = self.plan(model, "-tp", "2")
        self.assertEqual(outcome.returncode, 2)
        self.assertIn("--tensor-parallel-size is 2", outcome.stderr)

    def test_auto_is_the_context_that_fits(self):
        model = str(serve_test.SOURCE / "models/demo-m2")
        outcome = self.plan(model, "--max-model-len", "auto", "--kv-cache-tokens", "1000")
        self.assertIn("context up to 960", outcome.stdout)
        self.assertEqual(self.plan(model, "--max-model-len", "1024", "--kv-cache-tokens", "1000").returncode, 2)

    def test_help_is_grouped(self):
        text = subprocess.run([serve_test.MINIMAX, "serve", "--help"], capture_output=True, text=True, timeout=60).stdout
        at = [text.index(f"\n{group}:\n") for group in ("Model and computing", "Engine", "Address and access", "Limits")]
        self.assertEqual(at, sorted(at))


if __name__ == "__main__":
    serve_test.MINIMAX = sys.argv.pop(1)
    unittest.main(verbosity=2)
