/* ops_cuda.c: the CUDA instance of the op table: which kernel, which grid.
 *
 * Easy to get wrong: a pointer inside the table is a device address and is only ever passed on; an
 * input packed for one linear may be used by the next only if nothing was written in between. */
#include <stdlib.h>

#include "kernels/cuda/group.h"

void *cuda_tiles(const vl_matrix *w) {
    vl_assert(w->impl, "%s was not prepared", w->name);
    return ((cuda_weight *)w->impl)->tiles;
}

/* Between enter and leave: one op that is neither fused nor a linear, so that what linear packed is
 * stale. */
static bool enter(cuda_backend *b) {
    if (!cuda_enter(b)) return false;
    cuda_drain(b);
    b->packed_x = NULL;
    return true;
}
/* The same for what the host does to the device: all launches so far come first. */
static bool enter_host(cuda_backend *b) {
    if (!enter(b)) return false;
    cuda_flush(b);
    if (!b->fault.code) return true;
    cuda_leave(b);
    return false;
}

/* One launch as an op of its own. */
static void op(vl_backend *base, cuda_kernel k, size_t gx, int gy, int threads, const cuda_arg *args) {
    cuda_backend *b = cuda_of(base);
    if (!enter(b)) return;
    cuda_launch(b, k, gx, gy, 1, threads, args);
    cuda_leave(b);
}

/* ---- memory ----------------------------------------------------------------------------------- */

static void *cuda_alloc(vl_backend *base, size_t bytes) {
    cuda_backend *b = cuda_of(base);
    if (!enter(b)) return NULL;
    void *p = cuda_memory(b, bytes, NULL);
    if (p && bytes) cuda_ok(b, b->d.Fill((uintptr_t)p, 0, bytes, b->stream), "clearing memory");
    cuda_leave(b);
    return p;
}

/* What is free, less what ops may still want for themselves: parts of sums and packed inputs. After a
 * failure no limit, so that what is told is that failure, and not that memory is short. */
static size_t cuda_room(vl_backend *base) {
    enum { OWN = 192 << 20 };
    cuda_backend *b = cuda_of(base);
    size_t left = 0, total = 0, own = b->scratch.bytes + b->packed[0].bytes + b->packed[1].bytes;
    if (!cuda_enter(b)) return SIZE_MAX;
    bool ok = cuda_ok(b, b->d.MemGetInfo(&left, &total), "asking for free memory");
    cuda_leave(b);
    if (!ok) return SIZE_MAX;
    size_t keep = own < OWN ? OWN - own : 0;
    return left > keep ? left - keep : 0;
}

static void cuda_release(vl_backend *base, void *p) {
    cuda_backend *b = cuda_of(base);
    if (!p || !enter_host(b)) return;
    cuda_wait(b);
    cuda_ok(b, b->d.MemFree((uintptr_t)p), "freeing memory");
    cuda_leave(b);
}

/* From pageable memory, which the driver has read when the call returns. */
static void cuda_put(vl_backend *base, void *dst, const void *src, size_t bytes) {
    cuda_backend *b = cuda_of(base);
    if (!bytes || !enter(b)) return;
    bool small = cuda_put_small(b, dst, src, bytes);
    cuda_leave(b);
    if (small || !enter_host(b)) return;
    cuda_ok(b, b->d.CopyToDevice((uintptr_t)dst, src, bytes, b->stream), "copying to the GPU");
    cuda_leave(b);
}

/* After a failure the destination is zeros: sync() tells. */
static void cuda_get(vl_backend *base, void *dst, const void *src, size_t bytes) {
    cuda_backend *b = cuda_of(base);
    bool ok = false;
    if (!bytes) return;
    if (cuda_enter(b)) {
        cuda_flush(b);
        ok = !b->fault.code &&
             cuda_ok(b, b->d.CopyToHost(dst, (uintptr_t)src, bytes, b->stream), "copying from the GPU") &&
             cuda_wait(b);
        cuda_leave(b);
    }
    if (!ok) memset(dst, 0, bytes);
}

static int cuda_sync(vl_backend *base, vl_err *err) {
    cuda_backend *b = cuda_of(base);
    if (cuda_enter(b)) {
        cuda_flush(b);
        cuda_wait(b);
        cuda_leave(b);
    }
    return b->fault.code ? vl_fail(err, b->fault.code, "%s", b->fault.msg) : 0;
}

static bool cuda_only_linear(vl_backend *b, const float *buf, size_t n) {
    (void)b, (void)buf, (void)n;
    return false;
}
static void cuda_tap(vl_backend *b, const char *name, int layer, const float *x, int rows, int cols) {
    (void)b, (void)name, (void)layer, (void)x, (void)rows, (void)cols;
}

