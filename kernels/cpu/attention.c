/* attention.c: softmax(q k^T * scale) v with an online softmax, so memory is O(rows) and no
 * [P, P] matrix exists. Keys come in blocks of 64. Many queries (a picture, a prompt): queries are
 * lanes, 32 to a panel:
 *
 *   S^T [keys][32] = K block [keys, E] x Q^T panel [E][32]       the gemm_f32 tile, rows = keys
 *   p, m, l, fix   = softmax step, lane by lane                  the softmax slot
 *   O^T [E][32]    = O^T * fix + V^T [E, keys] x P^T [keys][32]  the gemm_f32 tile, rows = E
 *
 * V needs no transposing: row e of V^T at key k is v[k * ldv + e], which is the packed-tile form
 * with lda = ldv. K is packed into tiles [E][mr] once per block and used by all query panels; KV
 * pools hold it transposed (cpu.h), which is such a form already.
 * Few queries (decode): a panel of lanes would be all but empty, so keys are lanes for q k^T (the
 * score_keys slot, on panels of keys as the pool has them) and columns are lanes for p v (the mix_values
 * slot); the softmax takes rows of several sequences and key heads together. Every sum has the
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
    FEW = VL_GEMV_ROWS             /* up to so many queries of a sequence, keys are the lanes */
};

