/* test_tokenizer.c: ids against HF (tests/golden/tokenizer and a table), round trips of any bytes,
 * streaming, threads, and the amount of work on long words. */
#include <dirent.h>
#include <pthread.h>

#include "loader/json.h"
#include "tests/test.h"
#include "tests/tokenizer/small.h"
#include "tokenizer/internal.h"

#define GOLDEN "tests/golden/tokenizer"

static char tmp[] = "/tmp/vl-tokenizer-XXXXXX";

/* The bytes of ids, malloc'd. */
static char *pieces(const vl_tokenizer *t, const vl_ids *ids, size_t *n) {
    char *out = malloc(1);
    *n = 0;
    for (size_t i = 0; i < ids->n; i++) {
        size_t len;
        const char *p = vl_tokenizer_piece(t, ids->v[i], &len);
        out = realloc(out, *n + len + 1);
        if (len) memcpy(out + *n, p, len);
        *n += len;
    }
    return out;
}

static vl_ids encode(const vl_tokenizer *t, const char *text, size_t n, bool special) {
    vl_ids ids = {0};
    vl_err err = {0};
    int rc = vl_tokenizer_encode(t, text, n, special, &ids, &err);
    CHECK(rc == 0, "%s", err.msg);
    return ids;
}

static bool same_ids(const vl_ids *ids, const json_t *want) {
    if (ids->n != json_array_size(want)) return false;
    for (size_t i = 0; i < ids->n; i++)
        if (ids->v[i] != json_integer_value(json_array_get(want, i))) return false;
    return true;
}

/* ---- goldens -------------------------------------------------------------------------------- */

static void golden_row(const vl_tokenizer *t, const char *name, const json_t *row) {
    const char *hex = json_string_value(json_object_get(row, "hex"));
    const json_t *plain = json_object_get(row, "plain"), *special = json_object_get(row, "special");
    char text[4096];
    size_t n = 0;
    for (unsigned c; n < sizeof text && sscanf(hex + 2 * n, "%2x", &c) == 1;) text[n++] = (char)c;
    for (int mode = 0; mode < 2; mode++) {
        vl_ids ids = encode(t, text, n, mode);
        CHECK(same_ids(&ids, mode && special ? special : plain), "%s, %s: %s", name,
              mode ? "special" : "plain", hex);
        free(ids.v);
    }
}

static void goldens(void) {
    size_t rows = 0;
    DIR *d = opendir(GOLDEN);
    for (struct dirent *e; d && (e = readdir(d));) {
        char path[512];
        vl_err err = {0};
        if (!strstr(e->d_name, ".json")) continue;
        snprintf(path, sizeof path, GOLDEN "/%s", e->d_name);
        json_t *o = vl_json_load(path, 16 << 20, &err), *list = json_object_get(o, "rows");
        const char *dir = json_string_value(json_object_get(o, "model"));
        vl_tokenizer *t = NULL;
        CHECK(dir && vl_tokenizer_open(&t, dir, &err) == 0, "%s: %s", path, err.msg);
        for (size_t i = 0; t && i < json_array_size(list); i++, rows++)
            golden_row(t, e->d_name, json_array_get(list, i));
        vl_tokenizer_free(t);
        json_decref(o);
    }
    if (d) closedir(d);
    CHECK(rows >= 500, "only %zu rows in " GOLDEN, rows);
}

/* ---- added tokens: ids from HF tokenizers 0.23 on small.h's file ---------------------------- */

