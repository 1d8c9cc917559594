/* test_packed.c: the pack cache gives the bits that packing gives, and one that is stale, cut off, damaged,
 * of another layout, shrinking or being written by many at once is never trusted and never fatal. */
#include "model/packed.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "loader/json.h"
#include "tests/test.h"

enum { MATRICES = 3, ROWS = 200, COLS = 77, T = 9 };
static char folder[] = "/tmp/vitreous-packed-XXXXXX";
static char source[256], cache[256];
static uint16_t weights[MATRICES][ROWS * COLS];
static const char *const NAMES[MATRICES] = {"a.weight", "b.weight", "head.weight"};
static const unsigned USES[MATRICES] = {VL_USE_LINEAR | VL_USE_NARROW, VL_USE_LINEAR,
                                        VL_USE_LINEAR | VL_USE_HEAD | VL_USE_GATHER};

static void write_source(void) {
    vl_tensor t[MATRICES];
    vl_err err = {0};
    for (int i = 0; i < MATRICES; i++)
        t[i] = (vl_tensor){.name = NAMES[i], .dtype = VL_BF16, .rank = 2, .shape = {ROWS, COLS}, .data = weights[i],
                           .bytes = sizeof weights[i]};
    CHECK(!vl_safetensors_write(source, t, MATRICES, NULL, &err), "%s", err.msg);
}

typedef struct opened {
    vl_checkpoint *c;
    vl_backend *b;
    vl_packed *p;
    vl_matrix m[MATRICES];
    char note[512];
} opened;

static void open_all(opened *o, const char *dtype, int threads) {
    vl_err err = {0};
    memset(o, 0, sizeof *o);
    CHECK(!vl_checkpoint_open(&o->c, folder, &err), "%s", err.msg);
    CHECK(!vl_backend_open(&o->b, &(vl_backend_params){"cpu", dtype, threads}, &err), "%s", err.msg);
    o->p = vl_packed_open(folder, o->c, o->b, o->note, sizeof o->note);
    for (int i = 0; i < MATRICES; i++) {
        const vl_tensor *t = vl_checkpoint_find(o->c, NAMES[i]);
        o->m[i] = (vl_matrix){.name = t->name, .data = t->data, .dtype = t->dtype, .rows = ROWS, .cols = COLS};
        CHECK(!o->b->ops->prepare(o->b, &o->m[i], USES[i] | VL_USE_FILE_PAGES, &err), "%s", err.msg);
    }
    vl_packed_note(o->p, o->note, sizeof o->note);
}

static void close_all(opened *o) {
    o->b->ops->close(o->b);
    vl_packed_free(o->p);
    vl_checkpoint_free(o->c);
}

static void multiply(opened *o, float *y) {
    static float x[T * COLS];
    for (int i = 0; i < T * COLS; i++) x[i] = (float)(i % 29 - 14) / 16;
    for (int i = 0; i < MATRICES; i++)
        for (int rows = 1; rows <= T; rows += T - 1) /* gemv, gemm */
            o->b->ops->linear(o->b, y + (size_t)(2 * i + (rows > 1)) * T * ROWS, ROWS, x, COLS, rows, &o->m[i],
                              NULL, VL_EPI_NONE);
}

static void write_cache(const char *dtype) {
    opened o;
    char path[4096];
    vl_err err = {0};
    open_all(&o, dtype, 1);
    CHECK(!vl_packed_write(folder, o.c, o.b, path, sizeof path, &err), "%s", err.msg);
    close_all(&o);
}

enum { OUT = 2 * MATRICES * T * ROWS };

