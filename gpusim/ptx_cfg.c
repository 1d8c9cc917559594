/* ptx_cfg.c: lays a function out for the warp loop.
 *
 * 1. Basic blocks in reverse post-order, deeper loops first, so that "lowest pc runs first" makes
 *    diverged lanes meet at the join (nvcc places cold blocks late, which would delay the meeting).
 * 2. Liveness, then linear-scan allocation of the virtual registers to 32-lane slots. Sharing a
 *    slot is safe under divergence because every lane has its own part of it.
 * 3. Registers live at the entry may be read before they are written: those are watched. */
#include "exec.h"
#include "ptx_build.h"
#include <stdlib.h>
#include <string.h>

typedef struct { int start, end, *succ, nsucc, fall, order, depth, idom; bool seen; } Block;
typedef struct {
    Build *b;
    Block *blk;
    int n, *of;        /* block of each operation */
    int *rpo, nrpo;
} Cfg;

static void *need(Build *b, size_t bytes) {
    void *p = ptx_own(b->mod, bytes);
    if (!p) build_fail(b, "out of memory");
    return p;
}

static bool ends_block(const Op *op) {
    return op->fn == exec_bra || op->fn == exec_brx || op->fn == exec_exit;
}

/* Labels become operation indices; the code gets an exit at its end. */
static void resolve(Build *b) {
    b->code = build_grow(b, b->code, &b->cap_code, b->ncode + 1, sizeof *b->code);
    static char text[] = "exit";
    b->code[b->ncode++] = (Op){.fn = exec_exit, .text = text, .pred = -1, .cls = C_BRANCH};
    for (int i = 0; i < b->ncode; i++) {
        Op *op = &b->code[i];
        int n = op->fn == exec_bra ? 1 : op->fn == exec_brx ? (int)op->imm : 0;
        int32_t *t = op->fn == exec_bra ? &op->target : op->targets;
        for (int k = 0; k < n; k++) {
            if (b->labels[t[k]].target < 0)
                build_fail(b, "label '%s' is not defined", b->labels[t[k]].name);
            t[k] = b->labels[t[k]].target;
        }
    }
}

static void split_blocks(Cfg *c) {
    Build *b = c->b;
    uint8_t *leader = need(b, (size_t)b->ncode + 1);
    leader[0] = 1;
    for (int i = 0; i < b->ncode; i++) {
        const Op *op = &b->code[i];
        if (ends_block(op)) leader[i + 1] = 1;
        if (op->fn == exec_bra) leader[op->target] = 1;
        if (op->fn == exec_brx)
            for (int k = 0; k < op->imm; k++) leader[op->targets[k]] = 1;
    }
    for (int i = 0; i < b->ncode; i++) c->n += leader[i];
    c->blk = need(b, (size_t)c->n * sizeof *c->blk);
    c->of = need(b, (size_t)b->ncode * sizeof *c->of);
    int k = -1;
    for (int i = 0; i < b->ncode; i++) {
        if (leader[i]) c->blk[++k].start = i;
        c->blk[k].end = i + 1;
        c->of[i] = k;
    }
}

static void connect(Cfg *c) {
    for (int k = 0; k < c->n; k++) {
        Block *x = &c->blk[k];
        const Op *last = &c->b->code[x->end - 1];
        int jumps = last->fn == exec_bra ? 1 : last->fn == exec_brx ? (int)last->imm : 0;
        const int32_t *t = last->fn == exec_bra ? &last->target : last->targets;
        x->succ = need(c->b, sizeof(int) * (size_t)(jumps + 1));
        for (int i = 0; i < jumps; i++) x->succ[x->nsucc++] = c->of[t[i]];
        x->fall = !ends_block(last) || last->pred >= 0 ? k + 1 : -1;
        if (x->fall == c->n) x->fall = -1;
        if (x->fall >= 0) x->succ[x->nsucc++] = x->fall;
    }
}

/* Depth-first; a successor in a shallower loop (the way out) is visited first, so lands later. */
static void visit(Cfg *c, int k, int *post) {
    Block *x = &c->blk[k];
    x->seen = true;
    for (;;) {
        int best = -1;
        for (int i = 0; i < x->nsucc; i++) {
            int s = x->succ[i];
            if (!c->blk[s].seen && (best < 0 || c->blk[s].depth < c->blk[best].depth)) best = s;
        }
        if (best < 0) break;
        visit(c, best, post);
    }
    post[c->nrpo++] = k;
}

static void number(Cfg *c) {
    int *post = need(c->b, sizeof(int) * (size_t)c->n);
    for (int k = 0; k < c->n; k++) c->blk[k].seen = false;
    c->nrpo = 0;
    visit(c, 0, post);
    for (int i = 0; i < c->nrpo; i++) {
        c->rpo[i] = post[c->nrpo - 1 - i];
        c->blk[c->rpo[i]].order = i;
    }
}

static int common(const Cfg *c, int a, int b) {
    while (a != b) {
        while (c->blk[a].order > c->blk[b].order) a = c->blk[a].idom;
        while (c->blk[b].order > c->blk[a].order) b = c->blk[b].idom;
    }
    return a;
}

