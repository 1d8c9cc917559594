/* load.c: `vitreous load`: open-loop load on a running server, one rate or a sweep to its limit. */
#include "cli/load.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/doc.h"
#include "common/common.h"

typedef struct load_args {
    const char *url, *model, *key, *workload, *prompt, *arrivals, *raw, *html, *title;
    cli_list images, rates;
    int64_t n, max_tokens, seed, max_in_flight, warm_up, most_steps;
    double timeout, slo_ttft, slo_tpot, slo_e2e, factor;
    bool sweep, json, md, csv;
} load_args;

/* One step of the sweep, summed up. */
typedef struct step {
    double rate, offered, seconds, goodput;
    int sent, completed, late;
    double tokens, prompt_tokens, lag;        /* lag: the latest sending after it was due */
    stats ttft, tpot, itl, e2e;
    char error[96];                           /* of the first request that failed         */
} step;

/* ---- one step -------------------------------------------------------------------------------- */

static load_request *schedule(const load_args *a, int n, int kinds, double rate, uint64_t seed) {
    load_request *v = vl_calloc((size_t)n, sizeof *v);
    bool poisson = !strcmp(a->arrivals, "poisson");
    double at = 0;
    vl_rng rng;
    vl_rng_seed(&rng, seed);
    for (int i = 0; v && i < n; i++) {
        v[i].kind = i % kinds;
        v[i].due = at;
        at += poisson ? -log(1 - vl_rng_uniform(&rng)) / rate : 1 / rate;
    }
    return v;
}

static double tpot_of(const load_request *q) {
    return q->tokens > 1 ? (q->last - q->first) / (q->tokens - 1) : NAN;
}

static bool met(const load_args *a, const load_request *q) {
    double tpot = tpot_of(q);
    return q->ok && (a->slo_ttft <= 0 || q->first - q->due <= a->slo_ttft) &&
           (a->slo_tpot <= 0 || isnan(tpot) || tpot <= a->slo_tpot) &&
           (a->slo_e2e <= 0 || q->last - q->due <= a->slo_e2e);
}

static int sum_up(const load_args *a, const load_run *r, double rate, step *s, vl_err *err) {
    size_t gaps = 0, n = 0, n_tpot = 0, g = 0;
    for (int i = 0; i < r->n; i++) gaps += (size_t)r->v[i].n_gaps;
    double *ttft = vl_calloc((size_t)r->n * 3 + gaps + 1, sizeof *ttft);
    double *e2e = ttft ? ttft + r->n : NULL, *tpot = ttft ? e2e + r->n : NULL;
    double *itl = ttft ? tpot + r->n : NULL, good = 0, last = 0;
    if (!ttft) return vl_fail(err, VL_E_NOMEM, "no memory for %d requests", r->n);
    *s = (step){.rate = rate, .sent = r->n};
    for (int i = 0; i < r->n; i++) {
        const load_request *q = &r->v[i];
        if (q->sent - q->due > s->lag) s->lag = q->sent - q->due;
        if (!q->ok) {
            if (!s->error[0]) memcpy(s->error, q->error, sizeof s->error);
            continue;
        }
        ttft[n] = q->first - q->due;
        e2e[n++] = q->last - q->due;
        if (!isnan(tpot_of(q))) tpot[n_tpot++] = tpot_of(q);
        for (int k = 0; k < q->n_gaps; k++) itl[g++] = q->gaps[k];
        s->tokens += q->tokens;
        s->prompt_tokens += q->prompt_tokens;
        good += met(a, q);
        if (q->last > last) last = q->last;
    }
    s->completed = (int)n;
    s->seconds = last > 0 ? last : r->seconds;
    s->goodput = good / s->seconds;
    s->offered = r->n > 1 ? (r->n - 1) / r->v[r->n - 1].due : rate;
    s->ttft = stats_of(ttft, n);
    s->e2e = stats_of(e2e, n);
    s->tpot = stats_of(tpot, n_tpot);
    s->itl = stats_of(itl, g);
    free(ttft);
    return 0;
}

static double or_zero(double v) { return isfinite(v) ? v : 0; }

