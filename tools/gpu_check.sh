#!/bin/bash
# gpu_check.sh BUILD: everything that is to be seen on a real GPU, into BUILD/gpu-check.txt: what the
# machine is, every op against double code, all goldens, memory and race checks by compute-sanitizer
# (when it is installed), times. Exit code 1: something failed. VL_CUDA_DRIVER unset means the real one.
set -u
cd "$(dirname "$0")/.." || exit 2
build=$1 report=$1/gpu-check.txt failed=0
export VL_CUDA_DRIVER=${VL_CUDA_DRIVER:-libcuda.so.1}
: >"$report"

step() { # name, command...
    local name=$1
    shift
    printf '\n== %s\n' "$name" | tee -a "$report"
    if "$@" >"$build/gpu-check.step" 2>&1; then
        tail -25 "$build/gpu-check.step" | tee -a "$report"
    else
        tail -60 "$build/gpu-check.step" | tee -a "$report"
        echo "FAILED: $name" | tee -a "$report"
        failed=1
    fi
}

if ! "$build/vitreous" verify --golden tests/golden/cases --only std-tiny --backend cuda; then
    echo "gpu-check: no GPU can be used (above)"
    exit 1
fi
if command -v nvidia-smi >/dev/null; then step "machine" nvidia-smi; fi
step "ops" "$build/tests/cuda/test_cuda_ops" --here
step "goldens" "$build/vitreous" verify --golden tests/golden/cases --backend cuda
# Several GPUs give the bits of one, over the real NCCL.
digests() { "$build/vitreous" verify --golden tests/golden/cases --backend cuda --gpus "$1" --json --only std,shards,demo |
            grep -oE '"digest": *"[0-9a-f]{64}"'; }
as_one() { digests 1 >"$build/gpu-check.one" && digests "$1" | diff "$build/gpu-check.one" - && echo "$1 GPUs: the bits of one"; }
gpus=$(nvidia-smi -L 2>/dev/null | grep -c '^GPU')
for n in 2 4; do
    if [ "$gpus" -ge $n ]; then step "$n GPUs" as_one $n
    else echo "$gpus GPUs are here: --gpus $n left out" | tee -a "$report"; fi
done
if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck initcheck synccheck; do
        step "compute-sanitizer $tool" compute-sanitizer --tool $tool --error-exitcode 1 \
            "$build/vitreous" verify --golden tests/golden/cases --only std-tiny,odd-three --backend cuda
    done
else
    echo "compute-sanitizer is not installed: memory and race checks left out" | tee -a "$report"
fi
step "bench" "$build/vitreous" bench --backend cuda --size 448x448
# The same stages as gpusim predicts them, to be held against the bench above.
if [ -e build/gpusim/libcuda.so.1 ]; then
    step "predicted" sh -c "VL_CUDA_DRIVER= '$build/vitreous' gpu-report --size 448x448 | sed -n '/^== Stages/,/^== [A-Z0-9]*_/p'"
else
    echo "gpusim is not built (x86-64 only): no prediction to compare with" | tee -a "$report"
fi
step "machine code" python3 tests/cuda/test_sass.py
echo "report: $report"
exit $failed
