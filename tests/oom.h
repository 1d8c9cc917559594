/* oom.h: memory that runs out on purpose. A program named test_oom_* is linked with --wrap, so
 * every malloc, calloc and realloc of this project comes through here. Libraries keep their own:
 * Jansson 2.14 loses a character, without an error, when its string buffer cannot grow. */
#ifndef VL_OOM_H
#define VL_OOM_H

#include <stdbool.h>
#include <stdlib.h>

static long oom_left = -1; /* allocations until one fails; negative: none does */
static bool oom_always;    /* every later one fails too                        */
static bool oom_failed;    /* one did                                          */

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);

static inline bool oom_now(void) {
    if (oom_left < 0) return false;
    if (oom_left > 0) return oom_left--, false;
    if (!oom_always) oom_left = -1;
    return oom_failed = true;
}
void *__wrap_malloc(size_t n) { return oom_now() ? NULL : __real_malloc(n); }
void *__wrap_calloc(size_t n, size_t size) { return oom_now() ? NULL : __real_calloc(n, size); }
void *__wrap_realloc(void *p, size_t n) { return oom_now() ? NULL : __real_realloc(p, n); }

/* Calls attempt() with allocation number 0, 1, 2 ... failing, then with that one and all later
 * ones failing, each time until a run is through without a failure. attempt() is to fail exactly
 * when oom_failed is set. Returns the number of runs. */
static inline long oom_each(void (*attempt)(long n)) {
    long runs = 0;
    for (int all = 0; all < 2; all++) {
        oom_always = all;
        for (long n = 0; n == 0 || oom_failed; n++, runs++) {
            oom_failed = false;
            oom_left = n;
            attempt(n);
            oom_left = -1;
        }
    }
    return runs;
}

#endif
