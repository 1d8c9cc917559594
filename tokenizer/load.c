/* load.c: a tokenizer from a checkpoint's files.
 *
 *   tokenizer.json                 normalizer, pre_tokenizer, model {vocab, merges}, added_tokens
 *   vocab.json + merges.txt        where there is no tokenizer.json: Qwen2's rules or GPT-2's
 *   tokenizer_config.json          added_tokens_decoder: added tokens the first files lack
 *
 * The vocabulary and the merges are read by scan.h, the rest by Jansson. A setting that would
 * change the ids and is not implemented is an error that names it, never ignored.
 *
 * Easy to get wrong: ids may leave gaps, and an added token may repeat an entry of the vocabulary.
 * An added token keeps the id the file gives it: the rows of the embedding are numbered by it (HF
 * tokenizers 0.23 renumbers added tokens that do not follow the vocabulary without a gap).
 */
#include <stdio.h>
#include <stdlib.h>

#include "loader/json.h"
#include "tokenizer/internal.h"
#include "tokenizer/rules.h"

enum { MAX_FILE = 128 << 20, MAX_MERGES = 1 << 23 };

enum { ALL, VOCAB, MERGES, CONFIG, N_FILES };
static const char *const NAMES[] = {"tokenizer.json", "vocab.json", "merges.txt",
                                    "tokenizer_config.json"};

/* Everything collected from the files before the tables are built. The strings of `vocab` lie in
 * `files`, those of `added` in `json` and `config`. */
typedef struct source {
    char path[N_FILES][4096];
    const char *what;          /* the file being read, for messages                    */
    vl_err *err;
    vl_vocab vocab;
    size_t cap_entries, cap_pairs;
    vl_added *added;
    size_t n_added, cap_added;
    char *files[2];
    json_t *json, *config;     /* tokenizer.json without vocab and merges; tokenizer_config.json */
    vl_rules rules;
} source;

/* ---- vocabulary and merges ------------------------------------------------------------------ */

static int long_token(const source *s, vl_str t) {
    if (t.n <= VL_MAX_TOKEN_BYTES) return 0;
    return vl_fail(s->err, VL_E_LIMIT, "%s: a token of %zu bytes, the limit is %d", s->what, t.n,
                   VL_MAX_TOKEN_BYTES);
}

static int add_entry(source *s, vl_vocab_entry e) {
    vl_vocab *v = &s->vocab;
    if (long_token(s, e.text) < 0) return -1;
    vl_vocab_entry *to = vl_grow(v->entries, &s->cap_entries, v->n_entries + 1, sizeof e, s->err);
    if (!to) return -1;
    v->entries = to;
    v->entries[v->n_entries++] = e;
    return 0;
}

/* left and right as the file spells them; both lie in writable text. */
static int add_pair(source *s, vl_str left, vl_str right) {
    vl_vocab *v = &s->vocab;
    if (v->n_pairs == MAX_MERGES)
        return vl_fail(s->err, VL_E_LIMIT, "%s: over %d merges", s->what, MAX_MERGES);
    if (!left.n || !right.n)
        return vl_fail(s->err, VL_E_MODEL, "%s: merge %zu is not two tokens", s->what, v->n_pairs);
    if (long_token(s, left) < 0 || long_token(s, right) < 0) return -1;
    if (!vl_bytes_of_token(&left, (char *)left.s) || !vl_bytes_of_token(&right, (char *)right.s))
        return vl_fail(s->err, VL_E_MODEL, "%s: merge %zu is not spelled in the byte alphabet",
                       s->what, v->n_pairs);
    vl_vocab_pair *to = vl_grow(v->pairs, &s->cap_pairs, v->n_pairs + 1, sizeof *to, s->err);
    if (!to) return -1;
    v->pairs = to;
    v->pairs[v->n_pairs++] = (vl_vocab_pair){left, right};
    return 0;
}

/* "left right" */
static int add_pair_text(source *s, vl_str t) {
    const char *space = memchr(t.s, ' ', t.n);
    size_t n = space ? (size_t)(space - t.s) : t.n;
    vl_str right = {t.s + n + 1, space ? t.n - n - 1 : 0};
    if (right.n && memchr(right.s, ' ', right.n)) right.n = 0;
    return add_pair(s, (vl_str){t.s, n}, right);
}

