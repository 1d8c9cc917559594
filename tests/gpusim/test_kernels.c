/* test_kernels.c: every kernel of kernels.cu, for each PTX level and block order, against double. */
#include "harness.h"

static CUmodule mod;

static void launch(const char *name, unsigned gx, unsigned gy, unsigned bx, unsigned shared,
                   void **params) {
    CUfunction f;
    MUST(cuModuleGetFunction(&f, mod, name));
    MUST(cuLaunchKernel(f, gx, gy, 1, bx, 1, 1, shared, NULL, params, NULL));
}
#define ARGS(...) ((void *[]){__VA_ARGS__})

static float *randoms(int n, float scale) {
    float *p = malloc(sizeof *p * (size_t)n);
    for (int i = 0; i < n; i++) p[i] = rndf() * scale;
    return p;
}

/* Rounded to bf16, or fp16 for sm_75 (which has no bf16 units); the value is kept in *v. */
static bool half;
static uint16_t *rounded(float *v, int n) {
    uint16_t *p = malloc(sizeof *p * (size_t)n);
    for (int i = 0; i < n; i++) {
        if (half) {
            _Float16 h = (_Float16)v[i];
            memcpy(&p[i], &h, 2);
            v[i] = (float)h;
        } else {
            p[i] = (uint16_t)bf16_of(v[i]);
            v[i] = bf16_to(p[i]);
        }
    }
    return p;
}

static float *result(CUdeviceptr p, int n) {
    float *out = malloc(sizeof *out * (size_t)n);
    MUST(download(out, p, sizeof *out * (size_t)n));
    return out;
}

static double worst(const float *a, const double *b, int n) {
    double w = 0;
    for (int i = 0; i < n; i++) {
        double d = fabs((double)a[i] - b[i]) / (1e-3 + fabs(b[i]));
        if (!(d <= w)) w = d;
    }
    return w;
}

static void test_gemv(int rows, int k) {
    float *w = randoms(rows * k, 1), *x = randoms(k, 1);
    bool keep = half;
    half = false;
    uint16_t *wb = rounded(w, rows * k);
    half = keep;
    double *ref = calloc((size_t)rows, sizeof *ref);
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < k; i++) ref[r] += (double)w[r * k + i] * (double)x[i];
    CUdeviceptr dw = upload(wb, 2ul * (size_t)(rows * k)), dx = upload(x, 4ul * (size_t)k);
    CUdeviceptr dy = device(4ul * (size_t)rows);
    launch("gemv", (unsigned)(rows + 3) / 4, 1, 128, 0, ARGS(&dw, &dx, &dy, &rows, &k));
    float *y = result(dy, rows);
    double e = worst(y, ref, rows);
    CHECK(e < 1e-3, "gemv %dx%d error %g", rows, k, e);
}

static void test_rmsnorm(int t, int d) {
    float *x = randoms(t * d, 1), *g = randoms(d, 1), eps = 1e-6f;
    bool keep = half;
    half = false;
    uint16_t *gb = rounded(g, d);
    half = keep;
    CUdeviceptr dx = upload(x, 4ul * (size_t)(t * d)), dg = upload(gb, 2ul * (size_t)d);
    CUdeviceptr dy = device(2ul * (size_t)(t * d));
    launch("rmsnorm", (unsigned)t, 1, 256, 0, ARGS(&dx, &dg, &dy, &d, &eps));
    uint16_t *y = malloc(2ul * (size_t)(t * d));
    MUST(download(y, dy, 2ul * (size_t)(t * d)));
    double w = 0;
    for (int i = 0; i < t; i++) {
        double s = 0;
        for (int j = 0; j < d; j++) s += (double)x[i * d + j] * (double)x[i * d + j];
        for (int j = 0; j < d; j++) {
            double r = (double)x[i * d + j] / sqrt(s / d + 1e-6) * (double)g[j];
            double e = fabs((double)bf16_to(y[i * d + j]) - r) / (1e-3 + fabs(r));
            w = e > w ? e : w;
        }
    }
    CHECK(w < 0.01, "rmsnorm %dx%d error %g", t, d, w);
}

