/* vision.c: HF Qwen3VLVisionModel.
 *
 *   pixel_values [P, 3*temporal*patch^2]
 *     -> patch_embed (a matrix) + position table sampled at the grid        x [P, D]
 *     -> depth x { x += proj(attention(rope(qkv(norm1 x))));  x += fc2(gelu_tanh(fc1(norm2 x))) }
 *     -> merger: LayerNorm, group 2x2, fc1, gelu_erf, fc2                   [P/4, text D]
 *   after the blocks named by deepstack_visual_indexes: a merger of its own on x.
 *
 * Easy to get wrong:
 *   - the main merger normalises before grouping (width D), DeepStack after it (width 4D);
 *   - MLPs use tanh-GELU, mergers erf-GELU;
 *   - rows are in merge-block order throughout, so "group 2x2" is just a view of 4 rows;
 *   - attention sees the whole picture, and no other picture.
 *
 * Memory: x, attention output and qkv are O(P); everything wider is computed in tiles of rows. */
#include "model/vision.h"

#include <math.h>
#include <stdlib.h>

enum { TILE = 1024 }; /* patch rows per tile of the wide intermediates */

struct vl_vision {
    const vl_model *m;
    vl_backend *b;
    int capacity;                 /* patches the scratch holds */
    void *device, *host;
    /* device */
    float *x, *attn, *qkv;        /* [P, D] [P, D] [P, 3D]     */
    float *norm, *wide, *pixels;  /* [TILE, D] [TILE, max(F, D)] [TILE, K] */
    float *cos, *sin;             /* [P, E/2]                  */
    float *pos_weight;            /* [P, 4]                    */
    int32_t *pos_idx, *cu;        /* [P, 4] [2]                */
    /* host staging for the index work */
    float *h_cos, *h_sin, *h_pos_weight;
    int32_t *h_pos_idx;
    /* the picture being encoded */
    const vl_picture *picture;
    const vl_features *out;
    int P, next;
};

size_t vl_features_bytes(const vl_model *m, int tokens) {
    return (size_t)tokens * (size_t)m->config.text.D * sizeof(float) *
           (size_t)(1 + m->config.vision.n_deepstack);
}

void vl_features_place(vl_features *f, const vl_model *m, int tokens, void *block) {
    size_t n = (size_t)tokens * (size_t)m->config.text.D;
    f->main = block;
    f->tokens = tokens;
    for (int k = 0; k < m->config.vision.n_deepstack; k++) f->deep[k] = f->main + (size_t)(k + 1) * n;
}

static int tile_rows(const vl_vision_config *c) {
    int group = c->merge * c->merge;
    return TILE / group * group;
}

static void layout_device(vl_vision *v, vl_arena *a, size_t P) {
    const vl_vision_config *c = &v->m->config.vision;
    size_t D = (size_t)c->D, F = (size_t)c->F, R = (size_t)tile_rows(c);
    size_t K = (size_t)(c->channels * c->temporal * c->patch * c->patch);
    if (R > P) R = P;
    v->x = vl_carve(a, P * D, sizeof(float));
    v->attn = vl_carve(a, P * D, sizeof(float));
    v->qkv = vl_carve(a, P * 3 * D, sizeof(float));
    v->norm = vl_carve(a, R * D, sizeof(float));
    v->wide = vl_carve(a, R * (F > D ? F : D), sizeof(float));
    v->pixels = vl_carve(a, R * K, sizeof(float));
    v->cos = vl_carve(a, P * (size_t)c->E / 2, sizeof(float));
    v->sin = vl_carve(a, P * (size_t)c->E / 2, sizeof(float));
    v->pos_weight = vl_carve(a, P * 4, sizeof(float));
    v->pos_idx = vl_carve(a, P * 4, sizeof(int32_t));
    v->cu = vl_carve(a, 2, sizeof(int32_t));
}

static void layout_host(vl_vision *v, vl_arena *a, size_t P) {
    size_t half = (size_t)v->m->config.vision.E / 2;
    v->h_cos = vl_carve(a, P * half, sizeof(float));
    v->h_sin = vl_carve(a, P * half, sizeof(float));
    v->h_pos_weight = vl_carve(a, P * 4, sizeof(float));
    v->h_pos_idx = vl_carve(a, P * 4, sizeof(int32_t));
}

int vl_vision_open(vl_vision **out, const vl_model *m, vl_err *err) {
    vl_vision *v = vl_calloc(1, sizeof *v);
    if (!v) return vl_fail(err, VL_E_NOMEM, "no memory for the vision tower");
    v->m = m;
    v->b = m->backend;
    *out = v;
    return 0;
}

static void drop_scratch(vl_vision *v) {
    if (v->device) v->b->ops->release(v->b, v->device);
    free(v->host);
    v->device = v->host = NULL;
    v->capacity = 0;
}

void vl_vision_free(vl_vision *v) {
    if (!v) return;
    drop_scratch(v);
    free(v);
}

