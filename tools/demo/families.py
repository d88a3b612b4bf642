"""What trainer.py trains for M2 and M3, and how they are written."""

import json

import torch
from safetensors.torch import save_file

from chat import M2Chat, M3Chat
from evaluate import SPARSE_SUITE, SUITES, evaluate
from model_moe import QUANTIZED, Config, Decoder, M3Config, Parts, cast, forward, init_parameters, quantize

QUANTIZE_FROM = 0.7  # share of the training from which on weights are rounded as they will be written
SPARSE_FROM = 0.35  # from which on long rows read the chosen blocks alone
BIAS_RATE = 0.5  # of the learning rate: how far an expert's bias moves in a step


class M2:
    chat, config, make_parts, suites = M2Chat(), Config(), Parts, SUITES
    lengths, pool_shares = [256, 512, 1024, 2048, 4096], [26, 34, 17, 9, 14]
    muon = ("q", "k", "v", "o", "w1", "w2", "w3")
    small = {"layers": 2, "experts": 4, "top_k": 2, "hidden": 96, "width": 32}

    def shrink(self):
        self.config = type(self.config)(**self.small)
        self.lengths, self.pool_shares = self.lengths[:2], self.pool_shares[:2]

    def init_parameters(self):
        return init_parameters(self.config)

    def setup(self, device):
        """The bias evens out how often experts are chosen; it is no parameter: its rule needs no gradient."""
        shape = self.config.moe_layers, self.config.experts
        self.bias, self.share = torch.zeros(shape, device=device), torch.zeros(shape, device=device)
        self.mix, self.sparse = torch.zeros((), device=device), torch.zeros((), device=device)

    def state(self):
        return {"bias": self.bias}

    def schedule(self, progress):
        self.mix.fill_(float(progress >= QUANTIZE_FROM))
        self.sparse.fill_(float(progress >= SPARSE_FROM))

    def bucket_weights(self, progress):
        """Short rows first; the share of long contexts grows."""
        if progress < 0.06:
            weights = [60, 35, 5, 0, 0]
        elif progress < 0.2:
            weights = [40, 30, 22, 6, 2]
        else:
            weights = [26, 37, 16, 8, 13]
        return weights[: len(self.lengths)]

    def loss(self, parameters, parts, ids, target, counts, dtype):
        """Reported: loss, share of right tokens, load of the fullest expert over the mean, index divergence."""
        c = self.config
        p = cast(parameters, c, dtype, self.mix)
        hidden, shares, divergence = forward(p, c, ids, self.bias, parts, self.sparse, counts=counts)
        self.share.copy_(shares.detach())
        loss, right = parts.loss_part(hidden, p["head"], target, counts)
        fullest = shares.detach().amax() * (c.experts / c.top_k)
        return loss + divergence, torch.stack([loss.detach(), right.detach(), fullest, divergence.detach()])

    def after_update(self, lr):
        self.bias.add_(torch.sign(self.share.mean(1, keepdim=True) - self.share) * (lr * BIAS_RATE))

    def export(self, folder, parameters, _=None):
        export(folder, {n: p.detach().cpu() for n, p in parameters.items()}, self.bias.cpu(), self)

    def decoder(self, parameters, device, dtype):
        return Decoder(parameters, self.bias, self.config, device, dtype)

    def evaluate(self, parameters, tokenizer, device, dtype, count, show):
        return evaluate(self.decoder(parameters, device, dtype), self.chat, tokenizer, count, show=show, suites=self.suites)

    def prefix(self):
        return ""

    def released_config(self):
        c = self.config
        return {
            "architectures": ["MiniMaxM2ForCausalLM"], "attn_type_list": [1] * c.layers, "head_dim": c.head_dim,
            "hidden_act": "silu", "hidden_size": c.hidden, "intermediate_size": c.width, "max_position_embeddings": 8192,
            "model_type": "minimax_m2", "num_attention_heads": c.heads, "num_experts_per_tok": c.top_k,
            "num_hidden_layers": c.layers, "num_key_value_heads": c.kv_heads, "num_local_experts": c.experts,
            "qk_norm_type": "per_layer",
            "quantization_config": {
                "activation_scheme": "dynamic", "fmt": "float8_e4m3fn", "quant_method": "fp8", "weight_block_size": [128, 128],
                "modules_to_not_convert": ["gate", "e_score_correction_bias", "lm_head"],
            },
            "rms_norm_eps": c.eps, "rope_theta": int(c.rope_theta), "rotary_dim": c.rotary_dim, "scoring_func": "sigmoid",
            "shared_intermediate_size": 0, "tie_word_embeddings": False, "use_cache": True, "use_mtp": False,
            "use_qk_norm": True, "use_routing_bias": True, "vocab_size": c.vocab_size,
        }


