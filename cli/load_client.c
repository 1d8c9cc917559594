/* load_client.c: an HTTP client for many streams at once, over libcurl's multi interface
 * (serve/curl.h). Server-sent events are parsed here: lines "data: {...}", "data: [DONE]"; a chunk
 * counts as text when choices[0].delta.content is a non-empty string. */
#include <stdlib.h>
#include <string.h>

#include "cli/load.h"
#include "common/common.h"
#include "loader/json.h"
#include "serve/curl.h"

/* ---- one stream ------------------------------------------------------------------------------ */

enum { LINE_MAX_BYTES = 1 << 20 };
typedef struct stream {
    load_request *q;
    double start;                     /* vl_now() at the run's start                            */
    CURL *easy;
    char *line;
    size_t len, cap;
    bool failed;
    char curl_error[CURL_ERROR_SIZE];
} stream;

static void fail_request(load_request *q, const char *why) {
    if (!q->error[0]) snprintf(q->error, sizeof q->error, "%.95s", why);
}

static void text_chunk(load_request *q, double now) {
    if (q->first > 0) {
        if (q->n_gaps == q->cap_gaps) {
            int cap = q->cap_gaps ? 2 * q->cap_gaps : 64;
            double *more = realloc(q->gaps, (size_t)cap * sizeof *more);
            if (!more) return;
            q->gaps = more;
            q->cap_gaps = cap;
        }
        q->gaps[q->n_gaps++] = now - q->last;
    } else {
        q->first = now;
    }
    q->last = now;
}

static void event(stream *s, const char *data, double now) {
    load_request *q = s->q;
    vl_err err;
    if (!strcmp(data, "[DONE]")) {
        q->ok = true;
        return;
    }
    json_t *j = vl_json_parse(data, strlen(data), "the server's event", &err);
    if (!j) {
        fail_request(q, err.msg);
        return;
    }
    const json_t *choice = json_array_get(json_object_get(j, "choices"), 0);
    const char *text =
        json_string_value(json_object_get(json_object_get(choice, "delta"), "content"));
    const json_t *usage = json_object_get(j, "usage"), *error = json_object_get(j, "error");
    if (text && *text) text_chunk(q, now);
    if (json_is_object(usage)) {
        q->tokens = (int)json_integer_value(json_object_get(usage, "completion_tokens"));
        q->prompt_tokens = (int)json_integer_value(json_object_get(usage, "prompt_tokens"));
    }
    if (json_is_object(error)) {
        const char *message = json_string_value(json_object_get(error, "message"));
        fail_request(q, message ? message : "the server sent an error");
    }
    json_decref(j);
}

static void end_line(stream *s, double now) {
    if (s->len && s->line[s->len - 1] == '\r') s->len--;
    s->line[s->len] = '\0';
    if (!strncmp(s->line, "data:", 5)) event(s, s->line + 5 + (s->line[5] == ' '), now);
    s->len = 0;
}

static size_t received(char *data, size_t size, size_t n, void *user) {
    stream *s = user;
    double now = vl_now() - s->start;
    for (size_t i = 0; i < size * n; i++) {
        if (data[i] == '\n') {
            if (s->line) end_line(s, now);
            continue;
        }
        if (s->len + 2 > s->cap) {
            size_t cap = s->cap ? 2 * s->cap : 1024;
            char *more = cap <= LINE_MAX_BYTES ? realloc(s->line, cap) : NULL;
            if (!more) {
                fail_request(s->q, "an event of more than 1 MiB");
                return 0;
            }
            s->line = more;
            s->cap = cap;
        }
        s->line[s->len++] = data[i];
    }
    return size * n;
}

static int start_stream(stream *s, load_run *r, load_request *q, struct curl_slist *headers,
                        double start) {
    const load_kind *k = &r->kinds[q->kind];
    *s = (stream){.q = q, .start = start, .easy = curl->easy_init()};
    if (!s->easy) return -1;
    q->sent = vl_now() - start;
    curl->easy_setopt(s->easy, CURLOPT_URL, r->url);
    curl->easy_setopt(s->easy, CURLOPT_HTTPHEADER, headers);
    curl->easy_setopt(s->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)k->len);
    curl->easy_setopt(s->easy, CURLOPT_POSTFIELDS, k->body);
    curl->easy_setopt(s->easy, CURLOPT_WRITEFUNCTION, received);
    curl->easy_setopt(s->easy, CURLOPT_WRITEDATA, s);
    curl->easy_setopt(s->easy, CURLOPT_PRIVATE, s);
    curl->easy_setopt(s->easy, CURLOPT_ERRORBUFFER, s->curl_error);
    curl->easy_setopt(s->easy, CURLOPT_NOSIGNAL, 1L);
    curl->easy_setopt(s->easy, CURLOPT_TIMEOUT_MS, (long)(r->timeout_s * 1000));
    return 0;
}

