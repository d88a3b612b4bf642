#!/usr/bin/env python3
"""A hub on loopback that misbehaves on request. Standard library only.

  hub_server.py FOLDER     serves FOLDER/ORG/NAME/... as models; prints its port

/control?KEY=VALUE sets, for files that are then fetched:
  cut=N, times=K   the next K answers end after N bytes
  budget=N         after N bytes of files, every answer is 503 (-1: no limit)
  corrupt=1        a byte of every file is wrong
  status=S         every answer is S (0: none)
  redirect=1       files are found at another host name of this machine
  hold=N           answers stop after N bytes until hold is 0
/stats gives what was served, as JSON.
"""

import hashlib
import http.server
import json
import pathlib
import sys
import threading
import time
import urllib.parse

FOLDER = pathlib.Path(sys.argv[1])
COMMIT = "0123456789abcdef0123456789abcdef01234567"
LOCK = threading.Lock()
CONTROL = {"cut": 0, "times": 0, "budget": -1, "corrupt": 0, "status": 0, "redirect": 0, "hold": 0}
STATS = {"requests": 0, "bytes": 0, "tokens": [], "names": []}


def describe(path):
    data = path.read_bytes()
    entry = {"rfilename": path.name, "size": len(data)}
    if path.suffix == ".safetensors":
        entry["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        entry["blobId"] = "0" * 40
    else:
        entry["blobId"] = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    return entry


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        url = urllib.parse.urlparse(self.path)
        if url.path == "/control":
            CONTROL.update({k: int(v[0]) for k, v in urllib.parse.parse_qs(url.query).items()})
            return self.answer(200)
        if url.path == "/stats":
            return self.answer(200, json.dumps(STATS).encode())
        with LOCK:
            STATS["requests"] += 1
            STATS["tokens"].append(self.headers.get("Authorization", ""))
            STATS["names"].append(url.path)
        if CONTROL["status"]:
            return self.answer(CONTROL["status"])
        if url.path.startswith("/api/models/"):
            return self.describe_model(url.path.removeprefix("/api/models/").split("/revision/")[0])
        if "/resolve/" in url.path and CONTROL["redirect"]:
            port = self.server.server_address[1]
            return self.answer(302, Location=f"http://localhost:{port}{url.path.replace('/resolve/', '/stored/')}")
        return self.send_file(url.path.replace("/stored/", "/resolve/"))

    def describe_model(self, name):
        folder = FOLDER / name
        if not folder.is_dir():
            return self.answer(404)
        hostile = folder / "description.txt"
        if hostile.exists():
            return self.answer(200, hostile.read_bytes())
        siblings = [describe(path) for path in sorted(folder.iterdir())]
        return self.answer(200, json.dumps({"sha": COMMIT, "siblings": siblings}).encode())

    def send_file(self, path):
        name, _, rest = path.partition("/resolve/")
        file = FOLDER / name.strip("/") / rest.split("/", 1)[1]
        data = bytearray(file.read_bytes())
        if CONTROL["corrupt"]:
            data[len(data) // 2] ^= 1
        first, last = 0, len(data) - 1
        if "Range" in self.headers:
            first, last = (int(n) for n in self.headers["Range"].removeprefix("bytes=").split("-"))
        part = bytes(data[first : last + 1])
        with LOCK:
            if 0 <= CONTROL["budget"] <= STATS["bytes"]:
                return self.answer(503)
            is_cut = CONTROL["times"] > 0
            CONTROL["times"] -= int(is_cut)
            sent = part[: CONTROL["cut"]] if is_cut else part
            STATS["bytes"] += len(sent)
        self.send_response(206 if "Range" in self.headers else 200)
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        first_part = CONTROL["hold"] or len(sent)
        self.wfile.write(sent[:first_part])
        while CONTROL["hold"]:
            time.sleep(0.02)
        self.wfile.write(sent[first_part:])
        if is_cut:
            self.close_connection = True


class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *_):
        pass  # clients leave as they like


server = Server(("127.0.0.1", 0), Handler)
server.daemon_threads = True
print(server.server_address[1], flush=True)
server.serve_forever()
