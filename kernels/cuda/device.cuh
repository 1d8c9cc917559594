/* device.cuh: what every kernel file shares: number formats, fragment layouts, reductions, copies.
 *
 * Fragment order. Matrices that meet mma.sync.m16n8k16 are stored the way its lanes want them, so
 * that a warp loads a tile with one coalesced access, and shared memory has no bank conflicts:
 *   weights      W [N, K]: tiles of 16 outputs x 16 inputs, 512 bytes: 16 bytes for each lane
 *   activations  x [T, K]: tiles of  8 rows    x 16 inputs, 256 bytes:  8 bytes for each lane
 * K is padded with zeros to a multiple of 32, N to 16, T to 8. Products are taken as W x^T: outputs
 * are the rows of an accumulator, tokens its columns.
 *
 * The sum of an output is the same everywhere: chunks of 256 inputs (CHUNK_TILES), each one chain of
 * mma from zero; the chunks of a group of 2048 inputs (GROUP_TILES) are added in order, then the groups.
 * So an output's bits depend neither on T nor on the kernel, and groups may be summed by different
 * thread blocks.
 *
 * Easy to get wrong: which of a tile's 16 inputs meets which mma operand does not matter as long as W
 * and x agree. Lane = 4 * (row of the fragment) + c holds inputs 4 c... 4 c + 3 (so that f32 inputs are
 * read 16 bytes at a time); register r of A holds the second pair for r >= 2. Nor does it matter which
 * output is which row of A: rows r and r + 8 are the outputs 2 r and 2 r + 1 of the tile, so that a lane
 * has sums of two neighbours, which are written together; register r of A is the second one's for odd r. */
#ifndef VL_DEVICE_CUH
#define VL_DEVICE_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <math_constants.h>
#include <stdint.h>

#include "args.h"

typedef uint16_t bf16_bits;

enum { KEYS = 64 };            /* a KV block */

#define KERNEL(threads) extern "C" __global__ void __launch_bounds__(threads)
#define KERNEL_FEW extern "C" __global__ void __launch_bounds__(256, 2) /* 128 registers */
#define DEVICE static __device__ __forceinline__

/* ---- numbers ---------------------------------------------------------------------------------- */

DEVICE float low(uint32_t pair) { return __uint_as_float(pair << 16); }
DEVICE float high(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }
DEVICE float from_bf16(bf16_bits h) { return __uint_as_float((uint32_t)h << 16); }

/* Two floats to bf16, nearest even; a in the low half. */
DEVICE uint32_t pair_bf16(float a, float b) {
    __nv_bfloat162 v = __floats2bfloat162_rn(a, b);
    return *reinterpret_cast<uint32_t *>(&v);
}
DEVICE bf16_bits to_bf16(float a) { return __bfloat16_as_ushort(__float2bfloat16_rn(a)); }

DEVICE float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* 2^13 / max, rounded down to a power of two: what the inputs of a row's chunk are multiplied by before
 * they become fp16 (sm_75). *back: its inverse. */
DEVICE float input_scale(float max, float *back) {
    int e = min(267 - (int)(__float_as_uint(max) >> 23), 240);
    *back = __uint_as_float((uint32_t)(254 - e) << 23);
    return __uint_as_float((uint32_t)e << 23);
}

/* ---- fragment order --------------------------------------------------------------------------- */

__host__ __device__ constexpr int k_tiles(int K) { return (K + 31) / 32 * 2; }

/* Where element (n, k) of a weight matrix lies, in elements. */
DEVICE size_t weight_at(int n, int k, int kt) {
    size_t tile = (size_t)(n / 16) * (size_t)kt + (size_t)(k / 16);
    int lane = n % 16 / 2 * 4 + k % 16 / 4, reg = n % 2 + k % 4 / 2 * 2;
    return tile * 256 + (size_t)(lane * 8 + reg * 2 + k % 2);
}
/* Where inputs k... k + 3 of row t of an activation lie, in 8 bytes; k a multiple of 4. */
DEVICE size_t input_at(int t, int k, int kt) {
    return ((size_t)(t / 8) * (size_t)kt + (size_t)(k / 16)) * 32 + (size_t)(t % 8 * 4 + k % 16 / 4);
}

/* p [k... k + 3], zeros from K on. vec: p + k lies at 16 bytes and K is a multiple of 4. */
DEVICE float4 load4(const float *p, int k, int K, bool vec) {
    if (vec) return k < K ? *(const float4 *)(p + k) : make_float4(0, 0, 0, 0);
    return make_float4(k < K ? p[k] : 0, k + 1 < K ? p[k + 1] : 0, k + 2 < K ? p[k + 2] : 0,
                       k + 3 < K ? p[k + 3] : 0);
}
DEVICE void store4(float *p, int k, int K, bool vec, float4 v) {
    if (vec && k < K) *(float4 *)(p + k) = v;
    if (vec) return;
    if (k < K) p[k] = v.x;
    if (k + 1 < K) p[k + 1] = v.y;
    if (k + 2 < K) p[k + 2] = v.z;
    if (k + 3 < K) p[k + 3] = v.w;
}
DEVICE bool at_16_bytes(const void *p, int K) { return ((uintptr_t)p | (size_t)K * 4) % 16 == 0; }

