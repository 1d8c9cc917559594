/* misc.cu: language features beside arithmetic: parameters by value, constant and global variables,
 * switch, generic pointers, arrays in local memory, printf, grids and blocks of three dimensions. */
#include <cooperative_groups.h>
#include <stdio.h>
namespace cg = cooperative_groups;
#define KERNEL extern "C" __global__ void
#define T threadIdx.x

struct Args { float scale[3]; int n; const float *in; double shift; };
__constant__ float table[4] = {1, 10, 100, 1000};
__device__ int counter = 5;
__device__ float values[3] = {0.5f, 1.5f, 2.5f};

KERNEL by_value(Args a, float *out) { out[T] = a.in[T] * a.scale[T % a.n] + (float)a.shift; }
KERNEL constants(float *out) {
    out[T] = table[T % 4] + values[T % 3];
    if (T == 0) atomicAdd(&counter, 2);
}
KERNEL choose(int *out) {
    int v = out[T];
    switch (v) {
    case 0: v = v + 11; break;
    case 1: v = v * 12; break;
    case 2: v = v ^ 13; break;
    case 3: v = v - 14; break;
    case 4: v = v << 5; break;
    case 5: v = -v; break;
    case 6: v = v * v * v; break;
    default: v = 99;
    }
    out[T] = v;
}
KERNEL generic(float *out, int where) {
    __shared__ float s[32];
    float l[4] = {1, 2, 3, 4};
    s[T] = 7 + T;
    __syncthreads();
    const float *p = where == 0 ? s : where == 1 ? out + 32 : l;
    out[T] = p[T % 4];
}
KERNEL local_array(float *out, int n) {
    float a[16];
    for (int i = 0; i < 16; i++) a[i] = (float)i;
    for (int i = 0; i < n; i++) a[(i * 7) % 16] += a[(i + T) % 16];
    float s = 0;
    for (int i = 0; i < 16; i++) s += a[i];
    out[T] = s;
}
KERNEL tiles(float *out) {
    auto tile = cg::tiled_partition<8>(cg::this_thread_block());
    float v = out[T];
    for (int k = 4; k; k /= 2) v += tile.shfl_down(v, k);
    if (tile.thread_rank() == 0) out[T] = v;
}
KERNEL three(int *out) {
    int b = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    int t = T + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    out[b * blockDim.x * blockDim.y * blockDim.z + t] = b * 1000 + t;
}
KERNEL print(int n) { if (T == n) printf("lane %d of %s, %.2f %%\n", T, "block", 1.5); }
KERNEL store(float *out) { out[T] = 1; }
