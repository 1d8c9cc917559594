#!/bin/bash
# test_cuda.sh: `--backend cuda` as a whole, on gpusim: goldens on every embedded PTX level with all of
# its checks on, the same bits in every order of blocks and for every schedule, and what is said when
# something is missing. Skipped, with the reason, where kernels or gpusim were not built.
. "$(dirname "$0")/../lib.sh"
cases=tests/golden/cases
question=(run -m tests/golden/models/std -i tests/golden/images/pic-scene.jpg -p "What is it?" -n 2)
sim=build/gpusim/libcuda.so.1

# ---- what is missing -----------------------------------------------------------------------------
run env VL_CUDA_DRIVER=/nowhere/libcuda.so "$VITREOUS" "${question[@]}" --backend cuda
rc 3 "no driver"
errs "says what is missing" "no GPU kernels|no CUDA driver.*/nowhere"
run env VL_CUDA_DRIVER=/nowhere/libcuda.so "$VITREOUS" "${question[@]}" --backend auto
rc 0 "auto without a driver"
errs "auto says what it took" "backend: cpu"
if grep -q "no GPU kernels" <<<"$("$VITREOUS" "${question[@]}" --backend cuda 2>&1)"; then
    skip "nvcc was not there: the binary has no GPU kernels"
    finish
elif [ ! -e $sim ]; then
    skip "$sim is not built (x86-64 only)"
    finish
fi
export VL_CUDA_DRIVER=$PWD/$sim GPUSIM_EXIT=9
run "$VITREOUS" "${question[@]}" --backend cuda --dtype exact
rc 3 "exact on the GPU"
errs "bf16 only" "computes in bf16"
export VL_CUBLAS=$PWD/build/gpusim/libcublas.so.13
run env VL_KERNEL=gemm=cublas VL_CUBLAS=/nowhere/libcublas.so "$VITREOUS" "${question[@]}" --backend cuda
rc 3 "no cuBLAS"
errs "says what is missing and what to do" "/nowhere/libcublas.so.*leave gemm=cublas out"
run env VL_KERNEL=gemm=cublas "VL_CUBLAS=$VL_CUDA_DRIVER" "$VITREOUS" "${question[@]}" --backend cuda
rc 3 "another library"
errs "names the function" "has no cublasCreate_v2"
run env VL_KERNEL=gemm=mine "$VITREOUS" "${question[@]}" --backend cuda
rc 2 "unknown product"
errs "names the two" "gemm=own and gemm=cublas"
run env VL_KERNEL=gemm=cublas GPUSIM_DEVICE=T4 "$VITREOUS" "${question[@]}" --backend cuda
rc 3 "cuBLAS without bf16 units"
errs "says so" "no bf16 units"
run env GPUSIM_PTX=60 GPUSIM_EXIT=0 "$VITREOUS" "${question[@]}" --backend cuda
rc 3 "no code for the device"
errs "names the step" "loading the kernels"

# ---- what does not fit ---------------------------------------------------------------------------
run env GPUSIM_MEMORY=100 GPUSIM_EXIT=0 "$VITREOUS" "${question[@]}" --backend cuda
rc 3 "no room for the weights"
errs "needs, has" "the weights need [0-9]+ MiB, the GPU has 0 MiB free"
run env GPUSIM_MEMORY=400 GPUSIM_EXIT=0 "$VITREOUS" run -m tests/golden/models/std -p Hi -n 100000 --backend cuda
rc 3 "no room for the context"
errs "needs, has, what fits" "a context of 100032 tokens needs 39[0-9] MiB, the GPU has 17[0-9] MiB free: at most 4[0-9]+ tokens fit"
fits=$(grep -oE "at most [0-9]+" <<<"$err" | grep -oE "[0-9]+")
run env GPUSIM_MEMORY=400 GPUSIM_EXIT=0 "$VITREOUS" run -m tests/golden/models/std -p Hi -n "$fits" --backend cuda
errs "one block more does not fit" "a context of $((fits + 64)) tokens .* at most $fits tokens fit"
big=(run -m tests/golden/models/std -i tests/golden/images/pic-scene.jpg -p Hi -n 1 --min-pixels 3800000
     --max-pixels 4000000 --backend cuda)
