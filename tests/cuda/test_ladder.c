/* test_ladder.c: every rung of kernels/cuda/ladder against double code on gpusim, with all checks on,
 * and what the next rung is for, in counters. `--table` prints the counters and predicted times of
 * sizes that fill a GPU as the Markdown tables of docs/chapters/08-gpu.md (make gpu-ladder). */
#include "tests/gpusim/harness.h"

typedef struct problem {
    const char *name;
    int small[3], big[3];          /* M, N, K; T, heads; n: in tests, in the table */
} problem;
enum { GEMV, GEMM, ATTENTION, REDUCTION, PROBLEMS };
static const problem problems[PROBLEMS] = {
    {"gemv", {1, 256, 2048}, {1, 4096, 2048}},
    {"gemm", {64, 256, 128}, {512, 1024, 512}},
    {"attention", {128, 2}, {512, 8}},
    {"reduction", {16384 * 3}, {16384 * 256}},
};

/* rows, cols: outputs of a block. packed: the weights lie in fragment order. */
typedef struct rung { int problem; const char *kernel; unsigned threads, rows, cols; bool packed; } rung;
static const rung rungs[] = {
    {GEMV, "gemv_1_naive", 256, 256, 1, false},      {GEMV, "gemv_2_coalesced", 256, 8, 1, false},
    {GEMV, "gemv_3_vectorised", 256, 8, 1, false},   {GEMV, "gemv_4_tiled", 256, 8, 1, false},
    {GEMV, "gemv_5_mma", 256, 16, 1, true},          {GEMV, "gemv_6_pipelined", 256, 16, 1, true},
    {GEMM, "gemm_1_naive", 256, 32, 8, false},       {GEMM, "gemm_2_coalesced", 256, 8, 32, false},
    {GEMM, "gemm_3_vectorised", 256, 8, 256, false}, {GEMM, "gemm_4_tiled", 256, 64, 64, false},
    {GEMM, "gemm_5_mma", 128, 64, 64, false},        {GEMM, "gemm_6_pipelined", 128, 64, 64, false},
    {ATTENTION, "attention_1_naive", 64, 64, 1, false},
    {ATTENTION, "attention_2_coalesced", 256, 8, 1, false},
    {ATTENTION, "attention_3_vectorised", 256, 8, 1, false},
    {ATTENTION, "attention_4_tiled", 256, 8, 1, false},
    {ATTENTION, "attention_5_mma", 128, 64, 1, false},
    {ATTENTION, "attention_6_pipelined", 128, 64, 1, false},
    {REDUCTION, "reduction_1_naive", 256, 0, 0, false},
    {REDUCTION, "reduction_2_coalesced", 256, 0, 0, false},
    {REDUCTION, "reduction_3_vectorised", 256, 0, 0, false},
    {REDUCTION, "reduction_4_tiled", 256, 0, 0, false},
    {REDUCTION, "reduction_5_shuffles", 256, 0, 0, false},
    {REDUCTION, "reduction_6_pipelined", 256, 0, 0, false},
};
enum { RUNGS = sizeof rungs / sizeof *rungs, HEAD = 64, DEVICES = 2 };
static const char *const devices[DEVICES] = {"A100", "H100"};

static CUmodule mod;
static CUdeviceptr a, b, c, out;       /* inputs and the result of the problem at hand */
static double *want, *slack;           /* what it should be, and how far it may be off */
static size_t outputs;

static float *floats(size_t n) {
    float *x = malloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = rndf();
    return x;
}
/* Random bf16; *wide gets their values. */
static uint16_t *halves(size_t n, float **wide) {
    uint16_t *h = malloc(n * sizeof *h);
    *wide = floats(n);
    for (size_t i = 0; i < n; i++) {
        h[i] = (uint16_t)bf16_of((*wide)[i]);
        (*wide)[i] = bf16_to(h[i]);
    }
    return h;
}

/* ---- the problems in double --------------------------------------------------------------------- */