static int read_vocab(source *s, vl_scan *in) {
    size_t n = 0;
    int more;
    if (vl_scan_expect(in, '{') < 0) return -1;
    while ((more = vl_scan_more(in, '}', &n)) > 0) {
        vl_vocab_entry e = {0};
        if (vl_scan_key(in, &e.text) < 0 || vl_scan_id(in, VL_MAX_ID - 1, &e.id) < 0) return -1;
        e.kind = vl_bytes_of_token(&e.text, (char *)e.text.s) ? VL_BYTES : VL_OUTSIDE;
        if (add_entry(s, e) < 0) return -1;
    }
    return more;
}

static int read_merges(source *s, vl_scan *in) {
    size_t n = 0;
    int more;
    if (vl_scan_expect(in, '[') < 0) return -1;
    while ((more = vl_scan_more(in, ']', &n)) > 0) {
        vl_str left, right;
        if (vl_scan_peek(in) == '"') {
            if (vl_scan_string(in, &left) < 0 || add_pair_text(s, left) < 0) return -1;
        } else if (vl_scan_expect(in, '[') < 0 || vl_scan_string(in, &left) < 0 ||
                   vl_scan_expect(in, ',') < 0 || vl_scan_string(in, &right) < 0 ||
                   vl_scan_expect(in, ']') < 0 || add_pair(s, left, right) < 0) {
            return -1;
        }
    }
    return more;
}

static int read_merges_txt(source *s, char *text, size_t len) {
    for (char *line = text, *end = text + len; line < end;) {
        char *nl = memchr(line, '\n', (size_t)(end - line)), *stop = nl ? nl : end;
        size_t n = (size_t)(stop - line);
        if (n && line[n - 1] == '\r') n--;
        bool comment = n >= 8 && memcmp(line, "#version", 8) == 0;
        if (n && !comment && add_pair_text(s, (vl_str){line, n}) < 0) return -1;
        line = stop + 1;
    }
    return 0;
}

/* ---- added tokens --------------------------------------------------------------------------- */

/* One added token; id comes from the entry itself, or (tokenizer_config.json) from its key. */
static int add_added(source *s, const json_t *o, int64_t id) {
    vl_added a = {0};
    const char *text;
    if (!json_is_object(o))
        return vl_fail(s->err, VL_E_MODEL, "%s: an added token is not an object", s->what);
    if (vl_json_str(o, s->what, "content", "", &text, s->err) < 0 ||
        vl_json_int(o, s->what, "id", 0, VL_MAX_ID - 1, id, &id, s->err) < 0 ||
        vl_json_bool(o, s->what, "special", false, &a.special, s->err) < 0 ||
        vl_json_bool(o, s->what, "normalized", !a.special, &a.normalized, s->err) < 0 ||
        vl_json_bool(o, s->what, "single_word", false, &a.single_word, s->err) < 0 ||
        vl_json_bool(o, s->what, "lstrip", false, &a.lstrip, s->err) < 0 ||
        vl_json_bool(o, s->what, "rstrip", false, &a.rstrip, s->err) < 0)
        return -1;
    a.text = (vl_str){text, strlen(text)};
    a.id = (int32_t)id;
    if (!a.text.n || a.text.n > VL_MAX_ADDED_BYTES || id < 0 || s->n_added == VL_MAX_ADDED)
        return vl_fail(s->err, VL_E_MODEL, "%s: added token %zu: expected an id, a text of 1 to %d "
                       "bytes and at most %d tokens", s->what, s->n_added, VL_MAX_ADDED_BYTES,
                       VL_MAX_ADDED);
    vl_added *to = vl_grow(s->added, &s->cap_added, s->n_added + 1, sizeof a, s->err);
    if (!to) return -1;
    s->added = to;
    s->added[s->n_added++] = a;
    return 0;
}

static int read_added_list(source *s, const json_t *list) {
    if (list && !json_is_array(list) && !json_is_null(list))
        return vl_fail(s->err, VL_E_MODEL, "%s: added_tokens is not a list", s->what);
    for (size_t i = 0; i < json_array_size(list); i++)
        if (add_added(s, json_array_get(list, i), -1) < 0) return -1;
    return 0;
}

/* {"151643": {"content": ...}, ...} */
static int read_added_map(source *s, json_t *map) {
    const char *key;
    json_t *o;
    json_object_foreach(map, key, o) {
        char *end;
        long id = strtol(key, &end, 10);
        if (end == key || *end || id < 0 || id >= VL_MAX_ID)
            return vl_fail(s->err, VL_E_MODEL, "%s: added_tokens_decoder: \"%.32s\" is not an id",
                           s->what, key);
        if (add_added(s, o, id) < 0) return -1;
    }
    return 0;
}

/* ---- the files ------------------------------------------------------------------------------ */

static bool is(vl_str s, const char *word) {
    return s.n == strlen(word) && memcmp(s.s, word, s.n) == 0;
}

