/* bench_picture.c: the picture of a benchmark: a file, or a JPEG made here (a drawing with soft
 * edges, gradients and a little grain, about as large as a photograph of the same size). Without
 * libjpeg it is a PNM, whose decoding says nothing. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#ifdef VL_HAVE_LIBJPEG
#include <stdio.h>

#include <jpeglib.h>
#endif

#include "cli/bench.h"
#include "common/common.h"

static uint8_t level(double v) { return v < 0 ? 0 : v > 255 ? 255 : (uint8_t)v; }

static void draw(uint8_t *rgb, int width, int height) {
    vl_rng rng;
    vl_rng_seed(&rng, 1);
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++) {
            double u = (double)x / width, v = (double)y / height;
            double ring = sin(40 * hypot(u - 0.4, v - 0.5)), bar = u > 0.7 ? 60 : 0;
            double grain = 12 * (vl_rng_uniform(&rng) - 0.5);
            uint8_t *p = rgb + 3 * ((size_t)y * (size_t)width + (size_t)x);
            p[0] = level(120 + 90 * ring + grain);
            p[1] = level(200 * v + bar + grain);
            p[2] = level(230 * u - 60 * ring + grain);
        }
}

#ifdef VL_HAVE_LIBJPEG
static int encode(const uint8_t *rgb, int width, int height, unsigned char **out, size_t *len) {
    struct jpeg_compress_struct c;
    struct jpeg_error_mgr errors;
    unsigned long n = 0;
    *out = NULL;
    c.err = jpeg_std_error(&errors);
    jpeg_create_compress(&c);
    jpeg_mem_dest(&c, out, &n);
    c.image_width = (JDIMENSION)width;
    c.image_height = (JDIMENSION)height;
    c.input_components = 3;
    c.in_color_space = JCS_RGB;
    jpeg_set_defaults(&c);
    jpeg_set_quality(&c, 90, TRUE);
    jpeg_start_compress(&c, TRUE);
    while (c.next_scanline < c.image_height) {
        uint8_t row_copy[3 * 8192];
        JSAMPROW row = row_copy;
        memcpy(row_copy, rgb + 3 * (size_t)c.next_scanline * (size_t)width, 3 * (size_t)width);
        jpeg_write_scanlines(&c, &row, 1);
    }
    jpeg_finish_compress(&c);
    jpeg_destroy_compress(&c);
    *len = n;
    return *out ? 0 : -1;
}
#else
static int encode(const uint8_t *rgb, int width, int height, unsigned char **out, size_t *len) {
    size_t n = 3 * (size_t)width * (size_t)height;
    if (!(*out = malloc(n + 32))) return -1;
    size_t head = (size_t)sprintf((char *)*out, "P6 %d %d 255\n", width, height);
    memcpy(*out + head, rgb, n);
    *len = head + n;
    return 0;
}
#endif

static int made_picture(const bench *b, const bench_case *c, vl_picture **out, vl_err *err) {
    uint8_t *rgb = malloc(3 * (size_t)c->width * (size_t)c->height);
    unsigned char *bytes = NULL;
    size_t len = 0;
    int rc = -1;
    if (rgb) draw(rgb, c->width, c->height);
    if (!rgb || encode(rgb, c->width, c->height, &bytes, &len))
        vl_fail(err, VL_E_NOMEM, "no memory for a %d x %d picture", c->width, c->height);
    else rc = vl_picture_load(out, b->m, bytes, len, c->name, &b->picture, err);
    free(bytes);
    free(rgb);
    return rc;
}

int bench_load_picture(const bench *b, const bench_case *c, vl_picture **out, vl_err *err) {
    *out = NULL;
    if (!c->width) return 0;
    if (b->image) return vl_picture_load_file(out, b->m, b->image, &b->picture, err);
    return made_picture(b, c, out, err);
}
