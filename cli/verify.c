/* verify.c: runs golden cases and compares every tensor with what Hugging Face computed.
 *
 * A case is a folder with case.json (the request, and HF's own distance to float64, the floor) and
 * golden.safetensors (the stages). Gates:
 *   pixel_values, image_grid_thw, input_ids, position_ids   equal, element by element
 *   every other stage   exact: rel-L2 <= max(2e-5, 20 x floor)   bf16: <= 1.1 x HF bf16's own
 *   logits              exact: max|d| / max|x| <= 1e-4           bf16: as every other stage
 *   (a bf16 limit is never below the exact one: HF computes some stages of its bf16 run in float32)
 *   generated_ids       from the first split on nothing can be compared; a split is printed, and
 *                       accepted only where HF's top-2 margin is below 1e-3 (exact), or below twice
 *                       what HF's own bf16 run moves a logit by (bf16)
 */
#include "cli/verify.h"

#include <dirent.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/trace.h"
#include "common/common.h"
#include "loader/json.h"

static const double FLOOR_FACTOR = 20, REL_L2 = 2e-5, LOGITS = 1e-4, MARGIN = 1e-3, BF16_FACTOR = 1.1;

typedef struct run {
    cli_common common;
    int64_t chunk, n, speculate;
    vl_model *model;       /* of the previous case, kept while the folder is the same      */
    char model_dir[1024];
} run;

/* ---- measures -------------------------------------------------------------------------------- */

typedef struct distance { double rel_l2, max_rel; int64_t differing; } distance;

static distance compare_f32(const float *ours, const float *hf, int64_t n) {
    double d2 = 0, x2 = 0, dmax = 0, xmax = 0;
    distance r = {0};
    for (int64_t i = 0; i < n; i++) {
        double x = hf[i], d = (double)ours[i] - x;
        if (!isfinite(d)) d = INFINITY;
        d2 += d * d;
        x2 += x * x;
        if (fabs(d) > dmax) dmax = fabs(d);
        if (fabs(x) > xmax) xmax = fabs(x);
        r.differing += d != 0;
    }
    r.rel_l2 = d2 == 0 ? 0 : x2 > 0 ? sqrt(d2 / x2) : INFINITY;
    r.max_rel = dmax == 0 ? 0 : xmax > 0 ? dmax / xmax : INFINITY;
    return r;
}

static double field(const json_t *o, const char *group, const char *name) {
    const json_t *v = json_object_get(json_object_get(o, group), name);
    return json_is_number(v) ? json_number_value(v) : NAN;
}

static void judge(verify_case *c, verify_stage *s, bool passed) {
    s->verdict = passed ? PASSED : FAILED;
    c->failed += !passed;
}

static void judge_f32(verify_case *c, verify_stage *s, const json_t *spec, const distance *d) {
    bool bf16 = strcmp(c->dtype, "bf16") == 0, logits = !bf16 && strcmp(s->name, "logits") == 0;
    s->floor = field(spec, logits ? "floor_max" : "floor", s->name);
    s->measure = logits ? "max/max" : "rel-L2";
    s->value = logits ? d->max_rel : d->rel_l2;
    if (strcmp(s->name, "pixel_values") == 0) {
        s->measure = "differing";
        s->value = (double)d->differing;
        s->limit = 0;
    } else {
        double own = bf16 ? BF16_FACTOR * field(spec, "bf16", s->name) : 0;
        s->limit = logits ? LOGITS : REL_L2;
        if (!logits && FLOOR_FACTOR * s->floor > s->limit) s->limit = FLOOR_FACTOR * s->floor;
        if (bf16 && !(own <= s->limit)) s->limit = own; /* NAN: not known, so nothing passes */
    }
    judge(c, s, s->value <= s->limit);
}

/* bf16: twice what HF's own bf16 run is off by, at the prompt's logits: (max|d| / max|x|) max|x|.
 * No logits stored: NAN, so no split passes. */
