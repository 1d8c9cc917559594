/* program.c: launches on their way to the driver.
 *
 * A launch is kept, with the values of its arguments, until something waits for it or changes what
 * it reads (get, put, sync, a buffer that grows). What was kept by then is a program. A program whose
 * kernels and grids were seen before becomes a CUDA graph, and is one driver call from then on: the
 * model knows nothing of it. Arguments may differ from run to run; those nodes get new ones.
 *   - a decode step: tokens, positions and lengths are read on the device, and the grid follows the
 *     longest row only by powers of two (ops_cuda.c), so one graph serves a bucket of KV lengths;
 *   - the vision tower: one graph for each picture grid (or each step of it between decode steps).
 * The ranks of a group (group.h) go in step: a collective is one of the calls of each, and is handed
 * over for all at once; one that only some ranks start would never end.
 * The least recently used of CUDA_GRAPHS programs makes room. VL_CUDA_GRAPH=0: every launch goes to
 * the stream, in the same order with the same arguments, so the bits are the same. */
#include <stdlib.h>

#include "kernels/cuda/group.h"

enum { GRAPH_MIN = 4 };        /* launches below which a graph saves nothing */

static const char *const KERNEL_NAME[] = {
#define X(name) "vl_" #name,
    CUDA_KERNELS(X)
#undef X
    [CUDA_GEMM] = "cublasGemmEx", [CUDA_GATHER] = "ncclAllGather",
};

/* ---- opening ---------------------------------------------------------------------------------- */

int cuda_program_open(cuda_backend *b, vl_err *err) {
    const cuda_driver *d = &b->d;
    const char *graphs = getenv("VL_CUDA_GRAPH");
    if (graphs && strcmp(graphs, "0") && strcmp(graphs, "1"))
        return vl_fail(err, VL_E_USAGE, "VL_CUDA_GRAPH=%s: expected 0 or 1", graphs);
    b->use_graphs = !graphs || *graphs == '1';
    b->program.call = vl_calloc(CUDA_CALLS_MAX, sizeof *b->program.call);
    b->program.values = vl_calloc(CUDA_CALLS_MAX, CUDA_CALL_BYTES);
    if (!b->program.call || !b->program.values) return vl_fail(err, VL_E_NOMEM, "no memory for launches");
    if (cuda_check(d, d->ModuleLoad(&b->module, cuda_image, 0, NULL, NULL), "loading the kernels", err))
        return -1;
    for (int i = 0; i < CUDA_KERNEL_COUNT; i++)
        if (cuda_check(d, d->ModuleGetFunction(&b->kernel[i], b->module, KERNEL_NAME[i]),
                       KERNEL_NAME[i], err))
            return -1;
    return 0;
}

static void drop_graph(cuda_backend *b, cuda_graph *g) {
    if (g->exec) b->d.GraphExecDestroy(g->exec);
    free(g->program.call);
    free(g->program.values);
    free(g->node);
    *g = (cuda_graph){0};
}

void cuda_drop_graphs(cuda_backend *b) {
    b->d.CtxSetCurrent(b->context);
    for (int i = 0; i < CUDA_GRAPHS; i++) drop_graph(b, &b->graph[i]);
}

void cuda_program_close(cuda_backend *b) {
    cuda_drop_graphs(b);
    free(b->program.call);
    free(b->program.values);
    if (b->module) b->d.ModuleUnload(b->module);
}

/* ---- launching -------------------------------------------------------------------------------- */

