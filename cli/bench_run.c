/* bench_run.c: runs requests and takes their times. Each round measures the machine's peaks and
 * then one whole request, so that a busy neighbour or a changed clock shows in both. Caches are off
 * unless the session asks for them; the end token is ignored, so every answer has its full length.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "cli/bench.h"
#include "cli/host.h"
#include "common/common.h"
#include "kernels/peaks.h"
#include "model/model.h"

void bench_add(bench_samples *s, double v) {
    if (s->n < BENCH_SAMPLES) s->v[s->n++] = v;
}

static bool on_cpu(const bench *b) { return !strcmp(vl_model_get_info(b->m)->backend, "cpu"); }

void bench_peaks(bench *b) {
    int threads = vl_model_get_info(b->m)->threads;
    if (!on_cpu(b)) return; /* these are the processor's */
    bench_add(&b->read, vl_peak_read_gbs(threads));
    double fma = vl_peak_fma_gflops(threads), exact = vl_peak_exact_gflops(threads);
    bench_add(&b->fp32, fma);
    bench_add(&b->exact, exact > fma ? exact : fma); /* mostly one and the same, twice */
    bench_add(&b->bf16, vl_peak_bf16_gflops(threads));
    bench_add(&b->int8, vl_peak_int8_gops(threads));
}

int bench_open(bench *b, int64_t threads) {
    cli_common c = b->common;
    vl_config config;
    vl_err err = {0};
    if (threads) c.threads = threads;
    vl_model_free(b->m);
    b->m = NULL;
    b->cold = true;
    int rc = cli_open_model(&c, &b->m);
    if (rc) return rc;
    const vl_model_info *info = vl_model_get_info(b->m);
    if (vl_config_load(&config, info->dir, &err)) return cli_fail(&err);
    b->config = config;
    b->shape = shape_of_config(&config, info->name);
    b->mode = mode_find(info->dtype);
    if (!b->mode) return cli_usage("bench knows no mode \"%s\"", info->dtype);
    return cli_picture_params(&b->common, b->m, &b->picture);
}

/* ---- inputs ---------------------------------------------------------------------------------- */

static int prompt_with(const bench *b, size_t letters, vl_picture *picture, vl_prompt **out,
                       vl_err *err) {
    static const char text[] = "Describe this picture in detail, please: what is in it and where? ";
    char *question = malloc(letters + 1), *messages = NULL;
    if (!question) return vl_fail(err, VL_E_NOMEM, "no memory for a question");
    for (size_t i = 0; i < letters; i++) question[i] = text[i % (sizeof text - 1)];
    question[letters] = '\0';
    int rc = cli_messages(NULL, picture != NULL, question, &messages);
    free(question);
    if (rc) return vl_fail(err, VL_E_INPUT, "no question could be made");
    rc = vl_prompt_chat(out, b->m, messages, NULL, 0, &picture, picture != NULL, err);
    free(messages);
    return rc;
}

/* A question just so long that it and the template make text_tokens; the nearest below if no length
 * hits it. More letters never make fewer tokens by much, so a bisection finds it. */
static int make_prompt(const bench *b, const bench_case *c, vl_picture *picture, vl_prompt **out,
                       vl_err *err) {
    size_t low = 1, high = 8 * (size_t)c->text_tokens + 8, n;
    for (;;) {
        size_t letters = (low + high + 1) / 2;
        if (prompt_with(b, low == high ? low : letters, picture, out, err)) return -1;
        if (low == high) return 0;
        vl_prompt_ids(*out, &n);
        size_t text = n - (size_t)vl_prompt_image_tokens(*out);
        if (text == (size_t)c->text_tokens) return 0;
        if (text > (size_t)c->text_tokens) high = letters - 1;
        else low = letters;
        vl_prompt_free(*out);
        *out = NULL;
        if (low > high) low = high;
    }
}

