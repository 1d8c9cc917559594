/* measured.c: a saved bench as a machine profile (see measured.h). */
#include "cli/measured.h"

#include <math.h>
#include <string.h>

#include "loader/json.h"

enum { BENCH_BYTES = 32 << 20 };

double measured_find(const measured_set *s, const char *stage, const char *mode, double size) {
    for (int i = 0; i < s->n; i++) {
        const measured_stage *v = &s->v[i];
        if (!strcmp(v->stage, stage) && !strcmp(v->mode, mode) && v->batch == 1 &&
            fabs(v->size - size) < 0.5)
            return v->seconds;
    }
    return NAN;
}

double measured_predict(const measured_set *s, const model_shape *shape,
                        const measured_stage *row) {
    const num_mode *m = mode_find(row->mode);
    if (!m) return NAN;
    if (!strcmp(row->stage, "encode")) return predict_encode(&s->mc, m, shape, row->size);
    if (!strcmp(row->stage, "prefill")) return predict_prefill(&s->mc, m, shape, row->size);
    if (!strcmp(row->stage, "decode"))
        return predict_step(&s->mc, m, shape, row->size, row->batch);
    return row->size / 1e6 * efficiency_of(&s->mc, m)->preprocess_s_per_mp.v;
}

/* Rows with fewer threads, of sweeps and longer answers (", ..." in their name) and those that are
 * sums of stages say nothing about the machine's stages. */
static bool wanted(const char *stage, const char *name, double threads, double headline) {
    static const char *const stages[] = {"preprocess", "encode", "prefill", "decode"};
    for (int i = 0; i < 4; i++)
        if (!strcmp(stage, stages[i])) return threads == headline && !strchr(name, ',');
    return false;
}

static int read_stage(const json_t *o, double headline, measured_set *s, vl_err *err) {
    const char *stage, *mode, *name;
    measured_stage *v = &s->v[s->n];
    double batch, threads;
    if (vl_json_str(o, "stages", "stage", "", &stage, err) ||
        vl_json_num(o, stage, "threads", 1, 4096, 1, &threads, err) ||
        vl_json_str(o, stage, "mode", "", &mode, err) ||
        vl_json_str(o, stage, "case", "", &name, err) ||
        vl_json_num(o, stage, "size", 0, 1e12, 0, &v->size, err) ||
        vl_json_num(o, stage, "batch", 1, 4096, 1, &batch, err) ||
        vl_json_num(o, stage, "width", 0, 65536, 0, &v->width, err) ||
        vl_json_num(o, stage, "height", 0, 65536, 0, &v->height, err) ||
        vl_json_num(o, stage, "median_s", 0, 1e9, NAN, &v->seconds, err) ||
        vl_json_num(o, stage, "low_s", 0, 1e9, NAN, &v->low, err) ||
        vl_json_num(o, stage, "high_s", 0, 1e9, NAN, &v->high, err)) return -1;
    v->batch = batch;
    snprintf(v->stage, sizeof v->stage, "%s", stage);
    snprintf(v->mode, sizeof v->mode, "%s", mode);
    if (v->seconds > 0 && wanted(stage, name, threads, headline)) s->n++;
    return 0;
}

/* The row of this stage and mode whose size is nearest. */
static measured_stage *nearest(measured_set *s, const char *stage, const num_mode *m, double size) {
    measured_stage *best = NULL;
    for (int i = 0; i < s->n; i++) {
        measured_stage *v = &s->v[i];
        if (strcmp(v->stage, stage) || v->batch != 1 || strcmp(v->mode, m->name)) continue;
        if (!best || fabs(v->size - size) < fabs(best->size - size)) best = v;
    }
    return best;
}

static measured_stage *largest(measured_set *s, const char *stage, const num_mode *m) {
    return nearest(s, stage, m, 1e12);
}

static double share(double v) { return v < 1e-4 ? 1e-4 : v > 1 ? 1 : v; }

typedef struct fitting {
    measured_set *s;
    const model_shape *shape;
    const num_mode *m;
    efficiency *e;                    /* what is found goes here; the rest stays as assumed   */
    const char *why, *date;
} fitting;

/* Two encode shapes give two equations  linear x + attention y = seconds * peak;  x, y = 1 / share.
 */
static void fit_encode(const fitting *f) {
    measured_stage *a = nearest(f->s, "encode", f->m, 784), *b = largest(f->s, "encode", f->m);
    double peak = peak_flops(&f->s->mc, f->m);
    if (!a || isnan(peak)) return;
    stage_work wa = work_encode(f->shape, a->size);
    double x = a->seconds * peak / work_flop(&wa), y = x;
    if (b != a) {
        stage_work wb = work_encode(f->shape, b->size);
        double det = wa.linear * wb.attention - wb.linear * wa.attention;
        double tx = (a->seconds * wb.attention - b->seconds * wa.attention) * peak / det;
        double ty = (b->seconds * wa.linear - a->seconds * wb.linear) * peak / det;
        if (tx > 0 && ty > 0) x = tx, y = ty, b->fitted = true;
    }
    a->fitted = true;
    f->e->encode = figure_measured(share(1 / x), f->why, f->date);
    f->e->attention = figure_measured(share(1 / y), f->why, f->date);
}

