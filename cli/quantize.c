/* quantize.c: a checkpoint folder with int8 or int4 weights, in Hugging Face layout, that loads directly.
 *
 *   X.weight         I8 [N, K], or U8 [N, (K + 1) / 2]: two indices into the codes of config.json a byte,
 *                    the even k in the low half
 *   X.weight_scale   BF16 [N, ceil(K / 32)]
 * for the matrices of decoder layers, and (always I8) of vision blocks. Everything else is copied as it
 * is: norms, biases, embeddings, lm_head (whose int8 form is made at load, since the winners are computed
 * again from these rows), patch embedding, position table, mergers. config.json says the same under
 * quantization_config. Codes are those that --dtype int8|int4 makes from the source at load.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/cli.h"
#include "kernels/quantise.h"
#include "loader/checkpoint.h"
#include "loader/json.h"
#include "model/weights.h"

typedef struct job {
    const vl_checkpoint *source;
    bool int4;
    vl_tensor *v;                  /* what is written: data NULL where it is made here        */
    const vl_tensor **from;        /* the source of each                                      */
    size_t n;
    uint8_t *made;                 /* the tensor being written                                */
    bool failed;
} job;

/* Narrow in this mode: 4 or 8 bits, or 0 where the tensor is copied. */
static int bits_of(const job *j, const vl_tensor *t) {
    unsigned use = vl_weights_narrow(t->name);
    if (t->rank != 2 || !use) return 0;
    return j->int4 && use == VL_USE_NARROW ? 4 : 8;
}

/* All codes, or all scales, of t. */
static void make(job *j, const vl_tensor *out, const vl_tensor *t) {
    bool int4 = bits_of(j, t) == 4, scales_wanted = out->dtype == VL_BF16;
    size_t K = (size_t)t->shape[1], groups = vl_q_groups(K), width = int4 ? (K + 1) / 2 : K;
    vl_matrix m = {.name = t->name, .data = t->data, .dtype = t->dtype, .rows = (int)t->shape[0], .cols = (int)K};
    float *w = calloc(groups * VL_QGROUP, sizeof *w);
    uint8_t *codes = malloc(groups * VL_QGROUP);
    uint16_t *scales = malloc(groups * sizeof *scales);
    j->made = malloc(out->bytes + 1);
    j->failed |= !w || !codes || !scales || !j->made;
    for (int row = 0; row < m.rows && !j->failed; row++) {
        uint8_t *to = j->made + (size_t)row * (scales_wanted ? groups * sizeof *scales : width);
        vl_matrix_span(w, &m, row, 0, m.cols);
        (int4 ? vl_quantise_int4 : vl_quantise_int8)(codes, scales, w, groups);
        if (scales_wanted) memcpy(to, scales, groups * sizeof *scales);
        else if (!int4) memcpy(to, codes, K);
        else
            for (size_t k = 0; k < K; k += 2)
                to[k / 2] = (uint8_t)(codes[k] | (k + 1 < K ? codes[k + 1] : 8) << 4);
    }
    vl_checkpoint_release(t->data, t->bytes);
    free(w);
    free(codes);
    free(scales);
}

static void fill(void *user, const vl_tensor *t, size_t at, void *dst, size_t n) {
    job *j = user;
    if (at == 0) {
        free(j->made);
        j->made = NULL;
        if (!j->failed) make(j, t, j->from[t - j->v]);
    }
    if (j->failed) memset(dst, 0, n);
    else memcpy(dst, j->made + at, n);
}

static int add(job *j, const vl_tensor *from, const char *suffix, vl_dtype dtype, int64_t cols) {
    vl_tensor *t = &j->v[j->n];
    size_t len = strlen(from->name) + strlen(suffix) + 1;
    char *name = malloc(len);
    *t = *from;
    t->name = name;
    j->from[j->n++] = from;
    if (!name) return -1;
    snprintf(name, len, "%s%s", from->name, suffix);
    if (cols <= 0) return 0; /* copied */
    t->data = NULL;
    t->dtype = dtype;
    t->shape[1] = cols;
    t->bytes = (size_t)t->shape[0] * (size_t)cols * vl_dtype_size(dtype);
    return 0;
}

/* The list of tensors to write. */
static int plan(job *j) {
    size_t count = vl_checkpoint_count(j->source);
    j->v = calloc(2 * count + 1, sizeof *j->v);
    j->from = calloc(2 * count + 1, sizeof *j->from);
    if (!j->v || !j->from) return cli_usage("out of memory");
    for (size_t i = 0; i < count; i++) {
        const vl_tensor *t = vl_checkpoint_at(j->source, i);
        int bits = bits_of(j, t), rc = 0;
        if (vl_weights_quantised(t))
            return cli_usage("tensor %s is %s already; quantize from the original checkpoint", t->name,
                             vl_dtype_name(t->dtype));
        if (!bits) rc = add(j, t, "", t->dtype, 0);
        else
            rc = add(j, t, "", bits == 4 ? VL_U8 : VL_I8, bits == 4 ? (t->shape[1] + 1) / 2 : t->shape[1]) ||
                 add(j, t, "_scale", VL_BF16, (int64_t)vl_q_groups((size_t)t->shape[1]));
        if (rc) return cli_usage("out of memory");
    }
    return 0;
}

