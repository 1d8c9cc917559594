/* cache.h: whole answers of deterministic requests (temperature 0 or a seed), bounded in bytes,
 * least recently used out first; behind it, if there is a folder for it, disk_cache.h. The key
 * covers model, numeric mode, tenant, every field and the bytes of every picture. */
#ifndef SERVE_CACHE_H
#define SERVE_CACHE_H

#include "serve/serve.h"

int cache_open(result_cache **out, const serve_config *c, metrics *m, vl_err *err);
void cache_free(result_cache *c);
/* A copy of the record (malloc'd), or NULL. */
char *cache_get(result_cache *c, const uint8_t key[32], size_t *len);
void cache_put(result_cache *c, const uint8_t key[32], const char *record, size_t len);

#endif
