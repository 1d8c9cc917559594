/* cost_tables.c: the sections that show times and plain costs: what a stage needs, how long it
 * takes where, what a machine costs whether used or not, per request at a utilisation, and for a
 * load. */
#include <math.h>
#include <string.h>

#include "cli/cost.h"
#include "cli/money.h"
#include "cli/plot.h"

void cost_section_work(const cost_run *r, doc *d) {
    const model_shape *s = &r->shape;
    const num_mode *m = mode_find("exact");
    prompt_size p = prompt_of(s, &r->w);
    stage_work e = work_encode(s, p.patches), f = work_prefill(s, p.rows),
               g = work_decode(s, p.rows, 1);
    double n = r->w.output_tokens;
    doc_heading(d, "What the stages need");
    doc_text(
        d,
        "Shape %s: %.1f M parameters (%.1f M vision, %.1f M decoder, %.1f M output head). "
        "Workload \"%s\": %g x %g picture = %g patches = %g image tokens, %g text tokens, so %g "
        "rows of prompt; %g tokens of answer. Bytes are those of 16-bit weights and an f32 KV "
        "cache.",
        s->name, shape_parameters(s) / 1e6, (s->vit + s->merge + s->position) / 1e6,
        s->decoder / 1e6, s->head / 1e6, r->w.name, r->w.width, r->w.height, p.patches,
        p.image_tokens, r->w.text_tokens, p.rows, n);
    doc_table(d, "work", "stage|GFLOP|of it attention|GB read|FLOP per byte");
    const struct { const char *name; double flop, attention, bytes; } rows[] = {
        {"encode", work_flop(&e), e.attention, encode_bytes(s, m)},
        {"prefill", work_flop(&f), f.attention, decoder_bytes(s, m)},
        {"decode, first token", work_flop(&g), g.attention,
         decoder_bytes(s, m) + g.kv * m->kv_bytes},
    };
    for (int i = 0; i < 3; i++) {
        doc_row(d);
        doc_cell(d, "%s", rows[i].name);
        doc_num(d, rows[i].flop / 1e9, "%.1f");
        doc_num(d, rows[i].attention / 1e9, "%.1f");
        doc_num(d, rows[i].bytes / 1e9, "%.2f");
        doc_num(d, rows[i].flop / rows[i].bytes, "%.0f");
    }
}

static void latency_plot(const cost_run *r, doc *d) {
    static const char *const parts[] = {"preprocess", "encode", "prefill", "decode"};
    static char names[CHOICES_MAX][48];
    const char *labels[CHOICES_MAX];
    double values[CHOICES_MAX * 4];
    int n = 0;
    for (int i = 0; i < r->n; i++) {
        const choice *c = &r->choices[i];
        if (c->why[0]) continue;
        snprintf(names[n], sizeof names[n], "%s %s%s", c->mc->id, c->mode->name,
                 c->measured ? "" : " (predicted)");
        labels[n] = names[n];
        double *v = values + 4 * n++;
        v[0] = c->t.preprocess, v[1] = c->t.encode, v[2] = c->t.prefill, v[3] = c->t.decode;
    }
    doc_plot(d, "One request alone on each machine. Infeasible choices are left out.",
             plot_stack("Latency of one request, seconds", "s", labels, n, parts, 4, values));
}

void cost_section_latency(const cost_run *r, doc *d) {
    doc_heading(d, "Latency of one request");
    doc_text(d,
             "Seconds for workload \"%s\" with the machine to itself. measured: from a bench run "
             "on that machine; predicted: from the hardware's figures and the efficiencies listed "
             "under Sources. Every machine but \"this machine\" is predicted: none of them was "
             "available.",
             r->w.name);
    doc_table(d, "latency", "machine|mode|preprocess s|encode s|prefill s|first token s|decode s|"
              "total s|tokens/s|memory GiB|figures");
    for (int i = 0; i < r->n; i++) {
        const choice *c = &r->choices[i];
        const stage_times *t = &c->t;
        bool no = c->why[0];
        doc_row(d);
        doc_cell(d, "%s", c->mc->id);
        doc_cell(d, "%s", c->mode->name);
        doc_num(d, no ? NAN : t->preprocess, "%.3f");
        doc_num(d, no ? NAN : t->encode, "%.3g");
        doc_num(d, no ? NAN : t->prefill, "%.3g");
        doc_num(d, no ? NAN : times_first_token(t), "%.3g");
        doc_num(d, no ? NAN : t->decode, "%.3g");
        doc_num(d, no ? NAN : times_total(t), "%.3g");
        doc_num(d, no ? NAN : (r->w.output_tokens - 1) / t->decode, "%.1f");
        doc_num(d, c->memory / 1073741824.0, "%.2f");
        doc_cell(d, "%s", no ? c->why : cost_mark(c));
    }
    latency_plot(r, d);
}

