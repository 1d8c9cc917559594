/* check.c: see check.h. */
#include "check.h"
#include "gpusim_api.h"
#include "order.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_REPORTS = 1000 };
static gpusim_report *list[MAX_REPORTS];
static int count;
#define EXPORT __attribute__((visibility("default")))

static const char *file_name(const Func *f, uint32_t k) {
    const char *s = f->mod && k < (uint32_t)f->mod->nfile ? f->mod->files[k] : NULL;
    const char *slash = s ? strrchr(s, '/') : NULL;
    return slash ? slash + 1 : s ? s : "";
}

static bool is_cuda_source(const char *s) {
    const char *dot = strrchr(s, '.');
    return dot && (!strcmp(dot, ".cu") || !strcmp(dot, ".cuh"));
}

typedef struct { const char *file, *caller_file; uint32_t line, caller_line; } Place;

/* The innermost line in a .cu or .cuh file, and the line of the kernel it was inlined into. */
static Place place_of(const Func *f, uint32_t pc) {
    Place p = {"", "", 0, 0};
    if (!f || pc >= (uint32_t)f->ncode) return p;
    const Op *op = &f->code[pc];
    int k = 0;
    while (k < 2 && !is_cuda_source(file_name(f, op->loc[k].file))) k++;
    p.file = file_name(f, op->loc[k].file);
    p.line = op->loc[k].line;
    if (op->loc[2].line != p.line) {
        p.caller_file = file_name(f, op->loc[2].file);
        p.caller_line = op->loc[2].line;
    }
    return p;
}

/* Keeps a finding, or counts it with the one that has the same rule, kernel and lines. */
static bool keep(const gpusim_report *r) {
    for (int i = 0; i < count; i++) {
        gpusim_report *k = list[i];
        if (!strcmp(k->rule, r->rule) && !strcmp(k->kernel, r->kernel) && k->line == r->line &&
            k->caller_line == r->caller_line && k->other_line == r->other_line &&
            (r->line || !strcmp(k->message, r->message))) {
            k->count++;
            return false;
        }
    }
    if (count == MAX_REPORTS) return false;
    gpusim_report *k = malloc(sizeof *k);
    if (!k) return false;
    *k = *r;
    k->message = strdup(r->message);
    list[count++] = k;
    return k->message != NULL;
}

static bool allowed(const char *rule, const char *kernel) {
    char want[256];
    snprintf(want, sizeof want, "%s:%s", kernel, rule);
    const char *p = settings.allow;
    size_t n = strlen(want);
    while (p && *p) {
        const char *end = strchr(p, ',');
        size_t len = end ? (size_t)(end - p) : strlen(p);
        if (len == n && !memcmp(p, want, n)) return true;
        p = end ? end + 1 : NULL;
    }
    return false;
}

static size_t where(char *out, size_t n, const Func *f, uint32_t pc, const uint32_t *block,
                    uint32_t warp, int lane) {
    Place p = place_of(f, pc);
    char from[80] = "";
    if (p.caller_line)
        snprintf(from, sizeof from, " called at %s:%u", p.caller_file, p.caller_line);
    int k = snprintf(out, n, "%s:%u%s (%s) block (%u,%u,%u) warp %u", p.file, p.line, from,
                     pc < (uint32_t)f->ncode ? f->code[pc].text : "?", block[0], block[1], block[2],
                     warp);
    if (lane >= 0 && (size_t)k < n) k += snprintf(out + k, n - (size_t)k, " lane %d", lane);
    return (size_t)k < n ? (size_t)k : n - 1;
}

static void other_site(char *out, size_t n, const Site *o, gpusim_report *r) {
    const Node *node = order_get(o->node);
    out[0] = 0;
    if (!node) return;
    size_t k = (size_t)snprintf(out, n, "\n    other access: %s", node->what);
    if (!node->f) return;
    uint32_t gx = node->grid[0] ? node->grid[0] : 1, gy = node->grid[1] ? node->grid[1] : 1;
    uint32_t block[3] = {o->cta % gx, o->cta / gx % gy, o->cta / gx / gy};
    k += (size_t)snprintf(out + k, n - k, " at ");
    where(out + k, n - k, node->f, o->pc, block, o->warp, (int)o->lane);
    Place p = place_of(node->f, o->pc);
    r->other_file = p.file;
    r->other_line = p.line;
}

void check_report(const Warp *w, const Op *op, int lane, uint64_t addr, const Site *other,
                  const char *rule, const char *fmt, ...) {
    const Launch *l = w->cta->l;
    const Func *f = l->f;
    uint32_t pc = (uint32_t)(op - f->code);
    if (allowed(rule, f->name)) return;
    char text[1024], at[256], more[400] = "";
    Place p = place_of(f, pc);
    gpusim_report r = {.rule = rule, .kernel = f->name, .file = p.file, .line = p.line,
                       .caller_line = p.caller_line, .other_file = "", .warp = w->id,
                       .lane = (uint32_t)lane, .address = addr, .count = 1};
    memcpy(r.block, w->cta->id, sizeof r.block);
    where(at, sizeof at, f, pc, w->cta->id, w->id, lane);
    if (other) other_site(more, sizeof more, other, &r);
    int n = snprintf(text, sizeof text, "%s: kernel %s at %s: ", rule, f->name, at);
    va_list ap;
    va_start(ap, fmt);
    n += vsnprintf(text + n, sizeof text - (size_t)n, fmt, ap);
    va_end(ap);
    if ((size_t)n < sizeof text) snprintf(text + n, sizeof text - (size_t)n, "%s", more);
    r.message = text;
    if (keep(&r) && settings.verbose) fprintf(stderr, "gpusim: %s\n", text);
}

void check_host(const char *rule, const char *kernel, const char *fmt, ...) {
    if (allowed(rule, kernel)) return;
    char text[1024];
    int n = snprintf(text, sizeof text, "%s: ", rule);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text + n, sizeof text - (size_t)n, fmt, ap);
    va_end(ap);
    gpusim_report r = {.rule = rule, .kernel = kernel, .file = "", .other_file = "", .count = 1,
                       .message = text};
    if (keep(&r) && settings.verbose) fprintf(stderr, "gpusim: %s\n", text);
}

int check_count(void) { return count; }

EXPORT int gpusim_report_count(void) { return count; }
EXPORT const gpusim_report *gpusim_report_at(int i) { return i >= 0 && i < count ? list[i] : NULL; }
EXPORT void gpusim_reset_reports(void) {
    for (int i = 0; i < count; i++) {
        free((char *)(uintptr_t)list[i]->message);
        free(list[i]);
    }
    count = 0;
}
