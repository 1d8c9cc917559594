/* check.h: what the kernel tests share: guarded memory, designed inputs, tolerances.
 *
 * A guarded buffer ends at a PROT_NONE page and begins with a red zone, so that reading or writing
 * past the end is a fault (reported with the kernel's name) and writing before it is seen. */
#ifndef VL_TESTS_KERNELS_CHECK_H
#define VL_TESTS_KERNELS_CHECK_H

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/common.h"
#include "tests/test.h"

/* ---- guarded memory --------------------------------------------------------------------------- */

enum { RED = 256, GUARDED_MAX = 16 };
typedef struct guarded { uint8_t *map, *user; size_t map_bytes, bytes; } guarded;
static guarded guards[GUARDED_MAX];
static int guard_count;
static const char *volatile running = "?"; /* the kernel under test, for the fault handler */

/* n floats (or 4-byte words) whose end touches an unreadable page. Freed by guards_end(). */
static void *guard_words(size_t n) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE), bytes = n * 4;
    size_t room = (bytes + RED + page - 1) / page * page;
    vl_assert(guard_count < GUARDED_MAX, "too many guarded buffers");
    guarded *g = &guards[guard_count++];
    g->map_bytes = room + page;
    g->map = mmap(NULL, g->map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    vl_assert(g->map != MAP_FAILED, "no memory for a guarded buffer");
    mprotect(g->map + room, page, PROT_NONE);
    g->bytes = bytes;
    g->user = g->map + room - bytes;
    memset(g->user - RED, 0xa5, RED);
    memset(g->user, 0xff, bytes); /* NaN until written */
    return g->user;
}

/* Checks every red zone and frees the buffers of this check. */
static void guards_end(void) {
    for (int i = 0; i < guard_count; i++) {
        bool clean = true;
        for (int j = 1; j <= RED; j++) clean &= guards[i].user[-j] == 0xa5;
        CHECK(clean, "%s wrote before buffer %d", running, i);
        munmap(guards[i].map, guards[i].map_bytes);
    }
    guard_count = 0;
}

static void on_fault(int sig) {
    static const char head[] = "FAIL a kernel left its buffers: ";
    (void)sig;
    if (write(1, head, sizeof head - 1) < 0 || write(1, running, strlen(running)) < 0 ||
        write(1, "\n0 passed, 1 failed\n", 20) < 0)
        _exit(2);
    _exit(1);
}

/* ---- designed inputs --------------------------------------------------------------------------- */

typedef enum kind { NORMAL, ONE_HOT, OUTLIERS, CANCEL, TINY, KINDS } kind;
static const char *const KIND_NAMES[KINDS] = {"normal", "one-hot", "outliers", "cancellation", "tiny"};

static void fill(float *x, size_t n, kind k, vl_rng *r) {
    for (size_t i = 0; i < n; i++) {
        float v = (float)vl_rng_normal(r);
        switch (k) {
        case ONE_HOT: v = vl_rng_uniform(r) < 0.05 ? 1.0f : -0.0f; break;
        case OUTLIERS: v *= vl_rng_uniform(r) < 0.02 ? 1e4f : 1e-2f; break;
        case CANCEL: v = (i % 2 ? -1000.0f : 1000.0f) + v * 1e-3f; break;
        case TINY: v *= i % 3 ? 1e-39f : 1e-20f; break; /* subnormals and small normals */
        default: break;
        }
        x[i] = v;
    }
}

/* bf16 pairs as pack_bf16 lays them out, from floats; the value kept is the rounded one. */
static inline void fill_bf16(uint32_t *panel, size_t lanes, kind k, vl_rng *r) {
    for (size_t i = 0; i < lanes; i++) {
        float v[2];
        fill(v, 2, k, r);
        panel[i] = (uint32_t)vl_f32_to_bf16(v[0]) | (uint32_t)vl_f32_to_bf16(v[1]) << 16;
    }
}

/* ---- comparing --------------------------------------------------------------------------------- */

static int off;      /* comparisons of the running kernel that failed */
static double worst; /* largest error / tolerance of the running kernel */

/* One value against its reference; remembers the slack. Returns false when out of tolerance. */
static bool near(float got, float want, double tol) {
    if (isnan(want)) return isnan(got);
    if (isinf(want)) return got == want;
    double share = fabs((double)got - (double)want) / tol;
    if (!(share <= 1)) return false;
    if (share > worst) worst = share;
    return true;
}

/* A call that compares n values and reports the first that is off. */
static inline void near_all(const float *got, const float *want, const double *tol, size_t n,
                     const char *what) {
    for (size_t i = 0; i < n; i++)
        if (!near(got[i], want[i], tol[i])) {
            if (++off > 3) test_failed++; /* counted; three lines per kernel say enough */
            else CHECK(false, "%s %s: [%zu] is %.9g, reference %.9g, tolerance %.3g", running, what, i,
                  (double)got[i], (double)want[i], tol[i]);
            return;
        }
    test_passed++;
}

static const double EPS = 0x1p-24;           /* half an ulp of 1 */
static const double DENORM = 0x1p-149;

#endif
