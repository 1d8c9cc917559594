/* ptx_operand.c: operands of PTX instructions: registers, immediates, symbols, vectors, addresses.
 */
#include "alu.h"
#include "exec.h"
#include "ptx_inst.h"
#include <stdio.h>
#include <string.h>

void inst_add(Build *b, Inst *in, Opnd o) {
    if (in->n == MAX_OPERANDS) build_fail(b, "%s: more than %d operands", in->opcode, MAX_OPERANDS);
    in->o[in->n++] = o;
}

Op *inst_emit(Build *b, const Op *op, const Opnd *o, int n) {
    b->code = build_grow(b, b->code, &b->cap_code, b->ncode + 1, sizeof *b->code);
    Op *d = &b->code[b->ncode++];
    *d = *op;
    d->o = ptx_own(b->mod, (size_t)n * sizeof *o);
    if (!d->o) build_fail(b, "out of memory");
    memcpy(d->o, o, (size_t)n * sizeof *o);
    d->n = (uint8_t)n;
    for (int i = 0; i < 3; i++) {
        d->loc[i].file = (uint16_t)b->loc[i].file;
        d->loc[i].line = b->loc[i].line;
    }
    return d;
}

/* A copy of o in a register of another width (low part; upper part zero or sign). */
static Opnd resized(Build *b, Inst *in, Opnd o, uint8_t width, uint8_t bytes, uint8_t sext) {
    Op op = {.fn = alu_resize, .text = "(width)", .pred = -1, .ndst = 1, .cls = C_MOVE,
             .size = bytes, .sext = sext};
    Opnd pair[2] = {{build_register(b, width), BASE_REG, width, 0, 1}, o};
    if (!o.dst) {
        inst_emit(b, &op, pair, 2);
        return pair[0];
    }
    if (in->npost == 4) build_fail(b, "%s: too many width changes", in->opcode);
    op.pred = in->op.pred;
    op.pneg = in->op.pneg;
    Opnd temp = pair[0];
    in->post[in->npost] = op;
    in->post_o[in->npost][0] = o;
    in->post_o[in->npost++][1] = (Opnd){temp.off, BASE_REG, width, 0, 0};
    return temp;
}

Opnd inst_constant(Build *b, uint64_t v, int width) {
    uint32_t off = build_const(b, v);
    return (Opnd){off + (width == 64 ? 0 : 8 * LANES), BASE_CONST, (uint8_t)width, 0, 0};
}

/* The value of a symbol: an offset in its space, or a device address. */
uint64_t inst_symbol_value(Build *b, const char *name, uint8_t *space) {
    Local *l = build_find(b, name);
    if (!l) build_fail(b, "unknown symbol '%s'", name);
    *space = l->space;
    uint32_t kernel = (uint32_t)b->mod->nfunc + 1;
    if (l->bytes && l->placed_in != kernel) {
        l->addr = (b->fn->static_shared + l->align - 1) / l->align * l->align;
        b->fn->static_shared = (uint32_t)l->addr + l->bytes;
        l->placed_in = kernel;
    }
    return l->addr == UINT64_MAX ? DYN_SHARED : l->addr;
}

/* Adds "+ 8" or "+-8" if present. */
static int64_t displacement(Build *b) {
    return build_accept(b, "+") ? (int64_t)ptx_integer(b) : 0;
}

