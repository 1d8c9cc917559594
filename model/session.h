/* session.h: what vl_session and vl_request are inside, shared by the files that make a session:
 * session.c (open, submit, step), schedule.c (which rows go into a pass), answer.c (tokens out),
 * speculate.c (tokens looked up ahead), features.c (encoded pictures), trace.c (tensors out). */
#ifndef VL_SESSION_H
#define VL_SESSION_H

#include "model/decoder.h"
#include "model/kv.h"
#include "model/sampler.h"
#include "model/stream.h"

/* An encoded picture, shared by every request that shows it. */
typedef struct vl_encoded {
    struct vl_encoded *next;
    uint8_t key[32];                       /* picture digest and cache salt                 */
    vl_features features;
    void *block;                           /* device memory behind features                 */
    size_t bytes;
    int refs;
    bool ready;
    uint64_t last_use;
} vl_encoded;

typedef enum vl_state { VL_WAITING, VL_ENCODING, VL_PREFILL, VL_DECODE, VL_FINISHED } vl_state;

struct vl_request {
    vl_session *s;
    vl_request *next;                      /* in submission order                           */
    vl_state state;
    atomic_bool cancelled;
    vl_event_fn fn;
    void *user;
    /* the prompt, then the answer */
    int32_t *ids;                          /* [n_prompt + max_tokens]                       */
    int n_prompt, n, max_tokens;
    int32_t *positions;                    /* [3][n_prompt]                                 */
    int32_t next_position;                 /* of the first answer row                       */
    vl_span *spans;
    size_t n_spans;
    vl_picture **pictures;
    vl_encoded **encoded;                  /* NULL: every row of it came from the KV cache  */
    int n_pictures, image_tokens;
    /* how far it is */
    int slot;                              /* sequence number inside the session            */
    int in_kv;                             /* rows whose keys and values are in the cache   */
    int in_pass;                           /* rows in the pass being computed               */
    int emitted;                           /* answer tokens without the end of turn         */
    int n_blocks, n_keyed;                 /* KV blocks held; how many have their key       */
    int32_t *blocks;
    vl_kv_key chain;                       /* key of the last keyed block                   */
    uint64_t salt;
    bool ignore_eos, detect_repetition;
    int32_t draft[VL_SPECULATE_MAX];       /* tokens that may come next, in the pass        */
    int n_draft, skip, pause;              /* speculate.c: passes to go without; the last such */
    vl_sampler *sampler;
    vl_stream *stream;
    vl_top top[20];
    uint32_t logits_hash;
    double submitted;                      /* clock                                         */
    vl_timings timings;
};

struct vl_session {
    vl_model *m;
    vl_session_params p;
    vl_decoder *decoder;
    vl_vision *vision;
    vl_kv *kv;
    vl_request *first;                     /* all unfinished requests                       */
    vl_request **slot;                     /* [max_requests]                                */
    vl_request **asked;                    /* [max_requests + speculate] whose logits this pass makes */
    int32_t *best;                         /* [max_requests + speculate] greedy choices     */
    float *logits;                         /* [V] one row on the host                       */
    vl_rope_rows rope;
    int max_blocks;                        /* per sequence                                  */
    vl_encoded *pictures;
    vl_encoded *encoding;                  /* the picture in the vision tower, or NULL      */
    vl_picture *encoding_picture;
    uint64_t clock;
    vl_session_stats stats;
    struct vl_trace *trace;                /* NULL: nobody looks                            */
};

/* features.c */
int vl_encoded_get(vl_encoded **out, vl_session *s, const vl_picture *p, uint64_t salt, vl_err *err);
void vl_encoded_put(vl_session *s, vl_encoded *e);
void vl_encoded_free_all(vl_session *s);
/* One step of the vision tower for the first request that waits for it; true while there is work. */
bool vl_encode_step(vl_session *s);

/* schedule.c */
void vl_admit(vl_session *s);
int vl_fill_batch(vl_session *s);          /* rows of the next pass, 0: none */
void vl_batch_done(vl_session *s, double seconds); /* accounts for the rows of the pass */
void vl_release_rows(vl_request *r);       /* blocks and slot of a finished request */

void vl_rows_kept(vl_request *r, int n);   /* n more rows are in the KV cache for good */

/* speculate.c */
int vl_draft(vl_request *r, int most);     /* drafts put behind the answer: how many, <= most */
void vl_draft_judged(vl_request *r, int right); /* how many of them the pass confirmed */

/* answer.c */
void vl_emit(vl_request *r, const vl_event *ev); /* calls the listener; cancels if it says so */
void vl_choose_begin(vl_session *s);       /* what of it needs no result of the pass: before anyone waits for that */
void vl_choose(vl_session *s);             /* one token for every asked request */
void vl_finish(vl_request *r, const char *reason, const char *stop, const vl_err *error);

/* trace.c */
void vl_trace_free(struct vl_trace *t);
void vl_trace_begin(vl_request *r);        /* the prompt is about to be computed */
bool vl_trace_collecting(const vl_session *s);
bool vl_trace_failed(const vl_session *s); /* memory ran out: a tensor is missing */
void vl_trace_prompt_done(vl_request *r);  /* every prompt row is computed       */
void vl_trace_end(vl_request *r);          /* generated_ids, the end of turn included */

#endif
