/* image_jpeg.c: JPEG through libjpeg-turbo with the settings Pillow uses (accurate integer IDCT,
 * triangle upsampling, the library's own guess of the colour space), so the pixels equal Pillow's.
 *
 * Easy to get wrong:
 *   - libjpeg reports errors by a call that must not return: setjmp/longjmp, with everything that
 *     has to be freed in one struct that outlives the jump;
 *   - it prints by default; here output goes nowhere and warnings are counted;
 *   - a file that ends early is not an error to it: it makes up an end marker and goes on;
 *   - four channels are CMYK that Pillow always takes as inverted, YCCK being converted before;
 *   - a progressive file may hold thousands of scans over the whole picture: they are capped.
 */
#include "loader/image_decode.h"

#ifdef VL_HAVE_LIBJPEG

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

#include <jerror.h>
#include <jpeglib.h>

/* Real files have up to about 20 scans. The second limit keeps a file of empty scans over a large
 * picture to a second or two. */
enum { MAX_SCANS = 100, MAX_SCANNED_PIXELS = 2000000000, ICC_PREFIX = 12 };

typedef struct job {
    struct jpeg_decompress_struct lib;
    struct jpeg_error_mgr errors;
    struct jpeg_progress_mgr progress;
    jmp_buf failed;
    bool truncated, corrupt, too_many_scans;
    uint8_t *cmyk;               /* one row */
    vl_decode *d;
} job;

static void on_error(j_common_ptr lib) { longjmp(((job *)lib->client_data)->failed, 1); }

static void on_message(j_common_ptr lib, int level) {
    job *j = lib->client_data;
    if (level >= 0) return; /* a trace, not a warning */
    if (lib->err->msg_code != JWRN_JPEG_EOF) {
        j->corrupt = true;
        return;
    }
    j->truncated = true;
    if (!j->d->allow_truncated) longjmp(j->failed, 1);
}

static void no_output(j_common_ptr lib) { (void)lib; }

static void on_progress(j_common_ptr lib) {
    job *j = lib->client_data;
    int64_t scans = j->lib.input_scan_number, pixels = (int64_t)j->d->width * j->d->height;
    if (scans <= MAX_SCANS && scans * pixels <= MAX_SCANNED_PIXELS) return;
    j->too_many_scans = true;
    longjmp(j->failed, 1);
}

/* Orientation from the first APP1 that holds EXIF, and from XMP; a profile is only reported. */
static void read_markers(job *j) {
    bool seen = false;
    for (jpeg_saved_marker_ptr m = j->lib.marker_list; m; m = m->next) {
        static const char XMP[] = "http://ns.adobe.com/xap/1.0/"; /* and its NUL */
        bool xmp = m->data_length >= sizeof XMP && memcmp(m->data, XMP, sizeof XMP) == 0;
        bool exif = m->data_length >= 6 && memcmp(m->data, "Exif\0\0", 6) == 0;
        if (m->marker == JPEG_APP0 + 1 && exif && !seen) {
            seen = true;
            vl_decode_exif(j->d, m->data, m->data_length);
        }
        if (m->marker == JPEG_APP0 + 1 && xmp) vl_decode_xmp(j->d, m->data, m->data_length);
        if (m->marker == JPEG_APP0 + 2 && m->data_length >= ICC_PREFIX &&
            memcmp(m->data, "ICC_PROFILE", ICC_PREFIX) == 0)
            vl_decode_warn(j->d, "icc_ignored");
    }
}

/* Inverted CMYK to RGB with Pillow's rounding. */
static void cmyk_to_rgb(uint8_t *rgb, const uint8_t *cmyk, size_t n) {
    for (size_t i = 0; i < n; i++, cmyk += 4, rgb += 3) {
        int white = cmyk[3];
        for (int k = 0; k < 3; k++) {
            int t = (255 - cmyk[k]) * white + 128, v = white - ((t + (t >> 8)) >> 8);
            rgb[k] = (uint8_t)(v < 0 ? 0 : v);
        }
    }
}

static int decode_rows(job *j) {
    vl_decode *d = j->d;
    struct jpeg_decompress_struct *lib = &j->lib;
    size_t row = 3 * (size_t)d->width;
    d->channels = 3;
    d->pixels = calloc((size_t)d->height, row); /* zeroed: a cut-off file may leave rows out */
    if (!d->pixels) return vl_decode_no_memory(d);
    vl_huge_pages(d->pixels, (size_t)d->height * row);
    if (lib->out_color_space == JCS_CMYK) {
        j->cmyk = malloc(4 * (size_t)d->width);
        if (!j->cmyk) return vl_decode_no_memory(d);
    }
    jpeg_start_decompress(lib);
    while (lib->output_scanline < lib->output_height) {
        uint8_t *rgb = d->pixels + lib->output_scanline * row;
        JSAMPROW into = j->cmyk ? j->cmyk : rgb;
        jpeg_read_scanlines(lib, &into, 1);
        if (j->cmyk) cmyk_to_rgb(rgb, j->cmyk, (size_t)d->width);
    }
    jpeg_finish_decompress(lib);
    return 0;
}

