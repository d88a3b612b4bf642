"""Makes the fixtures of minimax_m1_parity_test: small random models with the logits of other implementations.

  python tests/models/make_m1_parity.py transformers OUT          (transformers 5.17)
  python tests/models/make_m1_parity.py released OUT CODE         (transformers 4.45, einops)

CODE is a folder named as a Python package that holds modeling_minimax_m1.py and configuration_minimax_m1.py as
released with MiniMax-M1. Weights are saved in BF16 and the reference is computed from the saved values in
float32. A fixture holds the checkpoint and expected.safetensors: `input_ids` [n], `logits` [n, vocab] float32
and `greedy` [24], the greedy continuation of the first `greedy_prompt` tokens.
"""

import importlib
import json
import pathlib
import sys

import torch
from safetensors.torch import save_file

LENGTH = 700
GREEDY_PROMPT = 257
GREEDY_TOKENS = 24
VOCAB = 64

# heads, kv heads, head_dim, hidden, layer kinds (0 lightning, 1 full), postnorm, shared width, tied
SHAPES = {
    "heads8": (8, 2, 16, 48, [0, 0, 1, 0], True, 0, False),
    "heads12": (12, 4, 12, 40, [0, 1, 0, 0], True, 0, False),
    "prenorm_shared": (8, 4, 8, 32, [0, 0, 0, 1], False, 24, False),
    "heads12_shared_tied": (12, 3, 16, 32, [1, 0, 0, 1], True, 24, True),
}


def spread(model):
    """Random weights large enough that every part of the model shows in the logits, and small enough that the
    model is no amplifier: with twice these, transformers' own BF16 is 0.07 to 0.1 away from its float32, since
    tokens change their experts."""
    generator = torch.Generator().manual_seed(7)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            parameter.data = 1 + 0.3 * torch.randn(parameter.shape, generator=generator)
        else:
            scale = 1.0 if "embed" in name else 0.6 / parameter.shape[-1] ** 0.5
            parameter.data = scale * torch.randn(parameter.shape, generator=generator)
        parameter.data = parameter.data.to(torch.bfloat16).float()


def expected(forward):
    generator = torch.Generator().manual_seed(11)
    ids = torch.randint(0, VOCAB, (LENGTH,), generator=generator)
    with torch.no_grad():
        logits = forward(ids)
        sequence = ids[:GREEDY_PROMPT]
        for _ in range(GREEDY_TOKENS):
            sequence = torch.cat([sequence, forward(sequence)[-1].argmax().view(1)])
    return {
        "input_ids": ids.to(torch.int32),
        "logits": logits.float().contiguous(),
        "greedy": sequence[GREEDY_PROMPT:].to(torch.int32),
        "greedy_prompt": torch.tensor([GREEDY_PROMPT], dtype=torch.int32),
    }


def make_transformers(out, shape):
    # transformers 5.17 turns all of head_dim for this class and ignores partial_rotary_factor, so it is not set.
    from transformers import MiniMaxConfig, MiniMaxForCausalLM

    heads, kv_heads, head_dim, hidden, kinds, _, _, tied = shape
    config = MiniMaxConfig(
        vocab_size=VOCAB, hidden_size=hidden, intermediate_size=24, num_hidden_layers=len(kinds),
        num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=head_dim, max_position_embeddings=4096,
        num_local_experts=4, num_experts_per_tok=2, block_size=32, rms_norm_eps=1e-5, tie_word_embeddings=tied,
        layer_types=["full_attention" if kind else "linear_attention" for kind in kinds],
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        full_attn_alpha_factor=1.7, full_attn_beta_factor=0.9, linear_attn_alpha_factor=1.6,
        linear_attn_beta_factor=1.1, mlp_alpha_factor=1.5, mlp_beta_factor=1.2, bos_token_id=None, eos_token_id=None,
        attn_implementation="eager",
    )
    model = MiniMaxForCausalLM(config).eval()
    spread(model)
    # A copy is saved in BF16: casting in place would also round the rotary and decay buffers of the reference.
    saved = MiniMaxForCausalLM(config)
    saved.load_state_dict(model.state_dict())
    saved.to(torch.bfloat16).save_pretrained(out)
    return expected(lambda ids: model(ids.view(1, -1), use_cache=False).logits[0])


