/* test_row_kernels.c: the kernels between the products: epilogues, norms, rotation, softmax, the outputs of attention; lines.h says how. */
#include "tests/kernels/lines.h"

/* ---- element-wise -------------------------------------------------------------------------------- */

/* Values that find mistakes: a fine sweep, then zeros, subnormals, huge values, infinities, NaN. */
static size_t sweep(float *x, size_t max) {
    size_t n = 0;
    for (double v = -110; v < 110 && n < max; v += v > -16 && v < 16 ? 0.0037 : 0.11) x[n++] = (float)v;
    static const float SPECIAL[] = {0.0f, -0.0f, 1e-39f, -1e-39f, 1e-20f, -1e-20f, 1e19f, -1e19f,
                                    3e38f, -3e38f, INFINITY, -INFINITY, NAN};
    for (size_t i = 0; i < sizeof SPECIAL / sizeof *SPECIAL && n < max; i++) x[n++] = SPECIAL[i];
    return n;
}
enum { SWEEP = 16384 };

static void epilogue_case(vl_uk_epilogue *fn, vl_uk_epilogue *ref, const float *in, size_t n,
                          bool with_bias, vl_epilogue epi) {
    float *sum = guard_words(n), *bias = guard_words(n), *out = guard_words(n), *want = guard_words(n);
    double *tol = vl_calloc(n, sizeof *tol);
    memcpy(sum, in, n * sizeof *in);
    fill(bias, n, NORMAL, &rng);
    if (epi == VL_EPI_ADD) fill(out, n, NORMAL, &rng);
    memcpy(want, out, n * sizeof *out);
    for (size_t i = 0; i < n; i++) /* operands of the sums, then 4e-7 of a GELU's result */
        tol[i] = EPS * (double)(2 * fabsf(sum[i]) + 2 * (with_bias ? fabsf(bias[i]) : 0) +
                                (epi == VL_EPI_ADD ? 2 * fabsf(out[i]) : 0)) + 1e-37;
    ref(want, sum, with_bias ? bias : NULL, (int)n, epi);
    fn(out, sum, with_bias ? bias : NULL, (int)n, epi);
    if (epi == VL_EPI_GELU_TANH || epi == VL_EPI_GELU_ERF)
        for (size_t i = 0; i < n; i++) {
            /* far left the exponent 2u is large: x^2, two products, the sum and constants are rounded */
            double v = (double)sum[i] + (with_bias ? (double)bias[i] : 0);
            double arg = epi == VL_EPI_GELU_ERF ? 0 : v < 0 ? 1.6 * fabs(v) + 0.0714 * fabs(v * v * v) : 0;
            tol[i] = (4e-7 + 4 * EPS * arg) * fabs((double)want[i]) + 1e-37;
        }
    char what[48];
    snprintf(what, sizeof what, "n %zu epilogue %d bias %d", n, (int)epi, with_bias);
    near_all(out, want, tol, n, what);
    free(tol);
    guards_end();
}

static void check_epilogue(const vl_candidate *cand, const vl_candidate *ref) {
    vl_uk_epilogue *fn = (vl_uk_epilogue *)cand->fn, *oracle = (vl_uk_epilogue *)ref->fn;
    static float x[SWEEP], out[SWEEP];
    size_t n = sweep(x, SWEEP);
    for (int epi = VL_EPI_NONE; epi <= (int)VL_EPI_GELU_ERF; epi++) {
        epilogue_case(fn, oracle, x, n, false, (vl_epilogue)epi);
        for (int i = 0; i < TAIL_COUNT; i++)
            for (int bias = 0; bias < 2; bias++)
                epilogue_case(fn, oracle, x + 3000 + i, (size_t)TAILS[i], bias, (vl_epilogue)epi);
        if (!bench) continue;
        static const char *const NAMES[] = {"none, 4096", "add, 4096", "gelu_tanh, 4096", "gelu_erf, 4096"};
        bench_row(NAMES[epi], TIME(fn(out, x, x, 4096, (vl_epilogue)epi)), 4096, 4096 * 12);
    }
}

