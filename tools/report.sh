#!/bin/bash
# report.sh BINARY OUT [PIECE]: measures this machine at the 2B shape and writes OUT/report.html and OUT/report.md
# (the cost report with everything that was measured).
#
# The measurement is made of pieces of a minute or two, each saved as OUT/PIECE.json. A piece that is there
# is not measured again, so a run that was broken off goes on where it stopped, and one piece is repeated by
# deleting its file; REPORT_FRESH=1 starts anew. With PIECE only that one is measured.
#
#   REPORT_MODEL=DIR    a checkpoint to use instead of random weights of the 2B shape (4.3 GB in OUT/2b)
#   REPORT_QUIET=CMD    put before each piece, for instance a command that gives it the machine to itself
#   REPORT_PAUSE=S      seconds between two pieces (0)
#   REPORT_ROUNDS=4     rounds of a small picture in a piece; there are three such pieces
#   REPORT_DOC=FILE     also replace what stands between the report marks in FILE (docs/cost.md)
#   REPORT_PRICE=P      this machine's price in CNY per hour, if it has one
set -eu
self=$0 binary=$1 out=$2 only=${3:-}
tools=$(dirname "$0")
mkdir -p "$out"
[ -z "${REPORT_FRESH:-}" ] || [ -n "$only" ] || rm -f "$out"/*.json "$out"/*.jsonl
model=${REPORT_MODEL:-$out/2b}
rounds=${REPORT_ROUNDS:-4}
if [ ! -e "$model/config.json" ]; then
    echo "random weights of the 2B shape: $model" >&2
    "$binary" make-random --like 2b --seed 1 "$model"
fi
for shape in small mid; do # two further shapes, to test the predictor on
    [ -e "$out/$shape/config.json" ] || "$binary" make-random --like "$tools/cost/$shape.json" --seed 1 "$out/$shape"
done

bench() { "$binary" bench -m "$model" --json "$@"; }
modes() { # numeric modes of this binary
    for m in exact bf16 int8 int4; do
        if "$binary" bench -m "$out/small" --dtype $m --size 32x32 --rounds 1 -n 2 >/dev/null 2>&1; then echo $m; fi
    done
}

# ---- a server on a free port of the loopback, ended below ---------------------------------------------
server=
stop() { if [ -n "$server" ]; then kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; fi; server=; }
trap stop EXIT
serve() { # options of serve; sets $url
    "$binary" serve -m "$model" --port 0 --no-request-log "$@" >"$out/serve.log" 2>&1 &
    server=$!
    url=
    for _ in $(seq 1200); do
        url=$(grep -aoE 'http://127\.0\.0\.1:[0-9]+' "$out/serve.log" | head -1 || true)
        if [ -n "$url" ]; then break; fi
        if ! kill -0 "$server" 2>/dev/null; then break; fi
        sleep 0.1
    done
    if [ -z "$url" ]; then tail -3 "$out/serve.log" >&2; exit 1; fi
    url=$url/v1/chat/completions
    for _ in $(seq 30); do # it listens before the model is ready
        if load 12 --requests 1 >/dev/null 2>"$out/first.log"; then return; fi
        sleep 0.3
    done
    cat "$out/first.log" >&2
    exit 1
}
# Random weights like numbers of the vocabulary that stand for no text: the bias keeps them to letters.
request() { # tokens of the answer
    letters=$(seq -f '"%g": 100' -s ', ' 97 122)
    echo '{"prompt": "What is a map?", "max_tokens": '"$1"', "ignore_eos": true, "temperature": 0, "logit_bias": {'"$letters"'}}'
}
load() { # tokens of an answer, options of load
    request "$1" >"$out/request.jsonl"
    shift
    timeout 100 "$binary" load --url "$url" --timeout 60 --json --workload "$out/request.jsonl" "$@"
}
burst() { # raw file, batch: three requests at once, three times over
    serve --result-cache 0 --picture-cache 0 --batch "$2"
    for i in 1 2 3; do
        load 16 --arrivals fixed --rate 1000 --requests 3 --raw "$out/burst.raw" >"$out/burst.tmp"
        cat "$out/burst.raw" >>"$1.new"
    done
    stop
    mv "$1.new" "$1"
}

# ---- the pieces ------------------------------------------------------------------------------------------
piece() {
    case $1 in
        448-*)     bench --dtype "${1##*-}" --size 448x448 --rounds "$rounds" -n 12 --predict ;;
        more-*)    bench --dtype "${1##*-}" --size 448x448 --rounds "$rounds" -n 12 ;;
        again-*)   bench --dtype "${1##*-}" --size 448x448 --rounds "$rounds" -n 12 ;;
        672-*)     bench --dtype "${1##*-}" --size 672x448 --rounds 2 -n 12 ;;
        896-*)     bench --dtype "${1##*-}" --size 896x896 --rounds 1 -n 12 ;;
        1024-*)    bench --dtype "${1##*-}" --size 1024x1024 --rounds 1 -n 12 ;;
        text-*)    bench --dtype "${1##*-}" --size text --size text512 --rounds 2 -n 20 ;;
        deep-*)    bench --dtype "${1##*-}" --size text2048 --rounds 1 -n 20 ;;
        answer-*)  bench --dtype "${1##*-}" --size 448x448 --rounds 1 -n 2 --reference ;;
        small-* | mid-*) "$binary" bench -m "$out/${1%-*}" --dtype "${1##*-}" --size 448x448 --rounds 8 -n 16 \
                       --predict --json ;;
        sweep)     "$binary" bench -m "$out/small" --min-pixels 4096 --size 96x96 --text-tokens 16 --rounds 1 -n 4 --sweep-threads \
                       --sweep-tiers --sweep-dtypes --json ;;
        tip-batch*) bench --size text --text-tokens 40 --rounds 1 -n 104 --tip "${1#tip-}" ;;
        tip-*)     bench --size text --rounds 1 -n 24 --tip "${1#tip-}" ;;
        cache)     bench --size 448x448 --rounds 1 -n 4 --tip cache ;;
        load)      serve --result-cache 0 --picture-cache 0
                   load 12 --rate 0.5 --rate 1 --rate 2 --requests 8 --raw "$out/load.jsonl" \
                       --title "Rate sweep: short text questions, caches off"
                   stop ;;
        repeat)    serve --result-cache 0 --picture-cache 0
                   load 12 --arrivals fixed --rate 0.5 --requests 10 --raw "$out/fresh.jsonl" \
                       >"$out/fresh.tmp"
                   stop
                   serve
                   load 12 --arrivals fixed --warm-up 1 --rate 4 --requests 20 --raw "$out/repeat.jsonl" \
                       --title "The same question again, result cache on"
                   stop ;;
        queue)     burst "$out/alone.jsonl" 1
                   burst "$out/together.jsonl" 3
                   echo '{}' ;;
        *) echo "report.sh: no piece \"$1\"" >&2; exit 2 ;;
    esac
}
if [ -n "$only" ]; then
    piece "$only" >"$out/$only.new"
    mv "$out/$only.new" "$out/$only.json"
    exit
fi

list=
for m in $(modes); do
    list="$list 448-$m more-$m"
    if [ "$m" = exact ]; then list="$list again-$m 672-$m 896-$m 1024-$m text-$m deep-$m answer-$m small-$m mid-$m"; fi
done
list="$list sweep cache tip-batch2 tip-batch4 tip-batch8 tip-fused tip-pin tip-threads tip-thp tip-hugetlb tip-disk load repeat queue"
start=$SECONDS
for p in ${REPORT_PIECES:-$list}; do
    [ -s "$out/$p.json" ] && continue
    cat "$model"/*.safetensors >/dev/null # in the page cache, unless it does not fit
    from=$SECONDS
    # shellcheck disable=SC2086 # a command and its arguments
    ${REPORT_QUIET:-} bash "$self" "$binary" "$out" "$p" 2>"$out/$p.log" || { tail -3 "$out/$p.log" >&2; echo "failed: $p" >&2; }
    echo "$p: $((SECONDS - from)) s" >&2
    sleep "${REPORT_PAUSE:-0}"
done
echo "measured in $((SECONDS - start)) s" >&2

# ---- the report ------------------------------------------------------------------------------------------
merge=() tips=() loads=() checks=()
for p in $list; do
    [ -s "$out/$p.json" ] || continue
    case $p in
        load | repeat) loads+=(--load-file "$out/$p.json") ;;
        queue) ;;
        sweep | small-* | mid-*) checks+=(--further "$out/$p.json") ;;
        *) merge+=(--merge "$out/$p.json") ;;
    esac
done
tips+=(--row-tip "smaller picture|first token|exact|896x896|exact|448x448")
for m in bf16 int8 int4; do
    [ -s "$out/448-$m.json" ] || continue
    for stage in encode prefill decode; do tips+=(--row-tip "$m instead of exact|$stage|exact|448x448|$m|448x448"); done
done
if [ -s "$out/repeat.json" ]; then
    tips+=(--load-tip "result cache, the same question again|whole answer from the server|off|$out/fresh.jsonl|on|$out/repeat.jsonl")
fi
if [ -s "$out/queue.json" ]; then
    tips+=(--load-tip "asynchronous queue, 3 at once|whole answer from the server|one by one|$out/alone.jsonl|batched|$out/together.jsonl")
fi
"$binary" bench -m "$model" "${merge[@]}" "${tips[@]}" --hash-weights --save "$out/bench.all" --md >"$out/bench.md"
"$binary" cost -m "$model" --measured "$out/bench.all" "${loads[@]}" "${checks[@]}" \
    ${REPORT_PRICE:+--local-price "$REPORT_PRICE"} \
    --md --html "$out/report.html" >"$out/report.md"
if [ -n "${REPORT_DOC:-}" ]; then
    begin='<!-- report: written by make report -->' end='<!-- end of report -->'
    grep -qF "$begin" "$REPORT_DOC" && grep -qF "$end" "$REPORT_DOC"
    { sed "/$begin/q" "$REPORT_DOC"
      echo
      sed -e 1d -e 's/^## /### /' "$out/report.md" # the page has its own title
      sed -n "/$end/,\$p" "$REPORT_DOC"; } >"$out/doc.new"
    cp "$out/doc.new" "$REPORT_DOC"
fi
echo "$out/report.html  $out/report.md"
