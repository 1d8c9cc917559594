/* test_safetensors.c: every way a safetensors file can lie, built in memory, in a block of exactly
 * its size, so that a sanitizer sees any read outside. */
#include "loader/safetensors.h"

#include "tests/test.h"

/* The header text behind its length, then `data` bytes of tensors. */
static int parse(const char *header, size_t header_len, uint64_t claimed, size_t data, char *why) {
    size_t len = 8 + header_len + data;
    uint8_t *bytes = malloc(len);
    for (int i = 0; i < 8; i++) bytes[i] = (uint8_t)(claimed >> (8 * i));
    memcpy(bytes + 8, header, header_len);
    memset(bytes + 8 + header_len, 1, data);
    st_file f = {0};
    int rc = st_parse(&f, bytes, len, why);
    CHECK(rc == 0 || (!f.tensors && !f.strings && f.n == 0), "a table beside an error");
    st_close(&f);
    free(bytes);
    return rc;
}

#define T(name, dtype, shape, offsets)                                                       \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

static void test_headers(void) {
    static const struct { const char *header; size_t data; const char *error; } CASES[] = {
        /* good */
        {"{}", 0, NULL},
        {"{" T("a", "F32", "[2,3]", "[0,24]") "}", 24, NULL},
        {"{" T("a", "F32", "[]", "[0,4]") "}", 4, NULL},                      /* a scalar       */
        {"{" T("a", "F32", "[0,7]", "[0,0]") "}", 0, NULL},                   /* no elements    */
        {"{" T("z", "U8", "[0]", "[3,3]") "," T("a", "U8", "[3]", "[0,3]") "}", 3, NULL},
        {"{" T("b", "BF16", "[2]", "[4,8]") "," T("a", "F32", "[1]", "[0,4]") "}", 8, NULL},
        {"{" T("a", "F8_E4M3", "[3]", "[0,3]") "}  \n ", 3, NULL},            /* trailing space */
        {" {" T("a", "U8", "[1]", "[0,1]") "}", 1, "'{'"},                    /* leading space  */
        {"{ \"a\" : { \"shape\" : [ 1 ] ,\n\"data_offsets\":[0,1],\"dtype\":\"BOOL\" } }", 1, NULL},
        {"{\"__metadata__\":{\"k\":\"v\",\"\\u4e2d\":\"\\ud83d\\ude00\"}}", 0, NULL},
        {"{\"__metadata__\":{}," T("\xe4\xb8\xad\xf0\x9f\x98\x80", "U8", "[1]", "[0,1]") "}", 1,
         NULL},
        {"{" T("a", "F32", "[1,1,1,1,1,1,1,1]", "[0,4]") "}", 4, NULL},       /* rank 8         */
        /* not JSON */
        {"", 0, "'{'"},
        {"[]", 0, "'{'"},
        {"x", 0, "'{'"},
        {"{", 0, "a string"},
        {"{" T("a", "U8", "[1]", "[0,1]") ",}", 1, "a string"},
        {"{" T("a", "U8", "[1]", "[0,1]") "} x", 1, "nothing after"},
        {"{" T("a", "U8", "[1]", "[0,1]") "}{}", 1, "nothing after"},
        {"{\"a\" {}}", 0, "':'"},
        {"{\"a\":1}", 0, "'{' of a tensor"},
        {"{\"a\":null}", 0, "'{' of a tensor"},
        {"{\"a", 0, "end of a string"},
        {"{\"a\\", 0, "escape"},
        {"{\"a\\x\":{}}", 0, "valid escape"},
        {"{\"a\\u12\":{}}", 0, "hexadecimal"},
        {"{\"\\u0000\":{}}", 0, "no NUL"},
        {"{\"\\ud800\":{}}", 0, "surrogate"},
        {"{\"\\udc00\":{}}", 0, "surrogate"},
        {"{\"\\ud800\\u0041\":{}}", 0, "surrogate"},
        {"{\"a\nb\":{}}", 0, "control character"},
        /* not UTF-8: stray, overlong, surrogate, too high, cut off */
        {"{\"\x80\":{}}", 0, "UTF-8"},
        {"{\"\xc0\xaf\":{}}", 0, "UTF-8"},
        {"{\"\xe0\x80\x80\":{}}", 0, "UTF-8"},
        {"{\"\xed\xa0\x80\":{}}", 0, "UTF-8"},
        {"{\"\xf4\x90\x80\x80\":{}}", 0, "UTF-8"},
        {"{\"\xf0\x9f\x98", 0, "UTF-8"},
        {"{\xff\"a\":{}}", 0, "a string"},
        /* keys */
        {"{" T("a", "U8", "[1]", "[0,1]") "," T("a", "U8", "[1]", "[1,2]") "}", 2, "twice"},
        {"{" T("a", "U8", "[1]", "[0,1]") "," T("\\u0061", "U8", "[1]", "[1,2]") "}", 2, "twice"},
        {"{\"__metadata__\":{},\"__metadata__\":{}}", 0, "twice"},
        {"{\"__metadata__\":{\"k\":\"1\",\"k\":\"2\"}}", 0, "twice"},
        {"{\"__metadata__\":{\"k\":1}}", 0, "a string"},
        {"{\"__metadata__\":{\"k\":{}}}", 0, "a string"},
        {"{\"__metadata__\":[]}", 0, "__metadata__"},
        {"{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1,
         "twice"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1]}}", 1, "needs"},
        {"{\"a\":{}}", 0, "a string"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1],\"x\":0}}", 1,
         "unknown field"},
        /* values */
        {"{" T("a", "F33", "[1]", "[0,4]") "}", 4, "unknown dtype"},
        {"{" T("a", "", "[1]", "[0,4]") "}", 4, "unknown dtype"},
        {"{\"a\":{\"dtype\":4,\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "a string"},
        {"{" T("a", "U8", "1", "[0,1]") "}", 1, "'['"},
        {"{" T("a", "U8", "[-1]", "[0,1]") "}", 1, "non-negative"},
        {"{" T("a", "U8", "[1.0]", "[0,1]") "}", 1, "not a real"},
        {"{" T("a", "U8", "[1e0]", "[0,1]") "}", 1, "not a real"},
        {"{" T("a", "U8", "[01]", "[0,1]") "}", 1, "leading zero"},
        {"{" T("a", "U8", "[1,]", "[0,1]") "}", 1, "non-negative"},
        {"{" T("a", "U8", "[\"1\"]", "[0,1]") "}", 1, "non-negative"},
        {"{" T("a", "U8", "[[1]]", "[0,1]") "}", 1, "non-negative"},
        {"{" T("a", "U8", "[9223372036854775808]", "[0,1]") "}", 1, "2^63"},
        {"{" T("a", "U8", "[99999999999999999999999999]", "[0,1]") "}", 1, "2^63"},
        {"{" T("a", "F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]") "}", 4, "more than 8"},
        {"{" T("a", "U8", "[1]", "[0]") "}", 1, "two data_offsets"},
        {"{" T("a", "U8", "[1]", "[]") "}", 1, "two data_offsets"},
        {"{" T("a", "U8", "[1]", "[0,1,1]") "}", 1, "more than 2"},
        {"{" T("a", "U8", "[1]", "[-1,0]") "}", 1, "non-negative"},
        {"{" T("a", "U8", "[1]", "[0.0,1.0]") "}", 1, "not a real"},
        /* spans */
        {"{" T("a", "U8", "[1]", "[1,0]") "}", 1, "not in the 1 data bytes"},
        {"{" T("a", "U8", "[2]", "[0,2]") "}", 1, "not in the 1 data bytes"},
        {"{" T("a", "U8", "[1]", "[9223372036854775806,9223372036854775807]") "}", 1, "not in the"},
        {"{" T("a", "F32", "[2]", "[0,7]") "}", 7, "need 8 bytes"},
        {"{" T("a", "F32", "[2]", "[0,4]") "}", 4, "need 8 bytes"},
        {"{" T("a", "F64", "[4611686018427387904]", "[0,0]") "}", 0, "overflows"},
        {"{" T("a", "U8", "[4294967296,4294967296]", "[0,0]") "}", 0, "overflows"},
        {"{" T("a", "U8", "[4294967296,4294967296,0]", "[0,0]") "}", 0, "overflows"},
        {"{" T("a", "U8", "[3]", "[0,3]") "," T("b", "U8", "[3]", "[2,5]") "}", 5, "overlap"},
        {"{" T("a", "U8", "[3]", "[0,3]") "," T("b", "U8", "[3]", "[0,3]") "}", 3, "overlap"},
        {"{" T("a", "U8", "[1]", "[0,1]") "," T("b", "U8", "[1]", "[2,3]") "}", 3, "hole"},
        {"{" T("a", "U8", "[1]", "[1,2]") "}", 2, "hole"},
        {"{" T("z", "U8", "[0]", "[2,2]") "," T("a", "U8", "[3]", "[0,3]") "}", 3, "overlap"},
        {"{" T("a", "U8", "[1]", "[0,1]") "}", 2, "end at byte 1 of 2"},
        {"{}", 1, "end at byte 0 of 1"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        char why[ST_ERROR] = "";
        size_t n = strlen(CASES[i].header);
        int rc = parse(CASES[i].header, n, n, CASES[i].data, why);
        if (CASES[i].error)
            CHECK(rc == ST_BAD_FILE && strstr(why, CASES[i].error), "%s: rc %d, \"%s\"",
                  CASES[i].header, rc, why);
        else
            CHECK(rc == 0, "%s: \"%s\"", CASES[i].header, why);
        CHECK(parse(CASES[i].header, n, n, CASES[i].data, NULL) == rc, "without a reason");
    }
    char nul[] = "{\"a\0b\":{}}", why[ST_ERROR];
    int rc = parse(nul, sizeof nul - 1, sizeof nul - 1, 0, why);
    CHECK(rc < 0 && strstr(why, "control"), "%s", why);
}

