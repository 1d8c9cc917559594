/* group.c: several GPUs as one backend (tensor parallelism): each op becomes one of each rank.
 *
 *   q, k, v, gate, up   a rank has the outputs of its heads, or of its share of F ("apart"), in rows of
 *                       that width, and all that follows up to o and down works on those alone
 *   o, down             the inputs are joined on every rank, then each computes its share of the
 *                       outputs, which are joined as well
 *   lm_head             each computes its share of the vocabulary, which is joined
 *   all else            the same on every rank
 *
 * Work is split by output, never along the sum (design rule 1.4): a rank's outputs are those of one
 * GPU to the last bit, joining only moves bytes, and so the answer does not depend on how many GPUs
 * there are. The usual split of o and down along their inputs joins once where this joins twice, and
 * adds up partial sums in an order of its own.
 *
 * A pointer that the model holds is rank 0's; at() finds the same place on another rank. Easy to get
 * wrong: what lies apart has other rows on each rank, so get() of it would give rank 0's alone. */
#include "kernels/cuda/group.h"

#include <stdio.h>
#include <stdlib.h>

enum { THREADS = 256, TILE = 16 };

#define ON(g, r, op, ...) (g)->rank[r]->base.ops->op(&(g)->rank[r]->base, __VA_ARGS__)

static cuda_group *group_of(vl_backend *b) { return (cuda_group *)(void *)b; }
static cuda_group *enter(vl_backend *b) {
    pthread_mutex_lock(&group_of(b)->lock);
    return group_of(b);
}
static void leave(cuda_group *g) { pthread_mutex_unlock(&g->lock); }

/* ---- memory ----------------------------------------------------------------------------------- */

/* Index of the first allocation that begins behind p. */
static size_t behind(const cuda_group *g, const void *p) {
    size_t lo = 0, hi = g->n_memory;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (g->memory[mid].at[0] <= (const uint8_t *)p) lo = mid + 1;
        else hi = mid;
    }
    return lo;
}

/* Where rank r has what the model knows as p. */
static void *at(const cuda_group *g, int r, const void *p) {
    if (!p) return NULL;
    size_t i = behind(g, p);
    const group_memory *m = i ? &g->memory[i - 1] : NULL;
    vl_assert(m && (const uint8_t *)p < m->at[0] + m->bytes, "%p is no memory of this backend", p);
    return m->at[r] + ((const uint8_t *)p - m->at[0]);
}

static void *group_alloc(vl_backend *base, size_t bytes) {
    cuda_group *g = enter(base);
    group_memory m = {.bytes = bytes ? bytes : 1};
    if (g->n_memory == g->cap_memory) {
        size_t cap = g->cap_memory ? g->cap_memory * 2 : 256;
        group_memory *p = vl_calloc(cap, sizeof *p);
        if (p && g->memory) memcpy(p, g->memory, g->n_memory * sizeof *p);
        if (p) {
            free(g->memory);
            g->memory = p;
            g->cap_memory = cap;
        }
    }
    bool ok = g->n_memory < g->cap_memory;
    EACH_RANK(g, r) ok = ok && (m.at[r] = ON(g, r, alloc, bytes));
    if (ok) {
        size_t i = behind(g, m.at[0]);
        memmove(g->memory + i + 1, g->memory + i, (g->n_memory++ - i) * sizeof m);
        g->memory[i] = m;
    } else {
        EACH_RANK(g, r) ON(g, r, release, m.at[r]);
    }
    leave(g);
    return ok ? m.at[0] : NULL;
}

static void group_release(vl_backend *base, void *p) {
    cuda_group *g = enter(base);
    size_t i = p ? behind(g, p) : 0;
    if (p) {
        vl_assert(i && g->memory[i - 1].at[0] == p, "%p was not allocated here", p);
        EACH_RANK(g, r) ON(g, r, release, g->memory[i - 1].at[r]);
        memmove(g->memory + i - 1, g->memory + i, (g->n_memory-- - i) * sizeof *g->memory);
    }
    leave(g);
}

/* Each rank needs a buffer of its own: what the fullest still has, less what the joined rows of products may
 * want (`part` and `full`, which grow with the rows of a pass). */
static size_t group_room(vl_backend *base) {
    cuda_group *g = enter(base);
    size_t least = SIZE_MAX;
    EACH_RANK(g, r) {
        enum { OWN = 64 << 20 };
        size_t room = g->rank[r]->base.ops->room(&g->rank[r]->base), own = g->part[r].bytes + g->full[r].bytes;
        size_t keep = own < OWN ? OWN - own : 0;
        if (room != SIZE_MAX) room = room > keep ? room - keep : 0;
        if (room < least) least = room;
    }
    leave(g);
    return least;
}

