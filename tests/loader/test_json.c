/* test_json.c: reading files with a limit, and JSON fields with ranges and messages. */
#include "loader/json.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/test.h"

#define REFUSED(call, text) CHECK((call) < 0 && strstr(err.msg, text), "%s", err.msg)

static char folder[] = "/tmp/vitreous-json-XXXXXX";
static char path[64];

static void put(const char *bytes, size_t n) {
    FILE *f = fopen(path, "wb");
    CHECK(f && fwrite(bytes, 1, n, f) == n, "cannot write");
    if (f) fclose(f);
}

static void *feed_pipe(void *name) {
    static char block[100000];
    int fd = open(name, O_WRONLY);
    memset(block, 'x', sizeof block);
    for (size_t at = 0; at < sizeof block;) {
        ssize_t n = write(fd, block + at, sizeof block - at);
        if (n <= 0) break;
        at += (size_t)n;
    }
    close(fd);
    return NULL;
}

static void test_read_file(void) {
    char *data;
    size_t n;
    vl_err err = {0};
    put("a\0b", 3);
    CHECK(vl_read_file(path, 3, &data, &n, &err) == 0 && n == 3 && memcmp(data, "a\0b", 4) == 0,
          "%s", err.msg);
    free(data);
    CHECK(vl_read_file(path, 2, &data, &n, &err) < 0 && err.code == VL_E_LIMIT && !data, "%s",
          err.msg);
    put("", 0);
    CHECK(vl_read_file(path, 0, &data, &n, &err) == 0 && n == 0 && data[0] == 0, "%s", err.msg);
    free(data);
    CHECK(vl_read_file(folder, 9, &data, &n, &err) < 0 && err.code == VL_E_IO, "a directory");
    CHECK(vl_read_file("/nonexistent", 9, &data, &n, &err) < 0 && err.code == VL_E_IO, "nothing");
    REFUSED(vl_read_file("/dev/zero", 9999, &data, &n, &err), "larger than the limit");
    CHECK(vl_file_exists(path) && !vl_file_exists(folder) && !vl_file_exists("/none"), "exists");
    char pipe[80];
    pthread_t writer;
    snprintf(pipe, sizeof pipe, "%s/pipe", folder);
    CHECK(mkfifo(pipe, 0600) == 0 && pthread_create(&writer, NULL, feed_pipe, pipe) == 0, "pipe");
    CHECK(vl_read_file(pipe, 1 << 20, &data, &n, &err) == 0 && n == 100000 && data[n - 1] == 'x' &&
              data[n] == 0, "%s", err.msg);
    free(data);
    pthread_join(writer, NULL);
    unlink(pipe);
}

static void test_parse(void) {
    static const struct { const char *text, *error; } CASES[] = {
        {"{}", NULL}, {"[]", NULL}, {" {\"a\": [1, \"\\u4e2d\"]} \n", NULL},
        {"", "not valid JSON"}, {"{", "line 1"}, {"{\"a\":1,\"a\":2}", "duplicate"},
        {"[1] x", "not valid JSON"}, {"{\"a\":\n\n!}", "line 3"}, {"[\"\xff\"]", "not valid JSON"},
        {"[99999999999999999999]", "too big integer"}, {"5", "not valid JSON"},
        {"[\"\\ud800\"]", "not valid JSON"}, {"[NaN]", "not valid JSON"},
        {"[01]", "not valid JSON"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        vl_err err = {0};
        json_t *root = vl_json_parse(CASES[i].text, strlen(CASES[i].text), "x.json", &err);
        if (CASES[i].error)
            CHECK(!root && strstr(err.msg, CASES[i].error) && strstr(err.msg, "x.json"),
                  "%s: \"%s\"", CASES[i].text, err.msg);
        else
            CHECK(root, "%s: \"%s\"", CASES[i].text, err.msg);
        json_decref(root);
    }
    for (int depth = 63; depth <= 100000; depth = depth < 65 ? depth + 1 : depth * 11) {
        char *deep = malloc(2 * (size_t)depth);
        vl_err err = {0};
        memset(deep, '[', (size_t)depth);
        memset(deep + depth, ']', (size_t)depth);
        json_t *root = vl_json_parse(deep, 2 * (size_t)depth, "deep", &err);
        CHECK((root != NULL) == (depth <= 64), "depth %d: %s", depth, err.msg);
        CHECK(root || strstr(err.msg, "deeper than 64"), "%s", err.msg);
        json_decref(root);
        free(deep);
    }
    vl_err err = {0};
    put("[1", 2);
    CHECK(!vl_json_load(path, 100, &err) && strstr(err.msg, path), "%s", err.msg);
    CHECK(!vl_json_load(path, 1, &err) && err.code == VL_E_LIMIT, "%s", err.msg);
}

static void test_fields(void) {
    const char *text = "{\"i\": 7, \"r\": 1.5, \"b\": true, \"s\": \"x\", \"n\": null, \"o\": {}}";
    vl_err err = {0};
    json_t *o = vl_json_parse(text, strlen(text), "x", &err);
    int64_t i;
    double r;
    bool b;
    const char *s;
    CHECK(vl_json_int(o, "x", "i", 0, 9, 5, &i, &err) == 0 && i == 7, "%s", err.msg);
    CHECK(vl_json_int(o, "x", "none", 0, 9, 5, &i, &err) == 0 && i == 5, "an absent field");
    CHECK(vl_json_int(o, "x", "n", 0, 9, 5, &i, &err) == 0 && i == 5, "null is absent");
    CHECK(vl_json_int(NULL, "x", "i", 0, 9, 5, &i, &err) == 0 && i == 5, "an absent object");
    CHECK(vl_json_int(o, "x", "i", 0, 6, 5, &i, &err) < 0 &&
              strcmp(err.msg, "x: \"i\": expected 0 to 6, found 7") == 0, "%s", err.msg);
    REFUSED(vl_json_int(o, "x", "r", 0, 9, 5, &i, &err), "a real");
    REFUSED(vl_json_int(o, "x", "b", 0, 9, 5, &i, &err), "true");
    CHECK(vl_json_num(o, "x", "r", 0, 9, 5, &r, &err) == 0 && r == 1.5, "%s", err.msg);
    CHECK(vl_json_num(o, "x", "i", 0, 9, 5, &r, &err) == 0 && r == 7, "an integer is a number");
    REFUSED(vl_json_num(o, "x", "r", 2, 9, 5, &r, &err), "2 to 9");
    REFUSED(vl_json_num(o, "x", "s", 0, 9, 5, &r, &err), "a string");
    CHECK(vl_json_bool(o, "x", "b", false, &b, &err) == 0 && b, "%s", err.msg);
    CHECK(vl_json_bool(o, "x", "none", true, &b, &err) == 0 && b, "an absent bool");
    REFUSED(vl_json_bool(o, "x", "i", false, &b, &err), "an integer");
    CHECK(vl_json_str(o, "x", "s", "d", &s, &err) == 0 && strcmp(s, "x") == 0, "%s", err.msg);
    CHECK(vl_json_str(o, "x", "none", "d", &s, &err) == 0 && strcmp(s, "d") == 0, "absent");
    REFUSED(vl_json_str(o, "x", "o", "d", &s, &err), "an object");
    json_decref(o);
}

int main(void) {
    CHECK(mkdtemp(folder), "no temporary folder");
    snprintf(path, sizeof path, "%s/x.json", folder);
    test_read_file();
    test_parse();
    test_fields();
    unlink(path);
    rmdir(folder);
    return test_end();
}
