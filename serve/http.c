/* http.c: see http.h. libmicrohttpd parses; this file decides what is let in.
 *
 *   connect -> (header in header_s) -> framing, Host, Origin, key, route, size checks
 *           -> (body in body_s + size at 128 KiB/s) -> handler -> answer -> log line
 *
 * A reaper thread shuts down sockets that outlive their deadline (slow-loris), after a 408.
 * Easy to get wrong: MHD's own timeout also fires while a handler waits for the engine, so it is
 * off; a socket may only be touched under `lock`, because MHD closes it after CLOSED.
 */
#include "serve/http.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "loader/json.h"

enum { HEADER_MEMORY = 24 << 10, MAX_HEADERS = 100, MAX_HEADER_BYTES = 16 << 10 };
static const double body_rate = 128 << 10, write_stall_s = 60, idle_s = 60;

typedef struct connection {
    struct connection *next;
    int fd;
    double deadline;                  /* 0: none                                            */
    bool quiet;                       /* between requests: close without a 408              */
} connection;

struct http_server {
    server *srv;
    struct MHD_Daemon *daemon;
    pthread_mutex_t lock;
    connection *connections;
    int n_connections;
    pthread_t reaper;
    atomic_bool stop;
    atomic_int busy;
    int listen_fd;
};

/* ---- connections and their deadlines ------------------------------------------------------ */

static void set_deadline(http_server *h, connection *c, double seconds, bool quiet) {
    if (!c) return;
    pthread_mutex_lock(&h->lock);
    c->deadline = seconds > 0 ? vl_now() + seconds : 0;
    c->quiet = quiet;
    pthread_mutex_unlock(&h->lock);
}

static void on_connection(void *cls, struct MHD_Connection *conn, void **context,
                          enum MHD_ConnectionNotificationCode code) {
    http_server *h = cls;
    pthread_mutex_lock(&h->lock);
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        connection *c = vl_calloc(1, sizeof *c);
        if (c) {
            c->fd = MHD_get_connection_info(conn, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
            c->deadline = vl_now() + h->srv->config.header_s;
            c->next = h->connections;
            h->connections = c;
            h->n_connections++;
        }
        *context = c;
    } else {
        for (connection **p = &h->connections; *p; p = &(*p)->next) {
            if (*p != *context) continue;
            connection *c = *p;
            *p = c->next;
            free(c);
            h->n_connections--;
            break;
        }
        *context = NULL;
    }
    pthread_mutex_unlock(&h->lock);
}

