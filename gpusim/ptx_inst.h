/* ptx_inst.h: an instruction while it is decoded, and its operands. */
#ifndef PTX_INST_H
#define PTX_INST_H
#include "ptx_build.h"

enum { MAX_OPERANDS = 40, MAX_PARTS = 16 };

typedef struct {
    Op op;
    Opnd o[MAX_OPERANDS];
    int n;
    Op post[4];               /* width changes of destinations */
    Opnd post_o[4][2];
    int npost;
    char opcode[96];
    char split[96];
    char *part[MAX_PARTS];    /* opcode cut at the dots */
    int nparts;
} Inst;

void inst_add(Build *b, Inst *in, Opnd o);
/* Appends an operation with n operands to the function. */
Op *inst_emit(Build *b, const Op *op, const Opnd *o, int n);
Opnd inst_constant(Build *b, uint64_t v, int width);
uint64_t inst_symbol_value(Build *b, const char *name, uint8_t *space);
/* One operand; width 0 keeps the register's own, otherwise registers of another width are copied.
 */
Opnd inst_source(Build *b, Inst *in, int width);
Opnd inst_dest(Build *b, Inst *in, int width, uint8_t sext);
Opnd inst_predicate(Build *b, Inst *in, bool dst);
int inst_vector(Build *b, Inst *in, int width, bool dst);
void inst_address(Build *b, Inst *in);
void inst_comma(Build *b);
/* Is `part` among the parts of the opcode after its first? */
bool inst_has(const Inst *in, const char *part);
#endif
