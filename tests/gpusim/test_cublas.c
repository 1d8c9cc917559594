/* test_cublas.c: the stand-in libcublas.so.13: GemmEx and its batched form against double, refusals,
 * capture in a graph, findings about its operands. */
#include "harness.h"

enum { R_32F = 0, R_16F = 2, R_16BF = 14, COMPUTE_32F = 68, INVALID = 7, FAILED = 13, NOT_SUPPORTED = 15 };
typedef int (*GemmEx)(void *, int, int, int, int, int, const void *, CUdeviceptr, int, int,
                      CUdeviceptr, int, int, const void *, CUdeviceptr, int, int, int, int);
typedef int (*BatchedEx)(void *, int, int, int, int, int, const void *, CUdeviceptr, int, int,
                         long long, CUdeviceptr, int, int, long long, const void *, CUdeviceptr, int,
                         int, long long, int, int, int);
static GemmEx gemm;
static BatchedEx batched;
static void *handle;

static void *lookup(void *lib, const char *name) {
    void *p = dlsym(lib, name);
    if (!p) { printf("FATAL no %s\n", name); exit(2); }
    return p;
}

static size_t size_of(int type) { return type == R_32F ? 4 : 2; }
static void encode(uint8_t *p, size_t i, int type, float v) {
    _Float16 h = (_Float16)v;
    uint16_t b = (uint16_t)bf16_of(v);
    if (type == R_32F) memcpy(p + 4 * i, &v, 4);
    else memcpy(p + 2 * i, type == R_16F ? (void *)&h : (void *)&b, 2);
}
static double decode(const uint8_t *p, size_t i, int type) {
    float f;
    _Float16 h;
    uint16_t b;
    if (type == R_32F) { memcpy(&f, p + 4 * i, 4); return (double)f; }
    memcpy(&b, p + 2 * i, 2);
    memcpy(&h, p + 2 * i, 2);
    return type == R_16F ? (double)h : (double)bf16_to(b);
}

static uint8_t *filled(size_t n, int type) {
    uint8_t *p = malloc(n * 4);
    for (size_t i = 0; i < n; i++) encode(p, i, type, rndf());
    return p;
}

/* Batches of m x n x k; b of them, `pad` extra rows in every leading dimension. */
static void test_product(int ta, int tb, int type, int ctype, int count, int pad) {
    enum { M = 17, N = 10, K = 23 };
    int lda = (ta ? K : M) + pad, ldb = (tb ? N : K) + pad, ldc = M + pad;
    size_t na = (size_t)lda * (ta ? M : K), nb = (size_t)ldb * (tb ? K : N), nc = (size_t)ldc * N;
    size_t all = (size_t)count;
    float alpha = 1.5f, beta = -0.5f;
    uint8_t *a = filled(na * all, type), *b = filled(nb * all, type), *c = filled(nc * all, ctype);
    CUdeviceptr da = upload(a, na * all * size_of(type)), db = upload(b, nb * all * size_of(type));
    CUdeviceptr dc = upload(c, nc * all * size_of(ctype));
    int r = count == 1
        ? gemm(handle, ta, tb, M, N, K, &alpha, da, type, lda, db, type, ldb, &beta, dc, ctype, ldc,
               COMPUTE_32F, -1)
        : batched(handle, ta, tb, M, N, K, &alpha, da, type, lda, (long long)na, db, type, ldb,
                  (long long)nb, &beta, dc, ctype, ldc, (long long)nc, count, COMPUTE_32F, -1);
    uint8_t *out = malloc(nc * all * 4);
    MUST(download(out, dc, nc * all * size_of(ctype)));
    double worst = 0;
    for (size_t s = 0; s < all; s++)
        for (int j = 0; j < N; j++)
            for (int i = 0; i < ldc; i++) {
                size_t at = s * nc + (size_t)(j * ldc + i);
                double want = decode(c, at, ctype);
                if (i < M) {
                    double sum = 0;
                    for (int p = 0; p < K; p++)
                        sum += decode(a, s * na + (size_t)(ta ? i * lda + p : p * lda + i), type) *
                               decode(b, s * nb + (size_t)(tb ? p * ldb + j : j * ldb + p), type);
                    want = 1.5 * sum - 0.5 * want;
                }
                double d = fabs(decode(out, at, ctype) - want) / (0.1 + fabs(want));
                worst = d > worst ? d : worst;
            }
    CHECK(r == 0 && worst < (ctype == R_32F ? 1e-5 : ctype == R_16F ? 2e-3 : 1e-2),
          "trans %d %d, types %d %d, batch %d: status %d, error %g", ta, tb, type, ctype, count, r, worst);
}

