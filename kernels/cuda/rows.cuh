/* rows.cuh: the row-wise ops of kernels/ops.h: one block (or warp) for each row, sums in a fixed
 * order. Mirrors kernels/cpu/scalar.c.
 *
 * Easy to get wrong: qk_norm_rope writes k and v in the pools' type (bf16) but keeps q in f32; rows
 * of an embedding lie in fragment order (weight_at). */
#ifndef VL_ROWS_CUH
#define VL_ROWS_CUH

#include "device.cuh"

/* Row n, columns k... k + 3 of a table in fragment order; k a multiple of 4. */
DEVICE float4 gather4(const bf16_bits *table, int n, int k, int kt) {
    const uint32_t *p = (const uint32_t *)(table + weight_at(n, k, kt));
    uint32_t first = p[0], second = p[2];
    return make_float4(low(first), high(first), low(second), high(second));
}

/* out[t] = table[ids[t]]; rows with ids[t] < 0 stay. Grid T. */
KERNEL(256) vl_embed(float *out, const bf16_bits *table, const int *ids, int D) {
    after_the_kernel_before();
    int id = ids[blockIdx.x], kt = k_tiles(D);
    out += (size_t)blockIdx.x * D;
    bool vec = at_16_bytes(out, D);
    if (id < 0) return;
    for (int k = threadIdx.x * 4; k < D; k += 2048) { /* both halves are read before either is written */
        float4 a = gather4(table, id, k, kt), b = gather4(table, id, min(k + 1024, kt * 16 - 4), kt);
        store4(out, k, D, vec, a);
        store4(out, k + 1024, D, vec, b);
    }
}

/* out[p] = sum of four weighted rows, in the order of the corners. Grid P. */
KERNEL(256) vl_pos_embed(float *out, const bf16_bits *table, const int *idx, const float *weight,
                         int D) {
    after_the_kernel_before();
    int p = blockIdx.x, kt = k_tiles(D), n[4];
    float w[4];
    for (int c = 0; c < 4; c++) n[c] = idx[4 * p + c], w[c] = weight[4 * p + c];
    out += (size_t)p * D;
    bool vec = at_16_bytes(out, D);
    for (int k = threadIdx.x * 4; k < D; k += 1024) {
        float4 v[4], sum = make_float4(0, 0, 0, 0);
#pragma unroll
        for (int c = 0; c < 4; c++) v[c] = gather4(table, n[c], k, kt);
#pragma unroll
        for (int c = 0; c < 4; c++)
            sum = make_float4(fmaf(w[c], v[c].x, sum.x), fmaf(w[c], v[c].y, sum.y),
                              fmaf(w[c], v[c].z, sum.z), fmaf(w[c], v[c].w, sum.w));
        store4(out, k, D, vec, sum);
    }
}

/* Row t's inputs k... k + 3 for the next product, in fragment order; kt: its k tiles. sm_80 on. */
DEVICE void leave_inputs(uint2 *packed, int t, int k, int kt, float4 v) {
    packed[input_at(t, k, kt)] = make_uint2(pair_bf16(v.x, v.y), pair_bf16(v.z, v.w));
}

enum { QUADS = 4 };                /* of a row that a thread of layernorm holds: longer rows are read again */

/* Grid T. The variance is the biased one, taken around the mean. packed: as above, or NULL; then D is a
 * multiple of 32. */
