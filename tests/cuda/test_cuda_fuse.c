/* test_cuda_fuse.c: ops that the CUDA backend joins into one launch leave the same bits in every buffer
 * as the ops one by one (a sync() after each keeps them apart), at shapes that fuse and at shapes that
 * do not; and repeated steps, which become CUDA graphs, compute what the stream would. */
#include "kernels/cuda/backend.h"
#include "tests/cuda/device.h"

typedef struct step {          /* one decoder layer's two halves, and the buffers they write */
    int T, D, H, G, E, F, slots;
    vl_matrix w[5];            /* q, k, v, gate, up                                          */
    float *wide[5], *bias[3];  /* host copies; device biases of q, k, v                      */
    float *x, *norm, *qn, *kn, *cos, *sin;
    float *h, *h2, *q, *k, *v, *gate, *up;
    void *k_pool, *v_pool;
    int32_t *slot;
} step;

static float *random_on_gpu(size_t n) {
    float *host = random_floats(n), *p = to_gpu(host, n * sizeof *host);
    free(host);
    return p;
}

static step step_new(int T, int D, int H, int G, int E, int F) {
    step s = {.T = T, .D = D, .H = H, .G = G, .E = E, .F = F, .slots = 3 * VL_KV_BLOCK};
    const int rows[5] = {H * E, G * E, G * E, F, F};
    size_t t = (size_t)T, half = (size_t)E / 2, kv = (size_t)(G * E);
    int32_t slot[160];
    for (int i = 0; i < 5; i++) s.w[i] = random_matrix(rows[i], D, VL_BF16, &s.wide[i]);
    for (int i = 0; i < 3; i++) s.bias[i] = i == 1 ? NULL : random_on_gpu((size_t)rows[i]);
    s.x = random_on_gpu(t * (size_t)D), s.norm = random_on_gpu((size_t)D);
    s.qn = random_on_gpu((size_t)E), s.kn = random_on_gpu((size_t)E);
    s.cos = random_on_gpu(t * half), s.sin = random_on_gpu(t * half);
    s.h = random_on_gpu(t * (size_t)D), s.h2 = random_on_gpu(t * (size_t)D);
    s.q = random_on_gpu(t * (size_t)(H * E)), s.k = random_on_gpu(t * kv), s.v = random_on_gpu(t * kv);
    s.gate = random_on_gpu(t * (size_t)F), s.up = random_on_gpu(t * (size_t)F);
    s.k_pool = gpu->ops->alloc(gpu, (size_t)s.slots * kv * 2);
    s.v_pool = gpu->ops->alloc(gpu, (size_t)s.slots * kv * 2);
    for (int i = 0; i < T; i++) slot[i] = (i * 37 + 11) % s.slots;
    s.slot = to_gpu(slot, t * sizeof *slot);
    return s;
}

static void step_free(step *s) {
    void *p[] = {s->x, s->norm, s->qn, s->kn, s->cos, s->sin, s->h, s->h2, s->q, s->k, s->v, s->gate,
                 s->up, s->k_pool, s->v_pool, s->slot, s->bias[0], s->bias[2]};
    for (size_t i = 0; i < sizeof p / sizeof *p; i++) drop(p[i]);
    for (int i = 0; i < 5; i++) {
        free(s->wide[i]);
        free((void *)(uintptr_t)s->w[i].data);
    }
}

static void between(bool apart) {
    vl_err err = {0};
    if (apart) CHECK(gpu->ops->sync(gpu, &err) == 0, "%s", err.msg);
}

