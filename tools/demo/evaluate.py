"""Accuracy per skill: fresh single-turn cases, greedy generation, exact comparison of the answers."""

import json
import random
import re
import time

import corpus
from model import Decoder

# (name, skill, lines of the table, tokens to generate)
SUITES = [
    ("arithmetic", "arithmetic", None, 330), ("sorting", "sorting", None, 260), ("reversing", "reversing", None, 200),
    ("lookup short", "lookup", (3, 40), 40), ("lookup medium", "lookup", (60, 150), 40), ("lookup long", "lookup", (240, 330), 40),
    ("facts", "facts", None, 80), ("tool_call", "tool_call", None, 120),
]


def cases(suite, count, seed, tokenizer):
    _, skill, lines, _ = suite
    rng, result = random.Random(f"eval {seed} {suite[0]}"), []
    while len(result) < count:
        task = corpus.draw_task(rng, skill, lines)
        system = None if rng.random() < 0.7 else corpus.system_text(rng)
        prompt = corpus.opening(system, task.tools) + corpus.task_prompt(task, corpus.vary(rng, task))
        ids = tokenizer.encode(prompt).ids
        if len(ids) <= 4000:
            result.append((task, prompt, ids))
    return result


def answer_of(text):
    return text.split("</think>", 1)[-1].strip()


def grade(task, text):
    answer = answer_of(text)
    if task.skill == "arithmetic":
        numbers = re.findall(r"-?\d+", answer.split("=")[-1])
        return bool(numbers) and int(numbers[-1]) == task.expected
    if task.skill == "sorting" or (task.skill == "reversing" and isinstance(task.expected, list)):
        return [x.strip() for x in answer.split(",")] == task.expected
    if task.skill == "facts":
        return all(key.lower() in answer.lower() for key in task.expected)
    if task.skill == "tool_call" and not task.exchange:
        match = re.fullmatch(r"<tool_calls>\n(.*)\n</tool_calls>", answer)
        try:
            return bool(match) and json.loads(match[1]) == task.expected
        except ValueError:
            return False
    return task.expected in answer if task.exchange else answer == task.expected


def evaluate(parameters, config, tokenizer, device, dtype, count, seed=1, batch=256, show=0):
    """RETURNS: {suite: accuracy}; prints the table and the first `show` failures of each suite."""
    decoder, eos = Decoder(parameters, config, device, dtype), tokenizer.token_to_id(corpus.EOS)
    table = {}
    for suite in SUITES:
        start, right, failures = time.time(), 0, []
        drawn = cases(suite, count, seed, tokenizer)
        size = batch if suite[0] != "lookup long" else max(1, batch // 4)
        for i in range(0, count, size):
            part = drawn[i : i + size]
            texts = [tokenizer.decode(ids) for ids in decoder.generate([c[2] for c in part], suite[3], eos)]
            for (task, prompt, _), text in zip(part, texts):
                ok = grade(task, text)
                right += ok
                if not ok:
                    failures.append((prompt[-300:], text, task.completion()))
        table[suite[0]] = right / count
        print(f"  {suite[0]:14s} {100 * right / count:6.2f} %   ({time.time() - start:.1f} s)", flush=True)
        for prompt, text, wanted in failures[:show]:
            print(f"--- prompt ...{prompt}\n--- got\n{text[:700]}\n--- wanted\n{wanted[:700]}", flush=True)
    return table
