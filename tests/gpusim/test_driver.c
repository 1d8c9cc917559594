/* test_driver.c: the driver's own behaviour: lazy streams, order between streams, graphs, launch
 * limits, captures, programmatic launch, and the findings about them. Kernels from bugs.cu. */
#include "harness.h"

enum { N = 64 };
static CUmodule mod;
static CUfunction scale;

static bool reported(const char *rule) {
    for (int i = 0; i < gpusim_report_count(); i++)
        if (!strcmp(gpusim_report_at(i)->rule, rule)) return true;
    return false;
}

/* Expects exactly the finding `rule` (none if NULL), then forgets it. */
static void expect(const char *rule, const char *what) {
    bool ok = rule ? reported(rule) : gpusim_report_count() == 0;
    CHECK(ok, "%s: expected %s", what, rule ? rule : "no finding");
    if (!ok) print_reports();
    gpusim_reset_reports();
    gpusim_set("sticky", "0");
}

static CUfunction function(const char *name) {
    CUfunction f;
    MUST(cuModuleGetFunction(&f, mod, name));
    return f;
}

static int run(CUfunction f, CUstream s, CUdeviceptr out, CUdeviceptr in, unsigned shared) {
    int n = N;
    return cuLaunchKernel(f, 1, 1, 1, N, 1, 1, shared, s, (void *[]){&out, &in, &n}, NULL);
}

static CUdeviceptr numbers(void) {
    float v[N];
    for (int i = 0; i < N; i++) v[i] = (float)i;
    CUdeviceptr p = upload(v, sizeof v);
    MUST(cuStreamSynchronize(NULL));
    return p;
}

static CUstream new_stream(void) {
    CUstream s;
    MUST(cuStreamCreate(&s, 1));
    return s;
}

static void test_device(void) {
    static const struct { const char *key; int cc, sms; } want[] = {
        {"T4", 75, 40}, {"A10", 86, 72}, {"A100", 80, 108}, {"H100", 90, 132}, {"RTX4090", 89, 128},
        {"B200", 100, 148}};
    for (int i = 0; i < 6; i++) {
        int major = 0, minor = 0, sms = 0, bad = 0;
        gpusim_set("device", want[i].key);
        MUST(cuDeviceGetAttribute(&major, 75, 0));
        MUST(cuDeviceGetAttribute(&minor, 76, 0));
        MUST(cuDeviceGetAttribute(&sms, 16, 0));
        CHECK(major * 10 + minor == want[i].cc && sms == want[i].sms, "%s", want[i].key);
        CHECK(cuDeviceGetAttribute(&bad, 9999, 0) == CU_INVALID_VALUE, "unknown attribute");
    }
    gpusim_set("device", "A100");
    const char *name = NULL;
    CHECK(!cuGetErrorName(716, &name) && !strcmp(name, "CUDA_ERROR_MISALIGNED_ADDRESS"), "name");
}

static void test_lazy(void) {
    CUdeviceptr in = numbers(), out = device(4 * N);
    CUstream s = new_stream();
    float host[N];
    MUST(run(scale, s, out, in, 0));
    MUST(cuMemcpyDtoHAsync_v2(host, out, sizeof host, s));
    CHECK(!(host[5] == 10.0f), "results are there before anyone waited");
    CHECK(cuStreamQuery(s) == CU_NOT_READY && cuStreamQuery(s) == CU_OK, "stream query");
    CHECK(host[5] == 10.0f, "got %g", (double)host[5]);
    MUST(cuStreamDestroy_v2(s));
    CHECK(cuStreamSynchronize(s) == CU_INVALID_HANDLE, "a destroyed stream");
    expect(NULL, "lazy stream");
}

