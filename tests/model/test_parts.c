/* test_parts.c: the small parts of model/ alone: positions, sampler, KV blocks, streamed text. */
#include "model/kv.h"
#include "model/positions.h"
#include "model/sampler.h"
#include "model/stream.h"
#include "tests/test.h"

/* align_corners=True in double, patch by patch in raster order, against the merge-ordered table. */
static void check_interpolation(int h, int w) {
    const vl_vision_config v = {.merge = 2, .side = 48, .D = 64, .H = 1, .E = 64, .theta = 10000};
    int P = h * w;
    int32_t *idx = calloc((size_t)P * 4, sizeof *idx);
    float *weight = calloc((size_t)P * 4, sizeof *weight);
    double worst = 0;
    vl_vision_interpolation(&v, h, w, idx, weight);
    for (int p = 0; p < P; p++) {
        int block = p / 4, row = block / (w / 2) * 2 + p % 4 / 2, col = block % (w / 2) * 2 + p % 2;
        double y = h > 1 ? row * 47.0 / (h - 1) : 0, x = w > 1 ? col * 47.0 / (w - 1) : 0;
        double sum = 0, at_y = 0, at_x = 0;
        for (int k = 0; k < 4; k++) { /* the taps' centre of mass is the sampled point */
            sum += (double)weight[4 * p + k];
            at_y += (double)weight[4 * p + k] * (idx[4 * p + k] / 48);
            at_x += (double)weight[4 * p + k] * (idx[4 * p + k] % 48);
        }
        worst = fmax(worst, fmax(fabs(sum - 1), fmax(fabs(at_y - y), fabs(at_x - x))));
    }
    CHECK(worst < 2e-5, "%d x %d: off by %g", h, w, worst);
    free(idx);
    free(weight);
}

static void test_positions(void) {
    static const int GRIDS[][2] = {{2, 2}, {28, 28}, {48, 48}, {96, 6}, {4, 500}, {2, 64}};
    for (size_t i = 0; i < sizeof GRIDS / sizeof *GRIDS; i++) check_interpolation(GRIDS[i][0], GRIDS[i][1]);

    /* Worked example: 4 text + 14 x 14 + 5 text. */
    const vl_span spans[] = {{0, 4, 0, 0, -1}, {4, 196, 14, 14, 0}, {200, 5, 0, 0, -1}};
    int32_t pos[3 * 205];
    int32_t next = vl_mrope_positions(spans, 3, 205, pos);
    static const struct { int row; int32_t t, h, w; } WANT[] = {
        {3, 3, 3, 3}, {4, 4, 4, 4}, {5, 4, 4, 5}, {199, 4, 17, 17}, {200, 18, 18, 18}, {204, 22, 22, 22}};
    for (size_t i = 0; i < sizeof WANT / sizeof *WANT; i++)
        CHECK(pos[WANT[i].row] == WANT[i].t && pos[205 + WANT[i].row] == WANT[i].h &&
                  pos[410 + WANT[i].row] == WANT[i].w,
              "row %d is (%d, %d, %d)", WANT[i].row, pos[WANT[i].row], pos[205 + WANT[i].row],
              pos[410 + WANT[i].row]);
    CHECK(next - 205 == -182, "delta %d", next - 205);

    /* Interleaved M-RoPE at (4, 17, 9) with sections 24, 20, 20: THW x 20, then T x 4. */
    const vl_text_config t = {.E = 128, .theta = 5e6, .mrope = {24, 20, 20}};
    float inv[64], c[64], s[64];
    /* The others share a place among the rows kept, or have been met. */
    static const int32_t THW[][3] = {{4, 17, 9}, {4 + 1024, 17, 9 + 2048}, {4, 4, 4}, {17, 4 + 1024, 17}, {4, 17, 9}};
    vl_rope_rows rows;
    vl_err err;
    vl_rope_inv_freq(t.theta, 128, inv);
    CHECK(vl_rope_rows_open(&rows, inv, 128, &err) == 0, "%s", err.msg);
    for (size_t i = 0; i < sizeof THW / sizeof *THW; i++) {
        vl_mrope_row(&t, &rows, THW[i], c, s);
        double worst = 0;
        for (int j = 0; j < 64; j++) {
            int axis = j < 60 ? j % 3 : 0;
            double angle = (double)((float)THW[i][axis] * inv[j]);
            worst = fmax(worst, fmax(fabs((double)c[j] - cos(angle)), fabs((double)s[j] - sin(angle))));
            CHECK(i || fabs(angle - THW[i][axis] * pow(5e6, -2.0 * j / 128)) < 2e-6, "angle %d is %g", j, angle);
        }
        CHECK(worst < 1e-7, "cos/sin of row %zu off by %g", i, worst);
    }
    vl_rope_rows_free(&rows);
}

