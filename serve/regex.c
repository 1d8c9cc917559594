/* regex.c: regular expressions -> NFA fragments (see automaton.h). */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#include "serve/automaton.h"

enum { MAX_REGEX = 16384, MAX_DEPTH = 64, MAX_COUNT = 1000, MAX_CLASS = 256 };
static const uint32_t last_code = 0x10FFFF;

typedef struct span { uint32_t lo, hi; } span;
typedef struct parser {
    nfa *a;
    const char *p, *what;
    bool in_json;
    int depth;
    api_error *e;
} parser;

static int bad(parser *r, const char *why) {
    return api_fail(r->e, 400, "invalid_regex", r->what, "%s: %s near '%.20s'", r->what, why, r->p);
}

/* One code point of the (valid UTF-8) pattern. */
static uint32_t next_code(parser *r) {
    const uint8_t *s = (const uint8_t *)r->p;
    int n = s[0] < 0x80 ? 1 : s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 : 4;
    uint32_t c = n == 1 ? s[0] : s[0] & (0xFFu >> (n + 1));
    for (int i = 1; i < n && s[i]; i++) c = c << 6 | (s[i] & 63);
    r->p += n;
    return c;
}

/* ---- classes ------------------------------------------------------------------------------ */

static int by_lo(const void *x, const void *y) {
    const span *a = x, *b = y;
    return a->lo < b->lo ? -1 : a->lo > b->lo;
}

/* Sorted and merged, optionally turned inside out; in JSON without what would need an escape. */
static frag class_frag(parser *r, span *v, int n, bool negate) {
    span merged[MAX_CLASS + 8];
    int m = 0;
    frag all = {0, 0};
    bool any = false;
    qsort(v, (size_t)n, sizeof *v, by_lo);
    uint32_t at = 0;
    for (int i = 0; i < n; i++) {
        if (negate) {
            if (v[i].lo > at) merged[m++] = (span){at, v[i].lo - 1};
            if (v[i].hi + 1 > at) at = v[i].hi + 1;
        } else if (m && v[i].lo <= merged[m - 1].hi + 1) {
            if (v[i].hi > merged[m - 1].hi) merged[m - 1].hi = v[i].hi;
        } else {
            merged[m++] = v[i];
        }
    }
    if (negate && at <= last_code) merged[m++] = (span){at, last_code};
    for (int i = 0; i < m; i++) {
        static const span safe[] = {{0x20, 0x21}, {0x23, 0x5B}, {0x5D, 0x10FFFF}};
        for (int k = 0; k < (r->in_json ? 3 : 1); k++) {
            span s = merged[i];
            if (r->in_json) {
                if (s.lo < safe[k].lo) s.lo = safe[k].lo;
                if (s.hi > safe[k].hi) s.hi = safe[k].hi;
                if (s.lo > s.hi) continue;
            }
            frag f = nfa_range(r->a, s.lo, s.hi);
            all = any ? nfa_alt(r->a, all, f) : f;
            any = true;
        }
    }
    return any ? all : (frag){nfa_node(r->a), nfa_node(r->a)};
}

/* \d \w \s and their opposites into v; false if c is none of them. */
static bool named_class(int c, span *v, int *n) {
    static const span digit[] = {{'0', '9'}},
                      word[] = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
    static const span space[] = {{'\t', '\r'}, {' ', ' '}};
    static const struct { int c; const span *v; int n; } names[] = {
        {'d', digit, 1}, {'w', word, 4}, {'s', space, 2}};
    for (int i = 0; i < 3; i++) {
        if (tolower(c) != names[i].c) continue;
        uint32_t at = 0;
        for (int k = 0; k < names[i].n; k++) {
            if (c == names[i].c) v[(*n)++] = names[i].v[k];
            else if (names[i].v[k].lo > at) v[(*n)++] = (span){at, names[i].v[k].lo - 1};
            at = names[i].v[k].hi + 1;
        }
        if (c != names[i].c) v[(*n)++] = (span){at, last_code};
        return true;
    }
    return false;
}

/* After a backslash: the code point it stands for. */
static int escape(parser *r, uint32_t *code) {
    static const char from[] = "nrtfv0", to[] = "\n\r\t\f\v\0";
    if (!*r->p) return bad(r, "a backslash at the end");
    uint32_t c = next_code(r);
    int digits = c == 'x' ? 2 : c == 'u' ? 4 : 0;
    if (digits) {
        *code = 0;
        for (; digits; digits--, r->p++) {
            if (!isxdigit((unsigned char)*r->p)) return bad(r, "hexadecimal digits expected");
            *code = *code * 16 + (uint32_t)(isdigit((unsigned char)*r->p) ? *r->p - '0'
                                            : tolower((unsigned char)*r->p) - 'a' + 10);
        }
        return *code >= 0xD800 && *code <= 0xDFFF ? bad(r, "a surrogate is no character") : 0;
    }
    const char *at = c < 128 && c ? strchr(from, (int)c) : NULL;
    if (at) *code = (uint32_t)to[at - from];
    else if (c < 128 && isalnum((int)c)) return bad(r, "unknown escape");
    else *code = c;
    return 0;
}

