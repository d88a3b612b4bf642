"""MiniMax-M2's and MiniMax-M3's architectures in miniature: parameters, training forward, cached decoder.

Activations are flattened to [num_tokens, width] wherever a computation does not mix tokens, as in model.py.
Parameters of one kind are stacked over the layers that have them. Every expert is computed and weighted, those
not chosen get weight 0: at these sizes that is cheaper than gathering tokens. M3's shared expert is one more
expert with the fixed weight 1.
"""

import math
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from model import full_attention, loss_part, rope_table, rotate


@dataclass
class Config:
    """MiniMax-M2; M3Config adds the rest."""

    vocab_size: int = 1024
    hidden: int = 192
    layers: int = 12
    heads: int = 8
    kv_heads: int = 2
    head_dim: int = 32
    rotary_dim: int = 16
    rope_theta: float = 10000.0
    experts: int = 12
    top_k: int = 3
    width: int = 64
    eps: float = 1e-6
    is_m3 = False
    dense_layers = 0
    shared = 0
    routed_scale = 1.0
    sparse_layers = 0

    @property
    def moe_layers(self):
        return self.layers - self.dense_layers


@dataclass
class M3Config(Config):
    experts: int = 10
    top_k: int = 2
    dense_layers: int = 1
    dense_width: int = 256
    index_dim: int = 32
    block: int = 128
    topk_blocks: int = 8
    alpha: float = 1.702
    limit: float = 7.0
    is_m3 = True
    shared = 1
    routed_scale = 2.0

    @property
    def sparse_layers(self):
        return self.layers - self.dense_layers


def init_parameters(c, seed=0):
    """F32 master parameters."""
    generator = torch.Generator().manual_seed(seed)
    d, a, kv, f, n, m = c.hidden, c.heads * c.head_dim, c.kv_heads * c.head_dim, c.width, c.layers, c.moe_layers
    branch = (2 * n) ** -0.5

    def normal(*shape, fan, gain=1.0):
        return torch.randn(*shape, generator=generator) * (gain / math.sqrt(fan))

    one = torch.zeros if c.is_m3 else torch.ones  # Gemma norms multiply by 1 + w
    p = {
        "embed": normal(c.vocab_size, d, fan=100), "head": normal(c.vocab_size, d, fan=d, gain=0.5), "norm": one(d),
        "ln1": one(n, d), "ln2": one(n, d),
        "q": normal(n, a, d, fan=d), "k": normal(n, kv, d, fan=d), "v": normal(n, kv, d, fan=d),
        "o": normal(n, d, a, fan=a, gain=branch),
        "q_norm": one(n, c.head_dim if c.is_m3 else a), "k_norm": one(n, c.head_dim if c.is_m3 else kv),
        "router": normal(m, c.experts, d, fan=d, gain=0.5),
        "w1": normal(m, c.experts, f, d, fan=d), "w3": normal(m, c.experts, f, d, fan=d),
        "w2": normal(m, c.experts, d, f, fan=f, gain=branch / c.routed_scale),
    }
    if c.is_m3:
        t, e, s, wide = c.dense_layers, c.index_dim, c.sparse_layers, c.dense_width
        p |= {
            "s1": normal(m, f, d, fan=d), "s3": normal(m, f, d, fan=d), "s2": normal(m, d, f, fan=f, gain=branch),
            "d1": normal(t, wide, d, fan=d), "d3": normal(t, wide, d, fan=d), "d2": normal(t, d, wide, fan=wide, gain=branch),
            "iq": normal(s, c.kv_heads * e, d, fan=d), "ik": normal(s, e, d, fan=d),
            "iq_norm": one(s, e), "ik_norm": one(s, e),
        }
    return p


QUANTIZED = ("q", "k", "v", "o", "w1", "w2", "w3", "s1", "s2", "s3", "d1", "d2", "d3", "iq", "ik")


# --- quantisation -----------------------------------------------------------------------------------------


def to_blocks(w, rows, columns):
    """[..., out, in], padded with zeros, as [..., out/rows, rows, in/columns, columns]."""
    w = F.pad(w, (0, -w.shape[-1] % columns, 0, -w.shape[-2] % rows))
    return w.unflatten(-1, (-1, columns)).unflatten(-3, (-1, rows))


def from_blocks(blocks, like):
    return blocks.flatten(-2).flatten(-3, -2)[..., : like.shape[-2], : like.shape[-1]]


