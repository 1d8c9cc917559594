/* backend.h: what the files of the CUDA backend share.
 *
 *   driver.c     the driver API, found at run time       image.c    the embedded kernels
 *   device.c     device, module, memory                  upload.c   weights -> fragment order
 *   ops_cuda.c   the op table                            fuse.c     ops of a decode step -> one launch
 *   puts.c       small copies to the device, gathered
 *   program.c    launches, kept until something waits, so that a repeated row of them is one graph
 *   group.c, group_run.c, nccl.c   several GPUs behind one op table (group.h)
 *   blas.c       cuBLAS in the place of vl_many_*, when VL_KERNEL=gemm=cublas asks for it
 *   *.cuh        the kernels (kernels.cu is their translation unit), args.h their argument blocks
 *
 * One stream, so ops run in the order they were called. A mutex makes each op whole: two sessions
 * may share a backend. The first failure of the driver is kept and comes out of sync(). */
#ifndef VL_CUDA_BACKEND_H
#define VL_CUDA_BACKEND_H

#include <pthread.h>

#include "kernels/cuda/args.h"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/driver.h"

#define CUDA_KERNELS(X)                                                                            \
    X(arch) X(embed) X(pos_embed) X(layernorm) X(rmsnorm) X(qk_norm_rope) X(rope_vision) X(swiglu) \
    X(move_rows) X(argmax) X(pack_weight) X(pack_rows) X(linear_few) X(linear_few_odd)             \
    X(many_192) X(many_128) X(many_96) X(many_64) X(gate_up_many) X(norm_linear) X(gate_up) X(qkv) X(attend_64) X(attend_80) X(attend_128) \
    X(attend_plain) X(segment_blocks) X(plain_rows) X(finish_rows) X(take_columns) X(place_columns) X(put)

typedef enum cuda_kernel {
#define X(name) K_##name,
    CUDA_KERNELS(X)
#undef X
    CUDA_KERNEL_COUNT,
    CUDA_GEMM = CUDA_KERNEL_COUNT, /* no kernel of ours: a product by cuBLAS, cuda_gemm */
    CUDA_GATHER                /* columns of all ranks by NCCL, cuda_gather (nccl.h)       */
} cuda_kernel;

/* Device memory that grows on demand, never inside a steady decode. */
typedef struct cuda_buffer { void *p; size_t bytes; } cuda_buffer;

typedef struct cuda_weight {
    struct cuda_weight *next;
    void *tiles;               /* fragment order, [ceil(N / 16)][k_tiles(K)][512 bytes]  */
    void *plain;               /* for cuBLAS: [N][k_tiles(K) * 16] bf16, or NULL          */
} cuda_weight;

/* Small puts that wait (puts.c). */
typedef struct cuda_puts {
    uint8_t *host, *device;    /* the same bytes, once the program is handed over         */
    size_t used;               /* of them, by this program                                */
    put_args waiting;          /* for the next launch                                     */
} cuda_puts;

/* Host memory on its way to the device. */
typedef struct cuda_stage {
    void *pinned, *device;     /* STAGE_BYTES each                                       */
    CUevent done;              /* the device has read it                                 */
} cuda_stage;

enum { CUDA_STAGES = 2, CUDA_STAGE_BYTES = 16 << 20 };

/* One argument of a launch; the list ends with {0}. */
typedef struct cuda_arg { const void *p; size_t bytes; } cuda_arg;
#define CUDA_ARG(v) {&(v), sizeof(v)}
#define CUDA_ARGS(...) ((const cuda_arg[]){__VA_ARGS__, {0}})

enum { CUDA_ARGS_MAX = 18, CUDA_CALLS_MAX = 1024, CUDA_CALL_BYTES = 256, CUDA_GRAPHS = 64 };

/* One launch of a program; `arg` are places of its arguments in the program's values. */
typedef struct cuda_call {
    cuda_kernel kernel;
    unsigned grid[3], threads, shared, at, bytes, args; /* at, bytes: of its values        */
    uint16_t arg[CUDA_ARGS_MAX];                /* from `at`                               */
} cuda_call;
typedef struct cuda_program {
    cuda_call *call;
    uint8_t *values;
    size_t calls, bytes;
} cuda_program;
/* A program that was seen: the same launches on the same grids. */
typedef struct cuda_graph {
    cuda_program program;      /* calls NULL: unused. Values: those of the last run        */
    CUgraphExec exec;          /* NULL: seen once                                          */
    CUgraphNode *node;         /* [calls]                                                  */
    uint64_t last_use;
} cuda_graph;

