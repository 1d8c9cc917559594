/* load.h: the parts of `vitreous load`: the requests, the client, the report.
 *
 * Definitions are those of vLLM's serving benchmark, except that every time counts from the moment
 * the request was due (its scheduled arrival), not from when the client came round to sending it,
 * so that a slow server cannot hide its queue (no coordinated omission):
 *   TTFT   first chunk with text            TPOT   (E2E - TTFT) / (output tokens - 1)
 *   ITL    each gap between such chunks     E2E    last chunk with text
 *   goodput: requests per second that met every limit that was given
 */
#ifndef VL_LOAD_H
#define VL_LOAD_H

#include <stdbool.h>
#include <stdio.h>

#include "cli/cli.h"
#include "cli/stats.h"

typedef struct load_kind { char *body; size_t len; } load_kind; /* one JSON request body */

typedef struct load_request {
    int kind;
    double due, sent, first, last;    /* seconds since the run's start; first 0: no text came */
    double *gaps;                     /* ITL                                                  */
    int n_gaps, cap_gaps, tokens, prompt_tokens;
    long status;
    bool done, ok;
    char error[96];
} load_request;

typedef struct load_run {
    const char *url;                  /* .../v1/chat/completions                              */
    const char *key;                  /* API key or NULL                                      */
    const load_kind *kinds;
    load_request *v;
    int n, max_in_flight;
    double timeout_s, seconds;        /* seconds: from the start to the last answer           */
} load_run;

/* The bodies of a workload: JSON lines of {"prompt", "images": [file...], "max_tokens", ...}; other
 * fields are passed on. Returns the count, or -1. */
int load_kinds_read(load_kind **out, const char *path, const char *model, vl_err *err);
/* One body from the command line. */
int load_kind_make(load_kind *out, const char *prompt, const cli_list *images, int64_t max_tokens,
                   const char *model, vl_err *err);
void load_kinds_free(load_kind *k, int n);
/* Sends every request at its due time and waits for all answers. -1 only when no client could be
 * set up; requests that fail say so themselves. */
int load_run_all(load_run *r, vl_err *err);
void load_requests_free(load_request *v, int n);

#endif
