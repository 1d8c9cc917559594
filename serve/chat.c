/* chat.c: see chat.h. Reading a request happens in this order, so that the cheapest refusal comes
 * first and no compute is spent on a request that is wrong: scalars, messages, output control,
 * pictures by URL, result cache, pictures, prompt, context.
 *
 * Easy to get wrong: pictures are numbered in the order of their parts over all messages, and the
 * cleaned messages must keep that order; the picture's bytes, not its URL, go into the cache key.
 */
#include "serve/chat.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "serve/cache.h"
#include "serve/fetch.h"

typedef struct source {
    blob data;
    picture_limits limits;
    const json_t *url;                /* to be fetched, or NULL */
    bool ground;                      /* the preset for boxes was asked for */
    char param[80];
} source;

/* ---- scalars ------------------------------------------------------------------------------ */

static void set_defaults(chat *c) {
    vl_sampling d = vl_sampling_of_model(c->srv->model, c->srv->config.default_tokens);
    c->f = (chat_fields){.max_tokens = -1, .max_completion_tokens = -1, .top_k = d.top_k, .n = 1,
                         .top_logprobs = -1, .logprobs_n = -1, .temperature = d.temperature,
                         .top_p = d.top_p, .min_p = d.min_p,
                         .repetition_penalty = d.repetition_penalty,
                         .presence_penalty = d.presence_penalty,
                         .frequency_penalty = d.frequency_penalty,
                         .max_time = c->srv->config.max_time_s, .detect_repetition = true,
                         .mirostat_tau = d.mirostat_tau, .mirostat_eta = d.mirostat_eta, .typical_p = 1, .dry_base = 1.75, .dry_allowed_length = 2, .dry_range = -1,
                         .skip_special_tokens = true, .add_generation_prompt = true, .cache = true};
}

static int read_stop(chat *c, api_error *e) {
    json_t *v = json_object_get(c->body, "stop"), *one;
    size_t i;
    if (!v || json_is_null(v)) return 0;
    if (!json_is_string(v) && !json_is_array(v))
        return api_fail(e, 400, "invalid_type", "stop",
                        "stop must be a string or an array of strings");
    size_t n = json_is_string(v) ? 1 : json_array_size(v);
    if (n > MAX_STOPS)
        return api_fail(e, 400, "invalid_value", "stop", "at most %d stop strings", MAX_STOPS);
    for (i = 0; i < n; i++) {
        one = json_is_string(v) ? v : json_array_get(v, i);
        size_t len = json_string_length(one);
        if (!json_is_string(one) || !len || len > 256 || strlen(json_string_value(one)) != len)
            return api_fail(e, 400, "invalid_value", "stop",
                            "stop strings must have 1 to 256 bytes and no NUL");
        c->stops[c->n_stops++] = json_string_value(one);
    }
    return 0;
}

static int read_bias(chat *c, api_error *e) {
    json_t *o = json_object_get(c->body, "logit_bias"), *v;
    const char *key;
    if (!o || json_is_null(o)) return 0;
    if (!json_is_object(o))
        return api_fail(e, 400, "invalid_type", "logit_bias", "logit_bias must be an object");
    json_object_foreach(o, key, v) {
        char *end;
        long id = strtol(key, &end, 10);
        double x = json_number_value(v);
        if (!*key || *end || id < 0 || id >= c->srv->info->vocab)
            return api_fail(e, 400, "invalid_value", "logit_bias",
                            "keys must be token ids below %d", c->srv->info->vocab);
        if (!json_is_number(v) || !(x >= -100 && x <= 100) || c->n_bias == MAX_BIAS)
            return api_fail(e, 400, "invalid_value", "logit_bias",
                            "values must be numbers from -100 to 100, at most %d of them",
                            MAX_BIAS);
        c->bias[c->n_bias++] = (vl_logit_bias){(int32_t)id, (float)x};
    }
    return 0;
}

