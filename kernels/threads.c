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

/* CPUs that one group's quota allows, 0: any number. */
static int group_cpus(const char *group, int version) {
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
    return cpus < 1 << 20 ? (int)cpus : 1 << 20;
}

/* The least of the group at base/path and of all above it, down to base itself. */
static int least_on_path(const char *base, char *path, int version) {
    int least = 0;
    for (;;) {
        char group[1024];
        int n = snprintf(group, sizeof group, "%s%s", base, path);
        int cpus = n > 0 && (size_t)n < sizeof group ? group_cpus(group, version) : 0;
        if (cpus && (!least || cpus < least)) least = cpus;
        char *slash = strrchr(path, '/');
        if (!slash) return least;
        *slash = 0;
    }
}

/* The controller list of a version 1 line has "cpu" in it. */
static int has_cpu(const char *list) {
    for (;;) {
        size_t n = strcspn(list, ",");
        if (n == 3 && !strncmp(list, "cpu", 3)) return 1;
        if (!list[n]) return 0;
        list += n + 1;
    }
}

int vl_cgroup_cpus(const char *root) {
    char buf[4096], base[256], *save = NULL;
    int least = 0;
    snprintf(base, sizeof base, "%s/proc/self/cgroup", root);
    slurp(buf, sizeof buf, base);
    for (char *line = strtok_r(buf, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        char *list = strchr(line, ':'), *path = list ? strchr(list + 1, ':') : NULL; /* "4:cpu,cpuacct:/a/b" */
        if (!path) continue;
        *path++ = 0;
        list++;
        if (*list && !has_cpu(list)) continue;
        snprintf(base, sizeof base, "%s/sys/fs/cgroup%s", root, *list ? "/cpu" : "");
        int cpus = least_on_path(base, path, *list ? 1 : 2);
        if (cpus && (!least || cpus < least)) least = cpus;
    }
    return least;
}

int vl_usable_threads(void) {
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    int quota = vl_cgroup_cpus("");
    if (quota > 0 && quota < n) n = quota;
    return n > 0 ? n : 1;
}
