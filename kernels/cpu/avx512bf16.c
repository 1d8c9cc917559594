/* avx512bf16.c: bf16 mode, vdpbf16ps on the panels of ukernels.h as they are: a lane holds the pair
 * (k, k + 1) of one row of W, the broadcast operand the same pair of one row of x; a step adds both
 * products to an f32 accumulator. 12 x 32 tiles: 24 of 32 registers accumulate, 24 independent chains
 * cover the latency. */
#include <immintrin.h>

#include "kernels/cpu/ukernels.h"

enum { MR = 12 };

/* c [rows][32] (+)= sum over kc of the pairs a[r * ars + k * acs] x panel. Ahead of use by 4 KiB where
 * the panel comes from memory (gemv), as in simd.inc. */
static inline __attribute__((always_inline)) void tile(float *c, const uint32_t *a, size_t ars, size_t acs,
                                                       const uint32_t *panel, int kc, int rows,
                                                       bool add, bool stream) {
    __m512 acc[MR][2];
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++) acc[r][0] = acc[r][1] = _mm512_setzero_ps();
    for (int k = 0; k < kc; k += 2, a += acs, panel += VL_NR) {
        if (stream) {
            __builtin_prefetch(panel + 1024);
            __builtin_prefetch(panel + 1040);
        }
        __m512bh b0 = (__m512bh)_mm512_loadu_si512(panel), b1 = (__m512bh)_mm512_loadu_si512(panel + 16);
#pragma GCC unroll 16
        for (int r = 0; r < rows; r++) {
            __m512bh x = (__m512bh)_mm512_set1_epi32((int)a[(size_t)r * ars]);
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
    case n: tile(c, a, 1, lda, panel, kc, n, add, false); break;
void gemm_dpbf16_avx512bf16(float *c, const void *a, size_t lda, const void *panel, int kc, int rows,
                            bool add) {
    switch (rows) {
        ROWS(1) ROWS(2) ROWS(3) ROWS(4) ROWS(5) ROWS(6) ROWS(7) ROWS(8) ROWS(9) ROWS(10) ROWS(11)
    default: tile(c, a, 1, lda, panel, kc, MR, add, false);
    }
}

/* The sums of gemm_dpbf16, block by block of VL_KC_PAIRS, for a whole panel. */
#define STREAM(n)                                                                               \
    case n:                                                                                     \
        for (int k = 0; k < K; k += VL_KC_PAIRS)                                                      \
            tile(y, pairs + k / 2, ldx, 1, (const uint32_t *)panel + (size_t)k / 2 * VL_NR,     \
                 K - k < VL_KC_PAIRS ? K - k : VL_KC_PAIRS, n, k > 0, true);                                \
        break;
void gemv_dpbf16_avx512bf16(float *y, const void *x, size_t ldx, const void *panel, int K, int rows) {
    const uint32_t *pairs = x;
    switch (rows) { STREAM(1) STREAM(2) STREAM(3) STREAM(4) STREAM(5) STREAM(6) STREAM(7) STREAM(8) }
}

/* x [K] rounded to bf16, 32 values at a time; nothing beyond pairs [(K + 1) / 2] is written. */
static inline void round_row(uint32_t *pairs, const float *x, int K) {
    for (int k = 0; k < K; k += 32, x += 32, pairs += 16) {
        int left = K - k;
        if (left >= 32) {
            __m512bh v = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(x + 16), _mm512_loadu_ps(x));
            _mm512_storeu_si512(pairs, (__m512i)v);
            continue;
        }
        __mmask16 lo = (__mmask16)(left >= 16 ? 0xffff : (1 << left) - 1);
        __mmask16 hi = (__mmask16)(left > 16 ? (1 << (left - 16)) - 1 : 0);
        __m512bh v = _mm512_cvtne2ps_pbh(_mm512_maskz_loadu_ps(hi, x + 16), _mm512_maskz_loadu_ps(lo, x));
        _mm512_mask_storeu_epi32(pairs, (__mmask16)((1 << (left + 1) / 2) - 1), (__m512i)v);
    }
}

/* Rounds row by row, then transposes the pairs; a tile of one row needs no transposing. */
void pack_pairs_avx512bf16(uint32_t *dst, const float *x, size_t ldx, int rows, int K, int mr) {
    enum { PAIRS = VL_KC_PAIRS / 2 };
    uint32_t pairs[VL_MAX_MR * PAIRS];
    if (mr == 1) {
        round_row(dst, x, K);
        return;
    }
    vl_assert(K <= VL_KC_PAIRS && rows <= VL_MAX_MR, "pack_pairs rows %d, K %d", rows, K);
    for (int r = 0; r < rows; r++) round_row(pairs + r * PAIRS, x + (size_t)r * ldx, K);
    pack_rows_avx512((float *)(void *)dst, (const float *)(const void *)pairs, PAIRS, rows, (K + 1) / 2, mr);
}

void pair_rows_avx512bf16(uint32_t *dst, const uint16_t *x, size_t ldx, int rows, int n) {
    for (int r = 0; r < rows; r += 2, x += 2 * ldx, dst += n)
        for (int i = 0; i < n; i += 16) {
            __mmask16 m = (__mmask16)(n - i >= 16 ? 0xffff : (1 << (n - i)) - 1);
            __m512i lo = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m, x + i)), hi = _mm512_setzero_si512();
            if (r + 1 < rows) hi = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m, x + ldx + i));
            _mm512_mask_storeu_epi32(dst + i, m, _mm512_or_si512(lo, _mm512_slli_epi32(hi, 16)));
        }
}

/* Up to 8 vectors of the row at a time, so that a pass over the keys has independent chains. */
void mix_pairs_avx512bf16(float *o, float fix, const uint32_t *p, const uint32_t *v, int n, int E) {
    enum { AT_ONCE = 8 };
    for (int e = 0; e < E; e += 16 * AT_ONCE) {
        int vectors = E - e >= 16 * AT_ONCE ? AT_ONCE : (E - e + 15) / 16;
        __mmask16 m = (__mmask16)(E - e >= 16 * vectors ? 0xffff : (1 << (E - e) % 16) - 1); /* the last */
        __m512 acc[AT_ONCE];
        for (int i = 0; i < AT_ONCE; i++) acc[i] = _mm512_setzero_ps();
        for (int k = 0; k < n; k++) {
            const uint32_t *row = v + (size_t)k * (size_t)E + e;
            __m512bh x = (__m512bh)_mm512_set1_epi32((int)p[k * VL_NR]);
#pragma GCC unroll 8
            for (int i = 0; i < AT_ONCE; i++) {
                if (i >= vectors) break;
                __mmask16 part = i + 1 < vectors ? 0xffff : m;
                acc[i] = _mm512_dpbf16_ps(acc[i], x, (__m512bh)_mm512_maskz_loadu_epi32(part, row + i * 16));
            }
        }
        for (int i = 0; i < vectors; i++) {
            __mmask16 part = i + 1 < vectors ? 0xffff : m;
            float *out = o + e + i * 16;
            __m512 old = _mm512_mul_ps(_mm512_maskz_loadu_ps(part, out), _mm512_set1_ps(fix));
            _mm512_mask_storeu_ps(out, part, _mm512_add_ps(old, acc[i]));
        }
    }
}
