/* test_products.c: the kernels that products are made of, float32 and bf16, and what packs their operands; lines.h says how. */
#include <float.h>

#include "tests/kernels/lines.h"

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

/* A sum that comes near zero, in steps of 1.5 2^-126 and -2^-126, is zero in company and alone. */
static void check_tile_flush(vl_uk_gemm_tiles *fn) {
    static uint32_t a[2 * VL_PARTS * 32], panel[32 * VL_NR]; /* two steps of two rows; all but one term zero */
    float two[2 * VL_NR], alone[VL_NR];
    for (int s = 0; s < 2; s++)
        for (int r = 0; r < 2; r++) a[s * VL_PARTS * 32 + r * 16] = vl_f32_to_bf16(s ? -1 : 1.5f);
    for (int j = 0; j < VL_NR; j++) panel[j] = panel[16 * VL_NR + j] = vl_f32_to_bf16(0x1p-126f);
    vl_tile_sum t = {.c = two, .a = a, .lda = 16, .step = VL_PARTS * 32, .part = 32, .panel = panel, .kc = 64, .rows = 2};
    fn(&t);
    t.c = alone, t.rows = 1;
    fn(&t);
    CHECK(!memcmp(two, alone, sizeof alone), "%s: %a in company, %a alone", running, (double)two[0], (double)alone[0]);
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
    check_tile_flush(fn);
    if (!bench) return;
    static uint32_t a[VL_PARTS * MOST_ROWS * 16 * 8], panel[128 * VL_NR];
    static float c[MOST_ROWS * VL_NR];
    for (int rows = 64; rows > 0; rows = rows == 64 ? 32 : rows == 32 ? 16 : rows == 16 ? 1 : 0)
        for (int parts = 1; parts <= VL_PARTS; parts += VL_PARTS - 1) {
            char shape[64];
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

int main(int argc, char **argv) {
    static check_fn *const checks[VL_SLOT_COUNT] = {PRODUCTS(CHECK_OF)};
    return every_line(argc, argv, checks);
}
