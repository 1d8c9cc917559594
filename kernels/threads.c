/* threads.c: see threads.h. A quota of cgroup version 2 is "max 100000" or "150000 100000" in cpu.max; of version
 * 1, two files. Any group on the way up may hold the smaller one, and in a container the path that
 * /proc/self/cgroup names may not exist below /sys/fs/cgroup, where the container's own group is the root. */
#include "kernels/threads.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Reads one small file of the kernel; "" when it is not there. */
static void slurp(char *buf, size_t size, const char *path) {
    FILE *f = fopen(path, "r");
    size_t n = f ? fread(buf, 1, size - 1, f) : 0;
    buf[n] = 0;
    if (f) fclose(f);
}

static long read_number(const char *group, const char *file) {
    char buf[64], path[1100];
    snprintf(path, sizeof path, "%s/%s", group, file);
    slurp(buf, sizeof buf, path);
    return buf[0] ? atol(buf) : -1;
}

/* What one group allows of something; 0: no limit. */
typedef int64_t group_limit(const char *group, int version);

/* CPUs. */
static int64_t group_cpus(const char *group, int version) {
    char buf[64], path[1100];
    long quota = -1, period = 0;
    if (version == 2) {
        snprintf(path, sizeof path, "%s/cpu.max", group);
        slurp(buf, sizeof buf, path);
        if (sscanf(buf, "%ld %ld", &quota, &period) != 2) return 0;
    } else {
        quota = read_number(group, "cpu.cfs_quota_us");
        period = read_number(group, "cpu.cfs_period_us");
    }
    if (quota <= 0 || period <= 0) return 0;
    long cpus = quota / period + (quota % period != 0);
    return cpus < 1 << 20 ? cpus : 1 << 20;
}

/* Bytes: "max" or a number in memory.max; version 1 says a number near 2^63 for no limit. */
static int64_t group_memory(const char *group, int version) {
    long bytes = read_number(group, version == 2 ? "memory.max" : "memory.limit_in_bytes");
    return bytes > 0 && bytes < INT64_C(1) << 60 ? bytes : 0;
}

/* The least of the group at base/path and of all above it, down to base itself. */
static int64_t least_on_path(const char *base, char *path, int version, group_limit *limit) {
    int64_t least = 0;
    for (;;) {
        char group[1024];
        int n = snprintf(group, sizeof group, "%s%s", base, path);
        int64_t one = n > 0 && (size_t)n < sizeof group ? limit(group, version) : 0;
        if (one && (!least || one < least)) least = one;
        char *slash = strrchr(path, '/');
        if (!slash) return least;
        *slash = 0;
    }
}

/* The controller list of a version 1 line has `name` in it. */
static int has(const char *list, const char *name) {
    for (;;) {
        size_t n = strcspn(list, ",");
        if (n == strlen(name) && !strncmp(list, name, n)) return 1;
        if (!list[n]) return 0;
        list += n + 1;
    }
}

/* The least over every group of this process. */
static int64_t least_limit(const char *root, const char *controller, group_limit *limit) {
    char buf[4096], base[256], *save = NULL;
    int64_t least = 0;
    snprintf(base, sizeof base, "%s/proc/self/cgroup", root);
    slurp(buf, sizeof buf, base);
    for (char *line = strtok_r(buf, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        char *list = strchr(line, ':'), *path = list ? strchr(list + 1, ':') : NULL; /* "4:cpu,cpuacct:/a/b" */
        if (!path) continue;
        *path++ = 0;
        list++;
        if (*list && !has(list, controller)) continue;
        snprintf(base, sizeof base, "%s/sys/fs/cgroup%s%s", root, *list ? "/" : "", *list ? controller : "");
        int64_t one = least_on_path(base, path, *list ? 1 : 2, limit);
        if (one && (!least || one < least)) least = one;
    }
    return least;
}

int vl_cgroup_cpus(const char *root) { return (int)least_limit(root, "cpu", group_cpus); }
int64_t vl_cgroup_memory(const char *root) { return least_limit(root, "memory", group_memory); }

int64_t vl_usable_memory(const char *root) {
    char path[256], line[256];
    long kb = 0;
    int64_t limit = vl_cgroup_memory(root);
    snprintf(path, sizeof path, "%s/proc/meminfo", root);
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f) && sscanf(line, "MemAvailable: %ld", &kb) != 1) continue;
    if (f) fclose(f);
    int64_t available = (int64_t)kb << 10;
    return limit && (!available || limit < available) ? limit : available;
}

int vl_usable_threads(void) {
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    int quota = vl_cgroup_cpus("");
    if (quota > 0 && quota < n) n = quota;
    return n > 0 ? n : 1;
}