static void group_put(vl_backend *base, void *dst, const void *src, size_t bytes) {
    cuda_group *g = enter(base);
    EACH_RANK(g, r) if (bytes) ON(g, r, put, at(g, r, dst), src, bytes);
    leave(g);
}

static void group_get(vl_backend *base, void *dst, const void *src, size_t bytes) {
    cuda_group *g = enter(base);
    ON(g, 0, get, dst, src, bytes);
    leave(g);
}

static int group_sync(vl_backend *base, vl_err *err) {
    cuda_group *g = enter(base);
    int rc = 0;
    EACH_RANK(g, r) if (ON(g, r, sync, rc ? NULL : err)) rc = -1;
    leave(g);
    return rc;
}

/* ---- weights ---------------------------------------------------------------------------------- */

/* Which outputs each rank computes. Shares of joined outputs are whole tiles, so that a share of a
 * matrix that is there as a whole needs no copy. */
static int divide(const cuda_group *g, const vl_matrix *w, group_weight *p, vl_err *err) {
    int n = g->n, unit = w->unit > 0 ? w->unit : 1, apart = p->kind == GROUP_APART;
    int parts = (apart ? w->rows : w->cols) / unit;
    bool same = apart && unit > 1 && n % parts == 0; /* a key head that several ranks need */
    if (p->kind != GROUP_HEAD && parts % n && !same)
        return vl_fail(err, VL_E_UNSUPPORTED, "%.100s: %d %s cannot be shared by %d GPUs evenly; take a "
                       "number of GPUs (--gpus) that divides it", w->name, parts,
                       unit > 1 ? "heads" : "columns", n);
    p->share = apart ? cuda_up(parts, n) * unit : cuda_up(cuda_up(w->rows, n), TILE) * TILE;
    EACH_RANK(g, r) {
        int first = apart ? r * parts / n * unit : r * p->share;
        p->first[r] = first < w->rows ? first : w->rows;
        p->part[r] = *w;
        p->part[r].impl = NULL;
        p->part[r].data = (const uint8_t *)w->data + (size_t)p->first[r] * vl_matrix_row_bytes(w);
        p->part[r].rows = w->rows - p->first[r] < p->share ? w->rows - p->first[r] : p->share;
    }
    return 0;
}

/* The rank's share as a piece of its whole matrix. */
static void take_view(group_weight *p, int r) {
    size_t tile_row = (size_t)cuda_k_tiles(p->part[r].cols) * 512;
    p->view[r].tiles = (uint8_t *)cuda_tiles(&p->whole[r]) + (size_t)(p->first[r] / TILE) * tile_row;
    p->part[r].impl = &p->view[r];
}

static int prepare_rank(cuda_group *g, int r, group_weight *p, unsigned use, vl_err *err) {
    bool whole = p->kind == GROUP_WHOLE || use & VL_USE_GATHER;
    if (whole && ON(g, r, prepare, &p->whole[r], use, err)) return -1;
    if (p->kind == GROUP_WHOLE || p->part[r].rows == 0) return 0;
    if (!whole) return ON(g, r, prepare, &p->part[r], use, err);
    take_view(p, r);
    return 0;
}

static int group_prepare(vl_backend *base, vl_matrix *w, unsigned use, vl_err *err) {
    group_weight *p = vl_calloc(1, sizeof *p);
    if (!p) return vl_fail(err, VL_E_NOMEM, "no memory for %s", w->name);
    p->kind = use & VL_USE_APART ? GROUP_APART : use & VL_USE_JOIN ? GROUP_JOIN
            : use & VL_USE_HEAD ? GROUP_HEAD : GROUP_WHOLE;
    cuda_group *g = enter(base);
    p->next = g->weights;
    g->weights = p;
    w->impl = p;
    int rc = p->kind == GROUP_WHOLE ? 0 : divide(g, w, p, err);
    for (int r = 0; r < g->n && !rc; r++) {
        p->whole[r] = *w;
        p->whole[r].impl = NULL;
        rc = prepare_rank(g, r, p, use, err);
    }
    leave(g);
    return rc;
}

/* ---- columns of all ranks ----------------------------------------------------------------------- */

/* A launch of rank r that is neither fused nor a linear. */
static void launch(cuda_group *g, int r, cuda_kernel k, int T, const cuda_arg *args) {
    cuda_backend *b = g->rank[r];
    if (!cuda_enter(b)) return;
    cuda_drain(b);
    b->packed_x = NULL;
    cuda_launch(b, k, (size_t)T, 1, 1, THREADS, args);
    cuda_leave(b);
}

