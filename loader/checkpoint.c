/* checkpoint.c: model.safetensors, or model.safetensors.index.json with its shards, as one table of
 * tensors that lie in read-only mappings. Nothing is copied, with one exception: a tensor whose
 * place in the file does not suit its element size (old writers did not pad) gets an aligned copy,
 * so that users may always read elements through a typed pointer.
 *
 * Easy to get wrong: the index names files, so it could name "../../secret": a shard is a plain
 * file name. A mapped file can shrink at any time: guard.c turns the SIGBUS into a flag.
 */
#define SAFETENSORS_IMPLEMENTATION
#include "loader/safetensors.h"

#include "loader/checkpoint.h"
#include "loader/guard.h"
#include "loader/json.h"

#include <limits.h>
#include <math.h>

_Static_assert(sizeof ((vl_tensor *)0)->shape / sizeof(int64_t) == ST_MAX_RANK, "same rank limit");

enum { MAX_SHARDS = 4096, MAX_INDEX_BYTES = 64 << 20 };

typedef struct shard {
    char *path;
    st_file file;
    vl_guard *guard;
} shard;

struct vl_checkpoint {
    shard *shards;
    size_t n_shards;
    vl_tensor *tensors;
    size_t n, bytes;
    void **copies;              /* of misaligned tensors */
    size_t n_copies;
    uint32_t *slots;            /* hash table: index + 1 into tensors, 0: empty */
    size_t mask;
};

/* ---- lookup ---------------------------------------------------------------------------------- */

/* FNV-1a over two strings in a row, so that prefixes can be swapped without a buffer. */
static uint64_t hash2(const char *prefix, const char *rest) {
    uint64_t h = 14695981039346656037u;
    for (; *prefix; prefix++) h = (h ^ (uint8_t)*prefix) * 1099511628211u;
    for (; *rest; rest++) h = (h ^ (uint8_t)*rest) * 1099511628211u;
    return h ^ h >> 32;
}

static bool equal2(const char *name, const char *prefix, const char *rest) {
    size_t n = strlen(prefix);
    return strncmp(name, prefix, n) == 0 && strcmp(name + n, rest) == 0;
}

/* The slot of the name prefix+rest: its own, or the empty one where it would go. */
static uint32_t *slot_of(const vl_checkpoint *c, const char *prefix, const char *rest) {
    size_t i = hash2(prefix, rest) & c->mask;
    while (c->slots[i] && !equal2(c->tensors[c->slots[i] - 1].name, prefix, rest))
        i = (i + 1) & c->mask;
    return &c->slots[i];
}

const vl_tensor *vl_checkpoint_find(const vl_checkpoint *c, const char *name) {
    static const char *const RENAMED[][2] = { /* today's prefix, the older one */
        {"", ""},
        {"model.visual.", "visual."},
        {"model.language_model.", "model."},
    };
    for (size_t i = 0; i < sizeof RENAMED / sizeof *RENAMED; i++) {
        size_t n = strlen(RENAMED[i][0]);
        if (strncmp(name, RENAMED[i][0], n) != 0) continue;
        uint32_t at = *slot_of(c, RENAMED[i][1], name + n);
        if (at) return &c->tensors[at - 1];
    }
    return NULL;
}

size_t vl_checkpoint_count(const vl_checkpoint *c) { return c->n; }

const vl_tensor *vl_checkpoint_at(const vl_checkpoint *c, size_t i) {
    vl_assert(i < c->n, "tensor %zu of %zu", i, c->n);
    return &c->tensors[i];
}

uint64_t vl_checkpoint_bytes(const vl_checkpoint *c) { return c->bytes; }

const char *vl_checkpoint_metadata(const vl_checkpoint *c, const char *key) {
    const st_file *f = &c->shards[0].file;
    for (size_t i = 0; i < f->n_metadata; i++)
        if (!strcmp(f->metadata[i][0], key)) return f->metadata[i][1];
    return NULL;
}

