/* fields.h: the scalar fields of a generation request, as one table that drives parsing, error
 * messages and /openapi.json. */
#ifndef SERVE_FIELDS_H
#define SERVE_FIELDS_H

#include "serve/serve.h"

typedef struct chat_fields {
    int64_t max_tokens, max_completion_tokens, top_k, seed, n, top_logprobs, logprobs_n, min_pixels,
        max_pixels, min_tokens, dry_allowed_length, dry_range, mirostat;
    double temperature, top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty,
        max_time, typical_p, dry_multiplier, dry_base, mirostat_tau, mirostat_eta;
    bool stream, logprobs, ignore_eos, detect_repetition, skip_special_tokens, echo, raw,
        add_generation_prompt, add_vision_id, cache;
    bool has_seed;
    const char *model, *detail, *preset, *guided_regex, *instructions;
} chat_fields;

typedef enum field_kind { F_INT, F_NUM, F_BOOL, F_STR, F_OTHER, F_IGNORED, F_REFUSED } field_kind;
enum { FOR_CHAT = 1, FOR_TEXT = 2, FOR_BOTH = 3, FOR_RESPONSES = 4, FOR_ALL = 7 };
typedef struct field {
    const char *name;
    field_kind kind;
    int routes;                       /* FOR_CHAT | FOR_TEXT | FOR_RESPONSES                */
    double lo, hi;
    size_t offset;
    const char *doc;
} field;
extern const field chat_field_table[];                  /* ends with name NULL */

/* Reads every scalar of `body` into *f (set to defaults beforehand); unknown and ignored fields
 * become strings in `warnings`. */
int fields_read(chat_fields *f, const json_t *body, int route, json_t *warnings, api_error *e);
/* JSON schema properties for a route; `others` has those of F_OTHER fields by name. */
json_t *fields_schema(int route, const json_t *others);

/* One object field with a type and range; absent or null leaves *out alone. */
int field_int(const json_t *o, const char *name, int64_t lo, int64_t hi, int64_t *out,
              api_error *e);
int field_bool(const json_t *o, const char *name, bool *out, api_error *e);
const char *json_kind(const json_t *v);                 /* "a string", "an object", ...     */

#endif