/* Of every breaker the last token, as DRY's authors take it. */
static int read_breakers(chat *c, api_error *e) {
    static const char name[] = "dry_sequence_breakers";
    json_t *given = json_object_get(c->body, name), *v;
    size_t i;
    if (given && !json_is_null(given) &&
        (!json_is_array(given) || json_array_size(given) > MAX_BREAKERS))
        return api_fail(e, 400, "invalid_type", name, "%s must be an array of at most %d strings",
                        name, MAX_BREAKERS);
    if (c->f.dry_multiplier <= 0) return 0;
    bool own = json_is_array(given);
    json_t *list = own ? json_incref(given) : json_pack("[ssss]", "\n", ":", "\"", "*");
    int rc = 0;
    json_array_foreach(list, i, v) {
        int32_t *ids = NULL;
        size_t n = 0;
        vl_err err = {0};
        if (json_string_length(v) &&
            vl_tokenize(c->srv->model, json_string_value(v), json_string_length(v), false, &ids, &n,
                        &err)) n = 0;
        if (n) c->breakers[c->n_breakers++] = ids[n - 1];
        else rc = api_fail(e, 400, "invalid_value", name, "%s[%zu] is no text", name, i);
        free(ids);
        if (rc) break;
    }
    json_decref(list);
    return rc;
}

static int read_stream_options(chat *c, api_error *e) {
    json_t *o = json_object_get(c->body, "stream_options"), *v;
    const char *key;
    if (!o || json_is_null(o)) return 0;
    if (!json_is_object(o))
        return api_fail(e, 400, "invalid_type", "stream_options",
                        "stream_options must be an object");
    json_object_foreach(o, key, v) {
        bool *at = !strcmp(key, "include_usage") ? &c->include_usage
                 : !strcmp(key, "include_progress") ? &c->include_progress : NULL;
        if (!at) warn_add(c->warnings, "unknown field 'stream_options.%.100s' was ignored", key);
        else if (!json_is_boolean(v))
            return api_fail(e, 400, "invalid_type", "stream_options", "%s must be a boolean", key);
        else *at = json_is_true(v);
    }
    return 0;
}

static int check_min_tokens(const chat *c, int64_t most, api_error *e) {
    if (c->f.min_tokens <= most) return 0;
    return api_fail(e, 400, "invalid_value", "min_tokens", "min_tokens is above the most tokens to "
                    "generate, %lld (max_tokens, its default, or what the context leaves)", (long long)most);
}

/* What the Responses API adds to an answer; here it is one thing, which a chat calls `logprobs`. */
static int read_include(chat *c, api_error *e) {
    static const char known[] = "message.output_text.logprobs";
    const json_t *list = json_object_get(c->body, "include");
    size_t i;
    json_t *v;
    if (c->route != FOR_RESPONSES || !list || json_is_null(list)) return 0;
    if (!json_is_array(list)) return api_fail(e, 400, "invalid_type", "include", "include must be an array");
    json_array_foreach((json_t *)(uintptr_t)list, i, v) {
        if (!json_is_string(v) || strcmp(json_string_value(v), known))
            return api_fail(e, 400, "invalid_value", "include", "only %s can be included", known);
        c->f.logprobs = true;
    }
    return 0;
}

static int read_logprobs(chat *c, api_error *e) {
    chat_fields *f = &c->f;
    if (read_include(c, e)) return -1;
    if (c->route == FOR_RESPONSES && !f->logprobs && f->top_logprobs == 0) f->top_logprobs = -1; /* OpenAI's default */
    if (f->top_logprobs >= 0 && !f->logprobs)
        return api_fail(e, 400, "invalid_value", "top_logprobs", "top_logprobs needs %s", c->route == FOR_RESPONSES
                        ? "include: [\"message.output_text.logprobs\"]" : "logprobs: true");
    if (f->logprobs && f->top_logprobs < 0) f->top_logprobs = 0;
    if (c->route == FOR_TEXT) f->top_logprobs = f->logprobs_n;
    return 0;
}

