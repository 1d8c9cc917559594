#!/bin/sh
# fuzz.sh BUILD SECONDS: each fuzz target for SECONDS, starting from tests/fuzz/seeds/NAME.
set -eu
build=$1 seconds=$2
passed=0 failed=0
for f in tests/fuzz/fuzz_*.c; do
    [ -e "$f" ] || break
    name=$(basename "$f" .c)
    name=${name#fuzz_}
    corpus=$build/corpus/$name
    mkdir -p "$corpus" "tests/fuzz/seeds/$name"
    log=$build/fuzz_$name.log
    if "$build/tests/fuzz/fuzz_$name" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 \
           -artifact_prefix="$build/crash_$name-" "$corpus" "tests/fuzz/seeds/$name" >"$log" 2>&1; then
        passed=$((passed + 1))
        echo "fuzz_$name: $(tail -1 "$log")"
    else
        failed=$((failed + 1))
        echo "FAIL fuzz_$name"
        tail -25 "$log"
    fi
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
