/* kernel_bench.c: every leaf kernel alone, on the shapes of Qwen3-VL-2B (kernels/kernels_info.h).
 *
 * One thread. Weights come from a buffer larger than the caches, which is walked on from call to call, so one
 * row of x meets them as decoding does, from memory; rows of x and everything else stay in the caches, as they
 * do between the operations of a pass. The values are all the same word, a small number whatever it is read
 * as (float, bf16 pair, code, scale): no kernel's time depends on them.
 */
#include <math.h>
#include <stdlib.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/quant.h"
#include "kernels/kernels_info.h"
#include "kernels/peaks.h"

enum { ROWS = 240, WIDEST = 6144, WORDS = (ROWS + VL_MAX_MR) * WIDEST, HEAD = 128, KEYS = 64, SAMPLES = 7 };
static const size_t STREAM = (size_t)512 << 20;
static const uint32_t WORD = 0x3c233c23; /* 0.00996 */
static const double SAMPLE_SECONDS = 4e-3, LONGEST_SECONDS = 30e-3;

typedef struct lab {
    const vl_candidate *c;
    uint8_t *weights;              /* [STREAM]                                                */
    size_t at;                     /* of the next panel in it                                 */
    float *x, *y, *z;              /* [WORDS]                                                 */
    double flops, bytes;           /* of one run; bytes: of weights, or read and written      */
    vl_reader *reader;             /* of the same weights                                     */
} lab;

typedef struct bench_case {
    vl_slot slot;
    int rows, K;                   /* of x; K of a norm or of one row                         */
    const char *shape, *roof;      /* roof: see ROOFS, or NULL                                */
    void (*run)(lab *l, const struct bench_case *s);
    int more;                      /* an epilogue                                             */
} bench_case;

static const uint8_t *next_panel(lab *l, size_t bytes) {
    size_t at = l->at + bytes <= STREAM ? l->at : 0;
    l->at = at + bytes;
    return l->weights + at;
}

static int least(int a, int b) { return a < b ? a : b; }

/* ---- runs: one call of the slot, or those that make one panel of a linear ---------------------------- */

/* f32: a block of weights as widen leaves it, in L1; pairs: in place, from memory. */
static void run_gemm(lab *l, const bench_case *s) {
    vl_uk_gemm *fn = (vl_uk_gemm *)l->c->fn;
    bool pairs = s->slot == VL_SLOT_gemm_dpbf16;
    int block = pairs ? VL_KC_PAIRS : VL_KC, columns = s->slot == VL_SLOT_gemm_wide ? VL_WIDE : VL_NR;
    size_t mr = (size_t)l->c->tile, bytes = (size_t)(s->K * columns * (pairs ? 2 : 4));
    const uint8_t *panel = pairs ? next_panel(l, bytes) : (const uint8_t *)l->z;
    for (int k = 0; k < s->K; k += block) {
        int kc = least(s->K - k, block);
        size_t words = (size_t)(pairs ? kc / 2 : kc);
        for (int t = 0; t < s->rows; t += (int)mr)
            fn(l->y + t * columns, l->x + ((size_t)k * ROWS + (size_t)t * words), mr,
               pairs ? panel + (size_t)k * 2 * VL_NR : panel, kc, least(s->rows - t, (int)mr), k > 0);
    }
    l->flops = 2.0 * s->rows * columns * s->K;
    l->bytes = (double)bytes;
}

static void run_widen(lab *l, const bench_case *s) {
    const uint8_t *panel = next_panel(l, (size_t)s->K * 2 * VL_NR);
    ((vl_uk_widen *)l->c->fn)(l->z, VL_WIDE, (const uint32_t *)(const void *)panel, s->K);
    l->bytes = 6.0 * s->K * VL_NR;
}

/* The tiles of a thread are given back as an op does it, by the line of the same tier. */
static void end_tiles(vl_tier tier) {
    for (int i = 0; i < vl_candidate_count; i++)
        if (vl_candidates[i].slot == VL_SLOT_tiles_end && vl_candidates[i].tier == tier) vl_candidates[i].fn();
}