int bench_inputs(const bench *b, const bench_case *c, vl_picture **picture, vl_prompt **prompt,
                 vl_err *err) {
    *prompt = NULL;
    return bench_load_picture(b, c, picture, err) || make_prompt(b, c, *picture, prompt, err) ? -1 : 0;
}

/* ---- one request ----------------------------------------------------------------------------- */

typedef struct watch {
    bench_samples *step, *beside;
    vl_reader *reader;                /* NULL: no read passes between the tokens               */
    int tokens;
    double started, first, last;
    double reading;                   /* seconds of these passes                               */
    vl_timings timings;
    char error[256];
    bool done;
} watch;

enum { READ_EVERY = 4 };              /* tokens                                                */

static int on_event(void *user, const vl_event *ev) {
    watch *w = user;
    double now = vl_now();
    if (ev->kind == VL_EV_TOKEN && ev->id >= 0) {
        if (w->first <= 0) w->first = now;
        else if (w->step) bench_add(w->step, now - w->last);
        w->last = now;
        if (w->reader && w->tokens++ % READ_EVERY == 0) {
            bench_add(w->beside, vl_reader_pass(w->reader));
            w->reading += vl_now() - now;
            w->last = vl_now();
        }
    } else if (ev->kind == VL_EV_DONE) {
        w->timings = ev->timings;
        w->done = true;
        if (!strcmp(ev->finish_reason, "error"))
            snprintf(w->error, sizeof w->error, "%s", ev->error.msg);
    }
    return 0;
}

static vl_sampling full_length(int tokens) {
    vl_sampling s = vl_sampling_greedy(tokens);
    s.ignore_eos = true;
    return s;
}

/* One round of a case; nothing is kept when `keep` is false (warm-up). */
static int round_of(bench *b, const bench_case *c, vl_session *s, bool keep, vl_err *err) {
    bench_result *r = &b->last;
    vl_picture *picture = NULL;
    vl_prompt *prompt = NULL;
    watch w = {.step = keep && !b->speculate ? &r->step : NULL};
    vl_sampling sampling = full_length(c->tokens);
    int rc = bench_inputs(b, c, &picture, &prompt, err);
    if (w.step && on_cpu(b)) {
        w.beside = &r->beside;
        w.reader = vl_reader_beside(b->m->plain);
    }
    w.started = vl_now();
    if (!rc) rc = vl_generate(s, prompt, &sampling, on_event, &w, err);
    if (!rc && w.error[0]) rc = vl_fail(err, VL_E_BACKEND, "%s", w.error);
    if (!rc && keep) {
        const vl_picture_info *i = picture ? vl_picture_get_info(picture) : NULL;
        double pre = i ? i->decode_s + i->resize_s : 0;
        size_t rows;
        vl_prompt_ids(prompt, &rows);
        r->rows = (double)rows;
        r->patches = i ? (double)i->grid_h * i->grid_w * i->grid_t : 0;
        if (i) bench_add(&r->decode_image, i->decode_s);
        if (i) bench_add(&r->resize, i->resize_s);
        if (i) bench_add(&r->preprocess, pre);
        if (i) memcpy(r->digest, i->digest, sizeof r->digest);
        r->image_tokens = vl_prompt_image_tokens(prompt);
        if (i) bench_add(&r->encode, w.timings.encode_s);
        bench_add(&r->prefill, w.timings.prefill_s);
        if (b->speculate && w.timings.decoded_tokens) /* tokens come in bunches: one mean a round */
            bench_add(&r->step, w.timings.decode_s / w.timings.decoded_tokens);
        r->drafted += w.timings.draft_tokens;
        r->accepted += w.timings.accepted_tokens;
        r->passes += w.timings.decoded_tokens - w.timings.accepted_tokens;
        bench_add(&r->first_token, pre + w.first - w.started);
        bench_add(&r->total, pre + w.last - w.started - w.reading);
    }
    vl_reader_close(w.reader);
    vl_prompt_free(prompt);
    vl_picture_free(picture);
    return rc;
}

