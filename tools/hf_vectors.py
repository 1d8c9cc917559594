#!/usr/bin/env python3
"""Vectors for single stages: preprocessing, chat template, tokenizer.

    hf_vectors.py [preprocess|template|tokenizer]...

tests/golden/preprocess/  resize, whole processors, normalisation, smart_resize
tests/golden/template/    message shapes and what Qwen3-VL's own Jinja template renders
tests/golden/tokenizer/   strings and their ids, for each golden tokenizer
Formats: tests/golden/README.md. The real chat template is read from the installed package trl;
it is not copied into the tree.
"""
import argparse
import hashlib
import importlib.util
import json
import pathlib
import random
import shutil

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers.image_processing_backends import PilBackend, TorchvisionBackend
from transformers.image_utils import PILImageResampling, SizeDict
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize
from transformers.utils.chat_template_utils import render_jinja_template

from hf_cases import GOLDEN, MODEL_DIRS
from hf_messages import TEMPLATE_CASES
from hf_reference import IMAGE_PROCESSORS, read_template
from hf_strings import strings
from PIL import Image

BICUBIC = PILImageResampling.BICUBIC
# HF 5.23 factor 32, 65536..16777216 pixels; the rows of the table in the model's fact sheet
TABLE_SIZES = [(1, 1), (27, 257), (30, 305), (80, 4000), (224, 224), (240, 400), (272, 92),
               (336, 336), (375, 512), (400, 400), (448, 448), (464, 464), (480, 640),
               (690, 15420), (50, 9999), (50, 10000), (50, 10001), (720, 1280), (1080, 1920),
               (1365, 2048), (4032, 3024), (8192, 8192)]
TABLE_LIMITS = [(65536, 16777216), (65536, 448 * 448), (256 * 1024, 1280 * 1024)]


# ---- preprocessing -------------------------------------------------------------------------

