#!/usr/bin/env python3
"""Recomputes the cost report independently, from the formulas in its documentation.

Nothing here reads the C code: the model's shape is counted from its dimensions, the times follow from
the profile file's figures, the money from the prices. Standard library only.
"""
import json
import math
import os
import re
import subprocess
import sys
import tempfile

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
BIN = os.environ.get("VITREOUS", os.path.join(ROOT, "build/release/vitreous"))
passed = failed = 0


def check(name, ok, note=""):
    global passed, failed
    if ok:
        passed += 1
    else:
        failed += 1
        print(f"FAIL {name}: {note}")


def near(name, got, want, tol=1e-6):
    ok = got is not None and abs(got - want) <= tol * max(1e-12, abs(want))
    check(name, ok, f"got {got}, expected {want}")


def run(*args):
    return subprocess.run([BIN, "cost", *args], capture_output=True, text=True, timeout=60)


def report(*args):
    p = run("--json", *args)
    check(f"cost {' '.join(args)} succeeds", p.returncode == 0, p.stderr)
    return json.loads(p.stdout)


# ---- the 2B shape, counted by hand -----------------------------------------------------------------
VIT = 24 * (3 * 1024 * 1024 + 1024 * 1024 + 2 * 1024 * 4096) + 1024 * 1536
MERGE = 4 * (4096 * 4096 + 4096 * 2048)
DECODER = 28 * (2048 * 2048 + 2 * 2048 * 1024 + 2048 * 2048 + 3 * 2048 * 6144)
HEAD = 151936 * 2048
MODES = {  # decoder bits, head bits, vision bits, peak, KV bytes
    "fp32": (32, 32, 32, "fp32", 4), "exact": (16, 16, 16, "fp32", 4), "bf16": (16, 16, 16, "bf16", 2),
    "fp16": (16, 16, 16, "fp16", 2), "int8": (8.5, 8.5, 8.5, "int8", 2),
}
machines_file = json.load(open(os.path.join(ROOT, "tools/cost/machines.json")))
MACHINES = {m["id"]: m for m in machines_file["machines"]}


def eff(m, mode, key):
    sets = machines_file["efficiency"]
    own = m.get("efficiency", {})
    if isinstance(own, str):
        own = sets[own]
    kind = sets[m["kind"]]
    for one in (own.get(mode, {}), own, kind.get(mode, {}), kind):
        if key in one:
            return one[key][0]


def seconds(m, mode, n, rows, out, batch=1):
    """preprocess, encode, prefill, decode of the reference workload."""
    body, head, vision, peak, kv = MODES[mode]
    flops, read = m["peak"][peak][0] * 1e9, m["read_gbs"][0] * 1e9 * eff(m, mode, "decode")
    lin = 2 * n * VIT + 2 * (n / 4) * MERGE
    att = 24 * 4 * n * n * 1024
    encode = max(lin / (flops * eff(m, mode, "encode")) + att / (flops * eff(m, mode, "attention")),
                 (VIT + MERGE) * vision / 8 / read)
    stream = (DECODER * body + HEAD * head) / 8
    prefill = max((2 * rows * DECODER + 2 * HEAD) / (flops * eff(m, mode, "prefill"))
                  + 28 * 4 * rows * rows / 2 * 2048 / (flops * eff(m, mode, "attention")), stream / read)
    decode = 0.0
    for i in range(1, out):
        ctx = rows + i
        compute = (2 * batch * (DECODER + HEAD) / (flops * eff(m, mode, "prefill"))
                   + 28 * 4 * batch * ctx * 2048 / (flops * eff(m, mode, "attention")))
        decode += max(compute, (stream + batch * ctx * 2 * 28 * 1024 * kv) / read)
        decode += eff(m, mode, "token_overhead_s")
    return 448 * 448 / 1e6 * eff(m, mode, "preprocess_s_per_mp"), encode, prefill, decode


r = report("--concurrency", "8", "--planned")
work = {w["stage"]: w for w in r["work"]}
near("encode FLOP of performance.md", work["encode"]["GFLOP"], 575.9, 1e-3)
near("encode FLOP", work["encode"]["GFLOP"],
     (2 * 784 * VIT + 2 * 196 * MERGE + 24 * 4 * 784 * 784 * 1024) / 1e9)
near("prefill FLOP", work["prefill"]["GFLOP"],
     (2 * 236 * DECODER + 2 * HEAD + 28 * 4 * 236 * 236 / 2 * 2048) / 1e9)
near("bytes of a decode pass", work["prefill"]["GB read"], (DECODER + HEAD) * 2 / 1e9)

