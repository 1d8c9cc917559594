/* test_warp.c: the PTX forms that are not lane-wise: loads and stores of every width, atomics,
 * shuffles, votes, match, redux, barrier reductions, branches, conversions of address spaces,
 * vector moves, cp.async, ldmatrix, stmatrix, mma. Each PTX body computes x9 from x0, x1 (two
 * random 64-bit values per lane; r9 is the lane); a C function says what x9 must be. */
#include "harness.h"

enum { LANES = 32 };
typedef struct { uint64_t a[LANES], b[LANES], out[LANES]; } Data;
typedef struct { const char *name, *body; void (*expect)(Data *d); } Case;

#define LANE(expr) for (int i = 0; i < LANES; i++) d->out[i] = (uint64_t)(expr)
#define EXPECT(name) static void name(Data *d)

/* ---- loads, stores, spaces ---- */
EXPECT(low8s) { LANE((int64_t)(int8_t)d->a[i]); }
EXPECT(low8u) { LANE((uint8_t)d->a[i]); }
EXPECT(low16s) { LANE((int64_t)(int16_t)d->a[i]); }
EXPECT(low16u) { LANE((uint16_t)d->a[i]); }
EXPECT(low32s) { LANE((int64_t)(int32_t)d->a[i]); }
EXPECT(low32u) { LANE((uint32_t)d->a[i]); }
EXPECT(all64) { LANE(d->a[i]); }
EXPECT(neighbour) { LANE(d->a[i ^ 1]); }
EXPECT(packed) { LANE((d->a[i] & 0xffff) << 16 | (d->b[i] & 0xffff)); }
EXPECT(packed64) { LANE(d->a[i] << 32 | (uint32_t)d->b[i]); }
EXPECT(sum4) {
    LANE((uint32_t)((uint32_t)d->a[i] + (d->a[i] >> 32) + (uint32_t)d->b[i] + (d->b[i] >> 32)));
}
EXPECT(swapped) { LANE(d->a[i] << 32 | d->a[i] >> 32); }
EXPECT(chosen) { LANE(i % 3 == 0 ? d->a[i] : d->b[i]); }
EXPECT(spaces) { LANE(1 + 2 * 0 + 4 * 1 + 8 * 1); }

/* ---- carries: 128-bit sums and products by 32- and 64-bit chains ---- */
typedef unsigned __int128 u128;
static u128 wide(const Data *d, int i) { return (u128)d->a[i] << 64 | d->b[i]; }
EXPECT(sum128) { LANE((wide(d, i) + wide(d, i) * 2 + 0) >> 64 ^ (uint64_t)(wide(d, i) * 3)); }
EXPECT(diff128) { u128 x; LANE((x = wide(d, i) - ((u128)d->b[i] << 64 | d->a[i]), x >> 64 ^ (uint64_t)x)); }
EXPECT(high64) { LANE((u128)d->a[i] * d->b[i] >> 64); }
EXPECT(low64) { LANE(d->a[i] * d->b[i]); }
EXPECT(is_less) { LANE((uint32_t)d->a[i] < (uint32_t)d->b[i] ? 0xffffffffu : 0); }
EXPECT(is_less_float) { LANE((uint32_t)d->a[i] < (uint32_t)d->b[i] && i >= 7 ? 0x3f800000u : 0); }

/* ---- across lanes ---- */
EXPECT(bfly3) { LANE((uint32_t)d->a[i ^ 3]); }
EXPECT(up1) { LANE((uint32_t)d->a[i ? i - 1 : 0] + (i ? 1ull << 32 : 0)); }
EXPECT(down8_16) { LANE((uint32_t)d->a[i % 16 < 8 ? i + 8 : i] + (i % 16 < 8 ? 1ull << 32 : 0)); }
EXPECT(idx5) { LANE((uint32_t)d->a[(i & 24) | 5]); }
static uint32_t odd_mask(const Data *d) {
    uint32_t m = 0;
    for (int i = 0; i < LANES; i++) m |= (uint32_t)(d->a[i] & 1) << i;
    return m;
}
EXPECT(ballot) { LANE(odd_mask(d)); }
EXPECT(votes) { uint32_t m = odd_mask(d); LANE((m == ~0u) + 2 * (m != 0) + 4 * (m == 0 || m == ~0u)); }
static uint32_t like(const Data *d, int i) {
    uint32_t m = 0;
    for (int j = 0; j < LANES; j++) m |= (uint32_t)((d->a[j] & 3) == (d->a[i] & 3)) << j;
    return m;
}
EXPECT(ballot_tiles) { uint32_t m = odd_mask(d); LANE(m & 0xffu << (i & 24)); }
EXPECT(add_tiles) {
    uint32_t v[4] = {0};
    for (int i = 0; i < LANES; i++) v[i / 8] += (uint32_t)d->a[i];
    LANE(v[i / 8]);
}
EXPECT(match_any) { LANE(like(d, i)); }
EXPECT(match_all) { LANE(like(d, i) == ~0u ? (1ull << 32 | ~0u) : 0); }
#define FOLD(name, init, step) \
    EXPECT(name) { \
        uint32_t v = init; \
        for (int k = 0; k < LANES; k++) { uint32_t x = (uint32_t)d->a[k]; v = step; } \
        LANE(v); \
    }
