/* responses.c: /v1/responses, the subset of OpenAI's Responses API that needs nothing stored. The
 * request is read by the chat's own code (fields.c and chat.c know the route); this file words the
 * answer, whole or as typed events:
 *
 *   response.created, .in_progress, .output_item.added, .content_part.added,
 *   .output_text.delta ..., .output_text.done, .content_part.done, .output_item.done,
 *   response.completed | .incomplete | .failed
 */
#include <stdio.h>
#include <stdlib.h>

#include "serve/routes.h"
#include "serve/sse.h"

/* "stop" is a complete answer; anything else says why it is not. */
static const char *incomplete_reason(const choice *k) {
    if (!k->done || !strcmp(k->finish, "stop")) return NULL;
    return k->timed_out ? "max_time" : strcmp(k->finish, "length") ? k->finish : "max_output_tokens";
}

static const char *status_of(const choice *k) {
    return !k->done ? "in_progress" : incomplete_reason(k) ? "incomplete" : "completed";
}

/* A part with the first n bytes of the text. */
static json_t *text_part(const chat *c, const choice *k, size_t n) {
    json_t *text = n ? json_stringn(k->text, n) : json_string("");
    json_t *o = json_pack("{s:s,s:o,s:[],s:[]}", "type", "output_text", "text",
                          text ? text : json_string(""), "annotations", "logprobs");
    json_t *boxes = k->done && n ? grounding_find(k->text, chat_question(c), c->reports) : NULL;
    if (boxes) json_object_set_new(o, "x_grounding", boxes);
    return o;
}

static void item_id(const chat *c, char out[64]) {
    snprintf(out, 64, "msg_%s", strchr(c->id, '_') + 1);  /* a replay repeats it */
}

/* The message; `content` is taken. */
static json_t *item(const chat *c, const char *status, json_t *content) {
    char id[64];
    item_id(c, id);
    return json_pack("{s:s,s:s,s:s,s:s,s:o}", "id", id, "type", "message", "status", status, "role",
                     "assistant", "content", content);
}

static json_t *usage_object(const chat *c) {
    const choice *k = &c->choices[0];
    return json_pack("{s:i,s:{s:i,s:i},s:i,s:{s:i},s:i}", "input_tokens", k->prompt_tokens,
                     "input_tokens_details", "cached_tokens", k->cached_tokens, "image_tokens",
                     k->image_tokens, "output_tokens", k->completion_tokens,
                     "output_tokens_details", "reasoning_tokens", 0, "total_tokens",
                     k->prompt_tokens + k->completion_tokens);
}

/* A field of the request as it was sent, or `otherwise` (taken). */
static json_t *echoed(const chat *c, const char *name, json_t *otherwise) {
    json_t *v = json_object_get(c->body, name);
    if (!v || json_is_null(v)) return otherwise;
    json_decref(otherwise);
    return json_incref(v);
}

/* The response object; its message comes with the end (`whole`). */
static json_t *response_object(const chat *c, const char *status, bool whole) {
    const choice *k = &c->choices[0];
    const char *reason = whole ? incomplete_reason(k) : NULL;
    json_t *o = json_pack("{s:s,s:s,s:I,s:s,s:b,s:n,s:o,s:s,s:s?,s:o,s:o,s:b,s:n,s:b,s:f,s:f,s:o}",
        "id", c->id, "object", "response", "created_at", (json_int_t)c->created, "status", status,
        "background", 0, "error", "incomplete_details",
        reason ? json_pack("{s:s}", "reason", reason) : json_null(), "model", c->srv->model_id,
        "instructions", c->f.instructions, "max_output_tokens",
        echoed(c, "max_output_tokens", json_null()), "output",
        whole ? json_pack("[o]", item(c, status_of(k), json_pack("[o]", text_part(c, k, k->len))))
              : json_array(),
        "parallel_tool_calls", 0, "previous_response_id", "store", 0, "temperature",
        c->f.temperature, "top_p", c->f.top_p, "text",
        echoed(c, "text", json_pack("{s:{s:s}}", "format", "type", "text")));
    json_t *more = json_pack("{s:s,s:[],s:s,s:o,s:o}", "tool_choice", "none", "tools", "truncation",
                             "disabled", "metadata", echoed(c, "metadata", json_object()), "usage",
                             whole ? usage_object(c) : json_null());
    json_object_update(o, more);
    json_decref(more);
    if (json_array_size(c->reports)) json_object_set(o, "x_image", c->reports);
    if (json_array_size(c->warnings)) json_object_set(o, "x_warnings", c->warnings);
    if (whole) json_object_set_new(o, "timings", chat_timings(c));
    return o;
}

