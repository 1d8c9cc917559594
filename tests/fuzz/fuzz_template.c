/* fuzz_template.c: any JSON as messages and tools. What the template writes itself is all that
 * becomes special: the ids hold as many <|im_start|> and pictures as the structure does. */
#include <stdlib.h>

#include "loader/json.h"
#include "tokenizer/template.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t count(const vl_ids *ids, int32_t id) {
    size_t n = 0;
    for (size_t i = 0; i < ids->n; i++) n += ids->v[i] == id;
    return n;
}

static void check(const vl_tokenizer *t, const vl_segments *s) {
    vl_ids ids = {0};
    vl_err err = {0};
    size_t starts = 0, pictures = 0;
    for (size_t i = 0; i < s->n; i++) {
        const char *text = s->v[i].text;
        vl_assert(strlen(text) <= s->v[i].len, "segment %zu has no end", i);
        if (s->v[i].media >= 0) vl_assert(s->v[i].media == (int)pictures++, "picture order");
        while (s->v[i].special && (text = strstr(text, "<|im_start|>"))) starts++, text++;
    }
    vl_assert((int)pictures == s->n_media, "%zu pictures of %d", pictures, s->n_media);
    vl_assert(vl_segments_encode(s, t, &ids, &err) == 0, "%s", err.msg);
    vl_assert(count(&ids, vl_tokenizer_id(t, "<|image_pad|>")) == pictures, "picture ids");
    vl_assert(count(&ids, vl_tokenizer_id(t, "<|im_start|>")) == starts, "turns");
    free(ids.v);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static vl_tokenizer *t;
    vl_err err = {0};
    if (!t) vl_assert(vl_tokenizer_open(&t, "models/demo", &err) == 0, "%s", err.msg);
    json_t *root = vl_json_parse((const char *)data, size, "fuzz", &err);
    const json_t *messages = json_object_get(root, "messages");
    for (unsigned flags = 0; flags < 4; flags++) {
        vl_segments s;
        int rc = vl_template_render(&s, json_is_array(root) ? root : messages,
                                    json_object_get(root, "tools"), flags, &err);
        vl_assert(rc == 0 || (err.code == VL_E_INPUT && err.msg[0] && !s.v), "%s", err.msg);
        if (rc == 0) check(t, &s);
        vl_segments_clear(&s);
    }
    json_decref(root);
    return 0;
}