static void test_streams(void) {
    CUdeviceptr a = numbers(), b = device(4 * N), c = device(4 * N);
    CUstream s = new_stream(), t = new_stream();
    CUevent e;
    MUST(cuEventCreate(&e, 0));
    MUST(run(scale, s, b, a, 0));
    MUST(cuEventRecord(e, s));
    MUST(cuStreamWaitEvent(t, e, 0));
    MUST(run(scale, t, c, b, 0));
    float host[N];
    MUST(cuMemcpyDtoHAsync_v2(host, c, sizeof host, t));
    MUST(cuStreamSynchronize(t));
    CHECK(host[3] == 12.0f, "got %g", (double)host[3]);
    MUST(cuStreamSynchronize(s));
    expect(NULL, "streams ordered by an event");
    MUST(run(scale, s, b, a, 0));
    MUST(run(scale, t, c, b, 0));
    MUST(cuStreamSynchronize(s));
    MUST(cuStreamSynchronize(t));
    expect("stream-race", "two streams without an event");
    MUST(run(scale, s, b, a, 0));
    MUST(cuMemcpyDtoHAsync_v2(host, b, sizeof host, t));
    MUST(cuStreamSynchronize(s));
    MUST(cuStreamSynchronize(t));
    expect("stream-race", "copy on another stream than the kernel");
    MUST(cuMemsetD8Async(b, 0, 4 * N, t));
    MUST(run(scale, s, c, b, 0));
    MUST(cuStreamSynchronize(t));
    MUST(cuStreamSynchronize(s));
    expect("stream-race", "fill on another stream than the kernel");
    MUST(run(scale, s, b, a, 0));
    MUST(cuStreamSynchronize(s));
    MUST(run(scale, t, c, b, 0));
    MUST(cuStreamSynchronize(t));
    expect(NULL, "streams ordered by the host");
    CUstream u;
    MUST(cuStreamCreate(&u, 0));
    MUST(run(scale, u, b, a, 0));
    MUST(run(scale, NULL, c, b, 0));
    MUST(cuStreamSynchronize(NULL));
    expect(NULL, "default stream waits for blocking streams");
}

static void test_host_buffers(void) {
    CUdeviceptr d = device(4 * N);
    CUstream s = new_stream();
    float *pinned;
    MUST(cuMemHostAlloc((void **)&pinned, 4 * N, 0));
    for (int i = 0; i < N; i++) pinned[i] = 1;
    MUST(cuMemcpyHtoDAsync_v2(d, pinned, 4 * N, s));
    MUST(cuStreamSynchronize(s));
    expect(NULL, "pinned copy");
    MUST(cuMemcpyHtoDAsync_v2(d, pinned, 4 * N, s));
    pinned[7] = 2;
    MUST(cuStreamSynchronize(s));
    expect("host-buffer-changed", "source changed before the copy");
    MUST(cuMemcpyHtoDAsync_v2(d, pinned, 4 * N, s));
    MUST(cuMemFreeHost(pinned));
    MUST(cuStreamSynchronize(s));
    expect("host-buffer-freed", "source freed before the copy");
    float host[N];
    CUdeviceptr fresh = device(4 * N);
    MUST(download(host, fresh, sizeof host));
    expect("uninitialised-copy", "copy of memory nobody wrote");
    CHECK(cuMemcpyHtoDAsync_v2(d + 4, host, 4 * N, s) == CU_INVALID_VALUE, "copy out of range");
    expect("out-of-bounds", "copy out of range");
    CHECK(cuMemFree_v2(d + 4) == CU_INVALID_VALUE, "free of an inner address");
    MUST(cuMemFree_v2(d));
    CHECK(cuMemFree_v2(d) == CU_INVALID_VALUE, "double free");
    CUdeviceptr in = numbers();
    MUST(run(scale, NULL, d, in, 0));
    CHECK(cuStreamSynchronize(NULL) == CU_ILLEGAL_ADDRESS, "use after free");
    CHECK(cuMemAlloc_v2(&d, 4) == CU_ILLEGAL_ADDRESS, "the error sticks");
    expect("use-after-free", "kernel on freed memory");
    MUST(run(scale, NULL, (CUdeviceptr)(uintptr_t)host, in, 0));
    CHECK(cuStreamSynchronize(NULL) == CU_ILLEGAL_ADDRESS, "host pointer");
    expect("out-of-bounds", "kernel on a host pointer");
    size_t free_bytes, total;
    MUST(cuMemGetInfo_v2(&free_bytes, &total));
    CHECK(cuMemAlloc_v2(&d, total) == CU_OUT_OF_MEMORY && free_bytes < total, "more than there is");
}

