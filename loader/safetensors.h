/* safetensors.h: a strict reader for .safetensors files in one header, needing only libc.
 *
 * In ONE C file:      #define SAFETENSORS_IMPLEMENTATION
 *                     #include "safetensors.h"
 * everywhere else:    #include "safetensors.h"
 *
 *     st_file f;
 *     char why[ST_ERROR];
 *     if (st_open(&f, "model.safetensors", why) < 0) { puts(why); return 1; }
 *     for (size_t i = 0; i < f.n; i++) printf("%s at %p\n", f.tensors[i].name, f.tensors[i].data);
 *     st_close(&f);
 *
 * st_parse does the same for bytes that are in memory already; it allocates only the table.
 *
 * The format: 8 bytes little-endian header length N, N bytes of JSON, then the tensor data:
 *     {"__metadata__": {"k": "v"}, "name": {"dtype": "BF16", "shape": [2, 3],
 *      "data_offsets": [0, 12]}, ...}            offsets count from the end of the header
 *
 * Nothing in the file is believed before it is checked, and every sum and product is checked:
 *   - the header lies in the file, is at most 100 MB, begins with '{', is strict JSON in UTF-8
 *     and ends with nothing but white space;
 *   - no key appears twice, on any level; at most 100,000 tensors; rank at most 8;
 *   - dtype is known, shape holds non-negative integers, their product times the element size
 *     fits and equals the span of data_offsets;
 *   - the spans cover the data area exactly: no overlap, no hole, the last one ends at the end
 *     of the file. (A file with a second format hidden in a gap is refused.)
 *
 * Easy to get wrong: the data need not be aligned. Old writers did not pad the header, and a U8
 * tensor of odd size shifts all that follow, so read elements with memcpy or test the pointer.
 * A file that shrinks while it is mapped raises SIGBUS on access; that is the caller's to guard.
 * It needs POSIX (open, mmap): with -std=c17 compile with -D_DEFAULT_SOURCE as well.
 */
#ifndef SAFETENSORS_H
#define SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

enum { ST_ERROR = 200, ST_MAX_RANK = 8, ST_MAX_TENSORS = 100000, ST_MAX_HEADER = 100000000 };

typedef struct st_tensor {
    const char *name;           /* UTF-8, NUL-terminated, owned by the st_file           */
    const char *dtype;          /* "F32", "BF16", ...: a static string                   */
    size_t element;             /* bytes of one element                                  */
    int rank;                   /* 0: a scalar                                           */
    int64_t shape[ST_MAX_RANK];
    const void *data;           /* into the file's bytes, perhaps unaligned              */
    size_t bytes;
} st_tensor;

typedef struct st_file {
    size_t n;
    st_tensor *tensors;         /* in the order of the data                              */
    size_t n_metadata;
    const char *(*metadata)[2]; /* key, value pairs of "__metadata__"                    */
    char *strings;              /* what the names point into                             */
    const void *map;            /* st_map only, else NULL: the mapping and the open file */
    size_t map_bytes;
    int fd;
} st_file;

/* All return 0, or ST_BAD_FILE or ST_NO_MEMORY with the reason in error (ST_ERROR bytes, or NULL).
 * st_open is st_map, then st_parse of the mapping, and leaves *f zeroed when it fails. Use the two
 * where something must happen in between (a SIGBUS guard, say). */
enum { ST_BAD_FILE = -1, ST_NO_MEMORY = -2 };
int st_open(st_file *f, const char *path, char *error);
/* Maps a whole file read-only and keeps it open; *f need not be initialised. */
int st_map(st_file *f, const char *path, char *error);
/* Reads the table of `len` bytes, which must outlive *f. *f is zeroed or comes from st_map. */
int st_parse(st_file *f, const void *bytes, size_t len, char *error);
/* Frees the table and the mapping; fine on a zeroed st_file. */
void st_close(st_file *f);

#endif /* SAFETENSORS_H */

#ifdef SAFETENSORS_IMPLEMENTATION

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct { char name[10]; size_t size; } ST_DTYPES[] = {
    {"F32", 4}, {"BF16", 2}, {"F16", 2}, {"F64", 8}, {"I64", 8}, {"I32", 4}, {"I16", 2},
    {"I8", 1},  {"U8", 1},   {"U16", 2}, {"U32", 4}, {"U64", 8}, {"BOOL", 1},
    {"F8_E4M3", 1}, {"F8_E5M2", 1},
};

/* ---- the scanner: a cursor over the header --------------------------------------------------- */

