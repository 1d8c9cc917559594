/* image.c: picture bytes -> RGB, as Pillow and transformers' convert_to_rgb give them.
 *
 *   content -> format -> decoder (image_*.c) -> alpha on white -> EXIF orientation -> [h, w, 3]
 *
 * Nothing looks at a file name. A kind that is known but not handled is refused by its name, and
 * messages are fixed texts: what a decoder says about bytes from outside is never passed on.
 *
 * Easy to get wrong: limits hold for the size in the header, before a pixel is decoded; the sides
 * swap for orientations 5 to 8; alpha is blended with Pillow's rounding.
 */
#include "loader/image.h"

#include <stdlib.h>

#include "loader/image_decode.h"

/* ---- what is it? ----------------------------------------------------------------------------- */

typedef struct magic {
    int at, len;
    const char *bytes;
    const char *name;                 /* static: vl_image.format, or the name in the refusal */
    int (*decode)(vl_decode *d);      /* NULL: known, not handled                            */
} magic;

static const magic KNOWN[] = {
    {0, 3, "\xff\xd8\xff", "jpeg", vl_decode_jpeg},
    {0, 8, "\x89PNG\r\n\x1a\n", "png", vl_decode_png},
    {0, 6, "GIF87a", "gif", vl_decode_gif},
    {0, 6, "GIF89a", "gif", vl_decode_gif},
    {0, 2, "BM", "bmp", vl_decode_bmp},
    {0, 2, "P5", "pnm", vl_decode_pnm},
    {0, 2, "P6", "pnm", vl_decode_pnm},
    {8, 4, "WEBP", "webp", vl_decode_webp},
    {4, 8, "ftypheic", "HEIC", NULL},
    {4, 8, "ftypheix", "HEIC", NULL},
    {4, 8, "ftyphevc", "HEIC", NULL},
    {4, 8, "ftyphevx", "HEIC", NULL},
    {4, 8, "ftypmif1", "HEIF", NULL},
    {4, 8, "ftypmsf1", "HEIF", NULL},
    {4, 8, "ftypavif", "AVIF", NULL},
    {4, 8, "ftypavis", "AVIF", NULL},
    {4, 4, "ftyp", "a video (MP4/MOV)", NULL},
    {0, 4, "II*\0", "TIFF", NULL},
    {0, 4, "MM\0*", "TIFF", NULL},
    {0, 4, "II+\0", "TIFF", NULL},
    {0, 4, "MM\0+", "TIFF", NULL},
    {0, 4, "\0\0\1\0", "ICO", NULL},
    {0, 12, "\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL", NULL},
    {0, 2, "\xff\x0a", "JPEG XL", NULL},
    {4, 4, "jP  ", "JPEG 2000", NULL},
    {0, 4, "\xff\x4f\xff\x51", "JPEG 2000", NULL},
    {0, 4, "8BPS", "PSD", NULL},
    {0, 5, "%PDF-", "PDF", NULL},
    {0, 4, "%!PS", "PostScript", NULL},
    {0, 4, "qoif", "QOI", NULL},
    {0, 4, "DDS ", "DDS", NULL},
    {0, 4, "\x76\x2f\x31\x01", "OpenEXR", NULL},
    {0, 2, "#?", "Radiance HDR", NULL},
    {0, 2, "P1", "plain PNM", NULL},
    {0, 2, "P2", "plain PNM", NULL},
    {0, 2, "P3", "plain PNM", NULL},
    {0, 2, "P4", "PBM", NULL},
    {0, 2, "P7", "PAM", NULL},
    {0, 2, "PF", "PFM", NULL},
    {0, 2, "\x1f\x8b", "gzip", NULL},
    {0, 4, "PK\3\4", "ZIP", NULL},
    {0, 4, "RIFF", "a RIFF file that is not WebP", NULL},
};
static const magic TGA = {0, 0, "", "tga", vl_decode_tga};
static const magic SVG = {0, 0, "", "SVG", NULL};
static const magic HTML = {0, 0, "", "an HTML page", NULL};