/* The 8 bytes in front. */
static void test_lengths(void) {
    static const uint64_t LIES[] = {0, 3, 1000, 100000001, UINT32_MAX, 1ULL << 63, UINT64_MAX,
                                    UINT64_MAX - 7, UINT64_MAX - 8};
    char why[ST_ERROR];
    st_file f = {0};
    for (size_t len = 0; len < 8; len++) {
        uint8_t *bytes = calloc(1, len ? len : 1);
        int rc = st_parse(&f, bytes, len, why);
        CHECK(rc < 0 && strstr(why, "too short"), "%zu bytes: %s", len, why);
        free(bytes);
    }
    for (size_t i = 0; i < sizeof LIES / sizeof *LIES; i++)
        CHECK(parse("{}", 2, LIES[i], 0, why) < 0, "length %llu", (unsigned long long)LIES[i]);
    for (size_t cut = 0; cut < 55; cut++) { /* a header that ends anywhere */
        const char *h = "{" T("a", "F32", "[2,3]", "[0,24]") "}";
        CHECK(parse(h, cut, cut, 24, why) < 0, "cut at %zu", cut);
    }
}

/* n empty tensors "t0", "t1", ...: the most that are allowed, and one more. */
static void test_many(void) {
    for (int extra = 0; extra < 2; extra++) {
        size_t n = ST_MAX_TENSORS + (size_t)extra, at = 0;
        char *h = malloc(n * 64 + 8), why[ST_ERROR] = "";
        for (size_t i = 0; i < n; i++)
            at += (size_t)sprintf(h + at, "%c" T("t%zu", "U8", "[0]", "[0,0]"), i ? ',' : '{', i);
        h[at++] = '}';
        int rc = parse(h, at, at, 0, why);
        CHECK(extra ? rc < 0 && strstr(why, "more than 100000") : rc == 0, "%zu: %s", n, why);
        free(h);
    }
}