KERNEL(256) vl_layernorm(float *out, const float *x, const float *w, const float *bias, int D,
                         float eps, uint2 *packed) {
    __shared__ float red[8];
    after_the_kernel_before();
    x += (size_t)blockIdx.x * D, out += (size_t)blockIdx.x * D;
    bool vec = at_16_bytes(x, D) && at_16_bytes(out, D) && at_16_bytes(w, D) && at_16_bytes(bias, D);
    int first = threadIdx.x * 4;
    float sum = 0, var = 0;
    float4 held[QUADS];
#pragma unroll
    for (int j = 0; j < QUADS; j++) held[j] = load4(x, first + j * 1024, D, vec);
    auto each = [&](auto step) {
#pragma unroll
        for (int j = 0; j < QUADS; j++)
            if (first + j * 1024 < D) step(first + j * 1024, held[j]);
        for (int j = QUADS; first + j * 1024 < D; j++) step(first + j * 1024, load4(x, first + j * 1024, D, vec));
    };
    each([&](int, float4 v) { sum += v.x + v.y + (v.z + v.w); });
    float mean = block_sum(sum, red) / D;
    each([&](int k, float4 v) {
        float d[4] = {v.x - mean, v.y - mean, v.z - mean, v.w - mean};
        for (int i = 0; i < 4; i++)
            if (k + i < D) var = fmaf(d[i], d[i], var);
    });
    float scale = 1.0f / sqrtf(block_sum(var, red) / D + eps);
    each([&](int k, float4 v) {
        float4 g = load4(w, k, D, vec), b = load4(bias, k, D, vec);
        v = make_float4(fmaf((v.x - mean) * scale, g.x, b.x), fmaf((v.y - mean) * scale, g.y, b.y),
                        fmaf((v.z - mean) * scale, g.z, b.z), fmaf((v.w - mean) * scale, g.w, b.w));
        store4(out, k, D, vec, v);
        if (packed) leave_inputs(packed, blockIdx.x, k, D / 16, v);
    });
}

/* Of a row's squares this warp's share: the warps of a block of 8 take 256 inputs each by turns, as in a
 * product of few rows. */
DEVICE float squares_of_warp(const float *x, int D, bool vec) {
    float sum = 0;
    for (int k = threadIdx.x / 32 * 256 + threadIdx.x % 32 * 4; k < D; k += 2048) {
        float4 v[2] = {load4(x, k, D, vec), load4(x, k + 128, D, vec)};
#pragma unroll
        for (int j = 0; j < 2; j++)
            sum = fmaf(v[j].w, v[j].w, fmaf(v[j].z, v[j].z, fmaf(v[j].y, v[j].y, fmaf(v[j].x, v[j].x, sum))));
    }
    return warp_sum(sum);
}
/* 1 / rms of a row from the shares of the 8 warps. */
DEVICE float scale_of_row(const float *squares, int D, float eps) {
    float sum = 0;
    for (int i = 0; i < 8; i++) sum += squares[i];
    return 1.0f / sqrtf(sum / D + eps);
}

/* Grid T. packed: as in layernorm. */
KERNEL(256) vl_rmsnorm(float *out, const float *x, const float *w, int D, float eps, uint2 *packed) {
    __shared__ float squares[8];
    after_the_kernel_before();
    x += (size_t)blockIdx.x * D, out += (size_t)blockIdx.x * D;
    bool vec = at_16_bytes(x, D) && at_16_bytes(out, D) && at_16_bytes(w, D);
    float share = squares_of_warp(x, D, vec);
    if (threadIdx.x % 32 == 0) squares[threadIdx.x / 32] = share;
    __syncthreads();
    float s = scale_of_row(squares, D, eps);
    for (int k = threadIdx.x * 4; k < D; k += 1024) {
        float4 v = load4(x, k, D, vec), g = load4(w, k, D, vec);
        v = make_float4(v.x * s * g.x, v.y * s * g.y, v.z * s * g.z, v.w * s * g.w);
        store4(out, k, D, vec, v);
        if (packed) leave_inputs(packed, blockIdx.x, k, D / 16, v);
    }
}

enum { PAIRS = 4 };                /* pairs of a head that a lane holds: E <= 256 */

/* One head of one row by one warp: norm (or NULL), rotate_half, then to f32 in place (q) or to the
 * pool (k). Everything is read at once. */
