/* test_grounding.c: which picture a box belongs to, and where it is in that picture's pixels. */
#include <jansson.h>

#include "serve/chat.h"
#include "tests/test.h"

typedef struct row {
    const char *answer, *question;
    int images;
    const char *by;
    int n, image[3];                  /* of each mark */
} row;

#define BOX "\"bbox_2d\": [100, 200, 500, 700]"
static const row rows[] = {
    {"[{" BOX ", \"label\": \"cat\"}]", "find it in picture 2", 1, "only", 1, {0}},
    {"[{" BOX ", \"label\": \"cat\"}]", "where?", 3, "last", 1, {2}},
    {"[{" BOX "}]", "find the cat in the second image", 3, "question", 1, {1}},
    {"[{" BOX "}]", "第一张图里的猫在哪里？", 2, "question", 1, {0}},
    {"[{" BOX "}]", "compare image 1 and image 2", 3, "last", 1, {2}},
    {"[{" BOX "}]", "find it in picture 7", 3, "last", 1, {2}},
    {"[{" BOX ", \"image\": 1}, {\"image\": 2, " BOX "}]", "", 3, "answer", 2, {0, 1}},
    {"[{" BOX ", \"image_index\": 0}, {" BOX ", \"image_index\": 2}]", "", 3, "answer", 2, {0, 2}},
    {"[{" BOX ", \"label\": \"cat in Picture 1\"}]", "image 2", 3, "answer", 1, {0}},
    {"Picture 1: {" BOX "}\nPicture 2. {" BOX "} {\"point_2d\": [1, 2]}", "", 3, "answer", 3, {0, 1, 1}},
    {"图片2：<|box_start|>(100,200),(500,700)<|box_end|>", "", 3, "answer", 1, {1}},
    {"第三张图 {" BOX "}", "", 3, "answer", 1, {2}},
    {"{\"image_id\": 1, \"objects\": [{" BOX "}, {" BOX "}]}", "", 2, "answer", 2, {0, 0}},
    {"The image is 640 wide. {" BOX "}", "", 2, "last", 1, {1}},
    {"image 1.5 {" BOX "}", "", 2, "last", 1, {1}},
    {"imagery 1, image 1920 {" BOX "}", "", 2, "last", 1, {1}},
    {"bbox_2d of picture 1", "", 2, NULL, 0, {0}},
};

static void check_row(const row *r, const json_t *reports, const json_t *question) {
    json_t *found = grounding_find(r->answer, question, reports), *v;
    size_t i, k;
    json_t *o;
    CHECK((int)json_array_size(found) == r->n, "%s: %zu marks", r->answer, json_array_size(found));
    json_array_foreach(found, i, o) {
        json_int_t image = json_integer_value(json_object_get(o, "image"));
        const char *by = json_string_value(json_object_get(o, "image_by"));
        json_t *rel = json_object_get(o, "relative");
        CHECK(i < 3 && image == r->image[i] && !strcmp(by, r->by), "%s: picture %d by %s",
              r->answer, (int)image, by);
        json_array_foreach(json_object_get(o, "pixels"), k, v) {
            double side = (double)(k % 2 ? 200 : 100) * (double)(image + 1);
            double want = json_number_value(json_array_get(rel, k)) / 1000 * side;
            CHECK(json_number_value(v) == want, "%s: %g is not %g", r->answer,
                  json_number_value(v), want);
        }
    }
    json_decref(found);
}

/* More pictures named than any table of fixed size would hold: every box keeps its own. */
static void many(void) {
    enum { BOXES = 1000 };
    json_t *reports = json_pack("[{s:i,s:i},{s:i,s:i}]", "width", 100, "height", 100, "width", 200, "height", 200);
    char *text = malloc(BOXES * 80 + 1), *p = text;
    *p = 0;
    for (int i = 0; i < BOXES; i++) p += sprintf(p, "Picture %d: {" BOX "}\n", i % 2 + 1);
    json_t *found = grounding_find(text, NULL, reports), *o;
    size_t i;
    int wrong = 0;
    CHECK(json_array_size(found) == BOXES, "%zu boxes", json_array_size(found));
    json_array_foreach(found, i, o) wrong += json_integer_value(json_object_get(o, "image")) != (int)(i % 2);
    CHECK(wrong == 0, "%d of %d boxes in the wrong picture", wrong, BOXES);
    json_decref(found);
    json_decref(reports);
    free(text);
}

int main(void) {
    many();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        json_t *reports = json_array();
        for (int k = 1; k <= rows[i].images; k++)
            json_array_append_new(reports, json_pack("{s:i,s:i}", "width", 100 * k, "height", 200 * k));
        json_t *words = json_string(rows[i].question);
        json_t *parts = json_pack("[{s:s},{s:s,s:O}]", "type", "image", "type", "text", "text", words);
        check_row(&rows[i], reports, words);
        check_row(&rows[i], reports, parts);
        json_decref(parts);
        json_decref(words);
        json_decref(reports);
    }
    return test_end();
}
