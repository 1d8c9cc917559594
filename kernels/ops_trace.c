/* ops_trace.c: a backend that times every op. It waits after each op, so the sum of the rows is the
 * wall time of the ops; rows of one kind (all layers of one weight) are added up. */
#include "kernels/ops_trace.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernels/ops_wrap.h"

enum { ROWS_MAX = 512, HINTS = 4096 };

typedef struct trace_backend {
    vl_wrap wrap;
    vl_trace_row row[ROWS_MAX];
    size_t rows;
    uint16_t hint[HINTS];      /* where a call like this one was added last                  */
    double started, reset_at;
} trace_backend;

static trace_backend *trace_of(vl_backend *b) { return (trace_backend *)(void *)b; }

static void wait_for(vl_wrap *w) {
    vl_err err;
    w->inner->ops->sync(w->inner, &err); /* a failure stays sticky and is reported by sync() */
}

/* "model.layers.17.mlp" -> "model.layers.#.mlp" */
static void without_numbers(char *dst, size_t size, const char *src) {
    size_t n = 0;
    for (; *src && n + 1 < size; src++) {
        bool digit = isdigit((unsigned char)*src), number = digit && n && strchr(".#", dst[n - 1]);
        if (number && dst[n - 1] == '#') continue;
        dst[n++] = number ? '#' : *src;
    }
    dst[n] = 0;
}

static void trace_before(vl_wrap *w, const vl_op_call *c) {
    (void)c;
    wait_for(w);
    trace_of(&w->base)->started = vl_now();
}

static bool is_row(const vl_trace_row *r, const vl_op_call *c, const char *what) {
    return r->rows == c->rows && !strcmp(r->op, c->op) && !strcmp(r->what, what);
}

/* The row this call belongs to, a new one if it is the first of its kind. */
static vl_trace_row *row_of(trace_backend *t, const vl_op_call *c, const char *what) {
    uintptr_t key = (uintptr_t)c->what / 8 + (uintptr_t)c->op * 31 + (uintptr_t)c->rows * 7;
    uint16_t *hint = &t->hint[key % HINTS];
    size_t i = *hint;
    if (i >= t->rows || !is_row(&t->row[i], c, what))
        for (i = 0; i < t->rows && !is_row(&t->row[i], c, what);) i++;
    if (i == ROWS_MAX) i--; /* a run of more kinds than that is added to the last row */
    *hint = (uint16_t)i;
    vl_trace_row *r = &t->row[i];
    if (i < t->rows) return r;
    t->rows++;
    *r = (vl_trace_row){0};
    snprintf(r->op, sizeof r->op, "%s", c->op);
    snprintf(r->what, sizeof r->what, "%s", what);
    return r;
}

static void trace_after(vl_wrap *w, const vl_op_call *c) {
    trace_backend *t = trace_of(&w->base);
    wait_for(w);
    double seconds = vl_now() - t->started;
    char what[sizeof t->row[0].what];
    without_numbers(what, sizeof what, c->what);
    vl_trace_row *r = row_of(t, c, what);
    r->rows = c->rows;
    r->cols = c->cols;
    r->inner = c->inner;
    r->calls++;
    r->seconds += seconds;
    r->bytes += c->bytes;
    r->flops += c->flops;
}

static int slower(const void *a, const void *b) {
    const vl_trace_row *x = a, *y = b;
    return (x->seconds < y->seconds) - (x->seconds > y->seconds);
}

size_t vl_trace_rows(vl_backend *trace, const vl_trace_row **rows, double *wall) {
    trace_backend *t = trace_of(trace);
    qsort(t->row, t->rows, sizeof *t->row, slower);
    *rows = t->row;
    *wall = vl_now() - t->reset_at;
    return t->rows;
}

void vl_trace_reset(vl_backend *trace) {
    trace_of(trace)->rows = 0;
    trace_of(trace)->reset_at = vl_now();
}

double vl_trace_percent(const vl_trace_row *row, double fma_gflops, double read_gbs) {
    double arithmetic = row->flops / (fma_gflops * 1e9), memory = row->bytes / (read_gbs * 1e9);
    double ideal = arithmetic > memory ? arithmetic : memory;
    return row->seconds > 0 ? 100 * ideal / row->seconds : 0;
}

int vl_ops_trace_wrap(vl_backend **out, vl_backend *inner, vl_err *err) {
    trace_backend *t = vl_calloc(1, sizeof *t);
    if (!t) return vl_fail(err, VL_E_NOMEM, "no memory for the trace decorator");
    vl_wrap_init(&t->wrap, inner);
    t->wrap.before = trace_before;
    t->wrap.after = trace_after;
    vl_trace_reset(&t->wrap.base);
    *out = &t->wrap.base;
    return 0;
}
