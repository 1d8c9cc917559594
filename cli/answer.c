/* answer.c: one answer from submit to the last line, for run, chat, demo and batch. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "kernels/peaks.h"
#include "serve/chat.h"

vl_sampling cli_sampling_of(const cli_sampling *s, const vl_model *m) {
    vl_sampling v = vl_sampling_of_model(m, (int)s->n);
    if (s->greedy) v.temperature = 0;
    if (!isnan(s->temp)) v.temperature = (float)s->temp;
    if (!isnan(s->top_p)) v.top_p = (float)s->top_p;
    if (!isnan(s->min_p)) v.min_p = (float)s->min_p;
    if (!isnan(s->repetition)) v.repetition_penalty = (float)s->repetition;
    if (!isnan(s->presence)) v.presence_penalty = (float)s->presence;
    if (!isnan(s->frequency)) v.frequency_penalty = (float)s->frequency;
    if (s->top_k != INT64_MIN) v.top_k = (int)s->top_k;
    if (s->mirostat != INT64_MIN) v.mirostat = (int)s->mirostat;
    if (!isnan(s->tau)) v.mirostat_tau = (float)s->tau;
    if (!isnan(s->eta)) v.mirostat_eta = (float)s->eta;
    if (s->seed != INT64_MIN) v.seed = (uint64_t)s->seed;
    v.stop = s->stop.v;
    v.n_stop = s->stop.n;
    v.ignore_eos = s->ignore_eos;
    v.detect_repetition = s->detect_repetition;
    return v;
}

static int keep(cli_answer *a, const char *text, size_t len) {
    if (a->len + len + 1 > a->cap) {
        size_t cap = (a->len + len + 1) * 2;
        char *more = realloc(a->text, cap);
        if (!more) return -1;
        a->text = more;
        a->cap = cap;
    }
    if (len) memcpy(a->text + a->len, text, len);
    a->len += len;
    a->text[a->len] = '\0';
    return 0;
}

static void finish(cli_answer *a, const vl_event *ev) {
    a->done = true;
    snprintf(a->finish_reason, sizeof a->finish_reason, "%s", ev->finish_reason);
    a->prompt_tokens = ev->prompt_tokens;
    a->image_tokens = ev->image_tokens;
    a->completion_tokens = ev->completion_tokens;
    a->logits_hash = ev->logits_hash;
    a->timings = ev->timings;
    a->error = ev->error;
}

int cli_answer_event(void *answer, const vl_event *ev) {
    cli_answer *a = answer;
    bool show = a->progress && isatty(STDERR_FILENO);
    switch (ev->kind) {
    case VL_EV_ENCODE:
        if (show) fprintf(stderr, "\r\033[Kpicture %d: block %d of %d", ev->picture + 1, ev->done, ev->total);
        break;
    case VL_EV_PREFILL:
        if (show) fprintf(stderr, "\r\033[Kreading: %d of %d tokens", ev->done, ev->total);
        if (show && ev->done == ev->total) fputs("\r\033[K", stderr);
        break;
    case VL_EV_TOKEN:
        if (a->stream) {
            fwrite(ev->text, 1, ev->len, a->stream);
            if (fflush(a->stream)) return 1; /* nobody reads any more */
        }
        if (keep(a, ev->text, ev->len)) return 1;
        break;
    case VL_EV_DONE:
        finish(a, ev);
        break;
    }
    return a->cancel && *a->cancel;
}

void cli_answer_clear(cli_answer *a) {
    free(a->text);
    a->text = NULL;
    a->len = a->cap = 0;
    a->done = false;
}

int cli_answer_one(vl_model *m, const vl_prompt *p, const vl_sampling *s, cli_answer *a) {
    vl_session *session = NULL;
    vl_err err = {0};
    size_t rows;
    vl_prompt_ids(p, &rows);
    vl_session_params params = {.kv_tokens = (int64_t)rows + s->max_tokens + 1, .speculate = a->speculate};
    int rc = 0;
    if (keep(a, "", 0) || vl_session_open(&session, m, &params, &err) ||
        vl_generate(session, p, s, cli_answer_event, a, &err))
        rc = cli_fail(&err);
    else if (strcmp(a->finish_reason, "error") == 0)
        rc = cli_fail(&a->error);
    vl_session_free(session);
    return rc;
}

static double rate(double amount, double seconds) { return seconds > 0 ? amount / seconds : 0; }

json_t *cli_answer_json(const cli_answer *a, const vl_model *m, vl_picture *const *pictures,
                        const cli_list *files, const char *question) {
    const vl_timings *t = &a->timings;
    json_t *images = json_array(), *j = json_object();
    char hash[16];
    snprintf(hash, sizeof hash, "%08x", a->logits_hash);
    for (int i = 0; i < files->n; i++)
        json_array_append_new(images, cli_picture_json(pictures[i], files->v[i]));
    json_object_set_new(j, "text", json_stringn(a->text ? a->text : "", a->len));
    json_object_set_new(j, "usage", json_pack("{s:i,s:i,s:i}", "prompt_tokens", a->prompt_tokens,
                                              "image_tokens", a->image_tokens,
                                              "completion_tokens", a->completion_tokens));
    json_object_set_new(j, "finish_reason", json_string(a->finish_reason));
    json_object_set_new(j, "images", images);
    json_t *asked = question ? json_string(question) : NULL, *marks = grounding_find(a->text, asked, images);
    if (marks) json_object_set_new(j, "grounding", marks);
    json_decref(asked);
    json_object_set_new(j, "timings",
                        json_pack("{s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:i,s:i}", "encode_s", t->encode_s,
                                  "prefill_s", t->prefill_s, "decode_s", t->decode_s, "sample_s",
                                  t->sample_s, "first_token_s", t->first_token_s, "total_s",
                                  t->total_s, "tok_s", rate(t->decoded_tokens, t->decode_s),
                                  "draft_tokens", t->draft_tokens, "accepted_tokens", t->accepted_tokens));
    json_object_set_new(j, "logits_hash", json_string(hash));
    json_object_set_new(j, "model", json_string(vl_model_get_info(m)->name));
    return j;
}

void cli_answer_speed(const cli_answer *a, const vl_model *m) {
    /* Weights smaller than this may stay in a processor's caches, faster than any memory. */
    enum { CACHED_BYTES = 64 << 20 };
    const vl_timings *t = &a->timings;
    const vl_model_info *info = vl_model_get_info(m);
    int passes = t->decoded_tokens - t->accepted_tokens; /* each reads the weights once */
    double gbs = rate((double)info->decode_bytes * passes, t->decode_s) / 1e9;
    fprintf(stderr, "encode %.3f s, prefill %d tokens %.3f s, first token %.3f s\n", t->encode_s,
            t->prefill_tokens, t->prefill_s, t->first_token_s);
    if (a->speculate)
        fprintf(stderr, "looked ahead: %d of %d drafted tokens were right, %.2f tokens per pass\n",
                t->accepted_tokens, t->draft_tokens, rate(t->decoded_tokens, passes));
    double roof = vl_peak_read_gbs(info->threads);
    fprintf(stderr, "decode %d tokens: %.1f tok/s, %.2f GB/s, %.0f %% of roof (%.1f GB/s%s), logits %08x\n",
            t->decoded_tokens, rate(t->decoded_tokens, t->decode_s), gbs, 100 * rate(gbs, roof), roof,
            info->decode_bytes < CACHED_BYTES ? "; the weights fit into caches" : "", a->logits_hash);
}
