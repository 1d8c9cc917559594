/* avx512amx.c: bf16 mode on the tile unit (AMX): TDPBF16PS on the panels of ukernels.h as they are.
 *
 *   A tile: 16 rows of x, 16 pairs each (a row: 64 bytes)         A0  | C00  C01       32 rows x
 *   B tile: 16 pairs x 16 columns of a panel, rows 128 bytes      A1  | C10  C11       32 columns
 *   C tile: 16 rows x 16 columns f32                                    B0   B1
 *
 * Four products for four loads, and only C lives long: a sum goes on where the last call left it. The
 * instruction adds 16 pairs to C at a time in an order of its own, other than that of vdpbf16ps; every
 * product of this tier is therefore made here. Rows do not mix, so a row has the same bits alone.
 *
 * What comes next from memory is asked for in every step, a few lines at a time: in one burst they would
 * take the buffers that the loads of the step need. */
#include <immintrin.h>

#include "kernels/cpu/ukernels.h"

enum { SIDE = 16 };
/* Tiles by number: the intrinsics paste it into the instruction. */
#define C00 0
#define C01 1
#define C10 2
#define C11 3
#define A0 4
#define A1 5
#define B0 6
#define B1 7
enum { A_STEP = SIDE, B_STEP = SIDE * VL_NR, C_BYTES = VL_NR * 4, B_BYTES = VL_NR * 4 };

/* The compiler does not know what the tile instructions read: stores stay before this. */
#define WRITTEN() __asm__ volatile("" ::: "memory")

/* What the thread's tiles are configured for: rows of A and C; 0: released. */
static _Thread_local int configured;

static void configure(int rows) {
    struct { uint8_t palette, start, zero[14]; uint16_t bytes[16]; uint8_t rows[16]; } config = {.palette = 1};
    if (configured == rows) return;
    for (int i = C00; i <= B1; i++) {
        config.bytes[i] = 64;
        config.rows[i] = (uint8_t)(i < B0 ? rows : SIDE);
    }
    WRITTEN();
    _tile_loadconfig(&config);
    configured = rows;
}

void tiles_end_amx(void) {
    if (configured) _tile_release();
    configured = 0;
}

/* dst [rows][16] = the first `words` of each row of src (ld), then zeros. */
static void pad(uint32_t *dst, const uint32_t *src, size_t ld, int rows, int words) {
    __mmask16 m = (__mmask16)((1 << words) - 1);
    for (int r = 0; r < rows; r++)
        _mm512_storeu_si512(dst + r * SIDE, _mm512_maskz_loadu_epi32(m, src + (size_t)r * ld));
}

/* Sixteen pairs, fewer at the end of K, as whole tiles. */
typedef struct ends {
    _Alignas(64) uint32_t a[2 * SIDE * SIDE];
    _Alignas(64) uint32_t b[SIDE * VL_NR];
} ends;

static void put_ends(ends *e, const uint32_t *a, size_t lda, const uint32_t *panel, int pairs, int rows) {
    pad(e->a, a, lda, rows, pairs);
    memset(e->b, 0, sizeof e->b);
    memcpy(e->b, panel, (size_t)pairs * B_BYTES);
    WRITTEN();
}

/* One call's place in its sums: where the operands of the next step lie. */
typedef struct place {
    const uint32_t *a, *panel;
    const uint8_t *ahead;
    size_t lda, step, share;       /* words; share: bytes asked for in each step               */
    int pairs;
    ends *e;
} place;

static place begin(const vl_tile_sum *t, ends *e) {
    int pairs = (t->kc + 1) / 2;
    size_t steps = (size_t)(pairs + SIDE - 1) / SIDE;
    return (place){t->a, t->panel, t->ahead, t->lda, t->step,
                   t->ahead ? (t->ahead_bytes + steps * 64 - 1) / (steps * 64) * 64 : 0, pairs, e};
}

