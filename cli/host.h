/* host.h: what a figure was measured on. */
#ifndef VL_HOST_H
#define VL_HOST_H

#include <jansson.h>
#include <stdbool.h>

/* {"name", "cores", "threads_online", "memory_gib", "caches", "governor", "huge_pages", "huge_page_pool", "mhz",
 * "boost", "threads_of_core_0", "numa_nodes", "system", "kernel",
 * "hypervisor", "compiler", "commit", "load"}: strings are "unknown" where the system does not say.
 */
json_t *host_describe(void);
/* SHA-256 over config.json and the safetensors headers and sizes of a checkpoint folder: tells two
 * checkpoints apart without reading their weights. malloc'd hex text, or NULL. */
char *host_model_fingerprint(const char *dir);
/* SHA-256 over the bytes of all safetensors files, in the order of their names (some seconds a
 * gigabyte); malloc'd hex text, or NULL. */
char *host_weights_sha256(const char *dir);
/* Joules used since boot by the processor packages, or a negative number where that is not
 * readable. */
double host_joules(void);
/* Drops the folder's safetensors files from the page cache; false if that could not be asked for.
 */
bool host_drop_cache(const char *dir);
/* Every thread of this process on a core of its own, or all on all cores again. */
void host_pin_threads(bool pin);
/* "2026-11-22" */
void host_date(char out[16]);

#endif
