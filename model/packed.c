/* packed.c: see packed.h. The cache is a safetensors file, so its table goes through the parser that trusts
 * nothing and its pages are guarded as a checkpoint's are:
 *
 *   "FORMAT NAME"    U8 [bytes]: the panels of matrix NAME in layout FORMAT, 64-byte aligned
 *   __metadata__     "source": vl_checkpoint_identity of the checkpoint it was made from
 *                    "FORMAT NAME": SHA-256 of those bytes, compared by `vitreous pack --check` only
 *                    "check": SHA-256 of all of the above and of the version, compared at every start
 *
 * Panels are numbers: whatever they hold, ops stay inside them, since every size is taken from the
 * checkpoint and must be that of the file. A change of what packing makes of the same weights must raise
 * PACK_VERSION (or give the layout another name).
 */
#include "model/packed.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "loader/json.h"
#include "vitreous.h"

#define PACK_VERSION "vitreous pack 1, " VL_VERSION

enum { MOST_MATRICES = 8192 };     /* 32B has a thousand; each is looked up in the metadata  */

typedef char hex[65];

struct vl_packed {
    vl_checkpoint *file;
    char path[PATH_MAX];
    int found, missed;             /* matrices that prepare() asked for                       */
};

static void hash_bytes(hex out, const void *data, size_t n) {
    vl_sha256 h;
    uint8_t sum[32];
    vl_sha256_init(&h);
    vl_sha256_add(&h, data, n);
    vl_sha256_end(&h, sum);
    vl_hex(out, sum, 32);
}

/* ---- where it is ----------------------------------------------------------------------------- */

/* DIR/ID of the model's folder, for caches of many models in one place. */
static bool place_in(char path[PATH_MAX], const char *cache, const char *dir, const char *kind) {
    char real[PATH_MAX];
    hex id;
    if (!realpath(dir, real)) return false;
    hash_bytes(id, real, strlen(real));
    return snprintf(path, PATH_MAX, "%s/%.16s%s.cache", cache, id, kind) < PATH_MAX;
}

/* The places to look at, or (write) the one to write to; how many. */
static int places(char path[2][PATH_MAX], const char *dir, const vl_backend *b, bool write) {
    const char *set = getenv("VL_PACK_CACHE");
    const char *kind = !strcmp(b->dtype, "int8") ? "-int8" : !strcmp(b->dtype, "int4") ? "-int4" : "";
    char cache[PATH_MAX];
    int n = 0;
    if (set && !strcmp(set, "off")) return 0;
    if (set && *set) return place_in(path[0], set, dir, kind);
    if (!write || access(dir, W_OK) == 0)
        n += snprintf(path[0], PATH_MAX, "%s/vitreous-packed%s.cache", dir, kind) < PATH_MAX;
    if ((write && n) || !vl_user_cache(cache, sizeof cache, write)) return n;
    return n + place_in(path[n], cache, dir, kind);
}

/* ---- reading --------------------------------------------------------------------------------- */

typedef struct summary { vl_sha256 h; hex out; } summary;

static void add_text(summary *s, const char *text) { vl_sha256_add(&s->h, text, strlen(text) + 1); }

/* "check", over all that the table says: of n tensors about to be written (digests behind their names), or
 * of an opened file. */
static bool summarise(summary *s, const char *source, const vl_tensor *t, size_t n, const vl_checkpoint *file) {
    uint8_t sum[32];
    vl_sha256_init(&s->h);
    add_text(s, PACK_VERSION);
    add_text(s, source);
    for (size_t i = 0; i < n; i++) {
        const vl_tensor *x = file ? vl_checkpoint_at(file, i) : &t[i];
        const uint64_t bytes = x->bytes;
        const char *digest = file ? vl_checkpoint_metadata(file, x->name) : x->name + strlen(x->name) + 1;
        if (!digest) return false;
        add_text(s, x->name);
        vl_sha256_add(&s->h, &bytes, sizeof bytes);
        add_text(s, digest);
    }
    vl_sha256_end(&s->h, sum);
    vl_hex(s->out, sum, 32);
    return true;
}

