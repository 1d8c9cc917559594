/* test_cuda_ops.c: every op of the CUDA backend against plain double code at odd and at real shapes,
 * on each PTX level that is embedded; and the promise of kernels/ops.h: the same row gives the same
 * bits alone, in a batch, in another chunk, in another order of blocks.
 *
 * Where inputs meet a tensor core the reference rounds them to bf16 (PTX 75: to fp16) too, so that
 * tolerances are those of f32 sums: 2 sqrt(n) + 2 half-ulps of the sum of |a b|, twice that for sums that truncate.
 * --here: only the device that is there (make gpu-check), which is taken to be sm_80 or later. */
#include "kernels/cuda/backend.h"
#include "tests/cuda/device.h"

static const double EPS = 0x1p-24, BF16 = 0x1p-8;
static int arch;               /* 75: inputs of linear become fp16                           */
static bool repeatable;        /* gpusim does not move approximate instructions at random   */

/* ---- linear ------------------------------------------------------------------------------------ */

static double act(double s, vl_epilogue epi) {
    if (epi == VL_EPI_GELU_TANH) return s / (1 + exp(-1.5957691216057308 * (s + 0.044715 * s * s * s)));
    return epi == VL_EPI_GELU_ERF ? 0.5 * s * erfc(-s * 0.7071067811865476) : s;
}

/* What a tensor core sees of an input: bf16; on sm_75 fp16, scaled so that its exponent fits. */
static double round_input(float v) {
    int e;
    if (arch != 75) return round_bf16(v);
    double m = frexp((double)v, &e);
    return ldexp(rint(m * 0x1p11), e - 11);
}

static void linear_case(int T, int N, int K, vl_dtype dtype, vl_epilogue epi, bool with_bias,
                        const int *chunks) {
    int ldx = K + (K % 32 ? 3 : 4), ldo = N + 2; /* 4: rows that lie at 16 bytes */
    size_t n = (size_t)T * (size_t)ldo, nx = (size_t)T * (size_t)ldx;
    float *wide, *x = random_floats(nx), *bias = random_floats((size_t)N), *start = random_floats(n);
    float *out = vl_calloc(n, sizeof *out), *part = vl_calloc(n, sizeof *part);
    double *want = vl_calloc(n, sizeof *want), *tol = vl_calloc(n, sizeof *tol);
    vl_matrix w = random_matrix(N, K, dtype, &wide);
    for (size_t i = 0; i < n; i++) {
        size_t t = i / (size_t)ldo, j = i % (size_t)ldo;
        want[i] = (double)start[i];
        if (j >= (size_t)N) continue; /* between rows: untouched */
        double s = 0, mag = 0;
        for (size_t k = 0; k < (size_t)K; k++) {
            float v = x[t * (size_t)ldx + k];
            double p = round_input(v) * (double)wide[j * (size_t)K + k];
            s += p;
            mag += fabs(p);
        }
        s += with_bias ? (double)bias[j] : 0;
        want[i] = epi == VL_EPI_ADD ? want[i] + s : act(s, epi);
        tol[i] = 2 * EPS * ((2 * sqrt(K) + 4) * mag + 4 * fabs(want[i]) + 1);
    }
    float *dx = to_gpu(x, nx * sizeof *x), *db = to_gpu(bias, (size_t)N * sizeof *bias);
    float *dout = to_gpu(start, n * sizeof *start);
    char what[96];
    snprintf(what, sizeof what, "PTX %d linear T %d N %d K %d %s epi %d", arch, T, N, K,
             vl_dtype_name(dtype), (int)epi);
    gpu->ops->linear(gpu, dout, ldo, dx, ldx, T, &w, with_bias ? db : NULL, epi);
    from_gpu(out, dout, n * sizeof *out);
    near_all(out, want, tol, n, what);
    for (const int *c = chunks; c && *c; c++) {
        gpu->ops->put(gpu, dout, start, n * sizeof *start);
        for (int t = 0; t < T; t += *c)
            gpu->ops->linear(gpu, dout + (size_t)t * (size_t)ldo, ldo, dx + (size_t)t * (size_t)ldx, ldx,
                             T - t < *c ? T - t : *c, &w, with_bias ? db : NULL, epi);
        from_gpu(part, dout, n * sizeof *part);
        snprintf(what, sizeof what, "PTX %d linear T %d N %d K %d in chunks of %d", arch, T, N, K, *c);
        if (repeatable || epi == VL_EPI_NONE || epi == VL_EPI_ADD) same_bits(out, part, n, what);
    }
    drop(dx), drop(db), drop(dout);
    free((void *)(uintptr_t)w.data);
    free(wide), free(x), free(bias), free(start), free(out), free(part), free(want), free(tol);
}