static void test_rope(int t, int d) {
    float *x = randoms(t * d, 1), theta = 22.25349666f;   /* log2(5e6) */
    int *pos = malloc(4ul * (size_t)t);
    for (int i = 0; i < t; i++) pos[i] = i == t - 1 ? 131072 : i * 7;
    double *ref = malloc(8ul * (size_t)(t * d));
    for (int i = 0; i < t; i++)
        for (int j = 0; j < d / 2; j++) {
            float inv = exp2f(-theta * (2.0f * (float)j) / (float)d);
            double a = (double)((float)pos[i] * inv), u = (double)x[i * d + j];
            double v = (double)x[i * d + d / 2 + j];
            ref[i * d + j] = u * cos(a) - v * sin(a);
            ref[i * d + d / 2 + j] = v * cos(a) + u * sin(a);
        }
    CUdeviceptr dx = upload(x, 4ul * (size_t)(t * d)), dp = upload(pos, 4ul * (size_t)t);
    launch("rope", (unsigned)t, 1, 64, 0, ARGS(&dx, &dp, &d, &theta));
    float *y = result(dx, t * d);
    double w = 0;
    for (int i = 0; i < t * d; i++) w = fmax(w, fabs((double)y[i] - ref[i]));
    CHECK(w < 0.06, "rope %dx%d error %g", t, d, w);   /* angle 131072 in float: ulp 2^-6 */
}

static void test_argmax(int n) {
    float *x = randoms(n, 1);
    int best = 0, got = -1;
    x[n / 2] = x[n / 3] = 2.0f;
    best = n / 3 < n / 2 ? n / 3 : n / 2;
    CUdeviceptr dx = upload(x, 4ul * (size_t)n), dout = device(4);
    launch("argmax", 1, 1, 256, 0, ARGS(&dx, &n, &dout));
    MUST(download(&got, dout, 4));
    CHECK(got == best, "argmax of %d: %d, not %d", n, got, best);
}

static void test_act(int n) {
    float *g = randoms(n, 6), *u = randoms(n, 1);
    double *rs = malloc(8ul * (size_t)n), *rg = malloc(8ul * (size_t)n);
    for (int i = 0; i < n; i++) {
        double a = (double)g[i];
        rs[i] = a / (1 + exp(-a)) * (double)u[i];
        rg[i] = 0.5 * a * (1 + tanh(0.7978845608 * (a + 0.044715 * a * a * a)));
    }
    CUdeviceptr dg = upload(g, 4ul * (size_t)n), du = upload(u, 4ul * (size_t)n);
    CUdeviceptr ds = device(4ul * (size_t)n), dt = device(4ul * (size_t)n);
    launch("act", (unsigned)(n + 255) / 256, 1, 256, 0, ARGS(&dg, &du, &ds, &dt, &n));
    double e1 = worst(result(ds, n), rs, n), e2 = worst(result(dt, n), rg, n);
    CHECK(e1 < 1e-4 && e2 < 1e-3, "act errors %g %g", e1, e2);
}

static void test_gemm(int m, int n, int k) {
    float *a = randoms(m * k, 1), *b = randoms(n * k, 1);
    uint16_t *ab = rounded(a, m * k), *bb = rounded(b, n * k);
    double *ref = calloc((size_t)(m * n), sizeof *ref);
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++)
            for (int s = 0; s < k; s++) ref[i * n + j] += (double)a[i * k + s] * (double)b[j * k + s];
    CUdeviceptr da = upload(ab, 2ul * (size_t)(m * k)), db = upload(bb, 2ul * (size_t)(n * k));
    CUdeviceptr dc = device(4ul * (size_t)(m * n));
    launch("gemm", (unsigned)(n + 63) / 64, (unsigned)(m + 63) / 64, 128, 3 * 2 * 64 * 32 * 2,
           ARGS(&da, &db, &dc, &m, &n, &k));
    double e = worst(result(dc, m * n), ref, m * n);
    CHECK(e < 2e-3, "gemm %dx%dx%d error %g", m, n, k, e);
}

