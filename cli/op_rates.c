/* op_rates.c: times single operations of the CPU backend (see op_rates.h). A table says which; every pass
 * calls each of them for a tenth of a second or more, on matrices taken in turn, more of them than the caches hold. */
#include "cli/op_rates.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/ops.h"
#include "kernels/peaks.h"

enum { HEADS = 16, GROUPS = 8, HEAD = 128, VISION_HEAD = 64, PATCH_D = 1024 };
enum { POOL_MOST = 512, MOST_ROWS = 3136, MOST_COLS = 6144, ROWS = 784, COLS = 1024 };
const int rate_rows[RATE_ROWS] = {1, 236, 784}, rate_outs[RATE_OUTS] = {1024, 6144};
const int rate_widths[RATE_WIDTHS] = {1024, 2048, 6144};
static const int full_sizes[2] = {784, 3136}, causal_sizes[2] = {236, 1024};
static const int step_sizes[2] = {236, 1024};

/* Where the numbers of attention stand in op_lab.index: bounds of one picture of each size, a block table, the
 * sequence and length of each row. */
enum { CU = 0, TABLE = 4, BLOCKS = 64, ROW_SEQ = TABLE + BLOCKS, ROW_LEN = ROW_SEQ + 1024, STEP_LEN = ROW_LEN + 1024,
       INDICES = STEP_LEN + 2 };

typedef struct pool { vl_matrix w[POOL_MOST]; int n, next; } pool;

typedef enum timed_id {
    LINEAR,                                            /* [rows][outs][widths]                     */
    GELU = LINEAR + RATE_ROWS * RATE_OUTS * RATE_WIDTHS, FULL, CAUSAL = FULL + 2, STEP = CAUSAL + 2, LAYERNORM = STEP + 2,
    RMSNORM, ROPE, SWIGLU, CALL, TIMED
} timed_id;

typedef struct timed {             /* one kind of call and its times so far                     */
    void (*run)(op_lab *l, const struct timed *t);
    int rows, at;                  /* at: of the pool or size                                   */
    vl_epilogue epilogue;
    double seconds, best;
    int n;
} timed;

struct op_lab {
    vl_backend *b;
    float *x, *y, *z;              /* noise: x and y [MOST_ROWS, 3 * PATCH_D], z [ROWS, 3 * COLS]  */
    float *rows;                   /* as x, for linear alone: kept as its products want it, if the backend can */
    float *tables;                 /* norm weights                                              */
    float *cos, *sin;              /* [ROWS, VISION_HEAD / 2] of one angle: z turns and never shrinks to subnormals */
    uint16_t *weights;             /* bf16 noise, the source of every matrix                    */
    void *k_pool, *v_pool;
    int32_t *index;                /* [INDICES], on the backend                                 */
    const num_mode *mode;
    pool pool[RATE_OUTS * RATE_WIDTHS];
    timed timed[TIMED];
};

/* ---- the calls ------------------------------------------------------------------------------- */

