/* linear.cuh: out [T, N] = epilogue(x [T, K] W^T + bias), W in fragment order (device.cuh).
 *
 *   vl_pack_weight   rows of the checkpoint -> fragment order, at load time
 *   vl_pack_rows     x -> bf16 in fragment order, for
 *   vl_plain_rows    rows of any type -> rows of bf16, for cuBLAS; vl_finish_rows: its epilogue
 *   vl_linear_many   128 outputs x 128 rows, three stages of cp.async
 *   few_totals       up to 8 rows of x: weights stream from memory once, 16 bytes for each lane;
 *   vl_linear_few    is that alone, fused.cuh puts RMSNorm before it and other ops behind it
 *
 * few and many give the same bits (the sum of device.cuh), so a row does not notice how many others
 * share its pass. On sm_75, which has no bf16 units, few widens the weights to f32 in registers and
 * serves every T. */
#include "device.cuh"

#ifndef VL_LINEAR_CUH
#define VL_LINEAR_CUH

enum { EPI_NONE, EPI_ADD, EPI_GELU_TANH, EPI_GELU_ERF }; /* vl_epilogue */

DEVICE void finish(float *out, float sum, const float *bias, int n, int epi) {
    float v = bias ? sum + bias[n] : sum;
    if (epi == EPI_ADD) v += *out;
    if (epi == EPI_GELU_TANH)
        v = 0.5f * v * (1.0f + tanhf(0.7978845608028654f * (v + 0.044715f * v * v * v)));
    if (epi == EPI_GELU_ERF) v = 0.5f * v * (1.0f + erff(v * 0.7071067811865476f));
    *out = v;
}

/* ---- packing ---------------------------------------------------------------------------------- */

DEVICE float element(const void *src, int dtype, size_t i) { /* vl_dtype: F32, F16, BF16 */
    if (dtype == 0) return ((const float *)src)[i];
    if (dtype == 1) return __half2float(((const __half *)src)[i]);
    return from_bf16(((const bf16_bits *)src)[i]);
}

/* src [rows, K]: rows of the matrix from tile 0 of `dst` on. A block takes 16 rows x 256 columns by
 * way of shared memory, so that both sides are coalesced. Grid (ceil(K / 256), tiles of rows). */
KERNEL(256) vl_pack_weight(uint4 *dst, const void *src, int dtype, int rows, int K) {
    __shared__ bf16_bits part[16][256 + 2];
    after_the_kernel_before();
    int col0 = blockIdx.x * 256, row0 = blockIdx.y * 16, kt = k_tiles(K), lane = threadIdx.x % 32;
    for (int r = 0; r < 16; r++) {
        int n = row0 + r, k = col0 + threadIdx.x;
        part[r][threadIdx.x] = to_bf16(n < rows && k < K ? element(src, dtype, (size_t)n * K + k) : 0.0f);
    }
    __syncthreads();
    for (int t = threadIdx.x / 32; t < 16 && col0 / 16 + t < kt; t += 8) {
        uint32_t pair[4];
        for (int r = 0; r < 4; r++)
            pair[r] = *(const uint32_t *)&part[lane / 4 + r % 2 * 8][t * 16 + lane % 4 * 2 + r / 2 * 8];
        dst[((size_t)blockIdx.y * kt + col0 / 16 + t) * 32 + lane] =
            make_uint4(pair[0], pair[1], pair[2], pair[3]);
    }
}

/* The four inputs of one lane: k, k + 1, k + 8, k + 9 of row p. VEC: pairs can be read at once. */
template <bool VEC> DEVICE float4 inputs(const float *p, int k, int K) {
    if (VEC) {
        float2 a = *(const float2 *)(p + k), b = *(const float2 *)(p + k + 8);
        return make_float4(a.x, a.y, b.x, b.y);
    }
    return make_float4(k < K ? p[k] : 0, k + 1 < K ? p[k + 1] : 0, k + 8 < K ? p[k + 8] : 0,
                       k + 9 < K ? p[k + 9] : 0);
}

/* dst: ceil(T / 8) x k_tiles tiles of 256 bytes. One thread for each 8 bytes. */
KERNEL(256) vl_pack_rows(uint2 *dst, const float *x, int ldx, int T, int K, int even, size_t total) {
    after_the_kernel_before();
    size_t i = (size_t)blockIdx.x * 256 + threadIdx.x;
    if (i >= total) return;
    int lane = (int)(i % 32), kt = k_tiles(K);
    int row = (int)(i / 32 / kt) * 8 + lane / 4, k = (int)(i / 32 % kt) * 16 + lane % 4 * 2;
    const float *p = x + (size_t)row * ldx;
    float4 v = make_float4(0, 0, 0, 0);
    if (row < T) v = even ? inputs<true>(p, k, K) : inputs<false>(p, k, K);
    dst[i] = make_uint2(pair_bf16(v.x, v.y), pair_bf16(v.z, v.w));
}

