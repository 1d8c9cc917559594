/* ladder.cu: four problems, each solved in steps from the plain formula to what the engine's kernels
 * do. Not part of the engine: docs/chapters/08-gpu.md walks through them with the counters of gpusim,
 * tests/cuda/test_ladder.c checks every rung. Sizes must be multiples of the tiles. sm_80 and later. */
#include "gemv.cuh"
#include "gemm.cuh"
#include "attention.cuh"
#include "reduction.cuh"
