/* attention.c: softmax(q k^T * scale) v with an online softmax, so memory is O(rows) and no
 * [P, P] matrix exists. Keys come in blocks of 64. Many queries (a picture, a prompt): queries are
 * lanes, 32 to a panel:
 *
 *   S^T [keys][32] = K block [keys, E] x Q^T panel [E][32]       the gemm_f32 tile, rows = keys
 *   p, m, l, fix   = softmax step, lane by lane                  the softmax slot
 *   O^T [E][32]    = O^T * fix + V^T [E, keys] x P^T [keys][32]  the gemm_f32 tile, rows = E
 *
 * V needs no transposing: row e of V^T at key k is v[k * ldv + e], which is the packed-tile form
 * with lda = ldv. K is packed into tiles [E][mr] once per block and used by all query panels.
 * Few queries (decode): lanes would be empty, so keys are lanes for q k^T (K packed as a panel
 * [E][32 keys], the gemv slot) and columns are lanes for p v (the mix_values slot). Every sum has the
 * same terms in the same order in both forms, so they give the same bits.
 *
 * In bf16 mode q, k, p and v are rounded to bf16 and the tiles are those of vdpbf16ps: pairs along E for
 * q and k, pairs of keys for p and v. Scores, softmax, its sum and the running output stay f32. Where there
 * are tile registers (AMX), attention_tiles.c does it instead.
 *
 * Each lane meets its keys in the same blocks (64 counted from the start of its segment or
 * sequence) and in the same order, whoever shares the panel: a row's bits do not depend on it.
 *
 * Mirrors HF Qwen3VLVisionAttention (one segment per image or frame, no mask) and
 * Qwen3VLTextAttention (causal, GQA: query head h reads key head h / (H / G)).
 */
#include <math.h>

#include "kernels/cpu/cpu.h"

enum {
    KEYS = VL_KV_BLOCK,            /* keys of a block                                         */
    PANELS = 8,                    /* query panels that share a packed key block              */
    FEW = 8                        /* up to so many queries, keys are the lanes               */
};

/* One thread's share of an attention op: a group of up to PANELS panels of queries. */
typedef struct group {
    const vl_ukernels *k;
    vl_uk_gemm *gemm;              /* the tile: gemm_f32, in bf16 mode gemm_dpbf16            */
    bool few;                      /* keys are lanes                                          */
    bool pairs;                    /* bf16 mode: below, read E / 2 words for E, KEYS / 2 rows of p, values */
    int E, W, mr, lanes;           /* W: 32-bit words of a row of q or k; queries in the group */
    float *q;                      /* many: [PANELS][E][32] Q^T       few: [lanes][E]          */
    float *o;                      /* many: [PANELS][E][32] O^T       few: [lanes][E]          */
    float *keys;                   /* many: [KEYS / mr + 1][E][mr]    few: [2][E][32]          */
    float *values;                 /* [KEYS][E], when the rows of v are far apart             */
    float *rows;                   /* [32][E] queries or outputs of one panel                 */
    float *s;                      /* [KEYS][32] scores, then probabilities                    */
    float *p;                      /* s, in bf16 mode its pairs                                */
    float *round;                  /* bf16 mode: [KEYS] rounded rows of k, v or s              */
    float *m, *l, *fix;            /* [PANELS][32]                                             */
} group;

static size_t group_floats(int E) {
    size_t e = (size_t)E, n = 2 * PANELS * e * VL_NR + (KEYS + VL_MAX_MR) * e + KEYS * e +
                              VL_NR * e + (KEYS + VL_MAX_MR) * VL_NR + 3 * PANELS * VL_NR +
                              KEYS * (e + 2 * VL_NR);
    return (n + 15) & ~(size_t)15;
}

