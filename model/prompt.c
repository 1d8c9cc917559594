/* prompt.c: template segments or raw text -> token ids, each <|image_pad|> expanded to as many as
 * its picture has merged tokens. HF: Qwen3VLProcessor. */
#include <stdlib.h>

#include "loader/json.h"
#include "model/model.h"
#include "tokenizer/template.h"

static int push_span(vl_prompt *p, vl_span span, size_t *cap, vl_err *err) {
    if (span.n == 0) return 0;
    if (p->n_spans == *cap) {
        size_t grown_cap = 2 * *cap + 8;
        vl_span *grown = realloc(p->spans, grown_cap * sizeof *grown);
        if (!grown) return vl_fail(err, VL_E_NOMEM, "no memory for the prompt");
        p->spans = grown;
        *cap = grown_cap;
    }
    p->spans[p->n_spans++] = span;
    return 0;
}

static int push_picture(vl_prompt *p, const vl_config *c, const vl_picture_info *info, vl_err *err) {
    for (int i = 0; i < info->tokens; i++)
        if (vl_ids_push(&p->ids, c->image_token, err)) return -1;
    p->image_tokens += info->tokens;
    return 0;
}

/* ids with one placeholder a picture -> p->ids and p->spans. */
static int expand(vl_prompt *p, const vl_model *m, const vl_ids *ids, vl_picture *const *pictures,
                  int n_pictures, vl_err *err) {
    const vl_config *c = &m->config;
    size_t cap = 0, text = 0; /* where the current run of text began */
    int k = 0;
    for (size_t i = 0; i <= ids->n; i++) {
        bool end = i == ids->n, picture = !end && ids->v[i] == c->image_token;
        if (!end && ids->v[i] == c->video_token)
            return vl_fail(err, VL_E_UNSUPPORTED, "video input is not supported; send frames as pictures");
        if (p->ids.n > (size_t)INT32_MAX / 4) return vl_fail(err, VL_E_LIMIT, "the prompt is too long");
        if (!end && !picture) {
            if (vl_ids_push(&p->ids, ids->v[i], err)) return -1;
            continue;
        }
        int at = (int)p->ids.n;
        if (push_span(p, (vl_span){.at = (int)text, .n = at - (int)text, .picture = -1}, &cap, err)) return -1;
        if (end) break;
        if (k == n_pictures) break; /* counted below */
        const vl_picture_info *info = &pictures[k]->info;
        vl_span span = {at, info->tokens, info->grid_h / c->vision.merge, info->grid_w / c->vision.merge, k++};
        if (push_span(p, span, &cap, err) || push_picture(p, c, info, err)) return -1;
        text = p->ids.n;
    }
    int places = 0;
    for (size_t i = 0; i < ids->n; i++) places += ids->v[i] == c->image_token;
    if (places != n_pictures)
        return vl_fail(err, VL_E_INPUT, "%d pictures were given, the prompt has places for %d", n_pictures,
                       places);
    if (p->ids.n == 0) return vl_fail(err, VL_E_INPUT, "the prompt is empty");
    return 0;
}

/* Takes ids (freed here) and makes the prompt of them; bad: they could not be made. */
static int finish(vl_prompt **out, const vl_model *m, vl_ids *ids, int bad, vl_picture *const *pictures,
                  int n_pictures, vl_err *err) {
    vl_prompt *p = vl_calloc(1, sizeof *p);
    *out = NULL;
    if (!bad && p) p->pictures = vl_calloc((size_t)n_pictures, sizeof *p->pictures);
    if (!bad && (!p || !p->pictures)) bad = vl_fail(err, VL_E_NOMEM, "no memory for the prompt");
    if (!bad) bad = expand(p, m, ids, pictures, n_pictures, err);
    for (int i = 0; !bad && i < n_pictures; i++) p->pictures[p->n_pictures++] = vl_picture_ref(pictures[i]);
    free(ids->v);
    if (bad) vl_prompt_free(p);
    else *out = p;
    return bad ? -1 : 0;
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
    vl_segments segments = {0};
    vl_ids ids = {0};
    int bad = render(&segments, messages_json, tools_json, flags, err) ||
              vl_segments_encode(&segments, m->tokenizer, &ids, err);
    vl_segments_clear(&segments);
    return finish(out, m, &ids, bad, pictures, n_pictures, err);
}

int vl_prompt_text(vl_prompt **out, const vl_model *m, const char *text, size_t len, bool special,
                   vl_picture *const *pictures, int n_pictures, vl_err *err) {
    vl_ids ids = {0};
    int bad = vl_tokenizer_encode(m->tokenizer, text, len, special, &ids, err);
    return finish(out, m, &ids, bad, pictures, n_pictures, err);
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
