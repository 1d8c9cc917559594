/* info.c: what a checkpoint holds, read from its files without preparing a single weight. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "common/common.h"
#include "loader/checkpoint.h"
#include "model/config.h"
#include "model/demo_dir.h"
#include "model/preprocess.h"
#include "model/weights.h"
#include "tokenizer/template.h"
#include "tokenizer/tokenizer.h"

typedef struct info {
    const char *dir;
    vl_config config;
    vl_preprocess_config preprocess;
    vl_checkpoint *checkpoint;
    vl_tokenizer *tokenizer;
} info;

/* Bytes of weights that one decoded token reads: all decoder layers and the head. */
static uint64_t decode_bytes(const info *in) {
    const char *head = in->config.tied ? "model.language_model.embed_tokens.weight" : "lm_head.weight";
    const vl_tensor *t = vl_checkpoint_find(in->checkpoint, head);
    uint64_t bytes = t ? t->bytes : 0;
    for (size_t i = 0; i < vl_checkpoint_count(in->checkpoint); i++) {
        const vl_tensor *w = vl_checkpoint_at(in->checkpoint, i);
        if (strstr(w->name, "layers.") && !strstr(w->name, "visual")) bytes += w->bytes;
    }
    return bytes;
}

static json_t *summary(const info *in) {
    const vl_text_config *t = &in->config.text;
    const vl_vision_config *v = &in->config.vision;
    uint64_t parameters = 0;
    json_t *types = json_object(), *deep = json_array(), *eos = json_array(), *j = json_object();
    for (size_t i = 0; i < vl_checkpoint_count(in->checkpoint); i++) {
        const vl_tensor *w = vl_checkpoint_at(in->checkpoint, i);
        const char *type = vl_dtype_name(w->dtype);
        json_int_t n = json_integer_value(json_object_get(types, type));
        json_object_set_new(types, type, json_integer(n + 1));
        parameters += w->bytes / vl_dtype_size(w->dtype);
    }
    for (int i = 0; i < v->n_deepstack; i++) json_array_append_new(deep, json_integer(v->deepstack[i]));
    for (int i = 0; i < in->config.n_eos; i++) json_array_append_new(eos, json_integer(in->config.eos[i]));
    json_object_set_new(j, "dir", json_string(in->dir));
    json_object_set_new(j, "parameters", json_integer((json_int_t)parameters));
    json_object_set_new(j, "weight_bytes", json_integer((json_int_t)vl_checkpoint_bytes(in->checkpoint)));
    json_object_set_new(j, "decode_bytes_per_token", json_integer((json_int_t)decode_bytes(in)));
    json_object_set_new(j, "kv_bytes_per_token",
                        json_integer((json_int_t)t->layers * 2 * t->G * t->E * (json_int_t)sizeof(float)));
    json_object_set_new(j, "tensors", types);
    json_object_set_new(j, "tied_head", json_boolean(in->config.tied));
    json_object_set_new(j, "text", json_pack(
        "{s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:f,s:I,s:[i,i,i]}", "layers", t->layers, "hidden", t->D,
        "intermediate", t->F, "heads", t->H, "kv_heads", t->G, "head_dim", t->E, "vocab", t->V,
        "rope_theta", t->theta, "context", (json_int_t)t->context, "mrope_section", t->mrope[0],
        t->mrope[1], t->mrope[2]));
    json_object_set_new(j, "vision", json_pack(
        "{s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:o}", "depth", v->depth, "hidden", v->D, "intermediate", v->F,
        "heads", v->H, "patch", v->patch, "merge", v->merge, "positions", v->side * v->side,
        "deepstack", deep));
    json_object_set_new(j, "tokenizer_size", json_integer(vl_tokenizer_size(in->tokenizer)));
    json_object_set_new(j, "eos", eos);
    json_object_set_new(j, "min_pixels", json_integer(in->preprocess.min_pixels));
    json_object_set_new(j, "max_pixels", json_integer(in->preprocess.max_pixels));
    json_object_set_new(j, "template_warning", json_string(vl_template_check(in->dir)));
    return j;
}

/* "key   value" lines from the same summary; nested objects on one line. */
static void print_summary(const json_t *j) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)j, key, value) {
        char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));
        size_t n = 0;
        for (const char *from = text ? text : ""; *from; from++)
            if (!strchr("\"{}", *from)) text[n++] = *from;
        if (n) printf("%-24s %.*s\n", key, (int)n, text);
        free(text);
    }
}

