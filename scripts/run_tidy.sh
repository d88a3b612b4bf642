#!/usr/bin/env bash
# run_tidy.sh [FILE...]: clang-tidy over the files given, or over every .cc of src/ and apps/ but the ones that
# Highway compiles once per instruction set: clang-tidy would analyse each of those five times over.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly BUILD=build/release
[ -f "$BUILD/compile_commands.json" ] || cmake --preset release >/dev/null

files=("$@")
if [ "${#files[@]}" -eq 0 ]; then
  mapfile -t files < <(git ls-files 'src/*.cc' 'apps/*.cc' | xargs grep -LE 'foreach_target\.h|immintrin\.h')
fi
# The compile commands are GCC's: clang does not know all of its -W options.
echo "clang-tidy: ${#files[@]} files"
printf '%s\0' "${files[@]}" | xargs -0 -n 1 -P "$(nproc)" clang-tidy -p "$BUILD" --quiet \
  --extra-arg=-Wno-unknown-warning-option
