/* op_rates.c: times single operations of the CPU backend (see op_rates.h). Each rate is the median
 * of several calls; matrices are taken in turn, more of them than the caches hold. */
#include "cli/op_rates.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/stats.h"
#include "kernels/ops.h"
#include "kernels/peaks.h"

enum { N = 2048, HEADS = 16, GROUPS = 8, HEAD = 128, VISION_HEAD = 64, CALLS = 9, PATCH_D = 1024 };
enum { POOL_MOST = 512 };           /* matrices of a width                                         */
const int rate_rows[RATE_ROWS] = {236, 784}, rate_widths[RATE_WIDTHS] = {1024, 2048, 6144};
static const int full_sizes[2] = {784, 3136}, causal_sizes[2] = {236, 1024};
static const int step_sizes[2] = {236, 1024};
enum { MOST_ROWS = 3136, MOST_COLS = 6144 };

typedef struct lab {
    vl_backend *b;
    float *x, *y, *z;              /* noise: x and y [MOST_ROWS, 3 * PATCH_D], z [ROWS, 3 * COLS]  */
    float *tables;                 /* cos, sin, norm weights                                    */
    uint16_t *weights;             /* bf16 noise, the source of every matrix                    */
    void *k_pool, *v_pool;
    int32_t *index;                /* cu / block table / row_seq / row_len, on the backend      */
    const num_mode *mode;
    vl_matrix pool[POOL_MOST];
    int pooled, next;
} lab;

typedef struct timed {             /* one kind of call                                          */
    void (*run)(lab *l, const struct timed *t);
    int rows, width;
    vl_epilogue epilogue;
} timed;

static stats time_calls(lab *l, const timed *t) {
    double v[CALLS];
    t->run(l, t); /* packs the weights, touches the pages */
    for (int i = 0; i < CALLS; i++) {
        double start = vl_now();
        t->run(l, t);
        v[i] = vl_now() - start;
    }
    return stats_of(v, CALLS);
}
static double median_call(lab *l, const timed *t) { return time_calls(l, t).p50; }

/* ---- weights --------------------------------------------------------------------------------- */

static int fill_pool(lab *l, int width, vl_err *err) {
    size_t each = (size_t)N * (size_t)width * (size_t)l->mode->bits / 8, most = vl_uncached_bytes();
    l->pooled = l->next = 0;
    while (l->pooled < POOL_MOST && (size_t)l->pooled * each < most) {
        vl_matrix *w = &l->pool[l->pooled];
        *w = (vl_matrix){.name = "op_rates", .data = l->weights, .dtype = VL_BF16, .rows = N,
                         .cols = width};
        if (l->b->ops->prepare(l->b, w, VL_USE_LINEAR | VL_USE_NARROW, err)) return -1;
        l->b->ops->linear(l->b, l->y, N, l->x, width, 1, w, NULL, VL_EPI_NONE);
        l->pooled++;
    }
    return 0;
}

/* Rows come from memory and go there, as they do between the operations of a pass. */
static void run_linear(lab *l, const timed *t) {
    int turn = l->next++;
    const vl_matrix *w = &l->pool[turn % l->pooled];
    int ins = MOST_ROWS * 3 * PATCH_D / (t->rows * t->width);
    int outs = MOST_ROWS * 3 * PATCH_D / (t->rows * N);
    l->b->ops->linear(l->b, l->y + (size_t)(turn % outs) * (size_t)(t->rows * N), N,
                      l->x + (size_t)(turn % ins) * (size_t)(t->rows * t->width), t->width, t->rows,
                      w, NULL, t->epilogue);
}

static int linear_rates(lab *l, op_rates *r, vl_err *err) {
    for (int k = 0; k < RATE_WIDTHS; k++) {
        int width = rate_widths[k];
        if (fill_pool(l, width, err)) return -1;
        timed one = {run_linear, 1, width, VL_EPI_NONE};
        double bytes = (double)N * width * l->mode->bits / 8, sum = 0;
        for (int i = 0; i < 5; i++) sum += median_call(l, &one);
        r->stream[k] = bytes / (sum / 5);
        for (int i = 0; i < RATE_ROWS; i++) {
            timed many = {run_linear, rate_rows[i], width, VL_EPI_NONE};
            r->linear[i][k] = 2.0 * rate_rows[i] * N * width / median_call(l, &many);
        }
        if (k) continue;
        timed plain = {run_linear, 784, width, VL_EPI_NONE}, gelu = plain;
        gelu.epilogue = VL_EPI_GELU_TANH;
        r->gelu = (time_calls(l, &gelu).best - time_calls(l, &plain).best) / (784.0 * N);
        if (r->gelu < 0) r->gelu = 0; /* lost in the spread of the two */
    }
    return 0;
}

