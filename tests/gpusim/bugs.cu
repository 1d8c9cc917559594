/* bugs.cu: kernels with one deliberate mistake each, and their clean twins.
 *
 * bug_NAME must be reported with the rule that test_bugs.c lists, at the line marked BUG(NAME);
 * ok_NAME is the corrected kernel and must stay clean. All take (float *out, const float *in, n). */
#include <assert.h>
#include <stdint.h>

#define KERNEL extern "C" __global__ void
#define ARGS (float *out, const float *in, int n)
#define T threadIdx.x

static __device__ __forceinline__ uint32_t smem(const void *p) {
    return (uint32_t)__cvta_generic_to_shared(p);
}
static __device__ __forceinline__ void copy16(void *s, const void *g) {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(smem(s)), "l"(g) : "memory");
#else
    *(float4 *)s = *(const float4 *)g;
#endif
}
static __device__ __forceinline__ void commit() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
#if __CUDA_ARCH__ >= 800
#define WAIT(N) asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory")
#else
#define WAIT(N) (void)0
#endif

/* ---- bounds ---- */
KERNEL bug_read_bounds ARGS { out[T] = in[T + 1]; }   // BUG(read_bounds)
KERNEL ok_read_bounds ARGS { out[T] = in[T + 1 < n ? T + 1 : n - 1]; }
KERNEL bug_write_bounds ARGS { out[T * 2] = 1; }   // BUG(write_bounds)
KERNEL ok_write_bounds ARGS { if (T * 2 < n) out[T * 2] = 1; }
KERNEL bug_null ARGS {
    float *p = n > 0 ? (float *)(uintptr_t)(n - n) : out;
    asm volatile("st.global.f32 [%0], %1;" ::"l"(p), "f"(1.0f));   // BUG(null)
}
KERNEL ok_null ARGS { asm volatile("st.global.f32 [%0], %1;" ::"l"(out + T), "f"(1.0f)); }
KERNEL bug_shared_bounds ARGS {
    __shared__ float s[64];
    s[T] = in[T];
    __syncthreads();
    out[T] = s[T + 32];   // BUG(shared_bounds)
}
KERNEL ok_shared_bounds ARGS {
    __shared__ float s[64];
    s[T] = in[T];
    __syncthreads();
    out[T] = s[(T + 32) % 64];
}
KERNEL bug_dynamic ARGS {
    extern __shared__ float dyn[];
    dyn[T] = in[T];   // BUG(dynamic)
    out[T] = dyn[T];
}
KERNEL ok_dynamic ARGS {
    extern __shared__ float dyn[];
    dyn[T] = in[T];
    out[T] = dyn[T];
}
KERNEL bug_local_bounds ARGS {
    volatile float a[4];
    for (int i = 0; i < 4; i++) a[i] = in[i];
    out[T] = a[n / 8];   // BUG(local_bounds)
}
KERNEL ok_local_bounds ARGS {
    volatile float a[4];
    for (int i = 0; i < 4; i++) a[i] = in[i];
    out[T] = a[n % 4];
}

/* ---- alignment ---- */
KERNEL bug_misaligned ARGS { *(float4 *)(out + 4 * (T % 8)) = *(const float4 *)(in + 1); }   // BUG(misaligned)
KERNEL ok_misaligned ARGS { if (T < 8) *(float4 *)(out + 4 * T) = *(const float4 *)(in + 4); }
KERNEL bug_shared_misaligned ARGS {
    __shared__ __align__(16) float s[128];
    s[T] = s[T + 64] = in[T];
    __syncthreads();
    float2 v;
    asm volatile("ld.shared.v2.f32 {%0,%1}, [%2];" : "=f"(v.x), "=f"(v.y) : "r"(smem(s + T)));   // BUG(shared_misaligned)
    out[T] = v.x + v.y;
}
KERNEL ok_shared_misaligned ARGS {
    __shared__ __align__(16) float s[128];
    s[T] = s[T + 64] = in[T];
    __syncthreads();
    float2 v;
    asm volatile("ld.shared.v2.f32 {%0,%1}, [%2];" : "=f"(v.x), "=f"(v.y) : "r"(smem(s + T / 2 * 2)));
    out[T] = v.x + v.y;
}

