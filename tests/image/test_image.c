/* test_image.c: every golden picture, limits, refusals, and deterministic damage to each sample. */
#include "loader/image.h"

#include <dirent.h>

#include "loader/checkpoint.h"
#include "loader/json.h"
#include "tests/test.h"

#define GOLDEN "tests/golden/images"
enum { MAX_FILES = 200, MAX_BYTES = 1 << 20 };

typedef struct sample { char name[256]; uint8_t *bytes; size_t len; } sample;
static sample samples[MAX_FILES];
static int n_samples;

static void load_samples(void) {
    DIR *dir = opendir(GOLDEN);
    CHECK(dir, "no folder " GOLDEN);
    for (struct dirent *e; dir && (e = readdir(dir)) != NULL && n_samples < MAX_FILES;) {
        char path[400];
        vl_err err = {0};
        sample *s = &samples[n_samples];
        if (e->d_name[0] == '.' || strstr(e->d_name, ".json") || strstr(e->d_name, ".safetensors"))
            continue;
        snprintf(path, sizeof path, GOLDEN "/%s", e->d_name);
        snprintf(s->name, sizeof s->name, "%s", e->d_name);
        CHECK(vl_read_file(path, MAX_BYTES, (char **)&s->bytes, &s->len, &err) == 0, "%s", err.msg);
        n_samples++;
    }
    if (dir) closedir(dir);
    CHECK(n_samples > 80, "only %d samples", n_samples);
}

static const sample *find(const char *name) {
    for (int i = 0; i < n_samples; i++)
        if (strcmp(samples[i].name, name) == 0) return &samples[i];
    CHECK(false, "no sample %s", name);
    return &samples[0];
}

static bool warned(const vl_image *im, const char *warning) {
    for (int i = 0; i < im->n_warnings; i++)
        if (strcmp(im->warnings[i], warning) == 0) return true;
    return false;
}

/* ---- goldens --------------------------------------------------------------------------------- */

static void test_golden(const json_t *manifest, const vl_checkpoint *expected, const sample *s) {
    vl_image im;
    vl_err err = {0};
    const json_t *m = json_object_get(manifest, s->name);
    const vl_tensor *want = vl_checkpoint_find(expected, s->name);
    CHECK(m && want, "%s is not in the manifest or in expected.safetensors", s->name);
    if (!m || !want) return;
    int rc = vl_image_decode(&im, s->bytes, s->len, s->name, NULL, &err);
    CHECK(rc == 0, "%s", err.msg);
    if (rc < 0) return;
    CHECK(im.height == want->shape[0] && im.width == want->shape[1], "%s: %d x %d", s->name,
          im.width, im.height);
    int worst = 0;
    size_t differing = 0;
    for (size_t i = 0; im.height == want->shape[0] && i < want->bytes; i++) {
        int d = abs(im.rgb[i] - ((const uint8_t *)want->data)[i]);
        differing += d != 0;
        if (d > worst) worst = d;
    }
    CHECK(worst == 0, "%s: %zu of %zu values differ, by up to %d", s->name, differing, want->bytes,
          worst);
    CHECK(im.orientation == json_integer_value(json_object_get(m, "orientation")),
          "%s: orientation %d", s->name, im.orientation);
    bool animated = json_integer_value(json_object_get(m, "frames")) > 1;
    CHECK(warned(&im, "animated:first_frame_used") == animated, "%s: animation warning", s->name);
    bool broken_exif = strstr(s->name, "exif-broken") || strstr(s->name, "exif-9");
    CHECK(warned(&im, "exif_malformed") == broken_exif, "%s: EXIF warning", s->name);
    vl_image_clear(&im);
}

