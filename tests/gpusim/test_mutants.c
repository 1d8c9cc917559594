/* test_mutants.c: damages correct kernels in their PTX and expects a finding.
 *
 * Every barrier, wait and commit of the kernels is removed or weakened in turn, every shuffle gets
 * a member mask without lane 31. (Copies that ignore their size are no mutants here: the kernels
 * clamp addresses, so the bytes are legal and multiplied by zero.) */
#include "mutate.h"

static const Mutation mutations[] = {
    {"no barrier", "bar.sync", "// bar.sync"},
    {"no wait", "cp.async.wait_group", "// cp.async.wait_group"},
    {"weaker wait", "cp.async.wait_group 1", "cp.async.wait_group 2"},
    {"weaker wait", "cp.async.wait_group 0", "cp.async.wait_group 1"},
    {"no commit", "cp.async.commit_group", "// cp.async.commit_group"},
    {"shuffle without lane 31", "31, -1;", "31, 2147483647;"},
};
enum { MUTATIONS = sizeof mutations / sizeof *mutations };

typedef struct { const char *kernel; int blocks_x, threads, shared; } Kernel;
static const Kernel kernels[] = {
    {"rmsnorm", 3, 256, 0}, {"argmax", 1, 256, 0}, {"gemm", 2, 128, 24576}, {"attend", 2, 128, 0}};

/* Launches with plausible data; returns the number of findings. */
static int run(CUmodule mod, const Kernel *k) {
    enum { N = 128 * 128 };
    static float data[N];
    for (int i = 0; i < N; i++) data[i] = rndf();
    CUdeviceptr a = upload(data, sizeof data), b = upload(data, sizeof data);
    CUdeviceptr c = upload(data, sizeof data), d = device(sizeof data);
    int x = 100, y = 100, z = 72;
    float s = 0.1f;
    CUfunction f;
    MUST(cuModuleGetFunction(&f, mod, k->kernel));
    void *rms[] = {&a, &b, &d, &x, &s}, *arg[] = {&a, &x, &d}, *gem[] = {&a, &b, &d, &x, &y, &z};
    void *att[] = {&a, &b, &c, &d, &x, &s};
    void **args = k == &kernels[0] ? rms : k == &kernels[1] ? arg : k == &kernels[2] ? gem : att;
    MUST(cuLaunchKernel(f, (unsigned)k->blocks_x, 1, 1, (unsigned)k->threads, 1, 1,
                        (unsigned)k->shared, NULL, args, NULL));
    cuStreamSynchronize(NULL);
    gpusim_set("sticky", "0");
    cuMemFree_v2(a);
    cuMemFree_v2(b);
    cuMemFree_v2(c);
    cuMemFree_v2(d);
    return gpusim_report_count();
}

static int test_mutant(const char *text, const Kernel *k, const Mutation *m, int n) {
    char *ptx = mutated(text, k->kernel, m, n);
    CUmodule mod;
    if (!ptx) return 0;
    gpusim_reset_reports();
    int r = cuModuleLoadDataEx(&mod, ptx, 0, NULL, NULL);
    CHECK(!r, "%s: %s #%d does not load", k->kernel, m->name, n);
    int found = r ? 0 : run(mod, k);
    CHECK(found > 0, "%s: '%s' #%d goes unnoticed", k->kernel, m->name, n);
    free(ptx);
    return 1;
}

int main(int argc, char **argv) {
    open_driver(argc, argv);
    gpusim_set("verbose", "0");
    gpusim_set("max_steps", "1000000");
    char *image = read_all("kernels.fatbin");
    if (!image) {
        printf("SKIP no nvcc: kernels.fatbin was not built\n");
        skipped++;
        return finish();
    }
    int count = 0;
    for (int arch = 90; arch <= 100; arch += 10) {
        char *text = ptx_of(image, arch);
        CUmodule clean;
        MUST(cuModuleLoadDataEx(&clean, text, 0, NULL, NULL));
        for (size_t k = 0; k < sizeof kernels / sizeof *kernels; k++) {
            gpusim_reset_reports();
            CHECK(run(clean, &kernels[k]) == 0, "%s is not clean", kernels[k].kernel);
            print_reports();
            for (int m = 0; m < MUTATIONS; m++)
                for (int n = 0; test_mutant(text, &kernels[k], &mutations[m], n); n++) count++;
        }
    }
    CHECK(count >= 20, "only %d mutants", count);
    gpusim_reset_reports();
    return finish();
}
