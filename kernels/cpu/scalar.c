/* scalar.c: the reference of every slot, in plain C with double accumulators. It is the oracle of
 * tests/kernels and the tier that runs everywhere; its signatures are documented in ukernels.h.
 *
 * Easy to get wrong: a gemm rounds to float once per block of VL_KC or VL_KC_PAIRS, as the fast tiers do, so that
 * gemv must round at the same places; GELU-tanh and GELU-erf are different functions (blocks use
 * tanh, mergers use erf); the variance of LayerNorm is the biased one.
 */
#include <math.h>

#include "kernels/cpu/ukernels.h"

static double weight_bf16(const void *panel, int k, int col) {
    uint32_t pair = ((const uint32_t *)panel)[(size_t)(k / 2) * VL_NR + (size_t)col];
    return (double)vl_bf16_to_f32((uint16_t)(k % 2 ? pair >> 16 : pair & 0xffff));
}
static double weight_f32(const void *panel, int k, int col) {
    return (double)((const float *)panel)[(size_t)k * VL_NR + (size_t)col];
}
static double weight_wide(const void *panel, int k, int col) {
    return (double)((const float *)panel)[(size_t)k * VL_WIDE + (size_t)col];
}
void widen_bf16_scalar(float *dst, size_t ld, const uint32_t *panel, int kc) {
    for (int k = 0; k < kc; k++)
        for (int j = 0; j < VL_NR; j++) {
            uint32_t pair = panel[(size_t)(k / 2) * VL_NR + (size_t)j];
            dst[(size_t)k * ld + (size_t)j] = vl_bf16_to_f32((uint16_t)(k % 2 ? pair >> 16 : pair & 0xffff));
        }
}

static double x_f32(const void *a, size_t lda, int k, int r) {
    return (double)((const float *)a)[(size_t)k * lda + (size_t)r];
}
static double x_pairs(const void *a, size_t lda, int k, int r) {
    uint32_t pair = ((const uint32_t *)a)[(size_t)(k / 2) * lda + (size_t)r];
    return (double)vl_bf16_to_f32((uint16_t)(k % 2 ? pair >> 16 : pair & 0xffff));
}

static void gemm(float *c, const void *a, size_t lda, const void *panel, int kc, int rows, bool add, int columns,
                 double (*x)(const void *, size_t, int, int), double (*weight)(const void *, int, int)) {
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < columns; j++) {
            double s = 0;
            for (int k = 0; k < kc; k++)
                s += x(a, lda, k, r) * weight(panel, k, j);
            float *out = &c[r * columns + j];
            *out = add ? *out + (float)s : (float)s;
        }
}
void gemm_f32_scalar(float *c, const void *a, size_t lda, const void *panel, int kc,
                           int rows, bool add) {
    gemm(c, a, lda, panel, kc, rows, add, VL_NR, x_f32, weight_f32);
}
void gemm_wide_scalar(float *c, const void *a, size_t lda, const void *panel, int kc, int rows, bool add) {
    gemm(c, a, lda, panel, kc, rows, add, VL_WIDE, x_f32, weight_wide);
}
void gemm_dpbf16_scalar(float *c, const void *a, size_t lda, const void *panel, int kc, int rows,
                        bool add) {
    gemm(c, a, lda, panel, kc, rows, add, VL_NR, x_pairs, weight_bf16);
}

void gemm_tiles_scalar(const vl_tile_sum *t) {
    for (int r = 0; r < t->rows; r++)
        for (int j = 0; j < VL_NR; j++) {
            const uint32_t *row = t->a + (size_t)r * t->lda;
            float *out = &t->c[r * VL_NR + j];
            double s = 0;
            for (int k = 0; k < t->kc; k++)
                for (int p = t->part ? VL_PARTS - 1 : 0; p >= 0; p--)
                    s += x_pairs(row + (size_t)(k / 32) * t->step + (size_t)p * t->part, 1, k % 32, 0) *
                         weight_bf16(t->panel, k, j);
            *out = t->add ? *out + (float)s : (float)s;
        }
}
void tiles_end_scalar(void) {}

static void gemv(float *y, const void *x, size_t ldx, const void *panel, int K, int rows, int block,
                 double (*value)(const void *, size_t, int, int),
                 double (*weight)(const void *, int, int)) {
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < VL_NR; j++) {
            float total = 0;
            for (int k0 = 0; k0 < K; k0 += block) {
                double s = 0;
                for (int k = k0; k < K && k < k0 + block; k++)
                    s += value((const float *)x + (size_t)r * ldx, 1, k, 0) * weight(panel, k, j);
                total = k0 ? total + (float)s : (float)s;
            }
            y[r * VL_NR + j] = total;
        }
}
void gemv_bf16_scalar(float *y, const void *x, size_t ldx, const void *panel, int K, int rows) {
    gemv(y, x, ldx, panel, K, rows, VL_KC, x_f32, weight_bf16);
}
void gemv_f32_scalar(float *y, const void *x, size_t ldx, const void *panel, int K, int rows) {
    gemv(y, x, ldx, panel, K, rows, VL_KC, x_f32, weight_f32);
}
void gemv_dpbf16_scalar(float *y, const void *x, size_t ldx, const void *panel, int K, int rows) {
    gemv(y, x, ldx, panel, K, rows, VL_KC_PAIRS, x_pairs, weight_bf16);
}

