/* rows_tiles.c: norms and swiglu whose results only linear reads, in bf16 mode on tile registers (AMX): a row is
 * computed beside the others of a few, rounded, and put where the products look for it (tiles.h). The values are
 * those of the plain ops, rounded where linear would have rounded them. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/tiles.h"

enum {
    AT_A_TIME = 8,                 /* rows of an item: they stay in L1 or L2 until they are put; divides 32 */
    SHARED = 1024                  /* elements from which a second thread is worth waking     */
};

typedef struct kept_job {
    const cpu_backend *b;
    cpu_kept_row row;
    int each;                      /* rows of an item: AT_A_TIME, or fewer so that every thread has some; a power of two */
    float *temp;                   /* [thread][AT_A_TIME][D] */
} kept_job;

static void kept_item(void *arg, int item, int thread) {
    const kept_job *j = arg;
    const cpu_kept_row *w = &j->row;
    int first = item * j->each, n = least(w->T - first, j->each);
    size_t D = (size_t)w->D;
    float *temp = j->temp + (size_t)thread * AT_A_TIME * D;
    for (int r = 0; r < n; r++) {
        const float *x = w->x + (size_t)(first + r) * D;
        float *out = temp + (size_t)r * D;
        if (w->up) j->b->k.swiglu(out, x, w->up + (size_t)(first + r) * D, w->D);
        else if (w->bias) j->b->k.layernorm(out, x, w->w, w->bias, w->D, w->eps);
        else j->b->k.rmsnorm(out, x, w->w, w->D, w->eps);
    }
    cpu_tile_put(&j->b->k, (uint32_t *)(void *)w->out, 1, w->T, w->D, first, n, 0, w->D, temp, D);
}

bool cpu_kept_rows(cpu_backend *b, cpu_kept_row row) {
    pthread_mutex_lock(&b->lock);
    bool kept = cpu_kept(b, row.out, row.D);
    if (kept && row.T > 0) {
        kept_job j = {b, row, AT_A_TIME, cpu_scratch(b, (size_t)b->base.threads * AT_A_TIME * (size_t)row.D * sizeof(float))};
        while (j.each > 1 && (row.T + j.each - 1) / j.each < b->base.threads && row.T * row.D >= SHARED) j.each /= 2;
        cpu_team_run(b->team, (row.T + j.each - 1) / j.each, kept_item, &j);
    }
    pthread_mutex_unlock(&b->lock);
    return kept;
}
