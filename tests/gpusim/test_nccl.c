/* test_nccl.c: several devices: who may touch whose memory, streams, events and modules; and the
 * stand-in libnccl.so.2: what ncclAllGather leaves where, eagerly and out of graphs, what is refused,
 * and that a rank which does not come is a finding, not a hang. Kernels from bugs.cu. */
#include "harness.h"

enum { N = 64, RANKS = 3, FLOAT32 = 7, INT32 = 2, INVALID_ARGUMENT = 4, INVALID_USAGE = 5 };

#define NCCL(X) \
    X(int, ncclGetVersion, (int *)) X(int, ncclCommInitAll, (void **, int, const int *)) \
    X(int, ncclCommDestroy, (void *)) X(int, ncclCommAbort, (void *)) X(int, ncclGroupStart, (void)) X(int, ncclGroupEnd, (void)) \
    X(int, ncclAllGather, (CUdeviceptr, CUdeviceptr, size_t, int, void *, CUstream)) \
    X(const char *, ncclGetErrorString, (int))
#define PEER(X) \
    X(int, cuDeviceCanAccessPeer, (int *, CUdevice, CUdevice)) \
    X(int, cuCtxEnablePeerAccess, (CUcontext, unsigned))
#define POINTER_OF(ret, name, args) static ret (*name) args;
NCCL(POINTER_OF) PEER(POINTER_OF)

static CUcontext context[RANKS];
static CUmodule mod[RANKS];
static CUfunction scale[RANKS];
static CUstream stream[RANKS];
static void *comm[RANKS];

static bool reported(const char *rule) {
    for (int i = 0; i < gpusim_report_count(); i++)
        if (!strcmp(gpusim_report_at(i)->rule, rule)) return true;
    return false;
}

/* Expects the finding `rule` (none if NULL), then forgets it and the error that sticks. */
static void expect(const char *rule, const char *what) {
    bool ok = rule ? reported(rule) : gpusim_report_count() == 0;
    CHECK(ok, "%s: expected %s", what, rule ? rule : "no finding");
    if (!ok) print_reports();
    gpusim_reset_reports();
    gpusim_set("sticky", "0");
}

static void use(int r) { MUST(cuCtxSetCurrent(context[r])); }

static CUdeviceptr memory(int r, size_t bytes) {
    use(r);
    CUdeviceptr p = device(bytes);
    MUST(cuMemsetD8Async(p, 0, bytes, stream[r]));
    return p;
}

static int run(int r, int kernel_of, CUdeviceptr out, CUdeviceptr in) { /* out = 2 in */
    int n = N;
    return cuLaunchKernel(scale[kernel_of], 1, 1, 1, N, 1, 1, 0, stream[r], (void *[]){&out, &in, &n}, NULL);
}

static int wait_for(int r) { return cuStreamSynchronize(stream[r]); }
static void wait_all(void) {
    for (int r = 0; r < RANKS; r++) MUST(wait_for(r));
}

/* ---- devices ---- */

static void test_devices(void) {
    CUdeviceptr mine = memory(0, 4 * N), other = memory(1, 4 * N);
    CUevent e;
    float host[N];
    int n = 0, can = 0;
    MUST(cuDeviceGetCount(&n));
    CHECK(n == RANKS, "%d devices", n);
    use(0);
    CHECK(cuMemcpyHtoDAsync_v2(other, host, sizeof host, stream[0]) == 0, "copy");
    expect("wrong-device", "copy to the memory of another device");
    CHECK(cuMemcpyDtoHAsync_v2(host, other, sizeof host, stream[0]) == 0, "copy");
    expect("wrong-device", "copy from the memory of another device");
    CHECK(cuMemsetD8Async(other, 0, 4, stream[0]) == 0, "fill");
    expect("wrong-device", "fill of the memory of another device");
    CHECK(run(0, 1, mine, mine) == CU_INVALID_HANDLE, "a kernel of another device's module");
    expect("wrong-device", "a kernel of another device's module");
    CHECK(run(1, 1, other, other) == CU_INVALID_HANDLE, "another device is current");
    expect("wrong-device", "another device is current");
    MUST(cuEventCreate(&e, 2));
    CHECK(cuEventRecord(e, stream[1]) == CU_INVALID_HANDLE, "an event of another device");
    expect("wrong-device", "an event of another device");
    MUST(wait_for(0));
    MUST(wait_for(1));
    gpusim_reset_reports();
    MUST(run(0, 0, mine, other));
    CHECK(wait_for(0) == CU_ILLEGAL_ADDRESS, "a kernel reads another device's memory");
    expect("wrong-device", "a kernel reads another device's memory");
    MUST(run(0, 0, other, mine));
    CHECK(wait_for(0) == CU_ILLEGAL_ADDRESS, "a kernel writes another device's memory");
    expect("wrong-device", "a kernel writes another device's memory");
    MUST(cuDeviceCanAccessPeer(&can, 0, 1));
    CHECK(can, "peer access");
    MUST(cuCtxEnablePeerAccess(context[1], 0));
    MUST(run(0, 0, mine, other));
    MUST(wait_for(0));
    expect(NULL, "a kernel reads another device's memory with peer access");
    use(1);
    MUST(run(1, 1, other, mine));
    CHECK(wait_for(1) == CU_ILLEGAL_ADDRESS, "peer access goes one way");
    expect("wrong-device", "peer access goes one way");
    size_t left = 0, total = 0;
    use(2);
    MUST(cuMemGetInfo_v2(&left, &total));
    size_t before = left;
    memory(1, 1 << 20);
    use(2);
    MUST(cuMemGetInfo_v2(&left, &total));
    CHECK(left == before, "each device has memory of its own");
    MUST(wait_for(1));
}

