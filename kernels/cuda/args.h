/* args.h: the argument blocks of the fused kernels, as host (C) and device (CUDA) both see them.
 * Shapes and contracts are those of kernels/ops.h; pointers are device memory. */
#ifndef VL_CUDA_ARGS_H
#define VL_CUDA_ARGS_H

#include <stdint.h>

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
} norm_linear_args;

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
