/* cache.c: see cache.h. A hash table of chains and one recency list under one lock. */
#include "serve/cache.h"

#include <stdlib.h>

#include "serve/disk_cache.h"

enum { BUCKETS = 4096 };

typedef struct entry {
    struct entry *chain, *newer, *older;
    uint8_t key[32];
    size_t len;
    char record[];
} entry;

struct result_cache {
    pthread_mutex_t lock;
    entry *bucket[BUCKETS], *newest, *oldest;
    size_t bytes, max_bytes;
    metrics *metrics;
    disk_cache *disk;                 /* NULL: none */
};

int cache_open(result_cache **out, const serve_config *cfg, metrics *m, vl_err *err) {
    result_cache *c = vl_calloc(1, sizeof *c);
    if (!c) return vl_fail(err, VL_E_NOMEM, "out of memory");
    pthread_mutex_init(&c->lock, NULL);
    c->max_bytes = (size_t)cfg->result_cache_bytes;
    c->metrics = m;
    *out = c;
    return cfg->result_cache_dir ? disk_cache_open(&c->disk, cfg->result_cache_dir,
                                                   cfg->result_cache_disk_bytes, m, err) : 0;
}

static entry **slot(result_cache *c, const uint8_t key[32]) {
    unsigned h = key[0] | (unsigned)key[1] << 8;          /* SHA-256: any bits will do */
    entry **p = &c->bucket[h % BUCKETS];
    while (*p && memcmp((*p)->key, key, 32) != 0) p = &(*p)->chain;
    return p;
}

static void unlink_recency(result_cache *c, entry *e) {
    *(e->newer ? &e->newer->older : &c->newest) = e->older;
    *(e->older ? &e->older->newer : &c->oldest) = e->newer;
}

static void make_newest(result_cache *c, entry *e) {
    e->newer = NULL;
    e->older = c->newest;
    *(c->newest ? &c->newest->newer : &c->oldest) = e;
    c->newest = e;
}

static void drop(result_cache *c, entry *e) {
    *slot(c, e->key) = e->chain;
    unlink_recency(c, e);
    c->bytes -= sizeof *e + e->len;
    free(e);
}

void cache_free(result_cache *c) {
    if (!c) return;
    while (c->oldest) drop(c, c->oldest);
    disk_cache_free(c->disk);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

static void keep_in_memory(result_cache *c, const uint8_t key[32], const char *record, size_t len) {
    size_t size = sizeof(entry) + len;
    if (size > c->max_bytes / 4) return;                  /* one answer must not empty the cache */
    entry *e = malloc(size);
    if (!e) return;
    memcpy(e->key, key, 32);
    memcpy(e->record, record, len);
    e->len = len;
    pthread_mutex_lock(&c->lock);
    if (*slot(c, key)) {                                  /* the first of two equal runs stays */
        free(e);
    } else {
        e->chain = NULL;
        *slot(c, key) = e;
        make_newest(c, e);
        c->bytes += size;
        while (c->bytes > c->max_bytes) drop(c, c->oldest);
        metrics_set(c->metrics, M_RESULT_BYTES, (double)c->bytes);
    }
    pthread_mutex_unlock(&c->lock);
}

char *cache_get(result_cache *c, const uint8_t key[32], size_t *len) {
    char *copy = NULL;
    pthread_mutex_lock(&c->lock);
    entry *e = *slot(c, key);
    if (e && (copy = malloc(e->len + 1))) {
        memcpy(copy, e->record, e->len);
        copy[*len = e->len] = 0;
        unlink_recency(c, e);
        make_newest(c, e);
    }
    pthread_mutex_unlock(&c->lock);
    if (!copy && c->disk && (copy = disk_cache_get(c->disk, key, len)))
        keep_in_memory(c, key, copy, *len);
    return copy;
}

void cache_put(result_cache *c, const uint8_t key[32], const char *record, size_t len) {
    keep_in_memory(c, key, record, len);
    if (c->disk) disk_cache_put(c->disk, key, record, len);
}
