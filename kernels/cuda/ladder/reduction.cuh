/* reduction.cuh: out [0] += sum of x [n]: what norms, arg-max and softmax do to a row. One addition
 * for each 4 bytes: nothing but memory can be the limit, unless the additions get in each other's way.
 * n a multiple of 16384. Grids of at most 256 blocks walk the array. There is no mma rung: a product with
 * ones would only move additions that are free anyway. */
#ifndef LADDER_REDUCTION_CUH
#define LADDER_REDUCTION_CUH
#include "../device.cuh"

/* Each thread a stretch of its own: lanes lie n / threads apart. */
KERNEL(256) reduction_1_naive(float *out, const float *x, int n) {
    int each = n / (gridDim.x * 256), first = (blockIdx.x * 256 + threadIdx.x) * each;
    float sum = 0;
    for (int i = 0; i < each; i++) sum += x[first + i];
    atomicAdd(out, sum);
}

/* Neighbours read neighbours; still one atomic for each thread. */
KERNEL(256) reduction_2_coalesced(float *out, const float *x, int n) {
    float sum = 0;
    for (int i = blockIdx.x * 256 + threadIdx.x; i < n; i += gridDim.x * 256) sum += x[i];
    atomicAdd(out, sum);
}

/* 16 bytes a lane. */
KERNEL(256) reduction_3_vectorised(float *out, const float4 *x, int n) {
    float sum = 0;
    for (int i = blockIdx.x * 256 + threadIdx.x; i < n / 4; i += gridDim.x * 256) {
        float4 v = x[i];
        sum += v.x + v.y + (v.z + v.w);
    }
    atomicAdd(out, sum);
}

/* The block adds up in shared memory: a tree, one atomic for each block. */
KERNEL(256) reduction_4_tiled(float *out, const float4 *x, int n) {
    __shared__ float part[256];
    float sum = 0;
    for (int i = blockIdx.x * 256 + threadIdx.x; i < n / 4; i += gridDim.x * 256) {
        float4 v = x[i];
        sum += v.x + v.y + (v.z + v.w);
    }
    part[threadIdx.x] = sum;
    for (int half = 128; half; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) part[threadIdx.x] += part[threadIdx.x + half];
    }
    if (threadIdx.x == 0) atomicAdd(out, part[0]);
}

/* Shuffles instead of most of the tree: a barrier or two instead of eight. */
KERNEL(256) reduction_5_shuffles(float *out, const float4 *x, int n) {
    __shared__ float part[8];
    float sum = 0;
    for (int i = blockIdx.x * 256 + threadIdx.x; i < n / 4; i += gridDim.x * 256) {
        float4 v = x[i];
        sum += v.x + v.y + (v.z + v.w);
    }
    sum = block_sum(sum, part);
    if (threadIdx.x == 0) atomicAdd(out, sum);
}

/* Four loads under way in each thread. */
KERNEL(256) reduction_6_pipelined(float *out, const float4 *x, int n) {
    __shared__ float part[8];
    float sum = 0;
    int step = gridDim.x * 256;
    for (int i = blockIdx.x * 256 + threadIdx.x; i < n / 4; i += 4 * step) {
        float4 v[4];
#pragma unroll
        for (int j = 0; j < 4; j++)
            v[j] = i + j * step < n / 4 ? __ldg(x + i + j * step) : make_float4(0, 0, 0, 0);
#pragma unroll
        for (int j = 0; j < 4; j++) sum += v[j].x + v[j].y + (v[j].z + v[j].w);
    }
    sum = block_sum(sum, part);
    if (threadIdx.x == 0) atomicAdd(out, sum);
}
#endif
