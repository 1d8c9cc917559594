/* test_tuning.c: the file of measured choices: what was saved is read, anything else is left alone with a notice that
 * says why, and no choice changes a bit of a product. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernels/cpu/cpu.h"
#include "kernels/tuning.h"
#include "tests/test.h"

static char dir[] = "/tmp/vitreous tuning XXXXXX", path[128];
static vl_err err;

static bool same(const vl_tuning *a, const vl_tuning *b) { /* names are those of ukernels.def: one pointer each */
    return !memcmp(a->value, b->value, sizeof a->value) && !memcmp(a->kernel, b->kernel, sizeof a->kernel);
}

static size_t slurp(char *text, size_t n) {
    FILE *f = fopen(path, "r");
    size_t got = f ? fread(text, 1, n - 1, f) : 0;
    text[got] = 0;
    if (f) fclose(f);
    return got;
}
static void spit(const char *text, size_t n) {
    FILE *f = fopen(path, "w");
    CHECK(f && fwrite(text, 1, n, f) == n && !fclose(f), "%s", path);
}

/* The text with its sum made anew. */
static void sign(char *text, size_t n) {
    char *check = strstr(text, "\ncheck ") + 1;
    vl_sha256 h;
    uint8_t sum[32];
    vl_sha256_init(&h);
    vl_sha256_add(&h, text, (size_t)(check - text));
    vl_sha256_end(&h, sum);
    memcpy(check, "check ", 6);
    vl_hex(check + 6, sum, 32);
    snprintf(check + 70, n - (size_t)(check + 70 - text), "\n");
    spit(text, strlen(text));
}

/* The file with `from` replaced by `to`, signed. */
static void change(const char *whole, const char *from, const char *to) {
    char text[8192];
    const char *at = strstr(whole, from);
    CHECK(at != NULL, "no \"%s\" in the file", from);
    if (!at) return;
    snprintf(text, sizeof text, "%.*s%s%s", (int)(at - whole), whole, to, at + strlen(from));
    sign(text, sizeof text);
}

static void ignored(const char *what, const char *why) {
    vl_tuning t, plain;
    char note[600];
    vl_tuning_default(&plain);
    vl_tuning_load(&t, note, sizeof note);
    CHECK(same(&t, &plain), "%s: its choices count", what);
    CHECK(strstr(note, why) && strstr(note, path) && strstr(note, "vitreous tune"), "%s: the notice is \"%s\"", what, note);
    vl_backend *b = NULL;
    CHECK(!vl_backend_open(&b, &(vl_backend_params){"cpu", "exact", 1}, &err), "%s", err.msg);
    CHECK(b->note && strstr(b->note, why), "%s: the backend says \"%s\"", what, b->note ? b->note : "");
    b->ops->close(b);
}

static void test_file(void) {
    vl_tuning t, back, plain;
    char text[8192], note[600];
    vl_tuning_default(&plain);
    vl_tuning_default(&t);
    CHECK(!vl_tuning_set(&t, "spins=123", &err) && !vl_tuning_set(&t, "int_panels=64", &err) &&
              !vl_tuning_set(&t, "pack_q=pack_q_scalar", &err), "%s", err.msg);
    CHECK(t.value[VL_TUNE_spins] == 123 && !strcmp(vl_tuning_kernel(&t, "pack_q"), "pack_q_scalar"), "set");
    ignored("no such file", "no such file");
    CHECK(!vl_tuning_save(&t, path, &err), "%s", err.msg);
    vl_tuning_load(&back, note, sizeof note);
    CHECK(same(&t, &back) && !*note, "read back; \"%s\"", note);
    vl_backend *b = NULL;
    CHECK(!vl_backend_open(&b, &(vl_backend_params){"cpu", "exact", 0}, &err), "%s", err.msg);
    CHECK(!b->note && same(vl_backend_tuning(b), &t), "a backend runs with it");
    b->ops->close(b);
    size_t n = slurp(text, sizeof text);
    for (size_t cut = 0; cut < n; cut += 1 + n / 40) { /* also the empty file */
        spit(text, cut);
        ignored("cut off", "damaged");
    }
    for (size_t i = 0; i < n; i += 1 + n / 60) {
        text[i] ^= 1;
        spit(text, n);
        ignored("a bit flipped", "damaged");
        text[i] ^= 1;
    }
    spit(text, n);
    text[0] = 0;
    spit(text, n);
    ignored("a NUL", "damaged");
    CHECK(!vl_tuning_save(&t, path, &err), "%s", err.msg);
    n = slurp(text, sizeof text);
    change(text, "\ncpu ", "\ncpu Foreign ");
    ignored("another processor", "another processor");
    change(text, "\ncores ", "\ncores 9");
    ignored("other cores", "number of cores");
    change(text, "\nbuild ", "\nbuild x");
    ignored("another build", "other kernels");
    change(text, "vitreous tuning 1", "vitreous tuning 2");
    ignored("another version", "another version");
    change(text, "spins 123", "spins 9999999");
    ignored("out of range", "damaged");
    change(text, "spins 123", "spins -1");
    ignored("negative", "damaged");
    change(text, "spins 123", "spuns 123");
    ignored("an unknown key", "damaged");
    change(text, "pack_q pack_q_scalar", "pack_q rope_scalar");
    ignored("a kernel of another slot", "damaged");
    change(text, "pack_q pack_q_scalar", "rmsnorm rmsnorm_scalar"); /* whose lines differ in bits */
    ignored("a slot that may not be chosen", "damaged");
    setenv("VL_TUNE", "off", 1);
    vl_tuning_load(&back, note, sizeof note);
    CHECK(same(&back, &plain) && !*note && !vl_tuning_path(text, sizeof text, false), "off");
    setenv("VL_TUNE", path, 1);
    CHECK(!unlink(path), "unlink");
}