static void test_linear(void) {
    const int all[] = {1, 3, 8, 16, 17, 0}, batch[] = {1, 0};
    linear_case(1, 1, 1, VL_BF16, VL_EPI_NONE, false, NULL);
    linear_case(8, 33, 65, VL_BF16, VL_EPI_NONE, true, batch);
    linear_case(35, 33, 65, VL_F16, VL_EPI_GELU_TANH, true, all);
    linear_case(19, 130, 300, VL_F32, VL_EPI_ADD, false, all);
    linear_case(140, 40, 96, VL_BF16, VL_EPI_GELU_ERF, true, all);
    linear_case(8, 32, 2048, VL_BF16, VL_EPI_NONE, false, batch);  /* 2B: q, k, v, gate, up        */
    linear_case(17, 16, 6144, VL_BF16, VL_EPI_ADD, false, batch);  /* 2B: down                     */
    linear_case(130, 130, 2100, VL_F32, VL_EPI_ADD, true, (const int[]){16, 128, 0}); /* two groups */
    linear_case(18, 20, 64, VL_F16, VL_EPI_NONE, false, all);
    linear_case(33, 48, 1024, VL_BF16, VL_EPI_NONE, true, NULL);   /* 2B: vision qkv               */
    linear_case(20, 16, 1536, VL_BF16, VL_EPI_NONE, true, NULL);   /* 2B: patch embedding          */
}

/* The sums of the groups of a product take no more memory than they may, however many outputs and rows
 * there are: it comes in pieces then, and no bit changes. */
static void test_parts(void) {
    cuda_backend *b = cuda_of(gpu);
    static const size_t MOST[] = {200 << 10, 600 << 10}; /* of 2 x 3 blocks, 128 KB each: one; a row */
    for (int i = 0; i < 2; i++) {
        b->part_bytes = MOST[i];
        linear_case(230, 270, 2080, VL_BF16, VL_EPI_NONE, true, (const int[]){16, 0});
        CHECK(b->scratch.bytes && b->scratch.bytes <= MOST[i], "%zu bytes of sums, at most %zu", b->scratch.bytes,
              MOST[i]);
    }
    b->part_bytes = CUDA_PART_BYTES;
}

/* Every shape of vl_many_*: on a GPU of one multiprocessor these widths take one each. */
static void test_shapes(void) {
    static const struct { const char *kernel; int T, N, K; vl_epilogue epi; } CASES[] = {
        {"vl_many_192", 140, 190, 2100, VL_EPI_ADD}, {"vl_many_192", 57, 191, 70, VL_EPI_GELU_TANH},
        {"vl_many_128", 113, 127, 300, VL_EPI_ADD},  {"vl_many_96", 225, 95, 70, VL_EPI_GELU_ERF},
        {"vl_many_96", 18, 96, 2100, VL_EPI_NONE},   {"vl_many_64", 120, 63, 300, VL_EPI_ADD}};
    int *sms = &cuda_of(gpu)->sms, all = *sms;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        vl_err err = {0};
        CHECK(gpu->ops->sync(gpu, &err) == 0, "%s", err.msg);
        long before = launches(CASES[i].kernel);
        *sms = 1;
        linear_case(CASES[i].T, CASES[i].N, CASES[i].K, VL_BF16, CASES[i].epi, i % 2 == 0, (const int[]){16, 41, 0});
        *sms = all;
        CHECK(before < 0 || launches(CASES[i].kernel) > before, "PTX %d: %s did not run for N %d", arch, CASES[i].kernel,
              CASES[i].N);
    }
}

/* VL_KERNEL=gemm=cublas: passes of 17 rows and more are products of cuBLAS, in every form of linear;
 * fewer rows keep the bits of our kernels; a captured row of them follows its arguments. */
static void test_blas(void) {
    linear_case(16, 24, 48, VL_BF16, VL_EPI_ADD, true, (const int[]){8, 0});
    CHECK(launches("cublasGemmEx") <= 0, "16 rows are not for cuBLAS");
    linear_case(17, 33, 65, VL_F16, VL_EPI_NONE, false, NULL);
    linear_case(66, 20, 300, VL_F32, VL_EPI_NONE, true, NULL);
    linear_case(70, 40, 64, VL_BF16, VL_EPI_ADD, false, NULL);
    linear_case(70, 40, 32, VL_BF16, VL_EPI_ADD, true, NULL);
    linear_case(140, 300, 17, VL_BF16, VL_EPI_GELU_TANH, true, NULL);
    linear_case(128, 16, 2048, VL_BF16, VL_EPI_GELU_ERF, false, NULL);
    CHECK(launches("cublasGemmEx") == 6, "%ld products of cuBLAS", launches("cublasGemmEx"));

    enum { T = 70, D = 32 };
    float *wide, *x = random_floats(T * D), want[2][T * D], got[T * D], *out[2];
    vl_matrix w = random_matrix(D, D, VL_BF16, &wide);
    float *dx = to_gpu(x, sizeof got);
    for (int i = 0; i < 2; i++) {
        out[i] = to_gpu(x, sizeof got);
        gpu->ops->linear(gpu, out[i], D, i ? out[0] : dx, D, T, &w, NULL, VL_EPI_NONE);
        from_gpu(want[i], out[i], sizeof got);
    }
    for (int i = 0; i < 6; i++) { /* W x, then W W x; by turns into either buffer */
        int a = i % 3 != 2, b = !a;
        gpu->ops->linear(gpu, out[a], D, dx, D, T, &w, NULL, VL_EPI_NONE);
        gpu->ops->linear(gpu, out[b], D, out[a], D, T, &w, NULL, VL_EPI_NONE);
        from_gpu(got, out[a], sizeof got);
        same_bits(want[0], got, T * D, "cuBLAS in a graph: first product");
        from_gpu(got, out[b], sizeof got);
        same_bits(want[1], got, T * D, "cuBLAS in a graph: second product");
    }
    drop(dx), drop(out[0]), drop(out[1]);
    free((void *)(uintptr_t)w.data);
    free(wide), free(x);
}

