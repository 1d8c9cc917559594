/* schema.c: JSON schema -> NFA fragments (see automaton.h).
 *
 * Understood: type (also a list), enum, const, properties, required, additionalProperties: false,
 * items, minItems, maxItems, minLength, maxLength, pattern, format (date, time, date-time, uuid),
 * minimum/maximum of integers, anyOf, oneOf, allOf of one, $ref to $defs. Any other keyword that
 * would restrict the answer is refused, not ignored: a schema is a promise.
 */
#include <stdio.h>
#include <stdlib.h>

#include "serve/automaton.h"
#include "serve/fields.h"

enum { MAX_LEVELS = 24, ANY_LEVELS = 5, MAX_LENGTH = 2000, MAX_SPAN = 2000 };

typedef struct builder {
    nfa *a;
    const json_t *root;
    const char *what;
    api_error *e;
    int level;
} builder;

static int value(builder *b, const json_t *s, frag *out);

static frag text(builder *b, const char *s) { return nfa_text(b->a, s, strlen(s)); }

static int refuse(builder *b, const char *why, const char *name) {
    return api_fail(b->e, 400, "unsupported_schema", b->what, "%s: %s '%.60s'", b->what, why, name);
}

static int from_regex(builder *b, const char *regex, bool in_json, frag *out) {
    return regex_build(b->a, regex, in_json, out, b->what, b->e);
}

/* ---- scalars ------------------------------------------------------------------------------ */

static frag json_char(builder *b) {
    frag f = nfa_range(b->a, 0x20, 0x21);
    f = nfa_alt(b->a, f, nfa_range(b->a, 0x23, 0x5B));
    f = nfa_alt(b->a, f, nfa_range(b->a, 0x5D, 0x10FFFF));
    frag esc;
    from_regex(b, "\\\\([\"\\\\/bfnrt]|u[0-9a-cA-CefEF][0-9a-fA-F]{3}|u[dD][0-7][0-9a-fA-F]{2})",
               false, &esc);                 /* no lone surrogates */
    return nfa_alt(b->a, f, esc);
}

static frag quoted(builder *b, frag inside) {
    return nfa_seq(b->a, nfa_seq(b->a, text(b, "\""), inside), text(b, "\""));
}

static int string_value(builder *b, const json_t *s, frag *out) {
    static const struct { const char *name, *regex;
    } formats[] = {
        {"date", "\\d{4}-\\d{2}-\\d{2}"},
        {"time", "\\d{2}:\\d{2}:\\d{2}(\\.\\d{1,6})?(Z|[+-]\\d{2}:\\d{2})?"},
        {"date-time",
         "\\d{4}-\\d{2}-\\d{2}T\\d{2}:\\d{2}:\\d{2}(\\.\\d{1,6})?(Z|[+-]\\d{2}:\\d{2})"},
        {"uuid", "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"},
    };
    const char *pattern = json_string_value(json_object_get(s, "pattern"));
    const char *format = json_string_value(json_object_get(s, "format"));
    int64_t min = 0, max = -1;
    if (field_int(s, "minLength", 0, MAX_LENGTH, &min, b->e) ||
        field_int(s, "maxLength", 0, MAX_LENGTH, &max, b->e)) return -1;
    for (size_t i = 0; format && i < sizeof formats / sizeof *formats; i++)
        if (!strcmp(format, formats[i].name)) pattern = formats[i].regex;
    if (format && !pattern) return refuse(b, "unknown format", format);
    if (max >= 0 && max < min) return refuse(b, "maxLength is below", "minLength");
    frag f;
    if (pattern) {
        if (min || max >= 0) return refuse(b, "lengths cannot be combined with", "pattern");
        if (from_regex(b, pattern, true, &f)) return -1;
    } else {
        int first = b->a->n;
        f = json_char(b);
        f = nfa_repeat(b->a, first, f, (int)min, (int)max);
    }
    *out = quoted(b, f);
    return 0;
}

