/* common.h: the few things every part of vitreous shares, each defined once.
 *
 *   errors    vl_err + vl_fail(): the outside world went wrong (files, requests)
 *   assert    vl_assert(): the programmer went wrong (shapes, contracts); always on
 *   checked   size arithmetic that cannot overflow silently
 *   dtype     element types of tensors on disk and in memory
 *   half      bf16 / f16 <-> f32, round to nearest even
 *   arena     one aligned block, carved twice: first to measure, then to place
 *   clock     monotonic seconds
 *   rng       seeded, portable random numbers
 *   sha256    content identities (pictures, KV blocks, model files)
 */
#ifndef VL_COMMON_H
#define VL_COMMON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "vitreous.h"

/* ---- errors ------------------------------------------------------------------------------ */

/* Fills `err` (may be NULL) with `code` (a vl_code) and a printf-style message; returns -1 so
 * that callers can `return vl_fail(...)`. The message names the file or tensor, what was
 * expected, what was found, and what to do. */
int vl_fail(vl_err *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Prints the broken contract and aborts. For mistakes in this program, never for bad input. */
_Noreturn void vl_assert_fail(const char *file, int line, const char *expr, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
#define vl_assert(cond, ...) \
    ((cond) ? (void)0 : vl_assert_fail(__FILE__, __LINE__, #cond, __VA_ARGS__))

/* ---- checked arithmetic: true when the result fits, false on overflow ---------------------- */

static inline bool vl_mul_ok(size_t a, size_t b, size_t *out) {
    return !__builtin_mul_overflow(a, b, out);
}
static inline bool vl_add_ok(size_t a, size_t b, size_t *out) {
    return !__builtin_add_overflow(a, b, out);
}
/* n * size bytes, zeroed, or NULL (out of memory or overflow). Free with free(). */
void *vl_calloc(size_t n, size_t size);

/* ---- element types --------------------------------------------------------------------- */

typedef enum vl_dtype {
    VL_F32, VL_F16, VL_BF16, VL_F64, VL_I64, VL_I32, VL_I16, VL_I8, VL_U8, VL_BOOL,
    VL_U16, VL_U32, VL_U64, VL_F8_E4M3, VL_F8_E5M2, VL_DTYPES
} vl_dtype;
size_t vl_dtype_size(vl_dtype t);             /* bytes per element                       */
const char *vl_dtype_name(vl_dtype t);        /* the safetensors spelling: "BF16", "F32" */

/* ---- half precision ------------------------------------------------------------------------ */

static inline float vl_bf16_to_f32(uint16_t h) {
    uint32_t u = (uint32_t)h << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}
static inline uint16_t vl_f32_to_bf16(float f) { /* nearest even; NaN stays NaN */
    uint32_t u;
    memcpy(&u, &f, 4);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((u >> 16) | 0x40u);
    return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}
float vl_f16_to_f32(uint16_t h);
uint16_t vl_f32_to_f16(float f);
/* n elements of any float dtype -> f32. */
void vl_widen(float *dst, const void *src, vl_dtype dtype, size_t n);

/* ---- arena ------------------------------------------------------------------------------------
 * One layout function, run twice: with base == NULL it only measures (`used` ends as the size
 * to allocate), with a base it hands out pointers. Every piece is 64-byte aligned. */
typedef struct vl_arena { uint8_t *base; size_t used; } vl_arena;
static inline void *vl_carve(vl_arena *a, size_t n, size_t size) {
    size_t bytes, at = a->used;
    vl_assert(vl_mul_ok(n, size, &bytes) && bytes < SIZE_MAX / 2 - at, "arena overflow");
    a->used = at + ((bytes + 63) & ~(size_t)63);
    return a->base ? a->base + at : NULL;
}

/* Asks for huge pages under a large block not yet touched (a hint: fewer faults). */
void vl_huge_pages(void *p, size_t bytes);

/* ---- threads for a moment (items.c) ----------------------------------------------------------- */

/* fn(arg, item, thread) once for every item < n, handed out in order to at most vl_items_threads(threads)
 * threads, the caller among them; thread: a number below that, of its own. Allocates nothing. */
typedef void vl_item_fn(void *arg, int item, int thread);
void vl_items(int n, int threads, vl_item_fn *fn, void *arg);
int vl_items_threads(int threads); /* 1 to 16 */

/* ---- places and names ------------------------------------------------------------------------ */

/* "$XDG_CACHE_HOME/vitreous", or "$HOME/.cache/vitreous", made (private) where `make` asks for it; false:
 * neither variable is an absolute path, or it does not fit into n bytes. */
bool vl_user_cache(char *path, size_t n, bool make);
void vl_hex(char *out, const uint8_t *bytes, size_t n); /* 2 n digits and a NUL */

/* ---- clock, rng, sha256 --------------------------------------------------------------------- */

double vl_now(void); /* seconds, monotonic */

typedef struct vl_rng { uint64_t s[4]; } vl_rng;      /* xoshiro256** */
void vl_rng_seed(vl_rng *r, uint64_t seed);           /* through splitmix64 */
uint64_t vl_rng_u64(vl_rng *r);
double vl_rng_uniform(vl_rng *r);                     /* [0, 1) with 53 bits */
double vl_rng_normal(vl_rng *r);                      /* mean 0, deviation 1 */

typedef struct vl_sha256 { uint32_t h[8]; uint64_t bytes; uint8_t buf[64]; } vl_sha256;
void vl_sha256_init(vl_sha256 *s);
void vl_sha256_add(vl_sha256 *s, const void *data, size_t n);
void vl_sha256_end(vl_sha256 *s, uint8_t out[32]);

#endif
