#!/usr/bin/env python3
"""`vitreous load` against a stand-in server and against an independent client in Python: the same
completed requests, mean latency within 3 %; percentiles recomputed from the raw lines; failures
counted; queues not hidden (no coordinated omission)."""
import base64
import json
import http.client
import os
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
from stand_in import StandIn  # noqa: E402

ROOT = os.path.join(HERE, "..", "..")
BIN = os.environ.get("VITREOUS", os.path.join(ROOT, "build/release/vitreous"))
passed = failed = 0
tmp = tempfile.TemporaryDirectory()


def check(name, ok, note=""):
    global passed, failed
    if ok:
        passed += 1
    else:
        failed += 1
        print(f"FAIL {name}: {note}")


def near(name, got, want, tol):
    check(name, got is not None and abs(got - want) <= tol * abs(want), f"got {got}, expected {want}")


def load(url, *args, rc=0):
    raw = os.path.join(tmp.name, "raw.jsonl")
    p = subprocess.run([BIN, "load", "--url", url, "--json", "--raw", raw, *args],
                       capture_output=True, text=True, timeout=120)
    check(f"load {' '.join(args)}: exit code", p.returncode == rc, (p.returncode, p.stderr))
    lines = [json.loads(x) for x in open(raw)] if os.path.exists(raw) else []
    return (json.loads(p.stdout) if p.stdout else None), lines, p.stderr


def percentile(v, p):  # numpy's default
    v = sorted(v)
    at = p / 100 * (len(v) - 1)
    i = int(at)
    return v[i] + (at - i) * (v[min(i + 1, len(v) - 1)] - v[i])


