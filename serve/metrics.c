/* metrics.c: see metrics.h. One table says what exists; one lock guards the numbers (a few
 * updates per token at most, so contention is not worth anything cleverer). */
#include "serve/metrics.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <pthread.h>

#include "common/common.h"

enum { MAX_SERIES = 1024, MAX_BUCKETS = 18 }; /* each route times each status is more than 400 */
typedef enum kind { COUNTER, GAUGE, HISTOGRAM } kind;

static const double seconds[] = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
                                 1, 2.5, 5, 10, 30, 60, 120, 300, HUGE_VAL};
static const double tokens[] = {16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, HUGE_VAL};
static const double pixels[] = {1e4, 3e4, 1e5, 3e5, 1e6, 3e6, 1e7, 3e7, 1e8, HUGE_VAL};

static const struct metric_desc {
    const char *name;
    kind kind;
    const char *label1, *label2;
    const double *bounds;             /* histograms: ends with infinity */
    const char *help;
} table[M_COUNT] = {
    [M_REQUESTS] = {"requests_total", COUNTER, "route", "code", 0, "HTTP requests answered"},
    [M_REJECTED] = {"rejected_total", COUNTER, "reason", 0, 0, "requests turned away"},
    [M_CANCELLED] = {"cancelled_total", COUNTER, "stage", 0, 0, "generations cancelled, by stage"},
    [M_FORMATS] = {"image_format_total", COUNTER, "format", "result", 0, "pictures received"},
    [M_TOKENS] = {"tokens_total", COUNTER, "kind", 0, 0,
                  "prompt, image, cached, completion tokens"},
    [M_NAN] = {"nan_logits_total", COUNTER, 0, 0, 0, "answers stopped by NaN or infinity"},
    [M_REPETITION] = {"repetition_stops_total", COUNTER, 0, 0, 0, "answers stopped as loops"},
    [M_RESULT_HITS] = {"result_cache_hits", COUNTER, 0, 0, 0, "whole answers from the cache"},
    [M_RESULT_MISSES] = {"result_cache_misses", COUNTER, 0, 0, 0, "cacheable answers computed"},
    [M_RESULT_BYTES] = {"result_cache_bytes", GAUGE, 0, 0, 0, "bytes of cached answers"},
    [M_DISK_HITS] = {"result_cache_disk_hits", COUNTER, 0, 0, 0, "... of them read from disk"},
    [M_DISK_MISSES] = {"result_cache_disk_misses", COUNTER, 0, 0, 0, "not in memory, not on disk"},
    [M_DISK_BYTES] = {"result_cache_disk_bytes", GAUGE, 0, 0, 0, "bytes of answers on disk"},
    [M_DISK_DAMAGED] = {"result_cache_disk_damaged", COUNTER, 0, 0, 0,
                        "answers on disk that were not what was stored"},
    [M_PREFIX_HITS] = {"prefix_cache_hits", COUNTER, 0, 0, 0,
                       "prompt tokens found in the KV cache"},
    [M_PREFIX_MISSES] = {"prefix_cache_misses", COUNTER, 0, 0, 0, "prompt tokens computed"},
    [M_PREFIX_BLOCKS] = {"prefix_cache_blocks", GAUGE, 0, 0, 0, "KV blocks of 64 tokens in use"},
    [M_PREFIX_BYTES] = {"prefix_cache_bytes", GAUGE, 0, 0, 0, "bytes of KV kept of finished answers"},
    [M_IMAGE_HITS] = {"image_cache_hits", COUNTER, 0, 0, 0, "encoded pictures found in the cache"},
    [M_IMAGE_MISSES] = {"image_cache_misses", COUNTER, 0, 0, 0,
                        "encoded pictures not in the cache"},
    [M_IMAGE_BYTES] = {"image_cache_bytes", GAUGE, 0, 0, 0, "bytes of cached encoded pictures"},
    [M_QUEUE_DEPTH] = {"queue_depth", GAUGE, 0, 0, 0, "requests waiting for the engine"},
    [M_INFLIGHT] = {"inflight", GAUGE, 0, 0, 0, "requests in the engine"},
    [M_JOBS] = {"jobs_total", COUNTER, "result", 0, 0, "asynchronous jobs finished"},
    [M_KV_USAGE] = {"kv_usage_ratio", GAUGE, 0, 0, 0, "KV blocks in use over all"},
    [M_RSS] = {"rss_bytes", GAUGE, 0, 0, 0, "resident memory"},
    [M_GPU_BYTES] = {"gpu_bytes", GAUGE, 0, 0, 0, "model bytes on the GPU (0 on the CPU backend)"},
    [M_CPU_SECONDS] = {"cpu_seconds_total", COUNTER, 0, 0, 0, "processor time used"},
    [M_CONNECTIONS] = {"connections", GAUGE, 0, 0, 0, "open HTTP connections"},
    [M_READY] = {"ready", GAUGE, 0, 0, 0, "1 while requests are accepted"},
    [M_FINISHED] = {"finished_total", COUNTER, "reason", 0, 0, "answers by finish reason"},
    [M_PASSES] = {"passes_total", COUNTER, 0, 0, 0, "forward passes of the language model"},
    [M_ENCODES] = {"encodes_total", COUNTER, 0, 0, 0, "pictures run through the vision encoder"},
    [M_FETCHES] = {"image_fetches_total", COUNTER, "result", 0, 0, "pictures by URL"},
    [M_UPTIME] = {"uptime_seconds", GAUGE, 0, 0, 0, "seconds since start"},
    [M_BUILD] = {"build_info", GAUGE, 0, 0, 0, "version, model and backend"},
    [M_T_QUEUE] = {"queue_seconds", HISTOGRAM, 0, 0, seconds,
                   "in the engine's queue: submitted (pictures are opened by then) to scheduled"},
    [M_T_DECODE] = {"image_decode_seconds", HISTOGRAM, 0, 0, seconds, "picture file to pixels"},
    [M_T_RESIZE] = {"image_resize_seconds", HISTOGRAM, 0, 0, seconds, "pixels to patches"},
    [M_T_VIT] = {"vit_seconds", HISTOGRAM, 0, 0, seconds, "vision encoder, per request"},
    [M_T_PREFILL] = {"prefill_seconds", HISTOGRAM, 0, 0, seconds, "prompt through the decoder"},
    [M_T_TTFT] = {"ttft_seconds", HISTOGRAM, 0, 0, seconds, "arrival to first token"},
    [M_T_ITL] = {"itl_seconds", HISTOGRAM, 0, 0, seconds, "gap between two tokens"},
    [M_T_TPOT] = {"tpot_seconds", HISTOGRAM, 0, 0, seconds, "(e2e - ttft) / (tokens - 1)"},
    [M_T_E2E] = {"e2e_seconds", HISTOGRAM, 0, 0, seconds, "arrival to last token"},
    [M_IMAGE_TOKENS] = {"image_tokens", HISTOGRAM, 0, 0, tokens, "tokens per picture"},
    [M_IMAGE_PIXELS] = {"image_pixels", HISTOGRAM, 0, 0, pixels, "pixels per picture, as sent"},
};

