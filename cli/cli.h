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
    int64_t threads, gpus, min_pixels, max_pixels, frame;
    bool truncated, pin;
} cli_common;
#define CLI_MODEL_OPTIONS(c)                                                                       \
    {"model", 'm', CLI_STR, &(c)->model, "DIR", "checkpoint folder (default: the demo model)", 0, 0}, \
    {"backend", 0, CLI_STR, &(c)->backend, "NAME", "auto, cpu or cuda", 0, 0},                     \
    {"gpus", 0, CLI_INT, &(c)->gpus, "N", "2 to 8: so many GPUs share the model", 0, 8},            \
    {"dtype", 0, CLI_STR, &(c)->dtype, "NAME", "exact, bf16, int8 or int4", 0, 0},                 \
    {"threads", 0, CLI_INT, &(c)->threads, "N", "0: every core this process may use", 0, 4096}, \
    {"pin", 0, CLI_FLAG, &(c)->pin, NULL, "worker threads stay on their CPUs (as VL_PIN=1)", 0, 0}
#define CLI_PICTURE_OPTIONS(c)                                                                     \
    {"preset", 0, CLI_STR, &(c)->preset, "NAME", "fast (448x448), balanced, ocr or ground", 0, 0}, \
    {"min-pixels", 0, CLI_INT, &(c)->min_pixels, "N", "0: the checkpoint's own", 0, 1e9},          \
    {"max-pixels", 0, CLI_INT, &(c)->max_pixels, "N", "0: the checkpoint's own", 0, 1e9},          \
    {"alpha", 0, CLI_STR, &(c)->alpha, "HOW", "transparency: white (default) or drop", 0, 0},      \
    {"resize", 0, CLI_STR, &(c)->resize, "HOW", "torchvision (default) or pil", 0, 0},             \
    {"allow-truncated", 0, CLI_FLAG, &(c)->truncated, NULL, "decode what there is of a file", 0, 0}, \
    {"frame", 0, CLI_INT, &(c)->frame, "N", "of GIF and WebP animations, from 0 (the default)", 0, 1e5}

/* Prints "vitreous: message" and returns the exit code that belongs to err. */
int cli_fail(const vl_err *err);
/* 0, or the exit code after the message. */
int cli_open_model(const cli_common *c, vl_model **out);
int cli_picture_params(const cli_common *c, const vl_model *m, vl_picture_params *out);
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

/* A checkpoint folder of the shape `like` (as make-random; make_random.c) with random weights, or
 * with zeros. 0 or the exit code after the message. */
int cli_random_checkpoint(const char *like, int64_t seed, bool zeros, const char *dir);

/* Writes dir/name and drops j; copies from/name to dir if it is there. 0 or the exit code. */
int cli_write_json(const char *dir, const char *name, json_t *j);
int cli_copy_file(const char *from, const char *name, const char *dir);
/* Mean KLD, top-1 agreement and answers of two open models on the bundled pictures (quantize_report.c). */
int cli_quality_report(vl_model *exact, vl_model *other, bool json);
/* The bundled question i of m's folder: -1: there is none such, else 1: answered as expected, 0: not. */
int cli_demo_answer(vl_model *m, size_t i);

/* ---- answering (answer.c) ---------------------------------------------------------------------- */
typedef struct cli_sampling {
    int64_t n, top_k, seed, mirostat; /* INT64_MIN: not given                               */
    double temp, top_p, min_p, repetition, presence, frequency, tau, eta; /* NAN: not given */
    cli_list stop;
    bool greedy, ignore_eos, detect_repetition;
    int64_t speculate;
} cli_sampling;
#define CLI_SAMPLING_NONE {.n = 512, .top_k = INT64_MIN, .seed = INT64_MIN,                        \
    .mirostat = INT64_MIN, .temp = NAN, .top_p = NAN, .min_p = NAN, .repetition = NAN, .presence = NAN, \
    .frequency = NAN, .tau = NAN, .eta = NAN}
