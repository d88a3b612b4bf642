"""The generated corpus of the demo models: skills and conversations; chat.py has the families' formats.

Everything comes from the templates and word lists in this file. A skill function returns a Task: the user
text (and tools, or a tool exchange), the reasoning and the answer. `conversation` renders one or more tasks
as text segments, each with a flag: does the loss count it?
"""

import json
import random
import sys
from dataclasses import dataclass, field

from chat import CHATS

WORDS = """amber apple arrow basil beach birch bread brick cedar chalk cloud coral daisy delta eagle ember
fern field flame forest garden ginger grape harbor hazel honey iron island ivory jade jasmine kettle lantern
lemon lily linen maple marble meadow melon mint moon nectar oak ocean olive orchid paper pearl pepper pine
plum quartz rain raven river rose saffron salt silver stone storm sugar tiger tulip violet walnut willow
winter yarrow zinc""".split()
CITIES = """Paris Berlin Tokyo London Madrid Rome Oslo Lima Cairo Delhi Dublin Vienna Prague Athens Lisbon
Warsaw Seoul Boston Denver Sydney""".split()
NAMES = "Anna Ben Clara David Emma Felix Grace Henry Ida Jonas Karl Lena Maria Nora Oscar Paula".split()

@dataclass
class Task:
    skill: str
    user: str
    think: str
    answer: str
    tools: list = field(default_factory=list)
    # For an answer after a tool result: (call name, call arguments, result text).
    exchange: tuple | None = None
    call: tuple | None = None  # (name, arguments) where the answer is a tool call
    expected: object = None  # what `grade` compares with


# --- arithmetic -------------------------------------------------------------------------------------------


def add_steps(a, b):
    lines, carry, out = [], 0, ""
    x, y = str(a)[::-1], str(b)[::-1]
    for i in range(max(len(x), len(y))):
        p, q = int(x[i]) if i < len(x) else 0, int(y[i]) if i < len(y) else 0
        total = p + q + carry
        out = str(total % 10) + out
        lines.append(f"{p}+{q}+{carry}={total}, write {total % 10}, carry {total // 10}: {out}")
        carry = total // 10
    if carry:
        out = "1" + out
        lines.append(f"write 1: {out}")
    return lines


def subtract_steps(a, b):
    """a >= b."""
    lines, borrow, out = [], 0, ""
    x, y = str(a)[::-1], str(b)[::-1]
    for i in range(len(x)):
        p, q = int(x[i]), int(y[i]) if i < len(y) else 0
        lend = 1 if p - q - borrow < 0 else 0
        digit = p + 10 * lend - q - borrow
        out = str(digit) + out
        lines.append(f"{p + 10 * lend}-{q}-{borrow}={digit}, write {digit}, borrow {lend}: {out}")
        borrow = lend
    if len(out) > 1 and out[0] == "0":
        lines.append(f"drop zeros: {int(out)}")
    return lines


def multiply_digit_steps(a, d, tail=""):
    lines, carry, out = [], 0, tail
    for c in str(a)[::-1]:
        total = int(c) * d + carry
        out = str(total % 10) + out
        lines.append(f"{c}*{d}+{carry}={total}, write {total % 10}, carry {total // 10}: {out}")
        carry = total // 10
    if carry:
        out = str(carry) + out
        lines.append(f"write {carry}: {out}")
    return lines


def multiply_steps(a, b):
    if b < 10:
        return multiply_digit_steps(a, b)
    ones, tens = b % 10, b // 10
    first, second = a * ones, a * tens * 10
    lines = [f"{a}*{ones}:"] + multiply_digit_steps(a, ones)
    if ones == 0:
        lines = [f"{a}*0: 0"]
    lines += [f"{a}*{tens}0:"] + multiply_digit_steps(a, tens, "0")
    return lines + [f"{second}+{first}:"] + add_steps(second, first)


def number(rng, digits):
    n = rng.randint(1, digits)
    return rng.randint(0 if n == 1 else 10 ** (n - 1), 10**n - 1)


ADD = ["What is {a} + {b}?", "Calculate {a} + {b}.", "Compute {a} + {b}", "{a} + {b}", "{a} + {b} = ?", "{a}+{b}",
       "How much is {a} plus {b}?", "Add {a} and {b}.", "What is {a} plus {b}?", "What is the sum of {a} and {b}?",
       "Can you calculate {a} + {b}?", "What's {a} + {b}?", "{a} + {b} =", "Add {b} to {a}.", "How much is {a} + {b}?", "What is {a}+{b}?"]
SUB = ["What is {a} - {b}?", "Calculate {a} - {b}.", "Compute {a} - {b}", "{a} - {b}", "{a} - {b} = ?", "{a}-{b}",
       "How much is {a} minus {b}?", "Subtract {b} from {a}.", "What is {a} minus {b}?", "What's {a} - {b}?", "Can you calculate {a} - {b}?",
       "{a} - {b} =", "How much is {a} - {b}?", "Take {b} away from {a}.", "What is {a}-{b}?"]
