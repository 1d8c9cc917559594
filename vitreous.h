/* vitreous.h: the public C API. A picture and a question in, the answer out.
 *
 *   vl_model    immutable: weights, tokenizer, template, backend. Shared by any number of sessions.
 *   vl_picture  a decoded, oriented, resized picture in patches, with a report of what was done.
 *   vl_prompt   token ids with the pictures they refer to, rendered by the chat template.
 *   vl_session  mutable: KV blocks, activations and the running requests. One thread at a time.
 *   vl_request  one answer in the making. Any number run together; vl_session_step() advances all.
 *
 * Every function that can fail returns 0 or -1 and fills vl_err; the library never prints or exits.
 * Objects come out through the first argument and go through their own _free; _free(NULL) is fine.
 */
#ifndef VITREOUS_H
#define VITREOUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define VL_VERSION "0.1.0"

/* ---- errors ------------------------------------------------------------------------------ */
typedef enum vl_code {
    VL_OK = 0,
    VL_E_USAGE,        /* an argument makes no sense                                   */
    VL_E_INPUT,        /* a picture, prompt or request is malformed                    */
    VL_E_UNSUPPORTED,  /* well-formed, but a kind that is not handled (HEIC, PDF, ...) */
    VL_E_LIMIT,        /* over a stated limit (bytes, pixels, tokens)                  */
    VL_E_MODEL,        /* the checkpoint is broken or of another architecture          */
    VL_E_IO,           /* a file cannot be opened or read                              */
    VL_E_NOMEM,        /* memory                                                       */
    VL_E_NUMERIC,      /* NaN or infinity where a number must be                       */
    VL_E_BACKEND,      /* the device or its driver failed or is missing                */
    VL_E_CANCELLED     /* the caller asked to stop                                     */
} vl_code;
typedef struct vl_err { int code; char msg[256]; } vl_err;

/* ---- model ------------------------------------------------------------------------------- */
typedef struct vl_model vl_model;
typedef struct vl_model_params {
    const char *backend;   /* NULL or "auto", "cpu", "cuda"                     */
    const char *dtype;     /* NULL or "exact"; "bf16", "int8", "int4"           */
    int threads;           /* 0: every core this process may use                */
    int gpus;              /* 2 to 8: so many GPUs share the model: backend "cuda:2" ... */
} vl_model_params;
typedef struct vl_model_info {
    const char *dir, *name, *backend, *dtype;
    int threads, vocab, hidden, layers, vision_depth, patch_size, merge_size;
    int64_t context;                  /* max_position_embeddings                      */
    uint64_t parameters, weight_bytes;/* in the checkpoint                            */
    uint64_t decode_bytes;            /* weight bytes read for one decoded token      */
    int64_t min_pixels, max_pixels;   /* of preprocessor_config.json                  */
    const char *warning;              /* "" or what a careful user should know        */
    const char *device;               /* GPU, driver and library versions; "": the CPU */
} vl_model_info;
/* dir: a Hugging Face checkpoint folder; NULL: the embedded demo model. */
int vl_model_open(vl_model **out, const char *dir, const vl_model_params *params, vl_err *err);
void vl_model_free(vl_model *m);
const vl_model_info *vl_model_get_info(const vl_model *m);

/* ---- tokens ------------------------------------------------------------------------------ */
/* Text to ids, written to *ids (malloc'd, caller frees). special: parse <|...|> tokens; without
 * it they are plain text. */
int vl_tokenize(const vl_model *m, const char *text, size_t len, bool special, int32_t **ids,
                size_t *n, vl_err *err);
/* The bytes of ids, malloc'd and NUL-terminated; skip_special leaves special tokens out. */
int vl_detokenize(const vl_model *m, const int32_t *ids, size_t n, bool skip_special, char **text,
                  size_t *len, vl_err *err);

/* ---- pictures ---------------------------------------------------------------------------- */
typedef struct vl_picture vl_picture;
typedef struct vl_picture_params {
    int64_t min_pixels, max_pixels;   /* 0: the checkpoint's own                        */
    bool alpha_drop;                  /* drop alpha (HF load_image) instead of white    */
    bool pil;                         /* HF's PIL resize instead of torchvision's       */
    bool allow_truncated;             /* decode what there is of a cut-off file         */
    int64_t max_bytes, max_decoded_pixels, max_side; /* 0: 10 MiB, 50 MP, 16384         */
    int64_t max_ratio;                /* above 16 Mi pixels: RGB bytes per byte of the file; 0: any */
    int frame;                        /* of a GIF or WebP animation, from 0             */
} vl_picture_params;
typedef struct vl_picture_info {
    const char *format;               /* "jpeg", "png", ...                             */
    int orientation;                  /* EXIF 1..8 that was applied; 1: none            */
    int width, height;                /* after orientation                              */
    int resized_width, resized_height, grid_t, grid_h, grid_w, tokens;
    int n_warnings;
    const char *warnings[8];          /* "animated:first_frame_used", "icc_ignored"...  */
    uint8_t digest[32];               /* SHA-256 over sizes, pixels and parameters      */
    double decode_s, resize_s;
} vl_picture_info;
/* params may be NULL. name is used in messages only. */
int vl_picture_load(vl_picture **out, const vl_model *m, const void *bytes, size_t len,
                    const char *name, const vl_picture_params *params, vl_err *err);