FOLD(redux_add, 0, v + x) FOLD(redux_and, ~0u, v & x) FOLD(redux_or, 0, v | x)
FOLD(redux_xor, 0, v ^ x) FOLD(redux_minu, ~0u, x < v ? x : v) FOLD(redux_maxu, 0, x > v ? x : v)
FOLD(redux_mins, 0x7fffffff, (int32_t)x < (int32_t)v ? x : v)
FOLD(redux_maxs, 0x80000000u, (int32_t)x > (int32_t)v ? x : v)
EXPECT(active) { LANE(i < 12 ? 0xfff : 0xfffff000u); }
EXPECT(elected) { LANE(i == 0 ? 1ull << 32 : 0); }
EXPECT(bar_popc) { LANE((uint32_t)__builtin_popcount(odd_mask(d))); }
EXPECT(bar_and_or) { uint32_t m = odd_mask(d); LANE((m == ~0u) + 2 * (m != 0)); }
EXPECT(lanemasks) { LANE((1u << i) + 3ull * ((1u << i) - 1) + ((uint32_t)(2ull << i) - 1)); }

/* ---- atomics: all lanes on one word that starts as 100 ---- */
static uint64_t fold_atomic(const Data *d, int op) {
    uint32_t v = 100;
    for (int i = 0; i < LANES; i++) {
        uint32_t x = (uint32_t)d->a[i] & 1023;
        switch (op) {
        case 0: v += x; break;
        case 1: v = x < v ? x : v; break;
        case 2: v = x > v ? x : v; break;
        case 3: v &= x; break;
        case 4: v |= x; break;
        case 5: v ^= x; break;
        case 6: v = v >= x ? 0 : v + 1; break;
        case 7: v = v == 0 || v > x ? x : v - 1; break;
        default: v = x; break;
        }
    }
    return v;
}
#define ATOMIC(name, k) EXPECT(name) { LANE(fold_atomic(d, k)); }
ATOMIC(a_add, 0) ATOMIC(a_min, 1) ATOMIC(a_max, 2) ATOMIC(a_and, 3) ATOMIC(a_or, 4)
ATOMIC(a_xor, 5) ATOMIC(a_inc, 6) ATOMIC(a_dec, 7) ATOMIC(a_exch, 8)
EXPECT(a_cas) { LANE(7); }
EXPECT(a_float) { float v = 0; for (int i = 0; i < LANES; i++) v += (float)i; uint32_t u;
                  memcpy(&u, &v, 4); LANE(u); }
EXPECT(a_old) { LANE(100 + (uint32_t)i); }
EXPECT(a_add64) { uint64_t v = 100; for (int i = 0; i < LANES; i++) v += d->a[i]; LANE(v); }
EXPECT(a_half2) { LANE(0x50005000); }       /* 32 * (1, 1) in fp16 */
EXPECT(a_bhalf2) { LANE(0x42004200); }

/* ---- control ---- */
EXPECT(table) { LANE(i % 4 == 0 ? 10 : i % 4 == 1 ? 20 : i % 4 == 2 ? 30 : 20); }
EXPECT(loop) { LANE((uint64_t)i * (uint64_t)(i + 1) / 2); }
EXPECT(converge) { LANE(i % 2 ? 16 * 100 + 32 : 16 * 100 + 33); }

/* ---- cp.async, ldmatrix, stmatrix ---- */
EXPECT(copy4) { LANE((uint32_t)d->a[i]); }
EXPECT(copy8) { LANE(d->a[i]); }
EXPECT(copy16) { LANE(d->a[i & ~1] ^ d->a[i | 1]); }
EXPECT(copy_part) { LANE(i % 2 ? (uint32_t)d->a[i] : 0); }
/* Shared memory holds a[0..31] (8 bytes each): matrix k is rows 8k..8k+7 of 16 bytes = a[2r], a[2r+1]
 * when the row addresses are sh + 16 * lane; 16 rows only, so x2 at most. */
static uint32_t half_at(const Data *d, int row, int col) {
    return (uint32_t)(d->a[row * 2 + col / 4] >> (16 * (col % 4))) & 0xffff;
}
EXPECT(ldm1) { LANE(half_at(d, i / 4, i % 4 * 2) | half_at(d, i / 4, i % 4 * 2 + 1) << 16); }
EXPECT(ldm1t) { LANE(half_at(d, i % 4 * 2, i / 4) | half_at(d, i % 4 * 2 + 1, i / 4) << 16); }
EXPECT(ldm2) {
    LANE((half_at(d, i / 4, i % 4 * 2) | half_at(d, i / 4, i % 4 * 2 + 1) << 16) |
         (uint64_t)(half_at(d, 8 + i / 4, i % 4 * 2) | half_at(d, 8 + i / 4, i % 4 * 2 + 1) << 16) << 32);
}
EXPECT(ldm4) {     /* rows of matrices 2, 3 are those of 0, 1 again */
    LANE(2ull * (half_at(d, i / 4, i % 4 * 2) | half_at(d, i / 4, i % 4 * 2 + 1) << 16));
}

#define STAGE "shl.b32 r0, r9, 3;\nmov.u32 r1, sh;\nadd.u32 r1, r1, r0;\nst.shared.b64 [r1], x0;\nbar.warp.sync -1;\n"
#define VIA(T, U, R) "st.local.b64 [loc+8], x0;\nld.local." T " " R ", [loc+8];\n"
#define ATOM(op) "mov.u32 r2, 100;\nst.shared.u32 [sh], r2;\nbar.warp.sync -1;\ncvt.u32.u64 r3, x0;\n" \
    "and.b32 r3, r3, 1023;\natom.shared." op " r4, [sh], r3;\nbar.warp.sync -1;\nld.shared.u32 r5, [sh];\n" \
    "cvt.u64.u32 x9, r5;\n"
