/* blas.c: cuBLAS in the place of vl_many_*, found at run time, when VL_KERNEL=gemm=cublas asks.
 *
 * It promises less than our kernels: the bits of a row depend on how many rows share its pass, and may
 * change with the version of the library. So it is never taken unasked, and only for passes of many
 * rows. Easy to get wrong: cublasSetStream forgets the workspace, so the workspace comes second; and
 * without one of its own cuBLAS would allocate while a graph is captured. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernels/cuda/backend.h"
#include "kernels/kernels_info.h"

enum { TRANSPOSED = 1, PLAIN = 0, R_32F = 0, R_16BF = 14, COMPUTE_32F = 68, ANY_ALGORITHM = -1,
       NO_REDUCED_PRECISION_REDUCTION = 16, WORKSPACE = 32 << 20 };

/* 1: cuBLAS, 0: our kernels, -1: neither. */
static int wanted(vl_err *err) {
    static const char *const NAMES[] = {"own", "cublas"};
    size_t len;
    const char *name = vl_kernel_forced("gemm", &len);
    if (!name) return 0;
    for (int i = 0; i < 2; i++)
        if (strlen(NAMES[i]) == len && !strncmp(NAMES[i], name, len)) return i;
    return vl_fail(err, VL_E_USAGE, "VL_KERNEL: gemm=%.*s: the GPU has gemm=own and gemm=cublas",
                   (int)len, name);
}

static int open_library(cuda_blas *l, vl_err *err) {
    const char *given = getenv("VL_CUBLAS");
    const char *paths[] = {given && *given ? given : "libcublas.so.13", "libcublas.so.12"};
    char why[160] = "";
    for (int i = 0; i < (given && *given ? 1 : 2) && !l->library; i++) {
        l->library = dlopen(paths[i], RTLD_NOW | RTLD_LOCAL);
        if (!l->library) snprintf(why, sizeof why, "%.150s", dlerror());
    }
    if (!l->library)
        return vl_fail(err, VL_E_BACKEND, "gemm=cublas: no cuBLAS: %s; install cuBLAS 12 or 13, name its "
                       "file in VL_CUBLAS, or leave gemm=cublas out of VL_KERNEL", why);
    struct { const char *symbol; void *to; } symbols[] = {
        {"cublasCreate_v2", &l->Create}, {"cublasDestroy_v2", &l->Destroy},
        {"cublasSetStream_v2", &l->SetStream}, {"cublasSetWorkspace_v2", &l->SetWorkspace},
        {"cublasSetMathMode", &l->SetMathMode}, {"cublasGetVersion_v2", &l->GetVersion},
        {"cublasGemmEx", &l->GemmEx}};
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
        void *p = dlsym(l->library, symbols[i].symbol);
        memcpy(symbols[i].to, &p, sizeof p);
        if (!p)
            return vl_fail(err, VL_E_BACKEND, "gemm=cublas: %s has no %s: cuBLAS 12 or 13 is needed",
                           given && *given ? given : "libcublas", symbols[i].symbol);
    }
    return 0;
}

int cuda_blas_open(cuda_backend *b, vl_err *err) {
    cuda_blas *l = &b->blas;
    int want = wanted(err), e;
    if (want <= 0) return want;
    if (b->arch < CUDA_BF16_UNITS)
        return vl_fail(err, VL_E_BACKEND, "gemm=cublas: %s has no bf16 units; leave gemm=cublas out of "
                       "VL_KERNEL", b->name);
    if (open_library(l, err)) return -1;
    void *workspace = cuda_memory(b, WORKSPACE, err);
    if (!workspace) return -1;
    l->workspace = (uintptr_t)workspace;
    if ((e = l->Create(&l->handle)) || (e = l->SetStream(l->handle, b->stream)) ||
        (e = l->SetWorkspace(l->handle, workspace, WORKSPACE)) ||
        (e = l->SetMathMode(l->handle, NO_REDUCED_PRECISION_REDUCTION)))
        return vl_fail(err, VL_E_BACKEND, "gemm=cublas: cuBLAS does not start (status %d); is it made for "
                       "this driver?", e);
    return 0;
}

void cuda_blas_close(cuda_backend *b) {
    cuda_blas *l = &b->blas;
    if (l->handle) l->Destroy(l->handle);
    if (l->workspace) b->d.MemFree(l->workspace);
    if (l->library) dlclose(l->library);
    *l = (cuda_blas){0};
}

/* cuBLAS counts in columns: out^T [N, T] = W x^T, where W [N, K] by rows is W^T by columns. */
bool cuda_blas_run(cuda_backend *b, const cuda_gemm *g) {
    const float one = 1;
    if (b->fault.code) return false;
    int e = b->blas.GemmEx(b->blas.handle, TRANSPOSED, PLAIN, g->N, g->T, g->K, &one, g->w, R_16BF, g->K,
                           g->x, R_16BF, g->K, &g->beta, g->out, R_32F, g->ldo, COMPUTE_32F,
                           ANY_ALGORITHM);
    if (e) vl_fail(&b->fault, VL_E_BACKEND, "cublasGemmEx of %d x %d x %d: status %d", g->T, g->N, g->K, e);
    return !e;
}
