/* bench_show.c: a run, or two runs side by side, as a report (doc.h). */
#include <math.h>
#include <string.h>

#include "cli/bench.h"
#include "cli/host.h"
#include "loader/json.h"

static double num(const json_t *o, const char *key) {
    const json_t *v = json_object_get(o, key);
    return json_is_number(v) ? json_number_value(v) : NAN;
}
static const char *str(const json_t *o, const char *key) {
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "unknown";
}

static void measured_on(const json_t *root, doc *d) {
    const json_t *host = json_object_get(root, "machine"), *m = json_object_get(root, "model");
    const json_t *p = json_object_get(root, "peaks");
    doc_text(d,
             "%s; %.1f GiB; caches %s; %s MHz, governor %s, boost %s; threads of core 0: %s; NUMA "
             "nodes %s; memory channels are not visible from inside, so the read rate below was "
             "measured; transparent huge pages %s, pool of %s; %s, %s; compiler %s; commit %s; load "
             "at the start %s; %s.",
             str(host, "name"), num(host, "memory_gib"), str(host, "caches"), str(host, "mhz"),
             str(host, "governor"), str(host, "boost"), str(host, "threads_of_core_0"),
             str(host, "numa_nodes"), str(host, "huge_pages"), str(host, "huge_page_pool"),
             str(host, "system"), str(host, "kernel"), str(host, "compiler"), str(host, "commit"),
             str(host, "load"), str(root, "date"));
    doc_text(d,
             "%s on %s, %.0f threads, %.1f M parameters; SHA-256 of config and tensor tables %.16s, "
             "of the weights %.16s. Peak memory of the process %.2f GiB. Energy: %s.",
             str(m, "name"), str(m, "backend"), num(m, "threads"), num(m, "parameters") / 1e6,
             str(m, "fingerprint"), json_object_get(m, "weights_sha256") ? str(m, "weights_sha256")
             : "not computed (--hash-weights)", num(root, "peak_rss_gib"),
             host_joules() < 0 ? "not readable here (no RAPL)" : "RAPL of the packages");
    doc_text(
        d,
        "Peaks in the same run, one measurement per round, best (median): read %.1f (%.1f) GB/s, "
        "float32 FMA %.0f (%.0f) GFLOP/s, products of exact mode %.0f, bf16 %.0f GFLOP/s, int8 %.0f GOP/s. Caches off, warm-up "
        "not counted, end token ignored.",
        num(p, "read_gbs"), num(p, "read_gbs_median"), num(p, "fp32_gflops"),
        num(p, "fp32_gflops_median"), num(p, "exact_gflops"), num(p, "bf16_gflops"), num(p, "int8_gops"));
}

void bench_show_stages(const json_t *root, const char *name, doc *d) {
    size_t i;
    json_t *o;
    doc_text(
        d,
        "Seconds; interval: 95 %% bootstrap of the median; decode: one token. Share of the roof: "
        "of the best arithmetic or read rate of this run, whichever is nearer; for decode the read rate is the "
        "median of passes between its tokens.");
    doc_table(d, name,
              "stage|case|mode|threads|size|batch|n|median s|low s|high s|P90 s|P95 s|P99 s|"
              "GFLOP/s|GB/s|% of roof|CPU %|J");
    json_array_foreach(json_object_get(root, "stages"), i, o) {
        static const char *const keys[] = {"median_s", "low_s", "high_s",
                                           "p90_s",    "p95_s", "p99_s"};
        double n = num(o, "n");
        doc_row(d);
        doc_cell(d, "%s", str(o, "stage"));
        doc_cell(d, "%s", str(o, "case"));
        doc_cell(d, "%s", str(o, "mode"));
        doc_num(d, num(o, "threads"), "%.0f");
        doc_num(d, num(o, "size"), "%.0f");
        doc_num(d, num(o, "batch"), "%.0f");
        doc_num(d, n, "%.0f");
        for (int k = 0; k < 6; k++) /* no percentile is claimed from fewer samples than it needs */
            doc_num(d,
                    k < 3 || n >= (k == 3   ? 10
                                   : k == 4 ? 20
                                            : 100)
                        ? num(o, keys[k])
                        : NAN,
                    "%.4f");
        doc_num(d, num(o, "gflops"), "%.1f");
        doc_num(d, num(o, "gbs"), "%.2f");
        if (json_object_get(o, "roof") && json_object_get(o, "read_gbs"))
            doc_cell(d, "%.1f %s, %.1f GB/s between the tokens", num(o, "roof_percent"), str(o, "roof"), num(o, "read_gbs"));
        else if (json_object_get(o, "roof")) doc_cell(d, "%.1f %s", num(o, "roof_percent"), str(o, "roof"));
        else doc_num(d, NAN, "%f");
        doc_num(d, num(o, "cpu_percent"), "%.0f");
        doc_num(d, num(o, "joules"), "%.1f");
    }
}

