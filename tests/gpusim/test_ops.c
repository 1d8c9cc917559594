/* test_ops.c: every lane-wise PTX form against a reference written here, on random and special
 * values. The reference reads the opcode and computes with 128-bit integers and quad floats, so
 * it shares nothing with gpusim's table. A form without a reference fails. Forms with a carry come
 * in chains and are tested in test_warp.c. */
#include "harness.h"
#include <ctype.h>

typedef __float128 quad;
typedef __int128 i128;
typedef unsigned __int128 u128;
enum { VECTORS = 512, THREADS = 128 };

/* ---- types ---- */

typedef struct { char kind; int bits; } Type;   /* kind: u, s, b, f (float), h (bfloat), t (tf32) */

static Type type_of(const char *s) {
    if (!strcmp(s, "bf16")) return (Type){'h', 16};
    if (!strcmp(s, "tf32")) return (Type){'t', 32};
    return (Type){s[0], atoi(s + 1)};
}
static bool is_float(Type t) { return t.kind == 'f' || t.kind == 'h'; }
static i128 integer(Type t, uint64_t v) {
    if (t.bits < 64) v &= (1ull << t.bits) - 1;
    if (t.kind == 's') return (i128)(int64_t)(v << (64 - t.bits)) >> (64 - t.bits);
    return (i128)v;
}
static uint64_t trunc_to(int bits, i128 v) {
    return bits >= 64 ? (uint64_t)v : (uint64_t)v & ((1ull << bits) - 1);
}
static void format_of(Type t, int *mant, int *emin, int *emax) {
    *mant = t.kind == 'h' ? 8 : t.bits == 16 ? 11 : t.bits == 32 ? 24 : 53;
    *emax = t.kind == 'h' || t.bits == 32 ? 127 : t.bits == 16 ? 15 : 1023;
    *emin = 1 - *emax;
}
/* Value of the bits of a float type. */
static quad value(Type t, uint64_t v) {
    int mant, emin, emax, expbits;
    format_of(t, &mant, &emin, &emax);
    expbits = t.bits - mant;
    uint64_t m = v & ((1ull << (mant - 1)) - 1), e = v >> (mant - 1) & ((1ull << expbits) - 1);
    bool neg = v >> (t.bits - 1) & 1;
    quad x;
    if (e == (1ull << expbits) - 1) x = m ? (quad)NAN : (quad)INFINITY;
    else {
        int k = (e ? (int)e : 1) - emax - (mant - 1);
        x = (quad)(m | (e ? 1ull << (mant - 1) : 0));
        for (; k > 0; k--) x *= 2;
        for (; k < 0; k++) x /= 2;
    }
    return neg ? -x : x;
}
static uint64_t nan_of(Type t) {
    return t.kind == 'h' || t.bits == 16 ? 0x7fff : t.bits == 32 ? 0x7fffffff : 0x7fffffffffffffffull;
}
static bool is_nan(Type t, uint64_t v) { quad x = value(t, v); return x != x; }
static bool negative(quad x) { return signbit((double)x) || x < 0; }

/* Nearest even ('n'), toward zero ('z'), down ('m') or up ('p'). */
static uint64_t round_to(Type t, quad x, char mode) {
    int mant, emin, emax, e = 0;
    format_of(t, &mant, &emin, &emax);
    if (x != x) return nan_of(t);
    uint64_t sign = negative(x) ? 1ull << (t.bits - 1) : 0;
    uint64_t inf = (uint64_t)(2 * emax + 1) << (mant - 1);
    if (negative(x)) x = -x;
    if (x == 0) return sign;
    if (x > (quad)1.7e308 * 2) return sign | inf;
    quad y = x;
    while (y >= 2) { y /= 2; e++; }
    while (y < 1 && e > emin) { y *= 2; e--; }
    for (int i = 1; i < mant; i++) y *= 2;
    uint64_t m = (uint64_t)y;
    quad rest = y - (quad)m;
    if (mode == 'n' && (rest > (quad)0.5 || (rest == (quad)0.5 && m & 1))) m++;
    uint64_t top = 1ull << (mant - 1);
    bool away = (mode == 'm' && sign) || (mode == 'p' && !sign);
    if (away && rest > 0) m++;
    uint64_t bits = m < top ? m : ((uint64_t)(e + emax) << (mant - 1)) + (m - top);
    return sign | (bits >= inf ? (mode == 'n' || away ? inf : inf - 1) : bits);
}
static uint64_t flushed(uint64_t v) { return v & 0x7f800000 ? v : v & 0x80000000u; }

