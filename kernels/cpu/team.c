/* team.c: a small thread team with bounded spinning.
 *
 * A job is published in one 64-bit word, `state` = generation << 32 | items left. Taking an item is
 * a compare-and-swap of that word, so a thread that wakes up late can never take an item of a job
 * that is over, and the caller need not wait for it. fn, arg and n are plain fields: they are read
 * only by a thread that holds an item, and the caller changes them only when all items are done.
 *
 * What a launch costs is lines of cache that go from core to core, so: all that a launch publishes is in the line of
 * `state`; idle threads sleep on its upper half, which items do not change; each thread counts its items
 * and adds them to `done` once; and what is only looked at lies elsewhere.
 */
#include "kernels/cpu/team.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SPINS = 4000 };             /* pauses before sleeping, unless cpu_team_spins says other */

typedef struct worker { cpu_team *team; pthread_t thread; int index; } worker;

struct cpu_team {
    _Alignas(64) _Atomic uint64_t state;
    cpu_item_fn *fn;
    void *arg;
    uint32_t n;
    _Alignas(64) _Atomic uint32_t done; /* finished items; the caller sleeps on it            */
    atomic_bool caller_sleeps;
    _Alignas(64) atomic_int sleepers;   /* idle threads that sleep                            */
    atomic_bool stop;
    atomic_int spins;
    int workers;
    worker worker[];
};

static void pause_cpu(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void futex_wait(_Atomic uint32_t *word, uint32_t seen) {
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}
static void futex_wake(_Atomic uint32_t *word, int n) {
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, n, NULL, NULL, 0);
}

static uint32_t generation_of(uint64_t state) { return (uint32_t)(state >> 32); }
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the upper half of state is its second word");
static _Atomic uint32_t *generation(cpu_team *t) { return (_Atomic uint32_t *)(void *)&t->state + 1; }

/* Takes items of generation `gen` until none is left. */
static void work(cpu_team *t, uint32_t gen, int thread) {
    uint64_t s = atomic_load(&t->state);
    uint32_t n = 0, mine = 0;
    while (generation_of(s) == gen && (uint32_t)s > 0) {
        if (!atomic_compare_exchange_weak(&t->state, &s, s - 1)) continue;
        n = t->n;
        t->fn(t->arg, (int)(n - (uint32_t)s), thread);
        mine++;
        s = atomic_load(&t->state);
    }
    if (mine && atomic_fetch_add(&t->done, mine) + mine == n && thread > 0 && atomic_load(&t->caller_sleeps))
        futex_wake(&t->done, 1);
}

static void *worker_main(void *arg) {
    worker *w = arg;
    cpu_team *t = w->team;
    uint32_t seen = 0;
    for (;;) {
        int spins = atomic_load_explicit(&t->spins, memory_order_relaxed);
        uint32_t gen;
        for (int i = 0; (gen = generation_of(atomic_load(&t->state))) == seen && i < spins; i++) pause_cpu();
        if (gen == seen) {
            atomic_fetch_add(&t->sleepers, 1);
            futex_wait(generation(t), seen); /* returns at once if a job came meanwhile */
            atomic_fetch_sub(&t->sleepers, 1);
            gen = generation_of(atomic_load(&t->state));
        }
        if (atomic_load(&t->stop)) return NULL;
        if (gen != seen) work(t, gen, w->index);
        seen = gen;
    }
}

void cpu_team_run(cpu_team *t, int n, cpu_item_fn *fn, void *arg) {
    if (t->workers == 0 || n <= 1) {
        for (int i = 0; i < n; i++) fn(arg, i, 0);
        return;
    }
    uint32_t gen = generation_of(atomic_load(&t->state)) + 1;
    t->fn = fn;
    t->arg = arg;
    t->n = (uint32_t)n;
    atomic_store_explicit(&t->done, 0, memory_order_relaxed); /* seen by whoever sees the state */
    atomic_store(&t->state, (uint64_t)gen << 32 | (uint32_t)n);
    if (atomic_load(&t->sleepers) > 0) futex_wake(generation(t), INT_MAX);
    work(t, gen, 0);
    int spins = atomic_load_explicit(&t->spins, memory_order_relaxed);
    for (int i = 0; i < spins && atomic_load(&t->done) < (uint32_t)n; i++) pause_cpu();
    if (atomic_load(&t->done) == (uint32_t)n) return;
    atomic_store(&t->caller_sleeps, true);
    for (uint32_t done; (done = atomic_load(&t->done)) < (uint32_t)n;) futex_wait(&t->done, done);
    atomic_store(&t->caller_sleeps, false);
}

void cpu_team_spins(cpu_team *t, int spins) { atomic_store(&t->spins, spins); }

void cpu_team_close(cpu_team *t) {
    if (!t) return;
    atomic_store(&t->stop, true);
    atomic_fetch_add(&t->state, (uint64_t)1 << 32); /* a job of no items: none is left of the last */
    futex_wake(generation(t), INT_MAX);
    for (int i = 0; i < t->workers; i++) pthread_join(t->worker[i].thread, NULL);
    free(t);
}

/* VL_PIN=1: worker i stays on the i-th CPU that the process may use, round again where there are more workers.
 * The caller is the program's own thread and is left alone: it finds the first one free. */
static int pin_asked(bool *pin, vl_err *err) {
    const char *v = getenv("VL_PIN");
    *pin = v && !strcmp(v, "1");
    if (!v || !*v || *pin || !strcmp(v, "0")) return 0;
    return vl_fail(err, VL_E_USAGE, "VL_PIN=%s: expected 0 or 1", v);
}

static void pin(pthread_t thread, int index) {
    cpu_set_t all, one;
    if (sched_getaffinity(0, sizeof all, &all)) return; /* more CPUs than the mask holds: not pinned */
    int nth = index % CPU_COUNT(&all);
    size_t cpu = 0;
    while (!CPU_ISSET(cpu, &all) || nth-- > 0) cpu++;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    pthread_setaffinity_np(thread, sizeof one, &one);
}

int cpu_team_open(cpu_team **out, int threads, vl_err *err) {
    bool pinned;
    if (pin_asked(&pinned, err)) return -1;
    size_t bytes = sizeof(cpu_team) + (size_t)threads * sizeof(worker);
    cpu_team *t = aligned_alloc(64, (bytes + 63) & ~(size_t)63);
    if (!t) return vl_fail(err, VL_E_NOMEM, "no memory for %d threads", threads);
    memset(t, 0, bytes);
    atomic_store(&t->spins, SPINS);
    for (int i = 0; i + 1 < threads; i++) {
        worker *w = &t->worker[i];
        *w = (worker){.team = t, .index = i + 1};
        int rc = pthread_create(&w->thread, NULL, worker_main, w);
        if (rc) {
            vl_fail(err, VL_E_NOMEM, "thread %d of %d cannot be started: %s", i + 1, threads,
                    strerror(rc));
            cpu_team_close(t);
            return -1;
        }
        if (pinned) pin(w->thread, i + 1);
        t->workers++;
    }
    *out = t;
    return 0;
}