/* ---- all-gather ---- */

static CUdeviceptr send[RANKS], recv[RANKS];

static void fill_send(float base) {
    for (int r = 0; r < RANKS; r++) {
        float v[N];
        for (int i = 0; i < N; i++) v[i] = base + (float)(100 * r + i);
        use(r);
        MUST(cuMemcpyHtoDAsync_v2(send[r], v, sizeof v, stream[r]));
    }
}

static int gather(size_t count, int type) {
    MUST(ncclGroupStart());
    int e = 0;
    for (int r = 0; r < RANKS && !e; r++) e = ncclAllGather(send[r], recv[r], count, type, comm[r], stream[r]);
    int end = ncclGroupEnd();
    return e ? e : end;
}

static void check_recv(float base, float factor, const char *what) {
    for (int r = 0; r < RANKS; r++) {
        float v[RANKS * N];
        use(r);
        MUST(cuMemcpyDtoHAsync_v2(v, recv[r], sizeof v, stream[r]));
        MUST(wait_for(r));
        int bad = 0;
        for (int i = 0; i < RANKS * N; i++) bad += v[i] != factor * (base + (float)(100 * (i / N) + i % N));
        CHECK(bad == 0, "%s: rank %d has %d wrong values", what, r, bad);
    }
    expect(NULL, what);
}

static void test_gather(void) {
    fill_send(1);
    CHECK(gather(N, FLOAT32) == 0, "gather");
    check_recv(1, 1, "gather");
    for (int i = 0; i < 3; i++) { /* between kernels of each rank, several on their way */
        fill_send((float)i);
        for (int r = 0; r < RANKS; r++) {
            use(r);
            MUST(run(r, r, send[r], send[r]));
        }
        CHECK(gather(N, FLOAT32) == 0, "gather");
    }
    check_recv(2, 2, "gather between kernels");
    for (int r = 0; r < RANKS; r++) { /* in place */
        CUdeviceptr mine = recv[r] + (CUdeviceptr)(4 * N * r);
        float v[N];
        for (int i = 0; i < N; i++) v[i] = 7 + (float)(100 * r + i);
        use(r);
        MUST(cuMemcpyHtoDAsync_v2(mine, v, sizeof v, stream[r]));
    }
    MUST(ncclGroupStart());
    for (int r = 0; r < RANKS; r++)
        MUST(ncclAllGather(recv[r] + (CUdeviceptr)(4 * N * r), recv[r], N, FLOAT32, comm[r], stream[r]));
    MUST(ncclGroupEnd());
    check_recv(7, 1, "gather in place");
}

/* The collective is a node of each rank's graph; the graphs are launched one after the other. */
static void capture_gather(CUgraphExec x[RANKS]) {
    CUgraph g[RANKS];
    for (int r = 0; r < RANKS; r++) {
        use(r);
        MUST(cuStreamBeginCapture_v2(stream[r], 1));
        MUST(run(r, r, send[r], send[r]));
    }
    CHECK(gather(N, FLOAT32) == 0, "captured");
    for (int r = 0; r < RANKS; r++) {
        use(r);
        MUST(cuStreamEndCapture(stream[r], &g[r]));
        MUST(cuGraphInstantiateWithFlags(&x[r], g[r], 0));
        MUST(cuGraphDestroy(g[r]));
    }
}

