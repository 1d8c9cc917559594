/* pixels.c: see kernels/pixels.h. */
#include "kernels/pixels.h"

#include <stdbool.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { BLOCK = 48 }; /* sums that stay in the first-level cache or in registers */

/* sum += w * s, in 16-bit factors where they fit: half the work on vectors of any kind. */
static void add_row(int32_t sum[BLOCK], const uint8_t *s, int32_t w) {
    if (w == (int16_t)w) {
        int16_t narrow = (int16_t)w;
#pragma omp simd
        for (int i = 0; i < BLOCK; i++) sum[i] += narrow * (int16_t)s[i];
    } else {
#pragma omp simd
        for (int i = 0; i < BLOCK; i++) sum[i] += w * s[i];
    }
}

void vl_blend_rows_plain(uint8_t *dst, const uint8_t *src, size_t stride, size_t n, const int32_t *w, int taps,
                         int bits) {
    for (size_t at = 0; at < n; at += BLOCK) {
        int32_t sum[BLOCK];
        size_t m = n - at < BLOCK ? n - at : BLOCK;
        const uint8_t *s = src + at;
        for (int i = 0; i < BLOCK; i++) sum[i] = 1 << (bits - 1);
        for (int j = 0; j < taps; j++, s += stride) {
            if (m == BLOCK) add_row(sum, s, w[j]);
            else
                for (size_t i = 0; i < m; i++) sum[i] += w[j] * s[i];
        }
        for (int i = 0; i < BLOCK; i++) {
            int32_t v = sum[i] >> bits;
            sum[i] = v < 0 ? 0 : v > 255 ? 255 : v;
        }
        for (size_t i = 0; i < m; i++) dst[at + i] = (uint8_t)sum[i];
    }
}

#if defined(__x86_64__)
/* Two taps at a time: bytes of two rows are interleaved and widened, so that vpmaddwd multiplies both by
 * their weights and adds the two products. 16 neighbours: sums of lanes 0-7 and 8-15. */
#define AVX2 __attribute__((target("avx2")))

/* The sums of lanes 0-7 and 8-15 as bytes. packs saturates on the way, which the clamp would do anyway. */
AVX2 static inline __m128i narrow16(__m256i lo, __m256i hi, int bits) {
    lo = _mm256_srai_epi32(lo, bits);
    hi = _mm256_srai_epi32(hi, bits);
    __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(lo, hi), 0xd8);
    return _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
}

AVX2 static void blend_avx2(uint8_t *dst, const uint8_t *src, size_t stride, size_t n, const int32_t *w, int taps,
                            int bits) {
    const __m128i none = _mm_setzero_si128();
    for (size_t at = 0; at + 16 <= n; at += 16) {
        __m256i lo = _mm256_set1_epi32(1 << (bits - 1)), hi = lo;
        const uint8_t *s = src + at;
        for (int j = 0; j < taps; j += 2, s += 2 * stride) {
            bool pair = j + 1 < taps;
            __m128i a = _mm_loadu_si128((const __m128i *)(const void *)s);
            __m128i b = pair ? _mm_loadu_si128((const __m128i *)(const void *)(s + stride)) : none;
            uint32_t both = (uint16_t)w[j] | (uint32_t)(pair ? (uint16_t)w[j + 1] : 0) << 16;
            __m256i weights = _mm256_set1_epi32((int32_t)both);
            lo = _mm256_add_epi32(lo, _mm256_madd_epi16(_mm256_cvtepu8_epi16(_mm_unpacklo_epi8(a, b)), weights));
            hi = _mm256_add_epi32(hi, _mm256_madd_epi16(_mm256_cvtepu8_epi16(_mm_unpackhi_epi8(a, b)), weights));
        }
        _mm_storeu_si128((__m128i *)(void *)(dst + at), narrow16(lo, hi, bits));
    }
}

/* Weights that vpmaddwd can take: torchvision's always, Pillow's seldom. */
static bool fit_16(const int32_t *w, int taps) {
    for (int j = 0; j < taps; j++)
        if (w[j] != (int16_t)w[j]) return false;
    return true;
}

void vl_blend_rows(uint8_t *dst, const uint8_t *src, size_t stride, size_t n, const int32_t *w, int taps, int bits) {
    size_t done = 0;
    if (__builtin_cpu_supports("avx2") && fit_16(w, taps)) {
        blend_avx2(dst, src, stride, n, w, taps, bits);
        done = n & ~(size_t)15;
    }
    if (done < n) vl_blend_rows_plain(dst + done, src + done, stride, n - done, w, taps, bits);
}
#else
void vl_blend_rows(uint8_t *dst, const uint8_t *src, size_t stride, size_t n, const int32_t *w, int taps, int bits) {
    vl_blend_rows_plain(dst, src, stride, n, w, taps, bits);
}
#endif
