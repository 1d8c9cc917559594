/* gpu_show.c: a gpu-report as tables and plots (doc.h). */
#include <math.h>
#include <string.h>

#include "cli/gpu_report.h"
#include "cli/plot.h"

static double num(const json_t *o, const char *key) {
    const json_t *v = json_object_get(o, key);
    return json_is_number(v) ? json_number_value(v) : NAN;
}
static const char *str(const json_t *o, const char *key) {
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}
/* 100 a / b; NAN (shown as "-") where there is nothing to divide by. */
static double percent(double a, double b) { return b > 0 ? 100 * a / b : NAN; }
/* What was asked for, of the sectors that were moved. */
static double sectors_used(const json_t *k, const char *used, const char *sectors) {
    return percent(num(k, used), 32 * num(k, sectors));
}

static void introduction(const json_t *root, doc *d) {
    const json_t *s = json_object_get(root, "shape"), *q = json_object_get(root, "request");
    doc_text(d, "Every time here is %s: the kernels' PTX was interpreted, counted, and a time was "
             "computed from the counts. Nothing was measured on a GPU.", str(root, "label"));
    doc_text(d, "%s", str(root, "assumptions"));
    doc_text(d, "Model %s: %.0f decoder layers, %.0f vision blocks, %.1f M parameters. Picture %.0f x "
             "%.0f (%.0f patches), prompt of %.0f rows, then one decoded token.",
             str(s, "name"), num(s, "layers"), num(s, "vision_depth"), num(s, "parameters") / 1e6,
             num(q, "width"), num(q, "height"), num(q, "patches"), num(q, "rows"));
    if (json_is_true(json_object_get(q, "every_launch")))
        doc_text(d, "Every launch was interpreted.");
    else
        doc_text(d, "Of launches that differ only in where their data lies (the layers of one stage) "
                 "one was interpreted and counted for all; --every-launch interprets each.");
}

static void devices(const json_t *root, doc *d) {
    size_t i;
    json_t *g;
    doc_heading(d, "Devices, from data sheets");
    doc_table(d, "devices", "gpu|name|cc|SMs|MHz|GB/s|L2 MB|tensor TFLOP/s|mma.sync % of it");
    json_array_foreach(json_object_get(root, "gpus"), i, g) {
        doc_row(d);
        doc_cell(d, "%s", str(g, "gpu"));
        doc_cell(d, "%s", str(g, "name"));
        doc_num(d, num(g, "cc"), "%.0f");
        doc_num(d, num(g, "sms"), "%.0f");
        doc_num(d, num(g, "mhz"), "%.0f");
        doc_num(d, num(g, "gbs"), "%.0f");
        doc_num(d, num(g, "l2_mb"), "%.0f");
        doc_num(d, num(g, "tensor_tflops"), "%.0f");
        doc_num(d, 100 * num(g, "mma_share"), "%.0f");
    }
}

/* Sums of one counter over a stage's kernels. */
static double sum(const json_t *stage, const char *key) {
    size_t i;
    json_t *k;
    double total = 0;
    json_array_foreach(json_object_get(stage, "kernels"), i, k) total += num(k, key);
    return total;
}

static void stages(const json_t *root, doc *d) {
    size_t i, j;
    json_t *g, *s;
    doc_heading(d, "Stages");
    doc_text(d, "Weight loads: bytes of the sectors of weights that kernels asked the caches for, and how "
             "much of these sectors they used. "
             "%% of bandwidth: the bytes a token needs (weights and keys) in the predicted time, of the "
             "data sheet's rate; %% of tensor peak: the arithmetic of the formulas likewise.");
    doc_table(d, "stages", "gpu|stage|launches|predicted ms|weight loads MB|weight sectors %|DRAM MB|"
              "% of bandwidth|% of tensor peak|per second");
    json_array_foreach(json_object_get(root, "gpus"), i, g)
        json_array_foreach(json_object_get(g, "stages"), j, s) {
            double t = num(s, "predicted_us") * 1e-6;
            doc_row(d);
            doc_cell(d, "%s", str(g, "gpu"));
            doc_cell(d, "%s", str(s, "stage"));
            doc_num(d, num(s, "launches"), "%.0f");
            doc_num(d, 1e3 * t, "%.3f");
            doc_num(d, num(s, "weight_bytes") / 1e6, "%.1f");
            doc_num(d, percent(sum(s, "weight_used"), 32 * sum(s, "weight_sectors")), "%.2f");
            doc_num(d, sum(s, "dram_bytes") / 1e6, "%.1f");
            doc_num(d, percent(num(s, "needed_bytes"), t * num(g, "gbs") * 1e9), "%.1f");
            doc_num(d, percent(num(s, "flop"), t * num(g, "tensor_tflops") * 1e12), "%.1f");
            doc_num(d, 1 / t, "%.1f");
        }
}

