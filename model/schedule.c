/* schedule.c: which rows go into the next pass. Decode rows of every answer come first, then the
 * prompts still being read share what room is left; so a long prompt never starves an answer, nor a
 * short prompt behind it. Blocks for prompt and answer are reserved at admission: what was admitted
 * always finishes. */
#include "model/session.h"

static int blocks_for(int rows) { return (rows + VL_KV_BLOCK - 1) / VL_KV_BLOCK; }

/* The span that holds prompt row `row`. */
static const vl_span *span_of(const vl_request *r, int row) {
    const vl_span *sp = r->spans;
    while (row >= sp->at + sp->n) sp++;
    return sp;
}

/* Key of block j = SHA-256(key of block j-1, for each row its token and, in a picture, the picture's
 * digest and the row inside it). The first link holds the cache salt. */
static void block_key(const vl_request *r, int j, const vl_kv_key *before, vl_kv_key *out) {
    vl_sha256 h;
    vl_sha256_init(&h);
    if (j == 0) vl_sha256_add(&h, &r->salt, sizeof r->salt);
    else vl_sha256_add(&h, before->h, sizeof before->h);
    for (int row = j * VL_KV_BLOCK; row < (j + 1) * VL_KV_BLOCK; row++) {
        vl_sha256_add(&h, &r->ids[row], sizeof *r->ids);
        const vl_span *sp = row < r->n_prompt ? span_of(r, row) : NULL;
        if (!sp || sp->h == 0) continue;
        int32_t inside = row - sp->at;
        vl_sha256_add(&h, r->pictures[sp->picture]->info.digest, 32);
        vl_sha256_add(&h, &inside, sizeof inside);
    }
    vl_sha256_end(&h, out->h);
}

/* Takes over the cached blocks of the longest known prefix. The last prompt row is always computed,
 * since its logits are needed. */
static void reuse_prefix(vl_request *r) {
    vl_session *s = r->s;
    vl_kv_key key;
    while (s->p.prefix_cache && !s->trace && (r->n_keyed + 1) * VL_KV_BLOCK < r->n_prompt) {
        block_key(r, r->n_keyed, &r->chain, &key);
        int block = vl_kv_find(s->kv, &key);
        if (block < 0) break;
        r->blocks[r->n_keyed++] = block;
        r->chain = key;
    }
    r->n_blocks = r->n_keyed;
    r->in_kv = r->n_keyed * VL_KV_BLOCK;
}

/* Pictures whose rows all came from the cache need no features. */
static void drop_cached_pictures(vl_request *r) {
    r->state = VL_PREFILL;
    for (size_t i = 0; i < r->n_spans; i++) {
        const vl_span *sp = &r->spans[i];
        if (sp->h == 0) continue;
        vl_encoded **e = &r->encoded[sp->picture];
        if (sp->at + sp->n <= r->in_kv || (*e)->ready) r->timings.cached_pictures++;
        if (sp->at + sp->n <= r->in_kv) {
            vl_encoded_put(r->s, *e);
            *e = NULL;
        } else if (!(*e)->ready) {
            r->state = VL_ENCODING;
        }
    }
}

static bool admit(vl_request *r) {
    vl_session *s = r->s;
    int slot = 0, need = blocks_for(r->n_prompt + r->max_tokens);
    while (slot < s->p.max_requests && s->slot[slot]) slot++;
    if (slot == s->p.max_requests) return false;
    reuse_prefix(r);
    if (need - r->n_blocks > vl_kv_available(s->kv)) {
        vl_release_rows(r);
        return false;
    }
    s->stats.prefix_hit_tokens += r->in_kv;
    s->stats.prefix_miss_tokens += r->n_prompt - r->in_kv;
    r->timings.cached_tokens = r->in_kv;
    while (r->n_blocks < need) r->blocks[r->n_blocks++] = vl_kv_take(s->kv);
    int32_t *table = vl_decoder_table(s->decoder, slot);
    memcpy(table, r->blocks, (size_t)need * sizeof *table);
    s->slot[slot] = r;
    r->slot = slot;
    drop_cached_pictures(r);
    vl_trace_begin(r);
    return true;
}

void vl_admit(vl_session *s) {
    for (vl_request *r = s->first; r; r = r->next)
        if (r->state == VL_WAITING && !admit(r)) return; /* first come, first served */
}

void vl_release_rows(vl_request *r) {
    for (int i = 0; i < r->n_blocks; i++) vl_kv_drop(r->s->kv, r->blocks[i]);
    if (r->slot >= 0) r->s->slot[r->slot] = NULL;
    r->n_blocks = r->n_keyed = r->in_kv = 0;
    r->slot = -1;
}

