/* pack.c: see pack.h.
 *
 *   prepare ─┬─> list of matrices ──> background thread: next slice, next slice, ...
 *            └─> op needs one early ─> team: the slices nobody has taken, then waits for the rest
 *
 * A slice (about 1 MiB of source) is taken with one atomic add; `done` is raised after its panels are
 * written, and read with acquire before they are used. The thread is nice 10: where cores are scarce the
 * ops go first. VL_PACK=lazy leaves it out: every matrix is then packed by the op that needs it first.
 * A matrix found in a pack cache has nothing left to take; the thread only asks for its pages ahead.
 */
#include "kernels/cpu/pack.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "kernels/cpu/cpu.h"

enum { SLICE_BYTES = 1 << 20, AHEAD_BYTES = 8 << 20, BACKGROUND_NICE = 10 };
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22  /* Linux 5.14; older kernels refuse it, and ops meet the faults */
#endif

struct cpu_packer {
    cpu_weight *first, *last;
    pthread_mutex_t lock;          /* of the list and stop                                   */
    pthread_cond_t more;
    pthread_t thread;
    bool running, stop;
};

/* ---- slices ---------------------------------------------------------------------------------- */

/* Gives back the pages of the source rows of one slice. The pages it shares with its neighbours go
 * too: a neighbour at work reads them from the file again, and gives them back when it is done. */
static void release_source(const cpu_weight *p, int first, int n) {
    size_t row = vl_matrix_row_bytes(&p->src);
    int last = first + n < p->n_panels ? (first + n) * p->panel_rows : p->src.rows;
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), base = (uintptr_t)p->src.data;
    uintptr_t lo = (base + page - 1) & ~(page - 1);
    uintptr_t hi = (base + row * (size_t)p->src.rows) & ~(page - 1);
    uintptr_t at = (base + row * (size_t)(first * p->panel_rows)) & ~(page - 1);
    uintptr_t end = (base + row * (size_t)last + page - 1) & ~(page - 1);
    if (at < lo) at = lo; /* a neighbouring tensor keeps its own */
    if (end > hi) end = hi;
    if (end > at) madvise((void *)at, end - at, MADV_DONTNEED);
}

/* Takes and packs one slice; false: none is left to take. */
static bool pack_slice(const cpu_backend *b, cpu_weight *p) {
    if (atomic_load_explicit(&p->taken, memory_order_relaxed) >= p->n_slices) return false;
    int s = atomic_fetch_add(&p->taken, 1), first = s * p->slice;
    if (s >= p->n_slices) return false;
    int n = p->n_panels - first < p->slice ? p->n_panels - first : p->slice;
    p->pack(b, p, first, n);
    if (p->file_pages) release_source(p, first, n);
    atomic_fetch_add_explicit(&p->done, 1, memory_order_release);
    return true;
}

typedef struct pack_job { const cpu_backend *b; cpu_weight *p; } pack_job;

static void slice_item(void *arg, int item, int thread) {
    const pack_job *j = arg;
    (void)item, (void)thread;
    pack_slice(j->b, j->p);
}

void cpu_pack_finish(cpu_backend *b, cpu_weight *p) {
    pack_job j = {b, p};
    int left = p->n_slices - atomic_load(&p->taken);
    if (left > 0) cpu_team_run(b->team, left, slice_item, &j);
    while (atomic_load_explicit(&p->done, memory_order_acquire) < p->n_slices)
        nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL); /* at most one slice, by the thread */
}

/* ---- the background thread ------------------------------------------------------------------- */

/* The matrix after p, waiting for one; NULL: stop. */
static cpu_weight *next_weight(cpu_packer *k, const cpu_weight *p) {
    pthread_mutex_lock(&k->lock);
    while (!k->stop && !(p ? p->next : k->first)) pthread_cond_wait(&k->more, &k->lock);
    cpu_weight *next = k->stop ? NULL : p ? p->next : k->first;
    pthread_mutex_unlock(&k->lock);
    return next;
}

static bool stopped(cpu_packer *k) {
    pthread_mutex_lock(&k->lock);
    bool stop = k->stop;
    pthread_mutex_unlock(&k->lock);
    return stop;
}

/* Maps the pages of a cached matrix, so that ops do not fault for each of them. */
static void populate(cpu_packer *k, const cpu_weight *p) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), at = (uintptr_t)p->panels & ~(page - 1);
    uintptr_t end = (uintptr_t)p->panels + p->bytes;
    for (size_t n; at < end && !stopped(k); at += n) {
        n = end - at < AHEAD_BYTES ? end - at : AHEAD_BYTES;
        if (madvise((void *)at, n, MADV_POPULATE_READ)) return;
    }
}