/* ---- attention ------------------------------------------------------------------------------- */

static void put_ints(lab *l, size_t at, int n, int from, int step) {
    int32_t *v = vl_calloc((size_t)n, sizeof *v);
    vl_assert(v, "no memory for %d indices", n);
    for (int i = 0; i < n; i++) v[i] = from + i * step;
    l->b->ops->put(l->b, l->index + at, v, (size_t)n * sizeof *v);
    free(v);
}

static void run_full(lab *l, const timed *t) {
    l->b->ops->attend_full(l->b, l->y, l->x, l->index, 1, t->rows, PATCH_D / VISION_HEAD,
                           VISION_HEAD, 0.125f);
}

/* index: 64 numbers of the block table, then row_seq and row_len, 1024 each. */
static void run_causal(lab *l, const timed *t) {
    l->b->ops->attend_causal(
        l->b, &(vl_causal_args){.out = l->y, .q = l->x, .ldq = HEADS * HEAD, .k_pool = l->k_pool,
                                .v_pool = l->v_pool, .table = l->index, .max_blocks = 64,
                                .row_seq = l->index + 64, .row_len = l->index + 64 + 1024,
                                .T = t->rows, .H = HEADS, .G = GROUPS, .E = HEAD, .scale = 0.088f});
}

static void attention_rates(lab *l, op_rates *r) {
    for (int i = 0; i < 2; i++) {
        double n = full_sizes[i];
        put_ints(l, 0, 2, 0, full_sizes[i]);
        r->attend_full[i] =
            4 * n * n * PATCH_D / median_call(l, &(timed){run_full, full_sizes[i], 0, VL_EPI_NONE});
    }
    put_ints(l, 0, 64, 0, 1);
    put_ints(l, 64, 1024, 0, 0);
    put_ints(l, 64 + 1024, 1024, 1, 1);
    for (int i = 0; i < 2; i++) {
        double n = causal_sizes[i];
        timed t = {run_causal, causal_sizes[i], 0, VL_EPI_NONE};
        r->attend_causal[i] = 2 * n * n * HEADS * HEAD / median_call(l, &t);
    }
    for (int i = 0; i < 2; i++) {
        put_ints(l, 64 + 1024, 1, step_sizes[i], 0);
        timed t = {run_causal, 1, 0, VL_EPI_NONE};
        r->attend_step[i] = 4.0 * step_sizes[i] * HEADS * HEAD / median_call(l, &t);
    }
}

/* ---- row-wise operations --------------------------------------------------------------------- */

enum { ROWS = 784, COLS = 1024 };
static void run_layernorm(lab *l, const timed *t) {
    l->b->ops->layernorm(l->b, l->y, l->x, l->tables, l->tables, t->rows, COLS, 1e-6f);
}
static void run_rmsnorm(lab *l, const timed *t) {
    l->b->ops->rmsnorm(l->b, l->y, l->x, l->tables, t->rows, COLS, 1e-6f);
}
static void run_rope(lab *l, const timed *t) { /* q and k: 2 x COLS elements a row */
    l->b->ops->rope_vision(l->b, l->z, l->tables, l->tables, t->rows, COLS / VISION_HEAD,
                           VISION_HEAD);
}
static void run_swiglu(lab *l, const timed *t) {
    l->b->ops->swiglu(l->b, l->y, l->x, l->z, t->rows, COLS);
}

static void row_rates(lab *l, op_rates *r) {
    double n = (double)ROWS * COLS;
    r->layernorm = median_call(l, &(timed){run_layernorm, ROWS, 0, VL_EPI_NONE}) / n;
    r->rmsnorm = median_call(l, &(timed){run_rmsnorm, ROWS, 0, VL_EPI_NONE}) / n;
    r->rope = median_call(l, &(timed){run_rope, ROWS, 0, VL_EPI_NONE}) / (2 * n);
    r->swiglu = median_call(l, &(timed){run_swiglu, ROWS, 0, VL_EPI_NONE}) / n;
    r->call = median_call(l, &(timed){run_rmsnorm, 1, 0, VL_EPI_NONE});
}

/* ---- all of them ----------------------------------------------------------------------------- */

static float *noise(lab *l, size_t n) {
    float *host = malloc(n * sizeof *host), *p = l->b->ops->alloc(l->b, n * sizeof *host);
    vl_rng rng;
    vl_rng_seed(&rng, n);
    for (size_t i = 0; host && i < n; i++) host[i] = (float)vl_rng_uniform(&rng) - 0.5f;
    if (p && host) l->b->ops->put(l->b, p, host, n * sizeof *host);
    free(host);
    return p;
}