static void test_goldens(void) {
    vl_err err = {0};
    vl_checkpoint *expected;
    json_t *manifest = vl_json_load(GOLDEN "/manifest.json", MAX_BYTES, &err);
    CHECK(manifest, "%s", err.msg);
    CHECK(vl_safetensors_open(&expected, GOLDEN "/expected.safetensors", &err) == 0, "%s", err.msg);
    if (!manifest || !expected) return;
    CHECK(json_object_size(manifest) == (size_t)n_samples, "%zu in the manifest, %d files",
          json_object_size(manifest), n_samples);
    for (int i = 0; i < n_samples; i++) test_golden(manifest, expected, &samples[i]);
    vl_checkpoint_free(expected);
    json_decref(manifest);
}

/* Alpha dropped: the hidden colours of a fully transparent picture come out. */
static void test_alpha(void) {
    const sample *s = find("png-invisible.png");
    vl_image white, drop;
    vl_err err = {0};
    vl_picture_params params = {.alpha_drop = true};
    if (vl_image_decode(&white, s->bytes, s->len, s->name, NULL, &err) < 0 ||
        vl_image_decode(&drop, s->bytes, s->len, s->name, &params, &err) < 0) {
        CHECK(false, "%s", err.msg);
        return;
    }
    bool all_white = true, colours = false;
    for (int i = 0; i < 3 * white.width * white.height; i++) {
        all_white &= white.rgb[i] == 255;
        colours |= drop.rgb[i] != 255;
    }
    CHECK(all_white && colours, "white %d, colours %d", all_white, colours);
    vl_image_clear(&white);
    vl_image_clear(&drop);
}

static void expect_pixels(const void *bytes, size_t len, bool drop, const uint8_t *want, size_t n,
                          const char *what) {
    vl_image im;
    vl_err err = {0};
    vl_picture_params params = {.alpha_drop = drop};
    int rc = vl_image_decode(&im, bytes, len, what, &params, &err);
    CHECK(rc == 0 && 3 * (size_t)im.width * (size_t)im.height == n && memcmp(im.rgb, want, n) == 0,
          "%s, drop %d: %s", what, drop, err.msg);
    vl_image_clear(&im);
}

/* A frame of two pixels on a canvas of 4 x 2: around it Pillow shows the first colour, or nothing;
 * the background colour (here 3) plays no part. */
static void test_gif_canvas(void) {
    static const uint8_t C[4][3] = {{10, 20, 30}, {40, 50, 60}, {70, 80, 90}, {1, 2, 3}};
    uint8_t gif[] = "GIF89a\4\0\2\0\x81\3\0" "\12\24\36\50\62\74\106\120\132\1\2\3"
                    "!\xf9\4\1\0\0\1\0" ",\1\0\1\0\2\0\1\0\0" "\2\2\x8c\12\0;";
    for (int transparent = 0; transparent < 2; transparent++)
        for (int drop = 0; drop < 2; drop++) {
            uint8_t want[8][3];
            gif[28] = (uint8_t)transparent; /* the flag; colour 1 is the transparent one */
            for (int i = 0; i < 8; i++) memcpy(want[i], C[transparent], 3);
            memcpy(want[5], C[1], 3);
            if (transparent && !drop) memset(want, 255, sizeof want);
            memcpy(want[6], C[2], 3);
            expect_pixels(gif, sizeof gif - 1, drop, want[0], sizeof want, "GIF canvas");
        }
}

/* An animation with every way to dispose of a frame, a palette of its own and transparent colours, and what
 * Pillow 13 shows of each frame on white (3 x 4 pixels). */
