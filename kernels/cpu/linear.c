/* linear.c: out [T, N] = epilogue(x [T, K] W^T + bias), on packed panels of 32 rows of W.
 *
 *   T <= 8   gemv: each panel is streamed once from memory while T rows of x sit in cache
 *   T >  8   gemm: rows of x are cut into blocks of at most 240 and transposed into tiles
 *                  [mr rows]; a run of panels, by twos where the tile is 64 wide, then meets all
 *                  tiles, VL_KC terms at a time, widened to f32 once for all of them:
 *
 *            x block, packed              two panels, widened       sums
 *            k block 0: [tile][KC][mr]    [KC][64]  32 KB, L1       [panels][rows][64]  (L2)
 *            k block 1: [tile][KC][mr]    [KC][64]              +=
 *            one k block is 120 KB: read in order, from L2 after the run's first panels
 *
 * 240 rows and the length of a run are tuning.h's. In bf16 mode x is rounded to bf16 while it is packed, and vdpbf16ps
 * replaces the fused multiply-add: it reads single panels in place, VL_KC_PAIRS terms at a time. Where there are tile
 * registers (AMX), linear_tiles.c makes the products with bf16 weights in both modes.
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
    int ldo, ldx, T, mr, threads;
    vl_epilogue epi;
    bool pairs;                    /* bf16 mode: x rounded to bf16 pairs, vdpbf16ps          */
    vl_uk_gemm *gemm;              /* what `width` panels side by side meet                  */
    int kc, width;                 /* terms of a k block; panels of a tile, 1 or 2           */
    int most;                      /* tiles of columns that share a k block of x             */
    float *tiles;                  /* packed rows of x: [k block][tile][k or pair][mr]       */
    float *sums, *wide;            /* [thread][most][sum_rows][width 32], [thread][kc][width 32] */
    int sum_rows;                  /* rows in a pass                                         */
} linear_job;

static int least(int a, int b) { return a < b ? a : b; }
static int round_up(int n, int step) { return (n + step - 1) / step * step; }

/* 32-bit words of `k` values of one row of x, as packed. */
static size_t words(const linear_job *j, int k) { return (size_t)(j->pairs ? (k + 1) / 2 : k); }

/* Rows t < T of 32 columns: sums [T][ld] -> out. */
static void finish(const linear_job *j, int panel, const float *sums, int ld, float *out, int T) {
    int col = panel * VL_NR, n = least(j->w->rows - col, VL_NR);
    const float *bias = j->bias ? j->bias + col : NULL;
    for (int t = 0; t < T; t++)
        j->k->epilogue(out + (size_t)t * (size_t)j->ldo + col, sums + t * ld, bias, n, j->epi);
}

/* In each round every thread gets its share of half of what is left, or `most`. */
int cpu_run_of(int panels, int threads, int most, int item, int *first) {
    int at = 0, left = panels, each = 0;
    for (int i = 0; i <= item && left > 0; i++, at += each, left -= each) {
        if (i % threads == 0) each = least(left / (2 * threads) + 1, most);
        if (each > left) each = left;
        *first = at;
    }
    return at;
}
int cpu_run_count(int panels, int threads, int most) {
    int n = 0;
    for (int first; cpu_run_of(panels, threads, most, n, &first) < panels;) n++;
    return n + 1;
}