static void *reaper_main(void *arg) {
    static const char late[] = "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n"
        "Content-Type: application/json\r\nContent-Length: 90\r\n\r\n"
        "{\"error\":{\"message\":\"the request came too slowly\",\"type\":\"timeout\","
        "\"code\":\"timeout\"}}    \n";
    http_server *h = arg;
    while (!atomic_load(&h->stop)) {
        double now = vl_now();
        pthread_mutex_lock(&h->lock);
        for (connection *c = h->connections; c; c = c->next) {
            if (c->deadline == 0 || now < c->deadline) continue;
            if (!c->quiet) {
                send(c->fd, late, sizeof late - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
                metrics_add(h->srv->metrics, M_REJECTED, "timeout", NULL, 1);
            }
            shutdown(c->fd, SHUT_RDWR);
            c->deadline = 0;
        }
        metrics_set(h->srv->metrics, M_CONNECTIONS, h->n_connections);
        pthread_mutex_unlock(&h->lock);
        usleep(200000);
    }
    return NULL;
}

/* Not by reading: what a client had sent ahead (the next request) would hide that it has closed since. */
bool http_gone(const http_request *r) {
    struct pollfd p = {.events = POLLRDHUP};
    p.fd = MHD_get_connection_info(r->conn, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    return poll(&p, 1, 0) > 0;
}

static bool gone(void *user) { return http_gone(user); }

caller http_caller(http_request *r) {
    return (caller){.tenant = r->tenant, .arrived = r->arrived, .gone = gone, .user = r};
}

/* ---- answers ------------------------------------------------------------------------------ */

static void add_headers(http_request *r, struct MHD_Response *resp, const char *type) {
    static const char *const fixed[][2] = {
        {"X-Content-Type-Options", "nosniff"},
        {"X-Frame-Options", "DENY"},
        {"Referrer-Policy", "no-referrer"},
        {"Cross-Origin-Resource-Policy", "same-origin"},
        {"Content-Security-Policy",
         "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
         "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"},
        {"Cache-Control", "no-store"},
    };
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++)
        MHD_add_response_header(resp, fixed[i][0], fixed[i][1]);
    MHD_add_response_header(resp, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    MHD_add_response_header(resp, "X-Request-Id", r->id);
}

static void queue(http_request *r, int status, struct MHD_Response *resp) {
    r->status = status;
    set_deadline(r->http, r->c, write_stall_s, true);
    MHD_queue_response(r->conn, (unsigned)status, resp);
    MHD_destroy_response(resp);
}

void http_bytes(http_request *r, int status, const char *type, const void *data, size_t len,
                bool copy, const char *header, const char *header_value) {
    struct MHD_Response *resp = MHD_create_response_from_buffer(
        len, (void *)(uintptr_t)data, copy ? MHD_RESPMEM_MUST_COPY : MHD_RESPMEM_PERSISTENT);
    if (!resp) return;
    add_headers(r, resp, type);
    if (header) MHD_add_response_header(resp, header, header_value);
    r->sent = len;
    queue(r, status, resp);
}

void http_json(http_request *r, int status, json_t *body) {
    char *text = json_dumps(body, JSON_COMPACT | JSON_REAL_PRECISION(9));
    json_decref(body);
    http_bytes(r, status, "application/json", text ? text : "{}", text ? strlen(text) : 2, true,
               NULL, NULL);
    free(text);
}

void http_error(http_request *r, const api_error *e) {
    const char *type = e->status == 401 ? "authentication_error"
                     : e->status == 429 ? "rate_limit_error"
                     : e->status >= 500 ? "server_error" : "invalid_request_error";
    json_t *body = json_pack("{s:{s:s%,s:s,s:s,s:s?,s:s}}", "error", "message", e->msg,
                             strnlen(e->msg, sizeof e->msg), "type", type, "code", e->code,
                             "param", *e->param ? e->param : NULL, "request_id", r->id);
    if (!body) body = json_pack("{s:{s:s,s:s,s:s}}", "error", "message", "invalid request",
                                "type", type, "code", e->code);
    char *text = json_dumps(body, JSON_COMPACT), retry[16];
    json_decref(body);
    snprintf(retry, sizeof retry, "%d", e->retry_after);
    bool challenge = e->status == 401;
    const char *header = e->retry_after ? "Retry-After" : challenge ? "WWW-Authenticate"
                       : e->status == 405 ? "Allow" : NULL;
    const char *value = e->retry_after ? retry : challenge
        ? "Basic realm=\"vitreous: any user, the API key as password\"" : r->allow;
    int status = e->status >= 400 ? e->status : 500; /* an error that nobody described: without a status nothing is sent */
    http_bytes(r, status, "application/json", text ? text : "{}", text ? strlen(text) : 2, true,
               header, value);
    free(text);
}

typedef struct stream {
    http_request *r;
    ssize_t (*read)(void *user, char *buf, size_t max);
    void (*end)(void *user);
    void *user;
} stream;

static ssize_t stream_read(void *cls, uint64_t pos, char *buf, size_t max) {
    stream *s = cls;
    (void)pos;
    ssize_t n = s->read(s->user, buf, max);
    set_deadline(s->r->http, s->r->c, write_stall_s, true);
    if (n > 0) s->r->sent += (size_t)n;
    return n > 0    ? n
           : n == 0 ? MHD_CONTENT_READER_END_OF_STREAM
                    : MHD_CONTENT_READER_END_WITH_ERROR;
}

static void stream_end(void *cls) {
    stream *s = cls;
    s->end(s->user);
    free(s);
}

void http_stream(http_request *r, const char *type,
                 ssize_t (*read)(void *user, char *buf, size_t max), void (*end)(void *user),
                 void *user) {
    stream *s = malloc(sizeof *s);
    vl_assert(s, "out of memory");
    *s = (stream){r, read, end, user};
    struct MHD_Response *resp =
        MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 16 << 10, stream_read, s, stream_end);
    if (!resp) {
        stream_end(s);
        return;
    }
    add_headers(r, resp, type);
    MHD_add_response_header(resp, "X-Accel-Buffering", "no");
    queue(r, 200, resp);
}

/* ---- what is let in ----------------------------------------------------------------------- */

const char *http_header(const http_request *r, const char *name) {
    return MHD_lookup_connection_value(r->conn, MHD_HEADER_KIND, name);
}

/* Host is a name of this machine's own, given with --allow-host, or an address: a page on another
 * site cannot reach the server by pointing its own name here (DNS rebinding). */
static bool host_allowed(const http_request *r, const char *host) {
    char name[256];
    if (!host || strlen(host) >= sizeof name) return false;
    strcpy(name, host);
    char *end = *name == '[' ? strchr(name, ']') : strchr(name, ':');
    if (*name == '[' && end) end++;
    if (end) {
        for (const char *p = *end == ':' ? end + 1 : end; *p; p++)
            if (!isdigit((unsigned char)*p)) return false;
        *end = 0;
    }
    struct in_addr a4;
    struct in6_addr a6;
    size_t n = strlen(name);
    if (inet_pton(AF_INET, name, &a4) == 1) return true;
    if (*name == '[' && name[n - 1] == ']') {
        name[n - 1] = 0;
        return inet_pton(AF_INET6, name + 1, &a6) == 1;
    }
    const serve_config *c = &r->srv->config;
    if (!strcasecmp(name, "localhost") || !strcasecmp(name, c->host)) return true;
    for (int i = 0; i < c->n_hosts; i++)
        if (!strcasecmp(name, c->hosts[i])) return true;
    return false;
}

typedef struct framing { int lengths, encodings, headers, hosts; size_t bytes; bool bad; } framing;

static enum MHD_Result count_header(void *cls, enum MHD_ValueKind kind, const char *key,
                                    const char *value) {
    framing *f = cls;
    (void)kind;
    f->headers++;
    f->bytes += strlen(key) + (value ? strlen(value) : 0);
    f->lengths += !strcasecmp(key, "Content-Length");
    f->encodings += !strcasecmp(key, "Transfer-Encoding");
    f->hosts += !strcasecmp(key, "Host");
    for (const char *p = key; *p; p++)
        f->bad |= !isalnum((unsigned char)*p) && !strchr("!#$%&'*+-.^_`|~", *p);
    for (const char *p = value ? value : ""; *p; p++)
        f->bad |= ((unsigned char)*p < 32 && *p != '\t') || *p == 127;
    return MHD_YES;
}

/* Whatever two parsers could read differently is refused, and the connection closed. */
static int check_framing(http_request *r, const char *version, api_error *e) {
    framing f = {0};
    MHD_get_connection_values(r->conn, MHD_HEADER_KIND, count_header, &f);
    const char *te = http_header(r, "Transfer-Encoding"), *cl = http_header(r, "Content-Length");
    if (f.headers > MAX_HEADERS || f.bytes > MAX_HEADER_BYTES)
        return api_fail(e, 431, "headers_too_large", NULL, "at most %d headers of %d bytes in all",
                        MAX_HEADERS, MAX_HEADER_BYTES);
    bool digits = cl && *cl && strspn(cl, "0123456789") == strlen(cl) && strlen(cl) < 19;
    if (f.bad || f.lengths > 1 || f.encodings > 1 || (f.lengths && f.encodings) || f.hosts > 1 ||
        (te && strcasecmp(te, "chunked") != 0) || (cl && !digits) ||
        (te && strcmp(version, "HTTP/1.1") != 0))
        return api_fail(e, 400, "bad_framing", NULL, "ambiguous or malformed header fields");
    return 0;
}

/* Compares in time that depends on the key's length only. */
static bool same_key(const char *key, const char *given) {
    size_t n = strlen(key), m = strlen(given);
    unsigned diff = (unsigned)(n ^ m) | (unsigned)((n ^ m) >> 8);
    for (size_t i = 0; i < n; i++)
        diff |= (unsigned char)key[i] ^ (unsigned char)given[m ? i % m : 0];
    return diff == 0;
}

/* `Authorization: Bearer KEY`, or Basic with the key as password (what a browser can send). */
static int check_key(http_request *r, api_error *e) {
    const serve_config *c = &r->srv->config;
    if (!c->n_keys || (r->route && r->route->flags & R_OPEN)) return 0;
    const char *auth = http_header(r, "Authorization");
    char *user = NULL, *pass = NULL;
    const char *given = "";
    if (auth && !strncasecmp(auth, "Bearer ", 7)) given = auth + 7;
    else if (auth && (user = MHD_basic_auth_get_username_password(r->conn, &pass)) && pass)
        given = pass;
    int tenant = -1;
    for (int i = 0; i < c->n_keys; i++)
        if (same_key(c->keys[i], given)) tenant = i;
    MHD_free(user);
    MHD_free(pass);
    if (tenant < 0)
        return api_fail(e, 401, "invalid_api_key", NULL,
                        "send the API key as 'Authorization: Bearer KEY'");
    r->tenant = tenant;
    return 0;
}

/* No CORS: a browser may only speak to the origin that served the page. */
static int check_origin(http_request *r, api_error *e) {
    const char *host = http_header(r, "Host"), *origin = http_header(r, "Origin");
    if (!host_allowed(r, host))
        return api_fail(e, 403, "host_not_allowed", NULL,
                        "this Host is not served here; allow it with --allow-host");
    if (!origin) return 0;
    const char *at = strstr(origin, "://");
    if (!at || strcasecmp(at + 3, host) != 0)
        return api_fail(e, 403, "origin_not_allowed", NULL, "cross-origin requests are off");
    return 0;
}

static int find_route(http_request *r, const char *method, api_error *e) {
    bool path_known = false;
    for (const route *t = routes; t->method; t++) {
        size_t n = strlen(t->path);
        bool prefix = n > 1 && t->path[n - 1] == '/';
        bool hit = prefix ? !strncmp(r->path, t->path, n) && r->path[n] && !strchr(r->path + n, '/')
                          : !strcmp(r->path, t->path);
        if (!hit) continue;
        path_known = true;
        size_t used = strlen(r->allow);
        snprintf(r->allow + used, sizeof r->allow - used, "%s%s", used ? ", " : "", t->method);
        if (strcmp(t->method, method) != 0 &&
            !(!strcmp(method, "HEAD") && !strcmp(t->method, "GET"))) continue;
        r->route = t;
        r->tail = prefix ? r->path + n : "";
        if (prefix) MHD_http_unescape(r->path + n); /* a model's name may be any text */
        return 0;
    }
    return path_known
               ? api_fail(e, 405, "method_not_allowed", NULL, "%s is not for this path", method)
               : api_fail(e, 404, "not_found", NULL, "there is nothing at this path");
}

static int check_body(http_request *r, api_error *e) {
    const char *cl = http_header(r, "Content-Length"), *te = http_header(r, "Transfer-Encoding");
    const char *type = http_header(r, "Content-Type");
    int64_t limit = r->srv->config.body_bytes;
    if (cl && strtoll(cl, NULL, 10) > limit)
        return api_fail(e, 413, "body_too_large", NULL, "the body may have at most %lld bytes",
                        (long long)limit);
    snprintf(r->content_type, sizeof r->content_type, "%s", type ? type : "");
    bool body = te || (cl && strcmp(cl, "0") != 0);
    bool form = !strncasecmp(r->content_type, "multipart/form-data", 19);
    bool json = !strncasecmp(r->content_type, "application/json", 16);
    int flags = r->route->flags;
    if (body && (flags & R_JSON) && !json && !((flags & R_UPLOAD) && form))
        return api_fail(e, 415, "unsupported_media_type", NULL,
                        "send Content-Type: application/json%s",
                        flags & R_UPLOAD ? " or multipart/form-data" : "");
    if (atomic_load(&r->srv->draining) && !(flags & R_LIVE)) {
        e->retry_after = 5;
        api_fail(e, 503, "shutting_down", NULL, "the server is shutting down");
        e->retry_after = 5;
        return -1;
    }
    return 0;
}

static int check_request(http_request *r, const char *method, const char *version, api_error *e) {
    int found = find_route(r, method, e);  /* first: /health needs no key */
    api_error not_found = *e;
    if (check_framing(r, version, e) || check_origin(r, e) || check_key(r, e)) return -1;
    *e = not_found;
    return found ? -1 : check_body(r, e);
}

/* ---- one request -------------------------------------------------------------------------- */

static void *on_uri(void *cls, const char *uri, struct MHD_Connection *conn) {
    http_server *h = cls;
    http_request *r = vl_calloc(1, sizeof *r);
    if (!r) return NULL;
    atomic_fetch_add(&h->busy, 1);
    r->http = h;
    r->srv = h->srv;
    r->conn = conn;
    r->arrived = vl_now();
    const char *end = strchr(uri, '?');
    r->path = end ? strndup(uri, (size_t)(end - uri)) : strdup(uri);
    new_id(r->id, sizeof r->id, "req_");
    const union MHD_ConnectionInfo *i =
        MHD_get_connection_info(conn, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    r->c = i ? i->socket_context : NULL;
    if (r->c && r->c->quiet) set_deadline(h, r->c, h->srv->config.header_s, false); /* it was that of an idle connection */
    return r;
}

static void take_body(http_request *r, const char *data, size_t n) {
    size_t limit = (size_t)r->srv->config.body_bytes;
    if (r->oversize || n > limit - r->len) {
        r->oversize = true;
        return;
    }
    if (r->len + n + 1 > r->cap) {
        size_t cap = r->cap ? r->cap : 4096;
        while (cap < r->len + n + 1) cap *= 2;
        char *p = realloc(r->body, cap);
        if (!p) {
            r->oversize = true;
            return;
        }
        r->body = p;
        r->cap = cap;
    }
    memcpy(r->body + r->len, data, n);
    r->len += n;
    r->body[r->len] = 0;
}

static int parse_json(http_request *r, api_error *e) {
    vl_err err = {0};
    if (!r->len) return api_fail(e, 400, "invalid_json", NULL, "the request has no body");
    r->json = vl_json_parse(r->body, r->len, "body", &err);
    if (!r->json) return api_fail(e, 400, "invalid_json", NULL, "%s", err.msg);
    if (!json_is_object(r->json))
        return api_fail(e, 400, "invalid_json", NULL, "the body must be a JSON object");
    return 0;
}

static void run_handler(http_request *r) {
    api_error e = {0};
    bool form = !strncasecmp(r->content_type, "multipart/form-data", 19);
    set_deadline(r->http, r->c, 0, true);
    if (r->oversize) {
        api_fail(&e, 413, "body_too_large", NULL, "the body may have at most %lld bytes",
                 (long long)r->srv->config.body_bytes);
        http_error(r, &e);
    } else if ((r->route->flags & R_JSON) && !form && parse_json(r, &e)) {
        http_error(r, &e);
    } else {
        r->route->fn(r);
    }
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *conn, const char *url,
                                  const char *method, const char *version, const char *data,
                                  size_t *size, void **con_cls) {
    http_server *h = cls;
    http_request *r = *con_cls;
    (void)conn;
    (void)url;
    if (!r || !r->path) return MHD_NO;
    if (!r->started) {
        r->started = true;
        api_error e = {0};
        if (check_request(r, method, version, &e)) {
            http_error(r, &e);
            return MHD_YES;
        }
        const char *cl = http_header(r, "Content-Length");
        set_deadline(h, r->c, h->srv->config.body_s + (cl ? atof(cl) / body_rate : 0), false);
        return MHD_YES;
    }
    if (*size) {
        take_body(r, data, *size);
        *size = 0;
        return MHD_YES;
    }
    if (!r->status) run_handler(r);
    return MHD_YES;
}

static void on_completed(void *cls, struct MHD_Connection *conn, void **con_cls,
                         enum MHD_RequestTerminationCode code) {
    http_server *h = cls;
    http_request *r = *con_cls;
    (void)conn;
    if (!r) return;
    atomic_fetch_sub(&h->busy, 1);
    char status[8];
    snprintf(status, sizeof status, "%d", r->status ? r->status : 499);
    const char *name = r->route ? r->route->path : "none";
    metrics_add(h->srv->metrics, M_REQUESTS, name, status, 1);
    if (h->srv->config.log_requests)
        log_json("info", "request", json_pack("{s:s,s:s,s:s,s:i,s:f,s:I,s:I,s:i,s:b}", "request_id",
            r->id, "method", r->route ? r->route->method : "?", "route", name, "status",
            atoi(status), "ms", (vl_now() - r->arrived) * 1e3, "bytes_in", (json_int_t)r->len,
            "bytes_out", (json_int_t)r->sent, "tenant", r->tenant, "complete",
            code == MHD_REQUEST_TERMINATED_COMPLETED_OK));
    set_deadline(h, r->c, idle_s, true);
    json_decref(r->json);
    free(r->body);
    free(r->path);
    free(r);
    *con_cls = NULL;
}

/* ---- lifecycle ---------------------------------------------------------------------------- */

static void on_library_log(void *cls, const char *format, va_list args) {
    (void)cls;
    (void)format;
    (void)args;                       /* per-connection noise, which may quote the request  */
}

static int listen_on(const char *host, int port, vl_err *err) {
    char service[16];
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *list, *a;
    snprintf(service, sizeof service, "%d", port);
    int rc = getaddrinfo(host, service, &hints, &list), fd = -1, on = 1;
    if (rc) return vl_fail(err, VL_E_USAGE, "--host %s: %s", host, gai_strerror(rc));
    for (a = list; a; a = a->ai_next) {
        fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, a->ai_protocol);
        if (fd < 0) continue;
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        if (bind(fd, a->ai_addr, a->ai_addrlen) == 0 && listen(fd, 256) == 0) break;
        close(fd);
        fd = -1;
    }
    freeaddrinfo(list);
    if (fd < 0)
        return vl_fail(err, VL_E_IO, "cannot listen on %s:%d: %s%s", host, port, strerror(errno),
                       errno == EADDRINUSE ? "; --port N takes another port" : "");
    return fd;
}

int http_open(http_server **out, server *srv, vl_err *err) {
    http_server *h = vl_calloc(1, sizeof *h);
    if (!h) return vl_fail(err, VL_E_NOMEM, "out of memory");
    h->srv = srv;
    pthread_mutex_init(&h->lock, NULL);
    h->listen_fd = listen_on(srv->config.host, srv->config.port, err);
    if (h->listen_fd >= 0)
        h->daemon = MHD_start_daemon(
            MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL |
                MHD_USE_ITC | MHD_USE_ERROR_LOG,
            0, NULL, NULL, on_request, h, MHD_OPTION_LISTEN_SOCKET, h->listen_fd,
            MHD_OPTION_EXTERNAL_LOGGER, on_library_log, NULL,
            MHD_OPTION_CONNECTION_LIMIT, (unsigned)srv->config.connections,
            MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)HEADER_MEMORY,
            MHD_OPTION_CONNECTION_TIMEOUT, 0u, MHD_OPTION_STRICT_FOR_CLIENT, 1,
            MHD_OPTION_NOTIFY_CONNECTION, on_connection, h,
            MHD_OPTION_NOTIFY_COMPLETED, on_completed, h, MHD_OPTION_URI_LOG_CALLBACK, on_uri, h,
            MHD_OPTION_END);
    if (!h->daemon || pthread_create(&h->reaper, NULL, reaper_main, h)) {
        if (h->listen_fd >= 0) vl_fail(err, VL_E_IO, "libmicrohttpd could not start");
        if (h->daemon) MHD_stop_daemon(h->daemon); /* and closes the socket */
        else if (h->listen_fd >= 0) close(h->listen_fd);
        pthread_mutex_destroy(&h->lock);
        free(h);
        return -1;
    }
    *out = h;
    return 0;
}

int http_port(const http_server *h) {
    struct sockaddr_storage a;
    socklen_t n = sizeof a;
    if (getsockname(h->listen_fd, (struct sockaddr *)&a, &n)) return -1;
    return ntohs(a.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&a)->sin6_port
                                         : ((struct sockaddr_in *)&a)->sin_port);
}

int http_busy(const http_server *h) { return atomic_load(&h->busy); }

void http_stop_accepting(http_server *h) {
    MHD_socket fd = MHD_quiesce_daemon(h->daemon);
    if (fd != MHD_INVALID_SOCKET) close(fd);
}

void http_close(http_server *h) {
    MHD_stop_daemon(h->daemon);
    atomic_store(&h->stop, true);
    pthread_join(h->reaper, NULL);
    pthread_mutex_destroy(&h->lock);
    free(h);
}
