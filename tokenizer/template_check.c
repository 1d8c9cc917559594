/* template_check.c: is the checkpoint's own chat template the one that template.c writes?
 * Jinja is not interpreted here: a template is known by its SHA-256, white space around it cut. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#include "loader/json.h"
#include "tokenizer/template.h"

enum { MAX_TEMPLATE = 1 << 20, MAX_CONFIG = 64 << 20 };

static const char *const KNOWN[] = {
    "9d879ef91075acbfb2df7e441fd79d60bacfca989cf6d511d2af45c681e94f10", /* Qwen3-VL-*-Instruct */
    "6b9f70e6acffa8a8396b2ebe2dea53cfef31602e4ebd3d5770a8aac8f2bbfeed", /* models/demo         */
};
static const char UNKNOWN[] = "the checkpoint's chat template is not Qwen3-VL-Instruct's: prompts "
                              "are written in Qwen3-VL-Instruct's form all the same";
static const char ABSENT[] = "the checkpoint has no chat template: prompts are written in "
                             "Qwen3-VL-Instruct's form";
static const char BROKEN[] = "the checkpoint's chat template cannot be read: prompts are written "
                             "in Qwen3-VL-Instruct's form";

static const char *verdict(const char *text, size_t n) {
    uint8_t digest[32];
    char hex[65];
    vl_sha256 h;
    for (; n && isspace((unsigned char)text[n - 1]); n--) {}
    for (; n && isspace((unsigned char)*text); n--) text++;
    vl_sha256_init(&h);
    vl_sha256_add(&h, text, n);
    vl_sha256_end(&h, digest);
    for (size_t i = 0; i < sizeof digest; i++) snprintf(hex + 2 * i, 3, "%02x", digest[i]);
    for (size_t i = 0; i < sizeof KNOWN / sizeof *KNOWN; i++)
        if (strcmp(hex, KNOWN[i]) == 0) return "";
    return UNKNOWN;
}

/* The field chat_template of a JSON file: a text, or named texts of which "default" counts. NULL:
 * the file says nothing about it. */
static const char *in_json(const char *path) {
    json_t *root = vl_json_load(path, MAX_CONFIG, NULL);
    json_t *t = json_object_get(root, "chat_template");
    const char *found = root ? NULL : BROKEN;
    for (size_t i = 0; i < json_array_size(t); i++) {
        json_t *one = json_array_get(t, i);
        const char *name = json_string_value(json_object_get(one, "name"));
        json_t *text = json_object_get(one, "template");
        if (name && strcmp(name, "default") == 0 && json_is_string(text)) t = text;
    }
    if (t && !json_is_null(t))
        found = json_is_string(t) ? verdict(json_string_value(t), json_string_length(t)) : BROKEN;
    json_decref(root);
    return found;
}

const char *vl_template_check(const char *dir) {
    static const char *const NAMES[] = {"chat_template.jinja", "chat_template.json",
                                        "tokenizer_config.json"};
    const char *found = NULL;
    for (size_t i = 0; !found && i < sizeof NAMES / sizeof *NAMES; i++) {
        char path[4096], *text;
        size_t n;
        if (snprintf(path, sizeof path, "%s/%s", dir, NAMES[i]) >= (int)sizeof path) return BROKEN;
        if (!vl_file_exists(path)) continue;
        if (i > 0) {
            found = in_json(path);
        } else if (vl_read_file(path, MAX_TEMPLATE, &text, &n, NULL) < 0) {
            found = BROKEN;
        } else {
            found = verdict(text, n);
            free(text);
        }
    }
    return found ? found : ABSENT;
}