/* ---- inputs of products ------------------------------------------------------------------------ */

/* Where an op may leave its result [T, K] once more, in fragment order, so that a product of many rows
 * finds its input packed; NULL: that would serve nobody (nor do callers ask on a group's rank for what
 * lies apart: its product reads the joined rows). Of the two buffers `which` is taken, always the
 * same for the same op, so that the arguments in a graph do not change from run to run. */
static void *pack_target(cuda_backend *b, int T, int K, int which) {
    if (b->arch < CUDA_BF16_UNITS || b->blas.library || T <= CUDA_FEW_ROWS || K % 32) return NULL;
    if (b->packed_in == which) b->packed_x = NULL;
    size_t bytes = (size_t)cuda_up(T, 8) * (size_t)cuda_k_tiles(K) * 256;
    return cuda_reserve(b, &b->packed[which], bytes) ? b->packed[which].p : NULL;
}
static void is_packed(cuda_backend *b, const float *x, int ld, int T, int K, int which) {
    b->packed_x = x, b->packed_ld = ld, b->packed_T = T, b->packed_K = K;
    b->packed_in = which, b->packed_plain = false;
}

/* ---- row-wise ops ----------------------------------------------------------------------------- */

enum { THREADS = 256, ATTEND_THREADS = 128, ARGMAX_SHARE = 512, ARGMAX_BLOCKS = 256 };

static void cuda_embed(vl_backend *b, float *out, const vl_matrix *table, const int32_t *ids, int T) {
    void *tiles = cuda_tiles(table);
    int D = table->cols;
    op(b, K_embed, (size_t)T, 1, THREADS, CUDA_ARGS(CUDA_ARG(out), CUDA_ARG(tiles), CUDA_ARG(ids), CUDA_ARG(D)));
}

static void cuda_pos_embed(vl_backend *b, float *out, const vl_matrix *table, const int32_t *idx,
                           const float *weight, int P) {
    void *tiles = cuda_tiles(table);
    int D = table->cols;
    op(b, K_pos_embed, (size_t)P, 1, THREADS, CUDA_ARGS(CUDA_ARG(out), CUDA_ARG(tiles), CUDA_ARG(idx), CUDA_ARG(weight), CUDA_ARG(D)));
}

static void cuda_layernorm(vl_backend *base, float *out, const float *x, const float *w,
                           const float *bias, int T, int D, float eps) {
    cuda_backend *b = cuda_of(base);
    if (T <= 0 || !enter(b)) return;
    void *packed = pack_target(b, T, D, 0);
    cuda_launch(b, K_layernorm, (size_t)T, 1, 1, THREADS,
                CUDA_ARGS(CUDA_ARG(out), CUDA_ARG(x), CUDA_ARG(w), CUDA_ARG(bias), CUDA_ARG(D),
                          CUDA_ARG(eps), CUDA_ARG(packed)));
    if (packed) is_packed(b, out, D, T, D, 0);
    cuda_leave(b);
}

/* Ops that fuse.c may join to others. */
static void submit(vl_backend *base, const cuda_op *op) {
    cuda_backend *b = cuda_of(base);
    if (!cuda_enter(b)) return;
    cuda_submit(b, op);
    cuda_leave(b);
}

static void cuda_rmsnorm(vl_backend *b, float *out, const float *x, const float *w, int T, int D,
                         float eps) {
    submit(b, &(cuda_op){.kind = CUDA_RMSNORM, .norm = {out, x, w, T, D, eps}});
}

static void cuda_qk_norm_rope(vl_backend *b, const vl_rope_kv_args *a) {
    vl_assert(a->E > 0 && a->E % 2 == 0 && a->E <= 256, "head width %d: even, at most 256", a->E);
    submit(b, &(cuda_op){.kind = CUDA_ROPE, .rope = *a});
}

static void cuda_swiglu(vl_backend *b, float *out, const float *gate, const float *up, int T, int F) {
    submit(b, &(cuda_op){.kind = CUDA_SWIGLU, .swiglu = {out, gate, up, T, F}});
}

static void cuda_rope_vision(vl_backend *b, float *qkv, const float *cos, const float *sin, int P,
                             int H, int E) {
    vl_assert(E > 0 && E % 2 == 0, "head width %d is odd", E);
    if (P > 0) submit(b, &(cuda_op){.kind = CUDA_TURN, .turn = {qkv, cos, sin, P, H, E}});
}

