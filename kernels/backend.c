/* backend.c: opens a backend by name. The one place that knows which backends were built in. */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernels/cpu/cpu.h"
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

/* Reads one small file of the kernel; "" when it is not there. */
static void slurp(char *buf, size_t size, const char *path) {
    FILE *f = fopen(path, "r");
    size_t n = f ? fread(buf, 1, size - 1, f) : 0;
    buf[n] = 0;
    if (f) fclose(f);
}

/* CPUs of the cgroup's quota, rounded up; 0: no quota. Version 2 ("max 100000" or "150000 100000"),
 * then version 1. */
static int cgroup_cpus(void) {
    char buf[512], path[640], *line;
    long quota = -1, period = 0;
    slurp(buf, sizeof buf, "/proc/self/cgroup");
    if ((line = strstr(buf, "0::/"))) {
        line += 3;
        line[strcspn(line, "\n")] = 0;
        snprintf(path, sizeof path, "/sys/fs/cgroup%s/cpu.max", line);
        slurp(buf, sizeof buf, path);
        if (!buf[0]) slurp(buf, sizeof buf, "/sys/fs/cgroup/cpu.max");
        if (sscanf(buf, "%ld %ld", &quota, &period) != 2) quota = -1;
    }
    if (quota < 0) {
        slurp(buf, sizeof buf, "/sys/fs/cgroup/cpu/cpu.cfs_quota_us");
        quota = buf[0] ? atol(buf) : -1;
        slurp(buf, sizeof buf, "/sys/fs/cgroup/cpu/cpu.cfs_period_us");
        period = atol(buf);
    }
    return quota > 0 && period > 0 ? (int)((quota + period - 1) / period) : 0;
}

/* The CPUs this process may use: its affinity mask, cut by the cgroup's quota. */
static int usable_threads(void) {
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    int quota = cgroup_cpus();
    if (quota > 0 && quota < n) n = quota;
    return n > 0 ? n : 1;
}

int vl_backend_open(vl_backend **out, const vl_backend_params *p, vl_err *err) {
    vl_backend_params q = *p;
    *out = NULL;
    if (!q.name) q.name = "auto";
    if (q.threads < 0 || q.threads > THREADS_MAX)
        return vl_fail(err, VL_E_USAGE, "threads %d: expected 0 (all) to %d", q.threads, THREADS_MAX);
    if (q.threads == 0) q.threads = usable_threads();
    if (!strcmp(q.name, "cuda")) return vl_cuda_open(out, &q, err);
    if (!strcmp(q.name, "auto") && HAVE_CUDA && vl_cuda_open(out, &q, NULL) == 0) return 0;
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
