"""Trains the byte-level BPE tokenizer of a demo model on the generated corpus.

Usage: python tokenizer.py OUT_FOLDER [m1|m2|m3]

M2 and M3 share their base vocabulary, like the released models; each adds the special tokens of its family.
"""

import random
import re
import sys
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

import corpus
from chat import CHATS

# family: (families of the training text, tokens before the special ones)
BASES = {"m1": (["m1"], 764), "m2": (["m2", "m3"], 1008), "m3": (["m2", "m3"], 1008)}
SPLIT = "|".join([
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}",
    r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
    r"\s*[\r\n]+",
    r"\s+(?!\S)",
    r"\s+",
])


def training_texts(chats, count):
    """Conversations without markers, runs of capitals and digits: those stay single tokens."""
    rng = random.Random(7)
    for i in range(count):
        chat = chats[i % len(chats)]
        text = "".join(t for t, _ in corpus.row_conversation(rng, chat, rng.choice([256, 512])))
        for marker in chat.SPECIAL + chat.VISIBLE:
            text = text.replace(marker, "\x00")
        text = re.sub(r"[A-Z]{2,}|[0-9]", "\x00", text)
        yield from (part for part in text.split("\x00") if part)


def train(family, count=20000):
    families, base = BASES[family]
    chats, own = [CHATS[f]() for f in families], CHATS[family]
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(SPLIT), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=base, special_tokens=[], show_progress=False,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.train_from_iterator(training_texts(chats, count), trainer)
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in own.SPECIAL])
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in own.VISIBLE])
    return tokenizer


if __name__ == "__main__":
    out, family = Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "m1"
    out.mkdir(parents=True, exist_ok=True)
    tokenizer, chat = train(family), CHATS[family]()
    tokenizer.save(str(out / "tokenizer.json"), pretty=False)
    print(tokenizer.get_vocab_size(), "tokens")
    rng = random.Random(5)
    for skill in corpus.SKILLS:
        texts = ["".join(t for t, _ in corpus.conversation(rng, chat, 1, skills={skill: 1})) for _ in range(300)]
        sizes = sorted(len(tokenizer.encode(text).ids) for text in texts)
        print(skill, "median", sizes[150], "p95", sizes[285], "max", sizes[-1])
    print("opening", len(tokenizer.encode(chat.opening(None, None)).ids))
    print(tokenizer.encode('"STONE" amber-17: 4093\n' + chat.completion("smallest 17, left: none", chat.call("f", {"a": 1}))).tokens)
