/* server.c: `vitreous serve`: options, start, signals, drain.
 *
 *   fork the decoding helper -> open the model -> session -> engine warms up -> listen -> ready
 *   SIGTERM/SIGINT: /ready 503, no new connections or requests, finish what runs (at most
 *   --shutdown-timeout), exit 0. A second signal: now.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <malloc.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "kernels/threads.h"
#include "serve/cache.h"
#include "serve/constrain.h"
#include "serve/fetch.h"
#include "serve/http.h"
#include "serve/jobs.h"
#include "serve/pictures.h"
#include "serve/sandbox.h"
#include "serve/scheduler.h"
#include "tokenizer/tokenizer.h"

int cmd_serve(int argc, char **argv);

/* ---- small things shared by all ----------------------------------------------------------- */

/* `text` with U+FFFD for what is no UTF-8 (names and patterns are quoted up to a number of bytes). */
static void mend(char *text, size_t size) {
    size_t n;
    char *clean = vl_utf8_clean(text, strlen(text), &n);
    if (!clean) return;
    if (n > size - 1) n = vl_utf8_whole(clean, size - 1);
    memcpy(text, clean, n);
    text[n] = 0;
    free(clean);
}

void warn_add(json_t *warnings, const char *fmt, ...) {
    char text[320];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    mend(text, sizeof text);
    json_array_append_new(warnings, json_string(text));
}

int api_fail(api_error *e, int status, const char *code, const char *param, const char *fmt, ...) {
    va_list args;
    *e = (api_error){.status = status, .code = code};
    if (param) snprintf(e->param, sizeof e->param, "%s", param);
    mend(e->param, sizeof e->param);
    va_start(args, fmt);
    vsnprintf(e->msg, sizeof e->msg, fmt, args);
    va_end(args);
    mend(e->msg, sizeof e->msg);
    return -1;
}

int api_fail_engine(api_error *e, const vl_err *err, const char *param) {
    static const struct { int code, status; const char *name; } map[] = {
        {VL_E_USAGE, 400, "invalid_value"}, {VL_E_INPUT, 400, "invalid_input"},
        {VL_E_UNSUPPORTED, 415, "unsupported"}, {VL_E_LIMIT, 413, "over_limit"},
        {VL_E_NOMEM, 503, "out_of_memory"}, {VL_E_NUMERIC, 500, "numerical_error"},
        {VL_E_BACKEND, 500, "engine_failed"}, {VL_E_CANCELLED, 503, "cancelled"}, {VL_E_IO, 503, "system_failed"},
    };
    for (size_t i = 0; i < sizeof map / sizeof *map; i++)
        if (map[i].code == err->code)
            return api_fail(e, map[i].status, map[i].name, param, "%s", err->msg);
    return api_fail(e, 500, "internal_error", param, "internal error");
}

void new_id(char *out, size_t size, const char *prefix) {
    uint8_t b[12];
    char hex[25];
    vl_assert(getrandom(b, sizeof b, 0) == sizeof b, "getrandom");
    for (int i = 0; i < 12; i++) snprintf(hex + 2 * i, 3, "%02x", b[i]);
    snprintf(out, size, "%s%s", prefix, hex);
}

void log_json(const char *level, const char *msg, json_t *fields) {
    struct timespec t;
    struct tm tm;
    char ts[48], stamp[32];
    clock_gettime(CLOCK_REALTIME, &t);
    gmtime_r(&t.tv_sec, &tm);
    strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(ts, sizeof ts, "%s.%03ldZ", stamp, t.tv_nsec / 1000000);
    json_t *o = json_pack("{s:s,s:s,s:s}", "ts", ts, "level", level, "msg", msg);
    if (fields) json_object_update(o, fields);
    char *text = json_dumps(o, JSON_COMPACT | JSON_REAL_PRECISION(6));
    fprintf(stderr, "%s\n", text ? text : "{}");
    free(text);
    json_decref(fields);
    json_decref(o);
}

/* ---- options ------------------------------------------------------------------------------ */

