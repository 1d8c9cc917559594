/* ops_tap.c: a backend whose tap() copies the tensor to the host and hands it to a function. */
#include <stdlib.h>

#include "kernels/ops_wrap.h"

typedef struct tap_backend {
    vl_wrap wrap;
    vl_tap_fn fn;
    void *user;
    float *host;               /* grows to the largest tensor seen */
    size_t cap;
} tap_backend;

static tap_backend *tap_of(vl_backend *b) { return (tap_backend *)(void *)b; }

static void tap_tensor(vl_backend *b, const char *name, int layer, const float *x, int rows,
                       int cols) {
    tap_backend *t = tap_of(b);
    size_t n = (size_t)rows * (size_t)cols;
    if (!t->fn) return;
    if (n > t->cap) {
        free(t->host);
        t->host = vl_calloc(n, sizeof *t->host);
        t->cap = t->host ? n : 0;
    }
    if (t->host) t->wrap.inner->ops->get(t->wrap.inner, t->host, x, n * sizeof *t->host);
    t->fn(t->user, name, layer, t->host, rows, cols);
}

static void tap_closing(vl_wrap *w) { free(tap_of(&w->base)->host); }

int vl_ops_tap_wrap(vl_backend **out, vl_backend *inner, vl_err *err) {
    tap_backend *t = vl_calloc(1, sizeof *t);
    if (!t) return vl_fail(err, VL_E_NOMEM, "no memory for the tap decorator");
    vl_wrap_init(&t->wrap, inner);
    t->wrap.ops.tap = tap_tensor;
    t->wrap.closing = tap_closing;
    *out = &t->wrap.base;
    return 0;
}

void vl_ops_tap_set(vl_backend *tap, vl_tap_fn fn, void *user) {
    vl_assert(tap->ops->tap == tap_tensor, "not a tap decorator");
    tap_of(tap)->fn = fn;
    tap_of(tap)->user = user;
}
