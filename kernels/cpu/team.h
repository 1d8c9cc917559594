/* team.h: the CPU backend's threads. One team per backend, asleep unless an op is running.
 *
 * Why not OpenMP: its barriers either spin for milliseconds, which under two competing processes
 * made the golden suite 8 times slower on 2 threads than on 1 (SPEED.md), or sleep at every region.
 * This team spins for a bounded time and then sleeps, and the caller never waits for a thread that
 * has not taken an item. */
#ifndef VL_TEAM_H
#define VL_TEAM_H

#include "common/common.h"

typedef struct cpu_team cpu_team;
typedef void cpu_item_fn(void *arg, int item, int thread);

int cpu_team_open(cpu_team **out, int threads, vl_err *err); /* threads >= 1, the caller included */
void cpu_team_close(cpu_team *t);
/* How often a thread looks for work before it sleeps (at first 4000: some 40 to 100 microseconds). */
void cpu_team_spins(cpu_team *t, int spins);
/* Calls fn(arg, item, thread) once for every item < n; items are handed out one by one, in order.
 * thread < threads is unique among calls that run at the same time; 0 is the caller. One run at a
 * time per team. */
void cpu_team_run(cpu_team *t, int n, cpu_item_fn *fn, void *arg);

#endif
