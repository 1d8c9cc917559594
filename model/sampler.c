/* sampler.c: see sampler.h. Candidates are popped from a heap, most likely first, so that top-k and
 * top-p never sort the whole vocabulary. */
#include "model/sampler.h"

#include <math.h>
#include <stdlib.h>

typedef struct candidate { float logit; int32_t id; } candidate;

typedef struct deviation { double v; int i; } deviation;

struct vl_sampler {
    vl_sampling p;
    vl_logit_bias *bias;
    int32_t *breakers;
    const int *eos;
    int V, n_eos;
    vl_rng rng;
    candidate *heap;         /* [V] */
    float *weight;           /* [V] relative probabilities of the popped candidates */
    float *raw;              /* [V] logits as the model gave them, with logprobs    */
    int32_t *count;          /* [V] occurrences in the answer (penalties); zeros between uses */
    deviation *deviation;    /* [V] of the candidates left, with typical-p */
    double mu;               /* bits of surprise that a token may have, with mirostat */
};

static bool has_typical(const vl_sampling *p) { return p->typical_p > 0 && p->typical_p < 1; }

int vl_sampler_open(vl_sampler **out, const vl_sampling *p, int vocab, const int *eos, int n_eos,
                    vl_err *err) {
    vl_sampler *s = vl_calloc(1, sizeof *s);
    if (!s) return vl_fail(err, VL_E_NOMEM, "no memory for the sampler");
    s->p = *p;
    s->V = vocab;
    s->eos = eos;
    s->n_eos = n_eos;
    s->mu = 2 * (double)p->mirostat_tau;
    vl_rng_seed(&s->rng, p->seed);
    size_t n = (size_t)vocab, n_bias = p->n_bias > 0 ? (size_t)p->n_bias : 0;
    size_t n_breakers = p->n_dry_breakers > 0 ? (size_t)p->n_dry_breakers : 0;
    s->bias = vl_calloc(n_bias, sizeof *s->bias);
    s->breakers = vl_calloc(n_breakers, sizeof *s->breakers);
    if (!vl_sampler_is_greedy(s)) {
        s->heap = vl_calloc(n, sizeof *s->heap);
        s->weight = vl_calloc(n, sizeof *s->weight);
        s->count = vl_calloc(n, sizeof *s->count);
        s->raw = vl_calloc(p->logprobs >= 0 ? n : 0, sizeof *s->raw);
        s->deviation = vl_calloc(has_typical(p) ? n : 0, sizeof *s->deviation);
    }
    if (!s->bias || !s->breakers || (!vl_sampler_is_greedy(s) && (!s->heap || !s->weight || !s->count ||
                                                                  !s->raw || !s->deviation))) {
        vl_sampler_free(s);
        return vl_fail(err, VL_E_NOMEM, "no memory for the sampler");
    }
    if (n_bias) memcpy(s->bias, p->bias, n_bias * sizeof *s->bias);
    if (n_breakers) memcpy(s->breakers, p->dry_breakers, n_breakers * sizeof *s->breakers);
    s->p.bias = s->bias;
    s->p.dry_breakers = s->breakers;
    *out = s;
    return 0;
}

void vl_sampler_free(vl_sampler *s) {
    if (!s) return;
    free(s->bias);
    free(s->breakers);
    free(s->deviation);
    free(s->heap);
    free(s->weight);
    free(s->count);
    free(s->raw);
    free(s);
}

static bool has_penalty(const vl_sampling *p) {
    return p->repetition_penalty != 1 || p->presence_penalty != 0 || p->frequency_penalty != 0;
}

bool vl_sampler_is_greedy(const vl_sampler *s) {
    const vl_sampling *p = &s->p;
    return p->temperature <= 0 && !has_penalty(p) && p->n_bias <= 0 && !p->logits_fn && p->logprobs < 0 &&
           p->min_tokens <= 0 && p->dry_multiplier <= 0;
}

/* HF RepetitionPenaltyLogitsProcessor looks at prompt and answer; presence and frequency (OpenAI)
 * at the answer only. */
static void penalise(vl_sampler *s, float *logits, const int32_t *ids, int n, int n_prompt) {
    const vl_sampling *p = &s->p;
    if (!has_penalty(p)) return;
    for (int i = 0; i < n; i++) {
        int32_t *seen = &s->count[ids[i]];
        if ((*seen & 1) == 0 && p->repetition_penalty != 1) {
            float *l = &logits[ids[i]];
            *l = *l > 0 ? *l / p->repetition_penalty : *l * p->repetition_penalty;
        }
        *seen |= 1;                    /* bit 0: seen anywhere; the rest counts the answer */
        if (i >= n_prompt) *seen += 2;
    }
    for (int i = 0; i < n; i++) {
        int32_t times = s->count[ids[i]] >> 1;
        s->count[ids[i]] = 0;
        if (times) logits[ids[i]] -= p->presence_penalty + p->frequency_penalty * (float)times;
    }
}

