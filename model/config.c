/* config.c: config.json -> vl_config, with every field checked.
 *
 * Easy to get wrong:
 *   - 4.57 files say rope_scaling + rope_theta, 5.x files rope_parameters: accept both;
 *   - the interleaved M-RoPE is what HF always computes, whatever mrope_interleaved says;
 *   - eos_token_id is a number in some files and a list in others, and generation_config.json wins. */
#include "model/config.h"

#include <math.h>
#include <stdio.h>

#include "loader/json.h"

enum { CONFIG_BYTES = 1 << 20 };

typedef struct field { const char *key; int *out; int lo, hi, fallback; } field;

static int read_fields(const json_t *o, const char *what, const field *f, size_t n, vl_err *err) {
    for (size_t i = 0; i < n; i++) {
        int64_t v;
        if (vl_json_int(o, what, f[i].key, f[i].lo, f[i].hi, f[i].fallback, &v, err)) return -1;
        if (v < f[i].lo) /* absent, and there is no default to fall back on */
            return vl_fail(err, VL_E_MODEL, "%s: \"%s\" is missing", what, f[i].key);
        *f[i].out = (int)v;
    }
    return 0;
}

/* rope_parameters (5.x) or rope_scaling (4.57), and rope_theta inside or beside it. */
static int read_theta(const json_t *o, const char *what, double fallback, const json_t **rope,
                      double *theta, vl_err *err) {
    *rope = json_object_get(o, "rope_parameters");
    if (!json_is_object(*rope)) *rope = json_object_get(o, "rope_scaling");
    double outer;
    if (vl_json_num(o, what, "rope_theta", 1, 1e12, fallback, &outer, err)) return -1;
    *theta = outer;
    if (!json_is_object(*rope)) {
        *rope = NULL;
        return 0;
    }
    return vl_json_num(*rope, what, "rope_theta", 1, 1e12, outer, theta, err);
}

static int read_mrope(vl_text_config *t, const json_t *rope, const char *what, vl_err *err) {
    const json_t *section = rope ? json_object_get(rope, "mrope_section") : NULL;
    static const int DEFAULT[3] = {24, 20, 20}; /* HF's default */
    int sum = 0;
    for (int i = 0; i < 3; i++) {
        json_int_t v = DEFAULT[i];
        if (section) {
            if (!json_is_array(section) || json_array_size(section) != 3 ||
                !json_is_integer(json_array_get(section, (size_t)i)))
                return vl_fail(err, VL_E_MODEL, "%s: mrope_section must be three integers", what);
            v = json_integer_value(json_array_get(section, (size_t)i));
        }
        if (v < 0 || v > t->E)
            return vl_fail(err, VL_E_MODEL, "%s: mrope_section[%d] = %lld is out of range", what, i,
                           (long long)v);
        t->mrope[i] = (int)v;
        sum += t->mrope[i];
    }
    if (sum != t->E / 2)
        return vl_fail(err, VL_E_MODEL, "%s: mrope_section sums to %d, expected head_dim / 2 = %d",
                       what, sum, t->E / 2);
    return 0;
}

static int read_text(vl_config *c, const json_t *o, const char *what, vl_err *err) {
    vl_text_config *t = &c->text;
    const field fields[] = {
        {"num_hidden_layers", &t->layers, 1, VL_MAX_LAYERS, 0},
        {"hidden_size", &t->D, 1, 1 << 20, 0},
        {"intermediate_size", &t->F, 1, 1 << 22, 0},
        {"vocab_size", &t->V, 1, 1 << 24, 0},
        {"num_attention_heads", &t->H, 1, 4096, 0},
    };
    if (read_fields(o, what, fields, sizeof fields / sizeof *fields, err)) return -1;
    const field derived[] = {
        {"num_key_value_heads", &t->G, 1, 4096, t->H},
        {"head_dim", &t->E, 2, 4096, t->D / t->H},
    };
    if (read_fields(o, what, derived, 2, err)) return -1;
    double eps;
    const json_t *rope;
    const char *type = "default", *act;
    if (vl_json_num(o, what, "rms_norm_eps", 0, 1, 1e-6, &eps, err)) return -1;
    if (vl_json_int(o, what, "max_position_embeddings", 1, (int64_t)1 << 31, 128000, &t->context, err))
        return -1;
    if (vl_json_bool(o, what, "attention_bias", false, &t->attention_bias, err)) return -1;
    if (vl_json_str(o, what, "hidden_act", "silu", &act, err)) return -1;
    if (read_theta(o, what, 500000.0, &rope, &t->theta, err)) return -1;
    t->eps = (float)eps;
    if (strcmp(act, "silu"))
        return vl_fail(err, VL_E_UNSUPPORTED, "%s: hidden_act \"%s\" is not silu", what, act);
    if (t->H % t->G)
        return vl_fail(err, VL_E_MODEL, "%s: %d attention heads do not divide over %d key/value heads",
                       what, t->H, t->G);
    if (t->H / t->G > VL_MAX_GROUP)
        return vl_fail(err, VL_E_UNSUPPORTED, "%s: %d attention heads share a key/value head, at most %d can",
                       what, t->H / t->G, VL_MAX_GROUP);
    if (t->E % 2) return vl_fail(err, VL_E_MODEL, "%s: head_dim %d is odd", what, t->E);
    if (rope) {
        if (vl_json_str(rope, what, "rope_type", NULL, &type, err)) return -1;
        if (!type && vl_json_str(rope, what, "type", "default", &type, err)) return -1;
    }
    if (strcmp(type, "default") && strcmp(type, "mrope"))
        return vl_fail(err, VL_E_UNSUPPORTED, "%s: rope_type \"%s\" is not supported (only default)",
                       what, type);
    return read_mrope(t, rope, what, err);
}

