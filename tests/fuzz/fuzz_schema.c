/* fuzz_schema.c: any JSON as a schema. If it is accepted, a text that the automaton lets through, made of
 * choices from the input, has to be JSON. Input: the schema, a NUL, the choices. */
#include <stdlib.h>

#include "loader/json.h"
#include "serve/automaton.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MAX_TEXT = 300 };

/* The next byte: what the input says, or the first after it that is allowed; 0 if none is. */
static int choose(dfa *d, int *state, int wish) {
    for (int i = 0; i < 256; i++) {
        int byte = (wish + i) & 255, next = dfa_step(d, *state, (uint8_t)byte);
        if (next == DFA_DEAD) continue;
        *state = next;
        return byte;
    }
    return 0;
}

static void walk(dfa *d, const uint8_t *wishes, size_t n) {
    static const char closing[] = "\"]},:0e1tfn";
    char text[MAX_TEXT];
    size_t len = 0;
    int state = DFA_START;
    while (len < MAX_TEXT && !dfa_accepts(d, state)) {
        /* beyond the input: whatever tends to come to an end */
        int wish = len < n ? wishes[len] : closing[len % (sizeof closing - 1)];
        int byte = choose(d, &state, wish);
        if (!byte) return;            /* the limit of states was reached */
        text[len++] = (char)byte;
    }
    if (!dfa_accepts(d, state)) return;
    json_error_t why;
    json_t *o = json_loadb(text, len, JSON_DECODE_ANY | JSON_ALLOW_NUL, &why);
    /* Numbers may be out of jansson's range, and a key may come twice: both are JSON. */
    bool range = !o && (json_error_code(&why) == json_error_numeric_overflow);
    vl_assert(o || range, "%s: %.*s", why.text, (int)len, text);
    json_decref(o);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const uint8_t *nul = size ? memchr(data, 0, size) : NULL;
    size_t n = nul ? (size_t)(nul - data) : size;
    vl_err err = {0};
    api_error e = {0};
    nfa a = {0};
    frag f;
    dfa *d;
    json_t *schema = vl_json_parse((const char *)data, n, "fuzz", &err);
    if (!schema) return 0;
    if (schema_build(&a, schema, &f, "schema", &e)) {
        vl_assert(e.status == 400 && e.msg[0], "an error without a message");
        free(a.v);
    } else if (dfa_open(&d, &a, f, "schema", &e) == 0) {
        walk(d, nul ? nul + 1 : data, nul ? size - n - 1 : 0);
        dfa_free(d);
    }
    json_decref(schema);
    return 0;
}