static void test_limits(void) {
    CUdeviceptr in = numbers(), out = device(4 * N);
    CUfunction big = function("big_shared");
    int n = N;
    void *args[] = {&out, &in, &n};
    CHECK(cuLaunchKernel(scale, 1, 1, 1, 1025, 1, 1, 0, NULL, args, NULL) == CU_INVALID_VALUE, "1025");
    expect("launch-limits", "1025 threads");
    CHECK(cuLaunchKernel(scale, 1, 65536, 1, 32, 1, 1, 0, NULL, args, NULL) == CU_INVALID_VALUE, "y");
    expect("launch-limits", "grid y of 65536");
    CHECK(cuLaunchKernel(scale, 0, 1, 1, 32, 1, 1, 0, NULL, args, NULL) == CU_INVALID_VALUE, "empty");
    expect("launch-limits", "empty grid");
    CHECK(run(big, NULL, out, in, 64 * 1024) == CU_INVALID_VALUE, "48 KiB without the attribute");
    expect("launch-limits", "shared memory without the attribute");
    MUST(cuFuncSetAttribute(big, 8, 64 * 1024));
    MUST(run(big, NULL, out, in, 64 * 1024));
    MUST(cuStreamSynchronize(NULL));
    CHECK(cuFuncSetAttribute(big, 8, 200 * 1024) == CU_INVALID_VALUE, "beyond the device");
    expect(NULL, "shared memory with the attribute");
    size_t size = 12;
    void *extra[] = {(void *)1, args, (void *)2, &size, NULL};
    CHECK(cuLaunchKernel(scale, 1, 1, 1, 32, 1, 1, 0, NULL, NULL, extra) == CU_INVALID_VALUE, "extra");
    expect("launch-parameters", "parameter buffer of the wrong size");
    void *few[] = {&out, &in, (void *)8};
    CHECK(cuLaunchKernel(scale, 1, 1, 1, 32, 1, 1, 0, NULL, few, NULL) == CU_INVALID_VALUE, "few");
    expect("launch-parameters", "too few parameters");
    int value = 0, blocks = 0;
    MUST(cuFuncGetAttribute(&value, 4, scale));
    CHECK(value > 0 && value < 256, "registers of the cubin: %d", value);
    MUST(cuOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, scale, 256, 0));
    CHECK(blocks == 8, "2048 threads / 256 = 8, got %d", blocks);
    CUfunction none;
    CHECK(cuModuleGetFunction(&none, mod, "no_such_kernel") == CU_NOT_FOUND, "name");
}

static void test_graphs(void) {
    CUdeviceptr a = numbers(), b = device(4 * N), c = device(4 * N), d;
    CUstream s = new_stream(), t = new_stream();
    CUgraph g;
    CUgraphExec x;
    CUevent e, f;
    float host[N];
    MUST(cuEventCreate(&e, 2));
    MUST(cuEventCreate(&f, 2));
    MUST(cuStreamBeginCapture_v2(s, 1));
    MUST(run(scale, s, b, a, 0));
    MUST(run(scale, s, c, b, 0));
    CHECK(cuMemAlloc_v2(&d, 16) == CU_CAPTURE_UNSUPPORTED, "allocation in a capture");
    MUST(cuStreamEndCapture(s, &g));
    MUST(cuGraphInstantiateWithFlags(&x, g, 0));
    MUST(cuGraphDestroy(g));
    for (int i = 0; i < 3; i++) MUST(cuGraphLaunch(x, s));
    MUST(cuMemcpyDtoHAsync_v2(host, c, sizeof host, s));
    MUST(cuStreamSynchronize(s));
    CHECK(host[9] == 36.0f, "graph result %g", (double)host[9]);
    MUST(cuGraphExecDestroy(x));
    expect(NULL, "graph of two kernels");
    /* a fork whose branches touch the same bytes, joined: the graph is legal, the race is not */
    MUST(cuStreamBeginCapture_v2(s, 1));
    MUST(cuEventRecord(e, s));
    MUST(cuStreamWaitEvent(t, e, 0));
    MUST(run(scale, s, b, a, 0));
    MUST(run(scale, t, c, b, 0));
    MUST(cuEventRecord(f, t));
    MUST(cuStreamWaitEvent(s, f, 0));
    MUST(cuStreamEndCapture(s, &g));
    MUST(cuGraphInstantiateWithFlags(&x, g, 0));
    MUST(cuGraphLaunch(x, s));
    MUST(cuStreamSynchronize(s));
    expect("stream-race", "two branches of a graph");
    MUST(cuStreamBeginCapture_v2(s, 1));
    MUST(cuEventRecord(e, s));
    MUST(run(scale, s, b, a, 0));
    MUST(cuStreamWaitEvent(t, e, 0));
    MUST(run(scale, t, c, a, 0));
    CHECK(cuStreamEndCapture(s, &g) == CU_CAPTURE_UNJOINED, "branch that is not joined");
    MUST(cuStreamBeginCapture_v2(s, 1));
    CHECK(cuStreamSynchronize(s) == CU_CAPTURE_UNSUPPORTED, "synchronise in a capture");
    CHECK(cuStreamEndCapture(s, &g) == CU_CAPTURE_INVALIDATED, "the capture is lost");
    expect(NULL, "captures");
}

