/* exec.h: the instruction handlers that are not lane-wise arithmetic, for ptx_inst.c. */
#ifndef EXEC_H
#define EXEC_H
#include "gpusim.h"

/* exec_warp.c: control flow and warp-wide operations. */
int exec_bra(Warp *w, const Op *op, uint32_t mask);
int exec_brx(Warp *w, const Op *op, uint32_t mask);
int exec_exit(Warp *w, const Op *op, uint32_t mask);
int exec_trap(Warp *w, const Op *op, uint32_t mask);
int exec_nop(Warp *w, const Op *op, uint32_t mask);
int exec_clock(Warp *w, const Op *op, uint32_t mask);
int exec_pdl_wait(Warp *w, const Op *op, uint32_t mask);
int exec_shfl(Warp *w, const Op *op, uint32_t mask);
int exec_vote(Warp *w, const Op *op, uint32_t mask);
int exec_match(Warp *w, const Op *op, uint32_t mask);
int exec_redux(Warp *w, const Op *op, uint32_t mask);
int exec_activemask(Warp *w, const Op *op, uint32_t mask);
int exec_elect(Warp *w, const Op *op, uint32_t mask);
int exec_warp_sync(Warp *w, const Op *op, uint32_t mask);
int exec_barrier(Warp *w, const Op *op, uint32_t mask);
int exec_fence(Warp *w, const Op *op, uint32_t mask);
int exec_call(Warp *w, const Op *op, uint32_t mask);
enum { SHFL_UP, SHFL_DOWN, SHFL_BFLY, SHFL_IDX };
enum { VOTE_ALL, VOTE_ANY, VOTE_UNI, VOTE_BALLOT };
enum { BAR_SYNC, BAR_ARRIVE, BAR_POPC, BAR_AND, BAR_OR };
enum { CALL_ASSERT, CALL_PRINTF };

/* For operations of all 32 lanes: NEXT when they are all here; otherwise what to return. */
int exec_whole_warp(Warp *w, const Op *op, uint32_t mask);

/* exec_mem.c: loads, stores, atomics. */
int exec_ld(Warp *w, const Op *op, uint32_t mask);
int exec_st(Warp *w, const Op *op, uint32_t mask);
int exec_atom(Warp *w, const Op *op, uint32_t mask);
int exec_prefetch(Warp *w, const Op *op, uint32_t mask);
/* The warp reads global memory: one of those that may wait for it. */
void exec_loads(Warp *w);
int exec_cvta(Warp *w, const Op *op, uint32_t mask);
int exec_isspace(Warp *w, const Op *op, uint32_t mask);
enum { LD_PLAIN, LD_NC };   /* Op.mode of a load: .nc data must not change during the kernel */
enum { AT_ADD, AT_MIN, AT_MAX, AT_INC, AT_DEC, AT_EXCH, AT_CAS, AT_AND, AT_OR, AT_XOR };
enum { TY_U, TY_S, TY_F, TY_B, TY_F16X2, TY_BF16X2, TY_F16, TY_BF16 };

/* exec_mma.c: cp.async, ldmatrix, stmatrix, mma. */
int exec_cp_async(Warp *w, const Op *op, uint32_t mask);
int exec_cp_commit(Warp *w, const Op *op, uint32_t mask);
int exec_cp_wait(Warp *w, const Op *op, uint32_t mask);
int exec_ldmatrix(Warp *w, const Op *op, uint32_t mask);
int exec_stmatrix(Warp *w, const Op *op, uint32_t mask);
int exec_mma(Warp *w, const Op *op, uint32_t mask);
enum { MMA_BF16_F32, MMA_F16_F32, MMA_F16_F16, MMA_TF32, MMA_S8, MMA_U8 };

/* Dynamic shared memory starts here: a static array that overflows does not reach it. */
#define DYN_SHARED 0x40000u
#endif