/* ---- reads of what nobody wrote ---- */
KERNEL bug_uninit_global ARGS { out[T] = out[T] + in[T]; }   // BUG(uninit_global)
KERNEL ok_uninit_global ARGS { out[T] = 0; out[T] = out[T] + in[T]; }
KERNEL bug_uninit_shared ARGS {
    __shared__ float s[64];
    if (T < 32) s[T] = in[T];
    __syncthreads();
    out[T] = s[T];   // BUG(uninit_shared)
}
KERNEL ok_uninit_shared ARGS {
    __shared__ float s[64];
    s[T] = in[T];
    __syncthreads();
    out[T] = s[T];
}
KERNEL bug_uninit_local ARGS {
    volatile float a[8];
    for (int i = 0; i < 7; i++) a[i] = in[i];
    out[T] = a[n / 8 - 1];   // BUG(uninit_local)
}
KERNEL ok_uninit_local ARGS {
    volatile float a[8];
    for (int i = 0; i < 8; i++) a[i] = in[i];
    out[T] = a[n / 8 - 1];
}
KERNEL bug_uninit_register ARGS {
    float v;
    asm volatile("{ .reg .f32 t; add.f32 %0, t, %1; }" : "=f"(v) : "f"(in[T]));   // BUG(uninit_register)
    out[T] = v;
}
KERNEL ok_uninit_register ARGS {
    float v;
    asm volatile("{ .reg .f32 t; mov.f32 t, %1; add.f32 %0, t, %1; }" : "=f"(v) : "f"(in[T]));
    out[T] = v;
}

/* ---- races in shared memory ---- */
KERNEL bug_raw ARGS {
    __shared__ float s[64];
    s[T] = in[T];
    out[T] = s[63 - T];   // BUG(raw)
}
KERNEL ok_raw ARGS {
    __shared__ float s[64];
    s[T] = in[T];
    __syncthreads();
    out[T] = s[63 - T];
}
KERNEL bug_war ARGS {
    __shared__ float s[64];
    s[T] = in[T];
    __syncthreads();
    float v = s[63 - T];
    s[T] = v * 2;   // BUG(war)
    __syncthreads();
    out[T] = s[T];
}
KERNEL ok_war ARGS {
    __shared__ float s[64];
    s[T] = in[T];
    __syncthreads();
    float v = s[63 - T];
    __syncthreads();
    s[T] = v * 2;
    __syncthreads();
    out[T] = s[T];
}
KERNEL bug_waw ARGS {
    __shared__ float s[32];
    s[T % 32] = in[T];   // BUG(waw)
    __syncthreads();
    out[T] = s[T % 32];
}
KERNEL ok_waw ARGS {
    __shared__ float s[32];
    if (T < 32) s[T] = in[T];
    __syncthreads();
    out[T] = s[T % 32];
}
KERNEL bug_warp_exchange ARGS {
    __shared__ volatile float s[64];
    s[T] = in[T];
    out[T] = s[T ^ 1];   // BUG(warp_exchange)
}
KERNEL ok_warp_exchange ARGS {
    __shared__ volatile float s[64];
    s[T] = in[T];
    __syncwarp();
    out[T] = s[T ^ 1];
}
KERNEL bug_reduce ARGS {
    __shared__ volatile float s[64];
    s[T] = in[T];
    __syncthreads();
    if (T < 32) {
        float v = s[T] + s[T + 32];
        s[T] = v;
        for (int o = 16; o; o >>= 1) {
            if (T < o) v += s[T + o];   // BUG(reduce)
            s[T] = v;
        }
    }
    if (T == 0) out[0] = s[0];
}
KERNEL ok_reduce ARGS {
    __shared__ volatile float s[64];
    s[T] = in[T];
    __syncthreads();
    if (T < 32) {
        float v = s[T] + s[T + 32];
        __syncwarp();
        s[T] = v;
        for (int o = 16; o; o >>= 1) {
            __syncwarp();
            if (T < o) v += s[T + o];
            __syncwarp();
            s[T] = v;
        }
    }
    if (T == 0) out[0] = s[0];
}