void pack_bf16_scalar(uint32_t *panel, const uint16_t *w, size_t ldw, int rows, int K) {
    for (int r = 0; r < VL_NR; r++)
        for (int k = 0; k < K; k += 2) {
            uint32_t lo = 0, hi = 0;
            if (r < rows) {
                lo = w[(size_t)r * ldw + (size_t)k];
                if (k + 1 < K) hi = w[(size_t)r * ldw + (size_t)k + 1];
            }
            panel[(size_t)(k / 2) * VL_NR + (size_t)r] = lo | hi << 16;
        }
}

void pack_rows_scalar(float *dst, const float *x, size_t ldx, int rows, int K, int mr) {
    for (int k = 0; k < K; k++)
        for (int r = 0; r < mr; r++)
            dst[(size_t)k * (size_t)mr + (size_t)r] =
                r < rows ? x[(size_t)r * ldx + (size_t)k] : 0.0f;
}

static uint32_t rounded(float x) {
    return fabsf(x) < 0x1p-126f ? (signbit(x) ? 0x8000u : 0u) : vl_f32_to_bf16(x);
}
void pack_pairs_scalar(uint32_t *dst, const float *x, size_t ldx, int rows, int K, int mr) {
    for (int k = 0; k < K; k += 2)
        for (int r = 0; r < mr; r++) {
            const float *p = x + (size_t)r * ldx + k;
            uint32_t lo = r < rows ? rounded(p[0]) : 0;
            uint32_t hi = r < rows && k + 1 < K ? rounded(p[1]) : 0;
            dst[(size_t)(k / 2) * (size_t)mr + (size_t)r] = lo | hi << 16;
        }
}

/* The first 8 significant bits of *x, which keeps the rest: three times nothing but 0, or less than 2^-126, is left.
 * The rest of an infinity is 0, that of a NaN a NaN. */
static uint32_t cut(float *x) {
    uint32_t bits;
    memcpy(&bits, x, sizeof bits);
    bits &= 0xffff0000u;
    float top;
    memcpy(&top, &bits, sizeof top);
    *x = isinf(*x) ? 0 : *x - top;
    return bits >> 16;
}
void pack_tiles_scalar(uint32_t *dst, size_t step, size_t part, const float *x, size_t ldx, int rows, int K) {
    for (int r = 0; r < rows; r++, x += ldx, dst += 16)
        for (int k = 0; k < (K + 31) / 32 * 32; k += 2) {
            uint32_t *at = dst + (size_t)(k / 32) * step + (size_t)(k % 32 / 2);
            float lo = k < K ? x[k] : 0, hi = k + 1 < K ? x[k + 1] : 0;
            if (!part) *at = rounded(lo) | rounded(hi) << 16;
            for (size_t p = 0; part && p < VL_PARTS; p++) at[p * part] = cut(&lo) | cut(&hi) << 16;
        }
}

void pair_rows_scalar(uint32_t *dst, const uint16_t *x, size_t ldx, int rows, int n) {
    for (int r = 0; r < rows; r += 2, x += 2 * ldx)
        for (int i = 0; i < n; i++)
            *dst++ = x[i] | (r + 1 < rows ? (uint32_t)x[ldx + (size_t)i] << 16 : 0);
}

void epilogue_scalar(float *out, const float *sum, const float *bias, int n, vl_epilogue epi) {
    for (int i = 0; i < n; i++) {
        float v = bias ? sum[i] + bias[i] : sum[i];
        double x = (double)v;
        switch (epi) {
        case VL_EPI_NONE: out[i] = v; break;
        case VL_EPI_ADD: out[i] += v; break;
        case VL_EPI_GELU_TANH: /* 0.5 x (1 + tanh u) = x / (1 + e^(-2u)), without cancellation */
            out[i] = (float)(x / (1.0 + exp(-1.5957691216057308 * (x + 0.044715 * x * x * x))));
            break;
        case VL_EPI_GELU_ERF: out[i] = (float)(0.5 * x * erfc(-x * 0.7071067811865476)); break;
        }
    }
}

void finish_tiles_scalar(float *out, size_t ldo, const float *sums, const float *bias, int rows, int n,
                         vl_epilogue epi) {
    for (int r = 0; r < rows; r++) epilogue_scalar(out + (size_t)r * ldo, sums + r * VL_NR, bias, n, epi);
}

void layernorm_scalar(float *out, const float *x, const float *w, const float *bias, int D,
                      float eps) {
    double mean = 0, var = 0;
    for (int i = 0; i < D; i++) mean += (double)x[i];
    mean /= D;
    for (int i = 0; i < D; i++) var += ((double)x[i] - mean) * ((double)x[i] - mean);
    double scale = 1.0 / sqrt(var / D + (double)eps);
    for (int i = 0; i < D; i++)
        out[i] = (float)(((double)x[i] - mean) * scale * (double)w[i] + (double)bias[i]);
}

