/* avx512amx.c: bf16 mode on the tile unit (AMX): TDPBF16PS on the panels of ukernels.h as they are.
 *
 *   A tile: 16 rows of x, 16 pairs each (a row: 64 bytes)         A0  | C00  C01       32 rows x
 *   B tile: 16 pairs x 16 columns of a panel, rows 128 bytes      A1  | C10  C11       32 columns
 *   C tile: 16 rows x 16 columns f32                                    B0   B1
 *
 * Four products for four loads, and only C lives long: a sum goes on where the last call left it. The
 * instruction adds 16 pairs to C at a time in an order of its own, other than that of vdpbf16ps; every
 * product of this tier is therefore made here. Rows do not mix, so a row has the same bits alone. */
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

/* 32 rows x 32 columns. */
static void square(float *c, const uint32_t *a, size_t lda, const uint32_t *panel, int pairs, bool add) {
    const float *low = c + SIDE * VL_NR;
    size_t step = lda * 4;
    if (add) {
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
    ends e;
    for (; pairs > 0; pairs -= SIDE, a += A_STEP, panel += B_STEP) {
        const uint32_t *top = a, *b = panel;
        if (pairs < SIDE) {
            put_ends(&e, a, lda, panel, pairs, 2 * SIDE);
            top = e.a, b = e.b, step = SIDE * 4;
        }
        _tile_loadd(B0, b, B_BYTES);
        _tile_loadd(A0, top, step);
        _tile_loadd(B1, b + SIDE, B_BYTES);
        _tile_dpbf16ps(C00, A0, B0);
        _tile_loadd(A1, top + SIDE * (step / 4), step);
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
static void strip(float *c, const uint32_t *a, size_t lda, const uint32_t *panel, int pairs, int rows,
                  bool add) {
    size_t step = lda * 4;
    bool stream = rows <= VL_GEMV_ROWS;
    if (add) {
        _tile_loadd(C00, c, C_BYTES);
        _tile_loadd(C01, c + SIDE, C_BYTES);
    } else {
        _tile_zero(C00);
        _tile_zero(C01);
    }
    ends e;
    for (; pairs > 0; pairs -= SIDE, a += A_STEP, panel += B_STEP) {
        const uint32_t *top = a, *b = panel;
        if (pairs < SIDE) {
            put_ends(&e, a, lda, panel, pairs, rows);
            top = e.a, b = e.b, step = SIDE * 4;
        }
        for (int i = 0; stream && i < B_STEP; i += SIDE) __builtin_prefetch(panel + 1024 + i);
        _tile_loadd(A0, top, step);
        _tile_loadd(B0, b, B_BYTES);
        _tile_loadd(B1, b + SIDE, B_BYTES);
        _tile_dpbf16ps(C00, A0, B0);
        _tile_dpbf16ps(C01, A0, B1);
    }
    _tile_stored(C00, c, C_BYTES);
    _tile_stored(C01, c + SIDE, C_BYTES);
}

void gemm_tiles_amx(float *c, const void *a, size_t lda, const void *panel, int kc, int rows, bool add) {
    const uint32_t *x = a;
    int pairs = (kc + 1) / 2;
    while (rows > 0) {
        int n = rows >= 2 * SIDE ? 2 * SIDE : rows > SIDE ? SIDE : rows;
        configure(n < SIDE ? n : SIDE);
        if (n == 2 * SIDE) square(c, x, lda, panel, pairs, add);
        else strip(c, x, lda, panel, pairs, n, add);
        c += n * VL_NR, x += (size_t)n * lda, rows -= n;
    }
}
