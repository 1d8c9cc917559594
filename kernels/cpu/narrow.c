/* narrow.c: linear on weights of 8 and 4 bits; layouts, sums and their order in quant.h.
 *
 *   rows of x, some hundreds at a time       -> tiles of 6, quantised        pack_q
 *   a group of panels meets all tiles, CPU_QKC terms at a time               gemm_q8, gemm_q4
 *   epilogue as in linear.c
 *
 * A few rows (decoding) are one tile, and each panel is streamed once from memory. Many rows go to the tile unit
 * where there is one, in tiles of 16 (pack_qt, gemm_q8_tiles, gemm_q4_tiles): the same bits. Codes are made from the
 * checkpoint, or copied from one that holds codes, when pack.c says so.
 */
#include <math.h>
#include <stdlib.h>

#include "kernels/cpu/narrow.h"

enum { STEP = CPU_QKC / CPU_QG };  /* groups of a block sum                                   */

static int panel_count(const vl_matrix *w) { return (w->rows + VL_NR - 1) / VL_NR; }
static int least(int a, int b) { return a < b ? a : b; }

bool cpu_narrow_wants(const cpu_backend *b, const vl_matrix *w, unsigned use) {
    bool codes = w->dtype == VL_I8 || w->dtype == VL_U8;
    return codes || (b->bits && (use & (VL_USE_NARROW | VL_USE_NARROW8 | VL_USE_HEAD)));
}

/* ---- packing (pack.c says when) ---------------------------------------------------------------- */

enum { SPAN = 1024 };              /* of a row, at a time                                     */

typedef struct span {
    float values[SPAN];
    uint8_t codes[SPAN];
    uint16_t scales[SPAN / CPU_QG];
} span;

/* Codes of `groups` groups into column `col` of a panel. */
static void lay(uint8_t *panel, int col, const span *s, int groups, bool int4) {
    const uint8_t *codes = s->codes;
    for (int g = 0; g < groups; g++, panel += int4 ? CPU_Q4_GROUP : CPU_Q8_GROUP, codes += CPU_QG) {
        memcpy(panel + 2 * col, s->scales + g, 2);
        if (int4)
            for (int pair = 0; pair < 4; pair++)
                for (int i = 0; i < 4; i++)
                    panel[64 + (pair * VL_NR + col) * 4 + i] =
                        (uint8_t)(codes[8 * pair + i] | codes[8 * pair + 4 + i] << 4);
        else
            for (int k = 0; k < CPU_QG; k++)
                panel[64 + (k / 4 * VL_NR + col) * 4 + k % 4] = codes[k] ^ 0x80;
    }
}

/* One row, or zeros beyond the last. */
static void pack_row(cpu_narrow *p, uint8_t *panel, int row) {
    const vl_matrix *w = &p->w.src;
    span s = {.scales = {0}};
    double lost = 0, kept = 0;
    bool coded = w->dtype == VL_I8 || w->dtype == VL_U8;
    for (int k = 0; k < w->cols; k += SPAN) {
        int n = least(w->cols - k, SPAN), groups = cpu_q_groups(n);
        if (row >= w->rows) memset(s.codes, p->int4 ? 8 : 0, sizeof s.codes);
        else if (coded) vl_matrix_codes(s.codes, s.scales, w, row, k, n);
        else {
            memset(s.values, 0, sizeof s.values);
            vl_matrix_span(s.values, w, row, k, n);
            (p->int4 ? vl_quantise_int4 : vl_quantise_int8)(s.codes, s.scales, s.values, (size_t)groups);
        }
        lay(panel + (size_t)(k / CPU_QG) * (p->int4 ? CPU_Q4_GROUP : CPU_Q8_GROUP), row % VL_NR, &s, groups,
            p->int4);
        for (int i = 0; i < n && p->head && row < w->rows; i++) {
            double v = (double)vl_bf16_to_f32(s.scales[i / CPU_QG]) * (int8_t)s.codes[i];
            lost += ((double)s.values[i] - v) * ((double)s.values[i] - v);
            kept += v * v;
        }
    }
    if (!p->head) return;
    float *norms = cpu_narrow_norms(p) + 2 * row;
    norms[0] = (float)(sqrt(lost) * (1 + 0x1p-20));
    norms[1] = (float)(sqrt(kept) * (1 + 0x1p-20));
}

static void pack_panels(const cpu_backend *b, const cpu_weight *w, int first, int n) {
    cpu_narrow *p = (cpu_narrow *)(uintptr_t)w;
    (void)b;
    for (int row = first * VL_NR; row < (first + n) * VL_NR; row++)
        pack_row(p, (uint8_t *)w->panels + (size_t)(row / VL_NR) * w->panel_bytes, row);
}

