/* openapi.c: /openapi.json, made from the route table and the field table, so that it cannot
 * disagree with them. */
#include <ctype.h>
#include <stdlib.h>

#include "serve/fields.h"
#include "serve/routes.h"

static json_t *parse(const char *text) {
    json_t *o = json_loads(text, 0, NULL);
    vl_assert(o, "openapi: %.60s is no JSON", text);
    return o;
}

/* Schemas that several routes share. */
static const char components[] =
    "{\"securitySchemes\":{\"key\":{\"type\":\"http\",\"scheme\":\"bearer\"}},\"schemas\":{"
    "\"Error\":{\"type\":\"object\",\"required\":[\"error\"],\"properties\":{\"error\":{\"type\":\"object\","
    "\"required\":[\"message\",\"type\",\"code\"],\"properties\":{\"message\":{\"type\":\"string\"},\"type\":"
    "{\"type\":\"string\"},\"code\":{\"type\":\"string\"},\"param\":{\"type\":[\"string\",\"null\"]}}}}},"
    "\"Text\":{\"type\":\"string\",\"pattern\":\"^[^\\\\u0000]*$\"},"
    "\"Messages\":{\"type\":\"array\",\"minItems\":1,\"maxItems\":64,\"items\":{\"anyOf\":["
    "{\"type\":\"object\",\"required\":[\"role\",\"content\"],\"additionalProperties\":false,\"properties\":"
    "{\"role\":{\"enum\":[\"system\",\"user\",\"assistant\",\"developer\"]},\"content\":"
    "{\"$ref\":\"#/components/schemas/Text\"}}},"
    "{\"type\":\"object\",\"required\":[\"role\",\"content\"],\"additionalProperties\":false,\"properties\":"
    "{\"role\":{\"const\":\"user\"},\"content\":{\"type\":\"array\",\"minItems\":1,\"items\":"
    "{\"$ref\":\"#/components/schemas/Part\"}}}}]}},"
    "\"Part\":{\"type\":\"object\",\"required\":[\"type\",\"text\"],\"properties\":{\"type\":{\"const\":\"text\"},"
    "\"text\":{\"$ref\":\"#/components/schemas/Text\"}},\"description\":\"or {type: image_url, image_url: {url,"
    " detail, min_pixels, max_pixels}} with a data: URL, a file id or attachment:NAME\"},"
    "\"Tool\":{\"type\":\"object\",\"required\":[\"type\",\"function\"],\"properties\":{\"type\":{\"const\":"
    "\"function\"},\"function\":{\"type\":\"object\",\"required\":[\"name\"],\"properties\":{\"name\":{\"type\":"
    "\"string\",\"pattern\":\"^[A-Za-z0-9_-]{1,64}$\"},\"parameters\":{\"type\":\"object\"}}}}}}}";

static json_t *request_schema(const route *t) {
    if (strcmp(t->method, "POST")) return NULL;
    if (!strcmp(t->path, "/v1/chat/completions") || !strcmp(t->path, "/v1/jobs") ||
        !strcmp(t->path, "/v1/completions")) {
        bool text = !strcmp(t->path, "/v1/completions");
        return json_pack("{s:s,s:[s],s:o}", "type", "object", "required", text ? "prompt" : "messages",
                         "properties", fields_schema(text ? FOR_TEXT : FOR_CHAT));
    }
    static const struct { const char *path, *schema; } others[] = {
        {"/v1/preprocess", "{\"type\":\"object\",\"required\":[\"image\"],\"properties\":{\"image\":"
         "{\"type\":\"string\"},\"preset\":{\"enum\":[\"fast\",\"balanced\",\"ocr\",\"ground\"]},"
         "\"min_pixels\":{\"type\":\"integer\",\"minimum\":1},"
         "\"max_pixels\":{\"type\":\"integer\",\"minimum\":1}}}"},
        {"/tokenize", "{\"type\":\"object\",\"required\":[\"content\"],\"properties\":{\"content\":"
         "{\"$ref\":\"#/components/schemas/Text\"},\"special\":{\"type\":[\"boolean\",\"null\"]}}}"},
        {"/detokenize", "{\"type\":\"object\",\"required\":[\"tokens\"],\"properties\":{\"tokens\":"
         "{\"type\":\"array\",\"items\":{\"$ref\":\"#/components/schemas/Token\"}},"
         "\"skip_special_tokens\":{\"type\":[\"boolean\",\"null\"]}}}"},
        {"/apply-template", "{\"type\":\"object\",\"required\":[\"messages\"],\"properties\":"
         "{\"messages\":{\"type\":\"array\",\"items\":{\"type\":\"object\"}},"
         "\"tools\":{\"type\":[\"array\",\"null\"],\"items\":{\"$ref\":\"#/components/schemas/Tool\"}},\"add_generation_prompt\":{\"type\":[\"boolean\",\"null\"]},"
         "\"add_vision_id\":{\"type\":[\"boolean\",\"null\"]}}}"},
    };
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (!strcmp(t->path, others[i].path)) return parse(others[i].schema);
    return NULL;
}

