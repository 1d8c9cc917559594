/* rules.c: the small settings of tokenizer.json.
 *
 *   normalizer       null, NFC, or a Sequence of them
 *   pre_tokenizer    ByteLevel, or a Sequence of Split (isolated, by regex) closed by ByteLevel
 *   model            BPE without dropout, prefixes, suffixes and byte fallback
 *   decoder          ByteLevel;  post_processor: null or ByteLevel (which only moves offsets)
 *
 * truncation and padding are left alone, as HF's AutoTokenizer sets them anew for every call.
 */
#include "tokenizer/rules.h"

#include "loader/json.h"

enum { MAX_NESTED = 16 };

typedef struct reader {
    vl_rules *r;
    const char *what;
    vl_err *err;
} reader;

static int refuse(const reader *in, const char *field, const char *found) {
    return vl_fail(in->err, VL_E_MODEL, "%s: %s %.64s is not supported", in->what, field, found);
}

static int type_of(const reader *in, const json_t *o, const char **type) {
    if (!json_is_object(o))
        return vl_fail(in->err, VL_E_MODEL, "%s: expected an object with a type", in->what);
    return vl_json_str(o, in->what, "type", "(none)", type, in->err);
}

/* Calls fn for `o`, or for each of the members of a Sequence. */
static int each(const reader *in, const json_t *o, const char *members, int depth,
                int (*fn)(const reader *, const json_t *, const char *type)) {
    const char *type;
    if (type_of(in, o, &type) < 0) return -1;
    if (strcmp(type, "Sequence") != 0) return fn(in, o, type);
    const json_t *list = json_object_get(o, members);
    if (!json_is_array(list) || depth == MAX_NESTED)
        return vl_fail(in->err, VL_E_MODEL, "%s: a Sequence without a list of %s", in->what,
                       members);
    for (size_t i = 0; i < json_array_size(list); i++)
        if (each(in, json_array_get(list, i), members, depth + 1, fn) < 0) return -1;
    return 0;
}

static int normalizer(const reader *in, const json_t *o, const char *type) {
    (void)o;
    if (strcmp(type, "NFC") != 0) return refuse(in, "normalizer", type);
    in->r->nfc = true;
    return 0;
}

static int split(const reader *in, const json_t *o) {
    const char *behavior, *regex;
    bool invert;
    const json_t *pattern = json_object_get(o, "pattern");
    if (vl_json_str(o, in->what, "behavior", "(none)", &behavior, in->err) < 0 ||
        vl_json_bool(o, in->what, "invert", false, &invert, in->err) < 0 ||
        vl_json_str(pattern, in->what, "Regex", NULL, &regex, in->err) < 0)
        return -1;
    if (strcmp(behavior, "Isolated") != 0) return refuse(in, "Split behavior", behavior);
    if (invert) return refuse(in, "Split", "with invert");
    if (!regex) return refuse(in, "Split", "without pattern.Regex");
    return vl_split_add(&in->r->split, regex, strlen(regex), in->what, in->err);
}

static int byte_level(const reader *in, const json_t *o) {
    bool prefix, regex;
    if (vl_json_bool(o, in->what, "add_prefix_space", true, &prefix, in->err) < 0 ||
        vl_json_bool(o, in->what, "use_regex", true, &regex, in->err) < 0)
        return -1;
    if (prefix) return refuse(in, "ByteLevel", "with add_prefix_space");
    in->r->bytes = true;
    return regex ? vl_split_add(&in->r->split, VL_GPT2_PATTERN, strlen(VL_GPT2_PATTERN), in->what,
                                in->err) : 0;
}

static int pre_tokenizer(const reader *in, const json_t *o, const char *type) {
    if (in->r->bytes) return refuse(in, "a pre_tokenizer after ByteLevel:", type);
    if (strcmp(type, "Split") == 0) return split(in, o);
    if (strcmp(type, "ByteLevel") == 0) return byte_level(in, o);
    return refuse(in, "pre_tokenizer", type);
}

