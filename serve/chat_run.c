/* chat_run.c: a chat that has been read (chat.c) is submitted, listened to and cleaned up. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "serve/chat.h"
#include "tokenizer/tokenizer.h"

int chat_start(chat *c, api_error *e) {
    if (c->from_cache) return metrics_add(c->srv->metrics, M_RESULT_HITS, NULL, NULL, 1), 0;
    uint64_t seed = (uint64_t)c->f.seed;
    if (!c->f.has_seed) {
        vl_sha256 h;
        uint8_t digest[32];
        vl_sha256_init(&h);
        vl_sha256_add(&h, c->id, strlen(c->id));   /* the id is random */
        vl_sha256_end(&h, digest);
        memcpy(&seed, digest, sizeof seed);
    }
    task *tasks[MAX_CHOICES];
    c->box.progress = c->include_progress && c->f.stream;
    c->box.whole = !c->f.stream;
    for (int i = 0; i < c->n; i++) {
        const chat_fields *f = &c->f;
        choice *k = &c->choices[i];
        k->task = (task){.prompt = c->prompt, .box = &c->box, .choice = i, .tenant = c->by->tenant,
                         .priority = c->priority, .arrived = c->by->arrived,
                         .deadline = f->max_time > 0 ? c->by->arrived + f->max_time : 0};
        k->task.sampling = (vl_sampling){
            .max_tokens = (int)f->max_tokens, .temperature = (float)f->temperature,
            .top_k = f->top_k < 0 ? 0 : (int)f->top_k, .top_p = (float)f->top_p,
            .min_p = (float)f->min_p, .repetition_penalty = (float)f->repetition_penalty,
            .presence_penalty = (float)f->presence_penalty,
            .frequency_penalty = (float)f->frequency_penalty, .seed = seed + (uint64_t)i,
            .stop = c->stops, .n_stop = c->n_stops, .bias = c->bias, .n_bias = c->n_bias,
            .logprobs = (int)f->top_logprobs, .ignore_eos = f->ignore_eos,
            .detect_repetition = f->detect_repetition, .keep_special = !f->skip_special_tokens,
            .logits_fn = k->constraint ? constraint_mask : NULL, .logits_user = k->constraint,
            .min_tokens = (int)f->min_tokens, .typical_p = (float)f->typical_p,
            .dry_multiplier = f->dry_range ? (float)f->dry_multiplier : 0,
            .dry_base = (float)f->dry_base, .dry_allowed_length = (int)f->dry_allowed_length,
            .dry_range = f->dry_range < 0 ? 0 : (int)f->dry_range, .dry_breakers = c->breakers,
            .n_dry_breakers = c->n_breakers, .mirostat = (int)f->mirostat,
            .mirostat_tau = (float)f->mirostat_tau, .mirostat_eta = (float)f->mirostat_eta,
            .cache_salt = (uint64_t)c->by->tenant + 1}; /* tenants share no KV prefix and no picture */
        tasks[i] = &k->task;
    }
    if (scheduler_submit(c->srv->scheduler, tasks, c->n, e)) return -1;
    if (c->cacheable) metrics_add(c->srv->metrics, M_RESULT_MISSES, NULL, NULL, 1);
    c->started = true;
    return 0;
}

static void append_text(choice *k, const char *text, size_t n) {
    if (k->len + n + 1 > k->cap) {
        k->cap = (k->len + n + 1) * 2;
        k->text = realloc(k->text, k->cap);
        vl_assert(k->text, "out of memory for an answer of %zu bytes", k->cap);
    }
    if (n) memcpy(k->text + k->len, text, n);
    k->len += n;
    k->text[k->len] = 0;
}

void choice_add_piece(choice *k, const char *text, size_t n, json_t *logprob) {
    if (k->n_pieces == k->cap_pieces) {
        k->cap_pieces = k->cap_pieces ? k->cap_pieces * 2 : 64;
        k->pieces = realloc(k->pieces, k->cap_pieces * sizeof *k->pieces);
        vl_assert(k->pieces, "out of memory for %zu pieces", k->cap_pieces);
    }
    append_text(k, text, n);
    k->pieces[k->n_pieces++] = (piece){k->len, logprob};
}