/* What encoding P patches takes on the backend: the state, and what attention and products keep beside
 * it (keys and values, packed rows). */
static size_t needed(vl_vision *v, size_t P) {
    const vl_vision_config *c = &v->m->config.vision;
    vl_arena a = {0};
    layout_device(v, &a, P);
    return a.used + P * (size_t)(3 * c->D) * v->b->kv_elem;
}

/* Is there room for P patches? If not, says how big a picture may be. */
static int check_room(vl_vision *v, size_t P, vl_err *err) {
    const vl_vision_config *c = &v->m->config.vision;
    size_t room = v->b->ops->room(v->b), need = needed(v, P), group = (size_t)(c->merge * c->merge);
    size_t low = 0, high = P / group; /* groups of patches: low fit, high do not */
    if (need <= room) return 0;
    while (high - low > 1) {
        size_t middle = (low + high) / 2;
        if (needed(v, middle * group) <= room) low = middle;
        else high = middle;
    }
    size_t side = (size_t)c->patch, pixels = side * side;
    if (low == 0)
        return vl_fail(err, VL_E_NOMEM, "the GPU has %zu MiB free, too little for any picture; end other "
                       "programs on it, or use --backend cpu", room >> 20);
    return vl_fail(err, VL_E_NOMEM, "a picture of %zu pixels needs %zu MiB to encode, the GPU has %zu MiB "
                   "free: at most %zu pixels fit; lower max_pixels to that, or use --backend cpu",
                   P * pixels, need >> 20, room >> 20, low * group * pixels);
}

int vl_vision_reserve(vl_vision *v, int patches, vl_err *err) {
    if (patches <= v->capacity) return 0;
    vl_assert(!v->picture, "scratch cannot grow while a picture is being encoded");
    vl_arena dev = {0}, host = {0};
    drop_scratch(v);
    if (check_room(v, (size_t)patches, err)) return -1;
    layout_device(v, &dev, (size_t)patches);
    layout_host(v, &host, (size_t)patches);
    v->device = v->b->ops->alloc(v->b, dev.used);
    v->host = vl_calloc(host.used, 1);
    if (!v->device || !v->host) {
        int fault = v->host ? v->b->ops->sync(v->b, err) : 0; /* then it is not for want of memory */
        drop_scratch(v);
        return fault ? -1 : vl_fail(err, VL_E_NOMEM, "a picture of %d patches needs %zu MiB to encode; lower "
                       "max_pixels", patches, (dev.used + host.used) >> 20);
    }
    dev = (vl_arena){v->device, 0};
    host = (vl_arena){v->host, 0};
    layout_device(v, &dev, (size_t)patches);
    layout_host(v, &host, (size_t)patches);
    v->capacity = patches;
    if (vl_weights_bf16(&v->m->weights, &v->m->config, true)) {
        const vl_vision_config *c = &v->m->config.vision;
        size_t P = (size_t)patches, R = (size_t)tile_rows(c) < P ? (size_t)tile_rows(c) : P;
        v->b->ops->only_linear(v->b, v->norm, R * (size_t)c->D);
        v->b->ops->only_linear(v->b, v->attn, P * (size_t)c->D);
        v->b->ops->only_linear(v->b, v->wide, R * (size_t)(c->F > c->D ? c->F : c->D));
    }
    return 0;
}

void vl_vision_begin(vl_vision *v, const vl_picture *p, const vl_features *out) {
    vl_assert(p->patches <= v->capacity, "%d patches, room for %d", p->patches, v->capacity);
    v->picture = p;
    v->out = out;
    v->P = p->patches;
    v->next = 0;
}

/* Positions, rotations and the segment table of this grid, computed on the host and uploaded. */
static void upload_indices(vl_vision *v) {
    const vl_vision_config *c = &v->m->config.vision;
    const vl_ops *o = v->b->ops;
    const vl_picture_info *info = &v->picture->info;
    size_t P = (size_t)v->P, half = (size_t)c->E / 2;
    const int32_t cu[2] = {0, v->P};
    vl_vision_interpolation(c, info->grid_h, info->grid_w, v->h_pos_idx, v->h_pos_weight);
    vl_vision_rope(c, info->grid_h, info->grid_w, v->h_cos, v->h_sin);
    o->put(v->b, v->pos_idx, v->h_pos_idx, P * 4 * sizeof(int32_t));
    o->put(v->b, v->pos_weight, v->h_pos_weight, P * 4 * sizeof(float));
    o->put(v->b, v->cos, v->h_cos, P * half * sizeof(float));
    o->put(v->b, v->sin, v->h_sin, P * half * sizeof(float));
    o->put(v->b, v->cu, cu, sizeof cu);
}