/* One line of JSON per request, also for those that failed. */
static void write_raw(FILE *f, const load_run *r, double rate) {
    for (int i = 0; f && i < r->n; i++) {
        const load_request *q = &r->v[i];
        json_t *gaps = json_array();
        for (int k = 0; k < q->n_gaps; k++) json_array_append_new(gaps, json_real(q->gaps[k]));
        json_t *o = json_pack("{s:f,s:i,s:i,s:f,s:f,s:b,s:I,s:i,s:i,s:o}", "rate", rate, "request",
                              i, "kind", q->kind, "due_s", q->due, "sent_s", q->sent, "ok",
                              (int)q->ok, "status", (json_int_t)q->status, "prompt_tokens",
                              q->prompt_tokens, "output_tokens", q->tokens, "itl_s", gaps);
        if (q->ok) {
            json_object_set_new(o, "ttft_s", json_real(q->first - q->due));
            json_object_set_new(o, "e2e_s", json_real(q->last - q->due));
            json_object_set_new(o, "tpot_s", json_real(or_zero(tpot_of(q))));
        } else {
            json_object_set_new(o, "error", json_string(q->error));
        }
        json_dumpf(o, f, JSON_COMPACT | JSON_REAL_PRECISION(9));
        fputc('\n', f);
        json_decref(o);
    }
}

static int run_step(const load_args *a, const load_kind *kinds, int n_kinds, double rate, FILE *raw,
                    step *out, vl_err *err) {
    load_run r = {.url = a->url, .key = a->key, .kinds = kinds, .n = (int)a->n,
                  .max_in_flight = (int)a->max_in_flight, .timeout_s = a->timeout};
    r.v = schedule(a, r.n, n_kinds, rate, (uint64_t)a->seed);
    if (!r.v) return vl_fail(err, VL_E_NOMEM, "no memory for %d requests", r.n);
    int rc = load_run_all(&r, err);
    if (!rc) rc = sum_up(a, &r, rate, out, err);
    if (!rc) write_raw(raw, &r, rate);
    load_requests_free(r.v, r.n);
    if (!rc)
        fprintf(stderr, "%.3g requests/s: %d of %d completed in %.2f s%s%s\n", rate, out->completed,
                out->sent, out->seconds, out->error[0] ? "; first failure: " : "", out->error);
    return rc;
}

/* Less comes out than goes in: the arrivals end well before the answers do, beyond the time that
 * one request takes on the quiet server of the first step. */
static bool saturated(const step *first, const step *s) {
    double arrivals = (s->sent - 1) / s->offered;
    double expected = s->sent / (arrivals + first->e2e.p50);
    return s->completed < s->sent || s->completed / s->seconds < 0.85 * expected;
}

/* ---- the report ------------------------------------------------------------------------------ */

static void stats_columns(doc *d, const stats *s) {
    doc_num(d, s->mean, "%.4f");
    doc_num(d, s->p50, "%.4f");
    doc_num(d, s->p90, "%.4f");
    doc_num(d, s->p95, "%.4f");
    doc_num(d, s->p99, "%.4f");
}

static void report(const load_args *a, const step *v, int n, doc *d) {
    static const char *const names[] = {"ttft", "tpot", "itl", "e2e"};
    doc_text(
        d,
        "%s, %s arrivals, seed %lld, %lld requests per rate after %lld for warm-up. Open loop: "
        "latency counts from the scheduled arrival. Failed requests are counted and kept out of "
        "the latencies. Limits for goodput: TTFT %g s, TPOT %g s, E2E %g s (0: none).",
        a->url, a->arrivals, (long long)a->seed, (long long)a->n, (long long)a->warm_up,
        a->slo_ttft, a->slo_tpot, a->slo_e2e);
    doc_table(d, "sweep", "rate|offered_per_s|sent|completed|failed|seconds|completed_per_s|"
              "output_tokens_per_s|ttft_p99_s|e2e_p50_s|e2e_p99_s|goodput_per_s|client_lag_s");
    for (int i = 0; i < n; i++) {
        const step *s = &v[i];
        doc_row(d);
        doc_num(d, s->rate, "%.4g");
        doc_num(d, s->offered, "%.4g");
        doc_num(d, s->sent, "%.0f");
        doc_num(d, s->completed, "%.0f");
        doc_num(d, s->sent - s->completed, "%.0f");
        doc_num(d, s->seconds, "%.3f");
        doc_num(d, s->completed / s->seconds, "%.4g");
        doc_num(d, s->tokens / s->seconds, "%.4g");
        doc_num(d, s->ttft.p99, "%.4f");
        doc_num(d, s->e2e.p50, "%.4f");
        doc_num(d, s->e2e.p99, "%.4f");
        doc_num(d, s->goodput, "%.4g");
        doc_num(d, s->lag, "%.4f");
    }
    doc_table(d, "latency", "rate|metric|mean_s|p50_s|p90_s|p95_s|p99_s");
    for (int i = 0; i < n; i++) {
        const stats *all[] = {&v[i].ttft, &v[i].tpot, &v[i].itl, &v[i].e2e};
        for (int k = 0; k < 4; k++) {
            doc_row(d);
            doc_num(d, v[i].rate, "%.4g");
            doc_cell(d, "%s", names[k]);
            stats_columns(d, all[k]);
        }
    }
}