/* ---- events ------------------------------------------------------------------------------- */

static json_t *logprob_entry(const chat *c, int32_t id, float logprob) {
    char *bytes = NULL, *clean;
    size_t n = 0, m;
    vl_err err;
    if (vl_detokenize(c->srv->model, &id, 1, false, &bytes, &n, &err)) n = 0;
    clean = vl_utf8_clean(bytes ? bytes : "", n, &m);
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(list, json_integer((unsigned char)bytes[i]));
    json_t *o =
        json_pack("{s:o,s:f,s:o}", "token", clean ? json_stringn(clean, m) : json_string(""),
                  "logprob", isfinite(logprob) ? (double)logprob : -9999.0, "bytes", list);
    free(bytes);
    free(clean);
    return o;
}

/* NULL too for what the end of the answer adds: bytes that were held back, and no token of its own. */
static json_t *logprob_of(const chat *c, const vl_event *ev) {
    if (c->f.top_logprobs < 0 || ev->id < 0) return NULL;
    json_t *o = logprob_entry(c, ev->id, ev->logprob), *top = json_array();
    for (int i = 0; i < ev->n_top && i < c->f.top_logprobs; i++)
        json_array_append_new(top, logprob_entry(c, ev->top[i].id, ev->top[i].logprob));
    json_object_set_new(o, "top_logprobs", top);
    return o;
}

static void take_done(chat *c, choice *k, const vl_event *ev) {
    k->done = true;
    c->left--;
    k->timed_out = k->task.timed_out;
    snprintf(k->finish, sizeof k->finish, "%s", k->timed_out ? "length" : ev->finish_reason);
    snprintf(k->stop, sizeof k->stop, "%s", ev->stop ? ev->stop : "");
    if (k->constraint && !strcmp(k->finish, "stop") && !*k->stop && !constraint_complete(k->constraint)) {
        snprintf(k->finish, sizeof k->finish, "length");
        warn_add(c->warnings, "the answer is cut short: its form takes more states than are allowed");
    }
    k->prompt_tokens = ev->prompt_tokens;
    k->image_tokens = ev->image_tokens;
    k->completion_tokens = ev->completion_tokens;
    k->cached_tokens = ev->timings.cached_tokens;
    k->timings = ev->timings;
    k->error = ev->error;
    k->queue_s = k->task.queue_s;
    k->ttft_s = k->task.ttft_s;
    k->e2e_s = k->task.e2e_s;
}

event *chat_pump(chat *c, double seconds) {
    event *e = mailbox_next(&c->box, seconds);
    if (!e) return NULL;
    choice *k = &c->choices[e->choice];
    if (e->ev.kind == VL_EV_TOKEN || (e->ev.kind == VL_EV_DONE && e->ev.len))
        choice_add_piece(k, e->ev.text, e->ev.len,
                         e->ev.kind == VL_EV_TOKEN ? logprob_of(c, &e->ev) : NULL);
    if (e->ev.kind == VL_EV_DONE) take_done(c, k, &e->ev);
    return e;
}

void chat_cancel(chat *c) {
    for (int i = 0; i < c->n && c->started; i++)
        if (!c->choices[i].done) scheduler_cancel(&c->choices[i].task);
}

void chat_free(chat *c) {
    if (c->started && c->left) {
        chat_cancel(c);
        while (c->left) free(chat_pump(c, 1));
    }
    for (int i = 0; i < MAX_CHOICES; i++) {
        choice *k = &c->choices[i];
        for (size_t j = 0; j < k->n_pieces; j++) json_decref(k->pieces[j].logprob);
        free(k->pieces);
        free(k->text);
        constraint_free(k->constraint);
    }
    for (int i = 0; i < c->n_pictures; i++) vl_picture_free(c->pictures[i]);
    vl_prompt_free(c->prompt);
    json_decref(c->tools);
    json_decref(c->messages);
    json_decref(c->warnings);
    json_decref(c->reports);
    mailbox_clear(&c->box);
}