/* A name is never passed on as it is: no control characters, no half characters, bounded. */
static void test_messages(void) {
    char h[600] = "{\"", why[ST_ERROR];
    size_t at = 2;
    for (int i = 0; i < 100; i++) at += (size_t)sprintf(h + at, "\xe4\xb8\xad");
    at += (size_t)sprintf(h + at, "\\n\":{\"dtype\":\"F99\"}}");
    CHECK(parse(h, at, at, 0, why) < 0 && strstr(why, "F99"), "%s", why);
    for (const char *p = why; *p; p++) CHECK(*p >= 0x20 && *p <= 0x7e, "byte %d", *p);
}

static void test_values(void) {
    const char *h = "{\"__metadata__\":{\"format\":\"pt\",\"k\\n\":\"\\u00e9\"},"
                    T("w", "BF16", "[2,1]", "[4,8]") "," T("s", "I32", "[]", "[0,4]") "}";
    uint8_t bytes[300] = {(uint8_t)strlen(h)};
    char why[ST_ERROR] = "";
    memcpy(bytes + 8, h, strlen(h));
    st_file f = {0};
    CHECK(st_parse(&f, bytes, 16 + strlen(h), why) == 0, "%s", why);
    CHECK(f.n == 2 && strcmp(f.tensors[0].name, "s") == 0 && f.tensors[0].rank == 0 &&
              f.tensors[0].bytes == 4 && f.tensors[0].data == bytes + 8 + strlen(h), "scalar");
    CHECK(strcmp(f.tensors[1].dtype, "BF16") == 0 && f.tensors[1].element == 2 &&
              f.tensors[1].rank == 2 && f.tensors[1].shape[0] == 2 && f.tensors[1].shape[1] == 1 &&
              (const uint8_t *)f.tensors[1].data == bytes + 12 + strlen(h), "matrix");
    CHECK(f.n_metadata == 2 && strcmp(f.metadata[0][1], "pt") == 0 &&
              strcmp(f.metadata[1][0], "k\n") == 0 && strcmp(f.metadata[1][1], "\xc3\xa9") == 0,
          "metadata");
    st_close(&f);
    CHECK(st_open(&f, "/nonexistent", why) < 0 && strstr(why, "cannot open"), "%s", why);
    CHECK(st_open(&f, "/tmp", why) < 0 && strstr(why, "regular"), "%s", why);
    CHECK(st_open(&f, "/dev/null", why) < 0, "%s", why);
    CHECK(st_open(&f, "LICENSE", why) < 0 && !f.map, "%s", why);
}

int main(void) {
    test_headers();
    test_lengths();
    test_many();
    test_messages();
    test_values();
    return test_end();
}
