/* order.c: see order.h. */
#include "order.h"
#include <stdlib.h>
#include <string.h>

static Node *nodes;
static uint32_t count, cap;

uint32_t order_node(const Func *f, const char *what, uint32_t stream, uint32_t *clock) {
    if (count == cap) {
        cap = cap ? cap * 2 : 1024;
        Node *n = realloc(nodes, cap * sizeof *n);
        if (!n) abort();
        nodes = n;
    }
    Node *n = &nodes[count++];
    clock[stream]++;
    *n = (Node){.f = f, .what = what, .stream = stream, .seq = clock[stream]};
    memcpy(n->clock, clock, sizeof n->clock);
    return count;
}

const Node *order_get(uint32_t id) { return id && id <= count ? &nodes[id - 1] : NULL; }

bool order_before(uint32_t earlier, uint32_t later) {
    const Node *a = order_get(earlier), *b = order_get(later);
    return !a || (earlier != later && b->clock[a->stream] >= a->seq);
}

uint32_t order_bound(uint32_t id) {
    static uint32_t last_id, last_bound;
    uint32_t from = id == last_id + 1 && order_before(last_id, id) ? last_bound : 0;
    while (from + 1 < id && order_before(from + 1, id)) from++;
    last_id = id;
    last_bound = from;
    return from;
}