/* ---- the opcode ---- */

typedef struct {
    const char *form;
    char text[96], *tok[12];
    int n;
    Type d, s;          /* result and source type */
    bool ftz, approx;
} Form;

static bool has(const Form *f, const char *t) {
    for (int i = 1; i < f->n; i++)
        if (!strcmp(f->tok[i], t)) return true;
    return false;
}
static char rounding(const Form *f) {
    return has(f, "rz") ? 'z' : has(f, "rm") ? 'm' : has(f, "rp") ? 'p' : 'n';
}
static bool root(const Form *f, const char *t) { return !strcmp(f->tok[0], t); }

static void parse(Form *f, const char *form) {
    memset(f, 0, sizeof *f);
    f->form = form;
    snprintf(f->text, sizeof f->text, "%s", form);
    for (char *p = strtok(f->text, "_"); p; p = strtok(NULL, "_")) f->tok[f->n++] = p;
    f->s = f->d = type_of(f->tok[f->n - 1]);
    if (root(f, "cvt")) f->d = type_of(f->tok[f->n - 2]);
    if (has(f, "wide")) f->d.bits *= 2;
    if (root(f, "popc") || root(f, "clz") || root(f, "bfind")) f->d = (Type){'u', 32};
    f->ftz = has(f, "ftz");
    f->approx = has(f, "approx") || has(f, "full");
}

/* ---- integers ---- */

static uint64_t shift(const Form *f, uint64_t a, uint64_t b) {
    int bits = f->s.bits;
    uint64_t n = (uint32_t)b;
    if (root(f, "shl")) return n >= (uint64_t)bits ? 0 : trunc_to(bits, (i128)a << n);
    i128 v = integer(f->s, a);
    return trunc_to(bits, v >> (n >= (uint64_t)bits ? (f->s.kind == 's' ? bits - 1 : 100) : (int)n));
}

static uint64_t bitfield(const Form *f, uint64_t a, uint64_t b, uint64_t c, uint64_t e) {
    int bits = f->s.bits;
    if (root(f, "bfi")) {
        uint64_t r = b, pos = c & 255, len = e & 255;
        for (uint64_t i = 0; i < len && pos + i < (uint64_t)bits; i++) {
            r &= ~(1ull << (pos + i));
            r |= (a >> i & 1) << (pos + i);
        }
        return trunc_to(bits, (i128)r);
    }
    uint64_t pos = b & 255, len = c & 255, r = 0, msb = (uint64_t)bits - 1;
    uint64_t last = pos + len - 1 < msb ? pos + len - 1 : msb;
    uint64_t sign = f->s.kind != 's' || len == 0 ? 0 : a >> last & 1;
    for (uint64_t i = 0; i <= msb; i++)
        r |= (i < len && pos + i <= msb ? a >> (pos + i) & 1 : sign) << i;
    return r;
}

static uint64_t find(const Form *f, uint64_t a) {
    uint64_t v = trunc_to(f->s.bits, (i128)a), n = 0;
    int top = -1;
    for (int i = 0; i < f->s.bits; i++) n += v >> i & 1;
    if (root(f, "popc")) return n;
    if (root(f, "brev")) {
        uint64_t r = 0;
        for (int i = 0; i < f->s.bits; i++) r |= (v >> i & 1) << (f->s.bits - 1 - i);
        return r;
    }
    if (f->s.kind == 's' && integer(f->s, a) < 0) v = trunc_to(f->s.bits, (i128)~v);
    for (int i = 0; i < f->s.bits; i++) if (v >> i & 1) top = i;
    if (root(f, "clz")) return (uint64_t)(f->s.bits - 1 - top);
    if (top < 0) return 0xffffffff;
    return (uint64_t)(has(f, "shiftamt") ? f->s.bits - 1 - top : top);
}

