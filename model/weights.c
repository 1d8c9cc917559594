/* weights.c: the binding table and the one loop that walks it. */
#include "model/weights.h"

#include <stdlib.h>

#include "loader/guard.h"

/* Who owns a field: the whole model, one decoder layer, one vision block, one DeepStack merger. */
typedef enum group { MODEL, LAYER, BLOCK, DEEP, GROUPS } group;
typedef enum kind { VEC, LINEAR, GATHER, EMBED, HEAD, BIAS } kind; /* BIAS: only with attention_bias */

/* Symbolic sizes, so that the table prints as the paper writes it. */
typedef enum sym { ONE, D, F, V, HE, GE, E, vD, vF, v3D, vM, vK, vP, SYMS } sym;
static const char *const SYM_NAME[SYMS] = {"1", "D", "F", "V", "H*E", "G*E", "E", "vD", "vF", "3*vD",
                                           "vD*merge^2", "3*temporal*patch^2", "side^2"};
static int64_t sym_value(const vl_config *c, sym s) {
    const vl_text_config *t = &c->text;
    const vl_vision_config *v = &c->vision;
    const int64_t value[SYMS] = {
        1, t->D, t->F, t->V, (int64_t)t->H * t->E, (int64_t)t->G * t->E, t->E, v->D, v->F,
        (int64_t)3 * v->D, (int64_t)v->D * v->merge * v->merge,
        (int64_t)v->channels * v->temporal * v->patch * v->patch, (int64_t)v->side * v->side};
    return value[s];
}

typedef struct binding {
    group group;
    kind kind;
    const char *name;     /* %d is the index inside the group */
    size_t field;         /* offset in the group's struct     */
    sym rows, cols;
    const char *what;
} binding;

#define TOP(f) offsetof(vl_weights, f)
#define LAY(f) offsetof(vl_text_layer, f)
#define BLK(f) offsetof(vl_vision_block, f)
#define MRG(f) offsetof(vl_merger, f)
#define T "model.language_model."
#define L T "layers.%d."
#define X "model.visual."
#define B X "blocks.%d."
#define K X "deepstack_merger_list.%d."

