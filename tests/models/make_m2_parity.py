"""Makes the fixtures of the M2 parity test: small random models with the logits of transformers 5.17.

  python tests/models/make_m2_parity.py OUT

Expected values come from MiniMaxM2ForCausalLM in float32 with the values that the file holds (of FP8 files:
with the dequantised weights); parity_common.py lists them and compares each with a float64 forward.

  transformers_heads6  as transformers saves a BF16 model
  native_heads6        its names in memory: fused experts, `.mlp.`
  released_heads8      released names and config; router and bias in F32; tensors of MTP modules to be skipped
  fp8_block            released FP8: 128x128 blocks with ragged edges, `weight_scale_inv`
  fp8_channel          `weight_scale` [out, 1]
  fp8_tensor           `weight_scale` []
"""

import pathlib
import sys

import torch
from transformers import MiniMaxM2Config, MiniMaxM2ForCausalLM

import parity_common as common

# heads, kv heads, head_dim, hidden, rotary dims, experts, experts per token, expert width, layers, vocab
SHAPES = {
    "transformers_heads6": (6, 2, 32, 48, 16, 8, 3, 16, 3, 64),
    "native_heads6": (6, 2, 32, 48, 8, 8, 3, 16, 3, 64),
    "released_heads8": (8, 4, 16, 64, 8, 16, 4, 8, 3, 96),
    "fp8_block": (5, 1, 32, 144, 16, 6, 2, 16, 3, 64),
    "fp8_channel": (6, 2, 32, 48, 16, 8, 3, 16, 3, 64),
    "fp8_tensor": (8, 2, 16, 48, 16, 8, 2, 24, 3, 64),
}
THETA = 10000.0


def random_weights(shape):
    """Large enough that every part shows in the logits, small enough that BF16 changes few experts: with
    larger ones the logits say more about the router's luck than about the arithmetic."""
    heads, kv_heads, dim, hidden, _, experts, _, width, layers, vocab = shape
    generator = torch.Generator().manual_seed(7)

    def normal(rows, columns, gain=0.6):
        return gain / columns**0.5 * torch.randn(rows, columns, generator=generator)

    def norm(size):
        return 1 + 0.3 * torch.randn(size, generator=generator)

    w = {"model.embed_tokens.weight": normal(vocab, hidden, hidden**0.5), "lm_head.weight": normal(vocab, hidden),
         "model.norm.weight": norm(hidden)}
    for layer in range(layers):
        base = f"model.layers.{layer}."
        w[base + "input_layernorm.weight"] = norm(hidden)
        w[base + "post_attention_layernorm.weight"] = norm(hidden)
        w[base + "self_attn.q_proj.weight"] = normal(heads * dim, hidden)
        w[base + "self_attn.k_proj.weight"] = normal(kv_heads * dim, hidden)
        w[base + "self_attn.v_proj.weight"] = normal(kv_heads * dim, hidden, 1.5)
        w[base + "self_attn.o_proj.weight"] = normal(hidden, heads * dim, 1.5)
        w[base + "self_attn.q_norm.weight"] = 1.5 * norm(heads * dim)
        w[base + "self_attn.k_norm.weight"] = norm(kv_heads * dim)
        moe = base + "block_sparse_moe."
        w[moe + "gate.weight"] = normal(experts, hidden, 1.5)
        w[moe + "e_score_correction_bias"] = 0.2 * torch.randn(experts, generator=generator)
        for e in range(experts):
            w[f"{moe}experts.{e}.w1.weight"] = normal(width, hidden)
            w[f"{moe}experts.{e}.w3.weight"] = normal(width, hidden)
            w[f"{moe}experts.{e}.w2.weight"] = normal(hidden, width)
    return w


def in_memory(w, experts):
    """transformers' own names: experts fused, gate rows above up rows."""
    state = {n.replace(".block_sparse_moe.", ".mlp."): t for n, t in w.items() if ".experts." not in n}
    for base in {n.split(".experts.")[0] for n in w if ".experts." in n}:
        part = [[w[f"{base}.experts.{e}.{m}.weight"] for e in range(experts)] for m in ("w1", "w3", "w2")]
        target = base.replace("block_sparse_moe", "mlp") + ".experts."
        state[target + "gate_up_proj"] = torch.cat([torch.stack(part[0]), torch.stack(part[1])], 1)
        state[target + "down_proj"] = torch.stack(part[2])
    return state


