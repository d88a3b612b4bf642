"""Writes the Hugging Face folder of an M2 or M3 training state, and the reference tokens of the C++ tests.

  python export_moe.py m2 --state FOLDER --tokenizer ../../models/demo-m2 --out ../../models/demo-m2 \
      --template ../../tests/fixtures/chat-templates/minimax-m2.jinja --reference ../../tests/eval/demo_m2_reference.json
"""

import argparse
import json
import random
from pathlib import Path

import torch
from tokenizers import Tokenizer

import chat as formats
import corpus
from families import FAMILIES
from trainer import latest, load_tensors


def write_tokenizer_files(folder, tokenizer, chat, template):
    ids = {name: tokenizer.token_to_id(name) for name in (chat.BOD, chat.EOS)}
    config = {
        "add_prefix_space": False, "bos_token": chat.BOD, "chat_template": template, "clean_up_tokenization_spaces": False,
        "eos_token": chat.EOS, "model_max_length": 8192, "pad_token": chat.PAD, "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": chat.UNK,
    }
    generation = {"bos_token_id": ids[chat.BOD], "do_sample": True, "eos_token_id": ids[chat.EOS], "temperature": 1.0,
                  "top_k": 40, "top_p": 0.95}
    for name, value in (("tokenizer_config.json", config), ("generation_config.json", generation)):
        (folder / name).write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def reference_prompts(family):
    """Two cases of each skill with the default system prompt; M3 also one that reads a part of its blocks."""
    rng, chat = random.Random("reference 2"), family.chat
    for skill in corpus.SKILLS:
        for lines in ((3, 8), (30, 40)):
            task = corpus.draw_task(rng, skill, chat, lines)
            yield skill, chat.opening(None, task.tools) + corpus.task_prompt(chat, task, task.user)
    if chat.family == "M3":
        task = corpus.draw_task(rng, "lookup_sparse", chat)
        yield "lookup sparse", chat.opening(None, None) + corpus.task_prompt(chat, task, task.user)


def load(name, state, dry):
    family = FAMILIES[name]()
    if dry:
        family.shrink()
    place = latest(state)
    family.setup("cpu")
    family.bias.copy_(load_tensors(place, "family.pt")["bias"])
    return family, load_tensors(place, "parameters.pt")


def references(family, parameters, tokenizer):
    decoder, end = family.decoder(parameters, "cpu", torch.float32), tokenizer.token_to_id(family.chat.EOS)
    for skill, prompt in reference_prompts(family):
        ids = tokenizer.encode(prompt).ids
        (tokens,) = decoder.generate([ids], 32, -1)
        tokens = tokens[: tokens.index(end) + 1] if end in tokens else tokens
        margin = min(m.item() for m in decoder.margin[: len(tokens)])
        yield {"skill": skill, "prompt": prompt, "prompt_ids": ids, "greedy": tokens, "smallest_margin": round(margin, 3),
               "text": tokenizer.decode(tokens, skip_special_tokens=False)}


def main():
    a = argparse.ArgumentParser()
    a.add_argument("family", choices=FAMILIES)
    for name in ("state", "tokenizer", "template", "out", "reference"):
        a.add_argument(f"--{name}", required=True, type=Path)
    a.add_argument("--dry-cpu", action="store_true", help="the state is one of a dry run")
    args = a.parse_args()
    torch.set_num_threads(1)
    family, parameters = load(args.family, args.state, args.dry_cpu)
    tokenizer, template = Tokenizer.from_file(str(args.tokenizer / "tokenizer.json")), args.template.read_text()
    formats.compare(template, family.chat, True)  # the corpus was written by chat.py, engines render the template
    args.out.mkdir(parents=True, exist_ok=True)
    if args.tokenizer.resolve() != args.out.resolve():
        tokenizer.save(str(args.out / "tokenizer.json"), pretty=False)
    family.export(args.out, parameters)
    write_tokenizer_files(args.out, tokenizer, family.chat, template)
    note = (f"Up to 32 greedy tokens in float32 of models/demo-{args.family} (weights dequantised and rounded to BF16), the end "
            "token included, and the smallest distance between the best and the second logit; written by tools/demo/export_moe.py.")
    cases = list(references(family, parameters, tokenizer))
    args.reference.write_text(json.dumps({"note": note, "cases": cases}, indent=1, ensure_ascii=False) + "\n")
    print(sum(f.stat().st_size for f in args.out.iterdir()), "bytes in", args.out)


if __name__ == "__main__":
    main()
