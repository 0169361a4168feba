#!/usr/bin/env bash
# Makes a Python environment with everything Splat, its demo and its tests need, and builds the native module.
#
#   PYTHON=python3 bash scripts/setup.sh .venv
#
# Safe to run again: what is there already is kept. Where something cannot be installed from here (no root,
# no apt), the command that does it is printed and the script stops, or goes on if only a part suffers.
set -euo pipefail

venv=${1:?usage: setup.sh FOLDER}
python=${PYTHON:-python3}
torch_version=$(sed -n 's/^torch==\([0-9.]*\).*/\1/p' constraints.txt)
torch_cpu_index=https://download.pytorch.org/whl/cpu

say() { printf '\033[1m== %s\033[0m\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

# --- system packages -------------------------------------------------------------------------------------

missing=()
find_compiler() { command -v "${CXX:-c++}" || command -v g++ || command -v clang++; }
find_compiler >/dev/null || missing+=(g++)
if [ "$(uname -s)" = Linux ]; then
  # open3d's wheel loads libusb-1.0 when imported; Python looks libraries up in the linker's cache.
  ldconfig=$(command -v ldconfig || echo /sbin/ldconfig)
  "$ldconfig" -p 2>/dev/null | grep -q 'libusb-1\.0\.so' || missing+=(libusb-1.0-0)
  # The tests in a real browser; without it they are skipped.
  command -v npm >/dev/null || missing+=(nodejs npm)
  command -v chromium chromium-browser google-chrome google-chrome-stable >/dev/null || missing+=(chromium)
fi
"$python" -c 'import ensurepip, venv' 2>/dev/null || { command -v apt-get >/dev/null && missing+=(python3-venv); }

if [ ${#missing[@]} -gt 0 ]; then
  install="apt-get install -y --no-install-recommends ${missing[*]}"
  if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    say "System packages: ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq && $install -qq >/dev/null || echo "setup: this failed: $install" >&2
  elif command -v apt-get >/dev/null; then
    echo "setup: system packages are missing; install them with: sudo $install" >&2
  else
    echo "setup: install these (names as on Debian) with the system's package manager: ${missing[*]}" >&2
  fi
fi
find_compiler >/dev/null || fail "no C++ compiler: install g++ 11 or later, or clang 14 or later, and run make again"

# --- the environment -------------------------------------------------------------------------------------

command -v "$python" >/dev/null || fail "no $python: install Python 3.10 or later, or name one: make PYTHON=python3.12"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
  fail "$("$python" --version) is too old: Splat needs 3.10 or later; name one: make PYTHON=python3.12"

if [ ! -x "$venv/bin/python" ]; then
  say "Environment in $venv ($("$python" --version))"
  "$python" -m venv "$venv"
fi
pip=("$venv/bin/python" -m pip --disable-pip-version-check -qq)

# --- torch -----------------------------------------------------------------------------------------------

has_torch() {
  "$venv/bin/python" -c 'import sys
from importlib.metadata import version
sys.exit(version("torch").split("+")[0] != sys.argv[1])' "$torch_version" 2>/dev/null
}

# The builds differ on Linux only: PyPI's needs some GB of CUDA libraries, the CPU build is at PyTorch's own
# index, unless pip is configured with a place that holds it.
install_torch() {
  if [ "$(uname -s)" = Linux ] && ! nvidia-smi -L >/dev/null 2>&1; then
    say "PyTorch $torch_version for the CPU (no NVIDIA GPU found)"
    local cpu="torch==$torch_version+cpu" quick=(--retries 1 --timeout 20)
    "${pip[@]}" install "${quick[@]}" -c constraints.txt "$cpu" 2>/dev/null && return
    "${pip[@]}" install "${quick[@]}" -c constraints.txt --extra-index-url "$torch_cpu_index" "$cpu" && return
    echo "setup: no CPU build of PyTorch within reach; the default build follows (larger, it works as well)" >&2
  else
    say "PyTorch $torch_version"
  fi
  "${pip[@]}" install -c constraints.txt "torch==$torch_version"
}
has_torch || install_torch

# --- Splat -----------------------------------------------------------------------------------------------

say "Build tools and dependencies"
"${pip[@]}" install -c constraints.txt scikit-build-core nanobind cmake ninja
say "Splat, with its native module ($(find_compiler))"
# No build isolation: the pinned tools above build it. The native module is built in build/, again only
# where sources changed.
PATH="$PWD/$venv/bin:$PATH" "${pip[@]}" install -c constraints.txt --no-build-isolation -e '.[dev]' ||
  fail "the installation failed; 'splat doctor' and README.md (Troubleshooting) may help"
# The example plugin, as a distribution of its own: the tests use it as its users would.
"${pip[@]}" install -c constraints.txt --no-build-isolation --no-deps -e examples/ges
# Other people's readers and writers of splat files, which tests/conformance compares with; without them those
# tests are skipped. Versions and hashes are in package-lock.json.
peers=tests/conformance
if [ -f "$peers/package-lock.json" ] && [ "$peers/package-lock.json" -nt "$peers/node_modules/.package-lock.json" ]; then
  if command -v npm >/dev/null; then
    say "Node packages for the conformance tests"
    (cd "$peers" && npm ci --no-audit --no-fund --ignore-scripts --loglevel=error) &&
      touch "$peers/node_modules/.package-lock.json" ||
      echo "setup: the conformance tests lack their Node packages; install them with: (cd $peers && npm ci)" >&2
  else
    echo "setup: no npm: tests that compare with Node's readers are skipped; install Node 18 or later and run again" >&2
  fi
fi
"$venv/bin/python" -c 'import splat._native' || fail "the native module was built but does not load (see above)"
say "Ready: $venv/bin/splat"
