/* exec_mma.c: cp.async, ldmatrix, stmatrix and mma.
 *
 * An 8x8 matrix of 16-bit values spread over the lanes (lane = row*4 + column pair) is the same
 * as its row-major bytes: register i of the 32 lanes holds row i/4, columns 2*(i%4) and +1. So
 * ldmatrix copies rows, A of m16n8k16 is four such matrices (rows 0-7, 8-15; then columns 8-15),
 * B two (held by column), C and D are 16x8 of 32 bits, two per lane and row half.
 *
 * The order in which hardware sums is not specified: GPUSIM_MMA picks one (fma by k, blocks of 8
 * summed and truncated, reversed), and results must stay within tolerance for all. */
#include "check.h"
#include "count.h"
#include "exec.h"
#include "exec_block.h"
#include "lanes.h"
#include "race.h"
#include <immintrin.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int shared_fault(Warp *w, const Op *op, int lane, uint64_t addr, uint32_t bytes) {
    bool align = addr % bytes != 0;
    check_report(w, op, lane, addr, NULL, align ? "misaligned" : "out-of-bounds-shared",
                 "shared address 0x%llx, %u bytes", (unsigned long long)addr, bytes);
    w->cta->l->failed = align ? 716 : 700;
    return FATAL;
}

/* ---- cp.async ---- */

static AsyncCopy *new_copy(Warp *w) {
    if (w->nasync == w->cap_async) {
        int cap = w->cap_async ? w->cap_async * 2 : 16;
        AsyncCopy *p = realloc(w->async, (size_t)cap * sizeof *p);
        if (!p) return NULL;
        w->async = p;
        w->cap_async = cap;
    }
    return &w->async[w->nasync++];
}

/* Source bytes of one lane: size of them from global memory, the rest zero. */
static int fetch(Warp *w, const Op *op, int lane, uint64_t addr, uint32_t size, uint8_t *out) {
    memset(out, 0, 16);
    if (!size) return NEXT;
    Alloc *a = mem_find(addr);
    bool outside = !a || a->freed || size > a->size - (addr - a->addr);
    bool bad = outside || !mem_reachable(a, w->cta->l->device);
    if (bad || addr % op->size) {
        const char *rule = !bad ? "misaligned" : !outside ? "wrong-device"
                         : a && a->freed ? "use-after-free" : "out-of-bounds";
        check_report(w, op, lane, addr, NULL, rule, "cp.async source (%u bytes at 0x%llx)", size,
                     (unsigned long long)addr);
        w->cta->l->failed = bad ? 700 : 716;
        return FATAL;
    }
    uint64_t off = addr - a->addr;
    memcpy(out, a->host + off, size);
    if (!settings.checks) return NEXT;
    int64_t u = mem_uninitialised(a, off, size);
    if (u >= 0)
        check_report(w, op, lane, addr, NULL, "uninitialised-global", "copies %s+%lld, which "
                     "nothing wrote", a->name, (long long)u);
    race_global(w, op, lane, a, off, (size + 3) / 4 * 4, ACC_READ);
    return NEXT;
}

int exec_cp_async(Warp *w, const Op *op, uint32_t mask) {
    uint64_t src[LANES], dst[LANES];
    Op target = *op;
    target.imm = op->target;
    exec_addresses(w, &target, op->o[0], dst);
    exec_addresses(w, op, op->o[1], src);
    const uint32_t *size = at(w, op->o[2]);
    AsyncCopy *c = new_copy(w);
    if (!c) return FATAL;
    *c = (AsyncCopy){.pc = (uint32_t)(op - w->code), .mask = mask, .group = w->group,
                     .bytes = op->size};
    uint32_t reads = 0;
    for (int i = 0; i < LANES; i++) {
        if (!(mask >> i & 1)) continue;
        int64_t k = exec_shared_index(w->cta, dst[i], op->size);
        if (k < 0 || dst[i] % op->size) return shared_fault(w, op, i, dst[i], op->size);
        c->dst[i] = (uint32_t)k;
        uint32_t n = size[i] > op->size ? op->size : size[i];
        if (n) reads |= 1u << i;
        if (fetch(w, op, i, src[i], n, c->data[i]) == FATAL) return FATAL;
        if (settings.checks) race_pending(w, op, i, c->dst[i], op->size);
    }
    if (reads) exec_loads(w);
    if (settings.counters) {
        OpCount *n = &w->count[op - w->code];
        const Alloc *a = reads ? mem_find(src[__builtin_ctz(reads)]) : NULL;
        count_global(n, src, reads, op->size, false, a && mem_weights(a));
        count_shared(n, dst, mask, op->size);
        n->bytes -= op->size * (uint64_t)__builtin_popcount(mask);
    }
    return NEXT;
}