static void test_refusals(void) {
    float one = 1, zero = 0;
    CUdeviceptr p = device(4096);
    CHECK(gemm(NULL, 0, 0, 8, 8, 8, &one, p, R_16BF, 8, p, R_16BF, 8, &zero, p, R_32F, 8, COMPUTE_32F, -1)
          == 1, "no handle");
    CHECK(gemm(handle, 0, 0, 8, 8, 8, &one, p, R_16BF, 7, p, R_16BF, 8, &zero, p, R_32F, 8, COMPUTE_32F,
               -1) == INVALID, "lda below m");
    CHECK(gemm(handle, 0, 0, 8, 8, 8, &one, p, R_16BF, 8, p, R_16F, 8, &zero, p, R_32F, 8, COMPUTE_32F,
               -1) == NOT_SUPPORTED, "mixed types");
    gpusim_set("device", "T4");
    CHECK(gemm(handle, 0, 0, 8, 8, 8, &one, p, R_16BF, 8, p, R_16BF, 8, &zero, p, R_32F, 8, COMPUTE_32F,
               -1) == NOT_SUPPORTED, "bf16 on a T4");
    gpusim_set("device", "A100");
    gpusim_set("verbose", "0");
    CHECK(!gemm(handle, 0, 0, 64, 64, 64, &one, p, R_16BF, 64, p, R_16BF, 64, &zero, p, R_32F, 64,
                COMPUTE_32F, -1), "enqueued");
    MUST(cuStreamSynchronize(NULL));
    CHECK(gpusim_report_count() > 0, "operands too small and never written go unnoticed");
    gpusim_reset_reports();
    gpusim_set("verbose", "1");
}

static void test_graph(void *lib) {
    float a[64], c[64], one = 1;
    for (int i = 0; i < 64; i++) a[i] = (float)(i % 9 == 0);          /* the identity */
    for (int i = 0; i < 64; i++) c[i] = 1;
    CUdeviceptr da = upload(a, sizeof a), dc = upload(c, sizeof c);
    MUST(cuStreamSynchronize(NULL));
    CUstream s;
    CUgraph g;
    CUgraphExec x;
    MUST(cuStreamCreate(&s, 1));
    int (*set_workspace)(void *, CUdeviceptr, size_t);
    *(void **)&set_workspace = lookup(lib, "cublasSetWorkspace_v2");
    CUdeviceptr workspace = device(4096);
    CHECK(set_workspace(handle, workspace + 16, 4000) == INVALID, "a workspace at 16 bytes");
    MUST(set_workspace(handle, workspace, 4096));
    MUST(((int (*)(void *, void *))lookup(lib, "cublasSetStream_v2"))(handle, s));
    MUST(cuStreamBeginCapture_v2(s, 1));
    CHECK(gemm(handle, 0, 0, 8, 8, 8, &one, da, R_32F, 8, da, R_32F, 8, &one, dc, R_32F, 8, COMPUTE_32F, -1)
          == FAILED, "captured without a workspace: SetStream has forgotten it");
    MUST(set_workspace(handle, workspace, 4096));
    MUST(gemm(handle, 0, 0, 8, 8, 8, &one, da, R_32F, 8, da, R_32F, 8, &one, dc, R_32F, 8, COMPUTE_32F, -1));
    MUST(cuStreamEndCapture(s, &g));
    MUST(cuGraphInstantiateWithFlags(&x, g, 0));
    MUST(cuGraphDestroy(g));
    for (int i = 0; i < 3; i++) MUST(cuGraphLaunch(x, s));
    MUST(cuMemcpyDtoHAsync_v2(c, dc, sizeof c, s));
    MUST(cuStreamSynchronize(s));
    CHECK(c[0] == 4 && c[1] == 1, "three launches add three identities: %g %g", (double)c[0],
          (double)c[1]);
    int counted = 0; /* beside the rows of the copies */
    for (int i = 0; i < gpusim_kernel_count(); i++) counted += gpusim_kernel_at(i)->mma_flops > 0;
    CHECK(counted == 1, "it is counted once, not %d times", counted);
}

int main(int argc, char **argv) {
    open_driver(argc, argv);
    char path[1024];
    snprintf(path, sizeof path, "%s/libcublas.so.13", build_dir);
    void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!lib) { printf("FATAL %s\n", dlerror()); return 2; }
    *(void **)&gemm = lookup(lib, "cublasGemmEx");
    *(void **)&batched = lookup(lib, "cublasGemmStridedBatchedEx");
    MUST(((int (*)(void **))lookup(lib, "cublasCreate_v2"))(&handle));
    static const int types[][2] = {{R_16BF, R_32F}, {R_16BF, R_16BF}, {R_16F, R_32F}, {R_16F, R_16F},
                                   {R_32F, R_32F}};
    for (int t = 0; t < 4; t++)
        for (int k = 0; k < 5; k++) {
            test_product(t & 1, t >> 1, types[k][0], types[k][1], 1, 0);
            test_product(t & 1, t >> 1, types[k][0], types[k][1], 3, 5);
        }
    CHECK(gpusim_report_count() == 0, "findings");
    print_reports();
    test_refusals();
    test_graph(lib);
    MUST(((int (*)(void *))lookup(lib, "cublasDestroy_v2"))(handle));
    return finish();
}
