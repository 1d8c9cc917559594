/* test_narrow.c: the integer modes of the CPU backend: what the quantisers lose, linear against double
 * code on the values the codes stand for, the same bits on every tier and for any threads and rows, and
 * a head whose argmax is that of the exact head. */
#include "kernels/ops.h"
#include "kernels/quantise.h"
#include "tests/test.h"

#include <math.h>
#include <stdlib.h>

static vl_rng rng;

static float *normals(size_t n) {
    float *x = vl_calloc(n, sizeof *x);
    vl_assert(x, "memory");
    for (size_t i = 0; i < n; i++) x[i] = (float)vl_rng_normal(&rng);
    return x;
}

static vl_backend *open_cpu(const char *mode, int threads, const char *tier) {
    vl_backend *b = NULL;
    vl_err err = {0};
    if (*tier) setenv("VL_CPU", tier, 1);
    else unsetenv("VL_CPU");
    if (vl_backend_open(&b, &(vl_backend_params){"cpu", mode, threads}, &err)) {
        printf("FAIL %s\n", err.msg);
        exit(1);
    }
    return b;
}

static uint16_t *bf16_of(const float *x, size_t n) {
    uint16_t *h = vl_calloc(n, sizeof *h);
    vl_assert(h, "memory");
    for (size_t i = 0; i < n; i++) h[i] = vl_f32_to_bf16(x[i]);
    return h;
}

/* ---- quantisers -------------------------------------------------------------------------------- */

static double code_value(const uint8_t *codes, size_t i, bool int4) {
    return int4 ? VL_Q4_CODES[codes[i]] : (int8_t)codes[i];
}

static double lost(const float *w, size_t groups, bool int4) {
    uint8_t *codes = vl_calloc(groups, VL_QGROUP);
    uint16_t *scales = vl_calloc(groups, sizeof *scales);
    vl_assert(codes && scales, "memory");
    (int4 ? vl_quantise_int4 : vl_quantise_int8)(codes, scales, w, groups);
    double off = 0, all = 0;
    for (size_t i = 0; i < groups * VL_QGROUP; i++) {
        double v = (double)vl_bf16_to_f32(scales[i / VL_QGROUP]) * code_value(codes, i, int4);
        off += (v - (double)w[i]) * (v - (double)w[i]);
        all += (double)w[i] * (double)w[i];
    }
    free(codes);
    free(scales);
    return sqrt(off / all);
}

static void test_quantisers(void) {
    enum { GROUPS = 2000 };
    float *w = normals(GROUPS * VL_QGROUP);
    double e8 = lost(w, GROUPS, false), e4 = lost(w, GROUPS, true);
    CHECK(e8 > 0.003 && e8 < 0.0058, "int8 loses %.4f of Gaussian weights", e8);
    CHECK(e4 > 0.06 && e4 < 0.0750, "int4 loses %.4f of Gaussian weights", e4);
    printf("  rel-RMS of Gaussian weights: int8 %.4f, int4 %.4f\n", e8, e4);
    uint8_t codes[VL_QGROUP];
    uint16_t scale;
    for (int int4 = 0; int4 < 2; int4++) {
        void (*fn)(uint8_t *, uint16_t *, const float *, size_t) = int4 ? vl_quantise_int4 : vl_quantise_int8;
        for (int k = 0; k < VL_QGROUP; k++) w[k] = 0;
        fn(codes, &scale, w, 1);
        CHECK(scale == 0, "a group of zeros has the scale %04x", scale);
        w[7] = NAN;
        fn(codes, &scale, w, 1);
        CHECK(isnan(vl_bf16_to_f32(scale)), "NaN gives the scale %04x", scale);
        w[7] = -INFINITY;
        fn(codes, &scale, w, 1);
        CHECK(isnan(vl_bf16_to_f32(scale)), "infinity gives the scale %04x", scale);
        for (int k = 0; k < VL_QGROUP; k++) w[k] = k == 3 ? 5 : 0; /* one weight is its scale's own */
        fn(codes, &scale, w, 1);
        double v = (double)vl_bf16_to_f32(scale) * code_value(codes, 3, int4);
        CHECK(fabs(v - 5) < (int4 ? 0.05 : 0.021), "a lone weight of 5 becomes %g", v);
    }
    free(w);
}

/* ---- linear -------------------------------------------------------------------------------------- */

