/* test_checkpoint.c: single files, shards, old prefixes, and files that change while mapped. */
#include "loader/checkpoint.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/test.h"

static char folder[] = "/tmp/vitreous-checkpoint-XXXXXX";

static const char *in_folder(const char *name) {
    static char path[2][256];
    static int turn;
    turn = !turn;
    snprintf(path[turn], sizeof path[turn], "%s/%s", folder, name);
    return path[turn];
}

static void put_text(const char *name, const char *text) {
    FILE *f = fopen(in_folder(name), "wb");
    CHECK(f && fwrite(text, 1, strlen(text), f) == strlen(text), "cannot write %s", name);
    if (f) fclose(f);
}

static const float F[6] = {1, 2, 3, 4, 5, 6};
static const uint8_t U[3] = {7, 8, 9};
static const int64_t I[2] = {-1, 1LL << 40};

static vl_tensor tensor(const char *name, vl_dtype dtype, const void *data, int64_t rows,
                        int64_t cols) {
    vl_tensor t = {.name = name, .dtype = dtype, .rank = cols ? 2 : 1, .shape = {rows, cols},
                   .data = data};
    t.bytes = vl_dtype_size(dtype) * (size_t)rows * (size_t)(cols ? cols : 1);
    return t;
}

static void put_tensor(const char *file, const char *name) {
    vl_tensor t = tensor(name, VL_F32, F, 2, 3);
    vl_err err = {0};
    CHECK(vl_safetensors_write(in_folder(file), &t, 1, NULL, &err) == 0, "%s", err.msg);
}

static void test_round_trip(void) {
    vl_tensor in[] = {tensor("bytes", VL_U8, U, 3, 0), tensor("floats", VL_F32, F, 2, 3),
                      tensor("ids", VL_I64, I, 2, 0),
                      {.name = "empty", .dtype = VL_F32, .rank = 2, .shape = {0, 5}},
                      {.name = "scalar \"\xe4\xb8\xad\"", .dtype = VL_F32, .data = F, .bytes = 4}};
    const char *metadata[] = {"format", "pt", NULL};
    vl_checkpoint *c;
    vl_err err = {0};
    const char *path = in_folder("all.safetensors");
    CHECK(vl_safetensors_write(path, in, 5, metadata, &err) == 0, "%s", err.msg);
    CHECK(vl_safetensors_open(&c, path, &err) == 0, "%s", err.msg);
    if (!c) return;
    CHECK(vl_checkpoint_count(c) == 5 && vl_checkpoint_bytes(c) == 3 + 24 + 16 + 4, "totals");
    for (int i = 0; i < 5; i++) {
        const vl_tensor *t = vl_checkpoint_find(c, in[i].name);
        CHECK(t && t->dtype == in[i].dtype && t->rank == in[i].rank && t->bytes == in[i].bytes &&
                  memcmp(t->shape, in[i].shape, sizeof t->shape) == 0 &&
                  (!t->bytes || memcmp(t->data, in[i].data, t->bytes) == 0),
              "%s differs", in[i].name);
        CHECK(t && (uintptr_t)t->data % vl_dtype_size(t->dtype) == 0, "%s unaligned", in[i].name);
    }
    CHECK(!vl_checkpoint_find(c, "absent"), "found what is not there");
    vl_checkpoint_release(vl_checkpoint_at(c, 0)->data, 1 << 20); /* too much: nothing happens */
    CHECK(vl_checkpoint_check(c, &err) == 0, "%s", err.msg);
    vl_checkpoint_free(c);
    vl_tensor nul = tensor("bad \xff", VL_U8, U, 3, 0);
    CHECK(vl_safetensors_write(path, &nul, 1, NULL, &err) < 0, "wrote a name that is not UTF-8");
    CHECK(vl_safetensors_write("/nonexistent/x", in, 5, NULL, &err) < 0 && err.code == VL_E_IO,
          "%s", err.msg);
}

