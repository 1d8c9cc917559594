/* avx2_quant.c: the integer modes with AVX2. A step of 4 k of 8 rows of W is one register of 32 bytes.
 *
 * vpmaddubsw multiplies u8 by s8 and adds pairs in 16 bits, with saturation: u8 weights up to 255 would
 * overflow. So the weight's sign moves to x: |w| * sign(w) x, both within 127, and 2 * 127 * 127 fits.
 * The sums are then those of the signed codes, and comp is not needed.
 */
#include <immintrin.h>
#include <math.h>

#include "kernels/cpu/quant.h"

#define INLINE static inline __attribute__((always_inline))

INLINE __m256i load(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }
INLINE __m256i table_of_codes(void) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)VL_Q4_CODES));
}

/* Signed codes of one step, 8 rows of W from `col`. */
INLINE __m256i codes_at(const uint8_t *group, int step, int col, bool q4) {
    const uint8_t *at = group + 64 + ((q4 ? step / 2 : step) * VL_NR + col) * 4;
    if (!q4) return _mm256_xor_si256(load(at), _mm256_set1_epi8(-128));
    __m256i b = load(at);
    if (step % 2) b = _mm256_srli_epi16(b, 4);
    return _mm256_shuffle_epi8(table_of_codes(), _mm256_and_si256(b, _mm256_set1_epi8(15)));
}

INLINE __m256 scales(const uint8_t *group, int col) {
    __m128i bits = _mm_loadu_si128((const __m128i *)(const void *)(group + 2 * col));
    return (__m256)_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16);
}

INLINE float word_as_float(const uint32_t *p) {
    float f;
    memcpy(&f, p, sizeof f);
    return f;
}

/* Rows [r0, r0 + rows) of the tile, `wide` vectors of columns from `col`; rows, wide and q4 are constants
 * where this is inlined. One row takes all 32 columns at once, so that its panel is one stream from memory,
 * and asks for it ahead of use, as avx512vnni.c does. */
enum { FAR_AHEAD = 8192, NEAR_AHEAD = 2048 };
INLINE void strip(float *c, const uint32_t *x, const uint8_t *w, int groups, int r0, int rows, int col,
                  int wide, bool add, bool q4) {
    const __m256i ones = _mm256_set1_epi16(1);
    size_t bytes = q4 ? CPU_Q4_GROUP : CPU_Q8_GROUP;
    __m256 acc[3][4];
#pragma GCC unroll 3
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int j = 0; j < wide; j++) acc[r][j] = _mm256_setzero_ps();
    for (int g = 0; g < groups; g++, x += CPU_QX_GROUP, w += bytes) {
        __m256i t[3][4];
        if (wide == 4)
            for (size_t at = 0; at < bytes; at += 64) {
                __builtin_prefetch(w + FAR_AHEAD + at, 0, 2);
                __builtin_prefetch(w + NEAR_AHEAD + at);
            }
#pragma GCC unroll 3
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
            for (int j = 0; j < wide; j++) t[r][j] = _mm256_setzero_si256();
#pragma GCC unroll 8
        for (int step = 0; step < 8; step++)
#pragma GCC unroll 4
            for (int j = 0; j < wide; j++) {
                __m256i b = codes_at(w, step, col + 8 * j, q4), size = _mm256_abs_epi8(b);
#pragma GCC unroll 3
                for (int r = 0; r < rows; r++) {
                    __m256i q = _mm256_set1_epi32((int)x[(2 + step) * CPU_QMR + r0 + r]);
                    __m256i pairs = _mm256_maddubs_epi16(size, _mm256_sign_epi8(q, b));
                    t[r][j] = _mm256_add_epi32(t[r][j], _mm256_madd_epi16(pairs, ones));
                }
            }
#pragma GCC unroll 4
        for (int j = 0; j < wide; j++) {
            __m256 scale = scales(w, col + 8 * j);
#pragma GCC unroll 3
            for (int r = 0; r < rows; r++)
                acc[r][j] = _mm256_fmadd_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(t[r][j]), scale),
                                            _mm256_set1_ps(word_as_float(x + CPU_QMR + r0 + r)), acc[r][j]);
        }
    }
