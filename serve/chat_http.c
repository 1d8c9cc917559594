/* chat_http.c: /v1/chat/completions and /v1/completions over HTTP: waiting for the answer while
 * watching the client, server-sent events (for responses.c too), and multipart bodies.
 *
 * The stream is made of the same pieces as the answer (chat.h), so a replay from the result cache
 * gives the same bytes as the run that filled it.
 */
#include <stdio.h>
#include <stdlib.h>

#include "serve/chat.h"
#include "serve/routes.h"
#include "serve/sse.h"

static const double poll_s = 0.05, look_s = 0.01, ping_s = 10; /* look_s: has a client left that waits for a whole answer? */

/* ---- server-sent events ------------------------------------------------------------------- */

void sse_put(sse *s, const char *text, size_t n) {
    char *p = realloc(s->out, s->len + n + 1);
    vl_assert(p, "out of memory for %zu bytes of a stream", s->len + n);
    memcpy(p + s->len, text, n);
    s->out = p;
    s->len += n;
}

void sse_data(sse *s, json_t *o) {
    char *text = json_dumps(o, JSON_COMPACT);
    json_decref(o);
    if (!text) return;
    sse_put(s, "data: ", 6);
    sse_put(s, text, strlen(text));
    sse_put(s, "\n\n", 2);
    free(text);
}

static json_t *chunk(const chat *c, json_t *choices) {
    json_t *o = json_pack("{s:s,s:s,s:I,s:s,s:o}", "id", c->id, "object",
        c->route == FOR_CHAT ? "chat.completion.chunk" : "text_completion", "created",
        (json_int_t)c->created, "model", c->srv->model_id, "choices", choices);
    if (c->include_usage) json_object_set_new(o, "usage", json_null()); /* of all but the last, says OpenAI */
    return o;
}

static json_t *delta(const chat *c, int index, json_t *fields, const char *finish) {
    if (c->route == FOR_CHAT)
        return json_pack("[{s:i,s:o,s:s?}]", "index", index, "delta", fields, "finish_reason", finish);
    json_t *text = json_incref(json_object_get(fields, "content"));
    json_decref(fields);
    return json_pack("[{s:i,s:o,s:s?}]", "index", index, "text", text ? text : json_string(""), "finish_reason", finish);
}

static void sse_open(sse *s, int i) {
    chat *c = &s->c;
    const json_t *prompt = c->f.echo ? json_object_get(c->body, "prompt") : NULL;
    json_t *o = chunk(c, delta(c, i, json_pack("{s:s,s:s}", "role", "assistant", "content",
                                               prompt ? json_string_value(prompt) : ""), NULL));
    if (i == 0 && json_array_size(c->reports)) json_object_set(o, "x_image", c->reports);
    if (i == 0 && json_array_size(c->warnings)) json_object_set(o, "x_warnings", c->warnings);
    sse_data(s, o);
    c->choices[i].opened = true;
}

/* Sends what is ready of choice i: one chunk per piece. */
static void sse_pieces(sse *s, int i) {
    chat *c = &s->c;
    choice *k = &c->choices[i];
    size_t ready = choice_ready(c, k);
    if (!k->opened) sse_open(s, i);
    while (k->next_piece < k->n_pieces) {
        const piece *p = &k->pieces[k->next_piece];
        size_t to = p->end < ready ? p->end : ready;
        if (to == k->sent && (p->end > ready || !p->logprob)) {
            if (p->end > ready) break;
            k->next_piece++;
            continue;
        }
        json_t *text = json_stringn(k->text + k->sent, to - k->sent);
        json_t *choices =
            delta(c, i, json_pack("{s:o}", "content", text ? text : json_string("")), NULL);
        if (p->logprob && p->end <= ready)
            json_object_set_new(json_array_get(choices, 0), "logprobs", c->route == FOR_CHAT
                ? json_pack("{s:[O]}", "content", p->logprob) : text_logprobs(k, k->next_piece, k->next_piece + 1));
        sse_data(s, chunk(c, choices));
        k->sent = to;
        if (p->end > ready) break;
        k->next_piece++;
    }
}

static void sse_close(sse *s, int i) {
    chat *c = &s->c;
    choice *k = &c->choices[i];
    char *content;
    size_t n;
    json_t *calls = choice_tool_calls(c, k, &content, &n);
    json_t *boxes = grounding_find(content, chat_question(c), c->reports);
    if (n > k->sent)                  /* a block that looked like a call and was none */
        sse_data(s, chunk(c, delta(c, i, json_pack("{s:s%}", "content", content + k->sent, n - k->sent), NULL)));
    if (calls)
        sse_data(s, chunk(c, delta(c, i, json_pack("{s:O}", "tool_calls", calls), NULL)));
    json_t *o = chunk(c, delta(c, i, json_object(),
                               calls && !strcmp(k->finish, "stop") ? "tool_calls" : k->finish));
    if (boxes) json_object_set_new(o, "x_grounding", boxes);
    if (i == c->n - 1) json_object_set_new(o, "timings", chat_timings(c));
    sse_data(s, o);
    json_decref(calls);
    free(content);
}