static void dominators(Cfg *c) {
    for (int i = 0; i < c->nrpo; i++) c->blk[c->rpo[i]].idom = -1;
    c->blk[0].idom = 0;
    for (bool changed = true; changed;) {
        changed = false;
        for (int i = 0; i < c->nrpo; i++) {
            const Block *x = &c->blk[c->rpo[i]];
            for (int k = 0; k < x->nsucc; k++) {
                Block *s = &c->blk[x->succ[k]];
                if (x->succ[k] == 0) continue;
                int d = s->idom < 0 ? c->rpo[i] : common(c, s->idom, c->rpo[i]);
                if (x->idom >= 0 && d != s->idom) { s->idom = d; changed = true; }
            }
        }
    }
}

/* Adds one to the depth of every block of the natural loop of the back edge tail -> head. */
static void deepen(Cfg *c, int tail, int head, uint8_t *in) {
    memset(in, 0, (size_t)c->n);
    in[head] = in[tail] = 1;
    for (bool changed = true; changed;) {
        changed = false;
        for (int i = c->nrpo - 1; i >= 0; i--) {
            int k = c->rpo[i];
            if (in[k]) continue;
            for (int s = 0; s < c->blk[k].nsucc; s++)
                if (in[c->blk[k].succ[s]] && c->blk[k].succ[s] != head) in[k] = 1;
            changed |= in[k];
        }
    }
    for (int k = 0; k < c->n; k++) c->blk[k].depth += in[k];
}

static void order_blocks(Cfg *c) {
    c->rpo = need(c->b, sizeof(int) * (size_t)c->n);
    number(c);
    dominators(c);
    uint8_t *in = need(c->b, (size_t)c->n);
    for (int i = 0; i < c->nrpo; i++) {
        int k = c->rpo[i];
        for (int s = 0; s < c->blk[k].nsucc; s++) {
            int h = c->blk[k].succ[s], d = k;
            while (d != h && d != c->blk[d].idom) d = c->blk[d].idom;
            if (d == h) deepen(c, k, h, in);
        }
    }
    number(c);
}

/* Copies the blocks in their new order; a fall-through to a block that moved gets a branch. */
static void emit_blocks(Cfg *c, Func *f) {
    Build *b = c->b;
    Op *out = need(b, sizeof(Op) * (size_t)(b->ncode + c->nrpo));
    int *start = need(b, sizeof(int) * (size_t)c->n), n = 0;
    static char text[] = "(bra)";
    for (int i = 0; i < c->nrpo; i++) {
        const Block *x = &c->blk[c->rpo[i]];
        start[c->rpo[i]] = n;
        memcpy(out + n, b->code + x->start, sizeof(Op) * (size_t)(x->end - x->start));
        out[n].leader = 1;
        n += x->end - x->start;
        if (x->fall >= 0 && (i + 1 == c->nrpo || c->rpo[i + 1] != x->fall)) {
            out[n] = (Op){.fn = exec_bra, .text = text, .pred = -1, .cls = C_OTHER, .leader = 1,
                          .target = c->blk[x->fall].start};
            memcpy(out[n].loc, out[n - 1].loc, sizeof out[n].loc);
            n++;
        }
    }
    for (int i = 0; i < n; i++) {
        if (out[i].fn == exec_bra) out[i].target = start[c->of[out[i].target]];
        if (out[i].fn == exec_brx)
            for (int k = 0; k < out[i].imm; k++)
                out[i].targets[k] = start[c->of[out[i].targets[k]]];
    }
    f->code = out;
    f->ncode = n;
}

/* ---- register slots ---- */

typedef struct { uint64_t *use, *def, *in, *out; } Live;
typedef struct { uint32_t reg; int lo, hi; } Interval;
#define BIT(set, i) ((set)[(i) / 64] >> ((i) % 64) & 1)
#define SET(set, i) ((set)[(i) / 64] |= 1ull << ((i) % 64))

static void scan_block(Func *f, int s, int e, Live *l) {
    for (int i = s; i < e; i++) {
        const Op *op = &f->code[i];
        for (int k = 0; k < op->n; k++)
            if (op->o[k].base == BASE_REG && !op->o[k].dst && !BIT(l->def, op->o[k].off))
                SET(l->use, op->o[k].off);
        for (int k = 0; k < op->n; k++)
            if (op->o[k].base == BASE_REG && op->o[k].dst && op->pred < 0)
                SET(l->def, op->o[k].off);
    }
}

static void extend(Interval *v, uint32_t reg, int pos) {
    if (pos < v[reg].lo) v[reg].lo = pos;
    if (pos > v[reg].hi) v[reg].hi = pos;
}

