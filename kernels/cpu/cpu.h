/* cpu.h: what the files of the CPU backend share.
 *
 *   ops_cpu.c    the op table, memory, the row-wise ops
 *   team.c       threads
 *   pack.c       weight panels: reserved by prepare(), packed in the background or at first use
 *   linear.c     their layout; gemv and gemm over them
 *   linear_tiles.c   products with bf16 weights on tile registers (AMX)
 *   attention_tiles.c, rows_tiles.c   the rest of bf16 mode there
 *   narrow.c     the same for weights of 8 and 4 bits; narrow_head.c the exact head
 *   attention.c  attend_full and attend_causal, built from the same gemm tiles
 */
#ifndef VL_CPU_H
#define VL_CPU_H

#include <pthread.h>

#include "kernels/cpu/pack.h"
#include "kernels/cpu/team.h"
#include "kernels/cpu/ukernels.h"

typedef struct cpu_backend {
    vl_backend base;
    vl_ukernels k;
    cpu_team *team;
    bool bf16;                 /* products of bf16 activations and weights (vdpbf16ps)       */
    bool tiles;                /* the same by gemm_tiles (AMX)                               */
    bool split;                /* exact mode: products with bf16 weights by gemm_tiles, x in parts */
    bool int_tiles;            /* integer modes: products of many rows on the tile unit      */
    pthread_mutex_t lock;      /* one op at a time: two sessions never fight over the cores  */
    void *scratch;             /* grown on demand by cpu_scratch, never inside a steady decode */
    size_t scratch_bytes;
    int bits;                  /* of the weights: 8 or 4 in the integer modes, else 0        */
    cpu_packer *packer;        /* every prepared matrix, and the thread that packs them      */
    bool lazy;                 /* no such thread (VL_PACK=lazy)                              */
    vl_packed_store packed;    /* where panels may be found ready made; find NULL: nowhere   */
    vl_tuning tuning;          /* choices that change no result                              */
    char note[384];            /* why they are not those of a file that is there             */
    struct cpu_span { const float *at; size_t n; bool tiles; } *only_linear; /* declared by the model; tiles: so written */
    int only_linears;
} cpu_backend;

/* At least `bytes`, 64-byte aligned, contents undefined; valid until the next call. Aborts with
 * a message when the machine has no memory left (an op is void; sizes are bounded by the caller). */
void *cpu_scratch(cpu_backend *b, size_t bytes);
/* Anonymous pages, untouched until written; huge pages asked for. NULL: no memory. */
void *cpu_pages(size_t bytes);
void cpu_pages_free(void *p, size_t bytes);
static inline cpu_backend *cpu_of(vl_backend *b) { return (cpu_backend *)(void *)b; }

/* Pools of the CPU backend, as the products read them, in words of 32 bits; W to a key and head:
 *
 *               exact: f32, W = E                     with bf16 products: pairs of bf16, W = E / 2
 *   K           [n_blocks][G][2 panels][E][32 keys]   [n_blocks][G][2 panels][E / 2][32 keys], pairs along E
 *   V           [n_blocks][G][64 keys][E]             [n_blocks][G][32][E], pairs of keys; the half of a pair whose
 *                                                     key is not there yet is 0
 *
 * K has panels of 32 keys as a weight has panels of 32 rows: a step need not transpose or round them for every query.
 * Where the block of a key head begins, in either. */
static inline size_t cpu_kv_at(int block, int kv, int G, int W) {
    return ((size_t)block * (size_t)G + (size_t)kv) * VL_KV_BLOCK * (size_t)W;
}
/* From there on: where the first word of the key in slot `slot` lies; the others are VL_NR apart. */
static inline size_t cpu_key_at(int slot, int W) {
    return (size_t)(slot / VL_NR) * VL_NR * (size_t)W + (size_t)(slot % VL_NR);
}

/* Whether exact mode makes products with bf16 weights on tile registers, x in VL_PARTS bf16 parts. */
bool cpu_splits(const vl_ukernels *k);
int cpu_prepare(vl_backend *b, vl_matrix *w, unsigned use, vl_err *err);
/* The integer modes (narrow.c). wants: this matrix is prepared as integers. */
bool cpu_narrow_wants(const cpu_backend *b, const vl_matrix *w, unsigned use);
int cpu_narrow_prepare(cpu_backend *b, vl_matrix *w, unsigned use, vl_err *err);
void cpu_narrow_linear(cpu_backend *b, float *out, int ldo, const float *x, int ldx, int T,
                       const vl_matrix *w, const float *bias, vl_epilogue epi);
/* Panels (or tiles of them) [*first, returned end) of an item: long runs, which memory likes, but at most `most` of them,
 * then ever shorter ones, so that all threads end together. */
int cpu_run_of(int panels, int threads, int most, int item, int *first);
int cpu_run_count(int panels, int threads, int most);
void cpu_linear(vl_backend *b, float *out, int ldo, const float *x, int ldx, int T,
                const vl_matrix *w, const float *bias, vl_epilogue epi);
void cpu_attend_full(vl_backend *b, float *out, const float *qkv, const int32_t *cu, int n, int P,
                     int H, int E, float scale);
void cpu_attend_causal(vl_backend *b, const vl_causal_args *a);
/* The same where tiles is set, with the lock held and panels ready (linear_tiles.c, attention_tiles.c). */
void cpu_tiles_linear(cpu_backend *b, float *out, int ldo, const float *x, int ldx, int T, const vl_matrix *w,
                      const float *bias, vl_epilogue epi);
/* Whether rows of K columns at buf are kept as tiles (tiles.h) for linear: declared so, and K a multiple of 32. Asked by
 * what is about to write them, or by linear. */
bool cpu_kept(const cpu_backend *b, const float *buf, int K);
/* out [T, D], if it is kept: x through a norm (w, and bias if a LayerNorm), or silu(x) * up. false: it is not
 * kept, and nothing was done. */
typedef struct cpu_kept_row { float *out; const float *x, *w, *bias, *up; int T, D; float eps; } cpu_kept_row;
bool cpu_kept_rows(cpu_backend *b, cpu_kept_row row);
void cpu_tiles_attend_full(cpu_backend *b, float *out, const float *qkv, const int32_t *cu, int n, int P, int H, int E,
                           float scale);
void cpu_tiles_attend_causal(cpu_backend *b, const vl_causal_args *a);

/* The "cpu" backend (kernels/backend.c calls it). */
int vl_cpu_open(vl_backend **out, const vl_backend_params *p, vl_err *err);

#endif
