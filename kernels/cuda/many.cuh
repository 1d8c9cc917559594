/* many.cuh: products of many rows: x and W in fragment order, a pipeline of cp.async stages.
 *
 *   vl_many_O         up to three matrices that share their input (q, k, v) side by side in one grid
 *   vl_gate_up_many   gate and up of the same outputs in one block; out = silu(gate) * up
 *
 * A block has O outputs of 112 rows, a warp 32 x 56 of them: chunk and total of so many are what its registers
 * hold. O comes in four sizes, of which the host takes the one that fills the GPU best (ops_cuda.c).
 *
 * One thread block sums one group of 2048 inputs (device.cuh). Where K is longer, each block leaves its
 * sums in `part`, and the last of a tile's blocks adds the groups up in order: that fills a GPU with
 * products of few outputs, and it is the same sum as everywhere. The result is also left in fragment
 * order (`packed`) where another product will want it. */
#ifndef VL_MANY_CUH
#define VL_MANY_CUH

#include "linear.cuh"
#include "rows.cuh"

/* A warp's sums: 2 tiles of 16 outputs x 7 tiles of 8 rows. */
typedef float many_sums[MANY_W][MANY_X][4];
enum { SUMS = MANY_W * MANY_X };

/* O / 32 x 2 warps. Tile i of warp w's outputs is the block's tile i * ACROSS + w; gated, i is the matrix. */
template <int O> struct many_shape {
    static constexpr int ACROSS = O / 16 / MANY_W, THREADS = MANY_THREADS(O), X_TILES = MANY_ROWS / 8;
    static constexpr int STAGE_W = O * 4, STAGE_X = MANY_ROWS * 4, STAGE = STAGE_W + STAGE_X; /* in 16 bytes */
    static constexpr int STAGES = BF16_UNITS ? MANY_STAGES(O) : MANY_STAGES_75;
    static_assert(STAGE * 16 == MANY_STAGE_BYTES(O), "what the host reserves");
    static_assert(STAGE_W == MANY_W * THREADS, "a thread copies one piece of each of a warp's tiles");
};

/* One block's place: which matrix, which tiles. */
struct many_place {
    int m, n0, t0;                 /* matrix; first tile of its outputs and of the rows           */
};
template <int O, bool GATED> DEVICE many_place place_of(const many_args &a) {
    many_place p = {0, (int)blockIdx.y, (a.first + (int)blockIdx.x) * many_shape<O>::X_TILES};
    while (!GATED && p.m + 1 < a.mats && p.n0 >= (a.w[p.m].rows + O - 1) / O)
        p.n0 -= (a.w[p.m++].rows + O - 1) / O;
    p.n0 *= GATED ? O / 32 : O / 16;
    return p;
}
/* The tile of its matrix that tile i of the warps `across` is. */
template <int O, bool GATED> DEVICE int tile_of(const many_place &p, int i, int across) {
    return p.n0 + (GATED ? across : i * many_shape<O>::ACROSS + across);
}

/* What this thread copies into the next stage: pieces of 16 bytes of W and of x. */
template <int O, bool GATED> struct many_copies {
    typedef many_shape<O> S;
    const uint4 *w[MANY_W], *x;
    bool there[MANY_W];            /* the tile of outputs exists                                  */
    int rows;                      /* from this thread's first row of x to the end                */
    size_t x_step;                 /* between its pieces of x                                     */

    __device__ many_copies(const many_args &a, const many_place &p, int k) {
        int kt = k_tiles(a.K), i = threadIdx.x, tile = p.t0 + i / 32;
#pragma unroll
        for (int j = 0; j < MANY_W; j++) {
            const weight_arg &m = a.w[GATED ? j : p.m];
            int n = tile_of<O, GATED>(p, j, i / 64);
            there[j] = n * 16 < m.rows;
            w[j] = (const uint4 *)m.tiles + ((size_t)(there[j] ? n : 0) * kt + k) * 32 + i % 64;
        }
        x = (const uint4 *)a.x + ((size_t)tile * kt + k) * 16 + i % 32;
        x_step = (size_t)(S::THREADS / 32) * kt * 16;
        rows = a.T - tile * 8 - i % 16 / 2;
    }
    __device__ void weights(uint4 *to) {
#pragma unroll
        for (int j = 0; j < MANY_W; j++) {
            copy16(to + j * S::THREADS + threadIdx.x, w[j], there[j]);
            w[j] += 64;
        }
    }
    __device__ void inputs(uint4 *to) {
        to += S::STAGE_W + threadIdx.x;
#pragma unroll
        for (int j = 0; j * S::THREADS < S::STAGE_X; j++)
            if ((j + 1) * S::THREADS <= S::STAGE_X || j * S::THREADS + threadIdx.x < S::STAGE_X)
                copy16(to + j * S::THREADS, x + j * x_step, j * (S::THREADS / 4) < rows);
        x += 32;
    }
};