static int read_scalars(chat *c, api_error *e) {
    chat_fields *f = &c->f;
    if (fields_read(f, c->body, c->route, c->warnings, e) || read_stop(c, e) || read_bias(c, e) ||
        read_stream_options(c, e) || read_breakers(c, e)) return -1;
    if (f->max_completion_tokens > 0) f->max_tokens = f->max_completion_tokens;
    if (f->max_time > c->srv->config.max_time_s) {
        f->max_time = c->srv->config.max_time_s;
        warn_add(c->warnings, "max_time was lowered to the server's limit");
    }
    if (check_min_tokens(c, f->max_tokens > 0 ? f->max_tokens : c->srv->config.default_tokens, e)) return -1;
    if (f->mirostat == 1)
        return api_fail(e, 400, "invalid_value", "mirostat", "mirostat must be 2 (version 2.0) or 0 (off)");
    if (read_logprobs(c, e)) return -1;
    if (f->min_pixels && f->max_pixels && f->min_pixels > f->max_pixels)
        return api_fail(e, 400, "invalid_value", "min_pixels", "min_pixels is above max_pixels");
    picture_limits lim;
    if (f->preset && !picture_preset(c->srv, f->preset, &lim))
        return api_fail(e, 400, "invalid_value", "preset", "preset: '%.40s' is not known",
                        f->preset);
    if (f->detail && !picture_preset(c->srv, f->detail, &lim))
        return api_fail(e, 400, "invalid_value", "detail", "detail: '%.40s' is not known",
                        f->detail);
    if (f->ignore_eos && !json_object_get(c->body, "detect_repetition"))
        f->detect_repetition = false;
    if (f->model && strcmp(f->model, c->srv->model_id) != 0)
        warn_add(c->warnings, "model '%.100s' is not loaded: see the field 'model' for what answered", f->model);
    return 0;
}

/* ---- pictures in messages ----------------------------------------------------------------- */

static int set_limits(chat *c, const json_t *part, source *s, api_error *e) {
    const serve_config *cfg = &c->srv->config;
    json_t *url = json_object_get(part, "image_url");
    const json_t *from[3] = {part, json_is_object(url) ? url : NULL, c->body};
    picture_limits lim = {cfg->min_pixels, cfg->max_pixels, 0};
    const char *name = NULL;
    for (int i = 2; i >= 0; i--) {    /* the most specific comes last and wins */
        const char *keys[] = {"preset", "detail"};
        for (int k = 0; from[i] && k < 2; k++) {
            if (!(name = json_string_value(json_object_get(from[i], keys[k])))) continue;
            if (!picture_preset(c->srv, name, &lim))
                return api_fail(e, 400, "invalid_value", s->param, "%s: '%.40s' is not known",
                                keys[k], name);
            s->ground = !strcmp(name, "ground");
        }
        if (from[i] && (field_int(from[i], "min_pixels", 1, INT64_C(1) << 40, &lim.min_pixels, e) ||
                        field_int(from[i], "max_pixels", 1, INT64_C(1) << 40, &lim.max_pixels, e)))
            return -1;
    }
    if (lim.min_pixels && lim.max_pixels && lim.min_pixels > lim.max_pixels)
        lim.min_pixels = lim.max_pixels;
    for (int i = 1; i >= 0; i--)
        if (from[i] && field_int(from[i], "frame", 0, MAX_FRAME, &lim.frame, e)) return -1;
    s->limits = lim;
    return 0;
}

/* The URL, file id or attachment name of an image part, in any of the accepted spellings. */
static const json_t *part_reference(const json_t *part) {
    static const char *const keys[] = {"image_url", "image", "file_id", "url"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const json_t *v = json_object_get(part, keys[i]);
        if (json_is_object(v)) {
            const json_t *u = json_object_get(v, "url");
            v = u ? u : json_object_get(v, "file_id");
        }
        if (json_is_string(v)) return v;
    }
    return NULL;
}

static int resolve(chat *c, const json_t *ref, source *s, api_error *e) {
    const char *text = json_string_value(ref);
    size_t len = json_string_length(ref);
    if (!strncmp(text, "file-", 5)) {
        if (files_get(c->srv->files, c->by->tenant, text, &s->data, e)) {
            snprintf(e->param, sizeof e->param, "%s", s->param);
            return -1;
        }
        return 0;
    }
    if (!strncmp(text, "attachment:", 11)) {
        for (attachment *a = c->attachments; a; a = a->next) {
            if (strcmp(a->name, text + 11) != 0) continue;
            a->used = true;
            if (!(s->data.data = malloc(a->data.len + 1)))
                return api_fail(e, 500, "out_of_memory", s->param, "out of memory");
            memcpy(s->data.data, a->data.data, s->data.len = a->data.len);
            return 0;
        }
        return api_fail(e, 400, "attachment_missing", s->param, "no uploaded part is named '%.60s'",
                        text + 11);
    }
    if (fetch_wanted(c->srv, text, len)) {
        s->url = ref;                 /* later, when the rest of the request has been checked */
        return 0;
    }
    return data_url_decode(text, len, (size_t)c->srv->config.image_bytes, &s->data, e, s->param);
}

