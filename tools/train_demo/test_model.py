"""Checks that need torch and transformers: the fast forward pass equals HF's, a block of a batch equals
a prompt of its own, the tokenizer returns any bytes, and the chat template renders as Qwen3-VL's.

  python tools/train_demo/test_model.py [--template FILE]

FILE is Qwen3-VL's own template, for instance trl/chat_templates/qwen3_vl.jinja of the PyPI package trl;
without it the template is compared with the prompts written out below only.
"""
import argparse
import pathlib
import random
import tempfile

import torch
from transformers import AutoProcessor

import batches as B
import build
import model as M
import pictures as P
import train as T


def text(*t):
    return [{"type": "text", "text": s} for s in t]


IMAGE, VIDEO = {"type": "image", "image": "x"}, {"type": "video", "video": "x"}
CALL = {"type": "function", "function": {"name": "f", "arguments": {"x": 1, "y": 'é"'}}}
TOOLS = [{"type": "function", "function": {"name": "f", "description": 'say "é" <b>', "parameters": {
    "type": "object", "properties": {"x": {"type": "number"}}}}}]
TALKS = [
    [{"role": "user", "content": [IMAGE, *text("hi")]}],
    [{"role": "user", "content": "plain"}],
    [{"role": "system", "content": "sys"}, {"role": "user", "content": [IMAGE, IMAGE, *text("a"), IMAGE]}],
    [{"role": "system", "content": text("s1", "s2")}, {"role": "user", "content": text("q")},
     {"role": "assistant", "content": "ans"}, {"role": "user", "content": [VIDEO, *text("x"), IMAGE]}],
    [{"role": "user", "content": text("q")},
     {"role": "assistant", "content": "", "tool_calls": [CALL, {"name": "g", "arguments": '{"a": 2}'}]},
     {"role": "tool", "content": "r1"}, {"role": "tool", "content": [IMAGE, *text("r2")]},
     {"role": "assistant", "content": text("fin")}],
    [{"role": "user", "content": text("q")}, {"role": "assistant", "content": "t", "tool_calls": [CALL]},
     {"role": "tool", "content": "r1"}, {"role": "user", "content": [IMAGE]},
     {"role": "tool", "content": "last"}],
]
WRITTEN = {
    0: "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>hi<|im_end|>\n"
       "<|im_start|>assistant\n",
    2: "<|im_start|>system\nsys<|im_end|>\n<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>"
       "<|vision_start|><|image_pad|><|vision_end|>a<|vision_start|><|image_pad|><|vision_end|>"
       "<|im_end|>\n<|im_start|>assistant\n",
}


def check_template(tok, reference):
    for k, want in WRITTEN.items():
        got = tok.apply_chat_template(TALKS[k], tokenize=False, add_generation_prompt=True)
        assert got == want, (got, want)
    count = len(WRITTEN)
    for talk in TALKS if reference else []:
        for tools in (None, TOOLS):
            for ids in (False, True):
                for prompt in (False, True):
                    opt = dict(tools=tools, add_vision_id=ids, add_generation_prompt=prompt, tokenize=False)
                    got = tok.apply_chat_template(talk, **opt)
                    want = tok.apply_chat_template(talk, chat_template=reference, **opt)
                    assert got == want, (opt, got, want)
                    count += 1
    return count


def check_tokenizer(tok):
    r = random.Random(3)
    samples = ["", "house Table 12.5", "图中有几个红色的圆形？", "\r\n \t x", "\U0001f600\x00ﬁ e\u0301",
               "".join(map(chr, range(1, 0x3000)))]
    samples += ["".join(chr(r.choice([r.randint(0, 127), r.randint(0, 0xd7ff), r.randint(0xe000, 0x10ffff)]))
                        for _ in range(r.randint(1, 40))) for _ in range(300)]
    for s in samples:
        ids = tok.encode(s, add_special_tokens=False).ids
        # its own NFC: Python's may know another Unicode version
        assert tok.decode(ids, skip_special_tokens=False) == tok.normalizer.normalize_str(s), ascii(s)[:90]
    assert len(set(tok.get_vocab().values())) == tok.get_vocab_size()
    return len(samples)


def check_forward(folder, processor, coder):
    """Largest relative difference of the logits over a few pictures, two questions each."""
    model = M.new_model(folder, 1).eval()
    aux = M.Aux((128, 128, 192), (16, 16, 64))
    named = M.params_of(model, aux)
    params, _ = T.layout(named)
    flat = torch.cat([p.detach().flatten() for p in named.values()])
    w = T.views(flat, params, torch.float32)
    tables = M.grid_tables
    M.grid_tables = lambda gh, gw, _: tables(gh, gw, torch.float32)
    worst, r = 0.0, random.Random(3)
    for size in [(192, 160), (96, 256)]:
        pic = P.make(r, "number", size, 1.0)
        rows = B.blocks_of(r, pic, coder, True, 2)
        batch = B.collate([pic], [rows], coder, size)
        hidden, _ = M.forward(w, batch)
        logits = hidden[0] @ w["model.language_model.embed_tokens.weight"].T
        at = len(coder.user) + 1 + size[0] * size[1] // 1024 + 1
        for ids, spans, _ in rows:
            question = coder.tok.decode(ids[:spans[0][1]], skip_special_tokens=False).split("<|im_end|>")[0]
            content = [{"type": "image", "image": pic.image}, {"type": "text", "text": question}]
            inputs = processor.apply_chat_template([{"role": "user", "content": content}], tokenize=True,
                                                   add_generation_prompt=True, return_dict=True,
                                                   return_tensors="pt")
            with torch.no_grad():
                want = model(**inputs).logits[0]
            n = spans[0][1]
            assert inputs["input_ids"][0, -n:].tolist() == ids[:n]
            worst = max(worst, ((logits[at:at + n] - want[-n:]).abs().max() / want.abs().max()).item())
            at += len(ids)
    assert worst < 1e-4, worst
    return worst


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--template")
    args = ap.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tok = build.write_configs(folder)
        processor = AutoProcessor.from_pretrained(folder)
        assert type(processor).__name__ == "Qwen3VLProcessor"
        reference = pathlib.Path(args.template).read_text("utf-8") if args.template else None
        print("template:", check_template(processor.tokenizer, reference), "prompts equal")
        print("tokenizer:", check_tokenizer(tok), "texts returned")
        print(f"forward: logits within {check_forward(folder, processor, B.Coder(tok)):.1e} of HF")


if __name__ == "__main__":
    main()
