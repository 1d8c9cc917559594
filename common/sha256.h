/* sha256.h: the two forms of SHA-256's block function; private to common/ and its test. */
#ifndef VL_SHA256_H
#define VL_SHA256_H

#include "common/common.h"

extern const uint32_t vl_sha256_k[64];
/* n blocks of 64 bytes into the state. */
void vl_sha256_blocks_c(uint32_t state[8], const uint8_t *p, size_t n);
/* The same with the processor's instructions; false: it has none, and nothing was done. */
bool vl_sha256_blocks_ni(uint32_t state[8], const uint8_t *p, size_t n);

#endif