static int read_vision(vl_config *c, const json_t *o, const char *what, vl_err *err) {
    vl_vision_config *v = &c->vision;
    int positions;
    const field fields[] = {
        {"depth", &v->depth, 1, VL_MAX_LAYERS, 0},
        {"hidden_size", &v->D, 1, 1 << 20, 0},
        {"intermediate_size", &v->F, 1, 1 << 22, 0},
        {"num_heads", &v->H, 1, 4096, 0},
        {"out_hidden_size", &v->out, 1, 1 << 20, 0},
        {"in_channels", &v->channels, 3, 3, 3},
        {"patch_size", &v->patch, 1, 256, 16},
        {"temporal_patch_size", &v->temporal, 1, 16, 2},
        {"spatial_merge_size", &v->merge, 1, 16, 2},
        {"num_position_embeddings", &positions, 1, 1 << 24, 2304},
    };
    if (read_fields(o, what, fields, sizeof fields / sizeof *fields, err)) return -1;
    const char *act;
    const json_t *rope;
    if (vl_json_str(o, what, "hidden_act", "gelu_pytorch_tanh", &act, err)) return -1;
    if (strcmp(act, "gelu_pytorch_tanh"))
        return vl_fail(err, VL_E_UNSUPPORTED, "%s: hidden_act \"%s\" is not gelu_pytorch_tanh", what,
                       act);
    if (read_theta(o, what, 10000.0, &rope, &v->theta, err)) return -1;
    if (v->D % v->H || v->D / v->H % 4 || v->D / v->H > 4096)
        return vl_fail(err, VL_E_MODEL, "%s: hidden_size %d over %d heads must give heads of a multiple "
                       "of 4, at most 4096 wide", what, v->D, v->H);
    if (v->out != c->text.D)
        return vl_fail(err, VL_E_MODEL, "%s: out_hidden_size %d differs from the text hidden_size %d",
                       what, v->out, c->text.D);
    v->E = v->D / v->H;
    v->side = (int)sqrt((double)positions);
    if (v->side * v->side != positions)
        return vl_fail(err, VL_E_MODEL, "%s: num_position_embeddings %d is not a square", what,
                       positions);
    const json_t *deep = json_object_get(o, "deepstack_visual_indexes");
    size_t n = json_array_size(deep);
    if (n > VL_MAX_DEEPSTACK || (int)n > c->text.layers)
        return vl_fail(err, VL_E_MODEL, "%s: %zu deepstack_visual_indexes, at most %d fit", what, n,
                       c->text.layers < VL_MAX_DEEPSTACK ? c->text.layers : VL_MAX_DEEPSTACK);
    for (size_t i = 0; i < n; i++) {
        json_int_t at = json_integer_value(json_array_get(deep, i));
        if (!json_is_integer(json_array_get(deep, i)) || at < 0 || at >= v->depth ||
            (i && at <= v->deepstack[i - 1]))
            return vl_fail(err, VL_E_MODEL, "%s: deepstack_visual_indexes must be increasing block "
                           "numbers below depth %d", what, v->depth);
        v->deepstack[i] = (int)at;
    }
    v->n_deepstack = (int)n;
    return 0;
}

