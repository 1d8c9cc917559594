/* fields.c: see fields.h. */
#include "serve/fields.h"

#include <math.h>
#include <stdio.h>

#define AT(member) offsetof(chat_fields, member)
#define BIG 9007199254740992.0

const field chat_field_table[] = {
    {"model", F_STR, FOR_ALL, 0, 0, AT(model), "accepted for compatibility; one model is served"},
    {"max_tokens", F_INT, FOR_BOTH, 1, 1e6, AT(max_tokens), "most tokens to generate"},
    {"max_completion_tokens", F_INT, FOR_CHAT, 1, 1e6, AT(max_completion_tokens),
     "the newer name of max_tokens; wins if both are given"},
    {"temperature", F_NUM, FOR_ALL, 0, 2, AT(temperature), "0: greedy and deterministic"},
    {"top_p", F_NUM, FOR_ALL, 1e-6, 1, AT(top_p), "nucleus"},
    {"top_k", F_INT, FOR_ALL, -1, 1e6, AT(top_k), "0 or -1: off"},
    {"min_p", F_NUM, FOR_ALL, 0, 1, AT(min_p), "0: off"},
    {"repetition_penalty", F_NUM, FOR_ALL, 0.01, 10, AT(repetition_penalty), "1: off"},
    {"presence_penalty", F_NUM, FOR_ALL, -2, 2, AT(presence_penalty), "0: off"},
    {"frequency_penalty", F_NUM, FOR_ALL, -2, 2, AT(frequency_penalty), "0: off"},
    {"typical_p", F_NUM, FOR_ALL, 1e-6, 1, AT(typical_p), "locally typical sampling; 1: off"},
    {"min_tokens", F_INT, FOR_ALL, 0, 1e6, AT(min_tokens),
     "no end token before so many; a stop string still ends the answer"},
    {"dry_multiplier", F_NUM, FOR_ALL, 0, 100, AT(dry_multiplier),
     "DRY: a token that goes on a repetition of L tokens loses multiplier * base^(L - allowed); 0: off"},
    {"dry_base", F_NUM, FOR_ALL, 1, 8, AT(dry_base), "default 1.75"},
    {"dry_allowed_length", F_INT, FOR_ALL, 1, 1000, AT(dry_allowed_length), "default 2"},
    {"dry_penalty_last_n", F_INT, FOR_ALL, -1, 1e6, AT(dry_range),
     "DRY looks at so many tokens; -1: all, 0: none"},
    {"dry_sequence_breakers", F_OTHER, FOR_ALL, 0, 0, 0,
     "strings that no repetition reaches over; default newline, colon, quote, asterisk"},
    {"mirostat", F_INT, FOR_ALL, 0, 2, AT(mirostat),
     "2: Mirostat 2.0 in the place of top_k, top_p, min_p and typical_p; 0: off (1 is refused)"},
    {"mirostat_tau", F_NUM, FOR_ALL, 0, 100, AT(mirostat_tau), "bits of surprise a token; default 5"},
    {"mirostat_eta", F_NUM, FOR_ALL, 0, 1, AT(mirostat_eta), "learning rate; default 0.1"},
    {"seed", F_INT, FOR_ALL, -BIG, BIG, AT(seed), "same seed, same answer"},
    {"n", F_INT, FOR_BOTH, 1, MAX_CHOICES, AT(n), "answers to one prompt"},
    {"stream", F_BOOL, FOR_ALL, 0, 0, AT(stream), "server-sent events"},
    {"logprobs", F_BOOL, FOR_CHAT, 0, 0, AT(logprobs), "log probability of every token"},
    {"logprobs", F_INT, FOR_TEXT, 0, MAX_TOP_LOGPROBS, AT(logprobs_n), "alternatives per token"},
    {"top_logprobs", F_INT, FOR_CHAT, 0, MAX_TOP_LOGPROBS, AT(top_logprobs),
     "alternatives per token; needs logprobs"},
    {"max_time", F_NUM, FOR_ALL, 0.001, 86400, AT(max_time), "seconds after which to stop"},
    {"ignore_eos", F_BOOL, FOR_ALL, 0, 0, AT(ignore_eos), "run to max_tokens"},
    {"detect_repetition", F_BOOL, FOR_ALL, 0, 0, AT(detect_repetition),
     "stop loops with finish_reason \"repetition\"; on unless ignore_eos"},
    {"skip_special_tokens", F_BOOL, FOR_ALL, 0, 0, AT(skip_special_tokens), "default true"},
    {"min_pixels", F_INT, FOR_ALL, 1, BIG, AT(min_pixels),
     "of every picture; a part may override"},
    {"max_pixels", F_INT, FOR_ALL, 1, BIG, AT(max_pixels),
     "of every picture; a part may override"},
    {"detail", F_STR, FOR_ALL, 0, 0, AT(detail), "low, high or auto, for every picture"},
    {"preset", F_STR, FOR_ALL, 0, 0, AT(preset), "fast, balanced, ocr or ground"},
    {"cache", F_BOOL, FOR_ALL, 0, 0, AT(cache), "false: do not use the result cache"},
    {"guided_regex", F_STR, FOR_ALL, 0, 0, AT(guided_regex), "the answer matches this expression"},
    {"add_generation_prompt", F_BOOL, FOR_CHAT, 0, 0, AT(add_generation_prompt), "default true"},
    {"add_vision_id", F_BOOL, FOR_CHAT, 0, 0, AT(add_vision_id), "number the pictures"},
    {"echo", F_BOOL, FOR_TEXT, 0, 0, AT(echo), "repeat the prompt"},
    {"raw", F_BOOL, FOR_TEXT, 0, 0, AT(raw), "parse special tokens in the prompt"},
    {"messages", F_OTHER, FOR_CHAT, 0, 0, 0, "the conversation, OpenAI form"},
    {"prompt", F_OTHER, FOR_TEXT, 0, 0, 0, "text to continue, or an array of one"},
    {"images", F_OTHER, FOR_TEXT, 0, 0, 0,
     "with raw: data URLs or file ids, one per <|image_pad|>"},
    {"stop", F_OTHER, FOR_ALL, 0, 0, 0, "stop strings"},
    {"logit_bias", F_OTHER, FOR_ALL, 0, 0, 0, "token id -> -100..100"},
    {"tools", F_OTHER, FOR_CHAT, 0, 0, 0, "functions, OpenAI form"},
    {"tool_choice", F_OTHER, FOR_CHAT, 0, 0, 0, "none, auto, required or one function"},
    {"response_format", F_OTHER, FOR_BOTH, 0, 0, 0, "text, json_object or json_schema"},
    {"guided_choice", F_OTHER, FOR_ALL, 0, 0, 0, "the answer is one of these"},
    {"guided_json", F_OTHER, FOR_ALL, 0, 0, 0, "the answer follows this JSON schema"},
    {"stream_options", F_OTHER, FOR_ALL, 0, 0, 0, "include_usage, include_progress"},
    {"user", F_IGNORED, FOR_ALL, 0, 0, 0, 0},
    {"metadata", F_IGNORED, FOR_ALL, 0, 0, 0, 0},
    {"store", F_IGNORED, FOR_ALL, 0, 0, 0, 0},
    {"service_tier", F_IGNORED, FOR_ALL, 0, 0, 0, 0},
    {"parallel_tool_calls", F_IGNORED, FOR_ALL, 0, 0, 0, 0},
    {"input", F_OTHER, FOR_RESPONSES, 0, 0, 0, "a text, or messages with input_text and input_image, function_call, function_call_output"},
    {"instructions", F_STR, FOR_RESPONSES, 0, 0, AT(instructions), "the system message"},
    {"max_output_tokens", F_INT, FOR_RESPONSES, 1, 1e6, AT(max_tokens), "most tokens to generate"},
    {"text", F_OTHER, FOR_RESPONSES, 0, 0, 0, "format: text, json_object or json_schema"},
    {"previous_response_id", F_REFUSED, FOR_RESPONSES, 0, 0, 0,
     "nothing is stored: send the whole conversation as input"},
    {"conversation", F_REFUSED, FOR_RESPONSES, 0, 0, 0,
     "nothing is stored: send the whole conversation as input"},
    {"prompt", F_REFUSED, FOR_RESPONSES, 0, 0, 0, "there are no stored prompts: send input"},
    {"background", F_REFUSED, FOR_RESPONSES, 0, 0, 0, "use /v1/jobs"},
    {"tools", F_OTHER, FOR_RESPONSES, 0, 0, 0, "functions; there are no built-in tools"},
    {"tool_choice", F_OTHER, FOR_RESPONSES, 0, 0, 0, "none, auto, required or one function"},
    {"include", F_OTHER, FOR_RESPONSES, 0, 0, 0, "[\"message.output_text.logprobs\"]: log probability of every token"},
    {"top_logprobs", F_INT, FOR_RESPONSES, 0, MAX_TOP_LOGPROBS, AT(top_logprobs),
     "alternatives per token; above 0 it needs that include"},
    {"truncation", F_REFUSED, FOR_RESPONSES, 0, 0, 0, "a prompt is never cut; disabled is accepted"},
    {"reasoning", F_IGNORED, FOR_RESPONSES, 0, 0, 0, 0},
    {"prompt_cache_key", F_IGNORED, FOR_RESPONSES, 0, 0, 0, 0},
    {"safety_identifier", F_IGNORED, FOR_RESPONSES, 0, 0, 0, 0},
    {0},
};

