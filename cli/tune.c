/* tune.c: measured choices of the CPU backend for this machine (kernels/tuning.h): measures and writes them,
 * writes what is given, or shows what is in use. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "kernels/tuning.h"

static void show_row(void *user, const vl_tune_row *r) {
    json_t *rows = user;
    if (rows) {
        json_array_append_new(rows, json_pack("{s:s,s:s,s:s,s:f,s:f}", "key", r->key, "default", r->from, "chosen", r->to,
                                              "default_s", r->seconds_from, "chosen_s", r->seconds_to));
        return;
    }
    bool other = strcmp(r->from, r->to) != 0;
    printf("%-14s %-20s %9.2f ms", r->key, r->from, r->seconds_from * 1e3);
    if (other) printf("  ->  %-20s %9.2f ms, %.1f %% less", r->to, r->seconds_to * 1e3, 100 * (1 - r->seconds_to / r->seconds_from));
    else printf("  kept");
    putchar('\n');
    fflush(stdout);
}

static json_t *as_json(const vl_tuning *t) {
    json_t *o = json_object();
    for (int i = 0; i < VL_TUNE_VALUES; i++) json_object_set_new(o, vl_tune_infos[i].name, json_integer(t->value[i]));
    for (int i = 0; i < VL_TUNE_SLOTS_COUNT; i++)
        json_object_set_new(o, vl_tune_slots[i], t->kernel[i] ? json_string(t->kernel[i]) : json_null());
    return o;
}

/* What a CPU backend of this process would run with. */
static int show(bool json) {
    vl_tuning t;
    char path[PATH_MAX] = "", note[600];
    bool place = vl_tuning_path(path, sizeof path, false);
    vl_tuning_load(&t, note, sizeof note);
    const char *state = *note ? "ignored" : place && access(path, R_OK) == 0 ? "in use" : "none";
    if (*note) fprintf(stderr, "warning: %s\n", note);
    if (json) {
        cli_print_json(json_pack("{s:s,s:s,s:o}", "file", path, "state", state, "choices", as_json(&t)));
        return CLI_OK;
    }
    printf("file: %s (%s)\n", place ? path : "VL_TUNE=off, or no home folder", state);
    for (int i = 0; i < VL_TUNE_VALUES; i++) {
        const vl_tune_info *k = &vl_tune_infos[i];
        printf("%-14s %-20d %s (%d to %d; default %d)\n", k->name, t.value[i], k->about, k->lo, k->hi, k->value);
    }
    for (int i = 0; i < VL_TUNE_SLOTS_COUNT; i++)
        printf("%-14s %-20s kernel of this slot, of those with the same bits\n", vl_tune_slots[i],
               t.kernel[i] ? t.kernel[i] : "best present");
    return CLI_OK;
}

/* Masks would decide what is measured, written or not. */
static int check_masks(void) {
    const char *mask[] = {"VL_CPU", "VL_KERNEL"};
    for (int i = 0; i < 2; i++)
        if (getenv(mask[i]) && *getenv(mask[i]))
            return cli_usage("tune measures what this machine does by itself: unset %s", mask[i]);
    return 0;
}

/* Before half a minute is spent on it: can the file be written? */
static int find_place(char *path, size_t n) {
    vl_err err = {0};
    if (!vl_tuning_path(path, n, true))
        return cli_usage("tune has no place for its file: VL_TUNE is off, or neither HOME nor XDG_CACHE_HOME is set");
    char dir[PATH_MAX];
    snprintf(dir, sizeof dir, "%s", path);
    char *slash = strrchr(dir, '/');
    if (slash) slash[slash == dir] = 0;
    if (!access(slash ? dir : ".", W_OK | X_OK)) return 0;
    vl_fail(&err, VL_E_IO, "%s: its folder is not there or cannot be written; VL_TUNE=FILE names another place", path);
    return cli_fail(&err);
}

int cmd_tune(int argc, char **argv) {
    bool json = false, shown = false, dry = false;
    cli_list assign = {0};
    const char *only = NULL;
    const cli_option options[] = {
        {"show", 0, CLI_FLAG, &shown, NULL, "what is in use, and from where; measures and writes nothing", 0, 0},
        {"set", 0, CLI_LIST, &assign, "KEY=VALUE", "write this choice and the defaults instead of measuring", 0, 0},
        {"only", 0, CLI_STR, &only, "KEY", "measure this choice alone; the others keep their defaults", 0, 0},
        {"dry-run", 0, CLI_FLAG, &dry, NULL, "measure, but write nothing", 0, 0},
        {"json", 0, CLI_FLAG, &json, NULL, "one JSON object", 0, 0},
        {0},
    };
    int rc = cli_parse("tune [--show | --set KEY=VALUE ... | [--only KEY] [--dry-run]]",
                       "Measures on this machine which blocking, thread count and kernels are fastest, and writes them "
                       "to a small file\nthat every later start reads. No choice changes a result. VL_TUNE=FILE: where; "
                       "VL_TUNE=off: do without.", options, argc, argv, NULL);
    if (rc >= 0) goto done;
    if (shown) {
        rc = assign.n || dry || only ? cli_usage("--show goes with --json only") : show(json);
        goto done;
    }
    vl_tuning t;
    vl_err err = {0};
    char path[PATH_MAX] = "";
    json_t *rows = json ? json_array() : NULL;
    vl_tuning_default(&t);
    rc = assign.n && only ? cli_usage("--set measures nothing: no --only") : check_masks();
    if (!rc && !dry) rc = find_place(path, sizeof path);
    for (int i = 0; !rc && i < assign.n; i++)
        if (vl_tuning_set(&t, assign.v[i], &err)) rc = cli_fail(&err);
    if (!rc && !assign.n && vl_tune_measure(&t, only, show_row, rows, &err)) rc = cli_fail(&err);
    if (!rc && !dry && vl_tuning_save(&t, path, &err)) rc = cli_fail(&err);
    if (!rc && json)
        cli_print_json(json_pack("{s:s,s:o,s:O}", "file", path, "choices", as_json(&t), "measured", rows));
    else if (!rc && !dry) printf("written: %s\n", path);
    json_decref(rows);
done:
    free(assign.v);
    return rc;
}
