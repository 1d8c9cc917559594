/* peaks.c: register-only arithmetic loops and a read loop, over the same threads the ops use.
 *
 * Sixteen independent accumulators cover the latency of two FMA units (4 cycles each). Each
 * function carries its own target attribute, so that one file holds every width; the widest present
 * runs, for float32 the widest that VL_CPU allows. */
#include "kernels/peaks.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernels/cpu/cpu.h"
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

enum { CHAINS = 16, ITEMS = 128, WINDOWS = 12, STEPS = 20000 };
static const size_t PASS_BYTES = (size_t)64 << 20;

typedef double loop_fn(void); /* operations of one call; the work must not be optimised away */
static volatile float sink;

/* ---- loops ----------------------------------------------------------------------------------- */

static double fma_scalar(void) {
    float a[CHAINS] = {0}, x = 0.999f, y = 1e-3f;
    for (int i = 0; i < STEPS / 16; i++)
        for (int c = 0; c < CHAINS; c++) a[c] = a[c] * x + y;
    for (int c = 0; c < CHAINS; c++) sink = a[c];
    return 2.0 * CHAINS * (STEPS / 16);
}

#if defined(__x86_64__)
__attribute__((target("avx2,fma"))) static double fma_avx2(void) {
    __m256 a[CHAINS], x = _mm256_set1_ps(0.999f), y = _mm256_set1_ps(1e-3f);
    for (int c = 0; c < CHAINS; c++) a[c] = _mm256_set1_ps((float)c);
    for (int i = 0; i < STEPS; i++)
#pragma GCC unroll 16
        for (int c = 0; c < CHAINS - 4; c++) a[c] = _mm256_fmadd_ps(a[c], x, y);
    for (int c = 0; c < CHAINS; c++) sink = _mm256_cvtss_f32(a[c]);
    return 2.0 * 8 * (CHAINS - 4) * STEPS; /* 12 of the 16 registers */
}

__attribute__((target("avx512f"))) static double fma_avx512(void) {
    __m512 a[CHAINS], x = _mm512_set1_ps(0.999f), y = _mm512_set1_ps(1e-3f);
    for (int c = 0; c < CHAINS; c++) a[c] = _mm512_set1_ps((float)c);
    for (int i = 0; i < STEPS; i++)
#pragma GCC unroll 16
        for (int c = 0; c < CHAINS; c++) a[c] = _mm512_fmadd_ps(a[c], x, y);
    for (int c = 0; c < CHAINS; c++) sink = _mm512_cvtss_f32(a[c]);
    return 2.0 * 16 * CHAINS * STEPS;
}

__attribute__((target("avx512f,avx512bf16"))) static double bf16_avx512(void) {
    __m512 a[CHAINS], one = _mm512_set1_ps(0.999f);
    __m512bh x = _mm512_cvtne2ps_pbh(one, one), y = _mm512_cvtne2ps_pbh(one, one);
    for (int c = 0; c < CHAINS; c++) a[c] = _mm512_set1_ps((float)c);
    for (int i = 0; i < STEPS; i++)
#pragma GCC unroll 16
        for (int c = 0; c < CHAINS; c++) a[c] = _mm512_dpbf16_ps(a[c], x, y);
    for (int c = 0; c < CHAINS; c++) sink = _mm512_cvtss_f32(a[c]);
    return 2.0 * 32 * CHAINS * STEPS;
}

/* Four accumulators from two tiles of each operand, as gemm_tiles has it; configured as it leaves them. A tile row
 * is 32 bf16 or 64 bytes. */
#define AMX_LOOP(name, isa, product, terms)                                                                    \
    __attribute__((target("amx-tile," isa))) static double name(void) {                                        \
        enum { TILE_STEPS = STEPS / 16 };                                                                      \
        struct { uint8_t palette, start, zero[14]; uint16_t bytes[16]; uint8_t rows[16]; } config = {.palette = 1}; \
        for (int i = 0; i < 8; i++) config.bytes[i] = 64, config.rows[i] = 16;                                 \
        __asm__ volatile("" ::: "memory"); /* config is written before it is read */                           \
        _tile_loadconfig(&config);         /* all tiles are zero */                                            \
        for (int i = 0; i < TILE_STEPS; i++) {                                                                 \
            product(0, 4, 6);                                                                                  \
            product(1, 4, 7);                                                                                  \
            product(2, 5, 6);                                                                                  \
            product(3, 5, 7);                                                                                  \
        }                                                                                                      \
        _tile_release();                                                                                       \
        return 2.0 * 16 * 16 * terms * 4 * TILE_STEPS;                                                         \
    }
AMX_LOOP(bf16_amx, "amx-bf16", _tile_dpbf16ps, 32)
AMX_LOOP(int8_amx, "amx-int8", _tile_dpbssd, 64)

