/* launch.c: runs one command of a stream: a kernel, a copy, a fill, a host function. */
#include "check.h"
#include "meet.h"
#include "mem.h"
#include "model.h"
#include "once.h"
#include "race.h"
#include "stream.h"
#include <stdlib.h>
#include <string.h>

/* A sample of up to 4096 words: enough to notice a buffer that was reused too early. */
uint64_t host_hash(const void *p, uint64_t bytes) {
    uint64_t h = 14695981039346656037ull, step = bytes / 4096 / 8 * 8, v;
    if (step < 8) step = 8;
    for (uint64_t i = 0; i + 8 <= bytes; i += step) {
        memcpy(&v, (const uint8_t *)p + i, 8);
        h = (h ^ v) * 1099511628211ull;
    }
    for (uint64_t i = bytes / 8 * 8; i < bytes; i++)
        h = (h ^ ((const uint8_t *)p)[i]) * 1099511628211ull;
    return h;
}

static CUresult run_kernel(Cmd *c, struct Stream *s) {
    Launch l = {.id = c->id, .device = c->device, .f = c->f, .dyn_shared = c->shared, .params = c->params,
                .pdl_base = c->pdl_base};
    memcpy(l.grid, c->grid, sizeof l.grid);
    memcpy(l.block, c->block, sizeof l.block);
    l.ordered_upto = order_bound(c->id);
    if (l.pdl_base > l.ordered_upto) l.pdl_base = 0;
    int from = l.pdl_base ? FROM_PDL : c->graph ? FROM_GRAPH : FROM_STREAM;
    const gpusim_kernel *before = settings.once ? once_find(&l) : NULL;
    if (before) {
        s->time_us += model_add(before, from);
        return CU_OK;
    }
    model_begin();
    CUresult r = exec_launch(&l);
    gpusim_kernel k = model_measure(&l);
    s->time_us += model_add(&k, from);
    if (settings.once) once_keep(&l, &k);
    free(l.count);
    return r;
}

static CUresult vanished(const Cmd *c, const char *what) {
    check_host("use-after-free", c->name, "%s: the %s range was freed before the stream ran",
               c->name, what);
    return CU_ILLEGAL_ADDRESS;
}

static CUresult to_device(Cmd *c, struct Stream *s) {
    const void *src = c->staged ? c->staged : (const void *)(uintptr_t)c->src;
    s->time_us += model_copy("(copy to the device)", c->bytes, true);
    if (!src) return CU_OK;                     /* freed early: reported by cuMemFreeHost */
    if (!c->staged && host_hash(src, c->bytes) != c->hash)
        check_host("host-buffer-changed", c->name,
                   "the pinned source of a copy of %llu bytes was "
                   "changed before the copy ran (no synchronisation)",
                   (unsigned long long)c->bytes);
    uint8_t *p = mem_fill_host(c->dst, c->bytes);
    if (!p) return vanished(c, "device");
    memcpy(p, src, c->bytes);
    race_host(c->id, c->dst, c->bytes, true);
    return CU_OK;
}

static void check_written(const Cmd *c) {
    const Alloc *a = mem_find(c->src);
    int64_t bad = settings.checks ? mem_uninitialised(a, c->src - a->addr, c->bytes) : -1;
    if (bad >= 0)
        check_host("uninitialised-copy", c->name, "copies %s+%lld, which nothing wrote", a->name,
                   (long long)bad);
}

static CUresult to_host(Cmd *c, struct Stream *s) {
    s->time_us += model_copy("(copy to the host)", c->bytes, true);
    const uint8_t *p = mem_host(c->src, c->bytes);
    if (!p) return vanished(c, "device");
    check_written(c);
    race_host(c->id, c->src, c->bytes, false);
    if (c->dst) memcpy((void *)(uintptr_t)c->dst, p, c->bytes);
    return CU_OK;
}

/* Copies data and "was it written" alike: padding may be copied unwritten. */
static CUresult on_device(Cmd *c, struct Stream *s) {
    s->time_us += model_copy("(copy on the device)", c->bytes, false);
    const uint8_t *from = mem_host(c->src, c->bytes);
    uint8_t *to = from ? mem_fill_host(c->dst, c->bytes) : NULL;
    if (!to) return vanished(c, "device");
    check_written(c);
    memmove(to, from, c->bytes);
    race_host(c->id, c->src, c->bytes, false);
    race_host(c->id, c->dst, c->bytes, true);
    return CU_OK;
}

static CUresult fill(Cmd *c, struct Stream *s) {
    s->time_us += model_copy("(fill)", c->bytes, false);
    uint8_t *p = mem_fill_host(c->dst, c->bytes);
    if (!p) return vanished(c, "device");
    memset(p, c->value, c->bytes);
    race_host(c->id, c->dst, c->bytes, true);
    return CU_OK;
}

static uint32_t running;

uint32_t command_running(void) { return running; }

/* cuBLAS work, or the join of two branches of a graph (no function). */
static CUresult run_host(Cmd *c, struct Stream *s) {
    if (!c->fn) return CU_OK;
    running = c->id;
    c->fn(c->staged);
    running = 0;
    s->time_us += model_host_work(c->name, c->flops, c->traffic);
    return CU_OK;
}

CUresult command_run(Cmd *c, struct Stream *s) {
    switch (c->kind) {
    case CMD_KERNEL: return run_kernel(c, s);
    case CMD_TO_DEVICE: return to_device(c, s);
    case CMD_TO_HOST: return to_host(c, s);
    case CMD_ON_DEVICE: return on_device(c, s);
    case CMD_FILL: return fill(c, s);
    case CMD_HOST: return run_host(c, s);
    case CMD_MEET: return meet_run(c, s);
    default: return CU_OK;
    }
}
