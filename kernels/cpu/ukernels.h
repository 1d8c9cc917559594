/* ukernels.h: the leaf kernels of the CPU backend. Single-threaded, raw pointers, no allocation.
 *
 * A slot is one signature; ukernels.def lists every implementation of every slot, one line each,
 * and that line makes the prototype, the candidate at start-up, the test and the bench row. The
 * scalar line of each slot accumulates in double and is the oracle of the others.
 *
 * The weight panel, one layout for decode (gemv) and prefill (gemm):
 *
 *            lane 0      lane 1    ...  lane 31          a panel holds 32 rows of W [N, K]
 *   pair 0  [k1 | k0]   [k1 | k0]      [k1 | k0]         bf16: a lane is 32 bits, row i of the
 *   pair 1  [k3 | k2]   [k3 | k2]      [k3 | k2]         panel, even k in the low half, odd k in
 *   ...                                                  the high half, so that f32 = lane << 16
 *                                                        and lane & 0xffff0000; vdpbf16ps reads
 *                                                        the pairs as they are
 *   f32 panel: [K][32] floats, the same picture without pairs (F32 and F16 checkpoints)
 *   Rows beyond N and the odd half beyond K are zero.
 *
 * One order for every sum, whatever the kernel: K is cut into blocks of VL_KC (bf16 mode: VL_KC_PAIRS); inside a block
 * s = fma(x[k], w[k], s) for k ascending from s = 0; the blocks' sums are added in order. Hence
 * gemv and gemm of one tier give the same bits, for any number of rows. The two-level sum also
 * keeps the rounding error of K = 6144 near that of K = 128. On tile registers (gemm_tiles) a block is a step of 32
 * terms, even and odd terms summed apart; every product of such a backend with bf16 weights is then made there.
 */
#ifndef VL_UKERNELS_H
#define VL_UKERNELS_H

#include "kernels/ops.h"
#include "kernels/tuning.h"

enum {
    VL_NR = 32,          /* rows of W in a panel = columns of a tile                      */
    VL_WIDE = 2 * VL_NR, /* columns of a tile of gemm_wide                                */
    VL_KC = 128,         /* terms of a block sum; even                                    */
    VL_KC_PAIRS = 256,   /* the same for bf16 pairs, which take half the room in L1       */
    VL_GEMV_ROWS = 8,    /* up to this many rows of x go through gemv                     */
    VL_MAX_MR = 16,      /* largest row tile of any gemm                                  */
    VL_HEADROOM = 8,     /* p of softmax_tiles may be 2^8: bf16 is as fine there                */
    VL_SCORES = 32 * VL_NR + 16 /* floats between blocks of scores, lest they share cache sets */
};

/* gemm_wide serves where its tier is gemm_f32's (AVX-512 has both); elsewhere gemm_f32 takes its work.
 * c [rows][32] (+)= a block of a sum: sum over k < kc of a[k * lda + row] * panel[k][col]; gemm_wide: 64 columns.
 * rows <= tile, kc <= VL_KC (gemm_dpbf16: VL_KC_PAIRS). f32: a [kc][lda], panel [kc][32 or 64] as widen makes it; gemm_dpbf16: bf16 pairs,
 * a [(kc + 1) / 2][lda], panel in place from k = 0 of the block; the half beyond an odd kc is zero.
 * add: c += s, else c = s. */
typedef void vl_uk_gemm(float *c, const void *a, size_t lda, const void *panel, int kc, int rows,
                        bool add);
/* gemm_tiles: the same on tile registers (AMX); any kc, any number of rows, fastest in multiples of 16.
 * a: bf16 pairs in steps of 32 terms: the 16 words of row r in step s begin at a + s * step + r * lda
 * (step 16: plain rows; where kc is no multiple of 32, the last step's words beyond it are not used). In bf16
 * mode they are x rounded (part 0). In exact mode x is the sum of three bf16 numbers of 8 significant bits each,
 * what is left out by one being the next, `part` words apart: their products with bf16 weights are exact in f32,
 * and a step adds those of the smallest part first. A sum may
 * be cut at any multiple of 32 terms: the next call with `add` goes on with it, so the same bits come out. The
 * bytes from `ahead` are asked for meanwhile, evenly. Tiles stay configured until the thread calls tiles_end,
 * which it must do before it leaves the backend's code. */
