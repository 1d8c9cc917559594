/* routes.h: the handlers that the table in routes.c lists. */
#ifndef SERVE_ROUTES_H
#define SERVE_ROUTES_H

#include "serve/http.h"

/* chat_http.c */
void route_chat(http_request *r);
void route_completions(http_request *r);
/* responses.c */
void route_responses(http_request *r);
/* jobs_http.c */
void route_job_submit(http_request *r);
void route_job_list(http_request *r);
void route_job_get(http_request *r);
void route_job_cancel(http_request *r);
/* web.c */
void route_page(http_request *r);
/* openapi.c */
void route_openapi(http_request *r);

/* A generation request's JSON out of a multipart form; files become attachments. */
struct attachment;
json_t *form_body(http_request *r, struct attachment **files, api_error *e);
void attachments_free(struct attachment *a);

#endif
