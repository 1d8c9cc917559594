/* backend.c: opens a backend by name. The one place that knows which backends were built in. */
#include "kernels/cpu/cpu.h"
#include "kernels/threads.h"
#if __has_include("kernels/cuda/cuda.h")
#include "kernels/cuda/cuda.h" /* vl_cuda_open; the driver itself is looked for at run time */
#define HAVE_CUDA 1
#else
#define HAVE_CUDA 0
static int vl_cuda_open(vl_backend **out, const vl_backend_params *p, vl_err *err) {
    (void)out, (void)p;
    return vl_fail(err, VL_E_BACKEND, "this build has no CUDA backend");
}
#endif

enum { THREADS_MAX = 1024 };

int vl_backend_open(vl_backend **out, const vl_backend_params *p, vl_err *err) {
    vl_backend_params q = *p;
    *out = NULL;
    if (!q.name) q.name = "auto";
    if (q.threads < 0 || q.threads > THREADS_MAX)
        return vl_fail(err, VL_E_USAGE, "threads %d: expected 0 (all) to %d", q.threads, THREADS_MAX);
    if (q.threads == 0) q.threads = vl_usable_threads();
    if (!strcmp(q.name, "cuda") || !strncmp(q.name, "cuda:", 5)) return vl_cuda_open(out, &q, err);
    if (!strcmp(q.name, "auto") && HAVE_CUDA && vl_cuda_open(out, &q, NULL) == 0) return 0;
    q.threads = p->threads; /* 0: the CPU backend's own choice */
    if (strcmp(q.name, "auto") && strcmp(q.name, "cpu"))
        return vl_fail(err, VL_E_USAGE, "backend \"%s\": expected auto, cpu or cuda", q.name);
    if (!q.dtype) q.dtype = "exact";
    static const char *const MODES[] = {"exact", "bf16", "int8", "int4"};
    bool known = false;
    for (int i = 0; i < 4; i++) known |= !strcmp(q.dtype, MODES[i]);
    if (!known)
        return vl_fail(err, VL_E_UNSUPPORTED, "dtype \"%s\": expected exact, bf16, int8 or int4", q.dtype);
    return vl_cpu_open(out, &q, err);
}

int vl_backend_threads(const vl_backend *b) { return b->threads; }

static bool is_cpu(const vl_backend *b) { return b->ops->prepare == cpu_prepare; }

bool vl_backend_use_packed(vl_backend *b, const vl_packed_store *store) {
    if (is_cpu(b)) cpu_of(b)->packed = *store;
    return is_cpu(b);
}

int vl_backend_each_packed(vl_backend *b, vl_packed_fn fn, void *user) {
    return is_cpu(b) ? cpu_pack_each(cpu_of(b), fn, user) : 0;
}
