/* report.c: see report.h. One object: device, model, kernels[], findings[]. */
#include "report.h"
#include "gpus.h"
#include "gpusim.h"
#include <stdio.h>

static const char *const classes[C_COUNT] = {
    "int", "fp32", "fp64", "fp16", "mufu", "cvt", "move", "pred", "branch", "sync", "shfl", "ldg",
    "stg", "lds", "sts", "local", "atom", "async", "ldsm", "mma", "other"};

__attribute__((visibility("default"))) const char *gpusim_class_name(int cls) {
    return cls >= 0 && cls < C_COUNT ? classes[cls] : NULL;
}

static void text(FILE *f, const char *key, const char *s, const char *end) {
    fprintf(f, "\"%s\": \"", key);
    for (; *s; s++) {
        if (*s == '"' || *s == '\\') fprintf(f, "\\%c", *s);
        else if ((unsigned char)*s < 32) fprintf(f, "\\u%04x", *s);
        else fputc(*s, f);
    }
    fprintf(f, "\"%s", end);
}

#define NUMBER(field) fprintf(f, "\"" #field "\": %llu, ", (unsigned long long)k->field)

static void write_kernel(FILE *f, const gpusim_kernel *k) {
    fprintf(f, "    {");
    text(f, "kernel", k->kernel, ", ");
    NUMBER(launches); NUMBER(blocks); NUMBER(threads); NUMBER(warp_instructions);
    NUMBER(thread_instructions); NUMBER(load_requests); NUMBER(load_sectors); NUMBER(load_bytes);
    NUMBER(load_used);
    NUMBER(weight_sectors); NUMBER(weight_used);
    NUMBER(store_used);
    NUMBER(store_requests);
    NUMBER(store_sectors);
    NUMBER(store_bytes);
    NUMBER(shared_requests);
    NUMBER(shared_wavefronts); NUMBER(shared_ideal); NUMBER(l2_hits); NUMBER(l2_misses);
    NUMBER(dram_bytes); NUMBER(mma_flops); NUMBER(divergent_branches); NUMBER(registers);
    NUMBER(stack_bytes); NUMBER(shared_bytes); NUMBER(blocks_per_sm);
    fprintf(f, "\"classes\": {");
    for (int i = 0, n = 0; i < C_COUNT; i++)
        if (k->class_count[i])
            fprintf(f, "%s\"%s\": %llu", n++ ? ", " : "", classes[i],
                    (unsigned long long)k->class_count[i]);
    fprintf(f, "}, \"occupancy\": %.4f, \"predicted_us\": %.3f, \"roof_us\": %.3f, ", k->occupancy,
            k->predicted_us, k->roof_us);
    text(f, "limiter", k->limiter, "}");
}

static void write_finding(FILE *f, const gpusim_report *r) {
    fprintf(f, "    {");
    text(f, "rule", r->rule, ", ");
    text(f, "kernel", r->kernel, ", ");
    text(f, "file", r->file, ", ");
    text(f, "message", r->message, ", ");
    fprintf(f, "\"line\": %u, \"other_line\": %u, \"block\": [%u, %u, %u], \"warp\": %u, "
            "\"lane\": %d, \"count\": %llu}", r->line, r->other_line, r->block[0], r->block[1],
            r->block[2], r->warp, (int)r->lane, (unsigned long long)r->count);
}

void report_write(const char *path, const gpusim_kernel *k, int n) {
    FILE *f = fopen(path, "w");
    if (!f) {
        fprintf(stderr, "gpusim: cannot write GPUSIM_REPORT=%s\n", path);
        return;
    }
    fprintf(f, "{\n  ");
    text(f, "model", GS_VERSION, ", ");
    text(f, "note", "every time is predicted (" GS_VERSION "), none was measured", ",\n  ");
    text(f, "device", gpu_now()->name, ",\n  \"kernels\": [\n");
    for (int i = 0; i < n; i++) {
        write_kernel(f, &k[i]);
        fprintf(f, "%s\n", i + 1 < n ? "," : "");
    }
    fprintf(f, "  ],\n  \"findings\": [\n");
    for (int i = 0; i < gpusim_report_count(); i++) {
        write_finding(f, gpusim_report_at(i));
        fprintf(f, "%s\n", i + 1 < gpusim_report_count() ? "," : "");
    }
    fprintf(f, "  ]\n}\n");
    if (fclose(f)) fprintf(stderr, "gpusim: GPUSIM_REPORT=%s is incomplete\n", path);
}
