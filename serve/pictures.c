/* pictures.c: see pictures.h. The media type and the file name are never believed: the decoder
 * goes by content. Decoding of many large pictures at once is held back to keep memory bounded. */
#include "serve/pictures.h"

#include <ctype.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>

#include "model/preset.h"
#include "serve/sandbox.h"
#include "serve/scheduler.h"

enum { DECODERS = 2 };
static sem_t decoders;
static pthread_once_t decoders_once = PTHREAD_ONCE_INIT;
static void decoders_init(void) { sem_init(&decoders, 0, DECODERS); }

/* ---- data URLs ---------------------------------------------------------------------------- */

static int base64_value(int c) {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' || c == '-' ? 62 : c == '/' || c == '_' ? 63 : -1;
}

static int hex_value(int c) {
    return isdigit(c) ? c - '0' : isxdigit(c) ? tolower(c) - 'a' + 10 : -1;
}

/* The next payload character with percent escapes resolved, or -1 at the end. */
static int next_char(const char **p, const char *end) {
    if (*p == end) return -1;
    int c = (unsigned char)*(*p)++;
    if (c == '%' && end - *p >= 2) {
        int hi = hex_value((unsigned char)(*p)[0]), lo = hex_value((unsigned char)(*p)[1]);
        if (hi >= 0 && lo >= 0) {
            *p += 2;
            return hi * 16 + lo;
        }
    }
    return c;
}

static int base64_decode(const char *p, const char *end, blob *out) {
    uint32_t acc = 0;
    int bits = 0, c;
    bool padded = false;
    while ((c = next_char(&p, end)) >= 0) {
        if (c == ' ' || c == '\t' || c == '\n' || c == '\r') continue;
        if (c == '=') {
            padded = true;
            continue;
        }
        int v = base64_value(c);
        if (v < 0 || padded) return -1;
        acc = acc << 6 | (uint32_t)v;
        if ((bits += 6) >= 8) out->data[out->len++] = (char)(acc >> (bits -= 8) & 255);
    }
    return bits == 6 ? -1 : 0;        /* a lone character is a cut-off group */
}

int data_url_decode(const char *url, size_t len, size_t max_bytes, blob *out, api_error *e,
                    const char *param) {
    *out = (blob){0};
    if (len >= 4 && !strncasecmp(url, "http", 4))
        return api_fail(e, 400, "remote_url", param,
                        "remote image URLs are off: send a data: URL, a file id or an upload "
                        "(the operator may name hosts with --allow-image-urls)");
    if (len < 5 || strncasecmp(url, "data:", 5) != 0)
        return api_fail(e, 400, "invalid_image_url", param,
                        "expected a data: URL (data:image/png;base64,...) or a file id");
    const char *comma = memchr(url, ',', len), *end = url + len;
    if (!comma || comma - url < 7 || strncasecmp(comma - 7, ";base64", 7) != 0)
        return api_fail(e, 400, "invalid_image_url", param, "a data: URL must be base64-encoded");
    size_t room = (size_t)(end - comma) / 4 * 3 + 4;
    if (room > max_bytes * 4)         /* even if every character were escaped or blank */
        return api_fail(e, 413, "image_too_large", param, "an image may have at most %zu bytes",
                        max_bytes);
    if (!(out->data = malloc(room)))
        return api_fail(e, 500, "out_of_memory", param, "out of memory");
    if (base64_decode(comma + 1, end, out) || !out->len) {
        free(out->data);
        *out = (blob){0};
        return api_fail(e, 400, "invalid_base64", param,
                        "the image's base64 is malformed or empty");
    }
    if (out->len <= max_bytes) return 0;
    free(out->data);
    *out = (blob){0};
    return api_fail(e, 413, "image_too_large", param, "an image may have at most %zu bytes",
                    max_bytes);
}

/* ---- budgets ------------------------------------------------------------------------------ */

bool picture_preset(const server *srv, const char *name, picture_limits *out) {
    const vl_model_info *m = srv->info;
    const int64_t low = 512 * 512;    /* detail "low" */
    if (!strcmp(name, "auto"))
        *out = (picture_limits){srv->config.min_pixels, srv->config.max_pixels, 0};
    else if (!strcmp(name, "high")) *out = (picture_limits){m->min_pixels, m->max_pixels, 0};
    else if (!strcmp(name, "low"))
        *out = (picture_limits){m->min_pixels < low ? m->min_pixels : low,
                                low < m->min_pixels ? m->min_pixels : low < m->max_pixels ? low
                                                                                : m->max_pixels, 0};
    else return vl_preset_limits(m, name, &out->min_pixels, &out->max_pixels);
    return true;
}

void picture_warn_coarse(json_t *report) {
    enum { ENOUGH = 1024 };           /* the preset's own least; the model or a limit may not allow it */
    if (json_integer_value(json_object_get(report, "tokens")) < ENOUGH)
        json_array_append_new(json_object_get(report, "warnings"), json_string("coarse_for_boxes:under_1024_tokens"));
}

