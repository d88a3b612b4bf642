"""Loads an exported M2 or M3 demo with transformers and compares greedy tokens and logits with its reference file.

  python check_export.py FOLDER REFERENCE

Needs transformers 5.17. Its classes read neither these FP8 shapes on a CPU nor `rotary_dim` of M2, so the check
writes a copy with dequantised BF16 weights and with the rotary share spelt their way.
"""

import json
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


def dequantized(tensors):
    result = {}
    for name, w in tensors.items():
        if name.endswith("_scale_inv"):
            continue
        if w.dtype == torch.float8_e4m3fn:
            scale = tensors[name + "_scale_inv"]
            if scale.dtype == torch.uint8:
                spread = torch.exp2(scale.float() - 127).repeat_interleave(32, 1)
            else:
                spread = scale.repeat_interleave(128, 0)[: w.shape[0]].repeat_interleave(128, 1)[:, : w.shape[1]]
            w = (w.float() * spread).to(torch.bfloat16)
        result[name] = w
    return result


def load(folder):
    from transformers import MiniMaxM2ForCausalLM, MiniMaxM3SparseForConditionalGeneration

    config, tensors = json.loads((folder / "config.json").read_text()), dequantized(load_file(folder / "model.safetensors"))
    config.pop("quantization_config", None)
    model_class = MiniMaxM2ForCausalLM
    if "text_config" in config:
        model_class = MiniMaxM3SparseForConditionalGeneration
        config |= {"vision_config": {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1},
                   "projector_hidden_size": 16, "image_token_index": 0, "video_token_index": 0}
    else:
        config["rope_parameters"] = {"rope_type": "default", "rope_theta": config.pop("rope_theta"),
                                     "partial_rotary_factor": config["rotary_dim"] / config["head_dim"]}
    with tempfile.TemporaryDirectory() as copy:
        save_file(tensors, Path(copy) / "model.safetensors", metadata={"format": "pt"})
        (Path(copy) / "config.json").write_text(json.dumps(config))
        model, report = model_class.from_pretrained(copy, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    missing = [n for n in report["missing_keys"] if "vision" not in n and "projector" not in n]
    assert not missing and not report["unexpected_keys"] and not report["mismatched_keys"], report
    return model.eval()


def main():
    torch.set_num_threads(1)
    model, wrong = load(Path(sys.argv[1])), 0
    for case in json.loads(Path(sys.argv[2]).read_text())["cases"]:
        ids, greedy = case["prompt_ids"], case["greedy"]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids + greedy]), use_cache=False).logits[0, len(ids) - 1 : -1]
        same = logits.argmax(-1).tolist() == greedy
        wrong += not same
        best = logits.topk(2).values
        margin = (best[:, 0] - best[:, 1]).min().item()
        print(f"{case['skill']:14s} {len(ids):5d} tokens, greedy {'equal' if same else 'DIFFERENT'}, "
              f"smallest margin {margin:.3f}, reference {case['smallest_margin']:.3f}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