static const void *find(void *user, const char *name, const char *format, size_t bytes) {
    vl_packed *p = user;
    char key[256];
    int n = snprintf(key, sizeof key, "%s %s", format, name);
    const vl_tensor *t = n > 0 && (size_t)n < sizeof key ? vl_checkpoint_find(p->file, key) : NULL;
    bool fits = t && t->dtype == VL_U8 && t->bytes == bytes && (uintptr_t)t->data % 64 == 0;
    p->found += fits;
    p->missed += !fits;
    return fits ? t->data : NULL;
}

/* Why the opened file cannot be used for this source; NULL: it can. */
static const char *unfit(const vl_checkpoint *file, const hex source) {
    const char *made_from = vl_checkpoint_metadata(file, "source"), *check = vl_checkpoint_metadata(file, "check");
    summary s;
    if (!made_from || !check || vl_checkpoint_count(file) > MOST_MATRICES) return "it is not a pack cache";
    if (!summarise(&s, made_from, NULL, vl_checkpoint_count(file), file) || strcmp(s.out, check))
        return "it is damaged, or another version of vitreous wrote it";
    return strcmp(made_from, source) ? "the checkpoint has changed since" : NULL;
}

static vl_packed *open_at(const char *path, const hex source, char *note, size_t n) {
    vl_packed *p = vl_calloc(1, sizeof *p);
    vl_err err = {0};
    if (!p) return NULL;
    memcpy(p->path, path, strlen(path) + 1); /* from places() */
    const char *why = vl_safetensors_open(&p->file, path, &err) ? err.msg : unfit(p->file, source);
    if (!why) return p;
    if (!*note)
        snprintf(note, n, "pack cache %s is ignored: %s; `vitreous pack` writes it anew", path, why);
    vl_packed_free(p);
    return NULL;
}

vl_packed *vl_packed_open(const char *dir, const vl_checkpoint *c, vl_backend *b, char *note, size_t n) {
    char path[2][PATH_MAX];
    uint8_t id[32];
    hex source = "";
    vl_packed *p = NULL;
    *note = 0;
    if (!vl_backend_use_packed(b, &(vl_packed_store){0})) return NULL;
    for (int i = 0, count = places(path, dir, b, false); i < count && !p; i++) {
        if (!vl_file_exists(path[i])) continue;
        if (!*source && vl_checkpoint_identity(c, id, NULL)) return NULL;
        vl_hex(source, id, 32);
        p = open_at(path[i], source, note, n);
    }
    if (!p) return NULL;
    *note = 0; /* the second place may have what the first had not */
    vl_backend_use_packed(b, &(vl_packed_store){find, p});
    return p;
}

void vl_packed_note(const vl_packed *p, char *note, size_t n) {
    if (p && p->missed)
        snprintf(note, n, "pack cache %s lacks %d of %d matrices in the layout used here; `vitreous pack` writes "
                 "it anew", p->path, p->missed, p->found + p->missed);
}

int vl_packed_check(const vl_packed *p, vl_err *err) { return p ? vl_checkpoint_check(p->file, err) : 0; }

void vl_packed_free(vl_packed *p) {
    if (p) vl_checkpoint_free(p->file);
    free(p);
}

static int needs_cpu(vl_backend *b, vl_err *err) {
    if (vl_backend_use_packed(b, &(vl_packed_store){0})) return 0;
    return vl_fail(err, VL_E_UNSUPPORTED, "only the CPU backend has packed weights: --backend cpu");
}

int vl_packed_verify(const char *dir, const vl_checkpoint *c, vl_backend *b, char *path, size_t n, vl_err *err) {
    char note[sizeof err->msg];
    if (needs_cpu(b, err)) return -1;
    vl_packed *p = vl_packed_open(dir, c, b, note, sizeof note);
    if (!p) return vl_fail(err, VL_E_MODEL, "%s", *note ? note : "there is no pack cache; `vitreous pack` writes one");
    vl_backend_use_packed(b, &(vl_packed_store){0});
    snprintf(path, n, "%s", p->path);
    int rc = 0;
    for (size_t i = 0; !rc && i < vl_checkpoint_count(p->file); i++) {
        const vl_tensor *t = vl_checkpoint_at(p->file, i);
        hex sum;
        hash_bytes(sum, t->data, t->bytes);
        vl_checkpoint_release(t->data, t->bytes);
        if (strcmp(sum, vl_checkpoint_metadata(p->file, t->name)))
            rc = vl_fail(err, VL_E_MODEL, "%s: the data of \"%.80s\" are damaged; `vitreous pack` writes the cache "
                         "anew", path, t->name);
    }
    if (!rc) rc = vl_packed_check(p, err);
    vl_packed_free(p);
    return rc;
}

