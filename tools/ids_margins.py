#!/usr/bin/env python3
"""Greedy ids against those of Hugging Face's own bfloat16 run, over every golden.

tools/ids_margins.py [--vitreous FILE] [--cases DIR] [--only WORD] [-- OPTION...]
    runs `vitreous trace` with OPTION... (such as --backend cuda) on each case and prints, as Markdown, where the
    ids first part from HF's bf16 run and how far apart the two best logits of that run were there; beside it the
    same for HF's float32 run, which shows how much of it is bf16 noise. Ids are compared up to the first
    difference: behind it the two answer different texts.
"""
import argparse
import json
import math
import pathlib
import struct
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
BAR = 0.05                  # "equal wherever the margin exceeds this"


def tensor(path, name):
    """One tensor of a safetensors file, as a flat tuple; None: not there."""
    with open(path, "rb") as f:
        size = struct.unpack("<Q", f.read(8))[0]
        entry = json.loads(f.read(size)).get(name)
        if not entry:
            return None
        at, end = entry["data_offsets"]
        f.seek(8 + size + at)
        data = f.read(end - at)
    kind = {"I64": "q", "F32": "f"}[entry["dtype"]]
    return struct.unpack(f"<{len(data) // struct.calcsize('<' + kind)}{kind}", data)


def split(ids, hf, margins):
    """(index, margin) of the first difference, or None."""
    for i, (a, b) in enumerate(zip(ids, hf)):
        if a != b:
            return i, margins[i]
    return None


def ours(vitreous, folder, case, options):
    with tempfile.TemporaryDirectory() as tmp:
        out = pathlib.Path(tmp, "trace.safetensors")
        words = [vitreous, "trace", "-m", folder / case["model"], "-p", case["prompt"], "-n", str(case["n"]),
                 "--ignore-eos", "--resize", case["preprocess"], "-o", out, *options]
        for image in case["images"]:
            words += ["-i", folder / image]
        for key in ("min_pixels", "max_pixels"):
            if case[key] is not None:
                words += ["--" + key.replace("_", "-"), str(case[key])]
        ran = subprocess.run(words, capture_output=True, text=True)
        if ran.returncode:
            sys.exit(f"{folder.name}: {ran.stderr.strip()}")
        return tensor(out, "generated_ids")


def noise(golden, case):
    """What HF's bf16 run moves a logit of the prompt by, at most."""
    logits = tensor(golden, "logits")
    return case["bf16_max"]["logits"] * max(map(abs, logits)) if logits and "logits" in case["bf16_max"] else math.nan


def cell(at):
    return "-" if at is None else f"token {at[0]}, margin {at[1]:.3g}"


def summary(name, splits):
    margins = sorted(s[1] for s in splits if s)
    over = sum(m > BAR for m in margins)
    ends = f"{margins[0]:.3g} | {margins[-1]:.3g}" if margins else "- | -"
    return f"| {name} | {len(splits)} | {len(splits) - len(margins)} | {len(margins)} | {over} | {ends} |"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--vitreous", default=ROOT / "build/release/vitreous")
    p.add_argument("--cases", type=pathlib.Path, default=ROOT / "tests/golden/cases")
    p.add_argument("--only", default="")
    p.add_argument("options", nargs="*")
    a = p.parse_args()
    rows, mine, hf = [], [], []
    for folder in sorted(a.cases.iterdir()):
        if a.only not in folder.name or not (folder / "case.json").exists():
            continue
        case = json.loads((folder / "case.json").read_text())
        golden = folder / "golden.safetensors"
        bf16, margins = case["bf16_generated_ids"], case["bf16_margins"]
        mine.append(split(ours(a.vitreous, folder, case, a.options), bf16, margins))
        hf.append(split(tensor(golden, "generated_ids"), bf16, margins))
        rows.append(f"| {folder.name} | {case['n']} | {noise(golden, case):.3g} | {cell(mine[-1])} | {cell(hf[-1])} |")
        print(rows[-1], file=sys.stderr)
    print("| against HF's bf16 run | cases | same ids throughout | part somewhere | there HF's margin exceeds "
          f"{BAR} | least margin at a split | greatest |\n|---|---:|---:|---:|---:|---:|---:|")
    print(summary("vitreous " + " ".join(a.options), mine))
    print(summary("HF's float32 run", hf))
    print("\n| case | ids | HF's bf16 moves a logit by up to | vitreous parts at | HF float32 parts at |\n|---|---:|---:|---|---|")
    print("\n".join(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
