"""What make_m2_parity.py and make_m3_parity.py share: random weights, quantised twins, a float64 forward, writing.

Weights are handled under one set of names, those of the released BF16 checkpoints without `language_model.`
(model.layers.{l}.self_attn.q_proj.weight, model.layers.{l}.block_sparse_moe.experts.{e}.w1.weight, ...).

expected.safetensors of a fixture holds
  input_ids      I32 [1100]
  rows           I32 [r]         the tokens whose logits are kept: every 7th, and 0, 126, 127, 128, 599, 1099
  logits         F32 [r, vocab]  logits[i] belongs to token rows[i]
  router_margin  F32 [1100]      the smallest distance, over the layers, of the last chosen expert's biased score
                                 from the first one left out
  greedy         I32 [24]        the greedy continuation of the first `greedy_prompt` tokens
  greedy_margin  F32 [24]        the best logit less the second, for each of these
  greedy_prompt  I32 [1]         600
and, for each sparse layer of M3,
  selected_l{layer}  I32 [1100, index_heads, topk]  chosen blocks, ascending, -1 behind the last
  margin_l{layer}    F32 [1100, index_heads]        the lowest score of a chosen block less the highest of one left
                                                    out; infinite when every block is chosen. Scores are dot
                                                    products of the index vectors, not divided by sqrt(dim)
The model is causal, so the logits of a prefix of input_ids are the first rows of these.
"""

import copy
import json
import math
import re
import tempfile
from types import SimpleNamespace

import torch
from safetensors.torch import load_file, save_file

LENGTH = 1100
ROWS = sorted({*range(0, LENGTH, 7), 126, 127, 128, 599, 1099})
GREEDY_PROMPT = 600
GREEDY_TOKENS = 24
MLP_NAMES = {"w1": "gate_proj", "w3": "up_proj", "w2": "down_proj"}


def is_linear(name):
    """Is the tensor quantised in the FP8 releases?"""
    excluded = ("embed_tokens", "lm_head", "norm", "block_sparse_moe.gate.", "e_score_correction_bias")
    return not any(part in name for part in excluded)


def rounded(weights):
    return {n: w.to(torch.bfloat16).float() for n, w in weights.items()}


# --- quantised twins --------------------------------------------------------------------------------------


def to_e4m3(x):
    return x.clamp(-448, 448).to(torch.float8_e4m3fn)


def block_scale(scale, shape, block=128):
    """A [ceil(out/block), ceil(in/block)] grid spread over a matrix."""
    return scale.repeat_interleave(block, 0)[: shape[0]].repeat_interleave(block, 1)[:, : shape[1]]


def quantize_block(w, generator):
    """128x128 blocks; the scales of neighbouring blocks are apart by up to a factor of eight."""
    n, k = (math.ceil(s / 128) for s in w.shape)
    padded = torch.zeros(n * 128, k * 128)
    padded[: w.shape[0], : w.shape[1]] = w
    largest = padded.abs().unflatten(1, (k, 128)).unflatten(0, (n, 128)).amax((1, 3))
    scale = largest / 448 * 2 ** (3 * torch.rand(n, k, generator=generator))
    return {"weight": to_e4m3(w / block_scale(scale, w.shape)), "weight_scale_inv": scale}


def quantize_channel(w, _):
    scale = w.abs().amax(1, keepdim=True) / 448
    return {"weight": to_e4m3(w / scale), "weight_scale": scale}


def quantize_tensor(w, _):
    scale = w.abs().max() / 448
    return {"weight": to_e4m3(w / scale), "weight_scale": scale.reshape(())}


def quantize_mx(w, _):
    """E8M0 scales, one for 32 consecutive inputs; some are larger than needed, so that small codes occur too."""
    groups = w.unflatten(1, (-1, 32))
    exponent = torch.ceil(torch.log2(groups.abs().amax(2) / 448))
    exponent[::3] += 1
    codes = to_e4m3(groups * 2.0 ** -exponent[..., None]).flatten(1)
    return {"weight": codes, "weight_scale_inv": (exponent + 127).to(torch.uint8)}


