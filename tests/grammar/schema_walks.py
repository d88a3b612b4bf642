#!/usr/bin/env python3
"""Random schemas, random texts under their grammars, judged by the jsonschema package.

  schema_walks.py PROGRAM [--seed N] [--schemas N] [--walks N] [--finished N] [ARGUMENT...]

PROGRAM reads schemas, one a line, and prints lines {"schema": line, "text": ...} or {"schema": line, "error": ...};
ARGUMENTs go to it in front of the count. Every text must be JSON that its schema accepts; few schemas may be refused
and few walks may not end. With --finished, further schemas follow until so many texts have ended.
"""

import argparse
import json
import random
import subprocess
import sys

import jsonschema

NAMES = ["a", "b", "ab", "name", "é", 'q"', "x/y", "long name", "n1", "n2"]
FORMATS = ["date", "date-time", "time", "uuid", "email", "ipv4", "hostname"]
PATTERNS = ["^a+b?$", "^[a-f]{2,4}$", "x", "^(ab|c)*$", r"^\d{3}-\d{2}$", r"[^\d]$", "^[A-Z][a-z]+( [A-Z][a-z]+)?$"]
VALUES = ["a", "b c", "é€", 'q"\\', 0, -5, 3.5, True, None, [1, "x"], {"k": [None]}]


def number_schema(rng):
    schema = {"type": rng.choice(["integer", "number"])}
    low, high = sorted(rng.sample(range(-120, 1200), 2))
    if rng.random() < 0.5:
        schema[rng.choice(["minimum", "exclusiveMinimum"])] = low - 1
    if rng.random() < 0.5:
        schema[rng.choice(["maximum", "exclusiveMaximum"])] = high + 1
    return schema


def string_schema(rng):
    schema = {"type": "string"}
    kind = rng.randrange(5)
    if kind == 0:
        schema["minLength"] = rng.randrange(4)
        schema["maxLength"] = schema["minLength"] + rng.randrange(5)
    elif kind == 1:
        schema["pattern"] = rng.choice(PATTERNS)
    elif kind == 2:
        schema["format"] = rng.choice(FORMATS)
    return schema


def array_schema(rng, depth, refs):
    schema = {"type": "array"}
    if rng.random() < 0.3:
        schema["prefixItems"] = [any_schema(rng, depth - 1, refs) for _ in range(rng.randrange(1, 4))]
    if rng.random() < 0.8:
        schema["items"] = any_schema(rng, depth - 1, refs)
    if rng.random() < 0.4:
        schema["minItems"] = rng.randrange(4)
    if rng.random() < 0.4:
        schema["maxItems"] = schema.get("minItems", 0) + rng.randrange(4)
    return schema


def object_schema(rng, depth, refs):
    names = rng.sample(NAMES, rng.randrange(5))
    schema = {"type": "object", "properties": {name: any_schema(rng, depth - 1, refs) for name in names}}
    schema["required"] = [name for name in names if rng.random() < 0.5]
    if rng.random() < 0.3:
        schema["additionalProperties"] = rng.choice([False, True, {"type": "integer"}])
    return schema


def any_schema(rng, depth, refs):
    if depth <= 0:
        return rng.choice([{"type": "null"}, {"type": "boolean"}, number_schema(rng), string_schema(rng)])
    kind = rng.randrange(10)
    if kind < 3:
        return object_schema(rng, depth, refs)
    if kind < 5:
        return array_schema(rng, depth, refs)
    if kind == 5:
        return {"enum": rng.sample(VALUES, rng.randrange(1, 5))}
    if kind == 6:
        return {"anyOf": [any_schema(rng, depth - 1, refs) for _ in range(rng.randrange(1, 4))]}
    if kind == 7 and refs:
        return {"$ref": "#/$defs/" + rng.choice(refs)}
    if kind == 8:
        properties = [{name: any_schema(rng, depth - 2, refs)} for name in rng.sample(NAMES, 2)]
        return {"allOf": [{"type": "object", "properties": p, "required": list(p)} for p in properties]}
    return rng.choice([{}, {"const": rng.choice(VALUES)}, {"type": ["string", "null"]}, number_schema(rng), string_schema(rng)])


def random_schema(rng):
    refs = ["r0", "r1"][: rng.randrange(3)]
    schema = object_schema(rng, 3, refs)
    if refs:
        schema["$defs"] = {name: any_schema(rng, 2, refs if rng.random() < 0.5 else []) for name in refs}
    return schema


class Judge:
    """Draws texts under schemas and counts how they fare."""

    def __init__(self, program, walks):
        self.command = program + [str(walks)]
        self.schemas = self.valid = self.invalid = self.cut = self.refused = 0

    def draw(self, schemas):
        self.schemas += len(schemas)
        lines = "".join(json.dumps(schema) + "\n" for schema in schemas)
        run = subprocess.run(self.command, input=lines, stdout=subprocess.PIPE, check=True, text=True)
        for line in run.stdout.split("\n")[:-1]:
            result = json.loads(line)
            if "error" in result:
                self.refused += 1
                print("refused:", result["error"])
            elif not result["text"]:
                self.cut += 1
            else:
                self.judge(result["text"], schemas[result["schema"]])

    def judge(self, text, schema):
        validator = jsonschema.Draft202012Validator(
            schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
        )
        try:
            validator.validate(json.loads(text))
            self.valid += 1
        except (ValueError, jsonschema.ValidationError) as error:
            self.invalid += 1
            print(f"invalid: {text!r} under {json.dumps(schema)}: {str(error)[:200]}")

    def finished(self):
        return self.valid + self.invalid

    def summary(self):
        return (
            f"{self.schemas} schemas: {self.valid} texts valid, {self.invalid} invalid, {self.cut} cut, "
            f"{self.refused} refusals"
        )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program", nargs="+")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--schemas", type=int, default=300, help="in a round")
    parser.add_argument("--walks", type=int, default=5)
    parser.add_argument("--finished", type=int, default=1, help="rounds go on until so many texts have ended")
    parser.add_argument("--most-cut", type=float, default=0.25, help="share of texts that may not end")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    judge = Judge(options.program, options.walks)
    most_rounds = 1 + options.finished
    for _ in range(most_rounds):
        judge.draw([random_schema(rng) for _ in range(options.schemas)])
        if judge.finished() >= options.finished:
            break
    print(judge.summary())
    are_few = judge.refused <= judge.schemas // 4 and judge.cut <= (judge.valid + judge.cut) * options.most_cut
    return 0 if judge.invalid == 0 and judge.valid >= options.finished and are_few else 1


if __name__ == "__main__":
    sys.exit(main())
