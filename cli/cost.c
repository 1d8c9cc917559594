/* cost.c: `vitreous cost`: CPU or GPU, at which latency, for how much a year. Evaluates every
 * machine of the profiles in every mode for one workload and writes the report of cost.h. */
#include "cli/cost.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- evaluation ------------------------------------------------------------------------------ */

double cost_price(const cost_run *r, const machine *mc, price_plan plan) {
    double v = mc->price[plan].v;
    if (!strcmp(mc->currency, r->currency)) return v;
    return strcmp(r->currency, "CNY") ? v / r->cny_per_usd : v * r->cny_per_usd;
}

/* Replaces predicted stages by measured ones; true when all of the model's own stages were. */
static bool take_measured(const cost_run *r, choice *c, const workload *w) {
    const measured_set *s = &r->measured;
    if (c->mc != &s->mc) return false;
    prompt_size p = prompt_of(&r->shape, w);
    double encode = measured_find(s, "encode", c->mode->name, p.patches);
    double prefill = measured_find(s, "prefill", c->mode->name, p.rows);
    double step = measured_find(s, "decode", c->mode->name, p.rows);
    double pre = measured_find(s, "preprocess", c->mode->name, w->width * w->height);
    if (!isnan(pre)) c->t.preprocess = pre;
    if (!isnan(encode)) c->t.encode = encode;
    if (!isnan(prefill)) c->t.prefill = prefill;
    if (!isnan(step)) /* the steps grow with the context as predicted */
        c->t.decode *= step / predict_step(c->mc, c->mode, &r->shape, p.rows, 1);
    return !isnan(prefill) && !isnan(step) && (p.patches == 0 || !isnan(encode));
}

choice cost_choice(const cost_run *r, const machine *mc, const num_mode *m, const workload *w) {
    choice c = {.mc = mc, .mode = m, .t = predict(mc, m, &r->shape, w, 1)};
    double have = mc->memory_gib.v * 1073741824.0;
    c.memory = memory_bytes(&r->shape, m, w, 1);
    c.measured = take_measured(r, &c, w);
    while (c.most < 64 && memory_bytes(&r->shape, m, w, c.most + 1) <= have) c.most++;
    if (!c.most)
        snprintf(c.why, sizeof c.why, "infeasible: needs %.1f GiB, has %.0f",
                 c.memory / 1073741824.0, mc->memory_gib.v);
    else if (isnan(times_total(&c.t)))
        snprintf(c.why, sizeof c.why, "infeasible: no %s units", peak_names[m->arithmetic]);
    return c;
}

double cost_latency(const cost_run *r, const choice *c, const workload *w, double batch) {
    double alone = predict(c->mc, c->mode, &r->shape, w, 1).decode;
    double together = predict(c->mc, c->mode, &r->shape, w, batch).decode;
    double decode = alone > 0 ? c->t.decode * together / alone : 0;
    return batch * times_first_token(&c->t) + decode;
}

int cost_batch(const cost_run *r, const choice *c, const workload *w, double limit, double slo) {
    int best = 0;
    if (c->why[0]) return 0;
    for (int b = 1; b <= c->most && b <= limit; b++)
        if (slo <= 0 || cost_latency(r, c, w, b) <= slo) best = b;
    return best;
}

double cost_rate(const cost_run *r, const choice *c) {
    int b = cost_batch(r, c, &r->w, r->concurrency, r->slo);
    return b ? b / cost_latency(r, c, &r->w, b) : 0;
}

const char *cost_mark(const choice *c) {
    return c->measured      ? "measured"
           : mode_built(c->mode, c->mc) ? "predicted"
                            : "predicted, mode not built yet";
}

bool cost_eligible(const cost_run *r, const choice *c) {
    return !isnan(cost_price(r, c->mc, r->plan)) && (mode_built(c->mode, c->mc) || r->planned);
}

