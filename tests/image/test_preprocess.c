/* test_preprocess.c: sizes, both bicubics, normalisation, patch order and whole processors against
 * the vectors HF computed (tests/golden/preprocess), and the table of known sizes. */
#include "model/preprocess.h"

#include <sys/stat.h>
#include <unistd.h>

#include "kernels/pixels.h"
#include "loader/checkpoint.h"
#include "loader/json.h"
#include "tests/test.h"

#define GOLDEN "tests/golden/preprocess"

/* ---- sizes ----------------------------------------------------------------------------------- */

static void check_size(int h, int w, int factor, int64_t min, int64_t max, int want_h, int want_w) {
    int oh = 0, ow = 0;
    vl_err err = {0};
    int rc = vl_smart_resize(h, w, factor, min, max, &oh, &ow, &err);
    if (want_h == 0)
        CHECK(rc < 0 && err.code == VL_E_INPUT &&
                  strstr(err.msg, h && w ? "aspect ratio" : "empty"), "%dx%d: %s", h, w, err.msg);
    else
        CHECK(rc == 0 && oh == want_h && ow == want_w, "%dx%d: %dx%d, expected %dx%d %s", h, w, oh,
              ow, want_h, want_w, err.msg);
}

static void test_known_sizes(void) {
    enum { ANY = 1 << 30 };
    static const int BANKERS[][2] = {{48, 64}, {80, 64}, {112, 128}, {144, 128}, {176, 192},
                                     {336, 320}, {400, 384}, {464, 448}};
    for (size_t i = 0; i < sizeof BANKERS / sizeof *BANKERS; i++)
        check_size(BANKERS[i][0], BANKERS[i][0], 32, 1, ANY, BANKERS[i][1], BANKERS[i][1]);
    /* in; under HF's default limits, max_pixels 448*448, and 256..1280 tokens; 0: refused */
    static const int TABLE[][8] = {
        {1, 1, 256, 256, 256, 256, 512, 512},
        {27, 257, 96, 800, 96, 800, 192, 1600},
        {30, 305, 96, 832, 96, 832, 192, 1664},
        {80, 4000, 64, 4000, 32, 3136, 96, 3648},
        {224, 224, 256, 256, 256, 256, 512, 512},
        {240, 400, 256, 384, 256, 384, 416, 672},
        {272, 92, 448, 160, 448, 160, 896, 320},
        {336, 336, 320, 320, 320, 320, 512, 512},
        {375, 512, 384, 512, 384, 512, 448, 608},
        {400, 400, 384, 384, 384, 384, 512, 512},
        {448, 448, 448, 448, 448, 448, 512, 512},
        {464, 464, 448, 448, 448, 448, 512, 512},
        {480, 640, 480, 640, 384, 512, 480, 640},
        {690, 15420, 704, 15424, 64, 2112, 224, 5408},
        {50, 9999, 64, 9984, 32, 6304, 64, 9984},
        {50, 10000, 64, 9984, 32, 6304, 64, 9984},
        {50, 10001, 0, 0, 0, 0, 0, 0},
        {720, 1280, 704, 1280, 320, 576, 704, 1280},
        {1080, 1920, 1088, 1920, 320, 576, 832, 1504},
        {1365, 2048, 1376, 2048, 352, 544, 928, 1376},
        {4032, 3024, 4032, 3008, 512, 384, 1312, 960},
        {8192, 8192, 4096, 4096, 448, 448, 1120, 1120},
    };
    for (size_t i = 0; i < sizeof TABLE / sizeof *TABLE; i++) {
        const int *t = TABLE[i];
        check_size(t[0], t[1], 32, 65536, 16777216, t[2], t[3]);
        check_size(t[0], t[1], 32, 65536, 448 * 448, t[4], t[5]);
        check_size(t[0], t[1], 32, 256 * 1024, 1280 * 1024, t[6], t[7]);
    }
    check_size(1, 10000, 32, 65536, 16777216, 0, 0);
    int oh, ow;
    vl_err err;
    CHECK(vl_smart_resize(0, 5, 32, 1, 9, &oh, &ow, &err) < 0 && err.code == VL_E_INPUT, "no rows");
    CHECK(vl_smart_resize(5, 5, 32, 0, 9, &oh, &ow, &err) < 0 && err.code == VL_E_USAGE, "no min");
    CHECK(vl_smart_resize(5, 5, 32, 1LL << 50, 1LL << 51, &oh, &ow, &err) < 0 &&
              err.code == VL_E_LIMIT, "an enormous minimum");
}

