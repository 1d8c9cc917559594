/* demo.c: the bundled pictures and questions, answered, beside what is really in the picture. The
 * list is pictures/questions.json of the model folder: [{"image","question","answer"}]. */
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "loader/json.h"

/* Same words, whatever the case, the blanks around them and a final full stop. */
static bool agree(const char *a, const char *b) {
    for (;; a++, b++) {
        while (*a == ' ' || *a == '.') a++;
        while (*b == ' ' || *b == '.') b++;
        int x = *a >= 'A' && *a <= 'Z' ? *a + 32 : *a, y = *b >= 'A' && *b <= 'Z' ? *b + 32 : *b;
        if (x != y) return false;
        if (!x) return true;
    }
}

/* 1: as expected, 0: not, -1: failed (reported) */
static int ask(vl_model *m, const char *dir, const json_t *entry) {
    const char *image, *question, *answer;
    char path[4200], *messages = NULL;
    vl_err err = {0};
    vl_picture *picture = NULL;
    vl_prompt *prompt = NULL;
    cli_answer a = {.progress = true};
    vl_sampling s = vl_sampling_greedy(256);
    int result = -1;
    if (vl_json_str(entry, "questions.json", "image", "", &image, &err) ||
        vl_json_str(entry, "questions.json", "question", "", &question, &err) ||
        vl_json_str(entry, "questions.json", "answer", "", &answer, &err)) {
        cli_fail(&err);
        return -1;
    }
    snprintf(path, sizeof path, "%s/pictures/%s", dir, image);
    if (cli_messages(NULL, 1, question, &messages)) return -1;
    if (vl_picture_load_file(&picture, m, path, NULL, &err) ||
        vl_prompt_chat(&prompt, m, messages, NULL, 0, &picture, 1, &err)) {
        cli_fail(&err);
    } else if (cli_answer_one(m, prompt, &s, &a) == 0) {
        result = agree(a.text, answer);
        printf("%s\n  Q: %s\n  A: %s", image, question, a.text);
        if (!result) printf("\n     expected: %s", answer);
        printf("\n     (%.2f s)\n", a.timings.total_s);
        fflush(stdout);
    }
    cli_answer_clear(&a);
    vl_prompt_free(prompt);
    vl_picture_free(picture);
    free(messages);
    return result;
}

int cmd_demo(int argc, char **argv) {
    cli_common common = {0};
    const cli_option options[] = {CLI_MODEL_OPTIONS(&common), {0}};
    int rc = cli_parse("demo", "Answers the bundled questions about the bundled pictures.", options,
                       argc, argv, NULL);
    if (rc >= 0) return rc;
    vl_model *m = NULL;
    vl_err err = {0};
    char path[4200];
    rc = cli_open_model(&common, &m);
    if (rc) return rc;
    const char *dir = vl_model_get_info(m)->dir;
    snprintf(path, sizeof path, "%s/pictures/questions.json", dir);
    json_t *list = vl_json_load(path, 1 << 20, &err);
    if (!list) rc = cli_fail(&err);
    int right = 0, asked = 0;
    for (; !rc && asked < (int)json_array_size(list); asked++) {
        int result = ask(m, dir, json_array_get(list, (size_t)asked));
        if (result < 0) rc = CLI_BAD;
        else right += result;
    }
    if (!rc) printf("%d of %d answers as expected (%s)\n", right, asked, vl_model_get_info(m)->name);
    json_decref(list);
    vl_model_free(m);
    return rc;
}
