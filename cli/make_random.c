/* make_random.c: a checkpoint folder of any shape with random bf16 weights, for benchmarks and tests:
 * config.json, safetensors (streamed, in shards of at most 2 GB), tokenizer, preprocessor and
 * generation config, chat template.
 *
 * The noise is scaled so that activations stay of order one from the first layer to the last; the
 * same seed gives the same bytes. The tensors come from the binding table of model/weights.c.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/random_shapes.h"
#include "cli/cli.h"
#include "common/common.h"
#include "loader/checkpoint.h"
#include "loader/json.h"
#include "model/config.h"
#include "model/demo_dir.h"
#include "model/weights.h"

static const size_t SHARD_BYTES = (size_t)2 << 30;

/* ---- config.json -------------------------------------------------------------------------------- */

static json_t *config_of(const random_shape *s) {
    json_t *rope = json_pack("{s:s,s:[i,i,i],s:b}", "rope_type", "default", "mrope_section", 24, 20,
                             20, "mrope_interleaved", 1);
    json_t *text = json_pack(
        "{s:s,s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:s,s:f,s:i,s:b,s:i,s:o,s:b}", "model_type", "qwen3_vl_text",
        "vocab_size", 151936, "hidden_size", s->D, "intermediate_size", s->F, "num_hidden_layers",
        s->layers, "num_attention_heads", s->H, "num_key_value_heads", s->G, "head_dim", 128,
        "hidden_act", "silu", "rms_norm_eps", 1e-6, "max_position_embeddings", 262144,
        "attention_bias", 0, "rope_theta", 5000000, "rope_scaling", rope, "tie_word_embeddings",
        (int)s->tied);
    json_t *vision = json_pack(
        "{s:s,s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:s,s:[i,i,i]}", "model_type", "qwen3_vl",
        "depth", s->depth, "hidden_size", s->vD, "intermediate_size", s->vF, "num_heads", 16,
        "in_channels", 3, "patch_size", 16, "spatial_merge_size", 2, "temporal_patch_size", 2,
        "out_hidden_size", s->D, "num_position_embeddings", 2304, "hidden_act",
        "gelu_pytorch_tanh", "deepstack_visual_indexes", s->deepstack[0], s->deepstack[1],
        s->deepstack[2]);
    return json_pack("{s:[s],s:s,s:i,s:i,s:i,s:i,s:b,s:s,s:o,s:o}", "architectures",
                     "Qwen3VLForConditionalGeneration", "model_type", "qwen3_vl", "image_token_id",
                     151655, "video_token_id", 151656, "vision_start_token_id", 151652,
                     "vision_end_token_id", 151653, "tie_word_embeddings", (int)s->tied, "dtype",
                     "bfloat16", "text_config", text, "vision_config", vision);
}

/* ---- a tokenizer of bytes ------------------------------------------------------------------------ */

static const char *const specials[] = { /* in the order of Qwen's vocabulary */
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>",
    "<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>",
    "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>", "<tool_call>",
    "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>",
    "<|repo_name|>", "<|file_sep|>", "<tool_response>", "</tool_response>", "<think>", "</think>"};
enum { N_SPECIALS = sizeof specials / sizeof *specials, IMAGE_PAD = 12, VISION_START = 9 };

/* GPT-2's printable stand-in for a byte, as UTF-8: itself, or U+0100 + how many came before it. */
static json_t *byte_symbol(int byte, int *moved) {
    bool plain = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    int u = plain ? byte : 256 + (*moved)++;
    char utf8[3] = {(char)u, 0, 0};
    if (u >= 128) {
        utf8[0] = (char)(0xc0 | (u >> 6));
        utf8[1] = (char)(0x80 | (u & 63));
    }
    return json_string(utf8);
}