def quantized(weights, quantize):
    generator = torch.Generator().manual_seed(23)
    result = {}
    for name, w in weights.items():
        if is_linear(name):
            base = name.removesuffix("weight")
            result |= {base + suffix: t.contiguous() for suffix, t in quantize(w, generator).items()}
        else:
            result[name] = w
    return result


def dequantized(tensors):
    """Float32 weights of a file, by what it holds."""
    result = {}
    for name, w in tensors.items():
        base = name.removesuffix("weight")
        if name.endswith(("weight_scale_inv", "weight_scale")):
            continue
        if w.dtype != torch.float8_e4m3fn:
            result[name] = w.float()
        elif base + "weight_scale" in tensors:
            result[name] = w.float() * tensors[base + "weight_scale"]
        elif (scale := tensors[base + "weight_scale_inv"]).dtype == torch.uint8:
            result[name] = w.float() * (2.0 ** (scale.float() - 127)).repeat_interleave(32, 1)
        else:
            result[name] = w.float() * block_scale(scale, w.shape)
    return result


# --- the float64 forward ----------------------------------------------------------------------------------


def unfused(tensors):
    """Maps transformers' in-memory spelling to ours."""
    result = {}
    for name, w in tensors.items():
        name = re.sub(r"^model\.language_model\.|^language_model\.model\.", "model.", name)
        name = name.removeprefix("language_model.").replace("self_attn.indexer.", "self_attn.index_")
        name = re.sub(r"\.mlp\.(?=gate\.|experts|shared|e_score)", ".block_sparse_moe.", name)
        name = name.replace("moe.gate.e_score", "moe.e_score")
        # transformers 5.17 writes the MLP of M3's dense layers under the experts' name, too.
        name = re.sub(r"\.block_sparse_moe\.(?=(gate|up|down)_proj\.)", ".mlp.", name)
        head, _, last = name.rpartition(".")
        if last == "gate_up_proj":
            for e, (w1, w3) in enumerate(zip(*w.chunk(2, 1))):
                result[f"{head}.{e}.w1.weight"], result[f"{head}.{e}.w3.weight"] = w1, w3
        elif last == "down_proj":
            result |= {f"{head}.{e}.w2.weight": x for e, x in enumerate(w)}
        elif head.endswith("gate_up_proj"):
            base = head.removesuffix("gate_up_proj")
            result[base + "gate_proj.weight"], result[base + "up_proj.weight"] = w.chunk(2, 0)
        else:
            result[name] = w
    return result


def settings(config):
    """The fields that the forward needs, from any spelling."""
    text = config.get("text_config", config)
    sparse, rope = text.get("sparse_attention_config", {}), text.get("rope_parameters") or {}
    layers, head_dim = text["num_hidden_layers"], text["head_dim"]
    kinds = [k == "minimax_m3_sparse" for k in text.get("layer_types") or []] or sparse.get("sparse_attention_freq")
    rotary = round(rope.get("partial_rotary_factor", 0) * head_dim) or text.get("rotary_dim")
    return SimpleNamespace(
        layers=layers, heads=text["num_attention_heads"], kv_heads=text["num_key_value_heads"], head_dim=head_dim,
        experts=text["num_local_experts"], top_k=text["num_experts_per_tok"], eps=text["rms_norm_eps"],
        theta=rope.get("rope_theta") or text["rope_theta"], rotary=rotary, sparse=kinds or [False] * layers,
        m3="dense_intermediate_size" in text, scale=text.get("routed_scaling_factor", 1.0),
        alpha=text.get("swiglu_alpha"), limit=text.get("swiglu_limit"),
        index_heads=text.get("index_n_heads") or sparse.get("sparse_num_index_heads"),
        block=text.get("index_block_size") or sparse.get("sparse_block_size"),
        topk=text.get("index_topk_blocks") or sparse.get("sparse_topk_blocks"),
    )


