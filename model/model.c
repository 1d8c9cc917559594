/* model.c: opening a checkpoint: config -> tokenizer -> weights -> backend, and its description. */
#include "model/model.h"

#include <stdio.h>
#include <stdlib.h>

#include "model/demo_dir.h"
#include "tokenizer/template.h"

/* "models/Qwen3-VL-2B-Instruct/" -> "Qwen3-VL-2B-Instruct" */
static void base_name(char *out, size_t n, const char *dir) {
    size_t end = strlen(dir);
    while (end > 1 && dir[end - 1] == '/') end--;
    size_t start = end;
    while (start > 0 && dir[start - 1] != '/') start--;
    snprintf(out, n, "%.*s", (int)(end - start), dir + start);
}

static void describe(vl_model *m) {
    const vl_config *c = &m->config;
    size_t at = 0;
    m->warning[0] = 0;
    const char *template_note = vl_template_check(m->dir);
    if (*template_note) at = (size_t)snprintf(m->warning, sizeof m->warning, "%s", template_note);
    if (m->weights.unused && at < sizeof m->warning)
        at += (size_t)snprintf(m->warning + at, sizeof m->warning - at, "%s%d tensors of the checkpoint are "
                               "not used (the first is %s)", at ? "; " : "", m->weights.unused,
                               m->weights.unused_name);
    if (m->weights.not_finite[0] && at < sizeof m->warning)
        at += (size_t)snprintf(m->warning + at, sizeof m->warning - at, "%stensor %s holds NaN or infinity",
                               at ? "; " : "", m->weights.not_finite);
    if (m->pack_note[0] && at < sizeof m->warning)
        at += (size_t)snprintf(m->warning + at, sizeof m->warning - at, "%s%s", at ? "; " : "", m->pack_note);
    if (m->plain->note && at < sizeof m->warning)
        snprintf(m->warning + at, sizeof m->warning - at, "%s%s", at ? "; " : "", m->plain->note);
    m->info = (vl_model_info){
        .dir = m->dir, .name = m->name, .backend = m->backend->ops->name, .dtype = m->dtype,
        .threads = vl_backend_threads(m->backend), .vocab = c->text.V, .hidden = c->text.D,
        .layers = c->text.layers, .vision_depth = c->vision.depth, .patch_size = c->vision.patch,
        .merge_size = c->vision.merge, .context = c->text.context,
        .parameters = m->weights.parameters, .weight_bytes = m->weights.bytes,
        .decode_bytes = m->weights.decode_bytes, .min_pixels = m->preprocess.min_pixels,
        .max_pixels = m->preprocess.max_pixels, .warning = m->warning,
        .device = m->backend->device ? m->backend->device : "",
    };
}

/* preprocessor_config.json must cut patches as the vision tower expects them. */
static int check_preprocess(const vl_model *m, vl_err *err) {
    const vl_vision_config *v = &m->config.vision;
    const vl_preprocess_config *p = &m->preprocess;
    if (p->patch_size != v->patch || p->merge_size != v->merge || p->temporal_patch_size != v->temporal)
        return vl_fail(err, VL_E_MODEL, "%s: preprocessor_config.json (patch %d, merge %d, temporal %d) "
                       "does not fit config.json (%d, %d, %d)", m->dir, p->patch_size, p->merge_size,
                       p->temporal_patch_size, v->patch, v->merge, v->temporal);
    return 0;
}

/* Chat needs these ids to mean what config.json says they mean. */
static int check_tokens(const vl_model *m, vl_err *err) {
    const struct { const char *token; int id; } want[] = {
        {"<|image_pad|>", m->config.image_token},
        {"<|vision_start|>", m->config.vision_start},
        {"<|vision_end|>", m->config.vision_end},
    };
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        int32_t id = vl_tokenizer_id(m->tokenizer, want[i].token);
        if (id != want[i].id)
            return vl_fail(err, VL_E_MODEL, "%s: config.json says %s is token %d, the tokenizer says %d",
                           m->dir, want[i].token, want[i].id, id);
    }
    if (vl_tokenizer_size(m->tokenizer) > m->config.text.V)
        return vl_fail(err, VL_E_MODEL, "%s: the tokenizer has ids up to %d, the vocabulary only %d rows",
                       m->dir, vl_tokenizer_size(m->tokenizer) - 1, m->config.text.V);
    return 0;
}

/* Both ends of turn that Qwen uses stop an answer, also where a file names only one of them. */
static void default_eos(vl_model *m) {
    static const char *const END[] = {"<|im_end|>", "<|endoftext|>"};
    for (int i = 0; i < 2 && m->config.n_eos < VL_MAX_EOS; i++) {
        int32_t id = vl_tokenizer_id(m->tokenizer, END[i]);
        bool known = id < 0;
        for (int k = 0; k < m->config.n_eos; k++) known |= m->config.eos[k] == id;
        if (!known) m->config.eos[m->config.n_eos++] = id;
    }
}