/* All pictures by URL together may have as many bytes as a body that carried them. */
static int fetch_urls(const chat *c, source *sources, api_error *e) {
    fetching f = {.srv = c->srv, .by = c->by, .max_time = c->f.max_time};
    size_t total = 0, most = (size_t)c->srv->config.body_bytes;
    for (int i = 0; i < c->n_pictures; i++) {
        source *s = &sources[i];
        if (s->url && fetch_picture(&f, json_string_value(s->url), json_string_length(s->url), &s->data, e,
                                    s->param)) return -1;
        if (s->url && (total += s->data.len) > most)
            return api_fail(e, 413, "images_too_large", s->param, "the images by URL have more than %zu bytes together", most);
    }
    return 0;
}

static int add_source(chat *c, const json_t *part, const char *where, source *sources,
                      api_error *e) {
    int max = c->srv->config.images < MAX_PICTURES ? c->srv->config.images : MAX_PICTURES;
    if (c->n_pictures == max)
        return api_fail(e, 400, "too_many_images", where, "at most %d images in a request", max);
    source *s = &sources[c->n_pictures++];
    snprintf(s->param, sizeof s->param, "%s", where);
    const json_t *ref = json_is_string(part) ? part : part_reference(part);
    if (!ref) return api_fail(e, 400, "invalid_value", where,
                              "an image part needs image_url (a data: URL), file_id or image");
    if (set_limits(c, json_is_object(part) ? part : NULL, s, e)) return -1;
    return resolve(c, ref, s, e);
}

static int clean_part(chat *c, const json_t *part, const char *where, json_t *out, source *sources,
                      api_error *e) {
    const char *type = json_string_value(json_object_get(part, "type"));
    if (!type) return api_fail(e, 400, "invalid_value", where, "a content part needs a type");
    if (!strcmp(type, "text") || !strcmp(type, "input_text") || !strcmp(type, "output_text")) {
        json_t *text = json_object_get(part, "text");
        if (!json_is_string(text))
            return api_fail(e, 400, "invalid_type", where, "a text part needs text, a string");
        json_array_append_new(out, json_pack("{s:s,s:O}", "type", "text", "text", text));
        return 0;
    }
    if (strcmp(type, "image_url") && strcmp(type, "image") && strcmp(type, "input_image"))
        return api_fail(e, 400, "unsupported_part", where,
                        "content parts of type '%.40s' are not supported", type);
    json_array_append_new(out, json_pack("{s:s}", "type", "image"));
    return add_source(c, part, where, sources, e);
}

/* The field that holds the conversation. */
static const char *list_name(const chat *c) {
    return c->route == FOR_CHAT ? "messages" : c->route == FOR_RESPONSES ? "input" : "prompt";
}

static int clean_message(chat *c, size_t i, const json_t *m, source *sources, api_error *e) {
    static const char *const roles[] = {"system", "user", "assistant", "tool", "developer"};
    char where[80];
    snprintf(where, sizeof where, "%s[%zu]", list_name(c), i);
    if (!json_is_object(m))
        return api_fail(e, 400, "invalid_type", where, "a message must be an object");
    const char *role = json_string_value(json_object_get(m, "role"));
    json_t *content = json_object_get(m, "content"), *part,
           *copy = json_copy((json_t *)(uintptr_t)m);
    size_t k = 0;
    while (role && k < 5 && strcmp(role, roles[k])) k++;
    json_array_append_new(c->messages, copy);
    if (!role || k == 5)
        return api_fail(e, 400, "invalid_value", where,
                        "role must be system, developer, user, assistant or tool");
    if (k == 4) json_object_set_new(copy, "role", json_string("system"));
    if (json_is_string(content)) return 0;
    if (!content || json_is_null(content)) {
        if (!json_object_get(m, "tool_calls"))
            return api_fail(e, 400, "invalid_type", where, "a message needs content");
        return json_object_set_new(copy, "content", json_string(""));
    }
    if (!json_is_array(content))
        return api_fail(e, 400, "invalid_type", where,
                        "content must be a string or an array of parts");
    json_t *parts = json_array();
    json_object_set_new(copy, "content", parts);
    json_array_foreach(content, k, part) {
        snprintf(where, sizeof where, "%s[%zu].content[%zu]", list_name(c), i, k);
        if (!json_is_object(part))
            return api_fail(e, 400, "invalid_type", where, "a content part must be an object");
        if (clean_part(c, part, where, parts, sources, e)) return -1;
    }
    return 0;
}

