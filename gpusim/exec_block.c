/* exec_block.c: blocks, barriers and launches.
 *
 * Blocks run one after another, warps of a block in turns. Order does not change the findings
 * (races are found by what is ordered, not by what happens to run first), but GPUSIM_ORDER can
 * reverse or shuffle both to show that results do not depend on it. */
#include "exec_block.h"
#include "check.h"
#include "count.h"
#include "exec.h"
#include "mem.h"
#include "ptx_build.h"
#include <stdlib.h>
#include <string.h>

/* Buffers kept from launch to launch. */
static Warp warps[MAX_WARPS];
static struct { uint8_t *regs, *special, *local, *call; uint32_t *pred, *undef; } arena[MAX_WARPS];
static uint8_t *shared;
static SWord *shadow;
static uint32_t version, ticks;
static size_t cap_special, cap_regs, cap_pred, cap_local, cap_call, cap_undef, cap_shared;

/* ---- barriers ---- */

static uint32_t alive(const Cta *c) {
    uint32_t m = 0;
    for (uint32_t i = 0; i < c->nwarps; i++)
        if (!c->warps[i].done) m |= 1u << i;
    return m;
}

/* The participants learn everything the others did before this tick. */
static void complete(Cta *c, NamedBarrier *b) {
    uint32_t all = alive(c), set = b->arrived;
    uint32_t now = ++c->tick, best[MAX_WARPS] = {0}, pdl = 0;
    for (uint32_t i = 0; i < c->nwarps; i++) {
        if (!(set >> i & 1)) continue;
        for (uint32_t k = 0; k < c->nwarps; k++)
            if (c->warps[i].known[k] > best[k]) best[k] = c->warps[i].known[k];
        best[i] = b->waiting >> i & 1 ? now : b->stamp[i];
        if (c->warps[i].ordered_upto > pdl) pdl = c->warps[i].ordered_upto;
    }
    for (uint32_t i = 0; i < c->nwarps; i++) {
        Warp *w = &c->warps[i];
        if (!(b->waiting >> i & 1)) continue;
        for (uint32_t k = 0; k < c->nwarps; k++)
            if ((set & all) == all && b->waiting == set) w->known[k] = now;
            else if (best[k] > w->known[k]) w->known[k] = best[k];
        w->sync++;
        w->ordered_upto = pdl;
        w->at_barrier = 0;
        w->released = 1;
    }
    if ((set & all) == all && b->waiting == set) c->full_tick = now;
    b->last_popc = b->popc;
    b->last_all = b->all;
    b->last_any = b->any;
    b->need = b->threads = b->arrived = b->waiting = b->popc = b->any = 0;
    ticks = c->tick;
}

static bool full(const Cta *c, const NamedBarrier *b) {
    if (!b->arrived) return false;
    if (b->need) return b->threads >= b->need;
    return (b->arrived & alive(c)) == alive(c);
}

int exec_barrier_arrive(Warp *w, const Op *op) {
    Cta *c = w->cta;
    int first = __builtin_ctz(w->mask);
    const Opnd *o = op->o + op->ndst;
    uint32_t id = ((const uint32_t *)at(w, o[0]))[first];
    uint32_t need = ((const uint32_t *)at(w, o[1]))[first], pc = (uint32_t)(op - w->code);
    if (id > 15 || need % LANES) {
        check_report(w, op, first, 0, NULL, "barrier-arguments", "barrier %u, %u threads: the id "
                     "must be below 16, the count a multiple of 32", id, need);
        c->l->failed = 719;
        return FATAL;
    }
    NamedBarrier *b = &c->bar[id];
    if (!b->arrived) {
        b->pc = pc;
        b->need = need;
        b->all = 1;
    } else if (b->need != need || (id == 0 && need == 0 && b->pc != pc)) {
        Site other = {c->l->id, b->pc, c->linear, (uint32_t)__builtin_ctz(b->arrived), 0};
        check_report(w, op, first, 0, &other, "divergent-barrier",
                     "warps of one block wait at different barriers (%u and %u threads)", need,
                     b->need);
    }
    uint32_t p = pred_of(w, o[2]) & w->mask;
    b->popc += (uint32_t)__builtin_popcount(p);
    b->all &= p == w->mask;
    b->any |= p != 0;
    b->threads += LANES;
    b->arrived |= 1u << w->id;
    b->stamp[w->id] = c->tick;
    if (op->mode == BAR_ARRIVE) {
        b->stamp[w->id] = ++c->tick;     /* what the warp does from here on is not covered */
    } else {
        b->waiting |= 1u << w->id;
        w->at_barrier = 1;
    }
    if (full(c, b)) complete(c, b);
    return op->mode == BAR_ARRIVE ? NEXT : BLOCKED;
}