static double bf16_margin(const vl_checkpoint *golden, const json_t *spec) {
    const vl_tensor *t = vl_checkpoint_find(golden, "logits");
    double most = NAN;
    for (size_t i = 0; t && t->dtype == VL_F32 && i < t->bytes / 4; i++) {
        float v;
        memcpy(&v, (const char *)t->data + 4 * i, sizeof v);
        most = fmax(most, fabs((double)v));
    }
    return 2 * BF16_FACTOR * field(spec, "bf16_max", "logits") * most;
}

static void judge_ids(verify_case *c, verify_stage *s, const vl_checkpoint *golden, const json_t *spec,
                      const int64_t *ours, const int64_t *hf, int64_t n) {
    const vl_tensor *margins = vl_checkpoint_find(golden, "margins");
    int64_t i = 0;
    while (i < n && ours[i] == hf[i]) i++;
    s->measure = "split at";
    s->value = (double)i;
    if (i == n) {
        judge(c, s, true);
        return;
    }
    float margin = INFINITY;
    if (margins && margins->dtype == VL_F32 && (int64_t)(margins->bytes / 4) > i)
        memcpy(&margin, (const char *)margins->data + 4 * i, sizeof margin);
    snprintf(s->note, sizeof s->note, "token %lld is %lld, HF has %lld; HF's top-2 margin there %.3g",
             (long long)i, (long long)ours[i], (long long)hf[i], (double)margin);
    bool exact = strcmp(c->dtype, "exact") == 0, bf16 = strcmp(c->dtype, "bf16") == 0;
    if (exact || bf16) judge(c, s, (double)margin < (exact ? MARGIN : bf16_margin(golden, spec)));
    if (s->verdict == PASSED) s->verdict = NOTED; /* and where no rule holds: int8, int4 */
}

static void judge_shape(verify_case *c, verify_stage *s, const vl_tensor *hf, const cli_tensor *ours) {
    s->measure = "shape";
    s->value = NAN;
    if (!ours)
        snprintf(s->note, sizeof s->note, "not computed");
    else
        snprintf(s->note, sizeof s->note, "expected rank %d [%lld, %lld], got rank %d [%lld, %lld]",
                 hf->rank, (long long)hf->shape[0], (long long)hf->shape[1], ours->rank,
                 (long long)ours->shape[0], (long long)ours->shape[1]);
    judge(c, s, false);
}

static void compare_stage(verify_case *c, const json_t *spec, const vl_checkpoint *golden,
                          const vl_tensor *hf, const cli_trace *trace) {
    verify_stage *s = &c->stages[c->n++];
    *s = (verify_stage){.floor = NAN, .max_rel = NAN};
    snprintf(s->name, sizeof s->name, "%s", hf->name);
    const cli_tensor *ours = cli_trace_find(trace, hf->name);
    bool same = ours && ours->rank == hf->rank && hf->rank <= 3 &&
                ours->is_int == (hf->dtype == VL_I64) && (ours->is_int || hf->dtype == VL_F32);
    for (int i = 0; same && i < hf->rank; i++) same = ours->shape[i] == hf->shape[i];
    if (!same) {
        judge_shape(c, s, hf, ours);
        return;
    }
    int64_t n = cli_tensor_count(ours);
    if (!ours->is_int) {
        /* A safetensors file need not be aligned: copy before reading as floats. */
        float *copy = malloc(hf->bytes + 1);
        if (!copy) return judge(c, s, false);
        memcpy(copy, hf->data, hf->bytes);
        distance d = compare_f32(ours->data, copy, n);
        free(copy);
        s->max_rel = d.max_rel;
        judge_f32(c, s, spec, &d);
        return;
    }
    int64_t *copy = malloc(hf->bytes + 1);
    if (!copy) return judge(c, s, false);
    memcpy(copy, hf->data, hf->bytes);
    if (strcmp(s->name, "generated_ids") == 0) {
        judge_ids(c, s, golden, spec, ours->data, copy, n);
    } else {
        const int64_t *a = ours->data;
        for (int64_t i = 0; i < n; i++) s->value += a[i] != copy[i];
        s->measure = "differing";
        judge(c, s, s->value == 0);
    }
    free(copy);
}

