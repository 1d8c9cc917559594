/* ptx_lex.h: tokens of PTX text. A token is a slice of the text; nothing is copied. */
#ifndef PTX_LEX_H
#define PTX_LEX_H
#include <stdbool.h>
#include <stdint.h>

enum { T_END, T_WORD, T_NUMBER, T_STRING, T_PUNCT };

typedef struct {
    const char *p, *end;      /* the slice */
    int kind;
} Token;

typedef struct {
    const char *at;           /* next unread character */
    int line;                 /* of the PTX text */
    Token tok;                /* current token */
} Lexer;

/* Moves to the next token; comments and blanks are skipped. Words hold letters, digits and
 * _ $ % . : (as in `ld.global.L1::evict_last.v4.u32`); a label's final ':' is not part of it. */
void lex_next(Lexer *x);
bool lex_is(const Lexer *x, const char *s);
/* The value of the current number token: decimal, 0x, 0f (single bits), 0d (double bits). */
uint64_t lex_number(const Lexer *x);
/* Skips the rest of the line (for .loc and .file). */
void lex_skip_line(Lexer *x);
#endif
