/* race.c: data races, uninitialised shared memory, reads of unfinished cp.async.
 *
 * Time inside a block is counted in ticks (one per completed barrier). Warp w knows of everything
 * warp r did before tick w->known[r]. Inside a warp, lanes are ordered by __syncwarp or a barrier
 * (w->sync counts them); lockstep is not an order. Between blocks only atomics after a fence
 * order, between launches only streams, events and griddepcontrol.wait. */
#include "race.h"
#include "check.h"
#include "exec.h"
#include "order.h"

static uint32_t byte_mask(uint64_t off, uint32_t bytes) {
    return ((1u << bytes) - 1) << off % 4;
}

static uint32_t pc_of(const Warp *w, const Op *op) { return (uint32_t)(op - w->code); }

/* ---- shared memory ---- */

static void shared_race(Warp *w, const Op *op, int lane, uint32_t index, const SWord *s,
                        const char *rule, bool writer) {
    Site other = {w->cta->l->id, writer ? s->wr_pc : s->rd_pc, w->cta->linear,
                  writer ? s->wr_warp : s->rd_warp, writer ? s->wr_lane : s->rd_lane};
    bool same = other.warp == w->id;
    check_report(w, op, lane, index, &other, rule, "shared memory, %s",
                 same ? "lanes of one warp without __syncwarp" : "no barrier between the warps");
}

static bool reader_conflict(const Warp *w, const SWord *s, int lane) {
    uint32_t others = s->rd_warps & ~(1u << w->id);
    for (; others; others &= others - 1)
        if (s->rd_tick >= w->known[__builtin_ctz(others)]) return true;
    return s->rd_warps >> w->id & 1 && s->rd_warp == w->id && s->rd_sync == w->sync &&
           (s->rd_many || s->rd_lane != lane);
}

static void shared_word(Warp *w, const Op *op, int lane, uint32_t index, uint32_t m, int kind) {
    Cta *c = w->cta;
    SWord *s = &c->shadow[index / 4];
    uint32_t pc = pc_of(w, op);
    if (s->ver != c->ver) *s = (SWord){.ver = c->ver};
    if (kind != ACC_WRITE && (s->init & m) != m)
        check_report(w, op, lane, index, NULL, "uninitialised-shared", "reads shared memory that "
                     "nothing wrote in this block");
    if (s->pend & m) {
        Site other = {c->l->id, s->pend_pc, c->linear, w->id, (uint32_t)lane};
        check_report(w, op, lane, index, &other, "cp-async-wait",
                     "touches bytes of a cp.async that was not waited for");
    }
    bool strong = kind == ACC_ATOMIC;
    if (s->wmask & m && !(strong && s->wr_strong)) {
        bool bad = s->wr_warp != w->id ? s->wr_tick >= w->known[s->wr_warp]
                 : s->wr_lane != lane && s->wr_sync == w->sync &&
                   !(kind == ACC_WRITE && s->wr_pc == pc);
        if (bad)
            shared_race(w, op, lane, index, s,
                        kind == ACC_READ ? "race-read-after-write" : "race-write-after-write",
                        true);
    }
    if (kind == ACC_READ) {
        if (s->rd_tick < c->full_tick || !s->rmask) s->rd_warps = s->rd_many = s->rmask = 0;
        s->rd_many = s->rd_warps >> w->id & 1 && s->rd_warp == w->id && s->rd_sync == w->sync &&
                     (s->rd_many || s->rd_lane != lane);
        s->rd_warps |= 1u << w->id;
        s->rd_tick = c->tick;
        s->rd_warp = (uint8_t)w->id;
        s->rd_lane = (uint8_t)lane;
        s->rd_sync = w->sync;
        s->rd_pc = (uint16_t)pc;
        s->rmask |= (uint8_t)m;
        s->rd_strong = strong;
        return;
    }
    if (s->rmask & m && !strong && reader_conflict(w, s, lane))
        shared_race(w, op, lane, index, s, "race-write-after-read", false);
    s->wmask = (uint8_t)(s->wr_warp == w->id && s->wr_tick == c->tick ? s->wmask | m : m);
    s->init |= (uint8_t)m;
    s->rmask &= (uint8_t)~m;
    s->wr_tick = c->tick;
    s->wr_warp = (uint8_t)w->id;
    s->wr_lane = (uint8_t)lane;
    s->wr_sync = w->sync;
    s->wr_pc = (uint16_t)pc;
    s->wr_strong = strong;
}

