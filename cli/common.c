/* common.c: what the commands share besides options: error to exit code, model and pictures from the
 * common options, messages, stdin, JSON on stdout. */
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "loader/json.h"
#include "model/preset.h"

int cli_fail(const vl_err *err) {
    fprintf(stderr, "vitreous: %s\n", err->msg);
    return err->code == VL_E_USAGE ? CLI_USAGE : CLI_BAD;
}

int cli_open_model(const cli_common *c, vl_model **out) {
    static const char *const backends[] = {"auto", "cpu", "cuda", NULL};
    static const char *const dtypes[] = {"exact", "bf16", "int8", "int4", NULL};
    vl_err err = {0};
    vl_model_params params = {c->backend, c->dtype, (int)c->threads, (int)c->gpus};
    if (c->backend && cli_choice(c->backend, backends) < 0)
        return cli_usage("--backend: expected auto, cpu or cuda, got \"%s\"", c->backend);
    if (c->dtype && cli_choice(c->dtype, dtypes) < 0)
        return cli_usage("--dtype: expected exact, bf16, int8 or int4, got \"%s\"", c->dtype);
    if (c->pin) setenv("VL_PIN", "1", 1); /* also for the threads that measure peaks */
    if (vl_model_open(out, c->model, &params, &err)) return cli_fail(&err);
    const vl_model_info *info = vl_model_get_info(*out);
    if (info->warning[0]) fprintf(stderr, "warning: %s\n", info->warning);
    static bool said; /* once, however many models a command opens */
    if (!said && !c->model)
        fputs("model: the bundled demo, which knows shapes, short texts and charts; -m DIR takes a real one\n", stderr);
    if (!said && c->gpus > 1) fprintf(stderr, "backend: %s\n", info->backend);
    else if (!said && (!c->backend || strcmp(c->backend, "auto") == 0))
        fprintf(stderr, "backend: %s, %d threads\n", info->backend, info->threads);
    said = true;
    return 0;
}

int cli_picture_params(const cli_common *c, const vl_model *m, vl_picture_params *out) {
    static const char *const alphas[] = {"white", "drop", NULL};
    static const char *const resizers[] = {"torchvision", "pil", NULL};
    *out = (vl_picture_params){.allow_truncated = c->truncated, .frame = (int)c->frame};
    if (c->preset && !vl_preset_limits(vl_model_get_info(m), c->preset, &out->min_pixels,
                                       &out->max_pixels))
        return cli_usage("--preset: expected fast, balanced, ocr or ground, got \"%s\"", c->preset);
    if (c->min_pixels) out->min_pixels = c->min_pixels;
    if (c->max_pixels) out->max_pixels = c->max_pixels;
    if (out->min_pixels && out->max_pixels && out->min_pixels > out->max_pixels)
        return cli_usage("--min-pixels %lld is over --max-pixels %lld", (long long)out->min_pixels,
                         (long long)out->max_pixels);
    if (c->alpha && cli_choice(c->alpha, alphas) < 0)
        return cli_usage("--alpha: expected white or drop, got \"%s\"", c->alpha);
    if (c->resize && cli_choice(c->resize, resizers) < 0)
        return cli_usage("--resize: expected torchvision or pil, got \"%s\"", c->resize);
    out->alpha_drop = c->alpha && strcmp(c->alpha, "drop") == 0;
    out->pil = c->resize && strcmp(c->resize, "pil") == 0;
    return 0;
}

int cli_load_pictures(const vl_model *m, const cli_common *c, const cli_list *files,
                      vl_picture ***out) {
    vl_picture_params params;
    vl_err err = {0};
    int rc = cli_picture_params(c, m, &params);
    if (rc) return rc;
    *out = calloc((size_t)files->n + 1, sizeof **out);
    if (!*out) return cli_usage("out of memory");
    for (int i = 0; i < files->n; i++) {
        if (vl_picture_load_file(&(*out)[i], m, files->v[i], &params, &err)) {
            cli_free_pictures(*out, i);
            *out = NULL;
            return cli_fail(&err);
        }
        const vl_picture_info *info = vl_picture_get_info((*out)[i]);
        for (int w = 0; w < info->n_warnings; w++)
            fprintf(stderr, "warning: %s: %s\n", files->v[i], info->warnings[w]);
    }
    return 0;
}

void cli_free_pictures(vl_picture **p, int n) {
    for (int i = 0; p && i < n; i++) vl_picture_free(p[i]);
    free(p);
}

int cli_messages(const char *system, int n_images, const char *text, char **json) {
    json_t *messages = json_array(), *parts = json_array();
    json_t *prompt = json_string(text), *role = json_string(system ? system : "");
    *json = NULL;
    if (prompt && role) {
        if (system)
            json_array_append_new(messages,
                                  json_pack("{s:s,s:O}", "role", "system", "content", role));
        for (int i = 0; i < n_images; i++)
            json_array_append_new(parts, json_pack("{s:s}", "type", "image"));
        json_array_append_new(parts, json_pack("{s:s,s:O}", "type", "text", "text", prompt));
        json_array_append_new(messages,
                              json_pack("{s:s,s:O}", "role", "user", "content", parts));
        *json = json_dumps(messages, JSON_COMPACT);
    }
    json_decref(prompt);
    json_decref(role);
    json_decref(parts);
    json_decref(messages);
    if (*json) return 0;
    fputs("vitreous: the prompt is not valid UTF-8 text\n", stderr);
    return CLI_BAD;
}

int cli_read_stdin(char **data, size_t *len) {
    enum { LIMIT = 64 << 20 };
    size_t cap = 1 << 16, n = 0;
    char *buf = malloc(cap + 1);
    while (buf) {
        size_t got = fread(buf + n, 1, cap - n, stdin);
        n += got;
        if (!got) break;
        if (n < cap) continue;
        if (cap >= LIMIT) {
            free(buf);
            fprintf(stderr, "vitreous: more than %d MiB on stdin\n", LIMIT >> 20);
            return CLI_BAD;
        }
        cap *= 2;
        char *more = realloc(buf, cap + 1);
        if (!more) free(buf);
        buf = more;
    }
    if (!buf || ferror(stdin)) {
        free(buf);
        fputs("vitreous: cannot read stdin\n", stderr);
        return CLI_BAD;
    }
    buf[n] = '\0';
    *data = buf;
    *len = n;
    return 0;
}

json_t *cli_picture_json(const vl_picture *p, const char *file) {
    const vl_picture_info *i = vl_picture_get_info(p);
    json_t *warnings = json_array(), *j = json_object();
    for (int w = 0; w < i->n_warnings; w++)
        json_array_append_new(warnings, json_string(i->warnings[w]));
    if (file) json_object_set_new(j, "file", json_string(file));
    json_object_set_new(j, "format", json_string(i->format));
    json_object_set_new(j, "width", json_integer(i->width));
    json_object_set_new(j, "height", json_integer(i->height));
    json_object_set_new(j, "resized_width", json_integer(i->resized_width));
    json_object_set_new(j, "resized_height", json_integer(i->resized_height));
    json_object_set_new(j, "tokens", json_integer(i->tokens));
    json_object_set_new(j, "orientation", json_integer(i->orientation));
    json_object_set_new(j, "warnings", warnings);
    return j;
}

void cli_print_json(json_t *j) {
    json_dumpf(j, stdout, JSON_COMPACT | JSON_REAL_PRECISION(9));
    putchar('\n');
    json_decref(j);
}
