/* peaks.h: what this machine can do right now, measured: the ceilings that speed figures stand
 * beside. Each call takes about a tenth of a second and keeps the best of several short windows,
 * since another process can only make a window slower. */
#ifndef VL_PEAKS_H
#define VL_PEAKS_H

#include <stddef.h>

/* Bytes that cannot stay in the last cache: half again its size, 256 MiB at least, 1 GiB at most. */
size_t vl_uncached_bytes(void);
/* Bytes per second / 1e9 of a pure read loop over that many. */
double vl_peak_read_gbs(int threads);
/* 1e9 float32 operations per second from registers, a fused multiply-add counted as two, with the
 * instructions of the tier that VL_CPU leaves to the float32 kernels. */
double vl_peak_fma_gflops(int threads);
/* The same for products of float32 and bf16 weights as exact mode makes them: that, or a third of the bf16 tile rate
 * where it splits float32 in three (linear_tiles.c). */
double vl_peak_exact_gflops(int threads);
/* The same for bf16 pairs (TDPBF16PS where VL_CPU lets it be used, else vdpbf16ps) and for bytes (TDPBSSD, a
 * roof that groups of 32 k leave half of, else vpdpbusd); 0: no such instruction. */
double vl_peak_bf16_gflops(int threads);
double vl_peak_int8_gops(int threads);

struct vl_backend;

/* The read loop by itself, for a figure that must stand beside the memory of the same moment. */
typedef struct vl_reader vl_reader;
/* Reads `memory` (64-byte aligned), or a buffer of its own for NULL. NULL: no memory or threads. */
vl_reader *vl_reader_open(int threads, const void *memory, size_t bytes);
/* The same on the threads of a CPU backend at work, which must not be closed before it: those of another team would
 * have to find cores first, and share one for some milliseconds. NULL also for another backend. */
vl_reader *vl_reader_beside(struct vl_backend *b);
/* Bytes per second / 1e9 over the next 64 MiB, a few milliseconds: the faster of two loops. They come from
 * memory if the rest of the buffer, or whatever was read since the last pass, has filled the caches. */
double vl_reader_pass(vl_reader *r);
void vl_reader_close(vl_reader *r);

#endif
