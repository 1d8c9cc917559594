/* test_oom_tokenizer.c: opening, encoding and rendering with every single allocation failing in
 * turn: an error each time, never a crash, and (under ASan) no leak. */
#include "loader/json.h"
#include "tests/oom.h"
#include "tests/test.h"
#include "tests/tokenizer/small.h"
#include "tokenizer/template.h"

static char tmp[] = "/tmp/vl-oom-XXXXXX";
static vl_tokenizer *tokenizer;
static json_t *messages;

/* The call failed if memory ran out, and said so; otherwise it worked. */
static void verdict(const char *what, long n, int rc, const vl_err *err) {
    CHECK(oom_failed ? rc == -1 && *err->msg : rc == 0, "%s, allocation %ld: %d %s", what, n, rc,
          err->msg);
}

static void open_one(long n) {
    vl_err err = {0};
    vl_tokenizer *t;
    int rc = vl_tokenizer_open(&t, tmp, &err);
    verdict("open", n, rc, &err);
    CHECK((t != NULL) == (rc == 0), "open, allocation %ld: rc %d", n, rc);
    vl_tokenizer_free(t);
}

static void encode_one(long n) {
    static const char TEXT[] = "<x>abc  aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa e\u0301\u0323 <n> <l>\xff";
    vl_err err = {0};
    vl_ids ids = {0};
    int rc = vl_tokenizer_encode(tokenizer, TEXT, sizeof TEXT - 1, true, &ids, &err);
    verdict("encode", n, rc, &err);
    CHECK(rc == 0 || ids.n == 0, "encode, allocation %ld: %zu ids left", n, ids.n);
    free(ids.v);
}

static void render_one(long n) {
    vl_err err = {0};
    vl_segments s;
    int rc = vl_template_render(&s, messages, messages, VL_ADD_VISION_ID, &err);
    verdict("render", n, rc, &err);
    CHECK(rc == 0 || (s.n == 0 && !s.v), "render, allocation %ld: segments left", n);
    vl_segments_clear(&s);
}

int main(void) {
    static const char MESSAGES[] =
        "[{\"role\":\"system\",\"content\":\"a\"},{\"role\":\"user\",\"content\":[{\"type\":"
        "\"text\",\"text\":\"b\"},{\"type\":\"image\"}]},{\"role\":\"assistant\",\"tool_calls\":"
        "[{\"name\":\"f\",\"arguments\":{\"k\":[1,2.5,\"\\n\"]}}]},{\"role\":\"tool\",\"content\":"
        "\"c\"}]";
    static const char CONFIG[] = "{\"added_tokens_decoder\":{\"300\":{\"content\":\"<extra>\"}}}";
    vl_err err = {0};
    if (!mkdtemp(tmp)) return 2;
    small_write(tmp, "tokenizer_config.json", CONFIG, strlen(CONFIG));
    CHECK(small_open(&tokenizer, tmp, &(small){0}, &err) == 0, "%s", err.msg);
    messages = vl_json_parse(MESSAGES, strlen(MESSAGES), "messages", &err);
    CHECK(messages != NULL, "%s", err.msg);
    if (tokenizer && messages) {
        long opened = oom_each(open_one), encoded = oom_each(encode_one);
        long rendered = oom_each(render_one);
        CHECK(opened > 30 && encoded > 20 && rendered > 80, "only %ld, %ld and %ld runs", opened,
              encoded, rendered);
    }
    vl_tokenizer_free(tokenizer);
    json_decref(messages);
    small_remove(tmp, "tokenizer.json");
    small_remove(tmp, "tokenizer_config.json");
    CHECK(remove(tmp) == 0, "%s left behind", tmp);
    return test_end();
}
