/* buffer.h: growing arrays. Growth doubles, so appending n elements costs O(n). */
#ifndef VL_BUFFER_H
#define VL_BUFFER_H

#include "common/common.h"

/* v with room for `need` elements of `size` bytes: v itself, or moved with *cap raised. NULL when
 * there is no memory; v then stays as it was. */
void *vl_grow(void *v, size_t *cap, size_t need, size_t size, vl_err *err);

typedef struct vl_buffer { char *s; size_t n, cap; } vl_buffer;   /* free(s) */
/* Appends n bytes; keeps a NUL after the last one. */
int vl_buffer_add(vl_buffer *b, const char *s, size_t n, vl_err *err);

#endif
