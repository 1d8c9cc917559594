/* host.c: the machine under a measurement, from /proc and /sys (see host.h). */
#include "cli/host.h"

#include <dirent.h>
#include <fcntl.h>
#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "common/common.h"
#include "loader/json.h"

#ifndef VL_COMMIT /* given by cli/Makefile.inc where the tree is a git checkout */
#define VL_COMMIT "unknown"
#endif

/* The first line of a small file, or of its line that starts with `key`, what follows ':'. */
static bool read_line(const char *path, const char *key, char *out, size_t size) {
    char line[512];
    FILE *f = fopen(path, "r");
    bool found = false;
    while (f && !found && fgets(line, sizeof line, f)) {
        const char *value = line;
        if (key && strncmp(line, key, strlen(key))) continue;
        if (key && strchr(line, ':')) value = strchr(line, ':') + 1;
        value += strspn(value, " \t");
        snprintf(out, size, "%.*s", (int)strcspn(value, "\n"), value);
        found = true;
    }
    if (f) fclose(f);
    return found;
}

static json_t *line_of(const char *path, const char *key) {
    char s[256];
    return json_string(read_line(path, key, s, sizeof s) && *s ? s : "unknown");
}

static json_t *caches(void) {
    char path[96], size[32], level[8], type[32], all[160] = "";
    for (int i = 0; i < 6; i++) {
        const char *base = "/sys/devices/system/cpu/cpu0/cache/index";
        snprintf(path, sizeof path, "%s%d/size", base, i);
        if (!read_line(path, NULL, size, sizeof size)) break;
        snprintf(path, sizeof path, "%s%d/level", base, i);
        if (!read_line(path, NULL, level, sizeof level)) break;
        snprintf(path, sizeof path, "%s%d/type", base, i);
        if (!read_line(path, NULL, type, sizeof type)) break;
        size_t n = strlen(all);
        snprintf(all + n, sizeof all - n, "%sL%s%s %s", n ? ", " : "", level,
                 type[0] == 'U' ? "" : type[0] == 'D' ? "d" : "i", size);
    }
    return json_string(*all ? all : "unknown");
}

/* PRETTY_NAME="..." of /etc/os-release */
static json_t *system_name(void) {
    char line[160];
    if (!read_line("/etc/os-release", "PRETTY_NAME=", line, sizeof line)) return json_string("unknown");
    char *from = strchr(line, '"'), *to = from ? strchr(from + 1, '"') : NULL;
    return from && to ? json_stringn(from + 1, (size_t)(to - from - 1)) : json_string(line);
}

json_t *host_describe(void) {
    char memory[64] = "0", name[128];
    struct utsname u = {0};
    cpu_set_t set;
    json_t *j = json_object();
    uname(&u);
    int cores = sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);
    if (!read_line("/proc/cpuinfo", "model name", name, sizeof name))
        snprintf(name, sizeof name, "%s", u.machine);
    read_line("/proc/meminfo", "MemTotal", memory, sizeof memory);
    json_object_set_new(j, "name", json_sprintf("%s, %d cores usable", name, cores));
    json_object_set_new(j, "cores", json_integer(cores));
    json_object_set_new(j, "threads_online", json_integer(sysconf(_SC_NPROCESSORS_ONLN)));
    json_object_set_new(j, "cpu_family_model",
                        json_pack("[o,o]", line_of("/proc/cpuinfo", "cpu family"),
                                  line_of("/proc/cpuinfo", "model\t")));
    json_object_set_new(j, "memory_gib", json_real(atof(memory) / 1048576));
    json_object_set_new(j, "caches", caches());
    json_object_set_new(j, "governor",
                        line_of("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", NULL));
    json_object_set_new(j, "huge_pages",
                        line_of("/sys/kernel/mm/transparent_hugepage/enabled", NULL));
    json_object_set_new(j, "huge_page_pool", line_of("/proc/sys/vm/nr_hugepages", NULL));
    json_object_set_new(j, "mhz", line_of("/proc/cpuinfo", "cpu MHz"));
    json_object_set_new(j, "boost", line_of("/sys/devices/system/cpu/cpufreq/boost", NULL));
    json_object_set_new(j, "threads_of_core_0",
                        line_of("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list", NULL));
    json_object_set_new(j, "numa_nodes", line_of("/sys/devices/system/node/online", NULL));
    json_object_set_new(j, "system", system_name());
    json_object_set_new(j, "hypervisor", line_of("/sys/hypervisor/type", NULL));
    json_object_set_new(j, "kernel", json_sprintf("%s %s", u.sysname, u.release));
    json_object_set_new(j, "compiler", json_string(__VERSION__));
    json_object_set_new(j, "commit", json_string(VL_COMMIT));
    json_object_set_new(j, "load", line_of("/proc/loadavg", NULL));
    return j;
}

/* ---- checkpoint files ------------------------------------------------------------------------ */

typedef bool file_fn(const char *path, void *arg);

