#!/usr/bin/env bash
# run_tidy.sh [FILE...]: clang-tidy over the files given, or over every .cc of src/ and apps/ but the ones that
# Highway compiles once per instruction set: clang-tidy would analyse each of those five times over.
#
# Most of its time goes into headers. Over everything, rooms whose files may be compiled together (UNITY in their
# CMakeLists.txt) are therefore looked at as one file each.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly BUILD=build/release
readonly TOGETHER=build/tidy
# The compile commands are GCC's: clang does not know all of its -W options.
readonly TIDY=(clang-tidy --quiet --extra-arg=-Wno-unknown-warning-option)
[ -f "$BUILD/compile_commands.json" ] || cmake --preset release >/dev/null

tidy_each() {
  xargs -0 -n 1 -P "$(nproc)" "${TIDY[@]}" "$@"
}

if [ "$#" -gt 0 ]; then
  echo "clang-tidy: $# files"
  printf '%s\0' "$@" | tidy_each -p "$BUILD"
  exit
fi

cmake --preset release -B "$TOGETHER" -DMINIMAX_UNITY=ON -DCMAKE_UNITY_BUILD_BATCH_SIZE=0 -DMINIMAX_BUILD_TESTS=OFF \
  -DMINIMAX_BUILD_BENCH=OFF >/dev/null
mapfile -t unities < <(find "$TOGETHER/src" -name 'unity_*.cxx' | sort)
mapfile -t files < <(comm -23 \
  <(git ls-files 'src/*.cc' 'apps/*.cc' | xargs grep -LE 'foreach_target\.h|immintrin\.h' | sort) \
  <(cat "${unities[@]}" | sed -n "s|^#include \"$PWD/\(.*\)\"|\1|p" | sort))
echo "clang-tidy: ${#files[@]} files and ${#unities[@]} rooms"
printf '%s\0' "${unities[@]}" | tidy_each -p "$TOGETHER" --config-file=.clang-tidy \
  --checks=-bugprone-suspicious-include --header-filter='(src|apps)/.*\.(h|cc)$'
printf '%s\0' "${files[@]}" | tidy_each -p "$BUILD"
