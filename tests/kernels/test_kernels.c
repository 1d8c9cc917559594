/* test_kernels.c: every line of ukernels.def that this machine can run, against the scalar line of
 * its slot, which accumulates in double. One check function per slot; the same set-up times the
 * kernel with --bench. Arguments: [--bench] [part of a kernel's name].
 *
 * Every check is reseeded, so a failure repeats alone. Tolerances come from the operands: a sum of
 * n products may be off by 2 sqrt(n) + 2 half-ulps of the sum of |a b|. The worst share of its
 * tolerance that a kernel used is printed: 1.00 would be a failure. */
#include <float.h>

#include "kernels/cpu/quant.h"
#include "tests/kernels/check.h"

static vl_rng rng;
static bool bench;

static const int TAILS[] = {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 40, 63, 64, 65, 72, 128};
enum { TAIL_COUNT = sizeof TAILS / sizeof *TAILS };

/* Seconds of one call: the fastest of several batches. */
#define TIME(call)                                                        \
    ({                                                                    \
        double best_ = 1e9;                                               \
        for (int round_ = 0; round_ < 7; round_++) {                      \
            int n_ = 0;                                                   \
            double t0_ = vl_now(), t_;                                    \
            do {                                                          \
                for (int i_ = 0; i_ < 8; i_++) call;                      \
                n_ += 8;                                                  \
            } while ((t_ = vl_now() - t0_) < 2e-3);                       \
            if (t_ / n_ < best_) best_ = t_ / n_;                         \
        }                                                                 \
        best_;                                                            \
    })

static void bench_row(const char *shape, double seconds, double flops, double bytes) {
    printf("  %-24s %-22s %9.2f us %8.1f GFLOP/s %8.1f GB/s\n", running, shape, seconds * 1e6,
           flops / seconds * 1e-9, bytes / seconds * 1e-9);
}

/* ---- gemm -------------------------------------------------------------------------------------- */

enum { MOST_ROWS = 72 };

static void gemm_case(const vl_candidate *cand, vl_uk_gemm *fn, vl_uk_gemm *ref, int rows, int kc,
                      size_t lda, bool add, kind k) {
    bool pairs = cand->slot == VL_SLOT_gemm_dpbf16;
    int columns = cand->slot == VL_SLOT_gemm_wide ? VL_WIDE : VL_NR;
    if (pairs && k == TINY) k = NORMAL; /* vdpbf16ps takes subnormals as zero */
    int steps = pairs ? (kc + 1) / 2 : kc;
    size_t n = (size_t)(rows * columns), xs = (size_t)(steps - 1) * lda + (size_t)rows;
    size_t lanes = (size_t)steps * (size_t)columns;
    float *a = guard_words(xs), *c = guard_words(n);
    void *panel = guard_words(lanes);
    static float want[MOST_ROWS * VL_NR], old[MOST_ROWS * VL_NR], mag[MOST_ROWS * VL_NR];
    static double tol[MOST_ROWS * VL_NR];
    if (pairs) fill_bf16((uint32_t *)(void *)a, xs, k, &rng);
    else fill(a, xs, k, &rng);
    if (pairs) fill_bf16(panel, lanes, k, &rng);
    else fill(panel, lanes, k, &rng);
    for (int i = 0; i < VL_NR && pairs && kc % 2; i++) { /* the half beyond an odd kc is zero */
        ((uint32_t *)panel)[lanes - 1 - (size_t)i] &= 0xffffu;
        if (i < rows) ((uint32_t *)(void *)a)[xs - 1 - (size_t)i] &= 0xffffu;
    }
    fill(old, n, k, &rng);
    if (add) memcpy(c, old, n * sizeof *c);
    memcpy(want, old, n * sizeof *c);
    ref(want, a, lda, panel, kc, rows, add);
    fn(c, a, lda, panel, kc, rows, add);
    /* the sum of |a b|: the reference again, on absolute values */
    uint32_t *aa = guard_words(xs), *pp = guard_words(lanes);
    for (size_t i = 0; i < xs; i++)
        aa[i] = ((uint32_t *)(void *)a)[i] & (pairs ? 0x7fff7fffu : 0x7fffffffu);
    for (size_t i = 0; i < lanes; i++)
        pp[i] = ((uint32_t *)panel)[i] & (pairs ? 0x7fff7fffu : 0x7fffffffu);
    ref(mag, aa, lda, pp, kc, rows, false);
    for (size_t i = 0; i < n; i++)
        tol[i] = EPS * ((2 * sqrt(kc) + 2) * (double)mag[i] + 2 * fabs((double)want[i]) +
                        (add ? fabs((double)old[i]) : 0)) + DENORM * (kc + 1);
    char what[96];
    snprintf(what, sizeof what, "rows %d kc %d lda %zu add %d %s", rows, kc, lda, add, KIND_NAMES[k]);
    near_all(c, want, tol, n, what);
    guards_end();
}

static void check_gemm(const vl_candidate *cand, const vl_candidate *ref) {
    static const int KC[] = {1, 2, 3, 8, 31, 64, 65, 127, 128, 255, 256};
    vl_uk_gemm *fn = (vl_uk_gemm *)cand->fn, *oracle = (vl_uk_gemm *)ref->fn;
    for (int rows = 1; rows <= cand->tile; rows++)
        for (size_t i = 0; i < sizeof KC / sizeof *KC; i++)
            for (int variant = 0; variant < 4; variant++)
                gemm_case(cand, fn, oracle, rows, KC[i],
                          (size_t)cand->tile + (variant & 1 ? 5 : 0), variant & 2,
                          (kind)((rows + (int)i + variant) % KINDS));
    if (!bench) return;
    static float a[VL_KC * VL_MAX_MR], c[VL_MAX_MR * VL_NR], panel[VL_KC * VL_WIDE];
    int columns = cand->slot == VL_SLOT_gemm_wide ? VL_WIDE : VL_NR;
    for (int rows = cand->tile; rows > 0; rows = rows > 4 ? 4 : 0) {
        char shape[32];
        snprintf(shape, sizeof shape, "%d x %d, kc %d", rows, columns, VL_KC);
        bench_row(shape, TIME(fn(c, a, (size_t)cand->tile, panel, VL_KC, rows, true)),
                  2.0 * rows * columns * VL_KC, 0);
    }
}

/* Exact, into rows of any length, and nothing beyond its 32 columns or kc rows. */
static void check_widen(const vl_candidate *cand, const vl_candidate *ref) {
    static const int KC[] = {1, 2, 7, 64, 127, VL_KC};
    vl_uk_widen *fn = (vl_uk_widen *)cand->fn, *oracle = (vl_uk_widen *)ref->fn;
    for (size_t i = 0; i < sizeof KC / sizeof *KC; i++)
        for (size_t ld = VL_NR; ld <= VL_WIDE; ld += VL_NR) {
            int kc = KC[i];
            size_t lanes = (size_t)(kc + 1) / 2 * VL_NR, n = (size_t)(kc - 1) * ld + VL_NR;
            uint32_t *panel = guard_words(lanes);
            float *got = guard_words(n), *want = guard_words(n);
            for (size_t w = 0; w < lanes; w++) panel[w] = (uint32_t)w * 2654435761u; /* NaN and infinity too */
            memset(got, 1, n * sizeof *got);
            memset(want, 1, n * sizeof *want);
            fn(got, ld, panel, kc);
            oracle(want, ld, panel, kc);
            CHECK(!memcmp(got, want, n * sizeof *got), "%s %d terms, rows of %zu", running, kc, ld);
            guards_end();
        }
}

/* Where the words of row r, step s of a tile sum's x lie: plain rows, or blocks of 32 rows step by step. */
typedef enum tile_form { PLAIN, APART, BLOCKS, FORMS } tile_form;

