/* ops_wrap.c: one forwarding function per op of the table, and the only place that says how many
 * bytes and flops an op costs. Bytes count every operand once: weights and activations read,
 * results written; flops count a multiply-add as two. */
#include <stdlib.h>

#include "kernels/ops_wrap.h"

static vl_backend *inner_of(vl_backend *b) { return vl_wrap_of(b)->inner; }

/* ---- describing a call ------------------------------------------------------------------------ */

static vl_rect floats(const float *p, int rows, int cols, int ld) {
    return (vl_rect){p, (size_t)rows, (size_t)cols, (size_t)ld, 4};
}
/* The same where the backend may keep rows in a form of its own (only_linear). */
static vl_rect made(vl_backend *b, const float *p, int rows, int cols, int ld) {
    vl_rect r = floats(p, rows, cols, ld);
    vl_backend *inner = inner_of(b);
    if (inner->ops->elem) r.elem = inner->ops->elem(inner, p, cols);
    return r;
}
static vl_rect ints(const int32_t *p, int n) {
    return (vl_rect){p, 1, (size_t)n, (size_t)n, 4};
}
static double rect_bytes(const vl_rect *s) {
    return s->data ? (double)s->rows * (double)s->cols * (double)s->elem : 0;
}
static void add_in(vl_op_call *c, vl_rect s) {
    vl_assert(c->ins < VL_RECTS, "%s: too many inputs", c->op);
    if (s.data) c->in[c->ins++] = s;
}
static void add_out(vl_op_call *c, vl_rect s) { c->out[c->outs++] = s; }

/* Starts the call: bytes are the rectangles', plus what the op adds. */
static void begin(vl_backend *b, vl_op_call *c) {
    for (int i = 0; i < c->ins; i++) c->bytes += rect_bytes(&c->in[i]);
    for (int i = 0; i < c->outs; i++) c->bytes += rect_bytes(&c->out[i]);
    vl_wrap *w = vl_wrap_of(b);
    if (w->before) w->before(w, c);
}
static void end(vl_backend *b, const vl_op_call *c) {
    vl_wrap *w = vl_wrap_of(b);
    if (w->after) w->after(w, c);
}

/* ---- the ops ---------------------------------------------------------------------------------- */

static void w_embed(vl_backend *b, float *out, const vl_matrix *table, const int32_t *ids, int T) {
    vl_op_call c = {.op = "embed", .what = table->name, .rows = T, .cols = table->cols};
    c.bytes = (double)T * (double)table->cols * (double)vl_dtype_size(table->dtype);
    add_in(&c, ints(ids, T));
    add_out(&c, floats(out, T, table->cols, table->cols));
    begin(b, &c);
    inner_of(b)->ops->embed(inner_of(b), out, table, ids, T);
    end(b, &c);
}

static void w_linear(vl_backend *b, float *out, int ldo, const float *x, int ldx, int T,
                     const vl_matrix *w, const float *bias, vl_epilogue epi) {
    vl_op_call c = {.op = "linear", .what = w->name, .rows = T, .cols = w->rows, .inner = w->cols};
    c.flops = 2.0 * T * w->rows * w->cols;
    c.bytes = (double)vl_matrix_bytes(w);
    add_in(&c, made(b, x, T, w->cols, ldx));
    add_in(&c, floats(bias, 1, w->rows, w->rows));
    add_out(&c, made(b, out, T, w->rows, ldo));
    begin(b, &c);
    inner_of(b)->ops->linear(inner_of(b), out, ldo, x, ldx, T, w, bias, epi);
    end(b, &c);
}

static void w_layernorm(vl_backend *b, float *out, const float *x, const float *w, const float *bias,
                        int T, int D, float eps) {
    vl_op_call c = {.op = "layernorm", .what = "", .rows = T, .cols = D, .flops = 8.0 * T * D};
    add_in(&c, floats(x, T, D, D));
    add_in(&c, floats(w, 1, D, D));
    add_in(&c, floats(bias, 1, D, D));
    add_out(&c, made(b, out, T, D, D));
    begin(b, &c);
    inner_of(b)->ops->layernorm(inner_of(b), out, x, w, bias, T, D, eps);
    end(b, &c);
}

static void w_rmsnorm(vl_backend *b, float *out, const float *x, const float *w, int T, int D,
                      float eps) {
    vl_op_call c = {.op = "rmsnorm", .what = "", .rows = T, .cols = D, .flops = 4.0 * T * D};
    add_in(&c, floats(x, T, D, D));
    add_in(&c, floats(w, 1, D, D));
    add_out(&c, made(b, out, T, D, D));
    begin(b, &c);
    inner_of(b)->ops->rmsnorm(inner_of(b), out, x, w, T, D, eps);
    end(b, &c);
}