/* config.json with what was done under quantization_config. */
static int write_config(const char *from, const char *dir, bool int4) {
    char path[4200];
    vl_err err = {0};
    snprintf(path, sizeof path, "%s/config.json", from);
    json_t *config = vl_json_load(path, 1 << 20, &err);
    if (!config) return cli_fail(&err);
    json_t *codes = json_array();
    for (int i = 0; int4 && i < 16; i++) json_array_append_new(codes, json_integer(VL_Q4_CODES[i]));
    json_object_set_new(config, "quantization_config",
                        json_pack("{s:s,s:s,s:s,s:i,s:s,s:o}", "quant_method", "vitreous", "dtype",
                                  int4 ? "int4" : "int8", "vision_dtype", "int8", "group_size", VL_QGROUP,
                                  "scale_dtype", "bfloat16", "codes", codes));
    return cli_write_json(dir, "config.json", config);
}

static int write_folder(const char *from, const char *dir, bool int4) {
    static const char *const COPIED[] = {"tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json",
        "chat_template.jinja", "chat_template.json", "generation_config.json", "preprocessor_config.json",
        "video_preprocessor_config.json"};
    const char *metadata[] = {"format", "pt", "producer", "vitreous " VL_VERSION, "dtype", int4 ? "int4" : "int8",
                              "group_size", "32", NULL};
    char path[4200];
    vl_checkpoint *source = NULL;
    vl_err err = {0};
    job j = {.int4 = int4};
    if (vl_checkpoint_open(&source, from, &err)) return cli_fail(&err);
    j.source = source;
    int rc = mkdir(dir, 0777) && errno != EEXIST
                 ? (fprintf(stderr, "vitreous: %s: %s\n", dir, strerror(errno)), CLI_BAD) : plan(&j);
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    if (!rc && vl_file_exists(path)) rc = cli_usage("%s is there already; give a new folder", path);
    if (!rc) rc = write_config(from, dir, int4);
    for (size_t i = 0; !rc && i < sizeof COPIED / sizeof *COPIED; i++) rc = cli_copy_file(from, COPIED[i], dir);
    if (!rc && (vl_safetensors_stream(path, j.v, j.n, metadata, fill, &j, &err) ||
                vl_checkpoint_check(source, &err)))
        rc = cli_fail(&err);
    if (!rc && j.failed) rc = cli_usage("out of memory");
    for (size_t i = 0; i < j.n; i++) free((char *)(uintptr_t)j.v[i].name);
    free(j.v);
    free(j.from);
    free(j.made);
    vl_checkpoint_free(source);
    return rc;
}

int cmd_quantize(int argc, char **argv) {
    cli_common common = {.backend = "cpu"};
    bool report = false, json = false;
    cli_list rest = {0};
    const cli_option options[] = {
        {"report", 0, CLI_FLAG, &report, NULL, "compare with exact; without DIR nothing is written", 0, 0},
        {"json", 0, CLI_FLAG, &json, NULL, "the report as JSON", 0, 0},
        CLI_MODEL_OPTIONS(&common),
        {0},
    };
    int rc = cli_parse("quantize -m SRC --dtype int8|int4 [--report] [DIR]",
                       "Writes a checkpoint of integer weights, which loads directly.", options, argc, argv, &rest);
    if (rc >= 0) return rc;
    const char *dir = rest.n ? rest.v[0] : NULL, *dtype = common.dtype;
    bool int4 = dtype && !strcmp(dtype, "int4");
    if (!dtype || (!int4 && strcmp(dtype, "int8"))) rc = cli_usage("quantize needs --dtype int8 or int4");
    else if (rest.n > 1 || (!dir && !report)) rc = cli_usage("quantize needs one folder to write, or --report");
    else {
        vl_model *exact = NULL, *other = NULL;
        common.dtype = "exact";
        rc = cli_open_model(&common, &exact);
        if (!rc && dir) rc = write_folder(vl_model_get_info(exact)->dir, dir, int4);
        if (!rc && dir) fprintf(stderr, "written: %s\n", dir);
        common.dtype = dtype;
        if (dir) common.model = dir;
        if (!rc && report) rc = cli_open_model(&common, &other);
        if (!rc && report) rc = cli_quality_report(exact, other, json);
        vl_model_free(other);
        vl_model_free(exact);
    }
    free(rest.v);
    return rc;
}