/* One sum, x rounded (parts 1) or in VL_PARTS parts, an odd distance apart but within rows of tiles. */
static void tiles_case(vl_uk_gemm_tiles *fn, vl_uk_gemm_tiles *ref, int rows, int kc, tile_form form, int parts, bool add, kind k) {
    if (k == TINY) k = NORMAL; /* tdpbf16ps takes subnormals as zero */
    int pairs = (kc + 1) / 2, steps = (pairs + 15) / 16;
    size_t lda = form == BLOCKS ? 16 : (size_t)pairs + (form == APART ? 5 : 0);
    size_t part = form == BLOCKS ? (size_t)rows * 16 : (size_t)rows * lda + 3;
    size_t step = form == BLOCKS ? (size_t)parts * part + 16 : 16, last = (size_t)(pairs - (steps - 1) * 16);
    size_t n = (size_t)rows * VL_NR, xs = (size_t)(rows - 1) * lda + (size_t)(steps - 1) * step + last + (size_t)(parts - 1) * part;
    size_t lanes = (size_t)pairs * VL_NR;
    uint32_t *a = guard_words(xs), *panel = guard_words(lanes), *aa = guard_words(xs), *pp = guard_words(lanes);
    float *c = guard_words(n);
    static float want[MOST_ROWS * VL_NR], old[MOST_ROWS * VL_NR], mag[MOST_ROWS * VL_NR];
    static double tol[MOST_ROWS * VL_NR];
    fill_bf16(a, xs, k, &rng);
    fill_bf16(panel, lanes, k, &rng);
    fill(old, n, k, &rng);
    for (int i = 0; i < VL_NR && kc % 2; i++) panel[lanes - 1 - (size_t)i] &= 0xffffu; /* beyond an odd kc: zero */
    for (int i = 0; i < parts * rows && kc % 2; i++)
        a[(size_t)(i % rows) * lda + (size_t)(i / rows) * part + (size_t)(steps - 1) * step + last - 1] &= 0xffffu;
    if (add) memcpy(c, old, n * sizeof *c);
    memcpy(want, old, n * sizeof *c);
    if (parts == 1) part = 0;
    vl_tile_sum t = {.c = want, .a = a, .lda = lda, .step = step, .part = part, .panel = panel, .kc = kc, .rows = rows, .add = add};
    ref(&t);
    t.c = c;
    t.ahead = add ? (const uint8_t *)panel : NULL; /* asking changes nothing */
    t.ahead_bytes = lanes * 4;
    fn(&t);
    for (size_t i = 0; i < xs; i++) aa[i] = a[i] & 0x7fff7fffu;
    for (size_t i = 0; i < lanes; i++) pp[i] = panel[i] & 0x7fff7fffu;
    t = (vl_tile_sum){.c = mag, .a = aa, .lda = lda, .step = step, .part = part, .panel = pp, .kc = kc, .rows = rows};
    ref(&t);
    for (size_t i = 0; i < n; i++)
        tol[i] = EPS * ((2 * sqrt(parts * kc) + 2) * (double)mag[i] + 2 * fabs((double)want[i]) +
                        (add ? (1 + sqrt(parts * steps)) * fabs((double)old[i]) : 0)) + DENORM * (parts * kc + 1);
    char what[96];
    snprintf(what, sizeof what, "rows %d kc %d form %d parts %d add %d %s", rows, kc, form, parts, add, KIND_NAMES[k]);
    near_all(c, want, tol, n, what);
    guards_end();
}

/* What Intel's manual says of TDPBF16PS: in a step even and odd terms are summed apart, then together, then added. */
static void tiles_order(const vl_tile_sum *t, float *c) {
    for (int r = 0; r < t->rows; r++)
        for (int j = 0; j < VL_NR; j++) {
            float sum = 0;
            for (int s = 0; s * 32 < t->kc; s++)
                for (size_t p = t->part ? VL_PARTS : 1; p-- > 0;) {
                    const uint32_t *x = t->a + (size_t)s * t->step + p * t->part + (size_t)r * t->lda;
                    const uint32_t *w = (const uint32_t *)t->panel + s * 16 * VL_NR + j;
                    float half[2] = {0, 0};
                    for (int i = 0; i < 16 && s * 32 + 2 * i < t->kc; i++)
                        for (int odd = 0; odd < 2; odd++)
                            half[odd] += vl_bf16_to_f32((uint16_t)(x[i] >> (16 * odd))) *
                                         vl_bf16_to_f32((uint16_t)(w[i * VL_NR] >> (16 * odd)));
                    sum += half[0] + half[1];
                }
            c[r * VL_NR + j] = sum;
        }
}

/* The bits of a row do not depend on its company, nor on where a sum is cut; and they are the manual's. */
static void check_tile_bits(vl_uk_gemm_tiles *fn, size_t part) {
    enum { K = 300, CUT = 96, LDA = K / 2 };
    static uint32_t a[VL_PARTS * MOST_ROWS * LDA], panel[LDA * VL_NR];
    static float all[MOST_ROWS * VL_NR], other[MOST_ROWS * VL_NR];
    fill_bf16(a, VL_PARTS * MOST_ROWS * LDA, NORMAL, &rng);
    fill_bf16(panel, LDA * VL_NR, NORMAL, &rng);
    vl_tile_sum whole = {.c = all, .a = a, .lda = LDA, .step = 16, .part = part, .panel = panel, .kc = K, .rows = MOST_ROWS};
    fn(&whole);
    tiles_order(&whole, other);
    CHECK(!memcmp(all, other, sizeof all), "%s: part %zu: not the order of the manual", running, part);
    for (int rows = 1; rows <= 40; rows++) {
        memset(other, 0, sizeof other);
        for (int at = 0; at < MOST_ROWS; at += rows) {
            vl_tile_sum t = whole;
            t.c = other + at * VL_NR, t.a = a + at * LDA, t.kc = CUT;
            t.rows = MOST_ROWS - at < rows ? MOST_ROWS - at : rows;
            fn(&t);
            t.a += CUT / 2, t.panel = panel + CUT / 2 * VL_NR, t.kc = K - CUT, t.add = true;
            fn(&t);
        }
        CHECK(!memcmp(all, other, sizeof all), "%s: part %zu: %d rows at a time change bits", running, part, rows);
    }
}

/* Tiles of rows: any number of rows, in every form, sums longer than a block. */
static void check_gemm_tiles(const vl_candidate *cand, const vl_candidate *ref) {
    static const int KC[] = {1, 2, 3, 31, 32, 33, 64, 72, 255, 256, 264, 1000};
    static const int ROWS[] = {1, 2, 3, 7, 8, 9, 15, 16, 17, 20, 31, 32, 33, 48, 63, 64, MOST_ROWS};
    enum { NKC = sizeof KC / sizeof *KC, LDA = 150 };
    vl_uk_gemm_tiles *fn = (vl_uk_gemm_tiles *)cand->fn, *oracle = (vl_uk_gemm_tiles *)ref->fn;
    for (size_t r = 0; r < sizeof ROWS / sizeof *ROWS; r++)
        for (size_t i = 0; i < NKC; i++)
            for (int variant = 0; variant < 4 * FORMS; variant++)
                tiles_case(fn, oracle, ROWS[r], KC[i], (tile_form)(variant / 4), variant & 1 ? VL_PARTS : 1, variant & 2,
                           (kind)((r + i + (size_t)variant) % KINDS));
    if (cand->tier == VL_TIER_scalar) return; /* rounds at the end of each call */
    check_tile_bits(fn, 0);
    check_tile_bits(fn, MOST_ROWS * LDA);
    if (!bench) return;
    static uint32_t a[VL_PARTS * MOST_ROWS * 16 * 8], panel[128 * VL_NR];
    static float c[MOST_ROWS * VL_NR];
    for (int rows = 64; rows > 0; rows = rows == 64 ? 32 : rows == 32 ? 16 : rows == 16 ? 1 : 0)
        for (int parts = 1; parts <= VL_PARTS; parts += VL_PARTS - 1) {
            char shape[32];
            size_t part = parts > 1 ? (size_t)rows * 16 : 0, step = (size_t)(parts * rows * 16);
            vl_tile_sum t = {.c = c, .a = a, .lda = 16, .step = step, .part = part, .panel = panel, .kc = 256, .rows = rows, .add = true};
            snprintf(shape, sizeof shape, "%d x 32, kc 256, parts %d", rows, parts);
            bench_row(shape, TIME(fn(&t)), 2.0 * rows * VL_NR * 256, 256 * VL_NR * 2);
        }
}

/* Tiles given back and asked for again, in turns with other numbers of rows. */
static void check_tiles_end(const vl_candidate *cand, const vl_candidate *ref) {
    (void)ref;
    for (int i = 0; i < vl_candidate_count; i++) {
        const vl_candidate *c = &vl_candidates[i];
        if (c->slot != VL_SLOT_gemm_tiles || c->tier != cand->tier) continue;
        for (int rows = 1; rows <= 33; rows += 8) {
            uint32_t a[33 * 16], panel[16 * VL_NR];
            float first[33 * VL_NR], again[33 * VL_NR];
            fill_bf16(a, 33 * 16, NORMAL, &rng);
            fill_bf16(panel, 16 * VL_NR, NORMAL, &rng);
            vl_tile_sum t = {.c = first, .a = a, .lda = 16, .step = 16, .panel = panel, .kc = 32, .rows = rows};
            ((vl_uk_gemm_tiles *)c->fn)(&t);
            ((vl_uk_tiles_end *)cand->fn)();
            ((vl_uk_tiles_end *)cand->fn)(); /* nothing to give back */
            t.c = again;
            ((vl_uk_gemm_tiles *)c->fn)(&t);
            CHECK(!memcmp(first, again, (size_t)rows * VL_NR * 4), "%s: %d rows", running, rows);
        }
    }
    ((vl_uk_tiles_end *)cand->fn)();
}

/* Blocks of rows, rounded or in parts: the bits of the scalar line; rows of padding and everything around stay as
 * they are. The scalar line's parts have 8 bits each and add up to what they were made of. */