void race_shared(Warp *w, const Op *op, int lane, uint32_t index, uint32_t bytes, int kind) {
    if (bytes <= 4) {
        shared_word(w, op, lane, index, byte_mask(index, bytes), kind);
        return;
    }
    for (uint32_t i = 0; i < bytes; i += 4) shared_word(w, op, lane, index + i, 15, kind);
}

void race_pending(Warp *w, const Op *op, int lane, uint32_t index, uint32_t bytes) {
    Cta *c = w->cta;
    for (uint32_t i = index; i < index + bytes; i += 4) {
        SWord *s = &c->shadow[i / 4];
        if (s->ver != c->ver) *s = (SWord){.ver = c->ver};
        if (s->rmask && reader_conflict(w, s, lane))
            shared_race(w, op, lane, i, s, "race-write-after-read", false);
        if (s->wmask && s->wr_warp != w->id && s->wr_tick >= w->known[s->wr_warp])
            shared_race(w, op, lane, i, s, "race-write-after-write", true);
        if (s->pend) {
            Site other = {c->l->id, s->pend_pc, c->linear, w->id, (uint32_t)lane};
            check_report(w, op, lane, i, &other, "cp-async-wait",
                         "copies over bytes of a cp.async that was not waited for");
        }
        s->pend = 15;
        s->pend_pc = (uint16_t)pc_of(w, op);
    }
}

void race_landed(Warp *w, uint32_t pc, int lane, uint32_t index, uint32_t bytes) {
    Cta *c = w->cta;
    for (uint32_t i = index; i < index + bytes; i += 4) {
        SWord *s = &c->shadow[i / 4];
        if (s->ver != c->ver) *s = (SWord){.ver = c->ver};
        *s = (SWord){.ver = c->ver, .wr_tick = c->tick, .wr_warp = (uint8_t)w->id, .init = 15,
                     .wr_lane = (uint8_t)lane, .wr_sync = w->sync, .wr_pc = (uint16_t)pc,
                     .wmask = 15};
    }
}

/* ---- global memory ---- */

static uint32_t full_tick(uint32_t now, uint16_t low) {
    uint32_t t = (now & 0xffff0000u) | low;
    return t > now ? t - 0x10000u : t;
}

/* Is what (launch, cta, tick, who) did ordered before what w does now? */
static bool ordered(const Warp *w, uint32_t launch, uint32_t cta, uint16_t tick, uint16_t who,
                    bool many_warps) {
    const Cta *c = w->cta;
    if (launch != c->l->id) {
        bool early = w->ordered_upto < c->l->ordered_upto && launch >= c->l->pdl_base;
        return launch <= w->ordered_upto || (!early && order_before(launch, c->l->id));
    }
    if (cta != c->linear) return c->acquired && c->acquired[cta / 64] >> cta % 64 & 1;
    uint32_t t = full_tick(c->tick, tick);
    if (many_warps) return t < c->full_tick;
    return who / 32 == w->id || t < w->known[who / 32];
}

static const char *global_rule(const Warp *w, uint32_t launch, bool write, bool earlier_write) {
    const Launch *l = w->cta->l;
    if (launch != l->id) {
        if (launch >= l->pdl_base && w->ordered_upto < l->ordered_upto) return "pdl-wait";
        return "stream-race";
    }
    return !write ? "race-read-after-write"
         : earlier_write ? "race-write-after-write" : "race-write-after-read";
}

