/* tuner.c: measures the choices of kernels/tuning.h: each alone, its values in turns on the same work, so that a
 * busy neighbour meets all of them. Each time is compared with the default's of the same round; a value wins if the
 * median of these ratios is 2 % less and 7 of 9 rounds say so, since less is noise and the defaults were chosen on
 * several machines. */
#include <stdio.h>
#include <stdlib.h>

#include "kernels/cpu/cpu.h"
#include "kernels/threads.h"

enum { ROUNDS = 9, WINS = 7, VALUES_MAX = 6, SHAPES_MAX = 8, MATRICES = 4, ROWS_MAX = 784 };
static const double WORTH = 0.98;

/* Matrices of the work: Qwen3-VL-2B's gate, down and vision fc1, and one of the demo model's size. */
static const struct { int N, K; } SIZES[MATRICES] = {{6144, 2048}, {2048, 6144}, {4096, 1024}, {320, 320}};
enum { LARGEST = 6144 * 2048, WIDEST = 6144 };

typedef struct work {
    const char *dtype;
    int times;
    struct { int matrix, T; } shape[SHAPES_MAX]; /* up to T = 0                               */
} work;
static const work EXACT_MANY = {"exact", 1, {{2, 784}, {0, 236}, {1, 236}}};
static const work EXACT_FEW = {"exact", 1, {{0, 2}, {0, 3}, {0, 4}, {0, 5}, {0, 6}, {0, 7}, {0, 8}}};
static const work SMALL = {"exact", 200, {{3, 1}, {3, 1}, {3, 1}, {3, 1}}};
static const work INT8_MANY = {"int8", 1, {{2, 784}, {0, 236}, {1, 236}}};
static const work INT8_SOME = {"int8", 1, {{0, 24}, {0, 32}, {0, 48}, {0, 64}, {0, 96}, {0, 160}}};
static const work INT8_ONE = {"int8", 4, {{0, 1}, {1, 1}}};
static const work INT4_ONE = {"int4", 4, {{0, 1}, {1, 1}}};

typedef struct choice {
    const char *key;
    const work *work;
    const char *values[VALUES_MAX]; /* all NULL: every line of the slot `key` that runs here       */
} choice;
static const choice CHOICES[] = {
    {"spins", &SMALL, {"0", "1000", "4000", "16000"}},
    {"exact_few", &EXACT_FEW, {"1", "2", "4", "6", "8"}},
    {"exact_rows", &EXACT_MANY, {"120", "240", "396", "792"}},
    {"exact_panels", &EXACT_MANY, {"2", "4", "8", "16"}},
    {"pack_rows", &EXACT_MANY, {NULL}},
    {"int_tiles", &INT8_SOME, {"0", "24", "48", "96", "160"}},
    {"int_tile_rows", &INT8_MANY, {"240", "400", "800"}},
    {"int_rows", &INT8_MANY, {"120", "240", "396", "792"}},
    {"int_panels", &INT8_MANY, {"2", "4", "8", "16"}},
    {"gemm_q8", &INT8_ONE, {NULL}},
    {"gemm_q4", &INT4_ONE, {NULL}},
    {"pack_q", &INT8_ONE, {NULL}},
};

typedef struct lab {
    vl_backend *b;
    vl_matrix m[MATRICES];
    uint16_t *weights;             /* [LARGEST] bf16, of every matrix                         */
    float *x, *out, *want;         /* [ROWS_MAX][WIDEST]                                      */
} lab;

static int open_backend(lab *l, const char *dtype, int threads, const vl_tuning *t, vl_err *err) {
    if (l->b) l->b->ops->close(l->b);
    l->b = NULL;
    if (vl_backend_open(&l->b, &(vl_backend_params){"cpu", dtype, threads}, err)) return -1;
    for (int i = 0; i < MATRICES; i++) {
        l->m[i] = (vl_matrix){.name = "tune", .data = l->weights, .dtype = VL_BF16, .rows = SIZES[i].N, .cols = SIZES[i].K};
        if (l->b->ops->prepare(l->b, &l->m[i], VL_USE_LINEAR | VL_USE_NARROW, err)) return -1;
    }
    return vl_backend_retune(l->b, t) ? 0 : vl_fail(err, VL_E_BACKEND, "the CPU backend cannot be tuned");
}