static void expect(size_t i, double v, double size) {
    want[i] = v;
    slack[i] = size; /* of what was added up, times the error of the inputs or of bf16 probabilities */
}

/* w [N, K] in fragment order, as kernels/cuda/device.cuh has it. */
static uint16_t *fragments(const uint16_t *w, size_t N, size_t K) {
    uint16_t *t = malloc(N * K * sizeof *t);
    for (size_t n = 0; n < N; n++)
        for (size_t k = 0; k < K; k++) {
            size_t tile = n / 16 * (K / 16) + k / 16, lane = n % 16 / 2 * 4 + k % 16 / 4;
            size_t reg = n % 2 + k % 4 / 2 * 2;
            t[tile * 256 + lane * 8 + reg * 2 + k % 2] = w[n * K + k];
        }
    return t;
}

static void make_gemv(const int *size) {
    size_t N = (size_t)size[1], K = (size_t)size[2];
    float *w, *x = floats(K);
    uint16_t *h = halves(N * K, &w), *packed = fragments(h, N, K);
    for (size_t n = 0; n < N; n++) {
        double sum = 0, all = 0;
        for (size_t k = 0; k < K; k++) {
            sum += (double)w[n * K + k] * (double)x[k];
            all += fabs((double)w[n * K + k] * (double)x[k]);
        }
        expect(n, sum, all / 256); /* the mma rungs round x to bf16 */
    }
    a = upload(h, N * K * 2), c = upload(packed, N * K * 2), b = upload(x, K * 4);
    free(w), free(x), free(h), free(packed);
}

static void make_gemm(const int *size) {
    size_t M = (size_t)size[0], N = (size_t)size[1], K = (size_t)size[2];
    float *x, *y;
    uint16_t *ha = halves(M * K, &x), *hb = halves(K * N, &y);
    double *row = malloc(N * sizeof *row);
    for (size_t m = 0; m < M; m++) {
        memset(row, 0, N * sizeof *row);
        for (size_t k = 0; k < K; k++)
            for (size_t n = 0; n < N; n++) row[n] += (double)x[m * K + k] * (double)y[k * N + n];
        for (size_t n = 0; n < N; n++) expect(m * N + n, row[n], (double)K * 1e-6);
    }
    a = upload(ha, M * K * 2), b = upload(hb, K * N * 2), c = 0;
    free(row), free(x), free(y), free(ha), free(hb);
}

static void make_attention(const int *size) {
    size_t T = (size_t)size[0], n = T * (size_t)size[1] * HEAD;
    float *q, *k, *v;
    uint16_t *hq = halves(n, &q), *hk = halves(n, &k), *hv = halves(n, &v);
    double *p = malloc(T * sizeof *p);
    for (size_t row = 0; row < n / HEAD; row++) {
        const float *keys = k + row / T * T * HEAD, *values = v + row / T * T * HEAD;
        double sum = 0, total[HEAD] = {0};
        for (size_t j = 0; j < T; j++) {
            double s = 0;
            for (size_t e = 0; e < HEAD; e++) s += (double)q[row * HEAD + e] * (double)keys[j * HEAD + e];
            p[j] = exp(s / 8);
            sum += p[j];
            for (size_t e = 0; e < HEAD; e++) total[e] += p[j] * (double)values[j * HEAD + e];
        }
        for (size_t e = 0; e < HEAD; e++) expect(row * HEAD + e, total[e] / sum, 1.0 / 256);
    }
    a = upload(hq, n * 2), b = upload(hk, n * 2), c = upload(hv, n * 2);
    free(p), free(q), free(k), free(v), free(hq), free(hk), free(hv);
}

static void make_reduction(const int *size) {
    size_t n = (size_t)size[0];
    float *x = floats(n);
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)x[i];
    expect(0, sum, (double)n * 1e-6);
    a = upload(x, n * 4), b = c = 0;
    free(x);
}

