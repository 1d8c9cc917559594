/* tuning.c: the file of measured choices: see kernels/tuning.h. Reading trusts nothing: a whole file is checked
 * by its sum and each line by the table before any of it counts. */
#include "kernels/tuning.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "kernels/cpu/cpu.h"
#include "kernels/threads.h"

#ifndef VL_KERNELS_ID              /* a sum of kernels/cpu, from the Makefile */
#define VL_KERNELS_ID "unknown"
#endif
#define BUILD VL_KERNELS_ID ", compiler " __VERSION__

enum { LARGEST = 16384 };          /* bytes of a file                                         */
static const char HEAD[] = "vitreous tuning 1";

const vl_tune_info vl_tune_infos[VL_TUNE_VALUES] = {
#define KEY(name, value, lo, hi, about) {#name, value, lo, hi, about},
    VL_TUNE_KEYS(KEY)
#undef KEY
};
const char *const vl_tune_slots[VL_TUNE_SLOTS_COUNT] = {
#define SLOT(name) #name,
    VL_TUNE_SLOTS(SLOT)
#undef SLOT
};

void vl_tuning_default(vl_tuning *t) {
    *t = (vl_tuning){.kernel = {NULL}};
    for (int i = 0; i < VL_TUNE_VALUES; i++) t->value[i] = vl_tune_infos[i].value;
}

const char *vl_tuning_kernel(const vl_tuning *t, const char *slot) {
    for (int i = 0; t && i < VL_TUNE_SLOTS_COUNT; i++)
        if (!strcmp(vl_tune_slots[i], slot)) return t->kernel[i];
    return NULL;
}

/* ---- this machine -------------------------------------------------------------------------------- */

/* The processor's name: "model name" of /proc/cpuinfo, on AArch64 its implementer and part. */
static void cpu_name(char *out, size_t n) {
    static const char *const KEYS[] = {"model name", "CPU implementer", "CPU part"};
    char line[512];
    bool seen[3] = {false};
    FILE *f = fopen("/proc/cpuinfo", "r");
    *out = 0;
    while (f && !seen[0] && !(seen[1] && seen[2]) && fgets(line, sizeof line, f))
        for (int i = 0; i < 3; i++) {
            char *value = strchr(line, ':');
            if (seen[i] || !value || strncmp(line, KEYS[i], strlen(KEYS[i]))) continue;
            seen[i] = true;
            value += 1 + strspn(value + 1, " \t");
            size_t at = strlen(out);
            snprintf(out + at, n - at, "%s%.*s", at ? " " : "", (int)strcspn(value, "\n"), value);
        }
    if (f) fclose(f);
    if (!*out) snprintf(out, n, "unknown");
}

static void machine(char *cpu, size_t n, int *cores) {
    cpu_name(cpu, n);
    *cores = vl_usable_threads();
}

bool vl_tuning_path(char *path, size_t n, bool make) {
    const char *set = getenv("VL_TUNE");
    char cache[PATH_MAX], cpu[512], id[17];
    uint8_t sum[32];
    int cores;
    if (set && !strcmp(set, "off")) return false;
    if (set && *set) return (size_t)snprintf(path, n, "%s", set) < n;
    if (!vl_user_cache(cache, sizeof cache, make)) return false;
    machine(cpu, sizeof cpu, &cores);
    vl_sha256 h;
    vl_sha256_init(&h);
    vl_sha256_add(&h, cpu, strlen(cpu));
    vl_sha256_add(&h, &cores, sizeof cores);
    vl_sha256_end(&h, sum);
    vl_hex(id, sum, 8);
    return (size_t)snprintf(path, n, "%s/tuning-%s", cache, id) < n;
}

/* ---- one choice ----------------------------------------------------------------------------------- */

/* The line `want` of a slot, if this CPU can run it. */
static const char *line_of(const char *slot, const char *want, size_t len) {
    for (int i = 0; i < vl_candidate_count; i++) {
        const vl_candidate *c = &vl_candidates[i];
        if (!strcmp(vl_slot_names[c->slot], slot) && strlen(c->name) == len && !memcmp(c->name, want, len) &&
            vl_tier_present(c->tier))
            return c->name;
    }
    return NULL;
}

