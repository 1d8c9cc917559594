/* test_threads.c: quotas of made-up cgroup trees, the affinity mask, pinned teams, and what a team runs. */
#include "kernels/threads.h"

#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <unistd.h>

#include "kernels/cpu/team.h"
#include "kernels/ops.h"
#include "tests/test.h"

static char root[] = "/tmp/vitreous-cgroup-XXXXXX";

/* A file of the made-up tree. */
static void put(const char *path, const char *text) {
    char command[512];
    snprintf(command, sizeof command, "mkdir -p $(dirname %s/%s) && printf -- '%s' > %s/%s", root, path, text, root, path);
    CHECK(system(command) == 0, "%s", path);
}

static void clear(void) {
    char command[256];
    snprintf(command, sizeof command, "rm -rf %s/*", root);
    CHECK(system(command) == 0, "clear");
}

static void test_version_2(void) {
    clear();
    CHECK(vl_cgroup_cpus(root) == 0, "nothing there");
    put("proc/self/cgroup", "0::/a/b\\n");
    put("sys/fs/cgroup/a/b/cpu.max", "max 100000");
    CHECK(vl_cgroup_cpus(root) == 0, "no limit");
    put("sys/fs/cgroup/a/cpu.max", "350000 100000");
    CHECK(vl_cgroup_cpus(root) == 4, "the group above, rounded up: %d", vl_cgroup_cpus(root));
    put("sys/fs/cgroup/a/b/cpu.max", "150000 100000");
    CHECK(vl_cgroup_cpus(root) == 2, "its own is less: %d", vl_cgroup_cpus(root));
    put("sys/fs/cgroup/cpu.max", "10000 100000"); /* in a container: the root is its own group */
    CHECK(vl_cgroup_cpus(root) == 1, "the root: %d", vl_cgroup_cpus(root));
    put("proc/self/cgroup", "0::/not/here\\n");
    CHECK(vl_cgroup_cpus(root) == 1, "a path from outside the container: %d", vl_cgroup_cpus(root));
    put("sys/fs/cgroup/cpu.max", "rubbish");
    CHECK(vl_cgroup_cpus(root) == 0, "rubbish");
}

static void test_version_1(void) {
    clear();
    put("proc/self/cgroup", "5:cpuset:/x\\n4:cpu,cpuacct:/a\\n1:memory:/x\\n0::/\\n");
    put("sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", "-1");
    put("sys/fs/cgroup/cpu/a/cpu.cfs_period_us", "100000");
    CHECK(vl_cgroup_cpus(root) == 0, "no limit");
    put("sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", "200000");
    CHECK(vl_cgroup_cpus(root) == 2, "two: %d", vl_cgroup_cpus(root));
    put("sys/fs/cgroup/cpu/a/cpu.cfs_period_us", "0");
    CHECK(vl_cgroup_cpus(root) == 0, "a period of 0");
}

static void test_memory(void) {
    clear();
    CHECK(vl_cgroup_memory(root) == 0 && vl_usable_memory(root) == 0, "nothing there");
    put("proc/meminfo", "MemTotal: 9000 kB\\nMemAvailable:    4000 kB\\n");
    put("proc/self/cgroup", "0::/a/b\\n");
    put("sys/fs/cgroup/a/b/memory.max", "max");
    CHECK(vl_cgroup_memory(root) == 0 && vl_usable_memory(root) == 4096000, "no limit but the machine's");
    put("sys/fs/cgroup/a/memory.max", "2000000");
    CHECK(vl_cgroup_memory(root) == 2000000 && vl_usable_memory(root) == 2000000, "the group above");
    put("sys/fs/cgroup/memory.max", "1000000");
    CHECK(vl_usable_memory(root) == 1000000, "the root of a container");
    put("proc/meminfo", "MemAvailable: 10 kB\\n");
    CHECK(vl_usable_memory(root) == 10240, "the machine has less");
    clear();
    put("proc/self/cgroup", "5:cpuset,cpu:/x\\n1:memory:/m\\n");
    put("sys/fs/cgroup/memory/m/memory.limit_in_bytes", "9223372036854771712");
    CHECK(vl_cgroup_memory(root) == 0, "version 1 without a limit");
    put("sys/fs/cgroup/memory/memory.limit_in_bytes", "5000");
    CHECK(vl_cgroup_memory(root) == 5000, "version 1");
}

