/* predict.c: the formulas of predict.h. */
#include "cli/predict.h"

#include <math.h>
#include <string.h>

/* Groups of 32 weights with a 16-bit scale cost half a bit each. */
static const num_mode modes[] = {
    {"fp32", 32, 32, 32, PEAK_FP32, 4, true, true},
    {"exact", 16, 16, 16, PEAK_FP32, 4, true, true},
    {"bf16", 16, 16, 16, PEAK_BF16, 2, true, true},
    {"fp16", 16, 16, 16, PEAK_FP16, 2, true, true},
    {"int8", 8.5, 8.5, 8.5, PEAK_INT8, 2, true, false},
    {"int4", 4.5, 8.5, 8.5, PEAK_INT8, 2, true, false},
};
static const double RUNTIME_BYTES = 0.3 * 1073741824.0; /* program, activations, system share */

const num_mode *mode_find(const char *name) {
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
        if (!strcmp(modes[i].name, name)) return &modes[i];
    return NULL;
}

bool mode_built(const num_mode *m, const machine *mc) {
    return strcmp(mc->kind, "gpu") ? m->on_cpu : m->on_gpu;
}

double times_first_token(const stage_times *t) { return t->preprocess + t->encode + t->prefill; }
double times_total(const stage_times *t) { return times_first_token(t) + t->decode; }

double encode_bytes(const model_shape *s, const num_mode *m) {
    return (s->vit + s->merge) * m->vision_bits / 8;
}

double decoder_bytes(const model_shape *s, const num_mode *m) {
    return (s->decoder * m->bits + s->head * m->head_bits) / 8;
}

prompt_size prompt_of(const model_shape *s, const workload *w) {
    prompt_size p = {.patches = shape_patches(s, w->width, w->height)};
    p.image_tokens = shape_tokens(s, p.patches);
    p.rows = p.image_tokens + w->text_tokens;
    return p;
}

double memory_bytes(const model_shape *s, const num_mode *m, const workload *w, double batch) {
    double rows = prompt_of(s, w).rows + w->output_tokens;
    double full_head = m->bits < 16 ? s->head * 2 : 0; /* decides what the narrow one leaves open */
    return encode_bytes(s, m) + decoder_bytes(s, m) + full_head + s->position * 4 + s->embed * 2 +
           batch * rows * s->kv_values * m->kv_bytes + RUNTIME_BYTES;
}

double peak_flops(const machine *mc, const num_mode *m) { return mc->peak[m->arithmetic].v * 1e9; }

const efficiency *efficiency_of(const machine *mc, const num_mode *m) {
    for (int i = 0; mc->by_mode && i < mc->n_modes; i++)
        if (!strcmp(mc->modes[i], m->name)) return &mc->mode_e[i];
    return &mc->e;
}

static double bound(const machine *mc, const num_mode *m, const stage_work *w, double share,
                    double bytes) {
    const efficiency *e = efficiency_of(mc, m);
    double peak = peak_flops(mc, m);
    double compute = w->linear / (peak * share) + w->attention / (peak * e->attention.v);
    double memory = bytes / (mc->read_gbs.v * 1e9 * e->decode.v);
    return isnan(compute) || compute > memory ? compute : memory;
}

double predict_encode(const machine *mc, const num_mode *m, const model_shape *s, double patches) {
    if (!(patches > 0)) return 0;
    stage_work w = work_encode(s, patches);
    return bound(mc, m, &w, efficiency_of(mc, m)->encode.v, encode_bytes(s, m));
}

double predict_prefill(const machine *mc, const num_mode *m, const model_shape *s, double rows) {
    stage_work w = work_prefill(s, rows);
    return bound(mc, m, &w, efficiency_of(mc, m)->prefill.v, decoder_bytes(s, m));
}

double predict_step(const machine *mc, const num_mode *m, const model_shape *s, double context,
                    double batch) {
    stage_work w = work_decode(s, context, batch);
    return bound(mc, m, &w, efficiency_of(mc, m)->prefill.v, decoder_bytes(s, m) + w.kv * m->kv_bytes) +
           efficiency_of(mc, m)->token_overhead_s.v;
}

stage_times predict(const machine *mc, const num_mode *m, const model_shape *s, const workload *w,
                    double batch) {
    prompt_size p = prompt_of(s, w);
    stage_times t = {
        .preprocess = w->width * w->height / 1e6 * efficiency_of(mc, m)->preprocess_s_per_mp.v,
        .encode = predict_encode(mc, m, s, p.patches),
        .prefill = predict_prefill(mc, m, s, p.rows),
    };
    for (double i = 1; i < w->output_tokens; i++) /* the first token comes from the prefill */
        t.decode += predict_step(mc, m, s, p.rows + i, batch);
    return t;
}