static uint64_t small_int(const Form *f, uint64_t a, uint64_t b, uint64_t c, uint64_t e) {
    if (root(f, "prmt")) {
        uint64_t both = (uint64_t)(uint32_t)b << 32 | (uint32_t)a, r = 0;
        for (int k = 0; k < 4; k++) {
            uint64_t s = c >> (4 * k), byte = both >> (8 * (s & 7)) & 255;
            r |= (s & 8 ? (byte >> 7) * 255 : byte) << (8 * k);
        }
        return r;
    }
    if (root(f, "lop3")) {
        uint64_t r = 0;
        for (int i = 0; i < 32; i++)
            r |= (e >> ((a >> i & 1) * 4 + (b >> i & 1) * 2 + (c >> i & 1)) & 1) << i;
        return r;
    }
    if (root(f, "shf")) {
        uint64_t both = (uint64_t)(uint32_t)b << 32 | (uint32_t)a, n = (uint32_t)c;
        n = has(f, "wrap") ? n & 31 : n > 32 ? 32 : n;
        return (uint32_t)(has(f, "r") ? both >> n : (both << n) >> 32);
    }
    i128 s = (uint32_t)c;                         /* dp4a */
    Type ta = type_of(f->tok[1]), tb = type_of(f->tok[2]);
    for (int k = 0; k < 4; k++)
        s += integer((Type){ta.kind, 8}, a >> (8 * k)) * integer((Type){tb.kind, 8}, b >> (8 * k));
    return trunc_to(32, s);
}

static bool int_op(const Form *f, uint64_t ra, uint64_t rb, uint64_t rc, uint64_t re, uint64_t *r) {
    i128 a = integer(f->s, ra), b = integer(f->s, rb), c = integer(f->s, rc), v;
    int bits = f->s.bits;
    if (root(f, "shl") || root(f, "shr")) { *r = shift(f, (uint64_t)a, rb); return true; }
    if (root(f, "bfe") || root(f, "bfi")) { *r = bitfield(f, ra, rb, rc, re); return true; }
    if (root(f, "prmt") || root(f, "lop3") || root(f, "shf") || root(f, "dp4a")) {
        *r = small_int(f, ra, rb, rc, re);
        return true;
    }
    if (root(f, "popc") || root(f, "clz") || root(f, "brev") || root(f, "bfind")) {
        *r = find(f, ra);
        return true;
    }
    if (has(f, "wide")) {
        v = a * b;
        if (root(f, "mad")) v += integer(f->d, rc);
        *r = trunc_to(2 * bits, v);
        return true;
    }
    i128 limit = (i128)1 << (bits - 1);
    if (root(f, "mov")) v = a;
    else if (root(f, "and")) v = a & b;
    else if (root(f, "or")) v = a | b;
    else if (root(f, "xor")) v = a ^ b;
    else if (root(f, "not")) v = ~a;
    else if (root(f, "cnot")) v = a == 0;
    else if (root(f, "add")) v = a + b;
    else if (root(f, "sub")) v = a - b;
    else if (has(f, "hi")) {
        if (f->s.kind == 'u') v = (i128)((u128)a * (u128)b >> bits);
        else v = (a * b) >> bits;
        if (root(f, "mad")) v += c;
    } else if (has(f, "lo")) v = (i128)((u128)a * (u128)b) + (root(f, "mad") ? c : 0);
    else if (root(f, "div")) v = b == 0 ? -1 : a / b;
    else if (root(f, "rem")) v = b == 0 ? a : a % b;
    else if (root(f, "min")) v = a < b ? a : b;
    else if (root(f, "max")) v = a > b ? a : b;
    else if (root(f, "neg")) v = -a;
    else if (root(f, "abs")) v = a < 0 ? -a : a;
    else if (root(f, "sad")) v = c + (a > b ? a - b : b - a);
    else return false;
    if (has(f, "sat")) v = v >= limit ? limit - 1 : v < -limit ? -limit : v;
    *r = trunc_to(bits, v);
    return true;
}

/* ---- floats ---- */

/* a + b in quad, rounded to odd: a later rounding sees that something was lost. */
static quad sum(quad a, quad b) {
    quad s = a + b, t = s - a, e = (a - (s - t)) + (b - t);
    u128 u;
    memcpy(&u, &s, 16);
    if (e == e && e != 0 && !(u & 1) && s - s == 0) {
        u = (e > 0) == (s > 0) ? u + 1 : u - 1;
        memcpy(&s, &u, 16);
    }
    return s;
}

