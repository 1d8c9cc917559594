/* image_decode.h: what the decoders of image.c share; private to loader/.
 *
 * Each decoder reads the sizes from the header, asks vl_decode_size, decodes, and leaves the pixels
 * as [height, width, channels] in `pixels`, with what it learnt on the way; image.c does the rest.
 */
#ifndef VL_IMAGE_DECODE_H
#define VL_IMAGE_DECODE_H

#include "loader/image.h"

typedef struct vl_decode {
    const uint8_t *bytes;      /* the file                                            */
    size_t len;
    const char *name;          /* for messages                                        */
    bool allow_truncated;
    int64_t max_pixels, max_side, max_ratio;
    int frame;                 /* of an animation, from 0; 0 where the format has none */
    /* results */
    int width, height;
    int channels;              /* 1: grey, 2: grey + alpha, 3: RGB, 4: RGBA           */
    uint8_t *pixels;           /* malloc'd; image.c frees it, after failures too      */
    int exif_orientation;      /* 1..8, 0: no such tag        */
    int xmp_orientation;       /* counts where EXIF has none   */
    int n_warnings;
    const char *warnings[8];
    vl_err *err;
} vl_decode;

int vl_decode_jpeg(vl_decode *d);
int vl_decode_png(vl_decode *d);
int vl_decode_gif(vl_decode *d);
int vl_decode_bmp(vl_decode *d);
int vl_decode_tga(vl_decode *d);
int vl_decode_pnm(vl_decode *d);
int vl_decode_webp(vl_decode *d);
/* A file that looks like TGA, which has no magic number: every field of the header makes sense. */
bool vl_looks_like_tga(const uint8_t *bytes, size_t len);

/* Through stb_image, after the caller has checked size and completeness: it never allocates more
 * than a few times what the picture needs. format names the file in messages. */
int vl_decode_stb(vl_decode *d, const char *format);

/* Sets width and height, or fails where the limits or zero forbid them. */
int vl_decode_size(vl_decode *d, int64_t width, int64_t height);
void vl_decode_warn(vl_decode *d, const char *warning);
/* "NAME: FORMAT is broken / cut off": one wording for all formats. Returns -1. */
int vl_decode_broken(vl_decode *d, const char *format);
int vl_decode_truncated(vl_decode *d, const char *format);
int vl_decode_no_memory(vl_decode *d);
/* Reads the orientation out of EXIF data (a TIFF header, or "Exif\0\0" and one), with a warning
 * and 1 where they are malformed; and out of an XMP packet. */
void vl_decode_exif(vl_decode *d, const uint8_t *exif, size_t len);
void vl_decode_xmp(vl_decode *d, const uint8_t *xmp, size_t len);

/* Bytes at p, either order. */
static inline uint32_t vl_get16(const uint8_t *p, bool big) {
    return big ? (uint32_t)p[0] << 8 | p[1] : (uint32_t)p[1] << 8 | p[0];
}
static inline uint32_t vl_get32(const uint8_t *p, bool big) {
    return big ? vl_get16(p, true) << 16 | vl_get16(p + 2, true)
               : vl_get16(p + 2, false) << 16 | vl_get16(p, false);
}

#endif