/* Weights come from memory; rows lie where the call before had them, as a pass has one buffer for each kind. */
static void run_linear(op_lab *l, const timed *t) {
    pool *p = &l->pool[t->at];
    const vl_matrix *w = &p->w[p->next++ % p->n];
    l->b->ops->linear(l->b, l->y, w->rows, l->rows, w->cols, t->rows, w, NULL, t->epilogue);
}
static void run_full(op_lab *l, const timed *t) {
    l->b->ops->attend_full(l->b, l->y, l->x, l->index + CU + 2 * t->at, 1, t->rows, PATCH_D / VISION_HEAD,
                           VISION_HEAD, 0.125f);
}
static void causal(op_lab *l, int rows, int len_at) {
    l->b->ops->attend_causal(
        l->b, &(vl_causal_args){.out = l->y, .q = l->x, .ldq = HEADS * HEAD, .k_pool = l->k_pool,
                                .v_pool = l->v_pool, .table = l->index + TABLE, .max_blocks = BLOCKS,
                                .row_seq = l->index + ROW_SEQ, .row_len = l->index + len_at,
                                .T = rows, .H = HEADS, .G = GROUPS, .E = HEAD, .scale = 0.088f});
}
static void run_causal(op_lab *l, const timed *t) { causal(l, t->rows, ROW_LEN); }
static void run_step(op_lab *l, const timed *t) { causal(l, 1, STEP_LEN + t->at); }
static void run_layernorm(op_lab *l, const timed *t) {
    l->b->ops->layernorm(l->b, l->y, l->x, l->tables, l->tables, t->rows, COLS, 1e-6f);
}
static void run_rmsnorm(op_lab *l, const timed *t) {
    l->b->ops->rmsnorm(l->b, l->y, l->x, l->tables, t->rows, COLS, 1e-6f);
}
static void run_rope(op_lab *l, const timed *t) { /* q and k: 2 x COLS elements a row */
    l->b->ops->rope_vision(l->b, l->z, l->cos, l->sin, t->rows, COLS / VISION_HEAD,
                           VISION_HEAD);
}
static void run_swiglu(op_lab *l, const timed *t) {
    l->b->ops->swiglu(l->b, l->y, l->x, l->z, t->rows, COLS);
}

static void fill_table(timed *t) {
    enum { POOLS = RATE_OUTS * RATE_WIDTHS };
    for (int i = 0; i < RATE_ROWS * POOLS; i++)
        t[LINEAR + i] = (timed){.run = run_linear, .rows = rate_rows[i / POOLS], .at = i % POOLS};
    t[GELU] = (timed){.run = run_linear, .rows = ROWS, .epilogue = VL_EPI_GELU_TANH};
    for (int i = 0; i < 2; i++) {
        t[FULL + i] = (timed){.run = run_full, .rows = full_sizes[i], .at = i};
        t[CAUSAL + i] = (timed){.run = run_causal, .rows = causal_sizes[i], .at = i};
        t[STEP + i] = (timed){.run = run_step, .rows = 1, .at = i};
    }
    t[LAYERNORM] = (timed){.run = run_layernorm, .rows = ROWS};
    t[RMSNORM] = (timed){.run = run_rmsnorm, .rows = ROWS};
    t[ROPE] = (timed){.run = run_rope, .rows = ROWS};
    t[SWIGLU] = (timed){.run = run_swiglu, .rows = ROWS};
    t[CALL] = (timed){.run = run_rmsnorm, .rows = 1};
}

/* ---- opening --------------------------------------------------------------------------------- */

/* Half of what the caches hold, but the other pools come between two turns. */
static int fill_pool(op_lab *l, pool *p, int N, int K, vl_err *err) {
    size_t each = (size_t)N * (size_t)K * (size_t)l->mode->bits / 8, most = vl_uncached_bytes() / 2;
    while (p->n < POOL_MOST && (size_t)p->n * each < most) {
        vl_matrix *w = &p->w[p->n];
        *w = (vl_matrix){.name = "op_rates", .data = l->weights, .dtype = VL_BF16, .rows = N, .cols = K};
        if (l->b->ops->prepare(l->b, w, VL_USE_LINEAR | VL_USE_NARROW, err)) return -1;
        l->b->ops->linear(l->b, l->y, N, l->rows, K, 1, w, NULL, VL_EPI_NONE); /* packs it */
        p->n++;
    }
    return 0;
}

static void fill_index(op_lab *l) {
    int32_t v[INDICES] = {0};
    for (int i = 0; i < 2; i++) {
        v[CU + 2 * i + 1] = full_sizes[i];
        v[STEP_LEN + i] = step_sizes[i];
    }
    for (int i = 0; i < BLOCKS; i++) v[TABLE + i] = i;
    for (int i = 0; i < 1024; i++) v[ROW_LEN + i] = i + 1;
    l->b->ops->put(l->b, l->index, v, sizeof v);
}

