/* attention.cuh: softmax(q k^T * scale) v over KV blocks of 64 keys, in bf16 with f32 sums.
 *
 *   vl_attend_64/80/128  flash attention on mma.sync for head widths up to that, E % 8 == 0
 *   vl_attend_plain      any head width
 *   vl_segment_blocks    turns a picture's keys and values into KV blocks, so that full attention
 *                        is the same kernel: each row sees all keys of its segment
 *
 * The order of a row's sum never depends on its neighbours: each KV block is a softmax of its own
 * (m, l, o), and the blocks are joined in order. Whether one thread block walks them all (prefill) or
 * several share them and the last to finish joins what all of them left in `part` (decode), the
 * bits are the same.
 *
 * sm_75 has no bf16 units: q, k, v and p are fp16 there. Rows of q and of k are scaled by a power of two each,
 * and the scores back, so any of them keeps its bits; a row of v with values beyond fp16 is scaled down,
 * and its p up (up to 2^28; values below 2^-14 lose bits, as they do in any fp16).
 *
 * Mirrors HF Qwen3VLVisionAttention and Qwen3VLTextAttention (query head h reads key head
 * h / (H / G)). Easy to get wrong: one tile may hold rows of several sequences; a row may see none
 * of a block's keys, and must then stay as it is to the bit. */
#include "device.cuh"

enum { TILE_ROWS = 64 };          /* (token, head) pairs of a tile: 16 for each of 4 warps     */
enum { SPLIT_BLOCKS = 1 };        /* KV blocks of one thread block when a row's keys are split */
enum { PARTS = 8 };               /* of them that join_parts has under way                     */

/* (M, L) after (m, l) joined, and the factors of both sides; false: nothing to join. */
DEVICE bool join(float *M, float *L, float m, float l, float *old_by, float *new_by) {
    if (m == -CUDART_INF_F) return false;
    float top = fmaxf(*M, m);
    *old_by = exp2_fast(*M - top);
    *new_by = exp2_fast(m - top);
    *M = top;
    *L = __fmaf_rn(l, *new_by, __fmul_rn(*L, *old_by));
    return true;
}
DEVICE float joined(float old, float old_by, float add, float new_by) {
    return __fmaf_rn(add, new_by, __fmul_rn(old, old_by));
}

/* The first of the rows (t0, end) that is of another sequence than t0, or end. By whole warps. */
DEVICE int end_of_sequence(const int *row_seq, int t0, int end) {
    int lane = threadIdx.x % 32, seq = row_seq[t0];
    for (int t = t0; t < end; t += 32) {
        uint32_t others = __ballot_sync(~0u, t + lane < end && row_seq[t + lane] != seq);
        if (others) return t + __ffs(others) - 1;
    }
    return end;
}
DEVICE int longest_of(const int *row_len, int t0, int t1) {
    int longest = 0;
    for (int t = t0 + threadIdx.x % 32; t < t1; t += 32) longest = max(longest, row_len[t]);
    for (int o = 16; o; o >>= 1) longest = max(longest, __shfl_xor_sync(~0u, longest, o));
    return longest;
}

/* What makes a row of 64 keys fit fp16, undone: [the block's parity] of k, of v. sm_75 only. */
struct attend_scales {
    float k[2][KEYS], v[KEYS];
};

/* One tile of up to 64 (token, head) rows of one sequence and one key head. EP: E rounded up to
 * what the mma tiles hold; the lanes' columns beyond E are zeros. */