/* The last step of a K that is no multiple of 32: its operands as whole tiles. */
static void cut(place *p, int rows) {
    put_ends(p->e, p->a, p->lda, p->panel, p->pairs, rows);
    p->a = p->e->a, p->panel = p->e->b, p->lda = SIDE;
}

static inline void ask(const place *p) {
    for (size_t i = 0; i < p->share; i += 64) __builtin_prefetch(p->ahead + i, 0, 2);
}

static inline void go_on(place *p) {
    p->a += p->step, p->panel += B_STEP, p->pairs -= SIDE, p->ahead += p->share;
}

/* 32 rows x 32 columns. */
static void square(const vl_tile_sum *t) {
    float *c = t->c, *low = c + SIDE * VL_NR;
    ends e;
    if (t->add) {
        _tile_loadd(C00, c, C_BYTES);
        _tile_loadd(C01, c + SIDE, C_BYTES);
        _tile_loadd(C10, low, C_BYTES);
        _tile_loadd(C11, low + SIDE, C_BYTES);
    } else {
        _tile_zero(C00);
        _tile_zero(C01);
        _tile_zero(C10);
        _tile_zero(C11);
    }
    for (place p = begin(t, &e); p.pairs > 0; go_on(&p)) {
        if (p.pairs < SIDE) cut(&p, 2 * SIDE);
        ask(&p);
        _tile_loadd(B0, p.panel, B_BYTES);
        _tile_loadd(A0, p.a, p.lda * 4);
        _tile_loadd(B1, p.panel + SIDE, B_BYTES);
        _tile_dpbf16ps(C00, A0, B0);
        _tile_loadd(A1, p.a + SIDE * p.lda, p.lda * 4);
        _tile_dpbf16ps(C01, A0, B1);
        _tile_dpbf16ps(C10, A1, B0);
        _tile_dpbf16ps(C11, A1, B1);
    }
    _tile_stored(C00, c, C_BYTES);
    _tile_stored(C01, c + SIDE, C_BYTES);
    _tile_stored(C10, low, C_BYTES);
    _tile_stored(C11, low + SIDE, C_BYTES);
}

/* Up to 16 rows. Ahead of use by 4 KiB where the panel comes from memory (few rows), as in simd.inc. */
static void strip(const vl_tile_sum *t) {
    float *c = t->c;
    bool stream = t->rows <= VL_GEMV_ROWS;
    ends e;
    if (t->add) {
        _tile_loadd(C00, c, C_BYTES);
        _tile_loadd(C01, c + SIDE, C_BYTES);
    } else {
        _tile_zero(C00);
        _tile_zero(C01);
    }
    for (place p = begin(t, &e); p.pairs > 0; go_on(&p)) {
        for (int i = 0; stream && i < B_STEP; i += SIDE) __builtin_prefetch(p.panel + 1024 + i);
        if (p.pairs < SIDE) cut(&p, t->rows);
        ask(&p);
        _tile_loadd(A0, p.a, p.lda * 4);
        _tile_loadd(B0, p.panel, B_BYTES);
        _tile_loadd(B1, p.panel + SIDE, B_BYTES);
        _tile_dpbf16ps(C00, A0, B0);
        _tile_dpbf16ps(C01, A0, B1);
    }
    _tile_stored(C00, c, C_BYTES);
    _tile_stored(C01, c + SIDE, C_BYTES);
}

void gemm_tiles_amx(const vl_tile_sum *sum) {
    vl_tile_sum t = *sum;
    for (int left = t.rows; left > 0; left -= t.rows) {
        t.rows = left >= 2 * SIDE ? 2 * SIDE : left > SIDE ? SIDE : left;
        configure(t.rows < SIDE ? t.rows : SIDE);
        if (t.rows == 2 * SIDE) square(&t);
        else strip(&t);
        t.c += t.rows * VL_NR, t.a += (size_t)t.rows * t.lda;
    }
}
