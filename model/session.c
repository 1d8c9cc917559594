/* session.c: opening a session, submitting requests, and the step that advances them all. */
#include "model/session.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

static int blocks_for(int64_t rows) { return (int)((rows + VL_KV_BLOCK - 1) / VL_KV_BLOCK); }

static void apply_defaults(vl_session_params *p, const vl_session_params *given) {
    *p = given ? *given : (vl_session_params){0};
    if (p->max_requests <= 0) p->max_requests = 1;
    if (p->max_rows <= 0) p->max_rows = 512;
    if (p->max_rows < p->max_requests + p->speculate) p->max_rows = p->max_requests + p->speculate;
    if (p->kv_tokens <= 0) p->kv_tokens = 4096;
}

static int open_parts(vl_session *s, vl_err *err) {
    const vl_config *c = &s->m->config;
    if (s->p.max_requests > 4096 || s->p.max_rows > 1 << 20 || s->p.kv_tokens > (int64_t)1 << 30)
        return vl_fail(err, VL_E_USAGE, "a session of %d requests, %d rows and %lld KV tokens is beyond "
                       "what makes sense", s->p.max_requests, s->p.max_rows, (long long)s->p.kv_tokens);
    if (s->p.speculate < 0 || s->p.speculate > VL_SPECULATE_MAX)
        return vl_fail(err, VL_E_USAGE, "speculate = %d: expected 0 (off) to %d tokens", s->p.speculate,
                       VL_SPECULATE_MAX);
    int n_blocks = blocks_for(s->p.kv_tokens);
    int64_t context_blocks = (c->text.context + VL_KV_BLOCK - 1) / VL_KV_BLOCK;
    s->max_blocks = n_blocks < context_blocks ? n_blocks : (int)context_blocks;
    const vl_decoder_params dp = {s->p.max_rows, s->p.max_requests, s->p.max_requests + s->p.speculate,
                                  n_blocks, s->max_blocks};
    size_t n = (size_t)dp.max_wanted;
    s->slot = vl_calloc((size_t)s->p.max_requests, sizeof *s->slot);
    s->asked = vl_calloc(n, sizeof *s->asked);
    s->best = vl_calloc(n, sizeof *s->best);
    s->logits = vl_calloc((size_t)c->text.V, sizeof *s->logits);
    if (!s->slot || !s->asked || !s->best || !s->logits)
        return vl_fail(err, VL_E_NOMEM, "no memory for a session");
    s->stats.kv_blocks = n_blocks;
    if (vl_rope_rows_open(&s->rope, s->m->inv_freq, c->text.E, err) || vl_kv_open(&s->kv, n_blocks, err) ||
        vl_vision_open(&s->vision, s->m, err) ||
        vl_decoder_open(&s->decoder, s->m, &dp, err)) return -1;
    if (s->p.prefix_cache_bytes > 0)
        vl_kv_keep(s->kv, s->p.prefix_cache_bytes / (int64_t)vl_decoder_block_bytes(s->decoder));
    return 0;
}

int vl_session_open(vl_session **out, vl_model *m, const vl_session_params *params, vl_err *err) {
    *out = NULL;
    vl_session *s = vl_calloc(1, sizeof *s);
    if (!s) return vl_fail(err, VL_E_NOMEM, "no memory for a session");
    s->m = m;
    apply_defaults(&s->p, params);
    if (open_parts(s, err)) {
        vl_session_free(s);
        return -1;
    }
    *out = s;
    return 0;
}

void vl_session_free(vl_session *s) {
    if (!s) return;
    while (s->first) vl_finish(s->first, "cancelled", NULL, NULL);
    vl_session_trace(s, NULL, NULL, NULL);
    vl_encoded_free_all(s);
    vl_decoder_free(s->decoder);
    vl_vision_free(s->vision);
    vl_kv_free(s->kv);
    free(s->slot);
    free(s->asked);
    free(s->best);
    free(s->logits);
    vl_rope_rows_free(&s->rope);
    free(s);
}

