/* cost.h: what the parts of `vitreous cost` share: the evaluated choices and the report. */
#ifndef VL_COST_H
#define VL_COST_H

#include "cli/cli.h"
#include "cli/doc.h"
#include "cli/measured.h"
#include "cli/predict.h"

typedef struct choice {              /* one machine in one numeric mode, for one workload */
    const machine *mc;
    const num_mode *mode;
    bool measured;                   /* the stage times come from a bench of this machine */
    stage_times t;
    double memory;                   /* bytes for one request                             */
    int most;                        /* requests at once that fit the memory, <= 64       */
    char why[120];                   /* why it is infeasible, or ""                       */
} choice;

enum { CHOICES_MAX = 128 };
typedef struct cost_run {
    model_shape shape;
    workload w;
    machine_set machines;
    measured_set measured;           /* of this machine; empty without --measured         */
    choice choices[CHOICES_MAX];
    int n;
    const char *currency;            /* of the report: "CNY" or "USD"                     */
    double cny_per_usd;
    price_plan plan;
    double concurrency, slo, load, utilisation, min_instances;
    bool planned;                    /* modes that are not built yet may be chosen        */
    cli_list load_files;             /* saved runs of `vitreous load`                     */
    cli_list further;                /* saved benches of other models on this machine     */
} cost_run;

/* Price per hour in the report's currency, NAN where the machine has none under this plan. */
double cost_price(const cost_run *r, const machine *mc, price_plan plan);
choice cost_choice(const cost_run *r, const machine *mc, const num_mode *m, const workload *w);
double cost_latency(const cost_run *r, const choice *c, const workload *w, double batch);
/* The largest batch <= limit whose latency is within slo (0: any); 0 when even one is too slow. */
int cost_batch(const cost_run *r, const choice *c, const workload *w, double limit, double slo);
const char *cost_mark(const choice *c); /* "measured", "predicted", ... */
/* May this choice be recommended? It has a price, and its mode is built (or --planned was given).
 */
bool cost_eligible(const cost_run *r, const choice *c);
/* The cheapest feasible choice per request of a kind ("cpu", "gpu", NULL: any) and of one machine
 * (NULL: any), or NULL. */
const choice *cost_cheapest(const cost_run *r, const char *kind, const machine *mc);
double cost_rate(const cost_run *r, const choice *c); /* requests/s at the run's batch and SLO */

/* The sections, in their order (cost_tables.c, cost_money.c, cost_claims.c, cost_plots.c). */
int cost_section_summary(const cost_run *r, doc *d, vl_err *err);
void cost_section_work(const cost_run *r, doc *d);
void cost_section_latency(const cost_run *r, doc *d);
void cost_section_always_on(const cost_run *r, doc *d);
void cost_section_utilisation(const cost_run *r, doc *d);
void cost_section_load(const cost_run *r, doc *d);
void cost_section_break_even(const cost_run *r, doc *d);
void cost_section_sensitivity(const cost_run *r, doc *d);
int cost_section_scenarios(const cost_run *r, doc *d, vl_err *err);
int cost_section_claims(const cost_run *r, doc *d, vl_err *err);
void cost_section_roofline(const cost_run *r, doc *d);
void cost_section_check(const cost_run *r, doc *d);
int cost_section_sweeps(const cost_run *r, doc *d, vl_err *err);
int cost_section_bench(const cost_run *r, doc *d, vl_err *err);
void cost_section_sources(const cost_run *r, doc *d);

#endif
