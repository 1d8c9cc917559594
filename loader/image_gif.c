/* image_gif.c: GIF. The blocks are walked first, since stb_image reads zeros past the end of the file and
 * puts animations together in its own way. It is given one frame at a time, as a file of its own, and
 * draws that on an empty canvas; what lies below is Pillow's doing, done again here.
 */
#include "loader/image_decode.h"

#include <stdlib.h>

typedef struct gif_frame {
    size_t at, end;            /* from its descriptor to past its data; end 0: cut off */
    int transparent;           /* its colour index, or -1                              */
    int disposal;              /* 2: its place becomes background after it, 3 and more: what was there before */
    int left, top, right, bottom;
    size_t table, table_bytes; /* its colours                                          */
} gif_frame;

/* Past the sub-blocks at `at`, or 0 if the file ends before them. */
static size_t skip_sub_blocks(const vl_decode *d, size_t at) {
    while (at < d->len) {
        size_t n = d->bytes[at++];
        if (n == 0) return at;
        at += n;
    }
    return 0;
}

static size_t table_bytes(uint8_t flags) { return flags & 0x80 ? (size_t)6 << (flags & 7) : 0; }

/* The image descriptor at f->at. */
static void read_descriptor(gif_frame *f, const vl_decode *d) {
    const uint8_t *p = d->bytes + f->at;
    f->left = (int)vl_get16(p + 1, false);
    f->top = (int)vl_get16(p + 3, false);
    f->right = f->left + (int)vl_get16(p + 5, false);
    f->bottom = f->top + (int)vl_get16(p + 7, false);
    f->table = p[9] & 0x80 ? f->at + 10 : 13;
    f->table_bytes = table_bytes(p[9] & 0x80 ? p[9] : d->bytes[10]);
    size_t data = f->at + 10 + table_bytes(p[9]) + 1; /* and the code size */
    f->end = data < d->len ? skip_sub_blocks(d, data) : 0;
}

/* The frame whose blocks begin at `at`; false: the trailer, the end, or what does not belong here. A
 * disposal of 0 is "not said": that of the frame before holds, as in Pillow. */
static bool next_frame(gif_frame *f, const vl_decode *d, size_t at) {
    f->transparent = -1;
    while (at && at < d->len) {
        const uint8_t *p = d->bytes + at;
        size_t left = d->len - at;
        if (p[0] == 0x2c && left > 10) {
            f->at = at;
            read_descriptor(f, d);
            return true;
        }
        if (p[0] != 0x21) return false;
        if (left > 6 && p[1] == 0xf9) {
            if (p[3] & 1) f->transparent = p[6];
            if (p[3] >> 2 & 7) f->disposal = p[3] >> 2 & 7;
        }
        at = skip_sub_blocks(d, at + 2);
    }
    return false;
}

static bool frame_is_whole(const gif_frame *f, const vl_decode *d) {
    return f->end && f->table + f->table_bytes <= d->len;
}

/* The colour with this index and opacity; black where the table ends before it. */
static void colour_of(uint8_t out[4], const gif_frame *f, const vl_decode *d, int index, uint8_t alpha) {
    size_t entry = 3 * (size_t)index;
    memset(out, 0, 3);
    if (entry < f->table_bytes) memcpy(out, d->bytes + f->table + entry, 3);
    out[3] = alpha;
}

/* One frame alone -> d->pixels, RGBA; opacity 0 where it draws nothing. */
static int draw_alone(vl_decode *d, const gif_frame *f) {
    const uint8_t *b = d->bytes;
    size_t len = d->len, head = 13 + table_bytes(b[10]), body = f->end - f->at, at = head;
    uint8_t *one = malloc(head + 8 + body + 1);
    if (!one) return vl_decode_no_memory(d);
    memcpy(one, b, head);
    one[11] = 0;                       /* background colour, or stb_image would paint with it */
    if (f->transparent >= 0) {
        const uint8_t control[8] = {0x21, 0xf9, 4, 1, 0, 0, (uint8_t)f->transparent, 0};
        memcpy(one + at, control, sizeof control);
        at += sizeof control;
    }
    memcpy(one + at, b + f->at, body);
    at += body;
    one[at++] = 0x3b;
    d->bytes = one;
    d->len = at;
    int rc = vl_decode_stb(d, "GIF");
    d->bytes = b;
    d->len = len;
    free(one);
    return rc == 0 && d->channels != 4 ? vl_decode_broken(d, "GIF") : rc;
}

static bool inside(const gif_frame *f, int x, int y) {
    return x >= f->left && x < f->right && y >= f->top && y < f->bottom;
}

