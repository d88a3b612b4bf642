#!/usr/bin/env bash
# run_sanitized.sh asan|tsan [ctest arguments]: builds a sanitizer preset and runs its tests.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly PRESET="${1:?asan or tsan}"
shift
JOBS="$(nproc)"
RUN=()
case "$PRESET" in
  # Tests labelled no_sanitizer measure the process itself (its peak memory), which a sanitizer changes, or run
  # trained models for many minutes through code that the parity and engine tests have had sanitized.
  asan) SELECT=(-LE no_sanitizer) ;;
  # Most rooms use no thread; "slow" tests repeat the same code with more data, and the tests of products and attention
  # run the same thread pool over more shapes than the models do.
  tsan)
    WITHOUT_THREADS='jinja|tokenizer|chat_|grammar|^core_test|quant|safetensors|cache_test|parts_test|sampling|partition'
    WITHOUT_THREADS+='|_config_test|scheduler|openai_stream|anthropic|eval|webui'
    SELECT=(-LE 'slow|no_sanitizer|python' -E "$WITHOUT_THREADS|^dense_test|attention_test")
    # The thread sanitizer of GCC 12 does not start where the kernel randomises addresses with many bits.
    if setarch "$(uname -m)" -R true 2>/dev/null; then RUN=(setarch "$(uname -m)" -R); fi ;;
  *) echo "run_sanitized.sh: unknown preset $PRESET" >&2; exit 1 ;;
esac

export ASAN_OPTIONS="${ASAN_OPTIONS:-detect_stack_use_after_return=1:strict_string_checks=1}"
export UBSAN_OPTIONS="${UBSAN_OPTIONS:-print_stacktrace=1}"
export TSAN_OPTIONS="${TSAN_OPTIONS:-halt_on_error=1:second_deadlock_stack=1}"

cmake --preset "$PRESET" >/dev/null
mapfile -t -d ' ' TARGETS < <(scripts/test_targets.py "build/$PRESET" "${SELECT[@]}" | tr -d '\n')
cmake --build --preset "$PRESET" -j "$JOBS" --target "${TARGETS[@]}"
"${RUN[@]}" ctest --test-dir "build/$PRESET" --output-on-failure "${SELECT[@]}" "$@"
