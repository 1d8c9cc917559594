#!/bin/bash
# test_gpu_bars.sh: the GPU kernels at the shape of Qwen3-VL-2B, held to the bars of docs/gpu.md: two of the
# 28 layers, the whole head, one token on gpusim's H100, A100, A10 and T4; on H100 the products of a prompt of 220 rows.
# Layers are equal, so counters and predicted times of the whole follow from these; gpu_bars.py has the bars.
. "$(dirname "$0")/../lib.sh"
sim=build/gpusim/libcuda.so.1
unset VL_CUDA_DRIVER
if [ ! -e $sim ]; then
    skip "$sim is not built (x86-64 only)"
    finish
fi
here=$(dirname "$0")
run python3 "$here/gpu_bars.py" --slice "$tmp/slice.json"
rc 0 "a slice of 2B"
report() { # of one GPU
    run "$VITREOUS" gpu-report --like "$tmp/slice.json" --gpu "$1" --size text --json
    printf '%s\n' "$out" >"$tmp/report.json"
}
report H100
if grep -q "no GPU kernels" <<<"$err"; then
    skip "nvcc was not there: the binary has no GPU kernels"
    finish
fi
rc 0 "gpu-report for H100"
run "$VITREOUS" gpu-report --like "$tmp/slice.json" --gpu H100 --size text --text-tokens 220 --json
rc 0 "gpu-report of a longer prompt"
printf '%s\n' "$out" >"$tmp/prompt.json"
for gpu in H100 A100 A10 T4; do
    prompt=("$tmp/prompt.json")
    [ $gpu = H100 ] || { report $gpu; rc 0 "gpu-report for $gpu"; prompt=(); }
    run python3 "$here/gpu_bars.py" "$tmp/report.json" "${prompt[@]}"
    rc 0 "every bar on $gpu: $out"
done
finish