/* Carves thread `thread`'s group out of the scratch and empties its running state. */
static group group_at(float *scratch, int thread, const cpu_backend *b, int E, int lanes) {
    size_t e = (size_t)E, panels = (size_t)(lanes + VL_NR - 1) / VL_NR;
    group g = {.k = &b->k, .few = lanes <= FEW, .pairs = b->bf16, .E = E, .W = b->bf16 ? E / 2 : E,
               .lanes = lanes};
    g.gemm = g.pairs ? g.k->gemm_dpbf16 : g.k->gemm_f32;
    g.mr = g.k->tile[g.pairs ? VL_SLOT_gemm_dpbf16 : VL_SLOT_gemm_f32];
    g.q = scratch + (size_t)thread * group_floats(E);
    g.o = g.q + PANELS * e * VL_NR;
    g.s = g.o + PANELS * e * VL_NR;
    g.m = g.s + (KEYS + VL_MAX_MR) * VL_NR;
    g.l = g.m + PANELS * VL_NR;
    g.fix = g.l + PANELS * VL_NR;
    g.keys = g.fix + PANELS * VL_NR;
    g.values = g.keys + (KEYS + VL_MAX_MR) * e;
    g.rows = g.values + KEYS * e;
    g.round = g.rows + VL_NR * e;
    g.p = g.pairs ? g.round + KEYS * (e + VL_NR) : g.s;
    memset(g.o, 0, panels * e * VL_NR * sizeof(float));
    for (int i = 0; i < PANELS * VL_NR; i++) {
        g.m[i] = -INFINITY;
        g.l[i] = 0;
    }
    return g;
}

static int least(int a, int b) { return a < b ? a : b; }

/* The queries' rows are gathered in g->rows [lanes of one panel][E]; `many` then transposes them. */
typedef const float *query_fn(const void *arg, int lane);
typedef float *output_fn(const void *arg, int lane);

/* One row of n values as the products see it. */
static void put_row(const group *g, float *dst, const float *src, int n) {
    if (g->pairs) g->k->pack_pairs((uint32_t *)(void *)dst, src, 0, 1, n, 1);
    else memcpy(dst, src, (size_t)n * sizeof *dst);
}

static void put_queries(group *g, query_fn *row, const void *arg) {
    size_t W = (size_t)g->W;
    if (g->few) {
        for (int i = 0; i < g->lanes; i++) put_row(g, g->q + (size_t)i * W, row(arg, i), g->E);
        return;
    }
    for (int at = 0; at < g->lanes; at += VL_NR) {
        int n = least(g->lanes - at, VL_NR);
        for (int i = 0; i < n; i++) put_row(g, g->rows + (size_t)i * W, row(arg, at + i), g->E);
        g->k->pack_rows(g->q + (size_t)at * W, g->rows, W, n, g->W, VL_NR);
    }
}

/* out = o / l, as o * (1 / l) in both forms. */
static void get_outputs(group *g, output_fn *row, const void *arg) {
    size_t E = (size_t)g->E, bytes = E * sizeof(float);
    for (int i = 0; i < g->lanes; i++) g->fix[i] = 1.0f / g->l[i];
    for (int at = 0; at < g->lanes; at += VL_NR) {
        int n = least(g->lanes - at, VL_NR);
        const float *rows = g->o;
        if (g->few) {
            for (size_t i = 0; i < (size_t)n * E; i++) g->o[i] *= g->fix[i / E];
        } else {
            g->k->scale_lanes(g->o + (size_t)at * E, g->fix + at, g->E);
            g->k->pack_rows(g->rows, g->o + (size_t)at * E, VL_NR, g->E, VL_NR, g->E);
            rows = g->rows;
        }
        for (int i = 0; i < n; i++) memcpy(row(arg, at + i), rows + (size_t)i * E, bytes);
    }
}

/* The largest of n counts, at most `cap`. */
static int most_of(const int32_t *valid, int n, int cap) {
    int most = 0;
    for (int i = 0; i < n; i++)
        if (valid[i] > most) most = valid[i];
    return least(most, cap);
}

/* acc [rows][32] (+)= a [n][lda, rows] x panel [n][32], n terms split as the sums' order asks. */
static void tiles_times_panel(const group *g, float *acc, const float *a, size_t lda,
                              size_t tile_stride, const float *panel, int n, int rows, bool add) {
    int kc = g->pairs ? VL_KC_PAIRS : VL_KC;
    for (int r = 0; r < rows; r += g->mr)
        for (int k = 0; k < n; k += kc) {
            size_t step = (size_t)(g->pairs ? k / 2 : k);
            g->gemm(acc + r * VL_NR, a + (size_t)(r / g->mr) * tile_stride + step * lda, lda,
                    panel + step * VL_NR, least(n - k, kc), least(rows - r, g->mr), add || k > 0);
        }
}

