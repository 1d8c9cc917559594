/* kv.c: a free list in least-recently-used order and a chained hash table over block keys. */
#include "model/kv.h"

#include <stdlib.h>

typedef struct block {
    int refs, prev, next;       /* links of the free list while refs == 0 */
    int chain;                  /* next block in the same hash bucket     */
    bool keyed;
    vl_kv_key key;
} block;

struct vl_kv {
    int n, used, head, tail;    /* free list: take from head, keyed blocks go to the tail */
    int cached;                 /* keyed blocks in the free list                          */
    int64_t max_cached;
    uint32_t mask;
    int *bucket;
    block *v;
};

int vl_kv_open(vl_kv **out, int n_blocks, vl_err *err) {
    vl_kv *kv = vl_calloc(1, sizeof *kv);
    uint32_t buckets = 1;
    while (buckets < (uint32_t)n_blocks * 2) buckets *= 2;
    if (kv) kv->v = vl_calloc((size_t)n_blocks, sizeof *kv->v);
    if (kv) kv->bucket = vl_calloc(buckets, sizeof *kv->bucket);
    if (!kv || !kv->v || !kv->bucket) {
        vl_kv_free(kv);
        return vl_fail(err, VL_E_NOMEM, "no memory for %d KV blocks", n_blocks);
    }
    kv->n = n_blocks;
    kv->max_cached = n_blocks;
    kv->mask = buckets - 1;
    kv->head = n_blocks ? 0 : -1;
    kv->tail = n_blocks - 1;
    for (uint32_t i = 0; i < buckets; i++) kv->bucket[i] = -1;
    for (int i = 0; i < n_blocks; i++)
        kv->v[i] = (block){.prev = i - 1, .next = i + 1 < n_blocks ? i + 1 : -1, .chain = -1};
    *out = kv;
    return 0;
}

void vl_kv_free(vl_kv *kv) {
    if (!kv) return;
    free(kv->v);
    free(kv->bucket);
    free(kv);
}

int vl_kv_available(const vl_kv *kv) { return kv->n - kv->used; }
int vl_kv_used(const vl_kv *kv) { return kv->used; }
int vl_kv_cached(const vl_kv *kv) { return kv->cached; }
void vl_kv_keep(vl_kv *kv, int64_t max) { kv->max_cached = max; }

static int *bucket_of(vl_kv *kv, const vl_kv_key *key) {
    uint32_t h;
    memcpy(&h, key->h, sizeof h); /* SHA-256: any four bytes are a good hash */
    return &kv->bucket[h & kv->mask];
}

static void unlink_free(vl_kv *kv, int i) {
    block *b = &kv->v[i];
    *(b->prev >= 0 ? &kv->v[b->prev].next : &kv->head) = b->next;
    *(b->next >= 0 ? &kv->v[b->next].prev : &kv->tail) = b->prev;
}

static void reference(vl_kv *kv, int i) {
    if (kv->v[i].refs++ == 0) {
        unlink_free(kv, i);
        kv->used++;
        kv->cached -= kv->v[i].keyed;
    }
}

static void forget_key(vl_kv *kv, int i) {
    if (!kv->v[i].keyed) return;
    int *at = bucket_of(kv, &kv->v[i].key);
    while (*at != i) at = &kv->v[*at].chain;
    *at = kv->v[i].chain;
    kv->v[i].keyed = false;
}

int vl_kv_take(vl_kv *kv) {
    int i = kv->head;
    vl_assert(i >= 0, "no KV block is free");
    reference(kv, i);
    forget_key(kv, i);
    return i;
}

int vl_kv_find(vl_kv *kv, const vl_kv_key *key) {
    for (int i = *bucket_of(kv, key); i >= 0; i = kv->v[i].chain)
        if (!memcmp(kv->v[i].key.h, key->h, sizeof key->h)) {
            reference(kv, i);
            return i;
        }
    return -1;
}

void vl_kv_set_key(vl_kv *kv, int i, const vl_kv_key *key) {
    int *at = bucket_of(kv, key);
    for (int k = *at; k >= 0; k = kv->v[k].chain)
        if (!memcmp(kv->v[k].key.h, key->h, sizeof key->h)) return;
    forget_key(kv, i);
    kv->v[i].key = *key;
    kv->v[i].keyed = true;
    kv->v[i].chain = *at;
    *at = i;
}

/* The unkeyed blocks are at the head, then the least recently used keyed one. */
static void forget_oldest(vl_kv *kv) {
    int i = kv->head;
    while (!kv->v[i].keyed) i = kv->v[i].next;
    forget_key(kv, i);
    kv->cached--;
}

void vl_kv_drop(vl_kv *kv, int i) {
    block *b = &kv->v[i];
    vl_assert(b->refs > 0, "KV block %d has no reference", i);
    if (--b->refs) return;
    kv->used--;
    if (b->keyed) { /* the most recently used end: evicted last */
        b->prev = kv->tail;
        b->next = -1;
        *(kv->tail >= 0 ? &kv->v[kv->tail].next : &kv->head) = i;
        kv->tail = i;
        for (kv->cached++; kv->cached > kv->max_cached;) forget_oldest(kv);
    } else {
        b->prev = -1;
        b->next = kv->head;
        *(kv->head >= 0 ? &kv->v[kv->head].prev : &kv->tail) = i;
        kv->head = i;
    }
}