/* ---- items of the Responses API ----------------------------------------------------------- */

/* What the items read so far leave behind: the calls of the turn that is being read (NULL: the next call
 * begins one) and every call's id. */
typedef struct items { json_t *calls, *ids; } items;

static int string_of(const json_t *item, const char *name, const char *where, const char **out, api_error *e) {
    *out = json_string_value(json_object_get(item, name));
    return *out ? 0 : api_fail(e, 400, "invalid_type", where, "%s must be a string", name);
}

/* {"type": "function_call"}: a call that the assistant made; those of one turn are one message. */
static int read_call(chat *c, items *all, const json_t *item, const char *where, api_error *e) {
    const char *id, *name, *arguments;
    if (string_of(item, "call_id", where, &id, e) || string_of(item, "name", where, &name, e) ||
        string_of(item, "arguments", where, &arguments, e)) return -1;
    if (!all->calls) {
        json_t *last = json_array_get(c->messages, json_array_size(c->messages) - 1);
        const char *role = json_string_value(json_object_get(last, "role"));
        if (!role || strcmp(role, "assistant") || json_object_get(last, "tool_calls"))
            json_array_append_new(c->messages,
                                  last = json_pack("{s:s,s:s}", "role", "assistant", "content", ""));
        json_object_set_new(last, "tool_calls", all->calls = json_array());
    }
    json_array_append_new(all->calls, json_pack("{s:O,s:s,s:{s:O,s:O}}", "id", json_object_get(item, "call_id"),
        "type", "function", "function", "name", json_object_get(item, "name"), "arguments",
        json_object_get(item, "arguments")));
    json_object_set_new(all->ids, id, json_true());
    return 0;
}

/* {"type": "function_call_output"}: what came of it. */
static int read_output(chat *c, items *all, size_t i, const json_t *item, const char *where, source *sources,
                       api_error *e) {
    const char *id;
    json_t *output = json_object_get(item, "output");
    if (string_of(item, "call_id", where, &id, e)) return -1;
    if (!json_object_get(all->ids, id))
        return api_fail(e, 400, "invalid_value", where, "no function_call before it has the call_id '%.60s'", id);
    if (!json_is_string(output) && !json_is_array(output))
        return api_fail(e, 400, "invalid_type", where, "output must be a string or an array of parts");
    json_t *m = json_pack("{s:s,s:O,s:s}", "role", "tool", "content", output, "tool_call_id", id);
    int rc = clean_message(c, i, m, sources, e);
    json_decref(m);
    return rc;
}

static int read_item(chat *c, items *all, size_t i, const json_t *item, source *sources, api_error *e) {
    char where[32];
    json_t *type = json_object_get(item, "type");
    const char *word = type ? json_string_value(type) : "message";
    snprintf(where, sizeof where, "input[%zu]", i);
    if (word && !strcmp(word, "function_call")) return read_call(c, all, item, where, e);
    all->calls = NULL;
    if (word && !strcmp(word, "function_call_output")) return read_output(c, all, i, item, where, sources, e);
    if (word && !strcmp(word, "message")) return clean_message(c, i, item, sources, e);
    return api_fail(e, 400, "unsupported_item", where, "items of type '%.40s' are not supported, only message, "
                    "function_call and function_call_output", word ? word : json_kind(type));
}

static int read_items(chat *c, const json_t *list, source *sources, api_error *e) {
    items all = {NULL, json_object()};
    json_t *item;
    size_t i;
    int rc = 0;
    json_array_foreach((json_t *)(uintptr_t)list, i, item)
        if ((rc = read_item(c, &all, i, item, sources, e))) break;
    json_decref(all.ids);
    return rc;
}

static int read_messages(chat *c, source *sources, api_error *e) {
    const char *name = list_name(c);
    json_t *list = json_object_get(c->body, name), *m;
    size_t i;
    bool responses = c->route == FOR_RESPONSES;
    if (c->f.instructions)
        json_array_append_new(c->messages, json_pack("{s:s,s:s}", "role", "system", "content",
                                                     c->f.instructions));
    if (responses && json_string_length(list))
        return json_array_append_new(c->messages, json_pack("{s:s,s:O}", "role", "user", "content",
                                                            list));
    if (!json_is_array(list) || !json_array_size(list))
        return api_fail(e, 400, "invalid_type", name, "%s must be a non-empty array%s", name,
                        responses ? " or string" : "");
    if (responses) return read_items(c, list, sources, e);
    json_array_foreach(list, i, m)
        if (clean_message(c, i, m, sources, e)) return -1;
    return 0;
}