static void check_pack_tiles(const vl_candidate *cand, const vl_candidate *ref) {
    for (int i = 0; i < 2 * TAIL_COUNT; i++)
        for (int rows = 1; rows <= 32; rows += rows < 3 ? 1 : 29) {
            int K = TAILS[i / 2] * 3 - 2, steps = (K + 31) / 32, parts = i % 2 ? VL_PARTS : 1;
            size_t ldx = (size_t)K + (size_t)(i % 3), part = i % 2 ? (size_t)rows * 16 + (i % 4 == 3 ? 16 : 0) : 0;
            size_t step = i % 2 ? VL_PARTS * part + 32 : (size_t)rows * 16 + (i % 4 == 2 ? 48 : 0);
            size_t n = (size_t)(steps - 1) * step + (size_t)(parts - 1) * part + (size_t)rows * 16;
            size_t xs = (size_t)(rows - 1) * ldx + (size_t)K;
            float *x = guard_words(xs);
            uint32_t *got = guard_words(n), *want = guard_words(n);
            fill(x, xs, (kind)(i % KINDS), &rng);
            x[xs - 1] = INFINITY, x[xs / 2] = NAN, x[xs / 3] = -FLT_MAX;
            memset(got, 0x5a, n * 4);
            memset(want, 0x5a, n * 4);
            ((vl_uk_pack_tiles *)ref->fn)(want, step, part, x, ldx, rows, K);
            ((vl_uk_pack_tiles *)cand->fn)(got, step, part, x, ldx, rows, K);
            CHECK(!memcmp(got, want, n * 4), "%s: rows %d K %d part %zu", running, rows, K, part);
            for (int r = 0, k = 0; part && r < rows; r++)
                for (k = 0; k < K; k++) {
                    float v = x[(size_t)r * ldx + (size_t)k], sum = 0;
                    for (size_t p = VL_PARTS; p-- > 0;)
                        sum += vl_bf16_to_f32((uint16_t)(got[(size_t)(k / 32) * step + p * part + (size_t)(r * 16 + k % 32 / 2)] >>
                                                         (k % 2 * 16)));
                    CHECK(sum == v || fabsf(sum - v) < 0x1p-126f || (isnan(sum) && isnan(v)), "%s: %a is not the sum of its parts, %a", running, v, sum);
                }
            guards_end();
        }
    if (!bench) return;
    static float x[32 * 2048];
    static uint32_t dst[VL_PARTS * 32 * 1024];
    bench_row("32 x 2048", TIME(((vl_uk_pack_tiles *)cand->fn)(dst, 512, 0, x, 2048, 32, 2048)), 0, 32 * 2048 * 6);
    bench_row("32 x 2048, parts", TIME(((vl_uk_pack_tiles *)cand->fn)(dst, 1536, 512, x, 2048, 32, 2048)), 0, 32 * 2048 * 10);
}

static void check_gemv(const vl_candidate *cand, const vl_candidate *ref) {
    static const int KS[] = {1, 2, 5, 63, 64, 255, 256, 257, 300, 511, 1024, 2048, 6144};
    vl_uk_gemv *fn = (vl_uk_gemv *)cand->fn, *oracle = (vl_uk_gemv *)ref->fn;
    bool pairs = cand->slot == VL_SLOT_gemv_dpbf16, bf16 = pairs || cand->slot == VL_SLOT_gemv_bf16;
    for (size_t i = 0; i < sizeof KS / sizeof *KS; i++)
        for (int rows = 1; rows <= VL_GEMV_ROWS; rows++) {
            int K = KS[i];
            size_t words = (size_t)(pairs ? (K + 1) / 2 : K), n = (size_t)rows * VL_NR;
            size_t ldx = words + (rows % 2 ? 3 : 0), xs = (size_t)(rows - 1) * ldx + words;
            size_t lanes = (size_t)(bf16 ? (K + 1) / 2 : K) * VL_NR;
            kind k = (kind)(((int)i + rows) % KINDS);
            if (pairs && k == TINY) k = NORMAL; /* vdpbf16ps takes subnormals as zero */
            float *x = guard_words(xs), *ax = guard_words(xs), *y = guard_words(n);
            uint32_t *panel = guard_words(lanes), *ap = guard_words(lanes);
            float want[VL_GEMV_ROWS * VL_NR], mag[VL_GEMV_ROWS * VL_NR];
            double tol[VL_GEMV_ROWS * VL_NR];
            if (pairs) fill_bf16((uint32_t *)(void *)x, xs, k, &rng);
            else fill(x, xs, k, &rng);
            if (bf16) fill_bf16(panel, lanes, k, &rng);
            else fill((float *)panel, lanes, k, &rng);
            for (int j = 0; j < VL_NR && pairs && K % 2; j++) /* the half beyond an odd K is zero */
                panel[lanes - 1 - (size_t)j] &= 0xffffu;
            for (int r = 0; r < rows && pairs && K % 2; r++)
                ((uint32_t *)(void *)x)[(size_t)r * ldx + words - 1] &= 0xffffu;
            memcpy(ax, x, xs * sizeof *x);
            for (size_t j = 0; j < xs; j++) ((uint32_t *)(void *)ax)[j] &= pairs ? 0x7fff7fffu : 0x7fffffffu;
            for (size_t j = 0; j < lanes; j++) ap[j] = panel[j] & (bf16 ? 0x7fff7fffu : 0x7fffffffu);
            oracle(want, x, ldx, panel, K, rows);
            oracle(mag, ax, ldx, ap, K, rows);
            fn(y, x, ldx, panel, K, rows);
            int block = pairs ? VL_KC_PAIRS : VL_KC, terms = K < block ? K : block;
            for (size_t j = 0; j < n; j++)
                tol[j] = EPS * (2 * sqrt(terms) + 2 + K / block) * (double)mag[j] + DENORM * (K + 1);
            char what[64];
            snprintf(what, sizeof what, "K %d rows %d %s", K, rows, KIND_NAMES[k]);
            near_all(y, want, tol, n, what);
            guards_end();
        }
    if (!bench) return;
    static float x[VL_GEMV_ROWS * 2048], y[VL_GEMV_ROWS * VL_NR];
    static uint32_t panel[2048 * VL_NR]; /* in the cache: the kernel's own limit, not the memory's */
    for (int rows = 1; rows <= VL_GEMV_ROWS; rows++) {
        char shape[32];
        snprintf(shape, sizeof shape, "%d x 32, K 2048", rows);
        bench_row(shape, TIME(fn(y, x, 2048, panel, 2048, rows)), 2.0 * rows * VL_NR * 2048,
                  2048.0 * VL_NR * (bf16 ? 2 : 4));
    }
}

/* ---- packing: exact ---------------------------------------------------------------------------- */

static void check_pack_bf16(const vl_candidate *cand, const vl_candidate *ref) {
    vl_uk_pack_bf16 *fn = (vl_uk_pack_bf16 *)cand->fn, *oracle = (vl_uk_pack_bf16 *)ref->fn;
    for (int i = 0; i < TAIL_COUNT; i++)
        for (int rows = 1; rows <= VL_NR; rows += rows == 1 ? 30 : 1)
            for (int pad = 0; pad < 3; pad++) {
                int K = TAILS[i];
                size_t ldw = (size_t)(K + pad), words = ((size_t)(rows - 1) * ldw + (size_t)K + 1) / 2;
                size_t lanes = (size_t)((K + 1) / 2) * VL_NR;
                uint32_t *src = guard_words(words), *panel = guard_words(lanes), *want = guard_words(lanes);
                for (size_t j = 0; j < words; j++) src[j] = (uint32_t)vl_rng_u64(&rng);
                /* the rows end at the guard page when their number of halves is odd as well */
                const uint16_t *w = (uint16_t *)src + (2 * words - ((size_t)(rows - 1) * ldw + (size_t)K));
                oracle(want, w, ldw, rows, K);
                fn(panel, w, ldw, rows, K);
                CHECK(!memcmp(panel, want, lanes * 4), "%s rows %d K %d ldw %zu", running, rows, K, ldw);
                guards_end();
            }
    if (!bench) return;
    static uint16_t w[VL_NR * 2048];
    static uint32_t panel[VL_NR * 1024];
    bench_row("32 x 2048", TIME(fn(panel, w, 2048, VL_NR, 2048)), 0, 2.0 * sizeof w);
}

static void check_pack_rows(const vl_candidate *cand, const vl_candidate *ref) {
    vl_uk_pack_rows *fn = (vl_uk_pack_rows *)cand->fn, *oracle = (vl_uk_pack_rows *)ref->fn;
    static const int MR[] = {6, 8, 12};
    for (int i = 0; i < TAIL_COUNT; i++)
        for (int m = 0; m < 3; m++)
            for (int rows = 1; rows <= MR[m]; rows++) {
                int K = TAILS[i];
                size_t ldx = (size_t)(K + rows % 2), xs = (size_t)(rows - 1) * ldx + (size_t)K;
                size_t n = (size_t)K * (size_t)MR[m];
                float *x = guard_words(xs), *dst = guard_words(n), *want = guard_words(n);
                fill(x, xs, NORMAL, &rng);
                oracle(want, x, ldx, rows, K, MR[m]);
                fn(dst, x, ldx, rows, K, MR[m]);
                CHECK(!memcmp(dst, want, n * 4), "%s rows %d of %d, K %d", running, rows, MR[m], K);
                guards_end();
            }
    if (!bench) return;
    static float x[12 * 2048], dst[12 * 2048];
    bench_row("12 x 2048", TIME(fn(dst, x, 2048, 12, 2048, 12)), 0, 2.0 * sizeof x);
}

static void check_pack_pairs(const vl_candidate *cand, const vl_candidate *ref) {
    vl_uk_pack_pairs *fn = (vl_uk_pack_pairs *)cand->fn, *oracle = (vl_uk_pack_pairs *)ref->fn;
    for (int i = 0; i < TAIL_COUNT; i++)
        for (int rows = 1, mr = 1; rows <= 12; rows += mr == 12, mr = 12) {
            int K = TAILS[i];
            size_t ldx = (size_t)(K + rows % 2), xs = (size_t)(rows - 1) * ldx + (size_t)K;
            size_t n = (size_t)((K + 1) / 2) * (size_t)mr;
            float *x = guard_words(xs);
            uint32_t *dst = guard_words(n), *want = guard_words(n);
            fill(x, xs, (kind)(rows % KINDS), &rng);
            oracle(want, x, ldx, rows, K, mr);
            fn(dst, x, ldx, rows, K, mr);
            CHECK(!memcmp(dst, want, n * 4), "%s rows %d of %d, K %d", running, rows, mr, K);
            guards_end();
        }
    if (!bench) return;
    static float x[12 * VL_KC_PAIRS];
    static uint32_t dst[12 * VL_KC_PAIRS / 2];
    bench_row("12 x 256", TIME(fn(dst, x, VL_KC_PAIRS, 12, VL_KC_PAIRS, 12)), 0, 1.5 * sizeof x);
}