#define REDUX(op) "cvt.u32.u64 r0, x0;\nredux.sync." op " r1, r0, -1;\ncvt.u64.u32 x9, r1;\n"
#define ODD "cvt.u32.u64 r0, x0;\nand.b32 r1, r0, 1;\nsetp.eq.u32 p1, r1, 1;\n"

static const Case cases[] = {
    {"ld.s8 into 64", VIA("s8", "b64", "x9"), low8s}, {"ld.u8 into 64", VIA("u8", "b64", "x9"), low8u},
    {"ld.s16 into 64", VIA("s16", "b64", "x9"), low16s}, {"ld.u16 into 64", VIA("u16", "b64", "x9"), low16u},
    {"ld.s32 into 64", VIA("s32", "b64", "x9"), low32s}, {"ld.b32 into 64", VIA("b32", "b64", "x9"), low32u},
    {"ld.s8 into 32", VIA("s8", "b64", "r2") "cvt.s64.s32 x9, r2;\n", low8s},
    {"ld.u8 into 16", VIA("u8", "b64", "h2") "cvt.u64.u16 x9, h2;\n", low8u},
    {"st.u32 of a 64-bit register", "mov.u64 x9, 0;\nst.local.u64 [loc], x9;\nst.local.u32 [loc], x0;\n"
     "ld.local.u64 x9, [loc];\n", low32u},
    {"st.u8 of a 64-bit register", "mov.u64 x9, 0;\nst.local.u64 [loc], x9;\nst.local.u8 [loc], x0;\n"
     "ld.local.u64 x9, [loc];\n", low8u},
    {"shared round trip", STAGE "mov.u32 r2, sh;\nxor.b32 r3, r0, 8;\nadd.u32 r2, r2, r3;\n"
     "ld.shared.u64 x9, [r2];\n", neighbour},
    {"generic shared", STAGE "mov.u64 x2, sh;\ncvta.shared.u64 x2, x2;\ncvt.u64.u32 x3, r0;\n"
     "xor.b64 x3, x3, 8;\nadd.u64 x2, x2, x3;\nld.u64 x9, [x2];\n", neighbour},
    {"generic local", "mov.u64 x2, loc;\ncvta.local.u64 x2, x2;\nst.u64 [x2+16], x0;\n"
     "ld.local.u64 x9, [loc+16];\n", all64},
    {"cvta.to", "mov.u64 x2, loc;\ncvta.local.u64 x3, x2;\ncvta.to.local.u64 x4, x3;\n"
     "st.local.u64 [x4], x0;\nld.u64 x9, [x3];\n", all64},
    {"isspacep", "mov.u64 x2, sh;\ncvta.shared.u64 x2, x2;\nisspacep.shared p1, x2;\n"
     "isspacep.local p2, x2;\nmov.u64 x3, loc;\ncvta.local.u64 x3, x3;\nisspacep.local p3, x3;\n"
     "isspacep.global p0, y0;\nselp.u64 x9, 1, 0, p1;\nselp.u64 x5, 2, 0, p2;\nadd.u64 x9, x9, x5;\n"
     "selp.u64 x5, 4, 0, p3;\nadd.u64 x9, x9, x5;\nselp.u64 x5, 8, 0, p0;\nadd.u64 x9, x9, x5;\n",
     spaces},
    {"mov.b32 of two halves", "cvt.u16.u64 h0, x0;\ncvt.u16.u64 h1, x1;\nmov.b32 r0, {h1, h0};\n"
     "cvt.u64.u32 x9, r0;\n", packed},
    {"mov.b64 of two words", "cvt.u32.u64 r0, x0;\ncvt.u32.u64 r1, x1;\nmov.b64 x9, {r1, r0};\n", packed64},
    {"mov.b64 to two words", "mov.b64 {r0, r1}, x0;\nmov.b64 x9, {r1, r0};\n", swapped},
    {"mov.b32 to two halves", "cvt.u32.u64 r0, x0;\nmov.b32 {h0, h1}, r0;\nmov.b32 r1, {h0, h1};\n"
     "cvt.u64.u32 x9, r1;\n", low32u},
    {"mov to _", "mov.b64 {_, r1}, x0;\nmov.b64 {r0, _}, x0;\nmov.b64 x9, {r1, r0};\n", swapped},
    {"vector store and load", "shl.b32 r0, r9, 4;\nmov.u32 r1, sh;\nadd.u32 r1, r1, r0;\n"
     "mov.b64 {r2, r3}, x0;\nmov.b64 {r4, r5}, x1;\nst.shared.v4.b32 [r1], {r2, r3, r4, r5};\n"
     "ld.shared.v2.u64 {x2, x3}, [r1];\nmov.b64 {r6, r7}, x2;\nadd.u32 r6, r6, r7;\n"
     "mov.b64 {r7, r8}, x3;\nadd.u32 r6, r6, r7;\nadd.u32 r6, r6, r8;\ncvt.u64.u32 x9, r6;\n", sum4},
    {"add.cc addc", "add.cc.u64 x2, x1, x1;\naddc.u64 x3, x0, x0;\nadd.cc.u64 x2, x2, x1;\n"
     "addc.cc.u64 x3, x3, x0;\nxor.b64 x9, x2, x3;\n", sum128},
    {"sub.cc subc", "sub.cc.s64 x2, x1, x0;\nsubc.s64 x3, x0, x1;\nxor.b64 x9, x2, x3;\n", diff128},
    {"mad.hi.cc", "mov.b64 {r0, r1}, x0;\nmov.b64 {r2, r3}, x1;\nmul.hi.u32 r4, r0, r2;\n"
     "mad.lo.cc.u32 r4, r0, r3, r4;\nmadc.hi.u32 r5, r0, r3, 0;\nmad.lo.cc.u32 r4, r1, r2, r4;\n"
     "madc.hi.cc.u32 r5, r1, r2, r5;\naddc.u32 r6, 0, 0;\nmad.lo.cc.u32 r5, r1, r3, r5;\n"
     "madc.hi.u32 r6, r1, r3, r6;\nmov.b64 x9, {r5, r6};\n", high64},
    {"madc.lo", "mov.b64 {r0, r1}, x0;\nmov.b64 {r2, r3}, x1;\nmul.lo.u32 r4, r0, r2;\n"
     "mul.hi.u32 r5, r0, r2;\nadd.cc.u32 r8, 0, 0;\nmadc.lo.u32 r5, r0, r3, r5;\nmad.lo.u32 r5, r1, r2, r5;\n"
     "mov.b64 x9, {r4, r5};\n", low64},
    {"set.u32", "cvt.u32.u64 r0, x0;\ncvt.u32.u64 r1, x1;\nset.lt.u32.u32 r2, r0, r1;\n"
     "cvt.u64.u32 x9, r2;\n", is_less},
    {"set.and.f32", "cvt.u32.u64 r0, x0;\ncvt.u32.u64 r1, x1;\nsetp.ge.u32 p1, r9, 7;\n"
     "set.lt.and.f32.u32 r2, r0, r1, p1;\ncvt.u64.u32 x9, r2;\n", is_less_float},
    {"selp", "rem.u32 r0, r9, 3;\nsetp.eq.u32 p1, r0, 0;\nselp.b64 x9, x0, x1, p1;\n", chosen},
    {"guards", "rem.u32 r0, r9, 3;\nsetp.eq.u32 p1, r0, 0;\n@p1 mov.u64 x9, x0;\n@!p1 mov.u64 x9, x1;\n",
     chosen},
    {"setp p|q and", "rem.u32 r0, r9, 3;\nsetp.ge.u32 p2, r9, 0;\nsetp.eq.and.u32 p1|p3, r0, 0, p2;\n"
     "mov.u64 x9, 0;\n@p1 mov.u64 x9, x0;\n@p3 mov.u64 x9, x1;\n", chosen},
    {"predicate logic", "rem.u32 r0, r9, 3;\nsetp.eq.u32 p1, r0, 0;\nmov.pred p2, -1;\n"
     "and.pred p3, p1, p2;\nnot.pred p2, p3;\nxor.pred p2, p2, p1;\nor.pred p2, p2, p3;\n"
     "and.pred p3, p3, p2;\nselp.b64 x9, x0, x1, p3;\n", chosen},
    {"shfl.bfly", "cvt.u32.u64 r0, x0;\nshfl.sync.bfly.b32 r1, r0, 3, 31, -1;\ncvt.u64.u32 x9, r1;\n", bfly3},
    {"shfl.up", "cvt.u32.u64 r0, x0;\nshfl.sync.up.b32 r1|p1, r0, 1, 0, -1;\nselp.u32 r2, 1, 0, p1;\n"
     "mov.b64 x9, {r1, r2};\n", up1},
    {"shfl.down, width 16", "cvt.u32.u64 r0, x0;\nshfl.sync.down.b32 r1|p1, r0, 8, 0x100f, -1;\n"
     "selp.u32 r2, 1, 0, p1;\nmov.b64 x9, {r1, r2};\n", down8_16},
    {"shfl.idx, width 8", "cvt.u32.u64 r0, x0;\nshfl.sync.idx.b32 r1, r0, 5, 0x181f, -1;\n"
     "cvt.u64.u32 x9, r1;\n", idx5},
    {"vote.ballot", ODD "vote.sync.ballot.b32 r2, p1, -1;\ncvt.u64.u32 x9, r2;\n", ballot},
    {"vote.ballot of tiles", ODD "and.b32 r3, r9, 24;\nmov.u32 r4, 255;\nshl.b32 r4, r4, r3;\n"
     "vote.sync.ballot.b32 r2, p1, r4;\ncvt.u64.u32 x9, r2;\n", ballot_tiles},
    {"redux of tiles", ODD "and.b32 r3, r9, 24;\nmov.u32 r4, 255;\nshl.b32 r4, r4, r3;\n"
     "redux.sync.add.u32 r2, r0, r4;\ncvt.u64.u32 x9, r2;\n", add_tiles},
    {"vote.all any uni", ODD "vote.sync.all.pred p0, p1, -1;\nvote.sync.any.pred p2, p1, -1;\n"
     "vote.sync.uni.pred p3, p1, -1;\nselp.u64 x9, 1, 0, p0;\nselp.u64 x2, 2, 0, p2;\nadd.u64 x9, x9, x2;\n"
     "selp.u64 x2, 4, 0, p3;\nadd.u64 x9, x9, x2;\n", votes},
    {"match.any", "cvt.u32.u64 r0, x0;\nand.b32 r0, r0, 3;\nmatch.any.sync.b32 r1, r0, -1;\n"
     "cvt.u64.u32 x9, r1;\n", match_any},
    {"match.all", "and.b64 x2, x0, 3;\nmatch.all.sync.b64 r1|p1, x2, -1;\nselp.u32 r2, 1, 0, p1;\n"
     "mov.b64 x9, {r1, r2};\n", match_all},
    {"redux.add", REDUX("add.u32"), redux_add}, {"redux.and", REDUX("and.b32"), redux_and},
    {"redux.or", REDUX("or.b32"), redux_or}, {"redux.xor", REDUX("xor.b32"), redux_xor},
    {"redux.min.u32", REDUX("min.u32"), redux_minu}, {"redux.max.u32", REDUX("max.u32"), redux_maxu},
    {"redux.min.s32", REDUX("min.s32"), redux_mins}, {"redux.max.s32", REDUX("max.s32"), redux_maxs},
    {"activemask", "setp.lt.u32 p1, r9, 12;\n@p1 bra less;\nactivemask.b32 r0;\nbra done;\nless:\n"
     "activemask.b32 r0;\ndone:\ncvt.u64.u32 x9, r0;\n", active},
    {"elect", "elect.sync r0|p1, -1;\nselp.u32 r1, 1, 0, p1;\nmov.b64 x9, {r0, r1};\n", elected},
    {"bar.red.popc", ODD "bar.red.popc.u32 r2, 0, p1;\ncvt.u64.u32 x9, r2;\n", bar_popc},
    {"bar.red.and or", ODD "bar.red.and.pred p2, 0, p1;\nbar.red.or.pred p3, 0, p1;\n"
     "selp.u64 x9, 1, 0, p2;\nselp.u64 x2, 2, 0, p3;\nadd.u64 x9, x9, x2;\n", bar_and_or},
    {"lane masks", "mov.u32 r0, %lanemask_eq;\ncvt.u64.u32 x9, r0;\nmov.u32 r0, %lanemask_lt;\n"
     "cvt.u64.u32 x2, r0;\nmad.lo.u64 x9, x2, 3, x9;\nmov.u32 r0, %lanemask_le;\ncvt.u64.u32 x2, r0;\n"
     "add.u64 x9, x9, x2;\n", lanemasks},
    {"atom.add", ATOM("add.u32"), a_add}, {"atom.min", ATOM("min.u32"), a_min},
    {"atom.max", ATOM("max.u32"), a_max}, {"atom.and", ATOM("and.b32"), a_and},
    {"atom.or", ATOM("or.b32"), a_or}, {"atom.xor", ATOM("xor.b32"), a_xor},
    {"atom.inc", ATOM("inc.u32"), a_inc}, {"atom.dec", ATOM("dec.u32"), a_dec},
    {"atom.exch", ATOM("exch.b32"), a_exch},
    {"atom.cas", "mov.u32 r2, 100;\nst.shared.u32 [sh], r2;\nbar.warp.sync -1;\n"
     "atom.shared.cas.b32 r4, [sh], 100, 7;\nbar.warp.sync -1;\nld.shared.u32 r5, [sh];\n"
     "cvt.u64.u32 x9, r5;\n", a_cas},
    {"atom.add.f32", "mov.u32 r2, 0;\nst.shared.u32 [sh], r2;\nbar.warp.sync -1;\ncvt.rn.f32.u32 r3, r9;\n"
     "atom.shared.add.f32 r4, [sh], r3;\nbar.warp.sync -1;\nld.shared.u32 r5, [sh];\ncvt.u64.u32 x9, r5;\n",
     a_float},
    {"atom returns the old value", "mov.u32 r2, 100;\nst.shared.u32 [sh], r2;\nbar.warp.sync -1;\n"
     "atom.shared.add.u32 r4, [sh], 1;\ncvt.u64.u32 x9, r4;\n", a_old},
    {"red.u64", "mov.u64 x2, 100;\nst.shared.u64 [sh], x2;\nbar.warp.sync -1;\n"
     "red.shared.add.u64 [sh], x0;\nbar.warp.sync -1;\nld.shared.u64 x9, [sh];\n", a_add64},
    {"red.f16x2", "mov.u32 r2, 0;\nst.shared.u32 [sh], r2;\nbar.warp.sync -1;\nmov.u32 r3, 0x3c003c00;\n"
     "red.shared.add.noftz.f16x2 [sh], r3;\nbar.warp.sync -1;\nld.shared.u32 r5, [sh];\n"
     "cvt.u64.u32 x9, r5;\n", a_half2},
    {"red.bf16x2", "mov.u32 r2, 0;\nst.shared.u32 [sh], r2;\nbar.warp.sync -1;\nmov.u32 r3, 0x3f803f80;\n"
     "red.shared.add.noftz.bf16x2 [sh], r3;\nbar.warp.sync -1;\nld.shared.u32 r5, [sh];\n"
     "cvt.u64.u32 x9, r5;\n", a_bhalf2},
    {"brx.idx", "and.b32 r0, r9, 3;\nts: .branchtargets L10, L20, L30, L20;\nbrx.idx r0, ts;\nL10:\n"
     "mov.u64 x9, 10;\nbra.uni Lend;\nL20:\nmov.u64 x9, 20;\nbra.uni Lend;\nL30:\nmov.u64 x9, 30;\nLend:\n",
     table},
    {"loop of different lengths", "mov.u64 x9, 0;\nmov.u32 r0, r9;\nLh:\nsetp.eq.u32 p1, r0, 0;\n"
     "@p1 bra Lx;\ncvt.u64.u32 x2, r0;\nadd.u64 x9, x9, x2;\nsub.u32 r0, r0, 1;\nbra Lh;\nLx:\n", loop},
    {"lanes meet again", "and.b32 r0, r9, 1;\nsetp.eq.u32 p1, r0, 1;\n@p1 bra La;\nactivemask.b32 r1;\n"
     "mov.u64 x9, 1;\nbra Lb;\nLa:\nactivemask.b32 r1;\nmov.u64 x9, 0;\nLb:\npopc.b32 r1, r1;\n"
     "activemask.b32 r2;\npopc.b32 r2, r2;\nmul.lo.u32 r1, r1, 100;\nadd.u32 r1, r1, r2;\n"
     "cvt.u64.u32 x2, r1;\nadd.u64 x9, x9, x2;\n", converge},
    {"cp.async 4", "shl.b32 r0, r9, 2;\nmov.u32 r1, sh;\nadd.u32 r1, r1, r0;\n"
     "cp.async.ca.shared.global [r1], [y0], 4;\ncp.async.commit_group;\ncp.async.wait_group 0;\n"
     "bar.warp.sync -1;\nld.shared.u32 r2, [r1];\ncvt.u64.u32 x9, r2;\n", copy4},
    {"cp.async 8", "shl.b32 r0, r9, 3;\nmov.u32 r1, sh;\nadd.u32 r1, r1, r0;\n"
     "cp.async.ca.shared.global [r1], [y0], 8;\ncp.async.wait_all;\nld.shared.u64 x9, [r1];\n", copy8},
    {"cp.async 16", "shr.u32 r2, r9, 1;\nshl.b32 r0, r2, 4;\nmov.u32 r1, sh;\nadd.u32 r1, r1, r0;\n"
     "and.b32 r3, r9, 1;\nsetp.eq.u32 p1, r3, 0;\n@p1 cp.async.cg.shared.global.L2::128B [r1], [y3], 16;\n"
     "cp.async.commit_group;\ncp.async.wait_group 0;\nbar.warp.sync -1;\nld.shared.v2.u64 {x2, x3}, [r1];\n"
     "xor.b64 x9, x2, x3;\n", copy16},
    {"cp.async with a size", "shl.b32 r0, r9, 2;\nmov.u32 r1, sh;\nadd.u32 r1, r1, r0;\nand.b32 r2, r9, 1;\n"
     "shl.b32 r2, r2, 2;\ncp.async.ca.shared.global [r1], [y0], 4, r2;\ncp.async.wait_all;\n"
     "ld.shared.u32 r2, [r1];\ncvt.u64.u32 x9, r2;\n", copy_part},
    {"ldmatrix.x1", STAGE "and.b32 r2, r9, 15;\nshl.b32 r2, r2, 4;\nmov.u32 r3, sh;\nadd.u32 r3, r3, r2;\n"
     "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {r4}, [r3];\ncvt.u64.u32 x9, r4;\n", ldm1},
    {"ldmatrix.x1.trans", STAGE "and.b32 r2, r9, 15;\nshl.b32 r2, r2, 4;\nmov.u32 r3, sh;\n"
     "add.u32 r3, r3, r2;\nldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {r4}, [r3];\n"
     "cvt.u64.u32 x9, r4;\n", ldm1t},
    {"ldmatrix.x2", STAGE "and.b32 r2, r9, 15;\nshl.b32 r2, r2, 4;\nmov.u32 r3, sh;\nadd.u32 r3, r3, r2;\n"
     "ldmatrix.sync.aligned.m8n8.x2.shared.b16 {r4, r5}, [r3];\nmov.b64 x9, {r4, r5};\n", ldm2},
    {"ldmatrix.x4", STAGE "and.b32 r2, r9, 15;\nshl.b32 r2, r2, 4;\nmov.u32 r3, sh;\nadd.u32 r3, r3, r2;\n"
     "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {r4, r5, r6, r7}, [r3];\ncvt.u64.u32 x2, r4;\n"
     "cvt.u64.u32 x3, r6;\nadd.u64 x9, x2, x3;\n", ldm4},
    {"stmatrix.x2", STAGE "and.b32 r2, r9, 15;\nshl.b32 r2, r2, 4;\nmov.u32 r3, sh;\nadd.u32 r3, r3, r2;\n"
     "ldmatrix.sync.aligned.m8n8.x2.shared.b16 {r4, r5}, [r3];\nadd.u32 r3, r3, 256;\n"
     "stmatrix.sync.aligned.m8n8.x2.shared.b16 [r3], {r4, r5};\nbar.warp.sync -1;\n"
     "ld.shared.u64 x9, [r1+256];\n", all64},
    {"stmatrix.x1.trans", STAGE "and.b32 r2, r9, 7;\nshl.b32 r2, r2, 4;\nmov.u32 r3, sh;\nadd.u32 r3, r3, r2;\n"
     "ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {r4}, [r3];\nadd.u32 r3, r3, 256;\n"
     "stmatrix.sync.aligned.m8n8.x1.trans.shared.b16 [r3], {r4};\nbar.warp.sync -1;\nmov.u64 x9, x0;\n"
     "setp.lt.u32 p1, r9, 16;\n@p1 ld.shared.u64 x9, [r1+256];\n", all64},
};
enum { CASES = sizeof cases / sizeof *cases };

