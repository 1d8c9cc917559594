/* kernels.cu: engine-like kernels that gpusim must run and must not complain about.
 *
 * They use what a real decoder uses: 128-bit loads, warp shuffles, shared-memory reductions,
 * cp.async pipelines, ldmatrix, mma.sync, online softmax. run_kernels.c compares each with a
 * double-precision C reference for every PTX level (75, 80, 90, 100, 120). */
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

typedef __nv_bfloat16 bf16;

static __device__ __forceinline__ float lo(uint32_t v) { return __uint_as_float(v << 16); }
static __device__ __forceinline__ float hi(uint32_t v) { return __uint_as_float(v & 0xffff0000u); }
static __device__ __forceinline__ float warp_sum(float v) {
    for (int o = 16; o; o >>= 1) v += __shfl_xor_sync(~0u, v, o);
    return v;
}
template <int W> static __device__ __forceinline__ float block_sum(float v, float *red) {
    v = warp_sum(v);
    if (threadIdx.x % 32 == 0) red[threadIdx.x / 32] = v;
    __syncthreads();
    v = red[threadIdx.x % W];
    for (int o = W / 2; o; o >>= 1) v += __shfl_xor_sync(~0u, v, o);
    return v;
}

/* y[r] = sum_k w[r,k] x[k]; one warp per row, 16-byte weight loads. */
extern "C" __global__ void __launch_bounds__(128)
gemv(const bf16 *__restrict__ w, const float *__restrict__ x, float *__restrict__ y,
     int rows, int k) {
    int row = blockIdx.x * 4 + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= rows) return;
    const uint4 *p = (const uint4 *)(w + (size_t)row * k);
    float s = 0;
#pragma unroll 4
    for (int i = lane; i < k / 8; i += 32) {
        uint4 q = __ldg(p + i);
        const float4 *xv = (const float4 *)(x + i * 8);
        float4 a = xv[0], b = xv[1];
        s += lo(q.x) * a.x + hi(q.x) * a.y + lo(q.y) * a.z + hi(q.y) * a.w;
        s += lo(q.z) * b.x + hi(q.z) * b.y + lo(q.w) * b.z + hi(q.w) * b.w;
    }
    s = warp_sum(s);
    if (lane == 0) y[row] = s;
}

/* out[t] = x[t] / rms(x[t]) * g, 256 threads per row. */
extern "C" __global__ void __launch_bounds__(256)
rmsnorm(const float *__restrict__ x, const bf16 *__restrict__ g, bf16 *__restrict__ out,
        int d, float eps) {
    __shared__ float red[8];
    const float *xr = x + (size_t)blockIdx.x * d;
    float s = 0;
    for (int i = threadIdx.x; i < d; i += 256) s += xr[i] * xr[i];
    s = block_sum<8>(s, red);
    float r = rsqrtf(s / d + eps);
    for (int i = threadIdx.x; i < d; i += 256)
        out[(size_t)blockIdx.x * d + i] = __float2bfloat16(xr[i] * r * __bfloat162float(g[i]));
}

/* q/k rotary on [T, D] with D/2 angles per row computed by sincosf (precise: uses local memory). */
extern "C" __global__ void rope(float *x, const int *pos, int d, float log2_theta) {
    int t = blockIdx.x, half = d / 2;
    for (int i = threadIdx.x; i < half; i += blockDim.x) {
        float inv = exp2f(-log2_theta * (2.0f * i) / d), s, c;
        sincosf(pos[t] * inv, &s, &c);
        float a = x[t * d + i], b = x[t * d + half + i];
        x[t * d + i] = a * c - b * s;
        x[t * d + half + i] = b * c + a * s;
    }
}

/* index of the maximum (lowest index wins), one block. */
extern "C" __global__ void __launch_bounds__(256) argmax(const float *x, int n, int *out) {
    __shared__ float bv[8];
    __shared__ int bi[8];
    float v = -INFINITY;
    int id = 0x7fffffff;
    for (int i = threadIdx.x; i < n; i += 256)
        if (x[i] > v) { v = x[i]; id = i; }
    for (int o = 16; o; o >>= 1) {
        float ov = __shfl_down_sync(~0u, v, o);
        int oi = __shfl_down_sync(~0u, id, o);
        if (ov > v || (ov == v && oi < id)) { v = ov; id = oi; }
    }
    if (threadIdx.x % 32 == 0) { bv[threadIdx.x / 32] = v; bi[threadIdx.x / 32] = id; }
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int i = 1; i < 8; i++)
            if (bv[i] > v || (bv[i] == v && bi[i] < id)) { v = bv[i]; id = bi[i]; }
        *out = id;
    }
}

