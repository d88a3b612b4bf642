"""Makes the fixtures of the M3 parity test: small random text models with the logits of transformers 5.17.

  python tests/models/make_m3_parity.py OUT

Expected values come from MiniMaxM3SparseForConditionalGeneration in float32 with the values that the file holds
(of MXFP8: with the dequantised weights); parity_common.py lists them and compares each with a float64 forward.
Layer 0 has full attention and a dense MLP, the others block-sparse attention and experts.

  transformers_top2  as transformers saves a BF16 model: released tensor names, its own flat config
  native_top3        its names in memory (fused projections, `indexer.`) and its flat config
  released_top3      released names and config, router and bias in F32, vision tensors to be skipped
  text_only_top2     architectures MiniMaxM3SparseForCausalLM: text fields at the top level, no prefix
  mxfp8_top2         released names, E8M0 `weight_scale_inv`, all linears but router, embedding and head
"""

import pathlib
import sys

import torch
from transformers import MiniMaxM3SparseForConditionalGeneration
from transformers.models.minimax_m3_vl.configuration_minimax_m3_vl import MiniMaxM3VLConfig

import parity_common as common
from make_m2_parity import as_released

# heads, hidden, rotary dims, experts, experts per token, expert width, dense width, chosen blocks
SHAPES = {
    "transformers_top2": (4, 32, 16, 6, 2, 24, 48, 2),
    "native_top3": (8, 32, 16, 4, 2, 16, 40, 3),
    "released_top3": (4, 32, 16, 8, 3, 16, 48, 3),
    "text_only_top2": (6, 32, 8, 6, 2, 24, 40, 2),
    "mxfp8_top2": (4, 64, 16, 4, 2, 32, 64, 2),
}
KV_HEADS, INDEX_HEADS, DIM, LAYERS, VOCAB = 2, 2, 32, 4, 64
FREQUENCY = [0, 1, 1, 1]
THETA = 10000.0
SPECIAL = {"bos_token_id": None, "eos_token_id": None}


def random_weights(shape):
    """Gates reach the clamp of the activation now and then; see make_m2_parity on the size of the rest."""
    heads, hidden, _, experts, _, width, dense, _ = shape
    generator = torch.Generator().manual_seed(7)

    def normal(rows, columns, gain=0.6):
        return gain / columns**0.5 * torch.randn(rows, columns, generator=generator)

    def norm(size, centre=0.0):
        return centre + 0.3 * torch.randn(size, generator=generator)

    def mlp(base, names, size):
        gate, up, down = names
        return {f"{base}{gate}.weight": normal(size, hidden, 2.2), f"{base}{up}.weight": normal(size, hidden, 2.2),
                f"{base}{down}.weight": normal(hidden, size, 0.015)}

    w = {"model.embed_tokens.weight": normal(VOCAB, hidden, hidden**0.5), "lm_head.weight": normal(VOCAB, hidden),
         "model.norm.weight": norm(hidden)}
    for layer in range(LAYERS):
        base = f"model.layers.{layer}."
        w[base + "input_layernorm.weight"] = norm(hidden)
        w[base + "post_attention_layernorm.weight"] = norm(hidden)
        attention = base + "self_attn."
        w[attention + "q_proj.weight"] = normal(heads * DIM, hidden)
        w[attention + "k_proj.weight"] = normal(KV_HEADS * DIM, hidden)
        w[attention + "v_proj.weight"] = normal(KV_HEADS * DIM, hidden, 0.4)
        w[attention + "o_proj.weight"] = normal(hidden, heads * DIM, 0.4)
        w[attention + "q_norm.weight"] = norm(DIM, 0.5)
        w[attention + "k_norm.weight"] = norm(DIM)
        names = tuple(common.MLP_NAMES.values())
        if not FREQUENCY[layer]:
            w |= mlp(base + "mlp.", names, dense)
            continue
        w[attention + "index_q_proj.weight"] = normal(INDEX_HEADS * DIM, hidden)
        w[attention + "index_k_proj.weight"] = normal(DIM, hidden)
        w[attention + "index_q_norm.weight"] = norm(DIM)
        w[attention + "index_k_norm.weight"] = norm(DIM)
        moe = base + "block_sparse_moe."
        w[moe + "gate.weight"] = normal(experts, hidden, 1.5)
        w[moe + "e_score_correction_bias"] = 0.2 * torch.randn(experts, generator=generator)
        for e in range(experts):
            w |= mlp(f"{moe}experts.{e}.", ("w1", "w3", "w2"), width)
        w |= mlp(moe + "shared_experts.", names, width)
    return w


