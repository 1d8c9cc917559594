/* linear.c: out [T, N] = epilogue(x [T, K] W^T + bias), on packed panels of 32 rows of W.
 *
 *   T <= 8   gemv: each panel is streamed once from memory while T rows of x sit in cache
 *   T >  8   gemm: rows of x are cut into blocks of at most 240 and transposed into tiles
 *                  [mr rows]; a group of 8 panels then meets all tiles, VL_KC terms at a time
 *                  (these three numbers are those of tuning.h):
 *
 *            x block, packed              panels of the group       sums
 *            k block 0: [tile][KC][mr]    [KC][32]  16 KB, L1       [panel][rows][32]  (L2)
 *            k block 1: [tile][KC][mr]    [KC][32]              +=
 *            one k block is 240 KB: read in order, from L2 after the group's first panel
 *
 * In bf16 mode x is rounded to bf16 while it is packed, and vdpbf16ps replaces the fused multiply-add; on
 * tile registers (AMX) linear_tiles.c has its own way.
 *
 * Work is handed out by panel (output columns), never along K, and each sum has the order stated
 * in ukernels.h, so threads, T and chunking cannot change a bit.
 */
#include <stdlib.h>

#include "kernels/cpu/cpu.h"
#include "kernels/quantise.h"

/* FP8 weights times their block scales are rounded to bf16, as HF does when it dequantises them. */
static bool is_bf16(const vl_matrix *w) { return w->dtype == VL_BF16 || w->dtype == VL_F8_E4M3; }
static int panel_count(const vl_matrix *w) { return (w->rows + VL_NR - 1) / VL_NR; }

/* ---- packing (pack.c says when) ------------------------------------------------------------------ */

static void pack_f32_panel(float *panel, const vl_matrix *w, int row0, int rows) {
    size_t each = vl_dtype_size(w->dtype), K = (size_t)w->cols;
    const uint8_t *src = (const uint8_t *)w->data + (size_t)row0 * K * each;
    for (int r = 0; r < rows; r++)
        for (size_t k = 0; k < K; k++)
            vl_widen(&panel[k * VL_NR + (size_t)r], src + ((size_t)r * K + k) * each, w->dtype, 1);
}

static void pack_f8_panel(const cpu_backend *b, uint32_t *panel, const vl_matrix *w, int row0, int rows) {
    enum { SPAN = 256 };
    uint16_t bits[VL_NR * SPAN];
    float values[SPAN];
    for (int k = 0; k < w->cols; k += SPAN) {
        int n = w->cols - k < SPAN ? w->cols - k : SPAN;
        for (int r = 0; r < rows; r++) {
            vl_matrix_span(values, w, row0 + r, k, n);
            for (int i = 0; i < n; i++) bits[r * SPAN + i] = vl_f32_to_bf16(values[i]);
        }
        b->k.pack_bf16(panel + (size_t)k / 2 * VL_NR, bits, SPAN, rows, n);
    }
}

static void pack_panels(const cpu_backend *b, const cpu_weight *p, int first, int n) {
    const vl_matrix *w = &p->src;
    for (int i = first; i < first + n; i++) {
        int row0 = i * VL_NR, rows = w->rows - row0 < VL_NR ? w->rows - row0 : VL_NR;
        void *panel = (uint8_t *)p->panels + (size_t)i * p->panel_bytes;
        if (w->dtype == VL_F8_E4M3) pack_f8_panel(b, panel, w, row0, rows);
        else if (is_bf16(w))
            b->k.pack_bf16(panel, (const uint16_t *)w->data + (size_t)row0 * (size_t)w->cols,
                           (size_t)w->cols, rows, w->cols);
        else pack_f32_panel(panel, w, row0, rows);
    }
}