/* Row blockIdx.x of src [.., ld] as bf16, padded with zeros to k_tiles(K) * 16. */
KERNEL(256) vl_plain_rows(uint32_t *dst, const void *src, int dtype, int ld, int K) {
    after_the_kernel_before();
    size_t row = blockIdx.x, from = row * ld;
    int pairs = k_tiles(K) * 8;
    for (int i = threadIdx.x; i < pairs; i += 256) {
        float a = i * 2 < K ? element(src, dtype, from + i * 2) : 0.0f;
        float b = i * 2 + 1 < K ? element(src, dtype, from + i * 2 + 1) : 0.0f;
        dst[row * pairs + i] = pair_bf16(a, b);
    }
}

/* out [gridDim.y, N] holds sums: bias and activation. Grid (ceil(N / 256), rows). */
KERNEL(256) vl_finish_rows(float *out, int ldo, int N, const float *bias, int epi) {
    after_the_kernel_before();
    int n = blockIdx.x * 256 + threadIdx.x;
    float *p = out + (size_t)blockIdx.y * ldo + n;
    if (n < N) finish(p, *p, bias, n, epi);
}

/* ---- few rows --------------------------------------------------------------------------------- */

enum { FEW_WARPS = 8, FEW_PITCH = 20 }; /* 20 floats: the lanes' stores hit 32 different banks */

/* What the inputs go through on their way: nothing, or an RMSNorm whose scales are known. */
struct plain_inputs {
    template <bool VEC> __device__ float4 get(const float *row, int, int k, int K) const {
        return inputs<VEC>(row, k, K);
    }
};
struct normed_inputs {
    const float *weight, *scale;    /* [K], [8] of the rows */
    template <bool VEC> __device__ float4 get(const float *row, int r, int k, int K) const {
        float4 v = inputs<VEC>(row, k, K), w = inputs<VEC>(weight, k, K);
        float s = scale[r];
        return make_float4(v.x * s * w.x, v.y * s * w.y, v.z * s * w.z, v.w * s * w.w);
    }
};

/* A warp's view of MATS matrices that share their input: STEP tiles of each at once in registers,
 * so that 16 loads of 16 bytes are under way in each thread. */
template <int MATS> struct weight_stream {
    static constexpr int STEP = CHUNK_TILES / MATS;
    const uint4 *w[MATS];           /* tile 0 of the block's 16 outputs, this lane              */
    uint4 v[MATS][STEP];
    __device__ void fetch(int t, int end) {
#pragma unroll
        for (int i = 0; i < STEP; i++)
#pragma unroll
            for (int m = 0; m < MATS; m++)
                if (t + i < end) v[m][i] = __ldg(w[m] + (size_t)(t + i) * 32);
    }
};

#if __CUDA_ARCH__ >= 800
/* acc += the tiles [t, end) in the stream x up to 8 rows of x, as an mma accumulator. */
template <bool VEC, int MATS, class Inputs>
DEVICE void few_step(float (*acc)[4], const weight_stream<MATS> &s, const float *x, int ldx, int rows,
                     int K, int t, int end, const Inputs &in) {
    int lane = threadIdx.x % 32, row = lane / 4;
    const float *p = x + (size_t)row * ldx;
#pragma unroll
    for (int i = 0; i < s.STEP; i++) {
        if (t + i >= end) continue;
        float4 v = make_float4(0, 0, 0, 0);
        if (row < rows) v = in.template get<VEC>(p, row, (t + i) * 16 + lane % 4 * 2, K);
        uint32_t b[2] = {pair_bf16(v.x, v.y), pair_bf16(v.z, v.w)};
#pragma unroll
        for (int m = 0; m < MATS; m++) {
            uint4 w = s.v[m][i];
            uint32_t a[4] = {w.x, w.y, w.z, w.w};
            mma(acc[m], a, b);
        }
    }
}
template <int MATS> struct few_sums { /* of one chunk */
    float acc[MATS][4] = {};
    template <bool VEC, class Inputs>
    __device__ void add(const weight_stream<MATS> &s, const float *x, int ldx, int rows, int K, int t,
                        int end, const Inputs &in) {
        few_step<VEC>(acc, s, x, ldx, rows, K, t, end, in);
    }
    __device__ void finish() {}
};
#else
template <int MATS> struct few_sums { /* lane: two outputs x up to 8 rows x a quarter of the inputs */
    float acc[MATS][4] = {}, sum[MATS][8][2] = {};
    template <bool VEC, class Inputs>
    __device__ void add(const weight_stream<MATS> &s, const float *x, int ldx, int rows, int K, int t,
                        int end, const Inputs &in) {
#pragma unroll
        for (int i = 0; i < s.STEP; i++) {
            if (t + i >= end) continue;
#pragma unroll
            for (int c = 0; c < 8; c++) {
                if (c >= rows) continue;
                float4 v = in.template get<VEC>(x + (size_t)c * ldx, c,
                                                (t + i) * 16 + threadIdx.x % 4 * 2, K);
#pragma unroll
                for (int m = 0; m < MATS; m++) {
                    uint4 w = s.v[m][i];
                    float *y = sum[m][c];
                    y[0] = fmaf(v.y, high(w.x), fmaf(v.x, low(w.x), y[0]));
                    y[0] = fmaf(v.w, high(w.z), fmaf(v.z, low(w.z), y[0]));
                    y[1] = fmaf(v.y, high(w.y), fmaf(v.x, low(w.y), y[1]));
                    y[1] = fmaf(v.w, high(w.w), fmaf(v.z, low(w.w), y[1]));
                }
            }
        }
    }
    __device__ void finish() { /* over the four lanes of a fragment row, as an mma would leave it */
#pragma unroll
        for (int m = 0; m < MATS; m++)
#pragma unroll
            for (int c = 0; c < 8; c++)
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    float s = sum[m][c][h];
                    s += __shfl_xor_sync(~0u, s, 1);
                    s += __shfl_xor_sync(~0u, s, 2);
                    if (threadIdx.x % 4 == c / 2) acc[m][h * 2 + c % 2] = s;
                }
    }
};
#endif

