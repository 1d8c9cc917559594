/* driver.c: stands in for libFuzzer where only gcc is there. Mutates the seeds without feedback:
 * flips, replaced, removed, repeated and spliced bytes, for -max_total_time seconds. A crash or a
 * sanitizer's report ends the process; the input is then in PREFIX (of -artifact_prefix) "last". */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "common/common.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MAX_SEEDS = 1000, MAX_SIZE = 1 << 16 };
static struct { uint8_t *bytes; size_t len; } seeds[MAX_SEEDS];
static size_t n_seeds;

static void add_seed(const char *path) {
    FILE *f = fopen(path, "rb");
    uint8_t *bytes = malloc(MAX_SIZE);
    if (!f || !bytes || n_seeds == MAX_SEEDS) exit(2);
    seeds[n_seeds].len = fread(bytes, 1, MAX_SIZE, f);
    seeds[n_seeds++].bytes = bytes;
    fclose(f);
}

static void add_folder(const char *folder) {
    DIR *dir = opendir(folder);
    for (struct dirent *e; dir && (e = readdir(dir)) != NULL && n_seeds < MAX_SEEDS;) {
        char path[4096];
        struct stat st;
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        if (stat(path, &st) == 0 && S_ISREG(st.st_mode)) add_seed(path);
    }
    if (dir) closedir(dir);
}

static size_t below(vl_rng *r, size_t n) { return n ? (size_t)(vl_rng_u64(r) % n) : 0; }

static size_t mutate(vl_rng *r, uint8_t *b, size_t len) {
    size_t at = below(r, len), n = 1 + below(r, 16), from = below(r, n_seeds);
    if (n > len - at) n = len - at;
    switch (below(r, 5)) {
    case 0: if (len) b[at] ^= (uint8_t)(1u << below(r, 8)); return len;
    case 1: if (len) b[at] = (uint8_t)vl_rng_u64(r); return len;
    case 2: memmove(b + at, b + at + n, len - at - n); return len - n;
    case 3:
        if (len + n > MAX_SIZE) return len;
        memmove(b + at + n, b + at, len - at);
        return len + n;
    default:
        if (n > seeds[from].len) n = seeds[from].len;
        memcpy(b + at, seeds[from].bytes + below(r, seeds[from].len - n + 1), n);
        return len;
    }
}

int main(int argc, char **argv) {
    double seconds = 20;
    const char *prefix = "";
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "-max_total_time=", 16) == 0) seconds = atof(argv[i] + 16);
        else if (strncmp(argv[i], "-artifact_prefix=", 17) == 0) prefix = argv[i] + 17;
        else if (argv[i][0] != '-') add_folder(argv[i]);
    }
    if (n_seeds == 0) seeds[n_seeds++].bytes = calloc(1, 1);
    char last[4096];
    snprintf(last, sizeof last, "%slast", prefix);
    vl_rng r;
    vl_rng_seed(&r, 1);
    size_t runs = 0;
    for (double end = vl_now() + seconds; vl_now() < end; runs++) {
        size_t k = runs < n_seeds ? runs : below(&r, n_seeds), len = seeds[k].len;
        uint8_t *work = malloc(MAX_SIZE), *exact;
        if (!work) return 2;
        memcpy(work, seeds[k].bytes, len);
        size_t steps = runs < n_seeds ? 0 : 1 + below(&r, 8); /* first every seed as it is */
        while (steps-- > 0) len = mutate(&r, work, len);
        FILE *f = fopen(last, "wb");
        if (f) fwrite(work, 1, len, f), fclose(f);
        exact = realloc(work, len ? len : 1); /* no slack behind the input */
        LLVMFuzzerTestOneInput(exact, len);
        free(exact);
    }
    remove(last);
    printf("%zu runs without coverage feedback (no clang)\n", runs);
    return 0;
}