typedef struct st_scan {
    const uint8_t *at, *begin, *end;
    char *pool;                 /* decoded strings go here; never more than the header's size */
    char *error;                /* ST_ERROR bytes, never NULL                                 */
    int code;                   /* what st_fail returns                                       */
} st_scan;

static int st_fail(st_scan *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
static int st_fail(st_scan *s, const char *format, ...) {
    va_list ap;
    va_start(ap, format);
    vsnprintf(s->error, ST_ERROR, format, ap);
    va_end(ap);
    return s->code;
}

static int st_no_memory(st_scan *s) {
    s->code = ST_NO_MEMORY;
    return st_fail(s, "out of memory");
}

static int st_syntax(st_scan *s, const char *expected) {
    return st_fail(s, "header byte %zu: expected %s", (size_t)(s->at - s->begin), expected);
}

/* A name fit for a message: at most 80 bytes of printable ASCII. */
typedef struct st_label { char text[81]; } st_label;
static st_label st_show(const char *name) {
    st_label l;
    size_t i = 0;
    for (; name[i] && i + 1 < sizeof l.text; i++)
        l.text[i] = name[i];
    l.text[i] = 0;
    for (size_t k = 0; k < i; k++)
        if (l.text[k] < 0x20 || l.text[k] > 0x7e) l.text[k] = '?';
    return l;
}

static void st_space(st_scan *s) {
    while (s->at < s->end && (*s->at == ' ' || *s->at == '\n' || *s->at == '\r' || *s->at == '\t'))
        s->at++;
}

/* Skips white space; true and one step on if the next byte is c. */
static bool st_take(st_scan *s, char c) {
    st_space(s);
    if (s->at == s->end || *s->at != (uint8_t)c) return false;
    s->at++;
    return true;
}

/* Bytes of the UTF-8 sequence at p (shortest form, no surrogates, <= U+10FFFF), or 0. */
static size_t st_utf8(const uint8_t *p, const uint8_t *end) {
    if (p[0] < 0x80) return 1;
    size_t n = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
    if (p[0] < 0xc2 || p[0] > 0xf4 || (size_t)(end - p) < n) return 0;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80) return 0;
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f)) return 0;
    if ((p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f)) return 0;
    return n;
}

static int st_hex4(st_scan *s, uint32_t *out) {
    if (s->end - s->at < 4) return st_syntax(s, "four hexadecimal digits");
    *out = 0;
    for (int i = 0; i < 4; i++, s->at++) {
        uint8_t c = *s->at, lower = c | 0x20;
        bool digit = c >= '0' && c <= '9';
        if (!digit && (lower < 'a' || lower > 'f')) return st_syntax(s, "a hexadecimal digit");
        *out = *out << 4 | (uint32_t)(digit ? c - '0' : lower - 'a' + 10);
    }
    return 0;
}

/* The XXXX of \uXXXX, a second half of a surrogate pair included, appended as UTF-8. */
static int st_unicode(st_scan *s) {
    uint32_t u, low;
    if (st_hex4(s, &u) < 0) return -1;
    if (u == 0) return st_syntax(s, "no NUL in a string");
    if (u >= 0xd800 && u < 0xe000) {
        if (u >= 0xdc00 || s->end - s->at < 6 || s->at[0] != '\\' || s->at[1] != 'u')
            return st_syntax(s, "a surrogate pair");
        s->at += 2;
        if (st_hex4(s, &low) < 0) return -1;
        if (low < 0xdc00 || low >= 0xe000) return st_syntax(s, "a low surrogate");
        u = 0x10000 + ((u - 0xd800) << 10) + (low - 0xdc00);
    }
    int tail = u < 0x80 ? 0 : u < 0x800 ? 1 : u < 0x10000 ? 2 : 3;
    static const uint8_t LEAD[] = {0, 0xc0, 0xe0, 0xf0};
    *s->pool++ = (char)(LEAD[tail] | (u >> (6 * tail)));
    while (tail-- > 0) *s->pool++ = (char)(0x80 | ((u >> (6 * tail)) & 0x3f));
    return 0;
}