/* dst = pairs of two rows of x [n][len] f32, rounded. */
static void pair_rows(const group *g, float *dst, const float *x, size_t ld, int n, int len) {
    for (int j = 0; j < n; j++) put_row(g, g->round + j * len / 2, x + (size_t)j * ld, len);
    g->k->pair_rows((uint32_t *)(void *)dst, (const uint16_t *)(void *)g->round, (size_t)len, n, len);
}

/* Rows of v as the second product wants them: packed pairs, or rows not too far apart; ld then is E. */
static const float *put_values(const group *g, const float *v, size_t *ld, int n) {
    if (g->pairs) pair_rows(g, g->values, v, *ld, n, g->E);
    else if (*ld == (size_t)g->E) return v;
    else /* rows a power of two apart would share a few sets of the cache */
        for (int j = 0; j < n; j++)
            memcpy(g->values + (size_t)j * (size_t)g->E, v + (size_t)j * *ld, (size_t)g->E * sizeof *v);
    *ld = (size_t)g->E;
    return g->values;
}

/* Rows of k, in bf16 mode rounded to dst; ld then is W words. */
static const float *put_keys(const group *g, float *dst, const float *k, size_t *ld, int n) {
    if (!g->pairs) return k;
    for (int j = 0; j < n; j++) put_row(g, dst + (size_t)j * (size_t)g->W, k + (size_t)j * *ld, g->E);
    *ld = (size_t)g->W;
    return dst;
}

/* Every panel of the group meets the n keys that keys and v hold in the form its products want. */
static void panels_meet(group *g, const float *v, size_t ldv, int n, const int32_t *valid, float scale) {
    int E = g->E;
    size_t W = (size_t)g->W, tile = W * (size_t)g->mr;
    for (int at = 0; at < g->lanes; at += VL_NR) {
        int lanes = least(g->lanes - at, VL_NR), most = most_of(valid + at, lanes, n);
        if (most == 0) continue;
        float *q = g->q + (size_t)at * W, *o = g->o + (size_t)at * (size_t)E;
        tiles_times_panel(g, g->s, g->keys, (size_t)g->mr, tile, q, E, most, false);
        g->k->softmax(g->s, most, lanes, valid + at, scale, g->m + at, g->l + at, g->fix + at);
        if (g->pairs) pair_rows(g, g->p, g->s, VL_NR, most, VL_NR);
        g->k->scale_lanes(o, g->fix + at, E);
        tiles_times_panel(g, o, v, ldv, (size_t)g->mr, g->p, most, E, true);
    }
}

/* k, v: rows of E with leading dimension ld. valid [lanes]: how many of these keys each query sees. */
static void many_meet_keys(group *g, const float *k, const float *v, size_t ld, int n,
                           const int32_t *valid, float scale) {
    int mr = g->mr;
    size_t tile = (size_t)g->W * (size_t)mr, ldk = ld, ldv = ld;
    k = put_keys(g, g->round, k, &ldk, n);
    for (int r = 0; r < n; r += mr)
        g->k->pack_rows(g->keys + (size_t)(r / mr) * tile, k + (size_t)r * ldk, ldk, least(n - r, mr),
                        g->W, mr);
    v = put_values(g, v, &ldv, n);
    panels_meet(g, v, ldv, n, valid, scale);
}