/* ---- the command ----------------------------------------------------------------------------- */

enum { STEPS_MAX = 64 };

static int parse_rates(const load_args *a, double *rates) {
    for (int i = 0; i < a->rates.n; i++) {
        char *end;
        rates[i] = strtod(a->rates.v[i], &end);
        if (*end || !(rates[i] > 0 && rates[i] < 1e6) || i == STEPS_MAX - 1)
            return cli_usage("--rate wants requests per second, up to %d times, not \"%s\"",
                             STEPS_MAX - 1, a->rates.v[i]);
    }
    if (!a->rates.n) rates[0] = 1;
    return 0;
}

static int run_all(load_args *a, const load_kind *kinds, int n_kinds, FILE *raw, step *v, int *n,
                   vl_err *err) {
    double rates[STEPS_MAX];
    int given = a->rates.n ? a->rates.n : 1, rc = parse_rates(a, rates);
    if (rc) return rc;
    if (a->warm_up) {
        load_args warm = *a;
        warm.n = a->warm_up;
        if (run_step(&warm, kinds, n_kinds, rates[0], NULL, &v[0], err)) return cli_fail(err);
    }
    for (*n = 0; *n < (a->sweep ? a->most_steps : given); ++*n) {
        double rate = *n < given ? rates[*n] : v[*n - 1].rate * a->factor;
        if (run_step(a, kinds, n_kinds, rate, raw, &v[*n], err)) return cli_fail(err);
        if (a->sweep && saturated(&v[0], &v[*n])) {
            ++*n;
            break;
        }
    }
    return 0;
}

static int run(load_args *a, vl_err *err) {
    load_kind *kinds = NULL;
    int n_kinds = 1, n = 0, rc = 0;
    step *v = vl_calloc(STEPS_MAX, sizeof *v);
    FILE *raw = a->raw ? fopen(a->raw, "w") : NULL;
    if (a->raw && !raw) rc = vl_fail(err, VL_E_IO, "%s: cannot be written", a->raw);
    if (!rc && a->workload) {
        n_kinds = load_kinds_read(&kinds, a->workload, a->model, err);
        rc = n_kinds < 0 ? -1 : 0;
    } else if (!rc) {
        kinds = vl_calloc(1, sizeof *kinds);
        rc = load_kind_make(kinds, a->prompt, &a->images, a->max_tokens, a->model, err);
    }
    rc = rc ? cli_fail(err) : run_all(a, kinds, n_kinds, raw, v, &n, err);
    if (raw && fclose(raw) && !rc) rc = cli_fail(&(vl_err){VL_E_IO, "the raw file is incomplete"});
    if (!rc) {
        doc d;
        doc_begin(&d, a->title);
        report(a, v, n, &d);
        doc_form form = a->json ? DOC_JSON : a->md ? DOC_MD : a->csv ? DOC_CSV : DOC_TEXT;
        if (doc_write(&d, form, stdout)) rc = CLI_BAD;
        if (!rc && a->html && doc_write_file(&d, DOC_HTML, a->html)) rc = CLI_BAD;
        doc_end(&d);
        int completed = 0;
        for (int i = 0; i < n; i++) completed += v[i].completed;
        if (!rc && !completed) rc = CLI_CHECK; /* not one answer */
    }
    load_kinds_free(kinds, n_kinds > 0 ? n_kinds : 0);
    free(v);
    return rc;
}

