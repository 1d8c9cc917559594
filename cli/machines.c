/* machines.c: reads the data files of tools/cost/ (see machines.h). The embedding needs the files
 * named in cli/Makefile.inc, because the compiler's dependency files cannot see .incbin. */
#include "cli/machines.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "loader/json.h"

#define EMBED(name, file)                                                                       \
    __asm__(".section .rodata\n.global data_" #name "\ndata_" #name ":\n.incbin \"" file        \
            "\"\n.global data_" #name "_end\ndata_" #name "_end:\n.byte 0\n.previous\n");       \
    extern const char data_##name[], data_##name##_end[]
EMBED(machines, "tools/cost/machines.json");
EMBED(workloads, "tools/cost/workloads.json");
EMBED(claims, "tools/cost/claims.json");
#define PARSE(name, err)                                                                        \
    vl_json_parse(data_##name, (size_t)(data_##name##_end - data_##name), #name ".json", err)

enum { FILE_BYTES = 1 << 20 };
const char *const price_plan_names[PRICE_PLANS] = {"on_demand", "reserved", "spot"};
const char *const peak_names[PEAKS] = {"fp32", "bf16", "fp16", "int8"};

figure figure_measured(double v, const char *source, const char *date) {
    return (figure){v, "measured", source, date};
}

/* [value, mark, source, date]; absent: NAN. */
static int read_figure(const json_t *o, const char *what, const char *key, double lo, double hi,
                       figure *out, vl_err *err) {
    const json_t *a = json_object_get(o, key);
    static const char *const marks[] = {"measured", "specified", "quoted", "derived", "assumed"};
    bool known = false;
    *out = (figure){NAN, "", "", ""};
    if (!a) return 0;
    const char *mark = json_string_value(json_array_get(a, 1));
    for (int i = 0; i < 5; i++) known = known || (mark && !strcmp(mark, marks[i]));
    double v = json_number_value(json_array_get(a, 0));
    if (json_array_size(a) != 4 || !json_is_number(json_array_get(a, 0)) || !known ||
        !json_is_string(json_array_get(a, 2)) || !json_is_string(json_array_get(a, 3)))
        return vl_fail(err, VL_E_INPUT, "%s: \"%s\" must be [number, \"measured|specified|quoted|"
                       "derived|assumed\", \"source\", \"date\"]", what, key);
    if (!(v >= lo && v <= hi))
        return vl_fail(err, VL_E_INPUT, "%s: \"%s\" is %g, expected %g to %g", what, key, v, lo,
                       hi);
    *out = (figure){v, mark, json_string_value(json_array_get(a, 2)),
                    json_string_value(json_array_get(a, 3))};
    return 0;
}

/* The first of these objects that has the key says it: the machine's own for this mode, its own, its
 * kind's for this mode, its kind's. mode NULL: whatever the mode. */
static int read_efficiency(const json_t *own, const json_t *kind, const char *mode, const char *what,
                           efficiency *e, vl_err *err) {
    const struct { const char *key; figure *to; double hi; } rows[] = {
        {"encode", &e->encode, 1}, {"attention", &e->attention, 1}, {"prefill", &e->prefill, 1},
        {"decode", &e->decode, 1}, {"token_overhead_s", &e->token_overhead_s, 10},
        {"preprocess_s_per_mp", &e->preprocess_s_per_mp, 100}};
    const json_t *from[] = {mode ? json_object_get(own, mode) : NULL, own,
                            mode ? json_object_get(kind, mode) : NULL, kind};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        double lo = rows[i].hi > 1 ? 0 : 1e-4;
        rows[i].to->v = NAN;
        for (int k = 0; k < 4 && isnan(rows[i].to->v); k++)
            if (read_figure(from[k], what, rows[i].key, lo, rows[i].hi, rows[i].to, err)) return -1;
        if (isnan(rows[i].to->v))
            return vl_fail(err, VL_E_INPUT, "%s: no efficiency \"%s\", neither its own nor its "
                           "kind's", what, rows[i].key);
    }
    return 0;
}

/* "efficiency" of a machine: figures, or the name of a set that several machines share. */
static int read_efficiencies(const json_t *o, const json_t *sets, machine *m, vl_err *err) {
    const json_t *own = json_object_get(o, "efficiency"), *kind = json_object_get(sets, m->kind);
    if (json_is_string(own)) {
        const char *name = json_string_value(own);
        own = json_object_get(sets, name);
        if (!own) return vl_fail(err, VL_E_INPUT, "%s: \"efficiency\" names \"%s\", which is not there", m->id, name);
    }
    for (int i = 0; i < m->n_modes; i++) {
        const char *mode = m->modes[i];
        if (json_object_get(own, mode) || json_object_get(kind, mode)) m->by_mode = true;
        if (read_efficiency(own, kind, mode, m->id, &m->mode_e[i], err)) return -1;
    }
    return read_efficiency(own, kind, NULL, m->id, &m->e, err);
}

static int read_machine(const json_t *o, const json_t *sets, machine *m, vl_err *err) {
    const json_t *price = json_object_get(o, "price"), *peak = json_object_get(o, "peak");
    const json_t *modes = json_object_get(o, "modes");
    size_t i;
    json_t *mode;
    if (vl_json_str(o, "machine", "id", NULL, &m->id, err)) return -1;
    if (!m->id) return vl_fail(err, VL_E_INPUT, "a machine has no \"id\"");
    if (vl_json_str(o, m->id, "name", m->id, &m->name, err) ||
        vl_json_str(o, m->id, "kind", "cpu", &m->kind, err) ||
        vl_json_str(price, m->id, "currency", "USD", &m->currency, err) ||
        read_figure(o, m->id, "memory_gib", 0.01, 1e6, &m->memory_gib, err) ||
        read_figure(o, m->id, "read_gbs", 0.01, 1e6, &m->read_gbs, err)) return -1;
    if (strcmp(m->currency, "USD") && strcmp(m->currency, "CNY"))
        return vl_fail(err, VL_E_INPUT, "%s: currency \"%s\", expected CNY or USD", m->id,
                       m->currency);
    for (int k = 0; k < PRICE_PLANS; k++)
        if (read_figure(price, m->id, price_plan_names[k], 0, 1e6, &m->price[k], err)) return -1;
    for (int k = 0; k < PEAKS; k++)
        if (read_figure(peak, m->id, peak_names[k], 0.01, 1e9, &m->peak[k], err)) return -1;
    if (isnan(m->memory_gib.v) || isnan(m->read_gbs.v) || isnan(m->peak[PEAK_FP32].v))
        return vl_fail(err, VL_E_INPUT, "%s: memory_gib, read_gbs and peak.fp32 are needed", m->id);
    json_array_foreach(modes, i, mode)
        if (json_is_string(mode) && m->n_modes < MACHINE_MODES)
            m->modes[m->n_modes++] = json_string_value(mode);
    if (!m->n_modes) return vl_fail(err, VL_E_INPUT, "%s: \"modes\" lists no mode", m->id);
    return read_efficiencies(o, sets, m, err);
}

int machines_load(machine_set *s, const char *path, vl_err *err) {
    memset(s, 0, sizeof *s);
    s->root = path ? vl_json_load(path, FILE_BYTES, err) : PARSE(machines, err);
    if (!s->root) return -1;
    const json_t *list = json_object_get(s->root, "machines");
    size_t i;
    json_t *o;
    int rc = read_figure(s->root, path ? path : "machines.json", "cny_per_usd", 0.01, 1000,
                         &s->cny_per_usd, err);
    if (!rc && (!json_array_size(list) || json_array_size(list) > MACHINES_MAX - 1))
        rc = vl_fail(err, VL_E_INPUT, "\"machines\" must list 1 to %d machines", MACHINES_MAX - 1);
    json_array_foreach(list, i, o) {
        if (rc) break;
        rc = read_machine(o, json_object_get(s->root, "efficiency"), &s->v[s->n], err);
        if (!rc && machines_find(s, s->v[s->n].id))
            rc = vl_fail(err, VL_E_INPUT, "the machine \"%s\" is listed twice", s->v[s->n].id);
        s->n++;
    }
    if (rc) machines_free(s);
    return rc;
}

void machines_free(machine_set *s) {
    json_decref(s->root);
    *s = (machine_set){0};
}

const machine *machines_find(const machine_set *s, const char *id) {
    for (int i = 0; i < s->n; i++)
        if (!strcmp(s->v[i].id, id)) return &s->v[i];
    return NULL;
}

/* ---- workloads, scenarios, claims ------------------------------------------------------------ */

static int read_workload(const json_t *o, workload *w, vl_err *err) {
    const char *name;
    if (vl_json_str(o, "workload", "name", "unnamed", &name, err) ||
        vl_json_num(o, name, "width", 0, 16384, 0, &w->width, err) ||
        vl_json_num(o, name, "height", 0, 16384, 0, &w->height, err) ||
        vl_json_num(o, name, "text_tokens", 1, 1e6, 40, &w->text_tokens, err) ||
        vl_json_num(o, name, "output_tokens", 1, 1e6, 256, &w->output_tokens, err)) return -1;
    snprintf(w->name, sizeof w->name, "%s", name);
    return 0;
}

int workload_load(workload *w, const char *name, vl_err *err) {
    bool file = vl_file_exists(name);
    json_t *root = file ? vl_json_load(name, FILE_BYTES, err) : PARSE(workloads, err), *o;
    size_t i;
    int rc = -1;
    if (!root) return -1;
    if (file) {
        rc = read_workload(root, w, err);
    } else {
        vl_fail(err, VL_E_USAGE,
                "no workload \"%.60s\": it is neither a file nor one of reference, "
                "short, document, text-only",
                name);
        json_array_foreach(json_object_get(root, "workloads"), i, o) {
            const char *s = json_string_value(json_object_get(o, "name"));
            if (s && !strcmp(s, name)) rc = read_workload(o, w, err);
        }
    }
    json_decref(root);
    return rc;
}

json_t *scenarios_load(scenario *out, int max, int *n, vl_err *err) {
    json_t *root = PARSE(workloads, err), *o;
    size_t i;
    *n = 0;
    json_array_foreach(json_object_get(root, "scenarios"), i, o) {
        scenario *s = &out[*n];
        if (*n == max) break;
        if (vl_json_str(o, "scenario", "name", "", &s->name, err) ||
            vl_json_num(o, s->name, "concurrency", 1, 1e6, 1, &s->concurrency, err) ||
            vl_json_num(o, s->name, "slo_s", 1e-3, 1e6, 10, &s->slo_s, err) ||
            vl_json_num(o, s->name, "requests_per_day", 0, 1e12, 0, &s->requests_per_day, err) ||
            vl_json_num(o, s->name, "min_instances", 1, 1e6, 1, &s->min_instances, err)) {
            json_decref(root);
            return NULL;
        }
        ++*n;
    }
    return root;
}

json_t *claims_load(claim *out, int max, int *n, vl_err *err) {
    json_t *root = PARSE(claims, err), *o;
    size_t i;
    *n = 0;
    json_array_foreach(json_object_get(root, "claims"), i, o) {
        claim *c = &out[*n];
        if (*n == max) break;
        if (vl_json_str(o, "claim", "machine", "", &c->machine, err) ||
            vl_json_str(o, "claim", "mode", "", &c->mode, err) ||
            vl_json_str(o, "claim", "text", "", &c->text, err) ||
            vl_json_num(o, c->text, "preprocess_s", 0, 1e6, 0, &c->preprocess_s, err) ||
            vl_json_num(o, c->text, "prefill_s", 0, 1e6, 0, &c->prefill_s, err) ||
            vl_json_num(o, c->text, "decode_s", 0, 1e6, 0, &c->decode_s, err) ||
            vl_json_num(o, c->text, "total_s", 0, 1e6, 0, &c->total_s, err) ||
            vl_json_num(o, c->text, "annual_cny", 0, 1e9, 0, &c->annual_cny, err) ||
            vl_json_num(o, c->text, "best_known_share", 0, 1, 1, &c->best_known_share, err)) {
            json_decref(root);
            return NULL;
        }
        ++*n;
    }
    return root;
}
