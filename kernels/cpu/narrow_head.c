/* narrow_head.c: greedy from an int8 head equals greedy from the full one.
 *
 * The int8 output a_n of row n differs from the exact e_n = w_n . x by at most
 *
 *   |e_n - a_n| <= |w_n - v_n| |x| + |v_n| |x - y| + rounding      v, y: the values the codes stand for
 *
 * (Cauchy-Schwarz; both norms of w are stored when the head is packed, those of x are computed here, and
 * rounding covers both kernels' float sums). No output below  max (a - bound)  can win, so only those
 * with  a + bound >= max (a - bound)  are computed again, as exact mode computes them, from the checkpoint's rows: a
 * few dozen of 151,936. All others stay below the winner, so argmax needs no other change.
 */
#include <math.h>

#include "kernels/cpu/narrow.h"
#include "kernels/cpu/tiles.h"

enum { COLUMNS = 2048 };           /* of an item                                             */

typedef struct head_job {
    const cpu_backend *b;
    const vl_matrix *w;
    const cpu_narrow *p;
    float *out;                    /* [V], one row                                           */
    const float *x;                /* [K]                                                    */
    float x_norm, x_lost, slack;   /* |x|, |x - y|, rounding of both sums per norm of w      */
    float best;                    /* max (a - bound)                                        */
    float *part;                   /* [item] its best                                        */
    uint8_t *rows;                 /* [thread] 32 rows of w, packed and not                   */
    size_t rows_bytes;
} head_job;

static float bound(const head_job *j, int n) {
    const float *norms = cpu_narrow_norms(j->p) + 2 * n;
    float lost = norms[0], kept = norms[1];
    return lost * j->x_norm + kept * j->x_lost + j->slack * (lost + kept);
}

static int columns(const head_job *j, int item) {
    int left = j->w->rows - item * COLUMNS;
    return left < COLUMNS ? left : COLUMNS;
}

static void best_item(void *arg, int item, int thread) {
    const head_job *j = arg;
    float best = -INFINITY;
    (void)thread;
    for (int i = 0, n = item * COLUMNS; i < columns(j, item); i++, n++) {
        float least = j->out[n] - bound(j, n);
        if (least > best) best = least;
    }
    j->part[item] = best;
}

/* y [32] = x times a panel, with the bits of exact mode; tiles: room for the parts of x. */
static void exact_panel(const head_job *j, float *y, const void *panel, uint32_t *tiles) {
    const vl_ukernels *k = &j->b->k;
    int K = j->w->cols;
    if (!cpu_splits(k)) {
        k->gemv_bf16(y, j->x, (size_t)K, panel, K, 1);
        return;
    }
    vl_tile_sum t = {.c = y, .a = tiles, .lda = 16, .panel = panel, .kc = K, .rows = 1};
    cpu_tile_at(VL_PARTS, 1, K, 0, 0, &t.step);
    t.part = cpu_tile_part(VL_PARTS, t.step);
    cpu_tile_put(k, tiles, VL_PARTS, 1, K, 0, 1, 0, K, j->x, (size_t)K);
    k->gemm_tiles(&t);
    k->tiles_end();
}

/* Up to 32 columns by the exact kernels. */
static void exact_columns(const head_job *j, const int32_t *cols, int n, uint8_t *scratch) {
    const vl_matrix *w = j->w;
    size_t K = (size_t)w->cols, each = vl_dtype_size(w->dtype);
    float y[VL_NR] __attribute__((aligned(64)));
    void *panel = scratch;
    scratch += VL_NR * (K + 1) * sizeof(float);
    for (int i = 0; i < n; i++) {
        const uint8_t *row = (const uint8_t *)w->data + (size_t)cols[i] * K * each;
        if (w->dtype == VL_BF16) memcpy(scratch + (size_t)i * K * each, row, K * each);
        else
            for (size_t k = 0; k < K; k++)
                vl_widen((float *)panel + k * VL_NR + i, row + k * each, w->dtype, 1);
    }
    if (w->dtype == VL_BF16) {
        j->b->k.pack_bf16(panel, (const uint16_t *)(const void *)scratch, K, n, w->cols);
        exact_panel(j, y, panel, (uint32_t *)(void *)(scratch + VL_NR * (K + 1) * sizeof(float)));
    } else j->b->k.gemv_f32(y, j->x, K, panel, w->cols, 1);
    for (int i = 0; i < n; i++) j->out[cols[i]] = y[i];
}