template <int EP> struct attend_tile {
    static constexpr int PITCH = EP + 8;      /* 16 bytes more: ldmatrix without bank conflicts */
    const attend_args &a;
    bf16_bits *sk, *sv;                       /* [KEYS][PITCH]                                 */
    attend_scales *scales;
    float q_back[2];                          /* of this lane's two rows                       */
    int kv, seq, longest;                     /* key head, sequence, keys of the longest row   */
    uint32_t q[EP / 16][4];
    int token[2], head[2], len[2];            /* of this lane's two rows; len: keys they see   */
    float M[2], L[2], O[EP / 8][4];           /* the blocks so far                             */

    __device__ attend_tile(const attend_args &args, bf16_bits *k, bf16_bits *v, attend_scales *s, int g)
        : a(args), sk(k), sv(v), scales(s), kv(g) {}

    /* 8 values of a key, whose largest is in one of its 16 lanes, as fp16. */
    __device__ uint4 narrow(uint4 v, bool always, float *back) {
        uint32_t w[4] = {v.x, v.y, v.z, v.w};
        float top = 0, by = 1;
        *back = 1;
        for (int i = 0; i < 4; i++) top = fmaxf(top, fmaxf(fabsf(low(w[i])), fabsf(high(w[i]))));
        for (int o = 8; o; o >>= 1) top = fmaxf(top, __shfl_xor_sync(~0u, top, o));
        if (always || top > 32768) by = input_scale(top, back);
        for (int i = 0; i < 4; i++) w[i] = pair_input(low(w[i]) * by, high(w[i]) * by);
        return make_uint4(w[0], w[1], w[2], w[3]);
    }

    /* load() on sm_75: by way of registers, a key for 16 lanes. */
    __device__ void load_narrow(bf16_bits *to, const bf16_bits *from, int j) {
        int c = threadIdx.x % 16, first = threadIdx.x / 16;
        bool is_k = to == sk;
        enum { EACH = 4 }; /* at once: there are no more registers */
        uint4 v[EACH];
#pragma unroll 1
        for (int i0 = 0; i0 < KEYS / 8; i0 += EACH) {
#pragma unroll
            for (int i = 0; i < EACH; i++) {
                int key = first + (i0 + i) * 8;
                uint32_t keep = c < a.E / 8 && j * KEYS + key < longest ? ~0u : 0;
                v[i] = *(const uint4 *)(from + (keep ? (size_t)key * a.E + c * 8 : 0));
                v[i].x &= keep, v[i].y &= keep, v[i].z &= keep, v[i].w &= keep;
            }
#pragma unroll
            for (int i = 0; i < EACH; i++) {
                float back;
                uint4 h = narrow(v[i], is_k, &back);
                int key = first + (i0 + i) * 8;
                if (c < EP / 8) *(uint4 *)(to + key * PITCH + c * 8) = h;
                if (c == 0) (is_k ? scales->k[j % 2] : scales->v)[key] = back;
            }
        }
    }

    /* KV block j, which lies in `block` -> shared memory; keys after the longest row are zeros. */
    __device__ void load(bf16_bits *to, const void *pool, int j, int block) {
        const bf16_bits *from = (const bf16_bits *)pool + ((size_t)block * a.G + kv) * KEYS * a.E;
#if __CUDA_ARCH__ < 800
        load_narrow(to, from, j);
#else
        int chunks = a.E / 8;
#pragma unroll 4
        for (int i = threadIdx.x; i < KEYS * (EP / 8); i += 128) {
            int key = i / (EP / 8), c = i % (EP / 8);
            bool ok = c < chunks && j * KEYS + key < longest;
            copy16(to + key * PITCH + c * 8, ok ? from + (size_t)key * a.E + c * 8 : pool, ok);
        }
#endif
    }

    /* What this lane's row of q is multiplied by; *back undoes it. */
    __device__ float scale_query(const float2 *v, float *back) {
        *back = 1;
#if __CUDA_ARCH__ < 800
        float top = 0;
#pragma unroll
        for (int n = 0; n < EP / 8; n++) top = fmaxf(top, fmaxf(fabsf(v[n].x), fabsf(v[n].y)));
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
        return input_scale(top, back);
#else
        return 1;
#endif
    }

    /* This lane's two rows of the tile, `rows` from token t0 on: first + lane / 4, and 8 later. All of both
     * is asked for before any of it is used, and what else is on its way comes with it. */
    __device__ void take_rows(int first, int rows, int t0) {
        int heads = a.H / a.G, pair = threadIdx.x % 4 * 2;
        float2 v[2][EP / 8];
#pragma unroll
        for (int r = 0; r < 2; r++) {
            int i = first + threadIdx.x % 32 / 4 + r * 8;
            bool ok = i < rows;
            token[r] = ok ? t0 + i / heads : -1;
            head[r] = kv * heads + i % heads;
            M[r] = -CUDART_INF_F;
            L[r] = 0;
            const float *row = a.q + (size_t)(ok ? token[r] : t0) * a.ldq + (size_t)head[r] * a.E;
            len[r] = load_now((const int *)a.row_len + (ok ? token[r] : t0));
#pragma unroll
            for (int n = 0; n < EP / 8; n++) v[r][n] = load_now((const float2 *)(row + min(n * 8 + pair, a.E - 2)));
        }
#pragma unroll
        for (int r = 0; r < 2; r++) {
            if (token[r] < 0) len[r] = 0;
            float by = scale_query(v[r], &q_back[r]);
#pragma unroll
            for (int n = 0; n < EP / 8; n++) {
                uint32_t keep = token[r] >= 0 && n * 8 + pair < a.E ? ~0u : 0; /* no branch around the wait */
                O[n][r * 2] = O[n][r * 2 + 1] = 0;
                q[n / 2][n % 2 * 2 + r] = pair_input(v[r][n].x * by, v[r][n].y * by) & keep;
            }
        }
    }

    __device__ void scores(float (*s)[4]) {
        int lane = threadIdx.x % 32;
#pragma unroll
        for (int i = 0; i < EP / 16; i++)
#pragma unroll
            for (int n = 0; n < KEYS / 16; n++) {
                uint32_t b[4];
                ldmatrix(b, sk + (n * 16 + lane % 8 + lane / 16 * 8) * PITCH + i * 16 + lane / 8 % 2 * 8);
                mma_inputs(s[n * 2], q[i], b);
                mma_inputs(s[n * 2 + 1], q[i], b + 2);
            }
    }

    /* Scores of block j become probabilities p, as inputs; m and l of the block. */
    __device__ void softmax(uint32_t (*p)[4], float (*s)[4], int j, float *m, float *l) {
        const float by = a.scale * 1.4426950408889634f;
        int first = j * KEYS + threadIdx.x % 4 * 2;
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float top = -CUDART_INF_F, sum = 0;
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    float *x = &s[n][r * 2 + e];
                    if (!BF16_UNITS) *x *= q_back[r] * scales->k[j % 2][first + n * 8 + e - j * KEYS];
                    *x = first + n * 8 + e < len[r] ? *x * by : -CUDART_INF_F;
                    top = fmaxf(top, *x);
                }
            top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
            top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
            float base = top == -CUDART_INF_F ? 0.0f : top;
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++) {
                float *x = &s[n][r * 2];
                x[0] = exp2_fast(x[0] - base);
                x[1] = exp2_fast(x[1] - base);
                sum += x[0];
                sum += x[1];
                const float *v = scales->v + (first + n * 8 - j * KEYS);
                p[n / 2][n % 2 * 2 + r] = BF16_UNITS ? pair_input(x[0], x[1]) : pair_input(x[0] * v[0], x[1] * v[1]);
            }
            sum += __shfl_xor_sync(~0u, sum, 1);
            sum += __shfl_xor_sync(~0u, sum, 2);
            m[r] = top;
            l[r] = sum;
        }
    }

    /* o of the block, 16 columns at a time, joined to O, or left in `part` (as m and l are). */
    __device__ void values(const uint32_t (*p)[4], int j, const float *m, const float *l, bool whole) {
        int lane = threadIdx.x % 32;
        float old_by[2], new_by[2], *to[2];
        bool live[2];
#pragma unroll
        for (int r = 0; r < 2; r++) {
            live[r] = token[r] >= 0;
            if (whole) live[r] = join(&M[r], &L[r], m[r], l[r], &old_by[r], &new_by[r]);
            to[r] = a.part + (((size_t)token[r] * a.H + head[r]) * a.blocks + j) * (a.E + 2);
            if (!whole && live[r] && lane % 4 == 0) to[r][a.E] = m[r], to[r][a.E + 1] = l[r];
        }
#pragma unroll
        for (int n = 0; n < EP / 16; n++) {
            float o[2][4] = {};
#pragma unroll
            for (int i = 0; i < KEYS / 16; i++) {
                uint32_t b[4];
                ldmatrix_trans(b, sv + (i * 16 + lane % 16) * PITCH + n * 16 + lane / 16 * 8);
                mma_inputs(o[0], p[i], b);
                mma_inputs(o[1], p[i], b + 2);
            }
#pragma unroll
            for (int half = 0; half < 2; half++)
#pragma unroll
                for (int r = 0; r < 2; r++) {
                    float *x = &O[n * 2 + half][r * 2], *y = &o[half][r * 2];
                    int e = n * 16 + half * 8 + lane % 4 * 2;
                    if (!live[r]) continue;
                    if (whole) {
                        x[0] = joined(x[0], old_by[r], y[0], new_by[r]);
                        x[1] = joined(x[1], old_by[r], y[1], new_by[r]);
                    } else if (e < a.E) {
                        *(float2 *)(to[r] + e) = make_float2(y[0], y[1]);
                    }
                }
        }
    }

    /* KV blocks [begin, end). K of the next block is on its way while the values are multiplied, V
     * while the scores are. `busy`: this warp has rows. */
    __device__ void walk(int begin, int end, bool whole, bool busy) {
        if (begin >= end) return;
        const int *table = a.table + (size_t)seq * a.max_blocks;
        int lane = threadIdx.x % 32, mine = table[min(begin + lane, end - 1)]; /* 32 at once */
        int block = __shfl_sync(~0u, mine, 0);
        load(sk, a.k_pool, begin, block);
        copies_commit();
        load(sv, a.v_pool, begin, block);
        copies_commit();
        for (int j = begin; j < end; j++) {
            float s[KEYS / 8][4] = {}, m[2], l[2];
            uint32_t p[KEYS / 16][4];
            int next = j + 1 - begin;
            if (j + 1 < end) {
                if (next % 32 == 0) mine = table[min(j + 1 + lane, end - 1)];
                block = __shfl_sync(~0u, mine, next % 32);
            }
            copies_wait<1>();
            __syncthreads();
            if (busy) scores(s);
            __syncthreads();
            if (j + 1 < end) load(sk, a.k_pool, j + 1, block);
            copies_commit();
            if (busy) softmax(p, s, j, m, l);
            copies_wait<1>();
            __syncthreads();
            if (busy) values(p, j, m, l, whole);
            __syncthreads();
            if (j + 1 < end) load(sv, a.v_pool, j + 1, block);
            copies_commit();
        }
        copies_wait<0>();
    }

    /* The rows' outputs, all of whose blocks were joined here. */
    __device__ void store() {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            if (token[r] < 0) continue;
            float *to = a.out + ((size_t)token[r] * a.H + head[r]) * a.E;
#pragma unroll
            for (int n = 0; n < EP / 8; n++) {
                int e = n * 8 + threadIdx.x % 4 * 2, k = head[r] * a.E + e;
                if (e >= a.E) continue;
                float2 o = make_float2(O[n][r * 2] / L[r], O[n][r * 2 + 1] / L[r]);
                *(float2 *)(to + e) = o;
                if (a.packed)
                    ((uint32_t *)a.packed)[input_at(token[r], k, a.H * a.E / 16) * 2 + k % 4 / 2] =
                        pair_bf16(o.x, o.y);
            }
        }
    }

    /* Token t's outputs from the n blocks in `part`. */
    __device__ void join_parts(int t, int n) {
        int heads = a.H / a.G;
        for (int i = threadIdx.x; i < heads * a.E; i += 128) {
            size_t row = (size_t)t * a.H + kv * heads + i / a.E;
            const float *p = a.part + row * a.blocks * (a.E + 2);
            float top = -CUDART_INF_F, sum = 0, o = 0, old_by, new_by;
            for (int j = 0; j < n; j += PARTS) {
                float m[PARTS], l[PARTS], v[PARTS];
#pragma unroll
                for (int k = 0; k < PARTS; k++) {
                    const float *part = p + (size_t)min(j + k, n - 1) * (a.E + 2);
                    m[k] = part[a.E], l[k] = part[a.E + 1], v[k] = part[i % a.E];
                }
#pragma unroll
                for (int k = 0; k < PARTS; k++)
                    if (j + k < n && join(&top, &sum, m[k], l[k], &old_by, &new_by))
                        o = joined(o, old_by, v[k], new_by);
            }
            a.out[row * a.E + i % a.E] = o / sum;
        }
    }

    /* The tokens [t0, t1) of one sequence. */
    __device__ void run(int t0, int t1) {
        int rows = (t1 - t0) * (a.H / a.G), first = threadIdx.x / 32 * 16;
        seq = load_now(a.row_seq + t0);
        if (a.tokens == 1) longest = load_now(a.row_len + t0);
        take_rows(first, rows, t0);
        if (a.tokens != 1) longest = longest_of(a.row_len, t0, t1);
        int n = (longest + KEYS - 1) / KEYS, begin = blockIdx.z * SPLIT_BLOCKS;
        bool whole = !a.blocks || n <= SPLIT_BLOCKS;
        if (a.blocks && begin >= n) return;
        walk(a.blocks ? begin : 0, a.blocks ? min(begin + SPLIT_BLOCKS, n) : n, whole, first < rows);
        if (whole) {
            store();
        } else if (last_block(a.arrived + (size_t)t0 * a.G + kv, (n + SPLIT_BLOCKS - 1) / SPLIT_BLOCKS)) {
            join_parts(t0, n);
        }
    }
};

