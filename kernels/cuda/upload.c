/* upload.c: weights from the checkpoint to the device: host mapping -> pinned buffer -> staging
 * buffer -> fragment order (vl_pack_weight), and rows of bf16 where cuBLAS is to read them. Two of each, so that the host copies the next rows
 * while the device packs the last. F32 and F16 are rounded to bf16 on the device. */
#include "kernels/cuda/backend.h"

#include <stdlib.h>

/* Rows [row, row + n) of w, n <= what a stage holds. */
static int upload_rows(cuda_backend *b, const vl_matrix *w, const cuda_weight *to, int row, int n,
                       vl_err *err) {
    const cuda_driver *d = &b->d;
    cuda_stage *s = &b->stage[b->next_stage];
    size_t each = (size_t)w->cols * vl_dtype_size(w->dtype), bytes = each * (size_t)n;
    size_t tile_row = (size_t)cuda_k_tiles(w->cols) * 512;
    b->next_stage = (b->next_stage + 1) % CUDA_STAGES;
    if (cuda_check(d, d->EventSynchronize(s->done), w->name, err)) return -1;
    memcpy(s->pinned, (const uint8_t *)w->data + (size_t)row * each, bytes);
    if (cuda_check(d, d->CopyToDevice((uintptr_t)s->device, s->pinned, bytes, b->stream), w->name, err))
        return -1;
    void *dst = (uint8_t *)to->tiles + (size_t)(row / 16) * tile_row, *src = s->device;
    int dtype = (int)w->dtype, K = w->cols;
    uint32_t *largest = b->arrived + CUDA_COUNTERS;
    cuda_launch(b, K_pack_weight, (size_t)cuda_up(K, 256), cuda_up(n, 16), 1, 256,
                CUDA_ARGS(CUDA_ARG(dst), CUDA_ARG(src), CUDA_ARG(dtype), CUDA_ARG(n), CUDA_ARG(K),
                          CUDA_ARG(largest)));
    if (to->plain) {
        void *rows = (uint8_t *)to->plain + (size_t)row * (tile_row / 16);
        cuda_launch(b, K_plain_rows, (size_t)n, 1, 1, 256,
                    CUDA_ARGS(CUDA_ARG(rows), CUDA_ARG(src), CUDA_ARG(dtype), CUDA_ARG(K), CUDA_ARG(K)));
    }
    cuda_flush(b);
    return cuda_check(d, d->EventRecord(s->done, b->stream), w->name, err);
}

/* Without bf16 units the weights become fp16 on their way to the tensor cores. */
static int check_range(cuda_backend *b, const vl_matrix *w, unsigned use, vl_err *err) {
    const cuda_driver *d = &b->d;
    CUdeviceptr p = (uintptr_t)(b->arrived + CUDA_COUNTERS);
    float largest = 0;
    if (cuda_check(d, d->CopyToHost(&largest, p, sizeof largest, b->stream), w->name, err) ||
        cuda_check(d, d->StreamSynchronize(b->stream), w->name, err) ||
        cuda_check(d, d->Fill(p, 0, sizeof largest, b->stream), w->name, err))
        return -1;
    if (largest < CUDA_FP16_LIMIT || !(use & VL_USE_LINEAR)) return 0;
    return vl_fail(err, VL_E_UNSUPPORTED, "%s has a weight of %g; %s computes in fp16, which ends at %d: use "
                   "--backend cpu", w->name, (double)largest, b->name, CUDA_FP16_LIMIT - 1);
}

/* Every matrix has one form on the device, for linear and for gather; with cuBLAS a second, which
 * doubles their memory. Not the head, which sees few rows. */
int cuda_prepare(vl_backend *base, vl_matrix *w, unsigned use, vl_err *err) {
    cuda_backend *b = cuda_of(base);
    vl_err why = {0};
    if (w->dtype == VL_F8_E4M3)
        return vl_fail(err, VL_E_UNSUPPORTED, "tensor %s is F8_E4M3, which the GPU backend does not read; use "
                       "--backend cpu", w->name);
    vl_assert(w->rows > 0 && w->cols > 0 && w->dtype <= VL_BF16, "%s: [%d, %d] of type %d", w->name,
              w->rows, w->cols, (int)w->dtype);
    size_t each = (size_t)w->cols * vl_dtype_size(w->dtype);
    size_t bytes = ((size_t)w->rows + 15) / 16 * (size_t)cuda_k_tiles(w->cols) * 512;
    int most = (int)(CUDA_STAGE_BYTES / each) / 16 * 16;
    if (most == 0)
        return vl_fail(err, VL_E_UNSUPPORTED, "%s: %d columns are too many for the GPU", w->name, w->cols);
    cuda_weight *p = vl_calloc(1, sizeof *p);
    if (!p) return vl_fail(err, VL_E_NOMEM, "no memory for %s", w->name);
    if (!cuda_enter(b)) {
        free(p);
        return vl_fail(err, b->fault.code, "%s", b->fault.msg);
    }
    p->tiles = cuda_memory(b, bytes, &why);
    if (p->tiles && b->blas.library && use & VL_USE_LINEAR && !(use & VL_USE_HEAD)) p->plain = cuda_memory(b, bytes, &why);
    if (why.code) {
        if (p->tiles) b->d.MemFree((uintptr_t)p->tiles);
        cuda_leave(b);
        free(p);
        return vl_fail(err, why.code, "%s: %s", w->name, why.msg);
    }
    p->next = b->weights;
    b->weights = p;
    w->impl = p;
    int rc = 0;
    for (int row = 0; row < w->rows && !rc; row += most)
        rc = upload_rows(b, w, p, row, w->rows - row < most ? w->rows - row : most, err);
    if (!rc && b->arch < CUDA_BF16_UNITS) rc = check_range(b, w, use, err);
    cuda_leave(b);
    return rc;
}

void cuda_weights_free(cuda_backend *b) {
    while (b->weights) {
        cuda_weight *p = b->weights;
        b->weights = p->next;
        b->d.MemFree((uintptr_t)p->tiles);
        if (p->plain) b->d.MemFree((uintptr_t)p->plain);
        free(p);
    }
}
