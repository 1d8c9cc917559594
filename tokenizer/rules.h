/* rules.h: the small settings of tokenizer.json: normalizer, pre_tokenizer, model options. */
#ifndef VL_RULES_H
#define VL_RULES_H

#include <jansson.h>

#include "tokenizer/split.h"

typedef struct vl_rules {
    vl_split split;
    bool nfc;
    bool bytes;              /* ByteLevel was there: always, after a successful read */
    bool ignore_merges;
} vl_rules;

/* From the parsed file (vocab and merges may be left out). Whatever would change the ids and is
 * not implemented is an error that names it. On failure r is cleared. */
int vl_rules_read(vl_rules *r, const json_t *root, const char *what, vl_err *err);
/* For a checkpoint without tokenizer.json: what its tokenizer_class does. */
int vl_rules_of_class(vl_rules *r, const char *tokenizer_class, const char *what, vl_err *err);

#endif
