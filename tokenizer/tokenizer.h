/* tokenizer.h: byte-level BPE, exactly as the checkpoint's tokenizer.json describes it. */
#ifndef VL_TOKENIZER_H
#define VL_TOKENIZER_H

#include "common/common.h"

typedef struct vl_tokenizer vl_tokenizer;
typedef struct vl_ids { int32_t *v; size_t n, cap; } vl_ids;   /* free(ids.v) */
int vl_ids_push(vl_ids *ids, int32_t id, vl_err *err);

/* dir/tokenizer.json, or dir/vocab.json + merges.txt; added tokens of tokenizer_config.json that
 * are not in the first are taken from there. Immutable afterwards: any number of threads may use
 * it. VL_E_MODEL names the file and what is wrong or not supported. */
int vl_tokenizer_open(vl_tokenizer **out, const char *dir, vl_err *err);
void vl_tokenizer_free(vl_tokenizer *t);
int vl_tokenizer_size(const vl_tokenizer *t);                  /* largest id + 1 */

/* Appends the ids of text; special: added tokens are recognised, else they are plain text. Any
 * bytes are taken: the pieces of the ids concatenate to the text again (to its NFC, if the file
 * asks for NFC), bytes that are not UTF-8 included. On failure `out` is as it was. */
int vl_tokenizer_encode(const vl_tokenizer *t, const char *text, size_t len, bool special,
                        vl_ids *out, vl_err *err);
/* The same for text in parts, encoded as the one text they make together (so that a newline of
 * one part and a newline of the next become one token, as in HF) while added tokens are
 * recognised only inside parts marked special. */
typedef struct vl_part { const char *text; size_t len; bool special; } vl_part;
int vl_tokenizer_encode_parts(const vl_tokenizer *t, const vl_part *parts, size_t n, vl_ids *out,
                              vl_err *err);

/* Raw bytes of one id, NUL-terminated (NULL, 0 for ids without a token). Bytes of consecutive ids
 * concatenate. */
const char *vl_tokenizer_piece(const vl_tokenizer *t, int32_t id, size_t *len);
bool vl_tokenizer_is_special(const vl_tokenizer *t, int32_t id);
/* The id of an added token by its text, or else of the token with exactly these bytes; or -1. */
int32_t vl_tokenizer_id(const vl_tokenizer *t, const char *token);

/* Length 1..4 and code point of the character at s[0..n), or 0 if no whole valid one is there. */
int vl_utf8_decode(const char *s, size_t n, int32_t *c);
/* How many leading bytes of s[0..n) are whole UTF-8 characters (or can never become one): what a
 * stream may print now. The rest waits for the next token. */
size_t vl_utf8_whole(const char *s, size_t n);
/* A copy in which every broken sequence became one U+FFFD, cut as HF and browsers cut them;
 * malloc'd and NUL-terminated, NULL when there is no memory. */
char *vl_utf8_clean(const char *s, size_t n, size_t *out_len);
/* The same into dst, which holds 3 n bytes; returns the length. */
size_t vl_utf8_repair(char *dst, const char *s, size_t n);

#endif