static void test_golden_sizes(void) {
    FILE *f = fopen(GOLDEN "/smart_resize.txt", "r");
    char line[200], result[32];
    int n = 0, h, w, factor, want_h, want_w;
    long min, max;
    CHECK(f, "no smart_resize.txt");
    while (f && fgets(line, sizeof line, f)) {
        if (line[0] == '#') continue;
        want_h = want_w = 0;
        int got = sscanf(line, "%d %d %d %ld %ld -> %31s %d", &h, &w, &factor, &min, &max, result,
                         &want_w);
        CHECK(got == 7 || (got == 6 && strcmp(result, "error") == 0), "line: %s", line);
        if (got == 7) want_h = atoi(result);
        check_size(h, w, factor, min, max, want_h, want_w);
        n++;
    }
    CHECK(n > 400, "only %d sizes", n);
    if (f) fclose(f);
}

/* ---- pixels ---------------------------------------------------------------------------------- */

static const vl_tensor *numbered(const vl_checkpoint *c, int i, const char *what) {
    char name[64];
    snprintf(name, sizeof name, "%d.%s", i, what);
    return vl_checkpoint_find(c, name);
}

static const char *const BACKEND[] = {"torchvision", "pil"};

static void test_resize(void) {
    vl_checkpoint *c;
    vl_err err = {0};
    CHECK(vl_safetensors_open(&c, GOLDEN "/resize.safetensors", &err) == 0, "%s", err.msg);
    int n = 0;
    for (const vl_tensor *in; c && (in = numbered(c, n, "in")) != NULL; n++) {
        for (int pil = 0; pil < 2; pil++) {
            const vl_tensor *want = numbered(c, n, BACKEND[pil]);
            CHECK(want, "no %d.%s", n, BACKEND[pil]);
            if (!want) continue;
            uint8_t *got = malloc(want->bytes);
            int rc = vl_resize_bicubic(got, (int)want->shape[0], (int)want->shape[1], in->data,
                                       (int)in->shape[0], (int)in->shape[1], pil, 1 + n % 3, &err);
            CHECK(rc == 0 && memcmp(got, want->data, want->bytes) == 0,
                  "%s: %dx%d -> %dx%d differs", BACKEND[pil], (int)in->shape[0],
                  (int)in->shape[1], (int)want->shape[0], (int)want->shape[1]);
            free(got);
        }
    }
    CHECK(n > 10, "only %d resizes", n);
    vl_checkpoint_free(c);
}

/* Every byte value, as a picture of one row of 256 patches of one pixel. */
static void test_normalise(void) {
    static const vl_preprocess_config ONE = {.patch_size = 1, .temporal_patch_size = 1,
                                             .merge_size = 1, .mean = {0.5f, 0.5f, 0.5f},
                                             .std = {0.5f, 0.5f, 0.5f}, .rescale = 1.0 / 255};
    vl_checkpoint *c;
    vl_err err = {0};
    CHECK(vl_safetensors_open(&c, GOLDEN "/normalise.safetensors", &err) == 0, "%s", err.msg);
    uint8_t rgb[256 * 3];
    float out[256 * 3];
    for (int i = 0; i < 256 * 3; i++) rgb[i] = (uint8_t)(i / 3);
    for (int pil = 0; c && pil < 2; pil++) {
        const vl_tensor *want = vl_checkpoint_find(c, BACKEND[pil]);
        CHECK(want && want->bytes == 1024, "no %s", BACKEND[pil]);
        vl_patchify(out, rgb, 1, 256, &ONE, pil, 1, NULL, NULL);
        int bad = 0;
        for (int i = 0; want && i < 256 * 3; i++)
            bad += memcmp(&out[i], (const float *)want->data + i / 3, 4) != 0;
        CHECK(bad == 0, "%s: %d values differ", BACKEND[pil], bad);
    }
    vl_checkpoint_free(c);
}

/* The form for this processor against the plain one: any length, taps, and weights of both kinds; rows of
 * extremes, where sums reach far below 0 and above 255. */
