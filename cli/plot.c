/* plot.c: SVG plots without a library: axes with round ticks, lines, dots, stacked bars. */
#include "cli/plot.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static const char *const colours[] = {"#3366aa", "#dd7733", "#339966", "#aa4499", "#888833",
                                      "#bb3344", "#44aacc", "#775533"};
static const char *colour(int i) { return colours[i % 8]; }

static void text(FILE *f, double x, double y, const char *anchor, int size, const char *s) {
    fprintf(f, "<text x='%.1f' y='%.1f' text-anchor='%s' font-size='%d' fill='#222'>", x, y, anchor,
            size);
    for (; *s; s++) {
        if (*s == '<') fputs("&lt;", f);
        else if (*s == '&') fputs("&amp;", f);
        else fputc(*s, f);
    }
    fputs("</text>\n", f);
}

static FILE *begin(char **svg, size_t *len, int width, int height, const char *title) {
    FILE *f = open_memstream(svg, len);
    if (!f) return NULL;
    fprintf(f, "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 %d %d' width='%d' height='%d' "
               "font-family='system-ui,sans-serif' role='img'>\n<rect width='%d' height='%d' "
               "fill='#fff'/>\n", width, height, width, height, width, height);
    text(f, 12, 20, "start", 15, title);
    return f;
}

static char *end(FILE *f, char **svg) {
    fputs("</svg>\n", f);
    if (fclose(f) == 0) return *svg;
    free(*svg);
    return NULL;
}

typedef struct axis { double lo, hi; bool log; double from, to; } axis; /* data -> pixels */

static double place(const axis *a, double v) {
    double lo = a->lo, hi = a->hi;
    if (a->log) v = log10(v), lo = log10(lo), hi = log10(hi);
    return a->from + (v - lo) / (hi - lo) * (a->to - a->from);
}

/* Grows the axis over v[0..n), to full decades or to zero. */
static void cover(axis *a, const double *v, int n) {
    for (int i = 0; i < n; i++) {
        if (!isfinite(v[i]) || (a->log && v[i] <= 0)) continue;
        if (v[i] < a->lo) a->lo = v[i];
        if (v[i] > a->hi) a->hi = v[i];
    }
}

/* The 1-2-5 step at or below v (above: at or above it). */
static double round_log(double v, bool above) {
    double p = pow(10, floor(log10(v) + 1e-12)), m = v / p;
    if (above) return p * (m <= 1.0001 ? 1 : m <= 2.0001 ? 2 : m <= 5.0001 ? 5 : 10);
    return p * (m >= 4.9999 ? 5 : m >= 1.9999 ? 2 : 1);
}

static void round_out(axis *a) {
    if (!(a->hi >= a->lo)) a->lo = a->log ? 1 : 0, a->hi = 1; /* nothing to show */
    if (a->log) {
        a->lo = round_log(a->lo, false);
        a->hi = round_log(a->hi, true);
        if (a->hi <= a->lo) a->hi = a->lo * 10;
        return;
    }
    a->lo = 0;
    a->hi = a->hi > 0 ? a->hi * 1.05 : 1;
}

/* After v on a log axis: 1, 2, 5, 10 over a short span, else the next power of ten. */
static double next_log(const axis *a, double v) {
    if (a->hi / a->lo < 400) return round_log(v * 1.01, true);
    return pow(10, floor(log10(v) + 1e-9) + 1);
}

/* 1-2-5 steps of a linear axis. */
static double step_of(const axis *a) {
    double raw = (a->hi - a->lo) / 6, p = pow(10, floor(log10(raw))), m = raw / p;
    return (m < 1.5 ? 1 : m < 3.5 ? 2 : m < 7.5 ? 5 : 10) * p;
}

static void ticks(FILE *f, const axis *a, bool vertical, double other0, double other1) {
    char s[32];
    double step = a->log ? 0 : step_of(a);
    for (double v = a->lo; v <= a->hi * 1.0000001; v = a->log ? next_log(a, v) : v + step) {
        double p = place(a, v);
        snprintf(s, sizeof s, v >= 1e7 ? "%.0e" : "%.7g", v);
        if (vertical) {
            fprintf(f, "<path d='M%.1f %.1fH%.1f' stroke='#ddd'/>\n", other0, p, other1);
            text(f, other0 - 5, p + 4, "end", 11, s);
        } else {
            fprintf(f, "<path d='M%.1f %.1fV%.1f' stroke='#ddd'/>\n", p, other0, other1);
            text(f, p, other0 + 16, "middle", 11, s);
        }
    }
}

