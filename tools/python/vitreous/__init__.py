"""Vitreous from Python: any stage of the model as numpy arrays, over libvitreous.so.

    import vitreous
    model = vitreous.Model()                          # the demo model, or a checkpoint folder
    picture = model.picture("photo.jpg")
    picture.values                                    # pixel_values [patches, width]
    print(model.generate("What is this?", [picture]).text)
    taps = model.trace("What is this?", [picture])    # {"model.visual.blocks.3": array, ...}
"""
import ctypes as C
import json
import sys

import numpy as np

from . import _c
from ._c import Error

__all__ = ["Model", "Picture", "Session", "Answer", "Error"]


def _alive(handle):
    """Whether __del__ should free it: at the end of the interpreter objects go in no order, so a
    model may be gone before its session; the process gives everything back then."""
    return getattr(handle, "_p", None) and not sys.is_finalizing()


class Model:
    """A checkpoint folder (None: the demo model). Keyword arguments as in vl_model_params."""

    def __init__(self, path=None, backend="auto", dtype="exact", threads=0, gpus=0):
        self._p = C.c_void_p()
        params = _c.ModelParams(backend.encode(), dtype.encode(), threads, gpus)
        _c.call("model_open", C.byref(self._p), str(path).encode() if path else None,
                C.byref(params))

    def __del__(self):
        if _alive(self):
            _c.lib.vl_model_free(self._p)

    @property
    def info(self):
        info = _c.lib.vl_model_get_info(self._p).contents
        return {name: v.decode() if isinstance(v, bytes) else v
                for name, v in ((f[0], getattr(info, f[0])) for f in info._fields_)}

    def tokenize(self, text, special=False):
        raw = text.encode() if isinstance(text, str) else text
        ids, n = C.POINTER(C.c_int32)(), C.c_size_t()
        _c.call("tokenize", self._p, raw, len(raw), special, C.byref(ids), C.byref(n))
        out = [ids[i] for i in range(n.value)]
        _c.libc.free(ids)
        return out

    def detokenize(self, ids, skip_special=False):
        """The bytes of the ids; .decode() them when they are whole characters."""
        array = (C.c_int32 * max(1, len(ids)))(*ids)
        text, n = C.c_void_p(), C.c_size_t()
        _c.call("detokenize", self._p, array, len(ids), skip_special, C.byref(text), C.byref(n))
        out = C.string_at(text, n.value)
        _c.libc.free(text)
        return out

    def render(self, messages, tools=None, flags=0):
        text = C.c_void_p()
        _c.call("render", self._p, json.dumps(messages).encode(),
                json.dumps(tools).encode() if tools else None, flags, C.byref(text))
        out = C.string_at(text).decode()
        _c.libc.free(text)
        return out

    def picture(self, source, **params):
        """A file name or the bytes of a file; params as in vl_picture_params."""
        return Picture(self, source, **params)

    def session(self, **params):
        return Session(self, **params)

    def generate(self, messages, pictures=(), **sampling):
        return Session(self)._generate(messages, pictures, **sampling)

    def trace(self, messages, pictures=(), max_tokens=1, max_rows=0):
        """Every tensor from pixel_values to generated_ids, by its Hugging Face name."""
        return Session(self, max_rows=max_rows).trace(messages, pictures, max_tokens)


class Picture:
    def __init__(self, model, source, **params):
        name = "picture"
        if not isinstance(source, (bytes, bytearray)):
            name = str(source)
            with open(source, "rb") as f:
                source = f.read()
        self._p = C.c_void_p()
        _c.call("picture_load", C.byref(self._p), model._p, bytes(source), len(source),
                name.encode(), C.byref(_c.PictureParams(**params)))

    def __del__(self):
        if _alive(self):
            _c.lib.vl_picture_free(self._p)

    @property
    def info(self):
        info = _c.lib.vl_picture_get_info(self._p).contents
        out = {f[0]: getattr(info, f[0]) for f in info._fields_}
        out["format"] = info.format.decode()
        out["warnings"] = [w.decode() for w in info.warnings[:info.n_warnings]]
        out["digest"] = bytes(info.digest)
        return out

    @property
    def values(self):
        """pixel_values [patches, width], a copy."""
        patches, width = C.c_int(), C.c_int()
        data = _c.lib.vl_picture_values(self._p, C.byref(patches), C.byref(width))
        return np.ctypeslib.as_array(data, (patches.value, width.value)).copy()


