/* stream.c: see stream.h. */
#include "stream.h"
#include "api.h"
#include "check.h"
#include "meet.h"
#include <stdlib.h>
#include <string.h>

pthread_mutex_t gpusim_lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
int gpusim_sticky;
static struct Stream *streams;           /* all ever created; the default one is the last */
static uint32_t host_clock[MAX_STREAMS]; /* what the host has waited for */
static uint64_t sequence;
static uint32_t next_index;

static void join(uint32_t *a, const uint32_t *b) {
    for (int i = 0; i < MAX_STREAMS; i++) a[i] = b[i] > a[i] ? b[i] : a[i];
}

/* Vector clock indices are not reused; beyond MAX_STREAMS, streams share the last one. */
static uint32_t new_index(void) {
    return next_index < MAX_STREAMS - 1 ? next_index++ : MAX_STREAMS - 1;
}

struct Stream *stream_create(bool nonblocking, int device) {
    struct Stream *s = calloc(1, sizeof *s);
    if (!s) return NULL;
    s->index = new_index();
    s->nonblocking = nonblocking;
    s->device = device;
    s->alive = true;
    s->tail = -1;
    s->next = streams;
    streams = s;
    return s;
}

struct Stream *stream_default(void) {
    static struct Stream *s;
    if (!s) s = stream_create(false, 0);
    return s;
}

int stream_device(const struct Stream *s) {
    return s == stream_default() ? api_device() : s->device;
}

struct Stream *stream_of(CUstream h) {
    if ((uintptr_t)h <= 2) return stream_default();
    for (struct Stream *s = streams; s; s = s->next)
        if (s == h) return s->alive ? s : NULL;
    return NULL;
}

bool stream_idle(const struct Stream *s) { return s->first == NULL; }

void stream_pending(void (*fn)(Cmd *c, void *arg), void *arg) {
    for (struct Stream *s = streams; s; s = s->next)
        for (Cmd *c = s->first; c; c = c->next) fn(c, arg);
}

void mark_drop(Mark *m) {
    if (m && --m->refs == 0) free(m);
}

void command_drop(Cmd *c) {
    free(c->params);
    free(c->staged);
    mark_drop(c->mark);
    if (c->kind == CMD_MEET) meet_leave(c);
}

/* ---- running ---- */

static CUresult run_until(struct Stream *s, uint64_t seq, const Mark *mark);

/* The default stream and the blocking ones wait for what the other enqueued earlier. */
static CUresult run_legacy(struct Stream *s, uint64_t seq) {
    if (s->nonblocking) return CU_OK;
    struct Stream *d = stream_default();
    if (s != d) return run_until(d, seq, NULL);
    for (struct Stream *o = streams; o; o = o->next) {
        CUresult r = o != d && !o->nonblocking ? run_until(o, seq, NULL) : CU_OK;
        if (r) return r;
    }
    return CU_OK;
}

/* GPUSIM_FAIL_KERNEL: a GPU other than the first dies in the middle of its work. */
static bool dies(const Cmd *c) {
    static int kernels;
    return settings.fail_kernel && c->kind == CMD_KERNEL && c->device > 0 && ++kernels == settings.fail_kernel;
}

/* Runs the commands of s numbered below seq, or up to the recording of mark. */
static CUresult run_until(struct Stream *s, uint64_t seq, const Mark *mark) {
    while (s->first && s->first->seq < seq && !(mark && mark->done)) {
        Cmd *c = s->first;
        CUresult r = run_legacy(s, c->seq);
        if (c != s->first) continue;
        if (!r && c->kind == CMD_WAIT && !c->mark->done)
            r = run_until(c->mark->stream, UINT64_MAX, c->mark);
        if (!r && c->kind == CMD_MEET && !gpusim_sticky) r = meet_gather(c);
        if (c != s->first) continue;
        s->first = c->next;
        if (!s->first) s->last = NULL;
        if (!r && !gpusim_sticky) r = dies(c) ? CU_ILLEGAL_ADDRESS : command_run(c, s);
        if (c->kind == CMD_RECORD) {
            c->mark->done = true;
            c->mark->time_us = s->time_us;
        }
        if (c->kind == CMD_WAIT && c->mark->time_us > s->time_us) s->time_us = c->mark->time_us;
        command_drop(c);
        free(c);
        if (r) gpusim_sticky = r;
    }
    return gpusim_sticky;
}

