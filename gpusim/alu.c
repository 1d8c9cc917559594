/* alu.c: lane-wise arithmetic, generated from ptx_ops.h.
 *
 * Each row becomes one function over 32-lane arrays: a loop without a mask when every lane is
 * on (the compiler vectorises it), and one that keeps the old value of lanes that are off.
 * Built with -ffp-contract=off: PTX says where a multiply and an add fuse. */
#include "alu.h"
#include "gpusim_api.h"
#include "lanes.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define NAME(f) alu_##f
#define BODY(D, EXPR) \
    if (mask == ALL) { \
        _Pragma("GCC ivdep") for (int i = 0; i < LANES; i++) { EXPR; ST_##D(d, i, r); } \
    } else { \
        for (int i = 0; i < LANES; i++) \
            if (mask >> i & 1) { EXPR; ST_##D(d, i, r); } \
    } \
    return NEXT;
#define LOAD(T, v, k) const S_##T *p##v = at(w, op->o[k])
#define GET(T, v) const T##_t v = LD_##T(p##v, i)
#define HEAD(f, D) \
    static int NAME(f)(Warp *w, const Op *op, uint32_t mask) { \
        S_##D *d = at(w, op->o[0]);
#define A1(cls, f, D, A, expr) \
    HEAD(f, D) LOAD(A, a, 1); \
    BODY(D, GET(A, a); D##_t r = (D##_t)(expr)) }
#define A2(cls, f, D, A, B, expr) \
    HEAD(f, D) LOAD(A, a, 1); LOAD(B, b, 2); \
    BODY(D, GET(A, a); GET(B, b); D##_t r = (D##_t)(expr)) }
#define A3(cls, f, D, A, B, C, expr) \
    HEAD(f, D) LOAD(A, a, 1); LOAD(B, b, 2); LOAD(C, c, 3); \
    BODY(D, GET(A, a); GET(B, b); GET(C, c); D##_t r = (D##_t)(expr)) }
#define A4(cls, f, D, A, B, C, E, expr) \
    HEAD(f, D) LOAD(A, a, 1); LOAD(B, b, 2); LOAD(C, c, 3); LOAD(E, e, 4); \
    BODY(D, GET(A, a); GET(B, b); GET(C, c); GET(E, e); D##_t r = (D##_t)(expr)) }
#define CMP(f, T, cond) \
    static uint32_t NAME(f)(const void *x, const void *y) { \
        const S_##T *pa = x, *pb = y; \
        uint32_t t[LANES], m = 0; \
        for (int i = 0; i < LANES; i++) { GET(T, a); GET(T, b); t[i] = (cond) ? ALL : 0; } \
        for (int i = 0; i < LANES; i++) m |= t[i] & 1u << i; \
        return m; \
    }
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#pragma GCC diagnostic ignored "-Wsign-compare"
#include "ptx_ops.h"
#pragma GCC diagnostic pop
#undef A1
#undef A2
#undef A3
#undef A4
#undef CMP

#define A1(cls, f, D, A, expr) {#f, NAME(f), NULL, cls, 1, {W_##D, W_##A}},
#define A2(cls, f, D, A, B, expr) {#f, NAME(f), NULL, cls, 2, {W_##D, W_##A, W_##B}},
#define A3(cls, f, D, A, B, C, expr) {#f, NAME(f), NULL, cls, 3, {W_##D, W_##A, W_##B, W_##C}},
#define A4(cls, f, D, A, B, C, E, expr) \
    {#f, NAME(f), NULL, cls, 4, {W_##D, W_##A, W_##B, W_##C, W_##E}},
#define CMP(f, T, cond) {#f, NULL, NAME(f), C_PRED, 2, {1, W_##T, W_##T}},
static AluForm table[] = {
#include "ptx_ops.h"
};
enum { ROWS = sizeof table / sizeof *table };

static int by_form(const void *a, const void *b) {
    return strcmp(((const AluForm *)a)->form, ((const AluForm *)b)->form);
}

const AluForm *alu_table(int *n) {
    static bool sorted;
    if (!sorted) {
        qsort(table, ROWS, sizeof *table, by_form);
        sorted = true;
    }
    *n = ROWS;
    return table;
}

__attribute__((visibility("default")))
const char *gpusim_form_at(int i, int *nsrc, const unsigned char **width) {
    int n;
    const AluForm *t = alu_table(&n);
    if (i < 0 || i >= n) return NULL;
    *nsrc = t[i].nsrc;
    *width = t[i].width;
    return t[i].form;
}

const AluForm *alu_find(const char *opcode) {
    char form[64];
    size_t n = 0;
    for (const char *p = opcode; *p && n < sizeof form - 1; p++) {
        if (p[0] == ':' && p[1] == ':') p++;
        form[n++] = *p == '.' || *p == ':' ? '_' : *p;
    }
    form[n] = 0;
    int rows;
    const AluForm *t = alu_table(&rows), key = {.form = form};
    return bsearch(&key, t, (size_t)rows, sizeof *t, by_form);
}

/* setp: p[, q] = cmp(a, b) [op c]. q gets the complement before the same combination. */
int alu_setp(Warp *w, const Op *op, uint32_t mask) {
    const Opnd *src = op->o + op->ndst;
    uint32_t r = op->cmp(at(w, src[0]), at(w, src[1])), q = ~r;
    if (op->mode) {
        uint32_t c = pred_of(w, src[2]);
        r = op->mode == 'a' ? r & c : op->mode == 'o' ? r | c : r ^ c;
        q = op->mode == 'a' ? q & c : op->mode == 'o' ? q | c : q ^ c;
    }
    for (int k = 0; k < op->ndst; k++) {
        uint32_t *p = &w->pred[op->o[k].off];
        *p = (*p & ~mask) | ((k ? q : r) & mask);
    }
    return NEXT;
}

int alu_set(Warp *w, const Op *op, uint32_t mask) {
    uint32_t r = op->cmp(at(w, op->o[1]), at(w, op->o[2])), *d = at(w, op->o[0]);
    if (op->mode) {
        uint32_t c = pred_of(w, op->o[3]);
        r = op->mode == 'a' ? r & c : op->mode == 'o' ? r | c : r ^ c;
    }
    for (int i = 0; i < LANES; i++)
        if (mask >> i & 1) d[i] = r >> i & 1 ? (uint32_t)op->imm : 0;
    return NEXT;
}

/* Lane arrays of 4 (width 16, 32) or 8 bytes (width 64). */
int alu_selp(Warp *w, const Op *op, uint32_t mask) {
    uint32_t p = pred_of(w, op->o[3]);
    if (op->size == 8) {
        uint64_t *d = at(w, op->o[0]);
        const uint64_t *a = at(w, op->o[1]), *b = at(w, op->o[2]);
        for (int i = 0; i < LANES; i++)
            if (mask >> i & 1) d[i] = p >> i & 1 ? a[i] : b[i];
    } else {
        uint32_t *d = at(w, op->o[0]);
        const uint32_t *a = at(w, op->o[1]), *b = at(w, op->o[2]);
        for (int i = 0; i < LANES; i++) {
            uint32_t v = p >> i & 1 ? a[i] : b[i];
            d[i] = mask >> i & 1 ? v : d[i];
        }
    }
    return NEXT;
}

/* mov, and, or, xor, not of predicates. */
int alu_pred(Warp *w, const Op *op, uint32_t mask) {
    uint32_t a = pred_of(w, op->o[1]), b = op->n > 2 ? pred_of(w, op->o[2]) : 0;
    uint32_t r = op->mode == 'a' ? a & b : op->mode == 'o' ? a | b : op->mode == 'x' ? a ^ b
               : op->mode == 'n' ? ~a : a;
    uint32_t *p = &w->pred[op->o[0].off];
    *p = (*p & ~mask) | (r & mask);
    return NEXT;
}

static uint64_t lane_get(const void *p, int width, int i) {
    if (width == 64) return ((const uint64_t *)p)[i];
    uint32_t v = ((const uint32_t *)p)[i];
    return width == 16 ? v & 0xffff : v;
}
static void lane_set(void *p, int width, int i, uint64_t v) {
    if (width == 64) ((uint64_t *)p)[i] = v;
    else ((uint32_t *)p)[i] = width == 16 ? (uint32_t)v & 0xffff : (uint32_t)v;
}

/* mov.b32 %r, {%rs1, %rs2} and its like: op->size bits per part, low part first. */
int alu_pack(Warp *w, const Op *op, uint32_t mask) {
    for (int i = 0; i < LANES; i++) {
        if (!(mask >> i & 1)) continue;
        uint64_t v = 0;
        for (int k = 1; k < op->n; k++)
            v |= lane_get(at(w, op->o[k]), op->size, i) << (op->size * (k - 1));
        lane_set(at(w, op->o[0]), op->o[0].width, i, v);
    }
    return NEXT;
}

int alu_unpack(Warp *w, const Op *op, uint32_t mask) {
    const Opnd src = op->o[op->ndst];
    for (int i = 0; i < LANES; i++) {
        if (!(mask >> i & 1)) continue;
        uint64_t v = lane_get(at(w, src), src.width, i);
        for (int k = 0; k < op->ndst; k++)
            lane_set(at(w, op->o[k]), op->size, i, v >> (op->size * k));
    }
    return NEXT;
}

/* Copies between registers of different width, when an operand's register is not as wide as
 * the operation: truncates, or extends with zeros (sext: with the sign of op->size bytes). */
int alu_resize(Warp *w, const Op *op, uint32_t mask) {
    const Opnd d = op->o[0], s = op->o[1];
    int shift = 64 - 8 * op->size;
    for (int i = 0; i < LANES; i++) {
        if (!(mask >> i & 1)) continue;
        uint64_t v = lane_get(at(w, s), s.width, i) << shift;
        lane_set(at(w, d), d.width, i, op->sext ? (uint64_t)((int64_t)v >> shift) : v >> shift);
    }
    return NEXT;
}

/* Documented bounds of the approximate instructions (PTX ISA 9.0, section by instruction). */
static const struct { const char *prefix; float rel, abs; } bounds[] = {
    {"", 0, 0},
    {"ex2.approx", 2.384e-7f, 0},   {"lg2.approx", 2.384e-7f, 2.384e-7f},
    {"rsqrt.approx", 1.3e-7f, 0},   {"rcp.approx", 1.192e-7f, 0},
    {"sqrt.approx", 1.192e-7f, 0},  {"div.approx", 2.384e-7f, 0},
    {"div.full", 2.384e-7f, 0},     {"sin.approx", 0, 6.7e-7f},
    {"cos.approx", 0, 6.7e-7f},     {"tanh.approx", 4.93e-4f, 0},
};

int alu_approx(const char *opcode) {
    for (int i = 1; i < (int)(sizeof bounds / sizeof *bounds); i++) {
        size_t n = strlen(opcode);
        if (!strncmp(opcode, bounds[i].prefix, strlen(bounds[i].prefix)) && n > 4 &&
            !strcmp(opcode + n - 4, ".f32"))
            return i;
    }
    return 0;
}

int alu_perturbed(Warp *w, const Op *op, uint32_t mask) {
    op->inner(w, op, mask);
    float *d = at(w, op->o[0]);
    for (int i = 0; i < LANES; i++) {
        float u = (float)((double)(settings_random() >> 11) * 0x1p-52 - 1.0);
        if ((mask >> i & 1) && isfinite(d[i]))
            d[i] += u * (bounds[op->approx].rel * fabsf(d[i]) + bounds[op->approx].abs);
    }
    return NEXT;
}