template <int EP> DEVICE void attend(const attend_args &a) {
    __shared__ __align__(16) bf16_bits sk[KEYS * (EP + 8)], sv[KEYS * (EP + 8)];
    __shared__ attend_scales scales; /* unused, and so not there, from sm_80 on */
    int tiles = (a.T + a.tokens - 1) / a.tokens;
    if (blockIdx.x >= tiles) { /* touches nothing that an earlier kernel writes */
        fetch_ahead(a.ahead, a.ahead_bytes, ((blockIdx.x - tiles) * gridDim.y + blockIdx.y) * gridDim.z + blockIdx.z,
                    (gridDim.x - tiles) * gridDim.y * gridDim.z);
        return;
    }
    after_the_kernel_before();
    attend_tile<EP> tile(a, sk, sv, &scales, blockIdx.y);
    int end = min((int)(blockIdx.x + 1) * a.tokens, a.T);
    for (int t0 = blockIdx.x * a.tokens; t0 < end;) {
        int t1 = a.tokens == 1 ? end : end_of_sequence(a.row_seq, t0, end);
        __syncthreads();
        tile.run(t0, t1);
        t0 = t1;
    }
}

/* Grid (tiles of tokens, and blocks that fetch ahead; G; shares of the keys). */
KERNEL(128) vl_attend_64(attend_args a) { attend<64>(a); }
KERNEL(128) vl_attend_80(attend_args a) { attend<80>(a); }
KERNEL(128) vl_attend_128(attend_args a) { attend<128>(a); }

