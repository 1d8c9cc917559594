/* ptx_lex.c: see ptx_lex.h. */
#include "ptx_lex.h"
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

static void skip_blanks(Lexer *x) {
    for (;;) {
        if (*x->at == '\n') x->line++;
        if (isspace((unsigned char)*x->at)) {
            x->at++;
        } else if (x->at[0] == '/' && x->at[1] == '/') {
            while (*x->at && *x->at != '\n') x->at++;
        } else if (x->at[0] == '/' && x->at[1] == '*') {
            for (x->at += 2; *x->at && !(x->at[0] == '*' && x->at[1] == '/'); x->at++)
                if (*x->at == '\n') x->line++;
            if (*x->at) x->at += 2;
        } else {
            return;
        }
    }
}

static bool word_char(const char *p) {
    if (isalnum((unsigned char)*p) || *p == '_' || *p == '$' || *p == '%' || *p == '.') return true;
    return *p == ':' && (p[1] == ':' || p[-1] == ':');
}

void lex_next(Lexer *x) {
    skip_blanks(x);
    const char *p = x->at;
    Token *t = &x->tok;
    t->p = p;
    if (!*p) {
        t->kind = T_END;
    } else if (isdigit((unsigned char)*p) || (*p == '-' && isdigit((unsigned char)p[1]))) {
        t->kind = T_NUMBER;
        for (p++; isalnum((unsigned char)*p) || *p == '.'; p++) continue;
    } else if (*p == '"') {
        t->kind = T_STRING;
        for (p++; *p && *p != '"'; p++) continue;
        if (*p) p++;
    } else if (word_char(p)) {
        t->kind = T_WORD;
        bool directive = *p == '.';            /* `.reg.b32 x` is `.reg .b32 x` */
        for (p++; word_char(p) && !(directive && *p == '.'); p++) continue;
    } else {
        t->kind = T_PUNCT;
        p++;
    }
    t->end = x->at = p;
}

bool lex_is(const Lexer *x, const char *s) {
    size_t n = (size_t)(x->tok.end - x->tok.p);
    return x->tok.kind != T_END && strlen(s) == n && !memcmp(x->tok.p, s, n);
}

uint64_t lex_number(const Lexer *x) {
    const char *p = x->tok.p;
    if (p[0] == '0' && (p[1] == 'f' || p[1] == 'F' || p[1] == 'd' || p[1] == 'D'))
        return strtoull(p + 2, NULL, 16);
    if (*p == '-') return (uint64_t)strtoll(p, NULL, 0);
    return strtoull(p, NULL, 0);
}

void lex_skip_line(Lexer *x) {
    while (*x->at && *x->at != '\n') x->at++;
}
