/* check.h: findings. Each is printed once to stderr, kept for gpusim_report_at, and can turn the
 * exit code of the process (README.md: GPUSIM_EXIT). */
#ifndef CHECK_H
#define CHECK_H
#include "gpusim.h"

/* The other access of a race. */
typedef struct { uint32_t node, pc, cta, warp, lane; } Site;

/* A finding in a running kernel. lane -1: the warp as a whole. other may be NULL. */
void check_report(const Warp *w, const Op *op, int lane, uint64_t addr, const Site *other,
                  const char *rule, const char *fmt, ...) __attribute__((format(printf, 7, 8)));
/* A finding of the driver (streams, copies, launches). */
void check_host(const char *rule, const char *kernel, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
int check_count(void);
#endif
