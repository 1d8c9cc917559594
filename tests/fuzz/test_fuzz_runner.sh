#!/bin/bash
# test_fuzz_runner.sh: tools/fuzz.sh with stand-ins for the targets: it runs all of them, two at a time, and tells
# those that fail. That two run at once is shown by stand-ins that wait for one another.
. "$(dirname "$0")/../lib.sh"
build="$tmp/a build" # with a space
mkdir -p "$build/tests/fuzz"
targets=(tests/fuzz/fuzz_*.c)
for f in "${targets[@]}"; do
    name=$(basename "$f" .c)
    cat >"$build/tests/fuzz/$name" <<'STANDIN'
#!/bin/bash
# Waits until it has met another one (or another one has), so one after another they would wait in vain.
here=$(dirname "$0")
: >"$here/$$.here"
for _ in $(seq 600); do
    n=$(find "$here" -name '*.here' | wc -l)
    [ "$n" -gt 2 ] && : >"$here/crowd"
    [ "$n" -ge 2 ] && : >"$here/met"
    if [ -e "$here/met" ] || [ -e "$here/alone" ]; then break; fi
    sleep 0.05
done
[ -e "$here/met" ] || : >"$here/alone"
sleep 0.1
rm -f "$here/$$.here"
echo "$*"
[ "$(basename "$0")" != "${BROKEN:-}" ]
STANDIN
    chmod +x "$build/tests/fuzz/$name"
done
run tools/fuzz.sh "$build" 7
rc 0 "all pass"
has "all of them" "^${#targets[@]} passed, 0 failed$"
has "for the time asked" "fuzz_json: .*-max_total_time=7 "
check "two at a time" [ -e "$build/tests/fuzz/met" ]
check "and no more" [ ! -e "$build/tests/fuzz/crowd" ]
run env BROKEN=fuzz_json tools/fuzz.sh "$build" 7
rc 1 "one fails"
has "it is named" "FAIL fuzz_json"
has "the others are not" "^$((${#targets[@]} - 1)) passed, 1 failed$"
finish