static void run(lab *l, const work *w, int i) {
    const vl_matrix *m = &l->m[w->shape[i].matrix];
    l->b->ops->linear(l->b, l->out, m->rows, l->x, m->cols, w->shape[i].T, m, NULL, VL_EPI_NONE);
}

static double time_work(lab *l, const work *w) {
    double start = vl_now();
    for (int n = 0; n < w->times; n++)
        for (int i = 0; i < SHAPES_MAX && w->shape[i].T; i++) run(l, w, i);
    return vl_now() - start;
}

/* Every product of the work has the bits that the first choice gave it. */
static bool same_bits(lab *l, const work *w, const vl_tuning *first, const vl_tuning *t) {
    for (int i = 0; i < SHAPES_MAX && w->shape[i].T; i++) {
        size_t bytes = (size_t)w->shape[i].T * (size_t)l->m[w->shape[i].matrix].rows * sizeof(float);
        vl_backend_retune(l->b, first);
        run(l, w, i);
        memcpy(l->want, l->out, bytes);
        vl_backend_retune(l->b, t);
        memset(l->out, 0xff, bytes);
        run(l, w, i);
        if (memcmp(l->want, l->out, bytes)) return false;
    }
    return true;
}

static double median(double *v, int n) {
    for (int i = 1; i < n; i++)
        for (int k = i; k > 0 && v[k - 1] > v[k]; k--) {
            double t = v[k];
            v[k] = v[k - 1], v[k - 1] = t;
        }
    return v[n / 2];
}

/* What t says about `key`, as text. */
static void value_of(char out[40], const vl_tuning *t, const char *key) {
    for (int i = 0; i < VL_TUNE_VALUES; i++)
        if (!strcmp(vl_tune_infos[i].name, key)) snprintf(out, 40, "%d", t->value[i]);
    for (int i = 0; i < VL_TUNE_SLOTS_COUNT; i++)
        if (!strcmp(vl_tune_slots[i], key)) snprintf(out, 40, "%s", t->kernel[i] ? t->kernel[i] : "best present");
}

/* The values of a choice as tunings; how many. [0] is t as it is. */
static int list_values(const choice *c, const vl_tuning *t, vl_tuning out[VALUES_MAX + 1]) {
    char text[96], now[40];
    int n = 0;
    vl_err err;
    value_of(now, t, c->key);
    out[n++] = *t;
    for (int i = 0; c->values[0] && i < VALUES_MAX && c->values[i]; i++) {
        snprintf(text, sizeof text, "%s=%s", c->key, c->values[i]);
        out[n] = *t;
        if (strcmp(c->values[i], now) && !vl_tuning_set(&out[n], text, &err)) n++;
    }
    for (int i = 0; !c->values[0] && i < vl_candidate_count && n <= VALUES_MAX; i++) {
        const vl_candidate *k = &vl_candidates[i];
        if (strcmp(vl_slot_names[k->slot], c->key) || k->tier == VL_TIER_scalar) continue;
        snprintf(text, sizeof text, "%s=%s", c->key, k->name);
        out[n] = *t;
        if (!vl_tuning_set(&out[n], text, &err)) n++;
    }
    if (!c->values[0] && n > 1) n--; /* the last line present is what "best present" is */
    return n;
}

static int measure(lab *l, const choice *c, vl_tuning *t, vl_tune_row_fn *row, void *user, vl_err *err) {
    vl_tuning values[VALUES_MAX + 1];
    double seconds[VALUES_MAX + 1][ROUNDS];
    int n = list_values(c, t, values), best = 0;
    for (int i = 1; i < n; i++)
        if (!same_bits(l, c->work, &values[0], &values[i]))
            return vl_fail(err, VL_E_BACKEND, "another value of %s changes results: this is a bug", c->key);
    for (int r = 0; r < ROUNDS; r++)
        for (int i = 0; i < n; i++) {
            vl_backend_retune(l->b, &values[i]);
            seconds[i][r] = time_work(l, c->work);
        }
    double least = WORTH;
    for (int i = 1; i < n; i++) {
        double ratio[ROUNDS];
        int wins = 0;
        for (int r = 0; r < ROUNDS; r++) ratio[r] = seconds[i][r] / seconds[0][r], wins += ratio[r] < 1;
        double middle = median(ratio, ROUNDS);
        if (wins >= WINS && middle < least) best = i, least = middle;
    }
    vl_tune_row out = {.key = c->key, .seconds_from = median(seconds[0], ROUNDS)};
    out.seconds_to = best ? least * out.seconds_from : out.seconds_from;
    value_of(out.from, t, c->key);
    *t = values[best];
    value_of(out.to, t, c->key);
    vl_backend_retune(l->b, t);
    row(user, &out);
    return 0;
}

