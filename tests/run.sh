#!/bin/bash
# run.sh BUILD [TEST...]: runs every test, two at a time, and adds up their closing lines.
#
# A test is a program BUILD/tests/*/test_* or a script tests/*/test_*.sh|py. It ends with the line
# "N passed, N failed[, N skipped]" and a non-zero exit when something failed; one that ends without
# such a line, times out (VL_TEST_TIMEOUT, 900 s) or exits non-zero without a failure of its own
# counts as one failure. Scripts get VITREOUS (the binary) and VL_BUILD in the environment.
# VL_ONLY_C=1, for the sanitizers, leaves out the scripts, tests/gpusim and tests/cuda (the stand-in GPU
# is a tool of the tests and is not instrumented). VL_SERVE_SHORT names server tests (1: all three) that run
# nonetheless, in a shorter form, and fail on any sanitizer's report in the server's log (serving.py); with
# "only" among them nothing else runs. Shown: one line per test, its failures, why it skipped.
set -u
build=$1
shift
cd "$(dirname "$0")/.." || exit 2
export VL_BUILD=$build VITREOUS=$PWD/$build/vitreous
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

tests=("$@")
if [ ${#tests[@]} = 0 ]; then
    for f in tests/*/test_*.c; do
        case " ${VL_SERVE_SHORT:-} " in *" only "*) break ;; esac
        case $f in tests/gpusim/* | tests/cuda/*) [ "${VL_ONLY_C:-}" = 1 ] && continue ;; esac
        [ -e "$f" ] && tests+=("$build/${f%.c}")
    done
    if [ "${VL_ONLY_C:-}" != 1 ]; then
        for f in tests/*/test_*.sh tests/*/test_*.py; do [ -e "$f" ] && tests+=("$f"); done
    fi
fi

short=${VL_SERVE_SHORT:-}
if [ -n "$short" ]; then
    case $short in 1 | only) short="$short api hostile load" ;; esac
    # An exit code of its own tells a report from the 1 of a second SIGTERM. libgomp is not instrumented:
    # with a team every one of its barriers would look like a race.
    export ASAN_OPTIONS="${ASAN_OPTIONS:-exitcode=99}" TSAN_OPTIONS="${TSAN_OPTIONS:-exitcode=99}"
    case $build in
        *tsan*) export OMP_NUM_THREADS=1 VL_SLOW="${VL_SLOW:-20}" VL_TEST_TIMEOUT="${VL_TEST_TIMEOUT:-3600}" ;;
        *)      export VL_SLOW="${VL_SLOW:-4}" ;;
    esac
    export VL_MALFORMED="${VL_MALFORMED:-300}" VL_LOAD_SECONDS="${VL_LOAD_SECONDS:-2}"
    export VL_LOAD_CLIENTS="${VL_LOAD_CLIENTS:-8}" VL_LOAD_REQUESTS="${VL_LOAD_REQUESTS:-40}"
    for t in $short; do [ -e "tests/serve/test_$t.py" ] && tests+=("tests/serve/test_$t.py"); done
fi

one() { # number, test: writes $out/number.{log,sum}
    local log=$out/$1.log t=$2 rc start=$EPOCHREALTIME line secs
    case $t in
        *.py) timeout -k 5 "${VL_TEST_TIMEOUT:-900}" "${PYTHON:-python3}" "$t" ;;
        *.sh) timeout -k 5 "${VL_TEST_TIMEOUT:-900}" bash "$t" ;;
        *)    timeout -k 5 "${VL_TEST_TIMEOUT:-900}" "$t" ;;
    esac >"$log" 2>&1 </dev/null
    rc=$?
    line=$(grep -aE '^[0-9]+ passed, [0-9]+ failed(, [0-9]+ skipped)?$' "$log" | tail -1)
    # shellcheck disable=SC2046  # the numbers are meant to split
    set -- "$1" $(echo "${line:-0 0 0}" | tr -cd '0-9 \n')
    local p=$2 f=$3 s=${4:-0} why=
    if [ $rc = 124 ] || [ $rc = 137 ]; then f=$((f + 1)) why=" (timed out or killed)"
    elif [ -z "$line" ]; then f=$((f + 1)) why=" (no closing line, exit $rc)"
    elif [ $rc != 0 ] && [ "$f" = 0 ]; then f=1 why=" (exit $rc)"; fi
    secs=$(awk -v a="$start" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }')
    why=$(printf '%-44s %6d passed %4d failed %4d skipped %7s s%s\n' "${t#"$build/"}" "$p" "$f" "$s" \
              "$secs" "$why"
          grep -aE '^(FAIL|SKIP)' "$log" | head -20
          if [ -n "$why" ]; then tail -15 "$log"; fi)
    printf '%s\n' "$why" # in one piece: two tests report at a time
    echo "$p $f $s" >"$out/$1.sum"
}

n=0
for t in "${tests[@]}"; do
    one $n "$t" &
    n=$((n + 1))
    if [ "$(jobs -rp | wc -l)" -ge "${VL_TEST_JOBS:-2}" ]; then wait -n; fi
done
wait
cat "$out"/*.sum 2>/dev/null | awk '{ p += $1; f += $2; s += $3 }
    END { printf "%d passed, %d failed, %d skipped\n", p, f, s; exit f > 0 || p + 0 == 0 }'
