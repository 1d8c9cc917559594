/* routes.c: the table of every route, and the handlers that need no file of their own. */
#include "serve/routes.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "model/preprocess.h"
#include "model/preset.h"
#include "serve/chat.h"
#include "serve/fetch.h"
#include "serve/sandbox.h"

/* ---- state -------------------------------------------------------------------------------- */

static void reply_error(http_request *r, int status, const char *code, const char *msg) {
    api_error e = {0};
    api_fail(&e, status, code, NULL, "%s", msg);
    if (status == 503) e.retry_after = 2;
    http_error(r, &e);
}

/* Live: 200 unless the engine has failed for good or hangs (a driver may never come back). */
static void route_health(http_request *r) {
    scheduler_state st;
    scheduler_get_state(r->srv->scheduler, &st);
    if (st.broken)
        reply_error(r, 503, "engine_failed", "the engine has failed and must be restarted");
    else if (st.stuck)
        reply_error(r, 503, "engine_stuck", "the engine has work and gets no further (--watchdog): restart it");
    else if (!sandbox_alive(r->srv->sandbox))
        reply_error(r, 503, "decoder_gone", "the process that decodes pictures has ended: restart the server");
    else http_json(r, 200, json_pack("{s:s}", "status", "ok"));
}

static void route_ready(http_request *r) {
    scheduler_state st;
    scheduler_get_state(r->srv->scheduler, &st);
    if (atomic_load(&r->srv->draining)) reply_error(r, 503, "shutting_down", "shutting down");
    else if (!st.ready || st.stuck || !sandbox_alive(r->srv->sandbox)) reply_error(r, 503, "not_ready", "not ready");
    else http_json(r, 200, json_pack("{s:s}", "status", "ready"));
}

static void refresh_gauges(server *srv) {
    metrics *m = srv->metrics;
    scheduler_state st;
    struct rusage ru;
    long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f && fscanf(f, "%*s %ld", &pages) != 1) pages = 0;
    if (f) fclose(f);
    getrusage(RUSAGE_SELF, &ru);
    scheduler_get_state(srv->scheduler, &st);
    const vl_session_stats *s = &st.session;
    bool gpu = !strncmp(srv->info->backend, "cuda", 4); /* or "cuda:2", ... */
    const struct { metric_id id; double value; } now[] = {
        {M_QUEUE_DEPTH, st.waiting}, {M_INFLIGHT, st.running},
        {M_READY, st.ready && !st.stuck && sandbox_alive(srv->sandbox) && !atomic_load(&srv->draining)},
        {M_KV_USAGE, s->kv_blocks ? (double)s->kv_blocks_used / (double)s->kv_blocks : 0},
        {M_PREFIX_BLOCKS, (double)s->kv_blocks_used}, {M_PREFIX_BYTES, (double)s->prefix_bytes},
        {M_PREFIX_HITS, (double)s->prefix_hit_tokens},
        {M_PREFIX_MISSES, (double)s->prefix_miss_tokens}, {M_IMAGE_HITS, (double)s->picture_hits},
        {M_IMAGE_MISSES, (double)s->picture_misses}, {M_IMAGE_BYTES, (double)s->picture_bytes},
        {M_PASSES, (double)s->passes}, {M_ENCODES, (double)s->encodes},
        {M_RSS, (double)pages * (double)sysconf(_SC_PAGESIZE)},
        {M_GPU_BYTES, gpu ? (double)srv->info->weight_bytes : 0},
        {M_CPU_SECONDS, (double)ru.ru_utime.tv_sec + (double)ru.ru_stime.tv_sec +
                        1e-6 * (double)(ru.ru_utime.tv_usec + ru.ru_stime.tv_usec)},
        {M_UPTIME, vl_now() - srv->started},
    };
    for (size_t i = 0; i < sizeof now / sizeof *now; i++) metrics_set(m, now[i].id, now[i].value);
}

static void route_metrics(http_request *r) {
    size_t n = 0;
    refresh_gauges(r->srv);
    char *text = metrics_text(r->srv->metrics, &n);
    http_bytes(r, 200, "text/plain; version=0.0.4; charset=utf-8", text ? text : "", text ? n : 0,
               true, NULL, NULL);
    free(text);
}

