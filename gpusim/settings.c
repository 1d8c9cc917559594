/* settings.c: the environment variables of README.md. */
#include "gpusim.h"
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

Settings settings;

typedef struct { const char *name, *initial; enum { BOOL, INT, BIG, TEXT, ORDER, MMA } type;
                 size_t at; } Row;
#define ROW(name, initial, type, field) {name, initial, type, offsetof(Settings, field)}
static const Row rows[] = {
    ROW("device", "A100", TEXT, device),      ROW("devices", "1", INT, devices),
    ROW("checks", "1", BOOL, checks),         ROW("counters", "1", BOOL, counters),
    ROW("waits", "0", BOOL, waits),
    ROW("l2", "1", BOOL, l2),                 ROW("verbose", "1", BOOL, verbose),
    ROW("order", "forward", ORDER, order),    ROW("mma", "fma", MMA, mma),
    ROW("perturb", "0", BOOL, perturb),       ROW("seed", "1", BIG, seed),
    ROW("once", "0", BOOL, once),             ROW("exit", "0", INT, exit_code),
    ROW("ptx", "0", INT, ptx),                ROW("max_steps", "200000000", BIG, max_steps),
    ROW("big", "1048576", BIG, big_alloc),   ROW("allow", "", TEXT, allow),
    ROW("report", "", TEXT, report),          ROW("memory", "0", BIG, memory),
    ROW("fail_graph", "0", INT, fail_graph),  ROW("fail_kernel", "0", INT, fail_kernel),
};

static int one_of(const char *value, const char *const *names, int n) {
    for (int i = 0; i < n; i++)
        if (!strcmp(value, names[i])) return i;
    return -1;
}

int settings_set(const char *name, const char *value) {
    static const char *const orders[] = {"forward", "reverse", "random"};
    static const char *const mmas[] = {"fma", "block", "reverse"};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (strcmp(rows[i].name, name)) continue;
        void *p = (char *)&settings + rows[i].at;
        int k;
        switch (rows[i].type) {
        case BOOL: *(bool *)p = strcmp(value, "0") != 0; return 0;
        case INT: *(int *)p = (int)strtol(value, NULL, 10); return 0;
        case BIG: *(uint64_t *)p = strtoull(value, NULL, 10); return 0;
        case TEXT: free(*(char **)p); *(char **)p = strdup(value); return 0;
        case ORDER:
            k = one_of(value, orders, 3);
            if (k >= 0) *(int *)p = k;
            return k < 0 ? -1 : 0;
        case MMA:
            k = one_of(value, mmas, 3);
            if (k >= 0) *(int *)p = k;
            return k < 0 ? -1 : 0;
        }
    }
    return -1;
}

void settings_read(void) {
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char env[64] = "GPUSIM_";
        size_t n = strlen(env);
        for (const char *p = rows[i].name; *p; p++) env[n++] = (char)toupper((unsigned char)*p);
        const char *v = getenv(env);
        settings_set(rows[i].name, rows[i].initial);
        if (v && settings_set(rows[i].name, v))
            fprintf(stderr, "gpusim: %s=%s is not understood\n", env, v);
    }
}

/* xorshift64*: reproducible for one seed. */
uint64_t settings_random(void) {
    uint64_t x = settings.seed ? settings.seed : 1;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    settings.seed = x;
    return x * 2685821657736338717ull;
}