/* A register, an immediate or a symbol. width 0 keeps the register's own width. */
Opnd inst_source(Build *b, Inst *in, int width) {
    if (b->x.tok.kind == T_NUMBER || lex_is(&b->x, "-")) {
        return inst_constant(b, ptx_integer(b), width ? width : 64);
    }
    char name[PTX_NAME];
    build_word(b, name, sizeof name);
    Opnd o;
    uint8_t space;
    if (!strcmp(name, "_")) build_fail(b, "%s: '_' as a source", in->opcode);
    if (!strcmp(name, "WARP_SZ")) return inst_constant(b, LANES, width ? width : 32);
    if (!build_reg(b, name, &o)) {
        if (*name == '%') build_fail(b, "%s: unknown register '%s'", in->opcode, name);
        uint64_t v = inst_symbol_value(b, name, &space);
        return inst_constant(b, v + (uint64_t)displacement(b), width ? width : 64);
    }
    if (o.base == BASE_PRED) build_fail(b, "%s: predicate '%s' as a value", in->opcode, name);
    if (width && (o.width == 64) != (width == 64))
        return resized(b, in, o, (uint8_t)width, (uint8_t)((o.width < width ? o.width : width) / 8),
                       0);
    return o;
}

Opnd inst_dest(Build *b, Inst *in, int width, uint8_t sext) {
    char name[PTX_NAME];
    build_word(b, name, sizeof name);
    Opnd o;
    if (!strcmp(name, "_")) {
        o = (Opnd){build_register(b, (uint8_t)(width ? width : 64)), BASE_REG,
                   (uint8_t)(width ? width : 64), 0, 1};
    } else if (!build_reg(b, name, &o) || o.base == BASE_SPECIAL) {
        build_fail(b, "%s: unknown register '%s'", in->opcode, name);
    }
    o.dst = 1;
    if (o.base == BASE_PRED) build_fail(b, "%s: predicate '%s' as a value", in->opcode, name);
    if (width && (o.width == 64) != (width == 64))
        return resized(b, in, o, (uint8_t)width, (uint8_t)((o.width < width ? o.width : width) / 8),
                       sext);
    return o;
}

/* A predicate; predicate 0 is always true, so immediates need no storage. */
Opnd inst_predicate(Build *b, Inst *in, bool dst) {
    Opnd o = {0, BASE_PRED, 1, 0, dst};
    if (!dst && (b->x.tok.kind == T_NUMBER || lex_is(&b->x, "-"))) {
        o.neg = ptx_integer(b) == 0;
        return o;
    }
    bool neg = build_accept(b, "!");
    char name[PTX_NAME];
    build_word(b, name, sizeof name);
    if (dst && !strcmp(name, "_")) {
        o.off = b->npred++;
        return o;
    }
    if (!build_reg(b, name, &o) || o.base != BASE_PRED)
        build_fail(b, "%s: '%s' is not a predicate", in->opcode, name);
    o.neg = neg;
    o.dst = dst;
    return o;
}

void inst_comma(Build *b) { build_expect(b, ","); }

/* {a, b, c} or a single operand; returns how many. width 0: the registers' own. */
int inst_vector(Build *b, Inst *in, int width, bool dst) {
    int n = 0;
    bool braces = build_accept(b, "{");
    do {
        inst_add(b, in, dst ? inst_dest(b, in, width, 0) : inst_source(b, in, width));
        n++;
    } while (braces && build_accept(b, ","));
    if (braces) build_expect(b, "}");
    return n;
}

/* [base + displacement]: the base becomes an operand, constants go to op.imm. */
void inst_address(Build *b, Inst *in) {
    build_expect(b, "[");
    Opnd o = inst_constant(b, 0, 64);
    if (b->x.tok.kind == T_NUMBER) {
        in->op.imm = (int64_t)ptx_integer(b);
    } else {
        char name[PTX_NAME];
        build_word(b, name, sizeof name);
        if (!build_reg(b, name, &o)) {
            uint8_t space;
            in->op.imm = (int64_t)inst_symbol_value(b, name, &space);
            if (in->op.space == S_PARAM) in->op.space = space;
        }
        in->op.imm += displacement(b);
    }
    inst_add(b, in, o);
    build_expect(b, "]");
}

bool inst_has(const Inst *in, const char *part) {
    for (int i = 1; i < in->nparts; i++)
        if (!strcmp(in->part[i], part)) return true;
    return false;
}