/* Half the threads, where a core runs two of them; a pass of many rows and one of few count alike. */
static int measure_threads(lab *l, vl_tuning *t, int all, vl_tune_row_fn *row, void *user, vl_err *err) {
    int counts[] = {all, all / 2};
    double total[2] = {0};
    vl_tune_row out = {.key = "threads"};
    if (all < 4) return 0; /* of two, one is never both */
    for (int i = 0; i < 2; i++) {
        double many[ROUNDS], few[ROUNDS];
        if (open_backend(l, "exact", counts[i], t, err)) return -1;
        for (int r = 0; r < ROUNDS; r++) many[r] = time_work(l, &EXACT_MANY), few[r] = time_work(l, &EXACT_FEW);
        total[i] = median(many, ROUNDS) + median(few, ROUNDS);
    }
    bool half = total[1] < WORTH * total[0];
    if (half) t->value[VL_TUNE_threads] = counts[1];
    snprintf(out.from, sizeof out.from, "%d", all);
    snprintf(out.to, sizeof out.to, "%d", half ? counts[1] : all);
    out.seconds_from = total[0], out.seconds_to = total[half];
    row(user, &out);
    return 0;
}

static int open_lab(lab *l, vl_err *err) {
    vl_rng rng;
    size_t n = (size_t)ROWS_MAX * WIDEST;
    *l = (lab){.weights = vl_calloc(LARGEST, 2), .x = vl_calloc(n, 4), .out = vl_calloc(n, 4), .want = vl_calloc(n, 4)};
    if (!l->weights || !l->x || !l->out || !l->want) return vl_fail(err, VL_E_NOMEM, "no memory to measure with");
    vl_rng_seed(&rng, 1);
    for (size_t i = 0; i < LARGEST; i++) l->weights[i] = vl_f32_to_bf16((float)vl_rng_uniform(&rng) - 0.5f);
    for (size_t i = 0; i < n; i++) l->x[i] = (float)vl_rng_uniform(&rng) - 0.5f;
    return 0;
}

int vl_tune_measure(vl_tuning *t, const char *only, vl_tune_row_fn *row, void *user, vl_err *err) {
    lab l;
    int threads = vl_usable_threads(), measured = 0;
    const char *dtype = "";
    vl_tuning_default(t);
    int rc = open_lab(&l, err);
    for (size_t i = 0; !rc && i < sizeof CHOICES / sizeof *CHOICES; i++) {
        const work *w = CHOICES[i].work;
        if (only && strcmp(only, CHOICES[i].key)) continue;
        measured++;
        if (strcmp(dtype, w->dtype)) {
            rc = open_backend(&l, w->dtype, threads, t, err);
            if (!rc) time_work(&l, w); /* packs */
        }
        dtype = w->dtype;
        bool idle = !rc && cpu_of(l.b)->split && (w == &EXACT_MANY || w == &EXACT_FEW); /* tiles have no such choice */
        if (!rc && !idle) rc = measure(&l, &CHOICES[i], t, row, user, err);
    }
    bool and_threads = !only || !strcmp(only, "threads");
    if (!rc && and_threads) rc = measure_threads(&l, t, threads, row, user, err);
    if (!rc && !measured && !and_threads)
        rc = vl_fail(err, VL_E_USAGE, "no choice \"%.40s\" to measure; `vitreous tune --show` lists them", only);
    if (l.b) l.b->ops->close(l.b);
    free(l.weights);
    free(l.x);
    free(l.out);
    free(l.want);
    return rc;
}
