/* exec_mem.c: loads, stores and atomics of every space.
 *
 * An access is resolved (addresses to host pointers: bounds, alignment), then checked (written?
 * raced?), then counted, then done. Memory faults end the launch, as on a GPU; the other findings
 * are reported and the kernel goes on. */
#include "check.h"
#include "count.h"
#include "exec.h"
#include "exec_block.h"
#include "lanes.h"
#include "race.h"
#include <stdio.h>
#include <string.h>

typedef struct {
    Warp *w;
    const Op *op;
    uint32_t mask, bytes;
    int kind;
    uint64_t addr[LANES];
    uint8_t *p[LANES];
} Access;

void exec_addresses(const Warp *w, const Op *op, Opnd base, uint64_t *addr) {
    if (base.width == 64) {
        const uint64_t *a = at(w, base);
        for (int i = 0; i < LANES; i++) addr[i] = a[i] + (uint64_t)op->imm;
    } else {
        const uint32_t *a = at(w, base);
        for (int i = 0; i < LANES; i++) addr[i] = a[i] + (uint32_t)op->imm;   /* wraps at 2^32 */
    }
}

static int fault(Access *x, int lane, int result, const char *rule, const char *what) {
    Alloc *a = mem_near(x->addr[lane]);
    char near[160] = "";
    if (a && x->op->space != S_SHARED && x->op->space != S_LOCAL)
        snprintf(near, sizeof near, "; nearest: %s, %llu bytes at 0x%llx%s", a->name,
                 (unsigned long long)a->size, (unsigned long long)a->addr,
                 a->freed ? " (freed)" : "");
    check_report(x->w, x->op, lane, x->addr[lane], NULL, rule, "%s (%u bytes at 0x%llx)%s", what,
                 x->bytes, (unsigned long long)x->addr[lane], near);
    x->w->cta->l->failed = result;
    return FATAL;
}

static int misaligned(Access *x) {
    uint64_t low = 0;
    for (int i = 0; i < LANES; i++) low |= x->mask >> i & 1 ? x->addr[i] : 0;
    if (!(low & (x->bytes - 1))) return -1;
    for (int i = 0; i < LANES; i++)
        if (x->mask >> i & 1 && x->addr[i] & (x->bytes - 1)) return i;
    return -1;
}

/* ---- global ---- */

static void check_written(Access *x, int lane, const Alloc *a) {
    int64_t bad = mem_uninitialised(a, x->addr[lane] - a->addr, x->bytes);
    if (bad >= 0)
        check_report(x->w, x->op, lane, x->addr[lane], NULL, "uninitialised-global",
                     "reads %s+%lld, which nothing wrote", a->name, (long long)bad);
}

/* Were the bytes written, are they now, and who else touches them? All lanes in one allocation. */
static void check_global(Access *x, Alloc *a, uint32_t lanes) {
    uint64_t gap = 0, off = x->addr[0] - a->addr;
    for (int i = 0; i < LANES; i++) gap |= x->addr[i] ^ (x->addr[0] + (uint64_t)i * x->bytes);
    bool row = !gap && lanes == ALL;           /* one piece of 32 * bytes */
    bool reads = x->kind != ACC_WRITE && settings.checks && !a->all_init &&
                 !(row && mem_uninitialised(a, off, LANES * x->bytes) < 0);
    if (row && x->kind != ACC_READ) mem_mark(a, off, LANES * x->bytes);
    for (int i = 0; i < LANES; i++) {
        if (!(lanes >> i & 1)) continue;
        if (reads) check_written(x, i, a);
        if (!row && x->kind != ACC_READ) mem_mark(a, x->addr[i] - a->addr, x->bytes);
        if (settings.checks)
            race_global(x->w, x->op, i, a, x->addr[i] - a->addr, x->bytes, x->kind);
    }
}

/* The allocation of a lane, or NULL after reporting. */
static Alloc *lane_alloc(Access *x, int lane) {
    uint64_t addr = x->addr[lane];
    Alloc *a = mem_find(addr);
    if (a && a->freed)
        fault(x, lane, 700, "use-after-free", "touches freed memory");
    else if (!a || x->bytes > a->size - (addr - a->addr))
        fault(x, lane, 700, "out-of-bounds", addr < 4096 ? "null pointer"
              : addr >= 1ull << 44 ? "not a device address (host pointer?)"
              : "outside every allocation");
    else if (!mem_reachable(a, x->w->cta->l->device))
        fault(x, lane, 700, "wrong-device", "memory of another device, and no peer access");
    else return a;
    return NULL;
}

