/* ops_cpu.c: the CPU instance of the op table. Memory, threads and the row-wise ops live here; the
 * arithmetic is in the leaf kernels that start-up chose (ukernels.h), linear.c and attention.c.
 *
 * Threads: every op is cut into items (panels of columns, tiles of rows, heads) that the team of
 * team.h takes one by one; a lock keeps two sessions from fighting over the cores.
 */
#include <math.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "kernels/cpu/cpu.h"
#include "kernels/kernels_info.h"
#include "kernels/threads.h"

/* ---- memory ----------------------------------------------------------------------------------- */

/* VL_PAGES=hugetlb, an experiment of `vitreous bench`: from the pool of /proc/sys/vm/nr_hugepages,
 * as long as that has room. */
static const size_t HUGE = (size_t)2 << 20;
static void *hugetlb_pages(size_t bytes) {
    const char *pages = getenv("VL_PAGES");
    if (!pages || strcmp(pages, "hugetlb")) return MAP_FAILED;
    return mmap(NULL, (bytes + HUGE - 1) & ~(HUGE - 1), PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
}

void *cpu_pages(size_t bytes) {
    void *p = hugetlb_pages(bytes);
    if (p != MAP_FAILED) return p;
    p = mmap(NULL, bytes ? bytes : 1, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) return NULL;
    const char *huge = getenv("VL_HUGE");
    if (!huge || strcmp(huge, "0")) madvise(p, bytes, MADV_HUGEPAGE); /* a hint; some kernels have none */
    return p;
}

void cpu_pages_free(void *p, size_t bytes) {
    if (munmap(p, bytes)) munmap(p, (bytes + HUGE - 1) & ~(HUGE - 1)); /* hugetlb: whole pages only */
}

void *cpu_scratch(cpu_backend *b, size_t bytes) {
    if (bytes <= b->scratch_bytes) return b->scratch;
    if (b->scratch) cpu_pages_free(b->scratch, b->scratch_bytes);
    b->scratch_bytes = bytes;
    b->scratch = cpu_pages(bytes);
    vl_assert(b->scratch, "no memory for %zu bytes of scratch", bytes);
    return b->scratch;
}

/* A pool takes memory only where it is touched. Large ones are pages of their own, huge where they can
 * be: rows of a wide activation lie a page apart, so with small pages a tile of 12 rows is 12 misses of the
 * TLB. What was allocated stands just before the aligned pointer: where it starts and, for pages, its size. */
enum { OWN_PAGES = 4 << 20 };
typedef struct allocation { void *raw; size_t pages, bytes; } allocation;

/* Pages are given when they are touched, and what the system would swap is not known here. */
static size_t cpu_room(vl_backend *b) {
    (void)b;
    return SIZE_MAX;
}

static void *cpu_alloc(vl_backend *b, size_t bytes) {
    (void)b;
    size_t size, pages = 0;
    if (!vl_add_ok(bytes, 64 + sizeof(allocation), &size)) return NULL;
    if (size >= OWN_PAGES) pages = size;
    uint8_t *raw = pages ? cpu_pages(size) : vl_calloc(size, 1);
    if (!raw) return NULL;
    allocation *p = (allocation *)(void *)(((uintptr_t)raw + sizeof(allocation) + 63) & ~(uintptr_t)63);
    p[-1] = (allocation){raw, pages, bytes};
    return p;
}

/* Spans of memory that only linear reads: a few for each session. */
static bool cpu_only_linear(vl_backend *base, const float *buf, size_t n) {
    cpu_backend *b = cpu_of(base);
    if (!b->tiles || b->bits) return false;
    if (!buf) return true;
    pthread_mutex_lock(&b->lock);
    struct cpu_span *more = realloc(b->only_linear, (size_t)(b->only_linears + 1) * sizeof *more);
    if (more) { /* without it: floats, as they are everywhere else */
        b->only_linear = more;
        more[b->only_linears++] = (struct cpu_span){buf, n, false};
    }
    pthread_mutex_unlock(&b->lock);
    return true;
}

bool cpu_kept(const cpu_backend *b, const float *buf, int K) {
    for (int i = 0; i < b->only_linears; i++) {
        struct cpu_span *s = &b->only_linear[i];
        if (buf < s->at || buf >= s->at + s->n) continue;
        vl_assert(buf == s->at, "rows that only linear reads are used from the middle");
        if (K % 32 == 0) s->tiles = true; /* the caller writes them, or is linear */
        return K % 32 == 0;
    }
    return false;
}

static size_t cpu_elem(vl_backend *base, const float *buf, int cols) {
    cpu_backend *b = cpu_of(base);
    pthread_mutex_lock(&b->lock);
    size_t bytes = cpu_kept(b, buf, cols) ? sizeof(uint16_t) : sizeof(float);
    pthread_mutex_unlock(&b->lock);
    return bytes;
}

static void forget_spans(cpu_backend *b, const void *p, size_t bytes) {
    uintptr_t from = (uintptr_t)p, end = from + bytes;
    int kept = 0;
    pthread_mutex_lock(&b->lock);
    for (int i = 0; i < b->only_linears; i++) {
        uintptr_t at = (uintptr_t)b->only_linear[i].at;
        if (at < from || at >= end) b->only_linear[kept++] = b->only_linear[i];
    }
    b->only_linears = kept;
    pthread_mutex_unlock(&b->lock);
}

static void cpu_release(vl_backend *b, void *p) {
    if (!p) return;
    allocation a = ((allocation *)p)[-1];
    forget_spans(cpu_of(b), p, a.bytes);
    if (a.pages) cpu_pages_free(a.raw, a.pages);
    else free(a.raw);
}
static void cpu_copy(vl_backend *b, void *dst, const void *src, size_t bytes) {
    (void)b;
    if (bytes) memcpy(dst, src, bytes);
}
static int cpu_sync(vl_backend *b, vl_err *err) {
    (void)b, (void)err;
    return 0;
}
static void cpu_tap(vl_backend *b, const char *name, int layer, const float *x, int rows, int cols) {
    (void)b, (void)name, (void)layer, (void)x, (void)rows, (void)cols;
}

/* ---- row-wise ops: every item is a chunk of rows ------------------------------------------------ */

enum {
    CHUNK = 8192,                  /* work of an item: less is not worth waking a thread for, 0.4 us */
    MOVE = 1, MAKE = 8             /* work in an element that is moved, and in one of a norm, rope or swiglu */
};

typedef struct rows_job {
    const vl_ukernels *k;
    float *out;
    const float *a, *b, *c;
    const int32_t *dst_idx, *src_idx;
    const vl_matrix *table;
    const vl_rope_kv_args *rope;
    int n, cols, work, per_item, heads; /* work: of an element                              */
    int together;                       /* of so many rows outputs share lines; 0: of one     */
    float eps;
    bool pairs;                         /* rope: the pools are bf16                           */
    void (*row)(const struct rows_job *j, size_t row);
} rows_job;

static void rows_item(void *arg, int item, int thread) {
    const rows_job *j = arg;
    int r0 = item * j->per_item, r1 = r0 + j->per_item < j->n ? r0 + j->per_item : j->n;
    (void)thread;
    for (int r = r0; r < r1; r++) j->row(j, (size_t)r);
}

/* Runs `item` for all rows, in items of the same size. */
static void share_rows(cpu_backend *b, rows_job *j, cpu_item_fn *item) {
    size_t items = ((size_t)j->n * (size_t)j->cols * (size_t)j->work + CHUNK / 2) / CHUNK;
    size_t most = (size_t)(16 * b->base.threads) < (size_t)j->n ? (size_t)(16 * b->base.threads) : (size_t)j->n;
    int n = items < 1 ? 1 : items > most ? (int)most : (int)items;
    j->per_item = (j->n + n - 1) / n;
    if (j->together && j->n > j->together) j->per_item = (j->per_item + j->together - 1) / j->together * j->together;
    cpu_team_run(b->team, (j->n + j->per_item - 1) / j->per_item, item, j);
}

/* The declared span that p lies in, or NULL. */
static struct cpu_span *span_of(const cpu_backend *b, const float *p) {
    for (int i = 0; p && i < b->only_linears; i++)
        if (p >= b->only_linear[i].at && p < b->only_linear[i].at + b->only_linear[i].n) return &b->only_linear[i];
    return NULL;
}
/* Ops other than linear find floats in declared memory as long as no norm, swiglu, attention or linear wrote it (ops.h). */
static void reads_floats(const cpu_backend *b, const float *p) {
    const struct cpu_span *s = span_of(b, p);
    vl_assert(!s || !s->tiles, "rows that only linear reads are read by another op");
}
static void writes_floats(const cpu_backend *b, const float *p) {
    struct cpu_span *s = span_of(b, p);
    if (s) s->tiles = false;
}

static void for_rows(vl_backend *base, rows_job j) {
    cpu_backend *b = cpu_of(base);
    if (j.n <= 0) return;
    j.k = &b->k;
    pthread_mutex_lock(&b->lock);
    reads_floats(b, j.a), reads_floats(b, j.b), reads_floats(b, j.c);
    writes_floats(b, j.out);
    share_rows(b, &j, rows_item);
    pthread_mutex_unlock(&b->lock);
}

static const void *table_row(const vl_matrix *table, int32_t id) {
    vl_assert(id >= 0 && id < table->rows, "row %d of %s [%d, %d]", id, table->name, table->rows,
              table->cols);
    return (const uint8_t *)table->data +
           (size_t)id * (size_t)table->cols * vl_dtype_size(table->dtype);
}

static void embed_row(const rows_job *j, size_t r) {
    if (j->src_idx[r] < 0) return; /* an image row, written by someone else */
    vl_widen(j->out + r * (size_t)j->cols, table_row(j->table, j->src_idx[r]), j->table->dtype,
             (size_t)j->cols);
}
static void cpu_embed(vl_backend *b, float *out, const vl_matrix *table, const int32_t *ids, int T) {
    for_rows(b, (rows_job){.row = embed_row, .work = MOVE, .out = out, .table = table, .src_idx = ids, .n = T,
                           .cols = table->cols});
}

static void layernorm_row(const rows_job *j, size_t r) {
    size_t at = r * (size_t)j->cols;
    j->k->layernorm(j->out + at, j->a + at, j->b, j->c, j->cols, j->eps);
}
static void cpu_layernorm(vl_backend *b, float *out, const float *x, const float *w,
                          const float *bias, int T, int D, float eps) {
    if (cpu_kept_rows(cpu_of(b), (cpu_kept_row){out, x, w, bias, NULL, T, D, eps})) return;
    for_rows(b, (rows_job){.row = layernorm_row, .work = MAKE, .out = out, .a = x, .b = w, .c = bias, .n = T,
                           .cols = D, .eps = eps});
}

static void rmsnorm_row(const rows_job *j, size_t r) {
    size_t at = r * (size_t)j->cols;
    j->k->rmsnorm(j->out + at, j->a + at, j->b, j->cols, j->eps);
}
static void cpu_rmsnorm(vl_backend *b, float *out, const float *x, const float *w, int T, int D,
                        float eps) {
    if (cpu_kept_rows(cpu_of(b), (cpu_kept_row){out, x, w, NULL, NULL, T, D, eps})) return;
    for_rows(b, (rows_job){.row = rmsnorm_row, .work = MAKE, .out = out, .a = x, .b = w, .n = T, .cols = D,
                           .eps = eps});
}

/* Row r's value in bf16 mode: its half of a pair of keys, whose other half another thread may be writing. */
static void put_half(uint32_t *pool, int slot, const uint32_t *value, size_t E) {
    uint16_t *to = (uint16_t *)(void *)(pool + (size_t)(slot / 2) * E) + slot % 2;
    const uint16_t *from = (const uint16_t *)(const void *)value;
    for (size_t e = 0; e < E; e++) to[2 * e] = from[e];
}
/* Nothing of what a block held before is left beside a key that has no partner yet. */
static void clear_halves(const vl_rope_kv_args *a) {
    size_t E = (size_t)a->E;
    for (int r = 0; r < a->T; r++) {
        int block = a->kv_slot[r] / VL_KV_BLOCK, slot = a->kv_slot[r] % VL_KV_BLOCK;
        if (slot % 2 || (r + 1 < a->T && a->kv_slot[r + 1] == a->kv_slot[r] + 1)) continue;
        for (int g = 0; g < a->G; g++)
            memset((uint32_t *)a->v_pool + cpu_kv_at(block, g, a->G, a->E / 2) + (size_t)(slot / 2) * E, 0, E * 4);
    }
}

/* One row: H query heads in place, then G key heads normed, rotated and spread over their panels in the pool.
 * key [2 * E]: for this thread. */
static void qk_row(const rows_job *j, size_t r, float *key) {
    const vl_rope_kv_args *a = j->rope;
    bool pairs = j->pairs;
    size_t E = (size_t)a->E, half = E / 2, W = pairs ? half : E;
    const float *cos = a->cos + r * half, *sin = a->sin + r * half;
    uint32_t *words = (uint32_t *)(void *)(pairs ? key + E : key);
    for (int h = 0; h < a->H; h++) {
        float *q = a->q + r * (size_t)a->ldq + (size_t)h * E;
        if (a->q_norm) j->k->rmsnorm(q, q, a->q_norm, a->E, a->eps);
        j->k->rope(q, cos, sin, a->E);
    }
    int block = a->kv_slot[r] / VL_KV_BLOCK, slot = a->kv_slot[r] % VL_KV_BLOCK;
    for (int g = 0; g < a->G; g++) {
        size_t at = cpu_kv_at(block, g, a->G, (int)W);
        const float *k = a->k + r * (size_t)a->ldk + (size_t)g * E, *v = a->v + r * (size_t)a->ldv + (size_t)g * E;
        uint32_t *kp = (uint32_t *)a->k_pool + at + cpu_key_at(slot, (int)W), *vp = (uint32_t *)a->v_pool + at;
        if (a->k_norm) j->k->rmsnorm(key, k, a->k_norm, a->E, a->eps);
        else memcpy(key, k, E * sizeof *key);
        j->k->rope(key, cos, sin, a->E);
        if (pairs) j->k->pack_pairs(words, key, 0, 1, a->E, 1);
        for (size_t w = 0; w < W; w++) kp[w * VL_NR] = words[w];
        if (pairs) {
            j->k->pack_pairs(words, v, 0, 1, a->E, 1);
            put_half(vp, slot, words, E);
        } else {
            memcpy(vp + (size_t)slot * E, v, E * sizeof *v);
        }
    }
}
static void qk_item(void *arg, int item, int thread) {
    const rows_job *j = arg;
    int r0 = item * j->per_item, r1 = r0 + j->per_item < j->n ? r0 + j->per_item : j->n;
    for (int r = r0; r < r1; r++) qk_row(j, (size_t)r, j->out + 2 * (size_t)thread * (size_t)j->rope->E);
}
static void cpu_qk_norm_rope(vl_backend *base, const vl_rope_kv_args *a) {
    cpu_backend *b = cpu_of(base);
    vl_assert(a->E > 0 && a->E % 2 == 0, "head width %d is odd", a->E);
    rows_job j = {.k = &b->k, .rope = a, .n = a->T, .cols = (a->H + 2 * a->G) * a->E, .work = MAKE, .pairs = b->bf16,
                  .together = 16};
    if (a->T <= 0) return;
    pthread_mutex_lock(&b->lock);
    reads_floats(b, a->q), reads_floats(b, a->k), reads_floats(b, a->v);
    j.out = cpu_scratch(b, 2 * (size_t)b->base.threads * (size_t)a->E * sizeof(float)); /* a key and its pairs for each thread */
    if (j.pairs) clear_halves(a);
    share_rows(b, &j, qk_item);
    pthread_mutex_unlock(&b->lock);
}

static void rope_vision_row(const rows_job *j, size_t r) {
    int E = j->cols / j->heads / 3;
    float *row = j->out + r * (size_t)j->cols;
    for (int h = 0; h < 2 * j->heads; h++) /* q heads, then k heads */
        j->k->rope(row + h * E, j->a + r * (size_t)(E / 2), j->b + r * (size_t)(E / 2), E);
}
static void cpu_rope_vision(vl_backend *b, float *qkv, const float *cos, const float *sin, int P,
                            int H, int E) {
    vl_assert(E > 0 && E % 2 == 0, "head width %d is odd", E);
    for_rows(b, (rows_job){.row = rope_vision_row, .work = MAKE, .out = qkv, .a = cos, .b = sin, .n = P,
                           .cols = 3 * H * E, .heads = H});
}

static void swiglu_row(const rows_job *j, size_t r) {
    size_t at = r * (size_t)j->cols;
    j->k->swiglu(j->out + at, j->a + at, j->b + at, j->cols);
}
static void cpu_swiglu(vl_backend *b, float *out, const float *gate, const float *up, int T, int F) {
    if (cpu_kept_rows(cpu_of(b), (cpu_kept_row){out, gate, NULL, NULL, up, T, F, 0})) return;
    for_rows(b, (rows_job){.row = swiglu_row, .work = MAKE, .out = out, .a = gate, .b = up, .n = T, .cols = F});
}

static size_t row_at(const int32_t *idx, size_t i) { return idx ? (size_t)idx[i] : i; }

static void copy_row(const rows_job *j, size_t i) {
    size_t D = (size_t)j->cols;
    memcpy(j->out + row_at(j->dst_idx, i) * D, j->a + row_at(j->src_idx, i) * D, D * sizeof(float));
}
static void cpu_copy_rows(vl_backend *b, float *dst, const int32_t *dst_idx, const float *src,
                          const int32_t *src_idx, int n, int D) {
    for_rows(b, (rows_job){.row = copy_row, .work = MOVE, .out = dst, .a = src, .dst_idx = dst_idx,
                           .src_idx = src_idx, .n = n, .cols = D});
}

static void add_row(const rows_job *j, size_t i) {
    size_t D = (size_t)j->cols;
    j->k->epilogue(j->out + row_at(j->dst_idx, i) * D, j->a + row_at(j->src_idx, i) * D, NULL,
                   j->cols, VL_EPI_ADD);
}
static void cpu_add_rows(vl_backend *b, float *dst, const int32_t *dst_idx, const float *src,
                         const int32_t *src_idx, int n, int D) {
    for_rows(b, (rows_job){.row = add_row, .work = MOVE, .out = dst, .a = src, .dst_idx = dst_idx,
                           .src_idx = src_idx, .n = n, .cols = D});
}

/* Four table rows, weighted, in the order of the corners; products and sums in double, rounded
 * once (the table is tiny and the op runs once per picture). */
static void pos_embed_row(const rows_job *j, size_t p) {
    enum { PIECE = 256 };          /* columns at a time, widened                              */
    size_t each = vl_dtype_size(j->table->dtype);
    const float *w = j->a + 4 * p;
    float v[4][PIECE], *out = j->out + p * (size_t)j->cols;
    for (int d = 0; d < j->cols; d += PIECE, out += PIECE) {
        int n = j->cols - d < PIECE ? j->cols - d : PIECE;
        for (size_t k = 0; k < 4; k++)
            vl_widen(v[k], (const uint8_t *)table_row(j->table, j->src_idx[4 * p + k]) + (size_t)d * each,
                     j->table->dtype, (size_t)n);
        for (int i = 0; i < n; i++)
            out[i] = (float)((double)w[0] * (double)v[0][i] + (double)w[1] * (double)v[1][i] +
                             (double)w[2] * (double)v[2][i] + (double)w[3] * (double)v[3][i]);
    }
}
static void cpu_pos_embed(vl_backend *b, float *out, const vl_matrix *table, const int32_t *idx,
                          const float *weight, int P) {
    for_rows(b, (rows_job){.row = pos_embed_row, .work = MAKE, .out = out, .a = weight, .table = table,
                           .src_idx = idx, .n = P, .cols = table->cols});
}

/* ---- argmax: the largest of every span, then the first span that has the row's largest ------------- */

enum { SPAN = 8192 };
typedef float v4 __attribute__((vector_size(16), aligned(4), may_alias)); /* every machine has these */
typedef int32_t i4 __attribute__((vector_size(16), aligned(4), may_alias));
typedef struct peak { float v; int at; } peak; /* the first place of the largest value          */
typedef struct argmax_job { const float *x; peak *peaks; int V, spans, n, per_item; } argmax_job; /* n: spans of all rows */

/* The largest of x [n]; NaN when there is one. */
static float largest(const float *x, int n) {
    float most = -INFINITY;
    bool nan = false;
    int i = 0;
    v4 m[2] = {(v4){0} - INFINITY, (v4){0} - INFINITY};
    i4 bad = {0};
    for (; i + 8 <= n; i += 8)
        for (int k = 0; k < 2; k++) {
            v4 v = *(const v4 *)(const void *)(x + i + 4 * k);
            i4 above = v > m[k];
            m[k] = (v4)((above & (i4)v) | (~above & (i4)m[k]));
            bad |= v != v;
        }
    for (int k = 0; k < 8; k++) {
        nan |= bad[k % 4] != 0;
        if (m[k / 4][k % 4] > most) most = m[k / 4][k % 4];
    }
    for (; i < n; i++) {
        nan |= isnan(x[i]) != 0;
        if (x[i] > most) most = x[i];
    }
    return nan ? NAN : most;
}

static int first_of(const float *x, int n, float v) {
    int i = 0;
    for (; i + 8 <= n; i += 8) {
        i4 hit = (*(const v4 *)(const void *)(x + i) == v) | (*(const v4 *)(const void *)(x + i + 4) == v);
        if (hit[0] | hit[1] | hit[2] | hit[3]) break;
    }
    while (i < n && x[i] != v) i++;
    return i;
}

static void argmax_item(void *arg, int item, int thread) {
    const argmax_job *j = arg;
    (void)thread;
    for (int i = item * j->per_item; i < j->n && i < (item + 1) * j->per_item; i++) {
        int at = i % j->spans * SPAN, n = j->V - at < SPAN ? j->V - at : SPAN;
        const float *x = j->x + (size_t)(i / j->spans) * (size_t)j->V + at;
        float v = largest(x, n);
        j->peaks[i] = (peak){v, isnan(v) ? -1 : at + first_of(x, n, v)};
    }
}

static void cpu_argmax(vl_backend *base, int32_t *ids, const float *logits, int T, int V) {
    cpu_backend *b = cpu_of(base);
    argmax_job j = {.x = logits, .V = V, .spans = (V + SPAN - 1) / SPAN};
    if (T <= 0) return;
    j.n = T * j.spans;
    j.per_item = V < SPAN ? SPAN / V : 1; /* rows of few logits go together, in two parts at least */
    if (j.per_item > (j.n + 1) / 2) j.per_item = (j.n + 1) / 2;
    pthread_mutex_lock(&b->lock);
    j.peaks = cpu_scratch(b, (size_t)j.n * sizeof *j.peaks);
    cpu_team_run(b->team, (j.n + j.per_item - 1) / j.per_item, argmax_item, &j);
    for (int t = 0; t < T; t++) {
        const peak *p = j.peaks + (size_t)t * (size_t)j.spans, *best = p;
        bool nan = false;
        for (int i = 0; i < j.spans; i++) {
            nan |= p[i].at < 0;
            if (p[i].v > best->v) best = &p[i];
        }
        ids[t] = nan ? -1 : best->at;
    }
    pthread_mutex_unlock(&b->lock);
}

/* ---- the table -------------------------------------------------------------------------------- */

static void cpu_close(vl_backend *base) {
    cpu_backend *b = cpu_of(base);
    cpu_pack_close(b);
    cpu_team_close(b->team);
    if (b->scratch) cpu_pages_free(b->scratch, b->scratch_bytes);
    free(b->only_linear);
    pthread_mutex_destroy(&b->lock);
    free(b);
}

static const vl_ops CPU_OPS = {
    .name = "cpu", .alloc = cpu_alloc, .release = cpu_release, .room = cpu_room, .put = cpu_copy,
    .get = cpu_copy,
    .prepare = cpu_prepare, .sync = cpu_sync, .only_linear = cpu_only_linear, .elem = cpu_elem,
    .embed = cpu_embed,
    .linear = cpu_linear, .layernorm = cpu_layernorm, .rmsnorm = cpu_rmsnorm,
    .qk_norm_rope = cpu_qk_norm_rope, .rope_vision = cpu_rope_vision,
    .attend_full = cpu_attend_full, .attend_causal = cpu_attend_causal, .swiglu = cpu_swiglu,
    .copy_rows = cpu_copy_rows, .add_rows = cpu_add_rows, .pos_embed = cpu_pos_embed,
    .argmax = cpu_argmax, .tap = cpu_tap, .close = cpu_close,
};

bool vl_backend_retune(vl_backend *base, const vl_tuning *t) {
    vl_ukernels k;
    vl_err err;
    if (base->ops != &CPU_OPS || vl_ukernels_resolve(&k, t, &err)) return false;
    cpu_backend *b = cpu_of(base);
    pthread_mutex_lock(&b->lock);
    b->tuning = *t;
    b->k = k;
    cpu_team_spins(b->team, t->value[VL_TUNE_spins]);
    pthread_mutex_unlock(&b->lock);
    return true;
}

const vl_tuning *vl_backend_tuning(const vl_backend *b) {
    return b->ops == &CPU_OPS ? &((const cpu_backend *)(const void *)b)->tuning : NULL;
}

static const char *mode_of(const cpu_backend *b) {
    return b->bits == 8 ? "int8" : b->bits == 4 ? "int4" : b->bf16 ? "bf16" : "exact";
}

static bool have_tiles(const vl_ukernels *k) {
    return k->tier[VL_SLOT_gemm_tiles] == VL_TIER_amx && k->tier[VL_SLOT_tiles_end] == VL_TIER_amx;
}

/* A forced line of another way is one that shall run. */
static bool any_forced(const char *const *slots) {
    size_t len;
    while (*slots)
        if (vl_kernel_forced(*slots++, &len)) return true;
    return false;
}

bool cpu_splits(const vl_ukernels *k) {
    return have_tiles(k) &&
           !any_forced((const char *const[]){"gemm_wide", "gemm_f32", "gemv_bf16", "widen_bf16", "pack_rows", NULL});
}

int vl_cpu_open(vl_backend **out, const vl_backend_params *p, vl_err *err) {
    cpu_backend *b = vl_calloc(1, sizeof *b);
    if (!b) return vl_fail(err, VL_E_NOMEM, "no memory for the CPU backend");
    vl_tuning_load(&b->tuning, b->note, sizeof b->note);
    int threads = p->threads ? p->threads : b->tuning.value[VL_TUNE_threads];
    if (!threads) threads = vl_usable_threads();
    if (cpu_pack_mode(&b->lazy, err) || vl_ukernels_resolve(&b->k, &b->tuning, err) ||
        cpu_team_open(&b->team, threads, err)) {
        free(b);
        return -1;
    }
    cpu_team_spins(b->team, b->tuning.value[VL_TUNE_spins]);
    bool have_bf16 = b->k.tier[VL_SLOT_gemm_dpbf16] != VL_TIER_scalar;
    b->bits = !strcmp(p->dtype, "int8") ? 8 : !strcmp(p->dtype, "int4") ? 4 : 0;
    b->bf16 = !strcmp(p->dtype, "bf16") || (b->bits && have_bf16); /* what stays bf16 there */
    if (b->bf16 && !have_bf16) {
        cpu_team_close(b->team);
        free(b);
        return vl_fail(err, VL_E_UNSUPPORTED, "bf16 on the CPU needs AVX512_BF16, which this CPU lacks "
                       "or VL_CPU masks; use exact");
    }
    b->tiles = b->bf16 && have_tiles(&b->k) && !any_forced((const char *const[]){"gemm_dpbf16", "gemv_dpbf16", NULL});
    b->split = !b->bf16 && cpu_splits(&b->k);
    b->int_tiles = any_forced((const char *const[]){"gemm_q8_tiles", "gemm_q4_tiles", NULL}) ||
                   (b->k.tier[VL_SLOT_gemm_q8_tiles] == VL_TIER_amx && b->k.tier[VL_SLOT_gemm_q4_tiles] == VL_TIER_amx &&
                    !any_forced((const char *const[]){"gemm_q8", "gemm_q4", NULL}));
    pthread_mutex_init(&b->lock, NULL);
    b->base = (vl_backend){&CPU_OPS, threads, mode_of(b), 1, *b->note ? b->note : NULL, NULL, 1, b->bf16 ? 2 : 4};
    *out = &b->base;
    return 0;
}