/* Inputs and weights beyond fp16: sm_75 scales the ones and refuses the others by name. */
static void test_range(void) {
    enum { T = 18, D = 64 };
    float *wide, *x = random_floats(T * D), a[T * D], b[T * D];
    uint16_t big[D * D] = {0};
    vl_err err = {0};
    big[77] = vl_f32_to_bf16(70000);
    vl_matrix w = random_matrix(D, D, VL_BF16, &wide);
    vl_matrix over = {.name = "over", .data = big, .dtype = VL_BF16, .rows = D, .cols = D};
    int rc = gpu->ops->prepare(gpu, &over, VL_USE_LINEAR, &err);
    CHECK(arch == 75 ? rc && strstr(err.msg, "over has a weight of 70") : rc == 0, "PTX %d: %d %s", arch, rc, err.msg);
    float *dx = to_gpu(x, sizeof a), *out = to_gpu(x, sizeof a);
    gpu->ops->linear(gpu, out, D, dx, D, T, &w, NULL, VL_EPI_NONE);
    from_gpu(a, out, sizeof a);
    for (int i = 0; i < T * D; i++) x[i] *= 0x1p90f, a[i] *= 0x1p90f;
    for (int few = 0; few < 2; few++) { /* a power of two moves no bit but the exponent's */
        gpu->ops->put(gpu, dx, x, sizeof a);
        for (int t = 0; t < T; t += few ? 3 : T)
            gpu->ops->linear(gpu, out + t * D, D, dx + t * D, D, few ? 3 : T, &w, NULL, VL_EPI_NONE);
        from_gpu(b, out, sizeof b);
        same_bits(a, b, T * D, few ? "large inputs, few rows" : "large inputs");
    }
    drop(dx), drop(out);
    free((void *)(uintptr_t)w.data);
    free(wide), free(x);
}

/* Two linears on one input, one on its own output's buffer, an input that changed in between. */
static void test_stale_input(void) {
    enum { T = 20, D = 32 };
    float *wide, *x = random_floats(T * D), *y = random_floats(T * D), a[T * D], b[T * D];
    vl_matrix w = random_matrix(D, D, VL_BF16, &wide);
    float *dx = to_gpu(x, sizeof a), *dy = to_gpu(y, sizeof a), *out = to_gpu(x, sizeof a);
    gpu->ops->linear(gpu, out, D, dy, D, T, &w, NULL, VL_EPI_NONE);
    from_gpu(a, out, sizeof a);
    gpu->ops->linear(gpu, out, D, dx, D, T, &w, NULL, VL_EPI_NONE);
    gpu->ops->put(gpu, dx, y, sizeof a);
    gpu->ops->linear(gpu, out, D, dx, D, T, &w, NULL, VL_EPI_NONE);
    from_gpu(b, out, sizeof b);
    same_bits(a, b, T * D, "linear after its input changed by put");
    gpu->ops->put(gpu, dx, x, sizeof a);
    gpu->ops->linear(gpu, out, D, dx, D, T, &w, NULL, VL_EPI_NONE);
    gpu->ops->copy_rows(gpu, dx, NULL, dy, NULL, T, D);
    gpu->ops->linear(gpu, out, D, dx, D, T, &w, NULL, VL_EPI_NONE);
    from_gpu(b, out, sizeof b);
    same_bits(a, b, T * D, "linear after its input changed by an op");
    gpu->ops->linear(gpu, dx, D, dy, D, T, &w, NULL, VL_EPI_NONE); /* writes the old input */
    gpu->ops->linear(gpu, out, D, dx, D, T, &w, NULL, VL_EPI_NONE);
    gpu->ops->linear(gpu, dx, D, out, D, T, &w, NULL, VL_EPI_NONE);
    gpu->ops->linear(gpu, out, D, dy, D, T, &w, NULL, VL_EPI_NONE);
    from_gpu(b, out, sizeof b);
    same_bits(a, b, T * D, "linear into a buffer that was its input");
    drop(dx), drop(dy), drop(out);
    free((void *)(uintptr_t)w.data);
    free(wide), free(x), free(y);
}

/* Ops that leave their result packed for the product behind them: it is what the product would have
 * packed itself (a put() in between makes it do that). */
