/* test_constrain.c: automata against what they must accept and refuse, and their limits. Every
 * schema case is text that a JSON schema validator would judge the same way. */
#include <jansson.h>

#include "serve/automaton.h"
#include "tests/test.h"

static dfa *make(const char *regex, const char *schema, api_error *e) {
    nfa a = {0};
    frag f;
    dfa *d = NULL;
    json_t *o = schema ? json_loads(schema, 0, NULL) : NULL;
    int rc = regex ? regex_build(&a, regex, false, &f, "regex", e)
                   : schema_build(&a, o, &f, "schema", e);
    json_decref(o);
    if (rc) free(a.v);
    else if (dfa_open(&d, &a, f, "pattern", e)) d = NULL;
    return d;
}

static bool matches(dfa *d, const char *s) {
    int state = DFA_START;
    for (; *s; s++) state = dfa_step(d, state, (uint8_t)*s);
    return dfa_accepts(d, state);
}

typedef struct row { const char *pattern, *yes[6], *no[8]; } row;

static const row regexes[] = {
    {"", {""}, {"a"}},
    {"abc", {"abc"}, {"", "ab", "abcd"}},
    {"^a|b$", {"a", "b"}, {"ab", ""}},
    {"a*b+c?", {"b", "aabbc", "bc"}, {"", "ac", "abcc"}},
    {"a{2,3}", {"aa", "aaa"}, {"a", "aaaa"}},
    {"(ab){2}", {"abab"}, {"ab", "ababab"}},
    {"(a|b){2,}", {"ab", "bbbb"}, {"a", ""}},
    {"a{0}", {""}, {"a"}},
    {"[a-c\\d]", {"b", "7"}, {"d", ""}},
    {"[^a-z]", {"A", "你", "\n"}, {"a", "AB", "\xff"}},
    {"[]x]", {"]", "x"}, {"["}},
    {"[\\w-]+", {"a-b_9"}, {"a b"}},
    {".", {"x", "é", "🙂"}, {"\n", "", "xy", "\xf0\x9f"}},
    {"\\d{4}-\\d{2}", {"2026-11"}, {"226-11", "2026-1"}},
    {"你{2}", {"你你"}, {"你", "你\xe4"}},
    {"[一-龥]+", {"中文"}, {"a", "ー"}},
    {"\\x41\\u4f60", {"A你"}, {"A"}},
    {"(?:x(y(z)?)?)?", {"", "x", "xy", "xyz"}, {"xz", "yz"}},
    {"a+?b", {"aab"}, {"b"}},
    {"\\.\\*\\(\\)", {".*()"}, {"x"}},
    {"\\s\\S\\D\\W", {" aa-"}, {"a a-", "  a-", " a1-"}},
};

