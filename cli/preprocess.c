/* preprocess.c: what the model sees of a picture: pixel_values and one JSON line about it. */
#include <stdlib.h>

#include "cli/cli.h"
#include "loader/checkpoint.h"

int cmd_preprocess(int argc, char **argv) {
    cli_common common = {0};
    cli_list images = {0};
    const char *path = NULL;
    const cli_option options[] = {
        {"image", 'i', CLI_LIST, &images, "FILE", "the picture", 0, 0},
        {"dump", 'o', CLI_STR, &path, "OUT", "safetensors with pixel_values and image_grid_thw", 0, 0},
        CLI_PICTURE_OPTIONS(&common),
        CLI_MODEL_OPTIONS(&common),
        {0},
    };
    int rc = cli_parse("preprocess --image FILE [--dump OUT.safetensors]",
                       "Decodes, turns, resizes and cuts a picture; prints one JSON line.", options,
                       argc, argv, NULL);
    if (rc >= 0) return rc;
    if (images.n != 1) return cli_usage("preprocess needs one --image FILE");
    vl_model *m = NULL;
    vl_picture **pictures = NULL;
    vl_err err = {0};
    rc = cli_open_model(&common, &m);
    if (!rc) rc = cli_load_pictures(m, &common, &images, &pictures);
    if (!rc && path) {
        const vl_picture_info *info = vl_picture_get_info(pictures[0]);
        int patches, width;
        const float *values = vl_picture_values(pictures[0], &patches, &width);
        const int64_t thw[3] = {info->grid_t, info->grid_h, info->grid_w};
        const vl_tensor tensors[] = {
            {.name = "pixel_values", .dtype = VL_F32, .rank = 2, .shape = {patches, width},
             .data = values, .bytes = (size_t)patches * (size_t)width * sizeof *values},
            {.name = "image_grid_thw", .dtype = VL_I64, .rank = 2, .shape = {1, 3}, .data = thw,
             .bytes = sizeof thw},
        };
        if (vl_safetensors_write(path, tensors, 2, NULL, &err)) rc = cli_fail(&err);
    }
    if (!rc) cli_print_json(cli_picture_json(pictures[0], NULL));
    cli_free_pictures(pictures, images.n);
    vl_model_free(m);
    free(images.v);
    return rc;
}
