/* kernels.c: which leaf kernel each slot of the CPU backend runs on this machine, and why. */
#include "cli/cli.h"
#include "kernels/kernels_info.h"
#include "kernels/ops.h"

int cmd_kernels(int argc, char **argv) {
    bool all = false, json = false;
    const cli_option options[] = {
        {"all", 0, CLI_FLAG, &all, NULL, "also the kernels that were not chosen", 0, 0},
        {"json", 0, CLI_FLAG, &json, NULL, "a JSON array of all rows", 0, 0},
        {0},
    };
    int rc = cli_parse("kernels [--all]", "The dispatch table. VL_CPU=scalar|avx2|avx512 masks tiers, "
                       "VL_KERNEL=slot=variant forces one kernel.", options, argc, argv, NULL);
    if (rc >= 0) return rc;
    vl_err err = {0};
    vl_backend *backend; /* opened to learn whether VL_CPU and VL_KERNEL make sense */
    if (vl_backend_open(&backend, &(vl_backend_params){"cpu", "exact", 0}, &err)) return cli_fail(&err);
    fprintf(stderr, "cpu, %d threads\n", vl_backend_threads(backend));
    backend->ops->close(backend);
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