/* One thread's share of an attention op: a group of up to PANELS panels of queries. */
typedef struct group {
    const vl_ukernels *k;
    vl_uk_gemm *gemm;              /* the tile: gemm_f32, in bf16 mode gemm_dpbf16            */
    bool pairs;                    /* bf16 mode: below, read E / 2 words for E, KEYS / 2 rows of p, values */
    int E, W, mr, lanes;           /* W: 32-bit words of a row of q or k; queries in the group */
    float *q;                      /* many: [PANELS][E][32] Q^T       few: [lanes][E]          */
    float *o;                      /* many: [PANELS][E][32] O^T       few: [lanes][E]          */
    float *keys;                   /* vision: [KEYS / mr + 1][E][mr]; text reads the pool's    */
    float *values;                 /* vision: [KEYS][E] rows of v side by side, or their pairs */
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

static int least(int a, int b) { return a < b ? a : b; }
static int whole_panels(int lanes) { return (lanes + VL_NR - 1) / VL_NR * VL_NR; }

/* Carves thread `thread`'s group out of the scratch and empties its running state; `room` lanes have outputs. */
static group group_at(float *scratch, int thread, const cpu_backend *b, int E, int lanes, int room) {
    size_t e = (size_t)E;
    group g = {.k = &b->k, .pairs = b->bf16, .E = E, .W = b->bf16 ? E / 2 : E,
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
    memset(g.o, 0, (size_t)room * e * sizeof(float));
    for (int i = 0; i < whole_panels(lanes); i++) {
        g.m[i] = -INFINITY;
        g.l[i] = 0;
    }
    return g;
}

/* The queries' rows are gathered in g->rows [lanes of one panel][E] and transposed. */
typedef const float *query_fn(const void *arg, int lane);
typedef float *output_fn(const void *arg, int lane);

/* One row of n values as the products see it. */
static void put_row(const group *g, float *dst, const float *src, int n) {
    if (g->pairs) g->k->pack_pairs((uint32_t *)(void *)dst, src, 0, 1, n, 1);
    else memcpy(dst, src, (size_t)n * sizeof *dst);
}

static void put_queries(group *g, query_fn *row, const void *arg) {
    size_t W = (size_t)g->W;
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
        g->k->scale_lanes(g->o + (size_t)at * E, g->fix + at, g->E);
        g->k->pack_rows(g->rows, g->o + (size_t)at * E, VL_NR, g->E, VL_NR, g->E);
        for (int i = 0; i < n; i++) memcpy(row(arg, at + i), g->rows + (size_t)i * E, bytes);
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

/* Keys as rows of tiles: the first 32 or all of a block lie in tiles `tile` words apart, terms `lda` words apart;
 * what follows them, `next` words on. */
typedef struct key_tiles { const float *at; size_t lda, tile, next; int run; } key_tiles;

/* Rows of k, ld apart, packed. */
static key_tiles pack_keys(const group *g, const float *k, size_t ld, int n) {
    int mr = g->mr;
    size_t W = (size_t)g->W, tile = W * (size_t)mr;
    for (int j = 0; j < n && g->pairs; j++) put_row(g, g->round + (size_t)j * W, k + (size_t)j * ld, g->E);
    if (g->pairs) k = g->round, ld = W;
    for (int r = 0; r < n; r += mr)
        g->k->pack_rows(g->keys + (size_t)(r / mr) * tile, k + (size_t)r * ld, ld, least(n - r, mr), g->W, mr);
    return (key_tiles){g->keys, (size_t)mr, tile, 0, KEYS};
}

/* Panels of keys of a pool. */
static key_tiles pool_keys(const group *g, const float *k) {
    return (key_tiles){k, VL_NR, (size_t)g->mr, (size_t)g->W * VL_NR, VL_NR};
}

/* Every panel of the group meets n keys; v: rows in the form that the second product wants. valid [lanes]: how
 * many of these keys each query sees. */
static void panels_meet(group *g, key_tiles k, const float *v, size_t ldv, int n, const int32_t *valid, float scale) {
    int E = g->E;
    size_t W = (size_t)g->W;
    for (int at = 0; at < g->lanes; at += VL_NR) {
        int lanes = least(g->lanes - at, VL_NR), most = most_of(valid + at, lanes, n);
        if (most == 0) continue;
        float *q = g->q + (size_t)at * W, *o = g->o + (size_t)at * (size_t)E;
        for (int r = 0; r < most; r += k.run)
            tiles_times_panel(g, g->s + r * VL_NR, k.at + (size_t)(r / k.run) * k.next, k.lda, k.tile, q, E,
                              least(most - r, k.run), false);
        g->k->softmax(g->s, most, lanes, valid + at, scale, g->m + at, g->l + at, g->fix + at);
        if (g->pairs) pair_rows(g, g->p, g->s, VL_NR, most, VL_NR);
        g->k->scale_lanes(o, g->fix + at, E);
        tiles_times_panel(g, o, v, ldv, (size_t)g->mr, g->p, most, E, true);
    }
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
    int lanes = least(len - row0, GROUP_ROWS);
    group g = group_at(j->scratch, thread, j->b, E, lanes, whole_panels(lanes));
    put_queries(&g, full_query, &r);
    for (int at = 0; at < len; at += KEYS) {
        int n = least(len - at, KEYS);
        int32_t valid[GROUP_ROWS];
        for (int i = 0; i < GROUP_ROWS; i++) valid[i] = n;
        const float *k = q + (size_t)at * ld + plane;
        size_t ldv = ld;
        key_tiles keys = pack_keys(&g, k, ld, n);
        const float *v = put_values(&g, k + plane, &ldv, n);
        panels_meet(&g, keys, v, ldv, n, valid, j->scale);
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

/* Rows [r0, r1) of one sequence. */
typedef struct run { int r0, r1; } run;

/* Items: first parts of rows and their long runs, key head by key head; then the short runs, `per` of them and of
 * key heads together. */
typedef struct causal_job {
    cpu_backend *b;
    const vl_causal_args *a;
    float *scratch;
    int parts, rows_per_part, heads;
    run *few;                      /* the short runs                                          */
    int n_few, per;
} causal_job;

/* The query heads of key head kv of rows from r0 on. Lane = row * heads + head. */
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

/* The keys that the run's longest row sees. */
static int keys_of(const vl_causal_args *a, run r) {
    int most = 0;
    for (int i = r.r0; i < r.r1; i++)
        if (a->row_len[i] > most) most = a->row_len[i];
    return most;
}

/* Of the keys from `at` on, how many each lane of the run sees in their block. */
static void see_keys(const vl_causal_args *a, run r, int heads, int at, int32_t *valid) {
    for (int i = 0; i < (r.r1 - r.r0) * heads; i++) {
        int n = a->row_len[r.r0 + i / heads] - at;
        valid[i] = n < 0 ? 0 : least(n, KEYS);
    }
}

/* The block of keys from `at` on of the run in a pool. */
static const float *block_at(const causal_job *j, const void *pool, run r, int kv, int at) {
    const vl_causal_args *a = j->a;
    const int32_t *table = a->table + (size_t)a->row_seq[r.r0] * (size_t)a->max_blocks;
    return (const float *)pool + cpu_kv_at(table[at / KEYS], kv, a->G, j->b->bf16 ? a->E / 2 : a->E);
}

static void many_queries(const causal_job *j, run r, int kv, int thread) {
    const vl_causal_args *a = j->a;
    int lanes = (r.r1 - r.r0) * j->heads, longest = keys_of(a, r);
    causal_rows rows = {a, r.r0, kv, j->heads};
    group g = group_at(j->scratch, thread, j->b, a->E, lanes, whole_panels(lanes));
    put_queries(&g, causal_query, &rows);
    for (int at = 0; at < longest; at += KEYS) {
        int32_t valid[GROUP_ROWS] = {0};
        see_keys(a, r, j->heads, at, valid);
        panels_meet(&g, pool_keys(&g, block_at(j, a->k_pool, r, kv, at)), block_at(j, a->v_pool, r, kv, at), (size_t)a->E,
                    least(longest - at, KEYS), valid, a->scale);
    }
    get_outputs(&g, causal_output, &rows);
}

/* A short run and a key head: lanes from `lane` on of a group of few queries. */
typedef struct unit { run r; int kv, lane, lanes, keys; } unit;

/* The unit's lanes meet n keys of k: columns of scores. next: the keys or values that come after them. */
static void few_scores(group *g, const unit *u, const float *k, int n, const float *next) {
    size_t W = (size_t)g->W;
    const float *q = g->q + (size_t)u->lane * W;
    float scores[VL_GEMV_ROWS * VL_NR];
    if (!g->pairs) {
        g->k->score_keys(g->s + u->lane, q, W, k, n, g->E, u->lanes, next);
        return;
    }
    for (int i = 0; i < n; i += VL_NR, k += W * VL_NR) {
        g->k->gemv_dpbf16(scores, q, W, k, g->E, u->lanes);
        for (int c = 0; c < least(n - i, VL_NR); c++)
            for (int l = 0; l < u->lanes; l++) g->s[(i + c) * VL_NR + u->lane + l] = scores[l * VL_NR + c];
    }
}

/* The unit's outputs take their share of n rows of v. */
static void few_values(group *g, const unit *u, const float *v, int n, const float *next) {
    size_t E = (size_t)g->E;
    float *o = g->o + (size_t)u->lane * E, *p = g->p + u->lane, *fix = g->fix + u->lane;
    if (!g->pairs) {
        g->k->mix_values(o, fix, p, v, E, n, g->E, u->lanes, next);
        return;
    }
    for (int i = 0; i < u->lanes; i++, o += g->E)
        g->k->mix_pairs(o, fix[i], (uint32_t *)(void *)(p + i), (const uint32_t *)(const void *)v, (n + 1) / 2, g->E);
}

static void few_output(const group *g, const unit *u, const causal_rows *rows) {
    for (int i = 0; i < u->lanes; i++) {
        const float *o = g->o + (size_t)(u->lane + i) * (size_t)g->E, part = 1.0f / g->l[u->lane + i];
        float *out = causal_output(rows, i);
        for (int e = 0; e < g->E; e++) out[e] = o[e] * part;
    }
}

/* The unit's block of keys from `at` on in a pool; NULL: it has none there. */
static const float *unit_block(const causal_job *j, const void *pool, const unit *u, int at) {
    return u->keys > at ? block_at(j, pool, u->r, u->kv, at) : NULL;
}

/* All units meet their keys from `at` on, `most` at most. */
static void few_meet(group *g, const causal_job *j, const unit *units, int n, int at, int most) {
    const vl_causal_args *a = j->a;
    int32_t valid[VL_NR] = {0};
    const unit *u[VL_NR];
    int live = 0;
    for (int i = 0; i < n; i++) {
        see_keys(a, units[i].r, j->heads, at, valid + units[i].lane);
        if (units[i].keys > at) u[live++] = &units[i];
    }
    for (int i = 0; i < live; i++)
        few_scores(g, u[i], unit_block(j, a->k_pool, u[i], at), least(u[i]->keys - at, KEYS),
                   i + 1 < live ? unit_block(j, a->k_pool, u[i + 1], at) : unit_block(j, a->v_pool, u[0], at));
    g->k->softmax(g->s, most, g->lanes, valid, a->scale, g->m, g->l, g->fix);
    if (g->pairs) pair_rows(g, g->p, g->s, VL_NR, most, VL_NR);
    for (int i = 0; i < live; i++)
        few_values(g, u[i], unit_block(j, a->v_pool, u[i], at), least(u[i]->keys - at, KEYS),
                   i + 1 < live ? unit_block(j, a->v_pool, u[i + 1], at) : unit_block(j, a->k_pool, u[0], at + KEYS));
}

static void few_queries(const causal_job *j, int first, int n, int thread) {
    const vl_causal_args *a = j->a;
    unit units[VL_NR];
    int lanes = 0, longest = 0;
    for (int i = 0; i < n; i++, lanes += units[i - 1].lanes) {
        run r = j->few[(first + i) % j->n_few];
        units[i] = (unit){r, (first + i) / j->n_few, lanes, (r.r1 - r.r0) * j->heads, keys_of(a, r)};
        if (units[i].keys > longest) longest = units[i].keys;
    }
    group g = group_at(j->scratch, thread, j->b, a->E, lanes, lanes);
    for (int i = 0; i < n; i++)
        for (int l = 0; l < units[i].lanes; l++)
            put_row(&g, g.q + (size_t)(units[i].lane + l) * (size_t)g.W,
                    causal_query(&(causal_rows){a, units[i].r.r0, units[i].kv, j->heads}, l), a->E);
    for (int at = 0; at < longest; at += KEYS) few_meet(&g, j, units, n, at, least(longest - at, KEYS));
    for (int i = 0; i < n; i++) few_output(&g, &units[i], &(causal_rows){a, units[i].r.r0, units[i].kv, j->heads});
}

/* The next run of rows [from, end). */
static run run_from(const vl_causal_args *a, int from, int end) {
    run r = {from, from + 1};
    while (r.r1 < end && a->row_seq[r.r1] == a->row_seq[from]) r.r1++;
    return r;
}
static bool is_few(const causal_job *j, run r) { return (r.r1 - r.r0) * j->heads <= FEW; }

static void causal_item(void *arg, int item, int thread) {
    const causal_job *j = arg;
    const vl_causal_args *a = j->a;
    int long_items = j->parts * a->G, first = (item - long_items) * j->per;
    if (item >= long_items) {
        few_queries(j, first, least(j->n_few * a->G - first, j->per), thread);
        return;
    }
    int part = j->parts - 1 - item / a->G, kv = item % a->G; /* the longest rows first */
    int end = least((part + 1) * j->rows_per_part, a->T);
    for (run r = {0, part * j->rows_per_part}; r.r1 < end;) {
        r = run_from(a, r.r1, end);
        if (!is_few(j, r)) many_queries(j, r, kv, thread);
    }
}

/* Finds the short runs. They are put together until the lanes of a vector or two are full, as long as every
 * thread gets some. */
static void find_few(causal_job *j) {
    const vl_causal_args *a = j->a;
    int widest = 1, threads = j->b->base.threads;
    bool any_long = false;
    for (int part = 0; part < j->parts; part++) {
        int end = least((part + 1) * j->rows_per_part, a->T);
        for (run r = {0, part * j->rows_per_part}; r.r1 < end;) {
            r = run_from(a, r.r1, end);
            any_long |= !is_few(j, r);
            if (!is_few(j, r)) continue;
            j->few[j->n_few++] = r;
            if (r.r1 - r.r0 > widest) widest = r.r1 - r.r0;
        }
    }
    if (!any_long) j->parts = 0;
    j->per = least(VL_NR / (widest * j->heads), (j->n_few * a->G + threads - 1) / threads);
    if (j->per < 1) j->per = 1;
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
    causal_job j = {.b = b, .a = a, .rows_per_part = GROUP_ROWS / heads, .heads = heads};
    j.parts = (a->T + j.rows_per_part - 1) / j.rows_per_part;
    size_t groups = group_floats(a->E) * (size_t)b->base.threads;
    j.scratch = cpu_scratch(b, groups * sizeof(float) + (size_t)a->T * sizeof(run));
    j.few = (run *)(void *)(j.scratch + groups);
    find_few(&j);
    cpu_team_run(b->team, j.parts * a->G + (j.n_few * a->G + j.per - 1) / j.per, causal_item, &j);
    pthread_mutex_unlock(&b->lock);
}