/* Where the values of model.vocab and model.merges lie in the text. */
static int find_sections(vl_scan *in, vl_str *vocab, vl_str *merges) {
    size_t n = 0, m = 0;
    int more, inner = 0;
    vl_str key;
    if (vl_scan_expect(in, '{') < 0) return -1;
    while ((more = vl_scan_more(in, '}', &n)) > 0) {
        if (vl_scan_skip(in, &key) < 0 || vl_scan_expect(in, ':') < 0) return -1;
        if (!is(key, "\"model\"") || vl_scan_peek(in) != '{') {
            if (vl_scan_skip(in, NULL) < 0) return -1;
            continue;
        }
        vl_scan_expect(in, '{');
        while ((inner = vl_scan_more(in, '}', &m)) > 0) {
            vl_str value;
            if (vl_scan_skip(in, &key) < 0 || vl_scan_expect(in, ':') < 0 ||
                vl_scan_skip(in, &value) < 0)
                return -1;
            if (is(key, "\"vocab\"")) *vocab = value;
            if (is(key, "\"merges\"")) *merges = value;
        }
        if (inner < 0) return -1;
    }
    return more;
}

/* Jansson's tree of text[0..len) with null in place of the two sections. */
static json_t *parse_rest(source *s, const char *text, size_t len, vl_str a, vl_str b) {
    vl_buffer rest = {0};
    if (a.s > b.s) {
        vl_str t = a;
        a = b;
        b = t;
    }
    const char *end = text + len;
    bool ok = vl_buffer_add(&rest, text, (size_t)(a.s - text), s->err) == 0 &&
              vl_buffer_add(&rest, "null", 4, s->err) == 0 &&
              vl_buffer_add(&rest, a.s + a.n, (size_t)(b.s - a.s) - a.n, s->err) == 0 &&
              vl_buffer_add(&rest, "null", 4, s->err) == 0 &&
              vl_buffer_add(&rest, b.s + b.n, (size_t)(end - b.s) - b.n, s->err) == 0;
    json_t *root = ok ? vl_json_parse(rest.s, rest.n, s->what, s->err) : NULL;
    free(rest.s);
    return root;
}

static vl_scan scan_of(const source *s, char *text, size_t len) {
    return (vl_scan){text, text, text + len, s->what, s->err};
}

static int read_tokenizer_json(source *s, const char *path) {
    size_t len;
    vl_str vocab = {0}, merges = {0};
    s->what = path;
    if (vl_read_file(path, MAX_FILE, &s->files[0], &len, s->err) < 0) return -1;
    vl_scan in = scan_of(s, s->files[0], len);
    if (find_sections(&in, &vocab, &merges) < 0) return -1;
    if (!vocab.s || !merges.s)
        return vl_fail(s->err, VL_E_MODEL, "%s: no model.%s", path, vocab.s ? "merges" : "vocab");
    if (!(s->json = parse_rest(s, s->files[0], len, vocab, merges)) ||
        vl_rules_read(&s->rules, s->json, path, s->err) < 0)
        return -1;
    in = scan_of(s, (char *)vocab.s, vocab.n);
    if (read_vocab(s, &in) < 0) return -1;
    in = scan_of(s, (char *)merges.s, merges.n);
    if (read_merges(s, &in) < 0) return -1;
    return read_added_list(s, json_object_get(s->json, "added_tokens"));
}

static int read_vocab_json(source *s, const char *vocab_path, const char *merges_path) {
    size_t len;
    s->what = vocab_path;
    if (vl_read_file(vocab_path, MAX_FILE, &s->files[0], &len, s->err) < 0) return -1;
    vl_scan in = scan_of(s, s->files[0], len);
    if (read_vocab(s, &in) < 0) return -1;
    if (vl_scan_peek(&in) != 0)
        return vl_fail(s->err, VL_E_MODEL, "%s: more text after the vocabulary", vocab_path);
    s->what = merges_path;
    if (vl_read_file(merges_path, MAX_FILE, &s->files[1], &len, s->err) < 0) return -1;
    return read_merges_txt(s, s->files[1], len);
}

/* tokenizer_config.json: more added tokens and, without a tokenizer.json, the class. */
static int read_config(source *s, const char *path, bool need_class) {
    const char *name = "Qwen2Tokenizer";
    if (vl_file_exists(path)) {
        s->what = path;
        if (!(s->config = vl_json_load(path, MAX_FILE, s->err)) ||
            read_added_map(s, json_object_get(s->config, "added_tokens_decoder")) < 0 ||
            vl_json_str(s->config, path, "tokenizer_class", name, &name, s->err) < 0)
            return -1;
    }
    return need_class ? vl_rules_of_class(&s->rules, name, path, s->err) : 0;
}

