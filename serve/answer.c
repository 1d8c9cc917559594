/* answer.c: what a finished (or running) chat says: tool calls, usage, timings, the answer object,
 * and the record kept in the result cache. */
#include <stdio.h>
#include <stdlib.h>

#include "serve/cache.h"
#include "serve/chat.h"

static const char tool_open[] = "<tool_call>", tool_close[] = "</tool_call>";

/* ---- tool calls --------------------------------------------------------------------------- */

const char *chat_id_tail(const chat *c) { return c->id + strcspn(c->id, "-_") + 1; }

static bool is_blank(char ch) { return ch == ' ' || ch == '\n' || ch == '\r' || ch == '\t'; }

/* A model may say any byte, NUL too: no answer is a C string. */
static const char *find(const char *from, const char *end, const char *what) {
    return memmem(from, (size_t)(end - from), what, strlen(what));
}

size_t choice_ready(const chat *c, const choice *k) {
    if (!c->tool_calls || !k->len) return k->len;
    const char *at = find(k->text, k->text + k->len, tool_open);
    size_t ready = at ? (size_t)(at - k->text) : k->len, max = sizeof tool_open - 2;
    if (!at && k->done) return k->len;
    /* A beginning of <tool_call> at the end? */
    for (size_t n = k->len < max ? k->len : max; n && !at; n--)
        if (!memcmp(k->text + k->len - n, tool_open, n)) {
            ready = k->len - n;
            break;
        }
    while (ready && is_blank(k->text[ready - 1])) ready--;
    return ready;
}

static json_t *parse_call(const chat *c, size_t index, const char *text, size_t n) {
    json_t *o = json_loadb(text, n, JSON_DISABLE_EOF_CHECK, NULL);
    const json_t *name = json_object_get(o, "name"), *args = json_object_get(o, "arguments");
    json_t *call = NULL;
    if (json_is_string(name)) {
        char id[64];
        char *dump = json_is_string(args) ? strdup(json_string_value(args))
                   : args ? json_dumps(args, JSON_COMPACT) : strdup("{}");
        snprintf(id, sizeof id, "call_%s_%zu", chat_id_tail(c), index);
        call = json_pack("{s:s,s:s,s:{s:O,s:s}}", "id", id, "type", "function", "function", "name",
                         name, "arguments", dump ? dump : "{}");
        free(dump);
    }
    json_decref(o);
    return call;
}

/* The calls in the answer (NULL: none) and, in *content, the text before and between them (*len bytes, and a
 * NUL behind them). A block that is not a call stays text. */
json_t *choice_tool_calls(const chat *c, const choice *k, char **content, size_t *len) {
    json_t *calls = NULL;
    size_t n = 0;
    char *rest = malloc(k->len + 1);
    vl_assert(rest, "out of memory for an answer of %zu bytes", k->len);
    const char *p = k->text ? k->text : "", *stop = p + k->len;
    while (p < stop) {
        const char *at = c->tool_calls ? find(p, stop, tool_open) : NULL;
        const char *end = at ? find(at, stop, tool_close) : NULL;
        const char *body = at ? at + sizeof tool_open - 1 : NULL;
        json_t *call = at ? parse_call(c, json_array_size(calls), body, (size_t)((end ? end : stop) - body)) : NULL;
        size_t keep = (size_t)((!at ? stop : call ? at : body) - p);
        memcpy(rest + n, p, keep);
        n += keep;
        p += keep;
        if (!call) continue;
        if (!calls) calls = json_array();
        json_object_set_new(call, "index", json_integer((json_int_t)json_array_size(calls)));
        json_array_append_new(calls, call);
        p = end ? end + sizeof tool_close - 1 : stop;
    }
    while (calls && n && is_blank(rest[n - 1])) n--;
    rest[n] = 0;
    *content = rest;
    *len = n;
    return calls;
}

/* ---- usage and timings -------------------------------------------------------------------- */

json_t *chat_usage(const chat *c) {
    const choice *k = &c->choices[0];
    int completion = 0;
    for (int i = 0; i < c->n; i++) completion += c->choices[i].completion_tokens;
    return json_pack("{s:i,s:i,s:i,s:{s:i,s:i}}", "prompt_tokens", k->prompt_tokens,
                     "completion_tokens", completion, "total_tokens", k->prompt_tokens + completion,
                     "prompt_tokens_details", "cached_tokens", k->cached_tokens, "image_tokens",
                     k->image_tokens);
}