__attribute__((target("avx512f,avx512vnni"))) static double int8_avx512(void) {
    __m512i a[CHAINS], x = _mm512_set1_epi8(3), y = _mm512_set1_epi8(5);
    for (int c = 0; c < CHAINS; c++) a[c] = _mm512_set1_epi32(c);
    for (int i = 0; i < STEPS; i++)
#pragma GCC unroll 16
        for (int c = 0; c < CHAINS; c++) a[c] = _mm512_dpbusd_epi32(a[c], x, y);
    for (int c = 0; c < CHAINS; c++) sink = (float)_mm512_cvtsi512_si32(a[c]);
    return 2.0 * 64 * CHAINS * STEPS;
}
#elif defined(__aarch64__)
static double fma_neon(void) {
    float32x4_t a[CHAINS], x = vdupq_n_f32(0.999f), y = vdupq_n_f32(1e-3f);
    for (int c = 0; c < CHAINS; c++) a[c] = vdupq_n_f32((float)c);
    for (int i = 0; i < STEPS; i++)
#pragma GCC unroll 16
        for (int c = 0; c < CHAINS; c++) a[c] = vfmaq_f32(y, a[c], x);
    for (int c = 0; c < CHAINS; c++) sink = vgetq_lane_f32(a[c], 0);
    return 2.0 * 4 * CHAINS * STEPS;
}
#endif

/* XOR of `n` bytes (a multiple of 512), eight wide words at a time; `ahead`: asked for ahead of use, far into
 * L2 and near into L1, which some memories need and others are slowed by. */
typedef uint64_t wide __attribute__((vector_size(64), aligned(64)));
static inline __attribute__((always_inline)) uint64_t xor_all(const uint8_t *p, size_t n, bool ahead) {
    enum { FAR = 8192 / sizeof(wide), NEAR = 2048 / sizeof(wide) };
    const wide *w = (const wide *)(const void *)p;
    wide a[8] = {0};
    for (size_t i = 0; i < n / sizeof(wide); i += 8) {
        for (int c = 0; ahead && c < 8; c++) {
            __builtin_prefetch(w + i + FAR + c, 0, 2);
            __builtin_prefetch(w + i + NEAR + c);
        }
        for (int c = 0; c < 8; c++) a[c] ^= w[i + (size_t)c];
    }
    for (int c = 1; c < 8; c++) a[0] ^= a[c];
    return a[0][0] ^ a[0][1] ^ a[0][2] ^ a[0][3] ^ a[0][4] ^ a[0][5] ^ a[0][6] ^ a[0][7];
}
typedef uint64_t read_fn(const uint8_t *p, size_t n);
#define READERS(name, attributes)                                                                  \
    attributes static uint64_t name(const uint8_t *p, size_t n) { return xor_all(p, n, false); }   \
    attributes static uint64_t name##_ahead(const uint8_t *p, size_t n) { return xor_all(p, n, true); }
READERS(read_any, )
#if defined(__x86_64__)
READERS(read_avx2, __attribute__((target("avx2"))))
READERS(read_avx512, __attribute__((target("avx512f"))))
#endif

/* ---- measuring ------------------------------------------------------------------------------- */

typedef struct job {
    loop_fn *loop;
    read_fn *read;
    const uint8_t *data;
    size_t share;                  /* bytes each thread reads: one long run is fastest (SPEED.md) */
    double done[ITEMS];
} job;

static void arithmetic_item(void *arg, int item, int thread) {
    job *j = arg;
    (void)thread;
    j->done[item] = j->loop();
}

static void read_item(void *arg, int item, int thread) {
    const job *j = arg;
    (void)thread;
    sink = (float)j->read(j->data + (size_t)item * j->share, j->share);
}

/* Operations per second / 1e9 of the best window; 0 without a loop or without threads. */
static double best_rate(int threads, loop_fn *loop) {
    cpu_team *team;
    job j = {.loop = loop};
    double best = 0;
    if (!loop || cpu_team_open(&team, threads > 0 ? threads : 1, NULL)) return 0;
    for (int w = 0; w < WINDOWS; w++) {
        double sum = 0, start = vl_now();
        cpu_team_run(team, ITEMS, arithmetic_item, &j);
        double seconds = vl_now() - start;
        for (int i = 0; i < ITEMS; i++) sum += j.done[i];
        if (sum / seconds / 1e9 > best) best = sum / seconds / 1e9;
    }
    cpu_team_close(team);
    return best;
}

double vl_peak_fma_gflops(int threads) {
    static loop_fn *const LOOPS[VL_TIERS] = {
        [VL_TIER_scalar] = fma_scalar,
#if defined(__x86_64__)
        [VL_TIER_avx2] = fma_avx2, [VL_TIER_avx512] = fma_avx512,
#elif defined(__aarch64__)
        [VL_TIER_neon] = fma_neon,
#endif
    };
    vl_ukernels k; /* the tier of the kernels whose roof this is */
    vl_err err;
    loop_fn *loop = vl_ukernels_resolve(&k, NULL, &err) ? NULL : LOOPS[k.tier[VL_SLOT_gemm_f32]];
    return best_rate(threads, loop ? loop : fma_scalar);
}

