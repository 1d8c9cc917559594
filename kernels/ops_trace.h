/* ops_trace.h: reading what the trace decorator of ops.h collected. */
#ifndef VL_OPS_TRACE_H
#define VL_OPS_TRACE_H

#include "kernels/ops.h"

/* One line per op and shape class (op, matrix with its layer number taken out, rows). */
typedef struct vl_trace_row {
    char op[24], what[96];
    int rows, cols, inner;         /* of the last call: out [rows, cols], inner sum          */
    uint64_t calls;
    double seconds, bytes, flops;  /* totals */
} vl_trace_row;

/* The rows, slowest first, and the wall time since the last reset; valid until the next op. */
size_t vl_trace_rows(vl_backend *trace, const vl_trace_row **rows, double *wall);
void vl_trace_reset(vl_backend *trace);
/* Share of the roof a row reached, in percent: ideal / measured time, where the ideal is the slower of
 * its arithmetic and its memory traffic at the peaks of peaks.h (GFLOP/s, GB/s). */
double vl_trace_percent(const vl_trace_row *row, double fma_gflops, double read_gbs);

#endif
