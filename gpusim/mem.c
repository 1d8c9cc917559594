/* mem.c: see mem.h. Device addresses are numbers of their own (never host addresses), handed out
 * once: a freed range stays known, so that a late access can be called use after free. */
#include "mem.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static Alloc **list;             /* by address, ascending */
static int count, cap;
static uint64_t top = DEV_BASE, used[MEM_DEVICES];
int mem_device;
bool mem_peer[MEM_DEVICES][MEM_DEVICES];
uint32_t mem_period = 1;

static void *map(uint64_t bytes) {
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

static uint64_t shadow_bytes(uint64_t size) { return (size + 3) / 4 * sizeof(GWord); }

uint64_t mem_alloc(uint64_t bytes, const char *name) {
    if (bytes == 0 || bytes > 1ull << 40) return 0;
    Alloc *a = calloc(1, sizeof *a);
    if (!a) return 0;
    a->addr = top;
    a->size = bytes;
    a->device = mem_device;
    a->big = bytes > settings.big_alloc;
    a->host = map(bytes);
    a->init = map(bytes / 8 + 16);
    a->shadow = settings.checks ? map(shadow_bytes(bytes)) : NULL;
    if (count == cap) {
        cap = cap ? cap * 2 : 256;
        Alloc **l = realloc(list, (size_t)cap * sizeof *l);
        if (l) list = l;
        else a->init = NULL;
    }
    if (!a->host || !a->init || (settings.checks && !a->shadow)) {
        free(a);
        return 0;
    }
    snprintf(a->name, sizeof a->name, "%s", name);
    list[count++] = a;
    top += (bytes + 511) / 512 * 512 + 4096;
    used[a->device] += bytes;
    return a->addr;
}

/* Index of the last allocation that starts at or before addr, or -1. */
static int before(uint64_t addr) {
    int lo = 0, hi = count;
    while (lo < hi) {
        int mid = (lo + hi) / 2;
        if (list[mid]->addr <= addr) lo = mid + 1;
        else hi = mid;
    }
    return lo - 1;
}

Alloc *mem_near(uint64_t addr) {
    int i = before(addr);
    return i >= 0 ? list[i] : count ? list[0] : NULL;
}

Alloc *mem_find(uint64_t addr) {
    int i = before(addr);
    return i >= 0 && addr - list[i]->addr < list[i]->size ? list[i] : NULL;
}

int mem_free(uint64_t addr) {
    Alloc *a = mem_find(addr);
    if (!a || a->addr != addr || a->freed) return -1;
    munmap(a->host, a->size);
    munmap(a->init, a->size / 8 + 16);
    if (a->shadow) munmap(a->shadow, shadow_bytes(a->size));
    a->host = a->init = NULL;
    a->shadow = NULL;
    a->freed = true;
    used[a->device] -= a->size;
    return 0;
}

uint64_t mem_used(int device) { return used[device]; }

uint8_t *mem_host(uint64_t addr, uint64_t bytes) {
    Alloc *a = mem_find(addr);
    if (!a || a->freed || bytes > a->size - (addr - a->addr)) return NULL;
    return a->host + (addr - a->addr);
}

void mem_mark(Alloc *a, uint64_t off, uint64_t bytes) {
    a->written = mem_period;
    if (a->all_init) return;
    if (bytes <= 8 && off % 8 + bytes <= 8) {
        a->init[off / 8] |= (uint8_t)(((1u << bytes) - 1) << off % 8);
        return;
    }
    if (bytes == a->size) a->all_init = true;
    while (bytes && off % 8) {
        a->init[off / 8] |= (uint8_t)(1 << off % 8);
        off++;
        bytes--;
    }
    memset(a->init + off / 8, 0xff, bytes / 8);
    off += bytes / 8 * 8;
    if (bytes % 8) a->init[off / 8] |= (uint8_t)((1 << bytes % 8) - 1);
}

int64_t mem_uninitialised(const Alloc *a, uint64_t off, uint64_t bytes) {
    if (a->all_init) return -1;
    uint64_t end = off + bytes;
    for (; off < end && off % 8; off++)
        if (!(a->init[off / 8] >> off % 8 & 1)) return (int64_t)off;
    for (; off + 64 <= end; off += 64) {
        uint64_t v;
        memcpy(&v, a->init + off / 8, 8);
        if (~v) break;
    }
    for (; off + 8 <= end; off += 8)
        if (a->init[off / 8] != 0xff) break;
    for (; off < end; off++)
        if (!(a->init[off / 8] >> off % 8 & 1)) return (int64_t)off;
    return -1;
}

uint8_t *mem_fill_host(uint64_t addr, uint64_t bytes) {
    uint8_t *p = mem_host(addr, bytes);
    Alloc *a = mem_find(addr);
    if (p) mem_mark(a, addr - a->addr, bytes);
    return p;
}
