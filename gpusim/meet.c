/* meet.c: see meet.h. Each rank's part reads its own `send` and writes its own `recv`, in its own
 * stream: so the race detector needs no order between the ranks, and has none to offer. */
#include "meet.h"
#include "check.h"
#include "mem.h"
#include "model.h"
#include "race.h"
#include <stdlib.h>
#include <string.h>

typedef struct Meeting {
    uint64_t number;
    int left;                    /* parts that were run or dropped */
    bool busy, done;
    double time_us;              /* when the last rank came */
    Cmd *part[MEET_RANKS];       /* NULL: not enqueued, or left */
    struct Stream *stream[MEET_RANKS];
    struct Meeting *next;
} Meeting;

struct Clique {
    int n;
    uint64_t count[MEET_RANKS];  /* parts enqueued so far */
    int nodes[MEET_RANKS];       /* parts in graphs */
    bool aborted;
    Meeting *open;
};

struct Clique *meet_clique(int n) {
    struct Clique *q = n >= 1 && n <= MEET_RANKS ? calloc(1, sizeof *q) : NULL;
    if (q) q->n = n;
    return q;
}

void meet_node(const Cmd *c, int change) {
    if (c->kind == CMD_MEET) c->clique->nodes[c->rank] += change;
}
int meet_nodes(const struct Clique *q, int rank) { return q->nodes[rank]; }
void meet_abort(struct Clique *q) { q->aborted = true; }

static bool hangs;
bool meet_hangs(void) {
    bool was = hangs;
    hangs = false;
    return was;
}

static Meeting *find(const struct Clique *q, uint64_t number) {
    Meeting *m = q->open;
    while (m && m->number != number) m = m->next;
    return m;
}

void meet_arrive(Cmd *c, struct Stream *s) {
    struct Clique *q = c->clique;
    c->number = ++q->count[c->rank];
    Meeting *m = find(q, c->number);
    if (!m) {
        m = calloc(1, sizeof *m);
        if (!m) abort();
        m->number = c->number;
        m->next = q->open;
        q->open = m;
    }
    m->part[c->rank] = c;
    m->stream[c->rank] = s;
}

void meet_leave(const Cmd *c) {
    if (!c->number) return;      /* a node of a graph */
    Meeting **at = &c->clique->open;
    while (*at && (*at)->number != c->number) at = &(*at)->next;
    Meeting *m = *at;
    if (!m) return;
    m->part[c->rank] = NULL;
    if (++m->left < c->clique->n || m->busy) return; /* busy: dropped by a failure, and still looked at */
    *at = m->next;
    free(m);
}

static CUresult refuse(const Cmd *c, const char *rule, int other, const char *why) {
    check_host(rule, c->name, "%s, the %llu. of this communicator: rank %d waits for rank %d, which %s; "
               "GPUs would wait for ever", c->name, (unsigned long long)c->number, c->rank, other, why);
    return CU_LAUNCH_FAILED;
}

/* All parts are first in their streams. */
static CUresult work(const Cmd *c, Meeting *m) {
    int n = c->clique->n;
    const uint8_t *from[MEET_RANKS];
    for (int r = 0; r < n; r++) {
        const Cmd *p = m->part[r];
        from[r] = mem_host(p->src, p->bytes);
        if (p->bytes != c->bytes) return refuse(c, "nccl-mismatch", r, "brings another number of bytes");
        if (!from[r] || !mem_host(p->dst, p->bytes * (uint64_t)n)) {
            check_host("use-after-free", p->name, "%s: a buffer of rank %d was freed before the stream "
                       "ran", p->name, r);
            return CU_ILLEGAL_ADDRESS;
        }
        const Alloc *a = mem_find(p->src);
        if (settings.checks && mem_uninitialised(a, p->src - a->addr, p->bytes) >= 0)
            check_host("uninitialised-copy", p->name, "%s: rank %d sends %s, of which nothing wrote a "
                       "part", p->name, r, a->name);
        race_host(p->id, p->src, p->bytes, false);
    }
    for (int r = 0; r < n; r++) {
        const Cmd *p = m->part[r];
        uint8_t *to = mem_fill_host(p->dst, p->bytes * (uint64_t)n);
        for (int k = 0; k < n; k++) memmove(to + (uint64_t)k * p->bytes, from[k], p->bytes);
        race_host(p->id, p->dst, p->bytes * (uint64_t)n, true);
    }
    return CU_OK;
}

CUresult meet_gather(Cmd *c) {
    Meeting *m = find(c->clique, c->number);
    if (!m || m->done || c->clique->aborted) return CU_OK;
    int n = c->clique->n;
    for (int r = 0; r < n; r++)
        if (!m->part[r]) return refuse(c, "nccl-missing-rank", r, "has not called it");
    if (m->busy) return refuse(c, "nccl-order", (c->rank + 1) % n, "waits for it elsewhere");
    m->busy = true;
    CUresult e = CU_OK;
    for (int r = 0; r < n && !e; r++)
        if (m->part[r] != c) e = stream_run_to(m->stream[r], m->part[r]->seq);
    m->busy = false;
    for (int r = 0; r < n && !e; r++) /* a rank whose stream was emptied by a failure is not there */
        if (!m->part[r]) e = CU_LAUNCH_FAILED;
    hangs = e != CU_OK;
    if (e) return e;
    m->done = true;
    for (int r = 0; r < n; r++)
        if (m->stream[r]->time_us > m->time_us) m->time_us = m->stream[r]->time_us;
    return work(c, m);
}

CUresult meet_run(const Cmd *c, struct Stream *s) {
    const Meeting *m = find(c->clique, c->number);
    if (m) s->time_us = m->time_us;
    s->time_us += model_copy("(all-gather)", c->bytes * (uint64_t)c->clique->n, true);
    return CU_OK;
}