int vl_picture_load_file(vl_picture **out, const vl_model *m, const char *path,
                         const vl_picture_params *params, vl_err *err);
const vl_picture_info *vl_picture_get_info(const vl_picture *p);
/* pixel_values [patches, width], row-major f32, in HF's merge-block order. */
const float *vl_picture_values(const vl_picture *p, int *patches, int *width);
vl_picture *vl_picture_ref(vl_picture *p);   /* pictures are counted: _free drops one */
void vl_picture_free(vl_picture *p);

/* ---- prompts ----------------------------------------------------------------------------- */
typedef struct vl_prompt vl_prompt;
enum { VL_NO_GENERATION_PROMPT = 1, VL_ADD_VISION_ID = 2 };
/* messages_json: a JSON array in OpenAI/HF form, content a string or a list of parts; the k-th
 * image part (type "image", "image_url" or "input_image") takes pictures[k]. Text in messages can
 * never become a special token. tools_json: NULL or an array of tools. */
int vl_prompt_chat(vl_prompt **out, const vl_model *m, const char *messages_json,
                   const char *tools_json, unsigned flags, vl_picture *const *pictures,
                   int n_pictures, vl_err *err);
/* Raw text; special: parse special tokens, each <|image_pad|> taking the next picture. */
int vl_prompt_text(vl_prompt **out, const vl_model *m, const char *text, size_t len, bool special,
                   vl_picture *const *pictures, int n_pictures, vl_err *err);
const int32_t *vl_prompt_ids(const vl_prompt *p, size_t *n);
int vl_prompt_image_tokens(const vl_prompt *p);
void vl_prompt_free(vl_prompt *p);
/* The rendered template as text (malloc'd), pictures as a single <|image_pad|> each. */
int vl_render(const vl_model *m, const char *messages_json, const char *tools_json, unsigned flags,
              char **text, vl_err *err);

/* ---- sampling ---------------------------------------------------------------------------- */
typedef struct vl_logit_bias { int32_t id; float bias; } vl_logit_bias;
/* May set logits to -INFINITY to forbid tokens; called before every choice, with what was
 * generated so far. */
typedef void (*vl_logits_fn)(void *user, float *logits, int vocab, const int32_t *ids, int n);
typedef struct vl_sampling {
    int max_tokens;                   /* <= 0: as many as context and KV cache hold     */
    float temperature;                /* 0: greedy                                      */
    int top_k;                        /* 0: off                                         */
    float top_p, min_p;               /* 1 and 0: off                                   */
    float repetition_penalty, presence_penalty, frequency_penalty; /* 1, 0, 0: off      */
    uint64_t seed;
    const char *const *stop;          /* copied at submit                               */
    int n_stop;
    const vl_logit_bias *bias;        /* copied at submit                               */
    int n_bias;
    int logprobs;                     /* -1: none; k: also the k most likely (<= 20)    */
    bool ignore_eos, detect_repetition, keep_special;
    vl_logits_fn logits_fn;
    void *logits_user;
    uint64_t cache_salt;              /* requests with other salts share no cached state */
    int min_tokens;                   /* no end token before so many; 0: off            */
    float typical_p;                  /* 0 or 1: off                                    */
    /* DRY: a token that would go on a repetition of L tokens loses multiplier * base^(L - allowed);
     * a repetition never reaches over a breaker. range: of the last tokens, 0: all.    */
    float dry_multiplier, dry_base;   /* 0: off                                         */
    int dry_allowed_length, dry_range;
    const int32_t *dry_breakers;      /* token ids, copied at submit                    */
    int n_dry_breakers;
    /* 2: Mirostat 2.0 in the place of top_k, top_p, min_p and typical_p: keeps the surprise of the
     * answer's tokens near tau bits, learning at the rate eta. 0: off.                 */
    int mirostat;
    float mirostat_tau, mirostat_eta;
} vl_sampling;
vl_sampling vl_sampling_greedy(int max_tokens);
vl_sampling vl_sampling_of_model(const vl_model *m, int max_tokens); /* generation_config.json */

