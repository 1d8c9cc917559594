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

/* inv_freq [E/2] in f32, as HF computes it; and one row of the interleaved cos/sin table from
 * (t, h, w). HF: Qwen3VLTextRotaryEmbedding. */
void vl_rope_inv_freq(double theta, int E, float *inv_freq);
void vl_mrope_row(const vl_text_config *t, const float *inv_freq, const int32_t thw[3], float *cos,
                  float *sin);

#endif