static void test_round_trip(const char *dtype, const char *suffix) {
    static float want[OUT], got[OUT];
    opened o;
    vl_err err = {0};
    char path[4096];
    snprintf(cache, sizeof cache, "%s/vitreous-packed%s.cache", folder, suffix);
    unlink(cache);
    open_all(&o, dtype, 1);
    CHECK(!o.p && !o.note[0], "none yet: %s", o.note);
    multiply(&o, want);
    CHECK(!vl_packed_write(folder, o.c, o.b, path, sizeof path, &err) && !strcmp(path, cache), "%s %s", path, err.msg);
    close_all(&o);
    for (int threads = 1; threads <= 2; threads++) {
        open_all(&o, dtype, threads);
        CHECK(o.p && !o.note[0], "%s: %s", dtype, o.note);
        memset(got, 0, sizeof got); /* one row of the first op is written, as in want */
        multiply(&o, got);
        CHECK(!memcmp(got, want, sizeof got), "%s, %d threads: other bits from the cache", dtype, threads);
        CHECK(!vl_packed_check(o.p, &err), "%s", err.msg);
        CHECK(!vl_packed_verify(folder, o.c, o.b, path, sizeof path, &err), "%s", err.msg);
        close_all(&o);
    }
    setenv("VL_PACK_CACHE", "off", 1);
    open_all(&o, dtype, 1);
    CHECK(!o.p && !o.note[0], "off");
    CHECK(vl_packed_write(folder, o.c, o.b, path, sizeof path, &err), "off, and written");
    close_all(&o);
    unsetenv("VL_PACK_CACHE");
}

static void test_places(void) {
    opened o;
    char other[280], path[4096];
    vl_err err = {0};
    snprintf(other, sizeof other, "%s/vitreous", folder);
    mkdir(other, 0700);
    unlink(cache);
    setenv("VL_PACK_CACHE", other, 1);
    open_all(&o, "exact", 1);
    CHECK(!vl_packed_write(folder, o.c, o.b, path, sizeof path, &err) && !strncmp(path, other, strlen(other)),
          "%s %s", path, err.msg);
    close_all(&o);
    open_all(&o, "exact", 1);
    CHECK(o.p, "$VL_PACK_CACHE");
    close_all(&o);
    unsetenv("VL_PACK_CACHE");
    setenv("XDG_CACHE_HOME", folder, 1);
    open_all(&o, "exact", 1);
    CHECK(o.p, "the user's cache folder is looked at after the model's own");
    close_all(&o);
    FILE *f = fopen(cache, "wb"); /* in the model's folder: rubbish */
    fputs("rubbish, longer than a length", f);
    fclose(f);
    open_all(&o, "exact", 1);
    CHECK(o.p && !o.note[0], "a bad one in the folder does not hide the good one: %s", o.note);
    close_all(&o);
    unlink(path);
    rmdir(other);
    unsetenv("XDG_CACHE_HOME");
}

static void test_stale(void) {
    opened o;
    write_cache("exact");
    struct timespec when[2] = {{.tv_sec = 1000}, {.tv_sec = 1000, .tv_nsec = 1}};
    utimensat(AT_FDCWD, source, when, 0);
    open_all(&o, "exact", 1);
    CHECK(!o.p && strstr(o.note, "has changed") && strstr(o.note, "vitreous pack"), "%s", o.note);
    close_all(&o);
    write_cache("exact"); /* writes it anew */
    open_all(&o, "exact", 1);
    CHECK(o.p, "%s", o.note);
    close_all(&o);
    char int8[280];
    snprintf(int8, sizeof int8, "%s/vitreous-packed-int8.cache", folder);
    CHECK(!rename(cache, int8), "rename");
    open_all(&o, "int8", 1); /* another layout: what fits is used, what does not is packed and said */
    CHECK(o.p && strstr(o.note, "lacks 2 of 3"), "%s", o.note);
    static float want[OUT], got[OUT];
    multiply(&o, got);
    close_all(&o);
    unlink(int8);
    open_all(&o, "int8", 1);
    multiply(&o, want);
    CHECK(!memcmp(got, want, sizeof got), "a part from the cache: other bits");
    close_all(&o);
}

static uint8_t *slurp(const char *path, size_t *n) {
    char *data = NULL;
    vl_err err = {0};
    CHECK(!vl_read_file(path, 64 << 20, &data, n, &err), "%s", err.msg);
    return (uint8_t *)data;
}

static void spill(const char *path, const uint8_t *data, size_t n) {
    FILE *f = fopen(path, "wb");
    CHECK(f && fwrite(data, 1, n, f) == n, "cannot write %s", path);
    if (f) fclose(f);
}