json_t *chat_timings(const chat *c) {
    const choice *k = &c->choices[0];
    const vl_timings *t = &k->timings;
    double decode = 0, resize = 0;
    size_t i;
    json_t *r;
    json_array_foreach(c->reports, i, r) {
        decode += json_number_value(json_object_get(r, "decode_ms"));
        resize += json_number_value(json_object_get(r, "resize_ms"));
    }
    double rate = t->decode_s > 0 ? (t->decoded_tokens - 1) / t->decode_s : 0;
    return json_pack("{s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:i,s:i,s:i,s:i,s:f,s:f}",
        "image_decode_ms", decode, "image_resize_ms", resize, "queue_ms", k->queue_s * 1e3,
        "encode_ms", t->encode_s * 1e3, "prefill_ms", t->prefill_s * 1e3,
        "first_token_ms", k->ttft_s * 1e3, "decode_ms", t->decode_s * 1e3,
        "sample_ms", t->sample_s * 1e3, "total_ms", k->e2e_s * 1e3,
        "encoded_pictures", t->encoded_pictures, "cached_pictures", t->cached_pictures,
        "prefill_tokens", t->prefill_tokens, "cached_tokens", t->cached_tokens,
        "prefill_per_second", t->prefill_s > 0 ? t->prefill_tokens / t->prefill_s : 0.0,
        "tokens_per_second", rate > 0 ? rate : 0.0);
}

/* ---- the answer object -------------------------------------------------------------------- */

static json_t *logprob_list(const choice *k) {
    json_t *list = json_array();
    for (size_t i = 0; i < k->n_pieces; i++)
        if (k->pieces[i].logprob) json_array_append(list, k->pieces[i].logprob);
    return list;
}

static json_t *chat_choice(const chat *c, const choice *k, int index) {
    char *content;
    size_t len;
    json_t *calls = choice_tool_calls(c, k, &content, &len);
    json_t *message = json_pack("{s:s,s:o}", "role", "assistant", "content",
                                calls && !len ? json_null() : json_stringn(content, len));
    json_t *boxes = grounding_find(content, chat_question(c), c->reports);
    if (calls) json_object_set_new(message, "tool_calls", calls);
    if (boxes) json_object_set_new(message, "x_grounding", boxes);
    json_t *o = json_pack("{s:i,s:o,s:s}", "index", index, "message", message, "finish_reason",
                          calls && !strcmp(k->finish, "stop") ? "tool_calls" : k->finish);
    json_object_set_new(o, "logprobs", c->f.logprobs
        ? json_pack("{s:o}", "content", logprob_list(k)) : json_null());
    free(content);
    return o;
}

json_t *text_logprobs(const choice *k, size_t from, size_t to) {
    json_t *tokens = json_array(), *values = json_array(), *tops = json_array();
    for (size_t i = from; i < to; i++) {
        json_t *lp = k->pieces[i].logprob, *t, *top;
        size_t j;
        if (!lp) continue;
        json_array_append(tokens, json_object_get(lp, "token"));
        json_array_append(values, json_object_get(lp, "logprob"));
        json_array_append_new(tops, top = json_object());
        json_array_foreach(json_object_get(lp, "top_logprobs"), j, t)
            json_object_set(top, json_string_value(json_object_get(t, "token")), json_object_get(t, "logprob"));
    }
    return json_pack("{s:o,s:o,s:o}", "tokens", tokens, "token_logprobs", values, "top_logprobs", tops);
}

static json_t *text_choice(const chat *c, const choice *k, int index) {
    const json_t *prompt = c->f.echo ? json_object_get(c->body, "prompt") : NULL;
    json_t *o = json_pack("{s:i,s:s%+%,s:s}", "index", index, "text", prompt ? json_string_value(prompt) : "",
                          json_string_length(prompt), k->text ? k->text : "", k->len, "finish_reason", k->finish);
    json_object_set_new(o, "logprobs", c->f.logprobs_n < 0 ? json_null() : text_logprobs(k, 0, k->n_pieces));
    return o;
}

/* Added last: the record in the cache and a stream's first chunk are written without it. */
static void mark_cached(chat *c) {
    const vl_timings *t = &c->choices[0].timings;
    size_t i;
    json_t *r;
    json_array_foreach(c->reports, i, r)
        json_object_set_new(r, "encoder_cache", t->encoded_pictures && t->cached_pictures
            ? json_string("partly") : json_string(t->encoded_pictures ? "miss" : "hit"));
}

static int engine_failed(const chat *c, api_error *e) {
    for (int i = 0; i < c->n; i++) {
        const choice *k = &c->choices[i];
        if (k->timed_out && !k->completion_tokens && !k->n_pieces) {
            return api_fail(e, 408, "deadline_exceeded", "max_time",
                            "the time of the request was over before its first token");
        }
        if (!strcmp(k->finish, "error")) return api_fail_engine(e, &k->error, NULL);
        if (!strcmp(k->finish, "cancelled")) {
            api_fail(e, 503, "cancelled", NULL,
                     "the request was cancelled: the server is stopping");
            e->retry_after = 5;
            return -1;
        }
    }
    return 0;
}

int chat_settle(chat *c, api_error *e) {
    if (engine_failed(c, e)) return -1;
    if (c->cacheable && !c->from_cache) {
        size_t len;
        char *record = chat_record(c, &len);
        if (record) cache_put(c->srv->results, c->key, record, len);
        free(record);
    }
    mark_cached(c);
    return 0;
}