/* ---- barriers ---- */
KERNEL bug_divergent ARGS {
    if (T % 2) { out[T] = 1; __syncthreads(); out[T] = 3; }   // BUG(divergent)
    else { out[T] = in[T]; __syncthreads(); out[T] += 2; }   // BUG(divergent)
}
KERNEL ok_divergent ARGS {
    if (T % 2) out[T] = 1;
    else out[T] = 2;
    __syncthreads();
}
KERNEL bug_two_barriers ARGS {
    if (T < 32) { out[T] = 1; __syncthreads(); out[T] = 3; }
    else { out[T] = in[T]; __syncthreads(); out[T] += 2; }   // BUG(two_barriers)
}
KERNEL ok_two_barriers ARGS {
    if (T < 32) out[T] = 1;
    else out[T] = in[T];
    __syncthreads();
    out[T] += 2;
}
KERNEL bug_exited ARGS {
    if (T >= 32) return;
    out[T] = in[T];
    __syncthreads();   // BUG(exited)
    out[T] += 1;
}
KERNEL ok_exited ARGS {
    if (T < 32) out[T] = in[T];
    __syncthreads();
    if (T < 32) out[T] += 1;
}
KERNEL bug_named ARGS {
    if (T < 32) asm volatile("bar.sync 1, 96;" ::: "memory");   // BUG(named)
    out[T] = in[T];
}
KERNEL ok_named ARGS {
    __shared__ float s[32];
    if (T < 32) {
        s[T] = in[T];
        asm volatile("bar.arrive 1, 64;" ::: "memory");
    } else {
        asm volatile("bar.sync 1, 64;" ::: "memory");
        out[T] = s[T - 32];
    }
}
KERNEL bug_producer ARGS {
    __shared__ float s[32];
    if (T < 32) {
        asm volatile("bar.arrive 1, 64;" ::: "memory");
        s[T] = in[T];   // BUG(producer)
    } else {
        asm volatile("bar.sync 1, 64;" ::: "memory");
        out[T] = s[T - 32];   // BUG(producer)
    }
}
KERNEL ok_producer ARGS {
    __shared__ float s[32];
    if (T < 32) {
        s[T] = in[T];
        asm volatile("bar.arrive 1, 64;" ::: "memory");
    } else {
        asm volatile("bar.sync 1, 64;" ::: "memory");
        out[T] = s[T - 32];
    }
}

/* ---- lanes ---- */
KERNEL bug_shfl_inactive ARGS {
    float v = in[T];
    if (T % 32 < 16) v += __shfl_down_sync(0xffff, v, 8, 32) + __shfl_sync(0xffff, v, 20);   // BUG(shfl_inactive)
    out[T] = v;
}
KERNEL ok_shfl_inactive ARGS {
    float v = in[T];
    if (T % 32 < 16) v += __shfl_sync(0xffff, v, 12);
    out[T] = v;
}
KERNEL bug_shfl_mask ARGS {
    float v = in[T];
    if (T % 32 < 16) v += __shfl_xor_sync(0xffffffffu, v, 1);   // BUG(shfl_mask)
    out[T] = v;
}
KERNEL ok_shfl_mask ARGS {
    float v = in[T];
    if (T % 32 < 16) v += __shfl_xor_sync(0xffff, v, 1);
    out[T] = v;
}
KERNEL bug_mma ARGS {
#if __CUDA_ARCH__ >= 800
    float c[4] = {0, 0, 0, 0};
    uint32_t a = __float_as_uint(in[T]);
    if (T % 32 < 31)
        asm volatile(
                     "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, "
                     "{%4,%4,%4,%4}, {%4,%4}, {%0,%1,%2,%3};"
                     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a));   // BUG(mma)
    out[T] = c[0] + c[1] + c[2] + c[3];