static const char head[] =
    ".visible .entry k%d(.param .u64 a, .param .u64 d)\n{\n.reg .pred p<4>;\n.reg .b16 h<10>;\n"
    ".reg .b32 r<30>;\n.reg .b64 x<10>;\n.reg .b64 y<4>;\n.shared .align 16 .b8 sh[4096];\n"
    ".local .align 16 .b8 loc[64];\nld.param.u64 y0, [a];\nld.param.u64 y1, [d];\n"
    "mov.u32 r9, %%laneid;\nmul.wide.u32 x8, r9, 16;\nmov.u64 y3, y0;\nadd.u64 y0, y0, x8;\n"
    "mul.wide.u32 x8, r9, 8;\nadd.u64 y1, y1, x8;\nld.global.u64 x0, [y0];\nld.global.u64 x1, [y0+8];\n"
    "add.u64 y3, y3, 512;\nadd.u64 y3, y3, x8;\n";

static void test_bodies(void) {
    char *text = malloc(CASES * 2048 + 256);
    size_t k = (size_t)sprintf(text, ".version 8.6\n.target sm_100\n.address_size 64\n");
    for (int i = 0; i < CASES; i++) {
        k += (size_t)sprintf(text + k, head, i);
        k += (size_t)sprintf(text + k, "%sst.global.u64 [y1], x9;\nret;\n}\n", cases[i].body);
    }
    CUmodule mod;
    int r = cuModuleLoadDataEx(&mod, text, 0, NULL, NULL);
    CHECK(!r, "%s", gpusim_report_count() ? gpusim_report_at(0)->message : "load");
    for (int i = 0; !r && i < CASES * 4; i++) {
        const Case *c = &cases[i % CASES];
        Data d;
        uint64_t in[LANES * 3], got[LANES];
        for (int j = 0; j < LANES; j++) {
            d.a[j] = (uint64_t)rnd() << 32 | rnd();
            d.b[j] = (uint64_t)rnd() << 32 | rnd();
            if (i >= 2 * CASES && i < 3 * CASES) d.a[j] |= 3;      /* all odd, all alike */
            in[2 * j] = d.a[j];
            in[2 * j + 1] = d.b[j];
            in[2 * LANES + j] = d.a[j];
        }
        CUdeviceptr din = upload(in, sizeof in), dout = device(sizeof got);
        CUfunction f;
        char name[16];
        sprintf(name, "k%d", i % CASES);
        MUST(cuModuleGetFunction(&f, mod, name));
        MUST(cuLaunchKernel(f, 1, 1, 1, LANES, 1, 1, 0, NULL, (void *[]){&din, &dout}, NULL));
        MUST(download(got, dout, sizeof got));
        c->expect(&d);
        int bad = -1;
        for (int j = 0; j < LANES; j++) if (bad < 0 && got[j] != d.out[j]) bad = j;
        CHECK(bad < 0, "%s: lane %d is %llx, expected %llx", c->name, bad,
              (unsigned long long)got[bad & 31], (unsigned long long)d.out[bad & 31]);
        CHECK(gpusim_report_count() == 0, "%s has findings", c->name);
        if (gpusim_report_count()) print_reports();
        gpusim_reset_reports();
    }
}

