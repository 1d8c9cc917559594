/* added.c: added tokens, leftmost-longest. A search costs the text's length times the longest
 * token at most, however many tokens there are.
 *
 * Easy to get wrong: a match that single_word rejects is consumed all the same: neither a shorter
 * token at the same place nor one that overlaps it is tried (HF's matches do not overlap).
 */
#include "tokenizer/added.h"

#include <stdlib.h>
#include <utf8proc.h>

#include "tokenizer/buffer.h"
#include "tokenizer/tokenizer.h"

static int compare(vl_str a, vl_str b) {
    int c = memcmp(a.s, b.s, a.n < b.n ? a.n : b.n);
    return c ? c : a.n < b.n ? -1 : a.n > b.n;
}

int vl_added_order(const void *a, const void *b) {
    return compare(((const vl_added *)a)->text, ((const vl_added *)b)->text);
}

int vl_added_push(vl_added_set *s, const vl_added *token, vl_err *err) {
    vl_added *v = vl_grow(s->v, &s->cap, s->n + 1, sizeof *v, err);
    if (!v) return -1;
    s->v = v;
    v[s->n++] = *token;
    s->first[(unsigned char)token->text.s[0]] = true;
    return 0;
}

void vl_added_sort(vl_added_set *s) {
    if (s->n) qsort(s->v, s->n, sizeof *s->v, vl_added_order);
}

const vl_added *vl_added_exact(const vl_added_set *s, vl_str text) {
    vl_added key = {.text = text};
    return s->n ? bsearch(&key, s->v, s->n, sizeof key, vl_added_order) : NULL;
}

/* First of v[lo..hi), all equal before byte `depth`, whose byte there is >= c. */
static size_t lower(const vl_added_set *s, size_t lo, size_t hi, size_t depth, int c) {
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        vl_str t = s->v[mid].text;
        if (depth >= t.n || (unsigned char)t.s[depth] < c) lo = mid + 1;
        else hi = mid;
    }
    return lo;
}

static const vl_added *longest_at(const vl_added_set *s, const char *text, const char *mask,
                                  size_t n) {
    const vl_added *best = NULL;
    size_t lo = 0, hi = s->n;
    for (size_t depth = 0; depth < n && mask[depth] && lo < hi; depth++) {
        int c = (unsigned char)text[depth];
        lo = lower(s, lo, hi, depth, c);
        hi = lower(s, lo, hi, depth, c + 1);
        if (lo < hi && s->v[lo].text.n == depth + 1) best = &s->v[lo];
    }
    return best;
}

/* White_Space, the set behind \s. */
static bool is_space(int32_t c) {
    return (c >= 9 && c <= 13) || c == 32 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
           c == 0x205f || c == 0x3000;
}

/* What \w matches. */
static bool is_word(int32_t c) {
    utf8proc_category_t k = utf8proc_category(c);
    return (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_NL) || k == UTF8PROC_CATEGORY_PC ||
           c == 0x200c || c == 0x200d;
}

/* The character that ends at `at`; 0 bytes if none does. */
static int before(const char *text, size_t from, size_t at, int32_t *c) {
    for (int k = 1; k <= 4 && at - from >= (size_t)k; k++)
        if (vl_utf8_decode(text + at - k, (size_t)k, c) == k) return k;
    return 0;
}

static bool alone(const char *text, size_t start, size_t end, size_t n) {
    int32_t c;
    if (before(text, 0, start, &c) && is_word(c)) return false;
    return !(end < n && vl_utf8_decode(text + end, n - end, &c) && is_word(c));
}

const vl_added *vl_added_find(const vl_added_set *s, const char *text, const char *mask,
                              size_t from, size_t n, size_t *start, size_t *end) {
    for (size_t i = from; i < n; i++) {
        if (!mask[i] || !s->first[(unsigned char)text[i]]) continue;
        const vl_added *t = longest_at(s, text + i, mask + i, n - i);
        if (!t) continue;
        if (t->single_word && !alone(text, i, i + t->text.n, n)) {
            i += t->text.n - 1;
            continue;
        }
        int32_t c;
        int k;
        *start = i;
        *end = i + t->text.n;
        while (t->lstrip && (k = before(text, from, *start, &c)) && is_space(c))
            *start -= (size_t)k;
        while (t->rstrip && *end < n && (k = vl_utf8_decode(text + *end, n - *end, &c)) &&
               is_space(c))
            *end += (size_t)k;
        return t;
    }
    return NULL;
}
