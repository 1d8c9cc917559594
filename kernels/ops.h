/* ops.h: the op table. Each op is one line of the paper; model/ is written against this table once,
 * and a backend (CPU, CUDA) is one instance of it.
 *
 * Dimension letters, used everywhere:
 *   T rows (tokens)   P patches   D model width   H query heads   G key/value heads
 *   E head width      F feed-forward width        V vocabulary    N outputs   K inputs
 *
 * Contracts, for every op:
 *   - out first, then inputs, then weights, then scalars; void: shapes are asserted by ops_check,
 *     memory is preallocated, device trouble is sticky and surfaces at sync().
 *   - activations are f32, row-major, device memory from alloc(); rows are contiguous unless a `ld`
 *     (leading dimension, in elements) is given. Outputs do not overlap inputs unless said so.
 *   - index arrays (ids, positions, maps, tables) are device memory as well, so that a decode step
 *     can be captured in a CUDA graph: no op allocates, synchronises or reads host memory.
 *   - each output element is a sum in one fixed order that depends neither on threads nor on T:
 *     the same row gives the same bits alone, in a batch, or in another chunk.
 */
#ifndef VL_OPS_H
#define VL_OPS_H

#include "common/common.h"

typedef struct vl_backend vl_backend;

/* A weight matrix [rows = N outputs, cols = K inputs], row-major as in the checkpoint. */
typedef struct vl_matrix {
    const char *name;      /* HF tensor name                                               */
    const void *data;      /* host memory: the mmapped checkpoint (or a host-side fold)    */
    vl_dtype dtype;        /* F32, F16 or BF16                                             */
    int rows, cols;
    int unit;              /* rows of APART, columns of JOIN that are never parted: a head; 0: 1 */
    void *impl;            /* the backend's prepared form, made by prepare()               */
    /* Quantised in the checkpoint: dtype is F8_E4M3, I8 or U8 (int4, two to a byte), and each block of
     * block_rows x block_cols elements has a scale [ceil(rows / ..), ceil(cols / ..)]. NULL: no scales. */
    const void *scale;
    vl_dtype scale_dtype;
    int block_rows, block_cols;
    /* Set by prepare() */
    bool narrow;           /* impl holds integer codes                                     */
    size_t stored;         /* bytes that one pass over the prepared form reads, 0: as in data */
} vl_matrix;

/* Bytes of a row of `data`. */
static inline size_t vl_matrix_row_bytes(const vl_matrix *w) {
    return w->dtype == VL_U8 ? ((size_t)w->cols + 1) / 2 : (size_t)w->cols * vl_dtype_size(w->dtype);
}
/* Bytes that a linear reads of w. */
static inline size_t vl_matrix_bytes(const vl_matrix *w) {
    return w->stored ? w->stored : (size_t)w->rows * vl_matrix_row_bytes(w);
}

/* What a matrix is used for: prepare() packs for LINEAR, keeps rows addressable for GATHER.
 * FILE_PAGES: `data` lies in a read-only file mapping, whose pages may be given back once packed
 * (they can be read again from the file); without it the source is left alone.
 * In the modes int8 and int4: NARROW may be stored in the mode's integers, NARROW8 in 8 bits and no
 * fewer; HEAD is stored in 8 bits, and every output that could be the largest of its row is computed
 * again from `data`, so that argmax is that of the full matrix.
 * Over several devices: the outputs of APART stay on the device that computed them (heads, the feed-
 * forward width), up to the product of JOIN, which takes such inputs; all other tensors are whole on
 * every device. One device ignores both. */
enum {
    VL_USE_LINEAR = 1, VL_USE_GATHER = 2, VL_USE_FILE_PAGES = 4, VL_USE_NARROW = 8, VL_USE_NARROW8 = 16,
    VL_USE_HEAD = 32, VL_USE_APART = 64, VL_USE_JOIN = 128
};

typedef enum vl_epilogue {
    VL_EPI_NONE,           /* out  = x W^T + b                                             */
    VL_EPI_ADD,            /* out += x W^T + b      (the residual stream)                  */
    VL_EPI_GELU_TANH,      /* out  = gelu_pytorch_tanh(x W^T + b)                          */
    VL_EPI_GELU_ERF        /* out  = gelu(x W^T + b), exact erf                            */
} vl_epilogue;

/* KV blocks: one pool per layer for K and one for V, each of n_blocks * G * VL_KV_BLOCK * E elements of kv_elem bytes
 * (f32; bf16 where attention's products are), block by block and head by head; how a head's keys lie in its block is the
 * backend's own affair. With several devices each has a pool of its vl_kv_heads(b, G) heads.
 * Token j of a sequence lives in block table[j / VL_KV_BLOCK] at slot j % VL_KV_BLOCK. */
