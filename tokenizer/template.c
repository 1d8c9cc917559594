/* template.c: the Qwen3-VL chat template.
 *
 *   [tools or system]   <|im_start|>system\n ... <|im_end|>\n
 *   user                <|im_start|>user\n  text, pictures  <|im_end|>\n
 *   assistant           <|im_start|>assistant\n  text, tool calls  <|im_end|>\n
 *   tool, tool, ...     <|im_start|>user  \n<tool_response>\n ... \n</tool_response>  <|im_end|>\n
 *   at the end          <|im_start|>assistant\n
 *
 * Easy to get wrong (all as the checkpoint's Jinja text does it):
 *  - there is no default system prompt; a system message after the first place vanishes, and so
 *    do roles and parts of unknown kinds;
 *  - a part is a picture if it has the key "image" or "image_url", whatever its type says;
 *  - pictures are shown in user and tool messages only, yet they count as content when it decides
 *    about the newline before the first tool call;
 *  - an empty list of tools is no tools; arguments given as a string are copied as they are.
 */
#include "tokenizer/template.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "tokenizer/json_text.h"

typedef struct writer {
    vl_segments *out;
    bool ids;                  /* "Picture 1: " before each picture                   */
    vl_err *err;
} writer;

/* ---- segments ------------------------------------------------------------------------------- */

static int segment(writer *w, const char *text, size_t len, bool special, int media) {
    vl_segments *o = w->out;
    vl_segment *v = vl_grow(o->v, &o->cap, o->n + 1, sizeof *v, w->err);
    if (!v) return -1;
    o->v = v;
    vl_buffer copy = {0};
    if (vl_buffer_add(&copy, text, len, w->err) < 0) return -1;
    v[o->n++] = (vl_segment){copy.s, len, special, media};
    return 0;
}

static int structure(writer *w, const char *text) {
    return segment(w, text, strlen(text), true, -1);
}

static int content(writer *w, const json_t *string) {
    size_t n = json_string_length(string);
    return n ? segment(w, json_string_value(string), n, false, -1) : 0;
}

static int json_content(writer *w, const json_t *v) {
    vl_buffer text = {0};
    int rc = vl_json_text(&text, v, w->err);
    if (rc == 0) rc = segment(w, text.s, text.n, false, -1);
    free(text.s);
    return rc;
}

void vl_segments_clear(vl_segments *s) {
    for (size_t i = 0; i < s->n; i++) free(s->v[i].text);
    free(s->v);
    *s = (vl_segments){0};
}

/* ---- content -------------------------------------------------------------------------------- */

static int wrong(const writer *w, const char *expected, const char *where, ...)
    __attribute__((format(printf, 3, 4)));
static int wrong(const writer *w, const char *expected, const char *where, ...) {
    char field[128];
    va_list ap;
    va_start(ap, where);
    vsnprintf(field, sizeof field, where, ap);
    va_end(ap);
    return vl_fail(w->err, VL_E_INPUT, "%s: expected %s", field, expected);
}

static bool has(const json_t *o, const char *key) { return json_object_get(o, key) != NULL; }

static bool is(const json_t *string, const char *word) {
    return json_is_string(string) && strcmp(json_string_value(string), word) == 0;
}

static int vision(writer *w, const char *name, int *count, const char *pad, int media) {
    char id[32];
    snprintf(id, sizeof id, "%s %d: ", name, ++*count);
    if (w->ids && structure(w, id) < 0) return -1;
    if (structure(w, "<|vision_start|>") < 0) return -1;
    if (segment(w, pad, strlen(pad), true, media) < 0) return -1;
    return structure(w, "<|vision_end|>");
}

