/* example.c: a picture and a question in, the answer out. Build it against the installed library:
 *     cc example.c -o example $(pkg-config --cflags --libs vitreous)
 *     ./example photo.jpg "What is in this picture?" [model folder]
 */
#include <stdio.h>
#include <vitreous.h>

static int print_text(void *user, const vl_event *ev) {
    (void)user;
    if (ev->kind == VL_EV_TOKEN) fwrite(ev->text, 1, ev->len, stdout);
    return 0; /* anything else cancels the answer */
}

int main(int argc, char **argv) {
    vl_err err = {0};
    vl_model *model = NULL;
    vl_picture *picture = NULL;
    vl_prompt *prompt = NULL;
    vl_session *session = NULL;
    char messages[1024];
    if (argc < 3) {
        fprintf(stderr, "usage: %s PICTURE QUESTION [MODEL]\n", argv[0]);
        return 2;
    }
    snprintf(messages, sizeof messages, "[{\"role\":\"user\",\"content\":[{\"type\":\"image\"},"
             "{\"type\":\"text\",\"text\":\"%s\"}]}]", argv[2]);
    vl_sampling sampling = vl_sampling_greedy(64);
    int failed = vl_model_open(&model, argc > 3 ? argv[3] : NULL, NULL, &err) ||
                 vl_picture_load_file(&picture, model, argv[1], NULL, &err) ||
                 vl_prompt_chat(&prompt, model, messages, NULL, 0, &picture, 1, &err) ||
                 vl_session_open(&session, model, NULL, &err) ||
                 vl_generate(session, prompt, &sampling, print_text, NULL, &err);
    if (failed) fprintf(stderr, "%s\n", err.msg);
    else putchar('\n');
    vl_session_free(session);
    vl_prompt_free(prompt);
    vl_picture_free(picture);
    vl_model_free(model);
    return failed ? 1 : 0;
}
