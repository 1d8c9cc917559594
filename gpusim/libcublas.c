/* libcublas.c: a stand-in libcublas.so.13: GemmEx and GemmStridedBatchedEx on gpusim's memory.
 *
 * The product runs as a host function in stream order, so captures, findings and the predicted time
 * line include it. Column-major, fp32 accumulation in the order of k; bf16, fp16 and fp32 operands.
 * Easy to get wrong by a caller, hence refused: leading dimensions below the row count, type
 * combinations cuBLAS does not have, bf16 before sm_80, operands outside their allocations, a captured
 * product without a workspace of the caller's (cuBLAS would allocate in the graph). */
#include "gpusim_api.h"
#include "lanes.h"
#include <stdlib.h>

typedef struct { void *stream; bool workspace; } Handle;
int cuStreamGetCaptureInfo_v2(void *stream, int *status, uint64_t *id, void *graph, void *nodes, void *n);
enum { OK = 0, NOT_INITIALIZED = 1, INVALID_VALUE = 7, EXECUTION_FAILED = 13, NOT_SUPPORTED = 15 };
enum { R_32F = 0, R_16F = 2, R_16BF = 14 };
enum { COMPUTE_32F = 68, COMPUTE_32F_PEDANTIC = 69, COMPUTE_32F_FAST_TF32 = 77 };
#define API __attribute__((visibility("default"))) int

typedef struct {
    int transa, transb, m, n, k, lda, ldb, ldc, atype, btype, ctype, batch;
    int64_t stride_a, stride_b, stride_c;     /* elements */
    uint64_t a, b, c;
    float alpha, beta;
} Gemm;

static uint64_t bytes_of(int type) { return type == R_32F ? 4 : 2; }

static float element(const uint8_t *p, uint64_t i, int type) {
    uint32_t u = 0;
    memcpy(&u, p + i * bytes_of(type), bytes_of(type));
    return type == R_32F ? f32_bits(u) : (float)(type == R_16F ? half_to(u) : bfloat_to(u));
}

static void put(uint8_t *p, uint64_t i, int type, float v) {
    uint32_t u = type == R_32F ? bits_f32(v) : type == R_16F ? half_of((double)v)
                                                            : bfloat_of((double)v);
    memcpy(p + i * bytes_of(type), &u, bytes_of(type));
}

/* The operand as floats [inner][outer], outer contiguous; NULL when it is not valid memory. */
static float *operand(uint64_t addr, int trans, int outer, int inner, int ld, int type) {
    int rows = trans ? inner : outer, cols = trans ? outer : inner;
    float *f = malloc(sizeof *f * (size_t)outer * (size_t)inner);
    bool ok = f != NULL;
    for (int j = 0; ok && j < cols; j++) {     /* column by column: gaps may be unwritten */
        uint64_t at = addr + (uint64_t)j * (uint64_t)ld * bytes_of(type);
        const uint8_t *p = gpusim_memory(at, (uint64_t)rows * bytes_of(type), 0);
        ok = p != NULL;
        for (int i = 0; ok && i < rows; i++)
            f[trans ? (size_t)i * (size_t)outer + (size_t)j
                    : (size_t)j * (size_t)outer + (size_t)i] = element(p, (uint64_t)i, type);
    }
    if (ok) return f;
    free(f);
    return NULL;
}

/* acc[4][m] = a[k][m] times four columns of b[k][n]. */
static void columns(const Gemm *g, const float *a, const float *b, int j, int w, float *acc) {
    size_t m = (size_t)g->m;
    memset(acc, 0, sizeof *acc * m * 4);
    for (int p = 0; p < g->k; p++) {
        const float *row = a + (size_t)p * m, *y = b + (size_t)p * (size_t)g->n + (size_t)j;
        float y0 = y[0], y1 = w > 1 ? y[1] : 0, y2 = w > 2 ? y[2] : 0, y3 = w > 3 ? y[3] : 0;
        for (size_t i = 0; i < m; i++) {
            acc[i] = fmaf(row[i], y0, acc[i]);
            acc[m + i] = fmaf(row[i], y1, acc[m + i]);
            acc[2 * m + i] = fmaf(row[i], y2, acc[2 * m + i]);
            acc[3 * m + i] = fmaf(row[i], y3, acc[3 * m + i]);
        }
    }
}

static void store(const Gemm *g, uint64_t c, int j, const float *acc) {
    uint64_t at = c + (uint64_t)j * (uint64_t)g->ldc * bytes_of(g->ctype);
    uint64_t bytes = (uint64_t)g->m * bytes_of(g->ctype);
    if (g->beta != 0 && !gpusim_memory(at, bytes, 0)) return;
    uint8_t *p = gpusim_memory(at, bytes, 1);
    for (int i = 0; p && i < g->m; i++) {
        float old = g->beta != 0 ? g->beta * element(p, (uint64_t)i, g->ctype) : 0;
        put(p, (uint64_t)i, g->ctype, g->alpha * acc[i] + old);
    }
}

