#!/usr/bin/env python3
"""Random schemas, random texts under their grammars, judged by the jsonschema package.

  schema_walks.py PROGRAM [--seed N] [--schemas N] [--walks N] [ARGUMENT...]

PROGRAM reads schemas, one a line, and prints lines {"schema": line, "text": ...} or {"schema": line, "error": ...};
ARGUMENTs go to it in front of the count. Every text must be JSON that its schema accepts; few schemas may be refused
and few walks may not end.
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


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program", nargs="+")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--schemas", type=int, default=300)
    parser.add_argument("--walks", type=int, default=5)
    parser.add_argument("--most-cut", type=float, default=0.25, help="share of texts that may not end")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    schemas = [random_schema(rng) for _ in range(options.schemas)]
    lines = "".join(json.dumps(schema) + "\n" for schema in schemas)
    run = subprocess.run(options.program + [str(options.walks)], input=lines, stdout=subprocess.PIPE, check=True, text=True)
    refused = cut = valid = invalid = 0
    for line in run.stdout.split("\n")[:-1]:
        result = json.loads(line)
        schema = schemas[result["schema"]]
        if "error" in result:
            refused += 1
            print("refused:", result["error"])
        elif not result["text"]:
            cut += 1
        else:
            try:
                jsonschema.Draft202012Validator(
                    schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
                ).validate(json.loads(result["text"]))
                valid += 1
            except (ValueError, jsonschema.ValidationError) as error:
                invalid += 1
                print(f"invalid: {result['text']!r} under {json.dumps(schema)}: {str(error)[:200]}")
    print(f"{len(schemas)} schemas: {valid} texts valid, {invalid} invalid, {cut} cut, {refused} refusals")
    are_few = refused <= len(schemas) // 4 and cut <= (valid + cut) * options.most_cut
    return 0 if invalid == 0 and valid > 0 and are_few else 1


if __name__ == "__main__":
    sys.exit(main())