static void packed_case(int T, int D, int which) {
    static const char *const NAMES[] = {"layernorm", "rmsnorm", "swiglu", "gelu", "attend_full"};
    enum { N = 24, E = 32 };
    size_t n = (size_t)T * (size_t)D;
    float *wide[2], *x = random_floats(n * 3), *norm = random_floats((size_t)D);
    float *a = vl_calloc((size_t)T * N, sizeof *a), *b = vl_calloc((size_t)T * N, sizeof *b);
    vl_matrix w = random_matrix(N, D, VL_BF16, &wide[0]), square = random_matrix(D, D, VL_BF16, &wide[1]);
    float *dx = to_gpu(x, n * 3 * sizeof *x), *dn = to_gpu(norm, (size_t)D * sizeof *norm);
    float *h = to_gpu(x, n * sizeof *x), *out = to_gpu(x, (size_t)T * N * sizeof *x);
    int32_t cu[] = {0, 5, T}, *dcu = to_gpu(cu, sizeof cu);
    if (which == 0) gpu->ops->layernorm(gpu, h, dx, dn, dn, T, D, 1e-6f);
    if (which == 1) gpu->ops->rmsnorm(gpu, h, dx, dn, T, D, 1e-6f);
    if (which == 2) gpu->ops->swiglu(gpu, h, dx, dx + n, T, D);
    if (which == 3) gpu->ops->linear(gpu, h, D, dx, D, T, &square, dn, VL_EPI_GELU_TANH);
    if (which == 4) gpu->ops->attend_full(gpu, h, dx, dcu, 2, T, D / E, E, 0.2f);
    vl_err err = {0};
    CHECK(gpu->ops->sync(gpu, &err) == 0, "%s", err.msg); /* what the op itself packs is not counted */
    long before = launches("vl_pack_rows");
    gpu->ops->linear(gpu, out, N, h, D, T, &w, NULL, VL_EPI_NONE);
    from_gpu(a, out, (size_t)T * N * sizeof *a);
    long packs = launches("vl_pack_rows") - before;
    CHECK(before < 0 || packs == (arch == 75 || D % 32), "PTX %d %s of %d: %ld packs", arch, NAMES[which], D, packs);
    gpu->ops->put(gpu, dn, norm, (size_t)D * sizeof *norm);
    gpu->ops->linear(gpu, out, N, h, D, T, &w, NULL, VL_EPI_NONE);
    from_gpu(b, out, (size_t)T * N * sizeof *b);
    same_bits(a, b, (size_t)T * N, NAMES[which]);
    drop(dx), drop(dn), drop(h), drop(out), drop(dcu);
    free((void *)(uintptr_t)w.data), free((void *)(uintptr_t)square.data);
    free(wide[0]), free(wide[1]), free(x), free(norm), free(a), free(b);
}

static void test_packed(void) {
    for (int which = 0; which < 5; which++) {
        packed_case(21, 64, which);
        packed_case(130, 96, which);
        if (which != 4) packed_case(20, 44, which);
    }
}

/* ---- attention ---------------------------------------------------------------------------------- */

/* out and the sum of p |v|, the scale of its error, from rows rounded to bf16. */
static void softmax_row(double *out, double *mag, const float *q, const float *k, const float *v,
                        size_t ld, int keys, int E, double scale) {
    double *p = vl_calloc((size_t)keys, sizeof *p), top = -INFINITY, sum = 0;
    bool plain = E % 8 || E > 128; /* that kernel keeps q in f32 */
    for (int j = 0; j < keys; j++) {
        for (int e = 0; e < E; e++)
            p[j] += (plain ? (double)q[e] : round_input(q[e])) * round_bf16(k[(size_t)j * ld + (size_t)e]);
        p[j] *= scale;
        if (p[j] > top) top = p[j];
    }
    for (int j = 0; j < keys; j++) sum += p[j] = exp(p[j] - top);
    for (int e = 0; e < E; e++) {
        out[e] = mag[e] = 0;
        for (int j = 0; j < keys; j++) {
            double pv = p[j] / sum * round_bf16(v[(size_t)j * ld + (size_t)e]);
            out[e] += pv;
            mag[e] += fabs(pv);
        }
    }
    free(p);
}

