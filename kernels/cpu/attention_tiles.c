/* attention_tiles.c: attention in bf16 mode on tile registers (AMX). q, k, v and the probabilities are rounded to
 * bf16; scores, softmax, its sum and the running output are f32. E below is padded to a multiple of 32 by zeros.
 *
 *   q rows      [32][E / 2] pairs                     rows of tiles as they are
 *   K panels    [keys / 32][E / 2][32] pairs of e     packed once, like a weight of 32 keys; a pool has them so
 *   V panels    [E / 32][keys / 2][32] pairs of keys  packed once
 *
 *   for each block of KEYS keys, for each 32 queries:
 *     S [keys / 32][32][32] = q K^T                   8 to 16 products of tiles per 32 keys, in L1
 *     p = e^((S - max) scale), rounded, where S was   softmax_tiles
 *     O [E / 32][32][32] = O * fix + p V              over all the block's keys in tile registers
 *
 * Vision: K and V of all heads are packed first, 32 keys at a time, then heads and row groups are shared out.
 * Text: each group of rows of a key head reads the pool's keys where they are and puts its values into panels as it
 * meets them.
 *
 * A row meets its keys in blocks of KEYS counted from the start of its segment or sequence, and in steps of 32
 * within; what it does not see adds zeros: its bits do not depend on its company. */
#include <math.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/tiles.h"

enum {
    ROWS = 32,
    KEYS = 256,                    /* keys of a softmax step: their scores fit L1; a multiple of VL_KV_BLOCK */
    BLOCKS = KEYS / 32,
    GROUP = 256                    /* queries that share packed keys                          */
};

/* One thread's share of an attention op: up to GROUP queries of one head, or of the heads of one key head. */
typedef struct tile_group {
    const vl_ukernels *k;
    int E, W, cols, lanes;         /* W: words of a row, padded; cols: panels of 32 columns  */
    int kc;                        /* terms of a key: 2 W, in a pool E                        */
    float scale;
    uint32_t *q;                   /* [GROUP][W]                                              */
    float *o;                      /* [GROUP / 32][cols][32][32]                              */
    float *s;                      /* [BLOCKS] of VL_SCORES                                   */
    float *m, *l;                  /* [GROUP] [GROUP][16]                                     */
    bool begun[GROUP / ROWS];      /* these 32 queries have met keys                          */
} tile_group;

static size_t group_words(int E) {
    size_t W = (size_t)up(E, 32) / 2;
    return GROUP * W + GROUP * 2 * W + BLOCKS * VL_SCORES + GROUP * 17;
}

static tile_group group_at(uint32_t *scratch, const cpu_backend *b, int E, int lanes, float scale) {
    tile_group g = {.k = &b->k, .E = E, .W = up(E, 32) / 2, .cols = up(E, 32) / 32, .lanes = lanes, .scale = scale};
    size_t W = (size_t)g.W, rows = (size_t)lanes;
    g.kc = up(E, 32);
    g.q = scratch;
    g.o = (float *)(void *)(g.q + GROUP * W);
    g.s = g.o + GROUP * 2 * W;
    g.l = g.s + BLOCKS * VL_SCORES;
    g.m = g.l + GROUP * 16;
    for (size_t i = 0; i < rows; i++) g.m[i] = -INFINITY;
    memset(g.l, 0, rows * 16 * sizeof *g.l);
    return g;
}

/* ---- packed keys and values, 32 keys at a time ------------------------------------------------- */

/* n <= 32 keys, ld apart, to a panel [W][32]. */
static void put_keys(const vl_ukernels *k, uint32_t *panel, const float *x, size_t ld, int n, int E) {
    uint32_t rows[ROWS * 16] __attribute__((aligned(64)));
    for (int e = 0; e < E; e += 32, panel += 16 * VL_NR) {
        k->pack_tiles(rows, 0, 0, x + e, ld, n, least(E - e, 32));
        k->pack_rows((float *)(void *)panel, (const float *)(const void *)rows, 16, n, 16, VL_NR);
    }
}