/* Blocks of 32 rows, as linear_tiles.c has them: many in blocks of VL_KC_PAIRS terms, a few over all of K at once. */
static void run_gemm_tiles(lab *l, const bench_case *s) {
    enum { STEP = 32 * 16 };
    size_t bytes = (size_t)s->K * 2 * VL_NR;
    const uint8_t *panel = next_panel(l, bytes);
    const uint32_t *x = (const uint32_t *)(const void *)l->x;
    int block = s->rows > VL_GEMV_ROWS ? VL_KC_PAIRS : s->K;
    for (int k = 0; k < s->K; k += block)
        for (int t = 0; t < s->rows; t += l->c->tile) {
            vl_tile_sum sum = {.c = l->y + t * VL_NR, .lda = 16, .step = STEP, .panel = panel + (size_t)k * 2 * VL_NR,
                               .kc = least(s->K - k, block), .rows = least(s->rows - t, l->c->tile), .add = k > 0};
            sum.a = x + (size_t)(k / 32 * (ROWS / 32 + 1) + t / 32 * (block / 32)) * STEP;
            ((vl_uk_gemm_tiles *)l->c->fn)(&sum);
        }
    end_tiles(l->c->tier);
    l->flops = 2.0 * s->rows * VL_NR * s->K;
    l->bytes = (double)bytes;
}

static void run_pack_tiles(lab *l, const bench_case *s) {
    ((vl_uk_pack_tiles *)l->c->fn)((uint32_t *)(void *)l->y, (size_t)s->rows * 16, 0, l->x, (size_t)s->K, s->rows, s->K);
    l->bytes = 1.5 * 4 * s->rows * s->K;
}
static void run_softmax_tiles(lab *l, const bench_case *s) {
    int32_t valid[VL_NR];
    float m[VL_NR], fix[VL_NR];
    for (int i = 0; i < VL_NR; i++) valid[i] = s->K, m[i] = 0;
    ((vl_uk_softmax_tiles *)l->c->fn)(l->y, s->K, s->rows, valid, 0.1f, m, l->z, fix);
    l->bytes = 8.0 * s->K * s->rows;
}
static void run_finish_tiles(lab *l, const bench_case *s) {
    ((vl_uk_finish_tiles *)l->c->fn)(l->y, 1024, l->x, l->z, s->rows, s->K, (vl_epilogue)s->more);
    l->bytes = 4.0 * s->rows * s->K * (s->more == VL_EPI_ADD ? 3 : 2);
}

static void run_tiles_end(lab *l, const bench_case *s) {
    (void)s;
    l->c->fn();
}

static void run_gemv(lab *l, const bench_case *s) {
    size_t lane = s->slot == VL_SLOT_gemv_f32 ? 4 : 2, bytes = (size_t)s->K * lane * VL_NR;
    ((vl_uk_gemv *)l->c->fn)(l->y, l->x, (size_t)s->K, next_panel(l, bytes), s->K, s->rows);
    l->flops = 2.0 * s->rows * VL_NR * s->K;
    l->bytes = (double)bytes;
}

static void run_gemm_q(lab *l, const bench_case *s) {
    size_t group = s->slot == VL_SLOT_gemm_q4 ? CPU_Q4_GROUP : CPU_Q8_GROUP;
    int groups = cpu_q_groups(s->K), step = CPU_QKC / CPU_QG;
    const uint8_t *panel = next_panel(l, (size_t)groups * group);
    const uint32_t *tiles = (const uint32_t *)(const void *)l->x;
    for (int g = 0; g < groups; g += step)
        for (int t = 0; t < s->rows; t += CPU_QMR)
            ((vl_uk_gemm_q *)l->c->fn)(l->y + t * VL_NR, tiles + (size_t)(t / CPU_QMR * groups + g) * CPU_QX_GROUP,
                                       panel + (size_t)g * group, least(groups - g, step),
                                       least(s->rows - t, CPU_QMR), g > 0);
    l->flops = 2.0 * s->rows * VL_NR * s->K;
    l->bytes = (double)groups * (double)group;
}