static int32_t next_of(const vl_sampling *p, const float *logits, int V, vl_top *top, int *n_top) {
    vl_sampler *s;
    vl_err err = {0};
    float copy[64], logprob;
    const int32_t ids[] = {1, 1, 2};
    static const int eos[] = {0, 3};
    memcpy(copy, logits, (size_t)V * sizeof *copy);
    CHECK(vl_sampler_open(&s, p, V, eos, 2, &err) == 0, "%s", err.msg);
    int32_t id = vl_sampler_next(s, copy, ids, 3, 1, &logprob, top, n_top);
    vl_sampler_free(s);
    return id;
}

/* 20,000 draws against the distribution that HF's warpers would leave. */
static void test_distribution(const char *name, vl_sampling p, const double *want, int V, const float *logits) {
    vl_sampler *s;
    vl_err err = {0};
    enum { DRAWS = 20000 };
    int count[64] = {0}, n_top;
    p.seed = 7;
    CHECK(vl_sampler_open(&s, &p, V, NULL, 0, &err) == 0, "%s", err.msg);
    for (int i = 0; i < DRAWS; i++) {
        float copy[64], logprob;
        memcpy(copy, logits, (size_t)V * sizeof *copy);
        count[vl_sampler_next(s, copy, NULL, 0, 0, &logprob, NULL, &n_top)]++;
    }
    for (int i = 0; i < V; i++) {
        double got = (double)count[i] / DRAWS, sd = sqrt(want[i] * (1 - want[i]) / DRAWS);
        CHECK(fabs(got - want[i]) <= 5 * sd, "%s: token %d drawn %.4f, expected %.4f", name, i, got, want[i]);
    }
    vl_sampler_free(s);
}

static void forbid_first(void *user, float *logits, int V, const int32_t *ids, int n) {
    (void)user, (void)V, (void)ids, (void)n;
    logits[0] = -INFINITY;
}

