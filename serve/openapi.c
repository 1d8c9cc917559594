/* openapi.c: /openapi.json, made from the route table and the field table, so that it cannot
 * disagree with them; openapi.json beside it has the schemas that are more than one scalar. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#include "serve/embed.h"
#include "serve/fields.h"
#include "serve/routes.h"

EMBED(openapi, "serve/openapi.json");

static json_t *parse(const char *text) {
    json_t *o = json_loads(text, 0, NULL);
    vl_assert(o, "openapi: %.60s is no JSON", text);
    return o;
}

typedef struct generator { const char *path, *required; int route; bool streams; } generator;

/* The routes whose body is that of the field table. */
static const generator *find_generator(const char *path) {
    static const generator table[] = {{"/v1/chat/completions", "messages", FOR_CHAT, true},
                                      {"/v1/jobs", "messages", FOR_CHAT, false},
                                      {"/v1/completions", "prompt", FOR_TEXT, true},
                                      {"/v1/responses", "input", FOR_RESPONSES, true}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (!strcmp(table[i].path, path)) return &table[i];
    return NULL;
}

static json_t *request_schema(const route *t, const json_t *base) {
    const json_t *own = json_object_get(json_object_get(base, "requests"), t->path);
    const generator *g = find_generator(t->path);
    if (strcmp(t->method, "POST")) return NULL;
    if (own) return json_deep_copy(own);
    if (!g) return NULL;
    json_t *others = json_copy(json_object_get(base, "fields"));
    if (g->route == FOR_RESPONSES) json_object_update(others, json_object_get(base, "responses_fields"));
    json_t *o = json_pack("{s:s,s:[s],s:o}", "type", "object", "required", g->required, "properties",
                          fields_schema(g->route, others));
    json_decref(others);
    return o;
}

static json_t *responses(const route *t) {
    const char *page = t->path[1] == 0 || !strncmp(t->path, "/web/", 5) ? "text/html" : NULL;
    const char *type = page                           ? page
                       : !strcmp(t->path, "/metrics") ? "text/plain"
                                                      : "application/json";
    json_t *ok = json_pack("{s:s,s:{s:{}}}", "description", "OK", "content", type);
    json_t *fail =
        parse("{\"description\":\"an error\",\"content\":{\"application/json\":{\"schema\":"
              "{\"$ref\":\"#/components/schemas/Error\"}}}}");
    bool job = !strcmp(t->path, "/v1/jobs") && !strcmp(t->method, "POST");
    json_t *o = json_pack("{s:o,s:o}", job ? "202" : "200", ok, "default", fail);
    const generator *g = find_generator(t->path);
    if (g && g->streams)
        json_object_set_new(json_object_get(ok, "content"), "text/event-stream", json_object());
    return o;
}

static json_t *operation(const route *t, const json_t *base) {
    json_t *o = json_pack("{s:s,s:o}", "summary", t->summary, "responses", responses(t));
    json_t *schema = request_schema(t, base);
    if (schema)
        json_object_set_new(o, "requestBody",
                            json_pack("{s:b,s:{s:{s:o}}}", "required", 1, "content",
                                      "application/json", "schema", schema));
    else if (t->flags & R_UPLOAD)
        json_object_set_new(o, "requestBody", parse("{\"required\":true,\"content\":{"
            "\"application/octet-stream\":{\"schema\":{\"type\":\"string\",\"format\":\"binary\","
            "\"minLength\":1}}}}"));
    if (t->path[strlen(t->path) - 1] == '/' && t->path[1])
        json_object_set_new(
            o, "parameters",
            parse("[{\"name\":\"id\",\"in\":\"path\",\"required\":true,"
                  "\"schema\":{\"type\":\"string\",\"pattern\":\"^[A-Za-z0-9_.-]{1,80}$\"}}]"));
    if (t->flags & R_OPEN) json_object_set_new(o, "security", json_array());
    return o;
}

void route_openapi(http_request *r) {
    json_t *paths = json_object(), *base = parse(web_openapi);
    for (const route *t = routes; t->method; t++) {
        char path[128], method[16];
        size_t n = 0;
        bool id = t->path[1] && t->path[strlen(t->path) - 1] == '/';
        snprintf(path, sizeof path, "%s%s", t->path, id ? "{id}" : "");
        for (; t->method[n]; n++) method[n] = (char)tolower((unsigned char)t->method[n]);
        method[n] = 0;
        json_t *at = json_object_get(paths, path);
        if (!at) json_object_set_new(paths, path, at = json_object());
        json_object_set_new(at, method, operation(t, base));
    }
    json_t *o =
        json_pack("{s:s,s:{s:s,s:s,s:s},s:o,s:[{s:[]},{}]}", "openapi", "3.1.0", "info", "title",
                  "vitreous", "version", VL_VERSION, "description",
                  "Qwen3-VL as a service, OpenAI-compatible", "paths", paths, "security", "key");
    json_t *shared = json_incref(json_object_get(base, "components"));
    json_decref(base);
    json_object_set_new(json_object_get(shared, "schemas"), "Token",
                        json_pack("{s:s,s:i,s:i}", "type", "integer", "minimum", 0, "maximum",
                                  r->srv->info->vocab - 1));
    json_object_set_new(o, "components", shared);
    http_json(r, 200, o);
}
