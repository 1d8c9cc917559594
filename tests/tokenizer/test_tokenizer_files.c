/* test_tokenizer_files.c: broken, hostile and unusual tokenizer files. Each is refused with a
 * message that names what is wrong, or read as HF reads it; none crashes, hangs or eats memory. */
#include "tests/test.h"
#include "tests/tokenizer/small.h"
#include "tokenizer/template.h"

static char tmp[] = "/tmp/vl-tokfiles-XXXXXX";

static void refused(const char *name, int rc, vl_tokenizer *t, const vl_err *err,
                    const char *word) {
    CHECK(rc == -1 && t == NULL, "%s: taken", name);
    CHECK(rc == 0 || strstr(err->msg, word), "%s: expected \"%s\" in \"%s\"", name, word, err->msg);
    vl_tokenizer_free(t);
}

#define SPLIT(body) "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\"," body "}," \
                    "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}]}"

static void fragments(void) {
    static const struct { const char *name; small s; const char *word; } BAD[] = {
        {"id twice", {.vocab = ",\"ab\":97"}, "97 is given to two tokens"},
        {"id of an added token twice", {.added = "[" SMALL_TOKEN(97, "<x>", "") "]"}, "97"},
        {"token twice", {.vocab = SMALL_VOCAB ",\"ab\":259000"}, "two ids"},
        {"added token of the vocabulary with another id",
         {.added = "[" SMALL_TOKEN(300, "ab", "") "]"}, "two ids"},
        {"added token twice",
         {.added = "[" SMALL_TOKEN(300, "<x>", "") "," SMALL_TOKEN(301, "<x>", "") "]"}, "two ids"},
        {"negative id", {.vocab = ",\"ab\":-1"}, "whole number"},
        {"fraction", {.vocab = ",\"ab\":256.5"}, "whole number"},
        {"exponent", {.vocab = ",\"ab\":1e9"}, "whole number"},
        {"huge id", {.vocab = ",\"ab\":99999999999999999999"}, "whole number"},
        {"large id", {.vocab = ",\"ab\":4194304"}, "whole number"},
        {"id as text", {.vocab = ",\"ab\":\"256\""}, "whole number"},
        {"empty token", {.vocab = ",\"\":256"}, "empty"},
        {"empty added token", {.added = "[" SMALL_TOKEN(300, "", "") "]"}, "added token 0"},
        {"added token without id", {.added = "[{\"content\":\"<x>\"}]"}, "added token 0"},
        {"added token of a wrong type", {.added = "[7]"}, "not an object"},
        {"added token with a number for text", {.added = "[{\"id\":300,\"content\":1}]"},
         "content"},
        {"added token flag", {.added = "[" SMALL_TOKEN(300, "<x>", ",\"lstrip\":1") "]"}, "lstrip"},
        {"added tokens not a list", {.added = "{}"}, "added_tokens"},
        {"added token that NFC changes",
         {.added = "[{\"id\":300,\"content\":\"e\\u0301\",\"normalized\":true}]"}, "NFC"},
        {"half a surrogate in a token", {.vocab = ",\"\\ud83d\":256"}, "surrogate"},
        {"reversed surrogates", {.vocab = ",\"\\ude00\\ud83d\":256"}, "surrogate"},
        {"high half twice", {.vocab = ",\"\\ud83d\\ud83d\":256"}, "surrogate"},
        {"half a surrogate in an added token",
         {.added = "[" SMALL_TOKEN(300, "\\ud83d", "") "]"}, "Unicode"},
        {"NUL in a token", {.vocab = ",\"\\u0000\":256"}, "u0000"},
        {"bad escape", {.vocab = ",\"\\x\":256"}, "escape"},
        {"short escape", {.vocab = ",\"\\u12\":256"}, "hex digits"},
        {"control character", {.vocab = ",\"a\nb\":256"}, "control character"},
        {"merge of an unknown token", {.merges = "[\"a zz\"]"}, "\"zz\", which is not in"},
        {"merge to an unknown token", {.merges = "[\"b a\"]"}, "\"ba\", which is not in"},
        {"merge outside the alphabet", {.merges = "[\"a \xe4\xbd\xa0\"]"}, "byte alphabet"},
        {"merge of one", {.merges = "[\"ab\"]"}, "merge 0 is not two tokens"},
        {"merge of three", {.merges = "[\"a b\",\"a b c\"]"}, "merge 1 is not two tokens"},
        {"merge with an empty half", {.merges = "[\"a \"]"}, "not two tokens"},
        {"merge list of three", {.merges = "[[\"a\",\"b\",\"c\"]]"}, "expected ']'"},
        {"merge of numbers", {.merges = "[[1,2]]"}, "expected '\"'"},
        {"merges not a list", {.merges = "{}"}, "expected '['"},
        {"merges null", {.merges = "null"}, "expected '['"},
        {"comma missing", {.merges = "[\"a b\" \"ab c\"]"}, "expected ','"},
        {"normalizer", {.normalizer = "{\"type\":\"NFKC\"}"}, "normalizer NFKC"},
        {"normalizer of a wrong type", {.normalizer = "7"}, "object"},
        {"pre-tokenizer", {.pre = "{\"type\":\"Metaspace\"}"}, "Metaspace"},
        {"prefix space", {.pre = "{\"type\":\"ByteLevel\"}"}, "add_prefix_space"},
        {"no pre-tokenizer", {.pre = "null"}, "ByteLevel"},
        {"behavior", {.pre = SPLIT("\"pattern\":{\"Regex\":\"a\"},\"behavior\":\"Removed\"")},
         "Removed"},
        {"inverted", {.pre = SPLIT("\"pattern\":{\"Regex\":\"a\"},\"behavior\":\"Isolated\","
                                   "\"invert\":true")}, "invert"},
        {"pattern", {.pre = SPLIT("\"pattern\":{\"Regex\":\"(a\"},\"behavior\":\"Isolated\"")},
         "pattern, character 2"},
        {"byte-wise pattern",
         {.pre = SPLIT("\"pattern\":{\"Regex\":\"\\\\C\"},\"behavior\":\"Isolated\"")}, "\\C"},
        {"pattern as text", {.pre = SPLIT("\"pattern\":{\"String\":\"a\"},\"behavior\":"
                                          "\"Isolated\"")}, "pattern.Regex"},
        {"Split after ByteLevel",
         {.pre = "{\"type\":\"Sequence\",\"pretokenizers\":[" SMALL_PRE ",{\"type\":\"Split\"}]}"},
         "after ByteLevel"},
        {"Sequence without a list", {.pre = "{\"type\":\"Sequence\"}"}, "Sequence"},
        {"model type", {.model = ",\"type\":\"Unigram\""}, "duplicate"},
        {"byte fallback", {.model = ",\"byte_fallback\":true"}, "byte_fallback"},
        {"dropout", {.model = ",\"dropout\":0.1"}, "dropout"},
        {"suffix", {.model = ",\"end_of_word_suffix\":\"</w>\""}, "end_of_word_suffix"},
        {"post-processor", {.top = ",\"post_processor\":{\"type\":\"TemplateProcessing\"}"},
         "TemplateProcessing"},
        {"two models", {.top = ",\"model\":{}"}, "duplicate"},
    };
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
        vl_tokenizer *t;
        vl_err err = {0};
        int rc = small_open(&t, tmp, &BAD[i].s, &err);
        refused(BAD[i].name, rc, t, &err, BAD[i].word);
    }
}

