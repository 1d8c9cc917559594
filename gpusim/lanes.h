/* lanes.h: how a lane of each PTX type is stored, loaded and computed; helpers of ptx_ops.h.
 *
 * S_<t> is the storage of one lane, <t>_t the C type of the value, W_<t> the register width.
 * 16-bit types live in 32-bit slots. Half types are computed as double and rounded once: the
 * product and sum of two halves are exact in double, sums that are not are rounded to odd. */
#ifndef LANES_H
#define LANES_H
#include "gpusim.h"
#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

typedef uint8_t u8_t;   typedef int8_t s8_t;    typedef uint16_t u16_t; typedef int16_t s16_t;
typedef uint32_t u32_t; typedef int32_t s32_t;  typedef uint64_t u64_t; typedef int64_t s64_t;
typedef float f32_t;    typedef float f32z_t;   typedef double f64_t;
typedef double f16_t;   typedef double bf16_t;  typedef uint64_t f32x2_t;
typedef uint32_t S_u8, S_s8, S_u16, S_s16, S_u32, S_f16, S_bf16;
typedef int32_t S_s32;  typedef uint64_t S_u64, S_f32x2; typedef int64_t S_s64;
typedef float S_f32, S_f32z; typedef double S_f64;
enum { W_u8 = 16, W_s8 = 16, W_u16 = 16, W_s16 = 16, W_f16 = 16, W_bf16 = 16, W_u32 = 32,
       W_s32 = 32, W_f32 = 32, W_f32z = 32, W_u64 = 64, W_s64 = 64, W_f64 = 64, W_f32x2 = 64 };
enum { f16_WIDE = 0, f32_WIDE = 0, f64_WIDE = 1 };

static inline float flush(float x) { return fabsf(x) < FLT_MIN ? copysignf(0, x) : x; }
static inline double half_to(uint32_t v) {
    uint16_t u = (uint16_t)v;
    _Float16 h;
    memcpy(&h, &u, 2);
    return (double)h;
}
static inline uint32_t half_of(double x) {
    _Float16 h = (_Float16)x;
    uint16_t u;
    memcpy(&u, &h, 2);
    return x != x ? 0x7fff : u;
}
static inline float f32_bits(uint32_t u) { float f; memcpy(&f, &u, 4); return f; }
static inline uint32_t bits_f32(float f) { uint32_t u; memcpy(&u, &f, 4); return u; }
static inline double bfloat_to(uint32_t v) { return (double)f32_bits(v << 16); }
/* double -> bf16, nearest even: through a float rounded to odd, so that it rounds once. */
static inline uint32_t bfloat_of(double x) {
    float f = (float)x;
    uint32_t u = bits_f32(f);
    if (x != x) return 0x7fff;
    if ((double)f != x && !isinf(f)) {
        if (fabs((double)f) > fabs(x)) u--;
        u |= 1;
    }
    return (u + 0x7fff + (u >> 16 & 1)) >> 16;
}

#define LD_u8(p, i) (uint8_t)(p)[i]
#define LD_s8(p, i) (int8_t)(p)[i]
#define LD_u16(p, i) (uint16_t)(p)[i]
#define LD_s16(p, i) (int16_t)(p)[i]
#define LD_u32(p, i) (p)[i]
#define LD_s32(p, i) (p)[i]
#define LD_u64(p, i) (p)[i]
#define LD_s64(p, i) (p)[i]
#define LD_f32(p, i) (p)[i]
#define LD_f64(p, i) (p)[i]
#define LD_f32x2(p, i) (p)[i]
#define LD_f32z(p, i) flush((p)[i])
#define LD_f16(p, i) half_to((p)[i])
#define LD_bf16(p, i) bfloat_to((p)[i])
#define ST_u8(p, i, v) (p)[i] = (v)
#define ST_s8(p, i, v) (p)[i] = (uint32_t)(int32_t)(v)
#define ST_u16(p, i, v) (p)[i] = (v)
#define ST_s16(p, i, v) (p)[i] = (uint32_t)(int32_t)(v)
#define ST_u32(p, i, v) (p)[i] = (v)
#define ST_s32(p, i, v) (p)[i] = (v)
#define ST_u64(p, i, v) (p)[i] = (v)
#define ST_s64(p, i, v) (p)[i] = (v)
#define ST_f32(p, i, v) (p)[i] = (v)
#define ST_f64(p, i, v) (p)[i] = (v)
#define ST_f32x2(p, i, v) (p)[i] = (v)
#define ST_f32z(p, i, v) (p)[i] = flush(v)
#define ST_f16(p, i, v) (p)[i] = half_of(v)
#define ST_bf16(p, i, v) (p)[i] = bfloat_of(v)