MUL = ["What is {a} * {b}?", "Calculate {a} * {b}.", "Compute {a} * {b}", "{a} * {b}", "{a} * {b} = ?", "{a}*{b}",
       "How much is {a} times {b}?", "Multiply {a} by {b}.", "What is {a} times {b}?", "What's {a} * {b}?", "Can you calculate {a} * {b}?",
       "{a} x {b}", "What is {a} x {b}?", "What is the product of {a} and {b}?", "How much is {a} * {b}?",
       "{a} * {b} =", "Multiply {a} and {b}.", "What is {a}*{b}?"]


def arithmetic(rng):
    op = rng.choice("++--**")
    if op == "*":
        if rng.random() < 0.4:
            a, b = number(rng, 3), rng.randint(0, 9)
        else:
            a, b = number(rng, 2), number(rng, 2)
        user, lines, value = rng.choice(MUL), multiply_steps(a, b), a * b
    else:
        a, b = number(rng, 4), number(rng, 4)
        if rng.random() < 0.5:
            n = rng.randint(2, 4)
            a, b = (rng.randint(10 ** (n - 1), 10**n - 1) for _ in range(2))
        if op == "+":
            user, lines, value = rng.choice(ADD), add_steps(a, b), a + b
        else:
            if a < b and rng.random() < 0.7:
                a, b = b, a
            user, value = rng.choice(SUB), a - b
            if a >= b:
                lines = subtract_steps(a, b)
            else:
                lines = [f"{a} is less than {b}, so minus {b}-{a}:"] + subtract_steps(b, a)
    head = f"{a}{op}{b}:"
    return Task("arithmetic", user.format(a=a, b=b), "\n".join([head] + lines), f"{a} {op} {b} = {value}", expected=value)


# --- sorting and reversing --------------------------------------------------------------------------------

SORT_UP = ["Sort these numbers from smallest to largest: {x}", "Sort in ascending order: {x}",
           "Put these numbers in order: {x}", "Sort these numbers: {x}", "Sort the numbers {x}.", "Sort {x}",
           "Order these numbers from low to high: {x}", "Please sort: {x}", "Can you sort {x}?",
           "Sort the following numbers: {x}", "Sort these numbers in ascending order: {x}", "Please sort these numbers: {x}",
           "Sort the list {x} in ascending order.", "Arrange these numbers from smallest to largest: {x}"]
SORT_DOWN = ["Sort these numbers from largest to smallest: {x}", "Sort in descending order: {x}",
             "Order these numbers from high to low: {x}", "Sort the numbers {x} in descending order.",
             "Sort the list {x} in descending order.", "Arrange these numbers from largest to smallest: {x}",
             "Sort from high to low: {x}", "Sort these numbers in descending order: {x}"]
SORT_WORDS = ["Sort these words alphabetically: {x}", "Put these words in alphabetical order: {x}", "Sort {x}",
              "Sort these words: {x}", "Sort the words {x}.", "Please sort: {x}", "Order these words from a to z: {x}",
              "Can you sort {x}?", "Sort the following words: {x}", "Arrange these words in alphabetical order: {x}", "Sort the list {x} alphabetically."]
REVERSE_LIST = ["Reverse this list: {x}", "Reverse the order of these items: {x}", "Reverse {x}", "Write {x} backwards.",
                "Write this list backwards: {x}", "Give me this list in reverse order: {x}", "Please reverse: {x}",
                "Reverse the list {x}.", "Turn this list around: {x}", "Reverse the following list: {x}", "Can you reverse {x}?"]
REVERSE_TEXT = ["Reverse the word {x}.", "Reverse the letters of {x}.", "Write {x} backwards.", "Spell {x} backwards.",
                "Reverse the text {x}", "Reverse the string {x}.", "What is {x} backwards?", "Reverse {x}", "Please reverse: {x}",
                "What is {x} spelled backwards?", "Reverse this word: {x}", "Can you reverse {x}?"]


def listed(rng, items):
    roll = rng.random()
    if roll < 0.12:
        return "[" + ", ".join(items) + "]"
    if roll < 0.25:
        return " ".join(items)
    return ", ".join(items)


def sorting(rng):
    n = rng.randint(3, 8)
    if rng.random() < 0.6:
        values = [rng.randint(0, 99) for _ in range(n)]
        down = rng.random() < 0.35
        order = sorted(values, reverse=down)
        items, order = [str(v) for v in values], [str(v) for v in order]
        user, label = rng.choice(SORT_DOWN if down else SORT_UP), "largest" if down else "smallest"
    else:
        items = rng.sample(WORDS, n)
        order = sorted(items)
        user, label = rng.choice(SORT_WORDS), "first"
    lines, left = ["items: " + ", ".join(items)], list(items)
    for item in order:
        left.remove(item)
        lines.append(f"{label} {item}, left: " + (", ".join(left) if left else "none"))
    answer = ", ".join(order)
    return Task("sorting", user.format(x=listed(rng, items)), "\n".join(lines), answer, expected=order)


