/* test.h: the whole test framework. A test program is a main() that makes CHECKs and returns
 * test_end(); it prints one line per failure and closes with "N passed, N failed[, N skipped]". */
#ifndef VL_TEST_H
#define VL_TEST_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int test_passed, test_failed, test_skipped;

#define CHECK(cond, ...)                                                        \
    do {                                                                        \
        if (cond) { test_passed++; break; }                                     \
        test_failed++;                                                          \
        printf("FAIL %s:%d: %s: ", __FILE__, __LINE__, #cond);                  \
        printf(__VA_ARGS__);                                                    \
        putchar('\n');                                                          \
    } while (0)

/* A skip is counted, says why, and is a failure when REQUIRE=1. */
static inline void test_skip(const char *why) {
    const char *require = getenv("REQUIRE");
    if (require && *require == '1') test_failed++;
    else test_skipped++;
    printf("SKIP %s\n", why);
}

static inline int test_end(void) {
    printf("%d passed, %d failed", test_passed, test_failed);
    if (test_skipped) printf(", %d skipped", test_skipped);
    putchar('\n');
    return test_failed != 0 || test_passed + test_skipped == 0;
}
#endif
