/* tiles.h: rows of x as products on tile registers (AMX) read them: bf16 pairs, in k blocks of CPU_TILE_KC terms,
 * blocks of 32 rows, steps of 32 terms:
 *
 *   [k block][32 rows][step][part][row][16 words]    a tile: 16 rows of a step, 1 KB in one piece, read in order
 *
 * parts: 1 in bf16 mode, VL_PARTS in exact mode. The last block of rows is filled up to a multiple of 16 with rows
 * that hold anything; fewer than 16 rows stand alone. So T rows of one part take no more than T * K floats do,
 * where K is a multiple of 32.
 */
#ifndef VL_TILES_H
#define VL_TILES_H

#include "kernels/cpu/ukernels.h"

enum { CPU_TILE_KC = 256, CPU_TILE_ROWS = 32 };

static inline int least(int a, int b) { return a < b ? a : b; }
static inline int up(int n, int step) { return (n + step - 1) / step * step; }

/* Rows that n of T rows, from a block's first on, take; n <= 32. */
static inline int cpu_tile_rows(int T, int n) { return T < 16 ? n : up(n, 16); }
static inline size_t cpu_tile_words(int parts, int T, int K) {
    return (size_t)parts * (size_t)(T < 16 ? T : up(T, 16)) * (size_t)up(K, 32) / 2;
}

/* Row `row` of the k block that holds term k (a multiple of 32), and in *step the words between its steps, in which
 * the parts follow one another evenly. */
static inline size_t cpu_tile_at(int parts, int T, int K, int row, int k, size_t *step) {
    int first = row / CPU_TILE_ROWS * CPU_TILE_ROWS, k0 = k / CPU_TILE_KC * CPU_TILE_KC;
    int steps = up(least(K - k0, CPU_TILE_KC), 32) / 32;
    size_t row_words = (size_t)parts * 16, all = (size_t)(T < 16 ? T : up(T, 16)) * row_words;
    *step = (size_t)cpu_tile_rows(T, least(T - first, CPU_TILE_ROWS)) * row_words;
    return all * (size_t)(k0 / 32) + (size_t)(first * steps) * row_words + *step * (size_t)((k - k0) / 32) +
           (size_t)(row - first) * 16;
}
/* What gemm_tiles and pack_tiles take as `part`. */
static inline size_t cpu_tile_part(int parts, size_t step) { return parts > 1 ? step / (size_t)parts : 0; }

/* Columns [k, k + n) of rows [row, row + rows) of x [T, K]: src (ld). k: a multiple of 32, n one as well unless
 * it ends the row; the rows are of one block. */
static inline void cpu_tile_put(const vl_ukernels *uk, uint32_t *tiles, int parts, int T, int K, int row, int rows, int k,
                                int n, const float *src, size_t ld) {
    while (n > 0) {
        size_t step, at = cpu_tile_at(parts, T, K, row, k, &step);
        int some = least(CPU_TILE_KC - k % CPU_TILE_KC, n);
        uk->pack_tiles(tiles + at, step, cpu_tile_part(parts, step), src, ld, rows, some);
        src += some, k += some, n -= some;
    }
}

#endif