void exec_barrier_result(Warp *w, const Op *op, uint32_t mask) {
    if (op->mode < BAR_POPC) return;
    uint32_t id = ((const uint32_t *)at(w, op->o[1]))[__builtin_ctz(mask)];
    const NamedBarrier *b = &w->cta->bar[id & 15];
    if (op->mode == BAR_POPC) {
        uint32_t *d = at(w, op->o[0]);
        for (int i = 0; i < LANES; i++)
            if (mask >> i & 1) d[i] = b->last_popc;
        return;
    }
    bool yes = op->mode == BAR_AND ? b->last_all : b->last_any;
    uint32_t *p = &w->pred[op->o[0].off];
    *p = yes ? *p | mask : *p & ~mask;
}

/* A warp ended: barriers that wait for all may now be full. */
static void warp_ended(Cta *c, Warp *ended) {
    for (int i = 0; i < 16; i++) {
        NamedBarrier *b = &c->bar[i];
        if (!b->arrived || b->need || !full(c, b)) continue;
        Warp *w = &c->warps[__builtin_ctz(b->arrived)];
        if (settings.checks)
            check_report(w, &w->code[b->pc], -1, 0, NULL, "barrier-exited", "warp %u ended without "
                         "reaching the barrier", ended->id);
        complete(c, b);
    }
}

/* ---- order between blocks through atomics ---- */

typedef struct Published { uint64_t addr; uint64_t *ctas; struct Published *next; } Published;
static Published *published[256];

static size_t set_words(const Launch *l) { return l->nctas / 64 + 1; }

void exec_atomic_order(Warp *w, uint64_t addr) {
    Cta *c = w->cta;
    if (!c->fenced || !settings.checks) return;
    Published **p = &published[addr / 4 % 256];
    while (*p && (*p)->addr != addr) p = &(*p)->next;
    size_t words = set_words(c->l);
    if (!*p) {
        Published *n = calloc(1, sizeof *n);
        if (n) n->ctas = calloc(words, 8);
        if (!n || !n->ctas) {
            free(n);
            return;
        }
        n->addr = addr;
        *p = n;
    }
    if (!c->acquired) c->acquired = calloc(words, 8);
    for (size_t i = 0; c->acquired && i < words; i++) c->acquired[i] |= (*p)->ctas[i];
    (*p)->ctas[c->linear / 64] |= 1ull << c->linear % 64;
}

static void forget_published(void) {
    for (int i = 0; i < 256; i++)
        while (published[i]) {
            Published *next = published[i]->next;
            free(published[i]->ctas);
            free(published[i]);
            published[i] = next;
        }
}

int exec_fence(Warp *w, const Op *op, uint32_t mask) {
    (void)mask;
    if (op->mode) w->cta->fenced = 1;
    return NEXT;
}

/* ---- starting blocks and warps ---- */

void exec_check_undef(Warp *w, const Op *op, uint32_t m) {
    const Func *f = w->cta->l->f;
    for (int k = op->n - 1; k >= 0; k--) {
        if (op->o[k].base != BASE_REG) continue;
        for (uint32_t i = 0; i < f->nundef; i++) {
            if (f->undef_off[i] != op->o[k].off) continue;
            uint32_t bad = m & ~w->undef_init[i];
            if (op->o[k].dst) w->undef_init[i] |= m;
            else if (bad && settings.checks && op->cls != C_MOVE)
                check_report(w, op, __builtin_ctz(bad), 0, NULL, "uninitialised-register",
                             "operand %d was never written on this path", k);
        }
    }
}

static void fill(Warp *w, int reg, uint32_t v) {
    uint32_t *p = (uint32_t *)(w->base[BASE_SPECIAL] + (size_t)reg * LANES * 4);
    for (int i = 0; i < LANES; i++) p[i] = v;
}