/* Markup has its name somewhere near the beginning, after comments and declarations. */
static const magic *markup(const uint8_t *b, size_t len) {
    size_t i = 0, n = len < 1024 ? len : 1024;
    if (n >= 3 && memcmp(b, "\xef\xbb\xbf", 3) == 0) i = 3;
    while (i < n && (b[i] == ' ' || (b[i] >= '\t' && b[i] <= '\r'))) i++;
    if (i == n || b[i] != '<') return NULL;
    for (; i + 5 <= n; i++) {
        if (memcmp(b + i, "<svg", 4) == 0) return &SVG;
        if (memcmp(b + i, "<html", 5) == 0 || memcmp(b + i, "<HTML", 5) == 0) return &HTML;
    }
    return NULL;
}

static const magic *identify(const uint8_t *b, size_t len) {
    for (size_t i = 0; i < sizeof KNOWN / sizeof *KNOWN; i++) {
        const magic *m = &KNOWN[i];
        if (len >= (size_t)(m->at + m->len) && memcmp(b + m->at, m->bytes, (size_t)m->len) == 0)
            return m;
    }
    const magic *m = markup(b, len);
    return m ? m : vl_looks_like_tga(b, len) ? &TGA : NULL;
}

/* ---- what decoders share --------------------------------------------------------------------- */

int vl_decode_size(vl_decode *d, int64_t width, int64_t height) {
    enum { CODEC_SIDE = 65535 }; /* more than any of the decoders is trusted with */
    if (width < 1 || height < 1)
        return vl_fail(d->err, VL_E_INPUT, "%s: a picture of %lld x %lld pixels is empty", d->name,
                       (long long)width, (long long)height);
    int64_t side = d->max_side < CODEC_SIDE ? d->max_side : CODEC_SIDE;
    if (width > side || height > side)
        return vl_fail(d->err, VL_E_LIMIT, "%s: %lld x %lld pixels, a side may have at most %lld",
                       d->name, (long long)width, (long long)height, (long long)side);
    if (width * height > d->max_pixels || width * height > INT32_MAX / 4)
        return vl_fail(d->err, VL_E_LIMIT, "%s: %lld x %lld pixels, at most %lld are decoded",
                       d->name, (long long)width, (long long)height, (long long)d->max_pixels);
    /* A few kilobytes that become a hundred megabytes are an attack; what fits into a screen is none. */
    enum { ANY_RATIO = 16 << 20, ALL_FRAMES = 20 };
    if (d->max_ratio > 0 && width * height > ANY_RATIO && width * height / d->max_ratio * 3 > (int64_t)d->len)
        return vl_fail(d->err, VL_E_LIMIT, "%s: %zu bytes would become %lld x %lld pixels, more than %lld times as many bytes "
                       "(a picture this empty can be made smaller)", d->name, d->len, (long long)width, (long long)height,
                       (long long)d->max_ratio);
    int64_t most = ALL_FRAMES * (d->max_pixels < INT32_MAX ? d->max_pixels : INT32_MAX);
    if (d->frame * (width * height) > most)
        return vl_fail(d->err, VL_E_LIMIT, "%s: %d frames of %lld x %lld pixels before the one that was asked for, at most %lld "
                       "pixels in all are decoded", d->name, d->frame, (long long)width, (long long)height,
                       (long long)most);
    d->width = (int)width;
    d->height = (int)height;
    return 0;
}

void vl_decode_warn(vl_decode *d, const char *warning) {
    for (int i = 0; i < d->n_warnings; i++)
        if (strcmp(d->warnings[i], warning) == 0) return;
    if (d->n_warnings < (int)(sizeof d->warnings / sizeof *d->warnings))
        d->warnings[d->n_warnings++] = warning;
}

int vl_decode_broken(vl_decode *d, const char *format) {
    return vl_fail(d->err, VL_E_INPUT, "%s: this %s file is broken", d->name, format);
}

int vl_decode_truncated(vl_decode *d, const char *format) {
    return vl_fail(d->err, VL_E_INPUT, "%s: this %s file is cut off before its end (allow truncated files to decode "
                   "what there is of it)", d->name, format);
}

int vl_decode_no_memory(vl_decode *d) {
    return vl_fail(d->err, VL_E_NOMEM, "%s: no memory to decode a picture of %d x %d", d->name,
                   d->width, d->height);
}

