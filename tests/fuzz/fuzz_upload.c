/* fuzz_upload.c: any text as a picture's URL: base64 with blanks, padding, escapes, or a reason. */
#include <stdlib.h>

#include "serve/pictures.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char head[] = "data:;base64,";
    size_t extra = size & 1 ? sizeof head - 1 : 0, n = extra + size;
    char *url = malloc(n ? n : 1);
    blob out;
    api_error e = {0};
    vl_assert(url, "out of memory");
    memcpy(url, head, extra);
    if (size) memcpy(url + extra, data, size);
    if (data_url_decode(url, n, 1000, &out, &e, "image") == 0) {
        unsigned sum = 0;
        for (size_t i = 0; i < out.len; i++) sum += (unsigned char)out.data[i];
        vl_assert(out.len && out.len <= 1000 && out.len <= n && sum < UINT32_MAX, "%zu", out.len);
    } else {
        vl_assert(!out.data && e.status >= 400 && e.status < 500 && e.msg[0], "%d", e.status);
    }
    free(out.data);
    free(url);
    return 0;
}
