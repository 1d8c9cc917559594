/* args.h: the argument blocks of the fused kernels, as host (C) and device (CUDA) both see them.
 * Shapes and contracts are those of kernels/ops.h; pointers are device memory. */
#ifndef VL_CUDA_ARGS_H
#define VL_CUDA_ARGS_H

#include <stdint.h>

/* The sum of device.cuh: k tiles of a chunk and of a group. */
enum { CHUNK_TILES = 16, GROUP_TILES = 8 * CHUNK_TILES };

/* attend_causal, and attend_full after vl_segment_blocks. */
typedef struct attend_args {
    float *out;                   /* [T, H*E]                                                  */
    const float *q;               /* [T, ...] with leading dimension ldq                       */
    const void *k_pool, *v_pool;  /* bf16                                                      */
    const int32_t *table, *row_seq, *row_len;
    float *part;                  /* [T, H, blocks, E + 2], or unused                          */
    uint32_t *arrived;            /* [T, G] zeros                                              */
    int32_t ldq, max_blocks, T, H, G, E;
    int32_t tokens;               /* rows of a tile                                            */
    int32_t blocks;               /* KV blocks that `part` holds; 0: no row's keys are split   */
    float scale;
    void *packed;                 /* out once more, as a product's input; or NULL              */
    const void *ahead;            /* what blocks after those of the T tokens bring into the L2 */
    int64_t ahead_bytes;
} attend_args;

/* A weight matrix in fragment order. */
typedef struct weight_arg {
    const void *tiles;
    const float *bias;            /* [rows] or NULL                                            */
    int32_t rows;
} weight_arg;

/* h = rmsnorm(x); out[i] = h W[i]^T + bias[i], and what the kernel does with them. */
typedef struct norm_linear_args {
    const float *x;               /* [T, K]                                                    */
    const float *norm;            /* [K]                                                       */
    float *h;                     /* [T, K]                                                    */
    float *out[3];                /* [T, rows], leading dimension ldo                          */
    int32_t ldo[3];
    weight_arg w[3];
    int32_t T, K;
    float eps;
    int32_t *ids;                 /* vl_norm_linear: arg-max of the rows of out[0]; or NULL    */
    uint64_t *best;               /* [T] zeros                                                 */
    uint32_t *arrived;            /* [ceil(T / 8)] zeros                                       */
} norm_linear_args;

/* vl_put: words [at, at + words) of `from` -> to, for each part. No holes: programs compare its bytes. */
enum { PUT_PARTS = 12 };
typedef struct put_part {
    void *to;
    int32_t at, words;
} put_part;
typedef struct put_args {
    const void *from;
    int64_t n;
    put_part part[PUT_PARTS];
} put_args;

/* many.cuh: a warp has the sums of 2 tiles of 16 outputs x 7 tiles of 8 rows; a block O outputs x 112 rows. The host
 * takes the O that fills the GPU best (ops_cuda.c); the bits are the same with each. */
enum { MANY_W = 2, MANY_X = 7, MANY_ROWS = 2 * MANY_X * 8, MANY_STAGES_75 = 2 };
#define MANY_SHAPES(X) X(192) X(128) X(96) X(64)
#define MANY_GATED 192                     /* of vl_gate_up_many: half of them gate's, half up's */
#define MANY_THREADS(O) (2 * (O))
#define MANY_STAGE_BYTES(O) ((O) * 64 + MANY_ROWS * 64) /* of shared memory, at the launch: 32 inputs of each */
#define MANY_STAGES(O) (97280 / MANY_STAGE_BYTES(O))    /* as much as every GPU from sm_80 on has    */
typedef struct many_args {
    const void *x;                /* [T, K] in fragment order                                  */
    const float *back;            /* sm_75: scales of the inputs [chunks, T]                   */
    weight_arg w[3];
    float *out[3];                /* [T, rows], leading dimension ldo                          */
    float *part;                  /* [tiles][groups][O * 112], where K has several groups      */
    uint32_t *arrived;            /* [tiles] zeros                                             */
    void *packed;                 /* out[0] once more, as the next product's input; or NULL    */
    int32_t ldo[3];
    int32_t mats, T, K, epi;
    int32_t first;                /* tile of rows at which the grid begins                     */
} many_args;

/* vl_qkv: out = q, k, v; then qk_norm_rope. */
typedef struct qkv_args {
    norm_linear_args in;
    const float *q_norm, *k_norm; /* [E] or NULL                                               */
    const float *cos, *sin;       /* [T, E/2]                                                  */
    void *k_pool, *v_pool;        /* bf16                                                      */
    const int32_t *kv_slot;       /* [T]                                                       */
    uint32_t *arrived;            /* [ceil(T / 8), H + G] zeros                                */
    int32_t H, G, E;
    float eps;
} qkv_args;

#endif
