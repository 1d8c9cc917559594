/* features.c: pictures on their way through the vision tower, and those kept for the next turn. The
 * key is the picture's digest (sizes, pixels, preprocessing) and the cache salt; main and DeepStack
 * features live and die together. */
#include <stdlib.h>

#include "model/session.h"

static void unlink_encoded(vl_session *s, vl_encoded *e) {
    vl_encoded **at = &s->pictures;
    while (*at != e) at = &(*at)->next;
    *at = e->next;
    s->stats.picture_bytes -= (int64_t)e->bytes;
    s->m->backend->ops->release(s->m->backend, e->block);
    free(e);
}

/* Drops the least recently used unreferenced pictures until the cache is within its bound. */
static void trim(vl_session *s, size_t bound) {
    for (;;) {
        vl_encoded *oldest = NULL;
        size_t kept = 0;
        for (vl_encoded *e = s->pictures; e; e = e->next) {
            if (e->refs) continue;
            kept += e->bytes;
            if (!oldest || e->last_use < oldest->last_use) oldest = e;
        }
        if (kept <= bound) return;
        unlink_encoded(s, oldest);
    }
}

static void make_key(uint8_t key[32], const vl_picture *p, uint64_t salt) {
    memcpy(key, p->info.digest, 32);
    for (int i = 0; i < 8; i++) key[i] ^= (uint8_t)(salt >> (8 * i));
}

int vl_encoded_get(vl_encoded **out, vl_session *s, const vl_picture *p, uint64_t salt, vl_err *err) {
    uint8_t key[32];
    make_key(key, p, salt);
    for (vl_encoded *e = s->pictures; e && !s->trace; e = e->next) /* a trace shows every picture */
        if (!memcmp(e->key, key, 32)) {
            e->refs++;
            s->stats.picture_hits++;
            *out = e;
            return 0;
        }
    vl_encoded *e = vl_calloc(1, sizeof *e);
    if (!e) return vl_fail(err, VL_E_NOMEM, "no memory for a picture");
    e->bytes = vl_features_bytes(s->m, p->info.tokens);
    e->block = s->m->backend->ops->alloc(s->m->backend, e->bytes);
    if (!e->block) {
        free(e);
        return vl_fail(err, VL_E_NOMEM, "no memory for a picture of %d tokens", p->info.tokens);
    }
    vl_features_place(&e->features, s->m, p->info.tokens, e->block);
    memcpy(e->key, key, 32);
    e->refs = 1;
    e->next = s->pictures;
    s->pictures = e;
    s->stats.picture_bytes += (int64_t)e->bytes;
    s->stats.picture_misses++;
    *out = e;
    return 0;
}

void vl_encoded_put(vl_session *s, vl_encoded *e) {
    e->last_use = ++s->clock;
    if (--e->refs) return;
    if (s->encoding == e) { /* nobody waits for it any more: abandon the tower's work */
        vl_vision_abort(s->vision);
        vl_picture_free(s->encoding_picture);
        s->encoding = NULL;
        s->encoding_picture = NULL;
    }
    if (!e->ready) unlink_encoded(s, e);
    trim(s, s->p.picture_cache_bytes);
}

void vl_encoded_free_all(vl_session *s) {
    while (s->pictures) unlink_encoded(s, s->pictures);
}

/* The first picture, in submission order, that is not ready. */
static vl_request *next_to_encode(vl_session *s, int *index) {
    for (vl_request *r = s->first; r; r = r->next)
        for (int i = 0; r->state == VL_ENCODING && i < r->n_pictures; i++)
            if (r->encoded[i] && !r->encoded[i]->ready) {
                *index = i;
                return r;
            }
    return NULL;
}

/* Tells everyone who waits for this picture how far it is. */
static void report(vl_session *s, const vl_encoded *e, int done, int total, double seconds) {
    for (vl_request *r = s->first; r; r = r->next) {
        if (r->state != VL_ENCODING) continue;
        for (int i = 0; i < r->n_pictures; i++)
            if (r->encoded[i] == e) {
                vl_event ev = {.kind = VL_EV_ENCODE, .done = done, .total = total, .picture = i};
                r->timings.encode_s += seconds;
                if (done == total) r->timings.encoded_pictures++;
                vl_emit(r, &ev);
                break;
            }
    }
}

bool vl_encode_step(vl_session *s) {
    int i, done, total;
    if (!s->encoding) {
        vl_err err;
        vl_request *r = next_to_encode(s, &i);
        if (!r) return false;
        if (vl_vision_reserve(s->vision, r->pictures[i]->patches, &err)) {
            vl_finish(r, "error", NULL, &err);
            return true;
        }
        s->encoding = r->encoded[i];
        s->encoding_picture = vl_picture_ref(r->pictures[i]);
        s->stats.encodes++;
        vl_vision_begin(s->vision, s->encoding_picture, &s->encoding->features);
    }
    double start = vl_now();
    vl_encoded *e = s->encoding;
    bool more = vl_vision_step(s->vision, &done, &total);
    if (!more) {
        vl_err broken; /* stays, and ends the pass that follows; the wait makes the time a true one */
        s->m->backend->ops->sync(s->m->backend, &broken);
        e->ready = true;
        s->encoding = NULL;
        vl_picture_free(s->encoding_picture);
        s->encoding_picture = NULL;
    }
    report(s, e, done, total, vl_now() - start);
    return true;
}
