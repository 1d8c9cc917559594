/* avx512bf16.c: bf16 mode, vdpbf16ps on the panels of ukernels.h as they are: a lane holds the pair
 * (k, k + 1) of one row of W, the broadcast operand the same pair of one row of x; a step adds both
 * products to an f32 accumulator. 12 x 32 tiles: 24 of 32 registers accumulate, 24 independent chains
 * cover the latency. */
#include <immintrin.h>

#include "kernels/cpu/ukernels.h"

enum { MR = 12 };

static inline __attribute__((always_inline)) void tile(float *c, const uint32_t *a, size_t lda,
                                                       const uint32_t *panel, int kc, int rows,
                                                       bool add) {
    __m512 acc[MR][2];
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++) acc[r][0] = acc[r][1] = _mm512_setzero_ps();
    for (int k = 0; k < kc; k += 2, a += lda, panel += VL_NR) {
        if (rows > 1 && rows <= VL_GEMV_ROWS) { /* as gemv in simd.inc; one row needs no help */
            __builtin_prefetch(panel + 1024);
            __builtin_prefetch(panel + 1040);
        }
        __m512bh b0 = (__m512bh)_mm512_loadu_si512(panel), b1 = (__m512bh)_mm512_loadu_si512(panel + 16);
#pragma GCC unroll 16
        for (int r = 0; r < rows; r++) {
            __m512bh x = (__m512bh)_mm512_set1_epi32((int)a[r]);
            acc[r][0] = _mm512_dpbf16_ps(acc[r][0], x, b0);
            acc[r][1] = _mm512_dpbf16_ps(acc[r][1], x, b1);
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < 2; j++) {
            float *p = c + r * VL_NR + j * 16;
            if (add) acc[r][j] = _mm512_add_ps(_mm512_loadu_ps(p), acc[r][j]);
            _mm512_storeu_ps(p, acc[r][j]);
        }
}

#define ROWS(n) \
    case n: tile(c, a, lda, panel, kc, n, add); break;
void gemm_dpbf16_avx512bf16(float *c, const void *a, size_t lda, const void *panel, int kc, int rows,
                            bool add) {
    switch (rows) {
        ROWS(1) ROWS(2) ROWS(3) ROWS(4) ROWS(5) ROWS(6) ROWS(7) ROWS(8) ROWS(9) ROWS(10) ROWS(11)
    default: tile(c, a, lda, panel, kc, MR, add);
    }
}

/* Rounds row by row, 32 values at a time, then transposes the pairs. */
void pack_pairs_avx512bf16(uint32_t *dst, const float *x, size_t ldx, int rows, int K, int mr) {
    enum { PAIRS = VL_KC / 2 };
    uint32_t pairs[VL_MAX_MR * PAIRS];
    vl_assert(K <= VL_KC && rows <= VL_MAX_MR, "pack_pairs rows %d, K %d", rows, K);
    for (int r = 0; r < rows; r++)
        for (int k = 0; k < K; k += 32) {
            const float *p = x + (size_t)r * ldx + k;
            int left = K - k;
            __mmask16 lo = (__mmask16)(left >= 16 ? 0xffff : (1 << left) - 1);
            __mmask16 hi = (__mmask16)(left >= 32 ? 0xffff : left > 16 ? (1 << (left - 16)) - 1 : 0);
            __m512bh v = _mm512_cvtne2ps_pbh(_mm512_maskz_loadu_ps(hi, p + 16), _mm512_maskz_loadu_ps(lo, p));
            _mm512_storeu_si512(pairs + r * PAIRS + k / 2, (__m512i)v);
        }
    pack_rows_avx512((float *)(void *)dst, (const float *)(const void *)pairs, PAIRS, rows, (K + 1) / 2, mr);
}