static int read_prompt_images(chat *c, source *sources, api_error *e) {
    json_t *list = json_object_get(c->body, "images"), *v;
    size_t i;
    if (json_array_size(json_object_get(c->body, "prompt")) == 1) /* many clients send lists, of one as a rule */
        json_object_set(c->body, "prompt", json_array_get(json_object_get(c->body, "prompt"), 0));
    if (!json_is_string(json_object_get(c->body, "prompt")))
        return api_fail(e, 400, "invalid_type", "prompt", "prompt must be a string, or an array of one");
    if (!list || json_is_null(list)) return 0;
    if (!json_is_array(list) || !c->f.raw)
        return api_fail(e, 400, "invalid_value", "images",
                        "images must be an array, with raw: true");
    json_array_foreach(list, i, v) {
        char where[32];
        snprintf(where, sizeof where, "images[%zu]", i);
        if (add_source(c, v, where, sources, e)) return -1;
    }
    return 0;
}

/* ---- result cache key --------------------------------------------------------------------- */

static void hash_part(vl_sha256 *h, const void *p, size_t n) {
    uint64_t len = n;
    vl_sha256_add(h, &len, sizeof len);
    vl_sha256_add(h, p, n);
}

static void hash_json(vl_sha256 *h, const json_t *v) {
    char *text = json_dumps(v, JSON_SORT_KEYS | JSON_COMPACT | JSON_ENCODE_ANY);
    hash_part(h, text ? text : "", text ? strlen(text) : 0);
    free(text);
}

/* All that the answer depends on: model, numeric mode, tenant, fields, pictures by content. */
static void make_key(chat *c, const source *sources) {
    static const char *const transport[] = {"stream", "stream_options", "cache", "user", "messages",
                                            "images", "input"};
    json_t *rest = json_copy(c->body);
    vl_sha256 h;
    for (size_t i = 0; i < sizeof transport / sizeof *transport; i++)
        json_object_del(rest, transport[i]);
    vl_sha256_init(&h);
    hash_part(&h, c->srv->identity, sizeof c->srv->identity);
    hash_part(&h, &c->route, sizeof c->route);
    const char *key = c->srv->config.n_keys ? c->srv->config.keys[c->by->tenant] : "";
    hash_part(&h, key, strlen(key));
    hash_json(&h, rest);
    hash_json(&h, c->messages);
    hash_json(&h, c->warnings);       /* of uploads that nothing refers to */
    for (int i = 0; i < c->n_pictures; i++) {
        hash_part(&h, &sources[i].limits, sizeof sources[i].limits);
        hash_part(&h, &sources[i].ground, sizeof sources[i].ground); /* a warning in x_image */
        hash_part(&h, sources[i].data.data, sources[i].data.len);
    }
    vl_sha256_end(&h, c->key);
    json_decref(rest);
}

/* ---- prompt ------------------------------------------------------------------------------- */

/* Decoding takes seconds: is the answer still wanted? */
static int still_wanted(const chat *c, const char *param, api_error *e) {
    if (c->by->gone && c->by->gone(c->by->user)) return api_fail(e, 499, "client_closed", param, "the client went away");
    if (c->f.max_time <= 0 || vl_now() < c->by->arrived + c->f.max_time) return 0;
    return api_fail(e, 408, "deadline_exceeded", "max_time", "the time of the request was over before its images were decoded");
}

static int load_pictures(chat *c, source *sources, api_error *e) {
    int n = c->n_pictures;
    c->n_pictures = 0;
    for (int i = 0; i < n; i++) {
        json_t *report;
        source *s = &sources[i];
        if (still_wanted(c, s->param, e) ||
            picture_load(c->srv, s->data.data, s->data.len, s->limits, s->param, &c->pictures[i],
                         &report, e)) return -1;
        json_object_set_new(report, "index", json_integer(i));
        if (s->ground) picture_warn_coarse(report);
        json_array_append_new(c->reports, report);
        c->n_pictures++;
    }
    return 0;
}

