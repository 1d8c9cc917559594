/* libcuda_run.c: the driver entry points that enqueue: streams, events, launches, graphs. */
#include "api.h"
#include "check.h"
#include "gpus.h"
#include "gpusim_api.h"
#include "meet.h"
#include "mem.h"
#include "model.h"
#include "race.h"
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static int captures;
bool api_capturing(void) { return captures > 0; }

/* ---- streams ---- */

API cuStreamCreate(CUstream *out, unsigned flags) {
    LOCK;
    ENTER;
    if (!out || flags > 1) return CU_INVALID_VALUE;
    *out = stream_create(flags & 1, api_device());
    return *out ? CU_OK : CU_OUT_OF_MEMORY;
}

API cuStreamDestroy_v2(CUstream h) {
    LOCK;
    ENTER_STREAM(s, h);
    if (s == stream_default()) return CU_INVALID_HANDLE;
    stream_destroy(s);
    return CU_OK;
}

API cuStreamSynchronize(CUstream h) {
    LOCK;
    ENTER_STREAM(s, h);
    if (s->capture) {
        s->capture->invalid = true;
        return CU_CAPTURE_UNSUPPORTED;
    }
    meet_hangs();
    CUresult r = stream_sync(s);
    if (meet_hangs())
        check_host("nccl-hang", "cuStreamSynchronize", "cuStreamSynchronize waits for a collective of a rank whose "
                   "device has failed: GPUs would wait for ever; query the streams of all ranks, and abort");
    return r;
}

API cuStreamQuery(CUstream h) {
    LOCK;
    ENTER_STREAM(s, h);
    if (s->capture) return CU_CAPTURE_UNSUPPORTED;
    if (stream_idle(s)) return CU_OK;
    CUresult r = stream_sync(s);        /* "not ready" once, ready when asked again */
    return r ? r : CU_NOT_READY;
}

API cuStreamWaitEvent(CUstream h, CUevent e, unsigned flags) {
    LOCK;
    ENTER_STREAM(s, h);
    (void)flags;
    return e ? event_wait(s, e) : CU_INVALID_HANDLE;
}

static CUresult wrong_device(const char *what, int device, const struct Stream *s) {
    check_host("wrong-device", what, "%s: made on device %d, the stream is one of device %d, device %d "
               "is current", what, device, stream_device(s), api_device());
    return CU_INVALID_HANDLE;
}

/* ---- events: their times are those of the prediction (gpusim model v2) ---- */

API cuEventCreate(CUevent *out, unsigned flags) {
    LOCK;
    ENTER;
    if (!out) return CU_INVALID_VALUE;
    *out = calloc(1, sizeof **out);
    if (!*out) return CU_OUT_OF_MEMORY;
    (*out)->timing = !(flags & 2);
    (*out)->device = api_device();
    return CU_OK;
}

API cuEventDestroy_v2(CUevent e) {
    LOCK;
    ENTER;
    if (!e) return CU_INVALID_HANDLE;
    mark_drop(e->mark);
    free(e);
    return CU_OK;
}

API cuEventRecord(CUevent e, CUstream h) {
    LOCK;
    ENTER_STREAM(s, h);
    if (!e) return CU_INVALID_HANDLE;
    if (e->device != stream_device(s)) return wrong_device("event", e->device, s);
    return event_record(e, s);
}

API cuEventSynchronize(CUevent e) {
    LOCK;
    ENTER;
    return e ? event_sync(e) : CU_INVALID_HANDLE;
}

API cuEventQuery(CUevent e) {
    LOCK;
    ENTER;
    if (!e) return CU_INVALID_HANDLE;
    if (!e->mark || e->mark->done) return CU_OK;
    CUresult r = event_sync(e);
    return r ? r : CU_NOT_READY;
}

API cuEventElapsedTime(float *ms, CUevent a, CUevent b) {
    LOCK;
    ENTER;
    if (!ms || !a || !b || !a->mark || !b->mark || !a->timing || !b->timing)
        return CU_INVALID_HANDLE;
    if (!a->mark->done || !b->mark->done) return CU_NOT_READY;
    *ms = (float)((b->mark->time_us - a->mark->time_us) / 1000.0);
    return CU_OK;
}

/* ---- launches ---- */

static bool readable(const void *p, void *out, size_t n) {
    struct iovec to = {out, n}, from = {(void *)(uintptr_t)p, n};
    return process_vm_readv(getpid(), &to, 1, &from, 1, 0) == (ssize_t)n;
}