static void unusual(void) {
    static const struct { const char *name; small s; } GOOD[] = {
        {"as it is", {0}},
        {"merges as lists", {.merges = "[[\"a\",\"b\"],[\"ab\",\"c\"],[\"\xc4\xa0\",\"a\"],"
                                       "[ \"a\" , \"a\" ]]"}},
        {"escaped spelling", {.vocab = ",\"\\u0061b\":256,\"abc\":257,\"\\u0120a\":258,"
                                       "\"\\u0061\\u0061\":259"}},
        {"a token outside the alphabet", {.vocab = SMALL_VOCAB ",\"\xe4\xbd\xa0\":259000"}},
        {"a surrogate pair", {.vocab = SMALL_VOCAB ",\"\\ud83d\\ude00\":259000"}},
        {"a gap", {.vocab = SMALL_VOCAB ",\"bc\":4194303"}},
        {"other keys", {.top = ",\"truncation\":{\"max_length\":2},\"x\":[1,-2.5e3,{},[],true]"}},
        {"an added token of the vocabulary",
         {.added = "[" SMALL_TOKEN(260, "<x>", "") "," SMALL_TOKEN(259, "aa", "") "]"}},
        {"an added token said twice",
         {.added = "[" SMALL_TOKEN(260, "<x>", "") "," SMALL_TOKEN(260, "<x>", "") "]"}},
        {"a merge said twice", {.merges = "[\"a b\",\"ab c\",\"\xc4\xa0 a\",\"a a\",\"a b\"]"}},
    };
    for (size_t i = 0; i < sizeof GOOD / sizeof *GOOD; i++) {
        static const int WANT[] = {257, 258, 260, 259};
        vl_tokenizer *t;
        vl_err err = {0};
        vl_ids ids = {0};
        CHECK(small_open(&t, tmp, &GOOD[i].s, &err) == 0, "%s: %s", GOOD[i].name, err.msg);
        if (!t) continue;
        CHECK(vl_tokenizer_encode(t, "abc a<x>aa", 10, true, &ids, &err) == 0, "%s", err.msg);
        CHECK(ids.n == 4 && memcmp(ids.v, WANT, sizeof WANT) == 0, "%s: %zu ids", GOOD[i].name,
              ids.n);
        size_t len = 9;
        CHECK(vl_tokenizer_piece(t, 300, &len) == NULL && len == 0, "%s: id 300", GOOD[i].name);
        CHECK(vl_tokenizer_piece(t, 1 << 29, &len) == NULL, "%s: far id", GOOD[i].name);
        if (strstr(GOOD[i].name, "outside")) {
            const char *p = vl_tokenizer_piece(t, 259000, &len);
            CHECK(len == 3 && strcmp(p, "\xe4\xbd\xa0") == 0, "outside token: %zu bytes", len);
        }
        free(ids.v);
        vl_tokenizer_free(t);
    }
}