/* The tag Orientation of IFD0, 0 where there is none, -1 where the data make no sense. */
static int exif_orientation(const uint8_t *e, size_t len) {
    if (len >= 6 && memcmp(e, "Exif\0\0", 6) == 0) e += 6, len -= 6;
    if (len < 8) return -1;
    bool big = memcmp(e, "MM\0*", 4) == 0;
    if (!big && memcmp(e, "II*\0", 4) != 0) return -1;
    uint32_t at = vl_get32(e + 4, big);
    if (at > len || len - at < 2) return -1;
    uint32_t entries = vl_get16(e + at, big);
    const uint8_t *p = e + at + 2;
    for (uint32_t i = 0; i < entries; i++, p += 12) {
        if (e + len - p < 12) return -1;
        if (vl_get16(p, big) != 0x0112) continue;
        uint32_t type = vl_get16(p + 2, big), value;
        if (vl_get32(p + 4, big) != 1) return -1;
        if (type == 1) value = p[8];                         /* BYTE  */
        else if (type == 3) value = vl_get16(p + 8, big);    /* SHORT */
        else if (type == 4) value = vl_get32(p + 8, big);    /* LONG  */
        else return -1;
        return value >= 1 && value <= 8 ? (int)value : -1;
    }
    return 0;
}

void vl_decode_exif(vl_decode *d, const uint8_t *exif, size_t len) {
    d->exif_orientation = exif_orientation(exif, len);
    if (d->exif_orientation < 0) {
        vl_decode_warn(d, "exif_malformed");
        d->exif_orientation = 1;
    }
}

/* As Pillow: the first tiff:Orientation="N" or tiff:Orientation>N, without reading the XML. */
void vl_decode_xmp(vl_decode *d, const uint8_t *xmp, size_t len) {
    static const char TAG[] = "tiff:Orientation";
    const uint8_t *end = xmp + len, *p = xmp;
    while ((p = memmem(p, (size_t)(end - p), TAG, sizeof TAG - 1)) != NULL) {
        p += sizeof TAG - 1;
        const uint8_t *digit = p;
        if (end - p > 2 && p[0] == '=' && p[1] == '"') digit = p + 2;
        else if (end - p > 1 && p[0] == '>') digit = p + 1;
        if (digit == p || *digit < '0' || *digit > '9') continue;
        d->xmp_orientation = *digit >= '1' && *digit <= '8' ? *digit - '0' : 1;
        return;
    }
}

/* 1..8 */
static int orientation_of(const vl_decode *d) {
    if (d->exif_orientation) return d->exif_orientation;
    return d->xmp_orientation ? d->xmp_orientation : 1;
}

/* ---- to RGB, the right way up ---------------------------------------------------------------- */

/* v over white at opacity a, rounded as Pillow's alpha_composite. */
static uint8_t over_white(uint32_t v, uint32_t a) {
    uint32_t t = v * a + 255 * (255 - a) + 128;
    return (uint8_t)((t + (t >> 8)) >> 8);
}

/* d->pixels in any number of channels -> three, in place of it. */
static int to_rgb(vl_decode *d, bool alpha_drop) {
    if (d->channels == 3) return 0;
    size_t n = (size_t)d->width * (size_t)d->height, step = (size_t)d->channels;
    uint8_t *rgb = malloc(3 * n), *o = rgb;
    if (!rgb) return vl_decode_no_memory(d);
    bool alpha = step % 2 == 0, grey = step < 3;
    const uint8_t *s = d->pixels;
    for (size_t i = 0; i < n; i++, s += step, o += 3) {
        uint32_t a = alpha && !alpha_drop ? s[step - 1] : 255;
        for (int k = 0; k < 3; k++) o[k] = over_white(s[grey ? 0 : k], a);
    }
    free(d->pixels);
    d->pixels = rgb;
    d->channels = 3;
    return 0;
}

/* Pixels [x, x + TILE) of rows [y, y + TILE) of the turned picture: columns of the source, of which a tile stays
 * in the cache. */
enum { TILE = 64 };
static void turn_tile(uint8_t *turned, const vl_decode *d, const uint8_t *source, ptrdiff_t right, ptrdiff_t down,
                      int x, int y) {
    int bottom = d->height - y < TILE ? d->height : y + TILE, cols = d->width - x < TILE ? d->width - x : TILE;
    for (; y < bottom; y++) {
        uint8_t *t = turned + 3 * ((size_t)y * (size_t)d->width + (size_t)x);
        const uint8_t *s = source + y * down + x * right;
        for (int i = 0; i < cols; i++, t += 3, s += right) t[0] = s[0], t[1] = s[1], t[2] = s[2];
    }
}

