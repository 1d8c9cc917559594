#!/usr/bin/env python3
"""Writes the small random Qwen3-VL checkpoints of tests/golden/models, in HF format.

    make_golden_models.py [--out tests/golden/models] [NAME]...

The weights are seeded noise, scaled so that activations are lively: hidden states of order one,
attention scores of a few units, logits spread over several units, no zero biases, norms around
1 +- 0.3 and final-norm weights of both signs (a tied head would otherwise just repeat its input).
A comparison on dead activations would prove nothing.

std     head sizes 64 / 128 of the real models, GQA 2, tied, bfloat16 in one file, DeepStack x3
odd     patch 14, vision heads 24, text heads 40, hidden 60, GQA 3, own lm_head, 10x10 table,
        DeepStack x2, vocabulary padded past the tokenizer, template only in tokenizer_config
shards  sharded index, old tensor prefixes, float16 + float32 storage, 4.57-style config,
        two vision heads of 64, DeepStack x1, chat_template.json
deep    more layers in both towers, DeepStack x3 with unequal gaps, vision heads 64
"""
import argparse
import json
import pathlib

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

HERE = pathlib.Path(__file__).resolve().parent
REGEX = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
         r"|\s*[\r\n]+|\s+(?!\S)|\s+")
# (text, is it hidden by skip_special_tokens) in the order of the real vocabulary
SPECIALS = [(f"<|{t}|>", True) for t in (
    "endoftext im_start im_end object_ref_start object_ref_end box_start box_end quad_start "
    "quad_end vision_start vision_end vision_pad image_pad video_pad").split()] \
    + [("<tool_call>", False), ("</tool_call>", False)] \
    + [(f"<|{t}|>", False) for t in
       "fim_prefix fim_middle fim_suffix fim_pad repo_name file_sep".split()] \
    + [(t, False) for t in "<tool_response> </tool_response> <think> </think>".split()]
CORPUS = """
What is in this picture? Describe the picture in one sentence. How many red circles are there?
The picture shows a blue square above a green triangle and the word HELLO in white letters.
Which shape is on the left of the yellow star? Read the text. What number is written here?
Count the shapes, then name the colour of each. Where is the largest one? Answer in English.
There are three small circles near the top right corner; the bars are 10, 25 and 40 units high.
这张图片里有什么？请用一句话描述这张图片。图中有几个红色的圆形？左边是什么颜色的方块？
图片上写着什么字？请读出图中的数字。蓝色的三角形在绿色的正方形上面。请用中文回答。
哪一根柱子最高？右上角有三个小圆，中间有一颗黄色的星星。两张图片有什么不同？
Compare the two pictures. 比较这两张图片，说出它们的相同点和不同点。 the that this then there
"""


def train_bpe(merges):
    """[(vocab token -> id), merges] of a byte-level BPE with exactly `merges` merges or fewer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(REGEX), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.train_from_iterator(CORPUS.splitlines(keepends=True), trainers.BpeTrainer(
        vocab_size=256 + merges, show_progress=False, min_frequency=1,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [tuple(m) for m in model["merges"]]


def tokenizer_files(out, merges, merges_as_strings, template_inside):
    """tokenizer.json + tokenizer_config.json in Qwen's layout. Returns {special: id}, size."""
    vocab, pairs = train_bpe(merges)
    ids = {text: len(vocab) + i for i, (text, _) in enumerate(SPECIALS)}
    added = [{"id": ids[text], "content": text, "single_word": False, "lstrip": False,
              "rstrip": False, "normalized": False, "special": special}
             for text, special in SPECIALS]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False,
                  "use_regex": False}
    write_json(out / "tokenizer.json", {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": REGEX}, "behavior": "Isolated",
             "invert": False}, byte_level]},
        "post_processor": byte_level, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None,
                  "continuing_subword_prefix": "", "end_of_word_suffix": "", "fuse_unk": False,
                  "byte_fallback": False, "ignore_merges": False, "vocab": vocab,
                  "merges": [" ".join(p) for p in pairs] if merges_as_strings
                  else [list(p) for p in pairs]}})
    config = {
        "add_bos_token": False, "add_prefix_space": False,
        "added_tokens_decoder": {str(t["id"]): {k: t[k] for k in t if k != "id"} for t in added},
        "additional_special_tokens": [text for text, special in SPECIALS[1:] if special],
        "bos_token": None, "clean_up_tokenization_spaces": False, "eos_token": "<|im_end|>",
        "errors": "replace", "model_max_length": 4096, "pad_token": "<|endoftext|>",
        "split_special_tokens": False, "tokenizer_class": "Qwen2Tokenizer", "unk_token": None}
    if template_inside:
        config["chat_template"] = chat_template()
    write_json(out / "tokenizer_config.json", config)
    return ids, len(vocab) + len(SPECIALS)