int exec_cp_commit(Warp *w, const Op *op, uint32_t mask) {
    (void)op; (void)mask;
    w->group++;
    return NEXT;
}

void exec_async_land(Warp *w, uint32_t keep) {
    int left = 0;
    for (int k = 0; k < w->nasync; k++) {
        const AsyncCopy *c = &w->async[k];
        if (c->group + keep >= w->group) {
            if (left != k) w->async[left] = *c;
            left++;
            continue;
        }
        for (int i = 0; i < LANES; i++) {
            if (!(c->mask >> i & 1)) continue;
            memcpy(w->cta->shared + c->dst[i], c->data[i], c->bytes);
            if (settings.checks) race_landed(w, c->pc, i, c->dst[i], c->bytes);
        }
    }
    w->nasync = left;
}

int exec_cp_wait(Warp *w, const Op *op, uint32_t mask) {
    (void)mask;
    int before = w->nasync;
    if (op->mode) w->group++;
    exec_async_land(w, op->mode ? 0 : (uint32_t)op->imm);
    if (settings.counters && w->nasync != before) w->count[op - w->code].landed++;
    return NEXT;
}

/* ---- ldmatrix, stmatrix ---- */

/* Lanes 8k..8k+7 give the row addresses of matrix k; p gets the host pointers. */
static int rows(Warp *w, const Op *op, Opnd base, uint8_t **p, int kind) {
    uint64_t addr[LANES];
    OpCount *n = &w->count[op - w->code];
    exec_addresses(w, op, base, addr);
    for (int i = 0; i < 8 * op->vec; i++) {
        int64_t k = exec_shared_index(w->cta, addr[i], 16);
        if (k < 0 || addr[i] % 16) return shared_fault(w, op, i, addr[i], 16);
        p[i] = w->cta->shared + k;
        if (settings.checks) race_shared(w, op, i, (uint32_t)k, 16, kind);
    }
    for (int k = 0; settings.counters && k < op->vec; k++) {
        n->wavefronts += count_rows(addr + 8 * k, 8, 16);
        n->ideal++;
        n->bytes += 128;
    }
    return NEXT;
}

int exec_ldmatrix(Warp *w, const Op *op, uint32_t mask) {
    uint8_t *p[LANES];
    int r = exec_whole_warp(w, op, mask);
    if (r != NEXT) return r;
    if (rows(w, op, op->o[op->ndst], p, ACC_READ) == FATAL) return FATAL;
    for (int k = 0; k < op->vec; k++) {
        uint32_t *d = at(w, op->o[k]);
        for (int i = 0; i < LANES; i++) {
            if (!op->trans) {
                memcpy(&d[i], p[8 * k + i / 4] + i % 4 * 4, 4);
                continue;
            }
            uint16_t lo, hi;
            memcpy(&lo, p[8 * k + i % 4 * 2] + i / 4 * 2, 2);
            memcpy(&hi, p[8 * k + i % 4 * 2 + 1] + i / 4 * 2, 2);
            d[i] = lo | (uint32_t)hi << 16;
        }
    }
    return NEXT;
}

