/* ptx_inst.c: decodes one instruction into an Op.
 *
 * Lane-wise arithmetic is looked up in alu.c by its opcode; everything else has a decoder in the
 * table at the end of the file. A form that neither knows is a load error that names it. */
#include "alu.h"
#include "exec.h"
#include "ptx_inst.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- arithmetic ---- */

static void decode_alu(Build *b, Inst *in, const AluForm *f) {
    static const char signed_cvt[] = "cvt.s";
    bool cvt = !strcmp(in->part[0], "cvt");
    in->op.fn = f->fn;
    in->op.cls = f->cls;
    in->op.ndst = 1;
    uint8_t sext = cvt && in->nparts > 2 && in->part[in->nparts - 2][0] == signed_cvt[4];
    inst_add(b, in, inst_dest(b, in, f->width[0], sext));
    for (int k = 1; k <= f->nsrc; k++) {
        inst_comma(b);
        inst_add(b, in, inst_source(b, in, f->width[k]));
    }
    if (settings.perturb) {
        in->op.approx = (uint8_t)alu_approx(in->opcode);
        if (in->op.approx) {
            in->op.inner = in->op.fn;
            in->op.fn = alu_perturbed;
        }
    }
}

/* setp.lt.and.s32 p|q, a, b, c */
static void decode_setp(Build *b, Inst *in) {
    char form[96];
    size_t n = 0;
    for (int i = 0; i < in->nparts; i++) {
        const char *p = in->part[i];
        if (!strcmp(p, "and") || !strcmp(p, "or") || !strcmp(p, "xor")) in->op.mode = (uint8_t)*p;
        else n += (size_t)snprintf(form + n, sizeof form - n, "%s%s", i ? "." : "", p);
    }
    const AluForm *f = alu_find(form);
    if (!f || !f->cmp) build_fail(b, "unknown instruction '%s'", in->opcode);
    in->op.fn = alu_setp;
    in->op.cmp = f->cmp;
    in->op.cls = C_PRED;
    in->op.ndst = 1;
    inst_add(b, in, inst_predicate(b, in, true));
    if (build_accept(b, "|")) {
        in->op.ndst = 2;
        inst_add(b, in, inst_predicate(b, in, true));
    }
    inst_comma(b);
    inst_add(b, in, inst_source(b, in, f->width[1]));
    inst_comma(b);
    inst_add(b, in, inst_source(b, in, f->width[2]));
    if (in->op.mode) {
        inst_comma(b);
        inst_add(b, in, inst_predicate(b, in, false));
    }
}

/* set.lt.u32.f32 d, a, b: all ones (or 1.0) where true. */
static void decode_set(Build *b, Inst *in) {
    static const struct { const char *type; int64_t one; } types[] = {
        {"u32", 0xffffffff}, {"s32", 0xffffffff}, {"f32", 0x3f800000}, {"f16", 0x3c00},
        {"bf16", 0x3f80}};
    char form[96] = "setp";
    size_t n = 4;
    const char *type = in->part[in->nparts - 2];
    for (int i = 1; i < in->nparts; i++) {
        const char *p = in->part[i];
        if (!strcmp(p, "and") || !strcmp(p, "or") || !strcmp(p, "xor")) in->op.mode = (uint8_t)*p;
        else if (i != in->nparts - 2) n += (size_t)snprintf(form + n, sizeof form - n, ".%s", p);
    }
    const AluForm *f = alu_find(form);
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (!strcmp(type, types[i].type)) in->op.imm = types[i].one;
    if (!f || !f->cmp || !in->op.imm) build_fail(b, "unknown instruction '%s'", in->opcode);
    in->op.fn = alu_set;
    in->op.cmp = f->cmp;
    in->op.cls = C_INT;
    in->op.ndst = 1;
    inst_add(b, in, inst_dest(b, in, 32, 0));
    for (int i = 1; i <= 2; i++) {
        inst_comma(b);
        inst_add(b, in, inst_source(b, in, f->width[i]));
    }
    if (in->op.mode) {
        inst_comma(b);
        inst_add(b, in, inst_predicate(b, in, false));
    }
}

