/* run.c: one question about any number of pictures, answered on stdout as it is generated. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/ops.h"

/* The question on stdin, without the newline that ends it. */
static int read_question(char **text) {
    size_t len;
    int rc = cli_read_stdin(text, &len);
    if (rc) return rc;
    if (strlen(*text) != len) {
        fputs("vitreous: the question on stdin holds a NUL byte; expected UTF-8 text\n", stderr);
        return CLI_BAD;
    }
    if (len && (*text)[len - 1] == '\n') (*text)[len - 1] = '\0';
    return 0;
}

int cmd_run(int argc, char **argv) {
    cli_common common = {0};
    cli_sampling sampling = CLI_SAMPLING_NONE;
    cli_list images = {0};
    const char *text = NULL, *system = NULL, *ops = NULL;
    bool json = false;
    const cli_option options[] = {
        {"image", 'i', CLI_LIST, &images, "FILE", "a picture", 0, 0},
        {"prompt", 'p', CLI_STR, &text, "TEXT", "the question; - reads it from stdin", 0, 0},
        {"system", 0, CLI_STR, &system, "TEXT", "system prompt", 0, 0},
        CLI_SAMPLING_OPTIONS(&sampling),
        {"json", 0, CLI_FLAG, &json, NULL, "one JSON object instead of the plain answer", 0, 0},
        {"ops", 0, CLI_STR, &ops, "FILE", "time of every op (.md .json .csv .html; -: to stderr)", 0, 0},
        CLI_PICTURE_OPTIONS(&common),
        CLI_MODEL_OPTIONS(&common),
        {0},
    };
    int rc = cli_parse("run [--image FILE]... -p TEXT",
                       "One answer, streamed to stdout. Greedy, unless --temp or the checkpoint's "
                       "generation_config.json asks\nfor sampling.",
                       options, argc, argv, NULL);
    if (rc >= 0) return rc;
    if (!text) return cli_usage("run needs a question: -p TEXT");

    vl_model *m = NULL;
    vl_picture **pictures = NULL;
    vl_prompt *prompt = NULL;
    vl_err err = {0};
    char *from_stdin = NULL, *messages = NULL;
    cli_answer answer = {.stream = json ? NULL : stdout, .progress = true};
    rc = text[0] == '-' && !text[1] ? read_question(&from_stdin) : 0;
    if (!rc) rc = cli_messages(system, images.n, from_stdin ? from_stdin : text, &messages);
    if (!rc) rc = cli_open_model(&common, &m);
    if (!rc) rc = cli_load_pictures(m, &common, &images, &pictures);
    if (!rc && vl_prompt_chat(&prompt, m, messages, NULL, 0, pictures, images.n, &err))
        rc = cli_fail(&err);
    if (!rc) {
        vl_sampling s = cli_sampling_of(&sampling, m);
        answer.speculate = (int)sampling.speculate;
        rc = ops ? cli_ops_run(m, prompt, &s, &answer, ops) : cli_answer_one(m, prompt, &s, &answer);
    }
    if (!rc && json) cli_print_json(cli_answer_json(&answer, m, pictures, &images, from_stdin ? from_stdin : text));
    if (!rc && !json && !ops) putchar('\n');
    if (!rc) {
        fflush(stdout);
        cli_answer_speed(&answer, m);
    }
    cli_answer_clear(&answer);
    vl_prompt_free(prompt);
    cli_free_pictures(pictures, images.n);
    vl_model_free(m);
    free(messages);
    free(from_stdin);
    free(images.v);
    free(sampling.stop.v);
    return rc;
}
