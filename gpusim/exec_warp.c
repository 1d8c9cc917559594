/* exec_warp.c: the warp loop, divergence, and the operations that look across lanes.
 *
 * A warp is a list of splits. The running one is w->pc, w->mask; the others are in w->split,
 * sorted by pc. At a block leader the lowest pc is chosen and equal pcs merge. A convergent
 * operation (shuffle, vote, barrier, mma) whose lanes are not all here makes its split wait while
 * the others catch up; if none can, the kernel would hang or misbehave, and that is reported. */
#include "exec.h"
#include "check.h"
#include "exec_block.h"
#include "ptx_build.h"
#include <stdio.h>
#include <string.h>

static void insert_split(Warp *w, uint32_t pc, uint32_t mask, bool waiting) {
    int i = w->nsplit++;
    for (; i > 0 && w->split[i - 1].pc > pc; i--) w->split[i] = w->split[i - 1];
    w->split[i] = (Split){pc, mask, waiting};
}

/* Takes split i out of the list and runs it. */
static void take(Warp *w, int i) {
    w->pc = w->split[i].pc;
    w->mask = w->split[i].mask;
    memmove(&w->split[i], &w->split[i + 1], sizeof(Split) * (size_t)(--w->nsplit - i));
}

static void merge_here(Warp *w) {
    for (int i = 0; i < w->nsplit;) {
        if (w->split[i].pc != w->pc) { i++; continue; }
        w->mask |= w->split[i].mask;
        memmove(&w->split[i], &w->split[i + 1], sizeof(Split) * (size_t)(--w->nsplit - i));
    }
}

/* Chooses the lowest split that is not waiting; false when there is none. */
static bool pick(Warp *w) {
    for (int i = 0; i < w->nsplit; i++)
        if (!w->split[i].waiting) {
            take(w, i);
            merge_here(w);
            return true;
        }
    return false;
}

/* At a leader: if another split is at or before this pc, merge or let it go first. */
static void arrange(Warp *w) {
    merge_here(w);
    if (!w->nsplit) return;
    for (int i = 0; i < w->nsplit && w->split[i].pc < w->pc; i++)
        if (!w->split[i].waiting) {
            insert_split(w, w->pc, w->mask, false);
            pick(w);
            return;
        }
}

/* True when the lanes of `member` (of those still alive) are all here. */
static bool converged(Warp *w, uint32_t member) {
    merge_here(w);
    return !(member & w->live & ~w->mask);
}

/* Runs until the warp blocks at a barrier, ends, fails or used up its turn. */
int exec_warp(Warp *w, uint64_t turn) {
    const Op *code = w->code;
    uint64_t limit = w->steps + turn;
    if (limit > settings.max_steps) limit = settings.max_steps;
    while (w->steps < limit) {
        const Op *op = &code[w->pc];
        if (op->leader && w->nsplit) {
            arrange(w);
            op = &code[w->pc];
        }
        uint32_t m = w->mask;
        if (op->pred >= 0) {
            uint32_t p = w->pred[op->pred];
            m &= op->pneg ? ~p : p;
            if (!m && op->cls != C_BRANCH) {
                w->pc++;
                continue;
            }
        }
        w->steps++;
        if (op->undef) exec_check_undef(w, op, m);
        int r = op->fn(w, op, m);
        if (r == NEXT) {
            w->pc++;
        } else if (r != JUMPED) {
            return r;
        }
        OpCount *n = &w->count[op - code];
        n->exec++;
        n->lanes += (uint32_t)__builtin_popcount(m);
    }
    if (w->steps < settings.max_steps) return NEXT;
    check_report(w, &code[w->pc], -1, 0, NULL, "hang", "the warp ran %llu instructions (limit "
                 "GPUSIM_MAX_STEPS)", (unsigned long long)w->steps);
    return FATAL;
}