run env GPUSIM_MEMORY=260 GPUSIM_EXIT=0 "$VITREOUS" "${big[@]}"
rc 3 "no room for the picture"
errs "needs, has, what fits" "a picture of 38[0-9]+ pixels needs [0-9]+ MiB to encode, the GPU has [0-9]+ MiB free: at most [0-9]+ pixels fit"

run env GPUSIM_MEMORY=272 GPUSIM_EXIT=0 VL_KERNEL=gemm=cublas "$VITREOUS" run -m models/demo -p Hi -n 1 --backend cuda
rc 3 "no room for the weights twice"
errs "with cuBLAS each matrix but the head lies there twice: 21 MiB, not 10" "the weights need 21 MiB, the GPU has 15 MiB free"
run env GPUSIM_MEMORY=272 GPUSIM_EXIT=0 "$VITREOUS" run -m models/demo -p Hi -n 1 --backend cuda
rc 0 "once there is room"

# ---- a checkpoint in FP8 -------------------------------------------------------------------------
cp -r tests/golden/models/std "$tmp/fp8"
chmod -R u+w "$tmp/fp8"
python3 - "$tmp/fp8/model.safetensors" <<'P'
import json, struct, sys
raw = open(sys.argv[1], "rb").read()
n = struct.unpack("<Q", raw[:8])[0]
head, data = json.loads(raw[8:8 + n]), raw[8 + n:]
head.pop("__metadata__", None)
name = "model.language_model.layers.0.self_attn.q_proj.weight"
rows, cols = head[name]["shape"]
codes, scales = bytes(rows * cols), bytes(2 * -(-rows // 128) * -(-cols // 128))
new, out = {}, b""
def add(key, dtype, shape, part):
    global out
    new[key] = {"dtype": dtype, "shape": shape, "data_offsets": [len(out), len(out) + len(part)]}
    out += part
for k, v in head.items():
    if k != name: add(k, v["dtype"], v["shape"], data[slice(*v["data_offsets"])])
add(name + "_scale_inv", "BF16", [-(-rows // 128), -(-cols // 128)], scales)
add(name, "F8_E4M3", [rows, cols], codes)
text = json.dumps(new).encode()
text += b" " * (-len(text) % 8)
open(sys.argv[1], "wb").write(struct.pack("<Q", len(text)) + text + out)
P
run "$VITREOUS" run -m "$tmp/fp8" -p Hi -n 1 --backend cpu
rc 0 "FP8 on the CPU"
for gpus in 1 2; do
    run env GPUSIM_EXIT=0 GPUSIM_DEVICES=2 VL_NCCL="$PWD/build/gpusim/libnccl.so.2" "$VITREOUS" run -m "$tmp/fp8" -p Hi -n 1 \
        --backend cuda --gpus $gpus
    rc 3 "FP8 on $gpus GPUs"
    errs "names the tensor, and what to do" "q_proj.weight is F8_E4M3.*--backend cpu"
done

# ---- goldens -------------------------------------------------------------------------------------
golden() { # name, words of --only, environment: all gates pass and gpusim finds nothing
    local name=$1 only=$2
    shift 2
    run env "$@" "$VITREOUS" verify --golden $cases --backend cuda --json --only "$only"
    rc 0 "$name (9: gpusim has findings, above)"
    has "$name: nothing failed" '"failed": 0, "results"|"failed":0,"results"'
    digests=$(grep -oE '"digest": *"[0-9a-f]{64}"' <<<"$out")
}
export GPUSIM_DEVICE=B200 # may run every level
golden "PTX 75" std-tiny,odd-three,deep-text-en,shards-thin GPUSIM_PTX=75
golden "PTX 80" std-image-pil,odd-image-pil,deep-pair,shards-pair GPUSIM_PTX=80
golden "PTX 90" std-pair,odd-tall,shards-text-zh GPUSIM_PTX=90
golden "PTX 100" std-line,odd-speck,deep-speck,shards-tiny GPUSIM_PTX=100
golden "PTX 90, perturbed" std-text-en,odd-three GPUSIM_PTX=90 GPUSIM_PERTURB=1 GPUSIM_MMA=block

# ---- cuBLAS --------------------------------------------------------------------------------------
blas() { # the same gates, with products of many rows by cuBLAS (gpusim's)
    golden "$@" VL_KERNEL=gemm=cublas GPUSIM_REPORT="$tmp/blas.json"
    check "$1: cuBLAS was called" grep -q '"cublasGemmEx"' "$tmp/blas.json"
}
blas "cuBLAS, PTX 80" std-image-pil,odd-image-pil,deep-pair GPUSIM_PTX=80
blas "cuBLAS, PTX 90, without graphs" std-pair GPUSIM_PTX=90 VL_CUDA_GRAPH=0

# ---- the same bits ---------------------------------------------------------------------------------
golden "PTX 80 forward" std-tiny,odd-three GPUSIM_PTX=80
forward=$digests
golden "PTX 80 random order" std-tiny,odd-three GPUSIM_PTX=80 GPUSIM_ORDER=random GPUSIM_SEED=5
check "block order changes no bit" [ -n "$forward" -a "$forward" = "$digests" ]
run env GPUSIM_PTX=80 "$VITREOUS" verify --golden $cases --backend cuda --json --only std-tiny,odd-three \
    --chunk 13
digests=$(grep -oE '"digest": *"[0-9a-f]{64}"' <<<"$out")
check "prompts in chunks of 13 rows change no bit" [ "$forward" = "$digests" ]
golden "PTX 80 without graphs" std-tiny,odd-three GPUSIM_PTX=80 VL_CUDA_GRAPH=0
check "graphs change no bit" [ "$forward" = "$digests" ]

# ---- a decode step ---------------------------------------------------------------------------------
launches() { # answer tokens, environment: kernels run in all -> $n, hash of the logits -> $hash
    local tokens=$1
    shift
    run env GPUSIM_REPORT="$tmp/report.json" "$@" "$VITREOUS" run -m tests/golden/models/std \
        -i tests/golden/images/pic-scene.jpg -p "What is it?" -n "$tokens" --temp 0 --backend cuda --json
    rc 0 "$tokens tokens $*"
    hash=$(grep -oE '"logits_hash": *"[0-9a-f]+"' <<<"$out")
    n=$(($(grep '"kernel": *"vl_' "$tmp/report.json" | grep -oE '"launches": *[0-9]+' | grep -oE '[0-9]+$' | paste -sd+)))
}
launches 6 GPUSIM_PTX=80
first=$n graphs=$hash
launches 7 GPUSIM_PTX=80
check "a token takes $((n - first)) launches: 5 for each of 4 layers, and inputs, embedding, head with choice" \
    [ $((n - first)) -eq 23 ]
launches 6 GPUSIM_PTX=80 VL_CUDA_GRAPH=0
check "the same answer without graphs" [ -n "$hash" -a "$hash" = "$graphs" ]
launches 6 GPUSIM_PTX=90
graphs=$hash
launches 6 GPUSIM_PTX=90 VL_CUDA_GRAPH=0 GPUSIM_ORDER=random
check "the same answer without graphs, with early launches" [ -n "$hash" -a "$hash" = "$graphs" ]
run env VL_CUDA_GRAPH=2 GPUSIM_EXIT=0 "$VITREOUS" "${question[@]}" --backend cuda
rc 2 "VL_CUDA_GRAPH=2"
errs "says what is expected" "expected 0 or 1"
finish
