/* fatbin.h: the container nvcc -fatbin writes, and what ptxas notes in a cubin. */
#ifndef FATBIN_H
#define FATBIN_H
#include "gpusim.h"

typedef struct { const uint8_t *data; uint64_t size; int kind, arch; bool packed; } FatEntry;
enum { FAT_PTX = 1, FAT_ELF = 2 };

/* Lists the entries of a fatbin (or of the wrapper that points to one); -1 when it is neither. */
int fatbin_entries(const void *image, FatEntry *out, int cap);
/* Adds registers, stack, shared memory and parameter layout of one cubin to the functions of m.
 * Complains (report "param-layout") when the PTX's layout differs from the cubin's. */
void fatbin_cubin_info(const FatEntry *e, Module *m);
#endif