def in_memory(w, experts):
    """transformers' own names."""
    state = {}
    for name, tensor in w.items():
        if ".experts." in name or ".up_proj." in name:
            continue
        if ".gate_proj." in name:
            tensor = torch.cat([tensor, w[name.replace("gate_proj", "up_proj")]], 0)
        target = name.replace("gate_proj", "gate_up_proj").replace("self_attn.index_", "self_attn.indexer.")
        target = target.replace("moe.e_score", "moe.gate.e_score").replace("block_sparse_moe", "mlp")
        state[target.replace("model.", "model.language_model.", 1) if target.startswith("model.") else target] = tensor
    for base in {n.split(".experts.")[0] for n in w if ".experts." in n}:
        part = [[w[f"{base}.experts.{e}.{m}.weight"] for e in range(experts)] for m in ("w1", "w3", "w2")]
        target = base.replace("model.", "model.language_model.", 1).replace("block_sparse_moe", "mlp") + ".experts."
        state[target + "gate_up_proj"] = torch.cat([torch.stack(part[0]), torch.stack(part[1])], 1)
        state[target + "down_proj"] = torch.stack(part[2])
    return state


def text_fields(shape):
    """What both config shapes share."""
    heads, hidden, _, experts, top_k, width, dense, _ = shape
    return {
        "hidden_size": hidden, "intermediate_size": width, "num_hidden_layers": LAYERS, "num_attention_heads": heads,
        "num_key_value_heads": KV_HEADS, "head_dim": DIM, "vocab_size": VOCAB, "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-06, "tie_word_embeddings": False, "dense_intermediate_size": dense,
        "shared_intermediate_size": width, "num_local_experts": experts, "num_experts_per_tok": top_k,
        "swiglu_alpha": 1.702, "swiglu_limit": 7.0, "routed_scaling_factor": 2.0,
    }


def build(shape, weights):
    """The vision tower is as small as the class allows and keeps random weights: text never meets it."""
    rotary, topk = shape[2], shape[7]
    text = text_fields(shape) | SPECIAL | {
        "rotary_dim": rotary, "index_n_heads": INDEX_HEADS, "index_head_dim": DIM, "index_block_size": 128,
        "index_topk_blocks": topk, "index_local_blocks": 1,
        "layer_types": ["minimax_m3_sparse" if f else "full_attention" for f in FREQUENCY],
        "mlp_layer_types": ["sparse" if f else "dense" for f in FREQUENCY],
        "rope_parameters": {"rope_type": "default", "rope_theta": THETA, "partial_rotary_factor": rotary / DIM},
    }
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1,
              "image_size": 28, "patch_size": 14, "temporal_patch_size": 1, "num_channels": 1}
    config = MiniMaxM3VLConfig(text_config=text, vision_config=vision, projector_hidden_size=16, image_token_index=1,
                               video_token_index=2)
    config._attn_implementation = "eager"
    model = MiniMaxM3SparseForConditionalGeneration(config).eval()
    lacking, unknown = model.load_state_dict(in_memory(weights, shape[3]), strict=False)
    assert not unknown and all("vision" in n or "projector" in n for n in lacking)
    return model


