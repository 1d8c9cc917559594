/* split.c: NFC and pre-tokenization.
 *
 * Easy to get wrong:
 *  - PCRE2 needs valid UTF-8, a tokenizer must keep any bytes. So the regex runs over a shadow of
 *    the same length in which each stray byte is U+001A (no letter, number or space);
 *  - \s is Unicode White_Space in HF's Oniguruma; PCRE2 also counts U+180E, which left that set in
 *    Unicode 6.3: the shadow has U+2060 (same category, same length) in its place;
 *  - NFC by utf8proc_map() orders runs of combining marks by bubble sort, quadratic in an
 *    attacker's text: the marks are sorted here.
 */
#include "tokenizer/split.h"

#include <stdlib.h>
#include <utf8proc.h>

#include "tokenizer/tokenizer.h"

const char VL_GPT2_PATTERN[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
const char VL_QWEN_PATTERN[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}"
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/* ---- pre-tokenization ----------------------------------------------------------------------- */

int vl_split_add(vl_split *s, const char *pattern, size_t len, const char *what, vl_err *err) {
    const uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C;
    int code;
    PCRE2_SIZE at;
    if (s->n == VL_MAX_SPLITS)
        return vl_fail(err, VL_E_MODEL, "%s: more than %d pre-tokenizer patterns", what,
                       VL_MAX_SPLITS);
    pcre2_code *re = pcre2_compile((PCRE2_SPTR)pattern, len, options, &code, &at, NULL);
    if (!re) {
        char why[128];
        pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof why);
        return vl_fail(err, VL_E_MODEL, "%s: pre-tokenizer pattern, character %zu: %s", what,
                       (size_t)at, why);
    }
    pcre2_jit_compile(re, PCRE2_JIT_COMPLETE); /* where it cannot, pcre2_match interprets */
    s->regex[s->n++] = re;
    return 0;
}

void vl_split_clear(vl_split *s) {
    for (int i = 0; i < s->n; i++) pcre2_code_free(s->regex[i]);
    *s = (vl_split){0};
}

typedef struct cut {
    const vl_split *split;
    pcre2_match_data *match;
    const char *text, *shadow;
    int (*piece)(void *user, const char *text, size_t len);
    void *user;
    vl_err *err;
} cut;

static int find(const cut *c, int level, size_t from, size_t to, size_t at) {
    const pcre2_code *re = c->split->regex[level];
    PCRE2_SPTR subject = (PCRE2_SPTR)c->shadow + from;
    int rc = pcre2_match(re, subject, to - from, at - from, PCRE2_NO_UTF_CHECK, c->match, NULL);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
        rc = pcre2_match(re, subject, to - from, at - from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                         c->match, NULL);
    if (rc >= 0 || rc == PCRE2_ERROR_NOMATCH) return rc >= 0;
    char why[128];
    pcre2_get_error_message(rc, (PCRE2_UCHAR *)why, sizeof why);
    return vl_fail(c->err, rc == PCRE2_ERROR_NOMEMORY ? VL_E_NOMEM : VL_E_LIMIT,
                   "the tokenizer's pattern fails on this text: %s", why);
}

/* Cuts [from, to) by the patterns from `level` on. Matches and the gaps between them are pieces;
 * an empty match only cuts. */
static int cut_range(const cut *c, int level, size_t from, size_t to) {
    if (from == to) return 0;
    if (level == c->split->n) return c->piece(c->user, c->text + from, to - from);
    size_t done = from;
    for (size_t at = from; at < to;) {
        int found = find(c, level, from, to, at);
        if (found < 0) return -1;
        if (!found) break;
        const PCRE2_SIZE *o = pcre2_get_ovector_pointer(c->match);
        size_t start = from + o[0], end = from + o[1];
        vl_assert(at <= start && start <= end && end <= to, "match [%zu, %zu)", start, end);
        if (cut_range(c, level + 1, done, start) < 0) return -1;
        if (cut_range(c, level + 1, start, end) < 0) return -1;
        done = at = end;
        int32_t cp;
        if (start == end && at < to) at += (size_t)vl_utf8_decode(c->shadow + at, to - at, &cp);
    }
    return cut_range(c, level + 1, done, to);
}

/* A copy of text that PCRE2 can take: see "easy to get wrong". */
static char *shadow_of(const char *text, size_t n) {
    char *shadow = malloc(n + 1);
    if (!shadow) return NULL;
    memcpy(shadow, text, n);
    for (size_t i = 0; i < n;) {
        int32_t c;
        int k = (unsigned char)text[i] < 0x80 ? 1 : vl_utf8_decode(text + i, n - i, &c);
        if (k == 0) shadow[i] = 0x1a;
        else if (k == 3 && c == 0x180e) memcpy(shadow + i, "\xe2\x81\xa0", 3);
        i += k ? (size_t)k : 1;
    }
    return shadow;
}

