/* trace.c: collects the taps of one request and writes them as safetensors.
 *
 * Easy to get wrong: a tensor arrives in pieces (one per picture, one per prefill chunk), joined by
 * rows, except position_ids [3, T], joined by columns; and decode steps tap the same names, so
 * tracing stops with the first generated token.
 */
#include "cli/trace.h"

#include <math.h>
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

static cli_tensor *slot(cli_trace *t, const vl_tap *tap) {
    for (size_t i = 0; i < t->n; i++)
        if (strcmp(t->v[i].name, tap->name) == 0) return &t->v[i];
    cli_tensor *more = realloc(t->v, (t->n + 1) * sizeof *more);
    if (!more) return NULL;
    t->v = more;
    cli_tensor *s = &t->v[t->n++];
    *s = (cli_tensor){.rank = tap->rank, .is_int = tap->i64 != NULL};
    snprintf(s->name, sizeof s->name, "%s", tap->name);
    memcpy(s->shape, tap->shape, sizeof s->shape);
    s->shape[tap->rank > 2 || strcmp(tap->name, "position_ids") ? 0 : 1] = 0;
    return s;
}

/* Appends the piece along `axis` of a tensor seen as [outer, along, inner]. */
static int join(cli_tensor *s, const vl_tap *tap, int axis) {
    size_t elem = s->is_int ? sizeof(int64_t) : sizeof(float), outer = 1, inner = elem;
    for (int i = 0; i < s->rank; i++) {
        if (i != axis && s->shape[i] != tap->shape[i]) return -1;
        if (i < axis) outer *= (size_t)s->shape[i];
        if (i > axis) inner *= (size_t)s->shape[i];
    }
    size_t had = (size_t)s->shape[axis] * inner, add = (size_t)tap->shape[axis] * inner;
    const char *piece = s->is_int ? (const char *)tap->i64 : (const char *)tap->f32;
    char *joined = outer == 1 ? realloc(s->data, had + add + 1) : malloc(outer * (had + add) + 1);
    if (!joined) return -1;
    if (outer == 1) {
        memcpy(joined + had, piece, add);
    } else {
        for (size_t o = 0; o < outer; o++) {
            if (had) memcpy(joined + o * (had + add), (char *)s->data + o * had, had);
            memcpy(joined + o * (had + add) + had, piece + o * add, add);
        }
        free(s->data);
    }
    s->data = joined;
    s->shape[axis] += tap->shape[axis];
    return 0;
}

static void collect(void *user, const vl_tap *tap) {
    cli_trace *t = user;
    cli_tensor *s = slot(t, tap);
    int axis = tap->rank == 2 && strcmp(tap->name, "position_ids") == 0;
    if (!s || s->rank != tap->rank || s->is_int != (tap->i64 != NULL) || join(s, tap, axis))
        t->failed = true;
}

static void add_i64(cli_trace *t, const char *name, int rank, int64_t d0, int64_t d1,
                    const int64_t *data) {
    collect(t, &(vl_tap){.name = name, .rank = rank, .shape = {d0, d1}, .i64 = data});
}

/* What goes into the model is known without running it. */
static void collect_inputs(cli_trace *t, vl_picture *const *pictures, int n, const vl_prompt *p) {
    for (int i = 0; i < n; i++) {
        const vl_picture_info *info = vl_picture_get_info(pictures[i]);
        int patches, width;
        const float *values = vl_picture_values(pictures[i], &patches, &width);
        const int64_t thw[3] = {info->grid_t, info->grid_h, info->grid_w};
        collect(t, &(vl_tap){.name = "pixel_values", .rank = 2, .shape = {patches, width}, .f32 = values});
        add_i64(t, "image_grid_thw", 2, 1, 3, thw);
    }
    size_t rows;
    const int32_t *ids = vl_prompt_ids(p, &rows);
    for (size_t i = 0; i < rows; i++) add_i64(t, "input_ids", 1, 1, 0, &(int64_t){ids[i]});
}

typedef struct watch {
    cli_trace *trace;
    int generated;
    char finish_reason[16];
    vl_err error;
} watch;

static int on_event(void *user, const vl_event *ev) {
    watch *w = user;
    if (ev->kind == VL_EV_TOKEN) {
        w->generated++;
        add_i64(w->trace, "generated_ids", 1, 1, 0, &(int64_t){ev->id});
    } else if (ev->kind == VL_EV_DONE) {
        snprintf(w->finish_reason, sizeof w->finish_reason, "%s", ev->finish_reason);
        w->error = ev->error;
    }
    return 0;
}

/* Steps the session until the request is done; tracing ends with the first generated token. */
static int drive(cli_trace *out, vl_model *m, const vl_prompt *prompt, const cli_trace_request *r) {
    vl_session *session = NULL;
    vl_request *request = NULL;
    vl_err err = {0};
    watch w = {.trace = out};
    size_t rows;
    vl_prompt_ids(prompt, &rows);
    vl_session_params params = {.kv_tokens = (int64_t)rows + r->sampling.max_tokens + 1,
                                .max_rows = r->max_rows};
    int rc = vl_session_open(&session, m, &params, &err) ? cli_fail(&err) : 0;
    if (!rc) vl_session_trace(session, collect, out);
    if (!rc && vl_submit(&request, session, prompt, &r->sampling, on_event, &w, &err))
        rc = cli_fail(&err);
    for (int more = 1; !rc && more;) {
        more = vl_session_step(session, &err);
        if (more < 0) rc = cli_fail(&err);
        if (w.generated) vl_session_trace(session, NULL, NULL);
    }
    if (!rc && strcmp(w.finish_reason, "error") == 0) rc = cli_fail(&w.error);
    vl_request_free(request);
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
    if (!rc) {
        collect_inputs(out, pictures, r->images->n, prompt);
        rc = drive(out, m, prompt, r);
    }
    if (!rc && out->failed) {
        fputs("vitreous: the pieces of a traced tensor do not fit together, or memory ran out\n", stderr);
        rc = CLI_BAD;
    }
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
    int64_t n = 1, chunk = 0;
    bool ignore_eos = false;
    const cli_option options[] = {
        {"image", 'i', CLI_LIST, &images, "FILE", "a picture", 0, 0},
        {"prompt", 'p', CLI_STR, &text, "TEXT", "the question", 0, 0},
        {"dump", 'o', CLI_STR, &path, "OUT", "the safetensors file to write", 0, 0},
        {"max-tokens", 'n', CLI_INT, &n, "N", "tokens to generate, greedily (default 1)", 1, 1e6},
        {"ignore-eos", 0, CLI_FLAG, &ignore_eos, NULL, "go on to -n tokens", 0, 0},
        {"chunk", 0, CLI_INT, &chunk, "N", "prompt rows of one pass", 0, 1e6},
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
                           .max_rows = (int)chunk};
    r.sampling.ignore_eos = ignore_eos;
    rc = cli_picture_params(&common, &r.picture);
    if (!rc) rc = cli_open_model(&common, &m);
    if (!rc) rc = cli_trace_run(&trace, m, &r);
    if (!rc) rc = dump(&trace, path);
    if (!rc) fprintf(stderr, "%zu tensors in %s\n", trace.n, path);
    cli_trace_clear(&trace);
    vl_model_free(m);
    free(images.v);
    return rc;
}
