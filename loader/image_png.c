/* image_png.c: the chunks of a PNG file are walked and checked here (order of size, CRC, end), and
 * the pixels come from stb_image, which checks neither CRCs nor the end. 16-bit samples become
 * v >> 8; gamma and profiles are ignored, as Pillow ignores them.
 */
#include "loader/image_decode.h"

#include <stdlib.h>

static uint32_t crc32_of(const uint8_t *p, size_t n) {
    uint32_t crc = 0xffffffffu;
    static const uint32_t NIBBLE[16] = { /* the reflected polynomial 0xedb88320, four bits a step */
        0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4, 0x4db26158,
        0x5005713c, 0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c, 0x9b64c2b0, 0x86d3d2d4,
        0xa00ae278, 0xbdbdf21c,
    };
    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        crc = crc >> 4 ^ NIBBLE[crc & 15];
        crc = crc >> 4 ^ NIBBLE[crc & 15];
    }
    return ~crc;
}

typedef struct png {
    bool indexed;
    size_t colours;            /* that the bit depth can name                     */
    size_t palette, entries;   /* where the PLTE chunk begins (0: none); its size */
} png;

static int on_chunk(vl_decode *d, png *f, size_t at, const uint8_t *chunk, size_t n) {
    const char *type = (const char *)chunk + 4;
    const uint8_t *data = chunk + 8;
    if (memcmp(type, "IHDR", 4) == 0) {
        if (n != 13 || at != 8) return vl_decode_broken(d, "PNG");
        f->indexed = data[9] == 3;
        f->colours = data[8] < 8 ? (size_t)1 << data[8] : 256;
        return vl_decode_size(d, vl_get32(data, true), vl_get32(data + 4, true));
    }
    if (memcmp(type, "PLTE", 4) == 0) {
        if (f->palette || n % 3) return vl_decode_broken(d, "PNG");
        f->palette = at;
        f->entries = n / 3;
    }
    if (memcmp(type, "eXIf", 4) == 0) vl_decode_exif(d, data, n);
    if (memcmp(type, "iTXt", 4) == 0 && n > 18 && memcmp(data, "XML:com.adobe.xmp", 18) == 0)
        vl_decode_xmp(d, data, n);
    if (memcmp(type, "iCCP", 4) == 0) vl_decode_warn(d, "icc_ignored");
    if (memcmp(type, "acTL", 4) == 0 && n == 8 && vl_get32(data, true) > 1)
        vl_decode_warn(d, "animated:first_frame_used");
    return 0;
}

/* stb_image reads uninitialised colours where an index is beyond the palette: it gets a file whose
 * palette is filled up with black. */
static int decode_short_palette(vl_decode *d, const png *f) {
    const uint8_t *file = d->bytes;
    size_t len = d->len, more = 3 * (f->colours - f->entries);
    size_t end = f->palette + 8 + 3 * f->entries;
    uint32_t n = (uint32_t)(3 * f->colours);
    uint8_t *copy = malloc(len + more);
    if (!copy) return vl_decode_no_memory(d);
    memcpy(copy, file, end);
    memset(copy + end, 0, more);
    memcpy(copy + end + more, file + end, len - end); /* the CRC is wrong now: nobody looks */
    for (int i = 0; i < 4; i++) copy[f->palette + (size_t)i] = (uint8_t)(n >> (24 - 8 * i));
    d->bytes = copy;
    d->len = len + more;
    int rc = vl_decode_stb(d, "PNG");
    d->bytes = file;
    d->len = len;
    free(copy);
    return rc;
}

int vl_decode_png(vl_decode *d) {
    size_t at = 8;
    png f = {0};
    for (const char *type = "none"; memcmp(type, "IEND", 4) != 0;) {
        if (d->len - at < 12) return vl_decode_truncated(d, "PNG");
        const uint8_t *chunk = d->bytes + at;
        size_t n = vl_get32(chunk, true);
        if (at == 8 && memcmp(chunk + 4, "IHDR", 4) != 0) return vl_decode_broken(d, "PNG");
        if (n > d->len - at - 12) return vl_decode_truncated(d, "PNG");
        if (crc32_of(chunk + 4, n + 4) != vl_get32(chunk + 8 + n, true))
            return vl_decode_broken(d, "PNG");
        type = (const char *)chunk + 4;
        if (on_chunk(d, &f, at, chunk, n) < 0) return -1;
        at += 12 + n;
    }
    bool fill = f.indexed && f.palette && f.entries < f.colours;
    return fill ? decode_short_palette(d, &f) : vl_decode_stb(d, "PNG");
}
