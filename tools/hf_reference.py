#!/usr/bin/env python3
"""Golden tensors of any HF-format Qwen3-VL checkpoint, made by Hugging Face transformers.

    hf_reference.py --model DIR (--case case.json | [--image F]... --prompt TEXT) --out DIR
                    [-n 64] [--preprocess torchvision|pil] [--min-pixels N] [--max-pixels N]
                    [--fp64] [--bf16] [--tensors full|short]

Writes OUT/golden.safetensors (names, shapes and types of docs: see tests/golden/README.md) and
OUT/case.json (the request, the versions, HF's own distance to float64 and of bfloat16).

pipeline: picture -> exif_transpose -> HF image processor -> pixel_values [P, C*2*ps*ps]
          messages -> chat template -> image pads expanded -> input_ids [T]
          prefill [T] with forward hooks -> every stage; then N greedy steps on the KV cache

Easy to get wrong
- Stop tokens are not honoured: always exactly N ids ("ignore_eos": true).
- Qwen3VLModel keeps `rope_deltas` from the previous call: reset before each run.
- Old checkpoints (`visual.*`, `model.layers.*`): transformers 5.23 leaves the text tensors at
  random; they are renamed here first.
- `model.double()` is not float64: see hf_fp64.py.
- dtype casts with `.to(bfloat16)` would also round the rotary inverse frequencies; the model is
  loaded in its dtype instead.
"""
import argparse
import json
import os
import pathlib
import platform
import sys
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import numpy as np
import PIL
import torch
import torchvision
import transformers
from PIL import Image, ImageOps
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, Qwen3VLForConditionalGeneration, Qwen3VLProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor
from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor
from transformers.vision_utils import get_vision_interpolation_indices_and_weights

from hf_fp64 import true_fp64

IMAGE_PROCESSORS = {"torchvision": Qwen2VLImageProcessor, "pil": Qwen2VLImageProcessorPil}


# ---- loading -------------------------------------------------------------------------------

def rename_old(name):
    """A tensor name of a 4.57-era or re-saved checkpoint -> today's name."""
    if name.startswith("visual."):
        return "model." + name
    if name.startswith("model.") and not name.startswith(("model.visual.", "model.language_model.")):
        return "model.language_model." + name[len("model."):]
    return name


def load_model(folder, dtype):
    """The HF model in `dtype`, eager attention, every tensor of the checkpoint used."""
    folder = pathlib.Path(folder)
    tensors = {}
    for shard in sorted(folder.glob("*.safetensors")):
        tensors.update(load_file(shard))
    renamed = {rename_old(k): v for k, v in tensors.items()}
    with tempfile.TemporaryDirectory() as scratch:
        source = folder
        if renamed.keys() != tensors.keys():
            source = pathlib.Path(scratch)
            (source / "config.json").write_bytes((folder / "config.json").read_bytes())
            save_file(renamed, source / "model.safetensors", metadata={"format": "pt"})
        model, report = Qwen3VLForConditionalGeneration.from_pretrained(
            source, dtype=dtype, attn_implementation="eager", output_loading_info=True)
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report[kind]:
            raise ValueError(f"{folder}: {kind}: {sorted(report[kind])[:5]}")
    return model.eval()


def read_template(folder):
    """The chat template from wherever this checkpoint keeps it."""
    folder = pathlib.Path(folder)
    if (folder / "chat_template.jinja").exists():
        return (folder / "chat_template.jinja").read_text()
    for name in ("chat_template.json", "tokenizer_config.json"):
        if (folder / name).exists():
            template = json.loads((folder / name).read_text()).get("chat_template")
            if template:
                return template
    raise ValueError(f"{folder}: no chat template")


def load_processor(folder, backend):
    """Qwen3VLProcessor put together from its parts (AutoProcessor finds no template that is only
    in tokenizer_config.json, and picks the image backend itself)."""
    config = json.loads((pathlib.Path(folder) / "preprocessor_config.json").read_text())
    for key in ("image_processor_type", "processor_class"):
        config.pop(key, None)
    return Qwen3VLProcessor(
        image_processor=IMAGE_PROCESSORS[backend](**config),
        tokenizer=AutoTokenizer.from_pretrained(folder),
        video_processor=Qwen3VLVideoProcessor(),
        chat_template=read_template(folder))


# ---- one request ---------------------------------------------------------------------------

def open_image(path):
    """As the engine sees a file: EXIF applied; HF's processor then puts alpha on white."""
    image = Image.open(path)
    image.load()
    return ImageOps.exif_transpose(image)


def make_inputs(processor, images, prompt, min_pixels=None, max_pixels=None):
    """One user turn, pictures first, then the text; no system prompt."""
    content = [{"type": "image"} for _ in images] + [{"type": "text", "text": prompt}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], tokenize=False,
                                         add_generation_prompt=True)
    size = dict(processor.image_processor.size)
    if min_pixels is not None:
        size["shortest_edge"] = min_pixels
    if max_pixels is not None:
        size["longest_edge"] = max_pixels
    pictures = {"images": [open_image(p) for p in images], "size": size} if images else {}
    return dict(processor(text=[text], return_tensors="pt", **pictures))


