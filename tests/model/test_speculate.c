/* test_speculate.c: tokens looked up ahead change nothing but the number of passes. */
#include <stdlib.h>

#include "tests/test.h"
#include "vitreous.h"

enum { TOKENS = 96 };
static vl_model *model;

typedef struct answer {
    int32_t ids[TOKENS];
    char text[8192], reason[16], stop[32];
    size_t len;
    int n, cancel_at;
    uint32_t hash;
    vl_timings t;
} answer;

static int on_event(void *user, const vl_event *ev) {
    answer *a = user;
    if (ev->kind == VL_EV_TOKEN) {
        if (ev->id >= 0) a->ids[a->n++] = ev->id;
        memcpy(a->text + a->len, ev->text, ev->len);
        a->len += ev->len;
        return a->cancel_at && a->n == a->cancel_at;
    }
    if (ev->kind != VL_EV_DONE) return 0;
    snprintf(a->reason, sizeof a->reason, "%s", ev->finish_reason);
    snprintf(a->stop, sizeof a->stop, "%s", ev->stop ? ev->stop : "");
    a->hash = ev->logits_hash;
    a->t = ev->timings;
    return 0;
}

static vl_session *open_session(int speculate, bool caches) {
    vl_session *s = NULL;
    vl_err err = {0};
    vl_session_params p = {.max_requests = 3, .max_rows = 32, .kv_tokens = 2048, .prefix_cache = caches,
                           .speculate = speculate};
    CHECK(!vl_session_open(&s, model, &p, &err), "%s", err.msg);
    return s;
}

static vl_prompt *ask_text(const char *text) {
    char json[1024];
    vl_prompt *p = NULL;
    vl_err err = {0};
    snprintf(json, sizeof json, "[{\"role\":\"user\",\"content\":\"%s\"}]", text);
    CHECK(!vl_prompt_chat(&p, model, json, NULL, 0, NULL, 0, &err), "%s", err.msg);
    return p;
}

static bool same(const answer *a, const answer *b) {
    return a->n == b->n && a->hash == b->hash && a->len == b->len && !memcmp(a->ids, b->ids, sizeof a->ids) &&
           !memcmp(a->text, b->text, a->len) && !strcmp(a->reason, b->reason) && !strcmp(a->stop, b->stop);
}

static answer generate(vl_session *s, const vl_prompt *p, const vl_sampling *how, int cancel_at) {
    answer a = {.cancel_at = cancel_at};
    vl_err err = {0};
    CHECK(!vl_generate(s, p, how, on_event, &a, &err), "%s", err.msg);
    return a;
}

static int accepted, drafted;

/* The same request plain and with 1 to 4 tokens ahead. */
static void compare(const char *what, const vl_prompt *p, const vl_sampling *how, int cancel_at, bool drafts) {
    vl_session *plain = open_session(0, false);
    answer want = generate(plain, p, how, cancel_at);
    CHECK(want.t.draft_tokens == 0, "drafts nobody asked for");
    vl_session_free(plain);
    for (int n = 1; n <= VL_SPECULATE_MAX; n++) {
        vl_session *s = open_session(n, n % 2);
        for (int again = 0; again < 2; again++) { /* the second time from the prefix cache, with odd n */
            answer got = generate(s, p, how, cancel_at);
            CHECK(same(&want, &got), "%s, %d ahead: %d tokens (%s), plain %d (%s)", what, n, got.n, got.reason,
                  want.n, want.reason);
            CHECK(got.t.decoded_tokens == want.t.decoded_tokens, "%s: %d tokens decoded, plain %d", what,
                  got.t.decoded_tokens, want.t.decoded_tokens);
            CHECK(got.t.accepted_tokens <= got.t.draft_tokens, "%s", what);
            CHECK(drafts || !got.t.draft_tokens, "%s: %d drafts", what, got.t.draft_tokens);
            accepted += got.t.accepted_tokens;
            drafted += got.t.draft_tokens;
        }
        vl_session_free(s);
    }
}

static void no_token_seven(void *user, float *logits, int vocab, const int32_t *ids, int n) {
    (void)user, (void)ids, (void)n, (void)vocab;
    logits[7] = -1e30f;
}

