/* cli.h: what the subcommands share: the option parser, the common options, the model and picture
 * loading, and how errors become exit codes.
 *
 * Exit codes: 0 ok, 1 a check failed, 2 usage, 3 bad input or model. Results go to stdout,
 * everything else to stderr, progress only to a terminal.
 */
#ifndef VL_CLI_H
#define VL_CLI_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "vitreous.h"

enum { CLI_OK = 0, CLI_CHECK = 1, CLI_USAGE = 2, CLI_BAD = 3 };

/* ---- options (options.c) --------------------------------------------------------------------- */
typedef enum cli_kind {
    CLI_FLAG,              /* bool:         --json                                         */
    CLI_INT,               /* int64_t:      -n 64                                          */
    CLI_NUM,               /* double:       --temp 0.7                                     */
    CLI_STR,               /* const char *: -p TEXT                                        */
    CLI_LIST               /* cli_list:     --image a.png --image b.png                    */
} cli_kind;
typedef struct cli_list { const char **v; int n; } cli_list;
typedef struct cli_option {
    const char *name;      /* without the dashes; NULL ends a table                        */
    char letter;           /* or 0                                                         */
    cli_kind kind;
    void *to;              /* keeps its value when the option is not given                 */
    const char *arg, *help;
    double lo, hi;         /* range of numbers; both 0: none                               */
} cli_option;
/* Reads argv[1..]. usage: "run --image F -p TEXT". rest: arguments that are no options, or NULL
 * where none are taken. Returns -1 to go on, or the exit code (help was asked for, or a mistake that
 * has been reported). */
int cli_parse(const char *usage, const char *about, const cli_option *options, int argc,
              char **argv, cli_list *rest);
/* "vitreous: text", then the exit code CLI_USAGE. */
int cli_usage(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* The candidate closest to `word`, or NULL if none is near. */
const char *cli_nearest(const char *word, const char *const *candidates, int n);
/* The index of `word` in names (NULL-terminated), or -1. */
int cli_choice(const char *word, const char *const *names);

/* ---- what every command that uses a model takes (common.c) ------------------------------------- */
typedef struct cli_common {
    const char *model, *backend, *dtype, *preset, *alpha, *resize;
    int64_t threads, min_pixels, max_pixels;
    bool truncated;
} cli_common;
#define CLI_MODEL_OPTIONS(c)                                                                       \
    {"model", 'm', CLI_STR, &(c)->model, "DIR", "checkpoint folder (default: the demo model)", 0, 0}, \
    {"backend", 0, CLI_STR, &(c)->backend, "NAME", "auto, cpu or cuda", 0, 0},                     \
    {"dtype", 0, CLI_STR, &(c)->dtype, "NAME", "exact, bf16, int8 or int4", 0, 0},                 \
    {"threads", 0, CLI_INT, &(c)->threads, "N", "0: every core this process may use", 0, 4096}
#define CLI_PICTURE_OPTIONS(c)                                                                     \
    {"preset", 0, CLI_STR, &(c)->preset, "NAME", "fast (448x448), balanced, ocr or ground", 0, 0}, \
    {"min-pixels", 0, CLI_INT, &(c)->min_pixels, "N", "0: the checkpoint's own", 0, 1e9},          \
    {"max-pixels", 0, CLI_INT, &(c)->max_pixels, "N", "0: the checkpoint's own", 0, 1e9},          \
    {"alpha", 0, CLI_STR, &(c)->alpha, "HOW", "transparency: white (default) or drop", 0, 0},      \
    {"resize", 0, CLI_STR, &(c)->resize, "HOW", "torchvision (default) or pil", 0, 0},             \
    {"allow-truncated", 0, CLI_FLAG, &(c)->truncated, NULL, "decode what there is of a file", 0, 0}

/* Prints "vitreous: message" and returns the exit code that belongs to err. */
int cli_fail(const vl_err *err);
/* 0, or the exit code after the message. */
int cli_open_model(const cli_common *c, vl_model **out);
int cli_picture_params(const cli_common *c, vl_picture_params *out);
int cli_load_pictures(const vl_model *m, const cli_common *c, const cli_list *files,
                      vl_picture ***out);
void cli_free_pictures(vl_picture **p, int n);
/* One user turn: n image parts, then the text; system may be NULL. malloc'd JSON text. */
int cli_messages(const char *system, int n_images, const char *text, char **json);
/* Reads all of stdin; at most 64 MiB. */
int cli_read_stdin(char **data, size_t *len);
/* {"file","format","width","height","resized_width","resized_height","tokens","orientation",
 * "warnings"}; file may be NULL. */
json_t *cli_picture_json(const vl_picture *p, const char *file);
/* Writes one line of JSON to stdout and drops the reference. */
void cli_print_json(json_t *j);

/* ---- the commands -------------------------------------------------------------------------------- */
int cmd_run(int argc, char **argv);
int cmd_chat(int argc, char **argv);
int cmd_demo(int argc, char **argv);
int cmd_batch(int argc, char **argv);
int cmd_serve(int argc, char **argv); /* serve/ */
int cmd_trace(int argc, char **argv);
int cmd_verify(int argc, char **argv);
int cmd_preprocess(int argc, char **argv);
int cmd_tokenize(int argc, char **argv);
int cmd_detokenize(int argc, char **argv);
int cmd_template(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_kernels(int argc, char **argv);
int cmd_info(int argc, char **argv);
int cmd_make_random(int argc, char **argv);

#endif