/* by: what k and v are multiplied by, and q divided. */
static void full_case(const int32_t *cu, int n, int H, int E, float by) {
    size_t P = (size_t)cu[n], D = (size_t)H * (size_t)E;
    float *qkv = random_floats(P * 3 * D), *a = random_floats(P * D), *b = random_floats(P * D);
    double *want = vl_calloc(P * D, sizeof *want), *tol = vl_calloc(P * D, sizeof *tol);
    for (size_t i = 0; i < P * 3 * D; i++) qkv[i] *= i / D % 3 ? by : 1 / by;
    for (size_t i = 0; i < P * (size_t)H; i++) {
        size_t p = i / (size_t)H, h = i % (size_t)H;
        int s = 0;
        while (p >= (size_t)cu[s + 1]) s++;
        const float *k = qkv + (size_t)cu[s] * 3 * D + D + h * (size_t)E;
        softmax_row(want + p * D + h * (size_t)E, tol + p * D + h * (size_t)E,
                    qkv + p * 3 * D + h * (size_t)E, k, k + D, 3 * D, cu[s + 1] - cu[s], E, 1 / sqrt(E));
    }
    for (size_t i = 0; i < P * D; i++) tol[i] *= BF16 / 2;
    float *dq = to_gpu(qkv, P * 3 * D * 4), *out = to_gpu(a, P * D * 4), scale = (float)(1 / sqrt(E));
    int32_t *dcu = to_gpu(cu, ((size_t)n + 1) * 4);
    char what[64];
    snprintf(what, sizeof what, "PTX %d attend_full P %zu H %d E %d", arch, P, H, E);
    gpu->ops->attend_full(gpu, out, dq, dcu, n, (int)P, H, E, scale);
    from_gpu(a, out, P * D * 4);
    near_all(a, want, tol, P * D, what);
    for (int s = 0; s < n; s++) { /* a segment alone */
        size_t at = (size_t)cu[s];
        int32_t own[2] = {0, cu[s + 1] - cu[s]};
        gpu->ops->put(gpu, dcu, own, sizeof own);
        gpu->ops->attend_full(gpu, out + at * D, dq + at * 3 * D, dcu, 1, own[1], H, E, scale);
    }
    from_gpu(b, out, P * D * 4);
    if (repeatable) same_bits(a, b, P * D, what);
    drop(dq), drop(out), drop(dcu);
    free(qkv), free(a), free(b), free(want), free(tol);
}

typedef struct causal {                 /* two sequences in scattered blocks */
    enum { MAXB = 8 } max_blocks;
    int T, H, G, E;
    int32_t table[2 * MAXB], *slot, *seq, *len;
    float *q, *k, *v, *cos, *sin, *qn, *kn;
} causal;

static causal causal_new(int len0, int len1, int H, int G, int E) {
    causal c = {MAXB, len0 + len1, H, G, E, {0}, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL};
    size_t T = (size_t)c.T, half = (size_t)E / 2;
    c.q = random_floats(T * (size_t)(H * E)), c.k = random_floats(T * (size_t)(G * E));
    c.v = random_floats(T * (size_t)(G * E)), c.cos = random_floats(T * half);
    c.sin = random_floats(T * half), c.qn = random_floats((size_t)E), c.kn = random_floats((size_t)E);
    c.slot = vl_calloc(T, 4), c.seq = vl_calloc(T, 4), c.len = vl_calloc(T, 4);
    for (int i = 0; i < 2 * MAXB; i++) c.table[i] = (i * 7 + 3) % (2 * MAXB); /* scattered, disjoint */
    for (int t = 0; t < c.T; t++) {
        c.seq[t] = t >= len0;
        int i = t - (c.seq[t] ? len0 : 0);
        c.len[t] = i + 1;
        c.slot[t] = c.table[c.seq[t] * MAXB + i / VL_KV_BLOCK] * VL_KV_BLOCK + i % VL_KV_BLOCK;
        for (size_t e = 0; e < half; e++) { /* rotations, not any factors */
            double angle = (double)c.cos[(size_t)t * half + e];
            c.cos[(size_t)t * half + e] = (float)cos(angle);
            c.sin[(size_t)t * half + e] = (float)sin(angle);
        }
    }
    return c;
}
static void causal_free(causal *c) {
    free(c->q), free(c->k), free(c->v), free(c->cos), free(c->sin), free(c->qn), free(c->kn);
    free(c->slot), free(c->seq), free(c->len);
}

/* RMSNorm, then rotate_half, of one head, in double. */
static void norm_rope(double *y, const float *x, const float *norm, const float *cos, const float *sin,
                      int E) {
    double ss = 0;
    for (int e = 0; e < E; e++) ss += (double)x[e] * (double)x[e];
    double by = 1 / sqrt(ss / E + 1e-6);
    for (int e = 0; e < E; e++) {
        int i = e % (E / 2), other = e < E / 2 ? e + E / 2 : e - E / 2;
        double turned = (double)x[other] * by * (double)norm[other] * (e < E / 2 ? -1 : 1);
        y[e] = (double)x[e] * by * (double)norm[e] * (double)cos[i] + turned * (double)sin[i];
    }
}