static void move_rows(vl_backend *b, float *dst, const int32_t *dst_idx, const float *src,
                      const int32_t *src_idx, int n, int D, int add) {
    op(b, K_move_rows, (size_t)n, 1, THREADS, CUDA_ARGS(CUDA_ARG(dst), CUDA_ARG(dst_idx), CUDA_ARG(src), CUDA_ARG(src_idx), CUDA_ARG(D), CUDA_ARG(add)));
}
static void cuda_copy_rows(vl_backend *b, float *dst, const int32_t *dst_idx, const float *src,
                           const int32_t *src_idx, int n, int D) {
    move_rows(b, dst, dst_idx, src, src_idx, n, D, 0);
}
static void cuda_add_rows(vl_backend *b, float *dst, const int32_t *dst_idx, const float *src,
                          const int32_t *src_idx, int n, int D) {
    move_rows(b, dst, dst_idx, src, src_idx, n, D, 1);
}

static void cuda_argmax(vl_backend *base, int32_t *ids, const float *logits, int T, int V) {
    cuda_backend *b = cuda_of(base);
    int blocks = cuda_up(V, ARGMAX_SHARE);
    if (blocks > ARGMAX_BLOCKS) blocks = ARGMAX_BLOCKS;
    vl_assert(T <= CUDA_COUNTERS, "argmax of %d rows", T);
    if (T <= 0 || !cuda_enter(b)) return;
    bool joined = cuda_argmax_joins(b, ids, logits, T, V);
    cuda_drain(b);
    b->packed_x = NULL;
    if (!joined && cuda_reserve(b, &b->scratch, (size_t)T * (size_t)blocks * 8))
        cuda_launch(b, K_argmax, (size_t)blocks, T, 1, THREADS,
                    CUDA_ARGS(CUDA_ARG(ids), CUDA_ARG(logits), CUDA_ARG(V), CUDA_ARG(b->scratch.p),
                              CUDA_ARG(b->arrived)));
    cuda_leave(b);
}

/* ---- linear ----------------------------------------------------------------------------------- */

/* x as bf16, in fragment order or (plain) in rows of k_tiles * 16, unless it still is there: from the
 * linear before, or from the op that made it. */
static bool pack_rows(cuda_backend *b, const float *x, int ldx, int T, int K, bool plain) {
    if (b->packed_x == x && b->packed_ld == ldx && b->packed_T == T && b->packed_K == K &&
        b->packed_plain == plain)
        return true;
    size_t pairs = (size_t)cuda_up(T, 8) * (size_t)cuda_k_tiles(K) * 32;
    int chunks = cuda_up(cuda_k_tiles(K), CHUNK_TILES), dtype = (int)VL_F32;
    b->packed_x = NULL;
    if (!cuda_reserve(b, &b->packed[0], pairs * 8 + (size_t)chunks * (size_t)T * sizeof(float))) return false;
    void *to = b->packed[0].p;
    float *back = (float *)to + pairs * 2;
    int vec = K % 4 == 0 && ldx % 4 == 0 && (uintptr_t)x % 16 == 0;
    if (plain)
        cuda_launch(b, K_plain_rows, (size_t)T, 1, 1, THREADS,
                    CUDA_ARGS(CUDA_ARG(to), CUDA_ARG(x), CUDA_ARG(dtype), CUDA_ARG(ldx), CUDA_ARG(K)));
    else
        cuda_launch(b, K_pack_rows, ((size_t)T * (size_t)chunks + 7) / 8, 1, 1, THREADS,
                    CUDA_ARGS(CUDA_ARG(to), CUDA_ARG(back), CUDA_ARG(x), CUDA_ARG(ldx), CUDA_ARG(T),
                              CUDA_ARG(K), CUDA_ARG(vec)));
    is_packed(b, x, ldx, T, K, 0);
    b->packed_plain = plain;
    return true;
}

/* Does [T, ld] at a reach into [T, ld] at b? */
static bool overlaps(const float *a, int lda, const float *b, int ldb, int T) {
    size_t t = (size_t)T;
    return a < b + t * (size_t)ldb && b < a + t * (size_t)lda;
}