for row in r["latency"]:
    if row["figures"].startswith("infeasible"):
        check("what does not fit has no time", row["total s"] is None, row)
        continue
    pre, enc, fill, dec = seconds(MACHINES[row["machine"]], row["mode"], 784, 236, 256)
    name = f"{row['machine']} {row['mode']}"
    near(name + " encode", row["encode s"], enc)
    near(name + " prefill", row["prefill s"], fill)
    near(name + " decode", row["decode s"], dec)
    near(name + " total", row["total s"], pre + enc + fill + dec)
    check(name + " is called predicted", row["figures"].startswith("predicted"), row["figures"])
fits = {(x["machine"], x["mode"]): x for x in r["latency"]}
check("float32 does not fit 4 GiB", "GiB" in fits["c7.large", "fp32"]["figures"])

# ---- always on ---------------------------------------------------------------------------------------
year = {x["machine"]: x for x in r["always_on"]}
near("0.298 CNY/h", year["c7.large"]["per year"], 2610.48, 1e-9)
near("2.896 CNY/h", year["t4"]["per year"], 25368.96, 1e-9)
check("the quoted 2,608.72 is not price x 8,760", abs(0.298 * 8760 - 2608.72) > 1
      and any("2,608.72" in n and "do not equal" in n for n in r["notes"]))

# ---- cost at a utilisation ---------------------------------------------------------------------------
def price(m):
    p = MACHINES[m]["price"]
    return p["on_demand"][0] * (machines_file["cny_per_usd"][0] if p["currency"] == "USD" else 1)


def rate(m, mode, batch):
    pre, enc, fill, _ = seconds(MACHINES[m], mode, 784, 236, 256)
    dec = seconds(MACHINES[m], mode, 784, 236, 256, batch)[3]
    return batch / (batch * (pre + enc + fill) + dec)


for row in r["utilisation"]:
    if row["rate /s"] is None:
        continue
    name, mu = f"{row['machine']} {row['mode']}", rate(row["machine"], row["mode"], 8)
    near(name + " rate of a batch of 8", row["rate /s"], mu)
    for u in (5, 25, 50, 75, 100):
        near(f"{name} 1000 requests at {u} %", row[f"1000 at {u} %"],
             1000 * price(row["machine"]) / (mu * 3600 * u / 100))
    near(name + " million tokens", row["1M tokens at 50 %"],
         1e6 * price(row["machine"]) / (mu * 256 * 3600 * 0.5))
for row in r["load"]:
    if row["instances"] is not None:
        n = max(1, math.ceil(1 / (rate(row["machine"], row["mode"], 8) * 0.7)))
        check("instances", row["instances"] == n, row)
        near("their price", row["per year"], n * price(row["machine"]) * 8760)


# ---- break-even, by trying loads -----------------------------------------------------------------------
def fleet(load, p, mu):
    return p * max(1, math.ceil(load / mu - 1e-9))


for row in r["break_even"]:
    p1, r1, p2, r2 = (row[k] for k in ("price1 /h", "rate1 /s", "price2 /h", "rate2 /s"))
    even, name = row["break-even /s"], f"{row['first']} against {row['second']}"
    if even is None:
        check(name, all(fleet(k * r1 * 0.37, p1, r1) <= fleet(k * r1 * 0.37, p2, r2)
                        for k in range(1, 2000)))
        continue
    below = [even * i / 500 for i in range(1, 501)] if even > 0 else []
    check(name + ": the first is no dearer up to it",
          all(fleet(x, p1, r1) <= fleet(x, p2, r2) for x in below), row)
    check(name + ": the second is cheaper just above",
          fleet(even + r1 * 1e-3, p2, r2) < fleet(even + r1 * 1e-3, p1, r1), row)

# ---- the decision matrix -------------------------------------------------------------------------------
detail = r["decision_detail"]
for row in r["decision"]:
    options = [x for x in detail if x["scenario"] == row["use"] and x["per year"] is not None]
    cheapest = min(options, key=lambda x: x["per year"])
    check(f"{row['use']}: the cheapest is chosen",
          row["choose"].startswith(f"{cheapest['machine']} "), (row["choose"], cheapest))
    check(f"{row['use']}: within its limit", row["latency s"] <= row["limit s"], row)
    near(f"{row['use']}: latency margin", row["latency margin %"],
         100 * (1 - row["latency s"] / row["limit s"]))
    others = [x["per year"] for x in options if x["machine"] != cheapest["machine"]]
    near(f"{row['use']}: price margin", row["price margin %"],
         100 * (min(others) / cheapest["per year"] - 1), 1e-6)