static void run_step(const step *s, bool apart) {
    const vl_ops *o = gpu->ops;
    int T = s->T, D = s->D, HE = s->H * s->E, GE = s->G * s->E;
    o->rmsnorm(gpu, s->h, s->x, s->norm, T, D, 1e-6f);
    between(apart);
    o->linear(gpu, s->q, HE, s->h, D, T, &s->w[0], s->bias[0], VL_EPI_NONE);
    between(apart);
    o->linear(gpu, s->k, GE, s->h, D, T, &s->w[1], s->bias[1], VL_EPI_NONE);
    between(apart);
    o->linear(gpu, s->v, GE, s->h, D, T, &s->w[2], s->bias[2], VL_EPI_NONE);
    between(apart);
    o->qk_norm_rope(gpu, &(vl_rope_kv_args){
        .q = s->q, .k = s->k, .v = s->v, .ldq = HE, .ldk = GE, .ldv = GE, .q_norm = s->qn,
        .k_norm = s->kn, .eps = 1e-6f, .cos = s->cos, .sin = s->sin, .k_pool = s->k_pool,
        .v_pool = s->v_pool, .kv_slot = s->slot, .T = T, .H = s->H, .G = s->G, .E = s->E});
    between(apart);
    o->rmsnorm(gpu, s->h2, s->x, s->norm, T, D, 1e-5f);
    between(apart);
    o->linear(gpu, s->gate, s->F, s->h2, D, T, &s->w[3], NULL, VL_EPI_NONE);
    between(apart);
    o->linear(gpu, s->up, s->F, s->h2, D, T, &s->w[4], NULL, VL_EPI_NONE);
    between(apart);
    o->swiglu(gpu, s->gate, s->gate, s->up, T, s->F);
    between(apart);
}

/* Every byte that a step writes, one after the other; free with free(). */
static uint8_t *snapshot(const step *s, size_t *n) {
    size_t t = (size_t)s->T * 4, d = t * (size_t)s->D, f = t * (size_t)s->F, kv = (size_t)(s->G * s->E);
    const struct { const void *p; size_t bytes; } part[] = {
        {s->h, d}, {s->h2, d}, {s->q, t * (size_t)(s->H * s->E)}, {s->k, t * kv}, {s->v, t * kv},
        {s->gate, f}, {s->up, f}, {s->k_pool, (size_t)s->slots * kv * 2},
        {s->v_pool, (size_t)s->slots * kv * 2}};
    uint8_t *all = NULL;
    *n = 0;
    for (size_t i = 0; i < sizeof part / sizeof *part; i++) {
        all = realloc(all, *n + part[i].bytes);
        vl_assert(all, "memory");
        from_gpu(all + *n, part[i].p, part[i].bytes);
        *n += part[i].bytes;
    }
    return all;
}

static void step_case(int T, int D, int H, int G, int E, int F, bool qkv) {
    step s = step_new(T, D, H, G, E, F);
    size_t n = 0, m = 0;
    char what[96];
    snprintf(what, sizeof what, "PTX %s step T %d D %d H %d G %d E %d F %d", getenv("GPUSIM_PTX"), T, D, H,
             G, E, F);
    run_step(&s, true);
    uint8_t *apart = snapshot(&s, &n);
    long before = launches("vl_qkv");
    for (int i = 0; i < 3; i++) { /* as a stream, captured, as a graph */
        gpu->ops->put(gpu, s.q, apart, 64); /* what an earlier step left does not stay */
        run_step(&s, false);
        uint8_t *joined = snapshot(&s, &m);
        CHECK(n == m && !memcmp(apart, joined, n), "%s: run %d has other bits", what, i);
        free(joined);
    }
    CHECK(before < 0 || launches("vl_qkv") == before + 3 * qkv, "%s: %ld launches of vl_qkv", what,
          launches("vl_qkv") - before);
    free(apart);
    step_free(&s);
}

/* A graph whose arguments change from run to run: the same ops on other buffers. */
static void test_updates(void) {
    step a = step_new(2, 64, 2, 1, 16, 32), b = step_new(2, 64, 2, 1, 16, 32);
    size_t n = 0;
    run_step(&a, true);
    uint8_t *want_a = snapshot(&a, &n);
    run_step(&b, true);
    uint8_t *want_b = snapshot(&b, &n);
    for (int i = 0; i < 6; i++) {
        step *s = "abaabb"[i] == 'b' ? &b : &a; /* captured with b, after a was seen */
        gpu->ops->put(gpu, s->q, want_a, 64);
        run_step(s, false);
        run_step(s, false);
        uint8_t *got = snapshot(s, &n);
        CHECK(!memcmp(got, s == &a ? want_a : want_b, n), "graph run %d", i);
        free(got);
    }
    free(want_a), free(want_b);
    step_free(&a), step_free(&b);
}

