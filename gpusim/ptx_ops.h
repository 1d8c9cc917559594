/* ptx_ops.h: the table of lane-wise PTX instructions, one line per form (or per family of types).
 *
 * Included by alu.c, which defines the row macros:
 *   A1/A2/A3(class, form, dst, a[, b[, c]], expression)   d = expression of a, b, c
 *   CMP(form, type, condition)                            setp, with or without and/or/xor
 * A form is the PTX opcode with '.' and '::' written as '_': fma.rn.f32 is fma_rn_f32.
 * Types name both the C type of a lane and how it is stored (alu.c). No include guard: the file
 * is expanded once for the functions and once for the table. */

/* ---- moves and bit operations ---- */
#define MOVE(T, C) A1(C_MOVE, mov_##T, C, C, a)
MOVE(b16, u16) MOVE(u16, u16) MOVE(s16, u16) MOVE(b32, u32) MOVE(u32, u32) MOVE(s32, u32)
MOVE(f32, u32) MOVE(b64, u64) MOVE(u64, u64) MOVE(s64, u64) MOVE(f64, u64) MOVE(f16, u16)
#undef MOVE
#define BITS(T, C) \
    A2(C_INT, and_##T, C, C, C, a & b) A2(C_INT, or_##T, C, C, C, a | b) \
    A2(C_INT, xor_##T, C, C, C, a ^ b) A1(C_INT, not_##T, C, C, ~a) \
    A1(C_INT, cnot_##T, C, C, a == 0) A2(C_INT, shl_##T, C, C, u32, shift_left(a, b, sizeof a))
BITS(b16, u16) BITS(b32, u32) BITS(b64, u64)
#undef BITS
#define SHR(T, C) A2(C_INT, shr_##T, C, C, u32, shift_right_##C(a, b))
SHR(b16, u16) SHR(u16, u16) SHR(s16, s16) SHR(b32, u32) SHR(u32, u32) SHR(s32, s32)
SHR(b64, u64) SHR(u64, u64) SHR(s64, s64)
#undef SHR
A3(C_INT, shf_l_wrap_b32, u32, u32, u32, u32, funnel(b, a, 32 - (c & 31)))
A3(C_INT, shf_r_wrap_b32, u32, u32, u32, u32, funnel(b, a, c & 31))
A3(C_INT, shf_l_clamp_b32, u32, u32, u32, u32, funnel(b, a, 32 - (c > 32 ? 32 : c)))
A3(C_INT, shf_r_clamp_b32, u32, u32, u32, u32, funnel(b, a, c > 32 ? 32 : c))
A3(C_INT, prmt_b32, u32, u32, u32, u32, permute_bytes(a, b, c))
A3(C_INT, bfe_u32, u32, u32, u32, u32, extract_u(a, b, c, 32))
A3(C_INT, bfe_s32, s32, s32, u32, u32, extract_s(a, b, c, 32))
A3(C_INT, bfe_u64, u64, u64, u32, u32, extract_u(a, b, c, 64))
A3(C_INT, bfe_s64, s64, s64, u32, u32, extract_s(a, b, c, 64))
A4(C_INT, bfi_b32, u32, u32, u32, u32, u32, insert_bits(a, b, c, e, 32))
A4(C_INT, bfi_b64, u64, u64, u64, u32, u32, insert_bits(a, b, c, e, 64))
A4(C_INT, lop3_b32, u32, u32, u32, u32, u32, lop3(a, b, c, e))
A1(C_INT, brev_b32, u32, u32, reverse_bits(a))
A1(C_INT, brev_b64, u64, u64, (uint64_t)reverse_bits((uint32_t)a) << 32 |
                              reverse_bits((uint32_t)(a >> 32)))
A1(C_INT, popc_b32, u32, u32, __builtin_popcount(a))
A1(C_INT, popc_b64, u32, u64, __builtin_popcountll(a))
A1(C_INT, clz_b32, u32, u32, a ? __builtin_clz(a) : 32)
A1(C_INT, clz_b64, u32, u64, a ? __builtin_clzll(a) : 64)
A1(C_INT, bfind_u32, u32, u32, a ? 31 - __builtin_clz(a) : -1)
A1(C_INT, bfind_s32, u32, u32, find_sign(a))
A1(C_INT, bfind_u64, u32, u64, a ? 63 - __builtin_clzll(a) : -1)
A1(C_INT, bfind_shiftamt_u32, u32, u32, a ? __builtin_clz(a) : -1)
A1(C_INT, bfind_shiftamt_s32, u32, u32, find_sign(a) == ALL ? ALL : 31 - find_sign(a))
A1(C_INT, bfind_shiftamt_u64, u32, u64, a ? __builtin_clzll(a) : -1)

/* ---- integers ---- */
#define INT(T) \
    A2(C_INT, add_##T, T, T, T, a + b) A2(C_INT, sub_##T, T, T, T, a - b) \
    A2(C_INT, mul_lo_##T, T, T, T, a * b) A3(C_INT, mad_lo_##T, T, T, T, T, a * b + c) \
    A2(C_INT, div_##T, T, T, T, divide_##T(a, b)) \
    A2(C_INT, rem_##T, T, T, T, remainder_##T(a, b)) \
    A2(C_INT, min_##T, T, T, T, a < b ? a : b) A2(C_INT, max_##T, T, T, T, a > b ? a : b)
INT(u16) INT(s16) INT(u32) INT(s32) INT(u64) INT(s64)
#undef INT
#define SINT(T) A1(C_INT, neg_##T, T, T, -a) A1(C_INT, abs_##T, T, T, a < 0 ? -a : a)
SINT(s16) SINT(s32) SINT(s64)
#undef SINT
#define WIDE(T, W, BITS) \
    A2(C_INT, mul_wide_##T, W, T, T, (W##_t)a * (W##_t)b) \
    A3(C_INT, mad_wide_##T, W, T, T, W, (W##_t)a * (W##_t)b + c) \
    A2(C_INT, mul_hi_##T, T, T, T, ((W##_t)a * (W##_t)b) >> BITS) \
    A3(C_INT, mad_hi_##T, T, T, T, T, (T##_t)(((W##_t)a * (W##_t)b) >> BITS) + c)
WIDE(u16, u32, 16) WIDE(s16, s32, 16) WIDE(u32, u64, 32) WIDE(s32, s64, 32)
#undef WIDE
A2(C_INT, mul_hi_u64, u64, u64, u64, ((unsigned __int128)a * b) >> 64)
A2(C_INT, mul_hi_s64, s64, s64, s64, ((__int128)a * b) >> 64)
/* The carry of a lane lives in the warp (w, i: the running warp and lane). */
#define CARRY(T, U) \
    A2(C_INT, add_cc_##T, U, U, U, carry_add(w, i, a, b, 0, 1, sizeof a)) \
    A2(C_INT, addc_##T, U, U, U, carry_add(w, i, a, b, 1, 0, sizeof a)) \
    A2(C_INT, addc_cc_##T, U, U, U, carry_add(w, i, a, b, 1, 1, sizeof a)) \
    A2(C_INT, sub_cc_##T, U, U, U, carry_sub(w, i, a, b, 0, 1, sizeof a)) \
    A2(C_INT, subc_##T, U, U, U, carry_sub(w, i, a, b, 1, 0, sizeof a)) \
    A2(C_INT, subc_cc_##T, U, U, U, carry_sub(w, i, a, b, 1, 1, sizeof a)) \
    A3(C_INT, mad_lo_cc_##T, U, U, U, U, carry_add(w, i, a * b, c, 0, 1, sizeof a)) \
    A3(C_INT, madc_lo_##T, U, U, U, U, carry_add(w, i, a * b, c, 1, 0, sizeof a)) \
    A3(C_INT, madc_lo_cc_##T, U, U, U, U, carry_add(w, i, a * b, c, 1, 1, sizeof a)) \
    A3(C_INT, mad_hi_cc_##T, U, U, U, U, carry_add(w, i, high_##T(a, b), c, 0, 1, sizeof a)) \
    A3(C_INT, madc_hi_##T, U, U, U, U, carry_add(w, i, high_##T(a, b), c, 1, 0, sizeof a)) \
    A3(C_INT, madc_hi_cc_##T, U, U, U, U, carry_add(w, i, high_##T(a, b), c, 1, 1, sizeof a))
CARRY(u32, u32) CARRY(s32, u32) CARRY(u64, u64) CARRY(s64, u64)
#undef CARRY
A2(C_INT, add_sat_s32, s32, s32, s32, clamp_s32((int64_t)a + b))
A2(C_INT, sub_sat_s32, s32, s32, s32, clamp_s32((int64_t)a - b))
A3(C_INT, sad_u32, u32, u32, u32, u32, c + (a > b ? a - b : b - a))
A3(C_INT, sad_s32, s32, s32, s32, s32, c + (a > b ? a - b : b - a))
A3(C_INT, dp4a_u32_u32, u32, u32, u32, u32, dot4(a, b, c, 0, 0))
A3(C_INT, dp4a_s32_s32, u32, u32, u32, u32, dot4(a, b, c, 1, 1))
A3(C_INT, dp4a_u32_s32, u32, u32, u32, u32, dot4(a, b, c, 0, 1))
A3(C_INT, dp4a_s32_u32, u32, u32, u32, u32, dot4(a, b, c, 1, 0))

/* ---- single precision (each with .ftz) ---- */
#define F1(C, form, expr) \
    A1(C, form##_f32, f32, f32, expr) A1(C, form##_ftz_f32, f32z, f32z, expr)
#define F2(C, form, expr) \
    A2(C, form##_f32, f32, f32, f32, expr) A2(C, form##_ftz_f32, f32z, f32z, f32z, expr)
#define F3(C, form, expr) \
    A3(C, form##_f32, f32, f32, f32, f32, expr) \
    A3(C, form##_ftz_f32, f32z, f32z, f32z, f32z, expr)
F2(C_FP32, add, a + b) F2(C_FP32, add_rn, a + b) F2(C_FP32, add_sat, saturate(a + b))
F2(C_FP32, sub, a - b) F2(C_FP32, sub_rn, a - b) F2(C_FP32, sub_sat, saturate(a - b))
F2(C_FP32, mul, a * b) F2(C_FP32, mul_rn, a * b) F2(C_FP32, mul_sat, saturate(a * b))
F3(C_FP32, fma_rn, fmaf(a, b, c)) F3(C_FP32, fma_rn_sat, saturate(fmaf(a, b, c)))
F3(C_FP32, mad_rn, fmaf(a, b, c))
#define DIRECTED(R) \
    F2(C_FP32, add_##R, directed_##R(wide_add(a, b))) F2(C_FP32, sub_##R, directed_##R(wide_add(a, -b))) \
    F2(C_FP32, mul_##R, directed_##R((double)a * (double)b)) \
    F3(C_FP32, fma_##R, directed_##R(wide_fma(a, b, c)))
DIRECTED(rz) DIRECTED(rm) DIRECTED(rp)
#undef DIRECTED
F2(C_MUFU, div_rn, a / b) F2(C_MUFU, div_full, a / b) F2(C_MUFU, div_approx, a / b)
F1(C_MUFU, rcp_rn, 1.0f / a) F1(C_MUFU, rcp_approx, 1.0f / a)
F1(C_MUFU, sqrt_rn, sqrtf(a)) F1(C_MUFU, sqrt_approx, sqrtf(a))
F1(C_MUFU, rsqrt_approx, (float)(1.0 / sqrt((double)a)))
F1(C_MUFU, ex2_approx, exp2f(a)) F1(C_MUFU, lg2_approx, log2f(a))
F1(C_MUFU, sin_approx, (float)sin((double)a)) F1(C_MUFU, cos_approx, (float)cos((double)a))
A1(C_MUFU, tanh_approx_f32, f32, f32, tanhf(a))
F2(C_FP32, min, min_f32(a, b)) F2(C_FP32, max, max_f32(a, b))
F2(C_FP32, min_NaN, a != a || b != b ? NAN : min_f32(a, b))
F2(C_FP32, max_NaN, a != a || b != b ? NAN : max_f32(a, b))
F1(C_FP32, abs, fabsf(a)) F1(C_FP32, neg, -a)
A2(C_FP32, copysign_f32, f32, f32, f32, copysignf(b, a))
A2(C_FP32, add_rn_f32x2, f32x2, f32x2, f32x2, pair_add(a, b))
A2(C_FP32, mul_rn_f32x2, f32x2, f32x2, f32x2, pair_mul(a, b))
A3(C_FP32, fma_rn_f32x2, f32x2, f32x2, f32x2, f32x2, pair_fma(a, b, c))
#undef F1
#undef F2
#undef F3

/* ---- double precision ---- */
A2(C_FP64, add_f64, f64, f64, f64, a + b) A2(C_FP64, add_rn_f64, f64, f64, f64, a + b)
A2(C_FP64, sub_f64, f64, f64, f64, a - b) A2(C_FP64, mul_f64, f64, f64, f64, a * b)
A2(C_FP64, mul_rn_f64, f64, f64, f64, a * b) A2(C_FP64, sub_rn_f64, f64, f64, f64, a - b)
A3(C_FP64, fma_rn_f64, f64, f64, f64, f64, fma(a, b, c))
A2(C_FP64, div_rn_f64, f64, f64, f64, a / b) A1(C_FP64, rcp_rn_f64, f64, f64, 1.0 / a)
A1(C_FP64, sqrt_rn_f64, f64, f64, sqrt(a)) A1(C_FP64, rcp_approx_ftz_f64, f64, f64, 1.0 / a)
A2(C_FP64, min_f64, f64, f64, f64, min_f64(a, b)) A2(C_FP64, max_f64, f64, f64, f64, max_f64(a, b))
A1(C_FP64, abs_f64, f64, f64, fabs(a)) A1(C_FP64, neg_f64, f64, f64, -a)
A2(C_FP64, copysign_f64, f64, f64, f64, copysign(b, a))

/* ---- half and bfloat, scalar and packed: computed wide, rounded once ---- */
#define HALF(F, N) \
    A2(C_FP16, add_##N##F, F, F, F, wide_add(a, b)) A2(C_FP16, sub_##N##F, F, F, F, wide_add(a, -b)) \
    A2(C_FP16, mul_##N##F, F, F, F, a * b)
HALF(f16, ) HALF(f16, rn_) HALF(bf16, ) HALF(bf16, rn_)
#undef HALF
#define HALF(F) \
    A3(C_FP16, fma_rn_##F, F, F, F, F, wide_fma(a, b, c)) \
    A3(C_FP16, fma_rn_relu_##F, F, F, F, F, relu(wide_fma(a, b, c))) \
    A2(C_FP16, min_##F, F, F, F, min_f64(a, b)) A2(C_FP16, max_##F, F, F, F, max_f64(a, b)) \
    A1(C_FP16, neg_##F, F, F, -a) A1(C_FP16, abs_##F, F, F, fabs(a)) \
    A1(C_MUFU, tanh_approx_##F, F, F, tanh(a))
HALF(f16) HALF(bf16)
#undef HALF
A1(C_MUFU, ex2_approx_f16, f16, f16, exp2(a)) A1(C_MUFU, ex2_approx_ftz_bf16, bf16, bf16, exp2(a))
#define PACKED(F, N) \
    A2(C_FP16, add_##N##F##x2, u32, u32, u32, F##_pair(a, b, 0, PAIR_ADD)) \
    A2(C_FP16, sub_##N##F##x2, u32, u32, u32, F##_pair(a, b, 0, PAIR_SUB)) \
    A2(C_FP16, mul_##N##F##x2, u32, u32, u32, F##_pair(a, b, 0, PAIR_MUL))
PACKED(f16, ) PACKED(f16, rn_) PACKED(bf16, ) PACKED(bf16, rn_)
#undef PACKED
#define PACKED(F) \
    A3(C_FP16, fma_rn_##F##x2, u32, u32, u32, u32, F##_pair(a, b, c, PAIR_FMA)) \
    A3(C_FP16, fma_rn_relu_##F##x2, u32, u32, u32, u32, F##_pair(a, b, c, PAIR_FMA_RELU)) \
    A2(C_FP16, min_##F##x2, u32, u32, u32, F##_pair(a, b, 0, PAIR_MIN)) \
    A2(C_FP16, max_##F##x2, u32, u32, u32, F##_pair(a, b, 0, PAIR_MAX)) \
    A1(C_FP16, neg_##F##x2, u32, u32, a ^ 0x80008000u) \
    A1(C_FP16, abs_##F##x2, u32, u32, a & 0x7fff7fffu) \
    A1(C_MUFU, tanh_approx_##F##x2, u32, u32, F##_pair(a, 0, 0, PAIR_TANH))
PACKED(f16) PACKED(bf16)
#undef PACKED
A1(C_MUFU, ex2_approx_f16x2, u32, u32, f16_pair(a, 0, 0, PAIR_EX2))
A1(C_MUFU, ex2_approx_ftz_bf16x2, u32, u32, bf16_pair(a, 0, 0, PAIR_EX2))

/* ---- conversions ---- */
#define CVT_I(S) \
    A1(C_CVT, cvt_u8_##S, u8, S, a) A1(C_CVT, cvt_s8_##S, s8, S, a) \
    A1(C_CVT, cvt_u16_##S, u16, S, a) A1(C_CVT, cvt_s16_##S, s16, S, a) \
    A1(C_CVT, cvt_u32_##S, u32, S, a) A1(C_CVT, cvt_s32_##S, s32, S, a) \
    A1(C_CVT, cvt_u64_##S, u64, S, a) A1(C_CVT, cvt_s64_##S, s64, S, a) \
    A1(C_CVT, cvt_rn_f16_##S, f16, S, wide_##S(a)) A1(C_CVT, cvt_rn_f32_##S, f32, S, (float)a) \
    A1(C_CVT, cvt_rn_f64_##S, f64, S, (double)a) A1(C_CVT, cvt_rn_bf16_##S, bf16, S, wide_##S(a)) \
    A1(C_CVT, cvt_rz_f32_##S, f32, S, directed_rz(wide_##S(a))) \
    A1(C_CVT, cvt_rm_f32_##S, f32, S, directed_rm(wide_##S(a))) \
    A1(C_CVT, cvt_rp_f32_##S, f32, S, directed_rp(wide_##S(a)))
CVT_I(u8) CVT_I(s8) CVT_I(u16) CVT_I(s16) CVT_I(u32) CVT_I(s32) CVT_I(u64) CVT_I(s64)
#undef CVT_I
#define CVT_SAT(D, S) A1(C_CVT, cvt_sat_##D##_##S, D, S, saturate_##D(a))
CVT_SAT(u8, u16) CVT_SAT(u8, s16) CVT_SAT(u8, u32) CVT_SAT(u8, s32) CVT_SAT(s8, s16)
CVT_SAT(s8, s32) CVT_SAT(u16, u32) CVT_SAT(u16, s32) CVT_SAT(s16, s32)
#undef CVT_SAT
#define CVT_FI(R, round, D, S, C) \
    A1(C_CVT, cvt_##R##_##D##_##S, D, C, to_int_##D(round((double)a), S##_WIDE))
#define CVT_R(D, S, C) \
    CVT_FI(rni, rint, D, S, C) CVT_FI(rzi, trunc, D, S, C) \
    CVT_FI(rmi, floor, D, S, C) CVT_FI(rpi, ceil, D, S, C)
#define CVT_RZ(D, R, round) \
    A1(C_CVT, cvt_##R##_ftz_##D##_f32, D, f32z, to_int_##D(round((double)a), 0))
#define CVT_D(D) \
    CVT_R(D, f16, f16) CVT_R(D, f32, f32) CVT_R(D, f64, f64) \
    CVT_RZ(D, rni, rint) CVT_RZ(D, rzi, trunc) CVT_RZ(D, rmi, floor) CVT_RZ(D, rpi, ceil)
CVT_D(u8) CVT_D(s8) CVT_D(u16) CVT_D(s16) CVT_D(u32) CVT_D(s32) CVT_D(u64) CVT_D(s64)
#undef CVT_FI
#undef CVT_R
#undef CVT_RZ
#undef CVT_D
#define CVT_F(R, round) \
    A1(C_CVT, cvt_##R##_f32_f32, f32, f32, round##f(a)) \
    A1(C_CVT, cvt_##R##_ftz_f32_f32, f32z, f32z, round##f(a)) \
    A1(C_CVT, cvt_##R##_f64_f64, f64, f64, round(a)) \
    A1(C_CVT, cvt_##R##_f16_f16, f16, f16, round(a))
CVT_F(rni, rint) CVT_F(rzi, trunc) CVT_F(rmi, floor) CVT_F(rpi, ceil)
#undef CVT_F
A1(C_CVT, cvt_f32_f32, f32, f32, a) A1(C_CVT, cvt_ftz_f32_f32, f32z, f32z, a)
A1(C_CVT, cvt_sat_f32_f32, f32, f32, saturate(a))
A1(C_CVT, cvt_ftz_sat_f32_f32, f32z, f32z, saturate(a))
A1(C_CVT, cvt_f64_f32, f64, f32, (double)a) A1(C_CVT, cvt_ftz_f64_f32, f64, f32z, (double)a)
A1(C_CVT, cvt_rn_f32_f64, f32, f64, (float)a)
A1(C_CVT, cvt_rn_ftz_f32_f64, f32z, f64, (float)a) A1(C_CVT, cvt_rz_f32_f64, f32, f64, directed_rz(a))
A1(C_CVT, cvt_rm_f32_f64, f32, f64, directed_rm(a)) A1(C_CVT, cvt_rp_f32_f64, f32, f64, directed_rp(a))
A1(C_CVT, cvt_f32_f16, f32, f16, (float)a) A1(C_CVT, cvt_ftz_f32_f16, f32, f16, (float)a)
A1(C_CVT, cvt_f64_f16, f64, f16, (double)a) A1(C_CVT, cvt_f32_bf16, f32, bf16, (float)a)
A1(C_CVT, cvt_rn_f16_f32, f16, f32, (double)a) A1(C_CVT, cvt_rz_f16_f32, u16, f32, half_rz(a))
A1(C_CVT, cvt_rn_f16_f64, f16, f64, a)
A1(C_CVT, cvt_rn_relu_f16_f32, f16, f32, relu((double)a))
A1(C_CVT, cvt_rn_bf16_f32, bf16, f32, (double)a)
A1(C_CVT, cvt_rn_relu_bf16_f32, bf16, f32, relu((double)a))
A1(C_CVT, cvt_rz_bf16_f32, u16, f32, bfloat_rz(a))
A1(C_CVT, cvt_rna_tf32_f32, u32, u32, (a + 0x1000u) & 0xffffe000u)
A1(C_CVT, cvt_rn_tf32_f32, u32, u32, tf32_rn(a))
A2(C_CVT, cvt_rn_bf16x2_f32, u32, f32, f32, bf16_pack(a, b))
A2(C_CVT, cvt_rn_relu_bf16x2_f32, u32, f32, f32, bf16_pack(relu((double)a), relu((double)b)))
A2(C_CVT, cvt_rn_f16x2_f32, u32, f32, f32, f16_pack(a, b))
A2(C_CVT, cvt_rn_relu_f16x2_f32, u32, f32, f32, f16_pack(relu((double)a), relu((double)b)))

/* ---- comparisons ---- */
#define CMP_I(T) \
    CMP(setp_eq_##T, T, a == b) CMP(setp_ne_##T, T, a != b) CMP(setp_lt_##T, T, a < b) \
    CMP(setp_le_##T, T, a <= b) CMP(setp_gt_##T, T, a > b) CMP(setp_ge_##T, T, a >= b)
#define CMP_U(T) \
    CMP(setp_lo_##T, T, a < b) CMP(setp_ls_##T, T, a <= b) CMP(setp_hi_##T, T, a > b) \
    CMP(setp_hs_##T, T, a >= b)
CMP_I(u16) CMP_I(s16) CMP_I(u32) CMP_I(s32) CMP_I(u64) CMP_I(s64)
CMP_U(u16) CMP_U(u32) CMP_U(u64)
CMP(setp_eq_b16, u16, a == b) CMP(setp_ne_b16, u16, a != b)
CMP(setp_eq_b32, u32, a == b) CMP(setp_ne_b32, u32, a != b)
CMP(setp_eq_b64, u64, a == b) CMP(setp_ne_b64, u64, a != b)
#undef CMP_I
#define CMP_I(T, N) \
    CMP(setp_eq_##N, T, a == b) CMP(setp_ne_##N, T, a < b || a > b) CMP(setp_lt_##N, T, a < b) \
    CMP(setp_le_##N, T, a <= b) CMP(setp_gt_##N, T, a > b) CMP(setp_ge_##N, T, a >= b)
#undef CMP_U
#define CMP_U(T, N) \
    CMP(setp_equ_##N, T, !(a < b || a > b)) CMP(setp_neu_##N, T, !(a == b)) \
    CMP(setp_ltu_##N, T, !(a >= b)) CMP(setp_leu_##N, T, !(a > b)) \
    CMP(setp_gtu_##N, T, !(a <= b)) CMP(setp_geu_##N, T, !(a < b)) \
    CMP(setp_num_##N, T, a == a && b == b) CMP(setp_nan_##N, T, a != a || b != b)
CMP_I(f64, f64) CMP_U(f64, f64) CMP_I(f16, f16) CMP_U(f16, f16)
CMP_I(bf16, bf16) CMP_U(bf16, bf16) CMP_I(f32, f32) CMP_U(f32, f32) CMP_I(f32z, ftz_f32) CMP_U(f32z, ftz_f32)
#undef CMP_I
#undef CMP_U
