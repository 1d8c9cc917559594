/* gpus.h: the devices gpusim can pretend to be. Sources: NVIDIA's data sheets and the CUDA C
 * programming guide's table of compute capabilities. l2_gbs and mma_share are assumptions (the
 * share is low where mma.sync is not the fastest path: Hopper, Blackwell). */
#ifndef GPUS_H
#define GPUS_H
#include <stdint.h>

typedef struct {
    const char *key, *name;
    int cc, sms, mhz;              /* boost clock */
    double gbs;                    /* DRAM bandwidth, GB/s */
    double memory_gb, l2_mb, l2_gbs;
    int shared_sm, shared_block;   /* KiB per SM, per block with opt-in */
    int threads_sm, blocks_sm;     /* registers: 65536 per SM everywhere here */
    int tensor;                    /* dense bf16 (T4: fp16) FLOP per SM and clock */
    double mma_share;              /* of that, what mma.sync reaches */
    int fp32;                      /* FMA lanes per SM */
    int bus_bits, mem_mhz;
} Gpu;

static const Gpu gpus[] = {
    {"T4", "Tesla T4", 75, 40, 1590, 320, 15.8, 4, 1200, 64, 64, 1024, 16, 1024, 0.85, 64, 256, 5001},
    {"A10", "NVIDIA A10", 86, 72, 1695, 600, 23.7, 6, 2000, 100, 99, 1536, 16, 1024, 0.85, 128, 384, 6251},
    {"A100", "NVIDIA A100-SXM4-80GB", 80, 108, 1410, 2039, 79.3, 40, 4500, 164, 163, 2048, 32, 2048,
     0.85, 64, 5120, 1593},
    {"H100", "NVIDIA H100 80GB HBM3", 90, 132, 1830, 3350, 79.6, 50, 6000, 228, 227, 2048, 32, 4096,
     0.62, 128, 5120, 2619},
    {"RTX4090", "NVIDIA GeForce RTX 4090", 89, 128, 2520, 1008, 23.6, 72, 5000, 100, 99, 1536, 24,
     512, 0.90, 128, 384, 10501},
    {"B200", "NVIDIA B200", 100, 148, 1850, 7700, 178.0, 126, 10000, 228, 227, 2048, 32, 8192,
     0.31, 128, 8192, 3996},
};
enum { GPU_COUNT = sizeof gpus / sizeof *gpus };

/* The profile called `key`, or NULL. */
const Gpu *gpu_find(const char *key);
/* The one GPUSIM_DEVICE names. */
const Gpu *gpu_now(void);
#endif
