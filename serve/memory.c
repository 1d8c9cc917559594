/* memory.c: does what the options promise fit into memory? Looked at before anything is listened to: the KV
 * cache is only touched as answers come, so that without this check a server that starts well would be killed
 * hours later, under load. */
#include <stdio.h>

#include "kernels/threads.h"
#include "model/model.h"
#include "serve/serve.h"

int64_t memory_kv_bytes(const server *srv, int64_t tokens) {
    const vl_text_config *t = &srv->model->config.text;
    return 2 * tokens * t->layers * t->G * t->E * (int64_t)srv->model->backend->ops->kv_elem;
}

int memory_check(const server *srv, int64_t usable, vl_err *err) {
    const double gb = 1e9;
    int64_t weights = (int64_t)srv->info->weight_bytes, kv = memory_kv_bytes(srv, srv->config.kv_tokens);
    int64_t room = usable - weights, most = room > 0 ? room / memory_kv_bytes(srv, 1) : 0;
    if (*srv->info->device || !usable || weights + kv <= usable) return 0; /* a GPU says itself what it lacks */
    if (room <= 0) {
        log_json("warning", "the weights are larger than the memory that this process may use: expect them to be read "
                 "from the disk again and again", json_pack("{s:f,s:f}", "weights_gb", (double)weights / gb, "usable_gb",
                                                            (double)usable / gb));
        return 0;
    }
    return vl_fail(err, VL_E_NOMEM, "the weights (%.1f GB) and %d tokens of KV cache (%.1f GB) do not fit into the %.1f GB that "
                   "this process may use: start with --kv-tokens %lld or less", (double)weights / gb,
                   srv->config.kv_tokens, (double)kv / gb, (double)usable / gb, (long long)(most / 64 * 64));
}
