/* trips.c: where a warp waits for global memory.
 *
 * A load does not stop a warp; the first operation that reads its result does. All loads that are under
 * way by then are taken to come with it, so a row of loads before the first use is one wait (a "trip"),
 * and a load that is used at once is one each time. Found once for each function, by
 * walking its blocks with the set of results that may still be under way; the counters of a launch
 * then say how often each wait happened. A move waits for nothing: ptxas removes it. In the order of the PTX: ptxas may begin loads earlier. */
#include "exec.h"
#include "gpusim.h"
#include <stdlib.h>
#include <string.h>

enum { SLOT = 128 };           /* bytes of a register slot (ptx_cfg.c) */

typedef struct {
    Func *f;
    size_t slots;
    int32_t *at;               /* [leaders][slots]: load + 1 whose result is under way, or 0 */
    int *block_of;             /* block of each leading operation */
} Trips;

/* One operation on the set. Marks it when it waits. */
static void step(const Trips *t, int i, int32_t *way) {
    Op *op = &t->f->code[i];
    int32_t from = 0;
    for (int k = 0; k < op->n; k++)
        if (op->o[k].base == BASE_REG && !op->o[k].dst && way[op->o[k].off / SLOT] > from)
            from = way[op->o[k].off / SLOT];
    bool move = op->cls == C_MOVE, load = op->cls == C_LDG || op->cls == C_ATOM;
    op->waits = op->oldest = move ? 0 : from;
    for (size_t s = 0; op->waits && s < t->slots; s++) {
        if (way[s] && way[s] < op->oldest) op->oldest = way[s];
        way[s] = 0;
    }
    for (int k = 0; k < op->n; k++)
        if (op->o[k].base == BASE_REG && op->o[k].dst) way[op->o[k].off / SLOT] = load ? i + 1 : move ? from : 0;
}

/* Adds a set to that at the start of block k; true: it grew. */
static bool flow(const Trips *t, int k, const int32_t *way) {
    int32_t *to = t->at + (size_t)k * t->slots;
    bool grew = false;
    for (size_t s = 0; s < t->slots; s++)
        if (way[s] > to[s]) to[s] = way[s], grew = true;
    return grew;
}

/* From the leader at i to the next one, and on to where the block leads. */
static bool walk(const Trips *t, int i, int32_t *way) {
    const Func *f = t->f;
    bool grew = false;
    memcpy(way, t->at + (size_t)t->block_of[i] * t->slots, t->slots * sizeof *way);
    do step(t, i, way);
    while (++i < f->ncode && !f->code[i].leader);
    const Op *last = &f->code[i - 1];
    bool leaves = last->fn == exec_bra || last->fn == exec_brx || last->fn == exec_exit;
    if (last->fn == exec_bra) grew |= flow(t, t->block_of[last->target], way);
    for (int k = 0; last->fn == exec_brx && k < last->imm; k++)
        grew |= flow(t, t->block_of[last->targets[k]], way);
    if ((!leaves || last->pred >= 0) && i < f->ncode) grew |= flow(t, t->block_of[i], way);
    return grew;
}

bool ptx_trips(Func *f) {
    Trips t = {.f = f, .slots = f->reg_bytes / SLOT + 1};
    int blocks = 0;
    t.block_of = calloc((size_t)f->ncode + 1, sizeof *t.block_of);
    for (int i = 0; t.block_of && i < f->ncode; i++)
        if (i == 0 || f->code[i].leader) t.block_of[i] = blocks++;
    t.at = calloc((size_t)(blocks + 1) * t.slots, sizeof *t.at);
    int32_t *way = calloc(t.slots, sizeof *way);
    bool ok = t.block_of && t.at && way;
    for (bool grew = ok; grew;) {
        grew = false;
        for (int i = 0; i < f->ncode; i++)
            if (i == 0 || f->code[i].leader) grew |= walk(&t, i, way);
    }
    free(t.block_of);
    free(t.at);
    free(way);
    return ok;
}