/* ---- sessions and requests --------------------------------------------------------------- */
typedef struct vl_session vl_session;
typedef struct vl_request vl_request;
enum { VL_SPECULATE_MAX = 4 };
typedef struct vl_session_params {
    int max_requests;                 /* rows of decode at once; 0: 1                   */
    int max_rows;                     /* rows of one pass (prefill chunk); 0: 512       */
    int64_t kv_tokens;                /* KV capacity over all requests; 0: 4096         */
    size_t picture_cache_bytes;       /* encoded pictures kept; 0: none                 */
    bool prefix_cache;                /* reuse KV blocks of equal prefixes              */
    int speculate;                    /* tokens looked up ahead in a greedy answer, 0 to 4; the
                                         answer is the same, repetitive ones come sooner */
    int64_t prefix_cache_bytes;       /* of KV blocks that no request uses any more; 0: as many
                                         as kv_tokens hold                              */
} vl_session_params;
typedef enum vl_event_kind { VL_EV_ENCODE, VL_EV_PREFILL, VL_EV_TOKEN, VL_EV_DONE } vl_event_kind;
typedef struct vl_top { int32_t id; float logprob; } vl_top;
typedef struct vl_timings { /* seconds */
    double encode_s, prefill_s, decode_s, sample_s, first_token_s, total_s;
    int encoded_pictures, cached_pictures, prefill_tokens, cached_tokens, decoded_tokens;
    int draft_tokens, accepted_tokens; /* looked ahead; right (part of decoded_tokens)   */
} vl_timings;
typedef struct vl_event {
    vl_event_kind kind;
    int done, total;                  /* ENCODE: vision blocks; PREFILL: rows           */
    int picture;                      /* ENCODE: index in the prompt                    */
    int32_t id;                       /* TOKEN; -1: no token, only text held back so far */
    const char *text; size_t len;     /* TOKEN: new whole UTF-8 characters, may be ""   */
    float logprob; int n_top; const vl_top *top; /* TOKEN, when asked for               */
    const char *finish_reason;        /* DONE: "stop" "length" "repetition" "cancelled" "error" */
    const char *stop;                 /* DONE: the stop string that matched, or NULL    */
    int prompt_tokens, image_tokens, completion_tokens; /* DONE                         */
    uint32_t logits_hash;             /* DONE: of the last logits                       */
    vl_timings timings;               /* DONE                                           */
    vl_err error;                     /* DONE with "error"                              */
} vl_event;
/* Called on the session's thread; non-zero cancels the request. Inside it a program may submit,
 * cancel any request, and free its own after DONE; it must not step, nor free others. */
typedef int (*vl_event_fn)(void *user, const vl_event *ev);

int vl_session_open(vl_session **out, vl_model *m, const vl_session_params *params, vl_err *err);
void vl_session_free(vl_session *s);
/* Queues a request; copies what it needs of sampling, keeps the prompt's pictures alive. Fails at
 * once, before any compute, if the prompt cannot fit the context or the KV capacity. */
int vl_submit(vl_request **out, vl_session *s, const vl_prompt *p, const vl_sampling *sampling,
              vl_event_fn fn, void *user, vl_err *err);
/* One forward pass over prefill chunks and decode rows of all requests, or one picture's encoding.
 * Returns 1 while work remains, 0 when idle, -1 when the backend is broken. */
int vl_session_step(vl_session *s, vl_err *err);
void vl_request_cancel(vl_request *r); /* from any thread; takes effect at the next check */
void vl_request_free(vl_request *r);   /* after its DONE event, on the session's thread   */
/* Submit one request and step until it is done. */
int vl_generate(vl_session *s, const vl_prompt *p, const vl_sampling *sampling, vl_event_fn fn,
                void *user, vl_err *err);

typedef struct vl_session_stats {
    int running, waiting;
    int64_t kv_blocks, kv_blocks_used, prefix_hit_tokens, prefix_miss_tokens;
    int64_t picture_hits, picture_misses, picture_bytes, encodes, passes;
    int64_t prefix_bytes;             /* KV blocks kept for later, in bytes             */
} vl_session_stats;
void vl_session_get_stats(const vl_session *s, vl_session_stats *out);

/* ---- looking inside ---------------------------------------------------------------------- */
typedef struct vl_tap {
    const char *name;                 /* HF module path, e.g. "model.visual.blocks.3"   */
    int rank; int64_t shape[3];
    const float *f32;                 /* exactly one of the two                         */
    const int64_t *i64;
} vl_tap;
/* Calls fn for every named tensor of later steps (see docs for the names) and makes logits for all
 * prompt rows; fn == NULL stops. The data is valid during the call only. Taps belong to the model:
 * while one session is traced, no other session of the same model may step. A request whose trace
 * does not fit in memory ends with the error VL_E_NOMEM. */
int vl_session_trace(vl_session *s, void (*fn)(void *user, const vl_tap *tap), void *user,
                     vl_err *err);

#ifdef __cplusplus
}
#endif
#endif
