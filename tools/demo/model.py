"""MiniMax-M1's architecture in miniature: parameters, training forward, cached decoder.

Activations are flattened to [num_tokens, width] wherever a computation does not mix tokens, so that one
compiled function serves every row length. `x1` is the normed input of a layer (postnorm: the residual stream
carries the normed tensor).
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

try:
    import triton
    import triton.language as tl
except ImportError:  # CPU-only installations
    triton = None


@dataclass
class Config:
    vocab_size: int = 768
    hidden: int = 128
    layers: int = 16
    heads: int = 8
    kv_heads: int = 2
    head_dim: int = 32
    rotary_dim: int = 16
    rope_theta: float = 10000.0
    experts: int = 4
    top_k: int = 2
    width: int = 48
    eps: float = 1e-5
    lightning_eps: float = 1e-6

    @property
    def alpha(self):
        return (2 * self.layers) ** 0.25

    @property
    def kinds(self):
        return ([0] * 7 + [1]) * (self.layers // 8)


def decay_rates(config, layer):
    """s[h] of one layer; the head count is a power of two."""
    start = 2.0 ** (-(2.0 ** -(math.log2(config.heads) - 3)))
    factor = 1 - layer / (config.layers - 1) + 1e-5
    return torch.tensor([start ** (h + 1) * factor for h in range(config.heads)], dtype=torch.float32)


def init_parameters(config, seed=0):
    """F32 master parameters, those of one kind stacked over the layers."""
    generator = torch.Generator().manual_seed(seed)
    d, a, kv = config.hidden, config.heads * config.head_dim, config.kv_heads * config.head_dim
    e, f = config.experts, config.width
    linear, full = config.kinds.count(0), config.kinds.count(1)
    beta = (8 * config.layers) ** -0.25  # DeepNorm's gain of the branches at the start

    def normal(*shape, fan, gain=1.0):
        return torch.randn(*shape, generator=generator) * (gain / math.sqrt(fan))

    return {
        "embed": normal(config.vocab_size, d, fan=100),
        "head": normal(config.vocab_size, d, fan=d, gain=0.5),
        "norm": torch.ones(d),
        "ln1": torch.ones(config.layers, d),
        "ln2": torch.ones(config.layers, d),
        "qkv": normal(linear, 3 * a, d, fan=d),
        "gate": normal(linear, a, d, fan=d),
        "onorm": torch.ones(linear, a),
        "out": normal(linear, d, a, fan=a, gain=2 * beta),
        "q": normal(full, a, d, fan=d),
        "k": normal(full, kv, d, fan=d),
        "v": normal(full, kv, d, fan=d, gain=beta),
        "o": normal(full, d, a, fan=a, gain=beta),
        "router": normal(config.layers, e, d, fan=d, gain=0.5),
        "w1": normal(config.layers, e, f, d, fan=d, gain=beta),
        "w3": normal(config.layers, e, f, d, fan=d, gain=beta),
        "w2": normal(config.layers, e, d, f, fan=f, gain=beta),
    }


F32_ALWAYS = {"router"}


def cast(parameters, dtype):
    return {n: p if n in F32_ALWAYS else p.to(dtype) for n, p in parameters.items()}


def layer_weights(p, config):
    """RETURNS: per layer a dict of views; unbind keeps the backward pass to one stack per parameter."""
    parts = {n: t.unbind(0) for n, t in p.items() if n not in ("embed", "head", "norm")}
    result, index = [], [0, 0]
    for l, kind in enumerate(config.kinds):
        names = ("q", "k", "v", "o") if kind else ("qkv", "gate", "onorm", "out")
        w = {n: parts[n][index[kind]] for n in names}
        index[kind] += 1
        w.update({n: parts[n][l] for n in ("ln1", "ln2", "router", "w1", "w3", "w2")})
        result.append(w)
    return result


# --- token-wise parts -------------------------------------------------------------------------------------


def rms_norm(x, weight, eps):
    x32 = x.float()
    return (x32 * torch.rsqrt(x32.square().mean(-1, keepdim=True) + eps)).to(x.dtype) * weight


def pre_linear(x1, qkv, gate):
    return F.silu(x1 @ qkv.T), x1 @ gate.T


def pre_full(x1, q, k, v, cos, sin, head_dim: int):
    q = (x1 @ q.T).unflatten(-1, (-1, head_dim))
    k = (x1 @ k.T).unflatten(-1, (-1, head_dim))
    return rotate(q, cos, sin), rotate(k, cos, sin), (x1 @ v.T).unflatten(-1, (-1, head_dim))


def rotate(x, cos, sin):
    half = cos.shape[-1]
    a, b, rest = x[..., :half].float(), x[..., half : 2 * half].float(), x[..., 2 * half :]
    c, s = cos[:, None], sin[:, None]
    return torch.cat([(a * c - b * s).to(x.dtype), (b * c + a * s).to(x.dtype), rest], -1)


def moe(x2, router, w1, w3, w2, top_k: int):
    """Every expert is computed and weighted; those not chosen get weight 0. RETURNS: y, balance loss."""
    experts, width = w1.shape[0], w1.shape[1]
    p = torch.softmax(x2.float() @ router.T, -1)
    rank = (p[:, None, :] > p[:, :, None]).sum(-1)
    keep = (rank < top_k).float()
    weight = p * keep
    weight = weight / weight.sum(-1, keepdim=True)
    up = x2 @ torch.cat([w1.flatten(0, 1), w3.flatten(0, 1)]).T
    g, u = up.unflatten(-1, (2, experts, width)).unbind(1)
    h = (F.silu(g) * u) * weight.to(x2.dtype)[..., None]
    y = h.flatten(1) @ w2.transpose(0, 1).flatten(1).T
    return y, (keep.mean(0) * p.mean(0)).sum() * experts / top_k


def ffn(h, alpha: float, ln2, router, w1, w3, w2, next_norm, eps: float, top_k: int):
    x2 = rms_norm(h, ln2, eps)
    y, balance = moe(x2, router, w1, w3, w2, top_k)
    return rms_norm(alpha * x2 + y, next_norm, eps), balance


def post_linear(x1, o, gate, onorm, out, alpha: float, lightning_eps: float, ln2, router, w1, w3, w2, next_norm,
                eps: float, top_k: int):
    o = torch.sigmoid(gate) * rms_norm(o, onorm, lightning_eps)
    return ffn(alpha * x1 + o @ out.T, alpha, ln2, router, w1, w3, w2, next_norm, eps, top_k)


def post_full(x1, o, out, alpha: float, ln2, router, w1, w3, w2, next_norm, eps: float, top_k: int):
    return ffn(alpha * x1 + o @ out.T, alpha, ln2, router, w1, w3, w2, next_norm, eps, top_k)


def loss_part(x, head, target, counts):
    logits = (x @ head.T).float()
    loss = F.cross_entropy(logits, target, reduction="none")
    total = counts.sum().clamp(min=1)
    right = (logits.argmax(-1) == target).float()
    return (loss * counts).sum() / total, (right * counts).sum() / total


class Parts:
    """The token-wise functions, plain or compiled."""

    def __init__(self, compiled=False):
        for fn in (pre_linear, pre_full, post_linear, post_full, loss_part, rms_norm):
            setattr(self, fn.__name__, torch.compile(fn, dynamic=False) if compiled else fn)


# --- lightning attention ----------------------------------------------------------------------------------
# o_t = sum_{i<=t} exp(-s (t-i)) (q_t . k_i) v_i. Its gradients are sums of the same shape:
# dq from (do, v, k), and with time reversed dk from (v, do, q), dv from (k, q, do).

if triton:

    @triton.jit
    def scan_kernel(q_ptr, k_ptr, v_ptr, o_ptr, decay_ptr, heads, q_token, k_token, v_token, o_token,
                    q_head, k_head, v_head, o_head, num_tokens: tl.constexpr, REVERSE: tl.constexpr, D: tl.constexpr, C: tl.constexpr):
        row, head = tl.program_id(0) // heads, tl.program_id(0) % heads
        s = tl.load(decay_ptr + head)
        i, d = tl.arange(0, C), tl.arange(0, D)
        diff = (i[:, None] - i[None, :]).to(tl.float32)
        inner = tl.where(diff >= 0, tl.exp(-s * tl.maximum(diff, 0.0)), 0.0)
        from_state = tl.exp(-s * (i + 1).to(tl.float32))[:, None]
        to_state = tl.exp(-s * (C - 1 - i).to(tl.float32))[:, None]
        state_decay = tl.exp(-s * C)
        state = tl.zeros([D, D], dtype=tl.float32)
        base = row.to(tl.int64) * num_tokens
        for start in range(0, num_tokens, C):
            t = start + i
            if REVERSE:
                t = num_tokens - 1 - t
            t = base + t
            q = tl.load(q_ptr + t[:, None] * q_token + head * q_head + d[None, :])
            k = tl.load(k_ptr + t[:, None] * k_token + head * k_head + d[None, :])
            v = tl.load(v_ptr + t[:, None] * v_token + head * v_head + d[None, :])
            p = tl.dot(q, tl.trans(k)) * inner
            o = tl.dot(p.to(v.dtype), v)
            o += from_state * tl.dot(q.to(tl.float32), state)
            state = state_decay * state + tl.dot(tl.trans(k.to(tl.float32) * to_state), v.to(tl.float32))
            tl.store(o_ptr + t[:, None] * o_token + head * o_head + d[None, :], o.to(o_ptr.dtype.element_ty))

    def scan(q, k, v, o, decay, num_tokens, reverse):
        """q, k, v, o: [rows * num_tokens, heads, head_dim], any strides with dense head_dim."""
        heads = q.shape[1]
        grid = (q.shape[0] // num_tokens * heads,)
        strides = [x.stride(0) for x in (q, k, v, o)] + [x.stride(1) for x in (q, k, v, o)]
        scan_kernel[grid](q, k, v, o, decay, heads, *strides, num_tokens=num_tokens, REVERSE=reverse, D=q.shape[2], C=64,
                          num_warps=4)

    class Lightning(torch.autograd.Function):
        @staticmethod
        def forward(ctx, qkv, decay, num_tokens, heads):
            u = qkv.unflatten(-1, (heads, 3, -1))
            o = torch.empty(u.shape[0], heads, u.shape[3], dtype=qkv.dtype, device=qkv.device)
            scan(u[:, :, 0], u[:, :, 1], u[:, :, 2], o, decay, num_tokens, False)
            ctx.save_for_backward(qkv, decay)
            ctx.sizes = num_tokens, heads
            return o.flatten(1)

        @staticmethod
        def backward(ctx, grad):
            qkv, decay = ctx.saved_tensors
            num_tokens, heads = ctx.sizes
            u = qkv.unflatten(-1, (heads, 3, -1))
            q, k, v = u[:, :, 0], u[:, :, 1], u[:, :, 2]
            g = grad.contiguous().unflatten(-1, (heads, -1))
            du = torch.empty_like(qkv)
            w = du.unflatten(-1, (heads, 3, -1))
            scan(g, v, k, w[:, :, 0], decay, num_tokens, False)
            scan(v, g, q, w[:, :, 1], decay, num_tokens, True)
            scan(k, q, g, w[:, :, 2], decay, num_tokens, True)
            return du, None, None, None


def lightning_torch(qkv, decay, num_tokens, heads, chunk=128):
    """The same in plain torch, by chunks with an F32 state."""
    u = qkv.unflatten(-1, (heads, 3, -1)).float()
    u = u.unflatten(0, (-1, num_tokens)).transpose(1, 2)  # [rows, heads, tokens, 3, head_dim]
    q, k, v = (u[:, :, :, j] for j in range(3))
    s = decay[None, :, None, None]
    state = torch.zeros(q.shape[0], heads, q.shape[3], q.shape[3], device=q.device)
    out = []
    for start in range(0, num_tokens, chunk):
        qc, kc, vc = (x[:, :, start : start + chunk] for x in (q, k, v))
        m = qc.shape[2]
        i = torch.arange(m, device=q.device, dtype=torch.float32)
        diff = i[:, None] - i[None, :]
        inner = torch.where(diff >= 0, torch.exp(-s * diff.clamp(min=0)), torch.zeros((), device=q.device))
        o = (qc @ kc.transpose(-1, -2) * inner) @ vc
        o = o + torch.exp(-s * (i + 1)[:, None]) * (qc @ state)
        state = torch.exp(-s * m) * state + (kc * torch.exp(-s * (m - 1 - i)[:, None])).transpose(-1, -2) @ vc
        out.append(o)
    return torch.cat(out, 2).transpose(1, 2).flatten(0, 1).flatten(1).to(qkv.dtype)


def lightning(qkv, decay, num_tokens, heads):
    if qkv.is_cuda and qkv.dtype == torch.bfloat16:
        return Lightning.apply(qkv, decay, num_tokens, heads)
    return lightning_torch(qkv, decay, num_tokens, heads)


# --- whole model ------------------------------------------------------------------------------------------


def rope_table(config, positions):
    inv = config.rope_theta ** (-torch.arange(0, config.rotary_dim, 2, device=positions.device).float() / config.rotary_dim)
    angle = positions.float()[:, None] * inv
    return angle.cos(), angle.sin()


def full_attention(q, k, v, num_tokens):
    q, k, v = (x.unflatten(0, (-1, num_tokens)).transpose(1, 2) for x in (q, k, v))
    o = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    return o.transpose(1, 2).flatten(0, 1).flatten(1)


def forward(p, config, tokens, decays, parts, cache=None, lengths=None):
    """tokens: [rows, num_tokens]. RETURNS: normed last hidden [rows * num_tokens, hidden], balance loss.

    With `cache` (see Decoder) the states after `lengths` tokens of each row are written to it.
    """
    rows, num_tokens = tokens.shape
    positions = torch.arange(num_tokens, device=tokens.device).repeat(rows)
    cos, sin = rope_table(config, positions)
    weights = layer_weights(p, config)
    norms = [w["ln1"] for w in weights[1:]] + [p["norm"]]
    if p["embed"].requires_grad:  # a product with one-hot rows: its backward is a product too
        one_hot = tokens.flatten()[:, None] == torch.arange(config.vocab_size, device=tokens.device)
        x = one_hot.to(p["embed"].dtype) @ p["embed"]
    else:
        x = F.embedding(tokens.flatten(), p["embed"])
    x1 = parts.rms_norm(x, weights[0]["ln1"], config.eps)
    balance = 0.0
    for l, (w, kind) in enumerate(zip(weights, config.kinds)):
        tail = (w["ln2"], w["router"], w["w1"], w["w3"], w["w2"], norms[l], config.eps, config.top_k)
        if kind:
            q, k, v = parts.pre_full(x1, w["q"], w["k"], w["v"], cos, sin, config.head_dim)
            if cache:
                cache.store_full(l, k, v, num_tokens)
            o = full_attention(q, k, v, num_tokens)
            x1, b = parts.post_full(x1, o, w["o"], config.alpha, *tail)
        else:
            qkv, gate = parts.pre_linear(x1, w["qkv"], w["gate"])
            if cache:
                cache.store_linear(l, qkv, decays[l], num_tokens, lengths)
            o = lightning(qkv, decays[l], num_tokens, config.heads)
            x1, b = parts.post_linear(x1, o, gate, w["onorm"], w["out"], config.alpha, config.lightning_eps, *tail)
        balance = balance + b
    return x1, balance / config.layers


class Decoder:
    """Greedy generation for a batch of prompts, with key/value caches and lightning states (F32)."""

    def __init__(self, parameters, config, device, dtype):
        self.config, self.device, self.dtype = config, device, dtype
        rounded = {n: p.detach().to(device) for n, p in parameters.items()}
        rounded = {n: p if n in F32_ALWAYS else p.to(torch.bfloat16) for n, p in rounded.items()}
        self.p = cast(rounded, dtype)
        self.parts = Parts()
        self.decays = [decay_rates(config, l).to(device) for l in range(config.layers)]
        self.weights = layer_weights(self.p, config)

    def store_full(self, l, k, v, num_tokens):
        for name, x in (("k", k), ("v", v)):
            x = x.unflatten(0, (-1, num_tokens)).transpose(1, 2)
            buffer = torch.zeros(*x.shape[:2], num_tokens + self.room, x.shape[3], dtype=x.dtype, device=x.device)
            buffer[:, :, :num_tokens] = x
            self.cache[l, name] = buffer

    def store_linear(self, l, qkv, decay, num_tokens, lengths):
        u = qkv.unflatten(-1, (self.config.heads, 3, -1)).unflatten(0, (-1, num_tokens)).float()
        age = (lengths[:, None] - 1 - torch.arange(num_tokens, device=self.device)).float()
        weight = torch.exp(-decay * age.clamp(min=0)[..., None]) * (age >= 0)[..., None]  # [rows, tokens, heads]
        self.cache[l] = torch.einsum("bthk,bthv->bhkv", u[:, :, :, 1] * weight[..., None], u[:, :, :, 2])

    @torch.no_grad()
    def prefill(self, prompts, room):
        self.room, self.cache = room, {}
        self.lengths = torch.tensor([len(x) for x in prompts], device=self.device)
        longest = max(len(x) for x in prompts)
        tokens = torch.zeros(len(prompts), (longest + 63) // 64 * 64, dtype=torch.long)
        for i, x in enumerate(prompts):
            tokens[i, : len(x)] = torch.tensor(x)
        hidden, _ = forward(self.p, self.config, tokens.to(self.device), self.decays, self.parts, self, self.lengths)
        hidden = hidden.unflatten(0, tokens.shape)
        return hidden[torch.arange(len(prompts)), self.lengths - 1] @ self.p["head"].T

    @torch.no_grad()
    def step(self, tokens):
        """One token for every row; RETURNS: logits [rows, vocab]."""
        c, rows = self.config, torch.arange(tokens.shape[0], device=self.device)
        cos, sin = rope_table(c, self.lengths)
        norms = [w["ln1"] for w in self.weights[1:]] + [self.p["norm"]]
        x1 = rms_norm(F.embedding(tokens, self.p["embed"]), self.weights[0]["ln1"], c.eps)
        for l, (w, kind) in enumerate(zip(self.weights, c.kinds)):
            tail = (w["ln2"], w["router"], w["w1"], w["w3"], w["w2"], norms[l], c.eps, c.top_k)
            if kind:
                q, k, v = pre_full(x1, w["q"], w["k"], w["v"], cos, sin, c.head_dim)
                keys, values = self.cache[l, "k"], self.cache[l, "v"]
                keys[rows, :, self.lengths] = k
                values[rows, :, self.lengths] = v
                mask = torch.arange(keys.shape[2], device=self.device) <= self.lengths[:, None]
                o = F.scaled_dot_product_attention(q[:, :, None], keys, values, attn_mask=mask[:, None, None], enable_gqa=True)
                x1, _ = post_full(x1, o.flatten(1), w["o"], c.alpha, *tail)
            else:
                qkv, gate = pre_linear(x1, w["qkv"], w["gate"])
                q, k, v = qkv.unflatten(-1, (c.heads, 3, -1)).float().unbind(2)
                self.cache[l] = torch.exp(-self.decays[l])[:, None, None] * self.cache[l] + k[..., None] * v[..., None, :]
                o = torch.einsum("bhk,bhkv->bhv", q, self.cache[l]).flatten(1).to(self.dtype)
                x1, _ = post_linear(x1, o, gate, w["onorm"], w["out"], c.alpha, c.lightning_eps, *tail)
        self.lengths = self.lengths + 1
        return x1 @ self.p["head"].T

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