static void test_sampler(void) {
    const float logits[4] = {2, 1, 0, -1};
    vl_sampling g = vl_sampling_greedy(8), p;
    vl_top top[20];
    int n_top;
    g.logprobs = 0; /* plain greedy never reaches the sampler: the device's arg-max serves it */
    p = g;
    CHECK(next_of(&g, logits, 4, top, &n_top) == 0, "greedy");
    p.logits_fn = forbid_first;
    CHECK(next_of(&p, logits, 4, top, &n_top) == 1, "a forbidden token was chosen");
    p = g;
    p.bias = &(vl_logit_bias){3, 100};
    p.n_bias = 1;
    CHECK(next_of(&p, logits, 4, top, &n_top) == 3, "logit_bias");
    const float tied[4] = {1, 2, 2, 1.5f};
    p = g;
    p.presence_penalty = 1; /* answer {1, 2}: both fall to 1, token 3 wins */
    CHECK(next_of(&p, tied, 4, top, &n_top) == 3, "presence penalty");
    p = g;
    p.logprobs = 3;
    CHECK(next_of(&p, tied, 4, top, &n_top) == 1 && n_top == 3 && top[0].id == 1 && top[1].id == 2 &&
              top[2].id == 3, "tops %d: %d %d %d", n_top, top[0].id, top[1].id, top[2].id);
    vl_sampling penalty = vl_sampling_greedy(1); /* over 1, 1, 2: HF divides or multiplies once a token */
    penalty.repetition_penalty = 2;
    const float positive[4] = {1, 3, 2, 1.4f}, beaten[4] = {1, 1.9f, 0.5f, 0}, negative[4] = {-1, -0.6f, -2, -3};
    CHECK(next_of(&penalty, positive, 4, top, &n_top) == 1, "the penalty counts occurrences");
    CHECK(next_of(&penalty, beaten, 4, top, &n_top) == 0, "no repetition penalty");
    CHECK(next_of(&penalty, negative, 4, top, &n_top) == 0, "the penalty lifts negative logits");
    const float nan_row[4] = {1, NAN, 2, 0};
    p.logprobs = 0;
    CHECK(next_of(&p, nan_row, 4, top, &n_top) == -1, "a NaN was accepted");

    double e[4], z = 0, z2 = 0;
    for (int i = 0; i < 4; i++) z += e[i] = exp((double)logits[i]);
    for (int i = 0; i < 2; i++) z2 += e[i];
    p = g;
    p.temperature = 1;
    test_distribution("temperature 1", p, (double[]){e[0] / z, e[1] / z, e[2] / z, e[3] / z}, 4, logits);
    p.top_k = 2;
    test_distribution("top-k 2", p, (double[]){e[0] / z2, e[1] / z2, 0, 0}, 4, logits);
    p.top_p = 0.7f; /* of the two left, the first has 0.731 */
    test_distribution("top-k 2, top-p 0.7", p, (double[]){1, 0, 0, 0}, 4, logits);
    p.top_k = 0; /* of all, the first has 0.644: the second is needed */
    test_distribution("top-p 0.7", p, (double[]){e[0] / z2, e[1] / z2, 0, 0}, 4, logits);
    p.top_p = 1;
    p.min_p = 0.2f; /* 1, 0.37, 0.14, ... of the best */
    test_distribution("min-p 0.2", p, (double[]){e[0] / z2, e[1] / z2, 0, 0}, 4, logits);
    p.min_p = 0;
    /* p = .644 .237 .087 .032, entropy .947: token 1 is .493 off, token 0 .507, token 2 1.49 */
    p.typical_p = 0.2f;
    test_distribution("typical-p 0.2", p, (double[]){0, 1, 0, 0}, 4, logits);
    p.typical_p = 0.5f;
    test_distribution("typical-p 0.5", p, (double[]){e[0] / z2, e[1] / z2, 0, 0}, 4, logits);
    p.top_k = 2; /* over what is left: p = .731 .269, entropy .582: token 0 is .269 off, token 1 .731 */
    p.typical_p = 0.2f;
    test_distribution("top-k 2, typical-p 0.2", p, (double[]){1, 0, 0, 0}, 4, logits);
    p.top_k = 0;
    p.typical_p = 0.9f; /* 0.881 is not enough */
    test_distribution("typical-p 0.9", p, (double[]){e[0] / (z - e[3]), e[1] / (z - e[3]), e[2] / (z - e[3]), 0},
                      4, logits);
    const float flat[4] = {1, 1, 1, 1}; /* equal surprise: ties stay together */
    p.typical_p = 0.3f;
    test_distribution("typical-p on ties", p, (double[]){0.25, 0.25, 0.25, 0.25}, 4, flat);
    p.typical_p = 1;
    test_distribution("typical-p 1", p, (double[]){e[0] / z, e[1] / z, e[2] / z, e[3] / z}, 4, logits);
    p.typical_p = 0;
    p.temperature = 0.5f;
    double h[4], zh = 0;
    for (int i = 0; i < 4; i++) zh += h[i] = exp(2 * (double)logits[i]);
    test_distribution("temperature 0.5", p, (double[]){h[0] / zh, h[1] / zh, h[2] / zh, h[3] / zh}, 4, logits);

    int32_t loop[200];
    for (int i = 0; i < 200; i++) loop[i] = i < 50 ? 1000 + i : i % 7;
    CHECK(vl_is_repeating(loop, 200) && !vl_is_repeating(loop, 120), "loop of 7");
    for (int i = 0; i < 200; i++) loop[i] = i * i % 211;
    CHECK(!vl_is_repeating(loop, 200), "no loop");
}

static void test_min_tokens(void) {
    const float logits[4] = {9, 1, 2, 8}; /* 0 and 3 end the answer, which has 2 tokens so far */
    vl_sampling p = vl_sampling_greedy(8);
    vl_top top[20];
    int n_top;
    p.min_tokens = 3;
    CHECK(next_of(&p, logits, 4, top, &n_top) == 2, "an end token came too early");
    p.min_tokens = 2;
    CHECK(next_of(&p, logits, 4, top, &n_top) == 0, "the answer is long enough to end");
    p.min_tokens = 3;
    p.bias = &(vl_logit_bias){0, 100};
    p.n_bias = 1;
    CHECK(next_of(&p, logits, 4, top, &n_top) == 2, "no bias brings the end back");
}

