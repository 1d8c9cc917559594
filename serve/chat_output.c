/* chat_output.c: the form of the answer: tools, response_format (or text.format), guided_*. */
#include "serve/chat.h"

int tools_check(const json_t *tools, api_error *e) {
    size_t i;
    json_t *t;
    if (!json_is_array(tools) || json_array_size(tools) > 64)
        return api_fail(e, 400, "invalid_type", "tools", "tools must be an array of at most 64");
    json_array_foreach((json_t *)(uintptr_t)tools, i, t) {
        const json_t *f = json_object_get(t, "function"), *p = json_object_get(f, "parameters");
        const char *name = json_string_value(json_object_get(f, "name"));
        const char *type = json_string_value(json_object_get(t, "type"));
        if (!type || strcmp(type, "function"))
            return api_fail(e, 400, "invalid_value", "tools",
                            "tools[%zu].type must be \"function\"", i);
        size_t n =
            name ? strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
                 : 0;
        if (!n || n > 64 || name[n])
            return api_fail(e, 400, "invalid_value", "tools",
                            "tools[%zu].function.name must be 1 to 64 letters, digits, _ or -", i);
        if (p && !json_is_object(p))
            return api_fail(e, 400, "invalid_type", "tools",
                            "tools[%zu].function.parameters must be an object", i);
    }
    return 0;
}

static int read_tools(chat *c, const char **only, bool *demanded, api_error *e) {
    json_t *tools = json_object_get(c->body, "tools"), *t;
    json_t *how = json_object_get(c->body, "tool_choice");
    size_t i;
    *only = NULL;
    *demanded = false;
    if (!tools || json_is_null(tools) || (json_is_array(tools) && !json_array_size(tools))) {
        if (how && !json_is_null(how) &&
            (!json_is_string(how) ||
             (strcmp(json_string_value(how), "none") && strcmp(json_string_value(how), "auto"))))
            return api_fail(e, 400, "invalid_value", "tool_choice", "tool_choice needs tools");
        return 0;
    }
    if (tools_check(tools, e)) return -1;
    const char *word = json_string_value(how);
    if (word && !strcmp(word, "none")) return 0;
    c->tools = tools;
    c->tool_calls = true;
    if (!how || json_is_null(how) || (word && !strcmp(word, "auto"))) return 0;
    *demanded = true;
    if (word && !strcmp(word, "required")) return 0;
    const char *name = json_string_value(json_object_get(json_object_get(how, "function"), "name"));
    json_array_foreach(tools, i, t)
        if (name && !strcmp(name, json_string_value(json_object_get(json_object_get(t, "function"),
                                                                    "name")))) *only = name;
    return *only ? 0 : api_fail(e, 400, "invalid_value", "tool_choice",
                                "tool_choice must be none, auto, required or a function of tools");
}

/* response_format, or text.format of the responses route, whose schema lies one level higher. */
static int response_format(chat *c, const json_t **schema, bool *json, api_error *e) {
    bool responses = c->route == FOR_RESPONSES;
    const json_t *text = json_object_get(c->body, "text");
    const json_t *o = responses ? json_object_get(text, "format")
                                : json_object_get(c->body, "response_format");
    if (responses && text && !json_is_object(text) && !json_is_null(text))
        return api_fail(e, 400, "invalid_type", "text", "text must be an object");
    if (!o || json_is_null(o)) return 0;
    const char *type = json_string_value(json_object_get(o, "type"));
    if (type && !strcmp(type, "text")) return 0;
    if (type && !strcmp(type, "json_object")) {
        *json = true;
        return 0;
    }
    const json_t *js = responses ? o : json_object_get(o, "json_schema");
    const json_t *s = json_object_get(js, "schema");
    if (!type || strcmp(type, "json_schema") || !json_is_object(s))
        return api_fail(e, 400, "invalid_value", responses ? "text" : "response_format",
                        "type must be text, json_object or json_schema with %sschema",
                        responses ? "" : "json_schema.");
    *json = true;
    *schema = s;
    return 0;
}

int chat_constraint(chat *c, constraint **out, api_error *e) {
    const json_t *schema = NULL, *guided = json_object_get(c->body, "guided_json");
    const json_t *options = json_object_get(c->body, "guided_choice");
    bool json = false, demanded;
    const char *only;
    vocabulary *v = c->srv->vocabulary;
    if (read_tools(c, &only, &demanded, e) || response_format(c, &schema, &json, e)) return -1;
    bool has_guided = guided && !json_is_null(guided),
         has_options = options && !json_is_null(options);
    if (demanded + json + has_guided + has_options + (c->f.guided_regex != NULL) > 1)
        return api_fail(e, 400, "invalid_value", "response_format",
                        "only one of response_format, guided_* and a demanded tool call");
    if (c->f.min_tokens > 0 && (demanded || json || has_guided || has_options || c->f.guided_regex))
        return api_fail(e, 400, "invalid_value", "min_tokens", "min_tokens does not go with output "
                        "of a given form, which says itself when it is complete");
    if (demanded) return constraint_tools(out, v, c->tools, only, e);
    if (has_options) return constraint_choice(out, v, options, "guided_choice", e);
    if (c->f.guided_regex) return constraint_regex(out, v, c->f.guided_regex, "guided_regex", e);
    if (has_guided) return constraint_schema(out, v, guided, "guided_json", e);
    if (json) return constraint_schema(out, v, schema, c->route == FOR_RESPONSES ? "text"
                                                                    : "response_format", e);
    return 0;
}