int cpu_prepare(vl_backend *base, vl_matrix *w, unsigned use, vl_err *err) {
    cpu_backend *b = cpu_of(base);
    vl_assert(w->rows > 0 && w->cols > 0, "%s [%d, %d]", w->name, w->rows, w->cols);
    if (cpu_narrow_wants(b, w, use)) return cpu_narrow_prepare(b, w, use, err);
    bool f8 = w->dtype == VL_F8_E4M3 && w->scale && !(use & VL_USE_GATHER);
    if (!f8 && w->dtype != VL_BF16 && w->dtype != VL_F16 && w->dtype != VL_F32)
        return vl_fail(err, VL_E_UNSUPPORTED, "tensor %s is %s; the CPU backend takes BF16, F16, F32",
                       w->name, vl_dtype_name(w->dtype));
    if (!(use & VL_USE_LINEAR)) return 0; /* gathers read the source rows */
    cpu_weight *p = vl_calloc(1, sizeof *p);
    if (!p) return vl_fail(err, VL_E_NOMEM, "no memory for tensor %s", w->name);
    size_t pairs = ((size_t)w->cols + 1) / 2, each = is_bf16(w) ? 4 : 8;
    p->src = *w;
    p->format = is_bf16(w) ? "bf16x32" : "f32x32";
    p->pack = pack_panels;
    p->panel_rows = VL_NR;
    p->panel_bytes = pairs * each * VL_NR;
    if (cpu_pack_add(b, p, use, err)) {
        free(p);
        return -1;
    }
    w->impl = p;
    return 0;
}

/* ---- linear ----------------------------------------------------------------------------------- */

typedef struct linear_job {
    const vl_ukernels *k;
    const vl_matrix *w;
    const cpu_weight *p;
    float *out;
    const float *x, *bias;
    int ldo, ldx, T, mr, group;
    vl_epilogue epi;
    bool pairs;                    /* bf16 mode: x rounded to bf16 pairs, vdpbf16ps          */
    float *tiles;                  /* packed rows of x: [k block][tile][k or pair][mr]       */
    float *sums;                   /* [thread][group][sum_rows][32]                          */
    int most_rows;                 /* rows of x packed at a time                             */
    int sum_rows;                  /* rows in a pass                                         */
} linear_job;

static int least(int a, int b) { return a < b ? a : b; }
static int round_up(int n, int step) { return (n + step - 1) / step * step; }

/* 32-bit words of `k` values of one row of x, as packed. */
static size_t words(const linear_job *j, int k) { return (size_t)(j->pairs ? (k + 1) / 2 : k); }

/* Rows t < T of 32 columns: sums [T][32] -> out. */
static void finish(const linear_job *j, int panel, const float *sums, float *out, int T) {
    int col = panel * VL_NR, n = j->w->rows - col < VL_NR ? j->w->rows - col : VL_NR;
    const float *bias = j->bias ? j->bias + col : NULL;
    for (int t = 0; t < T; t++)
        j->k->epilogue(out + (size_t)t * (size_t)j->ldo + col, sums + t * VL_NR, bias, n, j->epi);
}

/* In each round every thread gets its share of half of what is left. */
int cpu_run_of(int panels, int threads, int item, int *first) {
    int at = 0, left = panels, each = 0;
    for (int i = 0; i <= item && left > 0; i++, at += each, left -= each) {
        if (i % threads == 0) each = left / (2 * threads) + 1;
        if (each > left) each = left;
        *first = at;
    }
    return at;
}
int cpu_run_count(int panels, int threads) {
    int n = 0;
    for (int first; cpu_run_of(panels, threads, n, &first) < panels;) n++;
    return n + 1;
}

static void gemv_item(void *arg, int item, int thread) {
    const linear_job *j = arg;
    float sums[VL_GEMV_ROWS * VL_NR] __attribute__((aligned(64)));
    int first = 0, end = cpu_run_of(panel_count(j->w), j->group, item, &first), K = j->w->cols;
    (void)thread;
    for (int i = first; i < end; i++) {
        const void *panel = (const uint8_t *)j->p->panels + (size_t)i * j->p->panel_bytes;
        if (j->pairs) j->k->gemv_dpbf16(sums, j->tiles, words(j, K), panel, K, j->T);
        else if (is_bf16(j->w)) j->k->gemv_bf16(sums, j->x, (size_t)j->ldx, panel, K, j->T);
        else j->k->gemv_f32(sums, j->x, (size_t)j->ldx, panel, K, j->T);
        finish(j, i, sums, j->out, j->T);
    }
}

