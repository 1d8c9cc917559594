/* cost_money.c: the sections that decide: break-even between a CPU and a GPU, what moves the cost,
 * and the decision matrix. */
#include <math.h>
#include <string.h>

#include "cli/cost.h"
#include "cli/money.h"
#include "cli/plot.h"

/* ---- break-even ------------------------------------------------------------------------------ */

static void rate_plot(const cost_run *r, doc *d, const choice *a, const choice *b, double even) {
    enum { POINTS = 240 };
    static double x[POINTS], ya[POINTS], yb[POINTS];
    double ra = cost_rate(r, a), rb = cost_rate(r, b);
    double top = isnan(even) || even <= 0 ? 4 * (ra > rb ? ra : rb) : 4 * even, low = ra / 4;
    for (int i = 0; i < POINTS; i++) {
        x[i] = low * pow(top / low, (double)i / (POINTS - 1));
        ya[i] = money_annual(cost_price(r, a->mc, r->plan)) * money_instances(x[i], ra, 1, 1);
        yb[i] = money_annual(cost_price(r, b->mc, r->plan)) * money_instances(x[i], rb, 1, 1);
    }
    plot_series series[] = {{.name = a->mc->id, .n = POINTS, .x = x, .y = ya},
                            {.name = b->mc->id, .n = POINTS, .x = x, .y = yb}};
    char ylabel[48];
    snprintf(ylabel, sizeof ylabel, "%s per year", r->currency);
    plot_axes axes = {.title = "Cost versus rate", .x = "offered load, requests per second",
                      .y = ylabel, .log_x = true, .log_y = true, .mark = even,
                      .mark_label = "break-even"};
    doc_plot(d, "Fleets of whole machines, each used up to its rate.", plot_xy(&axes, series, 2));
}

static double even_of(const cost_run *r, const choice *a, const choice *b) {
    return money_break_even(cost_price(r, a->mc, r->plan), cost_rate(r, a),
                            cost_price(r, b->mc, r->plan), cost_rate(r, b));
}

static void even_row(const cost_run *r, doc *d, const choice *a, const choice *b) {
    double ra = cost_rate(r, a), rb = cost_rate(r, b);
    double pa = cost_price(r, a->mc, r->plan), pb = cost_price(r, b->mc, r->plan);
    double even = even_of(r, a, b);
    doc_row(d);
    doc_cell(d, "%s %s", a->mc->id, a->mode->name);
    doc_cell(d, "%s %s", b->mc->id, b->mode->name);
    doc_num(d, pa, "%.3f");
    doc_num(d, ra, "%.4g");
    doc_num(d, pb, "%.3f");
    doc_num(d, rb, "%.4g");
    doc_num(d, even, "%.4g");
    doc_num(d, even * 86400, "%.0f");
    if (isnan(even)) doc_cell(d, "the first stays cheaper at any load");
    else if (even <= 0) doc_cell(d, "the second is cheaper at any load");
    else doc_cell(d, "%.0f of the first against %.0f of the second", round(even / ra) + 1,
                  floor(even / rb + 1e-9) + 1);
}

void cost_section_break_even(const cost_run *r, doc *d) {
    const choice *a = NULL,
                 *b = NULL; /* the pair of the plot: the lowest rate at which the GPU wins */
    double least = INFINITY;
    doc_heading(d, "Break-even between a CPU and a GPU");
    doc_text(
        d,
        "The load above which the second kind makes the cheaper fleet: just above k x rate1 "
        "the first needs k + 1 machines; the smallest k for which the second's machines cost "
        "less. Each machine in its cheapest mode, rates as above (up to %g requests together).",
        r->concurrency);
    doc_table(d, "break_even", "first|second|price1 /h|rate1 /s|price2 /h|rate2 /s|break-even /s|"
              "requests per day|fleets just above it");
    for (int i = 0; i < r->n; i++)
        for (int k = 0; k < r->n; k++) {
            const choice *cpu = &r->choices[i], *gpu = &r->choices[k];
            if (cpu != cost_cheapest(r, "cpu", cpu->mc) || gpu != cost_cheapest(r, "gpu", gpu->mc))
                continue;
            even_row(r, d, cpu, gpu);
            double even = even_of(r, cpu, gpu);
            if (!a || (even > 0 && even < least)) a = cpu, b = gpu, least = even > 0 ? even : least;
        }
    if (a) rate_plot(r, d, a, b, even_of(r, a, b));
    else doc_text(d, "There is no feasible pair to compare.");
}

