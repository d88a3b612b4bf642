"""Dense causal attention of PyTorch on the shape that sparse_bench's prompts have: 64 query heads over 4 KV heads of 128
dimensions. The best of the backends that run is what sparse attention is held against.

    python3 bench/cuda/sparse_bench.py [tokens]
"""

import statistics
import sys

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention


def time_ms(call, repetitions=3):
    call()
    times = []
    for _ in range(repetitions):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        call()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return statistics.median(times)


def main():
    tokens = int(sys.argv[1]) if len(sys.argv) > 1 else 65536
    q = torch.randn(1, 64, tokens, 128, device="cuda", dtype=torch.bfloat16)
    k, v = (torch.randn(1, 4, tokens, 128, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}")
    best = float("inf")
    for backend in (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION):
        for expands in (False, True):
            keys, values = (x.repeat_interleave(16, 1) for x in (k, v)) if expands else (k, v)
            try:
                with sdpa_kernel(backend):
                    ms = time_ms(
                        lambda: scaled_dot_product_attention(q, keys, values, is_causal=True, enable_gqa=not expands)
                    )
            except RuntimeError as error:
                print(f"{backend.name}, expanded {expands}: {str(error).splitlines()[0]}")
                continue
            best = min(best, ms)
            rate = 2 * 2 * 64 * 128 * tokens * tokens / 2 / ms / 1e9
            print(f"{backend.name}, {'KV heads expanded' if expands else 'grouped'}: {ms:.2f} ms, {rate:.0f} TFLOP/s")
            del keys, values
    print(f"best dense causal attention, {tokens} tokens: {best:.2f} ms; a quarter is {best / 4:.2f} ms")


if __name__ == "__main__":
    main()
