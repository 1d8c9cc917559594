/* harness.h: what the gpusim tests share: the driver by dlopen, device buffers, checks, the count.
 *
 * A test program gets the build directory as its argument (default build/gpusim). */
#ifndef HARNESS_H
#define HARNESS_H
#define GPUSIM_TYPES_ONLY
#include "gpusim/cuda_abi.h"
#include "gpusim/gpusim_api.h"
#include <dlfcn.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DRIVER(X) \
    X(int, cuInit, (unsigned)) X(int, cuDeviceGet, (CUdevice *, int)) \
    X(int, cuDeviceGetCount, (int *)) X(int, cuDeviceGetName, (char *, int, CUdevice)) \
    X(int, cuDeviceTotalMem_v2, (size_t *, CUdevice)) \
    X(int, cuDeviceGetAttribute, (int *, int, CUdevice)) \
    X(int, cuDriverGetVersion, (int *)) X(int, cuGetErrorName, (CUresult, const char **)) \
    X(int, cuDevicePrimaryCtxRetain, (CUcontext *, CUdevice)) X(int, cuCtxSetCurrent, (CUcontext)) \
    X(int, cuDevicePrimaryCtxRelease_v2, (CUdevice)) \
    X(int, cuModuleLoadDataEx, (CUmodule *, const void *, unsigned, int *, void **)) \
    X(int, cuModuleUnload, (CUmodule)) \
    X(int, cuModuleGetFunction, (CUfunction *, CUmodule, const char *)) \
    X(int, cuModuleGetGlobal_v2, (CUdeviceptr *, size_t *, CUmodule, const char *)) \
    X(int, cuFuncGetAttribute, (int *, int, CUfunction)) \
    X(int, cuFuncSetAttribute, (CUfunction, int, int)) \
    X(int, cuMemAlloc_v2, (CUdeviceptr *, size_t)) X(int, cuMemFree_v2, (CUdeviceptr)) \
    X(int, cuMemGetInfo_v2, (size_t *, size_t *)) X(int, cuMemHostAlloc, (void **, size_t, unsigned)) \
    X(int, cuMemFreeHost, (void *)) \
    X(int, cuMemcpyHtoDAsync_v2, (CUdeviceptr, const void *, size_t, CUstream)) \
    X(int, cuMemcpyDtoHAsync_v2, (void *, CUdeviceptr, size_t, CUstream)) \
    X(int, cuMemcpyDtoDAsync_v2, (CUdeviceptr, CUdeviceptr, size_t, CUstream)) \
    X(int, cuMemsetD8Async, (CUdeviceptr, unsigned char, size_t, CUstream)) \
    X(int, cuStreamCreate, (CUstream *, unsigned)) X(int, cuStreamDestroy_v2, (CUstream)) \
    X(int, cuStreamSynchronize, (CUstream)) X(int, cuStreamQuery, (CUstream)) \
    X(int, cuStreamWaitEvent, (CUstream, CUevent, unsigned)) X(int, cuEventCreate, (CUevent *, unsigned)) \
    X(int, cuEventDestroy_v2, (CUevent)) X(int, cuEventRecord, (CUevent, CUstream)) \
    X(int, cuEventSynchronize, (CUevent)) X(int, cuEventElapsedTime, (float *, CUevent, CUevent)) \
    X(int, cuLaunchKernel, (CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, \
                            unsigned, CUstream, void **, void **)) \
    X(int, cuLaunchKernelEx, (const CUlaunchConfig *, CUfunction, void **, void **)) \
    X(int, cuOccupancyMaxActiveBlocksPerMultiprocessor, (int *, CUfunction, int, size_t)) \
    X(int, cuStreamBeginCapture_v2, (CUstream, int)) X(int, cuStreamEndCapture, (CUstream, CUgraph *)) \
    X(int, cuGraphInstantiateWithFlags, (CUgraphExec *, CUgraph, unsigned long long)) \
    X(int, cuGraphLaunch, (CUgraphExec, CUstream)) X(int, cuGraphExecDestroy, (CUgraphExec)) \
    X(int, cuGraphDestroy, (CUgraph)) \
    X(int, gpusim_report_count, (void)) X(const gpusim_report *, gpusim_report_at, (int)) \
    X(void, gpusim_reset_reports, (void)) X(int, gpusim_set, (const char *, const char *)) \
    X(int, gpusim_kernel_count, (void)) X(const gpusim_kernel *, gpusim_kernel_at, (int)) \
    X(void, gpusim_reset_counters, (void)) \
    X(const char *, gpusim_form_at, (int, int *, const unsigned char **))

#define POINTER(ret, name, args) static ret (*name) args __attribute__((unused));
DRIVER(POINTER)
#undef POINTER

