#!/bin/bash
# test_neon.sh: the NEON tier, cross-compiled and run under qemu-user: test_products, test_row_kernels and
# test_integers on every line, test_ops on whole ops. Skipped, with the reason, where the tools are missing.
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
    src=$(ls common/*.c kernels/*.c kernels/cpu/*.c kernels/cuda/*.c | grep -v kernels/cpu/avx)
    for t in test_products test_row_kernels test_integers test_ops; do
        rm -f $out/$t
        check "$t compiles for aarch64" $cc -DVL_IMAGE_FILE="\"$out/no-image\"" -std=c17 -D_GNU_SOURCE -I. -O2 -fopenmp-simd -ffp-contract=off -static \
            -Wall -Wextra -Werror $src tests/kernels/$t.c -o $out/$t -lm -lpthread
        VL_CPU=neon qemu-aarch64 $out/$t >"$tmp/$t" 2>&1
        rc=$?
        line=$(tail -1 "$tmp/$t")
        check "$t under qemu: $line $(grep FAIL "$tmp/$t" | head -3)" [ $rc = 0 ]
    done
fi
finish
