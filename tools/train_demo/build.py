"""Writes the checkpoint's text side: tokenizer.json, tokenizer_config.json, chat_template.jinja and
the config files; and makes the untrained HF model. Deterministic.

The tokenizer is byte-level BPE with exactly Qwen's structure (NFC, Qwen's split regex, ByteLevel).
All merges extend a token that begins with a space, a capital or a Chinese lead byte, so a word read
from a picture (no leading space) is spelled letter by letter, while questions stay short.
"""
import argparse
import json
import pathlib
import re

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers import processors

import vocab as V

QWEN_SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
              r"|\s*[\r\n]+|\s+(?!\S)|\s+")
# in Qwen3's order; the last eight are added but not special
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>",
           "<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>",
           "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"]
PLAIN = ["<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>",
         "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<tool_response>", "</tool_response>",
         "<think>", "</think>"]
MIN_PIXELS, MAX_PIXELS = 4096, 147456


def byte_alphabet():
    """GPT-2's byte -> printable character table, in byte order."""
    keep = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    table, extra = {}, 0
    for b in range(256):
        if b in keep:
            table[b] = chr(b)
        else:
            table[b] = chr(256 + extra)
            extra += 1
    return table


def words():
    """Pieces that become one token, most useful first."""
    text = [re.sub(r"\{\w+\}", " ", t) for t in V.templates()] + [q for q, _ in V.CHAT]
    text += [a for _, a in V.CHAT]
    en = {}
    for t in text:
        for w in re.findall(r" ?[A-Za-z]+", t):
            if w[0] == " " or w[0].isupper():
                en[w] = en.get(w, 0) + 1
    pieces = [" " + w for w in list(V.COLOURS) + list(V.SHAPES) + [p for p, _ in V.SHAPES.values()]]
    pieces += [w for w, _ in sorted(en.items(), key=lambda kv: (-kv[1], kv[0]))]
    pieces += [" " + w for w in V.ANSWER_WORDS]
    pieces += ['[{"', '":', '"}', '"},', '}]', '"}]', ' {"', ' [', '],', ' "', ' (', '".', "bbox"]
    zh = "".join(V.templates()) + V.ZH_CHARS + V.EXTRA_TEXT + "".join(q + a for q, a in V.CHAT)
    zh += "".join(z for _, z in V.COLOURS.values()) + "".join(z for _, z in V.SHAPES.values())
    zh += "".join(V.PLACES_ZH)
    pieces += sorted({c for c in zh if ord(c) > 127})
    return list(dict.fromkeys(pieces))


def make_tokenizer():
    table = byte_alphabet()
    vocab = {table[b]: b for b in range(256)}
    merges, tail = [], "s"

    def merge(left, right):
        if (left, right) not in merges:
            merges.append((left, right))
            vocab.setdefault(left + right, len(vocab))

    for piece in words():
        spelled = "".join(table[b] for b in piece.encode())
        left = spelled[0]
        for right in spelled[1:]:
            merge(left, right)
            left += right
    for right in ("s", "i", "s", "t", "a", "n", "t"):  # "assistant" from "ss": the rarest pair
        merge(tail, right)
        tail += right
    merge("a", tail)
    tok = Tokenizer(models.BPE(vocab=vocab, merges=merges, fuse_unk=False, byte_fallback=False,
                               ignore_merges=False))
    tok.normalizer = normalizers.NFC()
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(QWEN_SPLIT), behavior="isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)])
    tok.decoder = decoders.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    tok.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    tok.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in SPECIAL])
    tok.add_tokens([AddedToken(t, normalized=False, special=False) for t in PLAIN])
    return tok


def text_config(vocab_size):
    return {"model_type": "qwen3_vl_text", "vocab_size": vocab_size, "hidden_size": 192,
            "intermediate_size": 512, "num_hidden_layers": 5, "num_attention_heads": 4,
            "num_key_value_heads": 2, "head_dim": 64, "hidden_act": "silu", "rms_norm_eps": 1e-6,
            "max_position_embeddings": 4096, "attention_bias": False, "attention_dropout": 0.0,
            "initializer_range": 0.02, "use_cache": True, "tie_word_embeddings": True,
            "dtype": "bfloat16", "rope_theta": 10000,
            "rope_scaling": {"rope_type": "default", "mrope_section": [12, 10, 10],
                             "mrope_interleaved": True}}


VISION = {"model_type": "qwen3_vl", "depth": 8, "hidden_size": 128, "intermediate_size": 512,
          "num_heads": 2, "in_channels": 3, "patch_size": 16, "spatial_merge_size": 2,
          "temporal_patch_size": 2, "out_hidden_size": 192, "num_position_embeddings": 256,
          "deepstack_visual_indexes": [1, 3, 5], "hidden_act": "gelu_pytorch_tanh",
          "initializer_range": 0.02}


def write_json(path, obj):
    path.write_text(json.dumps(obj, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_configs(out):
    """Everything of the checkpoint except the weights; returns the tokenizer."""
    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    tok = make_tokenizer()
    tok.save(str(out / "tokenizer.json"))
    tid = tok.token_to_id
    n = tok.get_vocab_size()
    text = text_config(n)
    text["bos_token_id"], text["eos_token_id"] = tid("<|endoftext|>"), tid("<|im_end|>")
    write_json(out / "config.json", {
        "architectures": ["Qwen3VLForConditionalGeneration"], "model_type": "qwen3_vl",
        "image_token_id": tid("<|image_pad|>"), "video_token_id": tid("<|video_pad|>"),
        "vision_start_token_id": tid("<|vision_start|>"),
        "vision_end_token_id": tid("<|vision_end|>"), "tie_word_embeddings": True,
        "dtype": "bfloat16", "text_config": text, "vision_config": VISION})
    write_json(out / "generation_config.json", {
        "bos_token_id": tid("<|endoftext|>"), "pad_token_id": tid("<|endoftext|>"),
        "eos_token_id": [tid("<|im_end|>"), tid("<|endoftext|>")], "do_sample": False})
    image = {"size": {"shortest_edge": MIN_PIXELS, "longest_edge": MAX_PIXELS}, "patch_size": 16,
             "temporal_patch_size": 2, "merge_size": 2, "image_mean": [0.5, 0.5, 0.5],
             "image_std": [0.5, 0.5, 0.5], "processor_class": "Qwen3VLProcessor"}
    write_json(out / "preprocessor_config.json",
               dict(image, image_processor_type="Qwen2VLImageProcessorFast"))
    write_json(out / "video_preprocessor_config.json",
               dict(image, video_processor_type="Qwen3VLVideoProcessor"))
    added = {str(tid(t)): {"content": t, "lstrip": False, "normalized": False, "rstrip": False,
                           "single_word": False, "special": t in SPECIAL} for t in SPECIAL + PLAIN}
    write_json(out / "tokenizer_config.json", {
        "tokenizer_class": "Qwen2Tokenizer", "model_max_length": 4096, "add_prefix_space": False,
        "add_bos_token": False, "bos_token": None, "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>", "unk_token": None, "errors": "replace",
        "clean_up_tokenization_spaces": False, "split_special_tokens": False,
        "processor_class": "Qwen3VLProcessor",
        "additional_special_tokens": SPECIAL[1:], "added_tokens_decoder": added})
    template = pathlib.Path(__file__).with_name("chat_template.jinja")
    (out / "chat_template.jinja").write_text(template.read_text("utf-8"), "utf-8")
    return tok


if __name__ == "__main__":
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("out")
    tok = write_configs(ap.parse_args().out)
    print(tok.get_vocab_size(), "tokens")
