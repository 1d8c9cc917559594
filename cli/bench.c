/* bench.c: encode, prefill and decode in interleaved rounds, beside what this machine can do at the
 * same moment: each round measures the peaks, then runs one whole request, so a busy neighbour or a
 * changed clock shows in both. Medians of all rounds.
 *
 *   encode, prefill   GFLOP/s against the float32 FMA peak (operations counted from the shapes)
 *   decode            GB/s of weights read against a pure read loop
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "kernels/peaks.h"
#include "model/config.h"

enum { STAGES = 3, MAX_ROUNDS = 100 };
static const char *const stage_names[STAGES] = {"encode", "prefill", "decode"};

typedef struct bench {
    vl_model *m;
    vl_config config;
    vl_session *session;
    vl_prompt *prompt;
    vl_picture *picture;
    int rounds, tokens;
    double seconds[STAGES][MAX_ROUNDS], read_gbs[MAX_ROUNDS], fma_gflops[MAX_ROUNDS];
    int prefill_tokens, decoded_tokens;
} bench;

typedef struct stage { double median_s, gflops, gbs, pct_peak, tok_s; } stage;

/* ---- operations, counted from the shapes: a multiply-add is two ---------------------------------- */

static double encode_flop(const vl_vision_config *v, double P) {
    double D = v->D, F = v->F, merged = D * v->merge * v->merge;
    double rows = P / (v->merge * v->merge);
    double block = 2 * P * (4 * D * D + 2 * D * F) + 4 * P * P * D;
    double patch = 2 * P * D * v->channels * v->temporal * v->patch * v->patch;
    return v->depth * block + patch +
           (1 + v->n_deepstack) * 2 * rows * (merged * merged + merged * v->out);
}

static double prefill_flop(const vl_text_config *t, double T) {
    double q = (double)t->H * t->E, kv = (double)t->G * t->E;
    double layer = 2 * T * (2 * q * t->D + 2 * kv * t->D + 3.0 * t->D * t->F) + 2 * q * T * (T + 1);
    return t->layers * layer + 2.0 * t->V * t->D; /* the head for the last row only */
}

/* ---- measuring ------------------------------------------------------------------------------------ */

/* A picture of seeded noise as a PNM file in memory, when none is given. */
static int noise_picture(bench *b, int side, const vl_picture_params *params, vl_err *err) {
    size_t n = (size_t)side * (size_t)side * 3, head;
    char *pnm = malloc(n + 32);
    if (!pnm) return cli_usage("out of memory");
    head = (size_t)snprintf(pnm, 32, "P6 %d %d 255\n", side, side);
    uint32_t x = 1;
    for (size_t i = 0; i < n; i++) {
        x = x * 1664525u + 1013904223u;
        pnm[head + i] = (char)(x >> 24);
    }
    int rc = vl_picture_load(&b->picture, b->m, pnm, head + n, "noise", params, err);
    free(pnm);
    return rc ? cli_fail(err) : 0;
}

