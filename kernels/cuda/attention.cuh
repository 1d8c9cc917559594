/* attention.cuh: softmax(q k^T * scale) v over KV blocks of 64 keys, in bf16 with f32 sums.
 *
 *   vl_attend_64/80/128  flash attention on mma.sync for head widths up to that, E % 8 == 0
 *   vl_attend_combine    joins the splits of a decode step
 *   vl_attend_plain      any head width, any GPU
 *   vl_segment_blocks    turns a picture's keys and values into KV blocks, so that full attention
 *                        is the same kernel: each row sees all keys of its segment
 *
 * The order of a row's sum never depends on its neighbours: splits of SPLIT_BLOCKS blocks, each with
 * an online softmax of its own, joined in order; whether one thread block walks all splits (prefill)
 * or each has its own and vl_attend_combine joins them (decode) gives the same bits.
 *
 * Mirrors HF Qwen3VLVisionAttention and Qwen3VLTextAttention (query head h reads key head
 * h / (H / G)). Easy to get wrong: one tile may hold rows of several sequences; a row may see none
 * of a block's keys, and must then stay as it is to the bit. */
#include "device.cuh"

struct attend_args {
    float *out;                   /* [T, H*E]                                                  */
    const float *q;               /* [T, ...] with leading dimension ldq                       */
    const bf16_bits *k_pool, *v_pool;
    const int *table, *row_seq, *row_len;
    float *part;                  /* [T, H, splits, E + 2] or unused                           */
    int ldq, max_blocks, T, H, G, E;
    int tokens;                   /* rows of a tile                                            */
    int splits;                   /* 0: a block walks all keys of its rows                     */
    float scale;
};

enum { TILE_ROWS = 64 };          /* (token, head) pairs of a tile: 16 for each of 4 warps     */

/* (M, L) and the factors of both sides after (m, l) joined; false: nothing to join. */
DEVICE bool join(float *M, float *L, float m, float l, float *old_by, float *new_by) {
    if (m == -CUDART_INF_F) return false;
    float top = fmaxf(*M, m);
    *old_by = exp2_fast(*M - top);
    *new_by = exp2_fast(m - top);
    *M = top;
    *L = __fadd_rn(__fmul_rn(*L, *old_by), __fmul_rn(l, *new_by));
    return true;
}
DEVICE float joined(float old, float old_by, float add, float new_by) {
    return __fadd_rn(__fmul_rn(old, old_by), __fmul_rn(add, new_by));
}

#if __CUDA_ARCH__ >= 800
/* One tile of up to 64 (token, head) rows of one sequence and one key head. EP: E rounded up to
 * what the mma tiles hold; the lanes' columns beyond E are zeros. */
template <int EP> struct attend_tile {
    static constexpr int PITCH = EP + 8;      /* 16 bytes more: ldmatrix without bank conflicts */
    const attend_args &a;
    bf16_bits *sk, *sv;                       /* [KEYS][PITCH]                                 */
    int kv, seq, longest;                     /* key head, sequence, keys of the longest row   */
    uint32_t q[EP / 16][4];
    int len[2];                               /* keys of this lane's two rows                  */
    float m[2], l[2], o[EP / 8][4];           /* the split being walked                        */
    float M[2], L[2], O[EP / 8][4];           /* the splits before it                          */

    __device__ attend_tile(const attend_args &args, bf16_bits *k, bf16_bits *v, int head)
        : a(args), sk(k), sv(v), kv(head) {}

    /* KV block j -> shared memory; keys after the longest row are zeros. */
    __device__ void load(bf16_bits *to, const bf16_bits *pool, int j) {
        int block = a.table[(size_t)seq * a.max_blocks + j], chunks = a.E / 8;
        const bf16_bits *from = pool + ((size_t)block * a.G + kv) * KEYS * a.E;
#pragma unroll 4
        for (int i = threadIdx.x; i < KEYS * (EP / 8); i += 128) {
            int key = i / (EP / 8), c = i % (EP / 8);
            bool ok = c < chunks && j * KEYS + key < longest;
            copy16(to + key * PITCH + c * 8, ok ? from + (size_t)key * a.E + c * 8 : pool, ok);
        }
    }

    __device__ void take_query(const float *row, int r) { /* r: 0 or 1, the lane's row */
        int pair = threadIdx.x % 4 * 2;
#pragma unroll
        for (int i = 0; i < EP / 16; i++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                int e = i * 16 + h * 8 + pair;
                float2 v = row && e < a.E ? *(const float2 *)(row + e) : make_float2(0, 0);
                q[i][h * 2 + r] = pair_bf16(v.x, v.y);
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
                mma(s[n * 2], q[i], b);
                mma(s[n * 2 + 1], q[i], b + 2);
            }
    }

    /* Scores of block j become probabilities; the split's state is rescaled. */
    __device__ void softmax(float (*s)[4], int j) {
        const float by = a.scale * 1.4426950408889634f;
        int first = j * KEYS + threadIdx.x % 4 * 2;
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float top = m[r], sum = 0;
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    float *x = &s[n][r * 2 + e];
                    *x = first + n * 8 + e < len[r] ? *x * by : -CUDART_INF_F;
                    top = fmaxf(top, *x);
                }
            top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
            top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
            float base = top == -CUDART_INF_F ? 0.0f : top, fix = exp2_fast(m[r] - base);
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    float *x = &s[n][r * 2 + e];
                    *x = exp2_fast(*x - base);
                    sum += *x;
                }
            sum += __shfl_xor_sync(~0u, sum, 1);
            sum += __shfl_xor_sync(~0u, sum, 2);
            l[r] = __fadd_rn(__fmul_rn(l[r], fix), sum);
            m[r] = top;