static int by_name(const struct dirent **a, const struct dirent **b) {
    return strcmp((*a)->d_name, (*b)->d_name);
}

/* Calls fn for each *.safetensors of dir in the order of their names; false when one call failed.
 */
static bool each_shard(const char *dir, file_fn *fn, void *arg) {
    struct dirent **list;
    char path[4096];
    int n = scandir(dir, &list, NULL, by_name);
    bool ok = n >= 0;
    for (int i = 0; i < n; i++) {
        const char *dot = strrchr(list[i]->d_name, '.');
        int len = snprintf(path, sizeof path, "%s/%s", dir, list[i]->d_name);
        if (dot && !strcmp(dot, ".safetensors"))
            ok = len > 0 && (size_t)len < sizeof path && fn(path, arg) && ok;
        free(list[i]);
    }
    if (n >= 0) free(list);
    return ok;
}

static bool drop(const char *path, void *arg) {
    (void)arg;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    bool ok = posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) == 0;
    close(fd);
    return ok;
}

bool host_drop_cache(const char *dir) { return each_shard(dir, drop, NULL); }

/* The first 8 bytes give the header's length. */
static bool add_header(const char *path, void *arg) {
    struct stat st;
    uint64_t len = 0;
    char *head = NULL;
    FILE *f = fopen(path, "rb");
    bool ok = f && fstat(fileno(f), &st) == 0 && fread(&len, 8, 1, f) == 1 && len < (64u << 20);
    if (ok) head = malloc((size_t)len);
    ok = ok && head && fread(head, 1, (size_t)len, f) == len;
    if (ok) {
        vl_sha256_add(arg, &st.st_size, sizeof st.st_size);
        vl_sha256_add(arg, head, (size_t)len);
    }
    free(head);
    if (f) fclose(f);
    return ok;
}

static bool add_content(const char *path, void *arg) {
    static uint8_t block[1 << 20];
    size_t n;
    FILE *f = fopen(path, "rb");
    while (f && (n = fread(block, 1, sizeof block, f)) > 0) vl_sha256_add(arg, block, n);
    bool ok = f && !ferror(f);
    if (f) fclose(f);
    return ok;
}

char *host_weights_sha256(const char *dir) {
    uint8_t digest[32];
    char *hex = malloc(65);
    vl_sha256 h;
    vl_sha256_init(&h);
    if (!hex || !each_shard(dir, add_content, &h)) {
        free(hex);
        return NULL;
    }
    vl_sha256_end(&h, digest);
    for (int i = 0; i < 32; i++) snprintf(hex + 2 * i, 3, "%02x", digest[i]);
    return hex;
}

char *host_model_fingerprint(const char *dir) {
    char path[4096], *config, *hex = malloc(65);
    uint8_t digest[32];
    size_t n;
    vl_sha256 h;
    vl_err err;
    snprintf(path, sizeof path, "%s/config.json", dir);
    vl_sha256_init(&h);
    if (!hex || vl_read_file(path, 1 << 20, &config, &n, &err)) {
        free(hex);
        return NULL;
    }
    vl_sha256_add(&h, config, n);
    free(config);
    if (!each_shard(dir, add_header, &h)) {
        free(hex);
        return NULL;
    }
    vl_sha256_end(&h, digest);
    for (int i = 0; i < 32; i++) snprintf(hex + 2 * i, 3, "%02x", digest[i]);
    return hex;
}

/* ---- the rest -------------------------------------------------------------------------------- */

double host_joules(void) {
    char path[96], value[32];
    double sum = 0;
    bool any = false;
    for (int i = 0; i < 8; i++) {
        snprintf(path, sizeof path, "/sys/class/powercap/intel-rapl:%d/energy_uj", i);
        if (!read_line(path, NULL, value, sizeof value)) break;
        sum += atof(value) / 1e6;
        any = true;
    }
    return any ? sum : -1;
}

void host_pin_threads(bool pin) {
    static cpu_set_t all; /* what this process was given */
    static bool known;
    size_t cores[CPU_SETSIZE], n = 0, next = 0;
    if (!known) known = sched_getaffinity(0, sizeof all, &all) == 0;
    for (size_t c = 0; known && c < CPU_SETSIZE; c++)
        if (CPU_ISSET(c, &all)) cores[n++] = c;
    DIR *d = opendir("/proc/self/task");
    for (struct dirent *e; d && n && (e = readdir(d));) {
        cpu_set_t one;
        int tid = atoi(e->d_name);
        if (tid <= 0) continue;
        CPU_ZERO(&one);
        CPU_SET(cores[next++ % n], &one);
        sched_setaffinity(tid, sizeof one, pin ? &one : &all);
    }
    if (d) closedir(d);
}

void host_date(char out[16]) {
    time_t now = time(NULL);
    struct tm t;
    gmtime_r(&now, &t);
    strftime(out, 16, "%Y-%m-%d", &t);
}
