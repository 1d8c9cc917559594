"""vitreous.h as ctypes: the structs field by field, the functions, and errors as exceptions.

tests/python/test_binding.py compares the size of every struct with what a C compiler says, so a
change of the header that is not followed here is noticed.
"""
import ctypes as C
import ctypes.util
import os
import pathlib


class Err(C.Structure):
    _fields_ = [("code", C.c_int), ("msg", C.c_char * 256)]


class ModelParams(C.Structure):
    _fields_ = [("backend", C.c_char_p), ("dtype", C.c_char_p), ("threads", C.c_int),
                ("gpus", C.c_int)]


class ModelInfo(C.Structure):
    _fields_ = [(n, C.c_char_p) for n in ("dir", "name", "backend", "dtype")] + [
        (n, C.c_int) for n in ("threads", "vocab", "hidden", "layers", "vision_depth", "patch_size",
                               "merge_size")] + [
        ("context", C.c_int64), ("parameters", C.c_uint64), ("weight_bytes", C.c_uint64),
        ("decode_bytes", C.c_uint64), ("min_pixels", C.c_int64), ("max_pixels", C.c_int64),
        ("warning", C.c_char_p), ("device", C.c_char_p)]


class PictureParams(C.Structure):
    _fields_ = [("min_pixels", C.c_int64), ("max_pixels", C.c_int64), ("alpha_drop", C.c_bool),
                ("pil", C.c_bool), ("allow_truncated", C.c_bool), ("max_bytes", C.c_int64),
                ("max_decoded_pixels", C.c_int64), ("max_side", C.c_int64),
                ("max_ratio", C.c_int64), ("frame", C.c_int)]


class PictureInfo(C.Structure):
    _fields_ = [("format", C.c_char_p)] + [(n, C.c_int) for n in (
        "orientation", "width", "height", "resized_width", "resized_height", "grid_t", "grid_h",
        "grid_w", "tokens", "n_warnings")] + [
        ("warnings", C.c_char_p * 8), ("digest", C.c_uint8 * 32), ("decode_s", C.c_double),
        ("resize_s", C.c_double)]


class LogitBias(C.Structure):
    _fields_ = [("id", C.c_int32), ("bias", C.c_float)]


class Sampling(C.Structure):
    _fields_ = [("max_tokens", C.c_int), ("temperature", C.c_float), ("top_k", C.c_int)] + [
        (n, C.c_float) for n in ("top_p", "min_p", "repetition_penalty", "presence_penalty",
                                 "frequency_penalty")] + [
        ("seed", C.c_uint64), ("stop", C.POINTER(C.c_char_p)), ("n_stop", C.c_int),
        ("bias", C.POINTER(LogitBias)), ("n_bias", C.c_int), ("logprobs", C.c_int),
        ("ignore_eos", C.c_bool), ("detect_repetition", C.c_bool), ("keep_special", C.c_bool),
        ("logits_fn", C.c_void_p), ("logits_user", C.c_void_p), ("cache_salt", C.c_uint64),
        ("min_tokens", C.c_int), ("typical_p", C.c_float), ("dry_multiplier", C.c_float),
        ("dry_base", C.c_float), ("dry_allowed_length", C.c_int), ("dry_range", C.c_int),
        ("dry_breakers", C.POINTER(C.c_int32)), ("n_dry_breakers", C.c_int),
        ("mirostat", C.c_int), ("mirostat_tau", C.c_float), ("mirostat_eta", C.c_float)]


class SessionParams(C.Structure):
    _fields_ = [("max_requests", C.c_int), ("max_rows", C.c_int), ("kv_tokens", C.c_int64),
                ("picture_cache_bytes", C.c_size_t), ("prefix_cache", C.c_bool),
                ("speculate", C.c_int), ("prefix_cache_bytes", C.c_int64)]


class Top(C.Structure):
    _fields_ = [("id", C.c_int32), ("logprob", C.c_float)]


class Timings(C.Structure):
    _fields_ = [(n, C.c_double) for n in ("encode_s", "prefill_s", "decode_s", "sample_s",
                                          "first_token_s", "total_s")] + [
        (n, C.c_int) for n in ("encoded_pictures", "cached_pictures", "prefill_tokens",
                               "cached_tokens", "decoded_tokens", "draft_tokens",
                               "accepted_tokens")]


EV_ENCODE, EV_PREFILL, EV_TOKEN, EV_DONE = range(4)


