/* answer.c: logits -> tokens -> text -> events, and the ways an answer ends. */
#include <math.h>

#include "model/session.h"

void vl_emit(vl_request *r, const vl_event *ev) {
    if (r->fn && r->fn(r->user, ev)) atomic_store(&r->cancelled, true);
}

/* FNV-1a over the bytes of a row of logits: a fingerprint of the whole computation. */
static uint32_t hash_logits(const float *x, int n) {
    uint32_t h = 2166136261u;
    const uint8_t *b = (const uint8_t *)x;
    for (size_t i = 0; i < (size_t)n * sizeof *x; i++) h = (h ^ b[i]) * 16777619u;
    return h;
}

static const float *fetch_logits(vl_session *s, int row) {
    const vl_backend *b = s->m->backend;
    size_t V = (size_t)s->m->config.text.V;
    b->ops->get(s->m->backend, s->logits, vl_decoder_logits(s->decoder) + (size_t)row * V,
                V * sizeof(float));
    return s->logits;
}

static void emit_text(vl_request *r, int32_t id, const char *text, size_t len, float logprob, int n_top) {
    vl_event ev = {.kind = VL_EV_TOKEN, .id = id, .text = text, .len = len, .logprob = logprob,
                   .n_top = n_top, .top = n_top ? r->top : NULL};
    vl_emit(r, &ev);
}

void vl_finish(vl_request *r, const char *reason, const char *stop, const vl_err *error) {
    vl_session *s = r->s;
    const char *text;
    size_t len;
    vl_stream_end(r->stream, &text, &len);
    if (len) emit_text(r, -1, text, len, 0, 0);
    vl_trace_end(r);
    vl_err lost = {0};
    if (vl_trace_failed(s) && !error) { /* half a trace must not look like a whole one */
        vl_fail(&lost, VL_E_NOMEM, "no memory to trace a prompt of %d tokens; make it or the picture smaller",
                r->n_prompt);
        reason = "error";
        error = &lost;
    }
    r->state = VL_FINISHED;
    r->timings.total_s = vl_now() - r->submitted;
    vl_request **at = &s->first;
    while (*at != r) at = &(*at)->next;
    *at = r->next;
    vl_release_rows(r);
    for (int i = 0; i < r->n_pictures; i++)
        if (r->encoded[i]) vl_encoded_put(s, r->encoded[i]);
    vl_event ev = {.kind = VL_EV_DONE, .finish_reason = reason, .stop = stop,
                   .prompt_tokens = r->n_prompt, .image_tokens = r->image_tokens,
                   .completion_tokens = r->emitted, .logits_hash = r->logits_hash,
                   .timings = r->timings};
    if (error) ev.error = *error;
    if (r->fn) r->fn(r->user, &ev);
}

static bool is_eos(const vl_request *r, int32_t id) {
    const vl_config *c = &r->s->m->config;
    for (int i = 0; i < c->n_eos; i++)
        if (c->eos[i] == id) return true;
    return false;
}

/* Takes the chosen token into the answer; returns why the answer ends here, or NULL. */
static const char *accept(vl_request *r, int32_t id, float logprob, int n_top, const char **stop,
                          vl_err *err) {
    const char *text;
    size_t len;
    if (r->timings.first_token_s <= 0) r->timings.first_token_s = vl_now() - r->submitted;
    r->ids[r->n++] = id;
    if (!r->ignore_eos && is_eos(r, id)) return "stop";
    r->emitted++;
    int stopped = vl_stream_push(r->stream, id, &text, &len, stop, err);
    if (stopped < 0) return "error";
    emit_text(r, id, text, len, logprob, n_top);
    if (stopped) return "stop";
    if (r->n - r->n_prompt == r->max_tokens) return "length";
    if (r->detect_repetition && vl_is_repeating(r->ids + r->n_prompt, r->n - r->n_prompt))
        return "repetition";
    return NULL;
}

/* The token of one asked request, from logits row i of the pass; true: the answer goes on. */
static bool choose(vl_request *r, int i) {
    vl_session *s = r->s;
    float logprob = 0;
    int n_top = 0, V = s->m->config.text.V;
    int32_t id = s->best[i];
    double start = vl_now();
    vl_err err = {0};
    if (!vl_sampler_is_greedy(r->sampler)) {
        fetch_logits(s, i);
        id = vl_sampler_next(r->sampler, s->logits, r->ids, r->n, r->n_prompt, &logprob, r->top, &n_top);
    }
    r->timings.sample_s += vl_now() - start;
    if (id < 0) {
        vl_fail(&err, VL_E_NUMERIC, "the logits of token %d hold no number to choose from (NaN, or every "
                "token forbidden); `vitreous info --check` looks for broken weights", r->n - r->n_prompt);
        vl_finish(r, "error", NULL, &err);
        return false;
    }
    const char *stop = NULL, *reason = accept(r, id, logprob, n_top, &stop, &err);
    if (!reason) return true;
    r->logits_hash = hash_logits(fetch_logits(s, i), V);
    vl_finish(r, reason, stop, err.code ? &err : NULL);
    return false;
}

/* The tokens of one request whose rows begin at logits row i: one, and one more for each draft that
 * was right. Returns how many rows it had. */
static int choose_all(vl_request *r, int i) {
    int n = r->n_draft, k = 0;
    r->timings.draft_tokens += n;
    for (; choose(r, i + k); k++) {
        if (k == n || r->ids[r->n - 1] != r->draft[k] || atomic_load(&r->cancelled)) {
            vl_draft_judged(r, k);
            break;
        }
        vl_rows_kept(r, 1);
        r->timings.accepted_tokens++;
        r->timings.decoded_tokens++;
    }
    return n + 1; /* r may be gone */
}

static bool any_greedy(const vl_session *s) {
    int n = vl_decoder_batch(s->decoder)->n_want;
    bool greedy = false;
    for (int i = 0; i < n; i++) greedy |= vl_sampler_is_greedy(s->asked[i]->sampler);
    return greedy;
}

void vl_choose_begin(vl_session *s) {
    if (any_greedy(s)) vl_decoder_argmax(s->decoder);
}

void vl_choose(vl_session *s) {
    int n = vl_decoder_batch(s->decoder)->n_want;
    if (any_greedy(s)) vl_decoder_best(s->decoder, s->best);
    for (int i = 0; i < n;) i += choose_all(s->asked[i], i);
}