static int resolve_global(Access *x) {
    OpCount *n = &x->w->count[x->op - x->w->code];
    int lane = misaligned(x);
    if (lane >= 0) return fault(x, lane, 716, "misaligned", "address not a multiple of the size");
    uint64_t lo = UINT64_MAX, hi = 0;
    for (int i = 0; i < LANES; i++) {
        uint64_t v = x->addr[i], on = x->mask >> i & 1;
        lo = on && v < lo ? v : lo;
        hi = on && v > hi ? v : hi;
    }
    Alloc *a = n->hit;
    bool one = a && !a->freed && lo >= a->addr && hi - a->addr + x->bytes <= a->size;
    for (int i = 0; i < LANES; i++) {
        if (!(x->mask >> i & 1)) continue;
        if (!one) {
            a = n->hit = lane_alloc(x, i);
            if (!a) return FATAL;
            one = lo >= a->addr && hi - a->addr + x->bytes <= a->size;
            if (!one) check_global(x, a, 1u << i);
        }
        x->p[i] = a->host + (x->addr[i] - a->addr);
    }
    if (one) check_global(x, a, x->mask);
    bool write = x->kind != ACC_READ;
    if (x->kind != ACC_WRITE) exec_loads(x->w);
    if (settings.counters)
        count_global(n, x->addr, x->mask, x->bytes, write, !write && one && mem_weights(a));
    return NEXT;
}

/* ---- shared, local, parameters ---- */

static int resolve_shared(Access *x) {
    Cta *c = x->w->cta;
    int lane = misaligned(x);
    if (lane >= 0)
        return fault(x, lane, 716, "misaligned", "shared address not a multiple of the size");
    for (int i = 0; i < LANES; i++) {
        if (!(x->mask >> i & 1)) continue;
        int64_t k = exec_shared_index(c, x->addr[i], x->bytes);
        if (k < 0)
            return fault(x, i, 700, "out-of-bounds-shared", x->addr[i] >= DYN_SHARED
                         ? "outside the dynamic shared memory of this launch"
                         : "outside the block's shared memory");
        x->p[i] = c->shared + k;
        if (settings.checks) race_shared(x->w, x->op, i, (uint32_t)k, x->bytes, x->kind);
    }
    if (settings.counters)
        count_shared(&x->w->count[x->op - x->w->code], x->addr, x->mask, x->bytes);
    return NEXT;
}

static int resolve_local(Access *x) {
    uint32_t size = x->w->cta->l->f->local_bytes;
    for (int i = 0; i < LANES; i++) {
        if (!(x->mask >> i & 1)) continue;
        if (x->bytes > size || x->addr[i] > size - x->bytes)
            return fault(x, i, 700, "out-of-bounds-local", "outside the thread's local memory");
        size_t at_byte = (size_t)i * size + x->addr[i];
        x->p[i] = x->w->local + at_byte;
        if (x->kind == ACC_READ && settings.checks &&
            memchr(x->w->local_init + at_byte, 0, x->bytes))
            check_report(x->w, x->op, i, x->addr[i], NULL, "uninitialised-local",
                         "reads local memory that the thread did not write");
        if (x->kind != ACC_READ) memset(x->w->local_init + at_byte, 1, x->bytes);
    }
    return NEXT;
}

static int resolve_param(Access *x) {
    const Func *f = x->w->cta->l->f;
    bool call = x->op->space == S_CALL;
    uint32_t size = call ? f->call_bytes : f->param_bytes;
    for (int i = 0; i < LANES; i++) {
        if (!(x->mask >> i & 1)) continue;
        if (x->bytes > size || x->addr[i] > size - x->bytes)
            return fault(x, i, 700, "out-of-bounds-param", "outside the parameters");
        x->p[i] = call ? x->w->call + (size_t)i * size + x->addr[i]
                       : x->w->cta->l->params + x->addr[i];
    }
    return NEXT;
}

/* Generic addresses: by window, each part on its own. */
static int resolve_generic(Access *x) {
    uint32_t all = x->mask;
    int r = NEXT;
    for (int k = 0; k < 3 && r == NEXT; k++) {
        uint64_t base = k == 0 ? SHARED_WINDOW : k == 1 ? LOCAL_WINDOW : 0;
        x->mask = 0;
        for (int i = 0; i < LANES; i++) {
            bool shared = x->addr[i] - SHARED_WINDOW < WINDOW_SIZE;
            bool local = x->addr[i] - LOCAL_WINDOW < WINDOW_SIZE;
            if (all >> i & 1 && (k == 0 ? shared : k == 1 ? local : !shared && !local))
                x->mask |= 1u << i;
        }
        for (int i = 0; i < LANES; i++) x->addr[i] -= x->mask >> i & 1 ? base : 0;
        if (x->mask) r = k == 0 ? resolve_shared(x) : k == 1 ? resolve_local(x) : resolve_global(x);
        for (int i = 0; i < LANES; i++) x->addr[i] += x->mask >> i & 1 ? base : 0;
    }
    x->mask = all;
    return r;
}

