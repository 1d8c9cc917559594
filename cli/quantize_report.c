/* quantize_report.c: what a numeric mode loses: two models on the same prompts, the bundled pictures.
 *
 * KLD of a row: sum over the vocabulary of p ln(p / q), p = softmax(exact logits), q = of the other;
 * agreement: both have the same largest logit. Rows of picture tokens and of text tokens are counted
 * apart, since a picture's rows mostly predict nothing that is ever sampled. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/trace.h"
#include "loader/json.h"
#include "model/demo_dir.h"

typedef struct tally { double sum, worst; int rows, same; } tally;

static const char *const PROMPTS[][2] = {
    {"01-shapes.png", "What is in this picture?"},
    {"02-shapes.jpg", "How many shapes are there?"},
    {"03-shapes.png", "\xe5\x9b\xbe\xe7\x89\x87\xe9\x87\x8c\xe6\x9c\x89\xe4\xbb\x80\xe4\xb9\x88\xef\xbc\x9f"},
    {"06-word.jpg", "What does the text say?"},
    {"08-number.jpg", "Which number is written here?"},
};
enum { N_PROMPTS = sizeof PROMPTS / sizeof *PROMPTS };

/* ln of the sum of e^(x - max), plus max */
static double log_sum(const float *x, int64_t V, int64_t *top) {
    double sum = 0;
    *top = 0;
    for (int64_t v = 1; v < V; v++)
        if (x[v] > x[*top]) *top = v;
    for (int64_t v = 0; v < V; v++) sum += exp((double)x[v] - (double)x[*top]);
    return log(sum) + (double)x[*top];
}

static void add_row(tally *t, const float *p, const float *q, int64_t V) {
    int64_t top_p, top_q;
    double lp = log_sum(p, V, &top_p), lq = log_sum(q, V, &top_q), kld = 0;
    for (int64_t v = 0; v < V; v++) {
        double a = (double)p[v] - lp;
        kld += exp(a) * (a - ((double)q[v] - lq));
    }
    t->rows++;
    t->same += top_p == top_q;
    t->sum += kld;
    if (!(kld <= t->worst)) t->worst = kld;
}

/* by[0]: rows of picture tokens, by[1]: of text tokens */
static int compare(const cli_trace *a, const cli_trace *b, int64_t image_token, tally by[2]) {
    const cli_tensor *ids = cli_trace_find(a, "input_ids"), *p = cli_trace_find(a, "logits");
    const cli_tensor *q = cli_trace_find(b, "logits");
    if (!ids || !p || !q || p->shape[0] != q->shape[0] || p->shape[1] != q->shape[1])
        return cli_usage("the two models have different logits");
    for (int64_t t = 0; t < p->shape[0] && t < ids->shape[0]; t++)
        add_row(&by[((const int64_t *)ids->data)[t] != image_token], (const float *)p->data + t * p->shape[1],
                (const float *)q->data + t * p->shape[1], p->shape[1]);
    return 0;
}

static int one_prompt(vl_model *exact, vl_model *other, const char *dir, int i, tally by[2]) {
    char path[4200];
    const char *file = path;
    cli_list images = {&file, 1};
    cli_trace_request r = {.images = &images, .text = PROMPTS[i][1], .sampling = vl_sampling_greedy(1)};
    cli_trace a = {0}, b = {0};
    int32_t *ids = NULL;
    size_t n = 0;
    vl_err err = {0};
    snprintf(path, sizeof path, "%s/pictures/%s", dir, PROMPTS[i][0]);
    int rc = vl_tokenize(exact, "<|image_pad|>", 13, true, &ids, &n, &err) ? cli_fail(&err) : 0;
    if (!rc) rc = cli_trace_run(&a, exact, &r);
    if (!rc) rc = cli_trace_run(&b, other, &r);
    if (!rc) rc = compare(&a, &b, n ? ids[0] : -1, by);
    free(ids);
    cli_trace_clear(&a);
    cli_trace_clear(&b);
    return rc;
}

static json_t *tally_json(const tally *t) {
    return json_pack("{s:i,s:f,s:f,s:f}", "rows", t->rows, "mean_kld", t->rows ? t->sum / t->rows : 0, "max_kld",
                     t->worst, "top1", t->rows ? (double)t->same / t->rows : 0);
}

int cli_quality_report(vl_model *exact, vl_model *other, bool json) {
    static const char *const NAMES[] = {"picture", "text", "all"};
    const char *dir = vl_demo_dir();
    tally by[3] = {0};
    int rc = dir ? 0 : cli_usage("the bundled pictures were not found; set VITREOUS_DEMO");
    for (int i = 0; !rc && i < N_PROMPTS; i++) rc = one_prompt(exact, other, dir, i, by);
    if (rc) return rc;
    by[2] = (tally){by[0].sum + by[1].sum, fmax(by[0].worst, by[1].worst), by[0].rows + by[1].rows,
                    by[0].same + by[1].same};
    int right[2] = {0}, asked = 0;
    for (int a; (a = cli_demo_answer(exact, (size_t)asked)) >= 0; asked++) {
        int b = cli_demo_answer(other, (size_t)asked);
        right[0] += a;
        right[1] += b > 0;
        if (b < 0) break;
    }
    const char *mode = vl_model_get_info(other)->dtype;
    if (json) {
        json_t *o = json_pack("{s:s,s:s}", "model", vl_model_get_info(exact)->name, "dtype", mode);
        for (int i = 0; i < 3; i++) json_object_set_new(o, NAMES[i], tally_json(&by[i]));
        if (asked)
            json_object_set_new(o, "answers", json_pack("{s:i,s:i,s:i}", "asked", asked, "exact", right[0],
                                                        "mode", right[1]));
        cli_print_json(o);
        return 0;
    }
    printf("%s against exact (%s)\n%-8s %6s %12s %12s %8s\n", mode, vl_model_get_info(exact)->name, "tokens", "rows",
           "mean KLD", "max KLD", "top-1");
    for (int i = 0; i < 3; i++)
        printf("%-8s %6d %12.3g %12.3g %7.2f%%\n", NAMES[i], by[i].rows, by[i].rows ? by[i].sum / by[i].rows : 0,
               by[i].worst, by[i].rows ? 100.0 * by[i].same / by[i].rows : 0);
    if (asked)
        printf("answers to the %d bundled questions as expected: exact %d, %s %d\n", asked, right[0], mode, right[1]);
    return 0;
}
