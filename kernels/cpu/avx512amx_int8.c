/* avx512amx_int8.c: products of many rows in the integer modes on the tile unit (AMX): TDPBSSD.
 *
 * A group of 32 k has scales of its own, so a sum leaves the tile after 32 k: half of what the instruction could
 * take. Its 16 x 16 integers are stored, read back as vectors, converted, scaled and added to float sums that
 * stay in registers: three operations for 16 results, where vpdpbusd needs eight more for their products. That is why
 * this wins although the tile unit waits most of the time.
 *
 *   panel block, 512 k   --unpack-->   codes s8 [group][half][8 steps][16 columns][4 k], scales f32 (L1)
 *   tile of x, a group   A 16 rows x 32 k      codes   B 8 x (16 columns x 4 k)      C 16 x 16 integers
 *
 * Codes are made signed while they are unpacked, once for all rows, so comp of quant.h is not needed; the integers
 * are exact either way, and what follows is its arithmetic: the same bits as the other tiers.
 *
 * The products of a group come before the integers of the one before are scaled. They overlap little: while tile
 * instructions are about, one of the two 512-bit multipliers stands still (measured, SPEED.md). Each call configures
 * the tiles and gives them back, 0.1 of some 10 microseconds. */
#include <immintrin.h>

#include "kernels/cpu/quant.h"

#define INLINE static inline __attribute__((always_inline))
enum { STEP = CPU_QKC / CPU_QG };
#define A0 0
#define A1 1
#define B0 2
#define B1 3
#define C0 4
#define C1 5

typedef struct block {
    _Alignas(64) int8_t codes[STEP][2][CPU_QG * 16];
    float scales[STEP][VL_NR];
} block;

/* ---- panels -------------------------------------------------------------------------------------- */

INLINE void unpack_scales(float *out, const uint8_t *group) {
    for (int half = 0; half < 2; half++) {
        __m256i bits = _mm256_loadu_si256((const __m256i *)(const void *)(group + 32 * half));
        _mm512_store_ps(out + 16 * half, (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
    }
}

static void unpack_q8(block *b, const uint8_t *panel, int groups) {
    const __m512i top = _mm512_set1_epi8(-128);
    for (int g = 0; g < groups; g++, panel += CPU_Q8_GROUP) {
        unpack_scales(b->scales[g], panel);
        for (int i = 0; i < 16; i++)
            _mm512_store_si512(b->codes[g][i % 2] + 64 * (i / 2), _mm512_xor_si512(top, _mm512_loadu_si512(panel + 64 + 64 * i)));
    }
}

static void unpack_q4(block *b, const uint8_t *panel, int groups) {
    const __m512i codes = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)VL_Q4_CODES));
    const __m512i low = _mm512_set1_epi8(15);
    for (int g = 0; g < groups; g++, panel += CPU_Q4_GROUP) {
        unpack_scales(b->scales[g], panel);
        for (int i = 0; i < 8; i++) { /* steps 2p and 2p + 1 of one half */
            __m512i both = _mm512_loadu_si512(panel + 64 + 64 * i);
            int8_t *to = b->codes[g][i % 2] + 128 * (i / 2);
            _mm512_store_si512(to, _mm512_shuffle_epi8(codes, _mm512_and_si512(both, low)));
            _mm512_store_si512(to + 64, _mm512_shuffle_epi8(codes, _mm512_and_si512(_mm512_srli_epi16(both, 4), low)));
        }
    }
}

/* ---- products ------------------------------------------------------------------------------------ */

static void configure(void) {
    struct { uint8_t palette, start, zero[14]; uint16_t bytes[16]; uint8_t rows[16]; } config = {.palette = 1};
    for (int i = A0; i <= C1; i++) {
        config.bytes[i] = i < B0 ? CPU_QG : 64;
        config.rows[i] = i == B0 || i == B1 ? CPU_QG / 4 : CPU_QT_ROWS;
    }
    __asm__ volatile("" ::: "memory"); /* the compiler does not know what the tile instructions read */
    _tile_loadconfig(&config);
}

