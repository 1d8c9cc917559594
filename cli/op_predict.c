/* op_predict.c: a stage as the sum of its operations at the measured rates (see op_rates.h); the
 * lists of operations are those of model/vision.c and model/decoder.c. */
#include <math.h>

#include "cli/op_rates.h"

/* v at x, linear in log x between the points, flat outside them. */
static double between(double x, const int *at, const double *v, int n) {
    if (x <= at[0]) return v[0];
    for (int i = 1; i < n; i++)
        if (x <= at[i])
            return v[i - 1] + (v[i] - v[i - 1]) * log(x / at[i - 1]) /
                                  log((double)at[i] / at[i - 1]);
    return v[n - 1];
}

/* out [T, N] = x [T, K] W^T: what x costs by itself and what each column costs, through the two numbers of columns
 * that were measured. */
static double linear(const op_rates *r, double T, double K, double N) {
    double s[RATE_OUTS], at[RATE_ROWS];
    for (int n = 0; n < RATE_OUTS; n++) {
        for (int i = 0; i < RATE_ROWS; i++) at[i] = between(K, rate_widths, r->linear[i][n], RATE_WIDTHS);
        s[n] = 2 * T * K * rate_outs[n] / between(T, rate_rows, at, RATE_ROWS);
    }
    return fmax(s[0] + (s[1] - s[0]) * (N - rate_outs[0]) / (rate_outs[1] - rate_outs[0]), r->call);
}

double op_predict_encode(const op_rates *r, const vl_config *c, double P) {
    const vl_vision_config *v = &c->vision;
    static const int sizes[2] = {784, 3136};
    double D = v->D, F = v->F, M = D * v->merge * v->merge, Q = P / (v->merge * v->merge);
    double K = (double)v->channels * v->temporal * v->patch * v->patch;
    double block = 2 * P * D * r->layernorm + linear(r, P, D, 3 * D) + 2 * P * D * r->rope +
                   4 * P * P * D / between(P, sizes, r->attend_full, 2) + linear(r, P, D, D) +
                   linear(r, P, D, F) + P * F * r->gelu + linear(r, P, F, D);
    double merge = P * D * r->layernorm + linear(r, Q, M, M) + Q * M * r->gelu +
                   linear(r, Q, M, v->out);
    return linear(r, P, K, D) + v->depth * block + (1 + v->n_deepstack) * merge;
}

/* One pass of T rows through the layers, `attend` seconds of attention in each; then the head. */
static double pass(const op_rates *r, const vl_config *c, const num_mode *m, double T,
                   double attend) {
    const vl_text_config *t = &c->text;
    double D = t->D, F = t->F, q = (double)t->H * t->E, kv = (double)t->G * t->E;
    double norms = 2 * T * D * r->rmsnorm + T * (q + kv) * (r->rmsnorm + r->rope) + 3 * r->call;
    double layer = norms + linear(r, T, D, q) + 2 * linear(r, T, D, kv) + attend +
                   linear(r, T, q, D) + 2 * linear(r, T, D, F) + T * F * r->swiglu +
                   linear(r, T, F, D) + r->call;
    return t->layers * layer + linear(r, 1, D, t->V) * m->head_bits / m->bits;
}

double op_predict_prefill(const op_rates *r, const vl_config *c, const num_mode *m, double T) {
    static const int sizes[2] = {236, 1024};
    double flop = 2 * T * T * c->text.H * c->text.E;
    return pass(r, c, m, T, flop / between(T, sizes, r->attend_causal, 2));
}

double op_predict_step(const op_rates *r, const vl_config *c, const num_mode *m, double context) {
    static const int sizes[2] = {236, 1024};
    double flop = 4 * context * c->text.H * c->text.E;
    return pass(r, c, m, 1, flop / between(context, sizes, r->attend_step, 2));
}