#endif
}
KERNEL ok_mma ARGS {
#if __CUDA_ARCH__ >= 800
    float c[4] = {0, 0, 0, 0};
    uint32_t a = __float_as_uint(in[T]);
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, "
                 "{%4,%4,%4,%4}, {%4,%4}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a));
    out[T] = c[0] + c[1] + c[2] + c[3];
#endif
}
KERNEL bug_ldmatrix ARGS {
    __shared__ __align__(16) float s[32 * 8];
    for (int i = T; i < 256; i += 64) s[i] = in[i % 64];
    __syncthreads();
    uint32_t r;
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(r) : "r"(smem(s + T % 32 * 6)));   // BUG(ldmatrix)
    out[T] = __uint_as_float(r);
}
KERNEL ok_ldmatrix ARGS {
    __shared__ __align__(16) float s[32 * 8];
    for (int i = T; i < 256; i += 64) s[i] = in[i % 64];
    __syncthreads();
    uint32_t r;
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(r) : "r"(smem(s + T % 32 * 8)));
    out[T] = __uint_as_float(r);
}

/* ---- cp.async ---- */
KERNEL bug_cp_no_wait ARGS {
    __shared__ __align__(16) float s[64];
    if (T < 16) copy16(s + 4 * T, in + 4 * T);
    commit();
    __syncthreads();
    out[T] = s[T];   // BUG(cp_no_wait)
}
KERNEL ok_cp_no_wait ARGS {
    __shared__ __align__(16) float s[64];
    if (T < 16) copy16(s + 4 * T, in + 4 * T);
    commit();
    WAIT(0);
    __syncthreads();
    out[T] = s[T];
}
KERNEL bug_cp_weak_wait ARGS {
    __shared__ __align__(16) float s[2][64];
    float a = 0;
    for (int i = 0; i < 2; i++) {
        if (T < 16) copy16(s[i] + 4 * T, in + 4 * T);
        commit();
    }
    for (int i = 0; i < 2; i++) {
        WAIT(1);
        __syncthreads();
        a += s[i][T];   // BUG(cp_weak_wait)
    }
    out[T] = a;
}
KERNEL ok_cp_weak_wait ARGS {
    __shared__ __align__(16) float s[2][64];
    float a = 0;
    for (int i = 0; i < 2; i++) {
        if (T < 16) copy16(s[i] + 4 * T, in + 4 * T);
        commit();
    }
    WAIT(1);
    __syncthreads();
    a += s[0][T];
    WAIT(0);
    __syncthreads();
    out[T] = a + s[1][T];
}
KERNEL bug_cp_overwrite ARGS {
    __shared__ __align__(16) float s[64];
    s[T] = in[T];
    __syncthreads();
    float a = s[63 - T];
    if (T < 16) copy16(s + 4 * T, in + 4 * T);   // BUG(cp_overwrite)
    commit();
    WAIT(0);
    __syncthreads();
    out[T] = a + s[T];
}
KERNEL ok_cp_overwrite ARGS {
    __shared__ __align__(16) float s[64];
    s[T] = in[T];
    __syncthreads();
    float a = s[63 - T];
    __syncthreads();
    if (T < 16) copy16(s + 4 * T, in + 4 * T);
    commit();
    WAIT(0);
    __syncthreads();
    out[T] = a + s[T];
}

