/* linear_tiles.c: linear on tile registers (AMX), on the bf16 panels of linear.c: in bf16 mode, where x is rounded,
 * and in exact mode, where x is the sum of three bf16 numbers and each step of a product is three.
 *
 *   T <= 8   each panel is streamed once from memory while T rows of x, rounded, sit in cache
 *   T >  8   rows of x are packed as tiles (tiles.h), which all threads read:
 *
 *              x, packed                           panels of a group      sums
 *              k block 0: [32 rows][step] tiles    [KC / 2][32] 16 KB     [panel][rows][32] f32
 *              k block 1: [32 rows][step] tiles    [KC / 2][32]        +=
 *                16 KB for 32 rows, read in order  in L1                  in L2
 *
 * KC is what L1 holds of a panel beside the tiles that stream past it; what comes next of the weights is asked for
 * into L2 meanwhile. Where x fits L2, a panel takes all k blocks in turn, one stream of weights; where it does not,
 * a group of panels shares a k block of x while that is there, and in exact mode each block of its rows.
 * Work is handed out by panel (output columns), never along K, and tiles go on with a sum where it was left, so
 * threads, T and blocking cannot change a bit. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/tiles.h"

enum {
    ROWS = CPU_TILE_ROWS,
    KC = CPU_TILE_KC,
    PASS_ROWS = 512,               /* most rows in a pass                                    */
    RESIDENT = 1 << 20,            /* bytes of x that stay in L2 whole: each panel then goes alone */
    SUMS = 1 << 20,                /* else, bytes of sums of a group                         */
    GROUP = 16, SPLIT_GROUP = 8    /* and most panels in it, of exact mode                   */
};

typedef struct tile_job {
    const vl_ukernels *k;
    const cpu_weight *p;
    float *out;
    const float *x, *bias;
    size_t ldo, ldx;
    int T, N, K, panels, group, threads, parts;
    int row0, rows;                /* of this pass                                           */
    vl_epilogue epi;
    uint32_t *tiles;               /* packed x; where `packed`, [thread] its own              */
    bool *packed;                  /* [thread] whether it is                                  */
    uint32_t *kept;                /* out as the next linear's x, or NULL: floats            */
    float *sums;                   /* [thread][group][sum_rows][32]                          */
    size_t sum_rows;
} tile_job;

static const uint8_t *panel_at(const tile_job *j, int panel, int k) {
    return (const uint8_t *)j->p->panels + (size_t)panel * j->p->panel_bytes + (size_t)k * 2 * VL_NR;
}

static void finish(const tile_job *j, int panel, const float *sums, int row, int rows) {
    int col = panel * VL_NR, n = least(j->N - col, VL_NR);
    const float *bias = j->bias ? j->bias + col : NULL;
    float *out = j->out + (size_t)row * j->ldo + col;
    if (j->parts > 1) { /* exact mode */
        for (int r = 0; r < rows; r++) j->k->epilogue(out + (size_t)r * j->ldo, sums + r * VL_NR, bias, n, j->epi);
        return;
    }
    if (j->kept) { /* 32 columns are one step of the next product */
        float part[ROWS * VL_NR] __attribute__((aligned(64)));
        j->k->finish_tiles(part, VL_NR, sums, bias, rows, n, j->epi);
        cpu_tile_put(j->k, j->kept, 1, j->T, j->N, row, rows, col, n, part, VL_NR);
        return;
    }
    j->k->finish_tiles(out, j->ldo, sums, bias, rows, n, j->epi);
}

/* ---- a few rows ------------------------------------------------------------------------------- */

/* Each thread packs all rows for itself: that takes less time than fetching them from where another packed them. */
static const uint32_t *own_tiles(const tile_job *j, int thread) {
    if (!j->packed) return j->tiles;
    uint32_t *own = j->tiles + (size_t)thread * cpu_tile_words(j->parts, j->T, j->K);
    if (!j->packed[thread]) cpu_tile_put(j->k, own, j->parts, j->T, j->K, 0, j->T, 0, j->K, j->x, j->ldx);
    j->packed[thread] = true;
    return own;
}

