/* vision.h: the vision tower: patches -> merged tokens, one block at a time, so that an answer to
 * somebody else or a cancellation never waits for more than one block. */
#ifndef VL_VISION_H
#define VL_VISION_H

#include "model/model.h"

/* What a picture becomes: tokens rows of text width, from the main merger and each DeepStack one. */
typedef struct vl_features {
    float *main;                              /* [tokens, D] device            */
    float *deep[VL_MAX_DEEPSTACK];            /* [tokens, D] device            */
    int tokens;
} vl_features;
size_t vl_features_bytes(const vl_model *m, int tokens);
/* Places main and deep inside one device block of vl_features_bytes(). */
void vl_features_place(vl_features *f, const vl_model *m, int tokens, void *block);

typedef struct vl_vision vl_vision;
int vl_vision_open(vl_vision **out, const vl_model *m, vl_err *err);
void vl_vision_free(vl_vision *v);
/* Scratch for pictures of up to `patches`; memory O(patches). The only place that allocates. */
int vl_vision_reserve(vl_vision *v, int patches, vl_err *err);

/* begin, then step until it returns false: 0 embeds the patches, then one block each, then the
 * merger. `done` of `total` steps are for a progress bar. */
void vl_vision_begin(vl_vision *v, const vl_picture *p, const vl_features *out);
bool vl_vision_step(vl_vision *v, int *done, int *total);
void vl_vision_abort(vl_vision *v);

#endif