static json_t *responses(const route *t) {
    const char *page = t->path[1] == 0 || !strncmp(t->path, "/web/", 5) ? "text/html" : NULL;
    const char *type = page ? page : !strcmp(t->path, "/metrics") ? "text/plain" : "application/json";
    json_t *ok = json_pack("{s:s,s:{s:{}}}", "description", "OK", "content", type);
    json_t *fail = parse("{\"description\":\"an error\",\"content\":{\"application/json\":{\"schema\":"
                         "{\"$ref\":\"#/components/schemas/Error\"}}}}");
    bool job = !strcmp(t->path, "/v1/jobs") && !strcmp(t->method, "POST");
    json_t *o = json_pack("{s:o,s:o}", job ? "202" : "200", ok, "default", fail);
    if (!strcmp(t->path, "/v1/chat/completions") || !strcmp(t->path, "/v1/completions"))
        json_object_set_new(json_object_get(ok, "content"), "text/event-stream", json_object());
    return o;
}

static json_t *operation(const route *t) {
    json_t *o = json_pack("{s:s,s:o}", "summary", t->summary, "responses", responses(t));
    json_t *schema = request_schema(t);
    if (schema)
        json_object_set_new(o, "requestBody", json_pack("{s:b,s:{s:{s:o}}}", "required", 1, "content",
                                                        "application/json", "schema", schema));
    else if (t->flags & R_UPLOAD)
        json_object_set_new(o, "requestBody", parse("{\"required\":true,\"content\":{"
            "\"application/octet-stream\":{\"schema\":{\"type\":\"string\",\"format\":\"binary\","
            "\"minLength\":1}}}}"));
    if (t->path[strlen(t->path) - 1] == '/' && t->path[1])
        json_object_set_new(o, "parameters", parse("[{\"name\":\"id\",\"in\":\"path\",\"required\":true,"
            "\"schema\":{\"type\":\"string\",\"pattern\":\"^[A-Za-z0-9_.-]{1,80}$\"}}]"));
    if (t->flags & R_OPEN) json_object_set_new(o, "security", json_array());
    return o;
}

void route_openapi(http_request *r) {
    json_t *paths = json_object();
    for (const route *t = routes; t->method; t++) {
        char path[128], method[16];
        size_t n = 0;
        bool id = t->path[1] && t->path[strlen(t->path) - 1] == '/';
        snprintf(path, sizeof path, "%s%s", t->path, id ? "{id}" : "");
        for (; t->method[n]; n++) method[n] = (char)tolower((unsigned char)t->method[n]);
        method[n] = 0;
        json_t *at = json_object_get(paths, path);
        if (!at) json_object_set_new(paths, path, at = json_object());
        json_object_set_new(at, method, operation(t));
    }
    json_t *o = json_pack("{s:s,s:{s:s,s:s,s:s},s:o,s:[{s:[]},{}]}", "openapi", "3.1.0", "info", "title",
        "vitreous", "version", VL_VERSION, "description", "Qwen3-VL as a service, OpenAI-compatible",
        "paths", paths, "security", "key");
    json_t *shared = parse(components);
    json_object_set_new(json_object_get(shared, "schemas"), "Token", json_pack("{s:s,s:i,s:i}", "type",
        "integer", "minimum", 0, "maximum", r->srv->info->vocab - 1));
    json_object_set_new(o, "components", shared);
    http_json(r, 200, o);
}
