/* responses.c: /v1/responses, the subset of OpenAI's Responses API that needs nothing stored. The
 * request is read by the chat's own code (fields.c and chat.c know the route); this file words the
 * answer, whole or as typed events:
 *
 *   response.created, .in_progress
 *   of the text, if there is any:  .output_item.added, .content_part.added, .output_text.delta ...,
 *       .output_text.done, .content_part.done, .output_item.done
 *   of every call of a function:   .output_item.added, .function_call_arguments.delta, .done,
 *       .output_item.done
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

/* Log probabilities of pieces; none if they were not asked for. */
static json_t *logprobs_of(const choice *k, size_t from, size_t to) {
    json_t *list = json_array();
    for (size_t i = from; i < to; i++)
        if (k->pieces[i].logprob) json_array_append(list, k->pieces[i].logprob);
    return list;
}

/* How many pieces are the message: all, or those before a call (what stands between calls is the
 * message's too, but its tokens cannot be told from theirs). */
static size_t message_pieces(const chat *c, const choice *k, bool calls) {
    size_t n = 0, ready = choice_ready(c, k);
    while (n < k->n_pieces && (!calls || k->pieces[n].end <= ready)) n++;
    return n;
}

/* `pieces` of k are in it. */
static json_t *text_part(const chat *c, const choice *k, const char *said, size_t len, size_t pieces) {
    json_t *text = json_stringn(said, len);
    json_t *o = json_pack("{s:s,s:o,s:[],s:o}", "type", "output_text", "text",
                          text ? text : json_string(""), "annotations", "logprobs", logprobs_of(k, 0, pieces));
    json_t *boxes = k->done && len ? grounding_find(said, chat_question(c), c->reports) : NULL;
    if (boxes) json_object_set_new(o, "x_grounding", boxes);
    return o;
}

static void item_id(const chat *c, char out[64]) { snprintf(out, 64, "msg_%s", chat_id_tail(c)); }

/* The message; `content` is taken. */
static json_t *message_item(const chat *c, const char *status, json_t *content) {
    char id[64];
    item_id(c, id);
    return json_pack("{s:s,s:s,s:s,s:s,s:o}", "id", id, "type", "message", "status", status, "role",
                     "assistant", "content", content);
}

/* One of choice_tool_calls() in this API's form. */
static json_t *call_item(const chat *c, const json_t *call, const char *status, const char *arguments) {
    const json_t *f = json_object_get(call, "function");
    char id[64];
    snprintf(id, sizeof id, "fc_%s_%d", chat_id_tail(c), (int)json_integer_value(json_object_get(call, "index")));
    return json_pack("{s:s,s:s,s:s,s:O,s:O,s:s}", "id", id, "type", "function_call", "status", status,
                     "call_id", json_object_get(call, "id"), "name", json_object_get(f, "name"), "arguments",
                     arguments);
}

static const char *arguments_of(const json_t *call) {
    return json_string_value(json_object_get(json_object_get(call, "function"), "arguments"));
}