int vl_checkpoint_identity(const vl_checkpoint *c, uint8_t out[32], vl_err *err) {
    vl_sha256 h;
    vl_sha256_init(&h);
    for (size_t i = 0; i < c->n_shards; i++) {
        const st_file *f = &c->shards[i].file;
        const char *slash = strrchr(c->shards[i].path, '/'), *name = slash ? slash + 1 : c->shards[i].path;
        struct stat st;
        if (fstat(f->fd, &st)) return vl_fail(err, VL_E_IO, "%s: %s", c->shards[i].path, strerror(errno));
        const int64_t about[3] = {st.st_size, st.st_mtim.tv_sec, st.st_mtim.tv_nsec};
        const uint8_t *header = f->map; /* its length, which st_parse has checked, and itself */
        size_t n = 0;
        for (int k = 8; k-- > 0;) n = n << 8 | header[k];
        vl_sha256_add(&h, name, strlen(name) + 1);
        vl_sha256_add(&h, about, sizeof about);
        vl_sha256_add(&h, header, 8 + (n <= f->map_bytes - 8 ? n : 0));
    }
    vl_sha256_end(&h, out);
    return vl_checkpoint_check(c, err);
}

/* ---- opening --------------------------------------------------------------------------------- */

static int open_shard(shard *s, const char *dir, const char *name, vl_err *err) {
    char why[ST_ERROR];
    size_t n = strlen(dir) + strlen(name) + 2;
    s->path = malloc(n);
    if (!s->path) return vl_fail(err, VL_E_NOMEM, "%s: no memory for its path", name);
    snprintf(s->path, n, "%s%s%s", dir, *dir ? "/" : "", name);
    if (st_map(&s->file, s->path, why) < 0) return vl_fail(err, VL_E_IO, "%s: %s", s->path, why);
    s->guard = vl_guard_add(s->file.map, s->file.map_bytes);
    if (!s->guard) return vl_fail(err, VL_E_NOMEM, "%s: no memory to guard it", s->path);
    int rc = st_parse(&s->file, s->file.map, s->file.map_bytes, why);
    if (rc == ST_NO_MEMORY) return vl_fail(err, VL_E_NOMEM, "%s: %s", s->path, why);
    if (rc < 0) return vl_fail(err, VL_E_MODEL, "%s: %s", s->path, why);
    return 0;
}

/* An aligned copy of t's data, kept by c. */
static const void *aligned_copy(vl_checkpoint *c, const st_tensor *t) {
    void **more = realloc(c->copies, (c->n_copies + 1) * sizeof *more);
    if (!more) return NULL;
    c->copies = more;
    void *copy = malloc(t->bytes);
    if (copy) c->copies[c->n_copies++] = memcpy(copy, t->data, t->bytes);
    return copy;
}

static int add_tensor(vl_checkpoint *c, const shard *s, const st_tensor *from, vl_err *err) {
    vl_tensor *t = &c->tensors[c->n];
    *t = (vl_tensor){.name = from->name, .rank = from->rank, .data = from->data,
                     .bytes = from->bytes};
    memcpy(t->shape, from->shape, sizeof t->shape);
    while (strcmp(vl_dtype_name(t->dtype), from->dtype) != 0) {
        t->dtype++;
        vl_assert(t->dtype < VL_DTYPES, "dtype %s is in safetensors.h only", from->dtype);
    }
    if (from->bytes && (uintptr_t)from->data % from->element) {
        t->data = aligned_copy(c, from);
        if (!t->data) return vl_fail(err, VL_E_NOMEM, "%s: no memory to align it", s->path);
    }
    uint32_t *slot = slot_of(c, "", from->name);
    if (*slot)
        return vl_fail(err, VL_E_MODEL, "%s: tensor \"%.80s\" is in another shard as well",
                       s->path, from->name);
    c->bytes += from->bytes;
    *slot = (uint32_t)++c->n;
    return 0;
}

