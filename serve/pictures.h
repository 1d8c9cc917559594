/* pictures.h: pictures as requests bring them -> vl_picture, with the report the client gets. */
#ifndef SERVE_PICTURES_H
#define SERVE_PICTURES_H

#include "serve/serve.h"

typedef struct blob { char *data; size_t len; } blob;   /* malloc'd */

/* A data: URL with base64 content. Accepted: any or no media type, further parameters, upper case,
 * missing padding, white space, the URL-safe alphabet, percent escapes. Refused with a reason:
 * other schemes, no ";base64", characters outside the alphabet, a cut-off last group. */
int data_url_decode(const char *url, size_t len, size_t max_bytes, blob *out, api_error *e,
                    const char *param);

/* frame: of an animation, from 0; presets and `detail` do not say. */
typedef struct picture_limits { int64_t min_pixels, max_pixels, frame; } picture_limits;
/* A preset of model/preset.h or a `detail` ("low", "high", "auto"); false: no such name. */
bool picture_preset(const server *srv, const char *name, picture_limits *out);

/* Decodes (confined), resizes and cuts a picture; *report is the x_image object. */
int picture_load(server *srv, const void *bytes, size_t len, picture_limits limits,
                 const char *param, vl_picture **out, json_t **report, api_error *e);
/* Warns in the report of a picture that was meant for boxes and has too few tokens for good ones. */
void picture_warn_coarse(json_t *report);
/* Predicted milliseconds for a prompt with this many image tokens, from recent measurements. */
json_t *picture_estimate(server *srv, int image_tokens);

/* ---- uploaded files: in memory only, bounded, per tenant, oldest out first ---------------- */
int files_open(file_store **out, size_t max_bytes, vl_err *err);
void files_free(file_store *s);
/* Takes data on success; returns the file object. */
json_t *files_put(file_store *s, int tenant, const char *name, blob *data, api_error *e);
json_t *files_list(file_store *s, int tenant);
json_t *files_info(file_store *s, int tenant, const char *id);            /* NULL: none */
bool files_delete(file_store *s, int tenant, const char *id);
/* A copy of the bytes. */
int files_get(file_store *s, int tenant, const char *id, blob *out, api_error *e);

#endif