static void check_swiglu(const vl_candidate *cand, const vl_candidate *ref) {
    vl_uk_swiglu *fn = (vl_uk_swiglu *)cand->fn, *oracle = (vl_uk_swiglu *)ref->fn;
    static float x[SWEEP], u[SWEEP], want[SWEEP];
    static double tol[SWEEP];
    size_t all = sweep(x, SWEEP);
    fill(u, all, NORMAL, &rng);
    for (int i = -1; i < TAIL_COUNT; i++) {
        size_t n = i < 0 ? all : (size_t)TAILS[i], at = i < 0 ? 0 : 3500;
        float *gate = guard_words(n), *up = guard_words(n), *out = i % 2 ? guard_words(n) : gate;
        memcpy(gate, x + at, n * sizeof *x);
        memcpy(up, u + at, n * sizeof *x);
        oracle(want, gate, up, (int)n);
        fn(out, gate, up, (int)n);
        for (size_t j = 0; j < n; j++) tol[j] = 4e-7 * fabs((double)want[j]) + 1e-37;
        near_all(out, want, tol, n, i < 0 ? "sweep" : "tail");
        guards_end();
    }
    if (bench) bench_row("6144", TIME(fn(want, u, u, 6144)), 6144 * 5, 6144 * 12);
}

static void check_rope(const vl_candidate *cand, const vl_candidate *ref) {
    vl_uk_rope *fn = (vl_uk_rope *)cand->fn, *oracle = (vl_uk_rope *)ref->fn;
    float x[128], want[128], c[64], s[64];
    double tol[128];
    for (int E = 2; E <= 128; E += 2) {
        float *got = guard_words((size_t)E), *gc = guard_words((size_t)E / 2), *gs = guard_words((size_t)E / 2);
        fill(x, (size_t)E, (kind)(E / 2 % KINDS), &rng);
        for (int i = 0; i < E / 2; i++) {
            c[i] = gc[i] = (float)cos(0.37 * i + E);
            s[i] = gs[i] = (float)sin(0.37 * i + E);
        }
        memcpy(got, x, (size_t)E * sizeof *x);
        memcpy(want, x, (size_t)E * sizeof *x);
        oracle(want, c, s, E);
        fn(got, gc, gs, E);
        for (int i = 0; i < E; i++)
            tol[i] = 2 * EPS * ((double)fabsf(x[i]) + (double)fabsf(x[(i + E / 2) % E])) + 2 * DENORM;
        near_all(got, want, tol, (size_t)E, "rope");
        guards_end();
    }
    if (bench) bench_row("128", TIME(fn(x, c, s, 128)), 128 * 3, 128 * 12);
}

/* ---- norms --------------------------------------------------------------------------------------- */

static void norm_case(const vl_candidate *cand, const vl_candidate *ref, int D, kind k, bool in_place) {
    size_t n = (size_t)D;
    float *x = guard_words(n), *w = guard_words(n), *b = guard_words(n), *out = in_place ? x : guard_words(n);
    float *want = vl_calloc(n, sizeof *want);
    double *tol = vl_calloc(n, sizeof *tol), big = 0, sum = 0, sq = 0;
    fill(x, n, k, &rng);
    fill(w, n, NORMAL, &rng);
    fill(b, n, NORMAL, &rng);
    for (int i = 0; i < D; i++) {
        sum += (double)x[i];
        sq += (double)x[i] * (double)x[i];
        if (fabs((double)x[i]) > big) big = fabs((double)x[i]);
    }
    bool layer = cand->slot == VL_SLOT_layernorm;
    double var = layer ? sq / D - sum / D * (sum / D) : sq / D, scale = 1 / sqrt(fmax(var, 0) + 1e-6);
    for (int i = 0; i < D; i++) /* x - mean is rounded once at the size of x; the rest is relative */
        tol[i] = EPS * (6 * scale * fabs((double)w[i]) * (fabs((double)x[i]) + (layer ? fabs(sum / D) : 0)) +
                        (layer ? fabs((double)b[i]) : 0)) + 1e-43;
    if (layer) {
        ((vl_uk_layernorm *)ref->fn)(want, x, w, b, D, 1e-6f);
        ((vl_uk_layernorm *)cand->fn)(out, x, w, b, D, 1e-6f);
    } else {
        ((vl_uk_rmsnorm *)ref->fn)(want, x, w, D, 1e-6f);
        ((vl_uk_rmsnorm *)cand->fn)(out, x, w, D, 1e-6f);
    }
    for (int i = 0; i < D; i++) tol[i] += 2 * EPS * fabs((double)want[i]);
    char what[48];
    snprintf(what, sizeof what, "D %d %s", D, KIND_NAMES[k]);
    near_all(out, want, tol, n, what);
    free(want);
    free(tol);
    guards_end();
}