class Recorder:
    """Forward hooks that collect every tensor of design section 8 during one prefill."""

    def __init__(self, model, grid):
        self.out, self.handles = {}, []
        visual, text = model.model.visual, model.model.language_model
        self.keep("model.visual.patch_embed", visual.patch_embed)
        self.handles.append(visual.pos_embed.register_forward_hook(self.interpolate(visual, grid)))
        for i, block in enumerate(visual.blocks):
            self.keep(f"model.visual.blocks.{i}", block)
        for k, merger in enumerate(visual.deepstack_merger_list):
            self.keep(f"model.visual.deepstack_merger_list.{k}", merger)
        self.keep("model.visual.merger", visual.merger)
        self.handles.append(text.register_forward_pre_hook(self.entry, with_kwargs=True))
        for i, layer in enumerate(text.layers):
            self.keep(f"model.language_model.layers.{i}", layer)
        self.keep("model.language_model.norm", text.norm)

    def keep(self, name, module):
        def hook(_module, _args, output):
            self.out[name] = (output[0] if isinstance(output, tuple) else output).detach().clone()
        self.handles.append(module.register_forward_hook(hook))

    def interpolate(self, visual, grid):
        """The position embedding after interpolation: the module itself only gathers 4 rows."""
        def hook(_module, _args, output):
            _, weights = get_vision_interpolation_indices_and_weights(
                grid, num_grid_per_side=visual.num_grid_per_side, mode=visual.interpolation_mode,
                align_corners=visual.interpolation_align_corners,
                spatial_merge_size=visual.spatial_merge_size)
            self.out["model.visual.pos_embed"] = (output * weights[:, :, None]).sum(1).detach()
        return hook

    def entry(self, _module, _args, kwargs):
        embeds = kwargs["inputs_embeds"]
        positions = kwargs["position_ids"]
        if positions is None:
            positions = torch.arange(embeds.shape[1]).view(1, 1, -1).expand(3, 1, -1)
        self.out["position_ids"] = positions[:, 0].clone()
        self.out["model.language_model.inputs_embeds"] = embeds.detach().clone()

    def close(self):
        for handle in self.handles:
            handle.remove()
        return self.out


@torch.no_grad()
def run(model, inputs, n):
    """Prefill with hooks, then `n` greedy ids. Returns tensors by golden name, batch axis gone."""
    model.model.rope_deltas = None
    recorder = Recorder(model, inputs.get("image_grid_thw"))
    try:
        step = model(**inputs, use_cache=True)
    finally:
        tensors = recorder.close()
    tensors = {k: v[0] if v.dim() == 3 else v for k, v in tensors.items()}
    tensors["logits"] = step.logits[0].clone()
    ids, margins, best = [], [], []
    for i in range(n):
        last = step.logits[0, -1].double()
        top = last.topk(2)
        # argmax, not topk's first: on an exact tie the lowest id, as every sampler here does
        ids.append(int(last.argmax()))
        margins.append(float(top.values[0] - top.values[1]))
        best.append(float(top.values[0]))
        if i + 1 < n:
            step = model(input_ids=torch.tensor([[ids[-1]]]), use_cache=True,
                         past_key_values=step.past_key_values)
    tensors["generated_ids"] = torch.tensor(ids, dtype=torch.int64)
    tensors["margins"] = torch.tensor(margins, dtype=torch.float32)
    return tensors


def distances(have, want):
    """{name: rel-L2 of `have` to `want`} over the float tensors both hold."""
    result = {}
    for name, ref in want.items():
        if ref.is_floating_point() and name in have and name != "margins":
            ref = ref.double()
            result[name] = float((have[name].double() - ref).norm() / ref.norm().clamp(min=1e-300))
    return result


def left_out(model):
    """What a "short" golden leaves out to stay small: pixel_values (tests/golden/preprocess has
    them bit for bit) and the vision blocks other than the first, the DeepStack sources and the
    last."""
    visual = model.config.vision_config
    keep = {0, visual.depth - 1, *visual.deepstack_visual_indexes}
    return {"pixel_values"} | {f"model.visual.blocks.{i}" for i in range(visual.depth)
                               if i not in keep}


def versions():
    return {"transformers": transformers.__version__, "torch": torch.__version__,
            "torchvision": torchvision.__version__, "pillow": PIL.__version__,
            "numpy": np.__version__, "python": platform.python_version(),
            "machine": platform.machine(), "attention": "eager", "dtype": "float32",
            "image_load": "PIL.Image.open, exif_transpose, convert_to_rgb (alpha on white)"}


