/* main.c: the entry of the program. One table of subcommands; each lives in a file of its own. */
#include <string.h>

#include "cli/cli.h"

typedef struct command {
    const char *name;
    int (*run)(int argc, char **argv); /* argv[0] is the command's name */
    const char *about;
} command;

static const command commands[] = {
    {"run", cmd_run, "answer one question about pictures"},
    {"chat", cmd_chat, "talk about pictures, turn by turn"},
    {"demo", cmd_demo, "answer the bundled questions about the bundled pictures"},
    {"batch", cmd_batch, "a folder or a JSONL file of jobs to JSONL, resumable"},
    {"serve", cmd_serve, "web page and OpenAI-compatible API"},
    {"trace", cmd_trace, "every tensor on the way from picture to logits, as safetensors"},
    {"verify", cmd_verify, "compare every stage with stored Hugging Face results"},
    {"preprocess", cmd_preprocess, "pixel_values of a picture"},
    {"tokenize", cmd_tokenize, "stdin to token ids"},
    {"detokenize", cmd_detokenize, "token ids on stdin to text"},
    {"template", cmd_template, "messages to the rendered prompt"},
    {"load", cmd_load, "open-loop load on a running server"},
    {"cost", cmd_cost, "CPU or GPU: latency, capacity and money, measured or predicted"},
    {"bench", cmd_bench, "encode, prefill and decode beside the machine's own peaks"},
    {"gpu-report", cmd_gpu_report, "the GPU kernels on gpusim: counters and predicted times, no GPU needed"},
    {"kernels", cmd_kernels, "which kernel each slot runs, and why"},
    {"info", cmd_info, "what a checkpoint holds"},
    {"quantize", cmd_quantize, "write an int8 or int4 checkpoint, and what it loses"},
    {"pack", cmd_pack, "write a checkpoint's packed weights beside it: a faster start"},
    {"tune", cmd_tune, "measure this machine once, so that later starts run its fastest choices"},
    {"make-random", cmd_make_random, "a checkpoint of any shape with random weights"},
};
enum { COMMANDS = sizeof commands / sizeof *commands };

static void print_commands(FILE *f) {
    fprintf(f, "vitreous %s: answers questions about pictures (Qwen3-VL).\n\n"
               "usage: vitreous COMMAND [options]    (vitreous COMMAND --help lists them)\n\n",
            VL_VERSION);
    for (int i = 0; i < COMMANDS; i++) fprintf(f, "  %-12s %s\n", commands[i].name, commands[i].about);
    fputs("\nexample: vitreous run --image photo.jpg -p \"What is in this picture?\"\n", f);
}

int main(int argc, char **argv) {
    const char *names[COMMANDS];
    if (argc < 2) {
        print_commands(stderr);
        return CLI_USAGE;
    }
    const char *word = argv[1];
    if (!strcmp(word, "--help") || !strcmp(word, "-h") || !strcmp(word, "help")) {
        print_commands(stdout);
        return CLI_OK;
    }
    if (!strcmp(word, "--version") || !strcmp(word, "version")) {
        puts("vitreous " VL_VERSION);
        return CLI_OK;
    }
    for (int i = 0; i < COMMANDS; i++) {
        names[i] = commands[i].name;
        if (strcmp(word, commands[i].name)) continue;
        int rc = commands[i].run(argc - 1, argv + 1);
        /* A full disk or a closed pipe must not look like success. */
        if (fflush(stdout) != 0 || ferror(stdout)) {
            fputs("vitreous: cannot write the result to stdout\n", stderr);
            return rc ? rc : CLI_BAD;
        }
        return rc;
    }
    const char *near = cli_nearest(word, names, COMMANDS);
    return near ? cli_usage("unknown command \"%s\" (did you mean %s?)", word, near)
                : cli_usage("unknown command \"%s\" (vitreous --help lists them)", word);
}
