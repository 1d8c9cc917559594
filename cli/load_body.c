/* load_body.c: request bodies of a load: a workload file or the command line as OpenAI chat
 * requests, pictures inlined as data: URLs, streaming with usage. */
#include <stdlib.h>
#include <string.h>

#include "cli/load.h"
#include "common/common.h"
#include "loader/json.h"

enum { PICTURE_BYTES = 64 << 20, WORKLOAD_BYTES = 64 << 20, KINDS_MAX = 10000 };

/* "data:image/png;base64,..."; malloc'd. The server goes by content, so one media type serves all.
 */
static char *data_url(const char *path, vl_err *err) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    static const char prefix[] = "data:image/png;base64,";
    char *bytes;
    size_t n;
    if (vl_read_file(path, PICTURE_BYTES, &bytes, &n, err)) return NULL;
    char *url = malloc(sizeof prefix + (n + 2) / 3 * 4), *out = url;
    if (!url) vl_fail(err, VL_E_NOMEM, "%s: no memory", path);
    else out = stpcpy(out, prefix);
    for (size_t i = 0; url && i < n; i += 3) {
        unsigned v = 0;
        for (size_t k = 0; k < 3; k++) v = v << 8 | (i + k < n ? (unsigned char)bytes[i + k] : 0);
        for (size_t k = 0; k < 4; k++)
            *out++ = i + k <= n ? digits[v >> (18 - 6 * k) & 63] : '=';
    }
    if (url) *out = '\0';
    free(bytes);
    return url;
}

static int add_part(json_t *parts, const char *image, vl_err *err) {
    char *url = data_url(image, err);
    if (!url) return -1;
    json_array_append_new(parts,
                          json_pack("{s:s,s:{s:s}}", "type", "image_url", "image_url", "url", url));
    free(url);
    return 0;
}

/* fields: what else the body should hold (max_tokens, temperature, ...); reference taken over. */
static int make(load_kind *out, const char *prompt, const json_t *images, json_t *fields,
                const char *model, vl_err *err) {
    json_t *parts = json_array(), *image;
    size_t i;
    int rc = 0;
    json_array_foreach(images, i, image) {
        if (!json_is_string(image))
            rc = vl_fail(err, VL_E_INPUT, "\"images\" must list file names");
        else rc = add_part(parts, json_string_value(image), err);
        if (rc) break;
    }
    json_array_append_new(parts, json_pack("{s:s,s:s}", "type", "text", "text", prompt));
    json_object_set_new(fields, "messages",
                        json_pack("[{s:s,s:o}]", "role", "user", "content", parts));
    json_object_set_new(fields, "model", json_string(model));
    json_object_set_new(fields, "stream", json_true());
    json_object_set_new(fields, "stream_options", json_pack("{s:b}", "include_usage", 1));
    if (!rc) {
        out->body = json_dumps(fields, JSON_COMPACT);
        out->len = out->body ? strlen(out->body) : 0;
        if (!out->body) rc = vl_fail(err, VL_E_INPUT, "the prompt is not valid UTF-8 text");
    }
    json_decref(fields);
    return rc;
}

int load_kind_make(load_kind *out, const char *prompt, const cli_list *images, int64_t max_tokens,
                   const char *model, vl_err *err) {
    json_t *list = json_array();
    for (int i = 0; i < images->n; i++) json_array_append_new(list, json_string(images->v[i]));
    int rc = make(out, prompt, list,
                  json_pack("{s:I,s:b,s:i}", "max_tokens", (json_int_t)max_tokens, "ignore_eos", 1,
                            "temperature", 0), model, err);
    json_decref(list);
    return rc;
}

static int read_line(load_kind *out, const char *line, size_t len, const char *where,
                     const char *model, vl_err *err) {
    const char *prompt;
    json_t *o = vl_json_parse(line, len, where, err);
    if (!o) return -1;
    if (vl_json_str(o, where, "prompt", NULL, &prompt, err) || !prompt) {
        json_decref(o);
        return vl_fail(err, VL_E_INPUT, "%s: \"prompt\" is missing or no text", where);
    }
    json_t *images = json_incref(json_object_get(o, "images")), *fields = json_copy(o);
    json_object_del(fields, "prompt");
    json_object_del(fields, "images");
    int rc = make(out, prompt, images, fields, model, err);
    json_decref(images);
    json_decref(o);
    return rc;
}

int load_kinds_read(load_kind **out, const char *path, const char *model, vl_err *err) {
    char *text, where[128];
    size_t len;
    int n = 0, number = 0;
    if (vl_read_file(path, WORKLOAD_BYTES, &text, &len, err)) return -1;
    load_kind *v = vl_calloc(KINDS_MAX, sizeof *v);
    if (!v) n = vl_fail(err, VL_E_NOMEM, "%s: no memory", path);
    for (char *p = text, *end; n >= 0 && *p; p = end) {
        size_t line = strcspn(p, "\n");
        end = p + line + (p[line] == '\n');
        number++;
        if (strspn(p, " \t\r") >= line) continue;
        snprintf(where, sizeof where, "%s, line %d", path, number);
        if (n == KINDS_MAX) vl_fail(err, VL_E_LIMIT, "%s: more than %d requests", path, KINDS_MAX);
        if (n == KINDS_MAX || read_line(&v[n], p, line, where, model, err)) {
            load_kinds_free(v, n);
            v = NULL;
            n = -1;
            break;
        }
        n++;
    }
    free(text);
    if (n == 0) n = vl_fail(err, VL_E_INPUT, "%s: no request in it", path);
    if (n < 0) free(v);
    else *out = v;
    return n;
}

void load_kinds_free(load_kind *k, int n) {
    for (int i = 0; k && i < n; i++) free(k[i].body);
    free(k);
}
