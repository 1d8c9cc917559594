/* test_ladder.c: every rung of kernels/cpu/ladder against its formula in double; --bench then times
 * the rungs of this machine's widest tier, and the engine's own op as the last row, beside the peaks
 * of the same run. --md prints the table as Markdown. `make ladder` is this with --bench. */
#include "kernels/cpu/ladder/ladder.h"
#include "kernels/peaks.h"
#include "tests/kernels/check.h"

static const lad_rung RUNGS[] = {
#define LINEAR(name, tier, threaded) {#name, VL_TIER_##tier, threaded, linear_##name##_##tier, NULL},
#define ATTENTION(name, tier, threaded) {#name, VL_TIER_##tier, threaded, NULL, attention_##name##_##tier},
#include "kernels/cpu/ladder/rungs.def"
#undef LINEAR
#undef ATTENTION
};
enum { RUNGS_N = sizeof RUNGS / sizeof *RUNGS };

static vl_rng rng;
static cpu_team *team;

/* ---- checks ------------------------------------------------------------------------------------ */

static void pack_panels(uint32_t *panels, const uint16_t *w, size_t N, size_t K) {
    for (size_t n = 0; n < N; n += LAD_NR)
        pack_bf16_scalar(panels + n * K / 2, w + n * K, K, LAD_NR, (int)K);
}

/* A sum of n products may be off by 2 sqrt(n) + 2 half-ulps of the sum of |a b|. The one chain of the
 * first rung rounds more: up to n. */
static void check_linear(const lad_rung *r, size_t T, size_t N, size_t K, kind k) {
    lad_linear a = {.T = T, .N = N, .K = K, .team = team};
    float *x = guard_words(T * K), *out = guard_words(T * N), *tiles = guard_words(T * K);
    uint16_t *w = guard_words(N * K / 2);
    uint32_t *panels = guard_words(N * K / 2);
    float *want = vl_calloc(T * N, sizeof *want);
    double *tol = vl_calloc(T * N, sizeof *tol);
    vl_assert(want && tol && K % 64 == 0 && N % 64 == 0, "N %zu, K %zu", N, K);
    fill(x, T * K, k, &rng);
    fill_bf16((uint32_t *)(void *)w, N * K / 2, k, &rng);
    pack_panels(panels, w, N, K);
    a.out = out, a.x = x, a.w = w, a.panels = panels, a.tiles = tiles;
    for (size_t t = 0; t < T; t++)
        for (size_t n = 0; n < N; n++) {
            double sum = 0, mag = 0;
            for (size_t i = 0; i < K; i++) {
                double p = (double)x[t * K + i] * (double)vl_bf16_to_f32(w[n * K + i]);
                sum += p;
                mag += fabs(p);
            }
            want[t * N + n] = (float)sum;
            tol[t * N + n] = EPS * ((strcmp(r->name, "naive") ? 2 * sqrt((double)K) + 2 : (double)K) * mag +
                                    2 * fabs(sum)) + DENORM * (double)(K + 1);
        }
    r->linear(&a);
    char what[64];
    snprintf(what, sizeof what, "T %zu N %zu K %zu %s", T, N, K, KIND_NAMES[k]);
    near_all(out, want, tol, T * N, what);
    free(want);
    free(tol);
    guards_end();
}

/* Probabilities are positive and sum to 1: the result is within a few roundings of exp and of the
 * sums, times the largest |v|; a score is off by about sqrt(E) half-ulps of |q| |k|. */
static void check_attention(const lad_rung *r, size_t P, size_t H, float spread) {
    size_t row = 3 * H * LAD_E;
    float *qkv = guard_words(P * row), *out = guard_words(P * H * LAD_E), *scores = guard_words(P * P);
    float *want = vl_calloc(P * H * LAD_E, sizeof *want);
    double *tol = vl_calloc(P * H * LAD_E, sizeof *tol), *s = vl_calloc(P, sizeof *s);
    vl_assert(want && tol && s, "no memory");
    for (size_t i = 0; i < P * row; i++) qkv[i] = (float)vl_rng_normal(&rng) * spread;
    for (size_t h = 0; h < H; h++)
        for (size_t i = 0; i < P; i++) {
            const float *q = qkv + i * row + h * LAD_E;
            double top = -INFINITY, total = 0, most = 0;
            for (size_t j = 0; j < P; j++) {
                const float *k = qkv + j * row + (H + h) * LAD_E;
                double dot = 0, mag = 0;
                for (size_t e = 0; e < LAD_E; e++) {
                    dot += (double)q[e] * (double)k[e];
                    mag += fabs((double)q[e] * (double)k[e]);
                }
                s[j] = dot / 8;
                top = fmax(top, s[j]);
                most = fmax(most, mag / 8);
            }
            for (size_t j = 0; j < P; j++) total += s[j] = exp(s[j] - top);
            for (size_t e = 0; e < LAD_E; e++) {
                double o = 0, vmost = 0;
                for (size_t j = 0; j < P; j++) {
                    double v = (double)qkv[j * row + (2 * H + h) * LAD_E + e];
                    o += s[j] * v / total;
                    vmost = fmax(vmost, fabs(v));
                }
                size_t at = (i * H + h) * LAD_E + e;
                want[at] = (float)o;
                tol[at] = EPS * vmost * (2 * sqrt((double)LAD_E) * most + 2 * sqrt((double)P) + 16);
            }
        }
    r->attention(&(lad_attention){P, H, out, qkv, scores, team});
    char what[64];
    snprintf(what, sizeof what, "P %zu H %zu spread %g", P, H, (double)spread);
    near_all(out, want, tol, P * H * LAD_E, what);
    free(want);
    free(tol);
    free(s);
    guards_end();
}

