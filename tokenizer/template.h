/* template.h: the Qwen3-VL chat template in C: messages -> segments of text.
 * Structure (<|im_start|> ...) and content are separate segments, so text from a user can never
 * become a special token. */
#ifndef VL_TEMPLATE_H
#define VL_TEMPLATE_H

#include <jansson.h>

#include "common/common.h"

typedef struct vl_segment {
    char *text;                /* malloc'd, NUL-terminated                            */
    size_t len;
    bool special;              /* parse special tokens: written by the template       */
    int media;                 /* -1: text; k: this is the k-th picture's <|image_pad|>;
                                  the segment's text is the placeholder               */
} vl_segment;
typedef struct vl_segments { vl_segment *v; size_t n, cap; int n_media; } vl_segments;

/* messages: array; tools: array or NULL; flags: VL_NO_GENERATION_PROMPT | VL_ADD_VISION_ID. */
int vl_template_render(vl_segments *out, const json_t *messages, const json_t *tools,
                       unsigned flags, vl_err *err);
void vl_segments_clear(vl_segments *s);
/* Looks at the checkpoint's own template (chat_template.jinja, chat_template.json or
 * tokenizer_config.json): returns "" if it is Qwen3-VL's, else a warning. Static string. */
const char *vl_template_check(const char *dir);

#endif
