#!/usr/bin/env python3
"""Writes the Unicode tables of the rooms jinja and tokenizer.

src/jinja/unicode_tables.inc holds the character properties and case mappings behind Python's str methods, as the
running Python defines them (3.11: Unicode 14). With --newer it also writes src/tokenizer/unicode_newer.inc: the
characters that the Hugging Face `tokenizers` package classifies differently from Unicode 14 (needs that package).
"""
import argparse
import pathlib
import sys
import unicodedata

ROOT = pathlib.Path(__file__).resolve().parent.parent
CODE_POINTS = [cp for cp in range(0x110000) if not 0xD800 <= cp < 0xE000]


def is_cased(c):
    return (c + "\u03a3").lower().endswith("\u03c2")


def is_case_ignorable(c):
    return not is_cased(c) and ("a\u03a3" + c + "a").lower()[1] == "\u03c3"


PROPERTIES = [
    ("kAlpha", str.isalpha),
    ("kDecimal", str.isdecimal),
    ("kDigit", str.isdigit),
    ("kNumeric", str.isnumeric),
    ("kSpace", str.isspace),
    ("kUpper", str.isupper),
    ("kLower", str.islower),
    ("kTitle", lambda c: unicodedata.category(c) == "Lt"),
    ("kCased", is_cased),
    ("kCaseIgnorable", is_case_ignorable),
    ("kPrintable", str.isprintable),
    ("kIdStart", str.isidentifier),
    ("kIdContinue", lambda c: ("a" + c).isidentifier()),
]


def runs(values):
    """Yields (first, last, value) for equal neighbours; values is a list of (code point, value)."""
    first = last = None
    held = None
    for cp, value in values:
        if held is not None and value == held and cp == last + 1:
            last = cp
            continue
        if held is not None:
            yield first, last, held
        first = last = cp
        held = value
    yield first, last, held


def write_properties(out):
    out.write("constexpr PropertyRange kPropertyRanges[] = {\n")
    masks = []
    for cp in CODE_POINTS:
        mask = sum(1 << i for i, (_, test) in enumerate(PROPERTIES) if test(chr(cp)))
        masks.append((cp, mask))
    for first, last, mask in runs(masks):
        if mask:
            out.write(f"{{{first:#x},{last:#x},{mask:#x}}},\n")
    out.write("};\n")


def simple_deltas(cp):
    mapped = [f(chr(cp)) for f in (str.upper, str.lower, str.title)]
    if any(len(m) != 1 for m in mapped):
        return None
    return tuple(ord(m) - cp for m in mapped)


def write_case(out):
    out.write("// first, last, step, and what to add for upper, lower and title case.\n")
    out.write("constexpr CaseRange kCaseRanges[] = {\n")
    rows = []
    for cp in CODE_POINTS:
        deltas = simple_deltas(cp)
        if deltas is None or deltas == (0, 0, 0):
            continue
        if rows and rows[-1][3] == deltas:
            first, last, step, _ = rows[-1]
            if first == last and cp - last <= 2:
                rows[-1] = (first, cp, cp - last, deltas)
                continue
            if first != last and cp - last == step:
                rows[-1] = (first, cp, step, deltas)
                continue
        # Interleaved pairs (upper, lower, upper, ...) fold into two runs of step 2.
        if len(rows) > 1 and rows[-2][3] == deltas and cp - rows[-2][1] == 2 and rows[-2][2] in (1, 2):
            first, last, step, _ = rows[-2]
            if first == last or step == 2:
                rows[-2] = (first, cp, 2, deltas)
                continue
        rows.append((cp, cp, 1, deltas))
    for first, last, step, (upper, lower, title) in sorted(rows):
        out.write(f"{{{first:#x},{last:#x},{step},{upper},{lower},{title}}},\n")
    out.write("};\n// Mappings to several characters.\nconstexpr CaseSpecial kCaseSpecials[] = {\n")
    for cp in CODE_POINTS:
        if simple_deltas(cp) is None:
            texts = (f(chr(cp)) for f in (str.upper, str.lower, str.title))
            quoted = ",".join('"' + "".join(f"\\{b:03o}" for b in t.encode()) + '"' for t in texts)
            out.write(f"{{{cp:#x},{quoted}}},\n")
    out.write("};\n")


def matched(pattern):
    from tokenizers import Regex, pre_tokenizers

    split = pre_tokenizers.Split(Regex(pattern), "removed")
    return {cp for cp in CODE_POINTS if not split.pre_tokenize_str(chr(cp))}


def write_newer(out):
    classes = [
        ("kUpper", r"[\p{Lu}\p{Lt}]", ("Lu", "Lt")),
        ("kLower", r"\p{Ll}", ("Ll",)),
        ("kOther", r"[\p{Lm}\p{Lo}]", ("Lm", "Lo")),
        ("kMark", r"\p{M}", ("Mn", "Mc", "Me")),
        ("kNumber", r"\p{N}", ("Nd", "Nl", "No")),
    ]
    different = {}
    for name, pattern, categories in classes:
        theirs = matched(pattern)
        for cp in theirs:
            if unicodedata.category(chr(cp)) not in categories:
                different[cp] = name
    out.write("constexpr NewerRange kNewerRanges[] = {\n")
    for first, last, name in runs(sorted(different.items())):
        out.write(f"{{{first:#x}, {last:#x}, NewerClass::{name}}},\n")
    out.write("};\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--newer", action="store_true")
    arguments = parser.parse_args()
    note = f"// Written by scripts/generate_unicode_tables.py from Unicode {unicodedata.unidata_version}.\n"
    with open(ROOT / "src/jinja/unicode_tables.inc", "w") as out:
        out.write(note)
        write_properties(out)
        write_case(out)
    if arguments.newer:
        with open(ROOT / "src/tokenizer/unicode_newer.inc", "w") as out:
            out.write(note)
            write_newer(out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
