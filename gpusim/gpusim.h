/* gpusim.h: the shared types of the PTX interpreter.
 *
 * A module is parsed once into Ops whose operands are byte offsets of 32-lane arrays. A launch
 * runs its blocks one after another; a block runs its warps in turns (a turn ends at a barrier);
 * a warp runs its lanes in lockstep, as a list of splits (pc, mask) of which the lowest pc goes
 * first, so that splits meet again at the join.
 *
 * Easy to get wrong: a register's width and an operation's width are two things (`st.u32` of a
 * 64-bit register stores its low half); .b16 lives in a 32-bit slot; a .pred is one 32-bit mask. */
#ifndef GPUSIM_H
#define GPUSIM_H
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GS_VERSION "gpusim model v2"
#define LANES 32
#define ALL 0xffffffffu
#define MAX_WARPS 32
#define DEV_BASE 0x700000000ull           /* first device address: a host read of one faults */
#define SHARED_WINDOW 0x100000000000ull   /* generic addresses of shared memory start here */
#define LOCAL_WINDOW 0x200000000000ull    /* and of local memory here */
#define WINDOW_SIZE 0x1000000ull

typedef struct Warp Warp;
typedef struct Cta Cta;
typedef struct Op Op;
typedef struct Func Func;
typedef struct Module Module;
typedef struct Launch Launch;
typedef struct Alloc Alloc;

/* ---- operands and operations ------------------------------------------------------------- */

enum { BASE_REG, BASE_CONST, BASE_SPECIAL, BASE_PRED };

/* One operand: base[base] + off is the address of its 32 lanes (off is the index of a .pred). */
typedef struct {
    uint32_t off;
    uint8_t base;
    uint8_t width;  /* 1 (predicate), 16, 32 or 64: the register's, not the operation's */
    uint8_t neg;    /* !%p */
    uint8_t dst;    /* written rather than read */
} Opnd;

/* What an operation returns to the warp loop. */
enum { NEXT, JUMPED, BLOCKED, FATAL };
typedef int (*OpFn)(Warp *w, const Op *op, uint32_t mask);
typedef uint32_t (*CmpFn)(const void *a, const void *b);

/* Classes used by the counters and the prediction. */
enum OpClass {
    C_INT, C_FP32, C_FP64, C_FP16, C_MUFU, C_CVT, C_MOVE, C_PRED, C_BRANCH, C_SYNC, C_SHFL,
    C_LDG, C_STG, C_LDS, C_STS, C_LOCAL, C_ATOM, C_ASYNC, C_LDSM, C_MMA, C_OTHER, C_COUNT
};

enum Space { S_GENERIC, S_GLOBAL, S_SHARED, S_LOCAL, S_PARAM, S_CALL };

struct Op {
    OpFn fn;
    CmpFn cmp;            /* setp: lanes where the comparison holds */
    Opnd *o;              /* destinations first */
    char *text;           /* opcode as written */
    int64_t imm;          /* address displacement, barrier id, wait count, LUT, ... */
    int32_t target;       /* branch: pc */
    int32_t *targets;     /* brx.idx */
    struct { uint16_t file; uint32_t line; } loc[3];   /* innermost, its caller, outermost */
    int16_t pred;         /* guard, or -1 */
    uint8_t pneg, leader, n, ndst;
    uint8_t cls;
    uint8_t space, size, vec, sext;   /* memory: element bytes, vector length */
    uint8_t mode, mode2, trans;       /* per kind: shuffle mode, atomic op, mma shape, ... */
    uint8_t strong;       /* volatile, relaxed, acquire, release: not a data race */
    uint8_t undef;        /* 1 reads, 2 writes a register of Func.undef_off */
    uint8_t approx;       /* index of the documented error bound, 0 = exact */
    OpFn inner;           /* what the perturbing wrapper calls */
    int32_t waits, oldest; /* place + 1 of the load that this waits for, and of one under way longer; or 0 */
};

/* ---- functions and modules --------------------------------------------------------------- */

typedef struct { char *name; uint32_t off, size, align; } Param;
typedef struct { char *name; uint8_t space; uint64_t addr; uint32_t size; } Symbol;

/* What ptxas says about the function for one architecture (.nv.info of the cubin). */
typedef struct { int sm, regs, frame, spill_checked; uint32_t shared; } CubinInfo;

struct Func {
    Module *mod;
    char *name;
    Op *code;
    int ncode, npred;
    uint32_t reg_bytes;                   /* per warp */
    uint8_t *consts;                      /* immediates, one 32-lane array each */
    uint32_t nconst_bytes;
    Param *params;
    int nparam;
    uint32_t param_bytes, static_shared, local_bytes;
    uint32_t maxntid, reqntid[3];
    uint32_t *undef_off, nundef;          /* registers some path may read before it writes */
    uint32_t max_dynamic_shared;          /* cuFuncSetAttribute */
    uint32_t call_bytes;
    uint32_t extern_shared;               /* uses extern __shared__ */
    CubinInfo cubin[16];
    int ncubin;
    uint8_t allow_same_value;
};

struct Module {
    Func *funcs;
    int nfunc;
    Symbol *syms;
    int nsym;
    char **files;
    int nfile;
    int target;       /* 80 for sm_80 */
    int device;       /* that it was loaded on */
    void **owned;     /* everything to free */
    int nowned, cap;
};

