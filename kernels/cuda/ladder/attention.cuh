/* attention.cuh: out = softmax(q k^T / 8) v for each of H heads: q, k, v bf16 [H, T, 64], out f32: the
 * vision tower. The scores are never stored; a running maximum m and sum l rescale what was added so
 * far when a larger score comes (the online softmax). T a multiple of 64. */
#ifndef LADDER_ATTENTION_CUH
#define LADDER_ATTENTION_CUH
#include "../device.cuh"

enum { HEAD = 64 };
#define TO_EXP2 (0.125f * 1.4426950408889634f) /* 1 / sqrt(HEAD), and exp as a power of two */

/* A thread for each query. Its row of q and of the result stay in registers; the lanes of a warp read
 * the same key, two bytes at a time. Grid (T / 64, H). */
KERNEL(64) attention_1_naive(float *out, const bf16_bits *q, const bf16_bits *k, const bf16_bits *v, int T) {
    size_t head = (size_t)blockIdx.y * T * HEAD, row = head + (blockIdx.x * 64 + threadIdx.x) * HEAD;
    float x[HEAD], o[HEAD] = {}, m = -CUDART_INF_F, l = 0;
    for (int e = 0; e < HEAD; e++) x[e] = from_bf16(q[row + e]);
    for (int j = 0; j < T; j++) {
        float s = 0;
        for (int e = 0; e < HEAD; e++) s = fmaf(x[e], from_bf16(k[head + j * HEAD + e]), s);
        float top = fmaxf(m, s * TO_EXP2), fix = exp2_fast(m - top), p = exp2_fast(s * TO_EXP2 - top);
        m = top;
        l = l * fix + p;
        for (int e = 0; e < HEAD; e++) o[e] = o[e] * fix + p * from_bf16(v[head + j * HEAD + e]);
    }
    for (int e = 0; e < HEAD; e++) out[row + e] = o[e] / l;
}

/* A warp for each query, two columns a lane: requests are whole sectors, but every score costs five
 * shuffles. Grid (T / 8, H). */
KERNEL(256) attention_2_coalesced(float *out, const uint32_t *q, const uint32_t *k, const uint32_t *v, int T) {
    int lane = threadIdx.x % 32;
    size_t head = (size_t)blockIdx.y * T * 32, row = head + (blockIdx.x * 8 + threadIdx.x / 32) * 32 + lane;
    float m = -CUDART_INF_F, l = 0, o0 = 0, o1 = 0;
    uint32_t x = q[row];
    for (int j = 0; j < T; j++) {
        uint32_t y = k[head + j * 32 + lane], z = v[head + j * 32 + lane];
        float s = warp_sum(low(x) * low(y) + high(x) * high(y)) * TO_EXP2;
        float top = fmaxf(m, s), fix = exp2_fast(m - top), p = exp2_fast(s - top);
        m = top;
        l = l * fix + p;
        o0 = o0 * fix + p * low(z);
        o1 = o1 * fix + p * high(z);
    }
    ((float2 *)out)[row] = make_float2(o0 / l, o1 / l);
}

DEVICE float dot_row(const uint4 *x, const uint4 *y) { /* 64 products */
    float s = 0;
#pragma unroll
    for (int i = 0; i < 8; i++) {
        uint4 a = x[i], b = y[i];
        s += low(a.x) * low(b.x) + high(a.x) * high(b.x) + low(a.y) * low(b.y) + high(a.y) * high(b.y);
        s += low(a.z) * low(b.z) + high(a.z) * high(b.z) + low(a.w) * low(b.w) + high(a.w) * high(b.w);
    }
    return s;
}

/* A query's state while 32 keys at a time pass: lane = key for the scores, two columns for v. */
struct attention_row {
    float m = -CUDART_INF_F, l = 0, o0 = 0, o1 = 0;
    __device__ void keys(float s, const uint32_t *v) { /* s: this lane's score; v: 32 rows */
        float top = s;
        for (int i = 16; i; i >>= 1) top = fmaxf(top, __shfl_xor_sync(~0u, top, i));
        top = fmaxf(top, m);
        float fix = exp2_fast(m - top), p = exp2_fast(s - top);
        m = top;
        l = l * fix + warp_sum(p);
        o0 *= fix, o1 *= fix;
        for (int j = 0; j < 32; j++) {
            float pj = __shfl_sync(~0u, p, j);
            uint32_t z = v[j * 32 + threadIdx.x % 32];
            o0 = fmaf(pj, low(z), o0);
            o1 = fmaf(pj, high(z), o1);
        }
    }
};

