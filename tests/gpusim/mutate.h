/* mutate.h: small changes to PTX text, each of which breaks a kernel on purpose.
 *
 * A mutation applies to the n-th place in the body of one kernel where its pattern occurs. */
#ifndef MUTATE_H
#define MUTATE_H
#include "harness.h"

typedef struct { const char *name, *find, *replace; } Mutation;

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
