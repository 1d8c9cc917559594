/* json_text.c: Python's JSON spelling. */
#include "tokenizer/json_text.h"

#include <stdio.h>
#include <stdlib.h>

static int add(vl_buffer *out, const char *s, vl_err *err) {
    return vl_buffer_add(out, s, strlen(s), err);
}

static int string(vl_buffer *out, const char *s, size_t n, vl_err *err) {
    static const char FROM[] = "\"\\\b\f\n\r\t", TO[] = "\"\\bfnrt";
    if (add(out, "\"", err) < 0) return -1;
    for (size_t i = 0, from = 0; i <= n; i++) {
        const char *at = i < n && s[i] ? strchr(FROM, s[i]) : NULL;
        if (i < n && !at && (unsigned char)s[i] >= 0x20) continue;
        if (vl_buffer_add(out, s + from, i - from, err) < 0) return -1;
        from = i + 1;
        char escape[8] = "";
        if (at) snprintf(escape, sizeof escape, "\\%c", TO[at - FROM]);
        else if (i < n) snprintf(escape, sizeof escape, "\\u%04x", s[i]);
        if (add(out, escape, err) < 0) return -1;
    }
    return add(out, "\"", err);
}

/* repr(float): the fewest digits that read back the same; an exponent below 1e-4 and from 1e16. */
static int real(vl_buffer *out, double x, vl_err *err) {
    char digits[32], text[48], *w = text;
    int precision = 0;
    do snprintf(digits, sizeof digits, "%.*e", precision, x);
    while (strtod(digits, NULL) != x && ++precision < 17);
    char *e = strchr(digits, 'e');
    int exponent = (int)strtol(e + 1, NULL, 10);
    if (exponent < -4 || exponent >= 16) {
        snprintf(text, sizeof text, "%.*se%c%02d", (int)(e - digits), digits,
                 exponent < 0 ? '-' : '+', abs(exponent));
        return add(out, text, err);
    }
    int decimals = precision > exponent ? precision - exponent : 0;
    w += snprintf(text, sizeof text, "%.*f", decimals, x);
    if (decimals == 0) memcpy(w, ".0", 3);
    return add(out, text, err);
}

static int members(vl_buffer *out, json_t *o, vl_err *err) {
    const char *key, *comma = "";
    json_t *v;
    json_object_foreach(o, key, v) {
        if (add(out, comma, err) < 0 || string(out, key, strlen(key), err) < 0 ||
            add(out, ": ", err) < 0 || vl_json_text(out, v, err) < 0)
            return -1;
        comma = ", ";
    }
    return 0;
}

int vl_json_text(vl_buffer *out, const json_t *v, vl_err *err) {
    static const char *const WORDS[] = {
        [JSON_TRUE] = "true", [JSON_FALSE] = "false", [JSON_NULL] = "null",
    };
    char number[32];
    switch (json_typeof(v)) {
    case JSON_STRING: return string(out, json_string_value(v), json_string_length(v), err);
    case JSON_REAL: return real(out, json_real_value(v), err);
    case JSON_INTEGER:
        snprintf(number, sizeof number, "%lld", (long long)json_integer_value(v));
        return add(out, number, err);
    case JSON_OBJECT: /* foreach wants a json_t that is not const; it only reads */
        if (add(out, "{", err) < 0 || members(out, (json_t *)(uintptr_t)v, err) < 0) return -1;
        return add(out, "}", err);
    case JSON_ARRAY:
        if (add(out, "[", err) < 0) return -1;
        for (size_t i = 0; i < json_array_size(v); i++)
            if ((i && add(out, ", ", err) < 0) || vl_json_text(out, json_array_get(v, i), err) < 0)
                return -1;
        return add(out, "]", err);
    default: return add(out, WORDS[json_typeof(v)], err);
    }
}
