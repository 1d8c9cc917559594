/* test_session.c: caches change nothing but the time, cancellation and limits leave the session
 * whole, and nothing is allocated while an answer is being decoded. */
#include <stdatomic.h>

#include "tests/test.h"
#include "vitreous.h"

/* Every allocation of this program and of libvitreous.a comes through here (the Makefile links this
 * test with --wrap). */
static atomic_long allocations;
static atomic_long refuse = -1; /* number of the allocation that fails; -1: none */
void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t m);
void *__real_realloc(void *p, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t m);
void *__wrap_realloc(void *p, size_t n);
static bool refused(void) { return atomic_fetch_add(&allocations, 1) == refuse; }
void *__wrap_malloc(size_t n) { return refused() ? NULL : __real_malloc(n); }
void *__wrap_calloc(size_t n, size_t m) { return refused() ? NULL : __real_calloc(n, m); }
void *__wrap_realloc(void *p, size_t n) { return refused() ? NULL : __real_realloc(p, n); }

#define IMAGES "tests/golden/images/"
static vl_model *model;

typedef struct answer {
    int32_t ids[64];
    int n, tokens, encodes, cancel_at_block, cancel_at_token;
    uint32_t hash;
    char reason[16];
    long allocations_in_decode, mark;
    vl_timings timings;
} answer;

static int on_event(void *user, const vl_event *ev) {
    answer *a = user;
    if (ev->kind == VL_EV_ENCODE && ev->done == ev->total) a->encodes++;
    if (ev->kind == VL_EV_ENCODE && a->cancel_at_block && ev->done >= a->cancel_at_block) return 1;
    if (ev->kind == VL_EV_TOKEN && ev->id >= 0) {
        a->ids[a->n++] = ev->id;
        if (a->n == 2) a->mark = atomic_load(&allocations);
        if (a->n == 12) a->allocations_in_decode = atomic_load(&allocations) - a->mark;
        if (a->cancel_at_token && a->n >= a->cancel_at_token) return 1;
    }
    if (ev->kind != VL_EV_DONE) return 0;
    snprintf(a->reason, sizeof a->reason, "%s", ev->finish_reason);
    a->hash = ev->logits_hash;
    a->tokens = ev->completion_tokens;
    a->timings = ev->timings;
    return 0;
}

static vl_prompt *make_prompt(const char *text, const char *image, const char *second) {
    vl_err err = {0};
    vl_picture *pic[2] = {NULL, NULL};
    vl_prompt *p = NULL;
    char json[4096];
    int n = 0;
    for (const char *f = image; f; f = f == image ? second : NULL) {
        CHECK(vl_picture_load_file(&pic[n], model, f, NULL, &err) == 0, "%s", err.msg);
        n++;
    }
    snprintf(json, sizeof json, "[{\"role\":\"user\",\"content\":[%s%s{\"type\":\"text\",\"text\":\"%s\"}]}]",
             n > 0 ? "{\"type\":\"image\"}," : "", n > 1 ? "{\"type\":\"image\"}," : "", text);
    CHECK(vl_prompt_chat(&p, model, json, NULL, 0, pic, n, &err) == 0, "%s", err.msg);
    for (int i = 0; i < n; i++) vl_picture_free(pic[i]);
    return p;
}

static vl_session *open_session(bool caches, int64_t kv_tokens) {
    vl_session *s = NULL;
    vl_err err = {0};
    const vl_session_params params = {.max_requests = 2, .max_rows = 96, .kv_tokens = kv_tokens,
                                      .prefix_cache = caches, .picture_cache_bytes = caches ? 1 << 22 : 0};
    CHECK(vl_session_open(&s, model, &params, &err) == 0, "%s", err.msg);
    return s;
}

static answer ask(vl_session *s, const vl_prompt *p, answer a) {
    vl_err err = {0};
    vl_sampling sampling = vl_sampling_greedy(16);
    sampling.ignore_eos = true;
    vl_generate(s, p, &sampling, on_event, &a, &err);
    CHECK(err.code == 0, "%s", err.msg);
    return a;
}

static bool same(const answer *a, const answer *b) {
    return a->n == b->n && a->hash == b->hash && !memcmp(a->ids, b->ids, sizeof a->ids);
}