static void asked(const json_t *root, doc *d) {
    size_t i;
    json_t *o;
    if (!json_array_size(json_object_get(root, "workload"))) return;
    doc_heading(d, "What was asked");
    doc_text(d, "The digest is over the decoded picture and its parameters; pictures without a file "
             "name are drawn by the benchmark.");
    doc_table(d, "workload", "case|width|height|patches|image tokens|prompt tokens|output tokens|"
              "picture SHA-256");
    json_array_foreach(json_object_get(root, "workload"), i, o) {
        static const char *const keys[] = {"width",         "height",        "patches",
                                           "image_tokens", "prompt_tokens", "output_tokens"};
        doc_row(d);
        doc_cell(d, "%s", str(o, "case"));
        for (int k = 0; k < 6; k++) doc_num(d, num(o, keys[k]), "%.0f");
        doc_cell(d, "%.16s", str(o, "picture_sha256"));
    }
}

static void predictor(const json_t *root, doc *d) {
    const json_t *list = json_object_get(root, "predictor");
    double worst = 0;
    size_t i;
    json_t *o;
    if (!json_array_size(list)) return;
    doc_heading(d, "Stages predicted from single operations");
    doc_text(d, "Each stage as the sum of its operations at rates that were measured apart, on fixed "
             "shapes, once before every round; nothing is fitted to a stage. Means on both sides.");
    doc_table(d, "predictor", "model|stage|case|mode|size|measured mean s|predicted s|error %");
    json_array_foreach(list, i, o) {
        static const char *const words[] = {"model", "stage", "case", "mode"};
        doc_row(d);
        for (int k = 0; k < 4; k++) doc_cell(d, "%s", str(o, words[k]));
        doc_num(d, num(o, "size"), "%.0f");
        doc_num(d, num(o, "measured_s"), "%.4f");
        doc_num(d, num(o, "predicted_s"), "%.4f");
        doc_num(d, num(o, "error_percent"), "%+.1f");
        if (fabs(num(o, "error_percent")) > worst) worst = fabs(num(o, "error_percent"));
    }
    doc_text(d, "Largest error: %.1f %%.", worst);
    doc_table(d, "rates", "operation|mode|shape|rate|unit|% of peak");
    json_array_foreach(json_object_get(root, "rates"), i, o) {
        doc_row(d);
        doc_cell(d, "%s", str(o, "op"));
        doc_cell(d, "%s", str(o, "mode"));
        doc_cell(d, "%s", str(o, "shape"));
        doc_num(d, num(o, "rate"), "%.3g");
        doc_cell(d, "%s", str(o, "unit"));
        doc_num(d, num(o, "peak_percent"), "%.0f");
    }
}

static void pieces(const json_t *root, doc *d) {
    size_t i;
    json_t *o;
    if (json_array_size(json_object_get(root, "pieces")) < 2) return;
    doc_heading(d, "The pieces of this run");
    doc_text(d, "Measured one after the other; the shares above are of the best peaks of all of them.");
    doc_table(d, "pieces", "file|date|load at its start|read GB/s|float32 GFLOP/s|bf16 GFLOP/s|int8 GOP/s");
    json_array_foreach(json_object_get(root, "pieces"), i, o) {
        static const char *const keys[] = {"read_gbs", "fp32_gflops", "bf16_gflops", "int8_gops"};
        const char *file = strrchr(str(o, "file"), '/');
        doc_row(d);
        doc_cell(d, "%s", file ? file + 1 : str(o, "file"));
        doc_cell(d, "%s", str(o, "date"));
        doc_cell(d, "%.14s", str(o, "load"));
        for (int k = 0; k < 4; k++)
            doc_num(d, num(json_object_get(o, "peaks"), keys[k]), k ? "%.0f" : "%.1f");
    }
}

