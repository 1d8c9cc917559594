/* positions.c: where every patch and token sits.
 *
 * Easy to get wrong:
 *   - the position table is sampled with align_corners=True: patch i of n reads i * (side-1) / (n-1);
 *   - patches come in merge-block order (block row, block column, row, column inside the block);
 *   - M-RoPE is interleaved: frequency j turns with h if j % 3 == 1, with w if j % 3 == 2 (below
 *     three times their section), else with t;
 *   - after a picture the text goes on at max(t, h, w) + 1, not at the row count. */
#include "model/positions.h"

#include <math.h>
#include <stdlib.h>

/* Patch p of a merge-block ordered grid w patches wide -> its row and column. */
static void patch_at(int p, int w, int m, int *row, int *col) {
    int in_col = p % m, in_row = p / m % m, block = p / (m * m), blocks_w = w / m;
    *row = block / blocks_w * m + in_row;
    *col = block % blocks_w * m + in_col;
}

/* One axis: two taps and their weights (HF _interpolation_axis_taps_weights, bilinear, f32). */
static void axis_taps(int i, int n, int side, int tap[2], float weight[2]) {
    float src = (float)i * (float)(side - 1) / (float)(n > 1 ? n - 1 : 1), floor_src = floorf(src);
    for (int k = 0; k < 2; k++) {
        int at = (int)floor_src + k;
        tap[k] = at < side ? at : side - 1;
        weight[k] = fmaxf(1.0f - fabsf(src - floor_src - (float)k), 0.0f);
    }
}

void vl_vision_interpolation(const vl_vision_config *v, int h, int w, int32_t *idx, float *weight) {
    for (int p = 0; p < h * w; p++) {
        int row, col, tap_h[2], tap_w[2];
        float wh[2], ww[2];
        patch_at(p, w, v->merge, &row, &col);
        axis_taps(row, h, v->side, tap_h, wh);
        axis_taps(col, w, v->side, tap_w, ww);
        for (int k = 0; k < 4; k++) {
            idx[4 * p + k] = tap_h[k / 2] * v->side + tap_w[k % 2];
            weight[4 * p + k] = wh[k / 2] * ww[k % 2];
        }
    }
}

void vl_rope_inv_freq(double theta, int E, float *inv_freq) {
    for (int j = 0; j < E / 2; j++)
        inv_freq[j] = 1.0f / (float)pow(theta, (double)((float)(2 * j) / (float)E));
}

/* The angle is rounded to f32 as in HF; its cosine and sine are then exact to f32. */
static void rotate_to(float position, float inv_freq, float *cos_out, float *sin_out) {
    double angle = (double)(position * inv_freq);
    *cos_out = (float)cos(angle);
    *sin_out = (float)sin(angle);
}

void vl_vision_rope(const vl_vision_config *v, int h, int w, float *cos_out, float *sin_out) {
    int half = v->E / 2, quarter = v->E / 4;
    float inv_freq[1024]; /* [E/4]; config.c bounds E by 4096 */
    vl_assert(quarter <= 1024, "vision head width %d", v->E);
    vl_rope_inv_freq(v->theta, half, inv_freq);
    for (int p = 0; p < h * w; p++) {
        int at[2];
        patch_at(p, w, v->merge, &at[0], &at[1]);
        for (int j = 0; j < half; j++)
            rotate_to((float)at[j / quarter], inv_freq[j % quarter], cos_out + (size_t)p * (size_t)half + j,
                      sin_out + (size_t)p * (size_t)half + j);
    }
}

int32_t vl_mrope_positions(const vl_span *spans, size_t n_spans, int n, int32_t *positions) {
    int32_t next = 0, *t = positions, *h = positions + n, *w = positions + 2 * (size_t)n;
    for (size_t s = 0; s < n_spans; s++) {
        const vl_span *sp = &spans[s];
        for (int i = 0; i < sp->n; i++) {
            int row = sp->at + i;
            bool text = sp->h == 0;
            t[row] = next + (text ? i : 0);
            h[row] = next + (text ? i : i / sp->w);
            w[row] = next + (text ? i : i % sp->w);
        }
        next += sp->h == 0 ? sp->n : sp->h > sp->w ? sp->h : sp->w;
    }
    return next;
}

enum { KEPT = 1024 };                        /* rows; a power of two */

int vl_rope_rows_open(vl_rope_rows *r, const float *inv_freq, int E, vl_err *err) {
    size_t half = (size_t)E / 2;
    *r = (vl_rope_rows){inv_freq, E / 2, vl_calloc(KEPT, sizeof *r->held), vl_calloc(KEPT * 2 * half, sizeof *r->values)};
    if (r->held && r->values) return 0;
    vl_rope_rows_free(r);
    return vl_fail(err, VL_E_NOMEM, "no memory for the angles of %d positions", KEPT);
}

void vl_rope_rows_free(vl_rope_rows *r) {
    free(r->held);
    free(r->values);
    *r = (vl_rope_rows){0};
}

static const float *rope_of(vl_rope_rows *r, int32_t position) {
    size_t at = (size_t)position & (KEPT - 1), half = (size_t)r->half;
    float *v = r->values + at * 2 * half;
    if (r->held[at] == position + 1) return v;
    for (size_t j = 0; j < half; j++) rotate_to((float)position, r->inv_freq[j], v + j, v + half + j);
    r->held[at] = position + 1;
    return v;
}

void vl_mrope_row(const vl_text_config *t, vl_rope_rows *r, const int32_t thw[3], float *cos_out, float *sin_out) {
    size_t half = (size_t)r->half;
    for (int axis = 0; axis < 3; axis++) {   /* the first has all; the others take theirs over it */
        if (axis && thw[axis] == thw[0]) continue;
        const float *v = rope_of(r, thw[axis]);
        if (axis == 0) {
            memcpy(cos_out, v, half * sizeof *v);
            memcpy(sin_out, v + half, half * sizeof *v);
        }
        for (size_t j = (size_t)axis; axis && j < half && j < 3 * (size_t)t->mrope[axis]; j += 3) {
            cos_out[j] = v[j];
            sin_out[j] = v[half + j];
        }
    }
}