/* Part k of message i. pictures: false in messages whose pictures the template leaves out. */
static int part(writer *w, const json_t *p, bool pictures, size_t i, size_t k) {
    const json_t *type = json_object_get(p, "type"), *text = json_object_get(p, "text");
    if (!json_is_object(p)) return wrong(w, "an object", "messages[%zu].content[%zu]", i, k);
    if (type && !json_is_string(type))
        return wrong(w, "a string", "messages[%zu].content[%zu].type", i, k);
    if (pictures && (is(type, "image") || is(type, "image_url") || is(type, "input_image") ||
                     has(p, "image") || has(p, "image_url")))
        return vision(w, "Picture", &w->out->n_media, "<|image_pad|>", w->out->n_media);
    if (pictures && (is(type, "video") || has(p, "video")))
        return vision(w, "Video", &w->out->n_videos, "<|video_pad|>", -1);
    if (text && !json_is_string(text))
        return wrong(w, "a string", "messages[%zu].content[%zu].text", i, k);
    return content(w, text);
}

static int parts(writer *w, const json_t *c, bool pictures, size_t i) {
    if (json_is_string(c)) return content(w, c);
    if (!json_is_array(c))
        return wrong(w, "a string or a list of parts", "messages[%zu].content", i);
    for (size_t k = 0; k < json_array_size(c); k++)
        if (part(w, json_array_get(c, k), pictures, i, k) < 0) return -1;
    return 0;
}

/* ---- messages ------------------------------------------------------------------------------- */

/* Call k of message i: {"function": {"name", "arguments"}} or the inner object alone. */
static int tool_call(writer *w, const json_t *call, size_t i, size_t k) {
    const json_t *inner = json_object_get(call, "function");
    if (json_object_size(inner)) call = inner;
    const json_t *name = json_object_get(call, "name"), *args = json_object_get(call, "arguments");
    if (!json_is_string(name))
        return wrong(w, "a string", "messages[%zu].tool_calls[%zu].function.name", i, k);
    if (!args)
        return wrong(w, "an object or a string",
                     "messages[%zu].tool_calls[%zu].function.arguments", i, k);
    if (structure(w, "<tool_call>\n{\"name\": \"") < 0 || content(w, name) < 0 ||
        structure(w, "\", \"arguments\": ") < 0 ||
        (json_is_string(args) ? content(w, args) : json_content(w, args)) < 0)
        return -1;
    return structure(w, "}\n</tool_call>");
}

static int assistant(writer *w, const json_t *m, size_t i) {
    const json_t *c = json_object_get(m, "content"), *calls = json_object_get(m, "tool_calls");
    bool absent = !c || json_is_null(c); /* as OpenAI's clients send it beside tool calls */
    bool filled = json_string_length(c) || json_array_size(c);
    if (calls && !json_is_array(calls) && !json_is_null(calls))
        return wrong(w, "a list", "messages[%zu].tool_calls", i);
    if (structure(w, "<|im_start|>assistant\n") < 0) return -1;
    if (!absent && parts(w, c, false, i) < 0) return -1;
    for (size_t k = 0; k < json_array_size(calls); k++) {
        if ((filled || k) && structure(w, "\n") < 0) return -1;
        if (tool_call(w, json_array_get(calls, k), i, k) < 0) return -1;
    }
    return structure(w, "<|im_end|>\n");
}

static bool role_is(const json_t *messages, size_t i, const char *role) {
    return is(json_object_get(json_array_get(messages, i), "role"), role);
}

static int message(writer *w, const json_t *messages, size_t i) {
    const json_t *m = json_array_get(messages, i), *c = json_object_get(m, "content");
    if (!json_is_object(m)) return wrong(w, "an object", "messages[%zu]", i);
    if (!json_is_string(json_object_get(m, "role")))
        return wrong(w, "a string", "messages[%zu].role", i);
    if (role_is(messages, i, "assistant")) return assistant(w, m, i);
    if (role_is(messages, i, "user"))
        return structure(w, "<|im_start|>user\n") < 0 || parts(w, c, true, i) < 0
                   ? -1 : structure(w, "<|im_end|>\n");
    if (!role_is(messages, i, "tool")) return 0;
    bool first = i == 0 || !role_is(messages, i - 1, "tool");
    bool last = !role_is(messages, i + 1, "tool");
    if ((first && structure(w, "<|im_start|>user") < 0) ||
        structure(w, "\n<tool_response>\n") < 0 || parts(w, c, true, i) < 0 ||
        structure(w, "\n</tool_response>") < 0)
        return -1;
    return last ? structure(w, "<|im_end|>\n") : 0;
}

