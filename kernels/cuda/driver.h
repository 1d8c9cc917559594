/* driver.h: the part of the CUDA driver API that the backend uses, found at run time. No toolkit
 * header is needed to build this; the types below are those of the driver's binary interface. */
#ifndef VL_CUDA_DRIVER_H
#define VL_CUDA_DRIVER_H

#include "common/common.h"

typedef int CUresult, CUdevice;
typedef uint64_t CUdeviceptr;
typedef struct CUctx_st *CUcontext;
typedef struct CUmod_st *CUmodule;
typedef struct CUfunc_st *CUfunction;
typedef struct CUstream_st *CUstream;
typedef struct CUevent_st *CUevent;
typedef struct CUgraph_st *CUgraph;
typedef struct CUgraphNode_st *CUgraphNode;
typedef struct CUgraphExec_st *CUgraphExec;

typedef struct cuda_launch_attribute {
    int id;
    char pad[4];
    union { char bytes[64]; int flag; } value;
} cuda_launch_attribute;
typedef struct cuda_launch_config {
    unsigned grid[3], block[3], shared;
    CUstream stream;
    cuda_launch_attribute *attributes;
    unsigned n_attributes;
} cuda_launch_config;
typedef struct cuda_node_params { /* CUDA_KERNEL_NODE_PARAMS_v2 */
    CUfunction function;
    unsigned grid[3], block[3], shared;
    void **args, **extra;
    void *kernel;
    CUcontext context;
} cuda_node_params;

enum { CU_OK = 0, CU_OUT_OF_MEMORY = 2, CU_CC_MAJOR = 75, CU_CC_MINOR = 76, CU_SMS = 16, CU_MEMORY_KHZ = 36, CU_BUS_BITS = 37, CU_NON_BLOCKING = 1,
       CU_THREAD_LOCAL = 1, CU_PROGRAMMATIC_SERIALIZATION = 6,
       CU_FUNC_DYNAMIC_SHARED = 8, CU_NOT_READY = 600 };

/* name, the exact symbol, an older symbol that does as well, parameters. The symbols are the ones of
 * the oldest driver that has them; what cuda.h of a newer toolkit would rename is not used. */
