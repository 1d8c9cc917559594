/* bench_json.c: measured samples as the rows of a run (keys in bench.h). */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "cli/bench.h"
#include "cli/host.h"

static json_t *real(double v) { return isfinite(v) ? json_real(v) : json_null(); }

int bench_begin(bench *b) {
    char date[16];
    host_date(date);
    b->stages = json_array();
    b->tips = json_array();
    b->root = json_pack("{s:s,s:s,s:o,s:o,s:o,s:[]}", "kind", "vitreous bench", "date", date,
                        "machine", host_describe(), "stages", b->stages, "tips", b->tips,
                        "workload");
    return b->root ? 0 : CLI_BAD;
}

/* The figures of a row that follow from its samples, "flop" and "bytes". */
void bench_row_summary(json_t *row) {
    static double v[BENCH_SAMPLES];
    const json_t *samples = json_object_get(row, "samples");
    double flop = json_number_value(json_object_get(row, "flop"));
    double bytes = json_number_value(json_object_get(row, "bytes"));
    size_t n = 0;
    for (; n < json_array_size(samples) && n < BENCH_SAMPLES; n++)
        v[n] = json_number_value(json_array_get(samples, n));
    stats t = stats_of(v, n);
    const struct { const char *key; double v; } numbers[] = {
        {"median_s", t.p50}, {"low_s", t.low}, {"high_s", t.high}, {"mean_s", t.mean},
        {"best_s", t.best},  {"p90_s", t.p90}, {"p95_s", t.p95},   {"p99_s", t.p99},
        {"gflops", flop > 0 ? flop / t.p50 / 1e9 : NAN},
        {"gbs", bytes > 0 ? bytes / t.p50 / 1e9 : NAN}};
    json_object_set_new(row, "n", json_integer((json_int_t)t.n));
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        json_object_set_new(row, numbers[i].key, real(numbers[i].v));
}

void bench_add_row(bench *b, const char *stage, const char *name, double size, int batch,
                   double flop, double bytes, const bench_samples *s) {
    if (!s->n) return;
    json_t *samples = json_array(), *o = json_object();
    for (size_t i = 0; i < s->n; i++) json_array_append_new(samples, json_real(s->v[i]));
    json_object_set_new(o, "stage", json_string(stage));
    json_object_set_new(o, "case", json_string(name));
    json_object_set_new(o, "mode", json_string(b->mode->name));
    json_object_set_new(o, "threads", json_integer(vl_model_get_info(b->m)->threads));
    json_object_set_new(o, "batch", json_integer(batch));
    json_object_set_new(o, "size", real(size));
    if (flop > 0) json_object_set_new(o, "flop", json_real(flop));
    if (bytes > 0) json_object_set_new(o, "bytes", json_real(bytes));
    json_object_set_new(o, "samples", samples);
    bench_row_summary(o);
    json_array_append_new(b->stages, o);
}

static double median_of(const bench_samples *s) {
    static double v[BENCH_SAMPLES];
    memcpy(v, s->v, s->n * sizeof *v);
    return stats_of(v, s->n).p50;
}

static void set_last(bench *b, const char *key, double v) {
    json_object_set_new(json_array_get(b->stages, json_array_size(b->stages) - 1), key, real(v));
}

/* What was asked: sizes to tokens, and a digest that tells two pictures apart. */
static void add_workload(bench *b, const bench_case *c) {
    const bench_result *r = &b->last;
    json_t *list = json_object_get(b->root, "workload"), *o;
    size_t i;
    char hex[2 * sizeof r->digest + 1] = "";
    json_array_foreach(list, i, o)
        if (!strcmp(json_string_value(json_object_get(o, "case")), c->name)) return;
    for (size_t k = 0; c->width && k < sizeof r->digest; k++)
        snprintf(hex + 2 * k, 3, "%02x", r->digest[k]);
    json_array_append_new(
        list, json_pack("{s:s,s:i,s:i,s:f,s:f,s:f,s:i,s:s}", "case", c->name, "width", c->width,
                        "height", c->height, "patches", r->patches, "image_tokens",
                        r->image_tokens, "prompt_tokens", r->rows, "output_tokens", c->tokens,
                        "picture_sha256", hex));
}

