/* device.h: what the CUDA tests share: the backend on gpusim, and host <-> device arrays.
 *
 * VL_CUDA_DRIVER unset: gpusim of this tree is used. Settings of gpusim are environment variables
 * that it reads when it is loaded; closing the backend unloads it. */
#ifndef VL_TESTS_CUDA_DEVICE_H
#define VL_TESTS_CUDA_DEVICE_H

#include <dlfcn.h>
#include <unistd.h>

#define GPUSIM_TYPES_ONLY
#include "gpusim/gpusim_api.h"
#include "kernels/ops.h"
#include "tests/test.h"

static vl_backend *gpu;
static vl_rng rng;
static const char GPUSIM[] = "build/gpusim/libcuda.so.1";

/* NULL, or why nothing can be tested here. */
static const char *cannot_run(void) {
    vl_backend *b;
    vl_err err = {0};
    if (!getenv("VL_CUDA_DRIVER")) setenv("VL_CUDA_DRIVER", GPUSIM, 1);
    if (vl_backend_open(&b, &(vl_backend_params){"cuda", "bf16", 1}, &err) == 0) {
        b->ops->close(b);
        return NULL;
    }
    static char why[300];
    snprintf(why, sizeof why, "%s", err.msg);
    return strstr(why, "no GPU kernels") || access(GPUSIM, R_OK) ? why : NULL;
}

static void open_gpu(void) {
    vl_err err = {0};
    if (vl_backend_open(&gpu, &(vl_backend_params){"cuda", "bf16", 1}, &err) == 0) return;
    printf("FAIL %s\n0 passed, 1 failed\n", err.msg);
    exit(1);
}

/* How many findings gpusim has, or -1 on a real driver. */
static int findings(void) {
    void *library = dlopen(getenv("VL_CUDA_DRIVER"), RTLD_NOW | RTLD_NOLOAD);
    int (*count)(void) = NULL;
    if (library) *(void **)&count = dlsym(library, "gpusim_report_count");
    int n = count ? count() : -1;
    if (library) dlclose(library);
    return n;
}

/* Launches of a kernel so far, or -1 on a real driver. */
static inline long launches(const char *kernel) {
    void *library = dlopen(getenv("VL_CUDA_DRIVER"), RTLD_NOW | RTLD_NOLOAD);
    int (*count)(void) = NULL;
    const gpusim_kernel *(*at)(int) = NULL;
    long n = 0;
    if (library) *(void **)&count = dlsym(library, "gpusim_kernel_count");
    if (library) *(void **)&at = dlsym(library, "gpusim_kernel_at");
    for (int i = 0; count && at && i < count(); i++)
        if (!strcmp(at(i)->kernel, kernel)) n += (long)at(i)->launches;
    if (library) dlclose(library);
    return count ? n : -1;
}

static void close_gpu(const char *what) {
    vl_err err = {0};
    CHECK(gpu->ops->sync(gpu, &err) == 0, "%s: %s", what, err.msg);
    CHECK(findings() <= 0, "%s: gpusim has %d findings (above)", what, findings());
    gpu->ops->close(gpu);
    gpu = NULL;
}

static void *to_gpu(const void *host, size_t bytes) {
    void *p = gpu->ops->alloc(gpu, bytes);
    vl_assert(p, "%zu bytes of GPU memory", bytes);
    gpu->ops->put(gpu, p, host, bytes);
    return p;
}
static void from_gpu(void *host, const void *p, size_t bytes) { gpu->ops->get(gpu, host, p, bytes); }
static void drop(void *p) { gpu->ops->release(gpu, p); }

static float *random_floats(size_t n) {
    float *x = vl_calloc(n, sizeof *x);
    vl_assert(x, "memory");
    for (size_t i = 0; i < n; i++) x[i] = (float)vl_rng_normal(&rng);
    return x;
}
static double round_bf16(float v) { return (double)vl_bf16_to_f32(vl_f32_to_bf16(v)); }

/* Values of the given type; *wide gets what the GPU keeps of them: bf16. */
static vl_matrix random_matrix(int rows, int cols, vl_dtype dtype, float **wide) {
    size_t n = (size_t)rows * (size_t)cols;
    float *f = random_floats(n);
    uint16_t *h = vl_calloc(n + 1, sizeof *h);
    vl_assert(h, "memory");
    *wide = vl_calloc(n, sizeof **wide);
    vl_assert(*wide, "memory");
    for (size_t i = 0; i < n; i++) h[i] = dtype == VL_F16 ? vl_f32_to_f16(f[i]) : vl_f32_to_bf16(f[i]);
    const void *data = dtype == VL_F32 ? (void *)f : (void *)h;
    vl_widen(*wide, data, dtype, n);
    for (size_t i = 0; i < n; i++) (*wide)[i] = (float)round_bf16((*wide)[i]);
    free(dtype == VL_F32 ? (void *)h : (void *)f);
    vl_err err = {0};
    vl_matrix w = {.name = "test", .data = data, .dtype = dtype, .rows = rows, .cols = cols};
    CHECK(gpu->ops->prepare(gpu, &w, VL_USE_LINEAR | VL_USE_GATHER, &err) == 0, "%s", err.msg);
    return w;
}

/* |got - want| <= tol everywhere; the first that is off is reported. */
static inline void near_all(const float *got, const double *want, const double *tol, size_t n,
                     const char *what) {
    for (size_t i = 0; i < n; i++) {
        if (fabs((double)got[i] - want[i]) <= tol[i]) continue;
        CHECK(false, "%s: [%zu] is %.9g, expected %.9g within %.3g", what, i, (double)got[i], want[i],
              tol[i]);
        return;
    }
    test_passed++;
}
static void same_bits(const float *a, const float *b, size_t n, const char *what) {
    size_t i = 0;
    while (i < n && !memcmp(a + i, b + i, sizeof *a)) i++;
    CHECK(i == n, "%s: [%zu] is %.9g, was %.9g", what, i, (double)b[i], (double)a[i]);
}

#endif