static void few_meet_keys(group *g, const float *k, const float *v, size_t ld, int n,
                          const int32_t *valid, float scale) {
    int E = g->E, most = most_of(valid, g->lanes, n);
    size_t W = (size_t)g->W, ldk = ld, ldv = ld;
    float scores[VL_GEMV_ROWS * VL_NR];
    k = put_keys(g, g->round, k, &ldk, most);
    for (int j = 0; j < most; j += VL_NR) {
        int keys = least(most - j, VL_NR);
        g->k->pack_rows(g->keys, k + (size_t)j * ldk, ldk, keys, g->W, VL_NR);
        for (int i = 0; i < g->lanes; i += VL_GEMV_ROWS) {
            int rows = least(g->lanes - i, VL_GEMV_ROWS);
            (g->pairs ? g->k->gemv_dpbf16 : g->k->gemv_f32)(scores, g->q + (size_t)i * W, W, g->keys, E, rows);
            for (int c = 0; c < keys; c++)
                for (int r = 0; r < rows; r++) g->s[(j + c) * VL_NR + i + r] = scores[r * VL_NR + c];
        }
    }
    g->k->softmax(g->s, most, g->lanes, valid, scale, g->m, g->l, g->fix);
    if (g->pairs) {
        v = put_values(g, v, &ldv, most);
        pair_rows(g, g->p, g->s, VL_NR, most, VL_NR);
    }
    for (int i = 0; i < g->lanes; i++) {
        float *o = g->o + (size_t)i * (size_t)E, *p = g->p + i;
        if (!g->pairs) g->k->mix_values(o, g->fix[i], p, v, ldv, most, E);
        else g->k->mix_pairs(o, g->fix[i], (uint32_t *)(void *)p, (const uint32_t *)(const void *)v,
                             (most + 1) / 2, E);
    }
}

static void meet_keys(group *g, const float *k, const float *v, size_t ld, int n,
                      const int32_t *valid, float scale) {
    if (g->few) few_meet_keys(g, k, v, ld, n, valid, scale);
    else many_meet_keys(g, k, v, ld, n, valid, scale);
}

/* ---- full attention inside segments (vision) -------------------------------------------------- */

typedef struct full_job {
    cpu_backend *b;
    float *out, *scratch;
    const float *qkv;
    const int32_t *cu;
    int n, H, E, most;             /* most: groups of the longest segment                      */
    float scale;
} full_job;

enum { GROUP_ROWS = PANELS * VL_NR };

/* Where the rows of one item start: q and out, and the distance between rows. */
typedef struct full_rows { const float *q; float *out; size_t ldq, ldo; } full_rows;
static const float *full_query(const void *arg, int lane) {
    const full_rows *r = arg;
    return r->q + (size_t)lane * r->ldq;
}
static float *full_output(const void *arg, int lane) {
    const full_rows *r = arg;
    return r->out + (size_t)lane * r->ldo;
}

static void full_item(void *arg, int item, int thread) {
    const full_job *j = arg;
    int part = item % j->most, head = item / j->most % j->H, seg = item / j->most / j->H;
    int begin = j->cu[seg], len = j->cu[seg + 1] - begin, row0 = part * GROUP_ROWS, E = j->E;
    if (row0 >= len) return;
    size_t plane = (size_t)j->H * (size_t)E, ld = 3 * plane, column = (size_t)head * (size_t)E;
    const float *q = j->qkv + (size_t)begin * ld + column;
    full_rows r = {q + (size_t)row0 * ld, j->out + (size_t)(begin + row0) * plane + column, ld, plane};
    group g = group_at(j->scratch, thread, j->b, E, least(len - row0, GROUP_ROWS));
    put_queries(&g, full_query, &r);
    for (int at = 0; at < len; at += KEYS) {
        int n = least(len - at, KEYS);
        int32_t valid[GROUP_ROWS];
        for (int i = 0; i < GROUP_ROWS; i++) valid[i] = n;
        const float *k = q + (size_t)at * ld + plane;
        meet_keys(&g, k, k + plane, ld, n, valid, j->scale);
    }
    get_outputs(&g, full_output, &r);
}