static void test_events(void) {
    CUdeviceptr a = numbers(), b = device(4 * N);
    CUevent e, f;
    float ms = -1;
    MUST(cuEventCreate(&e, 0));
    MUST(cuEventCreate(&f, 0));
    MUST(cuEventRecord(e, NULL));
    MUST(run(scale, NULL, b, a, 0));
    MUST(cuEventRecord(f, NULL));
    CHECK(cuEventElapsedTime(&ms, e, f) == CU_NOT_READY, "before anyone waited");
    MUST(cuEventSynchronize(f));
    MUST(cuEventElapsedTime(&ms, e, f));
    CHECK(ms > 0 && ms < 1, "predicted %g ms", (double)ms);
    MUST(cuEventDestroy_v2(e));
    MUST(cuEventDestroy_v2(f));
}

static int run_pdl(CUfunction f, CUstream s, CUdeviceptr out, CUdeviceptr in) {
    CUlaunchAttribute attr = {.id = LAUNCH_PROGRAMMATIC_SERIALIZATION, .value.flag = 1};
    CUlaunchConfig k = {1, 1, 1, N, 1, 1, 0, s, &attr, 1};
    int n = N;
    return cuLaunchKernelEx(&k, f, (void *[]){&out, &in, &n}, NULL);
}

static void test_pdl(void) {
    CUdeviceptr a = numbers(), b = device(4 * N), c = device(4 * N);
    CUstream s = new_stream();
    CHECK(run_pdl(function("ok_pdl"), s, c, b) == CU_NOT_SUPPORTED, "PDL on an A100");
    gpusim_set("device", "H100");
    MUST(run(scale, s, b, a, 0));
    MUST(run_pdl(function("ok_pdl"), s, c, b));
    MUST(cuStreamSynchronize(s));
    expect(NULL, "read after griddepcontrol.wait");
    MUST(run(scale, s, b, a, 0));
    MUST(run_pdl(function("bug_pdl"), s, c, b));
    MUST(cuStreamSynchronize(s));
    expect("pdl-wait", "read before griddepcontrol.wait");
    MUST(run(scale, s, b, a, 0));
    MUST(run_pdl(function("bug_pdl"), s, c, a));
    MUST(cuStreamSynchronize(s));
    expect(NULL, "prefetch of weights before griddepcontrol.wait");
    gpusim_set("device", "A100");
}

static void test_modules(char *image) {
    CUmodule m;
    CHECK(cuModuleLoadDataEx(&m, "\177ELF....", 0, NULL, NULL) == CU_NO_BINARY, "a cubin alone");
    static const char bad[] = ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k()\n{\n"
                              ".reg .b32 %r<3>;\nfrobnicate.s32 %r1, %r2;\nret;\n}\n";
    CHECK(cuModuleLoadDataEx(&m, bad, 0, NULL, NULL) == CU_INVALID_PTX, "unknown instruction");
    bool named = gpusim_report_count() && strstr(gpusim_report_at(0)->message, "kernel k, PTX line 7")
                 && strstr(gpusim_report_at(0)->message, "frobnicate.s32");
    CHECK(named, "names kernel, line and instruction");
    expect("invalid-ptx", "unknown instruction");
    size_t n = strlen(bad);
    for (size_t i = 0; i < n; i++) {                   /* every prefix: an error, never a crash */
        char cut[512];
        memcpy(cut, bad, i);
        cut[i] = 0;
        if (i > 60) failed += cuModuleLoadDataEx(&m, cut, 0, NULL, NULL) == CU_OK && i > 75;
    }
    passed++;
    gpusim_reset_reports();
    gpusim_set("ptx", "87");
    CHECK(cuModuleLoadDataEx(&m, image, 0, NULL, NULL) == CU_NO_BINARY, "PTX that is not there");
    expect("no-ptx", "PTX that is not there");
    gpusim_set("ptx", "0");
    gpusim_set("device", "H100");       /* the newest PTX that an H100 may run */
    MUST(cuModuleLoadDataEx(&m, image, 0, NULL, NULL));
    MUST(cuModuleUnload(m));
    gpusim_set("device", "A100");
}

int main(int argc, char **argv) {
    open_driver(argc, argv);
    gpusim_set("verbose", "0");
    test_device();
    char *image = read_all("bugs.fatbin");
    if (!image) {
        printf("SKIP no nvcc: bugs.fatbin was not built\n");
        skipped++;
        return finish();
    }
    gpusim_set("ptx", "90");
    MUST(cuModuleLoadDataEx(&mod, image, 0, NULL, NULL));
    scale = function("scale");
    test_lazy();
    test_streams();
    test_host_buffers();
    test_limits();
    test_graphs();
    test_events();
    test_pdl();
    test_modules(image);
    gpusim_reset_reports();
    return finish();
}
