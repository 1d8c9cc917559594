#!/bin/sh
# fuzz.sh BUILD SECONDS: each fuzz target for SECONDS, starting from tests/fuzz/seeds/NAME; FUZZ_JOBS
# (default 2) of them at a time.
set -eu
build=$1 seconds=$2
export build seconds
mkdir -p "$build"
# shellcheck disable=SC2016  # the inner shell expands
ls tests/fuzz/fuzz_*.c | xargs -P "${FUZZ_JOBS:-2}" -I{} sh -c '
    name=$(basename "$1" .c)
    name=${name#fuzz_}
    corpus=$build/corpus/$name log=$build/fuzz_$name.log
    mkdir -p "$corpus" "tests/fuzz/seeds/$name"
    rm -f "$build/fuzz_$name.ok"
    if "$build/tests/fuzz/fuzz_$name" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 \
           -artifact_prefix="$build/crash_$name-" "$corpus" "tests/fuzz/seeds/$name" >"$log" 2>&1; then
        : >"$build/fuzz_$name.ok"
        echo "fuzz_$name: $(tail -1 "$log")"
    else
        printf "FAIL fuzz_%s\n%s\n" "$name" "$(tail -25 "$log")"
    fi' fuzz {}
passed=0 failed=0
for f in tests/fuzz/fuzz_*.c; do
    name=$(basename "$f" .c)
    if [ -e "$build/$name.ok" ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
