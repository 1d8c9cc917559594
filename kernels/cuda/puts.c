/* puts.c: small copies from the host, gathered: a decode step sets nine small arrays (tokens, positions,
 * lengths, ...), and nine copies would each cost a driver call and a turn of the copy engine.
 *
 * What a small put() brings is kept here; before the next launch one vl_put joins the program, which
 * moves it all from one buffer to its places, and flush brings that buffer over in one copy, ahead of
 * the program. Easy to get wrong: later puts of the same program must not overwrite what an earlier
 * vl_put of it has yet to read, so the buffer only fills until the program is handed over. */
#include "kernels/cuda/backend.h"

#include <stdlib.h>

enum { SMALL = 16 << 10, CAPACITY = 64 << 10, THREADS = 256, WORDS_OF_BLOCK = 4 * THREADS };

int cuda_puts_open(cuda_backend *b, vl_err *err) {
    b->puts.host = vl_calloc(CAPACITY, 1);
    if (!b->puts.host) return vl_fail(err, VL_E_NOMEM, "no memory for copies to the GPU");
    b->puts.device = cuda_memory(b, CAPACITY, err);
    return b->puts.device ? 0 : -1;
}

void cuda_puts_close(cuda_backend *b) {
    if (b->puts.device) b->d.MemFree((uintptr_t)b->puts.device);
    free(b->puts.host);
    b->puts = (cuda_puts){0};
}

/* Does what waits write to these bytes? Parts of one launch have no order. */
static bool overlaps(const put_args *a, const void *dst, size_t bytes) {
    for (int i = 0; i < a->n; i++) {
        const uint8_t *to = a->part[i].to;
        if ((const uint8_t *)dst < to + (size_t)a->part[i].words * 4 && to < (const uint8_t *)dst + bytes) return true;
    }
    return false;
}

bool cuda_put_small(cuda_backend *b, void *dst, const void *src, size_t bytes) {
    cuda_puts *p = &b->puts;
    if (bytes > SMALL || bytes % 4 || (uintptr_t)dst % 4) return false;
    if (p->waiting.n == PUT_PARTS || p->used + bytes > CAPACITY || overlaps(&p->waiting, dst, bytes)) cuda_flush(b);
    memcpy(p->host + p->used, src, bytes);
    p->waiting.part[p->waiting.n++] = (put_part){dst, (int32_t)(p->used / 4), (int32_t)(bytes / 4)};
    p->used += bytes;
    return true;
}

void cuda_puts_launch(cuda_backend *b) {
    put_args a = b->puts.waiting;
    int most = 0;
    if (a.n == 0) return;
    b->puts.waiting = (put_args){0};
    a.from = b->puts.device;
    for (int i = 0; i < a.n; i++)
        if (a.part[i].words > most) most = a.part[i].words;
    cuda_launch(b, K_put, (size_t)cuda_up(most, WORDS_OF_BLOCK), (int)a.n, 1, THREADS, CUDA_ARGS(CUDA_ARG(a)));
}

/* From pageable memory, which the driver has read when the call returns. */
bool cuda_puts_copy(cuda_backend *b) {
    size_t bytes = b->puts.used;
    b->puts.used = 0;
    return !bytes || cuda_ok(b, b->d.CopyToDevice((uintptr_t)b->puts.device, b->puts.host, bytes, b->stream),
                             "copying to the GPU");
}
