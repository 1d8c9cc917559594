/* kv.h: who owns which KV block. Blocks of VL_KV_BLOCK tokens with reference counts; a full block
 * may carry a key (the hash chain of every token and picture up to its end), so that equal prefixes
 * share memory. Unreferenced keyed blocks stay findable until their place is needed. */
#ifndef VL_KV_H
#define VL_KV_H

#include "kernels/ops.h"

typedef struct vl_kv_key { uint8_t h[32]; } vl_kv_key;
typedef struct vl_kv vl_kv;

int vl_kv_open(vl_kv **out, int n_blocks, vl_err *err);
void vl_kv_free(vl_kv *kv);
int vl_kv_available(const vl_kv *kv);                    /* blocks that take() can still give  */
int vl_kv_used(const vl_kv *kv);                         /* blocks with a reference            */
int vl_kv_cached(const vl_kv *kv);                       /* keyed blocks without a reference   */
void vl_kv_keep(vl_kv *kv, int64_t max);                 /* ... of which at most so many stay  */
int vl_kv_take(vl_kv *kv);                               /* one reference; available() > 0     */
int vl_kv_find(vl_kv *kv, const vl_kv_key *key);         /* adds a reference; -1: unknown      */
void vl_kv_set_key(vl_kv *kv, int block, const vl_kv_key *key); /* ignored if the key is known */
void vl_kv_drop(vl_kv *kv, int block);                   /* gives a reference back             */

#endif
