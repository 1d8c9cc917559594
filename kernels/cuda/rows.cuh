/* rows.cuh: the row-wise ops of kernels/ops.h: one block (or warp) for each row, sums in a fixed
 * order. Mirrors kernels/cpu/scalar.c.
 *
 * Easy to get wrong: qk_norm_rope writes k and v in the pools' type (bf16) but keeps q in f32; rows
 * of an embedding lie in fragment order (weight_at). */
#ifndef VL_ROWS_CUH
#define VL_ROWS_CUH

#include "device.cuh"

/* out[t] = table[ids[t]]; rows with ids[t] < 0 stay. Grid T. */
KERNEL(256) vl_embed(float *out, const bf16_bits *table, const int *ids, int D) {
    after_the_kernel_before();
    int id = ids[blockIdx.x], kt = k_tiles(D);
    if (id < 0) return;
    for (int i = threadIdx.x; i < D; i += 256)
        out[(size_t)blockIdx.x * D + i] = from_bf16(table[weight_at(id, i, kt)]);
}

/* out[p] = sum of four weighted rows, in the order of the corners. Grid P. */
KERNEL(256) vl_pos_embed(float *out, const bf16_bits *table, const int *idx, const float *weight,
                         int D) {
    after_the_kernel_before();
    size_t p = blockIdx.x;
    int kt = k_tiles(D);
    for (int i = threadIdx.x; i < D; i += 256) {
        float sum = 0;
        for (int k = 0; k < 4; k++)
            sum = fmaf(weight[4 * p + k], from_bf16(table[weight_at(idx[4 * p + k], i, kt)]), sum);
        out[p * D + i] = sum;
    }
}

/* Grid T. The variance is the biased one, taken around the mean. */
KERNEL(256) vl_layernorm(float *out, const float *x, const float *w, const float *bias, int D,
                         float eps) {
    __shared__ float red[8];
    after_the_kernel_before();
    const float *row = x + (size_t)blockIdx.x * D;
    float sum = 0, var = 0;
    for (int i = threadIdx.x; i < D; i += 256) sum += row[i];
    float mean = block_sum(sum, red) / D;
    for (int i = threadIdx.x; i < D; i += 256) var = fmaf(row[i] - mean, row[i] - mean, var);
    float scale = 1.0f / sqrtf(block_sum(var, red) / D + eps);
    for (int i = threadIdx.x; i < D; i += 256)
        out[(size_t)blockIdx.x * D + i] = fmaf((row[i] - mean) * scale, w[i], bias[i]);
}

/* 1 / rms of a row by one warp, in one order whether it can be read 16 bytes at a time or not. */
DEVICE float row_scale(const float *x, int D, float eps) {
    float sum = 0;
    bool vec = ((uintptr_t)x | D * sizeof *x) % 16 == 0;
    for (int i = threadIdx.x % 32 * 4; i < D; i += 128) {
        float4 v;
        if (vec) v = *(const float4 *)(x + i);
        else v = make_float4(x[i], i + 1 < D ? x[i + 1] : 0, i + 2 < D ? x[i + 2] : 0,
                             i + 3 < D ? x[i + 3] : 0);
        sum = fmaf(v.w, v.w, fmaf(v.z, v.z, fmaf(v.y, v.y, fmaf(v.x, v.x, sum))));
    }
    return 1.0f / sqrtf(warp_sum(sum) / D + eps);
}

/* One warp for each row. Grid ceil(T / 8). */
KERNEL(256) vl_rmsnorm(float *out, const float *x, const float *w, int T, int D, float eps) {
    after_the_kernel_before();
    size_t row = (size_t)blockIdx.x * 8 + threadIdx.x / 32;
    if (row >= T) return;
    float scale = row_scale(x + row * D, D, eps);
    for (int i = threadIdx.x % 32; i < D; i += 32) out[row * D + i] = x[row * D + i] * scale * w[i];
}

DEVICE float rms_scale(const float *x, int E, float eps) {
    float sum = 0;
    for (int i = threadIdx.x % 32; i < E; i += 32) sum = fmaf(x[i], x[i], sum);
    return 1.0f / sqrtf(warp_sum(sum) / E + eps);
}

/* One head of one row by one warp: norm (or NULL), rotate_half, then to f32 in place (q) or to the
 * pool (k). */
DEVICE void norm_rope(float *x, bf16_bits *pool, const float *norm, float eps, const float *cos,
                      const float *sin, int E) {
    int half = E / 2;
    float scale = norm ? rms_scale(x, E, eps) : 1.0f;
    for (int i = threadIdx.x % 32; i < half; i += 32) {
        float a = x[i] * scale, b = x[i + half] * scale;
        if (norm) a *= norm[i], b *= norm[i + half];
        float first = a * cos[i] - b * sin[i], second = b * cos[i] + a * sin[i];
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
    for (int i = threadIdx.x; i < 2 * H * half; i += 256) {
        float *x = qkv + row * 3 * H * E + i / half * E + i % half;
        float c = cos[row * half + i % half], s = sin[row * half + i % half], a = x[0], b = x[half];
        x[0] = a * c - b * s;
        x[half] = b * c + a * s;
    }
}

DEVICE float swiglu(float gate, float up) { return gate / (1.0f + __expf(-gate)) * up; }

/* n elements; out may be gate. */
KERNEL(256) vl_swiglu(float *out, const float *gate, const float *up, size_t n) {
    after_the_kernel_before();
    size_t i = (size_t)blockIdx.x * 256 + threadIdx.x;
    if (i < n) out[i] = swiglu(gate[i], up[i]);
}

/* dst row (=|+=) src row; an index of NULL counts. Grid n. */
KERNEL(256) vl_move_rows(float *dst, const int *dst_idx, const float *src, const int *src_idx, int D,
                         int add) {
    after_the_kernel_before();
    size_t to = dst_idx ? dst_idx[blockIdx.x] : (int)blockIdx.x;
    size_t from = src_idx ? src_idx[blockIdx.x] : (int)blockIdx.x;
    for (int i = threadIdx.x; i < D; i += 256) {
        float v = src[from * D + i];
        dst[to * D + i] = add ? dst[to * D + i] + v : v;
    }
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
