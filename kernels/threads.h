/* threads.h: how many threads this process should use by default. */
#ifndef VL_THREADS_H
#define VL_THREADS_H

/* The CPUs of its affinity mask, cut by the quota of its cgroup and of every group above; at least 1. */
int vl_usable_threads(void);
/* CPUs of the quota, rounded up; 0: none. root: "" or, in tests, a folder with proc/ and sys/ of its own. */
int vl_cgroup_cpus(const char *root);

#endif