int cmd_load(int argc, char **argv) {
    load_args a = {.url = "http://127.0.0.1:8080/v1/chat/completions",
                   .model = "default",
                   .arrivals = "poisson",
                   .title = "Load on a server",
                   .prompt = "What is in this picture?",
                   .n = 32,
                   .max_tokens = 64,
                   .seed = 1,
                   .max_in_flight = 512,
                   .timeout = 600,
                   .factor = 1.5,
                   .most_steps = 16};
    const cli_option options[] = {
        {"url", 0, CLI_STR, &a.url, "URL", "chat completions endpoint (loopback, port 8080)", 0, 0},
        {"model", 0, CLI_STR, &a.model, "NAME", "model name to ask for", 0, 0},
        {"api-key", 0, CLI_STR, &a.key, "KEY", "sent as a bearer token", 0, 0},
        {"workload", 0, CLI_STR, &a.workload, "FILE", "JSON lines of requests, taken in turn", 0,
         0},
        {"image", 'i', CLI_LIST, &a.images, "FILE", "a picture, without --workload", 0, 0},
        {"prompt", 'p', CLI_STR, &a.prompt, "TEXT", "the question, without --workload", 0, 0},
        {"max-tokens", 'n', CLI_INT, &a.max_tokens, "N", "answer length, end ignored (64)", 1, 1e6},
        {"rate", 'r', CLI_LIST, &a.rates, "R", "requests per second (1)", 0, 0},
        {"requests", 0, CLI_INT, &a.n, "N", "requests per rate (32)", 1, 1e6},
        {"arrivals", 0, CLI_STR, &a.arrivals, "HOW", "poisson (default) or fixed", 0, 0},
        {"seed", 0, CLI_INT, &a.seed, "N", "of the arrivals", 0, 9e18},
        {"warm-up", 0, CLI_INT, &a.warm_up, "N", "requests before the first rate, not counted", 0,
         1e4},
        {"sweep", 0, CLI_FLAG, &a.sweep, NULL, "raise the rate until the server saturates", 0, 0},
        {"factor", 0, CLI_NUM, &a.factor, "X", "of the sweep, from rate to rate (1.5)", 1.01, 100},
        {"steps", 0, CLI_INT, &a.most_steps, "N", "of the sweep at most (16)", 1, STEPS_MAX - 1},
        {"slo-ttft", 0, CLI_NUM, &a.slo_ttft, "S", "goodput: first token within S seconds", 0, 1e6},
        {"slo-tpot", 0, CLI_NUM, &a.slo_tpot, "S", "goodput: seconds per further token", 0, 1e6},
        {"slo-e2e", 0, CLI_NUM, &a.slo_e2e, "S", "goodput: whole answer within S seconds", 0, 1e6},
        {"timeout", 0, CLI_NUM, &a.timeout, "S", "per request (600)", 0.001, 1e6},
        {"max-in-flight", 0, CLI_INT, &a.max_in_flight, "N", "more than that fail (512)", 1, 10000},
        {"title", 0, CLI_STR, &a.title, "TEXT", "of the report", 0, 0},
        {"raw", 0, CLI_STR, &a.raw, "FILE", "every request as one line of JSON", 0, 0},
        {"json", 0, CLI_FLAG, &a.json, NULL, "JSON instead of text", 0, 0},
        {"md", 0, CLI_FLAG, &a.md, NULL, "Markdown instead of text", 0, 0},
        {"csv", 0, CLI_FLAG, &a.csv, NULL, "CSV instead of text", 0, 0},
        {"html", 0, CLI_STR, &a.html, "FILE", "also write a page", 0, 0},
        {0},
    };
    vl_err err = {0};
    int rc = cli_parse("load --url URL [--workload FILE] [--rate R]... [--sweep]",
                       "Open-loop load on a running OpenAI-compatible server: latency percentiles "
                       "counted from the scheduled\narrival, goodput, a sweep to saturation.",
                       options, argc, argv, NULL);
    if (rc < 0) {
        static const char *const ways[] = {"poisson", "fixed", NULL};
        if (cli_choice(a.arrivals, ways) < 0)
            rc = cli_usage("--arrivals is poisson or fixed, not \"%s\"", a.arrivals);
        else if (strncmp(a.url, "http://", 7) && strncmp(a.url, "https://", 8))
            rc = cli_usage("--url must begin with http:// or https://, not \"%s\"", a.url);
        else if (a.factor <= 1) rc = cli_usage("--factor must be above 1");
        else rc = run(&a, &err);
    }
    free(a.images.v);
    free(a.rates.v);
    return rc;
}