static void check_pair_rows(const vl_candidate *cand, const vl_candidate *ref) {
    vl_uk_pair_rows *fn = (vl_uk_pair_rows *)cand->fn, *oracle = (vl_uk_pair_rows *)ref->fn;
    for (int i = 0; i < TAIL_COUNT; i++)
        for (int rows = 1; rows <= 5; rows++) {
            int cols = TAILS[i] + TAILS[i] % 2; /* guards are words */
            size_t ldx = (size_t)cols + (rows % 2 ? 4 : 0), xs = ((size_t)(rows - 1) * ldx + (size_t)cols) / 2;
            size_t n = (size_t)((rows + 1) / 2) * (size_t)cols;
            uint32_t *x = guard_words(xs), *dst = guard_words(n), *want = guard_words(n);
            for (size_t j = 0; j < xs; j++) x[j] = (uint32_t)vl_rng_u64(&rng);
            oracle(want, (uint16_t *)x, ldx, rows, cols);
            fn(dst, (uint16_t *)x, ldx, rows, cols);
            CHECK(!memcmp(dst, want, n * 4), "%s rows %d n %d", running, rows, cols);
            guards_end();
        }
    static uint16_t x[64 * 64];
    static uint32_t dst[32 * 64];
    if (bench) bench_row("64 x 64", TIME(fn(dst, x, 64, 64, 64)), 0, 2.0 * sizeof x);
}

/* ---- element-wise -------------------------------------------------------------------------------- */

/* Values that find mistakes: a fine sweep, then zeros, subnormals, huge values, infinities, NaN. */
static size_t sweep(float *x, size_t max) {
    size_t n = 0;
    for (double v = -110; v < 110 && n < max; v += v > -16 && v < 16 ? 0.0037 : 0.11) x[n++] = (float)v;
    static const float SPECIAL[] = {0.0f, -0.0f, 1e-39f, -1e-39f, 1e-20f, -1e-20f, 1e19f, -1e19f,
                                    3e38f, -3e38f, INFINITY, -INFINITY, NAN};
    for (size_t i = 0; i < sizeof SPECIAL / sizeof *SPECIAL && n < max; i++) x[n++] = SPECIAL[i];
    return n;
}
enum { SWEEP = 16384 };

static void epilogue_case(vl_uk_epilogue *fn, vl_uk_epilogue *ref, const float *in, size_t n,
                          bool with_bias, vl_epilogue epi) {
    float *sum = guard_words(n), *bias = guard_words(n), *out = guard_words(n), *want = guard_words(n);
    double *tol = vl_calloc(n, sizeof *tol);
    memcpy(sum, in, n * sizeof *in);
    fill(bias, n, NORMAL, &rng);
    if (epi == VL_EPI_ADD) fill(out, n, NORMAL, &rng);
    memcpy(want, out, n * sizeof *out);
    for (size_t i = 0; i < n; i++) /* operands of the sums, then 4e-7 of a GELU's result */
        tol[i] = EPS * (double)(2 * fabsf(sum[i]) + 2 * (with_bias ? fabsf(bias[i]) : 0) +
                                (epi == VL_EPI_ADD ? 2 * fabsf(out[i]) : 0)) + 1e-37;
    ref(want, sum, with_bias ? bias : NULL, (int)n, epi);
    fn(out, sum, with_bias ? bias : NULL, (int)n, epi);
    if (epi == VL_EPI_GELU_TANH || epi == VL_EPI_GELU_ERF)
        for (size_t i = 0; i < n; i++) {
            /* far left the exponent 2u is large: x^2, two products, the sum and constants are rounded */
            double v = (double)sum[i] + (with_bias ? (double)bias[i] : 0);
            double arg = epi == VL_EPI_GELU_ERF ? 0 : v < 0 ? 1.6 * fabs(v) + 0.0714 * fabs(v * v * v) : 0;
            tol[i] = (4e-7 + 4 * EPS * arg) * fabs((double)want[i]) + 1e-37;
        }
    char what[48];
    snprintf(what, sizeof what, "n %zu epilogue %d bias %d", n, (int)epi, with_bias);
    near_all(out, want, tol, n, what);
    free(tol);
    guards_end();
}

static void check_epilogue(const vl_candidate *cand, const vl_candidate *ref) {
    vl_uk_epilogue *fn = (vl_uk_epilogue *)cand->fn, *oracle = (vl_uk_epilogue *)ref->fn;
    static float x[SWEEP], out[SWEEP];
    size_t n = sweep(x, SWEEP);
    for (int epi = VL_EPI_NONE; epi <= (int)VL_EPI_GELU_ERF; epi++) {
        epilogue_case(fn, oracle, x, n, false, (vl_epilogue)epi);
        for (int i = 0; i < TAIL_COUNT; i++)
            for (int bias = 0; bias < 2; bias++)
                epilogue_case(fn, oracle, x + 3000 + i, (size_t)TAILS[i], bias, (vl_epilogue)epi);
        if (!bench) continue;
        static const char *const NAMES[] = {"none, 4096", "add, 4096", "gelu_tanh, 4096", "gelu_erf, 4096"};
        bench_row(NAMES[epi], TIME(fn(out, x, x, 4096, (vl_epilogue)epi)), 4096, 4096 * 12);
    }
}

static void check_swiglu(const vl_candidate *cand, const vl_candidate *ref) {
    vl_uk_swiglu *fn = (vl_uk_swiglu *)cand->fn, *oracle = (vl_uk_swiglu *)ref->fn;
    static float x[SWEEP], u[SWEEP], want[SWEEP];
    static double tol[SWEEP];
    size_t all = sweep(x, SWEEP);
    fill(u, all, NORMAL, &rng);
    for (int i = -1; i < TAIL_COUNT; i++) {
        size_t n = i < 0 ? all : (size_t)TAILS[i], at = i < 0 ? 0 : 3500;
        float *gate = guard_words(n), *up = guard_words(n), *out = i % 2 ? guard_words(n) : gate;
        memcpy(gate, x + at, n * sizeof *x);
        memcpy(up, u + at, n * sizeof *x);
        oracle(want, gate, up, (int)n);
        fn(out, gate, up, (int)n);
        for (size_t j = 0; j < n; j++) tol[j] = 4e-7 * fabs((double)want[j]) + 1e-37;
        near_all(out, want, tol, n, i < 0 ? "sweep" : "tail");
        guards_end();
    }
    if (bench) bench_row("6144", TIME(fn(want, u, u, 6144)), 6144 * 5, 6144 * 12);
}

static void check_rope(const vl_candidate *cand, const vl_candidate *ref) {
    vl_uk_rope *fn = (vl_uk_rope *)cand->fn, *oracle = (vl_uk_rope *)ref->fn;
    float x[128], want[128], c[64], s[64];
    double tol[128];
    for (int E = 2; E <= 128; E += 2) {
        float *got = guard_words((size_t)E), *gc = guard_words((size_t)E / 2), *gs = guard_words((size_t)E / 2);
        fill(x, (size_t)E, (kind)(E / 2 % KINDS), &rng);
        for (int i = 0; i < E / 2; i++) {
            c[i] = gc[i] = (float)cos(0.37 * i + E);
            s[i] = gs[i] = (float)sin(0.37 * i + E);
        }
        memcpy(got, x, (size_t)E * sizeof *x);
        memcpy(want, x, (size_t)E * sizeof *x);
        oracle(want, c, s, E);
        fn(got, gc, gs, E);
        for (int i = 0; i < E; i++)
            tol[i] = 2 * EPS * ((double)fabsf(x[i]) + (double)fabsf(x[(i + E / 2) % E])) + 2 * DENORM;
        near_all(got, want, tol, (size_t)E, "rope");
        guards_end();
    }
    if (bench) bench_row("128", TIME(fn(x, c, s, 128)), 128 * 3, 128 * 12);
}

/* ---- norms --------------------------------------------------------------------------------------- */