static CUresult bad_params(const Func *f, int i) {
    check_host("launch-parameters", f->name, "%s: parameter %d of %d cannot be read (too few "
               "passed?)", f->name, i, f->nparam);
    return CU_INVALID_VALUE;
}

/* The parameter block: from kernelParams, or from the buffer in extra. */
static CUresult read_params(const Func *f, void **params, void **extra, uint8_t **out) {
    *out = calloc(1, f->param_bytes ? f->param_bytes : 1);
    if (!*out) return CU_OUT_OF_MEMORY;
    if (extra) {
        const void *buffer = NULL;
        size_t size = 0;
        for (void **e = extra; *e; e += 2) {
            if ((uintptr_t)e[0] == 1) buffer = e[1];
            if ((uintptr_t)e[0] == 2) size = *(size_t *)e[1];
        }
        if (!buffer || size != f->param_bytes) {
            check_host("launch-parameters", f->name, "%s: %zu bytes of parameters, the kernel has "
                       "%u", f->name, size, f->param_bytes);
            return CU_INVALID_VALUE;
        }
        memcpy(*out, buffer, size);
        return CU_OK;
    }
    if (f->nparam && !params) return bad_params(f, 0);
    for (int i = 0; i < f->nparam; i++) {
        void *p;
        if (!readable(params + i, &p, sizeof p) ||
            !readable(p, *out + f->params[i].off, f->params[i].size)) return bad_params(f, i);
    }
    return CU_OK;
}

static CUresult refuse(const Func *f, CUresult r, const char *why, uint64_t got, uint64_t limit) {
    check_host("launch-limits", f->name, "%s: %s (%llu, limit %llu)", f->name, why,
               (unsigned long long)got, (unsigned long long)limit);
    return r;
}

static CUresult check_limits(const Func *f, const Cmd *c) {
    const Gpu *g = gpu_now();
    uint64_t threads = (uint64_t)c->block[0] * c->block[1] * c->block[2];
    uint64_t max = f->maxntid ? f->maxntid : 1024;
    uint64_t blocks = (uint64_t)c->grid[0] * c->grid[1] * c->grid[2];
    if (!threads || !blocks) return refuse(f, CU_INVALID_VALUE, "empty grid or block", 0, 1);
    if (threads > max || c->block[2] > 64)
        return refuse(f, CU_INVALID_VALUE, "too many threads per block", threads, max);
    if (f->reqntid[0] && memcmp(f->reqntid, c->block, sizeof f->reqntid))
        return refuse(f, CU_INVALID_VALUE, ".reqntid asks for another block", threads,
                      f->reqntid[0]);
    if (c->grid[0] > 0x7fffffff || c->grid[1] > 65535 || c->grid[2] > 65535 || blocks > 0xffffffff)
        return refuse(f, CU_INVALID_VALUE, "grid too large", blocks, 65535);
    if (c->shared > f->max_dynamic_shared)
        return refuse(f, CU_INVALID_VALUE, "dynamic shared memory above the limit set with "
                      "cuFuncSetAttribute", c->shared, f->max_dynamic_shared);
    if (c->shared + f->static_shared > (uint32_t)g->shared_block * 1024)
        return refuse(f, CU_INVALID_VALUE, "shared memory", c->shared + f->static_shared,
                      (uint64_t)g->shared_block * 1024);
    uint64_t regs = (uint64_t)((model_cubin(f)->regs + 7) / 8 * 8) * ((threads + 31) / 32 * 32);
    if (regs > 65536) return refuse(f, CU_OUT_OF_RESOURCES, "registers per block", regs, 65536);
    return CU_OK;
}

static CUresult launch(Cmd *c, CUstream h, void **params, void **extra) {
    ENTER_STREAM(s, h);
    if (!c->f) return CU_INVALID_HANDLE;
    if (c->f->mod->device != stream_device(s) || api_device() != stream_device(s))
        return wrong_device(c->f->name, c->f->mod->device, s);
    CUresult r = check_limits(c->f, c);
    if (!r) r = read_params(c->f, params, extra, &c->params);
    if (!r) r = stream_add(s, c, c->f->name);
    if (r) free(c->params);
    return r;
}

API cuLaunchKernel(struct Func *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                   unsigned bz, unsigned shared, CUstream h, void **params, void **extra) {
    LOCK;
    Cmd c = {.kind = CMD_KERNEL, .f = f, .grid = {gx, gy, gz}, .block = {bx, by, bz},
             .shared = shared};
    return launch(&c, h, params, extra);
}