static void make(int which, const int *size) {
    static void (*const makers[PROBLEMS])(const int *) = {make_gemv, make_gemm, make_attention,
                                                          make_reduction};
    outputs = which == GEMV ? (size_t)size[1] : which == GEMM ? (size_t)size[0] * (size_t)size[1]
              : which == ATTENTION ? (size_t)size[0] * (size_t)size[1] * HEAD : 1;
    want = calloc(outputs, sizeof *want);
    slack = calloc(outputs, sizeof *slack);
    makers[which](size);
    out = device(outputs * 4);
}

static void drop(void) {
    CUdeviceptr all[] = {a, b, c, out};
    for (int i = 0; i < 4; i++)
        if (all[i]) MUST(cuMemFree_v2(all[i]));
    free(want);
    free(slack);
}

/* ---- running ------------------------------------------------------------------------------------ */

static void launch(const rung *r, const int *size) {
    unsigned gx = 256, gy = 1, s0 = (unsigned)size[0], s1 = (unsigned)size[1];
    CUdeviceptr w = r->packed ? c : a;
    CUfunction f;
    int N = size[1], K = size[2], n = size[0];
    void *gemv[] = {&out, &w, &b, &K}, *gemm[] = {&out, &a, &b, &N, &K};
    void *attention[] = {&out, &a, &b, &c, &n}, *reduction[] = {&out, &a, &n};
    void **args[PROBLEMS] = {gemv, gemm, attention, reduction};
    if (r->problem == GEMV) gx = s1 / r->rows;
    if (r->problem == GEMM) { /* the naive rung has its lanes, and so its grid, along M */
        bool naive = r->rows > r->cols;
        gx = naive ? s0 / r->rows : s1 / r->cols, gy = naive ? s1 / r->cols : s0 / r->rows;
    }
    if (r->problem == ATTENTION) gx = s0 / r->rows, gy = s1;
    if (r->problem == REDUCTION) gx = s0 / 16384 < 256 ? s0 / 16384 : 256;
    MUST(cuModuleGetFunction(&f, mod, r->kernel));
    MUST(cuMemsetD8Async(out, 0, outputs * 4, NULL));
    MUST(cuStreamSynchronize(NULL));
    gpusim_reset_counters();
    MUST(cuLaunchKernel(f, gx, gy, 1, r->threads, 1, 1, 0, NULL, args[r->problem], NULL));
}

static void check_result(const rung *r) {
    float *got = malloc(outputs * sizeof *got);
    size_t bad = 0, first = 0;
    MUST(download(got, out, outputs * 4));
    for (size_t i = 0; i < outputs; i++)
        if (!(fabs((double)got[i] - want[i]) <= slack[i]) && bad++ == 0) first = i;
    CHECK(!bad, "%s: %zu of %zu are off; [%zu] is %g, expected %g", r->kernel, bad, outputs, first,
          (double)got[first], want[first]);
    free(got);
}

static gpusim_kernel counted(const rung *r) {
    for (int i = 0; i < gpusim_kernel_count(); i++)
        if (!strcmp(gpusim_kernel_at(i)->kernel, r->kernel)) return *gpusim_kernel_at(i);
    printf("FATAL %s was not counted\n", r->kernel);
    exit(2);
}

static double load_share(const gpusim_kernel *k) {
    return (double)k->load_used / (32.0 * (double)k->load_sectors);
}
static uint64_t conflicts(const gpusim_kernel *k) { return k->shared_wavefronts - k->shared_ideal; }

