/* sha256_ni.c: the block function of SHA-256 in the processor's own instructions (x86 SHA extensions).
 *
 * sha256rnds2 does two rounds on the state held as two vectors, (A B E F) and (C D G H), from the highest
 * lane down; sha256msg1 and msg2 make four further words of the schedule:
 *   w[i+4] = msg2(msg1(w[i], w[i+1]) + (w[i+3] : w[i+2] moved by one word), w[i+3])     w[i]: four words
 */
#include "common/sha256.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>

/* Asked once; a race asks twice. */
static bool have_sha(void) {
    static int known; /* 0: not asked, 1: no, 2: yes */
    int k = __atomic_load_n(&known, __ATOMIC_RELAXED);
    if (!k) {
        unsigned a, b, c, d, sse = 0;
        if (__get_cpuid(1, &a, &b, &c, &d)) sse = c;
        bool yes = (sse & bit_SSSE3) && (sse & bit_SSE4_1) && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b >> 29 & 1);
        k = yes ? 2 : 1;
        __atomic_store_n(&known, k, __ATOMIC_RELAXED);
    }
    return k == 2;
}

__attribute__((target("sha,sse4.1,ssse3"))) static void blocks(uint32_t state[8], const uint8_t *p, size_t n) {
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    __m128i dcba = _mm_loadu_si128((const __m128i *)(const void *)state);
    __m128i hgfe = _mm_loadu_si128((const __m128i *)(const void *)(state + 4));
    __m128i cdab = _mm_shuffle_epi32(dcba, 0xb1), efgh = _mm_shuffle_epi32(hgfe, 0x1b);
    __m128i abef = _mm_alignr_epi8(cdab, efgh, 8), cdgh = _mm_blend_epi16(efgh, cdab, 0xf0);
    for (; n; n--, p += 64) {
        __m128i w[4], abef0 = abef, cdgh0 = cdgh;
        for (int i = 0; i < 4; i++)
            w[i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(const void *)(p + 16 * i)), swap);
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) {
            __m128i kw = _mm_add_epi32(w[i & 3], _mm_loadu_si128((const __m128i *)(const void *)(vl_sha256_k + 4 * i)));
            cdgh = _mm_sha256rnds2_epu32(cdgh, abef, kw);
            abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(kw, 0x0e));
            if (i >= 12) continue;
            __m128i last = w[(i + 3) & 3], moved = _mm_alignr_epi8(last, w[(i + 2) & 3], 4);
            w[i & 3] = _mm_sha256msg2_epu32(_mm_add_epi32(_mm_sha256msg1_epu32(w[i & 3], w[(i + 1) & 3]), moved), last);
        }
        abef = _mm_add_epi32(abef, abef0);
        cdgh = _mm_add_epi32(cdgh, cdgh0);
    }
    __m128i feba = _mm_shuffle_epi32(abef, 0x1b), dchg = _mm_shuffle_epi32(cdgh, 0xb1);
    _mm_storeu_si128((__m128i *)(void *)state, _mm_blend_epi16(feba, dchg, 0xf0));
    _mm_storeu_si128((__m128i *)(void *)(state + 4), _mm_alignr_epi8(dchg, feba, 8));
}

bool vl_sha256_blocks_ni(uint32_t state[8], const uint8_t *p, size_t n) {
    if (!have_sha()) return false;
    blocks(state, p, n);
    return true;
}
#else
bool vl_sha256_blocks_ni(uint32_t state[8], const uint8_t *p, size_t n) {
    (void)state, (void)p, (void)n;
    return false;
}
#endif
