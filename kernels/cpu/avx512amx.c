/* avx512amx.c: the tile unit (AMX): TDPBF16PS on the panels of ukernels.h as they are, x rounded to bf16 or whole.
 *
 *   A tile: 16 rows of x, 16 pairs each (a row: 64 bytes)         A0  | C00  C01       32 rows x
 *   B tile: 16 pairs x 16 columns of a panel, rows 128 bytes      A1  | C10  C11       32 columns
 *   C tile: 16 rows x 16 columns f32                                    B0   B1
 *
 * Four products for four loads, or twelve for eight where x comes in three parts, and only C lives long: a sum goes
 * on where the last call left it. The instruction adds up even and odd terms of a step apart and then together
 * before C, other than vdpbf16ps; every product of this tier is therefore made here. Rows do not mix, so a row has
 * the same bits alone.
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
enum { B_STEP = SIDE * VL_NR, C_BYTES = VL_NR * 4, B_BYTES = VL_NR * 4 };

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
    _mm_sfence(); /* what finish_tiles wrote past the caches */
}

/* dst [rows][16] = the first `words` of each row of src (ld), then zeros. */
static void pad(uint32_t *dst, const uint32_t *src, size_t ld, int rows, int words) {
    __mmask16 m = (__mmask16)((1 << words) - 1);
    for (int r = 0; r < rows; r++)
        _mm512_storeu_si512(dst + r * SIDE, _mm512_maskz_loadu_epi32(m, src + (size_t)r * ld));
}

/* Sixteen pairs, fewer at the end of K, as whole tiles. */
typedef struct ends {
    _Alignas(64) uint32_t a[VL_PARTS][2 * SIDE * SIDE];
    _Alignas(64) uint32_t b[SIDE * VL_NR];
} ends;

static void put_ends(ends *e, const vl_tile_sum *t, const uint32_t *a, const uint32_t *panel, int pairs, int rows) {
    for (size_t p = 0; p < (t->part ? VL_PARTS : 1); p++) pad(e->a[p], a + p * t->part, t->lda, rows, pairs);
    memset(e->b, 0, sizeof e->b);
    memcpy(e->b, panel, (size_t)pairs * B_BYTES);
    WRITTEN();
}

/* Lines of `ahead` for each of the steps. */
static size_t share_of(const vl_tile_sum *t, int steps) {
    size_t parts = (size_t)(steps > 0 ? steps : 1) * 64;
    return t->ahead ? (t->ahead_bytes + parts - 1) / parts * 64 : 0;
}

static inline const uint8_t *ask(const uint8_t *ahead, size_t share) {
    for (; share > 0; share -= 64, ahead += 64) __builtin_prefetch(ahead, 0, 2);
    return ahead;
}

/* A step of 32 rows, of up to 16; ld: bytes between rows of a; parts: 1 or VL_PARTS, a constant where inlined. */
static inline __attribute__((always_inline)) void square_step(const uint32_t *a, size_t ld, size_t part, int parts,
                                                              const uint32_t *b) {
    a += (size_t)(parts - 1) * part;
    _tile_loadd(B0, b, B_BYTES);
    _tile_loadd(A0, a, ld);
    _tile_loadd(B1, b + SIDE, B_BYTES);
    for (int p = parts;; a -= part) {
        _tile_dpbf16ps(C00, A0, B0);
        _tile_loadd(A1, a + SIDE * ld / 4, ld);
        _tile_dpbf16ps(C01, A0, B1);
        _tile_dpbf16ps(C10, A1, B0);
        _tile_dpbf16ps(C11, A1, B1);
        if (--p == 0) break;
        _tile_loadd(A0, a - part, ld);
    }
}
static inline __attribute__((always_inline)) void strip_step(const uint32_t *a, size_t ld, size_t part, int parts,
                                                             const uint32_t *b) {
    _tile_loadd(B0, b, B_BYTES);
    _tile_loadd(B1, b + SIDE, B_BYTES);
    for (int p = parts - 1; p >= 0; p--) {
        _tile_loadd(A0, a + (size_t)p * part, ld);
        _tile_dpbf16ps(C00, A0, B0);
        _tile_dpbf16ps(C01, A0, B1);
    }
}

/* 32 rows x 32 columns. t is read field by field, as it was written: a copy in wide words would have to wait until
 * every store before it has left for the cache, those of the last square among them. */
static inline __attribute__((always_inline)) void square(const vl_tile_sum *t, float *c, const uint32_t *a, int parts) {
    float *low = c + SIDE * VL_NR;
    const uint32_t *b = t->panel;
    size_t ld = t->lda * 4, step = t->step;
    int pairs = (t->kc + 1) / 2, steps = pairs / SIDE;
    const uint8_t *ahead = t->ahead;
    size_t share = share_of(t, steps);
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
    for (int s = 0; s < steps; s++, a += step, b += B_STEP) {
        ahead = ask(ahead, share);
        square_step(a, ld, t->part, parts, b);
    }
    if (pairs > steps * SIDE) {
        ends e;
        put_ends(&e, t, a, b, pairs - steps * SIDE, 2 * SIDE);
        square_step(e.a[0], (size_t)SIDE * 4, sizeof e.a[0] / 4, parts, e.b);
    }
    _tile_stored(C00, c, C_BYTES);
    _tile_stored(C01, c + SIDE, C_BYTES);
    _tile_stored(C10, low, C_BYTES);
    _tile_stored(C11, low + SIDE, C_BYTES);
}