static void check_norm(const vl_candidate *cand, const vl_candidate *ref) {
    static const int REAL[] = {1024, 2048, 4096, 4097};
    for (int k = 0; k < KINDS; k++) {
        for (int i = 0; i < TAIL_COUNT; i++) norm_case(cand, ref, TAILS[i], (kind)k, i % 2);
        for (int i = 0; i < 4; i++) norm_case(cand, ref, REAL[i], (kind)k, false);
    }
    if (!bench) return;
    static float x[2048], w[2048], out[2048];
    fill(x, 2048, NORMAL, &rng);
    double t = cand->slot == VL_SLOT_layernorm
                   ? TIME(((vl_uk_layernorm *)cand->fn)(out, x, w, w, 2048, 1e-6f))
                   : TIME(((vl_uk_rmsnorm *)cand->fn)(out, x, w, 2048, 1e-6f));
    bench_row("2048", t, 2048 * 5, 2048 * 12);
}

/* ---- softmax ------------------------------------------------------------------------------------- */

static void softmax_case(const vl_candidate *cand, const vl_candidate *ref, int keys, int lanes, bool fresh,
                         bool ragged) {
    size_t ns = (size_t)keys * VL_NR;
    float *s = guard_words(ns), *m = guard_words(VL_NR), *l = guard_words(VL_NR), *f = guard_words(VL_NR);
    int32_t *valid = guard_words(VL_NR);
    float ws[64 * VL_NR], wm[VL_NR], wl[VL_NR], wf[VL_NR], raw[64 * VL_NR], m0[VL_NR];
    double tol[64 * VL_NR] = {0}, range[VL_NR];
    fill(s, ns, NORMAL, &rng);
    for (int q = 0; q < VL_NR; q++) {
        valid[q] = ragged ? (q * 5) % (keys + 2) : keys;
        m[q] = fresh ? -INFINITY : (float)vl_rng_normal(&rng);
        l[q] = fresh ? 0 : 1 + (float)vl_rng_uniform(&rng);
        if (fresh && ragged && q % 4 == 0)
            for (int j = 0; j < keys; j++) s[j * VL_NR + q] *= 300; /* far apart */
    }
    float scale = 0.37f;
    memcpy(ws, s, ns * 4), memcpy(raw, s, ns * 4), memcpy(wm, m, sizeof wm), memcpy(wl, l, sizeof wl);
    memcpy(m0, m, sizeof m0);
    ((vl_uk_softmax *)ref->fn)(ws, keys, lanes, valid, scale, wm, wl, wf);
    ((vl_uk_softmax *)cand->fn)(s, keys, lanes, valid, scale, m, l, f);
    for (size_t i = 0; i < ns; i++) /* lanes that were not asked for do not count */
        if ((int)(i % VL_NR) >= lanes) s[i] = ws[i];
    /* s * scale and the difference to m are rounded; exp adds 1.5 ulp */
    for (int q = 0; q < lanes; q++)
        range[q] = (isinf(wm[q]) ? 0 : fabs((double)wm[q])) + (isinf(m0[q]) ? 0 : fabs((double)m0[q]));
    for (size_t i = 0; i < ns; i++)
        tol[i] = (int)(i % VL_NR) >= lanes ? 1 : EPS * (4 + 2 * fabs((double)(raw[i] * scale)) + range[i % VL_NR]) *
                 (double)ws[i] + 2 * DENORM;
    near_all(s, ws, tol, ns, "p");
    for (int q = 0; q < lanes; q++) tol[q] = isinf(wm[q]) ? 0 : EPS * fabs((double)wm[q]) + DENORM;
    near_all(m, wm, tol, (size_t)lanes, "m");
    for (int q = 0; q < lanes; q++)
        tol[q] = EPS * (6 + 3 * range[q] + sqrt(keys) * 2) * fabs((double)wl[q]) * (1 + range[q]) + DENORM;
    near_all(l, wl, tol, (size_t)lanes, "l");
    for (int q = 0; q < lanes; q++) tol[q] = EPS * (6 + 3 * range[q]) * (double)wf[q] + DENORM;
    near_all(f, wf, tol, (size_t)lanes, "fix");
    guards_end();
}

