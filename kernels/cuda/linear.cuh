/* linear.cuh: out [T, N] = epilogue(x [T, K] W^T + bias), W in fragment order (device.cuh).
 *
 *   vl_pack_weight   rows of the checkpoint -> fragment order, at load time
 *   vl_linear_few    up to 8 rows of x: weights stream from memory once, 16 bytes for each lane
 *   vl_pack_rows     x -> bf16 in fragment order, for
 *   vl_linear_many   128 outputs x 128 rows, three stages of cp.async
 *
 * few and many give the same bits (the sum of device.cuh), so a row does not notice how many others
 * share its pass. On sm_75, which has no bf16 units, few widens the weights to f32 in registers and
 * serves every T. */
#include "device.cuh"

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

/* src [rows, K]: rows of the matrix from tile 0 of `dst` on. One thread for each 16 bytes. */
KERNEL(256) vl_pack_weight(uint4 *dst, const void *src, int dtype, int rows, int K, size_t total) {
    size_t i = (size_t)blockIdx.x * 256 + threadIdx.x;
    if (i >= total) return;
    int lane = (int)(i % 32), kt = k_tiles(K);
    int row = (int)(i / 32 / kt) * 16 + lane / 4, col = (int)(i / 32 % kt) * 16 + lane % 4 * 2;
    uint32_t pair[4];
    for (int r = 0; r < 4; r++) {
        int n = row + r % 2 * 8, k = col + r / 2 * 8;
        size_t at = (size_t)n * K + k;
        pair[r] = pair_bf16(n < rows && k < K ? element(src, dtype, at) : 0.0f,
                            n < rows && k + 1 < K ? element(src, dtype, at + 1) : 0.0f);
    }
    dst[i] = make_uint4(pair[0], pair[1], pair[2], pair[3]);
}

/* dst: ceil(T / 8) x k_tiles tiles of 256 bytes. One thread for each 8 bytes. */
KERNEL(256) vl_pack_rows(uint2 *dst, const float *x, int ldx, int T, int K, size_t total) {
    size_t i = (size_t)blockIdx.x * 256 + threadIdx.x;
    if (i >= total) return;
    int lane = (int)(i % 32), kt = k_tiles(K);
    int row = (int)(i / 32 / kt) * 8 + lane / 4, k = (int)(i / 32 % kt) * 16 + lane % 4 * 2;
    const float *p = x + (size_t)row * ldx;
    float v[4];
    for (int e = 0; e < 4; e++) {
        int at = k + e / 2 * 8 + e % 2;
        v[e] = row < T && at < K ? p[at] : 0.0f;
    }
    dst[i] = make_uint2(pair_bf16(v[0], v[1]), pair_bf16(v[2], v[3]));
}

/* ---- few rows --------------------------------------------------------------------------------- */

enum { FEW_WARPS = 8, FEW_PITCH = 20 }; /* 20 floats: the lanes' stores hit 32 different banks */

/* The four inputs of one lane: k, k + 1, k + 8, k + 9 of row p. */
template <bool VEC> DEVICE float4 inputs(const float *p, int k, int K) {
    if (VEC) {
        float2 a = *(const float2 *)(p + k), b = *(const float2 *)(p + k + 8);
        return make_float4(a.x, a.y, b.x, b.y);
    }
    return make_float4(k < K ? p[k] : 0, k + 1 < K ? p[k + 1] : 0, k + 8 < K ? p[k + 8] : 0,
                       k + 9 < K ? p[k + 9] : 0);
}

/* acc = W tile rows x up to 8 rows of x over the k tiles [begin, end), as an mma accumulator. */
template <bool VEC>
DEVICE void few_chunk(float *acc, const uint4 *w, const float *x, int ldx, int rows, int K, int begin,
                      int end) {
    int lane = threadIdx.x % 32, pair = lane % 4;
#if __CUDA_ARCH__ >= 800
    const float *p = x + (size_t)(lane / 4) * ldx;
#pragma unroll 8
    for (int t = begin; t < end; t++) {
        uint4 tile = __ldg(w + (size_t)t * 32 + lane);
        float4 v = make_float4(0, 0, 0, 0);
        if (lane / 4 < rows) v = inputs<VEC>(p, t * 16 + pair * 2, K);
        uint32_t a[4] = {tile.x, tile.y, tile.z, tile.w};
        uint32_t b[2] = {pair_bf16(v.x, v.y), pair_bf16(v.z, v.w)};
        mma(acc, a, b);
    }
#else
    float sum[8][2] = {};
#pragma unroll 2
    for (int t = begin; t < end; t++) {
        uint4 tile = __ldg(w + (size_t)t * 32 + lane);
#pragma unroll
        for (int c = 0; c < 8; c++) {
            if (c >= rows) continue;
            float4 v = inputs<VEC>(x + (size_t)c * ldx, t * 16 + pair * 2, K);
            sum[c][0] = fmaf(v.x, low(tile.x), sum[c][0]);
            sum[c][0] = fmaf(v.y, high(tile.x), sum[c][0]);
            sum[c][0] = fmaf(v.z, low(tile.z), sum[c][0]);
            sum[c][0] = fmaf(v.w, high(tile.z), sum[c][0]);
            sum[c][1] = fmaf(v.x, low(tile.y), sum[c][1]);
            sum[c][1] = fmaf(v.y, high(tile.y), sum[c][1]);
            sum[c][1] = fmaf(v.z, low(tile.w), sum[c][1]);
            sum[c][1] = fmaf(v.w, high(tile.w), sum[c][1]);
        }
    }
#pragma unroll
    for (int c = 0; c < 8; c++)
#pragma unroll
        for (int h = 0; h < 2; h++) { /* over the four lanes of a fragment row */
            float s = sum[c][h];
            s += __shfl_xor_sync(~0u, s, 1);
            s += __shfl_xor_sync(~0u, s, 2);
            if (pair == c / 2) acc[h * 2 + c % 2] = s;
        }
#endif
}