/* Row `row` of request r becomes row T of the pass. */
static void add_row(vl_request *r, int row) {
    vl_session *s = r->s;
    vl_batch *b = vl_decoder_batch(s->decoder);
    const vl_text_config *c = &s->m->config.text;
    int t = b->T++;
    const vl_span *sp = row < r->n_prompt ? span_of(r, row) : NULL;
    bool picture = sp && sp->h;
    int32_t answer = r->next_position + row - r->n_prompt, thw[3] = {answer, answer, answer};
    for (int k = 0; sp && k < 3; k++) thw[k] = r->positions[k * r->n_prompt + row];
    vl_mrope_row(c, &s->rope, thw, b->cos + (size_t)t * (size_t)c->E / 2,
                 b->sin + (size_t)t * (size_t)c->E / 2);
    b->ids[t] = picture ? -1 : r->ids[row];
    b->kv_slot[t] = r->blocks[row / VL_KV_BLOCK] * VL_KV_BLOCK + row % VL_KV_BLOCK;
    b->row_seq[t] = r->slot;
    b->row_len[t] = row + 1;
    b->src[t] = picture ? row - sp->at : 0;
    if (!picture) return;
    const vl_features *f = &r->encoded[sp->picture]->features;
    vl_image_run *run = b->n_runs ? &b->runs[b->n_runs - 1] : NULL;
    if (run && run->features == f && run->at + run->n == t && run->from + run->n == b->src[t]) run->n++;
    else b->runs[b->n_runs++] = (vl_image_run){f, t, 1, b->src[t]};
}

/* Rows of r after those in the cache; from the last token on, their logits are wanted. */
static void add_rows(vl_request *r, int n) {
    vl_batch *b = vl_decoder_batch(r->s->decoder);
    for (int i = 0; i < n; i++) {
        add_row(r, r->in_kv + i);
        if (r->in_kv + i + 1 < r->n) continue;
        r->s->asked[b->n_want] = r;
        b->want[b->n_want++] = b->T - 1;
    }
    r->in_pass = n;
}

int vl_fill_batch(vl_session *s) {
    vl_batch *b = vl_decoder_batch(s->decoder);
    int prompts = 0, ahead = s->p.speculate + 1;
    b->T = b->n_runs = b->n_want = 0;
    for (vl_request *r = s->first; r; r = r->next) {
        r->in_pass = r->n_draft = 0;
        prompts += r->state == VL_PREFILL;
        ahead -= r->state == VL_DECODE;
    }
    if (prompts) ahead = 0; /* those rows are bound by arithmetic: drafts would not be free */
    for (vl_request *r = s->first; r; r = r->next) {
        if (r->state != VL_DECODE) continue;
        int drafts = vl_draft(r, ahead);
        ahead -= drafts;
        add_rows(r, 1 + drafts);
    }
    for (vl_request *r = s->first; r && prompts; r = r->next) {
        if (r->state != VL_PREFILL) continue;
        int room = s->p.max_rows - b->T, share = (room + prompts - 1) / prompts, left = r->n - r->in_kv;
        prompts--;
        if (share > 0) add_rows(r, left < share ? left : share);
    }
    return b->T;
}

void vl_rows_kept(vl_request *r, int n) {
    r->in_kv += n;
    while (r->s->p.prefix_cache && (r->n_keyed + 1) * VL_KV_BLOCK <= r->in_kv) {
        vl_kv_key key;
        block_key(r, r->n_keyed, &r->chain, &key);
        vl_kv_set_key(r->s->kv, r->blocks[r->n_keyed++], &key);
        r->chain = key;
    }
}

void vl_batch_done(vl_session *s, double seconds) {
    s->stats.passes++;
    for (vl_request *r = s->first; r; r = r->next) {
        if (!r->in_pass) continue;
        vl_rows_kept(r, r->in_pass - r->n_draft); /* drafts: once they are found to be right */
        if (r->state == VL_DECODE) {
            r->timings.decode_s += seconds;
            r->timings.decoded_tokens++;
            continue;
        }
        vl_event ev = {.kind = VL_EV_PREFILL, .done = r->in_kv, .total = r->n_prompt};
        r->timings.prefill_s += seconds;
        r->timings.prefill_tokens += r->in_pass;
        if (r->in_kv == r->n_prompt) {
            r->state = VL_DECODE;
            vl_trace_prompt_done(r);
        }
        vl_emit(r, &ev);
    }
}