void bench_add_case(bench *b, const bench_case *c, const char *suffix) {
    const bench_result *r = &b->last;
    const model_shape *s = &b->shape;
    char name[64];
    snprintf(name, sizeof name, "%s%s", c->name, suffix);
    add_workload(b, c);
    stage_work e = work_encode(s, r->patches), f = work_prefill(s, r->rows),
               g = work_decode(s, r->rows, 1);
    double pass = decoder_bytes(s, b->mode), kv = g.kv * b->mode->kv_bytes;
    double tokens = r->passes + r->accepted; /* with drafts a pass makes more than one token */
    double reads = tokens > 0 ? r->passes / tokens : 1,
           rows = tokens > 0 ? (r->passes + r->drafted) / tokens : 1;
    bench_add_row(b, "image decode", name, (double)c->width * c->height, 1, 0, 0,
                  &r->decode_image);
    bench_add_row(b, "resize", name, (double)c->width * c->height, 1, 0, 0, &r->resize);
    bench_add_row(b, "preprocess", name, (double)c->width * c->height, 1, 0, 0, &r->preprocess);
    bench_add_row(b, "encode", name, r->patches, 1, work_flop(&e), encode_bytes(s, b->mode),
                  &r->encode);
    bench_add_row(b, "prefill", name, r->rows, 1, work_flop(&f), pass, &r->prefill);
    bench_add_row(b, "decode", name, r->rows, 1, rows * work_flop(&g), reads * (pass + kv),
                  &r->step);
    set_last(b, "steps", c->tokens);
    if (r->beside.n) set_last(b, "read_gbs", median_of(&r->beside));
    if (b->speculate && r->passes > 0) {
        set_last(b, "draft_tokens", r->drafted);
        set_last(b, "accepted_tokens", r->accepted);
        set_last(b, "tokens_per_pass", (r->passes + r->accepted) / r->passes);
    }
    bench_add_row(b, "first token", name, r->rows, 1, 0, 0, &r->first_token);
    bench_add_row(b, "whole answer", name, c->tokens, 1, 0, 0, &r->total);
    set_last(b, "cpu_percent", r->cpu_percent);
    set_last(b, "joules", r->joules >= 0 ? r->joules / (double)r->total.n : NAN);
}

void bench_add_batch(bench *b, int batch) {
    stage_work g = work_decode(&b->shape, b->last.rows, batch);
    char name[24];
    snprintf(name, sizeof name, "batch %d", batch);
    bench_add_row(b, "decode", name, b->last.rows, batch, work_flop(&g),
                  decoder_bytes(&b->shape, b->mode) + g.kv * b->mode->kv_bytes, &b->last.step);
}

void bench_add_tip(json_t *tips, const char *tip, const char *metric, const char *a,
                   const bench_samples *sa, const char *label_b, const bench_samples *sb) {
    static double va[BENCH_SAMPLES], vb[BENCH_SAMPLES];
    if (!sa->n || !sb->n) return;
    memcpy(va, sa->v, sa->n * sizeof *va);
    memcpy(vb, sb->v, sb->n * sizeof *vb);
    double p = stats_permutation(va, sa->n, vb, sb->n);
    stats x = stats_of(va, sa->n), y = stats_of(vb, sb->n);
    double change = 100 * (y.p50 / x.p50 - 1);
    const char *verdict = sa->n < STATS_LEAST || sb->n < STATS_LEAST ? "too few samples for a verdict"
                          : p >= 0.05           ? "no significant difference"
                          : change < 0          ? "faster"
                                                : "slower";
    json_array_append_new(
        tips, json_pack("{s:s,s:s,s:s,s:f,s:s,s:f,s:f,s:f,s:i,s:i,s:s,s:f,s:f}", "tip", tip, "metric",
                           metric, "a", a, "a_s", x.p50, "b", label_b, "b_s", y.p50,
                           "change_percent", change, "p", p, "n_a", (int)sa->n, "n_b", (int)sb->n,
                        "verdict", verdict, "a_p99_s", x.p99, "b_p99_s", y.p99));
}

/* A row that could not be measured here says so. */
void bench_no_tip(json_t *tips, const char *tip, const char *why) {
    json_array_append_new(tips, json_pack("{s:s,s:s}", "tip", tip, "verdict", why));
}

static double best_of(const bench_samples *s) {
    double best = 0;
    for (size_t i = 0; i < s->n; i++)
        if (s->v[i] > best) best = s->v[i];
    return best;
}