static void lane_registers(Warp *w) {
    const Launch *l = w->cta->l;
    uint32_t *s = (uint32_t *)w->base[BASE_SPECIAL];
    for (uint32_t i = 0; i < LANES; i++) {
        uint32_t t = w->id * LANES + i;
        s[SR_TID * LANES + i] = t % l->block[0];
        s[(SR_TID + 1) * LANES + i] = t / l->block[0] % l->block[1];
        s[(SR_TID + 2) * LANES + i] = t / l->block[0] / l->block[1];
        s[SR_LANEID * LANES + i] = i;
        s[SR_LT * LANES + i] = (1u << i) - 1;
        s[SR_LE * LANES + i] = (2u << i) - 1;
        s[SR_EQ * LANES + i] = 1u << i;
        s[SR_GE * LANES + i] = ~((1u << i) - 1);
        s[SR_GT * LANES + i] = ~((2u << i) - 1);
    }
}

static void start_warp(Cta *c, uint32_t id) {
    Warp *w = &c->warps[id];
    const Func *f = c->l->f;
    uint32_t first = id * LANES, n = c->nthreads - first;
    w->cta = c;
    w->code = f->code;
    w->count = c->l->count;
    w->id = id;
    w->nsplit = 0;
    w->pc = 0;
    w->started = w->live = w->mask = n >= LANES ? ALL : (1u << n) - 1;
    w->sync = 0;
    w->steps = 0;
    w->at_barrier = w->done = w->released = w->loads = 0;
    w->nasync = 0;
    w->group = 0;
    w->ordered_upto = c->l->pdl_base ? c->l->pdl_base - 1 : c->l->ordered_upto;
    for (uint32_t k = 0; k < c->nwarps; k++) w->known[k] = c->tick;
    for (int k = 0; k < 3; k++) fill(w, SR_CTAID + k, c->id[k]);
    w->pred[0] = ALL;
    memset(w->undef_init, 0, f->nundef * 4);
    if (f->local_bytes) memset(w->local_init, 0, (size_t)f->local_bytes * LANES);
}

/* Everything that is the same for all blocks of the launch. */
static void prepare_warps(Cta *c) {
    const Launch *l = c->l;
    for (uint32_t i = 0; i < c->nwarps; i++) {
        Warp *w = &c->warps[i];
        w->cta = c;
        w->id = i;
        w->base[BASE_REG] = arena[i].regs;
        w->base[BASE_CONST] = l->f->consts;
        w->base[BASE_SPECIAL] = arena[i].special;
        w->pred = arena[i].pred;
        w->undef_init = arena[i].undef;
        w->local = arena[i].local;
        w->local_init = arena[i].local + (size_t)l->f->local_bytes * LANES;
        w->call = arena[i].call;
        for (int k = 0; k < 3; k++) {
            fill(w, SR_NTID + k, l->block[k]);
            fill(w, SR_NCTAID + k, l->grid[k]);
        }
        fill(w, SR_WARPID, i);
        fill(w, SR_NWARPID, c->nwarps);
        fill(w, SR_SMID, 0);
        fill(w, SR_NSMID, 1);
        fill(w, SR_DYN_SMEM, l->dyn_shared);
        fill(w, SR_TOTAL_SMEM, l->dyn_shared + l->f->static_shared);
        lane_registers(w);
    }
}

static bool grow(void *buffers, size_t stride, uint32_t n, size_t *cap, size_t bytes) {
    if (bytes <= *cap && *cap) return true;
    for (uint32_t i = 0; i < n; i++) {
        void **p = (void **)((char *)buffers + i * stride);
        free(*p);
        if (posix_memalign(p, 64, bytes + 64)) {
            *p = NULL;
            *cap = 0;
            return false;
        }
        memset(*p, 0xcd, bytes + 64);
    }
    *cap = bytes + 64;
    return true;
}

static bool reserve(const Launch *l, Cta *c) {
    const Func *f = l->f;
    size_t s = sizeof arena[0];
    bool ok = grow(&arena[0].special, s, MAX_WARPS, &cap_special, (size_t)SR_COUNT * LANES * 4) &&
              grow(&arena[0].regs, s, MAX_WARPS, &cap_regs, f->reg_bytes) &&
              grow(&arena[0].pred, s, MAX_WARPS, &cap_pred, (size_t)f->npred * 4) &&
              grow(&arena[0].undef, s, MAX_WARPS, &cap_undef, f->nundef * 4ul) &&
              grow(&arena[0].local, s, MAX_WARPS, &cap_local, (size_t)f->local_bytes * LANES * 2) &&
              grow(&arena[0].call, s, MAX_WARPS, &cap_call, (size_t)f->call_bytes * LANES);
    c->dyn_index = (f->static_shared + 15) / 16 * 16;
    c->shared_bytes = c->dyn_index + l->dyn_shared;
    if (c->shared_bytes + 16ul > cap_shared) {
        free(shared);
        free(shadow);
        cap_shared = c->shared_bytes + 1024ul;
        shared = calloc(1, cap_shared);
        shadow = calloc(cap_shared / 4 + 1, sizeof *shadow);
    }
    c->shared = shared;
    c->shadow = shadow;
    return ok && shared && shadow;
}