int cpu_narrow_prepare(cpu_backend *b, vl_matrix *w, unsigned use, vl_err *err) {
    cpu_narrow *p = vl_calloc(1, sizeof *p);
    if (!p) return vl_fail(err, VL_E_NOMEM, "no memory for tensor %s", w->name);
    p->int4 = w->dtype == VL_U8 || (w->dtype != VL_I8 && b->bits == 4 && (use & VL_USE_NARROW));
    p->head = use & VL_USE_HEAD;
    p->groups = cpu_q_groups(w->cols);
    p->w.src = *w;
    p->w.format = p->head ? (p->int4 ? "q4x32+norms" : "q8x32+norms") : p->int4 ? "q4x32" : "q8x32";
    p->w.tail_bytes = p->head ? 2 * (size_t)panel_count(w) * VL_NR * sizeof(float) : 0;
    p->w.pack = pack_panels;
    p->w.panel_rows = VL_NR;
    p->w.panel_bytes = (size_t)p->groups * (p->int4 ? CPU_Q4_GROUP : CPU_Q8_GROUP);
    if (cpu_pack_add(b, &p->w, use, err)) {
        free(p);
        return -1;
    }
    w->impl = p;
    w->narrow = true;
    w->stored = p->w.bytes - p->w.tail_bytes;
    return 0;
}

/* ---- linear ----------------------------------------------------------------------------------- */

typedef struct narrow_job {
    const vl_ukernels *k;
    const vl_matrix *w;
    const cpu_narrow *p;
    float *out;
    const float *x, *bias;
    int ldo, ldx, T, group;        /* group: panels that share a k block of x while it is in L2 */
    vl_epilogue epi;
    bool amx;                      /* the tile unit, tiles of 16                              */
    int mr;                        /* rows of a tile                                          */
    size_t tile_group;             /* words of a group in it                                  */
    uint32_t *tiles;               /* [tile][group of K][tile_group]                          */
    float *sums;                   /* [thread][panel of the group][sum_rows][32]              */
    int sum_rows;
} narrow_job;

static void pack_tile(void *arg, int item, int thread) {
    const narrow_job *j = arg;
    int row = item * j->mr;
    (void)thread;
    (j->amx ? j->k->pack_qt : j->k->pack_q)(j->tiles + (size_t)item * (size_t)j->p->groups * j->tile_group,
                                            j->x + (size_t)row * (size_t)j->ldx, (size_t)j->ldx,
                                            least(j->T - row, j->mr), j->w->cols);
}

/* Rows of a wide output lie far apart: each is asked for some rows before it is written. */
static void finish(const narrow_job *j, int panel, const float *sums) {
    enum { AHEAD = 8 };
    int col = panel * VL_NR, n = least(j->w->rows - col, VL_NR);
    float *out = j->out + col;
    for (int t = 0; t < j->T; t++, out += j->ldo) {
        if (t + AHEAD < j->T) {
            const float *later = out + (size_t)AHEAD * (size_t)j->ldo;
            __builtin_prefetch(later, 1);
            if (n > 16) __builtin_prefetch(later + 16, 1);
        }
        j->k->epilogue(out, sums + t * VL_NR, j->bias ? j->bias + col : NULL, n, j->epi);
    }
}

static const uint8_t *block_of(const cpu_narrow *p, int panel, int g) {
    return (const uint8_t *)p->w.panels + (size_t)panel * p->w.panel_bytes +
           (size_t)g * (p->int4 ? CPU_Q4_GROUP : CPU_Q8_GROUP);
}

/* Groups [g, g + CPU_QKC / CPU_QG) of one panel with all tiles. next: the block that comes then, or NULL. */
static void multiply(const narrow_job *j, float *sums, int panel, int g, const uint8_t *next) {
    const cpu_narrow *p = j->p;
    const uint8_t *w = block_of(p, panel, g);
    size_t tile = (size_t)p->groups * j->tile_group;
    const uint32_t *x = j->tiles + (size_t)g * j->tile_group;
    int groups = least(p->groups - g, STEP);
    if (j->amx) {
        (p->int4 ? j->k->gemm_q4_tiles : j->k->gemm_q8_tiles)(sums, x, tile, w, next, groups, j->T, g > 0);
        return;
    }
    for (int t = 0; t < j->T; t += CPU_QMR, x += tile)
        (p->int4 ? j->k->gemm_q4 : j->k->gemm_q8)(sums + t * VL_NR, x, w, groups, least(j->T - t, CPU_QMR), g > 0);
}