void cost_section_always_on(const cost_run *r, doc *d) {
    doc_heading(d, "Always on");
    doc_text(d,
             "price x 24 x 365, whether anything is asked or not. At 0.298 CNY/h that is 0.298 x "
             "8,760 = 2,610.48 CNY, at 2.896 CNY/h it is 25,368.96 CNY. The often quoted 2,608.72 "
             "and 25,360.64 do not equal price x 8,760.");
    doc_table(d, "always_on", "machine|on demand per h|per year|reserved per year|spot per year|"
              "instances for availability|their price per year");
    for (int i = -1; i < r->machines.n; i++) {
        const machine *mc = i < 0 ? &r->measured.mc : &r->machines.v[i];
        if (i < 0 && !r->measured.root) continue;
        double hour = cost_price(r, mc, ON_DEMAND);
        doc_row(d);
        doc_cell(d, "%s", mc->id);
        doc_num(d, hour, "%.3f");
        doc_num(d, money_annual(hour), "%.2f");
        doc_num(d, money_annual(cost_price(r, mc, RESERVED)), "%.2f");
        doc_num(d, money_annual(cost_price(r, mc, SPOT)), "%.2f");
        doc_num(d, r->min_instances, "%.0f");
        doc_num(d, money_annual(hour) * r->min_instances, "%.2f");
    }
    doc_text(d, "All amounts in %s; %g CNY per USD (%s). A dash: no price is known.", r->currency,
             r->cny_per_usd, r->cny_per_usd == r->machines.cny_per_usd.v
             ? r->machines.cny_per_usd.mark : "given");
}

void cost_section_utilisation(const cost_run *r, doc *d) {
    static const double shares[] = {0.05, 0.25, 0.5, 0.75, 1};
    doc_heading(d, "Cost per 1,000 requests and per million tokens");
    doc_text(d,
             "price / (rate x 3600 x u) in %s, plan %s, per 1,000 requests and per million output "
             "tokens. rate: requests per second with up to %g "
             "served together%s. u: the share of the paid hours that is used.",
             r->currency, price_plan_names[r->plan], r->concurrency,
             r->slo > 0 ? " within the SLO" : "");
    doc_table(d, "utilisation", "machine|mode|together|rate /s|1000 at 5 %|1000 at 25 %|"
              "1000 at 50 %|1000 at 75 %|1000 at 100 %|1M tokens at 5 %|1M tokens at 50 %|"
              "1M tokens at 100 %|figures");
    for (int i = 0; i < r->n; i++) {
        const choice *c = &r->choices[i];
        double price = cost_price(r, c->mc, r->plan), rate = cost_rate(r, c);
        if (isnan(price)) continue;
        int batch = cost_batch(r, c, &r->w, r->concurrency, r->slo);
        doc_row(d);
        doc_cell(d, "%s", c->mc->id);
        doc_cell(d, "%s", c->mode->name);
        doc_num(d, batch ? (double)batch : NAN, "%.0f");
        doc_num(d, batch ? rate : NAN, "%.3g");
        for (int k = 0; k < 5; k++)
            doc_num(d, batch ? 1000 * money_per_request(price, rate, shares[k]) : NAN, "%.3f");
        for (int k = 0; k < 5; k += 2)
            doc_num(d, batch ? money_per_million(price, rate, r->w.output_tokens, shares[k]) : NAN,
                    "%.2f");
        doc_cell(d, "%s",
                 c->why[0] ? c->why
                 : batch   ? cost_mark(c)
                           : "infeasible: SLO unreachable");
    }
}

void cost_section_load(const cost_run *r, doc *d) {
    const choice *best = NULL;
    double least = INFINITY;
    char limit[32] = "none";
    if (r->slo > 0) snprintf(limit, sizeof limit, "%g s", r->slo);
    doc_heading(d, "The cheapest machines for a load");
    doc_text(d, "%g requests per second, latency limit %s, at most %.0f %% of the capacity "
             "planned, at least %g instance(s). instances = ceil(load / (rate x %.2f)).", r->load,
             limit, 100 * r->utilisation, r->min_instances, r->utilisation);
    doc_table(d, "load", "machine|mode|together|latency s|instances|per year|figures");
    for (int i = 0; i < r->n; i++) {
        const choice *c = &r->choices[i];
        double price = cost_price(r, c->mc, r->plan), rate = cost_rate(r, c);
        int b = cost_batch(r, c, &r->w, r->concurrency, r->slo);
        double n = money_instances(r->load, rate, r->utilisation, r->min_instances);
        double year = money_annual(n * price);
        if (isnan(price)) continue;
        doc_row(d);
        doc_cell(d, "%s", c->mc->id);
        doc_cell(d, "%s", c->mode->name);
        doc_num(d, b ? (double)b : NAN, "%.0f");
        doc_num(d, c->why[0] ? NAN : cost_latency(r, c, &r->w, b ? b : 1), "%.3g");
        doc_num(d, b ? n : NAN, "%.0f");
        doc_num(d, b ? year : NAN, "%.0f");
        doc_cell(d, "%s", c->why[0] ? c->why : b ? cost_mark(c) : "infeasible: SLO unreachable");
        if (b && cost_eligible(r, c) && year < least) {
            least = year;
            best = c;
        }
    }
    if (best) doc_text(d, "Cheapest feasible choice: %s in %s, %.0f %s a year (%s).", best->mc->id,
                       best->mode->name, least, r->currency, cost_mark(best));
    else doc_text(d, "No choice is feasible.");
}