static int open_lab(lab *l, vl_err *err) {
    size_t wide = (size_t)MOST_ROWS * 3 * PATCH_D, weights = (size_t)N * MOST_COLS;
    size_t pool = (size_t)64 * GROUPS * VL_KV_BLOCK * HEAD; /* 4096 tokens */
    const vl_ops *o = l->b->ops;
    l->x = noise(l, wide);
    l->y = noise(l, wide);
    l->z = noise(l, (size_t)ROWS * 3 * COLS);
    l->tables = noise(l, (size_t)ROWS * COLS);
    l->k_pool = o->alloc(l->b, pool * o->kv_elem);
    l->v_pool = o->alloc(l->b, pool * o->kv_elem);
    l->index = o->alloc(l->b, (64 + 2 * 1024) * sizeof(int32_t));
    l->weights = malloc(weights * sizeof *l->weights);
    if (!l->x || !l->y || !l->z || !l->tables || !l->k_pool || !l->v_pool || !l->index ||
        !l->weights)
        return vl_fail(err, VL_E_NOMEM, "no memory to time single operations");
    vl_rng rng;
    vl_rng_seed(&rng, 2);
    for (size_t i = 0; i < weights; i++) /* +-0.01 or so: sign, exponent and mantissa vary */
        l->weights[i] = vl_f32_to_bf16((float)(vl_rng_uniform(&rng) - 0.5) * 0.05f);
    return 0;
}

static void close_lab(lab *l) {
    const vl_ops *o = l->b->ops;
    void *all[] = {l->x, l->y, l->z, l->tables, l->k_pool, l->v_pool, l->index};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) o->release(l->b, all[i]);
    free(l->weights);
    o->close(l->b);
}

int op_rates_measure(op_rates *r, const num_mode *m, int threads, vl_err *err) {
    lab l = {.mode = m};
    if (vl_backend_open(&l.b, &(vl_backend_params){"cpu", m->name, threads}, err)) return -1;
    int rc = open_lab(&l, err) || linear_rates(&l, r, err) ? -1 : 0;
    if (!rc) attention_rates(&l, r);
    if (!rc) row_rates(&l, r);
    close_lab(&l);
    return rc;
}

/* ---- as rows --------------------------------------------------------------------------------- */

static void add(json_t *rows, const char *op, const char *shape, double rate, const char *unit,
                double peak) {
    json_t *o = json_pack("{s:s,s:s,s:f,s:s}", "op", op, "shape", shape, "rate", rate, "unit", unit);
    if (peak > 0) json_object_set_new(o, "peak_percent", json_real(100 * rate / peak));
    json_array_append_new(rows, o);
}

json_t *op_rates_json(const op_rates *r, const char *mode, double peak_gflops, double read_gbs) {
    json_t *rows = json_array();
    char s[64];
    for (int k = 0; k < RATE_WIDTHS; k++) {
        snprintf(s, sizeof s, "1 x %d x %d", rate_widths[k], N);
        add(rows, "linear, one row", s, r->stream[k] / 1e9, "GB/s", read_gbs);
    }
    for (int i = 0; i < RATE_ROWS; i++)
        for (int k = 0; k < RATE_WIDTHS; k++) {
            snprintf(s, sizeof s, "%d x %d x %d", rate_rows[i], rate_widths[k], N);
            add(rows, "linear", s, r->linear[i][k] / 1e9, "GFLOP/s", peak_gflops);
        }
    const struct { const char *op; const int *sizes; const double *v; } kinds[] = {
        {"attention of patches", full_sizes, r->attend_full},
        {"causal attention", causal_sizes, r->attend_causal},
        {"attention of one token", step_sizes, r->attend_step}};
    for (int i = 0; i < 3; i++)
        for (int k = 0; k < 2; k++) {
            snprintf(s, sizeof s, "%d", kinds[i].sizes[k]);
            add(rows, kinds[i].op, s, kinds[i].v[k] / 1e9, "GFLOP/s", i < 2 ? peak_gflops : 0);
        }
    const struct { const char *op; double v; } each[] = {
        {"layer norm", r->layernorm}, {"RMS norm", r->rmsnorm}, {"rotation", r->rope},
        {"SwiGLU", r->swiglu},        {"GELU", r->gelu}};
    for (int i = 0; i < 5; i++) {
        snprintf(s, sizeof s, "%d x %d", ROWS, COLS);
        add(rows, each[i].op, s, each[i].v * 1e9, "ns per element", 0);
    }
    add(rows, "any, of one row", "1 x 1024", r->call * 1e6, "us per call", 0);
    size_t i;
    json_t *o;
    json_array_foreach(rows, i, o) json_object_set_new(o, "mode", json_string(mode));
    return rows;
}
