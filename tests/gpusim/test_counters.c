/* test_counters.c: counters of small kernels equal the numbers worked out by hand; occupancy equals
 * what the limits of each device give; predictions move the right way. */
#include "harness.h"

static CUmodule mod;

static const gpusim_kernel *counters(const char *name) {
    for (int i = 0; i < gpusim_kernel_count(); i++)
        if (!strcmp(gpusim_kernel_at(i)->kernel, name)) return gpusim_kernel_at(i);
    return NULL;
}

static const gpusim_kernel *run(const char *name, unsigned blocks, unsigned threads, size_t floats,
                                int n) {
    gpusim_reset_counters();
    float *zero = calloc(floats, 4);
    CUdeviceptr in = upload(zero, 4 * floats), out = device(4 * floats);
    CUfunction f;
    MUST(cuModuleGetFunction(&f, mod, name));
    MUST(cuLaunchKernel(f, blocks, 1, 1, threads, 1, 1, 0, NULL, (void *[]){&out, &in, &n}, NULL));
    MUST(cuStreamSynchronize(NULL));
    MUST(cuMemFree_v2(in));
    MUST(cuMemFree_v2(out));
    free(zero);
    return counters(name);
}

typedef struct { const char *name; uint64_t loads, load_sectors, used, stores, store_sectors; } Global;

/* Two blocks of 64 threads: 4 warps. A warp reads 128 bytes = 4 sectors at stride 1, 256 bytes = 8
 * at stride 2, 32 lines = 32 at stride 32, 16 with 16-byte lanes, 1 when all read one word, 5 when
 * shifted by 4 bytes. */
static void test_global(void) {
    static const Global cases[] = {
        {"stride1", 4, 16, 512, 4, 16}, {"stride2", 4, 32, 512, 4, 16},
        {"stride32", 4, 128, 512, 4, 16}, {"vec4", 4, 64, 2048, 4, 64}, {"same", 4, 4, 16, 4, 16},
        {"offset1", 4, 20, 512, 4, 16}, {"half_warp", 4, 8, 256, 4, 8}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const Global *c = &cases[i];
        const gpusim_kernel *k = run(c->name, 2, 64, 8192, 0);
        CHECK(k->load_requests == c->loads && k->load_sectors == c->load_sectors &&
              k->load_used == c->used &&
              k->store_requests == c->stores && k->store_sectors == c->store_sectors,
              "%s: %llu loads, %llu sectors, %llu stores, %llu sectors", c->name,
              (unsigned long long)k->load_requests, (unsigned long long)k->load_sectors,
              (unsigned long long)k->store_requests, (unsigned long long)k->store_sectors);
        CHECK(k->blocks == 2 && k->launches == 1, "%s", c->name);
    }
    const gpusim_kernel *k = run("stride1", 2, 64, 8192, 0);
    CHECK(k->load_bytes == 512 && k->store_bytes == 512, "bytes");
    /* 16 sectors read miss, 16 written are merged in the L2: 512 bytes from DRAM so far */
    CHECK(k->dram_bytes == 512 && k->l2_misses == 32 && k->l2_hits == 0, "L2: %llu bytes, %llu misses",
          (unsigned long long)k->dram_bytes, (unsigned long long)k->l2_misses);
    k = run("reread", 1, 32, 4096, 4096);
    CHECK(k->l2_misses == 512 + 4 && k->l2_hits == 512 && k->dram_bytes == 16384,
          "second pass hits: %llu misses %llu hits %llu bytes", (unsigned long long)k->l2_misses,
          (unsigned long long)k->l2_hits, (unsigned long long)k->dram_bytes);
}

/* 33 stores of one wavefront each clear the array, then one load with the conflict to measure. */
static void test_shared(void) {
    static const struct { const char *name; uint64_t conflict; } banks[] = {
        {"bank1", 1}, {"bank2", 2}, {"bank4", 4}, {"bank32", 32}, {"bank33", 1}, {"bank_same", 1}};
    for (size_t i = 0; i < sizeof banks / sizeof *banks; i++) {
        const gpusim_kernel *k = run(banks[i].name, 1, 32, 8192, 0);
        CHECK(k->shared_requests == 34 && k->shared_wavefronts == 33 + banks[i].conflict &&
              k->shared_ideal == 34, "%s: %llu wavefronts, %llu ideal", banks[i].name,
              (unsigned long long)k->shared_wavefronts, (unsigned long long)k->shared_ideal);
    }
    static const struct { const char *name; uint64_t waves; } rows[] = {
        {"rows16", 1}, {"rows128", 8}, {"rows144", 1}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const gpusim_kernel *k = run(rows[i].name, 1, 32, 8192, 0);
        CHECK(k->shared_wavefronts == 16 + rows[i].waves && k->shared_ideal == 17, "%s: %llu",
              rows[i].name, (unsigned long long)k->shared_wavefronts);
    }
    const gpusim_kernel *k = run("shared_vec4", 1, 32, 8192, 0);   /* 4 each way: 8 lanes at a time */
    CHECK(k->shared_wavefronts == 8 && k->shared_ideal == 8, "shared_vec4: %llu",
          (unsigned long long)k->shared_wavefronts);
    k = run("mma2", 3, 32, 8192, 0);
    CHECK(k->mma_flops == 3 * 2 * 4096, "mma: %llu", (unsigned long long)k->mma_flops);
}