#if defined(__x86_64__)
/* The tier VL_CPU leaves to a slot: without tiles the roof is that of vdpbf16ps. */
static vl_tier tier_in_use(vl_slot slot) {
    vl_ukernels k;
    vl_err err;
    return vl_ukernels_resolve(&k, NULL, &err) ? VL_TIER_scalar : k.tier[slot];
}
#endif

double vl_peak_bf16_gflops(int threads) {
    loop_fn *loop = NULL;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512bf16")) loop = bf16_avx512;
    if (tier_in_use(VL_SLOT_gemm_tiles) == VL_TIER_amx) loop = bf16_amx;
#endif
    return best_rate(threads, loop);
}

double vl_peak_exact_gflops(int threads) {
    vl_ukernels k;
    vl_err err;
    bool split = !vl_ukernels_resolve(&k, NULL, &err) && cpu_splits(&k);
    return split ? vl_peak_bf16_gflops(threads) / VL_PARTS : vl_peak_fma_gflops(threads);
}

double vl_peak_int8_gops(int threads) {
    loop_fn *loop = NULL;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512vnni")) loop = int8_avx512;
    if (tier_in_use(VL_SLOT_gemm_q8_tiles) == VL_TIER_amx) loop = int8_amx;
#endif
    return best_rate(threads, loop);
}

/* ---- reading --------------------------------------------------------------------------------- */

size_t vl_uncached_bytes(void) {
    size_t least = (size_t)256 << 20, most = (size_t)1 << 30;
#ifdef _SC_LEVEL3_CACHE_SIZE
    long l3 = sysconf(_SC_LEVEL3_CACHE_SIZE);
    if (l3 > 0 && (size_t)l3 / 2 * 3 > least) least = (size_t)l3 / 2 * 3 & ~(size_t)4095;
#endif
    return least < most ? least : most;
}

struct vl_reader {
    cpu_team *team;
    cpu_backend *of;               /* whose team it is, or NULL: its own                       */
    read_fn *loop[2];
    uint8_t *own;                  /* NULL: the memory is the caller's                         */
    const uint8_t *data;
    size_t bytes, at;
    int threads;
};

static vl_reader *reader_open(cpu_backend *of, int threads, const void *memory, size_t bytes) {
    vl_reader *r = vl_calloc(1, sizeof *r);
    if (r && of) r->team = of->team, r->of = of;
    if (!r || (!of && cpu_team_open(&r->team, threads, NULL))) {
        free(r);
        return NULL;
    }
    r->threads = threads;
    r->loop[0] = read_any;
    r->loop[1] = read_any_ahead;
#if defined(__x86_64__)
    bool avx512 = __builtin_cpu_supports("avx512f"), avx2 = __builtin_cpu_supports("avx2");
    if (avx512 || avx2) r->loop[0] = avx512 ? read_avx512 : read_avx2;
    if (avx512 || avx2) r->loop[1] = avx512 ? read_avx512_ahead : read_avx2_ahead;
#endif
    r->bytes = memory ? bytes : vl_uncached_bytes();
    if (!memory && (r->own = cpu_pages(r->bytes)))
        memset(r->own, 1, r->bytes); /* before, all pages are the one zero page */
    r->data = memory ? memory : r->own;
    if (!r->data) {
        vl_reader_close(r);
        return NULL;
    }
    return r;
}

vl_reader *vl_reader_open(int threads, const void *memory, size_t bytes) {
    return reader_open(NULL, threads > 0 ? threads : 1, memory, bytes);
}
vl_reader *vl_reader_beside(vl_backend *b) {
    return vl_backend_tuning(b) ? reader_open(cpu_of(b), b->threads, NULL, 0) : NULL;
}

void vl_reader_close(vl_reader *r) {
    if (!r) return;
    if (!r->of) cpu_team_close(r->team);
    if (r->own) cpu_pages_free(r->own, r->bytes);
    free(r);
}

/* The next `bytes`, by one of the loops. */
static double read_next(vl_reader *r, size_t bytes, int loop) {
    job j = {.read = r->loop[loop], .share = bytes / (size_t)r->threads / 512 * 512};
    if (r->at + bytes > r->bytes) r->at = 0;
    j.data = r->data + r->at;
    r->at += bytes;
    if (r->of) pthread_mutex_lock(&r->of->lock);
    double start = vl_now();
    cpu_team_run(r->team, r->threads, read_item, &j);
    double seconds = vl_now() - start;
    if (r->of) pthread_mutex_unlock(&r->of->lock);
    return (double)j.share * r->threads / seconds / 1e9;
}

double vl_reader_pass(vl_reader *r) {
    size_t part = r->bytes < PASS_BYTES ? r->bytes / 2 : PASS_BYTES / 2;
    double plain = read_next(r, part, 0), ahead = read_next(r, part, 1);
    return plain > ahead ? plain : ahead;
}

double vl_peak_read_gbs(int threads) {
    vl_reader *r = vl_reader_open(threads, NULL, 0);
    double best = 0;
    for (int w = 0; r && w < WINDOWS; w++) {
        double rate = read_next(r, r->bytes, w % 2);
        if (rate > best) best = rate;
    }
    vl_reader_close(r);
    return best;
}
