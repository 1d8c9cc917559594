/* race.h: the shadows. Every access of a kernel passes here when checks are on. */
#ifndef RACE_H
#define RACE_H
#include "mem.h"

enum { ACC_READ, ACC_WRITE, ACC_ATOMIC };

/* Bytes [off, off + bytes) of a by one lane. */
void race_global(Warp *w, const Op *op, int lane, Alloc *a, uint64_t off, uint32_t bytes, int kind);
/* Bytes of shared memory at index (exec_shared_index); also checks "written" and cp.async. */
void race_shared(Warp *w, const Op *op, int lane, uint32_t index, uint32_t bytes, int kind);
/* A cp.async to these bytes was issued / has landed. */
void race_pending(Warp *w, const Op *op, int lane, uint32_t index, uint32_t bytes);
void race_landed(Warp *w, uint32_t pc, int lane, uint32_t index, uint32_t bytes);
/* A copy or fill by the driver over device memory: ordered against launches. */
void race_host(uint32_t node, uint64_t addr, uint64_t bytes, bool write);
#endif