static const row schemas[] = {
    {"{\"type\":\"boolean\"}", {"true", "false"}, {"True", "null", ""}},
    {"{\"type\":\"integer\"}", {"0", "-12", "345"}, {"01", "1.0", "-", "+1"}},
    {"{\"type\":\"integer\",\"minimum\":-2,\"maximum\":11}", {"-2", "0", "11"}, {"-3", "12", "00"}},
    {"{\"type\":\"integer\",\"minimum\":1}", {"1", "99"}, {"0", "-1"}},
    {"{\"type\":\"number\"}", {"1", "-0.5", "2e10", "1.25E-3"}, {"1.", ".5", "01", "NaN"}},
    {"{\"type\":\"string\"}",
     {"\"\"", "\"a\\n\\\"\\u00e9你\""},
     {"\"", "\"\n\"", "\"\\x\"", "a", "\"\\ud800\""}},
    {"{\"type\":\"string\",\"minLength\":2,\"maxLength\":3}",
     {"\"ab\"", "\"你好吗\""},
     {"\"a\"", "\"abcd\""}},
    {"{\"type\":\"string\",\"pattern\":\"^[A-Z]+$\"}", {"\"AB\""}, {"\"\"", "\"a\"", "AB"}},
    {"{\"type\":\"string\",\"pattern\":\".*\"}", {"\"x y\""}, {"\"a\"b\"", "\"\\\""}},
    {"{\"type\":\"string\",\"format\":\"date\"}", {"\"2026-11-22\""}, {"\"2026-1-1\""}},
    {"{\"enum\":[\"a\",1,null,[2]]}", {"\"a\"", "1", "null", "[2]"}, {"a", "2"}},
    {"{\"const\":{\"a\":1}}", {"{\"a\":1}"}, {"{}"}},
    {"{\"type\":\"array\",\"items\":{\"type\":\"integer\"}}",
     {"[]", "[1]", "[1, 2,3]"},
     {"[1,]", "[,1]", "[a]", "[1 ,2]"}},
    {"{\"type\":\"array\",\"items\":{\"type\":\"null\"},\"minItems\":2,\"maxItems\":3}",
     {"[null,null]", "[null, null, null]"},
     {"[]", "[null]", "[null,null,null,null]"}},
    {"{\"type\":\"array\",\"items\":{\"type\":\"null\"},\"maxItems\":1}",
     {"[]", "[null]"},
     {"[null,null]"}},
    {"{\"type\":\"array\",\"items\":{\"type\":\"null\"},\"minItems\":3}",
     {"[null,null,null]", "[null,null,null,null,null]"},
     {"[null,null]"}},
    {"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{\"type\":"
     "\"boolean\"},\"c\":{}},"
     "\"required\":[\"b\"]}",
     {"{\"b\": true}", "{\"a\":1,\"b\":false}",
      "{\"a\": 1, \"b\": true, \"c\": [1, {\"x\": null}]}", "{\"b\":true,\"c\":\"y\"}"},
     {"{}", "{\"a\":1}", "{\"b\":true,}", "{\"b\":true,\"a\":1}", "{,\"b\":true}",
      "{\"b\":true,\"d\":1}"}},
    {"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"null\"}}}",
     {"{}", "{\"a\":null}"},
     {"{\"a\":null,\"a\":null}"}},
    {"{\"anyOf\":[{\"type\":\"integer\"},{\"type\":\"null\"}]}", {"1", "null"}, {"true"}},
    {"{\"type\":[\"string\",\"null\"]}", {"\"x\"", "null"}, {"1"}},
    {"{\"$defs\":{\"p\":{\"type\":\"object\",\"properties\":{\"x\":{\"type\":\"integer\"}},"
     "\"required\":[\"x\"]}},"
     "\"type\":\"array\",\"items\":{\"$ref\":\"#/$defs/p\"}}",
     {"[]", "[{\"x\":1}, {\"x\":2}]"},
     {"[{}]", "[1]"}},
    {"{\"type\":\"object\"}",
     {"{}", "{\"a\": {\"b\": [1, \"x\", {\"c\": true}]}}"},
     {"[]", "{a:1}", "{\"a\"}"}},
    {"true", {"1", "{}", "[[]]", "\"s\"", "null"}, {"", "{", "tru"}},
};

static void check_rows(const row *rows, size_t n, bool regex) {
    for (size_t i = 0; i < n; i++) {
        api_error e = {0};
        dfa *d = make(regex ? rows[i].pattern : NULL, regex ? NULL : rows[i].pattern, &e);
        if (!strcmp(rows[i].pattern, "true")) {
            dfa_free(d);
            d = make(NULL, "{}", &e);
        }
        CHECK(d, "%s: %s", rows[i].pattern, e.msg);
        if (!d) continue;
        for (int k = 0; k < 6 && rows[i].yes[k]; k++)
            CHECK(matches(d, rows[i].yes[k]), "%s accepts %s", rows[i].pattern, rows[i].yes[k]);
        for (int k = 0; k < 8 && rows[i].no[k]; k++)
            CHECK(!matches(d, rows[i].no[k]), "%s refuses %s", rows[i].pattern, rows[i].no[k]);
        dfa_free(d);
    }
}