/* exp alone, through one key against m = 0: p = e^s for s in [-104, 0], in ulps of the result. */
static void check_exp(const vl_candidate *cand) {
    double most = 0;
    for (int block = 0; block < 4096; block++) {
        float s[VL_NR], m[VL_NR], l[VL_NR], f[VL_NR], x[VL_NR];
        int32_t valid[VL_NR];
        for (int q = 0; q < VL_NR; q++) {
            x[q] = s[q] = (float)(-104.0 * (block * VL_NR + q) / (4096.0 * VL_NR));
            m[q] = l[q] = 0;
            valid[q] = 1;
        }
        ((vl_uk_softmax *)cand->fn)(s, 1, VL_NR, valid, 1.0f, m, l, f);
        for (int q = 0; q < VL_NR; q++) {
            double want = exp((double)x[q]), ulp = fmax(ldexp(1, ilogb(want) - 23), DENORM);
            most = fmax(most, fabs((double)s[q] - want) / ulp);
        }
    }
    CHECK(most <= 1.5, "%s: exp is off by %.2f ulp", running, most);
    printf("  %s: exp within %.2f ulp on [-104, 0]\n", running, most);
}

static void check_softmax(const vl_candidate *cand, const vl_candidate *ref) {
    static const int KEYS[] = {1, 2, 3, 7, 16, 33, 63, 64}, LANES[] = {1, 2, 8, 17, 32};
    for (int i = 0; i < 8; i++)
        for (int n = 0; n < 5; n++)
            for (int v = 0; v < 4; v++) softmax_case(cand, ref, KEYS[i], LANES[n], v & 1, v & 2);
    check_exp(cand);
    if (!bench) return;
    static float s[64 * VL_NR], m[VL_NR], l[VL_NR], f[VL_NR];
    int32_t valid[VL_NR];
    for (int q = 0; q < VL_NR; q++) valid[q] = 64;
    bench_row("64 keys x 32", TIME(((vl_uk_softmax *)cand->fn)(s, 64, 32, valid, 0.1f, m, l, f)),
              64 * VL_NR * 12, sizeof s * 2);
}

/* One row of tile scores against double: probabilities within 1e-5 and their rounding, sums lane by lane. */
static void softmax_tiles_row(const float *s, const float *was, int keys, int n, float scale, const float *old, int r,
                              float m, const float *l, float fix) {
    double top = (double)old[0], most = top, f = 1, sums[16] = {0};
    int blocks = (keys + 31) / 32;
    for (int k = 0; k < n; k++) most = fmax(most, (double)was[k / 32 * VL_SCORES + r * 32 + k % 32]);
    double rise = (most - top) * (double)scale * 1.44269504; /* in powers of two */
    CHECK(n <= 0 || (double)m == most || (!isinf(old[0]) && (double)m == top && rise <= VL_HEADROOM + 1e-4),
          "%s: taken against %g; it was %g, the maximum is %g", running, (double)m, top, most);
    CHECK(n <= 0 || isinf(old[0]) || rise < VL_HEADROOM + 1e-4 || (double)m == most, "%s: %g, not %g", running, (double)m, most);
    top = (double)m;
    if (!isinf(old[0]) && (double)old[0] != top) f = exp(((double)old[0] - top) * (double)scale);
    for (int i = 0; i < 16; i++) sums[i] = (double)old[1] * f;
    for (int k = 0; k < blocks * 32; k++) {
        const float *row = s + k / 32 * VL_SCORES + r * 32;
        uint32_t pair;
        memcpy(&pair, row + k % 32 / 2, sizeof pair);
        double got = (double)vl_bf16_to_f32((uint16_t)(k % 2 ? pair >> 16 : pair & 0xffff)), want = 0;
        if (k < n) want = exp(((double)was[k / 32 * VL_SCORES + r * 32 + k % 32] - top) * (double)scale);
        sums[k % 16] += want;
        CHECK(k < n ? fabs(got - want) <= (0x1p-8 + 1e-5) * want + 2e-38 : got == 0, "%s: keys %d of %d, row %d key %d: %g, not %g",
              running, n, keys, r, k, got, want);
    }
    CHECK(fabs((double)fix - f) <= 1e-5 * f + 2e-38, "%s: fix %g, not %g", running, (double)fix, f);
    for (int i = 0; i < 16; i++)
        CHECK(fabs((double)l[i] - sums[i]) <= 2e-5 * sums[i] + 2e-36, "%s: sum %g, not %g", running, (double)l[i], sums[i]);
}