static void end_stream(stream *s, CURLcode code) {
    load_request *q = s->q;
    if (s->len) end_line(s, vl_now() - s->start);
    curl->easy_getinfo(s->easy, CURLINFO_RESPONSE_CODE, &q->status);
    if (code != CURLE_OK)
        fail_request(q, s->curl_error[0] ? s->curl_error : curl->easy_strerror(code));
    if (q->status != 200) {
        char why[32];
        snprintf(why, sizeof why, "HTTP %ld", q->status);
        fail_request(q, why);
    } else if (!q->ok) {
        fail_request(q, "the stream ended without [DONE]");
    } else if (!(q->first > 0)) {
        fail_request(q, "an answer without text");
    }
    q->ok = !q->error[0];
    q->done = true;
    if (q->tokens <= 0) q->tokens = q->n_gaps + (q->first > 0); /* no usage: one token per chunk */
    curl->easy_cleanup(s->easy);
    free(s->line);
    free(s);
}

/* ---- all of them ----------------------------------------------------------------------------- */

static void collect(CURLM *multi, int *in_flight) {
    int left;
    for (CURLMsg *m; (m = curl->multi_info_read(multi, &left));) {
        if (m->msg != CURLMSG_DONE) continue;
        stream *s = NULL;
        CURLcode code = m->data.result;
        curl->easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&s);
        curl->multi_remove_handle(multi, m->easy_handle);
        end_stream(s, code);
        --*in_flight;
    }
}

static void launch(load_run *r, load_request *q, CURLM *multi, struct curl_slist *headers,
                   double start, int *in_flight) {
    stream *s = *in_flight < r->max_in_flight ? malloc(sizeof *s) : NULL;
    if (s && start_stream(s, r, q, headers, start) == 0 && !curl->multi_add_handle(multi, s->easy)) {
        ++*in_flight;
        return;
    }
    free(s);
    q->sent = vl_now() - start;
    q->done = true; /* counted as failed, never left out */
    fail_request(q, *in_flight < r->max_in_flight ? "no memory" : "over --max-in-flight");
}

static void loop(load_run *r, CURLM *multi, struct curl_slist *headers) {
    int next = 0, in_flight = 0, running;
    double start = vl_now();
    while (next < r->n || in_flight) {
        double now = vl_now() - start;
        while (next < r->n && r->v[next].due <= now)
            launch(r, &r->v[next++], multi, headers, start, &in_flight);
        curl->multi_perform(multi, &running);
        collect(multi, &in_flight);
        double wait = next < r->n ? r->v[next].due - (vl_now() - start) : 0.2;
        int ms = wait < 0 ? 0 : wait > 0.2 ? 200 : (int)(wait * 1000);
        if (next < r->n || in_flight) curl->multi_poll(multi, NULL, 0, ms, NULL);
    }
    r->seconds = vl_now() - start;
}

int load_run_all(load_run *r, vl_err *err) {
    char auth[512];
    if (curl_open("load", err)) return -1;
    CURLM *multi = curl->multi_init();
    struct curl_slist *headers = curl->slist_append(NULL, "Content-Type: application/json");
    headers = curl->slist_append(headers, "Expect:"); /* no round trip before large bodies */
    if (r->key) {
        snprintf(auth, sizeof auth, "Authorization: Bearer %s", r->key);
        headers = curl->slist_append(headers, auth);
    }
    if (!multi || !headers) return vl_fail(err, VL_E_NOMEM, "no memory for the client");
    curl->multi_setopt(multi, CURLMOPT_MAXCONNECTS, (long)r->max_in_flight);
    loop(r, multi, headers);
    curl->slist_free_all(headers);
    curl->multi_cleanup(multi);
    return 0;
}

void load_requests_free(load_request *v, int n) {
    for (int i = 0; v && i < n; i++) free(v[i].gaps);
    free(v);
}