json_t *picture_estimate(server *srv, int image_tokens) {
    scheduler_state st;
    scheduler_get_state(srv->scheduler, &st);
    double encode = st.encode_s_per_token * image_tokens * 1e3;
    double prefill = st.prefill_s_per_token * image_tokens * 1e3;
    return json_pack("{s:f,s:f,s:f,s:f}", "encode_ms", encode, "prefill_ms", prefill,
                     "first_token_ms", encode + prefill + st.decode_s_per_token * 1e3,
                     "per_token_ms", st.decode_s_per_token * 1e3);
}

/* ---- loading ------------------------------------------------------------------------------ */

static json_t *make_report(const server *srv, const vl_picture_info *i, const confined_picture *c,
                           size_t len, picture_limits lim) {
    char digest[33];
    for (int k = 0; k < 16; k++) snprintf(digest + 2 * k, 3, "%02x", i->digest[k]);
    json_t *warnings = json_array();
    for (int k = 0; c && k < c->n_warnings; k++)
        json_array_append_new(warnings, json_string(c->warnings[k]));
    for (int k = 0; k < i->n_warnings; k++)
        json_array_append_new(warnings, json_string(i->warnings[k]));
    double sx = (double)i->resized_width / i->width, sy = (double)i->resized_height / i->height;
    if (sx / sy > 1.03 || sy / sx > 1.03)
        json_array_append_new(warnings, json_string("aspect_changed:over_3_percent"));
    return json_pack("{s:s,s:I,s:i,s:I,s:i,s:i,s:i,s:i,s:[iii],s:i,s:I,s:I,s:s,s:f,s:f,s:o}",
        "format", c ? c->format : i->format, "bytes", (json_int_t)len,
        "orientation", c ? c->orientation : i->orientation, "frame", lim.frame,
        "width", i->width, "height", i->height, "resized_width", i->resized_width,
        "resized_height", i->resized_height, "grid", i->grid_t, i->grid_h, i->grid_w,
        "tokens", i->tokens,
        "min_pixels", (json_int_t)(lim.min_pixels ? lim.min_pixels : srv->info->min_pixels),
        "max_pixels", (json_int_t)(lim.max_pixels ? lim.max_pixels : srv->info->max_pixels),
        "digest", digest, "decode_ms", (c ? c->decode_s : i->decode_s) * 1e3,
        "resize_ms", i->resize_s * 1e3, "warnings", warnings);
}

static void count_picture(server *srv, const vl_picture_info *i, const confined_picture *c) {
    metrics *m = srv->metrics;
    metrics_add(m, M_FORMATS, c ? c->format : i->format, "ok", 1);
    metrics_observe(m, M_T_DECODE, c ? c->decode_s : i->decode_s);
    metrics_observe(m, M_T_RESIZE, i->resize_s);
    metrics_observe(m, M_IMAGE_TOKENS, i->tokens);
    metrics_observe(m, M_IMAGE_PIXELS, (double)i->width * i->height);
}

int picture_load(server *srv, const void *bytes, size_t len, picture_limits limits,
                 const char *param, vl_picture **out, json_t **report, api_error *e) {
    const serve_config *cfg = &srv->config;
    vl_picture_params p = {.min_pixels = limits.min_pixels, .max_pixels = limits.max_pixels,
                           .max_bytes = cfg->image_bytes, .max_decoded_pixels = cfg->image_pixels,
                           .max_ratio = cfg->image_ratio, .frame = (int)limits.frame};
    vl_err err = {0};
    confined_picture c = {0};
    bool confined = srv->sandbox != NULL;
    if ((int64_t)len > cfg->image_bytes)
        return api_fail(e, 413, "image_too_large", param, "an image may have at most %lld bytes",
                        (long long)cfg->image_bytes);
    pthread_once(&decoders_once, decoders_init);
    while (sem_wait(&decoders)) continue;
    int rc;
    if (confined &&
        (rc = sandbox_decode(srv->sandbox, bytes, len, &p, cfg->picture_s, &c, &err)) == 0) {
        p.max_bytes = (int64_t)c.len;
        p.frame = 0;                  /* it is one frame now */
        rc = vl_picture_load(out, srv->model, c.ppm, c.len, "image", &p, &err);
    } else if (!confined) {
        rc = vl_picture_load(out, srv->model, bytes, len, "image", &p, &err);
    }
    sem_post(&decoders);
    if (rc == 0) {
        const vl_picture_info *i = vl_picture_get_info(*out);
        *report = make_report(srv, i, confined ? &c : NULL, len, limits);
        count_picture(srv, i, confined ? &c : NULL);
    } else {
        metrics_add(srv->metrics, M_FORMATS, "unknown", "refused", 1);
        api_fail_engine(e, &err, param);
        e->transient = err.code == VL_E_IO;
    }
    free(c.ppm);
    return rc;
}
