/* preprocess.c: RGB picture -> pixel_values, as HF Qwen2VLImageProcessor computes them.
 *
 *   rgb [h, w, 3] -> smart_resize -> (h', w') multiples of patch*merge
 *                 -> vl_resize_bicubic (resize.c)
 *                 -> vl_patchify: normalise in f32, cut into patches -> [P, 3*T*ps*ps]
 *
 * Mirrors transformers models/qwen2_vl/image_processing_qwen2_vl.py (torchvision backend, the
 * default) and image_processing_pil_qwen2_vl.py (PIL backend).
 *
 * Easy to get wrong:
 *   - Python rounds halves to even: 336/32 = 10.5 -> 10, so 336 becomes 320, not 352;
 *   - the two backends normalise in a different order, which differs in the last bit:
 *       torchvision  (v - mean*(1/rescale)) / (std*(1/rescale)), products rounded to f32
 *       PIL          ((float)(v*rescale) - mean) / std,          v*rescale in double
 *   - rows run over 2x2 merge blocks, not over scan lines;
 *   - one picture fills both frames of a temporal patch.
 */
#include "model/preprocess.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>

#include "loader/json.h"

/* ---- preprocessor_config.json ---------------------------------------------------------------- */

/* What HF's class assumes where a file is silent. */
static const vl_preprocess_config HF_DEFAULTS = {
    .patch_size = 14, .temporal_patch_size = 2, .merge_size = 2,
    .min_pixels = 56 * 56, .max_pixels = 28 * 28 * 1280,
    .mean = {0.48145466f, 0.4578275f, 0.40821073f}, .std = {0.26862954f, 0.26130258f, 0.27577711f},
    .rescale = 1.0 / 255.0,
};
/* What Qwen3-VL's own files say, for a folder without one. */
static const vl_preprocess_config QWEN3_VL = {
    .patch_size = 16, .temporal_patch_size = 2, .merge_size = 2,
    .min_pixels = 65536, .max_pixels = 16777216,
    .mean = {0.5f, 0.5f, 0.5f}, .std = {0.5f, 0.5f, 0.5f},
    .rescale = 1.0 / 255.0,
};

/* A number for all channels, or a list of three. */
static int read_channels(const json_t *o, const char *what, const char *key, double lo,
                         float out[3], vl_err *err) {
    const json_t *v = json_object_get(o, key);
    if (!v || json_is_null(v)) return 0;
    for (size_t i = 0; i < 3; i++) {
        const json_t *e = json_is_array(v) && json_array_size(v) == 3 ? json_array_get(v, i) : v;
        double n = json_number_value(e);
        if (!json_is_number(e) || !(n >= lo && n <= 1e6))
            return vl_fail(err, VL_E_INPUT, "%s: \"%s\": expected three numbers from %g to 1e6",
                           what, key, lo);
        out[i] = (float)n;
    }
    return 0;
}

static int read_int(const json_t *o, const char *what, const char *key, int hi, int *out,
                    vl_err *err) {
    int64_t n;
    if (vl_json_int(o, what, key, 1, hi, *out, &n, err) < 0) return -1;
    *out = (int)n;
    return 0;
}

/* Settings that would change the result and that nothing here implements. */
static int refuse_unsupported(const json_t *o, const char *what, vl_err *err) {
    static const char *const MUST_BE_TRUE[] = {"do_resize", "do_rescale", "do_normalize"};
    int64_t resample;
    for (size_t i = 0; i < sizeof MUST_BE_TRUE / sizeof *MUST_BE_TRUE; i++) {
        bool on;
        if (vl_json_bool(o, what, MUST_BE_TRUE[i], true, &on, err) < 0) return -1;
        if (!on)
            return vl_fail(err, VL_E_UNSUPPORTED, "%s: \"%s\": expected true, found false", what,
                           MUST_BE_TRUE[i]);
    }
    if (vl_json_int(o, what, "resample", 0, 10, 3, &resample, err) < 0) return -1;
    if (resample != 3)
        return vl_fail(err, VL_E_UNSUPPORTED, "%s: \"resample\": expected 3 (bicubic), found %d",
                       what, (int)resample);
    return 0;
}

