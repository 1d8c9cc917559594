/* fused.cuh: what a decode step does between two reads of other rows, in one launch each: RMSNorm
 * before a product of few rows (linear.cuh), and behind it what follows. Values, sum orders and so
 * bits are those of the separate kernels, and so is all that they leave in memory (h, k, v, up):
 * fuse.c may put these in the place of the ops at any time.
 *
 *   vl_norm_linear   h = rmsnorm(x), out = h W^T + bias                      (the head)
 *                    and ids = arg-max of each row of out, where asked for
 *   vl_gate_up       ..., gate and up, out = silu(gate) * up
 *   vl_qkv           ..., q, k, v; then norm and rotation of each head of q and k by the block that
 *                    finished it last; k and v into the KV pools
 *
 * Each block works out the scales of its 8 rows for itself, while its first weights are on their way.
 * Grid (tiles of outputs, tiles of T). Easy to get wrong: the last block of a head must see what the
 * others wrote (last_block), and a value head has nothing to wait for. */
#include "linear.cuh"
#include "rows.cuh"

/* Scales of the block's 8 rows, into shared memory; and this block's share of h. */
DEVICE void norm_rows(float *scale, const norm_linear_args &a, int row0, int rows) {
    __shared__ float squares[8][9];
    const float *x = a.x + (size_t)row0 * a.K;
#pragma unroll 2
    for (int r = 0; r < rows; r++) {
        float share = squares_of_warp(x + (size_t)r * a.K, a.K, true);
        if (threadIdx.x % 32 == 0) squares[r][threadIdx.x / 32] = share;
    }
    __syncthreads();
    if (threadIdx.x < rows) scale[threadIdx.x] = scale_of_row(squares[threadIdx.x], a.K, a.eps);
    __syncthreads();
    for (int i = (blockIdx.x * 256 + threadIdx.x) * 4; i < rows * a.K; i += gridDim.x * 1024) {
        float4 v = *(const float4 *)(x + i), w = *(const float4 *)(a.norm + i % a.K);
        float s = scale[i / a.K];
        *(float4 *)(a.h + (size_t)row0 * a.K + i) =
            make_float4(v.x * s * w.x, v.y * s * w.y, v.z * s * w.z, v.w * s * w.w);
    }
}

/* Totals of tile row n of the matrices first... first + MATS - 1, with their biases added. */
template <int MATS>
DEVICE void norm_totals(float *total, const norm_linear_args &a, int first, int n, int rows) {
    __shared__ float scale[8];
    int row0 = blockIdx.y * 8, output = n * 16 + threadIdx.x % 16;
    weight_stream<MATS> s;
#pragma unroll
    for (int m = 0; m < MATS; m++) few_source(s, m, a.w[first + m].tiles, n, a.K);
    few_begin(s, a.K);
    norm_rows(scale, a, row0, rows);
    few_totals<true>(total, s, a.x + (size_t)row0 * a.K, a.K, rows, a.K, normed_inputs{a.norm, scale});
#pragma unroll
    for (int m = 0; m < MATS; m++) {
        const float *bias = a.w[first + m].bias;
        if (bias && threadIdx.x / 16 < rows && output < a.w[first + m].rows) total[m] += bias[output];
    }
}

/* A number that is greater for what vl_argmax prefers (rows.cuh, beats): a NaN, then the larger value,
 * then the lower index. Never 0. */
DEVICE unsigned long long rank_of(float v, int i) {
    uint32_t bits = __float_as_uint(v + 0.0f); /* -0 is 0 */
    uint32_t key = isnan(v) ? ~0u : bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return (unsigned long long)key << 32 | (uint32_t)~i;
}

/* The 16 outputs of each row, by atomics whose order does not matter; the last block has the best. */
DEVICE void choose(const norm_linear_args &a, unsigned long long key, int row, int rows) {
    unsigned long long *best = (unsigned long long *)a.best + blockIdx.y * 8;
    for (int o = 8; o; o >>= 1) {
        unsigned long long other = __shfl_xor_sync(~0u, key, o);
        if (other > key) key = other;
    }
    if (row < rows && threadIdx.x % 16 == 0) atomicMax(best + row, key);
    if (!last_block(a.arrived + blockIdx.y, gridDim.x) || threadIdx.x >= rows) return;
    key = atomicExch(best + threadIdx.x, 0ull);
    a.ids[blockIdx.y * 8 + threadIdx.x] = (uint32_t)(key >> 32) == ~0u ? -1 : (int)~(uint32_t)key;
}

KERNEL_FEW vl_norm_linear(norm_linear_args a) {
    int row = threadIdx.x / 16, n = blockIdx.x * 16 + threadIdx.x % 16;
    int rows = min(a.T - (int)blockIdx.y * 8, 8);
    float total[1];
    norm_totals<1>(total, a, 0, blockIdx.x, rows);
    bool mine = row < rows && n < a.w[0].rows;
    if (mine) a.out[0][(size_t)(blockIdx.y * 8 + row) * a.ldo[0] + n] = total[0];
    if (a.ids) choose(a, mine ? rank_of(total[0], n) : 0, row, rows);
}

KERNEL_FEW vl_gate_up(norm_linear_args a) {
    int row = threadIdx.x / 16, n = blockIdx.x * 16 + threadIdx.x % 16;
    int rows = min(a.T - (int)blockIdx.y * 8, 8);
    float total[2];
    norm_totals<2>(total, a, 0, blockIdx.x, rows);
    if (row >= rows || n >= a.w[0].rows) return;
    size_t t = blockIdx.y * 8 + row;
    a.out[1][t * a.ldo[1] + n] = total[1];
    a.out[0][t * a.ldo[0] + n] = swiglu(total[0], total[1]);
}

KERNEL_FEW vl_qkv(qkv_args a) {
    int tiles = a.E / 16, head = blockIdx.x / tiles, which = head < a.H ? 0 : head < a.H + a.G ? 1 : 2;
    int tile0 = which == 0 ? 0 : (which == 1 ? a.H : a.H + a.G) * tiles, n = blockIdx.x - tile0;
    int row = threadIdx.x / 16, output = n * 16 + threadIdx.x % 16;
    int row0 = blockIdx.y * 8, rows = min(a.in.T - row0, 8);
    float total[1];
    norm_totals<1>(total, a.in, which, n, rows);
    if (row < rows) {
        size_t t = row0 + row;
        a.in.out[which][t * a.in.ldo[which] + output] = total[0];
        if (which == 2)
            ((bf16_bits *)a.v_pool)[pool_at(a.kv_slot[t], output / a.E, a.G, a.E) + output % a.E] =
                to_bf16(total[0]);
    }
    if (which == 2 || !last_block(a.arrived + blockIdx.y * (a.H + a.G) + head, tiles)) return;
    row = threadIdx.x / 32;
    if (row >= rows) return;
    size_t t = row0 + row, half = a.E / 2;
    int kv = head - a.H;
    float *x = a.in.out[which] + t * a.in.ldo[which] + (size_t)(which ? kv : head) * a.E;
    norm_rope(x, which ? (bf16_bits *)a.k_pool + pool_at(a.kv_slot[t], kv, a.G, a.E) : NULL,
              which ? a.k_norm : a.q_norm, a.eps, a.cos + t * half, a.sin + t * half, a.E);
}