/* Room for so many floats on every rank. */
static bool reserve(cuda_group *g, cuda_buffer *buffer, size_t floats) {
    bool ok = true;
    EACH_RANK(g, r) if ((ok = ok && cuda_enter(g->rank[r]))) {
        ok = cuda_reserve(g->rank[r], &buffer[r], floats * sizeof(float));
        cuda_leave(g->rank[r]);
    }
    return ok;
}

static void place(cuda_group *g, int r, float *to, int ld, int T, int N, int share) {
    const float *part = g->part[r].p;
    launch(g, r, K_place_columns, T,
           CUDA_ARGS(CUDA_ARG(to), CUDA_ARG(ld), CUDA_ARG(part), CUDA_ARG(T), CUDA_ARG(N), CUDA_ARG(share)));
}

/* x: K / ranks columns on each rank -> all K in full[r]. One row needs no kernel. */
static bool spread(cuda_group *g, const float *x, int T, int K) {
    int share = K / g->n;
    cuda_gather part[CUDA_RANKS];
    if (!reserve(g, g->full, (size_t)T * (size_t)K) || (T > 1 && !reserve(g, g->part, (size_t)T * (size_t)K)))
        return false;
    EACH_RANK(g, r)
        part[r] = (cuda_gather){at(g, r, x), T > 1 ? g->part[r].p : g->full[r].p, (size_t)T * (size_t)share};
    cuda_group_gather(g, part);
    EACH_RANK(g, r) if (T > 1) place(g, r, g->full[r].p, K, T, K, share);
    return true;
}

/* out [T, rows of the matrix]: each rank's own columns -> all columns on every rank. */
static void join(cuda_group *g, float *out, int ldo, int T, const vl_matrix *w) {
    const group_weight *p = w->impl;
    int share = p->share;
    size_t block = (size_t)T * (size_t)share;
    bool direct = T == 1 && share * g->n == w->rows; /* in place */
    cuda_gather part[CUDA_RANKS];
    if (!direct && !reserve(g, g->part, block * (size_t)g->n)) return;
    EACH_RANK(g, r) {
        float *to = direct ? at(g, r, out) : g->part[r].p, *mine = to + (size_t)r * block;
        const float *from = (const float *)at(g, r, out) + p->first[r];
        int n = p->part[r].rows;
        part[r] = (cuda_gather){mine, to, block};
        if (!direct)
            launch(g, r, K_take_columns, T,
                   CUDA_ARGS(CUDA_ARG(mine), CUDA_ARG(from), CUDA_ARG(ldo), CUDA_ARG(n), CUDA_ARG(share)));
    }
    cuda_group_gather(g, part);
    EACH_RANK(g, r) if (!direct) place(g, r, at(g, r, out), ldo, T, w->rows, share);
}

static void group_linear(vl_backend *base, float *out, int ldo, const float *x, int ldx, int T,
                         const vl_matrix *w, const float *bias, vl_epilogue epi) {
    cuda_group *g = enter(base);
    const group_weight *p = w->impl;
    vl_assert(p && ldo >= w->rows && ldx >= w->cols, "%s: ldo %d, ldx %d", w->name, ldo, ldx);
    bool apart = p->kind == GROUP_APART, joined = p->kind == GROUP_JOIN, ok = T > 0;
    vl_assert(!(apart && ldo != w->rows) && !(joined && ldx != w->cols), "%s: rows that lie apart have no gaps",
              w->name);
    if (ok && joined) ok = spread(g, x, T, w->cols);
    for (int r = 0; ok && r < g->n; r++) {
        const vl_matrix *m = p->kind == GROUP_WHOLE ? &p->whole[r] : &p->part[r];
        int first = p->kind == GROUP_WHOLE ? 0 : p->first[r];
        float *to = (float *)at(g, r, out) + (apart ? 0 : first);
        const float *from = joined ? g->full[r].p : at(g, r, x);
        const float *b = bias ? (const float *)at(g, r, bias) + first : NULL;
        if (m->rows) ON(g, r, linear, to, apart ? m->rows : ldo, from, ldx, T, m, b, epi);
    }
    if (ok && !apart && p->kind != GROUP_WHOLE) join(g, out, ldo, T, w);
    leave(g);
}

/* ---- ops on the heads and the columns that lie apart ---------------------------------------------- */

