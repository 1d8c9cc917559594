/* neon.c: the AArch64 tier: 6 x 16 tiles (two passes over a panel of 32), 24 of 32 registers
 * accumulate. */
#include <arm_neon.h>

#define W 4
#define MR 6
#define CV 4
#define TIER_FN(x) x##_neon
#define vset1(x) ((vf)vdupq_n_f32(x))
#define vfma(a, b, c) ((vf)vfmaq_f32((float32x4_t)(c), (float32x4_t)(a), (float32x4_t)(b)))
#define vmax(a, b) ((vf)vmaxq_f32((float32x4_t)(a), (float32x4_t)(b)))
#include "kernels/cpu/simd.inc"