static void test_places(void) {
    char note[600], found[512], here[256], left[256], beside[256];
    vl_tuning t;
    vl_tuning_default(&t);
    CHECK(vl_tuning_save(&t, "/nowhere/x", &err) && err.code == VL_E_IO && strstr(err.msg, "/nowhere/x"), "%s", err.msg);
    snprintf(here, sizeof here, "%s/a/b", dir);
    CHECK(vl_tuning_save(&t, here, &err) && strstr(err.msg, strerror(ENOENT)), "%s", err.msg);
    CHECK(vl_tuning_save(&t, dir, &err), "over a folder");
    snprintf(left, sizeof left, "%s/a.%d", dir, (int)getpid()); /* as a killed process of this number left it once */
    snprintf(beside, sizeof beside, "%s/a", dir);
    CHECK(!close(open(left, O_CREAT | O_WRONLY, 0600)) && !vl_tuning_save(&t, beside, &err), "a file of another: %s", err.msg);
    CHECK(!unlink(left) && !unlink(beside), "beside a file of another");
    unsetenv("VL_TUNE");
    snprintf(here, sizeof here, "%s/cache", dir);
    setenv("XDG_CACHE_HOME", here, 1);
    CHECK(vl_tuning_path(found, sizeof found, false) && !strncmp(found, here, strlen(here)), "%s", found);
    vl_tuning_load(&t, note, sizeof note);
    CHECK(!*note, "no file, no notice: \"%s\"", note);
    CHECK(access(here, F_OK), "looking makes no folder");
    CHECK(vl_tuning_path(found, sizeof found, true) && !vl_tuning_set(&t, "spins=7", &err) && !vl_tuning_save(&t, found, &err),
          "%s", err.msg);
    vl_tuning_load(&t, note, sizeof note);
    CHECK(t.value[VL_TUNE_spins] == 7, "found in the user's cache");
    CHECK(!unlink(found), "unlink");
    *strrchr(found, '/') = 0;
    CHECK(!rmdir(found) && !rmdir(here), "nothing else was left there");
    setenv("VL_TUNE", path, 1);
}

static void test_set(void) {
    static const struct { const char *text, *says; } BAD[] = {
        {"spins", "KEY=VALUE"}, {"spins=", "0 to 1000000"}, {"spins=x", "0 to 1000000"}, {"spins=1x", "0 to 1000000"},
        {"spins=-1", "0 to 1000000"}, {"spins=99999999999999999999", "0 to 1000000"}, {"exact_few=0", "1 to 8"},
        {"exact_few=9", "1 to 8"}, {"wheel=1", "no choice \"wheel\""}, {"=1", "no choice"}, {"gemm_q8=rope_scalar", "kernels"},
        {"gemm_q8=", "kernels"}, {"rope=rope_scalar", "no choice"},
    };
    vl_tuning t, plain;
    vl_tuning_default(&t);
    vl_tuning_default(&plain);
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++)
        CHECK(vl_tuning_set(&t, BAD[i].text, &err) && err.code == VL_E_USAGE && strstr(err.msg, BAD[i].says) && same(&t, &plain),
              "%s: %s", BAD[i].text, err.msg);
}

/* ---- the same bits -------------------------------------------------------------------------------- */

enum { N = 616, K = 600, MOST = 300 }; /* runs of several wide tiles on two threads, and a last odd panel */
static const int ROWS[] = {1, 2, 5, 8, 9, 13, 17, 40, MOST};