class M3(M2):
    chat, config, suites = M3Chat(), M3Config(), [*SUITES, SPARSE_SUITE]
    lengths, pool_shares = [256, 512, 1024, 2048, 5120], [18, 38, 18, 9, 17]
    # Without gradient in short rows the index projections are left to Adam: Muon would keep their steps large.
    muon = (*M2.muon, "s1", "s2", "s3", "d1", "d2", "d3")
    # Two blocks do not cover rows of 512.
    small = M2.small | {"layers": 3, "dense_width": 64, "topk_blocks": 2}

    def bucket_weights(self, progress):
        if progress < 0.06:
            weights = [50, 45, 5, 0, 0]
        elif progress < 0.2:
            weights = [30, 40, 22, 5, 3]
        else:
            weights = [18, 44, 18, 8, 12]
        return weights[: len(self.lengths)]

    def prefix(self):
        return "language_model."

    def released_config(self):
        c = self.config
        frequency = [0] * c.dense_layers + [1] * c.sparse_layers
        ignored = [f"model.layers.{l}.block_sparse_moe.gate" for l, f in enumerate(frequency) if f]
        return {
            "architectures": ["MiniMaxM3SparseForConditionalGeneration"], "model_type": "minimax_m3_vl",
            "text_config": {
                "hidden_size": c.hidden, "intermediate_size": c.width, "num_hidden_layers": c.layers, "num_attention_heads": c.heads,
                "num_key_value_heads": c.kv_heads, "head_dim": c.head_dim, "vocab_size": c.vocab_size,
                "max_position_embeddings": 16384, "rms_norm_eps": c.eps, "use_gemma_norm": True, "attention_output_gate": False,
                "rope_theta": int(c.rope_theta), "rotary_dim": c.rotary_dim, "partial_rotary_factor": c.rotary_dim / c.head_dim,
                "hidden_act": "swigluoai", "use_qk_norm": True, "tie_word_embeddings": False,
                "dense_intermediate_size": c.dense_width, "shared_intermediate_size": c.width, "num_local_experts": c.experts,
                "num_experts_per_tok": c.top_k, "n_shared_experts": c.shared, "scoring_func": "sigmoid",
                "use_routing_bias": True, "moe_layer_freq": frequency, "qk_norm_type": "per_head", "swiglu_alpha": c.alpha,
                "swiglu_limit": c.limit, "routed_scaling_factor": c.routed_scale,
                "sparse_attention_config": {
                    "use_sparse_attention": True, "sparse_index_dim": c.index_dim, "sparse_num_index_heads": c.kv_heads,
                    "sparse_topk_blocks": c.topk_blocks, "sparse_block_size": c.block, "sparse_disable_index_value": frequency,
                    "sparse_score_type": "max", "sparse_init_block": 0, "sparse_local_block": 1,
                    "sparse_attention_freq": frequency,
                },
                "architectures": ["MiniMaxM3SparseForCausalLM"],
            },
            "quantization_config": {
                "quant_method": "mxfp8", "activation_scheme": "dynamic", "weight_block_size": [1, 32],
                "ignored_layers": ["lm_head", "model.embed_tokens", *ignored],
            },
            "torch_dtype": "bfloat16",
        }


FAMILIES = {"m2": M2, "m3": M3}


# --- writing ----------------------------------------------------------------------------------------------


def layer_tensors(c, p, bias, l):
    """The tensors of a layer: {name below model.layers.{l}: (our name, value)}."""
    names = {"input_layernorm": "ln1", "post_attention_layernorm": "ln2", "self_attn.q_norm": "q_norm", "self_attn.k_norm": "k_norm"}
    names |= {f"self_attn.{x}_proj": x for x in "qkvo"}
    result = {f"{n}.weight": (ours, p[ours][l]) for n, ours in names.items()}
    if l < c.dense_layers:
        return result | {f"mlp.{n}_proj.weight": (x, p[x][l]) for n, x in (("gate", "d1"), ("up", "d3"), ("down", "d2"))}
    m, moe = l - c.dense_layers, "block_sparse_moe."
    result |= {moe + "gate.weight": ("router", p["router"][m]), moe + "e_score_correction_bias": ("bias", bias[m])}
    for e in range(c.experts):
        result |= {f"{moe}experts.{e}.{w}.weight": (w, p[w][m, e]) for w in ("w1", "w2", "w3")}
    if c.shared:
        result |= {f"{moe}shared_experts.{n}_proj.weight": (x, p[x][m]) for n, x in (("gate", "s1"), ("up", "s3"), ("down", "s2"))}
    if c.is_m3:
        index = {"q_proj": "iq", "k_proj": "ik", "q_norm": "iq_norm", "k_norm": "ik_norm"}
        result |= {f"self_attn.index_{n}.weight": (ours, p[ours][m]) for n, ours in index.items()}
    return result


def written(c, name, ours, value):
    """RETURNS: the tensors that a file holds for one weight."""
    if ours in QUANTIZED:
        codes, scale, _ = quantize(c, value)
        scale = scale.to(torch.uint8) if c.is_m3 else scale
        return {name: codes.to(torch.float8_e4m3fn).contiguous(), name + "_scale_inv": scale.contiguous()}
    return {name: value.float().contiguous() if ours in ("router", "bias") else value.to(torch.bfloat16).contiguous()}


def export(folder, p, bias, family):
    """Writes model.safetensors (quantised linears, BF16 rest, F32 routers and biases) and config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    c, prefix = family.config, family.prefix()
    tensors = {}
    for name, ours in (("model.embed_tokens", "embed"), ("lm_head", "head"), ("model.norm", "norm")):
        tensors |= written(c, f"{prefix}{name}.weight", ours, p[ours])
    for l in range(c.layers):
        for name, (ours, value) in layer_tensors(c, p, bias, l).items():
            tensors |= written(c, f"{prefix}model.layers.{l}.{name}", ours, value)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(family.released_config(), indent=2) + "\n")