static const char ANIMATION[] =
    "\x47\x49\x46\x38\x39\x61\x03\x00\x04\x00\x82\x04\x00\x0d\x63\x70\xca\x02\x82\xb6\x5b\x0d\x96\x25\xbb\x04\x37\xd9"
    "\xb2\xd8\x31\xc8\x99\x88\x22\xeb\xdc\x2c\x00\x00\x00\x00\x01\x00\x02\x00\x00\x03\x02\x78\x96\x00\x21\xf9\x04\x0d"
    "\x05\x00\x06\x00\x2c\x00\x00\x00\x00\x02\x00\x04\x00\x82\x98\x93\x78\x32\xcb\xf1\x2d\xd5\x11\x08\xd6\x02\xc1\x40"
    "\x71\x3c\xe1\x67\x74\x7b\x43\x2d\xfa\xa9\x03\x06\x48\x33\x22\x82\x55\x09\x00\x2c\x00\x00\x00\x00\x01\x00\x01\x00"
    "\x00\x03\x02\x18\x09\x00\x21\xf9\x04\x08\x05\x00\x02\x00\x2c\x00\x00\x00\x00\x03\x00\x04\x00\x00\x03\x08\x48\x11"
    "\x17\x84\x10\x32\x26\x09\x00\x21\xf9\x04\x05\x05\x00\x07\x00\x2c\x00\x00\x01\x00\x03\x00\x01\x00\x00\x03\x03\x08"
    "\x37\x09\x00\x2c\x00\x00\x00\x00\x02\x00\x02\x00\x00\x03\x03\x58\x50\x96\x00\x3b";
static const char *const FRAMES[] = {
    "\x22\xeb\xdc\x0d\x63\x70\x0d\x63\x70\xc8\x99\x88\x0d\x63\x70\x0d\x63\x70\x0d\x63\x70\x0d\x63\x70\x0d\x63\x70\x0d"
    "\x63\x70\x0d\x63\x70\x0d\x63\x70",
    "\xc1\x40\x71\x08\xd6\x02\x0d\x63\x70\x08\xd6\x02\x2d\xd5\x11\x0d\x63\x70\x2d\xd5\x11\x2d\xd5\x11\x0d\x63\x70\x3c"
    "\xe1\x67\x3c\xe1\x67\x0d\x63\x70",
    "\xca\x02\x82\x0d\x63\x70\x0d\x63\x70\xc8\x99\x88\x0d\x63\x70\x0d\x63\x70\x0d\x63\x70\x0d\x63\x70\x0d\x63\x70\x0d"
    "\x63\x70\x0d\x63\x70\x0d\x63\x70",
    "\x04\x37\xd9\xca\x02\x82\xca\x02\x82\x22\xeb\xdc\xca\x02\x82\x04\x37\xd9\x0d\x63\x70\xca\x02\x82\xb6\x5b\x0d\x96"
    "\x25\xbb\xc8\x99\x88\xb6\x5b\x0d",
    "\x04\x37\xd9\x04\x37\xd9\x04\x37\xd9\x0d\x63\x70\x04\x37\xd9\x96\x25\xbb\x04\x37\xd9\x04\x37\xd9\x04\x37\xd9\x04"
    "\x37\xd9\x04\x37\xd9\x04\x37\xd9",
    "\xb2\xd8\x31\x0d\x63\x70\x04\x37\xd9\xb2\xd8\x31\xc8\x99\x88\x96\x25\xbb\x04\x37\xd9\x04\x37\xd9\x04\x37\xd9\x04"
    "\x37\xd9\x04\x37\xd9\x04\x37\xd9"};

static int decode_frame(vl_image *im, const void *bytes, size_t len, int frame, vl_err *err) {
    vl_picture_params params = {.frame = frame};
    return vl_image_decode(im, bytes, len, "frames", &params, err);
}

