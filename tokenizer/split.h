/* split.h: what happens to text before BPE: NFC, then cutting into pre-tokens by the file's own
 * regular expressions (HF: normalizers.NFC; pre_tokenizers.Split "isolated" and ByteLevel). */
#ifndef VL_SPLIT_H
#define VL_SPLIT_H

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "tokenizer/buffer.h"

enum { VL_MAX_SPLITS = 8 };
typedef struct vl_split {
    pcre2_code *regex[VL_MAX_SPLITS];   /* each cuts the pieces of the one before */
    int n;
} vl_split;

/* The pattern inside pre_tokenizers.ByteLevel with use_regex, and the one of Qwen2's tokenizer
 * (for checkpoints that have vocab.json and merges.txt but no tokenizer.json). */
extern const char VL_GPT2_PATTERN[], VL_QWEN_PATTERN[];

int vl_split_add(vl_split *s, const char *pattern, size_t len, const char *what, vl_err *err);
void vl_split_clear(vl_split *s);
/* Calls piece(user, from, to) for every pre-token of text[0..n), in order; -1 from it stops. Bytes
 * that are not UTF-8 are kept and count as symbols. */
int vl_split_run(const vl_split *s, const char *text, size_t n,
                 int (*piece)(void *user, const char *text, size_t len), void *user, vl_err *err);

/* Appends the NFC of s[0..n); bytes that are not UTF-8 are copied. */
int vl_nfc(vl_buffer *out, const char *s, size_t n, vl_err *err);

#endif
