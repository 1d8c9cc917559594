#!/bin/bash
# test_quantize.sh: --dtype int8|int4 and `vitreous quantize`: what is written loads and gives the bits of
# quantising at load; the quality bars on the demo model; schedules; FP8; damaged scales are refused.
set -u
cd "$(dirname "$0")/../.." || exit 2
vitreous=${VITREOUS:-build/release/vitreous}
python=${PYTHON:-python3}
"$python" -c 'import numpy' 2>/dev/null || python=/usr/bin/python3 # where make deps puts numpy
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
pass=0 fail=0
check() { # what, command...
    local what=$1
    shift
    if "$@" >"$out/log" 2>&1; then pass=$((pass + 1)); else
        fail=$((fail + 1))
        echo "FAIL $what: $(tail -2 "$out/log" | tr '\n' ' ')"
    fi
}
refused() { # what, words of the message, arguments of run
    local what=$1 words=$2
    shift 2
    "$vitreous" run --backend cpu -p hi -n 1 "$@" >"$out/said" 2>&1
    local rc=$?
    check "$what: exit $rc: $(cat "$out/said")" test $rc -ge 2 -a $rc -le 3
    check "$what: $(cat "$out/said")" grep -q -e "$words" "$out/said"
}
hash_of() { # arguments of run -> hash of the last logits and the text
    "$vitreous" run --backend cpu --json --image models/demo/pictures/01-shapes.png -p "What is in this picture?" \
        -n 24 "$@" 2>/dev/null | "$python" -c 'import json, sys; d = json.load(sys.stdin); print(d["logits_hash"], d["text"])'
}

for d in int8 int4; do
    check "quantize $d" sh -c "'$vitreous' quantize --dtype $d '$out/$d' 2>'$out/$d.err'"
    a=$(hash_of --dtype $d) b=$(hash_of -m "$out/$d") c=$(hash_of -m "$out/$d" --threads 1)
    check "$d: written and at load: '$a' '$b'" test -n "$a" -a "$a" = "$b"
    check "$d: one thread: '$c'" test "$a" = "$c"
    check "quantize $d says what it wrote" grep -qxF "written: $out/$d" "$out/$d.err"
    check "$d: a second time refused" sh -c "! '$vitreous' quantize --dtype $d $out/$d"
    check "$d: info" "$vitreous" info -m "$out/$d"
    "$vitreous" quantize --dtype $d --report --json 2>/dev/null >"$out/$d.json"
    check "$d: quality bars" "$python" - "$out/$d.json" "$d" <<'P'
import json, sys
r, d = json.load(open(sys.argv[1])), sys.argv[2]
print(r)
bar, top, answers = {"int8": (.002, .95, 1), "int4": (.03, .90, 2)}[d]
assert 0 < r["all"]["mean_kld"] <= bar and r["all"]["top1"] >= top
assert r["answers"]["asked"] == 40 and r["answers"]["mode"] >= r["answers"]["exact"] - answers
P
done
refused "int4 weights in exact mode" "int4" -m "$out/int4" --dtype exact
refused "int8 weights in int4 mode" "int8" -m "$out/int8" --dtype int4
check "no dtype" sh -c "! '$vitreous' quantize $out/none"
check "a quantised source" sh -c "! '$vitreous' quantize -m $out/int8 --dtype int4 $out/twice"

# Damaged copies, and an FP8 checkpoint beside the bf16 one it stands for.
check "damaged checkpoints" "$python" - "$out" <<'P'
import json, os, shutil, struct, sys
import numpy as np
out = sys.argv[1]

def read(path):
    raw = open(path, "rb").read()
    n = struct.unpack("<Q", raw[:8])[0]
    head = json.loads(raw[8:8 + n])
    head.pop("__metadata__", None)
    return {k: [v["dtype"], v["shape"], raw[8 + n:][v["data_offsets"][0]:v["data_offsets"][1]]] for k, v in head.items()}

def write(folder, source, tensors):
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.safetensors", "pictures"))
    head, at = {}, 0
    order = sorted(tensors, key=lambda k: -{"F32": 4, "BF16": 2}.get(tensors[k][0], 1))
    for k in order:
        d, s, b = tensors[k]
        head[k] = {"dtype": d, "shape": s, "data_offsets": [at, at + len(b)]}
        at += len(b)
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    open(folder + "/model.safetensors", "wb").write(struct.pack("<Q", len(text)) + text + b"".join(tensors[k][2] for k in order))

