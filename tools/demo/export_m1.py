"""Writes the Hugging Face folder of a training state, and the reference tokens of the C++ tests.

  python export_m1.py --state FOLDER --tokenizer ../../models/demo-m1 --out ../../models/demo-m1 \
      --reference ../../tests/eval/demo_reference.json

The chat template comes from --template, or from the tokenizer_config.json beside the tokenizer.
"""

import argparse
import json
import random
from pathlib import Path

import torch
from tokenizers import Tokenizer

import corpus
from chat import M1Chat
from model import Config, Decoder
from train_m1 import export

CHAT = M1Chat()


def write_tokenizer_files(folder, tokenizer, template):
    ids = {name: tokenizer.token_to_id(name) for name in (CHAT.BOS, CHAT.EOS)}
    config = {
        "add_prefix_space": False, "bos_token": CHAT.BOS, "chat_template": template, "clean_up_tokenization_spaces": False,
        "eos_token": CHAT.EOS, "model_max_length": 8192, "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": "<end_of_document>",
    }
    generation = {"bos_token_id": ids[CHAT.BOS], "do_sample": True, "eos_token_id": ids[CHAT.EOS], "temperature": 1.0, "top_p": 0.95}
    for name, value in (("tokenizer_config.json", config), ("generation_config.json", generation)):
        (folder / name).write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def reference_prompts():
    """Two cases of each skill with the default system prompt."""
    rng = random.Random("reference 2")
    for skill in corpus.SKILLS:
        for lines in ((3, 8), (30, 40)):
            task = corpus.draw_task(rng, skill, CHAT, lines)
            yield skill, CHAT.opening(None, task.tools) + corpus.task_prompt(CHAT, task, task.user)


def main():
    a = argparse.ArgumentParser()
    for name in ("state", "tokenizer", "out", "reference"):
        a.add_argument(f"--{name}", required=True)
    a.add_argument("--template")
    args = a.parse_args()
    config, parameters = Config(), torch.load(Path(args.state) / "parameters.pt")
    tokenizer, out = Tokenizer.from_file(str(Path(args.tokenizer) / "tokenizer.json")), Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    if Path(args.tokenizer).resolve() != out.resolve():
        tokenizer.save(str(out / "tokenizer.json"), pretty=False)
    export(out, parameters, config)
    beside = Path(args.tokenizer) / "tokenizer_config.json"
    template = Path(args.template).read_text() if args.template else json.loads(beside.read_text())["chat_template"]
    write_tokenizer_files(out, tokenizer, template)
    decoder, cases = Decoder(parameters, config, "cpu", torch.float32), []
    for skill, prompt in reference_prompts():
        ids = tokenizer.encode(prompt).ids
        (tokens,) = decoder.generate([ids], 32, -1)
        end = tokenizer.token_to_id(CHAT.EOS)
        tokens = tokens[: tokens.index(end) + 1] if end in tokens else tokens
        margin = min(m.item() for m in decoder.margin[: len(tokens)])
        cases.append({"skill": skill, "prompt": prompt, "prompt_ids": ids, "greedy": tokens, "smallest_margin": round(margin, 3),
                      "text": tokenizer.decode(tokens, skip_special_tokens=False)})
    note = ("Up to 32 greedy tokens in float32 of models/demo-m1, the end token included, and the smallest distance "
            "between the best and the second logit; written by tools/demo/export_m1.py.")
    Path(args.reference).write_text(json.dumps({"note": note, "cases": cases}, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
