/* report.h: findings, counters and predictions as JSON. */
#ifndef REPORT_H
#define REPORT_H
#include "gpusim_api.h"

/* Writes the file; says so on stderr when it cannot. */
void report_write(const char *path, const gpusim_kernel *k, int n);
#endif
