/* predict.h: seconds per stage from a model's shape and a machine's figures.
 *
 *   compute = linear / (peak e_linear) + attention / (peak e_attention)
 *   stage   = max(compute, bytes / (read e_decode))
 *   floor   = the same with every efficiency 1: what the hardware cannot undercut
 * Decode adds a fixed time per token. A batch of B requests served together:
 *   latency(B) = B (preprocess + encode + prefill) + sum over the steps of step(B)
 *   rate(B)    = B / latency(B)
 * so that each waits for the others' pictures and prompts and shares the stream of weights.
 */
#ifndef VL_PREDICT_H
#define VL_PREDICT_H

#include "cli/machines.h"
#include "cli/shape.h"

typedef struct num_mode {
    const char *name;
    double bits, head_bits, vision_bits; /* per weight, group scales included                  */
    peak_kind arithmetic;
    double kv_bytes;                     /* per number in the KV cache                         */
    bool on_cpu, on_gpu;                 /* this program can run it there; else it is only predicted */
} num_mode;
const num_mode *mode_find(const char *name); /* NULL: no such mode */
bool mode_built(const num_mode *m, const machine *mc);

typedef struct stage_times { double preprocess, encode, prefill, decode; } stage_times;
double times_total(const stage_times *t);
double times_first_token(const stage_times *t); /* preprocess + encode + prefill */

/* Bytes that a stage must read: its weights in this mode and its KV rows. */
double encode_bytes(const model_shape *s, const num_mode *m);
double decoder_bytes(const model_shape *s, const num_mode *m); /* one pass: decoder and head */
double memory_bytes(const model_shape *s, const num_mode *m, const workload *w, double batch);

typedef struct prompt_size { double patches, image_tokens, rows; } prompt_size;
prompt_size prompt_of(const model_shape *s, const workload *w);

/* The shares that hold for this mode on this machine. */
const efficiency *efficiency_of(const machine *mc, const num_mode *m);
/* The peak for this mode in FLOP/s, or NAN where the machine has no such units. */
double peak_flops(const machine *mc, const num_mode *m);
double predict_encode(const machine *mc, const num_mode *m, const model_shape *s, double patches);
double predict_prefill(const machine *mc, const num_mode *m, const model_shape *s, double rows);
double predict_step(const machine *mc, const num_mode *m, const model_shape *s, double context,
                    double batch);
stage_times predict(const machine *mc, const num_mode *m, const model_shape *s, const workload *w,
                    double batch); /* encode and prefill of one request, decode of the batch */

#endif
