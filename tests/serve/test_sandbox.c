/* test_sandbox.c: pictures decoded in the confined child are those decoded here; damaged files
 * and limits are errors, never a hang. */
#include <pthread.h>
#include <seccomp.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "loader/image.h"
#include "loader/json.h"
#include "serve/sandbox.h"
#include "tests/test.h"

static const char *const files[] = {"models/demo/pictures/01-shapes.png",
                                    "models/demo/pictures/02-shapes.jpg"};

static void same_as_here(sandbox *s, const char *path) {
    char *data;
    size_t len;
    vl_err err = {0};
    vl_image here = {0};
    confined_picture there = {0};
    if (vl_read_file(path, 10 << 20, &data, &len, &err)) {
        CHECK(false, "%s", err.msg);
        return;
    }
    vl_picture_params p = {0};
    CHECK(vl_image_decode(&here, data, len, path, &p, &err) == 0, "%s", err.msg);
    CHECK(sandbox_decode(s, data, len, &p, 5, &there, &err) == 0, "%s: %s", path, err.msg);
    size_t n = (size_t)here.width * (size_t)here.height * 3;
    char head[48];
    size_t h = (size_t)snprintf(head, sizeof head, "P6\n%d %d\n255\n", here.width, here.height);
    CHECK(there.len == h + n && !memcmp(there.ppm, head, h) && !memcmp(there.ppm + h, here.rgb, n),
          "%s: the same pixels", path);
    CHECK(!strcmp(there.format, here.format), "%s and %s", there.format, here.format);
    vl_image_clear(&here);
    free(there.ppm);
    there = (confined_picture){0};
    CHECK(sandbox_decode(s, data, len / 2, &p, 5, &there, &err) == -1, "a cut-off %s is refused",
          path);
    p.max_decoded_pixels = 100;
    CHECK(sandbox_decode(s, data, len, &p, 5, &there, &err) == -1 && err.code == VL_E_LIMIT,
          "%s over the pixel limit: %s", path, err.msg);
    free(data);
}

static void *many(void *arg) {
    for (int i = 0; i < 10; i++) {
        confined_picture c = {0};
        vl_err err = {0};
        vl_picture_params p = {0};
        static const char ppm[] = "P6\n2 1\n255\nabcdef";
        int rc = sandbox_decode(arg, ppm, sizeof ppm - 1, &p, 5, &c, &err);
        if (rc || c.len < 6 || memcmp(c.ppm + c.len - 6, "abcdef", 6)) return arg;
        free(c.ppm);
    }
    return NULL;
}

/* 20 megapixels take longer than a thousandth of a second, and are no trouble without that limit. */
static void slow(sandbox *s) {
    enum { SIDE = 4500 };
    static const char head[] = "P5 4500 4500 254\n";
    size_t h = sizeof head - 1, n = h + (size_t)SIDE * SIDE;
    char *pgm = calloc(n, 1);
    vl_picture_params p = {.max_bytes = 1 << 30};
    confined_picture c = {0};
    vl_err err = {0};
    CHECK(pgm, "memory");
    if (!pgm) return;
    memcpy(pgm, head, h);
    CHECK(sandbox_decode(s, pgm, n, &p, 0.001, &c, &err) == -1 && err.code == VL_E_LIMIT && strstr(err.msg, "0.001 s"),
          "too slow: %d %s", err.code, err.msg);
    CHECK(sandbox_decode(s, pgm, n, &p, 60, &c, &err) == 0, "slow: %s", err.msg);
    free(c.ppm);
    free(pgm);
}

/* As under a service manager whose filter lacks seccomp(): said at the start, not of every picture. */
static void filtered(void) {
    pid_t pid = fork();
    if (pid == 0) {
        sandbox *s = NULL;
        vl_err err = {0};
        scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ALLOW);
        if (!ctx || seccomp_rule_add(ctx, SCMP_ACT_KILL_PROCESS, SCMP_SYS(seccomp), 0) || seccomp_load(ctx)) _exit(2);
        if (sandbox_open(&s, &err)) _exit(3);
        _exit(sandbox_try(s, &err) == -1 && strstr(err.msg, "--no-sandbox") ? 0 : 4);
    }
    int status = -1;
    waitpid(pid, &status, 0);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "a filter without seccomp: status %x", (unsigned)status);
}

int main(void) {
    sandbox *s = NULL;
    vl_err err = {0};
    confined_picture c = {0};
    vl_picture_params p = {0};
    signal(SIGPIPE, SIG_IGN);
    if (!SANITIZED) filtered();
    CHECK(sandbox_open(&s, &err) == 0 && sandbox_try(s, &err) == 0, "%s", err.msg);
    if (!s) return test_end();
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) same_as_here(s, files[i]);
    CHECK(sandbox_decode(s, "nonsense", 8, &p, 5, &c, &err) == -1 && *err.msg,
          "nonsense is refused");
    CHECK(sandbox_decode(s, "", 0, &p, 5, &c, &err) == -1, "nothing is refused");
    slow(s);
    pthread_t t[4];
    for (int i = 0; i < 4; i++) pthread_create(&t[i], NULL, many, s);
    for (int i = 0; i < 4; i++) {
        void *bad;
        pthread_join(t[i], &bad);
        CHECK(!bad, "several at once");
    }
    sandbox_close(s);
    return test_end();
}
