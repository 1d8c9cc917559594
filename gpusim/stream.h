/* stream.h: lazy streams, events and graphs.
 *
 * Nothing runs when it is enqueued: a stream is a list of commands that runs when something waits
 * for it. A host that reads results too early therefore reads poison, as it might on a GPU.
 * Every command is a node of order.h and carries the vector clock of its stream. */
#ifndef STREAM_H
#define STREAM_H
#include "cuda_abi.h"
#include "gpusim.h"
#include "order.h"
#include <pthread.h>

enum CmdKind { CMD_KERNEL, CMD_TO_DEVICE, CMD_TO_HOST, CMD_ON_DEVICE, CMD_FILL, CMD_HOST,
               CMD_MEET, CMD_RECORD, CMD_WAIT };

typedef struct Mark Mark;
typedef struct Cmd {
    enum CmdKind kind;
    uint32_t id;                 /* node of order.h; 0 for record and wait */
    uint64_t seq;                /* global enqueue number */
    int device;                  /* that it runs on */
    Func *f;
    uint32_t grid[3], block[3], shared, pdl_base;
    bool pdl, graph;             /* graph: launched by a graph (less overhead) */
    uint8_t *params;             /* owned */
    uint64_t dst, src, bytes;    /* device addresses, or host pointers as numbers */
    uint8_t *staged;             /* owned copy of pageable host memory */
    uint64_t hash;               /* of pinned host memory when enqueued */
    uint8_t value;
    void (*fn)(void *);          /* host function on `staged` */
    double flops, traffic;       /* what it stands for */
    const char *name;
    Mark *mark;
    /* CMD_MEET (meet.h): whose part in a collective; src, dst, bytes, value are what it brings */
    struct Clique *clique;
    int rank;
    uint64_t number;             /* of the collective, from 1; 0: not enqueued yet */
    struct Cmd *next;
} Cmd;

/* One recording of an event. */
struct Mark {
    struct Stream *stream;
    uint32_t clock[MAX_STREAMS];
    bool done;
    double time_us;
    int refs;
    int node;                    /* in a capture: the last node before it, or -1 */
    struct Graph *graph;
};

struct Stream {
    uint32_t index;              /* in the vector clocks */
    int device;
    bool nonblocking, alive;
    uint32_t clock[MAX_STREAMS];
    Cmd *first, *last;
    uint32_t prev_kernel, prev_base;  /* id of the command before, if a kernel; its pdl_base */
    double time_us;              /* predicted time line */
    struct Graph *capture;
    int tail;                    /* last captured node on this stream, or -1 */
    int branch;
    struct Stream *next;
};

struct Event { Mark *mark; bool timing; int device; };

typedef struct { Cmd cmd; int dep[8], ndep, branch; } GraphNode;
struct Graph {
    GraphNode *nodes;
    int n, cap, branches, joined;
    struct Stream *origin;
    bool invalid;
    uint32_t id;                 /* node handles are id << 32 | index + 1 */
    uint32_t *branch_index;      /* exec: vector clock index per branch */
};

extern pthread_mutex_t gpusim_lock;
extern int gpusim_sticky;        /* the context's error after a fault, or 0 */

struct Stream *stream_default(void);
/* The stream behind a handle (NULL, 1 and 2 are the default stream), or NULL if not alive. */
struct Stream *stream_of(CUstream s);
struct Stream *stream_create(bool nonblocking, int device);
/* The device of what is enqueued on s now: the default stream is that of the current context. */
int stream_device(const struct Stream *s);
void stream_destroy(struct Stream *s);
/* Enqueues (or captures) a command; takes over cmd's owned buffers. */
CUresult stream_add(struct Stream *s, const Cmd *cmd, const char *what);
/* Runs everything enqueued on s (what it depends on first); the host then knows it is done. */
CUresult stream_sync(struct Stream *s);
/* Runs what was enqueued on s before the command numbered seq. */
CUresult stream_run_to(struct Stream *s, uint64_t seq);
CUresult stream_sync_all(void);
bool stream_idle(const struct Stream *s);
/* Runs fn on every command not yet run. */
void stream_pending(void (*fn)(Cmd *c, void *arg), void *arg);

CUresult event_record(struct Event *e, struct Stream *s);
CUresult event_wait(struct Stream *s, struct Event *e);
CUresult event_sync(struct Event *e);
void mark_drop(Mark *m);

CUresult graph_begin(struct Stream *s);
CUresult graph_end(struct Stream *s, struct Graph **out);
struct Graph *graph_copy(const struct Graph *g);
/* Parameters of the kernel node behind a handle of graph_node; takes them over. */
CUresult graph_set_params(struct Graph *g, uint64_t node, const Cmd *cmd);
/* The node that the next capture on s would depend on; 0: none. */
uint64_t graph_tail(const struct Stream *s);
CUresult graph_launch(struct Graph *g, struct Stream *s);
void graph_free(struct Graph *g);

/* launch.c: runs one command now; `running` is the node of the host function that does. */
CUresult command_run(Cmd *c, struct Stream *s);
void command_drop(Cmd *c);
uint32_t command_running(void);
bool host_pinned(uint64_t addr, uint64_t bytes);
uint64_t host_hash(const void *p, uint64_t bytes);
#endif
