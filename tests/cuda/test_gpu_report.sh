#!/bin/bash
# test_gpu_report.sh: `vitreous gpu-report` on the demo model: its forms, its label, and that counting
# equal launches by the first of them gives the counters of running them all.
. "$(dirname "$0")/../lib.sh"
sim=build/gpusim/libcuda.so.1
unset VL_CUDA_DRIVER
if [ ! -e $sim ]; then
    skip "$sim is not built (x86-64 only)"
    finish
fi
run "$VITREOUS" gpu-report --gpu T4 --size 64x64 --html "$tmp/report.html"
if grep -q "no GPU kernels" <<<"$err"; then
    skip "nvcc was not there: the binary has no GPU kernels"
    finish
fi
rc 0 "text and HTML"
has "labelled" "predicted \(gpusim model v[0-9]+\)"
has "says that nothing was measured" "Nothing was measured on a GPU"
has "states its assumptions" "A launch costs .* us from a stream"
has "a row for each stage" "^T4 +prefill +[0-9]+ "
has "a table for each stage" "^== T4_decode"
check "the page has the tables" grep -q '<table id="T4_encode">' "$tmp/report.html"
check "the page has plots" [ "$(grep -o '<svg' "$tmp/report.html" | wc -l)" -ge 3 ]
run "$VITREOUS" gpu-report --gpu T4 --size text --md
rc 0 "Markdown, without a picture"
has "Markdown" '^\| gpu \| stage'
run "$VITREOUS" gpu-report --gpu V100
rc 2 "unknown device"
errs "names the known ones" "T4, A10, A100, H100, RTX4090 or B200"
run env VL_CUDA_DRIVER=/nowhere "$VITREOUS" gpu-report --gpu T4
rc 3 "no driver"

"$VITREOUS" gpu-report --gpu H100 --size 64x64 --json >"$tmp/once.json" 2>"$tmp/err"
"$VITREOUS" gpu-report --gpu H100 --size 64x64 --json --every-launch >"$tmp/every.json" 2>>"$tmp/err"
cat >"$tmp/same.py" <<'PY'
import json, sys
# Of the L2 only what the first of the equal launches found there is known; times follow from it.
CACHE = {"l2_hits", "l2_misses", "dram_bytes", "predicted_us", "roof_us", "limiter"}
once, every = (json.load(open(p))["gpus"][0]["stages"] for p in sys.argv[1:])
assert [s["stage"] for s in once] == ["encode", "prefill", "decode"], once
for a, b in zip(once, every):
    assert len(a["kernels"]) == len(b["kernels"]) > 5
    assert a["launches"] == b["launches"] > 20
    for x, y in zip(a["kernels"], b["kernels"]):
        for key in set(x) - CACHE:
            assert x[key] == y[key], (a["stage"], x["kernel"], key, x[key], y[key])
    assert abs(a["predicted_us"] / b["predicted_us"] - 1) < 0.02, (a["predicted_us"], b["predicted_us"])
PY
check "counted once equals run every time" python3 "$tmp/same.py" "$tmp/once.json" "$tmp/every.json"
finish
