/* prompt.c: template segments or raw text -> token ids with pictures expanded in place.
 *
 * Easy to get wrong: HF renders the whole prompt and tokenises it at once, so text the template
 * wrote ("user\n") and text a person wrote may merge into one token across their border. Here they
 * are joined before BPE too, while special tokens are recognised only in what the template wrote. */
#include <stdlib.h>

#include "loader/json.h"
#include "model/model.h"
#include "tokenizer/template.h"

/* A run of plain text waiting for BPE, and the prompt under construction. */
typedef struct builder {
    vl_prompt *p;
    const vl_model *m;
    vl_picture *const *pictures;
    int n_pictures, next_picture;
    char *text;
    size_t len, cap;
    size_t text_start;                 /* ids.n where the current text span began */
    size_t cap_spans;
} builder;

static int add_text(builder *b, const char *s, size_t n, vl_err *err) {
    if (b->len + n > b->cap) {
        size_t cap = 2 * (b->len + n) + 256;
        char *grown = realloc(b->text, cap);
        if (!grown) return vl_fail(err, VL_E_NOMEM, "no memory for the prompt");
        b->text = grown;
        b->cap = cap;
    }
    if (n) memcpy(b->text + b->len, s, n);
    b->len += n;
    return 0;
}

static int flush_text(builder *b, vl_err *err) {
    if (b->len && vl_tokenizer_encode(b->m->tokenizer, b->text, b->len, false, &b->p->ids, err)) return -1;
    b->len = 0;
    return 0;
}

static int add_span(builder *b, vl_span span, vl_err *err) {
    vl_prompt *p = b->p;
    if (span.n == 0) return 0;
    if (p->n_spans == b->cap_spans) {
        size_t cap = 2 * b->cap_spans + 8;
        vl_span *grown = realloc(p->spans, cap * sizeof *grown);
        if (!grown) return vl_fail(err, VL_E_NOMEM, "no memory for the prompt");
        p->spans = grown;
        b->cap_spans = cap;
    }
    p->spans[p->n_spans++] = span;
    return 0;
}

static int end_text_span(builder *b, vl_err *err) {
    size_t at = b->text_start, n = b->p->ids.n - at;
    b->text_start = b->p->ids.n;
    return add_span(b, (vl_span){.at = (int)at, .n = (int)n, .picture = -1}, err);
}

/* <|image_pad|> -> as many of them as the picture has merged tokens. */
static int add_picture(builder *b, vl_err *err) {
    vl_prompt *p = b->p;
    if (b->next_picture >= b->n_pictures)
        return vl_fail(err, VL_E_INPUT, "the prompt has more picture places than the %d pictures given",
                       b->n_pictures);
    if (flush_text(b, err) || end_text_span(b, err)) return -1;
    int k = b->next_picture++;
    const vl_picture_info *info = &b->pictures[k]->info;
    vl_span span = {(int)p->ids.n, info->tokens, info->grid_h / b->m->config.vision.merge,
                    info->grid_w / b->m->config.vision.merge, k};
    for (int i = 0; i < info->tokens; i++)
        if (vl_ids_push(&p->ids, b->m->config.image_token, err)) return -1;
    p->image_tokens += info->tokens;
    b->text_start = p->ids.n;
    return add_span(b, span, err);
}

static int add_token(builder *b, int32_t id, vl_err *err) {
    if (id == b->m->config.image_token) return add_picture(b, err);
    if (id == b->m->config.video_token)
        return vl_fail(err, VL_E_UNSUPPORTED, "video input is not supported; send frames as pictures");
    return flush_text(b, err) || vl_ids_push(&b->p->ids, id, err) ? -1 : 0;
}

/* Text of the template: <...> tokens become ids, the rest is plain. */
static int add_special(builder *b, const char *s, size_t n, vl_err *err) {
    char token[64];
    for (size_t i = 0; i < n;) {
        const char *open = memchr(s + i, '<', n - i);
        size_t at = open ? (size_t)(open - s) : n;
        if (add_text(b, s + i, at - i, err)) return -1;
        i = at;
        if (!open) break;
        const char *close = memchr(open, '>', n - at);
        size_t len = close ? (size_t)(close - open) + 1 : 0;
        int32_t id = -1;
        if (len && len < sizeof token) {
            memcpy(token, open, len);
            token[len] = 0;
            id = vl_tokenizer_id(b->m->tokenizer, token);
        }
        if (id >= 0 ? add_token(b, id, err) : add_text(b, open, 1, err)) return -1;
        i += id >= 0 ? len : 1;
    }
    return 0;
}