/* Every byte of the table flipped, and the file cut anywhere: refused with a note, or harmless. */
static void test_damaged(void) {
    opened o;
    size_t n, refused = 0, kept = 0;
    static float want[OUT], got[OUT];
    write_cache("exact");
    uint8_t *good = slurp(cache, &n);
    size_t header = 8 + (size_t)(good[0] | good[1] << 8);
    open_all(&o, "exact", 1);
    multiply(&o, want);
    close_all(&o);
    for (size_t at = 0; at < header; at++) {
        good[at] ^= (uint8_t)(1 + at % 255);
        spill(cache, good, n);
        good[at] ^= (uint8_t)(1 + at % 255);
        open_all(&o, "exact", 1);
        if (o.p) kept++;
        else refused++;
        CHECK(o.p || strstr(o.note, "is ignored"), "byte %zu: no note", at);
        multiply(&o, got);
        CHECK(!memcmp(got, want, sizeof got), "byte %zu of the table: other bits", at);
        close_all(&o);
    }
    CHECK(refused > header * 9 / 10, "%zu of %zu flips were refused (%zu are white space)", refused, header, kept);
    for (size_t cut = 0; cut < n; cut += cut < header ? 37 : n / 50) {
        spill(cache, good, cut);
        open_all(&o, "exact", 1);
        CHECK(!o.p && strstr(o.note, "is ignored"), "%zu of %zu bytes: %s", cut, n, o.note);
        close_all(&o);
    }
    good[header + 100] ^= 1; /* in the data: only the whole check sees it */
    spill(cache, good, n);
    char path[4096];
    vl_err err = {0};
    open_all(&o, "exact", 1);
    CHECK(o.p && vl_packed_verify(folder, o.c, o.b, path, sizeof path, &err) && strstr(err.msg, "damaged"), "%s",
          err.msg);
    close_all(&o);
    good[header + 100] ^= 1;
    spill(cache, good, n);
    free(good);
}

static void test_shrinks(void) {
    opened o;
    vl_err err = {0};
    static float y[OUT];
    setenv("VL_PACK", "lazy", 1);
    open_all(&o, "exact", 1);
    CHECK(o.p, "%s", o.note);
    CHECK(!truncate(cache, 4096), "truncate");
    multiply(&o, y); /* reads pages that are gone */
    CHECK(vl_packed_check(o.p, &err) && err.code == VL_E_IO, "a cache that shrank is not noticed");
    close_all(&o);
    unsetenv("VL_PACK");
}

static void test_writers(void) {
    opened o;
    write_cache("exact");
    for (int i = 0; i < 3; i++)
        if (fork() == 0) {
            for (int k = 0; k < 8; k++) write_cache("exact");
            _exit(test_failed != 0);
        }
    for (int k = 0; k < 30; k++) {
        char path[4096];
        vl_err err = {0};
        open_all(&o, "exact", 1);
        CHECK(o.p && !o.note[0], "while others write: %s", o.note);
        CHECK(!o.p || !vl_packed_verify(folder, o.c, o.b, path, sizeof path, &err), "%s", err.msg);
        close_all(&o);
    }
    for (int i = 0, status; i < 3; i++) CHECK(wait(&status) > 0 && status == 0, "a writer failed");
    char command[300];
    snprintf(command, sizeof command, "test $(ls %s | wc -l) = 2", folder);
    CHECK(system(command) == 0, "something is left behind in %s", folder);
}

int main(void) {
    CHECK(mkdtemp(folder) != NULL, "a folder in /tmp");
    snprintf(source, sizeof source, "%s/model.safetensors", folder);
    vl_rng rng;
    vl_rng_seed(&rng, 5);
    for (int i = 0; i < MATRICES; i++)
        for (int k = 0; k < ROWS * COLS; k++)
            weights[i][k] = (uint16_t)(0x3c00u | (unsigned)(vl_rng_u64(&rng) & 0x83ffu));
    write_source();
    unsetenv("VL_PACK_CACHE");
    setenv("XDG_CACHE_HOME", "/nonexistent", 1);
    test_round_trip("int4", "-int4");
    unlink(cache);
    test_round_trip("int8", "-int8");
    unlink(cache);
    test_round_trip("exact", "");
    test_places();
    setenv("XDG_CACHE_HOME", "/nonexistent", 1);
    test_stale();
    test_damaged();
    test_shrinks();
    test_writers();
    char command[300];
    snprintf(command, sizeof command, "rm -r %s", folder);
    CHECK(system(command) == 0, "clean up");
    return test_end();
}
