/* cost_claims.c: the physics check. Each line of a circulating table against the least time that
 * the hardware allows (every unit busy every cycle, every byte at the peak rate). */
#include <math.h>
#include <stdbool.h>

#include "cli/cost.h"
#include "cli/money.h"

typedef struct line {
    const char *what;
    double claimed, floor;           /* seconds */
    double needs, has;               /* the rate that the claim implies, the machine's peak */
    const char *unit;
    bool slow;                       /* worth saying when it is far above the floor */
} line;

static void verdict(doc *d, const line *l, double best_known) {
    double share = l->needs / l->has;
    doc_num(d, share, "%.2f");
    if (share > 1) doc_cell(d, "impossible: exceeds the hardware %.1f times", share);
    else if (share > best_known)
        doc_cell(d, "implausible: %.0f %% of the peak, the best measured engine reaches %.0f %%",
                 100 * share, 100 * best_known);
    else if (l->slow && l->claimed > 20 * l->floor)
        doc_cell(d, "possible, but %.0f times slower than the floor", l->claimed / l->floor);
    else doc_cell(d, "possible");
}

static void rate_cell(doc *d, double v, const char *unit) {
    if (v >= 1000) doc_cell(d, "%.0f %s", v, unit);
    else doc_cell(d, "%.3g %s", v, unit);
}

static void claim_line(doc *d, const claim *c, const line *l) {
    doc_row(d);
    doc_cell(d, "%s", c->text);
    doc_cell(d, "%s", l->what);
    doc_num(d, l->claimed, "%.2f");
    doc_num(d, l->floor, "%.3g");
    rate_cell(d, l->needs, l->unit);
    rate_cell(d, l->has, l->unit);
    verdict(d, l, c->best_known_share);
}

/* The decode of this claim if the weights were stored in another mode. */
static line decode_line(const cost_run *r, const machine *mc, const claim *c, const char *as,
                        const char *what) {
    const num_mode *m = mode_find(as);
    prompt_size p = prompt_of(&r->shape, &r->w);
    double n = r->w.output_tokens, bytes = n * decoder_bytes(&r->shape, m);
    bytes += n * (p.rows + n / 2) * r->shape.kv_values * m->kv_bytes;
    return (line){what, c->decode_s, bytes / (mc->read_gbs.v * 1e9), bytes / c->decode_s / 1e9,
                  mc->read_gbs.v, "GB/s", false};
}

static void claim_rows(const cost_run *r, doc *d, const machine *mc, const claim *c) {
    const model_shape *s = &r->shape;
    const num_mode *m = mode_find(c->mode);
    prompt_size p = prompt_of(s, &r->w);
    stage_work e = work_encode(s, p.patches), f = work_prefill(s, p.rows);
    bool lacks = isnan(peak_flops(mc, m)); /* then give it the other 16-bit units */
    double peak = lacks ? mc->peak[PEAK_FP16].v : mc->peak[m->arithmetic].v;
    double flop = work_flop(&e) + work_flop(&f),
           memory = memory_bytes(s, m, &r->w, 1) / 1073741824.0;
    double pixels = r->w.width * r->w.height * 3 * (1 + 4.0 * 2); /* bytes in, f32 patches out x2 */
    line rows[] = {
        {"preprocess", c->preprocess_s, pixels / (mc->read_gbs.v * 1e9),
         pixels / c->preprocess_s / 1e9, mc->read_gbs.v, "GB/s", false},
        {"encode + prefill", c->prefill_s, flop / (peak * 1e9), flop / c->prefill_s / 1e9, peak,
         "GFLOP/s", true},
        decode_line(r, mc, c, c->mode, "decode"),
        decode_line(r, mc, c, "int8", "decode, were the weights int8"),
        decode_line(r, mc, c, "int4", "decode, were the weights int4"),
    };
    double sum = c->preprocess_s + c->prefill_s + c->decode_s;
    double hour = cost_price(r, mc, ON_DEMAND) * (r->currency[0] == 'U' ? r->cny_per_usd : 1);
    doc_row(d);
    doc_cell(d, "%s", c->text);
    doc_cell(d, "memory");
    doc_num(d, NAN, "%f");
    doc_num(d, NAN, "%f");
    doc_cell(d, "%.3g GiB", memory);
    doc_cell(d, "%.3g GiB", mc->memory_gib.v);
    doc_num(d, memory / mc->memory_gib.v, "%.2f");
    if (memory > mc->memory_gib.v)
        doc_cell(d, "impossible: the weights do not fit, %.1f times the memory",
                 memory / mc->memory_gib.v);
    else doc_cell(d, "possible");
    if (lacks) {
        doc_row(d);
        doc_cell(d, "%s", c->text);
        doc_cell(d, "number format");
        doc_num(d, NAN, "%f");
        doc_num(d, NAN, "%f");
        doc_cell(d, "%s units", peak_names[m->arithmetic]);
        doc_cell(d, "none");
        doc_num(d, NAN, "%f");
        doc_cell(d, "impossible: this chip has no %s arithmetic", peak_names[m->arithmetic]);
    }
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) claim_line(d, c, &rows[i]);
    double floor = rows[0].floor + rows[1].floor + rows[2].floor;
    bool broken = memory > mc->memory_gib.v || lacks || rows[1].needs > rows[1].has ||
                  rows[2].needs > rows[2].has;
    doc_row(d);
    doc_cell(d, "%s", c->text);
    doc_cell(d, "total");
    doc_num(d, c->total_s, "%.2f");
    doc_num(d, floor, "%.3g");
    doc_cell(d, "%.3g s", floor);
    doc_cell(d, "%.3g s", c->total_s);
    doc_num(d, floor / c->total_s, "%.2f");
    doc_cell(d, broken ? "impossible: rests on an impossible line" : "possible");
    doc_text(
        d,
        "%s: the stages add up to %.2f s (claimed %.2f). Per year: %.2f CNY claimed; %.3f x 24 "
        "x 365 = %.2f CNY, so the claim is off by %+.2f.",
        c->text, sum, c->total_s, c->annual_cny, hour, money_annual(hour),
        c->annual_cny - money_annual(hour));
}

/* The claims are about the 2B model and its usual question, whatever this report is about. */
int cost_section_claims(const cost_run *run, doc *d, vl_err *err) {
    claim list[16];
    int n;
    cost_run own = *run, *r = &own;
    json_t *root = claims_load(list, 16, &n, err);
    if (!root) return -1;
    if (shape_named("2b", &own.shape) || workload_load(&own.w, "reference", err)) {
        json_decref(root);
        return -1;
    }
    doc_heading(d, "The well-known table against physics");
    doc_text(d, "Floor: the least time the hardware allows for the 2B shape (%g x %g picture, %g "
             "tokens of answer), every unit busy every cycle. ratio above 1: the line needs more "
             "than the machine has.", r->w.width, r->w.height, r->w.output_tokens);
    for (int i = 0; i < n; i++) {
        const machine *mc = machines_find(&r->machines, list[i].machine);
        char name[48];
        if (!mc || !mode_find(list[i].mode)) continue;
        snprintf(name, sizeof name, "claim_%s", list[i].machine);
        doc_table(d, name, "claim|line|claimed s|floor s|needs|machine has|ratio|verdict");
        claim_rows(r, d, mc, &list[i]);
    }
    json_decref(root);
    return 0;
}
