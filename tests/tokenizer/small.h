/* small.h: a small tokenizer.json for tests, built from JSON fragments so that a test changes one
 * of them and leaves the rest whole. Ids 0..255 are the bytes, then ab, abc, " a" and aa; the added
 * tokens carry every flag there is. */
#ifndef VL_TEST_SMALL_H
#define VL_TEST_SMALL_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tokenizer/tokenizer.h"

typedef struct small {
    const char *vocab, *merges, *added, *normalizer, *pre, *model, *top; /* NULL: as below */
} small;

#define SMALL_VOCAB ",\"ab\":256,\"abc\":257,\"\xc4\xa0" "a\":258,\"aa\":259"
#define SMALL_MERGES "[\"a b\",\"ab c\",\"\xc4\xa0 a\",\"a a\"]"
#define SMALL_PRE "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true}"
#define SMALL_TOKEN(id, text, flags) \
    "{\"id\":" #id ",\"content\":\"" text "\",\"special\":true,\"normalized\":false" flags "}"
#define SMALL_ADDED \
    "[" SMALL_TOKEN(260, "<x>", "") "," SMALL_TOKEN(261, "<x><y>", "") "," \
    SMALL_TOKEN(262, "<l>", ",\"lstrip\":true") "," \
    SMALL_TOKEN(263, "<r>", ",\"rstrip\":true") "," \
    SMALL_TOKEN(264, "word", ",\"single_word\":true") "," SMALL_TOKEN(265, "wor", "") "," \
    "{\"id\":266,\"content\":\"<n>\",\"special\":false,\"normalized\":true}," \
    SMALL_TOKEN(267, "<b>", ",\"lstrip\":true,\"rstrip\":true") "]"

/* The JSON spelling of the 256 byte tokens, without braces. */
static inline char *small_bytes(void) {
    char *out = malloc(1 << 13), *w = out;
    for (int b = 0, extra = 256; b < 256; b++) {
        int plain = (b > 32 && b < 127) || (b > 160 && b != 173), c = plain ? b : extra++;
        w += sprintf(w, "%s\"", b ? "," : "");
        if (c == '"' || c == '\\') *w++ = '\\';
        if (c < 128) *w++ = (char)c;
        else *w++ = (char)(0xc0 | c >> 6), *w++ = (char)(0x80 | (c & 63));
        w += sprintf(w, "\":%d", b);
    }
    return out;
}

static inline char *small_json(const small *s) {
    char *bytes = small_bytes();
    const char *vocab = s->vocab ? s->vocab : SMALL_VOCAB;
    const char *merges = s->merges ? s->merges : SMALL_MERGES;
    const char *added = s->added ? s->added : SMALL_ADDED;
    const char *pre = s->pre ? s->pre : SMALL_PRE, *model = s->model ? s->model : "";
    const char *norm = s->normalizer ? s->normalizer : "{\"type\":\"NFC\"}";
    const char *top = s->top ? s->top : "";
    size_t n = strlen(bytes) + strlen(vocab) + strlen(merges) + strlen(added) + strlen(pre) +
               strlen(model) + strlen(norm) + strlen(top) + 512;
    char *out = malloc(n);
    snprintf(out, n, "{\"version\":\"1.0\"%s,\"added_tokens\":%s,\n\"normalizer\":%s,"
             "\"pre_tokenizer\":%s,\"decoder\":{\"type\":\"ByteLevel\"},\n\"model\":{"
             "\"type\":\"BPE\"%s,\"vocab\":{%s%s},\n\"merges\":%s}}", top, added, norm, pre, model,
             bytes, vocab, merges);
    free(bytes);
    return out;
}

static inline void small_write(const char *dir, const char *name, const char *data, size_t n) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, n, f) != n || fclose(f) != 0) {
        printf("cannot write %s\n", path);
        exit(2);
    }
}

static inline void small_remove(const char *dir, const char *name) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    remove(path);
}

/* Writes the file into dir and opens it. */
static inline int small_open(vl_tokenizer **t, const char *dir, const small *s, vl_err *err) {
    char *text = small_json(s);
    small_write(dir, "tokenizer.json", text, strlen(text));
    free(text);
    return vl_tokenizer_open(t, dir, err);
}

#endif
