/* json_text.h: JSON printed as Python's json.dumps(x, ensure_ascii=False), which is what the
 * `tojson` filter of HF's chat templates gives: ", " and ": ", keys in their order, floats by repr.
 */
#ifndef VL_JSON_TEXT_H
#define VL_JSON_TEXT_H

#include <jansson.h>

#include "tokenizer/buffer.h"

/* v must not nest deeper than vl_json_parse() lets through: this recurses. */
int vl_json_text(vl_buffer *out, const json_t *v, vl_err *err);

#endif