/* One row and head for each block; four warps take every fourth key. Grid (T, H). E <= 256. */
KERNEL(128) vl_attend_plain(attend_args a) {
    __shared__ float part[4][256 + 2];
    after_the_kernel_before();
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, head = blockIdx.y, t = blockIdx.x;
    int len = a.row_len[t], kv = head / (a.H / a.G);
    const int *table = a.table + (size_t)a.row_seq[t] * a.max_blocks;
    const float *q = a.q + (size_t)t * a.ldq + (size_t)head * a.E;
    const bf16_bits *k_pool = (const bf16_bits *)a.k_pool, *v_pool = (const bf16_bits *)a.v_pool;
    float m = -CUDART_INF_F, l = 0, o[8] = {};
    for (int key = warp; key < len; key += 4) {
        size_t at = (((size_t)table[key / KEYS] * a.G + kv) * KEYS + key % KEYS) * a.E;
        float dot = 0;
        for (int e = lane; e < a.E; e += 32) dot = fmaf(q[e], from_bf16(k_pool[at + e]), dot);
        dot = warp_sum(dot) * a.scale * 1.4426950408889634f;
        float top = fmaxf(m, dot), fix = exp2_fast(m - top), p = exp2_fast(dot - top);
        m = top;
        l = fmaf(l, fix, p);
#pragma unroll
        for (int i = 0; i < 8; i++)
            if (lane + i * 32 < a.E)
                o[i] = fmaf(o[i], fix, p * from_bf16(v_pool[at + lane + i * 32]));
    }
#pragma unroll
    for (int i = 0; i < 8; i++)
        if (lane + i * 32 < a.E) part[warp][lane + i * 32] = o[i];
    if (lane == 0) part[warp][256] = m, part[warp][257] = l;
    __syncthreads();
    for (int e = threadIdx.x; e < a.E; e += 128) {
        float M = -CUDART_INF_F, L = 0, O = 0, old_by, new_by;
        for (int w = 0; w < 4; w++)
            if (join(&M, &L, part[w][256], part[w][257], &old_by, &new_by))
                O = joined(O, old_by, part[w][e], new_by);
        a.out[((size_t)t * a.H + head) * a.E + e] = O / L;
    }
}