#pragma unroll
            for (int n = 0; n < EP / 8; n++) o[n][r * 2] *= fix, o[n][r * 2 + 1] *= fix;
        }
    }

    __device__ void values(float (*s)[4]) {
        int lane = threadIdx.x % 32;
#pragma unroll
        for (int i = 0; i < KEYS / 16; i++) {
            uint32_t p[4] = {pair_bf16(s[2 * i][0], s[2 * i][1]), pair_bf16(s[2 * i][2], s[2 * i][3]),
                             pair_bf16(s[2 * i + 1][0], s[2 * i + 1][1]),
                             pair_bf16(s[2 * i + 1][2], s[2 * i + 1][3])};
#pragma unroll
            for (int n = 0; n < EP / 16; n++) {
                uint32_t b[4];
                ldmatrix_trans(b, sv + (i * 16 + lane % 16) * PITCH + n * 16 + lane / 16 * 8);
                mma(o[n * 2], p, b);
                mma(o[n * 2 + 1], p, b + 2);
            }
        }
    }

    __device__ void begin_split() {
        for (int r = 0; r < 2; r++) m[r] = -CUDART_INF_F, l[r] = 0;
#pragma unroll
        for (int n = 0; n < EP / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) o[n][e] = 0;
    }

    __device__ void end_split() {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float old_by, new_by;
            if (!join(&M[r], &L[r], m[r], l[r], &old_by, &new_by)) continue;
#pragma unroll
            for (int n = 0; n < EP / 8; n++)
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    float *x = &O[n][r * 2 + e];
                    *x = joined(*x, old_by, o[n][r * 2 + e], new_by);
                }
        }
    }

    /* KV blocks [begin, end). K of the next block is on its way while the values are multiplied, V
     * while the scores are. `whole`: join the splits here. */
    __device__ void walk(int begin, int end, bool whole) {
        load(sk, a.k_pool, begin);
        copies_commit();
        load(sv, a.v_pool, begin);
        copies_commit();
        begin_split();
        for (int j = begin; j < end; j++) {
            float s[KEYS / 8][4] = {};
            copies_wait<1>();
            __syncthreads();
            scores(s);
            __syncthreads();
            if (j + 1 < end) load(sk, a.k_pool, j + 1);
            copies_commit();
            softmax(s, j);
            copies_wait<1>();
            __syncthreads();
            values(s);
            __syncthreads();
            if (j + 1 < end) load(sv, a.v_pool, j + 1);
            copies_commit();
            if (!whole || ((j + 1) % SPLIT_BLOCKS && j + 1 < end)) continue;
            end_split();
            begin_split();
        }
        copies_wait<0>();
    }

    __device__ void store(float *to, const float (*from)[4], int r, float by) {
#pragma unroll
        for (int n = 0; n < EP / 8; n++) {
            int e = n * 8 + threadIdx.x % 4 * 2;
            if (e < a.E)
                *(float2 *)(to + e) = make_float2(from[n][r * 2] / by, from[n][r * 2 + 1] / by);
        }
    }

    /* The tokens [t0, t1) of one sequence. */
    __device__ void run(int t0, int t1) {
        int heads = a.H / a.G, rows = (t1 - t0) * heads, token[2], head[2];
        seq = a.row_seq[t0];
        longest = 0;
        for (int t = t0; t < t1; t++) longest = max(longest, a.row_len[t]);
        int end = (longest + KEYS - 1) / KEYS, begin = 0;
        if (a.splits) begin = blockIdx.z * SPLIT_BLOCKS, end = min(end, begin + SPLIT_BLOCKS);
        if (begin >= end) return;
#pragma unroll
        for (int r = 0; r < 2; r++) {
            int i = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4 + r * 8;
            bool ok = i < rows;
            token[r] = ok ? t0 + i / heads : -1;
            head[r] = kv * heads + i % heads;
            len[r] = ok ? a.row_len[token[r]] : 0;
            take_query(ok ? a.q + (size_t)token[r] * a.ldq + (size_t)head[r] * a.E : NULL, r);
            M[r] = -CUDART_INF_F;
            L[r] = 0;
#pragma unroll
            for (int n = 0; n < EP / 8; n++) O[n][r * 2] = O[n][r * 2 + 1] = 0;
        }
        walk(begin, end, !a.splits);
#pragma unroll
        for (int r = 0; r < 2; r++) {
            if (token[r] < 0) continue;
            size_t row = (size_t)token[r] * a.H + head[r];
            if (!a.splits) {
                store(a.out + row * a.E, O, r, L[r]);
                continue;
            }
            float *to = a.part + (row * a.splits + blockIdx.z) * (a.E + 2);
            store(to, o, r, 1.0f);
            if (threadIdx.x % 4 == 0) to[a.E] = m[r], to[a.E + 1] = l[r];
        }
    }
};

