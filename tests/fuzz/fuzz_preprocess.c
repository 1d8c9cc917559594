/* fuzz_preprocess.c: sizes, limits and pixels from the input, through the whole preprocessing. */
#include "model/preprocess.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint16_t in[6];
    if (size < sizeof in + 1) return 0;
    memcpy(in, data, sizeof in);
    int h = in[0] % 300, w = in[1] % 300, oh, ow;
    vl_preprocess_config c = {.patch_size = 1 + in[2] % 20, .merge_size = 1 + in[2] / 60 % 3,
                              .temporal_patch_size = 1 + in[2] / 20 % 3, .min_pixels = in[3],
                              .max_pixels = in[4], .std = {1, 1, 1}, .rescale = 1};
    bool pil = in[5] & 1;
    if (vl_smart_resize(h, w, c.patch_size * c.merge_size, c.min_pixels, c.max_pixels, &oh, &ow,
                        NULL) < 0)
        return 0;
    size_t n = 3 * (size_t)h * (size_t)w, out = 3 * (size_t)oh * (size_t)ow;
    uint8_t *src = malloc(n), *dst = malloc(out);
    float *values = malloc(out * (size_t)c.temporal_patch_size * sizeof *values);
    for (size_t i = 0; i < n; i++) src[i] = data[sizeof in + i % (size - sizeof in)];
    vl_assert(vl_resize_bicubic(dst, oh, ow, src, h, w, pil, 1 + (in[5] >> 1 & 1), NULL) == 0, "resize");
    vl_patchify(values, dst, oh, ow, &c, pil, 1 + (in[5] >> 1 & 1), NULL, NULL);
    float sum = 0;
    for (size_t i = 0; i < out * (size_t)c.temporal_patch_size; i++) sum += values[i];
    vl_assert(sum >= 0, "%g", (double)sum);
    free(src);
    free(dst);
    free(values);
    return 0;
}
