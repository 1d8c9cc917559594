/* peaks.h: what this machine can do right now, measured: the ceilings that speed figures stand
 * beside. Each call takes about a tenth of a second and keeps the best of several short windows,
 * since another process can only make a window slower. */
#ifndef VL_PEAKS_H
#define VL_PEAKS_H

/* Bytes per second / 1e9 of a pure read loop over a buffer far larger than the caches. */
double vl_peak_read_gbs(int threads);
/* 1e9 float32 operations per second from registers, a fused multiply-add counted as two. */
double vl_peak_fma_gflops(int threads);
/* The same for bf16 pairs (TDPBF16PS where VL_CPU lets it be used, else vdpbf16ps) and for u8 x s8
 * (vpdpbusd); 0: no such instruction. */
double vl_peak_bf16_gflops(int threads);
double vl_peak_int8_gops(int threads);

#endif
