/* mutate.h: small changes to PTX text, each of which breaks a kernel on purpose.
 *
 * A mutation applies to the n-th place in the body of one kernel where its pattern occurs. */
#ifndef MUTATE_H
#define MUTATE_H
#include "harness.h"

typedef struct { const char *name, *find, *replace; } Mutation;

/* The PTX of `arch` inside an uncompressed fatbin, as a NUL-terminated copy. */
static __attribute__((unused)) char *ptx_of(const char *image, int arch) {
    uint64_t left, size;
    uint16_t head16;
    const unsigned char *p = (const unsigned char *)image;
    memcpy(&head16, p + 6, 2);
    memcpy(&left, p + 8, 8);
    p += head16;
    while (left >= 64) {
        uint16_t kind;
        uint32_t head, cc;
        memcpy(&kind, p, 2);
        memcpy(&head, p + 4, 4);
        memcpy(&size, p + 8, 8);
        memcpy(&cc, p + 28, 4);
        if (kind == 1 && (int)cc == arch) {
            char *text = malloc(size + 1);
            memcpy(text, p + head, size);
            text[size] = 0;
            return text;
        }
        p += head + size;
        left -= head + size;
    }
    return NULL;
}

/* A copy of text with the n-th `find` in the body of `kernel` replaced; NULL when there is none. */
static __attribute__((unused)) char *mutated(const char *text, const char *kernel, const Mutation *m,
                                             int n) {
    char entry[128];
    snprintf(entry, sizeof entry, ".entry %s(", kernel);
    const char *from = strstr(text, entry), *end = from ? strstr(from, "\n}\n") : NULL, *p = from;
    while (p && (p = strstr(p, m->find)) && p < end && n-- > 0) p++;
    if (!p || p >= end) return NULL;
    size_t before = (size_t)(p - text), total = strlen(text) + strlen(m->replace) + 1;
    char *out = malloc(total);
    memcpy(out, text, before);
    snprintf(out + before, total - before, "%s%s", m->replace, p + strlen(m->find));
    return out;
}
#endif
