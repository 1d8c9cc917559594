#!/bin/bash
# run.sh: the server against clients that others wrote: the openai package, schemathesis on /openapi.json,
# curl, and Chromium on the page; and the Kubernetes manifests against their schemas. Installs the Python packages into build/clients-venv; needs chromium.
# usage: make test-serve-clients   (CLIENTS_PYTHON: a Python that has openai, schemathesis and playwright)
set -u
cd "$(dirname "$0")/../../.." || exit 2
build=${VL_BUILD:-build/release}
python=${CLIENTS_PYTHON:-}
if [ -z "$python" ]; then
    python=build/clients-venv/bin/python
    [ -x "$python" ] || { python3 -m venv build/clients-venv && build/clients-venv/bin/pip -q install openai schemathesis playwright kubernetes-validate; } || exit 1
fi
work=$(mktemp -d)
pid=
trap '[ -n "$pid" ] && kill $pid 2>/dev/null; wait; rm -rf "$work"' EXIT
model=${VL_TEST_MODEL:-$work/model}
[ -n "${VL_TEST_MODEL:-}" ] || "$build/vitreous" make-random --like demo --seed 7 "$model" >/dev/null 2>&1
"$build/vitreous" serve -m "$model" --port 0 --max-tokens 16 --max-time 20 >"$work/url" 2>"$work/log" &
pid=$!
for _ in $(seq 100); do
    url=$(head -1 "$work/url")
    [ -n "$url" ] && curl -sf "$url/ready" >/dev/null && break
    sleep 0.2
done
passed=0 failed=0
part() { # name, command...
    local name=$1
    shift
    if "$@" >"$work/$name.out" 2>&1; then passed=$((passed + 1)); echo "ok   $name: $(tail -1 "$work/$name.out")"
    else failed=$((failed + 1)); echo "FAIL $name"; tail -40 "$work/$name.out"; fi
}
part openai "$python" tests/serve/clients/openai_client.py "$url"
part page "$python" tests/serve/clients/page.py "$url" "${SHOTS:-$build/screenshots}"
part curl bash -c "curl -sf '$url/v1/chat/completions' -H 'Content-Type: application/json' \
    -d '{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"max_tokens\":4,\"stream\":true}' | grep -q '^data: \[DONE\]'"
# Not every rule between fields fits a schema (top_logprobs needs logprobs, a data URL must hold a picture), so a
# schema-valid request may be refused; every other check is on.
part manifests "$(dirname "$python")/kubernetes-validate" --strict deploy/kubernetes/vitreous.yml
schemathesis=$(cd "$(dirname "$python")" && pwd)/schemathesis
cd "$work" || exit 2                                 # it leaves a folder where it runs
part schemathesis "$schemathesis" run "$url/openapi.json" --max-examples "${EXAMPLES:-40}" \
    --request-timeout 30 --exclude-checks positive_data_acceptance
kill -0 $pid 2>/dev/null || { failed=$((failed + 1)); echo "FAIL the server is gone"; tail -5 "$work/log"; }
echo "$passed passed, $failed failed"
[ $failed = 0 ]