/* Turns RGB pixels as the EXIF orientation says. */
static int orient(vl_decode *d) {
    /* Where the top left pixel of the result comes from (1: the far end), and how far one step to
     * the right and one step down go in the source, in pixels of its x and rows of its y. */
    static const struct { int8_t x, y, right_x, right_y, down_x, down_y; } TURN[9] = {
        [1] = {0, 0, 1, 0, 0, 1},  [2] = {1, 0, -1, 0, 0, 1}, [3] = {1, 1, -1, 0, 0, -1},
        [4] = {0, 1, 1, 0, 0, -1}, [5] = {0, 0, 0, 1, 1, 0},  [6] = {0, 1, 0, -1, 1, 0},
        [7] = {1, 1, 0, -1, -1, 0}, [8] = {1, 0, 0, 1, -1, 0},
    };
    int o = orientation_of(d);
    if (o == 1) return 0;
    ptrdiff_t w = d->width, h = d->height;
    ptrdiff_t right = 3 * (TURN[o].right_x + TURN[o].right_y * w);
    ptrdiff_t down = 3 * (TURN[o].down_x + TURN[o].down_y * w);
    uint8_t *turned = malloc(3 * (size_t)w * (size_t)h);
    if (!turned) return vl_decode_no_memory(d);
    vl_huge_pages(turned, 3 * (size_t)w * (size_t)h);
    const uint8_t *row = d->pixels + 3 * (TURN[o].x * (w - 1) + TURN[o].y * (h - 1) * w);
    d->width = (int)(o < 5 ? w : h);
    d->height = (int)(o < 5 ? h : w);
    for (int y = 0; y < d->height; y += TILE)
        for (int x = 0; x < d->width; x += TILE)
            turn_tile(turned, d, row, right, down, x, y);
    free(d->pixels);
    d->pixels = turned;
    return 0;
}

int vl_image_decode(vl_image *out, const void *bytes, size_t len, const char *name,
                    const vl_picture_params *params, vl_err *err) {
    static const vl_picture_params DEFAULTS = {0};
    const vl_picture_params *p = params ? params : &DEFAULTS;
    vl_decode d = {
        .bytes = bytes, .len = len, .name = name ? name : "picture", .err = err,
        .allow_truncated = p->allow_truncated,
        .max_pixels = p->max_decoded_pixels > 0 ? p->max_decoded_pixels : 50000000,
        .max_side = p->max_side > 0 ? p->max_side : 16384,
        .max_ratio = p->max_ratio,
        .frame = p->frame,
    };
    size_t max_bytes = p->max_bytes > 0 ? (size_t)p->max_bytes : 10 << 20;
    memset(out, 0, sizeof *out);
    if (len == 0) return vl_fail(err, VL_E_INPUT, "%s: the file is empty", d.name);
    if (len > max_bytes)
        return vl_fail(err, VL_E_LIMIT, "%s: %zu bytes, the limit is %zu", d.name, len, max_bytes);
    const magic *m = identify(bytes, len);
    if (!m)
        return vl_fail(err, VL_E_UNSUPPORTED,
                       "%s: not a picture of a known kind; convert it to JPEG or PNG", d.name);
    if (!m->decode)
        return vl_fail(err, VL_E_UNSUPPORTED, "%s: %s is not supported; convert it to JPEG or PNG",
                       d.name, m->name);
    bool animated = m->decode == vl_decode_gif || m->decode == vl_decode_webp;
    if (d.frame < 0 || (d.frame && !animated))
        return vl_fail(err, VL_E_INPUT, "%s: frame %d was asked for: frames are read of GIF and WebP only, the first is 0",
                       d.name, d.frame);
    if (m->decode(&d) < 0 || to_rgb(&d, p->alpha_drop) < 0 || orient(&d) < 0) {
        free(d.pixels);
        return -1;
    }
    *out = (vl_image){.width = d.width, .height = d.height, .rgb = d.pixels, .format = m->name,
                      .orientation = orientation_of(&d), .n_warnings = d.n_warnings};
    memcpy(out->warnings, d.warnings, sizeof out->warnings);
    return 0;
}

void vl_image_clear(vl_image *im) {
    free(im->rgb);
    memset(im, 0, sizeof *im);
}
