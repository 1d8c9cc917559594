/* ops.c: the trace decorator (kernels/ops_trace.h) on a real request. Rows of one op, matrix and shape
 * are one line; what passes between ops (sampling, batching, copies to and from the host) is the last
 * line, so that the lines add up to the time from submit to done. A first, short run packs the weights.
 *
 * Easy to get wrong: operands that stay in the caches move faster than the read rate of memory, so the
 * read roof counts only for rows that must come from memory: weights, when all of them together are larger
 * than any cache. */
#include "cli/ops.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/doc.h"
#include "cli/plot.h"
#include "cli/predict.h"
#include "kernels/ops_trace.h"
#include "kernels/peaks.h"
#include "model/model.h"

enum { STAGES = 3, CACHED_BYTES = 64 << 20 };
static const char *const STAGE[STAGES] = {"encode", "prefill", "decode"};

typedef struct ops_peaks { double read, fp32, mode; bool exact; } ops_peaks; /* GB/s, GFLOP/s */

static double larger(double a, double b) { return a > b ? a : b; }

/* Arithmetic peak of this mode; 0: not measured (another backend than the CPU). */
static void measure(ops_peaks *k, const vl_model_info *info) {
    const num_mode *mode = mode_find(info->dtype);
    if (strcmp(info->backend, "cpu")) return;
    k->read = larger(k->read, vl_peak_read_gbs(info->threads));
    k->fp32 = larger(k->fp32, vl_peak_fma_gflops(info->threads));
    k->exact = !mode || mode->arithmetic == PEAK_FP32;
    k->mode = larger(k->mode, k->exact ? vl_peak_exact_gflops(info->threads)
                              : mode->arithmetic == PEAK_INT8 ? vl_peak_int8_gops(info->threads)
                                                              : vl_peak_bf16_gflops(info->threads));
}

/* Which stage an op belongs to: ops of the vision tower are its own, the decoder's go by their rows. */
static int stage_of(const vl_trace_row *r) {
    static const char *const VISION[] = {"attend_full", "rope_vision", "layernorm", "pos_embed"};
    bool vision = strstr(r->what, "visual.") != NULL;
    for (size_t i = 0; i < sizeof VISION / sizeof *VISION; i++) vision |= !strcmp(r->op, VISION[i]);
    return vision ? 0 : r->rows > 1 && strcmp(r->op, "argmax") ? 1 : 2;
}

/* Share of the nearer roof in percent; NAN where neither roof says anything about the row. */
static double share(const vl_trace_row *r, const ops_peaks *k, const vl_model_info *info, const char **roof) {
    bool products = !strcmp(r->op, "linear") || (!k->exact && !strncmp(r->op, "attend", 6));
    bool memory = r->what[0] && info->weight_bytes > CACHED_BYTES;
    double flops = products ? k->mode : k->fp32;
    double a = flops > 0 ? r->flops / (flops * 1e9) : 0, b = memory && k->read > 0 ? r->bytes / (k->read * 1e9) : 0;
    *roof = a > b ? "arithmetic" : b > 0 ? "read" : "";
    return r->seconds > 0 && larger(a, b) > 0 ? 100 * larger(a, b) / r->seconds : NAN;
}

static void show_row(doc *d, const vl_trace_row *r, const ops_peaks *k, const vl_model_info *info, double wall) {
    const char *roof;
    double percent = share(r, k, info, &roof);
    doc_row(d);
    doc_cell(d, "%s", STAGE[stage_of(r)]);
    doc_cell(d, "%s", r->op);
    doc_cell(d, "%s", r->what);
    doc_cell(d, r->inner ? "%d x %d x %d" : "%d x %d", r->rows, r->cols, r->inner);
    doc_num(d, (double)r->calls, "%.0f");
    doc_num(d, 1e3 * r->seconds, "%.3f");
    doc_num(d, 1e6 * r->seconds / (double)r->calls, "%.1f");
    doc_num(d, r->flops > 0 ? r->flops / r->seconds / 1e9 : NAN, "%.1f");
    doc_num(d, r->bytes / r->seconds / 1e9, "%.2f");
    doc_num(d, percent, "%.1f");
    doc_cell(d, "%s", roof);
    doc_num(d, 100 * r->seconds / wall, "%.2f");
}