/* n <= 32 rows of v, ld apart, to pairs of rows [16][32] in each panel of columns, panels `stride` words apart;
 * zeros beyond n. */
static void put_values(const vl_ukernels *k, uint32_t *panel, size_t stride, const float *v, size_t ld, int n, int E) {
    uint32_t rows[ROWS * 16] __attribute__((aligned(64)));
    for (int e = 0; e < E; e += 32, panel += stride) {
        k->pack_tiles(rows, 0, 0, v + e, ld, n, least(E - e, 32));
        k->pair_rows(panel, (const uint16_t *)(const void *)rows, 32, n, 32);
        for (int i = (n + 1) / 2; i < 16; i++) memset(panel + i * VL_NR, 0, VL_NR * sizeof *panel);
    }
}

/* The same from n <= 32 keys of a pool, where pairs of rows are E words (cpu.h). */
static void pool_values(uint32_t *panel, size_t stride, const uint32_t *v, int n, int E) {
    size_t pairs = (size_t)(n + 1) / 2, columns = (size_t)E;
    for (size_t e = 0; e < columns; e += VL_NR, panel += stride)
        for (size_t i = 0; i < 16; i++) {
            uint32_t *to = panel + i * VL_NR;
            const uint32_t *from = v + i * columns + e;
            if (i < pairs && e + VL_NR <= columns) memcpy(to, from, VL_NR * sizeof *to);
            else
                for (size_t c = 0; c < VL_NR; c++) to[c] = i < pairs && e + c < columns ? from[c] : 0;
        }
}

/* ---- 32 queries meet a block of keys ------------------------------------------------------------ */

/* keys: panels of 32; values: of the first key, panels `stride` words apart; n keys; valid [rows]. */
static void rows_meet_keys(tile_group *g, int at, const uint32_t *const *keys, const uint32_t *values, size_t stride, int n,
                           const int32_t *valid) {
    int rows = least(g->lanes - at, ROWS), tile_rows = rows > 16 ? 32 : rows > 8 ? 16 : rows, most = 0;
    for (int i = 0; i < rows; i++)
        if (valid[i] > most) most = valid[i];
    most = least(most, n);
    if (most <= 0) return;
    size_t W = (size_t)g->W, O = ROWS * VL_NR;
    float fix[ROWS], *o = g->o + (size_t)(at / ROWS) * (size_t)g->cols * O;
    bool add = g->begun[at / ROWS], moved = false;
    vl_tile_sum t = {.a = g->q + (size_t)at * W, .lda = W, .step = 16, .kc = g->kc, .rows = tile_rows};
    for (int key = 0; key < most; key += 32) {
        t.c = g->s + (size_t)(key / 32) * VL_SCORES;
        t.panel = keys[key / 32];
        g->k->gemm_tiles(&t);
    }
    g->k->softmax_tiles(g->s, most, rows, valid, g->scale, g->m + at, g->l + at * 16, fix);
    for (int i = 0; i < rows; i++) moved |= fix[i] != 1.0f;
    t = (vl_tile_sum){.a = (const uint32_t *)(const void *)g->s, .lda = VL_NR, .step = VL_SCORES, .kc = up(most, 32),
                      .rows = tile_rows, .add = add};
    for (int c = 0; c < g->cols; c++) {
        t.c = o + (size_t)c * O;
        t.panel = values + (size_t)c * stride;
        for (int i = 0; i < rows && add && moved; i++)
            for (int e = 0; e < VL_NR; e++) t.c[i * VL_NR + e] *= fix[i];
        g->k->gemm_tiles(&t);
    }
    g->begun[at / ROWS] = true;
}

/* Where the lanes of a group lie: `heads` of each row, from row0 and column col0 on. */
typedef struct lanes {
    const float *q;
    float *out;
    size_t ldq, ldo;
    int row0, col0, heads;
    bool kept;                     /* out [T, ldo] is kept as tiles for linear                */
    int T;
} lanes;

static size_t lane_at(const tile_group *g, const lanes *w, int lane, size_t ld) {
    return (size_t)(w->row0 + lane / w->heads) * ld + (size_t)(w->col0 + lane % w->heads * g->E);
}

