/* fuzz_tokenizer.c: any bytes as tokenizer.json, and any text through whatever tokenizer came out.
 * Input: the file, a NUL, the text; without a NUL all of it is text for the demo's tokenizer. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tokenizer/internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char dir[] = "/tmp/vl-fuzz-XXXXXX", path[64];

static void leave(void) {
    remove(path);
    rmdir(dir);
}

/* The pieces of the ids are the text again, unless NFC changed it. */
static void round_trip(const vl_tokenizer *t, const char *text, size_t n, bool special) {
    vl_ids ids = {0};
    vl_err err = {0};
    vl_buffer back = {0}, nfc = {0};
    if (vl_tokenizer_encode(t, text, n, special, &ids, &err) < 0) {
        vl_assert(err.code == VL_E_LIMIT && err.msg[0], "error %d %s", err.code, err.msg);
        free(ids.v);
        return;
    }
    for (size_t i = 0; i < ids.n; i++) {
        size_t len;
        const char *p = vl_tokenizer_piece(t, ids.v[i], &len);
        vl_assert(p && vl_buffer_add(&back, p, len, NULL) == 0, "id %d", ids.v[i]);
    }
    vl_assert(vl_nfc(&nfc, text, n, NULL) == 0, "nfc");
    if (!special && t->nfc) text = nfc.s, n = nfc.n;
    if (!special)
        vl_assert(back.n == n && (n == 0 || memcmp(back.s, text, n) == 0), "%zu of %zu bytes",
                  back.n, n);
    free(back.s);
    free(nfc.s);
    free(ids.v);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static vl_tokenizer *demo;
    vl_tokenizer *t = NULL;
    vl_err err = {0};
    const char *text = (const char *)data;
    const uint8_t *nul = size ? memchr(data, 0, size) : NULL;
    if (!demo) {
        vl_assert(vl_tokenizer_open(&demo, "models/demo", &err) == 0, "%s", err.msg);
        vl_assert(mkdtemp(dir) != NULL, "mkdtemp");
        snprintf(path, sizeof path, "%s/tokenizer.json", dir);
        atexit(leave);
    }
    if (nul) {
        FILE *f = fopen(path, "wb");
        size_t n = (size_t)(nul - data);
        vl_assert(f && fwrite(data, 1, n, f) == n && fclose(f) == 0, "cannot write");
        text += n + 1;
        size -= n + 1;
        if (vl_tokenizer_open(&t, dir, &err) < 0) {
            vl_assert(err.code && err.msg[0] && !t, "a failure without an error");
            return 0;
        }
    }
    for (int special = 0; special < 2; special++) round_trip(t ? t : demo, text, size, special);
    size_t len, whole = vl_utf8_whole(text, size);
    char *clean = vl_utf8_clean(text, size, &len);
    vl_assert(whole <= size && size - whole <= 3 && clean && vl_utf8_whole(clean, len) == len,
              "utf8: %zu of %zu", whole, size);
    free(clean);
    vl_tokenizer_free(t);
    return 0;
}