void rmsnorm_scalar(float *out, const float *x, const float *w, int D, float eps) {
    double sum = 0;
    for (int i = 0; i < D; i++) sum += (double)x[i] * (double)x[i];
    double scale = 1.0 / sqrt(sum / D + (double)eps);
    for (int i = 0; i < D; i++) out[i] = (float)((double)x[i] * scale * (double)w[i]);
}

void rope_scalar(float *x, const float *cos, const float *sin, int E) {
    for (int i = 0; i < E / 2; i++) {
        double a = (double)x[i], b = (double)x[i + E / 2];
        x[i] = (float)(a * (double)cos[i] - b * (double)sin[i]);
        x[i + E / 2] = (float)(b * (double)cos[i] + a * (double)sin[i]);
    }
}

void swiglu_scalar(float *out, const float *gate, const float *up, int n) {
    for (int i = 0; i < n; i++) {
        double g = (double)gate[i];
        out[i] = (float)(g / (1.0 + exp(-g)) * (double)up[i]);
    }
}

void softmax_scalar(float *s, int keys, int lanes, const int32_t *valid, float scale, float *m,
                    float *l, float *fix) {
    for (int q = 0; q < lanes; q++) {
        int n = valid[q] < keys ? valid[q] : keys;
        float top = m[q];
        for (int j = 0; j < n; j++) top = fmaxf(top, s[j * VL_NR + q] * scale);
        double f = n > 0 ? exp((double)m[q] - (double)top) : 1.0, sum = 0;
        for (int j = 0; j < keys; j++) {
            float *p = &s[j * VL_NR + q];
            *p = j < n ? (float)exp((double)(*p * scale) - (double)top) : 0.0f;
            sum += (double)*p;
        }
        m[q] = top;
        l[q] = (float)((double)l[q] * f + sum);
        fix[q] = (float)f;
    }
}

void softmax_tiles_scalar(float *s, int keys, int rows, const int32_t *valid, float scale, float *m, float *l,
                          float *fix) {
    for (int r = 0; r < rows; r++) {
        int n = valid[r] < keys ? valid[r] : keys;
        float top = m[r], p[VL_NR];
        for (int k = 0; k < n; k++) top = fmaxf(top, s[k / VL_NR * VL_SCORES + r * VL_NR + k % VL_NR]);
        if (!isinf(m[r]) && (top - m[r]) * scale * 1.44269504f <= VL_HEADROOM) top = m[r];
        fix[r] = m[r] == top || isinf(m[r]) ? 1.0f : (float)exp(((double)m[r] - (double)top) * (double)scale);
        m[r] = top;
        for (int i = 0; i < 16; i++) l[r * 16 + i] *= fix[r];
        for (int k = 0; k < keys; k += VL_NR) {
            float *row = s + k / VL_NR * VL_SCORES + r * VL_NR;
            for (int i = 0; i < VL_NR; i++) {
                p[i] = k + i < n ? (float)exp(((double)row[i] - (double)top) * (double)scale) : 0.0f;
                l[r * 16 + i % 16] += p[i];
            }
            for (int i = 0; i < VL_NR; i += 2) {
                uint32_t pair = rounded(p[i]) | rounded(p[i + 1]) << 16;
                memcpy(row + i / 2, &pair, sizeof pair);
            }
        }
    }
}

void scale_lanes_scalar(float *o, const float *fix, int E) {
    for (int i = 0; i < E * VL_NR; i++) o[i] *= fix[i % VL_NR];
}

void score_keys_scalar(float *s, const float *q, size_t ldq, const float *k, int keys, int E, int lanes,
                       const float *next) {
    float y[VL_GEMV_ROWS * VL_NR];
    (void)next;
    for (int j = 0; j < keys; j++) {
        if (j % VL_NR == 0) gemv_f32_scalar(y, q, ldq, k + (size_t)j * (size_t)E, E, lanes);
        for (int l = 0; l < lanes; l++) s[j * VL_NR + l] = y[l * VL_NR + j % VL_NR];
    }
}

void mix_values_scalar(float *o, const float *fix, const float *p, const float *v, size_t ldv, int keys, int E,
                       int lanes, const float *next) {
    (void)next;
    for (int i = 0; i < lanes * E; i++) {
        double sum = 0;
        for (int k = 0; k < keys; k++)
            sum += (double)p[k * VL_NR + i / E] * (double)v[(size_t)k * ldv + (size_t)(i % E)];
        o[i] = o[i] * fix[i / E] + (float)sum;
    }
}

void mix_pairs_scalar(float *o, float fix, const uint32_t *p, const uint32_t *v, int n, int E) {
    for (int e = 0; e < E; e++) {
        double sum = 0;
        for (int k = 0; k < 2 * n; k++) sum += x_pairs(p, VL_NR, k, 0) * x_pairs(v, (size_t)E, k, e);
        o[e] = o[e] * fix + (float)sum;
    }
}
