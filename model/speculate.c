/* speculate.c: drafts for the next tokens of a greedy answer, looked up in what was already read and
 * said (no draft model). The pass that computes the next token computes the drafted rows with it, as many
 * as share one stream of the weights; each row's logits tell whether the draft after it was right.
 *
 *   ids   ... a b c D E F ... a b c        the last three tokens stood here before
 *   pass  rows  c  D  E  F                 logits of c choose D: right; of D choose E: right; of E choose X
 *   out   D  E  X                          three tokens of one pass, each the greedy choice of its row
 *
 * A row has the same bits alone or among others, so the answer is the plain greedy one, bit for bit.
 * A pass in which no draft was right was dearer for nothing: the next 1, 2, 4, ... passes go without. */
#include "model/session.h"

enum { GRAM = 3, LEAST_GRAM = 2, MOST_SKIPPED = 64, LOOK_BACK = 8192 };

/* Where the last n tokens of ids [len] stood before, latest first: the index after them; -1: nowhere. */
static int find_gram(const int32_t *ids, int len, int n) {
    const int32_t *tail = ids + len - n;
    int least = len - LOOK_BACK > n ? len - LOOK_BACK : n;
    for (int end = len - 1; end >= least; end--)
        if (ids[end - 1] == tail[n - 1] && !memcmp(ids + end - n, tail, (size_t)n * sizeof *ids)) return end;
    return -1;
}

int vl_draft(vl_request *r, int most) {
    int room = r->n_prompt + r->max_tokens - r->n - 1, at = -1;
    r->n_draft = 0;
    if (most > room) most = room; /* the last token of an answer is never a row */
    if (most <= 0 || !vl_sampler_is_greedy(r->sampler)) return 0;
    if (r->skip > 0) {
        r->skip--;
        return 0;
    }
    for (int n = GRAM; n >= LEAST_GRAM && at < 0; n--)
        if (r->n > n) at = find_gram(r->ids, r->n, n);
    if (at < 0) return 0;
    /* a copy that runs into its own end goes on with itself: a a a -> a a a ... */
    for (int i = 0; i < most; i++) r->ids[r->n + i] = r->ids[at + i];
    r->n_draft = most;
    memcpy(r->draft, r->ids + r->n, (size_t)most * sizeof *r->draft);
    return most;
}

void vl_draft_judged(vl_request *r, int right) {
    if (!r->n_draft) return;
    if (right) r->pause = 0;
    else r->pause = r->pause ? 2 * r->pause : 1;
    if (r->pause > MOST_SKIPPED) r->pause = MOST_SKIPPED;
    r->skip = r->pause;
}
