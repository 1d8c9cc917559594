/* machines.h: machine profiles, workloads and the circulating claims, from the data files of
 * tools/cost/ (embedded in the binary; a file on the command line takes their place).
 * Every figure knows its mark (measured, specified, quoted, derived, assumed), source and date. */
#ifndef VL_MACHINES_H
#define VL_MACHINES_H

#include <jansson.h>

#include "common/common.h"

typedef struct figure { double v; const char *mark, *source, *date; } figure; /* v NAN: not given */

enum { MACHINE_MODES = 8, MACHINES_MAX = 64 };
typedef enum price_plan { ON_DEMAND, RESERVED, SPOT, PRICE_PLANS } price_plan;
typedef enum peak_kind { PEAK_FP32, PEAK_BF16, PEAK_FP16, PEAK_INT8, PEAKS } peak_kind;
typedef struct efficiency { /* shares of the peak, and two times that no peak bounds */
    figure encode, attention, prefill, decode, token_overhead_s, preprocess_s_per_mp;
} efficiency;
typedef struct machine {
    const char *id, *name, *kind, *currency;
    const char *modes[MACHINE_MODES];
    int n_modes;
    figure memory_gib, price[PRICE_PLANS], peak[PEAKS], read_gbs;
    efficiency e;
    efficiency mode_e[MACHINE_MODES];  /* where known mode by mode: instead of e               */
    bool by_mode;
} machine;
typedef struct machine_set {
    json_t *root;              /* owns every string                                          */
    machine v[MACHINES_MAX];
    int n;
    figure cny_per_usd;
} machine_set;

typedef struct workload {
    char name[64];
    double width, height, text_tokens, output_tokens;
} workload;
typedef struct scenario {
    const char *name;
    double concurrency, slo_s, requests_per_day, min_instances;
} scenario;
typedef struct claim {
    const char *machine, *mode, *text;
    double preprocess_s, prefill_s, decode_s, total_s, annual_cny, best_known_share;
} claim;

extern const char *const price_plan_names[PRICE_PLANS]; /* "on_demand", "reserved", "spot" */
extern const char *const peak_names[PEAKS];             /* "fp32", "bf16", "fp16", "int8"  */

/* path NULL: the embedded file. */
int machines_load(machine_set *s, const char *path, vl_err *err);
void machines_free(machine_set *s);
const machine *machines_find(const machine_set *s, const char *id);
/* A figure measured now, with the strings it points to kept by the caller. */
figure figure_measured(double v, const char *source, const char *date);

/* name: one of the embedded workloads, or a JSON file holding one. */
int workload_load(workload *w, const char *name, vl_err *err);
/* Embedded lists; the JSON they point into is returned for json_decref. */
json_t *scenarios_load(scenario *out, int max, int *n, vl_err *err);
json_t *claims_load(claim *out, int max, int *n, vl_err *err);

#endif
