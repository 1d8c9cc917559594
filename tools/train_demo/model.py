"""The HF model and a fast batched forward pass over its own parameters, for training on a CPU.

HF runs one picture at a time through the vision tower and pads nothing; here all pictures of a batch
have one size, so that every stage is one dense batch:
  pixels [B,P,768] -> vision [B,P,128] -> merged [B,N,192] -> text [B,S,192] -> logits.
test_model.py checks it against the HF forward. Auxiliary heads ("what is at this point?") read the
vision features during training and are dropped at export.
"""
import functools
import os
import shutil

import numpy as np
import torch
import torch.nn.functional as F
from transformers import AutoConfig, Qwen3VLForConditionalGeneration

import pictures as P
import vocab as V

HEADS = {"char": len(V.CHARS), "next": len(V.CHARS) + 1, "idx": 12, "shape": len(V.SHAPES),
         "colour": len(V.COLOURS), "x1h": 11, "x1t": 10, "y1h": 11, "y1t": 10, "x2h": 11, "x2t": 10,
         "y2h": 11, "y2t": 10, "v10": 10, "v1": 10, "place": 9}
FUSE = os.environ.get("FUSE", "1") == "1" and shutil.which("g++")
SCALE = {"char": 2.0, "next": 1.0, "idx": .5, "x1t": .15, "y1t": .15, "x2t": .15, "y2t": .15}  # else .6
TAPS = (3, 7)  # vision blocks whose patches the auxiliary heads read


def new_model(config_dir, seed):
    """An untrained HF model in fp32 with a head start for the vision tower: see the three functions."""
    torch.manual_seed(seed)
    config = AutoConfig.from_pretrained(config_dir)
    config.dtype = torch.float32
    model = Qwen3VLForConditionalGeneration(config).float()
    visual = model.model.visual
    with torch.no_grad():
        # both temporal slices are equal and stay equal: they get the same gradient
        visual.patch_embed.proj.weight.copy_(cosine_kernels().div(2)[:, :, None])
        visual.pos_embed.weight.copy_(0.25 * waves())
        for i, offsets in enumerate(LOOK):
            look_at(visual.blocks[i].attn.qkv.bias, offsets)
    return model


def cosine_kernels():
    """[128,3,16,16]: the lowest cosine patterns of a patch, 80 in brightness and 24 in each of two
    colour differences, so that the patch vector starts with nearly all that can be seen."""
    n = torch.arange(16)
    basis = torch.cos(np.pi * (n[None] + .5) * n[:, None] / 16) * (2 / 16) ** .5
    basis[0] *= .5 ** .5
    order = sorted(((u + v, abs(u - v), u, v) for u in range(16) for v in range(16)))
    out = []
    for count, rgb in ((80, (1, 1, 1)), (24, (1, -1, 0)), (24, (1, 1, -2))):
        rgb = torch.tensor(rgb, dtype=torch.float)
        rgb = rgb / rgb.norm()
        for total, _, u, v in order[:count]:
            gain = (.05 if total == 0 else .2 + .03 * total) * (1 if count == 80 else 2)
            out.append(gain * rgb[:, None, None] * torch.outer(basis[u], basis[v]))
    return torch.stack(out)


def waves(side=16):
    """[side*side, 128]: sines and cosines of row and column over the picture."""
    u = torch.arange(side) / (side - 1)
    freq = 0.4 * (7 / 0.4) ** (torch.arange(32) / 31) * 2 * np.pi
    wave = torch.cat([(u[:, None] * freq).sin(), (u[:, None] * freq).cos()], 1)
    grid = torch.cat([wave[:, None].expand(-1, side, -1), wave[None].expand(side, -1, -1)], 2)
    return grid.reshape(side * side, -1)


# (row, column) offset each of the two heads of the first blocks looks at, as a convolution would
LOOK = [((0, -1), (0, 1)), ((-1, 0), (1, 0)), ((0, -1), (0, 1)), ((-1, 0), (1, 0)), ((0, -2), (0, 2))]


def look_at(bias, offsets, strength=4.5):
    """Biases of q and k [384] such that rotary attention peaks at an offset: q.R(d)k sums
    cos((d - offset) f) over the four highest frequencies of each axis."""
    freq = 10000.0 ** (-torch.arange(16) / 16)
    for head, (row, col) in enumerate(offsets):
        angle = torch.cat([row * freq, col * freq])
        on = strength * (torch.arange(32) % 16 < 4)
        bias[head * 64:head * 64 + 64] = torch.cat([on * angle.cos(), on * angle.sin()])
        bias[128 + head * 64:128 + head * 64 + 64] = torch.cat([on, torch.zeros(32)])


class Aux(torch.nn.Module):
    """Per tap: gate a token's features by where the mark lies inside the token, then one linear layer."""

    def __init__(self, dims, cells):
        super().__init__()
        out = sum(HEADS.values())
        self.gate = torch.nn.ParameterList(torch.zeros(c, d) for c, d in zip(cells, dims))
        self.add = torch.nn.ParameterList(torch.zeros(c, d) for c, d in zip(cells, dims))
        self.weight = torch.nn.ParameterList(torch.randn(out, d) * 0.02 for d in dims)
        self.bias = torch.nn.ParameterList(torch.zeros(out) for _ in dims)


