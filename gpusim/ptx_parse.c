/* ptx_parse.c: modules, functions, declarations and symbols of PTX.
 *
 * Reads both dialects of nvcc 13 (NVVM 7 for compute_75..90, NVVM 20 for compute_100 and up).
 * Anything not understood stops the load with the kernel, the line and the text. */
#include "mem.h"
#include "ptx_build.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void build_fail(Build *b, const char *fmt, ...) {
    int n = snprintf(b->err, b->errlen, "kernel %s, PTX line %d: ", b->name ? b->name : "(none)",
                     b->x.line);
    va_list ap;
    va_start(ap, fmt);
    if (n >= 0 && (size_t)n < b->errlen) vsnprintf(b->err + n, b->errlen - (size_t)n, fmt, ap);
    va_end(ap);
    longjmp(b->fail, 1);
}

void *build_grow(Build *b, void *p, int *cap, int n, size_t size) {
    if (n <= *cap) return p;
    int want = *cap ? *cap * 2 : 64;
    while (want < n) want *= 2;
    void *q = realloc(p, (size_t)want * size);
    if (!q) build_fail(b, "out of memory");
    memset((char *)q + (size_t)*cap * size, 0, (size_t)(want - *cap) * size);
    *cap = want;
    return q;
}

void *ptx_own(Module *m, size_t bytes) {
    void *p = calloc(1, bytes ? bytes : 1);
    if (p && m->nowned == m->cap) {
        int cap = m->cap ? m->cap * 2 : 64;
        void **q = realloc(m->owned, (size_t)cap * sizeof *q);
        if (!q) { free(p); return NULL; }
        m->owned = q;
        m->cap = cap;
    }
    if (p) m->owned[m->nowned++] = p;
    return p;
}

static void *own(Build *b, size_t bytes) {
    void *p = ptx_own(b->mod, bytes);
    if (!p) build_fail(b, "out of memory");
    return p;
}

void build_expect(Build *b, const char *s) {
    if (!lex_is(&b->x, s))
        build_fail(b, "expected '%s', got '%.*s'", s, (int)(b->x.tok.end - b->x.tok.p), b->x.tok.p);
    lex_next(&b->x);
}

bool build_accept(Build *b, const char *s) {
    if (!lex_is(&b->x, s)) return false;
    lex_next(&b->x);
    return true;
}

void build_word(Build *b, char *out, size_t n) {
    size_t len = (size_t)(b->x.tok.end - b->x.tok.p);
    if (b->x.tok.kind != T_WORD || len >= n)
        build_fail(b, "expected a name, got '%.*s'", (int)(len > 40 ? 40 : len), b->x.tok.p);
    memcpy(out, b->x.tok.p, len);
    out[len] = 0;
    lex_next(&b->x);
}

uint64_t ptx_integer(Build *b) {
    int sign = build_accept(b, "-") ? -1 : 1;
    if (b->x.tok.kind != T_NUMBER) build_fail(b, "expected a number");
    uint64_t v = lex_number(&b->x);
    lex_next(&b->x);
    return sign < 0 ? 0 - v : v;
}

/* ---- registers, constants, labels, symbols ---- */

uint32_t build_register(Build *b, uint8_t width) {
    int cap = (int)b->cap_width;
    b->width = build_grow(b, b->width, &cap, (int)b->nvirtual + 1, 1);
    b->cap_width = (uint32_t)cap;
    b->width[b->nvirtual] = width;
    return b->nvirtual++;
}

/* Stored as 64-bit lanes; a 32-bit reader wants 32-bit lanes, so both forms are laid out. */
uint32_t build_const(Build *b, uint64_t v) {
    enum { SIZE = LANES * 12 };
    for (uint32_t i = 0; i < b->nconst; i += SIZE) {
        uint64_t have;
        memcpy(&have, b->consts + i, 8);
        if (have == v) return i;
    }
    int cap = (int)b->cap_const;
    b->consts = build_grow(b, b->consts, &cap, (int)b->nconst + SIZE, 1);
    b->cap_const = (uint32_t)cap;
    uint32_t low = (uint32_t)v;
    for (uint32_t i = 0; i < LANES; i++) {
        memcpy(b->consts + b->nconst + 8 * i, &v, 8);
        memcpy(b->consts + b->nconst + 8 * LANES + 4 * i, &low, 4);
    }
    b->nconst += SIZE;
    return b->nconst - SIZE;
}

