/* random_shapes.h: the published shapes that make-random knows by name. Sources: 2B, shared/qwen3vl.md C1; 8B and
 * the large tower, torchtitan's table of Qwen3-VL variants (experiments/qwen3_vl, commit 0375bb67); 4B, Qwen3-4B as
 * levanter lists it (marin, experiments/qwen3.py) with the small tower; 32B, Qwen3-32B with the large tower, from
 * memory. */
#ifndef VL_RANDOM_SHAPES_H
#define VL_RANDOM_SHAPES_H

#include <stdbool.h>

typedef struct random_shape {
    const char *name;
    int D, F, layers, H, G;                /* text; head_dim 128, vocabulary 151936          */
    bool tied;
    int vD, vF, depth;                     /* vision; 16 heads, 48x48 positions              */
    int deepstack[3];
} random_shape;

static const random_shape random_shapes[] = {
    {"2b", 2048, 6144, 28, 16, 8, true, 1024, 4096, 24, {5, 11, 17}},
    {"4b", 2560, 9728, 36, 32, 8, true, 1024, 4096, 24, {5, 11, 17}},
    {"8b", 4096, 12288, 36, 32, 8, false, 1152, 4304, 27, {8, 16, 24}},
    {"32b", 5120, 25600, 64, 64, 8, false, 1152, 4304, 27, {8, 16, 24}},
};

#endif