static const binding TABLE[] = {
    {MODEL, LINEAR, X "patch_embed.proj.weight", TOP(patch), vD, vK, "patch -> vision width (Conv3d as a matrix)"},
    {MODEL, VEC, X "patch_embed.proj.bias", TOP(patch_b), vD, ONE, ""},
    {MODEL, GATHER, X "pos_embed.weight", TOP(pos), vP, vD, "square position table, sampled bilinearly"},
    {BLOCK, VEC, B "norm1.weight", BLK(norm1_w), vD, ONE, "LayerNorm before attention"},
    {BLOCK, VEC, B "norm1.bias", BLK(norm1_b), vD, ONE, ""},
    {BLOCK, LINEAR, B "attn.qkv.weight", BLK(qkv), v3D, vD, "queries, keys, values in one"},
    {BLOCK, VEC, B "attn.qkv.bias", BLK(qkv_b), v3D, ONE, ""},
    {BLOCK, LINEAR, B "attn.proj.weight", BLK(proj), vD, vD, "attention output"},
    {BLOCK, VEC, B "attn.proj.bias", BLK(proj_b), vD, ONE, ""},
    {BLOCK, VEC, B "norm2.weight", BLK(norm2_w), vD, ONE, "LayerNorm before the MLP"},
    {BLOCK, VEC, B "norm2.bias", BLK(norm2_b), vD, ONE, ""},
    {BLOCK, LINEAR, B "mlp.linear_fc1.weight", BLK(fc1), vF, vD, "MLP up, tanh-GELU after it"},
    {BLOCK, VEC, B "mlp.linear_fc1.bias", BLK(fc1_b), vF, ONE, ""},
    {BLOCK, LINEAR, B "mlp.linear_fc2.weight", BLK(fc2), vD, vF, "MLP down"},
    {BLOCK, VEC, B "mlp.linear_fc2.bias", BLK(fc2_b), vD, ONE, ""},
    {DEEP, VEC, K "norm.weight", MRG(norm_w), vM, ONE, "LayerNorm after grouping 2x2"},
    {DEEP, VEC, K "norm.bias", MRG(norm_b), vM, ONE, ""},
    {DEEP, LINEAR, K "linear_fc1.weight", MRG(fc1), vM, vM, "erf-GELU after it"},
    {DEEP, VEC, K "linear_fc1.bias", MRG(fc1_b), vM, ONE, ""},
    {DEEP, LINEAR, K "linear_fc2.weight", MRG(fc2), D, vM, "vision -> text width"},
    {DEEP, VEC, K "linear_fc2.bias", MRG(fc2_b), D, ONE, ""},
    {MODEL, VEC, X "merger.norm.weight", TOP(merger.norm_w), vD, ONE, "LayerNorm before grouping 2x2"},
    {MODEL, VEC, X "merger.norm.bias", TOP(merger.norm_b), vD, ONE, ""},
    {MODEL, LINEAR, X "merger.linear_fc1.weight", TOP(merger.fc1), vM, vM, "erf-GELU after it"},
    {MODEL, VEC, X "merger.linear_fc1.bias", TOP(merger.fc1_b), vM, ONE, ""},
    {MODEL, LINEAR, X "merger.linear_fc2.weight", TOP(merger.fc2), D, vM, "vision -> text width"},
    {MODEL, VEC, X "merger.linear_fc2.bias", TOP(merger.fc2_b), D, ONE, ""},
    {MODEL, EMBED, T "embed_tokens.weight", TOP(embed), V, D, "token embeddings; the head too when tied"},
    {LAYER, VEC, L "input_layernorm.weight", LAY(input_norm), D, ONE, "RMSNorm before attention"},
    {LAYER, LINEAR, L "self_attn.q_proj.weight", LAY(q), HE, D, "queries"},
    {LAYER, BIAS, L "self_attn.q_proj.bias", LAY(q_bias), HE, ONE, "only with attention_bias"},
    {LAYER, LINEAR, L "self_attn.k_proj.weight", LAY(k), GE, D, "keys"},
    {LAYER, BIAS, L "self_attn.k_proj.bias", LAY(k_bias), GE, ONE, "only with attention_bias"},
    {LAYER, LINEAR, L "self_attn.v_proj.weight", LAY(v), GE, D, "values"},
    {LAYER, BIAS, L "self_attn.v_proj.bias", LAY(v_bias), GE, ONE, "only with attention_bias"},
    {LAYER, VEC, L "self_attn.q_norm.weight", LAY(q_norm), E, ONE, "RMSNorm of each query head, before RoPE"},
    {LAYER, VEC, L "self_attn.k_norm.weight", LAY(k_norm), E, ONE, "RMSNorm of each key head, before RoPE"},
    {LAYER, LINEAR, L "self_attn.o_proj.weight", LAY(o), D, HE, "attention output"},
    {LAYER, BIAS, L "self_attn.o_proj.bias", LAY(o_bias), D, ONE, "only with attention_bias"},
    {LAYER, VEC, L "post_attention_layernorm.weight", LAY(post_norm), D, ONE, "RMSNorm before the MLP"},
    {LAYER, LINEAR, L "mlp.gate_proj.weight", LAY(gate), F, D, "SwiGLU gate"},
    {LAYER, LINEAR, L "mlp.up_proj.weight", LAY(up), F, D, "SwiGLU value"},
    {LAYER, LINEAR, L "mlp.down_proj.weight", LAY(down), D, F, "MLP down"},
    {MODEL, VEC, T "norm.weight", TOP(norm), D, ONE, "final RMSNorm"},
    {MODEL, HEAD, "lm_head.weight", TOP(head), V, D, "logits; absent when tied to embed_tokens"},
};
enum { ROWS = sizeof TABLE / sizeof *TABLE };

/* Blocks to give back: device vectors. Kept as a list inside one host allocation. */
typedef struct owned { size_t n, cap; void *p[]; } owned;

static int group_count(const vl_config *c, group g) {
    const int n[GROUPS] = {1, c->text.layers, c->vision.depth, c->vision.n_deepstack};
    return n[g];
}

/* No tensor of this model. */
static bool left_out(const vl_config *c, const binding *x) {
    return (x->kind == BIAS && !c->text.attention_bias) || (x->kind == HEAD && c->tied);
}

static void *group_base(vl_weights *w, group g, int i) {
    switch (g) {
    case LAYER: return &w->layers[i];
    case BLOCK: return &w->blocks[i];
    case DEEP: return &w->deepstack[i];
    default: return w;
    }
}