/* acc += one stage. across: this warp's place among those of other outputs; wt: its first tile of rows. */
template <int O> DEVICE void many_step(many_sums &acc, const uint4 *sw, int across, int wt) {
    const uint2 *sx = (const uint2 *)(sw + many_shape<O>::STAGE_W);
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int kk = 0; kk < 2; kk++) {
        uint32_t b[MANY_X][2];
#pragma unroll
        for (int j = 0; j < MANY_X; j++) {
            uint2 u = sx[((wt + j) * 2 + kk) * 32 + lane];
            b[j][0] = u.x, b[j][1] = u.y;
        }
#pragma unroll
        for (int i = 0; i < MANY_W; i++) {
            uint4 v = sw[((i * many_shape<O>::ACROSS + across) * 2 + kk) * 32 + lane];
            uint32_t w[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
            for (int j = 0; j < MANY_X; j++) mma(acc[i][j], w, b[j]);
        }
    }
}

/* total += acc, and acc = 0. The first chunk is added to -0, which changes no bit. */
DEVICE void add_chunk(many_sums &total, many_sums &acc, const many_args &a, int chunk, int t0) {
#pragma unroll
    for (int j = 0; j < MANY_X; j++) {
        float by[2] = {1, 1};
        for (int e = 0; e < 2 && !BF16_UNITS; e++) {
            int t = (t0 + j) * 8 + threadIdx.x % 4 * 2 + e;
            if (t < a.T) by[e] = a.back[(size_t)chunk * a.T + t];
        }
#pragma unroll
        for (int i = 0; i < MANY_W; i++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                total[i][j][e] += acc[i][j][e] * by[e % 2];
                acc[i][j][e] = 0;
            }
    }
}

/* The sums of this block's group. */
template <int O, bool GATED>
DEVICE void group_sums(many_sums &total, uint4 *stage, const many_args &a, const many_place &p, int across, int wt) {
    constexpr int STAGES = many_shape<O>::STAGES, STAGE = many_shape<O>::STAGE;
    int k0 = blockIdx.z * GROUP_TILES, steps = min(k_tiles(a.K) - k0, (int)GROUP_TILES) / 2;
    many_copies<O, GATED> copies(a, p, k0);
    many_sums acc = {};
#pragma unroll
    for (int i = 0; i < SUMS * 4; i++) (&total[0][0][0])[i] = -0.0f;
#pragma unroll
    for (int s = 0; s < STAGES - 1; s++) /* weights depend on no other kernel */
        if (s < steps) copies.weights(stage + s * STAGE);
    after_the_kernel_before();
#pragma unroll
    for (int s = 0; s < STAGES - 1; s++) {
        if (s < steps) copies.inputs(stage + s * STAGE);
        copies_commit();
    }
    for (int s = 0, at = 0, to = STAGES - 1; s < steps; s++) {
        copies_wait<STAGES - 2>();
        __syncthreads();
        if (s + STAGES - 1 < steps) {
            copies.weights(stage + to * STAGE);
            copies.inputs(stage + to * STAGE);
        }
        copies_commit();
        many_step<O>(acc, stage + at * STAGE, across, wt);
        at = at + 1 == STAGES ? 0 : at + 1;
        to = to + 1 == STAGES ? 0 : to + 1;
        if ((s + 1) % (CHUNK_TILES / 2) == 0 || s + 1 == steps)
            add_chunk(total, acc, a, (k0 / 2 + s) / (CHUNK_TILES / 2), p.t0 + wt);
    }
}

/* Joins the groups of a tile in its last block; false in the others. */
template <int O> DEVICE bool join_groups(many_sums &total, const many_args &a) {
    constexpr int THREADS = MANY_THREADS(O);
    if (gridDim.z == 1) return true;
    uint32_t tile = blockIdx.y * gridDim.x + blockIdx.x;
    float4 *all = (float4 *)a.part + (size_t)tile * gridDim.z * SUMS * THREADS + threadIdx.x, v[SUMS];
#pragma unroll
    for (int q = 0; q < SUMS; q++) {
        float *t = total[q / MANY_X][q % MANY_X];
        all[(blockIdx.z * SUMS + q) * THREADS] = make_float4(t[0], t[1], t[2], t[3]);
        t[0] = t[1] = t[2] = t[3] = -0.0f;
    }
    if (!last_block(a.arrived + tile, gridDim.z)) return false;
    for (int z = 0; z < gridDim.z; z++) {
#pragma unroll
        for (int q = 0; q < SUMS; q++) v[q] = all[(z * SUMS + q) * THREADS]; /* all are asked for at once */
#pragma unroll
        for (int q = 0; q < SUMS; q++) {
            float *t = total[q / MANY_X][q % MANY_X];
            t[0] += v[q].x, t[1] += v[q].y, t[2] += v[q].z, t[3] += v[q].w;
        }
    }
    return true;
}