/* Row p of qkv [P, 3, H, E] lies in segment s of cu [n + 1]; its k and v go to KV block
 * cu[s] / 64 + s + (p - cu[s]) / 64, and row_seq, row_len, table [n, max_blocks] say so. cos, sin: q and
 * k are turned first, as by vl_rope_vision; or NULL. Grid P. */
KERNEL(256) vl_segment_blocks(bf16_bits *k_pool, bf16_bits *v_pool, int *table, int *row_seq,
                              int *row_len, float *qkv, const int *cu, int n, int max_blocks,
                              int H, int E, const float *cos, const float *sin) {
    after_the_kernel_before();
    int p = blockIdx.x, s = 0, half = E / 2;
    while (s < n && p >= cu[s + 1]) s++;
    int at = s < n ? p - cu[s] : 0, block = s < n ? cu[s] / KEYS + s + at / KEYS : 0;
    if (threadIdx.x == 0 && s < n) {
        row_seq[p] = s;
        row_len[p] = cu[s + 1] - cu[s];
        if (at % KEYS == 0) table[(size_t)s * max_blocks + at / KEYS] = block;
    }
#pragma unroll 2
    for (int i = threadIdx.x; i < H * half; i += 256) {
        int h = i / half, e = i % half;
        float *q = qkv + (size_t)p * 3 * H * E + (size_t)h * E + e, *k = q + (size_t)H * E, *v = k + (size_t)H * E;
        float2 x = make_float2(k[0], k[half]), y = make_float2(v[0], v[half]);
        if (cos) {
            float c = cos[(size_t)p * half + e], w = sin[(size_t)p * half + e];
            float2 u = turned(q[0], q[half], c, w);
            x = turned(x.x, x.y, c, w);
            q[0] = u.x, q[half] = u.y;
            k[0] = x.x, k[half] = x.y;
        }
        if (s == n) continue;
        size_t to = (((size_t)block * H + h) * KEYS + at % KEYS) * E + e;
        k_pool[to] = to_bf16(x.x), k_pool[to + half] = to_bf16(x.y);
        v_pool[to] = to_bf16(y.x), v_pool[to + half] = to_bf16(y.y);
    }
}
