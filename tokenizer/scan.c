/* scan.c: the forward-only JSON reader of scan.h. */
#include "tokenizer/scan.h"

enum { MAX_DEPTH = 64 };

static int bad(vl_scan *s, const char *why) {
    return vl_fail(s->err, VL_E_MODEL, "%s: not valid JSON at byte %zu: %s", s->what,
                   (size_t)(s->p - s->base), why);
}

int vl_scan_peek(vl_scan *s) {
    while (s->p < s->end && (*s->p == ' ' || *s->p == '\n' || *s->p == '\t' || *s->p == '\r'))
        s->p++;
    return s->p < s->end ? (unsigned char)*s->p : 0;
}

int vl_scan_expect(vl_scan *s, char c) {
    char why[] = "expected ' '";
    if (vl_scan_peek(s) == c) {
        s->p++;
        return 0;
    }
    why[10] = c;
    return bad(s, why);
}

int vl_scan_more(vl_scan *s, char close, size_t *n) {
    if (vl_scan_peek(s) == close) {
        s->p++;
        return 0;
    }
    if ((*n)++ && vl_scan_expect(s, ',') < 0) return -1;
    return 1;
}

/* Four hex digits at p, or -1. */
static int32_t hex4(const char *p, const char *end) {
    int32_t v = 0;
    if (end - p < 4) return -1;
    for (int i = 0; i < 4; i++) {
        int c = p[i], low = c | 0x20;
        int d = c >= '0' && c <= '9' ? c - '0' : low >= 'a' && low <= 'f' ? low - 'a' + 10 : -1;
        if (d < 0) return -1;
        v = v * 16 + d;
    }
    return v;
}

static char *put_utf8(char *out, int32_t c) {
    if (c < 0x80) {
        *out++ = (char)c;
        return out;
    }
    int more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    static const int LEAD[] = {0, 0xc0, 0xe0, 0xf0};
    *out++ = (char)(LEAD[more] | c >> (6 * more));
    while (more--) *out++ = (char)(0x80 | ((c >> (6 * more)) & 0x3f));
    return out;
}

/* One escape at s->p (after the backslash); writes what it stands for. */
static int escape(vl_scan *s, char **out) {
    static const char FROM[] = "\"\\/bfnrt", TO[] = "\"\\/\b\f\n\r\t";
    int c = s->p < s->end ? *s->p++ : 0;
    const char *at = c ? strchr(FROM, c) : NULL;
    if (at) {
        *(*out)++ = TO[at - FROM];
        return 0;
    }
    if (c != 'u') return bad(s, "unknown escape");
    int32_t u = hex4(s->p, s->end);
    if (u < 0) return bad(s, "\\u needs four hex digits");
    if (u == 0) return bad(s, "\\u0000 in a string");
    s->p += 4;
    if (u >= 0xd800 && u < 0xe000) { /* a pair, high half first */
        int32_t lo = s->end - s->p >= 6 && s->p[0] == '\\' && s->p[1] == 'u'
                         ? hex4(s->p + 2, s->end) : -1;
        if (u >= 0xdc00 || lo < 0xdc00 || lo > 0xdfff)
            return bad(s, "half of a surrogate pair");
        s->p += 6;
        u = 0x10000 + ((u - 0xd800) << 10) + (lo - 0xdc00);
    }
    *out = put_utf8(*out, u);
    return 0;
}

int vl_scan_string(vl_scan *s, vl_str *out) {
    if (vl_scan_expect(s, '"') < 0) return -1;
    char *w = s->p;
    out->s = w;
    for (;;) {
        if (s->p >= s->end) return bad(s, "the text ends inside a string");
        char c = *s->p++;
        if (c == '"') break;
        if (c == '\\') {
            if (escape(s, &w) < 0) return -1;
        } else if ((unsigned char)c < 0x20) {
            return bad(s, "a control character inside a string");
        } else {
            *w++ = c;
        }
    }
    out->n = (size_t)(w - out->s);
    return 0;
}

int vl_scan_key(vl_scan *s, vl_str *out) {
    return vl_scan_string(s, out) < 0 ? -1 : vl_scan_expect(s, ':');
}

int vl_scan_id(vl_scan *s, int64_t hi, int32_t *out) {
    int64_t v = 0;
    vl_scan_peek(s);
    char *start = s->p;
    for (; s->p < s->end && *s->p >= '0' && *s->p <= '9' && v <= hi; s->p++)
        v = v * 10 + (*s->p - '0');
    if (s->p == start || (s->p < s->end && strchr(".eE", *s->p)) || v > hi)
        return vl_fail(s->err, VL_E_MODEL, "%s: byte %zu: expected a whole number from 0 to %lld",
                       s->what, (size_t)(start - s->base), (long long)hi);
    *out = (int32_t)v;
    return 0;
}

int vl_scan_skip(vl_scan *s, vl_str *extent) {
    int depth = 0;
    vl_scan_peek(s);
    const char *start = s->p;
    do {
        int c = vl_scan_peek(s);
        if (c == 0) return bad(s, "the text ends inside a value");
        if (c == '"') {
            for (s->p++; s->p < s->end && *s->p != '"'; s->p++)
                if (*s->p == '\\') s->p++;
            if (s->p >= s->end) return bad(s, "the text ends inside a string");
            s->p++;
        } else if (c == '{' || c == '[') {
            if (++depth > MAX_DEPTH) return bad(s, "nested deeper than 64 levels");
            s->p++;
        } else if (c == '}' || c == ']') {
            if (--depth < 0) return bad(s, "expected a value");
            s->p++;
        } else if (c == ',' || c == ':') {
            if (depth == 0) return bad(s, "expected a value");
            s->p++;
        } else { /* a number or a word */
            while (s->p < s->end && !strchr(" \n\t\r,:]}[{\"", *s->p)) s->p++;
        }
    } while (depth > 0);
    if (extent) *extent = (vl_str){start, (size_t)(s->p - start)};
    return 0;
}
