/* test_ops.c: whole ops of the CPU backend against plain double code, and the promise of design §1.4:
 * the same row gives the same bits for 1 or 2 threads, through gemv or gemm, alone, in a chunk or in
 * a batch. Runs on the tier that VL_CPU leaves; main() repeats itself for every tier present. */
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernels/cpu/ukernels.h"
#include "kernels/ops_trace.h"
#include "tests/test.h"

static vl_rng rng;
static const char *tier;

static float *random_floats(size_t n) {
    float *x = vl_calloc(n, sizeof *x);
    vl_assert(x, "memory");
    for (size_t i = 0; i < n; i++) x[i] = (float)vl_rng_normal(&rng);
    return x;
}
static float *nans(size_t n) {
    float *x = random_floats(n);
    memset(x, 0xff, n * sizeof *x);
    return x;
}
static const char *mode = "exact";
static vl_backend *open_cpu(int threads) {
    vl_backend *b = NULL;
    vl_err err = {0};
    if (vl_backend_open(&b, &(vl_backend_params){"cpu", mode, threads}, &err)) {
        printf("FAIL %s\n", err.msg);
        exit(1);
    }
    return b;
}

/* A matrix of the given type with random values; *wide gets the same values as f32. */
static vl_matrix random_matrix(int rows, int cols, vl_dtype dtype, float **wide) {
    size_t n = (size_t)rows * (size_t)cols;
    float *f = random_floats(n);
    uint16_t *h = vl_calloc(n, sizeof *h);
    vl_assert(h, "memory");
    for (size_t i = 0; i < n && dtype != VL_F32; i++)
        h[i] = dtype == VL_BF16 ? vl_f32_to_bf16(f[i]) : vl_f32_to_f16(f[i]);
    *wide = vl_calloc(n, sizeof **wide);
    vl_assert(*wide, "memory");
    vl_widen(*wide, dtype == VL_F32 ? (void *)f : (void *)h, dtype, n);
    const void *data = dtype == VL_F32 ? (void *)f : (void *)h;
    free(dtype == VL_F32 ? (void *)h : (void *)f);
    return (vl_matrix){.name = "test", .data = data, .dtype = dtype, .rows = rows, .cols = cols};
}

/* max |a - b| / max |b| */
static double off(const float *a, const double *b, size_t n) {
    double worst = 0, big = 1e-30;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - b[i]);
        if (!(d <= worst)) worst = isnan(d) ? INFINITY : d;
        if (fabs(b[i]) > big) big = fabs(b[i]);
    }
    return worst / big;
}
static bool same(const float *a, const float *b, size_t n) { return !memcmp(a, b, n * sizeof *a); }

/* ---- linear ------------------------------------------------------------------------------------ */

static void linear_case(vl_backend *one, vl_backend *two, int T, int N, int K, vl_dtype dtype,
                        vl_epilogue epi, bool with_bias) {
    float *wide, *x = random_floats((size_t)T * (size_t)(K + 3)), *bias = random_floats((size_t)N);
    vl_matrix w = random_matrix(N, K, dtype, &wide), v = w;
    int ldx = K + 3, ldo = N + 2;
    size_t n = (size_t)T * (size_t)ldo;
    float *start = random_floats(n), *out = random_floats(n), *part = random_floats(n);
    double *want = vl_calloc(n, sizeof *want);
    float *seen = random_floats((size_t)T * (size_t)ldx); /* x as the products see it */
    for (size_t i = 0; i < (size_t)T * (size_t)ldx; i++)
        seen[i] = !strcmp(mode, "bf16") && dtype == VL_BF16 ? vl_bf16_to_f32(vl_f32_to_bf16(x[i])) : x[i];
    vl_err err;
    CHECK(one->ops->prepare(one, &w, VL_USE_LINEAR, &err) == 0, "%s", err.msg);
    CHECK(two->ops->prepare(two, &v, VL_USE_LINEAR, &err) == 0, "%s", err.msg);
    for (int t = 0; t < T; t++)
        for (int j = 0; j < ldo; j++) {
            size_t at = (size_t)t * (size_t)ldo + (size_t)j;
            want[at] = (double)start[at];
            if (j >= N) continue; /* between rows: untouched */
            double s = with_bias ? (double)bias[j] : 0;
            for (int k = 0; k < K; k++)
                s += (double)seen[(size_t)t * (size_t)ldx + (size_t)k] * (double)wide[(size_t)j * (size_t)K + (size_t)k];
            if (epi == VL_EPI_GELU_TANH) s = s / (1 + exp(-1.5957691216057308 * (s + 0.044715 * s * s * s)));
            if (epi == VL_EPI_GELU_ERF) s = 0.5 * s * erfc(-s * 0.7071067811865476);
            want[at] = epi == VL_EPI_ADD ? want[at] + s : s;
        }
    memcpy(out, start, n * sizeof *out);
    one->ops->linear(one, out, ldo, x, ldx, T, &w, with_bias ? bias : NULL, epi);
    double e = off(out, want, n);
    CHECK(e < 2e-6, "%s linear T %d N %d K %d %s epi %d: off by %.2g", tier, T, N, K, vl_dtype_name(dtype),
          (int)epi, e);
    static const int CHUNKS[] = {1, 2, 5, 6, 7, 64, 512};
    for (int c = 0; c < 7; c++) { /* two threads, other chunks: the same bits */
        memcpy(part, start, n * sizeof *part);
        for (int t = 0; t < T; t += CHUNKS[c])
            two->ops->linear(two, part + (size_t)t * (size_t)ldo, ldo, x + (size_t)t * (size_t)ldx, ldx,
                             T - t < CHUNKS[c] ? T - t : CHUNKS[c], &v, with_bias ? bias : NULL, epi);
        CHECK(same(out, part, n), "%s linear T %d N %d K %d %s: chunks of %d change bits", tier, T, N, K,
              vl_dtype_name(dtype), CHUNKS[c]);
    }
    free((void *)(uintptr_t)w.data);
    free(wide), free(x), free(bias), free(start), free(out), free(part), free(want), free(seen);
}