static void added_flags(void) {
    static const struct { const char *text; int nfc[8], raw[8]; } CASES[] = { /* raw {0}: as nfc */
        {"<x>a<x><y>b<x", {260, 97, 261, 98, 60, 120}, {0}},
        {"a  <l>b", {97, 262, 98}, {0}},
        {"<l> <l>", {262, 262}, {0}},
        {"a<r> \n b", {97, 263, 98}, {0}},
        {"a <r>  <l> b", {97, 32, 263, 262, 32, 98}, {0}},
        {"word", {264}, {0}},
        {"words", {119, 111, 114, 100, 115}, {0}},
        {"sword word", {115, 119, 111, 114, 100, 32, 264}, {0}},
        {"word.word wor", {264, 46, 264, 32, 265}, {0}},
        {"_word \u00e9", {95, 119, 111, 114, 100, 32, 195, 169}, {0}},
        {"e\u0301<n>", {195, 169, 266}, {101, 204, 129, 266}},
        {"<n\u0338>", {60, 110, 204, 184, 62}, {0}},
        {"<n>\u0338", {60, 110, 226, 137, 175}, {266, 204, 184}},
        {" <b> <b> ", {267, 267}, {0}},
        {"aaaa aaa abcab", {259, 259, 258, 259, 32, 257, 256}, {0}},
        {"\u3000<l>\u2003x", {262, 226, 128, 131, 120}, {0}},
        {"a\u00a0<b>\u1680" "b", {97, 267, 98}, {0}},
        {"word\u00e9", {119, 111, 114, 100, 195, 169}, {0}},
        {"<l>\u180e<l>", {262, 225, 160, 142, 262}, {0}},
        {"<x><y<x>", {260, 60, 121, 260}, {0}},
    };
    for (int raw = 0; raw < 2; raw++) {
        vl_tokenizer *t;
        vl_err err = {0};
        small s = {.normalizer = raw ? "null" : NULL};
        CHECK(small_open(&t, tmp, &s, &err) == 0, "%s", err.msg);
        if (!t) return;
        for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
            const int *want = raw && CASES[i].raw[0] ? CASES[i].raw : CASES[i].nfc;
            vl_ids ids = encode(t, CASES[i].text, strlen(CASES[i].text), true);
            size_t n = 0;
            while (n < 8 && want[n]) n++;
            bool same = n == ids.n;
            for (size_t k = 0; same && k < n; k++) same = ids.v[k] == want[k];
            CHECK(same, "%s (raw %d): %zu ids, first %d", CASES[i].text, raw, ids.n,
                  ids.n ? ids.v[0] : -1);
            free(ids.v);
        }
        CHECK(vl_tokenizer_size(t) == 268, "size %d", vl_tokenizer_size(t));
        CHECK(vl_tokenizer_is_special(t, 260) && !vl_tokenizer_is_special(t, 266) &&
              !vl_tokenizer_is_special(t, 97) && !vl_tokenizer_is_special(t, -1) &&
              !vl_tokenizer_is_special(t, 1 << 30), "is_special");
        CHECK(vl_tokenizer_id(t, "<x>") == 260 && vl_tokenizer_id(t, " a") == 258 &&
              vl_tokenizer_id(t, "none") == -1, "id");
        vl_tokenizer_free(t);
    }
}

/* Parts are one text: tokens form across their borders, added tokens do not. */
static void parts(void) {
    vl_tokenizer *t;
    vl_err err = {0};
    if (small_open(&t, tmp, &(small){0}, &err) < 0) {
        CHECK(false, "%s", err.msg);
        return;
    }
    vl_part list[] = {{"<x>a", 4, true}, {"b<x>e", 5, false}, {"\xcc\x81<", 3, false},
                      {"x>", 2, true}, {"", 0, true}, {"<", 1, true}, {"x>", 2, true}};
    static const int WANT[] = {260, 256, 60, 120, 62, 195, 169, 60, 120, 62, 260};
    vl_ids ids = {0};
    CHECK(vl_tokenizer_encode_parts(t, list, 7, &ids, &err) == 0, "%s", err.msg);
    bool same = ids.n == sizeof WANT / sizeof *WANT;
    for (size_t i = 0; same && i < ids.n; i++) same = ids.v[i] == WANT[i];
    CHECK(same, "%zu ids", ids.n);
    vl_part huge = {"x", SIZE_MAX, false};
    CHECK(vl_tokenizer_encode_parts(t, &huge, 1, &ids, &err) == -1 && err.code == VL_E_LIMIT &&
          ids.n == sizeof WANT / sizeof *WANT, "a part of SIZE_MAX bytes");
    free(ids.v);
    vl_tokenizer_free(t);
}

/* ---- round trips ---------------------------------------------------------------------------- */

static void round_trip(const vl_tokenizer *t, const char *text, size_t n, const char *what) {
    vl_ids ids = encode(t, text, n, false);
    size_t len;
    char *back = pieces(t, &ids, &len);
    CHECK(len == n && memcmp(back, text, n) == 0, "%s: %zu bytes in, %zu out", what, n, len);
    free(back);
    free(ids.v);
}

static void round_trips(void) {
    vl_tokenizer *raw, *demo;
    vl_err err = {0};
    vl_rng rng;
    char text[512];
    CHECK(small_open(&raw, tmp, &(small){.normalizer = "null"}, &err) == 0, "%s", err.msg);
    CHECK(vl_tokenizer_open(&demo, "models/demo", &err) == 0, "%s", err.msg);
    if (!raw || !demo) return;
    vl_rng_seed(&rng, 5);
    for (int i = 0; i < 3000; i++) {
        size_t n = vl_rng_u64(&rng) % sizeof text;
        for (size_t k = 0; k < n; k++) text[k] = (char)vl_rng_u64(&rng);
        round_trip(raw, text, n, "random bytes");
        /* the demo's NFC leaves everything below U+0300 and every stray byte as it is */
        for (size_t k = 0; k < n; k++)
            if ((text[k] & 0xe0) != 0xc0 && (text[k] & 0xc0) != 0x80) text[k] &= 0x7f;
            else if ((text[k] & 0xe0) == 0xc0) text[k] = (char)(0xc2 + (text[k] & 7));
        round_trip(demo, text, n, "Latin-1 and stray bytes");
    }
    for (int a = 0; a < 256; a++)
        for (int b = 0; b < 256; b += 5) {
            char two[] = {(char)a, (char)b};
            round_trip(raw, two, 2, "two bytes");
        }
    vl_tokenizer_free(raw);
    vl_tokenizer_free(demo);
}