typedef struct series { metric_id id; char l1[64], l2[16]; double value; } series;
struct metrics {
    pthread_mutex_t lock;
    char backend[32], model[80], dtype[16];
    series series[MAX_SERIES];
    int n;
    double plain[M_COUNT], sum[M_COUNT];
    uint64_t bucket[M_COUNT][MAX_BUCKETS];
};

/* Label values come from tables of this program, but a model's name may be anything. */
static void label_copy(char *dst, size_t size, const char *src) {
    size_t n = 0;
    for (; src && *src && n + 1 < size; src++)
        dst[n++] = *src == '"' || *src == '\\' || (unsigned char)*src < 32 ? '_' : *src;
    dst[n] = 0;
}

metrics *metrics_open(const char *backend, const char *model, const char *dtype) {
    metrics *m = vl_calloc(1, sizeof *m);
    if (!m) return NULL;
    pthread_mutex_init(&m->lock, NULL);
    label_copy(m->backend, sizeof m->backend, backend);
    label_copy(m->model, sizeof m->model, model);
    label_copy(m->dtype, sizeof m->dtype, dtype);
    m->plain[M_BUILD] = 1;
    return m;
}

void metrics_free(metrics *m) {
    if (m) pthread_mutex_destroy(&m->lock);
    free(m);
}

