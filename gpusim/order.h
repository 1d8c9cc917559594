/* order.h: which pieces of work are ordered. A node is a launch, a copy or a fill; its id is also
 * the "launch" of the shadows. Each node has a vector clock over the streams. */
#ifndef ORDER_H
#define ORDER_H
#include "gpusim.h"

enum { MAX_STREAMS = 64 };
typedef struct {
    const Func *f;          /* NULL for copies and fills */
    const char *what;       /* kernel name, "copy to device", ... */
    uint32_t stream, seq;
    uint32_t clock[MAX_STREAMS];
    uint32_t grid[3];
} Node;

/* A node on `stream` whose clock is `clock` joined with its own step; returns its id (from 1). */
uint32_t order_node(const Func *f, const char *what, uint32_t stream, uint32_t *clock);
const Node *order_get(uint32_t id);
bool order_before(uint32_t earlier, uint32_t later);
/* Largest id such that it and all before it are ordered before `id`. */
uint32_t order_bound(uint32_t id);
#endif
