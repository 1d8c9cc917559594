#!/usr/bin/env python3
"""Held-out accuracy of the demo model, through Hugging Face and through vitreous.

Draws pictures with fonts, text sizes, words, backgrounds and wordings that training never used, asks
both engines greedily, judges every answer against what was drawn and compares the two engines answer
by answer. A difference is accepted only where Hugging Face's own best two logits are closer than
--margin at the first differing token; all differences are printed.

  python tools/eval_demo.py --work DIR [--vitreous build/release/vitreous] [--pictures 60] [--seed 7]
  python tools/eval_demo.py --work DIR --vitreous BIN --no-hf --dtypes exact,int8,int4

With --dtypes vitreous answers once in each mode, and the table ends with the share of right answers of each and its
distance to exact. Exit code 1: the engines disagree, or int8 or int4 are over 0.5 or 2 points below exact.
Needs torch, transformers (both not with --no-hf), pillow and the fonts named in tools/train_demo/README.md.
"""
import argparse
import json
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "train_demo"))

import pictures as P  # noqa: E402
import questions as Q  # noqa: E402

# row of the table: tasks that belong to it, and the goal
GROUPS = {
    "shape": (("shape", "shape1"), .95), "colour": (("colour", "barcolour"), .95),
    "count": (("count",), .95), "caption": (("caption",), .90), "existence": (("exist",), None),
    "relation": (("left", "above", "isleft", "isright", "isabove", "isbelow"), .85),
    "position": (("place", "at"), .85), "biggest shape": (("biggest",), None),
    "boxes (IoU > 0.5)": (("box", "boxes"), .55), "numbers": (("number",), .95),
    "English words": (("word",), .80), "Chinese": (("zh",), .92), "chart: bars": (("bars",), None),
    "chart: value, tallest, shortest": (("value", "tallest", "shortest"), .75),
    "chart: trend": (("trend",), None), "chart: whole": (("chart",), None),
}
# sizes (height, width) that training never draws; the processor resizes most of them
SIZES = [(150, 200), (200, 150), (180, 180), (224, 224), (210, 290), (240, 240), (256, 192), (300, 230)]
KINDS = {"shapes": 2.0, "number": .7, "word": .7, "zh": .7, "chart": 1.0}
MAX_TOKENS = 110
MODE_BARS = {"int8": 0.5, "int4": 2.0}  # points below exact


def make_set(folder, count, seed):
    """Writes PNGs and jobs.jsonl; -> list of jobs with their task and true answer."""
    folder.mkdir(parents=True, exist_ok=True)
    r = P.new_rng(f"eval/{seed}")
    jobs = []
    for kind, share in KINDS.items():
        for k in range(int(count * share)):
            pic = P.make(r, kind, r.choice(SIZES), 1.0, 4242, held=True)
            name = folder / f"{kind}{k}.png"
            asked = Q.ask(r, pic, held=True, most=4 if kind in ("shapes", "chart") else 2)
            if asked:
                pic.image.save(name)
            for task, question, answer in asked:
                jobs.append({"id": str(len(jobs)), "image": str(name), "prompt": question,
                             "max_tokens": MAX_TOKENS, "task": task, "answer": answer})
    return jobs


def ask_hf(model_dir, jobs, threads):
    """Greedy answers of HF in fp32; adds hf (text) and margins (best minus second logit per token)."""
    import torch
    from PIL import Image
    from transformers import AutoProcessor, Qwen3VLForConditionalGeneration
    torch.set_num_threads(threads)
    processor = AutoProcessor.from_pretrained(model_dir)
    model = Qwen3VLForConditionalGeneration.from_pretrained(model_dir, dtype=torch.float32).eval()
    for n, job in enumerate(jobs):
        content = [{"type": "image", "image": Image.open(job["image"]).convert("RGB")},
                   {"type": "text", "text": job["prompt"]}]
        inputs = processor.apply_chat_template([{"role": "user", "content": content}], tokenize=True,
                                               add_generation_prompt=True, return_dict=True,
                                               return_tensors="pt")
        with torch.no_grad():
            out = model.generate(**inputs, max_new_tokens=job["max_tokens"], do_sample=False,
                                 output_logits=True, return_dict_in_generate=True)
        ids = out.sequences[0, inputs["input_ids"].shape[1]:]
        job["hf"] = processor.tokenizer.decode(ids, skip_special_tokens=True)
        top = torch.cat(out.logits).float().topk(2).values
        job["ids"], job["margins"] = ids.tolist(), (top[:, 0] - top[:, 1]).tolist()
        if sys.stderr.isatty():
            print(f"\rHF {n + 1}/{len(jobs)}", end="", file=sys.stderr)
    return processor.tokenizer


def ask_vitreous(binary, model_dir, jobs, folder, dtype, engine):
    """Answers of `vitreous batch`; adds them under the engine's name."""
    path = folder / "jobs.jsonl"
    keys = ("id", "image", "prompt", "max_tokens")
    path.write_text("".join(json.dumps({k: j[k] for k in keys}) + "\n" for j in jobs), "utf-8")
    out = folder / "answers.jsonl"
    out.unlink(missing_ok=True)
    subprocess.run([binary, "batch", "-m", str(model_dir), "--greedy", "--dtype", dtype, "--in", str(path),
                    "--out", str(out)], check=True)
    text = {}
    for line in out.read_text("utf-8").splitlines():
        row = json.loads(line)
        text[str(row["id"])] = row["text"] if "text" in row else f"(error: {row.get('error')})"
    for job in jobs:
        job[engine] = text.get(job["id"], "(no answer)")


