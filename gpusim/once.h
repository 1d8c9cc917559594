/* once.h: GPUSIM_ONCE=1: of equal launches only the first runs, the others are counted like it.
 *
 * Equal: kernel, grid, block, dynamic shared memory and parameters, where two pointers into device
 * memory are equal when they lie alike within 128 bytes. So a model of 28 equal layers costs one.
 * Counters are those of a full run as long as what a kernel reads from memory and branches on (a
 * length, a table) is the same in equal launches; results are not: this is for reports on models of
 * zeros, with GPUSIM_CHECKS=0.
 * What the L2 holds is what the launches that did run left there. */
#ifndef ONCE_H
#define ONCE_H
#include "gpusim.h"
#include "gpusim_api.h"

/* The counters of an equal launch before, or NULL. */
const gpusim_kernel *once_find(const Launch *l);
void once_keep(const Launch *l, const gpusim_kernel *k);
#endif
