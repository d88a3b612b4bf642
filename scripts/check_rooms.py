#!/usr/bin/env python3
"""Checks the rules between rooms that the compiler cannot check. Standard library only.

  check_rooms.py [ROOT]      prints every violation as file:line and exits with 1 when there is one
  check_rooms.py --self-test builds trees with one violation each and checks that it is found

The rules:
  1. A room includes only the rooms in MAY_USE. Composition roots (apps, tests, bench, fuzz) include anything,
     and they alone see a backend.
  2. Tokenizer and formats are seen by the engine only in engine/text*.
  3. CUDA headers appear only in backends/cuda and parallel/nccl, and in tests/cuda and bench/cuda.
  4. No header has a `using namespace`.
  5. Environment variables are read in apps and tests only.
"""

import pathlib
import re
import sys
import tempfile
from dataclasses import dataclass

MAY_USE = {
    "core": set(),
    "quant": {"core"},
    "ops": {"core", "quant"},
    "backends/cpu": {"core", "quant", "ops"},
    "backends/cuda": {"core", "quant", "ops"},
    "formats": {"core", "quant"},
    "jinja": {"core"},
    "tokenizer": {"core", "jinja"},
    "grammar": {"core"},
    "cache": {"core"},
    "observe": {"core"},
    "parallel": {"core", "ops"},
    "models": {"core", "quant", "ops", "formats", "parallel"},
    "engine": {"core", "ops", "models", "cache", "observe", "parallel"},
    "engine/text": {"core", "ops", "models", "cache", "observe", "parallel", "engine", "tokenizer", "formats"},
    "chat": {"core"},
    "http": {"core", "observe"},
    "openai": {"core", "chat", "engine", "engine/text", "grammar", "tokenizer"},
    "anthropic": {"core", "chat", "engine", "openai", "tokenizer"},
    "eval": {"core"},
    "webui": {"core"},
    "hub": {"core"},
    "server": {"core", "chat", "engine", "http", "observe", "openai", "tokenizer", "webui", "anthropic"},
}
ROOTS = ("apps", "tests", "bench", "fuzz")
CUDA_ROOMS = ("backends/cuda/", "parallel/nccl", "tests/cuda/", "bench/cuda/")
SUFFIXES = {".h", ".cc", ".cu", ".cuh", ".inc"}

INCLUDE = re.compile(r'^\s*#\s*include\s+(["<])([^">]+)[">]')
CUDA_HEADER = re.compile(r"^(cuda|cublas|cudnn|curand|cusparse|cusolver|nvrtc|nccl|nvtx|cute/|cutlass/|cub/|thrust/)")
USING_NAMESPACE = re.compile(r"^\s*using\s+namespace\b")
GETENV = re.compile(r"\b(secure_)?getenv\s*\(")


@dataclass(frozen=True)
class Violation:
    path: str
    line: int
    message: str

    def __str__(self):
        return f"{self.path}:{self.line}: {self.message}"


def room_of(inside_src):
    """The room of a path below src/, or None: 'engine/text.cc' -> 'engine/text', 'ops/x.h' -> 'ops'."""
    parts = inside_src.split("/")
    if len(parts) < 2:
        return None
    if parts[0] == "backends":
        return "/".join(parts[:2])
    if parts[0] == "engine" and parts[1].startswith("text"):
        return "engine/text"
    return parts[0]


def edge_message(room, header):
    """What is wrong with a file of `room` including "header", or None. `room` None is a composition root."""
    used = room_of(header)
    if room is None or used is None or used == room or used not in MAY_USE:
        return None
    if used in MAY_USE[room]:
        return None
    allowed = ", ".join(sorted(MAY_USE[room])) or "nothing but the standard library"
    return f'{room} includes "{header}" of {used}; it may include {allowed}'


def check_include(path, room, header):
    problems = [edge_message(room, header)]
    inside_src = path.removeprefix("src/")
    if CUDA_HEADER.match(header) and not inside_src.startswith(CUDA_ROOMS):
        problems.append(f"CUDA header {header} outside backends/cuda and parallel/nccl")
    if room is not None and header.split("/")[0] in ROOTS:
        problems.append(f'"{header}": a room includes a composition root')
    return [problem for problem in problems if problem]


def strip_comments(text):
    """Blanks comments and keeps line numbers. Includes are read before, from the raw line."""
    text = re.sub(r"/\*.*?\*/", lambda match: "\n" * match.group().count("\n"), text, flags=re.S)
    return re.sub(r"//[^\n]*", "", text)


