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
answer() { # dtype, options... -> the answer and the hash of its last logits; what was said goes to $out/said
    "$vitreous" run -m "$model" --backend cpu --dtype "$@" --json --image models/demo/pictures/01-shapes.png \
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
    # Only who reads the cache can answer otherwise when its panels (not its table) are others.
    cp "$model/vitreous-packed$kind.cache" "$out/kept"
    check "$d: an eighth of the panels is zeroed" python3 -c "
import os, sys
n = os.path.getsize(sys.argv[1])
with open(sys.argv[1], 'r+b') as f:
    f.seek(n // 2)
    f.write(bytes(n // 8))" "$model/vitreous-packed$kind.cache"
    other=$(answer $d)
    check "$d: run reads the cache" test "$other" != "$before" -a -n "$other"
    check "$d: and without it the checkpoint" test "$before" = "$(VL_PACK_CACHE=off answer $d)"
    cp "$out/kept" "$model/vitreous-packed$kind.cache"
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
# --pin: each worker of run, serve and bench (every thread but the first) may use one CPU. A program stands in
# for what a thread may use: /proc/PID/task/*/status, read while the answer is being made.
workers() { # command... -> the CPU lists of its threads other than the first, as soon as one is a single CPU
    VL_PACK_CACHE=off "$@" >/dev/null 2>&1 &
    local pid=$! i lists
    for ((i = 0; i < 400; i++)); do
        lists=$(for t in /proc/$pid/task/*; do
            [ "${t##*/}" = "$pid" ] || sed -n 's/^Cpus_allowed_list:[[:space:]]*//p' "$t/status" 2>/dev/null
        done)
        grep -qE '^[0-9]+$' <<<"$lists" && break
        [ -d "/proc/$pid" ] || break
        sleep 0.01
    done
    kill "$pid" 2>/dev/null
    wait "$pid" 2>/dev/null
    echo "$lists"
}
one() { workers "$vitreous" "$@" | grep -cE '^[0-9]+$'; }
if [ "$(nproc)" -gt 1 ]; then
    long=(-m "$model" --backend cpu --threads 2 -p "What is this?" -n 4000 --ignore-eos)
    check "run --pin: a worker on one CPU" test "$(one run "${long[@]}" --pin)" -gt 0
    check "run: none without" test "$(one run "${long[@]}")" = 0
    check "bench --pin" test "$(one bench -m "$model" --backend cpu --threads 2 --size text --rounds 3 -n 500 --pin)" -gt 0
    check "serve --pin" test "$(one serve -m "$model" --backend cpu --threads 2 --port 0 --pin)" -gt 0
else
    echo "SKIP one CPU: nothing to pin to"
fi
check "--pin: the same answer" test "$before" = "$(VL_PACK_CACHE=off answer exact --pin)"
echo "$pass passed, $fail failed"
[ "$fail" = 0 ]