class Answer:
    """text, ids, finish_reason, prompt_tokens, image_tokens, completion_tokens, logits_hash and
    timings of one answer; logprobs [(logprob, [(id, logprob), ...]), ...] when asked for."""

    def __init__(self):
        self.raw, self.ids, self.logprobs = b"", [], []

    @property
    def text(self):
        return self.raw.decode("utf-8", "replace")

    def __str__(self):
        return self.text

    def _take(self, event, on_text):
        if event.kind == _c.EV_TOKEN:
            piece = C.string_at(event.text, event.len) if event.len else b""
            self.raw += piece
            if event.id >= 0:
                self.ids.append(event.id)
                top = [(event.top[i].id, event.top[i].logprob) for i in range(event.n_top)]
                self.logprobs.append((event.logprob, top))
            if on_text and piece:
                on_text(piece.decode("utf-8", "replace"))
        elif event.kind == _c.EV_DONE:
            self.finish_reason = event.finish_reason.decode()
            for name in ("prompt_tokens", "image_tokens", "completion_tokens", "logits_hash"):
                setattr(self, name, getattr(event, name))
            self.timings = {f[0]: getattr(event.timings, f[0]) for f in _c.Timings._fields_}
            self.error = _c.Err(event.error.code, event.error.msg)


class Session:
    """KV blocks and caches that several answers share; params as in vl_session_params."""

    def __init__(self, model, **params):
        self.model = model
        self._params = params
        self._p = C.c_void_p()
        if params.get("kv_tokens"):
            self._open()

    def _open(self, kv_tokens=0):
        params = _c.SessionParams(**{"kv_tokens": kv_tokens, **self._params})
        _c.call("session_open", C.byref(self._p), self.model._p, C.byref(params))

    def __del__(self):
        if _alive(self):
            _c.lib.vl_session_free(self._p)

    def _prompt(self, messages, pictures):
        if isinstance(messages, str):
            parts = [{"type": "image"}] * len(pictures) + [{"type": "text", "text": messages}]
            messages = [{"role": "user", "content": parts}]
        if not all(isinstance(p, Picture) for p in pictures):
            raise TypeError("pictures: what model.picture(...) returns is wanted")
        prompt = C.c_void_p()
        handles = (C.c_void_p * max(1, len(pictures)))(*[p._p.value for p in pictures])
        _c.call("prompt_chat", C.byref(prompt), self.model._p, json.dumps(messages).encode(), None,
                0, handles, len(pictures))
        return prompt

    def _sampling(self, max_tokens=256, stop=(), logit_bias=None, **options):
        if max_tokens < 1:
            raise ValueError(f"max_tokens is {max_tokens}: 1 or more is wanted")
        if "temperature" in options:
            sampling = _c.lib.vl_sampling_greedy(max_tokens)
        else:
            sampling = _c.lib.vl_sampling_of_model(self.model._p, max_tokens)
        for name, value in options.items():
            if name not in dict(_c.Sampling._fields_):
                raise TypeError(f"no sampling option {name!r}")
            setattr(sampling, name, value)
        self._keep = (C.c_char_p * max(1, len(stop)))(*[s.encode() for s in stop])
        sampling.stop, sampling.n_stop = self._keep, len(stop)
        if logit_bias:
            self._keep_bias = (_c.LogitBias * len(logit_bias))(*logit_bias.items())
            sampling.bias, sampling.n_bias = self._keep_bias, len(logit_bias)
        return sampling

    def generate(self, messages, pictures=(), on_text=None, **sampling):
        """messages: a question, or a list as in the OpenAI API. on_text(str) sees the text as it
        comes. Sampling options as in vl_sampling; without `temperature` the checkpoint's own."""
        return self._generate(messages, pictures, on_text, **sampling)

    def _generate(self, messages, pictures=(), on_text=None, **options):
        prompt = self._prompt(messages, pictures)
        answer, raised = Answer(), []
        try:
            sampling = self._sampling(**options)
            if not self._p:
                n = C.c_size_t()
                _c.lib.vl_prompt_ids(prompt, C.byref(n))
                self._open(max(4096, n.value + sampling.max_tokens + 1))

            @_c.EventFn
            def on_event(_, event):
                try:
                    answer._take(event.contents, on_text)
                    return 0
                except BaseException as e:  # ctypes would swallow it: cancel, raise afterwards
                    raised.append(e)
                    return 1

            _c.call("generate", self._p, prompt, C.byref(sampling), on_event, None)
        finally:
            _c.lib.vl_prompt_free(prompt)
        if raised:
            raise raised[0]
        if answer.finish_reason == "error":
            raise Error(answer.error)
        return answer

    def trace(self, messages, pictures=(), max_tokens=1):
        taps = {}

        @_c.TapFn
        def on_tap(_, tap):
            t = tap.contents
            shape = tuple(t.shape[:t.rank])
            data = t.f32 if t.f32 else t.i64
            taps[t.name.decode()] = np.ctypeslib.as_array(data, shape).copy()

        if not self._p:
            self._open(16384)
        _c.call("session_trace", self._p, on_tap, None)
        try:
            self._generate(messages, pictures, max_tokens=max_tokens, temperature=0.0)
        finally:
            _c.lib.vl_session_trace(self._p, _c.TapFn(), None, None)
        return taps
