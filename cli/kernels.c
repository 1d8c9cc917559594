/* kernels.c: which leaf kernel each slot of the CPU backend runs on this machine, and why; --bench: how
 * fast each is. */
#include <math.h>
#include <stdlib.h>

#include "cli/cli.h"
#include "kernels/kernels_info.h"
#include "kernels/ops.h"

/* ---- --bench ------------------------------------------------------------------------------------- */

static void add_rate(void *user, const vl_kernel_rate *r, const vl_kernel_peaks *p) {
    json_t *o = json_pack("{s:s,s:s,s:s,s:s,s:f,s:f,s:f}", "slot", r->slot, "kernel", r->name, "tier", r->tier,
                          "shape", r->shape, "us", r->seconds * 1e6, "gflops", r->gflops, "gbs", r->gbs);
    if (!isnan(r->peak_percent)) {
        json_object_set_new(o, "roof", json_string(r->roof));
        json_object_set_new(o, "peak_percent", json_real(r->peak_percent));
        if (p->read_gbs > 0 && !strcmp(r->roof, "read")) json_object_set_new(o, "read_gbs", json_real(p->read_gbs));
    }
    json_array_append_new(user, o);
}

/* A number in a column, "-" for none. */
static const char *cell(char *buf, size_t size, double v, int digits) {
    if (isnan(v) || v <= 0) snprintf(buf, size, "-");
    else snprintf(buf, size, "%.*f", digits, v);
    return buf;
}

static void show_rate(void *user, const vl_kernel_rate *r, const vl_kernel_peaks *p) {
    char flops[32], bytes[32], share[64] = "-";
    bool *begun = user;
    if (!*begun)
        printf("One thread, shapes of Qwen3-VL-2B. Peaks of the same run: FMA %.1f, bf16 %.1f GFLOP/s, int8 %.1f GOP/s;\n"
               "read: measured beside each kernel that is bound by it.\n%-26s %-26s %11s %9s %8s  %s\n",
               p->fma_gflops, p->bf16_gflops, p->int8_gops, "kernel", "shape", "us", "GFLOP/s", "GB/s", "% of peak");
    *begun = true;
    if (!isnan(r->peak_percent) && !strcmp(r->roof, "read"))
        snprintf(share, sizeof share, "%.1f of read, %.1f GB/s", r->peak_percent, p->read_gbs);
    else if (!isnan(r->peak_percent)) snprintf(share, sizeof share, "%.1f of %s", r->peak_percent, r->roof);
    printf("%-26s %-26s %11.2f %9s %8s  %s\n", r->name, r->shape, r->seconds * 1e6,
           cell(flops, sizeof flops, r->gflops, 1), cell(bytes, sizeof bytes, r->gbs, 1), share);
    fflush(stdout);
}

static int bench_kernels(const char *part, bool json) {
    vl_err err = {0};
    json_t *list = json_array();
    bool begun = false;
    int rc = json ? vl_kernels_bench(part, add_rate, list, &err) : vl_kernels_bench(part, show_rate, &begun, &err);
    if (!rc && json) cli_print_json(list); /* prints and frees */
    else json_decref(list);
    return rc ? cli_fail(&err) : CLI_OK;
}

int cmd_kernels(int argc, char **argv) {
    bool all = false, json = false, bench = false;
    cli_list names = {0};
    const cli_option options[] = {
        {"all", 0, CLI_FLAG, &all, NULL, "also the kernels that were not chosen", 0, 0},
        {"bench", 0, CLI_FLAG, &bench, NULL, "time every kernel, or those with NAME in their name, beside the peaks", 0, 0},
        {"json", 0, CLI_FLAG, &json, NULL, "a JSON array of all rows", 0, 0},
        {0},
    };
    int rc = cli_parse("kernels [--all | --bench [NAME]]", "The dispatch table. "
                       "VL_CPU=scalar|avx2|avx512|avx512vnni|avx512bf16|amx masks tiers,\n"
                       "VL_KERNEL=slot=variant forces one kernel.", options, argc, argv, &names);
    if (rc < 0 && names.n > (bench ? 1 : 0)) rc = cli_usage("unexpected argument \"%s\"", names.v[bench ? 1 : 0]);
    const char *part = names.n ? names.v[0] : "";
    free(names.v);
    if (rc >= 0) return rc;
    vl_err err = {0};
    vl_backend *backend; /* opened to learn whether VL_CPU and VL_KERNEL make sense */
    if (vl_backend_open(&backend, &(vl_backend_params){"cpu", "exact", 0}, &err)) return cli_fail(&err);
    fprintf(stderr, "cpu, %d threads\n", vl_backend_threads(backend));
    if (backend->note) fprintf(stderr, "warning: %s\n", backend->note);
    backend->ops->close(backend);
    if (bench) return bench_kernels(part, json);
    vl_kernel_row rows[VL_KERNEL_ROWS_MAX];
    size_t n = vl_kernels_list(rows, VL_KERNEL_ROWS_MAX);
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++) {
        const vl_kernel_row *r = &rows[i];
        if (json)
            json_array_append_new(list, json_pack("{s:s,s:s,s:s,s:b,s:s}", "slot", r->slot, "kernel",
                                                  r->name, "tier", r->tier, "chosen", (int)r->chosen,
                                                  "reason", r->reason));
        else if (all || r->chosen)
            printf("%s %-22s %-34s %-8s %s\n", r->chosen ? "*" : " ", r->slot, r->name, r->tier, r->reason);
    }
    if (json) cli_print_json(list);
    else json_decref(list);
    return CLI_OK;
}