static int check_sampling(const vl_sampling *p, int V, vl_err *err) {
    const struct { const char *name; float v, lo, hi; } range[] = {
        {"temperature", p->temperature, 0, 100}, {"top_p", p->top_p, 0, 1}, {"min_p", p->min_p, 0, 1},
        {"repetition_penalty", p->repetition_penalty, 1e-3f, 100},
        {"presence_penalty", p->presence_penalty, -100, 100},
        {"frequency_penalty", p->frequency_penalty, -100, 100},
        {"typical_p", p->typical_p, 0, 1},
        {"dry_multiplier", p->dry_multiplier, 0, 100},
        {"dry_base", p->dry_base, p->dry_multiplier > 0 ? 1 : 0, 8},
        {"mirostat_tau", p->mirostat_tau, 0, 100}, {"mirostat_eta", p->mirostat_eta, 0, 1},
    };
    for (size_t i = 0; i < sizeof range / sizeof *range; i++)
        if (!(range[i].v >= range[i].lo && range[i].v <= range[i].hi))
            return vl_fail(err, VL_E_INPUT, "%s = %g is outside [%g, %g]", range[i].name,
                           (double)range[i].v, (double)range[i].lo, (double)range[i].hi);
    if (p->logprobs > 20) return vl_fail(err, VL_E_LIMIT, "logprobs = %d is over the limit of 20", p->logprobs);
    if (p->mirostat != 0 && p->mirostat != 2)
        return vl_fail(err, VL_E_INPUT, "mirostat = %d: expected 2 (version 2.0), or 0 for off", p->mirostat);
    if (p->top_k < 0) return vl_fail(err, VL_E_INPUT, "top_k = %d is negative", p->top_k);
    if (p->min_tokens < 0 || p->dry_allowed_length < 0 || p->dry_range < 0)
        return vl_fail(err, VL_E_INPUT, "min_tokens, dry_allowed_length or dry_range is negative");
    for (int i = 0; i < p->n_bias; i++)
        if (p->bias[i].id < 0 || p->bias[i].id >= V)
            return vl_fail(err, VL_E_INPUT, "logit_bias names token %d, the vocabulary has %d",
                           p->bias[i].id, V);
    for (int i = 0; i < p->n_bias; i++)
        if (isnan(p->bias[i].bias) || p->bias[i].bias > FLT_MAX) /* -INFINITY forbids a token */
            return vl_fail(err, VL_E_INPUT, "logit_bias of token %d is %g, expected a number", p->bias[i].id,
                           (double)p->bias[i].bias);
    return 0;
}

/* How long the answer may get; fails before any compute if not even one token fits. */
static int check_room(const vl_session *s, const vl_prompt *p, const vl_sampling *sampling,
                      int *max_tokens, vl_err *err) {
    int64_t context = s->m->config.text.context, kv = (int64_t)s->max_blocks * VL_KV_BLOCK;
    int64_t room = (context < kv ? context : kv) - (int64_t)p->ids.n;
    if (room < 1)
        return vl_fail(err, VL_E_LIMIT, "the prompt has %zu tokens (%d of them pictures); the %s holds %lld "
                       "and the answer needs at least one: ask with less text, fewer or smaller pictures", p->ids.n, p->image_tokens,
                       context < kv ? "context" : "session's KV cache",
                       (long long)(context < kv ? context : kv));
    *max_tokens = sampling->max_tokens > 0 && sampling->max_tokens < room ? sampling->max_tokens : (int)room;
    return 0;
}

static int copy_prompt(vl_request *r, const vl_prompt *p, vl_err *err) {
    size_t n = p->ids.n, pictures = (size_t)p->n_pictures;
    r->ids = vl_calloc(n + (size_t)r->max_tokens, sizeof *r->ids);
    r->positions = vl_calloc(3 * n, sizeof *r->positions);
    r->spans = vl_calloc(p->n_spans, sizeof *r->spans);
    r->blocks = vl_calloc((size_t)blocks_for((int64_t)n + r->max_tokens), sizeof *r->blocks);
    r->pictures = vl_calloc(pictures, sizeof(void *));
    r->encoded = vl_calloc(pictures, sizeof(void *));
    if (!r->ids || !r->positions || !r->spans || !r->blocks || !r->pictures || !r->encoded)
        return vl_fail(err, VL_E_NOMEM, "no memory for a prompt of %zu tokens", n);
    memcpy(r->ids, p->ids.v, n * sizeof *r->ids);
    memcpy(r->spans, p->spans, p->n_spans * sizeof *r->spans);
    r->n_spans = p->n_spans;
    r->n = r->n_prompt = (int)n;
    r->image_tokens = p->image_tokens;
    r->next_position = vl_mrope_positions(r->spans, r->n_spans, r->n_prompt, r->positions);
    for (; r->n_pictures < p->n_pictures; r->n_pictures++) {
        int i = r->n_pictures;
        if (vl_encoded_get(&r->encoded[i], r->s, p->pictures[i], r->salt, err)) return -1;
        r->pictures[i] = vl_picture_ref(p->pictures[i]);
    }
    return 0;
}

static void free_request(vl_request *r) {
    for (int i = 0; i < r->n_pictures; i++) vl_picture_free(r->pictures[i]);
    vl_sampler_free(r->sampler);
    vl_stream_free(r->stream);
    free(r->ids);
    free(r->positions);
    free(r->spans);
    free(r->blocks);
    free(r->pictures);
    free(r->encoded);
    free(r);
}