static int make_prompt(chat *c, api_error *e) {
    vl_err err = {0};
    int rc;
    if (c->route != FOR_TEXT) {
        char *messages = json_dumps(c->messages, JSON_COMPACT);
        char *tools = c->tools ? json_dumps(c->tools, JSON_COMPACT) : NULL;
        unsigned flags = (c->f.add_generation_prompt ? 0 : VL_NO_GENERATION_PROMPT) |
                         (c->f.add_vision_id ? VL_ADD_VISION_ID : 0);
        rc = vl_prompt_chat(&c->prompt, c->srv->model, messages, tools, flags, c->pictures,
                            c->n_pictures, &err);
        free(messages);
        free(tools);
    } else {
        const json_t *p = json_object_get(c->body, "prompt");
        rc = vl_prompt_text(&c->prompt, c->srv->model, json_string_value(p), json_string_length(p),
                            c->f.raw, c->pictures, c->n_pictures, &err);
    }
    if (rc) return api_fail_engine(e, &err, list_name(c));
    size_t n;
    vl_prompt_ids(c->prompt, &n);
    int64_t room = c->srv->info->context;
    if (room > c->srv->config.kv_tokens) room = c->srv->config.kv_tokens;
    if (!n) return api_fail(e, 400, "invalid_value", "prompt", "the prompt has no tokens");
    if ((int64_t)n >= room)
        return api_fail(e, 400, "context_length_exceeded",
                        list_name(c),
                        "the prompt has %zu tokens (%d of them for images), but only %lld fit", n,
                        vl_prompt_image_tokens(c->prompt), (long long)room - 1);
    c->prompt_tokens = (int)n;
    bool asked = c->f.max_tokens > 0;
    if (!asked) c->f.max_tokens = c->srv->config.default_tokens;
    if (c->f.max_tokens > room - (int64_t)n) {
        c->f.max_tokens = room - (int64_t)n;
        if (asked) warn_add(c->warnings, "max_tokens was lowered to what the context leaves");
    }
    return check_min_tokens(c, c->f.max_tokens, e);
}

/* ---- the whole ---------------------------------------------------------------------------- */

static void free_sources(source *s, int n) {
    for (int i = 0; i < n; i++) free(s[i].data.data);
    free(s);
}

static int build(chat *c, source *sources, constraint **first, api_error *e) {
    if (read_scalars(c, e)) return -1;
    int rc =
        c->route == FOR_TEXT ? read_prompt_images(c, sources, e) : read_messages(c, sources, e);
    for (const attachment *a = c->attachments; a; a = a->next)
        if (!a->used) warn_add(c->warnings, "the uploaded part '%.60s' was not used: nothing refers to attachment:%.60s", a->name, a->name);
    if (rc || chat_constraint(c, first, e) || fetch_urls(c, sources, e)) return -1;
    c->n = c->left = (int)c->f.n;
    c->cacheable = c->f.cache && (c->f.temperature == 0 || c->f.has_seed) &&
                   (c->srv->config.result_cache_bytes > 0 || c->srv->config.result_cache_dir);
    make_key(c, sources);
    size_t len;
    char *record = c->cacheable ? cache_get(c->srv->results, c->key, &len) : NULL;
    c->from_cache = record && chat_replay(c, record, len);
    free(record);
    if (c->from_cache) {
        c->n_pictures = 0;
        return 0;
    }
    return load_pictures(c, sources, e) || make_prompt(c, e) ? -1 : 0;
}

int chat_open(chat *c, server *srv, int route, json_t *body, attachment *attachments,
              const caller *by, priority prio, api_error *e) {
    *c = (chat){.srv = srv, .route = route, .body = body, .attachments = attachments, .by = by,
                .priority = prio};
    new_id(c->id, sizeof c->id,
           route == FOR_CHAT ? "chatcmpl-" : route == FOR_TEXT ? "cmpl-" : "resp_");
    c->created = (int64_t)time(NULL);
    c->messages = json_array();
    c->warnings = json_array();
    c->reports = json_array();
    mailbox_init(&c->box, false);
    source *sources = vl_calloc(MAX_PICTURES, sizeof *sources);
    if (!sources) return api_fail(e, 500, "out_of_memory", NULL, "out of memory");
    set_defaults(c);
    int rc = build(c, sources, &c->choices[0].constraint, e);
    free_sources(sources, MAX_PICTURES);
    for (int i = 1; i < c->n && c->choices[0].constraint && rc == 0; i++)
        rc = chat_constraint(c, &c->choices[i].constraint, e);
    return rc;
}