static void test_caches(void) {
    vl_prompt *p = make_prompt("Describe the picture in a few words, then say what is left of it and "
                               "what is right of it, please.", IMAGES "pic-scene.jpg", NULL);
    vl_prompt *other = make_prompt("Describe the picture in a few words, then say what is left of it and "
                                   "what is right of it, please.", IMAGES "pic-grey.png", NULL);
    vl_session *cold = open_session(false, 2048), *warm = open_session(true, 2048);
    vl_session_stats st;
    answer first = ask(cold, p, (answer){0}), again = ask(cold, p, (answer){0}),
           b = ask(cold, other, (answer){0}), third = ask(cold, p, (answer){0});
    CHECK(first.n == 16 && same(&first, &again) && same(&first, &third), "A, A, B, A: A changed");
    CHECK(first.hash != b.hash, "two pictures, one answer: the picture is not looked at");
    CHECK(again.encodes == 1 && again.timings.cached_tokens == 0, "no cache was asked for");
    answer w1 = ask(warm, p, (answer){0}), w2 = ask(warm, p, (answer){0}), w3 = ask(warm, other, (answer){0});
    CHECK(same(&first, &w1) && same(&first, &w2) && same(&b, &w3), "a cache changed the answer");
    CHECK(w1.encodes == 1 && w2.encodes == 0, "the second turn ran the vision tower");
    CHECK(w2.timings.cached_tokens >= 64, "no prefix was reused (%d tokens)", w2.timings.cached_tokens);
    CHECK(w3.encodes == 1 && w3.timings.cached_tokens < w2.timings.cached_tokens, "another picture hit the cache");
    vl_session_get_stats(warm, &st);
    CHECK(st.encodes == 2 && st.kv_blocks_used == 0 && st.running == 0, "%d encodes, %d blocks held",
          (int)st.encodes, (int)st.kv_blocks_used);
    vl_sampling salted = vl_sampling_greedy(16);
    answer stranger = {0};
    vl_err err = {0};
    salted.ignore_eos = true;
    salted.cache_salt = 99;
    CHECK(vl_generate(warm, p, &salted, on_event, &stranger, &err) == 0, "%s", err.msg);
    CHECK(stranger.encodes == 1 && stranger.timings.cached_tokens == 0 && same(&first, &stranger),
          "a request with another salt shared the cache");
    vl_session_free(cold);
    vl_session_free(warm);
    vl_prompt_free(p);
    vl_prompt_free(other);
}

/* A picture of w x h pixels: grey g, with the left half black if `half`. */
static vl_picture *plain(int w, int h, int g, bool half) {
    static char pnm[3 * 512 * 512 + 32];
    vl_picture *pic = NULL;
    vl_err err = {0};
    int at = snprintf(pnm, 32, "P6 %d %d 255\n", w, h);
    for (int i = 0; i < w * h; i++)
        for (int k = 0; k < 3; k++) pnm[at++] = (char)(half && i % w < w / 2 ? 0 : g);
    CHECK(vl_picture_load(&pic, model, pnm, (size_t)at, "plain", NULL, &err) == 0, "%s", err.msg);
    return pic;
}

/* Pictures that differ in nothing but pixels, or in nothing but shape, share no cached state. */
static void test_alike(void) {
    static const char *const MESSAGES = "[{\"role\":\"user\",\"content\":[{\"type\":\"image\"},"
                                        "{\"type\":\"text\",\"text\":\"What is this?\"}]}]";
    vl_picture *pic[] = {plain(384, 384, 200, false), plain(384, 384, 200, true), plain(512, 128, 90, false),
                         plain(128, 512, 90, false)};
    vl_session *warm = open_session(true, 2048);
    vl_err err = {0};
    for (int i = 0; i < 4; i++) {
        vl_prompt *p = NULL;
        vl_session *cold = open_session(false, 2048);
        CHECK(vl_prompt_chat(&p, model, MESSAGES, NULL, 0, &pic[i], 1, &err) == 0, "%s", err.msg);
        answer a = ask(cold, p, (answer){0}), b = ask(warm, p, (answer){0});
        CHECK(same(&a, &b) && b.encodes == 1 && b.timings.cached_tokens < 64,
              "picture %d met the state of another (%d cached tokens)", i, b.timings.cached_tokens);
        vl_session_free(cold);
        vl_prompt_free(p);
    }
    const vl_picture_info *wide = vl_picture_get_info(pic[2]), *tall = vl_picture_get_info(pic[3]);
    CHECK(wide->tokens == tall->tokens && memcmp(wide->digest, tall->digest, 32), "the digest leaves out sizes");
    for (int i = 0; i < 4; i++) vl_picture_free(pic[i]);
    vl_session_free(warm);
}