static void kernels(const json_t *g, const json_t *s, doc *d) {
    char name[80];
    size_t i;
    json_t *k;
    snprintf(name, sizeof name, "%s_%s", str(g, "gpu"), str(s, "stage"));
    doc_heading(d, name);
    doc_table(d, name, "kernel|launches|load MB|store MB|DRAM MB|load sectors %|store sectors %|"
              "bank conflicts|warps %|registers|stack B|shared KB|predicted us|% of roof|limit");
    json_array_foreach(json_object_get(s, "kernels"), i, k) {
        doc_row(d);
        doc_cell(d, "%s", str(k, "kernel"));
        doc_num(d, num(k, "launches"), "%.0f");
        doc_num(d, num(k, "load_bytes") / 1e6, "%.3f");
        doc_num(d, num(k, "store_bytes") / 1e6, "%.3f");
        doc_num(d, num(k, "dram_bytes") / 1e6, "%.3f");
        doc_num(d, sectors_used(k, "load_used", "load_sectors"), "%.1f");
        doc_num(d, sectors_used(k, "store_used", "store_sectors"), "%.1f");
        doc_num(d, num(k, "shared_wavefronts") - num(k, "shared_ideal"), "%.0f");
        doc_num(d, num(k, "blocks") > 0 ? 100 * num(k, "occupancy") : NAN, "%.0f");
        doc_num(d, num(k, "blocks") > 0 ? num(k, "registers") : NAN, "%.0f");
        doc_num(d, num(k, "blocks") > 0 ? num(k, "stack_bytes") : NAN, "%.0f");
        doc_num(d, num(k, "blocks") > 0 ? num(k, "shared_bytes") / 1024 : NAN, "%.1f");
        doc_num(d, num(k, "predicted_us"), "%.1f");
        doc_num(d, percent(num(k, "roof_us"), num(k, "predicted_us")), "%.0f");
        doc_cell(d, "%s", str(k, "limiter"));
    }
}

/* ---- plots ----------------------------------------------------------------------------------- */

enum { PARTS = 8, BARS = 8 };

/* The names of the kernels that take longest on the first device, then "others". */
static int longest(const json_t *stage, const char *names[PARTS]) {
    int n = 0;
    double limit = INFINITY;
    while (n < PARTS - 1) {
        const json_t *best = NULL;
        size_t i;
        json_t *k;
        json_array_foreach(json_object_get(stage, "kernels"), i, k)
            if (num(k, "predicted_us") < limit && (!best || num(k, "predicted_us") > num(best, "predicted_us")))
                best = k;
        if (!best) break;
        limit = num(best, "predicted_us");
        names[n++] = str(best, "kernel");
    }
    names[n] = "others";
    return n + 1;
}

static const json_t *stage_of(const json_t *g, const char *name) {
    size_t i;
    json_t *s;
    json_array_foreach(json_object_get(g, "stages"), i, s)
        if (!strcmp(str(s, "stage"), name)) return s;
    return NULL;
}

/* Where the time of one stage goes, a bar for each device. */
static void bars(const json_t *root, const char *stage, doc *d) {
    const char *labels[BARS], *names[PARTS];
    double values[BARS * PARTS] = {0};
    int n = 0, parts = 0;
    char title[120];
    size_t i, j;
    json_t *g, *k;
    json_array_foreach(json_object_get(root, "gpus"), i, g) {
        const json_t *s = stage_of(g, stage);
        if (!s || n == BARS) continue;
        if (!n) parts = longest(s, names);
        json_array_foreach(json_object_get(s, "kernels"), j, k) {
            int p = 0;
            while (p < parts - 1 && strcmp(names[p], str(k, "kernel"))) p++;
            values[n * parts + p] += num(k, "predicted_us") / 1e3;
        }
        labels[n++] = str(g, "gpu");
    }
    if (!n) return;
    snprintf(title, sizeof title, "%s: %s", stage, str(root, "label"));
    doc_plot(d, "Sums over the launches of each kernel.",
             plot_stack(title, "ms", labels, n, names, parts, values));
}

/* The kernels of all stages under the roof of one device. */
static void roofline(const json_t *root, const json_t *g, doc *d) {
    enum { ROOF = 48, DOTS = 64 };
    double rx[ROOF], ry[ROOF], x[DOTS], y[DOTS], peak = num(g, "tensor_tflops") * 1e3;
    const char *labels[DOTS];
    char title[120];
    int n = 0;
    size_t i, j;
    json_t *s, *k;
    for (int p = 0; p < ROOF; p++) {
        rx[p] = 0.25 * pow(16384 / 0.25, (double)p / (ROOF - 1));
        ry[p] = fmin(rx[p] * num(g, "gbs"), peak);
    }
    json_array_foreach(json_object_get(g, "stages"), i, s)
        json_array_foreach(json_object_get(s, "kernels"), j, k) {
            double flop = num(k, "mma_flops"), bytes = num(k, "dram_bytes");
            if (!(flop > 0) || !(bytes > 0) || n == DOTS) continue;
            x[n] = flop / bytes;
            y[n] = flop / num(k, "predicted_us") / 1e3;
            labels[n++] = str(k, "kernel");
        }
    if (!n) return;
    snprintf(title, sizeof title, "%s: %s", str(g, "gpu"), str(root, "label"));
    plot_series series[] = {{.name = "data sheet", .n = ROOF, .x = rx, .y = ry},
                            {.name = "kernels", .n = n, .x = x, .y = y, .labels = labels, .dots = true}};
    plot_axes axes = {.title = title, .x = "mma FLOP per byte of DRAM", .y = "GFLOP/s", .log_x = true,
                      .log_y = true, .mark = NAN};
    doc_plot(d, "Kernels that use tensor cores, one dot a stage.", plot_xy(&axes, series, 2));
}

void gpu_show(const json_t *root, doc *d) {
    size_t i, j;
    json_t *g, *s;
    introduction(root, d);
    devices(root, d);
    stages(root, d);
    bars(root, "decode", d);
    bars(root, "prefill", d);
    bars(root, "encode", d);
    json_array_foreach(json_object_get(root, "gpus"), i, g) {
        json_array_foreach(json_object_get(g, "stages"), j, s) kernels(g, s, d);
        roofline(root, g, d);
    }
}