/* Up to 16 rows. Ahead of use by 4 KiB where the panel comes from memory (few rows), as in simd.inc. */
static inline __attribute__((always_inline)) void strip(const vl_tile_sum *t, float *c, const uint32_t *a, int rows,
                                                        int parts) {
    const uint32_t *b = t->panel;
    size_t ld = t->lda * 4, step = t->step;
    int pairs = (t->kc + 1) / 2, steps = pairs / SIDE;
    bool stream = rows <= VL_GEMV_ROWS;
    const uint8_t *ahead = t->ahead;
    size_t share = share_of(t, steps);
    if (t->add) {
        _tile_loadd(C00, c, C_BYTES);
        _tile_loadd(C01, c + SIDE, C_BYTES);
    } else {
        _tile_zero(C00);
        _tile_zero(C01);
    }
    for (int s = 0; s < steps; s++, a += step, b += B_STEP) {
        for (int i = 0; stream && i < B_STEP; i += SIDE) __builtin_prefetch(b + 1024 + i);
        ahead = ask(ahead, share);
        strip_step(a, ld, t->part, parts, b);
    }
    if (pairs > steps * SIDE) {
        ends e;
        put_ends(&e, t, a, b, pairs - steps * SIDE, rows);
        strip_step(e.a[0], (size_t)SIDE * 4, sizeof e.a[0] / 4, parts, e.b);
    }
    _tile_stored(C00, c, C_BYTES);
    _tile_stored(C01, c + SIDE, C_BYTES);
}

/* The parts of a row alone are the rows of one tile: a step is two products, not six. What they add up to in the step,
 * and the instruction would have added to C one after the other, is added here in that order: the same bits. */
static void single(const vl_tile_sum *t) {
    _Alignas(64) float sums[2][VL_PARTS * SIDE];
    const uint32_t *a = t->a, *b = t->panel;
    __m512 lo = _mm512_setzero_ps(), hi = lo;
    unsigned modes = _mm_getcsr();
    _mm_setcsr(modes | 0x8040); /* the instruction adds to C without subnormals */
    if (t->add) lo = _mm512_loadu_ps(t->c), hi = _mm512_loadu_ps(t->c + SIDE);
    for (int left = (t->kc + 1) / 2; left > 0; left -= SIDE, a += t->step, b += B_STEP) {
        ends e;
        bool whole = left >= SIDE;
        if (!whole) put_ends(&e, &(vl_tile_sum){.lda = t->part}, a, b, left, VL_PARTS);
        for (int i = 0; i < B_STEP; i += SIDE) __builtin_prefetch(b + 1024 + i);
        _tile_loadd(B0, whole ? b : e.b, B_BYTES);
        _tile_loadd(A0, whole ? a : e.a[0], whole ? t->part * 4 : 64);
        _tile_zero(C00);
        _tile_dpbf16ps(C00, A0, B0);
        _tile_loadd(B1, whole ? b + SIDE : e.b + SIDE, B_BYTES);
        _tile_zero(C01);
        _tile_dpbf16ps(C01, A0, B1);
        _tile_stored(C00, sums[0], 64);
        _tile_stored(C01, sums[1], 64);
        WRITTEN();
        for (int p = VL_PARTS - 1; p >= 0; p--) {
            lo = _mm512_add_ps(lo, _mm512_load_ps(sums[0] + p * SIDE));
            hi = _mm512_add_ps(hi, _mm512_load_ps(sums[1] + p * SIDE));
        }
    }
    _mm512_storeu_ps(t->c, lo);
    _mm512_storeu_ps(t->c + SIDE, hi);
    _mm_setcsr(modes);
}

void gemm_tiles_amx(const vl_tile_sum *t) {
    float *c = t->c;
    const uint32_t *a = t->a;
    if (t->part && t->rows == 1) {
        configure(VL_PARTS);
        single(t);
        return;
    }
    for (int left = t->rows, n; left > 0; left -= n, c += n * VL_NR, a += (size_t)n * t->lda) {
        n = left >= 2 * SIDE ? 2 * SIDE : left > SIDE ? SIDE : left;
        configure(n < SIDE ? n : SIDE);
        if (n == 2 * SIDE && t->part) square(t, c, a, VL_PARTS);
        else if (n == 2 * SIDE) square(t, c, a, 1);
        else if (t->part) strip(t, c, a, n, VL_PARTS);
        else strip(t, c, a, n, 1);
    }
}