const char *json_kind(const json_t *v) {
    switch (json_typeof(v)) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "an array";
    case JSON_STRING: return "a string";
    case JSON_INTEGER: return "an integer";
    case JSON_REAL: return "a number";
    case JSON_TRUE: case JSON_FALSE: return "a boolean";
    default: return "null";
    }
}

static int wrong(api_error *e, const char *name, const char *expected, const json_t *v) {
    return api_fail(e, 400, "invalid_type", name, "%s must be %s, not %s", name, expected,
                    json_kind(v));
}

static int out_of_range(api_error *e, const char *name, double lo, double hi) {
    return api_fail(e, 400, "invalid_value", name, "%s must be between %.10g and %.10g", name, lo,
                    hi);
}

int field_int(const json_t *o, const char *name, int64_t lo, int64_t hi, int64_t *out,
              api_error *e) {
    const json_t *v = json_object_get(o, name);
    if (!v || json_is_null(v)) return 0;
    if (!json_is_integer(v)) return wrong(e, name, "an integer", v);
    if (json_integer_value(v) < lo || json_integer_value(v) > hi)
        return out_of_range(e, name, (double)lo, (double)hi);
    *out = json_integer_value(v);
    return 0;
}

int field_bool(const json_t *o, const char *name, bool *out, api_error *e) {
    const json_t *v = json_object_get(o, name);
    if (!v || json_is_null(v)) return 0;
    if (!json_is_boolean(v)) return wrong(e, name, "a boolean", v);
    *out = json_is_true(v);
    return 0;
}