/* Products of all row counts with the choices t; the caller frees. */
static float *products(const char *dtype, const vl_tuning *t, const uint16_t *w, const float *x) {
    vl_backend *b = NULL;
    vl_matrix m = {.name = "test", .data = w, .dtype = VL_BF16, .rows = N, .cols = K};
    size_t each = (size_t)MOST * N, count = sizeof ROWS / sizeof *ROWS;
    float *out = vl_calloc(count * each, sizeof *out);
    CHECK(out && !vl_backend_open(&b, &(vl_backend_params){"cpu", dtype, 2}, &err), "%s", err.msg);
    CHECK(!b->ops->prepare(b, &m, VL_USE_LINEAR | VL_USE_NARROW, &err) && vl_backend_retune(b, t), "%s", err.msg);
    for (size_t i = 0; i < count; i++) b->ops->linear(b, out + i * each, N, x, K, ROWS[i], &m, NULL, VL_EPI_NONE);
    b->ops->close(b);
    return out;
}

static void test_bits(const char *dtype) {
    static const char *const CHANGES[] = {
        "spins=0", "exact_few=1", "exact_few=3", "exact_rows=12", "exact_rows=100", "exact_panels=1", "exact_panels=64",
        "int_rows=6", "int_rows=100", "int_panels=1", "int_panels=64", "int_tiles=0", "int_tiles=1", "int_tiles=17",
        "int_tile_rows=16", "int_tile_rows=100", "pack_rows=pack_rows_scalar", "pack_q=pack_q_scalar",
        "gemm_q8=gemm_q8_scalar", "gemm_q4=gemm_q4_scalar", "pack_rows=pack_rows_avx2", "pack_q=pack_q_avx2",
        "gemm_q8=gemm_q8_avx2", "gemm_q4=gemm_q4_avx2",
    };
    static uint16_t w[N * K];
    static float x[MOST * K];
    vl_rng rng;
    vl_tuning t, all;
    vl_rng_seed(&rng, 20261127);
    for (int i = 0; i < N * K; i++) w[i] = vl_f32_to_bf16((float)vl_rng_normal(&rng));
    for (int i = 0; i < MOST * K; i++) x[i] = (float)vl_rng_normal(&rng);
    vl_tuning_default(&t);
    all = t;
    vl_backend *b = NULL;
    if (vl_backend_open(&b, &(vl_backend_params){"cpu", dtype, 1}, &err)) {
        test_skip(err.msg);
        return;
    }
    b->ops->close(b);
    float *want = products(dtype, &t, w, x);
    size_t bytes = sizeof ROWS / sizeof *ROWS * (size_t)MOST * N * sizeof *want;
    for (size_t i = 0; i < sizeof CHANGES / sizeof *CHANGES; i++) {
        vl_tuning_default(&t);
        if (vl_tuning_set(&t, CHANGES[i], &err) || vl_tuning_set(&all, CHANGES[i], &err)) continue; /* not on this CPU */
        float *got = products(dtype, i % 2 ? &t : &all, w, x); /* one alone, or all up to here */
        CHECK(!memcmp(got, want, bytes), "%s: %s%s changes bits", dtype, CHANGES[i], i % 2 ? "" : " and those before");
        free(got);
    }
    free(want);
}

/* Runs follow one another, cover all panels and are never longer than `most`, for which there is scratch. */
static void test_runs(void) {
    for (int panels = 1; panels < 200; panels += panels < 20 ? 1 : 17)
        for (int threads = 1; threads <= 9; threads += 4)
            for (int most = 1; most <= panels; most += most < 4 ? 1 : 13) {
                int n = cpu_run_count(panels, threads, most), at = 0, longest = 0;
                bool follow = true;
                for (int i = 0; i < n; i++) {
                    int first = -1, end = cpu_run_of(panels, threads, most, i, &first);
                    follow = follow && first == at && end > at;
                    if (end - at > longest) longest = end - at;
                    at = end;
                }
                CHECK(follow && at == panels && longest <= most, "%d panels, %d threads, runs of up to %d: end at %d, longest %d",
                      panels, threads, most, at, longest);
            }
}

int main(void) {
    CHECK(mkdtemp(dir) != NULL, "a folder in /tmp");
    snprintf(path, sizeof path, "%s/choices of this machine", dir);
    setenv("VL_TUNE", path, 1);
    unsetenv("VL_KERNEL");
    unsetenv("VL_CPU");
    test_file();
    test_places();
    test_set();
    setenv("VL_TUNE", "off", 1);
    test_runs();
    test_bits("exact");
    test_bits("bf16");
    test_bits("int8");
    test_bits("int4");
    CHECK(!rmdir(dir), "something was left in %s", dir);
    return test_end();
}