const choice *cost_cheapest(const cost_run *r, const char *kind, const machine *mc) {
    const choice *best = NULL;
    double least = INFINITY;
    for (int i = 0; i < r->n; i++) {
        const choice *c = &r->choices[i];
        double rate = cost_rate(r, c), price = cost_price(r, c->mc, r->plan);
        if ((kind && strcmp(c->mc->kind, kind)) || (mc && c->mc != mc) || !(rate > 0) ||
            !cost_eligible(r, c))
            continue;
        if (price / rate < least) {
            least = price / rate;
            best = c;
        }
    }
    return best;
}

static int evaluate(cost_run *r, const cli_list *only) {
    for (int i = -1; i < r->machines.n; i++) {
        const machine *mc = i < 0 ? &r->measured.mc : &r->machines.v[i];
        bool wanted = only->n == 0 && (i >= 0 || r->measured.root);
        for (int k = 0; k < only->n; k++)
            wanted = wanted || (mc->id && !strcmp(mc->id, only->v[k]));
        for (int k = 0; wanted && k < mc->n_modes; k++) {
            const num_mode *m = mode_find(mc->modes[k]);
            if (!m) return cli_usage("%s: unknown mode \"%s\"", mc->id, mc->modes[k]);
            if (r->n < CHOICES_MAX) r->choices[r->n++] = cost_choice(r, mc, m, &r->w);
        }
    }
    return r->n ? 0 : cli_usage("no machine is left: --machine must name one of the profiles");
}

/* ---- the command ----------------------------------------------------------------------------- */

static int report(const cost_run *r, doc *d, vl_err *err) {
    if (cost_section_summary(r, d, err)) return -1;
    cost_section_latency(r, d);
    cost_section_always_on(r, d);
    cost_section_utilisation(r, d);
    cost_section_load(r, d);
    cost_section_break_even(r, d);
    cost_section_sensitivity(r, d);
    if (cost_section_scenarios(r, d, err) || cost_section_claims(r, d, err)) return -1;
    cost_section_work(r, d);
    cost_section_roofline(r, d);
    cost_section_check(r, d);
    if (cost_section_sweeps(r, d, err)) return -1;
    if (cost_section_bench(r, d, err)) return -1;
    cost_section_sources(r, d);
    return 0;
}

typedef struct args {
    const char *model, *like, *workload, *profiles, *measured, *html, *currency, *plan;
    double local_price, cny_per_usd;
    cli_list only;
    bool json, md, csv;
} args;

static int load(cost_run *r, const args *a, vl_err *err) {
    static const char *const plans[] = {"on_demand", "reserved", "spot", NULL};
    static const char *const currencies[] = {"CNY", "USD", NULL};
    vl_config config;
    int plan = cli_choice(a->plan, plans), currency = cli_choice(a->currency, currencies);
    if (plan < 0) return cli_usage("--plan is on_demand, reserved or spot, not \"%s\"", a->plan);
    if (currency < 0) return cli_usage("--currency is CNY or USD, not \"%s\"", a->currency);
    r->plan = (price_plan)plan;
    r->currency = currencies[currency];
    if (a->model) {
        if (vl_config_load(&config, a->model, err)) return cli_fail(err);
        const char *slash = strrchr(a->model, '/');
        r->shape = shape_of_config(&config, slash && slash[1] ? slash + 1 : a->model);
    } else if (shape_named(a->like, &r->shape)) {
        return cli_usage("--like is 2b, 4b, 8b or 32b, not \"%s\"", a->like);
    }
    if (workload_load(&r->w, a->workload, err) || machines_load(&r->machines, a->profiles, err))
        return cli_fail(err);
    if (a->measured &&
        measured_load(&r->measured, a->measured, &r->shape, &r->machines, err))
        return cli_fail(err);
    r->measured.mc.price[ON_DEMAND] = (figure){a->local_price, "quoted", "--local-price", ""};
    r->measured.mc.currency = r->currency;
    r->cny_per_usd = isnan(a->cny_per_usd) ? r->machines.cny_per_usd.v : a->cny_per_usd;
    return 0;
}