def released_text(shape):
    return {
        **text_fields(shape), "use_gemma_norm": True, "attention_output_gate": False, "rope_theta": int(THETA),
        "rotary_dim": shape[2], "partial_rotary_factor": shape[2] / DIM, "hidden_act": "swigluoai", "use_qk_norm": True,
        "n_shared_experts": 1, "scoring_func": "sigmoid", "use_routing_bias": True, "moe_layer_freq": FREQUENCY,
        "qk_norm_type": "per_head", "num_mtp_modules": 7, "num_nextn_predict_layers": 1,
        "sparse_attention_config": {
            "use_sparse_attention": True, "sparse_index_dim": DIM, "sparse_num_index_heads": INDEX_HEADS,
            "sparse_topk_blocks": shape[7], "sparse_block_size": 128, "sparse_disable_index_value": FREQUENCY,
            "sparse_score_type": "max", "sparse_init_block": 0, "sparse_local_block": 1,
            "sparse_attention_freq": FREQUENCY,
        },
        "architectures": ["MiniMaxM3SparseForCausalLM"],
    }


def released_config(shape):
    return {
        "architectures": ["MiniMaxM3SparseForConditionalGeneration"], "model_type": "minimax_m3_vl",
        "text_config": released_text(shape),
        "vision_config": {"hidden_size": 16, "num_attention_heads": 1, "num_hidden_layers": 1, "intermediate_size": 16,
                          "patch_size": 14, "image_size": 28, "model_type": "clip_vision_model", "num_channels": 1},
        "image_token_index": 1, "video_token_index": 2, "torch_dtype": "bfloat16", "projector_hidden_size": 16,
    }


def vision_tensors():
    block = "vision_tower.vision_model.encoder.layers.0."
    shapes = {"vision_tower.vision_model.pre_layrnorm.weight": [16], "vision_tower.vision_model.pre_layrnorm.bias": [16],
              block + "self_attn.q_proj.weight": [16, 16], block + "self_attn.q_proj.bias": [16],
              block + "mlp.fc1.weight": [16, 16], "multi_modal_projector.linear_1.weight": [16, 16],
              "patch_merge_mlp.linear_1.weight": [16, 64]}
    tensors = {n: torch.ones(s, dtype=torch.bfloat16) for n, s in shapes.items()}
    tensors["vision_tower.vision_model.embeddings.patch_embedding.weight"] = torch.ones(16, 1, 1, 14, 14)
    return tensors


def make(folder, name, shape):
    weights = random_weights(shape)
    if name.startswith(("transformers", "native")):
        model = build(shape, common.rounded(weights))
        build(shape, common.rounded(weights)).to(torch.bfloat16).save_pretrained(folder)
        if name.startswith("native"):
            file = {n: w.to(torch.bfloat16) for n, w in in_memory(weights, shape[3]).items()}
            common.save_file(file, folder / "model.safetensors", metadata={"format": "pt"})
        return model
    file, config = as_released(weights), released_config(shape)
    if name.startswith("mxfp8"):
        file = as_released(common.quantized(weights, common.quantize_mx))
        ignored = [f"model.layers.{i}.block_sparse_moe.gate" for i, f in enumerate(FREQUENCY) if f]
        config["quantization_config"] = {
            "quant_method": "mxfp8", "activation_scheme": "dynamic", "weight_block_size": [1, 32],
            "ignored_layers": ["lm_head", "model.embed_tokens", "vision_tower", *ignored],
        }
    model = build(shape, common.dequantized(file))
    if name.startswith("text_only"):
        common.write_folder(folder, released_text(shape) | {"model_type": "minimax_m3_vl_text"}, file)
    else:
        file = {"language_model." + n: w for n, w in file.items()}
        common.write_folder(folder, config, file | vision_tensors())
    return model


def main():
    out = pathlib.Path(sys.argv[1])
    torch.set_num_threads(1)
    for name, shape in SHAPES.items():
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        common.write_expected(folder, make(folder, name, shape), VOCAB)


if __name__ == "__main__":
    main()
