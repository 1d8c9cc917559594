#!/usr/bin/env python3
"""`vitreous bench` on a small golden model: statistics recomputed from its samples, operations from the
model's config.json, the comparison's verdicts on made-up runs, and the way into `vitreous cost`."""
import json
import os
import random
import subprocess
import sys
import tempfile

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
BIN = os.environ.get("VITREOUS", os.path.join(ROOT, "build/release/vitreous"))
MODEL = os.path.join(ROOT, "tests/golden/models/std")
passed = failed = 0
tmp = tempfile.TemporaryDirectory()


def check(name, ok, note=""):
    global passed, failed
    if ok:
        passed += 1
    else:
        failed += 1
        print(f"FAIL {name}: {note}")


def near(name, got, want, tol=1e-6):
    check(name, abs(got - want) <= tol * max(1e-300, abs(want)), f"got {got}, expected {want}")


def run(*args, rc=0, command="bench"):
    p = subprocess.run([BIN, command, *args], capture_output=True, text=True, timeout=300)
    check(f"{command} {' '.join(args)}: exit code", p.returncode == rc, (p.returncode, p.stderr[-300:]))
    return p.stdout


def percentile(v, p):
    v = sorted(v)
    at = p / 100 * (len(v) - 1)
    i = int(at)
    return v[i] + (at - i) * (v[min(i + 1, len(v) - 1)] - v[i])


saved = os.path.join(tmp.name, "a.json")
page = os.path.join(tmp.name, "a.html")
text = run("-m", MODEL, "--size", "128x128", "--size", "128x96", "--size", "text", "--rounds", "5", "-n", "9",
           "--batch", "2", "--sweep-threads", "--threads", "2", "--save", saved, "--html", page)
check("the table names its peaks", "GB/s" in text and "% of roof" in text)
check("the page has no foreign parts", "src=" not in open(page).read())
r = json.load(open(saved))
for key in ("name", "cores", "memory_gib", "caches", "governor", "huge_pages", "kernel", "compiler", "commit"):
    check(f"the machine has {key}", key in r["machine"])
check("the run names the model", len(r["model"]["fingerprint"]) == 64 and r["model"]["threads"] == 2)
check("peaks", r["peaks"]["read_gbs"] > 0 and r["peaks"]["fp32_gflops"] > 0
      and r["peaks"]["exact_gflops"] >= 0.5 * r["peaks"]["fp32_gflops"], r["peaks"])
rows = {(s["stage"], s["case"]): s for s in r["stages"]}
for s in r["stages"]:
    v, name = s["samples"], f"{s['stage']} {s['case']}"
    check(name + " sample count", len(v) == s["n"])
    near(name + " mean", s["mean_s"], sum(v) / len(v))
    for key, p in (("median_s", 50), ("p90_s", 90), ("p95_s", 95), ("p99_s", 99), ("best_s", 0)):
        near(f"{name} {key}", s[key], percentile(v, p))
    check(name + " interval holds the median", s["n"] < 3 and s["low_s"] is None or s["low_s"] <= s["median_s"] <= s["high_s"], s)
check("one sample a round", rows["prefill", "128x128"]["n"] == 5)
check("one sample a token but the first", rows["decode", "128x128"]["n"] == 5 * 8)
check("the thread sweep", rows["decode", "128x128, 1 thread"]["threads"] == 1)
check("a batch", rows["decode", "batch 2"]["batch"] == 2)