static void test_frames(void) {
    enum { N = sizeof FRAMES / sizeof *FRAMES };
    vl_image im, first;
    vl_err err = {0};
    for (int i = 0; i < N; i++) {
        int rc = decode_frame(&im, ANIMATION, sizeof ANIMATION - 1, i, &err);
        CHECK(rc == 0 && im.width == 3 && im.height == 4 && memcmp(im.rgb, FRAMES[i], 36) == 0, "frame %d: %s", i, err.msg);
        CHECK(warned(&im, "animated:first_frame_used") == (i == 0), "frame %d: warning", i);
        vl_image_clear(&im);
    }
    CHECK(decode_frame(&im, ANIMATION, sizeof ANIMATION - 1, N, &err) && strstr(err.msg, "has 6"), "%s", err.msg);
    CHECK(decode_frame(&im, ANIMATION, sizeof ANIMATION - 1, -1, &err) && err.code == VL_E_INPUT, "%s", err.msg);
    CHECK(decode_frame(&im, ANIMATION, sizeof ANIMATION - 3, N - 1, &err) && strstr(err.msg, "cut off"), "%s", err.msg);
    CHECK(decode_frame(&im, ANIMATION, sizeof ANIMATION - 1, INT32_MAX, &err) && err.code == VL_E_LIMIT, "%s", err.msg);
    const sample *w = find("webp-animated.webp"), *png = find("pic-big.jpg");
    CHECK(!decode_frame(&first, w->bytes, w->len, 0, &err) && !decode_frame(&im, w->bytes, w->len, 1, &err), "%s", err.msg);
    CHECK(first.rgb && im.rgb && memcmp(first.rgb, im.rgb, 3 * (size_t)im.width * (size_t)im.height), "WebP: frame 1 is frame 0");
    CHECK(!im.rgb || !warned(&im, "animated:first_frame_used"), "WebP: warning");
    vl_image_clear(&first);
    vl_image_clear(&im);
    CHECK(decode_frame(&im, w->bytes, w->len, 99, &err) && strstr(err.msg, "this WebP has"), "%s", err.msg);
    CHECK(decode_frame(&im, png->bytes, png->len, 1, &err) && strstr(err.msg, "GIF and WebP only"), "%s", err.msg);
}

/* Indices 1, 200 and 0 of a palette of two, 200 being nothing: black, not what lay on the stack. */
static void test_png_short_palette(void) {
    static const uint8_t PNG[] = {
        137, 80, 78, 71, 13, 10, 26, 10, 0, 0, 0, 13, 73, 72, 68, 82, 0, 0, 0, 3, 0, 0, 0, 1, 8,
        3, 0, 0, 0, 44, 62, 228, 134, 0, 0, 0, 6, 80, 76, 84, 69, 10, 20, 30, 40, 50, 60, 213,
        27, 180, 233, 0, 0, 0, 12, 73, 68, 65, 84, 120, 156, 99, 96, 60, 193, 0, 0, 1, 151, 0,
        202, 94, 29, 124, 242, 0, 0, 0, 0, 73, 69, 78, 68, 174, 66, 96, 130};
    static const uint8_t WANT[] = {40, 50, 60, 0, 0, 0, 10, 20, 30};
    expect_pixels(PNG, sizeof PNG, false, WANT, sizeof WANT, "short palette");
}

static void test_pnm_maximum(void) {
    static const uint8_t SEVEN[] = {0, 0, 0, 109, 109, 109, 255, 255, 255};
    static const uint8_t THOUSAND[] = {128, 0, 255}; /* 127.5 to even; more than the maximum */
    expect_pixels("P5 3 1\n# comment\n7\n\0\3\7", 22, false, SEVEN, 9, "maximum 7");
    expect_pixels("P6 1 1 1000\n\1\364\0\0\7\320", 18, false, THOUSAND, 3, "maximum 1000");
}

/* XMP in front of a JPEG without EXIF turns it; one with EXIF is turned by that. */
static void test_xmp(void) {
    static const char XMP[] = "\xff\xe1\0\x3dhttp://ns.adobe.com/xap/1.0/\0"
                              "<a tiff:Orientation=\"6\" xxxx/>";
    static const struct { const char *name; int orientation; } CASES[] = {
        {"jpeg-444.jpg", 6}, {"jpeg-exif3.jpg", 3}, {"jpeg-exif1.jpg", 1},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        const sample *s = find(CASES[i].name);
        size_t n = sizeof XMP - 1;
        uint8_t *file = malloc(s->len + n);
        vl_image im;
        vl_err err = {0};
        memcpy(file, s->bytes, 2);
        memcpy(file + 2, XMP, n);
        memcpy(file + 2 + n, s->bytes + 2, s->len - 2);
        int rc = vl_image_decode(&im, file, s->len + n, s->name, NULL, &err);
        CHECK(rc == 0 && im.orientation == CASES[i].orientation, "%s: %d %s", s->name,
              im.orientation, err.msg);
        vl_image_clear(&im);
        free(file);
    }
}