/* Products that only look like a step: into the norm's own input, into each other's output. */
static void test_decoys(void) {
    enum { T = 3, D = 64 };
    step s = step_new(T, D, 4, 4, 16, D);
    float first[T * D], again[T * D];
    for (int apart = 0; apart < 2; apart++) {
        float *start = vl_calloc(T * D, sizeof *start);
        for (int i = 0; i < T * D; i++) start[i] = (float)(i % 13) - 6;
        gpu->ops->put(gpu, s.x, start, T * D * 4);
        gpu->ops->rmsnorm(gpu, s.h, s.x, s.norm, T, D, 1e-6f);
        between(apart);
        gpu->ops->linear(gpu, s.x, D, s.h, D, T, &s.w[3], NULL, VL_EPI_NONE);
        between(apart);
        gpu->ops->rmsnorm(gpu, s.h, s.x, s.norm, T, D, 1e-6f);
        between(apart);
        gpu->ops->linear(gpu, s.gate, D, s.h, D, T, &s.w[3], NULL, VL_EPI_NONE);
        between(apart);
        gpu->ops->linear(gpu, s.gate, D, s.h, D, T, &s.w[4], NULL, VL_EPI_ADD);
        between(apart);
        gpu->ops->swiglu(gpu, s.gate, s.gate, s.up, T, D);
        from_gpu(apart ? again : first, s.gate, sizeof first);
        free(start);
    }
    same_bits(first, again, T * D, "products into the norm's input and into one output");
    step_free(&s);
}

/* Norm, head and arg-max: one launch, with the bits and the choices of three. */
static void test_choice(void) {
    enum { T = 11, D = 64, V = 300 };
    float *wide, *x = random_floats(T * D), *norm = random_on_gpu(D), logits[2][T * V] = {{0}};
    int32_t ids[2][T] = {{0}};
    for (int i = 0; i < D; i++) x[3 * D + i] = 0; /* all logits are 0, or -0: the first wins */
    x[9 * D + 5] = NAN;
    vl_matrix w = random_matrix(V, D, VL_BF16, &wide);
    float *dx = to_gpu(x, T * D * 4), *h = to_gpu(x, T * D * 4), *out = to_gpu(logits[0], sizeof logits[0]);
    int32_t *best = to_gpu(ids[0], sizeof ids[0]);
    for (int joined = 0; joined < 2; joined++) {
        vl_err err = {0};
        CHECK(gpu->ops->sync(gpu, &err) == 0, "%s", err.msg);
        long before = launches("vl_argmax");
        gpu->ops->rmsnorm(gpu, h, dx, norm, T, D, 1e-6f);
        gpu->ops->linear(gpu, out, V, h, D, T, &w, NULL, VL_EPI_NONE);
        between(!joined);
        gpu->ops->argmax(gpu, best, out, T, V);
        from_gpu(ids[joined], best, sizeof ids[0]);
        from_gpu(logits[joined], out, sizeof logits[0]);
        CHECK(before < 0 || launches("vl_argmax") == before + !joined, "%ld launches of vl_argmax",
              launches("vl_argmax") - before);
    }
    CHECK(!memcmp(ids[0], ids[1], sizeof ids[0]) && ids[1][3] == 0 && ids[1][9] == -1, "choices: %d %d, row 3 %d, row 9 %d",
          ids[0][0], ids[1][0], ids[1][3], ids[1][9]);
    CHECK(!memcmp(logits[0], logits[1], sizeof logits[0]), "logits of the joined head");
    drop(dx), drop(h), drop(out), drop(best), drop(norm);
    free((void *)(uintptr_t)w.data);
    free(wide), free(x);
}

/* rope_vision and attend_full: one launch less, and the same bits of both; so too where they do not belong
 * together. */
static void test_turn(void) {
    enum { P = 70, H = 2, E = 24, N = P * 3 * H * E };
    float *x = random_floats(N), *dx = to_gpu(x, N * 4), *cos = random_on_gpu(P * E / 2), *sin = random_on_gpu(P * E / 2);
    float *out = random_on_gpu(P * H * E), *qkv[3], *made[3];
    int32_t cu[] = {0, 20, P}, *dcu = to_gpu(cu, sizeof cu);
    for (int i = 0; i < 3; i++) { /* apart, joined, something else in between */
        qkv[i] = vl_calloc(N, 4), made[i] = vl_calloc(P * H * E, 4);
        gpu->ops->put(gpu, dx, x, N * 4);
        vl_err err = {0};
        CHECK(gpu->ops->sync(gpu, &err) == 0, "%s", err.msg);
        long before = launches("vl_rope_vision");
        gpu->ops->rope_vision(gpu, dx, cos, sin, P, H, E);
        between(i == 0);
        if (i == 2) gpu->ops->add_rows(gpu, out, NULL, out, NULL, 1, 4);
        gpu->ops->attend_full(gpu, out, dx, dcu, 2, P, H, E, 0.2f);
        from_gpu(qkv[i], dx, N * 4);
        from_gpu(made[i], out, P * H * E * 4);
        CHECK(before < 0 || launches("vl_rope_vision") == before + (i != 1), "launches of vl_rope_vision, run %d", i);
        same_bits(qkv[0], qkv[i], N, "q and k turned");
        same_bits(made[0], made[i], P * H * E, "attention behind the turn");
    }
    for (int i = 0; i < 3; i++) free(qkv[i]), free(made[i]);
    drop(dx), drop(cos), drop(sin), drop(out), drop(dcu);
    free(x);
}

