/* automaton.h: byte automata for output control. Patterns are put together as NFA fragments; the
 * DFA over them is made state by state as text comes. Both are limited in size, and the DFA also in the
 * work that making it takes: it is made on the engine thread, where every other request waits. */
#ifndef SERVE_AUTOMATON_H
#define SERVE_AUTOMATON_H

#include "serve/serve.h"

enum { MAX_NFA = 60000, MAX_DFA = 8192, MAX_DFA_MEMBERS = 8 << 20, MAX_DFA_WORK = 200 << 20 };

/* A piece of an NFA with one way in and one way out; states are numbers in the builder. */
typedef struct frag { int in, out; } frag;
typedef struct nfa_state { int lo, hi, next, other; } nfa_state;  /* lo < 0: no byte consumed */
typedef struct nfa { nfa_state *v; int n, cap; bool over; } nfa;   /* over: the limit was hit  */

frag nfa_empty(nfa *a);
frag nfa_byte(nfa *a, int lo, int hi);
frag nfa_text(nfa *a, const char *s, size_t n);
frag nfa_seq(nfa *a, frag x, frag y);
frag nfa_alt(nfa *a, frag x, frag y);
frag nfa_star(nfa *a, frag x);
frag nfa_opt(nfa *a, frag x);
/* x{min,max}; max < 0: no end. x must be the last thing built, from state `first` on. */
frag nfa_repeat(nfa *a, int first, frag x, int min, int max);
/* UTF-8 of the code points lo..hi. */
frag nfa_range(nfa *a, uint32_t lo, uint32_t hi);
void nfa_link(nfa *a, int from, int to);       /* a step that consumes nothing */
int nfa_node(nfa *a);

/* A regular expression over code points: literals . [] [^] \d\w\s\D\W\S \n\r\t \xHH \uHHHH () (?:)
 * | * + ? {m,n}, and ^ $ at the ends (the whole text always has to match). in_json: the result
 * stands inside a JSON string, so quotes, backslashes and controls are escaped or excluded. */
int regex_build(nfa *a, const char *regex, bool in_json, frag *out, const char *what, api_error *e);
/* Text that follows a JSON schema, in compact form with at most one space after ',' and ':'.
 * schema NULL: any object. */
int schema_build(nfa *a, const json_t *schema, frag *out, const char *what, api_error *e);

typedef struct dfa dfa;
/* Takes the NFA's states. */
int dfa_open(dfa **out, nfa *a, frag whole, const char *what, api_error *e);
void dfa_free(dfa *d);
enum { DFA_DEAD = -1, DFA_START = 0 };
int dfa_step(dfa *d, int state, uint8_t byte);
bool dfa_accepts(const dfa *d, int state);

#endif