enum { VL_PARTS = 3 };
typedef struct vl_tile_sum {
    float *c;                      /* [rows][32]                                              */
    const uint32_t *a;
    size_t lda, step, part;
    const void *panel;
    int kc, rows;
    bool add;
    const uint8_t *ahead;          /* weights that come next, or NULL                         */
    size_t ahead_bytes;
} vl_tile_sum;
typedef void vl_uk_gemm_tiles(const vl_tile_sum *t);
/* dst [kc][ld], 32 columns = kc terms of a panel of bf16 pairs as f32: exact. */
typedef void vl_uk_widen(float *dst, size_t ld, const uint32_t *panel, int kc);
typedef void vl_uk_tiles_end(void);
/* y [rows][32] = x [rows, K] times the whole panel [K]; rows <= VL_GEMV_ROWS. x: f32, for gemv_dpbf16
 * bf16 pairs [rows][(K + 1) / 2]; its rows are ldx 32-bit words apart. */
typedef void vl_uk_gemv(float *y, const void *x, size_t ldx, const void *panel, int K, int rows);
/* panel [(K+1)/2][32] pairs = rows <= 32 rows of w [rows, K] (ldw); missing rows are zero. */
typedef void vl_uk_pack_bf16(uint32_t *panel, const uint16_t *w, size_t ldw, int rows, int K);
/* dst [K][mr] = x [rows, K] (ldx) transposed; missing rows are zero. */
typedef void vl_uk_pack_rows(float *dst, const float *x, size_t ldx, int rows, int K, int mr);
/* The same for bf16 mode: dst [(K+1)/2][mr] pairs of x rounded to bf16 (nearest even, subnormals to
 * zero as vdpbf16ps takes them). K <= VL_KC_PAIRS unless mr = 1. */
typedef void vl_uk_pack_pairs(uint32_t *dst, const float *x, size_t ldx, int rows, int K, int mr);
/* dst [(rows + 1) / 2][n] pairs of two rows of bf16 x [rows, n] (ldx, in halves): the even row in the low
 * half; a missing last row is zero. */
typedef void vl_uk_pair_rows(uint32_t *dst, const uint16_t *x, size_t ldx, int rows, int n);
/* Blocks of x for gemm_tiles: dst [ceil(K / 32)] of `step` words, each [rows][16], pairs of x [rows, K] (ldx)
 * rounded to bf16, or VL_PARTS times [rows][16], `part` words apart. Terms beyond K are zero; what lies between is
 * left as it is. */
typedef void vl_uk_pack_tiles(uint32_t *dst, size_t step, size_t part, const float *x, size_t ldx, int rows, int K);
/* One online-softmax step of bf16 mode for `rows` <= 32 queries over `keys` keys, as gemm_tiles makes scores and
 * takes probabilities: blocks of 32 keys, VL_SCORES floats apart, each [32 queries][32 keys].
 *   s             in: q.k, out: the first 16 words of a row are pairs of p = e^((s - m) scale), rounded
 *   valid [32]    row i sees the first valid[i] keys; the others, up to a whole block, get p = 0
 *   m [32]        what scores are taken against: the running maximum when it last rose so far that p could
 *                 have passed 2^VL_HEADROOM, so that outputs are seldom scaled; -inf: the row has seen no key
 *   l [32][16]    running sums of p before rounding: key k is added to lane k % 16
 *   fix [32]      out: what the running output must be scaled by; 1 for a row that saw no key before
 * scale > 0. p is within 1e-5 of itself before rounding. */
typedef void vl_uk_softmax_tiles(float *s, int keys, int rows, const int32_t *valid, float scale, float *m,
                                 float *l, float *fix);
/* epilogue of many rows: out [rows][n] (ldo) from sums [rows][32], n <= 32. GELU within 1e-5 or 1e-32 (bf16 mode). */
typedef void vl_uk_finish_tiles(float *out, size_t ldo, const float *sums, const float *bias, int rows, int n,
                                vl_epilogue epi);
