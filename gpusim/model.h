/* model.h: the L2 model, totals per kernel, and the prediction of times (gpusim model v2). */
#ifndef MODEL_H
#define MODEL_H
#include "gpusim.h"
#include "gpusim_api.h"

/* Sectors (bits of mask) of one 128-byte line pass the L2; returns how many it did not have. */
int model_l2(uint64_t line, uint32_t mask, bool write);
/* Before a launch: the L2 counters of the launch start at 0 (its content stays). */
void model_begin(void);
/* What a finished launch did and its predicted time, without the overhead of launching. */
gpusim_kernel model_measure(const Launch *l);
/* Adds one launch to its kernel's totals; returns its predicted time in microseconds, launch
 * overhead (from a stream, from a graph, overlapped by PDL) included. */
enum { FROM_STREAM, FROM_GRAPH, FROM_PDL };
double model_add(const gpusim_kernel *k, int from);
/* The same for work without a kernel (cuBLAS): FLOP and bytes at a fixed share of the peaks. */
double model_host_work(const char *name, double flops, double bytes);
/* A copy over PCIe (host) or within the device, in predicted microseconds; it has a row in the
 * totals, with no blocks. */
double model_copy(const char *name, uint64_t bytes, bool host);
/* Blocks of f per SM of the current device. */
int model_occupancy(const Func *f, uint32_t threads, uint32_t dyn_shared);
/* What the cubin of the current device (or the nearest older one) says of f; never NULL. */
const CubinInfo *model_cubin(const Func *f);
/* Writes GPUSIM_REPORT (JSON) if it is set. */
void model_write_report(void);
#endif
