/* fuzz_regex.c: any bytes as a regular expression, plain and inside a JSON string, and a text that is run
 * through the automaton. Input: the expression, a NUL, the text. */
#include <stdlib.h>

#include "serve/automaton.h"
#include "tokenizer/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void run(const char *regex, bool in_json, const uint8_t *text, size_t n) {
    nfa a = {0};
    frag f;
    dfa *d;
    api_error e = {0};
    if (regex_build(&a, regex, in_json, &f, "regex", &e)) {
        vl_assert(e.status == 400 && e.msg[0], "an error without a message");
        free(a.v);
        return;
    }
    vl_assert(a.n <= MAX_NFA, "%d states", a.n);
    if (dfa_open(&d, &a, f, "regex", &e)) {
        vl_assert(e.status == 400 && e.msg[0], "an error without a message");
        return;
    }
    int state = DFA_START;
    for (size_t i = 0; i < n; i++) {
        int next = dfa_step(d, state, text[i]);
        vl_assert(next == dfa_step(d, state, text[i]) && next < MAX_DFA, "a step that changes");
        state = next;
    }
    dfa_free(d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const uint8_t *nul = size ? memchr(data, 0, size) : NULL;
    size_t n = nul ? (size_t)(nul - data) : size, len;
    char *regex = vl_utf8_clean((const char *)data, n, &len);    /* as every JSON string is */
    vl_assert(regex, "out of memory");
    char *exact = malloc(len + 1);                 /* no slack behind the end */
    vl_assert(exact, "out of memory");
    memcpy(exact, regex, len);
    exact[len] = 0;
    for (int in_json = 0; in_json < 2; in_json++)
        run(exact, in_json, nul ? nul + 1 : data, nul ? size - n - 1 : 0);
    free(exact);
    free(regex);
    return 0;
}
