"""Many streams at a time against minimax serve, a part of whose clients leave at random.

  load_test.py MINIMAX [--model demo-m2] [--streams 1000] [--seconds 120] [--leaving 0.2]

Fails when a request fails in another way than with 429, when a page, slot, descriptor or thread of the server is not
given back, when its memory grows by more than 5 % after the first quarter, or when under light load the first byte of an
answer comes more than 3 ms after the engine's first token. Everything is on the loopback; all four APIs take part.
"""

import argparse
import asyncio
import json
import os
import pathlib
import random
import re
import socket
import statistics
import sys
import time

import serve_test

MOST_GROWTH = 0.05
MOST_ADDED = 3  # ms
LIGHT_REQUESTS = 200
PATIENCE = 300  # seconds that a client waits for the whole of its stream
WORDS = ("STONE", "RIVER", "CLOUD", "TIGER", "LEMON", "OCEAN", "MAPLE", "BRICK", "FLAME", "GRAPE", "HOUSE", "KNIFE")
# What the last event of a good stream has, by path.
ENDS = {
    "/v1/chat/completions": (b"data: [DONE]",),
    "/v1/completions": (b"data: [DONE]",),
    "/v1/messages": (b"event: message_stop",),
    "/v1/responses": (b"event: response.completed", b"event: response.incomplete"),
}


def request_bytes(model, path, dice):
    question = f"Reverse the word {dice.choice(WORDS)}{dice.randrange(1000)}."
    most = dice.randint(8, 96)
    body = {"model": model, "stream": True, "ignore_eos": True}
    if path == "/v1/completions":
        body |= {"prompt": question, "max_tokens": most}
    elif path == "/v1/responses":
        body |= {"input": question, "max_output_tokens": most}
    else:
        body |= {"messages": [{"role": "user", "content": question}], "max_tokens": most}
    return post_bytes(path, body)


def post_bytes(path, body):
    text = json.dumps(body).encode()
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(text)}\r\n\r\n".encode() + text


class Stream(asyncio.Protocol):
    """One request on a connection of its own. `outcome` becomes done, left, refused (429), or what went wrong."""

    def __init__(self, path, request, leaves_after):
        self.path = path
        self.request = request
        self.leaves_after = leaves_after  # bytes; None: stays
        self.received = b""
        self.outcome = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport
        transport.write(self.request)
        if self.leaves_after == 0:
            self.leave()

    def leave(self):
        self.end("left")
        if random.random() < 0.5:
            self.transport.abort()

    def end(self, outcome):
        if not self.outcome.done():
            self.outcome.set_result(outcome)
        self.transport.close()

    def data_received(self, data):
        self.received += data
        if self.leaves_after is not None and len(self.received) >= self.leaves_after:
            return self.leave()
        head, _, _ = self.received.partition(b"\r\n")
        if b" 429 " in head:
            self.end("refused")
        elif b"\r\n" in self.received and b" 200 " not in head:
            self.end(head.decode("latin-1"))
        elif self.received.endswith(b"\r\n0\r\n\r\n"):
            is_whole = any(end in self.received for end in ENDS[self.path])
            self.end("done" if is_whole else "a stream without its last event")

    def connection_lost(self, error):
        self.end(f"the connection was lost: {error}")


class Load:
    def __init__(self, server, model, options):
        self.server = server
        self.model = model
        self.options = options
        self.counts = {}
        self.num_open = self.most_open = 0

    async def client(self, number, end):
        dice = random.Random(number)
        loop = asyncio.get_running_loop()
        paths = list(ENDS)
        while time.monotonic() < end:
            path = dice.choice(paths)
            leaves = dice.random() < self.options.leaving
            leaves_after = dice.choice((0, 1, dice.randrange(1, 8000))) if leaves else None
            stream = Stream(path, request_bytes(self.model, path, dice), leaves_after)
            self.num_open += 1
            self.most_open = max(self.most_open, self.num_open)
            try:
                await loop.create_connection(lambda: stream, self.server.host, self.server.port)
                outcome = await asyncio.wait_for(stream.outcome, PATIENCE)
            except (OSError, asyncio.TimeoutError) as error:
                outcome = repr(error)
            self.num_open -= 1
            self.counts[outcome] = self.counts.get(outcome, 0) + 1
            if outcome == "refused":
                await asyncio.sleep(1)

    async def run(self):
        end = time.monotonic() + self.options.seconds
        clients = [asyncio.create_task(self.client(i, end)) for i in range(self.options.streams)]
        samples = []
        while not all(client.done() for client in clients):
            await asyncio.sleep(min(1, self.options.seconds / 20))
            samples.append((time.monotonic(), usage(self.server.process.pid)))
        for client in clients:
            client.result()
        return [sample for at, sample in samples if at <= end]


