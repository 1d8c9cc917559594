/* pack.c: writes the pack cache of a checkpoint (model/packed.h), or checks every byte of it. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "model/model.h"

/* A model opened without a cache, so that what is written never comes from an older one. */
static int open_without(const cli_common *common, vl_model **m) {
    const char *set = getenv("VL_PACK_CACHE");
    char *kept = set ? strdup(set) : NULL;
    setenv("VL_PACK_CACHE", "off", 1);
    int rc = cli_open_model(common, m);
    if (kept) setenv("VL_PACK_CACHE", kept, 1);
    else unsetenv("VL_PACK_CACHE");
    free(kept);
    return rc;
}

int cmd_pack(int argc, char **argv) {
    cli_common common = {.backend = "cpu"};
    bool check = false;
    const cli_option options[] = {
        {"check", 0, CLI_FLAG, &check, NULL, "read the whole cache and compare its checksums; writes nothing", 0, 0},
        CLI_MODEL_OPTIONS(&common),
        {0},
    };
    int rc = cli_parse("pack -m DIR [--dtype D] [--check]",
                       "Writes the weights as the CPU backend lays them out beside the checkpoint (or to "
                       "$VL_PACK_CACHE), for a faster start. As large as the checkpoint in exact and bf16.",
                       options, argc, argv, NULL);
    if (rc >= 0) return rc;
    vl_model *m = NULL;
    vl_err err = {0};
    char path[PATH_MAX] = "";
    rc = open_without(&common, &m);
    if (!rc && (check ? vl_packed_verify : vl_packed_write)(m->dir, m->checkpoint, m->plain, path, sizeof path, &err))
        rc = cli_fail(&err);
    if (!rc) printf("%s%s\n", path, check ? ": every checksum is right" : "");
    vl_model_free(m);
    return rc;
}
