#!/bin/bash
# test_cuda_group.sh: several GPUs (`--gpus N`) on gpusim, with its stand-in for NCCL: the same bits as one
# GPU at every stage of the goldens, with and without graphs; what is said when something is missing or
# does not divide; and that a rank which does something else than the others is noticed.
. "$(dirname "$0")/../lib.sh"
cases=tests/golden/cases
sim=build/gpusim/libcuda.so.1 nccl=build/gpusim/libnccl.so.2
question=(run -m tests/golden/models/std -i tests/golden/images/pic-scene.jpg -p "What is it?" -n 2 --temp 0)

# ---- without a GPU -------------------------------------------------------------------------------
run "$VITREOUS" "${question[@]}" --gpus 2 --backend cpu
rc 2 "GPUs on the CPU backend"
errs "says what goes" 'gpus = 2 with backend "cpu"'
run "$VITREOUS" "${question[@]}" --gpus 9
rc 2 "nine GPUs"
errs "says how many" "gpus: expected 0 to 8"
run env VL_CUDA_DRIVER=/nowhere/libcuda.so "$VITREOUS" "${question[@]}" --gpus 2
rc 3 "two GPUs without a driver: never the CPU instead"
if grep -q "no GPU kernels" <<<"$err"; then
    skip "nvcc was not there: the binary has no GPU kernels"
    finish
elif [ ! -e $sim ]; then
    skip "$sim is not built (x86-64 only)"
    finish
fi

# ---- what is missing, what does not divide ---------------------------------------------------------
export VL_CUDA_DRIVER=$PWD/$sim VL_NCCL=$PWD/$nccl GPUSIM_EXIT=9 GPUSIM_DEVICES=8
run env GPUSIM_DEVICES=1 "$VITREOUS" "${question[@]}" --gpus 2
rc 3 "one GPU there"
errs "says how many are there" "GPU 1 is not there: the driver shows 1;"
run env VL_NCCL=/nowhere/libnccl.so "$VITREOUS" "${question[@]}" --gpus 2
rc 3 "no NCCL"
errs "says how to get it" "several GPUs need NCCL: .*/nowhere/libnccl.so.*install"
run env "VL_NCCL=$VL_CUDA_DRIVER" "$VITREOUS" "${question[@]}" --gpus 2
rc 3 "another library"
errs "names the function" "has no ncclCommInitAll"
run "$VITREOUS" "${question[@]}" --gpus 3
rc 3 "four heads, three GPUs"
errs "names the heads" "q_proj.weight: 4 heads cannot be shared by 3 GPUs"
run "$VITREOUS" "${question[@]}" --gpus 8
rc 3 "four heads, eight GPUs"
errs "names the heads" "4 heads cannot be shared by 8 GPUs"
run "$VITREOUS" "${question[@]}" --gpus 2 --dtype exact
rc 3 "exact on the GPU"

# Of two GPUs each needs room for its share: 235 MiB leave 10, one needs more than that and two need 8 each, and
# 64 for what joins their rows.
for gpus in 1 2; do
    run env GPUSIM_MEMORY=$((235 + 64 * (gpus - 1))) GPUSIM_EXIT=0 "$VITREOUS" run -m models/demo -p Hi -n 1 --backend cuda --gpus $gpus
    rc 3 "no room on $gpus GPUs"
    errs "no room on $gpus GPUs: for what" "$([ $gpus = 1 ] && echo "the weights need 10 MiB" || echo "a session of .* rows needs")"
done