/* Many rows on the tile unit; every panel is followed by the next. */
static void run_gemm_qt(lab *l, const bench_case *s) {
    size_t group = s->slot == VL_SLOT_gemm_q4_tiles ? CPU_Q4_GROUP : CPU_Q8_GROUP;
    int groups = cpu_q_groups(s->K), step = CPU_QKC / CPU_QG;
    const uint8_t *panel = next_panel(l, (size_t)groups * group);
    const uint32_t *tiles = (const uint32_t *)(const void *)l->x;
    for (int g = 0; g < groups; g += step)
        ((vl_uk_gemm_qt *)l->c->fn)(l->y, tiles + (size_t)g * CPU_QT_GROUP, (size_t)groups * CPU_QT_GROUP,
                                    panel + (size_t)g * group, panel + (size_t)(g + step) * group, least(groups - g, step),
                                    s->rows, g > 0);
    l->flops = 2.0 * s->rows * VL_NR * s->K;
    l->bytes = (double)groups * (double)group;
}

static void run_pack_bf16(lab *l, const bench_case *s) {
    ((vl_uk_pack_bf16 *)l->c->fn)((uint32_t *)(void *)l->y, (const uint16_t *)(const void *)l->x, (size_t)s->K, s->rows,
                                  s->K);
    l->bytes = 2.0 * 2 * s->rows * s->K;
}
static void run_pack_rows(lab *l, const bench_case *s) {
    ((vl_uk_pack_rows *)l->c->fn)(l->y, l->x, (size_t)s->K, s->rows, s->K, s->rows);
    l->bytes = 2.0 * 4 * s->rows * s->K;
}
static void run_pack_pairs(lab *l, const bench_case *s) {
    ((vl_uk_pack_pairs *)l->c->fn)((uint32_t *)(void *)l->y, l->x, (size_t)s->K, s->rows, s->K, s->rows);
    l->bytes = 1.5 * 4 * s->rows * s->K;
}
static void run_pair_rows(lab *l, const bench_case *s) {
    ((vl_uk_pair_rows *)l->c->fn)((uint32_t *)(void *)l->y, (const uint16_t *)(const void *)l->x, (size_t)s->K, s->rows,
                                  s->K);
    l->bytes = 2.0 * 2 * s->rows * s->K;
}
static void run_pack_q(lab *l, const bench_case *s) {
    ((vl_uk_pack_q *)l->c->fn)((uint32_t *)(void *)l->y, l->x, (size_t)s->K, s->rows, s->K);
    l->bytes = 4.0 * s->rows * s->K + 4.0 * cpu_q_groups(s->K) * CPU_QX_GROUP;
}

static void run_pack_qt(lab *l, const bench_case *s) {
    ((vl_uk_pack_q *)l->c->fn)((uint32_t *)(void *)l->y, l->x, (size_t)s->K, s->rows, s->K);
    l->bytes = 4.0 * s->rows * s->K + 4.0 * cpu_q_groups(s->K) * CPU_QT_GROUP;
}

static void run_epilogue(lab *l, const bench_case *s) {
    for (int t = 0; t < s->rows; t++)
        ((vl_uk_epilogue *)l->c->fn)(l->y + t * s->K, l->x + t * s->K, l->z, s->K, (vl_epilogue)s->more);
    l->bytes = 4.0 * s->rows * s->K * (s->more == VL_EPI_ADD ? 3 : 2);
}
static void run_layernorm(lab *l, const bench_case *s) {
    ((vl_uk_layernorm *)l->c->fn)(l->y, l->x, l->z, l->z, s->K, 1e-6f);
    l->bytes = 16.0 * s->K;
}
static void run_rmsnorm(lab *l, const bench_case *s) {
    ((vl_uk_rmsnorm *)l->c->fn)(l->y, l->x, l->z, s->K, 1e-6f);
    l->bytes = 12.0 * s->K;
}
static void run_rope(lab *l, const bench_case *s) { /* by 45 degrees: the length stays */
    for (int i = 0; i < s->K; i++) l->z[i] = 0.70710678f;
    for (int i = 0; i < s->rows; i++) ((vl_uk_rope *)l->c->fn)(l->y + i * s->K, l->z, l->z + s->K / 2, s->K);
    l->bytes = 12.0 * s->K * s->rows;
}
static void run_swiglu(lab *l, const bench_case *s) {
    ((vl_uk_swiglu *)l->c->fn)(l->y, l->x, l->x, s->K);
    l->bytes = 12.0 * s->K;
}

