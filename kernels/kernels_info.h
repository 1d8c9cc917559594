/* kernels_info.h: what `vitreous kernels` prints: every leaf kernel of the CPU backend, why its slot
 * resolved to it or not, and how fast it is; and VL_KERNEL, which every backend reads. */
#ifndef VL_KERNELS_INFO_H
#define VL_KERNELS_INFO_H

#include <stdbool.h>
#include <stddef.h>

#include "common/common.h"

typedef struct vl_kernel_row {
    const char *slot, *name, *tier;
    int tile;              /* rows of a gemm tile, else 0 */
    bool chosen;
    const char *reason;
} vl_kernel_row;

enum { VL_KERNEL_ROWS_MAX = 128 };
/* Fills at most `max` rows, in the order of ukernels.def; returns how many. */
size_t vl_kernels_list(vl_kernel_row *rows, size_t max);

/* One kernel on one shape of Qwen3-VL-2B, one thread. */
typedef struct vl_kernel_rate {
    const char *slot, *name, *tier, *shape;
    double seconds;        /* of a call, or of the calls that make one panel of a linear        */
    double gflops, gbs;    /* 0: does not count; gbs: of weights, else of everything touched    */
    const char *roof;      /* "fma", "bf16", "int8", "read"; NULL: neither arithmetic nor memory */
    double peak_percent;   /* of that peak, measured just before; NAN: none                     */
} vl_kernel_rate;
typedef struct vl_kernel_peaks { double fma_gflops, bf16_gflops, int8_gops, read_gbs; } vl_kernel_peaks;
typedef void vl_kernel_rate_fn(void *user, const vl_kernel_rate *r, const vl_kernel_peaks *p);
/* Times every kernel that this CPU can run and whose name holds `part`, in the order of ukernels.def. */
int vl_kernels_bench(const char *part, vl_kernel_rate_fn *row, void *user, vl_err *err);
/* The value of `slot` in VL_KERNEL (slot=value[,slot=value]), as start and length; NULL: not forced. */
const char *vl_kernel_forced(const char *slot, size_t *len);

#endif