def params_of(model, aux):
    """name -> parameter, tied head once."""
    named = {n: p for n, p in model.named_parameters() if n != "lm_head.weight"}
    named.update({"aux." + n: p for n, p in aux.named_parameters()})
    return named


@functools.lru_cache(None)
def grid_tables(gh, gw, dtype=torch.bfloat16):
    """For a gh x gw patch grid in merge order: interpolation matrix [P, 256], cos and sin [P, 64]."""
    side = 16

    def taps(n):
        x = np.arange(n) * (side - 1) / max(n - 1, 1)
        f = x.astype(int)
        m = np.zeros((n, side), np.float32)
        for i in range(n):
            m[i, f[i]] += 1 - (x[i] - f[i])
            m[i, min(f[i] + 1, side - 1)] += x[i] - f[i]
        return m

    inter = np.einsum("ha,wb->hwab", taps(gh), taps(gw)).reshape(gh, gw, side * side)
    row, col = np.meshgrid(np.arange(gh), np.arange(gw), indexing="ij")

    def merge_order(a):
        a = a.reshape(gh // 2, 2, gw // 2, 2, *a.shape[2:])
        return np.ascontiguousarray(a.swapaxes(1, 2)).reshape(gh * gw, -1)

    inv = 10000.0 ** (-np.arange(16) / 16)
    angle = np.concatenate([merge_order(row) * inv, merge_order(col) * inv], 1)
    angle = np.concatenate([angle, angle], 1)
    return (torch.tensor(merge_order(inter)).to(dtype), torch.tensor(np.cos(angle)).to(dtype),
            torch.tensor(np.sin(angle)).to(dtype))


def patches(images):
    """uint8 [B,H,W,3] -> normalised patches in merge order [B, P, 3*16*16]."""
    b, h, w, _ = images.shape
    x = images.reshape(b, h // 32, 2, 16, w // 32, 2, 16, 3).transpose(0, 1, 4, 2, 5, 7, 3, 6)
    x = np.ascontiguousarray(x).reshape(b, h * w // 256, 768)
    return torch.from_numpy(x).float().div_(127.5).sub_(1)


def fused(fn):
    """Compiled once for all shapes; the eager function where there is no C++ compiler."""
    return torch.compile(fn, dynamic=True) if FUSE else fn


@fused
def rms(x, weight):
    y = x.float()
    return (y * torch.rsqrt(y.square().mean(-1, keepdim=True) + 1e-6) * weight.float()).to(x.dtype)


@fused
def swiglu(gate, up):
    return F.silu(gate) * up


@fused
def rotate(x, cos, sin):
    half = x.shape[-1] // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), -1) * sin


def attention(q, k, v, mask):
    s = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if mask is not None:
        s = s + mask
    return s.softmax(-1) @ v


def merger(w, name, x, post):
    if post:
        x = x.reshape(x.shape[0], -1, x.shape[2] * 4)
    x = F.layer_norm(x, (x.shape[-1],), w[name + ".norm.weight"], w[name + ".norm.bias"], 1e-6)
    x = x.reshape(x.shape[0], -1, w[name + ".linear_fc1.weight"].shape[0])
    x = F.gelu(F.linear(x, w[name + ".linear_fc1.weight"], w[name + ".linear_fc1.bias"]))
    return F.linear(x, w[name + ".linear_fc2.weight"], w[name + ".linear_fc2.bias"])


def vision(w, pix, gh, gw):
    """-> merged [B,N,192], DeepStack features (3 x [B,N,192]), tapped patch features."""
    v = "model.visual."
    kernel = w[v + "patch_embed.proj.weight"].sum(2).flatten(1)  # both frames are the same picture
    inter, cos, sin = grid_tables(gh, gw, kernel.dtype)
    x = F.linear(pix.to(kernel.dtype), kernel, w[v + "patch_embed.proj.bias"])
    x = x + inter @ w[v + "pos_embed.weight"]
    b, p, d = x.shape
    deep, taps = [], []
    for i in range(8):
        n = f"{v}blocks.{i}."
        y = F.layer_norm(x, (d,), w[n + "norm1.weight"], w[n + "norm1.bias"], 1e-6)
        y = F.linear(y, w[n + "attn.qkv.weight"], w[n + "attn.qkv.bias"])
        q, k, val = y.view(b, p, 3, 2, 64).permute(2, 0, 3, 1, 4)
        y = attention(rotate(q, cos, sin), rotate(k, cos, sin), val, None)
        x = x + F.linear(y.transpose(1, 2).reshape(b, p, d), w[n + "attn.proj.weight"],
                         w[n + "attn.proj.bias"])
        y = F.layer_norm(x, (d,), w[n + "norm2.weight"], w[n + "norm2.bias"], 1e-6)
        y = F.linear(y, w[n + "mlp.linear_fc1.weight"], w[n + "mlp.linear_fc1.bias"])
        x = x + F.linear(F.gelu(y, approximate="tanh"), w[n + "mlp.linear_fc2.weight"],
                         w[n + "mlp.linear_fc2.bias"])
        if i in (1, 3, 5):
            deep.append(merger(w, f"{v}deepstack_merger_list.{i // 2}", x, True))
        if i in TAPS:
            taps.append(x)
    return merger(w, v + "merger", x, False), deep, taps


def text_rope(pos, dtype):
    """pos [3,B,S] -> cos, sin [B,1,S,64] of interleaved M-RoPE with sections 12, 10, 10."""
    inv = 10000.0 ** (-torch.arange(32) / 32)
    freq = pos[..., None].float() * inv
    out = freq[0].clone()
    for axis in (1, 2):
        out[..., axis:30:3] = freq[axis][..., axis:30:3]
    out = torch.cat([out, out], -1)[:, None]
    return out.cos().to(dtype), out.sin().to(dtype)


def language(w, x, image_at, deep, pos, mask):
    """x [B,S,192] with image rows at [image_at, image_at+N) -> normed hidden states."""
    t = "model.language_model."
    cos, sin = text_rope(pos, x.dtype)
    b, s, d = x.shape
    for i in range(5):
        n = f"{t}layers.{i}."
        y = rms(x, w[n + "input_layernorm.weight"])
        q = F.linear(y, w[n + "self_attn.q_proj.weight"]).view(b, s, 4, 64)
        k = F.linear(y, w[n + "self_attn.k_proj.weight"]).view(b, s, 2, 64)
        v = F.linear(y, w[n + "self_attn.v_proj.weight"]).view(b, s, 2, 64).transpose(1, 2)
        q = rms(q, w[n + "self_attn.q_norm.weight"]).transpose(1, 2)
        k = rms(k, w[n + "self_attn.k_norm.weight"]).transpose(1, 2)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        # the two query heads of a group share one product: [B, 2, 2S, 64] against [B, 2, S, 64]
        y = attention(q.reshape(b, 2, 2 * s, 64), k, v, mask)
        y = y.reshape(b, 4, s, 64).transpose(1, 2).reshape(b, s, 256)
        x = x + F.linear(y, w[n + "self_attn.o_proj.weight"])
        y = rms(x, w[n + "post_attention_layernorm.weight"])
        y = swiglu(F.linear(y, w[n + "mlp.gate_proj.weight"]), F.linear(y, w[n + "mlp.up_proj.weight"]))
        x = x + F.linear(y, w[n + "mlp.down_proj.weight"])
        if i < 3:
            x = torch.cat([x[:, :image_at], x[:, image_at:image_at + deep[i].shape[1]] + deep[i],
                           x[:, image_at + deep[i].shape[1]:]], 1)
    return rms(x, w[t + "norm.weight"])


def forward(w, batch):
    """-> hidden states [B,S,192] and the features for the auxiliary heads."""
    gh, gw = batch["grid"]
    tower = w["model.visual.merger.norm.weight"].requires_grad  # frozen: no gradient, half the time
    with torch.set_grad_enabled(tower and torch.is_grad_enabled()):
        merged, deep, taps = vision(w, batch["pixels"], gh, gw)
    emb = w["model.language_model.embed_tokens.weight"]
    at = batch["image_at"]
    x = F.embedding(batch["ids"], emb)
    x = torch.cat([x[:, :at], merged, x[:, at + merged.shape[1]:]], 1)
    mask = batch["mask"].to(x.dtype)[:, None]
    mask = torch.cat([mask, mask], 2)  # two query heads per key head
    return language(w, x, at, deep, batch["pos"], mask), taps + [merged]


def aux_loss(w, taps, marks):
    """Mean cross entropy of all heads over the marks, and the accuracy of "char" per tap."""
    total, acc = 0.0, []
    fields = marks["fields"]
    for k, feat in enumerate(taps):
        merged = k == len(taps) - 1
        h = feat[marks["b"], marks["merged" if merged else "patch"]]
        cell = marks["merged_cell" if merged else "cell"]
        h = F.rms_norm(h, (h.shape[-1],))
        h = h * (1 + w[f"aux.gate.{k}"][cell]) + w[f"aux.add.{k}"][cell]
        out = F.linear(h, w[f"aux.weight.{k}"], w[f"aux.bias.{k}"]).float()
        start, loss = 0, 0.0
        for name, size in HEADS.items():
            target = fields[:, P.FIELD_ID[name]]
            logit = out[:, start:start + size]
            start += size
            rows = target != P.NONE
            if rows.any():
                scale = SCALE.get(name, .6)
                part = F.cross_entropy(logit[rows], target[rows], reduction="sum")
                loss = loss + scale * part / max(8, len(target))
                if name == "char":
                    acc.append((logit[rows].argmax(-1) == target[rows]).float().mean().item())
        total = total + loss
    return total / len(taps), acc