/* ---- one case ---------------------------------------------------------------------------------- */

static int open_model(run *r, const char *dir) {
    if (r->model && strcmp(r->model_dir, dir) == 0) return 0;
    vl_model_free(r->model);
    r->model = NULL;
    snprintf(r->model_dir, sizeof r->model_dir, "%s", dir);
    cli_common common = r->common;
    if (!common.model) common.model = dir;
    return cli_open_model(&common, &r->model);
}

/* Everything that was computed, as one hash: equal for every thread count and chunk size. */
static void digest(verify_case *c, const cli_trace *t) {
    vl_sha256 h;
    uint8_t sum[32];
    vl_sha256_init(&h);
    for (size_t i = 0; i < t->n; i++)
        vl_sha256_add(&h, t->v[i].data, (size_t)cli_tensor_count(&t->v[i]) * (t->v[i].is_int ? 8 : 4));
    vl_sha256_end(&h, sum);
    for (int i = 0; i < 32; i++) snprintf(c->digest + 2 * i, 3, "%02x", sum[i]);
}

/* The request of case.json; pictures' paths are joined to the case folder and owned by *images. */
static int request_of(const json_t *spec, const char *dir, const run *r, cli_list *images,
                      cli_trace_request *out, vl_err *err) {
    const char *text, *backend;
    int64_t n, lo, hi;
    bool ignore_eos;
    const json_t *files = json_object_get(spec, "images");
    if (vl_json_str(spec, "case.json", "prompt", "", &text, err) ||
        vl_json_str(spec, "case.json", "preprocess", "torchvision", &backend, err) ||
        vl_json_int(spec, "case.json", "n", 1, 100000, 64, &n, err) ||
        vl_json_int(spec, "case.json", "min_pixels", 1, INT64_MAX, 0, &lo, err) ||
        vl_json_int(spec, "case.json", "max_pixels", 1, INT64_MAX, 0, &hi, err) ||
        vl_json_bool(spec, "case.json", "ignore_eos", false, &ignore_eos, err))
        return -1;
    images->v = calloc(json_array_size(files) + 1, sizeof *images->v);
    if (!images->v) return vl_fail(err, VL_E_NOMEM, "no memory");
    for (size_t i = 0; i < json_array_size(files); i++) {
        const char *file = json_string_value(json_array_get(files, i));
        char *path = NULL;
        if (!file) return vl_fail(err, VL_E_INPUT, "case.json: images must be a list of names");
        if (asprintf(&path, "%s/%s", dir, file) < 0) return vl_fail(err, VL_E_NOMEM, "no memory");
        images->v[images->n++] = path;
    }
    *out = (cli_trace_request){
        .images = images, .text = text, .max_rows = (int)r->chunk, .speculate = (int)r->speculate,
        .picture = {.min_pixels = lo, .max_pixels = hi, .pil = strcmp(backend, "pil") == 0},
        .sampling = vl_sampling_greedy((int)(r->n ? r->n : n))};
    out->sampling.ignore_eos = ignore_eos;
    return 0;
}

/* In the order of computation; what the golden has and we have not comes last. */
static void compare_all(const run *r, verify_case *c, const json_t *spec, const vl_checkpoint *golden,
                        const cli_trace *trace) {
    size_t n = vl_checkpoint_count(golden);
    for (size_t i = 0; i < trace->n; i++)
        for (size_t k = 0; k < n; k++) {
            const vl_tensor *hf = vl_checkpoint_at(golden, k);
            bool skip = r->n && strcmp(hf->name, "generated_ids") == 0;
            if (!skip && strcmp(hf->name, trace->v[i].name) == 0) compare_stage(c, spec, golden, hf, trace);
        }
    for (size_t k = 0; k < n; k++) {
        const vl_tensor *hf = vl_checkpoint_at(golden, k);
        if (strcmp(hf->name, "margins") && !cli_trace_find(trace, hf->name))
            compare_stage(c, spec, golden, hf, trace);
    }
}