static void test_requests(const char *dir) {
    static const char *const QUESTION[] = {"Say one two three one two three one two three one two",
                                           "aaaaaaaaaaaaaaaa", "Describe a red house and a blue house."};
    vl_err err = {0};
    CHECK(!vl_model_open(&model, dir, NULL, &err), "%s", err.msg);
    if (!model) return;
    for (int q = 0; q < 3; q++) {
        vl_prompt *p = ask_text(QUESTION[q]);
        vl_sampling how = vl_sampling_greedy(TOKENS);
        compare("as it is", p, &how, 0, true);
        how.detect_repetition = false;
        compare("no repetition check", p, &how, 0, true);
        how.ignore_eos = true;
        compare("to the end", p, &how, 0, true);
        compare("cancelled", p, &how, 9, true);
        vl_session *s = open_session(0, false);
        answer whole = generate(s, p, &how, 0);
        vl_session_free(s);
        for (int max = 1; max <= 7; max++) { /* the answer ends inside a draft */
            how.max_tokens = max;
            compare("short", p, &how, 0, true);
        }
        how.max_tokens = TOKENS;
        for (size_t at = whole.len / 8; whole.len > 32 && at + 3 < whole.len; at += whole.len / 5) {
            char stop[4] = {0};
            const char *stops[] = {stop};
            memcpy(stop, whole.text + at, 3);
            how.stop = stops;
            how.n_stop = 1;
            compare("stop string", p, &how, 0, true);
        }
        how.n_stop = 0;
        how.logits_fn = no_token_seven;
        compare("constrained", p, &how, 0, false);
        how.logits_fn = NULL;
        how.temperature = 0.8f;
        compare("sampled", p, &how, 0, false);
        vl_prompt_free(p);
    }
    vl_model_free(model);
    model = NULL;
}

/* A conversation that repeats itself drafts the old answer, its end of turn included. */
static void test_end_of_turn(void) {
    static const char TURN[] = "<|im_start|>user\nWhat is this?<|im_end|>\n<|im_start|>assistant\n";
    vl_err err = {0};
    CHECK(!vl_model_open(&model, NULL, NULL, &err), "%s", err.msg);
    vl_sampling how = vl_sampling_greedy(48);
    vl_prompt *p = NULL;
    char text[4096];
    CHECK(!vl_prompt_text(&p, model, TURN, sizeof TURN - 1, true, NULL, 0, &err), "%s", err.msg);
    vl_session *s = open_session(0, false);
    answer first = generate(s, p, &how, 0);
    vl_session_free(s);
    vl_prompt_free(p);
    CHECK(!strcmp(first.reason, "stop"), "the demo model should end its turn, not by %s", first.reason);
    snprintf(text, sizeof text, "%s%.*s<|im_end|>\n%s%.*s<|im_end|>\n%s", TURN, (int)first.len, first.text, TURN,
             (int)first.len, first.text, TURN);
    CHECK(!vl_prompt_text(&p, model, text, strlen(text), true, NULL, 0, &err), "%s", err.msg);
    compare("a conversation again", p, &how, 0, true);
    vl_prompt_free(p);
    vl_model_free(model);
    model = NULL;
}

/* Several answers at once share the rows of a pass. */
static void test_together(void) {
    vl_err err = {0};
    CHECK(!vl_model_open(&model, NULL, NULL, &err), "%s", err.msg);
    vl_prompt *p[3] = {ask_text("one two one two one two one"), ask_text("bbbbbbbbbbbbbbb"), ask_text("Hello?")};
    vl_sampling how = vl_sampling_greedy(40);
    how.ignore_eos = true;
    how.detect_repetition = false;
    answer want[3];
    for (int n = 0; n <= VL_SPECULATE_MAX; n++) {
        vl_session *s = open_session(n, true);
        vl_request *r[3];
        answer got[3] = {0};
        for (int i = 0; i < 3; i++) CHECK(!vl_submit(&r[i], s, p[i], &how, on_event, &got[i], &err), "%s", err.msg);
        while (vl_session_step(s, &err) > 0) continue;
        for (int i = 0; i < 3; i++) {
            vl_request_free(r[i]);
            if (n) CHECK(same(&want[i], &got[i]), "answer %d of 3 together, %d ahead", i, n);
            else want[i] = got[i];
        }
        vl_session_stats st;
        vl_session_get_stats(s, &st);
        CHECK(st.kv_blocks_used == 0 && st.running == 0, "%lld blocks held", (long long)st.kv_blocks_used);
        vl_session_free(s);
    }
    for (int i = 0; i < 3; i++) vl_prompt_free(p[i]);
    vl_session *s;
    CHECK(vl_session_open(&s, model, &(vl_session_params){.speculate = 5}, &err) && strstr(err.msg, "0 (off) to 4"),
          "%s", err.msg);
    vl_model_free(model);
    model = NULL;
}

int main(void) {
    test_requests("tests/golden/models/std");
    test_requests(NULL); /* the demo model */
    test_end_of_turn();
    test_together();
    CHECK(accepted > 1000, "only %d of %d drafted tokens were right: nothing was tested", accepted, drafted);
    printf("%d of %d drafted tokens were right\n", accepted, drafted);
    return test_end();
}