static void check(const lad_rung *r) {
    char name[64];
    snprintf(name, sizeof name, "%s %s %s", r->linear ? "linear" : "attention", r->name,
             vl_tier_names[r->tier]);
    if (!vl_tier_present(r->tier)) {
        snprintf(name + strlen(name), sizeof name - strlen(name), ": not on this CPU");
        test_skip(name);
        return;
    }
    running = name;
    worst = off = 0;
    vl_rng_seed(&rng, 20261124);
    int failed = test_failed;
    static const size_t TS[] = {1, 2, 4, 5, 11, 12, 13, 30}, KS[] = {64, 256, 320, 1024};
    static const size_t PS[] = {1, 2, 31, 32, 33, 64, 65, 131};
    for (size_t i = 0; r->linear && i < 8; i++)
        for (size_t k = 0; k < 4; k++)
            check_linear(r, TS[i], i % 2 ? 64 : 128, KS[k], (kind)((i + k) % KINDS));
    for (size_t i = 0; r->attention && i < 8; i++) {
        check_attention(r, PS[i], 1 + i % 3, 1);
        check_attention(r, PS[i], 1, 6);
    }
    printf("%-28s %s  worst error %.2f of its tolerance\n", name, failed == test_failed ? "ok  " : "FAIL",
           worst);
}

/* ---- timing ------------------------------------------------------------------------------------ */

enum { ROUNDS = 5, ROWS_MAX = 16 };
static bool markdown;

typedef struct timed { const char *name; vl_tier tier; bool threaded; double seconds[ROUNDS]; int n; } timed;
typedef struct bench_op {
    const char *title;
    double flop, bytes;
    bool stream;                   /* bound by reading weights, not by arithmetic              */
    lad_linear linear;             /* T = 0: this is attention                                 */
    lad_attention attention;
    vl_backend *backend;
    vl_matrix matrix;
} bench_op;

static void run_once(const bench_op *o, const lad_rung *r) {
    static const int32_t cu[2] = {0, 784};
    const lad_linear *l = &o->linear;
    const lad_attention *a = &o->attention;
    if (r && r->linear) r->linear(l);
    else if (r) r->attention(a);
    else if (l->T)
        o->backend->ops->linear(o->backend, l->out, (int)l->N, l->x, (int)l->K, (int)l->T, &o->matrix, NULL,
                                VL_EPI_NONE);
    else o->backend->ops->attend_full(o->backend, a->out, a->qkv, cu, 1, (int)a->P, (int)a->H, LAD_E, 0.125f);
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* All rungs in turn, ROUNDS times; one that takes over a second runs once. */
static void bench_op_run(const bench_op *o, vl_tier tier, int threads) {
    timed rows[ROWS_MAX];
    const lad_rung *rungs[ROWS_MAX];
    int n = 0;
    double peak[2] = {0}; /* of one thread, of all */
    for (int i = 0; i < RUNGS_N; i++)
        if ((RUNGS[i].tier == VL_TIER_scalar || RUNGS[i].tier == tier) && (o->linear.T > 0) == !!RUNGS[i].linear)
            rungs[n] = &RUNGS[i], rows[n++] = (timed){.name = RUNGS[i].name, .tier = RUNGS[i].tier,
                                                      .threaded = RUNGS[i].threaded};
    rungs[n] = NULL, rows[n++] = (timed){.name = "(the engine)", .tier = tier, .threaded = true};
    run_once(o, NULL); /* packs its weights */
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < 2; i++)
            peak[i] = fmax(peak[i], (o->stream ? vl_peak_read_gbs : vl_peak_fma_gflops)(i ? threads : 1));
        for (int i = 0; i < n; i++) {
            if (round > 0 && rows[i].seconds[0] > 1) continue;
            double start = vl_now();
            run_once(o, rungs[i]);
            rows[i].seconds[rows[i].n++] = vl_now() - start;
        }
    }
    const char *bar = markdown ? " | " : "  ", *end = markdown ? " |\n" : "\n";
    printf("\n%s%s%s\n", markdown ? "**" : "", o->title, markdown ? "**\n" : "");
    printf("%s%-14s%s%-8s%s%10s%s%8s%s%7s%s%s%s", markdown ? "| " : "", "rung", bar, "tier", bar, "ms", bar,
           "GFLOP/s", bar, "GB/s", bar, o->stream ? "% of read" : "% of FMA", end);
    if (markdown) printf("|---|---|--:|--:|--:|--:|\n");
    for (int i = 0; i < n; i++) {
        timed *t = &rows[i];
        qsort(t->seconds, (size_t)t->n, sizeof *t->seconds, by_value);
        double s = t->seconds[t->n / 2], rate = (o->stream ? o->bytes : o->flop) / s * 1e-9;
        double share = 100 * rate / peak[t->threaded];
        printf("%s%-14s%s%-8s%s%10.2f%s%8.2f%s%7.2f%s%9.1f%s", markdown ? "| " : "", t->name, bar,
               vl_tier_names[t->tier], bar, s * 1e3, bar, o->flop / s * 1e-9, bar, o->bytes / s * 1e-9, bar,
               share, end);
        CHECK(share < 110, "%s: above the roof measured in the same run", t->name);
    }
    printf("%speak: %.0f on 1 thread, %.0f %s on %d; median of %d rounds%s\n", markdown ? "\n" : "", peak[0],
           peak[1], o->stream ? "GB/s read" : "GFLOP/s FMA", threads, ROUNDS, markdown ? "" : " (>1 s: of one)");
}