/* ---- sensitivity ----------------------------------------------------------------------------- */

static double thousand(const cost_run *r, const choice *base, const workload *w, double price) {
    choice c = cost_choice(r, base->mc, base->mode, w);
    int b = cost_batch(r, &c, w, r->concurrency, r->slo);
    return b ? 1000 * money_per_request(price, b / cost_latency(r, &c, w, b), r->utilisation) : NAN;
}

static void sensitivity_row(const cost_run *r, doc *d, const choice *c, const char *what,
                            const workload *low, const workload *high, double p0, double p1) {
    double price = cost_price(r, c->mc, r->plan), base = thousand(r, c, &r->w, price);
    double a = thousand(r, c, low, price * p0), b = thousand(r, c, high, price * p1);
    doc_row(d);
    doc_cell(d, "%s %s", c->mc->id, c->mode->name);
    doc_cell(d, "%s", what);
    doc_num(d, a, "%.3f");
    doc_num(d, base, "%.3f");
    doc_num(d, b, "%.3f");
    doc_num(d, 100 * (a / base - 1), "%+.0f");
    doc_num(d, 100 * (b / base - 1), "%+.0f");
}

void cost_section_sensitivity(const cost_run *r, doc *d) {
    const choice *chosen[] = {cost_cheapest(r, "cpu", NULL), cost_cheapest(r, "gpu", NULL)};
    doc_heading(d, "What moves the cost");
    doc_text(d, "%s per 1,000 requests at %.0f %% utilisation: low, as it is, high.", r->currency,
             100 * r->utilisation);
    doc_table(d, "sensitivity", "machine|changed|low|base|high|low %|high %");
    for (int i = 0; i < 2; i++) {
        const choice *c = chosen[i];
        if (!c) continue;
        workload same = r->w, half = same, twice = same, small = same, large = same;
        half.output_tokens = round(same.output_tokens / 2);
        twice.output_tokens *= 2;
        small.width = same.width / 2, small.height = same.height / 2;
        large.width *= 2, large.height *= 2;
        sensitivity_row(r, d, c, "price -30 % / +30 %", &same, &same, 0.7, 1.3);
        sensitivity_row(r, d, c, "answer length /2, x2", &half, &twice, 1, 1);
        if (same.width > 0)
            sensitivity_row(r, d, c, "picture sides /2, x2", &small, &large, 1, 1);
    }
}

/* ---- decision matrix ------------------------------------------------------------------------- */

typedef struct offer { const choice *c; double instances, year, latency; int batch; } offer;

/* Enough machines that `concurrency` requests in flight all end within the limit. */
static offer offer_of(const cost_run *r, const choice *c, const scenario *s) {
    offer o = {.c = c, .year = NAN};
    double price = cost_price(r, c->mc, r->plan);
    o.batch = cost_batch(r, c, &r->w, s->concurrency, s->slo_s);
    if (!o.batch || isnan(price)) return o;
    double daily = s->requests_per_day / 86400 / r->utilisation;
    o.latency = cost_latency(r, c, &r->w, o.batch);
    o.instances = money_instances(s->concurrency, o.batch, 1, s->min_instances);
    double by_day = money_instances(daily, o.batch / o.latency, 1, 1);
    if (by_day > o.instances) o.instances = by_day;
    o.year = money_annual(o.instances * price);
    return o;
}