/* ---- limits and refusals --------------------------------------------------------------------- */

static void expect_error(const void *bytes, size_t len, const vl_picture_params *params, int code,
                         const char *what) {
    vl_image im;
    vl_err err = {0};
    int rc = vl_image_decode(&im, bytes, len, "x.jpg", params, &err);
    CHECK(rc < 0 && err.code == code && (!what || strstr(err.msg, what)),
          "expected code %d with \"%s\": rc %d, code %d, \"%s\"", code, what ? what : "", rc,
          err.code, err.msg);
    CHECK(rc == 0 || !im.rgb, "pixels beside an error");
    vl_image_clear(&im);
}

static void test_limits(void) {
    for (int i = 0; i < n_samples; i++) {
        const sample *s = &samples[i];
        vl_image im;
        vl_err err = {0};
        vl_image_decode(&im, s->bytes, s->len, s->name, NULL, &err);
        int side = im.width > im.height ? im.width : im.height, pixels = im.width * im.height;
        vl_image_clear(&im);
        vl_picture_params exact = {.max_side = side, .max_decoded_pixels = pixels,
                                   .max_bytes = (int64_t)s->len};
        CHECK(vl_image_decode(&im, s->bytes, s->len, s->name, &exact, &err) == 0, "%s", err.msg);
        vl_image_clear(&im);
        vl_picture_params few = {.max_decoded_pixels = pixels - 1}, low = {.max_side = side - 1},
                          small = {.max_bytes = (int64_t)s->len - 1};
        if (pixels > 1) expect_error(s->bytes, s->len, &few, VL_E_LIMIT, "pixels");
        if (side > 1) expect_error(s->bytes, s->len, &low, VL_E_LIMIT, "a side");
        expect_error(s->bytes, s->len, &small, VL_E_LIMIT, "bytes");
    }
}

/* Sizes in the header far beyond the data: refused before anything of that size is allocated. */
static void test_bombs(void) {
    static const uint8_t GIF[] = "GIF89a\xff\xff\xff\xff\0\0\0,";
    static const uint8_t PNM[] = "P6 60000 60000 255\n";
    static const uint8_t HUGE_PNM[] = "P6 99999999999999999999 1 255\n";
    static const uint8_t TGA[24] = {0, 0, 2, [12] = 0xff, 0xff, 0xff, 0xff, 24};
    static const uint8_t BMP[80] = {'B', 'M', [10] = 54, [14] = 40, [18] = 0xff, 0xff, 0xff, 0x7f,
                                    0x00, 0x00, 0x00, 0x80, 1, 0, 24};
    expect_error(GIF, sizeof GIF, NULL, VL_E_LIMIT, NULL);
    expect_error(PNM, sizeof PNM, NULL, VL_E_LIMIT, NULL);
    expect_error(HUGE_PNM, sizeof HUGE_PNM, NULL, VL_E_LIMIT, NULL);
    expect_error(TGA, sizeof TGA, NULL, VL_E_LIMIT, NULL);
    expect_error(BMP, sizeof BMP, NULL, VL_E_LIMIT, NULL);
    expect_error("P5 0 4 255\n    ", 15, NULL, VL_E_INPUT, "empty");
    /* By the ratio of sizes: 5000 x 5000 from 20 bytes; what fits into a screen may be as empty as it likes. */
    static const uint8_t EMPTY[] = "GIF89a\x88\x13\x88\x13\0\0\0,", SCREEN[] = "GIF89a\0\x10\0\x10\0\0\0,";
    vl_picture_params ratio = {.max_ratio = 1000}, ample = {.max_ratio = 5000000};
    expect_error(EMPTY, sizeof EMPTY, &ratio, VL_E_LIMIT, "times as many bytes");
    expect_error(EMPTY, sizeof EMPTY, &ample, VL_E_INPUT, "cut off");
    expect_error(EMPTY, sizeof EMPTY, NULL, VL_E_INPUT, "cut off");
    expect_error(SCREEN, sizeof SCREEN, &ratio, VL_E_INPUT, "cut off");
}

