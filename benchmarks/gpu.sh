#!/usr/bin/env bash
# Builds the GPU kernels for the GPUs of this machine, checks them there and times them, in one go: half an hour
# on an H200 suffices (without --quality).
#
#   bash benchmarks/gpu.sh [options of benchmarks/gpu.py]
#
# PYTHON (python3) must hold torch with CUDA, numpy, scipy, pytest, hypothesis, tyro, pyyaml, scikit-build-core,
# nanobind, cmake, ninja and gsplat; nvcc must be at hand. SPLAT_DATA names the folder with garden (and chair).
# Every check runs whatever became of the others; the script fails if one did.
set -uo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
export PATH="$PATH:/usr/local/cuda/bin"
log=$(mktemp -d)
checks=()
failed=0

say() { printf '\n== %s\n' "$*"; }
# keep NAME STATUS: the outcome for the JSON.
keep() {
  if [ "$2" = 0 ]; then
    checks+=(--check "$1=passed")
  else
    checks+=(--check "$1=failed ($2)")
    failed=1
  fi
}
# sanitize TOOL: a small step under compute-sanitizer, which some virtual machines do not let at the device.
sanitize() {
  say "$1"
  if ! command -v compute-sanitizer >/dev/null; then
    checks+=(--check "$1=not run: no compute-sanitizer")
    return
  fi
  timeout 600 compute-sanitizer --tool "$1" --error-exitcode 9 "$python" benchmarks/gpu.py --smoke 2>&1 | tee "$log/$1"
  local status=${PIPESTATUS[0]}
  if grep -q 'Device not supported' "$log/$1"; then
    checks+=(--check "$1=not run: compute-sanitizer does not support this machine")
  else
    keep "$1" "$status"
  fi
}

"$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || {
  echo "gpu.sh: $python finds no NVIDIA GPU: nothing was built, checked or measured" >&2
  exit 4
}
nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.mem --format=csv

say "build"
"$python" -m pip install -q --no-deps --no-build-isolation -e . || exit 1
"$python" -m splat doctor
say "tests"
"$python" -m pytest -q -m cuda
keep tests $?
sanitize memcheck
sanitize racecheck
say "times"
"$python" benchmarks/gpu.py "${checks[@]}" "$@" || failed=1
exit "$failed"