static void global_race(Warp *w, const Op *op, int lane, const Alloc *a, uint64_t off,
                        const GWord *g, bool writer, bool write) {
    uint32_t launch = writer ? g->wr_launch : g->rd_launch, who = writer ? g->wr_who : g->rd_who;
    Site other = {launch, writer ? g->wr_pc : g->rd_pc, writer ? g->wr_cta : g->rd_cta,
                  who / 32, who % 32};
    const char *rule = global_rule(w, launch, write, writer), *why = "without a barrier between";
    if (launch != w->cta->l->id)
        why = rule[0] == 'p' ? "before griddepcontrol.wait" : "launches that no stream orders";
    else if (other.cta != w->cta->linear) why = "by two blocks of one launch";
    check_report(w, op, lane, a->addr + off, &other, rule, "global memory (%s+%llu) %s", a->name,
                 (unsigned long long)off, why);
}

static void global_word(Warp *w, const Op *op, int lane, Alloc *a, uint64_t off, uint32_t m,
                        int kind) {
    const Cta *c = w->cta;
    GWord *g = &a->shadow[off / 4];
    bool strong = kind == ACC_ATOMIC || op->strong;
    uint16_t who = (uint16_t)(w->id * 32 + (uint32_t)lane), pc = (uint16_t)pc_of(w, op);
    uint32_t id = c->l->id;
    if (g->wr_launch && g->wmask & m && !(strong && g->flags & G_WR_STRONG) &&
        !ordered(w, g->wr_launch, g->wr_cta, g->wr_tick, g->wr_who, false))
        global_race(w, op, lane, a, off, g, true, kind != ACC_READ);
    if (op->cls == C_LDG && op->mode == LD_NC && g->wr_launch == id && g->wmask & m) {
        Site other = {id, g->wr_pc, g->wr_cta, g->wr_who / 32u, g->wr_who % 32u};
        check_report(w, op, lane, a->addr + off, &other, "stale-nc-load",
                     "ld.global.nc of data that "
                     "this launch wrote");
    }
    if (kind == ACC_READ) {
        bool fresh = g->rd_launch != id || !g->rmask;
        if (fresh) {
            g->flags &= (uint8_t)~(G_RD_CTAS | G_RD_WARPS);
            g->rmask = 0;
            g->rd_cta = c->linear;
        } else if (g->rd_cta != c->linear) {
            g->flags |= G_RD_CTAS;
        } else if (g->rd_who / 32 != w->id && g->rd_tick == (uint16_t)c->tick) {
            g->flags |= G_RD_WARPS;
        } else if (g->rd_tick != (uint16_t)c->tick) {
            g->flags &= (uint8_t)~G_RD_WARPS;
        }
        g->rd_launch = id;
        g->rd_tick = (uint16_t)c->tick;
        g->rd_who = who;
        g->rd_pc = pc;
        g->rmask |= (uint8_t)m;
        g->flags = (uint8_t)((g->flags & ~G_RD_STRONG) | (strong ? G_RD_STRONG : 0));
        return;
    }
    bool many = g->flags & G_RD_CTAS && g->rd_launch == id && g->rd_cta == c->linear &&
                !c->acquired;
    if (g->rd_launch && g->rmask & m && !(strong && g->flags & G_RD_STRONG) &&
        (many || !ordered(w, g->rd_launch, g->rd_cta, g->rd_tick, g->rd_who,
                          g->flags & G_RD_WARPS)))
        global_race(w, op, lane, a, off, g, false, true);
    bool again = g->wr_launch == id && g->wr_cta == c->linear && g->wr_tick == (uint16_t)c->tick &&
                 g->wr_who / 32 == w->id;
    *g = (GWord){.wr_launch = id, .wr_cta = c->linear, .wr_tick = (uint16_t)c->tick, .wr_pc = pc,
                 .wr_who = who, .wmask = (uint8_t)(again ? g->wmask | m : m),
                 .rd_launch = g->rd_launch, .rd_cta = g->rd_cta, .rd_tick = g->rd_tick,
                 .rd_pc = g->rd_pc, .rd_who = g->rd_who, .rmask = (uint8_t)(g->rmask & ~m),
                 .flags = (uint8_t)((g->flags & ~G_WR_STRONG) | (strong ? G_WR_STRONG : 0))};
}

