# lib.sh: what the shell tests share. A test sources it from the repository root, makes checks, and
# ends with `finish`, which prints the closing line.
#
#   run CMD...            runs it; its stdout, stderr and exit code are in $out, $err, $rc
#   rc N NAME             the exit code was N
#   has NAME PATTERN      stdout matches the extended regular expression
#   errs NAME PATTERN     stderr matches
#   check NAME CMD...     the command succeeds
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2
: "${VL_BUILD:=build/release}" "${VITREOUS:=$PWD/$VL_BUILD/vitreous}"
passed=0 failed=0 skipped=0
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

pass() { passed=$((passed + 1)); }
fail() { failed=$((failed + 1)); printf 'FAIL %s\n' "$*"; }
skip() {
    printf 'SKIP %s\n' "$*"
    if [ "${REQUIRE:-}" = 1 ]; then failed=$((failed + 1)); else skipped=$((skipped + 1)); fi
}
run() {
    "$@" >"$tmp/out" 2>"$tmp/err" </dev/null
    rc=$?
    out=$(tr -d '\0' <"$tmp/out") err=$(tr -d '\0' <"$tmp/err")
}
rc() {
    if [ "$rc" = "$1" ]; then pass; else fail "$2: exit code $rc, expected $1 (stderr: ${err:0:300})"; fi
}
has() {
    if grep -qE -- "$2" <<<"$out"; then pass; else fail "$1: stdout lacks /$2/: ${out:0:300}"; fi
}
errs() {
    if grep -qE -- "$2" <<<"$err"; then pass; else fail "$1: stderr lacks /$2/: ${err:0:300}"; fi
}
check() {
    local name=$1
    shift
    if "$@" >"$tmp/check" 2>&1; then pass; else fail "$name: $(tail -3 "$tmp/check")"; fi
}
finish() {
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" = 0 ] && [ $((passed + skipped)) -gt 0 ]
    exit
}
