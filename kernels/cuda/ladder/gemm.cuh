/* gemm.cuh: C [M, N] = A [M, K] B [K, N], A and B bf16, row-major: a prompt. Every weight is used M
 * times, so the goal is to bring it close once and keep the tensor cores fed.
 * M, N, K multiples of 64, N of 256. */
#ifndef LADDER_GEMM_CUH
#define LADDER_GEMM_CUH
#include "../device.cuh"

/* A thread for each output, lanes along M: rows of A lie K * 2 bytes apart. Grid (M / 32, N / 8). */
KERNEL(256) gemm_1_naive(float *c, const bf16_bits *a, const bf16_bits *b, int N, int K) {
    size_t m = blockIdx.x * 32 + threadIdx.x % 32, n = blockIdx.y * 8 + threadIdx.x / 32;
    float sum = 0;
    for (int k = 0; k < K; k++) sum = fmaf(from_bf16(a[m * K + k]), from_bf16(b[(size_t)k * N + n]), sum);
    c[m * N + n] = sum;
}

/* Lanes along N: B comes in whole sectors, and all lanes share an element of A. Grid (N / 32, M / 8). */
KERNEL(256) gemm_2_coalesced(float *c, const bf16_bits *a, const bf16_bits *b, int N, int K) {
    size_t n = blockIdx.x * 32 + threadIdx.x % 32, m = blockIdx.y * 8 + threadIdx.x / 32;
    float sum = 0;
    for (int k = 0; k < K; k++) sum = fmaf(from_bf16(a[m * K + k]), from_bf16(b[(size_t)k * N + n]), sum);
    c[m * N + n] = sum;
}

/* Eight outputs a thread: 16 bytes of B at once, each element of A used eight times.
 * Grid (N / 256, M / 8). */
KERNEL(256) gemm_3_vectorised(float *c, const bf16_bits *a, const bf16_bits *b, int N, int K) {
    size_t n = (blockIdx.x * 32 + threadIdx.x % 32) * 8, m = blockIdx.y * 8 + threadIdx.x / 32;
    float sum[8] = {};
    for (int k = 0; k < K; k++) {
        float x = from_bf16(a[m * K + k]);
        uint4 v = *(const uint4 *)(b + (size_t)k * N + n);
        uint32_t w[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            sum[2 * i] = fmaf(x, low(w[i]), sum[2 * i]);
            sum[2 * i + 1] = fmaf(x, high(w[i]), sum[2 * i + 1]);
        }
    }
    float4 *to = (float4 *)(c + m * N + n);
    to[0] = make_float4(sum[0], sum[1], sum[2], sum[3]);
    to[1] = make_float4(sum[4], sum[5], sum[6], sum[7]);
}

/* 64 x 64 outputs a block, 4 x 4 a thread; A and B pass through shared memory in slices of 16, so
 * each element is read from afar once for 64 uses. Grid (N / 64, M / 64). */
KERNEL(256) gemm_4_tiled(float *c, const bf16_bits *a, const bf16_bits *b, int N, int K) {
    __shared__ float sa[16][66];                /* transposed; 66: its stores meet 32 banks */
    __shared__ __align__(16) float sb[16][64];
    size_t m0 = blockIdx.y * 64, n0 = blockIdx.x * 64;
    int tx = threadIdx.x % 16, ty = threadIdx.x / 16, row = threadIdx.x / 4, col = threadIdx.x % 4 * 4;
    float sum[4][4] = {};
    for (int k0 = 0; k0 < K; k0 += 16) {
        uint2 va = *(const uint2 *)(a + (m0 + row) * K + k0 + col);
        uint2 vb = *(const uint2 *)(b + (size_t)(k0 + ty) * N + n0 + tx * 4);
        sa[col][row] = low(va.x), sa[col + 1][row] = high(va.x);
        sa[col + 2][row] = low(va.y), sa[col + 3][row] = high(va.y);
        *(float4 *)&sb[ty][tx * 4] = make_float4(low(vb.x), high(vb.x), low(vb.y), high(vb.y));
        __syncthreads();
#pragma unroll
        for (int k = 0; k < 16; k++) {
            float4 y = *(const float4 *)&sb[k][tx * 4];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                float x = sa[k][ty * 4 + i];
                sum[i][0] = fmaf(x, y.x, sum[i][0]), sum[i][1] = fmaf(x, y.y, sum[i][1]);
                sum[i][2] = fmaf(x, y.z, sum[i][2]), sum[i][3] = fmaf(x, y.w, sum[i][3]);
            }
        }
        __syncthreads();
    }
    for (int i = 0; i < 4; i++)
        *(float4 *)(c + (m0 + ty * 4 + i) * N + n0 + tx * 4) =
            make_float4(sum[i][0], sum[i][1], sum[i][2], sum[i][3]);
}

