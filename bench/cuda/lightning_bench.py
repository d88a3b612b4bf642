#!/usr/bin/env python3
"""Lightning attention prefill beside flash-linear-attention's chunk_simple_gla, on the same inputs in the same run.

  lightning_bench.py [HEADSxTOKENS ...]    64x2048 64x131072 16x2048 16x32768 when none is given

Needs the module minimax_kernels (python/README.md), torch and flash-linear-attention. Each call is timed in a CUDA
graph of ours, and by events for theirs, which a graph may not hold; inputs rotate through more than the cache.
"""

import statistics
import sys

import torch
from fla.ops.simple_gla import chunk_simple_gla

import minimax_kernels

DIM = 128


class Inputs:
    """q, k, v of one sequence as views of one buffer, its state and our arguments."""

    def __init__(self, heads, tokens):
        qkv = torch.randn(tokens, heads, 3, DIM, device="cuda", dtype=torch.bfloat16)
        self.q, self.k, self.v = qkv.unbind(2)
        self.dense = [x.contiguous().unsqueeze(0) for x in (self.q, self.k, self.v)]
        self.slopes = torch.tensor([2.0 ** (-8 * (h + 1) / heads) for h in range(heads)], device="cuda")
        self.state = torch.randn(1, heads, DIM, DIM, device="cuda")
        self.slot = torch.zeros(1, device="cuda", dtype=torch.int32)
        self.starts = torch.tensor([0, tokens], device="cuda", dtype=torch.int32)
        self.out = torch.full((tokens, heads, DIM), float("nan"), device="cuda", dtype=torch.bfloat16)
        size = minimax_kernels.prefill_workspace_bytes(tokens, 1, heads, DIM)
        self.workspace = torch.empty(max(size, 16), device="cuda", dtype=torch.uint8)

    def ours(self, state=None):
        minimax_kernels.lightning_prefill(
            self.q, self.k, self.v, self.slopes, self.state if state is None else state, self.slot, self.slot,
            self.starts, self.out, self.workspace, torch.cuda.current_stream().cuda_stream)

    def theirs(self):
        q, k, v = self.dense
        return chunk_simple_gla(q, k, v, g_gamma=-self.slopes, scale=1.0, initial_state=self.state,
                                output_final_state=True)

    def reference(self, tokens):
        """The first outputs in float64, by the definition."""
        q, k, v = (x[:tokens].double().transpose(0, 1) for x in (self.q, self.k, self.v))
        steps = torch.arange(tokens, device="cuda", dtype=torch.float64)
        slopes = self.slopes.double().view(-1, 1, 1)
        distance = steps.view(-1, 1) - steps
        decay = torch.exp(-slopes * distance.clamp(min=0)) * (distance >= 0)
        inter = torch.exp(-slopes * (steps.view(1, -1, 1) + 1)) * (q @ self.state[0].double())
        return (((q @ k.transpose(1, 2)) * decay) @ v + inter).transpose(0, 1)


def milliseconds(run, repeats):
    times = []
    for _ in range(repeats):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return statistics.median(times)


def as_graph(calls):
    """A graph of all calls, or None when one of them cannot be captured."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for call in calls:
            call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph, stream=stream):
            for call in calls:
                call()
    except RuntimeError:
        torch.cuda.synchronize()
        return None
    return graph


def time_calls(calls, repeats=9):
    """Milliseconds of one call and how it was timed."""
    graph = as_graph(calls)
    if graph is not None:
        graph.replay()
        return milliseconds(graph.replay, repeats) / len(calls), "graph"

    def run():
        for call in calls:
            call()

    run()
    return milliseconds(run, repeats) / len(calls), "events"


def relative_error(out, expected):
    return ((out.double() - expected).norm() / expected.norm()).item()


def copy_bandwidth():
    source = torch.randn(1 << 30, device="cuda")
    target = torch.empty_like(source)
    target.copy_(source)
    return 2 * source.nbytes / (1e-3 * milliseconds(lambda: target.copy_(source), 9))


def main():
    sizes = [tuple(map(int, size.split("x"))) for size in sys.argv[1:]]
    bandwidth = copy_bandwidth()
    print(f"{torch.cuda.get_device_name()}, copy {bandwidth / 1e12:.2f} TB/s")
    print(f"{'heads':>6} {'tokens':>8} {'floor ms':>9} {'ours ms':>9} {'theirs ms':>10} {'ratio':>6} {'our error':>10} "
          f"{'their error':>12}")
    for heads, tokens in sizes or [(64, 2048), (64, 131072), (16, 2048), (16, 32768)]:
        row_bytes = 4 * 2 * DIM * heads * tokens
        sets = [Inputs(heads, tokens) for _ in range(max(1, min(6, int(256e6 / row_bytes))))]
        checked = min(tokens, 1024)
        expected = sets[0].reference(checked)
        their_error = relative_error(sets[0].theirs()[0][0, :checked], expected)
        sets[0].ours(sets[0].state.clone())
        our_error = relative_error(sets[0].out[:checked], expected)
        rounds = 1 if tokens > 32768 else 4
        ours, our_way = time_calls([x.ours for x in sets] * rounds)
        theirs, their_way = time_calls([x.theirs for x in sets] * rounds)
        floor = 1e3 * row_bytes / bandwidth
        print(f"{heads:6} {tokens:8} {floor:9.4f} {ours:9.4f} {theirs:10.4f} {theirs / ours:6.2f} {our_error:10.2e} "
              f"{their_error:12.2e}   ({our_way}, {their_way})", flush=True)
        del sets


if __name__ == "__main__":
    main()
