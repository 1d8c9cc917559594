/* embed.h: files that are part of the binary: EMBED(name, "path") makes web_name[] and web_name_end[],
 * NUL-terminated beyond the end. The make rule in Makefile.inc keeps them fresh. */
#ifndef SERVE_EMBED_H
#define SERVE_EMBED_H

#define EMBED(name, file)                                                                  \
    __asm__(".section .rodata\n.balign 16\n"                                               \
            ".global web_" #name "\nweb_" #name ":\n.incbin \"" file "\"\n"                 \
            ".global web_" #name "_end\nweb_" #name "_end:\n.byte 0\n.previous\n");          \
    extern const char web_##name[], web_##name##_end[]

#endif