static json_t *preset_table(const server *srv) {
    json_t *o = json_object();
    for (int i = 0; vl_preset_names[i]; i++) {
        picture_limits lim = {0};
        picture_preset(srv, vl_preset_names[i], &lim);
        json_object_set_new(o, vl_preset_names[i], json_pack("{s:I,s:I}", "min_pixels",
            (json_int_t)lim.min_pixels, "max_pixels", (json_int_t)lim.max_pixels));
    }
    return o;
}

static void route_props(http_request *r) {
    const server *srv = r->srv;
    const serve_config *c = &srv->config;
    const vl_model_info *m = srv->info;
    scheduler_state st;
    scheduler_get_state(srv->scheduler, &st);
    json_t *model = json_pack("{s:s,s:s,s:s,s:s,s:i,s:I,s:I,s:I,s:i,s:i,s:i,s:i,s:I,s:I,s:s,s:b}",
        "id", srv->model_id, "backend", m->backend, "device", m->device, "dtype", m->dtype, "threads", m->threads,
        "context", (json_int_t)m->context, "parameters", (json_int_t)m->parameters,
        "weight_bytes", (json_int_t)m->weight_bytes, "vocabulary", m->vocab, "layers", m->layers,
        "vision_depth", m->vision_depth, "patch_size", m->patch_size,
        "min_pixels", (json_int_t)m->min_pixels, "max_pixels", (json_int_t)m->max_pixels,
        "warning", m->warning, "embedded", c->model_dir == NULL);
    json_t *limits = json_pack("{s:I,s:I,s:I,s:i,s:i,s:i,s:i,s:I,s:i,s:f,s:i}",
        "body_bytes", (json_int_t)c->body_bytes, "image_bytes", (json_int_t)c->image_bytes,
        "image_pixels", (json_int_t)c->image_pixels, "images", c->images, "queue", c->queue,
        "batch", c->batch, "kv_tokens", c->kv_tokens, "kv_bytes",
        (json_int_t)memory_kv_bytes(srv, c->kv_tokens), "n", MAX_CHOICES, "max_time", c->max_time_s,
        "stop", MAX_STOPS);
    json_t *speed = json_pack("{s:f,s:f,s:f}", "encode_ms_per_image_token",
        st.encode_s_per_token * 1e3, "prefill_ms_per_token", st.prefill_s_per_token * 1e3,
        "decode_ms_per_token", st.decode_s_per_token * 1e3);
    http_json(r, 200, json_pack("{s:s,s:o,s:o,s:o,s:o,s:{s:b,s:b,s:b,s:b},s:{s:I,s:I}}",
        "version", VL_VERSION, "model", model, "limits", limits, "speed", speed,
        "presets", preset_table(srv), "features", "sandbox", srv->sandbox != NULL, "auth",
        c->n_keys > 0, "durable_jobs", c->state_dir != NULL, "remote_urls", c->n_url_hosts > 0,
        "default_pixels", "min_pixels", (json_int_t)c->min_pixels, "max_pixels",
        (json_int_t)c->max_pixels));
}

/* What computes: the leaf kernels of the CPU, which of them were chosen for this machine, and why. On a GPU
 * none of them is. */
static void route_ops(http_request *r) {
    const vl_model_info *m = r->srv->info;
    bool gpu = *m->device;
    json_t *list = json_array();
    for (size_t i = 0; i < r->srv->n_kernels; i++) {
        const vl_kernel_row *k = &r->srv->kernels[i];
        json_array_append_new(list, json_pack("{s:s,s:s,s:s,s:i,s:b,s:s}", "slot", k->slot, "name", k->name,
            "tier", k->tier, "tile", k->tile, "chosen", k->chosen && !gpu, "reason",
            gpu ? "the GPU computes" : k->reason ? k->reason : ""));
    }
    http_json(r, 200, json_pack("{s:s,s:s,s:s,s:i,s:o}", "backend", m->backend, "device", m->device, "dtype", m->dtype,
                                "threads", m->threads, "kernels", list));
}

static json_t *model_object(const server *srv) {
    return json_pack("{s:s,s:s,s:I,s:s,s:I,s:{s:[ss],s:[s]}}", "id", srv->model_id, "object",
                     "model", "created", (json_int_t)srv->started_unix, "owned_by", "vitreous",
                     "max_model_len", (json_int_t)srv->info->context, "architecture",
                     "input_modalities", "text", "image", "output_modalities", "text");
}

