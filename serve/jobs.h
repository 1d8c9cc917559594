/* jobs.h: the asynchronous queue. A job is a chat request kept in SQLite until its answer is there:
 * with --state DIR an accepted job survives any end of the process (SIGKILL included) and is run
 * again after a restart; without it jobs live in memory, and every job says so ("durable"). */
#ifndef SERVE_JOBS_H
#define SERVE_JOBS_H

#include "serve/serve.h"

/* Starts the worker threads too. */
int jobs_open(job_store **out, server *srv, vl_err *err);
/* Puts running jobs back into the queue and stops. */
void jobs_stop(job_store *s);
void jobs_free(job_store *s);
/* Job objects (new references); NULL and *e on failure. */
json_t *jobs_submit(job_store *s, int tenant, json_t *request, api_error *e);
json_t *jobs_get(job_store *s, int tenant, const char *id, api_error *e);
json_t *jobs_list(job_store *s, int tenant, api_error *e);
/* A queued or running job is cancelled, a finished one is forgotten. */
json_t *jobs_cancel(job_store *s, int tenant, const char *id, api_error *e);

#endif