static int read_config(vl_preprocess_config *c, const json_t *o, const char *what, vl_err *err) {
    enum { MAX_PATCH = 256, MAX_FRAMES = 16, MAX_MERGE = 16 };
    const json_t *size = json_object_get(o, "size");
    if (!json_is_object(o) || (size && !json_is_null(size) && !json_is_object(size)))
        return vl_fail(err, VL_E_INPUT, "%s: expected an object, and \"size\" to be one", what);
    if (refuse_unsupported(o, what, err) < 0 ||
        read_int(o, what, "patch_size", MAX_PATCH, &c->patch_size, err) < 0 ||
        read_int(o, what, "temporal_patch_size", MAX_FRAMES, &c->temporal_patch_size, err) < 0 ||
        read_int(o, what, "merge_size", MAX_MERGE, &c->merge_size, err) < 0 ||
        read_channels(o, what, "image_mean", -1e6, c->mean, err) < 0 ||
        read_channels(o, what, "image_std", 1e-6, c->std, err) < 0)
        return -1;
    const struct { const json_t *in; const char *key; int64_t *out; } LIMITS[] = {
        {size, "shortest_edge", &c->min_pixels}, {size, "longest_edge", &c->max_pixels},
        {o, "min_pixels", &c->min_pixels},       {o, "max_pixels", &c->max_pixels},
    };
    for (size_t i = 0; i < sizeof LIMITS / sizeof *LIMITS; i++)
        if (vl_json_int(LIMITS[i].in, what, LIMITS[i].key, 1, INT64_MAX / 4, *LIMITS[i].out,
                        LIMITS[i].out, err) < 0)
            return -1;
    return vl_json_num(o, what, "rescale_factor", 1e-9, 1e9, c->rescale, &c->rescale, err);
}

int vl_preprocess_config_load(vl_preprocess_config *c, const char *dir, vl_err *err) {
    /* transformers 5 nests it in processor_config.json, which wins where it has it. */
    static const struct { const char *file, *key; } PLACES[] = {
        {"processor_config.json", "image_processor"}, {"preprocessor_config.json", NULL},
    };
    *c = QWEN3_VL;
    for (size_t i = 0; i < sizeof PLACES / sizeof *PLACES; i++) {
        char path[PATH_MAX];
        int n = snprintf(path, sizeof path, "%s/%s", dir, PLACES[i].file);
        if (n < 0 || (size_t)n >= sizeof path)
            return vl_fail(err, VL_E_IO, "the path of the checkpoint is too long");
        if (!vl_file_exists(path)) continue;
        json_t *root = vl_json_load(path, 1 << 20, err);
        if (!root) return -1;
        const json_t *o = PLACES[i].key ? json_object_get(root, PLACES[i].key) : root;
        int rc = 1;
        if (o) {
            *c = HF_DEFAULTS;
            rc = read_config(c, o, path, err);
        }
        json_decref(root);
        if (rc <= 0) return rc;
    }
    return 0;
}

/* ---- sizes ----------------------------------------------------------------------------------- */

int vl_smart_resize(int height, int width, int factor, int64_t min_pixels, int64_t max_pixels,
                    int *out_height, int *out_width, vl_err *err) {
    if (height < 1 || width < 1)
        return vl_fail(err, VL_E_INPUT, "a picture of %d x %d pixels is empty", width, height);
    if (factor < 1 || min_pixels < 1 || max_pixels < 1)
        return vl_fail(err, VL_E_USAGE, "min_pixels and max_pixels must be positive, found "
                       "%lld and %lld", (long long)min_pixels, (long long)max_pixels);
    double h = height, w = width, f = factor;
    double ratio = h > w ? h / w : w / h;
    if (ratio > 200)
        return vl_fail(err, VL_E_INPUT, "a picture of %d x %d pixels has an aspect ratio of %.1f; "
                       "at most 200 is possible: crop it", width, height, ratio);
    double hb = nearbyint(h / f) * f, wb = nearbyint(w / f) * f; /* halves to even */
    if (hb * wb > (double)max_pixels) {
        double beta = sqrt(h * w / (double)max_pixels);
        hb = fmax(f, floor(h / beta / f) * f);
        wb = fmax(f, floor(w / beta / f) * f);
    } else if (hb * wb < (double)min_pixels) {
        double beta = sqrt((double)min_pixels / (h * w));
        hb = ceil(h * beta / f) * f;
        wb = ceil(w * beta / f) * f;
    }
    if (hb * wb > INT_MAX / 4)
        return vl_fail(err, VL_E_LIMIT, "a picture of %d x %d would become %.0f x %.0f: lower "
                       "min_pixels or max_pixels", width, height, wb, hb);
    *out_height = (int)hb;
    *out_width = (int)wb;
    return 0;
}

