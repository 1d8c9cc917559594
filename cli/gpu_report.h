/* gpu_report.h: what the parts of `vitreous gpu-report` share. A report is one JSON object; tables and
 * plots are made from it. Every time in it is a prediction of gpusim, never a measurement.
 *
 *   {"kind": "vitreous gpu-report", "label": "predicted (gpusim model v2)", "assumptions",
 *    "shape": {"name", "layers", "vision_depth", "parameters", "decode_bytes"},
 *    "request": {"width", "height", "patches", "rows", "every_launch"},
 *    "gpus": [{"gpu", "name", "cc", "sms", "mhz", "gbs", "l2_mb", "tensor_tflops", "mma_share",
 *              "stages": [{"stage", "flop", "launches", "predicted_us", "roof_us", "weight_bytes",
 *                          "kernels": [{"kernel", "launches", ...}]}]}]}
 *
 * Stages: encode (one picture), prefill (the prompt), decode (one token after it). In "kernels" the
 * names are those of gpusim_kernel (gpusim/gpusim_api.h), summed over the launches; copies have a row
 * with 0 blocks and are not among a stage's launches.
 */
#ifndef VL_GPU_REPORT_H
#define VL_GPU_REPORT_H

#include "cli/bench.h"

typedef struct gpu_request {
    cli_common common;       /* model, picture options                                         */
    const char *like;        /* the shape's name where the model is one of zeros, or NULL      */
    bench_case c;            /* the picture and the length of the prompt                       */
    bool every_launch;       /* do not count equal launches by the first of them               */
} gpu_request;

/* Runs the request on gpusim's `gpu` and appends to root["gpus"]. 0 or the exit code after the
 * message. */
int gpu_run(const gpu_request *r, const char *gpu, json_t *root);
void gpu_show(const json_t *root, doc *d);

#endif
