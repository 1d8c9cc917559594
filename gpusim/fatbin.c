/* fatbin.c: see fatbin.h. Reads only within the sizes the headers give.
 *
 * Container: {u32 0xBA55ED50, u16 1, u16 16, u64 size}, then entries {u16 kind, u16, u32 header
 * size, u64 payload size, u32 compressed size, ..., u32 arch at 28, ..., u64 flags at 40}.
 * .nv.info: records {u8 format, u8 attribute, u16 size or value}; format 4 has `size` bytes. */
#include "fatbin.h"
#include "check.h"
#include <elf.h>
#include <stdio.h>
#include <string.h>

static uint32_t u32_at(const uint8_t *p) { uint32_t v; memcpy(&v, p, 4); return v; }
static uint64_t u64_at(const uint8_t *p) { uint64_t v; memcpy(&v, p, 8); return v; }
static uint16_t u16_at(const uint8_t *p) { uint16_t v; memcpy(&v, p, 2); return v; }

int fatbin_entries(const void *image, FatEntry *out, int cap) {
    const uint8_t *p = image;
    if (u32_at(p) == 0x466243b1) memcpy(&p, p + 8, sizeof p);
    if (u32_at(p) != 0xBA55ED50) return -1;
    uint64_t header = u16_at(p + 6), left = u64_at(p + 8);
    int n = 0;
    p += header;
    while (left >= 64 && n < cap) {
        uint64_t head = u32_at(p + 4), size = u64_at(p + 8);
        if (head < 64 || head > left || size > left - head) break;
        out[n++] = (FatEntry){p + head, size, u16_at(p), (int)u32_at(p + 28),
                              (u64_at(p + 40) & 0x8000) != 0};
        p += head + size;
        left -= head + size;
    }
    return n;
}

typedef struct { const uint8_t *base; uint64_t size; const Elf64_Shdr *sh; int n; const char *str; }
    Elf;

static bool open_elf(const FatEntry *e, Elf *f) {
    if (e->size < sizeof(Elf64_Ehdr) || memcmp(e->data, ELFMAG, 4)) return false;
    const Elf64_Ehdr *h = (const void *)e->data;
    uint64_t table = (uint64_t)h->e_shnum * sizeof(Elf64_Shdr);
    if (h->e_shoff > e->size || table > e->size - h->e_shoff || h->e_shstrndx >= h->e_shnum)
        return false;
    f->base = e->data;
    f->size = e->size;
    f->sh = (const void *)(e->data + h->e_shoff);
    f->n = h->e_shnum;
    const Elf64_Shdr *s = &f->sh[h->e_shstrndx];
    if (s->sh_offset > e->size || s->sh_size > e->size - s->sh_offset || !s->sh_size) return false;
    f->str = (const char *)e->data + s->sh_offset;
    return f->str[s->sh_size - 1] == 0;
}

static const Elf64_Shdr *section(const Elf *f, const char *name) {
    uint64_t limit = (uint64_t)(f->base + f->size - (const uint8_t *)f->str);
    for (int i = 0; i < f->n; i++) {
        const Elf64_Shdr *s = &f->sh[i];
        bool inside = s->sh_type == SHT_NOBITS ||
                      (s->sh_offset <= f->size && s->sh_size <= f->size - s->sh_offset);
        if (inside && s->sh_name < limit && !strcmp(f->str + s->sh_name, name)) return s;
    }
    return NULL;
}

static Func *function(Module *m, const char *name) {
    for (int i = 0; i < m->nfunc; i++)
        if (!strcmp(m->funcs[i].name, name)) return &m->funcs[i];
    return NULL;
}

static CubinInfo *info_of(Func *f, int sm) {
    for (int i = 0; i < f->ncubin; i++)
        if (f->cubin[i].sm == sm) return &f->cubin[i];
    if (f->ncubin == (int)(sizeof f->cubin / sizeof *f->cubin)) return NULL;
    f->cubin[f->ncubin] = (CubinInfo){.sm = sm};
    return &f->cubin[f->ncubin++];
}

typedef struct { const Elf64_Sym *sym; uint64_t n; const char *names; uint64_t len; } Symbols;

static const char *symbol_name(const Symbols *s, uint32_t i) {
    return i < s->n && s->sym[i].st_name < s->len ? s->names + s->sym[i].st_name : "";
}

enum { ATTR_PARAM = 0x17, ATTR_FRAME = 0x11, ATTR_REGS = 0x2f };

static void read_info(const uint8_t *p, uint64_t size, const Symbols *s, Module *m, Func *own,
                      int sm) {
    for (uint64_t i = 0; i + 4 <= size;) {
        int attr = p[i + 1];
        uint64_t n = p[i] == 4 ? u16_at(p + i + 2) : 0;
        const uint8_t *v = p + i + 4;
        if (i + 4 + n > size) break;
        if ((attr == ATTR_REGS || attr == ATTR_FRAME) && n >= 8) {
            Func *f = function(m, symbol_name(s, u32_at(v)));
            CubinInfo *c = f ? info_of(f, sm) : NULL;
            if (c) *(attr == ATTR_REGS ? &c->regs : &c->frame) = (int)u32_at(v + 4);
        }
        if (attr == ATTR_PARAM && own && n >= 12) {
            uint32_t k = u16_at(v + 4), off = u16_at(v + 6), bytes = u32_at(v + 8) >> 18;
            if (k >= (uint32_t)own->nparam || own->params[k].off != off ||
                own->params[k].size != bytes)
                check_host("param-layout", own->name, "parameter %u of %s: the sm_%d cubin has "
                           "offset %u, %u bytes; the PTX differs", k, own->name, sm, off, bytes);
        }
        i += 4 + n;
    }
}

void fatbin_cubin_info(const FatEntry *e, Module *m) {
    Elf f;
    if (!open_elf(e, &f)) return;
    const Elf64_Shdr *sym = section(&f, ".symtab"), *str = section(&f, ".strtab");
    if (!sym || !str) return;
    Symbols s = {(const void *)(f.base + sym->sh_offset), sym->sh_size / sizeof(Elf64_Sym),
                 (const char *)f.base + str->sh_offset, str->sh_size};
    const Elf64_Shdr *all = section(&f, ".nv.info");
    if (all) read_info(f.base + all->sh_offset, all->sh_size, &s, m, NULL, e->arch);
    for (int i = 0; i < m->nfunc; i++) {
        char name[300];
        snprintf(name, sizeof name, ".nv.info.%s", m->funcs[i].name);
        const Elf64_Shdr *one = section(&f, name);
        if (one) read_info(f.base + one->sh_offset, one->sh_size, &s, m, &m->funcs[i], e->arch);
        snprintf(name, sizeof name, ".nv.shared.%s", m->funcs[i].name);
        const Elf64_Shdr *sh = section(&f, name);
        CubinInfo *c = info_of(&m->funcs[i], e->arch);
        if (c && sh) c->shared = (uint32_t)sh->sh_size;
    }
}
