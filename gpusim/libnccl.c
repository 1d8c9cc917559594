/* libnccl.c: a stand-in libnccl.so.2: one process and one thread with a communicator for each device
 * (ncclCommInitAll), groups and ncclAllGather, on gpusim's streams (meet.h), captured or not.
 *
 * Strict where NCCL would hang or send garbage: the calls of one thread for several devices must be in
 * a group; a group must hold the same calls of every rank, with the same count and type; buffers lie
 * inside one allocation of the rank's device, and overlap only in place; the stream is one of that
 * device. Each is a finding and an error. What NCCL has besides is not there.
 *
 * GPUSIM_NCCL=skip:K, short:K, wrong:K spoils the K-th call of the last rank (it is left out, its count
 * is halved, it sends other bytes): so that tests can see that they would notice. */
#include "gpusim_api.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define API __attribute__((visibility("default"))) int
enum { OK = 0, CUDA_ERROR = 1, SYSTEM_ERROR = 2, INVALID_ARGUMENT = 4, INVALID_USAGE = 5 };
enum { RANKS = 16, CALLS = 64, VERSION = 22700 };
int cuDeviceGetCount(int *n);
int cuStreamGetCaptureInfo_v2(void *stream, int *status, uint64_t *id, void *graph, void *nodes, void *n);

typedef struct Comm { void *clique; int rank, n, device; } Comm;
typedef struct { Comm *comm; void *stream; gpusim_part part; int type, capturing; } Call;
static _Thread_local Call calls[CALLS * RANKS];
static _Thread_local int n_calls, depth, failed;

static int refuse(int result, const char *rule, const char *fmt, long a, long b) {
    char text[200];
    int n = snprintf(text, sizeof text, "ncclAllGather: ");
    snprintf(text + n, sizeof text - (size_t)n, fmt, a, b);
    gpusim_finding(rule, "ncclAllGather", text);
    return result;
}

API ncclGetVersion(int *version) {
    if (!version) return INVALID_ARGUMENT;
    *version = VERSION;
    return OK;
}

__attribute__((visibility("default"))) const char *ncclGetErrorString(int e) {
    static const char *const text[] = {"no error", "unhandled cuda error", "unhandled system error",
                                       "internal error", "invalid argument", "invalid usage",
                                       "remote process exited or there was a network error",
                                       "NCCL operation in progress"};
    return e >= 0 && e < (int)(sizeof text / sizeof *text) ? text[e] : "unknown result code";
}

API ncclCommInitAll(Comm **out, int n, const int *devices) {
    int there = 0;
    if (cuDeviceGetCount(&there)) return CUDA_ERROR;
    if (!out || n < 1 || n > RANKS) return INVALID_ARGUMENT;
    for (int i = 0; i < n; i++) {
        int d = devices ? devices[i] : i;
        if (d < 0 || d >= there) return INVALID_ARGUMENT;
        for (int k = 0; k < i; k++)
            if (d == (devices ? devices[k] : k)) return INVALID_USAGE; /* duplicate GPU */
    }
    void *clique = gpusim_clique(n);
    if (!clique) return SYSTEM_ERROR;
    for (int i = 0; i < n; i++) {
        if (!(out[i] = malloc(sizeof **out))) return SYSTEM_ERROR;
        *out[i] = (Comm){clique, i, n, devices ? devices[i] : i};
    }
    return OK;
}

/* The clique stays: commands may still name it. */
API ncclCommDestroy(Comm *c) {
    if (!c) return INVALID_ARGUMENT;
    if (gpusim_clique_nodes(c->clique, c->rank)) {
        gpusim_finding("nccl-live-graph", "ncclCommDestroy", "ncclCommDestroy: a graph with a collective of "
                       "this communicator was not destroyed: NCCL would wait for that for ever");
        return INVALID_USAGE;
    }
    free(c);
    return OK;
}

API ncclCommAbort(Comm *c) {
    if (c) gpusim_clique_abort(c->clique);
    return ncclCommDestroy(c);
}

API ncclCommGetAsyncError(Comm *c, int *e) {
    if (!c || !e) return INVALID_ARGUMENT;
    *e = OK;
    return OK;
}

static uint64_t bytes_of(int type) {
    static const unsigned char size[] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2};
    return type >= 0 && type < (int)sizeof size ? size[type] : 0;
}