/* ---- running ------------------------------------------------------------------------------ */

typedef struct { uint32_t pc, mask; uint8_t waiting; } Split;

/* One cp.async instruction in flight: data was read at issue, shared memory is written at wait. */
typedef struct {
    uint32_t pc, mask, group, dst[LANES];
    uint8_t bytes, data[LANES][16];
} AsyncCopy;

/* Shadow of 4 bytes of shared memory. Entries of an earlier block are void (ver). */
typedef struct {
    uint32_t ver, wr_tick, rd_tick, rd_warps, wr_sync, rd_sync;
    uint16_t wr_pc, rd_pc, pend_pc;
    uint8_t wr_warp, wr_lane, rd_warp, rd_lane, init, wmask, pend, rmask, rd_many,
        wr_strong, rd_strong;
} SWord;

/* Per operation and launch: everything the report needs. */
typedef struct {
    uint64_t exec, lanes, sectors, wavefronts, bytes, used, ideal, diverged;
    uint64_t weight_sectors, weight_used;    /* of Alloc.big that nothing wrote lately */
    uint64_t missed;                         /* sectors that the L2 did not have */
    uint64_t landed;                         /* of cp.async waits: those that something came with */
    Alloc *hit;
} OpCount;

struct Warp {
    uint8_t *base[3];
    uint32_t *pred;
    Cta *cta;
    const Op *code;
    OpCount *count;
    Split split[LANES];
    int nsplit;
    uint32_t pc, mask, live, started, carry;
    uint32_t id, sync;         /* sync: number of bar.warp.sync so far */
    uint64_t steps, quantum;
    uint32_t
        known[MAX_WARPS]; /* tick up to which each other warp's actions are ordered before us */
    uint32_t ordered_upto;     /* launches up to this id are complete and visible */
    uint8_t at_barrier, done, released, loads;
    AsyncCopy *async;
    int nasync, cap_async;
    uint32_t group;
    uint8_t *local;            /* [lane][local_bytes] */
    uint8_t *local_init;
    uint8_t *call;             /* [lane][call_bytes]: .param space of a call */
    uint32_t *undef_init;      /* lanes written, per maybe-undefined register */
};

typedef struct {
    uint32_t need, threads, arrived, waiting;   /* threads needed (0: all), warp masks */
    uint32_t pc, popc, all, any;                /* first arrival's pc; reductions */
    uint32_t last_popc, last_all, last_any;
    uint32_t stamp[MAX_WARPS];                  /* tick of each arrival */
} NamedBarrier;

struct Cta {
    Launch *l;
    uint32_t id[3], linear;
    uint32_t nwarps, nthreads, ver, tick, full_tick;
    uint8_t *shared;
    uint32_t shared_bytes, dyn_index;
    SWord *shadow;
    Warp *warps;
    NamedBarrier bar[16];
    uint64_t *acquired;        /* bit per block whose released writes we may read */
    uint8_t fenced, failed;
};

struct Launch {
    uint32_t id;
    int device;
    Func *f;
    uint32_t grid[3], block[3], dyn_shared, nctas;
    uint8_t *params;
    uint32_t ordered_upto;     /* ids up to here are ordered before this launch */
    uint32_t pdl_base; /* ids from here on may still be running before griddepcontrol.wait */
    OpCount *count;
    uint64_t steps, loaders;   /* loaders: warps that read global memory */
    int failed;                /* CUresult */
};

/* ---- settings (environment, read once; see README.md) -------------------------------------- */

enum { ORDER_FORWARD, ORDER_REVERSE, ORDER_RANDOM };
enum { MMA_FMA, MMA_BLOCK, MMA_REVERSE };
typedef struct {
    bool checks, counters, waits, l2, perturb, verbose, once;
    int order, mma, ptx, devices, exit_code, fail_graph, fail_kernel;
    uint64_t seed, max_steps, big_alloc, memory;   /* README.md: GPUSIM_BIG, GPUSIM_MEMORY */
    const char *device, *report, *allow;
} Settings;
extern Settings settings;
void settings_read(void);
/* One setting by its name without the prefix, in lower case; -1 when unknown. */
int settings_set(const char *name, const char *value);
uint64_t settings_random(void);

/* ---- ptx_parse.c, ptx_inst.c, ptx_cfg.c ----------------------------------------------------- */

/* Parses NUL-terminated PTX. Global variables are allocated on the device (mem.c).
 * Returns NULL and fills err (kernel, PTX line, what) on anything not understood. */
Module *ptx_parse(const char *text, char *err, size_t errlen);
void ptx_free(Module *m);
void *ptx_own(Module *m, size_t bytes);

/* Marks the operations of f at which a warp waits for global memory (trips.c). False: no memory. */
bool ptx_trips(Func *f);

/* ---- exec --------------------------------------------------------------------------------- */

/* Runs one launch to its end. Returns a CUresult (0, 700 illegal address, 716 misaligned, ...). */
int exec_launch(Launch *l);
static inline void *at(const Warp *w, Opnd o) { return w->base[o.base] + o.off; }
static inline uint32_t pred_of(const Warp *w, Opnd o) {
    return o.neg ? ~w->pred[o.off] : w->pred[o.off];
}
/* The 32 addresses base register + displacement. */
void exec_addresses(const Warp *w, const Op *op, Opnd base, uint64_t *addr);

#endif
