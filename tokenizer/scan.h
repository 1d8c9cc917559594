/* scan.h: a forward-only JSON reader for the two huge sections of tokenizer.json.
 *
 * A Qwen tokenizer.json has 450,000 strings in 11 MB; building a tree of them costs Jansson 0.35 s,
 * walking over them 0.03 s. Strings are decoded in place (an escape is never shorter than what it
 * stands for), so nothing is allocated. Everything small is skipped over with its extent kept and
 * then given to Jansson.
 *
 * Every function returns -1 and fills err on malformed text; messages give the byte offset.
 */
#ifndef VL_SCAN_H
#define VL_SCAN_H

#include "common/common.h"

typedef struct vl_scan {
    char *base, *p, *end;      /* base[0..end) is writable text                        */
    const char *what;          /* file name for messages                               */
    vl_err *err;
} vl_scan;
typedef struct vl_str { const char *s; size_t n; } vl_str;

/* The next non-blank byte, 0 at the end of the text. */
int vl_scan_peek(vl_scan *s);
/* Consumes one byte of punctuation. */
int vl_scan_expect(vl_scan *s, char c);
/* Inside [ ] or { }: 1 if an element follows (its comma consumed), 0 after consuming `close`.
 * `*n` counts the elements and starts at 0. */
int vl_scan_more(vl_scan *s, char close, size_t *n);
/* A string, decoded in place; or one followed by ':'. */
int vl_scan_string(vl_scan *s, vl_str *out);
int vl_scan_key(vl_scan *s, vl_str *out);
/* A whole number in [0, hi]. */
int vl_scan_id(vl_scan *s, int64_t hi, int32_t *out);
/* Any value, undecoded; `extent` may be NULL. */
int vl_scan_skip(vl_scan *s, vl_str *extent);

#endif