/* NFC of long mark runs and text around stray bytes. */
static void nfc(void) {
    static const struct { const char *in, *out; } CASES[] = {
        {"e\u0301", "\u00e9"}, {"a\u0323\u0301", "\u1ea1\u0301"}, {"a\u0301\u0323", "\u1ea1\u0301"},
        {"\u0344", "\u0308\u0301"}, {"\u1100\u1161\u11a8", "\uac01"}, {"\u212b", "\u00c5"},
        {"e\xff\u0301", "e\xff\u0301"}, {"\xe2\x84", "\xe2\x84"}, {"\u0958", "\u0915\u093c"},
        {"\u0301e", "\u0301e"}, {"", ""},
    };
    vl_err err = {0};
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        vl_buffer b = {0};
        int rc = vl_nfc(&b, CASES[i].in, strlen(CASES[i].in), &err);
        CHECK(rc == 0 && strcmp(b.s ? b.s : "", CASES[i].out) == 0, "%s -> %s", CASES[i].in, b.s);
        free(b.s);
    }
    size_t n = 400000; /* marks of class 230, then as many of 220: bubble sort takes a minute */
    char *marks = malloc(n);
    for (size_t i = 0; i < n; i += 2) memcpy(marks + i, i < n / 2 ? "\u0301" : "\u0323", 2);
    vl_buffer b = {0};
    CHECK(vl_nfc(&b, marks, n, &err) == 0 && b.n == n && memcmp(b.s, "\u0323\u0323", 4) == 0 &&
          memcmp(b.s + n - 4, "\u0301\u0301", 4) == 0, "mark run");
    free(b.s);
    free(marks);
}

/* ---- UTF-8 streaming ------------------------------------------------------------------------ */

static void utf8(void) {
    static const struct { const char *s; size_t n, whole; } CASES[] = {
        {"", 0, 0}, {"a", 1, 1}, {"\xe2", 1, 0}, {"\xe2\x82", 2, 0}, {"\xe2\x82\xac", 3, 3},
        {"a\xe2\x82", 3, 1}, {"\xf0\x9f\x98", 3, 0}, {"\xf0\x9f\x98\x80", 4, 4}, {"\xc3", 1, 0},
        {"\xff", 1, 1}, {"\x80", 1, 1}, {"\x80\x80\x80\x80", 4, 4}, {"\xe0\x80", 2, 2},
        {"\xed\xa0", 2, 2}, {"\xf4\x90", 2, 2}, {"\xf5", 1, 1}, {"\xc0", 1, 1},
        {"\xe2\x82\xe2", 3, 2}, {"\xf0\x9f\xc3", 3, 2}, {"\xe2" "a", 2, 2},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++)
        CHECK(vl_utf8_whole(CASES[i].s, CASES[i].n) == CASES[i].whole, "case %zu: %zu", i,
              vl_utf8_whole(CASES[i].s, CASES[i].n));
    static const struct { const char *in, *out; } CLEAN[] = { /* as Python's errors="replace" */
        {"a\xff" "b", "a\ufffd" "b"}, {"\xe2\x82", "\ufffd"}, {"\xe2\x82" "A", "\ufffd" "A"},
        {"\xe0\x80\x80", "\ufffd\ufffd\ufffd"}, {"\xed\xa0\x80", "\ufffd\ufffd\ufffd"},
        {"\xf0\x9f\x98", "\ufffd"}, {"\xf4\x90\x80\x80", "\ufffd\ufffd\ufffd\ufffd"},
        {"\u4f60\u00e9", "\u4f60\u00e9"}, {"\xf0\x9f\xc3\xa9", "\ufffd\u00e9"},
    };
    for (size_t i = 0; i < sizeof CLEAN / sizeof *CLEAN; i++) {
        size_t n;
        char *out = vl_utf8_clean(CLEAN[i].in, strlen(CLEAN[i].in), &n);
        CHECK(strcmp(out, CLEAN[i].out) == 0 && n == strlen(out), "clean case %zu: %s", i, out);
        free(out);
    }
}

