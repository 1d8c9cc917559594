#!/bin/bash
# test_cli.sh: the contract of the command line: names, formats, exit codes, where output goes.
. "$(dirname "$0")/../lib.sh"
v=$VITREOUS
model=tests/golden/models/std
photo=tests/golden/images/pic-scene.jpg
commands="run chat demo batch serve trace verify preprocess tokenize detokenize template bench kernels tune
          info make-random gpu-report"

# ---- usage -------------------------------------------------------------------------------------
run "$v"; rc 2 "no command"; errs "no command" "usage: vitreous"
run "$v" --help; rc 0 "help"
for c in $commands; do has "help lists $c" "^  $c "; done
run "$v" --version; rc 0 "version"; has "version" "^vitreous [0-9]"
for c in $commands; do run "$v" "$c" --help; rc 0 "$c --help"; has "$c --help" "vitreous $c"; done
run "$v" rnu; rc 2 "unknown command"; errs "unknown command" "did you mean run"
run "$v" run --promt x; rc 2 "unknown option"; errs "unknown option" "did you mean --prompt"
run "$v" run -Z; rc 2 "unknown letter"
run "$v" run; rc 2 "run without a question"; errs "run without a question" "-p TEXT"
run "$v" run -p; rc 2 "an option without its value"; errs "an option without its value" "needs a value"
run "$v" run -p x -n ten; rc 2 "not a number"; errs "not a number" "whole number"
run "$v" run -p x -n 0; rc 2 "out of range"
run "$v" run -p x --temp -1; rc 2 "negative temperature"
run "$v" run -p x --json=yes; rc 2 "a flag with a value"
run "$v" run -p x --backend gpu -m $model; rc 2 "unknown backend"
run "$v" run -p x --dtype fp8 -m $model; rc 2 "unknown dtype"
run "$v" run -p x --preset huge -m $model --image $photo; rc 2 "unknown preset"
run "$v" run extra -p x; rc 2 "a stray argument"
run "$v" trace -p x; rc 2 "trace without --dump"
run "$v" verify; rc 2 "verify without --golden"
run "$v" batch; rc 2 "batch without files"
run "$v" template; rc 2 "template without messages"
run "$v" preprocess -m $model; rc 2 "preprocess without a picture"

# ---- run -----------------------------------------------------------------------------------------
run "$v" run -m $model --image $photo -p "What is this?" -n 8 --ignore-eos --threads 1
rc 0 "run"; errs "run: last line" "tok/s, [0-9.]+ GB/s, [0-9]+ % of roof.*logits [0-9a-f]{8}$"
first=$out
run "$v" run -m $model --image=$photo --prompt="What is this?" -n 8 --ignore-eos --threads 2
rc 0 "run, 2 threads"
check "run: the same answer with 2 threads" [ "$out" = "$first" ]
run "$v" run -m $model --image $photo -p "What is this?" -n 8 --ignore-eos --json
rc 0 "run --json"
for key in text usage prompt_tokens image_tokens completion_tokens finish_reason images timings \
           resized_width orientation warnings encode_s prefill_s decode_s logits_hash; do
    has "run --json has $key" "\"$key\":"
done
has "run --json: length" '"finish_reason":"length"'
has "run --json: 8 tokens" '"completion_tokens":8'
check "run --json: one line" [ "$(wc -l <"$tmp/out")" = 1 ]
run "$v" run --image models/demo/pictures/01-shapes.png -p "Locate all objects and output their bounding boxes in JSON format." \
    --greedy --preset ground --json