enum { VL_KV_BLOCK = 64 };

typedef struct vl_rope_kv_args {
    float *q;              /* [T, H*E]  in: projections; out: normed and rotated           */
    const float *k, *v;    /* [T, G*E]  projections                                        */
    int ldq, ldk, ldv;     /* leading dimensions                                           */
    const float *q_norm, *k_norm; /* [E] RMSNorm weights, or NULL: no norm                 */
    float eps;
    const float *cos, *sin;/* [T, E/2]  interleaved M-RoPE table for each row              */
    void *k_pool, *v_pool; /* this layer's pools                                           */
    const int32_t *kv_slot;/* [T] block * VL_KV_BLOCK + offset where the row's k and v go  */
    int T, H, G, E;
} vl_rope_kv_args;

typedef struct vl_causal_args {
    float *out;            /* [T, H*E]                                                     */
    const float *q;        /* [T, H*E], leading dimension ldq                              */
    int ldq;
    const void *k_pool, *v_pool;
    const int32_t *table;  /* [sequences, max_blocks] block numbers                        */
    int max_blocks;
    const int32_t *row_seq;/* [T] sequence (row of `table`) of each row                    */
    const int32_t *row_len;/* [T] keys the row sees: its own KV index + 1                  */
    int max_len;           /* no row sees more keys (known to the host); 0: not known      */
    int T, H, G, E;
    float scale;
} vl_causal_args;

typedef struct vl_ops {
    const char *name;                                   /* "cpu", "cuda", "cuda:2", ...    */
    /* -- memory and weights -- */
    void *(*alloc)(vl_backend *b, size_t bytes);        /* zeroed, 64-byte aligned, or NULL */
    void (*release)(vl_backend *b, void *p);
    size_t (*room)(vl_backend *b);                      /* bytes that alloc still has; SIZE_MAX:
                                                           what the system gives  */
    void (*put)(vl_backend *b, void *dst, const void *src, size_t bytes); /* host -> device;
                                                           src may be reused on return      */
    void (*get)(vl_backend *b, void *dst, const void *src, size_t bytes); /* device -> host,
                                                           waits for the data               */
    int (*prepare)(vl_backend *b, vl_matrix *w, unsigned use, vl_err *err);
    int (*sync)(vl_backend *b, vl_err *err);            /* waits; reports sticky failures  */
    /* What norms, swiglu, attention and linear write to buf .. buf + n - 1, whole rows from buf on, only linear
     * reads, with as many rows and columns, and weights that are bf16 or FP8: the backend may keep it there in the
     * form that its products want. To all other ops the memory is floats. Forgotten with release(). false: the
     * backend keeps floats everywhere. buf NULL only asks. */
    bool (*only_linear)(vl_backend *b, const float *buf, size_t n);
    /* Bytes of a value in rows of `cols` at buf as they are kept there: 4, or fewer where that form is another one.
     * NULL: 4 everywhere. */
    size_t (*elem)(vl_backend *b, const float *buf, int cols);
    /* -- text and vision -- */
    /* out[t] = table[ids[t]];  [T, D]. Rows with ids[t] < 0 are left as they are. */
    void (*embed)(vl_backend *b, float *out, const vl_matrix *table, const int32_t *ids, int T);
    /* out [T, N] (ldo) = epilogue(x [T, K] (ldx) W^T + bias [N] or NULL) */
    void (*linear)(vl_backend *b, float *out, int ldo, const float *x, int ldx, int T,
                   const vl_matrix *w, const float *bias, vl_epilogue epi);
    /* out [T, D] = (x - mean) / sqrt(var + eps) * w + bias.  HF LayerNorm */
    void (*layernorm)(vl_backend *b, float *out, const float *x, const float *w, const float *bias,
                      int T, int D, float eps);
    /* out [T, D] = x / sqrt(mean(x^2) + eps) * w.  HF Qwen3VLTextRMSNorm */
    void (*rmsnorm)(vl_backend *b, float *out, const float *x, const float *w, int T, int D,
                    float eps);
    /* q/k RMSNorm per head, rotate_half RoPE, k and v written into the KV pools */
    void (*qk_norm_rope)(vl_backend *b, const vl_rope_kv_args *a);
    /* rotate_half on q and k inside qkv [P, 3, H, E], in place; cos, sin [P, E/2] */
    void (*rope_vision)(vl_backend *b, float *qkv, const float *cos, const float *sin, int P, int H,
                        int E);
    /* softmax(q k^T * scale) v inside each segment cu[i]..cu[i+1] (device; n segments); qkv
     * [P, 3, H, E] -> out [P, H*E]; memory O(P) */
    void (*attend_full)(vl_backend *b, float *out, const float *qkv, const int32_t *cu, int n, int P,
                        int H, int E, float scale);
    void (*attend_causal)(vl_backend *b, const vl_causal_args *a);
    /* out [T, F] = silu(gate) * up;  out may be gate */
    void (*swiglu)(vl_backend *b, float *out, const float *gate, const float *up, int T, int F);
    /* dst[dst_idx ? dst_idx[i] : i] (=|+=) src[src_idx ? src_idx[i] : i]  for i < n, rows of D */
    void (*copy_rows)(vl_backend *b, float *dst, const int32_t *dst_idx, const float *src,
                      const int32_t *src_idx, int n, int D);
    void (*add_rows)(vl_backend *b, float *dst, const int32_t *dst_idx, const float *src,
                     const int32_t *src_idx, int n, int D);
    /* out [P, D] = sum_k weight[p,k] * table[idx[p,k]], k < 4: the bilinear position gather */
    void (*pos_embed)(vl_backend *b, float *out, const vl_matrix *table, const int32_t *idx,
                      const float *weight, int P);
    /* ids[t] = first index of the largest logit of row t, -1 if the row has a NaN; logits [T, V] */
    void (*argmax)(vl_backend *b, int32_t *ids, const float *logits, int T, int V);
    /* Something may look at a device tensor [rows, cols] here; layer < 0: none. Normally a no-op. */
    void (*tap)(vl_backend *b, const char *name, int layer, const float *x, int rows, int cols);
    void (*close)(vl_backend *b);
} vl_ops;

