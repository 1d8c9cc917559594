/* plot.h: the two kinds of picture a report needs, as SVG text (malloc'd; NULL: no memory). */
#ifndef VL_PLOT_H
#define VL_PLOT_H

#include <stdbool.h>

typedef struct plot_series {
    const char *name;             /* in the legend                                              */
    int n;
    const double *x, *y;
    const char *const *labels;    /* beside each dot, or NULL                                   */
    bool dots;                    /* marks instead of a line                                    */
    int of;                       /* k > 0: in the colour of series k - 1, not in the legend    */
} plot_series;
typedef struct plot_axes {
    const char *title, *x, *y;    /* axis texts carry their units                               */
    bool log_x, log_y;
    double mark;                  /* a vertical line here; NAN: none                            */
    const char *mark_label;
} plot_axes;
char *plot_xy(const plot_axes *a, const plot_series *series, int n);

/* One horizontal bar per label, made of n_parts pieces: values[label * n_parts + part]. */
char *plot_stack(const char *title, const char *unit, const char *const *labels, int n,
                 const char *const *parts, int n_parts, const double *values);

#endif