static double cpu_seconds(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static int64_t kv_tokens(const bench *b, const bench_case *c) {
    double image = shape_tokens(&b->shape, shape_patches(&b->shape, c->width, c->height));
    return (int64_t)(2 * image) + c->text_tokens + c->tokens + 256;
}

int bench_run_case(bench *b, const bench_case *c, const vl_session_params *params) {
    vl_session_params p = params ? *params : (vl_session_params){0};
    vl_session *s = NULL;
    vl_err err = {0};
    bench_case brief = *c; /* a large picture warms up nothing that a small one does not */
    brief.tokens = 2;
    if (c->width > 448 || c->height > 448) brief.width = brief.height = 448;
    if (c->text_tokens > 230) brief.text_tokens = 230;
    memset(&b->last, 0, sizeof b->last);
    if (!p.kv_tokens) p.kv_tokens = kv_tokens(b, c);
    p.speculate = (int)b->speculate;
    fprintf(stderr, "%s: %d round%s\n", c->name, c->rounds, c->rounds == 1 ? "" : "s");
    int rc = vl_session_open(&s, b->m, &p, &err);
    /* A warm-up packs the weights and touches their pages. */
    if (!rc && b->cold && !c->first) rc = round_of(b, &brief, s, false, &err);
    b->cold = false;
    double cpu = 0, wall = 0, joules = 0;
    for (int i = 0; !rc && i < c->rounds; i++) {
        bench_peaks(b);
        if (b->lab) op_lab_pass(b->lab);
        double c0 = cpu_seconds(), t0 = vl_now(), j0 = host_joules();
        rc = round_of(b, c, s, true, &err);
        cpu += cpu_seconds() - c0;
        wall += vl_now() - t0;
        joules = j0 < 0 ? -1 : joules + host_joules() - j0;
    }
    b->last.cpu_percent = wall > 0 ? 100 * cpu / wall : NAN;
    b->last.joules = joules;
    vl_session_free(s);
    return rc ? cli_fail(&err) : 0;
}

/* ---- many answers together ------------------------------------------------------------------- */

int bench_run_batch(bench *b, const bench_case *c, int batch) {
    enum { MOST = 64 };
    vl_session *s = NULL;
    vl_prompt *prompt = NULL;
    vl_request *r[MOST] = {0};
    watch w[MOST] = {0};
    vl_err err = {0};
    vl_sampling sampling = full_length(c->tokens);
    int rc = batch <= MOST ? 0 : vl_fail(&err, VL_E_USAGE, "a batch of more than %d", MOST),
        state = 1;
    vl_session_params p = {.max_requests = batch,
                           .kv_tokens = (int64_t)batch * (c->text_tokens + c->tokens + 64)};
    memset(&b->last, 0, sizeof b->last);
    fprintf(stderr, "batch of %d\n", batch);
    if (!rc) rc = vl_session_open(&s, b->m, &p, &err) || make_prompt(b, c, NULL, &prompt, &err);
    for (int i = 0; !rc && i < batch; i++)
        rc = vl_submit(&r[i], s, prompt, &sampling, on_event, &w[i], &err);
    bench_peaks(b);
    while (!rc && state > 0) {
        bool decoding = true; /* every answer has begun and none has ended */
        for (int i = 0; i < batch; i++) decoding = decoding && w[i].first > 0 && !w[i].done;
        double start = vl_now();
        state = vl_session_step(s, &err);
        if (state < 0) rc = -1;
        else if (decoding) bench_add(&b->last.step, vl_now() - start);
    }
    for (int i = 0; i < batch; i++) {
        if (!rc && w[i].error[0]) rc = vl_fail(&err, VL_E_BACKEND, "%s", w[i].error);
        if (r[i] && w[i].done) vl_request_free(r[i]);
    }
    if (!rc) {
        size_t rows;
        vl_prompt_ids(prompt, &rows);
        b->last.rows = (double)rows;
    }
    vl_prompt_free(prompt);
    vl_session_free(s);
    return rc ? cli_fail(&err) : 0;
}
