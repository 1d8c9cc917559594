/* narrow.h: what narrow.c and narrow_head.c share. */
#ifndef VL_CPU_NARROW_H
#define VL_CPU_NARROW_H

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/quant.h"

/* A matrix of integers: vl_matrix.impl where vl_matrix.narrow is set. */
typedef struct cpu_narrow {
    cpu_weight w;                  /* first: pack.c frees it                                  */
    int groups;                    /* of 32 along K                                           */
    bool int4, head;
    float norms[];                 /* [head ? panels * 32 : 0][2], rounded up, per row:       */
} cpu_narrow;                      /* |w - coded|, |coded|; they bound an output's error      */

/* Computes again, from the checkpoint's rows, each output of a row that could be the row's largest. x
 * [T, K] (ldx); tiles: x as packed. scratch: cpu_narrow_rescore_bytes(b, w). */
void cpu_narrow_rescore(cpu_backend *b, const vl_matrix *w, float *out, int ldo, const float *x,
                        int ldx, int T, const uint32_t *tiles, void *scratch);
size_t cpu_narrow_rescore_bytes(const cpu_backend *b, const vl_matrix *w);

#endif
