/* bench.c: `vitreous bench`: every stage beside what the machine can do in the same minutes, with
 * percentiles, a machine description and all samples; comparison of two saved runs. */
#include <stdlib.h>
#include <string.h>

#include "cli/bench.h"
#include "common/common.h"
#include "kernels/kernels_info.h"
#include "kernels/ops.h"
#include "kernels/threads.h"

enum { CASES_MAX = 32 };
typedef struct bench_args {
    cli_list sizes, batches, tips, merge, load_tips, row_tips, rest;
    int64_t rounds, tokens, text_tokens, side;
    const char *save, *html, *compare;
    double tolerance;
    bool all, reference, hash, threads, tiers, dtypes, predict, json, md, csv, jsonl;
} bench_args;

static int read_size(const char *s, const bench_args *a, bench_case *c) {
    char tail;
    *c = (bench_case){.text_tokens = (int)a->text_tokens, .tokens = (int)a->tokens,
                      .rounds = (int)a->rounds};
    snprintf(c->name, sizeof c->name, "%s", s);
    if (!strncmp(s, "text", 4)) { /* about as long as the prompt of a small picture */
        char *end;
        long n = s[4] ? strtol(s + 4, &end, 10) : 230;
        if ((s[4] && *end) || n < 16 || n > 100000)
            return cli_usage("--size text or textN (16 to 100000 tokens), not \"%s\"", s);
        c->text_tokens = (int)n;
        return 0;
    }
    if (sscanf(s, "%dx%d%c", &c->width, &c->height, &tail) != 2 || c->width < 16 ||
        c->height < 16 || c->width > 8192 || c->height > 8192)
        return cli_usage("--size wants WIDTHxHEIGHT (16 to 8192) or text, not \"%s\"", s);
    return 0;
}

static int list_cases(const bench_args *a, bench_case *v, int *n) {
    static const char *const all[] = {"448x448", "672x448", "896x896", "1024x1024", "text"};
    char side[24];
    int rc = 0;
    *n = 0;
    for (int i = 0; !rc && i < a->sizes.n && *n < CASES_MAX; i++)
        rc = read_size(a->sizes.v[i], a, &v[(*n)++]);
    for (int i = 0; !rc && a->all && i < 5 && *n < CASES_MAX; i++) {
        rc = read_size(all[i], a, &v[*n]);
        if (i == 2 || i == 3) v[*n].rounds = 1; /* long enough to be steady */
        ++*n;
    }
    if (rc || *n) return rc;
    snprintf(side, sizeof side, "%dx%d", (int)a->side, (int)a->side);
    return read_size(side, a, &v[(*n)++]);
}

/* ---- output ---------------------------------------------------------------------------------- */