/* SwiGLU and GELU-tanh, elementwise. */
extern "C" __global__ void act(const float *g, const float *u, float *sw, float *ge, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float a = g[i];
    sw[i] = a / (1.0f + __expf(-a)) * u[i];
    ge[i] = 0.5f * a * (1.0f + tanhf(0.7978845608f * (a + 0.044715f * a * a * a)));
}

static __device__ __forceinline__ void mma16816(float *c, const uint32_t *a, const uint32_t *b) {
#if __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 "
                 "{%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(b[0]));
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 "
                 "{%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[2]), "r"(a[3]), "r"(b[1]));
#endif
}
static __device__ __forceinline__ void ldsm4(uint32_t *r, const void *p) {
    uint32_t a = (uint32_t)__cvta_generic_to_shared(p);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(a));
}
static __device__ __forceinline__ void ldsm2t(uint32_t *r, const void *p) {
    uint32_t a = (uint32_t)__cvta_generic_to_shared(p);
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1]) : "r"(a));
}
static __device__ __forceinline__ void copy16(void *s, const void *g, int bytes) {
#if __CUDA_ARCH__ >= 800
    uint32_t a = (uint32_t)__cvta_generic_to_shared(s);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(a), "l"(g), "r"(bytes));
#else
    *(uint4 *)s = bytes ? *(const uint4 *)g : make_uint4(0, 0, 0, 0);
#endif
}
static __device__ __forceinline__ void commit() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;");
#endif
}
template <int N> static __device__ __forceinline__ void wait_group() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(N));
#endif
}

/* 64x32 tile of swizzled 16-byte chunks: row r, chunk c lives at r*4 + (c ^ (r>>1 & 3)). */
static __device__ __forceinline__ int sw(int r, int c) { return (r * 4 + (c ^ (r >> 1 & 3))) * 8; }

/* C[m,n] = A[m,k] B[n,k]^T, 16-bit inputs (bf16; fp16 on sm_75), fp32 out; 64x64x32 tiles,
 * 4 warps of 32x32, 3 stages. */
extern "C" __global__ void __launch_bounds__(128)
gemm(const uint16_t *__restrict__ A, const uint16_t *__restrict__ B, float *__restrict__ C,
     int m, int n, int k) {
    extern __shared__ __align__(16) uint16_t tile[];
    const int S = 3, T = 64 * 32;
    int tid = threadIdx.x, warp = tid / 32, lane = tid % 32;
    int m0 = blockIdx.y * 64, n0 = blockIdx.x * 64, wm = warp / 2 * 32, wn = warp % 2 * 32;
    float acc[2][4][4] = {};
    auto load = [&](int s, int k0) {
        for (int i = tid; i < 256; i += 128) {
            int r = i / 4, c = i % 4;
            bool va = m0 + r < m && k0 + c * 8 < k, vb = n0 + r < n && k0 + c * 8 < k;
            copy16(tile + s * 2 * T + sw(r, c), A + (size_t)(va ? m0 + r : 0) * k +
                   (va ? k0 + c * 8 : 0), va ? 16 : 0);
            copy16(tile + s * 2 * T + T + sw(r, c), B + (size_t)(vb ? n0 + r : 0) * k +
                   (vb ? k0 + c * 8 : 0), vb ? 16 : 0);
        }
    };
    int steps = (k + 31) / 32;
    for (int s = 0; s < S - 1; s++) { if (s < steps) load(s, s * 32); commit(); }
    for (int t = 0; t < steps; t++) {
        wait_group<S - 2>();
        __syncthreads();
        int nx = t + S - 1;
        if (nx < steps) load(nx % S, nx * 32);
        commit();
        const uint16_t *ta = tile + t % S * 2 * T, *tb = ta + T;
#pragma unroll
        for (int kk = 0; kk < 2; kk++) {
            uint32_t a[2][4], b[2][4];
#pragma unroll
            for (int i = 0; i < 2; i++) {
                ldsm4(a[i], ta + sw(wm + i * 16 + lane % 16, kk * 2 + lane / 16));
                ldsm4(b[i], tb + sw(wn + i * 16 + lane % 8 + lane / 16 * 8,
                                    kk * 2 + lane / 8 % 2));
            }
#pragma unroll
            for (int i = 0; i < 2; i++)
#pragma unroll
                for (int j = 0; j < 4; j++) mma16816(acc[i][j], a[i], &b[j / 2][j % 2 * 2]);
        }
    }
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 4; j++)
            for (int e = 0; e < 4; e++) {
                int r = m0 + wm + i * 16 + lane / 4 + e / 2 * 8;
                int c = n0 + wn + j * 8 + lane % 4 * 2 + e % 2;
                if (r < m && c < n) C[(size_t)r * n + c] = acc[i][j][e];
            }
}

