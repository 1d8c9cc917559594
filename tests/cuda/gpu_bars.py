#!/usr/bin/env python3
"""Bars for the GPU kernels at the shape of Qwen3-VL-2B: one token, and the products of a prompt's layer.

gpu_bars.py --slice FILE   writes a config.json of 2B's widths with LAYERS decoder layers
gpu_bars.py REPORT [PROMPT]  checks `gpu-report --like FILE --size text --json` against the bars, and one with
                           `--text-tokens 220`; prints what is missed and exits with 1, or prints the
                           figures and exits with 0
"""
import json
import sys

D, F, HEADS, KV, E, VOCAB, ALL_LAYERS, LAYERS = 2048, 6144, 16, 8, 128, 151936, 28, 2
# Bytes of weights that one launch of a kernel reads.
WEIGHTS = {"vl_qkv": 2 * D * E * (HEADS + 2 * KV), "vl_gate_up": 2 * D * 2 * F, "vl_norm_linear": 2 * D * VOCAB,
           "vl_linear_few": 2 * (D * D + D * F) // 2}  # output and down: on average
AHEAD = {"vl_linear_few": "vl_attend_128"}  # whose launch brings a part of them into the L2
LEAST_AHEAD_US = 1.0        # what that part takes at the data sheet's bandwidth
LAUNCHES = {"vl_qkv": 1, "vl_gate_up": 1, "vl_linear_few": 2, "vl_attend_128": 1}  # of a layer
MOST_LAUNCHES = 150         # of a token of 28 layers
MORE_THAN_WEIGHTS = 1.01    # DRAM bytes of a product over its weights
SECTORS = 0.99              # of what weight loads move, what is used
SHARE = {"H100": 0.78, "A10": 0.85, "T4": 0.85, "A100": 0.79}  # of the bandwidth, by the prediction; A100: wanted 0.85
MANY_US = 80                # the products of a layer and 220 rows, by the prediction (H100); 28 layers and a
                            # picture of 448 x 448 are to take 6 ms (issue 5)


def slice_of_2b():
    text = {"model_type": "qwen3_vl_text", "vocab_size": VOCAB, "hidden_size": D, "intermediate_size": F,
            "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": KV,
            "head_dim": E, "hidden_act": "silu", "rms_norm_eps": 1e-6, "max_position_embeddings": 262144,
            "attention_bias": False, "rope_theta": 5000000, "tie_word_embeddings": True,
            "rope_scaling": {"rope_type": "default", "mrope_section": [24, 20, 20], "mrope_interleaved": True}}
    vision = {"model_type": "qwen3_vl", "depth": 1, "hidden_size": 1024, "intermediate_size": 4096,
              "num_heads": 16, "in_channels": 3, "patch_size": 16, "spatial_merge_size": 2,
              "temporal_patch_size": 2, "out_hidden_size": D, "num_position_embeddings": 2304,
              "hidden_act": "gelu_pytorch_tanh", "deepstack_visual_indexes": [0]}
    return {"architectures": ["Qwen3VLForConditionalGeneration"], "model_type": "qwen3_vl",
            "image_token_id": 151655, "video_token_id": 151656, "vision_start_token_id": 151652,
            "vision_end_token_id": 151653, "tie_word_embeddings": True, "dtype": "bfloat16",
            "text_config": text, "vision_config": vision}


def check_kernels(stage, missed):
    """Counters of one stage: no bank conflict in products and attention, no wasted sector of weights."""
    for k in stage["kernels"]:
        name = f"{stage['stage']} {k['kernel']}"
        if k["mma_flops"] and k["shared_wavefronts"] != k["shared_ideal"]:
            missed.append(f"{name}: {k['shared_wavefronts']} wavefronts, {k['shared_ideal']} without conflicts")
        if k["kernel"] in WEIGHTS and k["weight_used"] < SECTORS * 32 * k["weight_sectors"]:
            missed.append(f"{name}: {k['weight_used']} bytes of {k['weight_sectors']} sectors are used")


def check_decode(gpu, stage, missed):
    kernels = {k["kernel"]: k for k in stage["kernels"]}
    missed += [f"decode: no {name}" for name in {**WEIGHTS, **LAUNCHES} if name not in kernels]
    if missed:
        return ""
    for name, n in LAUNCHES.items():
        if kernels[name]["launches"] != n * LAYERS:
            missed.append(f"decode: {kernels[name]['launches']} launches of {name} in {LAYERS} layers")
    for name, weights in WEIGHTS.items():
        dram = kernels[name]["dram_bytes"]
        if name in AHEAD:
            ahead = kernels[AHEAD[name]]
            dram += ahead["dram_bytes"]
            if ahead["dram_bytes"] / ahead["launches"] < LEAST_AHEAD_US * 1e3 * gpu["gbs"]:
                missed.append(f"decode: {AHEAD[name]} fetches nothing ahead: {ahead['dram_bytes']} bytes")
        dram /= kernels[name]["launches"]
        if not weights <= dram <= MORE_THAN_WEIGHTS * weights:
            missed.append(f"decode: {name} moves {dram:.0f} bytes for {weights} of weights")
    more = ALL_LAYERS - LAYERS
    launches = stage["launches"] + more * sum(LAUNCHES.values())
    us = stage["predicted_us"] + more * sum(kernels[name]["predicted_us"] / LAYERS for name in LAUNCHES)
    needed = 2 * (ALL_LAYERS * D * (E * (2 * HEADS + 2 * KV) + 3 * F) + VOCAB * D)
    share = needed / (gpu["gbs"] * 1e3) / us
    if launches > MOST_LAUNCHES:
        missed.append(f"decode: {launches} launches for a token, at most {MOST_LAUNCHES}")
    if share < SHARE[gpu["gpu"]]:
        missed.append(f"decode: {us:.0f} us predicted, {100 * share:.1f} % of the bandwidth")
    return f"{launches} launches, {us:.0f} us predicted, {100 * share:.1f} % of the bandwidth"


def check_prefill(stage, missed):
    many = [k for k in stage["kernels"] if k["kernel"].startswith("vl_many_") or k["kernel"] == "vl_gate_up_many"]
    us, n = sum(k["predicted_us"] for k in many) / LAYERS, sum(k["launches"] for k in many) / LAYERS
    if n != 4 or us > MANY_US:
        missed.append(f"prefill: {n} products a layer, {us:.1f} us predicted, at most {MANY_US}")
    return f"products of 220 rows {us:.1f} us a layer"


def main():
    if sys.argv[1] == "--slice":
        with open(sys.argv[2], "w") as f:
            json.dump(slice_of_2b(), f)
        return 0
    missed, said = [], []
    for name in sys.argv[1:]:
        with open(name) as f:
            gpu = json.load(f)["gpus"][0]
        stages = {s["stage"]: s for s in gpu["stages"]}
        for stage in stages.values():
            check_kernels(stage, missed)
        said.append(check_prefill(stages["prefill"], missed) if said else check_decode(gpu, stages["decode"], missed))
    print("\n".join(missed or said))
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