static int run_case(run *r, verify_case *c, const char *dir, const json_t *spec,
                    const vl_checkpoint *golden, vl_err *err) {
    cli_list images = {0};
    cli_trace_request request;
    cli_trace trace = {0};
    char model_dir[1024];
    const char *model;
    int rc = -1;
    if (vl_json_str(spec, "case.json", "model", ".", &model, err) == 0 &&
        request_of(spec, dir, r, &images, &request, err) == 0) {
        snprintf(model_dir, sizeof model_dir, "%s/%s", dir, model);
        snprintf(err->msg, sizeof err->msg, "the request could not be run (see above)");
        rc = open_model(r, model_dir) || cli_trace_run(&trace, r->model, &request) ? -1 : 0;
    }
    if (rc == 0) {
        const vl_model_info *info = vl_model_get_info(r->model);
        snprintf(c->model, sizeof c->model, "%s", info->name);
        snprintf(c->backend, sizeof c->backend, "%s", info->backend);
        snprintf(c->dtype, sizeof c->dtype, "%s", info->dtype);
        c->threads = info->threads;
        digest(c, &trace);
        c->stages = calloc(vl_checkpoint_count(golden) + 1, sizeof *c->stages);
        if (c->stages) compare_all(r, c, spec, golden, &trace);
        if (c->n == 0) rc = vl_fail(err, VL_E_INPUT, "golden.safetensors holds nothing to compare");
    }
    cli_trace_clear(&trace);
    for (int i = 0; i < images.n; i++) free((char *)(uintptr_t)images.v[i]);
    free(images.v);
    return rc;
}

static void verify_one(run *r, verify_case *c, const char *dir) {
    char path[1200];
    vl_err err = {0};
    vl_checkpoint *golden = NULL;
    const char *slash = strrchr(dir, '/');
    snprintf(c->name, sizeof c->name, "%s", slash && slash[1] ? slash + 1 : dir);
    double start = vl_now();
    snprintf(path, sizeof path, "%s/case.json", dir);
    json_error_t why; /* the text of a random model may hold a NUL, so not vl_json_load */
    json_t *spec = json_load_file(path, JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, &why);
    if (!spec) vl_fail(&err, VL_E_INPUT, "%s: line %d: %s", path, why.line, why.text);
    snprintf(path, sizeof path, "%s/golden.safetensors", dir);
    if (!spec || vl_safetensors_open(&golden, path, &err) || run_case(r, c, dir, spec, golden, &err))
        snprintf(c->error, sizeof c->error, "%s", err.msg);
    c->seconds = vl_now() - start;
    vl_checkpoint_free(golden);
    json_decref(spec);
}

/* ---- a folder of cases ------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* dir itself if it is a case, else its sub-folders that are. Returns how many, or -1. */
static int find_cases(const char *dir, char ***out) {
    char path[1200];
    int n = 0;
    *out = calloc(1, sizeof **out);
    snprintf(path, sizeof path, "%s/case.json", dir);
    if (*out && vl_file_exists(path)) {
        (*out)[0] = strdup(dir);
        return (*out)[0] ? 1 : -1;
    }
    DIR *d = *out ? opendir(dir) : NULL;
    if (!d) return -1;
    for (struct dirent *e; (e = readdir(d));) {
        snprintf(path, sizeof path, "%s/%s/case.json", dir, e->d_name);
        if (e->d_name[0] == '.' || !vl_file_exists(path)) continue;
        char **more = realloc(*out, ((size_t)n + 2) * sizeof *more);
        if (!more) break;
        *out = more;
        path[strlen(path) - strlen("/case.json")] = '\0';
        if (!((*out)[n] = strdup(path))) break;
        n++;
    }
    closedir(d);
    qsort(*out, (size_t)n, sizeof **out, by_name);
    return n;
}