typedef enum opt_kind {
    O_STR,
    O_DIR,
    O_INT,
    O_INT64,
    O_NUM,
    O_OFF,
    O_PIN,
    O_KEY,
    O_KEYFILE,
    O_HOST,
    O_URLS,
    O_PRESET,
    O_HELP
} opt_kind;
/* What --help calls a value of each kind; NULL: the option takes none. */
static const char *const value_names[] = {
    [O_STR] = "NAME", [O_DIR] = "DIR", [O_INT] = "N", [O_INT64] = "N", [O_NUM] = "S", [O_KEY] = "KEY",
    [O_KEYFILE] = "FILE", [O_HOST] = "NAME", [O_URLS] = "HOSTS", [O_PRESET] = "NAME", [O_HELP] = NULL,
};
#define AT(m) offsetof(serve_config, m)
static const struct opt {
    const char *name;
    opt_kind kind;
    size_t at;
    double lo, hi;
    const char *help;
} opts[] = {
    {"model", O_DIR, AT(model_dir), 0, 0, "checkpoint folder; default: the demo model"},
    {"backend", O_STR, AT(model.backend), 0, 0, "auto, cpu or cuda"},
    {"gpus", O_INT, AT(model.gpus), 0, 8, "2 to 8: so many GPUs share the model"},
    {"dtype", O_STR, AT(model.dtype), 0, 0, "exact, bf16, int8 or int4"},
    {"threads", O_INT, AT(model.threads), 0, 4096, "0: every core this process may use"},
    {"pin", O_PIN, 0, 0, 0, "worker threads stay on their CPUs (as VL_PIN=1)"},
    {"min-pixels", O_INT64, AT(min_pixels), 1, 1e12, "of a picture, unless the request says"},
    {"max-pixels", O_INT64, AT(max_pixels), 1, 1e12, "of a picture, unless the request says"},
    {"preset", O_PRESET, 0, 0, 0, "fast, balanced, ocr or ground: both of the above"},
    {"host", O_STR, AT(host), 0, 0, "address to listen on; default 127.0.0.1"},
    {"port", O_INT, AT(port), 0, 65535, "default 8080; 0: any free one"},
    {"api-key", O_KEY, 0, 0, 0, "required from clients, 8 to 200 characters; may be repeated"},
    {"api-key-file", O_KEYFILE, 0, 0, 0, "such keys, one per line"},
    {"allow-host", O_HOST, 0, 0, 0, "further name accepted in the Host header; may be repeated"},
    {"allow-image-urls", O_URLS, 0, 0, 0,
     "HOST[:PORT][,...] (also *.DOMAIN): pictures may be fetched from there by https; default: none"},
    {"image-url-timeout", O_NUM, AT(fetch_s), 0.1, 600,
     "seconds for all pictures by URL of a request; default 10"},
    {"state", O_DIR, AT(state_dir), 0, 0, "folder for jobs that must survive a restart"},
    {"batch", O_INT, AT(batch), 1, 256, "answers generated at once; default 8"},
    {"queue", O_INT, AT(queue), 1, 100000, "answers waiting before 429; default 32"},
    {"kv-tokens", O_INT, AT(kv_tokens), 64, 1e9, "KV capacity over all answers; default 32768"},
    {"speculate", O_INT, AT(speculate), 0, VL_SPECULATE_MAX, "tokens looked ahead in greedy answers; default 0"},
    {"connections", O_INT, AT(connections), 4, 65536, "open at once; default 256"},
    {"max-images", O_INT, AT(images), 1, 64, "in one request; default 8"},
    {"max-body", O_INT64, AT(body_bytes), 1024, 1e12, "bytes; default 16 MiB"},
    {"max-image-bytes", O_INT64, AT(image_bytes), 64, 1e12, "of one picture; default 10 MiB"},
    {"max-image-pixels", O_INT64, AT(image_pixels), 1, 1e10, "of one picture, before decoding; default 50 million"},
    {"max-image-ratio", O_INT64, AT(image_ratio), 0, 1e12,
     "decoded bytes per byte of a picture above 16 megapixels, 0: any; default 1000"},
    {"max-tokens", O_INT, AT(default_tokens), 1, 1e6, "when a request does not say; default 512"},
    {"max-time", O_NUM, AT(max_time_s), 0.1, 1e6, "seconds per request; default 600"},
    {"header-timeout", O_NUM, AT(header_s), 0.1, 3600, "seconds; default 10"},
    {"body-timeout", O_NUM, AT(body_s), 0.1, 3600, "seconds, plus size at 128 KiB/s; default 30"},
    {"image-timeout", O_NUM, AT(picture_s), 0.1, 600, "seconds of processor time to decode a picture; default 2"},
    {"watchdog", O_NUM, AT(watchdog_s), 0, 1e6,
     "seconds without progress after which /health says 503, 0: never; default 300"},
    {"shutdown-timeout", O_NUM, AT(shutdown_s), 0, 3600, "seconds to finish; default 30"},
    {"files-bytes", O_INT64, AT(files_bytes), 0, 1e12,
     "uploaded files kept in memory; default 64 MiB"},
    {"result-cache", O_INT64, AT(result_cache_bytes), 0, 1e12, "bytes, 0: off; default 64 MiB"},
    {"result-cache-dir", O_DIR, AT(result_cache_dir), 0, 0,
     "folder for cached answers that survive a restart (as text); default: none"},
    {"result-cache-disk-bytes", O_INT64, AT(result_cache_disk_bytes), 65536, 1e12,
     "in that folder; default 256 MiB"},
    {"picture-cache", O_INT64, AT(picture_cache_bytes), 0, 1e12, "bytes, 0: off; default 256 MiB"},
    {"prefix-cache", O_INT64, AT(prefix_cache_bytes), 0, 1e13,
     "bytes of KV kept of finished answers, 0: off; default: what --kv-tokens holds"},
    {"no-sandbox", O_OFF, AT(sandbox), 0, 0, "decode pictures in this process"},
    {"no-request-log", O_OFF, AT(log_requests), 0, 0, "log starts, stops and failures only"},
    /* For the test suite; not shown. */
    {"test-image-url-ca", O_STR, AT(test_image_url_ca), 0, 0, NULL},
    {"help", O_HELP, 0, 0, 0, "this text"},
};
enum { N_OPTS = sizeof opts / sizeof *opts };

