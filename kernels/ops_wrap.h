/* ops_wrap.h: the shared half of the decorators. ops_wrap.c forwards every op of any backend and,
 * around each call, describes it once: what is read, what is written, how many bytes and flops.
 * A decorator is the struct below with two hooks (check, trace) or with one slot replaced (tap).
 */
#ifndef VL_OPS_WRAP_H
#define VL_OPS_WRAP_H

#include "kernels/ops.h"

/* A rectangle of device memory: rows of cols elements, ld elements apart. */
typedef struct vl_rect { const void *data; size_t rows, cols, ld, elem; } vl_rect;

enum { VL_RECTS = 8 };
typedef struct vl_op_call {
    const char *op;            /* "linear", ...                                              */
    const char *what;          /* the matrix's name, or ""                                   */
    int rows, cols, inner;     /* the shape worth printing: out [rows, cols], inner sum      */
    vl_rect out[3], in[VL_RECTS];
    int outs, ins;
    bool in_place;             /* the op may write where it reads                            */
    double bytes, flops;       /* memory that must move, arithmetic that must happen         */
} vl_op_call;

typedef struct vl_wrap vl_wrap;
struct vl_wrap {
    vl_backend base;
    vl_backend *inner;
    vl_ops ops;                /* base.ops points here: the wrap table with its own name     */
    void (*before)(vl_wrap *w, const vl_op_call *c);   /* NULL: nothing                      */
    void (*after)(vl_wrap *w, const vl_op_call *c);
    void (*closing)(vl_wrap *w);                       /* frees what the decorator owns      */
};

/* Fills a zeroed decorator: every op forwarded, every op described to the hooks. */
void vl_wrap_init(vl_wrap *w, vl_backend *inner);
static inline vl_wrap *vl_wrap_of(vl_backend *b) { return (vl_wrap *)(void *)b; }

#endif
