/* sse.h: one answer on its way to a client, whole or as server-sent events (chat_http.c), in the
 * form of the route that asked. */
#ifndef SERVE_SSE_H
#define SERVE_SSE_H

#include "serve/chat.h"
#include "serve/http.h"

typedef struct sse sse;

/* How a route words it. */
typedef struct answer_form {
    void (*pieces)(sse *s, int i);    /* send what is ready of choice i                     */
    void (*progress)(sse *s, const event *e);
    void (*finish)(sse *s);           /* every choice is complete: send the rest, set ended */
    json_t *(*result)(chat *c, api_error *e);   /* the whole answer, not streamed           */
} answer_form;

struct sse {
    http_request *r;
    const answer_form *form;
    caller by;
    json_t *body;
    attachment *files;
    chat c;
    char *out;                        /* what waits to be sent                              */
    size_t len, at;
    double last;                      /* when something was last sent                       */
    int stage, picture, stage_done;   /* of the last progress event, and what was done as its stage began */
    double stage_at;
    int sequence;                     /* events sent (responses.c)                          */
    bool message;                     /* the message is announced (responses.c)             */
    size_t told;                      /* pieces whose log probabilities were sent (responses.c) */
    bool ended;
};

/* Runs the request of r to its end, streamed or not. */
void generate(http_request *r, int which, const answer_form *form);
void sse_put(sse *s, const char *text, size_t n);
/* stage, done, total, image of an ENCODE or PREFILL event, and eta_ms: predicted until the first token. */
json_t *sse_progress_object(sse *s, const event *e);
/* "data: {...}"; takes the reference. */
void sse_data(sse *s, json_t *o);

#endif