def letters(rng, low, high):
    return "".join(rng.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ") for _ in range(rng.randint(low, high)))


def reversing(rng):
    roll = rng.random()
    if roll < 0.45:
        text = letters(rng, 3, 10) if rng.random() < 0.6 else rng.choice(WORDS).upper()
        items = list(text)
        shown = text if rng.random() < 0.7 else f'"{text}"'
        user, answer, expected = rng.choice(REVERSE_TEXT), text[::-1], text[::-1]
    else:
        n = rng.randint(3, 8)
        items = rng.sample(WORDS, n) if roll < 0.75 else [str(rng.randint(0, 99)) for _ in range(n)]
        shown, user = listed(rng, items), rng.choice(REVERSE_LIST)
        expected = items[::-1]
        answer = ", ".join(expected)
    numbered = [f"{i + 1}: {item}" for i, item in enumerate(items)]
    think = ", ".join(numbered) + "\nback: " + ", ".join(reversed(numbered))
    return Task("reversing", user.format(x=shown), think, answer, expected=expected)


# --- lookup -----------------------------------------------------------------------------------------------

LOOKUP_HEADS = ["Here is a list:", "Here are some values:", "Here is a table:", "Remember these values:", "List:",
                "Use this table:", "Here are the codes:"]
LOOKUP_QUESTIONS = ["What is the value of {k}?", "What is the code of {k}?", "Look up {k}.", "Find {k}.",
                    "Which value belongs to {k}?", "Which value has {k}?", "What is {k}?", "Give me the value of {k}.",
                    "Tell me the value of {k}.", "What does the list say for {k}?", "And {k}?"]


def lookup_key(rng, style):
    if style == 0:
        return f"{rng.choice(WORDS)}-{rng.randint(10, 99)}"
    return f"{letters(rng, 2, 2)}{rng.randint(10, 99)}"


def lookup_value(rng, style):
    if style == 0:
        return str(rng.randint(1000, 9999))
    if style == 1:
        return rng.choice(WORDS)
    return letters(rng, 3, 3)


class Table:
    """A lookup context; the first task carries the table, the following ones only ask."""

    def __init__(self, rng, lines, numbers=False):
        key_style = 0 if rng.random() < 0.7 else 1
        value_style = 0 if numbers else rng.choices([0, 1, 2], [70, 15, 15])[0]
        self.separator = ": " if rng.random() < 0.7 else " = "
        self.rows = {}
        while len(self.rows) < lines:
            self.rows[lookup_key(rng, key_style)] = lookup_value(rng, value_style)
        self.head, self.fresh, self.keys = rng.choice(LOOKUP_HEADS), True, list(self.rows)

    def task(self, rng):
        key = rng.choice(self.keys)
        value = self.rows[key]
        user = rng.choice(LOOKUP_QUESTIONS[:-1] if self.fresh else LOOKUP_QUESTIONS).format(k=key)
        if self.fresh:
            rows = "\n".join(f"{k}{self.separator}{v}" for k, v in self.rows.items())
            user = f"{self.head}\n{rows}\n\n{user}" if rng.random() < 0.85 else f"{rows}\n{user}"
            self.fresh = False
        return Task("lookup", user, f"find {key}\n{key}{self.separator}{value}", value, expected=value)


# --- facts ------------------------------------------------------------------------------------------------

SUBJECT = ["minimax.cpp", "this project", "the engine", "this program", "this engine", "the project"]
# (name, answer, what the answer must contain, question patterns; {s} is a subject, a|b an alternative)
FACTS = [
    ("what it is", "minimax.cpp is a native inference engine for the MiniMax model families, written in C++20.", ["inference engine"],
     ["What is {s}?", "Tell me about {s}.", "Explain {s}.", "Describe {s}.", "What does {s} do?", "What is {s} for?",
      "Explain what {s} is.", "What kind of program is {s}?", "Give me a short description of {s}.", "What can {s} do?",
      "Summarise {s}.", "What is the purpose of {s}?", "What's {s}?", "Introduce {s}."]),
    ("the language", "minimax.cpp is written in C++20, with CUDA for NVIDIA GPUs.", ["C++20", "CUDA"],
     ["Which language is {s} written in?", "What programming language does {s} use?", "What is {s} written in?",
      "In which language is {s} written?", "Is {s} written in Python?", "Is {s} written in C++?", "Which languages does {s} use?",
      "What language is {s}?", "Which C++ standard does {s} use?", "Does {s} need Python?", "Which programming language is used by {s}?",
      "Does {s} use CUDA?", "Does {s} use C++?", "What is the language of {s}?"]),
    ("the models", "minimax.cpp runs the MiniMax families Text-01, M1, M2 and M3.", ["Text-01", "M1", "M2", "M3"],
     ["Which models does {s} run?", "Which models does {s} support?", "What models can {s} run?", "Which model families does {s} support?",
      "Can {s} run M2?", "Can {s} run MiniMax-M1?", "Does {s} support M3?", "Does {s} run Text-01?", "List the models of {s}.",
      "What families are supported by {s}?", "Which MiniMax models work with {s}?", "Which models can I use with {s}?",
      "Which families does {s} know?", "What model families are there in {s}?"]),
    ("the licence", "minimax.cpp is free software under the Apache-2.0 licence.", ["Apache-2.0"],
     ["What licence does {s} have?", "What is the license of {s}?", "Which licence does {s} use?", "Is {s} open source?",
      "Is {s} free?", "What is the licence of {s}?", "Under which licence is {s} released?", "Can I use {s} for free?",
      "What license is {s} under?", "How is {s} licensed?", "May I use {s} at work?", "Is {s} free software?", "Which license applies to {s}?"]),
    ("the APIs", "The server speaks the OpenAI and the Anthropic APIs.", ["OpenAI", "Anthropic"],
     ["Which APIs does {s} offer?", "What API does {s} have?", "Does {s} have an OpenAI API?", "Is {s} compatible with OpenAI?",
      "Does {s} support the Anthropic API?", "Which API does the server speak?", "Which APIs does the server offer?", "What APIs are supported by {s}?",
      "How can a client talk to {s}?", "Does the server speak the OpenAI API?", "What protocols does the server speak?",
      "Which HTTP API does {s} use?", "Which APIs can I use with {s}?"]),
    ("lightning attention", "Lightning attention is linear attention with a decay: it keeps a state of fixed size instead of a growing cache.", ["linear attention"],
     ["What is lightning attention?", "Explain lightning attention.", "How does lightning attention work?", "Tell me about lightning attention.",
      "What does lightning attention do?", "Describe lightning attention.", "Why is lightning attention fast?", "What's lightning attention?",
      "What is special about lightning attention?", "What do you know about lightning attention?", "Define lightning attention."]),
    ("how to run", "Type `make run` to start the demo model.", ["make run"],
     ["How do I run {s}?", "How do I start {s}?", "How can I run the demo?", "Which command runs the demo?", "How do I start the demo model?",
      "How can I try {s}?", "What command starts {s}?", "How to run {s}?", "How do I run the demo model?", "Which command starts the model?",
      "How can I start {s}?", "What should I type to run {s}?", "How do I use {s}?"]),
    ("the tests", "Type `make test` to run the tests.", ["make test"],
     ["How do I test {s}?", "How do I run the tests?", "Which command runs the tests?", "How can I test {s}?", "How are the tests started?",
      "What command tests {s}?", "How do I run the tests of {s}?", "How can I run the tests?", "How do I start the tests?",
      "What should I type to test {s}?", "How to test {s}?", "How do I check that {s} works?"]),
    ("who I am", "I am a tiny demo model with the MiniMax-{family} architecture, made for minimax.cpp.", ["demo model"],
     ["Who are you?", "What are you?", "What is your name?", "Tell me about yourself.", "Introduce yourself.", "Are you MiniMax-{family}?",
      "Which model are you?", "What model is this?", "Who am I talking to?", "Are you a human?", "Are you a robot?", "What's your name?",
      "What kind of model are you?", "Who made you?", "Are you an AI?", "Describe yourself.", "Are you ChatGPT?"]),
    ("a greeting", "Hello! How can I help you?", ["Hello"],
     ["Hello", "Hi", "Hello!", "Hi there", "Good morning", "Hey", "Good evening", "Hello there!", "Hi!", "Hey there", "Greetings",
      "Good day", "Hello, how are you?", "Hi, how are you?", "How are you?", "Good afternoon", "Howdy"]),
    ("my size", "I have about {size} parameters, in less than 8 MB.", ["{size}"],
     ["How big are you?", "How many parameters do you have?", "What is your size?", "How large are you?", "How small are you?",
      "How many weights do you have?", "What is your parameter count?", "How many bytes do you need?", "Are you a big model?",
      "How many megabytes are you?", "What size are you?", "How many parameters are in this model?"]),
    ("my layers", "I have {layers}.", ["{depth}"],
     ["How many layers do you have?", "How deep are you?", "What layers do you have?", "Describe your layers.", "How are your layers built?",
      "How many layers are in this model?", "How many attention layers do you have?", "How many of your layers use full attention?",
      "How many of your layers use lightning attention?", "What is your number of layers?", "Which attention do your layers use?"]),
    ("my skills", "I can add, subtract and multiply, sort and reverse, look up values, call tools and answer questions about minimax.cpp.", ["sort and reverse", "look up"],
     ["What can you do?", "What are your skills?", "Help", "Help me", "How can you help me?", "What can I ask you?", "What do you know?",
      "List your skills.", "What are you good at?", "What questions can I ask?", "What are you able to do?", "Can you help me?",
      "Which tasks can you do?", "What is your job?"]),
    ("mixture of experts", "In a mixture of experts a router picks a few small networks for each token, so most weights rest.", ["router"],
     ["What is a mixture of experts?", "What is MoE?", "Explain mixture of experts.", "How does a mixture of experts work?", "Explain MoE.",
      "What does a router do?", "What are experts in a model?", "What is an expert?", "How do experts work?", "Tell me about mixture of experts.",
      "What does the router pick?", "Why are there experts?"]),
    ("thanks", "You are welcome!", ["welcome"],
     ["Thank you", "Thanks", "Thank you!", "Thanks!", "Thank you very much", "Thanks a lot", "Many thanks", "Great, thank you", "Cool, thanks",
      "Thank you so much!", "Perfect, thanks"]),
    ("a farewell", "Goodbye!", ["Goodbye"],
     ["Goodbye", "Bye", "Bye!", "See you", "Good night", "See you later", "Bye bye", "Goodbye!", "See you soon", "Have a nice day", "Farewell"]),
    ("the file format", "minimax.cpp reads checkpoints in the safetensors format.", ["safetensors"],
     ["Which file format does {s} read?", "Which checkpoint format does {s} use?", "What files does {s} load?", "How are the weights stored?",
      "Which weight format does {s} need?", "Does {s} read safetensors?", "What format are the weights in?", "In which format are the weights?",
      "Which format do checkpoints have?", "What checkpoint format does {s} support?", "Which files does {s} read?"]),
    ("my tokenizer", "I use a byte-level BPE tokenizer with {vocab} tokens.", ["BPE"],
     ["Which tokenizer do you use?", "What tokenizer do you have?", "How big is your vocabulary?", "How many tokens do you know?",
      "Describe your tokenizer.", "How do you split text?", "What is your vocabulary size?", "Tell me about your tokenizer.",
      "How does your tokenizer work?", "What kind of tokenizer do you use?", "Is your tokenizer BPE?"]),
    ("my training", "I was trained on a generated corpus; its script is in tools/demo.", ["generated corpus"],
     ["How were you trained?", "What data were you trained on?", "What is your training data?", "Where does your corpus come from?",
      "How were you made?", "What did you learn from?", "Which data did you see?", "Where is your training script?", "Tell me about your training.",
      "How can I train you?", "What were you trained on?", "Who trained you?"]),
    ("something else", "I do not know that. I am a tiny demo model: ask me about minimax.cpp, numbers, lists or lookups.", ["do not know"],
     ["What is the capital of {p}?", "Write a poem about {w}.", "Tell me a story about {w}.", "Who is {n}?", "What is the weather in {p}?",
      "Tell me a joke.", "What time is it?", "How old is {n}?", "Where is {p}?", "Write a song about {w}.", "What is the meaning of life?",
      "How do I cook {w}?", "Who was the first president?", "Translate {w} into French.", "What is {w}?", "How far is it from {p} to {p}?",
      "Who wrote this book?", "What is love?", "How tall is {n}?", "What colour is {w}?", "Is {w} good for me?", "Where does {n} live?",
      "Do you like {w}?", "Write an essay about {p}.", "How many people live in {p}?", "Explain {w}.", "Tell me about {p}.", "Why is the sky blue?"]),
]


# What each demo model knows of itself.
SELF = {
    "M1": {"family": "M1", "size": "3.8 million", "depth": "16 layers", "vocab": 768,
           "layers": "16 layers: 14 with lightning attention and 2 with full attention"},
    "M2": {"family": "M2", "size": "7.2 million", "depth": "12 layers", "vocab": 1024,
           "layers": "12 layers, all with full attention"},
    "M3": {"family": "M3", "size": "6.7 million", "depth": "12 layers", "vocab": 1024,
           "layers": "12 layers: 1 with full attention and 11 with sparse attention"},
}


def facts(rng, family):
    topic, answer, keys, patterns = rng.choice(FACTS)
    own = SELF[family]
    user = rng.choice(patterns).format(s=rng.choice(SUBJECT), p=rng.choice(CITIES), w=rng.choice(WORDS), n=rng.choice(NAMES), **own)
    return Task("facts", user, f"The question is about {topic}.", answer.format(**own), expected=[k.format(**own) for k in keys])


# --- tool calls -------------------------------------------------------------------------------------------


def any_word(rng):
    roll = rng.random()
    if roll < 0.6:
        return rng.choice(WORDS)
    if roll < 0.75:
        return rng.choice(NAMES + CITIES)
    return "".join(rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(rng.randint(2, 4)))


def proper(rng, known):
    if rng.random() < 0.75:
        return rng.choice(known)
    return any_word(rng).capitalize()


VALUES = {
    "city": lambda r: proper(r, CITIES),
    "person": lambda r: proper(r, NAMES),
    "word": any_word,
    "words": lambda r: " ".join(any_word(r) for _ in range(r.randint(1, 3))),
    "small": lambda r: r.randint(1, 30),
    "large": lambda r: r.randint(1, 9999),
    "flag": lambda r: r.random() < 0.5,
}
# (tool names, description, slots {slot: (kind, parameter names)}, requests with slots)
TOOLS = [
    (["get_weather", "weather", "fetch_weather", "weather_forecast"], "Get the weather of a city.",
     {"c": ("city", ["city", "location", "place"]), "d": ("small", ["days", "num_days", "day_count"])},
     ["What is the weather in {c} for {d} days?", "Show me the weather in {c} for the next {d} days.", "Weather in {c}, {d} days",
      "How will the weather be in {c} over {d} days?"]),
    (["get_weather", "weather", "fetch_weather", "current_weather"], "Get the weather of a city.",
     {"c": ("city", ["city", "location", "place"])},
     ["What is the weather in {c}?", "How is the weather in {c}?", "Weather in {c}, please", "Is it raining in {c}?", "Tell me the weather in {c}."]),
    (["set_timer", "start_timer", "timer", "create_timer"], "Start a timer.", {"m": ("small", ["minutes", "duration", "length"])},
     ["Set a timer for {m} minutes.", "Start a timer of {m} minutes.", "Wake me in {m} minutes.", "Timer for {m} minutes"]),
    (["send_message", "message", "send_text", "notify"], "Send a message to a person.",
     {"p": ("person", ["to", "recipient", "person"]), "t": ("words", ["text", "message", "body"])},
     ["Send {p} the message {t}.", "Write to {p}: {t}", "Tell {p} this: {t}", "Send a message to {p} that says {t}"]),
    (["search_files", "find_files", "file_search", "search"], "Search files by a word.", {"q": ("word", ["query", "pattern", "term"])},
     ["Search the files for {q}.", "Find files with {q}.", "Which files contain {q}?", "Look for {q} in my files."]),
    (["create_note", "add_note", "write_note", "save_note"], "Save a note.",
     {"h": ("word", ["title", "name", "heading"]), "t": ("words", ["text", "content", "body"])},
     ["Create a note called {h} with the text {t}.", "Save a note named {h}: {t}", "Write a note {h} that says {t}"]),
    (["play_music", "play_song", "start_music", "play"], "Play music.", {"q": ("words", ["song", "title", "track"])},
     ["Play {q}.", "Play the song {q}.", "I want to hear {q}.", "Start the track {q}."]),
    (["book_table", "reserve_table", "make_reservation", "reserve"], "Book a table.",
     {"c": ("city", ["city", "place", "location"]), "n": ("small", ["people", "guests", "seats"])},
     ["Book a table in {c} for {n} people.", "Reserve a table for {n} in {c}.", "I need a table in {c} for {n} guests."]),
    (["set_light", "light", "switch_light", "set_brightness"], "Set the light of a room.",
     {"r": ("word", ["room", "lamp", "name"]), "v": ("small", ["level", "brightness", "value"])},
     ["Set the light in {r} to {v}.", "Turn the light {r} to {v}.", "Make the light of {r} {v}."]),
    (["get_price", "price", "fetch_price", "lookup_price"], "Get the price of a product.", {"w": ("word", ["product", "item", "name"])},
     ["What does {w} cost?", "What is the price of {w}?", "How much is {w}?", "Get me the price of {w}."]),
    (["convert_currency", "convert", "exchange", "convert_money"], "Convert an amount of money.",
     {"a": ("large", ["amount", "value", "sum"]), "c": ("word", ["currency", "target", "to"])},
     ["Convert {a} into {c}.", "How much is {a} in {c}?", "Exchange {a} to {c}."]),
    (["add_event", "create_event", "schedule_event", "plan"], "Add an event to the calendar.",
     {"h": ("words", ["title", "event", "name"]), "d": ("small", ["day", "date", "day_of_month"])},
     ["Add the event {h} on day {d}.", "Plan {h} for day {d}.", "Put {h} into my calendar on day {d}."]),
    (["add_to_cart", "buy", "order_item", "order"], "Order a product.",
     {"w": ("word", ["product", "item", "article"]), "n": ("small", ["quantity", "count", "number"])},
     ["Buy {n} {w}.", "Order {n} of {w}.", "Add {n} {w} to my cart.", "I want {n} {w}."]),
    (["call_person", "phone", "dial", "start_call"], "Call a person.", {"p": ("person", ["name", "person", "contact"])},
     ["Call {p}.", "Phone {p}, please.", "I want to talk to {p}.", "Start a call with {p}."]),
    (["set_alarm", "alarm", "create_alarm", "add_alarm"], "Set an alarm.",
     {"h": ("small", ["hour", "hours", "time"]), "x": ("flag", ["repeat", "daily", "every_day"])},
     ["Set an alarm at {h}, repeat {x}.", "Alarm at {h} with repeat {x}", "Create an alarm for {h} o'clock, repeat {x}."]),
]
VERBS, NOUNS = ["get", "set", "run", "make", "check", "update", "open", "list"], ["item", "user", "page", "task", "record", "job", "color", "door"]
PARAMETERS = ["name", "id", "count", "label", "size", "kind", "level", "text", "target", "mode"]
RESULTS = ["{w} {n}", "status ok, value {n}", "{n} degrees and {w}", "found {n} results: {w}, {v}", "done", "ok", "price {n}", "{w}",
           "error: {w} not found", "the {w} is {v}", "ready in {n} minutes", "{n}"]


def json_type(value):
    if isinstance(value, bool):
        return "boolean"
    return "integer" if isinstance(value, int) else "string"


class Tool:
    """A tool with fixed names; `ask` draws fresh values and words a request."""

    def __init__(self, rng):
        if rng.random() < 0.3:  # an invented tool, called by its name
            noun = any_word(rng).lower() if rng.random() < 0.4 else rng.choice(NOUNS)
            verb = rng.choice(VERBS)
            self.name, self.description, self.requests = f"{verb}_{noun}", f"{verb.capitalize()} the {noun}.", None
            kinds = [rng.choice(["word", "small", "large", "city", "flag"]) for _ in range(rng.randint(0, 3))]
            self.kinds = dict(zip(rng.sample(PARAMETERS, len(kinds)), kinds))
            return
        names, self.description, slots, self.requests = rng.choice(TOOLS)
        self.name, self.kinds, self.slots = rng.choice(names), {}, {}
        for slot, (kind, options) in slots.items():
            self.slots[slot] = rng.choice([o for o in options if o not in self.kinds])
            self.kinds[self.slots[slot]] = kind

    def ask(self, rng):
        """RETURNS: (arguments, request)."""
        arguments = {p: VALUES[kind](rng) for p, kind in self.kinds.items()}
        shown = {p: json.dumps(v) if isinstance(v, bool) else str(v) for p, v in arguments.items()}
        if self.requests:
            return arguments, rng.choice(self.requests).format(**{s: shown[p] for s, p in self.slots.items()})
        spoken = rng.choice([" and ", ", "]).join(f"{p} {v}" for p, v in shown.items())
        tail = rng.choice([" with ", " using ", ": "]) + spoken if spoken else ""
        return arguments, rng.choice(["Call {f}{t}.", "Use {f}{t}.", "Run {f}{t}", "Please call the tool {f}{t}."]).format(f=self.name, t=tail)


def sort_keys(value):
    if isinstance(value, dict):
        return {k: sort_keys(value[k]) for k in sorted(value)}
    return [sort_keys(v) for v in value] if isinstance(value, list) else value


JSON_TYPES = {"small": "integer", "large": "integer", "flag": "boolean"}


class Toolbox:
    """The tools of one conversation."""

    def __init__(self, rng, count, chat):
        self.tools, seen = [], set()
        while len(self.tools) < count:
            tool = Tool(rng)
            if tool.name not in seen and tool.description not in seen:
                seen.update((tool.name, tool.description))
                self.tools.append(tool)
        self.ordered = rng.random() < 0.5  # keys as clients write them, or sorted
        wrapped, described = rng.random() < 0.5, rng.random() < 0.25
        self.schemas = [self.schema(tool, wrapped and chat.wraps_tools, described) for tool in self.tools]

    def schema(self, tool, wrapped, described):
        properties = {p: {"type": JSON_TYPES.get(kind, "string")} for p, kind in tool.kinds.items()}
        if described:
            for p in properties:
                properties[p]["description"] = f"The {p.replace('_', ' ')}."
        parameters = {"type": "object", "properties": properties, "required": list(properties)}
        result = {"name": tool.name, "description": tool.description, "parameters": parameters}
        if wrapped:
            result = {"type": "function", "function": result}
        return result if self.ordered else sort_keys(result)

    def task(self, rng, exchange_share=0.2):
        tool = rng.choice(self.tools)
        arguments, request = tool.ask(rng)
        if not self.ordered:
            arguments = sort_keys(arguments)
        if rng.random() < exchange_share:
            result = rng.choice(RESULTS).format(w=any_word(rng), v=any_word(rng), n=rng.randint(1, 99))
            return Task("tool_call", request, f"The tool {tool.name} has answered.", f"The tool says: {result}", self.schemas,
                        (tool.name, arguments, result), expected=result)
        return Task("tool_call", request, f"I call the tool {tool.name}.", "", self.schemas, call=(tool.name, arguments))


# --- conversations ----------------------------------------------------------------------------------------

POLITE_BEFORE = ["", "", "", "", "", "", "Please answer: ", "Hi! ", "Hello. ", "Question: ", "I have a question. ", "Can you tell me: ", "OK. "]
POLITE_AFTER = ["", "", "", "", "", "", "", " Thanks.", " Please.", " Thank you!"]


def vary(rng, task):
    """Small changes of wording that keep the meaning."""
    text = task.user
    if task.skill == "lookup" and "\n" in text:
        return text
    if rng.random() < 0.3:
        if task.skill != "reversing" or text[0] not in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" or text[1:2].islower():
            text = text[0].lower() + text[1:]
    if rng.random() < 0.2 and text[-1] in ".?!":
        text = text[:-1]
    greeting = task.skill == "facts" and task.answer[:2] in ("He", "Yo", "Go")
    if greeting:
        return text
    if rng.random() < 0.25:
        text = rng.choice(POLITE_BEFORE) + text
    if rng.random() < 0.2 and text[-1] in ".?!":
        text = text + rng.choice(POLITE_AFTER)
    return text


def task_prompt(chat, task, user, mode=None):
    text = chat.user(user)
    if task.exchange:
        text += chat.history_call(task.exchange[:2]) + chat.tool_result(task.exchange[2])
    return text + chat.prompt_end(mode)


def completion(chat, task, mode=None):
    return chat.completion(task.think if chat.thinks(task, mode) else None, chat.answer(task), mode)


def system_text(rng, chat):
    roll = rng.random()
    if roll < 0.6:
        return None
    if roll < 0.65:
        return ""
    if roll < 0.95:
        return rng.choice(chat.systems)
    return " ".join(rng.sample(chat.systems, 2))


SKILLS = {"arithmetic": 26, "sorting": 20, "reversing": 12, "lookup": 12, "facts": 12, "tool_call": 18}
SPARSE_LINES = (360, 415)  # of eleven or twelve tokens: more than 4,000
LONG_REASONING = {"arithmetic": 4, "sorting": 7, "reversing": 2}
SHORT = {"arithmetic": arithmetic, "sorting": sorting, "reversing": reversing}


def draw_task(rng, skill, chat, table_lines=(2, 16)):
    if skill == "lookup":
        return Table(rng, rng.randint(*table_lines)).task(rng)
    if skill == "lookup_sparse":
        return Table(rng, rng.randint(*SPARSE_LINES), numbers=True).task(rng)
    if skill == "tool_call":
        return Toolbox(rng, rng.choice([1, 1, 2, 2, 3]), chat).task(rng)
    if skill == "facts":
        return facts(rng, chat.family)
    return SHORT[skill](rng)


def conversation(rng, chat, turns, table_lines=(2, 16), table_turns=0, tool_turns=0, skills=SKILLS):
    """RETURNS: [(text, counts_for_loss)]. It starts with `table_turns` questions about one table or
    `tool_turns` requests for one box of tools; the other turns are drawn from `skills`."""
    names, weights = list(skills), list(skills.values())
    modes = chat.modes
    mode = rng.choices([m for m, _ in modes], [w for _, w in modes])[0] if len(modes) > 1 else None
    tasks, tools = [], None
    if table_turns:
        table = Table(rng, rng.randint(*table_lines))
        tasks = [table.task(rng) for _ in range(table_turns)]
    if tool_turns:
        box = Toolbox(rng, rng.choice([1, 1, 2, 2, 3]), chat)
        tasks, tools = [box.task(rng) for _ in range(tool_turns)], box.schemas
    elif rng.random() < 0.03:
        tools = Toolbox(rng, rng.randint(1, 2), chat).schemas  # not needed by any question
    while len(tasks) < turns:
        task = draw_task(rng, rng.choices(names, weights)[0], chat, table_lines)
        if not chat.suits(task, mode):
            mode = chat.modes[0][0]
        if not task.tools:
            tasks.append(task)
        elif not tasks:
            tasks, tools = [task], task.tools
    rng.shuffle(tasks) if tool_turns else None
    segments, pending = [], chat.opening(system_text(rng, chat), tools, mode)
    for i, task in enumerate(tasks):
        user, last = vary(rng, task), i + 1 == len(tasks)
        if task.exchange and rng.random() < 0.5:  # the call is the model's own
            own = Task("tool_call", user, f"I call the tool {task.exchange[0]}.", "", call=task.exchange[:2])
            segments += [(pending + chat.user(user) + chat.prompt_end(mode), False), (completion(chat, own, mode) + chat.EOS, True)]
            pending = "\n" + chat.tool_result(task.exchange[2]) + chat.prompt_end(mode)
        else:
            pending += task_prompt(chat, task, user, mode)
        if not last and rng.random() < 0.25:  # history as clients send it: the answer without the reasoning
            pending = pending.removesuffix(chat.prompt_end(mode))
            pending += chat.history_call(task.call) if task.call else chat.history(task.answer)
            continue
        segments += [(pending, False), (completion(chat, task, mode) + chat.EOS, True)]
        pending = "\n"
    return segments


def row_conversation(rng, chat, length):
    """A conversation for a training row of `length` tokens; a longer one is drawn again by the caller."""
    if length <= 256:
        return conversation(rng, chat, 1 if rng.random() < 0.6 else 2)
    if length <= 512:
        roll = rng.random()
        if roll < 0.3:
            return conversation(rng, chat, rng.choice([1, 1, 2, 3]), tool_turns=rng.choice([1, 1, 2, 3]))
        if roll < 0.7:  # the tasks with long reasoning, which the shorter rows rarely hold
            return conversation(rng, chat, rng.choice([1, 2, 2]), skills=LONG_REASONING)
        return conversation(rng, chat, rng.choice([1, 1, 2, 3, 4]), (2, 30), table_turns=rng.choice([0, 0, 0, 0, 1, 3]))
    if length <= 1024:
        if rng.random() < 0.4:
            return conversation(rng, chat, rng.choice([1, 4, 6]), tool_turns=rng.choice([1, 3, 5, 6]))
        return conversation(rng, chat, rng.choice([1, 3, 5, 6]), (10, 70), table_turns=rng.choice([0, 1, 2, 4, 6]))
    lines = (60, 150) if length <= 2048 else (120, 345) if length <= 4096 else (200, SPARSE_LINES[1])
    turns = rng.choice([1, 1, 2, 4, 8] if length <= 4096 else [1, 4, 8, 12])
    return conversation(rng, chat, turns + rng.choice([0, 0, 1]), lines, table_turns=turns,
                        skills={"arithmetic": 1, "sorting": 1, "reversing": 1, "facts": 1})


if __name__ == "__main__":
    generator, chat = random.Random(1), CHATS[sys.argv[1] if len(sys.argv) > 1 else "m1"]()
    for _ in range(6):
        print("".join(text for text, _ in row_conversation(generator, chat, 512)), "\n" + "-" * 80)
