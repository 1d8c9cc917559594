/* stats.h: summaries of repeated measurements, for bench and load. Percentiles interpolate linearly
 * between order statistics, as numpy.percentile and vLLM's benchmark do. */
#ifndef VL_STATS_H
#define VL_STATS_H

#include <stddef.h>

typedef struct stats {
    size_t n;
    double mean, deviation, best, worst; /* deviation: of the population, as numpy.std */
    double p50, p90, p95, p99;
    double low, high; /* 95 % bootstrap interval of the median; NAN below 3 samples */
} stats;
/* Sorts v. n == 0: every field is NAN. */
stats stats_of(double *v, size_t n);
double stats_percentile(const double *sorted, size_t n, double percent);
/* Two-sided p of "a and b come from the same distribution": permutation test on the difference of
 * the medians, 10,000 permutations from a fixed seed. Needs n >= 3 on both sides, else 1. */
enum { STATS_LEAST = 5 }; /* with 4 a side even fully apart samples have a p above 0.05 */
double stats_permutation(const double *a, size_t na, const double *b, size_t nb);

#endif