static void test_cancel(void) {
    vl_prompt *p = make_prompt("What is this?", IMAGES "pic-scene.jpg", IMAGES "pic-grey.png");
    vl_session *s = open_session(true, 2048);
    vl_session_stats st;
    answer whole = ask(s, p, (answer){0});
    for (int at = 1; at < 6; at++) {
        vl_session *fresh = open_session(true, 2048);
        answer a = ask(fresh, p, (answer){.cancel_at_block = at});
        CHECK(!strcmp(a.reason, "cancelled") && a.n == 0, "block %d: %s", at, a.reason);
        vl_session_get_stats(fresh, &st);
        CHECK(st.kv_blocks_used == 0 && st.running == 0, "a cancelled request holds %d blocks",
              (int)st.kv_blocks_used);
        answer after = ask(fresh, p, (answer){0});
        CHECK(same(&whole, &after), "the session is not whole after a cancellation at block %d", at);
        vl_session_free(fresh);
    }
    answer a = ask(s, p, (answer){.cancel_at_token = 3});
    CHECK(!strcmp(a.reason, "cancelled") && a.n == 3 && !memcmp(a.ids, whole.ids, 3 * sizeof *a.ids),
          "%s after %d", a.reason, a.n);
    answer after = ask(s, p, (answer){0});
    CHECK(same(&whole, &after), "the session is not whole after a cancellation");
    vl_session_free(s);
    vl_prompt_free(p);
}

