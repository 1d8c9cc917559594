/* fuzz_image.c: any bytes as a picture, EXIF included: an error with a message, or whole pixels. */
#include "loader/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    vl_picture_params params = {.max_decoded_pixels = 1 << 18, .allow_truncated = size & 1,
                                .alpha_drop = size & 2};
    if (size > 4 && (data[0] == 'G' || data[0] == 'R')) params.frame = (int)(size >> 2 & 3); /* GIF, WebP */
    vl_image im;
    vl_err err = {0};
    if (vl_image_decode(&im, data, size, "fuzz", &params, &err) < 0) {
        vl_assert(err.code && err.msg[0] && !im.rgb, "a failure without an error");
        return 0;
    }
    unsigned sum = 0;
    for (int i = 0; i < 3 * im.width * im.height; i++) sum += im.rgb[i];
    vl_assert(im.orientation >= 1 && im.orientation <= 8 && sum < UINT32_MAX, "%d", im.orientation);
    vl_image_clear(&im);
    return 0;
}