static int parse_class(parser *r, frag *out) {
    span v[MAX_CLASS];
    int n = 0;
    bool negate = *r->p == '^' && r->p++;
    for (bool first = true; *r->p != ']' || first; first = false) {
        uint32_t lo, hi;
        if (!*r->p) return bad(r, "] is missing");
        if (n > MAX_CLASS - 8) return bad(r, "a class with too many members");
        if (r->p[0] == '\\' && named_class(r->p[1], v, &n)) {
            r->p += 2;
            continue;
        }
        if (*r->p == '\\') { if (r->p++, escape(r, &lo)) return -1; }
        else lo = next_code(r);
        hi = lo;
        if (r->p[0] == '-' && r->p[1] && r->p[1] != ']') {
            r->p++;
            if (*r->p == '\\') { if (r->p++, escape(r, &hi)) return -1; }
            else hi = next_code(r);
        }
        if (hi < lo) return bad(r, "a range that runs backwards");
        v[n++] = (span){lo, hi};
    }
    r->p++;
    *out = class_frag(r, v, n, negate);
    return 0;
}

/* ---- expressions -------------------------------------------------------------------------- */

static int parse_alternatives(parser *r, frag *out);

static frag literal(parser *r, uint32_t c) {
    if (r->in_json && (c == '"' || c == '\\')) {
        char pair[2] = {'\\', (char)c};
        return nfa_text(r->a, pair, 2);
    }
    if (r->in_json && c < 32) {
        char hex[8];
        return nfa_text(r->a, hex, (size_t)snprintf(hex, sizeof hex, "\\u%04x", c));
    }
    return nfa_range(r->a, c, c);
}

static int parse_atom(parser *r, frag *out) {
    span v[8];
    int n = 0;
    uint32_t code;
    if (*r->p == '(') {
        r->p++;
        if (r->p[0] == '?' && r->p[1] != ':') return bad(r, "only (?: groups are known");
        if (r->p[0] == '?') r->p += 2;
        if (++r->depth > MAX_DEPTH) return bad(r, "nested too deeply");
        if (parse_alternatives(r, out)) return -1;
        r->depth--;
        if (*r->p != ')') return bad(r, ") is missing");
        r->p++;
        return 0;
    }
    if (*r->p == '[') return r->p++, parse_class(r, out);
    if (*r->p == '.') {
        v[n++] = (span){'\n', '\n'};
        r->p++;
        *out = class_frag(r, v, n, true);
        return 0;
    }
    if (*r->p == '\\') {
        r->p++;
        if (named_class(*r->p, v, &n)) {
            r->p++;
            *out = class_frag(r, v, n, false);
            return 0;
        }
        if (escape(r, &code)) return -1;
        *out = literal(r, code);
        return 0;
    }
    if (strchr("*+?{", *r->p)) return bad(r, "nothing to repeat");
    if (strchr("^$", *r->p)) return bad(r, "^ and $ belong at the ends");
    *out = literal(r, next_code(r));
    return 0;
}

static int parse_count(parser *r, int *min, int *max) {
    char *end;
    long lo = strtol(r->p + 1, &end, 10), hi = lo;
    if (end == r->p + 1) return bad(r, "a number expected after {");
    if (*end == ',') {
        const char *second = end + 1;
        hi = *second == '}' ? -1 : strtol(second, &end, 10);
        if (hi < 0) end = (char *)(uintptr_t)second;
    }
    if (*end != '}' || lo < 0 || lo > MAX_COUNT || hi > MAX_COUNT || (hi >= 0 && hi < lo))
        return bad(r, "a count must be {m}, {m,} or {m,n} with n up to 1000");
    r->p = end + 1;
    *min = (int)lo;
    *max = (int)hi;
    return 0;
}

static int parse_sequence(parser *r, frag *out) {
    *out = nfa_empty(r->a);
    while (*r->p && *r->p != '|' && *r->p != ')') {
        frag f;
        int first = r->a->n, min = 1, max = 1;
        if (*r->p == '$' && !r->p[1] && r->depth == 0) return r->p++, 0;
        if (parse_atom(r, &f)) return -1;
        if (*r->p == '*') r->p++, min = 0, max = -1;
        else if (*r->p == '+') r->p++, max = -1;
        else if (*r->p == '?') r->p++, min = 0;
        else if (*r->p == '{' && parse_count(r, &min, &max)) return -1;
        bool counted = min != 1 || max != 1;
        if (counted && *r->p == '?') r->p++;   /* lazy or greedy: the same language */
        if (counted) f = nfa_repeat(r->a, first, f, min, max);
        *out = nfa_seq(r->a, *out, f);
        if (r->a->over) return 0;              /* dfa_open() says so */
    }
    return 0;
}

static int parse_alternatives(parser *r, frag *out) {
    if (parse_sequence(r, out)) return -1;
    while (*r->p == '|') {
        frag f;
        r->p++;
        if (parse_sequence(r, &f)) return -1;
        *out = nfa_alt(r->a, *out, f);
    }
    return 0;
}

int regex_build(nfa *a, const char *regex, bool in_json, frag *out, const char *what,
                api_error *e) {
    parser r = {.a = a, .p = regex, .what = what, .in_json = in_json, .e = e};
    if (strlen(regex) > MAX_REGEX) return bad(&r, "longer than 16384 bytes");
    if (*r.p == '^') r.p++;
    if (parse_alternatives(&r, out)) return -1;
    return *r.p && !a->over ? bad(&r, "unexpected )") : 0;
}