static void again_item(void *arg, int item, int thread) {
    const head_job *j = arg;
    int32_t cols[VL_NR];
    int count = 0;
    uint8_t *scratch = j->rows + (size_t)thread * j->rows_bytes;
    for (int i = 0, n = item * COLUMNS; i < columns(j, item); i++, n++) {
        if (!(j->out[n] + bound(j, n) >= j->best)) continue;
        cols[count++] = n;
        if (count == VL_NR) exact_columns(j, cols, count, scratch), count = 0;
    }
    if (count) exact_columns(j, cols, count, scratch);
}

static int item_count(const vl_matrix *w) { return (w->rows + COLUMNS - 1) / COLUMNS; }
static size_t rows_bytes(const vl_matrix *w) {
    size_t parts = cpu_tile_words(VL_PARTS, 1, w->cols) * sizeof(uint32_t);
    return (VL_NR * ((size_t)w->cols + 1) * 2 * sizeof(float) + parts + 63) & ~(size_t)63;
}
static size_t part_bytes(const vl_matrix *w) {
    return ((size_t)item_count(w) * sizeof(float) + 63) & ~(size_t)63;
}
size_t cpu_narrow_rescore_bytes(const cpu_backend *b, const vl_matrix *w) {
    return part_bytes(w) + (size_t)b->base.threads * rows_bytes(w);
}

/* |x| and |x - y| of row t, rounded up. */
static void measure_x(head_job *j, const uint32_t *tiles, int t) {
    double norm = 0, lost = 0;
    const uint32_t *tile = tiles + (size_t)(t / CPU_QMR) * (size_t)j->p->groups * CPU_QX_GROUP;
    int r = t % CPU_QMR;
    for (int k = 0; k < j->w->cols; k++) {
        const uint32_t *group = tile + k / CPU_QG * CPU_QX_GROUP;
        const int8_t *q = (const int8_t *)(group + 2 * CPU_QMR);
        float s;
        memcpy(&s, group + CPU_QMR + r, sizeof s);
        double y = (double)s * q[(k % CPU_QG / 4 * CPU_QMR + r) * 4 + k % 4], d = (double)j->x[k] - y;
        norm += (double)j->x[k] * (double)j->x[k];
        lost += d * d;
    }
    j->x_norm = (float)(sqrt(norm) * (1 + 0x1p-20));
    j->x_lost = (float)(sqrt(lost) * (1 + 0x1p-20));
    /* a sum of n terms is off by at most n 2^-24 sum |w x|: the exact one by blocks of VL_KC or, in VL_PARTS parts, by
     * steps of 32, this one a few
     * roundings a group; doubled, for the roundings of the bound itself */
    double terms = VL_KC + VL_PARTS * (j->w->cols / 32) + 3 * j->p->groups + 16;
    j->slack = (float)(2 * terms * 0x1p-24) * (j->x_norm + j->x_lost);
}

void cpu_narrow_rescore(cpu_backend *b, const vl_matrix *w, float *out, int ldo, const float *x, int ldx,
                        int T, const uint32_t *tiles, void *scratch) {
    head_job j = {.b = b, .w = w, .p = w->impl, .part = scratch, .rows_bytes = rows_bytes(w)};
    j.rows = (uint8_t *)scratch + part_bytes(w);
    for (int t = 0; t < T; t++) {
        j.out = out + (size_t)t * (size_t)ldo;
        j.x = x + (size_t)t * (size_t)ldx;
        measure_x(&j, tiles, t);
        cpu_team_run(b->team, item_count(w), best_item, &j);
        j.best = -INFINITY;
        for (int i = 0; i < item_count(w); i++) j.best = j.part[i] > j.best ? j.part[i] : j.best;
        cpu_team_run(b->team, item_count(w), again_item, &j);
    }
}