/* Small puts between launches come in their order, however many there are; so do large ones among them. */
static void test_puts(void) {
    enum { N = 40, W = 96, LARGE = 6000 };
    float *one = random_on_gpu(W), *sum = random_on_gpu(W), *big = random_on_gpu(LARGE), host[LARGE] = {0}, got[W];
    gpu->ops->put(gpu, sum, host, sizeof got);
    for (int i = 1; i <= N; i++) {
        for (int k = 0; k < W; k++) host[k] = (float)(i * k);
        gpu->ops->put(gpu, one, host, sizeof got);
        gpu->ops->put(gpu, one + 1, host + 2, 4); /* over a part of it: the later one counts */
        if (i % 7 == 0) gpu->ops->put(gpu, big, host, sizeof host);
        host[0] = host[2] = -1; /* the source may change at once */
        if (i % 3) gpu->ops->add_rows(gpu, sum, NULL, one, NULL, 1, W);
    }
    from_gpu(got, sum, sizeof got);
    float of = 0;
    for (int i = 1; i <= N; i++) of += i % 3 ? (float)i : 0;
    bool right = got[0] == 0 && got[1] == 2 * of;
    for (int k = 2; k < W; k++) right = right && got[k] == of * (float)k;
    CHECK(right, "small puts: %g %g %g, expected 0 %g %g", (double)got[0], (double)got[1], (double)got[W - 1],
          (double)(2 * of), (double)(of * (W - 1)));
    gpu->ops->put(gpu, one, host, sizeof got); /* with no launch behind it */
    from_gpu(got, one, sizeof got);
    CHECK(got[0] == -1 && got[1] == N && got[3] == 3 * N, "a put alone: %g %g %g", (double)got[0], (double)got[1],
          (double)got[3]);
    drop(one), drop(sum), drop(big);
}

int main(void) {
    static const char *const PTX[] = {"75", "80", "90", "100"};
    static const char *const ORDER[] = {"forward", "reverse", "random", "random"};
    const char *why = cannot_run();
    if (why) {
        test_skip(why);
        return test_end();
    }
    for (int i = 0; i < 4; i++) {
        setenv("GPUSIM_DEVICE", "B200", 1);
        setenv("GPUSIM_PTX", PTX[i], 1);
        setenv("GPUSIM_ORDER", ORDER[i], 1);
        vl_rng_seed(&rng, 7);
        open_gpu();
        step_case(1, 64, 4, 2, 32, 48, true);
        step_case(9, 96, 3, 1, 16, 33, true);
        if (i == 1) step_case(1, 2048, 2, 1, 128, 32, true); /* K of 2B */
        step_case(3, 64, 2, 1, 24, 32, false);               /* heads that share a tile */
        step_case(2, 72, 2, 1, 16, 32, false);               /* K that is no multiple of 32 */
        step_case(17, 64, 2, 1, 16, 32, false);              /* many rows */
        if (i < 2) step_case(140, 96, 3, 1, 16, i ? 101 : 160, false); /* odd: outputs go one by one */
        if (i == 2) step_case(18, 2080, 2, 1, 16, 48, false); /* two groups of inputs */
        if (i == 1) {                                         /* ... block by block */
            cuda_of(gpu)->part_bytes = 130 << 10;
            step_case(18, 2080, 2, 1, 16, 80, false);
            cuda_of(gpu)->part_bytes = CUDA_PART_BYTES;
        }
        test_updates();
        test_decoys();
        test_choice();
        test_turn();
        test_puts();
        close_gpu(PTX[i]);
    }
    return test_end();
}
