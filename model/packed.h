/* packed.h: the pack cache: weights as the CPU backend lays them out, in a file beside the checkpoint, so
 * that a start neither packs nor quantises anything. Written only by `vitreous pack`; read where it fits.
 *
 *   MODEL/vitreous-packed[-int8|-int4].cache            exact and bf16 share the first
 *   $VL_PACK_CACHE/ID[-int8|-int4].cache                where that is set; "off": neither read nor written
 *   $XDG_CACHE_HOME/vitreous/ID[-..].cache              for a model folder that cannot be written
 *
 * Stale means: a file of the checkpoint has another name, size, time of change or header. Data rewritten in
 * place under the same size and time are not noticed: pack anew after such a thing.
 */
#ifndef VL_PACKED_H
#define VL_PACKED_H

#include "kernels/ops.h"
#include "loader/checkpoint.h"

typedef struct vl_packed vl_packed;

/* The cache that fits the checkpoint `c` of folder dir, offered to the CPU backend b, which uses it from
 * its next prepare() on. NULL: there is none, or it is not usable, and then note (size n) says why. */
vl_packed *vl_packed_open(const char *dir, const vl_checkpoint *c, vl_backend *b, char *note, size_t n);
/* Once the weights are prepared: says in note where the cache had not all of them. p NULL: fine. */
void vl_packed_note(const vl_packed *p, char *note, size_t n);
int vl_packed_check(const vl_packed *p, vl_err *err);  /* as vl_checkpoint_check; p NULL: 0   */
void vl_packed_free(vl_packed *p);                     /* after the backend is closed          */

/* Packs what is not packed yet and writes the cache; path (size n): where it went. */
int vl_packed_write(const char *dir, const vl_checkpoint *c, vl_backend *b, char *path, size_t n, vl_err *err);
/* Reads the whole cache and compares every checksum. */
int vl_packed_verify(const char *dir, const vl_checkpoint *c, vl_backend *b, char *path, size_t n, vl_err *err);

#endif