/* The values of a matrix as the mode's codes give them. */
static float *as_coded(const vl_matrix *w, bool int4) {
    size_t K = (size_t)w->cols, groups = vl_q_groups(K);
    float *out = vl_calloc((size_t)w->rows * K, sizeof *out), *row = vl_calloc(groups * VL_QGROUP, sizeof *row);
    uint8_t *codes = vl_calloc(groups, VL_QGROUP);
    uint16_t *scales = vl_calloc(groups, sizeof *scales);
    vl_assert(out && row && codes && scales, "memory");
    for (int r = 0; r < w->rows; r++) {
        vl_matrix_span(row, w, r, 0, w->cols);
        (int4 ? vl_quantise_int4 : vl_quantise_int8)(codes, scales, row, groups);
        for (size_t k = 0; k < K; k++)
            out[(size_t)r * K + k] = vl_bf16_to_f32(scales[k / VL_QGROUP]) * (float)code_value(codes, k, int4);
    }
    free(row);
    free(codes);
    free(scales);
    return out;
}

/* x as pack_q leaves it. */
static void round_row(float *y, const float *x, int K) {
    for (int k0 = 0; k0 < K; k0 += VL_QGROUP) {
        float most = 0;
        int n = K - k0 < VL_QGROUP ? K - k0 : VL_QGROUP;
        for (int k = 0; k < n; k++) most = fmaxf(most, fabsf(x[k0 + k]));
        for (int k = 0; k < n; k++)
            y[k0 + k] = most > 0 ? rintf(x[k0 + k] * (127.0f / most)) * (most / 127.0f) : 0;
    }
}

static void linear_case(const char *mode, int T, int N, int K, vl_epilogue epi) {
    /* the last: the way of the tile unit also where there is none */
    static const char *const TIERS[] = {"scalar", "avx2", "", "", ""}, *const TILES = "gemm_q8_tiles=gemm_q8_tiles_scalar,"
                             "gemm_q4_tiles=gemm_q4_tiles_scalar";
    static const int THREADS[] = {1, 2, 1, 2, 2};
    bool int4 = !strcmp(mode, "int4");
    int ldx = K + 3, ldo = N + 1;
    size_t nx = (size_t)T * (size_t)ldx, no = (size_t)T * (size_t)ldo;
    float *x = normals(nx), *bias = normals((size_t)N), *f = normals((size_t)N * (size_t)K), *start = normals(no);
    float *first = NULL, *y = vl_calloc((size_t)K, sizeof *y);
    vl_matrix m = {.name = "test", .data = bf16_of(f, (size_t)N * (size_t)K), .dtype = VL_BF16, .rows = N, .cols = K};
    float *coded = as_coded(&m, int4);
    for (int i = 0; i < 5; i++) {
        if (i == 4) setenv("VL_KERNEL", TILES, 1);
        vl_backend *b = open_cpu(mode, THREADS[i], TIERS[i]);
        unsetenv("VL_KERNEL");
        vl_matrix w = m;
        vl_err err;
        float *out = vl_calloc(no, sizeof *out), *alone = vl_calloc(no, sizeof *alone);
        vl_assert(out && alone && y, "memory");
        CHECK(!b->ops->prepare(b, &w, VL_USE_LINEAR | VL_USE_NARROW, &err) && w.narrow, "%s", err.msg);
        memcpy(out, start, no * sizeof *out);
        memcpy(alone, start, no * sizeof *out);
        b->ops->linear(b, out, ldo, x, ldx, T, &w, bias, epi);
        for (int t = 0; t < T; t++)
            b->ops->linear(b, alone + (size_t)t * (size_t)ldo, ldo, x + (size_t)t * (size_t)ldx, ldx, 1, &w, bias, epi);
        CHECK(!memcmp(out, alone, no * sizeof *out), "%s %dx%dx%d: a row alone has other bits", mode, T, N, K);
        if (!first) first = memcpy(vl_calloc(no, sizeof *out), out, no * sizeof *out);
        CHECK(!memcmp(out, first, no * sizeof *out), "%s %dx%dx%d: tier \"%s\"%s, %d threads have other bits", mode, T,
              N, K, TIERS[i], i == 4 ? " (tiles)" : "", THREADS[i]);
        free(out);
        free(alone);
        b->ops->close(b);
    }
    for (int t = 0; t < T; t++) {
        round_row(y, x + (size_t)t * (size_t)ldx, K);
        for (int n = 0; n < N; n++) {
            double sum = 0, mag = 0;
            for (int k = 0; k < K; k++) {
                double term = (double)y[k] * (double)coded[(size_t)n * (size_t)K + (size_t)k];
                sum += term, mag += fabs(term);
            }
            sum += (double)bias[n] + (epi == VL_EPI_ADD ? (double)start[(size_t)t * (size_t)ldo + (size_t)n] : 0);
            double got = (double)first[(size_t)t * (size_t)ldo + (size_t)n];
            CHECK(fabs(got - sum) <= 1e-5 * (mag + 1), "%s %dx%dx%d: [%d, %d] is %g, not %g", mode, T, N, K, t, n, got,
                  sum);
        }
    }
    free(x), free(bias), free(f), free(start), free(first), free(y), free(coded), free((void *)m.data);
}