/* Whole files: cut, empty, bombs. */
static void write_json(const char *data, size_t n) { small_write(tmp, "tokenizer.json", data, n); }

static void open_refused(const char *name, const char *word) {
    vl_tokenizer *t;
    vl_err err = {0};
    int rc = vl_tokenizer_open(&t, tmp, &err);
    refused(name, rc, t, &err, word);
}

static void bomb(const char *name, const char *head, char fill, size_t n, const char *tail,
                 const char *word) {
    size_t h = strlen(head), e = strlen(tail);
    char *text = malloc(h + n + e);
    memcpy(text, head, h);
    memset(text + h, fill, n);
    memcpy(text + h + n, tail, e);
    write_json(text, h + n + e);
    open_refused(name, word);
    free(text);
}

static void whole_files(void) {
    char *text = small_json(&(small){0});
    size_t n = strlen(text);
    for (size_t cut = 0; cut < n; cut += cut < 64 || n - cut < 64 ? 1 : 37) {
        vl_tokenizer *t;
        vl_err err = {0};
        write_json(text, cut);
        CHECK(vl_tokenizer_open(&t, tmp, &err) == -1 && *err.msg, "cut at %zu is taken", cut);
        vl_tokenizer_free(t);
    }
    free(text);
    bomb("deep lists", "{\"x\":", '[', 100000, "", "deeper");
    bomb("deep objects in the model", "{\"model\":{\"x\":", '[', 3000000, "", "deeper");
    bomb("deep vocabulary", "{\"model\":{\"vocab\":{\"a\":", '[', 100000, "", "deeper");
    bomb("a long token", "{\"model\":{\"type\":\"BPE\",\"merges\":[],\"vocab\":{\"", 'a', 20000,
         "\":1}},\"pre_tokenizer\":" SMALL_PRE "}", "a token of 20000 bytes");
    bomb("an open string of 64 MB", "{\"model\":{\"vocab\":{\"", 'a', 64 << 20, "",
         "inside a string");
    bomb("over the size limit", "{}", ' ', 129 << 20, "", "limit");
    bomb("not JSON", "GGUF", 0, 100, "", "not valid JSON");
    bomb("text after the file", "{\"model\":{\"vocab\":{},\"merges\":[]}}", 'x', 1, "", "JSON");
    bomb("no vocabulary", "{\"model\":{\"merges\":[]}}", ' ', 1, "", "no model.vocab");
    bomb("no merges", "{\"model\":{\"vocab\":{}}}", ' ', 1, "", "no model.merges");
    bomb("no model", "{\"a\":1}", ' ', 1, "", "no model.vocab");
    bomb("no byte tokens", "{\"model\":{\"vocab\":{\"a\":0},\"merges\":[]},\"pre_tokenizer\":"
         SMALL_PRE "}", ' ', 1, "", "no token for the byte 0x00");
    small_remove(tmp, "tokenizer.json");
    open_refused("an empty folder", "no tokenizer.json");
}

