/* items.c: a loop over items on a few threads that live as long as the loop: for work of milliseconds, such
 * as preparing a picture. (The ops of a model have a team that stays, kernels/cpu/team.h.) */
#include <pthread.h>
#include <stdatomic.h>

#include "common/common.h"

enum { MOST = 16 };

typedef struct job {
    vl_item_fn *fn;
    void *arg;
    int n;
    atomic_int next, threads;      /* both handed out                                         */
} job;

static void *work(void *arg) {
    job *j = arg;
    int thread = atomic_fetch_add(&j->threads, 1);
    for (int i; (i = atomic_fetch_add(&j->next, 1)) < j->n;) j->fn(j->arg, i, thread);
    return NULL;
}

int vl_items_threads(int threads) { return threads < 1 ? 1 : threads > MOST ? MOST : threads; }

void vl_items(int n, int threads, vl_item_fn *fn, void *arg) {
    job j = {.fn = fn, .arg = arg, .n = n};
    pthread_t others[MOST];
    int started = 0, want = vl_items_threads(threads);
    if (want > n) want = n;
    while (started + 1 < want && pthread_create(&others[started], NULL, work, &j) == 0) started++;
    work(&j);
    while (started > 0) pthread_join(others[--started], NULL);
}