static int integer_value(builder *b, const json_t *s, frag *out) {
    int64_t lo = INT64_MIN, hi = INT64_MAX, big = INT64_C(1) << 53;
    if (field_int(s, "minimum", -big, big, &lo, b->e) ||
        field_int(s, "maximum", -big, big, &hi, b->e))
        return -1;
    bool has_lo = lo != INT64_MIN, has_hi = hi != INT64_MAX;
    if (has_lo && has_hi && hi - lo >= 0 && hi - lo <= MAX_SPAN) {
        for (int64_t i = lo; i <= hi; i++) {
            char digits[24];
            snprintf(digits, sizeof digits, "%lld", (long long)i);
            *out = i == lo ? text(b, digits) : nfa_alt(b->a, *out, text(b, digits));
        }
        return 0;
    }
    if (has_hi || (has_lo && lo != 0 && lo != 1))
        return refuse(b, "integer bounds must be minimum 0 or 1, or span at most", "2000 values");
    return from_regex(b,
                      !has_lo ? "-?(0|[1-9]\\d{0,14})"
                      : lo    ? "[1-9]\\d{0,14}"
                              : "0|[1-9]\\d{0,14}",
                      false, out);
}

static int literal(builder *b, const json_t *v, frag *out) {
    char *s = json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT);
    *out = text(b, s ? s : "null");
    free(s);
    return 0;
}

/* ---- arrays and objects ------------------------------------------------------------------- */

static frag comma(builder *b) { return nfa_seq(b->a, text(b, ","), nfa_opt(b->a, text(b, " "))); }
static frag colon(builder *b) { return nfa_seq(b->a, text(b, ":"), nfa_opt(b->a, text(b, " "))); }

/* [ item (, item)* ] as a loop over one copy of the item, so that nesting does not multiply. */
static frag loop_of(builder *b, frag item, bool may_be_empty) {
    int in = nfa_node(b->a), done = nfa_node(b->a);
    frag sep = comma(b);
    nfa_link(b->a, in, item.in);
    if (may_be_empty) nfa_link(b->a, in, done);
    nfa_link(b->a, item.out, done);
    nfa_link(b->a, item.out, sep.in);
    nfa_link(b->a, sep.out, item.in);
    return (frag){in, done};
}

static frag bracketed(builder *b, const char *open, frag inside, const char *close) {
    return nfa_seq(b->a, nfa_seq(b->a, text(b, open), inside), text(b, close));
}

static int array_value(builder *b, const json_t *s, frag *out) {
    const json_t *items = json_object_get(s, "items");
    int64_t min = 0, max = -1;
    frag item, again;
    if (field_int(s, "minItems", 0, MAX_LENGTH, &min, b->e) ||
        field_int(s, "maxItems", 0, MAX_LENGTH, &max, b->e)) return -1;
    if (max >= 0 && max < min) return refuse(b, "maxItems is below", "minItems");
    if (max == 0) return *out = text(b, "[]"), 0;
    if (value(b, items, &item)) return -1;
    if (max < 0 && min <= 1) return *out = bracketed(b, "[", loop_of(b, item, min == 0), "]"), 0;
    int first = b->a->n;
    frag sep = comma(b);
    if (value(b, items, &again)) return -1;
    frag rest = nfa_repeat(b->a, first, nfa_seq(b->a, sep, again), min > 1 ? (int)min - 1 : 0,
                           max < 0 ? -1 : (int)max - 1);
    item = nfa_seq(b->a, item, rest);
    *out = bracketed(b, "[", min ? item : nfa_opt(b->a, item), "]");
    return 0;
}

static bool is_required(const json_t *s, const char *name) {
    size_t i;
    json_t *v;
    json_array_foreach(json_object_get(s, "required"), i, v)
        if (json_is_string(v) && !strcmp(json_string_value(v), name)) return true;
    return false;
}

static int any_value(builder *b, int levels, frag *out);

/* Any keys, values up to `levels` deep. */
static int any_object(builder *b, int levels, frag *out) {
    frag key, v;
    if (string_value(b, NULL, &key) || any_value(b, levels - 1, &v)) return -1;
    frag pair = nfa_seq(b->a, nfa_seq(b->a, key, colon(b)), v);
    *out = bracketed(b, "{", loop_of(b, pair, true), "}");
    return 0;
}