static void test_blend(void) {
    enum { STRIDE = 200, TAPS = 37 };
    static uint8_t src[STRIDE * TAPS], a[STRIDE], b[STRIDE];
    int32_t w[TAPS];
    vl_rng r;
    vl_rng_seed(&r, 21);
    for (int trial = 0; trial < 600; trial++) {
        int taps = 1 + trial % TAPS, bits = trial % 4 == 3 ? 22 : 15;
        size_t n = (size_t)(vl_rng_u64(&r) % STRIDE);
        int32_t most = (1 << bits) / taps * 3 / 5; /* sums stay in 32 bits; with 22 bits w is not in 16 */
        for (int j = 0; j < taps; j++) w[j] = (int32_t)(vl_rng_u64(&r) % (2 * (uint64_t)most)) - most / (1 + trial % 2 * 7);
        for (size_t i = 0; i < sizeof src; i++) {
            uint64_t v = vl_rng_u64(&r);
            src[i] = trial % 3 ? (uint8_t)v : (uint8_t)(v & 1 ? 255 : 0);
        }
        memset(a, 7, sizeof a);
        memset(b, 7, sizeof b);
        vl_blend_rows(a, src, STRIDE, n, w, taps, bits);
        vl_blend_rows_plain(b, src, STRIDE, n, w, taps, bits);
        CHECK(!memcmp(a, b, sizeof a), "%d taps, %d bits, %zu neighbours", taps, bits, n);
    }
}

static int besides;
static void beside(void *arg) { besides += *(int *)arg; }

/* More threads than rows of blocks; what goes on beside it is called once. */
static void test_patchify_threads(void) {
    static const vl_preprocess_config C = {.patch_size = 2, .temporal_patch_size = 2, .merge_size = 2,
                                           .mean = {0.5f, 0.4f, 0.3f}, .std = {0.5f, 0.6f, 0.7f}, .rescale = 1.0 / 255};
    enum { H = 20, W = 28, N = H * W * 6 };
    uint8_t rgb[H * W * 3];
    static float want[N], got[N];
    int one = 1;
    for (int i = 0; i < H * W * 3; i++) rgb[i] = (uint8_t)(i * 37);
    vl_patchify(want, rgb, H, W, &C, false, 1, NULL, NULL);
    for (int threads = 1; threads < 9; threads++) {
        memset(got, 0xff, sizeof got);
        besides = 0;
        vl_patchify(got, rgb, H, W, &C, false, threads, beside, &one);
        CHECK(!memcmp(got, want, sizeof got) && besides == 1, "%d threads, %d times beside", threads, besides);
    }
}

static void hex_of(char hex[65], const void *data, size_t n) {
    vl_sha256 sha;
    uint8_t digest[32];
    vl_sha256_init(&sha);
    vl_sha256_add(&sha, data, n);
    vl_sha256_end(&sha, digest);
    for (int i = 0; i < 32; i++) snprintf(hex + 2 * i, 3, "%02x", digest[i]);
}

static void check_processor(const vl_checkpoint *c, const json_t *row, int i, int pil) {
    const char *backend = BACKEND[pil];
    const vl_tensor *in = numbered(c, i, "in"), *values = numbered(c, i, backend);
    vl_preprocess_config config = {.temporal_patch_size = 2, .merge_size = 2,
                                   .mean = {0.5f, 0.5f, 0.5f}, .std = {0.5f, 0.5f, 0.5f},
                                   .rescale = 1.0 / 255};
    int64_t n[5];
    static const char *const KEYS[] = {"height", "width", "patch_size", "min_pixels", "max_pixels"};
    for (int k = 0; k < 5; k++) n[k] = json_integer_value(json_object_get(row, KEYS[k]));
    config.patch_size = (int)n[2];
    int h, w, ps = config.patch_size;
    vl_err err = {0};
    CHECK(in && in->shape[0] == n[0] && in->shape[1] == n[1], "row %d: no input", i);
    CHECK(vl_smart_resize((int)n[0], (int)n[1], 2 * ps, n[3], n[4], &h, &w, &err) == 0, "%s",
          err.msg);
    const json_t *grid = json_object_get(row, "grid_thw");
    CHECK(json_integer_value(json_array_get(grid, 1)) == h / ps &&
              json_integer_value(json_array_get(grid, 2)) == w / ps, "row %d: %dx%d", i, h, w);
    size_t pixels = (size_t)h * (size_t)w, bytes = pixels * 6 * sizeof(float);
    uint8_t *rgb = malloc(3 * pixels);
    float *out = malloc(bytes);
    char hex[65];
    CHECK(vl_resize_bicubic(rgb, h, w, in->data, (int)n[0], (int)n[1], pil, 2, &err) == 0, "%s",
          err.msg);
    vl_patchify(out, rgb, h, w, &config, pil, 2, NULL, NULL);
    if (values)
        CHECK(values->bytes == bytes && memcmp(values->data, out, bytes) == 0,
              "row %d %s: values differ", i, backend);
    hex_of(hex, out, bytes);
    const char *want = json_string_value(json_object_get(json_object_get(row, "sha256"), backend));
    CHECK(want && strcmp(hex, want) == 0, "row %d %s: digest %s", i, backend, hex);
    free(rgb);
    free(out);
}