static void test_graphs(void) {
    CUgraphExec x[RANKS];
    capture_gather(x);
    for (int i = 0; i < 3; i++) {
        fill_send((float)i);
        for (int r = 0; r < RANKS; r++) {
            use(r);
            MUST(cuGraphLaunch(x[r], stream[r]));
        }
        check_recv((float)i, 2, "gather in graphs");
    }
    fill_send(0);
    for (int r = 0; r + 1 < RANKS; r++) {
        use(r);
        MUST(cuGraphLaunch(x[r], stream[r]));
    }
    CHECK(wait_for(0) == CU_LAUNCH_FAILED, "a graph that was not launched");
    expect("nccl-missing-rank", "a graph that was not launched");
    CHECK(ncclCommDestroy(comm[0]) == INVALID_USAGE, "graphs are live");
    expect("nccl-live-graph", "graphs are live");
    for (int r = 0; r < RANKS; r++) { /* and what the failure left in the streams */
        MUST(cuGraphExecDestroy(x[r]));
        wait_for(r);
        gpusim_set("sticky", "0");
    }
    gpusim_reset_reports();
}

/* What only some ranks started ends with the communicators. */
static void test_abort(void) {
    CUgraphExec x[RANKS];
    for (int r = 0; r < RANKS; r++) MUST(ncclCommDestroy(comm[r]));
    MUST(ncclCommInitAll(comm, RANKS, NULL));
    capture_gather(x);
    fill_send(3);
    use(0);
    MUST(cuGraphLaunch(x[0], stream[0]));
    for (int r = 0; r < RANKS; r++) MUST(cuGraphExecDestroy(x[r]));
    for (int r = 0; r < RANKS; r++) MUST(ncclCommAbort(comm[r]));
    wait_all();
    expect(NULL, "after an abort nothing waits");
}

