/* avx2.c: 8 lanes, 16 registers: 3 x 4 dot products (rung 4), 6 x 16 sums (rung 5, two passes over
 * a panel). */
#include <immintrin.h>

#define W 8
#define DT 3
#define DN 4
#define MR 6
#define CV 2
#define TIER_FN(x) x##_avx2
#define vset1(x) ((vf)_mm256_set1_ps(x))
#define vfma(a, b, c) ((vf)_mm256_fmadd_ps((__m256)(a), (__m256)(b), (__m256)(c)))
#define vmax(a, b) ((vf)_mm256_max_ps((__m256)(a), (__m256)(b)))
#include "kernels/cpu/ladder/linear.inc"
#include "kernels/cpu/ladder/attention.inc"
