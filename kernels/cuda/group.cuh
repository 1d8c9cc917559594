/* group.cuh: columns that lie apart on several GPUs (group.c), on their way to and from ncclAllGather,
 * which joins whole blocks: part [ranks][T][c], c columns of each rank. One block for each row.
 *
 * Easy to get wrong: the last rank may have fewer than c columns; what fills them up is never read,
 * but it is sent, so it is written. */
#ifndef VL_GROUP_CUH
#define VL_GROUP_CUH

#include "device.cuh"

/* part[t] = the n columns of row t from `x` on, then zeros up to c. Grid T. */
KERNEL(256) vl_take_columns(float *part, const float *x, int ldx, int n, int c) {
    after_the_kernel_before();
    size_t t = blockIdx.x;
    for (int i = threadIdx.x; i < c; i += 256) part[t * c + i] = i < n ? x[t * ldx + i] : 0.0f;
}

/* Row t of x [T, N] = its columns from every rank. Grid T. */
KERNEL(256) vl_place_columns(float *x, int ldx, const float *part, int T, int N, int c) {
    after_the_kernel_before();
    size_t t = blockIdx.x;
    for (int i = threadIdx.x; i < N; i += 256)
        x[t * ldx + i] = part[((size_t)(i / c) * T + t) * c + i % c];
}
#endif