/* 32 queries and a block of keys. */
static void run_softmax(lab *l, const bench_case *s) {
    int32_t valid[VL_NR];
    for (int i = 0; i < VL_NR; i++) valid[i] = s->K;
    ((vl_uk_softmax *)l->c->fn)(l->y, s->K, s->rows, valid, 0.1f, l->z, l->z + VL_NR, l->z + 2 * VL_NR);
    l->bytes = 8.0 * s->K * s->rows;
}
static void run_scale_lanes(lab *l, const bench_case *s) {
    float one[VL_NR];
    for (int i = 0; i < VL_NR; i++) one[i] = 1;
    ((vl_uk_scale_lanes *)l->c->fn)(l->y, one, s->K);
    l->bytes = 8.0 * s->K * s->rows;
}
static void run_score_keys(lab *l, const bench_case *s) {
    ((vl_uk_score_keys *)l->c->fn)(l->y, l->x, (size_t)s->K, l->z, s->rows, s->K, 2, NULL);
    l->flops = 4.0 * s->rows * s->K;
    l->bytes = 4.0 * s->rows * s->K;
}
static void run_mix_values(lab *l, const bench_case *s) {
    static const float fix[] = {0.5f, 0.5f};
    ((vl_uk_mix_values *)l->c->fn)(l->y, fix, l->x, l->z, (size_t)s->K, s->rows, s->K, 2, NULL);
    l->flops = 4.0 * s->rows * s->K;
    l->bytes = 4.0 * s->rows * s->K;
}
static void run_mix_pairs(lab *l, const bench_case *s) {
    ((vl_uk_mix_pairs *)l->c->fn)(l->y, 0.5f, (const uint32_t *)(const void *)l->x, (const uint32_t *)(const void *)l->z,
                                  s->rows / 2, s->K);
    l->flops = 2.0 * s->rows * s->K;
    l->bytes = 2.0 * s->rows * s->K;
}

/* ---- shapes ------------------------------------------------------------------------------------------- */

#define MANY(slot, roof, run)                                                \
    {slot, ROWS, 1024, "240 x 32 x 1024, vision qkv", roof, run, 0},         \
    {slot, ROWS, 2048, "240 x 32 x 2048, gate", roof, run, 0},               \
    {slot, ROWS, 6144, "240 x 32 x 6144, down", roof, run, 0}
#define FEW(slot, run)                                                       \
    {slot, 1, 2048, "1 x 32 x 2048, gate, head", "read", run, 0},            \
    {slot, 1, 6144, "1 x 32 x 6144, down", "read", run, 0},                  \
    {slot, 5, 2048, "5 x 32 x 2048, batch of 5", "read", run, 0}