static float *random_floats(size_t n) {
    float *x = vl_calloc(n, sizeof *x);
    vl_assert(x, "no memory for %zu floats", n);
    for (size_t i = 0; i < n; i++) x[i] = (float)vl_rng_uniform(&rng) - 0.5f;
    return x;
}

static void bench_linear(vl_backend *b, vl_tier tier, size_t T, size_t N, size_t K, const char *title) {
    uint16_t *w = vl_calloc(N * K, sizeof *w), *copy = vl_calloc(N * K, sizeof *w);
    uint32_t *panels = vl_calloc(N * K / 2, sizeof *panels);
    vl_assert(w && copy && panels, "no memory");
    for (size_t i = 0; i < N * K; i++) w[i] = vl_f32_to_bf16((float)vl_rng_uniform(&rng) - 0.5f);
    memcpy(copy, w, N * K * sizeof *w);
    pack_panels(panels, w, N, K);
    bench_op o = {.title = title, .flop = 2.0 * (double)(T * N * K), .stream = T == 1, .backend = b,
                  .bytes = (double)(N * K * 2 + (T * K + T * N) * 4),
                  .linear = {T, N, K, random_floats(T * N), random_floats(T * K), w, panels,
                             random_floats(T * K), team},
                  .matrix = {.name = "w", .data = copy, .dtype = VL_BF16, .rows = (int)N, .cols = (int)K}};
    vl_err err = {0};
    if (b->ops->prepare(b, &o.matrix, VL_USE_LINEAR, &err)) vl_assert(false, "%s", err.msg);
    bench_op_run(&o, tier, b->threads);
    free(w), free(copy), free(panels);
    free(o.linear.out), free((void *)(uintptr_t)o.linear.x), free(o.linear.tiles);
}

static void bench_all(void) {
    vl_backend *b;
    vl_err err = {0};
    vl_tier tier = VL_TIER_scalar;
    if (vl_backend_open(&b, &(vl_backend_params){"cpu", "exact", 0}, &err)) vl_assert(false, "%s", err.msg);
    for (int i = 0; i < RUNGS_N; i++)
        if (vl_tier_present(RUNGS[i].tier) && RUNGS[i].tier > tier) tier = RUNGS[i].tier;
    bench_linear(b, tier, 220, 2048, 2048, "linear, a prompt: 220 rows, 2048 x 2048 weights (8 MB)");
    bench_linear(b, tier, 1, 12288, 2048, "linear, one token: 1 row, 12288 x 2048 weights (50 MB)");
    size_t P = 784, H = 16, n = P * H * LAD_E;
    bench_op o = {.title = "attention, a picture of 448 x 448: 784 rows, 16 heads of 64", .backend = b,
                  .flop = 4.0 * (double)(P * n), .bytes = (double)n * 16,
                  .attention = {P, H, random_floats(n), random_floats(3 * n), random_floats(P * P), team}};
    bench_op_run(&o, tier, b->threads);
    free(o.attention.out), free((void *)(uintptr_t)o.attention.qkv), free(o.attention.scores);
    b->ops->close(b);
}

int main(int argc, char **argv) {
    bool bench = false;
    vl_err err = {0};
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--bench")) bench = true;
        if (!strcmp(argv[i], "--md")) bench = markdown = true;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGSEGV, on_fault);
    signal(SIGBUS, on_fault);
    vl_backend *probe; /* how many threads the engine would use */
    if (vl_backend_open(&probe, &(vl_backend_params){"cpu", "exact", 0}, &err)) vl_assert(false, "%s", err.msg);
    int threads = probe->threads;
    probe->ops->close(probe);
    if (cpu_team_open(&team, threads, &err)) vl_assert(false, "%s", err.msg);
    for (int i = 0; i < RUNGS_N; i++) check(&RUNGS[i]);
    if (bench) bench_all();
    cpu_team_close(team);
    return test_end();
}
