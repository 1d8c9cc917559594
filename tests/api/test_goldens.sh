#!/bin/bash
# test_goldens.sh: every committed Hugging Face golden, and the promise that the schedule does not
# matter: each CPU tier passes its gates, and inside one tier the bits of every traced tensor are the
# same for 1 and 2 threads, for prefill chunks of 1, 7, 64 and 512 rows, and for a second run.
. "$(dirname "$0")/../lib.sh"
v=$VITREOUS
cases=tests/golden/cases
full="std-pair,odd-three,shards-thin,deep-image" # the whole matrix on these
tiers="scalar"
grep -q avx2 /proc/cpuinfo && tiers="$tiers avx2"
grep -q avx512bw /proc/cpuinfo && tiers="$tiers avx512"
[ "$(uname -m)" = aarch64 ] && tiers="$tiers neon"

digests() { grep -oE '"(case|digest)":"[^"]*"' "$1" | paste -sd' \n'; }

verify() { # name, output, extra environment and options...
    local name=$1 file=$2
    shift 2
    if env "$@" >"$file" 2>"$tmp/err"; then
        pass
    else
        fail "$name: $(grep -E 'FAIL|failed' "$file" | head -5; grep -oE '"case":"[^"]*"|"verdict":"FAIL"|"error":"[^"]+"' "$file" | head; tail -2 "$tmp/err")"
    fi
}

for tier in $tiers; do
    # Every case, every gate, one line per case.
    verify "$tier" "$tmp/table" VL_CPU="$tier" "$v" verify --golden $cases
    lines=$(grep -cE '^[a-z0-9-]+ +ok ' "$tmp/table")
    passed=$((passed + lines))
    grep -E '^[a-z0-9-]+ +FAIL' "$tmp/table" | while read -r line; do echo "FAIL $tier: $line"; done
    failed=$((failed + $(grep -cE '^[a-z0-9-]+ +FAIL' "$tmp/table")))
    grep -E 'split|margin' "$tmp/table" | sed "s/^/note: $tier: /"

    verify "$tier reference" "$tmp/ref.json" VL_CPU="$tier" "$v" verify --golden $cases --only $full --json --threads 1
    reference=$(digests "$tmp/ref.json")
    for threads in 1 2; do
        for chunk in 1 7 64 512; do
            name="$tier, $threads threads, chunk $chunk"
            verify "$name" "$tmp/run.json" VL_CPU="$tier" "$v" verify --golden $cases --only $full --json \
                --threads $threads --chunk $chunk
            check "$name: the same bits" [ "$(digests "$tmp/run.json")" = "$reference" ]
        done
    done
done

# All cases on the tier that is chosen here.
verify "all cases" "$tmp/a.json" "$v" verify --golden $cases --json --threads 1
for threads in 1 2; do
    for chunk in 1 7 64 512; do
        name="all cases, $threads threads, chunk $chunk"
        verify "$name" "$tmp/b.json" "$v" verify --golden $cases --json --threads $threads --chunk $chunk
        check "$name: the same bits" [ "$(digests "$tmp/a.json")" = "$(digests "$tmp/b.json")" ]
    done
done
# Looking ahead changes no token and no bit, whichever way the rows of a pass are computed.
for ahead in 1 4; do
    verify "all cases, $ahead ahead" "$tmp/b.json" "$v" verify --golden $cases --json --speculate $ahead
    check "all cases, $ahead ahead: the same bits" [ "$(digests "$tmp/a.json")" = "$(digests "$tmp/b.json")" ]
done
check "the digests are not all one" [ "$(digests "$tmp/a.json" | awk '{print $NF}' | sort -u | wc -l)" -gt 10 ]

# The bf16 mode where the processor has its instruction: within 1.1 times HF bf16's own distance.
if grep -q avx512_bf16 /proc/cpuinfo; then
    verify "bf16" "$tmp/bf16.json" "$v" verify --golden $cases --dtype bf16 --json
    has_bf16() { grep -q '"dtype":"bf16"' "$tmp/bf16.json"; }
    check "bf16: judged as bf16" has_bf16
    verify "bf16 reference" "$tmp/ref.json" "$v" verify --golden $cases --only $full --dtype bf16 --json --threads 1
    for chunk in 1 7 64 512; do
        verify "bf16, chunk $chunk" "$tmp/run.json" "$v" verify --golden $cases --only $full --dtype bf16 --json \
            --threads 2 --chunk $chunk
        check "bf16, chunk $chunk: the same bits" [ "$(digests "$tmp/run.json")" = "$(digests "$tmp/ref.json")" ]
    done
    if grep -q amx_bf16 /proc/cpuinfo; then # the tier below has sums of its own
        verify "bf16 without tiles" "$tmp/run.json" VL_CPU=avx512bf16 "$v" verify --golden $cases --only $full --dtype bf16
    else
        skip "bf16 on tiles: this processor has no AMX"
    fi
else
    skip "bf16: this processor has no vdpbf16ps"
fi

# A gate that cannot fail proves nothing: a golden with one wrong value must be caught.
cp -r $cases/std-text-en "$tmp/wrong"
sed -i 's#\.\./\.\./models#'"$PWD"'/tests/golden/models#' "$tmp/wrong/case.json"
size=$(stat -c %s "$tmp/wrong/golden.safetensors")
printf '\x7f\x7f\x7f\x41' | dd of="$tmp/wrong/golden.safetensors" bs=1 seek=$((size / 2 / 4 * 4)) conv=notrunc 2>/dev/null
run "$v" verify --golden "$tmp/wrong"
rc 1 "a wrong golden is noticed"
has "a wrong golden is named" "FAIL"
finish