def usage(pid):
    """Resident bytes, threads and descriptors of a process."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    kib = int(re.search(r"VmRSS:\s+(\d+)", status)[1])
    return {"memory": kib * 1024, "threads": len(os.listdir(f"/proc/{pid}/task")),
            "descriptors": len(os.listdir(f"/proc/{pid}/fd"))}


def metric(server, name):
    found = re.search(rf"^{name}{{[^}}]*}} (\S+)$", server.request("GET", "/metrics")[2], re.M)
    return float(found[1])


def first_byte_seconds(connection, request):
    """From the request to the first byte of its answer; the rest is read as well."""
    begin = time.perf_counter()
    connection.sendall(request)
    received = connection.recv(1 << 16)
    seconds = time.perf_counter() - begin
    while not received.endswith(b"\r\n0\r\n\r\n"):
        received += connection.recv(1 << 16)
    return seconds


def light_load(server, model):
    """Of one request at a time: seconds to the first byte, and to the engine's own first token."""
    dice = random.Random(1)
    pairs = []
    with socket.create_connection((server.host, server.port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        total = metric(server, "vllm:time_to_first_token_seconds_sum")
        for _ in range(LIGHT_REQUESTS):
            first_byte = first_byte_seconds(connection, request_bytes(model, "/v1/chat/completions", dice))
            before, total = total, metric(server, "vllm:time_to_first_token_seconds_sum")
            pairs.append((first_byte, total - before))
    return pairs


def check_first_bytes(pairs, report):
    first_byte, engine = (statistics.median(values) * 1e3 for values in zip(*pairs))
    added = sorted((first - own) * 1e3 for first, own in pairs)
    report.line(
        statistics.median(added) <= MOST_ADDED,
        f"first byte: {first_byte:.2f} ms, engine's first token {engine:.2f} ms; the server adds "
        f"{statistics.median(added):.2f} ms (median of {len(added)} requests; 90 %: {added[len(added) * 9 // 10]:.2f})",
    )


def wait_until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.1)
    return condition()


class Report:
    def __init__(self):
        self.failed = False

    def line(self, is_met, text):
        self.failed = self.failed or not is_met
        print(("met     " if is_met else "NOT MET ") + text, flush=True)


def check_given_back(server, idle, report):
    """Everything that the load took is there again."""
    is_idle = wait_until(
        lambda: metric(server, "vllm:num_requests_running") + metric(server, "vllm:num_requests_waiting") == 0
    )
    report.line(is_idle, "no request runs or waits afterwards")
    server.request("POST", "/reset_prefix_cache")
    for what in ("kv_pages", "state_slots"):
        free = lambda: metric(server, f"minimax:{what}_free") == metric(server, f"minimax:{what}")
        report.line(
            wait_until(free),
            f"{what}: {metric(server, f'minimax:{what}_free'):.0f} of {metric(server, f'minimax:{what}'):.0f} free",
        )
    for what in ("descriptors", "threads"):
        wait_until(lambda: usage(server.process.pid)[what] <= idle[what])
        now = usage(server.process.pid)[what]
        report.line(now <= idle[what], f"{what}: {now}, {idle[what]} before")


def check_memory(samples, report):
    quarter = len(samples) // 4
    early, late = (max(s["memory"] for s in part) for part in (samples[quarter : 2 * quarter], samples[-quarter:]))
    growth = late / early - 1
    report.line(
        growth <= MOST_GROWTH,
        f"memory: {late / 2**20:.1f} MiB in the last quarter, {early / 2**20:.1f} in the second ({growth:+.1%})",
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("minimax")
    parser.add_argument("--model", default="demo-m2")
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--leaving", type=float, default=0.2)
    options = parser.parse_args()
    serve_test.MINIMAX = options.minimax
    report = Report()
    server = serve_test.Server(
        options.model, "--max-num-seqs", str(options.streams), "--max-connections", str(2 * options.streams),
        "--kv-cache-tokens", str(128 * options.streams), "--log-format", "none", "--seed", "1",
    )
    try:
        light_load(server, options.model)  # warms up
        check_first_bytes(light_load(server, options.model), report)
        idle = usage(server.process.pid)
        load = Load(server, options.model, options)
        begin = time.monotonic()
        samples = asyncio.run(load.run())
        seconds = time.monotonic() - begin
        print(f"{sum(load.counts.values())} requests in {seconds:.0f} s, {load.most_open} at a time:",
              ", ".join(f"{count} {what}" for what, count in sorted(load.counts.items())))
        bad = {what: n for what, n in load.counts.items() if what not in ("done", "left", "refused")}
        report.line(not bad and load.counts.get("done", 0) > 0, f"failed requests: {sum(bad.values())}")
        check_given_back(server, idle, report)
        check_memory(samples, report)
    finally:
        code = server.stop()
    report.line(code == 0, f"exit code {code}")
    sys.exit(1 if report.failed else 0)


if __name__ == "__main__":
    main()
