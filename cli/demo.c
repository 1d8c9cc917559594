/* demo.c: the bundled pictures and questions, answered, beside what is really in the picture. The
 * list is pictures/questions.json of the model folder: [{"image","question","answer"}]. Boxes count as
 * expected when they overlap by more than half (IoU), other answers when the words are the same. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "loader/json.h"

/* Same words, whatever the case, the blanks around them and a final full stop. */
static bool same_words(const char *a, const char *b) {
    for (;; a++, b++) {
        while (*a == ' ' || *a == '.') a++;
        while (*b == ' ' || *b == '.') b++;
        int x = *a >= 'A' && *a <= 'Z' ? *a + 32 : *a, y = *b >= 'A' && *b <= 'Z' ? *b + 32 : *b;
        if (x != y) return false;
        if (!x) return true;
    }
}

/* Intersection over union of two [x1, y1, x2, y2]; 0 for anything else. */
static double overlap(const json_t *p, const json_t *q) {
    double a[4], b[4];
    for (size_t i = 0; i < 4; i++) {
        a[i] = json_number_value(json_array_get(p, i));
        b[i] = json_number_value(json_array_get(q, i));
    }
    double w = fmin(a[2], b[2]) - fmax(a[0], b[0]), h = fmin(a[3], b[3]) - fmax(a[1], b[1]);
    double both = w > 0 && h > 0 ? w * h : 0;
    double either = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both;
    return either > 0 ? both / either : 0;
}

/* As many boxes, and for each expected one a box of the same label that overlaps it by more than half. */
static bool same_boxes(const json_t *ours, const json_t *expected) {
    size_t n = json_array_size(expected), found = 0;
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < json_array_size(ours); k++) {
            const json_t *e = json_array_get(expected, i), *o = json_array_get(ours, k);
            if (!json_equal(json_object_get(e, "label"), json_object_get(o, "label")) ||
                overlap(json_object_get(e, "bbox_2d"), json_object_get(o, "bbox_2d")) <= 0.5) continue;
            found++;
            break;
        }
    return n && found == n && json_array_size(ours) == n;
}

static bool agree(const char *ours, const char *expected) {
    json_t *a = json_loads(ours, 0, NULL), *b = json_loads(expected, 0, NULL);
    bool boxes = a && json_object_get(json_array_get(b, 0), "bbox_2d") && same_boxes(a, b);
    json_decref(a);
    json_decref(b);
    return boxes || same_words(ours, expected);
}

/* 1: as expected, 0: not, -1: failed (reported) */
static int ask(vl_model *m, const char *dir, const json_t *entry, bool print) {
    const char *image, *question, *answer;
    char path[4200], *messages = NULL;
    vl_err err = {0};
    vl_picture *picture = NULL;
    vl_prompt *prompt = NULL;
    cli_answer a = {.progress = print};
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
        if (print) printf("%s\n  Q: %s\n  A: %s", image, question, a.text);
        if (print && strcmp(a.text, answer)) printf("\n     %s: %s", result ? "in the picture" : "expected", answer);
        if (print) printf("\n     (%.2f s)\n", a.timings.total_s);
        fflush(stdout);
    }
    cli_answer_clear(&a);
    vl_prompt_free(prompt);
    vl_picture_free(picture);
    free(messages);
    return result;
}

int cli_demo_answer(vl_model *m, size_t i) {
    const char *dir = vl_model_get_info(m)->dir;
    char path[4200];
    snprintf(path, sizeof path, "%s/pictures/questions.json", dir);
    json_t *list = vl_file_exists(path) ? vl_json_load(path, 1 << 20, NULL) : NULL;
    int result = i < json_array_size(list) ? ask(m, dir, json_array_get(list, i), false) : -1;
    json_decref(list);
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
        int result = ask(m, dir, json_array_get(list, (size_t)asked), true);
        if (result < 0) rc = CLI_BAD;
        else right += result;
    }
    if (!rc) printf("%d of %d answers as expected (%s)\n", right, asked, vl_model_get_info(m)->name);
    json_decref(list);
    vl_model_free(m);
    return rc;
}