/* What DRY takes from each logit, against its definition by brute force. */
static void check_dry(const char *name, const vl_sampling *p, const int32_t *ids, int n) {
    enum { V = 8 };
    vl_sampler *s;
    vl_err err = {0};
    int first = p->dry_range && p->dry_range < n ? n - p->dry_range : 0, n_top;
    float logits[V] = {0}, logprob;
    CHECK(vl_sampler_open(&s, p, V, NULL, 0, &err) == 0, "%s", err.msg);
    vl_sampler_next(s, logits, ids, n, n / 2, &logprob, NULL, &n_top);
    for (int t = 0; t < V; t++) {
        int longest = 0;
        for (int i = first; i + 1 < n; i++) {          /* t at i + 1, after a copy of the end */
            int len = 0;
            bool broken = false;
            while (ids[i + 1] == t && i - len >= first && ids[i - len] == ids[n - 1 - len] && !broken) {
                for (int k = 0; k < p->n_dry_breakers; k++) broken |= p->dry_breakers[k] == ids[i - len];
                len += !broken;
            }
            if (len > longest) longest = len;
        }
        for (int k = 0; k < p->n_dry_breakers; k++) if (p->dry_breakers[k] == t) longest = 0;
        double want = longest && longest >= p->dry_allowed_length
                          ? -(double)p->dry_multiplier * pow((double)p->dry_base, longest - p->dry_allowed_length) : 0;
        CHECK(fabs((double)logits[t] - want) <= 1e-5 * (1 + fabs(want)), "%s: token %d lost %g, expected %g", name, t,
              (double)-logits[t], -want);
    }
    vl_sampler_free(s);
}

static void test_dry(void) {
    vl_sampling p = vl_sampling_greedy(8);
    const int32_t words[] = {1, 2, 3, 4, 5, 1, 2, 3}, one[] = {1}, same[] = {2, 2, 2, 2, 2, 2};
    p.dry_multiplier = 0.8f;
    p.dry_base = 1.75f;
    p.dry_allowed_length = 2;
    float logits[8] = {0}, logprob;
    int n_top;
    vl_sampler *s;
    vl_err err = {0};
    CHECK(vl_sampler_open(&s, &p, 8, NULL, 0, &err) == 0, "%s", err.msg);
    vl_sampler_next(s, logits, words, 8, 4, &logprob, NULL, &n_top);
    CHECK(fabsf(logits[4] + 0.8f * 1.75f) < 1e-6f && logits[1] == 0, "three repeated tokens: %g", (double)logits[4]);
    memset(logits, 0, sizeof logits);
    vl_sampler_next(s, logits, words, 8, 4, &logprob, NULL, &n_top);
    CHECK(fabsf(logits[4] + 0.8f * 1.75f) < 1e-6f, "and the same the next time");
    vl_sampler_free(s);
    check_dry("words", &p, words, 8);
    check_dry("one token", &p, one, 1);
    check_dry("nothing", &p, one, 0);
    check_dry("one token again and again", &p, same, 6);
    p.dry_breakers = (const int32_t[]){3};
    p.n_dry_breakers = 1;
    check_dry("a breaker at the end", &p, words, 8);
    p.dry_breakers = (const int32_t[]){1};
    check_dry("a breaker inside", &p, words, 8);
    p.dry_breakers = (const int32_t[]){4};
    check_dry("a breaker next", &p, words, 8);
    p.n_dry_breakers = 0;
    p.dry_range = 7;
    check_dry("a range", &p, words, 8);
    vl_rng rng;
    vl_rng_seed(&rng, 5);
    for (int k = 0; k < 200; k++) {
        int32_t ids[40];
        int n = 1 + (int)(vl_rng_uniform(&rng) * 39);
        for (int i = 0; i < n; i++) ids[i] = (int32_t)(vl_rng_uniform(&rng) * 3);
        p.dry_range = k % 3 ? 0 : n / 2;
        p.dry_allowed_length = 1 + k % 4;
        p.dry_breakers = (const int32_t[]){2};
        p.n_dry_breakers = k % 2;
        check_dry("random", &p, ids, n);
    }
}