/* A field that is not supported may still say that it is not wanted. */
static bool asks_nothing(const json_t *v) {
    const char *word = json_string_value(v);
    return json_is_false(v) || (word && (!*word || !strcmp(word, "disabled"))) ||
           (json_is_array(v) && !json_array_size(v)) || (json_is_object(v) && !json_object_size(v));
}

static int read_one(chat_fields *f, const field *d, const json_t *v, api_error *e) {
    void *at = (char *)f + d->offset;
    double x = json_number_value(v);
    switch (d->kind) {
    case F_INT:
        if (json_is_real(v) && floor(x) == x && fabs(x) < BIG) *(int64_t *)at = (int64_t)x;
        else if (!json_is_integer(v)) return wrong(e, d->name, "an integer", v);
        else *(int64_t *)at = json_integer_value(v);
        return x < d->lo || x > d->hi ? out_of_range(e, d->name, d->lo, d->hi) : 0;
    case F_NUM:
        if (!json_is_number(v)) return wrong(e, d->name, "a number", v);
        *(double *)at = x;
        return !(x >= d->lo && x <= d->hi) ? out_of_range(e, d->name, d->lo, d->hi) : 0;
    case F_BOOL:
        if (!json_is_boolean(v)) return wrong(e, d->name, "a boolean", v);
        *(bool *)at = json_is_true(v);
        return 0;
    case F_STR:
        if (!json_is_string(v)) return wrong(e, d->name, "a string", v);
        *(const char **)at = json_string_value(v);
        return 0;
    case F_REFUSED:
        return asks_nothing(v) ? 0 : api_fail(e, 400, "unsupported_field", d->name,
                                              "%s is not supported: %s", d->name, d->doc);
    default:
        return 0;
    }
}

static const field *find(const char *name, int route) {
    for (const field *d = chat_field_table; d->name; d++)
        if ((d->routes & route) && !strcmp(d->name, name)) return d;
    return NULL;
}

int fields_read(chat_fields *f, const json_t *body, int route, json_t *warnings, api_error *e) {
    const char *name;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)body, name, v) {
        const field *d = find(name, route);
        if (!d || d->kind == F_IGNORED) {
            if (json_array_size(warnings) >= 16) continue;
            if (d) warn_add(warnings, "field '%.100s' has no effect here", name);
            else warn_add(warnings, "unknown field '%.100s' was ignored", name);
            continue;
        }
        if (json_is_null(v)) continue;
        if (read_one(f, d, v, e)) return -1;
        f->has_seed |= d->offset == AT(seed) && d->kind == F_INT && !strcmp(name, "seed");
    }
    return 0;
}

json_t *fields_schema(int route, const json_t *others) {
    json_t *props = json_object();
    for (const field *d = chat_field_table; d->name; d++) {
        if (!(d->routes & route)) continue;
        json_t *s;
        if (d->kind == F_OTHER) s = json_deep_copy(json_object_get(others, d->name));
        else if (d->kind == F_INT)
            s = json_pack("{s:[ss],s:I,s:I}", "type", "integer", "null", "minimum",
                          (json_int_t)d->lo, "maximum", (json_int_t)d->hi);
        else if (d->kind == F_NUM)
            s = json_pack("{s:[ss],s:f,s:f}", "type", "number", "null", "minimum", d->lo, "maximum",
                          d->hi);
        else if (d->kind == F_BOOL) s = json_pack("{s:[ss]}", "type", "boolean", "null");
        else if (d->kind == F_STR) s = json_pack("{s:[ss]}", "type", "string", "null");
        else if (d->kind == F_REFUSED)
            s = json_pack("{s:[ns],s:b}", "enum", "disabled", "deprecated", 1);
        else s = json_object();
        if (d->doc) json_object_set_new(s, "description", json_string(d->doc));
        json_object_set_new(props, d->name, s);
    }
    return props;
}
