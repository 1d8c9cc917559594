/* weights_scales.c: matrices that a checkpoint holds quantised, and the scales beside them.
 *
 *   X.weight U8 [N, (K + 1) / 2], X.weight_scale BF16 [N, ceil(K / 32)]      int4, `vitreous quantize`
 *   X.weight I8 [N, K],           X.weight_scale BF16 [N, ceil(K / 32)]      int8, `vitreous quantize`
 *   X.weight F8_E4M3 [N, K],      X.weight_scale_inv BF16 or F32
 *                                 [ceil(N / 128), ceil(K / 128)]             HF FP8: w = weight * scale_inv
 */
#include "kernels/quantise.h"
#include "model/weights.h"

enum { FP8_BLOCK = 128 };

bool vl_weights_quantised(const vl_tensor *t) {
    return t->dtype == VL_U8 || t->dtype == VL_I8 || t->dtype == VL_F8_E4M3;
}

const char *vl_weights_mode(const vl_checkpoint *ckpt) {
    const vl_tensor *t = vl_checkpoint_find(ckpt, "model.language_model.layers.0.mlp.down_proj.weight");
    return !t ? NULL : t->dtype == VL_U8 ? "int4" : t->dtype == VL_I8 ? "int8" : NULL;
}

/* Every scale is finite, and not negative but in int4 (whose codes are lopsided). */
static int check_scales(const vl_tensor *s, bool int4, vl_err *err) {
    size_t each = vl_dtype_size(s->dtype), n = s->bytes / each;
    float piece[256];
    for (size_t at = 0; at < n; at += 256) {
        size_t m = n - at < 256 ? n - at : 256;
        vl_widen(piece, (const uint8_t *)s->data + at * each, s->dtype, m);
        for (size_t i = 0; i < m; i++)
            if (!(piece[i] - piece[i] == 0) || (!int4 && piece[i] < 0))
                return vl_fail(err, VL_E_MODEL, "tensor %s: scale %zu is %g; expected a finite number%s",
                               s->name, at + i, (double)piece[i], int4 ? "" : ", not negative");
    }
    return 0;
}

int vl_weights_scales(vl_matrix *m, const vl_checkpoint *ckpt, const vl_tensor *t, const char *mode,
                      vl_err *err) {
    bool fp8 = t->dtype == VL_F8_E4M3, int4 = t->dtype == VL_U8;
    const char *own = vl_weights_mode(ckpt);
    if (!own) own = int4 ? "int4" : "int8";
    int64_t width = int4 ? (m->cols + 1) / 2 : m->cols;
    char name[192];
    if (t->rank != 2 || t->shape[0] != m->rows || t->shape[1] != width)
        return vl_fail(err, VL_E_MODEL, "tensor %s (%s) has shape [%lld, %lld], expected [%d, %lld]", t->name,
                       vl_dtype_name(t->dtype), (long long)t->shape[0], (long long)(t->rank > 1 ? t->shape[1] : 1),
                       m->rows, (long long)width);
    if (!fp8 && strcmp(mode, own))
        return vl_fail(err, VL_E_USAGE, "tensor %s is of an %s checkpoint, which the mode %s cannot use; open it "
                       "with --backend cpu --dtype %s, or without --dtype", t->name, own, mode, own);
    snprintf(name, sizeof name, "%s%s", m->name, fp8 ? "_scale_inv" : "_scale");
    const vl_tensor *s = vl_checkpoint_find(ckpt, name);
    if (!s) return vl_fail(err, VL_E_MODEL, "tensor %s is %s, but its scales %s are missing", t->name,
                           vl_dtype_name(t->dtype), name);
    m->block_rows = fp8 ? FP8_BLOCK : 1;
    m->block_cols = fp8 ? FP8_BLOCK : VL_QGROUP;
    int64_t rows = (m->rows + m->block_rows - 1) / m->block_rows, cols = (m->cols + m->block_cols - 1) / m->block_cols;
    if (s->rank != 2 || s->shape[0] != rows || s->shape[1] != cols)
        return vl_fail(err, VL_E_MODEL, "tensor %s has shape [%lld, %lld], expected [%lld, %lld]: one scale for "
                       "%d x %d weights", s->name, (long long)s->shape[0],
                       (long long)(s->rank > 1 ? s->shape[1] : 1), (long long)rows, (long long)cols,
                       m->block_rows, m->block_cols);
    if (s->dtype != VL_BF16 && !(fp8 && s->dtype == VL_F32))
        return vl_fail(err, VL_E_MODEL, "tensor %s is %s; expected BF16%s", s->name, vl_dtype_name(s->dtype),
                       fp8 ? " or F32" : "");
    m->scale = s->data;
    m->scale_dtype = s->dtype;
    return check_scales(s, int4, err);
}
