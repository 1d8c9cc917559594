/* form.c: multipart/form-data over libmicrohttpd's post processor (see http.h). */
#include <stdlib.h>

#include "serve/http.h"

typedef struct form {
    int (*fn)(void *user, const char *name, const char *filename, const char *data, size_t len);
    void *user;
    char *name, *filename, *data;
    size_t len;
    int fields, rc;
} form;

static void form_flush(form *f) {
    if (f->name && f->rc == 0) f->rc = f->fn(f->user, f->name, f->filename, f->data, f->len);
    free(f->name);
    free(f->filename);
    free(f->data);
    f->name = f->filename = f->data = NULL;
    f->len = 0;
}

static enum MHD_Result form_part(void *cls, enum MHD_ValueKind kind, const char *key,
                                 const char *filename, const char *type, const char *encoding,
                                 const char *data, uint64_t off, size_t size) {
    form *f = cls;
    (void)kind;
    (void)type;
    (void)encoding;
    if (off == 0) {
        form_flush(f);
        if (!key || ++f->fields > 64) return MHD_NO;
        f->name = strdup(key);
        f->filename = filename ? strdup(filename) : NULL;
    }
    char *p = realloc(f->data, f->len + size + 1);
    if (!p) return MHD_NO;
    memcpy(p + f->len, data, size);
    f->data = p;
    f->len += size;
    p[f->len] = 0;
    return f->rc ? MHD_NO : MHD_YES;
}

int http_form(http_request *r, int (*fn)(void *user, const char *name, const char *filename,
                                         const char *data, size_t len), void *user, api_error *e) {
    form f = {.fn = fn, .user = user};
    struct MHD_PostProcessor *pp = MHD_create_post_processor(r->conn, 64 << 10, form_part, &f);
    bool ok = pp && r->len && MHD_post_process(pp, r->body, r->len) == MHD_YES;
    ok = pp && MHD_destroy_post_processor(pp) == MHD_YES && ok;
    form_flush(&f);
    if (f.rc) return -1;              /* fn has said why */
    return ok && f.fields ? 0
                          : api_fail(e, 400, "invalid_form", NULL, "malformed multipart/form-data");
}
