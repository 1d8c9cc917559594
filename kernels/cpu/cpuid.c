/* cpuid.c: which tiers this machine has, and which line of ukernels.def each slot gets.
 *
 *   VL_CPU=scalar|avx2|avx512|...      caps the choice at that tier
 *   VL_KERNEL=slot=function[,...]      forces one line, for experiments and bisecting
 */
#include <stdio.h>
#include <stdlib.h>

#include "kernels/cpu/ukernels.h"
#include "kernels/kernels_info.h"

/* The lines this architecture builds. */
#define UK_scalar(...) __VA_ARGS__
#if defined(__x86_64__)
#define UK_avx2(...) __VA_ARGS__
#define UK_avx512(...) __VA_ARGS__
#define UK_avx512vnni(...) __VA_ARGS__
#define UK_avx512bf16(...) __VA_ARGS__
#define UK_neon(...)
#elif defined(__aarch64__)
#define UK_avx2(...)
#define UK_avx512(...)
#define UK_avx512vnni(...)
#define UK_avx512bf16(...)
#define UK_neon(...) __VA_ARGS__
#else
#define UK_avx2(...)
#define UK_avx512(...)
#define UK_avx512vnni(...)
#define UK_avx512bf16(...)
#define UK_neon(...)
#endif

const vl_candidate vl_candidates[] = {
#define UK(slot, tier, tile, function) \
    UK_##tier({VL_SLOT_##slot, VL_TIER_##tier, tile, #function, (void (*)(void))function},)
#include "kernels/cpu/ukernels.def"
#undef UK
};
const int vl_candidate_count = sizeof vl_candidates / sizeof *vl_candidates;

const char *const vl_tier_names[VL_TIERS] = {"scalar", "avx2", "avx512", "avx512vnni",
                                               "avx512bf16", "neon"};
const char *const vl_slot_names[VL_SLOT_COUNT] = {
#define SLOT(slot, type) #slot,
    VL_SLOTS(SLOT)
#undef SLOT
};

bool vl_tier_present(vl_tier t) {
#if defined(__x86_64__)
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (t == VL_TIER_avx2) return avx2;
    bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    if (t == VL_TIER_avx512) return avx512;
    if (t == VL_TIER_avx512vnni) return avx512 && __builtin_cpu_supports("avx512vnni");
    if (t == VL_TIER_avx512bf16) return avx512 && __builtin_cpu_supports("avx512bf16");
#elif defined(__aarch64__)
    if (t == VL_TIER_neon) return true; /* part of the base architecture */
#endif
    return t == VL_TIER_scalar;
}

/* The highest tier VL_CPU allows; -1 for a name that is not a tier. */
static int tier_cap(void) {
    const char *name = getenv("VL_CPU");
    if (!name || !*name) return VL_TIERS - 1;
    for (int t = 0; t < VL_TIERS; t++)
        if (!strcmp(name, vl_tier_names[t])) return t;
    return -1;
}

const char *vl_kernel_forced(const char *slot, size_t *len) {
    const char *p = getenv("VL_KERNEL");
    size_t n = strlen(slot);
    while (p && *p) {
        size_t item = strcspn(p, ",");
        if (item > n && !strncmp(p, slot, n) && p[n] == '=') {
            *len = item - n - 1;
            return p + n + 1;
        }
        p += item + (p[item] == ',');
    }
    return NULL;
}

/* Why line i was chosen or not; *choice is the chosen line of the slot, or -1 (a forced name that
 * cannot run). */
static const char *judge(const vl_candidate *c, int cap, int *choice) {
    size_t len = 0;
    const char *want = vl_kernel_forced(vl_slot_names[c->slot], &len);
    *choice = -1;
    for (int i = 0; i < vl_candidate_count; i++) {
        const vl_candidate *d = &vl_candidates[i];
        if (d->slot != c->slot || !vl_tier_present(d->tier)) continue;
        bool match = want ? strlen(d->name) == len && !strncmp(d->name, want, len)
                          : (int)d->tier <= cap;
        if (match) *choice = i;
    }
    if (!vl_tier_present(c->tier)) return "this CPU lacks it";
    if (*choice >= 0 && c == &vl_candidates[*choice]) return want ? "forced by VL_KERNEL" : "best present";
    if (want) return "VL_KERNEL names another";
    return (int)c->tier > cap ? "masked by VL_CPU" : "a better line is present";
}

int vl_ukernels_resolve(vl_ukernels *out, vl_err *err) {
    int cap = tier_cap();
    if (cap < 0)
        return vl_fail(err, VL_E_USAGE, "VL_CPU=%s: expected scalar, avx2, avx512, avx512vnni, avx512bf16 or "
                       "neon",
                       getenv("VL_CPU"));
    for (int i = 0; i < vl_candidate_count; i++) {
        const vl_candidate *c = &vl_candidates[i];
        int choice;
        judge(c, cap, &choice);
        if (choice < 0)
            return vl_fail(err, VL_E_USAGE,
                           "VL_KERNEL=%s: slot %s has no such function that this CPU can run; "
                           "`vitreous kernels` lists them",
                           getenv("VL_KERNEL"), vl_slot_names[c->slot]);
        if (choice != i) continue;
        switch (c->slot) {
#define SLOT(slot_name, type) \
    case VL_SLOT_##slot_name: out->slot_name = (type *)c->fn; break;
            VL_SLOTS(SLOT)
#undef SLOT
        case VL_SLOT_COUNT: break;
        }
        out->tile[c->slot] = c->tile;
        out->tier[c->slot] = c->tier;
    }
    return 0;
}

size_t vl_kernels_list(vl_kernel_row *rows, size_t max) {
    int cap = tier_cap();
    size_t n = 0;
    for (; n < (size_t)vl_candidate_count && n < max; n++) {
        const vl_candidate *c = &vl_candidates[n];
        int choice;
        const char *why = judge(c, cap < 0 ? 0 : cap, &choice);
        rows[n] = (vl_kernel_row){vl_slot_names[c->slot], c->name, vl_tier_names[c->tier], c->tile,
                                  choice == (int)n, why};
    }
    return n;
}