/* Read as pairs of bf16 it is noise as well, as pools may be. */
static float *noise(op_lab *l, size_t n) {
    float *host = malloc(n * sizeof *host), *p = l->b->ops->alloc(l->b, n * sizeof *host);
    vl_rng rng;
    vl_rng_seed(&rng, n);
    for (size_t i = 0; host && i < n; i++) {
        uint32_t half = vl_f32_to_bf16((float)vl_rng_uniform(&rng) - 0.5f), pair = half << 16 | half;
        memcpy(&host[i], &pair, sizeof pair);
    }
    if (p && host) l->b->ops->put(l->b, p, host, n * sizeof *host);
    free(host);
    return p;
}

static float *constant(op_lab *l, size_t n, float value) {
    float *host = malloc(n * sizeof *host), *p = l->b->ops->alloc(l->b, n * sizeof *host);
    for (size_t i = 0; host && i < n; i++) host[i] = value;
    if (p && host) l->b->ops->put(l->b, p, host, n * sizeof *host);
    free(host);
    return p;
}

static int fill_lab(op_lab *l, vl_err *err) {
    size_t wide = (size_t)MOST_ROWS * 3 * PATCH_D, weights = (size_t)MOST_COLS * MOST_COLS;
    size_t keys = (size_t)BLOCKS * GROUPS * VL_KV_BLOCK * HEAD; /* 4096 tokens */
    const vl_ops *o = l->b->ops;
    l->x = noise(l, wide);
    l->y = noise(l, wide);
    l->rows = noise(l, wide);
    l->z = noise(l, (size_t)ROWS * 3 * COLS);
    l->tables = noise(l, (size_t)ROWS * COLS);
    l->cos = constant(l, (size_t)ROWS * VISION_HEAD / 2, 0.8f);
    l->sin = constant(l, (size_t)ROWS * VISION_HEAD / 2, 0.6f);
    l->k_pool = noise(l, keys * l->b->kv_elem / sizeof(float));
    l->v_pool = noise(l, keys * l->b->kv_elem / sizeof(float));
    l->index = o->alloc(l->b, INDICES * sizeof(int32_t));
    l->weights = malloc(weights * sizeof *l->weights);
    if (!l->x || !l->y || !l->z || !l->rows || !l->tables || !l->cos || !l->sin || !l->k_pool || !l->v_pool || !l->index ||
        !l->weights)
        return vl_fail(err, VL_E_NOMEM, "no memory to time single operations");
    vl_rng rng;
    vl_rng_seed(&rng, 2);
    for (size_t i = 0; i < weights; i++) /* +-0.01 or so: sign, exponent and mantissa vary */
        l->weights[i] = vl_f32_to_bf16((float)(vl_rng_uniform(&rng) - 0.5) * 0.05f);
    o->only_linear(l->b, l->rows, wide);
    for (int i = 0; i < RATE_OUTS * RATE_WIDTHS; i++)
        if (fill_pool(l, &l->pool[i], rate_outs[i / RATE_WIDTHS], rate_widths[i % RATE_WIDTHS], err)) return -1;
    fill_index(l);
    return 0;
}

int op_lab_open(op_lab **out, const num_mode *m, int threads, vl_err *err) {
    op_lab *l = vl_calloc(1, sizeof *l);
    if (!l) return vl_fail(err, VL_E_NOMEM, "no memory to time single operations");
    l->mode = m;
    fill_table(l->timed);
    if (vl_backend_open(&l->b, &(vl_backend_params){"cpu", m->name, threads}, err) || fill_lab(l, err)) {
        op_lab_close(l);
        return -1;
    }
    *out = l;
    return 0;
}

void op_lab_close(op_lab *l) {
    if (!l) return;
    const vl_ops *o = l->b ? l->b->ops : NULL;
    void *all[] = {l->x, l->y, l->z, l->rows, l->tables, l->cos, l->sin, l->k_pool, l->v_pool, l->index};
    for (size_t i = 0; o && i < sizeof all / sizeof *all; i++) o->release(l->b, all[i]);
    if (o) o->close(l->b);
    free(l->weights);
    free(l);
}