class Forward64:
    """The models' mathematics in float64, written apart from transformers."""

    def __init__(self, config, tensors):
        self.c = settings(config)
        self.w = {n: w.double() for n, w in unfused(dequantized(tensors)).items()}

    def norm(self, x, name):
        w = self.w[name]
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.c.eps) * (1 + w if self.c.m3 else w)

    def rotate(self, x):
        """x [heads, n, dim]; float32 angles, as every implementation has them."""
        half = self.c.rotary // 2
        inverse = 1.0 / (self.c.theta ** (torch.arange(0, 2 * half, 2, dtype=torch.float) / (2 * half)))
        angle = (torch.arange(x.shape[1]).float()[:, None] * inverse).double()
        a, b = x[..., :half], x[..., half : 2 * half]
        turned = (a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin())
        return torch.cat([*turned, x[..., 2 * half :]], -1)

    def heads(self, x, count, norm=None):
        x = x.unflatten(-1, (count, -1))
        return (self.norm(x, norm) if norm else x).transpose(0, 1)

    def choose(self, layer, x):
        """RETURNS: allowed blocks [index_heads, n, blocks]; keeps the choice and its margin."""
        c, base, n = self.c, f"model.layers.{layer}.self_attn.index_", x.shape[0]
        q = self.rotate(self.heads(x @ self.w[base + "q_proj.weight"].T, c.index_heads, base + "q_norm.weight"))
        k = self.rotate(self.heads(x @ self.w[base + "k_proj.weight"].T, 1, base + "k_norm.weight"))
        blocks = math.ceil(n / c.block)
        score = torch.full((c.index_heads, n, blocks * c.block), float("-inf"), dtype=torch.double)
        score[..., :n] = (q @ k.transpose(1, 2)).masked_fill(torch.ones(n, n).triu(1).bool(), float("-inf"))
        score = score.unflatten(2, (blocks, c.block)).amax(3)
        current = torch.arange(n) // c.block
        valid = torch.arange(blocks) <= current[:, None]
        forced = score.masked_fill(torch.arange(blocks) == current[:, None], float("inf"))
        order = forced.sort(dim=-1, descending=True, stable=True).indices
        rank = order.argsort(-1)
        chosen = (rank < c.topk) & valid
        left = (~chosen & valid).any(-1)
        lowest = score.masked_fill(~chosen | (forced == float("inf")), float("inf")).amin(-1)
        highest = score.masked_fill(chosen | ~valid, float("-inf")).amax(-1)
        margin = torch.where(left, lowest - highest, torch.full_like(lowest, float("inf")))
        listed = torch.where(chosen, torch.arange(blocks), blocks).sort(-1).values[..., : c.topk]
        listed = listed.masked_fill(listed == blocks, -1)
        if listed.shape[-1] < c.topk:
            listed = torch.nn.functional.pad(listed, (0, c.topk - listed.shape[-1]), value=-1)
        self.selected[layer], self.margin[layer] = listed.transpose(0, 1), margin.transpose(0, 1)
        return chosen

    def attention(self, layer, x):
        c, base, n = self.c, f"model.layers.{layer}.self_attn.", x.shape[0]
        q, k, v = (x @ self.w[f"{base}{m}_proj.weight"].T for m in "qkv")
        if c.m3:
            q, k = self.heads(q, c.heads, base + "q_norm.weight"), self.heads(k, c.kv_heads, base + "k_norm.weight")
        else:
            q, k = self.norm(q, base + "q_norm.weight"), self.norm(k, base + "k_norm.weight")
            q, k = self.heads(q, c.heads), self.heads(k, c.kv_heads)
        q, k, v = self.rotate(q), self.rotate(k), self.heads(v, c.kv_heads)
        group = c.heads // c.kv_heads
        allowed = torch.ones(n, n).tril().bool()[None].expand(c.heads, n, n)
        if c.sparse[layer]:
            blocks = self.choose(layer, x).repeat_interleave(c.block, 2)[..., :n]
            allowed = allowed & blocks.repeat_interleave(c.heads // c.index_heads, 0)
        score = q @ k.repeat_interleave(group, 0).transpose(1, 2) / math.sqrt(c.head_dim)
        p = score.masked_fill(~allowed, float("-inf")).softmax(-1)
        o = (p @ v.repeat_interleave(group, 0)).transpose(0, 1).flatten(1)
        return o @ self.w[base + "o_proj.weight"].T

    def mlp(self, x, base, gate, up, down):
        g, u = x @ self.w[base + gate + ".weight"].T, x @ self.w[base + up + ".weight"].T
        if not self.c.m3:
            return (g * torch.sigmoid(g) * u) @ self.w[base + down + ".weight"].T
        self.clamped.append(((g > self.c.limit) | (u.abs() > self.c.limit)).double().mean().item())
        g, u = g.clamp(max=self.c.limit), u.clamp(-self.c.limit, self.c.limit)
        return ((u + 1) * g * torch.sigmoid(self.c.alpha * g)) @ self.w[base + down + ".weight"].T

    def moe(self, layer, x):
        c, base = self.c, f"model.layers.{layer}.block_sparse_moe."
        p = torch.sigmoid(x @ self.w[base + "gate.weight"].T)
        biased = p + self.w[base + "e_score_correction_bias"]
        order = biased.sort(-1, descending=True)
        self.router_margin = torch.minimum(self.router_margin, order.values[:, c.top_k - 1] - order.values[:, c.top_k])
        picked = order.indices[:, : c.top_k]
        plain = p.topk(c.top_k).indices.sort(-1).values
        self.bias_changes.append((plain != picked.sort(-1).values).any(-1).double().mean().item())
        weight = torch.zeros_like(p).scatter(1, picked, p.gather(1, picked))
        weight = weight / weight.sum(-1, keepdim=True)
        y = torch.zeros_like(x)
        for e in range(c.experts):
            t = (weight[:, e] > 0).nonzero().flatten()
            y[t] += weight[t, e, None] * self.mlp(x[t], f"{base}experts.{e}.", "w1", "w3", "w2")
        if c.m3:
            y = c.scale * y + self.mlp(x, base + "shared_experts.", *MLP_NAMES.values())
        return y

    def __call__(self, ids):
        self.selected, self.margin, self.clamped, self.bias_changes = {}, {}, [], []
        self.router_margin = torch.full((len(ids),), float("inf"), dtype=torch.double)
        h = self.w["model.embed_tokens.weight"][ids]
        for layer in range(self.c.layers):
            base = f"model.layers.{layer}."
            h = h + self.attention(layer, self.norm(h, base + "input_layernorm.weight"))
            x = self.norm(h, base + "post_attention_layernorm.weight")
            dense = base + "mlp.gate_proj.weight" in self.w
            h = h + (self.mlp(x, base + "mlp.", *MLP_NAMES.values()) if dense else self.moe(layer, x))
        return self.norm(h, "model.norm.weight") @ self.w["lm_head.weight"].T


# --- what a fixture expects -------------------------------------------------------------------------------


def error(got, want):
    got, want = got.double(), want.double()
    return ((got - want).norm() / want.norm()).item()


def logits_of(model, ids):
    with torch.no_grad():
        return model(input_ids=ids.view(1, -1), use_cache=False).logits[0].float()


def bf16_error(model, ids, logits):
    """transformers' own BF16. Loaded anew: casting the model would round its rotary frequencies."""
    with tempfile.TemporaryDirectory() as folder:
        copy.deepcopy(model).to(torch.bfloat16).save_pretrained(folder)
        half = type(model).from_pretrained(folder, dtype=torch.bfloat16, attn_implementation="eager").eval()
    return error(logits_of(half, ids), logits)


def hook_choices(model, choices):
    for index, layer in enumerate(getattr(model.model, "language_model", model.model).layers):
        indexer = getattr(layer.self_attn, "indexer", None)
        if indexer is not None:
            indexer.register_forward_hook(lambda _, __, out, index=index: choices.__setitem__(index, out[0]))


def ascending(choice):
    """transformers' [heads, n, topk] by score to [n, heads, topk] by block, -1 last."""
    high = torch.iinfo(choice.dtype).max
    order = choice.masked_fill(choice < 0, high).sort(-1).values
    return order.masked_fill(order == high, -1).transpose(0, 1)


def greedy(model, prompt):
    sequence, margins = prompt, []
    for _ in range(GREEDY_TOKENS):
        last = logits_of(model, sequence)[-1]
        best = last.topk(2).values
        margins.append((best[0] - best[1]).item())
        sequence = torch.cat([sequence, last.argmax().view(1)])
    return sequence[len(prompt) :], torch.tensor(margins)


def draw_input(model, check, vocab):
    """RETURNS: (ids, greedy continuation, its margins), drawn again until no greedy step is nearly a tie and no
    choice of experts lies within float32's rounding."""
    best = None
    for seed in range(11, 31):
        ids = torch.randint(0, vocab, (LENGTH,), generator=torch.Generator().manual_seed(seed))
        check(ids)
        if check.router_margin.min() < 2e-6:
            continue
        tokens, margins = greedy(model, ids[:GREEDY_PROMPT])
        if len(tokens.unique()) >= 4 and (best is None or margins.min() > best[2].min()):
            best = (ids, tokens, margins)
        if best and best[2].min() > 0.05:
            break
    return best


def write_expected(folder, model, vocab):
    """Computes what `folder` expects with `model` (transformers, float32) and compares with the float64 forward."""
    check = Forward64(json.loads((folder / "config.json").read_text()), load_file(folder / "model.safetensors"))
    ids, tokens, margins = draw_input(model, check, vocab)
    choices = {}
    hook_choices(model, choices)
    logits = logits_of(model, ids)
    chosen = {layer: ascending(c) for layer, c in choices.items()}
    reference = check(ids)
    for n in (128, 600):
        assert error(logits_of(model, ids[:n]), logits[:n]) < 3e-6, "the model is not causal"
    result = {"input_ids": ids, "greedy": tokens, "rows": torch.tensor(ROWS), "greedy_prompt": torch.tensor([GREEDY_PROMPT])}
    differing = 0
    for layer, choice in chosen.items():
        result[f"selected_l{layer}"] = choice
        unlike = (choice != check.selected[layer]).any(-1)
        differing += unlike.sum().item()
        assert not (unlike & (check.margin[layer] > 1e-4)).any(), "another choice of blocks"
    result = {n: t.to(torch.int32).contiguous() for n, t in result.items()}
    result |= {f"margin_l{layer}": m.float().contiguous() for layer, m in check.margin.items()}
    result["logits"] = logits[ROWS].contiguous()
    result["greedy_margin"] = margins
    result["router_margin"] = check.router_margin.float()
    save_file(result, folder / "expected.safetensors")
    size = sum(f.stat().st_size for f in folder.iterdir())
    report = [f"{folder.name}: {size} bytes, float64 {error(logits, reference):.1e}",
              f"BF16 {bf16_error(model, ids, logits):.1e}", f"std {logits.std().item():.2f}",
              f"bias changes {sum(check.bias_changes) / len(check.bias_changes):.2f} of the choices",
              f"router margin {check.router_margin.min().item():.1e}", f"greedy margin {margins.min().item():.2f}",
              f"{len(tokens.unique())} greedy tokens"]
    if check.c.m3:
        finite = torch.cat([m[m < float("inf")] for m in check.margin.values()])
        report += [f"clamped {max(check.clamped):.3f}", f"block margin {finite.min().item():.1e}", f"{differing} unlike"]
    print(", ".join(report), flush=True)


def write_folder(folder, config, tensors):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    save_file({n: t.contiguous() for n, t in tensors.items()}, folder / "model.safetensors", metadata={"format": "pt"})
