/* libcuda.c: the driver entry points: devices, contexts, modules, memory.
 *
 * Strict where a real driver is lenient: calls without a context, unknown handles and capture
 * violations fail; ranges are checked when a copy is enqueued. */
#include "api.h"
#include "check.h"
#include "fatbin.h"
#include "gpus.h"
#include "gpusim_api.h"
#include "mem.h"
#include "model.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct Context { int device; };
static struct Context contexts[MEM_DEVICES];
static _Thread_local struct Context *current;
static bool initialised;
static struct { uint64_t addr, bytes; bool owned; } pinned[4096];
static int npinned;

void api_unlock(int *unused) {
    (void)unused;
    pthread_mutex_unlock(&gpusim_lock);
}

CUresult api_enter(void) {
    if (!initialised) return CU_NOT_INITIALIZED;
    if (!current) return CU_INVALID_CONTEXT;
    return gpusim_sticky;
}

int api_device(void) { return current ? current->device : 0; }

/* ---- start, end, devices ---- */

__attribute__((constructor)) static void start(void) {
    settings_read();
    if (!gpu_find(settings.device))
        fprintf(stderr, "gpusim: GPUSIM_DEVICE=%s is unknown, A100 is used\n", settings.device);
}

static void still_pending(Cmd *c, void *arg) {
    (void)arg;
    if (c->kind == CMD_TO_HOST)
        check_host("never-synchronised", c->name, "a copy to the host of %llu bytes was never "
                   "waited for", (unsigned long long)c->bytes);
}

__attribute__((destructor)) static void end(void) {
    stream_pending(still_pending, NULL);
    model_write_report();
    if (check_count() && settings.verbose)
        fprintf(stderr, "gpusim: %d finding(s)\n", check_count());
    if (check_count() && settings.exit_code) _exit(settings.exit_code);
}

const Gpu *gpu_find(const char *key) {
    for (int i = 0; i < GPU_COUNT; i++)
        if (!strcmp(gpus[i].key, key)) return &gpus[i];
    return NULL;
}

const Gpu *gpu_now(void) {
    const Gpu *g = gpu_find(settings.device);
    return g ? g : gpu_find("A100");
}

#define EXPORT __attribute__((visibility("default")))
EXPORT int gpusim_capability(void) { return gpu_now()->cc; }
EXPORT const char *gpusim_version(void) { return GS_VERSION; }
EXPORT gpusim_device gpusim_device_now(void) {
    const Gpu *g = gpu_now();
    return (gpusim_device){g->key, g->name, g->cc, g->sms, g->mhz, g->gbs, g->l2_mb,
                           1e-6 * g->sms * g->mhz * g->tensor, g->mma_share};
}

API cuInit(unsigned flags) {
    if (flags) return CU_INVALID_VALUE;
    initialised = true;
    return CU_OK;
}

API cuDriverGetVersion(int *version) {
    if (!version) return CU_INVALID_VALUE;
    *version = 13000;
    return CU_OK;
}

API cuDeviceGetCount(int *n) {
    if (!initialised) return CU_NOT_INITIALIZED;
    if (!n) return CU_INVALID_VALUE;
    *n = settings.devices < 1 ? 1 : settings.devices > MEM_DEVICES ? MEM_DEVICES : settings.devices;
    return CU_OK;
}

API cuDeviceGet(CUdevice *d, int ordinal) {
    int n = 0;
    CUresult r = cuDeviceGetCount(&n);
    if (r) return r;
    if (!d) return CU_INVALID_VALUE;
    if (ordinal < 0 || ordinal >= n) return CU_INVALID_DEVICE;
    *d = ordinal;
    return CU_OK;
}

API cuDeviceGetName(char *name, int len, CUdevice d) {
    (void)d;
    if (!name || len <= 0) return CU_INVALID_VALUE;
    snprintf(name, (size_t)len, "%s (gpusim)", gpu_now()->name);
    return CU_OK;
}

API cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice d) {
    if (!uuid) return CU_INVALID_VALUE;
    memset(uuid, 0, sizeof *uuid);
    snprintf(uuid->bytes, sizeof uuid->bytes, "gpusim-%d", d);
    return CU_OK;
}