/* The table over all shards, once they are open. */
static int build_table(vl_checkpoint *c, vl_err *err) {
    size_t n = 0, cap = 16;
    for (size_t i = 0; i < c->n_shards; i++) n += c->shards[i].file.n;
    while (cap < 2 * n) cap *= 2;
    if (n >= UINT32_MAX / 2) return vl_fail(err, VL_E_LIMIT, "%zu tensors are too many", n);
    c->mask = cap - 1;
    c->tensors = vl_calloc(n, sizeof *c->tensors);
    c->slots = vl_calloc(cap, sizeof *c->slots);
    if (!c->tensors || !c->slots) return vl_fail(err, VL_E_NOMEM, "no memory for %zu tensors", n);
    for (size_t i = 0; i < c->n_shards; i++)
        for (size_t k = 0; k < c->shards[i].file.n; k++)
            if (add_tensor(c, &c->shards[i], &c->shards[i].file.tensors[k], err) < 0) return -1;
    return vl_checkpoint_check(c, err);
}

/* ---- the sharded index ----------------------------------------------------------------------- */

static bool plain_file_name(const char *s) {
    return *s && *s != '.' && !strpbrk(s, "/\\") && strlen(s) < 256;
}

/* The shard of that name, opened if it is the first time. */
static shard *shard_named(vl_checkpoint *c, const char *dir, const char *name, vl_err *err) {
    size_t skip = strlen(dir) + 1;
    for (size_t i = c->n_shards; i-- > 0;) /* weight maps are sorted: mostly the last one */
        if (strcmp(c->shards[i].path + skip, name) == 0) return &c->shards[i];
    if (c->n_shards == MAX_SHARDS) {
        vl_fail(err, VL_E_LIMIT, "%s: more than %d shards", dir, MAX_SHARDS);
        return NULL;
    }
    shard *more = realloc(c->shards, (c->n_shards + 1) * sizeof *more);
    if (!more) {
        vl_fail(err, VL_E_NOMEM, "%s: no memory for its shards", dir);
        return NULL;
    }
    c->shards = more;
    more += c->n_shards++;
    memset(more, 0, sizeof *more);
    return open_shard(more, dir, name, err) < 0 ? NULL : more;
}

static int open_shards(vl_checkpoint *c, const char *dir, const char *index, const json_t *map,
                       vl_err *err) {
    const char *name;
    json_t *value;
    if (json_object_size(map) == 0)
        return vl_fail(err, VL_E_MODEL, "%s: expected \"weight_map\" with tensor names", index);
    json_object_foreach((json_t *)(uintptr_t)map, name, value) {
        const char *file = json_string_value(value);
        if (!file || !plain_file_name(file))
            return vl_fail(err, VL_E_MODEL,
                           "%s: tensor \"%.80s\": the shard must be a file name without a path",
                           index, name);
        if (!shard_named(c, dir, file, err)) return -1;
    }
    if (build_table(c, err) < 0) return -1;
    json_object_foreach((json_t *)(uintptr_t)map, name, value) {
        if (!*slot_of(c, "", name))
            return vl_fail(err, VL_E_MODEL, "%s: tensor \"%.80s\" is missing from %.80s", index,
                           name, json_string_value(value));
    }
    return 0;
}

/* Takes over *c: hands it out, or frees it. */
static int finish(vl_checkpoint **out, vl_checkpoint *c, int rc) {
    if (rc < 0) vl_checkpoint_free(c);
    else *out = c;
    return rc;
}

static int open_single(vl_checkpoint **out, const char *dir, const char *name, vl_err *err) {
    vl_checkpoint *c = vl_calloc(1, sizeof *c);
    if (c) c->shards = vl_calloc(1, sizeof *c->shards);
    if (!c || !c->shards) {
        free(c);
        return vl_fail(err, VL_E_NOMEM, "%s: no memory to open it", name);
    }
    c->n_shards = 1;
    int rc = open_shard(&c->shards[0], dir, name, err);
    return finish(out, c, rc < 0 ? rc : build_table(c, err));
}

