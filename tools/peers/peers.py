#!/usr/bin/env python3
"""Vitreous beside other CPU engines: the same random 2B-shaped weights, the same picture, one table.

    peers.py install WORK        torch + transformers, OpenVINO GenAI + optimum-intel, llama-cpp-python, each
                                 from PyPI in a venv of its own under WORK (7 GB); an engine that does not install gets a
                                 row that says so
    peers.py prepare WORK        random weights (4.3 GB), what the engines want beside them, two pictures,
                                 GGUF files (4.3 GB), OpenVINO's int8 export (12 minutes, 10 GB of memory)
    peers.py run WORK            measures; --json FILE, --md FILE

How it measures: engines of like precision are loaded together, each a process of its own (engines.py), and
take turns. Before every turn the machine's peaks are taken, and while one engine works the others are
stopped (SIGSTOP), so that no idle thread pool spins beside it. The first turn of each is a warm-up and
discarded. Figures are medians; % is of the best peak seen in the run; a figure above its roof is an
error and the exit code 1.
"""
import argparse
import contextlib
import fcntl
import json
import os
import pathlib
import select
import signal
import statistics
import subprocess
import sys
import time

from engines import ENGINES

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BINARY = ROOT / "build" / "release" / "vitreous"
VENVS = {
    "hf": ["torch", "torchvision", "transformers>=5.23,<6", "pillow", "numpy"],
    "openvino": ["torch", "torchvision", "transformers==4.57.*", "optimum-intel", "nncf", "openvino",
                 "openvino-genai", "openvino-tokenizers", "pillow"],
    "llama": ["llama-cpp-python", "gguf", "numpy", "pillow"],  # built from source: half an hour of CPU
}
# Loaded together: (engines, picture sides). Float32 at 1024 takes a minute a turn and teaches nothing new.
GROUPS = [(["vitreous-exact", "hf-fp32"], [448]),
          (["vitreous-bf16", "hf-bf16", "llama.cpp-bf16"], [448, 1024]),
          (["vitreous-int8", "openvino-int8"], [448, 1024])]
# What each engine's arithmetic and bytes are held against, and bytes of a decoder weight.
ROOF = {"exact": ("exact_gflops", 2), "float32": ("fp32_gflops", 4), "bf16": ("bf16_gflops", 2),
        "bfloat16": ("bf16_gflops", 2), "int8": ("int8_gops", 1)}
QUESTION = "Eh?"  # with the template and 196 image tokens: a prompt of 220
TURN_LIMIT_S = 115


# ---- work of a request, from the shape ---------------------------------------------------------

