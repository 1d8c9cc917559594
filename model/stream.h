/* stream.h: token ids -> text as a person may see it: whole UTF-8 characters only, nothing that
 * could still turn out to be a stop string, and no stop string itself. */
#ifndef VL_STREAM_H
#define VL_STREAM_H

#include "tokenizer/tokenizer.h"

typedef struct vl_stream vl_stream;
int vl_stream_open(vl_stream **out, const vl_tokenizer *t, const vl_sampling *s, vl_err *err);
void vl_stream_free(vl_stream *st);
/* Adds a token. Returns 0, 1 when a stop string is complete (*stop names it), or -1. *text, *len:
 * what may be shown now, valid until the next call. */
int vl_stream_push(vl_stream *st, int32_t id, const char **text, size_t *len, const char **stop,
                   vl_err *err);
/* The held-back rest, with U+FFFD for what never became a character. */
void vl_stream_end(vl_stream *st, const char **text, size_t *len);

#endif
