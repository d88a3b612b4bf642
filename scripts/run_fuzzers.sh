#!/usr/bin/env bash
# run_fuzzers.sh [SECONDS] [NAME...]: runs every built fuzzer (or those named) from its seeds in fuzz/seeds.
# What a run discovers stays in build/fuzz/corpus; an input that fails is left in build/fuzz/findings.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly SECONDS_EACH="${1:-60}"
shift || true
readonly BIN=build/fuzz/bin
names=("$@")
if [ "${#names[@]}" -eq 0 ]; then
  for path in "$BIN"/fuzz_*; do names+=("$(basename "$path")"); done
fi
[ -x "$BIN/${names[0]}" ] || { echo "run_fuzzers.sh: no fuzzers in $BIN; run: make fuzz-build" >&2; exit 1; }

for name in "${names[@]}"; do
  corpus="build/fuzz/corpus/$name"
  seeds="fuzz/seeds/$name"
  mkdir -p "$corpus" "$seeds" build/fuzz/findings
  log="build/fuzz/$name.log"
  dictionary=()
  if [ -f "fuzz/$name.dict" ]; then dictionary=(-dict="fuzz/$name.dict"); fi
  echo "== $name, $SECONDS_EACH s, $(find "$seeds" -type f | wc -l) seeds"
  if ! "$BIN/$name" -max_total_time="$SECONDS_EACH" -timeout=25 -rss_limit_mb=4096 -print_final_stats=1 \
      "${dictionary[@]}" -artifact_prefix="build/fuzz/findings/$name-" "$corpus" "$seeds" >"$log" 2>&1; then
    tail -60 "$log"
    echo "run_fuzzers.sh: $name failed; its input is in build/fuzz/findings" >&2
    exit 1
  fi
  grep -E '^(Done|stat::number_of_executed_units|stat::average_exec_per_sec)' "$log"
done