static void test_attend(int heads, int t) {
    int n = heads * t * 64;
    float *q = randoms(n, 1), *k = randoms(n, 1), *v = randoms(n, 1);
    uint16_t *qb = rounded(q, n), *kb = rounded(k, n), *vb = rounded(v, n);
    float scale = 0.125f * 1.44269504f;
    double *ref = calloc((size_t)n, sizeof *ref), *p = malloc(8ul * (size_t)t);
    for (int h = 0; h < heads; h++)
        for (int i = 0; i < t; i++) {
            double sum = 0;
            for (int j = 0; j <= i; j++) {
                double s = 0;
                for (int e = 0; e < 64; e++)
                    s += (double)q[(h * t + i) * 64 + e] * (double)k[(h * t + j) * 64 + e];
                sum += p[j] = exp(s * 0.125);
            }
            for (int j = 0; j <= i; j++)
                for (int e = 0; e < 64; e++)
                    ref[(h * t + i) * 64 + e] += p[j] / sum * (double)v[(h * t + j) * 64 + e];
        }
    CUdeviceptr dq = upload(qb, 2ul * (size_t)n), dk = upload(kb, 2ul * (size_t)n);
    CUdeviceptr dv = upload(vb, 2ul * (size_t)n), dout = device(4ul * (size_t)n);
    launch("attend", (unsigned)(t + 63) / 64, (unsigned)heads, 128, 0,
           ARGS(&dq, &dk, &dv, &dout, &t, &scale));
    float *o = result(dout, n);
    double w = 0;
    for (int i = 0; i < n; i++) w = fmax(w, fabs((double)o[i] - ref[i]));
    CHECK(w < 0.01, "attend %d heads, %d tokens: error %g", heads, t, w);
}

static void run_all(const char *level, const char *order) {
    rng_state = 88172645463325252ull;
    int before = failed;
    test_gemv(37, 256);
    test_gemv(8, 1032);
    test_rmsnorm(5, 200);
    test_rope(3, 32);
    test_argmax(1000);
    test_act(1000);
    test_gemm(64, 64, 64);
    test_gemm(70, 100, 72);
    test_attend(2, 100);
    CHECK(gpusim_report_count() == 0, "%d findings", gpusim_report_count());
    if (failed != before || gpusim_report_count()) {
        printf("  in PTX %s, order %s\n", level, order);
        print_reports();
    }
    gpusim_reset_reports();
}

/* Results must also hold when approximate instructions are off by what the PTX ISA allows, and for
 * every order of summation in mma; and findings and counters must not change them. */
static void test_modes(const char *image, const char *level) {
    static const char *modes[][2] = {{"mma", "block"}, {"mma", "reverse"}, {"mma", "fma"},
                                     {"perturb", "1"}, {"checks", "0"}, {"counters", "0"}};
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        gpusim_set(modes[i][0], modes[i][1]);
        MUST(cuModuleLoadDataEx(&mod, image, 0, NULL, NULL));
        run_all(level, modes[i][0]);
    }
    gpusim_set("perturb", "0");
    gpusim_set("checks", "1");
    gpusim_set("counters", "1");
}

int main(int argc, char **argv) {
    static const char *levels[] = {"75", "80", "90", "100", "120"};
    static const char *orders[] = {"forward", "reverse", "random"};
    open_driver(argc, argv);
    char *image = read_all("kernels.fatbin");
    if (!image) {
        printf("skipped: no nvcc, no kernels.fatbin\n");
        skipped++;
        return finish();
    }
    for (int i = 0; i < 5; i++) {
        if (!ptx_of(image, atoi(levels[i]))) { skipped++; continue; }
        half = i == 0;
        gpusim_set("ptx", levels[i]);
        int r = cuModuleLoadDataEx(&mod, image, 0, NULL, NULL);
        CHECK(!r, "PTX %s does not load: %s", levels[i],
              gpusim_report_count() ? gpusim_report_at(0)->message : "");
        for (int k = 0; !r && k < 3; k++) {
            gpusim_set("order", orders[k]);
            run_all(levels[i], orders[k]);
        }
        gpusim_set("order", "forward");
        if (!r) test_modes(image, levels[i]);
    }
    return finish();
}
