/* sandbox.c: see sandbox.h.
 *
 *   server --(one SOCK_SEQPACKET message with two descriptors)--> helper --fork--> child
 *     memfd: decode parameters + the file's bytes                     reads it, confines itself
 *     pipe:  header + PPM, or header + error                          <-- writes the answer, exits
 *
 * Easy to get wrong: a timeout must end the child, not just the wait (its timers do, RLIMIT_CPU beside
 * them); and the child's word is not trusted: sizes are re-checked.
 */
#include "serve/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "loader/image.h"

enum { WALL = 4 };                    /* seconds by the clock for one of processor time */

struct sandbox { int fd; pid_t helper; pthread_mutex_t lock; };

typedef struct order { vl_picture_params params; double seconds; size_t len; } order;
typedef struct answer {
    int code;                         /* VL_OK or the error                                 */
    char msg[256], format[12];
    int width, height, orientation, n_warnings;
    char warnings[8][64];
    double decode_s;
} answer;

/* ---- in the child ------------------------------------------------------------------------- */

/* What a timer's signal says before it ends the child: only while the decoder runs, since afterwards the
 * answer is on its way already. */
static answer too_slow = {.code = VL_E_LIMIT};
static int too_slow_to;
static volatile sig_atomic_t decoding;

static void on_timer(int sig) {
    if (decoding && write(too_slow_to, &too_slow, sizeof too_slow) != (ssize_t)sizeof too_slow) _exit(1);
    if (decoding || sig == SIGALRM) _exit(0);
}

static struct itimerval timer(double seconds) {
    double whole = floor(seconds);     /* and not 0, which would be no timer */
    return (struct itimerval){.it_value = {(time_t)whole, 1 + (suseconds_t)((seconds - whole) * 999998)}};
}

/* Time is what a picture costs, so processor time; by the clock it may take longer, since the machine may
 * have other things to do. */
static int limit_time(const order *o, int out) {
    rlim_t cpu = (rlim_t)ceil(o->seconds) + 1;
    struct rlimit cpu_limit = {cpu, cpu + 1};
    struct itimerval used = timer(o->seconds), wall = timer(o->seconds * WALL);
    too_slow_to = out;
    snprintf(too_slow.msg, sizeof too_slow.msg, "the picture takes more than %g s to decode, the limit", o->seconds);
    signal(SIGALRM, on_timer);
    signal(SIGPROF, on_timer);
    return setrlimit(RLIMIT_CPU, &cpu_limit) || setitimer(ITIMER_PROF, &used, NULL) ||
           setitimer(ITIMER_REAL, &wall, NULL);
}

static int confine(const order *o, int out) {
    double pixels = o->params.max_decoded_pixels > 0 ? (double)o->params.max_decoded_pixels : 5e7;
    rlim_t memory = (rlim_t)(pixels * 16) + (256u << 20);
    struct rlimit none = {0, 0}, memory_limit = {memory, memory};
    decoding = 1;
    if (limit_time(o, out) || setrlimit(RLIMIT_CORE, &none) || setrlimit(RLIMIT_NPROC, &none) ||
        setrlimit(RLIMIT_FSIZE, &none) || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        return -1;
    if (SANITIZED) return 0;
    static const int allowed[] = {
        SCMP_SYS(read), SCMP_SYS(write), SCMP_SYS(close), SCMP_SYS(brk), SCMP_SYS(mmap),
        SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(madvise), SCMP_SYS(futex),
        SCMP_SYS(clock_gettime), SCMP_SYS(getrandom), SCMP_SYS(rt_sigreturn), SCMP_SYS(exit),
        SCMP_SYS(exit_group),
    };
    if (setrlimit(RLIMIT_AS, &memory_limit)) return -1;
    scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_KILL_PROCESS);
    if (!ctx) return -1;
    int rc = 0;
    for (size_t i = 0; i < sizeof allowed / sizeof *allowed && rc == 0; i++)
        rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, allowed[i], 0);
    if (rc == 0) rc = seccomp_load(ctx);
    seccomp_release(ctx);
    return rc;
}

static void write_all(int fd, const void *data, size_t n) {
    for (const char *p = data; n;) {
        ssize_t k = write(fd, p, n);
        if (k <= 0) _exit(1);
        p += k;
        n -= (size_t)k;
    }
}

