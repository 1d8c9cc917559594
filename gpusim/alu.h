/* alu.h: finding the lane-wise instruction for an opcode. */
#ifndef ALU_H
#define ALU_H
#include "gpusim.h"

/* Fixed-width facts of one form: the widths its operands are read with. */
typedef struct {
    const char *form;
    OpFn fn;              /* NULL for a comparison */
    CmpFn cmp;
    uint8_t cls, nsrc;
    uint8_t width[5];     /* destination, then sources: 16, 32 or 64 */
} AluForm;

/* The row for an opcode as written ("fma.rn.f32"), or NULL. */
const AluForm *alu_find(const char *opcode);
/* All rows, for the test that every form has a vector. */
const AluForm *alu_table(int *n);
/* Relative or absolute error the PTX ISA allows for an approximate opcode; 0 if exact. */
int alu_approx(const char *opcode);
/* An OpFn that runs op->inner and then moves each f32 result by a random part of that error. */
int alu_perturbed(Warp *w, const Op *op, uint32_t mask);

int alu_setp(Warp *w, const Op *op, uint32_t mask);
/* set: op->imm where the comparison (and op->mode with a predicate) holds, else 0. */
int alu_set(Warp *w, const Op *op, uint32_t mask);
int alu_selp(Warp *w, const Op *op, uint32_t mask);
int alu_pred(Warp *w, const Op *op, uint32_t mask);
int alu_pack(Warp *w, const Op *op, uint32_t mask);
int alu_unpack(Warp *w, const Op *op, uint32_t mask);
int alu_resize(Warp *w, const Op *op, uint32_t mask);
#endif
