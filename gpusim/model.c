/* model.c: gpusim model v2: L2, occupancy, totals per kernel, predicted times.
 *
 * time = overhead + max(ramp, work of the busiest resource / its rate). Resources: DRAM bytes that
 * miss the L2 model, L2 bytes, shared wavefronts and global requests per SM and clock, mma FLOP,
 * fp32 and MUFU lanes, issue slots, and memory latency: the waits of a warp for loads (trips.c), one
 * after the other, for every wave of blocks. Work on SMs is stretched by the last partial wave. PTX
 * moves count as free: ptxas removes them. (v1 had no latency, but bounded DRAM by bytes in flight,
 * taking 4 loads of a kernel's average width for every kernel.)
 * The constants below are assumptions from the literature, to be replaced by a first measurement.
 */
#include "model.h"
#include "check.h"
#include "exec.h"
#include "gpus.h"
#include "mem.h"
#include "report.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
enum { WAYS = 16, MAX_KERNELS = 512 };
static const double overhead_us[] = {2.5, 1.3, 0.7}, ramp_us = 1.5;
static const double dram_share = 0.88, l2_share = 1.0, dram_latency_s = 650e-9, l2_latency_s = 250e-9;
static const double pcie_gbs = 25, cublas_share = 0.78;

/* ---- the L2: 128-byte lines of four sectors, 16 ways, least recently used ---- */

typedef struct { uint64_t line; uint32_t used; uint8_t valid, dirty; } Line;
static Line *l2;
static uint64_t sets;
static uint32_t now;
static const Gpu *l2_of;
static struct { uint64_t hits, misses, bytes; } traffic;

static void l2_start(const Gpu *g) {
    if (l2_of == g) return;
    free(l2);
    sets = (uint64_t)(g->l2_mb * 1048576) / 128 / WAYS;
    l2 = calloc(sets * WAYS, sizeof *l2);
    l2_of = l2 ? g : NULL;
}

int model_l2(uint64_t line, uint32_t mask, bool write) {
    if (!l2) return 0;
    Line *set = &l2[line % sets * WAYS], *at = set;
    for (int i = 0; i < WAYS; i++) {
        if (set[i].valid && set[i].line == line) { at = &set[i]; break; }
        if (set[i].used < at->used) at = &set[i];
    }
    if (!at->valid || at->line != line) {
        traffic.bytes += 32u * (uint64_t)__builtin_popcount(at->dirty);
        *at = (Line){.line = line};
    }
    uint32_t miss = write ? 0 : mask & ~at->valid;
    traffic.hits += (uint64_t)__builtin_popcount(mask & at->valid);
    int missed = __builtin_popcount(mask & ~(uint32_t)at->valid);
    traffic.misses += (uint64_t)missed;
    traffic.bytes += 32u * (uint64_t)__builtin_popcount(miss);
    at->valid |= (uint8_t)mask;
    if (write) at->dirty |= (uint8_t)mask;
    at->used = ++now;
    return missed;
}

void model_begin(void) {
    l2_start(gpu_now());
    memset(&traffic, 0, sizeof traffic);
}

/* ---- what the cubin says ---- */

const CubinInfo *model_cubin(const Func *f) {
    static const CubinInfo unknown = {.regs = 32};
    int cc = gpu_now()->cc;
    const CubinInfo *best = NULL;
    for (int i = 0; i < f->ncubin; i++) {
        const CubinInfo *c = &f->cubin[i];
        if (c->sm <= cc && c->regs && (!best || c->sm > best->sm)) best = c;
    }
    return best ? best : f->ncubin ? &f->cubin[0] : &unknown;
}

