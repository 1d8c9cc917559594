/* cuda_abi.h: the part of the CUDA driver's binary interface that gpusim implements (types, enum
 * values, result codes), written down here so that building it needs no toolkit. */
#ifndef CUDA_ABI_H
#define CUDA_ABI_H
#include <stddef.h>
#include <stdint.h>

typedef int CUresult, CUdevice;
typedef uint64_t CUdeviceptr;
typedef struct Context *CUcontext;
typedef struct Module *CUmodule;
typedef struct Func *CUfunction;
typedef struct Stream *CUstream;
typedef struct Event *CUevent;
typedef struct Graph *CUgraph;
typedef struct Graph *CUgraphExec;
typedef struct { char bytes[16]; } CUuuid;

typedef struct {
    int id;
    char pad[4];
    union { char bytes[64]; int flag; } value;
} CUlaunchAttribute;
typedef struct {
    unsigned gridDimX, gridDimY, gridDimZ, blockDimX, blockDimY, blockDimZ, sharedMemBytes;
    CUstream hStream;
    CUlaunchAttribute *attrs;
    unsigned numAttrs;
} CUlaunchConfig;
typedef struct {
    struct Func *func;
    unsigned gridDimX, gridDimY, gridDimZ, blockDimX, blockDimY, blockDimZ, sharedMemBytes;
    void **kernelParams, **extra;
    void *kern;
    CUcontext ctx;
} CUkernelNodeParams;
enum { LAUNCH_PROGRAMMATIC_SERIALIZATION = 6 };

enum {
    CU_OK = 0, CU_INVALID_VALUE = 1, CU_OUT_OF_MEMORY = 2, CU_NOT_INITIALIZED = 3,
    CU_INVALID_DEVICE = 101, CU_INVALID_IMAGE = 200, CU_INVALID_CONTEXT = 201, CU_NO_BINARY = 209,
    CU_INVALID_PTX = 218, CU_INVALID_HANDLE = 400, CU_NOT_FOUND = 500, CU_NOT_READY = 600,
    CU_ILLEGAL_ADDRESS = 700, CU_OUT_OF_RESOURCES = 701, CU_TIMEOUT = 702, CU_ASSERT = 710,
    CU_MISALIGNED = 716, CU_LAUNCH_FAILED = 719, CU_NOT_SUPPORTED = 801,
    CU_CAPTURE_UNSUPPORTED = 900, CU_CAPTURE_INVALIDATED = 901, CU_CAPTURE_UNMATCHED = 903,
    CU_CAPTURE_UNJOINED = 904, CU_CAPTURED_EVENT = 907
};
#endif