/* A JSON string, decoded into the pool. */
static int st_string(st_scan *s, const char **out) {
    static const char ESCAPES[] = "\"\"\\\\//b\bf\fn\nr\rt\t"; /* letter, byte, letter, ... */
    *out = s->pool;
    if (!st_take(s, '"')) return st_syntax(s, "a string");
    for (;;) {
        if (s->at == s->end) return st_syntax(s, "the end of a string");
        uint8_t c = *s->at;
        if (c == '"') break;
        if (c < 0x20) return st_syntax(s, "no control character in a string");
        if (c != '\\') {
            size_t n = st_utf8(s->at, s->end);
            if (n == 0) return st_syntax(s, "valid UTF-8");
            memcpy(s->pool, s->at, n);
            s->pool += n;
            s->at += n;
            continue;
        }
        if (++s->at == s->end) return st_syntax(s, "an escape");
        c = *s->at++;
        if (c == 'u') {
            if (st_unicode(s) < 0) return -1;
            continue;
        }
        const char *e = ESCAPES;
        while (*e && (uint8_t)*e != c) e += 2;
        if (!*e) return st_syntax(s, "a valid escape");
        *s->pool++ = e[1];
    }
    s->at++;
    *s->pool++ = 0;
    return 0;
}

/* A non-negative integer below 2^63: no sign, no fraction, no exponent, no leading zero. */
static int st_integer(st_scan *s, int64_t *out) {
    st_space(s);
    const uint8_t *first = s->at;
    *out = 0;
    while (s->at < s->end && *s->at >= '0' && *s->at <= '9') {
        if (__builtin_mul_overflow(*out, 10, out) ||
            __builtin_add_overflow(*out, *s->at - '0', out))
            return st_syntax(s, "an integer below 2^63");
        s->at++;
    }
    if (s->at == first) return st_syntax(s, "a non-negative integer");
    if (*first == '0' && s->at - first > 1) return st_syntax(s, "no leading zero");
    if (s->at < s->end && (*s->at == '.' || (*s->at | 0x20) == 'e'))
        return st_syntax(s, "an integer, not a real number");
    return 0;
}

/* [integer, ...], at most cap of them. */
static int st_integers(st_scan *s, int64_t *out, int cap, int *n) {
    *n = 0;
    if (!st_take(s, '[')) return st_syntax(s, "'['");
    if (st_take(s, ']')) return 0;
    do {
        if (*n == cap) return st_fail(s, "header byte %zu: more than %d numbers in an array",
                                      (size_t)(s->at - s->begin), cap);
        if (st_integer(s, &out[(*n)++]) < 0) return -1;
    } while (st_take(s, ','));
    return st_take(s, ']') ? 0 : st_syntax(s, "']'");
}

/* ---- keys must differ: an open-addressing set, doubled when half full ------------------------ */

typedef struct st_set { const char **slot; size_t cap, n; } st_set;

static const char **st_slot(const st_set *set, const char *key) {
    uint64_t h = 14695981039346656037u; /* FNV-1a */
    for (const char *p = key; *p; p++) h = (h ^ (uint8_t)*p) * 1099511628211u;
    size_t i = (size_t)(h ^ h >> 32) & (set->cap - 1);
    while (set->slot[i] && strcmp(set->slot[i], key) != 0) i = (i + 1) & (set->cap - 1);
    return &set->slot[i];
}

static int st_unique(st_scan *s, st_set *set, const char *key) {
    if (2 * set->n >= set->cap) {
        st_set bigger = {calloc(set->cap ? 2 * set->cap : 64, sizeof *set->slot),
                         set->cap ? 2 * set->cap : 64, set->n};
        if (!bigger.slot) return st_no_memory(s);
        for (size_t i = 0; i < set->cap; i++)
            if (set->slot[i]) *st_slot(&bigger, set->slot[i]) = set->slot[i];
        free(set->slot);
        *set = bigger;
    }
    const char **slot = st_slot(set, key);
    if (*slot) return st_fail(s, "\"%s\" appears twice in the header", st_show(key).text);
    *slot = key;
    set->n++;
    return 0;
}

/* One more element of `size` bytes at the end of an array; grown at powers of two. */
static void *st_append(st_scan *s, void *array, size_t n, size_t size) {
    if (n & (n - 1)) return array; /* not at a power of two: there is room */
    void *more = n < SIZE_MAX / 2 / size ? realloc(array, (n ? 2 * n : 1) * size) : NULL;
    if (!more) st_no_memory(s);
    return more;
}

/* ---- the header's grammar -------------------------------------------------------------------- */

/* "__metadata__": {"key": "value", ...} */
static int st_metadata(st_scan *s, st_file *f, st_set *keys) {
    if (!st_take(s, '{')) return st_syntax(s, "'{' of __metadata__");
    if (st_take(s, '}')) return 0;
    do {
        const char *key, *value;
        if (st_string(s, &key) < 0 || st_unique(s, keys, key) < 0) return -1;
        if (!st_take(s, ':')) return st_syntax(s, "':'");
        if (st_string(s, &value) < 0) return -1;
        void *more = st_append(s, f->metadata, f->n_metadata, sizeof *f->metadata);
        if (!more) return -1;
        f->metadata = more;
        f->metadata[f->n_metadata][0] = key;
        f->metadata[f->n_metadata++][1] = value;
    } while (st_take(s, ','));
    return st_take(s, '}') ? 0 : st_syntax(s, "'}' of __metadata__");
}

