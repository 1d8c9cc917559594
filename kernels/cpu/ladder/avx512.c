/* avx512.c: 16 lanes, 32 registers: 6 x 4 dot products (rung 4), 12 x 32 sums (rung 5). */
#include <immintrin.h>

#define W 16
#define DT 6
#define DN 4
#define MR 12
#define CV 2
#define TIER_FN(x) x##_avx512
#define vset1(x) ((vf)_mm512_set1_ps(x))
#define vfma(a, b, c) ((vf)_mm512_fmadd_ps((__m512)(a), (__m512)(b), (__m512)(c)))
#define vmax(a, b) ((vf)_mm512_max_ps((__m512)(a), (__m512)(b)))
#include "kernels/cpu/ladder/linear.inc"
#include "kernels/cpu/ladder/attention.inc"
