/* serve.h: what every part of the server shares: its configuration, its one `server` object and
 * the error every API route answers with.
 *
 *   browser / client
 *        | HTTP, one thread per connection            http.c   routes.c   openapi.c   web.c
 *        v
 *   chat: JSON -> pictures, prompt, sampling          chat.c   fields.c   pictures.c  files.c
 *        |                    \ pictures are decoded in a confined child:  sandbox.c
 *        |                      or fetched from an allowed https host:    fetch.c   curl.c
 *        v
 *   scheduler: bounded queue -> one engine thread     scheduler.c -> vl_session (continuous batch)
 *        ^
 *   jobs: SQLite queue, lower priority                jobs.c
 *   beside: metrics.c, cache.c, disk_cache.c (whole answers), constrain.c + schema.c (output
 *   control)
 */
#ifndef SERVE_H
#define SERVE_H

#include <jansson.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "common/common.h"
#include "kernels/kernels_info.h"
#include "serve/metrics.h"

enum { MAX_KEYS = 16, MAX_HOSTS = 16, MAX_URL_HOSTS = 64, MAX_CHOICES = 4, MAX_STOPS = 16,
       MAX_BIAS = 1024, MAX_BREAKERS = 16, MAX_TOP_LOGPROBS = 20, MAX_FRAME = 100000 };

/* Every limit of the service in one place; the defaults are in server.c. */
typedef struct serve_config {
    const char *model_dir;
    vl_model_params model;
    const char *host;
    int port;
    const char *keys[MAX_KEYS];       /* none: no authentication                           */
    int n_keys;
    const char *hosts[MAX_HOSTS];     /* further names accepted in the Host header         */
    int n_hosts;
    const char *url_hosts[MAX_URL_HOSTS]; /* pictures may be fetched from; none: off       */
    int n_url_hosts;
    const char *test_image_url_ca;    /* tests only: trust this file, allow 127.0.0.1      */
    const char *result_cache_dir;     /* NULL: answers are cached in memory only           */
    const char *state_dir;            /* NULL: jobs live in memory only                    */
    int64_t min_pixels, max_pixels;   /* 0: the checkpoint's                               */
    int64_t body_bytes, image_bytes, image_pixels, image_ratio, files_bytes, result_cache_bytes,
        result_cache_disk_bytes,
        picture_cache_bytes, prefix_cache_bytes; /* prefix: -1: what kv_tokens holds */
    int connections, queue, batch, kv_tokens, speculate, images, default_tokens;
    double header_s, body_s, max_time_s, shutdown_s, picture_s, fetch_s, watchdog_s;
    bool sandbox, log_requests;
} serve_config;

/* What a failed call answers: HTTP status and the fields of OpenAI's error object. */
typedef struct api_error {
    int status, retry_after;          /* seconds; 0: no Retry-After                        */
    bool transient;                   /* of another server or process: may go better in a while */
    const char *code;                 /* static: "invalid_value", "queue_full", ...        */
    char param[80];                   /* the field at fault, or ""                         */
    char msg[320];
} api_error;
/* Fills `e` and returns -1, like vl_fail(). param may be NULL. */
int api_fail(api_error *e, int status, const char *code, const char *param, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));
/* The engine's error in API terms: input 400, unsupported 415, limit 400/413, the rest 500. */
int api_fail_engine(api_error *e, const vl_err *err, const char *param);

/* Who asks, and whether an answer is still wanted; what waits for something outside asks that often. */
typedef struct caller {
    int tenant;
    double arrived;                   /* vl_now()                                          */
    bool (*gone)(void *user);         /* NULL: never                                       */
    void *user;
} caller;

typedef struct scheduler scheduler;
typedef struct file_store file_store;
typedef struct result_cache result_cache;
typedef struct job_store job_store;
typedef struct vocabulary vocabulary;
typedef struct sandbox sandbox;

typedef struct server {
    serve_config config;
    vl_model *model;
    const vl_model_info *info;
    char model_id[80];                /* name as shown by /v1/models                       */
    uint8_t identity[32];             /* model + numeric mode: part of every cache key     */
    metrics *metrics;
    scheduler *scheduler;
    file_store *files;
    result_cache *results;
    job_store *jobs;
    vl_kernel_row kernels[VL_KERNEL_ROWS_MAX]; /* as they were chosen when the model was opened */
    size_t n_kernels;
    vocabulary *vocabulary;           /* token bytes for constrained decoding              */
    sandbox *sandbox;                 /* NULL: pictures are decoded in this process        */
    atomic_int draining;              /* 1: finish what runs, take nothing new             */
    double started;                   /* vl_now() at start                                 */
    int64_t started_unix;
} server;

/* The parts of a server but for HTTP and the sandbox: opened from srv->config, and closed in any state.
 * preset: of --preset, or NULL. */
serve_config server_defaults(void);
int server_open(server *srv, const char *preset, vl_err *err);
void server_close(server *srv);
/* memory.c: bytes of so many tokens of KV cache; of the weights, as the CPU keeps them (an estimate); and whether weights and KV fit into `usable` bytes (0: not
 * known). A message says what would. */
int64_t memory_kv_bytes(const server *srv, int64_t tokens);
int64_t memory_weight_bytes(const server *srv);
int memory_check(const server *srv, int64_t usable, vl_err *err);
/* Random identifier "prefix" + 24 hex digits, NUL-terminated. */
void new_id(char *out, size_t size, const char *prefix);
/* One JSON line on stderr: ts, level, msg and `fields` (taken; may be NULL).
 * Never contains prompts, answers or pictures. */
void log_json(const char *level, const char *msg, json_t *fields);
/* Appends a string; what is cut in the middle of a character is mended, so that it is never lost. */
void warn_add(json_t *warnings, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
