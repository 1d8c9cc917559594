/* automaton.c: see automaton.h. Thompson's construction and the subset construction on demand.
 *
 * Easy to get wrong: a fragment can be used once only (its states are linked in place); repetition
 * therefore copies states, which works because a fragment's states are contiguous.
 */
#include "serve/automaton.h"

#include <stdlib.h>

/* ---- NFA ---------------------------------------------------------------------------------- */

int nfa_node(nfa *a) {
    if (a->n == a->cap && !a->over) {
        int cap = a->cap ? a->cap * 2 : 256;
        nfa_state *v = cap <= 2 * MAX_NFA ? realloc(a->v, (size_t)cap * sizeof *v) : NULL;
        if (v) {
            a->v = v;
            a->cap = cap;
        } else {
            a->over = true;
        }
    }
    if (a->n >= MAX_NFA) a->over = true;
    if (a->over) return 0;            /* the result is thrown away, see dfa_open() */
    a->v[a->n] = (nfa_state){-1, -1, -1, -1};
    return a->n++;
}

void nfa_link(nfa *a, int from, int to) {
    if (a->over) return;
    nfa_state *s = &a->v[from];
    if (s->lo < 0 && s->next < 0) s->next = to;
    else if (s->lo < 0 && s->other < 0) s->other = to;
    else {                            /* full: move one way into a new state */
        int extra = nfa_node(a);
        if (a->over) return;
        a->v[extra].next = a->v[from].other;
        a->v[extra].other = to;
        a->v[from].other = extra;
    }
}

frag nfa_empty(nfa *a) {
    int s = nfa_node(a);
    return (frag){s, s};
}

frag nfa_byte(nfa *a, int lo, int hi) {
    int in = nfa_node(a), out = nfa_node(a);
    if (!a->over) a->v[in] = (nfa_state){lo, hi, out, -1};
    return (frag){in, out};
}

frag nfa_seq(nfa *a, frag x, frag y) {
    nfa_link(a, x.out, y.in);
    return (frag){x.in, y.out};
}

frag nfa_text(nfa *a, const char *s, size_t n) {
    frag f = nfa_empty(a);
    for (size_t i = 0; i < n; i++) f = nfa_seq(a, f, nfa_byte(a, (uint8_t)s[i], (uint8_t)s[i]));
    return f;
}

frag nfa_alt(nfa *a, frag x, frag y) {
    int in = nfa_node(a), out = nfa_node(a);
    nfa_link(a, in, x.in);
    nfa_link(a, in, y.in);
    nfa_link(a, x.out, out);
    nfa_link(a, y.out, out);
    return (frag){in, out};
}

frag nfa_star(nfa *a, frag x) {
    int in = nfa_node(a), out = nfa_node(a);
    nfa_link(a, in, x.in);
    nfa_link(a, in, out);
    nfa_link(a, x.out, in);
    return (frag){in, out};
}

frag nfa_opt(nfa *a, frag x) { return nfa_alt(a, x, nfa_empty(a)); }

frag nfa_repeat(nfa *a, int first, frag x, int min, int max) {
    int last = a->n, size = last - first;
    nfa_state *pattern = malloc((size_t)(size ? size : 1) * sizeof *pattern);
    if (!pattern || a->over) {
        free(pattern);
        a->over = true;
        return x;
    }
    memcpy(pattern, a->v + first, (size_t)size * sizeof *pattern);
    frag all = nfa_empty(a);
    int copies = max < 0 ? min + 1 : max;
    for (int k = 0; k < copies && !a->over; k++) {
        frag f = x;
        if (k) {
            int shift = a->n - first;
            for (int i = 0; i < size && !a->over; i++) {
                int s = nfa_node(a);
                if (a->over) break;
                a->v[s] = pattern[i];
                if (pattern[i].next >= 0) a->v[s].next += shift;
                if (pattern[i].other >= 0) a->v[s].other += shift;
            }
            f = (frag){x.in + shift, x.out + shift};
        }
        if (max < 0 && k == min) f = nfa_star(a, f);
        else if (k >= min) f = nfa_opt(a, f);
        all = nfa_seq(a, all, f);
    }
    free(pattern);
    return all;
}

