/* test_config.c: a good config.json with one thing changed: refused, and the message names it. */
#include <unistd.h>

#include "model/config.h"
#include "tests/test.h"

static const struct { const char *from, *to, *message; } EDITS[] = {
    {"\"model_type\": \"qwen3_vl\"", "\"model_type\": \"llama\"", "model_type \"llama\""},
    {"\"num_hidden_layers\": 4", "\"num_hidden_layers\": 0", "num_hidden_layers"},
    {"\"num_hidden_layers\": 4", "\"num_hidden_layers\": 1e3", "num_hidden_layers"},
    {"\"num_hidden_layers\": 4,", "", "num_hidden_layers"},
    {"\"hidden_size\": 64", "\"hidden_size\": 99999999999", "hidden_size"},
    {"\"vocab_size\": 436", "\"vocab_size\": -1", "vocab_size"},
    {"\"vocab_size\": 436", "\"vocab_size\": 100", "\"image_token_id\": expected 0 to 99, found 418"},
    {"\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3", "4 attention heads do not divide"},
    {"\"num_attention_heads\": 4", "\"num_attention_heads\": 1024", "512 attention heads share"},
    {"\"head_dim\": 128", "\"head_dim\": 127", "head_dim 127 is odd"},
    {"\"head_dim\": 128", "\"head_dim\": 64", "mrope_section sums to 64"},
    {"    24,", "    \"x\",", "mrope_section must be three integers"},
    {"    24,", "    -24,", "mrope_section[0]"},
    {"\"rope_type\": \"default\"", "\"rope_type\": \"yarn\"", "rope_type \"yarn\""},
    {"\"rms_norm_eps\": 1e-06", "\"rms_norm_eps\": -1", "rms_norm_eps"},
    {"\"hidden_act\": \"silu\"", "\"hidden_act\": \"relu\"", "hidden_act \"relu\""},
    {"\"hidden_act\": \"gelu_pytorch_tanh\"", "\"hidden_act\": \"gelu\"", "hidden_act \"gelu\""},
    {"   4\n  ],", "   6\n  ],", "deepstack_visual_indexes"},
    {"   2,\n   4", "   1,\n   4", "deepstack_visual_indexes"},
    {"\"num_heads\": 1", "\"num_heads\": 3", "hidden_size 64 over 3 heads"},
    {"\"hidden_size\": 64,\n  \"intermediate_size\": 80", "\"hidden_size\": 8192,\n  \"intermediate_size\": 80",
     "at most 4096 wide"},
    {"\"num_position_embeddings\": 256", "\"num_position_embeddings\": 257", "not a square"},
    {"\"out_hidden_size\": 64", "\"out_hidden_size\": 65", "out_hidden_size 65"},
    {"\"in_channels\": 3", "\"in_channels\": 4", "in_channels"},
    {"\"eos_token_id\": 408", "\"eos_token_id\": [408, 436]", "eos_token_id"},
    {"\"vision_config\": {", "\"vision\": {", "vision_config"},
    {"{", "[", "not valid JSON"},
};

static int load(vl_config *c, const char *dir, const char *text, vl_err *err) {
    char path[512];
    snprintf(path, sizeof path, "%s/config.json", dir);
    FILE *f = fopen(path, "w");
    CHECK(f != NULL, "%s", path);
    if (!f) return -1;
    fputs(text, f);
    fclose(f);
    int rc = vl_config_load(c, dir, err);
    remove(path);
    return rc;
}

int main(void) {
    static char good[1 << 16], bad[1 << 16];
    char dir[] = "/tmp/vl-config-XXXXXX";
    vl_config c;
    vl_err err = {0};
    FILE *f = fopen("tests/golden/models/std/config.json", "r");
    CHECK(f && mkdtemp(dir), "the golden's config.json and a folder for its copies");
    if (!f) return test_end();
    good[fread(good, 1, sizeof good - 1, f)] = 0;
    fclose(f);
    CHECK(load(&c, dir, good, &err) == 0 && c.text.E == 128, "unchanged: %s", err.msg);
    for (size_t i = 0; i < sizeof EDITS / sizeof *EDITS; i++) {
        char *at = strstr(good, EDITS[i].from);
        CHECK(at != NULL, "the file lacks %s", EDITS[i].from);
        if (!at) continue;
        snprintf(bad, sizeof bad, "%.*s%s%s", (int)(at - good), good, EDITS[i].to,
                 at + strlen(EDITS[i].from));
        err = (vl_err){0};
        int rc = load(&c, dir, bad, &err);
        CHECK(rc == -1 && err.code && strstr(err.msg, EDITS[i].message), "%s: %d \"%s\"", EDITS[i].message, rc,
              err.msg);
    }
    rmdir(dir);
    return test_end();
}
