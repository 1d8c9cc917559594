/* tokenizer.h: byte-level BPE, exactly as the checkpoint's tokenizer.json describes it. */
#ifndef VL_TOKENIZER_H
#define VL_TOKENIZER_H

#include "common/common.h"

typedef struct vl_tokenizer vl_tokenizer;
typedef struct vl_ids { int32_t *v; size_t n, cap; } vl_ids;   /* free(ids.v) */
int vl_ids_push(vl_ids *ids, int32_t id, vl_err *err);

/* dir/tokenizer.json, or dir/vocab.json + merges.txt (+ tokenizer_config.json for added tokens). */
int vl_tokenizer_open(vl_tokenizer **out, const char *dir, vl_err *err);
void vl_tokenizer_free(vl_tokenizer *t);
int vl_tokenizer_size(const vl_tokenizer *t);                  /* largest id + 1 */
/* Appends the ids of text; special: added tokens are recognised, else they are plain text. */
int vl_tokenizer_encode(const vl_tokenizer *t, const char *text, size_t len, bool special,
                        vl_ids *out, vl_err *err);
/* Raw bytes of one id (NULL, 0 for ids without a token). Bytes of consecutive ids concatenate. */
const char *vl_tokenizer_piece(const vl_tokenizer *t, int32_t id, size_t *len);
bool vl_tokenizer_is_special(const vl_tokenizer *t, int32_t id);
int32_t vl_tokenizer_id(const vl_tokenizer *t, const char *token);  /* exact token text, or -1 */

/* How many leading bytes of s[0..n) are whole UTF-8 characters (or can never become one): what a
 * stream may print now. The rest waits for the next token. */
size_t vl_utf8_whole(const char *s, size_t n);
/* A copy in which every byte that is not valid UTF-8 became U+FFFD; malloc'd. */
char *vl_utf8_clean(const char *s, size_t n, size_t *out_len);

#endif