unsigned cuda_shared(const cuda_backend *b, cuda_kernel k) {
    bool old = b->arch < CUDA_BF16_UNITS;
#define SHARED(O) \
    if (k == K_many_##O || (k == K_gate_up_many && O == MANY_GATED)) \
        return (unsigned)((old ? MANY_STAGES_75 : MANY_STAGES(O)) * MANY_STAGE_BYTES(O));
    MANY_SHAPES(SHARED)
#undef SHARED
    return 0;
}

void cuda_launch(cuda_backend *b, cuda_kernel k, size_t gx, int gy, int gz, int threads,
                 const cuda_arg *args) {
    cuda_program *p = &b->program;
    vl_assert(gx <= INT32_MAX && gy <= 65535 && gz <= 65535, "%s: grid %zu x %d x %d", KERNEL_NAME[k],
              gx, gy, gz);
    if (!gx || !gy || !gz || b->fault.code) return;
    if (k != K_put) { /* which has a place left: cuda_full */
        if (cuda_full(b)) cuda_flush(b);
        cuda_puts_launch(b);
    }
    cuda_call *c = &p->call[p->calls++];
    *c = (cuda_call){.kernel = k, .grid = {(unsigned)gx, (unsigned)gy, (unsigned)gz},
                     .threads = (unsigned)threads, .shared = cuda_shared(b, k),
                     .at = (unsigned)p->bytes};
    for (; args[c->args].p; c->args++) {
        const cuda_arg *a = &args[c->args];
        vl_assert(c->args < CUDA_ARGS_MAX && c->bytes + a->bytes <= CUDA_CALL_BYTES,
                  "%s: too many arguments", KERNEL_NAME[k]);
        c->arg[c->args] = (uint16_t)c->bytes;
        memcpy(p->values + p->bytes + c->bytes, a->p, a->bytes);
        c->bytes += (unsigned)(a->bytes + 7) / 8 * 8;
    }
    p->bytes += c->bytes;
}

/* Pointers to the values of a call's arguments. */
static void arguments(void **to, const cuda_program *p, const cuda_call *c) {
    for (unsigned i = 0; i < c->args; i++) to[i] = p->values + c->at + c->arg[i];
}

/* A launch is early only behind a kernel of ours: what cuBLAS and NCCL put into a stream is their affair. */
static bool run_call(cuda_backend *b, const cuda_program *p, size_t i) {
    const cuda_driver *d = &b->d;
    const cuda_call *c = &p->call[i];
    if (c->kernel == CUDA_GEMM) return cuda_blas_run(b, (const void *)(p->values + c->at));
    bool early_launch = b->use_pdl && !(i && p->call[i - 1].kernel >= CUDA_KERNEL_COUNT);
    void *args[CUDA_ARGS_MAX];
    arguments(args, p, c);
    cuda_launch_attribute early = {.id = CU_PROGRAMMATIC_SERIALIZATION, .value.flag = 1};
    cuda_launch_config config = {{c->grid[0], c->grid[1], c->grid[2]}, {c->threads, 1, 1}, c->shared,
                                 b->stream, &early, 1};
    CUresult e = early_launch ? d->LaunchEx(&config, b->kernel[c->kernel], args, NULL)
                              : d->Launch(b->kernel[c->kernel], c->grid[0], c->grid[1], c->grid[2],
                                          c->threads, 1, 1, c->shared, b->stream, args, NULL);
    return cuda_ok(b, e, KERNEL_NAME[c->kernel]);
}

/* ---- graphs ----------------------------------------------------------------------------------- */

/* The program seen before with these kernels and grids; else a place for it, the oldest emptied. */
static cuda_graph *find_graph(cuda_backend *b, const cuda_program *p) {
    cuda_graph *oldest = &b->graph[0];
    for (int i = 0; i < CUDA_GRAPHS; i++) {
        cuda_graph *g = &b->graph[i];
        if (g->program.calls == p->calls && g->program.bytes == p->bytes &&
            !memcmp(g->program.call, p->call, p->calls * sizeof *p->call))
            return g;
        if (g->last_use < oldest->last_use) oldest = g;
    }
    drop_graph(b, oldest);
    return oldest;
}

/* Remembers the program; without memory it stays unknown. */
static void remember(cuda_graph *g, const cuda_program *p) {
    cuda_program mine = {vl_calloc(p->calls, sizeof *p->call), vl_calloc(p->bytes, 1), p->calls, p->bytes};
    g->node = vl_calloc(p->calls, sizeof(CUgraphNode));
    if (!mine.call || !mine.values || !g->node) {
        free(mine.call);
        free(mine.values);
        free(g->node);
        *g = (cuda_graph){0};
        return;
    }
    memcpy(mine.call, p->call, p->calls * sizeof *p->call);
    memcpy(mine.values, p->values, p->bytes);
    g->program = mine;
}

/* ---- one backend, or all ranks of a group in step -------------------------------------------------- */

typedef struct ranks { cuda_backend *const *b; int n; } ranks;

static bool make_current(cuda_backend *b) {
    return cuda_ok(b, b->d.CtxSetCurrent(b->context), "making the GPU context current");
}

/* The node that call i has just become. */
static bool note_node(cuda_backend *b, cuda_graph *g, size_t i) {
    int status;
    uint64_t id;
    CUgraph of;
    const CUgraphNode *last = NULL;
    size_t n = 0;
    bool ok = cuda_ok(b, b->d.CaptureInfo(b->stream, &status, &id, &of, &last, &n), "asking a capture");
    if (ok) g->node[i] = n == 1 ? last[0] : NULL;
    return ok;
}

/* The calls from *i on, up to the next collective or the end. g: they are being captured. */
static bool run_part(cuda_backend *b, size_t *i, cuda_graph *g) {
    const cuda_program *p = &b->program;
    if (!make_current(b)) return false;
    for (; *i < p->calls && p->call[*i].kernel != CUDA_GATHER; ++*i)
        if (!run_call(b, p, *i) || (g && !note_node(b, g, *i))) return false;
    return true;
}

/* Every rank up to a collective, then that of all, and so on. graph NULL: nothing is captured. */
static bool run_step(const ranks *k, cuda_graph *const *graph) {
    size_t at[CUDA_RANKS] = {0};
    for (;;) {
        bool more = false, ends = false;
        for (int r = 0; r < k->n; r++) {
            if (!run_part(k->b[r], &at[r], graph ? graph[r] : NULL)) return false;
            *(at[r] < k->b[r]->program.calls ? &more : &ends) = true;
        }
        vl_assert(!(more && ends), "%d ranks: not all have the same collectives", k->n);
        if (!more || !cuda_group_collective(k->b[0]->group, at)) return !more;
        for (int r = 0; r < k->n; r++) at[r]++;
    }
}

/* Captures each rank's program into its graph's exec and node. */
static bool capture(const ranks *k, cuda_graph *const *graph) {
    bool ok = true;
    int begun = 0;
    while (ok && begun < k->n) {
        cuda_backend *b = k->b[begun];
        ok = make_current(b) &&
             cuda_ok(b, b->d.BeginCapture(b->stream, CU_THREAD_LOCAL), "beginning a capture");
        begun += ok;
    }
    ok = ok && run_step(k, graph);
    for (int r = 0; r < begun; r++) {
        cuda_backend *b = k->b[r];
        CUgraph made = NULL;
        CUresult e = b->d.EndCapture(b->stream, &made);
        ok = ok && cuda_ok(b, e, "ending a capture") && make_current(b) &&
             cuda_ok(b, b->d.GraphInstantiate(&graph[r]->exec, made, 0), "instantiating a graph");
        if (made) b->d.GraphDestroy(made);
        memcpy(graph[r]->program.values, b->program.values, b->program.bytes);
    }
    return ok;
}

static bool changed(const cuda_graph *g, const cuda_program *p, const cuda_call *c) {
    return memcmp(g->program.values + c->at, p->values + c->at, c->bytes) != 0;
}

/* Must the program be captured (anew)? The nodes of cuBLAS and NCCL take no new arguments. */
static bool stale(const cuda_graph *g, const cuda_program *p) {
    for (size_t i = 0; i < p->calls; i++)
        if (p->call[i].kernel >= CUDA_KERNEL_COUNT && changed(g, p, &p->call[i])) return true;
    return !g->exec;
}

/* Gives the nodes whose arguments changed their new ones. */
static bool update(cuda_backend *b, cuda_graph *g) {
    const cuda_program *p = &b->program;
    for (size_t i = 0; i < p->calls; i++) {
        const cuda_call *c = &p->call[i];
        if (!changed(g, p, c)) continue;
        void *args[CUDA_ARGS_MAX];
        arguments(args, p, c);
        cuda_node_params n = {.function = b->kernel[c->kernel], .block = {c->threads, 1, 1}, .shared = c->shared, .args = args,
                              .grid = {c->grid[0], c->grid[1], c->grid[2]}};
        if (!cuda_ok(b, b->d.GraphSetParams(g->exec, g->node[i], &n), "updating a graph")) return false;
        memcpy(g->program.values + c->at, p->values + c->at, c->bytes);
    }
    return true;
}

static bool run_graphs(const ranks *k, cuda_graph *const *graph) {
    bool anew = false, ok = true;
    for (int r = 0; r < k->n; r++) anew |= stale(graph[r], &k->b[r]->program);
    for (int r = 0; r < k->n && anew; r++) {
        if (graph[r]->exec) k->b[r]->d.GraphExecDestroy(graph[r]->exec);
        graph[r]->exec = NULL;
    }
    if (anew && !capture(k, graph)) return false;
    for (int r = 0; r < k->n && ok; r++) ok = make_current(k->b[r]) && (anew || update(k->b[r], graph[r]));
    for (int r = 0; r < k->n && ok; r++) {
        cuda_backend *b = k->b[r];
        ok = make_current(b) && cuda_ok(b, b->d.GraphLaunch(graph[r]->exec, b->stream), "launching a graph");
    }
    return ok;
}

void cuda_flush_all(cuda_backend *const *b, int n) {
    const ranks k = {b, n};
    cuda_graph *graph[CUDA_RANKS] = {NULL};
    bool known = true, any = false, ok = true;
    for (int r = 0; r < n; r++) {
        cuda_drain(b[r]);
        cuda_puts_launch(b[r]);
    }
    for (int r = 0; r < n; r++) any |= b[r]->program.calls > 0, ok = ok && !b[r]->fault.code;
    for (int r = 0; r < n; r++) ok = ok && (!b[r]->puts.used || (make_current(b[r]) && cuda_puts_copy(b[r])));
    for (int r = 0; r < n && any && ok; r++) {
        const cuda_program *p = &b[r]->program;
        graph[r] = b[r]->use_graphs && p->calls >= GRAPH_MIN ? find_graph(b[r], p) : NULL;
        if (graph[r]) graph[r]->last_use = ++b[r]->runs;
        known = known && graph[r] && graph[r]->program.calls;
    }
    if (any && ok && known) {
        run_graphs(&k, graph);
    } else if (any && ok) {
        run_step(&k, NULL);
        for (int r = 0; r < n; r++)
            if (graph[r] && !graph[r]->program.calls) remember(graph[r], &b[r]->program);
    }
    for (int r = 0; r < n; r++) b[r]->program.calls = b[r]->program.bytes = b[r]->puts.used = 0;
}

void cuda_flush(cuda_backend *b) {
    if (!b->group) {
        cuda_flush_all(&b, 1);
    } else {
        cuda_group_flush(b->group);
        make_current(b);
    }
}
