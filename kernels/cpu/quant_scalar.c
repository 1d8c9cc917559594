/* quant_scalar.c: the reference of the integer kernels. Integer sums are exact and the few float steps
 * are those of quant.h, so the other tiers must give the same bits. */
#include <math.h>

#include "kernels/cpu/quant.h"

static float scale_of(const uint8_t *group, int col) {
    uint16_t bits;
    memcpy(&bits, group + 2 * col, sizeof bits);
    return vl_bf16_to_f32(bits);
}

static int code_q8(const uint8_t *group, int step, int col, int i) {
    return group[64 + (step * VL_NR + col) * 4 + i];
}
static int code_q4(const uint8_t *group, int step, int col, int i) {
    int both = group[64 + (step / 2 * VL_NR + col) * 4 + i];
    return VL_Q4_CODES[step % 2 ? both >> 4 : both & 15] + 128;
}

static inline void gemm_q(float *c, const uint32_t *tile, const uint8_t *panel, int groups, int rows, bool add,
                   size_t group_bytes, int (*code)(const uint8_t *, int, int, int)) {
    for (int r = 0; r < rows; r++)
        for (int col = 0; col < VL_NR; col++) {
            float acc = 0;
            for (int g = 0; g < groups; g++) {
                const uint8_t *w = panel + (size_t)g * group_bytes;
                const uint32_t *x = tile + g * CPU_QX_GROUP;
                const int8_t *q = (const int8_t *)(x + 2 * CPU_QMR);
                int32_t t;
                float s;
                memcpy(&t, x + r, sizeof t);
                memcpy(&s, x + CPU_QMR + r, sizeof s);
                for (int step = 0; step < 8; step++)
                    for (int i = 0; i < 4; i++)
                        t += code(w, step, col, i) * q[(step * CPU_QMR + r) * 4 + i];
                acc = fmaf((float)t * scale_of(w, col), s, acc);
            }
            float *out = &c[r * VL_NR + col];
            *out = add ? *out + acc : acc;
        }
}
void gemm_q8_scalar(float *c, const uint32_t *tile, const uint8_t *panel, int groups, int rows,
                    bool add) {
    gemm_q(c, tile, panel, groups, rows, add, CPU_Q8_GROUP, code_q8);
}
void gemm_q4_scalar(float *c, const uint32_t *tile, const uint8_t *panel, int groups, int rows,
                    bool add) {
    gemm_q(c, tile, panel, groups, rows, add, CPU_Q4_GROUP, code_q4);
}

static void gemm_qt(float *c, const uint32_t *x, size_t ldx, const uint8_t *panel, int groups, int rows, bool add,
                    size_t group_bytes, int (*code)(const uint8_t *, int, int, int)) {
    for (int row = 0; row < rows; row++)
        for (int col = 0; col < VL_NR; col++) {
            float acc = 0;
            int r = row % CPU_QT_ROWS;
            for (int g = 0; g < groups; g++) {
                const uint8_t *w = panel + (size_t)g * group_bytes;
                const uint32_t *tile = x + (size_t)(row / CPU_QT_ROWS) * ldx + g * CPU_QT_GROUP;
                const int8_t *q = (const int8_t *)(tile + 16 + r * CPU_QG / 4);
                int32_t t = 0;
                float s;
                memcpy(&s, tile + r, sizeof s);
                for (int k = 0; k < CPU_QG; k++) t += (code(w, k / 4, col, k % 4) - 128) * q[k];
                acc = fmaf((float)t * scale_of(w, col), s, acc);
            }
            float *out = &c[row * VL_NR + col];
            *out = add ? *out + acc : acc;
        }
}
#define GEMM_QT(name, bytes, code)                                                                         \
    void name(float *c, const uint32_t *x, size_t ldx, const uint8_t *panel, const uint8_t *next, int groups, int rows, \
              bool add) {                                                                                  \
        (void)next;                                                                                        \
        gemm_qt(c, x, ldx, panel, groups, rows, add, bytes, code);                                         \
    }
GEMM_QT(gemm_q8_tiles_scalar, CPU_Q8_GROUP, code_q8)
GEMM_QT(gemm_q4_tiles_scalar, CPU_Q4_GROUP, code_q4)

/* The largest |x| by its bits: above 0x7f800000 there was a NaN. */
static uint32_t largest(const float *x, int n) {
    uint32_t most = 0;
    for (int i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        bits &= 0x7fffffffu;
        if (bits > most) most = bits;
    }
    return most;
}

/* q [32] and s of group g of one row; the sum of q. */
static int quantise(int8_t q[CPU_QG], float *s, const float *x, int g, int K) {
    int k0 = g * CPU_QG, n = K - k0 < CPU_QG ? K - k0 : CPU_QG, sum = 0;
    uint32_t bits = largest(x + k0, n);
    float most;
    memcpy(&most, &bits, sizeof most);
    memset(q, 0, CPU_QG);
    *s = bits >= 0x7f800000u ? NAN : most >= 0x1p-100f ? most / 127.0f : 0;
    if (!(*s > 0)) return 0;
    float inverse = 127.0f / most;
    for (int k = 0; k < n; k++) {
        int v = (int)rintf(x[k0 + k] * inverse);
        q[k] = (int8_t)v;
        sum += v;
    }
    return sum;
}

void pack_q_scalar(uint32_t *tile, const float *x, size_t ldx, int rows, int K) {
    int8_t q[CPU_QG];
    memset(tile, 0, (size_t)cpu_q_groups(K) * CPU_QX_GROUP * sizeof *tile);
    for (int g = 0; g < cpu_q_groups(K); g++, tile += CPU_QX_GROUP)
        for (int r = 0; r < rows; r++) {
            float s;
            int32_t comp = -128 * quantise(q, &s, x + (size_t)r * ldx, g, K);
            for (int step = 0; step < 8; step++) memcpy(tile + (2 + step) * CPU_QMR + r, q + 4 * step, 4);
            memcpy(tile + r, &comp, sizeof comp);
            memcpy(tile + CPU_QMR + r, &s, sizeof s);
        }
}

void pack_qt_scalar(uint32_t *tile, const float *x, size_t ldx, int rows, int K) {
    memset(tile, 0, (size_t)cpu_q_groups(K) * CPU_QT_GROUP * sizeof *tile);
    for (int g = 0; g < cpu_q_groups(K); g++, tile += CPU_QT_GROUP)
        for (int r = 0; r < rows; r++) {
            float s;
            quantise((int8_t *)(tile + 16 + r * CPU_QG / 4), &s, x + (size_t)r * ldx, g, K);
            memcpy(tile + r, &s, sizeof s);
        }
}