static void sse_error(sse *s, const api_error *e) {
    sse_data(s, json_pack("{s:{s:s,s:s,s:s,s:i}}", "error", "message", e->msg, "type",
                          "server_error", "code", e->code, "status", e->status));
    s->ended = true;
}

/* All choices are complete: finish chunks in order, usage, [DONE]. */
static void sse_finish(sse *s) {
    chat *c = &s->c;
    api_error e = {0};
    for (int i = 0; i < c->n; i++) sse_pieces(s, i);
    if (chat_settle(c, &e)) {
        sse_error(s, &e);
        return;
    }
    for (int i = 0; i < c->n; i++) sse_close(s, i);
    if (c->include_usage) {
        json_t *o = chunk(c, json_array());
        json_object_set_new(o, "usage", chat_usage(c));
        sse_data(s, o);
    }
    sse_put(s, "data: [DONE]\n\n", 14);
    s->ended = true;
}

/* Seconds: what is left of this stage at the pace that it has had so far (at its first event: that recent
 * requests had), and what comes after it at the pace of recent requests. */
static double time_left(sse *s, const vl_event *ev) {
    const chat *c = &s->c;
    bool encode = ev->kind == VL_EV_ENCODE;
    double now = vl_now(), later = 0;
    scheduler_state st;
    scheduler_get_state(c->srv->scheduler, &st);
    if (s->stage_at == 0 || s->stage != (int)ev->kind || s->picture != ev->picture) {
        s->stage = (int)ev->kind;
        s->picture = ev->picture;
        s->stage_done = ev->done;
        s->stage_at = now;
    }
    for (int i = encode ? ev->picture : c->n_pictures; i < c->n_pictures; i++)
        later += st.encode_s_per_token * vl_picture_get_info(c->pictures[i])->tokens;
    double mine = encode ? st.encode_s_per_token * vl_picture_get_info(c->pictures[ev->picture])->tokens : 0;
    double each = ev->done > s->stage_done ? (now - s->stage_at) / (ev->done - s->stage_done)
                : encode                   ? mine / (ev->total > 0 ? ev->total : 1)
                                           : st.prefill_s_per_token;
    if (encode) later += st.prefill_s_per_token * c->prompt_tokens - mine;
    return each * (ev->total - ev->done) + later + st.decode_s_per_token;
}

json_t *sse_progress_object(sse *s, const event *e) {
    bool encode = e->ev.kind == VL_EV_ENCODE;
    json_t *p = json_pack("{s:s,s:i,s:i,s:f}", "stage", encode ? "encode" : "prefill", "done", e->ev.done, "total",
                          e->ev.total, "eta_ms", time_left(s, &e->ev) * 1e3);
    if (encode) json_object_set_new(p, "image", json_integer(e->ev.picture));
    return p;
}

static void sse_progress(sse *s, const event *e) {
    json_t *o = chunk(&s->c, json_array());
    json_object_set_new(o, "x_progress", sse_progress_object(s, e));
    sse_data(s, o);
}

static void sse_pump(sse *s) {
    chat *c = &s->c;
    if (c->left == 0) {
        s->form->finish(s);
        return;
    }
    event *e = chat_pump(c, poll_s);
    if (e && (e->ev.kind == VL_EV_ENCODE || e->ev.kind == VL_EV_PREFILL)) s->form->progress(s, e);
    else if (e) s->form->pieces(s, e->choice);
    free(e);
    if (s->len == 0 && vl_now() - s->last > ping_s) sse_put(s, ": ping\n\n", 8);
}

static ssize_t sse_read(void *user, char *buf, size_t max) {
    sse *s = user;
    while (s->at == s->len) {
        s->at = s->len = 0;
        if (s->ended) return 0;
        if (http_gone(s->r)) {
            chat_cancel(&s->c);
            return -1;
        }
        sse_pump(s);
    }
    size_t n = s->len - s->at < max ? s->len - s->at : max;
    memcpy(buf, s->out + s->at, n);
    s->at += n;
    s->last = vl_now();
    return (ssize_t)n;
}

static void sse_end(void *user) {
    sse *s = user;
    chat_free(&s->c);
    attachments_free(s->files);
    json_decref(s->body);
    free(s->out);
    free(s);
}

/* ---- whole answers ------------------------------------------------------------------------ */

/* Waits for every choice; gives up when the client has. */
static bool wait_done(http_request *r, chat *c) {
    double next = vl_now() + look_s;
    while (c->left) {
        free(chat_pump(c, look_s));
        if (c->left == 0 || vl_now() < next) continue; /* tokens come many at a time: not a look for each */
        if (http_gone(r)) {
            chat_cancel(c);
            return false;
        }
        next = vl_now() + look_s;
    }
    return true;
}