/* The op on a whole batch; then attention by chunks must give the same bits. */
static void causal_case(int len0, int len1, int H, int G, int E, const int *chunks) {
    causal c = causal_new(len0, len1, H, G, E);
    size_t T = (size_t)c.T, D = (size_t)(H * E), kv = (size_t)(G * E), half = (size_t)E / 2;
    size_t pool = (size_t)2 * MAXB * VL_KV_BLOCK * kv, e_ = (size_t)E;
    float *dq = to_gpu(c.q, T * D * 4), *dk = to_gpu(c.k, T * kv * 4), *dv = to_gpu(c.v, T * kv * 4);
    float *dc = to_gpu(c.cos, T * half * 4), *ds = to_gpu(c.sin, T * half * 4);
    float *qn = to_gpu(c.qn, e_ * 4), *kn = to_gpu(c.kn, e_ * 4), *out = to_gpu(c.q, T * D * 4);
    int32_t *slot = to_gpu(c.slot, T * 4), *seq = to_gpu(c.seq, T * 4), *len = to_gpu(c.len, T * 4);
    int32_t *table = to_gpu(c.table, sizeof c.table);
    void *kp = gpu->ops->alloc(gpu, pool * 2), *vp = gpu->ops->alloc(gpu, pool * 2);
    float *rot = vl_calloc(T * D, 4), *keys = vl_calloc(T * kv, 4), *a = vl_calloc(T * D, 4);
    float *b = vl_calloc(T * D, 4);
    double *want = vl_calloc(T * D, 8), *tol = vl_calloc(T * D, 8);
    char what[80];
    snprintf(what, sizeof what, "PTX %d attend_causal %d+%d H %d G %d E %d", arch, len0, len1, H, G, E);
    gpu->ops->qk_norm_rope(gpu, &(vl_rope_kv_args){
        .q = dq, .k = dk, .v = dv, .ldq = (int)D, .ldk = (int)kv, .ldv = (int)kv, .q_norm = qn,
        .k_norm = kn, .eps = 1e-6f, .cos = dc, .sin = ds, .k_pool = kp, .v_pool = vp, .kv_slot = slot,
        .T = c.T, .H = H, .G = G, .E = E});
    from_gpu(rot, dq, T * D * 4);
    for (size_t i = 0; i < T * (size_t)H; i++)
        norm_rope(want + i * e_, c.q + i * e_, c.qn, c.cos + i / (size_t)H * half,
                  c.sin + i / (size_t)H * half, E);
    for (size_t i = 0; i < T * D; i++) tol[i] = 1e-5;
    near_all(rot, want, tol, T * D, "qk_norm_rope");
    for (size_t i = 0; i < T * (size_t)G; i++) {
        double y[256];
        norm_rope(y, c.k + i * e_, c.kn, c.cos + i / (size_t)G * half, c.sin + i / (size_t)G * half, E);
        for (size_t e = 0; e < e_; e++) keys[i * e_ + e] = (float)y[e];
    }
    for (size_t i = 0; i < T * (size_t)H; i++) {
        size_t t = i / (size_t)H, h = i % (size_t)H, first = c.seq[t] ? (size_t)len0 : 0;
        size_t at = first * kv + h / (size_t)(H / G) * e_;
        softmax_row(want + i * e_, tol + i * e_, rot + i * e_, keys + at, c.v + at, kv, c.len[t], E,
                    1 / sqrt(E));
    }
    for (size_t i = 0; i < T * D; i++) tol[i] = tol[i] * BF16 + 1e-6;
    vl_causal_args args = {.out = out, .q = dq, .ldq = (int)D, .k_pool = kp, .v_pool = vp, .table = table,
                           .max_blocks = MAXB, .row_seq = seq, .row_len = len, .T = c.T, .H = H, .G = G,
                           .E = E, .scale = (float)(1 / sqrt(E))};
    gpu->ops->attend_causal(gpu, &args);
    from_gpu(a, out, T * D * 4);
    near_all(a, want, tol, T * D, what);
    for (; *chunks; chunks++) { /* rows in chunks that straddle the sequences */
        for (int t = 0; t < c.T; t += *chunks) {
            vl_causal_args s = args;
            s.out += (size_t)t * D, s.q += (size_t)t * D, s.row_seq += t, s.row_len += t;
            s.T = c.T - t < *chunks ? c.T - t : *chunks;
            gpu->ops->attend_causal(gpu, &s);
        }
        from_gpu(b, out, T * D * 4);
        if (repeatable) same_bits(a, b, T * D, what);
    }
    drop(dq), drop(dk), drop(dv), drop(dc), drop(ds), drop(qn), drop(kn), drop(out), drop(slot);
    drop(seq), drop(len), drop(table), drop(kp), drop(vp);
    free(rot), free(keys), free(a), free(b), free(want), free(tol);
    causal_free(&c);
}

static void test_attention(void) {
    static const int HEADS[] = {20, 24, 40, 64, 72, 80, 128, 136}, CHUNKS[] = {7, 16, 40, 0}, ONE[] = {1, 0};
    for (int i = 0; i < 8; i++) full_case((const int32_t[]){0, 70, 71, 150}, 3, 2, HEADS[i], 1);
    full_case((const int32_t[]){0, 70}, 1, 2, 64, 0x1p20f);  /* beyond fp16 */
    full_case((const int32_t[]){0, 70}, 1, 1, 80, 0x1p-9f);
    for (int i = 0; i < 8; i += 2) causal_case(70, 9, 6, 2, HEADS[i], CHUNKS);
    causal_case(300, 20, 4, 2, 128, CHUNKS); /* two splits */
    causal_case(66, 1, 16, 8, 128, ONE);     /* the heads of 2B */
}

/* ---- rows --------------------------------------------------------------------------------------- */