/* The running split cannot go on alone: park it and run another, or report a deadlock. */
static int wait_for_lanes(Warp *w, const Op *op, const char *rule, uint32_t member) {
    insert_split(w, w->pc, w->mask, true);
    if (pick(w)) return JUMPED;
    uint32_t missing = member & w->live & ~w->mask;
    check_report(w, op, missing ? __builtin_ctz(missing) : -1, 0, NULL, rule,
                 "lanes 0x%08x are here, 0x%08x should be: the others wait elsewhere or never come",
                 w->split[0].mask, member);
    w->cta->l->failed = 719;
    return FATAL;
}

/* The lanes that execute op, after a merge changed w->mask. */
static uint32_t active(const Warp *w, const Op *op) {
    if (op->pred < 0) return w->mask;
    return w->mask & (op->pneg ? ~w->pred[op->pred] : w->pred[op->pred]);
}

/* Waits until every lane of `member` that is alive is here. */
static int gather(Warp *w, const Op *op, uint32_t member, bool *ready) {
    *ready = converged(w, member);
    if (!*ready) return wait_for_lanes(w, op, "divergent-sync", member);
    for (int i = 0; i < w->nsplit; i++) w->split[i].waiting = 0;
    return NEXT;
}

static void check_members(Warp *w, const Op *op, uint32_t m, uint32_t member) {
    uint32_t missing = member & w->started & ~m, unnamed = m & ~member;
    if (missing)
        check_report(w, op, __builtin_ctz(missing), 0, NULL, "divergent-sync", "the member mask is "
                     "0x%08x, the active lanes are 0x%08x", member, m);
    if (unnamed)
        check_report(w, op, __builtin_ctz(unnamed), 0, NULL, "inactive-lane",
                     "lanes 0x%08x are not "
                     "in the member mask 0x%08x",
                     unnamed, member);
}

/* A .sync operation whose member mask is operand o: lanes with the same mask form a group, and
 * body runs for each group (tiles of a warp may execute one instruction together). */
static int grouped(Warp *w, const Op *op, uint32_t m, Opnd o,
                   void (*body)(Warp *w, const Op *op, uint32_t group)) {
    const uint32_t *mask = at(w, o);
    uint32_t all = 0;
    bool ready;
    for (uint32_t k = m; k; k &= k - 1) all |= mask[__builtin_ctz(k)];
    int r = gather(w, op, all, &ready);
    if (!ready) return r;
    for (uint32_t rest = active(w, op); rest;) {
        uint32_t member = mask[__builtin_ctz(rest)], group = 0;
        for (int i = 0; i < LANES; i++)
            if (rest >> i & 1 && mask[i] == member) group |= 1u << i;
        check_members(w, op, group, member);
        body(w, op, group);
        rest &= ~group;
    }
    return NEXT;
}

int exec_whole_warp(Warp *w, const Op *op, uint32_t mask) {
    bool ready;
    if (mask == ALL) return NEXT;
    int r = gather(w, op, ALL, &ready);
    mask = active(w, op);
    if (!ready || mask == ALL) return r;
    check_members(w, op, mask, ALL);
    w->cta->l->failed = 719;
    return FATAL;
}

/* ---- control flow ---- */

/* Lanes of `taken` go to target, the rest of the split falls through. */
static int branch(Warp *w, uint32_t taken, uint32_t target) {
    uint32_t rest = w->mask & ~taken;
    if (!taken) {
        w->pc++;
    } else if (!rest) {
        w->pc = target;
    } else {
        w->count[w->pc].diverged++;
        insert_split(w, target, taken, false);
        w->mask = rest;
        w->pc++;
    }
    return JUMPED;
}

int exec_bra(Warp *w, const Op *op, uint32_t mask) { return branch(w, mask, (uint32_t)op->target); }

int exec_brx(Warp *w, const Op *op, uint32_t mask) {
    const uint32_t *index = at(w, op->o[0]);
    uint32_t rest = w->mask & ~mask;
    for (uint32_t m = mask; m;) {
        uint32_t k = index[__builtin_ctz(m)], same = 0;
        for (int i = 0; i < LANES; i++)
            if (m >> i & 1 && index[i] == k) same |= 1u << i;
        if (k >= (uint32_t)op->imm) {
            check_report(w, op, __builtin_ctz(m), 0, NULL, "branch-table", "index %u of %d", k,
                         (int)op->imm);
            w->cta->l->failed = 719;
            return FATAL;
        }
        insert_split(w, (uint32_t)op->targets[k], same, false);
        m &= ~same;
    }
    if (rest) insert_split(w, w->pc + 1, rest, false);
    pick(w);
    return JUMPED;
}

