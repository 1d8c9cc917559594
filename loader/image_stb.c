/* image_stb.c: the one place that holds stb_image, for PNG, GIF, BMP and TGA (and JPEG where
 * libjpeg-turbo is absent). Its allocations go through a budget made from the size in the header,
 * so that a few kilobytes of zlib data cannot inflate into gigabytes.
 */
#include "loader/image_decode.h"

#include <limits.h>
#include <stdlib.h>

static _Thread_local size_t budget;          /* largest single allocation       */
static _Thread_local bool no_memory, over;   /* why an allocation was refused   */

static void *bounded_realloc(void *p, size_t n) {
    over |= n > budget;
    void *q = over ? NULL : realloc(p, n);
    no_memory |= !q && !over;
    return q;
}

#define STBI_MALLOC(n) bounded_realloc(NULL, n)
#define STBI_REALLOC(p, n) bounded_realloc(p, n)
#define STBI_FREE(p) free(p)
#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_STATIC
#define STBI_NO_STDIO
#define STBI_NO_FAILURE_STRINGS
#define STBI_MAX_DIMENSIONS 65535
#define STBI_ONLY_PNG
#define STBI_ONLY_GIF
#define STBI_ONLY_BMP
#define STBI_ONLY_TGA
#ifndef VL_HAVE_LIBJPEG
#define STBI_ONLY_JPEG
#endif
#pragma GCC diagnostic ignored "-Wunused-function" /* reported at the end of the file */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wall"
#pragma GCC diagnostic ignored "-Wextra"
#pragma GCC diagnostic ignored "-Wshadow"
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#pragma GCC diagnostic ignored "-Wunused-but-set-variable"
#include <stb/stb_image.h>
#pragma GCC diagnostic pop

int vl_decode_stb(vl_decode *d, const char *format) {
    int width = 0, height = 0;
    if (d->len > INT_MAX) return vl_decode_broken(d, format);
    /* Four 16-bit samples a pixel and a filter byte a row, doubled as stb_image grows buffers. */
    budget = 2 * (8 * (size_t)d->width + 8) * (size_t)d->height + 2 * d->len + 65536;
    no_memory = over = false;
    d->pixels = stbi_load_from_memory(d->bytes, (int)d->len, &width, &height, &d->channels, 0);
    if (!d->pixels && no_memory) return vl_decode_no_memory(d);
    if (!d->pixels || width != d->width || height != d->height) return vl_decode_broken(d, format);
    return 0;
}
