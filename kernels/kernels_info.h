/* kernels_info.h: what `vitreous kernels` prints: every leaf kernel of the CPU backend, and why its
 * slot resolved to it or not; and VL_KERNEL, which every backend reads. */
#ifndef VL_KERNELS_INFO_H
#define VL_KERNELS_INFO_H

#include <stdbool.h>
#include <stddef.h>

typedef struct vl_kernel_row {
    const char *slot, *name, *tier;
    int tile;              /* rows of a gemm tile, else 0 */
    bool chosen;
    const char *reason;
} vl_kernel_row;

enum { VL_KERNEL_ROWS_MAX = 128 };
/* Fills at most `max` rows, in the order of ukernels.def; returns how many. */
size_t vl_kernels_list(vl_kernel_row *rows, size_t max);

/* The value of `slot` in VL_KERNEL (slot=value[,slot=value]), as start and length; NULL: not forced. */
const char *vl_kernel_forced(const char *slot, size_t *len);

#endif