/* A few rows: every panel is streamed once. In bf16 mode all threads read the rows rounded here. */
static void gemv(cpu_backend *b, linear_job *j) {
    size_t n = words(j, j->w->cols);
    if (j->pairs) {
        j->tiles = cpu_scratch(b, (size_t)j->T * n * sizeof(float));
        for (int t = 0; t < j->T; t++)
            j->k->pack_pairs((uint32_t *)(void *)j->tiles + (size_t)t * n, j->x + (size_t)t * (size_t)j->ldx,
                             0, 1, j->w->cols, 1);
    }
    j->group = b->base.threads;
    cpu_team_run(b->team, cpu_run_count(panel_count(j->w), j->group), gemv_item, j);
}

static size_t padded_rows(const linear_job *j) { return (size_t)round_up(j->T, j->mr); }

static void pack_rows_item(void *arg, int item, int thread) {
    const linear_job *j = arg;
    int row = item * j->mr, rows = least(j->T - row, j->mr);
    (void)thread;
    for (int k = 0; k < j->w->cols; k += VL_KC) {
        int kc = least(j->w->cols - k, VL_KC);
        float *dst = j->tiles + words(j, k) * padded_rows(j) + (size_t)row * words(j, kc);
        const float *x = j->x + (size_t)row * (size_t)j->ldx + k;
        if (j->pairs)
            j->k->pack_pairs((uint32_t *)(void *)dst, x, (size_t)j->ldx, rows, kc, j->mr);
        else j->k->pack_rows(dst, x, (size_t)j->ldx, rows, kc, j->mr);
    }
}

/* Asks for the lines that the epilogue of a tile is about to write, while its last sums are made. */
static void fetch_rows(const float *out, size_t ldo, int rows, int n) {
    for (int r = 0; r < rows; r++, out += ldo) {
        __builtin_prefetch(out, 1);
        if (n > 16) __builtin_prefetch(out + 16, 1);
    }
}

/* Asks for a share of the weights that come next, so that they are in L2 when their turn comes. */
static void fetch_share(const uint8_t *next, size_t bytes, int share, int shares) {
    size_t from = (bytes * (size_t)share / (size_t)shares) & ~(size_t)63, to = bytes * (size_t)(share + 1) / (size_t)shares;
    for (; from < to; from += 64) __builtin_prefetch(next + from, 0, 2);
}

static void gemm_item(void *arg, int item, int thread) {
    const linear_job *j = arg;
    bool bf16 = is_bf16(j->w);
    vl_uk_gemm *gemm = j->pairs ? j->k->gemm_dpbf16 : bf16 ? j->k->gemm_bf16 : j->k->gemm_f32;
    int K = j->w->cols, N = j->w->rows, mr = j->mr, first = item * j->group;
    int panels = least(panel_count(j->w) - first, j->group);
    size_t lane = bf16 ? 2 : 4; /* bytes of one k in a panel, per column */
    size_t stride = (size_t)j->sum_rows * VL_NR;
    float *sums = j->sums + (size_t)(thread * j->group) * stride;
    const uint8_t *panel = (const uint8_t *)j->p->panels + (size_t)first * j->p->panel_bytes;
    for (int k = 0; k < K; k += VL_KC) {
        int kc = least(K - k, VL_KC);
        const float *block = j->tiles + words(j, k) * padded_rows(j);
        for (int p = 0; p < panels; p++) {
            const uint8_t *w = panel + (size_t)p * j->p->panel_bytes + (size_t)k * lane * VL_NR;
            bool last = p + 1 == panels; /* then the first panel's next k block comes, if there is one */
            const uint8_t *next = last ? panel + (size_t)(k + kc) * lane * VL_NR : w + j->p->panel_bytes;
            size_t ahead = (size_t)(last ? least(K - k - kc, VL_KC) : kc) * lane * VL_NR;
            for (int t = 0; t < j->T; t += mr) {
                fetch_share(next, ahead, t / mr, (j->T + mr - 1) / mr);
                float *s = sums + (size_t)p * stride + t * VL_NR, *out = j->out + (size_t)t * (size_t)j->ldo;
                int rows = least(j->T - t, mr);
                if (k + kc == K) fetch_rows(out + (first + p) * VL_NR, (size_t)j->ldo, rows, N - (first + p) * VL_NR);
                gemm(s, block + (size_t)t * words(j, kc), (size_t)mr, w, kc, rows, k > 0);
                if (k + kc == K) finish(j, first + p, s, out, rows);
            }
        }
    }
}