/* The same with as many in flight as is cheapest, where s says 0. */
static offer cheapest_offer(const cost_run *r, const choice *c, const scenario *s) {
    scenario some = *s;
    offer best = {.c = c, .year = NAN};
    if (s->concurrency > 0) return offer_of(r, c, s);
    for (some.concurrency = 1; some.concurrency <= r->concurrency; some.concurrency++) {
        offer o = offer_of(r, c, &some);
        if (isnan(best.year) || o.year < best.year) best = o;
    }
    return best;
}

/* The cheapest offer and the cheapest of another machine; *alone: the least time of one request. */
static void best_offers(const cost_run *r, const scenario *s, offer *first, offer *second,
                        double *alone) {
    offer best = {.year = INFINITY}, next = {.year = INFINITY};
    *alone = INFINITY;
    for (int i = 0; i < r->n; i++) {
        const choice *c = &r->choices[i];
        offer o = cheapest_offer(r, c, s);
        if (!cost_eligible(r, c)) continue;
        if (!c->why[0] && times_total(&c->t) < *alone) *alone = times_total(&c->t);
        if (isnan(o.year)) continue;
        if (o.year < best.year) next = best.c && best.c->mc != c->mc ? best : next, best = o;
        else if (o.year < next.year && c->mc != best.c->mc) next = o;
    }
    *first = best;
    *second = next;
}

static void scenario_row(const cost_run *r, doc *d, const scenario *s) {
    offer best, next;
    double alone;
    best_offers(r, s, &best, &next, &alone);
    doc_row(d);
    doc_cell(d, "%s", s->name);
    doc_num(d, s->concurrency, "%.0f");
    doc_num(d, s->slo_s, "%g");
    doc_num(d, s->requests_per_day, "%.0f");
    if (isinf(best.year)) {
        doc_cell(d, "infeasible: the fastest takes %.3g s alone", alone);
        for (int i = 0; i < 6; i++) doc_num(d, NAN, "%f");
        doc_cell(d, "-");
        return;
    }
    double price = cost_price(r, best.c->mc, r->plan);
    doc_cell(d, "%s %s (%s)", best.c->mc->id, best.c->mode->name, best.c->mc->kind);
    doc_num(d, best.instances, "%.0f");
    doc_num(d, best.year, "%.0f");
    doc_num(d, best.latency, "%.3g");
    doc_num(d, 100 * (1 - best.latency / s->slo_s), "%.0f");
    doc_num(d, isinf(next.year) ? NAN : 100 * (next.year / best.year - 1), "%.0f");
    doc_num(d, s->requests_per_day * 365 * money_per_request(price, best.batch / best.latency, 1),
            "%.2f");
    if (isinf(next.year)) doc_cell(d, "none");
    else doc_cell(d, "%s %s", next.c->mc->id, next.c->mode->name);
}

/* Every choice against every scenario, so that nobody has to take the matrix on trust. */
static void scenario_detail(const cost_run *r, doc *d, const scenario *s, int n) {
    doc_table(d, "decision_detail", "scenario|machine|mode|alone s|together|latency s|instances|"
              "per year|verdict");
    for (int k = 0; k < n; k++)
        for (int i = 0; i < r->n; i++) {
            const choice *c = &r->choices[i];
            offer o = offer_of(r, c, &s[k]);
            bool price = !isnan(cost_price(r, c->mc, r->plan));
            doc_row(d);
            doc_cell(d, "%s", s[k].name);
            doc_cell(d, "%s", c->mc->id);
            doc_cell(d, "%s", c->mode->name);
            doc_num(d, c->why[0] ? NAN : times_total(&c->t), "%.3g");
            doc_num(d, o.batch ? (double)o.batch : NAN, "%.0f");
            doc_num(d, o.batch && price ? o.latency : NAN, "%.3g");
            doc_num(d, o.batch && price ? o.instances : NAN, "%.0f");
            doc_num(d, o.year, "%.0f");
            doc_cell(d, "%s", c->why[0] ? c->why : !o.batch ? "infeasible: SLO unreachable"
                     : !price ? "feasible, no price known" : cost_mark(c));
        }
}

