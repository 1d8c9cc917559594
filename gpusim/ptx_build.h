/* ptx_build.h: what the three stages of the PTX front end share (parse, decode, lay out).
 *
 * While a function is being read, Opnd.off is the number of a virtual register (base BASE_REG or
 * BASE_PRED), an offset into the constants, or a special register; ptx_cfg.c then replaces
 * register numbers by slots. */
#ifndef PTX_BUILD_H
#define PTX_BUILD_H
#include "gpusim.h"
#include "ptx_lex.h"
#include <setjmp.h>

enum { PTX_NAME = 256 };          /* longest mangled name and its end */

typedef struct { char name[64]; uint32_t first, count; uint8_t width, range; int scope; } RegDecl;
typedef struct { char name[PTX_NAME]; int target; int first_use; } Label;
typedef struct { char name[PTX_NAME]; int ops[64], n; } Targets;  /* .branchtargets, label indices */

/* A symbol visible in the function: parameters, shared, local, global variables, call slots. A shared
 * variable of the module has `bytes` and gets its place in every kernel that names it. */
typedef struct {
    char name[PTX_NAME];
    uint8_t space;
    uint64_t addr;
    int scope;
    uint32_t bytes, align, placed_in; /* placed_in: number of the kernel that has the place, + 1 */
} Local;

typedef struct {
    Lexer x;
    Module *mod;
    Func *fn;
    const char *name;             /* of the function being read */
    RegDecl *regs;
    int nregs, cap_regs;
    uint32_t nvirtual, npred;
    uint8_t *width;               /* per virtual register */
    uint32_t cap_width;
    Label *labels;
    int nlabels, cap_labels;
    Targets *tables;
    int ntables;
    Local *locals;
    int nlocals, cap_locals;
    Op *code;
    int ncode, cap_code;
    uint8_t *consts;
    uint32_t nconst, cap_const;
    int scope;
    struct { uint32_t file, line; } loc[3];   /* as Op.loc */
    char *err;
    size_t errlen;
    jmp_buf fail;
} Build;

/* Ends the parse: "kernel NAME, PTX line N: ..." */
_Noreturn void build_fail(Build *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Grows *p (elements of size bytes, capacity *cap) so that it holds n. */
void *build_grow(Build *b, void *p, int *cap, int n, size_t size);
void build_expect(Build *b, const char *s);
bool build_accept(Build *b, const char *s);
void build_word(Build *b, char *out, size_t n);

uint32_t build_register(Build *b, uint8_t width);            /* a new virtual register */
uint32_t build_const(Build *b, uint64_t v);                  /* offset of its 32 lanes */
int build_label(Build *b, const char *name);                 /* index, created when new */
Local *build_find(Build *b, const char *name);
bool build_reg(Build *b, const char *name, Opnd *o);         /* %r12, %p1, %tid.x */
uint64_t ptx_integer(Build *b);                              /* constant: integer or float bits */

/* ptx_inst.c: one instruction from its opcode word to ';'. */
void ptx_instruction(Build *b);
/* ptx_cfg.c: block order, branch targets, register slots; fills b->fn. */
void ptx_layout(Build *b);

/* Special registers, one 32-lane array of 32 bits each, in this order. */
enum { SR_TID, SR_NTID = 3, SR_CTAID = 6, SR_NCTAID = 9, SR_LANEID = 12, SR_WARPID, SR_NWARPID,
       SR_SMID, SR_NSMID, SR_LT, SR_LE, SR_EQ, SR_GE, SR_GT, SR_DYN_SMEM, SR_TOTAL_SMEM, SR_CLOCK,
       SR_COUNT };
#endif
