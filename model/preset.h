/* preset.h: how much of a picture a task needs, by name: the one table for command line and server. */
#ifndef VL_PRESET_H
#define VL_PRESET_H

#include "vitreous.h"

/* "fast", "balanced", "ocr", "ground", then NULL. */
extern const char *const vl_preset_names[];
/* The pixel limits of a preset, kept within the checkpoint's own. false: no such preset. */
bool vl_preset_limits(const vl_model_info *info, const char *name, int64_t *min_pixels,
                      int64_t *max_pixels);

#endif