/* Sums of 16 outputs x up to 8 rows of x for each of MATS matrices: a block's 8 warps take one chunk
 * each, round after round. Thread t < 128 gets those of row t / 16, output t % 16. The stream holds
 * the first tiles already (few_begin). */
template <bool VEC, int MATS, class Inputs>
DEVICE void few_totals(float *total, weight_stream<MATS> &s, const float *x, int ldx, int rows, int K,
                       const Inputs &in) {
    __shared__ float part[2][MATS][FEW_WARPS][8][FEW_PITCH];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, kt = k_tiles(K);
    int row = threadIdx.x / 16, output = threadIdx.x % 16;
#pragma unroll
    for (int m = 0; m < MATS; m++) total[m] = -0.0f; /* -0 + chunk is chunk to the bit */
    for (int first = 0; first < kt; first += FEW_WARPS * CHUNK_TILES) {
        int begin = first + warp * CHUNK_TILES, buffer = first / (FEW_WARPS * CHUNK_TILES) % 2;
        int end = min(begin + CHUNK_TILES, kt);
        few_sums<MATS> sums;
        for (int t = begin; t < end; t += s.STEP) {
            if (t > begin || first) s.fetch(t, end);
            sums.template add<VEC>(s, x, ldx, rows, K, t, end, in);
        }
        sums.finish();
#pragma unroll
        for (int m = 0; m < MATS; m++)
            for (int i = 0; i < 4; i++)
                part[buffer][m][warp][lane % 4 * 2 + i % 2][lane / 4 + i / 2 * 8] = sums.acc[m][i];
        __syncthreads();
#pragma unroll
        for (int m = 0; m < MATS; m++)
            for (int i = 0; i < FEW_WARPS && row < rows; i++) {
                if (first + i * CHUNK_TILES >= kt) break;
                total[m] += part[buffer][m][i][row][output];
            }
    }
}

/* Sets matrix m of the stream to tile row n. */
template <int MATS> DEVICE void few_source(weight_stream<MATS> &s, int m, const void *tiles, int n, int K) {
    s.w[m] = (const uint4 *)tiles + (size_t)n * k_tiles(K) * 32 + threadIdx.x % 32;
}
/* Weights depend on no other kernel: their first loads start before the wait for it. */
template <int MATS> DEVICE void few_begin(weight_stream<MATS> &s, int K) {
    int begin = threadIdx.x / 32 * CHUNK_TILES;
    s.fetch(begin, min(begin + CHUNK_TILES, k_tiles(K)));
    after_the_kernel_before();
}

/* Grid (tiles of N, tiles of T). */
template <bool VEC>
DEVICE void few(float *out, int ldo, const float *x, int ldx, int T, const void *w, int N, int K,
                const float *bias, int epi) {
    int row0 = blockIdx.y * 8, rows = min(T - row0, 8);
    int row = threadIdx.x / 16, n = blockIdx.x * 16 + threadIdx.x % 16;
    weight_stream<1> s;
    float total[1];
    few_source(s, 0, w, blockIdx.x, K);
    few_begin(s, K);
    few_totals<VEC>(total, s, x + (size_t)row0 * ldx, ldx, rows, K, plain_inputs());
    if (row < rows && n < N) finish(out + (size_t)(row0 + row) * ldo + n, total[0], bias, n, epi);
}

