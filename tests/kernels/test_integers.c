/* test_integers.c: the kernels of int8 and int4; lines.h says how. */
#include "kernels/cpu/quant.h"
#include "tests/kernels/lines.h"

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

int main(int argc, char **argv) {
    static check_fn *const checks[VL_SLOT_COUNT] = {INTEGERS(CHECK_OF)};
    return every_line(argc, argv, checks);
}