# ---- the same bits as one GPU ------------------------------------------------------------------------
# Gates pass, gpusim finds nothing, and the digest of every tensor is that of one GPU.
golden() { # GPUs, cases, environment -> $digests; $tokens: greedy tokens, default the golden's 64
    local gpus=$1 only=$2
    shift 2
    run env "$@" "$VITREOUS" verify --golden $cases --backend cuda --gpus "$gpus" --json --only "$only" \
        ${tokens:+-n "$tokens"}
    rc 0 "$gpus GPUs, $only $* (9: gpusim has findings, above)"
    has "$gpus GPUs, $only $*: says what it ran on" "\"backend\": *\"cuda$([ "$gpus" = 1 ] || echo ":$gpus")\""
    has "$gpus GPUs, $only $*: nothing failed" '"failed": 0, "results"|"failed":0,"results"'
    digests=$(grep -oE '"digest": *"[0-9a-f]{64}"' <<<"$out")
}
same() { # cases, environment, -- numbers of GPUs: each gives the bits of one
    local only=$1 settings=() one
    shift
    while [ "$1" != -- ]; do settings+=("$1") && shift; done
    shift
    golden 1 "$only" "${settings[@]}"
    one=$digests
    for gpus in "$@"; do
        golden "$gpus" "$only" "${settings[@]}"
        check "$gpus GPUs give the bits of one: $only ${settings[*]}" [ -n "$one" -a "$one" = "$digests" ]
    done
}
tokens=
same std-tiny GPUSIM_PTX=80 -- 2 4                   # 4 heads, 2 key heads: 4 GPUs share those
same demo-tiny GPUSIM_PTX=80 -- 2
tokens=6
same deep-text-en GPUSIM_PTX=80 -- 2                 # 2 heads, 1 key head
same odd-speck GPUSIM_PTX=80 -- 2                    # a head of its own, D = 60: shares of 32 and 28
same shards-text-zh GPUSIM_PTX=90 GPUSIM_DEVICE=H100 -- 4
same std-tiny GPUSIM_PTX=75 GPUSIM_DEVICE=T4 -- 2
same std-tiny GPUSIM_PTX=80 VL_KERNEL=gemm=cublas VL_CUBLAS="$PWD/build/gpusim/libcublas.so.13" -- 2
golden 2 std-tiny GPUSIM_PTX=80
graphs=$digests
golden 2 std-tiny GPUSIM_PTX=80 VL_CUDA_GRAPH=0 GPUSIM_ORDER=random
check "without graphs, in random block order" [ -n "$graphs" -a "$graphs" = "$digests" ]
run env GPUSIM_PTX=80 "$VITREOUS" verify --golden $cases --gpus 2 --json --only std-tiny --chunk 13 -n 6
check "prompts in chunks of 13 rows change no bit" [ "$graphs" = "$(grep -oE '"digest": *"[0-9a-f]{64}"' <<<"$out")" ]

# ---- a decode step -----------------------------------------------------------------------------------
steps() { # GPUs, answer tokens -> $kernels and $gathers of all GPUs, $hash
    run env GPUSIM_PTX=80 GPUSIM_REPORT="$tmp/report.json" "$VITREOUS" "${question[@]}" -n "$2" --gpus "$1" --json
    rc 0 "$1 GPUs, $2 tokens"
    count() { grep "\"kernel\": *\"$1" "$tmp/report.json" | grep -oE '"launches": *[0-9]+' | grep -oE '[0-9]+$' | paste -sd+; }
    hash=$(grep -oE '"logits_hash": *"[0-9a-f]+"' <<<"$out")
    kernels=$(($(count vl_))) gathers=$(($(count '(all-gather)')))
}
steps 2 6
first=$kernels of_first=$gathers
steps 2 7
# D, H*E and F divide by 2 in whole tiles, the vocabulary (436) does not: 2 kernels more on each GPU.
check "a token takes $((kernels - first)) launches on 2 GPUs: 23 each, 2 around the head, choice on one" \
    [ $((kernels - first)) -eq 51 ]
check "and $((gathers - of_first)) of 2 x (4 for each of 4 layers, and the head)" [ $((gathers - of_first)) -eq 34 ]

# ---- a rank that starts nothing --------------------------------------------------------------------------
# Rank 1's first graph is refused when rank 0's is under way: on GPUs its collective would never end, so
# nothing may wait for it (gpusim would find nccl-missing-rank).
run env GPUSIM_PTX=80 GPUSIM_FAIL_GRAPH=2 "$VITREOUS" "${question[@]}" -n 6 --gpus 2
rc 3 "rank 1's graph is not launched (9: gpusim has findings: ${err:0:300})"
errs "says which step failed" "launching a graph: "

# ---- a rank that dies ------------------------------------------------------------------------------------
# In the middle of an answer, with collectives under way that it never comes to: nobody waits for those
# (gpusim would find nccl-hang), the request ends with what happened.
run env GPUSIM_PTX=80 GPUSIM_FAIL_KERNEL=220 timeout 300 "$VITREOUS" "${question[@]}" -n 6 --gpus 2
rc 3 "rank 1 dies (9: gpusim has findings: ${err:0:300})"
errs "says what happened" "waiting for the GPU: .*(illegal|ILLEGAL)"

# ---- a rank that does something else -------------------------------------------------------------------
fault() { # what GPUSIM_NCCL does, rule
    run env GPUSIM_PTX=80 GPUSIM_EXIT=0 GPUSIM_NCCL="$1" "$VITREOUS" "${question[@]}" --gpus 2
    rc 3 "$1"
    errs "$1: gpusim names the rule" "gpusim: $2: "
    errs "$1: the message says what NCCL says" "joining columns: NCCL says"
}
fault skip:3 nccl-missing-rank
fault short:20 nccl-mismatch
run env GPUSIM_PTX=80 GPUSIM_NCCL=wrong:9 "$VITREOUS" verify --golden $cases --gpus 2 --json --only std-tiny -n 6
check "one block of wrong columns in one collective changes the digest" \
    [ "$graphs" != "$(grep -oE '"digest": *"[0-9a-f]{64}"' <<<"$out")" ]
finish
