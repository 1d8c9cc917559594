/* cpuid.c: which tiers this machine has, and which line of ukernels.def each slot gets.
 *
 *   VL_CPU=scalar|avx2|avx512|...      caps the choice at that tier
 *   VL_KERNEL=slot=function[,...]      forces one line, for experiments and bisecting
 *   the file of `vitreous tune`        may choose among lines with the same bits, under both of the above
 *
 * A name that does not exist, or a forced line that this CPU cannot run, is an error that names what there is.
 * A tier above what this CPU has caps nothing.
 */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "kernels/cpu/ukernels.h"
#include "kernels/kernels_info.h"

/* The lines this architecture builds. */
#define UK_scalar(...) __VA_ARGS__
#if defined(__x86_64__)
#define UK_avx2(...) __VA_ARGS__
#define UK_avx512(...) __VA_ARGS__
#define UK_avx512vnni(...) __VA_ARGS__
#define UK_avx512bf16(...) __VA_ARGS__
#define UK_amx(...) __VA_ARGS__
#define UK_neon(...)
#elif defined(__aarch64__)
#define UK_avx2(...)
#define UK_avx512(...)
#define UK_avx512vnni(...)
#define UK_avx512bf16(...)
#define UK_amx(...)
#define UK_neon(...) __VA_ARGS__
#else
#define UK_avx2(...)
#define UK_avx512(...)
#define UK_avx512vnni(...)
#define UK_avx512bf16(...)
#define UK_amx(...)
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
                                               "avx512bf16", "amx", "neon"};
const char *const vl_slot_names[VL_SLOT_COUNT] = {
#define SLOT(slot, type) #slot,
    VL_SLOTS(SLOT)
#undef SLOT
};

#if defined(__x86_64__)
/* AMX: tile registers and products of bf16 and of bytes in cpuid, and tile state switched on (XCR0). */
static bool tiles_in_cpu(void) {
    enum { LEAF = 7, TILE = 1 << 24, TILE_BF16 = 1 << 22, TILE_INT8 = 1 << 25, OSXSAVE = 1 << 27, XCR0_TILES = 3 << 17 };
    unsigned a, b, c, d, low, high;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & OSXSAVE)) return false;
    if (!__get_cpuid_count(LEAF, 0, &a, &b, &c, &d) || !(d & TILE) || !(d & TILE_BF16) ||
        !(d & TILE_INT8))
        return false;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (low & XCR0_TILES) == XCR0_TILES;
}

/* The kernel's leave to use them, which a process asks for once. It makes the process's saved state 8 KB larger,
 * so it is asked for only where the tier may be used. */
static bool tiles_granted(void) {
    enum { REQ_XCOMP_PERM = 0x1023, XTILEDATA = 18 }; /* of arch_prctl */
    static atomic_int known; /* 0: not asked yet */
    if (!atomic_load(&known))
        atomic_store(&known, syscall(SYS_arch_prctl, REQ_XCOMP_PERM, XTILEDATA) == 0 ? 1 : -1);
    return atomic_load(&known) > 0;
}
#endif

static bool tier_in_cpu(vl_tier t) {
#if defined(__x86_64__)
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (t == VL_TIER_avx2) return avx2;
    bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    if (t == VL_TIER_avx512) return avx512;
    if (t == VL_TIER_avx512vnni) return avx512 && __builtin_cpu_supports("avx512vnni");
    if (t == VL_TIER_avx512bf16) return avx512 && __builtin_cpu_supports("avx512bf16");
    if (t == VL_TIER_amx) return tier_in_cpu(VL_TIER_avx512bf16) && tiles_in_cpu();
#elif defined(__aarch64__)
    if (t == VL_TIER_neon) return true; /* part of the base architecture */
#endif
    return t == VL_TIER_scalar;
}