int build_label(Build *b, const char *name) {
    for (int i = 0; i < b->nlabels; i++)
        if (!strcmp(b->labels[i].name, name)) return i;
    b->labels = build_grow(b, b->labels, &b->cap_labels, b->nlabels + 1, sizeof *b->labels);
    Label *l = &b->labels[b->nlabels];
    snprintf(l->name, sizeof l->name, "%s", name);
    l->target = -1;
    l->first_use = b->x.line;
    return b->nlabels++;
}

Local *build_find(Build *b, const char *name) {
    for (int i = b->nlocals - 1; i >= 0; i--)
        if (!strcmp(b->locals[i].name, name)) return &b->locals[i];
    return NULL;
}

static void add_symbol(Build *b, const char *name, uint8_t space, uint64_t addr) {
    b->locals = build_grow(b, b->locals, &b->cap_locals, b->nlocals + 1, sizeof *b->locals);
    Local *l = &b->locals[b->nlocals++];
    snprintf(l->name, sizeof l->name, "%s", name);
    l->space = space;
    l->addr = addr;
    l->scope = b->scope;
    l->bytes = l->placed_in = 0;
}

static bool special(const char *name, Opnd *o) {
    static const struct { const char *name; int id; } table[] = {
        {"%tid.x", SR_TID}, {"%tid.y", SR_TID + 1}, {"%tid.z", SR_TID + 2},
        {"%ntid.x", SR_NTID}, {"%ntid.y", SR_NTID + 1}, {"%ntid.z", SR_NTID + 2},
        {"%ctaid.x", SR_CTAID}, {"%ctaid.y", SR_CTAID + 1}, {"%ctaid.z", SR_CTAID + 2},
        {"%nctaid.x", SR_NCTAID}, {"%nctaid.y", SR_NCTAID + 1}, {"%nctaid.z", SR_NCTAID + 2},
        {"%laneid", SR_LANEID}, {"%warpid", SR_WARPID}, {"%nwarpid", SR_NWARPID},
        {"%smid", SR_SMID}, {"%nsmid", SR_NSMID}, {"%lanemask_lt", SR_LT},
        {"%lanemask_le", SR_LE}, {"%lanemask_eq", SR_EQ}, {"%lanemask_ge", SR_GE},
        {"%lanemask_gt", SR_GT}, {"%dynamic_smem_size", SR_DYN_SMEM},
        {"%total_smem_size", SR_TOTAL_SMEM}, {"%clock", SR_CLOCK},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (!strcmp(table[i].name, name)) {
            *o = (Opnd){(uint32_t)table[i].id * LANES * 4, BASE_SPECIAL, 32, 0, 0};
            return true;
        }
    return false;
}

bool build_reg(Build *b, const char *name, Opnd *o) {
    size_t n = strlen(name), digits = n;
    while (digits > 0 && name[digits - 1] >= '0' && name[digits - 1] <= '9') digits--;
    for (int i = b->nregs - 1; i >= 0; i--) {
        const RegDecl *r = &b->regs[i];
        uint32_t k = 0;
        if (r->range) {
            if (digits == n || strlen(r->name) != digits || memcmp(r->name, name, digits)) continue;
            k = (uint32_t)strtoul(name + digits, NULL, 10);
            if (k >= r->count) continue;
        } else if (strcmp(r->name, name)) {
            continue;
        }
        *o = (Opnd){r->first + k, r->width == 1 ? BASE_PRED : BASE_REG, r->width, 0, 0};
        return true;
    }
    return special(name, o);
}

/* ---- declarations ---- */

static uint32_t type_bytes(Build *b, const char *t) {
    if (!strcmp(t, ".pred")) return 0;
    const char *d = t + strcspn(t, "0123456789");
    unsigned bits = (unsigned)strtoul(d, NULL, 10);
    if (bits != 8 && bits != 16 && bits != 32 && bits != 64)
        build_fail(b, "type '%s' is not supported", t);
    return bits / 8;
}

/* .reg .b32 %r<10>;  .reg .pred p, q; */
static void read_reg(Build *b) {
    char type[32];
    build_word(b, type, sizeof type);
    uint32_t bytes = type_bytes(b, type);
    do {
        b->regs = build_grow(b, b->regs, &b->cap_regs, b->nregs + 1, sizeof *b->regs);
        RegDecl *r = &b->regs[b->nregs++];
        *r = (RegDecl){0};
        build_word(b, r->name, sizeof r->name);
        r->width = bytes ? (uint8_t)(bytes < 2 ? 16 : bytes * 8) : 1;
        r->scope = b->scope;
        r->count = 1;
        if (build_accept(b, "<")) {
            r->count = (uint32_t)ptx_integer(b);
            r->range = 1;
            build_expect(b, ">");
            if (r->count > 1000000) build_fail(b, "%u registers", r->count);
        }
        r->first = b->npred;
        if (r->width == 1) {
            b->npred += r->count;
        } else {
            r->first = b->nvirtual;
            for (uint32_t i = 0; i < r->count; i++) build_register(b, r->width);
        }
    } while (build_accept(b, ","));
    build_expect(b, ";");
}

typedef struct { char name[PTX_NAME]; uint32_t bytes, elem, align; bool open; } Variable;

/* .align 16 .b8 name[N] ...: up to, not including, '=' or ';' or ',' or ')'. */
static Variable read_variable(Build *b) {
    Variable v = {.align = 1};
    char word[PTX_NAME] = "";
    while (b->x.tok.kind == T_WORD && *b->x.tok.p == '.') {
        build_word(b, word, sizeof word);
        if (!strcmp(word, ".align")) v.align = (uint32_t)ptx_integer(b);
        else if (!strcmp(word, ".ptr") || !strcmp(word, ".global") || !strcmp(word, ".const") ||
                 !strcmp(word, ".shared") || !strcmp(word, ".local")) continue;
        else v.elem = type_bytes(b, word);
    }
    build_word(b, v.name, sizeof v.name);
    v.bytes = v.elem;
    if (v.align < v.elem) v.align = v.elem;
    while (build_accept(b, "[")) {
        if (build_accept(b, "]")) {
            v.open = true;
            continue;
        }
        uint64_t n = ptx_integer(b);
        if (n * v.bytes > 1u << 30) build_fail(b, "variable %s is too large", v.name);
        v.bytes *= (uint32_t)n;
        build_expect(b, "]");
    }
    return v;
}

static uint32_t align_up(uint32_t v, uint32_t a) { return (v + a - 1) / a * a; }

/* Values of an initialiser; a symbol stands for its address. */
static void read_initialiser(Build *b, uint8_t *at, uint32_t elem, uint32_t bytes) {
    uint32_t pos = 0;
    int depth = 0;
    do {
        while (build_accept(b, "{")) depth++;
        uint64_t v = 0;
        char name[PTX_NAME];
        if (b->x.tok.kind == T_WORD) {
            build_word(b, name, sizeof name);
            bool generic = !strcmp(name, "generic");
            if (generic) {
                build_expect(b, "(");
                build_word(b, name, sizeof name);
                build_expect(b, ")");
            }
            Local *l = build_find(b, name);
            if (!l) build_fail(b, "unknown symbol '%s' in an initialiser", name);
            v = l->addr;
        } else if (!lex_is(&b->x, "}")) {
            v = ptx_integer(b);
        }
        if (pos + elem <= bytes) memcpy(at + pos, &v, elem);
        pos += elem;
        while (build_accept(b, "}")) depth--;
    } while (build_accept(b, ","));
    if (depth) build_fail(b, "unbalanced braces in an initialiser");
}

/* Module-level .global and .const: device memory, initialised (zero by default). */
static void read_global(Build *b) {
    Variable v = read_variable(b);
    uint64_t addr = mem_alloc(v.bytes ? v.bytes : 1, v.name);
    if (!addr) build_fail(b, "no device memory for %s", v.name);
    uint8_t *host = mem_fill_host(addr, v.bytes);
    memset(host, 0, v.bytes);
    add_symbol(b, v.name, S_GLOBAL, addr);
    Module *m = b->mod;
    Symbol *s = realloc(m->syms, (size_t)(m->nsym + 1) * sizeof *s);
    if (!s) build_fail(b, "out of memory");
    m->syms = s;
    char *copy = own(b, strlen(v.name) + 1);
    memcpy(copy, v.name, strlen(v.name) + 1);
    s[m->nsym++] = (Symbol){copy, S_GLOBAL, addr, v.bytes};
    if (build_accept(b, "=")) read_initialiser(b, host, v.elem, v.bytes);
    build_expect(b, ";");
}

/* .shared, .local and call .param variables of a function. */
static void read_local(Build *b, uint8_t space) {
    Variable v = read_variable(b);
    uint32_t *top = space == S_SHARED ? &b->fn->static_shared
                  : space == S_LOCAL ? &b->fn->local_bytes : &b->fn->call_bytes;
    if (v.open) {
        b->fn->extern_shared = 1;
        add_symbol(b, v.name, S_SHARED, UINT64_MAX);
    } else {
        *top = align_up(*top, v.align);
        add_symbol(b, v.name, space, *top);
        *top += v.bytes;
    }
    build_expect(b, ";");
}

/* A shared variable outside of the kernels. */
static void read_shared(Build *b) {
    Variable v = read_variable(b);
    add_symbol(b, v.name, S_SHARED, UINT64_MAX);
    if (!v.open) {
        b->locals[b->nlocals - 1].bytes = v.bytes;
        b->locals[b->nlocals - 1].align = v.align;
    }
    build_expect(b, ";");
}

/* ---- functions ---- */

static void read_params(Build *b) {
    Func *f = b->fn;
    if (!build_accept(b, "(")) return;
    Param params[256];
    while (!build_accept(b, ")")) {
        build_expect(b, ".param");
        Variable v = read_variable(b);
        if (f->nparam == 256) build_fail(b, "more than 256 parameters");
        f->param_bytes = align_up(f->param_bytes, v.align);
        char *copy = own(b, strlen(v.name) + 1);
        memcpy(copy, v.name, strlen(v.name) + 1);
        params[f->nparam++] = (Param){copy, f->param_bytes, v.bytes, v.align};
        add_symbol(b, v.name, S_PARAM, f->param_bytes);
        f->param_bytes += v.bytes;
        build_accept(b, ",");
    }
    f->params = own(b, (size_t)f->nparam * sizeof *params);
    memcpy(f->params, params, (size_t)f->nparam * sizeof *params);
}

/* .maxntid 128, 1, 1  .minnctapersm 2  .reqntid ... before the body. */
static void read_attributes(Build *b) {
    while (b->x.tok.kind == T_WORD && *b->x.tok.p == '.') {
        char word[64];
        build_word(b, word, sizeof word);
        uint32_t v[3] = {1, 1, 1};
        int n = 0;
        while (b->x.tok.kind == T_NUMBER && n < 3) {
            v[n++] = (uint32_t)ptx_integer(b);
            if (!build_accept(b, ",")) break;
        }
        if (!strcmp(word, ".maxntid")) b->fn->maxntid = v[0] * v[1] * v[2];
        if (!strcmp(word, ".reqntid")) memcpy(b->fn->reqntid, v, sizeof v);
    }
}

static void skip_braces(Build *b) {
    int depth = 0;
    do {
        if (b->x.tok.kind == T_END) build_fail(b, "missing '}'");
        if (lex_is(&b->x, "{")) depth++;
        if (lex_is(&b->x, "}")) depth--;
        lex_next(&b->x);
    } while (depth);
}

/* .loc file line column[, function_name X, inlined_at file line column] */
static void read_loc(Build *b) {
    b->loc[0].file = (uint32_t)ptx_integer(b);
    b->loc[0].line = b->x.tok.kind == T_NUMBER ? (uint32_t)lex_number(&b->x) : 0;
    const char *end = strchr(b->x.at, '\n'), *from = strstr(b->x.at, "inlined_at");
    if (from && (!end || from < end)) {
        char *p;
        b->loc[1].file = (uint32_t)strtoul(from + 10, &p, 10);
        b->loc[1].line = (uint32_t)strtoul(p, NULL, 10);
    } else {
        b->loc[1] = b->loc[2] = b->loc[0];
    }
    lex_skip_line(&b->x);
    lex_next(&b->x);
}

static void leave_scope(Build *b) {
    while (b->nregs && b->regs[b->nregs - 1].scope == b->scope) b->nregs--;
    while (b->nlocals && b->locals[b->nlocals - 1].scope == b->scope) b->nlocals--;
    b->scope--;
}

static void read_targets(Build *b, const char *name) {
    b->tables = realloc(b->tables, (size_t)(b->ntables + 1) * sizeof *b->tables);
    if (!b->tables) build_fail(b, "out of memory");
    Targets *t = &b->tables[b->ntables++];
    memset(t, 0, sizeof *t);
    snprintf(t->name, sizeof t->name, "%s", name);
    do {
        char label[128];
        build_word(b, label, sizeof label);
        if (t->n == 64) build_fail(b, "more than 64 branch targets");
        t->ops[t->n++] = build_label(b, label);
    } while (build_accept(b, ","));
    build_expect(b, ";");
}

/* One directive, label or instruction of a body. */
static void read_statement(Build *b) {
    if (lex_is(&b->x, "@") || b->x.tok.kind != T_WORD) {
        if (!lex_is(&b->x, "@"))
            build_fail(b, "unexpected '%.*s'", (int)(b->x.tok.end - b->x.tok.p), b->x.tok.p);
        ptx_instruction(b);
        return;
    }
    if (*b->x.at == ':' && *b->x.tok.p != '.') {
        char name[PTX_NAME];
        build_word(b, name, sizeof name);
        build_expect(b, ":");
        if (build_accept(b, ".branchtargets")) {
            read_targets(b, name);
            return;
        }
        int l = build_label(b, name);
        b->labels[l].target = b->ncode;
        return;
    }
    if (build_accept(b, ".reg")) read_reg(b);
    else if (build_accept(b, ".shared")) read_local(b, S_SHARED);
    else if (build_accept(b, ".local")) read_local(b, S_LOCAL);
    else if (build_accept(b, ".param")) read_local(b, S_CALL);
    else if (build_accept(b, ".loc")) read_loc(b);
    else if (lex_is(&b->x, ".pragma")) while (!build_accept(b, ";")) lex_next(&b->x);
    else ptx_instruction(b);
}

static void read_body(Build *b) {
    build_expect(b, "{");
    int outer = b->scope++;
    while (b->scope > outer) {
        if (b->x.tok.kind == T_END) build_fail(b, "missing '}'");
        if (build_accept(b, "{")) b->scope++;
        else if (build_accept(b, "}")) leave_scope(b);
        else read_statement(b);
    }
}

static void reset_function(Build *b) {
    b->nregs = b->nlabels = b->ntables = b->ncode = 0;
    b->nvirtual = b->nconst = 0;
    b->npred = 1;   /* predicate 0 is always true */
    memset(b->loc, 0, sizeof b->loc);
}

static void read_entry(Build *b) {
    char name[256];
    build_word(b, name, sizeof name);
    Module *m = b->mod;
    Func *f = realloc(m->funcs, (size_t)(m->nfunc + 1) * sizeof *f);
    if (!f) build_fail(b, "out of memory");
    m->funcs = f;
    b->fn = &f[m->nfunc];
    memset(b->fn, 0, sizeof *b->fn);
    b->fn->name = own(b, strlen(name) + 1);
    memcpy(b->fn->name, name, strlen(name) + 1);
    b->fn->max_dynamic_shared = 48 * 1024;
    b->name = b->fn->name;
    int symbols = b->nlocals;
    reset_function(b);
    read_params(b);
    read_attributes(b);
    read_body(b);
    ptx_layout(b);
    b->nlocals = symbols;
    m->nfunc++;
    b->name = NULL;
}

/* .func declarations (vprintf, __assertfail) end at ';'; a definition cannot be called here. */
static void read_func(Build *b) {
    while (!lex_is(&b->x, ";") && !lex_is(&b->x, "{") && b->x.tok.kind != T_END) lex_next(&b->x);
    if (lex_is(&b->x, "{")) build_fail(b, ".func bodies are not supported: force inlining");
    lex_next(&b->x);
}

static void read_file(Build *b) {
    int index = (int)ptx_integer(b);
    if (index < 0 || index > 65535) build_fail(b, ".file %d", index);
    if (index >= b->mod->nfile) {
        char **f = realloc(b->mod->files, (size_t)(index + 1) * sizeof *f);
        if (!f) build_fail(b, "out of memory");
        for (int i = b->mod->nfile; i <= index; i++) f[i] = NULL;
        b->mod->files = f;
        b->mod->nfile = index + 1;
    }
    size_t n = (size_t)(b->x.tok.end - b->x.tok.p);
    char *s = own(b, n);
    memcpy(s, b->x.tok.p + 1, n - 2);
    b->mod->files[index] = s;
    lex_skip_line(&b->x);
    lex_next(&b->x);
}

/* Files are declared at the end of the text: collect them first. */
static void read_module(Build *b) {
    char word[256];
    lex_next(&b->x);
    while (b->x.tok.kind != T_END) {
        build_word(b, word, sizeof word);
        if (!strcmp(word, ".version") || !strcmp(word, ".address_size")) ptx_integer(b);
        else if (!strcmp(word, ".target")) {
            build_word(b, word, sizeof word);
            b->mod->target = (int)strtol(word + 3, NULL, 10);
            while (build_accept(b, ",")) build_word(b, word, sizeof word);
        } else if (!strcmp(word, ".file")) read_file(b);
        else if (!strcmp(word, ".section")) { lex_next(&b->x); skip_braces(b); }
        else if (!strcmp(word, ".visible") || !strcmp(word, ".extern") || !strcmp(word, ".weak"))
            continue;
        else if (!strcmp(word, ".global") || !strcmp(word, ".const")) read_global(b);
        else if (!strcmp(word, ".shared")) {
            read_shared(b);
        } else if (!strcmp(word, ".entry")) read_entry(b);
        else if (!strcmp(word, ".func")) read_func(b);
        else if (!strcmp(word, ".pragma")) { while (!build_accept(b, ";")) lex_next(&b->x); }
        else build_fail(b, "unknown directive '%s'", word);
    }
}

static bool parse(Build *b) {
    if (setjmp(b->fail)) return false;
    read_module(b);
    return true;
}

Module *ptx_parse(const char *text, char *err, size_t errlen) {
    Build *b = calloc(1, sizeof *b);
    Module *m = calloc(1, sizeof *m);
    if (!b || !m) {
        free(b);
        free(m);
        snprintf(err, errlen, "out of memory");
        return NULL;
    }
    *b = (Build){.x = {.at = text, .line = 1}, .mod = m, .err = err, .errlen = errlen};
    bool ok = parse(b);
    for (int i = 0; i < m->nfunc; i++) m->funcs[i].mod = m;
    free(b->regs);
    free(b->width);
    free(b->labels);
    free(b->tables);
    free(b->locals);
    free(b->code);
    free(b->consts);
    free(b);
    if (ok) return m;
    ptx_free(m);
    return NULL;
}

void ptx_free(Module *m) {
    for (int i = 0; i < m->nsym; i++) mem_free(m->syms[i].addr);
    for (int i = 0; i < m->nowned; i++) free(m->owned[i]);
    free(m->owned);
    free(m->syms);
    free(m->files);
    free(m->funcs);
    free(m);
}