static json_t *tokenizer_of(int base) {
    static const char regex[] =
        "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|"
        " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
    json_t *vocab = json_object(), *added = json_array();
    int moved = 0;
    for (int b = 0; b < 256; b++) {
        json_t *symbol = byte_symbol(b, &moved);
        json_object_set_new(vocab, json_string_value(symbol), json_integer(b));
        json_decref(symbol);
    }
    for (int i = 0; i < N_SPECIALS; i++)
        json_array_append_new(added, json_pack("{s:i,s:s,s:b,s:b,s:b,s:b,s:b}", "id", base + i,
                                               "content", specials[i], "single_word", 0, "lstrip",
                                               0, "rstrip", 0, "normalized", 0, "special",
                                               specials[i][1] == '|'));
    json_t *split = json_pack("{s:s,s:{s:s},s:s,s:b}", "type", "Split", "pattern", "Regex", regex,
                              "behavior", "Isolated", "invert", 0);
    json_t *level = json_pack("{s:s,s:b,s:b,s:b}", "type", "ByteLevel", "add_prefix_space", 0,
                              "trim_offsets", 0, "use_regex", 0);
    return json_pack("{s:s,s:o,s:{s:s},s:{s:s,s:[o,o]},s:O,s:{s:s,s:o,s:[]}}", "version", "1.0",
                     "added_tokens", added, "normalizer", "type", "NFC", "pre_tokenizer", "type",
                     "Sequence", "pretokenizers", split, level, "decoder", level, "model", "type",
                     "BPE", "vocab", vocab, "merges");
}

/* ---- the small files ------------------------------------------------------------------------------ */

int cli_write_json(const char *dir, const char *name, json_t *j) {
    char path[4200];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    int rc = j ? json_dump_file(j, path, JSON_INDENT(2)) : -1;
    json_decref(j);
    if (rc) fprintf(stderr, "vitreous: %s: cannot be written\n", path);
    return rc ? CLI_BAD : 0;
}

/* Copies from/name if it is there. */
int cli_copy_file(const char *from, const char *name, const char *dir) {
    char path[4200], *data = NULL;
    size_t len = 0;
    vl_err err = {0};
    snprintf(path, sizeof path, "%s/%s", from, name);
    if (!vl_file_exists(path)) return 0;
    if (vl_read_file(path, (size_t)64 << 20, &data, &len, &err)) return cli_fail(&err);
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    bool ok = f && fwrite(data, 1, len, f) == len;
    if (f) ok = fclose(f) == 0 && ok;
    free(data);
    if (ok) return 0;
    fprintf(stderr, "vitreous: %s: %s\n", path, strerror(errno));
    return CLI_BAD;
}

/* The tokenizer and its companions: those beside the config, or made from the config's token ids. */
static int write_companions(const char *dir, const char *beside, const vl_config *c) {
    static const char *const names[] = {"tokenizer.json", "vocab.json", "merges.txt",
        "tokenizer_config.json", "chat_template.jinja", "chat_template.json",
        "generation_config.json", "preprocessor_config.json"};
    char path[4200];
    int rc = 0, base = c->image_token - IMAGE_PAD;
    if (beside) {
        snprintf(path, sizeof path, "%s/tokenizer.json", beside);
        if (vl_file_exists(path)) {
            for (size_t i = 0; !rc && i < sizeof names / sizeof *names; i++)
                rc = cli_copy_file(beside, names[i], dir);
            return rc;
        }
    }
    if (base < 256 || base + N_SPECIALS > c->text.V || c->vision_start != base + VISION_START)
        return cli_usage("the token ids of this config do not leave room for Qwen's special tokens; "
                         "put its tokenizer.json beside it");
    rc = cli_write_json(dir, "tokenizer.json", tokenizer_of(base));
    if (!rc)
        rc = cli_write_json(dir, "preprocessor_config.json",
                        json_pack("{s:{s:i,s:i},s:i,s:i,s:i,s:[f,f,f],s:[f,f,f]}", "size",
                                  "shortest_edge", 65536, "longest_edge", 16777216, "patch_size",
                                  c->vision.patch, "temporal_patch_size", c->vision.temporal,
                                  "merge_size", c->vision.merge, "image_mean", 0.5, 0.5, 0.5,
                                  "image_std", 0.5, 0.5, 0.5));
    if (!rc)
        rc = cli_write_json(dir, "generation_config.json",
                        json_pack("{s:i,s:i,s:[i,i],s:b}", "bos_token_id", base, "pad_token_id",
                                  base, "eos_token_id", base + 2, base, "do_sample", 0));
    if (!rc && vl_demo_dir()) rc = cli_copy_file(vl_demo_dir(), "chat_template.jinja", dir);
    return rc;
}