static bool float_op(const Form *f, uint64_t ra, uint64_t rb, uint64_t rc, uint64_t *r) {
    Type t = f->s;
    quad a = value(t, ra), b = value(t, rb), c = value(t, rc), v;
    bool na = a != a, nb = b != b;
    if (root(f, "abs") || root(f, "neg")) {
        uint64_t sign = 1ull << (t.bits - 1);
        *r = na ? nan_of(t) : root(f, "abs") ? ra & ~sign : ra ^ sign;
        return true;
    }
    if (root(f, "copysign")) {
        uint64_t sign = 1ull << (t.bits - 1);
        *r = (rb & ~sign) | (ra & sign);
        return true;
    }
    if (root(f, "min") || root(f, "max")) {
        bool low = root(f, "min");
        if (na || nb) v = has(f, "NaN") || (na && nb) ? (quad)NAN : na ? b : a;
        else if (a == 0 && b == 0) v = (low ? negative(a) || negative(b) : negative(a) && negative(b))
                                       ? -(quad)0 : 0;
        else v = (a < b) == low ? a : b;
    } else if (root(f, "add")) v = sum(a, b);
    else if (root(f, "sub")) v = sum(a, -b);
    else if (root(f, "mul")) v = a * b;
    else if (root(f, "div")) v = a / b;
    else if (root(f, "rcp")) v = 1 / a;
    else if (root(f, "fma") || root(f, "mad"))
        v = t.bits == 64 ? (quad)fma((double)a, (double)b, (double)c)
          : t.bits == 32 && rounding(f) == 'n' ? (quad)fmaf((float)a, (float)b, (float)c) : sum(a * b, c);
    else if (root(f, "sqrt")) v = t.bits == 64 ? (quad)sqrt((double)a) : (quad)sqrt((double)a);
    else if (root(f, "rsqrt")) v = (quad)(1 / sqrtl((long double)a));
    else if (root(f, "ex2")) v = (quad)exp2l((long double)a);
    else if (root(f, "lg2")) v = (quad)log2l((long double)a);
    else if (root(f, "sin")) v = (quad)sinl((long double)a);
    else if (root(f, "cos")) v = (quad)cosl((long double)a);
    else if (root(f, "tanh")) v = (quad)tanhl((long double)a);
    else return false;
    *r = round_to(t, v, rounding(f));
    if (has(f, "sat")) {
        quad x = value(t, *r);
        *r = x > 0 ? (x < 1 ? *r : round_to(t, 1, 'n')) : 0;
    }
    if (has(f, "relu")) *r = value(t, *r) > 0 ? *r : 0;
    return true;
}

static uint64_t float_to_int(const Form *f, uint64_t ra) {
    quad x = value(f->s, ra);
    if (x != x) return f->d.bits == 64 || f->s.bits == 64 ? 1ull << (f->d.bits - 1) : 0;
    quad limit = 1;
    for (int i = 0; i < f->d.bits - (f->d.kind == 's'); i++) limit *= 2;
    if (x >= limit) return trunc_to(f->d.bits, (i128)(limit - 1));
    quad low = f->d.kind == 's' ? -limit : 0;
    if (x < low) x = low;
    i128 i = (i128)x;                                   /* toward zero */
    quad rest = x - (quad)i;
    if (has(f, "rni")) {
        quad h = rest < 0 ? -rest : rest;
        if (h > (quad)0.5 || (h == (quad)0.5 && i & 1)) i += rest < 0 ? -1 : 1;
    } else if (has(f, "rmi")) i -= rest < 0;
    else if (has(f, "rpi")) i += rest > 0;
    i128 top = (i128)limit - 1;
    return trunc_to(f->d.bits, i > top ? top : i < (i128)low ? (i128)low : i);
}

