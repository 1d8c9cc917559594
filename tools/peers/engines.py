"""One engine as a process of its own: answers requests on stdin with times on stdout, JSON lines.

    engines.py NAME FOLDER THREADS     NAME: a key of ENGINES; FOLDER: what `peers.py prepare` made

request   {"picture": FILE, "text": QUESTION, "tokens": N}     N >= 1 greedy tokens, stop tokens ignored
answer    {"prompt_tokens", "encode_s", "prefill_s", "first_token_s", "step_s"}
or        {"error": WHY}; the first line is {"ready": VERSION}

encode_s: the vision tower, from pixel values (OpenVINO and llama.cpp: from the decoded picture) to image
embeddings; prefill_s: the rest up to the first token's choice; first_token_s: their sum; step_s: the mean of
the further tokens. Decoding the file is outside for all. No engine keeps anything between requests.
"""
import json
import os
import pathlib
import sys
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


def chat(text):
    return [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}]


class Vitreous:
    def __init__(self, folder, threads, dtype):
        sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "python"))
        import vitreous
        self.model = vitreous.Model(folder / "model", backend="cpu", dtype=dtype, threads=threads)
        self.version = f"vitreous {self.model.info['dtype']}"

        self.session = self.model.session(kv_tokens=4096)

    def answer(self, picture, text, tokens):
        out = self.session.generate(text, [self.model.picture(picture)], temperature=0.0,
                                    max_tokens=tokens, ignore_eos=True)
        t = out.timings
        return {"prompt_tokens": out.prompt_tokens, "encode_s": t["encode_s"],
                "prefill_s": t["first_token_s"] - t["encode_s"], "first_token_s": t["first_token_s"],
                "step_s": (t["total_s"] - t["first_token_s"]) / max(1, tokens - 1)}


class HuggingFace:
    def __init__(self, folder, threads, dtype):
        import torch
        import transformers
        self.torch = torch
        torch.set_num_threads(threads)
        self.processor = transformers.AutoProcessor.from_pretrained(folder / "hf")
        self.model = transformers.Qwen3VLForConditionalGeneration.from_pretrained(
            folder / "hf", dtype=getattr(torch, dtype), attn_implementation="sdpa").eval()
        self.version = f"torch {torch.__version__}, transformers {transformers.__version__}"
        self.model.generation_config.eos_token_id = None
        visual, self.mark = self.model.model.visual, {}
        visual.register_forward_pre_hook(lambda *_: self.mark.update(a=time.perf_counter()))
        visual.register_forward_hook(lambda *_: self.mark.update(b=time.perf_counter()))

    def answer(self, picture, text, tokens):
        from PIL import Image
        prompt = self.processor.apply_chat_template(chat(text), add_generation_prompt=True)
        inputs = self.processor(text=[prompt], images=[Image.open(picture).convert("RGB")],
                                return_tensors="pt")
        times = []

        def see(ids, scores, **_):
            times.append(time.perf_counter())
            return self.torch.zeros(ids.shape[0], dtype=self.torch.bool)

        self.model.model.rope_deltas = None
        with self.torch.inference_mode():
            start = time.perf_counter()
            self.model.generate(**inputs, do_sample=False, max_new_tokens=tokens, stopping_criteria=[see])
        encode, first = self.mark["b"] - self.mark["a"], times[0] - start
        return {"prompt_tokens": inputs["input_ids"].shape[1], "encode_s": encode,
                "prefill_s": first - encode, "first_token_s": first,
                "step_s": (times[-1] - first - start) / max(1, tokens - 1)}


class OpenVino:
    def __init__(self, folder, threads, _):
        import openvino_genai as genai
        scheduler = genai.SchedulerConfig()
        scheduler.enable_prefix_caching = False  # on by default: a repeated prompt would cost nothing
        scheduler.cache_size = 1
        self.genai = genai
        self.pipe = genai.VLMPipeline(str(folder / "openvino"), "CPU", scheduler_config=scheduler,
                                      INFERENCE_NUM_THREADS=threads)
        self.version = f"openvino-genai {genai.__version__}"

    def answer(self, picture, text, tokens):
        import numpy as np
        import openvino
        from PIL import Image
        pixels = openvino.Tensor(np.array(Image.open(picture).convert("RGB"))[None])
        config = self.genai.GenerationConfig(max_new_tokens=tokens, ignore_eos=True, do_sample=False)
        start = time.perf_counter()
        out = self.pipe.generate(text, images=[pixels], generation_config=config)
        whole = time.perf_counter() - start
        first = out.perf_metrics.get_ttft().mean / 1e3
        encode = out.perf_metrics.get_prepare_embeddings_duration().mean / 1e3
        return {"prompt_tokens": out.perf_metrics.get_num_input_tokens(), "encode_s": encode,
                "prefill_s": first - encode, "first_token_s": first,
                "step_s": (whole - first) / max(1, tokens - 1)}