static void *packer_main(void *arg) {
    cpu_backend *b = arg;
    cpu_packer *k = b->packer;
    setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), BACKGROUND_NICE);
    for (cpu_weight *p = NULL; (p = next_weight(k, p));)
        if (p->cached) populate(k, p);
        else
            while (!stopped(k) && pack_slice(b, p)) {}
    return NULL;
}

int cpu_pack_mode(bool *lazy, vl_err *err) {
    const char *mode = getenv("VL_PACK");
    *lazy = mode && !strcmp(mode, "lazy");
    if (!mode || !*mode || *lazy || !strcmp(mode, "background")) return 0;
    return vl_fail(err, VL_E_USAGE, "VL_PACK=%s: expected background or lazy", mode);
}

/* ---- the list -------------------------------------------------------------------------------- */

static int open_packer(cpu_backend *b, vl_err *err) {
    if (b->packer) return 0;
    b->packer = vl_calloc(1, sizeof *b->packer);
    if (!b->packer) return vl_fail(err, VL_E_NOMEM, "no memory to pack weights");
    pthread_mutex_init(&b->packer->lock, NULL);
    pthread_cond_init(&b->packer->more, NULL);
    return 0;
}

/* Only weights of a file are packed ahead: other sources may change until their first use. */
static void start_thread(cpu_backend *b) {
    cpu_packer *k = b->packer;
    if (k->running || b->lazy) return;
    k->running = pthread_create(&k->thread, NULL, packer_main, b) == 0; /* without it: lazily */
}

static bool find_packed(const cpu_backend *b, cpu_weight *p) {
    const vl_packed_store *s = &b->packed;
    const void *found = s->find ? s->find(s->user, p->src.name, p->format, p->bytes) : NULL;
    if (!found) return false;
    p->panels = (void *)(uintptr_t)found; /* a read-only mapping, which nothing writes: all is taken */
    p->cached = true;
    atomic_store(&p->taken, p->n_slices);
    atomic_store(&p->done, p->n_slices);
    return true;
}

int cpu_pack_add(cpu_backend *b, cpu_weight *p, unsigned use, vl_err *err) {
    size_t source = vl_matrix_row_bytes(&p->src) * (size_t)p->panel_rows;
    if (open_packer(b, err)) return -1;
    cpu_packer *k = b->packer;
    p->n_panels = (p->src.rows + p->panel_rows - 1) / p->panel_rows;
    p->slice = (int)(SLICE_BYTES / source) + 1;
    p->n_slices = (p->n_panels + p->slice - 1) / p->slice;
    p->file_pages = use & VL_USE_FILE_PAGES;
    if (!vl_mul_ok(p->panel_bytes, (size_t)p->n_panels, &p->bytes) ||
        !vl_add_ok(p->bytes, p->tail_bytes, &p->bytes) || (!find_packed(b, p) && !(p->panels = cpu_pages(p->bytes))))
        return vl_fail(err, VL_E_NOMEM, "no address space to pack tensor %s", p->src.name);
    pthread_mutex_lock(&k->lock);
    *(k->last ? &k->last->next : &k->first) = p;
    k->last = p;
    pthread_cond_signal(&k->more);
    pthread_mutex_unlock(&k->lock);
    if (p->file_pages || p->cached) start_thread(b);
    return 0;
}

int cpu_pack_each(cpu_backend *b, vl_packed_fn fn, void *user) {
    for (cpu_weight *p = b->packer ? b->packer->first : NULL; p; p = p->next) {
        pthread_mutex_lock(&b->lock);
        cpu_pack_ready(b, p);
        pthread_mutex_unlock(&b->lock);
        int rc = fn(user, p->src.name, p->format, p->panels, p->bytes);
        if (rc) return rc;
    }
    return 0;
}

void cpu_pack_close(cpu_backend *b) {
    cpu_packer *k = b->packer;
    if (!k) return;
    pthread_mutex_lock(&k->lock);
    k->stop = true;
    pthread_cond_signal(&k->more);
    pthread_mutex_unlock(&k->lock);
    if (k->running) pthread_join(k->thread, NULL);
    for (cpu_weight *p = k->first, *next; p; p = next) {
        next = p->next;
        if (!p->cached) cpu_pages_free(p->panels, p->bytes);
        free(p);
    }
    pthread_mutex_destroy(&k->lock);
    pthread_cond_destroy(&k->more);
    free(k);
}
