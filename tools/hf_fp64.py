"""A true float64 Qwen3-VL: the places where Hugging Face rounds to float32 inside, redone.

`model.double()` is not fp64: the RMSNorm, the eager softmax, both rotary embeddings (with their
float32 inverse frequencies) and the position-table weights all round to float32 whatever the
dtype of the weights is. `true_fp64()` replaces these five while it is active, so that the
distance of HF's own float32 run to the truth (the "floor") can be measured.

Checked against transformers 5.23.0.
"""
import contextlib
from unittest import mock

import torch
from transformers import vision_utils
from transformers.models.qwen3_vl import modeling_qwen3_vl as qwen


def _rmsnorm(self, x):
    scale = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
    return self.weight * (x * scale)


def _attention(module, query, key, value, attention_mask, scaling, **kwargs):
    key = qwen.repeat_kv(key, module.num_key_value_groups)
    value = qwen.repeat_kv(value, module.num_key_value_groups)
    scores = query @ key.transpose(2, 3) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = scores.softmax(-1)
    return (weights @ value).transpose(1, 2).contiguous(), weights


def _angles(position_ids, theta, dim):
    """[..., N] positions -> [..., N, dim/2] angles in float64."""
    inv_freq = 1.0 / theta ** (torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    return position_ids[..., None].double() * inv_freq


def _vision_rotary(self, x, position_ids):
    heads, width = self.config.num_heads, self.config.hidden_size
    angles = _angles(position_ids, self.config.rope_parameters["rope_theta"], width // heads // 2)
    return (self.recomposition_frequencies(angles.cos()),
            self.recomposition_frequencies(angles.sin()))


def _text_rotary(self, x, position_ids):
    if self.rope_type != "default":
        raise ValueError(f"fp64 reference: rope type {self.rope_type} is not covered")
    dim = getattr(self.config, "head_dim", None) \
        or self.config.hidden_size // self.config.num_attention_heads
    angles = _angles(position_ids.expand(3, -1, -1), self.config.rope_parameters["rope_theta"], dim)
    return (self.recomposition_frequencies(angles.cos()),
            self.recomposition_frequencies(angles.sin()))


def _rotate_vision(q, k, cos, sin):
    cos, sin = cos.unsqueeze(-2), sin.unsqueeze(-2)
    return q * cos + qwen.rotate_half(q) * sin, k * cos + qwen.rotate_half(k) * sin


def _axis_taps(index, size, side, mode, align_corners, padding="border"):
    assert mode == "bilinear" and align_corners and padding == "border"
    src = index.double() * (side - 1) / torch.clamp(size - 1, min=1)
    floor = src.floor()
    taps = (floor.long()[:, None] + torch.arange(2)).clamp(0, side - 1)
    frac = src - floor
    return taps, torch.stack([1 - frac, frac], -1)


@contextlib.contextmanager
def true_fp64():
    """While active, a Qwen3-VL whose weights are float64 computes in float64 throughout.
    The model must use eager attention."""
    with contextlib.ExitStack() as stack:
        for owner, name, new in [
            (qwen.Qwen3VLTextRMSNorm, "forward", _rmsnorm),
            (qwen, "eager_attention_forward", _attention),
            (qwen.Qwen3VLVisionRotaryEmbedding, "forward", _vision_rotary),
            (qwen.Qwen3VLTextRotaryEmbedding, "forward", _text_rotary),
            (qwen, "apply_rotary_pos_emb_vision", _rotate_vision),
            (vision_utils, "_interpolation_axis_taps_weights", _axis_taps),
        ]:
            stack.enter_context(mock.patch.object(owner, name, new))
        yield