static void test_linear(vl_backend *one, vl_backend *two) {
    linear_case(one, two, 1, 1, 1, VL_BF16, VL_EPI_NONE, false);
    linear_case(one, two, 13, 33, 65, VL_BF16, VL_EPI_NONE, true);
    linear_case(one, two, 13, 33, 65, VL_F16, VL_EPI_GELU_TANH, true);
    linear_case(one, two, 13, 95, 257, VL_F32, VL_EPI_ADD, false);
    linear_case(one, two, 250, 64, 300, VL_BF16, VL_EPI_GELU_ERF, true);
    linear_case(one, two, 30, 96, 1536, VL_BF16, VL_EPI_ADD, true);
    linear_case(one, two, 7, 40, 6144, VL_BF16, VL_EPI_NONE, false);
    if (!strcmp(mode, "bf16") || !strcmp(tier, "amx")) linear_case(one, two, 600, 200, 2080, VL_BF16, VL_EPI_ADD, true); /* two passes on tiles, a large group */
}

/* A matrix in a file mapping: its pages may be given back while packing, gathers still work. */
static void test_file_pages(vl_backend *b) {
    enum { ROWS = 3000, COLS = 1031 };
    float *wide, *x = random_floats(COLS), *first = nans(ROWS), *row = nans(COLS);
    vl_matrix w = random_matrix(ROWS, COLS, VL_BF16, &wide);
    size_t bytes = (size_t)ROWS * COLS * 2;
    FILE *f = tmpfile();
    CHECK(f && fwrite(w.data, 1, bytes, f) == bytes && fflush(f) == 0, "temporary file");
    if (!f) return;
    void *map = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fileno(f), 0);
    vl_err err;
    free((void *)(uintptr_t)w.data);
    w.data = map;
    CHECK(b->ops->prepare(b, &w, VL_USE_LINEAR | VL_USE_GATHER | VL_USE_FILE_PAGES, &err) == 0, "%s", err.msg);
    b->ops->linear(b, first, ROWS, x, COLS, 1, &w, NULL, VL_EPI_NONE);
    double *want = vl_calloc(ROWS, sizeof *want);
    for (int j = 0; j < ROWS; j++)
        for (int k = 0; k < COLS; k++) want[j] += (double)x[k] * (double)wide[(size_t)j * COLS + (size_t)k];
    CHECK(off(first, want, ROWS) < 2e-6, "%s packed in slices", tier);
    int32_t id = 2999;
    b->ops->embed(b, row, &w, &id, 1);
    CHECK(same(row, wide + (size_t)id * COLS, COLS), "%s gather after packing", tier);
    munmap(map, bytes);
    fclose(f);
    free(wide), free(x), free(first), free(row), free(want);
}

/* ---- attention ----------------------------------------------------------------------------------- */

static void softmax_row(double *out, const float *q, const float *k, const float *v, size_t ld, int keys,
                        int E, double scale) {
    double *p = vl_calloc((size_t)keys, sizeof *p), top = -INFINITY, sum = 0;
    for (int j = 0; j < keys; j++) {
        for (int e = 0; e < E; e++) p[j] += (double)q[e] * (double)k[(size_t)j * ld + (size_t)e];
        p[j] *= scale;
        if (p[j] > top) top = p[j];
    }
    for (int j = 0; j < keys; j++) sum += p[j] = exp(p[j] - top);
    for (int e = 0; e < E; e++) {
        out[e] = 0;
        for (int j = 0; j < keys; j++) out[e] += p[j] / sum * (double)v[(size_t)j * ld + (size_t)e];
    }
    free(p);
}

/* A value as the products of bf16 mode see it, and how far a result may be from double code that sees the
 * same: there the probabilities are rounded as well, by half a part in 256. */
static float as_product(float x) { return !strcmp(mode, "bf16") ? vl_bf16_to_f32(vl_f32_to_bf16(x)) : x; }
static double attention_limit(void) { return !strcmp(mode, "bf16") ? 4e-3 : 3e-6; }

static void full_case(vl_backend *one, vl_backend *two, const int32_t *cu, int n, int H, int E) {
    int P = cu[n];
    size_t D = (size_t)H * (size_t)E, rows = (size_t)P;
    float *qkv = random_floats(rows * 3 * D), *a = nans(rows * D), *b = nans(rows * D);
    float *seen = random_floats(rows * 3 * D);
    for (size_t i = 0; i < rows * 3 * D; i++) seen[i] = as_product(qkv[i]);
    double *want = vl_calloc(rows * D, sizeof *want), scale = 1 / sqrt(E);
    for (int s = 0; s < n; s++)
        for (int p = cu[s]; p < cu[s + 1]; p++)
            for (int h = 0; h < H; h++) {
                const float *k = seen + (size_t)cu[s] * 3 * D + D + (size_t)h * (size_t)E;
                softmax_row(want + (size_t)p * D + (size_t)h * (size_t)E,
                            seen + (size_t)p * 3 * D + (size_t)h * (size_t)E, k, k + D, 3 * D,
                            cu[s + 1] - cu[s], E, scale);
            }
    one->ops->attend_full(one, a, qkv, cu, n, P, H, E, (float)scale);
    two->ops->attend_full(two, b, qkv, cu, n, P, H, E, (float)scale);
    double e = off(a, want, rows * D);
    CHECK(e < attention_limit(), "%s attend_full P %d H %d E %d: off by %.2g", tier, P, H, E, e);
    CHECK(same(a, b, rows * D), "%s attend_full P %d: threads change bits", tier, P);
    for (int s = 0; s < n; s++) { /* a segment alone */
        size_t len = (size_t)(cu[s + 1] - cu[s]), at = (size_t)cu[s];
        int32_t own[2] = {0, (int32_t)len};
        two->ops->attend_full(two, b + at * D, qkv + at * 3 * D, own, 1, (int)len, H, E, (float)scale);
    }
    CHECK(same(a, b, rows * D), "%s attend_full P %d: segments change bits", tier, P);
    free(qkv), free(seen), free(a), free(b), free(want);
}