/* ---- the tensors ---------------------------------------------------------------------------------- */

typedef struct tensor_list { vl_tensor *v; size_t n; const vl_config *config; uint64_t seed; vl_rng rng;
                             bool zeros; } tensor_list;

static int add_tensor(void *user, const char *name, int64_t rows, int64_t cols) {
    tensor_list *l = user;
    const vl_vision_config *v = &l->config->vision;
    vl_tensor *more = realloc(l->v, (l->n + 1) * sizeof *more);
    if (!more) return -1;
    l->v = more;
    vl_tensor *t = &l->v[l->n];
    *t = (vl_tensor){.name = strdup(name), .dtype = VL_BF16, .rank = cols == 1 ? 1 : 2,
                     .shape = {rows, cols}};
    if (!t->name) return -1;
    l->n++;
    if (strstr(name, "patch_embed.proj.weight")) {
        t->rank = 5;
        memcpy(t->shape, (int64_t[8]){rows, v->channels, v->temporal, v->patch, v->patch}, sizeof t->shape);
    }
    t->bytes = (size_t)rows * (size_t)cols * 2;
    return 0;
}

/* mean and deviation that keep activations lively: order one after every norm and projection. */
static void scale_of(const vl_tensor *t, float *mean, float *deviation) {
    const char *n = t->name;
    double cols = t->rank == 1 ? 1 : (double)t->bytes / 2 / (double)t->shape[0];
    bool qk = strstr(n, "q_norm") || strstr(n, "k_norm");
    *mean = 0;
    if (strstr(n, ".bias")) *deviation = 0.2f;
    else if (strstr(n, "pos_embed")) *deviation = 0.6f;
    else if (strstr(n, "embed_tokens") || strstr(n, "lm_head")) *deviation = (float)(5 / __builtin_sqrt(cols));
    else if (t->rank > 1) *deviation = (float)(1 / __builtin_sqrt(cols));
    else {
        *mean = qk ? 1.5f : 1;
        *deviation = 0.3f * *mean;
    }
}

/* Sums of four 16-bit uniforms: near enough to normal, and a gigabyte in seconds. Each tensor has
 * a stream of its own, seeded by its name. */
static void fill(void *user, const vl_tensor *t, size_t at, void *dst, size_t n) {
    tensor_list *l = user;
    float mean, deviation;
    uint16_t *out = dst;
    scale_of(t, &mean, &deviation);
    if (at == 0) {
        uint64_t h = 1469598103934665603u; /* FNV-1a */
        for (const char *c = t->name; *c; c++) h = (h ^ (uint8_t)*c) * 1099511628211u;
        vl_rng_seed(&l->rng, h ^ l->seed * 0x9e3779b97f4a7c15u);
    }
    for (size_t i = 0; i < n / 2; i++) {
        uint64_t r = vl_rng_u64(&l->rng);
        int sum = (int)((r & 0xffff) + (r >> 16 & 0xffff) + (r >> 32 & 0xffff) + (r >> 48));
        out[i] = vl_f32_to_bf16(mean + deviation * (float)(sum - 131070) * (1 / 37837.2f));
    }
}

