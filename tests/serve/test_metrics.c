/* test_metrics.c: every series is counted, also when all routes have given all answers. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "serve/http.h"
#include "tests/test.h"

static const int statuses[] = {200, 202, 400, 401, 403, 404, 405, 408, 413, 415, 429, 431, 499, 500, 503, 504};
enum { STATUSES = sizeof statuses / sizeof *statuses };

static void name_of(char *out, size_t size, const char *path, int status) {
    snprintf(out, size, "vitreous_requests_total{route=\"%s\",code=\"%d\"}", path, status);
}

int main(void) {
    metrics *m = metrics_open("cpu", "model", "exact");
    char name[160], code[8];
    for (const route *t = routes; t->method; t++)
        for (int i = 0; i < STATUSES; i++) {
            snprintf(code, sizeof code, "%d", statuses[i]);
            metrics_add(m, M_REQUESTS, t->path, code, 1);
        }
    metrics_add(m, M_TOKENS, "completion", NULL, 7);
    size_t n;
    char *text = metrics_text(m, &n);
    for (const route *t = routes; t->method; t++)
        for (int i = 0; i < STATUSES; i++) {
            name_of(name, sizeof name, t->path, statuses[i]);
            CHECK(strstr(text, name) != NULL, "%s is not there", name);
        }
    CHECK(strstr(text, "vitreous_tokens_total{kind=\"completion\"} 7\n") != NULL, "what is counted first afterwards is lost");
    free(text);
    metrics_free(m);
    return test_end();
}
