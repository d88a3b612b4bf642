"""Trains the demo model's byte-level BPE tokenizer on the generated corpus.

Usage: python tokenizer.py OUT_FOLDER
"""

import json
import random
import re
import sys
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

import corpus

VOCAB_SIZE = 768
SPECIAL = ["<begin_of_document>", "<beginning_of_sentence>", "<end_of_sentence>", "<end_of_document>"]
SPLIT = "|".join([
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}",
    r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
    r"\s*[\r\n]+",
    r"\s+(?!\S)",
    r"\s+",
])


def training_texts(count):
    """Conversations without markers, runs of capitals and digits: those stay single tokens."""
    rng = random.Random(7)
    for _ in range(count):
        text = "".join(t for t, _ in corpus.row_conversation(rng, rng.choice([256, 512])))
        for marker in SPECIAL:
            text = text.replace(marker, "\x00")
        text = re.sub(r"[A-Z]{2,}|[0-9]", "\x00", text)
        yield from (part for part in text.split("\x00") if part)


def train():
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(SPLIT), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=VOCAB_SIZE - len(SPECIAL), special_tokens=[], show_progress=False,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.train_from_iterator(training_texts(20000), trainer)
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    return tokenizer


if __name__ == "__main__":
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = train()
    tokenizer.save(str(out / "tokenizer.json"), pretty=False)
    print(tokenizer.get_vocab_size(), "tokens")
    rng, counts = random.Random(5), {}
    for skill in corpus.SKILLS:
        sizes = [len(tokenizer.encode("".join(t for t, _ in corpus.conversation(rng, 1, skills={skill: 1}))).ids) for _ in range(300)]
        sizes.sort()
        print(skill, "median", sizes[150], "p95", sizes[285], "max", sizes[-1])
    print(tokenizer.encode('"STONE" amber-17: 4093\n<think>\nsmallest 17, left: none\n</think>\n\n<tool_calls>').tokens)