/* Every item of a finished answer. */
static json_t *output_list(const chat *c, const choice *k) {
    char *content;
    size_t i, n;
    json_t *calls = choice_tool_calls(c, k, &content, &n), *list = json_array(), *call;
    if (!calls || n)
        json_array_append_new(list, message_item(c, status_of(k), json_pack("[o]", text_part(c, k, content, n, message_pieces(c, k, calls != NULL)))));
    json_array_foreach(calls, i, call)
        json_array_append_new(list, call_item(c, call, "completed", arguments_of(call)));
    json_decref(calls);
    free(content);
    return list;
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

/* The response object; its items come with the end (`whole`). */
static json_t *response_object(const chat *c, const char *status, bool whole) {
    const choice *k = &c->choices[0];
    const char *reason = whole ? incomplete_reason(k) : NULL;
    json_t *o = json_pack("{s:s,s:s,s:I,s:s,s:b,s:n,s:o,s:s,s:s?,s:o,s:o,s:b,s:n,s:b,s:f,s:f,s:o}",
        "id", c->id, "object", "response", "created_at", (json_int_t)c->created, "status", status,
        "background", 0, "error", "incomplete_details",
        reason ? json_pack("{s:s}", "reason", reason) : json_null(), "model", c->srv->model_id,
        "instructions", c->f.instructions, "max_output_tokens",
        echoed(c, "max_output_tokens", json_null()), "output",
        whole ? output_list(c, k) : json_array(), "parallel_tool_calls", c->tools != NULL,
        "previous_response_id", "store", 0, "temperature", c->f.temperature, "top_p", c->f.top_p, "text",
        echoed(c, "text", json_pack("{s:{s:s}}", "format", "type", "text")));
    json_t *more = json_pack("{s:i,s:o,s:o,s:s,s:o,s:o}", "top_logprobs", c->f.top_logprobs > 0 ? (int)c->f.top_logprobs : 0,
        "tool_choice",
        echoed(c, "tool_choice", json_string(c->tools ? "auto" : "none")), "tools",
        echoed(c, "tools", json_array()), "truncation", "disabled", "metadata",
        echoed(c, "metadata", json_object()), "usage", whole ? usage_object(c) : json_null());
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

/* An event about the one part of the one message, which is the first item. logprobs is taken; NULL: the
 * event has none. */
static void send_part(sse *s, const char *type, const char *key, json_t *value, json_t *logprobs) {
    char id[64];
    item_id(&s->c, id);
    json_t *o = json_pack("{s:s,s:i,s:i,s:o}", "item_id", id, "output_index", 0, "content_index", 0, key, value);
    if (logprobs) json_object_set_new(o, "logprobs", logprobs);
    send_event(s, type, o);
}

static void send_item(sse *s, const char *type, int index, json_t *item) {
    send_event(s, type, json_pack("{s:i,s:o}", "output_index", index, "item", item));
}

static void open_message(sse *s) {
    if (s->message) return;
    send_item(s, "response.output_item.added", 0, message_item(&s->c, "in_progress", json_array()));
    send_part(s, "response.content_part.added", "part", text_part(&s->c, &s->c.choices[0], "", 0, 0), NULL);
    s->message = true;
}

static void send_open(sse *s) {
    chat *c = &s->c;
    if (c->choices[0].opened) return;
    send_event(s, "response.created",
               json_pack("{s:o}", "response", response_object(c, "in_progress", false)));
    send_event(s, "response.in_progress",
               json_pack("{s:o}", "response", response_object(c, "in_progress", false)));
    c->choices[0].opened = true;
    if (!c->tool_calls) open_message(s); /* else there may be none */
}

/* Some text, and the log probabilities of the pieces up to `pieces` that have not been sent: a token that
 * ends within a character has no text of its own, and goes with the next. */
static void send_delta(sse *s, const char *from, size_t n, size_t pieces) {
    json_t *text = n ? json_stringn(from, n) : NULL;
    if (!text) return;
    open_message(s);
    send_part(s, "response.output_text.delta", "delta", text, logprobs_of(&s->c.choices[0], s->told, pieces));
    s->told = pieces;
}

/* One delta per piece, as the chat's stream has one chunk per piece. */
static void response_pieces(sse *s, int i) {
    choice *k = &s->c.choices[i];
    size_t ready = choice_ready(&s->c, k);
    send_open(s);
    for (; k->next_piece < k->n_pieces; k->next_piece++) {
        size_t end = k->pieces[k->next_piece].end, to = end < ready ? end : ready;
        if (to > k->sent) {
            send_delta(s, k->text + k->sent, to - k->sent, k->next_piece + (end <= ready));
            k->sent = to;
        }
        if (end > ready) break;
    }
}

static void response_progress(sse *s, const event *e) {
    send_open(s);
    send_event(s, "response.x_progress", sse_progress_object(s, e));
}

static void send_call(sse *s, int index, const json_t *call) {
    const char *arguments = arguments_of(call);
    json_t *item = call_item(&s->c, call, "completed", arguments), *id = json_object_get(item, "id");
    send_item(s, "response.output_item.added", index, call_item(&s->c, call, "in_progress", ""));
    send_event(s, "response.function_call_arguments.delta",
               json_pack("{s:O,s:i,s:s}", "item_id", id, "output_index", index, "delta", arguments));
    send_event(s, "response.function_call_arguments.done",
               json_pack("{s:O,s:i,s:O,s:s}", "item_id", id, "output_index", index, "name",
                         json_object_get(item, "name"), "arguments", arguments));
    send_item(s, "response.output_item.done", index, item);
}

/* What is left to say of the text, and the calls. */
static void send_output(sse *s) {
    chat *c = &s->c;
    choice *k = &c->choices[0];
    char *content;
    size_t i, n;
    json_t *calls = choice_tool_calls(c, k, &content, &n), *call;
    if (!calls || n) {
        size_t pieces = message_pieces(c, k, calls != NULL);
        if (n > k->sent) send_delta(s, content + k->sent, n - k->sent, pieces);
        open_message(s);
        json_t *part = text_part(c, k, content, n, pieces);
        send_part(s, "response.output_text.done", "text", json_incref(json_object_get(part, "text")),
                  json_incref(json_object_get(part, "logprobs")));
        send_part(s, "response.content_part.done", "part", json_incref(part), NULL);
        send_item(s, "response.output_item.done", 0, message_item(c, status_of(k), json_pack("[o]", part)));
    }
    json_array_foreach(calls, i, call) send_call(s, (int)i + s->message, call);
    json_decref(calls);
    free(content);
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
    send_output(s);
    send_event(s, incomplete_reason(k) ? "response.incomplete" : "response.completed",
               json_pack("{s:o}", "response", response_object(c, status_of(k), true)));
}

static const answer_form events = {response_pieces, response_progress, response_finish,
                                   response_result};
void route_responses(http_request *r) { generate(r, FOR_RESPONSES, &events); }