class Reference:
    """One checkpoint, its models loaded on first use in each dtype."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.models, self.processors = {}, {}

    def model(self, dtype):
        if dtype not in self.models:
            load = torch.float32 if dtype == torch.float64 else dtype
            self.models[dtype] = load_model(self.folder, load).to(dtype) \
                if dtype == torch.float64 else load_model(self.folder, load)
        return self.models[dtype]

    def processor(self, backend):
        if backend not in self.processors:
            self.processors[backend] = load_processor(self.folder, backend)
        return self.processors[backend]

    def golden(self, out, images, prompt, n=64, preprocess="torchvision", min_pixels=None,
               max_pixels=None, fp64=True, bf16=True, tensors="full"):
        """Run one case and write OUT/golden.safetensors and OUT/case.json. Returns case.json."""
        out = pathlib.Path(out)
        inputs = make_inputs(self.processor(preprocess), images, prompt, min_pixels, max_pixels)
        model = self.model(torch.float32)
        got = run(model, inputs, n)
        relative = lambda p: os.path.relpath(os.path.realpath(p), os.path.realpath(out))
        out.mkdir(parents=True, exist_ok=True)
        case = {"model": relative(self.folder), "images": [relative(p) for p in images],
                "prompt": prompt, "n": n, "min_pixels": min_pixels, "max_pixels": max_pixels,
                "preprocess": preprocess, "ignore_eos": True, "tensors": tensors,
                "prompt_tokens": int(inputs["input_ids"].shape[1]),
                "min_margin": float(got["margins"].min()) if n else None,
                "text": self.processor(preprocess).tokenizer.decode(got["generated_ids"]),
                "versions": versions()}
        if fp64:
            with true_fp64():
                exact = run(self.model(torch.float64), inputs | float_inputs(inputs), 0)
            case["floor"] = distances(got, exact)
            case["floor_max"] = {"logits": max_error(got["logits"], exact["logits"])}
        if bf16:
            low = run(self.model(torch.bfloat16), inputs, n)
            case["bf16"] = distances(low, got)
            case["bf16_max"] = {"logits": max_error(low["logits"], got["logits"].double())}
            case["bf16_generated_ids"] = low["generated_ids"].tolist()
            case["bf16_margins"] = [round(m, 6) for m in low["margins"].tolist()]
        stored = {k: inputs[k] for k in ("pixel_values", "image_grid_thw") if k in inputs}
        stored |= {"input_ids": inputs["input_ids"][0]} | got
        for name in left_out(model) if tensors == "short" else ():
            stored.pop(name, None)
        save_file({k: v.float().contiguous() if v.is_floating_point() else v.long().contiguous()
                   for k, v in stored.items()}, out / "golden.safetensors")
        (out / "case.json").write_text(json.dumps(case, ensure_ascii=False, indent=1) + "\n")
        return case


def float_inputs(inputs):
    return {"pixel_values": inputs["pixel_values"].double()} if "pixel_values" in inputs else {}


def max_error(have, want):
    return float((have.double() - want).abs().max() / want.abs().max())


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", help="checkpoint folder (default: the one in the case file)")
    parser.add_argument("--case", help="a case.json: its model, images and options")
    parser.add_argument("--image", action="append", default=[])
    parser.add_argument("--prompt")
    parser.add_argument("--out", required=True)
    parser.add_argument("-n", type=int, default=None, help="greedy ids to generate (default 64)")
    parser.add_argument("--preprocess", choices=IMAGE_PROCESSORS, default=None)
    parser.add_argument("--min-pixels", type=int)
    parser.add_argument("--max-pixels", type=int)
    parser.add_argument("--tensors", choices=("full", "short"), default=None)
    parser.add_argument("--fp64", action="store_true", help="measure HF's own error (floor)")
    parser.add_argument("--bf16", action="store_true", help="measure HF's bfloat16 run")
    args = parser.parse_args()
    torch.use_deterministic_algorithms(True)
    case = {"images": args.image, "prompt": args.prompt, "model": args.model}
    if args.case:
        case = json.loads(pathlib.Path(args.case).read_text())
        base = pathlib.Path(args.case).parent
        case["images"] = [base / p for p in case.get("images", [])]
        case["model"] = args.model or base / case["model"]
    if case["model"] is None or case["prompt"] is None:
        parser.error("give --case, or --model and --prompt")

    def pick(flag, key, default):
        return flag if flag is not None else case.get(key, default)

    result = Reference(case["model"]).golden(
        args.out, case["images"], case["prompt"], n=pick(args.n, "n", 64),
        preprocess=pick(args.preprocess, "preprocess", "torchvision"),
        min_pixels=pick(args.min_pixels, "min_pixels", None),
        max_pixels=pick(args.max_pixels, "max_pixels", None),
        tensors=pick(args.tensors, "tensors", "full"), fp64=args.fp64, bf16=args.bf16)
    print(f"{args.out}: {result['prompt_tokens']} prompt tokens, smallest margin "
          f"{result['min_margin']}", file=sys.stderr)


if __name__ == "__main__":
    main()