static void gemm_item(void *arg, int item, int thread) {
    const narrow_job *j = arg;
    int first = item * j->group, panels = least(j->p->w.n_panels - first, j->group);
    size_t stride = (size_t)j->sum_rows * VL_NR;
    float *sums = j->sums + (size_t)(thread * j->group) * stride;
    for (int g = 0; g < j->p->groups; g += STEP)
        for (int i = 0; i < panels; i++) {
            const uint8_t *next = i + 1 < panels ? block_of(j->p, first + i + 1, g)
                                  : g + STEP < j->p->groups ? block_of(j->p, first, g + STEP) : NULL;
            multiply(j, sums + (size_t)i * stride, first + i, g, next);
        }
    for (int i = 0; i < panels; i++) finish(j, first + i, sums + (size_t)i * stride);
}

static void gemv_item(void *arg, int item, int thread) {
    const narrow_job *j = arg;
    float sums[CPU_QMR * VL_NR] __attribute__((aligned(64)));
    int first = 0, end = cpu_run_of(j->p->w.n_panels, j->group, j->p->w.n_panels, item, &first);
    (void)thread;
    for (int i = first; i < end; i++) {
        for (int g = 0; g < j->p->groups; g += STEP) multiply(j, sums, i, g, NULL);
        finish(j, i, sums);
    }
}

/* Rows in each pass over the panels: few passes, all of nearly the same size. */
static int block_rows(int T, int most, int mr) {
    int blocks = (T + most - 1) / most, rows = (T + blocks - 1) / blocks;
    return (rows + mr - 1) / mr * mr;
}

/* How T rows are cut; a head stays with tiles of 6, whose form its rescoring reads. */
static void choose(const cpu_backend *b, narrow_job *j) {
    const int *v = b->tuning.value, threads = b->base.threads;
    int from = v[VL_TUNE_int_tiles];
    j->amx = b->int_tiles && from && j->T >= from && j->T > CPU_QMR && !j->p->head;
    j->mr = j->amx ? CPU_QT_ROWS : CPU_QMR;
    j->tile_group = j->amx ? CPU_QT_GROUP : CPU_QX_GROUP;
    j->sum_rows = block_rows(j->T, v[j->amx ? VL_TUNE_int_tile_rows : VL_TUNE_int_rows], j->mr);
    j->group = j->T <= CPU_QMR ? threads /* else: some items for every thread, 32 panels in 8, not in 7 */
                               : least((j->p->w.n_panels + 4 * threads - 1) / (4 * threads), v[VL_TUNE_int_panels]);
}

void cpu_narrow_linear(cpu_backend *b, float *out, int ldo, const float *x, int ldx, int T,
                       const vl_matrix *w, const float *bias, vl_epilogue epi) {
    cpu_narrow *p = w->impl;
    vl_assert(ldo >= w->rows && ldx >= w->cols, "%s: ldo %d, ldx %d", w->name, ldo, ldx);
    if (T <= 0) return;
    pthread_mutex_lock(&b->lock);
    cpu_pack_ready(b, &p->w);
    narrow_job j = {.k = &b->k, .w = w, .p = p, .bias = bias, .ldo = ldo, .ldx = ldx, .T = T, .epi = epi};
    choose(b, &j);
    int threads = b->base.threads, panels = p->w.n_panels, block = j.sum_rows;
    bool few = T <= CPU_QMR, exact_top = p->head && !bias && epi == VL_EPI_NONE;
    size_t words = (size_t)(block / j.mr) * (size_t)p->groups * j.tile_group;
    words = (words + 15) & ~(size_t)15;
    size_t sums = few ? 0 : (size_t)(threads * j.group) * (size_t)block * VL_NR;
    j.tiles = cpu_scratch(b, (words + sums) * sizeof *j.tiles + (exact_top ? cpu_narrow_rescore_bytes(b, w) : 0));
    j.sums = (float *)(void *)(j.tiles + words);
    for (int t = 0; t < T; t += block) {
        j.T = least(T - t, block);
        j.x = x + (size_t)t * (size_t)ldx;
        j.out = out + (size_t)t * (size_t)ldo;
        cpu_team_run(b->team, (j.T + j.mr - 1) / j.mr, pack_tile, &j);
        if (few) cpu_team_run(b->team, cpu_run_count(panels, threads, panels), gemv_item, &j);
        else cpu_team_run(b->team, (panels + j.group - 1) / j.group, gemm_item, &j);
        if (exact_top) cpu_narrow_rescore(b, w, j.out, ldo, j.x, ldx, j.T, j.tiles, j.sums + sums);
    }
    pthread_mutex_unlock(&b->lock);
}