static void fit_text(const fitting *f) {
    measured_stage *p = nearest(f->s, "prefill", f->m, 236), *d = nearest(f->s, "decode", f->m, 236);
    double peak = peak_flops(&f->s->mc, f->m);
    if (p && !isnan(peak)) {
        stage_work w = work_prefill(f->shape, p->size);
        double rest = p->seconds - w.attention / (peak * f->e->attention.v);
        f->e->prefill = figure_measured(
            share(w.linear / (peak * (rest > 0 ? rest : p->seconds))), f->why, f->date);
        p->fitted = true;
    }
    if (d) {
        stage_work w = work_decode(f->shape, d->size, 1);
        double bytes = decoder_bytes(f->shape, f->m) + w.kv * f->m->kv_bytes;
        f->e->decode = figure_measured(share(bytes / (d->seconds * f->s->mc.read_gbs.v * 1e9)),
                                       f->why, f->date);
        f->e->token_overhead_s = figure_measured(0, "part of the measured step", f->date);
        d->fitted = true;
    }
}

/* Mode by mode; what was not measured is as assumed. */
static void fit(measured_set *s, const model_shape *shape, const char *why, const char *date) {
    for (int k = 0; k < s->mc.n_modes; k++) {
        const num_mode *m = mode_find(s->mc.modes[k]);
        s->mc.mode_e[k] = s->mc.e;
        fitting f = {s, shape, m, &s->mc.mode_e[k], why, date};
        fit_encode(&f);
        fit_text(&f);
        measured_stage *i = nearest(s, "preprocess", m, 448 * 448);
        if (!i || !(i->size > 0)) continue;
        f.e->preprocess_s_per_mp = figure_measured(i->seconds / i->size * 1e6, why, date);
        i->fitted = true;
    }
    s->mc.by_mode = s->mc.n_modes > 0;
    if (s->mc.by_mode) s->mc.e = s->mc.mode_e[0];
}

/* The modes that were measured, in the order they appear. */
static void list_modes(measured_set *s) {
    for (int i = 0; i < s->n; i++) {
        const num_mode *m = mode_find(s->v[i].mode);
        bool known = !m;
        for (int k = 0; m && k < s->mc.n_modes; k++)
            known = known || !strcmp(s->mc.modes[k], m->name);
        if (!known && s->mc.n_modes < MACHINE_MODES) s->mc.modes[s->mc.n_modes++] = m->name;
    }
}

int measured_load(measured_set *s, const char *path, const model_shape *shape,
                  const machine_set *machines, vl_err *err) {
    static const char *const keys[PEAKS] = {"fp32_gflops", "bf16_gflops", "fp16_gflops",
                                            "int8_gops"};
    double exact;
    *s = (measured_set){.root = vl_json_load(path, BENCH_BYTES, err)};
    if (!s->root) return -1;
    const json_t *host = json_object_get(s->root, "machine"),
                 *peaks = json_object_get(s->root, "peaks");
    const char *date, *why = "vitreous bench on this machine";
    size_t i;
    json_t *o;
    double gib, read, peak, headline;
    if (vl_json_str(s->root, path, "date", "", &date, err) ||
        vl_json_num(json_object_get(s->root, "model"), path, "threads", 1, 4096, 1, &headline,
                    err) ||
        vl_json_str(host, path, "name", "this machine", &s->mc.name, err) ||
        vl_json_num(host, path, "memory_gib", 0.01, 1e6, NAN, &gib, err) ||
        vl_json_num(peaks, path, "read_gbs", 0.01, 1e6, NAN, &read, err))
        goto bad;
    s->mc.id = "this machine";
    s->mc.kind = "cpu";
    s->mc.currency = "USD";
    s->mc.memory_gib = figure_measured(gib, why, date);
    s->mc.read_gbs = figure_measured(read, why, date);
    for (int k = 0; k < PRICE_PLANS; k++) s->mc.price[k] = (figure){NAN, "", "", ""};
    for (int k = 0; k < PEAKS; k++) {
        if (vl_json_num(peaks, path, keys[k], 0.01, 1e9, NAN, &peak, err)) goto bad;
        s->mc.peak[k] = figure_measured(peak, why, date);
    }
    if (vl_json_num(peaks, path, "exact_gflops", 0.01, 1e9, NAN, &exact, err)) goto bad;
    if (!isnan(exact)) s->mc.peak[PEAK_FP32] = figure_measured(exact, why, date); /* files before it have no such products */
    if (isnan(gib) || isnan(read) || isnan(s->mc.peak[PEAK_FP32].v)) {
        vl_fail(err, VL_E_INPUT, "%s: not a saved bench: machine.memory_gib, peaks.read_gbs or "
                "peaks.fp32_gflops is missing", path);
        goto bad;
    }
    for (int k = 0; k < machines->n; k++) /* what was not measured is as assumed for a CPU */
        if (!strcmp(machines->v[k].kind, "cpu")) s->mc.e = machines->v[k].e;
    json_array_foreach(json_object_get(s->root, "stages"), i, o)
        if (s->n < MEASURED_MAX && read_stage(o, headline, s, err)) goto bad;
    list_modes(s);
    fit(s, shape, why, date);
    return 0;
bad:
    measured_free(s);
    return -1;
}

void measured_free(measured_set *s) {
    json_decref(s->root);
    *s = (measured_set){0};
}