API cuLaunchKernelEx(const CUlaunchConfig *k, struct Func *f, void **params, void **extra) {
    LOCK;
    if (!k) return CU_INVALID_VALUE;
    Cmd c = {.kind = CMD_KERNEL, .f = f, .grid = {k->gridDimX, k->gridDimY, k->gridDimZ},
             .block = {k->blockDimX, k->blockDimY, k->blockDimZ}, .shared = k->sharedMemBytes};
    for (unsigned i = 0; i < k->numAttrs; i++) {
        if (k->attrs[i].id != LAUNCH_PROGRAMMATIC_SERIALIZATION) return CU_NOT_SUPPORTED;
        if (gpu_now()->cc < 90) return CU_NOT_SUPPORTED;
        c.pdl = k->attrs[i].value.flag != 0;
    }
    return launch(&c, k->hStream, params, extra);
}

enum { FUNC_MAX_THREADS, FUNC_SHARED, FUNC_CONST, FUNC_LOCAL, FUNC_REGS, FUNC_PTX, FUNC_BINARY,
       FUNC_CACHE_CA, FUNC_MAX_DYNAMIC, FUNC_CARVEOUT };

API cuFuncGetAttribute(int *value, int attribute, struct Func *f) {
    LOCK;
    ENTER;
    if (!value || !f) return CU_INVALID_VALUE;
    const CubinInfo *c = model_cubin(f);
    const int table[] = {(int)(f->maxntid ? f->maxntid : 1024), (int)f->static_shared, 0, c->frame,
                         c->regs, f->mod->target, gpu_now()->cc, 0, (int)f->max_dynamic_shared, -1};
    if (attribute < 0 || attribute > FUNC_CARVEOUT) return CU_INVALID_VALUE;
    *value = table[attribute];
    return CU_OK;
}

API cuFuncSetAttribute(struct Func *f, int attribute, int value) {
    LOCK;
    ENTER;
    if (!f || value < 0) return CU_INVALID_VALUE;
    if (attribute == FUNC_CARVEOUT) return CU_OK;
    if (attribute != FUNC_MAX_DYNAMIC ||
        (uint32_t)value + f->static_shared > (uint32_t)gpu_now()->shared_block * 1024)
        return CU_INVALID_VALUE;
    f->max_dynamic_shared = (uint32_t)value;
    return CU_OK;
}

API cuOccupancyMaxActiveBlocksPerMultiprocessor(int *n, struct Func *f, int threads,
                                                size_t shared) {
    LOCK;
    ENTER;
    if (!n || !f || threads <= 0) return CU_INVALID_VALUE;
    *n = model_occupancy(f, (uint32_t)threads, (uint32_t)shared);
    return CU_OK;
}

/* ---- graphs ---- */

API cuStreamBeginCapture_v2(CUstream h, int mode) {
    LOCK;
    ENTER_STREAM(s, h);
    if (mode < 0 || mode > 2) return CU_INVALID_VALUE;
    if (s == stream_default()) return CU_CAPTURE_UNSUPPORTED;
    CUresult r = graph_begin(s);
    captures += !r;
    return r;
}

API cuStreamEndCapture(CUstream h, CUgraph *out) {
    LOCK;
    ENTER_STREAM(s, h);
    if (!out) return CU_INVALID_VALUE;
    *out = NULL;
    bool mine = s->capture && s->capture->origin == s;
    captures -= mine;
    return graph_end(s, out);
}

API cuStreamGetCaptureInfo_v2(CUstream h, int *status, uint64_t *id, CUgraph *g, uint64_t **nodes,
                               size_t *n) {
    LOCK;
    ENTER_STREAM(s, h);
    static uint64_t tail;        /* valid until the next call, as the driver promises */
    if (!status) return CU_INVALID_VALUE;
    *status = s->capture ? 1 + s->capture->invalid : 0;
    if (!s->capture) return CU_OK;
    tail = graph_tail(s);
    if (id) *id = s->capture->id;
    if (g) *g = s->capture;
    if (nodes) *nodes = &tail;
    if (n) *n = tail != 0;
    return CU_OK;
}

API cuGraphExecKernelNodeSetParams_v2(CUgraphExec g, uint64_t node, const CUkernelNodeParams *p) {
    LOCK;
    ENTER;
    if (!g || !p || !p->func) return CU_INVALID_VALUE;
    Cmd c = {.kind = CMD_KERNEL, .f = p->func, .grid = {p->gridDimX, p->gridDimY, p->gridDimZ},
             .block = {p->blockDimX, p->blockDimY, p->blockDimZ}, .shared = p->sharedMemBytes};
    CUresult r = check_limits(c.f, &c);
    if (!r) r = read_params(c.f, p->kernelParams, p->extra, &c.params);
    if (!r) r = graph_set_params(g, node, &c);
    if (r) free(c.params);
    return r;
}