static bool is_breaker(const vl_sampling *p, int32_t id) {
    for (int i = 0; i < p->n_dry_breakers; i++)
        if (p->dry_breakers[i] == id) return true;
    return false;
}

/* "Don't repeat yourself" (p-e-w): where the last L tokens have stood before, the token that came
 * next there is made less likely, the more so the longer L is. */
static void dry(vl_sampler *s, float *logits, const int32_t *ids, int n) {
    enum { LONGEST = 50 };            /* longer matches are penalised no further */
    const vl_sampling *p = &s->p;
    if (p->dry_multiplier <= 0) return;
    int first = p->dry_range > 0 && p->dry_range < n ? n - p->dry_range : 0, end = 0;
    while (end < LONGEST && end < n - first && !is_breaker(p, ids[n - 1 - end])) end++;
    for (int i = n - 2; i >= first; i--) {
        int same = 0;
        while (same < end && i - same >= first && ids[i - same] == ids[n - 1 - same]) same++;
        if (same && same >= p->dry_allowed_length && same > s->count[ids[i + 1]])
            s->count[ids[i + 1]] = same;
    }
    for (int i = first; i < n; i++) {
        int same = s->count[ids[i]];
        s->count[ids[i]] = 0;
        if (same && !is_breaker(p, ids[i]))
            logits[ids[i]] -= p->dry_multiplier * powf(p->dry_base, (float)(same - p->dry_allowed_length));
    }
}

/* HF MinNewTokensLengthLogitsProcessor. */
static void hold_end(const vl_sampler *s, float *logits, int answered) {
    for (int i = 0; answered < s->p.min_tokens && i < s->n_eos; i++)
        if (s->eos[i] >= 0 && s->eos[i] < s->V) logits[s->eos[i]] = -INFINITY;
}