static int resolve(Access *x, Opnd base) {
    exec_addresses(x->w, x->op, base, x->addr);
    switch (x->op->space) {
    case S_GLOBAL: return resolve_global(x);
    case S_SHARED: return resolve_shared(x);
    case S_LOCAL: return resolve_local(x);
    case S_PARAM: case S_CALL: return resolve_param(x);
    default: return resolve_generic(x);
    }
}

/* ---- the operations ---- */

static uint64_t read_lane(const uint8_t *p, int size, bool sext) {
    switch (size) {
    case 1: return sext ? (uint64_t)*(const int8_t *)p : *p;
    case 2: return sext ? (uint64_t)*(const int16_t *)p : *(const uint16_t *)p;
    case 4: return sext ? (uint64_t)*(const int32_t *)p : *(const uint32_t *)p;
    default: return *(const uint64_t *)p;
    }
}

int exec_ld(Warp *w, const Op *op, uint32_t mask) {
    Access x = {.w = w, .op = op, .mask = mask, .bytes = (uint32_t)op->size * op->vec,
                .kind = op->strong ? ACC_ATOMIC : ACC_READ};
    if (op->strong) x.kind = ACC_READ;
    if (resolve(&x, op->o[op->ndst]) == FATAL) return FATAL;
    for (int k = 0; k < op->vec; k++) {
        const Opnd d = op->o[k];
        int at_byte = k * op->size;
        if (op->size == 4 && d.width == 32) {
            uint32_t *v = at(w, d);
            for (int i = 0; i < LANES; i++)
                if (mask >> i & 1) v[i] = *(const uint32_t *)(x.p[i] + at_byte);
        } else if (d.width == 64) {
            uint64_t *v = at(w, d);
            for (int i = 0; i < LANES; i++)
                if (mask >> i & 1) v[i] = read_lane(x.p[i] + at_byte, op->size, op->sext);
        } else {
            uint32_t *v = at(w, d);
            for (int i = 0; i < LANES; i++)
                if (mask >> i & 1) v[i] = (uint32_t)read_lane(x.p[i] + at_byte, op->size, op->sext);
        }
    }
    return NEXT;
}

void exec_loads(Warp *w) {
    if (w->loads) return;
    w->loads = 1;
    w->cta->l->loaders++;
}

/* prefetch.global.L2: moves a sector for each lane and changes nothing; no fault, wherever it points. */
int exec_prefetch(Warp *w, const Op *op, uint32_t mask) {
    uint64_t addr[LANES];
    exec_addresses(w, op, op->o[0], addr);
    for (int i = 0; i < LANES; i++) {
        addr[i] = addr[i] / 32 * 32;
        const Alloc *a = mask >> i & 1 ? mem_find(addr[i]) : NULL;
        if (!a || a->freed) mask &= ~(1u << i);
    }
    if (settings.counters) count_global(&w->count[op - w->code], addr, mask, 32, false, false);
    return NEXT;
}

static void write_lane(uint8_t *p, int size, uint64_t v) { memcpy(p, &v, (size_t)size); }

int exec_st(Warp *w, const Op *op, uint32_t mask) {
    Access x = {.w = w, .op = op, .mask = mask, .bytes = (uint32_t)op->size * op->vec,
                .kind = ACC_WRITE};
    if (resolve(&x, op->o[0]) == FATAL) return FATAL;
    for (int k = 0; k < op->vec; k++) {
        const Opnd s = op->o[k + 1];
        int at_byte = k * op->size;
        if (s.width == 64) {
            const uint64_t *v = at(w, s);
            for (int i = 0; i < LANES; i++)
                if (mask >> i & 1) write_lane(x.p[i] + at_byte, op->size, v[i]);
        } else {
            const uint32_t *v = at(w, s);
            for (int i = 0; i < LANES; i++) {
                if (!(mask >> i & 1)) continue;
                if (op->size == 4) *(uint32_t *)(x.p[i] + at_byte) = v[i];
                else write_lane(x.p[i] + at_byte, op->size, v[i]);
            }
        }
    }
    return NEXT;
}

static uint64_t atomic_int(int op, bool sign, int size, uint64_t old, uint64_t b, uint64_t c) {
    uint64_t so = old, sb = b;
    if (sign && size == 4) { so = (uint64_t)(int32_t)old; sb = (uint64_t)(int32_t)b; }
    bool less = sign ? (int64_t)sb < (int64_t)so : b < old;
    switch (op) {
    case AT_ADD: return old + b;
    case AT_MIN: return less ? b : old;
    case AT_MAX: return less ? old : b;
    case AT_INC: return old >= b ? 0 : old + 1;
    case AT_DEC: return old == 0 || old > b ? b : old - 1;
    case AT_EXCH: return b;
    case AT_CAS: return old == b ? c : old;
    case AT_AND: return old & b;
    case AT_OR: return old | b;
    default: return old ^ b;
    }
}

