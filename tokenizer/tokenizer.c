/* tokenizer.c: text to ids and back.
 *
 *   text --added tokens as given--> runs --NFC--> --normalized added tokens--> runs
 *        --regex--> pre-tokens --BPE--> ids                (HF: TokenizerImpl::encode)
 *
 * Every byte carries a mask bit, "an added token may be here"; it is set for the template's own
 * words and clear for what a user wrote, so <|im_end|> in a question stays text.
 */
#include <stdlib.h>

#include "tokenizer/internal.h"

enum { MAX_TEXT = 64 << 20 };

typedef struct encoder {
    const vl_tokenizer *t;
    vl_bpe_work work;
    vl_ids *out;
    vl_err *err;
} encoder;

static int encode_piece(void *user, const char *text, size_t len) {
    encoder *e = user;
    return vl_bpe_encode(&e->t->bpe, &e->work, text, len, e->out, e->err);
}

static int encode_plain(encoder *e, const char *text, size_t n) {
    return n ? vl_split_run(&e->t->split, text, n, encode_piece, e, e->err) : 0;
}

/* NFC of text, stretch by stretch of equal mask, so that the mask stays known. */
static int normalize(const encoder *e, const char *text, const char *mask, size_t n, vl_buffer *to,
                     vl_buffer *to_mask) {
    for (size_t i = 0; i < n;) {
        size_t from = i, old = to->n;
        while (i < n && mask[i] == mask[from]) i++;
        if (vl_nfc(to, text + from, i - from, e->err) < 0) return -1;
        char *grown = vl_grow(to_mask->s, &to_mask->cap, to->n, 1, e->err);
        if (!grown) return -1;
        to_mask->s = grown;
        memset(grown + old, mask[from], to->n - old);
    }
    return 0;
}

/* Text and ids in turn; the runs between the added tokens of set `level` go to the next stage. */
static int encode_run(encoder *e, int level, const char *text, const char *mask, size_t n) {
    const vl_added_set *set = &e->t->added[level];
    int rc = 0;
    for (size_t at = 0; rc == 0 && at < n;) {
        size_t start = n, end = n;
        const vl_added *token = vl_added_find(set, text, mask, at, n, &start, &end);
        if (level == 1) {
            rc = encode_plain(e, text + at, start - at);
        } else if (!e->t->nfc) {
            rc = encode_run(e, 1, text + at, mask + at, start - at);
        } else {
            vl_buffer to = {0}, to_mask = {0};
            rc = normalize(e, text + at, mask + at, start - at, &to, &to_mask);
            if (rc == 0) rc = encode_run(e, 1, to.s, to_mask.s, to.n);
            free(to.s);
            free(to_mask.s);
        }
        if (rc == 0 && token) rc = vl_ids_push(e->out, token->id, e->err);
        at = end;
    }
    return rc;
}

int vl_tokenizer_encode_parts(const vl_tokenizer *t, const vl_part *parts, size_t n, vl_ids *out,
                              vl_err *err) {
    size_t total = 0, at = 0, old = out->n;
    for (size_t i = 0; i < n; i++)
        if (!vl_add_ok(total, parts[i].len, &total) || total > MAX_TEXT)
            return vl_fail(err, VL_E_LIMIT, "text over %d bytes", MAX_TEXT);
    char *text = malloc(total + 1), *mask = malloc(total + 1);
    encoder e = {t, {0}, out, err};
    int rc = text && mask ? 0 : vl_fail(err, VL_E_NOMEM, "no memory for %zu bytes of text", total);
    if (rc == 0) {
        for (size_t i = 0; i < n; at += parts[i++].len) {
            if (parts[i].len) memcpy(text + at, parts[i].text, parts[i].len);
            memset(mask + at, parts[i].special, parts[i].len);
        }
        rc = encode_run(&e, 0, text, mask, total);
    }
    if (rc < 0) out->n = old;
    vl_bpe_work_clear(&e.work);
    free(text);
    free(mask);
    return rc;
}

int vl_tokenizer_encode(const vl_tokenizer *t, const char *text, size_t len, bool special,
                        vl_ids *out, vl_err *err) {
    return vl_tokenizer_encode_parts(t, &(vl_part){text, len, special}, 1, out, err);
}

void vl_tokenizer_free(vl_tokenizer *t) {
    if (!t) return;
    vl_bpe_clear(&t->bpe);
    vl_split_clear(&t->split);
    free(t->added[0].v);
    free(t->added[1].v);
    free(t->special);
    free(t);
}

int vl_tokenizer_size(const vl_tokenizer *t) { return t->bpe.size; }

const char *vl_tokenizer_piece(const vl_tokenizer *t, int32_t id, size_t *len) {
    bool there = id >= 0 && id < t->bpe.size && t->bpe.pieces[id].len;
    *len = there ? t->bpe.pieces[id].len : 0;
    return there ? t->bpe.text + t->bpe.pieces[id].at : NULL;
}

bool vl_tokenizer_is_special(const vl_tokenizer *t, int32_t id) {
    return id >= 0 && id < t->bpe.size && t->special[id];
}

int32_t vl_tokenizer_id(const vl_tokenizer *t, const char *token) {
    vl_str text = {token, strlen(token)};
    for (int i = 0; i < 2; i++) {
        const vl_added *a = vl_added_exact(&t->added[i], text);
        if (a) return a->id;
    }
    return vl_bpe_find(&t->bpe, token, text.n);
}