/* An op that may become part of a fused launch. */
typedef struct cuda_op {
    enum { CUDA_RMSNORM, CUDA_LINEAR, CUDA_ROPE, CUDA_SWIGLU, CUDA_TURN } kind;
    union {
        struct { float *out; const float *x, *w; int T, D; float eps; } norm;
        struct {
            float *out;
            const float *x, *bias;
            const vl_matrix *w;
            int ldo, ldx, T;
            vl_epilogue epi;
        } linear;
        vl_rope_kv_args rope;
        struct { float *out; const float *gate, *up; int T, F; } swiglu;
        struct { float *qkv; const float *cos, *sin; int P, H, E; } turn; /* rope_vision */
    };
} cuda_op;
/* out [T, N] = x W^T + beta out; x and W bf16 with K columns each (padded with zeros), out f32. */
typedef struct cuda_gemm {
    float *out;
    const void *x, *w;
    int T, N, K, ldo;
    float beta, unused;        /* no padding: programs compare their bytes */
} cuda_gemm;

/* cuBLAS, found at run time. library NULL: not asked for. */
typedef struct cuda_blas {
    void *library, *handle;
    CUdeviceptr workspace;     /* given to cuBLAS, so that it allocates nothing while a graph is captured */
    int (*Create)(void **handle);
    int (*Destroy)(void *handle);
    int (*SetStream)(void *handle, CUstream s);
    int (*SetWorkspace)(void *handle, void *workspace, size_t bytes);
    int (*SetMathMode)(void *handle, int mode);
    int (*GetVersion)(void *handle, int *version);
    int (*GemmEx)(void *handle, int trans_a, int trans_b, int m, int n, int k, const void *alpha,
                  const void *a, int type_a, int lda, const void *b, int type_b, int ldb,
                  const void *beta, void *c, int type_c, int ldc, int compute, int algorithm);
} cuda_blas;

enum { CUDA_PENDING = 4 };     /* a norm and up to three products of what it left          */

typedef struct cuda_backend {
    vl_backend base;
    cuda_driver d;
    pthread_mutex_t lock;
    vl_err fault;              /* code 0: nothing went wrong so far                      */
    char name[128];            /* of the device                                          */
    int ordinal;               /* its number, as the driver counts                       */
    struct cuda_group *group;  /* whose rank it is, or NULL                              */
    char described[208];       /* name, code, driver, cuBLAS                             */
    CUdevice device;
    CUcontext context;
    CUmodule module;
    CUstream stream;
    CUfunction kernel[CUDA_KERNEL_COUNT];
    double bytes_per_us;       /* of the device's memory, by its data sheet              */
    int sms;                   /* multiprocessors of the device                          */
    int arch;                  /* __CUDA_ARCH__ of the code that runs: 750, 800, ...     */
    cuda_stage stage[CUDA_STAGES];
    int next_stage;
    cuda_weight *weights;      /* every prepared matrix, for close()                     */
    cuda_buffer scratch;       /* of one attention op                                    */
    cuda_buffer packed[2];     /* inputs of linear as its kernels want them; one of them:      */
    int packed_in;             /* which holds the rows [T, ld] at                        */
    const float *packed_x;     /* NULL: nobody's                                         */
    int packed_ld, packed_T, packed_K;
    bool packed_plain;         /* rows for cuBLAS; else fragment order                   */
    size_t part_bytes;         /* most that products and attention take for partial sums */
    uint64_t *best;            /* device [CUDA_FEW_ROWS] zeros, between launches: vl_norm_linear's */
    uint32_t *arrived;         /* device [CUDA_COUNTERS] zeros, between launches; and the
                                * largest weight of a matrix that is being uploaded (sm_75) */
    cuda_op pending[CUDA_PENDING];
    int n_pending;
    cuda_puts puts;
    cuda_program program;      /* launches that wait to be run                           */
    cuda_graph graph[CUDA_GRAPHS];
    uint64_t runs;             /* of programs, for last_use                              */
    cuda_blas blas;
    bool use_graphs, use_pdl, use_fused;
} cuda_backend;

enum { CUDA_COUNTERS = 1 << 16, CUDA_PART_BYTES = 64 << 20, CUDA_FEW_ROWS = 16, CUDA_BF16_UNITS = 800, CUDA_FP16_LIMIT = 65505 };

static inline cuda_backend *cuda_of(vl_backend *b) { return (cuda_backend *)(void *)b; }
static inline int cuda_k_tiles(int K) { return (K + 31) / 32 * 2; }
static inline int cuda_up(int a, int b) { return (a + b - 1) / b; }

