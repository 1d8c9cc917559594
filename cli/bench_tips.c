/* bench_tips.c: the tips that circulate, each as an A/B row measured here: "b" is the machine with
 * the tip, and the verdict comes from a permutation test on the samples. */
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "cli/bench.h"
#include "cli/host.h"
#include "common/common.h"

/* The last result, kept while the other side runs. */
static bench_result *keep(const bench *b) {
    bench_result *r = malloc(sizeof *r);
    vl_assert(r, "no memory for %zu bytes", sizeof *r);
    *r = b->last;
    return r;
}

/* Decode only, on a short question: what threads, pages and pinning change. */
static bench_case decode_case(const bench_case *base) {
    bench_case c = *base;
    snprintf(c.name, sizeof c.name, "text");
    c.width = c.height = 0;
    c.rounds = 1;
    return c;
}

/* The samples of a row that this run already has; false: there is none. */
static bool find_row(const bench *b, const char *stage, const char *name, bench_samples *out) {
    size_t i, k;
    json_t *o, *v;
    out->n = 0;
    json_array_foreach(b->stages, i,
                       o) if (!strcmp(json_string_value(json_object_get(o, "stage")), stage) &&
                              !strcmp(json_string_value(json_object_get(o, "case")), name))
        json_array_foreach(json_object_get(o, "samples"), k, v)
            bench_add(out, json_number_value(v));
    return out->n > 0;
}

static int smaller_picture(bench *b, const bench_case *base) {
    static bench_samples a, small;
    bench_case large = *base;
    large.width *= 2, large.height *= 2;
    large.rounds = 1;
    if (!base->width || !find_row(b, "first token", base->name, &small)) return 0; /* text only */
    snprintf(large.name, sizeof large.name, "%dx%d", large.width, large.height);
    if (!find_row(b, "first token", large.name, &a)) {
        int rc = bench_run_case(b, &large, NULL);
        if (rc) return rc;
        bench_add_case(b, &large, "");
        a = b->last.first_token;
    }
    bench_add_tip(b, "smaller picture", "first token", large.name, &a, base->name, &small);
    return 0;
}

static int fewer_threads(bench *b, const bench_case *base) {
    bench_case c = decode_case(base);
    char all[24];
    int n = vl_model_get_info(b->m)->threads, rc = n > 1 ? bench_open(b, 1) : 0;
    if (n == 1) return 0; /* nothing to compare */
    c.rounds = 3;
    snprintf(all, sizeof all, "%d threads", n);
    if (!rc) rc = bench_run_case(b, &c, NULL);
    if (rc) return rc;
    bench_add_case(b, &c, ", 1 thread");
    bench_result *a = keep(b);
    rc = bench_open(b, 0);
    if (!rc) rc = bench_run_case(b, &c, NULL);
    if (!rc) {
        bench_add_tip(b, "all threads", "decode step", "1 thread", &a->step, all, &b->last.step);
        bench_add_tip(b, "all threads", "prefill", "1 thread", &a->prefill, all, &b->last.prefill);
    }
    free(a);
    return rc;
}

static int pinned(bench *b, const bench_case *base) {
    bench_case c = decode_case(base);
    int rc = bench_run_case(b, &c, NULL);
    bench_result *a = keep(b);
    host_pin_threads(true);
    if (!rc) rc = bench_run_case(b, &c, NULL);
    host_pin_threads(false);
    if (!rc)
        bench_add_tip(b, "pinned threads", "decode step", "free", &a->step, "pinned",
                      &b->last.step);
    free(a);
    return rc;
}

/* The model is opened again without transparent huge pages, then with them. */
static int huge_pages(bench *b, const bench_case *base) {
    bench_case c = decode_case(base);
    prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
    int rc = bench_open(b, 0);
    if (!rc) rc = bench_run_case(b, &c, NULL);
    bench_result *a = keep(b);
    prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0);
    if (!rc) rc = bench_open(b, 0);
    if (!rc) rc = bench_run_case(b, &c, NULL);
    if (!rc)
        bench_add_tip(b, "transparent huge pages", "decode step", "4 KiB pages", &a->step,
                      "huge pages", &b->last.step);
    free(a);
    return rc;
}

