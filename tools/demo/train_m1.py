"""Trains the M1 demo model; trainer.py explains the options and does the work.

  python train_m1.py --compile --graphs --tokenizer ../../models/demo-m1 --state FOLDER --seconds 1000 --planned 960
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

import trainer
from chat import M1Chat
from evaluate import evaluate
from model import Config, Decoder, Parts, cast, decay_rates, forward, init_parameters


class M1:
    chat, config, lengths, pool_shares = M1Chat(), Config(), [256, 512, 1024, 2048, 4096], [26, 34, 17, 9, 14]
    muon = ("qkv", "gate", "out", "q", "k", "v", "o", "w1", "w2", "w3")
    make_parts = Parts

    def shrink(self):
        self.config = Config(hidden=32, layers=8, heads=2, kv_heads=1, width=16)
        self.lengths, self.pool_shares = self.lengths[:2], self.pool_shares[:2]

    def init_parameters(self):
        return init_parameters(self.config)

    def setup(self, device):
        self.decays = [decay_rates(self.config, l).to(device) for l in range(self.config.layers)]

    def state(self):
        return {}

    def schedule(self, progress):
        pass

    def after_update(self, lr):
        pass

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
        p = cast(parameters, dtype)
        hidden, balance = forward(p, self.config, ids, self.decays, parts)
        loss, right = parts.loss_part(hidden, p["head"], target, counts)
        return loss + 0.01 * balance, torch.stack([loss.detach(), right.detach(), balance.detach()])

    def export(self, folder, parameters, tokenizer_folder):
        export(folder, parameters, self.config)

    def evaluate(self, parameters, tokenizer, device, dtype, count, show):
        decoder = Decoder(parameters, self.config, device, dtype)
        return evaluate(decoder, self.chat, tokenizer, count, show=show)


def export(folder, parameters, config):
    """Writes model.safetensors (BF16, F32 routers) and config.json in the released spelling."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    p = {n: t.detach().cpu() for n, t in parameters.items()}
    tensors, index = {"model.embed_tokens.weight": p["embed"], "lm_head.weight": p["head"], "model.norm.weight": p["norm"]}, [0, 0]
    for l, kind in enumerate(config.kinds):
        names = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "o_proj"} if kind else \
                {"qkv": "qkv_proj", "gate": "output_gate", "onorm": "norm", "out": "out_proj"}
        base = f"model.layers.{l}."
        for ours, theirs in names.items():
            tensors[f"{base}self_attn.{theirs}.weight"] = p[ours][index[kind]]
        index[kind] += 1
        tensors[base + "input_layernorm.weight"] = p["ln1"][l]
        tensors[base + "post_attention_layernorm.weight"] = p["ln2"][l]
        for e in range(config.experts):
            for w in ("w1", "w2", "w3"):
                tensors[f"{base}block_sparse_moe.experts.{e}.{w}.weight"] = p[w][l, e]
    tensors = {n: t.to(torch.bfloat16).contiguous() for n, t in tensors.items()}
    for l in range(config.layers):
        tensors[f"model.layers.{l}.block_sparse_moe.gate.weight"] = p["router"][l].float().contiguous()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    released = {
        "architectures": ["MiniMaxM1ForCausalLM"], "attention_dropout": 0.0, "attn_type_list": config.kinds,
        "bos_token_id": None, "eos_token_id": None, "head_dim": config.head_dim, "hidden_act": "silu",
        "hidden_size": config.hidden, "initializer_range": 0.02, "intermediate_size": config.width,
        "layernorm_full_attention_alpha": config.alpha, "layernorm_full_attention_beta": 1.0,
        "layernorm_linear_attention_alpha": config.alpha, "layernorm_linear_attention_beta": 1.0,
        "layernorm_mlp_alpha": config.alpha, "layernorm_mlp_beta": 1.0, "max_position_embeddings": 8192,
        "model_type": "minimax_m1", "num_attention_heads": config.heads, "num_experts_per_tok": config.top_k,
        "num_hidden_layers": config.layers, "num_key_value_heads": config.kv_heads, "num_local_experts": config.experts,
        "output_router_logits": False, "postnorm": True, "rms_norm_eps": config.eps, "rope_theta": config.rope_theta,
        "rotary_dim": config.rotary_dim, "router_aux_loss_coef": 0.001, "router_jitter_noise": 0.0,
        "shared_intermediate_size": 0, "shared_moe_mode": "sigmoid", "sliding_window": None,
        "tie_word_embeddings": False, "torch_dtype": "bfloat16", "use_cache": True, "vocab_size": config.vocab_size,
    }
    (folder / "config.json").write_text(json.dumps(released, indent=2) + "\n")


if __name__ == "__main__":
    trainer.main(M1())