static void group_qk_norm_rope(vl_backend *base, const vl_rope_kv_args *a) {
    cuda_group *g = enter(base);
    int H = a->H / g->n, G = vl_kv_heads(base, a->G);
    vl_assert(a->ldq == a->H * a->E && a->ldk == a->G * a->E && a->ldv == a->ldk,
              "rows that lie apart have no gaps");
    EACH_RANK(g, r) {
        vl_rope_kv_args b = {
            .q = at(g, r, a->q), .k = at(g, r, a->k), .v = at(g, r, a->v), .ldq = H * a->E, .ldk = G * a->E,
            .ldv = G * a->E, .q_norm = at(g, r, a->q_norm), .k_norm = at(g, r, a->k_norm), .eps = a->eps,
            .cos = at(g, r, a->cos), .sin = at(g, r, a->sin), .k_pool = at(g, r, a->k_pool),
            .v_pool = at(g, r, a->v_pool), .kv_slot = at(g, r, a->kv_slot), .T = a->T, .H = H, .G = G, .E = a->E};
        ON(g, r, qk_norm_rope, &b);
    }
    leave(g);
}

static void group_attend_causal(vl_backend *base, const vl_causal_args *a) {
    cuda_group *g = enter(base);
    int H = a->H / g->n;
    vl_assert(a->ldq == a->H * a->E, "rows that lie apart have no gaps");
    EACH_RANK(g, r) {
        vl_causal_args b = *a;
        b.out = at(g, r, a->out), b.q = at(g, r, a->q), b.ldq = H * a->E;
        b.k_pool = at(g, r, a->k_pool), b.v_pool = at(g, r, a->v_pool), b.table = at(g, r, a->table);
        b.row_seq = at(g, r, a->row_seq), b.row_len = at(g, r, a->row_len);
        b.H = H, b.G = vl_kv_heads(base, a->G);
        ON(g, r, attend_causal, &b);
    }
    leave(g);
}

static void group_swiglu(vl_backend *base, float *out, const float *gate, const float *up, int T, int F) {
    cuda_group *g = enter(base);
    EACH_RANK(g, r) ON(g, r, swiglu, at(g, r, out), at(g, r, gate), at(g, r, up), T, F / g->n);
    leave(g);
}

/* ---- ops that every rank does alike ---------------------------------------------------------------- */

static void group_embed(vl_backend *base, float *out, const vl_matrix *table, const int32_t *ids, int T) {
    cuda_group *g = enter(base);
    const group_weight *p = table->impl;
    EACH_RANK(g, r) ON(g, r, embed, at(g, r, out), &p->whole[r], at(g, r, ids), T);
    leave(g);
}

static void group_pos_embed(vl_backend *base, float *out, const vl_matrix *table, const int32_t *idx,
                            const float *weight, int P) {
    cuda_group *g = enter(base);
    const group_weight *p = table->impl;
    EACH_RANK(g, r) ON(g, r, pos_embed, at(g, r, out), &p->whole[r], at(g, r, idx), at(g, r, weight), P);
    leave(g);
}

static void group_layernorm(vl_backend *base, float *out, const float *x, const float *w, const float *bias,
                            int T, int D, float eps) {
    cuda_group *g = enter(base);
    EACH_RANK(g, r) ON(g, r, layernorm, at(g, r, out), at(g, r, x), at(g, r, w), at(g, r, bias), T, D, eps);
    leave(g);
}

static void group_rmsnorm(vl_backend *base, float *out, const float *x, const float *w, int T, int D,
                          float eps) {
    cuda_group *g = enter(base);
    EACH_RANK(g, r) ON(g, r, rmsnorm, at(g, r, out), at(g, r, x), at(g, r, w), T, D, eps);
    leave(g);
}

static void group_rope_vision(vl_backend *base, float *qkv, const float *cos, const float *sin, int P,
                              int H, int E) {
    cuda_group *g = enter(base);
    EACH_RANK(g, r) ON(g, r, rope_vision, at(g, r, qkv), at(g, r, cos), at(g, r, sin), P, H, E);
    leave(g);
}

static void group_attend_full(vl_backend *base, float *out, const float *qkv, const int32_t *cu, int n, int P,
                              int H, int E, float scale) {
    cuda_group *g = enter(base);
    EACH_RANK(g, r) ON(g, r, attend_full, at(g, r, out), at(g, r, qkv), at(g, r, cu), n, P, H, E, scale);
    leave(g);
}

static void group_copy_rows(vl_backend *base, float *dst, const int32_t *dst_idx, const float *src,
                            const int32_t *src_idx, int n, int D) {
    cuda_group *g = enter(base);
    EACH_RANK(g, r)
        ON(g, r, copy_rows, at(g, r, dst), at(g, r, dst_idx), at(g, r, src), at(g, r, src_idx), n, D);
    leave(g);
}

