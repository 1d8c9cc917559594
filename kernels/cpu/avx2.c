/* avx2.c: the AVX2 + FMA tier: 6 x 16 tiles (two passes over a panel of 32), 12 of 16 registers
 * accumulate. */
#include <immintrin.h>

#define W 8
#define MR 6
#define CV 2
#define TIER_FN(x) x##_avx2
#define vset1(x) ((vf)_mm256_set1_ps(x))
#define vfma(a, b, c) ((vf)_mm256_fmadd_ps((__m256)(a), (__m256)(b), (__m256)(c)))
#define vmax(a, b) ((vf)_mm256_max_ps((__m256)(a), (__m256)(b)))
#include "kernels/cpu/simd.inc"
