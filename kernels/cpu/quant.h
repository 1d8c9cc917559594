/* quant.h: the integer modes of the CPU backend: layouts, and the arithmetic that every tier repeats bit
 * for bit.
 *
 * A weight is  w ~ scale * code,  one bf16 scale for 32 neighbours along K of one row.
 *   int8   code = round(w / scale) in [-127, 127], scale = max |w| / 127 rounded up to bf16
 *   int4   code = one of the 16 integers of VL_Q4_CODES, which lie closer together near zero, where
 *          weights are; they are lopsided, and the sign of the scale says to which side
 * An activation row is quantised at run time, 32 neighbours at a time:  x ~ s * q,  s = max |x| / 127.
 *
 * A panel holds 32 rows of W, one group of k after the other, scales first:
 *
 *   int8   64 bytes   bf16 scale [32]
 *          1024       u8 [8 steps][32 rows][4 k]       code + 128, so that vpdpbusd (u8 x s8) takes it
 *   int4   64 bytes   bf16 scale [32]
 *          512        u8 [4 pairs][32 rows][4 k]       index of the code: low nibble step 2i, high 2i + 1
 *
 * Rows of x come as tiles of 6, [group][ comp[6] | s[6] | [8 steps][6 rows][4 k] ], 32-bit words;
 * comp = -128 * sum of q takes the + 128 back. For the tile unit (AMX) they come as tiles of 16,
 * [group][ s[16] | [16 rows][32 k] ], without comp: its products are of signed codes.
 *
 * One order for every sum:  t = comp + sum u8 * q            exact, 32-bit integers
 *                           acc = fma((float)t * scale, s, acc)   groups in order, from 0
 *                           c = add ? c + acc : acc           blocks of CPU_QKC terms in order
 * so tiers, threads, chunks and batches give the same bits. NaN or infinity in a group of x makes s
 * NaN, and the row's outputs with it.
 */
#ifndef VL_CPU_QUANT_H
#define VL_CPU_QUANT_H

#include "kernels/cpu/ukernels.h"
#include "kernels/quantise.h"

enum {
    CPU_QG = VL_QGROUP,            /* k of a group                                            */
    CPU_QMR = 6,                   /* rows of a tile of x                                     */
    CPU_QKC = 512,                 /* terms of a block sum                                    */
    CPU_Q8_GROUP = 64 + 1024,      /* bytes of a group in a panel                             */
    CPU_Q4_GROUP = 64 + 512,
    CPU_QX_GROUP = 10 * CPU_QMR,   /* words of a group in a tile of x                         */
    CPU_QT_ROWS = 16,              /* the same for the tile unit                              */
    CPU_QT_GROUP = 16 + CPU_QT_ROWS * CPU_QG / 4
};

static inline int cpu_q_groups(int K) { return (K + CPU_QG - 1) / CPU_QG; }

#endif