def quantize_fp8(w):
    """RETURNS: e4m3 codes as float and scales, [..., out, in] and [..., out/128, in/128] (rounded up)."""
    blocks = to_blocks(w, 128, 128)
    scale = blocks.abs().amax((-3, -1)).clamp(min=1e-12) / 448
    spread = scale[..., :, None, :, None]
    codes = (blocks / spread).clamp(-448, 448).to(torch.float8_e4m3fn).float()
    return from_blocks(codes, w), scale, from_blocks(codes * spread, w)


def quantize_mx(w):
    """RETURNS: codes, exponents E8M0 as float [..., out, in/32], values."""
    blocks = to_blocks(w, 1, 32)
    largest = blocks.abs().amax((-3, -1)).clamp(min=1e-12)
    exponent = torch.ceil(torch.log2(largest / 448))
    spread = torch.exp2(exponent)[..., :, None, :, None]
    codes = (blocks / spread).clamp(-448, 448).to(torch.float8_e4m3fn).float()
    return from_blocks(codes, w), exponent + 127, from_blocks(codes * spread, w)


def quantize(config, w):
    return quantize_mx(w) if config.is_m3 else quantize_fp8(w)


def cast(parameters, config, dtype, mix=None):
    """Compute weights. `mix` (0 or 1, on the device) fades the quantised values in; gradients pass through."""
    result = {}
    for name, p in parameters.items():
        if mix is not None and name in QUANTIZED:
            p = p + mix * (quantize(config, p.detach())[2] - p.detach())
        result[name] = p if name == "router" else p.to(dtype)
    return result


def layer_weights(p, c):
    """RETURNS: per layer a dict of views; unbind keeps the backward pass to one stack per parameter."""
    parts = {n: t.unbind(0) for n, t in p.items() if n not in ("embed", "head", "norm")}
    every, moe = ("ln1", "ln2", "q", "k", "v", "o", "q_norm", "k_norm"), ("router", "w1", "w3", "w2", "s1", "s3", "s2")
    result = []
    for l in range(c.layers):
        w = {n: parts[n][l] for n in every}
        if l < c.dense_layers:
            w |= {n: parts[n][l] for n in ("d1", "d3", "d2")}
        else:
            own = moe + ("iq", "ik", "iq_norm", "ik_norm")
            w |= {n: parts[n][l - c.dense_layers] for n in own if n in parts}
        result.append(w)
    return result


# --- token-wise parts -------------------------------------------------------------------------------------


def rms_norm(x, weight, eps: float, gemma: bool):
    x32 = x.float()
    y = x32 * torch.rsqrt(x32.square().mean(-1, keepdim=True) + eps)
    return (y * (1 + weight.float())).to(x.dtype) if gemma else y.to(x.dtype) * weight


def pre_attention(h, ln1, q, k, v, q_norm, k_norm, cos, sin, head_dim: int, eps: float, gemma: bool):
    """RETURNS: x1, q, k, v by heads."""
    x1 = rms_norm(h, ln1, eps, gemma)
    q, k, v = x1 @ q.T, x1 @ k.T, (x1 @ v.T).unflatten(-1, (-1, head_dim))
    if gemma:
        q, k = q.unflatten(-1, (-1, head_dim)), k.unflatten(-1, (-1, head_dim))
    q, k = rms_norm(q, q_norm, eps, gemma), rms_norm(k, k_norm, eps, gemma)
    if not gemma:
        q, k = q.unflatten(-1, (-1, head_dim)), k.unflatten(-1, (-1, head_dim))
    return x1, rotate(q, cos, sin), rotate(k, cos, sin), v


def index_vectors(x1, iq, ik, iq_norm, ik_norm, cos, sin, eps: float):
    """[tokens, kv heads, index_dim], [tokens, 1, index_dim]."""
    size = ik.shape[0]
    q = rms_norm((x1 @ iq.T).unflatten(-1, (-1, size)), iq_norm, eps, True)
    k = rms_norm((x1 @ ik.T).unflatten(-1, (1, size)), ik_norm, eps, True)
    return rotate(q, cos, sin), rotate(k, cos, sin)


def activate(g, u, alpha: float, limit: float):
    if not limit:
        return F.silu(g) * u
    g, u = g.clamp(max=limit), u.clamp(-limit, limit)
    return (u + 1) * g * torch.sigmoid(alpha * g)


def dense(h, o, out, ln2, d1, d3, d2, eps: float, alpha: float, limit: float):
    h = h + o @ out.T
    x2 = rms_norm(h, ln2, eps, True)
    return h + activate(x2 @ d1.T, x2 @ d3.T, alpha, limit) @ d2.T