int model_occupancy(const Func *f, uint32_t threads, uint32_t dyn_shared) {
    const Gpu *g = gpu_now();
    int warps = (int)(threads + 31) / 32, regs = model_cubin(f)->regs;
    int per_warp = (regs * 32 + 255) / 256 * 256;
    int n = g->blocks_sm, by_threads = g->threads_sm / (warps * 32);
    int by_regs = per_warp ? 65536 / per_warp / warps : n;
    uint32_t unit = g->cc >= 80 ? 128 : 256;
    uint32_t shared = dyn_shared + f->static_shared + (g->cc >= 80 ? 1024 : 0);
    shared = (shared + unit - 1) / unit * unit;
    int by_shared = shared ? g->shared_sm * 1024 / (int)shared : n;
    n = by_threads < n ? by_threads : n;
    n = by_regs < n ? by_regs : n;
    return by_shared < n ? by_shared : n;
}

/* ---- totals and times ---- */

static gpusim_kernel kernels[MAX_KERNELS];
static int nkernels;

static gpusim_kernel *kernel_of(const char *name) {
    for (int i = 0; i < nkernels; i++)
        if (!strcmp(kernels[i].kernel, name)) return &kernels[i];
    if (nkernels == MAX_KERNELS) return &kernels[MAX_KERNELS - 1];
    kernels[nkernels] = (gpusim_kernel){.kernel = name, .limiter = ""};
    return &kernels[nkernels++];
}

/* Adds one operation's counts. Moves that the layout put in do not exist on a GPU. */
static void add_op(gpusim_kernel *k, const Op *op, const OpCount *n) {
    if (op->text[0] == '(') return;
    k->warp_instructions += n->exec;
    k->thread_instructions += n->lanes;
    k->class_count[op->cls] += n->exec;
    k->divergent_branches += n->diverged;
    if (op->cls == C_LDG || op->cls == C_ASYNC) {
        k->load_requests += op->fn == exec_cp_commit || op->fn == exec_cp_wait ? 0 : n->exec;
        k->load_sectors += n->sectors;
        k->load_bytes += n->bytes;
        k->load_used += n->used;
        k->weight_sectors += n->weight_sectors;
        k->weight_used += n->weight_used;
    }
    if (op->cls == C_STG || op->cls == C_ATOM) {
        k->store_requests += n->exec;
        k->store_sectors += n->sectors;
        k->store_bytes += n->bytes;
        k->store_used += n->used;
    }
    if (n->wavefronts) {
        k->shared_requests += n->exec;
        k->shared_wavefronts += n->wavefronts;
        k->shared_ideal += n->ideal;
    }
    if (op->cls == C_MMA) k->mma_flops += n->exec * 2 * 16 * 8 * (uint64_t)op->imm;
}

/* Seconds that a load takes to come back, by how often the L2 did not have its sectors. */
static double latency(uint64_t missed, uint64_t sectors) {
    double share = sectors ? (double)missed / (double)sectors : 0;
    return l2_latency_s + share * (dram_latency_s - l2_latency_s);
}

/* GPUSIM_WAITS: where a warp waits, for whoever wants fewer of them. */
static void say_wait(const Launch *l, const Op *op, double times, double seconds) {
    const char *of = op->waits ? l->f->code[op->waits - 1].text : "";
    if (!settings.waits || times < 0.01) return;
    fprintf(stderr, "gpusim: %s waits %.2f x %.0f ns at op %d, line %u: %s <- %s\n", l->f->name, times, seconds * 1e9,
            (int)(op - l->f->code), op->loc[0].line, op->text, of);
}

/* Seconds that a warp waits for memory, and how often: on average of those that read it at all, since blocks
 * and warps with something else to do shorten nobody's wait. A wait for cp.async that leaves n
 * groups under way has had n turns of the loop to come; one that nothing was left for costs nothing. */
