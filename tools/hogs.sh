#!/bin/bash
# hogs.sh VITREOUS MODEL [ROUNDS]: decoding alone and beside two busy processes that want the same cores (plain
# priority, `while :`), turn by turn; prints each pair and the share of the lone speed. 50 % is what two cores
# shared fairly give; barriers that spin give a few per cent. Set DTYPE for another mode than exact.
set -eu
vitreous=$1 model=$2 rounds=${3:-3}
hogs=()
stop() { for p in "${hogs[@]}"; do kill "$p" 2>/dev/null && wait "$p" 2>/dev/null || :; done; hogs=(); }
trap stop EXIT
tok_s() { # tokens per second over all of the decoding
    "$vitreous" bench -m "$model" --backend cpu --dtype "${DTYPE:-exact}" --size text16 --rounds 1 -n "${TOKENS:-24}" --json 2>/dev/null |
        python3 -c 'import json, sys
print(next(round(1 / s["mean_s"], 2) for s in json.load(sys.stdin)["stages"] if s["stage"] == "decode"))'
}
shares=()
for ((i = 1; i <= rounds; i++)); do
    alone=$(tok_s)
    for k in 1 2; do
        (while :; do :; done) &
        hogs+=($!)
    done
    beside=$(tok_s)
    stop
    shares+=("$(python3 -c "print(f'{100 * $beside / $alone:.1f}')")")
    echo "round $i: alone $alone tok/s, beside two busy processes $beside tok/s: ${shares[-1]} %"
done
printf '%s\n' "${shares[@]}" | sort -n | awk '{ v[NR] = $1 } END { print "median share of the lone speed: " v[int((NR + 1) / 2)] " %" }'
