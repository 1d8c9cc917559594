/* utf8.c: strict UTF-8 (no overlong forms, no surrogates, at most U+10FFFF). */
#include <stdlib.h>

#include "tokenizer/tokenizer.h"

/* Length that the lead byte promises, 0 if it is none; lo..hi bound the second byte, which is
 * where overlong forms, surrogates and too large code points show. */
static int lead(unsigned char c, unsigned char *lo, unsigned char *hi) {
    *lo = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80;
    *hi = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
    if (c < 0x80) return 1;
    if (c >= 0xc2 && c <= 0xdf) return 2;
    if (c >= 0xe0 && c <= 0xef) return 3;
    return c >= 0xf0 && c <= 0xf4 ? 4 : 0;
}

/* Bytes of s[0..n) that belong to one character; *need: how many it takes (0: s[0] starts none). */
static int prefix(const char *s, size_t n, int *need) {
    unsigned char lo, hi;
    *need = lead((unsigned char)s[0], &lo, &hi);
    int k = 1;
    for (; k < *need && (size_t)k < n; k++, lo = 0x80, hi = 0xbf)
        if ((unsigned char)s[k] < lo || (unsigned char)s[k] > hi) break;
    return k;
}

int vl_utf8_decode(const char *s, size_t n, int32_t *c) {
    static const unsigned char LEAD_BITS[] = {0, 0x7f, 0x1f, 0x0f, 0x07};
    int need;
    if (n == 0 || prefix(s, n, &need) < need || need == 0) return 0;
    *c = (unsigned char)s[0] & LEAD_BITS[need];
    for (int i = 1; i < need; i++) *c = *c << 6 | ((unsigned char)s[i] & 0x3f);
    return need;
}

size_t vl_utf8_whole(const char *s, size_t n) {
    for (size_t k = 1; k <= 3 && k <= n; k++) {
        int need, have = prefix(s + n - k, k, &need);
        if (need > 1) return (size_t)have == k && have < need ? n - k : n;
    }
    return n;
}

size_t vl_utf8_repair(char *dst, const char *s, size_t n) {
    char *w = dst;
    for (size_t i = 0; i < n;) {
        int need, k = prefix(s + i, n - i, &need);
        bool good = need > 0 && k == need;
        memcpy(w, good ? s + i : "\xef\xbf\xbd", good ? (size_t)k : 3);
        w += good ? k : 3;
        i += (size_t)k;
    }
    return (size_t)(w - dst);
}

char *vl_utf8_clean(const char *s, size_t n, size_t *out_len) {
    size_t cap;
    char *out = vl_mul_ok(n, 3, &cap) && vl_add_ok(cap, 1, &cap) ? malloc(cap) : NULL;
    if (!out) return NULL;
    *out_len = vl_utf8_repair(out, s, n);
    out[*out_len] = 0;
    return out;
}