static void route_models(http_request *r) {
    http_json(r, 200, json_pack("{s:s,s:[o]}", "object", "list", "data", model_object(r->srv)));
}

static void route_model(http_request *r) {
    if (!strcmp(r->tail, r->srv->model_id)) http_json(r, 200, model_object(r->srv));
    else reply_error(r, 404, "model_not_found", "this model is not loaded");
}

/* ---- tokens ------------------------------------------------------------------------------- */

static void route_tokenize(http_request *r) {
    api_error e = {0};
    vl_err err = {0};
    json_t *text = json_object_get(r->json, "content");
    if (!text) text = json_object_get(r->json, "text");
    if (!text) text = json_object_get(r->json, "prompt");
    bool special = false;
    int32_t *ids;
    size_t n;
    if (field_bool(r->json, "special", &special, &e) == 0 && !json_is_string(text))
        api_fail(&e, 400, "invalid_type", "content", "content must be a string");
    if (!e.status && vl_tokenize(r->srv->model, json_string_value(text), json_string_length(text),
                                 special, &ids, &n, &err))
        api_fail_engine(&e, &err, "content");
    if (e.status) {
        http_error(r, &e);
        return;
    }
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++) json_array_append_new(list, json_integer(ids[i]));
    free(ids);
    http_json(r, 200, json_pack("{s:o,s:I}", "tokens", list, "count", (json_int_t)n));
}

static void route_detokenize(http_request *r) {
    api_error e = {0};
    vl_err err = {0};
    json_t *list = json_object_get(r->json, "tokens"), *v;
    size_t n = json_array_size(list), i, len = 0;
    int32_t *ids = vl_calloc(n + 1, sizeof *ids);
    char *text = NULL;
    bool skip = false;
    field_bool(r->json, "skip_special_tokens", &skip, &e);
    if (!e.status && (!json_is_array(list) || !ids))
        api_fail(&e, 400, "invalid_type", "tokens", "tokens must be an array of token ids");
    json_array_foreach(list, i, v) {
        if (!e.status && (!json_is_integer(v) || json_integer_value(v) < 0 ||
                          json_integer_value(v) >= r->srv->info->vocab))
            api_fail(&e, 400, "invalid_value", "tokens", "tokens[%zu] is no token id below %d", i,
                     r->srv->info->vocab);
        if (!e.status) ids[i] = (int32_t)json_integer_value(v);
    }
    if (!e.status && vl_detokenize(r->srv->model, ids, n, skip, &text, &len, &err))
        api_fail_engine(&e, &err, "tokens");
    free(ids);
    if (e.status) {
        http_error(r, &e);
        return;
    }
    json_t *s = json_stringn(text, len);    /* NULL when the bytes are no UTF-8 */
    json_t *bytes = json_array();
    for (i = 0; !s && i < len; i++)
        json_array_append_new(bytes, json_integer((unsigned char)text[i]));
    free(text);
    http_json(r, 200, s ? json_pack("{s:o}", "content", s)
                        : json_pack("{s:n,s:O}", "content", "bytes", bytes));
    json_decref(bytes);
}

static void route_template(http_request *r) {
    api_error e = {0};
    vl_err err = {0};
    json_t *m = json_object_get(r->json, "messages"), *t = json_object_get(r->json, "tools");
    bool generation = true, vision_id = false;
    if (field_bool(r->json, "add_generation_prompt", &generation, &e) ||
        field_bool(r->json, "add_vision_id", &vision_id, &e) ||
        (t && !json_is_null(t) && tools_check(t, false, &e))) {
        http_error(r, &e);
        return;
    }
    char *messages = json_dumps(m, 0), *tools = json_is_array(t) ? json_dumps(t, 0) : NULL,
         *text = NULL;
    unsigned flags =
        (generation ? 0 : VL_NO_GENERATION_PROMPT) | (vision_id ? VL_ADD_VISION_ID : 0);
    if (!json_is_array(m))
        api_fail(&e, 400, "invalid_type", "messages", "messages must be an array");
    else if (vl_render(r->srv->model, messages, tools, flags, &text, &err))
        api_fail_engine(&e, &err, "messages");
    free(messages);
    free(tools);
    if (e.status) http_error(r, &e);
    else http_json(r, 200, json_pack("{s:s}", "prompt", text));
    free(text);
}