static bool same(const char *name, const char *key, size_t len) {
    return strlen(name) == len && !memcmp(name, key, len);
}

/* NULL: fine; else what is wrong with the value, or "" for a key that does not exist. */
static const char *set(vl_tuning *t, const char *key, size_t key_len, const char *value, size_t len) {
    for (int i = 0; i < VL_TUNE_VALUES; i++) {
        const vl_tune_info *info = &vl_tune_infos[i];
        char digits[12] = "", *end;
        if (!same(info->name, key, key_len)) continue;
        if (len < sizeof digits) memcpy(digits, value, len);
        long v = strtol(digits, &end, 10);
        if (*digits < '0' || *digits > '9' || *end || v < info->lo || v > info->hi) return "out of range";
        t->value[i] = (int)v;
        return NULL;
    }
    for (int i = 0; i < VL_TUNE_SLOTS_COUNT; i++) {
        if (!same(vl_tune_slots[i], key, key_len)) continue;
        const char *line = line_of(vl_tune_slots[i], value, len);
        if (!line) return "no kernel of this slot that runs here";
        t->kernel[i] = line;
        return NULL;
    }
    return "";
}

int vl_tuning_set(vl_tuning *t, const char *assignment, vl_err *err) {
    const char *eq = strchr(assignment, '=');
    if (!eq) return vl_fail(err, VL_E_USAGE, "\"%.60s\": expected KEY=VALUE", assignment);
    size_t len = (size_t)(eq - assignment);
    const char *why = set(t, assignment, len, eq + 1, strlen(eq + 1));
    if (!why) return 0;
    if (!*why)
        return vl_fail(err, VL_E_USAGE, "no choice \"%.*s\"; `vitreous tune --show` lists them", len < 40 ? (int)len : 40,
                       assignment);
    for (int i = 0; i < VL_TUNE_VALUES; i++)
        if (same(vl_tune_infos[i].name, assignment, len))
            return vl_fail(err, VL_E_USAGE, "%s: expected a whole number from %d to %d, got \"%.40s\"",
                           vl_tune_infos[i].name, vl_tune_infos[i].lo, vl_tune_infos[i].hi, eq + 1);
    return vl_fail(err, VL_E_USAGE, "%.60s: %s; `vitreous kernels --all` lists them", assignment, why);
}

/* ---- the file -------------------------------------------------------------------------------------- */

static void sum_of(char hex[65], const char *text, size_t n) {
    uint8_t sum[32];
    vl_sha256 h;
    vl_sha256_init(&h);
    vl_sha256_add(&h, text, n);
    vl_sha256_end(&h, sum);
    vl_hex(hex, sum, 32);
}

/* What follows "key " in the line at *p, which then moves to the next line; NULL: it has another key. */
static const char *take(const char **p, const char *key, size_t *len) {
    size_t n = strlen(key), line = strcspn(*p, "\n");
    if (line < n + 1 || memcmp(*p, key, n) || (*p)[n] != ' ' || (*p)[line] != '\n') return NULL;
    const char *value = *p + n + 1;
    *len = line - n - 1;
    *p += line + 1;
    return value;
}