static int fail_shape(const vl_tensor *t, int64_t rows, int64_t cols, vl_err *err) {
    char found[96] = "";
    size_t at = 0;
    for (int i = 0; i < t->rank && at < sizeof found - 24; i++)
        at += (size_t)snprintf(found + at, sizeof found - at, "%s%lld", i ? ", " : "",
                               (long long)t->shape[i]);
    if (cols == 1)
        return vl_fail(err, VL_E_MODEL, "tensor %s has shape [%s], expected [%lld]", t->name, found,
                       (long long)rows);
    return vl_fail(err, VL_E_MODEL, "tensor %s has shape [%s], expected [%lld, %lld]", t->name, found,
                   (long long)rows, (long long)cols);
}

/* Exact shape (a convolution [out, c, t, y, x] counts as [out, c*t*y*x]) and a float type. */
static int check_tensor(const vl_tensor *t, int64_t rows, int64_t cols, vl_err *err) {
    if (t->dtype != VL_F32 && t->dtype != VL_F16 && t->dtype != VL_BF16)
        return vl_fail(err, VL_E_UNSUPPORTED, "tensor %s is %s; expected BF16, F16 or F32", t->name,
                       vl_dtype_name(t->dtype));
    bool rank_ok = cols == 1 ? t->rank == 1 : t->rank == 2 || t->rank == 5;
    if (!rank_ok || t->shape[0] != rows) return fail_shape(t, rows, cols, err);
    int64_t rest = 1; /* cannot overflow: the first size is not 0, so the file's size bounds the others */
    for (int i = 1; i < t->rank; i++) rest *= t->shape[i];
    return rest == cols ? 0 : fail_shape(t, rows, cols, err);
}

static int bind_vector(vl_weights *w, const vl_tensor *t, const float **field, vl_backend *b,
                       vl_err *err) {
    size_t n = (size_t)t->shape[0];
    owned *own = w->owned;
    float *host = vl_calloc(n, sizeof *host);
    void *dev = b->ops->alloc(b, n * sizeof(float));
    if (!host || !dev) {
        free(host);
        if (dev) b->ops->release(b, dev);
        return vl_fail(err, VL_E_NOMEM, "no memory for tensor %s", t->name);
    }
    vl_widen(host, t->data, t->dtype, n);
    if (!w->not_finite[0] && !vl_tensor_finite(t))
        snprintf(w->not_finite, sizeof w->not_finite, "%s", t->name);
    b->ops->put(b, dev, host, n * sizeof(float));
    free(host);
    vl_assert(own->n < own->cap, "more vectors than the table has");
    own->p[own->n++] = dev;
    *field = dev;
    return 0;
}

static int bind_matrix(vl_matrix *m, const vl_tensor *t, int64_t rows, int64_t cols, int unit,
                       unsigned use, const vl_checkpoint *ckpt, vl_backend *b, vl_err *err) {
    *m = (vl_matrix){.name = t->name, .data = t->data, .dtype = t->dtype, .rows = (int)rows,
                     .cols = (int)cols, .unit = unit};
    if (vl_weights_quantised(t) && vl_weights_scales(m, ckpt, t, b->dtype, err)) return -1;
    /* a copy in memory (a misaligned tensor's) has no file to be read from again */
    bool mapped = vl_guard_covers(t->data, t->bytes);
    return b->ops->prepare(b, m, use | (mapped ? VL_USE_FILE_PAGES : 0u), err);
}

/* In the integer modes decoder layers may be narrow, vision blocks in 8 bits; all else is kept. */
static unsigned narrow_use(const binding *r) {
    if (r->kind != LINEAR) return 0;
    return r->group == LAYER ? VL_USE_NARROW : r->group == BLOCK ? VL_USE_NARROW8 : 0;
}

/* Over several devices: what has heads or the feed-forward width on one side is parted there, which
 * the shape of a decoder matrix tells. */
static unsigned split_use(const binding *r) {
    if (r->group != LAYER || r->kind != LINEAR) return 0;
    bool out = r->rows == HE || r->rows == GE || r->rows == F, in = r->cols == HE || r->cols == F;
    return out ? VL_USE_APART : in ? VL_USE_JOIN : 0;
}