class Event(C.Structure):
    _fields_ = [("kind", C.c_int), ("done", C.c_int), ("total", C.c_int), ("picture", C.c_int),
                ("id", C.c_int32), ("text", C.c_void_p), ("len", C.c_size_t),
                ("logprob", C.c_float), ("n_top", C.c_int), ("top", C.POINTER(Top)),
                ("finish_reason", C.c_char_p), ("stop", C.c_char_p), ("prompt_tokens", C.c_int),
                ("image_tokens", C.c_int), ("completion_tokens", C.c_int),
                ("logits_hash", C.c_uint32), ("timings", Timings), ("error", Err)]


class Tap(C.Structure):
    _fields_ = [("name", C.c_char_p), ("rank", C.c_int), ("shape", C.c_int64 * 3),
                ("f32", C.POINTER(C.c_float)), ("i64", C.POINTER(C.c_int64))]


STRUCTS = {"vl_err": Err, "vl_model_params": ModelParams, "vl_model_info": ModelInfo,
           "vl_picture_params": PictureParams, "vl_picture_info": PictureInfo,
           "vl_logit_bias": LogitBias, "vl_sampling": Sampling, "vl_session_params": SessionParams,
           "vl_top": Top, "vl_timings": Timings, "vl_event": Event, "vl_tap": Tap}

EventFn = C.CFUNCTYPE(C.c_int, C.c_void_p, C.POINTER(Event))
TapFn = C.CFUNCTYPE(None, C.c_void_p, C.POINTER(Tap))


class Error(RuntimeError):
    """What vl_err says; `code` is a vl_code."""

    def __init__(self, err):
        super().__init__(err.msg.decode("utf-8", "replace"))
        self.code = err.code


def _find():
    """$VITREOUS_LIB, a build beside this file's source tree, or the system's library."""
    if os.environ.get("VITREOUS_LIB"):
        return os.environ["VITREOUS_LIB"]
    for folder in pathlib.Path(__file__).resolve().parents:
        built = folder / "build" / "release" / "libvitreous.so"
        if built.exists():
            return str(built)
    name = ctypes.util.find_library("vitreous")
    if not name:
        raise OSError("libvitreous.so not found: run `make`, or set VITREOUS_LIB")
    return name


def _declare(lib):
    p, pp, err = C.c_void_p, C.POINTER(C.c_void_p), C.POINTER(Err)
    s, size, n = C.c_char_p, C.c_size_t, C.c_int
    ids, ids_n, text = C.POINTER(C.POINTER(C.c_int32)), C.POINTER(C.c_size_t), C.POINTER(C.c_void_p)
    for name, result, *args in (
            ("model_open", n, pp, s, C.POINTER(ModelParams), err),
            ("model_free", None, p),
            ("model_get_info", C.POINTER(ModelInfo), p),
            ("tokenize", n, p, s, size, C.c_bool, ids, ids_n, err),
            ("detokenize", n, p, C.POINTER(C.c_int32), size, C.c_bool, text, ids_n, err),
            ("picture_load", n, pp, p, s, size, s, C.POINTER(PictureParams), err),
            ("picture_get_info", C.POINTER(PictureInfo), p),
            ("picture_values", C.POINTER(C.c_float), p, C.POINTER(n), C.POINTER(n)),
            ("picture_free", None, p),
            ("prompt_chat", n, pp, p, s, s, C.c_uint, pp, n, err),
            ("prompt_ids", C.POINTER(C.c_int32), p, ids_n),
            ("prompt_free", None, p),
            ("render", n, p, s, s, C.c_uint, text, err),
            ("sampling_greedy", Sampling, n),
            ("sampling_of_model", Sampling, p, n),
            ("session_open", n, pp, p, C.POINTER(SessionParams), err),
            ("session_free", None, p),
            ("session_trace", n, p, TapFn, p, err),
            ("generate", n, p, p, C.POINTER(Sampling), EventFn, p, err)):
        f = getattr(lib, "vl_" + name)
        f.restype, f.argtypes = result, args
    return lib


lib = _declare(C.CDLL(_find()))
libc = C.CDLL(None)
libc.free.argtypes = [C.c_void_p]


def call(name, *args):
    """vl_NAME(*args, &err); raises Error when it returns non-zero."""
    err = Err()
    if getattr(lib, "vl_" + name)(*args, C.byref(err)):
        raise Error(err)
