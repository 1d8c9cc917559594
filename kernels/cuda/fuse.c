/* fuse.c: a layer's ops become few launches. The model calls one op after the other; here a norm waits
 * for the products of what it leaves, and those for the op behind them:
 *
 *                                             few rows (a decode step)   many rows
 *   rmsnorm, linear q, k, v, qk_norm_rope     vl_qkv                     norm, one vl_many_*, rope
 *   rmsnorm, linear gate, up, swiglu          vl_gate_up                 norm, vl_gate_up_many
 *   rmsnorm, linear, argmax                   vl_norm_linear             norm, vl_many_*, argmax
 *   rmsnorm, linear                           vl_norm_linear             norm, vl_many_*
 *
 * And rope_vision waits for attend_full, whose first launch then does both.
 *
 * A fused launch leaves the same bits as its ops in every buffer they write, so it can stand for them
 * whatever the caller does next; the lists above end at the first op that does not belong. */
#include "kernels/cuda/backend.h"

enum { ROWS = 8, THREADS = 256 };

/* Do the rows of a [rows, cols] and b [.., cols_b] share memory? */
static bool apart(const float *a, int rows, int cols, const float *b, int cols_b) {
    return a + (size_t)rows * (size_t)cols <= b || b + (size_t)rows * (size_t)cols_b <= a;
}

static bool can_start(const cuda_backend *b, const cuda_op *op) {
    if (op->kind == CUDA_TURN) return b->use_fused;
    return b->use_fused && op->kind == CUDA_RMSNORM && op->norm.T > 0 && op->norm.D % 32 == 0 &&
           (uintptr_t)op->norm.x % 16 == 0 && (uintptr_t)op->norm.w % 16 == 0 &&
           (uintptr_t)op->norm.out % 16 == 0 &&
           apart(op->norm.out, op->norm.T, op->norm.D, op->norm.x, op->norm.D);
}

/* A product of what the pending norm leaves, that writes where nobody reads. */
static bool can_follow(const cuda_backend *b, const cuda_op *op) {
    const cuda_op *n = &b->pending[0];
    if (op->kind != CUDA_LINEAR || b->n_pending == 0 || n->kind != CUDA_RMSNORM || b->n_pending == CUDA_PENDING) return false;
    int T = n->norm.T, D = n->norm.D, ldo = op->linear.ldo;
    bool ok = op->linear.x == n->norm.out && op->linear.T == T && op->linear.w->cols == D &&
              op->linear.ldx == D && op->linear.epi == VL_EPI_NONE &&
              apart(op->linear.out, T, ldo, n->norm.x, D) && apart(op->linear.out, T, ldo, n->norm.out, D);
    for (int i = 1; i < b->n_pending; i++)
        ok = ok && apart(op->linear.out, T, ldo, b->pending[i].linear.out, b->pending[i].linear.ldo);
    return ok;
}

/* The pending norm and its first n products. */
static norm_linear_args norm_linear(const cuda_backend *b, int n) {
    const cuda_op *p = b->pending;
    norm_linear_args a = {.x = p->norm.x, .norm = p->norm.w, .h = p->norm.out, .T = p->norm.T,
                          .K = p->norm.D, .eps = p->norm.eps};
    for (int i = 0; i < n; i++) {
        const cuda_op *l = &b->pending[i + 1];
        a.out[i] = l->linear.out;
        a.ldo[i] = l->linear.ldo;
        a.w[i] = (weight_arg){cuda_tiles(l->linear.w), l->linear.bias, l->linear.w->rows};
    }
    return a;
}

static bool is_qkv(const cuda_backend *b, const cuda_op *op) {
    const cuda_op *p = b->pending;
    const vl_rope_kv_args *r = &op->rope;
    if (op->kind != CUDA_ROPE || b->n_pending != 4) return false;
    int counters = cuda_up(r->T, ROWS) * (r->H + r->G);
    return p[1].linear.out == r->q && p[2].linear.out == r->k && p[3].linear.out == r->v &&
           p[1].linear.ldo == r->ldq && p[2].linear.ldo == r->ldk && p[3].linear.ldo == r->ldv &&
           p[1].linear.w->rows == r->H * r->E && p[2].linear.w->rows == r->G * r->E &&
           p[3].linear.w->rows == r->G * r->E && p[0].norm.T == r->T && r->E % 16 == 0 &&
           counters <= CUDA_COUNTERS;
}