static double waiting(const Launch *l, double *trips) {
    double all = 0, times = 0, warps = fmax(1, (double)l->loaders);
    uint64_t missed = 0, sectors = 0;
    for (int i = 0; l->count && i < l->f->ncode; i++)
        if (l->f->code[i].fn == exec_cp_async) missed += l->count[i].missed, sectors += l->count[i].sectors;
    for (int i = 0; l->count && i < l->f->ncode; i++) {
        const Op *op = &l->f->code[i];
        const OpCount *from = op->waits ? &l->count[op->waits - 1] : NULL;
        double n = (double)l->count[i].exec, share = 1;
        if (op->fn == exec_cp_wait) n = (double)l->count[i].landed, share = 1 / (double)(op->imm + 1);
        else if (!from) continue;
        times += n * share;
        double s = from ? latency(from->missed, from->sectors) : latency(missed, sectors);
        if (from) from = &l->count[op->oldest - 1], s = fmax(s, latency(from->missed, from->sectors));
        all += n * share * s;
        say_wait(l, op, n * share / warps, s);
    }
    *trips = times / warps;
    return all / warps;
}

typedef struct { const char *name; double seconds; bool per_sm; } Resource;

/* Longest resource time of one launch, in seconds; names it. */
static double busiest(gpusim_kernel *k, const Launch *l, const char **name) {
    const Gpu *g = gpu_now();
    double hz = g->mhz * 1e6, sm = g->sms * hz, blocks = l->nctas;
    int per_sm = k->blocks_per_sm ? (int)k->blocks_per_sm : 1;
    double rounds = fmax(1, blocks / ((double)g->sms * per_sm));
    const Resource r[] = {
        {"DRAM", (double)k->dram_bytes / (g->gbs * 1e9 * dram_share), false},
        {"latency", rounds * waiting(l, &k->trips), false},
        {"L2", 32.0 * (double)(k->load_sectors + k->store_sectors) / (g->l2_gbs * 1e9 * l2_share),
         false},
        {"shared/LSU", (double)(k->shared_wavefronts + k->load_requests + k->store_requests) / sm,
         true},
        {"tensor", (double)k->mma_flops / (sm * g->tensor * g->mma_share), true},
        {"fp32", 32.0 * (double)k->class_count[C_FP32] / (sm * g->fp32), true},
        {"MUFU", 32.0 * (double)k->class_count[C_MUFU] / (sm * 16), true},
        {"issue", (double)(k->warp_instructions - k->class_count[C_MOVE]) / (sm * 4), true},
    };
    double waves = ceil(blocks / g->sms) * g->sms / blocks, worst = 0;
    *name = "launch";
    for (size_t i = 0; i < sizeof r / sizeof *r; i++) {
        double t = r[i].seconds * (r[i].per_sm ? waves : 1);
        if (t <= worst) continue;
        worst = t;
        *name = r[i].name;
    }
    return worst;
}

static void accumulate(gpusim_kernel *to, const gpusim_kernel *x) {
    to->launches++;
    to->blocks += x->blocks;
    to->warp_instructions += x->warp_instructions;
    to->thread_instructions += x->thread_instructions;
    for (int i = 0; i < 32; i++) to->class_count[i] += x->class_count[i];
    to->load_requests += x->load_requests;
    to->load_sectors += x->load_sectors;
    to->load_bytes += x->load_bytes;
    to->load_used += x->load_used;
    to->weight_sectors += x->weight_sectors;
    to->weight_used += x->weight_used;
    to->store_requests += x->store_requests;
    to->store_sectors += x->store_sectors;
    to->store_bytes += x->store_bytes;
    to->store_used += x->store_used;
    to->shared_requests += x->shared_requests;
    to->shared_wavefronts += x->shared_wavefronts;
    to->shared_ideal += x->shared_ideal;
    to->l2_hits += x->l2_hits;
    to->l2_misses += x->l2_misses;
    to->dram_bytes += x->dram_bytes;
    to->mma_flops += x->mma_flops;
    to->divergent_branches += x->divergent_branches;
    to->trips = x->trips;
    to->registers = x->registers;
    to->stack_bytes = x->stack_bytes;
    to->shared_bytes = x->shared_bytes;
    to->threads = x->threads;
    to->blocks_per_sm = x->blocks_per_sm;
    to->occupancy = x->occupancy;
    to->predicted_us += x->predicted_us;
    to->roof_us += x->roof_us;
    to->limiter = x->limiter;
}

