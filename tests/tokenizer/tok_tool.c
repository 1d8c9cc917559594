/* tok_tool.c: the tokenizer behind a pipe, for comparisons with HF on thousands of strings.
 *
 *   tok_tool DIR < frames      each frame "<special 0|1> <bytes>\n" and then that many bytes;
 *                              prints the ids of each on a line of its own; load time on stderr
 */
#include <stdio.h>
#include <stdlib.h>

#include "tokenizer/tokenizer.h"

static int answer(const vl_tokenizer *t, size_t n, bool special, vl_err *err) {
    char *text = malloc(n + 1);
    vl_ids ids = {0};
    int rc = -1;
    if (!text || fread(text, 1, n, stdin) != n) vl_fail(err, VL_E_INPUT, "frame cut short");
    else rc = vl_tokenizer_encode(t, text, n, special, &ids, err);
    for (size_t i = 0; rc == 0 && i < ids.n; i++) printf(i ? " %d" : "%d", ids.v[i]);
    putchar('\n');
    free(ids.v);
    free(text);
    return rc;
}

int main(int argc, char **argv) {
    vl_err err = {0};
    vl_tokenizer *t;
    if (argc != 2) return 2;
    double start = vl_now();
    int rc = vl_tokenizer_open(&t, argv[1], &err);
    if (rc == 0) fprintf(stderr, "loaded in %.3f s\n", vl_now() - start);
    size_t n;
    for (int special; rc == 0 && scanf("%d %zu", &special, &n) == 2;) {
        getchar();
        rc = answer(t, n, special, &err);
    }
    if (rc < 0) fprintf(stderr, "%s\n", err.msg);
    vl_tokenizer_free(t);
    return rc < 0;
}
