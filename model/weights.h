/* weights.h: the binding table: which Hugging Face tensor fills which field, and of what shape.
 * One table drives loading, checking, byte accounting and the generated weights.md. */
#ifndef VL_WEIGHTS_H
#define VL_WEIGHTS_H

#include <stdio.h>

#include "kernels/ops.h"
#include "loader/checkpoint.h"
#include "model/config.h"

/* Vectors (norms, biases) live on the device as f32; matrices stay as stored and are prepared by
 * the backend. */
typedef struct vl_text_layer {
    const float *input_norm, *post_norm;             /* [D]                            */
    const float *q_norm, *k_norm;                    /* [E]                            */
    vl_matrix q, k, v, o;                            /* [H*E, D] [G*E, D] [G*E, D] [D, H*E] */
    const float *q_bias, *k_bias, *v_bias, *o_bias;  /* NULL unless attention_bias     */
    vl_matrix gate, up, down;                        /* [F, D] [F, D] [D, F]           */
} vl_text_layer;

typedef struct vl_vision_block {
    const float *norm1_w, *norm1_b, *norm2_w, *norm2_b;
    vl_matrix qkv, proj, fc1, fc2;                   /* [3D, D] [D, D] [F, D] [D, F]   */
    const float *qkv_b, *proj_b, *fc1_b, *fc2_b;
} vl_vision_block;

typedef struct vl_merger {                           /* M = D * merge^2                */
    const float *norm_w, *norm_b;                    /* [D] main, [M] DeepStack        */
    vl_matrix fc1, fc2;                              /* [M, M] [out, M]                */
    const float *fc1_b, *fc2_b;
} vl_merger;

typedef struct vl_weights {
    vl_matrix embed, head;                           /* [V, D]; tied: head is embed    */
    const float *norm;                               /* [D]                            */
    vl_matrix patch;                                 /* [D, channels*temporal*patch^2] */
    const float *patch_b;
    vl_matrix pos;                                   /* [side^2, D]                    */
    vl_merger merger;
    vl_merger deepstack[VL_MAX_DEEPSTACK];
    vl_text_layer *layers;                           /* [layers]                       */
    vl_vision_block *blocks;                         /* [depth]                        */
    uint64_t parameters, bytes, decode_bytes;
    int unused;                                      /* tensors nothing asked for      */
    char unused_name[128];                           /* the first of them              */
    char not_finite[128];                            /* a vector with NaN or infinity, or "" */
    void *owned;                                     /* host and device blocks to free */
} vl_weights;

/* Binds every tensor; names the first that is missing, misshapen or of a type that is no float. */
int vl_weights_load(vl_weights *w, const vl_config *c, const vl_checkpoint *ckpt, vl_backend *b,
                    vl_err *err);
/* Whether the products of the blocks (vision) or layers are all with bf16 weights, or FP8, which become bf16. */
bool vl_weights_bf16(const vl_weights *w, const vl_config *c, bool vision);
void vl_weights_free(vl_weights *w, vl_backend *b);
/* Every tensor that a checkpoint of this shape holds, in the order of the table (cols 1: a vector).
 * Stops when fn returns non-zero, and returns that. */
typedef int (*vl_weight_fn)(void *user, const char *name, int64_t rows, int64_t cols);
int vl_weights_each(const vl_config *c, vl_weight_fn fn, void *user);
/* What the matrix `name` of a checkpoint is used for: VL_USE_NARROW or VL_USE_NARROW8 where the integer
 * modes may make it narrow, else 0. */
unsigned vl_weights_narrow(const char *name);
/* Quantised checkpoints (weights_scales.c). mode: "int8", "int4" or NULL: none, or FP8, which any mode reads. */
bool vl_weights_quantised(const vl_tensor *t);
const char *vl_weights_mode(const vl_checkpoint *ckpt);
/* Checks t, finds the scales of m and checks them. mode: what the backend computes in. */
int vl_weights_scales(vl_matrix *m, const vl_checkpoint *ckpt, const vl_tensor *t, const char *mode, vl_err *err);
/* The table itself as Markdown, for weights.md. */
void vl_weights_print(FILE *out);

#endif
