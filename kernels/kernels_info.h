/* kernels_info.h: what `vitreous kernels` prints: every leaf kernel of the CPU backend, and why its
 * slot resolved to it or not. */
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

#endif
