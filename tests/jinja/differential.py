#!/usr/bin/env python3
"""Writes template cases with what Python's Jinja2 makes of them, for jinja_test to compare with.

    differential.py --out cases.json [--conversations 400] [--templates FILE ...] [--seed 1]

The environment is set up as Hugging Face does for chat templates. A case holds a template by name and a context, or
a template's text (its context is the file's data), and either the output or the fact that it fails.
"""
import argparse
import json
import pathlib
import random
import sys

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from snippets import DATA, SNIPPETS

NOW = 1700000000


class Generation(jinja2.ext.Extension):
    """Passes the body of a generation block through."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_run"), [], [], body).set_lineno(line)

    def _run(self, caller):
        return caller()


def make_environment():
    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(
            value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
        )

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    return environment


TEXTS = [
    "Hello",
    "",
    " ",
    "\n",
    "  padded  \n",
    "line one\nline two\r\nline three\ttab",
    "Größe, naïve, Ελλάς, Москва, 你好，世界, こんにちは, 안녕, שלום, مرحبا",
    "emoji 👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 and e\u0301",
    "<b>&amp; \"quotes\" 'single' \\ backslash</b>",
    "</think>after",
    "<think>\nold thought\n</think>\n\nanswer",
    "<mm:think>deep</mm:think>visible</mm:think>twice",
    "{{ not a template }} {% raw %}",
    "\x00\x01\x1f\x7f\u2028\u2029\ufeff",
    "]~b]user\nfake[e~[",
    "0",
    "x" * 300,
]

ARGUMENTS = [
    {},
    {"city": "Paris"},
    {"city": "São Paulo", "days": 3, "celsius": True, "ratio": 0.1, "none": None},
    {"nested": {"a": [1, 2.5, "x", {"b": []}], "c": {}}, "list": ["a", "b"], "text": "</parameter>"},
    {"big": 123456789012345, "neg": -1, "exp": 1e-7, "huge": 1e22, "zero": 0.0, "empty": ""},
    {"unicode": "日本語 \u2028 \"q\" \\"},
]

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Weather <now> & \"later\" für Städte",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 0}},
                "required": ["city"],
            },
        },
    },
    {"type": "function", "function": {"name": "noop", "parameters": {}}},
    {"type": "function", "function": {"name": "数", "description": "", "strict": False, "x": None, "f": 1.5}},
]


def content(rng):
    kind = rng.randrange(10)
    if kind < 5:
        return rng.choice(TEXTS)
    if kind < 9:
        parts = [{"type": "text", "text": rng.choice(TEXTS)} for _ in range(rng.randint(1, 3))]
        if rng.random() < 0.3:
            parts.append({"type": rng.choice(["image", "video", "image_url"]), "url": "x"})
        if rng.random() < 0.2:
            parts.append(rng.choice(TEXTS))
        return parts
    return rng.choice([None, 17, 2.5, True, [], {}, {"type": "text", "text": "map"}])


def tool_call(rng):
    function = {"name": rng.choice(["get_weather", "noop", "数"]), "arguments": rng.choice(ARGUMENTS)}
    if rng.random() < 0.15:
        function["arguments"] = json.dumps(function["arguments"])
    if rng.random() < 0.05:
        del function["arguments"]
    return rng.choice([{"id": "c1", "type": "function", "function": function}, function])


def assistant(rng):
    message = {"role": "assistant", "content": content(rng)}
    if rng.random() < 0.1:
        del message["content"]
    if rng.random() < 0.4:
        message["reasoning_content"] = rng.choice(TEXTS + [None])
    if rng.random() < 0.5:
        message["tool_calls"] = rng.choice([[], None, [tool_call(rng) for _ in range(rng.randint(1, 3))]])
    return message


def tool_result(rng):
    kind = rng.randrange(5)
    if kind < 3:
        return {"role": "tool", "content": rng.choice(TEXTS), "tool_call_id": "c1"}
    parts = []
    for _ in range(rng.randint(1, 3)):
        part = {"type": "text", "text": rng.choice(TEXTS)}
        if rng.random() < 0.6:
            part["name"] = "get_weather"
        if rng.random() < 0.2:
            part["output"] = rng.choice(TEXTS)
        parts.append(part)
    return {"role": "tool", "content": parts}


def conversation(rng):
    messages = []
    if rng.random() < 0.2:
        messages.append({"role": "root", "content": content(rng)})
    if rng.random() < 0.6:
        message = {"role": rng.choice(["system", "system", "developer"]), "content": content(rng)}
        if rng.random() < 0.2:
            message["current_date"] = "2026-01-02"
            message["current_location"] = "Zürich"
        messages.append(message)
    for _ in range(rng.randint(0, 4)):
        messages.append({"role": "user", "content": content(rng)})
        for _ in range(rng.randint(0, 2)):
            messages.append(assistant(rng))
            for _ in range(rng.choice([0, 0, 1, 2])):
                messages.append(tool_result(rng))
    if rng.random() < 0.05:
        messages.append({"content": "no role"})
    context = {"messages": messages, "tools": None, "documents": None}
    context["add_generation_prompt"] = rng.random() < 0.7
    if rng.random() < 0.5:
        context["tools"] = rng.sample(TOOLS, rng.randint(0, 3))
    if rng.random() < 0.5:
        context["thinking_mode"] = rng.choice(["enabled", "disabled", "adaptive", "other", None])
    if rng.random() < 0.2:
        context["model_identity"] = "You are a test."
    context["bos_token"] = "<bos>"
    context["eos_token"] = "<eos>"
    return context


def as_parts(context):
    """The same conversation with every string content as a list of parts, as M1's own template wants it."""
    context = json.loads(json.dumps(context))
    for message in context["messages"]:
        if isinstance(message.get("content"), str):
            message["content"] = [{"type": "text", "text": message["content"], "name": "tool"}]
    return context


def result_of(environment, source, context):
    try:
        text = environment.from_string(source).render(**context)
        text.encode()
        return {"output": text}
    except Exception as error:  # every failure of the template counts as one
        return {"error": f"{type(error).__name__}: {error}"[:120]}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True)
    parser.add_argument("--conversations", type=int, default=400)
    parser.add_argument("--templates", nargs="*", default=[])
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    environment = make_environment()
    rng = random.Random(arguments.seed)
    cases = []
    templates = {}
    for path in map(pathlib.Path, arguments.templates):
        templates[path.name] = path.read_text()
    for _ in range(arguments.conversations):
        plain = conversation(rng)
        for name, source in templates.items():
            context = as_parts(plain) if name == "minimax-m1.jinja" and rng.random() < 0.8 else plain
            cases.append({"template": name, "context": context, **result_of(environment, source, context)})
    for source in SNIPPETS:
        cases.append({"source": source, **result_of(environment, source, DATA)})
    with open(arguments.out, "w") as out:
        json.dump({"templates": templates, "data": DATA, "cases": cases}, out, ensure_ascii=False, separators=(",", ":"))
        out.write("\n")
    failing = sum("error" in case for case in cases)
    print(f"{len(cases)} cases, {failing} of them failing, {len(SNIPPETS)} snippets")
    return 0


if __name__ == "__main__":
    sys.exit(main())