/* An unpadded header and a U8 tensor in front: nothing is aligned in the file. */
static void test_misaligned(void) {
    const char *head = "{\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
                       "\"w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[1,9]}}";
    uint8_t file[512] = {(uint8_t)strlen(head)};
    memcpy(file + 8, head, strlen(head));
    memcpy(file + 8 + strlen(head) + 1, F, 8);
    FILE *f = fopen(in_folder("mis.safetensors"), "wb");
    CHECK(f && fwrite(file, 8 + strlen(head) + 9, 1, f) == 1, "cannot write");
    if (f) fclose(f);
    vl_checkpoint *c;
    vl_err err = {0};
    CHECK(vl_safetensors_open(&c, in_folder("mis.safetensors"), &err) == 0, "%s", err.msg);
    const vl_tensor *w = c ? vl_checkpoint_find(c, "w") : NULL;
    CHECK(w && (uintptr_t)w->data % 4 == 0 && memcmp(w->data, F, 8) == 0, "not aligned");
    vl_checkpoint_free(c);
}

static void test_old_prefixes(void) {
    static const char *const PAIRS[][2] = { /* in the file, asked for */
        {"visual.blocks.0.norm1.weight", "model.visual.blocks.0.norm1.weight"},
        {"model.layers.3.mlp.up_proj.weight", "model.language_model.layers.3.mlp.up_proj.weight"},
        {"model.norm.weight", "model.language_model.norm.weight"},
        {"lm_head.weight", "lm_head.weight"},
        {"model.visual.merger.norm.bias", "model.visual.merger.norm.bias"},
    };
    for (size_t i = 0; i < sizeof PAIRS / sizeof *PAIRS; i++) {
        vl_checkpoint *c;
        vl_err err = {0};
        put_tensor("model.safetensors", PAIRS[i][0]);
        CHECK(vl_checkpoint_open(&c, folder, &err) == 0, "%s", err.msg);
        if (!c) continue;
        const vl_tensor *t = vl_checkpoint_find(c, PAIRS[i][1]);
        CHECK(t && strcmp(t->name, PAIRS[i][0]) == 0, "%s not found", PAIRS[i][1]);
        vl_checkpoint_free(c);
    }
    unlink(in_folder("model.safetensors"));
}

static void test_shards(void) {
    static const struct { const char *index, *expect; } CASES[] = {
        {"{\"weight_map\": {\"a\": \"1.safetensors\", \"b\": \"2.safetensors\"}}", NULL},
        {"{\"weight_map\": {\"a\": \"1.safetensors\", \"c\": \"2.safetensors\"}}", "\"c\""},
        {"{\"weight_map\": {\"a\": \"1.safetensors\", \"b\": \"3.safetensors\"}}", "3.safetensors"},
        {"{\"weight_map\": {\"a\": \"../1.safetensors\"}}", "without a path"},
        {"{\"weight_map\": {\"a\": \"/etc/passwd\"}}", "without a path"},
        {"{\"weight_map\": {\"a\": \"\"}}", "without a path"},
        {"{\"weight_map\": {\"a\": \"..\"}}", "without a path"},
        {"{\"weight_map\": {\"a\": \"x\\\\y\"}}", "without a path"},
        {"{\"weight_map\": {\"a\": 7}}", "without a path"},
        {"{\"weight_map\": {}}", "weight_map"},
        {"{\"weight_map\": [1]}", "weight_map"},
        {"[]", "weight_map"},
        {"{\"weight_map\": {\"a\": \"1.safetensors\", \"b\": \"1b.safetensors\"}}",
         "another shard"},
        {"{\"weight_map\": {\"a\": \"1.safetensors\", \"a\": \"2.safetensors\"}}", "duplicate"},
        {"{\"weight_map\": {\"a\": \"model.safetensors.index.json\"}}", "header length"},
        {"{", "not valid JSON"},
    };
    put_tensor("1.safetensors", "a");
    put_tensor("1b.safetensors", "a");
    put_tensor("2.safetensors", "b");
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        vl_checkpoint *c;
        vl_err err = {0};
        put_text("model.safetensors.index.json", CASES[i].index);
        int rc = vl_checkpoint_open(&c, folder, &err);
        if (CASES[i].expect) {
            CHECK(rc < 0 && !c && strstr(err.msg, CASES[i].expect), "%s: \"%s\"", CASES[i].index,
                  err.msg);
        } else {
            CHECK(rc == 0 && vl_checkpoint_count(c) == 2 && vl_checkpoint_find(c, "b"), "%s",
                  err.msg);
        }
        vl_checkpoint_free(c);
    }
    unlink(in_folder("model.safetensors.index.json"));
    vl_checkpoint *c;
    vl_err err = {0};
    CHECK(vl_checkpoint_open(&c, folder, &err) < 0 && err.code == VL_E_IO, "an empty folder");
    CHECK(vl_checkpoint_open(&c, "/nonexistent", &err) < 0 && err.code == VL_E_IO, "no folder");
}