/* What the first frame does not draw: transparent, or the first colour around the frame. False: the data
 * of the frame ended before it was full. */
static bool fill_first(vl_decode *d, const gif_frame *f) {
    uint8_t colour[4], *p = d->pixels;
    colour_of(colour, f, d, f->transparent < 0 ? 0 : f->transparent, f->transparent < 0 ? 255 : 0);
    for (int y = 0; y < d->height; y++)
        for (int x = 0; x < d->width; x++, p += 4) {
            bool in = inside(f, x, y);
            if (in && p[3]) continue;
            if (in && f->transparent < 0) return false;
            memcpy(p, colour, 4);
        }
    return true;
}

/* ---- a later frame --------------------------------------------------------------------------- */

/* opaque: Pillow's canvas has no alpha when the first frame has no transparent colour. */
typedef struct canvas { uint8_t *now, *before; bool opaque; } canvas;

/* After the frame was seen. */
static void dispose(canvas *c, const vl_decode *d, const gif_frame *f) {
    uint8_t colour[4];
    bool clear = f->transparent >= 0;
    int background = d->bytes[10] & 0x80 ? d->bytes[11] : 0;
    if (f->disposal < 2) return;
    if (3 * (size_t)background >= f->table_bytes) background = 0;
    colour_of(colour, f, d, clear ? f->transparent : background, clear && !c->opaque ? 0 : 255);
    for (int y = f->top; y < f->bottom; y++)
        for (int x = f->left; x < f->right; x++) {
            size_t at = 4 * ((size_t)y * (size_t)d->width + (size_t)x);
            memcpy(c->now + at, f->disposal == 2 ? colour : c->before + at, 4);
        }
}

/* The frame over what is there; false: its data ended before it was full. */
static bool draw_over(canvas *c, const vl_decode *d, const gif_frame *f) {
    for (int y = f->top; y < f->bottom; y++)
        for (int x = f->left; x < f->right; x++) {
            size_t at = 4 * ((size_t)y * (size_t)d->width + (size_t)x);
            if (d->pixels[at + 3]) memcpy(c->now + at, d->pixels + at, 4);
            else if (f->transparent < 0) return false;
        }
    return true;
}

/* From the first frame, in c->now and f, to frame d->frame. */
static int play(vl_decode *d, canvas *c, gif_frame *f) {
    size_t bytes = 4 * (size_t)d->width * (size_t)d->height;
    int said = f->disposal;
    c->opaque = f->transparent < 0;
    /* Nothing was there before the first frame: it stays, or goes if it has a transparent colour. */
    if (said >= 3) f->disposal = f->transparent < 0 ? 1 : 2;
    for (int k = 1; k <= d->frame; k++) {
        dispose(c, d, f);
        if (k == 1) f->disposal = said;
        if (!next_frame(f, d, f->end))
            return vl_fail(d->err, VL_E_INPUT, "%s: frame %d was asked for, and this GIF has %d (the first is 0)", d->name,
                           d->frame, k);
        if (!frame_is_whole(f, d)) return vl_decode_truncated(d, "GIF");
        if (draw_alone(d, f) < 0) return -1;
        if (f->disposal >= 3) memcpy(c->before, c->now, bytes);
        bool whole = draw_over(c, d, f);
        free(d->pixels);
        d->pixels = NULL;
        if (!whole) return vl_decode_truncated(d, "GIF");
    }
    return 0;
}

static int later_frame(vl_decode *d, gif_frame *f) {
    canvas c = {.now = d->pixels, .before = malloc(4 * (size_t)d->width * (size_t)d->height)};
    d->pixels = NULL;
    int rc = c.before ? play(d, &c, f) : vl_decode_no_memory(d);
    free(c.before);
    free(d->pixels);
    d->pixels = c.now;                 /* freed by image.c, after failures too */
    return rc;
}

int vl_decode_gif(vl_decode *d) {
    const uint8_t *b = d->bytes;
    gif_frame f = {0}, second = {0};
    if (d->len < 13) return vl_decode_truncated(d, "GIF");
    if (vl_decode_size(d, vl_get16(b + 6, false), vl_get16(b + 8, false)) < 0) return -1;
    if (!next_frame(&f, d, 13 + table_bytes(b[10])) || !frame_is_whole(&f, d)) return vl_decode_truncated(d, "GIF");
    if (!d->frame && next_frame(&second, d, f.end)) vl_decode_warn(d, "animated:first_frame_used");
    if (draw_alone(d, &f) < 0) return -1;
    if (!fill_first(d, &f)) return vl_decode_truncated(d, "GIF");
    return d->frame ? later_frame(d, &f) : 0;
}