static int any_array(builder *b, int levels, frag *out) {
    frag v;
    if (any_value(b, levels - 1, &v)) return -1;
    *out = bracketed(b, "[", loop_of(b, v, true), "]");
    return 0;
}

static const char number_regex[] = "-?(0|[1-9]\\d{0,14})(\\.\\d{1,15})?([eE][+-]?\\d{1,3})?";

static int any_value(builder *b, int levels, frag *out) {
    frag f;
    if (string_value(b, NULL, out) || from_regex(b, number_regex, false, &f)) return -1;
    *out = nfa_alt(b->a, *out, f);
    from_regex(b, "true|false|null", false, &f);
    *out = nfa_alt(b->a, *out, f);
    if (levels <= 0) return 0;
    if (any_object(b, levels, &f)) return -1;
    *out = nfa_alt(b->a, *out, f);
    if (any_array(b, levels, &f)) return -1;
    *out = nfa_alt(b->a, *out, f);
    return 0;
}

/* Properties in the order given; optional ones may be left out. Two rows of nodes say whether a
 * comma is due: node[0] nothing written yet, node[1] something was. */
static int object_value(builder *b, const json_t *s, frag *out) {
    const json_t *props = json_object_get(s, "properties"), *req = json_object_get(s, "required");
    const char *name;
    json_t *sub, *r;
    size_t i;
    if (!json_object_size(props)) return any_object(b, ANY_LEVELS, out);
    if (json_array_size(req) > json_object_size(props))
        return refuse(b, "there are fewer properties than names in", "required");
    json_array_foreach(req, i, r)
        if (!json_object_get(props, json_is_string(r) ? json_string_value(r) : ""))
            return refuse(b, "a required property is not described:",
                          json_is_string(r) ? json_string_value(r) : "?");
    int node[2] = {nfa_node(b->a), nfa_node(b->a)}, start = node[0];
    json_object_foreach((json_t *)(uintptr_t)props, name, sub) {
        if (b->a->over) return *out = (frag){0, 0}, 0;
        frag key, v, sep = comma(b);
        int next[2] = {nfa_node(b->a), nfa_node(b->a)};
        json_t *label = json_string(name);
        literal(b, label, &key);
        json_decref(label);
        if (value(b, sub, &v)) return -1;
        frag pair = nfa_seq(b->a, nfa_seq(b->a, key, colon(b)), v);
        nfa_link(b->a, node[0], pair.in);
        nfa_link(b->a, node[1], sep.in);
        nfa_link(b->a, sep.out, pair.in);
        nfa_link(b->a, pair.out, next[1]);
        if (!is_required(s, name)) {
            nfa_link(b->a, node[0], next[0]);
            nfa_link(b->a, node[1], next[1]);
        }
        node[0] = next[0];
        node[1] = next[1];
    }
    int done = nfa_node(b->a);
    nfa_link(b->a, node[0], done);
    nfa_link(b->a, node[1], done);
    *out = bracketed(b, "{", (frag){start, done}, "}");
    return 0;
}

/* ---- any schema --------------------------------------------------------------------------- */

static int typed(builder *b, const json_t *s, const char *type, frag *out) {
    if (!strcmp(type, "string")) return string_value(b, s, out);
    if (!strcmp(type, "integer")) return integer_value(b, s, out);
    if (!strcmp(type, "number")) {
        if (json_object_get(s, "minimum") || json_object_get(s, "maximum"))
            return refuse(b, "bounds are supported for integers only, not", type);
        return from_regex(b, number_regex, false, out);
    }
    if (!strcmp(type, "boolean")) return from_regex(b, "true|false", false, out);
    if (!strcmp(type, "null")) return *out = text(b, "null"), 0;
    if (!strcmp(type, "array")) return array_value(b, s, out);
    if (!strcmp(type, "object")) return object_value(b, s, out);
    return refuse(b, "unknown type", type);
}