int vl_safetensors_open(vl_checkpoint **out, const char *path, vl_err *err) {
    *out = NULL;
    return open_single(out, "", path, err);
}

int vl_checkpoint_open(vl_checkpoint **out, const char *dir, vl_err *err) {
    char path[PATH_MAX];
    *out = NULL;
    if (strlen(dir) > sizeof path - 64)
        return vl_fail(err, VL_E_IO, "the path of the checkpoint is too long");
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    if (vl_file_exists(path)) return open_single(out, dir, "model.safetensors", err);
    snprintf(path, sizeof path, "%s/model.safetensors.index.json", dir);
    if (!vl_file_exists(path))
        return vl_fail(err, VL_E_IO, "%s: no model.safetensors and no model.safetensors.index.json:"
                       " not a Hugging Face checkpoint folder", dir);
    json_t *index = vl_json_load(path, MAX_INDEX_BYTES, err);
    vl_checkpoint *c = index ? vl_calloc(1, sizeof *c) : NULL;
    if (!c) {
        json_decref(index);
        return index ? vl_fail(err, VL_E_NOMEM, "%s: no memory to open it", dir) : -1;
    }
    int rc = open_shards(c, dir, path, json_object_get(index, "weight_map"), err);
    json_decref(index);
    return finish(out, c, rc);
}

void vl_checkpoint_free(vl_checkpoint *c) {
    if (!c) return;
    for (size_t i = 0; i < c->n_shards; i++) {
        vl_guard_remove(c->shards[i].guard);
        st_close(&c->shards[i].file);
        free(c->shards[i].path);
    }
    for (size_t i = 0; i < c->n_copies; i++) free(c->copies[i]);
    free(c->copies);
    free(c->shards);
    free(c->tensors);
    free(c->slots);
    free(c);
}

/* ---- after opening --------------------------------------------------------------------------- */

int vl_checkpoint_check(const vl_checkpoint *c, vl_err *err) {
    for (size_t i = 0; i < c->n_shards; i++) {
        const shard *s = &c->shards[i];
        struct stat st;
        if (vl_guard_broken(s->guard) || fstat(s->file.fd, &st) != 0 ||
            (uintmax_t)st.st_size < s->file.map_bytes)
            return vl_fail(err, VL_E_IO, "%s: shrank or became unreadable while it was in use "
                           "(expected %zu bytes); load the model again", s->path,
                           s->file.map_bytes);
    }
    return 0;
}

bool vl_tensor_finite(const vl_tensor *t) {
    static const vl_dtype FLOATS[] = {VL_F32, VL_F16, VL_BF16, VL_F64, VL_F8_E4M3, VL_F8_E5M2};
    bool is_float = false;
    for (size_t i = 0; i < sizeof FLOATS / sizeof *FLOATS; i++) is_float |= t->dtype == FLOATS[i];
    size_t each = vl_dtype_size(t->dtype), n = is_float ? t->bytes / each : 0;
    float piece[1024];
    for (size_t at = 0; at < n; at += 1024) {
        size_t m = n - at < 1024 ? n - at : 1024;
        vl_widen(piece, (const uint8_t *)t->data + at * each, t->dtype, m);
        for (size_t i = 0; i < m; i++)
            if (!isfinite(piece[i])) return false;
    }
    return true;
}

void vl_checkpoint_release(const void *data, size_t bytes) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t begin = ((uintptr_t)data + page - 1) & ~(page - 1);
    uintptr_t end = ((uintptr_t)data + bytes) & ~(page - 1);
    /* Only mapped files: dropping heap pages (an aligned copy) would zero them. */
    if (begin < end && vl_guard_covers(data, bytes))
        madvise((void *)begin, end - begin, MADV_DONTNEED);
}
