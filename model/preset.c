/* preset.c: pixel budgets by task. One token is 32 x 32 pixels of the resized picture. */
#include "model/preset.h"

#include <string.h>

const char *const vl_preset_names[] = {"fast", "balanced", "ocr", "ground", NULL};

static const struct { int64_t min, max; } LIMITS[] = {
    {0, 448 * 448},                 /* fast:     at most 196 tokens                            */
    {0, 1024 * 1024},               /* balanced: at most 1024                                  */
    {512 * 512, 2048 * 2048},       /* ocr:      256 to 4096, small print is enlarged          */
    {1024 * 1024, 2048 * 2048},     /* ground:   1024 to 4096, boxes need them                 */
};

bool vl_preset_limits(const vl_model_info *info, const char *name, int64_t *min_pixels,
                      int64_t *max_pixels) {
    for (int i = 0; vl_preset_names[i]; i++) {
        if (strcmp(vl_preset_names[i], name) != 0) continue;
        int64_t lo = info->min_pixels, hi = info->max_pixels;
        *max_pixels = LIMITS[i].max < hi ? LIMITS[i].max : hi;
        *min_pixels = LIMITS[i].min > lo ? LIMITS[i].min : lo;
        if (*max_pixels < lo) *max_pixels = lo;
        if (*min_pixels > *max_pixels) *min_pixels = *max_pixels;
        return true;
    }
    return false;
}