KERNEL_FEW vl_linear_few(float *out, int ldo, const float *x, int ldx, int T, const uint4 *w, int N,
                         int K, const float *bias, int epi) {
    few<true>(out, ldo, x, ldx, T, w, N, K, bias, epi);
}
/* For K that is no multiple of 32, or rows that do not begin at 8 bytes. */
KERNEL_FEW vl_linear_few_odd(float *out, int ldo, const float *x, int ldx, int T, const uint4 *w,
                             int N, int K, const float *bias, int epi) {
    few<false>(out, ldo, x, ldx, T, w, N, K, bias, epi);
}

/* ---- many rows -------------------------------------------------------------------------------- */

enum {
    STAGES = 3, W_TILES = 8, X_TILES = 16,      /* 128 outputs, 128 rows, two k tiles a stage */
    STAGE_W = W_TILES * 64, STAGE_X = X_TILES * 32, STAGE = STAGE_W + STAGE_X /* in 16 bytes */
};

/* Grid (ceil(N / 128), ceil(T / 128)); 8 warps of 64 outputs x 32 rows. */
KERNEL(256) vl_linear_many(float *out, int ldo, const uint4 *x, int T, const uint4 *w, int N, int K,
                           const float *bias, int epi) {
#if __CUDA_ARCH__ >= 800
    __shared__ uint4 stage[STAGES * STAGE];
    after_the_kernel_before();
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, kt = k_tiles(K), steps = kt / 2;
    int n_tiles = (N + 15) / 16, t_tiles = (T + 7) / 8;
    int n0 = blockIdx.x * W_TILES, t0 = blockIdx.y * X_TILES; /* in tiles */
    auto load = [&](int s) {
        uint4 *to = stage + s % STAGES * STAGE;
#pragma unroll
        for (int i = threadIdx.x; i < STAGE_W; i += 256) {
            bool ok = n0 + i / 64 < n_tiles;
            copy16(to + i, w + ((uint32_t)(ok ? n0 + i / 64 : 0) * kt + s * 2) * 32 + i % 64, ok);
        }
#pragma unroll
        for (int i = threadIdx.x; i < STAGE_X; i += 256) {
            bool ok = t0 + i / 32 < t_tiles;
            copy16(to + STAGE_W + i, x + ((uint32_t)(ok ? t0 + i / 32 : 0) * kt + s * 2) * 16 + i % 32,
                   ok);
        }
    };
    int wn = warp / 4 * 4, wt = warp % 4 * 4; /* first tile of this warp */
    float acc[4][4][4] = {}, total[4][4][4];
#pragma unroll
    for (int i = 0; i < 64; i++) (&total[0][0][0])[i] = -0.0f;
    for (int s = 0; s < STAGES - 1; s++) {
        if (s < steps) load(s);
        copies_commit();
    }
    for (int s = 0; s < steps; s++) {
        copies_wait<STAGES - 2>();
        __syncthreads();
        if (s + STAGES - 1 < steps) load(s + STAGES - 1);
        copies_commit();
        const uint4 *sw = stage + s % STAGES * STAGE;
        const uint2 *sx = (const uint2 *)(sw + STAGE_W);
#pragma unroll
        for (int kk = 0; kk < 2; kk++) {
            uint32_t b[4][2];
#pragma unroll
            for (int j = 0; j < 4; j++) {
                uint2 u = sx[((wt + j) * 2 + kk) * 32 + lane];
                b[j][0] = u.x, b[j][1] = u.y;
            }
#pragma unroll
            for (int i = 0; i < 4; i++) {
                uint4 v = sw[((wn + i) * 2 + kk) * 32 + lane];
                uint32_t a[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
                for (int j = 0; j < 4; j++) mma(acc[i][j], a, b[j]);
            }
        }
        if ((s + 1) % (CHUNK_TILES / 2) && s + 1 < steps) continue;
#pragma unroll
        for (int i = 0; i < 64; i++) { /* the first chunk is added to -0, which changes no bit */
            (&total[0][0][0])[i] += (&acc[0][0][0])[i];
            (&acc[0][0][0])[i] = 0;
        }
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                int n = (n0 + wn + i) * 16 + lane / 4 + e / 2 * 8;
                int t = (t0 + wt + j) * 8 + lane % 4 * 2 + e % 2;
                if (n < N && t < T) finish(out + (size_t)t * ldo + n, total[i][j][e], bias, n, epi);
            }
#endif
}
#endif
