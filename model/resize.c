/* resize.c: the two antialiased bicubic resizes behind HF's image processors, exact to the bit.
 *
 * Both are separable and integer; each pass rounds to uint8, and a pass that keeps the size is
 * skipped. Output i of an axis is sum_j w[i][j] * in[first[i] + j], with Keys' cubic (a = -0.5)
 * stretched by max(in/out, 1), weights normalised in double and then rounded to fixed point:
 *
 *                    Pillow (Resample.c)              torchvision uint8 on CPU (UpSampleKernel)
 *   fraction bits    22                               the most that keep the largest weight of the
 *                                                     axis below 2^15 (at most 22)
 *   rounding of w    half away from zero              the same
 *   pass order       vertical first if it shrinks     horizontal first, always
 *                    more than twice as much, in
 *                    pixels, as horizontal
 *
 * Easy to get wrong: the order (up to 19 levels), the shared precision of an axis, and float
 * instead of double for the weights.
 */
#include "model/preprocess.h"

#include <math.h>
#include <stdlib.h>

#include "kernels/pixels.h"

typedef struct axis {
    int in, out, taps;     /* taps: the stride of w                      */
    int *first, *count;    /* [out]: which inputs                        */
    int32_t *w;            /* [out, taps], fixed point with `bits`       */
    int bits;
} axis;

static double cubic(double x) {
    x = fabs(x);
    if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
    if (x < 2) return (((x - 5) * x + 8) * x - 4) * -0.5;
    return 0;
}

/* The normalised weights of output i into w; returns the largest. */
static double weights_of(axis *a, int i, double *w) {
    double scale = (double)a->in / a->out, stretch = scale > 1 ? scale : 1;
    double support = 2 * stretch, centre = (i + 0.5) * scale, inverse = 1 / stretch;
    double sum = 0, largest = 0;
    int first = (int)(centre - support + 0.5), last = (int)(centre + support + 0.5);
    if (first < 0) first = 0;
    if (last > a->in) last = a->in;
    a->first[i] = first;
    a->count[i] = last - first;
    vl_assert(a->count[i] > 0 && a->count[i] <= a->taps, "taps %d of %d", a->count[i], a->taps);
    for (int j = 0; j < a->count[i]; j++) sum += w[j] = cubic((j + first - centre + 0.5) * inverse);
    for (int j = 0; j < a->count[i]; j++) {
        w[j] /= sum;
        if (w[j] > largest) largest = w[j];
    }
    return largest;
}

static void axis_free(axis *a) {
    free(a->first);
    free(a->count);
    free(a->w);
}

/* False: no memory; axis_free in either case. */
static bool axis_init(axis *a, int in, int out, bool pil) {
    double scale = (double)in / out;
    *a = (axis){.in = in, .out = out, .taps = 2 * (int)ceil(2 * (scale > 1 ? scale : 1)) + 1};
    size_t n = (size_t)out, taps = (size_t)a->taps;
    a->first = vl_calloc(n, sizeof *a->first);
    a->count = vl_calloc(n, sizeof *a->count);
    a->w = n > SIZE_MAX / taps ? NULL : vl_calloc(n * taps, sizeof *a->w);
    double *w = n > SIZE_MAX / taps ? NULL : vl_calloc(n * taps, sizeof *w);
    if (!a->first || !a->count || !a->w || !w) {
        free(w);
        return false;
    }
    double largest = 0;
    for (int i = 0; i < out; i++) {
        double l = weights_of(a, i, w + (size_t)i * taps);
        if (l > largest) largest = l;
    }
    a->bits = 22;
    for (int bits = 0; !pil && bits < 22; bits++) { /* largest is at most 1.2, so bits > 12 */
        if ((int)(0.5 + largest * (1 << (bits + 1))) < 1 << 15) continue;
        a->bits = bits;
        break;
    }
    for (size_t k = 0; k < n * taps; k++)
        a->w[k] = (int32_t)((w[k] < 0 ? -0.5 : 0.5) + w[k] * (1 << a->bits));
    free(w);
    return true;
}

/* ---- the passes ------------------------------------------------------------------------------ */

/* One pass over a picture, cut into items for threads. */
typedef struct pass {
    uint8_t *dst;
    const uint8_t *src;
    int width, rows;       /* vertical: pixels of a row; horizontal: rows */
    const axis *a;
    uint8_t *tiles;        /* horizontal: of each thread                  */
} pass;

/* Row y of the vertical pass [in, width, 3] -> [out, width, 3] */
static void vertical_row(uint8_t *dst, const uint8_t *src, int width, const axis *a, int y) {
    size_t row = 3 * (size_t)width;
    vl_blend_rows(dst + (size_t)y * row, src + (size_t)a->first[y] * row, row, row,
                  a->w + (size_t)y * (size_t)a->taps, a->count[y], a->bits);
}