int vl_split_run(const vl_split *s, const char *text, size_t n,
                 int (*piece)(void *user, const char *text, size_t len), void *user, vl_err *err) {
    char *shadow = shadow_of(text, n);
    pcre2_match_data *match = pcre2_match_data_create(1, NULL);
    cut c = {s, match, text, shadow, piece, user, err};
    int rc = shadow && match ? cut_range(&c, 0, 0, n)
                             : vl_fail(err, VL_E_NOMEM, "no memory to tokenize %zu bytes", n);
    pcre2_match_data_free(match);
    free(shadow);
    return rc;
}

/* ---- NFC ------------------------------------------------------------------------------------ */

typedef struct mark { int32_t ccc; uint32_t order; int32_t c; } mark;

static int by_class(const void *a, const void *b) {
    const mark *x = a, *y = b;
    if (x->ccc != y->ccc) return x->ccc < y->ccc ? -1 : 1;
    return x->order < y->order ? -1 : x->order > y->order;
}

static int32_t class_of(int32_t c) {
    return c < 0x300 ? 0 : utf8proc_get_property(c)->combining_class;
}

/* Canonical order: each run of marks (class > 0) sorted by class, equal ones left in order. */
static int order_marks(int32_t *c, size_t n, vl_err *err) {
    mark *marks = NULL;
    size_t cap = 0;
    for (size_t i = 0; i < n;) {
        size_t end = i;
        bool sorted = true;
        for (int32_t last = 0; end < n && class_of(c[end]); end++) {
            sorted &= class_of(c[end]) >= last;
            last = class_of(c[end]);
        }
        if (!sorted) {
            mark *m = vl_grow(marks, &cap, end - i, sizeof *m, err);
            if (!m) {
                free(marks);
                return -1;
            }
            marks = m;
            for (size_t k = i; k < end; k++) m[k - i] = (mark){class_of(c[k]), (uint32_t)k, c[k]};
            qsort(m, end - i, sizeof *m, by_class);
            for (size_t k = i; k < end; k++) c[k] = m[k - i].c;
        }
        i = end + 1;
    }
    free(marks);
    return 0;
}

/* NFC of s[0..n), valid UTF-8: decompose, order, compose. */
static int nfc_valid(vl_buffer *out, const char *s, size_t n, vl_err *err) {
    int32_t *c = NULL;
    size_t count = 0, cap = 0;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < n;) {
        int32_t cp;
        i += (size_t)vl_utf8_decode(s + i, n - i, &cp);
        int32_t *more = vl_grow(c, &cap, count + 4, sizeof *c, err); /* 4: the longest (U+1F82) */
        if (!more) {
            rc = -1;
            break;
        }
        c = more;
        int bounds = 0;
        utf8proc_ssize_t k = utf8proc_decompose_char(cp, c + count, 4,
                                                     UTF8PROC_STABLE | UTF8PROC_COMPOSE, &bounds);
        vl_assert(k >= 1 && k <= 4, "U+%04X decomposes to %zd", (unsigned)cp, k);
        count += (size_t)k;
    }
    if (rc == 0) rc = order_marks(c, count, err);
    if (rc == 0) {
        utf8proc_ssize_t k = utf8proc_normalize_utf32(c, (utf8proc_ssize_t)count,
                                                      UTF8PROC_STABLE | UTF8PROC_COMPOSE);
        for (utf8proc_ssize_t i = 0; rc == 0 && i < k; i++) {
            utf8proc_uint8_t u[4];
            utf8proc_ssize_t len = utf8proc_encode_char(c[i], u);
            rc = vl_buffer_add(out, (const char *)u, (size_t)len, err);
        }
    }
    free(c);
    return rc;
}

int vl_nfc(vl_buffer *out, const char *s, size_t n, vl_err *err) {
    for (size_t i = 0; i < n;) {
        size_t start = i;
        bool changes = false; /* nothing below U+0300 can */
        int32_t c = 0;
        for (int k; i < n && (k = vl_utf8_decode(s + i, n - i, &c)) > 0; i += (size_t)k)
            changes |= c >= 0x300;
        int rc = changes ? nfc_valid(out, s + start, i - start, err)
                         : vl_buffer_add(out, s + start, i - start, err);
        if (rc == 0 && i < n) rc = vl_buffer_add(out, s + i++, 1, err); /* not UTF-8 */
        if (rc < 0) return -1;
    }
    return 0;
}
