/* gpu_run.c: one request on one of gpusim's devices, and the counters of its three stages.
 *
 * gpusim is the driver that VL_CUDA_DRIVER names, and reads its settings when it is opened: so each
 * device is an opening of its own. At the end of a stage what was enqueued is run and the counters are
 * taken. The stages are those of a second request: the first one sizes buffers and captures graphs.
 */
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "cli/gpu_report.h"
#include "gpusim/gpusim_api.h"

typedef struct gpusim {
    void *library;
    int (*finish)(void);
    int (*kernel_count)(void);
    const gpusim_kernel *(*kernel_at)(int i);
    void (*reset_counters)(void);
    const char *(*class_name)(int i);
    const char *(*version)(void);
    const char *(*assumptions)(void);
    gpusim_device (*device_now)(void);
} gpusim;

/* The library that the backend has opened. */
static int open_gpusim(gpusim *g) {
    struct { const char *name; void *to; } symbols[] = {
        {"gpusim_finish", &g->finish}, {"gpusim_kernel_count", &g->kernel_count},
        {"gpusim_kernel_at", &g->kernel_at}, {"gpusim_reset_counters", &g->reset_counters},
        {"gpusim_class_name", &g->class_name}, {"gpusim_version", &g->version},
        {"gpusim_assumptions", &g->assumptions}, {"gpusim_device_now", &g->device_now}};
    const char *path = getenv("VL_CUDA_DRIVER");
    *g = (gpusim){.library = dlopen(path, RTLD_NOW | RTLD_NOLOAD)};
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
        void *p = g->library ? dlsym(g->library, symbols[i].name) : NULL;
        memcpy(symbols[i].to, &p, sizeof p);
        if (p) continue;
        if (g->library) dlclose(g->library);
        return cli_usage("%s is not gpusim (no %s): unset VL_CUDA_DRIVER, and run make gpusim", path,
                         symbols[i].name);
    }
    return 0;
}

/* ---- counters as JSON ------------------------------------------------------------------------ */

#define WHOLE(X)                                                                                   \
    X(launches) X(blocks) X(threads) X(warp_instructions) X(load_requests) X(load_sectors)         \
    X(load_bytes) X(load_used) X(weight_sectors) X(weight_used) X(store_requests) X(store_sectors) \
    X(store_bytes) X(store_used) X(shared_requests) X(shared_wavefronts) X(shared_ideal)           \
    X(l2_hits) X(l2_misses) X(dram_bytes) X(mma_flops) X(divergent_branches) X(registers)          \
    X(stack_bytes) X(shared_bytes) X(blocks_per_sm)

static json_t *kernel_json(const gpusim *g, const gpusim_kernel *k) {
    json_t *o = json_pack("{s:s,s:s,s:f,s:f,s:f,s:f}", "kernel", k->kernel, "limiter", k->limiter,
                          "occupancy", k->occupancy, "predicted_us", k->predicted_us, "roof_us",
                          k->roof_us, "trips", k->trips);
    json_t *classes = json_object();
#define X(field) json_object_set_new(o, #field, json_integer((json_int_t)k->field));
    WHOLE(X)
#undef X
    for (int i = 0; g->class_name(i); i++)
        if (k->class_count[i])
            json_object_set_new(classes, g->class_name(i), json_integer((json_int_t)k->class_count[i]));
    json_object_set_new(o, "classes", classes);
    return o;
}

static json_t *stage_json(const gpusim *g, const char *name) {
    double predicted = 0, roof = 0;
    json_int_t launches = 0, weights = 0;
    json_t *kernels = json_array();
    for (int i = 0; i < g->kernel_count(); i++) {
        const gpusim_kernel *k = g->kernel_at(i);
        predicted += k->predicted_us;
        roof += k->roof_us;
        weights += 32 * (json_int_t)k->weight_sectors;
        if (k->blocks) launches += (json_int_t)k->launches;
        json_array_append_new(kernels, kernel_json(g, k));
    }
    return json_pack("{s:s,s:I,s:f,s:f,s:I,s:o}", "stage", name, "launches", launches, "predicted_us",
                     predicted, "roof_us", roof, "weight_bytes", weights, "kernels", kernels);
}

/* ---- the request ------------------------------------------------------------------------------- */

enum { STEPS = 3, DECODED = 2 }; /* tokens: one from the prompt, one decoded, and one more: the end of an
                                   * answer fetches its logits, which is no part of a token */

typedef struct progress {
    const gpusim *g;
    json_t *stages;
    const char *stage;       /* that the current step belongs to, or NULL: an encoding goes on */
    int steps;               /* after the encoding */
    bool done;
    char error[256];
} progress;

/* What ran since the last call is one stage. */
static int end_stage(progress *p, const char *name) {
    if (p->g->finish()) return -1;
    json_array_append_new(p->stages, stage_json(p->g, name));
    p->g->reset_counters();
    return 0;
}

static int on_event(void *user, const vl_event *ev) {
    progress *p = user;
    if (ev->kind == VL_EV_PREFILL) p->stage = "prefill";
    if (ev->kind == VL_EV_ENCODE && ev->done == ev->total) return end_stage(p, "encode");
    if (ev->kind != VL_EV_DONE) return 0;
    p->done = true;
    if (!strcmp(ev->finish_reason, "error")) snprintf(p->error, sizeof p->error, "%s", ev->error.msg);
    return 0;
}