static int threads_of(int asked) {
    vl_backend *b;
    vl_err err = {0};
    if (vl_backend_open(&b, &(vl_backend_params){"cpu", "exact", asked}, &err)) return -1;
    int n = vl_backend_threads(b);
    b->ops->close(b);
    return n;
}

static void test_affinity(void) {
    cpu_set_t all, one;
    CHECK(!sched_getaffinity(0, sizeof all, &all), "mask");
    size_t first = 0;
    while (!CPU_ISSET(first, &all)) first++;
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    CHECK(!sched_setaffinity(0, sizeof one, &one), "one CPU");
    CHECK(vl_usable_threads() == 1 && threads_of(0) == 1, "one CPU: %d threads", threads_of(0));
    CHECK(threads_of(3) == 3, "as many as asked for: %d", threads_of(3));
    CHECK(!sched_setaffinity(0, sizeof all, &all), "all CPUs");
    CHECK(threads_of(0) >= 1 && threads_of(0) <= CPU_COUNT(&all), "all: %d of %d", threads_of(0), CPU_COUNT(&all));
}

enum { THREADS = 3, ITEMS = 300 };
static cpu_set_t masks[THREADS];
static void note_mask(void *arg, int item, int thread) {
    (void)arg, (void)item;
    sched_getaffinity(0, sizeof masks[thread], &masks[thread]);
    usleep(100);
}

static void test_pin(void) {
    cpu_team *t;
    cpu_set_t all;
    vl_err err = {0};
    sched_getaffinity(0, sizeof all, &all);
    int n = CPU_COUNT(&all);
    for (int pin = 0; pin < 2; pin++) {
        setenv("VL_PIN", pin ? "1" : "0", 1);
        CHECK(!cpu_team_open(&t, THREADS, &err), "%s", err.msg);
        memset(masks, 0, sizeof masks);
        cpu_team_run(t, ITEMS, note_mask, NULL);
        cpu_team_close(t);
        CHECK(CPU_EQUAL(&masks[0], &all), "the caller is left alone");
        for (int i = 1; i < THREADS; i++) {
            if (!CPU_COUNT(&masks[i])) continue; /* it got no item */
            CHECK(CPU_COUNT(&masks[i]) == (pin ? 1 : n), "VL_PIN=%d: thread %d may use %d CPUs", pin, i,
                  CPU_COUNT(&masks[i]));
            for (int k = 1; pin && k < i && i < n; k++)
                CHECK(!CPU_EQUAL(&masks[i], &masks[k]), "threads %d and %d share a CPU", i, k);
        }
    }
    setenv("VL_PIN", "maybe", 1);
    CHECK(cpu_team_open(&t, 1, &err) && err.code == VL_E_USAGE && strstr(err.msg, "VL_PIN"), "%s", err.msg);
    unsetenv("VL_PIN");
}

/* Runs of a few items one after another: every item once, by a thread that may, with the run's own arguments, whether
 * threads find the work awake, fall asleep over it or sleep at once. */
enum { RUNS = 20000, MOST = 9 };
typedef struct tally { int run, times[MOST], thread[MOST]; } tally;

static void count_item(void *arg, int item, int thread) {
    tally *c = arg;
    c->times[item]++;
    c->thread[item] = thread;
    if ((c->run + item) % 997 == 0) usleep(200); /* outlasts the spinning of 100 turns */
}

static void test_runs(void) {
    static const int SPINS[] = {0, 100, 4000};
    for (int s = 0; s < 3; s++)
        for (int threads = 2; threads <= 4; threads++) {
            cpu_team *t;
            vl_err err;
            CHECK(!cpu_team_open(&t, threads, &err), "%s", err.msg);
            cpu_team_spins(t, SPINS[s]);
            int wrong = 0;
            for (int r = 0; r < RUNS; r++) {
                tally c = {.run = r};
                int n = r % (MOST + 1);
                cpu_team_run(t, n, count_item, &c);
                for (int i = 0; i < MOST; i++) wrong += c.times[i] != (i < n) || c.thread[i] < 0 || c.thread[i] >= threads;
            }
            CHECK(wrong == 0, "%d threads, %d spins: %d items not run once", threads, SPINS[s], wrong);
            cpu_team_close(t);
        }
}

int main(void) {
    CHECK(mkdtemp(root) != NULL, "a folder in /tmp");
    test_version_2();
    test_version_1();
    test_memory();
    test_affinity();
    test_pin();
    test_runs();
    clear();
    rmdir(root);
    return test_end();
}