static void group_add_rows(vl_backend *base, float *dst, const int32_t *dst_idx, const float *src,
                           const int32_t *src_idx, int n, int D) {
    cuda_group *g = enter(base);
    EACH_RANK(g, r)
        ON(g, r, add_rows, at(g, r, dst), at(g, r, dst_idx), at(g, r, src), at(g, r, src_idx), n, D);
    leave(g);
}

/* Rank 0 alone: get() asks no other. */
static void group_argmax(vl_backend *base, int32_t *ids, const float *logits, int T, int V) {
    cuda_group *g = enter(base);
    ON(g, 0, argmax, ids, logits, T, V);
    leave(g);
}

static void group_tap(vl_backend *b, const char *name, int layer, const float *x, int rows, int cols) {
    (void)b, (void)name, (void)layer, (void)x, (void)rows, (void)cols;
}

/* ---- opening ------------------------------------------------------------------------------------- */

static void group_close(vl_backend *base) {
    cuda_group *g = group_of(base);
    bool fault = false;
    EACH_RANK(g, r) if (g->rank[r] && ON(g, r, sync, NULL)) fault = true; /* else nothing is under way */
    EACH_RANK(g, r) if (g->rank[r]) cuda_drop_graphs(g->rank[r]); /* NCCL waits for those with collectives */
    cuda_nccl_close(&g->nccl, fault);
    EACH_RANK(g, r) if (g->rank[r]) {
        cuda_backend *b = g->rank[r];
        b->d.CtxSetCurrent(b->context);
        if (g->part[r].p) b->d.MemFree((uintptr_t)g->part[r].p);
        if (g->full[r].p) b->d.MemFree((uintptr_t)g->full[r].p);
        b->base.ops->close(&b->base);
    }
    while (g->weights) {
        group_weight *p = g->weights;
        g->weights = p->next;
        free(p);
    }
    free(g->memory);
    pthread_mutex_destroy(&g->lock);
    free(g);
}

/* Products take rows as they are. */
static bool group_only_linear(vl_backend *b, const float *buf, size_t n) {
    (void)b, (void)buf, (void)n;
    return false;
}

static const vl_ops GROUP_OPS = {
    .alloc = group_alloc, .release = group_release, .room = group_room, .put = group_put, .get = group_get,
    .prepare = group_prepare, .sync = group_sync, .only_linear = group_only_linear, .embed = group_embed,
    .linear = group_linear, .layernorm = group_layernorm, .rmsnorm = group_rmsnorm,
    .qk_norm_rope = group_qk_norm_rope, .rope_vision = group_rope_vision,
    .attend_full = group_attend_full, .attend_causal = group_attend_causal, .swiglu = group_swiglu,
    .copy_rows = group_copy_rows, .add_rows = group_add_rows, .pos_embed = group_pos_embed,
    .argmax = group_argmax, .tap = group_tap, .close = group_close,
};

/* The same bits on every rank take the same code on every rank. */
static int check_alike(const cuda_group *g, vl_err *err) {
    const cuda_backend *a = g->rank[0];
    EACH_RANK(g, r)
        if (strcmp(g->rank[r]->name, a->name) || g->rank[r]->arch != a->arch)
            return vl_fail(err, VL_E_BACKEND, "GPU %d is a %.60s, GPU 0 a %.60s: GPUs that work together "
                           "must be alike; choose them with CUDA_VISIBLE_DEVICES", r, g->rank[r]->name, a->name);
    return 0;
}

int cuda_group_open(vl_backend **out, int n, vl_err *err) {
    int devices[CUDA_RANKS], rc = 0;
    cuda_group *g = vl_calloc(1, sizeof *g);
    if (!g) return vl_fail(err, VL_E_NOMEM, "no memory for the CUDA backend");
    snprintf(g->name, sizeof g->name, "cuda:%d", n);
    g->ops = GROUP_OPS;
    g->ops.name = g->name;
    g->base = (vl_backend){.ops = &g->ops, .threads = 0, .dtype = "bf16", .ranks = n, .kv_elem = 2};
    g->n = n;
    pthread_mutex_init(&g->lock, NULL);
    for (int r = 0; r < n && !rc; r++) rc = cuda_open(&g->rank[r], devices[r] = r, err);
    if (rc || check_alike(g, err) || cuda_nccl_open(&g->nccl, n, devices, err)) {
        group_close(&g->base);
        return -1;
    }
    g->base.forms = g->rank[0]->base.forms;
    EACH_RANK(g, r) g->rank[r]->group = g;
    g->base.device = g->rank[0]->described; /* check_alike: the others are the same */
    *out = &g->base;
    return 0;
}
