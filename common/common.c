/* common.c: errors, assertions, dtypes, half precision, clock and random numbers. */
#include "common/common.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

int vl_fail(vl_err *err, int code, const char *fmt, ...) {
    if (err) {
        va_list ap;
        va_start(ap, fmt);
        err->code = code;
        vsnprintf(err->msg, sizeof err->msg, fmt, ap);
        va_end(ap);
    }
    return -1;
}

void vl_assert_fail(const char *file, int line, const char *expr, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    fprintf(stderr, "vitreous: internal error at %s:%d: (%s) is false: ", file, line, expr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    abort();
}

void *vl_calloc(size_t n, size_t size) {
    size_t bytes;
    return vl_mul_ok(n, size, &bytes) ? calloc(1, bytes ? bytes : 1) : NULL;
}

bool vl_user_cache(char *path, size_t n, bool make) {
    const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    bool has_xdg = xdg && *xdg == '/';
    if (!has_xdg && !(home && *home == '/')) return false;
    int len = snprintf(path, n, "%s%s/vitreous", has_xdg ? xdg : home, has_xdg ? "" : "/.cache");
    if (len < 0 || (size_t)len >= n) return false;
    if (make) { /* the folder above may be missing as well; what is there stays as it is */
        char *last = path + len - strlen("/vitreous");
        *last = 0;
        mkdir(path, 0700);
        *last = '/';
        mkdir(path, 0700);
    }
    return true;
}

void vl_hex(char *out, const uint8_t *bytes, size_t n) {
    for (size_t i = 0; i < n; i++) snprintf(out + 2 * i, 3, "%02x", bytes[i]);
}

void vl_huge_pages(void *p, size_t bytes) {
    const uintptr_t huge = (uintptr_t)2 << 20, begin = ((uintptr_t)p + huge - 1) & ~(huge - 1);
    uintptr_t end = ((uintptr_t)p + bytes) & ~(huge - 1);
    if (p && begin < end) madvise((void *)begin, end - begin, MADV_HUGEPAGE);
}

static const struct { const char *name; uint8_t size; } DTYPES[VL_DTYPES] = {
    [VL_F32] = {"F32", 4},  [VL_F16] = {"F16", 2},   [VL_BF16] = {"BF16", 2},
    [VL_F64] = {"F64", 8},  [VL_I64] = {"I64", 8},   [VL_I32] = {"I32", 4},
    [VL_I16] = {"I16", 2},  [VL_I8] = {"I8", 1},     [VL_U8] = {"U8", 1},
    [VL_BOOL] = {"BOOL", 1}, [VL_U16] = {"U16", 2},  [VL_U32] = {"U32", 4},
    [VL_U64] = {"U64", 8},  [VL_F8_E4M3] = {"F8_E4M3", 1}, [VL_F8_E5M2] = {"F8_E5M2", 1},
};
size_t vl_dtype_size(vl_dtype t) { return DTYPES[t].size; }
const char *vl_dtype_name(vl_dtype t) { return DTYPES[t].name; }

float vl_f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exp = (h >> 10) & 31u, man = h & 1023u;
    if (exp == 0) { /* zero or subnormal: man * 2^-24 is exact in f32 */
        float f = ldexpf((float)man, -24);
        return sign ? -f : f;
    }
    uint32_t u = sign | (exp == 31 ? 0x7f800000u : (exp + 112) << 23) | man << 13;
    float f;
    memcpy(&f, &u, 4);
    return f;
}

uint16_t vl_f32_to_f16(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    uint32_t sign = (u >> 16) & 0x8000u, mag = u & 0x7fffffffu;
    if (mag > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);        /* NaN            */
    if (mag >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u);       /* rounds to inf  */
    if (mag < 0x38800000u) {                                         /* subnormal half */
        float scaled = ldexpf(fabsf(f), 24);
        return (uint16_t)(sign | (uint32_t)nearbyintf(scaled));
    }
    uint32_t r = mag - 0x38000000u;
    return (uint16_t)(sign | ((r + 0xfffu + ((r >> 13) & 1u)) >> 13));
}

/* FP8 as in HF "F8_E4M3" (e4m3fn: no infinities, 0x7f is NaN) and "F8_E5M2" (IEEE-like). */
static float f8_to_f32(uint8_t v, int exp_bits) {
    int man_bits = 7 - exp_bits, bias = (1 << (exp_bits - 1)) - 1;
    int exp = (v & 0x7f) >> man_bits, man = v & ((1 << man_bits) - 1);
    float f;
    if (exp_bits == 4 && (v & 0x7f) == 0x7f) f = NAN;
    else if (exp_bits == 5 && exp == 31) f = man ? NAN : INFINITY;
    else if (exp == 0) f = ldexpf((float)man, 1 - bias - man_bits);
    else f = ldexpf((float)(man + (1 << man_bits)), exp - bias - man_bits);
    return (v & 0x80) ? -f : f;
}

void vl_widen(float *dst, const void *src, vl_dtype dtype, size_t n) {
    const uint8_t *b = src;
    switch (dtype) {
    case VL_F32: memcpy(dst, src, n * 4); break;
    case VL_BF16:
    case VL_F16:
        for (size_t i = 0; i < n; i++) {
            uint16_t h;
            memcpy(&h, b + 2 * i, 2);
            dst[i] = dtype == VL_BF16 ? vl_bf16_to_f32(h) : vl_f16_to_f32(h);
        }
        break;
    case VL_F64:
        for (size_t i = 0; i < n; i++) {
            double d;
            memcpy(&d, b + 8 * i, 8);
            dst[i] = (float)d;
        }
        break;
    case VL_F8_E4M3:
    case VL_F8_E5M2:
        for (size_t i = 0; i < n; i++) dst[i] = f8_to_f32(b[i], dtype == VL_F8_E4M3 ? 4 : 5);
        break;
    default: vl_assert(false, "dtype %s is not a float type", vl_dtype_name(dtype));
    }
}

double vl_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static uint64_t rotl(uint64_t x, int k) { return (x << k) | (x >> (64 - k)); }

void vl_rng_seed(vl_rng *r, uint64_t seed) {
    for (int i = 0; i < 4; i++) {
        uint64_t z = (seed += 0x9e3779b97f4a7c15u);
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        r->s[i] = z ^ (z >> 31);
    }
}

uint64_t vl_rng_u64(vl_rng *r) {
    uint64_t *s = r->s, out = rotl(s[1] * 5, 7) * 9, t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    return out;
}

double vl_rng_uniform(vl_rng *r) { return (double)(vl_rng_u64(r) >> 11) * 0x1p-53; }

double vl_rng_normal(vl_rng *r) { /* Box-Muller; u > 0 */
    double u = 1.0 - vl_rng_uniform(r), v = vl_rng_uniform(r);
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
}