/* The opening system turn: the system message, the tools, both or nothing. */
static int opening(writer *w, const json_t *messages, const json_t *tools) {
    const json_t *c = json_object_get(json_array_get(messages, 0), "content");
    bool system = role_is(messages, 0, "system"), any = json_array_size(tools) > 0;
    if (!system && !any) return 0;
    if (structure(w, "<|im_start|>system\n") < 0) return -1;
    if (system && parts(w, c, false, 0) < 0) return -1;
    if (any) {
        if (system && structure(w, "\n\n") < 0) return -1;
        if (structure(w, "# Tools\n\nYou may call one or more functions to assist with the user "
                         "query.\n\nYou are provided with function signatures within "
                         "<tools></tools> XML tags:\n<tools>") < 0)
            return -1;
        for (size_t i = 0; i < json_array_size(tools); i++) {
            const json_t *tool = json_array_get(tools, i);
            if (!json_is_object(tool)) return wrong(w, "an object", "tools[%zu]", i);
            if (structure(w, "\n") < 0 || json_content(w, tool) < 0) return -1;
        }
        if (structure(w, "\n</tools>\n\nFor each function call, return a json object with function "
                         "name and arguments within <tool_call></tool_call> XML tags:\n"
                         "<tool_call>\n{\"name\": <function-name>, \"arguments\": "
                         "<args-json-object>}\n</tool_call>") < 0)
            return -1;
    }
    return structure(w, "<|im_end|>\n");
}

int vl_template_render(vl_segments *out, const json_t *messages, const json_t *tools,
                       unsigned flags, vl_err *err) {
    *out = (vl_segments){0};
    writer w = {out, flags & VL_ADD_VISION_ID, err};
    int rc = 0;
    if (!json_array_size(messages)) rc = wrong(&w, "a list of at least one message", "messages");
    else if (tools && !json_is_array(tools)) rc = wrong(&w, "a list", "tools");
    if (rc == 0) rc = opening(&w, messages, tools);
    for (size_t i = 0; rc == 0 && i < json_array_size(messages); i++) rc = message(&w, messages, i);
    if (rc == 0 && !(flags & VL_NO_GENERATION_PROMPT))
        rc = structure(&w, "<|im_start|>assistant\n");
    if (rc < 0) vl_segments_clear(out);
    return rc;
}

/* ---- ids ------------------------------------------------------------------------------------ */

int vl_segments_encode(const vl_segments *s, const vl_tokenizer *t, vl_ids *out, vl_err *err) {
    static const char *const NEEDED[] = {"<|im_start|>", "<|im_end|>", "<|vision_start|>",
                                         "<|vision_end|>", "<|image_pad|>"};
    for (size_t i = 0; i < sizeof NEEDED / sizeof *NEEDED; i++)
        if (!vl_tokenizer_is_special(t, vl_tokenizer_id(t, NEEDED[i])))
            return vl_fail(err, VL_E_MODEL, "the tokenizer has no special token %s: is this a "
                           "Qwen3-VL checkpoint?", NEEDED[i]);
    vl_part *parts = vl_calloc(s->n, sizeof *parts);
    if (!parts) return vl_fail(err, VL_E_NOMEM, "no memory for %zu segments", s->n);
    for (size_t i = 0; i < s->n; i++)
        parts[i] = (vl_part){s->v[i].text, s->v[i].len, s->v[i].special};
    int rc = vl_tokenizer_encode_parts(t, parts, s->n, out, err);
    free(parts);
    return rc;
}
