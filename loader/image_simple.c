/* image_simple.c: BMP, TGA and PNM. The header is checked against the length of the file,
 * since stb_image reads zeros past the end; then stb_image decodes, except where it goes wrong: BMP
 * with a palette (uninitialised colours) and PNM (it ignores the maximum value).
 */
#include "loader/image_decode.h"

#include <math.h>
#include <stdlib.h>

/* ---- BMP ------------------------------------------------------------------------------------- */

/* stb_image repeats bits to widen 5- and 6-bit samples; Pillow scales and rounds down. */
static void rescale_16_bit(vl_decode *d, bool green6) {
    size_t n = 3 * (size_t)d->width * (size_t)d->height;
    for (size_t i = 0; i < n; i++) {
        int v = d->pixels[i];
        d->pixels[i] = (uint8_t)(green6 && i % 3 == 1 ? (v >> 2) * 255 / 63 : (v >> 3) * 255 / 31);
    }
}

/* The fourth byte of 32-bit pixels is alpha only where a mask says so. */
static void drop_alpha(vl_decode *d) {
    size_t n = (size_t)d->width * (size_t)d->height;
    for (size_t i = 0; i < n; i++) d->pixels[4 * i + 3] = 255;
}

typedef struct bmp {
    size_t header, pixels;     /* bytes of the second header; where the pixels begin */
    uint32_t bits, compression, colours;
    bool core, top_down;       /* core: the 12-byte header of OS/2                   */
} bmp;
enum { BI_RGB = 0, BI_RLE8 = 1, BI_RLE4 = 2, BI_BITFIELDS = 3 };

static int bmp_header(bmp *m, vl_decode *d) {
    const uint8_t *b = d->bytes;
    if (d->len < 26) return vl_decode_truncated(d, "BMP");
    *m = (bmp){.header = vl_get32(b + 14, false), .pixels = vl_get32(b + 10, false)};
    m->core = m->header == 12;
    if (!m->core && d->len < 54) return vl_decode_truncated(d, "BMP");
    int64_t width = m->core ? (int64_t)vl_get16(b + 18, false) : (int32_t)vl_get32(b + 18, false);
    int64_t height = m->core ? (int64_t)vl_get16(b + 20, false) : (int32_t)vl_get32(b + 22, false);
    m->bits = vl_get16(b + (m->core ? 24 : 28), false);
    m->compression = m->core ? BI_RGB : vl_get32(b + 30, false);
    m->colours = m->core ? 0 : vl_get32(b + 46, false);
    m->top_down = height < 0;
    if (vl_decode_size(d, width, height < 0 ? -height : height) < 0) return -1;
    if (m->compression == BI_RLE8 || m->compression == BI_RLE4)
        return vl_fail(d->err, VL_E_UNSUPPORTED, "%s: run-length encoded BMP is not supported; "
                       "convert it to JPEG or PNG", d->name);
    bool masks = m->compression == BI_BITFIELDS;
    if (m->compression != BI_RGB && !masks) return vl_decode_broken(d, "BMP");
    if (masks && d->len < 70) return vl_decode_truncated(d, "BMP");
    size_t bits = (size_t)d->width * m->bits, stride = (bits + 31) / 32 * 4;
    if (m->pixels > d->len ||
        stride * ((size_t)d->height - 1) + (bits + 7) / 8 > d->len - m->pixels)
        return vl_decode_truncated(d, "BMP");
    return 0;
}

/* Palettes are read here: stb_image leaves the colours that a short one lacks uninitialised, and
 * the last four of a core header's. */
static int bmp_palette(vl_decode *d, const bmp *m) {
    uint8_t palette[256][3] = {{0}};
    size_t at = 14 + m->header, entry = m->core ? 3 : 4, n = (size_t)1 << m->bits;
    if (m->colours && m->colours < n) n = m->colours;
    if (at > m->pixels || at < 14) return vl_decode_broken(d, "BMP");
    if (n > (m->pixels - at) / entry) n = (m->pixels - at) / entry;
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < 3; k++) palette[i][k] = d->bytes[at + i * entry + 2 - k];
    size_t w = (size_t)d->width, h = (size_t)d->height, stride = (w * m->bits + 31) / 32 * 4;
    d->channels = 3;
    d->pixels = malloc(3 * w * h);
    if (!d->pixels) return vl_decode_no_memory(d);
    uint8_t *p = d->pixels;
    for (size_t y = 0; y < h; y++) {
        const uint8_t *row = d->bytes + m->pixels + stride * (m->top_down ? y : h - 1 - y);
        for (size_t x = 0; x < w; x++, p += 3) {
            size_t bit = x * m->bits, shift = 8 - m->bits - bit % 8;
            memcpy(p, palette[((uint32_t)row[bit / 8] >> shift) & ((1u << m->bits) - 1)], 3);
        }
    }
    return 0;
}

int vl_decode_bmp(vl_decode *d) {
    const uint8_t *b = d->bytes;
    bmp m;
    if (bmp_header(&m, d) < 0) return -1;
    if (m.bits == 1 || m.bits == 4 || m.bits == 8) return bmp_palette(d, &m);
    if (vl_decode_stb(d, "BMP") < 0) return -1;
    bool masks = m.compression == BI_BITFIELDS, green6 = masks && vl_get32(b + 58, false) == 0x7e0;
    bool alpha = masks && m.header >= 56 && vl_get32(b + 66, false);
    if (d->channels == 4 && !alpha) drop_alpha(d);
    if (d->channels == 3 && m.bits == 16) rescale_16_bit(d, green6);
    return 0;
}