static void w_qk_norm_rope(vl_backend *b, const vl_rope_kv_args *a) {
    vl_op_call c = {.op = "qk_norm_rope", .what = "", .rows = a->T, .cols = (a->H + 2 * a->G) * a->E,
                    .in_place = true};
    c.flops = 7.0 * a->T * (a->H + a->G) * a->E;
    c.bytes = 2.0 * a->T * a->G * a->E * (double)inner_of(b)->kv_elem;
    add_in(&c, floats(a->k, a->T, a->G * a->E, a->ldk));
    add_in(&c, floats(a->v, a->T, a->G * a->E, a->ldv));
    add_in(&c, floats(a->cos, a->T, a->E / 2, a->E / 2));
    add_in(&c, floats(a->sin, a->T, a->E / 2, a->E / 2));
    add_in(&c, ints(a->kv_slot, a->T));
    add_out(&c, floats(a->q, a->T, a->H * a->E, a->ldq));
    begin(b, &c);
    inner_of(b)->ops->qk_norm_rope(inner_of(b), a);
    end(b, &c);
}

static void w_rope_vision(vl_backend *b, float *qkv, const float *cos, const float *sin, int P, int H,
                          int E) {
    vl_op_call c = {.op = "rope_vision", .what = "", .rows = P, .cols = 2 * H * E, .in_place = true,
                    .flops = 6.0 * P * H * E};
    add_in(&c, floats(cos, P, E / 2, E / 2));
    add_in(&c, floats(sin, P, E / 2, E / 2));
    add_out(&c, floats(qkv, P, 2 * H * E, 3 * H * E));
    begin(b, &c);
    inner_of(b)->ops->rope_vision(inner_of(b), qkv, cos, sin, P, H, E);
    end(b, &c);
}

/* A copy of n int32 from the device for a decorator that looks at the call (it may wait and take
 * memory; aborts without); NULL if nobody looks. */
static int32_t *fetch(vl_backend *b, const int32_t *src, int n) {
    if (!vl_wrap_of(b)->before && !vl_wrap_of(b)->after) return NULL;
    int32_t *host = vl_calloc((size_t)n, sizeof *host);
    vl_assert(host, "no memory to look at %d indices", n);
    inner_of(b)->ops->get(inner_of(b), host, src, (size_t)n * sizeof *host);
    return host;
}

static void w_attend_full(vl_backend *b, float *out, const float *qkv, const int32_t *cu, int n, int P,
                          int H, int E, float scale) {
    vl_op_call c = {.op = "attend_full", .what = "", .rows = P, .cols = H * E, .inner = P};
    int32_t *host = fetch(b, cu, n + 1);
    for (int i = 0; host && i < n; i++) {
        double len = host[i + 1] - host[i];
        c.flops += 4.0 * len * len * H * E;
    }
    free(host);
    add_in(&c, floats(qkv, P, 3 * H * E, 3 * H * E));
    add_in(&c, ints(cu, n + 1));
    add_out(&c, made(b, out, P, H * E, H * E));
    begin(b, &c);
    inner_of(b)->ops->attend_full(inner_of(b), out, qkv, cu, n, P, H, E, scale);
    end(b, &c);
}

static void w_attend_causal(vl_backend *b, const vl_causal_args *a) {
    vl_op_call c = {.op = "attend_causal", .what = "", .rows = a->T, .cols = a->H * a->E};
    int32_t *len = fetch(b, a->row_len, a->T), *seq = fetch(b, a->row_seq, a->T);
    double keys = 0, stored = 0; /* keys seen, summed over rows; keys read, once per run of a sequence */
    for (int t = 0; len && t < a->T; t++) {
        keys += len[t];
        if (len[t] > c.inner) c.inner = len[t];
        if (t + 1 == a->T || seq[t + 1] != seq[t]) stored += len[t];
    }
    free(len);
    free(seq);
    c.flops = 4.0 * keys * a->H * a->E;
    c.bytes = 2.0 * stored * a->G * a->E * (double)inner_of(b)->kv_elem;
    add_in(&c, floats(a->q, a->T, a->H * a->E, a->ldq));
    add_in(&c, ints(a->row_seq, a->T));
    add_in(&c, ints(a->row_len, a->T));
    add_out(&c, made(b, a->out, a->T, a->H * a->E, a->H * a->E));
    begin(b, &c);
    inner_of(b)->ops->attend_causal(inner_of(b), a);
    end(b, &c);
}

static void w_swiglu(vl_backend *b, float *out, const float *gate, const float *up, int T, int F) {
    vl_op_call c = {.op = "swiglu", .what = "", .rows = T, .cols = F, .in_place = true,
                    .flops = 5.0 * T * F};
    add_in(&c, floats(gate, T, F, F));
    add_in(&c, floats(up, T, F, F));
    add_out(&c, made(b, out, T, F, F));
    begin(b, &c);
    inner_of(b)->ops->swiglu(inner_of(b), out, gate, up, T, F);
    end(b, &c);
}

/* Indexed rows are described where they start: [n, D] with an index stands for n scattered rows,
 * so only an unindexed side is a rectangle that can be looked at; the bytes are the same. */