static const bench_case CASES[] = {
    {VL_SLOT_gemm_wide, ROWS, 1024, "240 x 64 x 1024, vision qkv", "fma", run_gemm, 0},
    {VL_SLOT_gemm_wide, ROWS, 6144, "240 x 64 x 6144, down", "fma", run_gemm, 0},
    {VL_SLOT_widen_bf16, 1, VL_KC, "128 x 32", NULL, run_widen, 0}, MANY(VL_SLOT_gemm_f32, "fma", run_gemm),
    MANY(VL_SLOT_gemm_dpbf16, "bf16", run_gemm), MANY(VL_SLOT_gemm_q8, "int8", run_gemm_q),
    MANY(VL_SLOT_gemm_tiles, "bf16", run_gemm_tiles), FEW(VL_SLOT_gemm_tiles, run_gemm_tiles),
    {VL_SLOT_tiles_end, 0, 0, "nothing to give back", NULL, run_tiles_end, 0},
    MANY(VL_SLOT_gemm_q4, "int8", run_gemm_q), FEW(VL_SLOT_gemm_q8, run_gemm_q), FEW(VL_SLOT_gemm_q4, run_gemm_q),
    FEW(VL_SLOT_gemv_bf16, run_gemv), FEW(VL_SLOT_gemv_f32, run_gemv), FEW(VL_SLOT_gemv_dpbf16, run_gemv),
    MANY(VL_SLOT_gemm_q8_tiles, "int8", run_gemm_qt), MANY(VL_SLOT_gemm_q4_tiles, "int8", run_gemm_qt),
    {VL_SLOT_pack_qt, CPU_QT_ROWS, 2048, "16 x 2048", NULL, run_pack_qt, 0},
    {VL_SLOT_pack_tiles, 32, 2048, "32 x 2048", NULL, run_pack_tiles, 0},
    {VL_SLOT_softmax_tiles, VL_NR, 256, "32 queries x 256 keys", NULL, run_softmax_tiles, 0},
    {VL_SLOT_finish_tiles, VL_NR, VL_NR, "32 x 32, bias", NULL, run_finish_tiles, VL_EPI_NONE},
    {VL_SLOT_finish_tiles, VL_NR, VL_NR, "32 x 32, residual", NULL, run_finish_tiles, VL_EPI_ADD},
    {VL_SLOT_finish_tiles, VL_NR, VL_NR, "32 x 32, GELU", NULL, run_finish_tiles, VL_EPI_GELU_TANH},
    {VL_SLOT_pack_bf16, VL_NR, 2048, "32 x 2048", NULL, run_pack_bf16, 0},
    {VL_SLOT_pack_rows, 6, VL_KC, "6 x 128", NULL, run_pack_rows, 0},
    {VL_SLOT_pack_pairs, 12, VL_KC_PAIRS, "12 x 256", NULL, run_pack_pairs, 0},
    {VL_SLOT_pair_rows, KEYS, HEAD, "64 keys x 128", NULL, run_pair_rows, 0},
    {VL_SLOT_pack_q, 1, 2048, "1 x 2048", NULL, run_pack_q, 0},
    {VL_SLOT_pack_q, CPU_QMR, 2048, "6 x 2048", NULL, run_pack_q, 0},
    {VL_SLOT_epilogue, 12, VL_NR, "12 x 32, bias", NULL, run_epilogue, VL_EPI_NONE},
    {VL_SLOT_epilogue, 12, VL_NR, "12 x 32, residual", NULL, run_epilogue, VL_EPI_ADD},
    {VL_SLOT_epilogue, 12, VL_NR, "12 x 32, GELU", NULL, run_epilogue, VL_EPI_GELU_TANH},
    {VL_SLOT_layernorm, 1, 1024, "1024", NULL, run_layernorm, 0},
    {VL_SLOT_rmsnorm, 1, 2048, "2048", NULL, run_rmsnorm, 0},
    {VL_SLOT_rope, 16, HEAD, "16 heads x 128", NULL, run_rope, 0},
    {VL_SLOT_swiglu, 1, 6144, "6144", NULL, run_swiglu, 0},
    {VL_SLOT_softmax, VL_NR, KEYS, "32 queries x 64 keys", NULL, run_softmax, 0},
    {VL_SLOT_scale_lanes, VL_NR, HEAD, "32 queries x 128", NULL, run_scale_lanes, 0},
    {VL_SLOT_score_keys, KEYS, HEAD, "64 keys x 128", "fma", run_score_keys, 0},
    {VL_SLOT_mix_values, KEYS, HEAD, "64 keys x 128", "fma", run_mix_values, 0},
    {VL_SLOT_mix_pairs, KEYS, HEAD, "64 keys x 128", "bf16", run_mix_pairs, 0},
};

/* ---- timing ------------------------------------------------------------------------------------------- */

