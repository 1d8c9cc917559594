/* naive.c: TEMPORARY stand-in so that the engine runs end to end before kernels/cpu lands. Whoever lands
 * kernels/backend.c and kernels/cpu deletes this file in the same commit. */
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#pragma GCC diagnostic ignored "-Wfloat-conversion"
#pragma GCC diagnostic ignored "-Wdouble-promotion"
#pragma GCC diagnostic ignored "-Wmisleading-indentation"
#pragma GCC diagnostic ignored "-Wshadow"
#include "kernels/ops.h"
#include <math.h>
#include <stdlib.h>
#include <stdio.h>
typedef struct be { vl_backend b; vl_tap_fn fn; void *user; } be;
static void *al(vl_backend *b, size_t n) { (void)b; return calloc(1, n + 64); }
static void re(vl_backend *b, void *p) { (void)b; free(p); }
static void cp(vl_backend *b, void *d, const void *s, size_t n) { (void)b; memcpy(d, s, n); }
static int prep(vl_backend *b, vl_matrix *w, unsigned u, vl_err *e) { (void)b; (void)u; (void)e; float *f = malloc((size_t)w->rows * w->cols * 4); vl_widen(f, w->data, w->dtype, (size_t)w->rows * w->cols); w->impl = f; return 0; }
static int sy(vl_backend *b, vl_err *e) { (void)b; (void)e; return 0; }
static void embed(vl_backend *b, float *o, const vl_matrix *t, const int32_t *ids, int T) { (void)b; for (int i = 0; i < T; i++) if (ids[i] >= 0) memcpy(o + (size_t)i * t->cols, (float *)t->impl + (size_t)ids[i] * t->cols, 4u * t->cols); }
static void lin(vl_backend *b, float *o, int ldo, const float *x, int ldx, int T, const vl_matrix *w, const float *bias, vl_epilogue e) {
    (void)b; const float *W = w->impl;
    #pragma omp parallel for
    for (int n = 0; n < w->rows; n++) for (int t = 0; t < T; t++) {
        double s = 0; for (int k = 0; k < w->cols; k++) s += (double)x[(size_t)t * ldx + k] * W[(size_t)n * w->cols + k];
        if (bias) s += bias[n];
        float *p = o + (size_t)t * ldo + n;
        if (e == VL_EPI_ADD) *p += (float)s; else if (e == VL_EPI_GELU_ERF) *p = (float)(0.5 * s * (1 + erf(s / sqrt(2)))); else if (e == VL_EPI_GELU_TANH) *p = (float)(0.5 * s * (1 + tanh(sqrt(2 / M_PI) * (s + 0.044715 * s * s * s)))); else *p = (float)s; } }