/* The last scan of a progressive file repeated: each costs a walk over the whole picture. */
static void test_scan_bomb(void) {
    const sample *s = find("jpeg-progressive.jpg");
    size_t scan = s->len - 2, n, len = s->len;
    while (scan > 2 && !(s->bytes[scan] == 0xff && s->bytes[scan + 1] == 0xda)) scan--;
    n = s->len - 2 - scan;
    uint8_t *bomb = malloc(s->len + 150 * n);
    memcpy(bomb, s->bytes, s->len - 2);
    for (int i = 0; i < 150; i++, len += n) memcpy(bomb + len - 2, s->bytes + scan, n);
    memcpy(bomb + len - 2, "\xff\xd9", 2);
    expect_error(bomb, len, NULL, VL_E_LIMIT, "too many scans");
    free(bomb);
}

static void test_refusals(void) {
    static const struct { const char *bytes; size_t len; const char *name; } KINDS[] = {
        {"\0\0\0\x18" "ftypheic\0\0\0\0", 16, "HEIC"},
        {"\0\0\0\x18" "ftypavif\0\0\0\0", 16, "AVIF"},
        {"\0\0\0\x18" "ftypmif1\0\0\0\0", 16, "HEIF"},
        {"\0\0\0\x18" "ftypisom\0\0\0\0", 16, "video"},
        {"II*\0\10\0\0\0", 8, "TIFF"},          {"MM\0*\0\0\0\10", 8, "TIFF"},
        {"\0\0\1\0\1\0\20\20\0\0\1\0\40\0\0\0\0\0\0\0", 20, "ICO"},
        {"%PDF-1.7\n", 9, "PDF"},               {"<svg xmlns=\"x\"/>", 16, "SVG"},
        {"<?xml version=\"1.0\"?>\n<!-- c --><svg/>", 39, "SVG"},
        {"\xef\xbb\xbf  <svg/>", 11, "SVG"},    {"<!DOCTYPE html><html>", 21, "HTML"},
        {"8BPS\0\1", 6, "PSD"},                 {"\xff\x0a\x10\x20", 4, "JPEG XL"},
        {"\0\0\0\x0cjP  \r\n\x87\n", 12, "JPEG 2000"}, {"P3 1 1 255 0 0 0", 16, "PNM"},
        {"RIFF\4\0\0\0WAVE", 12, "RIFF"},       {"hello, world", 12, "not a picture"},
        {"PK\3\4zip", 7, "ZIP"},                {"\0", 1, "not a picture"},
    };
    for (size_t i = 0; i < sizeof KINDS / sizeof *KINDS; i++) {
        expect_error(KINDS[i].bytes, KINDS[i].len, NULL, VL_E_UNSUPPORTED, KINDS[i].name);
        expect_error(KINDS[i].bytes, KINDS[i].len, NULL, VL_E_UNSUPPORTED, "JPEG or PNG");
    }
    expect_error("", 0, NULL, VL_E_INPUT, "empty");
}

/* ---- damage ---------------------------------------------------------------------------------- */

