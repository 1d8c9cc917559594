/* bpe.c: building the tables of a byte-level BPE, and merging one pre-token.
 *
 * Merging keeps the symbols in a doubly linked list and the possible merges in a binary heap
 * ordered by (rank, position). A popped candidate counts only if its two symbols are still what
 * they were when it was pushed. A pre-token of n bytes has at most n-1 merges, each adding at
 * most two candidates, so the whole is O(n log n): 100 kB without a space take milliseconds.
 *
 * Easy to get wrong:
 *  - equal ranks go leftmost first ("aaaa" with merge "a a" is "aa aa", "aaa" is "aa a");
 *  - the vocabulary decides nothing on the way: a pre-token that is itself a token is still
 *    merged step by step unless the file says ignore_merges;
 *  - of two equal merges in a file the later one counts, as in HF.
 */
#include "tokenizer/bpe.h"

#include <stdlib.h>

#include "tokenizer/buffer.h"

enum { MAX_PROBES = 512 };     /* a file made to collide is refused instead of hanging */
#define FREE_SLOT 0xffffffffu

/* ---- bytes ---------------------------------------------------------------------------------- */

/* The byte that GPT-2's alphabet spells with code point c, or -1. Printable Latin-1 stands for
 * itself, the other 68 bytes follow from U+0100 on in order. */
static int byte_of_char(int32_t c) {
    if ((c >= 33 && c <= 126) || (c >= 161 && c <= 172) || (c >= 174 && c <= 255)) return c;
    int n = c - 256;
    if (n < 0 || n > 67) return -1;
    return n <= 32 ? n : n <= 66 ? n - 33 + 127 : 173;
}

bool vl_bytes_of_token(vl_str *token, char *writable) {
    int32_t c;
    for (size_t i = 0; i < token->n;) {
        int k = vl_utf8_decode(token->s + i, token->n - i, &c);
        if (k == 0 || byte_of_char(c) < 0) return false;
        i += (size_t)k;
    }
    size_t n = 0;
    for (size_t i = 0; i < token->n;) {
        i += (size_t)vl_utf8_decode(token->s + i, token->n - i, &c);
        writable[n++] = (char)byte_of_char(c);
    }
    *token = (vl_str){writable, n};
    return true;
}

/* ---- tables --------------------------------------------------------------------------------- */

static uint32_t hash_bytes(const char *s, size_t n) {
    uint64_t h = 0xcbf29ce484222325u; /* FNV-1a, then mixed down */
    for (size_t i = 0; i < n; i++) h = (h ^ (unsigned char)s[i]) * 0x100000001b3u;
    return (uint32_t)(h ^ h >> 32);
}

static uint32_t hash_pair(uint32_t left, uint32_t right) {
    uint64_t h = ((uint64_t)left << 32 | right) * 0x9e3779b97f4a7c15u;
    return (uint32_t)(h >> 32 ^ h >> 15);
}

static uint32_t table_size(size_t n) { /* a power of two, at most half full */
    uint32_t size = 16;
    while (size < 2 * n) size *= 2;
    return size;
}

static bool piece_is(const vl_bpe *b, int32_t id, const char *s, size_t n) {
    return b->pieces[id].len == n && memcmp(b->text + b->pieces[id].at, s, n) == 0;
}

int32_t vl_bpe_find(const vl_bpe *b, const char *s, size_t n) {
    for (uint32_t i = hash_bytes(s, n);; i++) {
        int32_t id = b->slots[i & b->slot_mask];
        if (id < 0 || piece_is(b, id, s, n)) return id;
    }
}

static const vl_merge *find_merge(const vl_bpe *b, int32_t left, int32_t right) {
    for (uint32_t i = hash_pair((uint32_t)left, (uint32_t)right);; i++) {
        const vl_merge *m = &b->merges[i & b->merge_mask];
        if (m->id == FREE_SLOT) return NULL;
        if (m->left == (uint32_t)left && m->right == (uint32_t)right) return m;
    }
}

