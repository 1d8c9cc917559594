/* quantise.h: weights to integers and back, as `vitreous quantize` writes them and as the CPU backend
 * makes them at load; both call these functions, so both give the same codes. Layout and arithmetic:
 * kernels/cpu/quant.h.
 *
 *   int8   w ~ scale * code             code in [-127, 127]          1 byte each
 *   int4   w ~ scale * VL_Q4_CODES[i]   i in [0, 15]                 two to a byte, even k in the low half
 * One bf16 scale for every 32 neighbours along K of one row. A group with NaN or infinity gets the scale
 * NaN, one of zeros (or below 2^-100) the scale 0.
 */
#ifndef VL_QUANTISE_H
#define VL_QUANTISE_H

#include "kernels/ops.h"

enum { VL_QGROUP = 32 };
extern const int8_t VL_Q4_CODES[16];

static inline size_t vl_q_groups(size_t K) { return (K + VL_QGROUP - 1) / VL_QGROUP; }
/* codes [groups][32]: int8 codes, or int4 indices, one a byte; scales [groups] bf16. */
void vl_quantise_int8(uint8_t *codes, uint16_t *scales, const float *w, size_t groups);
void vl_quantise_int4(uint8_t *codes, uint16_t *scales, const float *w, size_t groups);

/* Elements [k, k + n) of row `row` of m as floats: widened, times its scales where m has some. */
void vl_matrix_span(float *dst, const vl_matrix *m, int row, int k, int n);
/* The same of a matrix that holds codes (dtype I8 or U8), k a multiple of 32: codes [ceil(n / 32) * 32] one a
 * byte, scales [ceil(n / 32)]. Beyond n: code 0 or the index of the code nearest 0, which meet x = 0. */
void vl_matrix_codes(uint8_t *codes, uint16_t *scales, const vl_matrix *m, int row, int k, int n);

#endif
