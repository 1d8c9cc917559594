/* preprocess.h: RGB picture -> pixel_values, bit-exact to HF Qwen2VLImageProcessor(Fast). */
#ifndef VL_PREPROCESS_H
#define VL_PREPROCESS_H

#include "common/common.h"

/* preprocessor_config.json (or the defaults of Qwen3-VL where it is silent). */
typedef struct vl_preprocess_config {
    int patch_size, temporal_patch_size, merge_size;
    int64_t min_pixels, max_pixels;      /* size.shortest_edge / longest_edge */
    float mean[3], std[3];
    double rescale;
} vl_preprocess_config;
int vl_preprocess_config_load(vl_preprocess_config *c, const char *dir, vl_err *err);

/* HF smart_resize: sides rounded to `factor` (banker's), pixels kept within [min, max]. */
int vl_smart_resize(int height, int width, int factor, int64_t min_pixels, int64_t max_pixels,
                    int *out_height, int *out_width, vl_err *err);
/* Bicubic (a = -0.5, antialiased), exact integer arithmetic: pil ? Pillow : torchvision uint8 CPU.
 * dst [oh, ow, 3]. The same on any number of threads. */
int vl_resize_bicubic(uint8_t *dst, int oh, int ow, const uint8_t *src, int h, int w, bool pil,
                      int threads, vl_err *err);
/* rgb [h, w, 3] (multiples of patch*merge) -> out [P, 3 * temporal * patch * patch], where
 * P = (h/patch)(w/patch); rows in merge-block order, columns (channel, time, y, x). `beside` (NULL: nothing)
 * is called once, by any of the threads: work of the same picture that fits in between. */
void vl_patchify(float *out, const uint8_t *rgb, int h, int w, const vl_preprocess_config *c,
                 bool pil, int threads, void (*beside)(void *arg), void *arg);

#endif