static void norm_case(int T, int D) {
    size_t n = (size_t)T * (size_t)D, d = (size_t)D;
    float *x = random_floats(n), *w = random_floats(d), *bias = random_floats(d), *out = random_floats(n);
    double *layer = vl_calloc(n, 8), *rms = vl_calloc(n, 8), *tol = vl_calloc(n, 8);
    for (size_t t = 0; t < (size_t)T; t++) {
        double mean = 0, var = 0, square = 0;
        for (size_t i = 0; i < d; i++) x[t * d + i] += 3, mean += (double)x[t * d + i] / D;
        for (size_t i = 0; i < d; i++) var += pow((double)x[t * d + i] - mean, 2) / D;
        for (size_t i = 0; i < d; i++) square += pow((double)x[t * d + i], 2) / D;
        for (size_t i = 0; i < d; i++) {
            double v = (double)x[t * d + i];
            layer[t * d + i] = (v - mean) / sqrt(var + 1e-6) * (double)w[i] + (double)bias[i];
            rms[t * d + i] = v / sqrt(square + 1e-6) * (double)w[i];
            tol[t * d + i] = 2e-5;
        }
    }
    float *dx = to_gpu(x, n * 4), *dw = to_gpu(w, d * 4), *db = to_gpu(bias, d * 4), *to = to_gpu(x, n * 4);
    gpu->ops->layernorm(gpu, to, dx, dw, db, T, D, 1e-6f);
    from_gpu(out, to, n * 4);
    near_all(out, layer, tol, n, "layernorm");
    gpu->ops->rmsnorm(gpu, to, dx, dw, T, D, 1e-6f);
    from_gpu(out, to, n * 4);
    near_all(out, rms, tol, n, "rmsnorm");
    drop(dx), drop(dw), drop(db), drop(to);
    free(x), free(w), free(bias), free(out), free(layer), free(rms), free(tol);
}

static void rope_case(int P, int H, int E) {
    size_t n = (size_t)(P * 3 * H * E), half = (size_t)E / 2, rows = (size_t)P;
    float *x = random_floats(n), *c = random_floats(rows * half), *s = random_floats(rows * half);
    float *out = random_floats(n);
    double *want = vl_calloc(n, 8), *tol = vl_calloc(n, 8);
    for (size_t i = 0; i < n; i++) {
        size_t p = i / (size_t)(3 * H * E), e = i % (size_t)E;
        bool turned = i / (size_t)(H * E) % 3 < 2, first = e < half;
        size_t at = p * half + e % half;
        double other = (double)x[first ? i + half : i - half < n ? i - half : i];
        want[i] = !turned ? (double)x[i]
                          : (double)x[i] * (double)c[at] + (first ? -other : other) * (double)s[at];
        tol[i] = turned ? 4e-6 : 0;
    }
    float *dx = to_gpu(x, n * 4), *dc = to_gpu(c, rows * half * 4), *ds = to_gpu(s, rows * half * 4);
    gpu->ops->rope_vision(gpu, dx, dc, ds, P, H, E);
    from_gpu(out, dx, n * 4);
    near_all(out, want, tol, n, "rope_vision");
    drop(dx), drop(dc), drop(ds);
    free(x), free(c), free(s), free(out), free(want), free(tol);
}

static void swiglu_case(int T, int F) {
    size_t n = (size_t)T * (size_t)F;
    float *g = random_floats(n), *u = random_floats(n), *out = random_floats(n);
    double *want = vl_calloc(n, 8), *tol = vl_calloc(n, 8);
    g[0] = -200, g[n - 1] = 200;
    for (size_t i = 0; i < n; i++) {
        want[i] = (double)g[i] / (1 + exp(-(double)g[i])) * (double)u[i];
        tol[i] = 8 * EPS * fabs(want[i]) + 1e-30;
    }
    float *dg = to_gpu(g, n * 4), *du = to_gpu(u, n * 4);
    gpu->ops->swiglu(gpu, dg, dg, du, T, F); /* out is gate */
    from_gpu(out, dg, n * 4);
    near_all(out, want, tol, n, "swiglu");
    drop(dg), drop(du);
    free(g), free(u), free(out), free(want), free(tol);
}

static void test_gathers(void) {
    enum { ROWS = 37, COLS = 45 };
    float *wide, out[2 * COLS], corner[] = {0.25f, 0.125f, 0.5f, 0.125f};
    const int32_t idx[] = {36, 0, 16, 17}, ids[] = {29, -1};
    vl_matrix table = random_matrix(ROWS, COLS, VL_BF16, &wide);
    int32_t *di = to_gpu(idx, sizeof idx), *dids = to_gpu(ids, sizeof ids);
    float *dc = to_gpu(corner, sizeof corner), *to = to_gpu(wide, sizeof out);
    gpu->ops->pos_embed(gpu, to, &table, di, dc, 1);
    from_gpu(out, to, sizeof out);
    bool right = true;
    for (int i = 0; i < COLS; i++) {
        double w = 0;
        for (int k = 0; k < 4; k++) w += (double)corner[k] * (double)wide[idx[k] * COLS + i];
        right &= fabs((double)out[i] - w) < 1e-6;
    }
    CHECK(right, "pos_embed");
    gpu->ops->embed(gpu, to, &table, dids, 2);
    from_gpu(out, to, sizeof out);
    same_bits(wide + 29 * COLS, out, COLS, "embed");
    same_bits(wide + COLS, out + COLS, COLS, "embed leaves negative ids");
    drop(di), drop(dids), drop(dc), drop(to);
    free((void *)(uintptr_t)table.data);
    free(wide);
}