static uint64_t atomic_one(const Op *op, uint64_t old, uint64_t b, uint64_t c) {
    if (op->mode == AT_EXCH || op->mode == AT_CAS)
        return atomic_int(op->mode, 0, op->size, old, b, c);
    switch (op->mode2) {
    case TY_F:
        if (op->size == 4) {
            float x = f32_bits((uint32_t)old), y = f32_bits((uint32_t)b);
            return bits_f32(op->mode == AT_ADD ? x + y : op->mode == AT_MIN ? min_f32(x, y)
                                                                           : max_f32(x, y));
        } else {
            double x, y;
            memcpy(&x, &old, 8);
            memcpy(&y, &b, 8);
            x += y;
            memcpy(&old, &x, 8);
            return old;
        }
    case TY_F16X2: return f16_pair((uint32_t)old, (uint32_t)b, 0, PAIR_ADD);
    case TY_BF16X2: return bf16_pair((uint32_t)old, (uint32_t)b, 0, PAIR_ADD);
    case TY_F16: return f16_pair((uint32_t)old, (uint32_t)b, 0, PAIR_ADD) & 0xffff;
    case TY_BF16: return bf16_pair((uint32_t)old, (uint32_t)b, 0, PAIR_ADD) & 0xffff;
    default: return atomic_int(op->mode, op->mode2 == TY_S, op->size, old, b, c);
    }
}

static uint64_t lane_value(const Warp *w, Opnd o, int i) {
    return o.width == 64 ? ((const uint64_t *)at(w, o))[i] : ((const uint32_t *)at(w, o))[i];
}

int exec_atom(Warp *w, const Op *op, uint32_t mask) {
    Access x = {.w = w, .op = op, .mask = mask, .bytes = op->size, .kind = ACC_ATOMIC};
    if (resolve(&x, op->o[1]) == FATAL) return FATAL;
    int rot = settings.order == ORDER_RANDOM ? (int)(settings_random() % LANES) : 0;
    for (int k = 0; k < LANES; k++) {
        int i = settings.order == ORDER_REVERSE ? LANES - 1 - k : (k + rot) % LANES;
        if (!(mask >> i & 1)) continue;
        if (op->space != S_SHARED) exec_atomic_order(w, x.addr[i]);
        uint64_t old = 0, b = lane_value(w, op->o[2], i), c = 0;
        memcpy(&old, x.p[i], op->size);
        if (op->n > 3) c = lane_value(w, op->o[3], i);
        if (op->size == 4) b = (uint32_t)b;
        uint64_t v = atomic_one(op, old, b, c);
        memcpy(x.p[i], &v, op->size);
        if (op->o[0].width == 64) ((uint64_t *)at(w, op->o[0]))[i] = old;
        else ((uint32_t *)at(w, op->o[0]))[i] = (uint32_t)old;
    }
    return NEXT;
}

int exec_cvta(Warp *w, const Op *op, uint32_t mask) {
    uint64_t base = op->space == S_SHARED ? SHARED_WINDOW : op->space == S_LOCAL ? LOCAL_WINDOW : 0;
    if (op->mode) base = 0 - base;
    if (op->o[0].width == 64 && op->o[1].width == 64) {
        uint64_t *d = at(w, op->o[0]);
        const uint64_t *a = at(w, op->o[1]);
        for (int i = 0; i < LANES; i++) d[i] = mask >> i & 1 ? a[i] + base : d[i];
        return NEXT;
    }
    for (int i = 0; i < LANES; i++) {
        if (!(mask >> i & 1)) continue;
        uint64_t v = lane_value(w, op->o[1], i) + base;
        if (op->o[0].width == 64) ((uint64_t *)at(w, op->o[0]))[i] = v;
        else ((uint32_t *)at(w, op->o[0]))[i] = (uint32_t)v;
    }
    return NEXT;
}

int exec_isspace(Warp *w, const Op *op, uint32_t mask) {
    uint32_t *p = &w->pred[op->o[0].off], yes = 0;
    for (int i = 0; i < LANES; i++) {
        uint64_t a = lane_value(w, op->o[1], i);
        uint8_t s = a - SHARED_WINDOW < WINDOW_SIZE ? S_SHARED
                  : a - LOCAL_WINDOW < WINDOW_SIZE ? S_LOCAL : S_GLOBAL;
        if (s == op->space) yes |= 1u << i;
    }
    *p = (*p & ~mask) | (yes & mask);
    return NEXT;
}
