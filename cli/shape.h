/* shape.h: how much arithmetic and memory traffic each stage of a model needs, from config.json.
 *
 *   encode   2 N vit + 2 (N/4) merge + 4 depth D N^2       N patches; the last term is attention
 *   prefill  2 T decoder + 4 layers H E T^2/2 + 2 head     T rows; the head sees only the last
 *   decode   2 (decoder + head) + 4 layers H E T           per token, T rows of context
 *   bytes    decoder and head once per token, plus the KV rows that are read
 * One multiply-add counts as two FLOP. Units here: parameters, FLOP, bytes.
 */
#ifndef VL_SHAPE_H
#define VL_SHAPE_H

#include "model/config.h"

typedef struct model_shape {
    char name[64];
    double vit;           /* parameters applied to every patch: blocks and patch embedding     */
    double merge;         /* parameters applied to every image token: merger, DeepStack mergers */
    double position;      /* position table: read, not multiplied                              */
    double vit_pair;      /* attention FLOP per pair of patches: 4 depth D                     */
    double decoder, head; /* parameters of the layers, of the output projection                */
    double embed;         /* embedding parameters that are not also the head                   */
    double pair;          /* decoder attention FLOP per query-key pair: 4 layers H E           */
    double kv_values;     /* numbers that one row adds to the KV cache: 2 layers G E           */
    int patch, merge_size;/* pixels per patch side, patches per token side                     */
} model_shape;

/* Stages that are bound by different parts of the machine, kept apart. */
typedef struct stage_work {
    double linear;    /* FLOP in matrix products                                               */
    double attention; /* FLOP in attention                                                     */
    double weights;   /* parameters read at least once                                         */
    double kv;        /* KV numbers read                                                       */
} stage_work;

model_shape shape_of_config(const vl_config *c, const char *name);
/* "2b", "4b", "8b", "32b": the published sizes. -1 if there is no such name. */
int shape_named(const char *name, model_shape *out);
double shape_parameters(const model_shape *s);
/* Patches and image tokens of a picture whose sides are multiples of patch * merge_size. */
double shape_patches(const model_shape *s, double width, double height);
double shape_tokens(const model_shape *s, double patches);

stage_work work_encode(const model_shape *s, double patches);
stage_work work_prefill(const model_shape *s, double rows);
/* One decode step of `batch` requests, each with `context` rows behind it. */
stage_work work_decode(const model_shape *s, double context, double batch);
static inline double work_flop(const stage_work *w) { return w->linear + w->attention; }

#endif