rc 0 "boxes to JSON"; has "boxes to JSON: in pixels of the original" '"grounding":\[{"type":"box","relative":\[.*"pixels":\[.*"image":0,"image_by":"only"'
printf 'GIF89a\2\0\1\0\200\0\0\377\0\0\0\0\377,\0\0\0\0\2\0\1\0\0\2\2\004\012\0,\0\0\0\0\1\0\1\0\0\2\2\114\1\0;' >"$tmp/two.gif"
run "$v" preprocess --image "$tmp/two.gif" --dump "$tmp/f0"; rc 0 "the first frame"; has "the first frame: warning" 'first_frame_used'
run "$v" preprocess --image "$tmp/two.gif" --frame 1 --dump "$tmp/f1"; rc 0 "--frame 1"
check "--frame 1 is another picture" [ "$(cmp -s "$tmp/f0" "$tmp/f1" && echo same)" = "" ]
run "$v" preprocess --image "$tmp/two.gif" --frame 2 --dump "$tmp/f2"; rc 3 "--frame 2"; errs "--frame 2" "this GIF has 2"
# Time by op: the lines with what passes between ops are the wall time, and ops are nearly all of it.
run "$v" run --image $photo -p "What is this?" -n 8 --ignore-eos --ops "$tmp/ops.json" --json
rc 0 "run --ops"
plain=$("$v" run --image $photo -p "What is this?" -n 8 --ignore-eos --json 2>/dev/null)
check "run --ops: the same answer" [ "$(grep -oE 'hash":"[0-9a-f]*' <<<"$out")" = "$(grep -oE 'hash":"[0-9a-f]*' <<<"$plain")" ]
adds_up() { # another program's turn may fall between two ops: the best of three
    "$v" run --image $photo -p "What is this?" -n 8 --ignore-eos --ops "$tmp/ops.json" --json >"$tmp/timed" 2>/dev/null || return
    python3 - "$tmp/ops.json" "$tmp/timed" <<'EOF'
import json, sys
ops = json.load(open(sys.argv[1])); wall = json.load(open(sys.argv[2]))["timings"]["total_s"]
rows = ops["ops"]
assert {"encode", "prefill", "decode"} <= {r["stage"] for r in rows}, rows
assert any(r["op"] == "attend_full" and r["calls"] for r in rows)
listed = sum(r["ms"] for r in rows) / 1e3; between = [r for r in rows if r["op"] == "between ops"][0]["ms"] / 1e3
assert abs(listed / wall - 1) < 0.03, (listed, wall)
assert 0 <= between < 0.2 * wall, (between, wall) # of a model whose ops take microseconds
EOF
}
check "run --ops adds up" eval 'adds_up || adds_up || adds_up'
for form in md csv html; do
    run "$v" run -m $model -p x -n 2 --ops "$tmp/ops.$form"; rc 0 "run --ops .$form"
    check "run --ops .$form names an op" grep -q attend_causal "$tmp/ops.$form"
done
check "run --ops .html has its picture" grep -q "<svg" "$tmp/ops.html"
run bash -c "'$v' run -m $model -p x -n 2 --ops - 2>&1"; has "run --ops -: the report begins a line" '^vitreous run: time by op$'
run "$v" run -m $model -p x -n 2 --ops /nowhere/x.md; rc 3 "run --ops to a folder that is not there"
run "$v" run -m $model -p "你好" -n 12 --ignore-eos --temp 1.5 --seed 7 --mirostat 2 --mirostat-tau 1; rc 0 "mirostat"
one=$out
run "$v" run -m $model -p "你好" -n 12 --ignore-eos --temp 1.5 --seed 7 --mirostat 2 --mirostat-tau 1
check "mirostat repeats with its seed" [ -n "$one" -a "$one" = "$out" ]
run "$v" run -m $model -p "你好" -n 12 --ignore-eos --temp 1.5 --seed 7 --mirostat 2 --mirostat-tau 9
check "tau matters" [ "$one" != "$out" ]
run "$v" run -m $model -p "你好" --mirostat 1; rc 3 "mirostat 1"
errs "says which there is" "expected 2"
run "$v" run -m $model -p "你好" -n 4 --ignore-eos --temp 0.8 --seed 7 --top-p 0.9 --top-k 20; rc 0 "sampling"
one=$out
run "$v" run -m $model -p "你好" -n 4 --ignore-eos --temp 0.8 --seed 7 --top-p 0.9 --top-k 20
check "sampling: same seed, same answer" [ "$out" = "$one" ]
run bash -c "printf 'What is this?' | '$v' run -m $model --image $photo -p - -n 8 --ignore-eos"
check "the question from stdin" [ "$out" = "$first" ]
run bash -c "echo 'What is this?' | '$v' run -m $model --image $photo -p - -n 8 --ignore-eos"
check "the newline at its end does not count" [ "$out" = "$first" ]
run bash -c "printf 'a\\0b' | '$v' run -m $model -p -"; rc 3 "a NUL in the question"
run bash -c "printf 'hello\n/help\n/image $photo\nand this?\n/nonsense\n/quit\n' | '$v' chat -m $model -n 4"
rc 0 "chat"; errs "chat: /image" "tokens"; errs "chat: help" "/image FILE"
run bash -c "'$v' run -m $model -p x -n 4 --ignore-eos >/dev/full"; rc 3 "a full disk is not success"