CUresult stream_run_to(struct Stream *s, uint64_t seq) { return run_until(s, seq, NULL); }

CUresult stream_sync(struct Stream *s) {
    CUresult r = run_until(s, UINT64_MAX, NULL);
    join(host_clock, s->clock);
    return r;
}

CUresult stream_sync_all(void) {
    CUresult r = CU_OK;
    for (struct Stream *s = streams; s; s = s->next) {
        CUresult one = stream_sync(s);
        r = r ? r : one;
    }
    return r;
}

void stream_destroy(struct Stream *s) {
    run_until(s, UINT64_MAX, NULL);      /* the real driver also lets the work finish */
    s->alive = false;
}

/* ---- enqueueing ---- */

/* What the command may rely on: the host's knowledge, and the default stream's rules. */
static void join_legacy(struct Stream *s) {
    join(s->clock, host_clock);
    if (s->nonblocking) return;
    struct Stream *d = stream_default();
    if (s != d) {
        join(s->clock, d->clock);
        return;
    }
    for (struct Stream *o = streams; o; o = o->next)
        if (!o->nonblocking) join(s->clock, o->clock);
}

static CUresult append(struct Stream *s, const Cmd *cmd) {
    Cmd *c = malloc(sizeof *c);
    if (!c) return CU_OUT_OF_MEMORY;
    *c = *cmd;
    c->seq = sequence++;
    c->next = NULL;
    if (c->kind == CMD_MEET) meet_arrive(c, s);
    if (s->last) s->last->next = c;
    else s->first = c;
    s->last = c;
    return CU_OK;
}

/* Overlap allowed by programmatic launch reaches back to the first launch of the chain. */
static void chain(struct Stream *s, Cmd *c) {
    bool kernel = c->kind == CMD_KERNEL;
    c->pdl_base = kernel && c->pdl && s->prev_kernel ? (s->prev_base ? s->prev_base
                                                                     : s->prev_kernel) : 0;
    s->prev_kernel = kernel ? c->id : 0;
    s->prev_base = c->pdl_base;
}

static void note_grid(Cmd *c) {
    Node *n = (Node *)(uintptr_t)order_get(c->id);
    if (c->kind == CMD_KERNEL) memcpy(n->grid, c->grid, sizeof n->grid);
}

static CUresult capture(struct Stream *s, const Cmd *cmd);

CUresult stream_add(struct Stream *s, const Cmd *cmd, const char *what) {
    Cmd c = *cmd;
    c.name = what;
    c.device = stream_device(s);
    if (s->capture) return capture(s, &c);
    join_legacy(s);
    c.id = order_node(c.f, what, s->index, s->clock);
    note_grid(&c);
    chain(s, &c);
    return append(s, &c);
}

/* ---- events ---- */

CUresult event_record(struct Event *e, struct Stream *s) {
    Mark *m = calloc(1, sizeof *m);
    if (!m) return CU_OUT_OF_MEMORY;
    mark_drop(e->mark);
    e->mark = m;
    m->refs = 1;
    m->stream = s;
    m->node = -1;
    if (s->capture) {
        m->graph = s->capture;
        m->node = s->tail;
        return CU_OK;
    }
    join_legacy(s);
    memcpy(m->clock, s->clock, sizeof m->clock);
    m->refs++;
    return append(s, &(Cmd){.kind = CMD_RECORD, .mark = m});
}