static int read_eos(vl_config *c, const json_t *o, const char *what, vl_err *err) {
    const json_t *eos = json_object_get(o, "eos_token_id");
    if (!eos || json_is_null(eos)) return 0;
    size_t n = json_is_array(eos) ? json_array_size(eos) : 1;
    if (n > VL_MAX_EOS) return vl_fail(err, VL_E_MODEL, "%s: more than %d eos_token_id", what, VL_MAX_EOS);
    c->n_eos = 0;
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_is_array(eos) ? json_array_get(eos, i) : eos;
        json_int_t id = json_integer_value(v);
        if (!json_is_integer(v) || id < 0 || id >= c->text.V)
            return vl_fail(err, VL_E_MODEL, "%s: eos_token_id must be token ids below %d", what,
                           c->text.V);
        c->eos[c->n_eos++] = (int)id;
    }
    return 0;
}

static int read_generation(vl_config *c, const char *dir, vl_err *err) {
    char path[4096];
    double temperature = 1, top_p = 1, min_p = 0, penalty = 1;
    int64_t top_k = 0;
    snprintf(path, sizeof path, "%s/generation_config.json", dir);
    if (vl_file_exists(path)) {
        json_t *g = vl_json_load(path, CONFIG_BYTES, err);
        if (!g) return -1;
        int bad = read_eos(c, g, path, err) ||
                  vl_json_bool(g, path, "do_sample", false, &c->do_sample, err) ||
                  vl_json_num(g, path, "temperature", 0, 100, 1, &temperature, err) ||
                  vl_json_num(g, path, "top_p", 0, 1, 1, &top_p, err) ||
                  vl_json_num(g, path, "min_p", 0, 1, 0, &min_p, err) ||
                  vl_json_num(g, path, "repetition_penalty", 1e-3, 100, 1, &penalty, err) ||
                  vl_json_int(g, path, "top_k", 0, 1 << 24, 0, &top_k, err);
        json_decref(g);
        if (bad) return -1;
    }
    c->temperature = (float)temperature;
    c->top_p = (float)top_p;
    c->min_p = (float)min_p;
    c->repetition_penalty = (float)penalty;
    c->top_k = (int)top_k;
    return 0;
}

static int read_config(vl_config *c, const json_t *root, const char *path, vl_err *err) {
    const char *type;
    if (vl_json_str(root, path, "model_type", "", &type, err)) return -1;
    if (strcmp(type, "qwen3_vl"))
        return vl_fail(err, VL_E_UNSUPPORTED, "%s: model_type \"%s\" is not qwen3_vl", path, type);
    const json_t *text = json_object_get(root, "text_config");
    const json_t *vision = json_object_get(root, "vision_config");
    if (!json_is_object(text) || !json_is_object(vision))
        return vl_fail(err, VL_E_MODEL, "%s: text_config and vision_config must be objects", path);
    if (read_text(c, text, path, err) || read_vision(c, vision, path, err)) return -1;
    const field ids[] = {
        {"image_token_id", &c->image_token, 0, c->text.V - 1, 151655},
        {"video_token_id", &c->video_token, 0, c->text.V - 1, 151656},
        {"vision_start_token_id", &c->vision_start, 0, c->text.V - 1, 151652},
        {"vision_end_token_id", &c->vision_end, 0, c->text.V - 1, 151653},
    };
    if (read_fields(root, path, ids, 4, err)) return -1;
    for (int i = 0; i < 4; i++)
        if (*ids[i].out >= c->text.V)
            return vl_fail(err, VL_E_MODEL, "%s: %s %d is outside the vocabulary of %d", path,
                           ids[i].key, *ids[i].out, c->text.V);
    bool tied_text;
    if (vl_json_bool(text, path, "tie_word_embeddings", false, &tied_text, err) ||
        vl_json_bool(root, path, "tie_word_embeddings", tied_text, &c->tied, err))
        return -1;
    return read_eos(c, text, path, err) || read_eos(c, root, path, err) ? -1 : 0;
}

int vl_config_load(vl_config *c, const char *dir, vl_err *err) {
    char path[4096];
    memset(c, 0, sizeof *c);
    if (snprintf(path, sizeof path, "%s/config.json", dir) >= (int)sizeof path)
        return vl_fail(err, VL_E_USAGE, "the model path is too long");
    if (!vl_file_exists(path))
        return vl_fail(err, VL_E_IO, "%s: no config.json there; -m wants a Hugging Face checkpoint "
                       "folder", dir);
    json_t *root = vl_json_load(path, CONFIG_BYTES, err);
    if (!root) return -1;
    int bad = read_config(c, root, path, err);
    json_decref(root);
    return bad ? -1 : read_generation(c, dir, err);
}