static int only_byte_level(const reader *in, const json_t *o, const char *type) {
    (void)o;
    return strcmp(type, "ByteLevel") == 0 ? 0 : refuse(in, "decoder or post_processor", type);
}

static int model(const reader *in, const json_t *m) {
    const char *type, *prefix, *suffix;
    double dropout;
    bool fallback;
    if (vl_json_str(m, in->what, "type", "BPE", &type, in->err) < 0 ||
        vl_json_str(m, in->what, "continuing_subword_prefix", "", &prefix, in->err) < 0 ||
        vl_json_str(m, in->what, "end_of_word_suffix", "", &suffix, in->err) < 0 ||
        vl_json_num(m, in->what, "dropout", 0, 1, 0, &dropout, in->err) < 0 ||
        vl_json_bool(m, in->what, "byte_fallback", false, &fallback, in->err) < 0 ||
        vl_json_bool(m, in->what, "ignore_merges", false, &in->r->ignore_merges, in->err) < 0)
        return -1;
    if (strcmp(type, "BPE") != 0) return refuse(in, "model type", type);
    if (*prefix) return refuse(in, "continuing_subword_prefix", prefix);
    if (*suffix) return refuse(in, "end_of_word_suffix", suffix);
    if (dropout > 0) return refuse(in, "model", "with dropout");
    return fallback ? refuse(in, "model", "with byte_fallback") : 0;
}

int vl_rules_read(vl_rules *r, const json_t *root, const char *what, vl_err *err) {
    static const struct {
        const char *key, *members;
        int (*fn)(const reader *, const json_t *, const char *type);
    } PARTS[] = {
        {"normalizer", "normalizers", normalizer},
        {"pre_tokenizer", "pretokenizers", pre_tokenizer},
        {"decoder", "decoders", only_byte_level},
        {"post_processor", "processors", only_byte_level},
    };
    *r = (vl_rules){0};
    reader in = {r, what, err};
    const json_t *m = json_object_get(root, "model");
    int rc = json_is_object(m) ? model(&in, m)
                               : vl_fail(err, VL_E_MODEL, "%s: no object \"model\"", what);
    for (size_t i = 0; rc == 0 && i < sizeof PARTS / sizeof *PARTS; i++) {
        const json_t *o = json_object_get(root, PARTS[i].key);
        if (o && !json_is_null(o)) rc = each(&in, o, PARTS[i].members, 0, PARTS[i].fn);
    }
    if (rc == 0 && !r->bytes)
        rc = vl_fail(err, VL_E_MODEL, "%s: no ByteLevel pre_tokenizer: only byte-level BPE is "
                     "supported", what);
    if (rc < 0) vl_split_clear(&r->split);
    return rc;
}

int vl_rules_of_class(vl_rules *r, const char *tokenizer_class, const char *what, vl_err *err) {
    static const struct { const char *name, *pattern; bool nfc; } CLASSES[] = {
        {"Qwen2Tokenizer", VL_QWEN_PATTERN, true}, {"Qwen2TokenizerFast", VL_QWEN_PATTERN, true},
        {"GPT2Tokenizer", VL_GPT2_PATTERN, false}, {"GPT2TokenizerFast", VL_GPT2_PATTERN, false},
    };
    for (size_t i = 0; i < sizeof CLASSES / sizeof *CLASSES; i++)
        if (strcmp(tokenizer_class, CLASSES[i].name) == 0) {
            *r = (vl_rules){.nfc = CLASSES[i].nfc, .bytes = true};
            return vl_split_add(&r->split, CLASSES[i].pattern, strlen(CLASSES[i].pattern), what,
                                err);
        }
    return vl_fail(err, VL_E_MODEL, "%s: the rules of %.64s are known from a tokenizer.json only",
                   what, tokenizer_class);
}