enum { N_BIG = 1 << 20, READERS = 4 };
static const float *big_weights;

static void *sum_part(void *out) { /* the part whose number is in *out */
    double *sum = out, total = 0;
    int part = (int)*sum;
    for (int i = part * (N_BIG / READERS); i < (part + 1) * (N_BIG / READERS); i++)
        total += (double)big_weights[i];
    *sum = total;
    return NULL;
}

/* All weights, read by several threads that fault at once. */
static double sum_in_threads(const float *weights) {
    pthread_t thread[READERS];
    double part[READERS], sum = 0;
    big_weights = weights;
    for (int i = 0; i < READERS; i++) {
        part[i] = i;
        CHECK(pthread_create(&thread[i], NULL, sum_part, &part[i]) == 0, "no thread");
    }
    for (int i = 0; i < READERS; i++) {
        pthread_join(thread[i], NULL);
        sum += part[i];
    }
    return sum;
}

/* The file is cut after mapping: reads give zeros, the check names the file, others still work. */
static void test_truncated_after_mmap(void) {
    float *big = malloc(N_BIG * sizeof *big);
    for (int i = 0; i < N_BIG; i++) big[i] = 1;
    vl_tensor t = tensor("big", VL_F32, big, N_BIG, 0);
    vl_checkpoint *c, *other;
    vl_err err = {0};
    put_tensor("other.safetensors", "x");
    CHECK(vl_safetensors_write(in_folder("big.safetensors"), &t, 1, NULL, &err) == 0, "%s",
          err.msg);
    CHECK(vl_safetensors_open(&c, in_folder("big.safetensors"), &err) == 0, "%s", err.msg);
    CHECK(vl_safetensors_open(&other, in_folder("other.safetensors"), &err) == 0, "%s", err.msg);
    const float *w = vl_checkpoint_find(c, "big")->data;
    CHECK(sum_in_threads(w) == N_BIG, "the sum of a whole file");
    vl_checkpoint_release(w, N_BIG * sizeof *w);
    CHECK(w[0] == 1 && w[N_BIG - 1] == 1, "released pages of a file come back");
    CHECK(truncate(in_folder("big.safetensors"), 100000) == 0, "truncate");
    CHECK(vl_checkpoint_check(c, &err) < 0 && strstr(err.msg, "big.safetensors"), "%s", err.msg);
    double sum = sum_in_threads(w);
    CHECK(sum > 0 && sum < N_BIG / 2, "sum %g", sum);
    CHECK(vl_checkpoint_check(c, &err) < 0 && err.code == VL_E_IO, "%s", err.msg);
    CHECK(vl_checkpoint_check(other, &err) == 0, "%s", err.msg);
    vl_checkpoint_free(c);
    vl_checkpoint_free(other);
    free(big);
}

static void foreign(int signo) { _exit(signo == SIGBUS ? 42 : 1); }

/* A SIGBUS that is not ours reaches the handler that was installed before, or ends the process. */
static int foreign_sigbus(bool with_handler, bool sent) {
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        signal(SIGBUS, with_handler ? foreign : SIG_DFL);
        vl_checkpoint *c;
        if (vl_safetensors_open(&c, in_folder("other.safetensors"), NULL) < 0) _exit(1);
        if (sent) raise(SIGBUS);
        int fd = open(in_folder("1.safetensors"), O_RDONLY); /* our own map, past the file's end */
        volatile const char *p = mmap(NULL, 1 << 20, PROT_READ, MAP_PRIVATE, fd, 0);
        _exit(p[1 << 19] ? 2 : 3);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

int main(void) {
    CHECK(mkdtemp(folder), "no temporary folder");
    test_round_trip();
    test_misaligned();
    test_old_prefixes();
    test_shards();
    test_truncated_after_mmap();
    for (int sent = 0; sent < 2; sent++) {
        CHECK(foreign_sigbus(true, sent) == 42, "the previous handler was not called");
        CHECK(foreign_sigbus(false, sent) == -SIGBUS, "a foreign SIGBUS was swallowed");
    }
    char command[300];
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command) != 0 || test_end();
}