static void norm_case(const vl_candidate *cand, const vl_candidate *ref, int D, kind k, bool in_place) {
    size_t n = (size_t)D;
    float *x = guard_words(n), *w = guard_words(n), *b = guard_words(n), *out = in_place ? x : guard_words(n);
    float *want = vl_calloc(n, sizeof *want);
    double *tol = vl_calloc(n, sizeof *tol), big = 0, sum = 0, sq = 0;
    fill(x, n, k, &rng);
    fill(w, n, NORMAL, &rng);
    fill(b, n, NORMAL, &rng);
    for (int i = 0; i < D; i++) {
        sum += (double)x[i];
        sq += (double)x[i] * (double)x[i];
        if (fabs((double)x[i]) > big) big = fabs((double)x[i]);
    }
    bool layer = cand->slot == VL_SLOT_layernorm;
    double var = layer ? sq / D - sum / D * (sum / D) : sq / D, scale = 1 / sqrt(fmax(var, 0) + 1e-6);
    for (int i = 0; i < D; i++) /* x - mean is rounded once at the size of x; the rest is relative */
        tol[i] = EPS * (6 * scale * fabs((double)w[i]) * (fabs((double)x[i]) + (layer ? fabs(sum / D) : 0)) +
                        (layer ? fabs((double)b[i]) : 0)) + 1e-43;
    if (layer) {
        ((vl_uk_layernorm *)ref->fn)(want, x, w, b, D, 1e-6f);
        ((vl_uk_layernorm *)cand->fn)(out, x, w, b, D, 1e-6f);
    } else {
        ((vl_uk_rmsnorm *)ref->fn)(want, x, w, D, 1e-6f);
        ((vl_uk_rmsnorm *)cand->fn)(out, x, w, D, 1e-6f);
    }
    for (int i = 0; i < D; i++) tol[i] += 2 * EPS * fabs((double)want[i]);
    char what[48];
    snprintf(what, sizeof what, "D %d %s", D, KIND_NAMES[k]);
    near_all(out, want, tol, n, what);
    free(want);
    free(tol);
    guards_end();
}

static void check_norm(const vl_candidate *cand, const vl_candidate *ref) {
    static const int REAL[] = {1024, 2048, 4096, 4097};
    for (int k = 0; k < KINDS; k++) {
        for (int i = 0; i < TAIL_COUNT; i++) norm_case(cand, ref, TAILS[i], (kind)k, i % 2);
        for (int i = 0; i < 4; i++) norm_case(cand, ref, REAL[i], (kind)k, false);
    }
    if (!bench) return;
    static float x[2048], w[2048], out[2048];
    fill(x, 2048, NORMAL, &rng);
    double t = cand->slot == VL_SLOT_layernorm
                   ? TIME(((vl_uk_layernorm *)cand->fn)(out, x, w, w, 2048, 1e-6f))
                   : TIME(((vl_uk_rmsnorm *)cand->fn)(out, x, w, 2048, 1e-6f));
    bench_row("2048", t, 2048 * 5, 2048 * 12);
}

/* ---- softmax ------------------------------------------------------------------------------------- */

static void softmax_case(const vl_candidate *cand, const vl_candidate *ref, int keys, int lanes, bool fresh,
                         bool ragged) {
    size_t ns = (size_t)keys * VL_NR;
    float *s = guard_words(ns), *m = guard_words(VL_NR), *l = guard_words(VL_NR), *f = guard_words(VL_NR);
    int32_t *valid = guard_words(VL_NR);
    float ws[64 * VL_NR], wm[VL_NR], wl[VL_NR], wf[VL_NR], raw[64 * VL_NR], m0[VL_NR];
    double tol[64 * VL_NR] = {0}, range[VL_NR];
    fill(s, ns, NORMAL, &rng);
    for (int q = 0; q < VL_NR; q++) {
        valid[q] = ragged ? (q * 5) % (keys + 2) : keys;
        m[q] = fresh ? -INFINITY : (float)vl_rng_normal(&rng);
        l[q] = fresh ? 0 : 1 + (float)vl_rng_uniform(&rng);
        if (fresh && ragged && q % 4 == 0)
            for (int j = 0; j < keys; j++) s[j * VL_NR + q] *= 300; /* far apart */
    }
    float scale = 0.37f;
    memcpy(ws, s, ns * 4), memcpy(raw, s, ns * 4), memcpy(wm, m, sizeof wm), memcpy(wl, l, sizeof wl);
    memcpy(m0, m, sizeof m0);
    ((vl_uk_softmax *)ref->fn)(ws, keys, lanes, valid, scale, wm, wl, wf);
    ((vl_uk_softmax *)cand->fn)(s, keys, lanes, valid, scale, m, l, f);
    for (size_t i = 0; i < ns; i++) /* lanes that were not asked for do not count */
        if ((int)(i % VL_NR) >= lanes) s[i] = ws[i];
    /* s * scale and the difference to m are rounded; exp adds 1.5 ulp */
    for (int q = 0; q < lanes; q++)
        range[q] = (isinf(wm[q]) ? 0 : fabs((double)wm[q])) + (isinf(m0[q]) ? 0 : fabs((double)m0[q]));
    for (size_t i = 0; i < ns; i++)
        tol[i] = (int)(i % VL_NR) >= lanes ? 1 : EPS * (4 + 2 * fabs((double)(raw[i] * scale)) + range[i % VL_NR]) *
                 (double)ws[i] + 2 * DENORM;
    near_all(s, ws, tol, ns, "p");
    for (int q = 0; q < lanes; q++) tol[q] = isinf(wm[q]) ? 0 : EPS * fabs((double)wm[q]) + DENORM;
    near_all(m, wm, tol, (size_t)lanes, "m");
    for (int q = 0; q < lanes; q++)
        tol[q] = EPS * (6 + 3 * range[q] + sqrt(keys) * 2) * fabs((double)wl[q]) * (1 + range[q]) + DENORM;
    near_all(l, wl, tol, (size_t)lanes, "l");
    for (int q = 0; q < lanes; q++) tol[q] = EPS * (6 + 3 * range[q]) * (double)wf[q] + DENORM;
    near_all(f, wf, tol, (size_t)lanes, "fix");
    guards_end();
}

/* exp alone, through one key against m = 0: p = e^s for s in [-104, 0], in ulps of the result. */
static void check_exp(const vl_candidate *cand) {
    double most = 0;
    for (int block = 0; block < 4096; block++) {
        float s[VL_NR], m[VL_NR], l[VL_NR], f[VL_NR], x[VL_NR];
        int32_t valid[VL_NR];
        for (int q = 0; q < VL_NR; q++) {
            x[q] = s[q] = (float)(-104.0 * (block * VL_NR + q) / (4096.0 * VL_NR));
            m[q] = l[q] = 0;
            valid[q] = 1;
        }
        ((vl_uk_softmax *)cand->fn)(s, 1, VL_NR, valid, 1.0f, m, l, f);
        for (int q = 0; q < VL_NR; q++) {
            double want = exp((double)x[q]), ulp = fmax(ldexp(1, ilogb(want) - 23), DENORM);
            most = fmax(most, fabs((double)s[q] - want) / ulp);
        }
    }
    CHECK(most <= 1.5, "%s: exp is off by %.2f ulp", running, most);
    printf("  %s: exp within %.2f ulp on [-104, 0]\n", running, most);
}

static void check_softmax(const vl_candidate *cand, const vl_candidate *ref) {
    static const int KEYS[] = {1, 2, 3, 7, 16, 33, 63, 64}, LANES[] = {1, 2, 8, 17, 32};
    for (int i = 0; i < 8; i++)
        for (int n = 0; n < 5; n++)
            for (int v = 0; v < 4; v++) softmax_case(cand, ref, KEYS[i], LANES[n], v & 1, v & 2);
    check_exp(cand);
    if (!bench) return;
    static float s[64 * VL_NR], m[VL_NR], l[VL_NR], f[VL_NR];
    int32_t valid[VL_NR];
    for (int q = 0; q < VL_NR; q++) valid[q] = 64;
    bench_row("64 keys x 32", TIME(((vl_uk_softmax *)cand->fn)(s, 64, 32, valid, 0.1f, m, l, f)),
              64 * VL_NR * 12, sizeof s * 2);
}

/* One row of tile scores against double: probabilities within 1e-5 and their rounding, sums lane by lane. */
static void softmax_tiles_row(const float *s, const float *was, int keys, int n, float scale, const float *old, int r,
                              float m, const float *l, float fix) {
    double top = (double)old[0], most = top, f = 1, sums[16] = {0};
    int blocks = (keys + 31) / 32;
    for (int k = 0; k < n; k++) most = fmax(most, (double)was[k / 32 * VL_SCORES + r * 32 + k % 32]);
    double rise = (most - top) * (double)scale * 1.44269504; /* in powers of two */
    CHECK(n <= 0 || (double)m == most || (!isinf(old[0]) && (double)m == top && rise <= VL_HEADROOM + 1e-4),
          "%s: taken against %g; it was %g, the maximum is %g", running, (double)m, top, most);
    CHECK(n <= 0 || isinf(old[0]) || rise < VL_HEADROOM + 1e-4 || (double)m == most, "%s: %g, not %g", running, (double)m, most);
    top = (double)m;
    if (!isinf(old[0]) && (double)old[0] != top) f = exp(((double)old[0] - top) * (double)scale);
    for (int i = 0; i < 16; i++) sums[i] = (double)old[1] * f;
    for (int k = 0; k < blocks * 32; k++) {
        const float *row = s + k / 32 * VL_SCORES + r * 32;
        uint32_t pair;
        memcpy(&pair, row + k % 32 / 2, sizeof pair);
        double got = (double)vl_bf16_to_f32((uint16_t)(k % 2 ? pair >> 16 : pair & 0xffff)), want = 0;
        if (k < n) want = exp(((double)was[k / 32 * VL_SCORES + r * 32 + k % 32] - top) * (double)scale);
        sums[k % 16] += want;
        CHECK(k < n ? fabs(got - want) <= (0x1p-8 + 1e-5) * want + 2e-38 : got == 0, "%s: keys %d of %d, row %d key %d: %g, not %g",
              running, n, keys, r, k, got, want);
    }
    CHECK(fabs((double)fix - f) <= 1e-5 * f + 2e-38, "%s: fix %g, not %g", running, (double)fix, f);
    for (int i = 0; i < 16; i++)
        CHECK(fabs((double)l[i] - sums[i]) <= 2e-5 * sums[i] + 2e-36, "%s: sum %g, not %g", running, (double)l[i], sums[i]);
}