static int passed, failed, skipped;
static const char *build_dir = "build/gpusim";

#define CHECK(cond, ...) \
    do { \
        if (cond) { passed++; break; } \
        failed++; \
        printf("FAIL %s:%d: %s: ", __FILE__, __LINE__, #cond); \
        printf(__VA_ARGS__); \
        printf("\n"); \
    } while (0)

/* A driver call that must succeed for the test to make sense. */
#define MUST(call) \
    do { \
        int must_ = (call); \
        if (!must_) break; \
        printf("FATAL %s:%d: %s returned %d\n", __FILE__, __LINE__, #call, must_); \
        exit(2); \
    } while (0)

static int __attribute__((unused)) finish(void) {
    printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped);
    return failed != 0;
}

static void __attribute__((unused)) open_driver(int argc, char **argv) {
    char path[1024];
    if (argc > 1) build_dir = argv[1];
    snprintf(path, sizeof path, "%s/libcuda.so.1", build_dir);
    if (access(path, F_OK)) {
        printf("SKIP %s was not built (x86-64 only)\n0 passed, 0 failed, 1 skipped\n", path);
        exit(0);
    }
    void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!lib) {
        printf("FATAL %s\n", dlerror());
        exit(2);
    }
#define LOOKUP(ret, name, args) \
    if (!(*(void **)&name = dlsym(lib, #name))) { printf("FATAL no " #name "\n"); exit(2); }
    DRIVER(LOOKUP)
#undef LOOKUP
    CUdevice dev;
    CUcontext ctx;
    MUST(cuInit(0));
    MUST(cuDeviceGet(&dev, 0));
    MUST(cuDevicePrimaryCtxRetain(&ctx, dev));
    MUST(cuCtxSetCurrent(ctx));
}

/* The whole of build_dir/name, NUL-terminated; NULL when it is not there. */
static __attribute__((unused)) char *read_all(const char *name) {
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", build_dir, name);
    FILE *f = fopen(path, "rb");
    if (!f) return NULL;
    fseek(f, 0, SEEK_END);
    long n = ftell(f);
    rewind(f);
    char *p = malloc((size_t)n + 1);
    if (!p || fread(p, 1, (size_t)n, f) != (size_t)n) exit(2);
    p[n] = 0;
    fclose(f);
    return p;
}

/* The PTX of `arch` inside an uncompressed fatbin, as a NUL-terminated copy. */
static __attribute__((unused)) char *ptx_of(const char *image, int arch) {
    uint64_t left, size;
    uint16_t head16;
    const unsigned char *p = (const unsigned char *)image;
    memcpy(&head16, p + 6, 2);
    memcpy(&left, p + 8, 8);
    p += head16;
    while (left >= 64) {
        uint16_t kind;
        uint32_t head, cc;
        memcpy(&kind, p, 2);
        memcpy(&head, p + 4, 4);
        memcpy(&size, p + 8, 8);
        memcpy(&cc, p + 28, 4);
        if (kind == 1 && (int)cc == arch) {
            char *text = malloc(size + 1);
            memcpy(text, p + head, size);
            text[size] = 0;
            return text;
        }
        p += head + size;
        left -= head + size;
    }
    return NULL;
}

static CUdeviceptr __attribute__((unused)) device(size_t bytes) {
    CUdeviceptr p = 0;
    MUST(cuMemAlloc_v2(&p, bytes));
    return p;
}
static CUdeviceptr __attribute__((unused)) upload(const void *src, size_t bytes) {
    CUdeviceptr p = device(bytes);
    MUST(cuMemcpyHtoDAsync_v2(p, src, bytes, NULL));
    return p;
}
static int __attribute__((unused)) download(void *dst, CUdeviceptr src, size_t bytes) {
    int r = cuMemcpyDtoHAsync_v2(dst, src, bytes, NULL);
    return r ? r : cuStreamSynchronize(NULL);
}

static uint64_t rng_state __attribute__((unused)) = 88172645463325252ull;
static uint32_t __attribute__((unused)) rnd(void) {
    rng_state ^= rng_state << 13;
    rng_state ^= rng_state >> 7;
    rng_state ^= rng_state << 17;
    return (uint32_t)(rng_state >> 16);
}
static float __attribute__((unused)) rndf(void) { return (float)rnd() / 2147483648.0f - 1.0f; }

static int __attribute__((unused)) bf16_of(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    return (int)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}
static float __attribute__((unused)) bf16_to(uint32_t b) {
    float f;
    b <<= 16;
    memcpy(&f, &b, 4);
    return f;
}

static void __attribute__((unused)) print_reports(void) {
    for (int i = 0; i < gpusim_report_count(); i++)
        printf("  %s\n", gpusim_report_at(i)->message);
}
#endif