template <int EP> DEVICE void attend(const attend_args &a) {
    __shared__ __align__(16) bf16_bits sk[KEYS * (EP + 8)], sv[KEYS * (EP + 8)];
    attend_tile<EP> tile(a, sk, sv, blockIdx.y);
    int end = min((int)(blockIdx.x + 1) * a.tokens, a.T);
    for (int t0 = blockIdx.x * a.tokens; t0 < end;) {
        int t1 = t0 + 1;
        while (t1 < end && a.row_seq[t1] == a.row_seq[t0]) t1++;
        __syncthreads();
        tile.run(t0, t1);
        t0 = t1;
    }
}
#else
template <int EP> DEVICE void attend(const attend_args &) {} /* vl_attend_plain serves sm_75 */
#endif

/* Grid (tiles of tokens, G, splits or 1). */
KERNEL(128) vl_attend_64(attend_args a) { attend<64>(a); }
KERNEL(128) vl_attend_80(attend_args a) { attend<80>(a); }
KERNEL(128) vl_attend_128(attend_args a) { attend<128>(a); }

/* Grid (T, H). */
KERNEL(128) vl_attend_combine(attend_args a) {
    size_t row = (size_t)blockIdx.x * a.H + blockIdx.y;
    const int size = SPLIT_BLOCKS * KEYS;
    int n = (a.row_len[blockIdx.x] + size - 1) / size;
    for (int e = threadIdx.x; e < a.E; e += 128) {
        float M = -CUDART_INF_F, L = 0, O = 0, old_by, new_by;
        for (int i = 0; i < n; i++) {
            const float *p = a.part + (row * a.splits + i) * (a.E + 2);
            if (join(&M, &L, p[a.E], p[a.E + 1], &old_by, &new_by)) O = joined(O, old_by, p[e], new_by);
        }
        a.out[row * a.E + e] = O / L;
    }
}

/* One row and head for each block; four warps take every fourth key. Grid (T, H). E <= 256. */
KERNEL(128) vl_attend_plain(attend_args a) {
    __shared__ float part[4][256 + 2];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, head = blockIdx.y, t = blockIdx.x;
    int len = a.row_len[t], kv = head / (a.H / a.G);
    const int *table = a.table + (size_t)a.row_seq[t] * a.max_blocks;
    const float *q = a.q + (size_t)t * a.ldq + (size_t)head * a.E;
    float m = -CUDART_INF_F, l = 0, o[8] = {};
    for (int key = warp; key < len; key += 4) {
        size_t at = (((size_t)table[key / KEYS] * a.G + kv) * KEYS + key % KEYS) * a.E;
        float dot = 0;
        for (int e = lane; e < a.E; e += 32) dot = fmaf(q[e], from_bf16(a.k_pool[at + e]), dot);
        dot = warp_sum(dot) * a.scale * 1.4426950408889634f;
        float top = fmaxf(m, dot), fix = exp2_fast(m - top), p = exp2_fast(dot - top);
        m = top;
        l = fmaf(l, fix, p);
#pragma unroll
        for (int i = 0; i < 8; i++)
            if (lane + i * 32 < a.E)
                o[i] = fmaf(o[i], fix, p * from_bf16(a.v_pool[at + lane + i * 32]));
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
 * cu[s] / 64 + s + (p - cu[s]) / 64, and row_seq, row_len, table [n, max_blocks] say so. Grid P. */
KERNEL(256) vl_segment_blocks(bf16_bits *k_pool, bf16_bits *v_pool, int *table, int *row_seq,
                              int *row_len, const float *qkv, const int *cu, int n, int max_blocks,
                              int H, int E) {
    int p = blockIdx.x, s = 0;
    while (s < n && p >= cu[s + 1]) s++;
    if (s == n) return;
    int at = p - cu[s], block = cu[s] / KEYS + s + at / KEYS;
    if (threadIdx.x == 0) {
        row_seq[p] = s;
        row_len[p] = cu[s + 1] - cu[s];
        if (at % KEYS == 0) table[(size_t)s * max_blocks + at / KEYS] = block;
    }
    const float *k = qkv + (size_t)p * 3 * H * E + (size_t)H * E;
    for (int i = threadIdx.x; i < H * E; i += 256) {
        size_t to = (((size_t)block * H + i / E) * KEYS + at % KEYS) * E + i % E;
        k_pool[to] = to_bf16(k[i]);
        v_pool[to] = to_bf16(k[(size_t)H * E + i]);
    }
}