gpusim_kernel model_measure(const Launch *l) {
    const Gpu *g = gpu_now();
    const CubinInfo *c = model_cubin(l->f);
    gpusim_kernel k = {.kernel = l->f->name, .blocks = l->nctas, .l2_hits = traffic.hits,
                       .l2_misses = traffic.misses, .dram_bytes = traffic.bytes};
    for (int i = 0; l->count && i < l->f->ncode; i++) add_op(&k, &l->f->code[i], &l->count[i]);
    k.registers = (uint32_t)c->regs;
    k.stack_bytes = (uint32_t)c->frame;
    k.shared_bytes = l->f->static_shared + l->dyn_shared;
    k.threads = l->block[0] * l->block[1] * l->block[2];
    k.blocks_per_sm = (uint32_t)model_occupancy(l->f, k.threads, l->dyn_shared);
    k.occupancy = (double)(k.blocks_per_sm * ((k.threads + 31) / 32) * 32) / g->threads_sm;
    k.predicted_us = fmax(busiest(&k, l, &k.limiter) * 1e6, ramp_us);
    k.roof_us = 1e6 * fmax((double)k.dram_bytes / (g->gbs * 1e9),
                           (double)k.mma_flops / (g->sms * g->mhz * 1e6 * g->tensor));
    return k;
}

double model_add(const gpusim_kernel *k, int from) {
    gpusim_kernel one = *k;
    one.predicted_us += overhead_us[from];
    accumulate(kernel_of(k->kernel), &one);
    return one.predicted_us;
}

double model_host_work(const char *name, double flops, double bytes) {
    const Gpu *g = gpu_now();
    double t = fmax(flops / (g->sms * g->mhz * 1e6 * g->tensor), bytes / (g->gbs * 1e9));
    gpusim_kernel k = {.kernel = name, .mma_flops = (uint64_t)flops, .dram_bytes = (uint64_t)bytes,
                       .predicted_us = overhead_us[0] + fmax(ramp_us, 1e6 * t / cublas_share),
                       .roof_us = 1e6 * t, .limiter = "fixed share"};
    accumulate(kernel_of(name), &k);
    return k.predicted_us;
}

double model_copy(const char *name, uint64_t bytes, bool host) {
    double us = 1e-3 * (double)bytes / (host ? pcie_gbs : gpu_now()->gbs / 2);
    gpusim_kernel k = {.kernel = name, .store_bytes = bytes, .predicted_us = us + ramp_us,
                       .roof_us = us, .limiter = host ? "PCIe" : "DRAM"};
    accumulate(kernel_of(name), &k);
    return k.predicted_us;
}

EXPORT const char *gpusim_assumptions(void) {
    static char text[700];
    snprintf(text, sizeof text,
             "A launch costs %.1f us from a stream, %.1f us from a graph, %.1f us behind a programmatic "
             "dependent one, then at least %.1f us. DRAM delivers %.0f %% of the data sheet's rate; "
             "a warp waits %.0f ns for it and %.0f ns for the L2, once for all loads it has under way. mma.sync "
             "reaches the share of the tensor peak that the table gives. A kernel takes as long as its "
             "busiest resource; its last wave of blocks counts as full. PCIe: %.0f GB/s. Every "
             "constant is from data sheets or the literature; no GPU has been compared.",
             overhead_us[FROM_STREAM], overhead_us[FROM_GRAPH], overhead_us[FROM_PDL], ramp_us,
             100 * dram_share, dram_latency_s * 1e9, l2_latency_s * 1e9, pcie_gbs);
    return text;
}

EXPORT int gpusim_kernel_count(void) { return nkernels; }
EXPORT const gpusim_kernel *gpusim_kernel_at(int i) {
    return i >= 0 && i < nkernels ? &kernels[i] : NULL;
}
EXPORT void gpusim_reset_counters(void) {
    nkernels = 0;
    mem_period++;
    if (l2) memset(l2, 0, sets * WAYS * sizeof *l2);
}

void model_write_report(void) {
    if (*settings.report) report_write(settings.report, kernels, nkernels);
}