enum { BAND = 16 }; /* rows of an item: neighbours share most of their inputs */
static void vertical_item(void *arg, int item, int thread) {
    const pass *p = arg;
    (void)thread;
    for (int y = item * BAND; y < (item + 1) * BAND && y < p->a->out; y++)
        vertical_row(p->dst, p->src, p->width, p->a, y);
}

static void pass_vertical(uint8_t *dst, const uint8_t *src, int width, const axis *a, int threads) {
    pass p = {.dst = dst, .src = src, .width = width, .a = a};
    vl_items((a->out + BAND - 1) / BAND, threads, vertical_item, &p);
}

/* Pixels [rows, cols, 3] with row strides in bytes -> [cols, rows, 3]. */
static void transpose(uint8_t *dst, size_t dst_stride, const uint8_t *src, size_t src_stride,
                      int rows, int cols) {
    for (int y = 0; y < rows; y++, src += src_stride, dst += 3) {
        const uint8_t *s = src;
        uint8_t *d = dst;
        for (int x = 0; x < cols; x++, s += 3, d += dst_stride) memcpy(d, s, 3);
    }
}

/* [rows, in, 3] -> [rows, out, 3]: sixteen rows at a time are turned, so that pixels to be mixed
 * lie below each other, and go through the vertical pass. A tile: [in + out, LANES, 3] bytes. */
enum { LANES = 16 };
static size_t tile_bytes(const axis *a) { return ((size_t)a->in + (size_t)a->out) * 3 * LANES; }

static void horizontal_item(void *arg, int item, int thread) {
    const pass *p = arg;
    const axis *a = p->a;
    size_t in = 3 * (size_t)a->in, out = 3 * (size_t)a->out, strip = 3 * LANES, y = (size_t)item * LANES;
    uint8_t *tile = p->tiles + (size_t)thread * tile_bytes(a), *turned = tile + strip * (size_t)a->in;
    int n = p->rows - item * LANES < LANES ? p->rows - item * LANES : LANES;
    transpose(tile, strip, p->src + y * in, in, n, a->in);
    for (int x = 0; x < a->out; x++) vertical_row(turned, tile, LANES, a, x);
    transpose(p->dst + y * out, out, turned, strip, a->out, n);
}

static void pass_horizontal(uint8_t *dst, const uint8_t *src, int rows, const axis *a, uint8_t *tiles,
                            int threads) {
    pass p = {.dst = dst, .src = src, .rows = rows, .a = a, .tiles = tiles};
    vl_items((rows + LANES - 1) / LANES, threads, horizontal_item, &p);
}

int vl_resize_bicubic(uint8_t *dst, int oh, int ow, const uint8_t *src, int h, int w, bool pil,
                      int threads, vl_err *err) {
    vl_assert(h > 0 && w > 0 && oh > 0 && ow > 0, "%dx%d -> %dx%d", h, w, oh, ow);
    bool vertical = h != oh, horizontal = w != ow;
    bool vertical_first = pil && h > oh && h - oh > 2 * (int64_t)(w - ow);
    axis ax = {0}, ay = {0};
    uint8_t *mid = NULL, *tile = NULL;
    bool ok = true;
    if (horizontal) ok = axis_init(&ax, w, ow, pil);
    if (ok && vertical) ok = axis_init(&ay, h, oh, pil);
    threads = vl_items_threads(threads);
    if (ok && horizontal) ok = (tile = vl_calloc((size_t)threads, tile_bytes(&ax))) != NULL;
    if (ok && horizontal && vertical) {
        size_t bytes = 3 * (vertical_first ? (size_t)oh * (size_t)w : (size_t)h * (size_t)ow);
        ok = (mid = malloc(bytes)) != NULL;
        vl_huge_pages(mid, bytes);
    }
    if (!ok) {
        vl_fail(err, VL_E_NOMEM, "no memory to resize a picture of %dx%d to %dx%d", w, h, ow, oh);
    } else if (mid && vertical_first) {
        pass_vertical(mid, src, w, &ay, threads);
        pass_horizontal(dst, mid, oh, &ax, tile, threads);
    } else if (mid) {
        pass_horizontal(mid, src, h, &ax, tile, threads);
        pass_vertical(dst, mid, ow, &ay, threads);
    } else if (horizontal) {
        pass_horizontal(dst, src, h, &ax, tile, threads);
    } else if (vertical) {
        pass_vertical(dst, src, w, &ay, threads);
    } else {
        memcpy(dst, src, 3 * (size_t)h * (size_t)w);
    }
    axis_free(&ax);
    axis_free(&ay);
    free(mid);
    free(tile);
    return ok ? 0 : -1;
}