/* Fills live-in sets of the blocks (leaders) of f->code and the interval of every register. */
static void liveness(Build *b, Func *f, Interval *v, uint64_t **entry) {
    size_t words = b->nvirtual / 64 + 1;
    int n = 0, *start = need(b, sizeof(int) * (size_t)(f->ncode + 1));
    int *of = need(b, sizeof(int) * (size_t)f->ncode);
    for (int i = 0; i < f->ncode; i++) {
        if (f->code[i].leader) start[n++] = i;
        of[i] = n - 1;
    }
    start[n] = f->ncode;
    uint64_t *sets = need(b, (size_t)n * words * 4 * 8);
    Live *l = need(b, (size_t)n * sizeof *l);
    for (int k = 0; k < n; k++) {
        uint64_t *p = sets + (size_t)k * words * 4;
        l[k] = (Live){p, p + words, p + 2 * words, p + 3 * words};
        scan_block(f, start[k], start[k + 1], &l[k]);
    }
    for (bool changed = true; changed;) {
        changed = false;
        for (int k = n - 1; k >= 0; k--) {
            const Op *last = &f->code[start[k + 1] - 1];
            int jumps = last->fn == exec_bra ? 1 : last->fn == exec_brx ? (int)last->imm : 0;
            const int32_t *t = last->fn == exec_bra ? &last->target : last->targets;
            bool fall = (!ends_block(last) || last->pred >= 0) && k + 1 < n;
            for (size_t i = 0; i < words; i++) {
                uint64_t o = fall ? l[k + 1].in[i] : 0;
                for (int j = 0; j < jumps; j++) o |= l[of[t[j]]].in[i];
                l[k].out[i] = o;
                o = l[k].use[i] | (o & ~l[k].def[i]);
                changed |= o != l[k].in[i];
                l[k].in[i] = o;
            }
        }
    }
    for (int k = 0; k < n; k++) {
        for (uint32_t r = 0; r < b->nvirtual; r++) {
            if (BIT(l[k].in, r)) extend(v, r, start[k]);
            if (BIT(l[k].out, r)) extend(v, r, start[k + 1] - 1);
        }
        for (int i = start[k]; i < start[k + 1]; i++)
            for (int o = 0; o < f->code[i].n; o++)
                if (f->code[i].o[o].base == BASE_REG) extend(v, f->code[i].o[o].off, i);
    }
    *entry = l[0].in;
}

static int by_start(const void *a, const void *b) {
    const Interval *x = a, *y = b;
    return x->lo != y->lo ? (x->lo < y->lo ? -1 : 1) : (x->reg > y->reg) - (x->reg < y->reg);
}

/* Slots of 128 (width <= 32) and 256 bytes; a slot is free again after the interval's end. */
static void allocate(Build *b, Func *f, Interval *v, const uint64_t *entry, uint32_t *slot) {
    typedef struct { uint32_t off; int free_at; bool wide; } Slot;
    Slot *s = need(b, sizeof(Slot) * (b->nvirtual + 1));
    uint32_t n = 0;
    for (uint32_t i = 0; i < b->nvirtual; i++)
        if (BIT(entry, i)) v[i] = (Interval){i, 0, f->ncode};
    qsort(v, b->nvirtual, sizeof *v, by_start);
    f->undef_off = need(b, sizeof(uint32_t) * (b->nvirtual + 1));
    for (uint32_t i = 0; i < b->nvirtual; i++) {
        if (v[i].hi < 0) continue;
        bool wide = b->width[v[i].reg] == 64;
        uint32_t k = 0;
        while (k < n && (s[k].wide != wide || s[k].free_at >= v[i].lo)) k++;
        if (k == n) {
            s[n++] = (Slot){f->reg_bytes, 0, wide};
            f->reg_bytes += wide ? 256 : 128;
        }
        s[k].free_at = v[i].hi;
        slot[v[i].reg] = s[k].off;
        if (BIT(entry, v[i].reg)) f->undef_off[f->nundef++] = s[k].off;
    }
}

static void assign(Build *b, Func *f) {
    Interval *v = need(b, sizeof *v * (b->nvirtual + 1));
    for (uint32_t i = 0; i < b->nvirtual; i++) v[i] = (Interval){i, f->ncode + 1, -1};
    uint64_t *entry;
    liveness(b, f, v, &entry);
    uint32_t *slot = need(b, sizeof(uint32_t) * (b->nvirtual + 1));
    allocate(b, f, v, entry, slot);
    for (int i = 0; i < f->ncode; i++) {
        Op *op = &f->code[i];
        for (int k = 0; k < op->n; k++) {
            if (op->o[k].base != BASE_REG) continue;
            if (BIT(entry, op->o[k].off)) op->undef |= op->o[k].dst ? 2 : 1;
            op->o[k].off = slot[op->o[k].off];
        }
    }
}

void ptx_layout(Build *b) {
    Func *f = b->fn;
    resolve(b);
    Cfg c = {.b = b};
    split_blocks(&c);
    connect(&c);
    order_blocks(&c);
    emit_blocks(&c, f);
    assign(b, f);
    if (!ptx_trips(f)) build_fail(b, "out of memory");
    f->npred = (int)b->npred;
    f->nconst_bytes = b->nconst;
    f->consts = need(b, b->nconst + 1);
    memcpy(f->consts, b->consts, b->nconst);
}