/* ---- pictures and files ------------------------------------------------------------------- */

static json_t *preset_sizes(server *srv, const json_t *report) {
    json_t *o = json_object();
    int w = (int)json_integer_value(json_object_get(report, "width"));
    int h = (int)json_integer_value(json_object_get(report, "height"));
    int factor = srv->info->patch_size * srv->info->merge_size;
    for (int i = 0; vl_preset_names[i]; i++) {
        picture_limits lim = {0};
        int oh, ow;
        vl_err err;
        picture_preset(srv, vl_preset_names[i], &lim);
        if (vl_smart_resize(h, w, factor, lim.min_pixels, lim.max_pixels, &oh, &ow, &err)) continue;
        int tokens = oh / factor * (ow / factor);
        json_object_set_new(o, vl_preset_names[i],
                            json_pack("{s:i,s:i,s:i,s:o}", "resized_width", ow, "resized_height",
                                      oh, "tokens", tokens, "estimate",
                                      picture_estimate(srv, tokens)));
    }
    return o;
}

/* Dry run: what would be done to the picture, and what it would cost. */
static void route_preprocess(http_request *r) {
    api_error e = {0};
    attachment *files = NULL;
    json_t *body = r->json ? json_incref(r->json) : form_body(r, &files, &e), *report = NULL;
    vl_picture *pic = NULL;
    blob data = {0};
    picture_limits lim = {r->srv->config.min_pixels, r->srv->config.max_pixels, 0};
    const json_t *image = json_object_get(body, "image");
    const char *preset = json_string_value(json_object_get(body, "preset"));
    caller by = http_caller(r);
    fetching f = {.srv = r->srv, .by = &by};
    int rc = body ? 0 : -1;
    if (rc == 0 && preset && !picture_preset(r->srv, preset, &lim))
        rc = api_fail(&e, 400, "invalid_value", "preset", "presets: fast, balanced, ocr, ground");
    if (rc == 0)
        rc = field_int(body, "min_pixels", 1, INT64_C(1) << 40, &lim.min_pixels, &e) ||
             field_int(body, "max_pixels", 1, INT64_C(1) << 40, &lim.max_pixels, &e) ||
             field_int(body, "frame", 0, MAX_FRAME, &lim.frame, &e);
    if (rc == 0 && lim.min_pixels && lim.max_pixels && lim.min_pixels > lim.max_pixels)
        rc = api_fail(&e, 400, "invalid_value", "min_pixels", "min_pixels is above max_pixels");
    if (rc == 0 && !files) {
        if (!json_is_string(image))
            rc = api_fail(&e, 400, "invalid_type", "image",
                          "image must be a data: URL or a file id");
        else if (!strncmp(json_string_value(image), "file-", 5))
            rc = files_get(r->srv->files, r->tenant, json_string_value(image), &data, &e);
        else if (fetch_wanted(r->srv, json_string_value(image), json_string_length(image)))
            rc = fetch_picture(&f, json_string_value(image), json_string_length(image), &data, &e, "image");
        else
            rc = data_url_decode(json_string_value(image), json_string_length(image),
                                 (size_t)r->srv->config.image_bytes, &data, &e, "image");
    }
    if (rc == 0)
        rc = picture_load(r->srv, files ? files->data.data : data.data,
                          files ? files->data.len : data.len, lim, "image", &pic, &report, &e);
    if (rc) {
        http_error(r, &e);
    } else {
        int tokens = vl_picture_get_info(pic)->tokens;
        if (preset && !strcmp(preset, "ground")) picture_warn_coarse(report);
        json_object_set_new(report, "estimate", picture_estimate(r->srv, tokens));
        json_object_set_new(report, "presets", preset_sizes(r->srv, report));
        http_json(r, 200, report);
    }
    vl_picture_free(pic);
    free(data.data);
    attachments_free(files);
    json_decref(body);
}