static void test_moves(void) {
    float src[12], out[12], logits[8 * 300];
    int32_t to[] = {2, 0}, from[] = {1, 3}, one = 1, ids[8];
    for (int i = 0; i < 12; i++) src[i] = (float)(i + 1), out[i] = 100;
    float *ds = to_gpu(src, sizeof src), *dd = to_gpu(out, sizeof out);
    int32_t *dto = to_gpu(to, sizeof to), *dfrom = to_gpu(from, sizeof from), *done = to_gpu(&one, 4);
    gpu->ops->copy_rows(gpu, dd, dto, ds, dfrom, 2, 3);
    gpu->ops->add_rows(gpu, dd, done, ds, NULL, 1, 3);
    from_gpu(out, dd, sizeof out);
    CHECK(out[6] == 4 && out[8] == 6 && out[0] == 10 && out[9] == 100, "copy_rows");
    CHECK(out[3] == 101 && out[5] == 103, "add_rows");
    for (int i = 0; i < 8 * 300; i++) logits[i] = (float)vl_rng_normal(&rng);
    logits[290] = logits[17] = 9;                 /* the first of two */
    logits[300] = 9, logits[2 * 300 + 299] = 9;   /* the ends */
    logits[3 * 300 + 5] = NAN, logits[3 * 300 + 6] = 9;
    for (int i = 0; i < 300; i++) logits[4 * 300 + i] = -INFINITY;
    float *dl = to_gpu(logits, sizeof logits);
    int32_t *dids = to_gpu(ids, sizeof ids);
    gpu->ops->argmax(gpu, dids, dl, 8, 300);
    from_gpu(ids, dids, sizeof ids);
    CHECK(ids[0] == 17 && ids[1] == 0 && ids[2] == 299 && ids[3] == -1 && ids[4] == 0,
          "argmax %d %d %d %d %d", ids[0], ids[1], ids[2], ids[3], ids[4]);
    drop(ds), drop(dd), drop(dto), drop(dfrom), drop(done), drop(dl), drop(dids);
}

static void test_rows(void) {
    norm_case(3, 1);
    norm_case(3, 60);
    norm_case(2, 2048);
    rope_case(5, 3, 24);
    rope_case(3, 16, 64);
    swiglu_case(3, 100);
    test_gathers();
    test_moves();
}

static void run_all(const char *what) {
    vl_rng_seed(&rng, 7);
    open_gpu();
    if (arch == 80) test_parts(); /* first: scratch memory is new */
    test_rows();
    test_linear();
    test_shapes();
    test_range();
    test_stale_input();
    test_packed();
    test_attention();
    close_gpu(what);
}

int main(int argc, char **argv) {
    static const struct { const char *ptx, *order, *mma, *perturb; } RUNS[] = {
        {"75", "forward", "fma", "0"}, {"80", "forward", "fma", "0"}, {"80", "random", "block", "1"},
        {"90", "reverse", "reverse", "1"}, {"100", "random", "fma", "1"}};
    const char *why = cannot_run();
    if (why) {
        test_skip(why);
        return test_end();
    }
    if (argc > 1 && !strcmp(argv[1], "--here")) {
        arch = 80;
        repeatable = true;
        run_all("this device");
        return test_end();
    }
    for (size_t i = 0; i < sizeof RUNS / sizeof *RUNS; i++) {
        arch = atoi(RUNS[i].ptx);
        setenv("GPUSIM_DEVICE", "B200", 1); /* may run every level */
        setenv("GPUSIM_PTX", RUNS[i].ptx, 1);
        setenv("GPUSIM_ORDER", RUNS[i].order, 1);
        setenv("GPUSIM_MMA", RUNS[i].mma, 1);
        setenv("GPUSIM_PERTURB", RUNS[i].perturb, 1);
        repeatable = RUNS[i].perturb[0] == '0';
        run_all(RUNS[i].ptx);
    }
    setenv("VL_KERNEL", "rope=rope_scalar,gemm=cublas", 1);
    setenv("VL_CUBLAS", "build/gpusim/libcublas.so.13", 1);
    setenv("GPUSIM_PERTURB", "0", 1);
    for (arch = 80; arch <= 90; arch += 10) {
        setenv("GPUSIM_PTX", arch == 80 ? "80" : "90", 1);
        repeatable = true;
        vl_rng_seed(&rng, 7);
        open_gpu();
        test_blas();
        close_gpu("cuBLAS");
    }
    return test_end();
}
