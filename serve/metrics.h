/* metrics.h: counters, gauges and histograms in Prometheus text form (acceptance D4). */
#ifndef SERVE_METRICS_H
#define SERVE_METRICS_H

#include <stdbool.h>
#include <stddef.h>

typedef struct metrics metrics;

/* The order is that of the table in metrics.c. */
typedef enum metric_id {
    M_REQUESTS, M_REJECTED, M_CANCELLED, M_FORMATS, M_TOKENS, M_NAN, M_REPETITION,
    M_RESULT_HITS, M_RESULT_MISSES, M_RESULT_BYTES, M_DISK_HITS, M_DISK_MISSES,
    M_DISK_BYTES, M_DISK_DAMAGED, M_PREFIX_HITS, M_PREFIX_MISSES,
    M_PREFIX_BLOCKS, M_PREFIX_BYTES, M_IMAGE_HITS, M_IMAGE_MISSES, M_IMAGE_BYTES, M_QUEUE_DEPTH, M_INFLIGHT,
    M_JOBS, M_KV_USAGE, M_RSS, M_GPU_BYTES, M_CPU_SECONDS, M_CONNECTIONS, M_READY,
    M_FINISHED, M_PASSES, M_ENCODES, M_FETCHES, M_UPTIME, M_BUILD,
    M_T_QUEUE, M_T_DECODE, M_T_RESIZE, M_T_VIT, M_T_PREFILL, M_T_TTFT, M_T_ITL, M_T_TPOT, M_T_E2E,
    M_IMAGE_TOKENS, M_IMAGE_PIXELS, M_COUNT
} metric_id;

metrics *metrics_open(const char *backend, const char *model, const char *dtype);
void metrics_free(metrics *m);
/* label2 is ignored where the metric has one label; both may be NULL where it has none. */
void metrics_add(metrics *m, metric_id id, const char *label1, const char *label2, double by);
void metrics_set(metrics *m, metric_id id, double value);
void metrics_observe(metrics *m, metric_id id, double value);
/* The whole exposition, malloc'd. */
char *metrics_text(metrics *m, size_t *len);

#endif