int vl_submit(vl_request **out, vl_session *s, const vl_prompt *p, const vl_sampling *sampling,
              vl_event_fn fn, void *user, vl_err *err) {
    int max_tokens = 0;
    *out = NULL;
    if (s->trace && s->first)
        return vl_fail(err, VL_E_USAGE, "a session that is traced takes one request at a time");
    if (check_sampling(sampling, s->m->config.text.V, err) || check_room(s, p, sampling, &max_tokens, err))
        return -1;
    vl_request *r = vl_calloc(1, sizeof *r);
    if (!r) return vl_fail(err, VL_E_NOMEM, "no memory for a request");
    r->s = s;
    r->fn = fn;
    r->user = user;
    r->slot = -1;
    r->max_tokens = max_tokens;
    r->salt = sampling->cache_salt;
    r->ignore_eos = sampling->ignore_eos;
    r->detect_repetition = sampling->detect_repetition;
    r->submitted = vl_now();
    atomic_init(&r->cancelled, false);
    if (vl_sampler_open(&r->sampler, sampling, s->m->config.text.V, s->m->config.eos, s->m->config.n_eos, err) ||
        vl_stream_open(&r->stream, s->m->tokenizer, sampling, err) || copy_prompt(r, p, err)) {
        for (int i = 0; i < r->n_pictures; i++) vl_encoded_put(s, r->encoded[i]);
        free_request(r);
        return -1;
    }
    vl_request **at = &s->first;
    while (*at) at = &(*at)->next;
    *at = r;
    *out = r;
    return 0;
}

void vl_request_cancel(vl_request *r) { atomic_store(&r->cancelled, true); }

void vl_request_free(vl_request *r) {
    if (!r) return;
    if (r->state != VL_FINISHED) {
        r->fn = NULL;
        vl_finish(r, "cancelled", NULL, NULL);
    }
    free_request(r);
}

static void finish_cancelled(vl_session *s) {
    for (vl_request *r = s->first, *next; r; r = next) {
        next = r->next;
        if (atomic_load(&r->cancelled)) vl_finish(r, "cancelled", NULL, NULL);
    }
}

/* Requests whose pictures are all encoded go on to their prompt. */
static void start_prompts(vl_session *s) {
    for (vl_request *r = s->first; r; r = r->next) {
        bool ready = r->state == VL_ENCODING;
        for (int i = 0; ready && i < r->n_pictures; i++) ready = !r->encoded[i] || r->encoded[i]->ready;
        if (ready) r->state = VL_PREFILL;
    }
}

int vl_session_step(vl_session *s, vl_err *err) {
    finish_cancelled(s);
    vl_admit(s);
    vl_encode_step(s);
    start_prompts(s);
    double start = vl_now();
    if (vl_fill_batch(s)) {
        vl_err broken = {0};
        vl_decoder_forward(s->decoder, vl_trace_collecting(s));
        vl_choose_begin(s);
        if (s->m->backend->ops->sync(s->m->backend, &broken) ||
            vl_model_check(s->m, &broken)) {
            while (s->first) vl_finish(s->first, "error", NULL, &broken);
            return vl_fail(err, broken.code, "%s", broken.msg);
        }
        vl_batch_done(s, vl_now() - start);
        vl_choose(s);
    }
    return s->first != NULL;
}

/* Remembers the error of the one request, and passes its events on. */
typedef struct single { vl_event_fn fn; void *user; vl_err *err; bool failed; } single;

static int on_event(void *user, const vl_event *ev) {
    single *g = user;
    if (ev->kind == VL_EV_DONE && ev->error.code) {
        g->failed = true;
        if (g->err) *g->err = ev->error;
    }
    return g->fn ? g->fn(g->user, ev) : 0;
}

int vl_generate(vl_session *s, const vl_prompt *p, const vl_sampling *sampling, vl_event_fn fn, void *user,
                vl_err *err) {
    vl_request *r;
    single g = {fn, user, err, false};
    if (vl_submit(&r, s, p, sampling, on_event, &g, err)) return -1;
    int more = 1;
    while (more > 0 && r->state != VL_FINISHED) more = vl_session_step(s, err);
    vl_request_free(r);
    return more < 0 || g.failed ? -1 : 0;
}

void vl_session_get_stats(const vl_session *s, vl_session_stats *out) {
    *out = s->stats;
    out->running = out->waiting = 0;
    for (const vl_request *r = s->first; r; r = r->next) *(r->state == VL_WAITING ? &out->waiting : &out->running) += 1;
    out->kv_blocks_used = vl_kv_used(s->kv);
    out->prefix_bytes = (int64_t)vl_kv_cached(s->kv) * (int64_t)vl_decoder_block_bytes(s->decoder);
}
