/* ladder.h: how a kernel gets fast, one idea per rung. Nothing of the engine calls this folder: it
 * is here to be read, beside kernels/cpu/{linear.c,attention.c,simd.inc}, where the last rungs grew
 * into what runs. docs/chapters/07-ladder.md walks it; `make ladder` checks and times every rung.
 *
 *   linear     out [T, N] = x [T, K] W^T         x float32, W [N, K] bf16 as a checkpoint holds it
 *     naive      the formula                                                       scalar.c
 *     blocked    a block of W stays in the first-level cache                       scalar.c
 *     simd       8 or 16 products at a time                                        linear.inc
 *     tile       a block of sums stays in registers                                linear.inc
 *     packed     W and x in the order they are used                                linear.inc
 *     threaded   the columns shared out                                            linear.inc
 *   attention  out [P, H, E] = softmax(q k^T / sqrt(E)) v   qkv [P, 3, H, E], every row sees all
 *     naive      the formula, with a matrix [P, P]                                 scalar.c
 *     online     one pass over the keys, no matrix                                 scalar.c
 *     fused      tiles of 32 queries x 64 keys, products by the packed tile        attention.inc
 *     threaded   the tiles shared out                                              attention.inc
 *
 * Shapes are kept simple (asserted by the test): K and N are multiples of 64, T and P are free, a
 * head has 64 values.
 */
#ifndef VL_LADDER_H
#define VL_LADDER_H

#include "kernels/cpu/team.h"
#include "kernels/cpu/ukernels.h"

enum {
    LAD_NB = 64, LAD_KB = 256,     /* the block of W: 64 rows x 256 terms, 32 KB of bf16       */
    LAD_NR = 32,                   /* rows of W in a panel, queries in a panel                 */
    LAD_E = 64,                    /* values of a head                                         */
    LAD_KEYS = 64                  /* keys of a tile                                           */
};

typedef struct lad_linear {
    size_t T, N, K;
    float *out;                    /* [T, N]                                                   */
    const float *x;                /* [T, K]                                                   */
    const uint16_t *w;             /* [N, K] bf16                                              */
    const uint32_t *panels;        /* the same as panels [N / 32][K / 2][32] of bf16 pairs,
                                      ukernels.h draws one; packed once, when a model is loaded */
    float *tiles;                  /* room for packed x, [T, K]                                */
    cpu_team *team;
} lad_linear;

typedef struct lad_attention {
    size_t P, H;
    float *out;                    /* [P, H, E]                                                */
    const float *qkv;              /* [P, 3, H, E]                                             */
    float *scores;                 /* room for [P, P]; only the naive rung wants it            */
    cpu_team *team;
} lad_attention;

typedef void lad_linear_fn(const lad_linear *a);
typedef void lad_attention_fn(const lad_attention *a);

/* A line of rungs.def. One of the two functions is there. */
typedef struct lad_rung {
    const char *name;              /* the idea; the function is named linear_NAME_TIER         */
    vl_tier tier;
    bool threaded;                 /* uses a->team                                             */
    lad_linear_fn *linear;
    lad_attention_fn *attention;
} lad_rung;

#define LINEAR(name, tier, threaded) lad_linear_fn linear_##name##_##tier;
#define ATTENTION(name, tier, threaded) lad_attention_fn attention_##name##_##tier;
#include "kernels/cpu/ladder/rungs.def"
#undef LINEAR
#undef ATTENTION

#endif
