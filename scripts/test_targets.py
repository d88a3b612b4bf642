#!/usr/bin/env python3
"""test_targets.py BUILD [CTEST ARGUMENT...]: the build targets that the selected tests of a build folder need.

A test in C++ has its target's name; a test in Python names programs of the build among its arguments.
"""

import json
import pathlib
import subprocess
import sys

build, *selection = sys.argv[1:]
listed = subprocess.run(
    ["ctest", "--test-dir", build, "--show-only=json-v1", *selection], stdout=subprocess.PIPE, check=True, text=True
)
programs = pathlib.Path(build).resolve() / "bin"
targets = set()
for test in json.loads(listed.stdout)["tests"]:
    words = test.get("command")  # unknown until the test is built
    targets |= {pathlib.Path(word).name for word in words if pathlib.Path(word).parent == programs} if words else {test["name"]}
print(*sorted(targets))