/* Rows in each pass over the panels: few passes, all of nearly the same size. */
static int block_rows(const linear_job *j) {
    int blocks = (j->T + j->most_rows - 1) / j->most_rows;
    return round_up((j->T + blocks - 1) / blocks, j->mr);
}

void cpu_linear(vl_backend *base, float *out, int ldo, const float *x, int ldx, int T,
                const vl_matrix *w, const float *bias, vl_epilogue epi) {
    cpu_backend *b = cpu_of(base);
    if (w->narrow) {
        cpu_narrow_linear(b, out, ldo, x, ldx, T, w, bias, epi);
        return;
    }
    cpu_weight *p = w->impl;
    vl_assert(p, "linear on %s, which was not prepared for it", w->name);
    vl_assert(ldo >= w->rows && ldx >= w->cols, "%s: ldo %d, ldx %d", w->name, ldo, ldx);
    pthread_mutex_lock(&b->lock);
    cpu_pack_ready(b, p);
    linear_job j = {.k = &b->k, .w = w, .p = p, .out = out, .x = x, .bias = bias, .ldo = ldo,
                    .ldx = ldx, .T = T, .epi = epi, .pairs = b->bf16 && is_bf16(w)};
    if (j.pairs && b->tiles) {
        cpu_tiles_linear(b, out, ldo, x, ldx, T, w, bias, epi);
        pthread_mutex_unlock(&b->lock);
        return;
    }
    vl_assert(!cpu_kept(b, x, w->cols) && !cpu_kept(b, out, w->rows), "%s: rows kept for bf16 weights", w->name);
    if (T <= b->tuning.value[VL_TUNE_exact_few]) {
        if (T > 0) gemv(b, &j);
        pthread_mutex_unlock(&b->lock);
        return;
    }
    j.mr = b->k.tile[j.pairs      ? VL_SLOT_gemm_dpbf16
                     : is_bf16(w) ? VL_SLOT_gemm_bf16
                                  : VL_SLOT_gemm_f32];
    j.most_rows = b->tuning.value[VL_TUNE_exact_rows];
    int block = block_rows(&j);
    j.sum_rows = block;
    size_t tiles = (size_t)block * (size_t)w->cols;
    tiles = (tiles + 15) & ~(size_t)15;
    int threads = b->base.threads, panels = panel_count(w);
    j.group = least((panels + 4 * threads - 1) / (4 * threads), b->tuning.value[VL_TUNE_exact_panels]); /* some items
                                                                            for every thread */
    j.tiles = cpu_scratch(b, (tiles + (size_t)(threads * j.group) * (size_t)block * VL_NR) * sizeof(float));
    j.sums = j.tiles + tiles;
    for (int t = 0; t < T; t += block) {
        j.T = T - t < block ? T - t : block;
        j.x = x + (size_t)t * (size_t)ldx;
        j.out = out + (size_t)t * (size_t)ldo;
        cpu_team_run(b->team, (j.T + j.mr - 1) / j.mr, pack_rows_item, &j);
        cpu_team_run(b->team, (panels + j.group - 1) / j.group, gemm_item, &j);
    }
    pthread_mutex_unlock(&b->lock);
}