int exec_exit(Warp *w, const Op *op, uint32_t mask) {
    w->live &= ~mask;
    w->mask &= ~mask;
    for (int i = 0; i < w->nsplit; i++) w->split[i].waiting = 0;
    if (w->mask) {
        w->pc++;
        return JUMPED;
    }
    if (w->live && pick(w)) return JUMPED;
    w->done = 1;
    w->count[op - w->code].exec++;
    w->count[op - w->code].lanes += (uint32_t)__builtin_popcount(mask);
    return BLOCKED;
}

int exec_trap(Warp *w, const Op *op, uint32_t mask) {
    check_report(w, op, __builtin_ctz(mask), 0, NULL, "trap", "the kernel trapped");
    w->cta->l->failed = 719;
    return FATAL;
}

int exec_nop(Warp *w, const Op *op, uint32_t mask) {
    (void)w; (void)op; (void)mask;
    return NEXT;
}

int exec_clock(Warp *w, const Op *op, uint32_t mask) {
    uint64_t t = w->cta->l->steps + w->steps;
    for (int i = 0; i < LANES; i++) {
        if (!(mask >> i & 1)) continue;
        if (op->o[0].width == 64) ((uint64_t *)at(w, op->o[0]))[i] = t;
        else ((uint32_t *)at(w, op->o[0]))[i] = (uint32_t)t;
    }
    return NEXT;
}

int exec_pdl_wait(Warp *w, const Op *op, uint32_t mask) {
    (void)op; (void)mask;
    w->ordered_upto = w->cta->l->ordered_upto;
    return NEXT;
}

/* ---- across lanes ---- */

/* Source lane of lane i, and whether it lies inside the segment (PTX ISA, shfl.sync). */
static int shuffle_source(int mode, int i, uint32_t b, uint32_t c, bool *in) {
    int seg = (int)(c >> 8 & 31), clamp = (int)(c & 31), n = (int)(b & 31);
    int max = (i & seg) | (clamp & ~seg), min = i & seg, j;
    switch (mode) {
    case SHFL_UP: j = i - n; *in = j >= max; break;
    case SHFL_DOWN: j = i + n; *in = j <= max; break;
    case SHFL_BFLY: j = i ^ n; *in = j <= max; break;
    default: j = min | (n & ~seg); *in = j <= max; break;
    }
    return *in ? j : i;
}

static void shuffle(Warp *w, const Op *op, uint32_t m) {
    uint32_t tmp[LANES], ok = 0;
    const uint32_t *a = at(w, op->o[2]), *b = at(w, op->o[3]), *c = at(w, op->o[4]);
    for (int i = 0; i < LANES; i++) {
        bool in = false;
        int j = shuffle_source(op->mode, i, b[i], c[i], &in);
        tmp[i] = a[j & 31];
        ok |= (uint32_t)in << i;
        if (settings.checks && m >> i & 1 && in && !(m >> j & 1))
            check_report(w, op, i, 0, NULL, "inactive-lane", "reads lane %d, which is not active "
                         "(active 0x%08x)", j, m);
    }
    uint32_t *d = at(w, op->o[0]), *p = &w->pred[op->o[1].off];
    for (int i = 0; i < LANES; i++) d[i] = m >> i & 1 ? tmp[i] : d[i];
    *p = (*p & ~m) | (ok & m);
}

int exec_shfl(Warp *w, const Op *op, uint32_t m) { return grouped(w, op, m, op->o[5], shuffle); }

static void set_lanes(Warp *w, Opnd o, uint32_t m, uint32_t v) {
    uint32_t *d = at(w, o);
    for (int i = 0; i < LANES; i++)
        if (m >> i & 1) d[i] = v;
}

