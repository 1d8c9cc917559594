/* test_batch.c: an answer does not depend on what runs beside it. Requests of one model, with none,
 * one and several pictures, run alone and then all together in small passes, with and without the
 * prefix and picture caches, twice: tokens and the hash of the last logits must be the same bits. */
#include "tests/test.h"

#include "vitreous.h"

enum { JOBS = 5, TOKENS = 24 };
#define IMAGES "tests/golden/images/"
static const struct { const char *text; const char *image[3]; } jobs[JOBS] = {
    {"What is in the picture?", {IMAGES "pic-scene.jpg"}},
    {"Say something long about nothing at all, please.", {0}},
    {"Which of the two is taller?", {IMAGES "pic-tall.png", IMAGES "pic-scene.jpg"}},
    {"这张图片里有什么？", {IMAGES "pic-grey.png"}},
    {"What is in the picture?", {IMAGES "pic-scene.jpg"}}, /* the first again: caches may help */
};

typedef struct result { int32_t ids[TOKENS]; int n; uint32_t hash; bool done, error; } result;

static int on_event(void *user, const vl_event *ev) {
    result *r = user;
    if (ev->kind == VL_EV_TOKEN && ev->id >= 0 && r->n < TOKENS) r->ids[r->n++] = ev->id;
    if (ev->kind == VL_EV_DONE) {
        r->done = true;
        r->hash = ev->logits_hash;
        r->error = strcmp(ev->finish_reason, "length") != 0;
    }
    return 0;
}

static vl_prompt *prompt_of(const vl_model *m, int job) {
    char messages[1024] = "";
    vl_picture *pictures[3] = {0};
    vl_prompt *p = NULL;
    vl_err err = {0};
    int n = 0;
    for (; n < 3 && jobs[job].image[n]; n++) {
        int rc = vl_picture_load_file(&pictures[n], m, jobs[job].image[n], NULL, &err);
        CHECK(rc == 0, "%s", err.msg);
        if (rc) return NULL;
        strcat(messages, "{\"type\":\"image\"},");
    }
    char json[2048];
    snprintf(json, sizeof json, "[{\"role\":\"user\",\"content\":[%s{\"type\":\"text\",\"text\":\"%s\"}]}]",
             messages, jobs[job].text);
    int rc = vl_prompt_chat(&p, m, json, NULL, 0, pictures, n, &err);
    CHECK(rc == 0, "%s", err.msg);
    for (int i = 0; i < n; i++) vl_picture_free(pictures[i]); /* the prompt keeps its own */
    return p;
}

static vl_session *session_of(vl_model *m, int requests, int rows, bool caches) {
    vl_session *s = NULL;
    vl_err err = {0};
    vl_session_params params = {.max_requests = requests, .max_rows = rows, .kv_tokens = 16384,
                                .prefix_cache = caches, .picture_cache_bytes = caches ? 64u << 20 : 0};
    CHECK(vl_session_open(&s, m, &params, &err) == 0, "%s", err.msg);
    return s;
}

static void run_alone(vl_model *m, vl_prompt *const *prompts, result *out) {
    for (int i = 0; i < JOBS; i++) {
        vl_session *s = session_of(m, 1, 0, false);
        vl_sampling sampling = vl_sampling_greedy(TOKENS);
        vl_err err = {0};
        sampling.ignore_eos = true;
        if (s) CHECK(vl_generate(s, prompts[i], &sampling, on_event, &out[i], &err) == 0, "%s", err.msg);
        CHECK(out[i].done && !out[i].error && out[i].n == TOKENS, "job %d: %d tokens", i, out[i].n);
        vl_session_free(s);
    }
}

/* All jobs through one session; later ones join while earlier ones decode. */
static void run_together(vl_session *s, vl_prompt *const *prompts, result *out) {
    vl_request *requests[JOBS] = {0};
    vl_sampling sampling = vl_sampling_greedy(TOKENS);
    vl_err err = {0};
    int more = 1, submitted = 0;
    sampling.ignore_eos = true;
    for (int step = 0; more > 0 || submitted < JOBS; step++) {
        if (submitted < JOBS && step % 3 == 0) {
            int rc = vl_submit(&requests[submitted], s, prompts[submitted], &sampling, on_event,
                               &out[submitted], &err);
            CHECK(rc == 0, "%s", err.msg);
            if (rc) break;
            submitted++;
        }
        more = vl_session_step(s, &err);
        CHECK(more >= 0, "%s", err.msg);
    }
    for (int i = 0; i < JOBS; i++) vl_request_free(requests[i]);
}

static void compare(const char *what, const result *got, const result *want) {
    for (int i = 0; i < JOBS; i++) {
        CHECK(got[i].done && got[i].n == TOKENS, "%s: job %d did not finish", what, i);
        CHECK(memcmp(got[i].ids, want[i].ids, sizeof want[i].ids) == 0, "%s: job %d: other tokens", what, i);
        CHECK(got[i].hash == want[i].hash, "%s: job %d: logits %08x, alone %08x", what, i, got[i].hash,
              want[i].hash);
    }
}

static void check_model(const char *dir) {
    vl_model *m = NULL;
    vl_prompt *prompts[JOBS] = {0};
    vl_err err = {0};
    result alone[JOBS] = {0}, again[JOBS] = {0};
    char what[128];
    int rc = vl_model_open(&m, dir, &(vl_model_params){.backend = "cpu"}, &err);
    CHECK(rc == 0, "%s", err.msg);
    if (rc) return;
    for (int i = 0; i < JOBS; i++) prompts[i] = prompt_of(m, i);
    run_alone(m, prompts, alone);
    run_alone(m, prompts, again);
    compare("alone, twice", again, alone);
    CHECK(memcmp(alone[0].ids, alone[2].ids, sizeof alone[0].ids) != 0, "all answers are one");
    CHECK(alone[0].hash == alone[4].hash, "equal jobs, other logits");
    static const int rows[] = {JOBS, 13, 64, 512};
    for (int caches = 0; caches < 2; caches++) {
        for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
            vl_session *s = session_of(m, JOBS, rows[k], caches);
            for (int round = 0; s && round < 1 + caches; round++) { /* the second: warm caches */
                result together[JOBS] = {0};
                snprintf(what, sizeof what, "%s: passes of %d rows, caches %s, round %d", dir, rows[k],
                         caches ? "on" : "off", round + 1);
                run_together(s, prompts, together);
                compare(what, together, alone);
            }
            vl_session_free(s);
        }
    }
    for (int i = 0; i < JOBS; i++) vl_prompt_free(prompts[i]);
    vl_model_free(m);
}

int main(void) {
    check_model("tests/golden/models/std");
    check_model("tests/golden/models/odd");
    return test_end();
}