/* The product by cuBLAS, and what it has no epilogue for by a kernel of ours. */
static void blas_linear(cuda_backend *b, const cuda_op *op, const void *w) {
    int N = op->linear.w->rows, K = op->linear.w->cols, T = op->linear.T, ldo = op->linear.ldo;
    int epi = (int)(op->linear.epi == VL_EPI_ADD ? VL_EPI_NONE : op->linear.epi);
    float *out = op->linear.out;
    const float *bias = op->linear.bias;
    if (!pack_rows(b, op->linear.x, op->linear.ldx, T, K, true)) return;
    cuda_gemm g = {.out = out, .x = b->packed[0].p, .w = w, .T = T, .N = N, .K = cuda_k_tiles(K) * 16,
                   .ldo = ldo, .beta = op->linear.epi == VL_EPI_ADD ? 1.0f : 0.0f};
    cuda_launch(b, CUDA_GEMM, 1, 1, 1, 1, CUDA_ARGS(CUDA_ARG(g)));
    if (bias || epi != (int)VL_EPI_NONE)
        cuda_launch(b, K_finish_rows, (size_t)cuda_up(N, THREADS), T, 1, THREADS,
                    CUDA_ARGS(CUDA_ARG(out), CUDA_ARG(ldo), CUDA_ARG(N), CUDA_ARG(bias), CUDA_ARG(epi)));
}

/* The products' outputs are new: what was packed of them is not. */
static void forget_outputs(cuda_backend *b, const cuda_op *op, int n) {
    for (int i = 0; i < n && b->packed_x; i++)
        if (overlaps(op[i].linear.out, op[i].linear.ldo, b->packed_x, b->packed_ld,
                     op[i].linear.T > b->packed_T ? op[i].linear.T : b->packed_T))
            b->packed_x = NULL;
}

enum { GROUP = GROUP_TILES * 16 };

/* Outputs [at, at + n) of a product, as one by itself. */
typedef struct piece { cuda_weight view; vl_matrix w; cuda_op op; } piece;
static void take_piece(piece *p, const cuda_op *op, int at, int n) {
    size_t tile_row = (size_t)cuda_k_tiles(op->linear.w->cols) * 512;
    *p = (piece){.view.tiles = (uint8_t *)cuda_tiles(op->linear.w) + (size_t)(at / 16) * tile_row,
                 .w = *op->linear.w, .op = *op};
    p->w.impl = &p->view;
    p->w.rows = n;
    p->op.linear.w = &p->w;
    p->op.linear.out += at;
    if (op->linear.bias) p->op.linear.bias += at;
}

/* Where even one row of blocks has more sums of groups than there is room for: fewer outputs at once. */
static void products_in_pieces(cuda_backend *b, const cuda_op *op, int n, bool gated, int each) {
    for (int i = 0; i < (gated ? 1 : n); i++) {
        int N = op[i].linear.w->rows;
        for (int at = 0; at < N; at += each) {
            piece p[2];
            for (int k = 0; k < 2; k++) take_piece(&p[k], &op[gated ? k : i], at, N - at < each ? N - at : each);
            cuda_products(b, (const cuda_op[]){p[0].op, p[1].op}, gated ? 2 : 1, gated);
        }
    }
}

/* The shapes of many.cuh. */
typedef struct many_shape { cuda_kernel kernel; int outputs; } many_shape;
static const many_shape SHAPES[] = {
#define X(O) {K_many_##O, O},
    MANY_SHAPES(X)
#undef X
};

/* Tiles of outputs that the grid of n matrices has. */
static int columns_of(int outputs, const cuda_op *op, int n, bool gated) {
    int columns = 0;
    if (gated) return cuda_up(op->linear.w->rows, outputs / 2);
    for (int i = 0; i < n; i++) columns += cuda_up(op[i].linear.w->rows, outputs);
    return columns;
}

/* The shape that is done first, by what a step of 16 inputs takes: the multiprocessor with most blocks reads a
 * block's shared memory in about 1.7 (outputs + 21) clocks, and the L2 sends 25 bytes a clock to each (H100).
 * It changes no bit. */
static many_shape best_shape(const cuda_backend *b, const cuda_op *op, int n) {
    int tiles = cuda_up(op->linear.T, MANY_ROWS) * cuda_up(op->linear.w->cols, GROUP);
    many_shape best = SHAPES[0];
    int64_t least = INT64_MAX;
    for (size_t i = 0; i < sizeof SHAPES / sizeof *SHAPES; i++) {
        int64_t outputs = SHAPES[i].outputs, blocks = (int64_t)columns_of(SHAPES[i].outputs, op, n, false) * tiles;
        int64_t shared = 4 * (outputs + 21) * ((blocks + b->sms - 1) / b->sms) * b->sms;
        int64_t l2 = 3 * (outputs + MANY_ROWS) * blocks, most = shared > l2 ? shared : l2;
        if (most < least) least = most, best = SHAPES[i];
    }
    return best;
}