static void tips(const json_t *root, doc *d) {
    size_t i;
    json_t *o;
    if (!json_array_size(json_object_get(root, "tips"))) return;
    doc_heading(d, "Tips, measured");
    doc_text(d, "a without, b with; medians in seconds; p from a permutation test on the samples.");
    doc_table(d, "tips", "tip|metric|a|a s|b|b s|change %|a P99 s|b P99 s|n a|n b|p|verdict");
    json_array_foreach(json_object_get(root, "tips"), i, o) {
        doc_row(d);
        doc_cell(d, "%s", str(o, "tip"));
        bool none = !json_object_get(o, "a");
        doc_cell(d, "%s", none ? "-" : str(o, "metric"));
        doc_cell(d, "%s", none ? "-" : str(o, "a"));
        doc_num(d, num(o, "a_s"), "%.4g");
        doc_cell(d, "%s", none ? "-" : str(o, "b"));
        doc_num(d, num(o, "b_s"), "%.4g");
        doc_num(d, num(o, "change_percent"), "%+.1f");
        doc_num(d, num(o, "n_a") >= 100 ? num(o, "a_p99_s") : NAN, "%.4g");
        doc_num(d, num(o, "n_b") >= 100 ? num(o, "b_p99_s") : NAN, "%.4g");
        doc_num(d, num(o, "n_a"), "%.0f");
        doc_num(d, num(o, "n_b"), "%.0f");
        doc_num(d, num(o, "p"), "%.4f");
        doc_cell(d, "%s", str(o, "verdict"));
    }
}

void bench_show(const json_t *root, doc *d) {
    measured_on(root, d);
    doc_heading(d, "Stages");
    bench_show_stages(root, "stages", d);
    tips(root, d);
    predictor(root, d);
    asked(root, d);
    pieces(root, d);
}

/* ---- comparison ------------------------------------------------------------------------------ */

static const json_t *same_row(const json_t *root, const json_t *row) {
    static const char *const keys[] = {"stage", "case", "mode", "size", "batch", "threads"};
    size_t i;
    json_t *o;
    json_array_foreach(json_object_get(root, "stages"), i, o) {
        bool same = true;
        for (size_t k = 0; k < sizeof keys / sizeof *keys; k++)
            same = same && json_equal(json_object_get(o, keys[k]), json_object_get(row, keys[k]));
        if (same) return o;
    }
    return NULL;
}

static size_t samples_of(const json_t *o, double *v) {
    const json_t *a = json_object_get(o, "samples");
    size_t n = 0;
    for (size_t i = 0; i < json_array_size(a) && n < BENCH_SAMPLES; i++)
        v[n++] = json_number_value(json_array_get(a, i));
    return n;
}

static void compare_row(const json_t *a, const json_t *b, doc *d) {
    static double va[BENCH_SAMPLES], vb[BENCH_SAMPLES];
    size_t na = samples_of(a, va), nb = samples_of(b, vb);
    double p = stats_permutation(va, na, vb, nb);
    double change = 100 * (num(b, "median_s") / num(a, "median_s") - 1);
    doc_row(d);
    doc_cell(d, "%s", str(a, "stage"));
    doc_cell(d, "%s", str(a, "case"));
    doc_num(d, num(a, "median_s"), "%.4f");
    doc_num(d, num(b, "median_s"), "%.4f");
    doc_num(d, change, "%+.1f");
    doc_num(d, (double)na, "%.0f");
    doc_num(d, (double)nb, "%.0f");
    doc_num(d, p, "%.4f");
    if (na < STATS_LEAST || nb < STATS_LEAST) doc_cell(d, "too few samples for a verdict");
    else if (p >= 0.05) doc_cell(d, "no significant difference");
    else doc_cell(d, change < 0 ? "faster" : "slower");
}

int bench_compare(const char *path_a, const char *path_b, doc *d, vl_err *err) {
    json_t *a = vl_json_load(path_a, 64 << 20, err),
           *b = a ? vl_json_load(path_b, 64 << 20, err) : NULL;
    json_t *o;
    size_t i, rows = 0;
    if (b) {
        const json_t *pa = json_object_get(a, "peaks"), *pb = json_object_get(b, "peaks");
        doc_text(
            d,
            "a: %s, commit %s, %s. b: %s, commit %s, %s. Peaks a and b: read %.1f and %.1f GB/s, "
            "FMA %.0f and %.0f GFLOP/s: where these differ, so did the machine.",
            path_a, str(json_object_get(a, "machine"), "commit"), str(a, "date"), path_b,
            str(json_object_get(b, "machine"), "commit"), str(b, "date"), num(pa, "read_gbs"),
            num(pb, "read_gbs"), num(pa, "fp32_gflops"), num(pb, "fp32_gflops"));
        doc_table(d, "compare", "stage|case|a s|b s|change %|n a|n b|p|verdict");
        json_array_foreach(json_object_get(a, "stages"), i, o) {
            const json_t *other = same_row(b, o);
            if (!other) continue;
            compare_row(o, other, d);
            rows++;
        }
        doc_text(d,
                 "%zu rows in both runs. faster, slower: p below 0.05 in a permutation test on the "
                 "medians.",
                 rows);
    }
    json_decref(a);
    json_decref(b);
    if (!b) return -1;
    return rows ? 0 : vl_fail(err, VL_E_INPUT, "%s and %s have no stage in common", path_a, path_b);
}