static json_t *response_result(chat *c, api_error *e) {
    return chat_settle(c, e) ? NULL : response_object(c, status_of(&c->choices[0]), true);
}

/* ---- events ------------------------------------------------------------------------------- */

/* One event; `o` is taken and gets its type and number. */
static void send_event(sse *s, const char *type, json_t *o) {
    char line[80];
    int n = snprintf(line, sizeof line, "event: %s\n", type);
    sse_put(s, line, (size_t)n);
    json_object_set_new(o, "type", json_string(type));
    json_object_set_new(o, "sequence_number", json_integer(s->sequence++));
    sse_data(s, o);
}

/* An event about the one part of the one message. */
static void send_part(sse *s, const char *type, const char *key, json_t *value) {
    char id[64];
    item_id(&s->c, id);
    send_event(s, type, json_pack("{s:s,s:i,s:i,s:o}", "item_id", id, "output_index", 0,
                                  "content_index", 0, key, value));
}

static void send_open(sse *s) {
    chat *c = &s->c;
    send_event(s, "response.created",
               json_pack("{s:o}", "response", response_object(c, "in_progress", false)));
    send_event(s, "response.in_progress",
               json_pack("{s:o}", "response", response_object(c, "in_progress", false)));
    send_event(s, "response.output_item.added", json_pack("{s:i,s:o}", "output_index", 0, "item",
                                                          item(c, "in_progress", json_array())));
    send_part(s, "response.content_part.added", "part", text_part(c, &c->choices[0], 0));
    c->choices[0].opened = true;
}

/* One delta per piece, as the chat's stream has one chunk per piece. */
static void response_pieces(sse *s, int i) {
    choice *k = &s->c.choices[i];
    if (!k->opened) send_open(s);
    for (; k->next_piece < k->n_pieces; k->next_piece++) {
        size_t end = k->pieces[k->next_piece].end;
        json_t *text = end > k->sent ? json_stringn(k->text + k->sent, end - k->sent) : NULL;
        if (text) send_part(s, "response.output_text.delta", "delta", text);
        k->sent = end;
    }
}

static void response_progress(sse *s, const event *e) {
    if (!s->c.choices[0].opened) send_open(s);
    send_event(s, "response.x_progress", json_pack("{s:s,s:i,s:i}", "stage",
        e->ev.kind == VL_EV_ENCODE ? "encode" : "prefill", "done", e->ev.done, "total",
        e->ev.total));
}

static void response_finish(sse *s) {
    chat *c = &s->c;
    const choice *k = &c->choices[0];
    api_error e = {0};
    s->ended = true;
    response_pieces(s, 0);
    if (chat_settle(c, &e)) {
        json_t *o = response_object(c, "failed", false);
        json_object_set_new(o, "error", json_pack("{s:s,s:s}", "code", e.code, "message", e.msg));
        send_event(s, "response.failed", json_pack("{s:o}", "response", o));
        return;
    }
    json_t *part = text_part(c, k, k->len);
    send_part(s, "response.output_text.done", "text", json_incref(json_object_get(part, "text")));
    send_part(s, "response.content_part.done", "part", json_incref(part));
    send_event(s, "response.output_item.done", json_pack("{s:i,s:o}", "output_index", 0, "item",
        item(c, status_of(k), json_pack("[o]", part))));
    send_event(s, incomplete_reason(k) ? "response.incomplete" : "response.completed",
               json_pack("{s:o}", "response", response_object(c, status_of(k), true)));
}

static const answer_form events = {response_pieces, response_progress, response_finish,
                                   response_result};
void route_responses(http_request *r) { generate(r, FOR_RESPONSES, &events); }