def texture(height, width, seed):
    """[H, W, 3] U8: noise, a smooth ramp, or full-range checks, by seed."""
    rng = np.random.default_rng(seed)
    if seed % 3 == 0:
        return rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    y, x = np.mgrid[0:height, 0:width]
    if seed % 3 == 1:
        smooth = [x * 255 / max(width - 1, 1), y * 255 / max(height - 1, 1),
                  127 + 120 * np.sin(x * .7 + y * .4)]
        return np.stack(smooth, -1).astype(np.uint8)
    return np.stack([(x + y) % 2 * 255, (x // 3 + y // 2) % 2 * 255, x % 5 * 60],
                    -1).astype(np.uint8)


RESIZES = [  # (in height, in width, out height, out width)
    (20, 30, 20, 30), (20, 30, 20, 47), (20, 30, 31, 30), (20, 30, 20, 13), (20, 30, 7, 30),
    (20, 30, 40, 60), (20, 30, 10, 15), (20, 30, 9, 60), (20, 30, 45, 11), (1, 1, 32, 32),
    (1, 9, 8, 8), (9, 1, 8, 8), (3, 5, 64, 32), (50, 41, 32, 32), (41, 50, 32, 32),
    (70, 20, 32, 32), (20, 70, 32, 32), (64, 64, 63, 65), (100, 9, 16, 16), (9, 100, 16, 16),
    (97, 31, 32, 24), (31, 97, 24, 32), (60, 60, 32, 32), (60, 60, 5, 59), (60, 60, 59, 5),
    (128, 40, 33, 40), (40, 128, 40, 33), (2, 2, 3, 3), (90, 64, 64, 64), (64, 90, 64, 64),
    (33, 200, 32, 192), (7, 300, 16, 64), (45, 80, 32, 64), (48, 80, 64, 64)]


def write_resize(out):
    """resize.safetensors: {i}.in, {i}.pil, {i}.torchvision, all [h, w, 3] U8."""
    tensors = {}
    for i, (h0, w0, h1, w1) in enumerate(RESIZES):
        image = texture(h0, w0, i)
        size = SizeDict(height=h1, width=w1)
        planes = torch.from_numpy(image).permute(2, 0, 1).contiguous()[None]
        fast = TorchvisionBackend.resize(None, planes, size, BICUBIC)[0].permute(1, 2, 0)
        slow = PilBackend.resize(None, image.transpose(2, 0, 1), size, BICUBIC)
        direct = np.asarray(Image.fromarray(image).resize((w1, h1), Image.Resampling.BICUBIC))
        slow = slow.transpose(1, 2, 0).astype(np.uint8)
        assert np.array_equal(slow, direct), "HF's PIL backend is no longer plain Pillow"
        tensors |= {f"{i}.in": torch.from_numpy(image), f"{i}.pil": torch.from_numpy(slow.copy()),
                    f"{i}.torchvision": fast.contiguous()}
    save_file(tensors, out / "resize.safetensors")
    return len(RESIZES)


def processor(backend, patch, minimum, maximum):
    return IMAGE_PROCESSORS[backend](
        patch_size=patch, merge_size=2, temporal_patch_size=2, image_mean=[.5] * 3,
        image_std=[.5] * 3, size={"shortest_edge": minimum, "longest_edge": maximum})


# (height, width, patch, min pixels, max pixels); the first rows are stored in full
PROCESSED = [(40, 50, 8, 256, 1024), (30, 62, 16, 1024, 4096), (29, 27, 14, 784, 3136),
             (1, 1, 8, 256, 1024), (3, 5, 16, 1024, 1 << 24), (80, 70, 16, 1024, 4096),
             (64, 64, 16, 1024, 4096), (5, 230, 16, 2048, 1 << 24), (300, 7, 14, 1568, 1 << 24),
             (48, 80, 16, 1024, 1 << 24), (56, 72, 8, 256, 1 << 24), (70, 70, 14, 784, 3000),
             (33, 100, 8, 256, 1 << 24), (20, 33, 16, 65536, 1 << 24),
             (100, 37, 16, 65536, 1 << 24), (60, 80, 16, 65536, 448 * 448)]
STORED = 4


def write_processed(out):
    """processor.json + processor.safetensors: whole image processors, bit for bit."""
    rows, tensors = [], {}
    for i, (height, width, patch, minimum, maximum) in enumerate(PROCESSED):
        image = texture(height, width, i + 1)
        row = {"height": height, "width": width, "patch_size": patch, "min_pixels": minimum,
               "max_pixels": maximum, "sha256": {}}
        for backend in IMAGE_PROCESSORS:
            done = processor(backend, patch, minimum, maximum)(
                images=[Image.fromarray(image)], return_tensors="pt")
            values, grid = done["pixel_values"].contiguous(), done["image_grid_thw"][0].tolist()
            row["grid_thw"] = grid
            row["sha256"][backend] = hashlib.sha256(values.numpy().tobytes()).hexdigest()
            if i < STORED:
                tensors[f"{i}.{backend}"] = values
        tensors[f"{i}.in"] = torch.from_numpy(image)
        rows.append(row)
    save_file(tensors, out / "processor.safetensors")
    (out / "processor.json").write_text(
        "[\n" + ",\n".join(" " + json.dumps(r) for r in rows) + "\n]\n")
    return len(rows)


def write_normalise(out):
    """normalise.safetensors: the float of each byte value, [256] F32 per backend."""
    levels = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], 256, 1).repeat(3, 2)
    tensors = {}
    for backend in IMAGE_PROCESSORS:
        values = processor(backend, 16, 1024, 1 << 24)(
            images=[Image.fromarray(levels)], return_tensors="pt")["pixel_values"]
        rows = values.view(8, 8, 2, 2, 3, 2, 16, 16)[:, 0, :, 0, 0, 0, :, 0]
        tensors[backend] = rows.reshape(256).contiguous()
    save_file(tensors, out / "normalise.safetensors")