static void test_occupancy(void) {
    /* stride1 at 256 threads: limited by the threads of an SM (T4 1024, A10 and 4090 1536) */
    static const struct { const char *key; int blocks; } want[] = {
        {"T4", 4}, {"A10", 6}, {"A100", 8}, {"H100", 8}, {"RTX4090", 6}, {"B200", 8}};
    CUfunction f;
    int n;
    MUST(cuModuleGetFunction(&f, mod, "stride1"));
    for (int i = 0; i < 6; i++) {
        gpusim_set("device", want[i].key);
        MUST(cuOccupancyMaxActiveBlocksPerMultiprocessor(&n, f, 256, 0));
        CHECK(n == want[i].blocks, "%s: %d blocks", want[i].key, n);
    }
    gpusim_set("device", "A100");
    MUST(cuOccupancyMaxActiveBlocksPerMultiprocessor(&n, f, 128, 40 * 1024));
    CHECK(n == 4, "164 KiB / (40 + 1) = 4, got %d", n);
}

/* A kernel that moves 16 MB takes longer than one that moves 8 KB, and longer on a T4 than on an H100. */
static void test_prediction(void) {
    double small = run("stride1", 4, 256, 1 << 12, 0)->predicted_us;
    double a100 = run("stride1", 8192, 256, 1 << 21, 0)->predicted_us;
    const gpusim_kernel *k = counters("stride1");
    CHECK(!strcmp(k->limiter, "latency") && k->trips == 1, "one wait for 4 bytes a thread: limiter %s, %g waits",
          k->limiter, k->trips);
    k = run("vec4", 8192, 256, 1 << 23, 0);
    CHECK(!strcmp(k->limiter, "DRAM") && k->trips == 1 && k->roof_us > 0 && k->roof_us < k->predicted_us, "limiter %s",
          k->limiter);
    k = run("copy_wait", 1, 32, 8192, 0); /* four waits, but all came with the first */
    CHECK(k->trips == 1, "cp.async: %g waits", k->trips);
    k = run("uneven", 1, 128, 8192, 0);
    CHECK(k->trips == 2, "two waits of the warps that load, whatever the others do: %g", k->trips);
    k = run("ahead", 1, 32, 8192, 0); /* 32 sectors ahead, and no wait for them; the 32 of the load are there */
    CHECK(k->dram_bytes == 1024 && k->l2_hits == 32 && k->load_sectors == 64 && k->trips == 1 && k->weight_sectors == 0,
          "prefetch: %llu bytes, %llu hits, %llu sectors, %g waits", (unsigned long long)k->dram_bytes,
          (unsigned long long)k->l2_hits, (unsigned long long)k->load_sectors, k->trips);
    gpusim_set("device", "T4");
    double t4 = run("stride1", 8192, 256, 1 << 21, 0)->predicted_us;
    gpusim_set("device", "H100");
    double h100 = run("stride1", 8192, 256, 1 << 21, 0)->predicted_us;
    CHECK(small < a100 && t4 > a100 && a100 >= h100, "predicted us: small %g, T4 %g, A100 %g, H100 %g",
          small, t4, a100, h100);
    gpusim_set("device", "A100");
}

int main(int argc, char **argv) {
    open_driver(argc, argv);
    char *image = read_all("counters.fatbin");
    if (!image) {
        printf("SKIP no nvcc: counters.fatbin was not built\n");
        skipped++;
        return finish();
    }
    static const char *levels[] = {"80", "90", "100", "120"};
    for (int i = 0; i < 4; i++) {
        if (!ptx_of(image, atoi(levels[i]))) { skipped++; continue; }
        gpusim_set("ptx", levels[i]);
        MUST(cuModuleLoadDataEx(&mod, image, 0, NULL, NULL));
        test_global();
        test_shared();
    }
    test_occupancy();
    test_prediction();
    CHECK(gpusim_report_count() == 0, "findings");
    print_reports();
    return finish();
}
