/* linear.cuh: out [T, N] = epilogue(x [T, K] W^T + bias), W in fragment order (device.cuh).
 *
 *   vl_pack_weight   rows of the checkpoint -> fragment order, at load time
 *   vl_pack_rows     x -> fragment order, for many rows (the norms, attention and many.cuh itself leave
 *                    their results in that order too, which saves this launch)
 *   vl_plain_rows    rows of any type -> rows of bf16, for cuBLAS; vl_finish_rows: its epilogue
 *   few_totals       up to 8 rows of x: weights stream from memory once, 16 bytes for each lane;
 *   vl_linear_few    is that alone, fused.cuh puts RMSNorm before it and other ops behind it
 *   many.cuh         more rows
 *
 * few and many give the same bits (the sum of device.cuh), so a row does not notice how many others
 * share its pass.
 *
 * sm_75 has no bf16 units: weights become fp16 in registers, which is exact for 2^-14 <= |w| < 65505
 * (upload.c refuses larger ones), and the inputs of each row and chunk are scaled by a power of two
 * before they do, so that none overflows; the chunk's sums are scaled back. */
#include "device.cuh"

#ifndef VL_LINEAR_CUH
#define VL_LINEAR_CUH

enum { EPI_NONE, EPI_ADD, EPI_GELU_TANH, EPI_GELU_ERF }; /* vl_epilogue */

DEVICE float activate(float v, int epi) {
    if (epi == EPI_GELU_TANH)
        v = 0.5f * v * (1.0f + tanhf(0.7978845608028654f * (v + 0.044715f * v * v * v)));
    if (epi == EPI_GELU_ERF) v = 0.5f * v * (1.0f + erff(v * 0.7071067811865476f));
    return v;
}
/* *out of output n. */
DEVICE void finish(float *out, float sum, const float *bias, int n, int epi) {
    float v = bias ? sum + bias[n] : sum;
    if (epi == EPI_ADD) v += *out;
    *out = activate(v, epi);
}

/* ---- packing ---------------------------------------------------------------------------------- */

DEVICE float element(const void *src, int dtype, size_t i) { /* vl_dtype: F32, F16, BF16 */
    if (dtype == 0) return ((const float *)src)[i];
    if (dtype == 1) return __half2float(((const __half *)src)[i]);
    return from_bf16(((const bf16_bits *)src)[i]);
}

/* src [rows, K]: rows of the matrix from tile 0 of `dst` on. A block takes 16 rows x 256 columns by
 * way of shared memory, so that both sides are coalesced. *largest: bits of the largest |w| so far, for
 * sm_75. Grid (ceil(K / 256), tiles of rows). */
KERNEL(256) vl_pack_weight(uint4 *dst, const void *src, int dtype, int rows, int K, uint32_t *largest) {
    __shared__ bf16_bits part[16][256 + 2];
    after_the_kernel_before();
    int col0 = blockIdx.x * 256, row0 = blockIdx.y * 16, kt = k_tiles(K), lane = threadIdx.x % 32;
    float top = 0;
    for (int r = 0; r < 16; r++) {
        int n = row0 + r, k = col0 + threadIdx.x;
        bf16_bits w = to_bf16(n < rows && k < K ? element(src, dtype, (size_t)n * K + k) : 0.0f);
        part[r][threadIdx.x] = w;
        top = fmaxf(top, fabsf(from_bf16(w)));
    }
    if (!BF16_UNITS) {
        for (int o = 16; o; o >>= 1) top = fmaxf(top, __shfl_xor_sync(~0u, top, o));
        if (lane == 0) atomicMax(largest, __float_as_uint(top));
    }
    __syncthreads();
    for (int t = threadIdx.x / 32; t < 16 && col0 / 16 + t < kt; t += 8) {
        uint32_t pair[4];
        for (int r = 0; r < 4; r++)
            pair[r] = *(const uint32_t *)&part[lane / 4 * 2 + r % 2][t * 16 + lane % 4 * 4 + r / 2 * 2];
        dst[((size_t)blockIdx.y * kt + col0 / 16 + t) * 32 + lane] =
            make_uint4(pair[0], pair[1], pair[2], pair[3]);
    }
}

