/* count.h: memory counters of one executed instruction. */
#ifndef COUNT_H
#define COUNT_H
#include "gpusim.h"

/* Global access: distinct 32-byte sectors, bytes asked for, and the L2 model. `weights`: of
 * memory for which mem_weights() holds. */
void count_global(OpCount *n, const uint64_t *addr, uint32_t mask, uint32_t bytes, bool write,
                  bool weights);
/* Shared access of `bytes` per lane: wavefronts, and the least possible number. */
void count_shared(OpCount *n, const uint64_t *addr, uint32_t mask, uint32_t bytes);
/* One 8x8 matrix of ldmatrix: 8 rows of 16 bytes. */
uint32_t count_rows(const uint64_t *addr, int n, uint32_t bytes);
#endif
