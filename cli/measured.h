/* measured.h: what a saved `vitreous bench --json` says about the machine it ran on: its peaks, the
 * time of each stage at each shape, and the efficiencies that follow from them.
 *
 * The efficiencies are fitted on the reference shape (448 x 448 picture, its prompt, the first
 * decode depth), attention on the largest picture; every other shape is a test of the predictor. */
#ifndef VL_MEASURED_H
#define VL_MEASURED_H

#include "cli/predict.h"

typedef struct measured_stage {
    char stage[16];                   /* "preprocess", "encode", "prefill", "decode"          */
    char mode[16];
    double size;                      /* patches, rows or context; pixels for preprocess      */
    double batch, width, height;
    double seconds, low, high;        /* median and its interval                              */
    bool fitted;                      /* an efficiency was derived from this row              */
} measured_stage;
enum { MEASURED_MAX = 128 };
typedef struct measured_set {
    json_t *root;                     /* owns the strings of the machine; NULL: nothing given */
    machine mc;
    measured_stage v[MEASURED_MAX];
    int n;
} measured_set;

int measured_load(measured_set *s, const char *path, const model_shape *shape,
                  const machine_set *machines, vl_err *err);
void measured_free(measured_set *s);
/* Median seconds of a stage at this size, or NAN. */
double measured_find(const measured_set *s, const char *stage, const char *mode, double size);
double measured_predict(const measured_set *s, const model_shape *shape, const measured_stage *row);

#endif