/* One row of the table, for index i of its group. */
static int bind_one(vl_weights *w, const vl_config *c, const vl_checkpoint *ckpt, const binding *r,
                    int i, vl_backend *b, vl_err *err) {
    char name[160];
    snprintf(name, sizeof name, r->name, i);
    if (r->kind == BIAS && !c->text.attention_bias) return 0;
    if (r->kind == HEAD && c->tied) {
        w->head = w->embed;
        return 0;
    }
    const vl_tensor *t = vl_checkpoint_find(ckpt, name);
    if (!t) return vl_fail(err, VL_E_MODEL, "tensor %s is missing from the checkpoint", name);
    int64_t rows = sym_value(c, r->rows), cols = sym_value(c, r->cols);
    bool codes = r->kind == LINEAR && vl_weights_quantised(t);
    if (!codes && check_tensor(t, rows, cols, err)) return -1;
    w->parameters += (uint64_t)rows * (uint64_t)cols;
    w->bytes += t->bytes;
    bool decodes = r->group == LAYER || r->kind == HEAD || (r->kind == EMBED && c->tied);
    uint8_t *field = (uint8_t *)group_base(w, r->group, i) + r->field;
    if (r->kind == VEC || r->kind == BIAS) {
        if (decodes) w->decode_bytes += t->bytes;
        return bind_vector(w, t, (const float **)(void *)field, b, err);
    }
    unsigned use = r->kind == GATHER ? VL_USE_GATHER : VL_USE_LINEAR | narrow_use(r) | split_use(r);
    if (r->kind == EMBED) use = VL_USE_GATHER | (c->tied ? VL_USE_LINEAR | VL_USE_HEAD : 0u);
    if (r->kind == HEAD) use |= VL_USE_HEAD;
    vl_matrix *m = (vl_matrix *)(void *)field;
    int unit = r->rows == HE || r->rows == GE || r->cols == HE ? c->text.E : 1;
    if (bind_matrix(m, t, rows, cols, unit, use, ckpt, b, err)) return -1;
    if (decodes) w->decode_bytes += vl_matrix_bytes(m);
    return 0;
}

/* s holds the scales of t. */
static bool scales_of(const vl_tensor *s, const vl_tensor *t) {
    size_t n = strlen(t->name);
    return !strncmp(s->name, t->name, n) && (!strcmp(s->name + n, "_scale") || !strcmp(s->name + n, "_scale_inv"));
}

/* Tensors nothing asked for: counted and the first one named, for the model's warning. */
static int count_unused(vl_weights *w, const vl_config *c, const vl_checkpoint *ckpt, size_t bound,
                        vl_err *err) {
    size_t total = vl_checkpoint_count(ckpt), n = 0;
    const vl_tensor **seen = vl_calloc(bound, sizeof *seen);
    if (!seen) return vl_fail(err, VL_E_NOMEM, "no memory");
    for (int r = 0; r < ROWS; r++)
        for (int i = 0; i < group_count(c, TABLE[r].group); i++) {
            char name[160];
            snprintf(name, sizeof name, TABLE[r].name, i);
            const vl_tensor *t = vl_checkpoint_find(ckpt, name);
            if (t && n < bound) seen[n++] = t; /* lm_head beside tied embeddings is no surprise */
        }
    for (size_t k = 0; k < total && n < total; k++) {
        const vl_tensor *t = vl_checkpoint_at(ckpt, k);
        bool found = strstr(t->name, "rotary_emb.inv_freq") != NULL; /* a derived buffer */
        for (size_t j = 0; j < n && !found; j++)
            found = seen[j] == t || (vl_weights_quantised(seen[j]) && scales_of(t, seen[j]));
        if (!found && !w->unused++) snprintf(w->unused_name, sizeof w->unused_name, "%s", t->name);
    }
    free(seen);
    return 0;
}

/* Before minutes of upload: is there room for the weights (matrices in 2 bytes, as keys are)? Of several
 * devices each has its share of what is parted, and all the rest. */
static int check_room(const vl_config *c, vl_backend *b, vl_err *err) {
    uint64_t need = 0, room = b->ops->room(b);
    for (int r = 0; r < ROWS; r++) {
        const binding *x = &TABLE[r];
        uint64_t ranks = split_use(x) || x->kind == HEAD ? (uint64_t)b->ranks : 1;
        uint64_t forms = x->kind == LINEAR && b->forms ? (uint64_t)b->forms : 1;
        uint64_t bytes = (uint64_t)sym_value(c, x->rows) * (uint64_t)sym_value(c, x->cols) *
                         (x->cols == ONE ? sizeof(float) : 2);
        if (!left_out(c, x)) need += (uint64_t)group_count(c, x->group) * forms * ((bytes + ranks - 1) / ranks);
    }
    if (need <= room) return 0;
    return vl_fail(err, VL_E_NOMEM, "the weights need %llu MiB, the GPU has %llu MiB free; end other programs "
                   "on it, take a smaller model, or use --backend cpu", (unsigned long long)(need >> 20),
                   (unsigned long long)(room >> 20));
}

