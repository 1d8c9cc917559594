/* json.c: files and JSON fields with limits and clear errors, over Jansson.
 *
 * Easy to get wrong: Jansson recurses up to 2048 levels and quotes raw input in its messages;
 * here the depth is checked before it runs, and only the fixed part of its message is passed on.
 */
#include "loader/json.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_DEPTH = 64 };

bool vl_file_exists(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

/* Reads fd to its end into *data; the buffer grows by doubling, so a pipe works like a file. */
static int read_all(int fd, const char *path, size_t guess, size_t max_bytes, char **data,
                    size_t *len, vl_err *err) {
    size_t cap = (guess < max_bytes ? guess : max_bytes) + 2, n = 0;
    char *buf = malloc(cap);
    while (buf) {
        ssize_t got = read(fd, buf + n, cap - 1 - n);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) {
            free(buf);
            return vl_fail(err, VL_E_IO, "%s: cannot read: %s", path, strerror(errno));
        }
        n += (size_t)got;
        if (n > max_bytes) {
            free(buf);
            return vl_fail(err, VL_E_LIMIT, "%s: larger than the limit of %zu bytes", path,
                           max_bytes);
        }
        if (got == 0) {
            buf[n] = 0;
            *data = buf;
            *len = n;
            return 0;
        }
        if (n + 1 < cap) continue;
        char *more = realloc(buf, cap *= 2);
        if (!more) free(buf);
        buf = more;
    }
    return vl_fail(err, VL_E_NOMEM, "%s: no memory to read it", path);
}

int vl_read_file(const char *path, size_t max_bytes, char **data, size_t *len, vl_err *err) {
    vl_assert(max_bytes < SIZE_MAX / 4, "limit %zu", max_bytes);
    *data = NULL;
    *len = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return vl_fail(err, VL_E_IO, "%s: cannot open: %s", path, strerror(errno));
    struct stat st;
    int rc;
    if (fstat(fd, &st) != 0 || S_ISDIR(st.st_mode))
        rc = vl_fail(err, VL_E_IO, "%s: is a directory, expected a file", path);
    else if (S_ISREG(st.st_mode) && st.st_size > 0 && (uintmax_t)st.st_size > max_bytes)
        rc = vl_fail(err, VL_E_LIMIT, "%s: %jd bytes, the limit is %zu", path,
                     (intmax_t)st.st_size, max_bytes);
    else
        rc = read_all(fd, path, st.st_size > 4096 ? (size_t)st.st_size : 4096, max_bytes, data,
                      len, err);
    close(fd);
    return rc;
}

/* True when brackets outside strings never nest deeper than MAX_DEPTH. */
static bool depth_ok(const char *s, size_t len) {
    int depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < len; i++) {
        if (in_string) {
            if (s[i] == '\\') i++;
            else if (s[i] == '"') in_string = false;
        } else if (s[i] == '"') {
            in_string = true;
        } else if (s[i] == '[' || s[i] == '{') {
            if (++depth > MAX_DEPTH) return false;
        } else if (s[i] == ']' || s[i] == '}') {
            depth--;
        }
    }
    return true;
}

json_t *vl_json_parse(const char *text, size_t len, const char *what, vl_err *err) {
    if (!depth_ok(text, len)) {
        vl_fail(err, VL_E_INPUT, "%s: JSON nested deeper than %d levels", what, MAX_DEPTH);
        return NULL;
    }
    json_error_t je;
    json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &je);
    if (!root && je.line < 0) { /* no place in the text: Jansson ran out of memory */
        vl_fail(err, VL_E_NOMEM, "%s: no memory to parse it", what);
    } else if (!root) {
        char *near = strstr(je.text, " near ");
        if (near) *near = 0;
        vl_fail(err, VL_E_INPUT, "%s: not valid JSON at line %d column %d: %s", what, je.line,
                je.column, je.text);
    }
    return root;
}

json_t *vl_json_load(const char *path, size_t max_bytes, vl_err *err) {
    char *text;
    size_t len;
    if (vl_read_file(path, max_bytes, &text, &len, err) < 0) return NULL;
    json_t *root = vl_json_parse(text, len, path, err);
    free(text);
    return root;
}

/* ---- fields ---------------------------------------------------------------------------------- */

static const char *type_name(const json_t *v) {
    static const char *const NAMES[] = {
        [JSON_OBJECT] = "an object", [JSON_ARRAY] = "an array",  [JSON_STRING] = "a string",
        [JSON_INTEGER] = "an integer", [JSON_REAL] = "a real number", [JSON_TRUE] = "true",
        [JSON_FALSE] = "false",      [JSON_NULL] = "null",
    };
    return NAMES[json_typeof(v)];
}

/* The field, or NULL where it is absent or null. */
static const json_t *field(const json_t *o, const char *key) {
    const json_t *v = json_object_get(o, key);
    return json_is_null(v) ? NULL : v;
}

static int wrong_type(const char *what, const char *key, const char *expected, const json_t *v,
                      vl_err *err) {
    return vl_fail(err, VL_E_INPUT, "%s: \"%s\": expected %s, found %s", what, key, expected,
                   type_name(v));
}

int vl_json_int(const json_t *o, const char *what, const char *key, int64_t lo, int64_t hi,
                int64_t fallback, int64_t *out, vl_err *err) {
    const json_t *v = field(o, key);
    *out = fallback;
    if (!v) return 0;
    if (!json_is_integer(v)) return wrong_type(what, key, "an integer", v, err);
    int64_t n = json_integer_value(v);
    if (n < lo || n > hi)
        return vl_fail(err, VL_E_INPUT, "%s: \"%s\": expected %lld to %lld, found %lld", what, key,
                       (long long)lo, (long long)hi, (long long)n);
    *out = n;
    return 0;
}

int vl_json_num(const json_t *o, const char *what, const char *key, double lo, double hi,
                double fallback, double *out, vl_err *err) {
    const json_t *v = field(o, key);
    *out = fallback;
    if (!v) return 0;
    if (!json_is_number(v)) return wrong_type(what, key, "a number", v, err);
    double n = json_number_value(v);
    if (!(n >= lo && n <= hi))
        return vl_fail(err, VL_E_INPUT, "%s: \"%s\": expected %g to %g, found %g", what, key, lo,
                       hi, n);
    *out = n;
    return 0;
}

int vl_json_bool(const json_t *o, const char *what, const char *key, bool fallback, bool *out,
                 vl_err *err) {
    const json_t *v = field(o, key);
    *out = fallback;
    if (!v) return 0;
    if (!json_is_boolean(v)) return wrong_type(what, key, "true or false", v, err);
    *out = json_is_true(v);
    return 0;
}

int vl_json_str(const json_t *o, const char *what, const char *key, const char *fallback,
                const char **out, vl_err *err) {
    const json_t *v = field(o, key);
    *out = fallback;
    if (!v) return 0;
    if (!json_is_string(v)) return wrong_type(what, key, "a string", v, err);
    *out = json_string_value(v);
    return 0;
}