# ---- operations, from config.json ---------------------------------------------------------------------
c = json.load(open(os.path.join(MODEL, "config.json")))
t, v = c["text_config"], c["vision_config"]
P = (128 // v["patch_size"]) ** 2 if rows["encode", "128x128"]["size"] == (128 // v["patch_size"]) ** 2 \
    else rows["encode", "128x128"]["size"]
D, F, m2 = v["hidden_size"], v["intermediate_size"], v["spatial_merge_size"] ** 2
vit = v["depth"] * (4 * D * D + 2 * D * F) + D * 3 * v["temporal_patch_size"] * v["patch_size"] ** 2
merge = (1 + len(v["deepstack_visual_indexes"])) * (D * m2 * D * m2 + D * m2 * v["out_hidden_size"])
e = rows["encode", "128x128"]
near("encode GFLOP/s", e["gflops"], (2 * P * vit + 2 * P / m2 * merge + 4 * v["depth"] * D * P * P)
     / e["median_s"] / 1e9)
E = t.get("head_dim") or t["hidden_size"] // t["num_attention_heads"]
q, kv = t["num_attention_heads"] * E, t["num_key_value_heads"] * E
dec = t["num_hidden_layers"] * t["hidden_size"] * (2 * q + 2 * kv + 3 * t["intermediate_size"])
head = t["vocab_size"] * t["hidden_size"]
p = rows["prefill", "128x128"]
near("prefill GFLOP/s", p["gflops"], (2 * p["size"] * dec + 2 * head + 4 * t["num_hidden_layers"] * q
                                      * p["size"] ** 2 / 2) / p["median_s"] / 1e9)
d = rows["decode", "128x128"]
near("decode GB/s", d["gbs"], (2 * (dec + head) + 2 * t["num_hidden_layers"] * kv * d["size"] * 4)
     / d["median_s"] / 1e9)
near("share of the roof", e["roof_percent"], 100 * max(e["gflops"] / r["peaks"]["exact_gflops"],
                                                     e["gbs"] / r["peaks"]["read_gbs"]))
check("nothing is above its roof", all(s.get("roof_percent", 0) <= 100 or s["case"].startswith("text")
                                       or s["stage"] == "decode" for s in r["stages"]))  # caches hold this model

# ---- decoding apart, what was asked, sweeps, predictions ------------------------------------------------
check("decoding and resizing apart", all(abs(a + b - x) < 1e-6 for a, b, x in zip(
    rows["image decode", "128x128"]["samples"], rows["resize", "128x128"]["samples"],
    rows["preprocess", "128x128"]["samples"])))
asked = {w["case"]: w for w in r["workload"]}
check("what was asked", asked["128x128"]["prompt_tokens"] == p["size"] and asked["text"]["picture_sha256"] == ""
      and len({w["picture_sha256"] for w in r["workload"]}) == 3, r["workload"])
grid = json.loads(run("-m", MODEL, "--size", "text40", "--rounds", "1", "-n", "3", "--threads", "2", "--sweep-threads",
                      "--sweep-tiers", "--sweep-dtypes", "--predict", "--hash-weights", "--json"))
tiers = {k["tier"] for k in json.loads(subprocess.run([BIN, "kernels", "--json"], capture_output=True).stdout)
         if k["reason"] != "this CPU lacks it"}
seen = {(s["mode"], *s["case"].split(", ")[1:]) for s in grid["stages"] if ", " in s["case"]}
check("every tier with every thread count in every mode", {(t, n) for m, t, n in seen if m == "exact"}
      == {(t, n) for t in tiers for n in ("1 thread", "2 threads")} and "bf16" in {x[0] for x in seen}, seen)
check("the sweep ends where it began", grid["model"]["dtype"] == "exact" and grid["model"]["threads"] == 2)
files = sorted(x for x in os.listdir(MODEL) if x.endswith(".safetensors"))
import hashlib  # noqa: E402
digest = hashlib.sha256(b"".join(open(os.path.join(MODEL, x), "rb").read() for x in files)).hexdigest()
check("the weights' digest", grid["model"]["weights_sha256"] == digest)
for x in grid["predictor"]:
    near("the predictor's error", x["error_percent"], 100 * (x["predicted_s"] / x["measured_s"] - 1))
check("stages are predicted", {x["stage"] for x in grid["predictor"]} == {"prefill", "decode"}, grid["predictor"])
check("rates of single operations", len(grid["rates"]) == 30 and all(x["rate"] > 0 for x in grid["rates"]
                                                                 if x["op"] != "GELU"), grid["rates"])
run("-m", MODEL, "--size", "text40", "--rounds", "1", "-n", "2", "--predict", "--tolerance", "0.0001", rc=1)

# ---- pieces put together ----------------------------------------------------------------------------------
second = os.path.join(tmp.name, "b.json")
other = json.loads(json.dumps(r))
other["peaks"]["read_gbs"] = 2 * r["peaks"]["read_gbs"]
for s in other["stages"]:
    s["samples"] = [x + 1 for x in s["samples"]]
json.dump(other, open(second, "w"))
m = json.loads(run("--merge", saved, "--merge", second, "--json", "--row-tip",
                   "a tip|prefill|exact|128x128|exact|text", "--row-tip", "another|encode|exact|none|exact|128x128"))
both = {(s["stage"], s["case"]): s for s in m["stages"]}
check("the same rows", both.keys() == rows.keys())
v = both["prefill", "128x128"]
check("samples of both", v["n"] == 10 and all(
    abs(a - b) < 1e-6 for a, b in zip(v["samples"], p["samples"] + [x + 1 for x in p["samples"]])))
near("merged median", v["median_s"], percentile(v["samples"], 50))
near("merged rate", v["gflops"], v["flop"] / v["median_s"] / 1e9)
near("the best peak", m["peaks"]["read_gbs"], 2 * r["peaks"]["read_gbs"])
check("both pieces are named", [x["file"] for x in m["pieces"]] == [saved, second])
near("a tip from rows", m["tips"][0]["change_percent"],
     100 * (both["prefill", "text"]["median_s"] / v["median_s"] - 1))
check("a missing row is said", "not measured" in m["tips"][1]["verdict"], m["tips"])
other["model"]["fingerprint"] = "0" * 64
json.dump(other, open(second, "w"))
run("--merge", saved, "--merge", second, rc=3)
for broken in ("{}", "[", '{"peaks": {}}'):
    open(second, "w").write(broken)
    run("--merge", second, rc=3)
run("--merge", saved, "--row-tip", "too|few", rc=2)
raws = []
for name, at in (("x", 1.0), ("y", 0.5)):
    raws.append(os.path.join(tmp.name, name + ".jsonl"))
    with open(raws[-1], "w") as f:
        for i in range(12):
            f.write(json.dumps({"e2e_s": at + i / 100}) + "\n")
        f.write('{"error": "HTTP 500"}\n')
t = json.loads(run("--merge", saved, "--json", "--load-tip", f"queue|answer|off|{raws[0]}|on|{raws[1]}"))["tips"][-1]
check("a tip from two loads", t["n_a"] == 12 and t["verdict"] == "faster" and abs(t["a_s"] - 1.055) < 1e-9, t)
run("--merge", saved, "--load-tip", f"queue|answer|off|{raws[0]}|on|/no/such", rc=3)
tip = json.loads(run("-m", MODEL, "--size", "text40", "--rounds", "1", "-n", "8", "--tip", "fused", "--tip", "pin",
                     "--json"))["tips"]
check("tips by name", {x["tip"] for x in tip} == {"fused epilogue", "pinned threads"}, tip)
run("-m", MODEL, "--rounds", "1", "--tip", "magic", rc=2)

# ---- comparison ---------------------------------------------------------------------------------------
rng = random.Random(1)


def made_up(path, scale, n=20):
    o = json.loads(json.dumps(r))
    o["stages"] = [dict(rows["prefill", "128x128"], samples=[scale * (1 + 0.02 * rng.random()) for _ in range(n)])]
    o["stages"][0]["median_s"] = percentile(o["stages"][0]["samples"], 50)
    path = os.path.join(tmp.name, path)
    json.dump(o, open(path, "w"))
    return path


base = made_up("base.json", 1.0)
for name, scale, verdict in (("same", 1.0, "no significant difference"), ("slow", 1.1, "slower"),
                             ("fast", 0.9, "faster")):
    out = json.loads(run("--json", "--compare", base, made_up(name + ".json", scale)))
    check(f"compare: {name}", out["compare"][0]["verdict"] == verdict, out["compare"])
few = json.loads(run("--json", "--compare", base, made_up("few.json", 2.0, 2)))
check("compare: two samples prove nothing", "too few" in few["compare"][0]["verdict"])
run("--compare", base, rc=2)
run("--compare", base, os.path.join(tmp.name, "none.json"), rc=3)
for args in (["--size", "12"], ["--size", "0x0"], ["--size", "448x448x3"], ["--rounds", "0"], ["--batch", "0"],
             ["stray"]):
    run("-m", MODEL, "--rounds", "1", *args, rc=2)
lines = run("-m", MODEL, "--side", "64", "--rounds", "1", "-n", "2", "--jsonl").splitlines()
check("a line of JSON per row", len(lines) >= 5 and all(json.loads(x)["stage"] for x in lines))

# ---- into the cost report -----------------------------------------------------------------------------
w = os.path.join(tmp.name, "w.json")
json.dump({"name": "as measured", "width": 128, "height": 128, "output_tokens": 9,
           "text_tokens": p["size"] - e["size"] / m2}, open(w, "w"))
out = json.loads(run("--json", "-m", MODEL, "--measured", saved, "--workload", w, "--local-price", "1",
                     command="cost"))
mine = [x for x in out["latency"] if x["machine"] == "this machine"]
check("this machine is in the report, as measured", len(mine) == 1 and mine[0]["figures"] == "measured", mine)
near("with its measured encode", mine[0]["encode s"], e["median_s"])
near("and its measured prefill", mine[0]["prefill s"], p["median_s"])
check("the predictor is checked", {x["use"] for x in out["check"]} >= {"fitted"}, out["check"])
check("only at the headline thread count", all(x["measured s"] != rows["prefill", "128x128, 1 thread"]["median_s"]
                                               for x in out["check"]))
for broken in ("{}", "[]", "{", '{"peaks": {"read_gbs": 5}}', '{"machine": {"memory_gib": 4}, "peaks": 7}'):
    open(w, "w").write(broken)
    run("--measured", w, rc=3, command="cost")
tmp.cleanup()
print(f"{passed} passed, {failed} failed")
sys.exit(failed > 0)