/* 0, or what to return. */
static int check(const Call *c) {
    const gpusim_part *p = &c->part;
    uint64_t n = (uint64_t)c->comm->n, own = p->recv + (uint64_t)c->comm->rank * p->bytes;
    int device = c->comm->device, rank = c->comm->rank;
    if (gpusim_stream_device(c->stream) != device)
        return refuse(INVALID_ARGUMENT, "nccl-stream", "rank %ld: the stream is not one of device %ld", rank,
                      device);
    if (gpusim_device_of(p->send, p->bytes) != device)
        return refuse(INVALID_ARGUMENT, "nccl-buffer", "rank %ld: the send buffer is not in one allocation of "
                      "device %ld", rank, device);
    if (gpusim_device_of(p->recv, p->bytes * n) != device)
        return refuse(INVALID_ARGUMENT, "nccl-buffer", "rank %ld: the receive buffer is not in one allocation "
                      "of device %ld", rank, device);
    if (p->send != own && p->send < p->recv + p->bytes * n && p->recv < p->send + p->bytes)
        return refuse(INVALID_ARGUMENT, "nccl-overlap", "rank %ld of %ld: the buffers overlap, and not in "
                      "place", rank, c->comm->n);
    return OK;
}

/* Spoils a call, as GPUSIM_NCCL says. False: leave it out. */
static bool spoil(Call *c) {
    static int number;
    const char *fault = getenv("GPUSIM_NCCL");
    if (!fault || c->comm->rank != c->comm->n - 1 || c->comm->n == 1) return true;
    const char *at = strchr(fault, ':');
    if (!at || ++number != atoi(at + 1)) return true;
    if (*fault == 's' && fault[1] == 'k') return false;
    if (*fault == 's') c->part.bytes /= 2;
    else c->part.send = c->part.recv;
    return true;
}

/* The nth call of `rank` in the clique of c; NULL: none. */
static const Call *call_of(const Call *c, int rank, int nth) {
    for (int k = 0; k < n_calls; k++)
        if (calls[k].comm->clique == c->comm->clique && calls[k].comm->rank == rank && nth-- == 0)
            return &calls[k];
    return NULL;
}

/* The k-th calls of all ranks of a clique belong together: c and its counterpart of every rank. */
static int check_call(const Call *c, int nth) {
    for (int r = 0; r < c->comm->n; r++) {
        const Call *o = call_of(c, r, nth);
        if (!o)
            return refuse(INVALID_USAGE, "nccl-missing-rank", "rank %ld is in this group, and rank %ld is not, "
                          "or not as often: GPUs would wait for ever", c->comm->rank, r);
        if (o->part.bytes != c->part.bytes || o->type != c->type)
            return refuse(INVALID_ARGUMENT, "nccl-mismatch", "rank %ld and rank %ld bring other counts or types",
                          c->comm->rank, r);
        if ((o->capturing != 0) != (c->capturing != 0))
            return refuse(INVALID_USAGE, "nccl-capture", "of rank %ld and rank %ld one captures, one does not",
                          c->comm->rank, r);
    }
    return OK;
}

static int check_group(void) {
    for (int i = 0; i < n_calls; i++) {
        int nth = 0;
        for (int k = 0; k < i; k++) nth += calls[k].comm == calls[i].comm;
        int e = check_call(&calls[i], nth);
        if (e) return e;
    }
    return OK;
}

API ncclGroupStart(void) {
    if (depth++ == 0) n_calls = failed = 0;
    return OK;
}

API ncclGroupEnd(void) {
    if (depth == 0) return INVALID_USAGE;
    if (--depth) return OK;
    int e = failed ? failed : check_group();
    for (int i = 0; i < n_calls && !e; i++)
        if (gpusim_meet(calls[i].comm->clique, calls[i].comm->rank, calls[i].stream, &calls[i].part))
            e = CUDA_ERROR;
    n_calls = 0;
    return e;
}

API ncclAllGather(uint64_t send, uint64_t recv, size_t count, int type, Comm *comm, void *stream) {
    if (!comm || !bytes_of(type)) return INVALID_ARGUMENT;
    if (!depth && comm->n > 1)
        return refuse(INVALID_USAGE, "nccl-no-group", "rank %ld of %ld outside ncclGroupStart and "
                      "ncclGroupEnd: a thread with several devices would wait for itself", comm->rank, comm->n);
    if (n_calls == CALLS * RANKS) return INVALID_USAGE;
    Call c = {comm, stream, {"ncclAllGather", send, recv, count * bytes_of(type)}, type, 0};
    if (cuStreamGetCaptureInfo_v2(stream, &c.capturing, NULL, NULL, NULL, NULL)) return CUDA_ERROR;
    int e = count ? check(&c) : OK;
    if (e) return failed = e;
    if (!count) return OK;
    if (!spoil(&c)) return OK;
    bool alone = !depth;
    if (alone) ncclGroupStart();
    calls[n_calls++] = c;
    return alone ? ncclGroupEnd() : OK;
}