enum { GEMM_PITCH = 64 + 8 }; /* 16 bytes more a row: 8 rows of ldmatrix meet 32 banks */

/* 64 x 64 outputs by four warps of 32 x 32. */
struct gemm_warp {
    float acc[2][4][4] = {};
    __device__ void slice(const bf16_bits *sa, const bf16_bits *sb) { /* 64 deep */
        int lane = threadIdx.x % 32, m0 = threadIdx.x / 64 * 32, n0 = threadIdx.x / 32 % 2 * 32;
#pragma unroll
        for (int k = 0; k < 64; k += 16) {
            uint32_t a[2][4], b[2][4];
#pragma unroll
            for (int i = 0; i < 2; i++) {
                ldmatrix(a[i], sa + (m0 + i * 16 + lane % 16) * GEMM_PITCH + k + lane / 16 * 8);
                ldmatrix_trans(b[i], sb + (k + lane % 16) * GEMM_PITCH + n0 + i * 16 + lane / 16 * 8);
            }
#pragma unroll
            for (int i = 0; i < 2; i++)
#pragma unroll
                for (int j = 0; j < 4; j++) mma(acc[i][j], a[i], b[j / 2] + j % 2 * 2);
        }
    }
    __device__ void store(float *c, int N) {
        int lane = threadIdx.x % 32, m0 = threadIdx.x / 64 * 32, n0 = threadIdx.x / 32 % 2 * 32;
#pragma unroll
        for (int i = 0; i < 2; i++)
#pragma unroll
            for (int j = 0; j < 4; j++)
#pragma unroll
                for (int r = 0; r < 2; r++) {
                    size_t m = blockIdx.y * 64 + m0 + i * 16 + lane / 4 + r * 8;
                    int n = blockIdx.x * 64 + n0 + j * 8 + lane % 4 * 2;
                    *(float2 *)(c + m * N + n) = make_float2(acc[i][j][r * 2], acc[i][j][r * 2 + 1]);
                }
    }
};

/* Slices stay bf16, ldmatrix hands them to the tensor cores. Grid (N / 64, M / 64). */
KERNEL(128) gemm_5_mma(float *c, const bf16_bits *a, const bf16_bits *b, int N, int K) {
    __shared__ __align__(16) bf16_bits sa[64 * GEMM_PITCH], sb[64 * GEMM_PITCH];
    gemm_warp w;
    for (int k0 = 0; k0 < K; k0 += 64) {
#pragma unroll
        for (int i = threadIdx.x; i < 512; i += 128) {
            int row = i / 8, col = i % 8 * 8;
            *(uint4 *)(sa + row * GEMM_PITCH + col) =
                *(const uint4 *)(a + (size_t)(blockIdx.y * 64 + row) * K + k0 + col);
            *(uint4 *)(sb + row * GEMM_PITCH + col) =
                *(const uint4 *)(b + (size_t)(k0 + row) * N + blockIdx.x * 64 + col);
        }
        __syncthreads();
        w.slice(sa, sb);
        __syncthreads();
    }
    w.store(c, N);
}

/* cp.async brings the next slice while this one is multiplied. Grid (N / 64, M / 64). */
KERNEL(128) gemm_6_pipelined(float *c, const bf16_bits *a, const bf16_bits *b, int N, int K) {
    __shared__ __align__(16) bf16_bits sa[2][64 * GEMM_PITCH], sb[2][64 * GEMM_PITCH];
    gemm_warp w;
    auto load = [&](int k0) {
        int to = k0 / 64 % 2;
#pragma unroll
        for (int i = threadIdx.x; i < 512; i += 128) {
            int row = i / 8, col = i % 8 * 8;
            copy16(sa[to] + row * GEMM_PITCH + col,
                   a + (size_t)(blockIdx.y * 64 + row) * K + k0 + col, true);
            copy16(sb[to] + row * GEMM_PITCH + col,
                   b + (size_t)(k0 + row) * N + blockIdx.x * 64 + col, true);
        }
        copies_commit();
    };
    load(0);
    for (int k0 = 0; k0 < K; k0 += 64) {
        copies_wait<0>();
        __syncthreads(); /* the slice is here, and nobody reads the other buffer any more */
        if (k0 + 64 < K) load(k0 + 64);
        w.slice(sa[k0 / 64 % 2], sb[k0 / 64 % 2]);
    }
    w.store(c, N);
}
#endif
