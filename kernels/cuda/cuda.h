/* cuda.h: the "cuda" backend: bf16 on NVIDIA GPUs of compute capability 7.5 and later.
 *
 * Weights, keys and values are bf16 on the device; activations between ops are f32 and are rounded
 * to bf16 where they meet a tensor core. See docs/gpu.md. */
#ifndef VL_CUDA_H
#define VL_CUDA_H

#include "kernels/ops.h"

/* Fails (VL_E_BACKEND) when kernels, driver or device are missing and says how to get them;
 * VL_E_UNSUPPORTED for a dtype other than NULL or "bf16". */
int vl_cuda_open(vl_backend **out, const vl_backend_params *p, vl_err *err);

#endif