static void decode_selp(Build *b, Inst *in) {
    int width = atoi(in->part[1] + 1);
    in->op.fn = alu_selp;
    in->op.cls = C_INT;
    in->op.ndst = 1;
    in->op.size = width == 64 ? 8 : 4;
    inst_add(b, in, inst_dest(b, in, width, 0));
    for (int k = 0; k < 2; k++) {
        inst_comma(b);
        inst_add(b, in, inst_source(b, in, width));
    }
    inst_comma(b);
    inst_add(b, in, inst_predicate(b, in, false));
}

/* and.pred and its like. */
static void decode_pred(Build *b, Inst *in) {
    static const char *names[] = {"and", "or", "xor", "not", "mov"};
    static const char modes[] = "aoxnm";
    int k = 0;
    while (k < 5 && strcmp(names[k], in->part[0])) k++;
    if (k == 5) build_fail(b, "unknown instruction '%s'", in->opcode);
    in->op.fn = alu_pred;
    in->op.mode = (uint8_t)modes[k];
    in->op.cls = C_PRED;
    in->op.ndst = 1;
    inst_add(b, in, inst_predicate(b, in, true));
    for (int i = 0; i < (k < 3 ? 2 : 1); i++) {
        inst_comma(b);
        inst_add(b, in, inst_predicate(b, in, false));
    }
}

/* mov of a vector, of a clock, of anything else. */
static void decode_mov(Build *b, Inst *in) {
    const char *type = in->part[in->nparts - 1];
    int bits = atoi(type + 1);
    in->op.cls = C_MOVE;
    if (lex_is(&b->x, "{")) {
        in->op.ndst = (uint8_t)inst_vector(b, in, 0, true);
        in->op.fn = alu_unpack;
        in->op.size = (uint8_t)(bits / in->op.ndst);
        inst_comma(b);
        inst_add(b, in, inst_source(b, in, bits));
        return;
    }
    in->op.ndst = 1;
    inst_add(b, in, inst_dest(b, in, bits, 0));
    inst_comma(b);
    if (lex_is(&b->x, "{")) {
        in->op.fn = alu_pack;
        in->op.size = (uint8_t)(bits / inst_vector(b, in, 0, false));
        return;
    }
    if (lex_is(&b->x, "%clock64") || lex_is(&b->x, "%globaltimer") || lex_is(&b->x, "%clock")) {
        lex_next(&b->x);
        in->op.fn = exec_clock;
        return;
    }
    const AluForm *f = alu_find(in->opcode);
    if (!f) build_fail(b, "unknown instruction '%s'", in->opcode);
    in->op.fn = f->fn;
    inst_add(b, in, inst_source(b, in, f->width[1]));
}

/* ---- memory ---- */