static void answer(http_request *r, sse *s) {
    api_error e = {0};
    chat *c = &s->c;
    if (!wait_done(r, c)) {
        api_fail(&e, 499, "client_closed", NULL, "the client went away");
        http_error(r, &e);
        return;
    }
    json_t *o = s->form->result(c, &e);
    if (!o) {
        http_error(r, &e);
        return;
    }
    char *text = json_dumps(o, JSON_COMPACT);
    json_decref(o);
    http_bytes(r, 200, "application/json", text ? text : "{}", text ? strlen(text) : 2, true,
               "X-Cache",
               c->from_cache  ? "hit"
               : c->cacheable ? "miss"
                              : "none");
    free(text);
}

void generate(http_request *r, int which, const answer_form *form) {
    api_error e = {0};
    sse *s = vl_calloc(1, sizeof *s);
    vl_assert(s, "out of memory for a request of %zu bytes", sizeof *s);
    s->r = r;
    s->form = form;
    s->body = r->json ? json_incref(r->json) : form_body(r, &s->files, &e);
    if (!s->body) {
        http_error(r, &e);
        attachments_free(s->files);
        free(s);
        return;
    }
    s->by = http_caller(r);
    if (chat_open(&s->c, r->srv, which, s->body, s->files, &s->by, INTERACTIVE, &e) ||
        chat_start(&s->c, &e)) {
        http_error(r, &e);
        sse_end(s);
    } else if (s->c.f.stream) {
        s->last = vl_now();
        http_stream(r, "text/event-stream; charset=utf-8", sse_read, sse_end, s);
    } else {
        answer(r, s);
        sse_end(s);
    }
}

static const answer_form chunks = {sse_pieces, sse_progress, sse_finish, chat_result};
void route_chat(http_request *r) { generate(r, FOR_CHAT, &chunks); }
void route_completions(http_request *r) { generate(r, FOR_TEXT, &chunks); }

/* ---- multipart ---------------------------------------------------------------------------- */

typedef struct form_state {
    json_t *body;
    attachment **tail;
    char *prompt;
    api_error *e;
} form_state;

static int form_field(void *user, const char *name, const char *filename, const char *data,
                      size_t len) {
    form_state *f = user;
    if (filename) {
        attachment *a = vl_calloc(1, sizeof *a);
        vl_assert(a && (a->name = strdup(name)) && (a->filename = strdup(filename)) && (a->data.data = malloc(len + 1)),
                  "out of memory for an upload of %zu bytes", len);
        if (len) memcpy(a->data.data, data, len);
        a->data.len = len;
        *f->tail = a;
        f->tail = &a->next;
        return 0;
    }
    if (!strcmp(name, "request")) {
        json_t *o = json_loadb(data ? data : "", len, JSON_REJECT_DUPLICATES, NULL);
        if (!json_is_object(o)) {
            json_decref(o);
            return api_fail(f->e, 400, "invalid_json", "request",
                            "the part 'request' is no JSON object");
        }
        json_object_update(f->body, o);
        json_decref(o);
        return 0;
    }
    json_t *v = json_loadb(data ? data : "", len, JSON_DECODE_ANY, NULL);
    if (!v || !strcmp(name, "prompt")) {
        json_decref(v);
        v = json_stringn(data ? data : "", len);
    }
    if (!v) return api_fail(f->e, 400, "invalid_value", name, "this part is not UTF-8 text");
    if (json_object_set_new(f->body, name, v) == 0) return 0;
    return api_fail(f->e, 400, "invalid_form", NULL, "a part's name is not UTF-8 text"); /* to say nothing hangs the client */
}

/* `request` holds the JSON body, in which attachment:NAME stands for an uploaded part; or, without
 * messages, `prompt` and the uploaded pictures in order make one user turn. */
json_t *form_body(http_request *r, attachment **files, api_error *e) {
    form_state f = {json_object(), files, NULL, e};
    if (http_form(r, form_field, &f, e)) {
        json_decref(f.body);
        return NULL;
    }
    if (json_object_get(f.body, "messages") || r->route->fn != route_chat) return f.body;
    json_t *parts = json_array(), *prompt = json_object_get(f.body, "prompt");
    int i = 0;
    for (attachment *a = *files; a; a = a->next) {
        char name[32];
        snprintf(name, sizeof name, "attachment:%d", i++);
        free(a->name);
        a->name = strdup(name + 11);
        json_array_append_new(parts,
                              json_pack("{s:s,s:s}", "type", "image_url", "image_url", name));
    }
    json_array_append_new(parts, json_pack("{s:s,s:O?}", "type", "text", "text", prompt));
    json_object_set_new(f.body, "messages",
                        json_pack("[{s:s,s:o}]", "role", "user", "content", parts));
    json_object_del(f.body, "prompt");
    return f.body;
}

void attachments_free(attachment *a) {
    while (a) {
        attachment *next = a->next;
        free(a->name);
        free(a->filename);
        free(a->data.data);
        free(a);
        a = next;
    }
}
