/* fuzz_chat.c: any JSON as a request of /v1/chat/completions, /v1/completions or /v1/responses (told
 * apart by messages, prompt and input), read in full: fields, messages, tools, output control, data URLs, pictures, prompt. An error names what was wrong. */
#include "loader/json.h"
#include "serve/chat.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static server *the_server(void) {
    static server srv;
    vl_err err = {0};
    if (srv.model) return &srv;
    srv.config = server_defaults();
    srv.config.model_dir = "models/demo";
    srv.config.image_pixels = 1 << 16;
    srv.config.kv_tokens = 1024;
    srv.config.log_requests = false;
    vl_assert(server_open(&srv, NULL, &err) == 0, "%s", err.msg);
    return &srv;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static chat c;                    /* large */
    caller nobody = {.arrived = vl_now()};
    vl_err err = {0};
    api_error e = {0};
    char name[] = "picture", bytes[] = "P6\n1 1\n255\nabc";
    attachment a = {.name = name, .data = {bytes, sizeof bytes - 1}};
    json_t *body = vl_json_parse((const char *)data, size, "fuzz", &err);
    if (json_is_object(body)) {
        int route = json_object_get(body, "prompt") ? FOR_TEXT
                  : json_object_get(body, "input")  ? FOR_RESPONSES : FOR_CHAT;
        if (chat_open(&c, the_server(), route, body, &a, &nobody, INTERACTIVE, &e) == 0)
            vl_assert(c.f.max_tokens > 0 && c.n > 0 && c.n <= MAX_CHOICES &&
                      c.prompt_tokens + c.f.max_tokens <= 1024, "%d choices", c.n);
        else
            vl_assert(e.status >= 400 && e.status < 500 && e.msg[0], "%d %s", e.status, e.msg);
        chat_free(&c);
    }
    json_decref(body);
    return 0;
}
