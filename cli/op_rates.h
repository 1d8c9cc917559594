/* op_rates.h: how fast this machine runs single operations of the op table, and what a stage of any
 * model takes at those rates.
 *
 * The rates are measured on fixed shapes (op_rates.c lists them) that have nothing to do with the
 * model that is benched, each weight matrix streamed from memory as in a real pass. A stage is then
 * the sum over its operations (op_predict.c), so depth, width, head size and feed-forward width act
 * as they do in the model: nothing is fitted to a stage's time.
 */
#ifndef VL_OP_RATES_H
#define VL_OP_RATES_H

#include <jansson.h>

#include "cli/predict.h"
#include "model/config.h"

enum { RATE_WIDTHS = 3, RATE_ROWS = 3, RATE_OUTS = 2 };
typedef struct op_rates {
    double linear[RATE_ROWS][RATE_OUTS][RATE_WIDTHS]; /* FLOP/s: T, N, K of the tables below    */
    double attend_full[2], attend_causal[2], attend_step[2]; /* FLOP/s, at the two sizes        */
    double layernorm, rmsnorm, rope, swiglu, gelu;           /* seconds per element             */
    double call;                           /* seconds of an operation that does nothing         */
} op_rates;
extern const int rate_rows[RATE_ROWS], rate_outs[RATE_OUTS], rate_widths[RATE_WIDTHS];

/* The operations of the CPU backend in this mode, with weights beyond the caches (1.5 GB or so in all). A pass times each for a tenth of a second (five seconds in all with vectors), so that passes can stand between the requests that
 * they predict; the rates are the means of all passes, of which there must be one. */
typedef struct op_lab op_lab;
int op_lab_open(op_lab **out, const num_mode *m, int threads, vl_err *err);
void op_lab_pass(op_lab *l);
void op_lab_rates(const op_lab *l, op_rates *r);
void op_lab_close(op_lab *l);
/* The rates as rows {"mode", "op", "shape", "rate", "unit", "peak_percent"}; a peak of 0: none. */
json_t *op_rates_json(const op_rates *r, const num_mode *m, double peak_gflops, double read_gbs);

/* Seconds: patches of one picture, rows of one prompt, one token after `context` rows. */
double op_predict_encode(const op_rates *r, const vl_config *c, double patches);
double op_predict_prefill(const op_rates *r, const vl_config *c, const num_mode *m, double rows);
double op_predict_step(const op_rates *r, const vl_config *c, const num_mode *m, double context);

#endif
