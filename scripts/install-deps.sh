#!/usr/bin/env bash
# Installs what a build needs, by name, from Debian 12 and PyPI. Safe to run again: a second run only looks.
#
#   install-deps.sh          to build and run (compiler, CMake, libraries)
#   install-deps.sh --test   the above, and a Python environment in .venv for the tests' oracles
#   install-deps.sh --dev    the above, and clang, its sanitizer runtimes, clang-format and clang-tidy
set -euo pipefail

REPO="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
readonly REPO
readonly REQUIREMENTS="$REPO/scripts/requirements-test.txt"
readonly VENV="$REPO/.venv"

readonly RUN_PACKAGES=(
  g++ cmake ninja-build pkg-config make git ca-certificates
  libfmt-dev nlohmann-json3-dev libhwy-dev libpcre2-dev libcli11-dev libedit-dev libspdlog-dev prometheus-cpp-dev
  libcurl4-openssl-dev libssl-dev libboost-dev
  libgtest-dev libbenchmark-dev
)
readonly TEST_PACKAGES=(python3 python3-venv chromium openssl)
readonly DEV_PACKAGES=(clang clang-format clang-tidy lld libclang-rt-14-dev)

say() { echo "install-deps: $*"; }
die() { echo "install-deps: $*" >&2; exit 1; }

is_debian() { command -v apt-get >/dev/null && command -v dpkg-query >/dev/null; }

# Prints those of its arguments that dpkg does not know as installed.
missing_packages() {
  local package
  for package in "$@"; do
    dpkg-query -W -f='${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || echo "$package"
  done
}

install_packages() {
  local missing as_root=()
  mapfile -t missing < <(missing_packages "$@")
  if [ "${#missing[@]}" -eq 0 ]; then
    say "all $# Debian packages are there"
    return
  fi
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || die "not root and no sudo; as root, run: apt-get install ${missing[*]}"
    as_root=(sudo)
  fi
  say "installing ${#missing[@]} of $# Debian packages: ${missing[*]}"
  "${as_root[@]}" apt-get -q -o Acquire::Retries=3 update
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Acquire::Retries=3 \
    -o Dpkg::Use-Pty=0 install --no-install-recommends "${missing[@]}"
}

# Without apt nothing can be installed here; the build may still work when the tools and libraries exist.
check_without_apt() {
  local missing=() tool library
  for tool in g++ cmake ninja make pkg-config; do
    command -v "$tool" >/dev/null || missing+=("$tool")
  done
  if command -v pkg-config >/dev/null; then
    for library in fmt nlohmann_json libhwy libpcre2-8 CLI11 libedit spdlog prometheus-cpp-core libcurl libcrypto libssl gtest benchmark; do
      pkg-config --exists "$library" || missing+=("$library")
    done
  fi
  # Boost's headers come without a pkg-config file.
  echo '#include <boost/beast/http.hpp>' | "${CXX:-c++}" -xc++ -std=c++20 -fsyntax-only - 2>/dev/null || missing+=(boost)
  [ "${#missing[@]}" -eq 0 ] || die "this system has no apt and lacks: ${missing[*]}. Install them with its" \
    "own package manager (on Debian 12 they are: ${RUN_PACKAGES[*]}) and run this again"
  say "no apt here; the tools and libraries of a build were found"
}

install_python_packages() {
  local python=/usr/bin/python3
  if cmp -s "$REQUIREMENTS" "$VENV/installed-requirements.txt"; then
    say "the Python packages of the tests are there"
    return
  fi
  [ -x "$python" ] || python="$(command -v python3)" || die "python3 was not found"
  say "installing into .venv: $(grep -v '^#' "$REQUIREMENTS" | tr '\n' ' ')"
  "$python" -m venv "$VENV"
  "$VENV/bin/python3" -m pip install --quiet --disable-pip-version-check --retries 3 -r "$REQUIREMENTS"
  cp "$REQUIREMENTS" "$VENV/installed-requirements.txt"
}

main() {
  local with_test=false packages=("${RUN_PACKAGES[@]}")
  case "${1:-}" in
    "") ;;
    --test) with_test=true; packages+=("${TEST_PACKAGES[@]}") ;;
    --dev) with_test=true; packages+=("${TEST_PACKAGES[@]}" "${DEV_PACKAGES[@]}") ;;
    *) die "unknown argument '$1'; use nothing, --test or --dev" ;;
  esac
  if is_debian; then
    install_packages "${packages[@]}"
  else
    check_without_apt
  fi
  if $with_test; then install_python_packages; fi
}

main "$@"
