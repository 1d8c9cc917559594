/* verify.h: the result of comparing one golden case, stage by stage. */
#ifndef VL_CLI_VERIFY_H
#define VL_CLI_VERIFY_H

#include "cli/cli.h"

typedef enum verdict { PASSED, FAILED, NOTED } verdict;
typedef struct verify_stage {
    char name[128];
    const char *measure;   /* "rel-L2", "max/max", "differing"                             */
    double value, limit;
    double max_rel;        /* max |ours - HF| / max |HF|                                   */
    double floor;          /* HF float32 against true float64, same measure; NAN: unknown  */
    verdict verdict;
    char note[160];
} verify_stage;
typedef struct verify_case {
    char name[256], model[256], digest[65];
    int threads;
    char backend[32], dtype[16];
    verify_stage *stages;
    int n, failed;
    double seconds;
    char error[300];       /* the case could not be run at all; "" otherwise               */
} verify_case;

void verify_print_table(const verify_case *c, bool all);
json_t *verify_json(const verify_case *c);
/* A self-contained page: one bar per stage on a log scale, its limit and HF's own floor. */
int verify_write_html(const char *path, const verify_case *cases, int n);

#endif