/* device.c */
int cuda_device_open(cuda_backend *b, vl_err *err);
void cuda_device_close(cuda_backend *b);
/* Takes the lock and makes the context current; false (and nothing to leave) after a failure. */
bool cuda_enter(cuda_backend *b);
void cuda_leave(cuda_backend *b);
/* Remembers the first failure. True: all is well. Between enter and leave. */
bool cuda_ok(cuda_backend *b, CUresult e, const char *what);
/* For all that the stream has; false after a failure, which may leave a collective that never ends. */
bool cuda_wait(cuda_backend *b);
void *cuda_memory(cuda_backend *b, size_t bytes, vl_err *err);
bool cuda_reserve(cuda_backend *b, cuda_buffer *buffer, size_t bytes);

/* program.c: launches are kept until something waits for them or changes what they read. */
int cuda_program_open(cuda_backend *b, vl_err *err);
void cuda_program_close(cuda_backend *b);
/* No program is a graph any more. */
void cuda_drop_graphs(cuda_backend *b);
void cuda_launch(cuda_backend *b, cuda_kernel k, size_t gx, int gy, int gz, int threads,
                 const cuda_arg *args);
/* May the next launch flush? It then comes first, alone. */
static inline bool cuda_full(const cuda_backend *b) { return b->program.calls + 3 > CUDA_CALLS_MAX; }
/* Dynamic shared memory that a launch of k needs. */
unsigned cuda_shared(const cuda_backend *b, cuda_kernel k);
/* Hands everything to the driver, in order; of a group's rank: what all ranks have. */
void cuda_flush(cuda_backend *b);
/* The same for n backends in step. Whose context is current afterwards is not said. */
void cuda_flush_all(cuda_backend *const *b, int n);

/* puts.c */
int cuda_puts_open(cuda_backend *b, vl_err *err);
void cuda_puts_close(cuda_backend *b);
/* A copy behind all that was launched so far; false: not a small one, nothing was done. */
bool cuda_put_small(cuda_backend *b, void *dst, const void *src, size_t bytes);
void cuda_puts_launch(cuda_backend *b);  /* what waits, as a launch of its own        */
bool cuda_puts_copy(cuda_backend *b);    /* ahead of the program that has the launches */

/* group_run.c: that of all ranks of a group. */
void cuda_group_flush(struct cuda_group *g);
/* cuda_wait() for rank b of a group. */
bool cuda_group_wait(struct cuda_group *g, cuda_backend *b);
/* The collective that is call at[r] of rank r's program. */
bool cuda_group_collective(struct cuda_group *g, const size_t *at);

/* blas.c */
/* Does what VL_KERNEL asks for (gemm=own, the default, or gemm=cublas). Needs stream and arch. */
int cuda_blas_open(cuda_backend *b, vl_err *err);
void cuda_blas_close(cuda_backend *b);
/* On the stream, in order, also while it is captured. */
bool cuda_blas_run(cuda_backend *b, const cuda_gemm *g);

/* fuse.c */
void cuda_submit(cuda_backend *b, const cuda_op *op); /* now, or with those that follow */
/* Arg-max of what the pending head will leave, in its launch; false: that is not what is pending. */
bool cuda_argmax_joins(cuda_backend *b, int32_t *ids, const float *logits, int T, int V);
/* The pending rope_vision of these rows, which attend_full then does; NULL: there is none. */
const cuda_op *cuda_take_turn(cuda_backend *b, const float *qkv, int P, int H, int E);
void cuda_drain(cuda_backend *b);                     /* launches what waits to be fused */

/* ops_cuda.c: a backend on GPU `ordinal`; close() as any other. */
int cuda_open(cuda_backend **out, int ordinal, vl_err *err);
/* One op by itself: a launch, or a few. */
void cuda_emit(cuda_backend *b, const cuda_op *op);
/* Up to three products of many rows with one input and no epilogue, in one launch; gated: of gate and
 * up, and out[0] = silu(gate) * up. */
void cuda_products(cuda_backend *b, const cuda_op *op, int n, bool gated);
void *cuda_tiles(const vl_matrix *w);

/* upload.c */
int cuda_prepare(vl_backend *b, vl_matrix *w, unsigned use, vl_err *err);
void cuda_weights_free(cuda_backend *b);

/* image.c: the kernels as nvcc made them; empty when it was not there. */
extern const uint8_t cuda_image[];
extern const uint64_t cuda_image_bytes;

#endif