def work(config, side, prompt_tokens):
    """FLOP of encode and prefill, weights read by one further token. Every multiply-add is two."""
    v, t = config["vision_config"], config["text_config"]
    P = (side // v["patch_size"]) ** 2
    D, F, merge = v["hidden_size"], v["intermediate_size"], v["spatial_merge_size"] ** 2
    patch = v["in_channels"] * v["temporal_patch_size"] * v["patch_size"] ** 2
    mergers = (1 + len(v["deepstack_visual_indexes"])) * (D * merge) * (D * merge + v["out_hidden_size"])
    encode = 2 * P * (v["depth"] * (4 * D * D + 2 * D * F) + patch * D) + 2 * P // merge * mergers
    encode += v["depth"] * 4 * P * P * D
    H, L, heads, kv, E = (t[k] for k in ("hidden_size", "num_hidden_layers", "num_attention_heads",
                                         "num_key_value_heads", "head_dim"))
    layer = H * E * (2 * heads + 2 * kv) + 3 * H * t["intermediate_size"]
    head, T = H * t["vocab_size"], prompt_tokens
    prefill = 2 * T * L * layer + 2 * head + L * 2 * T * T * heads * E
    return {"encode": encode, "prefill": prefill, "weights": L * layer + head}


# ---- install and prepare -------------------------------------------------------------------------

def install(folder, only):
    for name, packages in VENVS.items():
        if only and name not in only:
            continue
        venv = folder / f"venv-{name}"
        log = folder / f"install-{name}.log"
        folder.mkdir(parents=True, exist_ok=True)
        with open(log, "w") as out:
            rc = subprocess.call([sys.executable, "-m", "venv", venv], stdout=out, stderr=out)
            rc = rc or subprocess.call([venv / "bin" / "pip", "install", *packages], stdout=out, stderr=out)
        print(f"{name}: {'installed' if rc == 0 else f'not installed, see {log}'}")


def write_json(path, value):
    path.write_text(json.dumps(value, ensure_ascii=False))


def hugging_face_folder(model, folder):
    """The same checkpoint with the files that transformers and optimum want. The tokenizer of
    make-random has 256 bytes and then, far away, the special tokens; Hugging Face's library would number
    those on from 256, so the gap is filled."""
    folder.mkdir(exist_ok=True)
    for f in model.iterdir():
        if not (folder / f.name).exists():
            (folder / f.name).symlink_to(os.path.relpath(f, folder))
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    for i in range(len(vocabulary), min(t["id"] for t in tokenizer["added_tokens"])):
        vocabulary[f"\u0100unused{i}"] = i
    picture = json.loads((model / "preprocessor_config.json").read_text())
    picture.update(image_processor_type="Qwen2VLImageProcessorFast", processor_class="Qwen3VLProcessor")
    video = {k: v for k, v in picture.items() if k != "image_processor_type"}
    for name, value in (
            ("tokenizer.json", tokenizer), ("preprocessor_config.json", picture),
            ("video_preprocessor_config.json", video | {"video_processor_type": "Qwen3VLVideoProcessor"}),
            ("tokenizer_config.json", {"tokenizer_class": "Qwen2TokenizerFast", "eos_token": "<|im_end|>",
                                       "pad_token": "<|endoftext|>",
                                       "processor_class": "Qwen3VLProcessor"})):
        (folder / name).unlink(missing_ok=True)
        write_json(folder / name, value)


def picture_file(path, side):
    """Seeded noise over a gradient, as a binary PPM: every engine reads it, none has to decode much."""
    x, pixels = 1, bytearray()
    for i in range(side * side * 3):
        x = (x * 1664525 + 1013904223) & 0xFFFFFFFF
        pixels.append((i // 3 % side * 128 // side + (x >> 25)) & 255)
    path.write_bytes(b"P6 %d %d 255\n" % (side, side) + bytes(pixels))


def prepare(folder, only):
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "model" / "config.json").exists():
        subprocess.check_call([BINARY, "make-random", "--like", "2b", "--seed", "1", folder / "model"])
    hugging_face_folder(folder / "model", folder / "hf")
    for side in (448, 1024):
        picture_file(folder / f"{side}.ppm", side)
    python, files = folder / "venv-llama" / "bin" / "python", folder / "gguf"
    if (not only or "llama" in only) and python.exists() and not (files / "vision.gguf").exists():
        subprocess.call([python, HERE / "to_gguf.py", folder / "hf", files])
    tool, exported = folder / "venv-openvino" / "bin" / "optimum-cli", folder / "openvino"
    if (not only or "openvino" in only) and tool.exists() and not (exported / "openvino_config.json").exists():
        subprocess.call([tool, "export", "openvino", "--model", folder / "hf", "--task",
                         "image-text-to-text", "--weight-format", "int8", exported])


# ---- running ----------------------------------------------------------------------------------------

class Worker:
    """An engine's process: stopped unless it is its turn."""

    def __init__(self, name, folder, threads):
        self.name, self.why, self.version = name, None, ""
        _, self.mode, needs_gb, venv = ENGINES[name]
        python = folder / f"venv-{venv}" / "bin" / "python"
        free_gb = available_gb()
        self.process = None
        if not python.exists():
            self.why = f"not installed: {python} is not there"
        elif free_gb < needs_gb:
            self.why = f"not run: needs {needs_gb} GB of memory, {free_gb:.0f} are free"
        if self.why:
            return
        self.process = subprocess.Popen([python, HERE / "engines.py", name, folder, str(threads)],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        stderr=open(folder / f"{name}.log", "w"),
                                        env=os.environ | {"OMP_NUM_THREADS": str(threads)})
        ready = self.read(600)
        self.version = ready.get("ready", "")
        self.why = ready.get("error")
        if self.why:
            self.end()
        else:
            self.process.send_signal(signal.SIGSTOP)

    def read(self, limit_s):
        if not select.select([self.process.stdout], [], [], limit_s)[0]:
            return {"error": f"no answer within {limit_s} s"}
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"error": f"ended, see {self.name}.log"}

    def ask(self, request):
        """One answer. A worker that fails has no further turns."""
        self.process.send_signal(signal.SIGCONT)
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        reply = self.read(TURN_LIMIT_S)
        self.process.send_signal(signal.SIGSTOP)
        if "error" in reply:
            self.why = reply["error"]
            self.end()
        return reply

    def end(self):
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None


def available_gb():
    for line in open("/proc/meminfo"):
        if line.startswith("MemAvailable"):
            return int(line.split()[1]) / 2 ** 20
    return 0.0


def set_realtime(pid, on):
    """All threads of a process; those it starts later inherit it."""
    policy, level = (os.SCHED_FIFO, 10) if on else (os.SCHED_OTHER, 0)
    for tid in os.listdir(f"/proc/{pid}/task"):
        os.sched_setscheduler(int(tid), policy, os.sched_param(level))


def peaks_now(realtime, threads):
    """This machine's ceilings, measured by vitreous bench beside the demo model."""
    out = subprocess.run([BINARY, "bench", "--side", "32", "--rounds", "1", "-n", "2", "--json",
                          "--threads", str(threads)],
                         capture_output=True, text=True, check=True,
                         preexec_fn=lambda: realtime and set_realtime(os.getpid(), True)).stdout
    return json.loads(out)["peaks"]


@contextlib.contextmanager
def alone(options, worker):
    """The machine to itself: a lock that other measurements take as well, and real-time priority."""
    with open(options.lock or os.devnull) as lock:
        if options.lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
        if options.realtime:
            set_realtime(worker.process.pid, True)
        yield
        if options.realtime and worker.process:
            set_realtime(worker.process.pid, False)


def run_group(names, sides, options, result):
    workers = [Worker(n, options.folder, options.threads) for n in names]
    try:
        for side in sides:
            for turn in range(options.rounds + 1 if side == sides[0] else options.rounds):
                for w in [w for w in workers if w.process]:
                    warm_up = turn == 0 and side == sides[0]
                    with alone(options, w):
                        result["peaks"].append(peaks_now(options.realtime, options.threads))
                        reply = w.ask({"picture": str(options.folder / f"{side}.ppm"), "text": QUESTION,
                                       "tokens": 2 if warm_up else options.tokens})
                    print(f"{w.name} {side} {'warm-up' if warm_up else f'round {turn}'}: {reply}",
                          file=sys.stderr, flush=True)
                    if not warm_up and "error" not in reply:
                        result["samples"].append({"engine": w.name, "side": side, **reply})
                    time.sleep(options.pause)
    finally:
        for w in workers:
            result["engines"][w.name] = {"version": w.version, "mode": w.mode, "why": w.why}
            w.end()


# ---- the table ---------------------------------------------------------------------------------------

def median_of(result, engine, side, key):
    values = [s[key] for s in result["samples"] if s["engine"] == engine and s["side"] == side]
    return statistics.median(values) if values else None


def row_of(result, config, engine, side):
    """Seconds, rates and shares of one engine at one picture; None if it has no sample."""
    tokens = median_of(result, engine, side, "prompt_tokens")
    if tokens is None:
        return None
    roof, each = ROOF[result["engines"][engine]["mode"]]
    w = work(config, side, int(tokens))
    peak = max(p.get(roof) or 0 for p in result["peaks"])
    read = max(p["read_gbs"] for p in result["peaks"])
    encode, prefill, step, first = (median_of(result, engine, side, k)
                                    for k in ("encode_s", "prefill_s", "step_s", "first_token_s"))
    row = {"engine": engine, "side": side, "n": sum(s["engine"] == engine and s["side"] == side
                                                    for s in result["samples"]),
           "prompt_tokens": int(tokens), "encode_s": encode, "prefill_s": prefill,
           "first_token_s": first, "step_s": step}
    for stage, seconds in (("encode", encode), ("prefill", prefill)):
        row[f"{stage}_gflops"] = w[stage] / seconds / 1e9
        row[f"{stage}_percent"] = 100 * row[f"{stage}_gflops"] / peak if peak else None
    row["decode_gbs"] = w["weights"] * each / step / 1e9
    row["decode_percent"] = 100 * row["decode_gbs"] / read
    return row


def share(value):
    return "-" if value is None else f"{value:.0f} %"


def markdown(result):
    best = {k: max((p.get(k) or 0 for p in result["peaks"]), default=0)
            for k in ("read_gbs", "fp32_gflops", "bf16_gflops", "int8_gops")}
    lines = [f"{result['date']}, {result['machine']}, {result['threads']} threads. Best peaks of the run: " +
             "read {read_gbs:.0f} GB/s, fp32 {fp32_gflops:.0f}, bf16 {bf16_gflops:.0f} GFLOP/s, "
             "int8 {int8_gops:.0f} GOP/s.".format(**best), "",
             "| engine | picture | rounds | prompt | encode s | of peak | prefill s | of peak | "
             "ms a token | of read | first token s |",
             "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"]
    for r in result["rows"]:
        lines.append(f"| {r['engine']} | {r['side']}² | {r['n']} | {r['prompt_tokens']} | {r['encode_s']:.2f} | "
                     f"{share(r['encode_percent'])} | {r['prefill_s']:.2f} | {share(r['prefill_percent'])} | "
                     f"{r['step_s'] * 1e3:.0f} | {share(r['decode_percent'])} | {r['first_token_s']:.2f} |")
    for name, e in result["engines"].items():
        if e["why"]:
            lines.append(f"| {name} | {e['why']} |" + " |" * 9)
    lines += [""] + [f"- {c['text']}" for c in result["comparisons"]]
    lines += ["", "; ".join(f"{n}: {e['version']}" for n, e in result["engines"].items() if e["version"])]
    return "\n".join(lines) + "\n"


def compare(result):
    """Vitreous against each other engine of its group: the ratio of times, median to median."""
    for names, sides in GROUPS:
        for other in names[1:]:
            for side in sides:
                for key, what in (("encode_s", "encode"), ("first_token_s", "first token")):
                    a, b = median_of(result, names[0], side, key), median_of(result, other, side, key)
                    if a and b:
                        yield {"a": names[0], "b": other, "side": side, "key": key, "ratio": a / b,
                               "text": f"{what} {side}²: {names[0]} takes {a / b:.2f}× the time of {other}"}


def above_roof(rows):
    """What no machine can do; 5 % are left for a peak that was taken in a worse moment."""
    return [f"{r['engine']} {r['side']}: {k} {r[k]:.0f}" for r in rows
            for k in ("encode_percent", "prefill_percent", "decode_percent") if (r[k] or 0) > 105]


def machine():
    for line in open("/proc/cpuinfo"):
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return os.uname().machine


def run(options):
    config = json.loads((options.folder / "model" / "config.json").read_text())
    result = {"date": time.strftime("%Y-%m-%d %H:%M", time.gmtime()), "machine": machine(),
              "threads": options.threads, "peaks": [], "engines": {}, "samples": []}
    for names, sides in GROUPS:
        names = [n for n in names if not options.only or n in options.only]
        sides = [s for s in sides if not options.sides or s in options.sides]
        if names and sides:
            run_group(names, sides, options, result)
    rows = [row_of(result, config, n, s) for names, sides in GROUPS for s in sides for n in names
            if n in result["engines"]]
    result["rows"] = [r for r in rows if r]
    result["comparisons"] = list(compare(result))
    text = markdown(result)
    print(text, end="")
    if options.md:
        options.md.write_text(text)
    if options.json:
        write_json(options.json, result)
    above = above_roof(result["rows"])
    for a in above:
        print(f"peers.py: above the roof of this run: {a}", file=sys.stderr)
    return 1 if above or not result["rows"] else 0


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("step", choices=["install", "prepare", "run"])
    p.add_argument("folder", type=pathlib.Path, help="outside the source tree; holds venv-*, model, ...")
    p.add_argument("--only", action="append", help="engine (run) or venv (install, prepare); repeatable")
    p.add_argument("--sides", type=int, action="append", help="448, 1024")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--tokens", type=int, default=16)
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    p.add_argument("--pause", type=float, default=1, help="seconds between turns")
    p.add_argument("--lock", help="a file to hold during each turn, for machines that are shared")
    p.add_argument("--realtime", action="store_true", help="real-time priority during each turn (root)")
    p.add_argument("--json", type=pathlib.Path)
    p.add_argument("--md", type=pathlib.Path)
    options = p.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that stopped workers are ended
    options.folder = options.folder.resolve()
    if options.step == "install":
        install(options.folder, options.only)
    elif options.step == "prepare":
        prepare(options.folder, options.only)
    else:
        sys.exit(run(options))


if __name__ == "__main__":
    main()