/* ---- mma: fragments as the PTX ISA draws them, values small enough to sum exactly ---- */

typedef struct { const char *op; int k, per, kind; } Mma;   /* kind 0 bf16 1 f16 2 tf32 3 s8 4 u8 5 f16 out */
static const Mma mmas[] = {
    {"m16n8k16.row.col.f32.bf16.bf16.f32", 16, 2, 0}, {"m16n8k8.row.col.f32.bf16.bf16.f32", 8, 2, 0},
    {"m16n8k16.row.col.f32.f16.f16.f32", 16, 2, 1}, {"m16n8k8.row.col.f32.f16.f16.f32", 8, 2, 1},
    {"m16n8k16.row.col.f16.f16.f16.f16", 16, 2, 5}, {"m16n8k8.row.col.f16.f16.f16.f16", 8, 2, 5},
    {"m16n8k8.row.col.f32.tf32.tf32.f32", 8, 1, 2}, {"m16n8k4.row.col.f32.tf32.tf32.f32", 4, 1, 2},
    {"m16n8k32.row.col.s32.s8.s8.s32", 32, 4, 3}, {"m16n8k16.row.col.s32.s8.s8.s32", 16, 4, 3},
    {"m16n8k32.row.col.s32.u8.u8.s32", 32, 4, 4}, {"m16n8k16.row.col.s32.u8.u8.s32", 16, 4, 4},
};
enum { MMAS = sizeof mmas / sizeof *mmas };

