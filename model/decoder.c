/* decoder.c: HF Qwen3VLTextModel + lm_head.
 *
 *   x [T, D] = embed(ids), picture rows replaced by the vision features
 *   layers x { x += o(attention(rope(qnorm(q h)), rope(knorm(k h)), v h)),  h = rmsnorm(x)
 *              x += down(silu(gate h) * up h),                              h = rmsnorm(x) }
 *   after layer k < DeepStack levels: picture rows += DeepStack features k
 *   logits = lm_head(rmsnorm(x)) of the wanted rows only
 *
 * Easy to get wrong:
 *   - the norm of q and k is per head and comes before RoPE;
 *   - the causal mask follows the sequence index, never the M-RoPE position;
 *   - DeepStack k is added after decoder layer k (0, 1, 2), whatever block it came from. */
#include "model/decoder.h"

#include <math.h>
#include <stdlib.h>

struct vl_decoder {
    const vl_model *m;
    vl_backend *b;
    vl_decoder_params p;
    void *device, *host;
    vl_batch batch;
    /* device activations, [max_rows, ...] */
    float *x, *h, *q, *k, *v, *attn, *gate, *up;
    float *act, *final;                      /* [max_rows, F] [max_rows, D]: gate and h, unless */
    bool keeps;                              /* the backend keeps h, attn, act for linear alone */
    float *last, *logits;                    /* [max_wanted, D] [max_wanted, V]       */
    void **k_pool, **v_pool;                 /* [layers] device                       */
    /* device copies of the batch */
    int32_t *ids, *kv_slot, *row_seq, *row_len, *src, *self, *want, *table, *best;
    float *cos, *sin;
    int32_t *h_table;
    int max_len;                             /* keys that the longest row of the pass sees */
};

static void layout_device(vl_decoder *d, vl_arena *a) {
    const vl_text_config *c = &d->m->config.text;
    size_t R = (size_t)d->p.max_rows, S = (size_t)d->p.max_sequences, D = (size_t)c->D;
    size_t W = (size_t)d->p.max_wanted;
    size_t f = sizeof(float), i = sizeof(int32_t);
    size_t pool = (size_t)d->p.n_blocks * (size_t)vl_kv_heads(d->b, c->G) * VL_KV_BLOCK * (size_t)c->E;
    d->x = vl_carve(a, R * D, f);
    d->h = vl_carve(a, R * D, f);
    d->q = vl_carve(a, R * (size_t)(c->H * c->E), f);
    d->attn = vl_carve(a, R * (size_t)(c->H * c->E), f);
    d->k = vl_carve(a, R * (size_t)(c->G * c->E), f);
    d->v = vl_carve(a, R * (size_t)(c->G * c->E), f);
    d->gate = vl_carve(a, R * (size_t)c->F, f);
    d->up = vl_carve(a, R * (size_t)c->F, f);
    d->act = d->keeps ? vl_carve(a, R * (size_t)c->F, f) : d->gate;
    d->final = d->keeps ? vl_carve(a, R * D, f) : d->h;
    d->last = vl_carve(a, W * D, f);
    d->logits = vl_carve(a, W * (size_t)c->V, f);
    d->cos = vl_carve(a, R * (size_t)c->E / 2, f);
    d->sin = vl_carve(a, R * (size_t)c->E / 2, f);
    d->ids = vl_carve(a, R, i);
    d->kv_slot = vl_carve(a, R, i);
    d->row_seq = vl_carve(a, R, i);
    d->row_len = vl_carve(a, R, i);
    d->src = vl_carve(a, R, i);
    d->self = vl_carve(a, R, i);
    d->want = vl_carve(a, W, i);
    d->best = vl_carve(a, W, i);
    d->table = vl_carve(a, S * (size_t)d->p.max_blocks, i);
    for (int l = 0; l < c->layers; l++) {
        void *kp = vl_carve(a, pool, d->b->kv_elem), *vp = vl_carve(a, pool, d->b->kv_elem);
        if (!a->base) continue;
        d->k_pool[l] = kp;
        d->v_pool[l] = vp;
    }
}

