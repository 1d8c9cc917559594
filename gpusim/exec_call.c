/* exec_call.c: assert() and printf() of device code. */
#include "check.h"
#include "exec.h"
#include "exec_block.h"
#include "mem.h"
#include <stdio.h>
#include <string.h>

static uint64_t argument(const Warp *w, const Op *op, int k, int lane) {
    uint64_t v;
    memcpy(&v, w->call + (size_t)lane * w->cta->l->f->call_bytes + op->targets[k], 8);
    return v;
}

/* A string in device memory, or "?". */
static const char *text(uint64_t addr) {
    const Alloc *a = mem_find(addr);
    if (!a || a->freed) return "?";
    const char *p = (const char *)a->host + (addr - a->addr);
    return memchr(p, 0, a->size - (addr - a->addr)) ? p : "?";
}

/* One conversion of the format, e.g. "%-5.2f", with its argument of 4 or 8 bytes. */
static const char *convert(const char *f, const uint8_t **args) {
    char spec[32], out[512];
    size_t n = 1 + strcspn(f + 1, "diuoxXcfFeEgGaAsp");
    bool wide = memchr(f, 'l', n) || strchr("fFeEgGaAsp", f[n]);
    snprintf(spec, sizeof spec, "%.*s", (int)(n + 1), f);
    uint64_t v = 0;
    double d;
    if (wide) *args = (const uint8_t *)(((uintptr_t)*args + 7) & ~(uintptr_t)7);
    memcpy(&v, *args, wide ? 8 : 4);
    *args += wide ? 8 : 4;
    memcpy(&d, &v, 8);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    if (strchr("fFeEgGaA", f[n])) snprintf(out, sizeof out, spec, d);
    else if (f[n] == 's') snprintf(out, sizeof out, spec, text(v));
    else if (wide) snprintf(out, sizeof out, spec, v);
    else snprintf(out, sizeof out, spec, (int)v);
#pragma GCC diagnostic pop
    fputs(out, stderr);
    return f + n + 1;
}

static void print(const Warp *w, const char *f, uint64_t args, int lane) {
    const uint8_t *p = w->local;
    static const uint64_t none[32];
    if (args - LOCAL_WINDOW < WINDOW_SIZE)
        p += (size_t)lane * w->cta->l->f->local_bytes + (args - LOCAL_WINDOW);
    else p = (const uint8_t *)none;
    uint64_t copy[32] = {0};
    size_t left = p == (const uint8_t *)none ? 0
                : w->cta->l->f->local_bytes - (size_t)(args - LOCAL_WINDOW);
    memcpy(copy, p, left < sizeof copy ? left : sizeof copy);
    p = (const uint8_t *)copy;
    while (*f) {
        bool spec = *f == '%' && f[1] && f[1] != '%' && p < (const uint8_t *)(copy + 31);
        if (spec) {
            f = convert(f, &p);
        } else {
            fputc(*f, stderr);
            f += *f == '%' && f[1] == '%' ? 2 : 1;
        }
    }
}

int exec_call(Warp *w, const Op *op, uint32_t mask) {
    for (int i = 0; i < LANES; i++) {
        if (!(mask >> i & 1)) continue;
        if (op->mode == CALL_PRINTF) {
            print(w, text(argument(w, op, 0, i)), argument(w, op, 1, i), i);
            continue;
        }
        check_report(w, op, i, 0, NULL, "assert", "assertion '%s' failed",
                     text(argument(w, op, 0, i)));
        w->cta->l->failed = 710;
        return FATAL;
    }
    return NEXT;
}