void cost_section_check(const cost_run *r, doc *d) {
    const measured_set *s = &r->measured;
    double worst = 0;
    int held_out = 0;
    if (!s->root) return;
    doc_heading(d, "The predictor against measurement");
    for (int k = 0; k < s->mc.n_modes; k++) {
        const efficiency *e = efficiency_of(&s->mc, mode_find(s->mc.modes[k]));
        doc_text(d, "%s: efficiencies fitted on the rows marked \"fitted\": encode %.1f %%, attention "
                 "%.1f %%, prefill %.1f %% of the arithmetic peak, decode %.1f %% of the read rate.",
                 s->mc.modes[k], 100 * e->encode.v, 100 * e->attention.v, 100 * e->prefill.v,
                 100 * e->decode.v);
    }
    doc_text(d, "The other rows were not used and test the predictor. \"Stages predicted from single "
             "operations\" below tests it without any fit, also on other model shapes.");
    doc_table(d, "check", "stage|mode|size|batch|measured s|predicted s|error %|use");
    for (int i = 0; i < s->n; i++) {
        const measured_stage *v = &s->v[i];
        double p = measured_predict(s, &r->shape, v), error = 100 * (p / v->seconds - 1);
        doc_row(d);
        doc_cell(d, "%s", v->stage);
        doc_cell(d, "%s", v->mode);
        doc_num(d, v->size, "%.0f");
        doc_num(d, v->batch, "%.0f");
        doc_num(d, v->seconds, "%.4g");
        doc_num(d, p, "%.4g");
        doc_num(d, error, "%+.1f");
        doc_cell(d, v->fitted ? "fitted" : "held out");
        if (v->fitted || isnan(error) || !strcmp(v->stage, "preprocess")) continue;
        held_out++;
        if (fabs(error) > worst) worst = fabs(error);
    }
    if (held_out)
        doc_text(d, "Largest error over %d held-out encode, prefill and decode rows: %.1f %%.",
                 held_out, worst);
}

static void source_row(doc *d, const char *machine_id, const char *what, const figure *f,
                       const char *unit) {
    if (isnan(f->v)) return;
    doc_row(d);
    doc_cell(d, "%s", machine_id);
    doc_cell(d, "%s", what);
    doc_cell(d, "%.5g%s%s", f->v, *unit ? " " : "", unit);
    doc_cell(d, "%s", f->mark);
    doc_cell(d, "%s", f->source);
    doc_cell(d, "%s", f->date);
}

static void efficiency_rows(doc *d, const char *id, const char *mode, const efficiency *e) {
    const struct { const char *what; const figure *f; const char *unit; } rows[] = {
        {"encode", &e->encode, ""},
        {"attention", &e->attention, ""},
        {"prefill", &e->prefill, ""},
        {"decode", &e->decode, ""},
        {"token overhead", &e->token_overhead_s, "s"},
        {"preprocess", &e->preprocess_s_per_mp, "s per megapixel"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char what[48];
        snprintf(what, sizeof what, "%s%s%s", rows[i].what, *mode ? ", " : "", mode);
        source_row(d, id, what, rows[i].f, rows[i].unit);
    }
}

void cost_section_sources(const cost_run *r, doc *d) {
    doc_heading(d, "Sources");
    doc_text(d,
             "Every figure with its mark, source and date. Efficiencies are shares of the peak.");
    doc_table(d, "sources", "machine|figure|value|mark|source|date");
    source_row(d, "all", "exchange rate", &r->machines.cny_per_usd, "CNY per USD");
    for (int i = -1; i < r->machines.n; i++) {
        const machine *m = i < 0 ? &r->measured.mc : &r->machines.v[i];
        if (i < 0 && !r->measured.root) continue;
        source_row(d, m->id, "memory", &m->memory_gib, "GiB");
        source_row(d, m->id, "read rate", &m->read_gbs, "GB/s");
        for (int k = 0; k < PEAKS; k++) source_row(d, m->id, peak_names[k], &m->peak[k], "GFLOP/s");
        for (int k = 0; k < PRICE_PLANS; k++)
            source_row(d, m->id, price_plan_names[k], &m->price[k], m->currency);
        for (int k = 0; k < (m->by_mode ? m->n_modes : 1); k++)
            efficiency_rows(d, m->id, m->by_mode ? m->modes[k] : "", efficiency_of(m, mode_find(m->modes[k])));
    }
}