static void layout_host(vl_decoder *d, vl_arena *a) {
    const vl_text_config *c = &d->m->config.text;
    size_t R = (size_t)d->p.max_rows, S = (size_t)d->p.max_sequences, i = sizeof(int32_t);
    vl_batch *b = &d->batch;
    b->cos = vl_carve(a, R * (size_t)c->E / 2, sizeof(float));
    b->sin = vl_carve(a, R * (size_t)c->E / 2, sizeof(float));
    b->ids = vl_carve(a, R, i);
    b->kv_slot = vl_carve(a, R, i);
    b->row_seq = vl_carve(a, R, i);
    b->row_len = vl_carve(a, R, i);
    b->src = vl_carve(a, R, i);
    b->self = vl_carve(a, R, i);
    b->want = vl_carve(a, (size_t)d->p.max_wanted, i);
    b->runs = vl_carve(a, R, sizeof *b->runs);
    d->h_table = vl_carve(a, S * (size_t)d->p.max_blocks, i);
    void **pools = vl_carve(a, 2 * (size_t)c->layers, sizeof(void *));
    d->k_pool = pools;
    d->v_pool = pools ? pools + c->layers : NULL;
}

/* Does the state fit into what the backend has? If not, says how long a context would. */
static int check_room(vl_decoder *d, size_t need, vl_err *err) {
    size_t room = d->b->ops->room(d->b), block = vl_decoder_block_bytes(d);
    size_t rest = need - (size_t)d->p.n_blocks * block, fit = room > rest ? (room - rest) / block : 0;
    if (need <= room) return 0;
    if (fit == 0)
        return vl_fail(err, VL_E_NOMEM, "a session of %d rows needs %zu MiB beside its context, the GPU has "
                       "%zu MiB free; end other programs on it, or use --backend cpu", d->p.max_rows,
                       rest >> 20, room >> 20);
    return vl_fail(err, VL_E_NOMEM, "a context of %zu tokens needs %zu MiB, the GPU has %zu MiB free: at most "
                   "%zu tokens fit; lower the context or the number of requests, or use --backend cpu",
                   (size_t)d->p.n_blocks * VL_KV_BLOCK, need >> 20, room >> 20, fit * VL_KV_BLOCK);
}

int vl_decoder_open(vl_decoder **out, const vl_model *m, const vl_decoder_params *p, vl_err *err) {
    vl_decoder *d = vl_calloc(1, sizeof *d);
    if (!d) return vl_fail(err, VL_E_NOMEM, "no memory for the decoder");
    vl_arena dev = {0}, host = {0};
    d->m = m;
    d->b = m->backend;
    d->p = *p;
    d->keeps = vl_weights_bf16(&m->weights, &m->config, false) && d->b->ops->only_linear(d->b, NULL, 0);
    layout_host(d, &host);
    layout_device(d, &dev);
    if (check_room(d, dev.used, err)) {
        vl_decoder_free(d);
        return -1;
    }
    d->host = vl_calloc(host.used, 1);
    d->device = d->b->ops->alloc(d->b, dev.used);
    if (!d->host || !d->device) {
        int fault = d->host ? d->b->ops->sync(d->b, err) : 0; /* then it is not for want of memory */
        vl_decoder_free(d);
        return fault ? -1 : vl_fail(err, VL_E_NOMEM, "a session of %d rows and %d KV blocks needs %zu MiB; lower the "
                       "context or the number of requests", p->max_rows, p->n_blocks, dev.used >> 20);
    }
    dev = (vl_arena){d->device, 0};
    host = (vl_arena){d->host, 0};
    layout_host(d, &host);
    layout_device(d, &dev);
    const vl_text_config *c = &m->config.text;
    const struct { float *buf; int cols; } only[] = {{d->h, c->D}, {d->attn, c->H * c->E}, {d->act, c->F}};
    for (int i = 0; d->keeps && i < 3; i++)
        d->b->ops->only_linear(d->b, only[i].buf, (size_t)p->max_rows * (size_t)only[i].cols);
    for (int i = 0; i < p->max_rows; i++) d->batch.self[i] = i;
    d->b->ops->put(d->b, d->self, d->batch.self, (size_t)p->max_rows * sizeof(int32_t));
    *out = d;
    return 0;
}