serve_config server_defaults(void) {
    return (serve_config){
        .host = "127.0.0.1", .port = 8080, .body_bytes = 16 << 20, .image_bytes = 10 << 20,
        .image_pixels = 50000000, .image_ratio = 1000, .files_bytes = 64 << 20, .result_cache_bytes = 64 << 20,
        .result_cache_disk_bytes = 256 << 20,
        .picture_cache_bytes = 256 << 20, .prefix_cache_bytes = -1, .connections = 256, .queue = 32, .batch = 8,
        .kv_tokens = 32768, .images = 8, .default_tokens = 512, .header_s = 10, .body_s = 30,
        .max_time_s = 600, .shutdown_s = 30, .picture_s = 2, .fetch_s = 10, .watchdog_s = 300, .sandbox = true,
        .log_requests = true};
}

__attribute__((format(printf, 1, 2))) static int usage(const char *fmt, ...) {
    va_list args;
    fputs("vitreous serve: ", stderr);
    va_start(args, fmt);
    vfprintf(stderr, fmt, args);
    va_end(args);
    fputs("\nTry 'vitreous serve --help'.\n", stderr);
    return 2;
}

static void help(void) {
    puts("usage: vitreous serve [-m DIR] [--host NAME] [--port N] [--api-key KEY]...\n"
         "The web page and an OpenAI-compatible API, on this machine only unless --host says otherwise.\n");
    for (int i = 0; i < N_OPTS; i++) {
        char left[64];
        const char *value = value_names[opts[i].kind];
        snprintf(left, sizeof left, "%s--%s%s%s", i ? "    " : "-m, ", opts[i].name, value ? " " : "", value ? value : "");
        if (opts[i].help) printf("  %-32s %s\n", left, opts[i].help);
    }
}

static int bad_value(const struct opt *o, const char *v) {
    if (o->lo < o->hi)
        return usage("bad value for --%s: %s (a number from %.15g to %.15g is wanted)", o->name, v, o->lo, o->hi);
    return usage("bad value for --%s (%s)", o->name, o->help); /* not the value: it may be a key */
}

/* getopt's '?' and ':': an option that is unknown or not clear, or one without its value. */
static int bad_option(int k, char **argv) {
    const char *arg = argv[optind - 1];
    if (optopt > 0 && optopt < 1000) return usage(k == ':' ? "option -%c needs a value" : "unknown option -%c", optopt);
    return usage(k == ':' ? "option %s needs a value" : optopt ? "option %s takes no value" : "unknown option %s", arg);
}

