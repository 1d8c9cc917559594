/* sandbox.h: untrusted picture files are decoded in a child process that can do nothing else.
 *
 * A small helper process is forked before the model is opened (so it holds no weights, keys or
 * sockets); for every picture it forks a child with CPU, memory and time limits and a seccomp
 * filter that leaves it read, write and memory calls. What comes back is plain RGB as a PPM. A
 * decoder bug can crash or fool that child and nothing more.
 */
#ifndef SERVE_SANDBOX_H
#define SERVE_SANDBOX_H

#include "serve/serve.h"

/* Then the decoder has neither filter nor memory limit. */
#ifndef __has_feature
#define __has_feature(name) 0         /* GCC has macros instead */
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || __has_feature(address_sanitizer) || \
    __has_feature(thread_sanitizer)
#define SANITIZED 1                   /* sanitizers reserve terabytes and make odd calls */
#else
#define SANITIZED 0
#endif

typedef struct confined_picture {
    char *ppm;                        /* "P6\nW H\n255\n" + RGB, oriented; malloc'd         */
    size_t len;
    char format[12];
    int orientation, n_warnings;
    char warnings[8][64];
    double decode_s;
} confined_picture;

/* Call while the process has one thread. */
int sandbox_open(sandbox **out, vl_err *err);
void sandbox_close(sandbox *s);
/* False: the helper has ended (killed for memory?), so that no picture can be decoded any more. NULL is alive. */
bool sandbox_alive(const sandbox *s);
/* Decodes a picture of one pixel: tells where nothing can be, because a filter of system calls around the server (of
 * a service manager or a container) forbids what confines the decoder. */
int sandbox_try(sandbox *s, vl_err *err);
/* Any thread. `seconds` of processor time, and four times that by the clock; more is VL_E_LIMIT. A crash
 * is an error like any other undecodable picture. */
int sandbox_decode(sandbox *s, const void *bytes, size_t len, const vl_picture_params *params,
                   double seconds, confined_picture *out, vl_err *err);

#endif