/* What the chapter says about the rungs of one problem. */
static void check_story(int which, const gpusim_kernel *k) {
    const char *name = problems[which].name;
    for (int i = 3; i < 6; i++)
        CHECK(conflicts(&k[i]) == 0, "%s: rung %d has %llu bank conflicts", name, i + 1,
              (unsigned long long)conflicts(&k[i]));
    CHECK(load_share(&k[5]) > 0.99 || which == GEMV, "%s: the last rung uses %g of its sectors", name,
          load_share(&k[5]));
    CHECK(k[5].load_sectors <= k[0].load_sectors, "%s: more sectors than at first", name);
    CHECK(k[2].load_requests < k[1].load_requests, "%s: wider loads are fewer", name);
    CHECK(which == REDUCTION || k[5].warp_instructions < k[0].warp_instructions, "%s: instructions %llu, at first %llu", name,
          (unsigned long long)k[5].warp_instructions, (unsigned long long)k[0].warp_instructions);
    CHECK((k[4].mma_flops > 0) == (which != REDUCTION) && k[3].mma_flops == 0, "%s: mma", name);
    if (which == GEMV || which == REDUCTION)
        CHECK(k[0].load_sectors > 3 * k[1].load_sectors, "%s: coalescing saves sectors: %llu, %llu", name,
              (unsigned long long)k[0].load_sectors, (unsigned long long)k[1].load_sectors);
}

static void run_tests(void) {
    for (int p = 0; p < PROBLEMS; p++) {
        gpusim_kernel k[6];
        int n = 0;
        make(p, problems[p].small);
        for (int i = 0; i < RUNGS; i++) {
            if (rungs[i].problem != p) continue;
            launch(&rungs[i], problems[p].small);
            check_result(&rungs[i]);
            k[n++] = counted(&rungs[i]);
        }
        CHECK(n == 6, "%s has %d rungs", problems[p].name, n);
        check_story(p, k);
        drop();
    }
    CHECK(gpusim_report_count() == 0, "findings");
    print_reports();
}

/* ---- the tables ---------------------------------------------------------------------------------- */

static void print_row(const rung *r, const gpusim_kernel *k) {
    printf("| %s | %.1f | %.0f | %llu | %.0f | %.1f | %.0f | %.0f |", strchr(r->kernel, '_') + 1,
           (double)k->load_sectors * 32e-6, 100 * load_share(k), (unsigned long long)conflicts(k),
           (double)k->warp_instructions / 1e3, (double)k->dram_bytes / 1e6, 100 * k->occupancy, k->trips);
    for (int d = 0; d < DEVICES; d++) printf(" %.1f | %s |", k[d].predicted_us, k[d].limiter);
    printf("\n");
}

static void print_tables(void) {
    gpusim_set("checks", "0");
    for (int p = 0; p < PROBLEMS; p++) {
        const int *s = problems[p].big;
        printf("%s**%s** (%d%s%.0d%s%.0d), %s by `make gpu-ladder`:\n\n", p ? "\n" : "", problems[p].name, s[0],
               s[1] ? " x " : "", s[1], s[2] ? " x " : "", s[2], "predicted (gpusim model v2)");
        printf("| rung | sectors loaded, MB | used %% | bank conflicts | 1000 warp instructions | DRAM MB "
               "| warps %% | waits | A100 us | limit | H100 us | limit |\n"
               "|---|---:|---:|---:|---:|---:|---:|---:|---:|---|---:|---|\n");
        make(p, s);
        for (int i = 0; i < RUNGS; i++) {
            gpusim_kernel k[DEVICES];
            if (rungs[i].problem != p) continue;
            for (int d = 0; d < DEVICES; d++) {
                gpusim_set("device", devices[d]);
                launch(&rungs[i], s);
                check_result(&rungs[i]);
                k[d] = counted(&rungs[i]);
            }
            print_row(&rungs[i], k);
        }
        drop();
    }
}

int main(int argc, char **argv) {
    bool table = argc > 1 && !strcmp(argv[1], "--table");
    open_driver(table ? 1 : argc, argv);
    char *image = read_all("ladder.fatbin");
    if (!image) {
        printf("SKIP no nvcc: ladder.fatbin was not built\n");
        skipped++;
        return finish();
    }
    gpusim_set("ptx", "80");
    MUST(cuModuleLoadDataEx(&mod, image, 0, NULL, NULL));
    if (!table) run_tests();
    else print_tables();
    return table ? failed != 0 : finish();
}