/* A pattern that takes exponential time is stopped while it runs. */
static void slow_pattern(void) {
    vl_tokenizer *t;
    vl_err err = {0};
    vl_ids ids = {0};
    small s = {.pre = SPLIT("\"pattern\":{\"Regex\":\"(a|aa)*[bc]\"},\"behavior\":\"Isolated\"")};
    char text[64];
    memset(text, 'a', sizeof text);
    CHECK(small_open(&t, tmp, &s, &err) == 0, "%s", err.msg);
    if (!t) return;
    CHECK(vl_tokenizer_encode(t, text, sizeof text, false, &ids, &err) == -1 &&
          err.code == VL_E_LIMIT && strstr(err.msg, "pattern") && ids.n == 0,
          "an exponential pattern: %s", err.msg);
    free(ids.v);
    vl_tokenizer_free(t);
}

/* ---- vocab.json + merges.txt, tokenizer_config.json ----------------------------------------- */

static void split_files(void) {
    static const char MERGES[] = "#version: 0.2\na b\r\nab c\n\n\xc4\xa0 a\na a";
    static const char CONFIG[] = "{\"tokenizer_class\":\"Qwen2Tokenizer\",\"added_tokens_decoder\":"
                                 "{\"260\":{\"content\":\"<x>\",\"special\":true}}}";
    static const struct { const char *name, *config, *merges, *word; } BAD[] = {
        {"an unknown class", "{\"tokenizer_class\":\"LlamaTokenizer\"}", MERGES, "LlamaTokenizer"},
        {"an added token without a number",
         "{\"added_tokens_decoder\":{\"x\":{\"content\":\"<x>\"}}}", MERGES, "not an id"},
        {"a negative id", "{\"added_tokens_decoder\":{\"-4\":{\"content\":\"<x>\"}}}", MERGES,
         "not an id"},
        {"a configuration that is no JSON", "{", MERGES, "tokenizer_config.json"},
        {"a merge of an unknown token", CONFIG, "a zz", "\"zz\", which is not in"},
        {"a merge of one", CONFIG, "a b\nabc\n", "merge 1 is not two"},
    };
    char *bytes = small_bytes(), *vocab = malloc(strlen(bytes) + 256);
    sprintf(vocab, "{%s" SMALL_VOCAB "}", bytes);
    small_remove(tmp, "tokenizer.json");
    small_write(tmp, "vocab.json", vocab, strlen(vocab));
    open_refused("vocab.json alone", "no tokenizer.json");
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
        small_write(tmp, "merges.txt", BAD[i].merges, strlen(BAD[i].merges));
        small_write(tmp, "tokenizer_config.json", BAD[i].config, strlen(BAD[i].config));
        open_refused(BAD[i].name, BAD[i].word);
    }
    small_write(tmp, "merges.txt", MERGES, strlen(MERGES));
    small_write(tmp, "tokenizer_config.json", CONFIG, strlen(CONFIG));
    static const int WANT[] = {257, 258, 260, 259, 49, 50, 195, 169}; /* NFC, digits one by one */
    vl_tokenizer *t;
    vl_err err = {0};
    vl_ids ids = {0};
    CHECK(vl_tokenizer_open(&t, tmp, &err) == 0, "%s", err.msg);
    if (t) {
        CHECK(vl_tokenizer_encode(t, "abc a<x>aa12e\xcc\x81", 15, true, &ids, &err) == 0 &&
              ids.n == 8 && memcmp(ids.v, WANT, sizeof WANT) == 0, "split files: %zu ids", ids.n);
        vl_segments none = {0};
        CHECK(vl_segments_encode(&none, t, &ids, &err) == -1 && strstr(err.msg, "<|im_start|>"),
              "a tokenizer without the template's tokens: %s", err.msg);
    }
    free(ids.v);
    vl_tokenizer_free(t);
    /* the same file beside a tokenizer.json: fills what is missing, must not contradict */
    CHECK(small_open(&t, tmp, &(small){.added = "[]"}, &err) == 0 &&
          vl_tokenizer_id(t, "<x>") == 260, "added tokens of tokenizer_config.json: %s", err.msg);
    vl_tokenizer_free(t);
    int rc = small_open(&t, tmp, &(small){.added = "[" SMALL_TOKEN(270, "<x>", "") "]"}, &err);
    refused("files that contradict each other", rc, t, &err, "two ids");
    static const char *const ALL[] = {"tokenizer.json", "vocab.json", "merges.txt",
                                      "tokenizer_config.json"};
    for (int i = 0; i < 4; i++) small_remove(tmp, ALL[i]);
    free(vocab);
    free(bytes);
}

int main(void) {
    if (!mkdtemp(tmp)) return 2;
    fragments();
    unusual();
    whole_files();
    slow_pattern();
    split_files();
    CHECK(remove(tmp) == 0, "%s left behind", tmp);
    return test_end();
}
