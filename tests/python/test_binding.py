"""test_binding.py: the Python binding: struct layouts against the C compiler, an answer, pictures,
tokens, and every stage as numpy arrays that agree with the stored golden."""
import json
import os
import pathlib
import struct
import shlex
import subprocess
import sys
import tempfile

root = pathlib.Path(__file__).resolve().parents[2]
passed = failed = 0


def check(condition, what):
    global passed, failed
    if condition:
        passed += 1
    else:
        failed += 1
        print("FAIL", what)


def finish(skipped=0):
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    sys.exit(1 if failed else 0)


try:
    import numpy as np
except ImportError:
    system = "/usr/bin/python3"  # Debian's numpy is for Debian's Python, whichever comes first in PATH
    if sys.executable != system and subprocess.run([system, "-c", "import numpy"], capture_output=True).returncode == 0:
        os.execv(system, [system, *sys.argv])
    print("SKIP the Python binding needs numpy, which this python3 does not have")
    if os.environ.get("REQUIRE") == "1":
        failed = 1
    finish(skipped=1)

os.environ.setdefault("VITREOUS_LIB", str(root / os.environ.get("VL_BUILD", "build/release") / "libvitreous.so"))
sys.path.insert(0, str(root / "tools" / "python"))
import vitreous  # noqa: E402
from vitreous import _c  # noqa: E402


def read_safetensors(path):
    raw = pathlib.Path(path).read_bytes()
    n = struct.unpack("<Q", raw[:8])[0]
    out = {}
    for name, e in json.loads(raw[8:8 + n]).items():
        if name == "__metadata__":
            continue
        a, b = e["data_offsets"]
        kind = {"F32": np.float32, "I64": np.int64}[e["dtype"]]
        out[name] = np.frombuffer(raw[8 + n + a:8 + n + b], kind).reshape(e["shape"])
    return out


def struct_layouts():
    lines = ['#include "vitreous.h"', "#include <stdio.h>", "int main(void) {"]
    for name, s in _c.STRUCTS.items():
        lines.append(f'    printf("{name} %zu\\n", sizeof({name}));')
        for field, *_ in s._fields_:
            lines.append(f'    printf("{name}.{field} %zu\\n", offsetof({name}, {field}));')
    lines.append("    return 0;\n}\n")
    with tempfile.TemporaryDirectory() as tmp:
        source, program = pathlib.Path(tmp, "s.c"), pathlib.Path(tmp, "s")
        source.write_text("\n".join(lines))
        subprocess.run([*shlex.split(os.environ.get("CC", "cc")), f"-I{root}", str(source), "-o", str(program)], check=True)
        text = subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout
    for line in text.splitlines():
        name, value = line.split()
        s, _, field = name.partition(".")
        ours = getattr(_c.STRUCTS[s], field).offset if field else __import__("ctypes").sizeof(_c.STRUCTS[s])
        check(ours == int(value), f"{name}: {ours} in Python, {value} in C")


struct_layouts()
golden = root / "tests" / "golden"
case = json.loads((golden / "cases" / "std-image" / "case.json").read_text())
want = read_safetensors(golden / "cases" / "std-image" / "golden.safetensors")
folder = golden / "cases" / "std-image"

model = vitreous.Model(folder / case["model"], backend="cpu")
check(model.info["vocab"] > 256 and model.info["name"] == "std", "model.info")
ids = model.tokenize("Hello 你好 <|im_end|>")
check(model.detokenize(ids).decode() == "Hello 你好 <|im_end|>", "tokenize and back")
check(len(model.tokenize("<|im_end|>", special=True)) == 1, "special tokens")
check("<|im_start|>user" in model.render([{"role": "user", "content": "hi"}]), "render")

pictures = [model.picture(folder / f) for f in case["images"]]
check(pictures[0].values.shape[1] == 1536, "pixel_values")
check(pictures[0].info["tokens"] > 0 and pictures[0].info["format"] in ("jpeg", "png"), "picture.info")
taps = model.trace(case["prompt"], pictures)
compared = 0
for name, hf in want.items():
    if name in ("margins", "generated_ids"):
        continue
    ours = taps.get(name)
    check(ours is not None and ours.shape == hf.shape, f"trace: {name}")
    if ours is None or ours.shape != hf.shape:
        continue
    if hf.dtype == np.int64 or name == "pixel_values":
        check(np.array_equal(ours, hf), f"{name} differs")
    else:
        distance = np.linalg.norm((ours - hf).astype(np.float64)) / np.linalg.norm(hf.astype(np.float64))
        check(distance < 5e-5, f"{name}: rel-L2 {distance:.2g}")
    compared += 1
check(compared > 10, f"only {compared} stages compared")

streamed = []
answer = model.generate(case["prompt"], pictures, on_text=streamed.append, max_tokens=16, ignore_eos=True,
                        temperature=0.0)
check(answer.ids == want["generated_ids"][:16].tolist(), "generated ids")
check("".join(streamed) == answer.text and answer.finish_reason == "length", "streamed text")
session = model.session(kv_tokens=4096, prefix_cache=True)
again = session.generate(case["prompt"], pictures, max_tokens=16, ignore_eos=True, temperature=0.0, logprobs=3)
check(again.ids == answer.ids and again.logits_hash == answer.logits_hash, "another session, the same bits")
check(len(again.logprobs[0][1]) == 3 and again.logprobs[0][0] <= 0, "logprobs")
for bad in (lambda: vitreous.Model("/nonexistent"),
            lambda: model.picture(b"not a picture"),
            lambda: session.generate([{"role": "user", "content": 3}])):
    try:
        bad()
        check(False, "an error must raise")
    except vitreous.Error as e:
        check(str(e) != "", "an error says something")
try:
    model.generate("x", on_text=lambda s: 1 / 0, max_tokens=8, ignore_eos=True)
    check(False, "an exception in on_text is lost")
except ZeroDivisionError:
    check(True, "")
for wrong, bad in ((ValueError, lambda: model.generate("x", max_tokens=0)), (TypeError, lambda: model.generate("x", ["photo.jpg"]))):
    try:
        bad()
        check(False, f"{wrong.__name__} must be raised")
    except wrong as e:
        check("wanted" in str(e), "an error says what is wanted")
finish()
