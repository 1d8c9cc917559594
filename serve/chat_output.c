/* chat_output.c: the form of the answer: tools, response_format (or text.format), guided_*. */
#include "serve/chat.h"

int tools_check(const json_t *tools, bool flat, api_error *e) {
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
    const char *in = flat ? "" : "function.";
    size_t i;
    json_t *t;
    if (!json_is_array(tools) || json_array_size(tools) > 64)
        return api_fail(e, 400, "invalid_type", "tools", "tools must be an array of at most 64");
    json_array_foreach((json_t *)(uintptr_t)tools, i, t) {
        const json_t *f = flat ? t : json_object_get(t, "function"), *p = json_object_get(f, "parameters");
        const char *name = json_string_value(json_object_get(f, "name"));
        const char *type = json_string_value(json_object_get(t, "type"));
        if (!type || strcmp(type, "function"))
            return api_fail(e, 400, "invalid_value", "tools",
                            "tools[%zu].type must be \"function\"", i);
        size_t n = name ? strspn(name, letters) : 0;
        if (!n || n > 64 || name[n])
            return api_fail(e, 400, "invalid_value", "tools",
                            "tools[%zu].%sname must be 1 to 64 letters, digits, _ or -", i, in);
        if (p && !json_is_object(p) && !(flat && json_is_null(p)))
            return api_fail(e, 400, "invalid_type", "tools",
                            "tools[%zu].%sparameters must be an object", i, in);
    }
    return 0;
}

/* The Responses API's functions as the template and the chat's code know them. `strict` is a wish about
 * the decoder and not for the model's eyes; null is "not given". */
static json_t *nested(const json_t *tools) {
    json_t *list = json_array(), *t, *v;
    size_t i;
    json_array_foreach((json_t *)(uintptr_t)tools, i, t) {
        json_t *f = json_object();
        const char *key;
        json_object_foreach(t, key, v)
            if (strcmp(key, "type") && strcmp(key, "strict") && !json_is_null(v)) json_object_set(f, key, v);
        json_array_append_new(list, json_pack("{s:s,s:o}", "type", "function", "function", f));
    }
    return list;
}

/* The name in {"type": "function", "function": {"name": ...}}, or one level higher. */
static const char *chosen(const json_t *how, bool flat) {
    const char *type = json_string_value(json_object_get(how, "type"));
    if (flat && (!type || strcmp(type, "function"))) return NULL;
    return json_string_value(json_object_get(flat ? how : json_object_get(how, "function"), "name"));
}

static int read_tools(chat *c, const char **only, bool *demanded, api_error *e) {
    json_t *tools = json_object_get(c->body, "tools"), *t;
    json_t *how = json_object_get(c->body, "tool_choice");
    bool flat = c->route == FOR_RESPONSES;
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
    if (tools_check(tools, flat, e)) return -1;
    const char *word = json_string_value(how);
    if (word && !strcmp(word, "none")) return 0;
    if (!c->tools) c->tools = flat ? nested(tools) : json_incref(tools);
    c->tool_calls = true;
    if (!how || json_is_null(how) || (word && !strcmp(word, "auto"))) return 0;
    *demanded = true;
    if (word && !strcmp(word, "required")) return 0;
    const char *name = chosen(how, flat);
    json_array_foreach(c->tools, i, t)
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
        return api_fail(e, 400, "invalid_value", c->route == FOR_RESPONSES ? "text" : "response_format",
                        "only one of response_format (text.format), guided_* and a demanded tool call");
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