static void launch_qkv(cuda_backend *b, const vl_rope_kv_args *r) {
    qkv_args a = {.in = norm_linear(b, 3), .q_norm = r->q_norm, .k_norm = r->k_norm, .cos = r->cos,
                  .sin = r->sin, .k_pool = r->k_pool, .v_pool = r->v_pool, .kv_slot = r->kv_slot,
                  .arrived = b->arrived, .H = r->H, .G = r->G, .E = r->E, .eps = r->eps};
    cuda_launch(b, K_qkv, (size_t)((r->H + 2 * r->G) * r->E / 16), cuda_up(r->T, ROWS), 1, THREADS,
                CUDA_ARGS(CUDA_ARG(a)));
}

static bool is_gate_up(const cuda_backend *b, const cuda_op *op) {
    const cuda_op *p = b->pending;
    return op->kind == CUDA_SWIGLU && b->n_pending == 3 && op->swiglu.out == p[1].linear.out &&
           op->swiglu.gate == p[1].linear.out && op->swiglu.up == p[2].linear.out &&
           op->swiglu.T == p[0].norm.T && p[1].linear.ldo == op->swiglu.F &&
           p[2].linear.ldo == op->swiglu.F && p[1].linear.w->rows == op->swiglu.F &&
           p[2].linear.w->rows == op->swiglu.F;
}

static void launch_norm_linear(cuda_backend *b, cuda_kernel k, int n, int32_t *ids) {
    norm_linear_args a = norm_linear(b, n);
    a.ids = ids, a.best = b->best, a.arrived = b->arrived;
    cuda_launch(b, k, (size_t)cuda_up(a.w[0].rows, 16), cuda_up(a.T, ROWS), 1, THREADS,
                CUDA_ARGS(CUDA_ARG(a)));
}

/* The pending norm of many rows and its n - 1 products. */
static void launch_many(cuda_backend *b, const cuda_op *p, int n, bool gated) {
    cuda_emit(b, p);
    if (n > 1 && !b->blas.library) cuda_products(b, p + 1, n - 1, gated);
    for (int i = 1; i < n && b->blas.library; i++) cuda_emit(b, p + i);
}

void cuda_drain(cuda_backend *b) {
    int n = b->n_pending;
    if (n == 0) return;
    b->n_pending = 0; /* a launch may flush, which comes here */
    b->packed_x = NULL;
    if (n == 1) {
        cuda_emit(b, &b->pending[0]);
    } else if (b->pending[0].norm.T > CUDA_FEW_ROWS) {
        launch_many(b, b->pending, n, false);
    } else {
        launch_norm_linear(b, K_norm_linear, 1, NULL);
        for (int i = 2; i < n; i++) cuda_emit(b, &b->pending[i]);
    }
}

/* The op behind the pending norm and products: all in one, or in few. */
static void launch_joined(cuda_backend *b, const cuda_op *op) {
    bool rope = op->kind == CUDA_ROPE, many = b->pending[0].norm.T > CUDA_FEW_ROWS;
    int n = b->n_pending;
    b->n_pending = 0;
    b->packed_x = NULL;
    if (many) launch_many(b, b->pending, n, !rope);
    else if (rope) launch_qkv(b, &op->rope);
    else launch_norm_linear(b, K_gate_up, 2, NULL);
    if (many && (rope || b->blas.library)) cuda_emit(b, op);
    if (!many) b->packed_x = NULL;
}

const cuda_op *cuda_take_turn(cuda_backend *b, const float *qkv, int P, int H, int E) {
    const cuda_op *t = &b->pending[0];
    bool is = b->n_pending == 1 && t->kind == CUDA_TURN && t->turn.qkv == qkv && t->turn.P == P &&
              t->turn.H == H && t->turn.E == E;
    if (is) b->n_pending = 0;
    return is ? t : NULL;
}

bool cuda_argmax_joins(cuda_backend *b, int32_t *ids, const float *logits, int T, int V) {
    const cuda_op *p = b->pending;
    if (b->n_pending != 2 || T > CUDA_FEW_ROWS || p[1].linear.out != logits || p[1].linear.T != T ||
        p[1].linear.ldo != V || p[1].linear.w->rows != V)
        return false;
    b->n_pending = 0;
    b->packed_x = NULL;
    launch_norm_linear(b, K_norm_linear, 1, ids);
    return true;
}

void cuda_submit(cuda_backend *b, const cuda_op *op) {
    if (is_qkv(b, op) || is_gate_up(b, op)) {
        launch_joined(b, op);
    } else if (can_follow(b, op)) {
        b->pending[b->n_pending++] = *op;
    } else {
        cuda_drain(b);
        if (can_start(b, op)) b->pending[b->n_pending++] = *op;
        else cuda_emit(b, op);
    }
}