static int check_keywords(builder *b, const json_t *s) {
    static const char *const known[] = {"type",       "enum",        "const",
                                        "properties", "required",    "additionalProperties",
                                        "items",      "minItems",    "maxItems",
                                        "minLength",  "maxLength",   "pattern",
                                        "format",     "minimum",     "maximum",
                                        "anyOf",      "oneOf",       "allOf",
                                        "$ref",       "$defs",       "definitions",
                                        "title",      "description", "default",
                                        "examples",   "$schema",     "$id",
                                        "$comment",   "strict",      "nullable",
                                        "deprecated", "readOnly",    "writeOnly"};
    const char *name;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)s, name, v) {
        size_t i = 0, n = sizeof known / sizeof *known;
        while (i < n && strcmp(known[i], name)) i++;
        if (i == n) return refuse(b, "unsupported keyword", name);
    }
    return 0;
}

static int any_of(builder *b, const json_t *list, bool literals, frag *out) {
    size_t i;
    json_t *v;
    if (!json_is_array(list) || !json_array_size(list))
        return refuse(b, "an empty list of", "choices");
    json_array_foreach(list, i, v) {
        frag f;
        if (literals ? literal(b, v, &f) : value(b, v, &f)) return -1;
        *out = i ? nfa_alt(b->a, *out, f) : f;
    }
    return 0;
}

static const json_t *resolve(builder *b, const char *ref) {
    static const char *const places[] = {"$defs", "definitions"};
    for (int i = 0; i < 2; i++) {
        size_t n = strlen(places[i]);
        if (!strncmp(ref, "#/", 2) && !strncmp(ref + 2, places[i], n) && ref[2 + n] == '/')
            return json_object_get(json_object_get(b->root, places[i]), ref + 3 + n);
    }
    return strcmp(ref, "#") ? NULL : b->root;
}

static int choose(builder *b, const json_t *s, frag *out) {
    const json_t *type = json_object_get(s, "type"), *v;
    const char *ref = json_string_value(json_object_get(s, "$ref"));
    size_t i;
    json_t *t;
    if (!s || json_is_true(s)) return any_value(b, ANY_LEVELS, out);
    if (!json_is_object(s)) return refuse(b, "a schema must be an", "object");
    if (check_keywords(b, s)) return -1;
    if (ref)
        return resolve(b, ref) ? value(b, resolve(b, ref), out) : refuse(b, "cannot resolve", ref);
    if ((v = json_object_get(s, "const"))) return literal(b, v, out);
    if ((v = json_object_get(s, "enum"))) return any_of(b, v, true, out);
    if ((v = json_object_get(s, "anyOf")) || (v = json_object_get(s, "oneOf")))
        return any_of(b, v, false, out);
    if ((v = json_object_get(s, "allOf")))
        return json_array_size(v) == 1 ? value(b, json_array_get(v, 0), out)
                                       : refuse(b, "supported with one member only:", "allOf");
    if (json_is_string(type)) return typed(b, s, json_string_value(type), out);
    if (type && !json_is_array(type))
        return refuse(b, "a type must be a name or a list, not", json_kind(type));
    if (json_object_get(s, "properties")) return object_value(b, s, out);
    if (!type) return any_value(b, ANY_LEVELS, out);
    json_array_foreach(type, i, t) {
        frag f;
        if (typed(b, s, json_is_string(t) ? json_string_value(t) : "?", &f)) return -1;
        *out = i ? nfa_alt(b->a, *out, f) : f;
    }
    return json_array_size(type) ? 0 : refuse(b, "an empty", "type");
}

static int value(builder *b, const json_t *s, frag *out) {
    if (b->level == MAX_LEVELS)
        return refuse(b, "nested or recursive deeper than", "24 levels");
    if (b->a->over) return *out = (frag){0, 0}, 0;
    b->level++;
    int rc = choose(b, s, out);
    b->level--;
    return rc;
}

int schema_build(nfa *a, const json_t *schema, frag *out, const char *what, api_error *e) {
    builder b = {a, schema, what, e, 0};
    return schema ? value(&b, schema, out) : any_object(&b, ANY_LEVELS, out);
}