#define CUDA_DRIVER(X)                                                                             \
    X(Init, "cuInit", NULL, (unsigned flags))                                                      \
    X(DriverGetVersion, "cuDriverGetVersion", NULL, (int *version))                                \
    X(DeviceGetCount, "cuDeviceGetCount", NULL, (int *n))                                          \
    X(DeviceGet, "cuDeviceGet", NULL, (CUdevice *d, int ordinal))                                  \
    X(DeviceGetName, "cuDeviceGetName", NULL, (char *name, int size, CUdevice d))                  \
    X(DeviceGetAttribute, "cuDeviceGetAttribute", NULL, (int *value, int attribute, CUdevice d))   \
    X(GetErrorName, "cuGetErrorName", NULL, (CUresult e, const char **text))                       \
    X(GetErrorString, "cuGetErrorString", NULL, (CUresult e, const char **text))                   \
    X(PrimaryCtxRetain, "cuDevicePrimaryCtxRetain", NULL, (CUcontext *c, CUdevice d))              \
    X(PrimaryCtxRelease, "cuDevicePrimaryCtxRelease_v2", "cuDevicePrimaryCtxRelease", (CUdevice d)) \
    X(CtxSetCurrent, "cuCtxSetCurrent", NULL, (CUcontext c))                                       \
    X(ModuleLoad, "cuModuleLoadDataEx", NULL,                                                      \
      (CUmodule *m, const void *image, unsigned n, int *options, void **values))                   \
    X(ModuleUnload, "cuModuleUnload", NULL, (CUmodule m))                                          \
    X(ModuleGetFunction, "cuModuleGetFunction", NULL, (CUfunction *f, CUmodule m, const char *name)) \
    X(FuncSetAttribute, "cuFuncSetAttribute", NULL, (CUfunction f, int attribute, int value))      \
    X(MemAlloc, "cuMemAlloc_v2", NULL, (CUdeviceptr *p, size_t bytes))                             \
    X(MemFree, "cuMemFree_v2", NULL, (CUdeviceptr p))                                              \
    X(MemGetInfo, "cuMemGetInfo_v2", NULL, (size_t *free_bytes, size_t *total))                    \
    X(MemHostAlloc, "cuMemHostAlloc", NULL, (void **p, size_t bytes, unsigned flags))              \
    X(MemFreeHost, "cuMemFreeHost", NULL, (void *p))                                               \
    X(CopyToDevice, "cuMemcpyHtoDAsync_v2", NULL,                                                  \
      (CUdeviceptr to, const void *from, size_t bytes, CUstream s))                                \
    X(CopyToHost, "cuMemcpyDtoHAsync_v2", NULL,                                                    \
      (void *to, CUdeviceptr from, size_t bytes, CUstream s))                                      \
    X(Fill, "cuMemsetD8Async", NULL, (CUdeviceptr p, unsigned char v, size_t bytes, CUstream s))   \
    X(StreamCreate, "cuStreamCreate", NULL, (CUstream *s, unsigned flags))                         \
    X(StreamDestroy, "cuStreamDestroy_v2", NULL, (CUstream s))                                     \
    X(StreamSynchronize, "cuStreamSynchronize", NULL, (CUstream s))                                \
    X(StreamQuery, "cuStreamQuery", NULL, (CUstream s))                                            \
    X(EventCreate, "cuEventCreate", NULL, (CUevent *e, unsigned flags))                            \
    X(EventDestroy, "cuEventDestroy_v2", NULL, (CUevent e))                                        \
    X(EventRecord, "cuEventRecord", NULL, (CUevent e, CUstream s))                                 \
    X(EventSynchronize, "cuEventSynchronize", NULL, (CUevent e))                                   \
    X(BeginCapture, "cuStreamBeginCapture_v2", NULL, (CUstream s, int mode))                       \
    X(EndCapture, "cuStreamEndCapture", NULL, (CUstream s, CUgraph *g))                            \
    X(CaptureInfo, "cuStreamGetCaptureInfo_v2", NULL,                                              \
      (CUstream s, int *status, uint64_t *id, CUgraph *g, const CUgraphNode **nodes, size_t *n))   \
    X(GraphInstantiate, "cuGraphInstantiateWithFlags", NULL,                                       \
      (CUgraphExec *x, CUgraph g, unsigned long long flags))                                       \
    X(GraphSetParams, "cuGraphExecKernelNodeSetParams_v2", "cuGraphExecKernelNodeSetParams",       \
      (CUgraphExec x, CUgraphNode node, const cuda_node_params *p))                                \
    X(GraphLaunch, "cuGraphLaunch", NULL, (CUgraphExec x, CUstream s))                             \
    X(GraphExecDestroy, "cuGraphExecDestroy", NULL, (CUgraphExec x))                               \
    X(GraphDestroy, "cuGraphDestroy", NULL, (CUgraph g))                                           \
    X(Launch, "cuLaunchKernel", NULL,                                                              \
      (CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, \
       unsigned shared, CUstream s, void **args, void **extra))

/* Of later drivers; NULL where missing. */
#define CUDA_DRIVER_NEW(X)                                                                         \
    X(LaunchEx, "cuLaunchKernelEx", NULL,                                                          \
      (const cuda_launch_config *c, CUfunction f, void **args, void **extra))

typedef struct cuda_driver {
#define X(name, symbol, older, args) CUresult (*name) args;
    CUDA_DRIVER(X)
    CUDA_DRIVER_NEW(X)
#undef X
    void *library;
} cuda_driver;

/* Opens $VL_CUDA_DRIVER or libcuda.so.1 and finds every function. VL_E_BACKEND says which file or
 * symbol is missing and how to get it. Close with cuda_driver_close. */
int cuda_driver_open(cuda_driver *d, vl_err *err);
void cuda_driver_close(cuda_driver *d);
/* 0, or fails with the driver's own words for `e` after `what`. */
int cuda_check(const cuda_driver *d, CUresult e, const char *what, vl_err *err);

#endif