static bool cvt(const Form *f, uint64_t ra, uint64_t *r) {
    if (f->d.kind == 't') {
        uint32_t u = (uint32_t)ra;
        *r = has(f, "rna") ? (u + 0x1000u) & 0xffffe000u : (u + 0xfffu + (u >> 13 & 1)) & 0xffffe000u;
        return true;
    }
    char mode = rounding(f);
    if (!is_float(f->s)) {
        i128 v = integer(f->s, ra);
        if (is_float(f->d)) { *r = round_to(f->d, (quad)v, mode); return true; }
        i128 hi = ((i128)1 << (f->d.bits - (f->d.kind == 's'))) - 1;
        i128 lo = f->d.kind == 's' ? -hi - 1 : 0;
        if (has(f, "sat")) v = v > hi ? hi : v < lo ? lo : v;
        *r = trunc_to(f->d.bits, v);
        return true;
    }
    if (!is_float(f->d)) { *r = float_to_int(f, ra); return true; }
    quad x = value(f->s, ra);
    if (has(f, "rni") || has(f, "rzi") || has(f, "rmi") || has(f, "rpi")) {
        double v = (double)x;
        v = has(f, "rni") ? nearbyint(v) : has(f, "rzi") ? trunc(v) : has(f, "rmi") ? floor(v) : ceil(v);
        *r = round_to(f->d, (quad)v, 'n');
        return true;
    }
    *r = round_to(f->d, x, mode);
    if (has(f, "relu")) *r = value(f->d, *r) > 0 ? *r : 0;
    if (has(f, "sat")) *r = x > 0 ? (x < 1 ? *r : round_to(f->d, 1, 'n')) : 0;
    return true;
}

