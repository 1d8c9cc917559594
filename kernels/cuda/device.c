/* device.c: opens device, context, stream and module; memory. */
#include "kernels/cuda/backend.h"

#include <stdio.h>
#include <stdlib.h>

enum { OLDEST = 75, PDL = 900, MIB = 20 };

bool cuda_ok(cuda_backend *b, CUresult e, const char *what) {
    if (b->fault.code) return false;
    return cuda_check(&b->d, e, what, &b->fault) == 0;
}

bool cuda_wait(cuda_backend *b) {
    if (b->group) return cuda_group_wait(b->group, b);
    return !b->fault.code && cuda_ok(b, b->d.StreamSynchronize(b->stream), "waiting for the GPU");
}

bool cuda_enter(cuda_backend *b) {
    pthread_mutex_lock(&b->lock);
    if (cuda_ok(b, b->d.CtxSetCurrent(b->context), "making the GPU context current")) return true;
    pthread_mutex_unlock(&b->lock);
    return false;
}

void cuda_leave(cuda_backend *b) { pthread_mutex_unlock(&b->lock); }

/* ---- memory ----------------------------------------------------------------------------------- */

/* Device memory, contents undefined; NULL and a message with what is free, if there is not enough. */
void *cuda_memory(cuda_backend *b, size_t bytes, vl_err *err) {
    CUdeviceptr p = 0;
    size_t left = 0, total = 0;
    CUresult e = b->d.MemAlloc(&p, bytes ? bytes : 1);
    if (e == CU_OK) return (void *)(uintptr_t)p;
    b->d.MemGetInfo(&left, &total);
    if (e == CU_OUT_OF_MEMORY)
        vl_fail(err, VL_E_NOMEM, "%s has %zu of %zu MiB free, %zu MiB more are needed; end other "
                "programs on it, or use --backend cpu", b->name, left >> MIB, total >> MIB,
                (bytes + (1u << MIB) - 1) >> MIB);
    else
        cuda_check(&b->d, e, "device memory", err);
    return NULL;
}

bool cuda_reserve(cuda_backend *b, cuda_buffer *buffer, size_t bytes) {
    if (b->fault.code) return false;
    if (bytes <= buffer->bytes) return true;
    cuda_flush(b);
    if (!cuda_wait(b)) return false;
    if (buffer->p) b->d.MemFree((uintptr_t)buffer->p);
    buffer->p = cuda_memory(b, bytes, &b->fault);
    buffer->bytes = buffer->p ? bytes : 0;
    return buffer->p;
}

/* ---- opening ---------------------------------------------------------------------------------- */

static int open_context(cuda_backend *b, vl_err *err) {
    const cuda_driver *d = &b->d;
    int n = 0, major = 0, minor = 0, khz = 0, bits = 0;
    char what[32];
    CUresult e = d->Init(0);
    if (e == CU_OK) e = d->DeviceGetCount(&n);
    if (e != CU_OK || n == 0) {
        vl_err why = {0};
        cuda_check(d, e, "starting the driver", &why);
        return vl_fail(err, VL_E_BACKEND, "the CUDA driver is there, but no GPU that it can use%s%.120s",
                       why.code ? ": " : "", why.msg);
    }
    if (b->ordinal >= n)
        return vl_fail(err, VL_E_BACKEND, "GPU %d is not there: the driver shows %d; use fewer (--gpus), or look at "
                       "CUDA_VISIBLE_DEVICES", b->ordinal, n);
    snprintf(what, sizeof what, "opening GPU %d", b->ordinal);
    if (cuda_check(d, d->DeviceGet(&b->device, b->ordinal), what, err) ||
        cuda_check(d, d->DeviceGetName(b->name, sizeof b->name, b->device), what, err) ||
        cuda_check(d, d->DeviceGetAttribute(&major, CU_CC_MAJOR, b->device), what, err) ||
        cuda_check(d, d->DeviceGetAttribute(&b->sms, CU_SMS, b->device), what, err) ||
        cuda_check(d, d->DeviceGetAttribute(&minor, CU_CC_MINOR, b->device), what, err))
        return -1;
    if (d->DeviceGetAttribute(&khz, CU_MEMORY_KHZ, b->device) || d->DeviceGetAttribute(&bits, CU_BUS_BITS, b->device))
        bits = 0; /* only a hint: fetch_weights() */
    b->bytes_per_us = 2e-3 * khz * bits / 8; /* two transfers a clock */
    if (major * 10 + minor < OLDEST)
        return vl_fail(err, VL_E_BACKEND, "%s has compute capability %d.%d; 7.5 (T4) or later is needed",
                       b->name, major, minor);
    if (cuda_check(d, d->PrimaryCtxRetain(&b->context, b->device), "opening a context", err)) return -1;
    return cuda_check(d, d->CtxSetCurrent(b->context), "opening a context", err) ||
           cuda_check(d, d->StreamCreate(&b->stream, CU_NON_BLOCKING), "opening a stream", err) ? -1 : 0;
}