/* Requests a day against the longest wait. */
static void decision_grid(const cost_run *r, doc *d) {
    static const double days[] = {100, 1000, 10000, 100000, 1000000}, limits[] = {3, 8, 30, 120};
    doc_text(d, "The same for any number of requests a day and any limit, arriving evenly, up to %g served together "
             "where all of them end within the limit, at most %.0f %% of the capacity planned: the cheapest machine, %s a "
             "year, and how much dearer the next best is.", r->concurrency, 100 * r->utilisation, r->currency);
    doc_table(d, "decision_grid", "requests/day|within 3 s|within 8 s|within 30 s|within 120 s");
    for (size_t i = 0; i < sizeof days / sizeof *days; i++) {
        doc_row(d);
        doc_num(d, days[i], "%.0f");
        for (size_t k = 0; k < sizeof limits / sizeof *limits; k++) {
            offer best, next;
            double alone;
            scenario s = {"", 0, limits[k], days[i], 1};
            best_offers(r, &s, &best, &next, &alone);
            if (isinf(best.year)) doc_cell(d, "infeasible");
            else if (isinf(next.year))
                doc_cell(d, "%.0f x %s %s: %.0f", best.instances, best.c->mc->id, best.c->mode->name,
                         best.year);
            else
                doc_cell(d, "%.0f x %s %s: %.0f (next +%.0f %%)", best.instances, best.c->mc->id,
                         best.c->mode->name, best.year, 100 * (next.year / best.year - 1));
        }
    }
}

/* What to do, in a sentence each, before any table. */
int cost_section_summary(const cost_run *r, doc *d, vl_err *err) {
    scenario list[16];
    int n;
    json_t *root = scenarios_load(list, 16, &n, err);
    if (!root) return -1;
    doc_heading(d, "In short");
    for (int i = 0; i < n; i++) {
        const scenario *s = &list[i];
        offer best, next;
        double alone;
        best_offers(r, s, &best, &next, &alone);
        if (isinf(best.year)) {
            doc_text(d, "%s (%.0f requests a day, each within %g s): no machine listed here can do it; "
                     "the fastest needs %.3g s.", s->name, s->requests_per_day, s->slo_s, alone);
            continue;
        }
        doc_text(d, "%s (%.0f requests a day, each within %g s): %.0f x %s in mode %s, %.0f %s a year, "
                 "always on; an answer takes %.3g s (%s).%s", s->name, s->requests_per_day, s->slo_s,
                 best.instances, best.c->mc->name, best.c->mode->name, best.year, r->currency,
                 best.latency, cost_mark(best.c), isinf(next.year) ? " Nothing else qualifies." : "");
        if (!isinf(next.year))
            doc_text(d, "The next best, %s in mode %s, costs %.0f %% more.", next.c->mc->name,
                     next.c->mode->name, 100 * (next.year / best.year - 1));
    }
    doc_text(d, "measured: timed on the machine itself. predicted: computed from data sheets, not yet seen "
             "by anyone. Prices are quoted with their dates at the end; a machine without a price (this "
             "one, unless --local-price was given) is never recommended.");
    json_decref(root);
    return 0;
}

int cost_section_scenarios(const cost_run *r, doc *d, vl_err *err) {
    scenario list[16];
    int n;
    json_t *root = scenarios_load(list, 16, &n, err);
    if (!root) return -1;
    doc_heading(d, "Decision matrix");
    doc_text(d,
             "For each use the cheapest machines whose requests, with that many in flight, all end "
             "within the limit (whole answer, workload \"%s\"). Margins: latency left under the "
             "limit, and by how much the next cheapest choice is dearer. used-only: what the "
             "requests alone would cost if idle hours were free (scale to zero).",
             r->w.name);
    doc_table(d, "decision",
              "use|concurrent|limit s|requests/day|choose|instances|per year|latency s|"
              "latency margin %|price margin %|used-only per year|next best");
    for (int i = 0; i < n; i++) scenario_row(r, d, &list[i]);
    decision_grid(r, d);
    doc_text(d, "Every machine and mode against every use:");
    scenario_detail(r, d, list, n);
    json_decref(root);
    return 0;
}
