/* group.h: several GPUs behind one op table (tensor parallelism).
 *
 *   group.c       the op table: one op -> one op of each rank, with the columns that lie apart
 *   group_run.c   collectives, among the launches of all ranks
 *   nccl.c        ncclAllGather               group.cuh   columns into and out of what it moves
 *
 * A rank is a CUDA backend of its own on one GPU. One thread drives all of them. */
#ifndef VL_CUDA_GROUP_H
#define VL_CUDA_GROUP_H

#include "kernels/cuda/backend.h"
#include "kernels/cuda/nccl.h"

/* One alloc(): the caller sees rank 0's address. */
typedef struct group_memory {
    size_t bytes;
    uint8_t *at[CUDA_RANKS];
} group_memory;

/* A prepared matrix: whole on every rank, or rows [first, first + part.rows) on each, or both. */
typedef struct group_weight {
    struct group_weight *next;
    enum { GROUP_WHOLE, GROUP_APART, GROUP_JOIN, GROUP_HEAD } kind;
    int share;                 /* outputs of a rank, at most                               */
    int first[CUDA_RANKS];
    vl_matrix whole[CUDA_RANKS], part[CUDA_RANKS];
    cuda_weight view[CUDA_RANKS]; /* of part, where it is a piece of whole               */
} group_weight;

typedef struct cuda_group {
    vl_backend base;
    vl_ops ops;                /* base.ops points here: the table with its own name       */
    char name[16];             /* "cuda:2": reports say what they were made on            */
    pthread_mutex_t lock;      /* held for a whole op: all ranks see the same order of ops */
    int n;
    cuda_backend *rank[CUDA_RANKS];
    cuda_nccl nccl;
    group_memory *memory;      /* by address of rank 0                                     */
    size_t n_memory, cap_memory;
    group_weight *weights;
    cuda_buffer part[CUDA_RANKS]; /* [ranks][T][share]: what a collective moves            */
    cuda_buffer full[CUDA_RANKS]; /* [T, K]: the joined input of a product                 */
} cuda_group;

#define EACH_RANK(g, r) for (int r = 0; r < (g)->n; r++)

/* n >= 2 GPUs, the first n that the driver shows. */
int cuda_group_open(vl_backend **out, int n, vl_err *err);

/* group_run.c. A collective behind what every rank was given so far; part[r] is rank r's. */
void cuda_group_gather(cuda_group *g, const cuda_gather *part);

#endif
