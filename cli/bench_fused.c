/* bench_fused.c: what fusing an epilogue into a matrix product saves: `x += h W^T + b` of a vision
 * block as one operation, and as a product followed by an addition of rows. Both on the op table,
 * in turn, so that the machine is the same for both. */
#include <stdlib.h>

#include "cli/bench.h"
#include "kernels/ops.h"

enum { ROWS = 784, WIDE = 4096, NARROW = 1024, CALLS = 40 };

typedef struct bed {
    vl_backend *b;
    float *x, *h, *sum;               /* [ROWS, NARROW], [ROWS, WIDE], [ROWS, NARROW]           */
    uint16_t *weights;
    vl_matrix w;
} bed;

static void fused(bed *t) {
    t->b->ops->linear(t->b, t->x, NARROW, t->h, WIDE, ROWS, &t->w, NULL, VL_EPI_ADD);
}
static void unfused(bed *t) {
    t->b->ops->linear(t->b, t->sum, NARROW, t->h, WIDE, ROWS, &t->w, NULL, VL_EPI_NONE);
    t->b->ops->add_rows(t->b, t->x, NULL, t->sum, NULL, ROWS, NARROW);
}

static int open_bed(bed *t, const bench *b, vl_err *err) {
    size_t n = (size_t)WIDE * NARROW;
    int threads = vl_model_get_info(b->m)->threads;
    if (vl_backend_open(&t->b, &(vl_backend_params){"cpu", b->mode->name, threads}, err)) return -1;
    const vl_ops *o = t->b->ops;
    t->x = o->alloc(t->b, ROWS * NARROW * sizeof *t->x);
    t->h = o->alloc(t->b, ROWS * WIDE * sizeof *t->h);
    t->sum = o->alloc(t->b, ROWS * NARROW * sizeof *t->sum);
    t->weights = malloc(n * sizeof *t->weights);
    if (!t->x || !t->h || !t->sum || !t->weights)
        return vl_fail(err, VL_E_NOMEM, "no memory for a product");
    for (size_t i = 0; i < n; i++) t->weights[i] = vl_f32_to_bf16((float)(i % 251) * 1e-4f);
    t->w = (vl_matrix){.name = "fused", .data = t->weights, .dtype = VL_BF16, .rows = NARROW,
                       .cols = WIDE};
    return o->prepare(t->b, &t->w, VL_USE_LINEAR, err);
}

static void close_bed(bed *t) {
    if (!t->b) return;
    t->b->ops->release(t->b, t->x);
    t->b->ops->release(t->b, t->h);
    t->b->ops->release(t->b, t->sum);
    t->b->ops->close(t->b); /* before its matrix goes */
    free(t->weights);
}

int bench_fused(bench *b, const bench_case *base) {
    static bench_samples one, two;
    bed t = {0};
    vl_err err = {0};
    (void)base;
    one.n = two.n = 0;
    int rc = open_bed(&t, b, &err);
    for (int i = 0; !rc && i <= CALLS; i++) { /* the first of each warms up */
        double start = vl_now();
        unfused(&t);
        double middle = vl_now();
        fused(&t);
        if (i) bench_add(&two, middle - start);
        if (i) bench_add(&one, vl_now() - middle);
    }
    close_bed(&t);
    if (rc) return cli_fail(&err);
    bench_add_tip(b->tips, "fused epilogue", "784 x 4096 x 1024 product added to the residual",
                  "two operations", &two, "one", &one);
    return 0;
}