/* Opening and the first token of a text question: file from disk, then from the page cache. */
static int page_cache(bench *b, const bench_case *base) {
    static bench_samples open[2], first[2];
    static const char *const names[] = {"open, cold file", "open, page cache"};
    bench_case c = decode_case(base);
    char dir[4096];
    int rc = 0;
    c.tokens = 2;
    c.first = true;
    snprintf(dir, sizeof dir, "%s", vl_model_get_info(b->m)->dir);
    memset(open, 0, sizeof open);
    memset(first, 0, sizeof first);
    for (int warm = 0; !rc && warm < 2; warm++) {
        double bytes = (double)vl_model_get_info(b->m)->weight_bytes;
        vl_model_free(b->m);
        b->m = NULL;
        if (!warm && !host_drop_cache(dir))
            fprintf(stderr, "the page cache could not be dropped\n");
        double start = vl_now();
        rc = bench_open(b, 0);
        bench_add(&open[warm], vl_now() - start);
        if (!rc) rc = bench_run_case(b, &c, NULL);
        if (!rc) bench_add(&first[warm], open[warm].v[0] + b->last.first_token.v[0]);
        if (!rc) bench_add_row(b, "open", names[warm], bytes, 1, 0, 0, &open[warm]);
    }
    if (rc) return rc;
    bench_add_tip(b, "file in the page cache", "open", "cold", &open[0], "warm", &open[1]);
    bench_add_tip(b, "file in the page cache", "open to first token of a text question", "cold",
                  &first[0], "warm", &first[1]);
    return 0;
}

/* The same question about the same picture again, with the picture and prefix caches on. */
static int cached(bench *b, const bench_case *base) {
    static bench_samples miss, hit;
    bench_case c = *base;
    vl_session_params p = {.picture_cache_bytes = (size_t)256 << 20, .prefix_cache = true};
    memset(&miss, 0, sizeof miss);
    memset(&hit, 0, sizeof hit);
    c.rounds = 4;
    c.tokens = 2;
    int rc = bench_run_case(b, &c, &p);
    if (rc) return rc;
    for (size_t i = 0; i < b->last.first_token.n; i++)
        bench_add(i ? &hit : &miss, b->last.first_token.v[i]);
    bench_add_tip(b, "result of the picture and prompt cached", "first token", "first time", &miss,
                  "again", &hit);
    return 0;
}

static int batches(bench *b, const bench_case *base) {
    static const int sizes[] = {1, 2, 4, 8};
    bench_case c = decode_case(base);
    bench_result *alone = NULL;
    int rc = 0;
    if (c.tokens > 16) c.tokens = 16;
    for (int i = 0; !rc && i < 4; i++) {
        int n = sizes[i];
        char name[24], label[48];
        bench_samples each = {0};
        rc = bench_run_batch(b, &c, n);
        if (rc) break;
        stage_work g = work_decode(&b->shape, b->last.rows, n);
        snprintf(name, sizeof name, "batch %d", n);
        bench_add_row(b, "decode", name, b->last.rows, n, work_flop(&g),
                      decoder_bytes(&b->shape, b->mode) + g.kv * b->mode->kv_bytes, &b->last.step);
        if (n == 1) alone = keep(b);
        for (size_t k = 0; k < b->last.step.n; k++) bench_add(&each, b->last.step.v[k] / n);
        snprintf(label, sizeof label, "%d answers together", n);
        if (n > 1)
            bench_add_tip(b, "batching", "seconds per token over all answers", "1 answer",
                          &alone->step, label, &each);
    }
    free(alone);
    return rc;
}

int bench_run_tips(bench *b, const bench_case *base) {
    static int (*const all[])(bench *, const bench_case *) = {
        smaller_picture, cached, batches, pinned, fewer_threads, huge_pages, page_cache};
    int rc = 0;
    for (size_t i = 0; !rc && i < sizeof all / sizeof *all; i++) rc = all[i](b, base);
    return rc;
}