static int decode(job *j) {
    vl_decode *d = j->d;
    struct jpeg_decompress_struct *lib = &j->lib;
    jpeg_save_markers(lib, JPEG_APP0 + 1, 0xffff);
    jpeg_save_markers(lib, JPEG_APP0 + 2, ICC_PREFIX);
    jpeg_mem_src(lib, d->bytes, (unsigned long)d->len);
    jpeg_read_header(lib, TRUE);
    if (lib->data_precision != 8 || lib->num_components == 2 || lib->num_components > 4)
        return vl_fail(d->err, VL_E_UNSUPPORTED, "%s: JPEG of %d bits and %d channels is not "
                       "supported; convert it to an 8-bit JPEG or PNG", d->name,
                       lib->data_precision, lib->num_components);
    if (vl_decode_size(d, lib->image_width, lib->image_height) < 0) return -1;
    read_markers(j);
    lib->out_color_space = lib->num_components == 4 ? JCS_CMYK : JCS_RGB; /* grey is widened */
    return decode_rows(j);
}

/* Which message belongs to what longjmp left behind. */
static int explain(job *j) {
    vl_decode *d = j->d;
    switch (j->errors.msg_code) {
    case JERR_OUT_OF_MEMORY: return vl_decode_no_memory(d);
    case JERR_BAD_PRECISION:
    case JERR_SOF_UNSUPPORTED:
        return vl_fail(d->err, VL_E_UNSUPPORTED, "%s: this kind of JPEG (12-bit or lossless) is "
                       "not supported; convert it to an 8-bit JPEG or PNG", d->name);
    default: break;
    }
    if (j->too_many_scans)
        return vl_fail(d->err, VL_E_LIMIT, "%s: this JPEG file has too many scans (%d over %d x %d "
                       "pixels)", d->name, j->lib.input_scan_number, d->width, d->height);
    return j->truncated ? vl_decode_truncated(d, "JPEG") : vl_decode_broken(d, "JPEG");
}

int vl_decode_jpeg(vl_decode *d) {
    job *j = vl_calloc(1, sizeof *j);
    if (!j) return vl_decode_no_memory(d);
    int rc;
    j->d = d;
    j->lib.err = jpeg_std_error(&j->errors);
    j->errors.error_exit = on_error;
    j->errors.emit_message = on_message;
    j->errors.output_message = no_output;
    j->lib.client_data = j;
    j->progress.progress_monitor = on_progress;
    if (setjmp(j->failed) == 0) {
        jpeg_create_decompress(&j->lib); /* keeps err and client_data */
        j->lib.progress = &j->progress;
        rc = decode(j);
    } else {
        rc = explain(j);
    }
    if (rc == 0 && j->truncated) vl_decode_warn(d, "truncated");
    if (rc == 0 && j->corrupt) vl_decode_warn(d, "corrupt_data");
    jpeg_destroy_decompress(&j->lib);
    free(j->cmyk);
    free(j);
    return rc;
}

#else /* without libjpeg-turbo: mostly within 3 levels (21 where only rows or columns of chroma are
       * halved), no arithmetic coding, no 12 bits, CMYK without an Adobe marker not inverted */

int vl_decode_jpeg(vl_decode *d) {
    /* The frame header gives the size, and APP1 the orientation, on the way there. */
    for (size_t at = 2; at + 9 <= d->len;) {
        const uint8_t *p = d->bytes + at;
        size_t n = vl_get16(p + 2, true);
        if (p[0] != 0xff) break;
        if (p[1] == 0xff) {
            at++;
            continue;
        }
        if (n < 2 || n > d->len - at - 2) break;
        if (p[1] == 0xe1 && n >= 8 && memcmp(p + 4, "Exif\0\0", 6) == 0)
            vl_decode_exif(d, p + 4, n - 2);
        if (p[1] >= 0xc0 && p[1] <= 0xc2) {
            if (vl_decode_size(d, vl_get16(p + 7, true), vl_get16(p + 5, true)) < 0) return -1;
            vl_decode_warn(d, "jpeg_not_exact");
            return vl_decode_stb(d, "JPEG");
        }
        at += 2 + n;
    }
    return vl_decode_broken(d, "JPEG");
}

#endif