/* ---- patches --------------------------------------------------------------------------------- */

/* What each of the 256 values of each channel becomes. */
static void normalisation_table(float table[3][256], const vl_preprocess_config *c, bool pil) {
    float inverse = (float)(1.0 / c->rescale);
    for (int k = 0; k < 3; k++) {
        float mean = pil ? c->mean[k] : c->mean[k] * inverse;
        float std = pil ? c->std[k] : c->std[k] * inverse;
        for (int v = 0; v < 256; v++) {
            float x = pil ? (float)(v * c->rescale) : (float)v;
            table[k][v] = (x - mean) / std;
        }
    }
}

/* One patch, top left at rgb, whose rows are `stride` bytes apart. */
static void cut_patch(float *out, const uint8_t *rgb, size_t stride, const vl_preprocess_config *c,
                      float table[3][256]) {
    size_t ps = (size_t)c->patch_size, frame = ps * ps;
    for (size_t k = 0; k < 3; k++) {
        for (size_t y = 0; y < ps; y++) {
            const uint8_t *s = rgb + y * stride + k;
            for (size_t x = 0; x < ps; x++) out[y * ps + x] = table[k][s[3 * x]];
        }
        for (int t = 1; t < c->temporal_patch_size; t++)
            memcpy(out + (size_t)t * frame, out, frame * sizeof *out);
        out += (size_t)c->temporal_patch_size * frame;
    }
}

typedef struct patchify_job {
    float *out;
    const uint8_t *rgb;
    int w;
    const vl_preprocess_config *c;
    void (*beside)(void *arg);
    void *arg;
    float table[3][256];
} patchify_job;

/* A row of merge blocks, or (item 0) what goes on beside them: the longest piece first. */
static void patchify_item(void *arg, int item, int thread) {
    patchify_job *j = arg;
    const vl_preprocess_config *c = j->c;
    int ps = c->patch_size, block = ps * c->merge_size, by = (item - 1) * block;
    size_t stride = 3 * (size_t)j->w, width = 3 * (size_t)(c->temporal_patch_size * ps * ps);
    (void)thread;
    if (item == 0) {
        if (j->beside) j->beside(j->arg);
        return;
    }
    float *out = j->out + (size_t)(by / ps) * (size_t)(j->w / ps) * width;
    for (int bx = 0; bx < j->w; bx += block)
        for (int y = by; y < by + block; y += ps)
            for (int x = bx; x < bx + block; x += ps, out += width)
                cut_patch(out, j->rgb + (size_t)y * stride + 3 * (size_t)x, stride, c, j->table);
}

void vl_patchify(float *out, const uint8_t *rgb, int h, int w, const vl_preprocess_config *c,
                 bool pil, int threads, void (*beside)(void *arg), void *arg) {
    int block = c->patch_size * c->merge_size;
    vl_assert(h > 0 && w > 0 && h % block == 0 && w % block == 0, "%dx%d by %d", h, w, block);
    patchify_job j = {.out = out, .rgb = rgb, .w = w, .c = c, .beside = beside, .arg = arg};
    normalisation_table(j.table, c, pil);
    vl_items(h / block + 1, threads, patchify_item, &j);
}