static void ln(vl_backend *b, float *o, const float *x, const float *w, const float *bi, int T, int D, float eps) { (void)b; for (int t = 0; t < T; t++) { const float *r = x + (size_t)t * D; double m = 0, v = 0; for (int i = 0; i < D; i++) m += r[i]; m /= D; for (int i = 0; i < D; i++) v += (r[i] - m) * (r[i] - m); v = 1 / sqrt(v / D + eps); for (int i = 0; i < D; i++) o[(size_t)t * D + i] = (float)((r[i] - m) * v * w[i] + bi[i]); } }
static void rmsn(float *o, const float *r, const float *w, int D, float eps) { double v = 0; for (int i = 0; i < D; i++) v += (double)r[i] * r[i]; v = 1 / sqrt(v / D + eps); for (int i = 0; i < D; i++) o[i] = (float)(r[i] * v * w[i]); }
static void rms(vl_backend *b, float *o, const float *x, const float *w, int T, int D, float eps) { (void)b; for (int t = 0; t < T; t++) rmsn(o + (size_t)t * D, x + (size_t)t * D, w, D, eps); }
static void rot(float *v, const float *c, const float *s, int E) { for (int j = 0; j < E / 2; j++) { float a = v[j], d = v[j + E / 2]; v[j] = a * c[j] - d * s[j]; v[j + E / 2] = d * c[j] + a * s[j]; } }
static void qk(vl_backend *b, const vl_rope_kv_args *a) { (void)b; int E = a->E; float kk[4096]; for (int t = 0; t < a->T; t++) { const float *c = a->cos + (size_t)t * E / 2, *s = a->sin + (size_t)t * E / 2; for (int h = 0; h < a->H; h++) { float *q = a->q + (size_t)t * a->ldq + h * E; rmsn(q, q, a->q_norm, E, a->eps); rot(q, c, s, E); } for (int g = 0; g < a->G; g++) { rmsn(kk, a->k + (size_t)t * a->ldk + g * E, a->k_norm, E, a->eps); rot(kk, c, s, E); int blk = a->kv_slot[t] / 64, off = a->kv_slot[t] % 64; size_t at = (((size_t)blk * a->G + g) * 64 + off) * E; memcpy((float *)a->k_pool + at, kk, 4u * E); memcpy((float *)a->v_pool + at, a->v + (size_t)t * a->ldv + g * E, 4u * E); } } }
static void rv(vl_backend *b, float *qkv, const float *c, const float *s, int P, int H, int E) { (void)b; for (int p = 0; p < P; p++) for (int h = 0; h < 2 * H; h++) rot(qkv + (size_t)p * 3 * H * E + (size_t)h * E, c + (size_t)p * E / 2, s + (size_t)p * E / 2, E); }
static void af(vl_backend *b, float *o, const float *qkv, const int32_t *cu, int n, int P, int H, int E, float sc) { (void)b; double *sco = malloc(8u * P); size_t ld = (size_t)3 * H * E; for (int s = 0; s < n; s++) for (int h = 0; h < H; h++) for (int i = cu[s]; i < cu[s + 1]; i++) { double m = -1e30, z = 0; for (int j = cu[s]; j < cu[s + 1]; j++) { double d = 0; for (int e = 0; e < E; e++) d += (double)qkv[i * ld + h * E + e] * qkv[j * ld + (size_t)(H + h) * E + e]; sco[j] = d * sc; if (sco[j] > m) m = sco[j]; } for (int j = cu[s]; j < cu[s + 1]; j++) z += sco[j] = exp(sco[j] - m); for (int e = 0; e < E; e++) { double v = 0; for (int j = cu[s]; j < cu[s + 1]; j++) v += sco[j] * qkv[j * ld + (size_t)(2 * H + h) * E + e]; o[((size_t)i * H + h) * E + e] = (float)(v / z); } } free(sco); }
static void ac(vl_backend *b, const vl_causal_args *a) { (void)b; int E = a->E; double *sco = malloc(8u << 20); for (int t = 0; t < a->T; t++) for (int h = 0; h < a->H; h++) { int g = h / (a->H / a->G), L = a->row_len[t]; const float *q = a->q + (size_t)t * a->ldq + h * E; const int32_t *tb = a->table + (size_t)a->row_seq[t] * a->max_blocks; double m = -1e30, z = 0; for (int j = 0; j < L; j++) { const float *k = (const float *)a->k_pool + (((size_t)tb[j / 64] * a->G + g) * 64 + j % 64) * E; double d = 0; for (int e = 0; e < E; e++) d += (double)q[e] * k[e]; sco[j] = d * a->scale; if (sco[j] > m) m = sco[j]; } for (int j = 0; j < L; j++) z += sco[j] = exp(sco[j] - m); for (int e = 0; e < E; e++) { double v = 0; for (int j = 0; j < L; j++) v += sco[j] * ((const float *)a->v_pool)[(((size_t)tb[j / 64] * a->G + g) * 64 + j % 64) * E + e]; a->out[((size_t)t * a->H + h) * E + e] = (float)(v / z); } } free(sco); }
static void sw(vl_backend *b, float *o, const float *g, const float *u, int T, int F) { (void)b; for (size_t i = 0; i < (size_t)T * F; i++) o[i] = (float)(g[i] / (1 + exp(-(double)g[i])) * u[i]); }
static void cr(vl_backend *b, float *d, const int32_t *di, const float *s, const int32_t *si, int n, int D) { (void)b; for (int i = 0; i < n; i++) memcpy(d + (size_t)(di ? di[i] : i) * D, s + (size_t)(si ? si[i] : i) * D, 4u * D); }
static void ar(vl_backend *b, float *d, const int32_t *di, const float *s, const int32_t *si, int n, int D) { (void)b; for (int i = 0; i < n; i++) for (int k = 0; k < D; k++) d[(size_t)(di ? di[i] : i) * D + k] += s[(size_t)(si ? si[i] : i) * D + k]; }
static void pe(vl_backend *b, float *x, const vl_matrix *t, const int32_t *idx, const float *w, int P) { (void)b; for (int p = 0; p < P; p++) for (int d = 0; d < t->cols; d++) { float s = 0; for (int k = 0; k < 4; k++) s += w[4 * p + k] * ((float *)t->impl)[(size_t)idx[4 * p + k] * t->cols + d]; x[(size_t)p * t->cols + d] = s; } }
static void am(vl_backend *b, int32_t *ids, const float *l, int T, int V) { (void)b; for (int t = 0; t < T; t++) { int m = 0; for (int i = 0; i < V; i++) { if (isnan(l[(size_t)t * V + i])) { m = -1; break; } if (l[(size_t)t * V + i] > l[(size_t)t * V + m]) m = i; } ids[t] = m; } }
static void tap(vl_backend *b, const char *n, int l, const float *x, int r, int c) { be *e = (be *)b; if (e->fn) e->fn(e->user, n, l, x, r, c); }
static void cl(vl_backend *b) { free(b); }
static const vl_ops OPS = {"cpu", al, re, cp, cp, prep, sy, 4, embed, lin, ln, rms, qk, rv, af, ac, sw, cr, ar, pe, am, tap, cl};
int vl_backend_open(vl_backend **out, const vl_backend_params *p, vl_err *err) { (void)p; (void)err; be *b = calloc(1, sizeof *b); b->b.ops = &OPS; *out = &b->b; return 0; }
int vl_backend_threads(const vl_backend *b) { (void)b; return 2; }
int vl_ops_tap_wrap(vl_backend **out, vl_backend *i, vl_err *e) { (void)e; *out = i; return 0; }
void vl_ops_tap_set(vl_backend *b, vl_tap_fn fn, void *u) { ((be *)b)->fn = fn; ((be *)b)->user = u; }
