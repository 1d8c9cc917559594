/* checkpoint.h: a Hugging Face checkpoint folder as a set of named, mmapped tensors.
 * One model.safetensors, or model.safetensors.index.json with its shards. */
#ifndef VL_CHECKPOINT_H
#define VL_CHECKPOINT_H

#include "common/common.h"

typedef struct vl_tensor {
    const char *name;          /* as in the file                              */
    vl_dtype dtype;
    int rank;
    int64_t shape[8];
    const void *data;          /* in the mmap                                 */
    size_t bytes;
} vl_tensor;

typedef struct vl_checkpoint vl_checkpoint;
int vl_checkpoint_open(vl_checkpoint **out, const char *dir, vl_err *err);
void vl_checkpoint_free(vl_checkpoint *c);
size_t vl_checkpoint_count(const vl_checkpoint *c);
const vl_tensor *vl_checkpoint_at(const vl_checkpoint *c, size_t i);
/* `name` in today's HF spelling ("model.language_model.norm.weight", "model.visual...",
 * "lm_head.weight"); files with the older prefixes ("model.norm.weight", "visual...") are searched
 * as well. NULL: absent. */
const vl_tensor *vl_checkpoint_find(const vl_checkpoint *c, const char *name);
uint64_t vl_checkpoint_bytes(const vl_checkpoint *c);   /* of all tensors */
/* The value of a key of __metadata__ of the first file, or NULL. */
const char *vl_checkpoint_metadata(const vl_checkpoint *c, const char *key);
/* SHA-256 of every file's name, size, time of change and header: another one where a file was replaced or
 * rewritten, without reading its data. */
int vl_checkpoint_identity(const vl_checkpoint *c, uint8_t out[32], vl_err *err);
/* The whole pages of [data, data+bytes) are not needed any more (packed elsewhere): they leave this
 * process's memory, and would be read from the file again. */
void vl_checkpoint_release(const void *data, size_t bytes);
/* 0, or -1 if a mapped file shrank or could not be read since it was opened (a guarded SIGBUS). */
int vl_checkpoint_check(const vl_checkpoint *c, vl_err *err);

/* False: some element of a float tensor is NaN or infinite. Reads all of it. */
bool vl_tensor_finite(const vl_tensor *t);

/* Writing: the one safetensors writer of the project (traces, make-random, quantize). `metadata`
 * is NULL or alternating key, value strings ending in NULL. */
int vl_safetensors_write(const char *path, const vl_tensor *tensors, size_t n,
                         const char *const *metadata, vl_err *err);
/* The same with bounded memory: a tensor whose data is NULL comes from fill, in pieces of bytes
 * [at, at + n), front to back, one tensor after the other. fill NULL: it is zeros, a hole in the
 * file that takes no space on most file systems. */
typedef void (*vl_tensor_fill)(void *user, const vl_tensor *t, size_t at, void *dst, size_t n);
int vl_safetensors_stream(const char *path, const vl_tensor *tensors, size_t n,
                          const char *const *metadata, vl_tensor_fill fill, void *user,
                          vl_err *err);
/* One file, every tensor; the same guards as a checkpoint. */
int vl_safetensors_open(vl_checkpoint **out, const char *path, vl_err *err);

#endif
