/* test_pack.c: weights packed by the background thread, by the ops, and by both at once, give the same
 * bits and give their source pages back. */
#include <math.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernels/ops.h"
#include "tests/test.h"

enum { MATRICES = 24, ROWS = 1500, COLS = 777, T = 3 };
static const size_t BYTES = (size_t)ROWS * COLS * 2;

static vl_backend *open_mode(const char *pack, int threads) {
    vl_backend *b = NULL;
    vl_err err = {0};
    setenv("VL_PACK", pack, 1);
    if (vl_backend_open(&b, &(vl_backend_params){"cpu", "exact", threads}, &err)) printf("FAIL %s\n", err.msg);
    unsetenv("VL_PACK");
    return b;
}

static void prepare_all(vl_backend *b, vl_matrix *m, const uint8_t *map) {
    vl_err err = {0};
    for (int i = 0; i < MATRICES; i++) {
        m[i] = (vl_matrix){.name = "w", .data = map + (size_t)i * BYTES, .dtype = VL_BF16,
                           .rows = ROWS, .cols = COLS};
        CHECK(!b->ops->prepare(b, &m[i], VL_USE_LINEAR | VL_USE_FILE_PAGES, &err), "%s", err.msg);
    }
}

/* Every matrix times x, in an order against that of the background thread. */
static void multiply_all(vl_backend *b, vl_matrix *m, const float *x, float *y) {
    for (int i = MATRICES - 1; i >= 0; i--)
        b->ops->linear(b, y + (size_t)i * T * ROWS, ROWS, x, COLS, T, &m[i], NULL, VL_EPI_NONE);
}

/* Pages of the mapping that this process holds. */
static size_t resident(const uint8_t *map) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE), n = 0;
    FILE *f = fopen("/proc/self/pagemap", "rb");
    for (size_t at = 0; f && at < MATRICES * BYTES; at += page) {
        uint64_t entry = 0;
        if (fseek(f, (long)(((uintptr_t)map + at) / page * 8), SEEK_SET) || fread(&entry, 8, 1, f) != 1) break;
        n += entry >> 63;
    }
    if (f) fclose(f);
    return n;
}

static void compare(const uint8_t *map, const float *x, const float *want, const char *mode, int threads,
                    unsigned wait_us) {
    vl_backend *b = open_mode(mode, threads);
    vl_matrix m[MATRICES];
    size_t n = (size_t)MATRICES * T * ROWS;
    float *y = vl_calloc(n, sizeof *y);
    prepare_all(b, m, map);
    if (wait_us) usleep(wait_us);
    multiply_all(b, m, x, y);
    CHECK(!memcmp(y, want, n * sizeof *y), "%s, %d threads, %u us ahead: other bits", mode, threads, wait_us);
    /* the kernel maps up to 16 pages around a fault, so the end of the neighbour may stay */
    CHECK(resident(map) <= (size_t)16 * MATRICES, "%s: %zu source pages are still held", mode, resident(map));
    b->ops->close(b);
    free(y);
}

int main(void) {
    FILE *f = tmpfile();
    vl_rng rng;
    vl_rng_seed(&rng, 3);
    uint16_t *source = vl_calloc(MATRICES, BYTES);
    for (size_t i = 0; i < MATRICES * BYTES / 2; i++)
        source[i] = (uint16_t)(0x3c00u | (unsigned)(vl_rng_u64(&rng) & 0x83ffu)); /* about 0.01 to 1, both signs */
    CHECK(f && fwrite(source, BYTES, MATRICES, f) == MATRICES && !fflush(f), "temporary file");
    free(source);
    uint8_t *map = mmap(NULL, MATRICES * BYTES, PROT_READ, MAP_SHARED, fileno(f), 0);
    float x[T * COLS], *want = vl_calloc((size_t)MATRICES * T * ROWS, sizeof *want);
    for (int i = 0; i < T * COLS; i++) x[i] = (float)vl_rng_normal(&rng);
    vl_backend *one = open_mode("lazy", 1);
    vl_matrix m[MATRICES];
    prepare_all(one, m, map);
    CHECK(resident(map) == 0, "lazy: nothing is read before its use");
    multiply_all(one, m, x, want);
    one->ops->close(one);
    compare(map, x, want, "lazy", 2, 0);
    for (int i = 0; i < 10; i++) compare(map, x, want, "background", 1 + i % 3, (unsigned)i * 500);
    compare(map, x, want, "background", 2, 300000);
    vl_backend *b = open_mode("background", 2); /* closed at work */
    prepare_all(b, m, map);
    b->ops->close(b);
    munmap(map, MATRICES * BYTES);
    fclose(f);
    free(want);
    return test_end();
}
