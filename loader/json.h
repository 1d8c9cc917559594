/* json.h: JSON files and fields with limits and clear errors, over Jansson. */
#ifndef VL_JSON_H
#define VL_JSON_H

#include <jansson.h>

#include "common/common.h"

/* Whole file into memory (malloc'd, NUL-terminated). Fails over max_bytes. */
int vl_read_file(const char *path, size_t max_bytes, char **data, size_t *len, vl_err *err);
bool vl_file_exists(const char *path);
/* A JSON file or text; depth and size limited; `what` names it in messages. */
json_t *vl_json_load(const char *path, size_t max_bytes, vl_err *err);
json_t *vl_json_parse(const char *text, size_t len, const char *what, vl_err *err);

/* Field readers: absent or null -> `fallback`; wrong type or out of [lo, hi] -> -1 and a message
 * that names `what`, the key, what was expected and what was found. */
int vl_json_int(const json_t *o, const char *what, const char *key, int64_t lo, int64_t hi,
                int64_t fallback, int64_t *out, vl_err *err);
int vl_json_num(const json_t *o, const char *what, const char *key, double lo, double hi,
                double fallback, double *out, vl_err *err);
int vl_json_bool(const json_t *o, const char *what, const char *key, bool fallback, bool *out,
                 vl_err *err);
/* Borrowed string, or fallback. */
int vl_json_str(const json_t *o, const char *what, const char *key, const char *fallback,
                const char **out, vl_err *err);

#endif
