/* bpe.h: the vocabulary and the merges of a byte-level BPE, ready to use.
 *
 *   bytes of one pre-token -> byte ids -> merge the pair of lowest rank, leftmost first, until no
 *   pair is a merge -> ids                    (HF: tokenizers models/bpe, BPE::merge_word)
 *
 * Immutable after vl_bpe_build(). Tokens are kept as raw bytes: the file's byte-level spelling
 * ("Ġthe" for " the") is undone once, at load.
 */
#ifndef VL_BPE_H
#define VL_BPE_H

#include "tokenizer/scan.h"
#include "tokenizer/tokenizer.h"

enum {
    VL_MAX_ID = 1 << 22,        /* ids are below this                               */
    VL_MAX_TOKEN_BYTES = 16384, /* of one token                                     */
};

typedef struct vl_piece { uint32_t at, len; } vl_piece;
typedef struct vl_merge { uint32_t left, right, rank, id; } vl_merge; /* id 0xffffffff: free slot */

typedef struct vl_bpe {
    int32_t size;              /* largest id + 1                                    */
    vl_piece *pieces;          /* [size] where id's bytes are in text; len 0: a gap */
    char *text;                /* every token's bytes, NUL after each               */
    int32_t *slots;            /* hash table, bytes -> id; -1: free                 */
    uint32_t slot_mask;
    vl_merge *merges;          /* hash table, (left, right) -> rank and merged id   */
    uint32_t merge_mask;
    int32_t byte_ids[256];
    bool ignore_merges;        /* a pre-token that is a token is not merged         */
} vl_bpe;

/* What the files say. Strings are raw bytes (see vl_bytes_of_token). */
typedef enum vl_entry_kind {
    VL_BYTES,                  /* spelled in the byte alphabet: what merges make    */
    VL_OUTSIDE,                /* in the vocabulary, but no merge can make it       */
    VL_ADDED                   /* an added token; may repeat an entry with its id   */
} vl_entry_kind;
typedef struct vl_vocab_entry { vl_str text; int32_t id; vl_entry_kind kind; } vl_vocab_entry;
typedef struct vl_vocab_pair { vl_str left, right; } vl_vocab_pair;
typedef struct vl_vocab {
    vl_vocab_entry *entries;   /* added ones last                                   */
    vl_vocab_pair *pairs;      /* in rank order                                     */
    size_t n_entries, n_pairs;
    bool ignore_merges;
} vl_vocab;

/* Undoes the byte-level spelling in place. Returns false, leaving the text alone, if a character
 * is not in the alphabet of 256: HF then takes the token's text as it stands. */
bool vl_bytes_of_token(vl_str *token, char *writable);

/* Builds the tables; what: the file's name for messages. On failure b is cleared. */
int vl_bpe_build(vl_bpe *b, const vl_vocab *v, const char *what, vl_err *err);
void vl_bpe_clear(vl_bpe *b);
int32_t vl_bpe_find(const vl_bpe *b, const char *s, size_t n);      /* id or -1 */

/* Scratch of one encoding call; zero it first. Grows to the longest pre-token. */
typedef struct vl_symbol { int32_t id, prev, next; } vl_symbol;
typedef struct vl_candidate { uint64_t order; const vl_merge *merge; } vl_candidate;
typedef struct vl_bpe_work {
    vl_symbol *symbols;
    vl_candidate *heap;
    size_t n_symbols, n_heap, cap_symbols, cap_heap;
    uint64_t steps;            /* heap operations done, for the complexity test      */
} vl_bpe_work;
void vl_bpe_work_clear(vl_bpe_work *w);
/* Appends the ids of one pre-token of n bytes. O(n log n). */
int vl_bpe_encode(const vl_bpe *b, vl_bpe_work *w, const char *s, size_t n, vl_ids *out,
                  vl_err *err);

#endif