void vl_decoder_free(vl_decoder *d) {
    if (!d) return;
    if (d->device) d->b->ops->release(d->b, d->device);
    free(d->host);
    free(d);
}

vl_batch *vl_decoder_batch(vl_decoder *d) { return &d->batch; }
size_t vl_decoder_block_bytes(const vl_decoder *d) {
    const vl_text_config *c = &d->m->config.text;
    size_t heads = (size_t)vl_kv_heads(d->b, c->G);
    return 2 * (size_t)c->layers * heads * VL_KV_BLOCK * (size_t)c->E * d->b->kv_elem;
}

int32_t *vl_decoder_table(vl_decoder *d, int seq) {
    return d->h_table + (size_t)seq * (size_t)d->p.max_blocks;
}
float *vl_decoder_logits(vl_decoder *d) { return d->logits; }

static void upload(vl_decoder *d) {
    const vl_batch *b = &d->batch;
    const vl_ops *o = d->b->ops;
    size_t T = (size_t)b->T, i = sizeof(int32_t), half = (size_t)d->m->config.text.E / 2;
    o->put(d->b, d->ids, b->ids, T * i);
    o->put(d->b, d->kv_slot, b->kv_slot, T * i);
    o->put(d->b, d->row_seq, b->row_seq, T * i);
    o->put(d->b, d->row_len, b->row_len, T * i);
    d->max_len = 0;
    for (size_t t = 0; t < T; t++)
        if (b->row_len[t] > d->max_len) d->max_len = b->row_len[t];
    o->put(d->b, d->src, b->src, T * i);
    o->put(d->b, d->want, b->want, (size_t)b->n_want * i);
    o->put(d->b, d->cos, b->cos, T * half * sizeof(float));
    o->put(d->b, d->sin, b->sin, T * half * sizeof(float));
    o->put(d->b, d->table, d->h_table, (size_t)d->p.max_sequences * (size_t)d->p.max_blocks * i);
}

/* HF Qwen3VLTextAttention: x += o(attention(...)) */
static void attention(vl_decoder *d, int l) {
    const vl_text_config *c = &d->m->config.text;
    const vl_text_layer *w = &d->m->weights.layers[l];
    const vl_ops *o = d->b->ops;
    int T = d->batch.T, HE = c->H * c->E, GE = c->G * c->E;
    o->rmsnorm(d->b, d->h, d->x, w->input_norm, T, c->D, c->eps);                      /* [T, D]   */
    o->linear(d->b, d->q, HE, d->h, c->D, T, &w->q, w->q_bias, VL_EPI_NONE);           /* [T, H*E] */
    o->linear(d->b, d->k, GE, d->h, c->D, T, &w->k, w->k_bias, VL_EPI_NONE);           /* [T, G*E] */
    o->linear(d->b, d->v, GE, d->h, c->D, T, &w->v, w->v_bias, VL_EPI_NONE);           /* [T, G*E] */
    o->qk_norm_rope(d->b, &(vl_rope_kv_args){
        .q = d->q, .k = d->k, .v = d->v, .ldq = HE, .ldk = GE, .ldv = GE, .q_norm = w->q_norm,
        .k_norm = w->k_norm, .eps = c->eps, .cos = d->cos, .sin = d->sin, .k_pool = d->k_pool[l],
        .v_pool = d->v_pool[l], .kv_slot = d->kv_slot, .T = T, .H = c->H, .G = c->G, .E = c->E});
    o->attend_causal(d->b, &(vl_causal_args){
        .out = d->attn, .q = d->q, .ldq = HE, .k_pool = d->k_pool[l], .v_pool = d->v_pool[l],
        .table = d->table, .max_blocks = d->p.max_blocks, .row_seq = d->row_seq, .row_len = d->row_len,
        .max_len = d->max_len,
        .T = T, .H = c->H, .G = c->G, .E = c->E, .scale = 1.0f / sqrtf((float)c->E)});
    o->linear(d->b, d->x, c->D, d->attn, HE, T, &w->o, w->o_bias, VL_EPI_ADD);         /* [T, D]   */
}