void metrics_add(metrics *m, metric_id id, const char *label1, const char *label2, double by) {
    pthread_mutex_lock(&m->lock);
    if (!table[id].label1) {
        m->plain[id] += by;
    } else {
        char l1[64], l2[16];
        label_copy(l1, sizeof l1, label1);
        label_copy(l2, sizeof l2, label2);
        int i = 0;
        while (i < m->n && (m->series[i].id != id || strcmp(m->series[i].l1, l1) != 0 ||
                            strcmp(m->series[i].l2, l2) != 0))
            i++;
        if (i == m->n && m->n < MAX_SERIES) {
            series *s = &m->series[m->n++];
            s->id = id;
            memcpy(s->l1, l1, sizeof l1);
            memcpy(s->l2, l2, sizeof l2);
        }
        if (i < m->n) m->series[i].value += by;
    }
    pthread_mutex_unlock(&m->lock);
}

void metrics_set(metrics *m, metric_id id, double value) {
    pthread_mutex_lock(&m->lock);
    m->plain[id] = value;
    pthread_mutex_unlock(&m->lock);
}

void metrics_observe(metrics *m, metric_id id, double value) {
    int b = 0;
    while (value > table[id].bounds[b]) b++;
    pthread_mutex_lock(&m->lock);
    m->bucket[id][b]++;
    m->sum[id] += value;
    pthread_mutex_unlock(&m->lock);
}

static void write_histogram(FILE *f, const metrics *m, int id) {
    const struct metric_desc *d = &table[id];
    uint64_t n = 0;
    for (int b = 0;; b++) {
        n += m->bucket[id][b];
        char le[32] = "+Inf";
        if (isfinite(d->bounds[b])) snprintf(le, sizeof le, "%g", d->bounds[b]);
        fprintf(f, "vitreous_%s_bucket{backend=\"%s\",le=\"%s\"} %llu\n", d->name, m->backend, le,
                (unsigned long long)n);
        if (!isfinite(d->bounds[b])) break;
    }
    fprintf(f, "vitreous_%s_sum{backend=\"%s\"} %.9g\n", d->name, m->backend, m->sum[id]);
    fprintf(f, "vitreous_%s_count{backend=\"%s\"} %llu\n", d->name, m->backend,
            (unsigned long long)n);
}

static void write_series(FILE *f, const metrics *m, int id) {
    const struct metric_desc *d = &table[id];
    for (int i = 0; i < m->n; i++) {
        const series *s = &m->series[i];
        if ((int)s->id != id) continue;
        fprintf(f, "vitreous_%s{%s=\"%s\"", d->name, d->label1, s->l1);
        if (d->label2) fprintf(f, ",%s=\"%s\"", d->label2, s->l2);
        fprintf(f, "} %.17g\n", s->value);
    }
}

char *metrics_text(metrics *m, size_t *len) {
    static const char *const types[] = {"counter", "gauge", "histogram"};
    char *text = NULL;
    FILE *f = open_memstream(&text, len);
    if (!f) return NULL;
    pthread_mutex_lock(&m->lock);
    for (int id = 0; id < M_COUNT; id++) {
        const struct metric_desc *d = &table[id];
        fprintf(f, "# HELP vitreous_%s %s\n# TYPE vitreous_%s %s\n", d->name, d->help, d->name,
                types[d->kind]);
        if (d->kind == HISTOGRAM) write_histogram(f, m, id);
        else if (d->label1) write_series(f, m, id);
        else if (id == M_BUILD)
            fprintf(f,
                    "vitreous_build_info{version=\"%s\",model=\"%s\",backend=\"%s\",dtype=\"%s\"}"
                    " 1\n",
                    VL_VERSION, m->model, m->backend, m->dtype);
        else fprintf(f, "vitreous_%s %.17g\n", d->name, m->plain[id]);
    }
    pthread_mutex_unlock(&m->lock);
    fclose(f);
    return text;
}