static void test_limits(void) {
    vl_prompt *p = make_prompt("What is this?", IMAGES "pic-scene.jpg", NULL);
    vl_session *s = open_session(false, 64);
    vl_request *r;
    vl_err err = {0};
    size_t n;
    vl_sampling sampling = vl_sampling_greedy(1000);
    vl_prompt_ids(p, &n);
    int rc = vl_submit(&r, s, p, &sampling, NULL, NULL, &err);
    if (n >= 64) CHECK(rc == -1 && err.code == VL_E_LIMIT && strstr(err.msg, "64"), "%s", err.msg);
    else vl_request_free(r);
    vl_session_free(s);
    s = open_session(false, 1024);
    answer a = {0};
    sampling.ignore_eos = true;
    sampling.max_tokens = 1 << 30;
    CHECK(vl_submit(&r, s, p, &sampling, NULL, NULL, &err) == 0, "%s", err.msg);
    vl_request_free(r); /* before it ran: nothing is left behind */
    const struct { const char *name; vl_sampling p; } bad[] = {
        {"temperature", {.max_tokens = 1, .temperature = -1, .top_p = 1, .repetition_penalty = 1}},
        {"temperature", {.max_tokens = 1, .temperature = NAN, .top_p = 1, .repetition_penalty = 1}},
        {"top_p", {.max_tokens = 1, .top_p = 2, .repetition_penalty = 1}},
        {"logprobs", {.max_tokens = 1, .top_p = 1, .repetition_penalty = 1, .logprobs = 21}},
        {"repetition_penalty", {.max_tokens = 1, .top_p = 1}},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK(vl_submit(&r, s, p, &bad[i].p, on_event, &a, &err) == -1 && strstr(err.msg, bad[i].name),
              "%s: %s", bad[i].name, err.msg);
    const vl_logit_bias nan_bias = {1, NAN};
    vl_sampling biased = vl_sampling_greedy(1);
    biased.bias = &nan_bias;
    biased.n_bias = 1;
    CHECK(vl_submit(&r, s, p, &biased, on_event, &a, &err) == -1 && strstr(err.msg, "logit_bias"), "%s", err.msg);
    vl_session_free(s);
    vl_prompt_free(p);
}

/* A session that ends must not end the trace of another session of the model. */
static void count_rows(void *user, const vl_tap *tap) {
    if (!strcmp(tap->name, "model.language_model.layers.0")) *(int *)user = (int)tap->shape[0];
}
static void test_two_sessions(void) {
    vl_prompt *p = make_prompt("Say something.", NULL, NULL);
    vl_session *s = open_session(false, 1024), *other = open_session(false, 1024);
    vl_sampling sampling = vl_sampling_greedy(1);
    vl_request *r;
    vl_err err = {0};
    int rows = 0;
    size_t n;
    vl_prompt_ids(p, &n);
    vl_session_free(s);
    const vl_session_params params = {.max_rows = 4, .kv_tokens = 1024};
    CHECK(vl_session_open(&s, model, &params, &err) == 0, "%s", err.msg);
    CHECK(!vl_session_trace(s, count_rows, &rows, &err), "%s", err.msg);
    CHECK(n > 4 && vl_submit(&r, s, p, &sampling, NULL, NULL, &err) == 0, "%s", err.msg);
    vl_session_step(s, &err); /* the first rows of the prompt */
    vl_session_free(other);
    while (vl_session_step(s, &err) > 0) continue;
    CHECK(rows == (int)n && err.code == 0, "%d of %zu rows traced: %s", rows, n, err.msg);
    vl_request_free(r);
    vl_session_free(s);
    vl_prompt_free(p);
}

/* A trace is whole or its request ends in an error, whichever allocation fails. */
static void count_tensors(void *user, const vl_tap *tap) {
    (void)tap;
    ++*(int *)user;
}
static void test_trace_memory(void) {
    vl_prompt *p = make_prompt("Say something.", NULL, NULL);
    vl_sampling sampling = vl_sampling_greedy(1);
    int whole = 0, errors = 0, rc = -1;
    for (long n = -1; n < 1000 && (rc || n < 1); n++) { /* -1: none fails, which tells how many there are */
        vl_session *s = open_session(false, 1024);
        vl_err err = {0};
        int tensors = 0;
        atomic_store(&allocations, 0);
        refuse = n;
        rc = vl_session_trace(s, count_tensors, &tensors, &err) || vl_generate(s, p, &sampling, NULL, NULL, &err);
        refuse = -1;
        if (n < 0) whole = tensors;
        CHECK(rc ? err.code == VL_E_NOMEM : tensors == whole, "allocation %ld: %d of %d tensors, \"%s\"", n,
              tensors, whole, err.msg);
        errors += rc != 0;
        vl_session_free(s);
    }
    CHECK(rc == 0 && whole > 8 && errors > 8, "%d errors, %d tensors", errors, whole);
    vl_prompt_free(p);
}

/* Forces token *user as the third of the answer. */
static void force_third(void *user, float *logits, int vocab, const int32_t *ids, int n) {
    (void)ids;
    for (int i = 0; i < vocab; i++)
        if (n == 2 ? i != *(int32_t *)user : i == *(int32_t *)user) logits[i] = -INFINITY;
}

/* Both ends of turn stop the answer, are not counted, and are passed over with ignore_eos. */
static void test_end_of_turn(void) {
    static const char *const END[] = {"<|im_end|>", "<|endoftext|>"};
    vl_prompt *p = make_prompt("Say something.", NULL, NULL);
    vl_session *s = open_session(false, 1024);
    for (int i = 0; i < 4; i++) {
        int32_t *ids = NULL;
        size_t n = 0;
        vl_err err = {0};
        answer a = {0};
        CHECK(vl_tokenize(model, END[i / 2], strlen(END[i / 2]), true, &ids, &n, &err) == 0 && n == 1, "%s",
              err.msg);
        vl_sampling sampling = vl_sampling_greedy(8);
        sampling.ignore_eos = i % 2;
        sampling.logits_fn = force_third;
        sampling.logits_user = ids;
        CHECK(vl_generate(s, p, &sampling, on_event, &a, &err) == 0, "%s", err.msg);
        CHECK(a.tokens == (i % 2 ? 8 : 2) && !strcmp(a.reason, i % 2 ? "length" : "stop"), "%s: %s after %d",
              END[i / 2], a.reason, a.tokens);
        free(ids);
    }
    vl_session_free(s);
    vl_prompt_free(p);
}

static void test_allocations(void) {
    vl_prompt *p = make_prompt("Say something.", NULL, NULL);
    vl_session *s = open_session(false, 1024);
    answer a = ask(s, p, (answer){0});
    a = ask(s, p, (answer){.allocations_in_decode = -1});
    CHECK(a.allocations_in_decode == 0, "%ld allocations in ten decoded tokens", a.allocations_in_decode);
    vl_session_free(s);
    vl_prompt_free(p);
}

int main(void) {
    vl_err err = {0};
    CHECK(vl_model_open(&model, "tests/golden/models/std", NULL, &err) == 0, "%s", err.msg);
    if (!model) return test_end();
    test_caches();
    test_alike();
    test_cancel();
    test_limits();
    test_two_sessions();
    test_trace_memory();
    test_end_of_turn();
    test_allocations();
    vl_model_free(model);
    return test_end();
}