/* Everything a memory opcode says after its name: space, vector, type; hints change nothing. */
static void memory_parts(Build *b, Inst *in, int from) {
    static const char *hints[] = {"nc", "ca", "cg", "cs", "lu", "cv", "wb", "wt", "gpu", "cta",
                                  "sys", "cluster", "weak", "noftz"};
    static const char *strong[] = {"volatile", "relaxed", "acquire", "release", "acq_rel", "mmio"};
    static const struct { const char *name; uint8_t space; } spaces[] = {
        {"global", S_GLOBAL}, {"shared", S_SHARED}, {"shared::cta", S_SHARED}, {"local", S_LOCAL},
        {"param", S_PARAM}, {"const", S_GLOBAL}, {"param::entry", S_PARAM},
        {"param::func", S_CALL}};
    for (int i = from; i < in->nparts; i++) {
        const char *p = in->part[i];
        bool known = !strncmp(p, "L1::", 4) || !strncmp(p, "L2::", 4);
        for (size_t k = 0; k < sizeof hints / sizeof *hints; k++) known |= !strcmp(p, hints[k]);
        if (!strcmp(p, "nc")) in->op.mode = LD_NC;
        for (size_t k = 0; k < sizeof strong / sizeof *strong; k++)
            if (!strcmp(p, strong[k])) { in->op.strong = 1; known = true; }
        for (size_t k = 0; k < sizeof spaces / sizeof *spaces; k++)
            if (!strcmp(p, spaces[k].name)) { in->op.space = spaces[k].space; known = true; }
        if (*p == 'v' && p[1] >= '2' && p[1] <= '8' && !p[2]) {
            in->op.vec = (uint8_t)(p[1] - '0');
            known = true;
        } else if (i == in->nparts - 1) {
            int bits = atoi(p + strcspn(p, "0123456789"));
            in->op.sext = *p == 's';
            in->op.size = (uint8_t)(bits / 8);
            known = bits == 8 || bits == 16 || bits == 32 || bits == 64;
        }
        if (!known) build_fail(b, "unknown part '.%s' of '%s'", p, in->opcode);
    }
}

static void space_class(Inst *in, bool store) {
    uint8_t s = in->op.space;
    in->op.cls = s == S_SHARED ? (store ? C_STS : C_LDS)
               : s == S_LOCAL ? C_LOCAL : s == S_PARAM || s == S_CALL ? C_MOVE
               : store ? C_STG : C_LDG;
}

static void decode_ld(Build *b, Inst *in) {
    in->op.vec = 1;
    memory_parts(b, in, 1);
    int n = inst_vector(b, in, 0, true);
    if (n != in->op.vec) build_fail(b, "%s: %d registers", in->opcode, n);
    in->op.ndst = (uint8_t)n;
    inst_comma(b);
    inst_address(b, in);
    in->op.fn = exec_ld;
    space_class(in, false);
}

static void decode_st(Build *b, Inst *in) {
    in->op.vec = 1;
    memory_parts(b, in, 1);
    inst_address(b, in);
    inst_comma(b);
    int n = inst_vector(b, in, 0, false);
    if (n != in->op.vec) build_fail(b, "%s: %d registers", in->opcode, n);
    in->op.fn = exec_st;
    space_class(in, true);
}

/* atom.global.add.u32 d, [a], b{, c};  red has no d. */
static void decode_atom(Build *b, Inst *in) {
    static const char *names[] = {"add", "min", "max", "inc", "dec", "exch", "cas", "and", "or",
                                  "xor"};
    static const struct { const char *name; uint8_t type, bytes; } types[] = {
        {"u32", TY_U, 4}, {"s32", TY_S, 4}, {"b32", TY_B, 4}, {"f32", TY_F, 4}, {"u64", TY_U, 8},
        {"s64", TY_S, 8}, {"b64", TY_B, 8}, {"f64", TY_F, 8}, {"f16x2", TY_F16X2, 4},
        {"bf16x2", TY_BF16X2, 4}, {"f16", TY_F16, 2}, {"bf16", TY_BF16, 2}, {"b16", TY_B, 2}};
    int op = -1, kept = 0;
    bool red = !strcmp(in->part[0], "red");
    char *last = in->part[in->nparts - 1];
    for (int i = 1; i < in->nparts - 1; i++) {
        int k = 0;
        while (k < 10 && strcmp(names[k], in->part[i])) k++;
        if (k < 10) op = k;
        else in->part[1 + kept++] = in->part[i];
    }
    static char word[] = "b32";
    in->nparts = kept + 2;
    in->part[kept + 1] = word;
    memory_parts(b, in, 1);
    in->op.size = 0;
    for (size_t k = 0; k < sizeof types / sizeof *types; k++)
        if (!strcmp(types[k].name, last)) {
            in->op.mode2 = types[k].type;
            in->op.size = types[k].bytes;
        }
    if (op < 0 || !in->op.size) build_fail(b, "unknown instruction '%s'", in->opcode);
    in->op.mode = (uint8_t)op;
    in->op.strong = 1;
    in->op.vec = 1;
    in->op.cls = C_ATOM;
    in->op.fn = exec_atom;
    int width = in->op.size == 8 ? 64 : 32;
    if (red)
        inst_add(b, in, (Opnd){build_register(b, (uint8_t)width), BASE_REG, (uint8_t)width, 0, 1});
    else { inst_add(b, in, inst_dest(b, in, width, 0)); inst_comma(b); }
    in->op.ndst = 1;
    inst_address(b, in);
    for (int k = 0; k < (op == AT_CAS ? 2 : 1); k++) {
        inst_comma(b);
        inst_add(b, in, inst_source(b, in, width));
    }
}