static int add_token(vl_bpe *b, const vl_vocab_entry *e, uint32_t *used, const char *what,
                     vl_err *err) {
    int shown = e->text.n > 64 ? 64 : (int)e->text.n;
    if (e->text.n == 0) return vl_fail(err, VL_E_MODEL, "%s: id %d is an empty token", what, e->id);
    if (e->kind == VL_ADDED && vl_bpe_find(b, e->text.s, e->text.n) == e->id) return 0;
    if (b->pieces[e->id].len)
        return vl_fail(err, VL_E_MODEL, "%s: id %d is given to two tokens, \"%s\" and \"%.*s\"",
                       what, e->id, b->text + b->pieces[e->id].at, shown, e->text.s);
    b->pieces[e->id] = (vl_piece){*used, (uint32_t)e->text.n};
    memcpy(b->text + *used, e->text.s, e->text.n);
    *used += (uint32_t)e->text.n + 1;
    if (e->kind == VL_OUTSIDE) return 0;
    uint32_t i = hash_bytes(e->text.s, e->text.n), last = i + MAX_PROBES;
    for (; b->slots[i & b->slot_mask] >= 0; i++) {
        if (piece_is(b, b->slots[i & b->slot_mask], e->text.s, e->text.n))
            return vl_fail(err, VL_E_MODEL, "%s: token \"%.*s\" has two ids, %d and %d", what,
                           shown, e->text.s, b->slots[i & b->slot_mask], e->id);
        if (i == last) return vl_fail(err, VL_E_MODEL, "%s: tokens made to collide", what);
    }
    if (e->kind == VL_BYTES) b->slots[i & b->slot_mask] = e->id;
    return 0;
}

static int add_merge(vl_bpe *b, const vl_vocab_pair *p, uint32_t rank, const char *what,
                     vl_err *err) {
    char joined[2 * VL_MAX_TOKEN_BYTES];
    memcpy(joined, p->left.s, p->left.n);
    memcpy(joined + p->left.n, p->right.s, p->right.n);
    int32_t left = vl_bpe_find(b, p->left.s, p->left.n);
    int32_t right = vl_bpe_find(b, p->right.s, p->right.n);
    int32_t id = vl_bpe_find(b, joined, p->left.n + p->right.n);
    if (left < 0 || right < 0 || id < 0) {
        vl_str t = left < 0 ? p->left : right < 0 ? p->right
                                                  : (vl_str){joined, p->left.n + p->right.n};
        return vl_fail(err, VL_E_MODEL, "%s: merge %u names \"%.*s\", which is not in the "
                       "vocabulary", what, rank, t.n > 64 ? 64 : (int)t.n, t.s);
    }
    uint32_t i = hash_pair((uint32_t)left, (uint32_t)right), end = i + MAX_PROBES;
    vl_merge *m = &b->merges[i & b->merge_mask];
    while (m->id != FREE_SLOT && (m->left != (uint32_t)left || m->right != (uint32_t)right)) {
        if (i == end) return vl_fail(err, VL_E_MODEL, "%s: merges made to collide", what);
        m = &b->merges[++i & b->merge_mask];
    }
    *m = (vl_merge){(uint32_t)left, (uint32_t)right, rank, (uint32_t)id};
    return 0;
}

static int alloc_tables(vl_bpe *b, const vl_vocab *v, const char *what, vl_err *err) {
    size_t bytes = 0;
    for (size_t i = 0; i < v->n_entries; i++) {
        const vl_vocab_entry *e = &v->entries[i];
        vl_assert(e->id >= 0 && e->id < VL_MAX_ID, "id %d", e->id);
        if (e->id >= b->size) b->size = e->id + 1;
        bytes += e->text.n + 1;
    }
    uint32_t n_slots = table_size(v->n_entries), n_merges = table_size(v->n_pairs);
    if (bytes >= UINT32_MAX) return vl_fail(err, VL_E_LIMIT, "%s: tokens over 4 GB", what);
    b->slot_mask = n_slots - 1;
    b->merge_mask = n_merges - 1;
    b->pieces = vl_calloc((size_t)b->size, sizeof *b->pieces);
    b->text = vl_calloc(bytes, 1);
    b->slots = malloc(n_slots * sizeof *b->slots);
    b->merges = malloc(n_merges * sizeof *b->merges);
    if (!b->pieces || !b->text || !b->slots || !b->merges)
        return vl_fail(err, VL_E_NOMEM, "%s: no memory for %zu tokens", what, v->n_entries);
    memset(b->slots, 0xff, n_slots * sizeof *b->slots);
    memset(b->merges, 0xff, n_merges * sizeof *b->merges);
    return 0;
}

static int fill_tables(vl_bpe *b, const vl_vocab *v, const char *what, vl_err *err) {
    uint32_t used = 0;
    for (size_t i = 0; i < v->n_entries; i++)
        if (add_token(b, &v->entries[i], &used, what, err) < 0) return -1;
    for (size_t i = 0; i < v->n_pairs; i++)
        if (add_merge(b, &v->pairs[i], (uint32_t)i, what, err) < 0) return -1;
    for (int c = 0; c < 256; c++) {
        char byte = (char)c;
        b->byte_ids[c] = vl_bpe_find(b, &byte, 1);
        if (b->byte_ids[c] < 0)
            return vl_fail(err, VL_E_MODEL, "%s: no token for the byte 0x%02x: a byte-level "
                           "vocabulary has one for each of the 256", what, c);
    }
    b->ignore_merges = v->ignore_merges;
    return 0;
}