/* ---- TGA ------------------------------------------------------------------------------------- */

typedef struct tga {
    uint32_t map_length, width, height, bits;
    size_t data;               /* where the pixels begin */
    bool mapped, packed, mirrored;
} tga;

static bool tga_header(tga *t, const uint8_t *b, size_t len) {
    if (len < 18) return false;
    int kind = b[2] & 7;
    *t = (tga){.map_length = vl_get16(b + 5, false), .width = vl_get16(b + 12, false),
               .height = vl_get16(b + 14, false), .bits = b[16], .mapped = b[1] == 1,
               .packed = b[2] & 8, .mirrored = b[17] & 0x10};
    if (b[1] > 1 || (b[2] & ~11) || kind < 1 || kind > 3 || (b[17] & 0xc0)) return false;
    if (t->width == 0 || t->height == 0 || t->mapped != (kind == 1)) return false;
    uint32_t map_bits = b[7], depth = t->bits;
    bool map_ok = t->mapped ? t->map_length > 0 && vl_get16(b + 3, false) == 0 &&
                              (map_bits == 16 || map_bits == 24 || map_bits == 32)
                            : t->map_length == 0 && map_bits == 0;
    bool depth_ok = kind == 1 ? depth == 8
                    : kind == 3 ? depth == 8 || depth == 16
                                : depth == 15 || depth == 16 || depth == 24 || depth == 32;
    t->data = 18 + (size_t)b[0] + (t->mapped ? t->map_length * ((map_bits + 7) / 8) : 0);
    return map_ok && depth_ok && t->data < len;
}

bool vl_looks_like_tga(const uint8_t *bytes, size_t len) {
    tga t;
    return tga_header(&t, bytes, len);
}

/* All pixels are in the file: by length, or by the run lengths. */
static bool tga_complete(const tga *t, const uint8_t *b, size_t len) {
    size_t need = (size_t)t->width * t->height, bytes = (t->bits + 7) / 8, at = t->data;
    if (!t->packed) return need * bytes <= len - at;
    while (need > 0 && at < len) {
        size_t n = (size_t)(b[at] & 127) + 1, stored = b[at] & 128 ? bytes : n * bytes;
        if (stored > len - at - 1) return false;
        at += 1 + stored;
        need -= n < need ? n : need;
    }
    return need == 0;
}

int vl_decode_tga(vl_decode *d) {
    tga t;
    if (!tga_header(&t, d->bytes, d->len)) return vl_decode_broken(d, "TGA");
    if (vl_decode_size(d, t.width, t.height) < 0) return -1;
    if (!tga_complete(&t, d->bytes, d->len)) return vl_decode_truncated(d, "TGA");
    if (vl_decode_stb(d, "TGA") < 0) return -1;
    size_t n = (size_t)d->channels;
    for (size_t y = 0; t.mirrored && y < t.height; y++) {
        uint8_t *left = d->pixels + y * t.width * n, *right = left + (t.width - 1) * n;
        for (; left < right; left += n, right -= n)
            for (size_t k = 0; k < n; k++) {
                uint8_t swap = left[k];
                left[k] = right[k];
                right[k] = swap;
            }
    }
    return 0;
}

/* ---- PNM ------------------------------------------------------------------------------------- */

static bool is_space(uint8_t c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

/* A decimal number after white space and comments; 0 where there is none, too. */
static uint32_t pnm_number(const vl_decode *d, size_t *at) {
    uint32_t v = 0;
    while (*at < d->len && (is_space(d->bytes[*at]) || d->bytes[*at] == '#')) {
        if (d->bytes[*at] == '#')
            while (*at < d->len && d->bytes[*at] != '\n') ++*at;
        else
            ++*at;
    }
    while (*at < d->len && d->bytes[*at] >= '0' && d->bytes[*at] <= '9' && v < 100000000)
        v = 10 * v + (uint32_t)(d->bytes[(*at)++] - '0');
    return v;
}

int vl_decode_pnm(vl_decode *d) {
    size_t at = 2;
    uint32_t width = pnm_number(d, &at), height = pnm_number(d, &at), max = pnm_number(d, &at);
    if (at >= d->len) return vl_decode_truncated(d, "PNM");
    if (max < 1 || max > 65535 || !is_space(d->bytes[at++])) return vl_decode_broken(d, "PNM");
    if (vl_decode_size(d, width, height) < 0) return -1;
    d->channels = d->bytes[1] == '5' ? 1 : 3;
    size_t n = (size_t)width * height * (size_t)d->channels, wide = max > 255;
    if (n > (d->len - at) >> wide) return vl_decode_truncated(d, "PNM");
    d->pixels = malloc(n);
    if (!d->pixels) return vl_decode_no_memory(d);
    const uint8_t *s = d->bytes + at;
    for (size_t i = 0; i < n; i++) {
        uint32_t v = wide ? vl_get16(s + 2 * i, true) : s[i];
        double scaled = nearbyint((double)v / max * 255);
        d->pixels[i] = (uint8_t)(scaled < 255 ? scaled : 255);
    }
    return 0;
}