DEVICE void norm_rope(float *x, bf16_bits *pool, const float *norm, float eps, const float *cos,
                      const float *sin, int E) {
    int half = E / 2, lane = threadIdx.x % 32;
    float a[PAIRS], b[PAIRS], c[PAIRS], s[PAIRS], by[PAIRS][2], sum = 0;
#pragma unroll
    for (int j = 0; j < PAIRS; j++) {
        int i = lane + j * 32;
        bool ok = i < half;
        a[j] = ok ? x[i] : 0, b[j] = ok ? x[i + half] : 0;
        c[j] = ok ? cos[i] : 0, s[j] = ok ? sin[i] : 0;
        by[j][0] = ok && norm ? norm[i] : 1, by[j][1] = ok && norm ? norm[i + half] : 1;
    }
#pragma unroll
    for (int j = 0; j < PAIRS; j++) sum = fmaf(b[j], b[j], fmaf(a[j], a[j], sum));
    float scale = norm ? 1.0f / sqrtf(warp_sum(sum) / E + eps) : 1.0f;
#pragma unroll
    for (int j = 0; j < PAIRS; j++) {
        int i = lane + j * 32;
        float u = a[j] * scale * by[j][0], v = b[j] * scale * by[j][1];
        float first = u * c[j] - v * s[j], second = v * c[j] + u * s[j];
        if (i >= half) continue;
        if (pool) pool[i] = to_bf16(first), pool[i + half] = to_bf16(second);
        else x[i] = first, x[i + half] = second;
    }
}

/* Where key head kv of a slot begins in a pool [blocks][G][KEYS][E]. */
DEVICE size_t pool_at(int slot, int kv, int G, int E) {
    return (((size_t)(slot / KEYS) * G + kv) * KEYS + slot % KEYS) * E;
}

/* One warp for each head of each row: H query heads in place, G key heads and G value heads into
 * the pools. Grid (T, (H + 2G + 3) / 4), 4 warps. */
KERNEL(128) vl_qk_norm_rope(float *q, float *k, const float *v, int ldq, int ldk, int ldv,
                            const float *q_norm, const float *k_norm, float eps, const float *cos,
                            const float *sin, bf16_bits *k_pool, bf16_bits *v_pool,
                            const int *kv_slot, int H, int G, int E) {
    after_the_kernel_before();
    size_t row = blockIdx.x, half = E / 2;
    int head = blockIdx.y * 4 + threadIdx.x / 32;
    if (head >= H + 2 * G) return;
    if (head < H) {
        norm_rope(q + row * ldq + head * E, NULL, q_norm, eps, cos + row * half, sin + row * half, E);
    } else if (head < H + G) {
        norm_rope(k + row * ldk + (head - H) * E, k_pool + pool_at(kv_slot[row], head - H, G, E), k_norm,
                  eps, cos + row * half, sin + row * half, E);
    } else {
        int kv = head - H - G;
        bf16_bits *to = v_pool + pool_at(kv_slot[row], kv, G, E);
        for (int i = threadIdx.x % 32; i < E; i += 32) to[i] = to_bf16(v[row * ldv + kv * E + i]);
    }
}

/* q and k of qkv [P, 3, H, E] in place. Grid P. */
KERNEL(256) vl_rope_vision(float *qkv, const float *cos, const float *sin, int H, int E) {
    after_the_kernel_before();
    size_t row = blockIdx.x;
    int half = E / 2;
#pragma unroll 4
    for (int i = threadIdx.x; i < 2 * H * half; i += 256) {
        float *x = qkv + row * 3 * H * E + i / half * E + i % half;
        float c = cos[row * half + i % half], s = sin[row * half + i % half];
        float2 v = turned(x[0], x[half], c, s);
        x[0] = v.x, x[half] = v.y;
    }
}

DEVICE float swiglu(float gate, float up) { return gate / (1.0f + __expf(-gate)) * up; }

/* Rows of F; out may be gate. A thread for each 4. packed: as in layernorm. */
KERNEL(256) vl_swiglu(float *out, const float *gate, const float *up, int T, int F, uint2 *packed) {
    after_the_kernel_before();
    int quads = (F + 3) / 4;
    size_t i = (size_t)blockIdx.x * 256 + threadIdx.x, t = i / quads;
    if (t >= T) return;
    int k = (int)(i % quads) * 4;
    bool vec = at_16_bytes(gate, F) && at_16_bytes(up, F) && at_16_bytes(out, F);
    float4 g = load4(gate + t * F, k, F, vec), u = load4(up + t * F, k, F, vec);
    g = make_float4(swiglu(g.x, u.x), swiglu(g.y, u.y), swiglu(g.z, u.z), swiglu(g.w, u.w));
    store4(out + t * F, k, F, vec, g);
    if (packed) leave_inputs(packed, (int)t, k, F / 16, g);
}

