/* lines.h: every line of ukernels.def that this machine can run, against the scalar line of its slot, which
 * accumulates in double. One check function per slot, in the file of its subject; the same set-up times the kernel
 * with --bench. Arguments of each program: [--bench] [part of a kernel's name].
 *
 * Every check is reseeded, so a failure repeats alone. Tolerances come from the operands: a sum of
 * n products may be off by 2 sqrt(n) + 2 half-ulps of the sum of |a b|. The worst share of its
 * tolerance that a kernel used is printed: 1.00 would be a failure. */
#ifndef VL_TESTS_KERNELS_LINES_H
#define VL_TESTS_KERNELS_LINES_H

#include "kernels/cpu/ukernels.h"
#include "tests/kernels/check.h"

/* The slots of each subject, test_products.c, test_row_kernels.c and test_integers.c, and who checks them. */
#define PRODUCTS(S) \
    S(gemm_wide, check_gemm) S(widen_bf16, check_widen) S(gemm_f32, check_gemm) \
    S(gemm_dpbf16, check_gemm) S(gemm_tiles, check_gemm_tiles) S(tiles_end, check_tiles_end) \
    S(pack_tiles, check_pack_tiles) S(gemv_bf16, check_gemv) S(gemv_f32, check_gemv) \
    S(gemv_dpbf16, check_gemv) S(pack_bf16, check_pack_bf16) S(pack_rows, check_pack_rows) \
    S(pack_pairs, check_pack_pairs) S(pair_rows, check_pair_rows)
#define ROWS(S) \
    S(epilogue, check_epilogue) S(finish_tiles, check_finish_tiles) S(swiglu, check_swiglu) \
    S(rope, check_rope) S(layernorm, check_norm) S(rmsnorm, check_norm) S(softmax, check_softmax) \
    S(softmax_tiles, check_softmax_tiles) S(scale_lanes, check_scale_lanes) \
    S(score_keys, check_score_keys) S(mix_values, check_mix_values) S(mix_pairs, check_mix_pairs)
#define INTEGERS(S) \
    S(gemm_q8, check_gemm_q) S(gemm_q4, check_gemm_q) S(pack_q, check_pack_q) S(pack_qt, check_pack_q) \
    S(gemm_q8_tiles, check_gemm_qt) S(gemm_q4_tiles, check_gemm_qt)
#define ONE(slot, check) +1
_Static_assert(0 PRODUCTS(ONE) ROWS(ONE) INTEGERS(ONE) == VL_SLOT_COUNT, "a slot has no check");
#define CHECK_OF(slot, check) [VL_SLOT_##slot] = check,
typedef void check_fn(const vl_candidate *cand, const vl_candidate *ref);

static vl_rng rng;
static bool bench;

static const int TAILS[] = {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 40, 63, 64, 65, 72, 128};
enum { TAIL_COUNT = sizeof TAILS / sizeof *TAILS };

/* Seconds of one call: the fastest of several batches. */
#define TIME(call)                                                        \
    ({                                                                    \
        double best_ = 1e9;                                               \
        for (int round_ = 0; round_ < 7; round_++) {                      \
            int n_ = 0;                                                   \
            double t0_ = vl_now(), t_;                                    \
            do {                                                          \
                for (int i_ = 0; i_ < 8; i_++) call;                      \
                n_ += 8;                                                  \
            } while ((t_ = vl_now() - t0_) < 2e-3);                       \
            if (t_ / n_ < best_) best_ = t_ / n_;                         \
        }                                                                 \
        best_;                                                            \
    })

static inline void bench_row(const char *shape, double seconds, double flops, double bytes) {
    printf("  %-24s %-22s %9.2f us %8.1f GFLOP/s %8.1f GB/s\n", running, shape, seconds * 1e6,
           flops / seconds * 1e-9, bytes / seconds * 1e-9);
}

static const vl_candidate *of_tier(vl_slot slot, vl_tier tier) {
    for (int i = 0; i < vl_candidate_count; i++)
        if (vl_candidates[i].slot == slot && vl_candidates[i].tier == tier) return &vl_candidates[i];
    vl_assert(false, "slot %s has no such line", vl_slot_names[slot]);
}

/* main() of a subject: the lines whose slot has a check in it. */
static int every_line(int argc, char **argv, check_fn *const checks[VL_SLOT_COUNT]) {
    const char *only = "";
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--bench")) bench = true;
        else only = argv[i];
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGSEGV, on_fault);
    signal(SIGBUS, on_fault);
    for (int i = 0; i < vl_candidate_count; i++) {
        const vl_candidate *c = &vl_candidates[i];
        if (!checks[c->slot] || !strstr(c->name, only)) continue;
        if (!vl_tier_present(c->tier)) {
            char why[128];
            snprintf(why, sizeof why, "%s: this CPU has no %s", c->name, vl_tier_names[c->tier]);
            test_skip(why);
            continue;
        }
        running = c->name;
        worst = off = 0;
        vl_rng_seed(&rng, 20261122);
        int failed = test_failed;
        checks[c->slot](c, of_tier(c->slot, VL_TIER_scalar));
        printf("%-24s %s  worst error %.2f of its tolerance\n", c->name,
               failed == test_failed ? "ok  " : "FAIL", worst);
    }
    return test_end();
}

#endif