static int st_dtype(st_scan *s, st_tensor *t) {
    const char *name;
    if (st_string(s, &name) < 0) return -1;
    for (size_t i = 0; i < sizeof ST_DTYPES / sizeof *ST_DTYPES; i++) {
        if (strcmp(name, ST_DTYPES[i].name) != 0) continue;
        t->dtype = ST_DTYPES[i].name;
        t->element = ST_DTYPES[i].size;
        return 0;
    }
    return st_fail(s, "tensor \"%s\": unknown dtype \"%.20s\"", st_show(t->name).text,
                   st_show(name).text);
}

/* The span of a tensor is inside the data area and is exactly what dtype and shape need. */
static int st_check_span(st_scan *s, st_tensor *t, const int64_t span[2], const uint8_t *data,
                         size_t data_bytes) {
    st_label name = st_show(t->name);
    if (span[0] > span[1] || (uint64_t)span[1] > data_bytes)
        return st_fail(s, "tensor \"%s\": data_offsets [%lld, %lld] are not in the %zu data bytes",
                       name.text, (long long)span[0], (long long)span[1], data_bytes);
    size_t need = t->element;
    bool fits = true;
    for (int i = 0; i < t->rank; i++)
        fits &= (uint64_t)t->shape[i] <= SIZE_MAX &&
                !__builtin_mul_overflow(need, (size_t)t->shape[i], &need);
    t->data = data + span[0];
    t->bytes = (size_t)(span[1] - span[0]);
    if (!fits) return st_fail(s, "tensor \"%s\": shape product overflows", name.text);
    if (need != t->bytes)
        return st_fail(s, "tensor \"%s\": shape and dtype %s need %zu bytes, data_offsets give %zu",
                       name.text, t->dtype, need, t->bytes);
    return 0;
}

/* {"dtype": ..., "shape": [...], "data_offsets": [begin, end]}, each field exactly once. */
static int st_entry(st_scan *s, st_tensor *t, const uint8_t *data, size_t data_bytes) {
    int64_t span[2] = {0, 0};
    int n, seen = 0;
    if (!st_take(s, '{')) return st_syntax(s, "'{' of a tensor");
    do {
        const char *key;
        int field, rc;
        if (st_string(s, &key) < 0) return -1;
        if (!st_take(s, ':')) return st_syntax(s, "':'");
        if (strcmp(key, "dtype") == 0) {
            field = 1;
            rc = st_dtype(s, t);
        } else if (strcmp(key, "shape") == 0) {
            field = 2;
            rc = st_integers(s, t->shape, ST_MAX_RANK, &t->rank);
        } else if (strcmp(key, "data_offsets") == 0) {
            field = 4;
            rc = st_integers(s, span, 2, &n);
            if (rc == 0 && n != 2) return st_syntax(s, "two data_offsets");
        } else {
            return st_fail(s, "tensor \"%s\": unknown field \"%.40s\"", st_show(t->name).text,
                           st_show(key).text);
        }
        if (rc < 0) return -1;
        if (seen & field)
            return st_fail(s, "tensor \"%s\": \"%s\" appears twice", st_show(t->name).text, key);
        seen |= field;
    } while (st_take(s, ','));
    if (!st_take(s, '}')) return st_syntax(s, "'}' of a tensor");
    if (seen != 7)
        return st_fail(s, "tensor \"%s\": needs dtype, shape and data_offsets",
                       st_show(t->name).text);
    return st_check_span(s, t, span, data, data_bytes);
}

static int st_header(st_scan *s, st_file *f, st_set *names, st_set *keys, size_t data_bytes) {
    if (s->at == s->end || *s->at != '{') return st_syntax(s, "'{'");
    s->at++;
    if (!st_take(s, '}')) {
        do {
            const char *name;
            if (st_string(s, &name) < 0 || st_unique(s, names, name) < 0) return -1;
            if (!st_take(s, ':')) return st_syntax(s, "':'");
            if (strcmp(name, "__metadata__") == 0) {
                if (st_metadata(s, f, keys) < 0) return -1;
                continue;
            }
            if (f->n == ST_MAX_TENSORS)
                return st_fail(s, "more than %d tensors", ST_MAX_TENSORS);
            void *more = st_append(s, f->tensors, f->n, sizeof *f->tensors);
            if (!more) return -1;
            f->tensors = more;
            st_tensor *t = &f->tensors[f->n++];
            memset(t, 0, sizeof *t);
            t->name = name;
            if (st_entry(s, t, s->end, data_bytes) < 0) return -1;
        } while (st_take(s, ','));
        if (!st_take(s, '}')) return st_syntax(s, "'}'");
    }
    st_space(s);
    return s->at == s->end ? 0 : st_syntax(s, "nothing after the header");
}

