/* nccl.c: NCCL, found at run time, for one thread that drives several GPUs.
 *
 * Only ncclAllGather is used: it moves bytes and adds nothing, so the order in which NCCL would sum,
 * which changes with size, version and topology, has no say in any result. Easy to get wrong: calls of
 * one thread for several communicators must be in one group, or the first waits for the second. */
#include "kernels/cuda/nccl.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

enum { FLOAT32 = 7 };

static int open_library(cuda_nccl *l, vl_err *err) {
    const char *path = getenv("VL_NCCL");
    if (!path || !*path) path = "libnccl.so.2";
    l->library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!l->library)
        return vl_fail(err, VL_E_BACKEND, "several GPUs need NCCL: %.120s; install libnccl2 (NVIDIA's "
                       "package, or nvidia-nccl-cu12 from PyPI), name its file in VL_NCCL, or use one GPU",
                       dlerror());
    struct { const char *symbol; void *to; } symbols[] = {
        {"ncclCommInitAll", &l->CommInitAll}, {"ncclCommDestroy", &l->CommDestroy},
        {"ncclCommAbort", &l->CommAbort},     {"ncclCommGetAsyncError", &l->GetAsyncError},
        {"ncclGroupStart", &l->GroupStart},   {"ncclGroupEnd", &l->GroupEnd},
        {"ncclAllGather", &l->AllGather},     {"ncclGetErrorString", &l->GetErrorString}};
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
        void *p = dlsym(l->library, symbols[i].symbol);
        memcpy(symbols[i].to, &p, sizeof p);
        if (!p)
            return vl_fail(err, VL_E_BACKEND, "%.150s has no %s: NCCL 2 is needed", path, symbols[i].symbol);
    }
    return 0;
}

static int check(const cuda_nccl *l, int e, const char *what, vl_err *err) {
    return e ? vl_fail(err, VL_E_BACKEND, "%s: NCCL says %s (%d); NCCL_DEBUG=INFO makes it say more", what,
                       l->GetErrorString(e), e) : 0;
}

int cuda_nccl_open(cuda_nccl *l, int n, const int *devices, vl_err *err) {
    vl_assert(n >= 1 && n <= CUDA_RANKS, "%d ranks", n);
    if (open_library(l, err)) return -1;
    /* Connections are made now and not by the first collective of a kind, which may be one that is being
     * captured, and after the free memory was counted. */
    setenv("NCCL_RUNTIME_CONNECT", "0", 0);
    int rc = check(l, l->CommInitAll(l->comm, n, devices), "joining the GPUs", err);
    if (!rc) l->n = n;
    return rc;
}

int cuda_nccl_check(const cuda_nccl *l, vl_err *err) {
    enum { OK = 0, IN_PROGRESS = 7 };
    int e = OK;
    for (int r = 0; r < l->n && e == OK; r++)
        if (l->GetAsyncError(l->comm[r], &e) || e == IN_PROGRESS) e = OK;
    return check(l, e, "joining columns", err);
}

void cuda_nccl_abort(cuda_nccl *l) {
    for (int r = 0; r < l->n; r++) l->CommAbort(l->comm[r]);
    l->n = 0;
}

void cuda_nccl_close(cuda_nccl *l, bool abort) {
    if (abort) cuda_nccl_abort(l);
    for (int r = 0; r < l->n; r++) l->CommDestroy(l->comm[r]);
    if (l->library) dlclose(l->library);
    *l = (cuda_nccl){0};
}

int cuda_nccl_gather(cuda_nccl *l, const cuda_gather *part, const CUstream *stream, vl_err *err) {
    int e = l->GroupStart();
    for (int r = 0; r < l->n && !e; r++)
        e = l->AllGather(part[r].send, part[r].recv, part[r].count, FLOAT32, l->comm[r], stream[r]);
    int end = l->GroupEnd(); /* also after a failure: the group must not stay open */
    return check(l, e ? e : end, "joining columns", err);
}
