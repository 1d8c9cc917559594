/* bench_merge.c: saved runs put together, so that a long measurement can be made in short pieces on
 * a machine that is wanted for other things as well. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/bench.h"
#include "loader/json.h"

enum { RUN_BYTES = 64 << 20 };

static const char *str(const json_t *o, const char *key) {
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

/* The element of list that has the same values under these keys. */
static json_t *same(const json_t *list, const json_t *o, const char *const *keys) {
    size_t i;
    json_t *e;
    json_array_foreach(list, i, e) {
        bool equal = true;
        for (int k = 0; keys[k]; k++)
            equal = equal && json_equal(json_object_get(e, keys[k]), json_object_get(o, keys[k]));
        if (equal) return e;
    }
    return NULL;
}

static void add_stages(json_t *root, const json_t *from) {
    static const char *const keys[] = {"stage", "case", "mode", "threads", "batch", "size", NULL};
    json_t *to = json_object_get(root, "stages"), *o;
    size_t i;
    json_array_foreach(json_object_get(from, "stages"), i, o) {
        json_t *row = same(to, o, keys);
        if (!row) {
            json_array_append(to, o);
            continue;
        }
        json_array_extend(json_object_get(row, "samples"), json_object_get(o, "samples"));
        bench_row_summary(row);
    }
}

static void add_list(json_t *root, const json_t *from, const char *name, const char *const *keys) {
    size_t i;
    json_t *o, *to = json_object_get(root, name);
    if (!to) json_object_set_new(root, name, to = json_array());
    json_array_foreach(json_object_get(from, name), i, o)
        if (!keys || !same(to, o, keys)) json_array_append(to, o);
}

/* The larger of two numbers under each key. */
static void take_larger(json_t *to, const json_t *from) {
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)from, key, v)
        if (!(json_number_value(json_object_get(to, key)) >= json_number_value(v)))
            json_object_set(to, key, v);
}

static void add_piece(json_t *root, const json_t *from, const char *path) {
    json_t *pieces = json_object_get(root, "pieces");
    if (!pieces) json_object_set_new(root, "pieces", pieces = json_array());
    json_array_append_new(pieces,
                          json_pack("{s:s,s:s,s:s,s:O*}", "file", path, "date", str(from, "date"),
                                    "load", str(json_object_get(from, "machine"), "load"), "peaks",
                                    json_object_get(from, "peaks")));
}

static int add_run(json_t *root, const json_t *from, const char *path, vl_err *err) {
    static const char *const what[] = {"machine", "model", "model", NULL};
    static const char *const key[] = {"name", "fingerprint", "backend"};
    static const char *const by_case[] = {"case", NULL}, *const by_op[] = {"mode", "op", "shape",
                                                                          NULL};
    for (int i = 0; what[i]; i++) {
        const char *a = str(json_object_get(root, what[i]), key[i]);
        const char *b = str(json_object_get(from, what[i]), key[i]);
        if (strcmp(a, b))
            return vl_fail(err, VL_E_INPUT, "%s: its %s %s is \"%.60s\", that of the first run "
                           "\"%.60s\"; only runs of one model on one machine are one", path,
                           what[i], key[i], b, a);
    }
    add_stages(root, from);
    add_list(root, from, "tips", NULL);
    add_list(root, from, "workload", by_case);
    add_list(root, from, "rates", by_op);
    add_list(root, from, "predictor", NULL);
    take_larger(json_object_get(root, "peaks"), json_object_get(from, "peaks"));
    double a = json_number_value(json_object_get(root, "peak_rss_gib")),
           b = json_number_value(json_object_get(from, "peak_rss_gib"));
    json_object_set_new(root, "peak_rss_gib", json_real(a > b ? a : b));
    return 0;
}