static bool add_key(serve_config *c, const char *key) {
    if (c->n_keys == MAX_KEYS || strlen(key) < 8 || strlen(key) > 200) return false;
    c->keys[c->n_keys++] = key;
    return true;
}

static bool add_key_file(serve_config *c, const char *path) {
    static char kept[MAX_KEYS][256];  /* for as long as the process lives */
    char line[256];
    FILE *f = fopen(path, "r");
    const char *why = f ? NULL : strerror(errno);
    int before = c->n_keys, n = 0;
    while (!why && fgets(line, sizeof line, f)) {
        n++;
        line[strcspn(line, "\r\n")] = 0;
        if (!*line) continue;
        if (c->n_keys == MAX_KEYS) why = "there are more than 16 keys";
        else if (!add_key(c, memcpy(kept[c->n_keys], line, sizeof line))) why = "a key has 8 to 200 characters";
    }
    if (f) fclose(f);
    if (!why && c->n_keys == before) why = "there is no key in it";
    if (why) fprintf(stderr, "vitreous serve: %s, line %d: %s\n", path, n, why); /* not the line: it may be a key */
    return !why;
}

static bool set_option(serve_config *c, const struct opt *o, const char *v, const char **preset) {
    void *at = (char *)c + o->at;
    if (o->lo < o->hi) {
        char *end;
        double x = strtod(v, &end);
        if (!*v || *end || !(x >= o->lo && x <= o->hi) || (o->kind != O_NUM && x != floor(x))) return false;
        if (o->kind == O_NUM) *(double *)at = x;
        else if (o->kind == O_INT) *(int *)at = (int)x;
        else *(int64_t *)at = (int64_t)x;
        return true;
    }
    switch (o->kind) {
    case O_STR:
    case O_DIR: *(const char **)at = v; return true;
    case O_OFF: *(bool *)at = false; return true;
    case O_PIN: return setenv("VL_PIN", "1", 1) == 0; /* before the first thread */
    case O_KEY: return add_key(c, v);
    case O_KEYFILE: return add_key_file(c, v);
    case O_HOST: return c->n_hosts < MAX_HOSTS && (c->hosts[c->n_hosts++] = v);
    case O_URLS: return fetch_allow(c, v);
    case O_PRESET: *preset = v; return true;
    default: return false;
    }
}

/* 0: go on, else the exit code + 1. */
static int parse(serve_config *c, int argc, char **argv, const char **preset) {
    struct option longs[N_OPTS + 1] = {0};
    for (int i = 0; i < N_OPTS; i++) {
        int argument = value_names[opts[i].kind] ? required_argument : no_argument;
        longs[i] = (struct option){opts[i].name, argument, NULL, 1000 + i};
    }
    optind = 1;
    for (int k; (k = getopt_long(argc, argv, ":m:h", longs, NULL)) != -1;) {
        int i = k == 'm' ? 0 : k == 'h' ? N_OPTS - 1 : k - 1000;
        if (k == '?' || k == ':') return bad_option(k, argv) + 1;
        if (opts[i].kind == O_HELP) {
            help();
            return 1;
        }
        if (!set_option(c, &opts[i], optarg, preset))
            return bad_value(&opts[i], optarg) + 1;
    }
    if (optind < argc) return usage("unexpected argument %s", argv[optind]) + 1;
    return 0;
}

/* ---- life --------------------------------------------------------------------------------- */

/* Size, time and content: whole, or the first and last 64 KiB (reading gigabytes takes too long). */
static void hash_file(vl_sha256 *h, int dir, const char *name, bool whole) {
    enum { CHUNK = 64 << 10 };
    static char buf[CHUNK];
    struct stat st;
    int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
    if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode)) {
        int64_t state[] = {st.st_size, whole ? 0 : st.st_mtim.tv_sec,
                           whole ? 0 : st.st_mtim.tv_nsec};
        vl_sha256_add(h, name, strlen(name) + 1);
        vl_sha256_add(h, state, sizeof state);
        for (int64_t at = 0; at < st.st_size;) {
            ssize_t n = pread(fd, buf, CHUNK, at);
            if (n <= 0) break;
            vl_sha256_add(h, buf, (size_t)n);
            at += n;
            if (!whole && at < st.st_size - CHUNK) at = st.st_size - CHUNK;
        }
    }
    if (fd >= 0) close(fd);
}