def make_released(out, shape, code):
    sys.path.insert(0, str(code.parent))
    import transformers.utils.import_utils as import_utils

    if not hasattr(import_utils, "is_torch_fx_available"):
        import_utils.is_torch_fx_available = lambda: False
    modeling = importlib.import_module(f"{code.name}.modeling_minimax_m1")
    configuration = importlib.import_module(f"{code.name}.configuration_minimax_m1")

    # Without flash-attn the released eager attention computes the same; the decoder layer hands it its mask
    # under another name.
    class EagerAttention(modeling.MiniMaxM1Attention):
        def forward(self, hidden_states, attn_mask=None, **kwargs):
            return super().forward(hidden_states, attention_mask=attn_mask, **kwargs)

    modeling.MiniMaxM1FlashAttention2 = EagerAttention

    heads, kv_heads, head_dim, hidden, kinds, postnorm, shared, tied = shape
    fields = dict(
        vocab_size=VOCAB, hidden_size=hidden, intermediate_size=24, num_hidden_layers=len(kinds),
        num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=head_dim, max_position_embeddings=4096,
        num_local_experts=4, num_experts_per_tok=2, rms_norm_eps=1e-5, tie_word_embeddings=tied,
        attn_type_list=kinds, rope_theta=10000, rotary_dim=head_dim // 2, hidden_act="silu", postnorm=postnorm,
        layernorm_full_attention_alpha=1.7, layernorm_full_attention_beta=0.9,
        layernorm_linear_attention_alpha=1.6, layernorm_linear_attention_beta=1.1, layernorm_mlp_alpha=1.5,
        layernorm_mlp_beta=1.2, shared_intermediate_size=shared, shared_moe_mode="sigmoid", sliding_window=None,
        router_jitter_noise=0.0, attention_dropout=0.0, bos_token_id=None, eos_token_id=None,
    )
    config = configuration.MiniMaxM1Config(**fields)
    model = modeling.MiniMaxM1ForCausalLM(config).eval().float()
    spread(model)
    for layer in model.model.layers:
        if isinstance(layer.self_attn, modeling.MiniMaxM1Attention):
            layer.self_attn.hidden_size = heads * head_dim  # its eager path takes this for heads * head_dim
    head = model.model.embed_tokens.weight if tied else model.lm_head.weight
    slopes = model.model.slopes

    def forward(ids):
        n = len(ids)
        h = model.model.embed_tokens(ids.view(1, -1))
        causal = torch.full((1, 1, n, n), float("-inf")).triu(1)
        for index, layer in enumerate(model.model.layers):
            full = kinds[index] == 1
            rate = slopes * (1 - index / (len(kinds) - 1) + 1e-5)
            h = layer(h, attention_mask=causal if full else None, position_ids=torch.arange(n).view(1, -1),
                      slope_rate=rate)[0]
        return model.model.norm(h)[0] @ head.T

    tensors = {name: p.data.to(torch.float32 if "block_sparse_moe.gate" in name else torch.bfloat16).contiguous()
               for name, p in model.named_parameters() if not (tied and name == "lm_head.weight")}
    save_file(tensors, out / "model.safetensors")
    fields |= {"architectures": ["MiniMaxM1ForCausalLM"], "model_type": "minimax_m1"}
    (out / "config.json").write_text(json.dumps(fields, indent=1) + "\n")
    return expected(forward)


def main():
    kind, out = sys.argv[1], pathlib.Path(sys.argv[2])
    torch.manual_seed(0)
    for name, shape in SHAPES.items():
        if kind == "transformers" and (not shape[5] or shape[6]):
            continue  # transformers has neither the pre-norm form nor a shared MLP
        folder = out / f"{kind}_{name}"
        folder.mkdir(parents=True, exist_ok=True)
        if kind == "transformers":
            result = make_transformers(folder, shape)
        else:
            result = make_released(folder, shape, pathlib.Path(sys.argv[3]).resolve())
        save_file(result, folder / "expected.safetensors")
        print(name, result["logits"].std().item(), result["greedy"].tolist())


if __name__ == "__main__":
    main()
