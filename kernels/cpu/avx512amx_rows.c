/* avx512amx_rows.c: what stands between the tile products of bf16 mode, on vectors: rows of x into tiles, scores
 * into probabilities, sums into outputs. A row of 32 scores becomes a row of a tile where it lies:
 *
 *   s [32 queries][32 keys] f32, a row: 128 bytes      p [32 queries][16 pairs] bf16, a row: 64 of them
 *
 * The results are rounded to bf16 before their next product, 2^-9, so e^x here is good to 3e-6, not to an ulp:
 * 2^t = 2^floor(t) * P(t - floor(t)), P of degree 4; and 1 / x is the processor's estimate improved once. */
#include <immintrin.h>

#include "kernels/cpu/ukernels.h"

#define LOG2E 1.44269504f

/* 2^t, t <= about 0; what would be subnormal is 2^-126, whose rounding costs the processor nothing. */
static inline __m512 exp2_of(__m512 t) {
    t = _mm512_max_ps(_mm512_set1_ps(-126.0f), t); /* a NaN is the second operand, and stays */
    __m512 f = _mm512_reduce_ps(t, 1);             /* t - floor(t) */
    __m512 p = _mm512_fmadd_ps(_mm512_set1_ps(0.013534168f), f, _mm512_set1_ps(0.052011464f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.24144275f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.69300384f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, t);
}

static inline __mmask16 first(int n) { return (__mmask16)(n >= 16 ? 0xffff : n > 0 ? (1 << n) - 1 : 0); }

/* 32 terms in three parts, each the upper halves of what the ones before left (scalar.c's cut). */
static inline void split(uint32_t *dst, size_t part, __m512 lo, __m512 hi) {
    const __m512i top = _mm512_set1_epi32((int)0xffff0000u);
    const __m512i upper = _mm512_set_epi16(63, 61, 59, 57, 55, 53, 51, 49, 47, 45, 43, 41, 39, 37, 35, 33, 31, 29, 27, 25, 23,
                                           21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
    __mmask16 lo_finite = _mm512_fpclass_ps_mask(lo, 0x18) ^ 0xffff, hi_finite = _mm512_fpclass_ps_mask(hi, 0x18) ^ 0xffff;
    for (int p = 0; p < VL_PARTS; p++, dst += part) {
        __m512i a = _mm512_castps_si512(lo), b = _mm512_castps_si512(hi);
        _mm512_storeu_si512(dst, _mm512_permutex2var_epi16(a, upper, b));
        lo = _mm512_maskz_sub_ps(lo_finite, lo, _mm512_castsi512_ps(_mm512_and_si512(a, top)));
        hi = _mm512_maskz_sub_ps(hi_finite, hi, _mm512_castsi512_ps(_mm512_and_si512(b, top)));
    }
}

static inline void pack_step(uint32_t *dst, size_t part, __m512 lo, __m512 hi) {
    if (part) split(dst, part, lo, hi);
    else _mm512_storeu_si512(dst, (__m512i)_mm512_cvtne2ps_pbh(hi, lo));
}

void pack_tiles_amx(uint32_t *dst, size_t step, size_t part, const float *x, size_t ldx, int rows, int K) {
    for (int r = 0; r < rows; r++, x += ldx, dst += 16) {
        uint32_t *out = dst;
        int k = 0;
        for (; k + 32 <= K; k += 32, out += step) pack_step(out, part, _mm512_loadu_ps(x + k), _mm512_loadu_ps(x + k + 16));
        if (k < K)
            pack_step(out, part, _mm512_maskz_loadu_ps(first(K - k), x + k),
                      _mm512_maskz_loadu_ps(first(K - k - 16), x + k + 16));
    }
}

/* ---- softmax ------------------------------------------------------------------------------------ */

/* The largest of the row's first n scores and `top`. */
static inline float row_max(const float *s, int n, float top) {
    __m512 a = _mm512_set1_ps(top), b = a;
    for (; n >= VL_NR; n -= VL_NR, s += VL_SCORES) {
        a = _mm512_max_ps(a, _mm512_loadu_ps(s));
        b = _mm512_max_ps(b, _mm512_loadu_ps(s + 16));
    }
    a = _mm512_mask_max_ps(a, first(n), a, _mm512_maskz_loadu_ps(first(n), s));
    b = _mm512_mask_max_ps(b, first(n - 16), b, _mm512_maskz_loadu_ps(first(n - 16), s + 16));
    return _mm512_reduce_max_ps(_mm512_max_ps(a, b));
}

/* One row: n of its scores count, `blocks` blocks are written. */
static inline void row_exp(float *s, int blocks, int n, float c, float top, float *l, float fix) {
    __m512 scale = _mm512_set1_ps(c), shift = _mm512_set1_ps(top * c);
    __m512 sum = _mm512_mul_ps(_mm512_loadu_ps(l), _mm512_set1_ps(fix));
    for (int b = 0; b < blocks; b++, s += VL_SCORES, n -= VL_NR) {
        __m512 lo = exp2_of(_mm512_fmsub_ps(_mm512_loadu_ps(s), scale, shift));
        __m512 hi = exp2_of(_mm512_fmsub_ps(_mm512_loadu_ps(s + 16), scale, shift));
        if (n < VL_NR) {
            lo = _mm512_maskz_mov_ps(first(n), lo);
            hi = _mm512_maskz_mov_ps(first(n - 16), hi);
        }
        sum = _mm512_add_ps(_mm512_add_ps(sum, lo), hi);
        _mm512_storeu_si512(s, (__m512i)_mm512_cvtne2ps_pbh(hi, lo));
    }
    _mm512_storeu_ps(l, sum);
}

void softmax_tiles_amx(float *s, int keys, int rows, const int32_t *valid, float scale, float *m, float *l,
                       float *fix) {
    float c = scale * LOG2E;
    int blocks = (keys + VL_NR - 1) / VL_NR;
    for (int r = 0; r < rows; r++) {
        int n = valid[r] < keys ? valid[r] : keys;
        float old = m[r], top = n > 0 ? row_max(s + r * VL_NR, n, old) : old;
        bool fresh = old == -__builtin_inff();
        if (!fresh && (top - old) * c <= VL_HEADROOM) top = old;
        fix[r] = old == top || fresh ? 1.0f : _mm512_cvtss_f32(exp2_of(_mm512_set1_ps((old - top) * c)));
        m[r] = top;
        row_exp(s + r * VL_NR, blocks, n, c, top, l + r * 16, fix[r]);
    }
}

/* ---- outputs -------------------------------------------------------------------------------------- */

/* 1 / x for x >= 1 */
static inline __m512 inverse(__m512 x) {
    __m512 y = _mm512_rcp14_ps(x);
    return _mm512_mul_ps(y, _mm512_fnmadd_ps(x, y, _mm512_set1_ps(2.0f)));
}

/* x sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3): with e = e^-|2u|, 1 / (1 + e) or e / (1 + e) of x */
static inline __m512 gelu_tanh(__m512 x) {
    __m512 u = _mm512_mul_ps(x, _mm512_fmadd_ps(_mm512_mul_ps(x, x), _mm512_set1_ps(0.0713548162726f * LOG2E),
                                                _mm512_set1_ps(1.5957691216057308f * LOG2E)));
    __m512 e = exp2_of(_mm512_or_ps(u, _mm512_set1_ps(-0.0f)));
    __mmask16 below = _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_LT_OQ);
    __m512 y = _mm512_mul_ps(x, inverse(_mm512_add_ps(e, _mm512_set1_ps(1.0f))));
    return _mm512_mask_mul_ps(y, below, y, e);
}

/* `past`: whole lines, written past the caches. Rows of 128 bytes far apart, which nobody reads soon: to fetch
 * their lines first would cost a third of the products' time. tiles_end waits for them. */
static inline __attribute__((always_inline)) void finish(float *out, size_t ldo, const float *sums, const float *bias,
                                                         int rows, int n, vl_epilogue epi, bool past) {
    __mmask16 m0 = first(n), m1 = first(n - 16);
    __m512 b0 = _mm512_setzero_ps(), b1 = b0;
    if (bias) b0 = _mm512_maskz_loadu_ps(m0, bias), b1 = _mm512_maskz_loadu_ps(m1, bias + 16);
    for (int r = 0; r < rows; r++, out += ldo, sums += VL_NR) {
        __m512 lo = _mm512_add_ps(_mm512_loadu_ps(sums), b0), hi = _mm512_add_ps(_mm512_loadu_ps(sums + 16), b1);
        if (epi == VL_EPI_ADD) {
            lo = _mm512_add_ps(lo, _mm512_maskz_loadu_ps(m0, out));
            hi = _mm512_add_ps(hi, _mm512_maskz_loadu_ps(m1, out + 16));
        }
        if (epi == VL_EPI_GELU_TANH) lo = gelu_tanh(lo), hi = gelu_tanh(hi);
        if (past) {
            _mm512_stream_ps(out, lo);
            _mm512_stream_ps(out + 16, hi);
        } else {
            _mm512_mask_storeu_ps(out, m0, lo);
            _mm512_mask_storeu_ps(out + 16, m1, hi);
        }
    }
}

/* Rows from here on are those of a pass of many. */
enum { MANY = 16 };

void finish_tiles_amx(float *out, size_t ldo, const float *sums, const float *bias, int rows, int n,
                      vl_epilogue epi) {
    bool past = rows >= MANY && n == VL_NR && ldo > VL_NR && ldo % 16 == 0 && (uintptr_t)out % 64 == 0;
    switch (epi) { /* constants where inlined */
    case VL_EPI_NONE:
        if (past) finish(out, ldo, sums, bias, rows, n, VL_EPI_NONE, true);
        else finish(out, ldo, sums, bias, rows, n, VL_EPI_NONE, false);
        break;
    case VL_EPI_ADD: finish(out, ldo, sums, bias, rows, n, VL_EPI_ADD, false); break;
    case VL_EPI_GELU_TANH:
        if (past) finish(out, ldo, sums, bias, rows, n, VL_EPI_GELU_TANH, true);
        else finish(out, ldo, sums, bias, rows, n, VL_EPI_GELU_TANH, false);
        break;
    case VL_EPI_GELU_ERF: /* mergers only: a hundredth of the rows */
        for (int r = 0; r < rows; r++) epilogue_avx512(out + (size_t)r * ldo, sums + r * VL_NR, bias, n, epi);
        break;
    }
}