/* One row's chunk, 4 inputs at 4 lane and 4 at 128 + 4 lane, as operands; `back` as above (1 on sm_80 on). */
DEVICE void to_inputs(uint2 *to, float4 *v, float *back) {
    *back = 1;
#if __CUDA_ARCH__ < 800
    float top = 0;
    for (int j = 0; j < 2; j++)
        top = fmaxf(fmaxf(fmaxf(top, fabsf(v[j].x)), fmaxf(fabsf(v[j].y), fabsf(v[j].z))), fabsf(v[j].w));
    for (int o = 16; o; o >>= 1) top = fmaxf(top, __shfl_xor_sync(~0u, top, o));
    float by = input_scale(top, back);
    for (int j = 0; j < 2; j++) v[j].x *= by, v[j].y *= by, v[j].z *= by, v[j].w *= by;
#endif
    for (int j = 0; j < 2; j++) to[j] = make_uint2(pair_input(v[j].x, v[j].y), pair_input(v[j].z, v[j].w));
}

/* dst: ceil(T / 8) x k_tiles tiles of 256 bytes; back [chunks, T]: sm_75's scales. A warp for each row
 * and chunk. Grid ceil(T * chunks / 8). */
KERNEL(256) vl_pack_rows(uint2 *dst, float *back, const float *x, int ldx, int T, int K, int vec) {
    after_the_kernel_before();
    int kt = k_tiles(K), chunks = (kt + CHUNK_TILES - 1) / CHUNK_TILES, lane = threadIdx.x % 32;
    int i = blockIdx.x * 8 + threadIdx.x / 32, row = i / chunks, k = i % chunks * 256 + lane * 4;
    if (row >= T) return;
    const float *p = x + (size_t)row * ldx;
    float4 v[2] = {load4(p, k, K, vec), load4(p, k + 128, K, vec)};
    uint2 to[2];
    float by;
    to_inputs(to, v, &by);
    for (int j = 0; j < 2; j++)
        if (k + j * 128 < kt * 16) dst[input_at(row, k + j * 128, kt)] = to[j];
    if (!BF16_UNITS && lane == 0) back[(size_t)(i % chunks) * T + row] = by;
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

/* Pitches, in words, at which lanes meet 32 different banks: of a warp's sums, of a row of inputs. */
enum { FEW_WARPS = 8, FEW_PITCH = 20, X_PITCH = 136 };
static_assert(FEW_WARPS * CHUNK_TILES == GROUP_TILES, "a round of a block is a group");

/* What the inputs go through on their way: nothing, or an RMSNorm whose scales are known. */
struct plain_inputs {
    __device__ float4 get(const float *row, int, int k, int K, bool vec) const {
        return load4(row, k, K, vec);
    }
};
struct normed_inputs {
    const float *weight, *scale;    /* [K], [8] of the rows */
    __device__ float4 get(const float *row, int r, int k, int K, bool vec) const {
        float4 v = load4(row, k, K, vec), w = load4(weight, k, K, vec);
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
    __device__ void fetch(int i, int t) { /* tile t + i of each matrix */
#pragma unroll
        for (int m = 0; m < MATS; m++) v[m][i] = __ldg(w[m] + (size_t)(t + i) * 32);
    }
};

/* What a block shares. The inputs are those of one chunk for each warp. */
template <int MATS> struct __align__(16) few_shared {
    uint32_t x[FEW_WARPS][8][X_PITCH];
    float part[MATS][FEW_WARPS][8][FEW_PITCH];
    float back[FEW_WARPS][8];
};

/* The chunk of inputs at k0 of up to 8 rows -> to[row]: what this warp multiplies by. */
template <bool VEC, class Inputs>
DEVICE void few_stage(uint32_t (*to)[X_PITCH], float *back, const float *x, int ldx, int rows, int k0,
                      int K, const Inputs &in) {
    int lane = threadIdx.x % 32;
#pragma unroll 2
    for (int r = 0; r < rows; r++) {
        float4 v[2];
        uint2 pair[2];
        float by;
#pragma unroll
        for (int j = 0; j < 2; j++)
            v[j] = in.get(x + (size_t)r * ldx, r, k0 + j * 128 + lane * 4, K, VEC);
        to_inputs(pair, v, &by);
#pragma unroll
        for (int j = 0; j < 2; j++) *(uint2 *)&to[r][j * 64 + lane * 2] = pair[j];
        if (!BF16_UNITS && lane == 0) back[r] = by;
    }
    __syncwarp();
}

/* acc += the tiles [t, end) in the stream x the chunk's rows. A tile's register is used for tile `next`
 * of the step after this one as soon as it is free: the loads never pause. FULL: no tile is missing
 * here, and of the next step all (MORE) or none are there. */
template <bool FULL, bool MORE, int MATS>
DEVICE void few_tiles(float (*acc)[4], weight_stream<MATS> &s, const uint32_t (*x)[X_PITCH], int rows,
                      int t, int end, int next, int next_end) {
    int lane = threadIdx.x % 32, row = lane / 4;
    const uint32_t *p = &x[row][t % CHUNK_TILES * 8 + lane % 4 * 2];
#pragma unroll
    for (int i = 0; i < s.STEP; i++) {
        if (!FULL && t + i >= end) continue;
        uint2 u = row < rows ? *(const uint2 *)(p + i * 8) : make_uint2(0, 0);
        uint32_t b[2] = {u.x, u.y};
#pragma unroll
        for (int m = 0; m < MATS; m++) {
            uint4 w = s.v[m][i];
            uint32_t a[4] = {w.x, w.y, w.z, w.w};
            mma(acc[m], a, b);
        }
        if (FULL ? MORE : next + i < next_end) s.fetch(i, next);
    }
}
template <int MATS>
DEVICE void few_step(float (*acc)[4], weight_stream<MATS> &s, const uint32_t (*x)[X_PITCH], int rows,
                     int t, int end, int next, int next_end) {
    bool full = t + s.STEP <= end;
    if (full && next + s.STEP <= next_end) few_tiles<true, true>(acc, s, x, rows, t, end, next, next_end);
    else if (full && next >= next_end) few_tiles<true, false>(acc, s, x, rows, t, end, next, next_end);
    else few_tiles<false, true>(acc, s, x, rows, t, end, next, next_end);
}

/* Sums of 16 outputs x up to 8 rows of x for each of MATS matrices: a block's 8 warps take one chunk
 * each, group after group. Thread t < 128 gets those of row t / 16, output t % 16. The stream holds
 * the first tiles already (few_begin). */
template <bool VEC, int MATS, class Inputs>
DEVICE void few_totals(float *total, weight_stream<MATS> &s, const float *x, int ldx, int rows, int K,
                       const Inputs &in) {
    __shared__ few_shared<MATS> sh;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, kt = k_tiles(K);
    int row = threadIdx.x / 16, output = threadIdx.x % 16;
#pragma unroll
    for (int m = 0; m < MATS; m++) total[m] = -0.0f; /* -0 + chunk is chunk to the bit */
    for (int first = 0; first < kt; first += GROUP_TILES) {
        int begin = first + warp * CHUNK_TILES, end = min(begin + CHUNK_TILES, kt);
        int after = begin + GROUP_TILES;
        float acc[MATS][4] = {};
        if (begin < kt)
            few_stage<VEC>(sh.x[warp], sh.back[warp], x, ldx, rows, begin * 16, K, in);
        for (int t = begin; t < end; t += s.STEP) {
            bool more = t + s.STEP < begin + CHUNK_TILES;
            few_step(acc, s, sh.x[warp], rows, t, end, more ? t + s.STEP : after,
                     more ? end : min(after + CHUNK_TILES, kt));
        }
#pragma unroll
        for (int m = 0; m < MATS; m++)
            for (int i = 0; i < 2; i++) {
                int r = lane % 4 * 2 + i;
                float by = !BF16_UNITS && begin < kt && r < rows ? sh.back[warp][r] : 1.0f;
                *(float2 *)&sh.part[m][warp][r][lane / 4 * 2] = make_float2(acc[m][i] * by, acc[m][i + 2] * by);
            }
        __syncthreads();
#pragma unroll
        for (int m = 0; m < MATS; m++) {
            float sum = -0.0f;
            for (int i = 0; i < FEW_WARPS && row < rows; i++) {
                if (first + i * CHUNK_TILES >= kt) break;
                sum += sh.part[m][i][row][output];
            }
            total[m] += sum;
        }
        if (first + GROUP_TILES < kt) __syncthreads();
    }
}

/* Sets matrix m of the stream to tile row n. */
template <int MATS> DEVICE void few_source(weight_stream<MATS> &s, int m, const void *tiles, int n, int K) {
    s.w[m] = (const uint4 *)tiles + (size_t)n * k_tiles(K) * 32 + threadIdx.x % 32;
}
/* Weights depend on no other kernel: their first loads start before the wait for it. */
template <int MATS> DEVICE void few_begin(weight_stream<MATS> &s, int K) {
    int begin = threadIdx.x / 32 * CHUNK_TILES, end = min(begin + CHUNK_TILES, k_tiles(K));
#pragma unroll
    for (int i = 0; i < s.STEP; i++)
        if (begin + i < end) s.fetch(i, begin);
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
/* For K that is no multiple of 32, or rows that do not begin at 16 bytes. */
KERNEL_FEW vl_linear_few_odd(float *out, int ldo, const float *x, int ldx, int T, const uint4 *w,
                             int N, int K, const float *bias, int epi) {
    few<false>(out, ldo, x, ldx, T, w, N, K, bias, epi);
}
#endif
