/* test_memory.c: do the weights and the KV cache fit? Asked about memories that this machine does not have. */
#include "model/model.h"
#include "serve/serve.h"
#include "tests/test.h"

static server srv;

static int64_t open_as(const char *dtype) {
    vl_err err = {0};
    vl_model_free(srv.model);
    srv.config.model = (vl_model_params){.backend = "cpu", .dtype = dtype};
    if (vl_model_open(&srv.model, NULL, &srv.config.model, &err)) {
        CHECK(false, "%s: %s", dtype, err.msg);
        exit(test_end());
    }
    srv.info = vl_model_get_info(srv.model);
    return memory_weight_bytes(&srv);
}

/* advice: what the refusal says; NULL: none is wanted. */
static void ask(int tokens, int64_t usable, const char *advice) {
    vl_err err = {0};
    srv.config.kv_tokens = tokens;
    int rc = memory_check(&srv, usable, &err);
    CHECK(advice ? rc && strstr(err.msg, advice) : !rc, "%d tokens in %lld: %d %s", tokens, (long long)usable, rc, err.msg);
    CHECK(!strstr(err.msg, "--kv-tokens 0"), "%s", err.msg);
}

int main(void) {
    int64_t int8 = open_as("int8"), int4 = open_as("int4"), w = open_as("exact"), kv = memory_kv_bytes(&srv, 640);
    int64_t stored = (int64_t)srv.info->weight_bytes;
    CHECK(w > stored / 2 && w < 3 * stored, "%lld of %lld stored", (long long)w, (long long)stored);
    CHECK(int4 < int8 && int8 < w * 9 / 10, "narrow weights take less: %lld, %lld, %lld", (long long)int4, (long long)int8, (long long)w);
    ask(640, w + kv, NULL);
    ask(640, 0, NULL);                /* not known */
    ask(640, w + kv - 1, "--kv-tokens 576 or less");
    ask(640, w + memory_kv_bytes(&srv, 63), "a smaller model");
    ask(64, w - 1, NULL);             /* slow, not hopeless: warned of */
    ask((int)(w / memory_kv_bytes(&srv, 1)) + 1, w - 1, "a smaller model");
    vl_model_free(srv.model);
    return test_end();
}
