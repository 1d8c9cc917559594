/* gpusim_api.h: what libcuda.so.1 of gpusim exports beside the driver API, for tests and tools.
 * Look the names up with dlsym; a real driver does not have them. GPUSIM_TYPES_ONLY leaves the
 * prototypes out, for users whose function pointers have the same names. */
#ifndef GPUSIM_API_H
#define GPUSIM_API_H
#include <stdint.h>

/* One finding; equal ones (rule, kernel, line, other line) are counted, not repeated. */
typedef struct {
    const char *rule, *kernel, *file, *other_file;
    uint32_t line, other_line;            /* of the .cu file; 0 = unknown */
    uint32_t caller_line;                 /* where the function of `line` was inlined, or 0 */
    uint32_t block[3], warp, lane;
    uint64_t address, count;
    const char *message;
} gpusim_report;

/* Totals of all launches of one kernel. Every time is "predicted (gpusim model v2)". */
typedef struct {
    const char *kernel;
    uint64_t launches, blocks, warp_instructions, thread_instructions;
    uint64_t class_count[32];             /* warp instructions by class, see gpusim_class_name */
    /* global memory: bytes counts what every lane asked for, used each byte once: used / (32 *
     * sectors) is the sector efficiency */
    uint64_t load_requests, load_sectors, load_bytes, load_used;
    uint64_t store_requests, store_sectors, store_bytes, store_used;
    /* of the loads: those from allocations over GPUSIM_BIG that nothing has written since the
       counters were reset, which is what weights look like */
    uint64_t weight_sectors, weight_used;
    uint64_t shared_requests, shared_wavefronts, shared_ideal;
    uint64_t l2_hits, l2_misses, dram_bytes;               /* sectors of 32 bytes; bytes */
    uint64_t mma_flops, divergent_branches;
    double trips;                         /* of a warp to memory and back, one after the other, on average */
    uint32_t registers, stack_bytes, shared_bytes, threads, blocks_per_sm;
    double occupancy;                     /* resident warps / the SM's limit */
    double predicted_us, roof_us;         /* sums over the launches; roof: DRAM bytes or mma FLOP at
                                             the data sheet's rate, whichever takes longer */
    const char *limiter;                  /* resource that decides the last launch */
} gpusim_kernel;

#ifndef GPUSIM_TYPES_ONLY
int gpusim_report_count(void);
const gpusim_report *gpusim_report_at(int i);
void gpusim_reset_reports(void);
int gpusim_kernel_count(void);
const gpusim_kernel *gpusim_kernel_at(int i);
/* Totals and the L2 model start anew: nothing is cached. */
void gpusim_reset_counters(void);
/* Runs everything that was enqueued, as if the host had waited for it. A CUresult. */
int gpusim_finish(void);
/* "gpusim model vN": what made the predictions. */
const char *gpusim_version(void);
/* The constants behind them, in words. */
const char *gpusim_assumptions(void);
/* The device this process sees. mma_share: of the tensor peak, what mma.sync is assumed to reach. */
typedef struct {
    const char *key, *name;
    int cc, sms, mhz;
    double gbs, l2_mb, tensor_tflops, mma_share;
} gpusim_device;
gpusim_device gpusim_device_now(void);
const char *gpusim_class_name(int cls);
/* The lane-wise forms ('.' written as '_'), their source count and widths (destination first; 1: a
 * predicate). NULL after the last. */
const char *gpusim_form_at(int i, int *nsrc, const unsigned char **width);
/* For libcublas.so.13: runs fn on a copy of arg in stream order (also when captured in a graph) and
 * counts flops and bytes moved under `name`. Returns a CUresult. */
typedef struct { const char *name; void (*fn)(void *arg); double flops, traffic; } gpusim_work;
int gpusim_submit(void *stream, const gpusim_work *work, const void *arg, uint64_t arg_bytes);
/* Inside such a fn: host view of device memory, checked like a kernel's access; NULL if invalid. */
void *gpusim_memory(uint64_t addr, uint64_t bytes, int write);
/* For libnccl.so.2. A clique is n ranks; a part is what one brings to an all-gather: `bytes` bytes at
 * send go to all ranks, n times as many come to recv, by rank. The k-th parts of all ranks belong
 * together, and the work is done when the streams of all have come to it. */
typedef struct { const char *name; uint64_t send, recv, bytes; } gpusim_part;
void *gpusim_clique(int n);
int gpusim_clique_nodes(void *clique, int rank); /* parts of a rank that are nodes of live graphs */
void gpusim_clique_abort(void *clique);          /* nothing waits for other ranks any more */
int gpusim_meet(void *clique, int rank, void *stream, const gpusim_part *part);
/* The device that owns this memory; -1: not in one live allocation. That of a stream; -1: none. */
int gpusim_device_of(uint64_t addr, uint64_t bytes);
int gpusim_stream_device(void *stream);
/* Adds a finding about `what`. */
void gpusim_finding(const char *rule, const char *what, const char *text);
/* Compute capability of the device, e.g. 80. */
int gpusim_capability(void);
/* Changes a setting at run time: "order", "mma", "perturb", "seed", "checks", "once". */
int gpusim_set(const char *name, const char *value);
#endif
#endif
