/* positions.h: all index work of the model, on the host, once per picture or row, shared bit for
 * bit by every backend. */
#ifndef VL_POSITIONS_H
#define VL_POSITIONS_H

#include "model/config.h"

/* The bilinear sampling of the square position table for a grid of h x w patches, merge-block
 * order: idx [P, 4], weight [P, 4] with P = h * w.
 * HF: vision_utils.get_vision_interpolation_indices_and_weights(align_corners=True), in f32. */
void vl_vision_interpolation(const vl_vision_config *v, int h, int w, int32_t *idx, float *weight);

/* cos, sin [P, E/2] for the same patches: the first half of the pairs rotates with the row, the
 * second with the column. HF: Qwen3VLVisionRotaryEmbedding. */
void vl_vision_rope(const vl_vision_config *v, int h, int w, float *cos, float *sin);

/* M-RoPE positions. A span is a run of text rows or one picture of (h x w) merged rows. */
typedef struct vl_span { int at, n; int h, w; int picture; } vl_span; /* h == 0: text */
/* positions [3][n] (t, h, w rows of length n) of all spans; returns the position of the next row,
 * so that row n + i of the answer sits at that value + i. HF: Qwen3VLModel.get_rope_index. */
int32_t vl_mrope_positions(const vl_span *spans, size_t n_spans, int n, int32_t *positions);

/* inv_freq [E/2] in f32, as HF computes it. */
void vl_rope_inv_freq(double theta, int E, float *inv_freq);

/* Cosines and sines of positions that were asked for lately: answers side by side meet the same ones, and a step of
 * many rows would else spend as long on them as on choosing its tokens. Of one session. */
typedef struct vl_rope_rows {
    const float *inv_freq;
    int half;                                /* E / 2                                        */
    int32_t *held;                           /* position + 1 of each row kept, 0: none       */
    float *values;                           /* of each: cos [half], sin [half]              */
} vl_rope_rows;
int vl_rope_rows_open(vl_rope_rows *r, const float *inv_freq, int E, vl_err *err);
void vl_rope_rows_free(vl_rope_rows *r);
/* One row of the interleaved cos/sin table from (t, h, w). HF: Qwen3VLTextRotaryEmbedding. */
void vl_mrope_row(const vl_text_config *t, vl_rope_rows *r, const int32_t thw[3], float *cos, float *sin);

#endif
