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
} cpu_narrow;

/* Of a head, after its panels: [panels * 32][2], rounded up, per row |w - coded| and |coded|, which bound an
 * output's error. */
static inline float *cpu_narrow_norms(const cpu_narrow *p) {
    return (float *)(void *)((uint8_t *)p->w.panels + p->w.bytes - p->w.tail_bytes);
}

/* Computes again, from the checkpoint's rows, each output of a row that could be the row's largest. x
 * [T, K] (ldx); tiles: x as packed. scratch: cpu_narrow_rescore_bytes(b, w). */
void cpu_narrow_rescore(cpu_backend *b, const vl_matrix *w, float *out, int ldo, const float *x,
                        int ldx, int T, const uint32_t *tiles, void *scratch);
size_t cpu_narrow_rescore_bytes(const cpu_backend *b, const vl_matrix *w);

#endif