/* Steps until the answer is whole. The prompt is one pass (max_rows). */
static int run_stages(const gpusim *g, vl_session *s, const vl_prompt *prompt, json_t *stages,
                      vl_err *err) {
    vl_sampling sampling = vl_sampling_greedy(STEPS);
    vl_request *request = NULL;
    progress p = {.g = g, .stages = stages};
    sampling.ignore_eos = true;
    int rc = g->finish() || vl_submit(&request, s, prompt, &sampling, on_event, &p, err), more = 1;
    g->reset_counters();
    while (!rc && more > 0 && !p.done) {
        if (p.stage) p.stage = "decode";
        more = vl_session_step(s, err);
        if (more < 0) rc = -1;
        else if (p.error[0]) rc = vl_fail(err, VL_E_BACKEND, "%s", p.error);
        else if (p.stage && p.steps++ < DECODED && end_stage(&p, p.stage))
            rc = vl_fail(err, VL_E_BACKEND, "gpusim: a launch failed (above)");
    }
    if (request && p.done) vl_request_free(request);
    return rc;
}

static void add_work(const bench *b, json_t *stages, double patches, double rows) {
    stage_work e = work_encode(&b->shape, patches), f = work_prefill(&b->shape, rows),
               d = work_decode(&b->shape, rows + DECODED - 1, 1);
    size_t i;
    json_t *o;
    json_array_foreach(stages, i, o) {
        const char *name = json_string_value(json_object_get(o, "stage"));
        const stage_work *w = *name == 'e' ? &e : *name == 'p' ? &f : &d;
        double bytes = *name == 'd' ? decoder_bytes(&b->shape, b->mode) + d.kv * b->mode->kv_bytes : 0;
        json_object_set_new(o, "flop", json_real(work_flop(w)));
        if (bytes > 0) json_object_set_new(o, "needed_bytes", json_real(bytes));
    }
}

static int run_request(const gpu_request *r, bench *b, const gpusim *g, json_t *root, json_t *stages,
                       vl_err *err) {
    vl_session_params params = {.max_rows = 4096, .kv_tokens = 8192};
    vl_session *s = NULL;
    vl_picture *picture = NULL;
    vl_prompt *prompt = NULL;
    size_t rows;
    int rc = vl_session_open(&s, b->m, &params, err) || bench_inputs(b, &r->c, &picture, &prompt, err)
                 ? -1 : 0;
    for (int i = 0; i < 2 && !rc; i++) {
        json_array_clear(stages);
        rc = run_stages(g, s, prompt, stages, err);
    }
    if (!rc) {
        const vl_picture_info *i = picture ? vl_picture_get_info(picture) : NULL;
        const vl_model_info *m = vl_model_get_info(b->m);
        int patches = i ? i->grid_t * i->grid_h * i->grid_w : 0;
        vl_prompt_ids(prompt, &rows);
        add_work(b, stages, patches, (double)rows);
        json_object_set_new(root, "shape",
                            json_pack("{s:s,s:i,s:i,s:I,s:I}", "name", r->like ? r->like : m->name, "layers", m->layers,
                                      "vision_depth", m->vision_depth, "parameters",
                                      (json_int_t)m->parameters, "decode_bytes",
                                      (json_int_t)m->decode_bytes));
        json_object_set_new(root, "request",
                            json_pack("{s:i,s:i,s:i,s:i,s:b}", "width", i ? i->resized_width : 0,
                                      "height", i ? i->resized_height : 0, "patches", patches, "rows",
                                      (int)rows, "every_launch", (int)r->every_launch));
    }
    vl_prompt_free(prompt);
    vl_picture_free(picture);
    vl_session_free(s);
    return rc;
}

int gpu_run(const gpu_request *r, const char *gpu, json_t *root) {
    static bench b; /* too big for a stack */
    gpusim g;
    vl_err err = {0};
    setenv("GPUSIM_DEVICE", gpu, 1);
    setenv("GPUSIM_CHECKS", "0", 1);
    setenv("GPUSIM_BIG", "0", 1); /* every buffer that nothing writes counts as weights */
    setenv("GPUSIM_ONCE", r->every_launch ? "0" : "1", 1);
    b = (bench){.common = r->common};
    int rc = bench_open(&b, 0);
    if (!rc && !(rc = open_gpusim(&g))) {
        gpusim_device d = g.device_now();
        json_t *stages = json_array();
        if (run_request(r, &b, &g, root, stages, &err)) rc = cli_fail(&err);
        char label[80];
        snprintf(label, sizeof label, "predicted (%s)", g.version());
        json_object_set_new(root, "label", json_string(label));
        json_object_set_new(root, "assumptions", json_string(g.assumptions()));
        json_array_append_new(
            json_object_get(root, "gpus"),
            json_pack("{s:s,s:s,s:i,s:i,s:i,s:f,s:f,s:f,s:f,s:o}", "gpu", d.key, "name", d.name, "cc",
                      d.cc, "sms", d.sms, "mhz", d.mhz, "gbs", d.gbs, "l2_mb", d.l2_mb,
                      "tensor_tflops", d.tensor_tflops, "mma_share", d.mma_share, "stages", stages));
        dlclose(g.library);
    }
    vl_model_free(b.m);
    return rc;
}