static bool before(candidate a, candidate b) { /* higher logit first, lower id on a tie */
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

static void sift_down(candidate *h, int n, int i) {
    for (;;) {
        int best = i, l = 2 * i + 1;
        if (l < n && before(h[l], h[best])) best = l;
        if (l + 1 < n && before(h[l + 1], h[best])) best = l + 1;
        if (best == i) return;
        candidate t = h[i];
        h[i] = h[best];
        h[best] = t;
        i = best;
    }
}

/* Heap of every token that is still allowed; returns how many. */
static int make_heap(vl_sampler *s, const float *logits) {
    int n = 0;
    for (int i = 0; i < s->V; i++)
        if (logits[i] > -INFINITY) s->heap[n++] = (candidate){logits[i], i};
    for (int i = n / 2 - 1; i >= 0; i--) sift_down(s->heap, n, i);
    return n;
}

/* Moves the best of n to the place behind the shrunken heap: popped candidates end up, best first,
 * at heap[n-1], heap[n-2], ... */
static candidate pop(vl_sampler *s, int n) {
    candidate best = s->heap[0];
    s->heap[0] = s->heap[n - 1];
    s->heap[n - 1] = best;
    sift_down(s->heap, n - 1, 0);
    return best;
}

static double log_sum_exp(const float *x, int n) {
    float max = -INFINITY;
    double sum = 0;
    for (int i = 0; i < n; i++) max = x[i] > max ? x[i] : max;
    for (int i = 0; i < n; i++) sum += exp((double)x[i] - (double)max);
    return (double)max + log(sum);
}

static void report_tops(vl_sampler *s, const float *raw, double lse, vl_top *top, int *n_top) {
    int n = make_heap(s, raw), k = s->p.logprobs < n ? s->p.logprobs : n;
    for (int i = 0; i < k; i++) {
        candidate c = pop(s, n - i);
        top[i] = (vl_top){c.id, (float)((double)c.logit - lse)};
    }
    *n_top = k;
}

static double weight_of(const vl_sampling *p, float logit, double best) {
    return exp(((double)logit - best) / (double)p->temperature); /* 1 for the best */
}

static int by_deviation(const void *a, const void *b) {
    const deviation *x = a, *y = b;
    return x->v != y->v ? (x->v < y->v ? -1 : 1) : x->i - y->i;
}

/* HF TypicalLogitsWarper over the `kept` candidates (best first: heap[n-1], heap[n-2], ...): those
 * whose surprise is nearest to the entropy, up to typical_p of the mass, and ties. Returns how many
 * are left, and their mass. */
static int typical(vl_sampler *s, int n, int kept, double *mass) {
    double entropy = 0, total = 0, so_far = 0;
    int last = 0, left = 0;
    for (int i = 0; i < kept; i++) total += (double)s->weight[i];
    for (int i = 0; i < kept; i++) {
        double q = (double)s->weight[i] / total;
        if (q > 0) entropy -= q * log(q);
    }
    for (int i = 0; i < kept; i++) {
        double q = (double)s->weight[i] / total;
        s->deviation[i] = (deviation){q > 0 ? fabs(-log(q) - entropy) : INFINITY, i};
    }
    qsort(s->deviation, (size_t)kept, sizeof *s->deviation, by_deviation);
    while (last < kept - 1 &&
           (so_far += (double)s->weight[s->deviation[last].i] / total) < (double)s->p.typical_p) last++;
    double limit = s->deviation[last].v;
    *mass = 0;
    for (int i = 0; i < kept; i++) {
        double q = (double)s->weight[i] / total;
        if (!(q > 0) || fabs(-log(q) - entropy) > limit) continue;
        s->weight[left] = s->weight[i];
        s->heap[n - 1 - left] = s->heap[n - 1 - i];
        *mass += (double)s->weight[left++];
    }
    return left;
}

/* One of the popped candidates: its place. */
static int choose(vl_sampler *s, int kept, double mass) {
    double u = vl_rng_uniform(&s->rng) * mass;
    int i = 0;
    while (i < kept - 1 && (u -= (double)s->weight[i]) >= 0) i++;
    return i;
}

/* Mirostat 2.0 (Basu et al., 2021): of the tokens with at most mu bits of surprise (and the best one in
 * any case) one is drawn; mu then moves against the error of its surprise among those. */
static int32_t draw_mirostat(vl_sampler *s, int n) {
    const vl_sampling *p = &s->p;
    double best = (double)s->heap[0].logit, total = 0, mass = 0;
    int kept = 0;
    for (int i = 0; i < n; i++) total += weight_of(p, s->heap[i].logit, best);
    for (; kept < n; kept++) {
        double w = weight_of(p, pop(s, n - kept).logit, best);
        if (kept && -log2(w / total) > s->mu) break;
        s->weight[kept] = (float)w;
        mass += (double)s->weight[kept];
    }
    int i = choose(s, kept, mass);
    s->mu -= (double)p->mirostat_eta * (-log2((double)s->weight[i] / mass) - (double)p->mirostat_tau);
    return s->heap[n - 1 - i].id;
}

/* temperature, then mirostat, or top-k, top-p (over what top-k left), min-p, typical-p and one draw. */
static int32_t draw(vl_sampler *s, const float *logits) {
    const vl_sampling *p = &s->p;
    int n = make_heap(s, logits), kept = 0, limit = p->top_k > 0 && p->top_k < n ? p->top_k : n;
    if (n == 0) return -1;
    if (p->temperature <= 0) return s->heap[0].id;
    if (p->mirostat) return draw_mirostat(s, n);
    double best = (double)s->heap[0].logit, total = 0, mass = 0;
    bool cut = limit < n; /* else top-p sees every token, and pops only as far as it must */
    for (int i = 0; i < limit; i++) {
        double w = weight_of(p, cut ? pop(s, n - i).logit : s->heap[i].logit, best);
        if (cut) s->weight[i] = (float)w;
        total += w;
    }
    for (; kept < limit && (kept == 0 || mass < (double)p->top_p * total); kept++) {
        if (!cut) s->weight[kept] = (float)weight_of(p, pop(s, n - kept).logit, best);
        mass += (double)s->weight[kept];
    }
    while (kept > 1 && s->weight[kept - 1] < p->min_p) mass -= (double)s->weight[--kept];
    if (has_typical(p)) kept = typical(s, n, kept, &mass);
    return s->heap[n - 1 - choose(s, kept, mass)].id;
}

int32_t vl_sampler_next(vl_sampler *s, float *logits, const int32_t *ids, int n, int n_prompt,
                        float *logprob, vl_top *top, int *n_top) {
    const vl_sampling *p = &s->p;
    double lse = 0;
    vl_assert(s->heap, "plain greedy is the arg-max of the device");
    *n_top = 0;
    for (int i = 0; i < s->V; i++)
        if (isnan(logits[i])) return -1;
    if (p->logprobs >= 0) {
        lse = log_sum_exp(logits, s->V);
        if (p->logprobs > 0) report_tops(s, logits, lse, top, n_top);
        memcpy(s->raw, logits, (size_t)s->V * sizeof *s->raw);
    }
    penalise(s, logits, ids, n, n_prompt);
    dry(s, logits, ids, n);
    hold_end(s, logits, n - n_prompt);
    for (int i = 0; i < p->n_bias; i++)
        if (p->bias[i].id >= 0 && p->bias[i].id < s->V) logits[p->bias[i].id] += p->bias[i].bias;
    if (p->logits_fn) p->logits_fn(p->logits_user, logits, s->V, ids + n_prompt, n - n_prompt);
    int32_t id = draw(s, logits);
    if (id >= 0 && p->logprobs >= 0) *logprob = (float)((double)s->raw[id] - lse);
    return id;
}

bool vl_is_repeating(const int32_t *ids, int n) {
    enum { PERIOD = 128, TIMES = 4, LENGTH = 96 };
    for (int p = 1; p <= PERIOD; p++) {
        int need = p * TIMES > LENGTH ? p * TIMES : LENGTH, same = p;
        if (need > n) continue;
        while (same < need && ids[n - 1 - same] == ids[n - 1 - same + p]) same++;
        if (same >= need) return true;
    }
    return false;
}
