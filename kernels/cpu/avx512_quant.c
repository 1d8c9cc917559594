/* avx512_quant.c: rows of x to integers (quant.h), a group of 32 in two registers. A decode step does this for
 * every linear on one thread, before the others can begin, so its time counts in full. */
#include <immintrin.h>
#include <math.h>

#include "kernels/cpu/quant.h"

typedef struct codes { __m512i low, high; float s; } codes; /* 16 and 16 integers                */

/* One group of one row, n <= 32 values. */
static inline __attribute__((always_inline)) codes quantise(const float *x, int n) {
    __mmask16 lo = (__mmask16)(n >= 16 ? 0xffff : (1 << n) - 1);
    __mmask16 hi = (__mmask16)(n >= 32 ? 0xffff : n > 16 ? (1 << (n - 16)) - 1 : 0);
    __m512 a = _mm512_maskz_loadu_ps(lo, x), b = _mm512_maskz_loadu_ps(hi, x + 16);
    const __m512i size = _mm512_set1_epi32(0x7fffffff);
    int32_t bits = _mm512_reduce_max_epi32(_mm512_max_epi32(_mm512_and_si512(_mm512_castps_si512(a), size),
                                                            _mm512_and_si512(_mm512_castps_si512(b), size)));
    float most;
    memcpy(&most, &bits, sizeof most);
    codes c = {_mm512_setzero_si512(), _mm512_setzero_si512(), 0};
    if (bits >= 0x7f800000) c.s = NAN;
    else if (most >= 0x1p-100f) {
        __m512 inverse = _mm512_set1_ps(127.0f / most);
        c.s = most / 127.0f;
        c.low = _mm512_cvtps_epi32(_mm512_mul_ps(a, inverse));
        c.high = _mm512_cvtps_epi32(_mm512_mul_ps(b, inverse));
    }
    return c;
}

static inline __attribute__((always_inline)) void store_codes(void *to, codes c) { /* 32 bytes, in order of k */
    _mm_storeu_si128((__m128i *)to, _mm512_cvtepi32_epi8(c.low));
    _mm_storeu_si128((__m128i *)to + 1, _mm512_cvtepi32_epi8(c.high));
}

/* One group of one row of a tile of 6: q [32], s, comp. */
static inline __attribute__((always_inline)) void pack_group(uint32_t *tile, const float *x, int n, int r) {
    codes c = quantise(x, n);
    tile[r] = (uint32_t)(-128 * _mm512_reduce_add_epi32(_mm512_add_epi32(c.low, c.high)));
    memcpy(tile + CPU_QMR + r, &c.s, sizeof c.s);
    uint32_t words[8]; /* 4 k each */
    store_codes(words, c);
    for (int step = 0; step < 8; step++) tile[(2 + step) * CPU_QMR + r] = words[step];
}

void pack_q_avx512(uint32_t *tile, const float *x, size_t ldx, int rows, int K) {
    for (int k = 0; k < K; k += CPU_QG, tile += CPU_QX_GROUP) {
        if (rows < CPU_QMR) memset(tile, 0, CPU_QX_GROUP * sizeof *tile);
        for (int r = 0; r < rows; r++)
            pack_group(tile, x + (size_t)r * ldx + k, K - k < CPU_QG ? K - k : CPU_QG, r);
    }
}

void pack_qt_avx512(uint32_t *tile, const float *x, size_t ldx, int rows, int K) {
    for (int k = 0; k < K; k += CPU_QG, tile += CPU_QT_GROUP) {
        if (rows < CPU_QT_ROWS) memset(tile, 0, CPU_QT_GROUP * sizeof *tile);
        for (int r = 0; r < rows; r++) {
            codes c = quantise(x + (size_t)r * ldx + k, K - k < CPU_QG ? K - k : CPU_QG);
            memcpy(tile + r, &c.s, sizeof c.s);
            store_codes(tile + 16 + r * CPU_QG / 4, c);
        }
    }
}