static void show_stages(doc *d, const vl_trace_row *rows, size_t n, double wall) {
    vl_trace_row sum[STAGES] = {0};
    for (size_t i = 0; i < n; i++) {
        vl_trace_row *s = &sum[stage_of(&rows[i])];
        s->calls += rows[i].calls;
        s->seconds += rows[i].seconds;
        s->flops += rows[i].flops;
        s->bytes += rows[i].bytes;
    }
    doc_heading(d, "Stages");
    doc_table(d, "stages", "stage|calls|ms|GFLOP/s|GB/s|% of wall");
    for (int i = 0; i < STAGES; i++) {
        if (!sum[i].calls) continue;
        doc_row(d);
        doc_cell(d, "%s", STAGE[i]);
        doc_num(d, (double)sum[i].calls, "%.0f");
        doc_num(d, 1e3 * sum[i].seconds, "%.3f");
        doc_num(d, sum[i].flops / sum[i].seconds / 1e9, "%.1f");
        doc_num(d, sum[i].bytes / sum[i].seconds / 1e9, "%.2f");
        doc_num(d, 100 * sum[i].seconds / wall, "%.2f");
    }
}

static void show_plot(doc *d, const vl_trace_row *rows, size_t n) {
    enum { MOST = 20 };
    static const char *const part[] = {"milliseconds"};
    const char *labels[MOST];
    char names[MOST][96];
    double values[MOST];
    int k = 0;
    for (; k < MOST && (size_t)k < n; k++) {
        const char *tail = strrchr(rows[k].what, '#'); /* "...layers.#.mlp.gate_proj.weight" */
        snprintf(names[k], sizeof names[k], "%s %.24s x%d", rows[k].op, tail && tail[1] ? tail + 2 : "", rows[k].rows);
        labels[k] = names[k];
        values[k] = 1e3 * rows[k].seconds;
    }
    doc_plot(d, "The ops that took longest.", plot_stack("Time by op and shape", "ms", labels, k, part, 1, values));
}

static void show(doc *d, const vl_trace_row *rows, size_t n, const ops_peaks *k, const vl_model *m,
                 const cli_answer *a) {
    const vl_model_info *info = vl_model_get_info(m);
    double wall = a->timings.total_s, ops = 0;
    for (size_t i = 0; i < n; i++) ops += rows[i].seconds;
    doc_text(d, "%s, mode %s, %d threads: %d prompt tokens (%d of pictures), %d tokens out, %.3f s from submit to "
             "done; the ops below take %.3f s of it, %.2f %%.", info->name, info->dtype, info->threads,
             a->prompt_tokens, a->image_tokens, a->completion_tokens, wall, ops, 100 * ops / wall);
    doc_text(d, "Peaks of the same run: read %.1f GB/s, float32 FMA %.0f GFLOP/s, products of this mode %.0f "
             "GFLOP/s. Bytes: each operand once. %% of peak: of the nearer roof; the read roof counts for "
             "weights that come from memory, activations may stay in caches. Over 100: the peak was taken "
             "while something else ran.", k->read, k->fp32, k->mode);
    show_stages(d, rows, n, wall);
    doc_heading(d, "Ops");
    doc_table(d, "ops", "stage|op|weight|out x inner|calls|ms|us/call|GFLOP/s|GB/s|% of peak|roof|% of wall");
    for (size_t i = 0; i < n; i++) show_row(d, &rows[i], k, info, wall);
    doc_row(d);
    doc_cell(d, "all");
    doc_cell(d, "between ops");
    for (int i = 0; i < 2; i++) doc_cell(d, "%s", "");
    doc_num(d, NAN, "%.0f");
    doc_num(d, 1e3 * (wall - ops), "%.3f");
    for (int i = 0; i < 4; i++) doc_num(d, NAN, "%.0f");
    doc_cell(d, "%s", "");
    doc_num(d, 100 * (wall - ops) / wall, "%.2f");
    show_plot(d, rows, n);
}

int cli_ops_run(vl_model *m, const vl_prompt *p, const vl_sampling *s, cli_answer *a, const char *path) {
    vl_backend *trace;
    vl_err err = {0};
    vl_sampling brief = *s;
    cli_answer warm = {.speculate = a->speculate};
    ops_peaks peaks = {0};
    const vl_trace_row *rows;
    double since;
    doc d;
    if (vl_model_trace_ops(m, &trace, &err)) return cli_fail(&err);
    brief.max_tokens = 2;
    int rc = cli_answer_one(m, p, &brief, &warm);
    cli_answer_clear(&warm);
    if (rc) return rc;
    measure(&peaks, vl_model_get_info(m));
    vl_trace_reset(trace);
    rc = cli_answer_one(m, p, s, a);
    if (rc) return rc;
    if (a->stream) putc('\n', a->stream); /* the answer's line ends before the report */
    if (a->stream) fflush(a->stream);
    size_t n = vl_trace_rows(trace, &rows, &since);
    measure(&peaks, vl_model_get_info(m));
    doc_begin(&d, "vitreous run: time by op");
    show(&d, rows, n, &peaks, m, a);
    if (!strcmp(path, "-")) rc = doc_write(&d, DOC_TEXT, stderr);
    else rc = doc_write_file(&d, doc_form_of(path), path);
    doc_end(&d);
    return rc ? CLI_BAD : 0;
}
