#!/usr/bin/env bash
# run_compute_sanitizer.sh memcheck|racecheck|initcheck|synccheck [n] [directory of test programs]
#
# Every kernel of the ops under NVIDIA's checkers, on one of n of the tests' small shapes (default 11): needs a GPU and a
# build with CUDA (make build). Cases run side by side; fails if any case fails or reports anything.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

TOOL="${1:?memcheck, racecheck, initcheck or synccheck}"
export TOOL MINIMAX_TEST_EVERY="${2:-11}" PROGRAMS="${3:-build/release/bin}"
export LIMIT="${LIMIT:-600}"
readonly TESTS=(dense_test attention_test sparse_attention_test parts_test)

list_cases() {
  for test in "${TESTS[@]}"; do
    # Sequences of a million tokens are no small shapes.
    "$PROGRAMS/$test" --gtest_list_tests |
      awk -v test="$test" '/^[^ ]/ {suite = $1} /^  / {print test, suite $1}' |
      grep -E '^[a-z_]+ [A-Z]' | grep -vE 'Million|AnyBatchOnAnyNumberOfThreads|Doors\.|Refuses'
  done
}
run_case() {
  local log
  log="$(mktemp)"
  local status=0
  timeout "$LIMIT" compute-sanitizer --tool "$TOOL" --error-exitcode 9 "$PROGRAMS/$1" --gtest_brief=1 \
    --gtest_filter="$2" >"$log" 2>&1 || status=$?
  if [[ "$status" == 0 ]]; then
    echo "$TOOL $1 $2: passed"
  elif grep -q 'terminated before first instrumented API call' "$log" && ! grep -q 'FAILED' "$log"; then
    echo "$TOOL $1 $2: nothing ran on the device"
  else
    # A report repeats for every thread; the first says what.
    echo "$TOOL $1 $2: status $status"$'\n'"$(grep -aE '=========|Failure|Error' "$log" | head -n 40)"
    rm -f "$log"
    return 1
  fi
  rm -f "$log"
}
export -f run_case

list_cases | xargs -P "$(nproc)" -L 1 bash -c 'run_case "$0" "$1"'