/* Integer modes, layouts and order of sums in quant.h. c [rows][32] (+)= a tile of x times `groups` groups
 * of a panel of int8 or int4 weights; rows <= 6. */
typedef void vl_uk_gemm_q(float *c, const uint32_t *tile, const uint8_t *panel, int groups, int rows,
                          bool add);
/* tile = x [rows, K] (ldx) quantised, ceil(K / 32) groups; missing rows and k are zero. pack_qt: rows <= 16. */
typedef void vl_uk_pack_q(uint32_t *tile, const float *x, size_t ldx, int rows, int K);
/* The same for many rows on tile registers (AMX), with the same bits: x: tiles of 16 rows as pack_qt makes them,
 * ldx words from one to the next; c has room for all their rows, and those of padding hold anything. groups <=
 * CPU_QKC / CPU_QG. next: the panel that comes next, to be asked for meanwhile, or NULL. Must not be called while
 * gemm_tiles has the thread's tiles configured. */
typedef void vl_uk_gemm_qt(float *c, const uint32_t *x, size_t ldx, const uint8_t *panel, const uint8_t *next, int groups,
                           int rows, bool add);
/* out [n] = epilogue(sum [n] + bias [n] or NULL); VL_EPI_ADD adds to out */
typedef void vl_uk_epilogue(float *out, const float *sum, const float *bias, int n,
                            vl_epilogue epi);
/* out [D] = (x - mean) / sqrt(var + eps) * w + bias; out may be x */
typedef void vl_uk_layernorm(float *out, const float *x, const float *w, const float *bias, int D,
                             float eps);
/* out [D] = x / sqrt(mean(x^2) + eps) * w; out may be x */
typedef void vl_uk_rmsnorm(float *out, const float *x, const float *w, int D, float eps);
/* x [E] in place: rotate_half RoPE; cos, sin [E/2] */
typedef void vl_uk_rope(float *x, const float *cos, const float *sin, int E);
/* out [n] = silu(gate) * up; out may be gate */
typedef void vl_uk_swiglu(float *out, const float *gate, const float *up, int n);
/* One online-softmax step for `lanes` <= 32 queries (lanes) over `keys` keys.
 *   s [keys][32]  in: q.k, out: p = exp(s * scale - m)      m, l [32]  running maximum and sum
 *   valid [32]    lane i sees the first valid[i] keys (others get p = 0)
 *   fix [32]      out: exp(m_old - m_new), what the running output must be scaled by
 * l is summed key by key. A lane that has seen no key keeps m = -inf, l = 0, with fix = 1. Lanes from
 * `lanes` up to the next vector may be computed as well; all arrays have 32. */
typedef void vl_uk_softmax(float *s, int keys, int lanes, const int32_t *valid, float scale, float *m,
                           float *l, float *fix);
/* o [E][32] *= fix [32] */
typedef void vl_uk_scale_lanes(float *o, const float *fix, int E);
/* Few queries of a key head. s [keys][32], its first `lanes` <= VL_GEMV_ROWS columns = q [lanes, E] (ldq) times keys of
 * a pool, k [panel of 32][E][32]. next: what is read after it, as many keys, to be asked for meanwhile; or NULL. */
typedef void vl_uk_score_keys(float *s, const float *q, size_t ldq, const float *k, int keys, int E, int lanes,
                              const float *next);
/* o [lanes][E] = o * fix [lanes] + sum over keys of p [keys][32] (a lane in a column) * v [keys, E] (ldv): their share of
 * a block. The sum starts from 0 and is then added, as a gemm with add does it. next: as above, rows ldv apart. */
typedef void vl_uk_mix_values(float *o, const float *fix, const float *p, const float *v, size_t ldv, int keys, int E,
                              int lanes, const float *next);
/* mix_values of bf16 mode: pairs of keys in p [n][32] and v [n][E], o [E] = o * fix + their products. */
typedef void vl_uk_mix_pairs(float *o, float fix, const uint32_t *p, const uint32_t *v, int n, int E);

