"""A Qwen3-VL checkpoint in Hugging Face format -> the two GGUF files that llama.cpp reads, in bf16.

    to_gguf.py FOLDER OUT        writes OUT/text.gguf and OUT/vision.gguf; wants the packages gguf, numpy

Tensor names come from the gguf package's own map; what it lacks (mergers, DeepStack) is below. Matrices
stay bf16 as stored, vectors and the two convolution slices of the patch embedding become float32. FOLDER's
tokenizer must have every id (peers.py prepare fills the gap of random checkpoints).
"""
import json
import pathlib
import struct
import sys

import gguf
import numpy as np


def tensors(folder):
    """(name, shape, uint16 bits of bf16), one by one."""
    for path in sorted(folder.glob("*.safetensors")):
        with open(path, "rb") as f:
            size = struct.unpack("<Q", f.read(8))[0]
            header = json.loads(f.read(size))
        for name, t in header.items():
            if name == "__metadata__":
                continue
            if t["dtype"] != "BF16":
                raise ValueError(f"{path}: {name} is {t['dtype']}, expected BF16")
            begin, end = t["data_offsets"]
            yield name, t["shape"], np.memmap(path, np.uint16, "r", 8 + size + begin, (end - begin) // 2)


def add(writer, name, shape, bits, float32=False):
    bits = bits.reshape(shape)
    if float32 or len(shape) < 2:
        writer.add_tensor(name, (bits.astype(np.uint32) << 16).view(np.float32))
    else:
        writer.add_tensor(name, np.ascontiguousarray(bits).view(np.uint8),
                          raw_dtype=gguf.GGMLQuantizationType.BF16)


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_tokenizer(writer, folder):
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    special = {t["id"]: t["content"] for t in tokenizer["added_tokens"]}
    tokens = {i: text for text, i in tokenizer["model"]["vocab"].items()} | special
    count = json.loads((folder / "config.json").read_text())["text_config"]["vocab_size"]
    for i in range(count):  # rows of the table beyond the tokenizer
        tokens.setdefault(i, f"[PAD{i}]")
    merges = [m if isinstance(m, str) else " ".join(m) for m in tokenizer["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([tokens[i] for i in range(count)])
    writer.add_token_types([gguf.TokenType.CONTROL if i in special else gguf.TokenType.NORMAL
                            for i in range(count)])
    # llama.cpp insists on the key and the format has no empty array: a merge that meets nothing
    writer.add_token_merges(merges or [f"{tokens[256]} {tokens[257]}"])
    for what, name in (("eos", "<|im_end|>"), ("pad", "<|endoftext|>")):
        i = next((i for i, text in special.items() if text == name), None)
        if i is not None:
            getattr(writer, f"add_{what}_token_id")(i)


def write_text(folder, config, path):
    t, vision = config["text_config"], config["vision_config"]
    w = gguf.GGUFWriter(path, "qwen3vl")
    w.add_context_length(t["max_position_embeddings"])
    w.add_embedding_length(t["hidden_size"])
    w.add_block_count(t["num_hidden_layers"])
    w.add_feed_forward_length(t["intermediate_size"])
    w.add_head_count(t["num_attention_heads"])
    w.add_head_count_kv(t["num_key_value_heads"])
    w.add_key_length(t["head_dim"])
    w.add_value_length(t["head_dim"])
    w.add_rope_freq_base(t["rope_theta"])
    w.add_layer_norm_rms_eps(t["rms_norm_eps"])
    w.add_rope_dimension_sections([*t["rope_scaling"]["mrope_section"], 0])
    w.add_num_deepstack_layers(len(vision["deepstack_visual_indexes"]))
    add_tokenizer(w, folder)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN3VL, t["num_hidden_layers"])
    for name, shape, bits in tensors(folder):
        if not name.startswith("model.visual."):
            plain = name.replace("model.language_model.", "model.")
            add(w, names.get_name(plain, (".weight", ".bias")), shape, bits)
    finish(w)


def vision_name(name, names, deepstack):
    """The GGUF name of a tensor whose Hugging Face name is visual.*"""
    part = name.split(".")
    if part[1] == "deepstack_merger_list":  # named by the layer whose output they take
        what = {"norm": "norm", "linear_fc1": "fc1", "linear_fc2": "fc2"}[part[3]]
        return f"v.deepstack.{deepstack[int(part[2])]}.{what}.{part[4]}"
    if part[1] == "merger":
        return {"norm": "v.post_ln", "linear_fc1": "mm.0", "linear_fc2": "mm.2"}[part[2]] + "." + part[3]
    return names.get_name(name, (".weight", ".bias"))


def write_vision(folder, config, path):
    v = config["vision_config"]
    picture = json.loads((folder / "preprocessor_config.json").read_text())
    w = gguf.GGUFWriter(path, "clip")
    w.add_type("mmproj")
    w.add_clip_has_vision_encoder(True)
    w.add_clip_projector_type(gguf.VisionProjectorType.QWEN3VL)
    w.add_vision_image_size(int(v["num_position_embeddings"] ** 0.5) * v["patch_size"])
    w.add_vision_patch_size(v["patch_size"])
    w.add_vision_embedding_length(v["hidden_size"])
    w.add_vision_feed_forward_length(v["intermediate_size"])
    w.add_vision_projection_dim(v["out_hidden_size"])
    w.add_vision_block_count(v["depth"])
    w.add_vision_head_count(v["num_heads"])
    w.add_vision_attention_layernorm_eps(1e-6)
    w.add_vision_spatial_merge_size(v["spatial_merge_size"])
    w.add_vision_image_mean(picture["image_mean"])
    w.add_vision_image_std(picture["image_std"])
    w.add_vision_use_gelu(True)
    w.add_vision_is_deepstack_layers([i in v["deepstack_visual_indexes"] for i in range(v["depth"])])
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.MMPROJ, v["depth"])
    for name, shape, bits in tensors(folder):
        name = name.removeprefix("model.")
        if name == "visual.patch_embed.proj.weight":  # Conv3d over two equal frames: one Conv2d each
            both = bits.reshape(shape)
            for i, suffix in enumerate(("", ".1")):
                add(w, f"v.patch_embd.weight{suffix}", [*shape[:2], *shape[3:]], both[:, :, i], float32=True)
        elif name.startswith("visual."):
            add(w, vision_name(name, names, v["deepstack_visual_indexes"]), shape, bits,
                float32=name == "visual.pos_embed.weight")
    finish(w)


def main():
    folder, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    out.mkdir(exist_ok=True)
    config = json.loads((folder / "config.json").read_text())
    write_text(folder, config, out / "text.gguf")
    write_vision(folder, config, out / "vision.gguf")


if __name__ == "__main__":
    main()