def build(shape, weights):
    heads, kv_heads, dim, hidden, rotary, experts, top_k, width, layers, vocab = shape
    config = MiniMaxM2Config(
        vocab_size=vocab, hidden_size=hidden, intermediate_size=width, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=dim, max_position_embeddings=4096,
        num_local_experts=experts, num_experts_per_tok=top_k, bos_token_id=None, eos_token_id=None,
        rope_parameters={"rope_type": "default", "rope_theta": THETA, "partial_rotary_factor": rotary / dim},
        attn_implementation="eager",
    )
    model = MiniMaxM2ForCausalLM(config).eval()
    model.load_state_dict(in_memory(weights, experts))
    return model


def released_config(shape):
    heads, kv_heads, dim, hidden, rotary, experts, top_k, width, layers, vocab = shape
    return {
        "architectures": ["MiniMaxM2ForCausalLM"], "attn_type_list": [1] * layers, "head_dim": dim,
        "hidden_act": "silu", "hidden_size": hidden, "intermediate_size": width, "max_position_embeddings": 4096,
        "model_type": "minimax_m2", "mtp_transformer_layers": 1, "num_attention_heads": heads,
        "num_experts_per_tok": top_k, "num_hidden_layers": layers, "num_key_value_heads": kv_heads,
        "num_local_experts": experts, "num_mtp_modules": 3, "qk_norm_type": "per_layer", "rms_norm_eps": 1e-06,
        "rope_theta": int(THETA), "rotary_dim": rotary, "scoring_func": "sigmoid", "shared_intermediate_size": 0,
        "tie_word_embeddings": False, "use_cache": True, "use_mtp": True, "use_qk_norm": True,
        "use_routing_bias": True, "vocab_size": vocab,
    }


def is_float32(name):
    return "block_sparse_moe.gate." in name or "e_score_correction_bias" in name


def as_released(weights):
    return {n: w if is_float32(n) or w.dtype == torch.float8_e4m3fn or "scale" in n else w.to(torch.bfloat16)
            for n, w in weights.items()}


def make_bf16(folder, name, shape):
    weights = random_weights(shape)
    if name.startswith("released"):
        file = as_released(weights)
        layers, hidden = shape[8], shape[3]
        extra = {f"model.layers.{layers}.{n}": torch.ones(hidden, dtype=torch.bfloat16)
                 for n in ("input_layernorm.weight", "enorm.weight")}
        extra["model.mtp.layers.0.eh_proj.weight"] = torch.ones(hidden, 2 * hidden, dtype=torch.bfloat16)
        common.write_folder(folder, released_config(shape), file | extra)
        return build(shape, {n: w.float() for n, w in file.items()})
    model = build(shape, common.rounded(weights))
    saved = build(shape, common.rounded(weights)).to(torch.bfloat16)
    saved.save_pretrained(folder)
    if name.startswith("native"):
        file = {n: w.to(torch.bfloat16) for n, w in in_memory(weights, shape[5]).items()}
        common.save_file(file, folder / "model.safetensors", metadata={"format": "pt"})
    return model


def make_fp8(folder, name, shape):
    quantize = {"fp8_block": common.quantize_block, "fp8_channel": common.quantize_channel,
                "fp8_tensor": common.quantize_tensor}[name]
    file = as_released(common.quantized(random_weights(shape), quantize))
    quantization = {"activation_scheme": "dynamic", "fmt": "float8_e4m3fn", "quant_method": "fp8"}
    if name == "fp8_block":
        quantization["weight_block_size"] = [128, 128]
    quantization["modules_to_not_convert"] = ["gate", "e_score_correction_bias", "lm_head"]
    common.write_folder(folder, released_config(shape) | {"quantization_config": quantization}, file)
    return build(shape, common.dequantized(file))


def main():
    out = pathlib.Path(sys.argv[1])
    torch.set_num_threads(1)
    for name, shape in SHAPES.items():
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        model = (make_fp8 if name.startswith("fp8") else make_bf16)(folder, name, shape)
        common.write_expected(folder, model, shape[9])


if __name__ == "__main__":
    main()