/* A lane for each key: 16 bytes of its row at a time, no shuffle for a score. The lanes' rows lie
 * 128 bytes apart, so a request uses half of each sector. Grid (T / 8, H). */
KERNEL(256) attention_3_vectorised(float *out, const uint4 *q, const uint4 *k, const uint32_t *v, int T) {
    int lane = threadIdx.x % 32;
    size_t head = (size_t)blockIdx.y * T, row = head + blockIdx.x * 8 + threadIdx.x / 32;
    attention_row a;
    for (int j = 0; j < T; j += 32)
        a.keys(dot_row(q + row * 8, k + (head + j + lane) * 8) * TO_EXP2, v + (head + j) * 32);
    ((float2 *)out)[row * 32 + lane] = make_float2(a.o0 / a.l, a.o1 / a.l);
}

/* 32 keys and values pass through shared memory for the block's eight queries; 9 pieces of 16 bytes a
 * row keep the lanes in different banks. Grid (T / 8, H). */
KERNEL(256) attention_4_tiled(float *out, const uint4 *q, const uint4 *k, const uint4 *v, int T) {
    __shared__ uint4 sq[8][8], sk[32][9], sv[32][8];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    size_t head = (size_t)blockIdx.y * T, row0 = head + blockIdx.x * 8;
    attention_row a;
    if (threadIdx.x < 64) sq[threadIdx.x / 8][threadIdx.x % 8] = q[row0 * 8 + threadIdx.x];
    for (int j = 0; j < T; j += 32) {
        sk[threadIdx.x / 8][threadIdx.x % 8] = k[(head + j) * 8 + threadIdx.x];
        sv[threadIdx.x / 8][threadIdx.x % 8] = v[(head + j) * 8 + threadIdx.x];
        __syncthreads();
        a.keys(dot_row(sq[warp], sk[lane]) * TO_EXP2, (const uint32_t *)sv);
        __syncthreads();
    }
    ((float2 *)out)[(row0 + warp) * 32 + lane] = make_float2(a.o0 / a.l, a.o1 / a.l);
}

enum { ROW_PITCH = HEAD + 8 };

/* 16 queries of a warp: both products on the tensor cores. Scores come out as accumulators, in which a
 * lane holds two columns of rows lane / 4 and lane / 4 + 8; as bf16 pairs these are the left operand
 * of the second product. */
struct attention_tile {
    uint32_t q[4][4];
    float m[2] = {-CUDART_INF_F, -CUDART_INF_F}, l[2] = {}, o[8][4] = {};

    __device__ void query(const bf16_bits *sq) { /* 64 rows; this warp's are from warp * 16 on */
        int lane = threadIdx.x % 32;
        for (int i = 0; i < 4; i++)
            ldmatrix(q[i], sq + (threadIdx.x / 32 * 16 + lane % 16) * ROW_PITCH + i * 16 + lane / 16 * 8);
    }
    __device__ void keys(const bf16_bits *sk, const bf16_bits *sv) { /* 64 of them */
        int lane = threadIdx.x % 32;
        float s[8][4] = {};
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int n = 0; n < 4; n++) {
                uint32_t b[4];
                ldmatrix(b, sk + (n * 16 + lane % 8 + lane / 16 * 8) * ROW_PITCH + i * 16 + lane / 8 % 2 * 8);
                mma(s[n * 2], q[i], b);
                mma(s[n * 2 + 1], q[i], b + 2);
            }
        for (int r = 0; r < 2; r++) softmax(s, r);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            uint32_t p[4] = {pair_bf16(s[2 * i][0], s[2 * i][1]), pair_bf16(s[2 * i][2], s[2 * i][3]),
                             pair_bf16(s[2 * i + 1][0], s[2 * i + 1][1]),
                             pair_bf16(s[2 * i + 1][2], s[2 * i + 1][3])};
#pragma unroll
            for (int n = 0; n < 4; n++) {
                uint32_t b[4];
                ldmatrix_trans(b, sv + (i * 16 + lane % 16) * ROW_PITCH + n * 16 + lane / 16 * 8);
                mma(o[n * 2], p, b);
                mma(o[n * 2 + 1], p, b + 2);
            }
        }
    }
    __device__ void softmax(float (*s)[4], int r) {
        float top = m[r], sum = 0;
#pragma unroll
        for (int n = 0; n < 8; n++) top = fmaxf(top, fmaxf(s[n][r * 2], s[n][r * 2 + 1]) * TO_EXP2);
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
        float fix = exp2_fast(m[r] - top);
        m[r] = top;
#pragma unroll
        for (int n = 0; n < 8; n++)
            for (int e = r * 2; e < r * 2 + 2; e++) {
                s[n][e] = exp2_fast(s[n][e] * TO_EXP2 - top);
                sum += s[n][e];
                o[n][e] *= fix;
            }
        l[r] = l[r] * fix + sum;
    }
    __device__ void store(float *out) { /* the block's 64 rows */
        int lane = threadIdx.x % 32;
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float sum = l[r] + __shfl_xor_sync(~0u, l[r], 1);
            sum += __shfl_xor_sync(~0u, sum, 2);
            float *row = out + (threadIdx.x / 32 * 16 + lane / 4 + r * 8) * HEAD + lane % 4 * 2;
#pragma unroll
            for (int n = 0; n < 8; n++)
                *(float2 *)(row + n * 8) = make_float2(o[n][r * 2] / sum, o[n][r * 2 + 1] / sum);
        }
    }
};

