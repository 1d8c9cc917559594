/* exec_block.h: what the warp loop and the block scheduler call in each other. */
#ifndef EXEC_BLOCK_H
#define EXEC_BLOCK_H
#include "gpusim.h"

int exec_warp(Warp *w, uint64_t turn);
/* The warp reached a barrier: NEXT (bar.arrive), BLOCKED, or FATAL. */
int exec_barrier_arrive(Warp *w, const Op *op);
void exec_barrier_result(Warp *w, const Op *op, uint32_t mask);
/* Lanes of the mask that read a register nothing wrote; remembers those they write. */
void exec_check_undef(Warp *w, const Op *op, uint32_t mask);
/* An atomic at a global address: publishes the block's fenced writes, and takes over those of the
 * blocks that were there before. */
void exec_atomic_order(Warp *w, uint64_t addr);
/* Position of a shared address in Cta.shared, or -1 when [addr, addr + bytes) is outside. */
int64_t exec_shared_index(const Cta *c, uint64_t addr, uint32_t bytes);
/* Copies what has landed of the cp.async groups older than the last `keep`. */
void exec_async_land(Warp *w, uint32_t keep);
#endif