/* cvta.to.global.u64 d, a;  cvta.shared.u64 d, a */
static void decode_cvta(Build *b, Inst *in) {
    bool to = inst_has(in, "to");
    in->op.space = inst_has(in, "shared") || inst_has(in, "shared::cta") ? S_SHARED
                 : inst_has(in, "local") ? S_LOCAL : S_GLOBAL;
    in->op.mode = to;
    in->op.fn = exec_cvta;
    in->op.cls = C_INT;
    in->op.ndst = 1;
    int width = atoi(in->part[in->nparts - 1] + 1);
    inst_add(b, in, inst_dest(b, in, width, 0));
    inst_comma(b);
    inst_add(b, in, inst_source(b, in, width));
}

static void decode_isspacep(Build *b, Inst *in) {
    in->op.space = inst_has(in, "shared") ? S_SHARED : inst_has(in, "local") ? S_LOCAL : S_GLOBAL;
    in->op.fn = exec_isspace;
    in->op.cls = C_PRED;
    in->op.ndst = 1;
    inst_add(b, in, inst_predicate(b, in, true));
    inst_comma(b);
    inst_add(b, in, inst_source(b, in, 64));
}

/* cp.async.cg.shared.global [dst], [src], 16{, size};  commit_group;  wait_group N; */
static void decode_cp(Build *b, Inst *in) {
    in->op.cls = C_ASYNC;
    if (inst_has(in, "commit_group")) { in->op.fn = exec_cp_commit; return; }
    if (inst_has(in, "wait_all") || inst_has(in, "wait_group")) {
        in->op.fn = exec_cp_wait;
        in->op.mode = inst_has(in, "wait_all");
        in->op.imm = in->op.mode ? 0 : (int64_t)ptx_integer(b);
        return;
    }
    if (!inst_has(in, "async") || !inst_has(in, "global") || inst_has(in, "bulk") ||
        inst_has(in, "mbarrier"))
        build_fail(b, "unknown instruction '%s'", in->opcode);
    in->op.fn = exec_cp_async;
    inst_address(b, in);
    int64_t shared_imm = in->op.imm;
    in->op.imm = 0;
    inst_comma(b);
    inst_address(b, in);
    in->op.target = (int32_t)shared_imm;
    inst_comma(b);
    in->op.size = (uint8_t)ptx_integer(b);
    if (in->op.size != 4 && in->op.size != 8 && in->op.size != 16)
        build_fail(b, "%s: copy size %u", in->opcode, in->op.size);
    bool sized = build_accept(b, ",");
    inst_add(b, in, sized ? inst_source(b, in, 32) : inst_constant(b, in->op.size, 32));
}