def moe(h, o, out, ln2, router, bias, w1, w3, w2, eps: float, top_k: int, scale: float, gemma: bool, fixed: int, alpha: float, limit: float):
    """`fixed` experts at the end of w1, w3, w2 have weight 1. RETURNS: h, share of the tokens of each expert."""
    h = h + o @ out.T
    x2 = rms_norm(h, ln2, eps, gemma)
    p = torch.sigmoid(x2.float() @ router.T)
    biased = (p + bias).detach()
    keep = ((biased[:, None, :] > biased[:, :, None]).sum(-1) < top_k).float()
    weight = p * keep
    weight = weight * (scale / weight.sum(-1, keepdim=True))
    if fixed:
        weight = F.pad(weight, (0, fixed), value=1.0)
    count = w1.shape[0]
    g, u = (x2 @ torch.cat([w1.flatten(0, 1), w3.flatten(0, 1)]).T).unflatten(-1, (2, count, -1)).unbind(1)
    y = activate(g, u, alpha, limit) * weight.to(x2.dtype)[..., None]
    return h + y.flatten(1) @ w2.transpose(0, 1).flatten(1).T, keep.mean(0)


class Parts:
    """The token-wise functions and the attention by blocks, plain or compiled."""

    def __init__(self, compiled=False):
        for fn in (pre_attention, index_vectors, dense, moe, loss_part, rms_norm, index_divergence):
            setattr(self, fn.__name__, torch.compile(fn, dynamic=False) if compiled else fn)
        self.attend = partial(fused_attention, torch.compile(flex_attention, dynamic=False)) if compiled else masked_attention


# --- block-sparse attention -------------------------------------------------------------------------------

WATCHED = 16  # the index learns from one query in so many


def block_scores(iq, ik, current, block):
    """iq [rows, groups, queries, dim], ik [rows, 1, keys, dim]; `current` [queries, 1] or [rows, 1, queries, 1]:
    the newest block of a query, always chosen. RETURNS: [rows, groups, queries, keys/block], the newest inf."""
    score = (iq.float() @ ik.float().transpose(-1, -2)).unflatten(-1, (-1, block)).amax(-1)
    blocks = torch.arange(score.shape[-1], device=score.device)
    return score.masked_fill(blocks > current, float("-inf")).masked_fill(blocks == current, float("inf"))


def choose(scores, topk):
    """RETURNS: which blocks a query attends to."""
    return scores >= scores.topk(min(topk, scores.shape[-1])).values[..., -1:]