static void check_softmax_tiles(const vl_candidate *cand, const vl_candidate *ref) {
    static const int KEYS[] = {1, 2, 15, 16, 17, 31, 32, 33, 48, 63, 64, 100, 256}, ROWS[] = {1, 2, 16, 31, 32};
    vl_uk_softmax_tiles *fn = (vl_uk_softmax_tiles *)cand->fn;
    (void)ref;
    for (size_t i = 0; i < sizeof KEYS / sizeof *KEYS; i++)
        for (int v = 0; v < 5 * 4; v++) {
            int keys = KEYS[i], rows = ROWS[v / 4], blocks = (keys + 31) / 32;
            size_t n = (size_t)(blocks - 1) * VL_SCORES + (size_t)rows * 32;
            float *s = guard_words(n), *was = guard_words(n), *m = guard_words((size_t)rows), *fix = guard_words((size_t)rows);
            float *l = guard_words((size_t)rows * 16), old[32][2], scale = v & 1 ? 0.125f : 20.0f;
            int32_t valid[32];
            for (size_t k = 0; k < n; k++) s[k] = was[k] = (float)vl_rng_normal(&rng) * 3;
            for (int r = 0; r < rows; r++) {
                bool fresh = v & 2;
                valid[r] = r % 4 == 3 ? (int)(vl_rng_u64(&rng) % (uint64_t)(keys + 2)) - 1 : keys + r % 2;
                m[r] = old[r][0] = fresh ? -INFINITY : (float)vl_rng_normal(&rng) * 3;
                old[r][1] = fresh ? 0 : (float)r;
                for (int k = 0; k < 16; k++) l[r * 16 + k] = old[r][1];
            }
            fn(s, keys, rows, valid, scale, m, l, fix);
            for (int r = 0; r < rows; r++)
                softmax_tiles_row(s, was, keys, valid[r] < keys ? valid[r] : keys, scale, old[r], r, m[r], l + r * 16, fix[r]);
            guards_end();
        }
    if (!bench) return;
    static float s[8 * VL_SCORES], m[32], l[512], fix[32];
    int32_t valid[32];
    for (int i = 0; i < 32; i++) valid[i] = 256, m[i] = 1;
    bench_row("32 x 256 keys", TIME(fn(s, 256, 32, valid, 0.1f, m, l, fix)), 0, 8.0 * 32 * 256);
}

/* Outputs of a block of rows: those of the epilogue, row by row, within what bf16 mode asks for. */
static void check_finish_tiles(const vl_candidate *cand, const vl_candidate *ref) {
    vl_uk_finish_tiles *fn = (vl_uk_finish_tiles *)cand->fn;
    for (int n = 1; n <= 32; n++)
        for (int v = 0; v < 8; v++) {
            int rows = n % 2 ? 32 : 1 + n / 2;
            size_t ldo = (size_t)n + (size_t)(v % 3) * (n == 32 ? 16 : 1), count = (size_t)(rows - 1) * ldo + (size_t)n;
            float *out = guard_words(count), *want = guard_words(count), *sums = guard_words((size_t)rows * 32), *bias = NULL;
            fill(sums, (size_t)rows * 32, (kind)(n % KINDS), &rng);
            for (int i = 0; i < rows * 32; i++) /* as wide as GELU turns */
                if (n % 2) sums[i] = (float)vl_rng_normal(&rng) * 4;
            if (v & 4) fill(bias = guard_words((size_t)n), (size_t)n, NORMAL, &rng);
            for (size_t i = 0; i < count; i++) out[i] = want[i] = (float)vl_rng_normal(&rng);
            fn(out, ldo, sums, bias, rows, n, (vl_epilogue)(v & 3));
            ((vl_uk_finish_tiles *)ref->fn)(want, ldo, sums, bias, rows, n, (vl_epilogue)(v & 3));
            for (size_t i = 0; i < count; i++) {
                double w = (double)want[i], tol = (v & 3) >= 2 ? 1e-5 * fabs(w) + 1e-32 : 1e-7 * fabs(w);
                CHECK(out[i] == want[i] || fabs((double)out[i] - w) <= tol, "%s: epilogue %d of %d x %d at %zu: %g, not %g", running,
                      v & 3, rows, n, i, (double)out[i], w);
            }
            guards_end();
        }
    if (!bench) return;
    static float out[32 * 64], sums[32 * 32], bias[32];
    for (int e = 0; e < 3; e++)
        bench_row(e == 2 ? "32 x 32, GELU" : e ? "32 x 32, residual" : "32 x 32, bias",
                  TIME(fn(out, 64, sums, bias, 32, 32, (vl_epilogue)e)), 0, 32 * 32 * (e == 1 ? 12 : 8));
}

/* ---- the running output of attention --------------------------------------------------------------- */

static void check_scale_lanes(const vl_candidate *cand, const vl_candidate *ref) {
    for (int i = 0; i < TAIL_COUNT; i++) {
        size_t n = (size_t)TAILS[i] * VL_NR;
        float *o = guard_words(n), *fix = guard_words(VL_NR), *want = guard_words(n);
        fill(o, n, NORMAL, &rng);
        for (int q = 0; q < VL_NR; q++) fix[q] = i % 3 && q < 16 ? 1 : (float)vl_rng_uniform(&rng);
        memcpy(want, o, n * 4);
        ((vl_uk_scale_lanes *)ref->fn)(want, fix, TAILS[i]);
        ((vl_uk_scale_lanes *)cand->fn)(o, fix, TAILS[i]);
        CHECK(!memcmp(o, want, n * 4), "%s E %d", running, TAILS[i]); /* one product: exact */
        guards_end();
    }
    static float o[128 * VL_NR], fix[VL_NR];
    if (bench) bench_row("128 x 32", TIME(((vl_uk_scale_lanes *)cand->fn)(o, fix, 128)), 128 * VL_NR, sizeof o * 2);
}

static void check_mix_values(const vl_candidate *cand, const vl_candidate *ref) {
    static const int KEYS[] = {1, 2, 33, 64};
    for (int i = 0; i < TAIL_COUNT; i++)
        for (int j = 0; j < 4; j++) {
            int E = TAILS[i], keys = KEYS[j], lanes = 1 + (i + j) % 5;
            size_t ldv = (size_t)E + (j % 2 ? 5 : 0), nv = (size_t)(keys - 1) * ldv + (size_t)E;
            size_t no = (size_t)(lanes * E), np = (size_t)((keys - 1) * VL_NR + lanes);
            float *o = guard_words(no), *p = guard_words(np), *v = guard_words(nv);
            float want[5 * 128], mag[5 * 128], fix[5] = {0.7f, 1, 0.1f, 0.9f, 0};
            double tol[5 * 128];
            fill(o, no, NORMAL, &rng), fill(v, nv, (kind)((i + j) % KINDS), &rng), fill(p, np, NORMAL, &rng);
            memcpy(want, o, no * 4);
            for (int e = 0; e < lanes * E; e++) {
                mag[e] = fabsf(o[e]);
                for (int k = 0; k < keys; k++)
                    mag[e] += fabsf(p[k * VL_NR + e / E] * v[(size_t)k * ldv + (size_t)(e % E)]);
                tol[e] = EPS * (2 * sqrt(keys) + 4) * (double)mag[e] + DENORM * (keys + 1);
            }
            ((vl_uk_mix_values *)ref->fn)(want, fix, p, v, ldv, keys, E, lanes, NULL);
            ((vl_uk_mix_values *)cand->fn)(o, fix, p, v, ldv, keys, E, lanes, j ? v : NULL);
            near_all(o, want, tol, no, "mix");
            guards_end();
        }
    static float o[256], p[64 * VL_NR], fix[2], v[64 * 128] __attribute__((aligned(64)));
    if (bench)
        bench_row("64 keys, E 128, 2 lanes", TIME(((vl_uk_mix_values *)cand->fn)(o, fix, p, v, 128, 64, 128, 2, NULL)),
                  4 * 64 * 128, sizeof v);
}

static const vl_candidate *of_tier(vl_slot slot, vl_tier tier) {
    for (int i = 0; i < vl_candidate_count; i++)
        if (vl_candidates[i].slot == slot && vl_candidates[i].tier == tier) return &vl_candidates[i];
    vl_assert(false, "slot %s has no such line", vl_slot_names[slot]);
}

