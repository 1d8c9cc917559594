/* cost_plots.c: the roofline with the stages as dots, and the rate sweep that `vitreous load`
 * saved. */
#include <math.h>
#include <string.h>

#include "cli/bench.h"
#include "cli/cost.h"
#include "cli/plot.h"
#include "loader/json.h"

/* ---- roofline -------------------------------------------------------------------------------- */

enum { ROOF = 64 };

static void roof(const machine *mc, double peak, double *x, double *y) {
    for (int i = 0; i < ROOF; i++) {
        x[i] = 0.25 * pow(16384 / 0.25, (double)i / (ROOF - 1));
        double memory = x[i] * mc->read_gbs.v;
        y[i] = memory < peak ? memory : peak;
    }
}

/* Intensity (FLOP per byte) and rate (GFLOP/s) of the three stages of a choice. */
static void stage_dots(const cost_run *r, const choice *c, double x[3], double y[3]) {
    const model_shape *s = &r->shape;
    const num_mode *m = c->mode;
    prompt_size p = prompt_of(s, &r->w);
    stage_work e = work_encode(s, p.patches), f = work_prefill(s, p.rows),
               g = work_decode(s, p.rows, 1);
    double step = c->t.decode / (r->w.output_tokens - 1);
    x[0] = work_flop(&e) / encode_bytes(s, m);
    y[0] = work_flop(&e) / c->t.encode / 1e9;
    x[1] = work_flop(&f) / decoder_bytes(s, m);
    y[1] = work_flop(&f) / c->t.prefill / 1e9;
    x[2] = work_flop(&g) / (decoder_bytes(s, m) + g.kv * m->kv_bytes);
    y[2] = work_flop(&g) / step / 1e9;
}

void cost_section_roofline(const cost_run *r, doc *d) {
    enum { MOST = 4 };
    static double x[MOST][ROOF], y[MOST][ROOF], px[MOST][3], py[MOST][3];
    static const char *const labels[] = {"encode", "prefill", "decode"};
    static char names[MOST][64];
    plot_series series[2 * MOST];
    int n = 0;
    doc_heading(d, "Roofline");
    doc_table(d, "roofline",
              "machine|mode|stage|FLOP per byte|GFLOP/s|% of the roof there|figures");
    for (int i = 0; i < r->n; i++) {
        const choice *c = &r->choices[i];
        double dx[3], dy[3];
        if (c->why[0]) continue;
        stage_dots(r, c, dx, dy);
        for (int k = 0; k < 3; k++) {
            double memory = dx[k] * c->mc->read_gbs.v, peak = peak_flops(c->mc, c->mode) / 1e9;
            doc_row(d);
            doc_cell(d, "%s", c->mc->id);
            doc_cell(d, "%s", c->mode->name);
            doc_cell(d, "%s", labels[k]);
            doc_num(d, dx[k], doc_digits(dx[k]));
            doc_num(d, dy[k], doc_digits(dy[k]));
            doc_num(d, 100 * dy[k] / (memory < peak ? memory : peak), "%.0f");
            doc_cell(d, "%s", cost_mark(c));
        }
        /* The plot shows one mode of the first machines. */
        bool drawn = n && !strncmp(names[n - 1], c->mc->id, strlen(c->mc->id));
        if (drawn || n == MOST) continue;
        snprintf(names[n], sizeof names[n], "%s %s%s", c->mc->id, c->mode->name,
                 c->measured ? "" : ", predicted");
        roof(c->mc, peak_flops(c->mc, c->mode) / 1e9, x[n], y[n]);
        memcpy(px[n], dx, sizeof dx);
        memcpy(py[n], dy, sizeof dy);
        series[2 * n] = (plot_series){.name = names[n], .n = ROOF, .x = x[n], .y = y[n]};
        series[2 * n + 1] = (plot_series){.name = names[n], .n = 3, .x = px[n], .y = py[n],
                                          .labels = n ? NULL : labels, .dots = true,
                                          .of = 2 * n + 1};
        n++;
    }
    plot_axes axes = {.title = "Roofline: the machines' limits and the stages",
                      .x = "FLOP per byte read",
                      .y = "GFLOP/s",
                      .log_x = true,
                      .log_y = true,
                      .mark = NAN};
    doc_plot(d, "Lines: min(peak, intensity x read rate). Dots in the line's colour: its stages, decode on the "
             "left, then prefill, then encode.",
             plot_xy(&axes, series, 2 * n));
}