static void vote(Warp *w, const Op *op, uint32_t m) {
    uint32_t v = pred_of(w, op->o[1]) & m;
    if (op->mode == VOTE_BALLOT) {
        set_lanes(w, op->o[0], m, v);
        return;
    }
    bool yes = op->mode == VOTE_ALL ? v == m : op->mode == VOTE_ANY ? v != 0 : v == 0 || v == m;
    uint32_t *p = &w->pred[op->o[0].off];
    *p = yes ? *p | m : *p & ~m;
}

int exec_vote(Warp *w, const Op *op, uint32_t m) { return grouped(w, op, m, op->o[2], vote); }

static void match(Warp *w, const Op *op, uint32_t m) {
    uint32_t *d = at(w, op->o[0]), *p = &w->pred[op->o[1].off], all = 0, same[LANES];
    for (int i = 0; i < LANES; i++) {
        same[i] = 0;
        for (int j = 0; j < LANES && m >> i & 1; j++)
            if (m >> j & 1 && !memcmp((char *)at(w, op->o[2]) + i * op->size,
                                      (char *)at(w, op->o[2]) + j * op->size, op->size))
                same[i] |= 1u << j;
        if (same[i] == m) all |= 1u << i;
    }
    for (int i = 0; i < LANES; i++)
        if (m >> i & 1) d[i] = op->mode && same[i] != m ? 0 : same[i];
    *p = (*p & ~m) | (all & m);
}

int exec_match(Warp *w, const Op *op, uint32_t m) { return grouped(w, op, m, op->o[3], match); }

static void redux(Warp *w, const Op *op, uint32_t m) {
    const uint32_t *a = at(w, op->o[1]);
    uint32_t v = a[__builtin_ctz(m)];
    bool sign = op->mode2 == TY_S;
    for (uint32_t k = m & (m - 1); k; k &= k - 1) {
        uint32_t x = a[__builtin_ctz(k)];
        bool less = sign ? (int32_t)x < (int32_t)v : x < v;
        switch (op->mode) {
        case AT_ADD: v += x; break;
        case AT_MIN: v = less ? x : v; break;
        case AT_MAX: v = less ? v : x; break;
        case AT_AND: v &= x; break;
        case AT_OR: v |= x; break;
        default: v ^= x; break;
        }
    }
    set_lanes(w, op->o[0], m, v);
}

int exec_redux(Warp *w, const Op *op, uint32_t m) { return grouped(w, op, m, op->o[2], redux); }

int exec_activemask(Warp *w, const Op *op, uint32_t m) {
    set_lanes(w, op->o[0], m, m);
    return NEXT;
}

static void elect(Warp *w, const Op *op, uint32_t m) {
    uint32_t leader = (uint32_t)__builtin_ctz(m), *p = &w->pred[op->o[1].off];
    set_lanes(w, op->o[0], m, leader);
    *p = (*p & ~m) | 1u << leader;
}

int exec_elect(Warp *w, const Op *op, uint32_t m) { return grouped(w, op, m, op->o[2], elect); }

static void warp_sync(Warp *w, const Op *op, uint32_t m) {
    (void)op; (void)m;
    w->sync++;
}

int exec_warp_sync(Warp *w, const Op *op, uint32_t m) {
    return grouped(w, op, m, op->o[0], warp_sync);
}

/* bar.sync and its like. The whole warp must be here; the block counts the warps. */
int exec_barrier(Warp *w, const Op *op, uint32_t m) {
    if (w->released) {          /* back from the wait: the reduction is known, go on */
        w->released = 0;
        exec_barrier_result(w, op, w->mask);
        return NEXT;
    }
    if (m != w->mask && op->pred >= 0) {
        check_report(w, op, __builtin_ctz(w->mask & ~m), 0, NULL, "divergent-barrier",
                     "lanes 0x%08x of 0x%08x take part", m, w->mask);
        w->cta->l->failed = 719;
        return FATAL;
    }
    if (!converged(w, w->live))
        return wait_for_lanes(w, op, "divergent-barrier", w->live);
    for (int i = 0; i < w->nsplit; i++) w->split[i].waiting = 0;
    return exec_barrier_arrive(w, op);
}
