/* fuzz_answer.c: any text as an answer: tool calls, boxes, the record in the result cache. What was streamed
 * before the answer was complete has to be the beginning of what is said in the end. */
#include <stdlib.h>

#include "serve/chat.h"
#include "tokenizer/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_boxes(const json_t *boxes, size_t images) {
    size_t i, k;
    json_t *b, *v;
    json_array_foreach((json_t *)(uintptr_t)boxes, i, b) {
        json_int_t image = json_integer_value(json_object_get(b, "image"));
        vl_assert(image >= 0 && (size_t)image < images, "picture %lld", (long long)image);
        json_array_foreach(json_object_get(b, "pixels"), k, v)
            vl_assert(json_real_value(v) >= 0 && json_real_value(v) <= 400, "a box outside");
    }
}

static void check_record(const chat *c) {
    size_t len, n = 0;
    char *record = chat_record(c, &len), *again;
    vl_assert(record, "an answer that cannot be kept");
    chat back = {.n = 1, .left = 1, .warnings = json_array(), .reports = json_array()};
    vl_assert(chat_replay(&back, record, len), "a record that cannot be read");
    again = chat_record(&back, &n);
    vl_assert(again && n == len && memcmp(again, record, n) == 0, "%s is not %s", again, record);
    for (size_t i = 0; i < back.choices[0].n_pieces; i++)
        json_decref(back.choices[0].pieces[i].logprob);
    free(back.choices[0].pieces);
    free(back.choices[0].text);
    json_decref(back.warnings);
    json_decref(back.reports);
    free(record);
    free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    chat c = {.n = 1, .id = "chatcmpl-x", .tool_calls = !(size & 1), .warnings = json_array()};
    choice *k = &c.choices[0];
    size_t n, streamed = 0, images = 1 + size / 2 % 3;
    char *text = vl_utf8_clean((const char *)data, size, &n), *content;
    vl_assert(text, "out of memory");
    c.reports = json_array();
    for (size_t i = 0; i < images; i++)
        json_array_append_new(c.reports, json_pack("{s:i,s:i}", "width", 400, "height", 7));
    choice_add_piece(k, "", 0, NULL);
    for (size_t at = 0, step; at < n; at += step) {
        step = 1 + (size_t)(uint8_t)text[at] % 9;
        if (step > n - at) step = n - at;
        step = at + step == n ? step : vl_utf8_whole(text + at, step);
        if (!step) step = vl_utf8_whole(text + at, n - at < 4 ? n - at : 4);
        choice_add_piece(k, text + at, step, NULL);
        size_t ready = choice_ready(&c, k);
        vl_assert(ready >= streamed && ready <= k->len, "%zu after %zu", ready, streamed);
        streamed = ready;
    }
    k->done = true;
    size_t kept;
    json_t *calls = choice_tool_calls(&c, k, &content, &kept);
    vl_assert(kept >= streamed && memcmp(content, k->text, streamed) == 0, "the stream said more");
    json_t *boxes = grounding_find(content, NULL, c.reports);
    check_boxes(boxes, images);
    check_record(&c);
    json_decref(boxes);
    json_decref(calls);
    json_decref(c.reports);
    json_decref(c.warnings);
    free(content);
    free(text);
    free(k->text);
    free(k->pieces);
    return 0;
}
