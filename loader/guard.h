/* guard.h: mapped files that may shrink under us: a SIGBUS becomes zeros and a flag. */
#ifndef VL_GUARD_H
#define VL_GUARD_H

#include <stdbool.h>
#include <stddef.h>

typedef struct vl_guard vl_guard;
/* Watches the mapping [base, base + bytes) until vl_guard_remove. NULL: out of memory. */
vl_guard *vl_guard_add(const void *base, size_t bytes);
void vl_guard_remove(vl_guard *g);          /* before munmap; NULL is fine            */
bool vl_guard_broken(const vl_guard *g);    /* a page of it could not be read         */
bool vl_guard_covers(const void *data, size_t bytes); /* all of it in one watched mapping */

#endif