static void check_refusals(void) {
    static const char *const bad_regex[] = {"(",
                                            ")",
                                            "a)",
                                            "[",
                                            "[a",
                                            "*",
                                            "a**",
                                            "{2}",
                                            "a{3,2}",
                                            "a{2000}",
                                            "\\",
                                            "[\\",
                                            "[a-\\",
                                            "[a-",
                                            "\\q",
                                            "(?=a)",
                                            "a^b",
                                            "[z-a]",
                                            "\\ud800",
                                            "\\xg0",
                                            "a{,3}",
                                            "(((((a{1000}){1000}){1000}){1000}){1000})"};
    static const char *const bad_schema[] = {
        "{\"type\":\"cat\"}",
        "{\"type\":[]}",
        "{\"patternProperties\":{}}",
        "{\"type\":\"integer\",\"minimum\":5}",
        "{\"type\":\"number\",\"maximum\":5}",
        "{\"$ref\":\"#/x\"}",
        "{\"enum\":[]}",
        "{\"type\":\"string\",\"format\":\"email\"}",
        "{\"type\":\"string\",\"minLength\":3,\"maxLength\":2}",
        "{\"type\":\"array\",\"uniqueItems\":true}",
        "{\"type\":\"object\",\"properties\":{\"a\":{}},\"required\":[\"b\"]}",
        "{\"$defs\":{\"a\":{\"anyOf\":[{\"$ref\":\"#/$defs/a\"},{\"$ref\":\"#/$defs/"
        "a\"}]}},\"$ref\":\"#/$defs/a\"}",
        "{\"allOf\":[{},{}]}",
        "{\"type\":\"string\",\"pattern\":\"(\"}",
        "{\"type\":\"object\",\"properties\":{\"a\":{}},\"required\":[\"a\",\"a\"]}",
        "{\"type\":5}"};
    for (size_t i = 0; i < sizeof bad_regex / sizeof *bad_regex; i++) {
        api_error e = {0};
        dfa *d = make(bad_regex[i], NULL, &e);
        CHECK(!d && e.status == 400 && *e.msg, "regex %s is refused with a reason", bad_regex[i]);
        dfa_free(d);
    }
    for (size_t i = 0; i < sizeof bad_schema / sizeof *bad_schema; i++) {
        api_error e = {0};
        dfa *d = make(NULL, bad_schema[i], &e);
        CHECK(!d && e.status == 400 && *e.msg, "schema %s is refused with a reason", bad_schema[i]);
        dfa_free(d);
    }
}

/* Exponentially many DFA states: the limit holds and the automaton dies instead of growing. */
static void check_state_limit(void) {
    api_error e = {0};
    dfa *d = make("(a|b)*a(a|b){20}", NULL, &e);
    CHECK(d, "a blow-up pattern compiles: %s", e.msg);
    int state = DFA_START;
    vl_rng r;
    vl_rng_seed(&r, 1);
    for (int i = 0; i < 100000 && d; i++) {
        state = dfa_step(d, state, vl_rng_u64(&r) & 1 ? 'a' : 'b');
        if (state == DFA_DEAD) state = DFA_START;
        if (state >= MAX_DFA) break;
    }
    CHECK(state < MAX_DFA, "state %d", state);
    dfa_free(d);
}

/* Few states but large ones: the limit is on what they hold together. */
static void check_member_limit(void) {
    api_error e = {0};
    dfa *d = make("(a|b)*a((a|b){1000}){5}", NULL, &e);
    CHECK(d, "%s", e.msg);
    vl_rng r;
    vl_rng_seed(&r, 1);
    int state = DFA_START, n = 0;
    for (; d && n < MAX_DFA && state != DFA_DEAD; n++)
        state = dfa_step(d, state, vl_rng_u64(&r) & 1 ? 'a' : 'b');
    CHECK(n > 2000 && n < 5000, "dead after %d states", n);
    dfa_free(d);
}

int main(void) {
    check_member_limit();
    check_rows(regexes, sizeof regexes / sizeof *regexes, true);
    check_rows(schemas, sizeof schemas / sizeof *schemas, false);
    check_refusals();
    check_state_limit();
    return test_end();
}
