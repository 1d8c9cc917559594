#!/bin/bash
# test_spills.sh: the inner loops of the integer tiles keep their sums in registers. GCC 12 spills them
# when the products are written with intrinsics (40 % of the speed); that shows as stack accesses.
set -u
cd "$(dirname "$0")/../.." || exit 2
object=${VL_BUILD:-build/release}/kernels/cpu/avx512vnni.o
if [ ! -e "$object" ] || ! command -v objdump >/dev/null; then
    echo "SKIP no $object or no objdump"
    echo "0 passed, 0 failed, 1 skipped"
    exit 0
fi
code=$(objdump -d --no-show-raw-insn "$object")
pass=0 fail=0
check() { # what, ok
    if [ "$2" = 1 ]; then pass=$((pass + 1)); else fail=$((fail + 1)); echo "FAIL $1"; fi
}
products=$(grep -c 'vpdpbusd.*zmm' <<<"$code")
check "$object has $products products: are these the tiles?" $((products >= 500))
for f in gemm_q8_avx512vnni gemm_q4_avx512vnni; do
    spills=$(awk -v f="<$f>:" '/^[0-9a-f]+ </ { on = $2 == f } on && /zmm/ && /\(%r[sb]p/' <<<"$code" | wc -l)
    check "$f accesses the stack with vectors $spills times" $((spills == 0))
done
# On tile registers the integers go through the stack; the float sums must not.
object=${object%avx512vnni.o}avx512amx_int8.o
code=$(objdump -d --no-show-raw-insn "$object")
check "$object has $(grep -c tdpbssd <<<"$code") tile products" $(($(grep -c tdpbssd <<<"$code") >= 2))
spills=$(grep -cE 'vmov.*%zmm[0-9]+,.*\(%r[sb]p' <<<"$(awk '/^[0-9a-f]+ </ { on = /<square>:/ } on' <<<"$code")")
check "square stores vectors to the stack $spills times" $((spills == 0))
echo "$pass passed, $fail failed"
[ $fail = 0 ]