#pragma GCC unroll 3
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int j = 0; j < wide; j++) {
            float *p = c + (r0 + r) * VL_NR + col + 8 * j;
            _mm256_storeu_ps(p, add ? _mm256_add_ps(_mm256_loadu_ps(p), acc[r][j]) : acc[r][j]);
        }
}

#define GEMM(name, q4)                                                                                \
    void name(float *c, const uint32_t *tile, const uint8_t *panel, int groups, int rows, bool add) { \
        if (rows == 1) {                                                                              \
            strip(c, tile, panel, groups, 0, 1, 0, 4, add, q4);                                       \
            return;                                                                                   \
        }                                                                                             \
        for (int col = 0; col < VL_NR; col += 8)                                                      \
            for (int r = 0; r < rows; r += 3) switch (rows - r) {                                     \
                case 1: strip(c, tile, panel, groups, r, 1, col, 1, add, q4); break;                  \
                case 2: strip(c, tile, panel, groups, r, 2, col, 1, add, q4); break;                  \
                default: strip(c, tile, panel, groups, r, 3, col, 1, add, q4);                        \
                }                                                                                     \
    }
GEMM(gemm_q8_avx2, false)
GEMM(gemm_q4_avx2, true)

/* One group of one row, n <= 32 values: q [32], s, comp. */
INLINE void pack_group(uint32_t *tile, const float *x, int n, int r) {
    const __m256i size = _mm256_set1_epi32(0x7fffffff);
    __m256 v[4];
    __m256i most = _mm256_setzero_si256();
    float part[CPU_QG] = {0};
    if (n < CPU_QG) x = memcpy(part, x, (size_t)n * sizeof *x);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        v[i] = _mm256_loadu_ps(x + 8 * i);
        most = _mm256_max_epi32(most, _mm256_and_si256((__m256i)v[i], size));
    }
    __m128i m = _mm_max_epi32(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1));
    uint32_t bits = (uint32_t)_mm_cvtsi128_si32(m);
    float largest = word_as_float(&bits), s = 0, inverse = 0;
    if (bits >= 0x7f800000u) s = NAN;
    else if (largest >= 0x1p-100f) {
        s = largest / 127.0f;
        inverse = 127.0f / largest;
    }
    __m256i q[4], sum = _mm256_setzero_si256();
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) { /* v * 0 would keep the NaN of an infinity */
        q[i] = inverse > 0 ? _mm256_cvtps_epi32(_mm256_mul_ps(v[i], _mm256_set1_ps(inverse)))
                           : _mm256_setzero_si256();
        sum = _mm256_add_epi32(sum, q[i]);
    }
    __m128i h = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
    h = _mm_add_epi32(h, _mm_shuffle_epi32(h, 0x4e));
    h = _mm_add_epi32(h, _mm_shuffle_epi32(h, 0xb1));
    tile[r] = (uint32_t)(-128 * _mm_cvtsi128_si32(h));
    memcpy(tile + CPU_QMR + r, &s, sizeof s);
    /* packs works inside 128-bit halves: 32-bit lanes 0,4,1,5,2,6,3,7 hold k 0..3, 4..7, ... */
    __m256i b = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
    uint32_t words[8];
    _mm256_storeu_si256((__m256i *)(void *)words, b);
    for (int step = 0; step < 8; step++)
        tile[(2 + step) * CPU_QMR + r] = words[step % 2 * 4 + step / 2];
}

void pack_q_avx2(uint32_t *tile, const float *x, size_t ldx, int rows, int K) {
    for (int k = 0; k < K; k += CPU_QG, tile += CPU_QX_GROUP) {
        if (rows < CPU_QMR) memset(tile, 0, CPU_QX_GROUP * sizeof *tile);
        for (int r = 0; r < rows; r++)
            pack_group(tile, x + (size_t)r * ldx + k, K - k < CPU_QG ? K - k : CPU_QG, r);
    }
}