/* NULL: t is what the file says; else why it does not count. */
static const char *parse(vl_tuning *t, const char *text) {
    static const char damaged[] = "it is damaged, or no tuning file";
    char cpu[512], sum[65];
    int cores;
    size_t len;
    const char *end = strstr(text, "\ncheck "), *p = text, *value;
    if (!end) return damaged;
    end++;
    sum_of(sum, text, (size_t)(end - text));
    if (strncmp(end + strlen("check "), sum, 64) || strcmp(end + strlen("check ") + 64, "\n")) return damaged;
    if (strncmp(p, HEAD, sizeof HEAD - 1) || p[sizeof HEAD - 1] != '\n') return "another version of vitreous wrote it";
    p += sizeof HEAD;
    machine(cpu, sizeof cpu, &cores);
    if (!(value = take(&p, "cpu", &len))) return damaged;
    if (!same(cpu, value, len)) return "it was measured on another processor";
    if (!(value = take(&p, "cores", &len))) return damaged;
    if (atoi(value) != cores) return "it was measured with another number of cores";
    if (!(value = take(&p, "build", &len))) return damaged;
    if (!same(BUILD, value, len)) return "it was measured with other kernels";
    while (p < end) {
        size_t line = strcspn(p, "\n"), key = strcspn(p, " \n");
        if (key == line || set(t, p, key, p + key + 1, line - key - 1)) return damaged;
        p += line + 1;
    }
    return NULL;
}

/* The file as text, or why not: "" where there is none. */
static const char *slurp(char text[LARGEST], const char *path) {
    FILE *f = fopen(path, "re");
    if (!f) return errno == ENOENT || errno == ENOTDIR ? "" : strerror(errno);
    size_t n = fread(text, 1, LARGEST - 1, f);
    bool whole = !ferror(f) && n < LARGEST - 1 && !memchr(text, 0, n);
    fclose(f);
    text[n] = 0;
    return whole ? NULL : "it is damaged, or no tuning file";
}

void vl_tuning_load(vl_tuning *t, char *note, size_t n) {
    char path[PATH_MAX], text[LARGEST];
    vl_tuning read;
    vl_tuning_default(t);
    vl_tuning_default(&read);
    *note = 0;
    if (!vl_tuning_path(path, sizeof path, false)) return;
    const char *set_by_hand = getenv("VL_TUNE"), *why = slurp(text, path);
    if (!why) why = parse(&read, text);
    if (!why) *t = read;
    else if (*why || (set_by_hand && *set_by_hand))
        snprintf(note, n, "tuning file %s is ignored: %s; `vitreous tune` writes it anew", path,
                 *why ? why : "there is no such file");
}

static void add(char *text, size_t *at, const char *key, const char *value) {
    *at += (size_t)snprintf(text + *at, LARGEST - *at, "%s %s\n", key, value);
}

/* Under a name of its own, then renamed: a reader never sees half a file. */
static int put(const char *path, const char *text, size_t n, vl_err *err) {
    char own[PATH_MAX + 32];
    snprintf(own, sizeof own, "%s.XXXXXX", path); /* no name that a killed process may have left */
    int fd = mkostemp(own, O_CLOEXEC);
    bool ok = fd >= 0 && write(fd, text, n) == (ssize_t)n && fsync(fd) == 0;
    int why = errno;
    if (fd >= 0) close(fd);
    if (ok && rename(own, path)) ok = false, why = errno;
    if (ok) return 0;
    if (fd >= 0) unlink(own);
    return vl_fail(err, VL_E_IO, "%s: cannot write: %s; VL_TUNE=FILE names another place", path, strerror(why));
}

int vl_tuning_save(const vl_tuning *t, const char *path, vl_err *err) {
    char text[LARGEST], cpu[512], number[16], sum[65];
    int cores;
    size_t at = (size_t)snprintf(text, sizeof text, "%s\n", HEAD);
    machine(cpu, sizeof cpu, &cores);
    snprintf(number, sizeof number, "%d", cores);
    add(text, &at, "cpu", cpu);
    add(text, &at, "cores", number);
    add(text, &at, "build", BUILD);
    for (int i = 0; i < VL_TUNE_VALUES; i++) {
        snprintf(number, sizeof number, "%d", t->value[i]);
        add(text, &at, vl_tune_infos[i].name, number);
    }
    for (int i = 0; i < VL_TUNE_SLOTS_COUNT; i++)
        if (t->kernel[i]) add(text, &at, vl_tune_slots[i], t->kernel[i]);
    sum_of(sum, text, at);
    add(text, &at, "check", sum);
    return put(path, text, at, err);
}
