/* gemv.cuh: y [N] = W [N, K] x [K], W bf16, x f32: a decode step. Every weight is used once, so the
 * goal is to ask memory for each byte once, in full sectors, with many requests under way.
 * N a multiple of 256, K of 2048. */
#ifndef LADDER_GEMV_CUH
#define LADDER_GEMV_CUH
#include "../device.cuh"

/* A thread for each output. Lanes read 2 bytes each, K * 2 bytes apart: 32 sectors a request. */
KERNEL(256) gemv_1_naive(float *y, const bf16_bits *w, const float *x, int K) {
    size_t n = blockIdx.x * 256 + threadIdx.x;
    float sum = 0;
    for (int k = 0; k < K; k++) sum = fmaf(from_bf16(w[n * K + k]), x[k], sum);
    y[n] = sum;
}

/* A warp for each output: neighbours read neighbours, and a shuffle adds up. */
KERNEL(256) gemv_2_coalesced(float *y, const bf16_bits *w, const float *x, int K) {
    size_t n = blockIdx.x * 8 + threadIdx.x / 32;
    float sum = 0;
    for (int k = threadIdx.x % 32; k < K; k += 32) sum = fmaf(from_bf16(w[n * K + k]), x[k], sum);
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) y[n] = sum;
}

DEVICE float dot8(uint4 w, float4 a, float4 b, float sum) {
    sum = fmaf(low(w.x), a.x, fmaf(high(w.x), a.y, sum));
    sum = fmaf(low(w.y), a.z, fmaf(high(w.y), a.w, sum));
    sum = fmaf(low(w.z), b.x, fmaf(high(w.z), b.y, sum));
    return fmaf(low(w.w), b.z, fmaf(high(w.w), b.w, sum));
}

/* 16 bytes a lane: an eighth of the requests. But x is read in pieces of 16 bytes, 32 apart. */
KERNEL(256) gemv_3_vectorised(float *y, const uint4 *w, const float4 *x, int K) {
    size_t n = blockIdx.x * 8 + threadIdx.x / 32;
    float sum = 0;
    for (int i = threadIdx.x % 32; i < K / 8; i += 32)
        sum = dot8(w[n * (K / 8) + i], x[2 * i], x[2 * i + 1], sum);
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) y[n] = sum;
}

/* x once for each block, into shared memory, split in halves so that lanes read side by side. */
KERNEL(256) gemv_4_tiled(float *y, const uint4 *w, const float4 *x, int K) {
    __shared__ float4 part[2][256 + 4];         /* 64 bytes more: stores to both halves miss each other */
    size_t n = blockIdx.x * 8 + threadIdx.x / 32;
    float sum = 0;
    for (int first = 0; first < K / 8; first += 256) {
        for (int i = threadIdx.x; i < 512; i += 256) part[i % 2][i / 2] = x[2 * first + i];
        __syncthreads();
        for (int i = threadIdx.x % 32; i < 256; i += 32)
            sum = dot8(w[n * (K / 8) + first + i], part[0][i], part[1][i], sum);
        __syncthreads();
    }
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) y[n] = sum;
}

/* The four inputs that a lane holds of column 0 of the right operand; the other columns are zeros. */
DEVICE void input_pair(uint32_t *b, const float *x, int tile) {
    int lane = threadIdx.x % 32;
    float4 v = ((const float4 *)(x + tile * 16))[lane % 4];
    b[0] = lane < 4 ? pair_bf16(v.x, v.y) : 0;
    b[1] = lane < 4 ? pair_bf16(v.z, v.w) : 0;
}

/* 16 outputs: the sums of a block's 8 warps, in order. */
DEVICE void add_warps(float *y, const float *acc, float (*part)[16]) { /* part: [8], shared */
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    if (lane % 4 == 0) part[warp][lane / 4 * 2] = acc[0], part[warp][lane / 4 * 2 + 1] = acc[2];
    __syncthreads();
    if (threadIdx.x >= 16) return;
    float sum = 0;
    for (int i = 0; i < 8; i++) sum += part[i][threadIdx.x];
    y[blockIdx.x * 16 + threadIdx.x] = sum;
}

/* W in fragment order (device.cuh): a warp reads a 16 x 16 tile with one request, and one instruction
 * multiplies it. The same pass would serve eight rows of x. */
KERNEL(256) gemv_5_mma(float *y, const uint4 *w, const float *x, int K) {
    __shared__ float part[8][16];
    float acc[4] = {};
    const uint4 *tiles = w + (size_t)blockIdx.x * (K / 16) * 32 + threadIdx.x % 32;
    for (int t = threadIdx.x / 32; t < K / 16; t += 8) {
        uint4 v = tiles[t * 32];
        uint32_t a[4] = {v.x, v.y, v.z, v.w}, b[2];
        input_pair(b, x, t);
        mma(acc, a, b);
    }
    add_warps(y, acc, part);
}

/* Eight tiles are asked for before the first is used: the memory is never idle. */
KERNEL(256) gemv_6_pipelined(float *y, const uint4 *w, const float *x, int K) {
    __shared__ float part[8][16];
    float acc[4] = {};
    const uint4 *tiles = w + (size_t)blockIdx.x * (K / 16) * 32 + threadIdx.x % 32;
    for (int t = threadIdx.x / 32 * 8; t < K / 16; t += 64) {
        uint4 v[8];
#pragma unroll
        for (int i = 0; i < 8; i++) v[i] = __ldg(tiles + (t + i) * 32);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            uint32_t a[4] = {v[i].x, v[i].y, v[i].z, v[i].w}, b[2];
            input_pair(b, x, t + i);
            mma(acc, a, b);
        }
    }
    add_warps(y, acc, part);
}
#endif
