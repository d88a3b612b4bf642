#!/usr/bin/env python3
"""Writes strings with what Hugging Face's `tokenizers` makes of them, for tokenizer_test to compare with.

    oracle.py --out DIR [--strings 20000] [--seed 1] [--kind m1|m2|odd]

DIR gets tokenizer.json (except for m1, whose committed files are the input) and cases.json:
{"strings": [...], "ids": [[...]], "text_ids": [[...] or null], "decodes": [[ids, text, text without special tokens]]}.
"text_ids" are the ids when special tokens are read as plain text; null means the same as "ids".
"""
import argparse
import json
import pathlib
import random
import sys
import unicodedata

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

MERGES = pathlib.Path(__file__).resolve().parent.parent / "fixtures/minimax-m1/merges.txt"
PATTERN = "|".join(
    [
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)

M1_MARKERS = {
    200019: "<beginning_of_sentence>",
    200020: "<end_of_sentence>",
    200021: "<end_of_document>",
    200034: "<begin_of_document>",
}

M2_TOKENS = (
    "]!p~[ <fim_prefix> <fim_middle> <fim_suffix> <fim_pad> <reponame> <filename> <gh_stars> <issue_start> "
    "<issue_comment> <issue_closed> <jupyter_start> <jupyter_text> <jupyter_code> <jupyter_output> <empty_output> "
    "<commit_before> <commit_msg> <commit_after> ]~b] [e~[ ]!d~[ <function_call> <code_interpreter> "
    "]<]speech[>[ ]<]image[>[ ]<]video[>[ ]<]start_of_speech[>[ ]<]end_of_speech[>[ ]<]start_of_image[>[ "
    "]<]end_of_image[>[ ]<]start_of_video[>[ ]<]end_of_video[>[ ]<]vision_pad[>[ ]~!b[ <jupyter_error> <add_file> "
    "<delete_file> <rename_file> <edit_file> <commit_message> <empty_source_file> <repo_struct> <code_context> "
    "<file_content> <source_files> <pr_start> <review_comment> <filepath> <file_sep> <think> </think> "
    "<minimax:tool_call> </minimax:tool_call>"
).split()
M2_TOKENS = [t.replace("_of_", " of ").replace("vision_pad", "vision pad") if t.startswith("]<]") else t for t in M2_TOKENS]


def byte_characters():
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    characters = {byte: chr(byte) for byte in kept}
    others = [byte for byte in range(256) if byte not in characters]
    characters.update({byte: chr(256 + i) for i, byte in enumerate(others)})
    return characters


def added_tokens(kind):
    if kind == "m1":
        return [AddedToken(text, special=True, normalized=False) for text in M1_MARKERS.values()]
    tokens = [AddedToken(text, special=i < 50, normalized=False) for i, text in enumerate(M2_TOKENS)]
    if kind == "odd":
        tokens += [
            AddedToken("<left>", lstrip=True, normalized=False),
            AddedToken("<right>", rstrip=True, normalized=False, special=True),
            AddedToken("<both>", lstrip=True, rstrip=True, normalized=True),
            AddedToken("word", single_word=True, normalized=True),
            AddedToken("<thin", normalized=False),
            AddedToken("éà", normalized=True),
            AddedToken("hello", normalized=True, special=True),
        ]
    return tokens


def build(kind):
    lines = MERGES.read_text().split("\n")[1:]
    merges = [tuple(line.split(" ")) for line in lines if line]
    characters = byte_characters()
    vocabulary = {characters[byte]: byte for byte in range(256)}
    for left, right in merges:
        vocabulary[left + right] = len(vocabulary)
    if kind == "m1":
        # Placeholders keep the markers at their ids.
        names = [M1_MARKERS.get(i, f"<unused {i}>") for i in range(200000, 200035)]
        vocabulary.update({name: 200000 + i for i, name in enumerate(names)})
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=kind == "odd"))
    split = pre_tokenizers.Split(Regex(PATTERN), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens(added_tokens(kind))
    return tokenizer


WORDS = (
    "the of and to in hello world don't I'll we've they're it's HELLO'S Don'T naïve façade straße Ελληνικά ΟΔΟΣ "
    "Москва шар 你好 世界 東京 カタカナ ひらがな 안녕하세요 שלום مرحبا हिन्दी ไทย tiếng_Việt ǅungla ﬁne İstanbul "
    "function return def class self.x == != <= >= => -> // /* */ #include <vector> std::vector<int> x+=1; i++ "
    "https://example.com/a?b=c&d=%20 user@host 3.14 1234567890 0x1F 1e-9 ½ ² Ⅷ ١٢٣ 4567 12 1 123 1,234,567.89"
).split()
EMOJI = ["👍", "👍🏽", "👩‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪🇫🇷", "❤️", "1️⃣", "😀😃😄", "👨🏿‍🚀", "🫠", "\u200d", "\ufe0f"]
SPACES = [" ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", "\t\t", " \n", "\n ", "\u00a0", "\u3000", "\u2028", "\x0b", "\x85", "\u180e"]
MARKS = ["\u0301", "\u0308", "\u0327", "\u0e31", "\u093f", "\u20dd", "\u0951"]
CODE = [
    "for (int i = 0; i < n; ++i) {\n    sum += a[i];\n}\n",
    "def f(x):\n\treturn {'a': [x ** 2, None]}  # comment\n\n\n",
    "<div class=\"x\">&nbsp;</div>\r\n\r\n",
    "SELECT * FROM t WHERE a='b' AND c<>1;--",
    "```python\nprint(f\"{x!r:>10}\")\n```",
    "\\begin{equation} \\alpha_{i}^{2} \\end{equation}",
    "{\"name\": \"x\", \"arguments\": {\"a\": [1, 2.5e-3, null, true]}}",
]
MARKERS = M2_TOKENS + list(M1_MARKERS.values()) + [
    "<left>", "<right>", "<both>", "word", "<thin", "<think", "éà", "hello", "<tool_calls>", "</tool_calls>", "<mm:think>",
]


def any_character(rng):
    plane = rng.choice([0, 0, 0, 0, 1, 1, 2, 3, 14, 15, 16])
    while True:
        code_point = plane * 0x10000 + rng.randrange(0x10000)
        if not 0xD800 <= code_point < 0xE000:
            return chr(code_point)


def block_run(rng):
    start = rng.choice([0x00, 0x80, 0x370, 0x400, 0x590, 0x600, 0x900, 0xE00, 0x1100, 0x1C80, 0x2000, 0x2190, 0x3040,
                        0x4E00, 0xA7C0, 0xAC00, 0xFB00, 0xFF00, 0x10400, 0x10D40, 0x1D400, 0x1E900, 0x1F300, 0x31350])
    return "".join(chr(start + rng.randrange(128)) for _ in range(rng.randint(1, 12)))


def piece(rng):
    kind = rng.randrange(16)
    if kind < 4:
        return rng.choice(WORDS)
    if kind < 6:
        return rng.choice(SPACES) * rng.choice([1, 1, 1, 2, 3, 17])
    if kind == 6:
        return rng.choice(EMOJI)
    if kind == 7:
        return rng.choice(WORDS) + rng.choice(MARKS) * rng.randint(1, 3)
    if kind == 8:
        return rng.choice(CODE)
    if kind == 9:
        return rng.choice(MARKERS)
    if kind == 10:
        return "".join(any_character(rng) for _ in range(rng.randint(1, 6)))
    if kind == 11:
        return block_run(rng)
    if kind == 12:
        return str(rng.randrange(10 ** rng.randint(1, 20)))
    if kind == 13:
        return "".join(rng.choice("aAbBzZ'sStT.,!?-_/\\\n 09éßΣ你") for _ in range(rng.randint(1, 30)))
    if kind == 14:
        return rng.choice(["a", "A", " ", "\n", "=", "-", "ab", "你", "1", "\t", "'s"]) * rng.randint(1, 200)
    return rng.choice(["'", "’", "'ſ", "'S", "'RE", "'Ll", "'d'd"]) + rng.choice(["", "x", " "])


def strings(rng, count):
    """Every character with a neighbour or two first, as far as count allows; then mixtures."""
    result = ["", " ", "\n", "a"]
    characters = [chr(c) for c in range(0x110000) if unicodedata.category(chr(c)) not in ("Cs", "Co")]
    rng.shuffle(characters)
    share = count // 4
    # Several characters in one string, each between separators that show its class.
    per_string = 48 if count >= 10000 else 6
    for i in range(0, min(len(characters), share * per_string), per_string):
        result.append("".join(f"a{c}B x'{c} {c}1\n{c}" for c in characters[i:i + per_string]))
    while len(result) < count:
        result.append("".join(piece(rng) + rng.choice(["", "", " "]) for _ in range(rng.randint(1, 12))))
    return result[:count]


def decode_cases(rng, tokenizer, encoded, count):
    """Random ids: bytes that form no UTF-8, tokens cut apart, ids that do not exist."""
    cases = []
    # Placeholders of M1 are no tokens of M1.
    known = [i for i in range(tokenizer.get_vocab_size() + 50) if not (tokenizer.id_to_token(i) or "").startswith("<unused")]
    for _ in range(count):
        kind = rng.randrange(4)
        if kind == 0:
            ids = [rng.randrange(256) for _ in range(rng.randint(1, 12))]
        elif kind == 1:
            ids = [rng.choice(known) for _ in range(rng.randint(1, 12))]
        elif kind == 2:
            text = "".join(any_character(rng) for _ in range(3)).encode()
            ids = list(text[rng.randrange(3):len(text) - rng.randrange(3)])
        else:
            ids = list(rng.choice(encoded))[:40]
            rng.shuffle(ids)
        cases.append([ids, tokenizer.decode(ids, skip_special_tokens=False), tokenizer.decode(ids, skip_special_tokens=True)])
    return cases


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--strings", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kind", choices=["m1", "m2", "odd"], default="m2")
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    tokenizer = build(arguments.kind)
    texts = strings(rng, arguments.strings)
    ids = [e.ids for e in tokenizer.encode_batch(texts, add_special_tokens=False)]
    tokenizer.encode_special_tokens = True
    text_ids = [e.ids for e in tokenizer.encode_batch(texts, add_special_tokens=False)]
    tokenizer.encode_special_tokens = False
    text_ids = [None if a == b else a for a, b in zip(text_ids, ids)]
    decodes = decode_cases(rng, tokenizer, ids, arguments.strings // 4)
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.kind != "m1":
        tokenizer.save(str(arguments.out / "tokenizer.json"), pretty=False)
    with open(arguments.out / "cases.json", "w") as out:
        cases = {"strings": texts, "ids": ids, "text_ids": text_ids, "decodes": decodes}
        json.dump(cases, out, ensure_ascii=False, separators=(",", ":"))
        out.write("\n")
    print(f"{arguments.kind}: {len(texts)} strings, {sum(map(len, ids))} tokens, {len(decodes)} decodes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
