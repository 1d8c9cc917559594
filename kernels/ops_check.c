/* ops_check.c: a backend that looks at every op. Before: operands exist, leading dimensions cover
 * the columns, outputs overlap no input (a programmer's mistake: abort). After: wait for the op, and
 * scan what it wrote; the first NaN or infinity, and the first device failure, are remembered with
 * the op's name and come out of sync() as VL_E_NUMERIC or VL_E_BACKEND. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernels/ops_wrap.h"

typedef struct check_backend {
    vl_wrap wrap;
    vl_err first;              /* code 0: nothing wrong so far */
    float *host;               /* one row, fetched from the device */
    size_t cap;
} check_backend;

static check_backend *check_of(vl_backend *b) { return (check_backend *)(void *)b; }

static size_t extent(const vl_rect *s) {
    return s->rows ? ((s->rows - 1) * s->ld + s->cols) * s->elem : 0;
}
static bool overlap(const vl_rect *a, const vl_rect *b) {
    uintptr_t pa = (uintptr_t)a->data, pb = (uintptr_t)b->data;
    return pa < pb + extent(b) && pb < pa + extent(a);
}

static void check_before(vl_wrap *w, const vl_op_call *c) {
    (void)w;
    vl_assert(c->rows >= 0 && c->cols >= 0, "%s %s [%d, %d]", c->op, c->what, c->rows, c->cols);
    for (int i = 0; i < c->ins; i++)
        vl_assert(c->in[i].ld >= c->in[i].cols, "%s %s: input %d has ld %zu < %zu columns", c->op,
                  c->what, i, c->in[i].ld, c->in[i].cols);
    for (int o = 0; o < c->outs; o++) {
        vl_assert(c->out[o].data, "%s %s: no output", c->op, c->what);
        vl_assert(c->out[o].ld >= c->out[o].cols, "%s %s: output ld %zu < %zu columns", c->op, c->what,
                  c->out[o].ld, c->out[o].cols);
        for (int i = 0; i < c->ins && !c->in_place; i++)
            vl_assert(!overlap(&c->out[o], &c->in[i]), "%s %s: the output overlaps input %d", c->op,
                      c->what, i);
    }
}

/* Rows that the backend keeps in a form of its own are no floats: what is wrong in them shows in the linear that
 * reads them. */
static void scan(check_backend *k, const vl_op_call *c, const vl_rect *s) {
    vl_backend *inner = k->wrap.inner;
    if (s->elem != sizeof(float)) return;
    if (s->cols > k->cap) {
        free(k->host);
        k->host = vl_calloc(s->cols, sizeof *k->host);
        vl_assert(k->host, "no memory to check %zu columns", s->cols);
        k->cap = s->cols;
    }
    for (size_t r = 0; r < s->rows; r++) {
        inner->ops->get(inner, k->host, (const float *)s->data + r * s->ld, s->cols * sizeof(float));
        for (size_t i = 0; i < s->cols; i++) {
            if (isfinite(k->host[i])) continue;
            vl_fail(&k->first, VL_E_NUMERIC, "%s %s [%d, %d] wrote %g at row %zu, column %zu", c->op,
                    c->what, c->rows, c->cols, (double)k->host[i], r, i);
            return;
        }
    }
}

static void check_after(vl_wrap *w, const vl_op_call *c) {
    check_backend *k = check_of(&w->base);
    vl_err err = {0, ""};
    if (k->first.code) return;
    if (w->inner->ops->sync(w->inner, &err)) {
        vl_fail(&k->first, err.code, "%s %s: %.160s", c->op, c->what, err.msg);
        return;
    }
    for (int i = 0; i < c->outs && !k->first.code; i++) scan(k, c, &c->out[i]);
}

static int check_sync(vl_backend *b, vl_err *err) {
    check_backend *k = check_of(b);
    if (!k->first.code) return k->wrap.inner->ops->sync(k->wrap.inner, err);
    if (err) *err = k->first;
    return -1;
}

static void check_closing(vl_wrap *w) { free(check_of(&w->base)->host); }

int vl_ops_check_wrap(vl_backend **out, vl_backend *inner, vl_err *err) {
    check_backend *k = vl_calloc(1, sizeof *k);
    if (!k) return vl_fail(err, VL_E_NOMEM, "no memory for the check decorator");
    vl_wrap_init(&k->wrap, inner);
    k->wrap.before = check_before;
    k->wrap.after = check_after;
    k->wrap.closing = check_closing;
    k->wrap.ops.sync = check_sync;
    *out = &k->wrap.base;
    return 0;
}