/* ldmatrix.sync.aligned.m8n8.x4{.trans}.shared.b16 {..}, [a];  stmatrix [a], {..} */
static void decode_matrix(Build *b, Inst *in) {
    bool store = !strcmp(in->part[0], "stmatrix");
    in->op.vec = inst_has(in, "x4") ? 4 : inst_has(in, "x2") ? 2 : 1;
    in->op.trans = inst_has(in, "trans");
    in->op.space = S_SHARED;
    in->op.size = 16;
    in->op.cls = C_LDSM;
    in->op.fn = store ? exec_stmatrix : exec_ldmatrix;
    if (!inst_has(in, "m8n8") || !inst_has(in, "b16"))
        build_fail(b, "unknown instruction '%s'", in->opcode);
    if (store) { inst_address(b, in); inst_comma(b); }
    int n = inst_vector(b, in, 32, !store);
    if (n != in->op.vec) build_fail(b, "%s: %d registers", in->opcode, n);
    if (!store) { in->op.ndst = (uint8_t)n; inst_comma(b); inst_address(b, in); }
}

/* mma.sync.aligned.m16n8kK.row.col.D.A.B.C d, a, b, c */
static void decode_mma(Build *b, Inst *in) {
    static const struct { const char *tail; uint8_t kind, ks; } kinds[] = {
        {"row.col.f32.bf16.bf16.f32", MMA_BF16_F32, 2}, {"row.col.f32.f16.f16.f32", MMA_F16_F32, 2},
        {"row.col.f16.f16.f16.f16", MMA_F16_F16, 2}, {"row.col.f32.tf32.tf32.f32", MMA_TF32, 1},
        {"row.col.s32.s8.s8.s32", MMA_S8, 4}, {"row.col.s32.u8.u8.s32", MMA_U8, 4}};
    const char *shape = in->nparts > 4 ? in->part[3] : "";
    const char *tail = strstr(in->opcode, "row.col.");
    int k = 0, n = (int)(sizeof kinds / sizeof *kinds);
    while (k < n && (!tail || strcmp(kinds[k].tail, tail))) k++;
    int depth = !strncmp(shape, "m16n8k", 6) ? atoi(shape + 6) : 0;
    if (k == n || !depth || depth % (4 * kinds[k].ks) || depth > 8 * kinds[k].ks)
        build_fail(b, "unknown instruction '%s'", in->opcode);
    in->op.mode = kinds[k].kind;
    in->op.imm = depth;
    in->op.cls = C_MMA;
    in->op.fn = exec_mma;
    in->op.ndst = (uint8_t)inst_vector(b, in, 32, true);
    for (int i = 0; i < 3; i++) { inst_comma(b); inst_vector(b, in, 32, false); }
    int words = kinds[k].kind == MMA_F16_F16 ? 2 : 4, a = depth / (2 * kinds[k].ks);
    if (in->op.ndst != words || in->n != 2 * words + a + a / 2)
        build_fail(b, "%s: %d operands", in->opcode, in->n);
}

/* ---- warp-wide and control ---- */

static void decode_shfl(Build *b, Inst *in) {
    in->op.mode = inst_has(in, "up")     ? SHFL_UP
                  : inst_has(in, "down") ? SHFL_DOWN
                  : inst_has(in, "bfly") ? SHFL_BFLY
                                         : SHFL_IDX;
    if (!inst_has(in, "sync")) build_fail(b, "unknown instruction '%s'", in->opcode);
    in->op.fn = exec_shfl;
    in->op.cls = C_SHFL;
    in->op.ndst = 2;
    inst_add(b, in, inst_dest(b, in, 32, 0));
    bool p = build_accept(b, "|");
    inst_add(b, in, p ? inst_predicate(b, in, true) : (Opnd){b->npred++, BASE_PRED, 1, 0, 1});
    for (int k = 0; k < 4; k++) { inst_comma(b); inst_add(b, in, inst_source(b, in, 32)); }
}

