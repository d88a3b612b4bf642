#!/usr/bin/env python3
"""The Python module from torch: results against float64, streams, graphs, and what it says of wrong arguments."""

import sys
import unittest

try:
    import torch
except ImportError:
    print("skipped: torch is not installed")
    sys.exit(77)
if not torch.cuda.is_available():
    print("skipped: no CUDA device")
    sys.exit(77)

import minimax_kernels as kernels  # noqa: E402


def recurrence(q, k, v, decay, state):
    """Float64 outputs of one sequence [tokens, heads, dim] and its last state."""
    q, k, v, state = q.double(), k.double(), v.double(), state.double().clone()
    factor = torch.exp(-decay.double()).view(-1, 1, 1)
    out = []
    for t in range(q.shape[0]):
        state = factor * state + k[t].unsqueeze(2) * v[t].unsqueeze(1)
        out.append(torch.einsum("hk,hkv->hv", q[t], state))
    return torch.stack(out), state


def error(value, expected):
    return ((value.double() - expected).norm() / expected.norm()).item()


def ints(*values):
    return torch.tensor(values, device="cuda", dtype=torch.int32)


def make(tokens, heads, dim, dtype, slots=4):
    torch.manual_seed(tokens + heads)
    q, k, v = torch.randn(tokens, heads, 3, dim, device="cuda").to(dtype).unbind(2)
    return {
        "q": q, "k": k, "v": v, "decay": torch.rand(heads, device="cuda"),
        "state": torch.randn(slots, heads, dim, dim, device="cuda"),
        "out": torch.full((tokens, heads, dim), float("nan"), device="cuda", dtype=dtype)}


class Prefill(unittest.TestCase):
    def check(self, tokens, heads, dim, dtype, bound, **more):
        a = make(tokens, heads, dim, dtype)
        before = a["state"].clone()
        split = tokens // 3
        kernels.lightning_prefill(**a, read_slots=ints(0, -1), write_slots=ints(2, 3),
                                  query_starts=ints(0, split, tokens), **more)
        torch.cuda.synchronize()
        first = recurrence(a["q"][:split], a["k"][:split], a["v"][:split], a["decay"], before[0])
        second = recurrence(a["q"][split:], a["k"][split:], a["v"][split:], a["decay"], torch.zeros_like(before[0]))
        self.assertLess(error(a["out"], torch.cat([first[0], second[0]])), bound)
        self.assertLess(error(a["state"][2], first[1]), bound)
        self.assertLess(error(a["state"][3], second[1]), bound)
        self.assertTrue(torch.equal(a["state"][:2], before[:2]))

    def test_tensor_cores(self):
        self.check(300, 3, 128, torch.bfloat16, 3e-3)
        self.check(300, 3, 128, torch.bfloat16, 3e-3, sm=80)
        self.check(90, 2, 64, torch.bfloat16, 3e-3)

    def test_any_type_and_size(self):
        self.check(50, 2, 40, torch.float32, 1e-5)
        self.check(50, 2, 96, torch.bfloat16, 3e-3)

    def test_checkpoints(self):
        a = make(300, 2, 128, torch.bfloat16)
        before = a["state"].clone()
        kernels.lightning_prefill(**a, read_slots=ints(0), write_slots=ints(1), query_starts=ints(0, 300),
                                  checkpoint_rows=ints(100, 192, 2**31 - 1).reshape(1, 3),
                                  checkpoint_slots=ints(2, 3, 0).reshape(1, 3))
        torch.cuda.synchronize()
        for rows, slot in ((300, 1), (100, 2), (192, 3)):
            _, state = recurrence(a["q"][:rows], a["k"][:rows], a["v"][:rows], a["decay"], before[0])
            self.assertLess(error(a["state"][slot], state), 3e-3)
        self.assertTrue(torch.equal(a["state"][0], before[0]))

    def test_own_workspace(self):
        size = kernels.prefill_workspace_bytes(1500, 2, 2, 128)
        self.assertGreater(size, 0)
        workspace = torch.full((size,), 255, device="cuda", dtype=torch.uint8)
        self.check(1500, 2, 128, torch.bfloat16, 3e-3, workspace=workspace)
        self.check(1500, 2, 128, torch.bfloat16, 3e-3)


class Decode(unittest.TestCase):
    def check(self, state_dtype, bound):
        a = make(3, 4, 128, torch.bfloat16)
        a["state"] = a["state"].to(state_dtype)
        before = a["state"].clone()
        kernels.lightning_decode(**a, read_slots=ints(1, -1, 0), write_slots=ints(1, 2, 3))
        torch.cuda.synchronize()
        for row, slot, written in ((0, 1, 1), (2, 0, 3)):
            one = slice(row, row + 1)
            out, state = recurrence(a["q"][one], a["k"][one], a["v"][one], a["decay"], before[slot])
            self.assertLess(error(a["out"][one], out), 3e-3)
            self.assertLess(error(a["state"][written], state), bound)
        self.assertTrue(torch.all(a["out"][1] == 0))
        self.assertTrue(torch.equal(a["state"][2], before[2]))

    def test_states(self):
        self.check(torch.float32, 1e-6)
        self.check(torch.bfloat16, 3e-3)

    def test_stream_and_graph(self):
        a = make(2, 4, 128, torch.bfloat16)
        start = a["state"].clone()
        slots = ints(0, 1)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            kernels.lightning_decode(**a, read_slots=slots, write_slots=slots, stream=stream.cuda_stream)
        self.assertTrue(torch.equal(a["state"], start))
        for _ in range(3):
            graph.replay()
        torch.cuda.synchronize()
        state = start[0].double()
        for _ in range(3):
            _, state = recurrence(a["q"][:1], a["k"][:1], a["v"][:1], a["decay"], state)
        self.assertLess(error(a["state"][0], state), 1e-6)


class Errors(unittest.TestCase):
    def refused(self, text, **changes):
        a = make(6, 4, 128, torch.bfloat16)
        a.update(read_slots=ints(0), write_slots=ints(0), query_starts=ints(0, 6))
        a.update(changes)
        with self.assertRaises(ValueError) as caught:
            kernels.lightning_prefill(**a)
        self.assertEqual(str(caught.exception), text)

    def test_they_name_the_argument(self):
        wrong = torch.zeros(6, 3, 128, device="cuda", dtype=torch.bfloat16)
        self.refused("k is bfloat16 [6, 3, 128] on cuda:0; expected bfloat16 [6, 4, 128] on cuda:0", k=wrong)
        self.refused("v is float16 [6, 4, 128] on cuda:0; expected bfloat16 [6, 4, 128] on cuda:0",
                     v=torch.zeros(6, 4, 128, device="cuda", dtype=torch.float16))
        self.refused("decay is float32 [4] on device type 1; expected dense float32 [4] on cuda:0",
                     decay=torch.zeros(4))
        self.refused("query_starts is int32 [3] on cuda:0; expected dense int32 [2] on cuda:0",
                     query_starts=ints(0, 1, 6))
        self.refused("state is float32 [2, 4, 128, 64] on cuda:0; expected dense float32 [slots, 4, 128, 128] on cuda:0",
                     state=torch.zeros(2, 4, 128, 64, device="cuda"))
        self.refused("sm is 100; expected 80 or 90 on cuda:0", sm=100)


if __name__ == "__main__":
    unittest.main()