/* ---- slots ------------------------------------------------------------------------------------ */
#define VL_SLOTS(S)              \
    S(gemm_wide, vl_uk_gemm)     \
    S(gemm_f32, vl_uk_gemm)      \
    S(widen_bf16, vl_uk_widen)   \
    S(gemm_dpbf16, vl_uk_gemm)   \
    S(gemm_tiles, vl_uk_gemm_tiles) \
    S(tiles_end, vl_uk_tiles_end) \
    S(pack_tiles, vl_uk_pack_tiles) \
    S(softmax_tiles, vl_uk_softmax_tiles) \
    S(finish_tiles, vl_uk_finish_tiles) \
    S(gemv_bf16, vl_uk_gemv)     \
    S(gemv_f32, vl_uk_gemv)      \
    S(gemv_dpbf16, vl_uk_gemv)   \
    S(pack_bf16, vl_uk_pack_bf16) \
    S(pack_rows, vl_uk_pack_rows) \
    S(pack_pairs, vl_uk_pack_pairs) \
    S(pair_rows, vl_uk_pair_rows) \
    S(epilogue, vl_uk_epilogue)  \
    S(layernorm, vl_uk_layernorm) \
    S(rmsnorm, vl_uk_rmsnorm)    \
    S(rope, vl_uk_rope)          \
    S(swiglu, vl_uk_swiglu)      \
    S(softmax, vl_uk_softmax)    \
    S(scale_lanes, vl_uk_scale_lanes) \
    S(score_keys, vl_uk_score_keys) \
    S(mix_values, vl_uk_mix_values) \
    S(mix_pairs, vl_uk_mix_pairs) \
    S(pack_q, vl_uk_pack_q)      \
    S(gemm_q8, vl_uk_gemm_q)     \
    S(gemm_q4, vl_uk_gemm_q)     \
    S(pack_qt, vl_uk_pack_q)     \
    S(gemm_q8_tiles, vl_uk_gemm_qt) \
    S(gemm_q4_tiles, vl_uk_gemm_qt)

typedef enum vl_slot {
#define SLOT(slot, type) VL_SLOT_##slot,
    VL_SLOTS(SLOT)
#undef SLOT
    VL_SLOT_COUNT
} vl_slot;

/* The prototype of every line. A line whose tier another architecture builds is declared, not used. */
#define SLOT(slot, type) typedef type vl_uk_of_##slot;
VL_SLOTS(SLOT)
#undef SLOT
#define UK(slot, tier, tile, function) vl_uk_of_##slot function;
#include "kernels/cpu/ukernels.def"
#undef UK

typedef enum vl_tier {
    VL_TIER_scalar, VL_TIER_avx2, VL_TIER_avx512, VL_TIER_avx512vnni, VL_TIER_avx512bf16,
    VL_TIER_amx, VL_TIER_neon, VL_TIERS
} vl_tier;

/* What start-up chose: the function and, for tiles, its number of rows. */
typedef struct vl_ukernels {
#define SLOT(slot, type) type *slot;
    VL_SLOTS(SLOT)
#undef SLOT
    int tile[VL_SLOT_COUNT];
    vl_tier tier[VL_SLOT_COUNT];
} vl_ukernels;

/* ---- lines (cpuid.c) ---------------------------------------------------------------------------- */

/* One line of ukernels.def. fn is cast back to the slot's type by whoever calls it. */
typedef struct vl_candidate {
    vl_slot slot;
    vl_tier tier;
    int tile;                      /* rows of a gemm tile, else 0                             */
    const char *name;              /* the function's name: file key, test, bench and trace row */
    void (*fn)(void);
} vl_candidate;

extern const vl_candidate vl_candidates[];
extern const int vl_candidate_count;
extern const char *const vl_tier_names[VL_TIERS], *const vl_slot_names[VL_SLOT_COUNT];

bool vl_tier_present(vl_tier t);   /* this machine has it, whatever VL_CPU says               */
/* The best present line of each slot, or the one that `tuning` (may be NULL) chose, under VL_CPU (a tier that caps
 * the choice) and VL_KERNEL (slot=function[,slot=function]: exactly that line). VL_E_UNSUPPORTED, naming what there is, for a
 * name that does not exist or that this machine cannot run. */
int vl_ukernels_resolve(vl_ukernels *out, const vl_tuning *tuning, vl_err *err);

#endif
