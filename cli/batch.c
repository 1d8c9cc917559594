/* batch.c: many jobs to one JSONL file, several at a time through one session, resumable.
 *
 *   in    JSONL: {"id","image" or "images","prompt","system","max_tokens"}; image paths are relative
 *         to the input file. Or a folder: every file in it, with --prompt; the id is the file's name.
 *   out   one line per job as it finishes: {"id","text","usage",...} or {"id","error"}; each line is
 *         on disk (fsync) before the next. Jobs whose id is there already are skipped, so the same
 *         command goes on where it was cut off; a torn last line is cut away first.
 */
#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cli.h"
#include "loader/json.h"

enum { MAX_BYTES = 1 << 30, MAX_PARALLEL = 64 };

typedef struct slot { /* one job on its way */
    json_t *job;
    cli_list files;
    vl_picture **pictures;
    vl_prompt *prompt;
    vl_request *request;
    cli_answer answer;
} slot;

typedef struct batch {
    vl_model *m;
    vl_session *session;
    cli_common common;
    cli_sampling sampling;
    const char *prompt;    /* for jobs without one                                         */
    char base[4096];       /* image paths are relative to this                             */
    json_t *jobs;          /* array of objects                                             */
    json_t *finished;      /* set of ids                                                   */
    FILE *out;
    slot slots[MAX_PARALLEL];
    int parallel, done, failed, skipped;
} batch;

/* ---- output ------------------------------------------------------------------------------------ */

/* Writes a line and waits for the disk. Takes the reference. */
static int emit(batch *b, json_t *line) {
    char *text = json_dumps(line, JSON_COMPACT | JSON_REAL_PRECISION(9));
    bool ok = text && fprintf(b->out, "%s\n", text) > 0 && fflush(b->out) == 0;
    if (ok && fsync(fileno(b->out)) && errno != EINVAL && errno != EROFS) ok = false;
    free(text);
    json_decref(line);
    if (ok) return 0;
    fprintf(stderr, "vitreous: the output cannot be written: %s\n", strerror(errno));
    return CLI_BAD;
}

static int emit_error(batch *b, const json_t *job, const char *message) {
    b->failed++;
    return emit(b, json_pack("{s:O,s:s}", "id", json_object_get(job, "id"), "error", message));
}

/* Reads the ids that are done and cuts off a last line that has no end. */
static int open_output(batch *b, const char *path) {
    char *data = NULL;
    size_t len = 0, good = 0;
    vl_err err = {0};
    b->finished = json_object();
    if (vl_file_exists(path)) {
        if (vl_read_file(path, MAX_BYTES, &data, &len, &err)) return cli_fail(&err);
        for (char *end; good < len && (end = memchr(data + good, '\n', len - good));) {
            json_t *line = json_loadb(data + good, (size_t)(end - data) - good, 0, NULL);
            const char *id = json_string_value(json_object_get(line, "id"));
            if (id && !json_object_get(line, "error"))
                json_object_set_new(b->finished, id, json_true());
            json_decref(line);
            good = (size_t)(end - data) + 1;
        }
        free(data);
    }
    b->out = good == len || truncate(path, (off_t)good) == 0 ? fopen(path, "a") : NULL;
    if (b->out) return 0;
    fprintf(stderr, "vitreous: %s: %s\n", path, strerror(errno));
    return CLI_BAD;
}

/* ---- input ------------------------------------------------------------------------------------- */