/* Median seconds of a run. */
static double time_case(lab *l, const bench_case *s) {
    double v[SAMPLES], spent = 0;
    int n = 0;
    l->flops = l->bytes = 0;
    s->run(l, s); /* touches what stays in the caches */
    for (; n < SAMPLES && (n == 0 || spent < LONGEST_SECONDS); n++) {
        int calls = 0;
        double start = vl_now(), seconds = 0;
        while (seconds < SAMPLE_SECONDS) {
            s->run(l, s);
            calls++;
            seconds = vl_now() - start;
        }
        spent += seconds;
        int at = n; /* kept in order */
        for (; at > 0 && v[at - 1] > seconds / calls; at--) v[at] = v[at - 1];
        v[at] = seconds / calls;
    }
    return v[n / 2];
}

static int open_lab(lab *l, vl_err *err) {
    *l = (lab){.weights = cpu_pages(STREAM)};
    float **all[] = {&l->x, &l->y, &l->z};
    bool ok = l->weights != NULL;
    for (int i = 0; i < 3; i++) ok = (*all[i] = aligned_alloc(64, WORDS * sizeof(float))) && ok;
    if (!ok) return vl_fail(err, VL_E_NOMEM, "no memory to time kernels: %zu bytes", STREAM + 3 * WORDS * sizeof(float));
    for (size_t i = 0; i < STREAM / sizeof WORD; i++) memcpy(l->weights + i * sizeof WORD, &WORD, sizeof WORD);
    for (int k = 0; k < 3; k++)
        for (int i = 0; i < WORDS; i++) memcpy(*all[k] + i, &WORD, sizeof WORD);
    l->reader = vl_reader_open(1, l->weights, STREAM);
    return l->reader ? 0 : vl_fail(err, VL_E_NOMEM, "no memory to time reading");
}

static void close_lab(lab *l) {
    vl_reader_close(l->reader);
    if (l->weights) cpu_pages_free(l->weights, STREAM);
    free(l->x);
    free(l->y);
    free(l->z);
}

/* The read peak is measured again for each row that stands beside it: memory is shared and moves. */
static double peak_of(lab *l, const char *roof, vl_kernel_peaks *p) {
    enum { PASSES = 3 };
    if (!roof) return 0;
    if (!strcmp(roof, "read")) {
        p->read_gbs = 0;
        for (int i = 0; i < PASSES; i++) p->read_gbs = fmax(p->read_gbs, vl_reader_pass(l->reader));
        return p->read_gbs;
    }
    return !strcmp(roof, "fma") ? p->fma_gflops : !strcmp(roof, "bf16") ? p->bf16_gflops : p->int8_gops;
}

static void bench_line(lab *l, vl_kernel_peaks *p, vl_kernel_rate_fn *row, void *user) {
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        const bench_case *s = &CASES[i];
        if (s->slot != l->c->slot) continue;
        double peak = peak_of(l, s->roof, p), seconds = time_case(l, s);
        vl_kernel_rate r = {.slot = vl_slot_names[s->slot], .name = l->c->name, .tier = vl_tier_names[l->c->tier],
                            .shape = s->shape, .seconds = seconds, .gflops = l->flops / seconds / 1e9,
                            .gbs = l->bytes / seconds / 1e9, .roof = s->roof, .peak_percent = NAN};
        if (peak > 0) r.peak_percent = 100 * (strcmp(s->roof, "read") ? r.gflops : r.gbs) / peak;
        row(user, &r, p);
    }
}

int vl_kernels_bench(const char *part, vl_kernel_rate_fn *row, void *user, vl_err *err) {
    vl_kernel_peaks p = {vl_peak_fma_gflops(1), vl_peak_bf16_gflops(1), vl_peak_int8_gops(1), 0};
    lab l;
    int found = 0, rc = open_lab(&l, err);
    for (int i = 0; !rc && i < vl_candidate_count; i++) {
        l.c = &vl_candidates[i];
        if (!vl_tier_present(l.c->tier) || !strstr(l.c->name, part)) continue;
        bench_line(&l, &p, row, user);
        found++;
    }
    close_lab(&l);
    if (!rc && !found)
        rc = vl_fail(err, VL_E_UNSUPPORTED, "no kernel of this CPU has \"%.60s\" in its name; `vitreous kernels --all` lists "
                     "them", part);
    return rc;
}