int vl_weights_load(vl_weights *w, const vl_config *c, const vl_checkpoint *ckpt, vl_backend *b,
                    vl_err *err) {
    size_t bound = 0;
    memset(w, 0, sizeof *w);
    for (int r = 0; r < ROWS; r++) bound += (size_t)group_count(c, TABLE[r].group);
    w->layers = vl_calloc((size_t)c->text.layers, sizeof *w->layers);
    w->blocks = vl_calloc((size_t)c->vision.depth, sizeof *w->blocks);
    owned *own = w->owned = vl_calloc(1, sizeof *own + bound * sizeof(void *));
    if (!w->layers || !w->blocks || !own) return vl_fail(err, VL_E_NOMEM, "no memory for the weights");
    own->cap = bound;
    if (check_room(c, b, err)) return -1;
    for (int r = 0; r < ROWS; r++)
        for (int i = 0; i < group_count(c, TABLE[r].group); i++)
            if (bind_one(w, c, ckpt, &TABLE[r], i, b, err)) return -1;
    return count_unused(w, c, ckpt, bound, err);
}

bool vl_weights_bf16(const vl_weights *w, const vl_config *c, bool vision) {
    bool all = true;
#define IS_BF16(m) all &= (m).dtype == VL_BF16 || (m).dtype == VL_F8_E4M3
    for (int i = 0; vision && i < c->vision.depth; i++) {
        const vl_vision_block *b = &w->blocks[i];
        IS_BF16(b->qkv), IS_BF16(b->proj), IS_BF16(b->fc1), IS_BF16(b->fc2);
    }
    for (int i = 0; vision && i <= c->vision.n_deepstack; i++) {
        const vl_merger *m = i < c->vision.n_deepstack ? &w->deepstack[i] : &w->merger;
        IS_BF16(m->fc1), IS_BF16(m->fc2);
    }
    for (int i = 0; !vision && i < c->text.layers; i++) {
        const vl_text_layer *l = &w->layers[i];
        IS_BF16(l->q), IS_BF16(l->k), IS_BF16(l->v), IS_BF16(l->o), IS_BF16(l->gate), IS_BF16(l->up), IS_BF16(l->down);
    }
#undef IS_BF16
    return all;
}

void vl_weights_free(vl_weights *w, vl_backend *b) {
    owned *own = w->owned;
    for (size_t i = 0; own && i < own->n; i++) b->ops->release(b, own->p[i]);
    free(w->layers);
    free(w->blocks);
    free(own);
    memset(w, 0, sizeof *w);
}

int vl_weights_each(const vl_config *c, vl_weight_fn fn, void *user) {
    for (int r = 0; r < ROWS; r++) {
        const binding *x = &TABLE[r];
        if (left_out(c, x)) continue;
        for (int i = 0; i < group_count(c, x->group); i++) {
            char name[160];
            snprintf(name, sizeof name, x->name, i);
            int rc = fn(user, name, sym_value(c, x->rows), sym_value(c, x->cols));
            if (rc) return rc;
        }
    }
    return 0;
}

unsigned vl_weights_narrow(const char *name) {
    for (int r = 0; r < ROWS; r++) {
        const char *p = TABLE[r].name, *q = name;
        for (; *p && *q; p++, q++) {
            if (p[0] == '%' && *q >= '0' && *q <= '9') {
                while (q[1] >= '0' && q[1] <= '9') q++;
                p++;
            } else if (*p != *q) break;
        }
        if (!*p && !*q) return narrow_use(&TABLE[r]);
    }
    return 0;
}

void vl_weights_print(FILE *out) {
    static const char *const USE[] = {"vector", "linear", "gather", "gather + linear", "linear", "vector"};
    static const char *const COUNT[GROUPS] = {"1", "layers", "depth", "DeepStack levels"};
    fputs("| tensor | shape | copies | used as | what |\n|---|---|---|---|---|\n", out);
    for (int r = 0; r < ROWS; r++) {
        const binding *x = &TABLE[r];
        fputs("| `", out);
        for (const char *s = x->name; *s; s++) {
            if (s[0] == '%' && s[1] == 'd') fputs("{i}", out), s++;
            else fputc(*s, out);
        }
        fprintf(out, "` | [%s", SYM_NAME[x->rows]);
        if (x->cols != ONE) fprintf(out, ", %s", SYM_NAME[x->cols]);
        fprintf(out, "] | %s | %s | %s |\n", COUNT[x->group], USE[x->kind], x->what);
    }
}