/* 64 rows of 64 into shared memory, by way of the registers. */
DEVICE void rows_to_shared(bf16_bits *to, const bf16_bits *from) {
#pragma unroll
    for (int i = threadIdx.x; i < 512; i += 128)
        *(uint4 *)(to + i / 8 * ROW_PITCH + i % 8 * 8) = ((const uint4 *)from)[i];
}
/* The same by cp.async: the threads do not wait. */
DEVICE void rows_on_their_way(bf16_bits *to, const bf16_bits *from) {
#pragma unroll
    for (int i = threadIdx.x; i < 512; i += 128)
        copy16(to + i / 8 * ROW_PITCH + i % 8 * 8, (const uint4 *)from + i, true);
}

/* Grid (T / 64, H). */
KERNEL(128) attention_5_mma(float *out, const bf16_bits *q, const bf16_bits *k, const bf16_bits *v, int T) {
    __shared__ __align__(16) bf16_bits sk[64 * ROW_PITCH], sv[64 * ROW_PITCH];
    size_t head = (size_t)blockIdx.y * T * HEAD, row0 = head + blockIdx.x * 64 * HEAD;
    attention_tile a;
    rows_to_shared(sk, q + row0);
    __syncthreads();
    a.query(sk);
    for (int j = 0; j < T; j += 64) {
        __syncthreads();
        rows_to_shared(sk, k + head + j * HEAD);
        rows_to_shared(sv, v + head + j * HEAD);
        __syncthreads();
        a.keys(sk, sv);
    }
    a.store(out + row0);
}

/* The next 64 keys are on their way while these are multiplied. Grid (T / 64, H). */
KERNEL(128) attention_6_pipelined(float *out, const bf16_bits *q, const bf16_bits *k, const bf16_bits *v, int T) {
    __shared__ __align__(16) bf16_bits sk[2][64 * ROW_PITCH], sv[2][64 * ROW_PITCH];
    size_t head = (size_t)blockIdx.y * T * HEAD, row0 = head + blockIdx.x * 64 * HEAD;
    attention_tile a;
    rows_to_shared(sk[1], q + row0);
    rows_on_their_way(sk[0], k + head);
    rows_on_their_way(sv[0], v + head);
    copies_commit();
    __syncthreads();
    a.query(sk[1]);
    for (int j = 0; j < T; j += 64) {
        int now = j / 64 % 2;
        copies_wait<0>();
        __syncthreads(); /* these keys are here, and nobody reads the other buffer any more */
        if (j + 64 < T) {
            rows_on_their_way(sk[1 - now], k + head + (j + 64) * HEAD);
            rows_on_their_way(sv[1 - now], v + head + (j + 64) * HEAD);
        }
        copies_commit();
        a.keys(sk[now], sv[now]);
    }
    a.store(out + row0);
}
#endif
