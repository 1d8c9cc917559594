/* driver.c: finds the CUDA driver with dlopen, so that one binary runs with and without a GPU. */
#include "kernels/cuda/driver.h"

#include <dlfcn.h>
#include <stdlib.h>

static void *find(void *library, const char *symbol, const char *older) {
    void *p = dlsym(library, symbol);
    return !p && older ? dlsym(library, older) : p;
}

int cuda_driver_open(cuda_driver *d, vl_err *err) {
    const char *path = getenv("VL_CUDA_DRIVER");
    bool given = path && *path;
    if (!given) path = "libcuda.so.1";
    *d = (cuda_driver){.library = dlopen(path, RTLD_NOW | RTLD_LOCAL)};
    if (!d->library)
        return vl_fail(err, VL_E_BACKEND, "no CUDA driver: %.150s (%s)", dlerror(),
                       given ? "VL_CUDA_DRIVER names it"
                             : "install the NVIDIA driver of this GPU, or use --backend cpu");
#define X(name, symbol, older, args)                                                               \
    *(void **)(void *)&d->name = find(d->library, symbol, older);                                  \
    if (!d->name) {                                                                                \
        cuda_driver_close(d);                                                                      \
        return vl_fail(err, VL_E_BACKEND, "%s has no %s: the NVIDIA driver is too old, update it", \
                       path, symbol);                                                              \
    }
    CUDA_DRIVER(X)
#undef X
#define X(name, symbol, older, args) *(void **)(void *)&d->name = find(d->library, symbol, older);
    CUDA_DRIVER_NEW(X)
#undef X
    return 0;
}

void cuda_driver_close(cuda_driver *d) {
    if (d->library) dlclose(d->library);
    d->library = NULL;
}

int cuda_check(const cuda_driver *d, CUresult e, const char *what, vl_err *err) {
    const char *name = NULL, *text = NULL;
    if (e == CU_OK) return 0;
    d->GetErrorName(e, &name);
    d->GetErrorString(e, &text);
    return vl_fail(err, VL_E_BACKEND, "%s: %s (%d): %s", what, name ? name : "CUDA error", e,
                   text ? text : "the driver does not know this code");
}