int cmd_cost(int argc, char **argv) {
    args a = {.like = "2b", .workload = "reference", .currency = "CNY", .plan = "on_demand",
              .local_price = NAN, .cny_per_usd = NAN};
    cost_run *r = vl_calloc(1, sizeof *r);
    if (!r) return cli_fail(&(vl_err){VL_E_NOMEM, "no memory"});
    *r = (cost_run){.concurrency = 8, .load = 1, .utilisation = 0.7, .min_instances = 1};
    const cli_option options[] = {
        {"model", 'm', CLI_STR, &a.model, "DIR", "take the shape from DIR/config.json", 0, 0},
        {"like", 0, CLI_STR, &a.like, "NAME", "2b (default), 4b, 8b or 32b", 0, 0},
        {"workload", 0, CLI_STR, &a.workload, "NAME",
         "reference, short, document, text-only or a file", 0, 0},
        {"profiles", 0, CLI_STR, &a.profiles, "FILE", "machines (default: the built-in list)", 0,
         0},
        {"machine", 0, CLI_LIST, &a.only, "ID", "only this one", 0, 0},
        {"measured", 0, CLI_STR, &a.measured, "FILE", "add this machine, from bench --json", 0, 0},
        {"local-price", 0, CLI_NUM, &a.local_price, "P", "its price per hour, in --currency", 0,
         1e6},
        {"load-file", 0, CLI_LIST, &r->load_files, "FILE", "add a run saved by load --json", 0, 0},
        {"further", 0, CLI_LIST, &r->further, "FILE", "with --measured: a bench of another model", 0, 0},
        {"rate", 0, CLI_NUM, &r->load, "R", "offered load, requests per second (1)", 1e-9, 1e9},
        {"slo", 0, CLI_NUM, &r->slo, "S", "longest allowed latency in seconds (0: any)", 0, 1e6},
        {"concurrency", 0, CLI_NUM, &r->concurrency, "N", "requests served together at most (8)", 1,
         64},
        {"utilisation", 0, CLI_NUM, &r->utilisation, "U", "planned share of the capacity (0.7)",
         0.01, 1},
        {"min-instances", 0, CLI_NUM, &r->min_instances, "N", "for availability (1)", 1, 1e6},
        {"plan", 0, CLI_STR, &a.plan, "NAME", "on_demand (default), reserved or spot", 0, 0},
        {"currency", 0, CLI_STR, &a.currency, "NAME", "CNY (default) or USD", 0, 0},
        {"cny-per-usd", 0, CLI_NUM, &a.cny_per_usd, "X", "exchange rate", 0.01, 1000},
        {"planned", 0, CLI_FLAG, &r->planned, NULL, "recommend modes that are not built yet, too",
         0, 0},
        {"json", 0, CLI_FLAG, &a.json, NULL, "JSON instead of text", 0, 0},
        {"md", 0, CLI_FLAG, &a.md, NULL, "Markdown instead of text", 0, 0},
        {"csv", 0, CLI_FLAG, &a.csv, NULL, "CSV instead of text", 0, 0},
        {"html", 0, CLI_STR, &a.html, "FILE", "also write one self-contained page with plots", 0,
         0},
        {0},
    };
    int rc = cli_parse("cost [--workload NAME] [--measured bench.json] [--html FILE]",
                       "What a workload costs on each machine: measured where it ran, predicted "
                       "from the hardware's figures elsewhere.", options, argc, argv, NULL);
    vl_err err = {0};
    doc d = {0};
    if (rc < 0) rc = load(r, &a, &err);
    else goto out;
    if (!rc) rc = evaluate(r, &a.only);
    if (rc) goto out;
    doc_begin(&d, "CPU or GPU: what a picture and an answer cost");
    rc = report(r, &d, &err) ? cli_fail(&err) : 0;
    doc_form form = a.json ? DOC_JSON : a.md ? DOC_MD : a.csv ? DOC_CSV : DOC_TEXT;
    if (!rc && doc_write(&d, form, stdout)) rc = CLI_BAD;
    if (!rc && a.html && doc_write_file(&d, DOC_HTML, a.html)) rc = CLI_BAD;
    doc_end(&d);
out:
    measured_free(&r->measured);
    machines_free(&r->machines);
    free(a.only.v);
    free(r->load_files.v);
    free(r->further.v);
    free(r);
    return rc;
}