void cpu_attend_full(vl_backend *base, float *out, const float *qkv, const int32_t *cu, int n, int P,
                     int H, int E, float scale) {
    cpu_backend *b = cpu_of(base);
    vl_assert(n >= 0 && E > 0 && E % 2 == 0 && (n == 0 || cu[n] <= P), "n %d, E %d", n, E);
    full_job j = {b, out, NULL, qkv, cu, n, H, E, 0, scale};
    for (int i = 0; i < n; i++) {
        int groups = (cu[i + 1] - cu[i] + GROUP_ROWS - 1) / GROUP_ROWS;
        if (groups > j.most) j.most = groups;
    }
    pthread_mutex_lock(&b->lock);
    if (b->tiles) {
        cpu_tiles_attend_full(b, out, qkv, cu, n, P, H, E, scale);
        pthread_mutex_unlock(&b->lock);
        return;
    }
    j.scratch = cpu_scratch(b, group_floats(E) * (size_t)b->base.threads * sizeof(float));
    cpu_team_run(b->team, n * H * j.most, full_item, &j);
    pthread_mutex_unlock(&b->lock);
}

/* ---- causal attention over KV blocks (text) --------------------------------------------------- */

typedef struct causal_job {
    cpu_backend *b;
    const vl_causal_args *a;
    float *scratch;
    int parts, rows_per_part;
} causal_job;

/* Rows [r0, r1) of one sequence and the query heads of key head kv. Lane = row * heads + head. */
typedef struct causal_rows { const vl_causal_args *a; int r0, kv, heads; } causal_rows;
static const float *causal_query(const void *arg, int lane) {
    const causal_rows *r = arg;
    return r->a->q + (size_t)(r->r0 + lane / r->heads) * (size_t)r->a->ldq +
           (size_t)(r->kv * r->heads + lane % r->heads) * (size_t)r->a->E;
}
static float *causal_output(const void *arg, int lane) {
    const causal_rows *r = arg;
    return r->a->out + ((size_t)(r->r0 + lane / r->heads) * (size_t)r->a->H +
                        (size_t)(r->kv * r->heads + lane % r->heads)) * (size_t)r->a->E;
}

static void causal_run(const causal_job *j, int r0, int r1, int kv, int thread) {
    const vl_causal_args *a = j->a;
    int heads = a->H / a->G, lanes = (r1 - r0) * heads, longest = 0;
    causal_rows r = {a, r0, kv, heads};
    group g = group_at(j->scratch, thread, j->b, a->E, lanes);
    put_queries(&g, causal_query, &r);
    for (int i = r0; i < r1; i++)
        if (a->row_len[i] > longest) longest = a->row_len[i];
    const int32_t *table = a->table + (size_t)a->row_seq[r0] * (size_t)a->max_blocks;
    for (int at = 0; at < longest; at += KEYS) {
        int32_t valid[GROUP_ROWS];
        for (int i = 0; i < lanes; i++) {
            int n = a->row_len[r0 + i / heads] - at;
            valid[i] = n < 0 ? 0 : least(n, KEYS);
        }
        for (int i = lanes; i < GROUP_ROWS; i++) valid[i] = 0;
        size_t block = ((size_t)table[at / KEYS] * (size_t)a->G + (size_t)kv) * KEYS * (size_t)a->E;
        meet_keys(&g, (const float *)a->k_pool + block, (const float *)a->v_pool + block,
                  (size_t)a->E, least(longest - at, KEYS), valid, a->scale);
    }
    get_outputs(&g, causal_output, &r);
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

void cpu_attend_causal(vl_backend *base, const vl_causal_args *a) {
    cpu_backend *b = cpu_of(base);
    int heads = a->G > 0 ? a->H / a->G : 0;
    vl_assert(a->G > 0 && a->H == heads * a->G && heads <= GROUP_ROWS && a->E > 0 && a->E % 2 == 0,
              "H %d, G %d, E %d", a->H, a->G, a->E);
    pthread_mutex_lock(&b->lock);
    if (b->tiles) {
        cpu_tiles_attend_causal(b, a);
        pthread_mutex_unlock(&b->lock);
        return;
    }
    causal_job j = {b, a, NULL, 0, GROUP_ROWS / heads};
    j.parts = (a->T + j.rows_per_part - 1) / j.rows_per_part;
    j.scratch = cpu_scratch(b, group_floats(a->E) * (size_t)b->base.threads * sizeof(float));
    cpu_team_run(b->team, j.parts * a->G, causal_item, &j);
    pthread_mutex_unlock(&b->lock);
}