static void check_softmax_tiles(const vl_candidate *cand, const vl_candidate *ref) {
    static const int KEYS[] = {1, 2, 15, 16, 17, 31, 32, 33, 48, 63, 64, 100, 256}, ROWS[] = {1, 2, 16, 31, 32};
    vl_uk_softmax_tiles *fn = (vl_uk_softmax_tiles *)cand->fn;
    (void)ref;
    for (size_t i = 0; i < sizeof KEYS / sizeof *KEYS; i++)
        for (int v = 0; v < 5 * 4; v++) {
            int keys = KEYS[i], rows = ROWS[v / 4], blocks = (keys + 31) / 32;
            size_t n = (size_t)(blocks - 1) * VL_SCORES + (size_t)rows * 32;
            float *s = guard_words(n), *was = guard_words(n), *m = guard_words((size_t)rows), *fix = guard_words((size_t)rows);
            float *l = guard_words((size_t)rows * 16), old[32][2], scale = v & 1 ? 0.125f : 20.0f;
            int32_t valid[32];
            for (size_t k = 0; k < n; k++) s[k] = was[k] = (float)vl_rng_normal(&rng) * 3;
            for (int r = 0; r < rows; r++) {
                bool fresh = v & 2;
                valid[r] = r % 4 == 3 ? (int)(vl_rng_u64(&rng) % (uint64_t)(keys + 2)) - 1 : keys + r % 2;
                m[r] = old[r][0] = fresh ? -INFINITY : (float)vl_rng_normal(&rng) * 3;
                old[r][1] = fresh ? 0 : (float)r;
                for (int k = 0; k < 16; k++) l[r * 16 + k] = old[r][1];
            }
            fn(s, keys, rows, valid, scale, m, l, fix);
            for (int r = 0; r < rows; r++)
                softmax_tiles_row(s, was, keys, valid[r] < keys ? valid[r] : keys, scale, old[r], r, m[r], l + r * 16, fix[r]);
            guards_end();
        }
    if (!bench) return;
    static float s[8 * VL_SCORES], m[32], l[512], fix[32];
    int32_t valid[32];
    for (int i = 0; i < 32; i++) valid[i] = 256, m[i] = 1;
    bench_row("32 x 256 keys", TIME(fn(s, 256, 32, valid, 0.1f, m, l, fix)), 0, 8.0 * 32 * 256);
}

/* Outputs of a block of rows: those of the epilogue, row by row, within what bf16 mode asks for. */
static void check_finish_tiles(const vl_candidate *cand, const vl_candidate *ref) {
    vl_uk_finish_tiles *fn = (vl_uk_finish_tiles *)cand->fn;
    for (int n = 1; n <= 32; n++)
        for (int v = 0; v < 8; v++) {
            int rows = n % 2 ? 32 : 1 + n / 2;
            size_t ldo = (size_t)n + (size_t)(v % 3) * (n == 32 ? 16 : 1), count = (size_t)(rows - 1) * ldo + (size_t)n;
            float *out = guard_words(count), *want = guard_words(count), *sums = guard_words((size_t)rows * 32), *bias = NULL;
            fill(sums, (size_t)rows * 32, (kind)(n % KINDS), &rng);
            for (int i = 0; i < rows * 32; i++) /* as wide as GELU turns */
                if (n % 2) sums[i] = (float)vl_rng_normal(&rng) * 4;
            if (v & 4) fill(bias = guard_words((size_t)n), (size_t)n, NORMAL, &rng);
            for (size_t i = 0; i < count; i++) out[i] = want[i] = (float)vl_rng_normal(&rng);
            fn(out, ldo, sums, bias, rows, n, (vl_epilogue)(v & 3));
            ((vl_uk_finish_tiles *)ref->fn)(want, ldo, sums, bias, rows, n, (vl_epilogue)(v & 3));
            for (size_t i = 0; i < count; i++) {
                double w = (double)want[i], tol = (v & 3) >= 2 ? 1e-5 * fabs(w) + 1e-32 : 1e-7 * fabs(w);
                CHECK(out[i] == want[i] || fabs((double)out[i] - w) <= tol, "%s: epilogue %d of %d x %d at %zu: %g, not %g", running,
                      v & 3, rows, n, i, (double)out[i], w);
            }
            guards_end();
        }
    if (!bench) return;
    static float out[32 * 64], sums[32 * 32], bias[32];
    for (int e = 0; e < 3; e++)
        bench_row(e == 2 ? "32 x 32, GELU" : e ? "32 x 32, residual" : "32 x 32, bias",
                  TIME(fn(out, 64, sums, bias, 32, 32, (vl_epilogue)e)), 0, 32 * 32 * (e == 1 ? 12 : 8));
}