static uint64_t total_memory(void) {
    return settings.memory ? settings.memory << 20 : (uint64_t)(gpu_now()->memory_gb * 1073741824.0);
}

API cuDeviceTotalMem_v2(size_t *bytes, CUdevice d) {
    (void)d;
    if (!bytes) return CU_INVALID_VALUE;
    *bytes = total_memory();
    return CU_OK;
}

API cuDeviceGetAttribute(int *value, int attribute, CUdevice d) {
    (void)d;
    const Gpu *g = gpu_now();
    const struct { int id, value; } table[] = {
        {1, 1024}, {2, 1024}, {3, 1024}, {4, 64}, {5, 0x7fffffff}, {6, 65535}, {7, 65535},
        {8, 49152}, {9, 65536}, {10, 32}, {11, 0x7fffffff}, {12, 65536}, {13, g->mhz * 1000},
        {16, g->sms}, {18, 0}, {19, 1}, {20, 0}, {36, g->mem_mhz * 1000}, {37, g->bus_bits},
        {38, (int)(g->l2_mb * 1048576)}, {39, g->threads_sm}, {40, 2}, {41, 1}, {75, g->cc / 10},
        {76, g->cc % 10}, {81, g->shared_sm * 1024}, {82, 65536}, {83, 0}, {95, 0},
        {97, g->shared_block * 1024}, {106, g->blocks_sm}, {111, g->cc >= 80 ? 1024 : 0}, {115, 0}};
    if (!value) return CU_INVALID_VALUE;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (table[i].id == attribute) {
            *value = table[i].value;
            return CU_OK;
        }
    return CU_INVALID_VALUE;
}

