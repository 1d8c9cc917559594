/* jobs_http.c: /v1/jobs over HTTP. A job is checked in full before it is accepted, so that what
 * can be refused is refused at once. */
#include <stdlib.h>

#include "serve/chat.h"
#include "serve/jobs.h"
#include "serve/routes.h"

/* Uploaded files live in memory and would be gone after a restart. */
static bool refers_to_files(const json_t *v) {
    const char *key;
    size_t i;
    json_t *o;
    if (json_is_string(v)) return !strncmp(json_string_value(v), "file-", 5);
    json_array_foreach((json_t *)(uintptr_t)v, i, o)
        if (refers_to_files(o)) return true;
    json_object_foreach((json_t *)(uintptr_t)v, key, o)
        if (strcmp(key, "text") && refers_to_files(o)) return true;
    return false;
}

static void reply(http_request *r, int status, json_t *o, const api_error *e) {
    if (o) http_json(r, status, o);
    else http_error(r, e);
}

void route_job_submit(http_request *r) {
    api_error e = {0};
    json_t *o = NULL, *m;
    size_t i;
    chat *c = vl_calloc(1, sizeof *c);
    vl_assert(c, "out of memory for a job of %zu bytes", sizeof *c);
    json_array_foreach(json_object_get(r->json, "messages"), i,
                       m) if (!e.status && refers_to_files(json_object_get(m, "content")) &&
                              !json_is_string(json_object_get(m, "content")))
        api_fail(
            &e, 400, "file_in_job", "messages",
            "a job must carry its pictures as data URLs: uploaded files do not outlive a restart");
    if (!e.status) {
        caller by = http_caller(r);
        if (chat_open(c, r->srv, FOR_CHAT, r->json, NULL, &by, BACKGROUND, &e) == 0)
            o = jobs_submit(r->srv->jobs, r->tenant, r->json, &e);
        chat_free(c);
    }
    free(c);
    reply(r, 202, o, &e);
}

void route_job_list(http_request *r) {
    api_error e = {0};
    json_t *o = jobs_list(r->srv->jobs, r->tenant, &e);
    reply(r, 200, o, &e);
}

void route_job_get(http_request *r) {
    api_error e = {0};
    json_t *o = jobs_get(r->srv->jobs, r->tenant, r->tail, &e);
    reply(r, 200, o, &e);
}

void route_job_cancel(http_request *r) {
    api_error e = {0};
    json_t *o = jobs_cancel(r->srv->jobs, r->tenant, r->tail, &e);
    reply(r, 200, o, &e);
}