/* Bytes fed one by one, each time printing what is whole: the same as cleaning all at once. */
static void utf8_stream(void) {
    static const unsigned char LIVELY[] = {0x41, 0x80, 0xbf, 0x82, 0xac, 0xc3, 0xe2, 0xe0, 0xed,
                                           0xf0, 0x9f, 0x98, 0xf4, 0x90, 0xff, 0xa0};
    vl_rng rng;
    vl_rng_seed(&rng, 9);
    for (int i = 0; i < 5000; i++) {
        char text[24], waiting[24], out[256];
        size_t n = 1 + vl_rng_u64(&rng) % 23, held = 0, shown = 0, len;
        for (size_t k = 0; k < n; k++) text[k] = (char)LIVELY[vl_rng_u64(&rng) % sizeof LIVELY];
        for (size_t k = 0; k < n; k++) {
            waiting[held++] = text[k];
            size_t ready = k + 1 < n ? vl_utf8_whole(waiting, held) : held;
            char *clean = vl_utf8_clean(waiting, ready, &len);
            memcpy(out + shown, clean, len);
            shown += len;
            memmove(waiting, waiting + ready, held -= ready);
            free(clean);
        }
        char *all = vl_utf8_clean(text, n, &len);
        CHECK(shown == len && memcmp(all, out, len) == 0, "stream %d: %zu bytes, %zu", i, shown,
              len);
        free(all);
    }
}

/* ---- work and threads ----------------------------------------------------------------------- */

/* Heap steps on one word of n bytes stay within a few n log2 n, on the worst words there are. */
static void complexity(void) {
    vl_tokenizer *t;
    vl_err err = {0};
    if (vl_tokenizer_open(&t, "models/demo", &err) < 0) {
        CHECK(false, "%s", err.msg);
        return;
    }
    static const char *const WORDS[] = {"a", "the", "pictureshape", "\u56fe\u4e2d"};
    size_t n = 100000;
    char *text = malloc(n);
    for (size_t w = 0; w < sizeof WORDS / sizeof *WORDS; w++) {
        for (size_t i = 0; i < n; i++) text[i] = WORDS[w][i % strlen(WORDS[w])];
        vl_bpe_work work = {0};
        vl_ids ids = {0};
        CHECK(vl_bpe_encode(&t->bpe, &work, text, n, &ids, &err) == 0, "%s", err.msg);
        CHECK(work.steps < 4 * n * 17, "%s: %llu heap steps for %zu bytes", WORDS[w],
              (unsigned long long)work.steps, n);
        vl_bpe_work_clear(&work);
        free(ids.v);
        round_trip(t, text, n - n % strlen(WORDS[w]), WORDS[w]);
    }
    free(text);
    vl_tokenizer_free(t);
}

typedef struct job { const vl_tokenizer *t; const char *text; vl_ids ids; int rc; } job;

static void *work(void *arg) {
    job *j = arg;
    for (int i = 0; i < 50 && j->rc == 0; i++) {
        j->ids.n = 0;
        j->rc = vl_tokenizer_encode(j->t, j->text, strlen(j->text), true, &j->ids, NULL);
    }
    return NULL;
}

static void threads(void) {
    static const char TEXT[] = "<|im_start|>user\nWhat is in this picture? \u56fe\u4e2d\u6709\u4ec0"
                               "\u4e48\uff1f e\u0301<|im_end|>\n";
    vl_tokenizer *t;
    vl_err err = {0};
    if (vl_tokenizer_open(&t, "models/demo", &err) < 0) {
        CHECK(false, "%s", err.msg);
        return;
    }
    vl_ids want = encode(t, TEXT, strlen(TEXT), true);
    job jobs[4] = {{0}};
    pthread_t ids[4];
    for (int i = 0; i < 4; i++) {
        jobs[i] = (job){t, TEXT, {0}, 0};
        pthread_create(&ids[i], NULL, work, &jobs[i]);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(ids[i], NULL);
        CHECK(jobs[i].rc == 0 && jobs[i].ids.n == want.n &&
              memcmp(jobs[i].ids.v, want.v, want.n * sizeof *want.v) == 0, "thread %d", i);
        free(jobs[i].ids.v);
    }
    free(want.v);
    vl_tokenizer_free(t);
}

int main(void) {
    if (!mkdtemp(tmp)) return 2;
    goldens();
    added_flags();
    parts();
    round_trips();
    nfc();
    utf8();
    utf8_stream();
    complexity();
    threads();
    small_remove(tmp, "tokenizer.json");
    CHECK(remove(tmp) == 0, "%s left behind", tmp);
    return test_end();
}
