/* threads.h: what this process may use: how many threads by default, and how much memory. */
#ifndef VL_THREADS_H
#define VL_THREADS_H

#include <stdint.h>

/* The CPUs of its affinity mask, cut by the quota of its cgroup and of every group above; at least 1. */
int vl_usable_threads(void);
/* CPUs of the quota, rounded up; 0: none. root: "" or, in tests, a folder with proc/ and sys/ of its own. */
int vl_cgroup_cpus(const char *root);
/* Bytes of memory that its cgroup and those above allow; 0: no limit. */
int64_t vl_cgroup_memory(const char *root);
/* The same, or what the machine has left if that is less; 0: not known. */
int64_t vl_usable_memory(const char *root);

#endif