static _Noreturn void child_main(int in, int out) {
    answer a = {0};
    vl_image im = {0};
    vl_err err = {0};
    struct stat st;
    if (fstat(in, &st) || (size_t)st.st_size < sizeof(order)) _exit(1);
    const order *o = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, in, 0);
    if (o == MAP_FAILED || o->len != (size_t)st.st_size - sizeof *o || confine(o, out)) _exit(1);
    double t = vl_now();
    int bad = vl_image_decode(&im, o + 1, o->len, "image", &o->params, &err);
    decoding = 0;
    if (bad) {
        a.code = err.code ? err.code : VL_E_INPUT;
        snprintf(a.msg, sizeof a.msg, "%s", err.msg);
        write_all(out, &a, sizeof a);
        _exit(0);
    }
    a.decode_s = vl_now() - t;
    a.width = im.width;
    a.height = im.height;
    a.orientation = im.orientation;
    a.n_warnings = im.n_warnings;
    snprintf(a.format, sizeof a.format, "%s", im.format);
    for (int i = 0; i < im.n_warnings; i++)
        snprintf(a.warnings[i], sizeof a.warnings[i], "%s", im.warnings[i]);
    write_all(out, &a, sizeof a);
    write_all(out, im.rgb, (size_t)im.width * (size_t)im.height * 3);
    _exit(0);
}

/* ---- in the helper ------------------------------------------------------------------------ */

static int receive(int fd, int fds[2]) {
    char byte, control[CMSG_SPACE(2 * sizeof(int))];
    struct iovec io = {&byte, 1};
    struct msghdr m = {.msg_iov = &io, .msg_iovlen = 1, .msg_control = control,
                       .msg_controllen = sizeof control};
    ssize_t n;
    while ((n = recvmsg(fd, &m, MSG_CMSG_CLOEXEC)) < 0 && errno == EINTR) continue;
    struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&m) : NULL;
    if (!c || c->cmsg_len != CMSG_LEN(2 * sizeof(int))) return -1;
    memcpy(fds, CMSG_DATA(c), 2 * sizeof(int));
    return 0;
}

static _Noreturn void helper_main(int fd) {
    static const answer no_process = {.code = VL_E_IO, .msg = "picture sandbox: no process could be started"};
    int fds[2];
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_NAME, "vitreous-decode");
    signal(SIGINT, SIG_IGN);          /* Ctrl-C is the server's to handle */
    signal(SIGTERM, SIG_IGN);
    signal(SIGCHLD, SIG_IGN);         /* children are reaped by the kernel */
    while (receive(fd, fds) == 0) {
        pid_t pid = fork();
        if (pid == 0) {
            close(fd);
            child_main(fds[0], fds[1]);
        }
        if (pid < 0) (void)!write(fds[1], &no_process, sizeof no_process); /* not the picture's fault */
        close(fds[0]);
        close(fds[1]);
    }
    _exit(0);
}

/* ---- in the server ------------------------------------------------------------------------ */

int sandbox_open(sandbox **out, vl_err *err) {
    int pair[2];
    sandbox *s = vl_calloc(1, sizeof *s);
    if (!s) return vl_fail(err, VL_E_NOMEM, "out of memory");
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair)) {
        free(s);
        return vl_fail(err, VL_E_IO, "picture sandbox: socketpair: %s", strerror(errno));
    }
    fflush(NULL);
    s->helper = fork();
    if (s->helper == 0) {
        close(pair[0]);
        helper_main(pair[1]);
    }
    close(pair[1]);
    s->fd = pair[0];
    pthread_mutex_init(&s->lock, NULL);
    if (s->helper < 0) {
        sandbox_close(s);
        return vl_fail(err, VL_E_IO, "picture sandbox: fork: %s", strerror(errno));
    }
    *out = s;
    return 0;
}

void sandbox_close(sandbox *s) {
    if (!s) return;
    close(s->fd);                     /* the helper sees the end and leaves */
    pthread_mutex_destroy(&s->lock);
    free(s);
}

bool sandbox_alive(const sandbox *s) {
    siginfo_t ended = {0};
    return !s || (!waitid(P_PID, (id_t)s->helper, &ended, WEXITED | WNOHANG | WNOWAIT) && ended.si_pid == 0);
}

static int send_order(sandbox *s, int memory, int pipe_end) {
    char byte = 0, control[CMSG_SPACE(2 * sizeof(int))] = {0};
    int fds[2] = {memory, pipe_end};
    struct iovec io = {&byte, 1};
    struct msghdr m = {.msg_iov = &io, .msg_iovlen = 1, .msg_control = control,
                       .msg_controllen = sizeof control};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof fds);
    memcpy(CMSG_DATA(c), fds, sizeof fds);
    pthread_mutex_lock(&s->lock);
    ssize_t n = sendmsg(s->fd, &m, MSG_NOSIGNAL);
    pthread_mutex_unlock(&s->lock);
    return n == 1 ? 0 : -1;
}

