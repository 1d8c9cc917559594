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
    b->root = json_pack("{s:s,s:s,s:o,s:o,s:o}", "kind", "vitreous bench", "date", date, "machine",
                        host_describe(), "stages", b->stages, "tips", b->tips);
    return b->root ? 0 : CLI_BAD;
}

void bench_add_row(bench *b, const char *stage, const char *name, double size, int batch,
                   double flop, double bytes, const bench_samples *s) {
    static double sorted[BENCH_SAMPLES];
    if (!s->n) return;
    json_t *samples = json_array(), *o = json_object();
    for (size_t i = 0; i < s->n; i++) json_array_append_new(samples, json_real(s->v[i]));
    memcpy(sorted, s->v, s->n * sizeof *sorted);
    stats t = stats_of(sorted, s->n);
    const struct { const char *key; double v; } numbers[] = {
        {"size", size},       {"median_s", t.p50},  {"low_s", t.low},  {"high_s", t.high},
        {"mean_s", t.mean},   {"best_s", t.best},   {"p90_s", t.p90},  {"p95_s", t.p95},
        {"p99_s", t.p99},     {"gflops", flop > 0 ? flop / t.p50 / 1e9 : NAN},
        {"gbs", bytes > 0 ? bytes / t.p50 / 1e9 : NAN}};
    json_object_set_new(o, "stage", json_string(stage));
    json_object_set_new(o, "case", json_string(name));
    json_object_set_new(o, "mode", json_string(b->mode->name));
    json_object_set_new(o, "threads", json_integer(vl_model_get_info(b->m)->threads));
    json_object_set_new(o, "batch", json_integer(batch));
    json_object_set_new(o, "n", json_integer((json_int_t)t.n));
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        json_object_set_new(o, numbers[i].key, real(numbers[i].v));
    json_object_set_new(o, "samples", samples);
    json_array_append_new(b->stages, o);
}

static void set_last(bench *b, const char *key, double v) {
    json_object_set_new(json_array_get(b->stages, json_array_size(b->stages) - 1), key, real(v));
}

void bench_add_case(bench *b, const bench_case *c, const char *suffix) {
    const bench_result *r = &b->last;
    const model_shape *s = &b->shape;
    char name[64];
    snprintf(name, sizeof name, "%s%s", c->name, suffix);
    stage_work e = work_encode(s, r->patches), f = work_prefill(s, r->rows),
               g = work_decode(s, r->rows, 1);
    double pass = decoder_bytes(s, b->mode), kv = g.kv * b->mode->kv_bytes;
    double tokens = r->passes + r->accepted; /* with drafts a pass makes more than one token */
    double reads = tokens > 0 ? r->passes / tokens : 1, rows = tokens > 0 ? (r->passes + r->drafted) / tokens : 1;
    bench_add_row(b, "preprocess", name, (double)c->width * c->height, 1, 0, 0, &r->preprocess);
    bench_add_row(b, "encode", name, r->patches, 1, work_flop(&e), encode_bytes(s, b->mode),
                  &r->encode);
    bench_add_row(b, "prefill", name, r->rows, 1, work_flop(&f), pass, &r->prefill);
    bench_add_row(b, "decode", name, r->rows, 1, rows * work_flop(&g), reads * (pass + kv),
                  &r->step);
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

void bench_add_tip(bench *b, const char *tip, const char *metric, const char *a,
                   const bench_samples *sa, const char *label_b, const bench_samples *sb) {
    static double va[BENCH_SAMPLES], vb[BENCH_SAMPLES];
    if (!sa->n || !sb->n) return;
    memcpy(va, sa->v, sa->n * sizeof *va);
    memcpy(vb, sb->v, sb->n * sizeof *vb);
    double p = stats_permutation(va, sa->n, vb, sb->n);
    stats x = stats_of(va, sa->n), y = stats_of(vb, sb->n);
    double change = 100 * (y.p50 / x.p50 - 1);
    const char *verdict = sa->n < 3 || sb->n < 3 ? "too few samples for a verdict"
                          : p >= 0.05           ? "no significant difference"
                          : change < 0          ? "faster"
                                                : "slower";
    json_array_append_new(
        b->tips, json_pack("{s:s,s:s,s:s,s:f,s:s,s:f,s:f,s:f,s:i,s:i,s:s}", "tip", tip, "metric",
                           metric, "a", a, "a_s", x.p50, "b", label_b, "b_s", y.p50,
                           "change_percent", change, "p", p, "n_a", (int)sa->n, "n_b", (int)sb->n,
                           "verdict", verdict));
}

static double best_of(const bench_samples *s) {
    double best = 0;
    for (size_t i = 0; i < s->n; i++)
        if (s->v[i] > best) best = s->v[i];
    return best;
}

static double median_of(const bench_samples *s) {
    static double v[BENCH_SAMPLES];
    memcpy(v, s->v, s->n * sizeof *v);
    return stats_of(v, s->n).p50;
}

/* Decode stands beside the read rate, the rest beside the arithmetic that its mode uses. */
static void shares(bench *b, double read, double flops) {
    size_t i;
    json_t *o;
    json_array_foreach(b->stages, i, o) {
        double gflops = json_number_value(json_object_get(o, "gflops"));
        double gbs = json_number_value(json_object_get(o, "gbs"));
        if (!(gflops > 0) || !(gbs > 0) || !(flops > 0) || !(read > 0)) continue;
        double a = 100 * gflops / flops, m = 100 * gbs / read;
        json_object_set_new(o, "roof_percent", json_real(a > m ? a : m));
        json_object_set_new(o, "roof", json_string(a > m ? "arithmetic" : "read"));
    }
}

void bench_finish(bench *b) {
    const vl_model_info *info = vl_model_get_info(b->m);
    char *hash = host_model_fingerprint(info->dir);
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    double read = best_of(&b->read),
           peak[] = {best_of(&b->fp32), best_of(&b->bf16), best_of(&b->int8)};
    double flops = b->mode->arithmetic == PEAK_FP32 ? peak[0]
                   : b->mode->arithmetic == PEAK_INT8 ? peak[2] : peak[1];
    json_t *peaks = json_object();
    const struct { const char *key; double v; } rows[] = {
        {"read_gbs", read},       {"read_gbs_median", median_of(&b->read)},
        {"fp32_gflops", peak[0]}, {"fp32_gflops_median", median_of(&b->fp32)},
        {"bf16_gflops", peak[1]}, {"int8_gops", peak[2]}};
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
    shares(b, read, flops);
}