void cuda_products(cuda_backend *b, const cuda_op *op, int n, bool gated) {
    int T = op->linear.T, K = op->linear.w->cols, N = op->linear.w->rows, epi = (int)op->linear.epi;
    many_shape shape = gated ? (many_shape){K_gate_up_many, MANY_GATED} : best_shape(b, op, n);
    int columns = columns_of(shape.outputs, op, n, gated), tiles = cuda_up(T, MANY_ROWS);
    int groups = cuda_up(K, GROUP), each = tiles;
    size_t block = (size_t)groups * (size_t)(shape.outputs * MANY_ROWS) * sizeof(float), row = groups > 1 ? (size_t)columns * block : 0;
    if (row > b->part_bytes && columns > 1) {
        int blocks = b->part_bytes > block ? (int)(b->part_bytes / block) : 1;
        products_in_pieces(b, op, n, gated, blocks * (gated ? shape.outputs / 2 : shape.outputs));
        return;
    }
    if (!pack_rows(b, op->linear.x, op->linear.ldx, T, K, false)) return;
    many_args a = {.x = b->packed[b->packed_in].p, .arrived = b->arrived, .mats = n, .T = T, .K = K, .epi = epi};
    a.back = (const float *)a.x + (size_t)cuda_up(T, 8) * (size_t)cuda_k_tiles(K) * 64;
    for (int i = 0; i < n; i++) {
        a.w[i] = (weight_arg){cuda_tiles(op[i].linear.w), op[i].linear.bias, op[i].linear.w->rows};
        a.out[i] = op[i].linear.out;
        a.ldo[i] = op[i].linear.ldo;
    }
    if (groups > 1) { /* as many rows at once as there is room for their sums */
        if (row * (size_t)each > b->part_bytes) each = row > b->part_bytes ? 1 : (int)(b->part_bytes / row);
        if (!cuda_reserve(b, &b->scratch, row * (size_t)each)) return;
        a.part = b->scratch.p;
        vl_assert(columns * each <= CUDA_COUNTERS, "%s: %d x %d tiles", op->linear.w->name, columns, each);
    }
    bool keep = (gated && !b->group) || epi == (int)VL_EPI_GELU_TANH || epi == (int)VL_EPI_GELU_ERF;
    int in = b->packed_in, other = !in;
    a.packed = keep ? pack_target(b, T, N, other) : NULL;
    for (; a.first < tiles; a.first += each)
        cuda_launch(b, shape.kernel, (size_t)(tiles - a.first < each ? tiles - a.first : each), columns, groups,
                    MANY_THREADS(shape.outputs), CUDA_ARGS(CUDA_ARG(a)));
    forget_outputs(b, op, n);
    if (a.packed) is_packed(b, a.out[0], a.ldo[0], T, N, other);
}

/* Attention of few rows waits for latency and leaves the memory idle: where one comes right before a product, more
 * blocks of it bring the product's first weights into the L2, as many as come in the least time it takes. */
static void fetch_weights(cuda_backend *b, const void *tiles, size_t bytes) {
    enum { SECTOR = 32, EACH = 8 }; /* sectors for each thread */
    static const double LEAST_US = 1.3;
    size_t most = (size_t)(LEAST_US * b->bytes_per_us);
    cuda_program *p = &b->program;
    if (p->calls == 0) return;
    cuda_call *c = &p->call[p->calls - 1];
    if (c->kernel != K_attend_64 && c->kernel != K_attend_80 && c->kernel != K_attend_128) return;
    attend_args a;
    memcpy(&a, p->values + c->at + c->arg[0], sizeof a);
    if (a.tokens != 1 || a.ahead) return;
    if (bytes > most) bytes = most;
    a.ahead = tiles;
    a.ahead_bytes = (int64_t)bytes;
    memcpy(p->values + c->at + c->arg[0], &a, sizeof a);
    size_t column = (size_t)c->grid[1] * c->grid[2] * ATTEND_THREADS * EACH * SECTOR;
    c->grid[0] += (unsigned)((bytes + column - 1) / column);
}

/* Products of few rows: the weights pass once for every 8. */
static void few_product(cuda_backend *b, const cuda_op *op) {
    float *out = op->linear.out;
    const float *x = op->linear.x, *bias = op->linear.bias;
    void *tiles = cuda_tiles(op->linear.w);
    int N = op->linear.w->rows, K = op->linear.w->cols, T = op->linear.T, ldo = op->linear.ldo;
    int ldx = op->linear.ldx, epi = (int)op->linear.epi;
    bool vec = K % 32 == 0 && ldx % 4 == 0 && (uintptr_t)x % 16 == 0;
    fetch_weights(b, tiles, (size_t)cuda_up(N, 16) * (size_t)cuda_k_tiles(K) * 512);
    cuda_launch(b, vec ? K_linear_few : K_linear_few_odd, (size_t)cuda_up(N, 16), cuda_up(T, 8), 1, THREADS,
                CUDA_ARGS(CUDA_ARG(out), CUDA_ARG(ldo), CUDA_ARG(x), CUDA_ARG(ldx), CUDA_ARG(T),
                          CUDA_ARG(tiles), CUDA_ARG(N), CUDA_ARG(K), CUDA_ARG(bias), CUDA_ARG(epi)));
    forget_outputs(b, op, 1);
}