static int open_stages(cuda_backend *b, vl_err *err) {
    const cuda_driver *d = &b->d;
    for (int i = 0; i < CUDA_STAGES; i++) {
        cuda_stage *s = &b->stage[i];
        if (cuda_check(d, d->MemHostAlloc(&s->pinned, CUDA_STAGE_BYTES, 0), "pinned memory", err) ||
            cuda_check(d, d->EventCreate(&s->done, 0), "an event", err))
            return -1;
        if (!(s->device = cuda_memory(b, CUDA_STAGE_BYTES, err))) return -1;
    }
    return 0;
}

/* Which code runs on this device. */
static int ask_arch(cuda_backend *b, vl_err *err) {
    CUdeviceptr p = (uintptr_t)b->stage[0].device;
    int *arch = b->stage[0].pinned;
    cuda_launch(b, K_arch, 1, 1, 1, 32, CUDA_ARGS(CUDA_ARG(p)));
    cuda_flush(b);
    if (b->fault.code) return vl_fail(err, b->fault.code, "%s", b->fault.msg);
    if (cuda_check(&b->d, b->d.CopyToHost(arch, p, sizeof *arch, b->stream), "asking the GPU", err) ||
        cuda_check(&b->d, b->d.StreamSynchronize(b->stream), "asking the GPU", err))
        return -1;
    b->arch = *arch;
    b->use_pdl = b->arch >= PDL && b->d.LaunchEx;
    for (int k = 0; k < CUDA_KERNEL_COUNT; k++) {
        unsigned bytes = cuda_shared(b, (cuda_kernel)k);
        if (bytes && cuda_check(&b->d, b->d.FuncSetAttribute(b->kernel[k], CU_FUNC_DYNAMIC_SHARED, (int)bytes),
                                "shared memory", err))
            return -1;
    }
    return 0;
}

static int open_counters(cuda_backend *b, vl_err *err) {
    size_t bytes = (CUDA_COUNTERS + 2) * sizeof *b->arrived + CUDA_FEW_ROWS * sizeof *b->best;
    if (!(b->arrived = cuda_memory(b, bytes, err))) return -1;
    b->best = (uint64_t *)(void *)(b->arrived + CUDA_COUNTERS + 2);
    return cuda_check(&b->d, b->d.Fill((uintptr_t)b->arrived, 0, bytes, b->stream), "clearing", err);
}

/* Whatever may make other bits of the same request (a cache key has it). */
static int describe(cuda_backend *b, vl_err *err) {
    int driver = 0, blas = 0;
    char library[32] = "";
    if (cuda_check(&b->d, b->d.DriverGetVersion(&driver), "asking for the driver's version", err)) return -1;
    if (b->blas.handle && b->blas.GetVersion(b->blas.handle, &blas) == 0)
        snprintf(library, sizeof library, ", cuBLAS %d", blas);
    snprintf(b->described, sizeof b->described, "%s, code sm_%d, driver API %d.%d%s", b->name, b->arch / 10,
             driver / 1000, driver % 1000 / 10, library);
    return 0;
}

int cuda_device_open(cuda_backend *b, vl_err *err) {
    if (cuda_image_bytes == 0)
        return vl_fail(err, VL_E_BACKEND, "this build has no GPU kernels: nvcc was not there; install "
                       "the CUDA toolkit (12.8 or later), put nvcc on the PATH and run make again");
    if (cuda_driver_open(&b->d, err) || open_context(b, err) || cuda_program_open(b, err) ||
        open_stages(b, err) || cuda_puts_open(b, err) || open_counters(b, err) || ask_arch(b, err) || cuda_blas_open(b, err) ||
        describe(b, err))
        return -1;
    return 0;
}

void cuda_device_close(cuda_backend *b) {
    const cuda_driver *d = &b->d;
    if (b->context) {
        d->CtxSetCurrent(b->context);
        if (b->stream) d->StreamSynchronize(b->stream);
        for (int i = 0; i < CUDA_STAGES; i++) {
            if (b->stage[i].pinned) d->MemFreeHost(b->stage[i].pinned);
            if (b->stage[i].device) d->MemFree((uintptr_t)b->stage[i].device);
            if (b->stage[i].done) d->EventDestroy(b->stage[i].done);
        }
        cuda_puts_close(b);
        if (b->scratch.p) d->MemFree((uintptr_t)b->scratch.p);
        for (int i = 0; i < 2; i++)
            if (b->packed[i].p) d->MemFree((uintptr_t)b->packed[i].p);
        if (b->arrived) d->MemFree((uintptr_t)b->arrived);
        cuda_weights_free(b);
        cuda_program_close(b);
        cuda_blas_close(b);
        if (b->stream) d->StreamDestroy(b->stream);
        d->PrimaryCtxRelease(b->device);
    }
    cuda_driver_close(&b->d);
}