/* The first line of `path` that begins with one of `words`. */
static void hash_line(vl_sha256 *h, const char *path, const char *const words[2]) {
    char line[8192];
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f))
        if (!strncmp(line, words[0], strlen(words[0])) || !strncmp(line, words[1], strlen(words[1]))) {
            vl_sha256_add(h, line, strlen(line));
            break;
        }
    if (f) fclose(f);
}

/* An answer on disk must not outlive what made it: this program (with the demo model in it), the
 * checkpoint's files, the kernels that this processor runs, and the GPU's driver (its version of the
 * API is in info->device; the compiler of PTX in it has a version of its own). */
static void hash_surroundings(vl_sha256 *h, const serve_config *c, const vl_model_info *info) {
    static const char *const names[] = {"VL_CPU", "VL_KERNEL", "CUDA_VISIBLE_DEVICES", "VL_CUDA_DRIVER",
                                        "VL_CUBLAS"};
    struct dirent **list = NULL;
    int n = c->model_dir ? scandir(c->model_dir, &list, NULL, alphasort) : 0;
    int dir = n > 0 ? open(c->model_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    hash_file(h, AT_FDCWD, "/proc/self/exe", true);
    for (int i = 0; i < n; i++) {
        if (dir >= 0) hash_file(h, dir, list[i]->d_name, false);
        free(list[i]);
    }
    free(list);
    if (dir >= 0) close(dir);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *v = getenv(names[i]);
        vl_sha256_add(h, v ? v : "", v ? strlen(v) + 1 : 1);
    }
    hash_line(h, "/proc/cpuinfo", (const char *[]){"flags", "Features"});
    if (*info->device) hash_line(h, "/proc/driver/nvidia/version", (const char *[]){"NVRM", "NVRM"});
}

static void make_identity(server *srv) {
    const vl_model_info *m = srv->info;
    char text[1024];
    vl_sha256 h;
    const serve_config *c = &srv->config;
    const char *name = m->name && *m->name ? m->name : "vitreous";
    snprintf(srv->model_id, sizeof srv->model_id, "%s", name);
    mend(srv->model_id, sizeof srv->model_id); /* a folder's name may be no text, or be cut within a character */
    int n = snprintf(text, sizeof text, "%s|%.400s|%s|%s|%s|%d|%llu|%llu|%d|%d|", VL_VERSION,
                     m->name ? m->name : "", m->backend, m->device, m->dtype, m->vocab,
                     (unsigned long long)m->parameters, (unsigned long long)m->weight_bytes,
                     c->default_tokens, c->kv_tokens);
    vl_sha256_init(&h);
    vl_sha256_add(&h, text, (size_t)n < sizeof text ? (size_t)n : sizeof text - 1);
    if (c->result_cache_dir) hash_surroundings(&h, c, m);
    vl_sha256_end(&h, srv->identity);
}

int server_open(server *srv, const char *preset, vl_err *err) {
    const serve_config *c = &srv->config;
    int64_t usable = vl_usable_memory(""); /* with nothing of ours in it yet */
    if (vl_model_open(&srv->model, c->model_dir, &c->model, err)) return -1;
    srv->info = vl_model_get_info(srv->model);
    srv->n_kernels = vl_kernels_list(srv->kernels, VL_KERNEL_ROWS_MAX);
    if (memory_check(srv, usable, err)) return -1;
    make_identity(srv);
    picture_limits lim;
    if (preset) {
        if (!picture_preset(srv, preset, &lim))
            return vl_fail(err, VL_E_USAGE, "--preset %s: not fast, balanced, ocr or ground",
                           preset);
        if (!c->min_pixels) srv->config.min_pixels = lim.min_pixels;
        if (!c->max_pixels) srv->config.max_pixels = lim.max_pixels;
    }
    srv->metrics = metrics_open(srv->info->backend, srv->model_id, srv->info->dtype);
    return !srv->metrics || vocabulary_open(&srv->vocabulary, srv->model, err) ||
           files_open(&srv->files, (size_t)c->files_bytes, err) ||
           cache_open(&srv->results, c, srv->metrics, err) ||
           scheduler_open(&srv->scheduler, srv, err) || jobs_open(&srv->jobs, srv, err);
}