static int write_run(const json_t *root, const bench_args *a) {
    doc d;
    size_t i;
    json_t *o;
    int rc = 0;
    doc_begin(&d, "vitreous bench");
    bench_show(root, &d);
    if (a->json) rc = json_dumpf(root, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
    else if (!a->jsonl) rc = doc_write(&d, a->md ? DOC_MD : a->csv ? DOC_CSV : DOC_TEXT, stdout);
    if (a->json) putchar('\n');
    if (a->jsonl) /* a row a line */
        json_array_foreach(json_object_get(root, "stages"), i, o) {
            json_dumpf(o, stdout, JSON_COMPACT | JSON_REAL_PRECISION(9));
            putchar('\n');
        }
    if (a->save && json_dump_file(root, a->save, JSON_INDENT(1) | JSON_REAL_PRECISION(9))) {
        fprintf(stderr, "vitreous: %s: cannot be written\n", a->save);
        rc = -1;
    }
    if (!rc && a->html) rc = doc_write_file(&d, DOC_HTML, a->html);
    doc_end(&d);
    return rc ? CLI_BAD : 0;
}

/* ---- sweeps ---------------------------------------------------------------------------------- */

enum { MOST_TIERS = 8 };

/* The tiers of leaf kernels that this processor has, from the plainest on. */
static int tiers_here(const char *v[MOST_TIERS]) {
    static vl_kernel_row rows[VL_KERNEL_ROWS_MAX];
    size_t count = vl_kernels_list(rows, VL_KERNEL_ROWS_MAX);
    int n = 0;
    for (size_t i = 0; i < count; i++) {
        bool known = !strcmp(rows[i].reason, "this CPU lacks it");
        for (int k = 0; !known && k < n; k++) known = !strcmp(v[k], rows[i].tier);
        if (!known && n < MOST_TIERS) v[n++] = rows[i].tier;
    }
    return n;
}

int bench_dtypes(const char *v[BENCH_DTYPES]) {
    static const char *const all[BENCH_DTYPES] = {"exact", "bf16", "int8", "int4"};
    int n = 0;
    for (int i = 0; i < BENCH_DTYPES; i++) {
        vl_backend *b;
        if (vl_backend_open(&b, &(vl_backend_params){"cpu", all[i], 1}, NULL)) continue;
        b->ops->close(b);
        v[n++] = all[i];
    }
    return n;
}

static int sweep_point(bench *b, const bench_case *c, const char *tier, int threads) {
    char suffix[48];
    vl_backend *probe;
    if (tier) setenv("VL_CPU", tier, 1);
    if (vl_backend_open(&probe, &(vl_backend_params){"cpu", b->common.dtype, 1}, NULL)) return 0;
    probe->ops->close(probe); /* a mode may need more than this tier has: then there is no row */
    int rc = bench_open(b, threads);
    if (!rc) rc = bench_run_case(b, c, NULL);
    snprintf(suffix, sizeof suffix, "%s%s, %d thread%s", tier ? ", " : "", tier ? tier : "",
             threads, threads == 1 ? "" : "s");
    if (!rc) bench_add_case(b, c, suffix);
    return rc;
}

/* Threads x tiers x dtypes, as far as each was asked for. */
static int run_grid(bench *b, const bench_args *a, const bench_case *c) {
    const char *tiers[MOST_TIERS] = {NULL}, *dtypes[BENCH_DTYPES] = {b->common.dtype};
    const char *dtype = b->common.dtype, *cpu = getenv("VL_CPU");
    int n_tiers = a->tiers ? tiers_here(tiers) : 1, n_dtypes = a->dtypes ? bench_dtypes(dtypes) : 1;
    int rc = 0, all = vl_model_get_info(b->m)->threads;
    if (!a->threads && !a->tiers && !a->dtypes) return 0;
    for (int d = 0; !rc && d < n_dtypes; d++)
        for (int t = 0; !rc && t < n_tiers; t++)
            for (int n = a->threads ? 1 : all; !rc && n <= all; n = n < all && 2 * n > all ? all : 2 * n) {
                b->common.dtype = dtypes[d];
                rc = sweep_point(b, c, tiers[t], n);
            }
    b->common.dtype = dtype;
    if (cpu) setenv("VL_CPU", cpu, 1);
    else unsetenv("VL_CPU");
    return rc ? rc : bench_open(b, 0);
}

static int run_sweeps(bench *b, const bench_args *a, const bench_case *first) {
    int rc = 0;
    bench_case c = *first;
    for (int i = 0; !rc && i < a->batches.n; i++) {
        int n = atoi(a->batches.v[i]);
        if (n < 1 || n > 64) return cli_usage("--batch wants 1 to 64, not \"%s\"", a->batches.v[i]);
        rc = bench_run_batch(b, &c, n);
        if (!rc) bench_add_batch(b, n);
    }
    return rc ? rc : run_grid(b, a, &c);
}

static const int64_t LAB_BYTES = (int64_t)3 << 30; /* of op_lab_open, roughly */

/* Single operations are timed in the rounds of the cases, so that both meet the same machine. */
static int open_lab(bench *b) {
    vl_err err = {0};
    if (strcmp(vl_model_get_info(b->m)->backend, "cpu"))
        return cli_usage("--predict times operations of the CPU; with this backend see gpu-report");
    if (vl_usable_memory("") < LAB_BYTES) return cli_usage("--predict needs 3 GiB of memory beside the model");
    fprintf(stderr, "single operations: preparing\n");
    return op_lab_open(&b->lab, b->mode, vl_model_get_info(b->m)->threads, &err) ? cli_fail(&err) : 0;
}

static int run(bench *b, const bench_args *a) {
    bench_case cases[CASES_MAX], whole;
    int n, check = 0, rc = list_cases(a, cases, &n);
    if (!rc) rc = bench_open(b, 0);
    if (!rc) rc = bench_begin(b);
    if (!rc && a->predict) rc = open_lab(b);
    for (int i = 0; !rc && i < n; i++) {
        rc = bench_run_case(b, &cases[i], NULL);
        if (!rc) bench_add_case(b, &cases[i], "");
    }
    if (!rc && a->reference) { /* the whole answer, once */
        whole = cases[0];
        whole.tokens = 256;
        whole.rounds = 1;
        rc = bench_run_case(b, &whole, NULL);
        if (!rc) bench_add_case(b, &whole, ", 256 tokens");
    }
    if (!rc && a->predict) {
        double worst;
        rc = bench_predict(b, &worst);
        op_lab_close(b->lab);
        b->lab = NULL;
        if (!rc && a->tolerance > 0 && worst > a->tolerance) {
            fprintf(stderr, "vitreous: the predictor is off by %.1f %%, more than %.1f %%\n", worst,
                    a->tolerance);
            check = CLI_CHECK;
        }
    }
    if (!rc) rc = run_sweeps(b, a, &cases[0]);
    if (!rc && a->tips.n) rc = bench_run_tips(b, &cases[0], &a->tips);
    if (!rc) bench_finish(b);
    if (!rc && a->hash) bench_hash_weights(b->root, vl_model_get_info(b->m)->dir);
    return rc ? rc : write_run(b->root, a) ? CLI_BAD : check;
}

/* Saved runs as one. */
static int merge(const bench *b, const bench_args *a) {
    vl_err err = {0};
    json_t *root = bench_merge(&a->merge, &err);
    int rc = root ? 0 : -1;
    if (!rc && a->hash && b->common.model) bench_hash_weights(root, b->common.model);
    for (int i = 0; !rc && i < a->load_tips.n; i++)
        rc = bench_tip_of_loads(root, a->load_tips.v[i], &err);
    for (int i = 0; !rc && i < a->row_tips.n; i++)
        rc = bench_tip_of_rows(root, a->row_tips.v[i], &err);
    rc = rc ? cli_fail(&err) : write_run(root, a);
    json_decref(root);
    return rc;
}

static int compare(const bench_args *a) {
    doc d;
    vl_err err = {0};
    if (a->rest.n != 1) return cli_usage("bench --compare A.json B.json");
    doc_begin(&d, "vitreous bench: two runs");
    int rc = bench_compare(a->compare, a->rest.v[0], &d, &err) ? cli_fail(&err) : 0;
    doc_form form = a->json ? DOC_JSON : a->md ? DOC_MD : a->csv ? DOC_CSV : DOC_TEXT;
    if (!rc && doc_write(&d, form, stdout)) rc = CLI_BAD;
    if (!rc && a->html && doc_write_file(&d, DOC_HTML, a->html)) rc = CLI_BAD;
    doc_end(&d);
    return rc;
}

int cmd_bench(int argc, char **argv) {
    bench_args a = {.rounds = 5, .tokens = 16, .text_tokens = 40, .side = 448};
    bench *b = vl_calloc(1, sizeof *b);
    if (!b) return cli_fail(&(vl_err){VL_E_NOMEM, "no memory"});
    const cli_option options[] = {
        {"image", 'i', CLI_STR, &b->image, "FILE", "a picture (default: noise)", 0, 0},
        {"size", 0, CLI_LIST, &a.sizes, "WxH", "picture size, or text for no picture", 0, 0},
        {"side", 0, CLI_INT, &a.side, "N", "a square picture (448)", 16, 8192},
        {"all", 0, CLI_FLAG, &a.all, NULL, "448x448, 672x448, 896x896, 1024x1024 and text", 0, 0},
        {"text-tokens", 0, CLI_INT, &a.text_tokens, "N", "question and template (40)", 16, 100000},
        {"max-tokens", 'n', CLI_INT, &a.tokens, "N", "tokens decoded in a round (16)", 2,
         BENCH_SAMPLES},
        {"rounds", 0, CLI_INT, &a.rounds, "N", "of each size (5)", 1, 1000},
        {"reference", 0, CLI_FLAG, &a.reference, NULL, "also one whole answer of 256 tokens", 0, 0},
        {"batch", 0, CLI_LIST, &a.batches, "N", "also decode N answers together", 0, 0},
        {"sweep-threads", 0, CLI_FLAG, &a.threads, NULL, "also with 1, 2, 4, ... threads", 0, 0},
        {"speculate", 0, CLI_INT, &b->speculate, "N", "look N tokens ahead (0: off)", 0,
         VL_SPECULATE_MAX},
        {"sweep-tiers", 0, CLI_FLAG, &a.tiers, NULL, "also with each tier of kernels (see VL_CPU)", 0,
         0},
        {"sweep-dtypes", 0, CLI_FLAG, &a.dtypes, NULL, "also in each numeric mode", 0, 0},
        {"predict", 0, CLI_FLAG, &a.predict, NULL,
         "also time single operations, and predict the stages from them", 0, 0},
        {"tolerance", 0, CLI_NUM, &a.tolerance, "P", "fail if a prediction is off by more than P %", 0,
         1000},
        {"tip", 0, CLI_LIST, &a.tips, "NAME", "also an A/B row: all, " BENCH_TIPS, 0, 0},
        {"merge", 0, CLI_LIST, &a.merge, "FILE", "put saved runs together instead of measuring", 0, 0},
        {"hash-weights", 0, CLI_FLAG, &a.hash, NULL, "also SHA-256 of the weight files", 0, 0},
        {"load-tip", 0, CLI_LIST, &a.load_tips, "T", "with --merge: TIP|METRIC|A|a.jsonl|B|b.jsonl",
         0, 0},
        {"row-tip", 0, CLI_LIST, &a.row_tips, "T", "with --merge: TIP|STAGE|MODE A|CASE A|MODE B|CASE B",
         0, 0},
        {"compare", 0, CLI_STR, &a.compare, "A.json", "compare with B.json, the argument after it",
         0, 0},
        {"save", 0, CLI_STR, &a.save, "FILE", "also write the run as JSON", 0, 0},
        {"json", 0, CLI_FLAG, &a.json, NULL, "JSON with every sample instead of tables", 0, 0},
        {"jsonl", 0, CLI_FLAG, &a.jsonl, NULL, "a line of JSON per row", 0, 0},
        {"md", 0, CLI_FLAG, &a.md, NULL, "Markdown", 0, 0},
        {"csv", 0, CLI_FLAG, &a.csv, NULL, "CSV", 0, 0},
        {"html", 0, CLI_STR, &a.html, "FILE", "also write a page", 0, 0},
        CLI_PICTURE_OPTIONS(&b->common),
        CLI_MODEL_OPTIONS(&b->common),
        {0},
    };
    int rc = cli_parse("bench [-m DIR] [--size WxH]... | --compare A.json B.json",
                       "Encode, prefill and decode beside the machine's own peaks, measured in the "
                       "same rounds.", options, argc, argv, &a.rest);
    if (rc < 0 && a.compare) rc = compare(&a);
    else if (rc < 0 && a.merge.n) rc = merge(b, &a);
    else if (rc < 0 && a.rest.n) rc = cli_usage("unexpected argument \"%s\"", a.rest.v[0]);
    else if (rc < 0) rc = run(b, &a);
    op_lab_close(b->lab);
    vl_model_free(b->m);
    json_decref(b->root);
    free(b);
    free(a.sizes.v);
    free(a.batches.v);
    free(a.tips.v);
    free(a.merge.v);
    free(a.load_tips.v);
    free(a.row_tips.v);
    free(a.rest.v);
    return rc;
}