/* What a picture costs: the sizes people ask about first. */
static void print_pictures(const info *in) {
    static const int sizes[][2] = {{224, 224}, {448, 448}, {640, 480}, {1280, 720}, {1920, 1080}, {4032, 3024}};
    int factor = in->preprocess.patch_size * in->preprocess.merge_size, h, w;
    vl_err err = {0};
    printf("%-24s", "picture_tokens");
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (vl_smart_resize(sizes[i][1], sizes[i][0], factor, in->preprocess.min_pixels,
                            in->preprocess.max_pixels, &h, &w, &err) == 0)
            printf("%s %dx%d: %d", i ? "," : "", sizes[i][0], sizes[i][1], (h / factor) * (w / factor));
    putchar('\n');
}

static void print_tensors(const info *in) {
    for (size_t i = 0; i < vl_checkpoint_count(in->checkpoint); i++) {
        const vl_tensor *t = vl_checkpoint_at(in->checkpoint, i);
        printf("%-72s %-5s [", t->name, vl_dtype_name(t->dtype));
        for (int d = 0; d < t->rank; d++) printf("%s%lld", d ? ", " : "", (long long)t->shape[d]);
        printf("] %zu bytes\n", t->bytes);
    }
}

/* Names every tensor with NaN or infinity in it. */
static int check_tensors(const info *in) {
    size_t n = vl_checkpoint_count(in->checkpoint), bad = 0;
    for (size_t i = 0; i < n; i++) {
        const vl_tensor *t = vl_checkpoint_at(in->checkpoint, i);
        if (vl_tensor_finite(t)) continue;
        printf("tensor %s holds NaN or infinity\n", t->name);
        bad++;
    }
    printf("%zu of %zu tensors are finite\n", n - bad, n);
    return bad ? CLI_CHECK : CLI_OK;
}

int cmd_info(int argc, char **argv) {
    info in = {0};
    bool json = false, tensors = false, check = false, weights_md = false;
    const cli_option options[] = {
        {"model", 'm', CLI_STR, &in.dir, "DIR", "checkpoint folder (default: the demo model)", 0, 0},
        {"json", 0, CLI_FLAG, &json, NULL, "one JSON object", 0, 0},
        {"tensors", 0, CLI_FLAG, &tensors, NULL, "every tensor with type and shape", 0, 0},
        {"check", 0, CLI_FLAG, &check, NULL, "look for NaN and infinity in every weight", 0, 0},
        {"weights-md", 0, CLI_FLAG, &weights_md, NULL, "the binding table as Markdown (weights.md)", 0, 0},
        {0},
    };
    int rc = cli_parse("info", "What a checkpoint holds.", options, argc, argv, NULL);
    if (rc >= 0) return rc;
    if (weights_md) {
        puts("# Weights\n\nEvery tensor of a checkpoint, as the binding table in model/weights.c has it; made by\n"
             "`vitreous info --weights-md > weights.md`. Sizes: D, F, V, H, G, E of the text model, a leading\n"
             "v for the vision tower; {i} counts the copies.\n");
        vl_weights_print(stdout);
        return CLI_OK;
    }
    vl_err err = {0};
    if (!in.dir) in.dir = vl_demo_dir();
    if (!in.dir) return cli_usage("the demo model is not installed beside this program; use -m DIR");
    rc = 0;
    if (vl_config_load(&in.config, in.dir, &err) || vl_preprocess_config_load(&in.preprocess, in.dir, &err) ||
        vl_tokenizer_open(&in.tokenizer, in.dir, &err) || vl_checkpoint_open(&in.checkpoint, in.dir, &err))
        rc = cli_fail(&err);
    if (!rc && check) {
        rc = check_tensors(&in);
    } else if (!rc && tensors) {
        print_tensors(&in);
    } else if (!rc) {
        json_t *j = summary(&in);
        if (json) {
            cli_print_json(j);
        } else {
            print_summary(j);
            print_pictures(&in);
            json_decref(j);
        }
    }
    vl_checkpoint_free(in.checkpoint);
    vl_tokenizer_free(in.tokenizer);
    return rc;
}
