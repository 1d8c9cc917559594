/* files.c: uploaded files (see pictures.h). They are kept in memory, never on disk. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "serve/pictures.h"

typedef struct file {
    struct file *next;                /* newest first */
    int tenant;
    char id[40], name[96];
    int64_t created;
    blob data;
} file;

struct file_store { pthread_mutex_t lock; file *head; size_t bytes, max_bytes; };

/* What it takes of the bound: small ones must not come for nothing. */
static size_t size_of(const blob *data) { return sizeof(file) + data->len; }

int files_open(file_store **out, size_t max_bytes, vl_err *err) {
    file_store *s = vl_calloc(1, sizeof *s);
    if (!s) return vl_fail(err, VL_E_NOMEM, "out of memory");
    pthread_mutex_init(&s->lock, NULL);
    s->max_bytes = max_bytes;
    *out = s;
    return 0;
}

static void drop(file_store *s, file **p) {
    file *f = *p;
    *p = f->next;
    s->bytes -= size_of(&f->data);
    free(f->data.data);
    free(f);
}

void files_free(file_store *s) {
    if (!s) return;
    while (s->head) drop(s, &s->head);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

static json_t *describe(const file *f) {
    return json_pack("{s:s,s:s,s:I,s:I,s:s,s:s}", "id", f->id, "object", "file", "bytes",
                     (json_int_t)f->data.len, "created_at", (json_int_t)f->created, "filename",
                     f->name, "purpose", "vision");
}

static file **find(file_store *s, int tenant, const char *id) {
    for (file **p = &s->head; *p; p = &(*p)->next)
        if ((*p)->tenant == tenant && !strcmp((*p)->id, id)) return p;
    return NULL;
}

json_t *files_put(file_store *s, int tenant, const char *name, blob *data, api_error *e) {
    if (!data->len) {
        api_fail(e, 400, "invalid_value", "file", "the file is empty");
        return NULL;
    }
    file *f = vl_calloc(1, sizeof *f);
    if (!f || size_of(data) > s->max_bytes) {
        free(f);
        api_fail(e, 413, "file_too_large", "file", "at most %zu bytes of files are kept",
                 s->max_bytes);
        return NULL;
    }
    new_id(f->id, sizeof f->id, "file-");
    for (size_t n = 0; name && *name && n + 1 < sizeof f->name; name++)
        if ((unsigned char)*name >= 32 && (unsigned char)*name < 127) f->name[n++] = *name;
    f->tenant = tenant;
    f->created = (int64_t)time(NULL);
    f->data = *data;
    *data = (blob){0};
    pthread_mutex_lock(&s->lock);
    f->next = s->head;
    s->head = f;
    s->bytes += size_of(&f->data);
    while (s->bytes > s->max_bytes) {
        file **p = &s->head;
        while ((*p)->next) p = &(*p)->next;
        drop(s, p);
    }
    json_t *o = describe(f);
    pthread_mutex_unlock(&s->lock);
    return o;
}

json_t *files_list(file_store *s, int tenant) {
    json_t *list = json_array();
    pthread_mutex_lock(&s->lock);
    for (const file *f = s->head; f; f = f->next)
        if (f->tenant == tenant) json_array_append_new(list, describe(f));
    pthread_mutex_unlock(&s->lock);
    return json_pack("{s:s,s:o}", "object", "list", "data", list);
}

json_t *files_info(file_store *s, int tenant, const char *id) {
    pthread_mutex_lock(&s->lock);
    file **p = find(s, tenant, id);
    json_t *o = p ? describe(*p) : NULL;
    pthread_mutex_unlock(&s->lock);
    return o;
}

bool files_delete(file_store *s, int tenant, const char *id) {
    pthread_mutex_lock(&s->lock);
    file **p = find(s, tenant, id);
    if (p) drop(s, p);
    pthread_mutex_unlock(&s->lock);
    return p != NULL;
}

int files_get(file_store *s, int tenant, const char *id, blob *out, api_error *e) {
    int rc = 0;
    *out = (blob){0};
    pthread_mutex_lock(&s->lock);
    file **p = find(s, tenant, id);
    if (!p) rc = api_fail(e, 404, "file_not_found", "file_id", "no such file; it may have expired");
    else if (!(out->data = malloc((*p)->data.len + 1)))
        rc = api_fail(e, 500, "out_of_memory", NULL, "out of memory");
    else memcpy(out->data, (*p)->data.data, out->len = (*p)->data.len);
    pthread_mutex_unlock(&s->lock);
    return rc;
}