/* An error with a message and no pixels, or a whole picture: nothing else. */
static int try_decode(const uint8_t *bytes, size_t len, bool allow_truncated) {
    vl_image im;
    vl_err err = {0};
    vl_picture_params params = {.allow_truncated = allow_truncated, .max_decoded_pixels = 4000000};
    uint8_t *exact = malloc(len ? len : 1); /* so that a sanitizer sees reads past the end */
    memcpy(exact, bytes, len);
    int rc = vl_image_decode(&im, exact, len, "damaged", &params, &err);
    if (rc == 0) {
        uint32_t sum = 0;
        for (int i = 0; i < 3 * im.width * im.height; i++) sum += im.rgb[i];
        rc = im.width > 0 && im.height > 0 && sum < UINT32_MAX ? 0 : -2;
    } else if (!err.code || !err.msg[0] || im.rgb) {
        rc = -2;
    }
    vl_image_clear(&im);
    free(exact);
    return rc;
}

static void test_truncation(const sample *s) {
    int bad = 0, accepted = 0;
    for (int i = 0; i < 40; i++) {
        int rc = try_decode(s->bytes, s->len * (size_t)i / 40, false);
        bad += rc == -2;
        accepted += rc == 0;
        bad += try_decode(s->bytes, s->len * (size_t)i / 40, true) == -2;
    }
    /* A GIF or TGA may be whole long before the file's end: trailer, later frames, footer. */
    bool tail = strstr(s->name, ".gif") || strstr(s->name, ".tga");
    CHECK(bad == 0, "%s: %d results that are neither", s->name, bad);
    CHECK(tail || accepted == 0, "%s: %d cut-off files were accepted", s->name, accepted);
}

static void test_bit_flips(const sample *s) {
    vl_rng rng;
    vl_rng_seed(&rng, s->len);
    uint8_t *copy = malloc(s->len);
    int bad = 0, runs = s->len < 20000 ? 150 : 10;
    for (int i = 0; i < runs; i++) {
        memcpy(copy, s->bytes, s->len);
        for (uint64_t k = 1 + vl_rng_u64(&rng) % 4; k > 0; k--) { /* half of them in the header */
            uint64_t at = vl_rng_u64(&rng) % (k % 2 && s->len > 64 ? 64 : s->len);
            copy[at] ^= (uint8_t)(1u << (vl_rng_u64(&rng) % 8));
        }
        bad += try_decode(copy, s->len, i % 2) == -2;
    }
    free(copy);
    CHECK(bad == 0, "%s: %d results that are neither", s->name, bad);
}

static void test_allow_truncated(void) {
    const sample *s = find("pic-big.jpg");
    vl_image whole, part;
    vl_err err = {0};
    vl_picture_params params = {.allow_truncated = true};
    size_t cut = s->len - s->len / 4;
    expect_error(s->bytes, cut, NULL, VL_E_INPUT, "cut off");
    if (vl_image_decode(&whole, s->bytes, s->len, s->name, NULL, &err) < 0 ||
        vl_image_decode(&part, s->bytes, cut, s->name, &params, &err) < 0) {
        CHECK(false, "%s", err.msg);
        return;
    }
    CHECK(warned(&part, "truncated") && !warned(&whole, "truncated"), "warning");
    CHECK(memcmp(whole.rgb, part.rgb, 3 * (size_t)whole.width) == 0, "the first row differs");
    vl_image_clear(&whole);
    vl_image_clear(&part);
}

int main(void) {
    load_samples();
    test_goldens();
    test_alpha();
    test_gif_canvas();
    test_frames();
    test_png_short_palette();
    test_pnm_maximum();
    test_xmp();
    test_limits();
    test_bombs();
    test_scan_bomb();
    test_refusals();
    test_allow_truncated();
    for (int i = 0; i < n_samples; i++) {
        test_truncation(&samples[i]);
        test_bit_flips(&samples[i]);
    }
    for (int i = 0; i < n_samples; i++) free(samples[i].bytes);
    return test_end();
}