CUresult event_sync(struct Event *e) {
    if (!e->mark) return CU_OK;
    if (e->mark->graph) return CU_CAPTURED_EVENT;
    CUresult r = run_until(e->mark->stream, UINT64_MAX, e->mark);
    join(host_clock, e->mark->clock);
    return r;
}

/* ---- graphs ---- */

static int new_branch(struct Graph *g) { return g->branches++; }

/* A stream that waits for an event of a capture joins it. */
CUresult event_wait(struct Stream *s, struct Event *e) {
    Mark *m = e->mark;
    if (!m) return CU_OK;
    if (m->graph || s->capture) {
        if (!m->graph || (s->capture && s->capture != m->graph)) return CU_CAPTURE_UNSUPPORTED;
        struct Graph *g = m->graph;
        if (!s->capture) {
            s->capture = g;
            s->tail = m->node;
            s->branch = new_branch(g);
            return CU_OK;
        }
        if (m->node < 0 || m->node == s->tail) return CU_OK;
        Cmd join_node = {.kind = CMD_HOST, .name = "join"};
        CUresult r = capture(s, &join_node);
        if (r) return r;
        GraphNode *n = &g->nodes[g->n - 1];
        n->dep[n->ndep++] = m->node;
        return CU_OK;
    }
    join(s->clock, m->clock);
    m->refs++;
    s->prev_kernel = 0;
    return append(s, &(Cmd){.kind = CMD_WAIT, .mark = m});
}

CUresult graph_begin(struct Stream *s) {
    if (s->capture) return CU_CAPTURE_UNMATCHED;
    struct Graph *g = calloc(1, sizeof *g);
    if (!g) return CU_OUT_OF_MEMORY;
    static uint32_t graphs;
    g->id = ++graphs;
    g->origin = s;
    s->capture = g;
    s->tail = -1;
    s->branch = new_branch(g);
    return CU_OK;
}

static CUresult capture(struct Stream *s, const Cmd *cmd) {
    struct Graph *g = s->capture;
    if (g->n == g->cap) {
        int cap = g->cap ? g->cap * 2 : 64;
        GraphNode *p = realloc(g->nodes, (size_t)cap * sizeof *p);
        if (!p) return CU_OUT_OF_MEMORY;
        g->nodes = p;
        g->cap = cap;
    }
    GraphNode *n = &g->nodes[g->n];
    *n = (GraphNode){.cmd = *cmd, .branch = s->branch};
    if (s->tail >= 0) n->dep[n->ndep++] = s->tail;
    s->tail = g->n++;
    meet_node(cmd, 1);
    return CU_OK;
}

/* Every branch must have been joined: its last node is an ancestor of the origin's tail. */
static bool all_joined(const struct Graph *g) {
    if (g->branches <= 1 || !g->n) return true;
    bool *seen = calloc((size_t)g->n, sizeof *seen);
    if (!seen) return false;
    if (g->origin->tail >= 0) seen[g->origin->tail] = true;
    for (int i = g->n - 1; i >= 0; i--)
        for (int k = 0; seen[i] && k < g->nodes[i].ndep; k++) seen[g->nodes[i].dep[k]] = true;
    bool ok = true;
    for (int i = 0; i < g->n; i++) ok &= seen[i];
    free(seen);
    return ok;
}

CUresult graph_end(struct Stream *s, struct Graph **out) {
    struct Graph *g = s->capture;
    if (!g || g->origin != s) return CU_CAPTURE_UNMATCHED;
    bool joined = all_joined(g), invalid = g->invalid;
    for (struct Stream *o = streams; o; o = o->next)
        if (o->capture == g) o->capture = NULL;
    s->prev_kernel = 0;
    if (joined && !invalid) {
        *out = g;
        return CU_OK;
    }
    graph_free(g);
    return invalid ? CU_CAPTURE_INVALIDATED : CU_CAPTURE_UNJOINED;
}

