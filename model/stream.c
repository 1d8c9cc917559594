/* stream.c: see stream.h. */
#include "model/stream.h"

#include <stdlib.h>

struct vl_stream {
    const vl_tokenizer *t;
    bool keep_special;
    char **stop;
    int n_stop;
    size_t longest_stop;
    char *buf;                  /* bytes not shown yet; the first `shown` of them just were */
    size_t len, cap, shown;
    char *clean;                /* [3 cap] the last shown text, repaired                    */
};

int vl_stream_open(vl_stream **out, const vl_tokenizer *t, const vl_sampling *s, vl_err *err) {
    vl_stream *st = vl_calloc(1, sizeof *st);
    if (!st) return vl_fail(err, VL_E_NOMEM, "no memory for the answer");
    st->t = t;
    st->keep_special = s->keep_special;
    st->cap = 4096;
    st->buf = malloc(st->cap);
    st->clean = malloc(3 * st->cap);
    st->stop = vl_calloc((size_t)(s->n_stop > 0 ? s->n_stop : 0), sizeof *st->stop);
    bool ok = st->buf && st->clean && st->stop;
    for (int i = 0; ok && i < s->n_stop; i++) {
        if (!s->stop[i][0]) continue; /* an empty stop string would stop everything */
        size_t n = strlen(s->stop[i]);
        if (n > st->longest_stop) st->longest_stop = n;
        ok = (st->stop[st->n_stop++] = strdup(s->stop[i])) != NULL;
    }
    if (!ok) {
        vl_stream_free(st);
        return vl_fail(err, VL_E_NOMEM, "no memory for the answer");
    }
    *out = st;
    return 0;
}

void vl_stream_free(vl_stream *st) {
    if (!st) return;
    for (int i = 0; i < st->n_stop; i++) free(st->stop[i]);
    free(st->stop);
    free(st->buf);
    free(st->clean);
    free(st);
}

static int append(vl_stream *st, const char *s, size_t n, vl_err *err) {
    memmove(st->buf, st->buf + st->shown, st->len -= st->shown);
    st->shown = 0;
    if (n > st->cap - st->len) { /* only for tokens of kilobytes */
        size_t cap = 2 * (st->len + n);
        char *buf = realloc(st->buf, cap);
        if (buf) st->buf = buf;
        char *clean = buf ? realloc(st->clean, 3 * cap) : NULL;
        if (!clean) return vl_fail(err, VL_E_NOMEM, "no memory for the answer");
        st->clean = clean;
        st->cap = cap;
    }
    memcpy(st->buf + st->len, s, n);
    st->len += n;
    return 0;
}

/* First stop string in the buffer, or NULL; *at is where it begins. */
static const char *find_stop(const vl_stream *st, size_t *at) {
    const char *best = NULL;
    *at = st->len;
    for (int i = 0; i < st->n_stop; i++) {
        const char *hit = memmem(st->buf, st->len, st->stop[i], strlen(st->stop[i]));
        if (hit && (size_t)(hit - st->buf) < *at) {
            *at = (size_t)(hit - st->buf);
            best = st->stop[i];
        }
    }
    return best;
}

/* How many last bytes of the buffer could be the beginning of a stop string. */
static size_t could_stop(const vl_stream *st) {
    size_t n = st->longest_stop ? st->longest_stop - 1 : 0;
    for (n = n < st->len ? n : st->len; n; n--)
        for (int i = 0; i < st->n_stop; i++)
            if (strlen(st->stop[i]) > n && !memcmp(st->buf + st->len - n, st->stop[i], n)) return n;
    return 0;
}

/* Shows the first n bytes, with U+FFFD for what is not UTF-8. */
static void show(vl_stream *st, size_t n, const char **text, size_t *len) {
    st->shown = n;
    *len = vl_utf8_repair(st->clean, st->buf, n);
    *text = st->clean;
}

int vl_stream_push(vl_stream *st, int32_t id, const char **text, size_t *len, const char **stop,
                   vl_err *err) {
    size_t n = 0, at;
    const char *piece = vl_tokenizer_piece(st->t, id, &n);
    if (vl_tokenizer_is_special(st->t, id) && !st->keep_special) n = 0;
    if (append(st, piece ? piece : "", piece ? n : 0, err)) return -1;
    *stop = find_stop(st, &at);
    if (*stop) {
        show(st, at, text, len);
        st->shown = st->len; /* the stop string and what follows it are never shown */
        return 1;
    }
    show(st, vl_utf8_whole(st->buf, st->len - could_stop(st)), text, len);
    return 0;
}

void vl_stream_end(vl_stream *st, const char **text, size_t *len) {
    size_t from = st->shown;
    *len = vl_utf8_repair(st->clean, st->buf + from, st->len - from);
    *text = st->clean;
    st->shown = st->len;
}
