/* bench.h: what the parts of `vitreous bench` share. A run is one JSON object (bench_json.c names
 * its keys); tables, pages and comparisons are made from it, so a saved file serves as well as a
 * fresh run.
 *
 *   {"kind": "vitreous bench", "date", "machine": {...}, "model": {...},
 *    "peaks": {"read_gbs", "fp32_gflops", "bf16_gflops", "int8_gops"},   best of the run
 *    "stages": [{"stage", "case", "mode", "threads", "width", "height", "size", "batch", "n",
 *                "median_s", "low_s", "high_s", "mean_s", "best_s", "p90_s", "p95_s", "p99_s",
 *                "gflops", "gbs", "roof_percent", "samples": [...]}],
 *    "tips": [{"tip", "metric", "a", "a_s", "b", "b_s", "change_percent", "p", "verdict"}]}
 *
 * size: pixels (preprocess), patches (encode), rows (prefill, decode: of context), bytes (open).
 */
#ifndef VL_BENCH_H
#define VL_BENCH_H

#include "cli/cli.h"
#include "cli/doc.h"
#include "cli/predict.h"
#include "cli/stats.h"

enum { BENCH_SAMPLES = 8192 };
typedef struct bench_samples { double v[BENCH_SAMPLES]; size_t n; } bench_samples;

typedef struct bench_case {
    char name[24];                    /* "448x448", "text", "batch 4"                          */
    int width, height;                /* 0: text only                                          */
    int text_tokens;                  /* question and template                                 */
    int tokens, rounds;
    bool first;                       /* also count what a first request pays: no warm-up      */
} bench_case;

/* What one case measured. preprocess .. total have one sample a round, step one a token. */
typedef struct bench_result {
    bench_samples preprocess, encode, prefill, step, first_token, total;
    double patches, rows;
    double drafted, accepted, passes; /* tokens looked ahead; right; decode passes             */
    double cpu_percent, joules;       /* of the case; joules negative: not readable            */
} bench_result;

typedef struct bench {
    cli_common common;
    vl_picture_params picture;
    const char *image;                /* a file instead of noise, or NULL                      */
    vl_model *m;
    int64_t speculate;                /* as in vl_session_params                               */
    bool cold;                        /* no request has run since the model was opened         */
    model_shape shape;
    const num_mode *mode;
    json_t *root, *stages, *tips;
    bench_samples read, fp32, bf16, int8; /* one of each a round                               */
    bench_result last;
} bench;

/* ---- measuring (bench_run.c): 0 or the exit code after the message ------------------------------
 */
int bench_open(bench *b, int64_t threads);           /* (re)opens the model                      */
int bench_run_case(bench *b, const bench_case *c, const vl_session_params *session);
/* Steps of `batch` answers to one text question together. */
int bench_run_batch(bench *b, const bench_case *c, int batch);
/* The case's picture (NULL: text only) and a prompt of exactly its length. */
int bench_inputs(const bench *b, const bench_case *c, vl_picture **picture, vl_prompt **prompt,
                 vl_err *err);
void bench_add(bench_samples *s, double v);
void bench_peaks(bench *b);                          /* one more sample of every peak             */

/* ---- rows (bench_json.c) --------------------------------------------------------------------- */
int bench_begin(bench *b);
/* The stages of the last case as rows; `suffix` tells variants apart ("", ", 1 thread"). */
void bench_add_case(bench *b, const bench_case *c, const char *suffix);
void bench_add_row(bench *b, const char *stage, const char *name, double size, int batch,
                   double flop, double bytes, const bench_samples *s);
void bench_add_tip(bench *b, const char *tip, const char *metric, const char *a,
                   const bench_samples *sa, const char *label_b, const bench_samples *sb);
void bench_finish(bench *b); /* peaks, memory, the rows' shares of the roof */

/* ---- A/B rows (bench_tips.c) ----------------------------------------------------------------- */
int bench_run_tips(bench *b, const bench_case *base);

/* ---- showing (bench_show.c) ------------------------------------------------------------------ */
void bench_show(const json_t *root, doc *d);
int bench_compare(const char *path_a, const char *path_b, doc *d, vl_err *err);

#endif
