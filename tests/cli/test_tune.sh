#!/bin/bash
# test_tune.sh: `vitreous tune`: what it writes is in use from the next start on, overruled by VL_KERNEL, VL_CPU, VL_TUNE
# and --threads, ignored with a notice where it does not fit; answers have the same bits with and without.
. "$(dirname "$0")/../lib.sh"
v=$VITREOUS
unset VL_TUNE VL_KERNEL VL_CPU
export XDG_CACHE_HOME="$tmp/the cache" HOME=$tmp/home
photo=tests/golden/images/pic-scene.jpg
answer() { # options... -> text and hash of an answer about a picture
    "$v" run --backend cpu --image $photo -p "What is this?" -n 12 --ignore-eos --json "$@" 2>"$tmp/said" |
        grep -oE '"(text|logits_hash)":"[^"]*"'
}
modes="exact int8 int4"
"$v" run -p x -n 1 --backend cpu --dtype bf16 >/dev/null 2>&1 && modes="$modes bf16"
declare -A plain
for d in $modes; do
    plain[$d]=$(answer --dtype $d)
    check "$d: an answer without a file" test -n "${plain[$d]}"
done

# ---- writing and using -------------------------------------------------------------------------------
run "$v" tune --show; rc 0 "--show without a file"; has "--show without a file" "\(none\)$"
check "--show writes nothing" test ! -e "$XDG_CACHE_HOME"
run "$v" tune --only gemm_q8 --dry-run; rc 0 "--only --dry-run"
check "--dry-run writes nothing" test -z "$(find "$tmp" -name 'tuning-*')"
run "$v" tune --only spins --json; rc 0 "tune, one choice measured"
has "tune --json" '"measured":\[\{"key":"spins","default":"4000","chosen":"[0-9]+"'
file=$(find "$XDG_CACHE_HOME" -name 'tuning-*')
check "one file in the user's cache" test -f "$file"
run "$v" tune --set spins=0 --set exact_few=2 --set exact_rows=36 --set exact_panels=3 --set int_rows=30 --set int_panels=3 \
    --set int_tiles=7 --set int_tile_rows=48 --set gemm_q8=gemm_q8_scalar --set pack_q=pack_q_scalar --set threads=1
rc 0 "--set"; has "--set" "^written: .*tuning-"
run "$v" tune --show; has "--show" "^exact_rows +36 "; has "--show: its file" "\(in use\)$"
run "$v" tune --show --json; has "--show --json" '"state":"in use".*"gemm_q8":"gemm_q8_scalar"'
run "$v" kernels --all; has "kernels: the choice" "^\* gemm_q8 .*gemm_q8_scalar .*chosen by vitreous tune"
errs "kernels: the threads" "cpu, 1 threads"
for d in $modes; do
    check "$d: the same answer: '${plain[$d]}' '$(answer --dtype $d)'" test "${plain[$d]}" = "$(answer --dtype $d)"
    check "$d: no notice" sh -c "! grep -q tuning '$tmp/said'"
done

# ---- what goes before it ------------------------------------------------------------------------------
run env VL_KERNEL=gemm_q8=gemm_q8_scalar,pack_q=pack_q_scalar "$v" kernels; has "VL_KERNEL" "pack_q_scalar .*forced by VL_KERNEL"
run env VL_TUNE=off "$v" kernels --all; check "VL_TUNE=off" sh -c "! grep -q 'vitreous tune' '$tmp/out'"
run "$v" run -p x -n 1 --threads 2; errs "--threads" "cpu, 2 threads"
if [ "$(nproc)" -gt 1 ]; then
    run env VL_TUNE=off "$v" kernels; errs "VL_TUNE=off: the threads" "cpu, $(nproc) threads"
fi
if "$v" kernels --all 2>/dev/null | grep -qE 'gemm_q8_avx2 .*(tune|better)'; then
    "$v" tune --set gemm_q8=gemm_q8_avx2 >/dev/null
    run env VL_CPU=scalar "$v" kernels; has "VL_CPU goes before it" "^\* gemm_q8 .*gemm_q8_scalar .*best present"
else
    skip "VL_CPU before the file: no AVX2 here"
fi

# ---- what does not fit --------------------------------------------------------------------------------
"$v" tune --set exact_rows=36 >/dev/null
cp "$file" "$tmp/kept"
printf x >>"$file"
run "$v" run -p x -n 1 --backend cpu; rc 0 "a damaged file"
errs "a damaged file" "warning: .*tuning file $file is ignored: it is damaged.*vitreous tune"
check "a damaged file: the same answer" test "${plain[exact]}" = "$(answer)"
run "$v" tune --show; has "a damaged file: --show" "\(ignored\)$"; has "a damaged file: the defaults" "^exact_rows +240 "
sed 's/^cpu .*/cpu Another Processor/; /^check/d' "$tmp/kept" >"$tmp/foreign"
sum=$(sha256sum <"$tmp/foreign")
echo "check ${sum%% *}" >>"$tmp/foreign"
run env VL_TUNE="$tmp/foreign" "$v" run -p x -n 1 --backend cpu; rc 0 "a foreign file"
errs "a foreign file" "is ignored: it was measured on another processor"
check "a foreign file: the same answer" test "${plain[exact]}" = "$(VL_TUNE=$tmp/foreign answer)"
run env VL_TUNE="$tmp/none" "$v" run -p x -n 1 --backend cpu; rc 0 "a file that is not there"
errs "a file that is not there" "there is no such file"
run "$v" tune --set exact_rows=48; rc 0 "written anew"
run "$v" run -p x -n 1 --backend cpu; check "written anew: no notice" sh -c "! grep -q tuning '$tmp/err'"

# ---- mistakes ------------------------------------------------------------------------------------------
run env VL_TUNE=/nowhere/x "$v" tune; rc 3 "a path that cannot be written"; errs "a path that cannot be written" "/nowhere/x"
run env VL_TUNE=/nowhere/x "$v" tune --set spins=1; rc 3 "the same with --set"
run env VL_TUNE="$tmp" "$v" tune --set spins=1; rc 3 "a folder as the file"
check "a folder as the file: nothing is left beside it" sh -c "! ls -d '$tmp'.* 2>/dev/null"
run env VL_TUNE=off "$v" tune; rc 2 "tune with VL_TUNE=off"
run env VL_CPU=scalar "$v" tune; rc 2 "tune under VL_CPU"; errs "tune under VL_CPU" "unset VL_CPU"
run env VL_CPU=scalar "$v" tune --only spins --dry-run; rc 2 "--dry-run under VL_CPU"
run env VL_KERNEL=gemm_q8=gemm_q8_scalar "$v" tune --only spins --dry-run; rc 2 "--dry-run under VL_KERNEL"
run "$v" tune --set wheel=1; rc 2 "an unknown choice"; errs "an unknown choice" "no choice \"wheel\""
run "$v" tune --set spins=-3; rc 2 "out of range"; errs "out of range" "0 to 1000000"
run "$v" tune --only wheel --dry-run; rc 2 "an unknown choice to measure"
run "$v" tune --only spins --set spins=1; rc 2 "--only with --set"
run "$v" tune --show --set spins=1; rc 2 "--show with --set"
finish