int exec_stmatrix(Warp *w, const Op *op, uint32_t mask) {
    uint8_t *p[LANES];
    int r = exec_whole_warp(w, op, mask);
    if (r != NEXT) return r;
    if (rows(w, op, op->o[0], p, ACC_WRITE) == FATAL) return FATAL;
    for (int k = 0; k < op->vec; k++) {
        const uint32_t *s = at(w, op->o[k + 1]);
        for (int i = 0; i < LANES; i++) {
            if (!op->trans) {
                memcpy(p[8 * k + i / 4] + i % 4 * 4, &s[i], 4);
                continue;
            }
            uint16_t lo = (uint16_t)s[i], hi = (uint16_t)(s[i] >> 16);
            memcpy(p[8 * k + i % 4 * 2] + i / 4 * 2, &lo, 2);
            memcpy(p[8 * k + i % 4 * 2 + 1] + i / 4 * 2, &hi, 2);
        }
    }
    return NEXT;
}

/* ---- mma ---- */

/* One element of a packed register: e-th value of per_register(kind). */
static inline __attribute__((always_inline)) float unpack(uint32_t v, int e, int kind) {
    if (kind == MMA_TF32) return f32_bits(v & 0xffffe000u);
    return kind == MMA_S8 ? (float)(int8_t)(v >> (8 * e)) : (float)(uint8_t)(v >> (8 * e));
}

/* Truncates to 24 bits below the largest exponent, as block summation in hardware does. */
static float block_sum(const float *v, int n, float acc) {
    float top = fabsf(acc);
    for (int i = 0; i < n; i++) top = fabsf(v[i]) > top ? fabsf(v[i]) : top;
    if (!(top > 0) || isinf(top)) {
        for (int i = 0; i < n; i++) acc += v[i];
        return acc;
    }
    int e;
    frexpf(top, &e);
    double unit = ldexp(1.0, e - 25), sum = trunc((double)acc / unit);
    for (int i = 0; i < n; i++) sum += trunc((double)v[i] / unit);
    return (float)(sum * unit);
}

/* c[16][8] += a[16][k] b[k][8] in the chosen order, eight rows at a time. */
static void multiply_fma(float a[16][32], float b[32][8], float c[16][8], int k) {
    int from = settings.mma == MMA_REVERSE ? k - 1 : 0, step = from ? -1 : 1;
    for (int r = 0; r < 16; r += 8) {
        __m256 acc[8];
        for (int j = 0; j < 8; j++) acc[j] = _mm256_loadu_ps(c[r + j]);
        for (int s = 0, i = from; s < k; s++, i += step) {
            __m256 y = _mm256_loadu_ps(b[i]);
            for (int j = 0; j < 8; j++)
                acc[j] = _mm256_fmadd_ps(_mm256_set1_ps(a[r + j][i]), y, acc[j]);
        }
        for (int j = 0; j < 8; j++) _mm256_storeu_ps(c[r + j], acc[j]);
    }
}

static void multiply_blocks(float a[16][32], float b[32][8], float c[16][8], int k) {
    for (int r = 0; r < 16; r++)
        for (int n = 0; n < 8; n++)
            for (int s = 0; s < k; s += 8) {
                float v[8];
                int m = k - s < 8 ? k - s : 8;
                for (int i = 0; i < m; i++) v[i] = a[r][s + i] * b[s + i][n];
                c[r][n] = block_sum(v, m, c[r][n]);
            }
}

/* Values per register: 1 tf32 or 4 bytes. */
static inline int per_register(int kind) { return kind == MMA_TF32 ? 1 : 4; }

static inline __attribute__((always_inline)) void
load_kind(const Warp *w, const Op *op, float a[16][32], float b[32][8], const int kind) {
    const int per = per_register(kind), na = (int)op->imm / (2 * per);
    for (int q = 0; q < na; q++) {
        const uint32_t *v = at(w, op->o[op->ndst + q]);
        for (int i = 0; i < LANES; i++)
            for (int e = 0; e < per; e++)
                a[i / 4 + q % 2 * 8][q / 2 * 4 * per + i % 4 * per + e] = unpack(v[i], e, kind);
    }
    for (int q = 0; q < na / 2; q++) {
        const uint32_t *v = at(w, op->o[op->ndst + na + q]);
        for (int i = 0; i < LANES; i++)
            for (int e = 0; e < per; e++)
                b[q * 4 * per + i % 4 * per + e][i / 4] = unpack(v[i], e, kind);
    }
}