static void decode_vote(Build *b, Inst *in) {
    in->op.mode = inst_has(in, "all")   ? VOTE_ALL
                  : inst_has(in, "any") ? VOTE_ANY
                  : inst_has(in, "uni") ? VOTE_UNI
                                        : VOTE_BALLOT;
    if (!inst_has(in, "sync")) build_fail(b, "unknown instruction '%s'", in->opcode);
    in->op.fn = exec_vote;
    in->op.cls = C_SHFL;
    in->op.ndst = 1;
    inst_add(b, in,
             in->op.mode == VOTE_BALLOT ? inst_dest(b, in, 32, 0) : inst_predicate(b, in, true));
    inst_comma(b);
    inst_add(b, in, inst_predicate(b, in, false));
    inst_comma(b);
    inst_add(b, in, inst_source(b, in, 32));
}

static void decode_match(Build *b, Inst *in) {
    int width = inst_has(in, "b64") ? 64 : 32;
    in->op.mode = inst_has(in, "all");
    in->op.size = (uint8_t)(width / 8);
    in->op.fn = exec_match;
    in->op.cls = C_SHFL;
    in->op.ndst = 2;
    inst_add(b, in, inst_dest(b, in, 32, 0));
    bool p = build_accept(b, "|");
    inst_add(b, in, p ? inst_predicate(b, in, true) : (Opnd){b->npred++, BASE_PRED, 1, 0, 1});
    inst_comma(b);
    inst_add(b, in, inst_source(b, in, width));
    inst_comma(b);
    inst_add(b, in, inst_source(b, in, 32));
}

static void decode_redux(Build *b, Inst *in) {
    static const struct { const char *name; uint8_t op; } ops[] = {
        {"add", AT_ADD}, {"min", AT_MIN}, {"max", AT_MAX}, {"and", AT_AND}, {"or", AT_OR},
        {"xor", AT_XOR}};
    size_t k = 0;
    while (k < 6 && !inst_has(in, ops[k].name)) k++;
    if (k == 6 || inst_has(in, "f32")) build_fail(b, "unknown instruction '%s'", in->opcode);
    in->op.mode = ops[k].op;
    in->op.mode2 = inst_has(in, "s32") ? TY_S : TY_U;
    in->op.fn = exec_redux;
    in->op.cls = C_SHFL;
    in->op.ndst = 1;
    inst_add(b, in, inst_dest(b, in, 32, 0));
    for (int i = 0; i < 2; i++) { inst_comma(b); inst_add(b, in, inst_source(b, in, 32)); }
}

static void decode_activemask(Build *b, Inst *in) {
    in->op.fn = exec_activemask;
    in->op.cls = C_SHFL;
    in->op.ndst = 1;
    inst_add(b, in, inst_dest(b, in, 32, 0));
}

static void decode_elect(Build *b, Inst *in) {
    in->op.fn = exec_elect;
    in->op.cls = C_SHFL;
    in->op.ndst = 2;
    inst_add(b, in, inst_dest(b, in, 32, 0));
    build_expect(b, "|");
    inst_add(b, in, inst_predicate(b, in, true));
    inst_comma(b);
    inst_add(b, in, inst_source(b, in, 32));
}

/* bar.sync id{, n};  bar.arrive id, n;  bar.warp.sync mask;  bar.red.popc.u32 d, id{, n}, p */
static void decode_bar(Build *b, Inst *in) {
    in->op.cls = C_SYNC;
    if (inst_has(in, "warp")) {
        in->op.fn = exec_warp_sync;
        inst_add(b, in, inst_source(b, in, 32));
        return;
    }
    in->op.fn = exec_barrier;
    in->op.mode = inst_has(in, "arrive") ? BAR_ARRIVE : inst_has(in, "popc") ? BAR_POPC
                : inst_has(in, "and") ? BAR_AND : inst_has(in, "or") ? BAR_OR : BAR_SYNC;
    bool red = in->op.mode >= BAR_POPC;
    if (red) {
        in->op.ndst = 1;
        inst_add(b, in,
                 in->op.mode == BAR_POPC ? inst_dest(b, in, 32, 0) : inst_predicate(b, in, true));
        inst_comma(b);
    }
    inst_add(b, in, inst_source(b, in, 32));
    Opnd count = inst_constant(b, 0, 32), p = {0, BASE_PRED, 1, 0, 0};
    while (build_accept(b, ",")) {
        bool number = b->x.tok.kind == T_NUMBER;
        Opnd o;
        char name[PTX_NAME];
        snprintf(name, sizeof name, "%.*s", (int)(b->x.tok.end - b->x.tok.p), b->x.tok.p);
        if (!number && (lex_is(&b->x, "!") || (build_reg(b, name, &o) && o.base == BASE_PRED)))
            p = inst_predicate(b, in, false);
        else
            count = inst_source(b, in, 32);
    }
    inst_add(b, in, count);
    inst_add(b, in, p);
}

