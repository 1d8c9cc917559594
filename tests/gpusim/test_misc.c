/* test_misc.c: the kernels of misc.cu, and what the process sees at its end: GPUSIM_EXIT, the JSON
 * report, printf, copies that nobody waited for (in child processes of this program). */
#include "harness.h"
#include <sys/wait.h>

static CUmodule mod;

static void launch(const char *name, unsigned blocks, unsigned threads, void **params) {
    CUfunction f;
    MUST(cuModuleGetFunction(&f, mod, name));
    MUST(cuLaunchKernel(f, blocks, 1, 1, threads, 1, 1, 0, NULL, params, NULL));
}

static void test_parameters(void) {
    struct { float scale[3]; int n; CUdeviceptr in; double shift; } args = {{1, 2, 3}, 3, 0, 0.25};
    float in[32], out[32];
    for (int i = 0; i < 32; i++) in[i] = (float)i;
    args.in = upload(in, sizeof in);
    CUdeviceptr d = device(sizeof out), p;
    launch("by_value", 1, 32, (void *[]){&args, &d});
    MUST(download(out, d, sizeof out));
    int bad = 0, n = 0;
    for (int i = 0; i < 32; i++) bad += out[i] != (float)i * (float)(i % 3 + 1) + 0.25f;
    CHECK(!bad, "a struct by value");
    launch("constants", 1, 32, (void *[]){&d});
    MUST(download(out, d, sizeof out));
    static const float table[] = {1, 10, 100, 1000};
    for (int i = 0; i < 32; i++) bad += out[i] != table[i % 4] + 0.5f + (float)(i % 3);
    CHECK(!bad, "constant and global variables");
    size_t bytes = 0;
    MUST(cuModuleGetGlobal_v2(&p, &bytes, mod, "counter"));
    MUST(download(&n, p, 4));
    CHECK(bytes == 4 && n == 7, "counter %d, %zu bytes", n, bytes);
}

static void test_control(void) {
    int v[32], bad = 0;
    for (int i = 0; i < 32; i++) v[i] = i % 8;
    CUdeviceptr d = upload(v, sizeof v);
    launch("choose", 1, 32, (void *[]){&d});
    MUST(download(v, d, sizeof v));
    static const int want[] = {11, 12, 15, -11, 128, -5, 216, 99};
    for (int i = 0; i < 32; i++) bad += v[i] != want[i % 8];
    CHECK(!bad, "switch");
    float f[64];
    for (int i = 0; i < 64; i++) f[i] = (float)(100 + i);
    for (int where = 0; where < 3; where++) {
        CUdeviceptr g = upload(f, sizeof f);
        float out[32];
        launch("generic", 1, 32, (void *[]){&g, &where});
        MUST(download(out, g, sizeof out));
        float base = where == 0 ? 7 : where == 1 ? 132 : 1;
        for (int i = 0; i < 32; i++) bad += out[i] != base + (float)(i % 4);
        CHECK(!bad, "generic pointer %d", where);
    }
    int n = 40;
    float a[32], want_a[32];
    for (int t = 0; t < 32; t++) {
        float x[16];
        for (int i = 0; i < 16; i++) x[i] = (float)i;
        for (int i = 0; i < n; i++) x[(i * 7) % 16] += x[(i + t) % 16];
        want_a[t] = 0;
        for (int i = 0; i < 16; i++) want_a[t] += x[i];
    }
    CUdeviceptr da = device(sizeof a);
    launch("local_array", 1, 32, (void *[]){&da, &n});
    MUST(download(a, da, sizeof a));
    for (int t = 0; t < 32; t++) bad += a[t] != want_a[t];
    CHECK(!bad, "array in local memory");
}

