/* buffer.c: growing arrays. */
#include "tokenizer/buffer.h"

#include <stdlib.h>

void *vl_grow(void *v, size_t *cap, size_t need, size_t size, vl_err *err) {
    if (v && need <= *cap) return v;
    size_t to = *cap ? *cap : 64, bytes;
    while (to < need && to <= SIZE_MAX / 2) to *= 2;
    void *more = to >= need && vl_mul_ok(to, size, &bytes) ? realloc(v, bytes) : NULL;
    if (!more) vl_fail(err, VL_E_NOMEM, "no memory for %zu elements of %zu bytes", need, size);
    else *cap = to;
    return more;
}

int vl_buffer_add(vl_buffer *b, const char *s, size_t n, vl_err *err) {
    size_t need;
    if (!vl_add_ok(b->n + 1, n, &need)) return vl_fail(err, VL_E_NOMEM, "text too long");
    char *to = vl_grow(b->s, &b->cap, need, 1, err);
    if (!to) return -1;
    b->s = to;
    if (n) memcpy(to + b->n, s, n);
    b->n += n;
    to[b->n] = 0;
    return 0;
}