/* Element e of a key or value in a pool of the CPU backend (kernels/cpu/cpu.h). */
static float half_of(float word, int odd) {
    uint16_t pair[2];
    memcpy(pair, &word, sizeof pair);
    return vl_bf16_to_f32(pair[odd]);
}
static float key_in(const float *pool, int block, int slot, int head, int e, int G, int E) {
    int panel = (block * G + head) * 2 + slot / 32, exact = !strcmp(mode, "exact");
    if (exact) return pool[panel * 32 * E + e * 32 + slot % 32];
    return half_of(pool[panel * 32 * (E / 2) + e / 2 * 32 + slot % 32], e % 2);
}
static float value_in(const float *pool, int block, int slot, int head, int e, int G, int E) {
    int at = (block * G + head) * VL_KV_BLOCK, exact = !strcmp(mode, "exact");
    if (exact) return pool[(at + slot) * E + e];
    return half_of(pool[(at + slot) / 2 * E + e], slot % 2);
}

/* Two sequences in scattered blocks; rows are appended in chunks and attend as they come. */
static void causal_case(vl_backend *one, vl_backend *two, int len0, int len1, int H, int G, int E) {
    enum { MAXB = 8 };
    int T = len0 + len1;
    size_t D = (size_t)H * (size_t)E, kv = (size_t)G * (size_t)E, rows = (size_t)T;
    size_t pool = 2 * MAXB * (size_t)VL_KV_BLOCK * kv, half = (size_t)E / 2;
    float *q = random_floats(rows * D), *k = random_floats(rows * kv), *v = random_floats(rows * kv);
    float *cos_ = random_floats(rows * half), *sin_ = random_floats(rows * half);
    float *qn = random_floats((size_t)E), *kn = random_floats((size_t)E);
    float *kp = nans(pool), *vp = nans(pool), *out = nans(rows * D), *part = nans(rows * D), *rot = nans(rows * D);
    double *want = vl_calloc(rows * D, sizeof *want), scale = 1 / sqrt(E);
    int32_t *slot = vl_calloc(rows, 4), *seq = vl_calloc(rows, 4), *len = vl_calloc(rows, 4);
    int32_t table[2 * MAXB];
    for (int i = 0; i < 2 * MAXB; i++) table[i] = (i * 7 + 3) % (2 * MAXB); /* scattered, disjoint */
    for (int t = 0; t < T; t++) {
        seq[t] = t >= len0;
        int i = t - (seq[t] ? len0 : 0);
        len[t] = i + 1;
        slot[t] = table[seq[t] * MAXB + i / VL_KV_BLOCK] * VL_KV_BLOCK + i % VL_KV_BLOCK;
    }
    memcpy(rot, q, rows * D * sizeof *q);
    vl_rope_kv_args r = {.q = rot, .k = k, .v = v, .ldq = (int)D, .ldk = (int)kv, .ldv = (int)kv, .q_norm = qn,
                         .k_norm = kn, .eps = 1e-6f, .cos = cos_, .sin = sin_, .k_pool = kp, .v_pool = vp,
                         .kv_slot = slot, .T = T, .H = H, .G = G, .E = E};
    for (int t = 0, n; t < T; t += n) { /* the rows of a token alone, then of many */
        n = t == len0 / 2 || t == len0 ? 1 : t < len0 / 2 ? len0 / 2 - t : t < len0 ? len0 - t : T - t;
        vl_rope_kv_args some = r;
        some.q += (size_t)t * D, some.k += (size_t)t * kv, some.v += (size_t)t * kv, some.kv_slot += t;
        some.cos += (size_t)t * half, some.sin += (size_t)t * half, some.T = n;
        two->ops->qk_norm_rope(two, &some);
    }
    /* norm, then rotate_half, in double, for one key row of each sequence */
    for (int t = 0; t < T; t += len0 > 1 ? len0 - 1 : 1) {
        const float *src = k + (size_t)t * kv;
        float got[256];
        double ss = 0, ref[256];
        for (int e = 0; e < E; e++) got[e] = key_in(kp, slot[t] / VL_KV_BLOCK, slot[t] % VL_KV_BLOCK, 0, e, G, E);
        for (int e = 0; e < E; e++) ss += (double)src[e] * (double)src[e];
        for (int e = 0; e < E; e++) ref[e] = (double)src[e] / sqrt(ss / E + 1e-6) * (double)kn[e];
        double y[256];
        for (int e = 0; e < E; e++) {
            size_t f = (size_t)t * half + (size_t)e % half;
            y[e] = ref[e] * (double)cos_[f] + (e < E / 2 ? -ref[e + E / 2] : ref[e - E / 2]) * (double)sin_[f];
        }
        CHECK(off(got, y, (size_t)E) < (one->kv_elem == 4 ? 1e-6 : 0x1p-8), "%s qk_norm_rope row %d E %d: off by %.2g", tier, t, E, off(got, y, (size_t)E));
    }
    vl_causal_args a = {.out = out, .q = rot, .ldq = (int)D, .k_pool = kp, .v_pool = vp, .table = table,
                        .max_blocks = MAXB, .row_seq = seq, .row_len = len, .T = T, .H = H, .G = G, .E = E,
                        .scale = (float)scale};
    one->ops->attend_causal(one, &a);
    float *kl = random_floats(rows * (size_t)E), *vl = random_floats(rows * (size_t)E);
    float *ql = random_floats((size_t)E), *pair = random_floats(2 * D);
    for (int t = 0; t < T; t++)
        for (int h = 0; h < H; h++) {
            int g = h / (H / G);
            for (int j = 0; j < len[t]; j++) { /* gather the keys of this row */
                int s = table[seq[t] * MAXB + j / VL_KV_BLOCK], at = j % VL_KV_BLOCK;
                for (int i = 0; i < E; i++) {
                    kl[j * E + i] = key_in(kp, s, at, g, i, G, E);
                    vl[j * E + i] = value_in(vp, s, at, g, i, G, E);
                }
            }
            for (size_t i = 0; i < (size_t)E; i++) ql[i] = as_product(rot[(size_t)t * D + (size_t)h * (size_t)E + i]);
            softmax_row(want + (size_t)t * D + (size_t)h * (size_t)E, ql, kl, vl, (size_t)E, len[t], E, scale);
        }
    double e = off(out, want, rows * D);
    CHECK(e < attention_limit(), "%s attend_causal %d+%d H %d G %d E %d: off by %.2g", tier, len0, len1, H, G, E, e);
    static const int CHUNKS[] = {1, 7, 64, 512};
    for (int c = 0; c < 4; c++) { /* rows in chunks that straddle the sequences, on two threads */
        memset(part, 0xff, rows * D * sizeof *part);
        for (int t = 0; t < T; t += CHUNKS[c]) {
            vl_causal_args s = a;
            s.out = part + (size_t)t * D;
            s.q = rot + (size_t)t * D;
            s.row_seq = seq + t;
            s.row_len = len + t;
            s.T = T - t < CHUNKS[c] ? T - t : CHUNKS[c];
            two->ops->attend_causal(two, &s);
        }
        CHECK(same(out, part, rows * D), "%s attend_causal: chunks of %d change bits", tier, CHUNKS[c]);
    }
    for (int i = 0; i < len0; i += 9) { /* a row of each sequence, as two answers in decode: neither sees the other's length */
        size_t row[2] = {(size_t)i, (size_t)(len0 + (i * 5 + 3) % len1)};
        int32_t own_seq[2] = {0, 1}, own_len[2] = {len[row[0]], len[row[1]]};
        vl_causal_args s = a;
        s.q = pair, s.out = part, s.row_seq = own_seq, s.row_len = own_len, s.T = 2;
        for (size_t side = 0; side < 2; side++) memcpy(pair + side * D, rot + row[side] * D, D * sizeof *q);
        two->ops->attend_causal(two, &s);
        for (size_t side = 0; side < 2; side++)
            CHECK(same(out + row[side] * D, part + side * D, D), "%s attend_causal: rows %zu and %zu together", tier, row[0], row[1]);
    }
    free(pair);
    free(q), free(k), free(v), free(cos_), free(sin_), free(qn), free(kn), free(kp), free(vp), free(out);
    free(part), free(rot), free(want), free(slot), free(seq), free(len), free(kl), free(vl), free(ql);
}