static void test_processors(void) {
    vl_checkpoint *c;
    vl_err err = {0};
    json_t *rows = vl_json_load(GOLDEN "/processor.json", 1 << 20, &err);
    CHECK(rows && json_array_size(rows) > 5, "%s", err.msg);
    CHECK(vl_safetensors_open(&c, GOLDEN "/processor.safetensors", &err) == 0, "%s", err.msg);
    for (size_t i = 0; c && i < json_array_size(rows); i++)
        for (int pil = 0; pil < 2; pil++)
            check_processor(c, json_array_get(rows, i), (int)i, pil);
    vl_checkpoint_free(c);
    json_decref(rows);
}

/* ---- preprocessor_config.json ---------------------------------------------------------------- */

static void test_config(void) {
    static const struct {
        const char *file, *json, *error;
        int patch;
        int64_t min, max;
    } CASES[] = {
        {"none", "", NULL, 16, 65536, 16777216},
        {"preprocessor_config.json", "{}", NULL, 14, 3136, 1003520}, /* HF's class defaults */
        {"preprocessor_config.json", "{\"patch_size\": 16, \"size\": {\"shortest_edge\": 4096, "
         "\"longest_edge\": 9000}}", NULL, 16, 4096, 9000},
        {"preprocessor_config.json", "{\"min_pixels\": 77, \"size\": {\"shortest_edge\": 4096}}",
         NULL, 14, 77, 1003520},
        {"processor_config.json", "{\"image_processor\": {\"patch_size\": 8}}", NULL, 8, 3136,
         1003520},
        {"processor_config.json", "{\"processor_class\": \"x\"}", NULL, 16, 65536, 16777216},
        {"preprocessor_config.json", "{\"patch_size\": 0}", "patch_size", 0, 0, 0},
        {"preprocessor_config.json", "{\"patch_size\": \"16\"}", "a string", 0, 0, 0},
        {"preprocessor_config.json", "{\"merge_size\": 1e3}", "a real", 0, 0, 0},
        {"preprocessor_config.json", "{\"image_std\": [0.5, 0, 0.5]}", "image_std", 0, 0, 0},
        {"preprocessor_config.json", "{\"image_mean\": [0.5, 0.5]}", "image_mean", 0, 0, 0},
        {"preprocessor_config.json", "{\"size\": 5}", "size", 0, 0, 0},
        {"preprocessor_config.json", "{\"size\": {\"longest_edge\": -1}}", "longest_edge", 0, 0, 0},
        {"preprocessor_config.json", "{\"resample\": 2}", "bicubic", 0, 0, 0},
        {"preprocessor_config.json", "{\"do_resize\": false}", "do_resize", 0, 0, 0},
        {"preprocessor_config.json", "[1]", "an object", 0, 0, 0},
        {"preprocessor_config.json", "{\"a\": 1, \"a\": 2}", "not valid JSON", 0, 0, 0},
    };
    char dir[] = "/tmp/vitreous-preprocess-XXXXXX", path[200];
    CHECK(mkdtemp(dir), "no temporary folder");
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        vl_preprocess_config c;
        vl_err err = {0};
        snprintf(path, sizeof path, "%s/%s", dir, CASES[i].file);
        FILE *f = fopen(path, "w");
        CHECK(f && fputs(CASES[i].json, f) >= 0, "cannot write %s", path);
        if (f) fclose(f);
        int rc = vl_preprocess_config_load(&c, dir, &err);
        unlink(path);
        if (CASES[i].error)
            CHECK(rc < 0 && strstr(err.msg, CASES[i].error), "%s: \"%s\"", CASES[i].json, err.msg);
        else
            CHECK(rc == 0 && c.patch_size == CASES[i].patch && c.min_pixels == CASES[i].min &&
                      c.max_pixels == CASES[i].max && c.rescale == 1 / 255.0,
                  "%s: %d %d %d %s", CASES[i].json, c.patch_size, (int)c.min_pixels,
                  (int)c.max_pixels, err.msg);
    }
    rmdir(dir);
    vl_preprocess_config c;
    vl_err err = {0};
    CHECK(vl_preprocess_config_load(&c, "models/demo", &err) == 0 && c.patch_size == 16 &&
              c.mean[0] == 0.5f, "models/demo: %s", err.msg);
}

int main(void) {
    test_known_sizes();
    test_golden_sizes();
    test_resize();
    test_blend();
    test_normalise();
    test_patchify_threads();
    test_processors();
    test_config();
    return test_end();
}