/* x = patch_embed(pixel_values) + pos_embed(grid) */
static void embed(vl_vision *v) {
    const vl_weights *w = &v->m->weights;
    const vl_ops *o = v->b->ops;
    int D = v->m->config.vision.D, K = v->picture->width, R = tile_rows(&v->m->config.vision);
    upload_indices(v);
    for (int at = 0; at < v->P; at += R) {
        int n = v->P - at < R ? v->P - at : R;
        o->put(v->b, v->pixels, v->picture->values + (size_t)at * (size_t)K,
               (size_t)n * (size_t)K * sizeof(float));
        o->linear(v->b, v->x + (size_t)at * (size_t)D, D, v->pixels, K, n, &w->patch, w->patch_b,
                  VL_EPI_NONE);
    }
    o->tap(v->b, "model.visual.patch_embed", -1, v->x, v->P, D);
    o->pos_embed(v->b, v->attn, &w->pos, v->pos_idx, v->pos_weight, v->P);
    o->tap(v->b, "model.visual.pos_embed", -1, v->attn, v->P, D);
    o->add_rows(v->b, v->x, NULL, v->attn, NULL, v->P, D);
}

/* HF Qwen3VLVisionBlock */
static void block(vl_vision *v, int i) {
    const vl_vision_config *c = &v->m->config.vision;
    const vl_vision_block *w = &v->m->weights.blocks[i];
    const vl_ops *o = v->b->ops;
    int D = c->D, F = c->F, P = v->P, R = tile_rows(c);
    for (int at = 0; at < P; at += R) {                                         /* tile of n rows */
        int n = P - at < R ? P - at : R;
        size_t row = (size_t)at;
        o->layernorm(v->b, v->norm, v->x + row * (size_t)D, w->norm1_w, w->norm1_b, n, D, 1e-6f);
        o->linear(v->b, v->qkv + row * 3 * (size_t)D, 3 * D, v->norm, D, n, &w->qkv, w->qkv_b,
                  VL_EPI_NONE);                                                 /* [n, 3, H, E]   */
    }
    o->rope_vision(v->b, v->qkv, v->cos, v->sin, P, c->H, c->E);
    o->attend_full(v->b, v->attn, v->qkv, v->cu, 1, P, c->H, c->E, 1.0f / sqrtf((float)c->E));
    o->linear(v->b, v->x, D, v->attn, D, P, &w->proj, w->proj_b, VL_EPI_ADD);   /* [P, D]         */
    for (int at = 0; at < P; at += R) {
        int n = P - at < R ? P - at : R;
        float *x = v->x + (size_t)at * (size_t)D;
        o->layernorm(v->b, v->norm, x, w->norm2_w, w->norm2_b, n, D, 1e-6f);
        o->linear(v->b, v->wide, F, v->norm, D, n, &w->fc1, w->fc1_b, VL_EPI_GELU_TANH); /* [n, F] */
        o->linear(v->b, x, D, v->wide, F, n, &w->fc2, w->fc2_b, VL_EPI_ADD);    /* [n, D]         */
    }
    o->tap(v->b, "model.visual.blocks", i, v->x, P, D);
}

/* HF Qwen3VLVisionPatchMerger; grouped: DeepStack's normalisation after grouping. */
static void merge(vl_vision *v, const vl_merger *w, bool grouped, float *out) {
    const vl_vision_config *c = &v->m->config.vision;
    const vl_ops *o = v->b->ops;
    int g = c->merge * c->merge, M = c->D * g, R = tile_rows(c);
    for (int at = 0; at < v->P; at += R) {
        int n = v->P - at < R ? v->P - at : R;
        const float *x = v->x + (size_t)at * (size_t)c->D;
        o->layernorm(v->b, v->qkv, x, w->norm_w, w->norm_b, grouped ? n / g : n, grouped ? M : c->D,
                     1e-6f);                                        /* four rows of D are one of M */
        o->linear(v->b, v->wide, M, v->qkv, M, n / g, &w->fc1, w->fc1_b, VL_EPI_GELU_ERF);
        o->linear(v->b, out + (size_t)(at / g) * (size_t)c->out, c->out, v->wide, M, n / g, &w->fc2,
                  w->fc2_b, VL_EPI_NONE);                                       /* [n/4, text D]  */
    }
}

bool vl_vision_step(vl_vision *v, int *done, int *total) {
    const vl_vision_config *c = &v->m->config.vision;
    int step = v->next++, tokens = v->out->tokens;
    if (step == 0) {
        embed(v);
    } else if (step <= c->depth) {
        block(v, step - 1);
        for (int k = 0; k < c->n_deepstack; k++)
            if (c->deepstack[k] == step - 1) {
                merge(v, &v->m->weights.deepstack[k], true, v->out->deep[k]);
                v->b->ops->tap(v->b, "model.visual.deepstack_merger_list", k, v->out->deep[k], tokens,
                               c->out);
            }
    } else {
        merge(v, &v->m->weights.merger, false, v->out->main);
        v->b->ops->tap(v->b, "model.visual.merger", -1, v->out->main, tokens, c->out);
    }
    *done = v->next;
    *total = c->depth + 2;
    if (v->next < c->depth + 2) return true;
    v->picture = NULL;
    return false;
}

void vl_vision_abort(vl_vision *v) { v->picture = NULL; }