def iou(a, b):
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    inter = max(0, w) * max(0, h)
    area = sum(max(0, c[2] - c[0]) * max(0, c[3] - c[1]) for c in (a, b))
    return inter / (area - inter) if area > inter else 0.0


def right(job, text):
    """Exact answers, except boxes: valid JSON, the right labels, and every box with IoU > 0.5."""
    if job["task"] not in ("box", "boxes"):
        return text == job["answer"]
    try:
        got, want = json.loads(text), json.loads(job["answer"])
        return len(got) == len(want) and all(
            g["label"] == w["label"] and len(g["bbox_2d"]) == 4 and iou(g["bbox_2d"], w["bbox_2d"]) > .5
            for g, w in zip(got, want))
    except (ValueError, TypeError, KeyError):
        return False


def letters(jobs, engine):
    """Share of characters read right, position by position."""
    hit = total = 0
    for j in jobs:
        total += max(len(j["answer"]), len(j[engine]))
        hit += sum(a == b for a, b in zip(j["answer"], j[engine]))
    return hit / max(1, total)


def table(jobs, engines):
    print(f"\n{'task':34}{'n':>5}" + "".join(f"{e:>10}" for e in engines) + f"{'goal':>8}")
    result = {}
    for name, (tasks, goal) in GROUPS.items():
        rows = [j for j in jobs if j["task"] in tasks]
        if not rows:
            continue
        acc = [sum(right(j, j[e]) for j in rows) / len(rows) for e in engines]
        result[name] = {"n": len(rows), **dict(zip(engines, acc)), "goal": goal}
        print(f"{name:34}{len(rows):5}" + "".join(f"{a:10.3f}" for a in acc)
              + (f"{goal:8.2f}" if goal else ""))
        if name in ("English words", "Chinese"):
            part = [letters(rows, e) for e in engines]
            result[name]["characters"] = dict(zip(engines, part))
            print(f"{'  single characters':34}{'':5}" + "".join(f"{a:10.3f}" for a in part))
    return result


def compare(jobs, tokenizer, margin):
    """Prints every difference between the engines; -> number that the margin does not excuse."""
    bad = same = 0
    for j in jobs:
        if j["hf"] == j["vitreous"]:
            same += 1
            continue
        other = tokenizer.encode(j["vitreous"], add_special_tokens=False)
        k = next((k for k, (a, b) in enumerate(zip(j["ids"], other)) if a != b),
                 min(len(other), len(j["ids"]) - 1))
        ok = j["margins"][k] < margin
        bad += not ok
        print(f"{'close ' if ok else 'DIFFER'} margin {j['margins'][k]:.2e} at token {k}: {j['image']} "
              f"{j['prompt']!r}: HF {j['hf']!r}, vitreous {j['vitreous']!r}")
    print(f"{same} of {len(jobs)} answers are equal, {len(jobs) - same - bad} differ where HF's margin is "
          f"below {margin:g}, {bad} differ elsewhere")
    return bad


def compare_modes(jobs, engines):
    """Prints what each mode loses against exact, over all answers; -> number of bars missed."""
    share = {e: 100 * sum(right(j, j[e]) for j in jobs) / len(jobs) for e in engines}
    missed = 0
    for e in engines:
        lost, bar = share["exact"] - share[e], MODE_BARS.get(e)
        same = sum(j[e] == j["exact"] for j in jobs)
        missed += bar is not None and lost > bar
        print(f"{e:8} right {share[e]:6.2f} % of {len(jobs)}, {0 - lost:+.2f} points"
              + (f" (bar -{bar})" if bar else "") + f", {same} answers equal those of exact")
    return missed


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--model", default=str(HERE.parent / "models/demo"))
    ap.add_argument("--work", required=True, help="scratch folder for the pictures and answers")
    ap.add_argument("--vitreous", help="the binary; without it only HF runs")
    ap.add_argument("--pictures", type=int, default=60, help="size of the set (about 12 questions each 4)")
    ap.add_argument("--seed", type=int, default=7)
    ap.add_argument("--margin", type=float, default=5e-3)
    ap.add_argument("--threads", type=int, default=1)
    ap.add_argument("--json", help="write the table here")
    ap.add_argument("--no-hf", action="store_true", help="vitreous alone")
    ap.add_argument("--dtypes", help="numeric modes, exact first: exact,bf16,int8,int4")
    args = ap.parse_args()
    dtypes = args.dtypes.split(",") if args.dtypes else []
    if (args.no_hf or dtypes) and not args.vitreous or dtypes and dtypes[0] != "exact":
        ap.error("--no-hf and --dtypes need --vitreous, and --dtypes begins with exact")
    folder = pathlib.Path(args.work)
    jobs = make_set(folder / "pictures", args.pictures, args.seed)
    tokenizer = None if args.no_hf else ask_hf(args.model, jobs, args.threads)
    engines, bad = [] if args.no_hf else ["hf"], 0
    if args.vitreous and not dtypes:
        ask_vitreous(args.vitreous, args.model, jobs, folder, "exact", "vitreous")
        engines.append("vitreous")
    for dtype in dtypes:
        ask_vitreous(args.vitreous, args.model, jobs, folder, dtype, dtype)
        engines.append(dtype)
    result = table(jobs, engines)
    if args.vitreous and not args.no_hf:
        for job in jobs:
            job.setdefault("vitreous", job.get("exact"))
        bad = compare(jobs, tokenizer, args.margin)
    if dtypes:
        bad += compare_modes(jobs, dtypes)
    (folder / "answers.json").write_text(json.dumps(jobs, ensure_ascii=False, indent=1), "utf-8")
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
