/* memory.c: does what the options promise fit into memory? Looked at before anything is listened to: the KV
 * cache is only touched as answers come, so that without this check a server that starts well would be killed
 * hours later, under load. */
#include <stdio.h>
#include <string.h>

#include "kernels/threads.h"
#include "model/model.h"
#include "serve/serve.h"

int64_t memory_kv_bytes(const server *srv, int64_t tokens) {
    const vl_text_config *t = &srv->model->config.text;
    return 2 * tokens * t->layers * t->G * t->E * (int64_t)srv->model->backend->kv_elem;
}

typedef struct sum { const server *srv; double bytes; } sum;

/* One tensor, as the CPU backend keeps it: a simple estimate, without padding and tails. Codes stay as they are;
 * int8 and int4 have a 2-byte scale for each 32 weights; else bf16 and FP8 become bf16, and F16 and F32 F32. */
static int add_tensor(void *user, const char *name, int64_t rows, int64_t cols) {
    sum *s = user;
    const vl_model *m = s->srv->model;
    const vl_tensor *t = vl_checkpoint_find(m->checkpoint, name);
    unsigned narrow = vl_weights_narrow(name);
    bool embed = strstr(name, "embed_tokens") != NULL, head = !strcmp(name, "lm_head.weight") || (embed && m->config.tied);
    if (!t) return 0;
    bool looked_up = (embed && !head) || strstr(name, "pos_embed.weight"); /* read from the file */
    double each = t->dtype == VL_BF16 || t->dtype == VL_F8_E4M3 ? 2 : 4, as_stored = (double)t->bytes;
    if (!strncmp(m->dtype, "int", 3) && (narrow || head))
        each = !strcmp(m->dtype, "int4") && narrow & VL_USE_NARROW ? 18.0 / 32 : 34.0 / 32;
    bool stays = cols == 1 || looked_up || t->dtype == VL_I8 || t->dtype == VL_U8;
    s->bytes += stays ? as_stored : each * (double)rows * (double)cols;
    return 0;
}

int64_t memory_weight_bytes(const server *srv) {
    sum s = {.srv = srv};
    vl_weights_each(&srv->model->config, add_tensor, &s);
    return (int64_t)s.bytes;
}

int memory_check(const server *srv, int64_t usable, vl_err *err) {
    const double gb = 1e9;
    char advice[80] = "take a smaller model, or --dtype int8 or int4";
    if (*srv->info->device || !usable) return 0; /* a GPU says itself what it lacks */
    int64_t weights = memory_weight_bytes(srv), kv = memory_kv_bytes(srv, srv->config.kv_tokens), room = usable - weights;
    if (kv <= room) return 0;
    if (room <= 0 && kv <= usable) {
        log_json("warning", "the weights are larger than the memory that this process may use: expect them to be read "
                 "from the disk again and again", json_pack("{s:f,s:f}", "weights_gb", (double)weights / gb, "usable_gb",
                                                            (double)usable / gb));
        return 0;
    }
    long long most = room > 0 ? room / memory_kv_bytes(srv, 1) / 64 * 64 : 0;
    if (most) snprintf(advice, sizeof advice, "start with --kv-tokens %lld or less", most);
    return vl_fail(err, VL_E_NOMEM, "the weights (%.1f GB) and %d tokens of KV cache (%.1f GB) do not fit into the %.1f GB that "
                   "this process may use: %s", (double)weights / gb, srv->config.kv_tokens, (double)kv / gb,
                   (double)usable / gb, advice);
}