bool vl_tier_present(vl_tier t) {
#if defined(__x86_64__)
    if (t == VL_TIER_amx && tier_in_cpu(t)) return tiles_granted();
#endif
    return tier_in_cpu(t);
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

/* Why line i was chosen or not; *choice is the chosen line of the slot, or -1 where check_forced would
 * have refused VL_KERNEL. */
static const char *judge(const vl_candidate *c, int cap, const vl_tuning *tuning, int *choice) {
    size_t len = 0;
    const char *want = vl_kernel_forced(vl_slot_names[c->slot], &len);
    const char *tuned = want ? NULL : vl_tuning_kernel(tuning, vl_slot_names[c->slot]);
    bool by_tune = false;
    *choice = -1;
    for (int i = 0; i < vl_candidate_count; i++) {
        const vl_candidate *d = &vl_candidates[i];
        if (d->slot != c->slot || by_tune) continue;
        bool match = want ? strlen(d->name) == len && !strncmp(d->name, want, len)
                          : (int)d->tier <= cap;
        if (!match || !vl_tier_present(d->tier)) continue;
        *choice = i;
        by_tune = tuned && !strcmp(d->name, tuned);
    }
    bool masked = !want && (int)c->tier > cap;
    if (!tier_in_cpu(c->tier) || (!masked && !vl_tier_present(c->tier))) return "this CPU lacks it";
    if (*choice >= 0 && c == &vl_candidates[*choice])
        return want ? "forced by VL_KERNEL" : by_tune ? "chosen by vitreous tune" : "best present";
    if (want) return "VL_KERNEL names another";
    if (masked) return "masked by VL_CPU";
    return by_tune ? "vitreous tune chose another" : "a better line is present";
}

/* ---- what VL_CPU and VL_KERNEL may say ------------------------------------------------------------ */

/* Appends a blank and a name to a message; one that is full ends in " ...". */
static void list(char *buf, size_t size, const char *name) {
    size_t n = strlen(buf);
    if (n + strlen(name) + sizeof "  ..." <= size) snprintf(buf + n, size - n, " %s", name);
    else if (n < 4 || strcmp(buf + n - 4, " ...")) snprintf(buf + n, size - n, " ...");
}

static int fail_slot(vl_err *err, const char *item, int len) {
    vl_fail(err, VL_E_UNSUPPORTED, "VL_KERNEL: no slot \"%.*s\"; slots:", len < 24 ? len : 24, item);
    for (int s = 0; s < VL_SLOT_COUNT; s++) list(err->msg, sizeof err->msg, vl_slot_names[s]);
    return -1;
}

/* No line of this slot has the name, or this CPU cannot run the one that has (`found`). */
static int fail_line(vl_err *err, vl_slot slot, const char *want, int len, const vl_candidate *found) {
    const char *name = vl_slot_names[slot];
    if (found)
        vl_fail(err, VL_E_UNSUPPORTED, "VL_KERNEL: %s needs %s, which this CPU lacks; %s can be:", found->name,
                vl_tier_names[found->tier], name);
    else
        vl_fail(err, VL_E_UNSUPPORTED, "VL_KERNEL: no kernel \"%.*s\" for %s; it can be:", len < 40 ? len : 40, want,
                name);
    for (int i = 0; i < vl_candidate_count; i++)
        if (vl_candidates[i].slot == slot && vl_tier_present(vl_candidates[i].tier))
            list(err->msg, sizeof err->msg, vl_candidates[i].name);
    return -1;
}

/* One item of VL_KERNEL, "slot=function". */
static int check_item(const char *item, int len, vl_err *err) {
    const char *eq = memchr(item, '=', (size_t)len);
    if (!eq)
        return vl_fail(err, VL_E_UNSUPPORTED, "VL_KERNEL: \"%.*s\" is not slot=function; `vitreous kernels` lists them",
                       len < 60 ? len : 60, item);
    int n = (int)(eq - item), s = 0, want = len - n - 1;
    while (s < VL_SLOT_COUNT && (strlen(vl_slot_names[s]) != (size_t)n || strncmp(vl_slot_names[s], item, (size_t)n)))
        s++;
    if (s == VL_SLOT_COUNT) return fail_slot(err, item, n);
    for (int i = 0; i < vl_candidate_count; i++) {
        const vl_candidate *c = &vl_candidates[i];
        if (c->slot != (vl_slot)s || strlen(c->name) != (size_t)want || strncmp(c->name, eq + 1, (size_t)want)) continue;
        return vl_tier_present(c->tier) ? 0 : fail_line(err, c->slot, NULL, 0, c);
    }
    return fail_line(err, (vl_slot)s, eq + 1, want, NULL);
}

/* Every item of VL_KERNEL names a line that runs here, and none a slot that another has named. */
static int check_forced(vl_err *err) {
    const char *all = getenv("VL_KERNEL");
    for (const char *p = all; p && *p;) {
        size_t len = strcspn(p, ",");
        if (len && check_item(p, (int)len, err)) return -1;
        for (const char *q = all; len && q < p; q += strcspn(q, ",") + 1) {
            size_t slot = strcspn(p, "=") + 1;
            if (!strncmp(p, q, slot))
                return vl_fail(err, VL_E_UNSUPPORTED, "VL_KERNEL names the slot %.*s twice", (int)slot - 1, p);
        }
        p += len + (p[len] == ',');
    }
    return 0;
}

static int fail_tier(vl_err *err) {
    vl_fail(err, VL_E_UNSUPPORTED, "VL_CPU: no tier \"%.40s\"; this CPU has:", getenv("VL_CPU"));
    for (int t = 0; t < VL_TIERS; t++)
        if (vl_tier_present((vl_tier)t)) list(err->msg, sizeof err->msg, vl_tier_names[t]);
    return -1;
}

int vl_ukernels_resolve(vl_ukernels *out, const vl_tuning *tuning, vl_err *err) {
    int cap = tier_cap();
    if (cap < 0) return fail_tier(err);
    if (check_forced(err)) return -1;
    for (int i = 0; i < vl_candidate_count; i++) {
        const vl_candidate *c = &vl_candidates[i];
        int choice;
        judge(c, cap, tuning, &choice);
        vl_assert(choice >= 0, "slot %s has no line", vl_slot_names[c->slot]);
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
    vl_tuning tuning;
    char note[8]; /* whoever opens a backend gets it whole */
    vl_tuning_load(&tuning, note, sizeof note);
    for (; n < (size_t)vl_candidate_count && n < max; n++) {
        const vl_candidate *c = &vl_candidates[n];
        int choice;
        const char *why = judge(c, cap < 0 ? 0 : cap, &tuning, &choice);
        rows[n] = (vl_kernel_row){vl_slot_names[c->slot], c->name, vl_tier_names[c->tier], c->tile,
                                  choice == (int)n, why};
    }
    return n;
}
