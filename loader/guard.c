/* guard.c: reading past the end of a mapped file that was truncated raises SIGBUS. The handler
 * here puts zero pages under the rest of that mapping, sets its flag and returns, so the reader
 * goes on and vl_guard_broken() tells its owner that what was read cannot be trusted.
 *
 * The handler only walks a list of regions whose nodes are never freed (a removed one is reused),
 * with atomic loads, and calls mmap: no lock, no allocation, safe in any thread. It is installed
 * once. An address in no region, or a SIGBUS sent by kill(), goes to the handler that was there
 * before; if that was the default, the process ends as it would have.
 */
#include "loader/guard.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

struct vl_guard {
    _Atomic uintptr_t begin, end;  /* begin == end: free for reuse */
    atomic_bool broken;
    struct vl_guard *next;
};

static _Atomic(vl_guard *) regions;
static pthread_mutex_t adding = PTHREAD_MUTEX_INITIALIZER;
static struct sigaction previous;
static uintptr_t page_size;

static vl_guard *find(uintptr_t address) {
    for (vl_guard *g = atomic_load(&regions); g; g = g->next) {
        uintptr_t end = atomic_load(&g->end); /* before begin: see vl_guard_add */
        if (address < end && address >= atomic_load(&g->begin)) return g;
    }
    return NULL;
}

static void on_sigbus(int signo, siginfo_t *info, void *context) {
    uintptr_t address = (uintptr_t)info->si_addr;
    vl_guard *g = info->si_code > 0 ? find(address) : NULL;
    if (g) {
        uintptr_t page = address & ~(page_size - 1), end = atomic_load(&g->end);
        /* The call itself: a sanitizer's wrapper of mmap is not made for handlers. */
        long zeros = syscall(SYS_mmap, page, end - page, PROT_READ,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        atomic_store(&g->broken, true);
        if (zeros != -1) return;
    }
    if (!g && (previous.sa_flags & SA_SIGINFO)) {
        previous.sa_sigaction(signo, info, context);
    } else if (!g && previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN) {
        previous.sa_handler(signo);
    } else { /* the faulting access, or the signal raised anew, ends the process */
        signal(SIGBUS, SIG_DFL);
        if (info->si_code <= 0) raise(SIGBUS);
    }
}

static void install(void) {
    struct sigaction sa = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigemptyset(&sa.sa_mask);
    page_size = (uintptr_t)sysconf(_SC_PAGESIZE);
    sigaction(SIGBUS, NULL, &previous); /* known before the first signal can arrive */
    sigaction(SIGBUS, &sa, NULL);
}

vl_guard *vl_guard_add(const void *base, size_t bytes) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, install);
    pthread_mutex_lock(&adding);
    vl_guard *g = atomic_load(&regions);
    while (g && atomic_load(&g->begin) != atomic_load(&g->end)) g = g->next;
    if (!g && (g = calloc(1, sizeof *g)) != NULL) {
        g->next = atomic_load(&regions);
        atomic_store(&regions, g);
    }
    if (g) {
        atomic_store(&g->broken, false);
        atomic_store(&g->begin, (uintptr_t)base); /* end is 0: still empty until */
        atomic_store(&g->end, (uintptr_t)base + bytes); /* here */
    }
    pthread_mutex_unlock(&adding);
    return g;
}

void vl_guard_remove(vl_guard *g) {
    if (!g) return;
    pthread_mutex_lock(&adding);
    atomic_store(&g->end, 0);
    atomic_store(&g->begin, 0);
    pthread_mutex_unlock(&adding);
}

bool vl_guard_broken(const vl_guard *g) { return atomic_load(&g->broken); }

bool vl_guard_covers(const void *data, size_t bytes) {
    const vl_guard *g = find((uintptr_t)data);
    return g && bytes <= atomic_load(&g->end) - (uintptr_t)data;
}
