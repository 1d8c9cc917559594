/* many.cuh: products of many rows: x and W in fragment order, tiles of 128 outputs x 128 rows, a pipeline of
 * cp.async stages.
 *
 *   vl_linear_many    up to three matrices that share their input (q, k, v) side by side in one grid
 *   vl_gate_up_many   gate and up of the same outputs in one block; out = silu(gate) * up
 *
 * One thread block sums one group of 2048 inputs (device.cuh). Where K is longer, each block leaves its
 * sums in `part`, and the last of a tile's blocks adds the groups up in order: that fills a GPU with
 * products of few outputs, and it is the same sum as everywhere. The result is also left in fragment
 * order (`packed`) where another product will want it. */
#ifndef VL_MANY_CUH
#define VL_MANY_CUH

#include "linear.cuh"
#include "rows.cuh"

#if __CUDA_ARCH__ >= 800
enum { STAGES = MANY_STAGES };
#else
enum { STAGES = MANY_STAGES_75 };
#endif
enum {
    W_TILES = 8, X_TILES = 16, /* 128 outputs, 128 rows, two k tiles a stage */
    STAGE_W = W_TILES * 64, STAGE_X = X_TILES * 32, STAGE = STAGE_W + STAGE_X /* in 16 bytes */
};
static_assert(STAGE * 16 == MANY_STAGE_BYTES, "what the host reserves");

/* A warp's sums: 4 tiles of 16 outputs x 4 tiles of 8 rows. */
typedef float many_sums[4][4][4];

/* One block's place: which matrix, which tiles. */
struct many_place {
    int m, n0, t0;                 /* matrix; first tile of its outputs and of the rows           */
    __device__ many_place(const many_args &a, bool gated) : m(0), n0(blockIdx.x), t0((a.first + blockIdx.y) * X_TILES) {
        while (!gated && m + 1 < a.mats && n0 >= (a.w[m].rows + 127) / 128) n0 -= (a.w[m++].rows + 127) / 128;
        n0 *= gated ? W_TILES / 2 : W_TILES;
    }
};

/* Which matrix and tile the block's `slot` of 16 outputs is: gated: of a warp's four, two of each. */
template <bool GATED> DEVICE int slot_matrix(const many_place &p, int slot) { return GATED ? slot / 2 % 2 : p.m; }
template <bool GATED> DEVICE int slot_tile(const many_place &p, int slot) {
    return p.n0 + (GATED ? slot / 4 * 2 + slot % 2 : slot);
}

/* k tiles k and k + 1 of the block's outputs, into one stage. */
template <bool GATED> DEVICE void load_w(uint4 *to, const many_args &a, const many_place &p, int k) {
    int kt = k_tiles(a.K);
#pragma unroll
    for (int i = threadIdx.x; i < STAGE_W; i += 256) {
        const weight_arg &w = a.w[slot_matrix<GATED>(p, i / 64)];
        int tile = slot_tile<GATED>(p, i / 64);
        bool ok = tile * 16 < w.rows;
        copy16(to + i, (const uint4 *)w.tiles + ((uint32_t)(ok ? tile : 0) * kt + k) * 32 + i % 64, ok);
    }
}
DEVICE void load_x(uint4 *to, const many_args &a, const many_place &p, int k) {
    int kt = k_tiles(a.K);
#pragma unroll
    for (int i = threadIdx.x; i < STAGE_X; i += 256) {
        int tile = p.t0 + i / 32;
        bool ok = tile * 8 + i % 16 / 2 < a.T;
        copy16(to + STAGE_W + i, (const uint4 *)a.x + ((uint32_t)(ok ? tile : 0) * kt + k) * 16 + i % 32, ok);
    }
}

/* acc += one stage. wn, wt: this warp's first tiles. */
DEVICE void many_step(many_sums &acc, const uint4 *sw, int wn, int wt) {
    const uint2 *sx = (const uint2 *)(sw + STAGE_W);
    int lane = threadIdx.x % 32;
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
            uint32_t w[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
            for (int j = 0; j < 4; j++) mma(acc[i][j], w, b[j]);
        }
    }
}

/* total += acc, and acc = 0. The first chunk is added to -0, which changes no bit. */
DEVICE void add_chunk(many_sums &total, many_sums &acc, const many_args &a, int chunk, int t0) {
#pragma unroll
    for (int j = 0; j < 4; j++) {
        float by[2] = {1, 1};
        for (int e = 0; e < 2 && !BF16_UNITS; e++) {
            int t = (t0 + j) * 8 + threadIdx.x % 4 * 2 + e;
            if (t < a.T) by[e] = a.back[(size_t)chunk * a.T + t];
        }
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                total[i][j][e] += acc[i][j][e] * by[e % 2];
                acc[i][j][e] = 0;
            }
    }
}