/* Shifts beyond the width give 0, or the sign. */
#define shift_left(a, b, bytes) ((b) >= 8 * (bytes) ? 0 : (a) << ((b) & 63))
#define shift_right_u16(a, b) ((b) >= 16 ? 0 : (a) >> (b))
#define shift_right_u32(a, b) ((b) >= 32 ? 0 : (a) >> ((b) & 31))
#define shift_right_u64(a, b) ((b) >= 64 ? 0 : (a) >> ((b) & 63))
#define shift_right_s16(a, b) ((a) >> ((b) > 15 ? 15 : (b)))
#define shift_right_s32(a, b) ((a) >> ((b) > 31 ? 31 : (b)))
#define shift_right_s64(a, b) ((a) >> ((b) > 63 ? 63 : (b)))
/* Low word of (high:low) >> n, 0 <= n <= 32. */
static inline uint32_t funnel(uint32_t high, uint32_t low, uint32_t n) {
    return (uint32_t)(((uint64_t)high << 32 | low) >> n);
}

/* Division by zero is undefined in PTX; all ones, and the dividend as remainder, as on hardware. */
#define DIVIDE(T, U) \
    static inline T##_t divide_##T(T##_t a, T##_t b) { \
        if (b == 0) return (T##_t)-1; \
        return b == (T##_t)-1 && (T##_t)-1 < (T##_t)1 ? (T##_t)(U)(0 - (U)a) : (T##_t)(a / b); \
    } \
    static inline T##_t remainder_##T(T##_t a, T##_t b) { \
        if (b == 0) return a; \
        return b == (T##_t)-1 && (T##_t)-1 < (T##_t)1 ? 0 : (T##_t)(a % b); \
    }
DIVIDE(u16, uint16_t) DIVIDE(s16, uint16_t) DIVIDE(u32, uint32_t) DIVIDE(s32, uint32_t)
DIVIDE(u64, uint64_t) DIVIDE(s64, uint64_t)
#undef DIVIDE

static inline uint32_t permute_bytes(uint32_t a, uint32_t b, uint32_t sel) {
    uint64_t v = (uint64_t)b << 32 | a;
    uint32_t r = 0;
    for (int k = 0; k < 4; k++) {
        uint32_t s = sel >> (4 * k), byte = (uint32_t)(v >> (8 * (s & 7))) & 0xff;
        if (s & 8) byte = byte & 0x80 ? 0xff : 0;
        r |= byte << (8 * k);
    }
    return r;
}
static inline uint64_t extract_u(uint64_t a, uint32_t pos, uint32_t len, uint32_t bits) {
    pos &= 255;
    len &= 255;
    if (pos >= bits || len == 0) return 0;
    uint64_t v = (bits == 32 ? a & 0xffffffff : a) >> pos;
    return len >= 64 ? v : v & ((1ull << len) - 1);
}
static inline int64_t extract_s(int64_t a, uint32_t pos, uint32_t len, uint32_t bits) {
    pos &= 255;
    len &= 255;
    if (len == 0) return 0;
    uint32_t last = pos + len - 1 < bits - 1 ? pos + len - 1 : bits - 1;
    int64_t sign = a >> last & 1;
    if (pos >= bits) return sign ? -1 : 0;
    uint64_t v = extract_u((uint64_t)a, pos, len, bits);
    uint32_t have = last - pos + 1;
    return have >= 64 || !sign ? (int64_t)v : (int64_t)(v | ~0ull << have);
}
static inline uint64_t insert_bits(uint64_t a, uint64_t b, uint32_t pos, uint32_t len,
                                   uint32_t bits) {
    pos &= 255;
    len &= 255;
    if (pos >= bits || len == 0) return b;
    uint64_t m = (len >= 64 ? ~0ull : (1ull << len) - 1) << pos;
    return (b & ~m) | (a << pos & m);
}
static inline uint32_t lop3(uint32_t a, uint32_t b, uint32_t c, uint32_t lut) {
    uint32_t r = 0;
    for (uint32_t k = 0; k < 8; k++)
        if (lut >> k & 1) r |= (k & 4 ? a : ~a) & (k & 2 ? b : ~b) & (k & 1 ? c : ~c);
    return r;
}
static inline uint32_t reverse_bits(uint32_t v) {
    v = (v >> 1 & 0x55555555) | (v & 0x55555555) << 1;
    v = (v >> 2 & 0x33333333) | (v & 0x33333333) << 2;
    v = (v >> 4 & 0x0f0f0f0f) | (v & 0x0f0f0f0f) << 4;
    return __builtin_bswap32(v);
}
static inline uint32_t find_sign(uint32_t a) {
    if ((int32_t)a < 0) a = ~a;
    return a ? 31 - (uint32_t)__builtin_clz(a) : 0xffffffffu;
}
static inline uint32_t dot4(uint32_t a, uint32_t b, uint32_t c, int sa, int sb) {
    for (int k = 0; k < 4; k++) {
        uint32_t x = a >> (8 * k) & 255, y = b >> (8 * k) & 255;
        int xi = sa ? (int8_t)x : (int)x, yi = sb ? (int8_t)y : (int)y;
        c += (uint32_t)(xi * yi);
    }
    return c;
}
static inline int32_t clamp_s32(int64_t v) {
    return v > INT32_MAX ? INT32_MAX : v < INT32_MIN ? INT32_MIN : (int32_t)v;
}

static inline float saturate(float x) { return x > 0 ? (x < 1 ? x : 1.0f) : 0.0f; }
static inline int64_t saturate_to(int64_t lo, int64_t hi, int64_t v) {
    return v < lo ? lo : v > hi ? hi : v;
}
#define saturate_u8(v) saturate_to(0, 255, (int64_t)(v))
#define saturate_s8(v) saturate_to(-128, 127, (int64_t)(v))
#define saturate_u16(v) saturate_to(0, 65535, (int64_t)(v))
#define saturate_s16(v) saturate_to(-32768, 32767, (int64_t)(v))

/* A number beats a NaN; -0 is less than +0. */
static inline float min_f32(float a, float b) {
    float z = f32_bits(bits_f32(a) | bits_f32(b));
    float r = a < b ? a : b < a ? b : a != a ? b : b != b ? a : z;
    return r != r ? NAN : r;
}
static inline float max_f32(float a, float b) {
    float z = f32_bits(bits_f32(a) & bits_f32(b));
    float r = a > b ? a : b > a ? b : a != a ? b : b != b ? a : z;
    return r != r ? NAN : r;
}
static inline double min_f64(double a, double b) {
    return a < b ? a : b < a ? b : a != a ? b : b != b ? a : signbit(a) ? a : b;
}
static inline double max_f64(double a, double b) {
    return a > b ? a : b > a ? b : a != a ? b : b != b ? a : signbit(a) ? b : a;
}
static inline double relu(double x) { return x > 0 ? x : 0; }

/* a + b in double, rounded to odd: a later rounding to fewer bits is then correct. */
static inline double wide_add(double a, double b) {
    double s = a + b, t = s - a, e = (a - (s - t)) + (b - t);
    uint64_t u;
    memcpy(&u, &s, 8);
    if (e != 0 && isfinite(s) && !(u & 1)) {
        u = (e > 0) == (s > 0) ? u + 1 : u - 1;
        memcpy(&s, &u, 8);
    }
    return s;
}
static inline double wide_fma(double a, double b, double c) { return wide_add(a * b, c); }
enum { PAIR_ADD, PAIR_SUB, PAIR_MUL, PAIR_FMA, PAIR_FMA_RELU, PAIR_MIN, PAIR_MAX, PAIR_TANH,
       PAIR_EX2 };
static inline double pair_one(double a, double b, double c, int op) {
    switch (op) {
    case PAIR_ADD: return wide_add(a, b);
    case PAIR_SUB: return wide_add(a, -b);
    case PAIR_MUL: return a * b;
    case PAIR_FMA: return wide_fma(a, b, c);
    case PAIR_FMA_RELU: return relu(wide_fma(a, b, c));
    case PAIR_MIN: return min_f64(a, b);
    case PAIR_MAX: return max_f64(a, b);
    case PAIR_TANH: return tanh(a);
    default: return exp2(a);
    }
}
static inline uint32_t f16_pair(uint32_t a, uint32_t b, uint32_t c, int op) {
    return half_of(pair_one(half_to(a), half_to(b), half_to(c), op)) |
           half_of(pair_one(half_to(a >> 16), half_to(b >> 16), half_to(c >> 16), op)) << 16;
}
static inline uint32_t bf16_pair(uint32_t a, uint32_t b, uint32_t c, int op) {
    uint32_t m = 0xffff;
    return bfloat_of(pair_one(bfloat_to(a & m), bfloat_to(b & m), bfloat_to(c & m), op)) |
           bfloat_of(pair_one(bfloat_to(a >> 16), bfloat_to(b >> 16), bfloat_to(c >> 16), op))
               << 16;
}
/* The first operand becomes the high half. */
static inline uint32_t bf16_pack(double a, double b) { return bfloat_of(a) << 16 | bfloat_of(b); }
static inline uint32_t f16_pack(double a, double b) { return half_of(a) << 16 | half_of(b); }
static inline uint32_t bfloat_rz(float a) { return a != a ? 0x7fff : bits_f32(a) >> 16; }
static inline uint32_t half_rz(float a) {
    uint32_t h = half_of((double)a);
    if (a != a || isinf(a)) return h;
    return fabs(half_to(h)) > fabs((double)a) ? h - 1 : h;
}
static inline uint32_t tf32_rn(uint32_t a) { return (a + 0xfff + (a >> 13 & 1)) & 0xffffe000u; }
/* double (exact, or rounded to odd) -> float toward zero, down, up. */
static inline float directed_rz(double x) {
    float f = (float)x;
    if (x != x || isinf(x) || fabs((double)f) <= fabs(x)) return f;
    return f32_bits(bits_f32(f) - 1);
}
static inline float directed_rm(double x) {
    float f = (float)x;
    return (double)f > x ? nextafterf(f, -INFINITY) : f;
}
static inline float directed_rp(double x) {
    float f = (float)x;
    return (double)f < x ? nextafterf(f, INFINITY) : f;
}
/* An integer as double, rounded to odd when it has more than 53 bits. */
static inline double wide_u64(uint64_t a) {
    return wide_add((double)(uint32_t)(a >> 32) * 4294967296.0, (double)(uint32_t)a);
}
static inline double wide_s64(int64_t a) {
    return wide_add((double)(a >> 32) * 4294967296.0, (double)(uint32_t)a);
}
#define wide_u8(a) ((double)(a))
#define wide_s8(a) ((double)(a))
#define wide_u16(a) ((double)(a))
#define wide_s16(a) ((double)(a))
#define wide_u32(a) ((double)(a))
#define wide_s32(a) ((double)(a))

/* Sums with the carry of lane i: `use` takes it in, `set` keeps the new one. */
static inline uint64_t carry_add(Warp *w, int i, uint64_t a, uint64_t b, int use, int set,
                                 size_t bytes) {
    unsigned __int128 s = (unsigned __int128)a + b + (use ? w->carry >> i & 1 : 0);
    uint32_t out = (uint32_t)(s >> (8 * bytes)) & 1;
    if (set) w->carry = (w->carry & ~(1u << i)) | out << i;
    return (uint64_t)s;
}
static inline uint64_t carry_sub(Warp *w, int i, uint64_t a, uint64_t b, int use, int set,
                                 size_t bytes) {
    __int128 s = (__int128)a - b - (use ? w->carry >> i & 1 : 0);
    (void)bytes;
    if (set) w->carry = (w->carry & ~(1u << i)) | (uint32_t)(s < 0) << i;
    return (uint64_t)s;
}
#define high_u32(a, b) (uint32_t)((uint64_t)(a) * (b) >> 32)
#define high_s32(a, b) (uint32_t)((int64_t)(int32_t)(a) * (int32_t)(b) >> 32)
#define high_u64(a, b) (uint64_t)((unsigned __int128)(a) * (b) >> 64)
#define high_s64(a, b) (uint64_t)((__int128)(int64_t)(a) * (int64_t)(b) >> 64)
static inline uint64_t pair_make(float lo, float hi) {
    return (uint64_t)bits_f32(hi) << 32 | bits_f32(lo);
}
#define PAIR_LO(v) f32_bits((uint32_t)(v))
#define PAIR_HI(v) f32_bits((uint32_t)((v) >> 32))
static inline uint64_t pair_add(uint64_t a, uint64_t b) {
    return pair_make(PAIR_LO(a) + PAIR_LO(b), PAIR_HI(a) + PAIR_HI(b));
}
static inline uint64_t pair_mul(uint64_t a, uint64_t b) {
    return pair_make(PAIR_LO(a) * PAIR_LO(b), PAIR_HI(a) * PAIR_HI(b));
}
static inline uint64_t pair_fma(uint64_t a, uint64_t b, uint64_t c) {
    return pair_make(fmaf(PAIR_LO(a), PAIR_LO(b), PAIR_LO(c)),
                     fmaf(PAIR_HI(a), PAIR_HI(b), PAIR_HI(c)));
}

/* Float to integer: clamps; NaN gives 0, or the top bit for 64-bit results and for f64 sources. */
#define TO_INT(T, LO, HI, TOP) \
    static inline T##_t to_int_##T(double x, int wide) { \
        if (x != x) return wide || sizeof(T##_t) == 8 ? (T##_t)(TOP) : 0; \
        return x <= (double)(LO) ? (T##_t)(LO) : x >= (double)(HI) ? (T##_t)(HI) : (T##_t)x; \
    }
TO_INT(u8, 0, UINT8_MAX, 0x80) TO_INT(s8, INT8_MIN, INT8_MAX, INT8_MIN)
TO_INT(u16, 0, UINT16_MAX, 0x8000) TO_INT(s16, INT16_MIN, INT16_MAX, INT16_MIN)
TO_INT(u32, 0, UINT32_MAX, 0x80000000u) TO_INT(s32, INT32_MIN, INT32_MAX, INT32_MIN)
TO_INT(u64, 0, UINT64_MAX, 1ull << 63) TO_INT(s64, INT64_MIN, INT64_MAX, INT64_MIN)
#undef TO_INT
#endif
