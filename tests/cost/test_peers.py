"""test_peers.py: the arithmetic of tools/peers (work, shares, medians, ratios, roofs) against hand-made
numbers, and a run with no engine installed, which must say so in rows and fail."""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

root = pathlib.Path(__file__).resolve().parents[2]
binary = root / os.environ.get("VL_BUILD", "build/release") / "vitreous"
sys.path.insert(0, str(root / "tools" / "peers"))
import peers

passed = failed = 0


def check(condition, what):
    global passed, failed
    passed, failed = passed + bool(condition), failed + (not condition)
    if not condition:
        print("FAIL", what)


def near(a, b, share, what):
    check(abs(a - b) <= share * abs(b), f"{what}: {a}, expected {b}")


# ---- work: the 2B shape, by hand ---------------------------------------------------------------------
CONFIG = {
    "vision_config": {"patch_size": 16, "hidden_size": 1024, "intermediate_size": 4096, "depth": 24,
                      "spatial_merge_size": 2, "in_channels": 3, "temporal_patch_size": 2,
                      "deepstack_visual_indexes": [5, 11, 17], "out_hidden_size": 2048},
    "text_config": {"hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28,
                    "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
                    "vocab_size": 151936}}
w = peers.work(CONFIG, 448, 230)
near(w["encode"], 476.0e9 + 39.5e9 + 60.4e9, 1e-3, "encode of 784 patches")
near(w["prefill"], 648.3e9 + 6.1e9 + 0.6e9, 1e-3, "prefill of 230 rows")
near(w["weights"], 1409.3e6 + 311.2e6, 1e-3, "weights of a token")
near(peers.work(CONFIG, 1024, 230)["encode"], 4342e9, 1e-3, "encode of 4096 patches")

# ---- rows, ratios and roofs ---------------------------------------------------------------------------
PEAK = {"read_gbs": 50, "fp32_gflops": 200, "exact_gflops": 200, "bf16_gflops": 400, "int8_gops": 800}


def sample(engine, encode, first, step):
    return {"engine": engine, "side": 448, "prompt_tokens": 230, "encode_s": encode,
            "prefill_s": first - encode, "first_token_s": first, "step_s": step}


result = {"date": "d", "machine": "m", "threads": 2, "peaks": [PEAK, {k: v / 2 for k, v in PEAK.items()}],
          "engines": {"vitreous-exact": {"mode": "exact", "why": None, "version": "v"},
                      "hf-fp32": {"mode": "float32", "why": None, "version": "h"},
                      "openvino-int8": {"mode": "int8", "why": "not installed: x", "version": ""}},
          "samples": [sample("vitreous-exact", 4, 8, 0.1), sample("vitreous-exact", 3.5, 7, 0.1),
                      sample("vitreous-exact", 30, 60, 1.0), sample("hf-fp32", 5, 16, 0.5)]}
row = peers.row_of(result, CONFIG, "vitreous-exact", 448)
check(row["n"] == 3 and row["first_token_s"] == 8, "the median of three rounds")
near(row["encode_percent"], 100 * 575.9 / 4 / 200, 1e-2, "share of the best fp32 peak")
near(row["decode_percent"], 100 * 1.7205 * 2 / 0.1 / 50, 1e-2, "share of the best read peak")
other = peers.row_of(result, CONFIG, "hf-fp32", 448)
near(other["decode_gbs"], 1.7205 * 4 / 0.5, 1e-2, "float32 weights are four bytes")
check(peers.row_of(result, CONFIG, "openvino-int8", 448) is None, "no sample, no row")
result["comparisons"] = list(peers.compare(result))
ratios = {c["key"]: c["ratio"] for c in result["comparisons"]}
check(ratios == {"encode_s": 0.8, "first_token_s": 0.5}, f"ratios {ratios}")
result["rows"] = [row, other]
text = peers.markdown(result)
check("| vitreous-exact | 448² | 3 | 230 | 4.00 |" in text, "a row of the table")
check("| openvino-int8 | not installed: x |" in text, "an engine that is not there is a row")
check(len(set(line.count("|") for line in text.splitlines() if line.startswith("|"))) == 1,
      "all rows have as many cells")
check(peers.above_roof([other]) == [], "below its roof")
impossible = peers.row_of(result | {"samples": [sample("hf-fp32", 1, 8, 0.5)]}, CONFIG, "hf-fp32", 448)
check(len(peers.above_roof([impossible])) == 1, "288 % of the peak is an error")

# ---- nothing installed -------------------------------------------------------------------------------
with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text(json.dumps(CONFIG))
    run = subprocess.run([sys.executable, root / "tools" / "peers" / "peers.py", "run", folder, "--json",
                          folder / "out.json"], capture_output=True, text=True)
    check(run.returncode == 1, f"exit code {run.returncode} without any figure: {run.stderr[-300:]}")
    rows = json.loads((folder / "out.json").read_text())["engines"]
    check(len(rows) == len(peers.ENGINES) and all("not installed" in e["why"] for e in rows.values()),
          f"every engine says why: {rows}")

    # the files other engines want beside a random checkpoint
    subprocess.run([binary, "make-random", "--like", "demo", "--seed", "1", folder / "demo"], check=True,
                   capture_output=True)
    peers.hugging_face_folder(folder / "demo", folder / "hf")
    tokenizer = json.loads((folder / "hf" / "tokenizer.json").read_text())
    ids = set(tokenizer["model"]["vocab"].values())
    check(ids >= set(range(min(t["id"] for t in tokenizer["added_tokens"]))), "no gap below special tokens")
    peers.picture_file(folder / "p.ppm", 32)
    check((folder / "p.ppm").stat().st_size == len(b"P6 32 32 255\n") + 32 * 32 * 3, "picture size")

print(f"{passed} passed, {failed} failed")
sys.exit(1 if failed else 0)
