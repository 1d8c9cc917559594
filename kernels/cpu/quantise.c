/* quantise.c: groups of 32 weights to codes and a scale, written once with vectors of 16 and compiled for
 * each width; no sum depends on it, so every width gives the same codes.
 *
 * int4: for both signs of the scale and a few sizes around "the largest weight meets the outermost
 * code", take the nearest code of every weight, then the scale that fits these codes best (least squares);
 * keep the best. Fits within 1 % of an exhaustive search: rel-RMS 0.0734 on Gaussian weights, 0.0809
 * for 16 even steps fitted as carefully.
 */
#include "kernels/quantise.h"

#include <math.h>

/* Fitted to groups of Gaussian, Laplacian and trained weights by Lloyd's iteration with a free scale. */
const int8_t VL_Q4_CODES[16] = {-127, -99, -78, -61, -46, -33, -20, -9, 2, 13, 24, 35, 49, 64, 82, 106};

#pragma GCC diagnostic ignored "-Wpsabi" /* vectors are passed between inlined functions only */
#define INLINE static inline __attribute__((always_inline))
typedef float v16 __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t i16 __attribute__((vector_size(64), aligned(4), may_alias));

static float from_bits(uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* max |w|; NaN or infinity when the group holds one. */
INLINE float largest(const float *w) {
    const i16 *p = (const i16 *)(const void *)w;
    i16 a = p[0] & 0x7fffffff, b = p[1] & 0x7fffffff, m = a > b;
    m = (a & m) | (b & ~m);
    int32_t most = 0;
    for (int i = 0; i < 16; i++) most = m[i] > most ? m[i] : most;
    return from_bits((uint32_t)most);
}

/* Finite and not negligible: worth codes. Otherwise the scale says why. */
INLINE bool usable(float most, uint16_t *scale) {
    bool finite = most <= 0x1.fffffep+127f;
    *scale = finite ? 0 : 0x7fc0;
    return finite && most >= 0x1p-100f;
}

INLINE void int8_group(uint8_t *codes, uint16_t *scale, const float *w) {
    float most = largest(w);
    memset(codes, 0, VL_QGROUP);
    if (!usable(most, scale)) return;
    float ideal = most / 127.0f;
    *scale = vl_f32_to_bf16(ideal);
    if (vl_bf16_to_f32(*scale) < ideal) ++*scale; /* up: the largest must not be cut off */
    float inverse = 1.0f / vl_bf16_to_f32(*scale);
    for (int k = 0; k < VL_QGROUP; k++) { /* adding 1.5 * 2^23 rounds to the nearest even integer */
        float v = (w[k] * inverse + 0x1.8p23f) - 0x1.8p23f;
        v = v > 127.0f ? 127.0f : v < -127.0f ? -127.0f : v;
        codes[k] = (uint8_t)(int8_t)v;
    }
}

/* Code nearest to w * inverse, as a float; its index is added up when `index` is given. */
INLINE v16 nearest(v16 w, float inverse, i16 *index) {
    v16 y = w * inverse, code = (v16){0} + (float)VL_Q4_CODES[0];
    for (int i = 0; i < 15; i++) {
        float middle = 0.5f * (float)(VL_Q4_CODES[i] + VL_Q4_CODES[i + 1]);
        float step = (float)(VL_Q4_CODES[i + 1] - VL_Q4_CODES[i]);
        i16 above = y > middle;
        code += (v16)(above & (i16)((v16){0} + step));
        if (index) *index -= above;
    }
    return code;
}

INLINE float sum_of(v16 v) {
    float s = 0;
    for (int i = 0; i < 16; i++) s += v[i];
    return s;
}

INLINE void int4_group(uint8_t *codes, uint16_t *scale, const float *w) {
    static const float SIZES[] = {0.88f, 0.95f, 1.0f, 1.06f, 1.14f};
    const v16 *p = (const v16 *)(const void *)w;
    float most = largest(w), best = -1, fit = 0;
    memset(codes, 8, VL_QGROUP);
    if (!usable(most, scale)) return;
    for (int i = 0; i < 10; i++) {
        float inverse = 127.0f / (most * SIZES[i / 2]) * (i % 2 ? -1.0f : 1.0f);
        v16 a = nearest(p[0], inverse, NULL), b = nearest(p[1], inverse, NULL);
        float wc = sum_of(p[0] * a + p[1] * b), cc = sum_of(a * a + b * b);
        if (wc / cc * wc > best) { /* what the fit explains of sum w^2 */
            best = wc / cc * wc;
            fit = wc / cc;
        }
    }
    *scale = vl_f32_to_bf16(fit);
    float inverse = 1.0f / vl_bf16_to_f32(*scale);
    for (int half = 0; half < 2; half++) {
        i16 index = {0};
        nearest(p[half], inverse, &index);
        for (int k = 0; k < 16; k++) codes[16 * half + k] = (uint8_t)index[k];
    }
}

typedef void group_fn(uint8_t *codes, uint16_t *scales, const float *w, size_t groups);
#define GROUPS(name, one, attributes)                                                       \
    attributes static void name(uint8_t *codes, uint16_t *scales, const float *w, size_t n) { \
        for (size_t g = 0; g < n; g++)                                                      \
            one(codes + g * VL_QGROUP, scales + g, w + g * VL_QGROUP);                      \
    }
GROUPS(int8_plain, int8_group, )
GROUPS(int4_plain, int4_group, )
#if defined(__x86_64__)
GROUPS(int8_avx2, int8_group, __attribute__((target("avx2"))))
GROUPS(int4_avx2, int4_group, __attribute__((target("avx2"))))
GROUPS(int4_avx512, int4_group, __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq"))))
#endif

void vl_quantise_int8(uint8_t *codes, uint16_t *scales, const float *w, size_t groups) {
    group_fn *fn = int8_plain;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) fn = int8_avx2;
#endif
    fn(codes, scales, w, groups);
}

void vl_quantise_int4(uint8_t *codes, uint16_t *scales, const float *w, size_t groups) {
    group_fn *fn = int4_plain;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) fn = int4_avx2;
    if (__builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512bw"))
        fn = int4_avx512;
#endif
    fn(codes, scales, w, groups);
}

/* ---- reading a matrix ---------------------------------------------------------------------------- */

/* The scale of element (row, k). */
static float scale_at(const vl_matrix *m, int row, int k) {
    size_t across = ((size_t)m->cols + (size_t)m->block_cols - 1) / (size_t)m->block_cols;
    size_t at = (size_t)(row / m->block_rows) * across + (size_t)(k / m->block_cols);
    float s;
    vl_widen(&s, (const uint8_t *)m->scale + at * vl_dtype_size(m->scale_dtype), m->scale_dtype, 1);
    return s;
}

void vl_matrix_span(float *dst, const vl_matrix *m, int row, int k, int n) {
    const uint8_t *src = (const uint8_t *)m->data + (size_t)row * vl_matrix_row_bytes(m);
    vl_assert(m->dtype != VL_I8 && m->dtype != VL_U8, "%s holds codes", m->name);
    vl_widen(dst, src + (size_t)k * vl_dtype_size(m->dtype), m->dtype, (size_t)n);
    if (!m->scale) return;
    for (int i = 0; i < n;) {
        float s = scale_at(m, row, k + i);
        int end = ((k + i) / m->block_cols + 1) * m->block_cols - k;
        for (; i < n && i < end; i++) dst[i] *= s;
    }
}

void vl_matrix_codes(uint8_t *codes, uint16_t *scales, const vl_matrix *m, int row, int k, int n) {
    bool int4 = m->dtype == VL_U8;
    size_t groups = vl_q_groups((size_t)n), all = vl_q_groups((size_t)m->cols);
    const uint8_t *src = (const uint8_t *)m->data + (size_t)row * vl_matrix_row_bytes(m);
    memset(codes, int4 ? 8 : 0, groups * VL_QGROUP);
    if (int4)
        for (int i = 0; i < n; i++) codes[i] = (k + i) % 2 ? src[(k + i) / 2] >> 4 : src[(k + i) / 2] & 15;
    else memcpy(codes, src + k, (size_t)n);
    memcpy(scales, (const uint16_t *)m->scale + (size_t)row * all + (size_t)k / VL_QGROUP,
           groups * sizeof *scales);
}