/* ---- the running output of attention --------------------------------------------------------------- */

static void check_scale_lanes(const vl_candidate *cand, const vl_candidate *ref) {
    for (int i = 0; i < TAIL_COUNT; i++) {
        size_t n = (size_t)TAILS[i] * VL_NR;
        float *o = guard_words(n), *fix = guard_words(VL_NR), *want = guard_words(n);
        fill(o, n, NORMAL, &rng);
        for (int q = 0; q < VL_NR; q++) fix[q] = i % 3 && q < 16 ? 1 : (float)vl_rng_uniform(&rng);
        memcpy(want, o, n * 4);
        ((vl_uk_scale_lanes *)ref->fn)(want, fix, TAILS[i]);
        ((vl_uk_scale_lanes *)cand->fn)(o, fix, TAILS[i]);
        CHECK(!memcmp(o, want, n * 4), "%s E %d", running, TAILS[i]); /* one product: exact */
        guards_end();
    }
    static float o[128 * VL_NR], fix[VL_NR];
    if (bench) bench_row("128 x 32", TIME(((vl_uk_scale_lanes *)cand->fn)(o, fix, 128)), 128 * VL_NR, sizeof o * 2);
}

static void check_mix_values(const vl_candidate *cand, const vl_candidate *ref) {
    static const int KEYS[] = {1, 2, 33, 64};
    for (int i = 0; i < TAIL_COUNT; i++)
        for (int j = 0; j < 4; j++) {
            int E = TAILS[i], keys = KEYS[j], lanes = 1 + (i + j) % 5;
            size_t ldv = (size_t)E + (j % 2 ? 5 : 0), nv = (size_t)(keys - 1) * ldv + (size_t)E;
            size_t no = (size_t)(lanes * E), np = (size_t)((keys - 1) * VL_NR + lanes);
            float *o = guard_words(no), *p = guard_words(np), *v = guard_words(nv);
            float want[5 * 128], mag[5 * 128], fix[5] = {0.7f, 1, 0.1f, 0.9f, 0};
            double tol[5 * 128];
            fill(o, no, NORMAL, &rng), fill(v, nv, (kind)((i + j) % KINDS), &rng), fill(p, np, NORMAL, &rng);
            memcpy(want, o, no * 4);
            for (int e = 0; e < lanes * E; e++) {
                mag[e] = fabsf(o[e]);
                for (int k = 0; k < keys; k++)
                    mag[e] += fabsf(p[k * VL_NR + e / E] * v[(size_t)k * ldv + (size_t)(e % E)]);
                tol[e] = EPS * (2 * sqrt(keys) + 4) * (double)mag[e] + DENORM * (keys + 1);
            }
            ((vl_uk_mix_values *)ref->fn)(want, fix, p, v, ldv, keys, E, lanes, NULL);
            ((vl_uk_mix_values *)cand->fn)(o, fix, p, v, ldv, keys, E, lanes, j ? v : NULL);
            near_all(o, want, tol, no, "mix");
            guards_end();
        }
    static float o[256], p[64 * VL_NR], fix[2], v[64 * 128] __attribute__((aligned(64)));
    if (bench)
        bench_row("64 keys, E 128, 2 lanes", TIME(((vl_uk_mix_values *)cand->fn)(o, fix, p, v, 128, 64, 128, 2, NULL)),
                  4 * 64 * 128, sizeof v);
}