/* ---- head ------------------------------------------------------------------------------------------ */

static void test_head(const char *tier, vl_dtype dtype) {
    enum { V = 3000, K = 130, T = 40 };
    vl_backend *exact = open_cpu("exact", 2, tier), *narrow = open_cpu("int4", 2, tier);
    float *f = normals(V * K), *x = normals(T * K), *want = normals(T * V), *got = normals(T * V);
    for (int v = 1; v < V; v += 3) /* near ties, which int8 alone would get wrong */
        for (int k = 0; k < K; k++) f[v * K + k] = f[(v - 1) * K + k] * (1 + 1e-3f * (float)vl_rng_normal(&rng));
    vl_matrix w = {.name = "head", .data = dtype == VL_BF16 ? (void *)bf16_of(f, V * K) : f, .dtype = dtype,
                   .rows = V, .cols = K}, q = w;
    vl_err err;
    CHECK(!exact->ops->prepare(exact, &w, VL_USE_LINEAR, &err), "%s", err.msg);
    CHECK(!narrow->ops->prepare(narrow, &q, VL_USE_LINEAR | VL_USE_HEAD, &err) && q.narrow, "%s", err.msg);
    for (int t = 0; t < T; t++) exact->ops->linear(exact, want + t * V, V, x + t * K, K, 1, &w, NULL, VL_EPI_NONE);
    narrow->ops->linear(narrow, got, V, x, K, T, &q, NULL, VL_EPI_NONE);
    int32_t a[T], b[T];
    exact->ops->argmax(exact, a, want, T, V);
    narrow->ops->argmax(narrow, b, got, T, V);
    size_t same = 0;
    double off = 0;
    for (int i = 0; i < T * V; i++) {
        same += want[i] == got[i];
        off = fmax(off, fabs((double)(want[i] - got[i])));
    }
    for (int t = 0; t < T; t++)
        CHECK(a[t] == b[t] && got[t * V + b[t]] == want[t * V + b[t]], "row %d: %d, the exact head has %d", t, b[t], a[t]);
    CHECK(same < T * V / 4 && off > 1e-3, "%zu of %d logits are exact: this is no int8 head", same, T * V);
    CHECK(off < 1, "a logit is off by %g", off);
    x[5] = NAN;
    narrow->ops->linear(narrow, got, V, x, K, 1, &q, NULL, VL_EPI_NONE);
    narrow->ops->argmax(narrow, b, got, 1, V);
    CHECK(b[0] == -1, "NaN has the answer %d", b[0]);
    exact->ops->close(exact);
    narrow->ops->close(narrow);
    if (dtype == VL_BF16) free((void *)w.data);
    free(f), free(x), free(want), free(got);
}

int main(void) {
    vl_rng_seed(&rng, 20261124);
    test_quantisers();
    for (int int4 = 0; int4 < 2; int4++) {
        const char *mode = int4 ? "int4" : "int8";
        linear_case(mode, 1, 64, 64, VL_EPI_NONE);
        linear_case(mode, 5, 33, 31, VL_EPI_ADD);
        linear_case(mode, 7, 100, 600, VL_EPI_ADD);
        linear_case(mode, 250, 40, 97, VL_EPI_NONE);
        linear_case(mode, 145, 100, 1100, VL_EPI_ADD); /* several blocks of K; on AMX the tile unit */
    }
    test_head("scalar", VL_BF16);
    test_head("avx2", VL_F32);
    test_head("", VL_BF16);
    return test_end();
}
