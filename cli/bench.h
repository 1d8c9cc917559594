/* bench.h: what the parts of `vitreous bench` share. A run is one JSON object (bench_json.c names
 * its keys); tables, pages and comparisons are made from it, so a saved file serves as well as a
 * fresh run.
 *
 *   {"kind": "vitreous bench", "date", "machine": {...}, "model": {...},
 *    "peaks": {"read_gbs", "fp32_gflops", "exact_gflops", "bf16_gflops", "int8_gops"},   best of the run
 *    "stages": [{"stage", "case", "mode", "threads", "width", "height", "size", "batch", "n",
 *                "median_s", "low_s", "high_s", "mean_s", "best_s", "p90_s", "p95_s", "p99_s",
 *                "gflops", "gbs", "roof_percent", "samples": [...]}],
 *    "tips": [{"tip", "metric", "a", "a_s", "b", "b_s", "change_percent", "p", "verdict"}],
 *    "workload": [{"case", "width", "height", "patches", "image_tokens", "prompt_tokens", ...}],
 *    "rates": [...], "predictor": [{"stage", "case", "mode", "size", "measured_s", "predicted_s",
 *                                   "error_percent"}], "pieces": [...]}   the last: merged runs
 *
 * A decode row has "read_gbs" as well: the median of read passes between its tokens, its roof. Memory that is
 * shared with other machines doubles and halves within seconds, so a peak of another minute says nothing.
 * size: pixels (preprocess), patches (encode), rows (prefill, decode: of context), bytes (open).
 */
#ifndef VL_BENCH_H
#define VL_BENCH_H

#include "cli/cli.h"
#include "cli/doc.h"
#include "cli/op_rates.h"
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
    bench_samples decode_image, resize, preprocess, encode, prefill, step, first_token, total;
    bench_samples beside;             /* read rates between two tokens, GB/s                   */
    double patches, rows, image_tokens;
    double drafted, accepted, passes; /* tokens looked ahead; right; decode passes             */
    uint8_t digest[32];               /* of the picture: decoded size, pixels, parameters      */
    double cpu_percent, joules;       /* of the case; joules negative: not readable            */
} bench_result;

typedef struct bench {
    cli_common common;
    vl_picture_params picture;
    const char *image;                /* a file instead of noise, or NULL                      */
    vl_model *m;
    int64_t speculate;                /* as in vl_session_params                               */
    bool cold;                        /* no request has run since the model was opened         */
    vl_config config;
    model_shape shape;
    const num_mode *mode;
    json_t *root, *stages, *tips;
    bench_samples read, fp32, exact, bf16, int8; /* one of each a round                        */
    op_lab *lab;                      /* NULL, or single operations, timed once a round        */
    bench_result last;
} bench;

/* The picture of a case; NULL in *out for a case without one (bench_picture.c). */
int bench_load_picture(const bench *b, const bench_case *c, vl_picture **out, vl_err *err);

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
void bench_add_tip(json_t *tips, const char *tip, const char *metric, const char *a,
                   const bench_samples *sa, const char *label_b, const bench_samples *sb);
void bench_add_batch(bench *b, int batch); /* the steps of bench_run_batch() */
void bench_no_tip(json_t *tips, const char *tip, const char *why);
void bench_row_summary(json_t *row); /* median, percentiles, rates from its samples           */
void bench_finish(bench *b); /* peaks, memory, the rows' shares of the roof */
void bench_hash_weights(json_t *root, const char *dir); /* root["model"]["weights_sha256"] */
void bench_shares(json_t *root); /* % of the roof, from "peaks" */
/* Every row of encode, prefill and decode beside the sum of its operations; the largest error in
 * percent into *worst. */
int bench_predict(bench *b, double *worst); /* b->lab has had a pass */

/* ---- several runs (bench_merge.c) --------------------------------------------------------------
 * Runs of one checkpoint on one machine as one: samples of the same row together, the best peaks. */
json_t *bench_merge(const cli_list *files, vl_err *err);
/* "TIP|METRIC|LABEL A|a.jsonl|LABEL B|b.jsonl": an A/B row from two raw files of `vitreous load`. */
int bench_tip_of_loads(json_t *root, const char *text, vl_err *err);
/* "TIP|STAGE|MODE A|CASE A|MODE B|CASE B": one from two rows of the run; said to be missing where
 * one of them is. */
int bench_tip_of_rows(json_t *root, const char *text, vl_err *err);

/* ---- A/B rows (bench_tips.c) ----------------------------------------------------------------- */
#define BENCH_TIPS "cache, batch2, batch4, batch8, pin, threads, thp, hugetlb, disk, fused"
int bench_run_tips(bench *b, const bench_case *base, const cli_list *names);
int bench_fused(bench *b, const bench_case *base); /* bench_fused.c */
/* The numeric modes that this binary has on the CPU. */
enum { BENCH_DTYPES = 4 };
int bench_dtypes(const char *v[BENCH_DTYPES]);

/* ---- showing (bench_show.c) ------------------------------------------------------------------ */
void bench_show(const json_t *root, doc *d);
void bench_show_stages(const json_t *root, const char *table, doc *d);
int bench_compare(const char *path_a, const char *path_b, doc *d, vl_err *err);

#endif