static int open_parts(vl_model *m, const vl_model_params *params, vl_err *err) {
    vl_backend_params bp = {params->backend ? params->backend : "auto", params->dtype, params->threads};
    vl_backend *inner = NULL;
    char several[24];
    if (params->gpus < 0 || (params->gpus > 1 && !strcmp(bp.name, "cpu")))
        return vl_fail(err, VL_E_USAGE, "gpus = %d with backend \"%s\": expected 2 to 8 with backend \"cuda\", or 0",
                       params->gpus, bp.name);
    if (params->gpus > 1) {
        snprintf(several, sizeof several, "cuda:%d", params->gpus);
        bp.name = several;
    }
    if (vl_config_load(&m->config, m->dir, err) || vl_preprocess_config_load(&m->preprocess, m->dir, err) ||
        check_preprocess(m, err) || vl_tokenizer_open(&m->tokenizer, m->dir, err) ||
        check_tokens(m, err) || vl_checkpoint_open(&m->checkpoint, m->dir, err))
        return -1;
    default_eos(m);
    if (!bp.dtype) bp.dtype = vl_weights_mode(m->checkpoint);
    if (vl_backend_open(&inner, &bp, err)) return -1;
    if (vl_ops_tap_wrap(&m->tap, inner, err)) {
        inner->ops->close(inner);
        return -1;
    }
    m->backend = m->tap;
    m->plain = inner;
    m->packed = vl_packed_open(m->dir, m->checkpoint, inner, m->pack_note, sizeof m->pack_note);
    if (vl_weights_load(&m->weights, &m->config, m->checkpoint, m->backend, err) ||
        m->backend->ops->sync(m->backend, err) || vl_model_check(m, err))
        return -1;
    vl_packed_note(m->packed, m->pack_note, sizeof m->pack_note);
    m->inv_freq = vl_calloc((size_t)m->config.text.E / 2, sizeof(float));
    if (!m->inv_freq) return vl_fail(err, VL_E_NOMEM, "no memory");
    vl_rope_inv_freq(m->config.text.theta, m->config.text.E, m->inv_freq);
    snprintf(m->dtype, sizeof m->dtype, "%s", m->backend->dtype);
    return 0;
}

int vl_model_check(const vl_model *m, vl_err *err) {
    return vl_checkpoint_check(m->checkpoint, err) || vl_packed_check(m->packed, err) ? -1 : 0;
}

int vl_model_trace_ops(vl_model *m, vl_backend **trace, vl_err *err) {
    if (vl_ops_trace_wrap(trace, m->backend, err)) return -1;
    m->backend = *trace;
    return 0;
}

int vl_model_open(vl_model **out, const char *dir, const vl_model_params *params, vl_err *err) {
    static const vl_model_params DEFAULTS;
    *out = NULL;
    if (!dir && !(dir = vl_demo_dir()))
        return vl_fail(err, VL_E_IO, "the embedded demo model was not found; set VITREOUS_DEMO to its "
                       "folder or give a checkpoint with -m");
    vl_model *m = vl_calloc(1, sizeof *m);
    if (!m) return vl_fail(err, VL_E_NOMEM, "no memory for the model");
    if (!params) params = &DEFAULTS;
    if (snprintf(m->dir, sizeof m->dir, "%s", dir) >= (int)sizeof m->dir) {
        free(m);
        return vl_fail(err, VL_E_USAGE, "the model path is too long");
    }
    base_name(m->name, sizeof m->name, dir);
    if (open_parts(m, params, err)) {
        vl_model_free(m);
        return -1;
    }
    describe(m);
    *out = m;
    return 0;
}

void vl_model_free(vl_model *m) {
    if (!m) return;
    if (m->backend) {
        vl_weights_free(&m->weights, m->backend);
        m->backend->ops->close(m->backend);
    }
    vl_packed_free(m->packed);
    vl_checkpoint_free(m->checkpoint);
    vl_tokenizer_free(m->tokenizer);
    free(m->inv_freq);
    free(m);
}

const vl_model_info *vl_model_get_info(const vl_model *m) { return &m->info; }

int vl_tokenize(const vl_model *m, const char *text, size_t len, bool special, int32_t **ids, size_t *n,
                vl_err *err) {
    vl_ids v = {0};
    if (vl_tokenizer_encode(m->tokenizer, text, len, special, &v, err)) {
        free(v.v);
        return -1;
    }
    *ids = v.v;
    *n = v.n;
    return 0;
}

int vl_detokenize(const vl_model *m, const int32_t *ids, size_t n, bool skip_special, char **text,
                  size_t *len, vl_err *err) {
    size_t total = 0;
    for (size_t i = 0; i < n; i++) {
        size_t k = 0;
        if (ids[i] < 0 || ids[i] >= m->config.text.V)
            return vl_fail(err, VL_E_INPUT, "token id %d at position %zu is outside the vocabulary of %d",
                           ids[i], i, m->config.text.V);
        vl_tokenizer_piece(m->tokenizer, ids[i], &k); /* padding rows of the vocabulary have no text */
        if (!skip_special || !vl_tokenizer_is_special(m->tokenizer, ids[i])) total += k;
    }
    char *s = vl_calloc(total + 1, 1);
    if (!s) return vl_fail(err, VL_E_NOMEM, "no memory for %zu bytes of text", total);
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        size_t k = 0;
        const char *piece = vl_tokenizer_piece(m->tokenizer, ids[i], &k);
        if (!piece || (skip_special && vl_tokenizer_is_special(m->tokenizer, ids[i]))) continue;
        memcpy(s + at, piece, k);
        at += k;
    }
    *text = s;
    *len = at;
    return 0;
}

vl_sampling vl_sampling_greedy(int max_tokens) {
    return (vl_sampling){.max_tokens = max_tokens, .top_p = 1, .repetition_penalty = 1, .logprobs = -1,
                         .detect_repetition = true, .mirostat_tau = 5, .mirostat_eta = 0.1f};
}

vl_sampling vl_sampling_of_model(const vl_model *m, int max_tokens) {
    const vl_config *c = &m->config;
    vl_sampling s = vl_sampling_greedy(max_tokens);
    s.repetition_penalty = c->repetition_penalty;
    if (c->do_sample) {
        s.temperature = c->temperature;
        s.top_k = c->top_k;
        s.top_p = c->top_p;
        s.min_p = c->min_p;
    }
    return s;
}