/* ---- UTF-8 ranges ------------------------------------------------------------------------- */

static int utf8(uint32_t c, uint8_t out[4]) {
    if (c < 0x80) return out[0] = (uint8_t)c, 1;
    if (c < 0x800) return out[0] = (uint8_t)(0xC0 | c >> 6), out[1] = (uint8_t)(0x80 | (c & 63)), 2;
    if (c < 0x10000) {
        out[0] = (uint8_t)(0xE0 | c >> 12);
        out[1] = (uint8_t)(0x80 | (c >> 6 & 63));
        out[2] = (uint8_t)(0x80 | (c & 63));
        return 3;
    }
    out[0] = (uint8_t)(0xF0 | c >> 18);
    out[1] = (uint8_t)(0x80 | (c >> 12 & 63));
    out[2] = (uint8_t)(0x80 | (c >> 6 & 63));
    out[3] = (uint8_t)(0x80 | (c & 63));
    return 4;
}

/* lo and hi have encodings of equal length and the bytes between them form boxes: split until each
 * trailing byte is either fixed or the whole of 80..BF. */
static void add_range(nfa *a, frag *all, bool *any, uint32_t lo, uint32_t hi) {
    static const uint32_t ends[] = {0x7F, 0x7FF, 0xD7FF, 0xDFFF, 0xFFFF, 0x10FFFF};
    for (int i = 0; i < 6; i++)
        if (lo <= ends[i] && hi > ends[i]) {
            add_range(a, all, any, lo, ends[i]);
            add_range(a, all, any, ends[i] + 1, hi);
            return;
        }
    if (lo > hi || (lo >= 0xD800 && lo <= 0xDFFF)) return;
    for (int shift = 6; shift <= 18 && hi >= 0x80; shift += 6) {
        uint32_t mask = (UINT32_C(1) << shift) - 1;
        if ((lo & ~mask) == (hi & ~mask)) break;
        if (lo & mask) {
            add_range(a, all, any, lo, lo | mask);
            add_range(a, all, any, (lo | mask) + 1, hi);
            return;
        }
        if ((hi & mask) != mask) {
            add_range(a, all, any, lo, (hi & ~mask) - 1);
            add_range(a, all, any, hi & ~mask, hi);
            return;
        }
    }
    uint8_t x[4], y[4];
    int n = utf8(lo, x);
    utf8(hi, y);
    frag f = nfa_byte(a, x[0], y[0]);
    for (int i = 1; i < n; i++) f = nfa_seq(a, f, nfa_byte(a, x[i], y[i]));
    *all = *any ? nfa_alt(a, *all, f) : f;
    *any = true;
}

frag nfa_range(nfa *a, uint32_t lo, uint32_t hi) {
    frag all = {0, 0};
    bool any = false;
    add_range(a, &all, &any, lo, hi);
    return any ? all : (frag){nfa_node(a), nfa_node(a)};  /* nothing: a way in that leads nowhere */
}

/* ---- DFA ---------------------------------------------------------------------------------- */

typedef struct dfa_state { int *set, n; bool accepts; int next[256]; } dfa_state;
enum { UNKNOWN = -2, TABLE = 4 * MAX_DFA };

struct dfa {
    nfa a;
    int final;
    dfa_state *v[MAX_DFA];
    int n, table[TABLE];              /* open addressing: state + 1, 0 is free              */
    int *mark, generation, *stack, *set;
    int members, work;                /* NFA states: in all sets, and visited so far        */
};

/* Adds s and all that is reached from it without a byte; only states that consume one are kept. */
static int closure(dfa *d, int s, int n, bool *accepts) {
    int top = 0;
    d->stack[top++] = s;
    while (top) {
        s = d->stack[--top];
        if (s < 0 || d->mark[s] == d->generation) continue;
        d->work++;
        d->mark[s] = d->generation;
        if (s == d->final) *accepts = true;
        const nfa_state *q = &d->a.v[s];
        if (q->lo >= 0) {
            d->set[n++] = s;
            continue;
        }
        d->stack[top++] = q->next;
        d->stack[top++] = q->other;
    }
    return n;
}

