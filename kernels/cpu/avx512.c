/* avx512.c: the AVX-512 tier (F, BW, VL, DQ): tiles of 12 x 32 and 6 x 64, 24 of 32 registers
 * accumulate. */
#include <immintrin.h>

#define W 16
#define MR 12
#define CV 2
#define WIDE_MR 6
#define TIER_FN(x) x##_avx512
#define vset1(x) ((vf)_mm512_set1_ps(x))
#define vfma(a, b, c) ((vf)_mm512_fmadd_ps((__m512)(a), (__m512)(b), (__m512)(c)))
#define vmax(a, b) ((vf)_mm512_max_ps((__m512)(a), (__m512)(b)))
#define vscale(a, n) ((vf)_mm512_scalef_ps((__m512)(a), (__m512)(n)))
#include "kernels/cpu/simd.inc"