static void emit_linear(cuda_backend *b, const cuda_op *op) {
    void *plain = ((cuda_weight *)op->linear.w->impl)->plain;
    if (op->linear.T <= CUDA_FEW_ROWS) {
        few_product(b, op);
    } else if (plain) {
        blas_linear(b, op, plain);
        forget_outputs(b, op, 1);
    } else {
        cuda_products(b, op, 1, false);
    }
}

static void cuda_linear(vl_backend *base, float *out, int ldo, const float *x, int ldx, int T,
                        const vl_matrix *w, const float *bias, vl_epilogue epilogue) {
    vl_assert(ldo >= w->rows && ldx >= w->cols, "%s: ldo %d, ldx %d", w->name, ldo, ldx);
    if (T > 0) submit(base, &(cuda_op){.kind = CUDA_LINEAR,
                                       .linear = {out, x, bias, w, ldo, ldx, T, epilogue}});
}

void cuda_emit(cuda_backend *b, const cuda_op *op) {
    if (op->kind == CUDA_LINEAR) {
        emit_linear(b, op);
        return;
    }
    b->packed_x = NULL;
    if (op->kind == CUDA_TURN) {
        cuda_launch(b, K_rope_vision, (size_t)op->turn.P, 1, 1, THREADS,
                    CUDA_ARGS(CUDA_ARG(op->turn.qkv), CUDA_ARG(op->turn.cos), CUDA_ARG(op->turn.sin),
                              CUDA_ARG(op->turn.H), CUDA_ARG(op->turn.E)));
    } else if (op->kind == CUDA_RMSNORM) {
        int T = op->norm.T, D = op->norm.D;
        void *packed = pack_target(b, T, D, 0);
        cuda_launch(b, K_rmsnorm, (size_t)T, 1, 1, THREADS,
                    CUDA_ARGS(CUDA_ARG(op->norm.out), CUDA_ARG(op->norm.x), CUDA_ARG(op->norm.w),
                              CUDA_ARG(op->norm.D), CUDA_ARG(op->norm.eps), CUDA_ARG(packed)));
        if (packed) is_packed(b, op->norm.out, D, T, D, 0);
    } else if (op->kind == CUDA_ROPE) {
        const vl_rope_kv_args *a = &op->rope;
        cuda_launch(b, K_qk_norm_rope, (size_t)a->T, cuda_up(a->H + 2 * a->G, 4), 1, ATTEND_THREADS,
                    CUDA_ARGS(CUDA_ARG(a->q), CUDA_ARG(a->k), CUDA_ARG(a->v), CUDA_ARG(a->ldq),
                              CUDA_ARG(a->ldk), CUDA_ARG(a->ldv), CUDA_ARG(a->q_norm),
                              CUDA_ARG(a->k_norm), CUDA_ARG(a->eps), CUDA_ARG(a->cos), CUDA_ARG(a->sin),
                              CUDA_ARG(a->k_pool), CUDA_ARG(a->v_pool), CUDA_ARG(a->kv_slot),
                              CUDA_ARG(a->H), CUDA_ARG(a->G), CUDA_ARG(a->E)));
    } else {
        int T = op->swiglu.T, F = op->swiglu.F;
        void *packed = b->group ? NULL : pack_target(b, T, F, 0);
        cuda_launch(b, K_swiglu, ((size_t)T * (size_t)cuda_up(F, 4) + THREADS - 1) / THREADS, 1, 1, THREADS,
                    CUDA_ARGS(CUDA_ARG(op->swiglu.out), CUDA_ARG(op->swiglu.gate), CUDA_ARG(op->swiglu.up),
                              CUDA_ARG(T), CUDA_ARG(F), CUDA_ARG(packed)));
        if (packed) is_packed(b, op->swiglu.out, F, T, F, 0);
    }
}

/* ---- attention -------------------------------------------------------------------------------- */

enum { TILE_ROWS = 64, SPLIT_BLOCKS = 1, PLAIN_MAX = 256 };

/* KV blocks that a decode launch of rows of up to max_len keys provides for: powers of two, so that
 * one graph serves a bucket of lengths. 0: keys are not split (few, or too many to keep the parts). */