/* 16 outputs x 8 rows for each block; its 8 warps take one chunk each, round after round.
 * Grid (tiles of N, tiles of T). */
template <bool VEC>
DEVICE void few(float *out, int ldo, const float *x, int ldx, int T, const uint4 *w, int N, int K,
                const float *bias, int epi) {
    __shared__ float part[2][FEW_WARPS][8][FEW_PITCH];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, kt = k_tiles(K);
    int row0 = blockIdx.y * 8, rows = min(T - row0, 8);
    const uint4 *tiles = w + (size_t)blockIdx.x * kt * 32;
    int token = threadIdx.x / 16, output = threadIdx.x % 16; /* of the threads below 128 */
    float total = 0;
    for (int first = 0; first < kt; first += FEW_WARPS * CHUNK_TILES) {
        int begin = first + warp * CHUNK_TILES, buffer = first / (FEW_WARPS * CHUNK_TILES) % 2;
        float acc[4] = {};
        if (begin < kt)
            few_chunk<VEC>(acc, tiles, x + (size_t)row0 * ldx, ldx, rows, K, begin,
                           min(begin + CHUNK_TILES, kt));
        for (int i = 0; i < 4; i++)
            part[buffer][warp][lane % 4 * 2 + i % 2][lane / 4 + i / 2 * 8] = acc[i];
        __syncthreads();
        for (int i = 0; i < FEW_WARPS && token < rows; i++) {
            if (first + i * CHUNK_TILES >= kt) break;
            float chunk = part[buffer][i][token][output];
            total = first + i ? total + chunk : chunk;
        }
    }
    int n = blockIdx.x * 16 + output;
    if (token < rows && n < N) finish(out + (size_t)(row0 + token) * ldo + n, total, bias, n, epi);
}

KERNEL(256) vl_linear_few(float *out, int ldo, const float *x, int ldx, int T, const uint4 *w, int N,
                          int K, const float *bias, int epi) {
    few<true>(out, ldo, x, ldx, T, w, N, K, bias, epi);
}
/* For K that is no multiple of 32, or rows that do not begin at 8 bytes. */
KERNEL(256) vl_linear_few_odd(float *out, int ldo, const float *x, int ldx, int T, const uint4 *w,
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
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, kt = k_tiles(K), steps = kt / 2;
    int n_tiles = (N + 15) / 16, t_tiles = (T + 7) / 8;
    int n0 = blockIdx.x * W_TILES, t0 = blockIdx.y * X_TILES; /* in tiles */
    auto load = [&](int s) {
        uint4 *to = stage + s % STAGES * STAGE;
#pragma unroll
        for (int i = threadIdx.x; i < STAGE_W; i += 256) {
            bool ok = n0 + i / 64 < n_tiles;
            copy16(to + i, w + ((size_t)(ok ? n0 + i / 64 : 0) * kt + s * 2) * 32 + i % 64, ok);
        }
#pragma unroll
        for (int i = threadIdx.x; i < STAGE_X; i += 256) {
            bool ok = t0 + i / 32 < t_tiles;
            copy16(to + STAGE_W + i, x + ((size_t)(ok ? t0 + i / 32 : 0) * kt + s * 2) * 16 + i % 32,
                   ok);
        }
    };
    int wn = warp / 4 * 4, wt = warp % 4 * 4; /* first tile of this warp */
    float acc[4][4][4] = {}, total[4][4][4] = {};
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
            uint32_t a[4][4], b[4][2];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                uint4 v = sw[((wn + i) * 2 + kk) * 32 + lane];
                uint2 u = sx[((wt + i) * 2 + kk) * 32 + lane];
                a[i][0] = v.x, a[i][1] = v.y, a[i][2] = v.z, a[i][3] = v.w;
                b[i][0] = u.x, b[i][1] = u.y;
            }
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < 4; j++) mma(acc[i][j], a[i], b[j]);
        }
        if ((s + 1) % (CHUNK_TILES / 2) && s + 1 < steps) continue;
        bool first = s < CHUNK_TILES / 2;
#pragma unroll
        for (int i = 0; i < 64; i++) {
            float *sum = &total[0][0][0] + i, *chunk = &acc[0][0][0] + i;
            *sum = first ? *chunk : *sum + *chunk;
            *chunk = 0;
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