/* Comparison by its name; the u-versions hold for unordered operands too. */
static bool compare(const Form *f, uint64_t ra, uint64_t rb, uint64_t *r) {
    const char *op = f->tok[1];
    quad a, b;
    if (is_float(f->s)) { a = value(f->s, ra); b = value(f->s, rb); }
    else { a = (quad)integer(f->s, ra); b = (quad)integer(f->s, rb); }
    bool un = a != a || b != b, lt = a < b, eq = a == b, gt = a > b;
    static const struct { const char *name; int lt, eq, gt, un; } table[] = {
        {"eq", 0, 1, 0, 0}, {"ne", 1, 0, 1, 0}, {"lt", 1, 0, 0, 0}, {"le", 1, 1, 0, 0},
        {"gt", 0, 0, 1, 0}, {"ge", 0, 1, 1, 0}, {"equ", 0, 1, 0, 1}, {"neu", 1, 0, 1, 1},
        {"ltu", 1, 0, 0, 1}, {"leu", 1, 1, 0, 1}, {"gtu", 0, 0, 1, 1}, {"geu", 0, 1, 1, 1},
        {"num", 1, 1, 1, 0}, {"nan", 0, 0, 0, 1}, {"lo", 1, 0, 0, 0}, {"ls", 1, 1, 0, 0},
        {"hi", 0, 0, 1, 0}, {"hs", 0, 1, 1, 0}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (!strcmp(op, table[i].name)) {
            *r = un ? (uint64_t)table[i].un
                    : (uint64_t)((lt && table[i].lt) || (eq && table[i].eq) || (gt && table[i].gt));
            return true;
        }
    return false;
}

static bool reference(const Form *f, const uint64_t *in, uint64_t *r) {
    const char *last = f->tok[f->n - 1];
    uint64_t a = in[0], b = in[1], c = in[2];
    size_t n = strlen(last);
    bool to_pair = root(f, "cvt") && !strcmp(f->tok[f->n - 2] + strlen(f->tok[f->n - 2]) - 2, "x2");
    if (to_pair) {                       /* cvt.rn.bf16x2.f32 d, high, low */
        Form g = *f;
        uint64_t hi, lo;
        g.d = f->tok[f->n - 2][0] == 'b' ? (Type){'h', 16} : (Type){'f', 16};
        g.s = (Type){'f', 32};
        if (!cvt(&g, a, &hi) || !cvt(&g, b, &lo)) return false;
        *r = hi << 16 | lo;
        return true;
    }
    if (n > 2 && !strcmp(last + n - 2, "x2")) {
        Form g = *f;
        int w = strstr(last, "32") ? 32 : 16;
        uint64_t hi, lo, m = w == 32 ? 0xffffffff : 0xffff;
        g.s = g.d = last[0] == 'b' ? (Type){'h', 16} : (Type){'f', w};
        if (!float_op(&g, a & m, b & m, c & m, &lo) ||
            !float_op(&g, a >> w & m, b >> w & m, c >> w & m, &hi)) return false;
        *r = hi << w | lo;
        return true;
    }
    if (f->ftz && f->s.kind == 'f' && f->s.bits == 32) { a = flushed(a); b = flushed(b); c = flushed(c); }
    bool ok = root(f, "setp") ? compare(f, a, b, r) : root(f, "cvt") ? cvt(f, a, r)
            : root(f, "mov") || !is_float(f->s) ? int_op(f, a, b, c, in[3], r)
            : float_op(f, a, b, c, r);
    if (ok && f->ftz && !root(f, "setp") && f->d.kind == 'f' && f->d.bits == 32) *r = flushed(*r);
    return ok;
}

/* ---- the PTX and the run ---- */

static size_t source(char *out, size_t cap, const char *form, int nsrc, const unsigned char *w) {
    char opcode[96];
    snprintf(opcode, sizeof opcode, "%s", form);
    for (char *p = opcode; *p; p++) if (*p == '_') *p = '.';
    size_t k = (size_t)snprintf(out, cap,
        ".visible .entry k_%s(.param .u64 a, .param .u64 d)\n{\n.reg .pred p;\n.reg .b16 h<6>;\n"
        ".reg .b32 r<6>;\n.reg .b64 x<6>;\n.reg .b32 t<5>;\n.reg .b64 y<5>;\n"
        "ld.param.u64 y0, [a];\nld.param.u64 y1, [d];\nmov.u32 t0, %%tid.x;\nmov.u32 t1, %%ctaid.x;\n"
        "mad.lo.u32 t0, t1, %d, t0;\nmul.wide.u32 y2, t0, 32;\nadd.u64 y0, y0, y2;\n"
        "mul.wide.u32 y2, t0, 8;\nadd.u64 y1, y1, y2;\n", form, THREADS);
    const char *reg[5];
    for (int i = 0; i <= nsrc; i++) reg[i] = w[i] == 64 ? "x" : w[i] == 32 ? "r" : w[i] == 1 ? "p" : "h";
    for (int i = 1; i <= nsrc; i++)
        k += (size_t)snprintf(out + k, cap - k, "ld.global.b%d %s%d, [y0+%d];\n", w[i], reg[i], i,
                              8 * (i - 1));
    k += (size_t)snprintf(out + k, cap - k, "%s %s%s", opcode, reg[0], w[0] == 1 ? "" : "0");
    for (int i = 1; i <= nsrc; i++) k += (size_t)snprintf(out + k, cap - k, ", %s%d", reg[i], i);
    k += (size_t)snprintf(out + k, cap - k, ";\n%sst.global.b%d [y1], %s0;\nret;\n}\n",
                          w[0] == 1 ? "selp.b32 r0, 1, 0, p;\n" : "", w[0] == 1 ? 32 : w[0],
                          w[0] == 1 ? "r" : reg[0]);
    return k;
}

static uint64_t pick_value(const Form *f, int vector) {
    static const uint64_t specials[] = {0, 1, 2, 31, 32, 33, 63, 64, 0x7f, 0x80, 0xff, 0x7fff, 0x8000,
        0xffff, 0x7fffffff, 0x80000000, 0xffffffff, 0x8000000000000000, ~0ull, 0x7f800000, 0xff800000,
        0x7fc00000, 0x3f800000, 0xbf800000, 0x00000001, 0x00800000, 0x7c00, 0x3c00, 0x7f80, 0x3f80,
        0x3ff0000000000000, 0x7ff0000000000000, 0x7ff8000000000000, 0x4b000001, 0xcb000001};
    if (vector % 4 == 0) return specials[rnd() % (sizeof specials / sizeof *specials)];
    if (vector % 4 == 1) return (uint64_t)rnd() << 32 | rnd();
    if (is_float(f->s) && vector % 4 == 2) {      /* ordinary size: results are finite */
        quad x = (quad)(rndf() * (float)(1 << rnd() % 8));
        return round_to(f->s, x, 'n');
    }
    return rnd() % 100;
}

/* Equal bits; any NaN for NaN; approximate forms within a few units, sin and cos absolutely. */
static bool same(const Form *f, uint64_t got, uint64_t want) {
    got = trunc_to(f->d.bits, (i128)got);
    want = trunc_to(f->d.bits, (i128)want);
    const char *last = f->tok[root(f, "cvt") ? f->n - 2 : f->n - 1];
    size_t n = strlen(last);
    if (n > 2 && !strcmp(last + n - 2, "x2")) {
        int w = strstr(last, "32") ? 32 : 16;
        Form g = *f;
        char part[8];
        snprintf(part, sizeof part, "%.*s", (int)n - 2, last);
        g.d = g.s = type_of(part);
        g.tok[g.n - 1] = part;
        if (root(f, "cvt")) g.tok[g.n - 2] = part;
        return same(&g, got, want) && same(&g, got >> w, want >> w);
    }
    if (got == want) return true;
    if (!is_float(f->d) || root(f, "setp")) return false;
    if (is_nan(f->d, got) && is_nan(f->d, want)) return true;
    if (!f->approx) return false;
    quad a = value(f->d, got), b = value(f->d, want), d = a > b ? a - b : b - a, m = b < 0 ? -b : b;
    quad rel = f->d.bits == 32 ? (quad)3e-7 : f->d.kind == 'h' ? (quad)0.0079 : (quad)0.001;
    return d <= rel * m + (quad)1e-37 + (root(f, "sin") || root(f, "cos") ? (quad)5e-7 : 0);
}

static void test_form(CUmodule mod, const char *form, int nsrc, CUdeviceptr din, CUdeviceptr dout) {
    static uint64_t in[VECTORS][4], out[VECTORS];
    Form f;
    parse(&f, form);
    if (has(&f, "cc") || root(&f, "addc") || root(&f, "subc") || root(&f, "madc")) return;
    for (int i = 0; i < VECTORS; i++)
        for (int k = 0; k < 4; k++) in[i][k] = pick_value(&f, (int)(rnd() % 4));
    CUfunction fn;
    char name[96];
    snprintf(name, sizeof name, "k_%s", form);
    MUST(cuModuleGetFunction(&fn, mod, name));
    MUST(cuMemcpyHtoDAsync_v2(din, in, sizeof in, NULL));
    MUST(cuMemsetD8Async(dout, 0, sizeof out, NULL));
    MUST(cuLaunchKernel(fn, VECTORS / THREADS, 1, 1, THREADS, 1, 1, 0, NULL,
                        (void *[]){&din, &dout}, NULL));
    MUST(download(out, dout, sizeof out));
    int bad = 0;
    for (int i = 0; i < VECTORS && !bad; i++) {
        uint64_t want = 0;
        if (!reference(&f, in[i], &want)) {
            printf("FAIL %s has no reference\n", form);
            bad = 1;
        } else if (!same(&f, out[i], want)) {
            printf("FAIL %s(%llx, %llx, %llx, %llx) = %llx, expected %llx\n", form,
                   (unsigned long long)in[i][0], (unsigned long long)in[i][1],
                   (unsigned long long)in[i][2], (unsigned long long)in[i][3],
                   (unsigned long long)out[i], (unsigned long long)want);
            bad = 1;
        }
    }
    (void)nsrc;
    passed += !bad;
    failed += bad;
}

int main(int argc, char **argv) {
    open_driver(argc, argv);
    gpusim_set("checks", "0");
    int n = 0, nsrc;
    const unsigned char *w;
    while (gpusim_form_at(n, &nsrc, &w)) n++;
    size_t cap = (size_t)n * 2048 + 256, k;
    char *text = malloc(cap);
    k = (size_t)snprintf(text, cap, ".version 8.6\n.target sm_100\n.address_size 64\n");
    for (int i = 0; i < n; i++) {
        const char *form = gpusim_form_at(i, &nsrc, &w);
        k += source(text + k, cap - k, form, nsrc, w);
    }
    CUmodule mod;
    int r = cuModuleLoadDataEx(&mod, text, 0, NULL, NULL);
    CHECK(!r, "%s", gpusim_report_count() ? gpusim_report_at(0)->message : "load");
    if (r) return finish();
    CUdeviceptr in = device(VECTORS * 32), out = device(VECTORS * 8);
    for (int i = 0; i < n; i++) {
        const char *form = gpusim_form_at(i, &nsrc, &w);
        test_form(mod, form, nsrc, in, out);
    }
    CHECK(n > 400, "only %d forms", n);
    return finish();
}