/* (a, b) turned by the angle of (cos, sin). */
DEVICE float2 turned(float a, float b, float c, float s) {
    return make_float2(__fmaf_rn(a, c, -__fmul_rn(b, s)), __fmaf_rn(b, c, __fmul_rn(a, s)));
}

/* Loads in the order of the program: the compiler does not move them to where they are used, into a branch. */
DEVICE int load_now(const int *p) {
    int v;
    asm volatile("ld.global.b32 %0, [%1];" : "=r"(v) : "l"(p) : "memory");
    return v;
}
DEVICE float2 load_now(const float2 *p) {
    float2 v;
    asm volatile("ld.global.v2.f32 {%0,%1}, [%2];" : "=f"(v.x), "=f"(v.y) : "l"(p) : "memory");
    return v;
}

/* ---- reductions in a fixed order ---------------------------------------------------------------- */

DEVICE float warp_sum(float v) {
    for (int o = 16; o; o >>= 1) v += __shfl_xor_sync(~0u, v, o);
    return v;
}

/* Sum over a block of 8 warps; `red` [8]; every thread gets it. */
DEVICE float block_sum(float v, float *red) {
    v = warp_sum(v);
    __syncthreads(); /* red may still be read from the sum before */
    if (threadIdx.x % 32 == 0) red[threadIdx.x / 32] = v;
    __syncthreads();
    v = red[threadIdx.x % 8];
    for (int o = 4; o; o >>= 1) v += __shfl_xor_sync(~0u, v, o);
    return v;
}

/* ---- blocks and launches ------------------------------------------------------------------------ */

/* Programmatic dependent launch (sm_90 on): the next kernel may be scheduled; nothing that an earlier
 * one writes is touched before this returns. Every kernel calls it, and all threads of it. */
DEVICE void after_the_kernel_before() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/* A share of bytes at p, block `i` of n, on its way to the L2, for the kernel behind. */
DEVICE void fetch_ahead(const void *p, int64_t bytes, int i, int n) {
    for (int64_t at = ((int64_t)i * blockDim.x + threadIdx.x) * 32; at < bytes; at += (int64_t)n * blockDim.x * 32)
        asm volatile("prefetch.global.L2 [%0];" :: "l"(__cvta_generic_to_global((const char *)p + at)));
}

/* True in the last of n blocks to come here, which then sees what all of them wrote. The counter
 * goes back to zero. All threads of a block call it. */
DEVICE bool last_block(uint32_t *counter, uint32_t n) {
    __shared__ bool last;
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        last = atomicAdd(counter, 1) + 1 == n;
        if (last) atomicExch(counter, 0);
        __threadfence();
    }
    __syncthreads();
    return last;
}

/* ---- tensor cores and asynchronous copies -------------------------------------------------------- */

DEVICE uint32_t shared_at(const void *p) { return (uint32_t)__cvta_generic_to_shared(p); }
DEVICE void ldmatrix(uint32_t *r, const void *p) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_at(p)) : "memory");
}
DEVICE void ldmatrix_trans(uint32_t *r, const void *p) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_at(p)) : "memory");
}

#if __CUDA_ARCH__ >= 800
enum { BF16_UNITS = 1 };
/* Two inputs as what an mma takes. */
DEVICE uint32_t pair_input(float a, float b) { return pair_bf16(a, b); }
DEVICE void mma(float *c, const uint32_t *a, const uint32_t *b) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
/* Both sides are inputs. */
DEVICE void mma_inputs(float *c, const uint32_t *a, const uint32_t *b) { mma(c, a, b); }
/* 16 bytes global -> shared; ok false: zeros, and nothing is read. */
DEVICE void copy16(void *dst, const void *src, bool ok) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :: "r"(shared_at(dst)), "l"(src), "r"(ok ? 16 : 0) : "memory");
}
DEVICE void copies_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N> DEVICE void copies_wait() {
    asm volatile("cp.async.wait_group %0;" :: "n"(N) : "memory");
}
#else
/* sm_75 has fp16 tensor cores, and copies to shared memory by way of registers. */
enum { BF16_UNITS = 0 };
DEVICE uint32_t pair_input(float a, float b) {
    __half2 v = __floats2half2_rn(a, b);
    return *reinterpret_cast<uint32_t *>(&v);
}
/* a and b hold fp16 pairs. */
DEVICE void mma_inputs(float *c, const uint32_t *a, const uint32_t *b) {
#pragma unroll
    for (int i = 0; i < 2; i++)
        asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 "
                     "{%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
                     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                     : "r"(a[2 * i]), "r"(a[2 * i + 1]), "r"(b[i]));
}
/* a holds bf16 pairs, b fp16 pairs (input_scale keeps both in range). */
DEVICE void mma(float *c, const uint32_t *a, const uint32_t *b) {
    uint32_t h[4];
#pragma unroll
    for (int i = 0; i < 4; i++) h[i] = pair_input(low(a[i]), high(a[i]));
    mma_inputs(c, h, b);
}
DEVICE void copy16(void *dst, const void *src, bool ok) {
    *(uint4 *)dst = ok ? *(const uint4 *)src : make_uint4(0, 0, 0, 0);
}
DEVICE void copies_commit() {}
template <int N> DEVICE void copies_wait() {}
#endif
#endif
