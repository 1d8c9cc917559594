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

static int fewer_threads(bench *b, const bench_case *base) {
    bench_case c = decode_case(base);
    char all[24];
    int n = vl_model_get_info(b->m)->threads, rc = n > 1 ? bench_open(b, 1) : 0;
    if (n == 1) {
        bench_no_tip(b->tips, "all threads", "one core: nothing to compare");
        return 0;
    }
    c.rounds = 3;
    snprintf(all, sizeof all, "%d threads", n);
    if (!rc) rc = bench_run_case(b, &c, NULL);
    if (rc) return rc;
    bench_add_case(b, &c, ", 1 thread");
    bench_result *a = keep(b);
    rc = bench_open(b, 0);
    if (!rc) rc = bench_run_case(b, &c, NULL);
    if (!rc) {
        bench_add_tip(b->tips, "all threads", "decode step", "1 thread", &a->step, all, &b->last.step);
        bench_add_tip(b->tips, "all threads", "prefill", "1 thread", &a->prefill, all, &b->last.prefill);
    }
    free(a);
    return rc;
}

static int pinned(bench *b, const bench_case *base) {
    bench_case c = decode_case(base);
    if (b->common.pin) {
        bench_no_tip(b->tips, "pinned threads", "--pin: there is no run without to compare with");
        return 0;
    }
    int rc = bench_run_case(b, &c, NULL);
    bench_result *a = keep(b);
    host_pin_threads(true);
    if (!rc) rc = bench_run_case(b, &c, NULL);
    host_pin_threads(false);
    if (!rc)
        bench_add_tip(b->tips, "pinned threads", "decode step", "free", &a->step, "pinned",
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
        bench_add_tip(b->tips, "transparent huge pages", "decode step", "4 KiB pages", &a->step,
                      "huge pages", &b->last.step);
    free(a);
    return rc;
}

/* A number of /proc/meminfo, in its own unit; -1: not there. */
static long meminfo(const char *key) {
    char line[128];
    long v = -1;
    FILE *f = fopen("/proc/meminfo", "r");
    while (f && v < 0 && fgets(line, sizeof line, f))
        if (!strncmp(line, key, strlen(key))) v = atol(line + strlen(key));
    if (f) fclose(f);
    return v;
}

static bool set_pool(long pages) {
    FILE *f = fopen("/proc/sys/vm/nr_hugepages", "w");
    bool ok = f && fprintf(f, "%ld\n", pages) > 0;
    if (f && fclose(f)) ok = false;
    return ok;
}

/* Weights in the hugetlb pool (VL_PAGES=hugetlb), which root may enlarge for the while. */
static int hugetlb(bench *b, const bench_case *base) {
    bench_case c = decode_case(base);
    long had = meminfo("HugePages_Total:"), page_kb = meminfo("Hugepagesize:");
    double bytes = (double)vl_model_get_info(b->m)->weight_bytes;
    long want = page_kb > 0 ? (long)(1.3 * bytes / 1024 / (double)page_kb) + 64 : 0;
    int rc = bench_run_case(b, &c, NULL);
    bench_result *a = keep(b);
    vl_model_free(b->m); /* makes room for the pool */
    b->m = NULL;
    bool set = had >= 0 && set_pool(had + want);
    if (!set || meminfo("HugePages_Free:") < want) {
        bench_no_tip(b->tips, "hugetlb pages",
                     "not possible here: /proc/sys/vm/nr_hugepages cannot be raised far enough");
        if (!rc) rc = bench_open(b, 0);
    } else {
        setenv("VL_PAGES", "hugetlb", 1);
        if (!rc) rc = bench_open(b, 0);
        if (!rc) rc = bench_run_case(b, &c, NULL);
        unsetenv("VL_PAGES");
        if (!rc)
            bench_add_tip(b->tips, "hugetlb pages", "decode step", "as the kernel chooses",
                          &a->step, "hugetlb", &b->last.step);
        if (!rc) rc = bench_open(b, 0); /* gives the pages back */
    }
    if (set) set_pool(had);
    free(a);
    return rc;
}

/* Opening and the first token of a text question: file from disk, then from the page cache. */
static int page_cache(bench *b, const bench_case *base) {
    enum { TIMES = 3 };
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
    for (int i = 0; !rc && i < 2 * TIMES; i++) {
        int warm = i % 2;
        vl_model_free(b->m);
        b->m = NULL;
        if (!warm && !host_drop_cache(dir))
            fprintf(stderr, "the page cache could not be dropped\n");
        double start = vl_now(), opened;
        rc = bench_open(b, 0);
        opened = vl_now() - start;
        if (!rc) rc = bench_run_case(b, &c, NULL);
        if (rc) break;
        bench_add(&open[warm], opened);
        bench_add(&first[warm], opened + b->last.first_token.v[0]);
    }
    if (rc) return rc;
    for (int warm = 0; warm < 2; warm++)
        bench_add_row(b, "open", names[warm], (double)vl_model_get_info(b->m)->weight_bytes, 1, 0,
                      0, &open[warm]);
    bench_add_tip(b->tips, "file in the page cache", "open", "cold", &open[0], "warm", &open[1]);
    bench_add_tip(b->tips, "file in the page cache", "open to first token of a text question",
                  "cold", &first[0], "warm", &first[1]);
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
    bench_add_tip(b->tips, "result of the picture and prompt cached", "first token", "first time", &miss,
                  "again", &hit);
    return 0;
}

/* One answer and n together: per token over all answers, and per step, which is what one waits for.
 * P99 needs 100 steps a side. */
static int together(bench *b, const bench_case *base, int n) {
    static bench_samples each;
    bench_case c = decode_case(base);
    char label[48];
    c.text_tokens = base->text_tokens;
    int rc = bench_run_batch(b, &c, 1);
    if (rc) return rc;
    bench_add_batch(b, 1);
    bench_result *alone = keep(b);
    rc = bench_run_batch(b, &c, n);
    if (!rc) {
        bench_add_batch(b, n);
        each.n = 0;
        for (size_t k = 0; k < b->last.step.n; k++) bench_add(&each, b->last.step.v[k] / n);
        snprintf(label, sizeof label, "%d answers together", n);
        bench_add_tip(b->tips, "batching", "seconds per token over all answers", "1 answer",
                      &alone->step, label, &each);
        bench_add_tip(b->tips, "batching", "wait for one's next token", "1 answer", &alone->step,
                      label, &b->last.step);
    }
    free(alone);
    return rc;
}
static int batch_of_2(bench *b, const bench_case *base) { return together(b, base, 2); }
static int batch_of_4(bench *b, const bench_case *base) { return together(b, base, 4); }
static int batch_of_8(bench *b, const bench_case *base) { return together(b, base, 8); }

int bench_run_tips(bench *b, const bench_case *base, const cli_list *names) {
    static const struct { const char *name; int (*run)(bench *, const bench_case *); } all[] = {
        {"cache", cached},      {"batch2", batch_of_2}, {"batch4", batch_of_4},
        {"batch8", batch_of_8}, {"pin", pinned},        {"threads", fewer_threads},
        {"thp", huge_pages},    {"hugetlb", hugetlb},   {"disk", page_cache},
        {"fused", bench_fused}};
    int rc = 0;
    for (int k = 0; k < names->n; k++) {
        bool known = !strcmp(names->v[k], "all");
        for (size_t i = 0; i < sizeof all / sizeof *all; i++)
            known = known || !strcmp(names->v[k], all[i].name);
        if (!known) return cli_usage("--tip: all, %s, not \"%s\"", BENCH_TIPS, names->v[k]);
    }
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        for (int k = 0; !rc && k < names->n; k++)
            if (!strcmp(names->v[k], "all") || !strcmp(names->v[k], all[i].name)) {
                rc = all[i].run(b, base);
                break;
            }
    return rc;
}