static int read_all(int fd, void *to, size_t n, double until) {
    for (char *p = to; n;) {
        struct pollfd w = {fd, POLLIN, 0};
        double left = until - vl_now();
        if (left <= 0 || poll(&w, 1, (int)(left * 1e3) + 1) <= 0) return -1;
        ssize_t k = read(fd, p, n);
        if (k <= 0) return -1;
        p += k;
        n -= (size_t)k;
    }
    return 0;
}

static int read_answer(int fd, const vl_picture_params *params, double until,
                       confined_picture *out, vl_err *err) {
    static const char stopped[] = "the picture could not be decoded within its limits of time and "
                                  "memory, or is damaged in a way that stopped the decoder";
    answer a;
    if (read_all(fd, &a, sizeof a, until)) return vl_fail(err, VL_E_INPUT, stopped);
    a.msg[sizeof a.msg - 1] = a.format[sizeof a.format - 1] = 0;
    if (a.code) return vl_fail(err, a.code, "%s", a.msg);
    int64_t max = params->max_decoded_pixels > 0 ? params->max_decoded_pixels : 50000000;
    if (a.width < 1 || a.height < 1 || (int64_t)a.width * a.height > max || a.n_warnings < 0 ||
        a.n_warnings > 8 || a.orientation < 1 || a.orientation > 8)
        return vl_fail(err, VL_E_INPUT, stopped);
    char head[48];
    size_t h = (size_t)snprintf(head, sizeof head, "P6\n%d %d\n255\n", a.width, a.height);
    size_t n = (size_t)a.width * (size_t)a.height * 3;
    if (!(out->ppm = malloc(h + n))) return vl_fail(err, VL_E_NOMEM, "out of memory");
    memcpy(out->ppm, head, h);
    if (read_all(fd, out->ppm + h, n, until)) return vl_fail(err, VL_E_INPUT, stopped);
    out->len = h + n;
    out->orientation = a.orientation;
    out->n_warnings = a.n_warnings;
    out->decode_s = a.decode_s;
    memcpy(out->format, a.format, sizeof out->format);
    memcpy(out->warnings, a.warnings, sizeof out->warnings);
    for (int i = 0; i < 8; i++) out->warnings[i][63] = 0;
    return 0;
}

int sandbox_decode(sandbox *s, const void *bytes, size_t len, const vl_picture_params *params,
                   double seconds, confined_picture *out, vl_err *err) {
    order o = {*params, seconds, len};
    int memory = memfd_create("picture", MFD_CLOEXEC), p[2] = {-1, -1}, rc = -1;
    if (memory < 0 || ftruncate(memory, (off_t)(sizeof o + len)) || pipe2(p, O_CLOEXEC)) {
        vl_fail(err, VL_E_IO, "picture sandbox: %s", strerror(errno));
    } else if (pwrite(memory, &o, sizeof o, 0) != (ssize_t)sizeof o ||
               pwrite(memory, bytes, len, sizeof o) != (ssize_t)len ||
               send_order(s, memory, p[1])) {
        vl_fail(err, VL_E_IO, "picture sandbox: the helper process is gone");
    } else {
        close(p[1]);
        p[1] = -1;
        rc = read_answer(p[0], params, vl_now() + seconds * WALL + 1, out, err);
    }
    if (memory >= 0) close(memory);
    if (p[0] >= 0) close(p[0]);
    if (p[1] >= 0) close(p[1]);
    return rc;
}

int sandbox_try(sandbox *s, vl_err *err) {
    static const char pixel[] = "P5 1 1 255\n";   /* its value is the NUL behind */
    confined_picture c = {0};
    vl_err why = {0};
    vl_picture_params p = {0};
    int rc = sandbox_decode(s, pixel, sizeof pixel, &p, 2, &c, &why);
    free(c.ppm);
    if (!rc) return 0;
    return vl_fail(err, VL_E_UNSUPPORTED, "the process that decodes pictures cannot work here: not even one of a single pixel "
                   "could be decoded. Does a system-call filter of the service manager or container forbid seccomp() "
                   "(systemd 252: SystemCallFilter=seccomp)? --no-sandbox decodes without it");
}