static void run(void *arg) {
    const Gemm *g = arg;
    float *acc = malloc(sizeof *acc * 4 * (size_t)g->m);
    for (int64_t s = 0; acc && s < g->batch; s++) {
        uint64_t a = g->a + (uint64_t)(s * g->stride_a) * bytes_of(g->atype);
        uint64_t b = g->b + (uint64_t)(s * g->stride_b) * bytes_of(g->btype);
        uint64_t c = g->c + (uint64_t)(s * g->stride_c) * bytes_of(g->ctype);
        float *fa = operand(a, g->transa, g->m, g->k, g->lda, g->atype);
        float *fb = fa ? operand(b, !g->transb, g->n, g->k, g->ldb, g->btype) : NULL;
        for (int j = 0; fb && j < g->n; j += 4) {
            int w = g->n - j < 4 ? g->n - j : 4;
            columns(g, fa, fb, j, w, acc);
            for (int i = 0; i < w; i++) store(g, c, j + i, acc + (size_t)i * (size_t)g->m);
        }
        free(fa);
        free(fb);
    }
    free(acc);
}

API cublasCreate_v2(Handle **h) {
    if (!h) return INVALID_VALUE;
    *h = calloc(1, sizeof **h);
    return *h ? OK : NOT_INITIALIZED;
}
API cublasDestroy_v2(Handle *h) { free(h); return h ? OK : NOT_INITIALIZED; }
API cublasSetStream_v2(Handle *h, void *stream) {
    if (!h) return NOT_INITIALIZED;
    h->stream = stream;
    h->workspace = false;    /* as the real one does */
    return OK;
}
API cublasSetWorkspace_v2(Handle *h, void *workspace, size_t bytes) {
    if (!h) return NOT_INITIALIZED;
    if (!workspace || !bytes || (uintptr_t)workspace % 256) return INVALID_VALUE;
    h->workspace = true;
    return OK;
}
API cublasSetMathMode(Handle *h, int mode) { (void)mode; return h ? OK : NOT_INITIALIZED; }
API cublasGetVersion_v2(Handle *h, int *version) {
    (void)h;
    if (!version) return INVALID_VALUE;
    *version = 130000;
    return OK;
}

static int check(const Gemm *g, int compute) {
    bool half = g->atype == R_16F || g->atype == R_16BF;
    if (g->m < 0 || g->n < 0 || g->k < 0 || g->batch < 0 || g->transa < 0 || g->transa > 2 ||
        g->transb < 0 || g->transb > 2 || g->lda < (g->transa ? g->k : g->m) || g->lda < 1 ||
        g->ldb < (g->transb ? g->n : g->k) || g->ldb < 1 || g->ldc < g->m || g->ldc < 1)
        return INVALID_VALUE;
    if (compute != COMPUTE_32F && compute != COMPUTE_32F_PEDANTIC &&
        compute != COMPUTE_32F_FAST_TF32)
        return NOT_SUPPORTED;
    if (g->atype != g->btype || (g->atype != R_32F && !half)) return NOT_SUPPORTED;
    if (g->ctype != R_32F && g->ctype != g->atype) return NOT_SUPPORTED;
    return OK;
}

static int submit(Handle *h, Gemm *g, const float *alpha, const float *beta, int compute) {
    if (!h) return NOT_INITIALIZED;
    if (!alpha || !beta) return INVALID_VALUE;
    int r = check(g, compute);
    if (r) return r;
    if (g->atype == R_16BF && gpusim_capability() < 80) return NOT_SUPPORTED;
    int capturing = 0;
    if (cuStreamGetCaptureInfo_v2(h->stream, &capturing, NULL, NULL, NULL, NULL)) return EXECUTION_FAILED;
    if (capturing && !h->workspace) return EXECUTION_FAILED;
    if (!g->m || !g->n || !g->batch) return OK;
    g->alpha = *alpha;
    g->beta = *beta;
    double count = g->batch, m = g->m, n = g->n, k = g->k;
    gpusim_work w = {"cublasGemmEx", run, 2 * count * m * n * k,
                     count * ((m * k + k * n) * (double)bytes_of(g->atype) +
                              m * n * (double)bytes_of(g->ctype))};
    return gpusim_submit(h->stream, &w, g, sizeof *g) ? EXECUTION_FAILED : OK;
}

API cublasGemmEx(Handle *h, int ta, int tb, int m, int n, int k, const void *alpha, const void *a,
                 int atype, int lda, const void *b, int btype, int ldb, const void *beta, void *c,
                 int ctype, int ldc, int compute, int algo) {
    (void)algo;
    Gemm g = {.transa = ta,
              .transb = tb,
              .m = m,
              .n = n,
              .k = k,
              .lda = lda,
              .ldb = ldb,
              .ldc = ldc,
              .atype = atype,
              .btype = btype,
              .ctype = ctype,
              .batch = 1,
              .a = (uintptr_t)a,
              .b = (uintptr_t)b,
              .c = (uintptr_t)c};
    return submit(h, &g, alpha, beta, compute);
}

API cublasGemmStridedBatchedEx(Handle *h, int ta, int tb, int m, int n, int k, const void *alpha,
                               const void *a, int atype, int lda, long long sa, const void *b,
                               int btype, int ldb, long long sb, const void *beta, void *c,
                               int ctype, int ldc, long long sc, int batch, int compute, int algo) {
    (void)algo;
    Gemm g = {.transa = ta,
              .transb = tb,
              .m = m,
              .n = n,
              .k = k,
              .lda = lda,
              .ldb = ldb,
              .ldc = ldc,
              .atype = atype,
              .btype = btype,
              .ctype = ctype,
              .batch = batch,
              .stride_a = sa,
              .stride_b = sb,
              .stride_c = sc,
              .a = (uintptr_t)a,
              .b = (uintptr_t)b,
              .c = (uintptr_t)c};
    return submit(h, &g, alpha, beta, compute);
}