static void few_item(void *arg, int item, int thread) {
    const tile_job *j = arg;
    float sums[VL_GEMV_ROWS * VL_NR] __attribute__((aligned(64)));
    int first = 0, end = cpu_run_of(j->panels, j->threads, j->panels, item, &first);
    vl_tile_sum t = {.c = sums, .a = own_tiles(j, thread), .lda = 16, .kc = j->K, .rows = j->T};
    cpu_tile_at(j->parts, j->T, j->K, 0, 0, &t.step); /* in one block of rows, steps are as far apart across k blocks */
    t.part = cpu_tile_part(j->parts, t.step);
    for (int i = first; i < end; i++) {
        t.panel = panel_at(j, i, 0);
        j->k->gemm_tiles(&t);
        finish(j, i, sums, 0, j->T);
    }
    j->k->tiles_end();
}

static void few(cpu_backend *b, tile_job *j) {
    if (!j->tiles) {
        size_t all = (size_t)j->threads * cpu_tile_words(j->parts, j->T, j->K) * sizeof *j->tiles;
        j->tiles = cpu_scratch(b, all + (size_t)j->threads * sizeof *j->packed);
        j->packed = (bool *)(void *)((uint8_t *)j->tiles + all);
        memset(j->packed, 0, (size_t)j->threads * sizeof *j->packed);
    }
    cpu_team_run(b->team, cpu_run_count(j->panels, j->threads, j->panels), few_item, j);
}

/* ---- many rows -------------------------------------------------------------------------------- */

static void pack_item(void *arg, int item, int thread) {
    const tile_job *j = arg;
    int row = item * ROWS, rows = least(j->T - row, ROWS);
    (void)thread;
    cpu_tile_put(j->k, j->tiles, j->parts, j->T, j->K, row, rows, 0, j->K, j->x + (size_t)row * j->ldx, j->ldx);
}

/* Asks for the lines that the epilogue of a block is about to write, while its last sums are made. */
static void fetch_rows(const float *out, size_t ldo, int rows, int n) {
    for (int r = 0; r < rows; r++, out += ldo) {
        __builtin_prefetch(out, 1);
        if (n > 16) __builtin_prefetch(out + 16, 1);
    }
}

/* The panels [first, end) of a run, of which a group meets block b of so many blocks of rows. */
typedef struct turn { int first, end, b, blocks; } turn;

/* While a panel is met at term k, its share of what comes after it is asked for. */
static void ask_ahead(const tile_job *j, vl_tile_sum *t, const turn *u, int panel, int k) {
    bool in_group = j->parts == 1 && panel + 1 < least(u->first + j->group, u->end);
    if (in_group) panel++;
    else {
        if (j->parts == 1) panel = u->first;
        if ((k += KC) >= j->K) k = 0, panel += j->group;
    }
    if (panel >= u->end) return;
    size_t bytes = (size_t)least(j->K - k, KC) * 2 * VL_NR, share = (size_t)up((int)bytes / u->blocks, 64);
    size_t from = share * (size_t)u->b;
    if (from >= bytes) return;
    t->ahead = panel_at(j, panel, k) + from;
    t->ahead_bytes = share < bytes - from ? share : bytes - from;
}

/* One k block of one panel meets a block of rows. */
static void meet(const tile_job *j, const turn *u, int panel, int k, float *sums) {
    int kc = least(j->K - k, KC), row = j->row0 + u->b * ROWS, rows = least(j->T - row, ROWS), col = panel * VL_NR;
    vl_tile_sum t = {.c = sums + (size_t)(u->b * ROWS) * VL_NR, .lda = 16, .panel = panel_at(j, panel, k), .kc = kc,
                     .rows = cpu_tile_rows(j->T, rows), .add = k > 0};
    t.a = j->tiles + cpu_tile_at(j->parts, j->T, j->K, row, k, &t.step);
    t.part = cpu_tile_part(j->parts, t.step);
    ask_ahead(j, &t, u, panel, k);
    bool last = k + kc == j->K;
    if (last && j->epi == VL_EPI_ADD) fetch_rows(j->out + (size_t)row * j->ldo + col, j->ldo, rows, j->N - col);
    j->k->gemm_tiles(&t);
    if (last) finish(j, panel, t.c, row, rows);
}

