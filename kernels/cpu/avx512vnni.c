/* avx512vnni.c: the integer gemm tile with vpdpbusd; layouts and order of sums in quant.h.
 *
 *             step of 4 k:   w0[16 rows x 4]   w1[16 rows x 4]     registers of a 6 x 32 tile
 *   x[step][0] broadcast        t00               t01                12  32-bit sums of the group
 *   x[step][1]                  t10               t11                12  float sums
 *   ...                                                               2  weights
 *   x[step][5]                  t50               t51                 1  x; 2 scales between groups
 *
 * After the 8 steps of a group each t is converted, scaled and added to its float sum, while the next
 * group's products are already under way; t starts from comp, so nothing is set to zero.
 *
 * vpdpbusd and the broadcasts are single-instruction asm: with intrinsics GCC 12 hoists the broadcasts
 * of several steps above the products and spills the sums (tests/kernels/test_spills.sh looks for it).
 */
#include <immintrin.h>

#include "kernels/cpu/quant.h"

#define INLINE static inline __attribute__((always_inline))

INLINE void dp(__m512i *acc, __m512i w, __m512i x) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(*acc) : "v"(w), "v"(x));
}
INLINE __m512i broadcast(const uint32_t *p) {
    __m512i x;
    __asm__("vpbroadcastd %1, %0" : "=v"(x) : "m"(*p));
    return x;
}

/* acc = fma(float(t) * scale, s, acc) */
INLINE void add_group(__m512 *acc, __m512i t, __m512 scale, const uint32_t *s) {
    __m512 v = _mm512_mul_ps(_mm512_cvtepi32_ps(t), scale);
    __asm__("vfmadd231ps %2%{1to16%}, %1, %0" : "+v"(*acc) : "v"(v), "m"(*(const float *)s));
}

INLINE __m512 scales(const uint8_t *group, int half) {
    __m256i bits = _mm256_loadu_si256((const __m256i *)(const void *)(group + 32 * half));
    return (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16);
}

/* rows, add and q4 are constants where this is inlined. A few rows are bound by memory: they ask for their
 * panel far ahead into L2, which can wait for three times as many lines as L1 can, and again into L1 a few
 * groups ahead. One distance alone loses 2 to 12 % (SPEED.md), the hardware's prefetching alone 5 to 30 %:
 * a group is many instructions, and few groups fit into the window in which the core runs ahead. */
enum { FAR_AHEAD = 8192, NEAR_AHEAD = 2048 };
INLINE void tile_of(float *c, const uint32_t *x, const uint8_t *w, int groups, int rows, bool add, bool q4) {
    const __m512i codes = _mm512_xor_si512(
        _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)VL_Q4_CODES)),
        _mm512_set1_epi8(-128));
    const __m512i low = _mm512_set1_epi8(15);
    size_t bytes = q4 ? CPU_Q4_GROUP : CPU_Q8_GROUP;
    __m512 acc[CPU_QMR][2];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) acc[r][0] = acc[r][1] = _mm512_setzero_ps();
    for (int g = 0; g < groups; g++, x += CPU_QX_GROUP, w += bytes) {
        __m512i t[CPU_QMR][2];
        if (rows < CPU_QMR)
            for (size_t at = 0; at < bytes; at += 64) {
                __builtin_prefetch(w + FAR_AHEAD + at, 0, 2);
                __builtin_prefetch(w + NEAR_AHEAD + at);
            }
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) t[r][0] = t[r][1] = broadcast(x + r);
#pragma GCC unroll 8
        for (int step = 0; step < 8; step++) {
            __m512i b[2];
#pragma GCC unroll 2
            for (int j = 0; j < 2; j++) {
                const uint8_t *at = w + 64 + ((q4 ? step / 2 : step) * 2 + j) * 64;
                b[j] = _mm512_loadu_si512(at);
                if (q4) {
                    if (step % 2) b[j] = _mm512_srli_epi16(b[j], 4);
                    b[j] = _mm512_shuffle_epi8(codes, _mm512_and_si512(b[j], low));
                }
            }
#pragma GCC unroll 8
            for (int r = 0; r < rows; r++) {
                __m512i v = broadcast(x + (2 + step) * CPU_QMR + r);
                dp(&t[r][0], b[0], v);
                dp(&t[r][1], b[1], v);
            }
        }
        __m512 s0 = scales(w, 0), s1 = scales(w, 1);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            add_group(&acc[r][0], t[r][0], s0, x + CPU_QMR + r);
            add_group(&acc[r][1], t[r][1], s1, x + CPU_QMR + r);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < 2; j++) {
            float *p = c + r * VL_NR + j * 16;
            _mm512_storeu_ps(p, add ? _mm512_add_ps(_mm512_loadu_ps(p), acc[r][j]) : acc[r][j]);
        }
}

#define ROWS(n, q4) \
    case n: tile_of(c, tile, panel, groups, n, add, q4); break;
#define GEMM(name, q4)                                                                              \
    void name(float *c, const uint32_t *tile, const uint8_t *panel, int groups, int rows, bool add) { \
        switch (rows) {                                                                             \
            ROWS(1, q4) ROWS(2, q4) ROWS(3, q4) ROWS(4, q4) ROWS(5, q4)                             \
        default: tile_of(c, tile, panel, groups, CPU_QMR, add, q4);                                 \
        }                                                                                           \
    }
GEMM(gemm_q8_avx512vnni, false)
GEMM(gemm_q4_avx512vnni, true)