static uint32_t encode(int kind, int v) {
    float f = (float)v;
    uint32_t u;
    uint16_t h;
    _Float16 x = (_Float16)f;
    memcpy(&u, &f, 4);
    memcpy(&h, &x, 2);
    return kind == 0 ? u >> 16 : kind == 1 || kind == 5 ? h : kind == 2 ? u : (uint32_t)v & 255;
}

static void test_mma(CUmodule mod, int which, const char *order) {
    const Mma *m = &mmas[which];
    int a[16][32], b[32][8], c[16][8], na = m->k / (2 * m->per), nb = na / 2;
    int nc = m->kind == 5 ? 2 : 4, bits = 32 / m->per, group = 4 * m->per;
    uint32_t in[32][12] = {0}, out[32][4];
    for (int i = 0; i < 16; i++) for (int k = 0; k < m->k; k++) a[i][k] = (int)(rnd() % 15) - (m->kind == 4 ? 0 : 7);
    for (int k = 0; k < m->k; k++) for (int j = 0; j < 8; j++) b[k][j] = (int)(rnd() % 15) - (m->kind == 4 ? 0 : 7);
    for (int i = 0; i < 16; i++) for (int j = 0; j < 8; j++) c[i][j] = (int)(rnd() % 100) - 50;
    for (int l = 0; l < 32; l++) {
        int g = l / 4, t = l % 4;
        for (int q = 0; q < na; q++)
            for (int e = 0; e < m->per; e++)
                in[l][q] |= encode(m->kind, a[g + 8 * (q & 1)][t * m->per + e + group * (q >> 1)]) << (bits * e);
        for (int q = 0; q < nb; q++)
            for (int e = 0; e < m->per; e++)
                in[l][4 + q] |= encode(m->kind, b[t * m->per + e + group * q][g]) << (bits * e);
        for (int q = 0; q < nc; q++) {
            float f = (float)c[g + 8 * (q >> 1)][2 * t + (q & 1)];
            if (m->kind == 5)
                in[l][6 + q] = encode(5, c[g + 8 * q][2 * t]) | encode(5, c[g + 8 * q][2 * t + 1]) << 16;
            else if (m->kind >= 3) in[l][6 + q] = (uint32_t)c[g + 8 * (q >> 1)][2 * t + (q & 1)];
            else memcpy(&in[l][6 + q], &f, 4);
        }
    }
    CUdeviceptr din = upload(in, sizeof in), dout = device(sizeof out);
    CUfunction f;
    char name[16];
    sprintf(name, "m%d", which);
    MUST(cuModuleGetFunction(&f, mod, name));
    gpusim_set("mma", order);
    MUST(cuLaunchKernel(f, 1, 1, 1, 32, 1, 1, 0, NULL, (void *[]){&din, &dout}, NULL));
    MUST(download(out, dout, sizeof out));
    int bad = 0;
    for (int l = 0; l < 32; l++)
        for (int q = 0; q < nc; q++) {
            int row = l / 4 + 8 * (m->kind == 5 ? q : q >> 1), col = l % 4 * 2 + (q & 1);
            if (m->kind == 5) col = l % 4 * 2;
            int s = c[row][col], s2 = c[row][col + 1 < 8 ? col + 1 : 0];
            for (int k = 0; k < m->k; k++) s += a[row][k] * b[k][col];
            for (int k = 0; k < m->k; k++) s2 += a[row][k] * b[k][col + 1 < 8 ? col + 1 : 0];
            float fs = (float)s;
            uint32_t want;
            memcpy(&want, &fs, 4);
            if (m->kind == 5) want = encode(5, s) | encode(5, s2) << 16;
            if (m->kind == 3 || m->kind == 4) want = (uint32_t)s;
            bad += out[l][q] != want;
        }
    CHECK(!bad, "mma %s, order %s: %d wrong", m->op, order, bad);
}

