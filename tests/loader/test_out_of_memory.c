/* test_out_of_memory.c: every allocation of every loading path fails once, those inside libjpeg,
 * libwebp, stb_image and Jansson included. Each time: a clear error or success, and nothing leaks.
 *
 * The program defines malloc and its kin, which forward to the C library or to the sanitizer. */
#include <stdatomic.h>
#include <unistd.h>

#include "loader/checkpoint.h"
#include "loader/image.h"
#include "loader/json.h"
#include "model/preprocess.h"
#include "tests/test.h"

#if defined(__SANITIZE_ADDRESS__)
#define REAL(name) __interceptor_##name
#else
#define REAL(name) __libc_##name
#endif
void *REAL(malloc)(size_t n);
void *REAL(calloc)(size_t n, size_t size);
void *REAL(realloc)(void *p, size_t n);
void REAL(free)(void *p);

static atomic_long live;      /* blocks that are not freed yet             */
static atomic_long calls;     /* allocations since arm()                   */
static atomic_long fail_at;   /* which of them fails; 0: none              */

#ifndef __SANITIZE_THREAD__
static bool refuse(void) { return atomic_fetch_add(&calls, 1) + 1 == atomic_load(&fail_at); }

static void *counted(void *p) {
    if (p) atomic_fetch_add(&live, 1);
    return p;
}
void *malloc(size_t n) { return refuse() ? NULL : counted(REAL(malloc)(n)); }
void *calloc(size_t n, size_t size) { return refuse() ? NULL : counted(REAL(calloc)(n, size)); }
void *realloc(void *p, size_t n) {
    if (refuse()) return NULL;
    void *q = REAL(realloc)(p, n);
    if (!p) counted(q);
    return q;
}
void free(void *p) {
    if (p) atomic_fetch_sub(&live, 1);
    REAL(free)(p);
}
#endif

/* ---- the paths ------------------------------------------------------------------------------- */

static char folder[] = "/tmp/vitreous-memory-XXXXXX";
static char *picture;
static size_t picture_len;

static int decode_picture(const char *name, vl_err *err) {
    vl_image im;
    vl_picture_params params = {.max_bytes = 1 << 24};
    int rc = vl_image_decode(&im, picture, picture_len, name, &params, err);
    vl_image_clear(&im);
    return rc;
}

static int open_checkpoint(const char *dir, vl_err *err) {
    vl_checkpoint *c;
    int rc = vl_checkpoint_open(&c, dir, err);
    vl_checkpoint_free(c);
    return rc;
}

static int parse_json(const char *text, vl_err *err) {
    json_t *root = vl_json_parse(text, strlen(text), "text", err);
    json_decref(root);
    return root ? 0 : -1;
}

static int load_config(const char *dir, vl_err *err) {
    vl_preprocess_config c;
    return vl_preprocess_config_load(&c, dir, err);
}

static int write_tensors(const char *path, vl_err *err) {
    static const float VALUES[4] = {1, 2, 3, 4};
    static const char *const METADATA[] = {"k", "v", NULL};
    vl_tensor t[] = {
        {.name = "a", .dtype = VL_F32, .rank = 1, .shape = {4}, .data = VALUES, .bytes = 16},
        {.name = "b", .dtype = VL_U8, .rank = 1, .shape = {3}, .data = VALUES, .bytes = 3},
    };
    return vl_safetensors_write(path, t, 2, METADATA, err);
}

static int open_tensors(const char *path, vl_err *err) {
    vl_checkpoint *c;
    int rc = vl_safetensors_open(&c, path, err);
    vl_checkpoint_free(c);
    return rc;
}

static int resize(const char *backend, vl_err *err) {
    static const uint8_t SRC[20 * 30 * 3];
    static uint8_t dst[9 * 40 * 3];
    return vl_resize_bicubic(dst, 9, 40, SRC, 20, 30, strcmp(backend, "pil") == 0, 1, err);
}

enum { ANY_ERROR = -1 };

/* Runs fn(arg) with the first, second, ... allocation failing until it needs no more of them. */
static void sweep(const char *what, int (*fn)(const char *, vl_err *), const char *arg, int also) {
    long n = 1, refused = 0;
    vl_err err = {0};
    CHECK(fn(arg, &err) == 0, "%s: %s", what, err.msg); /* and caches of the libraries fill */
    for (;; n++) {
        memset(&err, 0, sizeof err);
        long before = atomic_load(&live);
        atomic_store(&calls, 0);
        atomic_store(&fail_at, n);
        int rc = fn(arg, &err);
        atomic_store(&fail_at, 0);
        bool reached = atomic_load(&calls) >= n;
        long leaked = atomic_load(&live) - before;
        CHECK(leaked == 0, "%s, allocation %ld: %ld blocks leaked", what, n, leaked);
        bool fits = err.code == VL_E_NOMEM || err.code == also || also == ANY_ERROR;
        CHECK(rc == 0 || (fits && err.msg[0]),
              "%s, allocation %ld: code %d, \"%s\"", what, n, err.code, err.msg);
        refused += rc < 0;
        if (!reached || n > 20000) break;
    }
    CHECK(n > 1 && n < 20000 && refused > 0, "%s: %ld allocations, %ld refusals", what, n, refused);
}

static void sweep_picture(const char *name, int also) {
    char path[200];
    vl_err err = {0};
    snprintf(path, sizeof path, "tests/golden/images/%s", name);
    CHECK(vl_read_file(path, 1 << 24, &picture, &picture_len, &err) == 0, "%s", err.msg);
    sweep(name, decode_picture, name, also);
    free(picture);
}

int main(void) {
#ifdef __SANITIZE_THREAD__
    test_skip("out of memory: ThreadSanitizer wants malloc for itself, and there is one thread");
    return test_end();
#endif
    static const char *const PICTURES[] = {
        "jpeg-420.jpg", "jpeg-progressive.jpg", "jpeg-arithmetic.jpg", "jpeg-cmyk.jpg",
        "jpeg-grey.jpg", "jpeg-exif6.jpg", "png-rgb8.png", "png-rgba8-interlaced.png",
        "png-palette4-trns.png", "gif-animated.gif", "bmp-24.bmp", "tga-rgba.tga", "pnm-rgb.ppm",
    }; /* no 16-bit PNG: there stb_image 2.27 leaks the wide pixels when narrow ones are refused */
    char path[200];
    CHECK(mkdtemp(folder), "no temporary folder");
    for (size_t i = 0; i < sizeof PICTURES / sizeof *PICTURES; i++) sweep_picture(PICTURES[i], 0);
    /* libwebp does not say why it failed. Lossy only: in lossless data libwebp 1.2.4 itself goes on
     * through NULL. */
    sweep_picture("webp-lossy.webp", VL_E_INPUT);
    /* Jansson loses characters it had no memory for, so what it reads may be wrong as well */
    sweep("JSON", parse_json, "{\"a\": [1, 2.5, \"\\u4e2d\", {\"b\": null}], \"c\": true}",
          ANY_ERROR);
    sweep("preprocessor_config.json", load_config, "models/demo", ANY_ERROR);
    sweep("resize (torchvision)", resize, "torchvision", 0);
    sweep("resize (pil)", resize, "pil", 0);
    snprintf(path, sizeof path, "%s/x.safetensors", folder);
    sweep("writing", write_tensors, path, VL_E_IO); /* fopen: "Cannot allocate memory" */
    sweep("reading", open_tensors, path, 0);
    unlink(path);
    sweep("shards", open_checkpoint, "tests/golden/models/shards", ANY_ERROR);
    rmdir(folder);
    return test_end();
}
