/* config.h: config.json and generation_config.json of a Qwen3-VL checkpoint, read in full and
 * checked, so that nothing later needs to ask whether a size makes sense. */
#ifndef VL_CONFIG_H
#define VL_CONFIG_H

#include "common/common.h"

enum { VL_MAX_DEEPSTACK = 8, VL_MAX_EOS = 8, VL_MAX_LAYERS = 512,
       VL_MAX_GROUP = 256 /* query heads of one key/value head: attend_causal's limit */ };

typedef struct vl_text_config {        /* HF Qwen3VLTextConfig, Qwen3-VL-2B in brackets       */
    int layers;                        /* num_hidden_layers                           [28]   */
    int D, F, V;                       /* hidden_size, intermediate_size, vocab_size  [2048, 6144, 151936] */
    int H, G, E;                       /* heads, key/value heads, head_dim            [16, 8, 128] */
    float eps;                         /* rms_norm_eps                                [1e-6] */
    double theta;                      /* rope_theta                                  [5e6]  */
    int mrope[3];                      /* mrope_section: t, h, w                      [24, 20, 20] */
    int64_t context;                   /* max_position_embeddings                     [262144] */
    bool attention_bias;               /* q, k, v, o projections carry a bias         [no]   */
} vl_text_config;

typedef struct vl_vision_config {      /* HF Qwen3VLVisionConfig                              */
    int depth, D, F, H, E;             /* E = D / H                       [24, 1024, 4096, 16, 64] */
    int channels, patch, temporal, merge;                               /* [3, 16, 2, 2]      */
    int out;                           /* out_hidden_size = text D                    [2048] */
    int side;                          /* sqrt(num_position_embeddings)               [48]   */
    int deepstack[VL_MAX_DEEPSTACK];   /* deepstack_visual_indexes                [5, 11, 17] */
    int n_deepstack;
    double theta;                      /* rope_parameters.rope_theta                [10000]  */
} vl_vision_config;

typedef struct vl_config {
    vl_text_config text;
    vl_vision_config vision;
    bool tied;                         /* tie_word_embeddings: the head is embed_tokens       */
    int image_token, video_token, vision_start, vision_end;
    int eos[VL_MAX_EOS], n_eos;        /* generation_config.json, else config.json            */
    /* generation_config.json; the values that switch a feature off where it is silent */
    bool do_sample;
    float temperature, top_p, min_p, repetition_penalty;
    int top_k;
} vl_config;

int vl_config_load(vl_config *c, const char *dir, vl_err *err);

#endif