static void test_kv(void) {
    vl_kv *kv;
    vl_err err = {0};
    vl_kv_key a = {{1}}, b = {{2}};
    CHECK(vl_kv_open(&kv, 3, &err) == 0, "%s", err.msg);
    int x = vl_kv_take(kv), y = vl_kv_take(kv);
    vl_kv_set_key(kv, x, &a);
    vl_kv_set_key(kv, y, &b);
    CHECK(vl_kv_find(kv, &a) == x && vl_kv_used(kv) == 2 && vl_kv_available(kv) == 1, "shared block");
    vl_kv_drop(kv, x);
    vl_kv_drop(kv, x);
    vl_kv_drop(kv, y);
    CHECK(vl_kv_used(kv) == 0 && vl_kv_find(kv, &b) == y, "a dropped block is still known");
    vl_kv_drop(kv, y);
    vl_kv_take(kv); /* the unkeyed block first, then the least recently used: x */
    CHECK(vl_kv_take(kv) == x && vl_kv_find(kv, &a) == -1 && vl_kv_find(kv, &b) == y, "eviction order");
    vl_kv_free(kv);

    CHECK(vl_kv_open(&kv, 4, &err) == 0, "%s", err.msg);
    vl_kv_key keys[3] = {{{1}}, {{2}}, {{3}}};
    int v[3];
    vl_kv_keep(kv, 2);
    for (int i = 0; i < 3; i++) vl_kv_set_key(kv, v[i] = vl_kv_take(kv), &keys[i]);
    CHECK(vl_kv_cached(kv) == 0, "blocks in use are not counted");
    for (int i = 0; i < 3; i++) vl_kv_drop(kv, v[i]);
    CHECK(vl_kv_cached(kv) == 2 && vl_kv_available(kv) == 4, "two stay: %d", vl_kv_cached(kv));
    CHECK(vl_kv_find(kv, &keys[0]) == -1 && vl_kv_find(kv, &keys[1]) == v[1] && vl_kv_find(kv, &keys[2]) == v[2],
          "the oldest was forgotten");
    CHECK(vl_kv_cached(kv) == 0, "in use again");
    vl_kv_drop(kv, v[2]);
    vl_kv_drop(kv, v[1]);
    vl_kv_keep(kv, 0);
    CHECK(vl_kv_find(kv, &keys[1]) == v[1], "found before the next drop");
    vl_kv_drop(kv, v[1]);
    CHECK(vl_kv_cached(kv) == 0, "%d blocks kept with a bound of none", (int)vl_kv_cached(kv));
    CHECK(vl_kv_find(kv, &keys[1]) == -1 && vl_kv_find(kv, &keys[2]) == -1, "nothing is added beyond the bound");
    for (int i = 0; i < 4 && vl_kv_available(kv); i++) vl_kv_take(kv);
    CHECK(vl_kv_cached(kv) == 0, "taken blocks are not counted: %d", vl_kv_cached(kv));
    vl_kv_free(kv);
}

/* Streams ids one by one; what was shown must be whole characters and never a stop string. */
static void test_stream(void) {
    vl_tokenizer *t;
    vl_stream *st;
    vl_err err = {0};
    CHECK(vl_tokenizer_open(&t, "tests/golden/models/std", &err) == 0, "%s", err.msg);
    const char *text = "naïve 图片 🙂 END. more", *stops[] = {"END.", ""};
    vl_ids ids = {0};
    vl_sampling p = vl_sampling_greedy(8);
    p.stop = stops;
    p.n_stop = 2;
    CHECK(vl_tokenizer_encode(t, text, strlen(text), false, &ids, &err) == 0, "%s", err.msg);
    CHECK(vl_stream_open(&st, t, &p, &err) == 0, "%s", err.msg);
    char shown[256] = "";
    const char *piece, *stop = NULL;
    size_t len, n = 0;
    int stopped = 0;
    for (; n < ids.n && !stopped; n++) {
        stopped = vl_stream_push(st, ids.v[n], &piece, &len, &stop, &err);
        CHECK(vl_utf8_whole(piece, len) == len, "half a character was shown");
        strncat(shown, piece, len);
    }
    CHECK(stopped == 1 && stop && !strcmp(stop, "END.") && !strcmp(shown, "naïve 图片 🙂 "), "shown: %s", shown);
    vl_stream_free(st);

    p.n_stop = 0;
    CHECK(vl_stream_open(&st, t, &p, &err) == 0, "%s", err.msg);
    size_t one = 0;
    for (n = 0; n < ids.n && one != 1; n++) vl_tokenizer_piece(t, ids.v[n], &one);
    ids.n = 0;
    CHECK(vl_tokenizer_encode(t, "\xe5", 1, false, &ids, &err) == 0 && ids.n == 1, "a lone lead byte");
    vl_stream_push(st, ids.v[0], &piece, &len, &stop, &err);
    CHECK(len == 0, "an unfinished character was shown");
    vl_stream_end(st, &piece, &len);
    CHECK(len == 3 && !memcmp(piece, "\xef\xbf\xbd", 3), "the end shows U+FFFD");
    vl_stream_free(st);
    free(ids.v);
    vl_tokenizer_free(t);
}

