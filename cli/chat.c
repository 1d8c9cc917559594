/* chat.c: many turns on the terminal. The session keeps its KV blocks, so a turn computes only what
 * is new. Ctrl-C ends the answer in progress; at the prompt it ends the program. */
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

typedef struct chat {
    vl_model *m;
    vl_session *session;
    vl_sampling sampling;
    vl_picture_params picture_params;
    json_t *messages;      /* the conversation so far                                     */
    json_t *parts;         /* parts of the user's turn in the making: pictures            */
    vl_picture **pictures; /* of all turns, in order                                      */
    int n_pictures;
} chat;

static volatile int interrupted;
static void on_interrupt(int sig) {
    (void)sig;
    interrupted = 1;
}

static void add_picture(chat *c, const char *path) {
    vl_err err = {0};
    vl_picture *p = NULL;
    if (vl_picture_load_file(&p, c->m, path, &c->picture_params, &err)) {
        cli_fail(&err);
        return;
    }
    vl_picture **more = realloc(c->pictures, ((size_t)c->n_pictures + 1) * sizeof *more);
    if (!more) {
        vl_picture_free(p);
        return;
    }
    c->pictures = more;
    c->pictures[c->n_pictures++] = p;
    json_array_append_new(c->parts, json_pack("{s:s}", "type", "image"));
    const vl_picture_info *i = vl_picture_get_info(p);
    fprintf(stderr, "%s: %dx%d, %d tokens\n", path, i->width, i->height, i->tokens);
}

static void reset(chat *c) {
    json_array_clear(c->messages);
    json_array_clear(c->parts);
    for (int i = 0; i < c->n_pictures; i++) vl_picture_free(c->pictures[i]);
    c->n_pictures = 0;
}

/* The user's turn and the answer; a turn that failed is taken back, so that the next can be tried. */
static void turn(chat *c, const char *text) {
    vl_err err = {0};
    vl_prompt *prompt = NULL;
    cli_answer a = {.stream = stdout, .progress = true, .cancel = &interrupted};
    json_t *said = json_string(text);
    if (!said) {
        fputs("vitreous: that is not valid UTF-8\n", stderr);
        return;
    }
    json_t *parts = json_copy(c->parts);
    json_array_append_new(parts, json_pack("{s:s,s:o}", "type", "text", "text", said));
    json_array_append_new(c->messages, json_pack("{s:s,s:o}", "role", "user", "content", parts));
    char *messages = json_dumps(c->messages, JSON_COMPACT);
    interrupted = 0;
    bool ok = messages &&
              !vl_prompt_chat(&prompt, c->m, messages, NULL, 0, c->pictures, c->n_pictures, &err) &&
              !vl_generate(c->session, prompt, &c->sampling, cli_answer_event, &a, &err);
    if (ok && strcmp(a.finish_reason, "error") == 0) {
        err = a.error;
        ok = false;
    }
    putchar('\n');
    if (!ok) {
        cli_fail(&err);
        json_array_remove(c->messages, json_array_size(c->messages) - 1);
    } else {
        json_t *answer = json_stringn(a.text ? a.text : "", a.len);
        json_array_append_new(c->messages,
                              json_pack("{s:s,s:o}", "role", "assistant", "content", answer));
        json_array_clear(c->parts);
    }
    cli_answer_clear(&a);
    vl_prompt_free(prompt);
    free(messages);
}

static const char help[] = "/image FILE   add a picture to the next question\n"
                           "/reset        forget the conversation\n"
                           "/quit         leave (also Ctrl-D)\n";

/* false: leave */
static bool command(chat *c, const char *line) {
    if (strncmp(line, "/image ", 7) == 0) add_picture(c, line + 7);
    else if (strcmp(line, "/reset") == 0) reset(c);
    else if (strcmp(line, "/quit") == 0 || strcmp(line, "/exit") == 0) return false;
    else fputs(help, stderr);
    return true;
}

static void talk(chat *c) {
    char *line = NULL;
    size_t cap = 0;
    bool terminal = isatty(STDIN_FILENO);
    struct sigaction action = {.sa_handler = on_interrupt};
    for (;;) {
        if (terminal) fputs("> ", stderr);
        sigaction(SIGINT, &(struct sigaction){.sa_handler = SIG_DFL}, NULL);
        ssize_t n = getline(&line, &cap, stdin);
        if (n < 0) break;
        if (n > 0 && line[n - 1] == '\n') line[n - 1] = '\0';
        if (!line[0]) continue;
        sigaction(SIGINT, &action, NULL);
        if (line[0] != '/') turn(c, line);
        else if (!command(c, line)) break;
    }
    free(line);
}

int cmd_chat(int argc, char **argv) {
    cli_common common = {0};
    cli_sampling sampling = CLI_SAMPLING_NONE;
    cli_list images = {0};
    const char *system = NULL;
    int64_t context = 8192;
    const cli_option options[] = {
        {"image", 'i', CLI_LIST, &images, "FILE", "a picture for the first question", 0, 0},
        {"system", 0, CLI_STR, &system, "TEXT", "system prompt", 0, 0},
        {"context", 0, CLI_INT, &context, "N", "tokens the conversation may grow to (8192)", 64, 1e7},
        CLI_SAMPLING_OPTIONS(&sampling),
        CLI_PICTURE_OPTIONS(&common),
        CLI_MODEL_OPTIONS(&common),
        {0},
    };
    int rc = cli_parse("chat [--image FILE]...", "Questions line by line from stdin, answers on "
                       "stdout. /image FILE adds a picture, /reset forgets, /quit leaves.", options, argc, argv, NULL);
    if (rc >= 0) return rc;
    chat c = {.messages = json_array(), .parts = json_array()};
    vl_err err = {0};
    rc = cli_open_model(&common, &c.m);
    if (!rc) rc = cli_picture_params(&common, c.m, &c.picture_params);
    if (!rc) {
        int64_t most = vl_model_get_info(c.m)->context;
        vl_session_params params = {.kv_tokens = context < most ? context : most,
                                    .prefix_cache = true, .picture_cache_bytes = 256u << 20,
                                    .speculate = (int)sampling.speculate};
        if (vl_session_open(&c.session, c.m, &params, &err)) rc = cli_fail(&err);
    }
    if (!rc) {
        c.sampling = cli_sampling_of(&sampling, c.m);
        if (system)
            json_array_append_new(c.messages,
                                  json_pack("{s:s,s:s}", "role", "system", "content", system));
        for (int i = 0; i < images.n; i++) add_picture(&c, images.v[i]);
        talk(&c);
    }
    vl_session_free(c.session);
    reset(&c);
    free(c.pictures);
    vl_model_free(c.m);
    json_decref(c.messages);
    json_decref(c.parts);
    free(images.v);
    free(sampling.stop.v);
    return rc;
}