/* ---- measuring ------------------------------------------------------------------------------- */

/* In short turns, for a neighbour comes and goes within seconds. */
void op_lab_pass(op_lab *l) {
    enum { TURNS = 4 };
    const double turn = 0.03;
    for (int i = 0; i < TURNS; i++)
        for (timed *t = l->timed; t < l->timed + TIMED; t++) {
            if (!t->n) t->run(l, t); /* touches the pages */
            for (double spent = 0, start = vl_now(), now; spent < turn; start = now) {
                t->run(l, t);
                now = vl_now();
                spent += now - start;
                t->seconds += now - start;
                if (!t->n++ || now - start < t->best) t->best = now - start;
            }
        }
}

static double mean(const op_lab *l, int id) { return l->timed[id].seconds / l->timed[id].n; }

/* Means, for a stage is a sum: what a neighbour takes now and then is in both. */
void op_lab_rates(const op_lab *l, op_rates *r) {
    double elements = (double)ROWS * COLS;
    for (int i = 0, id = LINEAR; i < RATE_ROWS; i++)
        for (int n = 0; n < RATE_OUTS; n++)
            for (int k = 0; k < RATE_WIDTHS; k++, id++)
                r->linear[i][n][k] = 2.0 * rate_rows[i] * rate_outs[n] * rate_widths[k] / mean(l, id);
    const timed *plain = &l->timed[LINEAR + (RATE_ROWS - 1) * RATE_OUTS * RATE_WIDTHS], *gelu = &l->timed[GELU];
    r->gelu = fmax(gelu->best - plain->best, 0) / ((double)ROWS * rate_outs[0]); /* little between two large times */
    for (int i = 0; i < 2; i++) {
        double full = full_sizes[i], rows = causal_sizes[i];
        r->attend_full[i] = 4 * full * full * PATCH_D / mean(l, FULL + i);
        r->attend_causal[i] = 2 * rows * rows * HEADS * HEAD / mean(l, CAUSAL + i);
        r->attend_step[i] = 4.0 * step_sizes[i] * HEADS * HEAD / mean(l, STEP + i);
    }
    r->layernorm = mean(l, LAYERNORM) / elements;
    r->rmsnorm = mean(l, RMSNORM) / elements;
    r->rope = mean(l, ROPE) / (2 * elements);
    r->swiglu = mean(l, SWIGLU) / elements;
    r->call = mean(l, CALL);
}

/* ---- as rows --------------------------------------------------------------------------------- */

static void add(json_t *rows, const char *op, const char *shape, double rate, const char *unit,
                double peak) {
    json_t *o = json_pack("{s:s,s:s,s:f,s:s}", "op", op, "shape", shape, "rate", rate, "unit", unit);
    if (peak > 0) json_object_set_new(o, "peak_percent", json_real(100 * rate / peak));
    json_array_append_new(rows, o);
}

json_t *op_rates_json(const op_rates *r, const num_mode *m, double peak_gflops, double read_gbs) {
    json_t *rows = json_array();
    char s[64];
    for (int i = 0; i < RATE_ROWS; i++)
        for (int n = 0; n < RATE_OUTS; n++)
            for (int k = 0; k < RATE_WIDTHS; k++) {
                double rate = r->linear[i][n][k] / 1e9;
                snprintf(s, sizeof s, "%d x %d x %d", rate_rows[i], rate_widths[k], rate_outs[n]);
                if (i) add(rows, "linear", s, rate, "GFLOP/s", peak_gflops);
                else add(rows, "linear, one row", s, rate / 2 * m->bits / 8, "GB/s", read_gbs);
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
    json_array_foreach(rows, i, o) json_object_set_new(o, "mode", json_string(m->name));
    return rows;
}