/* Columns of scores have the bits of gemv on the same panels. */
static void check_score_keys(const vl_candidate *cand, const vl_candidate *ref) {
    static const int KEYS[] = {1, 31, 32, 33, 64}, WIDTH[] = {2, 64, 128, 160, 300};
    for (int i = 0; i < 5; i++)
        for (int j = 0; j < 5; j++) {
            int E = WIDTH[i], keys = KEYS[j], lanes = 1 + (i + j) % VL_GEMV_ROWS, panels = (keys + VL_NR - 1) / VL_NR;
            size_t nk = (size_t)(panels * VL_NR * E), nq = (size_t)(lanes * E), ns = (size_t)((keys - 1) * VL_NR + lanes);
            float *s = guard_words(ns), *q = guard_words(nq), *k = guard_words(nk), want[64 * VL_NR], *same = guard_words(ns);
            double tol[64 * VL_NR];
            fill(q, nq, NORMAL, &rng), fill(k, nk, (kind)((i + j) % KINDS), &rng);
            for (size_t at = 0; at < ns; at++) s[at] = same[at] = want[at] = 7, tol[at] = DENORM;
            for (int at = 0; at < keys; at++)
                for (int l = 0; l < lanes; l++) {
                    double mag = 0;
                    for (int e = 0; e < E; e++)
                        mag += fabs((double)q[l * E + e] *
                                    (double)k[(size_t)(at / VL_NR * E + e) * VL_NR + (size_t)(at % VL_NR)]);
                    tol[at * VL_NR + l] = EPS * (2 * sqrt(E) + 4) * mag + DENORM * (E + 1);
                }
            ((vl_uk_score_keys *)ref->fn)(want, q, (size_t)E, k, keys, E, lanes, NULL);
            ((vl_uk_score_keys *)cand->fn)(s, q, (size_t)E, k, keys, E, lanes, j % 2 ? k : NULL);
            near_all(s, want, tol, ns, "scores");
            const vl_candidate *gemv = of_tier(VL_SLOT_gemv_f32, cand->tier);
            for (int at = 0; at < keys; at++) {
                float y[VL_GEMV_ROWS * VL_NR];
                ((vl_uk_gemv *)gemv->fn)(y, q, (size_t)E, k + (size_t)(at / VL_NR * VL_NR * E), E, lanes);
                for (int l = 0; l < lanes; l++) same[at * VL_NR + l] = y[l * VL_NR + at % VL_NR];
            }
            CHECK(!memcmp(s, same, ns * sizeof *s), "%s: E %d, %d keys, %d lanes: not the bits of gemv", running, E, keys, lanes);
            guards_end();
        }
    static float s[64 * VL_NR], q[256], k[64 * 128] __attribute__((aligned(64)));
    if (bench)
        bench_row("64 keys, E 128, 2 lanes", TIME(((vl_uk_score_keys *)cand->fn)(s, q, 128, k, 64, 128, 2, NULL)),
                  4 * 64 * 128, sizeof k);
}

static void check_mix_pairs(const vl_candidate *cand, const vl_candidate *ref) {
    for (int i = 0; i < TAIL_COUNT; i++)
        for (int n = 1; n <= 32; n += n == 1 ? 1 : 30) {
            int E = TAILS[i];
            size_t nv = (size_t)n * (size_t)E, np = (size_t)(n - 1) * VL_NR + 1;
            float *o = guard_words((size_t)E), want[128], mag[128];
            uint32_t *p = guard_words(np), *v = guard_words(nv), *ap = guard_words(np), *av = guard_words(nv);
            double tol[128];
            fill(o, (size_t)E, NORMAL, &rng);
            fill_bf16(p, np, NORMAL, &rng), fill_bf16(v, nv, NORMAL, &rng);
            for (size_t j = 0; j < np; j++) ap[j] = p[j] & 0x7fff7fffu;
            for (size_t j = 0; j < nv; j++) av[j] = v[j] & 0x7fff7fffu;
            for (int e = 0; e < E; e++) want[e] = o[e], mag[e] = fabsf(o[e]);
            ((vl_uk_mix_pairs *)ref->fn)(want, 0.7f, p, v, n, E);
            ((vl_uk_mix_pairs *)ref->fn)(mag, 1.0f, ap, av, n, E);
            for (int e = 0; e < E; e++) tol[e] = EPS * (2 * sqrt(2 * n) + 4) * (double)mag[e] + DENORM * (2 * n + 1);
            ((vl_uk_mix_pairs *)cand->fn)(o, 0.7f, p, v, n, E);
            near_all(o, want, tol, (size_t)E, "mix");
            guards_end();
        }
    static float o[128];
    static uint32_t p[32 * VL_NR], v[32 * 128];
    if (bench)
        bench_row("64 keys, E 128", TIME(((vl_uk_mix_pairs *)cand->fn)(o, 1, p, v, 32, 128)), 2 * 64 * 128, sizeof v);
}

int main(int argc, char **argv) {
    static check_fn *const checks[VL_SLOT_COUNT] = {ROWS(CHECK_OF)};
    return every_line(argc, argv, checks);
}