static void w_move_rows(vl_backend *b, vl_op_call *c, float *dst, const int32_t *dst_idx,
                        const float *src, const int32_t *src_idx, int n, int D) {
    c->what = "";
    c->rows = n;
    c->cols = D;
    if (src_idx) c->bytes += 4.0 * n * D;
    else add_in(c, floats(src, n, D, D));
    if (dst_idx) c->bytes += 4.0 * n * D;
    else add_out(c, floats(dst, n, D, D));
    begin(b, c);
}
static void w_copy_rows(vl_backend *b, float *dst, const int32_t *dst_idx, const float *src,
                        const int32_t *src_idx, int n, int D) {
    vl_op_call c = {.op = "copy_rows"};
    w_move_rows(b, &c, dst, dst_idx, src, src_idx, n, D);
    inner_of(b)->ops->copy_rows(inner_of(b), dst, dst_idx, src, src_idx, n, D);
    end(b, &c);
}
static void w_add_rows(vl_backend *b, float *dst, const int32_t *dst_idx, const float *src,
                       const int32_t *src_idx, int n, int D) {
    vl_op_call c = {.op = "add_rows", .flops = 1.0 * n * D};
    w_move_rows(b, &c, dst, dst_idx, src, src_idx, n, D);
    inner_of(b)->ops->add_rows(inner_of(b), dst, dst_idx, src, src_idx, n, D);
    end(b, &c);
}

static void w_pos_embed(vl_backend *b, float *out, const vl_matrix *table, const int32_t *idx,
                        const float *weight, int P) {
    vl_op_call c = {.op = "pos_embed", .what = table->name, .rows = P, .cols = table->cols,
                    .flops = 8.0 * P * table->cols};
    c.bytes = 4.0 * P * (double)table->cols * (double)vl_dtype_size(table->dtype);
    add_in(&c, ints(idx, 4 * P));
    add_in(&c, floats(weight, P, 4, 4));
    add_out(&c, floats(out, P, table->cols, table->cols));
    begin(b, &c);
    inner_of(b)->ops->pos_embed(inner_of(b), out, table, idx, weight, P);
    end(b, &c);
}

static void w_argmax(vl_backend *b, int32_t *ids, const float *logits, int T, int V) {
    vl_op_call c = {.op = "argmax", .what = "", .rows = T, .cols = V};
    add_in(&c, floats(logits, T, V, V));
    begin(b, &c);
    inner_of(b)->ops->argmax(inner_of(b), ids, logits, T, V);
    end(b, &c);
}

/* ---- what is not described -------------------------------------------------------------------- */

static void *w_alloc(vl_backend *b, size_t n) { return inner_of(b)->ops->alloc(inner_of(b), n); }
static size_t w_room(vl_backend *b) { return inner_of(b)->ops->room(inner_of(b)); }
static void w_release(vl_backend *b, void *p) { inner_of(b)->ops->release(inner_of(b), p); }
static void w_put(vl_backend *b, void *dst, const void *src, size_t n) {
    inner_of(b)->ops->put(inner_of(b), dst, src, n);
}
static void w_get(vl_backend *b, void *dst, const void *src, size_t n) {
    inner_of(b)->ops->get(inner_of(b), dst, src, n);
}
static int w_prepare(vl_backend *b, vl_matrix *w, unsigned use, vl_err *err) {
    return inner_of(b)->ops->prepare(inner_of(b), w, use, err);
}
static bool w_only_linear(vl_backend *b, const float *buf, size_t n) {
    return inner_of(b)->ops->only_linear(inner_of(b), buf, n);
}
static size_t w_elem(vl_backend *b, const float *buf, int cols) {
    const vl_ops *o = inner_of(b)->ops;
    return o->elem ? o->elem(inner_of(b), buf, cols) : sizeof(float);
}
static int w_sync(vl_backend *b, vl_err *err) { return inner_of(b)->ops->sync(inner_of(b), err); }
static void w_tap(vl_backend *b, const char *name, int layer, const float *x, int rows, int cols) {
    inner_of(b)->ops->tap(inner_of(b), name, layer, x, rows, cols);
}
static void w_close(vl_backend *b) {
    vl_wrap *w = vl_wrap_of(b);
    w->inner->ops->close(w->inner);
    if (w->closing) w->closing(w);
    free(w);
}

void vl_wrap_init(vl_wrap *w, vl_backend *inner) {
    w->ops = (vl_ops){
        .name = inner->ops->name, .alloc = w_alloc, .release = w_release, .room = w_room, .put = w_put,
        .get = w_get,
        .prepare = w_prepare, .sync = w_sync, .only_linear = w_only_linear, .elem = w_elem,
        .embed = w_embed,
        .linear = w_linear, .layernorm = w_layernorm, .rmsnorm = w_rmsnorm,
        .qk_norm_rope = w_qk_norm_rope, .rope_vision = w_rope_vision, .attend_full = w_attend_full,
        .attend_causal = w_attend_causal, .swiglu = w_swiglu, .copy_rows = w_copy_rows,
        .add_rows = w_add_rows, .pos_embed = w_pos_embed, .argmax = w_argmax, .tap = w_tap,
        .close = w_close,
    };
    w->base = (vl_backend){&w->ops, inner->threads, inner->dtype, inner->ranks, inner->note, inner->device,
                           inner->forms, inner->kv_elem};
    w->inner = inner;
}
