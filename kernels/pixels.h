/* pixels.h: the inner loop of the picture resize, which model/resize.c is built on. */
#ifndef VL_PIXELS_H
#define VL_PIXELS_H

#include <stddef.h>
#include <stdint.h>

/* dst[i] = clamp((2^(bits-1) + sum_j w[j] * src[j * stride + i]) >> bits), i < n, j < taps. Exact in integers
 * whatever the instructions: sums fit in 32 bits. */
void vl_blend_rows(uint8_t *dst, const uint8_t *src, size_t stride, size_t n, const int32_t *w, int taps, int bits);
/* The form without any instruction of its own, which the other is tested against. */
void vl_blend_rows_plain(uint8_t *dst, const uint8_t *src, size_t stride, size_t n, const int32_t *w, int taps,
                         int bits);

#endif