# ---- bad input ---------------------------------------------------------------------------------
printf 'not a picture' >"$tmp/x.jpg"
head -c 300 $photo >"$tmp/cut.jpg"
run "$v" run -m $model --image "$tmp/x.jpg" -p x; rc 3 "not a picture"; errs "not a picture" "x\.jpg"
run "$v" run -m $model --image "$tmp/cut.jpg" -p x; rc 3 "a cut-off picture"
run "$v" run -m $model --image "$tmp/none.jpg" -p x; rc 3 "a missing picture"; errs "a missing picture" "none\.jpg"
run "$v" run -m "$tmp" -p x; rc 3 "a folder that is no model"; errs "a folder that is no model" "config\.json"
run "$v" run -m "$tmp/none" -p x; rc 3 "a missing model"
run "$v" run -m $model -p $'\xff\xfe'; rc 3 "a prompt that is not UTF-8"
run "$v" run -m $model --image $photo -p x -n 2 --max-pixels 10 --json; rc 0 "max-pixels under one patch"
has "max-pixels under one patch" '"tokens":1,'
mkdir "$tmp/broken"; cp $model/* "$tmp/broken"; truncate -s -100 "$tmp/broken/model.safetensors"
run "$v" run -m "$tmp/broken" -p x; rc 3 "truncated weights"; errs "truncated weights" "model\.safetensors"
run "$v" verify --golden "$tmp"; rc 3 "no case there"
run "$v" kernels; rc 0 "kernels"
run env VL_CPU=nonsense "$v" kernels; rc 3 "VL_CPU with an unknown tier"; errs "VL_CPU with an unknown tier" "scalar"
run env VL_KERNEL=rope=nonsense "$v" run -m $model -p x -n 1; rc 3 "VL_KERNEL with an unknown kernel"
errs "VL_KERNEL with an unknown kernel" "it can be: rope_scalar"
run env VL_KERNEL=wheel=rope_scalar "$v" kernels; rc 3 "VL_KERNEL with an unknown slot"
errs "VL_KERNEL with an unknown slot" "slots: .*gemm_dpbf16"
run "$v" kernels gemm; rc 2 "kernels with a name but no --bench"
run "$v" kernels --bench wheel; rc 3 "kernels --bench of a kernel that is not there"
# Every line of ukernels.def that runs here has a row, with times, rates and where there is one a share of a peak.
rows_of_bench() {
    "$v" kernels --all --json 2>/dev/null >"$tmp/all.json" && "$v" kernels --bench --json 2>/dev/null >"$tmp/rates.json" &&
        python3 - "$tmp/all.json" "$tmp/rates.json" <<'END'
import json, sys
lines, rows = (json.load(open(f)) for f in sys.argv[1:])
here = [k["kernel"] for k in lines if k["reason"] != "this CPU lacks it"]
timed = [r["kernel"] for r in rows]
assert here and list(dict.fromkeys(timed)) == here, (here, timed)
for r in rows:
    assert r["us"] > 0 and (r["gbs"] > 0 or r["slot"] == "tiles_end"), r
    if r["slot"].startswith(("gemm", "gemv", "mix")): assert r["gflops"] > 0, r
    if r["slot"].startswith("gemv"): assert r["roof"] == "read" and r["peak_percent"] > 0 and r["read_gbs"] > 0, r
END
}
check "kernels --bench has rows for every kernel of this machine" rows_of_bench

# ---- text ----------------------------------------------------------------------------------------
text=$'Hello, wörld 你好\n<|im_start|> a\x01b'
ids=$(printf '%s' "$text" | "$v" tokenize -m $model)
back=$(printf '%s' "$ids" | "$v" detokenize -m $model)
check "tokenize and back" [ "$back" = "$text" ]
check "one line of ids" grep -qE '^[0-9]+( [0-9]+)*$' <<<"$ids"
plain=$(printf '<|im_start|>' | "$v" tokenize -m $model | wc -w)
special=$(printf '<|im_start|>' | "$v" tokenize -m $model --special | wc -w)
check "special tokens only where asked" [ "$plain" -gt 1 -a "$special" = 1 ]
check "nothing in, an empty line out" [ "$(printf '' | "$v" tokenize -m $model | wc -c)" = 1 ]
run bash -c "echo '12 x' | '$v' detokenize -m $model"; rc 3 "not an id"
run bash -c "echo 99999999 | '$v' detokenize -m $model"; rc 3 "an id outside the vocabulary"
printf '[{"role":"user","content":[{"type":"image"},{"type":"text","text":"hi <|im_end|>"}]}]' >"$tmp/m.json"
run "$v" template -m $model --messages "$tmp/m.json"; rc 0 "template"
has "template: picture" '<\|im_start\|>user'; has "template: picture" '<\|vision_start\|><\|image_pad\|><\|vision_end\|>hi'
has "template: opens the answer" '<\|im_start\|>assistant'
run "$v" template -m $model --messages "$tmp/m.json" --no-generation-prompt --add-vision-id
has "template: vision id" 'Picture 1: '
check "template: no answer opened" bash -c "! grep -q assistant <<<'$out'"
printf '{"role":' >"$tmp/bad.json"; run "$v" template --messages "$tmp/bad.json"; rc 3 "broken messages"

# ---- preprocess, trace, info ---------------------------------------------------------------------
run "$v" preprocess -m $model --image $photo --dump "$tmp/p.safetensors"; rc 0 "preprocess"
for key in width height resized_width resized_height tokens orientation warnings; do
    has "preprocess has $key" "\"$key\":"
done
check "preprocess: pixel_values" grep -aq pixel_values "$tmp/p.safetensors"
check "preprocess: image_grid_thw" grep -aq image_grid_thw "$tmp/p.safetensors"
run "$v" trace -m $model --image $photo -p hi -n 2 --dump "$tmp/t.safetensors"; rc 0 "trace"
check "trace: nothing on stdout" [ -z "$out" ]
for name in pixel_values image_grid_thw input_ids position_ids model.visual.patch_embed model.visual.pos_embed \
            model.visual.blocks.0 model.visual.deepstack_merger_list.0 model.visual.merger \
            model.language_model.inputs_embeds model.language_model.layers.0 \
            model.language_model.norm logits generated_ids; do
    check "trace has $name" grep -aqF "\"$name\"" "$tmp/t.safetensors"
done
run "$v" trace -m $model -p hi --dump "$tmp/no/such/folder.safetensors"; rc 3 "trace to nowhere"
run "$v" info -m $model; rc 0 "info"; has "info" "parameters"
has "info: objects on one line, without JSON's marks" "^text  +layers: [0-9]+, hidden: [0-9]+, .*[]0-9a-z]$"
has "info: what pictures cost" "^picture_tokens +224x224: [0-9]+, 448x448: [0-9]+"
run "$v" info -m $model --json; rc 0 "info --json"; has "info --json" '"decode_bytes_per_token":[0-9]+'
run "$v" info -m $model --check; rc 0 "info --check"; has "info --check" "([0-9]+) of \\1 tensors are finite"
cp -rL $model "$tmp/nan" && chmod -R u+w "$tmp/nan"
python3 - "$tmp/nan/model.safetensors" <<'END'
import json, struct, sys
b = bytearray(open(sys.argv[1], "rb").read())
n, = struct.unpack_from("<Q", b)
t = json.loads(b[8:8 + n])["model.language_model.norm.weight"]
at, size = 8 + n + t["data_offsets"][0], {"BF16": 2, "F16": 2, "F32": 4}[t["dtype"]]
b[at:at + size] = b"\xff" * size
open(sys.argv[1], "wb").write(b)
END
run "$v" info -m "$tmp/nan" --check; rc 1 "NaN weights"; has "NaN weights are named" "language_model.norm.weight holds NaN"
run "$v" run -m "$tmp/nan" -p hi; errs "NaN weights: an error, no answer" "no number"
errs "NaN weights: the warning names the tensor" "language_model.norm.weight holds NaN"
run "$v" info -m $model --tensors; has "info --tensors" 'model\.language_model\.embed_tokens\.weight'

# ---- make-random ---------------------------------------------------------------------------------
run "$v" make-random --like $model/config.json --seed 3 "$tmp/r1"; rc 0 "make-random"
run "$v" make-random --like $model/config.json --seed 3 "$tmp/r2"; rc 0 "make-random again"
run "$v" make-random --like $model/config.json --seed 4 "$tmp/r3"; rc 0 "make-random, another seed"
check "make-random: same seed, same bytes" cmp "$tmp/r1/model.safetensors" "$tmp/r2/model.safetensors"
check "make-random: another seed, other bytes" bash -c "! cmp -s '$tmp/r1/model.safetensors' '$tmp/r3/model.safetensors'"
run "$v" run -m "$tmp/r1" --image $photo -p "What is this?" -n 6 --ignore-eos; rc 0 "run on random weights"
cp "$tmp/r1/config.json" "$tmp/lone.json"
run "$v" make-random "$tmp/r4" --like "$tmp/none.json"; rc 3 "make-random from nothing"
run "$v" make-random; rc 2 "make-random without a folder"

# ---- batch ---------------------------------------------------------------------------------------
cp $photo "$tmp/a.jpg"; cp tests/golden/images/pic-tall.png "$tmp/b.png"
printf '%s\n' '{"id":"one","image":"a.jpg","prompt":"What?","max_tokens":4}' \
    '{"id":"two","images":["a.jpg","b.png"],"prompt":"Both?","max_tokens":5}' \
    '{"id":"three","prompt":"No picture"}' '{"id":"bad","image":"none.jpg","prompt":"?"}' >"$tmp/jobs.jsonl"
run "$v" batch -m $model --in "$tmp/jobs.jsonl" --out "$tmp/answers.jsonl" -n 6 --ignore-eos
rc 1 "batch with one bad job"
check "batch: a line per job" [ "$(wc -l <"$tmp/answers.jsonl")" = 4 ]
check "batch: the error names the file" grep -q '"id":"bad","error":".*none\.jpg' "$tmp/answers.jsonl"
printf '{"id":"three","te' >>"$tmp/answers.jsonl" # a torn line
cp "$tmp/a.jpg" "$tmp/none.jpg"
run "$v" batch -m $model --in "$tmp/jobs.jsonl" --out "$tmp/answers.jsonl" -n 6 --ignore-eos
rc 0 "batch goes on"; errs "batch goes on" "1 answered, 0 failed, 3 done before"
check "batch: the torn line is gone" [ "$(grep -c '"id":"three"' "$tmp/answers.jsonl")" = 1 ]
mkdir "$tmp/folder"; cp "$tmp/a.jpg" "$tmp/b.png" "$tmp/folder"
run "$v" batch -m $model --in "$tmp/folder" --out "$tmp/folder.jsonl" -p "What?" -n 3 --ignore-eos
rc 0 "batch over a folder"; check "batch over a folder: 2 lines" [ "$(wc -l <"$tmp/folder.jsonl")" = 2 ]
alone=$("$v" run -m $model --image "$tmp/a.jpg" -p "What?" -n 4 --ignore-eos --json | grep -o '"logits_hash":"[^"]*"')
check "batch: the same bits as alone" bash -c "grep '\"id\":\"one\"' '$tmp/answers.jsonl' | grep -qF '$alone'"

# ---- any working directory, paths with spaces ------------------------------------------------------
mkdir "$tmp/a folder"; cp -r $model "$tmp/a folder/the model"; cp $photo "$tmp/a folder/my photo.jpg"
ln -s "$v" "$tmp/a folder/link"
run bash -c "cd '$tmp/a folder' && ./link run -m 'the model' --image 'my photo.jpg' -p 'What is this?' -n 8 --ignore-eos"
rc 0 "spaces in paths"; check "spaces in paths: same answer" [ "$out" = "$first" ]
if [ -e models/demo/model.safetensors ]; then
    run bash -c "cd / && '$v' info"; rc 0 "the demo model from any folder"
    run bash -c "cd / && '$v' demo"; rc 0 "demo"; has "demo" "[0-9]+ of [0-9]+ answers as expected"
else
    skip "the demo model has no weights in this checkout"
fi
run env VITREOUS_DEMO="$tmp/none" "$v" run -p x; rc 3 "VITREOUS_DEMO that is not there"
run env VITREOUS_DEMO="$PWD/$model" "$v" run -p x -n 2; rc 0 "VITREOUS_DEMO names a model"
finish