/* t [16][16] = the integers of group g */
#define PRODUCTS(C, A, B, g, t)                               \
    do {                                                      \
        _tile_loadd(A, x + (g) * CPU_QT_GROUP + 16, CPU_QG);  \
        _tile_loadd(B, b->codes[g][half], 64);                \
        _tile_zero(C);                                        \
        _tile_dpbssd(C, A, B);                                \
        _tile_stored(C, t, 64);                               \
    } while (0)

/* acc [r] += float(t [r]) * scale * s [r], as quant.h rounds it */
INLINE void add_group(__m512 *acc, const int32_t *t, const float *scales, const uint32_t *s) {
    __m512 scale = _mm512_load_ps(scales);
#pragma GCC unroll 16
    for (int r = 0; r < CPU_QT_ROWS; r++) {
        __m512 v = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_load_si512(t + 16 * r)), scale);
        acc[r] = _mm512_fmadd_ps(v, _mm512_castsi512_ps(_mm512_set1_epi32((int)s[r])), acc[r]);
    }
}

/* 16 rows x 16 columns. A function by itself, so that tests/kernels/test_spills.sh finds its loop. */
static __attribute__((noinline)) void square(float *c, const uint32_t *x, const block *b, int half, int groups, bool add) {
    _Alignas(64) int32_t t[2][CPU_QT_ROWS * 16];
    __m512 acc[CPU_QT_ROWS];
#pragma GCC unroll 16
    for (int r = 0; r < CPU_QT_ROWS; r++) acc[r] = _mm512_setzero_ps();
    PRODUCTS(C0, A0, B0, 0, t[0]);
    for (int g = 0; g < groups; g += 2) {
        if (g + 1 < groups) PRODUCTS(C1, A1, B1, g + 1, t[1]);
        add_group(acc, t[0], b->scales[g] + 16 * half, x + g * CPU_QT_GROUP);
        if (g + 1 == groups) break;
        if (g + 2 < groups) PRODUCTS(C0, A0, B0, g + 2, t[0]);
        add_group(acc, t[1], b->scales[g + 1] + 16 * half, x + (g + 1) * CPU_QT_GROUP);
    }
#pragma GCC unroll 16
    for (int r = 0; r < CPU_QT_ROWS; r++) {
        float *p = c + r * VL_NR + 16 * half;
        _mm512_storeu_ps(p, add ? _mm512_add_ps(_mm512_loadu_ps(p), acc[r]) : acc[r]);
    }
}

static void all_rows(float *c, const uint32_t *x, size_t ldx, const block *b, const uint8_t *next, size_t ahead,
                     int groups, int rows, bool add) {
    size_t tiles = (size_t)(rows + CPU_QT_ROWS - 1) / CPU_QT_ROWS, at = 0;
    configure();
    for (size_t i = 0; i < tiles; i++, x += ldx, c += CPU_QT_ROWS * VL_NR) {
        for (; at < ahead * (i + 1) / tiles; at += 64) __builtin_prefetch(next + at, 0, 2);
        square(c, x, b, 0, groups, add);
        square(c, x, b, 1, groups, add);
    }
    _tile_release();
}

#define GEMM(name, unpack, bytes)                                                                          \
    void name(float *c, const uint32_t *x, size_t ldx, const uint8_t *panel, const uint8_t *next, int groups, int rows, \
              bool add) {                                                                                  \
        block b;                                                                                           \
        unpack(&b, panel, groups);                                                                         \
        all_rows(c, x, ldx, &b, next, next ? (size_t)groups * bytes : 0, groups, rows, add);               \
    }
GEMM(gemm_q8_tiles_amx, unpack_q8, CPU_Q8_GROUP)
GEMM(gemm_q4_tiles_amx, unpack_q4, CPU_Q4_GROUP)
