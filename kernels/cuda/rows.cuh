/* rows.cuh: the row-wise ops of kernels/ops.h: one block (or warp) for each row, sums in a fixed
 * order. Mirrors kernels/cpu/scalar.c.
 *
 * Easy to get wrong: qk_norm_rope writes k and v in the pools' type (bf16) but keeps q in f32; rows
 * of an embedding lie in fragment order (weight_at). */
#include "device.cuh"

/* out[t] = table[ids[t]]; rows with ids[t] < 0 stay. Grid T. */
KERNEL(256) vl_embed(float *out, const bf16_bits *table, const int *ids, int D) {
    int id = ids[blockIdx.x], kt = k_tiles(D);
    if (id < 0) return;
    for (int i = threadIdx.x; i < D; i += 256)
        out[(size_t)blockIdx.x * D + i] = from_bf16(table[weight_at(id, i, kt)]);
}

/* out[p] = sum of four weighted rows, in the order of the corners. Grid P. */
KERNEL(256) vl_pos_embed(float *out, const bf16_bits *table, const int *idx, const float *weight,
                         int D) {
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
    const float *row = x + (size_t)blockIdx.x * D;
    float sum = 0, var = 0;
    for (int i = threadIdx.x; i < D; i += 256) sum += row[i];
    float mean = block_sum(sum, red) / D;
    for (int i = threadIdx.x; i < D; i += 256) var = fmaf(row[i] - mean, row[i] - mean, var);
    float scale = 1.0f / sqrtf(block_sum(var, red) / D + eps);
    for (int i = threadIdx.x; i < D; i += 256)
        out[(size_t)blockIdx.x * D + i] = fmaf((row[i] - mean) * scale, w[i], bias[i]);
}

/* Grid T. */
KERNEL(256) vl_rmsnorm(float *out, const float *x, const float *w, int D, float eps) {
    __shared__ float red[8];
    const float *row = x + (size_t)blockIdx.x * D;
    float sum = 0;
    for (int i = threadIdx.x; i < D; i += 256) sum = fmaf(row[i], row[i], sum);
    float scale = 1.0f / sqrtf(block_sum(sum, red) / D + eps);
    for (int i = threadIdx.x; i < D; i += 256)
        out[(size_t)blockIdx.x * D + i] = row[i] * scale * w[i];
}

DEVICE float rms_scale(const float *x, int E, float eps) {
    float sum = 0;
    for (int i = threadIdx.x % 32; i < E; i += 32) sum = fmaf(x[i], x[i], sum);
    return 1.0f / sqrtf(warp_sum(sum) / E + eps);
}

/* One warp for each head of each row: H query heads in place, G key heads and G value heads into
 * the pools. Grid (T, (H + 2G + 3) / 4), 4 warps. */
KERNEL(128) vl_qk_norm_rope(float *q, const float *k, const float *v, int ldq, int ldk, int ldv,
                            const float *q_norm, const float *k_norm, float eps, const float *cos,
                            const float *sin, bf16_bits *k_pool, bf16_bits *v_pool,
                            const int *kv_slot, int H, int G, int E) {
    size_t row = blockIdx.x;
    int head = blockIdx.y * 4 + threadIdx.x / 32, lane = threadIdx.x % 32, half = E / 2;
    if (head >= H + 2 * G) return;
    int kv = head < H + G ? head - H : head - H - G, slot = kv_slot[row];
    size_t at = (((size_t)(slot / KEYS) * G + (head < H ? 0 : kv)) * KEYS + slot % KEYS) * E;
    if (head >= H + G) {
        for (int i = lane; i < E; i += 32) v_pool[at + i] = to_bf16(v[row * ldv + kv * E + i]);
        return;
    }
    const float *x = head < H ? q + row * ldq + head * E : k + row * ldk + kv * E;
    const float *norm = head < H ? q_norm : k_norm;
    float scale = norm ? rms_scale(x, E, eps) : 1.0f;
    for (int i = lane; i < half; i += 32) {
        float a = x[i] * scale, b = x[i + half] * scale;
        if (norm) a *= norm[i], b *= norm[i + half];
        float c = cos[row * half + i], s = sin[row * half + i];
        float first = a * c - b * s, second = b * c + a * s;
        if (head < H) {
            q[row * ldq + head * E + i] = first;
            q[row * ldq + head * E + i + half] = second;
        } else {
            k_pool[at + i] = to_bf16(first);
            k_pool[at + i + half] = to_bf16(second);
        }
    }
}

/* q and k of qkv [P, 3, H, E] in place. Grid P. */
KERNEL(256) vl_rope_vision(float *qkv, const float *cos, const float *sin, int H, int E) {
    size_t row = blockIdx.x;
    int half = E / 2;
    for (int i = threadIdx.x; i < 2 * H * half; i += 256) {
        float *x = qkv + row * 3 * H * E + i / half * E + i % half;
        float c = cos[row * half + i % half], s = sin[row * half + i % half], a = x[0], b = x[half];
        x[0] = a * c - b * s;
        x[half] = b * c + a * s;
    }
}

/* n elements; out may be gate. */
KERNEL(256) vl_swiglu(float *out, const float *gate, const float *up, size_t n) {
    size_t i = (size_t)blockIdx.x * 256 + threadIdx.x;
    if (i < n) out[i] = gate[i] / (1.0f + __expf(-gate[i])) * up[i];
}

/* dst row (=|+=) src row; an index of NULL counts. Grid n. */
KERNEL(256) vl_move_rows(float *dst, const int *dst_idx, const float *src, const int *src_idx, int D,
                         int add) {
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

/* ids[t] = first index of the largest logit, -1 if the row has a NaN. Grid T. */
KERNEL(256) vl_argmax(int *ids, const float *logits, int V) {
    __shared__ float value[8];
    __shared__ int index[8];
    const float *x = logits + (size_t)blockIdx.x * V;
    float best = -CUDART_INF_F;
    int at = 0x7fffffff;
    for (int i = threadIdx.x; i < V; i += 256)
        if (beats(x[i], i, best, at)) best = x[i], at = i;
    for (int o = 16; o; o >>= 1) {
        float v = __shfl_xor_sync(~0u, best, o);
        int i = __shfl_xor_sync(~0u, at, o);
        if (beats(v, i, best, at)) best = v, at = i;
    }
    if (threadIdx.x % 32 == 0) value[threadIdx.x / 32] = best, index[threadIdx.x / 32] = at;
    __syncthreads();
    if (threadIdx.x) return;
    for (int w = 1; w < 8; w++)
        if (beats(value[w], index[w], best, at)) best = value[w], at = index[w];
    ids[blockIdx.x] = isnan(best) ? -1 : at;
}