/* Panels in runs (cpu_run_of), run by run in groups: all k blocks of one group, then the next group. In a k block
 * either the panels go by a block of rows, which stays where it is read three times as often, or the rows by a panel. */
static void many_item(void *arg, int item, int thread) {
    const tile_job *j = arg;
    turn u = {.blocks = up(j->rows, ROWS) / ROWS};
    size_t stride = j->sum_rows * VL_NR;
    float *sums = j->sums + (size_t)(thread * j->group) * stride;
    u.end = cpu_run_of(j->panels, j->threads, j->panels, item, &u.first);
    for (; u.first < u.end; u.first += j->group)
        for (int k = 0, n = least(j->group, u.end - u.first); k < j->K; k += KC)
            for (int i = 0; i < n * u.blocks; i++) {
                int p = j->parts > 1 ? i % n : i / u.blocks;
                u.b = j->parts > 1 ? i / n : i % u.blocks;
                meet(j, &u, u.first + p, k, sums + (size_t)p * stride);
            }
    j->k->tiles_end();
}

static void many(cpu_backend *b, tile_job *j) {
    int passes = (j->T + PASS_ROWS - 1) / PASS_ROWS, pass = up((j->T + passes - 1) / passes, ROWS);
    size_t tiles = j->tiles ? 0 : (cpu_tile_words(j->parts, j->T, j->K) + 15) & ~(size_t)15;
    j->sum_rows = (size_t)pass;
    bool resident = j->parts == 1 && (size_t)pass * (size_t)j->K * 2 <= RESIDENT;
    j->group = resident ? 1 : least(SUMS / (pass * VL_NR * 4), j->parts > 1 ? SPLIT_GROUP : GROUP);
    uint32_t *scratch = cpu_scratch(b, (tiles + (size_t)(j->threads * j->group) * j->sum_rows * VL_NR) * sizeof *scratch);
    j->sums = (float *)(void *)(scratch + tiles);
    if (!j->tiles) {
        j->tiles = scratch;
        cpu_team_run(b->team, up(j->T, ROWS) / ROWS, pack_item, j);
    }
    for (j->row0 = 0; j->row0 < j->T; j->row0 += pass) {
        j->rows = least(j->T - j->row0, pass);
        cpu_team_run(b->team, cpu_run_count(j->panels, j->threads, j->panels), many_item, j);
    }
}

/* Parts of x take half again its room, so a pass of rows is packed at a time. */
static void passes(cpu_backend *b, const tile_job *all) {
    int n = (all->T + PASS_ROWS - 1) / PASS_ROWS;
    for (int row = 0, rows; row < all->T; row += rows, n--) {
        tile_job j = *all;
        rows = j.T = least(all->T - row, up((all->T - row + n - 1) / n, ROWS));
        j.x += (size_t)row * j.ldx;
        j.out += (size_t)row * j.ldo;
        many(b, &j);
    }
}

void cpu_tiles_linear(cpu_backend *b, float *out, int ldo, const float *x, int ldx, int T, const vl_matrix *w,
                      const float *bias, vl_epilogue epi) {
    const cpu_weight *p = w->impl;
    tile_job j = {.k = &b->k, .p = p, .out = out, .x = x, .bias = bias, .ldo = (size_t)ldo, .ldx = (size_t)ldx,
                  .T = T, .N = w->rows, .K = w->cols, .panels = p->n_panels, .threads = b->base.threads,
                  .parts = b->split ? VL_PARTS : 1, .epi = epi};
    if (cpu_kept(b, x, j.K)) j.tiles = (uint32_t *)(void *)(uintptr_t)x;
    if (cpu_kept(b, out, j.N)) j.kept = (uint32_t *)(void *)out;
    vl_assert(!(j.kept && epi == VL_EPI_ADD), "%s adds to rows that only linear reads", w->name);
    if (T > 0 && T <= VL_GEMV_ROWS) few(b, &j);
    else if (j.parts == 1) many(b, &j);
    else passes(b, &j);
}
