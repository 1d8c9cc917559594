#!/bin/bash
# test_pack.sh: `vitreous pack`: the same answers with the cache, a warning where it is stale, every byte checked on
# request; and how many threads a process uses by itself.
set -u
cd "$(dirname "$0")/../.." || exit 2
vitreous=${VITREOUS:-build/release/vitreous}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
export XDG_CACHE_HOME=$out/none
unset VL_PACK_CACHE VL_PIN
pass=0 fail=0
check() { # what, command...
    local what=$1
    shift
    if "$@" >"$out/log" 2>&1; then pass=$((pass + 1)); else
        fail=$((fail + 1))
        echo "FAIL $what: $(tail -2 "$out/log" | tr '\n' ' ')"
    fi
}
model=$out/model
cp -r models/demo "$model"
answer() { # dtype -> the answer and the hash of its last logits; what was said goes to $out/said
    "$vitreous" run -m "$model" --backend cpu --dtype "$1" --json --image models/demo/pictures/01-shapes.png \
        -p "What is in this picture?" -n 12 2>"$out/said" | grep -oE '"(text|logits_hash)":[^,]*'
}
for d in exact int8 int4; do
    kind=-$d
    [ $d = exact ] && kind=
    before=$(answer $d)
    check "$d: pack --check without a cache" sh -c "! '$vitreous' pack -m '$model' --dtype $d --check"
    check "$d: pack" "$vitreous" pack -m "$model" --dtype $d
    check "$d: the file" test -s "$model/vitreous-packed$kind.cache"
    check "$d: pack --check" "$vitreous" pack -m "$model" --dtype $d --check
    check "$d: the same answer: '$before' '$(answer $d)'" test -n "$before" -a "$before" = "$(answer $d)"
    check "$d: no warning" sh -c "! grep -q 'pack cache' '$out/said'"
done
check "a byte of the data is flipped" python3 -c "
f = open('$model/vitreous-packed.cache', 'r+b')
f.seek(-1000, 2)
b = f.read(1)
f.seek(-1000, 2)
f.write(bytes([b[0] ^ 1]))"
check "and found by --check" sh -c "'$vitreous' pack -m '$model' --check 2>&1 | grep -q damaged"
touch -d '2001-02-03' "$model/model.safetensors"
before=$(VL_PACK_CACHE=off answer exact)
check "off: no warning" sh -c "! grep -q 'pack cache' '$out/said'"
check "stale: the same answer" test "$before" = "$(answer exact)"
answer exact >/dev/null
check "stale: said" grep -q 'warning: pack cache .*has changed since.*vitreous pack' "$out/said"
export VL_PACK_CACHE=$out/elsewhere
check "no such folder" sh -c "! '$vitreous' pack -m '$model'"
mkdir "$VL_PACK_CACHE"
check "elsewhere" "$vitreous" pack -m "$model"
check "elsewhere: one file" test "$(ls "$VL_PACK_CACHE" | wc -l)" = 1
check "elsewhere: used" "$vitreous" pack -m "$model" --check
check "the GPU backend has none" sh -c "! '$vitreous' pack -m '$model' --backend cuda"

if command -v taskset >/dev/null; then
    first=$(taskset -cp $$ | sed 's/.*: //; s/[,-].*//')
    check "one CPU: one thread" sh -c "taskset -c $first '$vitreous' kernels 2>&1 | grep -q 'cpu, 1 threads'"
else
    echo "SKIP taskset is missing"
fi
check "VL_PIN: a mistake is said" sh -c "VL_PIN=yes '$vitreous' kernels 2>&1 | grep -q 'expected 0 or 1'"
VL_PACK_CACHE=off VL_PIN=1 answer exact >"$out/pinned"
check "VL_PIN: the same answer" test "$before" = "$(cat "$out/pinned")"
echo "$pass passed, $fail failed"
[ "$fail" = 0 ]