static int split_blocks(const cuda_backend *b, const attend_args *a, int max_len) {
    int most = a->max_blocks, blocks = SPLIT_BLOCKS;
    if (max_len > 0 && cuda_up(max_len, VL_KV_BLOCK) < most) most = cuda_up(max_len, VL_KV_BLOCK);
    while (blocks < most) blocks *= 2;
    if (blocks > a->max_blocks) blocks = a->max_blocks;
    size_t bytes = (size_t)a->T * (size_t)a->H * (size_t)blocks * (size_t)(a->E + 2) * sizeof(float);
    return blocks <= SPLIT_BLOCKS || bytes > b->part_bytes || a->T * a->G > CUDA_COUNTERS ? 0 : blocks;
}

/* Flash attention on tensor cores where it fits, else the plain kernel. Few rows share a tile with
 * nobody, and may have their keys split. pack: the next product takes the result as it is. */
static void attend(cuda_backend *b, attend_args a, bool few, int max_len, bool pack) {
    int heads = a.H / a.G;
    bool flash = a.E % 8 == 0 && a.E <= 128 && heads <= TILE_ROWS;
    cuda_kernel k = a.E <= 64 ? K_attend_64 : a.E <= 80 ? K_attend_80 : K_attend_128;
    vl_assert(a.E <= PLAIN_MAX, "head width %d: at most %d", a.E, PLAIN_MAX);
    if (!flash) {
        cuda_launch(b, K_attend_plain, (size_t)a.T, a.H, 1, ATTEND_THREADS, CUDA_ARGS(CUDA_ARG(a)));
        return;
    }
    a.tokens = few ? 1 : TILE_ROWS / heads;
    a.blocks = few ? split_blocks(b, &a, max_len) : 0;
    if (a.blocks) {
        size_t rows = (size_t)a.T * (size_t)a.H * (size_t)a.blocks;
        if (!cuda_reserve(b, &b->scratch, rows * (size_t)(a.E + 2) * sizeof(float))) return;
        a.part = b->scratch.p;
        a.arrived = b->arrived;
    }
    a.packed = few || !pack ? NULL : pack_target(b, a.T, a.H * a.E, 0);
    cuda_launch(b, k, (size_t)cuda_up(a.T, a.tokens), a.G, a.blocks ? cuda_up(a.blocks, SPLIT_BLOCKS) : 1,
                ATTEND_THREADS, CUDA_ARGS(CUDA_ARG(a)));
    if (a.packed) is_packed(b, a.out, a.H * a.E, a.T, a.H * a.E, 0);
}

static void cuda_attend_causal(vl_backend *base, const vl_causal_args *c) {
    cuda_backend *b = cuda_of(base);
    vl_assert(c->G > 0 && c->H % c->G == 0 && c->E > 0 && c->E % 2 == 0, "H %d, G %d, E %d", c->H,
              c->G, c->E);
    if (c->T <= 0 || !enter(b)) return;
    attend_args a = {.out = c->out, .q = c->q, .k_pool = c->k_pool, .v_pool = c->v_pool,
                     .table = c->table, .row_seq = c->row_seq, .row_len = c->row_len, .ldq = c->ldq,
                     .max_blocks = c->max_blocks, .T = c->T, .H = c->H, .G = c->G, .E = c->E,
                     .scale = c->scale};
    attend(b, a, c->T <= CUDA_FEW_ROWS, c->max_len, !b->group);
    cuda_leave(b);
}

