/* template.h: the Qwen3-VL chat template in C: messages -> segments of text -> ids.
 * Structure (<|im_start|> ...) and content are separate segments, so text from a user can never
 * become a special token. */
#ifndef VL_TEMPLATE_H
#define VL_TEMPLATE_H

#include <jansson.h>

#include "tokenizer/tokenizer.h"

typedef struct vl_segment {
    char *text;                /* malloc'd, NUL-terminated                            */
    size_t len;
    bool special;              /* parse special tokens: written by the template       */
    int media;                 /* -1: text; k: this is the k-th picture's <|image_pad|>;
                                  the segment's text is the placeholder               */
} vl_segment;
/* n_media: pictures placed, counted in reading order over the whole conversation (a picture in a
 * system or assistant message is not shown by the template and not counted). */
typedef struct vl_segments { vl_segment *v; size_t n, cap; int n_media, n_videos; } vl_segments;

/* messages: array; tools: array or NULL; flags: VL_NO_GENERATION_PROMPT | VL_ADD_VISION_ID.
 * The text is what the checkpoint's own Jinja template gives in HF. VL_E_INPUT names the field of
 * a wrong shape ("messages[2].content[0].text: ..."). Videos are placed as <|video_pad|>. */
int vl_template_render(vl_segments *out, const json_t *messages, const json_t *tools,
                       unsigned flags, vl_err *err);
void vl_segments_clear(vl_segments *s);
/* Appends the ids of the segments, encoded as one text (never segment by segment: "\n" + "\n" is
 * one token). The k-th <|image_pad|> id in `out` is picture k: no content can make that id. Fails
 * with VL_E_MODEL if the tokenizer lacks one of the template's tokens. */
int vl_segments_encode(const vl_segments *s, const vl_tokenizer *t, vl_ids *out, vl_err *err);
/* Looks at the checkpoint's own template (chat_template.jinja, chat_template.json or
 * tokenizer_config.json): returns "" if it is Qwen3-VL's, else a warning. Static string. */
const char *vl_template_check(const char *dir);

#endif