def write_smart_resize(out):
    rng = random.Random(7)
    cases = [(h, w, 32, low, high) for h, w in TABLE_SIZES for low, high in TABLE_LIMITS]
    cases += [(s, s, 32, 1, 1 << 40) for s in (48, 80, 112, 144, 176, 336, 400, 464)]
    cases += [(h, w, f, 4 * f * f, 1 << 24) for f in (28, 32)
              for h, w in ((1, 200), (1, 201), (200, 1), (201, 1), (5, 1000), (5, 1001), (0, 5))]
    for _ in range(400):
        h, w = (int(2 ** rng.uniform(0, 13)) for _ in range(2))
        factor = rng.choice((16, 28, 32, 32, 32))
        low = rng.choice((factor * factor, 65536, rng.randrange(1, 1 << 18)))
        cases.append((h, w, factor, low, low + rng.randrange(0, 1 << rng.randrange(10, 25))))
    lines = ["# height width factor min_pixels max_pixels -> height width | error"]
    for case in cases:
        try:
            result = "%d %d" % smart_resize(*case)
        except (ValueError, ZeroDivisionError):
            result = "error"
        lines.append("%d %d %d %d %d -> " % case + result)
    (out / "smart_resize.txt").write_text("\n".join(lines) + "\n")
    return len(cases)


def preprocess():
    out = fresh("preprocess")
    counts = write_resize(out), write_processed(out), write_smart_resize(out)
    write_normalise(out)
    print("preprocess: %d resizes, %d processor runs, %d smart_resize rows" % counts)


# ---- chat template -------------------------------------------------------------------------

def real_template():
    """Qwen3-VL's own chat template, from the installed package trl (not imported)."""
    spec = importlib.util.find_spec("trl")
    if spec is None:
        raise SystemExit("trl is missing: pip install --no-deps trl==1.16.0")
    folder = pathlib.Path(spec.submodule_search_locations[0])
    return (folder / "chat_templates" / "qwen3_vl.jinja").read_text()


def render(template, case):
    text, _ = render_jinja_template(
        [case["messages"]], tools=case["tools"], chat_template=template,
        add_generation_prompt=case["add_generation_prompt"],
        add_vision_id=case["add_vision_id"])
    return text[0]


def template():
    out = fresh("template")
    real = real_template()
    ours = {name: read_template(folder) for name, folder in MODEL_DIRS.items()}
    for name, case in TEMPLATE_CASES.items():
        case = {"messages": case["messages"], "tools": case.get("tools"),
                "add_generation_prompt": case.get("add_generation_prompt", True),
                "add_vision_id": case.get("add_vision_id", False)}
        case["expected"] = render(real, case)
        for model, text in ours.items():
            if render(text, case) != case["expected"]:
                raise SystemExit(f"the template of {model} differs from the real one on {name}")
        (out / f"{name}.json").write_text(json.dumps(case, ensure_ascii=False, indent=1) + "\n")
    print(f"template: {len(TEMPLATE_CASES)} cases, every checkpoint's template renders them alike")


# ---- tokenizer -----------------------------------------------------------------------------

def plain(folder):
    """The tokenizer without its added tokens: what a user's text goes through."""
    data = json.loads((folder / "tokenizer.json").read_text())
    data["added_tokens"] = []
    return Tokenizer.from_str(json.dumps(data))


def tokenizer():
    out = fresh("tokenizer")
    texts = strings()
    for name, folder in MODEL_DIRS.items():
        if not (folder / "tokenizer.json").exists():
            print(f"tokenizer: {folder} is not there, skipped")
            continue
        bare, full = plain(folder), Tokenizer.from_file(str(folder / "tokenizer.json"))
        rows = []
        for text in texts:
            row = {"hex": text.encode().hex(),
                   "plain": bare.encode(text, add_special_tokens=False).ids}
            special = full.encode(text, add_special_tokens=False).ids
            if special != row["plain"]:
                row["special"] = special
            rows.append(" " + json.dumps(row, separators=(",", ":")))
        model = str(folder.relative_to(GOLDEN.parent.parent))
        (out / f"{name}.json").write_text(
            '{"model": "%s", "rows": [\n%s\n]}\n' % (model, ",\n".join(rows)))
    print(f"tokenizer: {len(texts)} strings")


# --------------------------------------------------------------------------------------------

def fresh(name):
    """An empty folder of that name in tests/golden."""
    out = GOLDEN / name
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    return out


STAGES = {"preprocess": preprocess, "template": template, "tokenizer": tokenizer}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("stages", nargs="*", choices=[*STAGES, []], metavar="STAGE")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name in args.stages or STAGES:
        STAGES[name]()


if __name__ == "__main__":
    main()