/* What is refused. Each leaves the communicators as they were. */
static void test_refused(void) {
    void *twice[2];
    int same[] = {1, 1}, far[] = {0, 9}, version = 0;
    MUST(ncclGetVersion(&version));
    CHECK(version > 20000, "version %d", version);
    CHECK(!strcmp(ncclGetErrorString(5), "invalid usage"), "%s", ncclGetErrorString(5));
    CHECK(ncclCommInitAll(twice, 2, same) == INVALID_USAGE, "one device twice");
    CHECK(ncclCommInitAll(twice, 2, far) == INVALID_ARGUMENT, "a device that is not there");
    CHECK(ncclGroupEnd() == INVALID_USAGE, "an end without a start");
    CHECK(ncclAllGather(send[0], recv[0], N, FLOAT32, comm[0], stream[0]) == INVALID_USAGE, "no group");
    expect("nccl-no-group", "no group");
    MUST(ncclGroupStart());
    MUST(ncclAllGather(send[0], recv[0], N, FLOAT32, comm[0], stream[0]));
    MUST(ncclAllGather(send[1], recv[1], N, FLOAT32, comm[1], stream[1]));
    CHECK(ncclGroupEnd() == INVALID_USAGE, "a rank is missing");
    expect("nccl-missing-rank", "a rank is missing");
    const struct { int rank; CUdeviceptr send, recv; size_t count; int type, stream; const char *rule; } bad[] = {
        {2, send[2], recv[2], N / 2, FLOAT32, 2, "nccl-mismatch"},
        {2, send[2], recv[2], N, INT32, 2, "nccl-mismatch"},
        {2, send[2], recv[2], N, FLOAT32, 1, "nccl-stream"},
        {2, send[1], recv[2], N, FLOAT32, 2, "nccl-buffer"},
        {2, send[2], recv[1], N, FLOAT32, 2, "nccl-buffer"},
        {2, send[2], recv[2] + 4, N, FLOAT32, 2, "nccl-buffer"},
        {2, recv[2], recv[2], N, FLOAT32, 2, "nccl-overlap"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        MUST(ncclGroupStart());
        for (int r = 0; r < RANKS - 1; r++)
            MUST(ncclAllGather(send[r], recv[r], N, FLOAT32, comm[r], stream[r]));
        int e = ncclAllGather(bad[i].send, bad[i].recv, bad[i].count, bad[i].type, comm[bad[i].rank],
                              stream[bad[i].stream]);
        int end = ncclGroupEnd();
        CHECK(e || end, "case %zu was let through", i);
        expect(bad[i].rule, bad[i].rule);
    }
    use(0);
    MUST(cuStreamBeginCapture_v2(stream[0], 1));
    CHECK(gather(N, FLOAT32) == INVALID_USAGE, "one rank captures");
    CUgraph g;
    MUST(cuStreamEndCapture(stream[0], &g));
    expect("nccl-capture", "one rank captures");
    wait_all();
    fill_send(5);
    CHECK(gather(N, FLOAT32) == 0, "gather");
    check_recv(5, 1, "after all that was refused");
}

/* Two communicators, which rank 1 calls in the other order than the rest. */
static void test_order(void) {
    void *both[2][RANKS];
    MUST(ncclCommInitAll(both[0], RANKS, NULL));
    MUST(ncclCommInitAll(both[1], RANKS, NULL));
    for (int crossed = 0; crossed < 2; crossed++) {
        MUST(ncclGroupStart());
        for (int r = 0; r < RANKS; r++)
            for (int i = 0; i < 2; i++)
                MUST(ncclAllGather(send[r], recv[r], N, FLOAT32, both[crossed && r == 1 ? 1 - i : i][r], stream[r]));
        MUST(ncclGroupEnd());
        int e = wait_for(0);
        CHECK(e == (crossed ? CU_LAUNCH_FAILED : CU_OK), "crossed %d: %d", crossed, e);
        expect(crossed ? "nccl-order" : NULL, "two communicators");
        for (int r = 0; r < RANKS; r++) { /* what the failure left in the streams */
            wait_for(r);
            gpusim_set("sticky", "0");
        }
        gpusim_reset_reports();
    }
    for (int i = 0; i < 2 * RANKS; i++) MUST(ncclCommDestroy(both[i / RANKS][i % RANKS]));
}

/* A buffer that one rank writes on another stream while it is sent; one that nobody wrote. */
static void test_findings(void) {
    CUstream s;
    use(0);
    MUST(cuStreamCreate(&s, 1));
    CHECK(gather(N, FLOAT32) == 0, "gather");
    int n = N;
    use(0);
    MUST(cuLaunchKernel(scale[0], 1, 1, 1, N, 1, 1, 0, s, (void *[]){&send[0], &send[0], &n}, NULL));
    MUST(cuStreamSynchronize(s));
    wait_all();
    expect("stream-race", "the send buffer is overwritten on another stream");
    CUdeviceptr keep = send[1];
    use(1);
    send[1] = device(4 * N);
    CHECK(gather(N, FLOAT32) == 0, "gather");
    wait_all();
    expect("uninitialised-copy", "a rank sends what nothing wrote");
    send[1] = keep;
}

int main(int argc, char **argv) {
    setenv("GPUSIM_DEVICES", "3", 1);
    open_driver(argc, argv);
    gpusim_set("verbose", "0");
    char path[1024];
    snprintf(path, sizeof path, "%s/libcuda.so.1", build_dir);
    void *driver = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    snprintf(path, sizeof path, "%s/libnccl.so.2", build_dir);
    void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    char *image = read_all("bugs.fatbin");
    if (!lib || !driver || !image) {
        printf("FATAL %s\n", lib ? "no bugs.fatbin" : dlerror());
        return 2;
    }
#define FIND(ret, name, args) if (!(*(void **)&name = dlsym(lookup_in, #name))) { printf("FATAL no " #name "\n"); return 2; }
    void *lookup_in = lib;
    NCCL(FIND)
    lookup_in = driver;
    PEER(FIND)
    gpusim_set("ptx", "80");
    for (int r = 0; r < RANKS; r++) {
        MUST(cuDevicePrimaryCtxRetain(&context[r], r));
        use(r);
        MUST(cuModuleLoadDataEx(&mod[r], image, 0, NULL, NULL));
        MUST(cuModuleGetFunction(&scale[r], mod[r], "scale"));
        MUST(cuStreamCreate(&stream[r], 1));
    }
    test_devices();
    MUST(ncclCommInitAll(comm, RANKS, NULL));
    for (int r = 0; r < RANKS; r++) {
        send[r] = memory(r, 4 * N);
        recv[r] = memory(r, 4 * N * RANKS);
    }
    test_gather();
    test_refused();
    test_findings();
    test_order();
    test_graphs();
    test_abort();
    gpusim_reset_reports();
    return finish();
}