int64_t exec_shared_index(const Cta *c, uint64_t addr, uint32_t bytes) {
    uint64_t size = c->l->f->static_shared;
    if (addr >= DYN_SHARED) {
        addr -= DYN_SHARED;
        size = c->l->dyn_shared;
        return bytes > size || addr > size - bytes ? -1 : (int64_t)(addr + c->dyn_index);
    }
    return bytes > size || addr > size - bytes ? -1 : (int64_t)addr;
}

/* ---- running ---- */

/* The next warp to run: in order, in reverse, or any; -1 when all wait or are done. */
static int next_warp(const Cta *c, int last) {
    int n = (int)c->nwarps, from = last;
    if (settings.order == ORDER_RANDOM) from = (int)(settings_random() % (uint64_t)n);
    for (int i = 1; i <= n; i++) {
        int k = settings.order == ORDER_REVERSE ? (from - i + 2 * n) % n : (from + i) % n;
        if (!c->warps[k].done && !c->warps[k].at_barrier) return k;
    }
    return -1;
}

static void deadlock(Cta *c) {
    for (uint32_t i = 0; i < c->nwarps; i++) {
        Warp *w = &c->warps[i];
        if (w->done) continue;
        check_report(w, &w->code[w->pc], -1, 0, NULL, "barrier-deadlock", "every warp of the block "
                     "waits: the barrier is never complete");
        break;
    }
    c->l->failed = 719;
}

static int run_block(Cta *c) {
    c->ver = ++version;
    c->tick = c->full_tick = ++ticks;
    c->fenced = 0;
    memset(c->bar, 0, sizeof c->bar);
    if (c->acquired) memset(c->acquired, 0, set_words(c->l) * 8);
    for (uint32_t i = 0; i < c->nwarps; i++) start_warp(c, i);
    uint32_t left = c->nwarps;
    int k = settings.order == ORDER_REVERSE ? 0 : (int)c->nwarps - 1;
    while (left) {
        k = next_warp(c, k);
        if (k < 0) {
            deadlock(c);
            return FATAL;
        }
        Warp *w = &c->warps[k];
        uint64_t turn =
            settings.order == ORDER_RANDOM ? 1 + settings_random() % 200 : UINT64_MAX / 2;
        if (exec_warp(w, turn) == FATAL) {
            if (!c->l->failed) c->l->failed = 702;
            return FATAL;
        }
        if (w->done) {
            c->l->steps += w->steps;
            left--;
            if (left) warp_ended(c, w);
        }
    }
    return NEXT;
}

static uint32_t *block_order(const Launch *l) {
    uint32_t *p = malloc(l->nctas * sizeof *p);
    for (uint32_t i = 0; p && i < l->nctas; i++)
        p[i] = settings.order == ORDER_REVERSE ? l->nctas - 1 - i : i;
    for (uint32_t i = l->nctas; p && settings.order == ORDER_RANDOM && i > 1; i--) {
        uint32_t k = (uint32_t)(settings_random() % i), t = p[i - 1];
        p[i - 1] = p[k];
        p[k] = t;
    }
    return p;
}

int exec_launch(Launch *l) {
    Cta c = {.l = l, .warps = warps};
    c.nthreads = l->block[0] * l->block[1] * l->block[2];
    c.nwarps = (c.nthreads + LANES - 1) / LANES;
    l->nctas = l->grid[0] * l->grid[1] * l->grid[2];
    uint32_t *order = block_order(l);
    l->count = calloc((size_t)l->f->ncode, sizeof *l->count);
    if (!order || !l->count || !reserve(l, &c)) {
        free(order);
        return 2;
    }
    prepare_warps(&c);
    for (uint32_t i = 0; i < l->nctas; i++) {
        c.linear = order[i];
        c.id[0] = c.linear % l->grid[0];
        c.id[1] = c.linear / l->grid[0] % l->grid[1];
        c.id[2] = c.linear / l->grid[0] / l->grid[1];
        if (run_block(&c) == FATAL) break;
    }
    forget_published();
    free(c.acquired);
    free(order);
    return l->failed;
}
