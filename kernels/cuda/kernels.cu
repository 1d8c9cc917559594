/* kernels.cu: every GPU kernel, as one module. The host side is ops_cuda.c; the names it looks up
 * are listed in backend.h. */
#include "rows.cuh"
#include "linear.cuh"
#include "fused.cuh"
#include "many.cuh"
#include "attention.cuh"
#include "group.cuh"

/* Which code the driver chose (750, 800, ...): ops_cuda.c picks kernels by it. */
KERNEL(32) vl_arch(int *out) {
    if (threadIdx.x == 0) *out = __CUDA_ARCH__;
}