static int read_files(source *s, const char *dir) {
    char (*path)[4096] = s->path;
    for (int i = 0; i < N_FILES; i++)
        if (snprintf(path[i], sizeof path[i], "%s/%s", dir, NAMES[i]) >= (int)sizeof path[i])
            return vl_fail(s->err, VL_E_IO, "%.64s...: path too long", dir);
    bool all = vl_file_exists(path[ALL]);
    if (!all && !(vl_file_exists(path[VOCAB]) && vl_file_exists(path[MERGES])))
        return vl_fail(s->err, VL_E_IO, "%s: no tokenizer.json, and no vocab.json with merges.txt",
                       dir);
    if (all ? read_tokenizer_json(s, path[ALL]) < 0
            : read_vocab_json(s, path[VOCAB], path[MERGES]) < 0)
        return -1;
    return read_config(s, path[CONFIG], !all);
}

/* ---- building ------------------------------------------------------------------------------- */

/* Sorts the added tokens, drops what two files say alike and appends them to the vocabulary. */
static int join_added(source *s) {
    size_t kept = 0;
    if (s->n_added) qsort(s->added, s->n_added, sizeof *s->added, vl_added_order);
    for (size_t i = 0; i < s->n_added; i++) {
        vl_added *a = &s->added[i], *last = kept ? &s->added[kept - 1] : NULL;
        if (last && vl_added_order(last, a) == 0) {
            if (last->id == a->id) continue;
            return vl_fail(s->err, VL_E_MODEL, "%s: added token \"%.*s\" has two ids, %d and %d",
                           s->what, a->text.n > 64 ? 64 : (int)a->text.n, a->text.s, last->id,
                           a->id);
        }
        s->added[kept++] = *a;
        if (add_entry(s, (vl_vocab_entry){a->text, a->id, VL_ADDED}) < 0) return -1;
    }
    s->n_added = kept;
    return 0;
}

/* HF looks for a normalized token's NFC; only tokens that are their own NFC are taken. */
static int check_normalized(const source *s, const vl_added *a) {
    vl_buffer nfc = {0};
    if (!a->normalized || !s->rules.nfc) return 0;
    int rc = vl_nfc(&nfc, a->text.s, a->text.n, s->err);
    if (rc == 0 && (nfc.n != a->text.n || memcmp(nfc.s, a->text.s, nfc.n) != 0))
        rc = vl_fail(s->err, VL_E_MODEL, "%s: the normalized added token with id %d is not NFC",
                     s->what, a->id);
    free(nfc.s);
    return rc;
}

static int build(vl_tokenizer *t, source *s) {
    if (join_added(s) < 0) return -1;
    s->vocab.ignore_merges = s->rules.ignore_merges;
    if (vl_bpe_build(&t->bpe, &s->vocab, s->what, s->err) < 0) return -1;
    t->split = s->rules.split;
    s->rules.split = (vl_split){0};
    t->nfc = s->rules.nfc;
    t->special = vl_calloc((size_t)t->bpe.size, 1);
    if (!t->special) return vl_fail(s->err, VL_E_NOMEM, "%s: no memory", s->what);
    for (size_t i = 0; i < s->n_added; i++) {
        vl_added a = s->added[i];
        if (check_normalized(s, &a) < 0) return -1;
        a.text.s = t->bpe.text + t->bpe.pieces[a.id].at;
        t->special[a.id] = a.special;
        if (vl_added_push(&t->added[a.normalized], &a, s->err) < 0) return -1;
    }
    vl_added_sort(&t->added[0]);
    vl_added_sort(&t->added[1]);
    return 0;
}

int vl_tokenizer_open(vl_tokenizer **out, const char *dir, vl_err *err) {
    source s = {.what = dir, .err = err};
    vl_tokenizer *t = *out = NULL;
    int rc = read_files(&s, dir);
    if (rc == 0 && !(t = vl_calloc(1, sizeof *t)))
        rc = vl_fail(err, VL_E_NOMEM, "%s: no memory", dir);
    if (rc == 0) rc = build(t, &s);
    if (rc == 0) *out = t;
    else vl_tokenizer_free(t);
    vl_split_clear(&s.rules.split);
    free(s.vocab.entries);
    free(s.vocab.pairs);
    free(s.added);
    free(s.files[0]);
    free(s.files[1]);
    json_decref(s.json);
    json_decref(s.config);
    return rc;
}