name = "model.language_model.layers.1.mlp.up_proj.weight"
def damaged(to, change):
    t = read(out + "/int8/model.safetensors")
    change(t)
    write(out + "/" + to, out + "/int8", t)

def nan(t): t[name + "_scale"][2] = b"\xc0\x7f" + t[name + "_scale"][2][2:]
def negative(t): t[name + "_scale"][2] = b"\x80\xbf" + t[name + "_scale"][2][2:]
def group64(t):
    n, g = t[name + "_scale"][1]
    t[name + "_scale"][1:] = [[n, g // 2], t[name + "_scale"][2][:n * g]]
def missing(t): del t[name + "_scale"]
def wide(t):
    n, g = t[name + "_scale"][1]
    t[name + "_scale"] = ["F32", [n, g], bytes(4 * n * g)]
def narrow(t): t[name] = ["U8", t[name][1], t[name][2]]
for f in (nan, negative, group64, missing, wide, narrow): damaged(f.__name__, f)

# FP8: e4m3 codes, bf16 scales of blocks of 128 x 128; the same as bf16(code * scale)
codes = np.arange(256)
e, m = codes >> 3 & 15, codes & 7
value = np.where(e == 0, m / 8 * 2.0 ** -6, (1 + m / 8) * 2.0 ** (e - 7.0)) * np.where(codes > 127, -1, 1)
value[[127, 255]] = 1e9
order = np.argsort(value[:127])
def bf16(x):
    u = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((u + 0x7fff + (u >> 16 & 1)) >> 16).astype(np.uint16)
def f32(h): return (h.astype(np.uint32) << 16).view(np.float32)
fp8, plain = read("models/demo/model.safetensors"), read("models/demo/model.safetensors")
for k, (d, s, b) in list(fp8.items()):
    if not (k.startswith("model.language_model.layers.") and k.endswith("proj.weight")): continue
    w = f32(np.frombuffer(b, np.uint16)).reshape(s)
    n, c = -(-s[0] // 128), -(-s[1] // 128)
    scale = np.zeros((n, c), np.uint16)
    q = np.zeros(s, np.uint8)
    back = np.zeros(s, np.float32)
    for i in range(n):
        for j in range(c):
            part = w[i * 128:i * 128 + 128, j * 128:j * 128 + 128]
            scale[i, j] = bf16(np.array([abs(part).max() / 448 * 1.01]))[0]
            x = part / f32(scale[i, j:j + 1])[0]
            at = np.searchsorted(value[order], abs(x)).clip(1, 126)
            at -= abs(x) - value[order][at - 1] < value[order][at] - abs(x)
            code = order[at] | np.where(x < 0, 128, 0)
            q[i * 128:i * 128 + 128, j * 128:j * 128 + 128] = code
            back[i * 128:i * 128 + 128, j * 128:j * 128 + 128] = value[code].astype(np.float32) * f32(scale[i, j:j + 1])[0]
    fp8[k] = ["F8_E4M3", s, q.tobytes()]
    fp8[k + "_scale_inv"] = ["BF16", [n, c], scale.tobytes()]
    plain[k] = ["BF16", s, bf16(back).tobytes()]
write(out + "/fp8", "models/demo", fp8)
write(out + "/plain", "models/demo", plain)
k = name + "_scale_inv"
fp8[k] = ["BF16", [1, fp8[k][1][0] * fp8[k][1][1]], fp8[k][2]]
write(out + "/fp8shape", "models/demo", fp8)
P
refused "NaN scale" "scale 0 is" -m "$out/nan"
refused "negative scale" "not negative" -m "$out/negative"
refused "groups of 64" "one scale for 1 x 32" -m "$out/group64"
refused "no scales" "_scale are missing" -m "$out/missing"
refused "F32 scales" "expected BF16" -m "$out/wide"
refused "U8 of the shape of I8" "expected" -m "$out/narrow"
refused "FP8 with other blocks" "128 x 128" -m "$out/fp8shape"
for d in exact int8 int4; do
    a=$(hash_of -m "$out/fp8" --dtype $d) b=$(hash_of -m "$out/plain" --dtype $d)
    [ $d = exact ] && check "FP8 in $d: '$a' '$b'" test -n "$a" -a "$a" = "$b"
    [ $d != exact ] && check "FP8 in $d: '$a'" test -n "$a"
done
echo "$pass passed, $fail failed"
[ $fail = 0 ]