/* dst row (=|+=) src row; an index of NULL counts. Grid n. */
KERNEL(256) vl_move_rows(float *dst, const int *dst_idx, const float *src, const int *src_idx, int D,
                         int add) {
    after_the_kernel_before();
    size_t to = dst_idx ? dst_idx[blockIdx.x] : (int)blockIdx.x;
    size_t from = src_idx ? src_idx[blockIdx.x] : (int)blockIdx.x;
    src += from * D, dst += to * D;
    bool vec = at_16_bytes(src, D) && at_16_bytes(dst, D);
    for (int k = threadIdx.x * 4; k < D; k += 1024) {
        float4 v = load4(src, k, D, vec);
        if (add) {
            float4 u = load4(dst, k, D, vec);
            v = make_float4(u.x + v.x, u.y + v.y, u.z + v.z, u.w + v.w);
        }
        store4(dst, k, D, vec, v);
    }
}

/* Grid (blocks of 1024 words, parts). */
KERNEL(256) vl_put(put_args a) {
    after_the_kernel_before();
    const put_part p = a.part[blockIdx.y];
    const uint32_t *from = (const uint32_t *)a.from + p.at;
    for (int i = blockIdx.x * 256 + threadIdx.x; i < p.words; i += gridDim.x * 256) ((uint32_t *)p.to)[i] = from[i];
}

/* Greater wins, then the lower index; a NaN beats everything. */
DEVICE bool beats(float v, int i, float best, int at) {
    if (isnan(v) || isnan(best)) return isnan(v) && !(isnan(best) && at < i);
    return v > best || (v == best && i < at);
}

/* The best of a block's threads, in thread 0. */
DEVICE void best_of_block(float *best, int *at) {
    __shared__ float value[8];
    __shared__ int index[8];
    for (int o = 16; o; o >>= 1) {
        float v = __shfl_xor_sync(~0u, *best, o);
        int i = __shfl_xor_sync(~0u, *at, o);
        if (beats(v, i, *best, *at)) *best = v, *at = i;
    }
    __syncthreads(); /* of the call before */
    if (threadIdx.x % 32 == 0) value[threadIdx.x / 32] = *best, index[threadIdx.x / 32] = *at;
    __syncthreads();
    for (int w = 0; w < 8 && threadIdx.x == 0; w++)
        if (beats(value[w], index[w], *best, *at)) *best = value[w], *at = index[w];
}

/* ids[t] = first index of the largest logit, -1 if the row has a NaN. The blocks of a row leave
 * their best in part [T, blocks]; the last one chooses. Grid (blocks, T). */
KERNEL(256) vl_argmax(int *ids, const float *logits, int V, float2 *part, uint32_t *arrived) {
    after_the_kernel_before();
    const float *x = logits + (size_t)blockIdx.y * V;
    float2 *mine = part + (size_t)blockIdx.y * gridDim.x;
    float best = -CUDART_INF_F;
    int at = 0x7fffffff, stride = gridDim.x * 256;
    for (int i = blockIdx.x * 256 + threadIdx.x; i < V; i += stride)
        if (beats(x[i], i, best, at)) best = x[i], at = i;
    best_of_block(&best, &at);
    if (threadIdx.x == 0) mine[blockIdx.x] = make_float2(best, __int_as_float(at));
    if (!last_block(arrived + blockIdx.y, gridDim.x)) return;
    best = -CUDART_INF_F, at = 0x7fffffff;
    for (int i = threadIdx.x; i < gridDim.x; i += 256)
        if (beats(mine[i].x, __float_as_int(mine[i].y), best, at))
            best = mine[i].x, at = __float_as_int(mine[i].y);
    best_of_block(&best, &at);
    if (threadIdx.x == 0) ids[blockIdx.y] = isnan(best) ? -1 : at;
}
#endif