/* Each row beside the nearer of its roofs: the arithmetic that its mode uses, or the read rate. */
void bench_shares(json_t *root) {
    static const char *const keys[PEAKS] = {"exact_gflops", "bf16_gflops", "fp16_gflops",
                                            "int8_gops"};
    const json_t *peaks = json_object_get(root, "peaks");
    double read = json_number_value(json_object_get(peaks, "read_gbs"));
    size_t i;
    json_t *o;
    json_array_foreach(json_object_get(root, "stages"), i, o) {
        const num_mode *m = mode_find(json_string_value(json_object_get(o, "mode")));
        double flops = json_number_value(json_object_get(peaks, m ? keys[m->arithmetic] : ""));
        double gflops = json_number_value(json_object_get(o, "gflops"));
        double gbs = json_number_value(json_object_get(o, "gbs"));
        double beside = json_number_value(json_object_get(o, "read_gbs"));
        if (!(gflops > 0) || !(gbs > 0) || !(flops > 0) || !(read > 0)) continue;
        double a = 100 * gflops / flops, r = 100 * gbs / (beside > 0 ? beside : read);
        json_object_set_new(o, "roof_percent", json_real(a > r ? a : r));
        json_object_set_new(o, "roof", json_string(a > r ? "arithmetic" : "read"));
    }
}

void bench_finish(bench *b) {
    const vl_model_info *info = vl_model_get_info(b->m);
    char *hash = host_model_fingerprint(info->dir);
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    double read = best_of(&b->read),
           peak[] = {best_of(&b->fp32), best_of(&b->bf16), best_of(&b->int8)};
    json_t *peaks = json_object();
    const struct { const char *key; double v; } rows[] = {
        {"read_gbs", read},       {"read_gbs_median", median_of(&b->read)},
        {"fp32_gflops", peak[0]}, {"fp32_gflops_median", median_of(&b->fp32)},
        {"exact_gflops", best_of(&b->exact)}, {"bf16_gflops", peak[1]}, {"int8_gops", peak[2]}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].v > 0) json_object_set_new(peaks, rows[i].key, json_real(rows[i].v));
    json_object_set_new(b->root, "peaks", peaks);
    json_object_set_new(b->root, "peak_rss_gib", json_real((double)u.ru_maxrss / 1048576));
    json_object_set_new(
        b->root, "model",
        json_pack("{s:s,s:s,s:s,s:i,s:f,s:f,s:s}", "name", info->name, "backend", info->backend,
                  "dtype", info->dtype, "threads", info->threads, "parameters",
                  (double)info->parameters, "weight_bytes", (double)info->weight_bytes,
                  "fingerprint", hash ? hash : "unknown"));
    free(hash);
    bench_shares(b->root);
}

void bench_hash_weights(json_t *root, const char *dir) {
    char *hex = host_weights_sha256(dir);
    if (hex)
        json_object_set_new(json_object_get(root, "model"), "weights_sha256", json_string(hex));
    free(hex);
}

/* ---- the predictor beside the measurement ---------------------------------------------------- */

static double predicted_of(const bench *b, const op_rates *r, const json_t *row) {
    const char *stage = json_string_value(json_object_get(row, "stage"));
    double size = json_number_value(json_object_get(row, "size"));
    if (json_integer_value(json_object_get(row, "batch")) != 1 ||
        json_object_get(row, "tokens_per_pass")) return NAN;
    if (!strcmp(stage, "encode")) return op_predict_encode(r, &b->config, size);
    if (!strcmp(stage, "prefill")) return op_predict_prefill(r, &b->config, b->mode, size);
    if (!strcmp(stage, "decode"))
        return op_predict_step(r, &b->config, b->mode,
                               size + json_number_value(json_object_get(row, "steps")) / 2);
    return NAN;
}

int bench_predict(bench *b, double *worst) {
    op_rates r;
    json_t *list = json_array(), *o;
    size_t i;
    int threads = vl_model_get_info(b->m)->threads;
    *worst = 0;
    op_lab_rates(b->lab, &r);
    json_array_foreach(b->stages, i, o) {
        double p = predicted_of(b, &r, o), m = json_number_value(json_object_get(o, "mean_s"));
        if (isnan(p) || strcmp(json_string_value(json_object_get(o, "mode")), b->mode->name) ||
            json_integer_value(json_object_get(o, "threads")) != threads)
            continue;
        double error = 100 * (p / m - 1);
        if (fabs(error) > *worst) *worst = fabs(error);
        json_array_append_new(
            list, json_pack("{s:s,s:O,s:O,s:O,s:O,s:f,s:f,s:f}", "model",
                            vl_model_get_info(b->m)->name, "stage", json_object_get(o, "stage"),
                            "case", json_object_get(o, "case"), "mode", json_object_get(o, "mode"),
                            "size", json_object_get(o, "size"), "measured_s", m, "predicted_s", p,
                            "error_percent", error));
    }
    const bench_samples *peak[] = {&b->exact, &b->bf16, &b->bf16, &b->int8};
    json_object_set_new(b->root, "rates",
                        op_rates_json(&r, b->mode, best_of(peak[b->mode->arithmetic]),
                                      median_of(&b->read)));
    json_object_set_new(b->root, "predictor", list);
    return 0;
}