static int finish(builder *b, vl_err *err) {
    if (flush_text(b, err) || end_text_span(b, err)) return -1;
    if (b->next_picture != b->n_pictures)
        return vl_fail(err, VL_E_INPUT, "%d pictures were given, the prompt has places for %d",
                       b->n_pictures, b->next_picture);
    if (b->p->ids.n == 0) return vl_fail(err, VL_E_INPUT, "the prompt is empty");
    if (b->p->ids.n > (size_t)INT32_MAX / 4) return vl_fail(err, VL_E_LIMIT, "the prompt is too long");
    b->p->pictures = vl_calloc((size_t)b->n_pictures, sizeof *b->p->pictures);
    if (!b->p->pictures) return vl_fail(err, VL_E_NOMEM, "no memory for the prompt");
    for (int i = 0; i < b->n_pictures; i++) b->p->pictures[i] = vl_picture_ref(b->pictures[i]);
    b->p->n_pictures = b->n_pictures;
    return 0;
}

/* Ends a construction: hands the prompt out, or frees it. */
static int deliver(builder *b, int bad, vl_prompt **out) {
    free(b->text);
    if (bad) vl_prompt_free(b->p);
    else *out = b->p;
    return bad ? -1 : 0;
}

static int start(builder *b, vl_prompt **out, const vl_model *m, vl_picture *const *pictures,
                 int n_pictures, vl_err *err) {
    *out = NULL;
    *b = (builder){.m = m, .pictures = pictures, .n_pictures = n_pictures};
    b->p = vl_calloc(1, sizeof *b->p);
    return b->p ? 0 : vl_fail(err, VL_E_NOMEM, "no memory for the prompt");
}

/* messages (and tools) as JSON text -> segments. */
static int render(vl_segments *segments, const char *messages, const char *tools, unsigned flags,
                  vl_err *err) {
    json_t *msgs = vl_json_parse(messages, strlen(messages), "messages", err), *tls = NULL;
    int bad = !msgs;
    if (!bad && tools) bad = !(tls = vl_json_parse(tools, strlen(tools), "tools", err));
    if (!bad) bad = vl_template_render(segments, msgs, tls, flags, err);
    json_decref(msgs);
    json_decref(tls);
    return bad;
}

int vl_prompt_chat(vl_prompt **out, const vl_model *m, const char *messages_json, const char *tools_json,
                   unsigned flags, vl_picture *const *pictures, int n_pictures, vl_err *err) {
    builder b;
    vl_segments segments = {0};
    if (start(&b, out, m, pictures, n_pictures, err)) return -1;
    int bad = render(&segments, messages_json, tools_json, flags, err);
    for (size_t i = 0; i < segments.n && !bad; i++) {
        const vl_segment *s = &segments.v[i];
        bad = s->special || s->media >= 0 ? add_special(&b, s->text, s->len, err)
                                          : add_text(&b, s->text, s->len, err);
    }
    bad = bad || finish(&b, err);
    vl_segments_clear(&segments);
    return deliver(&b, bad, out);
}

int vl_prompt_text(vl_prompt **out, const vl_model *m, const char *text, size_t len, bool special,
                   vl_picture *const *pictures, int n_pictures, vl_err *err) {
    builder b;
    if (start(&b, out, m, pictures, n_pictures, err)) return -1;
    int bad = (special ? add_special : add_text)(&b, text, len, err) || finish(&b, err);
    return deliver(&b, bad, out);
}

int vl_render(const vl_model *m, const char *messages_json, const char *tools_json, unsigned flags,
              char **text, vl_err *err) {
    (void)m; /* one architecture, one template; kept for the day there are two */
    vl_segments segments = {0};
    size_t total = 0, at = 0;
    *text = NULL;
    int bad = render(&segments, messages_json, tools_json, flags, err);
    for (size_t i = 0; i < segments.n; i++) total += segments.v[i].len;
    if (!bad && !(*text = vl_calloc(total + 1, 1)))
        bad = vl_fail(err, VL_E_NOMEM, "no memory for the rendered prompt");
    for (size_t i = 0; i < segments.n && !bad; i++) {
        memcpy(*text + at, segments.v[i].text, segments.v[i].len);
        at += segments.v[i].len;
    }
    vl_segments_clear(&segments);
    return bad ? -1 : 0;
}

const int32_t *vl_prompt_ids(const vl_prompt *p, size_t *n) {
    *n = p->ids.n;
    return p->ids.v;
}

int vl_prompt_image_tokens(const vl_prompt *p) { return p->image_tokens; }

void vl_prompt_free(vl_prompt *p) {
    if (!p) return;
    for (int i = 0; i < p->n_pictures; i++) vl_picture_free(p->pictures[i]);
    free(p->pictures);
    free(p->spans);
    free(p->ids.v);
    free(p);
}
