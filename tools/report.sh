#!/bin/bash
# report.sh BINARY OUT: benches this machine at the 2B shape, puts a little load on a server, and writes
# OUT/report.html and OUT/report.md (the cost report with everything that was measured).
#
#   REPORT_MODEL=DIR   a checkpoint to use instead of random weights of the 2B shape (4.3 GB in OUT/2b)
#   REPORT_ROUNDS=3    rounds of the small pictures
#   REPORT_DOC=FILE    also replace what stands between the report marks in FILE (docs/cost.md)
#   REPORT_PRICE=P     this machine's price in CNY per hour, if it has one
# Takes a few minutes on a quiet machine; on a busy one the shares of the roof say little.
set -eu
binary=$1 out=$2
mkdir -p "$out"
model=${REPORT_MODEL:-$out/2b}
if [ ! -e "$model/config.json" ]; then
    echo "random weights of the 2B shape: $model" >&2
    "$binary" make-random --like 2b --seed 1 "$model"
fi

start=$SECONDS
"$binary" bench -m "$model" --all --reference --tips --rounds "${REPORT_ROUNDS:-3}" -n 32 \
    --save "$out/bench.json" --md >"$out/bench.md"

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
}
loads=()
load() { # file, then options of load
    local file=$1
    shift
    if timeout 300 "$binary" load --url "$url" --timeout 120 --json "$@" >"$file"; then
        loads+=(--load-file "$file")
    else
        echo "no load figures: $file" >&2
        rm -f "$file"
    fi
}
serve --result-cache 0 --picture-cache 0
load "$out/sweep.json" --title "Rate sweep: short text questions, caches off" --warm-up 1 \
    -p "What is a map?" -n 8 --rate 0.25 --factor 2 --sweep --steps 5 --requests 6 \
    --raw "$out/sweep.jsonl"
stop
serve
load "$out/cached.json" --title "The same question again, result cache on" --arrivals fixed \
    --warm-up 1 -p "What is a map?" -n 8 --rate 2 --requests 20
stop
echo "measured in $((SECONDS - start)) s" >&2

# ---- the report ------------------------------------------------------------------------------------------
"$binary" cost -m "$model" --measured "$out/bench.json" "${loads[@]}" \
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