static void test_mmas(void) {
    char *text = malloc(MMAS * 2048 + 256);
    size_t k = (size_t)sprintf(text, ".version 8.6\n.target sm_100\n.address_size 64\n");
    for (int i = 0; i < MMAS; i++) {
        int na = mmas[i].k / (2 * mmas[i].per), nc = mmas[i].kind == 5 ? 2 : 4;
        k += (size_t)sprintf(text + k, ".visible .entry m%d(.param .u64 a, .param .u64 d)\n{\n"
            ".reg .b32 r<30>;\n.reg .b64 y<4>;\nld.param.u64 y0, [a];\nld.param.u64 y1, [d];\n"
            "mov.u32 r20, %%laneid;\nmul.wide.u32 y2, r20, 48;\nadd.u64 y0, y0, y2;\n"
            "mul.wide.u32 y2, r20, 16;\nadd.u64 y1, y1, y2;\n", i);
        for (int q = 0; q < 10; q++)
            k += (size_t)sprintf(text + k, "ld.global.u32 r%d, [y0+%d];\n", q, 4 * q);
        k += (size_t)sprintf(text + k, "mov.u32 r14, 0;\nmov.u32 r15, 0;\nmma.sync.aligned.%s {", mmas[i].op);
        for (int q = 0; q < nc; q++) k += (size_t)sprintf(text + k, "%sr%d", q ? ", " : "", 12 + q);
        k += (size_t)sprintf(text + k, "}, {");
        for (int q = 0; q < na; q++) k += (size_t)sprintf(text + k, "%sr%d", q ? ", " : "", q);
        k += (size_t)sprintf(text + k, "}, {");
        for (int q = 0; q < na / 2; q++) k += (size_t)sprintf(text + k, "%sr%d", q ? ", " : "", 4 + q);
        k += (size_t)sprintf(text + k, "}, {");
        for (int q = 0; q < nc; q++) k += (size_t)sprintf(text + k, "%sr%d", q ? ", " : "", 6 + q);
        k += (size_t)sprintf(text + k, "};\nst.global.v4.u32 [y1], {r12, r13, r14, r15};\nret;\n}\n");
    }
    CUmodule mod;
    int r = cuModuleLoadDataEx(&mod, text, 0, NULL, NULL);
    CHECK(!r, "%s", gpusim_report_count() ? gpusim_report_at(0)->message : "load");
    static const char *orders[] = {"fma", "block", "reverse"};
    for (int i = 0; !r && i < MMAS * 3; i++) test_mma(mod, i % MMAS, orders[i / MMAS]);
    gpusim_set("mma", "fma");
}

int main(int argc, char **argv) {
    open_driver(argc, argv);
    test_bodies();
    test_mmas();
    return finish();
}