/* ---- blocks and global memory ---- */
KERNEL bug_blocks_write ARGS { if (T == 0) out[0] = blockIdx.x; }   // BUG(blocks_write)
KERNEL ok_blocks_write ARGS { if (T == 0) out[blockIdx.x] = blockIdx.x; }
KERNEL bug_blocks_read ARGS {
    out[blockIdx.x * 64 + T] = 1;
    if (blockIdx.x) out[blockIdx.x * 64 + T] = out[T] + 1;   // BUG(blocks_read)
}
KERNEL ok_blocks_read ARGS {
    out[blockIdx.x * 64 + T] = 1;
    if (blockIdx.x) out[blockIdx.x * 64 + T] = in[T] + 1;
}
KERNEL bug_no_fence ARGS {
    __shared__ int last;
    out[blockIdx.x * 64 + T] = 1;
    __syncthreads();
    if (T == 0) last = atomicAdd((int *)out + n - 1, 1) == 1;
    __syncthreads();
    if (last) out[128 + T] = out[T] + out[64 + T];   // BUG(no_fence)
}
KERNEL ok_no_fence ARGS {
    __shared__ int last;
    out[blockIdx.x * 64 + T] = 1;
    __threadfence();
    __syncthreads();
    if (T == 0) last = atomicAdd((int *)out + n - 1, 1) == 1;
    __syncthreads();
    __threadfence();
    if (last) out[128 + T] = out[T] + out[64 + T];
}
KERNEL bug_global_exchange ARGS {
    out[T] = in[T];
    out[T + 64] = ((volatile float *)out)[63 - T];   // BUG(global_exchange)
}
KERNEL ok_global_exchange ARGS {
    out[T] = in[T];
    __syncthreads();
    out[T + 64] = out[63 - T];
}
KERNEL bug_atomic_mix ARGS {
    if (T == 0) atomicAdd((int *)out, 1);
    if (T == 32) out[0] = 7;   // BUG(atomic_mix)
}
KERNEL ok_atomic_mix ARGS {
    if (T == 0) atomicAdd((int *)out, 1);
    if (T == 32) atomicExch((int *)out, 7);
}
KERNEL bug_stale_nc ARGS {
    float v;
    out[T] = in[T];
    asm volatile("ld.global.nc.f32 %0, [%1];" : "=f"(v) : "l"(out + T) : "memory");   // BUG(stale_nc)
    out[T + 64] = v;
}
KERNEL ok_stale_nc ARGS {
    float v;
    out[T] = in[T];
    asm volatile("ld.global.f32 %0, [%1];" : "=f"(v) : "l"(out + T) : "memory");
    out[T + 64] = v;
}

/* ---- ends ---- */
KERNEL bug_hang ARGS {
    volatile float *p = out;
    p[T] = 0;
    while (p[T] == 0) {}   // BUG(hang)
}
KERNEL ok_hang ARGS {
    volatile float *p = out;
    p[T] = 0;
    while (p[T] < 100) p[T] += 1;
}
KERNEL bug_assert ARGS { assert(in[T] < 0); out[T] = 1; }   // BUG(assert)
KERNEL ok_assert ARGS { assert(in[T] >= 0); out[T] = 1; }
KERNEL bug_trap ARGS { if (in[T] >= 0) __trap(); out[T] = 1; }   // BUG(trap)
KERNEL ok_trap ARGS { if (in[T] < 0) __trap(); out[T] = 1; }

/* ---- used by the host-side cases ---- */
KERNEL scale ARGS { for (int i = T + blockIdx.x * blockDim.x; i < n; i += blockDim.x * gridDim.x) out[i] = in[i] * 2; }
KERNEL big_shared ARGS {
    extern __shared__ float dyn[];
    dyn[T] = in[T];
    out[T] = dyn[T];
}
KERNEL bug_pdl ARGS {
    float v = in[T];   // BUG(pdl)
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
    out[T] = v * 2;
}
KERNEL ok_pdl ARGS {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
    out[T] = in[T] * 2;
}
