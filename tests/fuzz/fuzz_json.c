/* fuzz_json.c: any bytes as JSON; the field readers on whatever came out. */
#include "loader/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    vl_err err = {0};
    json_t *root = vl_json_parse((const char *)data, size, "fuzz", &err);
    vl_assert(root || (err.code && err.msg[0]), "an error without a message");
    static const char *const KEYS[] = {"a", "size", "n", ""};
    for (size_t i = 0; root && i < sizeof KEYS / sizeof *KEYS; i++) {
        int64_t n;
        double x;
        bool b;
        const char *s;
        if (vl_json_int(root, "fuzz", KEYS[i], -5, 100, 7, &n, &err) == 0)
            vl_assert(n >= -5 && n <= 100, "out of range");
        if (vl_json_num(root, "fuzz", KEYS[i], 0, 1, 0.5, &x, &err) == 0)
            vl_assert(x >= 0 && x <= 1, "out of range");
        vl_json_bool(root, "fuzz", KEYS[i], true, &b, &err);
        if (vl_json_str(root, "fuzz", KEYS[i], "", &s, &err) == 0) vl_assert(s, "NULL");
    }
    json_decref(root);
    return 0;
}