static void put_queries(tile_group *g, const lanes *w) {
    for (int i = 0; i < g->lanes; i++)
        g->k->pack_tiles(g->q + i * g->W, 16, 0, w->q + lane_at(g, w, i, w->ldq), 0, 1, g->E);
}

/* 32 columns of a lane's output, from column e on. */
static float *output(const tile_group *g, int lane, int e) {
    size_t panel = (size_t)(lane / ROWS) * (size_t)g->cols + (size_t)(e / VL_NR);
    return g->o + (panel * ROWS + (size_t)(lane % ROWS)) * VL_NR;
}

/* Outputs, made, into tiles: a block of rows at a time where lanes are rows and blocks those of out. E is a
 * multiple of 32. */
static void keep_outputs(const tile_group *g, const lanes *w) {
    int run = w->heads == 1 && w->row0 % ROWS == 0 ? ROWS : 1;
    for (int i = 0; i < g->lanes; i += run)
        for (int e = 0; e < g->E; e += VL_NR)
            cpu_tile_put(g->k, (uint32_t *)(void *)w->out, 1, w->T, (int)w->ldo, w->row0 + i / w->heads,
                         least(g->lanes - i, run), w->col0 + i % w->heads * g->E + e, VL_NR, output(g, i, e), VL_NR);
}

static void get_outputs(const tile_group *g, const lanes *w) {
    for (int i = 0; i < g->lanes; i++) {
        const float *l = g->l + i * 16;
        float sum = 0;
        for (int k = 0; k < 16; k++) sum += l[k];
        float part = 1.0f / sum;
        for (int e = 0; e < g->E; e += VL_NR) {
            float *o = output(g, i, e), *out = w->kept ? o : w->out + lane_at(g, w, i, w->ldo) + e;
            for (int k = 0, n = least(g->E - e, VL_NR); k < n; k++) out[k] = o[k] * part;
        }
    }
    if (w->kept) keep_outputs(g, w);
}

/* Outputs whose heads are no whole steps wide are made as floats first. */
typedef struct keep_job { const cpu_backend *b; float *out; const float *from; int T, cols; } keep_job;
static void keep_item(void *arg, int item, int thread) {
    const keep_job *j = arg;
    int row = item * ROWS;
    (void)thread;
    cpu_tile_put(&j->b->k, (uint32_t *)(void *)j->out, 1, j->T, j->cols, row, least(j->T - row, ROWS), 0, j->cols,
                 j->from + (size_t)row * (size_t)j->cols, (size_t)j->cols);
}
static void keep(cpu_backend *b, float *out, const float *from, int T, int cols) {
    keep_job j = {b, out, from, T, cols};
    cpu_team_run(b->team, up(T, ROWS) / ROWS, keep_item, &j);
}

/* ---- full attention inside segments (vision) ---------------------------------------------------- */

typedef struct full_job {
    const cpu_backend *b;
    float *out;
    const float *qkv;
    const int32_t *cu;
    int n, H, E, most;             /* most: rows of the longest segment                       */
    float scale;
    uint32_t *keys, *values;       /* [H][padded][W] each                                     */
    size_t padded;                 /* rows of all segments, each from a multiple of 32 on     */
    bool kept;
    int P;
    uint32_t *scratch;             /* [thread] groups                                         */
} full_job;

/* Where segment s begins among the packed rows. */
static size_t base_of(const int32_t *cu, int s) { return (size_t)up(cu[s], 32) + (size_t)s * 32; }

