/* sampler.h: logits -> one token, in the order of HF's logits processors:
 * repetition / presence / frequency penalties, DRY (not HF's; where its authors put it), min_tokens,
 * logit_bias, the caller's mask, temperature, top-k, top-p, min-p, typical-p (or, in the place of these
 * four, mirostat). Nothing is allocated after open. */
#ifndef VL_SAMPLER_H
#define VL_SAMPLER_H

#include "common/common.h"

typedef struct vl_sampler vl_sampler;
/* eos [n_eos]: the end tokens that min_tokens holds back; must outlive the sampler. */
int vl_sampler_open(vl_sampler **out, const vl_sampling *s, int vocab, const int *eos, int n_eos,
                    vl_err *err);
void vl_sampler_free(vl_sampler *s);
/* Needs nothing but the arg-max: no processor, no log-probabilities. */
bool vl_sampler_is_greedy(const vl_sampler *s);
/* Chooses from logits [V] (overwritten); ids are prompt and answer so far, the answer starting at
 * n_prompt. Fills *logprob and up to s->logprobs tops (of the unprocessed distribution, as OpenAI
 * reports it). -1: the logits hold a NaN or nothing is allowed. */
int32_t vl_sampler_next(vl_sampler *s, float *logits, const int32_t *ids, int n, int n_prompt,
                        float *logprob, vl_top *top, int *n_top);

/* True when the last tokens are one period (of up to 128 tokens) repeated at least four times over
 * at least 96 tokens. */
bool vl_is_repeating(const int32_t *ids, int n);

#endif
