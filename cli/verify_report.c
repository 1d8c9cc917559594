/* verify_report.c: the three forms of a verification: table, JSON, HTML. */
#include "cli/verify.h"

#include <math.h>
#include <string.h>

static const char *const verdicts[] = {"ok", "FAIL", "note"};

void verify_print_table(const verify_case *c, bool all) {
    if (c->error[0]) {
        printf("%-28s FAIL  %s\n", c->name, c->error);
        return;
    }
    if (all)
        printf("%s  (model %s, %s %s, %d threads)\n%-46s %-10s %10s %10s %10s %10s\n", c->name,
               c->model, c->backend, c->dtype, c->threads, "stage", "measure", "value", "limit",
               "max/max", "HF floor");
    double worst = -1;
    const verify_stage *closest = NULL;
    for (int i = 0; i < c->n; i++) {
        const verify_stage *s = &c->stages[i];
        if (all || s->verdict == FAILED)
            printf("%-46s %-10s %10.3g %10.3g %10.3g %10.3g  %s%s%s\n", s->name, s->measure,
                   s->value, s->limit, s->max_rel, s->floor, verdicts[s->verdict],
                   s->note[0] ? ": " : "", s->note);
        else if (s->note[0])
            printf("%-46s %s: %s\n", s->name, verdicts[s->verdict], s->note);
        if (s->limit > 0 && s->verdict != NOTED && s->value / s->limit > worst) {
            worst = s->value / s->limit;
            closest = s;
        }
    }
    printf("%-28s %s  %d stages, %d failed; nearest to its limit: %s at %.0f %%; %.2f s\n", c->name,
           c->failed ? "FAIL" : "ok  ", c->n, c->failed, closest ? closest->name : "none",
           closest ? 100 * worst : 0.0, c->seconds);
}

static json_t *number(double v) { return isfinite(v) ? json_real(v) : json_null(); }

json_t *verify_json(const verify_case *c) {
    json_t *stages = json_array(), *j = json_object();
    for (int i = 0; i < c->n; i++) {
        const verify_stage *s = &c->stages[i];
        json_t *o = json_pack("{s:s,s:s,s:s,s:s}", "name", s->name, "measure", s->measure,
                              "verdict", verdicts[s->verdict], "note", s->note);
        json_object_set_new(o, "value", number(s->value));
        json_object_set_new(o, "limit", number(s->limit));
        json_object_set_new(o, "max_rel", number(s->max_rel));
        json_object_set_new(o, "floor", number(s->floor));
        json_array_append_new(stages, o);
    }
    json_object_set_new(j, "case", json_string(c->name));
    json_object_set_new(j, "model", json_string(c->model));
    json_object_set_new(j, "backend", json_string(c->backend));
    json_object_set_new(j, "dtype", json_string(c->dtype));
    json_object_set_new(j, "threads", json_integer(c->threads));
    json_object_set_new(j, "failed", json_integer(c->error[0] ? 1 : c->failed));
    json_object_set_new(j, "error", json_string(c->error));
    json_object_set_new(j, "digest", json_string(c->digest));
    json_object_set_new(j, "stages", stages);
    return j;
}

static const char head[] =
    "<!doctype html><meta charset=utf-8><title>vitreous verify</title><style>"
    "body{font:14px/1.4 system-ui,sans-serif;max-width:70em;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse;width:100%}td,th{padding:.15em .6em;text-align:left;"
    "border-bottom:1px solid #8884;font-variant-numeric:tabular-nums}.FAIL{color:#b00020;"
    "font-weight:bold}svg{display:block}summary{cursor:pointer;padding:.3em 0}</style>"
    "<h1>vitreous against Hugging Face</h1><p>Each bar is the distance of one stage to the stored "
    "result, on a logarithmic scale from 1e-8 to 1. The red mark is the limit, the grey mark what "
    "Hugging Face's own float32 run differs from float64.</p>\n";

/* 1e-8 .. 1 -> 0 .. 240 pixels */
static double x_of(double v) {
    if (!(v > 1e-8)) return 0;
    return v >= 1 ? 240 : 30 * (log10(v) + 8);
}

static void escaped(FILE *f, const char *s) {
    for (; *s; s++) {
        if (*s == '<') fputs("&lt;", f);
        else if (*s == '&') fputs("&amp;", f);
        else fputc(*s, f);
    }
}

static void html_stage(FILE *f, const verify_stage *s) {
    fputs("<tr><td>", f);
    escaped(f, s->name);
    fprintf(f, "<td>%s %.3g<td>%.3g<td><svg width=242 height=14><rect y=2 width=%.1f height=10 "
               "fill=%s /><path d='M%.1f 0v14' stroke=#b00020 stroke-width=2 />",
            s->measure, s->value, s->limit, x_of(s->value),
            s->verdict == FAILED ? "#b00020" : "#2e7d32", x_of(s->limit));
    if (isfinite(s->floor)) fprintf(f, "<path d='M%.1f 0v14' stroke=#888 stroke-width=2 />", x_of(s->floor));
    fprintf(f, "</svg><td class=%s>%s ", verdicts[s->verdict], verdicts[s->verdict]);
    escaped(f, s->note);
    fputs("</tr>\n", f);
}

int verify_write_html(const char *path, const verify_case *cases, int n) {
    FILE *f = fopen(path, "w");
    if (!f) {
        fprintf(stderr, "vitreous: %s: cannot be written\n", path);
        return CLI_BAD;
    }
    fputs(head, f);
    for (int i = 0; i < n; i++) {
        const verify_case *c = &cases[i];
        bool bad = c->failed || c->error[0];
        fprintf(f, "<details%s><summary class=%s>", bad || n == 1 ? " open" : "", bad ? "FAIL" : "ok");
        escaped(f, c->name);
        fprintf(f, " (%s, %s, %d threads): %s", c->backend, c->dtype, c->threads, bad ? "FAIL " : "ok");
        escaped(f, c->error);
        fputs("</summary><table><tr><th>stage<th>value<th>limit<th><th>verdict</tr>\n", f);
        for (int k = 0; k < c->n; k++) html_stage(f, &c->stages[k]);
        fputs("</table></details>\n", f);
    }
    if (fclose(f) == 0) return 0;
    fprintf(stderr, "vitreous: %s: cannot be written\n", path);
    return CLI_BAD;
}
