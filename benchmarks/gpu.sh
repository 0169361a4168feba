#!/usr/bin/env bash
# Builds the GPU kernels for the GPUs of this machine, checks them there and times them against gsplat.
#
#   bash benchmarks/gpu.sh [--dry-run] [STAGE ...]
#
# Stages, by default all but the last: build, tests, memcheck, racecheck, times, quality (three trainings of chair).
# They can be run one by one, each in a few minutes on an H200: what they find is gathered in one JSON file.
#
# PYTHON (python3) must hold torch with CUDA, numpy, scipy, pillow, pytest, hypothesis, tyro, pyyaml, rich,
# scikit-build-core, nanobind, cmake, ninja and gsplat; nvcc must be at hand. SPLAT_DATA names the folder with garden
# and chair, OUT the folder for the JSON (benchmarks/results).
# Every check runs whatever became of the others; the script fails if one did. --dry-run goes through the script where
# there is no GPU, with the emulated kernels in its place, and keeps nothing.
set -uo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
export PATH="$PATH:/usr/local/cuda/bin"
log=$(mktemp -d)
trap 'rm -rf "$log"' EXIT
dry=()
if [ "${1:-}" = --dry-run ]; then
  dry=(--dry-run)
  shift
fi
stages=("$@")
[ ${#stages[@]} -gt 0 ] || stages=(build tests memcheck racecheck times)
checks=()
failed=0

say() { printf '\n== %s (%s s)\n' "$*" "$SECONDS"; }
gpu_py() {
  local out=()
  [ -z "${OUT:-}" ] || out=(--out "$OUT/gpu.json")
  "$python" benchmarks/gpu.py "${dry[@]}" "${out[@]}" "${checks[@]}" "$@"
  local status=$?
  checks=()
  return "$status"
}
# keep NAME OUTCOME: for the JSON.
keep() { checks+=(--check "$1=$2"); }
# judge NAME STATUS
judge() {
  if [ "$2" = 0 ]; then
    keep "$1" passed
  else
    keep "$1" "failed ($2)"
    failed=1
  fi
}
# sanitize TOOL: small steps under compute-sanitizer, which some virtual machines do not let at the device.
sanitize() {
  local run=(compute-sanitizer --tool "$1" --error-exitcode 9)
  [ ${#dry[@]} = 0 ] || run=(env)
  if ! command -v "${run[0]}" >/dev/null; then
    keep "$1" "not run: no compute-sanitizer"
    return
  fi
  timeout 550 "${run[@]}" "$python" benchmarks/gpu.py "${dry[@]}" --smoke 2>&1 | tee "$log/$1"
  local status=${PIPESTATUS[0]}
  if grep -q 'Device not supported' "$log/$1"; then
    keep "$1" "not run: compute-sanitizer does not support this machine"
  else
    judge "$1" "$status"
  fi
}

if [ ${#dry[@]} = 0 ]; then
  "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || {
    echo "gpu.sh: $python finds no NVIDIA GPU: nothing was built, checked or measured" >&2
    exit 4
  }
  nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.mem --format=csv
fi
for stage in "${stages[@]}"; do
  say "$stage"
  case $stage in
    build)
      if [ ${#dry[@]} = 0 ]; then
        "$python" -m pip install -q --no-deps --no-build-isolation -e . || exit 1
      fi
      "$python" -m splat doctor
      ;;
    tests)
      # No test is marked for a GPU and runs without one: a dry run sees that they are there.
      "$python" -m pytest -q -m cuda tests/raster tests/training ${dry:+--collect-only}
      judge tests $?
      ;;
    memcheck | racecheck) sanitize "$stage" ;;
    times) gpu_py || failed=1 ;;
    quality)
      steps=()
      [ ${#dry[@]} = 0 ] || steps=(--steps 2)
      gpu_py --scenes --quality "${steps[@]}" || failed=1
      ;;
    *)
      echo "gpu.sh: no stage is called $stage: build, tests, memcheck, racecheck, times, quality" >&2
      exit 2
      ;;
  esac
done
[ ${#checks[@]} = 0 ] || gpu_py --scenes >/dev/null || failed=1
say done
exit "$failed"
