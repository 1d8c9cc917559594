/* group_run.c: collectives of several GPUs, among the launches that each rank keeps (program.c).
 *
 * Every rank has the same collectives in the same order, and what one rank flushes, all flush. Nothing
 * here waits, so the GPUs work side by side.
 *
 * A GPU that fails leaves the others in a collective which never ends: so nothing waits for one stream
 * alone. Whoever waits looks at the streams of all ranks, and when one has failed the communicators are
 * aborted, which ends what the others do, and all ranks have the fault.
 *
 * Easy to get wrong: a collective that only some ranks start never ends. So none is started once any
 * rank has a fault, and room for one is made on all ranks before the first gets it. */
#include <sched.h>
#include <time.h>

#include "kernels/cuda/group.h"

/* True: no rank has a fault. Else all have it. */
static bool all_well(cuda_group *g) {
    const vl_err *first = NULL;
    EACH_RANK(g, r) if (!first && g->rank[r]->fault.code) first = &g->rank[r]->fault;
    EACH_RANK(g, r) if (first && !g->rank[r]->fault.code) g->rank[r]->fault = *first;
    return !first;
}

void cuda_group_gather(cuda_group *g, const cuda_gather *part) {
    bool full = false;
    EACH_RANK(g, r) {
        cuda_drain(g->rank[r]);
        g->rank[r]->packed_x = NULL;
        full |= cuda_full(g->rank[r]);
    }
    if (full) cuda_group_flush(g);
    if (!all_well(g)) return;
    EACH_RANK(g, r) cuda_launch(g->rank[r], CUDA_GATHER, 1, 1, 1, 1, CUDA_ARGS(CUDA_ARG(part[r])));
}

bool cuda_group_collective(cuda_group *g, const size_t *at) {
    cuda_gather part[CUDA_RANKS];
    CUstream stream[CUDA_RANKS];
    if (!all_well(g)) return false;
    EACH_RANK(g, r) {
        const cuda_program *p = &g->rank[r]->program;
        memcpy(&part[r], p->values + p->call[at[r]].at, sizeof part[r]);
        stream[r] = g->rank[r]->stream;
    }
    return cuda_nccl_gather(&g->nccl, part, stream, &g->rank[0]->fault) == 0;
}

void cuda_group_flush(cuda_group *g) {
    all_well(g);
    cuda_flush_all(g->rank, g->n);
    all_well(g);
}

/* Has rank b's stream come to its end? Failures of any rank become faults. */
static bool look(cuda_group *g, const cuda_backend *b) {
    bool done = false;
    EACH_RANK(g, r) {
        cuda_backend *k = g->rank[r];
        if (k->fault.code || !cuda_ok(k, k->d.CtxSetCurrent(k->context), "making the GPU context current")) continue;
        CUresult e = k->d.StreamQuery(k->stream);
        if (e == CU_OK) done |= k == b;
        else if (e != CU_NOT_READY) cuda_ok(k, e, "waiting for the GPU");
    }
    cuda_nccl_check(&g->nccl, g->rank[0]->fault.code ? NULL : &g->rank[0]->fault);
    return done;
}

bool cuda_group_wait(cuda_group *g, cuda_backend *b) {
    enum { SPINS = 20000 };
    const struct timespec pause = {0, 50000};
    for (long n = 0; all_well(g); n++) {
        if (look(g, b) && all_well(g)) return cuda_ok(b, b->d.CtxSetCurrent(b->context), "making the GPU context current");
        if (n < SPINS) sched_yield();
        else nanosleep(&pause, NULL);
    }
    EACH_RANK(g, r) cuda_drop_graphs(g->rank[r]); /* NCCL waits for those with collectives */
    cuda_nccl_abort(&g->nccl);
    return false;
}
