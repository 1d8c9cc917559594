/* constrain.c: automata (automaton.h) applied to a vocabulary: which tokens keep the text inside
 * the pattern?
 *
 * Tokens are sorted by their bytes; walking them in order with one automaton state per byte depth
 * shares every common prefix, and everything below a dead prefix is passed over. The mask of a
 * state is kept, so the walk is paid once per state.
 */
#include "serve/constrain.h"

#include <math.h>
#include <stdlib.h>

#include "serve/automaton.h"

enum { MAX_TOKEN_BYTES = 255, MAX_MASKS = 512 };

typedef struct token {
    uint32_t at;
    uint8_t len, common;
    int32_t id;
} token;  /* common: with the last */

struct vocabulary {
    pthread_mutex_t lock;             /* filled at the first constrained request             */
    const vl_model *model;
    token *v;
    int n, size;
    char *bytes;
    int32_t eos[2];
    int n_eos;
};

struct constraint {
    vocabulary *v;
    dfa *d;
    int state, seen;                  /* after `seen` generated tokens                       */
    uint64_t *masks[MAX_MASKS];       /* by automaton state                                  */
    uint64_t *scratch;
};

/* ---- vocabulary --------------------------------------------------------------------------- */

int vocabulary_open(vocabulary **out, const vl_model *m, vl_err *err) {
    vocabulary *v = vl_calloc(1, sizeof *v);
    if (!v) return vl_fail(err, VL_E_NOMEM, "out of memory");
    pthread_mutex_init(&v->lock, NULL);
    v->model = m;
    v->size = vl_model_get_info(m)->vocab;
    *out = v;
    return 0;
}

void vocabulary_free(vocabulary *v) {
    if (!v) return;
    pthread_mutex_destroy(&v->lock);
    free(v->v);
    free(v->bytes);
    free(v);
}

static int by_bytes(const void *x, const void *y, void *arg) {
    const token *a = x, *b = y;
    const char *bytes = arg;
    int n = a->len < b->len ? a->len : b->len, c = memcmp(bytes + a->at, bytes + b->at, (size_t)n);
    return c ? c : a->len - b->len;
}

static void find_eos(vocabulary *v) {
    static const char *const names[] = {"<|im_end|>", "<|endoftext|>"};
    for (int i = 0; i < 2; i++) {
        int32_t *ids = NULL;
        size_t n = 0;
        vl_err err;
        if (vl_tokenize(v->model, names[i], strlen(names[i]), true, &ids, &n, &err) == 0 && n == 1)
            v->eos[v->n_eos++] = ids[0];
        free(ids);
    }
}

/* Special tokens have no bytes here and are never allowed (but for the end of the answer). */
static int vocabulary_fill(vocabulary *v, api_error *e) {
    size_t cap = 0, used = 0;
    v->v = vl_calloc((size_t)v->size + 1, sizeof *v->v);
    for (int32_t id = 0; v->v && id < v->size; id++) {
        char *text = NULL;
        size_t len = 0;
        vl_err err;
        if (vl_detokenize(v->model, &id, 1, true, &text, &len, &err)) len = 0;
        if (len && len <= MAX_TOKEN_BYTES) {
            if (used + len > cap) {
                cap = (used + len) * 2;
                char *p = realloc(v->bytes, cap);
                if (!p) {
                    free(text);
                    return api_fail(e, 503, "out_of_memory", NULL, "out of memory");
                }
                v->bytes = p;
            }
            memcpy(v->bytes + used, text, len);
            v->v[v->n++] = (token){(uint32_t)used, (uint8_t)len, 0, id};
            used += len;
        }
        free(text);
    }
    if (!v->n) return api_fail(e, 500, "internal_error", NULL, "the vocabulary is empty");
    qsort_r(v->v, (size_t)v->n, sizeof *v->v, by_bytes, v->bytes);
    for (int i = 1; i < v->n; i++) {
        const token *a = &v->v[i - 1];
        token *b = &v->v[i];
        while (b->common < a->len && b->common < b->len &&
               v->bytes[a->at + b->common] == v->bytes[b->at + b->common]) b->common++;
    }
    find_eos(v);
    return 0;
}

/* ---- making ------------------------------------------------------------------------------- */

static int finish(constraint **out, vocabulary *v, nfa *a, frag whole, const char *what,
                  api_error *e) {
    dfa *d;
    if (dfa_open(&d, a, whole, what, e)) return -1;
    pthread_mutex_lock(&v->lock);
    int rc = v->v ? 0 : vocabulary_fill(v, e);
    pthread_mutex_unlock(&v->lock);
    constraint *c = rc ? NULL : vl_calloc(1, sizeof *c);
    if (!c || !(c->scratch = vl_calloc((size_t)v->size / 64 + 1, 8))) {
        free(c);
        dfa_free(d);
        return rc ? rc : api_fail(e, 503, "out_of_memory", NULL, "out of memory");
    }
    c->v = v;
    c->d = d;
    c->state = DFA_START;
    *out = c;
    return 0;
}

static int drop(nfa *a) {
    free(a->v);
    return -1;
}

int constraint_regex(constraint **out, vocabulary *v, const char *regex, const char *what,
                     api_error *e) {
    nfa a = {0};
    frag f;
    return regex_build(&a, regex, false, &f, what, e) ? drop(&a) : finish(out, v, &a, f, what, e);
}

