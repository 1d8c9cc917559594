/* stats.c: see stats.h. The bootstrap and the permutations draw from fixed seeds, so that the same
 * measurements always give the same verdict. */
#include "cli/stats.h"

#include <math.h>
#include <stdlib.h>

#include "common/common.h"

enum { RESAMPLES = 1000, PERMUTATIONS = 10000 };

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double stats_percentile(const double *sorted, size_t n, double percent) {
    if (!n) return NAN;
    double at = percent / 100 * (double)(n - 1);
    size_t i = (size_t)at;
    return i + 1 < n ? sorted[i] + (at - (double)i) * (sorted[i + 1] - sorted[i]) : sorted[n - 1];
}

static double median_of(double *v, size_t n) {
    qsort(v, n, sizeof *v, ascending);
    return stats_percentile(v, n, 50);
}

static void bootstrap(const double *v, size_t n, stats *s) {
    double *draw = vl_calloc(n, sizeof *draw), medians[RESAMPLES];
    vl_rng rng;
    if (!draw || n < 3) { /* no interval from one or two samples */
        free(draw);
        return;
    }
    vl_rng_seed(&rng, 1);
    for (int r = 0; r < RESAMPLES; r++) {
        for (size_t i = 0; i < n; i++) draw[i] = v[(size_t)(vl_rng_uniform(&rng) * (double)n)];
        medians[r] = median_of(draw, n);
    }
    qsort(medians, RESAMPLES, sizeof *medians, ascending);
    s->low = stats_percentile(medians, RESAMPLES, 2.5);
    s->high = stats_percentile(medians, RESAMPLES, 97.5);
    free(draw);
}

stats stats_of(double *v, size_t n) {
    stats s = {.n = n, .mean = NAN, .deviation = NAN, .best = NAN, .worst = NAN, .p50 = NAN,
               .p90 = NAN, .p95 = NAN, .p99 = NAN, .low = NAN, .high = NAN};
    if (!n) return s;
    double sum = 0, squares = 0;
    qsort(v, n, sizeof *v, ascending);
    for (size_t i = 0; i < n; i++) sum += v[i];
    s.mean = sum / (double)n;
    for (size_t i = 0; i < n; i++) squares += (v[i] - s.mean) * (v[i] - s.mean);
    s.deviation = sqrt(squares / (double)n);
    s.best = v[0];
    s.worst = v[n - 1];
    s.p50 = stats_percentile(v, n, 50);
    s.p90 = stats_percentile(v, n, 90);
    s.p95 = stats_percentile(v, n, 95);
    s.p99 = stats_percentile(v, n, 99);
    bootstrap(v, n, &s);
    return s;
}

double stats_permutation(const double *a, size_t na, const double *b, size_t nb) {
    size_t n = na + nb;
    double *all = vl_calloc(n, sizeof *all), *part = vl_calloc(n, sizeof *part);
    int extreme = 0;
    vl_rng rng;
    if (!all || !part || na < 3 || nb < 3) {
        free(all);
        free(part);
        return 1;
    }
    memcpy(all, a, na * sizeof *a);
    memcpy(all + na, b, nb * sizeof *b);
    memcpy(part, all, n * sizeof *all);
    double seen = fabs(median_of(part, na) - median_of(part + na, nb));
    vl_rng_seed(&rng, 1);
    for (int r = 0; r < PERMUTATIONS; r++) {
        for (size_t i = n - 1; i > 0; i--) {
            size_t j = (size_t)(vl_rng_uniform(&rng) * (double)(i + 1));
            double t = all[i];
            all[i] = all[j];
            all[j] = t;
        }
        memcpy(part, all, n * sizeof *all);
        extreme += fabs(median_of(part, na) - median_of(part + na, nb)) >= seen * (1 - 1e-12);
    }
    free(all);
    free(part);
    return (extreme + 1.0) / (PERMUTATIONS + 1.0);
}