/* ---- saved loads and benches ----------------------------------------------------------------- */

enum { SWEEP_MOST = 64, SWEEP_KEYS = 6 };

static int read_sweep(const json_t *root, const char *path, double v[SWEEP_KEYS][SWEEP_MOST],
                      int *n, vl_err *err) {
    static const char *const keys[SWEEP_KEYS] = {"rate",      "completed_per_s", "e2e_p50_s",
                                                 "e2e_p99_s", "ttft_p99_s",      "goodput_per_s"};
    size_t i;
    json_t *o;
    *n = 0;
    json_array_foreach(json_object_get(root, "sweep"), i, o) {
        if (*n == SWEEP_MOST) break;
        for (int k = 0; k < SWEEP_KEYS; k++)
            if (vl_json_num(o, path, keys[k], 0, 1e9, NAN, &v[k][*n], err)) return -1;
        ++*n;
    }
    return *n ? 0
              : vl_fail(err, VL_E_INPUT, "%s: no \"sweep\": not a file of vitreous load --json",
                        path);
}

static int section_sweep(const char *path, int index, doc *d, vl_err *err) {
    double v[SWEEP_KEYS][SWEEP_MOST];
    const char *title = "Load", *note;
    char name[32];
    int n;
    json_t *root = vl_json_load(path, 64 << 20, err);
    if (!root) return -1;
    int rc =
        vl_json_str(root, path, "title", title, &title, err) || read_sweep(root, path, v, &n, err);
    if (!rc) {
        note = json_string_value(json_array_get(json_object_get(root, "notes"), 0));
        snprintf(name, sizeof name, index ? "sweep%d" : "sweep", index + 1);
        doc_heading(d, title);
        doc_text(d, "Measured by vitreous load. %s", note ? note : "");
        doc_table(
            d, name,
            "offered /s|completed /s|latency P50 s|latency P99 s|first token P99 s|goodput /s");
        for (int k = 0; k < n; k++) {
            doc_row(d);
            for (int c = 0; c < SWEEP_KEYS; c++) doc_num(d, v[c][k], "%.4g");
        }
        plot_series series[] = {{.name = "latency P50", .n = n, .x = v[0], .y = v[2]},
                                {.name = "latency P99", .n = n, .x = v[0], .y = v[3]},
                                {.name = "first token P99", .n = n, .x = v[0], .y = v[4]}};
        plot_axes axes = {.title = title, .x = "offered requests per second", .y = "seconds",
                          .log_y = true, .mark = NAN};
        if (n > 1) doc_plot(d, "Latency against offered rate.", plot_xy(&axes, series, 3));
    }
    json_decref(root);
    return rc;
}

int cost_section_sweeps(const cost_run *r, doc *d, vl_err *err) {
    for (int i = 0; i < r->load_files.n; i++)
        if (section_sweep(r->load_files.v[i], i, d, err)) return -1;
    return 0;
}

/* Predictions of other models go into the one table; what has none is a sweep. */
int cost_section_bench(const cost_run *r, doc *d, vl_err *err) {
    json_t *root = r->measured.root, *list = json_object_get(root, "predictor");
    if (!root) return 0;
    if (!list) json_object_set_new(root, "predictor", list = json_array());
    for (int i = 0; i < r->further.n; i++) {
        json_t *other = vl_json_load(r->further.v[i], 64 << 20, err);
        if (!other) return -1;
        const json_t *rows = json_object_get(other, "predictor");
        const char *name = json_string_value(
            json_object_get(json_object_get(other, "model"), "name"));
        if (rows) {
            json_array_extend(list, (json_t *)(uintptr_t)rows);
        } else {
            doc_heading(d, "Threads, kernels and modes");
            doc_text(d, "Model %s; suffix: the highest tier of kernels allowed, and the threads.",
                     name ? name : "unknown");
            bench_show_stages(other, "grid", d);
        }
        json_decref(other);
    }
    doc_heading(d, "This machine, measured");
    bench_show(root, d);
    return 0;
}
