"""Accuracy per skill: fresh single-turn cases, greedy generation, exact comparison of the answers."""

import random
import re
import time

import corpus

# (name, skill, lines of the table, tokens to generate)
SUITES = [
    ("arithmetic", "arithmetic", None, 330), ("sorting", "sorting", None, 260), ("reversing", "reversing", None, 200),
    ("lookup short", "lookup", (3, 40), 40), ("lookup medium", "lookup", (60, 150), 40), ("lookup long", "lookup", (240, 330), 40),
    ("facts", "facts", None, 80), ("tool_call", "tool_call", None, 160),
]
# Of 4,000 tokens and more: M3 reads at most a quarter of the blocks.
SPARSE_SUITE = ("lookup sparse", "lookup_sparse", None, 60)


def cases(suite, count, seed, tokenizer, chat):
    _, skill, lines, _ = suite
    rng, result = random.Random(f"eval {seed} {suite[0]}"), []
    while len(result) < count:
        task = corpus.draw_task(rng, skill, chat, lines)
        system = None if rng.random() < 0.7 else corpus.system_text(rng, chat)
        prompt = chat.opening(system, task.tools) + corpus.task_prompt(chat, task, corpus.vary(rng, task))
        ids = tokenizer.encode(prompt).ids
        if len(ids) <= (5100 if suite == SPARSE_SUITE else 4000):
            result.append((task, prompt, ids))
    return result


def grade(chat, task, text):
    answer = text.split(chat.THINK_END, 1)[-1].strip()
    if task.skill == "arithmetic":
        numbers = re.findall(r"-?\d+", answer.split("=")[-1])
        return bool(numbers) and int(numbers[-1]) == task.expected
    if task.skill == "sorting" or (task.skill == "reversing" and isinstance(task.expected, list)):
        return [x.strip() for x in answer.split(",")] == task.expected
    if task.skill == "facts":
        return all(key.lower() in answer.lower() for key in task.expected)
    if task.call:
        return chat.parse_calls(answer) == chat.expected_call(task.call)
    return task.expected in answer if task.exchange else answer == task.expected


def evaluate(decoder, chat, tokenizer, count, seed=1, batch=256, show=0, suites=SUITES):
    """RETURNS: {suite: accuracy}; prints the table and the first `show` failures of each suite."""
    eos, table = tokenizer.token_to_id(chat.EOS), {}
    for suite in suites:
        start, right, failures = time.time(), 0, []
        drawn = cases(suite, count, seed, tokenizer, chat)
        size = max(1, batch // {"lookup medium": 4, "lookup long": 16, "lookup sparse": 16}.get(suite[0], 1))
        for i in range(0, count, size):
            part = drawn[i : i + size]
            generated = decoder.generate([c[2] for c in part], suite[3], eos)
            for (task, prompt, _), ids in zip(part, generated):
                text = tokenizer.decode(ids, skip_special_tokens=False)
                ok = grade(chat, task, text)
                right += ok
                if not ok:
                    failures.append((prompt[-300:], text, corpus.completion(chat, task)))
        table[suite[0]] = right / count
        print(f"  {suite[0]:14s} {100 * right / count:6.2f} %   ({time.time() - start:.1f} s)", flush=True)
        for prompt, text, wanted in failures[:show]:
            print(f"--- prompt ...{prompt}\n--- got\n{text[:700]}\n--- wanted\n{wanted[:700]}", flush=True)
    return table