void server_close(server *srv) {
    jobs_free(srv->jobs);
    scheduler_free(srv->scheduler);
    cache_free(srv->results);
    files_free(srv->files);
    vocabulary_free(srv->vocabulary);
    metrics_free(srv->metrics);
    vl_model_free(srv->model);
    sandbox_close(srv->sandbox);
}

static void announce(const server *srv, const http_server *http) {
    const serve_config *c = &srv->config;
    bool loopback = !strcmp(c->host, "127.0.0.1") || !strcmp(c->host, "localhost") ||
                    !strcmp(c->host, "::1");
    bool v6 = strchr(c->host, ':') != NULL;
    log_json("info", "listening", json_pack("{s:s,s:i,s:s,s:s,s:s,s:i}", "host", c->host, "port",
        http_port(http), "model", srv->model_id, "backend", srv->info->backend, "dtype",
        srv->info->dtype, "threads", srv->info->threads));
    if (!loopback && !c->n_keys)
        log_json("warning", "reachable from other machines without --api-key", NULL);
    if (c->test_image_url_ca)
        log_json("warning", "--test-image-url-ca is for tests only: pictures may be fetched from "
                 "127.0.0.1", NULL);
    if (*srv->info->warning)
        log_json("warning", "model", json_pack("{s:s}", "warning", srv->info->warning));
    printf("http://%s%s%s:%d\n", v6 ? "[" : "", c->host, v6 ? "]" : "", http_port(http));
    fflush(stdout);
}

static void *second_signal(void *arg) {
    sigset_t *set = arg;
    int sig;
    sigwait(set, &sig);
    log_json("warning", "second signal: exiting now", NULL);
    _exit(1);
}

static int run(server *srv) {
    vl_err err = {0};
    http_server *http;
    static sigset_t set;              /* the second signal's thread outlives this function */
    int sig;
    pthread_t impatient;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    if (http_open(&http, srv, &err)) {
        fprintf(stderr, "vitreous serve: %s\n", err.msg);
        jobs_stop(srv->jobs);             /* both have threads, which may be at work already */
        scheduler_close(srv->scheduler, 0);
        return 3;
    }
    announce(srv, http);
    sigwait(&set, &sig);
    log_json("info", "draining", json_pack("{s:f}", "seconds", srv->config.shutdown_s));
    if (pthread_create(&impatient, NULL, second_signal, &set) == 0) pthread_detach(impatient);
    atomic_store(&srv->draining, 1);
    http_stop_accepting(http);
    jobs_stop(srv->jobs);
    scheduler_close(srv->scheduler, srv->config.shutdown_s);
    for (int i = 0; i < 100 && http_busy(http); i++) usleep(20000);
    http_close(http);
    return 0;
}

int cmd_serve(int argc, char **argv) {
    static server srv;                /* as long as the process, with what its options were copied to */
    srv = (server){
        .config = server_defaults(), .started = vl_now(), .started_unix = (int64_t)time(NULL)};
    const char *preset = NULL;
    vl_err err = {0};
    sigset_t set;
    int rc = parse(&srv.config, argc, argv, &preset);
    if (rc) return rc - 1;
    mallopt(M_ARENA_MAX, 4);          /* a thread per connection must not mean an arena each */
    signal(SIGPIPE, SIG_IGN);
    if (srv.config.sandbox && (sandbox_open(&srv.sandbox, &err) || sandbox_try(srv.sandbox, &err))) {
        fprintf(stderr, "vitreous serve: %s\n", err.msg);
        return 3;
    }
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    if (fetch_open(&srv.config, &err) || server_open(&srv, preset, &err)) {
        fprintf(stderr, "vitreous serve: %s\n", err.msg);
        if (srv.scheduler) scheduler_close(srv.scheduler, 0);
        server_close(&srv);
        return err.code == VL_E_USAGE ? 2 : 3;
    }
    rc = run(&srv);
    server_close(&srv);
    if (rc == 0) log_json("info", "stopped", NULL);
    return rc;
}
