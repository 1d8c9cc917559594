/* decoder.h: the text decoder over a batch of rows. A row is one token (or picture token) of one
 * sequence; prefill chunks and decode rows of many sequences go through the same pass. */
#ifndef VL_DECODER_H
#define VL_DECODER_H

#include "model/vision.h"

/* A run of rows that are picture tokens: rows [at, at + n) of the pass take rows `from`... of the
 * picture's features. */
typedef struct vl_image_run { const vl_features *features; int at, n, from; } vl_image_run;

/* One pass as the session fills it in, on the host. All arrays are reserved for max_rows. */
typedef struct vl_batch {
    int T;                         /* rows                                                   */
    int32_t *ids;                  /* [T] token, or -1 for a picture row                     */
    float *cos, *sin;              /* [T, E/2]                                               */
    int32_t *kv_slot;              /* [T] where the row's key and value go                   */
    int32_t *row_seq, *row_len;    /* [T] sequence, keys visible                             */
    int32_t *src;                  /* [T] feature row of a picture row                       */
    int32_t *self;                 /* [T] 0, 1, 2, ... (constant)                            */
    vl_image_run *runs;            /* [n_runs]                                               */
    int n_runs;
    int32_t *want;                 /* [n_want] rows whose logits are wanted                  */
    int n_want;
} vl_batch;

typedef struct vl_decoder vl_decoder;
typedef struct vl_decoder_params {
    int max_rows, max_sequences, max_wanted; /* rows of a pass; of them, with logits         */
    int n_blocks, max_blocks;      /* KV blocks in all; per sequence                         */
} vl_decoder_params;
int vl_decoder_open(vl_decoder **out, const vl_model *m, const vl_decoder_params *p, vl_err *err);
void vl_decoder_free(vl_decoder *d);
vl_batch *vl_decoder_batch(vl_decoder *d);
/* Block numbers of sequence `seq`, [max_blocks]; upload happens in forward. */
int32_t *vl_decoder_table(vl_decoder *d, int seq);
/* One pass. Afterwards logits of batch->want are on the device, row i for want[i]. all_logits taps
 * the final norm and the logits of every row as well. */
void vl_decoder_forward(vl_decoder *d, bool all_logits);
size_t vl_decoder_block_bytes(const vl_decoder *d); /* of one KV block, over all layers    */
float *vl_decoder_logits(vl_decoder *d);            /* device [max_wanted, V] */
/* Greedy choice of each wanted row, on the device: to be asked for right behind the pass, where a GPU makes it in the
 * launch of the head. */
void vl_decoder_argmax(vl_decoder *d);
/* What it chose; -1: NaN. ids is host memory [n_want]. */
void vl_decoder_best(vl_decoder *d, int32_t *ids);

#endif