def masked_attention(q, k, v, allowed, block: int):
    """q [rows, heads, tokens, dim], k, v [rows, groups, tokens, dim], allowed [rows, groups, tokens, blocks]."""
    past = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool, device=q.device).tril()
    mask = (allowed.repeat_interleave(block, -1) & past).repeat_interleave(q.shape[1] // k.shape[1], 1)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)


def fused_attention(flex, q, k, v, allowed, block):
    """The same without a mask in memory: every past block is one that the mask may cut."""
    count, ratio = q.shape[2] // block, q.shape[1] // k.shape[1]

    def attends(b, h, at, key):
        return (key <= at) & allowed[b, h // ratio, at, key // block]

    blocks = torch.arange(count, dtype=torch.int32, device=q.device)
    past = BlockMask.from_kv_blocks((blocks + 1)[None, None], blocks.expand(1, 1, count, count), BLOCK_SIZE=block, mask_mod=attends)
    return flex(q, k, v, block_mask=past, enable_gqa=True)


def index_divergence(q, k, iq, ik, at, block: int):
    """Divergence of the index's softmax over blocks from the mass that attention puts on each, mean over the
    queries: q [rows, heads, queries, dim], iq, at [rows, queries] their positions; k, ik of all tokens."""
    groups, keys = k.shape[1], k.shape[2]
    future = torch.arange(keys, device=q.device) > at[:, None, :, None]
    with torch.no_grad():
        score = (q.unflatten(1, (groups, -1)) @ k[:, :, None].transpose(-1, -2)).float() * q.shape[-1] ** -0.5
        mass = score.masked_fill(future[:, None], float("-inf")).softmax(-1).unflatten(-1, (-1, block)).sum(-1).mean(2)
    index = (iq.float() @ ik.float().transpose(-1, -2)).masked_fill(future, float("-inf"))
    guess = index.unflatten(-1, (-1, block)).amax(-1).log_softmax(-1)
    guess = torch.where(mass > 0, guess, torch.zeros_like(guess))
    return (mass * (mass.clamp(min=1e-9).log() - guess)).sum(-1).mean()


def watch(counts, num_tokens):
    """RETURNS: positions [rows, queries] from which the index learns: a random choice, about half of it among the
    tokens that count."""
    counts = counts.unflatten(0, (-1, num_tokens))
    return (torch.rand_like(counts) + 0.25 * counts).topk(num_tokens // WATCHED).indices


def rows_at(x, at):
    """x [rows, heads, tokens, dim] at positions [rows, queries]."""
    return x.gather(2, at[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[3]))


def sparse_attention(parts, c, q, k, v, iq, ik, num_tokens, sparse, watched):
    """Flattened tokens by heads; `sparse` 1: only chosen blocks, 0: all. RETURNS: o [tokens, heads * dim],
    divergence of the index over the positions `watched`, where given."""
    q, k, v, iq, ik = (x.unflatten(0, (-1, num_tokens)).transpose(1, 2) for x in (q, k, v, iq, ik))
    with torch.no_grad():
        current = torch.arange(num_tokens, device=q.device)[:, None] // c.block
        allowed = choose(block_scores(iq, ik, current, c.block), c.topk_blocks) | (sparse < 0.5)
    o = parts.attend(q, k, v, allowed, c.block).transpose(1, 2).flatten(0, 1).flatten(1)
    if watched is None:
        return o, 0.0
    return o, parts.index_divergence(rows_at(q.detach(), watched), k.detach(), rows_at(iq, watched), ik, watched, c.block)


# --- whole model ------------------------------------------------------------------------------------------


def feed_forward(parts, c, w, h, o, bias):
    if "d1" in w:
        return parts.dense(h, o, w["o"], w["ln2"], w["d1"], w["d3"], w["d2"], c.eps, c.alpha, c.limit), None
    stacks = [w["w1"], w["w3"], w["w2"]]
    if c.shared:
        stacks = [torch.cat([x, w[s][None]]) for x, s in zip(stacks, ("s1", "s3", "s2"))]
    alpha, limit = (c.alpha, c.limit) if c.is_m3 else (1.0, 0.0)
    return parts.moe(h, o, w["o"], w["ln2"], w["router"], bias, *stacks, c.eps, c.top_k, c.routed_scale, c.is_m3, c.shared, alpha, limit)


def embed(p, c, tokens):
    if not p["embed"].requires_grad:
        return F.embedding(tokens, p["embed"])
    # A product with one-hot rows: its backward is a product too.
    return (tokens[:, None] == torch.arange(c.vocab_size, device=tokens.device)).to(p["embed"].dtype) @ p["embed"]


def forward(p, c, tokens, bias, parts, sparse=None, cache=None, counts=None):
    """tokens [rows, num_tokens]; bias [moe layers, experts]. With `sparse` (0 or 1, on the device) rows longer
    than topk blocks take the block-sparse path, which is where the index learns, if `counts` (which tokens count
    for the loss) is given.

    RETURNS: normed last hidden [rows * num_tokens, hidden], shares of the experts [moe layers, experts], mean
    divergence of the index over the sparse layers."""
    rows, num_tokens = tokens.shape
    cos, sin = rope_table(c, torch.arange(num_tokens, device=tokens.device).repeat(rows))
    h, shares, divergence = embed(p, c, tokens.flatten()), [], torch.zeros((), device=tokens.device)
    long = c.is_m3 and num_tokens > c.topk_blocks * c.block
    watched = watch(counts, num_tokens) if long and counts is not None else None
    for l, w in enumerate(layer_weights(p, c)):
        x1, q, k, v = parts.pre_attention(h, w["ln1"], w["q"], w["k"], w["v"], w["q_norm"], w["k_norm"], cos, sin, c.head_dim, c.eps, c.is_m3)
        chosen = "iq" in w and long
        if "iq" in w and (chosen or cache):
            iq, ik = parts.index_vectors(x1.detach(), w["iq"], w["ik"], w["iq_norm"], w["ik_norm"], cos, sin, c.eps)
        if cache:
            cache.store(l, num_tokens, k=k, v=v, **({"ik": ik} if "iq" in w else {}))
        if chosen:
            o, d = sparse_attention(parts, c, q, k, v, iq, ik, num_tokens, sparse, watched)
            divergence = divergence + d
        else:
            o = full_attention(q, k, v, num_tokens)
        h, share = feed_forward(parts, c, w, h, o, bias[max(0, l - c.dense_layers)])
        shares += [] if share is None else [share]
    return parts.rms_norm(h, p["norm"], c.eps, c.is_m3), torch.stack(shares), divergence / max(1, c.sparse_layers)


class Decoder:
    """Greedy generation for a batch of prompts with the quantised weights and key/value/index caches."""

    def __init__(self, parameters, bias, config, device, dtype):
        self.config, self.device, self.parts = config, device, Parts()
        rounded = {n: quantize(config, p)[2] if n in QUANTIZED else p for n, p in ((n, p.detach().to(device)) for n, p in parameters.items())}
        # W8A16: engines round dequantised weights to BF16.
        self.p = {n: p if n == "router" else p.to(torch.bfloat16).to(dtype) for n, p in rounded.items()}
        self.bias, self.weights, self.on = bias.to(device), layer_weights(self.p, config), torch.ones((), device=device)

    def store(self, l, num_tokens, **tensors):
        for name, x in tensors.items():
            x = x.unflatten(0, (-1, num_tokens)).transpose(1, 2)
            buffer = torch.zeros(*x.shape[:2], self.capacity, x.shape[3], dtype=x.dtype, device=x.device)
            buffer[:, :, :num_tokens] = x
            self.cache[l, name] = buffer

    @torch.no_grad()
    def prefill(self, prompts, room):
        self.cache = {}
        self.lengths = torch.tensor([len(x) for x in prompts], device=self.device)
        longest = max(len(x) for x in prompts)
        unit = self.config.block if self.config.is_m3 else 64
        padded = -(-longest // unit) * unit
        self.capacity = -(-(padded + room) // 128) * 128
        tokens = torch.zeros(len(prompts), padded, dtype=torch.long)
        for i, x in enumerate(prompts):
            tokens[i, : len(x)] = torch.tensor(x)
        hidden, _, _ = forward(self.p, self.config, tokens.to(self.device), self.bias, self.parts, self.on, self)
        hidden = hidden.unflatten(0, tokens.shape)
        return hidden[torch.arange(len(prompts)), self.lengths - 1] @ self.p["head"].T

    @torch.no_grad()
    def step(self, tokens):
        """One token for every row; RETURNS: logits [rows, vocab]."""
        c, rows = self.config, torch.arange(tokens.shape[0], device=self.device)
        cos, sin = rope_table(c, self.lengths)
        h = F.embedding(tokens, self.p["embed"])
        visible = torch.arange(self.capacity, device=self.device) <= self.lengths[:, None]
        for l, w in enumerate(self.weights):
            x1, q, k, v = pre_attention(h, w["ln1"], w["q"], w["k"], w["v"], w["q_norm"], w["k_norm"], cos, sin, c.head_dim, c.eps, c.is_m3)
            keys, values = self.cache[l, "k"], self.cache[l, "v"]
            keys[rows, :, self.lengths], values[rows, :, self.lengths] = k, v
            mask = visible[:, None, None].expand(-1, c.heads, 1, -1)
            if "iq" in w:
                iq, ik = index_vectors(x1, w["iq"], w["ik"], w["iq_norm"], w["ik_norm"], cos, sin, c.eps)
                self.cache[l, "ik"][rows, :, self.lengths] = ik
                current = (self.lengths // c.block)[:, None, None, None]
                allowed = choose(block_scores(iq[:, :, None], self.cache[l, "ik"], current, c.block), c.topk_blocks)
                mask = mask & allowed.repeat_interleave(c.block, -1).repeat_interleave(c.heads // c.kv_heads, 1)
            o = F.scaled_dot_product_attention(q[:, :, None], keys, values, attn_mask=mask, enable_gqa=True)
            h, _ = feed_forward(self.parts, c, w, h, o.flatten(1), self.bias[max(0, l - c.dense_layers)])
        self.lengths = self.lengths + 1
        return rms_norm(h, self.p["norm"], c.eps, c.is_m3) @ self.p["head"].T

    def generate(self, prompts, max_tokens, eos):
        """RETURNS: the generated ids of each prompt, without eos."""
        logits = self.prefill(prompts, max_tokens + 1)
        out, done = [], torch.zeros(len(prompts), dtype=torch.bool, device=self.device)
        self.margin = []  # per step, for each row: how far the best logit is above the second
        for n in range(max_tokens):
            best = logits.float().topk(2).values
            self.margin.append(best[:, 0] - best[:, 1])
            token = logits.float().argmax(-1)
            out.append(token)
            done |= token == eos
            if n % 16 == 15 and bool(done.all()):
                break
            logits = self.step(token)
        result = torch.stack(out, 1).tolist()
        return [r[: r.index(eos)] if eos in r else r for r in result]