static uint8_t *copy_bytes(const uint8_t *p, size_t n) {
    uint8_t *q = malloc(n ? n : 1);
    if (q && n) memcpy(q, p, n);
    return q;
}

static bool copy_owned(Cmd *c) {
    if (c->params) c->params = copy_bytes(c->params, c->f->param_bytes);
    if (c->staged) c->staged = copy_bytes(c->staged, c->bytes);
    return true;
}

struct Graph *graph_copy(const struct Graph *g) {
    struct Graph *x = calloc(1, sizeof *x);
    if (!x) return NULL;
    *x = *g;
    x->nodes = (GraphNode *)copy_bytes((const uint8_t *)g->nodes, (size_t)g->n * sizeof *g->nodes);
    x->branch_index = calloc((size_t)g->branches, sizeof *x->branch_index);
    if (!x->nodes || !x->branch_index) {
        free(x->nodes);
        free(x->branch_index);
        free(x);
        return NULL;
    }
    for (int i = 1; i < g->branches; i++) x->branch_index[i] = new_index();
    for (int i = 0; i < g->n; i++) {
        copy_owned(&x->nodes[i].cmd);
        meet_node(&x->nodes[i].cmd, 1);
    }
    return x;
}

uint64_t graph_tail(const struct Stream *s) {
    return s->tail < 0 ? 0 : (uint64_t)s->capture->id << 32 | (uint64_t)(s->tail + 1);
}

/* An executable graph keeps the id of the one it was made from; grid and function stay. */
CUresult graph_set_params(struct Graph *g, uint64_t node, const Cmd *cmd) {
    uint32_t i = (uint32_t)node - 1;
    if (node >> 32 != g->id || i >= (uint32_t)g->n) return CU_INVALID_VALUE;
    Cmd *c = &g->nodes[i].cmd;
    if (c->kind != CMD_KERNEL || c->f != cmd->f) return CU_INVALID_VALUE;
    free(c->params);
    c->params = cmd->params;
    c->shared = cmd->shared;
    memcpy(c->grid, cmd->grid, sizeof c->grid);
    memcpy(c->block, cmd->block, sizeof c->block);
    return CU_OK;
}

/* The nodes become commands of s; their clocks come from what they depend on. */
CUresult graph_launch(struct Graph *g, struct Stream *s) {
    if (s->capture) return CU_CAPTURE_UNSUPPORTED;
    join_legacy(s);
    uint32_t (*clock)[MAX_STREAMS] = malloc(((size_t)g->n + 1) * sizeof *clock);
    uint32_t start[MAX_STREAMS];
    if (!clock) return CU_OUT_OF_MEMORY;
    memcpy(start, s->clock, sizeof start);
    s->prev_kernel = 0;
    CUresult r = CU_OK;
    for (int i = 0; i < g->n && !r; i++) {
        const GraphNode *n = &g->nodes[i];
        Cmd c = n->cmd;
        memcpy(clock[i], start, sizeof start);
        for (int k = 0; k < n->ndep; k++) join(clock[i], clock[n->dep[k]]);
        uint32_t index = n->branch ? g->branch_index[n->branch] : s->index;
        if (clock[i][index] < s->clock[index]) clock[i][index] = s->clock[index];
        copy_owned(&c);
        c.graph = true;
        c.id = order_node(c.f, c.name, index, clock[i]);
        s->clock[index] = clock[i][index];
        note_grid(&c);
        chain(s, &c);
        r = append(s, &c);
    }
    for (int i = 0; i < g->n; i++) join(s->clock, clock[i]);
    s->prev_kernel = 0;
    free(clock);
    return r;
}

void graph_free(struct Graph *g) {
    for (int i = 0; i < g->n; i++) {
        meet_node(&g->nodes[i].cmd, -1);
        command_drop(&g->nodes[i].cmd);
    }
    free(g->nodes);
    free(g->branch_index);
    free(g);
}