static int compare_ints(const void *x, const void *y) { return *(const int *)x - *(const int *)y; }

/* The state for d->set[0..n), made if new; DFA_DEAD if empty or the limit is reached. */
static int intern(dfa *d, int n, bool accepts) {
    if (!n && !accepts) return DFA_DEAD;
    qsort(d->set, (size_t)n, sizeof *d->set, compare_ints);
    uint32_t h = 2166136261u + accepts;
    for (int i = 0; i < n; i++) h = (h ^ (uint32_t)d->set[i]) * 16777619u;
    uint32_t at = h % TABLE;
    for (; d->table[at]; at = (at + 1) % TABLE) {
        const dfa_state *s = d->v[d->table[at] - 1];
        if (s->n == n && s->accepts == accepts &&
            !memcmp(s->set, d->set, (size_t)n * sizeof *s->set))
            return d->table[at] - 1;
    }
    bool room = d->n < MAX_DFA && d->members <= MAX_DFA_MEMBERS - n;
    dfa_state *s = room ? malloc(sizeof *s) : NULL;
    if (!s || !(s->set = malloc((size_t)(n ? n : 1) * sizeof *s->set))) {
        free(s);
        return DFA_DEAD;
    }
    memcpy(s->set, d->set, (size_t)n * sizeof *s->set);
    s->n = n;
    d->members += n;
    s->accepts = accepts;
    for (int b = 0; b < 256; b++) s->next[b] = UNKNOWN;
    d->v[d->n] = s;
    d->table[at] = d->n + 1;
    return d->n++;
}

int dfa_open(dfa **out, nfa *a, frag whole, const char *what, api_error *e) {
    dfa *d = a->over ? NULL : vl_calloc(1, sizeof *d);
    size_t n = (size_t)a->n;
    if (!d) {
        free(a->v);
        *a = (nfa){0};
        return api_fail(e, 400, "too_complex", what, "%s is too large: at most %d states", what,
                        MAX_NFA);
    }
    d->a = *a;
    *a = (nfa){0};
    d->final = whole.out;
    d->mark = vl_calloc(n, sizeof *d->mark);
    d->stack = vl_calloc(2 * n + 2, sizeof *d->stack);
    d->set = vl_calloc(n, sizeof *d->set);
    bool accepts = false;
    if (d->mark && d->stack && d->set) {
        d->generation = 1;
        int k = closure(d, whole.in, 0, &accepts);
        if (intern(d, k, accepts) == DFA_START) {
            *out = d;
            return 0;
        }
    }
    dfa_free(d);
    return api_fail(e, 400, "invalid_value", what, "%s matches nothing", what);
}

void dfa_free(dfa *d) {
    if (!d) return;
    for (int i = 0; i < d->n; i++) {
        free(d->v[i]->set);
        free(d->v[i]);
    }
    free(d->a.v);
    free(d->mark);
    free(d->stack);
    free(d->set);
    free(d);
}

int dfa_step(dfa *d, int state, uint8_t byte) {
    if (state < 0) return DFA_DEAD;
    dfa_state *s = d->v[state];
    if (s->next[byte] != UNKNOWN) return s->next[byte];
    bool accepts = false;
    int n = 0;
    if (d->work > MAX_DFA_WORK) return DFA_DEAD;
    d->generation++;
    d->work += s->n;
    for (int i = 0; i < s->n; i++) {
        const nfa_state *q = &d->a.v[s->set[i]];
        if (byte >= q->lo && byte <= q->hi) n = closure(d, q->next, n, &accepts);
    }
    return s->next[byte] = intern(d, n, accepts);
}

bool dfa_accepts(const dfa *d, int state) { return state >= 0 && d->v[state]->accepts; }