static void full_pack(void *arg, int item, int thread) {
    const full_job *j = arg;
    int per = up(j->most, 32) / 32, seg = item / per, at = item % per * 32, E = j->E, W = up(E, 32) / 2;
    int n = least(j->cu[seg + 1] - j->cu[seg] - at, 32);
    (void)thread;
    if (n <= 0) return;
    size_t plane = (size_t)j->H * (size_t)E, row = base_of(j->cu, seg) + (size_t)at;
    size_t len = (size_t)up(j->cu[seg + 1] - j->cu[seg], 32);
    const float *k = j->qkv + (size_t)(j->cu[seg] + at) * 3 * plane + plane;
    for (int h = 0; h < j->H; h++, k += E) {
        size_t head = (size_t)h * j->padded * (size_t)W;
        put_keys(&j->b->k, j->keys + head + row * (size_t)W, k, 3 * plane, n, E);
        put_values(&j->b->k, j->values + head + base_of(j->cu, seg) * (size_t)W + (size_t)at * 16, len * 16, k + plane,
                   3 * plane, n, E);
    }
}

static void full_item(void *arg, int item, int thread) {
    const full_job *j = arg;
    int parts = (j->most + GROUP - 1) / GROUP, part = item % parts, head = item / parts % j->H;
    int seg = item / parts / j->H, begin = j->cu[seg], len = j->cu[seg + 1] - begin, row0 = part * GROUP, E = j->E;
    if (row0 >= len) return;
    size_t plane = (size_t)j->H * (size_t)E, W = (size_t)up(E, 32) / 2;
    lanes w = {j->qkv, j->out, 3 * plane, plane, begin + row0, head * E, 1, j->kept, j->P};
    tile_group g = group_at(j->scratch + (size_t)thread * group_words(E), j->b, E, least(len - row0, GROUP), j->scale);
    put_queries(&g, &w);
    size_t packed = ((size_t)head * j->padded + base_of(j->cu, seg)) * W, stride = (size_t)up(len, 32) * 16;
    for (int at = 0; at < len; at += KEYS) {
        const uint32_t *keys[BLOCKS];
        int32_t valid[ROWS];
        int n = least(len - at, KEYS);
        for (int i = 0; i < ROWS; i++) valid[i] = n;
        for (int i = 0; i * 32 < n; i++) keys[i] = j->keys + packed + (size_t)(at + i * 32) * W;
        for (int q = 0; q < g.lanes; q += ROWS)
            rows_meet_keys(&g, q, keys, j->values + packed + (size_t)at * 16, stride, n, valid);
    }
    get_outputs(&g, &w);
    g.k->tiles_end();
}

void cpu_tiles_attend_full(cpu_backend *b, float *out, const float *qkv, const int32_t *cu, int n, int P, int H, int E,
                           float scale) {
    full_job j = {.b = b, .out = out, .qkv = qkv, .cu = cu, .n = n, .P = P, .H = H, .E = E, .scale = scale};
    bool kept = cpu_kept(b, out, H * E), later = kept && E % VL_NR;
    vl_assert(scale > 0, "scale %g", (double)scale);
    for (int i = 0; i < n; i++)
        if (cu[i + 1] - cu[i] > j.most) j.most = cu[i + 1] - cu[i];
    if (j.most == 0) return;
    j.padded = base_of(cu, n);
    size_t packed = (size_t)H * j.padded * (size_t)up(E, 32) / 2, floats = later ? (size_t)P * (size_t)(H * E) : 0;
    size_t groups = (size_t)b->base.threads * group_words(E);
    j.keys = cpu_scratch(b, (2 * packed + groups + floats) * sizeof *j.keys);
    j.values = j.keys + packed;
    j.scratch = j.values + packed;
    j.kept = kept && !later;
    if (later) j.out = (float *)(void *)(j.scratch + groups);
    cpu_team_run(b->team, n * (up(j.most, 32) / 32), full_pack, &j);
    cpu_team_run(b->team, n * H * ((j.most + GROUP - 1) / GROUP), full_item, &j);
    if (later) keep(b, out, j.out, P, H * E);
}

/* ---- causal attention over KV blocks (text) ----------------------------------------------------- */

typedef struct causal_job {
    const cpu_backend *b;
    const vl_causal_args *a;
    uint32_t *scratch;             /* [thread]: a group, values of KEYS rows                   */
    int parts, rows_per_part;
    float *out;
    bool kept;
} causal_job;

static size_t causal_words(int E) { return group_words(E) + KEYS * (size_t)up(E, 32) / 2; }

