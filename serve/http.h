/* http.h: HTTP over libmicrohttpd, one thread per connection, and what a route handler may do.
 *
 * A handler gets a complete request (body included, within limits, authenticated) and answers
 * exactly once with one of the http_* functions. It may block: /health has threads of its own.
 */
#ifndef SERVE_HTTP_H
#define SERVE_HTTP_H

#include <microhttpd.h>

#include "serve/serve.h"

typedef struct http_request http_request;
typedef void (*route_fn)(http_request *r);

typedef struct route {
    const char *method, *path;        /* a path that ends in '/' matches any one id after it */
    route_fn fn;
    enum { R_PLAIN = 0, R_OPEN = 1, R_JSON = 2, R_UPLOAD = 4, R_LIVE = 8 } flags;
                                      /* OPEN: no key; JSON: needs a JSON body; UPLOAD: also takes
                                         multipart/form-data or a raw body; LIVE: while draining */
    const char *summary;              /* for /openapi.json                                  */
} route;
extern const route routes[];          /* ends with method NULL */

struct http_request {
    server *srv;
    struct MHD_Connection *conn;
    const route *route;
    const char *tail;                 /* the id of a route that ends in '/'                 */
    char id[40];
    int tenant;                       /* index of the API key; 0 without keys               */
    double arrived;
    char *body;
    size_t len, cap;
    char content_type[128];
    json_t *json;                     /* parsed body of a R_JSON route                      */
    /* http.c's own */
    struct http_server *http;
    char *path;
    struct connection *c;
    bool started, oversize;
    char allow[40];                   /* for a 405 */
    int status;
    size_t sent;
};

/* Answers. http_json takes the reference. */
void http_json(http_request *r, int status, json_t *body);
void http_error(http_request *r, const api_error *e);
void http_bytes(http_request *r, int status, const char *type, const void *data, size_t len,
                bool copy, const char *header, const char *header_value);
/* Streams: `read` fills buf with up to max bytes and returns how many, 0 at the end, -1 on
 * failure; it may block but not much longer than a second. `end` always runs, once. */
void http_stream(http_request *r, const char *type,
                 ssize_t (*read)(void *user, char *buf, size_t max), void (*end)(void *user),
                 void *user);
/* Has the client gone away? */
bool http_gone(const http_request *r);
caller http_caller(http_request *r);
const char *http_header(const http_request *r, const char *name);
/* Calls fn for every field of a multipart/form-data body; -1 if it is malformed. */
int http_form(http_request *r, int (*fn)(void *user, const char *name, const char *filename,
                                         const char *data, size_t len), void *user, api_error *e);

typedef struct http_server http_server;
int http_open(http_server **out, server *srv, vl_err *err);
int http_port(const http_server *h);
/* Requests that are not answered in full yet. */
int http_busy(const http_server *h);
void http_stop_accepting(http_server *h);
void http_close(http_server *h);

#endif