/* One register of halves: the 8x8 row-major matrix it holds, as floats. */
static void halves(const uint32_t *v, bool bf, float *dst, int stride) {
    for (int r = 0; r < 8; r++) {
        __m128i x = _mm_loadu_si128((const __m128i *)(v + 4 * r));
        __m256i wide = _mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16);
        _mm256_storeu_ps(dst + r * stride, bf ? _mm256_castsi256_ps(wide) : _mm256_cvtph_ps(x));
    }
}

static void load_halves(const Warp *w, const Op *op, float a[16][32], float b[32][8]) {
    int na = (int)op->imm / 4;
    bool bf = op->mode == MMA_BF16_F32;
    for (int q = 0; q < na; q++)
        halves(at(w, op->o[op->ndst + q]), bf, &a[q % 2 * 8][q / 2 * 8], 32);
    for (int q = 0; q < na / 2; q++) {
        float t[8][8];
        halves(at(w, op->o[op->ndst + na + q]), bf, t[0], 8);
        for (int k = 0; k < 8; k++)
            for (int n = 0; n < 8; n++) b[q * 8 + k][n] = t[n][k];
    }
}

static void load(const Warp *w, const Op *op, float a[16][32], float b[32][8]) {
    switch (op->mode) {
    case MMA_TF32: load_kind(w, op, a, b, MMA_TF32); break;
    case MMA_S8: load_kind(w, op, a, b, MMA_S8); break;
    case MMA_U8: load_kind(w, op, a, b, MMA_U8); break;
    default: load_halves(w, op, a, b); break;
    }
}

static void integer_mma(Warp *w, const Op *op, float a[16][32], float b[32][8]) {
    for (int q = 0; q < 4; q++) {
        const uint32_t *c = at(w, op->o[op->n - 4 + q]);
        uint32_t *d = at(w, op->o[q]);
        for (int i = 0; i < LANES; i++) {
            int row = i / 4 + q / 2 * 8, col = i % 4 * 2 + q % 2, s = 0;
            for (int k = 0; k < op->imm; k++) s += (int)a[row][k] * (int)b[k][col];
            d[i] = c[i] + (uint32_t)s;
        }
    }
}

int exec_mma(Warp *w, const Op *op, uint32_t mask) {
    int r = exec_whole_warp(w, op, mask);
    if (r != NEXT) return r;
    float a[16][32], b[32][8], c[16][8];
    load(w, op, a, b);
    if (op->mode >= MMA_S8) {
        integer_mma(w, op, a, b);
        return NEXT;
    }
    bool half = op->mode == MMA_F16_F16;
    int words = half ? 2 : 4;
    for (int q = 0; q < words; q++) {
        const uint32_t *v = at(w, op->o[op->n - words + q]);
        for (int i = 0; i < LANES; i++) {
            if (half) {
                c[i / 4 + q * 8][i % 4 * 2] = (float)half_to(v[i] & 0xffff);
                c[i / 4 + q * 8][i % 4 * 2 + 1] = (float)half_to(v[i] >> 16);
            } else {
                c[i / 4 + q / 2 * 8][i % 4 * 2 + q % 2] = f32_bits(v[i]);
            }
        }
    }
    if (settings.mma == MMA_BLOCK) multiply_blocks(a, b, c, (int)op->imm);
    else multiply_fma(a, b, c, (int)op->imm);
    for (int q = 0; q < words; q++) {
        uint32_t *v = at(w, op->o[q]);
        for (int i = 0; i < LANES; i++)
            v[i] = half ? half_of((double)c[i / 4 + q * 8][i % 4 * 2]) |
                          half_of((double)c[i / 4 + q * 8][i % 4 * 2 + 1]) << 16
                        : bits_f32(c[i / 4 + q / 2 * 8][i % 4 * 2 + q % 2]);
    }
    return NEXT;
}
