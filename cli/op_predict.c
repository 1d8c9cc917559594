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

/* out [T, N] = x [T, K] W^T */
static double linear(const op_rates *r, const num_mode *m, double T, double K, double N) {
    if (T <= 1)
        return K * N * m->bits / 8 / between(K, rate_widths, r->stream, RATE_WIDTHS) + r->call;
    double at[RATE_ROWS];
    for (int i = 0; i < RATE_ROWS; i++)
        at[i] = between(K, rate_widths, r->linear[i], RATE_WIDTHS);
    return 2 * T * K * N / between(T, rate_rows, at, RATE_ROWS) + r->call;
}

double op_predict_encode(const op_rates *r, const vl_config *c, const num_mode *m, double P) {
    const vl_vision_config *v = &c->vision;
    static const int sizes[2] = {784, 3136};
    double D = v->D, F = v->F, M = D * v->merge * v->merge, Q = P / (v->merge * v->merge);
    double K = (double)v->channels * v->temporal * v->patch * v->patch;
    double block = 2 * P * D * r->layernorm + linear(r, m, P, D, 3 * D) + 2 * P * D * r->rope +
                   4 * P * P * D / between(P, sizes, r->attend_full, 2) + linear(r, m, P, D, D) +
                   linear(r, m, P, D, F) + P * F * r->gelu + linear(r, m, P, F, D);
    double merge = P * D * r->layernorm + linear(r, m, Q, M, M) + Q * M * r->gelu +
                   linear(r, m, Q, M, v->out);
    return linear(r, m, P, K, D) + v->depth * block + (1 + v->n_deepstack) * merge;
}

/* One pass of T rows through the layers, `attend` seconds of attention in each; then the head. */
static double pass(const op_rates *r, const vl_config *c, const num_mode *m, double T,
                   double attend) {
    const vl_text_config *t = &c->text;
    double D = t->D, F = t->F, q = (double)t->H * t->E, kv = (double)t->G * t->E;
    double norms = 2 * T * D * r->rmsnorm + T * (q + kv) * (r->rmsnorm + r->rope) + 3 * r->call;
    double layer = norms + linear(r, m, T, D, q) + 2 * linear(r, m, T, D, kv) + attend +
                   linear(r, m, T, q, D) + 2 * linear(r, m, T, D, F) + T * F * r->swiglu +
                   linear(r, m, T, F, D) + r->call;
    num_mode head = *m;
    head.bits = m->head_bits;
    return t->layers * layer + linear(r, &head, 1, D, t->V);
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
