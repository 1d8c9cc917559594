/* once.c: see once.h. */
#include "once.h"
#include "mem.h"
#include <stdlib.h>
#include <string.h>

typedef struct {
    const Func *f;
    uint32_t grid[3], block[3], dyn_shared;
    uint8_t *params;
    gpusim_kernel counted;
} Seen;
static Seen *seen;
static int count, cap;

/* Parameters with every pointer into device memory replaced by its place in a line; malloc'd. */
static uint8_t *plain_params(const Launch *l) {
    uint8_t *p = malloc(l->f->param_bytes + 1);
    if (!p) return NULL;
    memcpy(p, l->params, l->f->param_bytes);
    for (uint32_t i = 0; i + 8 <= l->f->param_bytes; i += 8) {
        uint64_t v;
        memcpy(&v, p + i, 8);
        if (!mem_find(v)) continue;
        v = DEV_BASE | v % 128;
        memcpy(p + i, &v, 8);
    }
    return p;
}

static bool equal(const Seen *s, const Launch *l, const uint8_t *params) {
    return s->f == l->f && s->dyn_shared == l->dyn_shared &&
           !memcmp(s->grid, l->grid, sizeof s->grid) &&
           !memcmp(s->block, l->block, sizeof s->block) &&
           !memcmp(s->params, params, l->f->param_bytes);
}

const gpusim_kernel *once_find(const Launch *l) {
    const gpusim_kernel *found = NULL;
    uint8_t *params = plain_params(l);
    for (int i = 0; params && i < count && !found; i++)
        if (equal(&seen[i], l, params)) found = &seen[i].counted;
    free(params);
    return found;
}

void once_keep(const Launch *l, const gpusim_kernel *k) {
    if (count == cap) {
        int more = cap ? cap * 2 : 64;
        Seen *s = realloc(seen, (size_t)more * sizeof *s);
        if (!s) return;                     /* then the next one runs again */
        seen = s;
        cap = more;
    }
    Seen s = {.f = l->f, .dyn_shared = l->dyn_shared, .params = plain_params(l), .counted = *k};
    memcpy(s.grid, l->grid, sizeof s.grid);
    memcpy(s.block, l->block, sizeof s.block);
    if (s.params) seen[count++] = s;
}