/* Keys [at, at + n) of the sequence whose blocks `table` lists: where they are, and their values in panels. */
static void causal_find(const vl_causal_args *a, const int32_t *table, int kv, int at, int n, const uint32_t **keys,
                        uint32_t *values) {
    for (int i = 0; i < n; i += 32) {
        int row = at + i, W = a->E / 2;
        size_t from = cpu_kv_at(table[row / VL_KV_BLOCK], kv, a->G, W) + (size_t)(row % VL_KV_BLOCK * W);
        keys[i / 32] = (const uint32_t *)a->k_pool + from;
        for (int w = 0; w < 32 * W; w += 16) __builtin_prefetch(keys[i / 32] + w, 0, 2);
        pool_values(values + (size_t)i * 16, KEYS * 16, (const uint32_t *)a->v_pool + from, least(n - i, 32), a->E);
    }
}

/* Rows [r0, r1) of one sequence and the query heads of key head kv. Lane = row * heads + head. */
static void causal_run(const causal_job *j, int r0, int r1, int kv, int thread) {
    const vl_causal_args *a = j->a;
    int heads = a->H / a->G, longest = 0;
    lanes w = {a->q, j->out, (size_t)a->ldq, (size_t)a->H * (size_t)a->E, r0, kv * heads * a->E, heads, j->kept, a->T};
    uint32_t *scratch = j->scratch + (size_t)thread * causal_words(a->E);
    tile_group g = group_at(scratch, j->b, a->E, (r1 - r0) * heads, a->scale);
    const uint32_t *keys[BLOCKS];
    uint32_t *values = scratch + group_words(a->E);
    g.kc = a->E;
    put_queries(&g, &w);
    for (int i = r0; i < r1; i++)
        if (a->row_len[i] > longest) longest = a->row_len[i];
    const int32_t *table = a->table + (size_t)a->row_seq[r0] * (size_t)a->max_blocks;
    for (int at = 0; at < longest; at += KEYS) {
        int n = least(longest - at, KEYS);
        causal_find(a, table, kv, at, n, keys, values);
        for (int q = 0; q < g.lanes; q += ROWS) {
            int32_t valid[ROWS];
            for (int i = 0; i < ROWS; i++) valid[i] = q + i < g.lanes ? a->row_len[r0 + (q + i) / heads] - at : 0;
            rows_meet_keys(&g, q, keys, values, KEYS * 16, n, valid);
        }
    }
    get_outputs(&g, &w);
    g.k->tiles_end();
}

static void causal_item(void *arg, int item, int thread) {
    const causal_job *j = arg;
    const vl_causal_args *a = j->a;
    int part = j->parts - 1 - item / a->G, kv = item % a->G; /* the longest rows first */
    int r0 = part * j->rows_per_part, end = least(r0 + j->rows_per_part, a->T);
    while (r0 < end) {
        int r1 = r0 + 1;
        while (r1 < end && a->row_seq[r1] == a->row_seq[r0]) r1++;
        causal_run(j, r0, r1, kv, thread);
        r0 = r1;
    }
}

void cpu_tiles_attend_causal(cpu_backend *b, const vl_causal_args *a) {
    int heads = a->H / a->G;
    vl_assert(heads <= GROUP && a->scale > 0, "heads %d, scale %g", heads, (double)a->scale);
    bool kept = cpu_kept(b, a->out, a->H * a->E), later = kept && a->E % VL_NR;
    size_t own = causal_words(a->E) * (size_t)b->base.threads, floats = later ? (size_t)a->T * (size_t)(a->H * a->E) : 0;
    causal_job j = {b, a, NULL, 0, GROUP / heads, a->out, kept && !later};
    j.parts = (a->T + j.rows_per_part - 1) / j.rows_per_part;
    j.scratch = cpu_scratch(b, (own + floats) * sizeof *j.scratch);
    if (later) j.out = (float *)(void *)(j.scratch + own);
    cpu_team_run(b->team, j.parts * a->G, causal_item, &j);
    if (later) keep(b, a->out, j.out, a->T, a->H * a->E);
}