/* ---- writing --------------------------------------------------------------------------------- */

typedef struct writing {
    vl_tensor *v;                  /* name: malloc'd, its digest behind the NUL               */
    size_t n, cap;
} writing;

static int add(void *user, const char *name, const char *format, const void *data, size_t bytes) {
    writing *w = user;
    size_t len = strlen(format) + strlen(name) + 2;
    if (w->n == w->cap) {
        size_t cap = w->cap ? 2 * w->cap : 256;
        vl_tensor *more = realloc(w->v, cap * sizeof *more);
        if (!more) return -1;
        w->v = more;
        w->cap = cap;
    }
    char *text = malloc(len + sizeof(hex));
    if (!text) return -1;
    snprintf(text, len, "%s %s", format, name);
    hash_bytes(text + len, data, bytes);
    w->v[w->n++] = (vl_tensor){.name = text, .dtype = VL_U8, .rank = 1, .shape = {(int64_t)bytes}, .data = data,
                               .bytes = bytes};
    return 0;
}

/* Under a name of its own, to the disk, then renamed: writers at the same time cannot mix, and a loss of
 * power leaves the old file or the new one. */
static int put(const char *path, const writing *w, const char *const *metadata, vl_err *err) {
    char own[PATH_MAX + 32];
    uint64_t random = 0;
    if (getrandom(&random, sizeof random, 0) != sizeof random) random = (uint64_t)(vl_now() * 1e9);
    snprintf(own, sizeof own, "%s.%016llx", path, (unsigned long long)random);
    if (vl_safetensors_write(own, w->v, w->n, metadata, err)) return -1;
    int fd = open(own, O_RDONLY | O_CLOEXEC);
    bool ok = fd >= 0 && fsync(fd) == 0;
    ok = ok && rename(own, path) == 0;
    int rc = ok ? 0 : vl_fail(err, VL_E_IO, "%s: cannot write: %s", path, strerror(errno));
    if (fd >= 0) close(fd);
    if (rc) unlink(own);
    return rc;
}

static int write_at(const char *path, const vl_checkpoint *c, const writing *w, vl_err *err) {
    uint8_t id[32];
    hex source;
    summary s;
    const char **meta = vl_calloc(2 * w->n + 5, sizeof *meta);
    if (!meta) return vl_fail(err, VL_E_NOMEM, "no memory for %zu names", w->n);
    int rc = vl_checkpoint_identity(c, id, err);
    if (!rc) {
        vl_hex(source, id, 32);
        summarise(&s, source, w->v, w->n, NULL);
        const char *const head[] = {"source", source, "check", s.out};
        memcpy(meta, head, sizeof head);
        for (size_t i = 0; i < w->n; i++) {
            meta[4 + 2 * i] = w->v[i].name;
            meta[5 + 2 * i] = w->v[i].name + strlen(w->v[i].name) + 1;
        }
        rc = put(path, w, meta, err);
    }
    free(meta);
    return rc;
}

int vl_packed_write(const char *dir, const vl_checkpoint *c, vl_backend *b, char *path, size_t n, vl_err *err) {
    char place[2][PATH_MAX];
    writing w = {0};
    if (needs_cpu(b, err)) return -1;
    if (!places(place, dir, b, true))
        return vl_fail(err, VL_E_IO, "no place for the pack cache: set VL_PACK_CACHE to a folder");
    snprintf(path, n, "%s", place[0]);
    int rc = vl_backend_each_packed(b, add, &w);
    if (rc) vl_fail(err, VL_E_NOMEM, "no memory for the names of the weights");
    else if (!w.n) rc = vl_fail(err, VL_E_MODEL, "%s: there is nothing to pack", dir);
    /* a source that shrank meanwhile was packed as zeros */
    if (!rc && !(rc = vl_checkpoint_check(c, err))) rc = write_at(place[0], c, &w, err);
    for (size_t i = 0; i < w.n; i++) free((char *)(uintptr_t)w.v[i].name);
    free(w.v);
    return rc;
}
