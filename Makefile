# Thin names for the commands one types most; everything they do is in CMake, ctest and scripts/.

JOBS ?= $(shell nproc)
PROMPT ?= What is 47 * 36?
FUZZ_SECONDS ?= 60
MINIMAX := build/release/bin/minimax
CLANG_FORMAT ?= clang-format
SOURCES = git ls-files '*.h' '*.cc' '*.cu' '*.cuh'

ifneq (,$(shell command -v ccache))
export CMAKE_CXX_COMPILER_LAUNCHER ?= ccache
endif

.DEFAULT_GOAL := help
.PHONY: help run build test bench format format-check rooms tidy asan tsan fuzz fuzz-build clean deps deps-test deps-dev

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(firstword $(MAKEFILE_LIST)) | \
	  awk -F ':.*## ' '{ printf "  make %-13s %s\n", $$1, $$2 }'

run: build  ## install what is missing, build, and let the bundled demo model answer (PROMPT="...")
	$(MINIMAX) run --model models/demo-m1 --temperature 0 --prompt "$(PROMPT)"

build: deps  ## leave the executable at build/release/bin/minimax
	cmake --preset release >/dev/null
	cmake --build --preset release --target minimax -j $(JOBS)

test: deps-test  ## build everything in release and run all tests
	cmake --preset release >/dev/null
	cmake --build --preset release -j $(JOBS)
	ctest --test-dir build/release --output-on-failure -j $(JOBS)

bench: deps  ## benchmark every op against its reference
	cmake --preset release >/dev/null
	cmake --build --preset release -j $(JOBS)
	@for bench in build/release/bin/*_bench; do \
	  [ -x "$$bench" ] || { echo "no benchmarks yet"; break; }; "$$bench" || exit 1; done

format:  ## rewrite the sources in the house format
	$(SOURCES) | xargs $(CLANG_FORMAT) -i

format-check:  ## fail when a source is not in the house format
	$(SOURCES) | xargs $(CLANG_FORMAT) --dry-run -Werror

rooms:  ## check which room includes which
	python3 scripts/check_rooms.py

tidy: deps-dev  ## run clang-tidy with the set in .clang-tidy (FILES="src/a.cc ..." for some files)
	scripts/run_tidy.sh $(FILES)

asan: deps-test  ## build with the address and undefined-behaviour sanitizers, run all tests
	scripts/run_sanitized.sh asan -j $(JOBS)

tsan: deps-test  ## build with the thread sanitizer, run the tests of threaded code
	scripts/run_sanitized.sh tsan -j $(JOBS)

fuzz: fuzz-build  ## run every fuzzer for FUZZ_SECONDS (60) from its seeds
	scripts/run_fuzzers.sh $(FUZZ_SECONDS)

fuzz-build: deps-dev  ## build the fuzzers with clang
	cmake --preset fuzz >/dev/null
	cmake --build --preset fuzz -j $(JOBS)

deps:  ## install the packages a build needs
	@scripts/install-deps.sh

deps-test:  ## ... and what the tests need
	@scripts/install-deps.sh --test

deps-dev:  ## ... and clang, its tools and runtimes
	@scripts/install-deps.sh --dev

clean:  ## remove every build folder
	rm -rf build
