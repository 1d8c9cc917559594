/* neon.c: 4 lanes, 32 registers: 6 x 4 dot products (rung 4), 6 x 16 sums (rung 5, two passes over
 * a panel). */
#include <arm_neon.h>

#define W 4
#define DT 6
#define DN 4
#define MR 6
#define CV 4
#define TIER_FN(x) x##_neon
#define vset1(x) ((vf)vdupq_n_f32(x))
#define vfma(a, b, c) ((vf)vfmaq_f32((float32x4_t)(c), (float32x4_t)(a), (float32x4_t)(b)))
#define vmax(a, b) ((vf)vmaxq_f32((float32x4_t)(a), (float32x4_t)(b)))
#include "kernels/cpu/ladder/linear.inc"
#include "kernels/cpu/ladder/attention.inc"
