"""What the training scripts share: data pools filled by worker processes, Muon and Adam, steps captured as CUDA
graphs, checkpoints. A family (see train_m1.py, train_m2.py, train_m3.py) says what is trained:

  chat, config, lengths, pool_shares, muon   its format, sizes, row lengths, their shares in the pools, the
                                             parameters that Muon trains
  init_parameters()                          F32 master parameters by name
  setup(device)                              makes the tensors that steps read and write besides parameters
  state()                                    those of them that a checkpoint holds, by name
  bucket_weights(progress)                   how often each row length is drawn
  schedule(progress)                         sets the tensors that follow the progress, outside of the graphs
  loss(parameters, parts, ids, target, counts, dtype)
                                             RETURNS: loss, tensor of figures to report
  after_update(lr)                           what follows an optimizer step; captured with it
  export(folder, parameters, tokenizer_folder), evaluate(parameters, tokenizer, device, dtype, count, show)

Training is bounded by wall-clock time and continues from --state when that folder holds a checkpoint; the
learning rate follows the share of --planned seconds that has been trained.
"""

import argparse
import json
import math
import multiprocessing as mp
import os
import queue
import random
import threading
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from tokenizers import Tokenizer

import corpus

LOSS_BIT = 1 << 14


# --- data -------------------------------------------------------------------------------------------------


def make_row(rng, tokenizer, chat, length):
    """RETURNS: int16 ids of one conversation; LOSS_BIT marks tokens that count."""
    while True:
        segments = corpus.row_conversation(rng, chat, length)
        ids = [i | (LOSS_BIT if counts else 0) for (text, counts), e in
               zip(segments, tokenizer.encode_batch([t for t, _ in segments])) for i in e.ids]
        if len(ids) <= length:
            row = np.zeros(length, dtype=np.int16)
            row[: len(ids)] = ids
            return row


