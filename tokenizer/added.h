/* added.h: added tokens (<|im_start|>, <tool_call>, ...) and finding them in text
 * (HF: tokenizers AddedVocabulary). */
#ifndef VL_ADDED_H
#define VL_ADDED_H

#include "tokenizer/scan.h"

enum { VL_MAX_ADDED = 1 << 17, VL_MAX_ADDED_BYTES = 1024 };

typedef struct vl_added {
    vl_str text;
    int32_t id;
    bool special;        /* left out by skip_special                                   */
    bool normalized;     /* looked for after NFC, else in the text as given            */
    bool single_word;    /* only where no word character touches it                    */
    bool lstrip, rstrip; /* takes the white space before / after it along              */
} vl_added;

/* Added tokens in byte order, so that a search narrows by one byte at a time. */
typedef struct vl_added_set {
    vl_added *v;
    size_t n, cap;
    bool first[256];     /* some token starts with this byte                           */
} vl_added_set;
int vl_added_order(const void *a, const void *b); /* by text, for qsort */
int vl_added_push(vl_added_set *s, const vl_added *token, vl_err *err);
void vl_added_sort(vl_added_set *s);             /* after the last push, before the first find */
const vl_added *vl_added_exact(const vl_added_set *s, vl_str text);

/* The next token in text[from..n): leftmost, then longest, where mask (one byte per byte of text)
 * allows every byte of it. Sets [*start, *end), white space it takes along included. */
const vl_added *vl_added_find(const vl_added_set *s, const char *text, const char *mask,
                              size_t from, size_t n, size_t *start, size_t *end);

#endif