static int read_jsonl(batch *b, const char *path) {
    char *data = NULL, where[64];
    size_t len = 0, at = 0;
    int line = 0, rc = 0;
    vl_err err = {0};
    if (vl_read_file(path, MAX_BYTES, &data, &len, &err)) return cli_fail(&err);
    while (!rc && at < len) {
        char *end = memchr(data + at, '\n', len - at);
        size_t n = end ? (size_t)(end - data) - at : len - at;
        line++;
        if (strspn(data + at, " \t\r") < n) {
            snprintf(where, sizeof where, "line %d", line);
            json_t *job = vl_json_parse(data + at, n, where, &err);
            json_t *id = json_object_get(job, "id");
            if (!job) {
                rc = cli_fail(&err);
            } else if (!json_is_object(job) || (id && !json_is_string(id) && !json_is_integer(id))) {
                fprintf(stderr, "vitreous: %s: expected an object with a string \"id\"\n", where);
                rc = CLI_BAD;
            }
            if (!rc && !json_is_string(id)) { /* a number, or nothing: the line's number */
                char text[32];
                snprintf(text, sizeof text, "%lld",
                         id ? (long long)json_integer_value(id) : (long long)line);
                json_object_set_new(job, "id", json_string(text));
            }
            if (!rc) json_array_append_new(b->jobs, job);
            else json_decref(job);
        }
        at += n + 1;
    }
    free(data);
    const char *slash = strrchr(path, '/');
    snprintf(b->base, sizeof b->base, "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".");
    return rc;
}

static int read_folder(batch *b, const char *path) {
    struct dirent **names;
    char file[4400];
    struct stat st;
    int n = scandir(path, &names, NULL, alphasort);
    if (n < 0) {
        fprintf(stderr, "vitreous: %s: %s\n", path, strerror(errno));
        return CLI_BAD;
    }
    snprintf(b->base, sizeof b->base, "%s", path);
    for (int i = 0; i < n; i++) {
        const char *name = names[i]->d_name;
        snprintf(file, sizeof file, "%s/%s", path, name);
        json_t *job = name[0] != '.' && stat(file, &st) == 0 && S_ISREG(st.st_mode)
                          ? json_pack("{s:s,s:s}", "id", name, "image", name) : NULL;
        if (job) json_array_append_new(b->jobs, job);
        free(names[i]);
    }
    free(names);
    return 0;
}

/* ---- jobs -------------------------------------------------------------------------------------- */

static void clear_slot(slot *s) {
    vl_request_free(s->request);
    vl_prompt_free(s->prompt);
    cli_free_pictures(s->pictures, s->files.n);
    for (int i = 0; i < s->files.n; i++) free((char *)(uintptr_t)s->files.v[i]);
    free(s->files.v);
    cli_answer_clear(&s->answer);
    json_decref(s->job);
    *s = (slot){0};
}

static int load_files(batch *b, slot *s, vl_err *err) {
    const json_t *one = json_object_get(s->job, "image"), *many = json_object_get(s->job, "images");
    size_t n = one ? 1 : json_array_size(many);
    s->files.v = calloc(n + 1, sizeof *s->files.v);
    s->pictures = calloc(n + 1, sizeof *s->pictures);
    vl_picture_params params;
    if (!s->files.v || !s->pictures || cli_picture_params(&b->common, b->m, &params))
        return vl_fail(err, VL_E_NOMEM, "no memory");
    for (size_t i = 0; i < n; i++) {
        const char *name = json_string_value(one ? one : json_array_get(many, i));
        char *path = NULL;
        if (!name) return vl_fail(err, VL_E_INPUT, "\"image\" must be a string, \"images\" a list of strings");
        if (asprintf(&path, "%s%s%s", name[0] == '/' ? "" : b->base, name[0] == '/' ? "" : "/", name) < 0)
            return vl_fail(err, VL_E_NOMEM, "no memory");
        s->files.v[s->files.n] = path;
        if (vl_picture_load_file(&s->pictures[s->files.n++], b->m, path, &params, err)) return -1;
    }
    return 0;
}

static int submit(batch *b, slot *s, vl_err *err) {
    const char *text, *system;
    char *messages = NULL;
    int64_t n;
    vl_sampling sampling = cli_sampling_of(&b->sampling, b->m);
    if (vl_json_str(s->job, "job", "prompt", b->prompt, &text, err) ||
        vl_json_str(s->job, "job", "system", NULL, &system, err) ||
        vl_json_int(s->job, "job", "max_tokens", 1, 1000000, sampling.max_tokens, &n, err))
        return -1;
    if (!text) return vl_fail(err, VL_E_INPUT, "the job has no \"prompt\" and there is no --prompt");
    if (load_files(b, s, err)) return -1;
    if (cli_messages(system, s->files.n, text, &messages))
        return vl_fail(err, VL_E_INPUT, "the prompt is not valid UTF-8");
    sampling.max_tokens = (int)n;
    int rc = vl_prompt_chat(&s->prompt, b->m, messages, NULL, 0, s->pictures, s->files.n, err) ||
             vl_submit(&s->request, b->session, s->prompt, &sampling, cli_answer_event, &s->answer, err);
    free(messages);
    return rc ? -1 : 0;
}

static int report(batch *b, slot *s) {
    const char *id = json_string_value(json_object_get(s->job, "id"));
    fprintf(stderr, "%s: %s, %d tokens\n", id, s->answer.finish_reason, s->answer.completion_tokens);
    if (strcmp(s->answer.finish_reason, "error") == 0) return emit_error(b, s->job, s->answer.error.msg);
    const char *question = json_string_value(json_object_get(s->job, "prompt"));
    json_t *line = json_pack("{s:s}", "id", id);
    json_t *answer = cli_answer_json(&s->answer, b->m, s->pictures, &s->files,
                                     question ? question : b->prompt);
    json_object_update(line, answer);
    json_decref(answer);
    b->done++;
    return emit(b, line);
}

static int work(batch *b) {
    size_t next = 0, total = json_array_size(b->jobs);
    vl_err err = {0};
    int rc = 0, busy = 0;
    while (!rc && (busy || next < total)) {
        for (int i = 0; !rc && i < b->parallel; i++) {
            slot *s = &b->slots[i];
            if (s->job && s->answer.done) {
                rc = report(b, s);
                clear_slot(s);
                busy--;
            }
            while (!rc && !s->job && next < total) {
                json_t *job = json_array_get(b->jobs, next++);
                if (json_object_get(b->finished, json_string_value(json_object_get(job, "id")))) {
                    b->skipped++;
                    continue;
                }
                s->job = json_incref(job);
                if (submit(b, s, &err)) {
                    rc = emit_error(b, job, err.msg);
                    clear_slot(s);
                } else {
                    busy++;
                }
            }
        }
        if (!rc && busy && vl_session_step(b->session, &err) < 0) rc = cli_fail(&err);
    }
    return rc;
}

static int run_batch(batch *b, const char *in, const char *out, int64_t context) {
    struct stat st;
    vl_err err = {0};
    vl_session_params params = {.max_requests = b->parallel, .kv_tokens = context * b->parallel,
                                .speculate = (int)b->sampling.speculate};
    b->jobs = json_array();
    if (stat(in, &st)) {
        fprintf(stderr, "vitreous: %s: %s\n", in, strerror(errno));
        return CLI_BAD;
    }
    bool folder = S_ISDIR(st.st_mode);
    if (folder && !b->prompt) return cli_usage("a folder of pictures needs --prompt TEXT");
    int rc = folder ? read_folder(b, in) : read_jsonl(b, in);
    if (!rc) rc = cli_open_model(&b->common, &b->m);
    if (!rc && vl_session_open(&b->session, b->m, &params, &err)) rc = cli_fail(&err);
    if (!rc) rc = open_output(b, out);
    if (!rc) rc = work(b);
    for (int i = 0; i < b->parallel; i++)
        if (b->slots[i].request) vl_request_cancel(b->slots[i].request);
    for (int i = 0; i < b->parallel; i++) { /* a cancelled request may be freed after its DONE */
        while (b->slots[i].request && !b->slots[i].answer.done && vl_session_step(b->session, &err) > 0) {}
        clear_slot(&b->slots[i]);
    }
    if (!rc) fprintf(stderr, "%d answered, %d failed, %d done before\n", b->done, b->failed, b->skipped);
    return rc ? rc : b->failed ? CLI_CHECK : CLI_OK;
}

int cmd_batch(int argc, char **argv) {
    batch b = {.sampling = CLI_SAMPLING_NONE};
    const char *in = NULL, *out = NULL;
    int64_t parallel = 4, context = 4096;
    const cli_option options[] = {
        {"in", 0, CLI_STR, &in, "FILE|DIR", "JSONL jobs, or a folder of pictures", 0, 0},
        {"out", 'o', CLI_STR, &out, "FILE", "JSONL answers, appended", 0, 0},
        {"prompt", 'p', CLI_STR, &b.prompt, "TEXT", "the question of jobs that have none", 0, 0},
        {"parallel", 0, CLI_INT, &parallel, "N", "jobs that share each pass (default 4)", 1, MAX_PARALLEL},
        {"context", 0, CLI_INT, &context, "N", "tokens a job may need (default 4096)", 64, 1e7},
        CLI_SAMPLING_OPTIONS(&b.sampling),
        CLI_PICTURE_OPTIONS(&b.common),
        CLI_MODEL_OPTIONS(&b.common),
        {0},
    };
    int rc = cli_parse("batch --in JOBS.jsonl|FOLDER --out ANSWERS.jsonl",
                       "Jobs {\"id\",\"image\" or \"images\",\"prompt\",\"max_tokens\"} to answers, one JSON "
                       "object per line.\nThe same command again goes on where it was cut off; failed jobs "
                       "are tried again.\nExit code 1: a job failed.", options, argc, argv, NULL);
    if (rc >= 0) return rc;
    if (!in || !out) return cli_usage("batch needs --in and --out");
    b.parallel = (int)parallel;
    rc = run_batch(&b, in, out, context);
    if (b.out && fclose(b.out)) rc = rc ? rc : CLI_BAD;
    vl_session_free(b.session);
    vl_model_free(b.m);
    json_decref(b.jobs);
    json_decref(b.finished);
    free(b.sampling.stop.v);
    return rc;
}
