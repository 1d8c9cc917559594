/* test_bugs.c: each wrong kernel is reported by its rule at its line, each clean twin is not.
 *
 * The kernels are in bugs.cu; the lines are those marked BUG(name) there. */
#include "harness.h"

enum { N = 64 };

typedef struct {
    const char *name, *rule;
    int blocks, threads, shared, min_ptx;
    bool fresh;              /* out must not be written before */
} Case;

static const Case cases[] = {
    {"read_bounds", "out-of-bounds", 1, N, 0, 0, false},
    {"write_bounds", "out-of-bounds", 1, N * 4, 0, 0, false},
    {"null", "out-of-bounds", 1, N, 0, 0, false},
    {"shared_bounds", "out-of-bounds-shared", 1, N, 0, 0, false},
    {"dynamic", "out-of-bounds-shared", 1, N, 0, 0, false},
    {"local_bounds", "out-of-bounds-local", 1, N, 0, 0, false},
    {"misaligned", "misaligned", 1, N, 0, 0, false},
    {"shared_misaligned", "misaligned", 1, N, 0, 0, false},
    {"uninit_global", "uninitialised-global", 1, N, 0, 0, true},
    {"uninit_shared", "uninitialised-shared", 1, N, 0, 0, false},
    {"uninit_local", "uninitialised-local", 1, N, 0, 0, false},
    {"uninit_register", "uninitialised-register", 1, N, 0, 0, false},
    {"raw", "race-read-after-write", 1, N, 0, 0, false},
    {"war", "race-write-after-read", 1, N, 0, 0, false},
    {"waw", "race-write-after-write", 1, N, 0, 0, false},
    {"warp_exchange", "race-read-after-write", 1, N, 0, 0, false},
    {"reduce", "race-read-after-write", 1, N, 0, 0, false},
    {"divergent", "divergent-barrier", 1, N, 0, 0, false},
    {"two_barriers", "divergent-barrier", 1, N, 0, 0, false},
    {"exited", "barrier-exited", 1, N, 0, 0, false},
    {"named", "barrier-deadlock", 1, N, 0, 0, false},
    {"producer", "race-", 1, N, 0, 0, false},
    {"shfl_inactive", "inactive-lane", 1, N, 0, 0, false},
    {"shfl_mask", "divergent-sync", 1, N, 0, 0, false},
    {"mma", "divergent-sync", 1, N, 0, 80, false},
    {"ldmatrix", "misaligned", 1, N, 0, 0, false},
    {"cp_no_wait", "cp-async-wait", 1, N, 0, 80, false},
    {"cp_weak_wait", "cp-async-wait", 1, N, 0, 80, false},
    {"cp_overwrite", "race-write-after-read", 1, N, 0, 80, false},
    {"blocks_write", "race-write-after-write", 2, N, 0, 0, false},
    {"blocks_read", "race-read-after-write", 2, N, 0, 0, false},
    {"no_fence", "race-read-after-write", 2, N, 0, 0, false},
    {"global_exchange", "race-read-after-write", 1, N, 0, 0, false},
    {"atomic_mix", "race-write-after-write", 1, N, 0, 0, false},
    {"stale_nc", "stale-nc-load", 1, N, 0, 0, false},
    {"hang", "hang", 1, N, 0, 0, false},
    {"assert", "assert", 1, N, 0, 0, false},
    {"trap", "trap", 1, N, 0, 0, false},
};

static CUmodule mod;
static char *source;

/* Is `line` one of those marked BUG(name)? */
static bool marked(const char *name, uint32_t line) {
    char tag[64];
    snprintf(tag, sizeof tag, "BUG(%s)", name);
    uint32_t n = 1;
    for (const char *p = source; *p; n++) {
        const char *end = strchr(p, '\n');
        const char *hit = strstr(p, tag);
        if (n == line) return hit && hit < end;
        p = end + 1;
    }
    return false;
}

static void run(const char *prefix, const Case *c, bool clean) {
    char name[64];
    snprintf(name, sizeof name, "%s_%s", prefix, c->name);
    float data[N];
    for (int i = 0; i < N; i++) data[i] = (float)(i + 1);
    CUdeviceptr in = upload(data, sizeof data);
    size_t bytes = sizeof(float) * N * (c->blocks > 1 || !c->fresh ? 4 : 1);
    if (strstr(c->name, "bounds")) bytes = sizeof data;
    CUdeviceptr out = device(bytes);
    if (!c->fresh) MUST(cuMemsetD8Async(out, 0, bytes, NULL));
    int n = c->blocks > 1 ? N * 4 : N;
    CUfunction f;
    MUST(cuModuleGetFunction(&f, mod, name));
    unsigned shared = clean ? N * 4 : (unsigned)c->shared + (strcmp(c->name, "dynamic") ? 0 : N * 2);
    MUST(cuLaunchKernel(f, (unsigned)c->blocks, 1, 1, (unsigned)c->threads, 1, 1, shared, NULL,
                        (void *[]){&out, &in, &n}, NULL));
    cuStreamSynchronize(NULL);
    gpusim_set("sticky", "0");
    cuMemFree_v2(in);
    cuMemFree_v2(out);
}

static void test_case(const Case *c, int ptx) {
    gpusim_reset_reports();
    run("bug", c, false);
    const gpusim_report *hit = NULL;
    for (int i = 0; i < gpusim_report_count() && !hit; i++) {
        const gpusim_report *r = gpusim_report_at(i);
        bool rule = !strncmp(r->rule, c->rule, strlen(c->rule));
        if (rule && (marked(c->name, r->line) || marked(c->name, r->caller_line))) hit = r;
    }
    CHECK(hit, "bug_%s in PTX %d: no '%s' at its line", c->name, ptx, c->rule);
    if (!hit) print_reports();
    if (hit && !strncmp(c->rule, "race", 4))
        CHECK(hit->other_line && hit->lane < 32, "bug_%s: the other access is not named", c->name);
    gpusim_reset_reports();
    run("ok", c, true);
    CHECK(gpusim_report_count() == 0, "ok_%s in PTX %d has findings", c->name, ptx);
    if (gpusim_report_count()) print_reports();
}

int main(int argc, char **argv) {
    static const int levels[] = {75, 80, 90, 100, 120};
    open_driver(argc, argv);
    gpusim_set("verbose", "0");
    gpusim_set("max_steps", "20000");
    char *image = read_all("bugs.fatbin");
    build_dir = "tests/gpusim";
    source = read_all("bugs.cu");
    if (!image || !source) {
        printf("SKIP no nvcc: bugs.fatbin was not built\n");
        skipped++;
        return finish();
    }
    for (int i = 0; i < 5; i++) {
        if (!ptx_of(image, levels[i])) { skipped++; continue; }
        char level[8];
        snprintf(level, sizeof level, "%d", levels[i]);
        gpusim_set("ptx", level);
        int r = cuModuleLoadDataEx(&mod, image, 0, NULL, NULL);
        CHECK(!r, "PTX %s: %s", level, gpusim_report_count() ? gpusim_report_at(0)->message : "");
        for (size_t k = 0; !r && k < sizeof cases / sizeof *cases; k++)
            if (levels[i] >= cases[k].min_ptx) test_case(&cases[k], levels[i]);
    }
    gpusim_reset_reports();
    return finish();
}