int constraint_choice(constraint **out, vocabulary *v, const json_t *choices, const char *what,
                      api_error *e) {
    nfa a = {0};
    frag all = {0, 0};
    size_t i, n = json_array_size(choices);
    json_t *s;
    if (!json_is_array(choices) || !n || n > 1000)
        return api_fail(e, 400, "invalid_type", what, "%s must be an array of 1 to 1000 strings",
                        what);
    json_array_foreach(choices, i, s) {
        if (!json_is_string(s) || !json_string_length(s)) {
            free(a.v);
            return api_fail(e, 400, "invalid_type", what, "%s must hold non-empty strings", what);
        }
        frag f = nfa_text(&a, json_string_value(s), json_string_length(s));
        all = i ? nfa_alt(&a, all, f) : f;
    }
    return finish(out, v, &a, all, what, e);
}

int constraint_schema(constraint **out, vocabulary *v, const json_t *schema, const char *what,
                      api_error *e) {
    nfa a = {0};
    frag f;
    return schema_build(&a, schema, &f, what, e) ? drop(&a) : finish(out, v, &a, f, what, e);
}

int constraint_tools(constraint **out, vocabulary *v, const json_t *tools, const char *name,
                     api_error *e) {
    static const char open[] = "<tool_call>\n{\"name\": ", middle[] = ", \"arguments\": ";
    static const char close[] = "}\n</tool_call>";
    nfa a = {0};
    frag all = {0, 0};
    bool any = false;
    size_t i;
    json_t *t;
    json_array_foreach(tools, i, t) {
        const json_t *fn = json_object_get(t, "function");
        const json_t *own = json_object_get(fn, "name");
        if (name && strcmp(name, json_string_value(own)) != 0) continue;
        char *quoted = json_dumps(own, JSON_ENCODE_ANY);
        frag args, f = nfa_text(&a, open, sizeof open - 1);
        f = nfa_seq(&a, f, nfa_text(&a, quoted ? quoted : "", quoted ? strlen(quoted) : 0));
        f = nfa_seq(&a, f, nfa_text(&a, middle, sizeof middle - 1));
        free(quoted);
        if (schema_build(&a, json_object_get(fn, "parameters"), &args, "tools", e)) return drop(&a);
        f = nfa_seq(&a, nfa_seq(&a, f, args), nfa_text(&a, close, sizeof close - 1));
        all = any ? nfa_alt(&a, all, f) : f;
        any = true;
    }
    return finish(out, v, &a, all, "tools", e);
}

void constraint_free(constraint *c) {
    if (!c) return;
    for (int i = 0; i < MAX_MASKS; i++) free(c->masks[i]);
    free(c->scratch);
    dfa_free(c->d);
    free(c);
}

/* ---- masking ------------------------------------------------------------------------------ */

static void allow(uint64_t *mask, int32_t id) { mask[id / 64] |= UINT64_C(1) << (id % 64); }

static void make_mask(constraint *c, int state, uint64_t *mask) {
    const vocabulary *v = c->v;
    int depth[MAX_TOKEN_BYTES + 1], known = 0, n = 0;
    bool any = false;
    memset(mask, 0, ((size_t)v->size / 64 + 1) * 8);
    depth[0] = state;
    for (int i = 0; i < v->n; i++) {
        const token *t = &v->v[i];
        n = t->common < known ? t->common : known;   /* depth[0..n] hold for this token too */
        if (n < t->common && depth[known] == DFA_DEAD) continue;
        if (depth[n] == DFA_DEAD) {
            known = n;
            continue;
        }
        while (n < t->len && depth[n] != DFA_DEAD) {
            depth[n + 1] = dfa_step(c->d, depth[n], (uint8_t)v->bytes[t->at + (uint32_t)n]);
            n++;
        }
        known = n;
        if (n == t->len && depth[n] != DFA_DEAD) {
            allow(mask, t->id);
            any = true;
        }
    }
    /* At the end, or if the limit of states leaves no way on, the answer may only stop. */
    for (int i = 0; i < v->n_eos && (dfa_accepts(c->d, state) || !any); i++) allow(mask, v->eos[i]);
}

static const uint64_t *mask_of(constraint *c, int state) {
    if (state >= 0 && state < MAX_MASKS) {
        if (c->masks[state]) return c->masks[state];
        c->masks[state] = malloc(((size_t)c->v->size / 64 + 1) * 8);
        if (c->masks[state]) {
            make_mask(c, state, c->masks[state]);
            return c->masks[state];
        }
    }
    make_mask(c, state, c->scratch);
    return c->scratch;
}

void constraint_mask(void *user, float *logits, int vocab, const int32_t *ids, int n) {
    constraint *c = user;
    for (; c->seen < n; c->seen++) {
        char *text = NULL;
        size_t len = 0;
        vl_err err;
        if (vl_detokenize(c->v->model, &ids[c->seen], 1, true, &text, &len, &err)) len = 0;
        for (size_t i = 0; i < len; i++) c->state = dfa_step(c->d, c->state, (uint8_t)text[i]);
        free(text);
    }
    const uint64_t *mask = mask_of(c, c->state);
    for (int i = 0; i < vocab; i++)
        if (i >= c->v->size || !(mask[i / 64] >> (i % 64) & 1)) logits[i] = -INFINITY;
}

bool constraint_complete(const constraint *c) { return dfa_accepts(c->d, c->state); }

bool constraint_matches(constraint *c, const char *text, size_t len) {
    int state = DFA_START;
    for (size_t i = 0; i < len; i++) state = dfa_step(c->d, state, (uint8_t)text[i]);
    return dfa_accepts(c->d, state);
}
