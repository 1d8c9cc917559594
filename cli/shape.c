/* shape.c: parameters, FLOP and bytes per stage (see shape.h for the formulas). Biases and norms
 * are left out: below 0.1 % of the 2B shape. */
#include "cli/shape.h"

#include <stdio.h>
#include <string.h>

#include "cli/random_shapes.h"

model_shape shape_of_config(const vl_config *c, const char *name) {
    const vl_text_config *t = &c->text;
    const vl_vision_config *v = &c->vision;
    model_shape s = {.patch = v->patch, .merge_size = v->merge};
    snprintf(s.name, sizeof s.name, "%s", name);
    double D = v->D, M = D * v->merge * v->merge; /* a merger joins merge^2 patches */
    double patch_width = (double)v->channels * v->temporal * v->patch * v->patch;
    s.vit = v->depth * (4 * D * D + 2 * D * v->F) + D * patch_width;
    s.merge = (1 + v->n_deepstack) * (M * M + M * v->out);
    s.position = (double)v->side * v->side * D;
    s.vit_pair = 4.0 * v->depth * D;
    double q = (double)t->H * t->E, kv = (double)t->G * t->E;
    s.decoder = (double)t->layers * t->D * (2 * q + 2 * kv + 3.0 * t->F);
    s.head = (double)t->V * t->D;
    s.embed = c->tied ? 0 : s.head;
    s.pair = 4.0 * t->layers * q;
    s.kv_values = 2.0 * t->layers * kv;
    return s;
}

int shape_named(const char *name, model_shape *out) {
    for (size_t i = 0; i < sizeof random_shapes / sizeof *random_shapes; i++) {
        const random_shape *r = &random_shapes[i];
        if (strcmp(name, r->name)) continue;
        vl_config c = {.tied = r->tied};
        c.text = (vl_text_config){.layers = r->layers, .D = r->D, .F = r->F, .V = 151936,
                                  .H = r->H, .G = r->G, .E = 128};
        c.vision = (vl_vision_config){.depth = r->depth, .D = r->vD, .F = r->vF, .channels = 3,
                                      .patch = 16, .temporal = 2, .merge = 2, .out = r->D,
                                      .side = 48, .n_deepstack = 3};
        *out = shape_of_config(&c, name);
        return 0;
    }
    return -1;
}

double shape_parameters(const model_shape *s) {
    return s->vit + s->merge + s->position + s->decoder + s->head + s->embed;
}

double shape_patches(const model_shape *s, double width, double height) {
    return width * height / ((double)s->patch * s->patch);
}

double shape_tokens(const model_shape *s, double patches) {
    return patches / ((double)s->merge_size * s->merge_size);
}

stage_work work_encode(const model_shape *s, double patches) {
    return (stage_work){
        .linear = 2 * patches * s->vit + 2 * shape_tokens(s, patches) * s->merge,
        .attention = s->vit_pair * patches * patches,
        .weights = s->vit + s->merge,
    };
}

stage_work work_prefill(const model_shape *s, double rows) {
    return (stage_work){
        .linear = 2 * rows * s->decoder + 2 * s->head,
        .attention = s->pair * rows * rows / 2,
        .weights = s->decoder + s->head,
    };
}

stage_work work_decode(const model_shape *s, double context, double batch) {
    return (stage_work){
        .linear = 2 * batch * (s->decoder + s->head),
        .attention = s->pair * batch * context,
        .weights = s->decoder + s->head,
        .kv = s->kv_values * batch * context,
    };
}
