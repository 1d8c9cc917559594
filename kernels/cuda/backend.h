/* backend.h: what the files of the CUDA backend share.
 *
 *   driver.c     the driver API, found at run time       image.c    the embedded kernels
 *   device.c     device, module, memory, launches        upload.c   weights -> fragment order
 *   ops_cuda.c   the op table
 *   *.cuh        the kernels (kernels.cu is their translation unit)
 *
 * One stream, so ops run in the order they were called. A mutex makes each op whole: two sessions
 * may share a backend. The first failure of the driver is kept and comes out of sync(). */
#ifndef VL_CUDA_BACKEND_H
#define VL_CUDA_BACKEND_H

#include <pthread.h>

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/driver.h"

#define CUDA_KERNELS(X)                                                                            \
    X(arch) X(embed) X(pos_embed) X(layernorm) X(rmsnorm) X(qk_norm_rope) X(rope_vision) X(swiglu) \
    X(move_rows) X(argmax) X(pack_weight) X(pack_rows) X(linear_few) X(linear_few_odd)             \
    X(linear_many) X(attend_64) X(attend_80) X(attend_128) X(attend_combine) X(attend_plain)       \
    X(segment_blocks)

typedef enum cuda_kernel {
#define X(name) K_##name,
    CUDA_KERNELS(X)
#undef X
    CUDA_KERNEL_COUNT
} cuda_kernel;

/* Device memory that grows on demand, never inside a steady decode. */
typedef struct cuda_buffer { void *p; size_t bytes; } cuda_buffer;

typedef struct cuda_weight {
    struct cuda_weight *next;
    void *tiles;               /* fragment order, [ceil(N / 16)][k_tiles(K)][512 bytes]  */
} cuda_weight;

/* Host memory on its way to the device. */
typedef struct cuda_stage {
    void *pinned, *device;     /* STAGE_BYTES each                                       */
    CUevent done;              /* the device has read it                                 */
} cuda_stage;

enum { CUDA_STAGES = 2, CUDA_STAGE_BYTES = 16 << 20 };

typedef struct cuda_backend {
    vl_backend base;
    cuda_driver d;
    pthread_mutex_t lock;
    vl_err fault;              /* code 0: nothing went wrong so far                      */
    char name[128];            /* of the device                                          */
    CUdevice device;
    CUcontext context;
    CUmodule module;
    CUstream stream;
    CUfunction kernel[CUDA_KERNEL_COUNT];
    int arch;                  /* __CUDA_ARCH__ of the code that runs: 750, 800, ...     */
    cuda_stage stage[CUDA_STAGES];
    int next_stage;
    cuda_weight *weights;      /* every prepared matrix, for close()                     */
    cuda_buffer scratch;       /* of one attention op                                    */
    cuda_buffer packed;        /* the last input of linear in fragment order, and whose: */
    const float *packed_x;     /* NULL: nobody's                                         */
    int packed_ld, packed_T, packed_K;
} cuda_backend;

static inline cuda_backend *cuda_of(vl_backend *b) { return (cuda_backend *)(void *)b; }
static inline int cuda_k_tiles(int K) { return (K + 31) / 32 * 2; }

/* device.c */
int cuda_device_open(cuda_backend *b, vl_err *err);
void cuda_device_close(cuda_backend *b);
/* Takes the lock and makes the context current; false (and nothing to leave) after a failure. */
bool cuda_enter(cuda_backend *b);
void cuda_leave(cuda_backend *b);
/* Remembers the first failure. True: all is well. Between enter and leave. */
bool cuda_ok(cuda_backend *b, CUresult e, const char *what);
void cuda_launch(cuda_backend *b, cuda_kernel k, size_t gx, int gy, int gz, int threads, void **args);
#define CUDA_ARGS(...) ((void *[]){__VA_ARGS__})
void *cuda_memory(cuda_backend *b, size_t bytes, vl_err *err);
bool cuda_reserve(cuda_backend *b, cuda_buffer *buffer, size_t bytes);

/* upload.c */
int cuda_prepare(vl_backend *b, vl_matrix *w, unsigned use, vl_err *err);
void cuda_weights_free(cuda_backend *b);

/* image.c: the kernels as nvcc made them; empty when it was not there. */
extern const uint8_t cuda_image[];
extern const uint64_t cuda_image_bytes;

#endif