def worker(out, tokenizer_file, chat, seed, lengths, weights, block_tokens):
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    tokenizer, rng = Tokenizer.from_file(tokenizer_file), random.Random(seed)
    while True:
        bucket = rng.choices(range(len(lengths)), weights)[0]
        length = lengths[bucket]
        out.put((bucket, np.stack([make_row(rng, tokenizer, chat, length) for _ in range(max(1, block_tokens // length))])))


class Pools:
    """Rings of rows on the device, one per length, filled by a thread while training draws from them."""

    def __init__(self, source, device, lengths, step_tokens, capacity_tokens):
        self.batch = [max(1, step_tokens // n) for n in lengths]
        self.rows = [torch.zeros(max(capacity_tokens // n, 2 * b), n, dtype=torch.int16, device=device) for n, b in zip(lengths, self.batch)]
        self.filled, self.written, self.source = [0] * len(lengths), [0] * len(lengths), source
        self.lock = threading.Lock()  # held while a graph is captured: no other work may reach the device then
        threading.Thread(target=self.fill, daemon=True).start()

    def ready(self):
        return all(f >= b for f, b in zip(self.filled, self.batch))

    def tokens(self):
        return sum(f * r.shape[1] for f, r in zip(self.filled, self.rows))

    def fill(self):
        while True:
            try:
                bucket, block = self.source.get(timeout=1)
            except (queue.Empty, EOFError, OSError):
                continue
            rows, n = self.rows[bucket], len(block)
            at = self.written[bucket] % (len(rows) - n + 1)
            with self.lock:
                rows[at : at + n] = torch.from_numpy(block).to(rows.device)
            self.written[bucket] = at + n
            self.filled[bucket] = max(self.filled[bucket], at + n)
            if self.filled[bucket] > 0.9 * len(rows):
                time.sleep(0.003)  # full: refresh slowly and leave the interpreter to the training loop

    def draw(self, bucket):
        index = torch.randint(self.filled[bucket], (self.batch[bucket],), device=self.rows[bucket].device)
        packed = self.rows[bucket][index].long()
        ids, counts = packed & (LOSS_BIT - 1), (packed & LOSS_BIT) > 0
        target = torch.roll(ids, -1, 1)
        counts = torch.roll(counts, -1, 1).float()
        counts[:, -1] = 0
        return ids, target.flatten(), counts.flatten()


# --- optimizer --------------------------------------------------------------------------------------------


def orthogonalize(g):
    """Newton-Schulz iteration of Muon on [n, rows, cols] matrices."""
    tall = g.shape[1] > g.shape[2]
    x = (g.transpose(1, 2) if tall else g).to(torch.bfloat16)
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        a = x @ x.transpose(1, 2)
        x = 3.4445 * x + (-4.775 * a + 2.0315 * a @ a) @ x
    return (x.transpose(1, 2) if tall else x).float()


class Optimizer:
    """Muon for the projections (q, k, v of a lightning layer apart), Adam for the rest."""

    def __init__(self, parameters, family):
        self.p, self.muon, self.heads = parameters, family.muon, family.config.heads
        self.state = {n: [torch.zeros_like(p) for _ in range(1 if n in self.muon else 2)] for n, p in parameters.items()}

    def matrices(self, name, x):
        if name == "qkv":
            n, _, d = x.shape
            return x.view(n, self.heads, 3, -1, d).transpose(1, 2).reshape(n * 3, -1, d)
        return x.flatten(0, -3)

    def back(self, name, x):
        if name == "qkv":
            n, _, d = self.p[name].shape
            return x.view(n, 3, self.heads, -1, d).transpose(1, 2).reshape(n, -1, d)
        return x.view_as(self.p[name])

    @torch.no_grad()
    def step(self, lr, decay=0.05):
        """`lr` is a tensor on the device, so that a captured step can be replayed. Adam's bias correction is
        left out: the warm-up outlasts it."""
        for name, p in self.p.items():
            g = p.grad
            if name in self.muon:
                (momentum,) = self.state[name]
                momentum.lerp_(g, 0.05)
                m = self.matrices(name, g.lerp(momentum, 0.95))
                update = self.back(name, orthogonalize(m)) * (0.2 * math.sqrt(max(m.shape[1:])))
                p.mul_(1 - lr * decay).sub_(update * lr)
            else:
                first, second = self.state[name]
                first.lerp_(g, 0.1)
                second.lerp_(g * g, 0.02)
                p.sub_(first / (second.sqrt() + 1e-9) * (lr * (0.5 if name in ("embed", "head") else 0.3)))


def learning_rate(step, progress, peak):
    warmup = min(1.0, (step + 1) / 200)
    tail = min(1.0, (1 - min(progress, 1.0)) / 0.45)  # falls to zero over the last 45 %
    return peak * warmup * (0.02 + 0.98 * tail)


# --- checkpoints ------------------------------------------------------------------------------------------


def save_state(folder, parameters, optimizer, family, meta):
    """Momentum is kept in BF16: states travel between machines. meta.json comes last: without it there is no
    state."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "meta.json").unlink(missing_ok=True)
    torch.save({n: p.detach().cpu() for n, p in parameters.items()}, folder / "parameters.pt")
    torch.save({n: s[0].to(torch.bfloat16 if n in family.muon else torch.float32).cpu() for n, s in optimizer.state.items()}, folder / "momentum.pt")
    torch.save({n: s[1].cpu() for n, s in optimizer.state.items() if len(s) > 1}, folder / "second.pt")
    torch.save({n: t.detach().cpu() for n, t in family.state().items()}, folder / "family.pt")
    (folder / "meta.json").write_text(json.dumps(meta))


def load_tensors(folder, name):
    path = Path(folder) / name
    return torch.load(path, map_location="cpu") if path.exists() else {}


def latest(folder):
    """RETURNS: the complete state to go on from: `folder`, or the one set aside while `folder` was written."""
    folder = Path(folder)
    for place in (folder, folder.with_name(folder.name + ".previous")):
        if (place / "meta.json").exists():
            return place
    return None


def rotate_and_save(folder, *rest):
    """The state before stays complete until the new one is."""
    folder = Path(folder)
    previous = folder.with_name(folder.name + ".previous")
    if (folder / "meta.json").exists():
        if previous.exists():
            for file in previous.iterdir():
                file.unlink()
            previous.rmdir()
        folder.rename(previous)
    save_state(folder, *rest)


def load_state(folder, parameters, optimizer, family):
    place = latest(folder)
    if place is None:
        return {"step": 0, "trained_s": 0.0, "tokens": 0}
    device = parameters["embed"].device
    for n, p in load_tensors(place, "parameters.pt").items():
        parameters[n].data.copy_(p)
    for i, name in enumerate(("momentum.pt", "second.pt")):
        for n, s in load_tensors(place, name).items():
            optimizer.state[n][i] = s.float().to(device)
    for n, s in load_tensors(place, "family.pt").items():
        family.state()[n].copy_(s)
    return json.loads((place / "meta.json").read_text())


# --- training ---------------------------------------------------------------------------------------------


class Step:
    """Forward and backward pass of one row length, captured as a CUDA graph when asked."""

    def __init__(self, family, parameters, parts, rows, length, device):
        self.family, self.parameters, self.parts = family, parameters, parts
        self.ids = torch.zeros(rows, length, dtype=torch.long, device=device)
        self.target = torch.zeros(rows * length, dtype=torch.long, device=device)
        self.counts = torch.zeros(rows * length, device=device)
        self.dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
        self.graph = None

    def compute(self):
        torch._foreach_zero_([p.grad for p in self.parameters.values()])
        loss, self.result = self.family.loss(self.parameters, self.parts, self.ids, self.target, self.counts, self.dtype)
        loss.backward()

    def capture(self):
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            self.compute()

    def fill(self, batch):
        for buffer, value in zip((self.ids, self.target, self.counts), batch):
            buffer.copy_(value)

    def run(self, batch):
        self.fill(batch)
        self.graph.replay() if self.graph else self.compute()
        return self.result.clone()


def prepare(args, steps, optimizer, family, pools, lr, cuda):
    """Warms everything up and captures the steps. RETURNS: the optimizer step to call."""
    def update():
        optimizer.step(lr)
        family.after_update(lr)
    if not cuda:
        return update
    lr.zero_()
    kept = {n: t.clone() for n, t in family.state().items()}
    saved = {n: [s.clone() for s in state] for n, state in optimizer.state.items()}
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for bucket, step in enumerate(steps):
            step.fill(pools.draw(bucket))
            for _ in range(2):
                step.compute()
        update()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    if args.graphs:
        with pools.lock:
            for step in steps:
                step.capture()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                update()
    for n, state in saved.items():
        for s, value in zip(optimizer.state[n], state):
            s.copy_(value)
    for n, value in kept.items():
        family.state()[n].copy_(value)
    return graph.replay if args.graphs else update


def reduce_gradients(parameters, world):
    flat = torch.cat([q.grad.flatten() for q in parameters.values()])
    dist.all_reduce(flat)
    for q, g in zip(parameters.values(), flat.div_(world).split([q.numel() for q in parameters.values()])):
        q.grad.copy_(g.view_as(q))


def log(args, family, meta, lr, window, pools, begun, before):
    text = ""
    for b, n in enumerate(family.lengths):
        rows = [r.tolist() for k, r in window if k == b]
        if rows:
            mean = np.mean(rows, 0)
            text += f" | {n}: {mean[0]:.4f} {100 * mean[1]:.2f}% " + " ".join(f"{x:.3f}" for x in mean[2:])
    rate = (meta["tokens"] - before) / (time.time() - begun) / 1e6
    print(f"step {meta['step']} {meta['trained_s']:.0f} s lr {lr.item():.1e} {rate:.3f} Mtok/s pool {pools.tokens() / 1e6:.0f}M{text}", flush=True)


def train(args, family, parameters, source, device, rank, world):
    optimizer = Optimizer(parameters, family)
    meta = load_state(args.state, parameters, optimizer, family)
    pools = Pools(source, device, family.lengths, args.tokens, args.pool_tokens)
    parts, cuda = family.make_parts(args.compile), device.startswith("cuda")
    for p in parameters.values():
        p.grad = torch.zeros_like(p)
    while not pools.ready():
        time.sleep(0.2)
    print(f"rank {rank}: pools ready at {time.time() - args.began:.0f} s, from step {meta['step']}", flush=True)
    steps = [Step(family, parameters, parts, b, n, device) for b, n in zip(pools.batch, family.lengths)]
    lr = torch.zeros((), device=device)
    family.schedule(meta["trained_s"] / args.planned)
    update = prepare(args, steps, optimizer, family, pools, lr, cuda)
    print(f"prepared at {time.time() - args.began:.0f} s", flush=True)
    choose, begun, trained_before = random.Random(meta["step"]), time.time(), meta["trained_s"]
    log_at, before, window, saved_at = begun, meta["tokens"], [], begun
    while True:
        progress = meta["trained_s"] / args.planned
        bucket = choose.choices(range(len(steps)), family.bucket_weights(progress))[0]
        family.schedule(progress)
        window.append((bucket, steps[bucket].run(pools.draw(bucket))))
        if world > 1:
            reduce_gradients(parameters, world)
        lr.fill_(learning_rate(meta["step"], progress, args.lr))
        update()
        meta["step"] += 1
        meta["tokens"] += steps[bucket].ids.numel() * world
        if meta["step"] % args.check_every and meta["step"] != args.steps:
            continue
        if cuda:
            torch.cuda.synchronize()
        clock = torch.tensor([trained_before + time.time() - begun, time.time() - args.began], device=device)
        if world > 1:  # one clock for all ranks
            dist.broadcast(clock, 0)
        meta["trained_s"], elapsed = clock.tolist()
        if rank == 0 and meta["step"] % args.log_every == 0:
            log(args, family, meta, lr, window, pools, log_at, before)
            log_at, before, window = time.time(), meta["tokens"], []
        if elapsed > args.seconds or meta["trained_s"] > args.planned or (args.steps and meta["step"] >= args.steps):
            return optimizer, meta
        if rank == 0 and time.time() - saved_at > args.save_every:
            rotate_and_save(args.state, parameters, optimizer, family, meta)
            saved_at = time.time()


def arguments():
    a = argparse.ArgumentParser()
    a.add_argument("--tokenizer", required=True, help="folder with tokenizer.json")
    a.add_argument("--state", required=True, help="folder of the checkpoint")
    a.add_argument("--export", help="folder of the model to write at the end")
    a.add_argument("--seconds", type=float, default=60, help="stop training this long after the start")
    a.add_argument("--planned", type=float, default=1000, help="seconds of training over all calls")
    a.add_argument("--steps", type=int, default=0)
    a.add_argument("--tokens", type=int, default=65536, help="tokens of a step on each GPU, rounded down to whole rows")
    a.add_argument("--pool-tokens", type=int, default=40_000_000)
    a.add_argument("--lr", type=float, default=3e-3)
    a.add_argument("--workers", type=int, default=14)
    a.add_argument("--check-every", type=int, default=10, help="steps between two looks at the clock")
    a.add_argument("--log-every", type=int, default=100)
    a.add_argument("--save-every", type=float, default=120, help="seconds between two checkpoints")
    a.add_argument("--eval-count", type=int, default=128)
    a.add_argument("--eval-show", type=int, default=0)
    a.add_argument("--compile", action="store_true", help="compile the token-wise parts")
    a.add_argument("--graphs", action="store_true", help="replay captured CUDA graphs")
    a.add_argument("--fresh-seed", type=int, default=0)
    a.add_argument("--dry-cpu", action="store_true", help="one thread, a small model, few tokens: finds mistakes, trains nothing")
    return a.parse_args()


def dry(args, family):
    torch.set_num_threads(1)
    args.workers, args.eval_count, args.check_every, args.log_every = 1, min(args.eval_count, 2), 1, 5
    args.tokens, args.pool_tokens = min(args.tokens, 1024), 4096
    family.shrink()


def main(family):
    args = arguments()
    args.began = time.time()
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    if args.dry_cpu:
        dry(args, family)
    source, tokenizer_file = mp.Queue(64), str(Path(args.tokenizer) / "tokenizer.json")
    for i in range(args.workers):
        seed = f"{args.fresh_seed} {rank} {i} {time.time()}"
        what = (source, tokenizer_file, family.chat, seed, family.lengths, family.pool_shares, min(32768, args.tokens))
        mp.Process(target=worker, args=what, daemon=True).start()
    device = f"cuda:{rank}" if torch.cuda.is_available() and not args.dry_cpu else "cpu"  # after the forks
    if device != "cpu":
        torch.cuda.set_device(device)
        torch.backends.cuda.matmul.allow_tf32 = True
    if world > 1:
        dist.init_process_group("nccl")
    tokenizer = Tokenizer.from_file(tokenizer_file)
    family.setup(device)
    parameters = {n: p.to(device).requires_grad_() for n, p in family.init_parameters().items()}
    print(f"{sum(p.numel() for p in parameters.values())} parameters on {device}", flush=True)
    optimizer, meta = train(args, family, parameters, source, device, rank, world)
    if rank == 0:
        rotate_and_save(args.state, parameters, optimizer, family, meta)
        if args.export:
            family.export(Path(args.export), parameters, Path(args.tokenizer))
        print(f"saved at {time.time() - args.began:.0f} s: {meta}", flush=True)
        if args.eval_count:
            torch.backends.cuda.matmul.allow_tf32 = False
            for dtype in (torch.bfloat16, torch.float32) if device != "cpu" else (torch.float32,):
                print(dtype, flush=True)
                family.evaluate(parameters, tokenizer, device, dtype, args.eval_count, args.eval_show)
        print(f"end at {time.time() - args.began:.0f} s", flush=True)
    for process in mp.active_children():
        process.kill()
    os._exit(0)