static void gemv_item(void *arg, int item, int thread) {
    const linear_job *j = arg;
    float sums[VL_GEMV_ROWS * VL_NR] __attribute__((aligned(64)));
    int n = panel_count(j->w), first = 0, end = cpu_run_of(n, j->threads, n, item, &first), K = j->w->cols;
    (void)thread;
    for (int i = first; i < end; i++) {
        const void *panel = (const uint8_t *)j->p->panels + (size_t)i * j->p->panel_bytes;
        if (j->pairs) j->k->gemv_dpbf16(sums, j->tiles, words(j, K), panel, K, j->T);
        else if (is_bf16(j->w)) j->k->gemv_bf16(sums, j->x, (size_t)j->ldx, panel, K, j->T);
        else j->k->gemv_f32(sums, j->x, (size_t)j->ldx, panel, K, j->T);
        finish(j, i, sums, VL_NR, j->out, j->T);
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
    int panels = panel_count(j->w);
    cpu_team_run(b->team, cpu_run_count(panels, j->threads, panels), gemv_item, j);
}

static size_t padded_rows(const linear_job *j) { return (size_t)round_up(j->T, j->mr); }

static void pack_rows_item(void *arg, int item, int thread) {
    const linear_job *j = arg;
    int row = item * j->mr, rows = least(j->T - row, j->mr);
    (void)thread;
    for (int k = 0; k < j->w->cols; k += j->kc) {
        int kc = least(j->w->cols - k, j->kc);
        float *dst = j->tiles + words(j, k) * padded_rows(j) + (size_t)row * words(j, kc);
        const float *x = j->x + (size_t)row * (size_t)j->ldx + k;
        if (j->pairs)
            j->k->pack_pairs((uint32_t *)(void *)dst, x, (size_t)j->ldx, rows, kc, j->mr);
        else j->k->pack_rows(dst, x, (size_t)j->ldx, rows, kc, j->mr);
    }
}

/* Asks for the lines that the epilogue of a tile is about to write, while its last sums are made. */
static void fetch_rows(const float *out, size_t ldo, int rows, int n) {
    for (int r = 0; r < rows; r++, out += ldo)
        for (int i = 0; i < n; i += 16) __builtin_prefetch(out + i, 1);
}

/* Where the k-th terms of a panel lie; of a panel that does not exist, nowhere. */
static const uint8_t *panel_at(const linear_job *j, int panel, int k) {
    size_t lane = is_bf16(j->w) ? 2 : 4; /* bytes of one k, per column */
    return panel < panel_count(j->w) ? (const uint8_t *)j->p->panels + (size_t)panel * j->p->panel_bytes +
                                           (size_t)k * lane * VL_NR : NULL;
}

/* Asks for a share of the weights that come next, so that they are in L2 when their turn comes. */
static void fetch_share(const linear_job *j, int panel, int k, int share, int shares) {
    size_t bytes = (size_t)least(j->w->cols - k, j->kc) * (is_bf16(j->w) ? 2 : 4) * VL_NR;
    size_t from = (bytes * (size_t)share / (size_t)shares) & ~(size_t)63, to = bytes * (size_t)(share + 1) / (size_t)shares;
    for (int p = panel; p < panel + j->width; p++) {
        const uint8_t *next = panel_at(j, p, k);
        for (size_t at = from; next && at < to; at += 64) __builtin_prefetch(next + at, 0, 2);
    }
}

/* kc terms of the panels of a tile, side by side as f32. */
static const void *widen(const linear_job *j, float *wide, int panel, int panels, int k, int kc) {
    for (int i = 0; i < panels; i++) {
        const uint8_t *src = panel_at(j, panel + i, k);
        size_t ld = (size_t)panels * VL_NR;
        if (is_bf16(j->w)) j->k->widen_bf16(wide + i * VL_NR, ld, (const uint32_t *)(const void *)src, kc);
        else
            for (int r = 0; r < kc; r++) memcpy(wide + (size_t)r * ld + i * VL_NR, src + r * VL_NR * 4, VL_NR * 4);
    }
    return wide;
}

/* One k block: all rows of x meet the panels of a tile. next: the panel whose terms from next_k on follow. */
static void meet(const linear_job *j, int panel, int k, float *sums, float *wide, int next, int next_k) {
    int K = j->w->cols, kc = least(K - k, j->kc), panels = least(panel_count(j->w) - panel, j->width);
    int columns = panels * VL_NR, tiles = (j->T + j->mr - 1) / j->mr, col = panel * VL_NR;
    vl_uk_gemm *gemm = panels == j->width ? j->gemm : j->k->gemm_f32; /* a last odd panel */
    const float *x = j->tiles + words(j, k) * padded_rows(j);
    const void *w = j->pairs ? panel_at(j, panel, k) : widen(j, wide, panel, panels, k, kc);
    for (int i = 0, t = 0; i < tiles; i++, t += j->mr) {
        float *s = sums + t * columns, *out = j->out + (size_t)t * (size_t)j->ldo;
        int rows = least(j->T - t, j->mr);
        if (next_k < K) fetch_share(j, next, next_k, i, tiles);
        if (k + kc == K) fetch_rows(out + col, (size_t)j->ldo, rows, least(j->w->rows - col, columns));
        gemm(s, x + (size_t)t * words(j, kc), (size_t)j->mr, w, kc, rows, k > 0);
        if (k + kc < K) continue;
        for (int p = 0; p < panels; p++) finish(j, panel + p, s + p * VL_NR, columns, out, rows);
    }
}

static int tile_count(const linear_job *j) { return (panel_count(j->w) + j->width - 1) / j->width; }

static void gemm_item(void *arg, int item, int thread) {
    const linear_job *j = arg;
    int first = 0, end = cpu_run_of(tile_count(j), j->threads, j->most, item, &first);
    size_t stride = (size_t)(j->sum_rows * j->width * VL_NR);
    float *sums = j->sums + (size_t)(thread * j->most) * stride;
    float *wide = j->pairs ? NULL : j->wide + (size_t)(thread * j->kc * j->width * VL_NR);
    for (int k = 0; k < j->w->cols; k += j->kc)
        for (int i = first; i < end; i++) {
            bool last = i + 1 == end; /* then the first panels' next k block comes, if there is one */
            meet(j, i * j->width, k, sums + (size_t)(i - first) * stride, wide, (last ? first : i + 1) * j->width,
                 last ? k + j->kc : k);
        }
}

/* The tile and what shares a block. Rows go in few passes over the panels, all of nearly the same size. */
static void choose(linear_job *j, const cpu_backend *b) {
    const vl_ukernels *k = j->k;
    /* Not every tier has the wide tile, and few columns are better shared out in twice as many tiles. */
    bool wide = !j->pairs && k->tier[VL_SLOT_gemm_wide] == k->tier[VL_SLOT_gemm_f32] &&
                panel_count(j->w) >= 2 * j->threads;
    int most_rows = b->tuning.value[VL_TUNE_exact_rows], blocks = (j->T + most_rows - 1) / most_rows;
    j->gemm = j->pairs ? k->gemm_dpbf16 : wide ? k->gemm_wide : k->gemm_f32;
    j->mr = k->tile[j->pairs ? VL_SLOT_gemm_dpbf16 : wide ? VL_SLOT_gemm_wide : VL_SLOT_gemm_f32];
    j->width = wide ? VL_WIDE / VL_NR : 1;
    j->kc = j->pairs ? VL_KC_PAIRS : VL_KC;
    j->sum_rows = round_up((j->T + blocks - 1) / blocks, j->mr);
    j->most = (b->tuning.value[VL_TUNE_exact_panels] + j->width - 1) / j->width;
    j->most = least(j->most, tile_count(j) / (2 * j->threads) + 1); /* what the longest run has, and scratch is for */
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
                    .ldx = ldx, .T = T, .threads = b->base.threads, .epi = epi, .pairs = b->bf16 && is_bf16(w)};
    if (is_bf16(w) && (b->tiles || b->split)) {
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
    choose(&j, b);
    int block = j.sum_rows;
    size_t tiles = ((size_t)block * (size_t)w->cols + 15) & ~(size_t)15, columns = (size_t)(j.threads * j.width * VL_NR);
    size_t sums = columns * (size_t)(j.most * block), wide = j.pairs ? 0 : columns * (size_t)j.kc;
    j.tiles = cpu_scratch(b, (tiles + sums + wide) * sizeof(float));
    j.sums = j.tiles + tiles;
    j.wide = j.sums + sums;
    for (int t = 0; t < T; t += block) {
        j.T = least(T - t, block);
        j.x = x + (size_t)t * (size_t)ldx;
        j.out = out + (size_t)t * (size_t)ldo;
        cpu_team_run(b->team, (j.T + j.mr - 1) / j.mr, pack_rows_item, &j);
        cpu_team_run(b->team, cpu_run_count(tile_count(&j), j.threads, j.most), gemm_item, &j);
    }
    pthread_mutex_unlock(&b->lock);
}
