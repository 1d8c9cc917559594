/* fuzz_safetensors.c: any bytes as a safetensors file; every accepted tensor is read in full. */
#include "loader/safetensors.h"

#include <string.h>

#include "common/common.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    st_file f = {0};
    char why[ST_ERROR] = "";
    size_t total = 0;
    if (st_parse(&f, data, size, why) < 0) {
        vl_assert(why[0] && strlen(why) < ST_ERROR, "an error without a reason");
        return 0;
    }
    for (size_t i = 0; i < f.n; i++) {
        const st_tensor *t = &f.tensors[i];
        const uint8_t *p = t->data;
        unsigned sum = 0;
        for (size_t k = 0; k < t->bytes; k++) sum += p[k];
        vl_assert(p >= data && p + t->bytes <= data + size && sum < UINT32_MAX, "%s", t->name);
        total += t->bytes;
    }
    uint64_t header = 0;
    for (int i = 7; i >= 0; i--) header = header << 8 | data[i];
    vl_assert(total + header + 8 == size, "%zu bytes of tensors", total);
    st_close(&f);
    return 0;
}