static void draw(FILE *f, const plot_series *s, int index, const axis *x, const axis *y) {
    bool pen = false;
    if (!s->dots) fputs("<path fill='none' stroke-width='2' d='", f);
    for (int i = 0; i < s->n; i++) {
        bool ok = isfinite(s->x[i]) && isfinite(s->y[i]) && (!x->log || s->x[i] > 0) &&
                  (!y->log || s->y[i] > 0);
        if (!ok) {
            pen = false;
            continue;
        }
        double px = place(x, s->x[i]), py = place(y, s->y[i]);
        if (!s->dots) {
            fprintf(f, "%c%.1f %.1f", pen ? 'L' : 'M', px, py);
            pen = true;
            continue;
        }
        fprintf(f, "<circle cx='%.1f' cy='%.1f' r='4.5' fill='%s'/>\n", px, py, colour(index));
        if (s->labels) text(f, px + 7, py + (i % 2 ? 14 : -5), "start", 11, s->labels[i]);
    }
    if (!s->dots) fprintf(f, "' stroke='%s'/>\n", colour(index));
}

char *plot_xy(const plot_axes *a, const plot_series *series, int n) {
    enum { W = 820, H = 420 };
    char *svg = NULL;
    size_t len;
    axis x = {INFINITY, -INFINITY, a->log_x, 70, W - 210},
         y = {INFINITY, -INFINITY, a->log_y, H - 50, 36};
    for (int i = 0; i < n; i++) {
        cover(&x, series[i].x, series[i].n);
        cover(&y, series[i].y, series[i].n);
    }
    round_out(&x);
    round_out(&y);
    FILE *f = begin(&svg, &len, W, H, a->title);
    if (!f) return NULL;
    ticks(f, &x, false, y.from, y.to);
    ticks(f, &y, true, x.from, x.to);
    text(f, (x.from + x.to) / 2, H - 12, "middle", 12, a->x);
    fprintf(f, "<g transform='rotate(-90 16 %d)'>", H / 2);
    text(f, 16, H / 2, "middle", 12, a->y);
    fputs("</g>", f);
    for (int i = 0, row = 40; i < n; i++) {
        draw(f, &series[i], series[i].of ? series[i].of - 1 : i, &x, &y);
        if (series[i].of) continue;
        fprintf(f, "<rect x='%d' y='%d' width='12' height='12' fill='%s'/>\n", W - 200, row,
                colour(i));
        text(f, W - 183, row + 10, "start", 12, series[i].name);
        row += 20;
    }
    if (isfinite(a->mark) && (!a->log_x || a->mark > 0) && a->mark >= x.lo && a->mark <= x.hi) {
        double p = place(&x, a->mark);
        fprintf(f, "<path d='M%.1f %.1fV%.1f' stroke='#b00020' stroke-dasharray='5 4'/>\n", p,
                y.from, y.to);
        text(f, p + 5, y.to + 14, "start", 12, a->mark_label);
    }
    return end(f, &svg);
}

char *plot_stack(const char *title, const char *unit, const char *const *labels, int n,
                 const char *const *parts, int n_parts, const double *values) {
    enum { W = 820, LEFT = 210, BAR = 22 };
    int height = 70 + n * (BAR + 8) + 20;
    char *svg = NULL, s[96];
    size_t len;
    double most = 0;
    for (int i = 0; i < n; i++) {
        double sum = 0;
        for (int k = 0; k < n_parts; k++) sum += values[i * n_parts + k];
        if (sum > most) most = sum;
    }
    if (!(most > 0)) most = 1;
    FILE *f = begin(&svg, &len, W, height, title);
    if (!f) return NULL;
    for (int k = 0; k < n_parts; k++) {
        fprintf(f, "<rect x='%d' y='32' width='12' height='12' fill='%s'/>\n", LEFT + 120 * k,
                colour(k));
        text(f, LEFT + 17 + 120 * k, 42, "start", 12, parts[k]);
    }
    for (int i = 0; i < n; i++) {
        double at = LEFT, y = 58 + i * (BAR + 8), sum = 0;
        text(f, LEFT - 8, y + 15, "end", 12, labels[i]);
        for (int k = 0; k < n_parts; k++) {
            double v = values[i * n_parts + k], w = v / most * (W - LEFT - 90);
            fprintf(f,
                    "<rect x='%.1f' y='%.1f' width='%.2f' height='%d' fill='%s'><title>%s %.4g %s"
                    "</title></rect>\n",
                    at, y, w, BAR, colour(k), parts[k], v, unit);
            at += w;
            sum += v;
        }
        snprintf(s, sizeof s, "%.3g %s", sum, unit);
        text(f, at + 6, y + 15, "start", 12, s);
    }
    return end(f, &svg);
}