def chat_template():
    """The project's own text that renders as Qwen3-VL's template does."""
    return (HERE / "train_demo" / "chat_template.jinja").read_text()


def write_json(path, value):
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n")


# ---- weights -------------------------------------------------------------------------------

class Noise:
    """Seeded weights by role. `gain`: output standard deviation for unit inputs."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def normal(self, *shape, std=1.0):
        return torch.from_numpy((self.rng.standard_normal(shape) * std).astype(np.float32))

    def matrix(self, rows, cols, gain):
        return self.normal(rows, cols, std=gain / cols ** 0.5)

    def scale(self, n, mean=1.0, signs=False):
        """Norm weights mean * (1 +- 0.3), of both signs if asked."""
        w = mean * (1 + 0.3 * self.normal(n))
        return w * torch.from_numpy(self.rng.choice([-1, 1], n).astype(np.float32)) if signs else w


def vision_weights(noise, v, out_hidden):
    d, f, g = v["hidden_size"], v["intermediate_size"], 4 * v["hidden_size"]
    pixels = (3, v["temporal_patch_size"], v["patch_size"], v["patch_size"])
    w = {"patch_embed.proj.weight": noise.matrix(d, int(np.prod(pixels)), 2.0).view(d, *pixels),
         "patch_embed.proj.bias": noise.normal(d, std=0.3),
         "pos_embed.weight": noise.normal(v["num_position_embeddings"], d, std=0.6)}

    def linear(name, rows, cols, gain):
        w[name + ".weight"] = noise.matrix(rows, cols, gain)
        w[name + ".bias"] = noise.normal(rows, std=0.2)

    def norm(name, n):
        w[name + ".weight"] = noise.scale(n)
        w[name + ".bias"] = noise.normal(n, std=0.2)

    for i in range(v["depth"]):
        block = f"blocks.{i}."
        norm(block + "norm1", d)
        linear(block + "attn.qkv", 3 * d, d, 1.3)
        linear(block + "attn.proj", d, d, 0.7)
        norm(block + "norm2", d)
        linear(block + "mlp.linear_fc1", f, d, 1.3)
        linear(block + "mlp.linear_fc2", d, f, 0.7)
    count = len(v["deepstack_visual_indexes"])
    for name, n in [("merger.", d)] + [(f"deepstack_merger_list.{k}.", g) for k in range(count)]:
        norm(name + "norm", n)
        linear(name + "linear_fc1", g, g, 1.4)
        linear(name + "linear_fc2", out_hidden, g, 1.2)
    return w


def text_weights(noise, t, tied, specials):
    """`specials`: first id of the special tokens; from there on (padding rows included) the head
    is weak, so that greedy text stays ordinary text."""
    d, f, e, vocab = t["hidden_size"], t["intermediate_size"], t["head_dim"], t["vocab_size"]
    q, kv = t["num_attention_heads"] * e, t["num_key_value_heads"] * e
    embed = noise.normal(vocab, d, std=5.0 / d ** 0.5)
    embed[specials:] *= 0.5
    w = {"embed_tokens.weight": embed, "norm.weight": noise.scale(d, signs=True)}
    for i in range(t["num_hidden_layers"]):
        layer = f"layers.{i}."
        w[layer + "input_layernorm.weight"] = noise.scale(d)
        w[layer + "self_attn.q_proj.weight"] = noise.matrix(q, d, 1.0)
        w[layer + "self_attn.k_proj.weight"] = noise.matrix(kv, d, 1.0)
        w[layer + "self_attn.v_proj.weight"] = noise.matrix(kv, d, 1.2)
        w[layer + "self_attn.o_proj.weight"] = noise.matrix(d, q, 0.8)
        w[layer + "self_attn.q_norm.weight"] = noise.scale(e, 1.5)
        w[layer + "self_attn.k_norm.weight"] = noise.scale(e, 1.5)
        w[layer + "post_attention_layernorm.weight"] = noise.scale(d)
        w[layer + "mlp.gate_proj.weight"] = noise.matrix(f, d, 1.5)
        w[layer + "mlp.up_proj.weight"] = noise.matrix(f, d, 1.3)
        w[layer + "mlp.down_proj.weight"] = noise.matrix(d, f, 0.9)
    head = None
    if not tied:
        head = noise.matrix(vocab, d, 5.0)
        head[specials:] *= 0.4
    return w, head


# ---- the models ----------------------------------------------------------------------------

MODELS = {
    "std": dict(
        seed=1, merges=150, merges_as_strings=False, template="chat_template.jinja", tied=True,
        dtype=torch.bfloat16, padding=4,
        vision=dict(depth=6, hidden_size=64, intermediate_size=80, num_heads=1, patch_size=16,
                    num_position_embeddings=256, deepstack_visual_indexes=[1, 2, 4]),
        text=dict(hidden_size=64, intermediate_size=96, num_hidden_layers=4,
                  num_attention_heads=4, num_key_value_heads=2, head_dim=128, rms_norm_eps=1e-6),
        mrope=[24, 20, 20], theta=5000000, min_pixels=2048),
    "odd": dict(
        seed=2, merges=137, merges_as_strings=True, template="tokenizer_config", tied=False,
        dtype=torch.bfloat16, padding=21,
        vision=dict(depth=5, hidden_size=48, intermediate_size=76, num_heads=2, patch_size=14,
                    num_position_embeddings=100, deepstack_visual_indexes=[1, 3]),
        text=dict(hidden_size=60, intermediate_size=100, num_hidden_layers=4,
                  num_attention_heads=6, num_key_value_heads=2, head_dim=40, rms_norm_eps=1e-5),
        mrope=[8, 6, 6], theta=100000, min_pixels=1568),
    "shards": dict(
        seed=3, merges=160, merges_as_strings=True, template="chat_template.json", tied=True,
        dtype=torch.float16, padding=0, old=True, shards=3,
        vision=dict(depth=2, hidden_size=128, intermediate_size=160, num_heads=2, patch_size=8,
                    num_position_embeddings=144, deepstack_visual_indexes=[0]),
        text=dict(hidden_size=48, intermediate_size=96, num_hidden_layers=3,
                  num_attention_heads=4, num_key_value_heads=2, head_dim=64, rms_norm_eps=1e-6),
        mrope=[12, 10, 10], theta=1000000, min_pixels=1024),
    "deep": dict(
        seed=4, merges=120, merges_as_strings=False, template="chat_template.jinja", tied=True,
        dtype=torch.bfloat16, padding=0,
        vision=dict(depth=9, hidden_size=64, intermediate_size=72, num_heads=1, patch_size=8,
                    num_position_embeddings=400, deepstack_visual_indexes=[2, 3, 7]),
        text=dict(hidden_size=32, intermediate_size=64, num_hidden_layers=8,
                  num_attention_heads=2, num_key_value_heads=1, head_dim=128, rms_norm_eps=1e-6),
        mrope=[24, 20, 20], theta=5000000, min_pixels=1024),
}


def configs(spec, ids, vocab):
    """config.json, generation_config.json and preprocessor_config.json of one model."""
    dtype = str(spec["dtype"]).removeprefix("torch.")
    mrope = {"mrope_interleaved": True, "mrope_section": spec["mrope"], "rope_type": "default"}
    rope = {"rope_scaling": mrope, "rope_theta": spec["theta"]} if spec.get("old") \
        else {"rope_parameters": mrope | {"rope_theta": spec["theta"]}}
    end, pad = ids["<|im_end|>"], ids["<|endoftext|>"]
    text = spec["text"] | rope | {
        "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": pad,
        "dtype": dtype, "eos_token_id": end, "hidden_act": "silu",
        "initializer_range": 0.02, "max_position_embeddings": 4096, "model_type": "qwen3_vl_text",
        "tie_word_embeddings": spec["tied"], "use_cache": True, "vocab_size": vocab}
    vision = spec["vision"] | {
        "hidden_act": "gelu_pytorch_tanh", "in_channels": 3, "initializer_range": 0.02,
        "model_type": "qwen3_vl" if spec.get("old") else "qwen3_vl_vision",
        "out_hidden_size": text["hidden_size"], "spatial_merge_size": 2, "temporal_patch_size": 2}
    config = {
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "image_token_id": ids["<|image_pad|>"], "model_type": "qwen3_vl", "text_config": text,
        "tie_word_embeddings": spec["tied"],
        "transformers_version": "4.57.1" if spec.get("old") else "5.23.0",
        "video_token_id": ids["<|video_pad|>"], "vision_config": vision,
        "vision_end_token_id": ids["<|vision_end|>"],
        "vision_start_token_id": ids["<|vision_start|>"]}
    if not spec.get("old"):
        config["dtype"] = dtype
    generation = {"bos_token_id": pad, "do_sample": True, "eos_token_id": [end, pad],
                  "pad_token_id": pad, "repetition_penalty": 1.0, "temperature": 0.7,
                  "top_k": 20, "top_p": 0.8}
    preprocessor = {
        "image_mean": [0.5, 0.5, 0.5], "image_processor_type": "Qwen2VLImageProcessorFast",
        "image_std": [0.5, 0.5, 0.5], "merge_size": 2,
        "patch_size": spec["vision"]["patch_size"], "processor_class": "Qwen3VLProcessor",
        "size": {"longest_edge": 16777216, "shortest_edge": spec["min_pixels"]},
        "temporal_patch_size": 2}
    return config, generation, preprocessor


def tensors_of(spec, config, first_special):
    """{HF name: tensor} in storage dtype. float16 models keep vectors in float32."""
    noise = Noise(spec["seed"])
    visual = vision_weights(noise, config["vision_config"], spec["text"]["hidden_size"])
    text, head = text_weights(noise, config["text_config"], spec["tied"], first_special)
    before = ("visual.", "model.") if spec.get("old") \
        else ("model.visual.", "model.language_model.")
    tensors = {before[0] + k: v for k, v in visual.items()}
    tensors |= {before[1] + k: v for k, v in text.items()}
    if head is not None:
        tensors["lm_head.weight"] = head
    mixed = spec["dtype"] == torch.float16
    return {k: v if mixed and v.dim() == 1 else v.to(spec["dtype"]) for k, v in tensors.items()}


def write_model(name, root):
    spec, out = MODELS[name], root / name
    out.mkdir(parents=True, exist_ok=True)
    for stale in out.iterdir():
        stale.unlink()
    ids, size = tokenizer_files(out, spec["merges"], spec["merges_as_strings"],
                                spec["template"] == "tokenizer_config")
    if spec["template"] == "chat_template.jinja":
        (out / "chat_template.jinja").write_text(chat_template())
    elif spec["template"] == "chat_template.json":
        write_json(out / "chat_template.json", {"chat_template": chat_template()})
    config, generation, preprocessor = configs(spec, ids, size + spec["padding"])
    write_json(out / "config.json", config)
    write_json(out / "generation_config.json", generation)
    write_json(out / "preprocessor_config.json", preprocessor)
    tensors = tensors_of(spec, config, ids["<|endoftext|>"])
    meta = {"format": "pt"}
    shards = spec.get("shards", 1)
    if shards == 1:
        save_file(tensors, out / "model.safetensors", metadata=meta)
    else:
        names, where = sorted(tensors), {}
        for i in range(shards):
            part = names[i * len(names) // shards:(i + 1) * len(names) // shards]
            file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
            save_file({k: tensors[k] for k in part}, out / file, metadata=meta)
            where |= dict.fromkeys(part, file)
        total = sum(t.numel() * t.element_size() for t in tensors.values())
        write_json(out / "model.safetensors.index.json",
                   {"metadata": {"total_size": total}, "weight_map": where})
    print(f"{name}: {sum(f.stat().st_size for f in out.iterdir()) / 1e6:.2f} MB, "
          f"{sum(t.numel() for t in tensors.values())} weights, vocabulary {size}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=pathlib.Path,
                        default=HERE.parent / "tests" / "golden" / "models")
    parser.add_argument("names", nargs="*", metavar="NAME", help=" ".join(MODELS))
    args = parser.parse_args()
    for name in args.names or MODELS:
        write_model(name, args.out)


if __name__ == "__main__":
    main()