static __device__ __forceinline__ uint32_t pack2(float a, float b) {
#if __CUDA_ARCH__ >= 800
    __nv_bfloat162 v = __floats2bfloat162_rn(a, b);
#else
    __half2 v = __floats2half2_rn(a, b);
#endif
    return *(uint32_t *)&v;
}

/* Causal attention, head dim 64, one head per blockIdx.y, 64 queries per block, 64 keys a step.
 * q,k,v: [heads, t, 64] 16-bit; out: [heads, t, 64] fp32. */
extern "C" __global__ void __launch_bounds__(128)
attend(const uint16_t *__restrict__ Q, const uint16_t *__restrict__ K,
       const uint16_t *__restrict__ V, float *__restrict__ O, int t, float scale_log2) {
    __shared__ __align__(16) uint16_t sk[64 * 72], sv[64 * 72];
    int tid = threadIdx.x, warp = tid / 32, lane = tid % 32, q0 = blockIdx.x * 64;
    size_t base = (size_t)blockIdx.y * t * 64;
    for (int i = tid; i < 512; i += 128) {
        int r = i / 8, c = i % 8 * 8;
        copy16(sk + r * 72 + c, Q + base + (size_t)min(q0 + r, t - 1) * 64 + c, 16);
    }
    commit();
    wait_group<0>();
    __syncthreads();
    uint32_t qf[4][4];
    for (int i = 0; i < 4; i++)
        ldsm4(qf[i], sk + (warp * 16 + lane % 16) * 72 + i * 16 + lane / 16 * 8);
    float o[8][4] = {}, mx[2] = {-1e30f, -1e30f}, sum[2] = {0, 0};
    for (int k0 = 0; k0 < t && k0 <= q0 + 63; k0 += 64) {
        __syncthreads();
        for (int i = tid; i < 512; i += 128) {
            int r = i / 8, c = i % 8 * 8;
            size_t at = base + (size_t)min(k0 + r, t - 1) * 64 + c;
            copy16(sk + r * 72 + c, K + at, 16);
            copy16(sv + r * 72 + c, V + at, 16);
        }
        commit();
        wait_group<0>();
        __syncthreads();
        float s[8][4] = {};
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int j = 0; j < 4; j++) {
                uint32_t b[4];
                ldsm4(b, sk + (j * 16 + lane % 8 + lane / 16 * 8) * 72 + i * 16 + lane / 8 % 2 * 8);
                mma16816(s[2 * j], qf[i], b);
                mma16816(s[2 * j + 1], qf[i], b + 2);
            }
        float nm[2] = {mx[0], mx[1]};
#pragma unroll
        for (int j = 0; j < 8; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                int key = k0 + j * 8 + lane % 4 * 2 + e % 2;
                int qi = q0 + warp * 16 + lane / 4 + e / 2 * 8;
                s[j][e] = key <= qi && key < t ? s[j][e] * scale_log2 : -1e30f;
                nm[e / 2] = fmaxf(nm[e / 2], s[j][e]);
            }
#pragma unroll
        for (int h = 0; h < 2; h++) {
            nm[h] = fmaxf(nm[h], __shfl_xor_sync(~0u, nm[h], 1));
            nm[h] = fmaxf(nm[h], __shfl_xor_sync(~0u, nm[h], 2));
            float f = exp2f(mx[h] - nm[h]);
            mx[h] = nm[h];
            sum[h] *= f;
#pragma unroll
            for (int j = 0; j < 8; j++) { o[j][h * 2] *= f; o[j][h * 2 + 1] *= f; }
        }
#pragma unroll
        for (int j = 0; j < 8; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                s[j][e] = exp2f(s[j][e] - mx[e / 2]);
                sum[e / 2] += s[j][e];
            }
#pragma unroll
        for (int i = 0; i < 4; i++) {
            uint32_t a[4] = {pack2(s[2 * i][0], s[2 * i][1]), pack2(s[2 * i][2], s[2 * i][3]),
                             pack2(s[2 * i + 1][0], s[2 * i + 1][1]),
                             pack2(s[2 * i + 1][2], s[2 * i + 1][3])};
#pragma unroll
            for (int j = 0; j < 8; j++) {
                uint32_t b[2];
                ldsm2t(b, sv + (i * 16 + lane % 16) * 72 + j * 8);
                mma16816(o[j], a, b);
            }
        }
    }
    for (int h = 0; h < 2; h++) {
        sum[h] += __shfl_xor_sync(~0u, sum[h], 1);
        sum[h] += __shfl_xor_sync(~0u, sum[h], 2);
    }
    for (int j = 0; j < 8; j++)
        for (int e = 0; e < 4; e++) {
            int qi = q0 + warp * 16 + lane / 4 + e / 2 * 8;
            if (qi < t) O[base + (size_t)qi * 64 + j * 8 + lane % 4 * 2 + e % 2] = o[j][e] / sum[e / 2];
        }
}