#define CLI_SAMPLING_OPTIONS(s)                                                                    \
    {"max-tokens", 'n', CLI_INT, &(s)->n, "N", "longest answer (default 512)", 1, 1e6},            \
    {"temp", 0, CLI_NUM, &(s)->temp, "T", "0: greedy; default: the checkpoint's own", 0, 100},     \
    {"greedy", 0, CLI_FLAG, &(s)->greedy, NULL, "the same as --temp 0", 0, 0},                     \
    {"top-p", 0, CLI_NUM, &(s)->top_p, "P", "1: off", 1e-6, 1},                                    \
    {"top-k", 0, CLI_INT, &(s)->top_k, "K", "0: off", 0, 1e6},                                     \
    {"min-p", 0, CLI_NUM, &(s)->min_p, "P", "0: off", 0, 1},                                       \
    {"repetition-penalty", 0, CLI_NUM, &(s)->repetition, "X", "1: off", 1e-3, 100},                \
    {"presence-penalty", 0, CLI_NUM, &(s)->presence, "X", "0: off", -100, 100},                    \
    {"frequency-penalty", 0, CLI_NUM, &(s)->frequency, "X", "0: off", -100, 100},                  \
    {"mirostat", 0, CLI_INT, &(s)->mirostat, "N", "2: Mirostat 2.0 instead of top-p, top-k, min-p; 0: off", 0, 2}, \
    {"mirostat-tau", 0, CLI_NUM, &(s)->tau, "BITS", "surprise it aims at (default 5)", 0, 100},     \
    {"mirostat-eta", 0, CLI_NUM, &(s)->eta, "X", "its learning rate (default 0.1)", 0, 1},         \
    {"seed", 0, CLI_INT, &(s)->seed, "N", "the same seed gives the same answer", 0, 9e18},         \
    {"stop", 0, CLI_LIST, &(s)->stop, "TEXT", "end the answer before this text", 0, 0},            \
    {"ignore-eos", 0, CLI_FLAG, &(s)->ignore_eos, NULL, "go on to --max-tokens", 0, 0},            \
    {"detect-repetition", 0, CLI_FLAG, &(s)->detect_repetition, NULL, "stop an endless loop", 0, 0}, \
    {"speculate", 0, CLI_INT, &(s)->speculate, "N", "greedy answers: look N tokens ahead (0: off)", 0, VL_SPECULATE_MAX}
/* The checkpoint's generation_config.json, changed by what was given. */
vl_sampling cli_sampling_of(const cli_sampling *s, const vl_model *m);

typedef struct cli_answer {
    FILE *stream;                     /* text is written here as it comes; NULL: only kept  */
    bool progress;                    /* encode and prefill progress on stderr              */
    int speculate;                    /* as in vl_session_params                            */
    const volatile int *cancel;       /* NULL, or non-zero when the answer should end       */
    char *text;                       /* malloc'd, NUL-terminated                           */
    size_t len, cap;
    bool done;
    char finish_reason[16];
    int prompt_tokens, image_tokens, completion_tokens;
    uint32_t logits_hash;
    vl_timings timings;
    vl_err error;
} cli_answer;
int cli_answer_event(void *answer, const vl_event *ev); /* a vl_event_fn */
void cli_answer_clear(cli_answer *a);
/* A session just large enough, one answer, and the session is gone. 0 or the exit code. */
int cli_answer_one(vl_model *m, const vl_prompt *p, const vl_sampling *s, cli_answer *a);
/* {"text","usage":{...},"finish_reason","images":[...],"timings":{...},"logits_hash"} and, where the answer has boxes
 * or points, "grounding"; question: names the picture that they belong to, perhaps; or NULL. */
json_t *cli_answer_json(const cli_answer *a, const vl_model *m, vl_picture *const *pictures,
                        const cli_list *files, const char *question);
/* One line on stderr: tok/s, GB/s, share of the machine's read rate measured now, logits hash. */
void cli_answer_speed(const cli_answer *a, const vl_model *m);

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
int cmd_cost(int argc, char **argv);
int cmd_gpu_report(int argc, char **argv);
int cmd_load(int argc, char **argv);
int cmd_kernels(int argc, char **argv);
int cmd_info(int argc, char **argv);
int cmd_make_random(int argc, char **argv);
int cmd_quantize(int argc, char **argv);
int cmd_pack(int argc, char **argv);
int cmd_tune(int argc, char **argv);

#endif