/* Mirostat 2.0 as its authors define it, in double over a sorted list. Returns the token; *surprise in bits. */
static int mirostat_step(const float *logits, int V, double temperature, double tau, double eta, double *mu,
                         vl_rng *rng, double *surprise) {
    double p[64], z = 0, left = 0;
    int order[64], kept = 0, i = 0;
    for (int k = 0; k < V; k++) z += p[k] = exp((double)logits[k] / temperature);
    for (int k = 0; k < V; k++) {
        int at = k;
        for (; at > 0 && p[order[at - 1]] < p[k]; at--) order[at] = order[at - 1];
        order[at] = k;
    }
    while (kept < V && (kept == 0 || -log2(p[order[kept]] / z) <= *mu)) left += p[order[kept++]];
    double u = vl_rng_uniform(rng) * left;
    while (i < kept - 1 && (u -= p[order[i]]) >= 0) i++;
    *surprise = -log2(p[order[i]] / left);
    *mu -= eta * (*surprise - tau);
    return order[i];
}

static void test_mirostat(void) {
    enum { V = 64, STEPS = 6000, SETTLED = 1000 };
    const float few[4] = {2, 1, 0, -1}; /* surprises .64, 2.08, 3.52, 4.97 bits; mu begins at 2 tau */
    double e[2] = {exp(2), exp(1)}, z2 = e[0] + e[1];
    vl_sampling p = vl_sampling_greedy(8);
    CHECK(p.mirostat_tau == 5 && p.mirostat_eta == 0.1f, "llama.cpp's defaults");
    p.temperature = 1;
    p.mirostat = 2;
    p.mirostat_eta = 0;                 /* mu stays */
    p.top_k = 1;                        /* has no effect now */
    p.mirostat_tau = 1.25f;
    test_distribution("mirostat, mu 2.5", p, (double[]){e[0] / z2, e[1] / z2, 0, 0}, 4, few);
    p.mirostat_tau = 0.1f;
    test_distribution("mirostat, mu under the best's surprise", p, (double[]){1, 0, 0, 0}, 4, few);
    for (int round = 0; round < 2; round++) { /* the whole of it, token by token */
        vl_sampler *s;
        vl_err err = {0};
        vl_rng rng, noise;
        double mu, surprise, sum = 0;
        int n_top, wrong = 0;
        p.seed = 5;
        p.temperature = round ? 0.7f : 1;
        p.mirostat_tau = round ? 2 : 3;
        p.mirostat_eta = 0.1f;
        mu = 2 * (double)p.mirostat_tau;
        vl_rng_seed(&rng, p.seed);
        vl_rng_seed(&noise, 99);
        CHECK(vl_sampler_open(&s, &p, V, NULL, 0, &err) == 0, "%s", err.msg);
        for (int i = 0; i < STEPS; i++) {
            float logits[V], copy[V], logprob;
            for (int k = 0; k < V; k++) logits[k] = (float)(-log(k + 1.0) + 0.5 * vl_rng_normal(&noise));
            memcpy(copy, logits, sizeof copy);
            int want = mirostat_step(logits, V, (double)p.temperature, (double)p.mirostat_tau,
                                     (double)p.mirostat_eta, &mu, &rng, &surprise);
            wrong += vl_sampler_next(s, copy, NULL, 0, 0, &logprob, NULL, &n_top) != want;
            if (i >= SETTLED) sum += surprise;
        }
        CHECK(wrong == 0, "mirostat: %d of %d tokens differ", wrong, STEPS);
        double mean = sum / (STEPS - SETTLED);
        CHECK(fabs(mean - (double)p.mirostat_tau) < 0.05, "mirostat: %.3f bits a token, not %g", mean,
              (double)p.mirostat_tau);
        vl_sampler_free(s);
    }
}

int main(void) {
    test_mirostat();
    test_positions();
    test_sampler();
    test_min_tokens();
    test_dry();
    test_kv();
    test_stream();
    return test_end();
}