/* Columns of scores have the bits of gemv on the same panels. */
static void check_score_keys(const vl_candidate *cand, const vl_candidate *ref) {
    static const int KEYS[] = {1, 31, 32, 33, 64}, WIDTH[] = {2, 64, 128, 160, 300};
    for (int i = 0; i < 5; i++)
        for (int j = 0; j < 5; j++) {
            int E = WIDTH[i], keys = KEYS[j], lanes = 1 + (i + j) % VL_GEMV_ROWS, panels = (keys + VL_NR - 1) / VL_NR;
            size_t nk = (size_t)(panels * VL_NR * E), nq = (size_t)(lanes * E), ns = (size_t)((keys - 1) * VL_NR + lanes);
            float *s = guard_words(ns), *q = guard_words(nq), *k = guard_words(nk), want[64 * VL_NR], *same = guard_words(ns);
            double tol[64 * VL_NR];
            fill(q, nq, NORMAL, &rng), fill(k, nk, (kind)((i + j) % KINDS), &rng);
            for (size_t at = 0; at < ns; at++) s[at] = same[at] = want[at] = 7, tol[at] = DENORM;
            for (int at = 0; at < keys; at++)
                for (int l = 0; l < lanes; l++) {
                    double mag = 0;
                    for (int e = 0; e < E; e++)
                        mag += fabs((double)q[l * E + e] *
                                    (double)k[(size_t)(at / VL_NR * E + e) * VL_NR + (size_t)(at % VL_NR)]);
                    tol[at * VL_NR + l] = EPS * (2 * sqrt(E) + 4) * mag + DENORM * (E + 1);
                }
            ((vl_uk_score_keys *)ref->fn)(want, q, (size_t)E, k, keys, E, lanes, NULL);
            ((vl_uk_score_keys *)cand->fn)(s, q, (size_t)E, k, keys, E, lanes, j % 2 ? k : NULL);
            near_all(s, want, tol, ns, "scores");
            const vl_candidate *gemv = of_tier(VL_SLOT_gemv_f32, cand->tier);
            for (int at = 0; at < keys; at++) {
                float y[VL_GEMV_ROWS * VL_NR];
                ((vl_uk_gemv *)gemv->fn)(y, q, (size_t)E, k + (size_t)(at / VL_NR * VL_NR * E), E, lanes);
                for (int l = 0; l < lanes; l++) same[at * VL_NR + l] = y[l * VL_NR + at % VL_NR];
            }
            CHECK(!memcmp(s, same, ns * sizeof *s), "%s: E %d, %d keys, %d lanes: not the bits of gemv", running, E, keys, lanes);
            guards_end();
        }
    static float s[64 * VL_NR], q[256], k[64 * 128] __attribute__((aligned(64)));
    if (bench)
        bench_row("64 keys, E 128, 2 lanes", TIME(((vl_uk_score_keys *)cand->fn)(s, q, 128, k, 64, 128, 2, NULL)),
                  4 * 64 * 128, sizeof k);
}

static void check_mix_pairs(const vl_candidate *cand, const vl_candidate *ref) {
    for (int i = 0; i < TAIL_COUNT; i++)
        for (int n = 1; n <= 32; n += n == 1 ? 1 : 30) {
            int E = TAILS[i];
            size_t nv = (size_t)n * (size_t)E, np = (size_t)(n - 1) * VL_NR + 1;
            float *o = guard_words((size_t)E), want[128], mag[128];
            uint32_t *p = guard_words(np), *v = guard_words(nv), *ap = guard_words(np), *av = guard_words(nv);
            double tol[128];
            fill(o, (size_t)E, NORMAL, &rng);
            fill_bf16(p, np, NORMAL, &rng), fill_bf16(v, nv, NORMAL, &rng);
            for (size_t j = 0; j < np; j++) ap[j] = p[j] & 0x7fff7fffu;
            for (size_t j = 0; j < nv; j++) av[j] = v[j] & 0x7fff7fffu;
            for (int e = 0; e < E; e++) want[e] = o[e], mag[e] = fabsf(o[e]);
            ((vl_uk_mix_pairs *)ref->fn)(want, 0.7f, p, v, n, E);
            ((vl_uk_mix_pairs *)ref->fn)(mag, 1.0f, ap, av, n, E);
            for (int e = 0; e < E; e++) tol[e] = EPS * (2 * sqrt(2 * n) + 4) * (double)mag[e] + DENORM * (2 * n + 1);
            ((vl_uk_mix_pairs *)cand->fn)(o, 0.7f, p, v, n, E);
            near_all(o, want, tol, (size_t)E, "mix");
            guards_end();
        }
    static float o[128];
    static uint32_t p[32 * VL_NR], v[32 * 128];
    if (bench)
        bench_row("64 keys, E 128", TIME(((vl_uk_mix_pairs *)cand->fn)(o, 1, p, v, 32, 128)), 2 * 64 * 128, sizeof v);
}

/* ---- integer modes: the same bits on every tier ------------------------------------------------------- */

/* A panel of random codes and scales, as the layout of quant.h has them. */
static void fill_panel_q(uint8_t *panel, int groups, bool q4, kind k) {
    size_t bytes = q4 ? CPU_Q4_GROUP : CPU_Q8_GROUP;
    for (int g = 0; g < groups; g++, panel += bytes) {
        for (int col = 0; col < VL_NR; col++) {
            float scale;
            fill(&scale, 1, k, &rng);
            uint16_t bits = vl_f32_to_bf16(q4 ? scale : fabsf(scale));
            memcpy(panel + 2 * col, &bits, sizeof bits);
        }
        for (size_t i = 64; i < bytes; i++) { /* int8 codes are in [-127, 127]: never the byte 0 */
            uint8_t byte = (uint8_t)vl_rng_u64(&rng), extreme = byte & 1 ? 1 : 255;
            panel[i] = !q4 && (k == OUTLIERS || !byte) ? extreme : byte;
        }
    }
}

static void gemm_q_case(const vl_candidate *cand, vl_uk_gemm_q *fn, vl_uk_gemm_q *ref, int rows, int K,
                        bool add, kind k) {
    bool q4 = cand->slot == VL_SLOT_gemm_q4;
    int groups = cpu_q_groups(K);
    size_t words = (size_t)groups * CPU_QX_GROUP, n = (size_t)rows * VL_NR;
    size_t bytes = (size_t)groups * (q4 ? CPU_Q4_GROUP : CPU_Q8_GROUP);
    uint32_t *tile = guard_words(words);
    uint8_t *panel = guard_words(bytes / 4);
    float *c = guard_words(n), *x = guard_words((size_t)rows * (size_t)K), want[CPU_QMR * VL_NR];
    fill(x, (size_t)rows * (size_t)K, k, &rng);
    pack_q_scalar(tile, x, (size_t)K, rows, K);
    fill_panel_q(panel, groups, q4, k);
    if (add) fill(c, n, NORMAL, &rng);
    memcpy(want, c, n * sizeof *c);
    ref(want, tile, panel, groups, rows, add);
    fn(c, tile, panel, groups, rows, add);
    CHECK(!memcmp(c, want, n * sizeof *c), "%s rows %d K %d add %d %s: bits differ", running, rows, K, add,
          KIND_NAMES[k]);
    guards_end();
}

/* The scalar tile itself, against sums of products of the dequantised values in double. */
static void check_gemm_q_meaning(vl_uk_gemm_q *fn, bool q4) {
    enum { K = 96, ROWS = 5 };
    static float x[ROWS * K], c[CPU_QMR * VL_NR];
    static uint32_t tile[3 * CPU_QX_GROUP];
    static uint8_t panel[3 * CPU_Q8_GROUP];
    fill(x, ROWS * K, NORMAL, &rng);
    pack_q_scalar(tile, x, K, ROWS, K);
    fill_panel_q(panel, 3, q4, NORMAL);
    fn(c, tile, panel, 3, ROWS, false);
    for (int r = 0; r < ROWS; r++)
        for (int col = 0; col < VL_NR; col++) {
            double sum = 0, mag = 0;
            for (int k = 0; k < K; k++) {
                const uint8_t *w = panel + k / 32 * (q4 ? CPU_Q4_GROUP : CPU_Q8_GROUP);
                const uint32_t *t = tile + k / 32 * CPU_QX_GROUP;
                int step = k % 32 / 4, i = k % 4, byte = w[64 + ((q4 ? step / 2 : step) * VL_NR + col) * 4 + i];
                int code = q4 ? VL_Q4_CODES[step % 2 ? byte >> 4 : byte & 15] : byte - 128;
                uint16_t bits;
                float s;
                memcpy(&bits, w + 2 * col, sizeof bits);
                memcpy(&s, t + CPU_QMR + r, sizeof s);
                double q = ((const int8_t *)(t + 2 * CPU_QMR))[(step * CPU_QMR + r) * 4 + i];
                CHECK(fabs(q * (double)s - (double)x[r * K + k]) <= 0.5001 * (double)s, "x[%d] is %g, not %g", k,
                      q * (double)s, (double)x[r * K + k]);
                double term = code * (double)vl_bf16_to_f32(bits) * q * (double)s;
                sum += term, mag += fabs(term);
            }
            CHECK(fabs(sum - (double)c[r * VL_NR + col]) <= 8 * EPS * mag, "%s [%d, %d] is %g, not %g", running, r,
                  col, (double)c[r * VL_NR + col], sum);
        }
}

static void check_gemm_q(const vl_candidate *cand, const vl_candidate *ref) {
    static const int KS[] = {1, 31, 32, 33, 64, 200, 512};
    vl_uk_gemm_q *fn = (vl_uk_gemm_q *)cand->fn, *oracle = (vl_uk_gemm_q *)ref->fn;
    bool q4 = cand->slot == VL_SLOT_gemm_q4;
    if (cand == ref) check_gemm_q_meaning(fn, q4);
    for (int rows = 1; rows <= CPU_QMR; rows++)
        for (size_t i = 0; i < sizeof KS / sizeof *KS; i++)
            for (int k = 0; k < KINDS; k++)
                gemm_q_case(cand, fn, oracle, rows, KS[i], k % 2, (kind)k);
    if (!bench) return;
    enum { GROUPS = CPU_QKC / CPU_QG };
    static uint32_t tile[GROUPS * CPU_QX_GROUP];
    static uint8_t panel[GROUPS * CPU_Q8_GROUP];
    static float c[CPU_QMR * VL_NR];
    for (int rows = CPU_QMR; rows > 0; rows--) {
        char shape[32];
        snprintf(shape, sizeof shape, "%d x 32, kc %d", rows, CPU_QKC);
        bench_row(shape, TIME(fn(c, tile, panel, GROUPS, rows, true)), 2.0 * rows * VL_NR * CPU_QKC,
                  (double)GROUPS * (q4 ? CPU_Q4_GROUP : CPU_Q8_GROUP));
    }
}