/* `only`: a comma-separated list of words, one of which must be part of the case's name. */
static bool wanted(const char *dir, const char *only) {
    char word[64];
    for (const char *at = only; at && *at;) {
        size_t len = strcspn(at, ",");
        snprintf(word, sizeof word, "%.*s", (int)(len < 60 ? len : 60), at);
        if (strstr(strrchr(dir, '/') ? strrchr(dir, '/') : dir, word)) return true;
        at += len + (at[len] == ',');
    }
    return !only;
}

static int verify_all(run *r, const char *golden, const char *only, bool all, bool json,
                      const char *html) {
    char **dirs = NULL;
    int found = find_cases(golden, &dirs), n = 0, failed = 0, rc = CLI_OK;
    verify_case *cases = found > 0 ? calloc((size_t)found, sizeof *cases) : NULL;
    json_t *list = json_array();
    for (int i = 0; cases && i < found; i++) {
        if (!wanted(dirs[i], only)) continue;
        verify_case *c = &cases[n++];
        verify_one(r, c, dirs[i]);
        failed += c->failed || c->error[0];
        if (json) json_array_append_new(list, verify_json(c));
        else verify_print_table(c, all || found == 1);
        fflush(stdout);
    }
    if (n == 0) {
        fprintf(stderr, "vitreous: %s: no case.json there or one folder below%s\n", golden,
                only ? " that --only names" : "");
        rc = CLI_BAD;
    } else if (json) {
        cli_print_json(json_pack("{s:i,s:i,s:O}", "cases", n, "failed", failed, "results", list));
    } else {
        printf("%d cases, %d failed\n", n, failed);
    }
    if (n && html) rc = verify_write_html(html, cases, n);
    for (int i = 0; i < found; i++) free(dirs[i]);
    for (int i = 0; i < n; i++) free(cases[i].stages);
    free(dirs);
    free(cases);
    json_decref(list);
    return rc ? rc : failed ? CLI_CHECK : CLI_OK;
}

int cmd_verify(int argc, char **argv) {
    run r = {0};
    const char *golden = NULL, *html = NULL, *only = NULL;
    bool json = false, all = false;
    const cli_option options[] = {
        {"golden", 'g', CLI_STR, &golden, "DIR", "a case (case.json + golden.safetensors), or a folder of them", 0, 0},
        {"only", 0, CLI_STR, &only, "WORDS", "cases whose name contains one of these (a,b,c)", 0, 0},
        {"all", 0, CLI_FLAG, &all, NULL, "every stage of every case, not only what failed", 0, 0},
        {"chunk", 0, CLI_INT, &r.chunk, "N", "prompt rows of one pass (default 512)", 0, 1e6},
        {"speculate", 0, CLI_INT, &r.speculate, "N", "look N tokens ahead (0: off)", 0,
         VL_SPECULATE_MAX},
        {"max-tokens", 'n', CLI_INT, &r.n, "N", "generate only N tokens and do not compare them", 0, 1e6},
        {"json", 0, CLI_FLAG, &json, NULL, "one JSON object instead of the table", 0, 0},
        {"html", 0, CLI_STR, &html, "FILE", "also write a page with a bar for each stage", 0, 0},
        CLI_MODEL_OPTIONS(&r.common),
        {0},
    };
    int rc = cli_parse("verify --golden DIR", "Runs stored cases and compares every stage with what "
                       "Hugging Face computed.\nExit code 1: a gate failed.", options, argc, argv, NULL);
    if (rc >= 0) return rc;
    if (!golden) return cli_usage("verify needs --golden DIR");
    rc = verify_all(&r, golden, only, all, json, html);
    vl_model_free(r.model);
    return rc;
}