# ---- an independent client -----------------------------------------------------------------------------
def client(server, due, tokens):
    """Threads that each send one request when it is due; (ttft, e2e) counted from then."""
    out, start = [None] * len(due), time.perf_counter()

    def one(i):
        time.sleep(max(0, due[i] - (time.perf_counter() - start)))
        c = http.client.HTTPConnection("127.0.0.1", server.server.server_port, timeout=30)
        c.request("POST", "/v1/chat/completions", json.dumps(
            {"messages": [], "max_tokens": tokens, "stream": True}), {"Content-Type": "application/json"})
        first = last = None
        for line in c.getresponse():
            if b'"content": "t' in line:
                last = time.perf_counter() - start - due[i]
                first = last if first is None else first
        out[i] = (first, last)
        c.close()

    threads = [threading.Thread(target=one, args=(i,)) for i in range(len(due))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return out


server = StandIn(first_s=0.3, gap_s=0.03)
n, rate = 16, 8.0
best = 1.0
for attempt in range(8):  # the machine may be busy: the closest of a few tries counts
    theirs = client(server, [i / rate for i in range(n)], 10)
    r, raw, _ = load(server.url, "--arrivals", "fixed", "--rate", str(rate), "--requests", str(n), "-n", "10")
    e2e = [x for x in r["latency"] if x["metric"] == "e2e"][0]["mean_s"]
    want = sum(x[1] for x in theirs) / n
    best = min(best, abs(e2e / want - 1))
    if best < 0.03:
        break
check("completed requests agree with an independent client",
      r["sweep"][0]["completed"] == sum(x is not None for x in theirs) == n, r["sweep"])
check("mean latency agrees with an independent client within 3 %", best < 0.03, f"off by {best:.1%}")

# ---- definitions, from the raw lines --------------------------------------------------------------------
check("one raw line per request", len(raw) == n, len(raw))
for metric, values in (("ttft", [x["ttft_s"] for x in raw]), ("e2e", [x["e2e_s"] for x in raw]),
                       ("tpot", [(x["e2e_s"] - x["ttft_s"]) / (x["output_tokens"] - 1) for x in raw]),
                       ("itl", [g for x in raw for g in x["itl_s"]])):
    row = [x for x in r["latency"] if x["metric"] == metric][0]
    near(f"{metric} mean", row["mean_s"], sum(values) / len(values), 1e-6)
    for p in (50, 90, 95, 99):
        near(f"{metric} p{p}", row[f"p{p}_s"], percentile(values, p), 1e-6)
check("fixed arrivals", all(abs(x["due_s"] - i / rate) < 1e-9 for i, x in enumerate(raw)))
check("tokens come from usage", all(x["output_tokens"] == 10 and x["prompt_tokens"] == 7 for x in raw))
check("an empty first delta is no token", all(x["ttft_s"] >= 0.3 and len(x["itl_s"]) == 9 for x in raw))
row = r["sweep"][0]
near("throughput", row["completed_per_s"], n / (max(x["due_s"] + x["e2e_s"] for x in raw)), 1e-6)
near("output tokens per second", row["output_tokens_per_s"], 10 * row["completed_per_s"], 1e-6)

# ---- arrivals and goodput -------------------------------------------------------------------------------
a, raw1, _ = load(server.url, "--rate", "40", "--requests", "30", "-n", "2", "--seed", "5")
b, raw2, _ = load(server.url, "--rate", "40", "--requests", "30", "-n", "2", "--seed", "5", "--slo-ttft", "0.01")
check("the same seed gives the same Poisson arrivals",
      [x["due_s"] for x in raw1] == [x["due_s"] for x in raw2])
gaps = [y["due_s"] - x["due_s"] for x, y in zip(raw1, raw1[1:])]
check("Poisson gaps vary about 1 / rate", 0.5 / 40 < sum(gaps) / len(gaps) < 2 / 40 and
      max(gaps) > 2 * min(gaps))
near("goodput without limits is the throughput", a["sweep"][0]["goodput_per_s"],
     a["sweep"][0]["completed_per_s"], 1e-6)
check("goodput under an unreachable limit is zero", b["sweep"][0]["goodput_per_s"] == 0)
server.close()

# ---- one worker: a queue must show ------------------------------------------------------------------------
slow = StandIn(first_s=0.1, gap_s=0, workers=1)
r, raw, _ = load(slow.url, "--arrivals", "fixed", "--rate", "50", "--requests", "10", "-n", "1")
queue = 10 * 0.1 - 9 / 50  # at least: a busy machine only adds to it
check("the queue shows in the latency of its last request", 0.95 * queue < raw[-1]["e2e_s"] < 4 * queue, raw[-1])
r, raw, _ = load(slow.url, "--arrivals", "fixed", "--rate", "2", "--sweep", "--factor", "4", "--requests", "8",
                 "-n", "1")
check("the sweep stops when the server saturates", 2 <= len(r["sweep"]) <= 3, [x["rate"] for x in r["sweep"]])
check("and shows the capacity", 3 < r["sweep"][-1]["completed_per_s"] < 11, r["sweep"][-1])
slow.close()

# ---- failures -----------------------------------------------------------------------------------------------
bad = StandIn(first_s=0.01, gap_s=0.001, behaviour=lambda body, i: [None, "500", "cut", "error"][i % 4])
r, raw, err = load(bad.url, "--arrivals", "fixed", "--rate", "20", "--requests", "8", "-n", "5",
                   "--api-key", "secret")
check("failures are counted", r["sweep"][0]["failed"] == 6 and r["sweep"][0]["completed"] == 2, r["sweep"])
errors = " / ".join(x.get("error", "") for x in raw)
check("and named", "HTTP 500" in errors and "numerical error" in errors, errors)
check("a failed request has no latency", all(("e2e_s" in x) == x["ok"] for x in raw))
check("the key is sent", all(k == "Bearer secret" for _, k in bad.bodies))
bad.close()
dead = StandIn()
url = dead.url
dead.close()
r, raw, err = load(url, "--requests", "3", "--rate", "50", rc=1)
check("no server: every request fails", r["sweep"][0]["failed"] == 3 and "onnect" in raw[0]["error"], raw)
hang = StandIn(first_s=5)
r, raw, err = load(hang.url, "--requests", "2", "--rate", "50", "--timeout", "0.3", rc=1)
check("a timeout is a failure", "imed out" in raw[0]["error"] or "imeout" in raw[0]["error"], raw)
r, raw, err = load(hang.url, "--requests", "3", "--rate", "500", "--timeout", "0.5", "--max-in-flight", "1", rc=1)
check("over --max-in-flight", any("max-in-flight" in x["error"] for x in raw), raw)
hang.close()

# ---- workload files -----------------------------------------------------------------------------------------
seen = StandIn(first_s=0.001, gap_s=0.001)
picture, jobs = os.path.join(tmp.name, "a.png"), os.path.join(tmp.name, "w.jsonl")
for size in (1, 2, 3, 1000):
    data = bytes(i * 7 % 256 for i in range(size))
    open(picture, "wb").write(data)
    open(jobs, "w").write(json.dumps({"prompt": "你好 \"quoted\"", "images": [picture], "max_tokens": 2,
                                      "temperature": 0.5}) + "\n\n" +
                          json.dumps({"prompt": "second", "max_tokens": 1}) + "\n")
    seen.bodies.clear()
    load(seen.url, "--workload", jobs, "--requests", "2", "--rate", "100", "--model", "m")
    by_text = {b["messages"][0]["content"][-1]["text"]: b for b, _ in seen.bodies}
    body = by_text['你好 "quoted"']
    url = body["messages"][0]["content"][0]["image_url"]["url"]
    check("pictures are inlined", base64.b64decode(url.split(",")[1]) == data)
    check("fields are passed on", body["temperature"] == 0.5 and body["stream"] is True and body["model"] == "m"
          and body["stream_options"] == {"include_usage": True})
    check("the second request has no picture", len(by_text["second"]["messages"][0]["content"]) == 1)
seen.close()
for text, code in (("", 3), ("{}\n", 3), ("[1]\n", 3), ('{"prompt": "x", "images": ["/no/such"]}\n', 3),
                   ('{"prompt": "x", "images": [5]}\n', 3), ('{"prompt": 5}\n', 3), ("{\n", 3)):
    open(jobs, "w").write(text)
    load("http://127.0.0.1:1/", "--workload", jobs, rc=code)
for args in (["--url", "ftp://x/"], ["--rate", "-1"], ["--rate", "x"], ["--arrivals", "bursty"]):
    p = subprocess.run([BIN, "load", *args], capture_output=True, text=True, timeout=20)
    check(f"{args} is refused", p.returncode == 2 and "vitreous:" in p.stderr, p.stderr)

# ---- cost takes the sweep -------------------------------------------------------------------------------------
sweep = os.path.join(tmp.name, "sweep.json")
json.dump(a, open(sweep, "w"))
p = subprocess.run([BIN, "cost", "--json", "--load-file", sweep], capture_output=True, text=True, timeout=30)
check("cost plots a saved sweep", p.returncode == 0 and len(json.loads(p.stdout)["sweep"]) == 1, p.stderr)
tmp.cleanup()
print(f"{passed} passed, {failed} failed")
sys.exit(failed > 0)