/* Every backend begins with its table; op calls read  b->ops->linear(b, ...). */
struct vl_backend {
    const vl_ops *ops;
    int threads;           /* host threads that compute; 0: none of its own (a device)     */
    const char *dtype;     /* what it computes in: "exact", "bf16", ...                     */
    int ranks;             /* devices that share the heads of a layer; 1: all on one        */
    const char *note;      /* what its user should hear, or NULL                            */
    const char *device;    /* what its bits depend on besides this program and the CPU: device,
                              driver and library versions; NULL: nothing                    */
    int forms;             /* that prepare() keeps of each matrix for linear but the head (0: 1) */
    size_t kv_elem;        /* bytes of one element in a KV pool                             */
};

/* Of G key/value heads, how many each device keeps. */
static inline int vl_kv_heads(const vl_backend *b, int G) { return (G + b->ranks - 1) / b->ranks; }

/* Who receives taps; host NULL: there was no memory for a copy. Kept beside the backend by the decorator that model/session puts on top. */
typedef void (*vl_tap_fn)(void *user, const char *name, int layer, const float *host, int rows,
                          int cols);

/* ---- opening (kernels/backend.c) -------------------------------------------------------------- */
typedef struct vl_backend_params {
    const char *name;      /* "auto", "cpu", "cuda"; "cuda:2" to "cuda:8": so many GPUs    */
    const char *dtype;     /* "exact", "bf16", "int8", "int4"; NULL: what the backend does best */
    int threads;           /* 0: as many as the process may use (affinity, cgroup quota)   */
} vl_backend_params;
int vl_backend_open(vl_backend **out, const vl_backend_params *p, vl_err *err);
int vl_backend_threads(const vl_backend *b);

/* ---- prepared weights outside the process (model/packed.h) ------------------------------------- */
/* find: `bytes` bytes, 64-byte aligned, that are what prepare() would make of matrix `name` in `format`, and
 * stay where they are until the backend is closed; or NULL. */
typedef struct vl_packed_store {
    const void *(*find)(void *user, const char *name, const char *format, size_t bytes);
    void *user;
} vl_packed_store;
typedef int (*vl_packed_fn)(void *user, const char *name, const char *format, const void *data, size_t bytes);
/* b as vl_backend_open gave it, without decorators. Only the CPU backend keeps such forms: false for others. */
bool vl_backend_use_packed(vl_backend *b, const vl_packed_store *store); /* before the first prepare() */
/* fn for every prepared matrix, packed to its end, until it returns other than 0; that is returned. */
int vl_backend_each_packed(vl_backend *b, vl_packed_fn fn, void *user);
/* Decorators: each wraps any backend, forwards every op, and is closed with it.
 *   check: shapes, aliasing, NaN scan, sync after each op so that the culprit is named
 *   trace: per-op time, bytes, flops and share of the roof; see ops_trace.h
 *   tap:   copies tapped tensors to the host and hands them to fn (fn may be changed later) */
int vl_ops_check_wrap(vl_backend **out, vl_backend *inner, vl_err *err);
int vl_ops_trace_wrap(vl_backend **out, vl_backend *inner, vl_err *err);
int vl_ops_tap_wrap(vl_backend **out, vl_backend *inner, vl_err *err);
void vl_ops_tap_set(vl_backend *tap, vl_tap_fn fn, void *user);

#endif
