#!/bin/bash
# predictor.sh BINARY OUT: predicts encode, prefill and decode of three model shapes from single operations and
# measures them; fails when one is off by more than 15 %. REPORT_MODEL and REPORT_QUIET as for report.sh.
set -u
binary=$1 out=$2 failed=0
tools=$(dirname "$0")
mkdir -p "$out"
[ -e "$out/small/config.json" ] || "$binary" make-random --like "$tools/cost/small.json" --seed 1 "$out/small"
[ -e "$out/mid/config.json" ] || "$binary" make-random --like "$tools/cost/mid.json" --seed 1 "$out/mid"
large=${REPORT_MODEL:-$out/2b}
[ -e "$large/config.json" ] || "$binary" make-random --like 2b --seed 1 "$large"
for model in "$out/small" "$out/mid" "$large"; do
    # shellcheck disable=SC2086 # a command and its arguments
    ${REPORT_QUIET:-} "$binary" bench -m "$model" --size 448x448 --rounds 8 -n 16 --predict --tolerance 15 \
        >"$out/predictor.txt" || failed=1
    sed -n '/predicted from single/,/Largest error/p' "$out/predictor.txt"
done
exit $failed