static const struct { int code; const char *name, *text; } errors[] = {
    {CU_OK, "CUDA_SUCCESS", "no error"},
    {CU_INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {CU_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {CU_NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {CU_INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {CU_INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {CU_INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {CU_NO_BINARY, "CUDA_ERROR_NO_BINARY_FOR_GPU", "no kernel image for the device"},
    {CU_INVALID_PTX, "CUDA_ERROR_INVALID_PTX", "a PTX compilation failed"},
    {CU_INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {CU_NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {CU_NOT_READY, "CUDA_ERROR_NOT_READY", "device not ready"},
    {CU_ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {CU_OUT_OF_RESOURCES, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", "too many resources requested"},
    {CU_TIMEOUT, "CUDA_ERROR_LAUNCH_TIMEOUT", "the launch timed out and was terminated"},
    {CU_ASSERT, "CUDA_ERROR_ASSERT", "device-side assert triggered"},
    {CU_MISALIGNED, "CUDA_ERROR_MISALIGNED_ADDRESS", "misaligned address"},
    {CU_LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {CU_NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
    {CU_CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
     "operation not permitted when stream is capturing"},
    {CU_CAPTURE_INVALIDATED, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",
     "operation failed due to a previous error during capture"},
    {CU_CAPTURE_UNMATCHED, "CUDA_ERROR_STREAM_CAPTURE_UNMATCHED", "capture was not begun here"},
    {CU_CAPTURE_UNJOINED, "CUDA_ERROR_STREAM_CAPTURE_UNJOINED",
     "capturing stream has unjoined work"},
    {CU_CAPTURED_EVENT, "CUDA_ERROR_CAPTURED_EVENT", "the event was recorded in a capture"},
};

static CUresult error_text(int code, const char **out, bool name) {
    if (!out) return CU_INVALID_VALUE;
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        if (errors[i].code == code) {
            *out = name ? errors[i].name : errors[i].text;
            return CU_OK;
        }
    *out = NULL;
    return CU_INVALID_VALUE;
}
API cuGetErrorName(CUresult e, const char **s) { return error_text(e, s, true); }
API cuGetErrorString(CUresult e, const char **s) { return error_text(e, s, false); }

/* ---- contexts ---- */

API cuDevicePrimaryCtxRetain(CUcontext *ctx, CUdevice d) {
    int n = 0;
    CUresult r = cuDeviceGetCount(&n);
    if (r) return r;
    if (!ctx) return CU_INVALID_VALUE;
    if (d < 0 || d >= n) return CU_INVALID_DEVICE;
    contexts[d].device = d;
    *ctx = &contexts[d];
    return CU_OK;
}

API cuDevicePrimaryCtxRelease_v2(CUdevice d) {
    LOCK;
    if (d < 0 || d >= MEM_DEVICES) return CU_INVALID_DEVICE;
    return stream_sync_all();
}

API cuCtxSetCurrent(CUcontext ctx) {
    current = ctx;
    return CU_OK;
}

API cuDeviceCanAccessPeer(int *can, CUdevice d, CUdevice peer) {
    int n = 0;
    CUresult r = cuDeviceGetCount(&n);
    if (r) return r;
    if (!can) return CU_INVALID_VALUE;
    if (d < 0 || d >= n || peer < 0 || peer >= n) return CU_INVALID_DEVICE;
    *can = d != peer;
    return CU_OK;
}

/* Kernels of the current context may touch the memory of the other one from now on. */
API cuCtxEnablePeerAccess(CUcontext peer, unsigned flags) {
    LOCK;
    ENTER;
    if (!peer || peer == current || flags) return CU_INVALID_VALUE;
    mem_peer[current->device][peer->device] = true;
    return CU_OK;
}

API cuCtxSynchronize(void) {
    LOCK;
    ENTER;
    return stream_sync_all();
}

/* ---- modules ---- */

static int wanted_arch(void) { return settings.ptx ? settings.ptx : gpu_now()->cc; }

/* The newest PTX the device may run (exactly GPUSIM_PTX if that is set). */
static const FatEntry *choose(const FatEntry *e, int n) {
    const FatEntry *best = NULL;
    for (int i = 0; i < n; i++) {
        bool fits = settings.ptx ? e[i].arch == settings.ptx : e[i].arch <= wanted_arch();
        if (e[i].kind == FAT_PTX && fits && (!best || e[i].arch > best->arch)) best = &e[i];
    }
    return best;
}

static CUresult load_ptx(struct Module **out, const char *text) {
    char err[512];
    *out = ptx_parse(text, err, sizeof err);
    if (*out) (*out)->device = mem_device;
    if (*out) return CU_OK;
    check_host("invalid-ptx", "", "%s", err);
    return CU_INVALID_PTX;
}

API cuModuleLoadDataEx(struct Module **out, const void *image, unsigned nopt, int *opt,
                       void **val) {
    LOCK;
    ENTER;
    (void)nopt; (void)opt; (void)val;
    if (!out || !image) return CU_INVALID_VALUE;
    mem_device = current->device;
    FatEntry e[64];
    int n = fatbin_entries(image, e, 64);
    if (n < 0) {
        const char *text = image;
        if (!memcmp(text, "\177ELF", 4)) return CU_NO_BINARY;   /* SASS cannot be interpreted */
        return load_ptx(out, text);
    }
    const FatEntry *ptx = choose(e, n);
    if (!ptx || ptx->packed) {
        check_host("no-ptx", "", ptx ? "the PTX in the fatbin is compressed: build it with "
                   "--no-compress" : "the fatbin has no PTX for sm_%d", wanted_arch());
        return CU_NO_BINARY;
    }
    char *text = malloc(ptx->size + 1);
    if (!text) return CU_OUT_OF_MEMORY;
    memcpy(text, ptx->data, ptx->size);
    text[ptx->size] = 0;
    CUresult r = load_ptx(out, text);
    free(text);
    for (int i = 0; !r && i < n; i++)
        if (e[i].kind == FAT_ELF) fatbin_cubin_info(&e[i], *out);
    return r;
}

API cuModuleLoadData(struct Module **out, const void *image) {
    return cuModuleLoadDataEx(out, image, 0, NULL, NULL);
}

/* The code stays: findings may still name it. Its variables are freed. */
API cuModuleUnload(struct Module *m) {
    LOCK;
    ENTER;
    if (!m) return CU_INVALID_HANDLE;
    CUresult r = stream_sync_all();
    for (int i = 0; i < m->nsym; i++) mem_free(m->syms[i].addr);
    m->nsym = 0;
    return r;
}

API cuModuleGetFunction(struct Func **out, struct Module *m, const char *name) {
    LOCK;
    ENTER;
    if (!out || !m || !name) return CU_INVALID_VALUE;
    for (int i = 0; i < m->nfunc; i++)
        if (!strcmp(m->funcs[i].name, name)) {
            *out = &m->funcs[i];
            return CU_OK;
        }
    return CU_NOT_FOUND;
}

API cuModuleGetGlobal_v2(CUdeviceptr *p, size_t *bytes, struct Module *m, const char *name) {
    LOCK;
    ENTER;
    if (!m || !name) return CU_INVALID_VALUE;
    for (int i = 0; i < m->nsym; i++)
        if (!strcmp(m->syms[i].name, name)) {
            if (p) *p = m->syms[i].addr;
            if (bytes) *bytes = m->syms[i].size;
            return CU_OK;
        }
    return CU_NOT_FOUND;
}

/* ---- memory ---- */

API cuMemAlloc_v2(CUdeviceptr *p, size_t bytes) {
    LOCK;
    ENTER;
    if (!p || !bytes) return CU_INVALID_VALUE;
    if (api_capturing()) return CU_CAPTURE_UNSUPPORTED;
    mem_device = current->device;
    if (bytes > total_memory() - mem_used(mem_device)) return CU_OUT_OF_MEMORY;
    static int number;
    char name[32];
    snprintf(name, sizeof name, "alloc#%d", ++number);
    *p = mem_alloc(bytes, name);
    return *p ? CU_OK : CU_OUT_OF_MEMORY;
}

API cuMemFree_v2(CUdeviceptr p) {
    LOCK;
    ENTER;
    if (!p) return CU_OK;
    if (api_capturing()) return CU_CAPTURE_UNSUPPORTED;
    CUresult r = stream_sync_all();
    return mem_free(p) ? CU_INVALID_VALUE : r;
}

API cuMemGetInfo_v2(size_t *free_bytes, size_t *total) {
    LOCK;
    ENTER;
    if (!free_bytes || !total) return CU_INVALID_VALUE;
    *total = total_memory();
    *free_bytes = *total - mem_used(current->device);
    return CU_OK;
}

bool host_pinned(uint64_t addr, uint64_t bytes) {
    for (int i = 0; i < npinned; i++)
        if (addr >= pinned[i].addr && bytes <= pinned[i].bytes &&
            addr - pinned[i].addr <= pinned[i].bytes - bytes) return true;
    return false;
}

static CUresult pin(void *p, size_t bytes, bool owned) {
    if (npinned == (int)(sizeof pinned / sizeof *pinned)) return CU_OUT_OF_MEMORY;
    pinned[npinned].addr = (uintptr_t)p;
    pinned[npinned].bytes = bytes;
    pinned[npinned++].owned = owned;
    return CU_OK;
}

API cuMemHostAlloc(void **p, size_t bytes, unsigned flags) {
    LOCK;
    ENTER;
    (void)flags;
    if (!p || !bytes) return CU_INVALID_VALUE;
    *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (*p == MAP_FAILED) return CU_OUT_OF_MEMORY;
    return pin(*p, bytes, true);
}

API cuMemHostRegister_v2(void *p, size_t bytes, unsigned flags) {
    LOCK;
    ENTER;
    (void)flags;
    return p && bytes ? pin(p, bytes, false) : CU_INVALID_VALUE;
}

typedef struct { uint64_t addr, bytes; } Range;

static void forget_host(Cmd *c, void *arg) {
    const Range *r = arg;
    uint64_t *p = c->kind == CMD_TO_DEVICE && !c->staged ? &c->src
                : c->kind == CMD_TO_HOST ? &c->dst : NULL;
    if (!p || *p < r->addr || *p - r->addr >= r->bytes) return;
    check_host("host-buffer-freed", c->name,
               "pinned memory was freed while a copy of %llu bytes was "
               "pending",
               (unsigned long long)c->bytes);
    *p = 0;
}

static CUresult unpin(void *p, bool owned) {
    for (int i = 0; i < npinned; i++) {
        if (pinned[i].addr != (uintptr_t)p || pinned[i].owned != owned) continue;
        Range r = {pinned[i].addr, pinned[i].bytes};
        stream_pending(forget_host, &r);
        if (owned) munmap(p, r.bytes);
        pinned[i] = pinned[--npinned];
        return CU_OK;
    }
    return CU_INVALID_VALUE;
}

API cuMemFreeHost(void *p) { LOCK; ENTER; return unpin(p, true); }
API cuMemHostUnregister(void *p) { LOCK; ENTER; return unpin(p, false); }

/* A GPU's driver also copies to and from the memory of another device than the stream's, by way of
 * the host where it must; here that is a finding: it is a mistake more often than meant. */
static bool range_ok(const char *what, CUdeviceptr p, size_t bytes, const struct Stream *s) {
    const Alloc *a = mem_find(p);
    if (a && !a->freed && bytes <= a->size - (p - a->addr)) {
        if (s && a->device != stream_device(s))
            check_host("wrong-device", what, "%s: %s is memory of device %d, the stream is one of "
                       "device %d", what, a->name, a->device, stream_device(s));
        return true;
    }
    check_host(a && a->freed ? "use-after-free" : "out-of-bounds", what,
               "%s of %zu bytes at 0x%llx: "
               "outside every allocation",
               what, bytes, (unsigned long long)p);
    return false;
}

API cuMemcpyHtoDAsync_v2(CUdeviceptr dst, const void *src, size_t bytes, CUstream h) {
    LOCK;
    ENTER_STREAM(s, h);
    if (!bytes) return CU_OK;
    if (!src || !range_ok("copy to device", dst, bytes, s)) return CU_INVALID_VALUE;
    Cmd c = {.kind = CMD_TO_DEVICE, .dst = dst, .src = (uintptr_t)src, .bytes = bytes};
    if (host_pinned(c.src, bytes)) {
        c.hash = host_hash(src, bytes);
    } else {
        c.staged = malloc(bytes);
        if (!c.staged) return CU_OUT_OF_MEMORY;
        memcpy(c.staged, src, bytes);
    }
    return stream_add(s, &c, "copy to device");
}

API cuMemcpyDtoHAsync_v2(void *dst, CUdeviceptr src, size_t bytes, CUstream h) {
    LOCK;
    ENTER_STREAM(s, h);
    if (!bytes) return CU_OK;
    if (!dst || !range_ok("copy to host", src, bytes, s)) return CU_INVALID_VALUE;
    memset(dst, 0xdb, bytes);            /* poison: wrong until someone waits */
    return stream_add(s, &(Cmd){.kind = CMD_TO_HOST, .dst = (uintptr_t)dst, .src = src,
                                .bytes = bytes}, "copy to host");
}

API cuMemcpyDtoDAsync_v2(CUdeviceptr dst, CUdeviceptr src, size_t bytes, CUstream h) {
    LOCK;
    ENTER_STREAM(s, h);
    if (!bytes) return CU_OK;
    if (!range_ok("copy on device", dst, bytes, NULL) || !range_ok("copy on device", src, bytes, NULL))
        return CU_INVALID_VALUE;
    return stream_add(s, &(Cmd){.kind = CMD_ON_DEVICE, .dst = dst, .src = src, .bytes = bytes},
                      "copy on device");
}

API cuMemsetD8Async(CUdeviceptr dst, unsigned char v, size_t bytes, CUstream h) {
    LOCK;
    ENTER_STREAM(s, h);
    if (!bytes) return CU_OK;
    if (!range_ok("fill", dst, bytes, s)) return CU_INVALID_VALUE;
    return stream_add(s, &(Cmd){.kind = CMD_FILL, .dst = dst, .bytes = bytes, .value = v}, "fill");
}

API cuMemcpyHtoD_v2(CUdeviceptr dst, const void *src, size_t bytes) {
    CUresult r = cuMemcpyHtoDAsync_v2(dst, src, bytes, NULL);
    return r ? r : stream_sync(stream_default());
}

API cuMemcpyDtoH_v2(void *dst, CUdeviceptr src, size_t bytes) {
    CUresult r = cuMemcpyDtoHAsync_v2(dst, src, bytes, NULL);
    return r ? r : stream_sync(stream_default());
}