/* Many rows on tiles of 16, against the scalar line of gemm_q8 or gemm_q4 on tiles of 6: another layout of x, the
 * same bits. */
static void gemm_qt_case(const vl_candidate *cand, int rows, int K, bool add, kind k) {
    bool q4 = cand->slot == VL_SLOT_gemm_q4_tiles;
    int groups = cpu_q_groups(K), tiles = (rows + CPU_QT_ROWS - 1) / CPU_QT_ROWS;
    size_t tile = (size_t)groups * CPU_QT_GROUP, gap = rows % 2 ? 0 : CPU_QT_GROUP; /* words; between tiles */
    size_t n = (size_t)tiles * CPU_QT_ROWS * VL_NR, bytes = (size_t)groups * (q4 ? CPU_Q4_GROUP : CPU_Q8_GROUP);
    uint32_t *t = guard_words((size_t)tiles * (tile + gap) - gap), *six = guard_words((size_t)groups * CPU_QX_GROUP);
    uint8_t *panel = guard_words(bytes / 4);
    float *c = guard_words(n), *x = guard_words((size_t)rows * (size_t)K), *want = guard_words(n);
    fill(x, (size_t)rows * (size_t)K, k, &rng);
    fill_panel_q(panel, groups, q4, k);
    if (add) fill(c, n, NORMAL, &rng);
    memcpy(want, c, n * sizeof *c);
    for (int r = 0; r < rows; r += CPU_QMR) {
        int some = rows - r < CPU_QMR ? rows - r : CPU_QMR;
        pack_q_scalar(six, x + (size_t)r * (size_t)K, (size_t)K, some, K);
        (q4 ? gemm_q4_scalar : gemm_q8_scalar)(want + r * VL_NR, six, panel, groups, some, add);
    }
    for (int r = 0; r < rows; r += CPU_QT_ROWS)
        pack_qt_scalar(t + (size_t)(r / CPU_QT_ROWS) * (tile + gap), x + (size_t)r * (size_t)K, (size_t)K,
                       rows - r < CPU_QT_ROWS ? rows - r : CPU_QT_ROWS, K);
    ((vl_uk_gemm_qt *)cand->fn)(c, t, tile + gap, panel, rows % 3 ? panel : NULL, groups, rows, add);
    CHECK(!memcmp(c, want, (size_t)rows * VL_NR * sizeof *c), "%s rows %d K %d add %d %s: bits differ", running, rows, K,
          add, KIND_NAMES[k]);
    guards_end();
}

static void check_gemm_qt(const vl_candidate *cand, const vl_candidate *ref) {
    static const int KS[] = {1, 31, 32, 33, 64, 200, 480, 512}, ROWS[] = {1, 2, 7, 15, 16, 17, 31, 32, 33, 50};
    (void)ref;
    for (size_t r = 0; r < sizeof ROWS / sizeof *ROWS; r++)
        for (size_t i = 0; i < sizeof KS / sizeof *KS; i++)
            for (int k = 0; k < KINDS; k++) gemm_qt_case(cand, ROWS[r], KS[i], (k + (int)r) % 2, (kind)k);
    if (!bench) return;
    enum { GROUPS = CPU_QKC / CPU_QG, MOST = 240 };
    static uint32_t tiles[MOST / CPU_QT_ROWS * GROUPS * CPU_QT_GROUP];
    static uint8_t panel[GROUPS * CPU_Q8_GROUP];
    static float c[MOST * VL_NR];
    for (int rows = MOST; rows > 3; rows /= 4) {
        char shape[32];
        snprintf(shape, sizeof shape, "%d x 32, kc %d", rows, CPU_QKC);
        bench_row(shape, TIME(((vl_uk_gemm_qt *)cand->fn)(c, tiles, (size_t)GROUPS * CPU_QT_GROUP, panel, NULL, GROUPS, rows, true)),
                  2.0 * rows * VL_NR * CPU_QKC, (double)GROUPS * CPU_Q8_GROUP);
    }
}

static void check_pack_q(const vl_candidate *cand, const vl_candidate *ref) {
    vl_uk_pack_q *fn = (vl_uk_pack_q *)cand->fn, *oracle = (vl_uk_pack_q *)ref->fn;
    bool many = cand->slot == VL_SLOT_pack_qt;
    for (int i = 0; i < TAIL_COUNT; i++)
        for (int rows = 1; rows <= (many ? CPU_QT_ROWS : CPU_QMR); rows++)
            for (int k = 0; k < KINDS + 1; k++) {
                int K = TAILS[i];
                size_t ldx = (size_t)(K + rows % 2), xs = (size_t)(rows - 1) * ldx + (size_t)K;
                size_t n = (size_t)cpu_q_groups(K) * (many ? CPU_QT_GROUP : CPU_QX_GROUP);
                float *x = guard_words(xs);
                uint32_t *tile = guard_words(n), *want = guard_words(n);
                fill(x, xs, k < KINDS ? (kind)k : NORMAL, &rng);
                if (k == KINDS) x[vl_rng_u64(&rng) % xs] = rows % 2 ? NAN : -INFINITY;
                oracle(want, x, ldx, rows, K);
                fn(tile, x, ldx, rows, K);
                CHECK(!memcmp(tile, want, n * 4), "%s rows %d K %d case %d", running, rows, K, k);
                guards_end();
            }
    if (!bench) return;
    static float x[CPU_QMR * 2048];
    static uint32_t tile[64 * CPU_QT_GROUP];
    fill(x, CPU_QMR * 2048, NORMAL, &rng);
    bench_row("6 x 2048", TIME(fn(tile, x, 2048, CPU_QMR, 2048)), 0, sizeof x + sizeof tile);
}

/* ---- every line ------------------------------------------------------------------------------------ */

static void (*const CHECKS[VL_SLOT_COUNT])(const vl_candidate *, const vl_candidate *) = {
    [VL_SLOT_gemm_wide] = check_gemm, [VL_SLOT_widen_bf16] = check_widen, [VL_SLOT_gemm_f32] = check_gemm,
    [VL_SLOT_gemm_tiles] = check_gemm_tiles, [VL_SLOT_tiles_end] = check_tiles_end,
    [VL_SLOT_pack_tiles] = check_pack_tiles, [VL_SLOT_softmax_tiles] = check_softmax_tiles,
    [VL_SLOT_finish_tiles] = check_finish_tiles,
    [VL_SLOT_gemm_dpbf16] = check_gemm, [VL_SLOT_pack_pairs] = check_pack_pairs,
    [VL_SLOT_gemv_bf16] = check_gemv, [VL_SLOT_gemv_f32] = check_gemv, [VL_SLOT_gemv_dpbf16] = check_gemv,
    [VL_SLOT_pack_bf16] = check_pack_bf16, [VL_SLOT_pack_rows] = check_pack_rows,
    [VL_SLOT_epilogue] = check_epilogue, [VL_SLOT_layernorm] = check_norm,
    [VL_SLOT_rmsnorm] = check_norm, [VL_SLOT_rope] = check_rope,
    [VL_SLOT_swiglu] = check_swiglu, [VL_SLOT_softmax] = check_softmax,
    [VL_SLOT_scale_lanes] = check_scale_lanes, [VL_SLOT_mix_values] = check_mix_values,
    [VL_SLOT_score_keys] = check_score_keys,
    [VL_SLOT_pair_rows] = check_pair_rows, [VL_SLOT_mix_pairs] = check_mix_pairs,
    [VL_SLOT_gemm_q8] = check_gemm_q, [VL_SLOT_gemm_q4] = check_gemm_q,
    [VL_SLOT_pack_q] = check_pack_q, [VL_SLOT_pack_qt] = check_pack_q,
    [VL_SLOT_gemm_q8_tiles] = check_gemm_qt, [VL_SLOT_gemm_q4_tiles] = check_gemm_qt,
};

int main(int argc, char **argv) {
    const char *only = "";
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--bench")) bench = true;
        else only = argv[i];
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGSEGV, on_fault);
    signal(SIGBUS, on_fault);
    for (int i = 0; i < vl_candidate_count; i++) {
        const vl_candidate *c = &vl_candidates[i];
        if (!strstr(c->name, only)) continue;
        if (!vl_tier_present(c->tier)) {
            char why[128];
            snprintf(why, sizeof why, "%s: this CPU has no %s", c->name, vl_tier_names[c->tier]);
            test_skip(why);
            continue;
        }
        running = c->name;
        worst = off = 0;
        vl_rng_seed(&rng, 20261122);
        int failed = test_failed;
        CHECKS[c->slot](c, of_tier(c->slot, VL_TIER_scalar));
        printf("%-24s %s  worst error %.2f of its tolerance\n", c->name,
               failed == test_failed ? "ok  " : "FAIL", worst);
    }
    return test_end();
}
