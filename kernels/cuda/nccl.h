/* nccl.h: the few functions of NCCL that several GPUs need, found at run time (nccl.c). */
#ifndef VL_CUDA_NCCL_H
#define VL_CUDA_NCCL_H

#include "kernels/cuda/driver.h"

enum { CUDA_RANKS = 8 };

typedef struct cuda_nccl {
    void *library;
    void *comm[CUDA_RANKS];
    int n;
    int (*CommInitAll)(void **comms, int n, const int *devices);
    int (*CommDestroy)(void *comm);
    int (*CommAbort)(void *comm);
    int (*GroupStart)(void);
    int (*GroupEnd)(void);
    int (*AllGather)(const void *send, void *recv, size_t count, int type, void *comm, CUstream s);
    int (*GetAsyncError)(void *comm, int *e);
    const char *(*GetErrorString)(int e);
} cuda_nccl;

/* What one rank brings to a collective: `count` floats at send go to all ranks, count from every rank
 * come to recv, in the order of the ranks. In place: send = recv + rank * count. */
typedef struct cuda_gather {
    const float *send;
    float *recv;
    size_t count;
} cuda_gather;

/* Communicators for these n devices. VL_E_BACKEND says what is missing and how to get it. */
int cuda_nccl_open(cuda_nccl *l, int n, const int *devices, vl_err *err);
/* Has a communicator failed behind our back (the network, another rank)? */
int cuda_nccl_check(const cuda_nccl *l, vl_err *err);
/* Ends every collective that is under way; there will be no more. */
void cuda_nccl_abort(cuda_nccl *l);
/* abort: ends what is under way; after a fault that may be a collective which some ranks never start. */
void cuda_nccl_close(cuda_nccl *l, bool abort);
/* One collective: part[r] on stream[r] of rank r, all of them in one group. */
int cuda_nccl_gather(cuda_nccl *l, const cuda_gather *part, const CUstream *stream, vl_err *err);

#endif