/* The sums of this block's group. */
template <bool GATED>
DEVICE void group_sums(many_sums &total, uint4 *stage, const many_args &a, const many_place &p, int wn,
                       int wt) {
    int k0 = blockIdx.z * GROUP_TILES, steps = min(k_tiles(a.K) - k0, (int)GROUP_TILES) / 2;
    many_sums acc = {};
#pragma unroll
    for (int i = 0; i < 64; i++) (&total[0][0][0])[i] = -0.0f;
#pragma unroll
    for (int s = 0; s < STAGES - 1; s++) /* weights depend on no other kernel */
        if (s < steps) load_w<GATED>(stage + s * STAGE, a, p, k0 + s * 2);
    after_the_kernel_before();
#pragma unroll
    for (int s = 0; s < STAGES - 1; s++) {
        if (s < steps) load_x(stage + s * STAGE, a, p, k0 + s * 2);
        copies_commit();
    }
    for (int s = 0, at = 0, to = STAGES - 1; s < steps; s++) {
        copies_wait<STAGES - 2>();
        __syncthreads();
        if (s + STAGES - 1 < steps) {
            load_w<GATED>(stage + to * STAGE, a, p, k0 + (s + STAGES - 1) * 2);
            load_x(stage + to * STAGE, a, p, k0 + (s + STAGES - 1) * 2);
        }
        copies_commit();
        many_step(acc, stage + at * STAGE, wn, wt);
        at = at + 1 == STAGES ? 0 : at + 1;
        to = to + 1 == STAGES ? 0 : to + 1;
        if ((s + 1) % (CHUNK_TILES / 2) == 0 || s + 1 == steps)
            add_chunk(total, acc, a, (k0 / 2 + s) / (CHUNK_TILES / 2), p.t0 + wt);
    }
}

/* Joins the groups of a tile in its last block; false in the others. */
DEVICE bool join_groups(many_sums &total, const many_args &a) {
    if (gridDim.z == 1) return true;
    uint32_t tile = blockIdx.y * gridDim.x + blockIdx.x;
    float4 *all = (float4 *)a.part + (size_t)tile * gridDim.z * 16 * 256 + threadIdx.x;
#pragma unroll
    for (int q = 0; q < 16; q++) {
        float *t = total[q / 4][q % 4];
        all[(blockIdx.z * 16 + q) * 256] = make_float4(t[0], t[1], t[2], t[3]);
    }
    if (!last_block(a.arrived + tile, gridDim.z)) return false;
#pragma unroll
    for (int q = 0; q < 16; q++) {
        float4 v = all[q * 256];
        float *t = total[q / 4][q % 4];
        t[0] = v.x, t[1] = v.y, t[2] = v.z, t[3] = v.w;
    }
    for (int z = 1; z < gridDim.z; z++)
#pragma unroll
        for (int q = 0; q < 16; q++) {
            float4 v = all[(z * 16 + q) * 256];
            float *t = total[q / 4][q % 4];
            t[0] += v.x, t[1] += v.y, t[2] += v.z, t[3] += v.w;
        }
    return true;
}

DEVICE float bias_of(const weight_arg &w, int n) { return w.bias && n < w.rows ? w.bias[n] : -0.0f; }

/* One tile of 16 outputs x 32 rows of a warp: outputs `first` on. `up`: its other half, where gated. What
 * is read is read before anything is written, so that it comes together. */
template <bool GATED>
DEVICE void leave_tile(const many_args &a, int m, int first, int t0, const float (*sum)[4], const float (*up)[4]) {
    const weight_arg &w = a.w[m];
    int lane = threadIdx.x % 32, n0 = first + lane / 4, row0 = t0 * 8 + lane % 4 * 2, kt = k_tiles(w.rows);
    float bias[2] = {bias_of(w, n0), bias_of(w, n0 + 8)}, up_bias[2] = {-0.0f, -0.0f}, old[4][4];
    if (GATED) up_bias[0] = bias_of(a.w[1], n0), up_bias[1] = bias_of(a.w[1], n0 + 8);
    bool add = !GATED && a.epi == EPI_ADD;
#pragma unroll
    for (int i = 0; i < 16; i++) {
        int n = n0 + i % 4 / 2 * 8, t = row0 + i / 4 * 8 + i % 2;
        old[i / 4][i % 4] = add && n < w.rows && t < a.T ? a.out[m][(size_t)t * a.ldo[m] + n] : 0.0f;
    }
#pragma unroll
    for (int i = 0; i < 16; i++) {
        int j = i / 4, e = i % 4, n = n0 + e / 2 * 8, t = row0 + j * 8 + e % 2;
        if (n >= w.rows || t >= a.T) continue;
        float v = sum[j][e] + bias[e / 2];
        if (GATED) {
            float u = up[j][e] + up_bias[e / 2];
            a.out[1][(size_t)t * a.ldo[1] + n] = u;
            v = swiglu(v, u);
        } else {
            v = activate(add ? v + old[j][e] : v, a.epi);
        }
        a.out[m][(size_t)t * a.ldo[m] + n] = v;
        if (a.packed) ((bf16_bits *)a.packed)[input_at(t, n, kt) * 4 + n % 4] = to_bf16(v);
    }
}

template <bool GATED> DEVICE void many(const many_args &a) {
    extern __shared__ uint4 stage[];
    int warp = threadIdx.x / 32, wn = warp / 4 * 4, wt = warp % 4 * 4;
    many_place p(a, GATED);
    many_sums total;
    group_sums<GATED>(total, stage, a, p, wn, wt);
    if (!join_groups(total, a)) return;
#pragma unroll
    for (int i = 0; i < (GATED ? 2 : 4); i++)
        leave_tile<GATED>(a, p.m, slot_tile<GATED>(p, wn + i) * 16, p.t0 + wt, total[i], total[GATED ? i + 2 : i]);
}

/* Grid (tiles of 128 outputs of all matrices, ceil(T / 128), ceil(K / 2048)). */
KERNEL(256) vl_linear_many(many_args a) { many<false>(a); }
/* Grid (ceil(rows / 64), ceil(T / 128), ceil(K / 2048)). */
KERNEL(256) vl_gate_up_many(many_args a) { many<true>(a); }
#endif
