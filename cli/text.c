/* text.c: tokenize, detokenize and template: the text side alone. They read the tokenizer files of
 * the checkpoint and never touch its weights. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "loader/json.h"
#include "model/demo_dir.h"
#include "tokenizer/template.h"
#include "tokenizer/tokenizer.h"

static int open_tokenizer(const char *dir, vl_tokenizer **out) {
    vl_err err = {0};
    if (!dir) dir = vl_demo_dir();
    if (!dir) {
        fputs("vitreous: the demo model is not installed beside this program; use -m DIR\n", stderr);
        return CLI_BAD;
    }
    return vl_tokenizer_open(out, dir, &err) ? cli_fail(&err) : 0;
}

int cmd_tokenize(int argc, char **argv) {
    const char *dir = NULL;
    bool special = false;
    const cli_option options[] = {
        {"model", 'm', CLI_STR, &dir, "DIR", "checkpoint folder (default: the demo model)", 0, 0},
        {"special", 0, CLI_FLAG, &special, NULL, "parse <|...|> tokens instead of taking them as text", 0, 0},
        {0},
    };
    vl_tokenizer *t = NULL;
    vl_ids ids = {0};
    vl_err err = {0};
    char *text = NULL;
    size_t len = 0;
    int rc = cli_parse("tokenize [--special] < TEXT", "Text on stdin to token ids on one line.",
                       options, argc, argv, NULL);
    if (rc >= 0) return rc;
    rc = open_tokenizer(dir, &t);
    if (!rc) rc = cli_read_stdin(&text, &len);
    if (!rc && vl_tokenizer_encode(t, text, len, special, &ids, &err)) rc = cli_fail(&err);
    if (!rc) {
        for (size_t i = 0; i < ids.n; i++) printf("%s%d", i ? " " : "", ids.v[i]);
        putchar('\n');
    }
    free(text);
    free(ids.v);
    vl_tokenizer_free(t);
    return rc;
}

/* One id, or -1 with a message. */
static long next_id(char **at, int size) {
    char *end;
    errno = 0;
    long id = strtol(*at, &end, 10);
    if (end == *at || errno || (*end && !strchr(" \t\r\n,", *end))) {
        fprintf(stderr, "vitreous: expected token ids separated by blanks, got \"%.20s\"\n", *at);
        return -1;
    }
    if (id < 0 || id >= size) {
        fprintf(stderr, "vitreous: token id %ld is outside 0..%d\n", id, size - 1);
        return -1;
    }
    *at = end + strspn(end, " \t\r\n,");
    return id;
}

int cmd_detokenize(int argc, char **argv) {
    const char *dir = NULL;
    bool skip = false;
    const cli_option options[] = {
        {"model", 'm', CLI_STR, &dir, "DIR", "checkpoint folder (default: the demo model)", 0, 0},
        {"skip-special", 0, CLI_FLAG, &skip, NULL, "leave special tokens out", 0, 0},
        {0},
    };
    vl_tokenizer *t = NULL;
    char *text = NULL;
    size_t len = 0;
    int rc = cli_parse("detokenize < IDS", "Token ids on stdin to their bytes.", options, argc,
                       argv, NULL);
    if (rc >= 0) return rc;
    rc = open_tokenizer(dir, &t);
    if (!rc) rc = cli_read_stdin(&text, &len);
    char *at = rc ? NULL : text + strspn(text, " \t\r\n,");
    while (!rc && *at) {
        size_t n = 0;
        long id = next_id(&at, vl_tokenizer_size(t));
        if (id < 0) {
            rc = CLI_BAD;
            break;
        }
        const char *piece = vl_tokenizer_piece(t, (int32_t)id, &n);
        if (piece && !(skip && vl_tokenizer_is_special(t, (int32_t)id))) fwrite(piece, 1, n, stdout);
    }
    free(text);
    vl_tokenizer_free(t);
    return rc;
}

int cmd_template(int argc, char **argv) {
    enum { MAX_BYTES = 64 << 20 };
    const char *dir = NULL, *messages_file = NULL, *tools_file = NULL;
    bool no_generation = false, vision_id = false;
    const cli_option options[] = {
        {"model", 'm', CLI_STR, &dir, "DIR", "its template is compared with the built-in one", 0, 0},
        {"messages", 0, CLI_STR, &messages_file, "F.json", "a JSON array of messages", 0, 0},
        {"tools", 0, CLI_STR, &tools_file, "F.json", "a JSON array of tools", 0, 0},
        {"no-generation-prompt", 0, CLI_FLAG, &no_generation, NULL, "do not open the answer", 0, 0},
        {"add-vision-id", 0, CLI_FLAG, &vision_id, NULL, "number the pictures", 0, 0},
        {0},
    };
    vl_segments segments = {0};
    vl_err err = {0};
    int rc = cli_parse("template --messages F.json", "The prompt as the chat template renders it.",
                       options, argc, argv, NULL);
    if (rc >= 0) return rc;
    if (!messages_file) return cli_usage("template needs --messages F.json");
    if (!dir) dir = vl_demo_dir();
    const char *warning = dir ? vl_template_check(dir) : "";
    if (warning[0]) fprintf(stderr, "warning: %s\n", warning);

    rc = 0;
    unsigned flags = (no_generation ? VL_NO_GENERATION_PROMPT : 0u) | (vision_id ? VL_ADD_VISION_ID : 0u);
    json_t *messages = vl_json_load(messages_file, MAX_BYTES, &err);
    json_t *tools = tools_file && messages ? vl_json_load(tools_file, MAX_BYTES, &err) : NULL;
    if (!messages || (tools_file && !tools) ||
        vl_template_render(&segments, messages, tools, flags, &err))
        rc = cli_fail(&err);
    for (size_t i = 0; !rc && i < segments.n; i++)
        fwrite(segments.v[i].text, 1, segments.v[i].len, stdout);
    vl_segments_clear(&segments);
    json_decref(messages);
    json_decref(tools);
    return rc;
}
