/* mem.h: device memory with guards, "was it written" bits and race shadows. */
#ifndef MEM_H
#define MEM_H
#include "gpusim.h"

/* Shadow of 4 bytes of global memory: the last writer and the readers since. */
typedef struct {
    uint32_t wr_launch, wr_cta, rd_launch, rd_cta;
    uint16_t wr_tick, rd_tick, wr_pc, rd_pc;
    uint16_t wr_who, rd_who;     /* warp * 32 + lane */
    uint8_t wmask, rmask, flags, spare;
} GWord;
enum { G_WR_STRONG = 1, G_RD_STRONG = 2, G_RD_CTAS = 4, G_RD_WARPS = 8 };

struct Alloc {
    uint64_t addr, size;         /* device address; bytes asked for */
    uint8_t *host;               /* NULL once freed */
    uint8_t *init;               /* one bit per byte */
    GWord *shadow;
    char name[64];
    bool freed, all_init, big, kernel_wrote, touched;
    int device;                  /* whose memory it is */
    uint32_t written;            /* mem_period of the last write */
    uint32_t host_wr, host_rd;   /* the last driver copy or fill that wrote, that read */
    uint64_t wr_lo, wr_hi, rd_lo, rd_hi;
};

/* A new allocation on mem_device (512-byte aligned, guarded on both sides by unmapped addresses), or 0. */
uint64_t mem_alloc(uint64_t bytes, const char *name);
/* 0, or -1 when addr is not the start of a live allocation. */
int mem_free(uint64_t addr);
/* The allocation that holds addr, live or freed, or NULL. */
Alloc *mem_find(uint64_t addr);
/* The nearest allocation, to describe a wild address. */
Alloc *mem_near(uint64_t addr);
/* Host view of [addr, addr + bytes) for a write by the driver: marks it written. */
uint8_t *mem_fill_host(uint64_t addr, uint64_t bytes);
/* Host view for a read, or NULL when the range is not inside one live allocation. */
uint8_t *mem_host(uint64_t addr, uint64_t bytes);
/* First byte of [off, off + bytes) that nobody has written, or -1. */
int64_t mem_uninitialised(const Alloc *a, uint64_t off, uint64_t bytes);
void mem_mark(Alloc *a, uint64_t off, uint64_t bytes);
uint64_t mem_used(int device);
enum { MEM_DEVICES = 16 };
extern int mem_device;           /* of the current context */
extern bool mem_peer[MEM_DEVICES][MEM_DEVICES]; /* [who][whose]: cuCtxEnablePeerAccess */
/* May a kernel on `device` touch it? */
static inline bool mem_reachable(const Alloc *a, int device) {
    return a->device == device || mem_peer[device][a->device];
}
/* Counts the resets of the counters. */
extern uint32_t mem_period;
/* Big, and nothing has written to it in this period: weights. */
static inline bool mem_weights(const Alloc *a) { return a->big && a->written != mem_period; }
#endif