LIMITS = {"within 3 s": 3, "within 8 s": 8, "within 30 s": 30, "within 120 s": 120}
for row in r["decision_grid"]:
    for column, limit in LIMITS.items():
        alone, together = [], []  # one request at a time, and as many as the table of rates has
        for x in r["latency"]:
            if x["total s"] is not None and x["total s"] <= limit:
                alone.append((x, 1 / x["total s"]))
        for x in r["utilisation"]:
            if x["rate /s"] is not None and x["together"] / x["rate /s"] <= limit:
                together.append((x, x["rate /s"]))
        offers = [(max(1, math.ceil(row["requests/day"] / 86400 / 0.7 / rate - 1e-9)) * price(x["machine"]) * 8760, x)
                  for x, rate in alone + together]
        cell = row[column]
        if not offers:
            check("grid: infeasible", cell == "infeasible", cell)
            continue
        least = min(o[0] for o in offers)
        n, machine = int(cell.split(" x ")[0]), cell.split(" x ")[1].split()[0]
        year = float(cell.split(": ")[1].split()[0])
        near(f"grid {row['requests/day']} {column}: the price of so many", year, round(n * price(machine) * 8760))
        check(f"grid {row['requests/day']} {column}: no dearer than those served alone or all together", year <= least + 0.5,
              (cell, least))
        check(f"grid {row['requests/day']} {column}: a machine that can", any(x["machine"] == machine for x, _ in alone), cell)
check("the summary names each use", all(any(n.startswith(x["use"]) for n in r["notes"]) for x in r["decision"]))
plain = report()
chosen = {tuple(x["choose"].split()[:2]) for x in plain["decision"]}
check("modes that are not built are not recommended", not any(
    MACHINES[m]["kind"] == "gpu" and mode in ("int8", "int4") for m, mode in chosen), chosen)
marks = {(x["machine"], x["mode"]): x["figures"] for x in plain["latency"]}
check("and are called so", marks["a10g", "int8"] == "predicted, mode not built yet"
      and marks["c7.large", "int8"] == "predicted", marks)

# ---- the physics check ---------------------------------------------------------------------------------
cpu = {x["line"]: x for x in r["claim_c7.large"]}
gpu = {x["line"]: x for x in r["claim_t4"]}
kv = 2 * 28 * 1024
need = 256 * ((DECODER + HEAD) * 4 + (236 + 128) * kv * 4) / 9.81 / 1e9
near("2 vCPU decode ratio", cpu["decode"]["ratio"], need / 20, 1e-6)
check("2 vCPU decode is impossible", cpu["decode"]["verdict"].startswith("impossible"))
check("2 vCPU memory is impossible", cpu["memory"]["verdict"].startswith("impossible"))
flop = work["encode"]["GFLOP"] + work["prefill"]["GFLOP"]
near("2 vCPU prefill share", cpu["encode + prefill"]["ratio"], flop / 6.42 / 224, 1e-6)
check("2 vCPU prefill is implausible", cpu["encode + prefill"]["verdict"].startswith("implausible"))
check("T4 has no bf16", gpu["number format"]["verdict"].startswith("impossible"))
check("T4 decode is impossible", gpu["decode"]["verdict"].startswith("impossible")
      and gpu["decode"]["ratio"] > 1.3, gpu["decode"])
check("T4 prefill is far above its floor", "times slower than the floor" in gpu["encode + prefill"]["verdict"])
check("the claims' totals rest on them", all(t["total"]["verdict"].startswith("impossible") for t in (cpu, gpu)))

# ---- sensitivity, currency, SLO --------------------------------------------------------------------------
for row in r["sensitivity"]:
    near("change in %", row["high %"], 100 * (row["high"] / row["base"] - 1), 1e-6)
    if row["changed"].startswith("price"):
        near("price +30 %", row["high"], 1.3 * row["base"])
usd = report("--currency", "USD", "--cny-per-usd", "7")
near("CNY to USD", {x["machine"]: x for x in usd["always_on"]}["t4"]["per year"], 25368.96 / 7)
tight = report("--slo", "0.05")
check("an SLO nobody meets", all(x["figures"].startswith("infeasible") for x in tight["load"]
                                 if x["machine"] != "h100"), tight["load"])
big = report("--like", "32b", "--machine", "t4")
check("32B does not fit a T4", all("GiB" in x["figures"] for x in big["latency"]))

# ---- a measured machine: the fit finds the efficiencies that a made-up bench was made with ---------------
E_LIN, E_ATT, E_FILL, E_READ, FP32, READ = 0.83, 0.41, 0.79, 0.91, 520.0, 48.0