json_t *chat_result(chat *c, api_error *e) {
    if (chat_settle(c, e)) return NULL;
    json_t *choices = json_array();
    for (int i = 0; i < c->n; i++)
        json_array_append_new(choices, c->route == FOR_CHAT ? chat_choice(c, &c->choices[i], i)
                                                            : text_choice(c, &c->choices[i], i));
    json_t *o = json_pack("{s:s,s:s,s:I,s:s,s:o,s:o,s:o}", "id", c->id, "object",
                          c->route == FOR_CHAT ? "chat.completion" : "text_completion", "created",
                          (json_int_t)c->created, "model", c->srv->model_id, "choices", choices,
                          "usage", chat_usage(c), "timings", chat_timings(c));
    if (json_array_size(c->reports)) json_object_set(o, "x_image", c->reports);
    if (json_array_size(c->warnings)) json_object_set(o, "x_warnings", c->warnings);
    return o;
}

/* ---- the cache's record ------------------------------------------------------------------- */

char *chat_record(const chat *c, size_t *len) {
    json_t *choices = json_array();
    for (int i = 0; i < c->n; i++) {
        const choice *k = &c->choices[i];
        const vl_timings *t = &k->timings;
        json_t *pieces = json_array();
        if (k->timed_out) {           /* where a clock stopped it is no property of the request */
            json_decref(pieces);
            json_decref(choices);
            return NULL;
        }
        for (size_t j = 0, from = 0; j < k->n_pieces; from = k->pieces[j++].end) {
            json_t *p = json_pack("[s%]", k->text + from, k->pieces[j].end - from);
            if (k->pieces[j].logprob) json_array_append(p, k->pieces[j].logprob);
            json_array_append_new(pieces, p);
        }
        json_array_append_new(choices, json_pack("{s:o,s:s,s:s,s:[iiii],s:[fff],s:[fffffiiiii]}",
            "pieces", pieces, "finish", k->finish, "stop", k->stop, "counts", k->prompt_tokens,
            k->image_tokens, k->completion_tokens, k->cached_tokens, "times", k->queue_s, k->ttft_s,
            k->e2e_s, "engine", t->encode_s, t->prefill_s, t->decode_s, t->sample_s, t->total_s,
            t->encoded_pictures, t->cached_pictures, t->prefill_tokens, t->cached_tokens,
            t->decoded_tokens));
    }
    json_t *o = json_pack("{s:s,s:I,s:o,s:O,s:O}", "id", c->id, "created", (json_int_t)c->created,
                          "choices", choices, "reports", c->reports, "warnings", c->warnings);
    char *text = json_dumps(o, JSON_COMPACT);
    *len = text ? strlen(text) : 0;
    json_decref(o);
    return text;
}

static bool replay_choice(choice *k, json_t *o) {
    json_t *pieces, *p;
    const char *finish, *stop;
    size_t i;
    vl_timings *t = &k->timings;
    if (json_unpack(o, "{s:o,s:s,s:s,s:[iiii],s:[fff],s:[fffffiiiii]}", "pieces", &pieces, "finish",
            &finish, "stop", &stop, "counts", &k->prompt_tokens, &k->image_tokens,
            &k->completion_tokens, &k->cached_tokens, "times", &k->queue_s, &k->ttft_s, &k->e2e_s,
            "engine", &t->encode_s, &t->prefill_s, &t->decode_s, &t->sample_s, &t->total_s,
            &t->encoded_pictures, &t->cached_pictures, &t->prefill_tokens, &t->cached_tokens,
            &t->decoded_tokens)) return false;
    json_array_foreach(pieces, i, p) {
        const json_t *said = json_array_get(p, 0);
        choice_add_piece(k, json_string_value(said), json_string_length(said),
                         json_incref(json_array_get(p, 1)));
    }
    snprintf(k->finish, sizeof k->finish, "%s", finish);
    snprintf(k->stop, sizeof k->stop, "%s", stop);
    return k->done = true;
}

bool chat_replay(chat *c, const char *record, size_t len) {
    json_t *o = json_loadb(record, len, JSON_ALLOW_NUL, NULL), *choices, *reports, *warnings;
    const char *id;
    json_int_t created;
    bool ok = o && !json_unpack(o, "{s:s,s:I,s:o,s:o,s:o}", "id", &id, "created", &created,
                                "choices", &choices, "reports", &reports, "warnings", &warnings);
    for (int i = 0; i < c->n && ok; i++)
        ok = replay_choice(&c->choices[i], json_array_get(choices, (size_t)i));
    if (ok) {
        snprintf(c->id, sizeof c->id, "%s", id);
        c->created = created;
        c->left = 0;
        json_array_clear(c->warnings);
        json_array_extend(c->warnings, warnings);
        json_array_extend(c->reports, reports);
    }
    json_decref(o);
    return ok;
}