static void route_file_put(http_request *r) {
    api_error e = {0};
    attachment *files = NULL;
    json_t *o = NULL;
    if (!strncasecmp(r->content_type, "multipart/form-data", 19)) {
        json_t *form = form_body(r, &files, &e);
        if (form && !files) api_fail(&e, 400, "invalid_form", "file", "the form has no file");
        else if (form && files->next) api_fail(&e, 400, "invalid_form", "file", "one file at a time: the form has more");
        else if (form) o = files_put(r->srv->files, r->tenant, files->filename, &files->data, &e);
        json_decref(form);
    } else {
        blob b = {r->body, r->len};
        if ((o = files_put(r->srv->files, r->tenant, "", &b, &e))) {
            r->body = NULL;
            r->len = r->cap = 0;
        }
    }
    if (o) http_json(r, 200, o);
    else http_error(r, &e);
    attachments_free(files);
}

static void route_file_list(http_request *r) {
    http_json(r, 200, files_list(r->srv->files, r->tenant));
}

static void route_file_get(http_request *r) {
    json_t *o = files_info(r->srv->files, r->tenant, r->tail);
    if (o) http_json(r, 200, o);
    else
        reply_error(r, 404, "file_not_found",
                    "no such file; it may have been displaced by newer ones");
}

static void route_file_delete(http_request *r) {
    if (files_delete(r->srv->files, r->tenant, r->tail))
        http_json(r, 200,
                  json_pack("{s:s,s:s,s:b}", "id", r->tail, "object", "file", "deleted", 1));
    else reply_error(r, 404, "file_not_found", "no such file");
}

/* ---- the table ---------------------------------------------------------------------------- */

const route routes[] = {
    {"GET", "/health", route_health, R_OPEN | R_LIVE, "Is the process alive? Needs no key."},
    {"GET", "/ready", route_ready, R_LIVE, "Does it take requests now?"},
    {"GET", "/startup", route_ready, R_LIVE, "Has it started?"},
    {"GET", "/metrics", route_metrics, R_LIVE, "Prometheus metrics"},
    {"GET", "/props", route_props, R_LIVE, "Model, limits, presets and measured speed"},
    {"GET", "/v1/props", route_props, R_LIVE, "The same as /props"},
    {"GET", "/v1/ops", route_ops, R_LIVE, "The kernels that compute here, and why they were chosen"},
    {"GET", "/openapi.json", route_openapi, R_LIVE, "This description"},
    {"GET", "/v1/models", route_models, R_LIVE, "The one model that is loaded"},
    {"GET", "/v1/models/", route_model, R_LIVE, "One model"},
    {"POST", "/v1/chat/completions", route_chat, R_JSON | R_UPLOAD,
     "Answer a conversation with pictures"},
    {"POST", "/v1/completions", route_completions, R_JSON, "Continue a text"},
    {"POST", "/v1/responses", route_responses, R_JSON,
     "Answer in the form of OpenAI's Responses API (a subset; nothing is stored)"},
    {"POST", "/v1/preprocess", route_preprocess, R_JSON | R_UPLOAD,
     "What would be done to a picture, and what it would cost"},
    {"POST", "/tokenize", route_tokenize, R_JSON, "Text to token ids"},
    {"POST", "/detokenize", route_detokenize, R_JSON, "Token ids to text"},
    {"POST", "/apply-template", route_template, R_JSON, "Messages to the prompt text"},
    {"POST", "/v1/files", route_file_put, R_UPLOAD, "Upload a picture, to refer to it by id"},
    {"GET", "/v1/files", route_file_list, R_PLAIN, "Uploaded files"},
    {"GET", "/v1/files/", route_file_get, R_PLAIN, "One uploaded file"},
    {"DELETE", "/v1/files/", route_file_delete, R_PLAIN, "Forget an uploaded file"},
    {"POST", "/v1/jobs", route_job_submit, R_JSON, "Queue a chat request for later"},
    {"GET", "/v1/jobs", route_job_list, R_PLAIN, "Jobs"},
    {"GET", "/v1/jobs/", route_job_get, R_PLAIN, "One job with its result"},
    {"DELETE", "/v1/jobs/", route_job_cancel, R_PLAIN, "Cancel or forget a job"},
    {"GET", "/", route_page, R_PLAIN, "The web page"},
    {"GET", "/web/", route_page, R_PLAIN, "Parts of the web page"},
    {0},
};
