/* internal.h: the parts of a tokenizer: what load.c fills and tokenizer.c uses. */
#ifndef VL_TOKENIZER_INTERNAL_H
#define VL_TOKENIZER_INTERNAL_H

#include "tokenizer/added.h"
#include "tokenizer/bpe.h"
#include "tokenizer/split.h"

struct vl_tokenizer {
    vl_bpe bpe;
    vl_split split;
    bool nfc;
    vl_added_set added[2];     /* [0] as given, [1] normalized: found after NFC; texts lie in bpe */
    uint8_t *special;          /* [bpe.size]                                                    */
};

#endif
