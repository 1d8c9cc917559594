/* picture.c: bytes -> decode -> smart_resize -> bicubic -> patches, with a report of each step.
 * HF: Qwen2VLImageProcessor(Fast). */
#include <stdlib.h>

#include "loader/image.h"
#include "loader/json.h"
#include "model/model.h"

typedef struct digest_job { vl_picture *p; const uint8_t *rgb; bool pil; } digest_job;
static void digest(void *arg) {
    const digest_job *j = arg;
    vl_picture_info *info = &j->p->info;
    vl_sha256 s;
    const int32_t sizes[3] = {info->resized_width, info->resized_height, j->pil};
    vl_sha256_init(&s);
    vl_sha256_add(&s, sizes, sizeof sizes);
    vl_sha256_add(&s, j->rgb, (size_t)info->resized_width * (size_t)info->resized_height * 3);
    vl_sha256_end(&s, info->digest);
}

/* The resized RGB picture -> pixel_values and the digest. */
static int cut(vl_picture *p, const vl_model *m, const vl_image *im, const vl_picture_params *params,
               vl_err *err) {
    const vl_preprocess_config *c = &m->preprocess;
    int w = p->info.resized_width, h = p->info.resized_height;
    size_t bytes = (size_t)w * (size_t)h * 3;
    p->width = 3 * c->temporal_patch_size * c->patch_size * c->patch_size;
    p->patches = p->info.grid_h * p->info.grid_w;
    uint8_t *rgb = vl_calloc(bytes, 1);
    p->values = vl_calloc((size_t)p->patches * (size_t)p->width, sizeof(float));
    if (!rgb || !p->values) {
        free(rgb);
        return vl_fail(err, VL_E_NOMEM, "no memory for a picture of %d x %d", w, h);
    }
    vl_huge_pages(rgb, bytes);
    vl_huge_pages(p->values, (size_t)p->patches * (size_t)p->width * sizeof(float));
    int threads = vl_backend_threads(m->backend);
    int bad = vl_resize_bicubic(rgb, h, w, im->rgb, im->height, im->width, params->pil, threads, err);
    digest_job j = {p, rgb, params->pil};
    if (!bad) vl_patchify(p->values, rgb, h, w, c, params->pil, threads, digest, &j);
    free(rgb);
    return bad;
}

static int prepare(vl_picture *p, const vl_model *m, const void *bytes, size_t len, const char *name,
                   const vl_picture_params *params, vl_err *err) {
    const vl_preprocess_config *c = &m->preprocess;
    vl_image im = {0};
    double start = vl_now();
    if (vl_image_decode(&im, bytes, len, name, params, err)) return -1;
    vl_picture_info *info = &p->info;
    info->decode_s = vl_now() - start;
    info->format = im.format;
    info->orientation = im.orientation;
    info->width = im.width;
    info->height = im.height;
    info->n_warnings = im.n_warnings;
    memcpy(info->warnings, im.warnings, sizeof info->warnings);
    int bad = vl_smart_resize(im.height, im.width, c->patch_size * c->merge_size,
                              params->min_pixels ? params->min_pixels : c->min_pixels,
                              params->max_pixels ? params->max_pixels : c->max_pixels,
                              &info->resized_height, &info->resized_width, err);
    if (!bad) {
        info->grid_t = 1;
        info->grid_h = info->resized_height / c->patch_size;
        info->grid_w = info->resized_width / c->patch_size;
        info->tokens = info->grid_h * info->grid_w / (c->merge_size * c->merge_size);
        start = vl_now();
        bad = cut(p, m, &im, params, err);
        info->resize_s = vl_now() - start;
    }
    vl_image_clear(&im);
    return bad;
}

int vl_picture_load(vl_picture **out, const vl_model *m, const void *bytes, size_t len, const char *name,
                    const vl_picture_params *params, vl_err *err) {
    static const vl_picture_params DEFAULTS;
    *out = NULL;
    vl_picture *p = vl_calloc(1, sizeof *p);
    if (!p) return vl_fail(err, VL_E_NOMEM, "no memory for picture %s", name);
    atomic_init(&p->refs, 1);
    if (prepare(p, m, bytes, len, name, params ? params : &DEFAULTS, err)) {
        vl_picture_free(p);
        return -1;
    }
    *out = p;
    return 0;
}

int vl_picture_load_file(vl_picture **out, const vl_model *m, const char *path,
                         const vl_picture_params *params, vl_err *err) {
    char *bytes;
    size_t len, max = params && params->max_bytes > 0 ? (size_t)params->max_bytes : (size_t)10 << 20;
    *out = NULL;
    if (vl_read_file(path, max, &bytes, &len, err)) return -1;
    int bad = vl_picture_load(out, m, bytes, len, path, params, err);
    free(bytes);
    return bad;
}

const vl_picture_info *vl_picture_get_info(const vl_picture *p) { return &p->info; }

const float *vl_picture_values(const vl_picture *p, int *patches, int *width) {
    *patches = p->patches;
    *width = p->width;
    return p->values;
}

vl_picture *vl_picture_ref(vl_picture *p) {
    atomic_fetch_add(&p->refs, 1);
    return p;
}

void vl_picture_free(vl_picture *p) {
    if (!p || atomic_fetch_sub(&p->refs, 1) > 1) return;
    free(p->values);
    free(p);
}
