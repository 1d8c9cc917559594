/* disk_cache.h: the result cache's second tier, which survives a restart: SQLite in
 * DIR/results.sqlite (DIR must be this user's alone: answers are in it as text). Bounded in bytes, least
 * recently used out first; one server at a time per DIR. A lower bound makes the file smaller at the start.
 *
 * Every record carries its SHA-256: a damaged one is dropped and counts as a miss, a damaged file
 * is replaced by a new one. Writes are transactions; a kill loses the last ones at most. */
#ifndef SERVE_DISK_CACHE_H
#define SERVE_DISK_CACHE_H

#include "serve/serve.h"

typedef struct disk_cache disk_cache;
int disk_cache_open(disk_cache **out, const char *dir, int64_t max_bytes, metrics *m, vl_err *err);
void disk_cache_free(disk_cache *d);
/* A copy of the record (malloc'd, NUL behind it), or NULL. */
char *disk_cache_get(disk_cache *d, const uint8_t key[32], size_t *len);
void disk_cache_put(disk_cache *d, const uint8_t key[32], const char *record, size_t len);

#endif