static int st_by_span(const void *a, const void *b) {
    const st_tensor *x = a, *y = b;
    if (x->data != y->data) return (uintptr_t)x->data < (uintptr_t)y->data ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

/* Sorted by place, each tensor begins where the one before ended, and the last ends the file. */
static int st_check_cover(st_scan *s, st_file *f, const uint8_t *data, size_t data_bytes) {
    if (f->n) qsort(f->tensors, f->n, sizeof *f->tensors, st_by_span);
    const uint8_t *at = data;
    for (size_t i = 0; i < f->n; i++) {
        const st_tensor *t = &f->tensors[i];
        if ((const uint8_t *)t->data != at)
            return st_fail(s, "tensor \"%s\": its data %s", st_show(t->name).text,
                           (const uint8_t *)t->data < at ? "overlap another tensor's"
                                                         : "leave a hole before them");
        at += t->bytes;
    }
    if (at != data + data_bytes)
        return st_fail(s, "the tensors end at byte %zu of %zu data bytes", (size_t)(at - data),
                       data_bytes);
    return 0;
}

static void st_drop_table(st_file *f) {
    free(f->tensors);
    free(f->metadata);
    free(f->strings);
    f->tensors = NULL;
    f->metadata = NULL;
    f->strings = NULL;
    f->n = f->n_metadata = 0;
}

int st_parse(st_file *f, const void *bytes, size_t len, char *error) {
    char scratch[ST_ERROR];
    const uint8_t *b = bytes;
    st_scan s = {.error = error ? error : scratch, .code = ST_BAD_FILE};
    if (len < 8) return st_fail(&s, "%zu bytes: too short for a safetensors file", len);
    uint64_t n = 0;
    for (int i = 7; i >= 0; i--) n = n << 8 | b[i];
    if (n > ST_MAX_HEADER || n > len - 8)
        return st_fail(&s, "header length %llu does not fit (file: %zu bytes, limit %d)",
                       (unsigned long long)n, len, ST_MAX_HEADER);
    s.at = s.begin = b + 8;
    s.end = s.begin + n;
    s.pool = f->strings = malloc((size_t)n + 1);
    if (!f->strings) return st_no_memory(&s);
    st_set names = {0}, keys = {0};
    size_t data_bytes = len - 8 - (size_t)n;
    int rc = st_header(&s, f, &names, &keys, data_bytes);
    if (rc == 0) rc = st_check_cover(&s, f, s.end, data_bytes);
    free(names.slot);
    free(keys.slot);
    if (rc < 0) st_drop_table(f);
    return rc < 0 ? s.code : 0;
}

int st_map(st_file *f, const char *path, char *error) {
    char scratch[ST_ERROR];
    st_scan s = {.error = error ? error : scratch, .code = ST_BAD_FILE};
    struct stat st;
    memset(f, 0, sizeof *f);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return st_fail(&s, "cannot open: %s", strerror(errno));
    void *map = MAP_FAILED;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        st_fail(&s, "not a regular file");
    } else if (st.st_size < 8 || (uintmax_t)st.st_size > SIZE_MAX) {
        st_fail(&s, "%jd bytes: not the size of a safetensors file", (intmax_t)st.st_size);
    } else {
        map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (map == MAP_FAILED) st_fail(&s, "cannot map: %s", strerror(errno));
    }
    if (map == MAP_FAILED) {
        close(fd);
        return ST_BAD_FILE;
    }
    f->map = map;
    f->map_bytes = (size_t)st.st_size;
    f->fd = fd;
    return 0;
}

int st_open(st_file *f, const char *path, char *error) {
    int rc = st_map(f, path, error);
    if (rc == 0) rc = st_parse(f, f->map, f->map_bytes, error);
    if (rc < 0) st_close(f);
    return rc;
}

void st_close(st_file *f) {
    st_drop_table(f);
    if (f->map) {
        munmap((void *)(uintptr_t)f->map, f->map_bytes);
        close(f->fd);
    }
    memset(f, 0, sizeof *f);
}

#endif /* SAFETENSORS_IMPLEMENTATION */