/* Memory whose last byte is a page's last: what is read beyond it ends the test. Filled with `byte`. */
static void *at_page_end(size_t bytes, int byte) {
    size_t room = (bytes + 4095) & ~(size_t)4095;
    uint8_t *p = mmap(NULL, room + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    vl_assert(p != MAP_FAILED && !mprotect(p + room, 4096, PROT_NONE), "memory");
    return memset(p + room - bytes, byte, bytes);
}
static void free_at_page_end(void *p, size_t bytes) {
    size_t room = (bytes + 4095) & ~(size_t)4095;
    munmap((uint8_t *)p + bytes - room, room + 4096);
}

/* Two answers, a row at a time, in blocks full of NaN: nothing of what a block held before is seen, and the bits are
 * those of all rows at once in blocks of zeros. When the second joins, its rows come first and the slot of the other's
 * is the next one of another block. */
enum { ALONE = 65, JOINED = 35, STEPS = ALONE + JOINED, DECODED = STEPS + JOINED };
static void decode_case(vl_backend *one, vl_backend *two, int H, int G, int E) {
    size_t D = (size_t)(H * E), kv = (size_t)(G * E), half = (size_t)E / 2, pool = 3 * VL_KV_BLOCK * kv * one->kv_elem;
    float *x = random_floats(DECODED * (D + 2 * kv + 2 * half)), *k = x + DECODED * D, *v = k + DECODED * kv;
    float *cos_ = v + DECODED * kv, *sin_ = cos_ + DECODED * half, *q = nans(DECODED * D), *want = nans(DECODED * D);
    float *step = nans(2 * (2 * D + 2 * kv + 2 * half)), *out = step + 2 * D, *ks = out + 2 * D, *vs = ks + 2 * kv;
    float *cs = vs + 2 * kv, *ss = cs + 2 * half;
    int32_t table[] = {2, 0, 1, 1}, slot[DECODED], seq[DECODED], len[DECODED];
    for (int t = 0; t < DECODED; t++) {
        seq[t] = t >= STEPS, len[t] = (t >= STEPS ? t - STEPS : t) + 1;
        slot[t] = table[2 * seq[t] + (len[t] - 1) / VL_KV_BLOCK] * VL_KV_BLOCK + (len[t] - 1) % VL_KV_BLOCK;
    }
    void *kp = at_page_end(pool, 0), *vp = at_page_end(pool, 0);
    vl_rope_kv_args r = {.q = memcpy(q, x, DECODED * D * sizeof *q), .k = k, .v = v, .ldq = (int)D, .ldk = (int)kv,
                         .ldv = (int)kv, .eps = 1e-6f, .cos = cos_, .sin = sin_, .k_pool = kp, .v_pool = vp,
                         .kv_slot = slot, .T = DECODED, .H = H, .G = G, .E = E};
    vl_causal_args a = {.out = want, .q = q, .ldq = (int)D, .k_pool = kp, .v_pool = vp, .table = table, .max_blocks = 2,
                        .row_seq = seq, .row_len = len, .T = DECODED, .H = H, .G = G, .E = E, .scale = 0.3f};
    one->ops->qk_norm_rope(one, &r);
    one->ops->attend_causal(one, &a);
    memset(kp, 0xff, pool), memset(vp, 0xff, pool);
    r.q = step, r.k = ks, r.v = vs, r.cos = cs, r.sin = ss, a.q = step, a.out = out;
    for (int i = 0; i < STEPS; i++) {
        int rows[2] = {i < ALONE ? i : STEPS + i - ALONE, i}, n = 1 + (i >= ALONE);
        int32_t slots[2], seqs[2], lens[2];
        for (int c = 0; c < n; c++) {
            size_t from = (size_t)rows[c], to = (size_t)c;
            memcpy(step + to * D, x + from * D, D * sizeof *x);
            memcpy(ks + to * kv, k + from * kv, kv * sizeof *x), memcpy(vs + to * kv, v + from * kv, kv * sizeof *x);
            memcpy(cs + to * half, cos_ + from * half, half * sizeof *x);
            memcpy(ss + to * half, sin_ + from * half, half * sizeof *x);
            slots[c] = slot[from], seqs[c] = seq[from], lens[c] = len[from];
        }
        r.kv_slot = slots, a.row_seq = seqs, a.row_len = lens, r.T = a.T = n;
        two->ops->qk_norm_rope(two, &r);
        two->ops->attend_causal(two, &a);
        for (int c = 0; c < n; c++)
            CHECK(same(out + (size_t)c * D, want + (size_t)rows[c] * D, D), "%s H %d G %d E %d: row %d of %d in step %d",
                  tier, H, G, E, c, n, i);
    }
    free_at_page_end(kp, pool), free_at_page_end(vp, pool);
    free(x), free(q), free(want), free(step);
}

static void test_attention(vl_backend *one, vl_backend *two) {
    static const int HEADS[] = {24, 40, 64, 72, 80, 128};
    for (int i = 0; i < 6; i++) {
        decode_case(one, two, 6, 2, HEADS[i]);
        full_case(one, two, (const int32_t[]){0, 70, 71, 230}, 3, 2, HEADS[i]);
        causal_case(one, two, 70, 9, 6, 2, HEADS[i]);
    }
    causal_case(one, two, 130, 200, 16, 8, 128);
    if (strcmp(mode, "bf16")) return; /* more keys than a step of the softmax on tiles takes */
    causal_case(one, two, 300, 3, 2, 1, 64);
    full_case(one, two, (const int32_t[]){0, 300, 590}, 2, 1, 64);
    causal_case(one, two, 1, 1, 3, 1, 40);
}

/* What only linear reads may lie in memory as the products want it (only_linear): the same bits come out of the next
 * linear as without, for every op that writes such rows. */
enum { KEPT_D = 288, KEPT_N = 64, KEPT_OPS = 6 };
static const char *const KEPT[KEPT_OPS] = {"layernorm", "rmsnorm", "swiglu", "linear", "attend_full", "attend_causal"};

static void kept_write(vl_backend *b, int op, float *out, const float *x, const float *v, const vl_matrix *gelu, int T,
                       int H) {
    int E = KEPT_D / H;
    int32_t cu[3] = {0, T > 1 ? T / 2 : T, T}, table[2] = {1, 0}, seq[128] = {0}, len[128];
    for (int i = 0; i < T; i++) len[i] = i + 1;
    switch (op) {
    case 0: b->ops->layernorm(b, out, x, v, v + KEPT_D, T, KEPT_D, 1e-6f); break;
    case 1: b->ops->rmsnorm(b, out, x, v, T, KEPT_D, 1e-6f); break;
    case 2: b->ops->swiglu(b, out, x, x + (size_t)T * KEPT_D, T, KEPT_D); break;
    case 3: b->ops->linear(b, out, KEPT_D, x, KEPT_D, T, gelu, v, VL_EPI_GELU_TANH); break;
    case 4: b->ops->attend_full(b, out, x, cu, T > 1 ? 2 : 1, T, H, E, 0.2f); break;
    default: /* any floats are keys and values: [2 blocks][H / 3][64][E] */
        b->ops->attend_causal(b, &(vl_causal_args){.out = out, .q = x, .ldq = KEPT_D, .k_pool = x, .v_pool = x + 128 * KEPT_D,
            .table = table, .max_blocks = 2, .row_seq = seq, .row_len = len, .T = T, .H = H, .G = H / 3, .E = E, .scale = 0.2f});
    }
}

static void test_kept(vl_backend *b, bool keeps) {
    static const int ROWS[] = {1, 7, 9, 13, 15, 16, 20, 31, 33, 70, 100};
    enum { MOST = 100, N_ROWS = sizeof ROWS / sizeof *ROWS };
    float *wide[2], *x = random_floats(3 * 128 * KEPT_D), *v = random_floats(2 * KEPT_D);
    for (int i = 0; i < 3 * 128 * KEPT_D; i++) { /* as pairs of bf16, which pools may be, they are numbers as well */
        uint32_t half = vl_f32_to_bf16(x[i]), pair = half << 16 | half;
        memcpy(&x[i], &pair, sizeof pair);
    }
    vl_matrix w = random_matrix(KEPT_N, KEPT_D, VL_BF16, &wide[0]), gelu = random_matrix(KEPT_D, KEPT_D, VL_BF16, &wide[1]);
    vl_err err;
    CHECK(!b->ops->prepare(b, &w, VL_USE_LINEAR, &err) && !b->ops->prepare(b, &gelu, VL_USE_LINEAR, &err), "%s", err.msg);
    CHECK(b->ops->only_linear(b, NULL, 0) == keeps, "%s: only_linear", tier);
    for (int op = 0; op < KEPT_OPS; op++)
        for (int i = 0; i < N_ROWS * 2; i++) {
            int T = ROWS[i / 2], H = i % 2 ? 12 : 9; /* heads of 24 and of 32 columns */
            size_t n = (size_t)T * KEPT_D;
            float *plain = b->ops->alloc(b, MOST * KEPT_D * 4), *kept = b->ops->alloc(b, MOST * KEPT_D * 4);
            float *want = nans((size_t)T * KEPT_N), *got = nans((size_t)T * KEPT_N);
            CHECK(b->ops->only_linear(b, kept, MOST * KEPT_D) == keeps, "%s", tier);
            kept_write(b, op, plain, x, v, &gelu, T, H);
            kept_write(b, op, kept, x, v, &gelu, T, H);
            b->ops->linear(b, want, KEPT_N, plain, KEPT_D, T, &w, NULL, VL_EPI_NONE);
            b->ops->linear(b, got, KEPT_N, kept, KEPT_D, T, &w, NULL, VL_EPI_NONE);
            CHECK(same(want, got, (size_t)T * KEPT_N), "%s %s T %d H %d: kept rows change bits", tier, KEPT[op], T, H);
            CHECK(!same(plain, kept, n) == keeps, "%s %s T %d: rows are kept or not", tier, KEPT[op], T);
            b->ops->release(b, kept);
            kept = b->ops->alloc(b, MOST * KEPT_D * 4); /* perhaps where it was: floats again */
            kept_write(b, op, kept, x, v, &gelu, T, H);
            CHECK(same(plain, kept, n), "%s %s T %d: released memory is still kept", tier, KEPT[op], T);
            b->ops->release(b, kept), b->ops->release(b, plain);
            free(want), free(got);
        }
    free((void *)(uintptr_t)w.data), free((void *)(uintptr_t)gelu.data);
    free(wide[0]), free(wide[1]), free(x), free(v);
}

/* Whether a child of this process that reads kept rows with another op ends in the assertion. */
static bool refuses(vl_backend *b, bool norm, float *out, const float *kept, const float *v) {
    pid_t child = fork();
    if (child == 0) {
        if (!freopen("/dev/null", "w", stderr)) _exit(1);
        if (norm) b->ops->rmsnorm(b, out, kept, v, 1, KEPT_D, 1e-6f);
        else b->ops->copy_rows(b, out, NULL, kept, NULL, 1, KEPT_D);
        _exit(0);
    }
    int status = 0;
    return child > 0 && waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

/* The decorators know that kept rows are bf16: half the bytes in the trace, no scan of tiles as if they were floats. */
static void test_kept_decorated(void) {
    enum { T = 20 };
    vl_backend *b = open_cpu(1), *c, *t;
    vl_err err = {0};
    float *wide, *x = random_floats(T * KEPT_D), *v = random_floats(KEPT_D), out[T * KEPT_N];
    vl_matrix w = random_matrix(KEPT_N, KEPT_D, VL_BF16, &wide);
    CHECK(!vl_ops_check_wrap(&c, b, &err) && !vl_ops_trace_wrap(&t, c, &err), "%s", err.msg);
    CHECK(!t->ops->prepare(t, &w, VL_USE_LINEAR, &err), "%s", err.msg);
    float *kept = t->ops->alloc(t, 32 * KEPT_D * sizeof *kept);
    CHECK(t->ops->only_linear(t, kept, 32 * KEPT_D) && t->ops->elem(t, kept, KEPT_D) == 2 && t->ops->elem(t, x, KEPT_D) == 4,
          "%s: bytes of kept rows", tier);
    vl_trace_reset(t);
    t->ops->rmsnorm(t, kept, x, v, T, KEPT_D, 1e-6f);
    t->ops->linear(t, out, KEPT_N, kept, KEPT_D, T, &w, NULL, VL_EPI_NONE);
    CHECK(t->ops->sync(t, &err) == 0, "%s", err.msg);
    const vl_trace_row *rows;
    double wall;
    for (size_t i = 0, n = vl_trace_rows(t, &rows, &wall); i < n; i++) {
        double made = T * KEPT_D * 2.0, want = strcmp(rows[i].op, "linear")
            ? made + 4.0 * (T + 1) * KEPT_D : made + 2.0 * KEPT_N * KEPT_D + 4.0 * T * KEPT_N;
        CHECK(rows[i].bytes == want, "%s %s of kept rows: %g bytes, not %g", tier, rows[i].op, rows[i].bytes, want);
    }
    CHECK(refuses(b, true, out, kept, v) && refuses(b, false, out, kept, v), "%s: kept rows were read by another op", tier);
    v[1] = NAN; /* the odd column: the high half of a pair, as the even one is the low half */
    v[2] = NAN;
    t->ops->rmsnorm(t, kept, x, v, T, KEPT_D, 1e-6f);
    t->ops->linear(t, out, KEPT_N, kept, KEPT_D, T, &w, NULL, VL_EPI_NONE);
    CHECK(t->ops->sync(t, &err) && err.code == VL_E_NUMERIC && strstr(err.msg, "linear"), "%s", err.msg);
    t->ops->release(t, kept);
    t->ops->close(t);
    free((void *)(uintptr_t)w.data), free(wide), free(x), free(v);
}

/* ---- the small ops ------------------------------------------------------------------------------- */

/* Rows longer and shorter than a span: the first of equal maxima, wherever it lies; -1 for a NaN, wherever it lies. */
static void argmax_case(vl_backend *b, int n, int T, int V) {
    static float x[3 * 20003];
    int32_t ids[16], want[16];
    for (int i = 0; i < T * V; i++) x[i] = floorf((float)vl_rng_normal(&rng) * 50);
    for (int t = 0; t < T; t++) {
        float *row = x + t * V;
        if (n % 4 == 1)
            for (int i = 0; i < V; i++) row[i] = -INFINITY;
        if (n % 4 == 2) row[vl_rng_u64(&rng) % (uint64_t)V] = n % 8 == 2 ? NAN : -NAN;
        if (n % 4 == 3) row[V - 1 - t % V] = INFINITY;
        want[t] = 0;
        for (int i = 0; i < V; i++)
            if (row[i] > row[want[t]]) want[t] = i;
        if (n % 4 == 2) want[t] = -1;
    }
    b->ops->argmax(b, ids, x, T, V);
    for (int t = 0; t < T; t++)
        CHECK(ids[t] == want[t], "%s argmax of %d x %d, case %d: row %d is %d, not %d", tier, T, V, n, t, ids[t], want[t]);
}
static void test_argmax(vl_backend *b) {
    static const int SHAPES[][2] = {{3, 20003}, {1, 16384}, {8, 1150}, {16, 3000}, {9, 7}, {2, 1}};
    for (size_t i = 0; i < sizeof SHAPES / sizeof *SHAPES; i++)
        for (int n = 0; n < 40; n++) argmax_case(b, n, SHAPES[i][0], SHAPES[i][1]);
}

static void test_rows(vl_backend *b) {
    float src[12], dst[12], logits[] = {1, 3, 3, -1, -7, 2, 5, 5};
    for (int i = 0; i < 12; i++) src[i] = (float)(i + 1), dst[i] = 100;
    b->ops->copy_rows(b, dst, (const int32_t[]){2, 0}, src, (const int32_t[]){1, 3}, 2, 3);
    CHECK(dst[6] == 4 && dst[8] == 6 && dst[0] == 10 && dst[3] == 100, "%s copy_rows", tier);
    b->ops->add_rows(b, dst, (const int32_t[]){1}, src, NULL, 1, 3);
    CHECK(dst[3] == 101 && dst[5] == 103 && dst[6] == 4, "%s add_rows", tier);
    int32_t ids[2];
    b->ops->argmax(b, ids, logits, 2, 4);
    CHECK(ids[0] == 1 && ids[1] == 2, "%s argmax %d %d", tier, ids[0], ids[1]);
    logits[0] = logits[7] = NAN;
    b->ops->argmax(b, ids, logits, 2, 4);
    CHECK(ids[0] == -1 && ids[1] == -1, "%s argmax of NaN %d %d", tier, ids[0], ids[1]);
    test_argmax(b);
    enum { COLS = 601 };           /* more than are widened at a time                         */
    float *wide, out[2 * COLS], corner[] = {0.25f, 0.25f, 0.5f, 0};
    vl_matrix table = random_matrix(4, COLS, VL_BF16, &wide);
    vl_err err;
    CHECK(b->ops->prepare(b, &table, VL_USE_GATHER, &err) == 0, "%s", err.msg);
    b->ops->pos_embed(b, out, &table, (const int32_t[]){3, 0, 1, 2}, corner, 1);
    for (int i = 0; i < COLS; i++) {
        double w = 0.25 * (double)wide[3 * COLS + i] + 0.25 * (double)wide[i] + 0.5 * (double)wide[COLS + i];
        CHECK(out[i] == (float)w, "%s pos_embed column %d: %g, not %g", tier, i, (double)out[i], w);
    }
    out[COLS] = 7;
    b->ops->embed(b, out, &table, (const int32_t[]){2, -1}, 2);
    CHECK(same(out, wide + 2 * COLS, COLS) && out[COLS] == 7, "%s embed leaves negative ids", tier);
    free((void *)(uintptr_t)table.data);
    free(wide);
}

/* ---- the decorators ------------------------------------------------------------------------------ */

static int tapped;
static void on_tap(void *user, const char *name, int layer, const float *x, int rows, int cols) {
    tapped += *(int *)user + (strcmp(name, "x") == 0) + layer + (x[1] == 2) + rows + cols;
}

static void test_decorators(void) {
    vl_backend *b = open_cpu(2), *c, *t, *p;
    vl_err err = {0};
    CHECK(!vl_ops_check_wrap(&c, b, &err) && !vl_ops_trace_wrap(&t, c, &err) && !vl_ops_tap_wrap(&p, t, &err),
          "%s", err.msg);
    CHECK(vl_backend_threads(p) == 2, "threads through decorators");
    float x[64], w[4] = {1, 1, 1, 1}, y[64], *wide;
    for (int i = 0; i < 64; i++) x[i] = (float)(i + 1);
    int user = 1000;
    p->ops->tap(p, "x", 3, x, 2, 2);
    CHECK(tapped == 0, "a tap nobody listens to");
    vl_ops_tap_set(p, on_tap, &user);
    p->ops->tap(p, "x", 3, x, 2, 2);
    CHECK(tapped == 1009, "tapped %d", tapped);
    vl_matrix m = random_matrix(8, 4, VL_BF16, &wide);
    m.name = "model.layers.12.mlp.weight";
    CHECK(p->ops->prepare(p, &m, VL_USE_LINEAR, &err) == 0, "%s", err.msg);
    vl_trace_reset(t);
    p->ops->linear(p, y, 8, x, 4, 8, &m, NULL, VL_EPI_NONE);
    m.name = "model.layers.3.mlp.weight";
    p->ops->linear(p, y, 8, x, 4, 8, &m, NULL, VL_EPI_NONE);
    p->ops->rmsnorm(p, y, x, w, 16, 4, 1e-6f);
    CHECK(p->ops->sync(p, &err) == 0, "%s", err.msg);
    const vl_trace_row *rows;
    double wall, sum = 0;
    size_t n = vl_trace_rows(t, &rows, &wall);
    for (size_t i = 0; i < n; i++) sum += rows[i].seconds;
    CHECK(n == 2 && sum <= wall, "%zu rows, %g of %g s", n, sum, wall);
    for (size_t i = 0; i < n; i++) {
        if (strcmp(rows[i].op, "linear")) continue;
        CHECK(rows[i].calls == 2 && rows[i].flops == 2 * 2.0 * 8 * 8 * 4 &&
                  rows[i].bytes == 2.0 * (8 * 4 * 2 + 8 * 4 * 4 + 8 * 8 * 4),
              "%g flops, %g bytes", rows[i].flops, rows[i].bytes);
        CHECK(!strcmp(rows[i].what, "model.layers.#.mlp.weight"), "%s", rows[i].what);
    }
    w[2] = NAN; /* the check decorator names the culprit, once */
    p->ops->rmsnorm(p, y, x, w, 2, 4, 1e-6f);
    p->ops->swiglu(p, y, y, y, 2, 4);
    CHECK(p->ops->sync(p, &err) && err.code == VL_E_NUMERIC && strstr(err.msg, "rmsnorm"), "%s", err.msg);
    p->ops->close(p);
    free((void *)(uintptr_t)m.data);
    free(wide);
}

static void test_open(void) {
    vl_backend *b;
    vl_err err;
    CHECK(vl_backend_open(&b, &(vl_backend_params){"abacus", "exact", 1}, &err) && err.code == VL_E_USAGE, "name");
    CHECK(vl_backend_open(&b, &(vl_backend_params){"cpu", "int3", 1}, &err) && err.code == VL_E_UNSUPPORTED, "dtype");
    CHECK(vl_backend_open(&b, &(vl_backend_params){"cpu", "exact", -1}, &err) && err.code == VL_E_USAGE, "threads");
    static const struct { const char *variable, *value, *says; } WRONG[] = {
        {"VL_KERNEL", "rope=nonsense", "rope_scalar"},      {"VL_KERNEL", "wheel=rope_scalar", "no slot \"wheel\""},
        {"VL_KERNEL", "wheel=rope_scalar", "gemv_bf16"},    {"VL_KERNEL", "rop=rope_scalar", "no slot \"rop\""},
        {"VL_KERNEL", "rope=swiglu_scalar", "rope_scalar"}, {"VL_KERNEL", "rope_scalar", "slot=function"},
        {"VL_KERNEL", "rope=rope_scala", "rope_scalar"},    {"VL_KERNEL", "rope=", "rope_scalar"},
        {"VL_KERNEL", "rope=rope_scalar,epilogue=x", "epilogue_scalar"},
        {"VL_KERNEL", "rope=rope_scalar,rope=rope_scalar", "twice"},
        {"VL_CPU", "mmx", "scalar"},                        {"VL_CPU", "avx51", "no tier \"avx51\""}};
    for (size_t i = 0; i < sizeof WRONG / sizeof *WRONG; i++) {
        setenv(WRONG[i].variable, WRONG[i].value, 1);
        int rc = vl_backend_open(&b, &(vl_backend_params){"cpu", "exact", 1}, &err);
        CHECK(rc && err.code == VL_E_UNSUPPORTED && strstr(err.msg, WRONG[i].says), "%s=%s: %d, \"%s\"",
              WRONG[i].variable, WRONG[i].value, rc, rc ? err.msg : "");
        unsetenv(WRONG[i].variable);
    }
    for (int i = 0; i < vl_candidate_count; i++) { /* every line: taken, or refused with its tier's name */
        const vl_candidate *c = &vl_candidates[i];
        char force[96];
        vl_ukernels k;
        snprintf(force, sizeof force, "%s=%s", vl_slot_names[c->slot], c->name);
        setenv("VL_KERNEL", force, 1);
        int rc = vl_ukernels_resolve(&k, NULL, &err);
        if (vl_tier_present(c->tier)) CHECK(!rc && k.tier[c->slot] == c->tier, "%s: %s", force, rc ? err.msg : "");
        else CHECK(rc && strstr(err.msg, "lacks") && strstr(err.msg, vl_tier_names[c->tier]), "%s", force);
    }
    setenv("VL_KERNEL", "rope=rope_scalar", 1);
    CHECK(vl_backend_open(&b, &(vl_backend_params){"cpu", "exact", 0}, &err) == 0, "%s", err.msg);
    CHECK(vl_backend_threads(b) >= 1, "threads");
    b->ops->close(b);
    unsetenv("VL_KERNEL");
    setenv("VL_PACK", "never", 1);
    CHECK(vl_backend_open(&b, &(vl_backend_params){"cpu", "exact", 1}, &err) && strstr(err.msg, "lazy"), "VL_PACK");
    unsetenv("VL_PACK");
}

/* Tile registers are asked for only where VL_CPU leaves them: before anything else in the process. */
static void test_permission(void) {
#if defined(__x86_64__)
    enum { GET_XCOMP_PERM = 0x1022, XTILEDATA = 18 }; /* of arch_prctl */
    const char *cap = getenv("VL_CPU");
    char *kept = cap ? strdup(cap) : NULL;
    uint64_t mask = 0;
    vl_ukernels k;
    vl_err err;
    setenv("VL_CPU", "avx2", 1);
    CHECK(vl_ukernels_resolve(&k, NULL, &err) == 0, "%s", err.msg);
    if (syscall(SYS_arch_prctl, GET_XCOMP_PERM, &mask) == 0)
        CHECK(!(mask >> XTILEDATA & 1), "VL_CPU=avx2 asked the kernel for tile registers");
    if (kept) setenv("VL_CPU", kept, 1);
    else unsetenv("VL_CPU");
    free(kept);
#endif
}

/* Exact mode splits x where there are tile registers, unless a line of the other way is forced: then that one runs. */
static void test_split(void) {
    enum { T = 12, N = 70, K = 301 };
    static const struct { const char *variable, *value; } WAYS[] = {
        {"VL_CPU", "amx"}, {"VL_CPU", "avx512bf16"}, {"VL_KERNEL", "gemm_wide=gemm_wide_avx512"},
        {"VL_KERNEL", "gemv_bf16=gemv_bf16_avx512"}, {"VL_KERNEL", "pack_tiles=pack_tiles_amx"}};
    float *wide, *x = random_floats(T * K), out[sizeof WAYS / sizeof *WAYS][T * N];
    vl_matrix source = random_matrix(N, K, VL_BF16, &wide);
    vl_err err = {0};
    if (!vl_tier_present(VL_TIER_amx) || getenv("VL_CPU")) {
        test_skip("exact mode on tile registers: none, or VL_CPU asks for another tier");
        return;
    }
    for (size_t i = 0; i < sizeof WAYS / sizeof *WAYS; i++) {
        setenv(WAYS[i].variable, WAYS[i].value, 1);
        vl_backend *b = open_cpu(1);
        vl_matrix w = source;
        CHECK(!b->ops->prepare(b, &w, VL_USE_LINEAR, &err), "%s", err.msg);
        b->ops->linear(b, out[i], N, x, K, T, &w, NULL, VL_EPI_NONE);
        b->ops->close(b);
        unsetenv(WAYS[i].variable);
    }
    CHECK(!same(out[0], out[1], T * N), "tiles add up in another order");
    CHECK(same(out[1], out[2], T * N) && same(out[1], out[3], T * N), "forced");
    CHECK(same(out[0], out[4], T * N), "not forced");
    free(x);
    free(wide);
    free((void *)(uintptr_t)source.data);
}

int main(void) {
    test_permission();
    const char *cap = getenv("VL_CPU"); /* set: only that tier */
    for (int t = 0; t < VL_TIERS; t++) {
        if (!vl_tier_present((vl_tier)t) || (cap && strcmp(cap, vl_tier_names[t]))) continue;
        tier = vl_tier_names[t];
        setenv("VL_CPU", tier, 1);
        vl_rng_seed(&rng, 7);
        vl_backend *one = open_cpu(1), *two = open_cpu(2);
        test_linear(one, two);
        test_file_pages(two);
        test_attention(one, two);
        test_kept(two, false);
        test_rows(two);
        one->ops->close(one);
        two->ops->close(two);
    }
    int bf16_tiers = 0;
    for (int t = VL_TIER_avx512bf16; t <= VL_TIER_amx; t++) {
        if (!vl_tier_present((vl_tier)t) || (cap && strcmp(cap, vl_tier_names[t]))) continue;
        bf16_tiers++;
        setenv("VL_CPU", vl_tier_names[t], 1);
        tier = t == VL_TIER_amx ? "bf16, amx" : "bf16";
        mode = "bf16";
        vl_backend *one = open_cpu(1), *two = open_cpu(2);
        test_linear(one, two);
        test_attention(one, two);
        test_kept(two, t == VL_TIER_amx);
        if (t == VL_TIER_amx) test_kept_decorated();
        one->ops->close(one);
        two->ops->close(two);
        mode = "exact";
    }
    if (!bf16_tiers) test_skip("bf16 mode: no AVX512_BF16, or VL_CPU asks for another tier");
    unsetenv("VL_CPU");
    test_decorators();
    test_open();
    test_split();
    return test_end();
}