/* Keys and values become KV blocks in the scratch memory; then every row sees its whole segment. */
static void cuda_attend_full(vl_backend *base, float *out, const float *qkv, const int32_t *cu, int n,
                             int P, int H, int E, float scale) {
    cuda_backend *b = cuda_of(base);
    vl_assert(n >= 0 && E > 0 && E % 2 == 0, "n %d, E %d", n, E);
    const float *cos = NULL, *sin = NULL;
    if (n == 0 || P <= 0 || !cuda_enter(b)) return;
    const cuda_op *turn = cuda_take_turn(b, qkv, P, H, E);
    if (turn) cos = turn->turn.cos, sin = turn->turn.sin;
    cuda_drain(b);
    b->packed_x = NULL;
    int max_blocks = cuda_up(P, VL_KV_BLOCK), heads = H;
    size_t pool = (size_t)(P / VL_KV_BLOCK + n) * (size_t)H * VL_KV_BLOCK * (size_t)E;
    vl_arena arena = {0};
    void *k = NULL, *v = NULL;
    int32_t *table = NULL, *row_seq = NULL, *row_len = NULL;
    for (int pass = 0; pass < 2; pass++) {
        k = vl_carve(&arena, pool, 2);
        v = vl_carve(&arena, pool, 2);
        table = vl_carve(&arena, (size_t)n * (size_t)max_blocks, sizeof *table);
        row_seq = vl_carve(&arena, (size_t)P, sizeof *row_seq);
        row_len = vl_carve(&arena, (size_t)P, sizeof *row_len);
        if (pass == 0 && !cuda_reserve(b, &b->scratch, arena.used)) break;
        arena = (vl_arena){b->scratch.p, 0};
    }
    cuda_launch(b, K_segment_blocks, (size_t)P, 1, 1, THREADS,
                CUDA_ARGS(CUDA_ARG(k), CUDA_ARG(v), CUDA_ARG(table), CUDA_ARG(row_seq), CUDA_ARG(row_len), CUDA_ARG(qkv), CUDA_ARG(cu), CUDA_ARG(n), CUDA_ARG(max_blocks), CUDA_ARG(heads),
                          CUDA_ARG(E), CUDA_ARG(cos), CUDA_ARG(sin)));
    attend_args a = {.out = out, .q = qkv, .k_pool = k, .v_pool = v, .table = table, .row_seq = row_seq,
                     .row_len = row_len, .ldq = 3 * H * E, .max_blocks = max_blocks, .T = P, .H = H,
                     .G = H, .E = E, .scale = scale};
    attend(b, a, false, 0, true);
    cuda_leave(b);
}

/* ---- the table -------------------------------------------------------------------------------- */

static void cuda_close(vl_backend *base) {
    cuda_backend *b = cuda_of(base);
    cuda_device_close(b);
    pthread_mutex_destroy(&b->lock);
    free(b);
}

static const vl_ops CUDA_OPS = {
    .name = "cuda", .alloc = cuda_alloc, .release = cuda_release, .room = cuda_room, .put = cuda_put,
    .get = cuda_get,
    .prepare = cuda_prepare, .sync = cuda_sync, .only_linear = cuda_only_linear,
    .embed = cuda_embed,
    .linear = cuda_linear, .layernorm = cuda_layernorm, .rmsnorm = cuda_rmsnorm,
    .qk_norm_rope = cuda_qk_norm_rope, .rope_vision = cuda_rope_vision,
    .attend_full = cuda_attend_full, .attend_causal = cuda_attend_causal, .swiglu = cuda_swiglu,
    .copy_rows = cuda_copy_rows, .add_rows = cuda_add_rows, .pos_embed = cuda_pos_embed,
    .argmax = cuda_argmax, .tap = cuda_tap, .close = cuda_close,
};

int cuda_open(cuda_backend **out, int ordinal, vl_err *err) {
    cuda_backend *b = vl_calloc(1, sizeof *b);
    if (!b) return vl_fail(err, VL_E_NOMEM, "no memory for the CUDA backend");
    pthread_mutex_init(&b->lock, NULL);
    b->base = (vl_backend){.ops = &CUDA_OPS, .threads = 0, .dtype = "bf16", .ranks = 1, .device = b->described,
                           .kv_elem = 2};
    b->ordinal = ordinal;
    b->use_fused = true;
    b->part_bytes = CUDA_PART_BYTES;
    if (cuda_device_open(b, err)) {
        cuda_close(&b->base);
        return -1;
    }
    b->base.forms = b->blas.library ? 2 : 1; /* upload.c */
    *out = b;
    return 0;
}

/* "cuda", "cuda:2", ... 0: neither. */
static int gpus_of(const char *name) {
    const char *n = strchr(name, ':');
    if (!n) return 1;
    return n[1] >= '1' && n[1] <= '0' + CUDA_RANKS && !n[2] ? n[1] - '0' : 0;
}

int vl_cuda_open(vl_backend **out, const vl_backend_params *p, vl_err *err) {
    int n = gpus_of(p->name);
    cuda_backend *b;
    if (p->dtype && strcmp(p->dtype, "bf16"))
        return vl_fail(err, VL_E_UNSUPPORTED, "dtype \"%s\" is not available on the GPU, which computes "
                       "in bf16; use --dtype bf16, or --backend cpu", p->dtype);
    if (n == 0)
        return vl_fail(err, VL_E_USAGE, "backend \"%s\": expected cuda, or cuda:2 to cuda:%d for so many "
                       "GPUs", p->name, CUDA_RANKS);
    if (n > 1) return cuda_group_open(out, n, err);
    if (cuda_open(&b, 0, err)) return -1;
    *out = &b->base;
    return 0;
}