/* Reads that the shadow already stands for: by many blocks, or by this very lane. */
static inline bool known_read(const Warp *w, const GWord *g, uint32_t m, uint16_t who) {
    const Cta *c = w->cta;
    return g->rd_launch == c->l->id && (g->rmask & m) == m && g->wr_launch <= w->ordered_upto &&
           !(g->flags & G_RD_STRONG) &&
           (g->flags & G_RD_CTAS || (g->rd_who == who && g->rd_cta == c->linear &&
                                     g->rd_tick == (uint16_t)c->tick));
}

static void after_host(Warp *w, const Op *op, int lane, Alloc *a, uint64_t off, bool write) {
    for (int k = 0; k < (write ? 2 : 1); k++) {
        uint32_t node = k ? a->host_rd : a->host_wr;
        uint64_t lo = k ? a->rd_lo : a->wr_lo, hi = k ? a->rd_hi : a->wr_hi;
        if (node <= w->ordered_upto || off < lo || off >= hi || order_before(node, w->cta->l->id))
            continue;
        check_report(w, op, lane, a->addr + off, NULL, "stream-race", "global memory (%s+%llu): a "
                     "%s of these bytes is not ordered before this launch (another stream, no "
                     "event)", a->name, (unsigned long long)off, order_get(node)->what);
    }
}

void race_global(Warp *w, const Op *op, int lane, Alloc *a, uint64_t off, uint32_t bytes,
                 int kind) {
    if (!a->shadow) return;      /* allocated while checks were off */
    if (a->host_wr > w->ordered_upto || a->host_rd > w->ordered_upto)
        after_host(w, op, lane, a, off, kind != ACC_READ);
    if (kind == ACC_READ && a->big && !a->kernel_wrote) return;
    if (kind != ACC_READ) a->kernel_wrote = true;
    a->touched = true;
    if (bytes <= 4) {
        global_word(w, op, lane, a, off, byte_mask(off, bytes), kind);
        return;
    }
    uint16_t who = (uint16_t)(w->id * 32 + (uint32_t)lane);
    for (uint32_t i = 0; i < bytes; i += 4)
        if (kind != ACC_READ || !known_read(w, &a->shadow[(off + i) / 4], 15, who))
            global_word(w, op, lane, a, off + i, 15, kind);
}

void race_host(uint32_t node, uint64_t addr, uint64_t bytes, bool write) {
    Alloc *a = mem_find(addr);
    if (!settings.checks || !a || !a->shadow) return;
    uint64_t off = addr - a->addr;
    uint32_t *last = write ? &a->host_wr : &a->host_rd;
    uint64_t *lo = write ? &a->wr_lo : &a->rd_lo, *hi = write ? &a->wr_hi : &a->rd_hi;
    if (*last != node || off < *lo) *lo = off;
    if (*last != node || off + bytes > *hi) *hi = off + bytes;
    *last = node;
    for (uint64_t i = off / 4; a->touched && i < (off + bytes + 3) / 4; i++) {
        const GWord *g = &a->shadow[i];
        uint32_t bad = g->wmask && !order_before(g->wr_launch, node) ? g->wr_launch
                     : write && g->rmask && !order_before(g->rd_launch, node) ? g->rd_launch : 0;
        if (!bad) continue;
        const Node *n = order_get(bad), *me = order_get(node);
        check_host("stream-race", n->what, "%s of %s+%llu is not ordered after launch %u of %s "
                   "(another stream, no event)", me->what, a->name, (unsigned long long)(i * 4),
                   bad, n->what);
        return;
    }
}