static int run_round(bench *b, int round, vl_err *err) {
    cli_answer a = {0};
    vl_sampling s = vl_sampling_greedy(b->tokens);
    int threads = vl_model_get_info(b->m)->threads;
    s.ignore_eos = true;
    b->read_gbs[round] = vl_peak_read_gbs(threads);
    b->fma_gflops[round] = vl_peak_fma_gflops(threads);
    if (vl_generate(b->session, b->prompt, &s, cli_answer_event, &a, err)) return cli_fail(err);
    if (strcmp(a.finish_reason, "error") == 0) return cli_fail(&a.error);
    b->seconds[0][round] = a.timings.encode_s;
    b->seconds[1][round] = a.timings.prefill_s;
    b->seconds[2][round] = a.timings.decode_s;
    b->prefill_tokens = a.timings.prefill_tokens;
    b->decoded_tokens = a.timings.decoded_tokens;
    cli_answer_clear(&a);
    return 0;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
static double median(const double *v, int n) {
    double sorted[MAX_ROUNDS];
    memcpy(sorted, v, (size_t)n * sizeof *v);
    qsort(sorted, (size_t)n, sizeof *sorted, ascending);
    return n % 2 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
}

static void evaluate(const bench *b, stage out[STAGES]) {
    const vl_model_info *info = vl_model_get_info(b->m);
    const vl_picture_info *p = vl_picture_get_info(b->picture);
    double read = median(b->read_gbs, b->rounds), fma = median(b->fma_gflops, b->rounds);
    double T = b->prefill_tokens, decoded = b->decoded_tokens;
    double vision_bytes = (double)info->weight_bytes - (double)info->decode_bytes;
    const double flop[STAGES] = {encode_flop(&b->config.vision, (double)p->grid_h * p->grid_w),
                                 prefill_flop(&b->config.text, T),
                                 prefill_flop(&b->config.text, 1) * decoded};
    const double bytes[STAGES] = {vision_bytes, (double)info->decode_bytes,
                                  (double)info->decode_bytes * decoded};
    const double tokens[STAGES] = {p->tokens, T, decoded};
    for (int i = 0; i < STAGES; i++) {
        double s = median(b->seconds[i], b->rounds);
        out[i] = (stage){s, flop[i] / s / 1e9, bytes[i] / s / 1e9, 0, tokens[i] / s};
        out[i].pct_peak = 100 * (i == 2 ? out[i].gbs / read : out[i].gflops / fma);
    }
}

/* ---- output ------------------------------------------------------------------------------------- */

static void print_json(const bench *b, const stage stages[STAGES]) {
    const vl_model_info *info = vl_model_get_info(b->m);
    json_t *all = json_object();
    for (int i = 0; i < STAGES; i++)
        json_object_set_new(all, stage_names[i],
                            json_pack("{s:f,s:f,s:f,s:f,s:f}", "median_s", stages[i].median_s,
                                      "gflops", stages[i].gflops, "gbs", stages[i].gbs, "pct_peak",
                                      stages[i].pct_peak, "tok_s", stages[i].tok_s));
    cli_print_json(json_pack(
        "{s:s,s:s,s:s,s:i,s:i,s:i,s:i,s:i,s:{s:f,s:f},s:o}", "model", info->name, "backend",
        info->backend, "dtype", info->dtype, "threads", info->threads, "rounds", b->rounds,
        "image_tokens", vl_picture_get_info(b->picture)->tokens, "prompt_tokens",
        b->prefill_tokens, "decoded_tokens", b->decoded_tokens, "peaks", "read_gbs",
        median(b->read_gbs, b->rounds), "fma_gflops", median(b->fma_gflops, b->rounds), "stages", all));
}

static void print_table(const bench *b, const stage stages[STAGES]) {
    const vl_model_info *info = vl_model_get_info(b->m);
    printf("%s on %s, %s, %d threads; medians of %d rounds\n", info->name, info->backend, info->dtype,
           info->threads, b->rounds);
    printf("peaks in the same rounds: read %.1f GB/s, float32 FMA %.1f GFLOP/s\n\n",
           median(b->read_gbs, b->rounds), median(b->fma_gflops, b->rounds));
    printf("%-8s %8s %10s %10s %8s %10s  %s\n", "stage", "tokens", "seconds", "GFLOP/s", "GB/s",
           "tokens/s", "share of peak");
    const int tokens[STAGES] = {vl_picture_get_info(b->picture)->tokens, b->prefill_tokens, b->decoded_tokens};
    for (int i = 0; i < STAGES; i++)
        printf("%-8s %8d %10.4f %10.1f %8.2f %10.1f  %.0f %% of %s\n", stage_names[i], tokens[i],
               stages[i].median_s, stages[i].gflops, stages[i].gbs, stages[i].tok_s,
               stages[i].pct_peak, i == 2 ? "read" : "FMA");
    if (info->decode_bytes < (64u << 20))
        puts("\nThe decoder's weights fit into a processor's caches, so its share of the memory's read "
             "rate says little.\nFor figures of a real size: vitreous make-random --like 2b DIR; "
             "vitreous bench -m DIR");
}

static int prepare(bench *b, const cli_common *common, const char *image, int64_t side) {
    static const char text[] = "Describe this picture in detail, please: what is in it, and where?";
    vl_picture_params params;
    char *messages = NULL;
    vl_err err = {0};
    int rc = cli_open_model(common, &b->m);
    if (!rc) rc = cli_picture_params(common, b->m, &params);
    if (!rc && vl_config_load(&b->config, vl_model_get_info(b->m)->dir, &err)) rc = cli_fail(&err);
    if (!rc && image && vl_picture_load_file(&b->picture, b->m, image, &params, &err)) rc = cli_fail(&err);
    if (!rc && !image) rc = noise_picture(b, (int)side, &params, &err);
    if (!rc) rc = cli_messages(NULL, 1, text, &messages);
    if (!rc && vl_prompt_chat(&b->prompt, b->m, messages, NULL, 0, &b->picture, 1, &err)) rc = cli_fail(&err);
    free(messages);
    if (rc) return rc;
    size_t n;
    vl_prompt_ids(b->prompt, &n);
    vl_session_params session = {.kv_tokens = (int64_t)n + b->tokens + 1};
    return vl_session_open(&b->session, b->m, &session, &err) ? cli_fail(&err) : 0;
}

int cmd_bench(int argc, char **argv) {
    bench b = {0};
    cli_common common = {0};
    const char *image = NULL;
    int64_t rounds = 5, tokens = 16, side = 448;
    bool json = false;
    const cli_option options[] = {
        {"image", 'i', CLI_STR, &image, "FILE", "a picture (default: noise)", 0, 0},
        {"side", 0, CLI_INT, &side, "N", "side of the noise picture (default 448)", 16, 8192},
        {"max-tokens", 'n', CLI_INT, &tokens, "N", "tokens decoded in a round (default 16)", 2, 100000},
        {"rounds", 0, CLI_INT, &rounds, "N", "default 5, after one that is not counted", 1, MAX_ROUNDS},
        {"json", 0, CLI_FLAG, &json, NULL, "one JSON object instead of the table", 0, 0},
        CLI_PICTURE_OPTIONS(&common),
        CLI_MODEL_OPTIONS(&common),
        {0},
    };
    int rc = cli_parse("bench", "Encode, prefill and decode beside the machine's own peaks, measured in the "
                       "same rounds.", options, argc, argv, NULL);
    if (rc >= 0) return rc;
    b.tokens = (int)tokens;
    vl_err err = {0};
    rc = prepare(&b, &common, image, side);
    if (!rc) rc = run_round(&b, 0, &err); /* warms up; overwritten by the first that counts */
    for (b.rounds = 0; !rc && b.rounds < rounds; b.rounds++) rc = run_round(&b, b.rounds, &err);
    if (!rc) {
        stage stages[STAGES];
        evaluate(&b, stages);
        if (json) print_json(&b, stages);
        else print_table(&b, stages);
    }
    vl_session_free(b.session);
    vl_prompt_free(b.prompt);
    vl_picture_free(b.picture);
    vl_model_free(b.m);
    return rc;
}
