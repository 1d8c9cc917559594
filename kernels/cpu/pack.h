/* pack.h: weight matrices in panels. prepare() reserves address space; a background thread packs in
 * the order of prepare(), and an op that needs a matrix earlier packs what is left of it with the
 * whole team. Each slice is packed once, whoever takes it, and its source pages are given back, so
 * resident memory never holds two copies.
 */
#ifndef VL_PACK_H
#define VL_PACK_H

#include <stdatomic.h>

#include "kernels/ops.h"

struct cpu_backend;
typedef struct cpu_weight cpu_weight;
typedef struct cpu_packer cpu_packer;

/* Packs panels [first, first + n) of p. Called from any thread, for each panel once. */
typedef void cpu_pack_fn(const struct cpu_backend *b, const cpu_weight *p, int first, int n);

struct cpu_weight {
    cpu_weight *next;              /* in the order of prepare()                              */
    vl_matrix src;                 /* the matrix as it was prepared                          */
    const char *format;            /* names the layout of the panels: "bf16x32", ...         */
    cpu_pack_fn *pack;
    void *panels;
    size_t bytes, panel_bytes;     /* bytes: all panels, and tail_bytes that pack() fills after them */
    size_t tail_bytes;
    int n_panels, panel_rows;      /* rows of W in a panel                                   */
    int slice;                     /* panels packed at a time                                */
    int n_slices;
    bool cached;                   /* panels lie in a pack cache: nothing is left to do      */
    bool file_pages;               /* the source is a file mapping: pages can be given back  */
    atomic_int taken, done;        /* slices                                                 */
};

/* Registers p, whose src, format, pack, panel_bytes, panel_rows and tail_bytes are filled in, and reserves its
 * panels; `use` as in prepare(). The backend owns p from then on. -1: p is still the caller's. */
int cpu_pack_add(struct cpu_backend *b, cpu_weight *p, unsigned use, vl_err *err);
/* Packs what is left of p and waits for slices that other threads have taken. */
void cpu_pack_finish(struct cpu_backend *b, cpu_weight *p);
static inline void cpu_pack_ready(struct cpu_backend *b, cpu_weight *p) {
    if (atomic_load_explicit(&p->done, memory_order_acquire) < p->n_slices) cpu_pack_finish(b, p);
}
int cpu_pack_each(struct cpu_backend *b, vl_packed_fn fn, void *user); /* vl_backend_each_packed */
/* VL_PACK: background (the default) or lazy. */
int cpu_pack_mode(bool *lazy, vl_err *err);
/* Stops the background thread and frees every matrix. */
void cpu_pack_close(struct cpu_backend *b);

#endif
