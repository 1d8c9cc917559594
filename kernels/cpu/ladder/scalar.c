/* scalar.c: the rungs that are plain C. */
#include <math.h>

#include "kernels/cpu/ladder/ladder.h"

/* ---- linear, rung 1: the formula -----------------------------------------------------------------
 * out[t][n] = sum over k of x[t][k] W[n][k]. Each sum is one chain: an addition waits for the one
 * before it, about 4 cycles, while the core could do 64 of them. And all of W comes past again for
 * every row of x. */
void linear_naive_scalar(const lad_linear *a) {
    for (size_t t = 0; t < a->T; t++)
        for (size_t n = 0; n < a->N; n++) {
            float sum = 0;
            for (size_t k = 0; k < a->K; k++)
                sum += a->x[t * a->K + k] * vl_bf16_to_f32(a->w[n * a->K + k]);
            a->out[t * a->N + n] = sum;
        }
}

/* ---- linear, rung 2: blocks ----------------------------------------------------------------------
 *
 *                 k0     k0 + 256
 *         W  n0  +--------+            64 x 256 values, 32 KB: read from memory once, then met by
 *                | block  |            all T rows of x while it lies in the first-level cache.
 *         n0 + 64+--------+            W crosses the memory bus once instead of T times.
 *
 * The sum over k is now a sum of block sums, which also rounds less (ukernels.h). */
static float dot(const float *x, const uint16_t *w, size_t n) {
    float sum = 0;
    for (size_t k = 0; k < n; k++) sum += x[k] * vl_bf16_to_f32(w[k]);
    return sum;
}

void linear_blocked_scalar(const lad_linear *a) {
    memset(a->out, 0, a->T * a->N * sizeof *a->out);
    for (size_t n0 = 0; n0 < a->N; n0 += LAD_NB)
        for (size_t k0 = 0; k0 < a->K; k0 += LAD_KB) {
            size_t kc = a->K - k0 < LAD_KB ? a->K - k0 : LAD_KB;
            for (size_t t = 0; t < a->T; t++)
                for (size_t n = n0; n < n0 + LAD_NB; n++)
                    a->out[t * a->N + n] += dot(a->x + t * a->K + k0, a->w + n * a->K + k0, kc);
        }
}

/* ---- attention, rung 1: the formula --------------------------------------------------------------
 * For each head: scores [P, P] = q k^T / sqrt(E); each row through softmax (its largest value is
 * taken off first, or exp overflows); out = scores v. A picture of 1024 x 1024 has 4096 patches: 64
 * MB of scores for one head, written, read and read again. */
static const float *row_of(const lad_attention *a, size_t p, size_t which, size_t h) {
    return a->qkv + ((p * 3 + which) * a->H + h) * LAD_E; /* which: 0 q, 1 k, 2 v */
}

static float score(const lad_attention *a, size_t i, size_t j, size_t h) {
    const float *q = row_of(a, i, 0, h), *k = row_of(a, j, 1, h);
    float sum = 0;
    for (size_t e = 0; e < LAD_E; e++) sum += q[e] * k[e];
    return sum * 0.125f; /* 1 / sqrt(64) */
}

static void softmax(float *s, size_t n) {
    float top = s[0], sum = 0;
    for (size_t j = 1; j < n; j++) top = fmaxf(top, s[j]);
    for (size_t j = 0; j < n; j++) sum += s[j] = expf(s[j] - top);
    for (size_t j = 0; j < n; j++) s[j] /= sum;
}

void attention_naive_scalar(const lad_attention *a) {
    size_t P = a->P;
    for (size_t h = 0; h < a->H; h++) {
        for (size_t i = 0; i < P; i++)
            for (size_t j = 0; j < P; j++) a->scores[i * P + j] = score(a, i, j, h);
        for (size_t i = 0; i < P; i++) softmax(a->scores + i * P, P);
        for (size_t i = 0; i < P; i++)
            for (size_t e = 0; e < LAD_E; e++) {
                float sum = 0;
                for (size_t j = 0; j < P; j++) sum += a->scores[i * P + j] * row_of(a, j, 2, h)[e];
                a->out[(i * a->H + h) * LAD_E + e] = sum;
            }
    }
}

/* ---- attention, rung 2: online softmax (Milakov and Gimelshein, 2018) ----------------------------
 * One pass over the keys with three running values: top, the largest score so far; sum, of
 * exp(score - top); o [E], of exp(score - top) v. When a larger score comes, what was summed under
 * the old top is worth exp(old - new) as much. No row of scores exists, so memory is O(E). */
void attention_online_scalar(const lad_attention *a) {
    for (size_t h = 0; h < a->H; h++)
        for (size_t i = 0; i < a->P; i++) {
            float top = -INFINITY, sum = 0, o[LAD_E] = {0};
            for (size_t j = 0; j < a->P; j++) {
                float s = score(a, i, j, h), old = top;
                top = fmaxf(top, s);
                float fix = expf(old - top), p = expf(s - top);
                const float *v = row_of(a, j, 2, h);
                for (size_t e = 0; e < LAD_E; e++) o[e] = o[e] * fix + p * v[e];
                sum = sum * fix + p;
            }
            for (size_t e = 0; e < LAD_E; e++) a->out[(i * a->H + h) * LAD_E + e] = o[e] / sum;
        }
}