static void decode_fence(Build *b, Inst *in) {
    (void)b;
    in->op.fn = exec_fence;
    in->op.cls = C_SYNC;
    in->op.mode = inst_has(in, "cta") || inst_has(in, "proxy") ? 0 : 1;
}

static void decode_bra(Build *b, Inst *in) {
    char label[128];
    build_word(b, label, sizeof label);
    in->op.fn = exec_bra;
    in->op.cls = C_BRANCH;
    in->op.target = build_label(b, label);
}

/* brx.idx %r, table */
static void decode_brx(Build *b, Inst *in) {
    inst_add(b, in, inst_source(b, in, 32));
    inst_comma(b);
    char name[PTX_NAME];
    build_word(b, name, sizeof name);
    int k = 0;
    while (k < b->ntables && strcmp(b->tables[k].name, name)) k++;
    if (k == b->ntables) build_fail(b, "unknown branch table '%s'", name);
    in->op.fn = exec_brx;
    in->op.cls = C_BRANCH;
    in->op.imm = b->tables[k].n;
    in->op.targets = ptx_own(b->mod, sizeof(int32_t) * (size_t)b->tables[k].n);
    if (!in->op.targets) build_fail(b, "out of memory");
    memcpy(in->op.targets, b->tables[k].ops, sizeof(int32_t) * (size_t)b->tables[k].n);
}

static void decode_exit(Build *b, Inst *in) {
    (void)b;
    in->op.fn = exec_exit;
    in->op.cls = C_BRANCH;
}

/* Only what assert() and printf() compile to: call (retval0), name, (param0, ...); */
static void decode_call(Build *b, Inst *in) {
    char name[PTX_NAME];
    if (build_accept(b, "(")) {
        build_word(b, name, sizeof name);
        build_expect(b, ")");
        inst_comma(b);
    }
    build_word(b, name, sizeof name);
    in->op.mode = !strcmp(name, "__assertfail") ? CALL_ASSERT : CALL_PRINTF;
    if (in->op.mode == CALL_PRINTF && strcmp(name, "vprintf"))
        build_fail(b, "call of '%s': only assert and printf can be called", name);
    in->op.fn = exec_call;
    in->op.cls = C_OTHER;
    in->op.targets = ptx_own(b->mod, 8 * sizeof(int32_t));
    if (!in->op.targets) build_fail(b, "out of memory");
    inst_comma(b);
    build_expect(b, "(");
    do {
        build_word(b, name, sizeof name);
        uint8_t space;
        if (in->op.imm == 8) build_fail(b, "call with more than 8 parameters");
        in->op.targets[in->op.imm++] = (int32_t)inst_symbol_value(b, name, &space);
    } while (build_accept(b, ","));
    build_expect(b, ")");
}

static void decode_skip(Build *b, Inst *in) {
    in->op.fn = exec_nop;
    in->op.cls = C_OTHER;
    while (!lex_is(&b->x, ";") && b->x.tok.kind != T_END) lex_next(&b->x);
}

static void decode_prefetch(Build *b, Inst *in) {
    if (!inst_has(in, "global") || strncmp(in->part[in->nparts - 1], "L2", 2)) {
        decode_skip(b, in);
        return;
    }
    in->op.fn = exec_prefetch;
    in->op.cls = C_LDG;
    in->op.space = S_GLOBAL;
    inst_address(b, in);
}