/* Two neighbouring outputs. vec: both are there, and they lie at 8 bytes. second: both are there. */
DEVICE float2 load2(const float *p, bool vec, bool second) {
    return vec ? *(const float2 *)p : make_float2(p[0], second ? p[1] : 0.0f);
}
DEVICE void store2(float *p, float2 v, bool vec, bool second) {
    if (vec) {
        *(float2 *)p = v;
    } else {
        p[0] = v.x;
        if (second) p[1] = v.y;
    }
}

/* A warp's outputs 2 n and 2 n + 1 of a tile: sum[j][e] += bias. */
DEVICE void add_bias(float (*sum)[4], const weight_arg &w, int n) {
    float bias[2];
#pragma unroll
    for (int i = 0; i < 2; i++) bias[i] = w.bias && n + i < w.rows ? w.bias[n + i] : -0.0f;
#pragma unroll
    for (int i = 0; i < MANY_X * 4; i++) sum[i / 4][i % 4] += bias[i % 4 / 2];
}

/* One tile of 16 outputs x 56 rows of a warp: tile `tile` of matrix m. `up`: the same of up, where gated. What
 * is read is read before anything is written, so that it comes together. */
template <bool GATED>
DEVICE void leave_tile(const many_args &a, int m, int tile, int t0, float (*sum)[4], float (*up)[4]) {
    const weight_arg &w = a.w[m];
    int lane = threadIdx.x % 32, n = tile * 16 + lane / 4 * 2, row0 = t0 * 8 + lane % 4 * 2, ldo = a.ldo[m];
    bool add = !GATED && a.epi == EPI_ADD, second = n + 1 < w.rows;
    float *out = a.out[m] + n;
    bool vec = w.rows % 2 == 0 && ldo % 2 == 0 && (uintptr_t)a.out[m] % 8 == 0;
    if (GATED) vec = vec && a.ldo[1] % 2 == 0 && (uintptr_t)a.out[1] % 8 == 0;
    float2 old[MANY_X * 2];
    if (n >= w.rows) return;
#pragma unroll
    for (int i = 0; i < MANY_X * 2; i++) {
        int t = row0 + i / 2 * 8 + i % 2;
        old[i] = make_float2(-0.0f, -0.0f);
        if (add && t < a.T) old[i] = load2(out + (size_t)t * ldo, vec, second);
    }
    add_bias(sum, w, n);
    if (GATED) add_bias(up, a.w[1], n);
#pragma unroll
    for (int i = 0; i < MANY_X * 2; i++) {
        int j = i / 2, e = i % 2, t = row0 + j * 8 + e;
        if (t >= a.T) return;
        float2 v = make_float2(sum[j][e], sum[j][e + 2]);
        if (GATED) {
            float2 u = make_float2(up[j][e], up[j][e + 2]);
            store2(a.out[1] + (size_t)t * a.ldo[1] + n, u, vec, second);
            v = make_float2(swiglu(v.x, u.x), swiglu(v.y, u.y));
        } else {
            v = make_float2(activate(v.x + old[i].x, a.epi), activate(v.y + old[i].y, a.epi));
        }
        store2(out + (size_t)t * ldo, v, vec, second);
        if (a.packed)
            ((uint32_t *)a.packed)[input_at(t, n, k_tiles(w.rows)) * 2 + n % 4 / 2] = pair_bf16(v.x, v.y);
    }
}

template <int O, bool GATED> DEVICE void many(const many_args &a) {
    extern __shared__ uint4 stage[];
    int warp = threadIdx.x / 32, across = warp / 2, wt = warp % 2 * MANY_X;
    many_place p = place_of<O, GATED>(a);
    many_sums total;
    group_sums<O, GATED>(total, stage, a, p, across, wt);
    if (!join_groups<O>(total, a)) return;
#pragma unroll
    for (int i = 0; i < (GATED ? 1 : MANY_W); i++)
        leave_tile<GATED>(a, p.m, tile_of<O, GATED>(p, i, across), p.t0 + wt, total[i], total[1]);
}

/* Grid (ceil(T / 112), tiles of O outputs of all matrices, ceil(K / 2048)): blocks that share weights come together. */
#define MANY(O) KERNEL(MANY_THREADS(O)) vl_many_##O(many_args a) { many<O, false>(a); }
MANY_SHAPES(MANY)
/* Grid (ceil(T / 112), ceil(rows / 96), ceil(K / 2048)). */
KERNEL(MANY_THREADS(MANY_GATED)) vl_gate_up_many(many_args a) { many<MANY_GATED, true>(a); }
#endif
