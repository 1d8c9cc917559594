/* model.h: what vl_model, vl_picture and vl_prompt are inside. */
#ifndef VL_MODEL_H
#define VL_MODEL_H

#include <stdatomic.h>

#include "model/config.h"
#include "model/packed.h"
#include "model/positions.h"
#include "model/preprocess.h"
#include "model/weights.h"
#include "tokenizer/tokenizer.h"

struct vl_model {
    vl_config config;
    vl_preprocess_config preprocess;
    vl_checkpoint *checkpoint;
    vl_packed *packed;                 /* pack cache in use, or NULL     */
    vl_backend *plain;                 /* the backend without decorators */
    vl_tokenizer *tokenizer;
    vl_backend *backend;               /* what ops are called on        */
    vl_backend *tap;                   /* the tap decorator inside it   */
    vl_weights weights;
    float *inv_freq;                   /* [E/2] */
    vl_model_info info;
    char dir[4096], name[256], dtype[16], warning[1024], pack_note[512];
};

/* 0, or -1 if a mapped file of the model shrank or could not be read. */
int vl_model_check(const vl_model *m, vl_err *err);

/* Puts a decorator that times every op (kernels/ops_trace.h) on the model's backend, before any session
 * is opened; it is closed with the model. */
int vl_model_trace_ops(vl_model *m, vl_backend **trace, vl_err *err);

struct vl_picture {
    atomic_int refs;
    vl_picture_info info;
    float *values;                     /* [P, width] host */
    int patches, width;
};

struct vl_prompt {
    vl_ids ids;                        /* picture placeholders expanded */
    vl_picture **pictures;             /* counted references            */
    int n_pictures;
    vl_span *spans;                    /* text runs and pictures, in order */
    size_t n_spans;
    int image_tokens;
};

#endif