static void decode_trap(Build *b, Inst *in) {
    (void)b;
    in->op.fn = exec_trap;
    in->op.cls = C_OTHER;
}

static void decode_pdl(Build *b, Inst *in) {
    (void)b;
    in->op.fn = inst_has(in, "wait") ? exec_pdl_wait : exec_nop;
    in->op.cls = C_SYNC;
}

static const struct { const char *name; void (*decode)(Build *b, Inst *in);
} decoders[] = {
    {"setp", decode_setp},
    {"set", decode_set},
    {"selp", decode_selp},
    {"mov", decode_mov},
    {"ld", decode_ld},
    {"ldu", decode_ld},
    {"st", decode_st},
    {"atom", decode_atom},
    {"red", decode_atom},
    {"cvta", decode_cvta},
    {"isspacep", decode_isspacep},
    {"cp", decode_cp},
    {"ldmatrix", decode_matrix},
    {"stmatrix", decode_matrix},
    {"mma", decode_mma},
    {"shfl", decode_shfl},
    {"vote", decode_vote},
    {"match", decode_match},
    {"redux", decode_redux},
    {"activemask", decode_activemask},
    {"elect", decode_elect},
    {"bar", decode_bar},
    {"barrier", decode_bar},
    {"membar", decode_fence},
    {"fence", decode_fence},
    {"bra", decode_bra},
    {"brx", decode_brx},
    {"ret", decode_exit},
    {"exit", decode_exit},
    {"call", decode_call},
    {"trap", decode_trap},
    {"griddepcontrol", decode_pdl},
    {"prefetch", decode_prefetch},
    {"prefetchu", decode_skip},
    {"nanosleep", decode_skip},
    {"pmevent", decode_skip},
    {"brkpt", decode_skip},
    {"discard", decode_skip},
    {"applypriority", decode_skip},
};

static void decode(Build *b, Inst *in) {
    if (!strcmp(in->part[in->nparts - 1], "pred") && strcmp(in->part[0], "vote") &&
        strcmp(in->part[0], "bar") && strcmp(in->part[0], "barrier")) {
        decode_pred(b, in);
        return;
    }
    for (size_t i = 0; i < sizeof decoders / sizeof *decoders; i++)
        if (!strcmp(decoders[i].name, in->part[0])) {
            decoders[i].decode(b, in);
            return;
        }
    const AluForm *f = alu_find(in->opcode);
    if (!f || !f->fn) build_fail(b, "unknown instruction '%s'", in->opcode);
    decode_alu(b, in, f);
}

void ptx_instruction(Build *b) {
    Inst *in = &(Inst){.op = {.pred = -1}};
    if (build_accept(b, "@")) {
        Opnd p = inst_predicate(b, in, false);
        in->op.pred = (int16_t)p.off;
        in->op.pneg = p.neg;
        if (p.off > INT16_MAX) build_fail(b, "more than 32767 predicates");
    }
    build_word(b, in->opcode, sizeof in->opcode);
    memcpy(in->split, in->opcode, sizeof in->split);
    for (char *p = strtok(in->split, "."); p && in->nparts < MAX_PARTS; p = strtok(NULL, "."))
        in->part[in->nparts++] = p;
    if (!in->nparts) build_fail(b, "expected an instruction");
    in->op.text = ptx_own(b->mod, strlen(in->opcode) + 1);
    if (!in->op.text) build_fail(b, "out of memory");
    memcpy(in->op.text, in->opcode, strlen(in->opcode) + 1);
    decode(b, in);
    inst_emit(b, &in->op, in->o, in->n);
    for (int i = 0; i < in->npost; i++) inst_emit(b, &in->post[i], in->post_o[i], 2);
    build_expect(b, ";");
}