static int write_tensors(const char *dir, tensor_list *l) {
    static const char *const metadata[] = {"format", "pt", NULL};
    json_t *map = json_object();
    vl_err err = {0};
    char path[4200], file[64];
    size_t total = 0, shards = 1, in_shard = 0;
    int rc = 0;
    for (size_t i = 0; i < l->n; i++) { /* count the shards first: their names hold the number */
        if (in_shard && in_shard + l->v[i].bytes > SHARD_BYTES) shards++, in_shard = 0;
        in_shard += l->v[i].bytes;
        total += l->v[i].bytes;
    }
    for (size_t first = 0, shard = 1, end; !rc && first < l->n; first = end, shard++) {
        for (end = first, in_shard = 0; end < l->n; end++) {
            if (in_shard && in_shard + l->v[end].bytes > SHARD_BYTES) break;
            in_shard += l->v[end].bytes;
        }
        snprintf(file, sizeof file, "model.safetensors");
        if (shards > 1) snprintf(file, sizeof file, "model-%05zu-of-%05zu.safetensors", shard, shards);
        snprintf(path, sizeof path, "%s/%s", dir, file);
        fprintf(stderr, "%s: %zu tensors, %.2f GB\n", file, end - first, (double)in_shard / 1e9);
        if (vl_safetensors_stream(path, l->v + first, end - first, metadata, l->zeros ? NULL : fill, l,
                                  &err))
            rc = cli_fail(&err);
        for (size_t i = first; i < end; i++)
            json_object_set_new(map, l->v[i].name, json_string(file));
    }
    if (!rc && shards > 1)
        rc = cli_write_json(dir, "model.safetensors.index.json",
                        json_pack("{s:{s:I},s:O}", "metadata", "total_size", (json_int_t)total,
                                  "weight_map", map));
    json_decref(map);
    return rc;
}

/* ---- the command ------------------------------------------------------------------------------------ */

/* config.json in dir; *beside: the folder it came from, malloc'd, or NULL for a built-in shape. */
static int write_config(const char *like, const char *dir, char **beside) {
    vl_err err = {0};
    for (size_t i = 0; i < sizeof random_shapes / sizeof *random_shapes; i++)
        if (strcmp(like, random_shapes[i].name) == 0)
            return cli_write_json(dir, "config.json", config_of(&random_shapes[i]));
    bool demo = strcmp(like, "demo") == 0;
    if (demo && !vl_demo_dir()) {
        fputs("vitreous: the demo model was not found; set VITREOUS_DEMO\n", stderr);
        return CLI_BAD;
    }
    char path[4200];
    snprintf(path, sizeof path, "%s%s", demo ? vl_demo_dir() : like, demo ? "/config.json" : "");
    json_t *config = vl_json_load(path, 1 << 20, &err);
    if (!config) return cli_fail(&err);
    char *slash = strrchr(path, '/');
    if (slash) *slash = '\0';
    *beside = strdup(slash ? path : ".");
    return cli_write_json(dir, "config.json", config);
}

int cli_random_checkpoint(const char *like, int64_t seed, bool zeros, const char *dir) {
    char *beside = NULL;
    vl_config config;
    vl_err err = {0};
    tensor_list list = {.config = &config, .seed = (uint64_t)seed, .zeros = zeros};
    int rc = 0;
    if (mkdir(dir, 0777) && errno != EEXIST) {
        fprintf(stderr, "vitreous: %s: %s\n", dir, strerror(errno));
        rc = CLI_BAD;
    }
    if (!rc) rc = write_config(like, dir, &beside);
    if (!rc && vl_config_load(&config, dir, &err)) rc = cli_fail(&err);
    if (!rc) rc = write_companions(dir, beside, &config);
    if (!rc && vl_weights_each(&config, add_tensor, &list)) rc = cli_usage("out of memory");
    if (!rc) rc = write_tensors(dir, &list);
    for (size_t i = 0; i < list.n; i++) free((char *)(uintptr_t)list.v[i].name);
    free(list.v);
    free(beside);
    return rc;
}

int cmd_make_random(int argc, char **argv) {
    const char *like = "demo";
    int64_t seed = 0;
    bool zeros = false;
    cli_list rest = {0};
    const cli_option options[] = {
        {"like", 0, CLI_STR, &like, "SHAPE", "2b, 4b, 8b, 32b, demo, or the path of a config.json", 0, 0},
        {"seed", 0, CLI_INT, &seed, "N", "the same seed gives the same bytes", 0, 9e18},
        {"zeros", 0, CLI_FLAG, &zeros, NULL, "weights of zeros, which take no disk space", 0, 0},
        {0},
    };
    int rc = cli_parse("make-random --like 2b|demo|FILE --seed N DIR",
                       "Writes a checkpoint folder with random weights.", options, argc, argv, &rest);
    if (rc >= 0) return rc;
    if (rest.n != 1) return cli_usage("make-random needs one folder to write to");
    rc = cli_random_checkpoint(like, seed, zeros, rest.v[0]);
    free(rest.v);
    return rc;
}