def made_up_bench(path, noise=lambda i: 1.0):
    stages = []

    def row(stage, size, s, batch=1, threads=2):
        stages.append({"stage": stage, "case": "x", "mode": "exact", "size": size, "batch": batch, "n": 3,
                       "threads": threads, "median_s": s * noise(len(stages)), "samples": [s] * 3})

    for side in (448, 672, 1024):
        n = side * side / 256
        rows = n / 4 + 40
        row("preprocess", side * side, side * side * 2e-8)
        row("encode", n, (2 * n * VIT + n / 2 * MERGE) / (FP32 * 1e9 * E_LIN)
            + 24 * 4 * n * n * 1024 / (FP32 * 1e9 * E_ATT))
        row("prefill", rows, (2 * rows * DECODER + 2 * HEAD) / (FP32 * 1e9 * E_FILL)
            + 28 * 2 * rows * rows * 2048 / (FP32 * 1e9 * E_ATT))
        row("decode", rows, (2 * (DECODER + HEAD) + rows * 2 * 28 * 1024 * 4) / (READ * 1e9 * E_READ))
        row("first token", rows, 99)
        row("encode", n, 77, threads=1)
    json.dump({"date": "2026-11-22", "machine": {"name": "made up", "memory_gib": 24}, "model": {"threads": 2},
               "peaks": {"fp32_gflops": FP32, "read_gbs": READ}, "stages": stages}, open(path, "w"))


with tempfile.TemporaryDirectory() as d:
    bench = os.path.join(d, "bench.json")
    made_up_bench(bench)
    m = report("--measured", bench, "--local-price", "0.5")
    fitted = {x["figure"].split(",")[0]: float(x["value"].split()[0]) for x in m["sources"] if x["machine"] == "this machine"}
    for key, want in (("encode", E_LIN), ("attention", E_ATT), ("prefill", E_FILL), ("decode", E_READ)):
        near(f"fitted {key}", fitted[key], want, 1e-3)
    check("every held-out row is predicted", all(abs(x["error %"]) < 0.1 for x in m["check"]), m["check"])
    check("some rows are held out, none with fewer threads or sums", len(m["check"]) == 12 and
          sum(x["use"] == "held out" for x in m["check"]) == 7, m["check"])
    mine = [x for x in m["latency"] if x["machine"] == "this machine"][0]
    check("what was measured is called so", mine["figures"] == "measured")
    made_up_bench(bench, lambda i: 1.3 if i == 7 else 1.0)  # encode of 672 x 672, 30 % slower
    off = [x for x in report("--measured", bench)["check"] if x["stage"] == "encode" and x["size"] == 1764][0]
    near("a stage off the model shows as its error", off["error %"], 100 * (1 / 1.3 - 1), 1e-3)

# ---- outputs -----------------------------------------------------------------------------------------------
with tempfile.TemporaryDirectory() as d:
    page = os.path.join(d, "r.html")
    p = run("--md", "--html", page)
    text = open(page).read()
    check("Markdown", p.stdout.startswith("# ") and "|---" in p.stdout)
    check("HTML has its plots", text.count("<svg") >= 3, text.count("<svg"))
    check("HTML fetches nothing", not re.search(r"(src|href)=|url\(|@import", text))
    check("CSV", run("--csv").stdout.startswith("# latency"))
    check("an unknown workload", run("--workload", "nope").returncode == 2)
    check("an unknown machine", run("--machine", "nope").returncode == 2)
    check("an unknown plan", run("--plan", "free").returncode == 2)
    check("a page that cannot be written", run("--html", os.path.join(d, "no", "x.html")).returncode == 3)
    w = os.path.join(d, "w.json")
    for bad in ('{"width": "wide"}', '{"output_tokens": 1e9}', "[1", '{"width": -5}'):
        open(w, "w").write(bad)
        check(f"a broken workload {bad}", run("--workload", w).returncode == 3)
    for change in (lambda m: m.pop("read_gbs"), lambda m: m.update(memory_gib=[4]),
                   lambda m: m.update(memory_gib=[-1, "specified", "x", "y"]),
                   lambda m: m.update(memory_gib=[4, "guessed", "x", "y"]),
                   lambda m: m.update(modes=[]), lambda m: m["price"].update(currency="EUR"),
                   lambda m: m.update(id="t4"), lambda m: m.update(efficiency="nowhere")):
        copy = json.loads(json.dumps(machines_file))
        change(copy["machines"][0])
        open(w, "w").write(json.dumps(copy))
        p = run("--profiles", w)
        check("a broken profile", p.returncode in (2, 3) and "vitreous:" in p.stderr, p.stderr)
print(f"{passed} passed, {failed} failed")
sys.exit(failed > 0)