def check_file(root, path):
    text = strip_comments((root / path).read_text(encoding="utf-8"))
    room = room_of(path.removeprefix("src/")) if path.startswith("src/") else None
    if path.startswith("src/") and room not in MAY_USE:
        return [Violation(path, 1, f"room {room} is not in the table of scripts/check_rooms.py")]
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        include = INCLUDE.match(line)
        if include:
            found += [Violation(path, number, problem) for problem in check_include(path, room, include[2])]
        if path.endswith((".h", ".cuh")) and USING_NAMESPACE.match(line):
            found.append(Violation(path, number, "`using namespace` in a header"))
        if GETENV.search(line) and not path.startswith(("apps/", "tests/")):
            found.append(Violation(path, number, "environment variables are read in apps and tests only"))
    return found


def check_tree(root):
    files = sorted(
        path.relative_to(root).as_posix()
        for top in ("src",) + ROOTS
        for path in (root / top).rglob("*")
        if path.suffix in SUFFIXES and path.is_file()
    )
    return len(files), [violation for path in files for violation in check_file(root, path)]


# path, content, whether the checker must object, a word of its message
CASES = [
    ("src/core/a.h", '#include "quant/weight.h"\n', "core includes"),
    ("src/quant/a.h", '#include "core/error.h"\n', None),
    ("src/ops/a.cc", '#include "backends/cpu/cpu_backend.h"\n', "ops includes"),
    ("src/models/a.cc", '#include "backends/cpu/cpu_backend.h"\n', "models includes"),
    ("src/models/a.cc", '#include "formats/checkpoint.h"\n#include "ops/op.h"\n', None),
    ("src/backends/cpu/a.cc", '#include "models/model.h"\n', "backends/cpu includes"),
    ("src/backends/cpu/a.cc", '#include "backends/cpu/matmul.h"\n', None),
    ("src/backends/cpu/a.cc", '#include "backends/cuda/stream.h"\n', "backends/cpu includes"),
    ("src/engine/session.cc", '#include "tokenizer/tokenizer.h"\n', "engine includes"),
    ("src/engine/text.cc", '#include "tokenizer/tokenizer.h"\n#include "engine/session.h"\n', None),
    ("src/engine/text/stop.cc", '#include "formats/json.h"\n', None),
    ("src/eval/a.cc", '#include "engine/session.h"\n', "eval includes"),
    ("src/tokenizer/a.cc", '#include "jinja/value.h"\n#include "models/model.h"\n', "tokenizer includes"),
    ("src/unknown/a.cc", "int a;\n", "not in the table"),
    ("src/core/a.cc", "#include <cuda_runtime.h>\n", "CUDA header"),
    ("src/backends/cuda/a.cu", "#include <cuda_runtime.h>\n", None),
    ("tests/ops/a.cc", "#include <cublas_v2.h>\n", "CUDA header"),
    ("tests/ops/a.cc", '#include "backends/cpu/cpu_backend.h"\n', None),
    ("apps/a.cc", '#include "backends/cpu/cpu_backend.h"\nauto x = std::getenv("HOME");\n', None),
    ("src/engine/a.cc", 'auto x = std::getenv("HOME");\n', "environment"),
    ("src/engine/a.cc", '// std::getenv("HOME")\n/* #include\n"eval/x.h" */\n', None),
    ("src/core/a.h", "using namespace std;\n", "using namespace"),
    ("src/core/a.h", '#include "tests/formats/temp_dir.h"\n', "composition root"),
]


def self_test():
    failures = 0
    for path, content, expected in CASES:
        with tempfile.TemporaryDirectory() as folder:
            target = pathlib.Path(folder) / path
            target.parent.mkdir(parents=True)
            target.write_text(content, encoding="utf-8")
            _, found = check_tree(pathlib.Path(folder))
        good = not found if expected is None else len(found) == 1 and expected in found[0].message
        if not good:
            failures += 1
            print(f"self-test: {path} with {content!r}: expected {expected!r}, found {[str(v) for v in found]}")
    print(f"check_rooms self-test: {len(CASES) - failures} of {len(CASES)} cases right")
    return 1 if failures else 0


def main(arguments):
    if arguments == ["--self-test"]:
        return self_test()
    root = pathlib.Path(arguments[0]) if arguments else pathlib.Path(__file__).resolve().parent.parent
    count, violations = check_tree(root)
    for violation in violations:
        print(violation)
    print(f"check_rooms: {count} files, {len(violations)} violations")
    return 1 if violations or count == 0 else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
