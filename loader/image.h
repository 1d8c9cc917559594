/* image.h: picture bytes -> RGB, decoded by content (never by file name), as Pillow decodes. */
#ifndef VL_IMAGE_H
#define VL_IMAGE_H

#include "common/common.h"

typedef struct vl_image {
    int width, height;         /* after EXIF orientation                              */
    uint8_t *rgb;              /* [height, width, 3], malloc'd                        */
    const char *format;        /* "jpeg" "png" "bmp" "gif" "tga" "pnm" "webp"         */
    int orientation;           /* EXIF 1..8 that was found and applied                */
    int n_warnings;
    /* static strings: "animated:first_frame_used" "icc_ignored" "exif_malformed" and, from JPEG,
     * "corrupt_data" "truncated" (allow_truncated, which only JPEG has) "jpeg_not_exact" (stb) */
    const char *warnings[8];
} vl_image;

/* Limits of 0 mean the defaults of vitreous.h; they hold for the sizes in the header before a pixel
 * is decoded. `name` is used in messages only. *out is zeroed when it fails. */
int vl_image_decode(vl_image *out, const void *bytes, size_t len, const char *name,
                    const vl_picture_params *params, vl_err *err);
void vl_image_clear(vl_image *im);

#endif
