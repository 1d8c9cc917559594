/* trace.c: keeps a copy of every tensor that the session hands out and writes them as safetensors. */
#include "cli/trace.h"

#include <stdlib.h>
#include <string.h>

const cli_tensor *cli_trace_find(const cli_trace *t, const char *name) {
    for (size_t i = 0; i < t->n; i++)
        if (strcmp(t->v[i].name, name) == 0) return &t->v[i];
    return NULL;
}

int64_t cli_tensor_count(const cli_tensor *t) {
    int64_t n = 1;
    for (int i = 0; i < t->rank; i++) n *= t->shape[i];
    return n;
}

void cli_trace_clear(cli_trace *t) {
    for (size_t i = 0; i < t->n; i++) free(t->v[i].data);
    free(t->v);
    *t = (cli_trace){0};
}

static void collect(void *user, const vl_tap *tap) {
    cli_trace *t = user;
    cli_tensor *more = realloc(t->v, (t->n + 1) * sizeof *more);
    if (!more) {
        t->failed = true;
        return;
    }
    t->v = more;
    cli_tensor *s = &t->v[t->n];
    *s = (cli_tensor){.rank = tap->rank, .is_int = tap->i64 != NULL};
    snprintf(s->name, sizeof s->name, "%s", tap->name);
    memcpy(s->shape, tap->shape, sizeof s->shape);
    size_t bytes = (size_t)cli_tensor_count(s) * (s->is_int ? sizeof(int64_t) : sizeof(float));
    s->data = malloc(bytes + 1);
    if (!s->data) {
        t->failed = true;
        return;
    }
    memcpy(s->data, s->is_int ? (const void *)tap->i64 : tap->f32, bytes);
    t->n++;
}

static int generate(cli_trace *out, vl_model *m, const vl_prompt *prompt, const cli_trace_request *r) {
    vl_session *session = NULL;
    vl_err err = {0};
    cli_answer answer = {.progress = true};
    size_t rows;
    vl_prompt_ids(prompt, &rows);
    vl_session_params params = {.kv_tokens = (int64_t)rows + r->sampling.max_tokens + 1,
                                .max_rows = r->max_rows, .speculate = r->speculate};
    int rc = vl_session_open(&session, m, &params, &err) ? cli_fail(&err) : 0;
    if (!rc) {
        if (vl_session_trace(session, collect, out, &err) ||
            vl_generate(session, prompt, &r->sampling, cli_answer_event, &answer, &err))
            rc = cli_fail(&err);
        else if (strcmp(answer.finish_reason, "error") == 0)
            rc = cli_fail(&answer.error);
    }
    if (!rc && out->failed) {
        fputs("vitreous: no memory for the trace\n", stderr);
        rc = CLI_BAD;
    }
    cli_answer_clear(&answer);
    vl_session_free(session);
    return rc;
}

int cli_trace_run(cli_trace *out, vl_model *m, const cli_trace_request *r) {
    vl_picture **pictures = calloc((size_t)r->images->n + 1, sizeof *pictures);
    vl_prompt *prompt = NULL;
    vl_err err = {0};
    char *messages = NULL;
    int rc = cli_messages(NULL, r->images->n, r->text, &messages);
    for (int i = 0; !rc && i < r->images->n; i++)
        if (vl_picture_load_file(&pictures[i], m, r->images->v[i], &r->picture, &err))
            rc = cli_fail(&err);
    if (!rc && vl_prompt_chat(&prompt, m, messages, NULL, 0, pictures, r->images->n, &err))
        rc = cli_fail(&err);
    if (!rc) rc = generate(out, m, prompt, r);
    vl_prompt_free(prompt);
    cli_free_pictures(pictures, r->images->n);
    free(messages);
    return rc;
}

static int dump(const cli_trace *t, const char *path) {
    vl_tensor *tensors = calloc(t->n + 1, sizeof *tensors);
    static const char *const metadata[] = {"format", "pt", "producer", "vitreous " VL_VERSION, NULL};
    vl_err err = {0};
    if (!tensors) return cli_usage("out of memory");
    for (size_t i = 0; i < t->n; i++) {
        const cli_tensor *s = &t->v[i];
        tensors[i] = (vl_tensor){.name = s->name, .dtype = s->is_int ? VL_I64 : VL_F32,
                                 .rank = s->rank, .data = s->data};
        for (int d = 0; d < s->rank; d++) tensors[i].shape[d] = s->shape[d];
        tensors[i].bytes = (size_t)cli_tensor_count(s) * vl_dtype_size(tensors[i].dtype);
    }
    int rc = vl_safetensors_write(path, tensors, t->n, metadata, &err) ? cli_fail(&err) : 0;
    free(tensors);
    return rc;
}

int cmd_trace(int argc, char **argv) {
    cli_common common = {0};
    cli_list images = {0};
    const char *text = NULL, *path = NULL;
    int64_t n = 1, chunk = 0, ahead = 0;
    bool ignore_eos = false;
    const cli_option options[] = {
        {"image", 'i', CLI_LIST, &images, "FILE", "a picture", 0, 0},
        {"prompt", 'p', CLI_STR, &text, "TEXT", "the question", 0, 0},
        {"dump", 'o', CLI_STR, &path, "OUT", "the safetensors file to write", 0, 0},
        {"max-tokens", 'n', CLI_INT, &n, "N", "tokens to generate, greedily (default 1)", 1, 1e6},
        {"ignore-eos", 0, CLI_FLAG, &ignore_eos, NULL, "go on to -n tokens", 0, 0},
        {"chunk", 0, CLI_INT, &chunk, "N", "prompt rows of one pass", 0, 1e6},
        {"speculate", 0, CLI_INT, &ahead, "N", "look N tokens ahead (0: off)", 0, VL_SPECULATE_MAX},
        CLI_PICTURE_OPTIONS(&common),
        CLI_MODEL_OPTIONS(&common),
        {0},
    };
    int rc = cli_parse("trace [--image FILE]... -p TEXT --dump OUT.safetensors",
                       "Every tensor from picture to logits, named by its Hugging Face module.",
                       options, argc, argv, NULL);
    if (rc >= 0) return rc;
    if (!text || !path) return cli_usage("trace needs -p TEXT and --dump OUT.safetensors");
    vl_model *m = NULL;
    cli_trace trace = {0};
    cli_trace_request r = {.images = &images, .text = text, .sampling = vl_sampling_greedy((int)n),
                           .max_rows = (int)chunk, .speculate = (int)ahead};
    r.sampling.ignore_eos = ignore_eos;
    rc = cli_open_model(&common, &m);
    if (!rc) rc = cli_picture_params(&common, m, &r.picture);
    if (!rc) rc = cli_trace_run(&trace, m, &r);
    if (!rc) rc = dump(&trace, path);
    if (!rc) fprintf(stderr, "%zu tensors in %s\n", trace.n, path);
    cli_trace_clear(&trace);
    vl_model_free(m);
    free(images.v);
    return rc;
}
