/* safetensors_write.c: the one writer of safetensors files.
 *
 * Tensors are laid out by falling element size (within that, as given) after a header that ends on a
 * multiple of 64 bytes, so every tensor of the file is aligned. The file appears under its name only when
 * it is whole: it is written beside it and renamed.
 */
#include "loader/checkpoint.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static size_t bytes_of(const vl_tensor *t) {
    size_t n = vl_dtype_size(t->dtype);
    vl_assert(t->rank >= 0 && t->rank <= 8, "%s: rank %d", t->name, t->rank);
    for (int i = 0; i < t->rank; i++)
        vl_assert(t->shape[i] >= 0 && vl_mul_ok(n, (size_t)t->shape[i], &n), "%s: shape", t->name);
    vl_assert(n == t->bytes, "%s: %zu bytes, the shape needs %zu", t->name, t->bytes, n);
    return n;
}

/* The next dtype size to lay out: 8, 4, 2, 1. */
#define FOR_EACH_IN_LAYOUT(size, i, tensors, n)   \
    for (size_t size = 8; size > 0; size /= 2)    \
        for (size_t i = 0; i < (n); i++)          \
            if (vl_dtype_size((tensors)[i].dtype) == size)

static json_t *entry_of(const vl_tensor *t, size_t at) {
    json_t *shape = json_array();
    for (int i = 0; i < t->rank; i++) json_array_append_new(shape, json_integer(t->shape[i]));
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", vl_dtype_name(t->dtype), "shape", shape,
                     "data_offsets", (json_int_t)at, (json_int_t)(at + t->bytes));
}

/* The header as compact JSON (malloc'd), or NULL: no memory, or a name that is not UTF-8. */
static char *header_of(const vl_tensor *tensors, size_t n, const char *const *metadata) {
    json_t *root = json_object(), *meta = metadata && *metadata ? json_object() : NULL;
    bool ok = root != NULL;
    for (; meta && *metadata; metadata += 2)
        ok &= json_object_set_new(meta, metadata[0], json_string(metadata[1])) == 0;
    if (meta) ok &= json_object_set_new(root, "__metadata__", meta) == 0;
    size_t at = 0;
    FOR_EACH_IN_LAYOUT(size, i, tensors, n) {
        ok &= json_object_set_new(root, tensors[i].name, entry_of(&tensors[i], at)) == 0;
        at += bytes_of(&tensors[i]);
    }
    vl_assert(!ok || json_object_size(root) == n + (meta != NULL), "two tensors of one name");
    char *text = ok ? json_dumps(root, JSON_COMPACT) : NULL;
    json_decref(root);
    return text;
}

/* A tensor's data: what it points to, or what fill makes, piece by piece. */
static bool write_data(FILE *f, const vl_tensor *t, vl_tensor_fill fill, void *user) {
    enum { PIECE = 1 << 18 };
    if (t->data || !t->bytes) return !t->bytes || fwrite(t->data, t->bytes, 1, f) == 1;
    if (!fill) return fseeko(f, (off_t)t->bytes, SEEK_CUR) == 0;
    void *piece = malloc(PIECE);
    bool ok = piece != NULL;
    for (size_t at = 0; ok && at < t->bytes; at += PIECE) {
        size_t len = t->bytes - at < PIECE ? t->bytes - at : PIECE;
        fill(user, t, at, piece, len);
        ok = fwrite(piece, len, 1, f) == 1;
    }
    free(piece);
    return ok;
}

static bool write_all(FILE *f, const vl_tensor *tensors, size_t n, const char *header,
                      vl_tensor_fill fill, void *user) {
    size_t len = strlen(header), padded = ((8 + len + 63) & ~(size_t)63) - 8;
    uint8_t prefix[8];
    for (int i = 0; i < 8; i++) prefix[i] = (uint8_t)(padded >> (8 * i));
    bool ok = fwrite(prefix, 8, 1, f) == 1 &&
              fprintf(f, "%s%*s", header, (int)(padded - len), "") == (int)padded;
    FOR_EACH_IN_LAYOUT(size, i, tensors, n)
        ok = ok && write_data(f, &tensors[i], fill, user);
    return ok && fflush(f) == 0 && ftruncate(fileno(f), ftello(f)) == 0;
}

int vl_safetensors_write(const char *path, const vl_tensor *tensors, size_t n,
                         const char *const *metadata, vl_err *err) {
    return vl_safetensors_stream(path, tensors, n, metadata, NULL, NULL, err);
}

int vl_safetensors_stream(const char *path, const vl_tensor *tensors, size_t n,
                          const char *const *metadata, vl_tensor_fill fill, void *user,
                          vl_err *err) {
    char *header = header_of(tensors, n, metadata);
    size_t cap = strlen(path) + sizeof ".partial";
    char *partial = malloc(cap);
    if (!header || !partial) {
        free(header);
        free(partial);
        return vl_fail(err, VL_E_NOMEM, "%s: no memory for its header", path);
    }
    snprintf(partial, cap, "%s.partial", path);
    FILE *f = fopen(partial, "wb");
    bool ok = f && write_all(f, tensors, n, header, fill, user);
    if (f) ok = (fclose(f) == 0) && ok;
    ok = ok && rename(partial, path) == 0;
    int rc = ok ? 0 : vl_fail(err, VL_E_IO, "%s: cannot write: %s", path, strerror(errno));
    if (!ok && f) unlink(partial);
    free(header);
    free(partial);
    return rc;
}