json_t *bench_merge(const cli_list *files, vl_err *err) {
    json_t *root = NULL;
    for (int i = 0; i < files->n; i++) {
        json_t *from = vl_json_load(files->v[i], RUN_BYTES, err);
        bool whole = json_is_object(json_object_get(from, "peaks")) &&
                     json_is_array(json_object_get(from, "stages"));
        if (from && !whole)
            vl_fail(err, VL_E_INPUT, "%s: not a saved bench: no \"peaks\" or no \"stages\"",
                    files->v[i]);
        if (!from || !whole || (root && add_run(root, from, files->v[i], err))) {
            json_decref(from);
            json_decref(root);
            return NULL;
        }
        if (!root) root = json_deep_copy(from);
        add_piece(root, from, files->v[i]);
        json_decref(from);
    }
    bench_shares(root);
    return root;
}

/* ---- A/B rows from loads --------------------------------------------------------------------- */

/* Whole-answer latencies of a raw file; failed requests have none. */
static int read_raw(const char *path, bench_samples *s, vl_err *err) {
    char line[1 << 16];
    FILE *f = fopen(path, "r");
    s->n = 0;
    if (!f) return vl_fail(err, VL_E_IO, "%s: cannot be read", path);
    while (fgets(line, sizeof line, f)) {
        json_t *o = json_loads(line, 0, NULL);
        double v = json_number_value(json_object_get(o, "e2e_s"));
        json_decref(o);
        if (v > 0) bench_add(s, v);
    }
    fclose(f);
    return s->n ? 0 : vl_fail(err, VL_E_INPUT, "%s: no request with \"e2e_s\"", path);
}

enum { PARTS = 6 };
static int split(char *text, const char *option, const char *form, char *part[PARTS], vl_err *err) {
    char *rest = text;
    int n = 0;
    while (n < PARTS && (part[n] = strsep(&rest, "|"))) n++;
    return n == PARTS && !rest ? 0 : vl_fail(err, VL_E_USAGE, "%s wants %s", option, form);
}

int bench_tip_of_loads(json_t *root, const char *text, vl_err *err) {
    static bench_samples a, b;
    char copy[1024], *p[PARTS];
    snprintf(copy, sizeof copy, "%s", text);
    if (split(copy, "--load-tip", "TIP|METRIC|A|a.jsonl|B|b.jsonl", p, err) ||
        read_raw(p[3], &a, err) || read_raw(p[5], &b, err)) return -1;
    bench_add_tip(json_object_get(root, "tips"), p[0], p[1], p[2], &a, p[4], &b);
    return 0;
}

/* The samples of a stage's rows of this mode and name. */
static void row_samples(const json_t *root, const char *stage, const char *mode, const char *name,
                        bench_samples *s) {
    size_t i, k;
    json_t *o, *v;
    s->n = 0;
    json_array_foreach(json_object_get(root, "stages"), i, o) {
        if (strcmp(str(o, "stage"), stage) || strcmp(str(o, "mode"), mode) ||
            strcmp(str(o, "case"), name)) continue;
        json_array_foreach(json_object_get(o, "samples"), k, v) bench_add(s, json_number_value(v));
    }
}

int bench_tip_of_rows(json_t *root, const char *text, vl_err *err) {
    static bench_samples a, b;
    char copy[1024], la[64], lb[64], *p[PARTS];
    snprintf(copy, sizeof copy, "%s", text);
    if (split(copy, "--row-tip", "TIP|STAGE|MODE A|CASE A|MODE B|CASE B", p, err)) return -1;
    row_samples(root, p[1], p[2], p[3], &a);
    row_samples(root, p[1], p[4], p[5], &b);
    snprintf(la, sizeof la, "%s %s", p[2], p[3]);
    snprintf(lb, sizeof lb, "%s %s", p[4], p[5]);
    if (a.n && b.n)
        bench_add_tip(json_object_get(root, "tips"), p[0], p[1], la, &a, lb, &b);
    else {
        char why[96];
        snprintf(why, sizeof why, "not measured: %s", a.n ? lb : la);
        bench_no_tip(json_object_get(root, "tips"), p[0], why);
    }
    return 0;
}