static void test_shapes(void) {
    float f[32];
    for (int i = 0; i < 32; i++) f[i] = (float)i;
    CUdeviceptr d = upload(f, sizeof f);
    launch("tiles", 1, 32, (void *[]){&d});
    MUST(download(f, d, sizeof f));
    CHECK(f[0] == 28 && f[8] == 92 && f[9] == 9, "tiles of 8 lanes: %g %g", (double)f[0], (double)f[8]);
    int v[2 * 3 * 2 * 4 * 2 * 3], bad = 0;
    CUdeviceptr dv = device(sizeof v);
    CUfunction k;
    MUST(cuModuleGetFunction(&k, mod, "three"));
    MUST(cuLaunchKernel(k, 2, 3, 2, 4, 2, 3, 0, NULL, (void *[]){&dv}, NULL));
    MUST(download(v, dv, sizeof v));
    for (int i = 0; i < 2 * 3 * 2 * 4 * 2 * 3; i++) bad += v[i] != i / 24 * 1000 + i % 24;
    CHECK(!bad, "three dimensions");
}

/* ---- children ---- */

static int child_main(const char *what) {
    static float host[32];
    CUdeviceptr d = device(strcmp(what, "bounds") ? sizeof host : 64);
    if (!strcmp(what, "print")) {
        int n = 3;
        launch("print", 1, 32, (void *[]){&n});
    } else {
        launch("store", 1, 32, (void *[]){&d});
    }
    if (!strcmp(what, "forgotten")) return cuMemcpyDtoHAsync_v2(host, d, sizeof host, NULL);
    cuStreamSynchronize(NULL);
    return 0;
}

/* Runs this program with the arguments and variables; its stderr goes to text. */
static int child(const char *self, const char *what, const char *exit_code, const char *report,
                 char *text, size_t cap) {
    int pipes[2], status = 0;
    if (pipe(pipes)) return -1;
    pid_t pid = fork();
    if (!pid) {
        setenv("GPUSIM_EXIT", exit_code, 1);
        setenv("GPUSIM_REPORT", report, 1);
        dup2(pipes[1], 2);
        execl(self, self, build_dir, what, (char *)NULL);
        _exit(127);
    }
    close(pipes[1]);
    size_t n = 0;
    for (ssize_t k; n + 1 < cap && (k = read(pipes[0], text + n, cap - 1 - n)) > 0;) n += (size_t)k;
    text[n] = 0;
    close(pipes[0]);
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void test_children(const char *self) {
    char text[4096], path[1024];
    snprintf(path, sizeof path, "%s/report.json", build_dir);
    CHECK(child(self, "clean", "86", path, text, sizeof text) == 0 && !*text, "clean: %s", text);
    FILE *f = fopen(path, "r");
    size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
    text[n] = 0;
    CHECK(strstr(text, "predicted (gpusim model v2)") && strstr(text, "\"kernel\": \"store\"") &&
          strstr(text, "\"findings\": [\n  ]"), "report: %s", text);
    if (f) fclose(f);
    remove(path);
    int code = child(self, "bounds", "86", "", text, sizeof text);
    CHECK(code == 86 && strstr(text, "out-of-bounds: kernel store at misc.cu:"), "%d: %s", code, text);
    CHECK(child(self, "bounds", "0", "", text, sizeof text) == 0, "no exit code asked for");
    code = child(self, "forgotten", "86", "", text, sizeof text);
    CHECK(code == 86 && strstr(text, "never-synchronised"), "%d: %s", code, text);
    child(self, "print", "0", "", text, sizeof text);
    CHECK(!strcmp(text, "lane 3 of block, 1.50 %\n"), "printf: %s", text);
}

int main(int argc, char **argv) {
    static const char *levels[] = {"75", "80", "90", "100", "120"};
    open_driver(argc > 1 ? 2 : 1, argv);
    char *image = read_all("misc.fatbin");
    if (!image) {
        printf("SKIP no nvcc and no prebuilt misc.fatbin\n");
        skipped++;
        return finish();
    }
    gpusim_set("ptx", "90");
    MUST(cuModuleLoadDataEx(&mod, image, 0, NULL, NULL));
    if (argc > 2) return child_main(argv[2]);
    for (int i = 0; i < 5; i++) {
        if (!ptx_of(image, atoi(levels[i]))) { skipped++; continue; }
        gpusim_set("ptx", levels[i]);
        MUST(cuModuleLoadDataEx(&mod, image, 0, NULL, NULL));
        test_parameters();
        test_control();
        test_shapes();
        CHECK(gpusim_report_count() == 0, "findings in PTX %s", levels[i]);
        print_reports();
        gpusim_reset_reports();
    }
    test_children(argv[0]);
    return finish();
}