class LlamaCpp:
    """llama.cpp through llama-cpp-python's plain bindings: mtmd for the picture, llama_decode for the rest."""

    def __init__(self, folder, threads, _):
        import llama_cpp
        from llama_cpp import mtmd_cpp
        self.c, self.m = llama_cpp, mtmd_cpp
        text, vision = (str(folder / "gguf" / n).encode() for n in ("text.gguf", "vision.gguf"))
        model = llama_cpp.llama_model_load_from_file(text, llama_cpp.llama_model_default_params())
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = 2048  # the default is the model's 262,144 tokens
        params.n_threads = params.n_threads_batch = threads
        self.context = llama_cpp.llama_init_from_model(model, params)
        picture = mtmd_cpp.mtmd_context_params_default()
        picture.use_gpu, picture.n_threads, picture.warmup = False, threads, False
        self.mtmd = mtmd_cpp.mtmd_init_from_file(vision, model, picture)
        if not (self.context and self.mtmd):
            raise RuntimeError("llama.cpp did not load the files, see the log")
        self.vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
        self.version = f"llama-cpp-python {llama_cpp.__version__}"

    def chunks_of(self, picture, text):
        import ctypes
        from PIL import Image
        image = Image.open(picture).convert("RGB")
        pixels = (ctypes.c_uint8 * (3 * image.width * image.height)).from_buffer_copy(image.tobytes())
        bitmap = self.m.mtmd_bitmap_init(image.width, image.height, pixels)
        prompt = (f"<|im_start|>user\n{self.m.mtmd_default_marker().decode()}{text}<|im_end|>\n"
                  "<|im_start|>assistant\n").encode()
        chunks = self.m.mtmd_input_chunks_init()
        if self.m.mtmd_tokenize(self.mtmd, chunks, self.m.mtmd_input_text(prompt, len(prompt), False, True),
                                (self.m.mtmd_bitmap_p_ctypes * 1)(bitmap), 1):
            raise RuntimeError("mtmd_tokenize failed")
        self.m.mtmd_bitmap_free(bitmap)
        return chunks

    def best(self):
        import numpy as np
        row = self.c.llama_get_logits_ith(self.context, -1)
        return int(np.ctypeslib.as_array(row, (self.vocabulary,)).argmax())

    def prefill(self, chunks):
        """Positions used and seconds of mtmd's encoder. One chunk after the other, in order."""
        at, encode = self.c.llama_pos(0), 0.0
        count = self.m.mtmd_input_chunks_size(chunks)
        for i in range(count):
            chunk = self.m.mtmd_input_chunks_get(chunks, i)
            if self.m.mtmd_input_chunk_get_type(chunk) == self.m.MTMD_INPUT_CHUNK_TYPE_TEXT:
                rc = self.m.mtmd_helper_eval_chunk_single(self.mtmd, self.context, chunk, at, 0, 2048,
                                                          i == count - 1, at)
            else:
                start = time.perf_counter()
                rc = self.m.mtmd_encode_chunk(self.mtmd, chunk)
                encode += time.perf_counter() - start
                rc = rc or self.m.mtmd_helper_decode_image_chunk(
                    self.mtmd, self.context, chunk, self.m.mtmd_get_output_embd(self.mtmd), at, 0, 2048, at,
                    self.m.mtmd_helper_post_decode_callback(), None)
            if rc:
                raise RuntimeError(f"chunk {i} of the prompt failed: {rc}")
        return encode

    def answer(self, picture, text, tokens):
        self.c.llama_memory_clear(self.c.llama_get_memory(self.context), True)
        chunks = self.chunks_of(picture, text)
        prompt = sum(self.m.mtmd_input_chunk_get_n_tokens(self.m.mtmd_input_chunks_get(chunks, i))
                     for i in range(self.m.mtmd_input_chunks_size(chunks)))
        start = time.perf_counter()
        encode = self.prefill(chunks)
        token = self.best()
        first = time.perf_counter() - start
        for _ in range(tokens - 1):
            one = (self.c.llama_token * 1)(token)
            if self.c.llama_decode(self.context, self.c.llama_batch_get_one(one, 1)):
                raise RuntimeError("llama_decode failed")
            token = self.best()
        whole = time.perf_counter() - start
        self.m.mtmd_input_chunks_free(chunks)
        return {"prompt_tokens": prompt, "encode_s": encode, "prefill_s": first - encode,
                "first_token_s": first, "step_s": (whole - first) / max(1, tokens - 1)}


# name: (class, its numeric mode, GB of memory it needs, venv)
ENGINES = {
    "vitreous-exact": (Vitreous, "exact", 5, "hf"),
    "vitreous-bf16": (Vitreous, "bf16", 5, "hf"),
    "vitreous-int8": (Vitreous, "int8", 5, "hf"),
    "hf-fp32": (HuggingFace, "float32", 13, "hf"),
    "hf-bf16": (HuggingFace, "bfloat16", 6, "hf"),
    "llama.cpp-bf16": (LlamaCpp, "bfloat16", 6, "llama"),
    "openvino-int8": (OpenVino, "int8", 6, "openvino"),
}


def main():
    name, folder, threads = sys.argv[1], pathlib.Path(sys.argv[2]), int(sys.argv[3])
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print what they like

    def say(**reply):
        print(json.dumps(reply), file=out, flush=True)

    try:
        maker, mode, _, _ = ENGINES[name]
        engine = maker(folder, threads, mode)
    except Exception as e:  # any reason becomes the engine's row
        say(error=f"{type(e).__name__}: {e}"[:300])
        return
    say(ready=engine.version)
    for line in sys.stdin:
        try:
            say(**engine.answer(**json.loads(line)))
        except Exception as e:
            say(error=f"{type(e).__name__}: {e}"[:300])


if __name__ == "__main__":
    main()