/* HF Qwen3VLTextMLP: x += down(silu(gate h) * up h) */
static void mlp(vl_decoder *d, int l) {
    const vl_text_config *c = &d->m->config.text;
    const vl_text_layer *w = &d->m->weights.layers[l];
    const vl_ops *o = d->b->ops;
    int T = d->batch.T;
    o->rmsnorm(d->b, d->h, d->x, w->post_norm, T, c->D, c->eps);                       /* [T, D]   */
    o->linear(d->b, d->gate, c->F, d->h, c->D, T, &w->gate, NULL, VL_EPI_NONE);        /* [T, F]   */
    o->linear(d->b, d->up, c->F, d->h, c->D, T, &w->up, NULL, VL_EPI_NONE);            /* [T, F]   */
    o->swiglu(d->b, d->act, d->gate, d->up, T, c->F);
    o->linear(d->b, d->x, c->D, d->act, c->F, T, &w->down, NULL, VL_EPI_ADD);         /* [T, D]   */
}

/* Token embeddings, picture rows replaced by the main merger's output. */
static void embed(vl_decoder *d) {
    const vl_batch *b = &d->batch;
    const vl_ops *o = d->b->ops;
    int D = d->m->config.text.D;
    o->embed(d->b, d->x, &d->m->weights.embed, d->ids, b->T);
    for (int r = 0; r < b->n_runs; r++)
        o->copy_rows(d->b, d->x, d->self + b->runs[r].at, b->runs[r].features->main,
                     d->src + b->runs[r].at, b->runs[r].n, D);
    o->tap(d->b, "model.language_model.inputs_embeds", -1, d->x, b->T, D);
}

/* Final norm of the wanted rows, then the head: [n_want, V]. */
static void head(vl_decoder *d, bool all_logits) {
    const vl_batch *b = &d->batch;
    const vl_weights *w = &d->m->weights;
    const vl_ops *o = d->b->ops;
    const vl_text_config *c = &d->m->config.text;
    int S = d->p.max_wanted;
    if (all_logits) {
        o->rmsnorm(d->b, d->final, d->x, w->norm, b->T, c->D, c->eps);
        o->tap(d->b, "model.language_model.norm", -1, d->final, b->T, c->D);
        for (int at = 0; at < b->T; at += S) {
            int n = b->T - at < S ? b->T - at : S;
            o->linear(d->b, d->logits, c->V, d->final + (size_t)at * (size_t)c->D, c->D, n, &w->head, NULL,
                      VL_EPI_NONE);
            o->tap(d->b, "logits", -1, d->logits, n, c->V);
        }
    }
    if (!b->n_want) return;
    bool all = b->n_want == b->T; /* want ascends: every row, as in decode */
    if (!all) o->copy_rows(d->b, d->last, NULL, d->x, d->want, b->n_want, c->D);
    o->rmsnorm(d->b, d->final, all ? d->x : d->last, w->norm, b->n_want, c->D, c->eps);
    o->linear(d->b, d->logits, c->V, d->final, c->D, b->n_want, &w->head, NULL, VL_EPI_NONE);
}

void vl_decoder_forward(vl_decoder *d, bool all_logits) {
    const vl_batch *b = &d->batch;
    const vl_ops *o = d->b->ops;
    const vl_config *c = &d->m->config;
    upload(d);
    embed(d);
    for (int l = 0; l < c->text.layers; l++) {
        attention(d, l);
        mlp(d, l);
        o->tap(d->b, "model.language_model.layers", l, d->x, b->T, c->text.D);
        for (int r = 0; r < b->n_runs && l < c->vision.n_deepstack; r++)                /* DeepStack */
            o->add_rows(d->b, d->x, d->self + b->runs[r].at, b->runs[r].features->deep[l],
                        d->src + b->runs[r].at, b->runs[r].n, c->text.D);
    }
    head(d, all_logits);
}

void vl_decoder_argmax(vl_decoder *d) {
    if (d->batch.n_want) d->b->ops->argmax(d->b, d->best, d->logits, d->batch.n_want, d->m->config.text.V);
}

void vl_decoder_best(vl_decoder *d, int32_t *ids) {
    d->b->ops->get(d->b, ids, d->best, (size_t)d->batch.n_want * sizeof(int32_t));
}
