/* counters.cu: kernels whose counters can be worked out by hand (test_counters.c says how). */
#include <stdint.h>
#define KERNEL extern "C" __global__ void
#define T threadIdx.x
#define I (blockIdx.x * blockDim.x + T)

KERNEL stride1(float *out, const float *in) { out[I] = in[I]; }
KERNEL stride2(float *out, const float *in) { out[I] = in[2 * I]; }
KERNEL stride32(float *out, const float *in) { out[I] = in[32 * I]; }
KERNEL vec4(float4 *out, const float4 *in) { out[I] = in[I]; }
KERNEL same(float *out, const float *in) { out[I] = in[0]; }
KERNEL offset1(float *out, const float *in) { out[I] = in[I + 1]; }
KERNEL half_warp(float *out, const float *in) { if (T % 32 < 16) out[I] = in[I]; }

#define BANK(name, index) \
    KERNEL name(float *out, const float *in) { \
        __shared__ volatile float s[32 * 33]; \
        for (int i = T; i < 32 * 33; i += 32) s[i] = 0; \
        __syncwarp(); \
        out[T] = s[index]; \
    }
BANK(bank1, T)
BANK(bank2, 2 * T)
BANK(bank4, 4 * T)
BANK(bank32, 32 * T)
BANK(bank33, 33 * T)
BANK(bank_same, 0)

KERNEL shared_vec4(float4 *out, const float4 *in) {
    __shared__ float4 s[32];
    s[T] = in[T];
    __syncthreads();
    out[T] = s[31 - T];
}
/* 8 rows of 16 bytes: 16 bytes apart (1 wavefront), 128 apart (8), 144 apart (1). */
#define ROWS(name, pitch) \
    KERNEL name(uint32_t *out, const float *in) { \
        __shared__ __align__(16) unsigned char s[8 * 256]; \
        for (int i = T; i < 512; i += 32) ((uint32_t *)s)[i] = i; \
        __syncwarp(); \
        uint32_t a = (uint32_t)__cvta_generic_to_shared(s + T % 8 * pitch), r; \
        asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(r) : "r"(a)); \
        out[T] = r; \
    }
ROWS(rows16, 16)
ROWS(rows128, 128)
ROWS(rows144, 144)

KERNEL mma2(float *out, const uint32_t *in) {
#if __CUDA_ARCH__ >= 800
    float c[4] = {0, 0, 0, 0};
    uint32_t a = in[T];
    for (int i = 0; i < 2; i++)
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, "
                     "{%4,%4,%4,%4}, {%4,%4}, {%0,%1,%2,%3};"
                     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a));
    out[I] = c[0] + c[1] + c[2] + c[3];
#endif
}
KERNEL reread(float *out, const float *in, int n) {
    float s = 0;
    for (int k = 0; k < 2; k++)
        for (int i = T; i < n; i += 32) s += ((const volatile float *)in)[i];
    out[T] = s;
}
/* 32 bytes for each lane: the loads behind find them in the L2. */
KERNEL ahead(float *out, const float *in) {
    asm volatile("prefetch.global.L2 [%0];" :: "l"(in + 8 * I) : "memory");
    __syncthreads();
    out[I] = in[8 * I];
}
/* One warp of four waits, twice; the others have nothing to read. */
KERNEL uneven(float *out, const float *in) {
    if (T < 32) out[T] = in[(int)in[T]];
}
/* One copy, four waits: all but the first have nothing to wait for. */
KERNEL copy_wait(float4 *out, const float4 *in) {
#if __CUDA_ARCH__ >= 800
    __shared__ float4 s[32];
    uint32_t to = (uint32_t)__cvta_generic_to_shared(s + T);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;\n\tcp.async.commit_group;" :: "r"(to), "l"(in + T) : "memory");
    for (int i = 0; i < 4; i++) asm volatile("cp.async.wait_group 0;" ::: "memory");
    out[T] = s[T];
#endif
}
