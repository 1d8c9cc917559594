/* constrain.h: output control. A regular expression (or choices, or a JSON schema, both turned into
 * one automaton) decides which tokens may come next.
 *
 *   pattern -> nodes -> NFA over bytes -> DFA states made on demand -> mask over the vocabulary
 *
 * Limits: NFA and DFA states, repetition counts, nesting; over a limit is a 400, never a long wait.
 */
#ifndef SERVE_CONSTRAIN_H
#define SERVE_CONSTRAIN_H

#include "serve/serve.h"

typedef struct constraint constraint;

/* Token bytes as a trie; made once from the model. */
int vocabulary_open(vocabulary **out, const vl_model *m, vl_err *err);
void vocabulary_free(vocabulary *v);

/* Each constraint serves one answer. `what` names the request field in errors. */
int constraint_regex(constraint **out, vocabulary *v, const char *regex, const char *what,
                     api_error *e);
int constraint_choice(constraint **out, vocabulary *v, const json_t *choices, const char *what,
                      api_error *e);
/* schema NULL: any JSON object. */
int constraint_schema(constraint **out, vocabulary *v, const json_t *schema, const char *what,
                      api_error *e);
/* A <tool_call> to one of `tools` (or to `name` only). */
int constraint_tools(constraint **out, vocabulary *v, const json_t *tools, const char *name,
                     api_error *e);
void constraint_free(constraint *c);
/* A vl_logits_fn; user is the constraint. */
void constraint_mask(void *user, float *logits, int vocab, const int32_t *ids, int n);
/* Was the answer, when it ended, one that may end? Else it ran into a limit of the automaton. */
bool constraint_complete(const constraint *c);
/* Does the whole text match? For tests. */
bool constraint_matches(constraint *c, const char *text, size_t len);

#endif