int vl_bpe_build(vl_bpe *b, const vl_vocab *v, const char *what, vl_err *err) {
    *b = (vl_bpe){0};
    if (alloc_tables(b, v, what, err) == 0 && fill_tables(b, v, what, err) == 0) return 0;
    vl_bpe_clear(b);
    return -1;
}

void vl_bpe_clear(vl_bpe *b) {
    free(b->pieces);
    free(b->text);
    free(b->slots);
    free(b->merges);
    *b = (vl_bpe){0};
}

/* ---- merging -------------------------------------------------------------------------------- */

void vl_bpe_work_clear(vl_bpe_work *w) {
    free(w->symbols);
    free(w->heap);
    *w = (vl_bpe_work){0};
}

int vl_ids_push(vl_ids *ids, int32_t id, vl_err *err) {
    int32_t *v = vl_grow(ids->v, &ids->cap, ids->n + 1, sizeof *v, err);
    if (!v) return -1;
    ids->v = v;
    ids->v[ids->n++] = id;
    return 0;
}

/* Adds the merge of the symbols at `left` and its successor, if there is one. */
static int push(const vl_bpe *b, vl_bpe_work *w, int32_t left, vl_err *err) {
    const vl_symbol *l = &w->symbols[left];
    if (l->next < 0) return 0;
    const vl_merge *m = find_merge(b, l->id, w->symbols[l->next].id);
    if (!m) return 0;
    vl_candidate *heap = vl_grow(w->heap, &w->cap_heap, w->n_heap + 1, sizeof *heap, err);
    if (!heap) return -1;
    w->heap = heap;
    vl_candidate c = {(uint64_t)m->rank << 32 | (uint32_t)left, m};
    size_t i = w->n_heap++;
    for (; i > 0 && heap[(i - 1) / 2].order > c.order; i = (i - 1) / 2) {
        heap[i] = heap[(i - 1) / 2];
        w->steps++;
    }
    heap[i] = c;
    return 0;
}

static vl_candidate pop(vl_bpe_work *w) {
    vl_candidate top = w->heap[0], last = w->heap[--w->n_heap];
    size_t i = 0, n = w->n_heap;
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && w->heap[child + 1].order < w->heap[child].order) child++;
        if (last.order <= w->heap[child].order) break;
        w->heap[i] = w->heap[child];
        w->steps++;
    }
    w->heap[i] = last;
    return top;
}

/* Replaces the two symbols of c by one and offers the two new neighbours. */
static int merge(const vl_bpe *b, vl_bpe_work *w, vl_candidate c, vl_err *err) {
    int32_t at = (int32_t)(c.order & 0xffffffffu);
    vl_symbol *left = &w->symbols[at];
    if (left->id != (int32_t)c.merge->left || left->next < 0) return 0;
    vl_symbol *right = &w->symbols[left->next];
    if (right->id != (int32_t)c.merge->right) return 0;
    left->id = (int32_t)c.merge->id;
    right->id = -1; /* gone: no candidate names it any more */
    left->next = right->next;
    if (left->next >= 0) w->symbols[left->next].prev = at;
    return left->prev >= 0 && push(b, w, left->prev, err) < 0 ? -1 : push(b, w, at, err);
}

int vl_bpe_encode(const vl_bpe *b, vl_bpe_work *w, const char *s, size_t n, vl_ids *out,
                  vl_err *err) {
    vl_assert(n > 0 && n < INT32_MAX, "pre-token of %zu bytes", n);
    int32_t whole = n == 1 ? b->byte_ids[(unsigned char)*s]
                           : b->ignore_merges ? vl_bpe_find(b, s, n) : -1;
    if (whole >= 0) return vl_ids_push(out, whole, err);
    vl_symbol *symbols = vl_grow(w->symbols, &w->cap_symbols, n, sizeof *symbols, err);
    if (!symbols) return -1;
    w->symbols = symbols;
    int32_t last = (int32_t)n - 1;
    for (int32_t i = 0; i <= last; i++)
        symbols[i] = (vl_symbol){b->byte_ids[(unsigned char)s[i]], i - 1, i < last ? i + 1 : -1};
    w->n_heap = 0;
    for (int32_t i = 0; i < last; i++)
        if (push(b, w, i, err) < 0) return -1;
    while (w->n_heap)
        if (merge(b, w, pop(w), err) < 0) return -1;
    for (int32_t i = 0; i >= 0; i = symbols[i].next)
        if (vl_ids_push(out, symbols[i].id, err) < 0) return -1;
    return 0;
}