API cuGraphInstantiateWithFlags(CUgraphExec *out, CUgraph g, unsigned long long flags) {
    LOCK;
    ENTER;
    (void)flags;
    if (!out || !g) return CU_INVALID_VALUE;
    *out = graph_copy(g);
    return *out ? CU_OK : CU_OUT_OF_MEMORY;
}

API cuGraphLaunch(CUgraphExec g, CUstream h) {
    LOCK;
    ENTER_STREAM(s, h);
    static int launches;
    if (++launches == settings.fail_graph) return CU_LAUNCH_FAILED;
    return g ? graph_launch(g, s) : CU_INVALID_HANDLE;
}

API cuGraphExecDestroy(CUgraphExec g) {
    LOCK;
    ENTER;
    if (!g) return CU_INVALID_HANDLE;
    graph_free(g);
    return CU_OK;
}

API cuGraphDestroy(CUgraph g) {
    LOCK;
    ENTER;
    if (!g) return CU_INVALID_HANDLE;
    graph_free(g);
    return CU_OK;
}

/* ---- gpusim's own ---- */

#define EXPORT __attribute__((visibility("default")))

/* The name for good: its library may be gone when the report is written. */
static const char *kept(const char *name) {
    static char *names[16];
    for (int i = 0; i < 16; i++) {
        if (!names[i]) names[i] = strdup(name);
        if (!names[i] || !strcmp(names[i], name)) return names[i] ? names[i] : "library call";
    }
    return "library call";
}

EXPORT int gpusim_submit(void *h, const gpusim_work *work, const void *arg, uint64_t bytes) {
    LOCK;
    ENTER_STREAM(s, h);
    Cmd c = {.kind = CMD_HOST, .fn = work->fn, .flops = work->flops, .traffic = work->traffic,
             .staged = malloc(bytes), .bytes = bytes};
    if (!c.staged) return CU_OUT_OF_MEMORY;
    memcpy(c.staged, arg, bytes);
    return stream_add(s, &c, kept(work->name));
}

EXPORT void *gpusim_clique(int n) { return meet_clique(n); }
EXPORT int gpusim_clique_nodes(void *clique, int rank) { return meet_nodes(clique, rank); }
EXPORT void gpusim_clique_abort(void *clique) { meet_abort(clique); }

EXPORT int gpusim_meet(void *clique, int rank, void *h, const gpusim_part *part) {
    LOCK;
    ENTER_STREAM(s, h);
    return stream_add(s, &(Cmd){.kind = CMD_MEET, .clique = clique, .rank = rank, .src = part->send,
                                .dst = part->recv, .bytes = part->bytes}, kept(part->name));
}

EXPORT int gpusim_device_of(uint64_t addr, uint64_t bytes) {
    LOCK;
    const Alloc *a = mem_find(addr);
    return a && !a->freed && bytes <= a->size - (addr - a->addr) ? a->device : -1;
}

EXPORT int gpusim_stream_device(void *h) {
    LOCK;
    const struct Stream *s = stream_of(h);
    return s ? stream_device(s) : -1;
}

EXPORT void gpusim_finding(const char *rule, const char *what, const char *text) {
    LOCK;
    check_host(rule, what, "%s", text);
}

EXPORT void *gpusim_memory(uint64_t addr, uint64_t bytes, int write) {
    uint8_t *p = write ? mem_fill_host(addr, bytes) : mem_host(addr, bytes);
    const Node *n = order_get(command_running());
    if (!n) return NULL;
    if (!p) {
        check_host("out-of-bounds", n->what, "%s: %llu bytes at 0x%llx are not in one allocation",
                   n->what, (unsigned long long)bytes, (unsigned long long)addr);
        return NULL;
    }
    const Alloc *a = mem_find(addr);
    if (!write && settings.checks && mem_uninitialised(a, addr - a->addr, bytes) >= 0)
        check_host("uninitialised-global", n->what, "%s reads %s+%llu, which nothing wrote",
                   n->what, a->name, (unsigned long long)(addr - a->addr));
    race_host(command_running(), addr, bytes, write);
    return p;
}

EXPORT int gpusim_finish(void) {
    LOCK;
    return stream_sync_all();
}

EXPORT int gpusim_set(const char *name, const char *value) {
    LOCK;
    if (!strcmp(name, "sticky")) {
        gpusim_sticky = atoi(value);
        return 0;
    }
    return settings_set(name, value);
}
