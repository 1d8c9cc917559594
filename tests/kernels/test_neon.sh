#!/bin/bash
# test_neon.sh: the NEON tier, cross-compiled and run under qemu-user: test_kernels on every line, and
# test_ops on whole ops. Skipped, with the reason, where the tools are missing.
. "$(dirname "$0")/../lib.sh"
cc=aarch64-linux-gnu-gcc
if ! command -v $cc >/dev/null; then
    skip "$cc is not installed"
elif ! command -v qemu-aarch64 >/dev/null; then
    skip "qemu-aarch64 is not installed"
else
    out=build/neon
    mkdir -p $out
    : >$out/no-image # the assembler cannot include /dev/null
    src="common/common.c common/sha256.c common/sha256_ni.c kernels/backend.c kernels/threads.c kernels/ops_check.c kernels/ops_tap.c
         kernels/ops_trace.c kernels/ops_wrap.c kernels/cpu/attention.c kernels/cpu/cpuid.c
         kernels/cpu/linear.c kernels/cpu/neon.c kernels/cpu/ops_cpu.c kernels/cpu/pack.c kernels/cpu/scalar.c kernels/cpu/team.c
         kernels/cuda/device.c kernels/cuda/driver.c kernels/cuda/image.c kernels/cuda/ops_cuda.c
         kernels/cuda/upload.c"
    for t in test_kernels test_ops; do
        rm -f $out/$t
        check "$t compiles for aarch64" $cc -DVL_IMAGE_FILE="\"$out/no-image\"" -std=c17 -D_GNU_SOURCE -I. -O2 -ffp-contract=off -static \
            -Wall -Wextra -Werror $src tests/kernels/$t.c -o $out/$t -lm -lpthread
        VL_CPU=neon qemu-aarch64 $out/$t >"$tmp/$t" 2>&1
        rc=$?
        line=$(tail -1 "$tmp/$t")
        check "$t under qemu: $line $(grep FAIL "$tmp/$t" | head -3)" [ $rc = 0 ]
    done
fi
finish
